/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A clock over a pool's index, for what eviction by spans (evict.c) cannot
 * choose: pages of one pool, which share their spans with others', where the
 * pool has a limit of its own; and same-filled pages, which are in no span.
 *
 * The hand goes round buckets, objects, leaves and words.  A page that was got
 * since it passed stays once more (second chance; Corbato, 1968).
 */
#include "internal.h"

/* Words that an op visits at most, and a lower limit before others go on. */
#define CLOCK_WORDS 1024
/* Rounds of the hand while as many other pages go as there are. */
#define AGE_TURNS 2

struct clock {
	uint64_t bytes;	    /* stored ones that must go */
	unsigned int words; /* that may be visited */
	bool same; /* only same-filled pages go; all others are passed */
	bool all;  /* got or not */
	uint64_t freed;
	unsigned int evicted; /* pages */
};

static bool clock_done(const struct clock *clock)
{
	return !clock->words || (!clock->same && clock->freed >= clock->bytes);
}

/* The leaf is locked. */
static void clock_word(struct clock *clock, struct tmem_object *object,
		       struct tmem_leaf *leaf, unsigned int entry)
{
	tmem_handle handle =
		atomic_load_explicit(&leaf->word[entry], memory_order_relaxed);

	if (handle == HANDLE_EMPTY || handle & HANDLE_TAKEN ||
	    (clock->same && handle_has_chunk(handle)))
		return;
	if (handle & HANDLE_VISITED && !clock->all) {
		atomic_store_explicit(&leaf->word[entry],
				      handle & ~HANDLE_VISITED,
				      memory_order_relaxed);
		return;
	}
	leaf_remove(object, leaf, entry);
	atomic_fetch_add(&object->pool->count.evictions, 1);
	clock->freed += handle_length(handle);
	clock->evicted++;
}

/* Words of a locked leaf, from the hand on. */
static void clock_leaf(struct clock *clock, struct tmem_object *object,
		       struct tmem_leaf *leaf)
{
	struct hand *hand = &object->pool->hand;

	if (leaf->number != hand->leaf)
		hand->entry = 0;
	hand->leaf = leaf->number;
	while (hand->entry < leaf->capacity && !clock_done(clock)) {
		clock_word(clock, object, leaf, hand->entry++);
		clock->words--;
	}
	if (hand->entry >= leaf->capacity) {
		hand->leaf++;
		hand->entry = 0;
	}
}

/* Returns whether all of the object was visited. */
static bool clock_object(struct clock *clock, struct tmem_object *object)
{
	while (!clock_done(clock)) {
		struct tmem_leaf *leaf =
			leaf_lock_next(object, object->pool->hand.leaf);

		if (!leaf)
			return true;
		clock_leaf(clock, object, leaf);
		leaf_unlock(object, leaf);
	}
	return false;
}

static void clock_run(struct clock *clock, struct tmem_pool *pool)
{
	pthread_mutex_lock(&pool->hand.lock);
	while (!clock_done(clock)) {
		struct tmem_object *object = object_at_hand(pool);

		clock->words--;
		if (!object)
			continue;
		if (clock_object(clock, object))
			object_pass(object);
		object_put(object);
	}
	pthread_mutex_unlock(&pool->hand.lock);
}

uint64_t clock_evict(struct tmem_pool *pool, uint64_t bytes)
{
	struct clock clock = { .bytes = bytes, .words = CLOCK_WORDS };

	clock_run(&clock, pool);
	return clock.freed;
}

void clock_trim(struct tmem_pool *pool)
{
	struct tmem_store *store = pool->tenant->store;
	/*
	 * Twice round, at the worst: each page in a leaf of its own, and each
	 * bucket empty.  Who puts meanwhile makes room for it.
	 */
	uint64_t words = 2 * (atomic_load(&pool->count.pages) * LEAF_ENTRIES +
			      CLOCK_WORDS);

	pthread_mutex_lock(&pool->lock);
	words += 4 * (uint64_t)pool->buckets;
	pthread_mutex_unlock(&pool->lock);
	for (uint64_t done = 0; done < words; done += CLOCK_WORDS) {
		uint64_t max = atomic_load(&pool->max),
			 stored = atomic_load(&pool->count.stored_bytes);
		struct clock clock = { .bytes = stored - max,
				       .words = CLOCK_WORDS,
				       .all = !max };

		if (!max)
			clock.bytes = UINT64_MAX; /* same-filled ones, too */
		else if (stored <= max)
			break;
		quiesce_read(store);
		clock_run(&clock, pool);
		quiesce_done(store);
	}
}

/* The first ephemeral pool from @*id on that has same-filled pages, or NULL. */
static struct tmem_pool *clock_pool_get(struct tmem_tenant *tenant,
					uint32_t *id)
{
	struct tmem_pool *pool = NULL;

	pthread_mutex_lock(&tenant->lock);
	for (; *id < TMEM_MAX_POOLS && !pool; ++*id) {
		pool = tenant->pool[*id];
		if (pool && (pool->arena->persistent ||
			     !atomic_load(&pool->count.same_filled)))
			pool = NULL;
	}
	if (pool)
		pool->refs++;
	pthread_mutex_unlock(&tenant->lock);
	return pool;
}

unsigned int clock_same(struct tmem_tenant *tenant, unsigned int max)
{
	struct clock clock = { .words = max, .same = true, .all = true };
	struct tmem_pool *pool;
	uint32_t id = 0;

	while (clock.words && (pool = clock_pool_get(tenant, &id))) {
		clock_run(&clock, pool);
		pool_put(pool);
	}
	return clock.evicted;
}

/* Words of a pool, about: empty ones are few. */
static uint64_t pool_words(struct tmem_pool *pool)
{
	uint64_t words;

	pthread_mutex_lock(&pool->lock);
	words = atomic_load(&pool->count.pages) + pool->buckets;
	pthread_mutex_unlock(&pool->lock);
	return words;
}

/* How far the hand goes while @evicted of @pages go. */
static unsigned int hand_due(struct tmem_pool *pool, uint64_t evicted,
			     uint64_t pages)
{
	uint64_t words = pool_words(pool), due;

	pthread_mutex_lock(&pool->hand.lock);
	due = pool->hand.due + AGE_TURNS * evicted * words;
	pool->hand.due = due % pages;
	pthread_mutex_unlock(&pool->hand.lock);
	return MIN(due / pages, CLOCK_WORDS);
}

void clock_age(struct tmem_tenant *tenant, unsigned int evicted)
{
	uint64_t pages =
		arena_page_bytes(&tenant->ephemeral) / ARENA_PAGE + evicted;
	struct tmem_pool *pool;
	uint32_t id = 0;

	while ((pool = clock_pool_get(tenant, &id))) {
		struct clock clock = { .words = hand_due(pool, evicted, pages),
				       .same = true };

		clock_run(&clock, pool);
		pool_put(pool);
	}
}
