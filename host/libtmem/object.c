/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Objects by their names, and what drains of them.  index.c has their leaves, and
 * what of both counts to who adopts them.
 */
#include "internal.h"

/* ------------------------------------------------------------- hash table */

/*
 * Linear hashing (Litwin, 1980): the table grows by one bucket for each object
 * that is one too many, which takes half of what one other bucket has.  So no
 * insertion moves more than a few objects.  Buckets are in segments, each as
 * large as all before it, which stay where they are.
 */
static unsigned int bucket_segment(uint32_t bucket)
{
	return bucket < BUCKETS_MIN ? 0 : 28 - __builtin_clz(bucket);
}

static uint32_t segment_buckets(unsigned int segment)
{
	return segment ? BUCKETS_MIN << (segment - 1) : BUCKETS_MIN;
}

uint32_t *bucket_at(struct tmem_pool *pool, uint32_t bucket)
{
	unsigned int segment = bucket_segment(bucket);

	return &pool->bucket[segment]
			    [segment ? bucket - segment_buckets(segment)
				     : bucket];
}

static uint32_t bucket_of(struct tmem_pool *pool, const uint8_t *id)
{
	uint32_t mask = UINT32_MAX >> __builtin_clz(pool->buckets - 1), bucket;
	uint64_t h = pool->tenant->store->secret, word;

	/* Who does not know the secret cannot choose names that meet. */
	for (unsigned int i = 0; i < TMEM_OBJECT_SIZE; i += sizeof(word)) {
		memcpy(&word, id + i, sizeof(word));
		h = hash_mix(h ^ word);
	}
	bucket = h & mask;
	return bucket < pool->buckets ? bucket : bucket & mask >> 1;
}

struct tmem_object *object_at(struct tmem_pool *pool, uint32_t cell)
{
	return cell ? cell_at(&pool->arena->cells, cell) : NULL;
}

/*
 * One bucket more, if there is memory for it; else lookups are slower.  @ask:
 * the limits, too.
 */
static bool buckets_grow(struct tmem_pool *pool, bool ask)
{
	uint32_t bucket = pool->buckets, *from, old, cell;
	unsigned int segment = bucket_segment(bucket);
	size_t bytes = segment_buckets(segment) * sizeof(uint32_t);

	if (segment >= BUCKET_SEGMENTS)
		return false;
	if (!pool->bucket[segment]) {
		if (ask &&
		    !store_has_room(pool->tenant,
				    arena_index_grows(pool->arena), bytes))
			return false;
		pool->bucket[segment] = index_zalloc(pool->arena, bytes);
		if (!pool->bucket[segment])
			return false;
	}
	old = bucket & UINT32_MAX >> (__builtin_clz(bucket) + 1);
	pool->buckets++;
	from = bucket_at(pool, old);
	cell = *from;
	*from = 0;
	while (cell) {
		struct tmem_object *object = object_at(pool, cell);
		uint32_t *to = bucket_at(pool, bucket_of(pool, object->id));

		cell = object->next;
		object->next = *to;
		*to = object->self;
	}
	return true;
}

static struct tmem_object *object_find(struct tmem_pool *pool,
				       const uint8_t *id)
{
	struct tmem_object *object =
		object_at(pool, *bucket_at(pool, bucket_of(pool, id)));

	while (object && memcmp(object->id, id, TMEM_OBJECT_SIZE))
		object = object_at(pool, object->next);
	return object;
}

/* More than one, so that a table that could not grow for a while comes after.
 */
#define BUCKETS_AT_A_TIME 4

/* pool->lock held. */
static void object_link(struct tmem_pool *pool, struct tmem_object *object,
			bool ask)
{
	uint32_t *bucket;

	pool->num_objects++;
	for (unsigned int i = 0; i < BUCKETS_AT_A_TIME; i++)
		if (pool->num_objects <= pool->buckets ||
		    !buckets_grow(pool, ask))
			break;
	bucket = bucket_at(pool, bucket_of(pool, object->id));
	object->next = *bucket;
	*bucket = object->self;
}

/* The last bucket's objects go back to the one that it took them from. */
static void bucket_merge(struct tmem_pool *pool)
{
	uint32_t bucket = pool->buckets - 1;
	uint32_t cell = *bucket_at(pool, bucket);
	unsigned int segment = bucket_segment(bucket);

	*bucket_at(pool, bucket) = 0;
	pool->buckets--;
	while (cell) {
		struct tmem_object *object = object_at(pool, cell);
		uint32_t *to = bucket_at(pool, bucket_of(pool, object->id));

		cell = object->next;
		object->next = *to;
		*to = object->self;
	}
	if (bucket == segment_buckets(segment)) {
		index_free(pool->arena, pool->bucket[segment],
			   segment_buckets(segment) * sizeof(uint32_t));
		pool->bucket[segment] = NULL;
	}
}

/*
 * A table that is nearly empty is memory, and what eviction and drains walk
 * over.  That of a dead pool stays: drain_cursor has passed its first buckets.
 */
static void object_unlink(struct tmem_pool *pool, struct tmem_object *object)
{
	uint32_t *at = bucket_at(pool, bucket_of(pool, object->id));

	while (*at != object->self)
		at = &object_at(pool, *at)->next;
	*at = object->next;
	pool->num_objects--;
	for (unsigned int i = 0; i < BUCKETS_AT_A_TIME; i++)
		if (pool->buckets > BUCKETS_MIN && !atomic_load(&pool->dead) &&
		    pool->num_objects < pool->buckets / 4)
			bucket_merge(pool);
}

/* ---------------------------------------------------------------- objects */

int pool_index_init(struct tmem_pool *pool)
{
	pool->bucket[0] =
		index_zalloc(pool->arena, BUCKETS_MIN * sizeof(uint32_t));
	if (!pool->bucket[0])
		return -ENOMEM;
	pool->buckets = BUCKETS_MIN;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_mutex_init(&pool->hand.lock, NULL);
	for (unsigned int i = 0; i < STRIPES; i++) {
		pthread_mutex_init(&pool->object_lock[i], NULL);
		pthread_mutex_init(&pool->stripe[i], NULL);
	}
	return 0;
}

void pool_index_destroy(struct tmem_pool *pool)
{
	for (unsigned int i = 0; i < BUCKET_SEGMENTS && pool->bucket[i]; i++)
		index_free(pool->arena, pool->bucket[i],
			   segment_buckets(i) * sizeof(uint32_t));
	pthread_mutex_destroy(&pool->lock);
	pthread_mutex_destroy(&pool->hand.lock);
	for (unsigned int i = 0; i < STRIPES; i++) {
		pthread_mutex_destroy(&pool->object_lock[i]);
		pthread_mutex_destroy(&pool->stripe[i]);
	}
}

/* Their pages, of those that are detached. */
static uint64_t objects_forget(struct tmem_pool *pool, uint32_t cell)
{
	struct tmem_object *object;
	uint64_t pages = 0;

	while ((object = object_at(pool, cell))) {
		cell = object->next;
		radix_forget(object);
		pages += atomic_load(&object->pages) & ~OBJECT_DETACHED;
	}
	return pages;
}

void pool_index_forget(struct tmem_pool *pool)
{
	uint64_t draining = pool->settled ? atomic_load(&pool->count.pages) : 0;

	for (uint32_t i = 0; i < pool->buckets; i++)
		objects_forget(pool, *bucket_at(pool, i));
	draining += objects_forget(pool, pool->detached);
	draining += objects_forget(pool, pool->leaving);
	atomic_fetch_sub(&pool->tenant->store->draining_pages, draining);
}

pthread_mutex_t *object_lock(struct tmem_object *object)
{
	return &object->pool->object_lock[hash_mix(object->self) % STRIPES];
}

struct tmem_object *object_get(struct tmem_pool *pool,
			       const uint8_t id[TMEM_OBJECT_SIZE])
{
	struct tmem_object *object;

	pthread_mutex_lock(&pool->lock);
	object = object_find(pool, id);
	if (object)
		object->pins++;
	pthread_mutex_unlock(&pool->lock);
	return object;
}

/* New objects after which a table that is too small makes room for itself. */
#define BUCKETS_PATIENCE 64

/*
 * In a store that is full nothing is left for the table: a guest that has filled
 * it with one large object, and goes on with small ones, would search chains as
 * long as there are objects.  Then something else makes way.  As object_link()
 * asks later, under a lock, somebody may have taken the room: there is a next
 * time.
 */
static void buckets_make_room(struct tmem_pool *pool)
{
	size_t bytes = 0;

	pthread_mutex_lock(&pool->lock);
	if (pool->num_objects > pool->buckets &&
	    pool->num_objects % BUCKETS_PATIENCE == 0) {
		unsigned int segment = bucket_segment(pool->buckets);

		if (segment < BUCKET_SEGMENTS && !pool->bucket[segment])
			bytes = segment_buckets(segment) * sizeof(uint32_t);
	}
	pthread_mutex_unlock(&pool->lock);
	if (bytes)
		store_may_grow(pool->tenant, arena_index_grows(pool->arena),
			       bytes, false);
}

int object_get_or_make(struct tmem_pool *pool,
		       const uint8_t id[TMEM_OBJECT_SIZE], bool guaranteed,
		       struct tmem_object **out)
{
	struct tmem_object *object = object_get(pool, id), *fresh;
	uint32_t cell;
	int error;

	*out = object;
	if (object)
		return 0;
	buckets_make_room(pool);
	error = cell_alloc(pool->arena, CELL_OBJECT, guaranteed, &cell);
	if (error)
		return error;
	fresh = cell_at(&pool->arena->cells, cell);
	memcpy(fresh->id, id, TMEM_OBJECT_SIZE);
	fresh->self = cell;
	fresh->pool = pool;
	fresh->pool_id = pool->id;
	fresh->generation = pool->generation;
	pthread_mutex_lock(&pool->lock);
	object = object_find(pool, id);
	if (!object) {
		object = fresh;
		object_link(pool, object, true);
		atomic_store_explicit(&object->state, CELL_LIVE,
				      memory_order_release);
	}
	object->pins++;
	pthread_mutex_unlock(&pool->lock);
	if (object != fresh)
		cell_free(pool->arena, cell);
	*out = object;
	return 0;
}

int object_adopt(struct tmem_pool *pool, struct tmem_object *object)
{
	int error = 0;

	pthread_mutex_lock(&pool->lock);
	if (object_find(pool, object->id))
		error = -EEXIST;
	else
		/* What is there is there: no limit is for it. */
		object_link(pool, object, false);
	pthread_mutex_unlock(&pool->lock);
	return error;
}

/* Buckets that are empty and take as long to pass as a page to free, about. */
#define BUCKETS_A_PAGE 16u

/*
 * Any object of a settled pool, pinned, or NULL: there is none, or *@done, to
 * which empty buckets are added, is @max.
 */
static struct tmem_object *object_any(struct tmem_pool *pool,
				      unsigned int *done, unsigned int max)
{
	struct tmem_object *object = NULL;

	pthread_mutex_lock(&pool->lock);
	while (pool->drain_cursor < pool->buckets && !object && *done < max) {
		object = object_at(pool, *bucket_at(pool, pool->drain_cursor));
		if (object)
			object->pins++;
		else if (!(++pool->drain_cursor % BUCKETS_A_PAGE))
			++*done;
	}
	pthread_mutex_unlock(&pool->lock);
	return object;
}

/* pool->lock held. */
static void hand_next_bucket(struct tmem_pool *pool)
{
	pool->hand.bucket = (pool->hand.bucket + 1) % pool->buckets;
	pool->hand.object = 0;
	pool->hand.leaf = pool->hand.entry = 0;
}

struct tmem_object *object_at_hand(struct tmem_pool *pool)
{
	struct tmem_object *first, *object;

	pthread_mutex_lock(&pool->lock);
	if (pool->hand.bucket >= pool->buckets) {
		/* The table has shrunk. */
		pool->hand.bucket = pool->hand.object = 0;
		pool->hand.leaf = pool->hand.entry = 0;
	}
	first = object_at(pool, *bucket_at(pool, pool->hand.bucket));
	object = pool->hand.object ? first : NULL;
	while (object && object->self != pool->hand.object)
		object = object_at(pool, object->next);
	if (!object) {
		/* It has ended, or the table has grown. */
		object = first;
		pool->hand.leaf = pool->hand.entry = 0;
	}
	if (object) {
		pool->hand.object = object->self;
		object->pins++;
	} else {
		hand_next_bucket(pool);
	}
	pthread_mutex_unlock(&pool->lock);
	return object;
}

void object_pass(struct tmem_object *object)
{
	struct tmem_pool *pool = object->pool;

	pthread_mutex_lock(&pool->lock);
	/* One that is in the table is followed by another of its bucket. */
	if (!object_detached(object) && object->next) {
		pool->hand.object = object->next;
		pool->hand.leaf = pool->hand.entry = 0;
	} else {
		hand_next_bucket(pool);
	}
	pthread_mutex_unlock(&pool->lock);
}

/* Onto the list of those that drain, which pins it.  pool->lock held. */
static void detached_push(struct tmem_pool *pool, struct tmem_object *object)
{
	object->pins++;
	object->next = pool->detached;
	pool->detached = object->self;
	atomic_store(&pool->dirty, true);
}

static void leaving_unlink(struct tmem_pool *pool, struct tmem_object *object)
{
	uint32_t *at = &pool->leaving;

	while (*at != object->self)
		at = &object_at(pool, *at)->next;
	*at = object->next;
}

void object_put(struct tmem_object *object)
{
	struct tmem_pool *pool = object->pool;

	pthread_mutex_lock(&pool->lock);
	/* Without pins nobody holds or waits for its lock. */
	if (--object->pins == 0 && object_detached(object)) {
		leaving_unlink(pool, object);
		if (object->root)
			/* A put that had found it before came after all. */
			detached_push(pool, object);
		else
			cell_free(pool->arena, object->self);
	} else if (!object->pins && !object->root) {
		object_unlink(pool, object);
		cell_free(pool->arena, object->self);
	}
	pthread_mutex_unlock(&pool->lock);
}

void object_detach(struct tmem_object *object)
{
	struct tmem_pool *pool = object->pool;
	uint64_t pages;

	pthread_mutex_lock(&pool->lock);
	if (!object_detached(object)) {
		/* Who adopts the index finds neither it nor its pages. */
		atomic_store_explicit(&object->state, CELL_GONE,
				      memory_order_release);
		/* Whoever adds or removes a page sees on which side it is. */
		pages = atomic_fetch_or(&object->pages, OBJECT_DETACHED);
		atomic_fetch_add(&pool->tenant->store->draining_pages, pages);
		atomic_fetch_sub(&pool->count.pages, pages);
		atomic_fetch_add(&pool->count.flushes, pages);
		raw_sub(pool, pages * pool->page_size);
		object_unlink(pool, object);
		detached_push(pool, object);
	}
	pthread_mutex_unlock(&pool->lock);
}

/* Free leaves of @object until it is empty or @max words were visited. */
static unsigned int object_drain(struct tmem_object *object, unsigned int max)
{
	unsigned int done = 0;

	while (done < max) {
		struct tmem_leaf *leaf = leaf_lock_next(object, 0);

		if (!leaf)
			break;
		for (unsigned int i = 0; i < leaf->capacity; i++)
			leaf_remove(object, leaf, i);
		done += leaf->capacity;
		if (leaf->queued) {
			/* Eviction had it in hand: only pruning frees it. */
			pthread_mutex_unlock(leaf_stripe(object->pool, leaf));
			pool_prune(object->pool, LEAF_ENTRIES);
		} else {
			leaf_unlock(object, leaf);
		}
	}
	return done;
}

unsigned int pool_drain_detached(struct tmem_pool *pool, unsigned int max)
{
	unsigned int done = 0;

	while (done < max) {
		struct tmem_object *object;
		uint32_t *list;

		pthread_mutex_lock(&pool->lock);
		object = object_at(pool, pool->detached);
		if (object)
			pool->detached = object->next;
		pthread_mutex_unlock(&pool->lock);
		if (!object)
			break;
		done += object_drain(object, max - done) + 1;
		list = done >= max ? &pool->detached : &pool->leaving;
		pthread_mutex_lock(&pool->lock);
		object->next = *list;
		*list = object->self;
		pthread_mutex_unlock(&pool->lock);
		if (done < max)
			object_put(object); /* the list's pin */
	}
	return done;
}

unsigned int pool_clean(struct tmem_pool *pool, unsigned int max)
{
	unsigned int done;

	atomic_store(&pool->dirty, false);
	done = pool_prune(pool, max);
	if (done < max)
		done += pool_drain_detached(pool, max - done);
	if (done >= max)
		atomic_store(&pool->dirty, true);
	return done;
}

unsigned int pool_drain(struct tmem_pool *pool, unsigned int max)
{
	unsigned int done = pool_clean(pool, max);

	while (done < max) {
		struct tmem_object *object = object_any(pool, &done, max);

		if (!object)
			break;
		done += object_drain(object, max - done) + 1;
		object_put(object);
	}
	/* Leaves that were replaced while they were queued have no object. */
	if (done < max)
		done += pool_prune(pool, max - done);
	return done;
}
