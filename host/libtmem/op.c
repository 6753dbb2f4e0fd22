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

static bool enough_memory(const struct tmem_op *op, uint64_t bytes)
{
	uint64_t have = 0;

	for (unsigned int i = 0; i < op->iovcnt; i++)
		have += op->iov[i].iov_len;
	return have >= op->skip && have - op->skip >= bytes;
}

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
