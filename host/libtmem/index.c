/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Leaves of words.  Lookups, also of objects by their names (object.c), couple
 * locks: the inner one is taken before the outer one is let go.
 *
 * What is adopted after a kill at any instant: an object counts while its state
 * is CELL_LIVE, a leaf while its own is and its object counts, a page while its
 * word says so.  So cells are filled before they go live, and an object's cell
 * is freed after those of its leaves: a new object there would inherit them.
 */
#include <stdio.h>

#include "internal.h"

void *index_zalloc(struct arena *arena, size_t size)
{
	void *ptr = store_zalloc(arena->tenant->store, size);

	if (ptr)
		atomic_fetch_add(&arena->index_bytes, size);
	return ptr;
}

void index_free(struct arena *arena, void *ptr, size_t size)
{
	atomic_fetch_sub(&arena->index_bytes, size);
	store_note_freed(arena->tenant->store, size);
	store_free(arena->tenant->store, ptr);
}

/* ----------------------------------------------------------------- leaves */

struct tmem_object *leaf_object(struct arena *arena,
				const struct tmem_leaf *leaf)
{
	return cell_at(&arena->cells, leaf->object);
}

pthread_mutex_t *leaf_stripe(struct tmem_pool *pool,
			     const struct tmem_leaf *leaf)
{
	uint64_t key = leaf->number ^ (uint64_t)leaf->object << 32;

	return &pool->stripe[hash_mix(key) % STRIPES];
}

static struct tmem_leaf *leaf_at(struct tmem_pool *pool, uint32_t cell)
{
	return cell ? cell_at(&pool->arena->cells, cell) : NULL;
}

unsigned int leaf_capacity(enum cell_kind kind)
{
	return kind == CELL_LEAF_2 ? 2 : kind == CELL_LEAF_8 ? 8 : LEAF_ENTRIES;
}

/* The smallest that has @words. */
static enum cell_kind leaf_kind(uint64_t words)
{
	return words <= 2   ? CELL_LEAF_2
	       : words <= 8 ? CELL_LEAF_8
			    : CELL_LEAF_32;
}

struct tmem_leaf *leaf_lock(struct tmem_object *object, uint64_t index)
{
	struct tmem_leaf *leaf;

	pthread_mutex_lock(object_lock(object));
	leaf = radix_find(object, index >> LEAF_SHIFT);
	if (leaf && index % LEAF_ENTRIES < leaf->capacity)
		pthread_mutex_lock(leaf_stripe(object->pool, leaf));
	else
		leaf = NULL;
	pthread_mutex_unlock(object_lock(object));
	return leaf;
}

void leaf_prefetch(struct tmem_object *object, uint64_t index)
{
	struct tmem_leaf *leaf = leaf_lock(object, index);
	tmem_handle handle;

	if (!leaf)
		return;
	handle = atomic_load_explicit(&leaf->word[index % LEAF_ENTRIES],
				      memory_order_relaxed);
	if (handle_has_chunk(handle))
		arena_prefetch_slot(object->pool->arena, handle);
	pthread_mutex_unlock(leaf_stripe(object->pool, leaf));
}

enum cell_kind leaf_needs(struct tmem_object *object, uint64_t index,
			  uint64_t count, tmem_handle *old)
{
	unsigned int entry = index % LEAF_ENTRIES;
	enum cell_kind kind = CELL_NONE;
	struct tmem_leaf *leaf;

	*old = HANDLE_EMPTY;
	pthread_mutex_lock(object_lock(object));
	leaf = radix_find(object, index >> LEAF_SHIFT);
	if (leaf && entry < leaf->capacity) {
		*old = atomic_load(&leaf->word[entry]);
	} else if (leaf || !object->root) {
		/* A small file's; one that grows soon has more than one leaf.
		 */
		kind = leaf_kind(entry + count);
	} else {
		kind = CELL_LEAF_32;
	}
	pthread_mutex_unlock(object_lock(object));
	return kind;
}

static struct tmem_leaf *leaf_new(struct tmem_object *object, uint64_t number,
				  uint32_t cell)
{
	struct tmem_pool *pool = object->pool;
	struct tmem_leaf *leaf = leaf_at(pool, cell);

	leaf->capacity = leaf_capacity(cell_kind(pool->arena, cell));
	leaf->object = object->self;
	leaf->number = number;
	leaf->self = cell;
	if (radix_insert(object, leaf))
		return NULL;
	atomic_store_explicit(&leaf->state, CELL_LIVE, memory_order_release);
	return leaf;
}

/*
 * The words of @old move to a leaf with more of them.  The object's lock and
 * the stripe are held, which is the new leaf's, too.  There is one store that
 * makes the old leaf dead and the new one live.
 */
static struct tmem_leaf *leaf_grow(struct tmem_object *object,
				   struct tmem_leaf *old, uint32_t cell)
{
	struct tmem_pool *pool = object->pool;
	struct tmem_leaf *leaf = leaf_at(pool, cell);

	leaf->capacity = leaf_capacity(cell_kind(pool->arena, cell));
	leaf->used = old->used;
	leaf->object = old->object;
	leaf->number = old->number;
	leaf->self = cell;
	leaf->next = old->self;
	for (unsigned int i = 0; i < old->capacity; i++) {
		atomic_store(&leaf->word[i], atomic_load(&old->word[i]));
		atomic_store(leaf_crc(leaf, i), atomic_load(leaf_crc(old, i)));
	}
	atomic_store(&leaf->state, CELL_COPY);
	radix_replace(object, leaf);
	arena_move_leaf(pool->arena, old, leaf);
	atomic_store(&old->state, CELL_GONE);
	atomic_store(&leaf->state, CELL_LIVE);
	leaf->next = 0;
	if (!old->queued)
		cell_free(pool->arena, old->self);
	return leaf;
}

struct tmem_leaf *leaf_make(struct tmem_object *object, uint64_t index,
			    uint32_t *spare)
{
	uint64_t number = index >> LEAF_SHIFT;
	struct tmem_leaf *leaf;

	pthread_mutex_lock(object_lock(object));
	leaf = radix_find(object, number);
	if (leaf && index % LEAF_ENTRIES < leaf->capacity) {
		pthread_mutex_lock(leaf_stripe(object->pool, leaf));
	} else if (leaf && *spare) {
		pthread_mutex_lock(leaf_stripe(object->pool, leaf));
		leaf = leaf_grow(object, leaf, *spare);
		*spare = 0;
	} else if (leaf) {
		leaf = NULL;
	} else if (*spare) {
		leaf = leaf_new(object, number, *spare);
		if (leaf) {
			*spare = 0;
			pthread_mutex_lock(leaf_stripe(object->pool, leaf));
		}
	}
	pthread_mutex_unlock(object_lock(object));
	return leaf;
}

struct tmem_leaf *leaf_lock_next(struct tmem_object *object, uint64_t number)
{
	struct tmem_leaf *leaf;

	pthread_mutex_lock(object_lock(object));
	leaf = radix_next(object, number);
	if (leaf)
		pthread_mutex_lock(leaf_stripe(object->pool, leaf));
	pthread_mutex_unlock(object_lock(object));
	return leaf;
}

/* The object is pinned by the caller. */
static void leaf_free_if_empty(struct tmem_object *object, uint64_t number)
{
	struct tmem_pool *pool = object->pool;
	struct tmem_leaf *leaf;
	bool empty;

	pthread_mutex_lock(object_lock(object));
	leaf = radix_find(object, number);
	if (leaf) {
		/* Whoever had it had the object's lock when he began to wait.
		 */
		pthread_mutex_lock(leaf_stripe(pool, leaf));
		empty = !leaf->used && !leaf->queued;
		pthread_mutex_unlock(leaf_stripe(pool, leaf));
		if (empty) {
			radix_remove(object, number);
			cell_free(pool->arena, leaf->self);
		}
	}
	pthread_mutex_unlock(object_lock(object));
}

void leaf_unlock(struct tmem_object *object, struct tmem_leaf *leaf)
{
	uint64_t number = leaf->number;
	bool empty = !leaf->used;

	pthread_mutex_unlock(leaf_stripe(object->pool, leaf));
	if (empty)
		leaf_free_if_empty(object, number);
}

void leaf_unlock_lazy(struct tmem_pool *pool, struct tmem_leaf *leaf)
{
	if (!leaf->used && !leaf->queued) {
		leaf->queued = true;
		leaf->next = atomic_load(&pool->empties);
		while (!atomic_compare_exchange_weak(&pool->empties,
						     &leaf->next, leaf->self))
			;
		atomic_store(&pool->dirty, true);
	}
	pthread_mutex_unlock(leaf_stripe(pool, leaf));
}

/*
 * The next queued leaf; it stays until it is taken off.  Its object, pinned;
 * or NULL, if another leaf has taken its place: then it is nobody's but ours.
 */
static struct tmem_leaf *empties_next(struct tmem_pool *pool,
				      struct tmem_object **object)
{
	struct tmem_leaf *leaf;

	pthread_mutex_lock(&pool->lock);
	if (!pool->pruning)
		pool->pruning = atomic_exchange(&pool->empties, 0);
	leaf = leaf_at(pool, pool->pruning);
	*object = NULL;
	if (leaf) {
		pool->pruning = leaf->next;
		/* While it is live its object has a leaf, and so it is there.
		 */
		if (atomic_load(&leaf->state) == CELL_LIVE) {
			*object = leaf_object(pool->arena, leaf);
			(*object)->pins++;
		}
	}
	pthread_mutex_unlock(&pool->lock);
	return leaf;
}

unsigned int pool_prune(struct tmem_pool *pool, unsigned int max)
{
	struct tmem_object *object;
	struct tmem_leaf *leaf;
	unsigned int done = 0;

	while (done < max && (leaf = empties_next(pool, &object))) {
		uint64_t number = leaf->number;
		bool gone;

		pthread_mutex_lock(leaf_stripe(pool, leaf));
		leaf->queued = false;
		gone = atomic_load(&leaf->state) != CELL_LIVE;
		pthread_mutex_unlock(leaf_stripe(pool, leaf));
		if (gone)
			cell_free(pool->arena, leaf->self);
		else
			leaf_free_if_empty(object, number);
		if (object)
			object_put(object);
		done++;
	}
	return done;
}

void stored_count(struct tmem_pool *pool, tmem_handle handle, int pages)
{
	struct pool_counters *count = &pool->count;

	atomic_fetch_add(&count->stored_bytes,
			 (uint64_t)handle_length(handle) * pages);
	if (handle_type(handle) == HANDLE_SAME)
		atomic_fetch_add(&count->same_filled, pages);
	if (handle_type(handle) == HANDLE_RAW)
		atomic_fetch_add(&count->raw, pages);
	if (handle_type(handle) == HANDLE_ZSTD)
		atomic_fetch_add(&count->recompressed, pages);
}

void leaf_count(struct tmem_object *object, struct tmem_leaf *leaf,
		tmem_handle handle, uint32_t claimed)
{
	struct tmem_pool *pool = object->pool;

	leaf->used++;
	stored_count(pool, handle, 1);
	/* First the pool's, so that object_detach() finds what it takes away.
	 */
	raw_add(pool, pool->page_size - claimed);
	atomic_fetch_add(&pool->count.pages, 1);
	if (atomic_fetch_add(&object->pages, 1) & OBJECT_DETACHED) {
		raw_sub(pool, pool->page_size);
		atomic_fetch_sub(&pool->count.pages, 1);
		atomic_fetch_add(&pool->tenant->store->draining_pages, 1);
	}
}

tmem_handle leaf_forget(struct tmem_object *object, struct tmem_leaf *leaf,
			unsigned int entry)
{
	struct tmem_pool *pool = object->pool;
	tmem_handle handle = atomic_load(&leaf->word[entry]);
	bool detached;

	if (handle == HANDLE_EMPTY)
		return handle;
	atomic_store(&leaf->word[entry], HANDLE_EMPTY);
	leaf->used--;
	stored_count(pool, handle, -1);
	detached = atomic_fetch_sub(&object->pages, 1) & OBJECT_DETACHED;
	if (!detached)
		atomic_fetch_sub(&pool->count.pages, 1);
	if (detached || pool->settled)
		atomic_fetch_sub(&pool->tenant->store->draining_pages, 1);
	else
		raw_sub(pool, pool->page_size);
	return handle;
}

void leaf_remove(struct tmem_object *object, struct tmem_leaf *leaf,
		 unsigned int entry)
{
	tmem_handle handle = leaf_forget(object, leaf, entry);

	if (handle_has_chunk(handle))
		arena_free(object->pool->arena, handle);
}

/* ------------------------------------------------------------------ check */

struct found {
	uint64_t objects, pages, stored;
};

static int leaf_check(struct tmem_object *object, struct tmem_leaf *leaf,
		      struct found *found, char *message, size_t size)
{
	unsigned int used = 0;

	for (unsigned int i = 0; i < leaf->capacity; i++) {
		tmem_handle handle = atomic_load(&leaf->word[i]);

		used += handle != HANDLE_EMPTY;
		found->stored += handle_length(handle);
	}
	found->pages += used;
	if (used != leaf->used || (!used && !leaf->queued))
		return FAULT("leaf: %u words used, %u counted", used,
			     leaf->used);
	if (atomic_load(&leaf->state) != CELL_LIVE ||
	    leaf->object != object->self ||
	    leaf->capacity !=
		    leaf_capacity(cell_kind(object->pool->arena, leaf->self)))
		return FAULT("leaf: another object's, or not live");
	return 0;
}

/* Its pages that are counted as the pool's are added to @sum. */
static int object_check(struct tmem_object *object, struct found *sum,
			char *message, size_t size)
{
	struct found found = { 0 };
	struct tmem_leaf *leaf;
	uint64_t number = 0;
	int error = 0;

	while (!error && (leaf = leaf_lock_next(object, number))) {
		number = leaf->number + 1;
		error = leaf_check(object, leaf, &found, message, size);
		pthread_mutex_unlock(leaf_stripe(object->pool, leaf));
		if (!number)
			break;
	}
	if (error)
		return error;
	if (found.pages != (atomic_load(&object->pages) & ~OBJECT_DETACHED))
		return FAULT("object: %ju pages found, %ju counted",
			     (uintmax_t)found.pages,
			     (uintmax_t)atomic_load(&object->pages));
	if (!object->root && !object->pins)
		return FAULT("object: empty, and nobody has it");
	if (atomic_load(&object->state) !=
	    (object_detached(object) ? CELL_GONE : CELL_LIVE))
		return FAULT("object: its state is %u",
			     atomic_load(&object->state));
	sum->stored += found.stored;
	if (!object_detached(object))
		sum->pages += found.pages;
	return 0;
}

/* Of a bucket, or on the list of those that drain. */
static int objects_check(struct tmem_pool *pool, uint32_t cell,
			 struct found *found, char *message, size_t size)
{
	struct tmem_object *object;
	int error = 0;

	for (; cell && !error; cell = object->next) {
		object = object_at(pool, cell);
		found->objects++;
		if (object->self != cell || object->pool != pool)
			return FAULT("object: in a table that is not its own");
		error = object_check(object, found, message, size);
	}
	return error;
}

int index_check(struct tmem_pool *pool, char *message, size_t size)
{
	struct found found = { 0 }, ended = { 0 };
	int error = 0;

	/* Gets pin objects, and unpin them, while they are checked. */
	pthread_mutex_lock(&pool->lock);
	for (uint32_t i = 0; i < pool->buckets && !error; i++)
		error = objects_check(pool, *bucket_at(pool, i), &found,
				      message, size);
	if (!error)
		error = objects_check(pool, pool->detached, &ended, message,
				      size);
	if (!error)
		error = objects_check(pool, pool->leaving, &ended, message,
				      size);
	found.stored += ended.stored;
	if (!error && (found.objects != pool->num_objects ||
		       found.pages != atomic_load(&pool->count.pages) ||
		       found.stored != atomic_load(&pool->count.stored_bytes)))
		error = FAULT(
			"pool %u: %ju objects, %ju pages, %ju bytes found; "
			"%ju, %ju, %ju counted",
			pool->id, (uintmax_t)found.objects,
			(uintmax_t)found.pages, (uintmax_t)found.stored,
			(uintmax_t)pool->num_objects,
			(uintmax_t)atomic_load(&pool->count.pages),
			(uintmax_t)atomic_load(&pool->count.stored_bytes));
	pthread_mutex_unlock(&pool->lock);
	return error;
}
