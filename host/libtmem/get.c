/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Get: copy a page's stored bytes, decode them; and what becomes of pages that
 * an exclusive get has taken.  op.c has the law.
 */
#include "cursor.h"
#include "internal.h"

/* From here on others miss the page.  Returns the number of who took it. */
static uint16_t take(struct tmem_pool *pool, _Atomic tmem_handle *word,
		     tmem_handle handle)
{
	uint16_t taker = atomic_fetch_add(&pool->tenant->takers, 1);

	if (handle_has_chunk(handle))
		*arena_taker(pool->arena, handle) = taker;
	else
		handle = handle_set_taker(handle, taker);
	atomic_store(word, handle | HANDLE_TAKEN);
	return taker;
}

/* Is the page taken, and by @taker?  Another put may have come in between. */
static bool taken_by(struct tmem_pool *pool, tmem_handle handle, uint16_t taker)
{
	if (!(handle & HANDLE_TAKEN))
		return false;
	return taker == (handle_has_chunk(handle)
				 ? *arena_taker(pool->arena, handle)
				 : handle_taker(handle));
}

/*
 * While a page is decoded the caches fetch what the next one of the run needs,
 * if the same leaf has it.  The leaf is locked.
 */
static void prefetch_next(struct tmem_pool *pool, struct tmem_leaf *leaf,
			  uint64_t index)
{
	unsigned int entry = index % LEAF_ENTRIES + 1;
	tmem_handle handle;

	if (entry >= leaf->capacity)
		return;
	handle = atomic_load_explicit(&leaf->word[entry], memory_order_acquire);
	if (handle_has_chunk(handle))
		arena_prefetch(pool->arena, handle);
}

/* What a leaf said of a run's pages when the run came to it. */
struct glance {
	tmem_handle word[LEAF_ENTRIES];
	uint32_t crc[LEAF_ENTRIES];
};

static bool wants_visited(const struct tmem_pool *pool, tmem_handle handle)
{
	return !(handle & HANDLE_VISITED) &&
	       (!pool->arena->persistent ||
		pool->tenant->store->recompress.percent);
}

/* The leaf is locked. */
static void glance_at(struct tmem_pool *pool, struct tmem_leaf *leaf,
		      unsigned int entry, struct glance *glance)
{
	tmem_handle handle =
		atomic_load_explicit(&leaf->word[entry], memory_order_acquire);

	if (handle & HANDLE_TAKEN)
		handle = HANDLE_EMPTY;
	glance->word[entry] = handle;
	glance->crc[entry] = atomic_load_explicit(leaf_crc(leaf, entry),
						  memory_order_relaxed);
	if (handle_type(handle) == HANDLE_SAME && wants_visited(pool, handle))
		atomic_store_explicit(&leaf->word[entry],
				      handle | HANDLE_VISITED,
				      memory_order_relaxed);
}

/*
 * One look at the leaf for all its pages of a run: those that have no bytes need
 * no other.  @left: pages of the run from @index on.
 */
static void glance(struct tmem_pool *pool, struct tmem_object *object,
		   uint64_t index, uint64_t left, struct glance *glance)
{
	unsigned int entry = index % LEAF_ENTRIES;
	unsigned int end = MIN(left, LEAF_ENTRIES - entry) + entry;
	struct tmem_leaf *leaf = object ? leaf_lock(object, index) : NULL;
	unsigned int there = leaf ? MIN(end, leaf->capacity) : entry;

	for (unsigned int i = there; i < end; i++)
		glance->word[i] = HANDLE_EMPTY;
	if (!leaf)
		return;
	for (unsigned int i = entry; i < there; i++)
		glance_at(pool, leaf, i, glance);
	pthread_mutex_unlock(leaf_stripe(pool, leaf));
}

/*
 * The stored bytes of a page, copied to ctx->stored.  HANDLE_EMPTY: a miss.
 * @taker: set if not NULL, and others miss from now on.  @more: the next page
 * is wanted, too.
 */
static tmem_handle fetch(struct tmem_ctx *ctx, struct tmem_pool *pool,
			 struct tmem_object *object, uint64_t index,
			 uint16_t *taker, bool more)
{
	_Atomic tmem_handle *word;
	struct tmem_leaf *leaf;
	tmem_handle handle;

	leaf = object ? leaf_lock(object, index) : NULL;
	if (!leaf)
		return HANDLE_EMPTY;
	word = &leaf->word[index % LEAF_ENTRIES];
	handle = atomic_load_explicit(word, memory_order_acquire);
	if (handle & HANDLE_TAKEN)
		handle = HANDLE_EMPTY;
	if (handle != HANDLE_EMPTY)
		ctx->crc = atomic_load_explicit(leaf_crc(leaf,
							 index % LEAF_ENTRIES),
						memory_order_relaxed);
	if (handle_has_chunk(handle))
		memcpy(ctx->stored, arena_data(pool->arena, handle),
		       handle_length(handle));
	if (taker && handle != HANDLE_EMPTY)
		*taker = take(pool, word, handle);
	else if (handle != HANDLE_EMPTY && wants_visited(pool, handle))
		atomic_store_explicit(word, handle | HANDLE_VISITED,
				      memory_order_relaxed);
	if (more)
		prefetch_next(pool, leaf, index);
	pthread_mutex_unlock(leaf_stripe(pool, leaf));
	return handle;
}

/* What fetch() left in @ctx, into guest memory.  0 or -EIO. */
static int decode(struct tmem_ctx *ctx, uint64_t index, tmem_handle handle,
		  char *page, uint32_t size)
{
	uint32_t pattern = handle;

	if (handle_type(handle) == HANDLE_SAME) {
		if (codec_checksum_same(ctx->seed, index, pattern) != ctx->crc)
			return -EIO;
		codec_fill(page, pattern, size);
		return 0;
	}
	if (handle_type(handle) == HANDLE_LOST ||
	    !codec_sound(ctx, handle_type(handle), index,
			 handle_length(handle)))
		return -EIO;
	return codec_decode(ctx, handle_type(handle), handle_length(handle),
			    page, size);
}

/* Its owner goes to a disk now, which takes longer than to ask the ghost. */
static void count_miss(struct tmem_pool *pool, uint32_t seed, uint64_t index)
{
	atomic_fetch_add(&pool->count.misses, 1);
	if (!pool->arena->persistent && evict_lost(pool, seed, index))
		atomic_fetch_add(&pool->count.refaults, 1);
}

int op_get(struct tmem_ctx *ctx, struct tmem_pool *pool, struct tmem_op *op)
{
	struct tmem_object *object = object_get(pool, op->object);
	struct cursor at = { op->iov, op->iovcnt, 0 };
	bool exclusive = op->flags & TMEM_GET_EXCLUSIVE;
	/* Who takes pages says so under their leaf's lock, each by itself. */
	bool run = op->count > 1 && !exclusive;
	uint32_t size = pool->page_size;
	struct glance seen;

	cursor_skip(&at, op->skip);
	for (uint64_t i = 0; i < op->count; i++) {
		struct tmem_page *result = &op->page[i];
		char *page = cursor_piece(&at, size);
		uint64_t index = op->index + i;
		tmem_handle handle;
		int error;

		result->length = 0;
		if (run && (!i || !(index % LEAF_ENTRIES)))
			glance(pool, object, index, op->count - i, &seen);
		handle = run ? seen.word[index % LEAF_ENTRIES] : HANDLE_EMPTY;
		if (!run || handle_has_chunk(handle))
			handle = fetch(ctx, pool, object, index,
				       exclusive ? &result->internal : NULL,
				       i + 1 < op->count);
		else
			ctx->crc = seen.crc[index % LEAF_ENTRIES];
		if (handle == HANDLE_EMPTY) {
			result->status = TMEM_PAGE_MISS;
			count_miss(pool, ctx->seed, index);
			cursor_skip(&at, size);
			continue;
		}
		error = decode(ctx, index, handle, page ? page : ctx->page,
			       size);
		if (error) {
			result->status = TMEM_PAGE_IO;
			atomic_fetch_add(&pool->count.io_errors, 1);
			cursor_skip(&at, size);
			continue;
		}
		result->status = TMEM_PAGE_OK;
		result->length = handle_length(handle);
		if (page) {
			cursor_skip(&at, size);
		} else {
			uint32_t bytes = pool->opaque ? result->length : size;

			cursor_copy(&at, ctx->page, bytes, true);
			cursor_skip(&at, size - bytes);
		}
		op->done++;
		atomic_fetch_add(&pool->count.gets, 1);
	}
	if (object)
		object_put(object);
	op->internal[0] = (uintptr_t)pool;
	return 0;
}

/* The leaf is locked. */
static void settle_page(struct tmem_object *object, struct tmem_leaf *leaf,
			unsigned int entry, uint16_t taker, bool free)
{
	tmem_handle handle = atomic_load(&leaf->word[entry]);

	if (!taken_by(object->pool, handle, taker))
		return;
	if (free) {
		if (handle_has_chunk(handle))
			evict_note_taken(object,
					 leaf->number << LEAF_SHIFT | entry);
		leaf_remove(object, leaf, entry);
	} else {
		atomic_store(&leaf->word[entry], handle & ~HANDLE_TAKEN);
	}
}

static bool has_taken(const struct tmem_op *op)
{
	return op->verb == TMEM_GET && op->flags & TMEM_GET_EXCLUSIVE &&
	       op->internal[0];
}

/* Pages that an exclusive get returned: free them, or give them back. */
static void settle_taken(struct tmem_ctx *ctx, struct tmem_op *op, bool free)
{
	struct tmem_tenant *tenant = (void *)(uintptr_t)op->internal[1];
	struct tmem_object *object;
	struct tmem_pool *pool;

	if (!has_taken(op))
		return;
	pool = pool_get(tenant, op->pool);
	if (pool && (uintptr_t)pool == op->internal[0]) {
		object = object_get(pool, op->object);
		for (uint64_t i = 0; object && i < op->count; i++) {
			struct tmem_leaf *leaf;

			/* What could not be read was taken, too. */
			if (op->page[i].status != TMEM_PAGE_OK &&
			    op->page[i].status != TMEM_PAGE_IO)
				continue;
			quiesce_read(ctx->store);
			leaf = leaf_lock(object, op->index + i);
			if (leaf) {
				settle_page(object, leaf,
					    (op->index + i) % LEAF_ENTRIES,
					    op->page[i].internal, free);
				leaf_unlock(object, leaf);
			}
			quiesce_done(ctx->store);
		}
		if (object)
			object_put(object);
	}
	if (pool)
		pool_put(pool);
	op->internal[0] = 0;
}

/* @function settles an op of @ctx's store. */
static void check_settled(const char *function, const struct tmem_ctx *ctx,
			  const struct tmem_op *op)
{
	live_check(function, LIVE_CTX, ctx, NULL);
	if (has_taken(op))
		live_check(function, LIVE_TENANT,
			   (void *)(uintptr_t)op->internal[1], ctx->store);
}

void tmem_retire(struct tmem_ctx *ctx, struct tmem_op *op)
{
	check_settled(__func__, ctx, op);
	settle_taken(ctx, op, true);
}

void tmem_unretire(struct tmem_ctx *ctx, struct tmem_op *op)
{
	check_settled(__func__, ctx, op);
	settle_taken(ctx, op, false);
}
