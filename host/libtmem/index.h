/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From a key to its word: index.c has objects by their names, in hash tables,
 * and leaves with what they count; radix.c says which leaf has an index;
 * cells.h is the memory of objects and leaves, which another process can adopt.
 *
 * Of an object and a leaf only what is marked so is for who adopts them; the
 * rest is this process's, and made anew.
 */
#ifndef TMEM_INDEX_H
#define TMEM_INDEX_H

#include "arena.h"

/* ----------------------------------------------------------------- leaves */

/* A leaf has words for 32 indexes, or for the first 2 or 8 of these. */
#define LEAF_ENTRIES 32u
#define LEAF_SHIFT   5
#define NODE_ENTRIES 64u
#define NODE_SHIFT   6

struct tmem_leaf {
	_Atomic uint8_t state;	    /* adopted: enum cell_state */
	uint8_t capacity;	    /* words: 2, 8 or 32 */
	uint8_t used;		    /* that are not empty; under the stripe */
	bool queued;		    /* on pool->empties, whose taker frees it */
	uint32_t object;	    /* adopted: the object's cell */
	uint64_t number;	    /* adopted: index >> LEAF_SHIFT */
	uint32_t next;		    /* on pool->empties; CELL_COPY: of which */
	uint32_t self;		    /* its cell */
	_Atomic tmem_handle word[]; /* adopted */
	/* uint32_t crc[capacity]; adopted: leaf_crc() */
};
#define LEAF_BYTES(capacity)                                                   \
	(sizeof(struct tmem_leaf) +                                            \
	 (capacity) * (sizeof(tmem_handle) + sizeof(uint32_t)))

/*
 * Checksum of the bytes that a word names: codec_checksum().  It is changed
 * while the word is empty, so that no word is ever with the checksum of
 * another.
 */
static inline _Atomic uint32_t *leaf_crc(struct tmem_leaf *leaf,
					 unsigned int entry)
{
	return (_Atomic uint32_t *)&leaf->word[leaf->capacity] + entry;
}

struct node {
	uint32_t used;
	void *child[NODE_ENTRIES]; /* nodes, or leaves at the lowest level */
};

/* ---------------------------------------------------------------- objects */

struct tmem_object {
	_Atomic uint8_t state; /* adopted: enum cell_state */
	uint8_t levels;	       /* of nodes above the leaves; object lock */
	uint16_t pool_id;      /* adopted */
	uint32_t generation;   /* adopted: of the pool */
	uint32_t self;	       /* its cell */
	uint32_t next;	       /* in its bucket, on ->detached or ->leaving */
	uint8_t id[TMEM_OBJECT_SIZE]; /* adopted */
	uint32_t pins;		      /* ops that use it; under pool->lock */
	/*
	 * Pages in it.  With OBJECT_DETACHED, set under pool->lock, it was
	 * flushed as a whole: its pages count as draining, not as the pool's.
	 */
	_Atomic uint32_t pages;
	/* Nodes, or leaf 0 if there are no levels; NULL: no leaf. */
	void *root;
	struct tmem_pool *pool;
};

#define OBJECT_DETACHED (1u << 31)

static inline bool object_detached(struct tmem_object *object)
{
	return atomic_load(&object->pages) & OBJECT_DETACHED;
}

/* Levels of nodes that 64 bits of index need, and what a page alone can cost.
 */
#define INDEX_LEVELS	 ((64 - LEAF_SHIFT + NODE_SHIFT - 1) / NODE_SHIFT)
#define INDEX_MOST_BYTES (INDEX_LEVELS * sizeof(struct node))

/* ------------------------------------------------------------------ pools */

#define STRIPES 64u
/* Segments of the hash table: 16 buckets, then as many as there are. */
#define BUCKETS_MIN	16u
#define BUCKET_SEGMENTS 27u

struct pool_counters {
	atomic_uint_fast64_t pages, stored_bytes, same_filled, raw,
		recompressed;
	atomic_uint_fast64_t puts, refused_limit, refused_memory,
		refused_headroom;
	atomic_uint_fast64_t gets, misses, refaults, io_errors, flushes,
		evictions;
};

/* Where clock.c goes on in a pool. */
struct hand {
	pthread_mutex_t lock;
	uint32_t bucket, object; /* its cell; 0: the bucket's first */
	uint64_t leaf;		 /* whose words are next, or the one after it */
	unsigned int entry;	 /* of them */
	uint64_t due;		 /* clock_age(): of a word that it has to go */
};

struct tmem_pool {
	struct tmem_tenant *tenant;
	struct arena *arena;
	struct list link; /* store->dead */
	uint32_t id, generation;
	struct tmem_pool_params params;
	uint32_t page_size;
	bool opaque; /* TMEM_POOL_OPAQUE: every page is HANDLE_OPAQUE */
	/* The table's or the dead list's, and ops'.  Under tenant->lock. */
	unsigned int refs;
	atomic_bool dead;
	/*
	 * Dead, no op uses it, and its pages count as draining rather than as
	 * the tenant's.  Under arena->lock, which eviction holds.
	 */
	bool settled;
	uint32_t drain_cursor; /* buckets below are empty; dead pools only */
	pthread_mutex_t lock;
	uint32_t *bucket[BUCKET_SEGMENTS]; /* hash table of objects' cells */
	uint32_t buckets;
	uint64_t num_objects; /* in it */
	uint32_t detached;    /* objects that drain: no lookup finds them */
	uint32_t leaving;     /* drained ones, to which an op may still put */
	pthread_mutex_t object_lock[STRIPES]; /* by object */
	pthread_mutex_t stripe[STRIPES];      /* by object and leaf */
	/* Leaves that were emptied by somebody who may not free them. */
	_Atomic uint32_t empties;
	uint32_t pruning; /* the same, on their way out */
	/* There may be something in the three above, for pool_clean(). */
	atomic_bool dirty;
	struct pool_counters count;
	/*
	 * Raw bytes that are the tenant's, claims included; account.c.  Of a
	 * persistent pool the first @reserved of them are its own
	 * reservation's.
	 */
	atomic_uint_fast64_t raw;
	/* Of struct tmem_pool_limits, resolved: read without a lock. */
	atomic_uint_fast64_t reserved, max;
	atomic_uint weight;
	struct hand hand;
};

/* Its page size if it is opaque; 0. */
static inline uint32_t pool_opaque_size(const struct tmem_pool *pool)
{
	return pool->opaque ? pool->page_size : 0;
}

int pool_index_init(struct tmem_pool *pool);
void pool_index_destroy(struct tmem_pool *pool);
/* Frees what is this process's of it, and no cell. */
void pool_index_forget(struct tmem_pool *pool);
/* Find; pins the object.  NULL: there is none. */
struct tmem_object *object_get(struct tmem_pool *pool,
			       const uint8_t id[TMEM_OBJECT_SIZE]);
/* Find or make, *@object, pinned.  Errors as arena_alloc()'s. */
int object_get_or_make(struct tmem_pool *pool,
		       const uint8_t id[TMEM_OBJECT_SIZE], bool guaranteed,
		       struct tmem_object **object);
/* Unpins; frees the object if it is empty and nobody else has it. */
void object_put(struct tmem_object *object);
/*
 * From here on lookups find none and its pages are nobody's;
 * pool_drain_detached() frees them.
 */
void object_detach(struct tmem_object *object);
unsigned int pool_drain_detached(struct tmem_pool *pool, unsigned int max);
/* Frees queued leaves, @max at most; how many it took from the queue. */
unsigned int pool_prune(struct tmem_pool *pool, unsigned int max);
/* Frees what has ended in a pool that goes on: pool_prune() and the like. */
unsigned int pool_clean(struct tmem_pool *pool, unsigned int max);
/* Free pages of a settled pool: words visited; fewer than @max: it is empty. */
unsigned int pool_drain(struct tmem_pool *pool, unsigned int max);

/* Words of a leaf of that kind. */
unsigned int leaf_capacity(enum cell_kind kind);
/* The leaf that has a word for @index, with its stripe locked; or NULL. */
struct tmem_leaf *leaf_lock(struct tmem_object *object, uint64_t index);
/* It will be replaced soon: the caches fetch what that needs. */
void leaf_prefetch(struct tmem_object *object, uint64_t index);
/*
 * What leaf_make() would need for @index if a run of @count goes on from there:
 * CELL_NONE if there is a word for it already, which *@old is, for a moment.
 */
enum cell_kind leaf_needs(struct tmem_object *object, uint64_t index,
			  uint64_t count, tmem_handle *old);
/*
 * As leaf_lock(), and makes the leaf, or one with more words, of the cell
 * *@spare, which is 0 then.  NULL: it takes a cell and there is none, or memory
 * for nodes is missing.
 */
struct tmem_leaf *leaf_make(struct tmem_object *object, uint64_t index,
			    uint32_t *spare);
/* The first leaf at or after leaf @number, locked, or NULL. */
struct tmem_leaf *leaf_lock_next(struct tmem_object *object, uint64_t number);
/* Its stripe. */
pthread_mutex_t *leaf_stripe(struct tmem_pool *pool,
			     const struct tmem_leaf *leaf);
struct tmem_object *leaf_object(struct arena *arena,
				const struct tmem_leaf *leaf);
/* Unlocks, and frees the leaf if it is empty.  The object is pinned. */
void leaf_unlock(struct tmem_object *object, struct tmem_leaf *leaf);
/* The same for those who hold arena->lock: an empty leaf is queued. */
void leaf_unlock_lazy(struct tmem_pool *pool, struct tmem_leaf *leaf);
/*
 * Empty a word of a locked leaf, in all counters; its chunk, if any, is the
 * caller's to free.  Returns the handle that was there.
 */
tmem_handle leaf_forget(struct tmem_object *object, struct tmem_leaf *leaf,
			unsigned int entry);
/*
 * Count the page whose handle was stored in a locked leaf.  @claimed: raw bytes
 * of it that the tenant's counter has already.
 */
void leaf_count(struct tmem_object *object, struct tmem_leaf *leaf,
		tmem_handle handle, uint32_t claimed);
/* In the pool's counters of what is stored how: @pages, which is 1 or -1. */
void stored_count(struct tmem_pool *pool, tmem_handle handle, int pages);
/* leaf_forget(), and frees the chunk. */
void leaf_remove(struct tmem_object *object, struct tmem_leaf *leaf,
		 unsigned int entry);
int index_check(struct tmem_pool *pool, char *message, size_t size);

/* ---------------------------------------------------------- object, index */

/* MurmurHash3's final mix. */
static inline uint64_t hash_mix(uint64_t h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ull;
	return h ^ h >> 33;
}

/* A bucket of the pool's table: its first object's cell.  pool->lock held. */
uint32_t *bucket_at(struct tmem_pool *pool, uint32_t bucket);
/* NULL: @cell is 0. */
struct tmem_object *object_at(struct tmem_pool *pool, uint32_t cell);
/* Of its radix tree. */
pthread_mutex_t *object_lock(struct tmem_object *object);

/* ------------------------------------------------------------ for clock.c */

/*
 * The object at the pool's hand, pinned, or NULL if the hand has come to a
 * bucket that is empty and passed it.  hand.lock is held.
 */
struct tmem_object *object_at_hand(struct tmem_pool *pool);
/* The hand passes @object, which is pinned. */
void object_pass(struct tmem_object *object);

/* ----------------------------------------------------- for adopt.c, radix.c */

/* Adds an object that is not in the table yet.  -EEXIST: another is. */
int object_adopt(struct tmem_pool *pool, struct tmem_object *object);
/* Private memory of the index, counted as such. */
void *index_zalloc(struct arena *arena, size_t size);
void index_free(struct arena *arena, void *ptr, size_t size);

/* ------------------------------------------------------------------ radix */

struct tmem_leaf *radix_find(struct tmem_object *object, uint64_t number);
/* The first leaf at or after @number, or NULL. */
struct tmem_leaf *radix_next(struct tmem_object *object, uint64_t number);
/* 0 or -ENOMEM, and nothing has changed. */
int radix_insert(struct tmem_object *object, struct tmem_leaf *leaf);
/* @leaf stands where one of the same number stood. */
void radix_replace(struct tmem_object *object, struct tmem_leaf *leaf);
void radix_remove(struct tmem_object *object, uint64_t number);
/* Frees all nodes, and no leaf. */
void radix_forget(struct tmem_object *object);

#endif /* TMEM_INDEX_H */
