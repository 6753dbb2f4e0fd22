/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Put: encode a page, claim what it needs, publish it.  op.c has the law.
 */
#include "cursor.h"
#include "internal.h"

static void forget_key(struct tmem_object *object, uint64_t index)
{
	struct tmem_leaf *leaf = leaf_lock(object, index);

	if (!leaf)
		return;
	leaf_remove(object, leaf, index % LEAF_ENTRIES);
	leaf_unlock(object, leaf);
}

/*
 * What a put is entitled to.  Claimed raw bytes are counted as the tenant's
 * from the moment when the put is found to be guaranteed, so that no two puts
 * use the same rest of a reservation.  One that is not guaranteed, or that
 * replaces a page, is counted when it is published and not before: it may
 * still be refused, and must not use up what another is promised.
 */
struct claim {
	bool guaranteed;
	uint32_t raw;
};

/* @present: the key holds a page, which the new one replaces. */
static struct claim claim_raw(struct tmem_pool *pool, bool present)
{
	uint32_t size = present ? 0 : pool->page_size;
	struct claim claim = { 0 };

	if (pool->arena->persistent && raw_claim(pool, size)) {
		claim.guaranteed = true;
		claim.raw = size;
	}
	return claim;
}

/*
 * Room for index structures that a page at a new place needs, and the cell of
 * its leaf.  A dense index is part of what a reservation costs; one so sparse
 * that it takes more than an eighth of it is not, or a guest could take many
 * times what it has.
 */
static int claim_index(struct tmem_pool *pool, enum cell_kind kind,
		       bool guaranteed, uint32_t *cell)
{
	enum grows grows = arena_index_grows(pool->arena);
	int error = store_may_grow(pool->tenant, grows, INDEX_MOST_BYTES,
				   guaranteed && grows == GROWS_PERSISTENT);

	return error ? error : cell_alloc(pool->arena, kind, guaranteed, cell);
}

/* May the pool store @length bytes more, where @old was? */
static int pool_has_room(struct tmem_pool *pool, uint32_t length,
			 tmem_handle old, bool guaranteed)
{
	uint64_t max = atomic_load(&pool->max), bytes;

	if (guaranteed || max == UINT64_MAX)
		return 0;
	bytes = atomic_load(&pool->count.stored_bytes) + length;
	bytes -= MIN(bytes, handle_length(old));
	if (bytes > max && max && !pool->arena->persistent)
		bytes -= MIN(bytes, clock_evict(pool, bytes - max));
	return max && bytes <= max ? 0 : -ENOSPC;
}

/*
 * Does the tenant hold more persistent pages than it may, though they are packed?
 * Who packed at its limit has taken a segment for it, and has what that gave back.
 */
static bool above_limit(struct tmem_tenant *tenant)
{
	struct arena *arena = &tenant->persistent;

	if (arena_held(arena) <= tenant->persistent_max)
		return false;
	tenant_pack(tenant, SLOTTED_SLOTS_MAX);
	tenant_release(tenant, 4 * SEGMENT_PAGES);
	return arena_held(arena) > tenant->persistent_max;
}

/* Take a slot and fill it.  Frees the old page first if that is what it takes.
 */
static int store_bytes(struct tmem_pool *pool, struct tmem_object *object,
		       uint64_t index, const struct encoded *encoded,
		       bool guaranteed, bool present, struct chunk *chunk)
{
	struct arena *arena = pool->arena;
	int error;

	if (!guaranteed && arena->persistent && above_limit(pool->tenant))
		return -ENOSPC;
	error = arena_alloc(arena, encoded->length, guaranteed, chunk);
	if (error && present) {
		forget_key(object, index);
		error = arena_alloc(arena, encoded->length, guaranteed, chunk);
	}
	if (!error)
		memcpy(chunk->data, encoded->data, encoded->length);
	return error;
}

/*
 * The page becomes visible, and the one that it replaces goes.  Who adopts the
 * store after we were killed in between finds none: the checksum is never that
 * of another page.
 */
static void publish(struct tmem_object *object, struct tmem_leaf *leaf,
		    unsigned int entry, const struct encoded *encoded,
		    struct chunk *chunk, const struct claim *claim)
{
	struct arena *arena = object->pool->arena;
	tmem_handle old = leaf_forget(object, leaf, entry);
	tmem_handle handle = handle_same(encoded->pattern);

	/* Release: after the word was emptied. */
	atomic_store_explicit(leaf_crc(leaf, entry), encoded->crc,
			      memory_order_release);
	if (encoded->type != HANDLE_SAME)
		handle =
			arena_publish(arena, chunk, encoded->type, leaf, entry);
	if (arena->persistent)
		handle |= HANDLE_VISITED;
	atomic_store_explicit(&leaf->word[entry], handle, memory_order_release);
	leaf_count(object, leaf, handle, claim->raw);
	if (handle_has_chunk(old))
		arena_free(arena, old);
}

/* The page's leaf, locked.  @spare: a cell for it, or 0. */
static int leaf_for_put(struct tmem_object *object, uint64_t index,
			bool guaranteed, uint32_t *spare,
			struct tmem_leaf **leaf)
{
	int error = 0;

	while (!(*leaf = leaf_make(object, index, spare)) && !error) {
		enum cell_kind kind;
		tmem_handle old;

		if (*spare)
			return -ENOMEM;
		/* It was there a moment ago: a flush came in between. */
		kind = leaf_needs(object, index, 1, &old);
		if (kind != CELL_NONE)
			error = cell_alloc(object->pool->arena, kind,
					   guaranteed, spare);
	}
	return error;
}

/* @left: pages of the run, this one included. */
static int put_encoded(struct tmem_object *object, uint64_t index,
		       uint64_t left, const struct encoded *encoded)
{
	struct tmem_pool *pool = object->pool;
	bool has_chunk = encoded->type != HANDLE_SAME;
	tmem_handle old;
	enum cell_kind kind = leaf_needs(object, index, left, &old);
	struct claim claim = claim_raw(pool, old != HANDLE_EMPTY);
	struct tmem_leaf *leaf = NULL;
	struct chunk chunk = { 0 };
	uint32_t spare = 0;
	int error = 0;

	error = pool_has_room(pool, encoded->length, old, claim.guaranteed);
	if (!error && kind != CELL_NONE)
		error = claim_index(pool, kind, claim.guaranteed, &spare);
	if (!error && has_chunk) {
		chunk.queue = evict_queue(object, index, old);
		error = store_bytes(pool, object, index, encoded,
				    claim.guaranteed, old != HANDLE_EMPTY,
				    &chunk);
	}
	if (!error) {
		error = leaf_for_put(object, index, claim.guaranteed, &spare,
				     &leaf);
		if (!error) {
			publish(object, leaf, index % LEAF_ENTRIES, encoded,
				&chunk, &claim);
			pthread_mutex_unlock(leaf_stripe(pool, leaf));
		} else if (has_chunk) {
			arena_abort(pool->arena, &chunk);
		}
	}
	if (spare)
		cell_free(pool->arena, spare);
	if (error) {
		/* Refused: an old page under the key would be a stale one. */
		forget_key(object, index);
		raw_sub(pool, claim.raw);
	}
	return error;
}

static void count_refusal(struct tmem_pool *pool, int error)
{
	struct pool_counters *count = &pool->count;

	atomic_fetch_add(error == -ENOSPC  ? &count->refused_limit
			 : error == -EBUSY ? &count->refused_headroom
					   : &count->refused_memory,
			 1);
	atomic_store(&pool->tenant->refused, 1);
}

/*
 * One page of guest memory, wherever it lies.  @length: what it is stored as; in
 * an opaque pool how many of its bytes count, when called.
 */
static int put_page(struct tmem_ctx *ctx, struct tmem_object *object,
		    struct cursor *at, uint64_t index, uint64_t left,
		    uint32_t *length)
{
	uint32_t size = object->pool->page_size;
	uint32_t bytes = object->pool->opaque ? MIN(*length, size) : size;
	char *page = cursor_piece(at, bytes);
	struct encoded encoded;
	int error;

	/* It takes longer to compress the page than to fetch this. */
	leaf_prefetch(object, index);
	if (page)
		cursor_skip(at, bytes);
	else
		cursor_copy(at, page = ctx->page, bytes, false);
	cursor_skip(at, size - bytes);
	if (object->pool->opaque)
		codec_keep(ctx, page, bytes, &encoded);
	else
		codec_encode(ctx, page, size, &encoded);
	encoded.crc =
		encoded.type == HANDLE_SAME
			? codec_checksum_same(ctx->seed, index, encoded.pattern)
			: codec_checksum(ctx->seed, index, encoded.data,
					 encoded.length);
	*length = encoded.length;
	quiesce_read(ctx->store);
	error = put_encoded(object, index, left, &encoded);
	quiesce_done(ctx->store);
	return error;
}

int op_put(struct tmem_ctx *ctx, struct tmem_pool *pool, struct tmem_op *op)
{
	struct cursor at = { op->iov, op->iovcnt, 0 };
	struct tmem_object *object;
	int no_object;

	quiesce_read(ctx->store);
	no_object =
		object_get_or_make(pool, op->object, raw_left(pool), &object);
	quiesce_done(ctx->store);
	cursor_skip(&at, op->skip);
	for (uint64_t i = 0; i < op->count; i++) {
		uint32_t length = op->page[i].length;
		int error = no_object;

		if (!error)
			error = put_page(ctx, object, &at, op->index + i,
					 op->count - i, &length);
		op->page[i].status = error ? TMEM_PAGE_REFUSED : TMEM_PAGE_OK;
		op->page[i].length = error ? 0 : length;
		if (error) {
			count_refusal(pool, error);
		} else {
			op->done++;
			atomic_fetch_add(&pool->count.puts, 1);
		}
	}
	if (object)
		object_put(object);
	return 0;
}
