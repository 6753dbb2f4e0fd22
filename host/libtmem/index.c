/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a key to its word: a hash of objects, a radix tree of leaves for each
 *
 * The tree is as high as the largest index needs, as Linux's XArray is, so a
 * file of up to 32 pages has one leaf and no node.  Lookups couple locks: the
 * inner one is taken before the outer one is let go.
 */
#include <stdio.h>

#include "internal.h"

#define OBJECTS_MIN 16u

static uint32_t hash_bytes(const uint8_t *bytes, size_t size)
{
	uint64_t h = 0xcbf29ce484222325ull, w;

	/* FNV-1a by 64 bit words, with a final mix (MurmurHash3's). */
	for (size_t i = 0; i + 8 <= size; i += 8) {
		memcpy(&w, bytes + i, 8);
		h = (h ^ w) * 0x100000001b3ull;
		h ^= h >> 29;
	}
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 33;
	return h;
}

static void charge(struct tmem_pool *pool, size_t bytes)
{
	atomic_fetch_add(&pool->arena->index_bytes, bytes);
}

static void uncharge(struct tmem_pool *pool, size_t bytes)
{
	atomic_fetch_sub(&pool->arena->index_bytes, bytes);
}

static void *index_zalloc(struct tmem_pool *pool, size_t size)
{
	void *ptr = store_zalloc(pool->tenant->store, size);

	if (ptr)
		charge(pool, size);
	return ptr;
}

static void index_free(struct tmem_pool *pool, void *ptr, size_t size)
{
	uncharge(pool, size);
	store_free(pool->tenant->store, ptr);
}

/* ---------------------------------------------------------------- objects */

int pool_index_init(struct tmem_pool *pool)
{
	pool->objects = index_zalloc(pool, OBJECTS_MIN * sizeof(struct list));
	if (!pool->objects)
		return -ENOMEM;
	pool->objects_mask = OBJECTS_MIN - 1;
	list_init(&pool->detached);
	list_init(&pool->leaving);
	for (unsigned int i = 0; i < OBJECTS_MIN; i++)
		list_init(&pool->objects[i]);
	pthread_mutex_init(&pool->lock, NULL);
	for (unsigned int i = 0; i < STRIPES; i++)
		pthread_mutex_init(&pool->stripe[i], NULL);
	return 0;
}

void pool_index_destroy(struct tmem_pool *pool)
{
	index_free(pool, pool->objects,
		   (pool->objects_mask + 1ull) * sizeof(struct list));
	pthread_mutex_destroy(&pool->lock);
	for (unsigned int i = 0; i < STRIPES; i++)
		pthread_mutex_destroy(&pool->stripe[i]);
}

static struct list *bucket(struct tmem_pool *pool, const uint8_t *id)
{
	return &pool->objects[hash_bytes(id, TMEM_OBJECT_SIZE) &
			      pool->objects_mask];
}

/*
 * Twice as many buckets, if there is room for them beside the old ones; else
 * lookups are slower.
 * One object's insertion pays for it: 10^6 objects take some 20 ms, once.
 */
static void objects_grow(struct tmem_pool *pool)
{
	struct list *old = pool->objects, *table;
	uint64_t count = pool->objects_mask + 1ull;

	if (count > UINT32_MAX / 2 ||
	    !store_has_room(pool->tenant, arena_index_grows(pool->arena),
			    2 * count * sizeof(*table)))
		return;
	table = index_zalloc(pool, 2 * count * sizeof(*table));
	if (!table)
		return;
	for (uint64_t i = 0; i < 2 * count; i++)
		list_init(&table[i]);
	pool->objects = table;
	pool->objects_mask = 2 * count - 1;
	for (uint64_t i = 0; i < count; i++) {
		while (!list_empty(&old[i])) {
			struct tmem_object *object = container_of(
				old[i].next, struct tmem_object, link);

			list_del(&object->link);
			list_add_tail(bucket(pool, object->id), &object->link);
		}
	}
	index_free(pool, old, count * sizeof(*table));
}

static struct tmem_object *object_find(struct tmem_pool *pool,
				       const uint8_t *id)
{
	struct list *head = bucket(pool, id);

	for (struct list *l = head->next; l != head; l = l->next) {
		struct tmem_object *object =
			container_of(l, struct tmem_object, link);

		if (!memcmp(object->id, id, TMEM_OBJECT_SIZE))
			return object;
	}
	return NULL;
}

struct tmem_object *object_get(struct tmem_pool *pool,
			       const uint8_t id[TMEM_OBJECT_SIZE], bool create)
{
	struct tmem_object *object;

	pthread_mutex_lock(&pool->lock);
	object = object_find(pool, id);
	if (!object && create) {
		object = index_zalloc(pool, sizeof(*object));
		if (object) {
			memcpy(object->id, id, TMEM_OBJECT_SIZE);
			object->pool = pool;
			object->seed = codec_seed(pool->id, id);
			pthread_mutex_init(&object->lock, NULL);
			if (++pool->num_objects > pool->objects_mask + 1ull)
				objects_grow(pool);
			list_add_tail(bucket(pool, id), &object->link);
		}
	}
	if (object)
		object->pins++;
	pthread_mutex_unlock(&pool->lock);
	return object;
}

/* Any object of a settled pool, pinned, or NULL. */
static struct tmem_object *object_any(struct tmem_pool *pool)
{
	struct tmem_object *object = NULL;

	pthread_mutex_lock(&pool->lock);
	while (pool->drain_cursor <= pool->objects_mask && !object) {
		struct list *head = &pool->objects[pool->drain_cursor];

		if (list_empty(head)) {
			pool->drain_cursor++;
			continue;
		}
		object = container_of(head->next, struct tmem_object, link);
		object->pins++;
	}
	pthread_mutex_unlock(&pool->lock);
	return object;
}

void object_put(struct tmem_object *object)
{
	struct tmem_pool *pool = object->pool;

	pthread_mutex_lock(&pool->lock);
	/* Without pins nobody holds or waits for object->lock. */
	if (--object->pins == 0 && object->leaves && object_detached(object)) {
		/* A put that found it before it was detached came after all. */
		object->pins++;
		list_del(&object->link);
		list_add_tail(&pool->detached, &object->link);
		atomic_store(&pool->dirty, true);
	} else if (!object->pins && !object->leaves) {
		list_del(&object->link);
		if (!object_detached(object))
			pool->num_objects--;
		pthread_mutex_destroy(&object->lock);
		index_free(pool, object, sizeof(*object));
	}
	pthread_mutex_unlock(&pool->lock);
}

void object_detach(struct tmem_object *object)
{
	struct tmem_pool *pool = object->pool;
	uint64_t pages;

	pthread_mutex_lock(&pool->lock);
	if (!object_detached(object)) {
		/* Whoever adds or removes a page sees on which side it is. */
		pages = atomic_fetch_or(&object->pages, OBJECT_DETACHED);
		atomic_fetch_add(&pool->tenant->store->draining_pages, pages);
		atomic_fetch_sub(&pool->count.pages, pages);
		atomic_fetch_add(&pool->count.flushes, pages);
		atomic_fetch_sub(raw_bytes(pool), pages * pool->page_size);
		object->pins++; /* the list's */
		pool->num_objects--;
		list_del(&object->link);
		list_add_tail(&pool->detached, &object->link);
		atomic_store(&pool->dirty, true);
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
		for (unsigned int i = 0; i < LEAF_ENTRIES; i++)
			leaf_remove(object->pool, leaf, i);
		done += LEAF_ENTRIES;
		if (leaf->queued) {
			/* Eviction had it in hand: only pruning frees it. */
			pthread_mutex_unlock(leaf->stripe);
			pool_prune(object->pool, LEAF_ENTRIES);
		} else {
			leaf_unlock(leaf);
		}
	}
	return done;
}

unsigned int pool_drain_detached(struct tmem_pool *pool, unsigned int max)
{
	unsigned int done = 0;

	while (done < max) {
		struct tmem_object *object = NULL;

		pthread_mutex_lock(&pool->lock);
		if (!list_empty(&pool->detached)) {
			object = container_of(pool->detached.next,
					      struct tmem_object, link);
			list_del(&object->link);
		}
		pthread_mutex_unlock(&pool->lock);
		if (!object)
			break;
		done += object_drain(object, max - done) + 1;
		pthread_mutex_lock(&pool->lock);
		list_add_tail(done >= max ? &pool->detached : &pool->leaving,
			      &object->link);
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
		struct tmem_object *object = object_any(pool);

		if (!object)
			break;
		done += object_drain(object, max - done) + 1;
		object_put(object);
	}
	return done;
}

/* ------------------------------------------------------------------ radix */

/* Leaf numbers that a tree of @levels can name, less one. */
static uint64_t levels_max(unsigned int levels)
{
	return levels * NODE_SHIFT >= 64 ? UINT64_MAX :
					   (1ull << levels * NODE_SHIFT) - 1;
}

static unsigned int child_index(uint64_t number, unsigned int level)
{
	return number >> (level - 1) * NODE_SHIFT & (NODE_ENTRIES - 1);
}

static struct tmem_leaf *radix_find(struct tmem_object *object, uint64_t number)
{
	void *at = object->root;

	if (number > levels_max(object->levels))
		return NULL;
	for (unsigned int level = object->levels; level && at; level--)
		at = ((struct node *)at)->child[child_index(number, level)];
	return at;
}

/* The first leaf at or after @number below @at. */
static struct tmem_leaf *radix_next(void *at, unsigned int level,
				    uint64_t number)
{
	struct node *node = at;
	unsigned int i;

	if (!at || !level)
		return at;
	for (i = child_index(number, level); i < NODE_ENTRIES; i++) {
		struct tmem_leaf *leaf =
			radix_next(node->child[i], level - 1, number);

		if (leaf && leaf->number >= number)
			return leaf;
		/* Whatever comes after starts at its first leaf. */
		number = (number >> (level - 1) * NODE_SHIFT) + 1;
		number <<= (level - 1) * NODE_SHIFT;
	}
	return NULL;
}

/* 0 or -ENOMEM; what was added on the way is removed again by radix_trim(). */
static int radix_insert(struct tmem_object *object, struct tmem_leaf *leaf)
{
	struct tmem_pool *pool = object->pool;
	void **at;

	while (leaf->number > levels_max(object->levels)) {
		if (object->root) {
			struct node *node = index_zalloc(pool, sizeof(*node));

			if (!node)
				return -ENOMEM;
			node->child[0] = object->root;
			node->used = 1;
			object->root = node;
		}
		object->levels++;
	}
	at = &object->root;
	for (unsigned int level = object->levels; level; level--) {
		struct node *node = *at;
		void **child;

		if (!node) {
			node = index_zalloc(pool, sizeof(*node));
			if (!node)
				return -ENOMEM;
			*at = node;
		}
		child = &node->child[child_index(leaf->number, level)];
		if (!*child)
			node->used++;
		at = child;
	}
	*at = leaf;
	object->leaves++;
	return 0;
}

/* Free empty nodes on the way to @number.  True if @*at became empty. */
static bool radix_trim(struct tmem_object *object, void **at,
		       unsigned int level, uint64_t number)
{
	struct node *node = *at;
	void **child;

	if (!node || !level)
		return !node;
	child = &node->child[child_index(number, level)];
	if (radix_trim(object, child, level - 1, number)) {
		unsigned int used = 0;

		for (unsigned int i = 0; i < NODE_ENTRIES; i++)
			used += node->child[i] != NULL;
		node->used = used;
	}
	if (node->used)
		return false;
	index_free(object->pool, node, sizeof(*node));
	*at = NULL;
	return true;
}

static void radix_clean(struct tmem_object *object, uint64_t number)
{
	if (radix_trim(object, &object->root, object->levels, number))
		object->levels = 0;
}

static void radix_remove(struct tmem_object *object, uint64_t number)
{
	void **at = &object->root;

	for (unsigned int level = object->levels; level; level--)
		at = &((struct node *)*at)->child[child_index(number, level)];
	*at = NULL;
	object->leaves--;
	radix_clean(object, number);
}

/* ----------------------------------------------------------------- leaves */

static struct tmem_leaf *leaf_new(struct tmem_object *object, uint64_t number)
{
	struct tmem_pool *pool = object->pool;
	struct tmem_leaf *leaf = index_zalloc(pool, sizeof(*leaf));
	uint64_t key[2] = { (uintptr_t)object >> 5, number };

	if (!leaf)
		return NULL;
	leaf->object = object;
	leaf->number = number;
	leaf->stripe = &pool->stripe[hash_bytes((uint8_t *)key, sizeof(key)) %
				     STRIPES];
	if (radix_insert(object, leaf)) {
		radix_clean(object, number);
		index_free(pool, leaf, sizeof(*leaf));
		return NULL;
	}
	return leaf;
}

struct tmem_leaf *leaf_lock(struct tmem_object *object, uint64_t index,
			    bool create)
{
	uint64_t number = index >> LEAF_SHIFT;
	struct tmem_leaf *leaf;

	pthread_mutex_lock(&object->lock);
	leaf = radix_find(object, number);
	if (!leaf && create)
		leaf = leaf_new(object, number);
	if (leaf)
		pthread_mutex_lock(leaf->stripe);
	pthread_mutex_unlock(&object->lock);
	return leaf;
}

struct tmem_leaf *leaf_lock_next(struct tmem_object *object, uint64_t number)
{
	struct tmem_leaf *leaf = NULL;

	pthread_mutex_lock(&object->lock);
	if (number <= levels_max(object->levels))
		leaf = radix_next(object->root, object->levels, number);
	if (leaf && leaf->number >= number)
		pthread_mutex_lock(leaf->stripe);
	else
		leaf = NULL;
	pthread_mutex_unlock(&object->lock);
	return leaf;
}

/* The object is pinned by the caller. */
static void leaf_free_if_empty(struct tmem_object *object, uint64_t number)
{
	struct tmem_leaf *leaf;
	bool empty;

	pthread_mutex_lock(&object->lock);
	leaf = radix_find(object, number);
	if (leaf) {
		/* Whoever had it had object->lock when he began to wait. */
		pthread_mutex_lock(leaf->stripe);
		empty = !leaf->used && !leaf->queued;
		pthread_mutex_unlock(leaf->stripe);
		if (empty) {
			radix_remove(object, number);
			index_free(object->pool, leaf, sizeof(*leaf));
		}
	}
	pthread_mutex_unlock(&object->lock);
}

void leaf_unlock(struct tmem_leaf *leaf)
{
	struct tmem_object *object = leaf->object;
	uint64_t number = leaf->number;
	bool empty = !leaf->used;

	pthread_mutex_unlock(leaf->stripe);
	if (empty)
		leaf_free_if_empty(object, number);
}

void leaf_unlock_lazy(struct tmem_leaf *leaf)
{
	struct tmem_pool *pool = leaf->object->pool;

	if (!leaf->used && !leaf->queued) {
		leaf->queued = true;
		leaf->next_empty = atomic_load(&pool->empties);
		while (!atomic_compare_exchange_weak(
			&pool->empties, &leaf->next_empty, leaf))
			;
		atomic_store(&pool->dirty, true);
	}
	pthread_mutex_unlock(leaf->stripe);
}

/* A queued leaf, its object pinned.  It stays until it is taken off. */
static struct tmem_leaf *empties_next(struct tmem_pool *pool)
{
	struct tmem_leaf *leaf;

	pthread_mutex_lock(&pool->lock);
	if (!pool->pruning)
		pool->pruning = atomic_exchange(&pool->empties, NULL);
	leaf = pool->pruning;
	if (leaf) {
		pool->pruning = leaf->next_empty;
		leaf->object->pins++;
	}
	pthread_mutex_unlock(&pool->lock);
	return leaf;
}

unsigned int pool_prune(struct tmem_pool *pool, unsigned int max)
{
	struct tmem_leaf *leaf;
	unsigned int done = 0;

	while (done < max && (leaf = empties_next(pool))) {
		struct tmem_object *object = leaf->object;
		uint64_t number = leaf->number;

		pthread_mutex_lock(leaf->stripe);
		leaf->queued = false;
		pthread_mutex_unlock(leaf->stripe);
		leaf_free_if_empty(object, number);
		object_put(object);
		done++;
	}
	return done;
}

atomic_uint_fast64_t *raw_bytes(struct tmem_pool *pool)
{
	return pool->arena->persistent ? &pool->tenant->persistent_raw :
					 &pool->tenant->ephemeral_raw;
}

void leaf_count(struct tmem_pool *pool, struct tmem_leaf *leaf,
		tmem_handle handle, uint32_t claimed)
{
	leaf->used++;
	atomic_fetch_add(&pool->count.stored_bytes, handle_length(handle));
	if (handle_type(handle) == HANDLE_SAME)
		atomic_fetch_add(&pool->count.same_filled, 1);
	if (handle_type(handle) == HANDLE_RAW)
		atomic_fetch_add(&pool->count.raw, 1);
	/* First the pool's, so that object_detach() finds what it takes away. */
	atomic_fetch_add(raw_bytes(pool), pool->page_size - claimed);
	atomic_fetch_add(&pool->count.pages, 1);
	if (atomic_fetch_add(&leaf->object->pages, 1) & OBJECT_DETACHED) {
		atomic_fetch_sub(raw_bytes(pool), pool->page_size);
		atomic_fetch_sub(&pool->count.pages, 1);
		atomic_fetch_add(&pool->tenant->store->draining_pages, 1);
	}
}

tmem_handle leaf_forget(struct tmem_pool *pool, struct tmem_leaf *leaf,
			unsigned int entry)
{
	tmem_handle handle = atomic_load(&leaf->word[entry]);
	bool detached;

	if (handle == HANDLE_EMPTY)
		return handle;
	atomic_store(&leaf->word[entry], HANDLE_EMPTY);
	leaf->used--;
	atomic_fetch_sub(&pool->count.stored_bytes, handle_length(handle));
	if (handle_type(handle) == HANDLE_SAME)
		atomic_fetch_sub(&pool->count.same_filled, 1);
	if (handle_type(handle) == HANDLE_RAW)
		atomic_fetch_sub(&pool->count.raw, 1);
	detached = atomic_fetch_sub(&leaf->object->pages, 1) & OBJECT_DETACHED;
	if (!detached)
		atomic_fetch_sub(&pool->count.pages, 1);
	if (detached || pool->settled)
		atomic_fetch_sub(&pool->tenant->store->draining_pages, 1);
	else
		atomic_fetch_sub(raw_bytes(pool), pool->page_size);
	return handle;
}

void leaf_remove(struct tmem_pool *pool, struct tmem_leaf *leaf,
		 unsigned int entry)
{
	tmem_handle handle = leaf_forget(pool, leaf, entry);

	if (handle_has_chunk(handle))
		arena_free(pool->arena, handle);
}

/* ------------------------------------------------------------------ check */

#define FAULT(...) (snprintf(message, size, __VA_ARGS__), -EUCLEAN)

static int object_check(struct tmem_object *object, uint64_t *pages,
			uint64_t *stored, char *message, size_t size)
{
	uint64_t leaves = 0, number = 0, found = 0;
	struct tmem_leaf *leaf;

	while ((leaf = leaf_lock_next(object, number))) {
		unsigned int used = 0;

		for (unsigned int i = 0; i < LEAF_ENTRIES; i++) {
			tmem_handle handle = atomic_load(&leaf->word[i]);

			used += handle != HANDLE_EMPTY;
			*stored += handle ? handle_length(handle) : 0;
		}
		number = leaf->number + 1;
		leaves++;
		found += used;
		if (used != leaf->used || (!used && !leaf->queued)) {
			pthread_mutex_unlock(leaf->stripe);
			return FAULT("leaf: %u words used, %u counted", used,
				     leaf->used);
		}
		pthread_mutex_unlock(leaf->stripe);
		if (!number)
			break;
	}
	if (found != (atomic_load(&object->pages) & ~OBJECT_DETACHED))
		return FAULT("object: %ju pages found, %ju counted",
			     (uintmax_t)found,
			     (uintmax_t)atomic_load(&object->pages));
	if (!object_detached(object))
		*pages += found;
	if (leaves != object->leaves || (!leaves && !object->pins))
		return FAULT("object: %ju leaves found, %ju counted",
			     (uintmax_t)leaves, (uintmax_t)object->leaves);
	return 0;
}

static int objects_check(struct list *head, uint64_t *objects, uint64_t *pages,
			 uint64_t *stored, char *message, size_t size)
{
	int error = 0;

	for (struct list *l = head->next; l != head && !error; l = l->next) {
		++*objects;
		error = object_check(container_of(l, struct tmem_object, link),
				     pages, stored, message, size);
	}
	return error;
}

int index_check(struct tmem_pool *pool, char *message, size_t size)
{
	uint64_t pages = 0, stored = 0, objects = 0, ended = 0;
	int error = 0;

	/* Gets pin objects, and unpin them, while they are checked. */
	pthread_mutex_lock(&pool->lock);
	for (uint64_t i = 0; i <= pool->objects_mask && !error; i++)
		error = objects_check(&pool->objects[i], &objects, &pages,
				      &stored, message, size);
	if (!error)
		error = objects_check(&pool->detached, &ended, &pages, &stored,
				      message, size);
	if (!error)
		error = objects_check(&pool->leaving, &ended, &pages, &stored,
				      message, size);
	if (!error && (objects != pool->num_objects ||
		       pages != atomic_load(&pool->count.pages) ||
		       stored != atomic_load(&pool->count.stored_bytes)))
		error = FAULT("pool %u: %ju objects, %ju pages, %ju bytes found; %ju, %ju, %ju counted",
			      pool->id, (uintmax_t)objects, (uintmax_t)pages,
			      (uintmax_t)stored, (uintmax_t)pool->num_objects,
			      (uintmax_t)atomic_load(&pool->count.pages),
			      (uintmax_t)atomic_load(
				      &pool->count.stored_bytes));
	pthread_mutex_unlock(&pool->lock);
	return error;
}
