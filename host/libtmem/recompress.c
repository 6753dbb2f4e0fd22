/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Persistent pages that are not used are compressed once more, by zstd, in the
 * background and within a share of a CPU
 *
 * Spans are looked at in turn, one every recompress_after_s seconds: what was
 * neither put nor got since the look before is recompressed.  One whose pages
 * have all been tried leaves the queue until it gets another page.
 *
 * The codec runs without a lock, on a copy.  Afterwards HANDLE_SETTLED in the
 * key's word says that it still means the page that was copied: a put makes a
 * word without it, and only the thread that has recompress->lock sets it.
 */
#include "internal.h"

#define AFTER_DEFAULT_S 30
/* Time not used is good for so long. */
#define BALANCE_MAX_NS 1000000000ll
/* A page that takes this share of its slot less is worth its slower gets. */
#define GAIN_PART 10

int recompress_init(struct tmem_store *store,
		    const struct tmem_store_config *config)
{
	struct recompress *r = &store->recompress;

	pthread_mutex_init(&r->lock, NULL);
	r->percent = config->recompress_percent;
	r->after_s = config->recompress_after_s ? config->recompress_after_s
						: AFTER_DEFAULT_S;
	r->balanced_ns = store_now_ns(store);
	return r->percent ? ctx_create(store, true, &r->ctx) : 0;
}

void recompress_destroy(struct tmem_store *store)
{
	ctx_free(store->recompress.ctx);
	pthread_mutex_destroy(&store->recompress.lock);
}

/* ----------------------------------------------------------------- budget */

/* CPU time that may be taken now.  recompress.lock held. */
static int64_t balance(struct tmem_store *store)
{
	struct recompress *r = &store->recompress;
	uint64_t now = store_now_ns(store), since = now - r->balanced_ns;
	/* Longer than this is as good as this. */
	uint64_t counts = MIN(since, 100ull * BALANCE_MAX_NS);

	r->balance_ns =
		MIN(r->balance_ns + (int64_t)(counts / 100 * r->percent),
		    BALANCE_MAX_NS);
	r->balanced_ns = now;
	return r->balance_ns;
}

/* Seconds, as in span->due. */
static uint16_t now_s(struct arena *arena)
{
	return store_now_ns(arena->tenant->store) / 1000000000;
}

/* Seconds until the span is due.  What seems to be later than ever was due long
 * ago: nobody has called tmem_step() for hours. */
static unsigned int due_in_s(struct arena *arena, const struct span *span,
			     uint16_t now)
{
	uint16_t left = span->due - now;

	return span->looked && left <= arena->tenant->store->recompress.after_s
		       ? left
		       : 0;
}

/* ------------------------------------------------------------------- page */

/* Which page it is, and the word that it has as long as nobody changes it. */
struct candidate {
	tmem_handle handle; /* with HANDLE_SETTLED */
	uint8_t id[TMEM_OBJECT_SIZE];
	uint32_t pool, generation;
	uint64_t index;
	uint32_t page_size;
};

enum look {
	LOOK_SETTLED, /* nothing to do, also next time */
	LOOK_LATER,   /* it was used, or is busy */
	LOOK_TRY,     /* the candidate is in the ctx */
};

static void candidate_copy(struct arena *arena, struct tmem_ctx *ctx,
			   struct tmem_leaf *leaf, unsigned int entry,
			   struct candidate *candidate)
{
	struct tmem_object *object = leaf_object(arena, leaf);
	tmem_handle handle = candidate->handle;

	memcpy(candidate->id, object->id, sizeof(object->id));
	candidate->pool = object->pool_id;
	candidate->generation = object->generation;
	candidate->index = (leaf->number << LEAF_SHIFT) + entry;
	candidate->page_size = object->pool->page_size;
	ctx->seed = codec_seed(object->pool_id, pool_opaque_size(object->pool),
			       object->id);
	ctx->crc = atomic_load_explicit(leaf_crc(leaf, entry),
					memory_order_relaxed);
	memcpy(ctx->stored, arena_data(arena, handle), handle_length(handle));
}

/*
 * Is it still that page?  The word alone does not tell: compaction may have put
 * another page, which was tried before, where this one was.
 */
static bool candidate_there(struct arena *arena, struct tmem_leaf *leaf,
			    unsigned int entry,
			    const struct candidate *candidate)
{
	struct tmem_object *object = leaf_object(arena, leaf);

	return atomic_load(&leaf->word[entry]) == candidate->handle &&
	       (leaf->number << LEAF_SHIFT) + entry == candidate->index &&
	       object->pool_id == candidate->pool &&
	       object->generation == candidate->generation &&
	       !memcmp(object->id, candidate->id, sizeof(object->id));
}

/* arena->lock held. */
static enum look slot_look(struct arena *arena, struct tmem_ctx *ctx,
			   struct slot *slot, struct candidate *candidate)
{
	uint32_t cell = atomic_load(&slot->leaf);
	enum look look = LOOK_SETTLED;
	pthread_mutex_t *stripe;
	struct tmem_leaf *leaf;
	tmem_handle handle;

	if (!cell)
		return LOOK_SETTLED;
	leaf = slot_leaf_trylock(arena, slot, &stripe);
	if (!leaf)
		return LOOK_LATER;
	handle = atomic_load_explicit(&leaf->word[slot->entry],
				      memory_order_relaxed);
	if (handle & HANDLE_SETTLED || handle_type(handle) == HANDLE_ZSTD ||
	    handle_type(handle) == HANDLE_OPAQUE) {
		look = LOOK_SETTLED;
	} else if (handle & HANDLE_VISITED) {
		look = LOOK_LATER;
		handle &= ~HANDLE_VISITED;
	} else {
		look = LOOK_TRY;
		handle |= HANDLE_SETTLED;
		candidate->handle = handle;
		candidate_copy(arena, ctx, leaf, slot->entry, candidate);
	}
	atomic_store_explicit(&leaf->word[slot->entry], handle,
			      memory_order_relaxed);
	pthread_mutex_unlock(stripe);
	return look;
}

/*
 * What the slot holds becomes @chunk, or, if that is NULL, may be tried again;
 * unless it is another page by now.
 */
static void slot_replace(struct arena *arena, struct span *span, unsigned int i,
			 const struct candidate *candidate, struct chunk *chunk)
{
	struct slot *slot = &span->slot[i];
	tmem_handle handle = candidate->handle & ~HANDLE_SETTLED;
	pthread_mutex_t *stripe;
	struct tmem_leaf *leaf;
	bool there = false;

	arena_lock(arena);
	leaf = slot_leaf_trylock(arena, slot, &stripe);
	if (leaf) {
		unsigned int entry = slot->entry;

		there = candidate_there(arena, leaf, entry, candidate);
		if (there && chunk) {
			struct tmem_pool *pool = leaf_object(arena, leaf)->pool;

			handle = arena_publish(arena, chunk, HANDLE_ZSTD, leaf,
					       entry);
			stored_count(pool, candidate->handle, -1);
			stored_count(pool, handle, 1);
		}
		if (there)
			atomic_store_explicit(&leaf->word[entry], handle,
					      memory_order_release);
		pthread_mutex_unlock(stripe);
	}
	if (chunk && there)
		slot_release(arena, span, i);
	else if (chunk)
		slot_release(arena, chunk->span, chunk->index);
	pthread_mutex_unlock(&arena->lock);
}

/*
 * The ctx has the page's stored bytes.  No lock but r->lock is held.  False:
 * there is no room, not even for a while; later.
 */
static bool slot_recompress(struct arena *arena, struct tmem_ctx *ctx,
			    struct span *span, unsigned int i,
			    const struct candidate *candidate)
{
	uint32_t slot_size =
		slot_bytes(span->class_index, handle_length(candidate->handle));
	struct chunk chunk = { 0 };
	uint32_t length =
		codec_recompress(ctx, handle_type(candidate->handle),
				 handle_length(candidate->handle),
				 candidate->index, candidate->page_size);

	if (!length ||
	    slot_bytes(span_slotted(span) ? CLASS_SLOTTED : class_of(length),
		       length) > slot_size - slot_size / GAIN_PART)
		return true;
	if (arena_alloc_if_room(arena, length, &chunk)) {
		slot_replace(arena, span, i, candidate, NULL);
		return false;
	}
	memcpy(chunk.data, ctx->stored, length);
	slot_replace(arena, span, i, candidate, &chunk);
	return true;
}

/* ------------------------------------------------------------------- span */

/* The next that is due, busy and at the end of the queue; or NULL. */
static struct span *span_take(struct arena *arena)
{
	uint16_t now = now_s(arena);
	struct span *span = NULL;

	arena_lock(arena);
	if (!list_empty(&arena->spans[QUEUE_SMALL])) {
		span = container_of(arena->spans[QUEUE_SMALL].next, struct span,
				    age);
		if (due_in_s(arena, span, now))
			span = NULL;
	}
	if (span) {
		span->busy++;
		span->looked = true;
		span->filled = false;
		span->due = now + arena->tenant->store->recompress.after_s;
		list_del(&span->age);
		list_add_tail(&arena->spans[QUEUE_SMALL], &span->age);
	}
	pthread_mutex_unlock(&arena->lock);
	return span;
}

static void span_put(struct arena *arena, struct span *span, bool settled)
{
	arena_lock(arena);
	span->busy--;
	if (!span->used && !span->busy) {
		span_end(arena, span);
	} else if (settled && !span->filled) {
		span->settled = true;
		list_del(&span->age);
		list_add_tail(&arena->settled, &span->age);
	}
	pthread_mutex_unlock(&arena->lock);
}

/* Slots that were looked at. */
static unsigned int span_recompress(struct arena *arena, struct tmem_ctx *ctx,
				    struct span *span)
{
	unsigned int slots = span->slots;
	bool settled = true;

	for (unsigned int i = 0; i < slots; i++) {
		struct candidate candidate;
		enum look look;

		arena_lock(arena);
		look = slot_look(arena, ctx, &span->slot[i], &candidate);
		pthread_mutex_unlock(&arena->lock);
		if (look == LOOK_LATER)
			settled = false;
		else if (look == LOOK_TRY)
			settled &= slot_recompress(arena, ctx, span, i,
						   &candidate);
	}
	span_put(arena, span, settled);
	return slots;
}

unsigned int tenant_recompress(struct tmem_tenant *tenant, unsigned int max)
{
	struct recompress *r = &tenant->store->recompress;
	struct arena *arena = &tenant->persistent;
	unsigned int done = 0;
	struct span *span;

	if (!r->percent || pthread_mutex_trylock(&r->lock))
		return 0;
	while (done < max && balance(tenant->store) > 0 &&
	       (span = span_take(arena))) {
		uint64_t start = cpu_ns(), took;

		done += span_recompress(arena, r->ctx, span);
		took = cpu_ns() - start;
		r->balance_ns -= took;
		atomic_fetch_add(&r->cpu_ns, took);
	}
	pthread_mutex_unlock(&r->lock);
	return done;
}

/* -------------------------------------------------------------------- due */

/* Seconds until a span is due; -1: there is none. */
static int arena_due_s(struct arena *arena)
{
	uint16_t now = now_s(arena);
	int due = -1;

	arena_lock(arena);
	if (!list_empty(&arena->spans[QUEUE_SMALL])) {
		struct span *span = container_of(arena->spans[QUEUE_SMALL].next,
						 struct span, age);

		due = due_in_s(arena, span, now);
	}
	pthread_mutex_unlock(&arena->lock);
	return due;
}

/* Not more often than this, however much CPU time there is. */
#define DUE_MIN_MS 10

int tmem_step_due(struct tmem_store *store)
{
	struct recompress *r = &store->recompress;
	int due = -1, wait = DUE_MIN_MS;

	CHECK_STORE(store);
	if (!r->percent)
		return -1;
	pthread_rwlock_rdlock(&store->tenants_lock);
	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next) {
		struct tmem_tenant *tenant =
			container_of(l, struct tmem_tenant, link);
		int of = arena_due_s(&tenant->persistent);

		if (of >= 0 && (due < 0 || of < due))
			due = of;
	}
	pthread_rwlock_unlock(&store->tenants_lock);
	if (due < 0)
		return -1;
	pthread_mutex_lock(&r->lock);
	if (balance(store) <= 0)
		wait += -r->balance_ns / 10000 / r->percent;
	pthread_mutex_unlock(&r->lock);
	return MAX(due * 1000, wait);
}
