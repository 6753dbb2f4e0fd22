/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which ephemeral pages go
 *
 * S3-FIFO (Yang et al., 2023), by spans: what comes goes to spans of
 * QUEUE_SMALL, a tenth of the memory.  When a span's turn comes, its pages that
 * were got since it began are copied, as they are stored, to spans of
 * QUEUE_MAIN, and the rest goes, so that the span's memory is free as a whole.
 * QUEUE_MAIN is a clock: what was got since its span came last is copied to its
 * newest span. Keys that were lost lately, or taken by an exclusive get, are
 * remembered, and go to QUEUE_MAIN at once when they come back.
 *
 * A get sets one bit of the page's word, if it is not set already; nothing
 * moves. Nor does eviction need memory: where the other queue has no free slot
 * for a page that stays, the span itself goes there, with what stays in it.
 *
 * Slots of pages that were flushed or taken are filled again, so a span has
 * pages that are younger than it: HANDLE_YOUNG marks what came to one of the
 * older half of its queue, which stays in the queue once more.
 *
 * docs/store.md has what this is worth, measured against others.
 */
#include <stdio.h>

#include "internal.h"

/* Percent of the spans' memory that QUEUE_SMALL has when eviction is fair. */
#define SMALL_PERCENT 10
/*
 * Spans at most that a call visits; and how many one after another may stay,
 * for they were used, before one goes all the same.
 */
#define EVICT_TRIES    1024
#define EVICT_PATIENCE 256

/* ------------------------------------------------------------------ ghost */

/*
 * Keys of pages that are gone: 16 bits of a hash of each, four to a word, which
 * other bits choose.  A fifth pushes the oldest out.  Per group of segments, so
 * that there are as many as the arena's memory may need: one lost key and two
 * taken ones for each 4 KiB of it, 1/680 of its size.
 */
#define LOST_WORDS  (GROUP_SEGMENTS * SEGMENT_PAGES / 4)
#define TAKEN_WORDS (2 * LOST_WORDS)

struct ghost {
	uint64_t lost[LOST_WORDS], taken[TAKEN_WORDS];
};

size_t ghost_bytes(const struct arena *arena)
{
	return arena->persistent ? 0 : sizeof(struct ghost);
}

/* What a page is called among the lost; two may have the same name. */
static uint64_t ghost_key_of(uint32_t seed, uint64_t index)
{
	uint64_t h = seed + (index << 32);

	h = (h ^ index >> 32) * 0x9e3779b97f4a7c15ull;
	h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ull;
	return h ^ h >> 31;
}

static uint64_t ghost_key(struct tmem_object *object, uint64_t index)
{
	return ghost_key_of(codec_seed(object->pool->id,
				       pool_opaque_size(object->pool),
				       object->id),
			    index);
}

/* Where @key would be: behind the descriptors of a group.  arena->lock held. */
static struct ghost *ghost_of(struct arena *arena, uint64_t key)
{
	uint32_t groups = arena->num_segments / GROUP_SEGMENTS, number;
	struct segment *group;

	if (!groups)
		return NULL;
	number = (key >> 32) % groups;
	group = arena->region[number / REGION_GROUPS]
			->group[number % REGION_GROUPS];
	return (struct ghost *)(group + GROUP_SEGMENTS);
}

/* The word of a table of @words, by other bits than those of ghost_of(). */
static uint64_t *ghost_word(uint64_t *table, uint32_t words, uint64_t key)
{
	return &table[(uint32_t)(key >> 16) % words];
}

static uint16_t ghost_mark(uint64_t key)
{
	uint16_t mark = key;

	return mark ? mark : 1; /* 0: nobody */
}

static void ghost_add(struct arena *arena, uint64_t key, bool taken)
{
	struct ghost *ghost = ghost_of(arena, key);
	uint64_t *word;

	if (!ghost)
		return;
	word = taken ? ghost_word(ghost->taken, TAKEN_WORDS, key)
		     : ghost_word(ghost->lost, LOST_WORDS, key);
	*word = *word << 16 | ghost_mark(key);
}

static bool word_forget(uint64_t *word, uint16_t mark)
{
	for (unsigned int shift = 0; shift < 64; shift += 16) {
		if ((uint16_t)(*word >> shift) != mark)
			continue;
		*word &= ~(0xffffull << shift);
		return true;
	}
	return false;
}

/* Is it known?  From now on it is not. */
static bool ghost_forget(struct arena *arena, uint64_t key)
{
	struct ghost *ghost = ghost_of(arena, key);
	uint16_t mark = ghost_mark(key);

	return ghost &&
	       (word_forget(ghost_word(ghost->lost, LOST_WORDS, key), mark) ||
		word_forget(ghost_word(ghost->taken, TAKEN_WORDS, key), mark));
}

bool evict_lost(struct tmem_pool *pool, uint32_t seed, uint64_t index)
{
	struct arena *arena = pool->arena;
	uint64_t key = ghost_key_of(seed, index);
	uint16_t mark = ghost_mark(key);
	struct ghost *ghost;
	bool lost;

	/* Most misses are of stores that have room. */
	if (!atomic_load_explicit(&pool->count.evictions, memory_order_relaxed))
		return false;
	arena_lock(arena);
	ghost = ghost_of(arena, key);
	lost = ghost &&
	       word_forget(ghost_word(ghost->lost, LOST_WORDS, key), mark);
	/* Known still, to whoever puts it; but counted once. */
	if (lost)
		ghost_add(arena, key, true);
	pthread_mutex_unlock(&arena->lock);
	return lost;
}

/* ----------------------------------------------------------------- queues */

static bool small_is_large(const struct arena *arena)
{
	uint64_t small = arena->queue_pages[QUEUE_SMALL],
		 all = small + arena->queue_pages[QUEUE_MAIN];

	return small * 100 > all * SMALL_PERCENT;
}

bool span_old(struct arena *arena, struct span *span)
{
	struct span *first =
		container_of(arena->spans[span->queue].next, struct span, age);
	uint32_t all = arena->next_number[span->queue] - first->number;

	return span->number - first->number < all / 2;
}

unsigned int evict_queue(struct tmem_object *object, uint64_t index,
			 tmem_handle old)
{
	struct arena *arena = object->pool->arena;
	unsigned int queue = QUEUE_SMALL;

	if (arena->persistent)
		return QUEUE_SMALL;
	/* The guest had it, lost it again, and puts what is still here. */
	if (handle_has_chunk(old) &&
	    old & (HANDLE_VISITED | HANDLE_MAIN | HANDLE_TAKEN))
		return QUEUE_MAIN;
	arena_lock(arena);
	if (list_empty(&arena->spans[QUEUE_SMALL]) &&
	    list_empty(&arena->spans[QUEUE_MAIN]))
		arena->has_evicted = false;
	/*
	 * Until something must go QUEUE_MAIN gets its share of all that comes:
	 * of a loop that does not fit, that much is found again.
	 */
	if (ghost_forget(arena, ghost_key(object, index)) ||
	    (!arena->has_evicted && small_is_large(arena)))
		queue = QUEUE_MAIN;
	pthread_mutex_unlock(&arena->lock);
	return queue;
}

void evict_note_taken(struct tmem_object *object, uint64_t index)
{
	struct arena *arena = object->pool->arena;
	uint64_t key = ghost_key(object, index);

	arena_lock(arena);
	ghost_add(arena, key, true);
	pthread_mutex_unlock(&arena->lock);
}

/* --------------------------------------------------------------- eviction */

/* Where a page stays when the turn of its span has come; QUEUES: nowhere. */
static unsigned int page_stays(struct arena *arena, const struct span *span,
			       const struct tmem_leaf *leaf, tmem_handle handle)
{
	struct tmem_object *object = leaf_object(arena, leaf);

	if (handle & HANDLE_TAKEN || object_detached(object) ||
	    atomic_load(&object->pool->dead))
		return QUEUES;
	/* Of who has less than its weight says: others' pages go first. */
	if (handle & HANDLE_VISITED || pool_below_share(object->pool))
		return QUEUE_MAIN;
	return handle & HANDLE_YOUNG ? span->queue : QUEUES;
}

/* The page of a slot goes.  Its leaf is locked, and let go of. */
static void slot_drop(struct arena *arena, struct span *span, unsigned int i,
		      struct tmem_leaf *leaf, bool taken)
{
	struct tmem_object *object = leaf_object(arena, leaf);
	unsigned int entry = span->slot[i].entry;
	uint64_t index = leaf->number << LEAF_SHIFT | entry;

	if (taken || span->queue == QUEUE_SMALL)
		ghost_add(arena, ghost_key(object, index), taken);
	atomic_fetch_add(&object->pool->count.evictions, 1);
	leaf_forget(object, leaf, entry);
	leaf_unlock_lazy(object->pool, leaf);
	slot_release(arena, span, i);
}

/*
 * What becomes of a slot's page.  @all: it goes even if it was used.  Returns
 * the queue where its span must be for it; QUEUE_SMALL if that is any.
 */
static unsigned int slot_evict(struct arena *arena, struct span *span,
			       unsigned int i, bool all)
{
	struct slot *slot = &span->slot[i];
	pthread_mutex_t *stripe;
	struct tmem_leaf *leaf = slot_leaf_trylock(arena, slot, &stripe);
	unsigned int queue;
	tmem_handle handle;

	if (!leaf) /* free, or busy */
		return QUEUE_SMALL;
	handle = atomic_load_explicit(&leaf->word[slot->entry],
				      memory_order_relaxed);
	queue = all ? QUEUES : page_stays(arena, span, leaf, handle);
	if (queue == QUEUES) {
		slot_drop(arena, span, i, leaf, handle & HANDLE_TAKEN);
		return QUEUE_SMALL;
	}
	if (slot_copy(arena, span, i, span->class_index, leaf, queue, 0)) {
		pthread_mutex_unlock(stripe);
		slot_release(arena, span, i);
		return QUEUE_SMALL;
	}
	handle &= ~HANDLE_AGE;
	if (queue == QUEUE_MAIN)
		handle |= HANDLE_MAIN;
	atomic_store_explicit(&leaf->word[slot->entry], handle,
			      memory_order_relaxed);
	pthread_mutex_unlock(stripe);
	return queue;
}

/*
 * The turn of a span has come.  Pages that became free: it has ended, or 0:
 * what is left of it, busy or used, is the newest of its queue.  arena->lock
 * held.
 */
static unsigned int span_evict(struct arena *arena, struct span *span, bool all)
{
	unsigned int queue = span->queue, pages = span->pages;

	/* Out of the list, lest it be its own target. */
	list_del(&span->link);
	span->busy++;
	for (unsigned int i = 0; i < span->slots; i++)
		if (slot_evict(arena, span, i, all) == QUEUE_MAIN)
			queue = QUEUE_MAIN;
	span->busy--;
	if (!span->used) {
		span_end(arena, span);
		return pages;
	}
	span_enqueue(arena, span, queue);
	span_link(arena, span);
	return 0;
}

/* Whose turn it is, or NULL.  arena->lock held. */
static struct span *evict_next(struct arena *arena)
{
	struct list *small = &arena->spans[QUEUE_SMALL],
		    *main = &arena->spans[QUEUE_MAIN];

	if (list_empty(small) || (!list_empty(main) && !small_is_large(arena)))
		small = main;
	return list_empty(small) ? NULL
				 : container_of(small->next, struct span, age);
}

uint64_t arena_evict(struct arena *arena, uint64_t bytes)
{
	unsigned int tries = 0, in_vain = 0;
	uint64_t freed = 0;

	pools_weigh(arena->tenant);
	while (freed < bytes && tries++ < EVICT_TRIES) {
		unsigned int pages;
		struct span *span;

		arena_lock(arena);
		arena->has_evicted = true;
		span = evict_next(arena);
		if (!span) {
			pthread_mutex_unlock(&arena->lock);
			break;
		}
		pages = span_evict(arena, span, in_vain >= EVICT_PATIENCE);
		pthread_mutex_unlock(&arena->lock);
		in_vain = pages ? 0 : in_vain + 1;
		freed += (uint64_t)pages * ARENA_PAGE;
	}
	return freed;
}

/* ------------------------------------------------------------------ check */

struct span_sums {
	uint64_t spans, bytes, pages, used; /* bytes: of descriptors */
};

/* The spans of one list; what they have is added to @sums. */
static int spans_check(struct arena *arena, struct list *head,
		       unsigned int queue, struct span_sums *sums,
		       char *message, size_t size)
{
	uint32_t number = 0;

	for (struct list *l = head->next; l != head; l = l->next) {
		struct span *span = container_of(l, struct span, age);

		if (span->queue != queue ||
		    (!arena->persistent && l != head->next &&
		     (int32_t)(span->number - number) <= 0))
			return FAULT("span: in another queue, or out of order");
		number = span->number;
		sums->spans++;
		sums->bytes += span_size(span);
		sums->pages += span->pages;
		sums->used += span->used;
	}
	return 0;
}

int queue_check(struct arena *arena, unsigned int queue, uint64_t *spans,
		uint64_t *metadata, char *message, size_t size)
{
	struct span_sums sums = { 0 };
	int error = spans_check(arena, &arena->spans[queue], queue, &sums,
				message, size);

	if (!error && queue == QUEUE_SMALL)
		error = spans_check(arena, &arena->settled, queue, &sums,
				    message, size);
	if (error)
		return error;
	*spans += sums.spans;
	*metadata += sums.bytes;
	for (unsigned int i = 0; i < CLASSES_ALL; i++)
		sums.used -= arena->class[i].queue[queue].used;
	if (sums.used || sums.pages != arena->queue_pages[queue])
		return FAULT("queue %u: slots or pages miscounted", queue);
	return 0;
}
