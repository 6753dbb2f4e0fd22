/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ops: put, get, flush.  Each page of a run goes its own way:
 *
 *   put   encode from guest memory into the ctx       no lock
 *         claim raw bytes, take a slot, copy          arena->lock, shortly
 *         publish in the leaf, free the old           stripe
 *   get   copy the stored bytes into the ctx          stripe
 *         decode into guest memory                    no lock
 *
 * so that a guest page that takes a minute to fault in holds nobody up.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

#define PAGE_SIZE_MAX (1u << TMEM_PAGE_SHIFT_MAX)

/* -------------------------------------------------------------------- ctx */

static size_t whole_pages(size_t bytes)
{
	return (bytes + ARENA_PAGE - 1) & ~(size_t)(ARENA_PAGE - 1);
}

static size_t ctx_bytes(bool recompresses)
{
	return 2 * PAGE_SIZE_MAX + whole_pages(codec_decoder_size()) +
	       (recompresses ? whole_pages(codec_encoder_size()) : 0);
}

void ctx_free(struct tmem_ctx *ctx)
{
	struct tmem_store *store;

	if (!ctx)
		return;
	store = ctx->store;
	if (ctx->page)
		munmap(ctx->page, ctx_bytes(ctx->recompresses));
	store_free(store, ctx->state);
	store_free(store, ctx);
}

void tmem_ctx_destroy(struct tmem_ctx *ctx)
{
	if (!ctx)
		return;
	CHECK_CTX(ctx);
	live_remove(&ctx->live);
	ctx_free(ctx);
}

/*
 * Room for two pages and what codecs keep of them, or NULL.  Not of the heap: a
 * page of a guest must neither be in a core file nor in memory that was freed, nor
 * in swap where the store's must not.
 */
static char *ctx_map(struct tmem_store *store, size_t bytes)
{
	char *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED)
		return NULL;
	madvise(pages, bytes, MADV_DONTDUMP);
	if (store->flags & TMEM_STORE_LOCK &&
	    mlock2(pages, bytes, MLOCK_ONFAULT)) {
		munmap(pages, bytes);
		return NULL;
	}
	return pages;
}

int ctx_create(struct tmem_store *store, bool recompresses,
	       struct tmem_ctx **out)
{
	struct tmem_ctx *ctx = store_zalloc(store, sizeof(*ctx));

	if (!ctx)
		return -ENOMEM;
	ctx->store = store;
	ctx->recompresses = recompresses;
	ctx->state = store_zalloc(store, codec_state_size());
	ctx->page = ctx_map(store, ctx_bytes(recompresses));
	if (!ctx->state || !ctx->page) {
		ctx_free(ctx);
		return -ENOMEM;
	}
	ctx->stored = ctx->page + PAGE_SIZE_MAX;
	ctx->decoder = codec_decoder_init(ctx->stored + PAGE_SIZE_MAX);
	if (recompresses)
		ctx->encoder =
			codec_encoder_init(ctx->stored + PAGE_SIZE_MAX +
					   whole_pages(codec_decoder_size()));
	*out = ctx;
	return 0;
}

int tmem_ctx_create(struct tmem_store *store, struct tmem_ctx **out)
{
	int error;

	CHECK_STORE(store);
	if (!out)
		return -EINVAL;
	error = ctx_create(store, false, out);
	if (!error)
		live_add(&(*out)->live, LIVE_CTX, store);
	return error;
}

int tmem_ctx_fd(struct tmem_ctx *ctx)
{
	CHECK_CTX(ctx);
	return -1;
}

/* ----------------------------------------------------------------- cursor */

/* Where in an op's guest memory the next page is. */
struct cursor {
	const struct iovec *iov;
	unsigned int left; /* elements, iov[0] included */
	size_t offset;	   /* within iov[0] */
};

static void cursor_skip(struct cursor *at, size_t bytes)
{
	while (at->left && bytes >= at->iov->iov_len - at->offset) {
		bytes -= at->iov->iov_len - at->offset;
		at->iov++;
		at->left--;
		at->offset = 0;
	}
	at->offset += bytes;
}

/* The next @size bytes if they lie in one piece. */
static char *cursor_piece(struct cursor *at, size_t size)
{
	cursor_skip(at, 0);
	if (!at->left || at->iov->iov_len - at->offset < size)
		return NULL;
	return (char *)at->iov->iov_base + at->offset;
}

/* Copy @size bytes and move on. */
static void cursor_copy(struct cursor *at, char *private, size_t size,
			bool to_guest)
{
	while (size) {
		size_t length;
		char *guest;

		cursor_skip(at, 0);
		length = MIN(size, at->iov->iov_len - at->offset);
		guest = (char *)at->iov->iov_base + at->offset;
		memcpy(to_guest ? guest : private, to_guest ? private : guest,
		       length);
		private += length;
		size -= length;
		cursor_skip(at, length);
	}
}

static bool enough_memory(const struct tmem_op *op, uint64_t bytes)
{
	uint64_t have = 0;

	for (unsigned int i = 0; i < op->iovcnt; i++)
		have += op->iov[i].iov_len;
	return have >= op->skip && have - op->skip >= bytes;
}

/* -------------------------------------------------------------------- put */

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

/* Take a slot and fill it.  Frees the old page first if that is what it takes.
 */
static int store_bytes(struct tmem_pool *pool, struct tmem_object *object,
		       uint64_t index, const struct encoded *encoded,
		       bool guaranteed, bool present, struct chunk *chunk)
{
	struct arena *arena = pool->arena;
	int error;

	if (!guaranteed && arena->persistent &&
	    arena_held(arena) > pool->tenant->persistent_max)
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

static int op_put(struct tmem_ctx *ctx, struct tmem_pool *pool,
		  struct tmem_op *op)
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

/* -------------------------------------------------------------------- get */

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
 * While pages are decoded the caches fetch what a later one of the run needs, if
 * the same leaf has it.  The leaf is locked.
 */
static void prefetch_page(struct tmem_pool *pool, struct tmem_leaf *leaf,
			  unsigned int entry)
{
	tmem_handle handle;

	if (entry >= leaf->capacity)
		return;
	handle = atomic_load_explicit(&leaf->word[entry], memory_order_acquire);
	if (handle_has_chunk(handle))
		arena_prefetch(pool->arena, handle);
}

/* Pages of a run that are asked for ahead. */
#define AHEAD 1

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
	for (unsigned int i = entry; i < MIN(entry + AHEAD, there); i++)
		prefetch_page(pool, leaf, i);
	pthread_mutex_unlock(leaf_stripe(pool, leaf));
}

/*
 * The stored bytes of a page, copied to ctx->stored.  HANDLE_EMPTY: a miss.
 * @taker: set if not NULL, and others miss from now on.  @left: pages of the run,
 * this one included.
 */
static tmem_handle fetch(struct tmem_ctx *ctx, struct tmem_pool *pool,
			 struct tmem_object *object, uint64_t index,
			 uint16_t *taker, uint64_t left)
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
	if (left > AHEAD)
		prefetch_page(pool, leaf, index % LEAF_ENTRIES + AHEAD);
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

static int op_get(struct tmem_ctx *ctx, struct tmem_pool *pool,
		  struct tmem_op *op)
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
				       op->count - i);
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

/* ------------------------------------------------------------------ flush */

/* Empty the words of a locked leaf within [first, last]; how many there were.
 */
static unsigned int flush_leaf(struct tmem_object *object,
			       struct tmem_leaf *leaf, uint64_t first,
			       uint64_t last)
{
	uint64_t base = leaf->number << LEAF_SHIFT;
	unsigned int removed = 0;

	for (unsigned int i = 0; i < leaf->capacity; i++) {
		if (base + i < first || base + i > last ||
		    atomic_load(&leaf->word[i]) == HANDLE_EMPTY)
			continue;
		leaf_remove(object, leaf, i);
		removed++;
	}
	return removed;
}

static int op_flush(struct tmem_ctx *ctx, struct tmem_pool *pool,
		    struct tmem_op *op)
{
	struct tmem_object *object = object_get(pool, op->object);
	uint64_t last = op->index + (op->count - 1);
	uint64_t number = op->index >> LEAF_SHIFT;
	unsigned int removed = 0, work = 0;

	op->done = op->count;
	while (object) {
		struct tmem_leaf *leaf;

		if (work >= TMEM_FLUSH_BATCH) {
			/* Everything below this leaf has been processed. */
			op->done = (number << LEAF_SHIFT) - op->index;
			break;
		}
		quiesce_read(ctx->store);
		leaf = leaf_lock_next(object, number);
		if (leaf && leaf->number <= last >> LEAF_SHIFT) {
			unsigned int n =
				flush_leaf(object, leaf, op->index, last);

			number = leaf->number + 1;
			removed += n;
			/* Eviction leaves empty leaves behind, for a while. */
			work += MAX(n, 1u);
			leaf_unlock(object, leaf);
		} else {
			if (leaf)
				pthread_mutex_unlock(leaf_stripe(pool, leaf));
			leaf = NULL;
		}
		quiesce_done(ctx->store);
		if (!leaf || number > last >> LEAF_SHIFT)
			break;
	}
	if (object)
		object_put(object);
	atomic_fetch_add(&pool->count.flushes, removed);
	return 0;
}

static int op_flush_object(struct tmem_ctx *ctx, struct tmem_pool *pool,
			   struct tmem_op *op)
{
	struct tmem_object *object = object_get(pool, op->object);

	if (!object)
		return 0;
	quiesce_read(ctx->store);
	object_detach(object);
	object_put(object);
	pool_drain_detached(pool, TMEM_FLUSH_BATCH);
	quiesce_done(ctx->store);
	return 0;
}

/* ----------------------------------------------------------------- submit */

/* Of an opaque pool's pages, each of which has a byte at least. */
static bool lengths_valid(const struct tmem_op *op, uint32_t page_size)
{
	for (uint64_t i = 0; i < op->count; i++)
		if (op->page[i].length - 1 >= page_size)
			return false;
	return true;
}

static int op_check(const struct tmem_op *op, const struct tmem_pool *pool)
{
	bool transfer = op->verb == TMEM_PUT || op->verb == TMEM_GET;

	if (op->verb < TMEM_PUT || op->verb > TMEM_FLUSH_OBJECT ||
	    op->pool >= TMEM_MAX_POOLS)
		return -EINVAL;
	if (op->flags & ~(op->verb == TMEM_GET ? TMEM_GET_EXCLUSIVE : 0u))
		return -EINVAL;
	if (op->verb == TMEM_FLUSH_OBJECT)
		return 0;
	if (!op->count || op->count - 1 > UINT64_MAX - op->index)
		return -EINVAL;
	if (transfer &&
	    (op->count > TMEM_MAX_RUN || !op->page || (op->iovcnt && !op->iov)))
		return -EINVAL;
	if (!pool)
		return 0;
	if (op->flags & TMEM_GET_EXCLUSIVE && pool->arena->persistent)
		return -EINVAL;
	if (transfer && op->page_size != pool->page_size)
		return -EINVAL;
	if (transfer && !enough_memory(op, op->count * pool->page_size))
		return -EINVAL;
	if (op->verb == TMEM_PUT && pool->opaque &&
	    !lengths_valid(op, pool->page_size))
		return -EINVAL;
	return 0;
}

static void paranoid_check(struct tmem_store *store)
{
	char message[160];

	if (!(store->flags & TMEM_STORE_PARANOID) ||
	    !tmem_check(store, message, sizeof(message)))
		return;
	fprintf(stderr, "libtmem: %s\n", message);
	abort();
}

int tmem_submit(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		struct tmem_op *op)
{
	static int (*const verbs[])(struct tmem_ctx * ctx,
				    struct tmem_pool * pool,
				    struct tmem_op * op) = {
		[TMEM_PUT] = op_put,
		[TMEM_GET] = op_get,
		[TMEM_FLUSH] = op_flush,
		[TMEM_FLUSH_OBJECT] = op_flush_object,
	};
	struct tmem_pool *pool;
	int error;

	CHECK_CTX_AND_TENANT(ctx, tenant);
	if (!op)
		return -EINVAL;
	error = op_check(op, NULL);
	op->done = 0;
	op->internal[0] = 0;
	op->internal[1] = (uintptr_t)tenant;
	if (error)
		return error;
	if (op->verb == TMEM_PUT && tmem_tenant_frozen(tenant))
		return -EAGAIN;
	pool = pool_get(tenant, op->pool);
	if (!pool)
		return -ENOENT;
	error = op_check(op, pool);
	ctx->seed = codec_seed(op->pool, pool_opaque_size(pool), op->object);
	if (!error)
		error = verbs[op->verb](ctx, pool, op);
	pool_put(pool);
	paranoid_check(ctx->store);
	return error;
}

unsigned int tmem_poll(struct tmem_ctx *ctx)
{
	CHECK_CTX(ctx);
	return 0;
}

unsigned int tmem_drain(struct tmem_ctx *ctx)
{
	CHECK_CTX(ctx);
	/* Every op was complete when tmem_submit() returned. */
	return tmem_poll(ctx);
}
