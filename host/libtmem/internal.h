/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libtmem's structures.  docs/store.md has the picture, docs/locking.md the
 * rules at length.
 *
 * Lock order, outermost first:
 *
 *   tenants_lock      who is a tenant (read: walk them, drain)
 *   quiesce           read by ops, written by tmem_check()
 *   tenant->lock      the table of pools
 *   pool->lock        the table of objects, objects' pins
 *   object->lock      the object's radix tree
 *   stripe            words of leaves (pool->stripe[], by object and leaf)
 *   arena->lock       spans, classes, segments
 *   store->lock       tenants, dead pools, limits
 *
 * A lookup couples them: the inner lock is taken before the outer one is let
 * go, so whoever frees an inner structure holds the outer lock and knows that
 * nobody waits.  Compaction and eviction go from a chunk (arena->lock) to its
 * leaf's stripe, against the order: they only try, and skip what is busy.
 *
 * None of these is held while guest memory, a codec, or a system call that may
 * block is used.
 */
#ifndef TMEM_INTERNAL_H
#define TMEM_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include "tmem/tmem.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIB (1024ull * 1024)

/* ------------------------------------------------------------------ lists */

struct list {
	struct list *next, *prev;
};

#define container_of(ptr, type, member) \
	((type *)((char *)(ptr)-offsetof(type, member)))

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}
static inline void list_add_tail(struct list *head, struct list *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}
static inline void list_del(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

/* ---------------------------------------------------------------- handles */

/*
 * What a leaf's word says about a page.  0: there is none.  Every change of
 * state is one store of a word.
 *
 *   63..61  type
 *   60      taken: an exclusive get returned it and was not retired yet
 *   same    47..32 which get that was   31..0 the word that fills the page
 *   chunk   59..40 length   37..16 segment   15..0 page of segment << 12 | slot
 */
typedef uint64_t tmem_handle;

#define HANDLE_TYPE_SHIFT 61
#define HANDLE_EMPTY 0ull
#define HANDLE_SAME 1ull  /* 32 bit pattern, repeated */
#define HANDLE_CHUNK 2ull /* LZ4 */
#define HANDLE_RAW 3ull	  /* as it was */
#define HANDLE_TAKEN (1ull << 60)

#define SEGMENT_BITS 22 /* 256 GiB of a tenant's persistent or ephemeral pages */
#define SEGMENT_MAX (1u << SEGMENT_BITS)

static inline unsigned int handle_type(tmem_handle h)
{
	return h >> HANDLE_TYPE_SHIFT;
}
static inline tmem_handle handle_same(uint32_t pattern)
{
	return HANDLE_SAME << HANDLE_TYPE_SHIFT | pattern;
}
static inline tmem_handle handle_chunk(unsigned int type, uint32_t length,
				       uint32_t segment, uint32_t slot)
{
	return (uint64_t)type << HANDLE_TYPE_SHIFT | (uint64_t)length << 40 |
	       (uint64_t)segment << 16 | slot;
}
static inline uint32_t handle_length(tmem_handle h)
{
	return handle_type(h) == HANDLE_SAME ? 0 : h >> 40 & 0xfffff;
}
static inline uint32_t handle_segment(tmem_handle h)
{
	return h >> 16 & (SEGMENT_MAX - 1);
}
static inline uint32_t handle_slot(tmem_handle h)
{
	return h & 0xffff;
}
/* A same-filled page's; a chunk's is arena_taker(). */
static inline uint16_t handle_taker(tmem_handle h)
{
	return h >> 32;
}
static inline tmem_handle handle_set_taker(tmem_handle h, uint16_t taker)
{
	return (h & ~(0xffffull << 32)) | (uint64_t)taker << 32;
}
static inline bool handle_has_chunk(tmem_handle h)
{
	return handle_type(h) == HANDLE_CHUNK || handle_type(h) == HANDLE_RAW;
}

/* ------------------------------------------------------------------ arena */

/*
 * A tenant's memory for one kind of pool: a memfd in segments of 64 KiB, of
 * which spans of 1 to 16 pages are cut; a span has slots of one size class.
 * What is known about a slot stands in the span's descriptor, so the segment
 * holds nothing but stored bytes.
 */
#define ARENA_PAGE 4096u
#define SEGMENT_PAGES 16u
#define SEGMENT_BYTES (SEGMENT_PAGES * ARENA_PAGE)
/* Address space is mapped in regions of this many segments. */
#define REGION_SEGMENTS 1024u
#define REGION_BYTES ((uint64_t)REGION_SEGMENTS * SEGMENT_BYTES)
#define REGION_MAX (SEGMENT_MAX / REGION_SEGMENTS)
/* Classes: every 32 bytes to a page, then 1/8 of a page to 64 KiB. */
#define CLASS_STEP 32u
#define CLASSES_SMALL (ARENA_PAGE / CLASS_STEP)
#define CLASS_STEP_LARGE 512u
#define CLASSES \
	(CLASSES_SMALL + (SEGMENT_BYTES - ARENA_PAGE) / CLASS_STEP_LARGE)

struct tmem_leaf;

struct slot {
	/* NULL: free; SLOT_PENDING: allocated, not published. */
	_Atomic(struct tmem_leaf *) leaf;
	uint32_t crc;	/* codec_checksum(); set before leaf */
	uint16_t entry; /* which word of the leaf; next free slot if free */
	uint16_t taker; /* of HANDLE_TAKEN; under the stripe */
};
#define SLOT_PENDING ((struct tmem_leaf *)1)
#define SLOT_END 0xffff

struct span {
	struct list link; /* class->partial, or class->full */
	struct list age;  /* arena->spans, oldest first */
	uint32_t segment;
	uint16_t class_index;
	uint8_t page, pages; /* within the segment */
	uint16_t slots, used, free_head;
	uint16_t busy; /* being filled, compacted or evicted: not to be freed */
	struct slot slot[];
};

struct size_class {
	uint32_t size;
	uint8_t pages;	/* of a span */
	uint16_t slots; /* of a span */
	struct list partial, full;
	uint64_t spans, used;
};

struct segment {
	struct list link;    /* arena->by_run[longest run of free pages] */
	uint16_t used;	     /* bit n: page n belongs to a span */
	uint16_t populated;  /* bit n: page n takes host memory */
	uint32_t number;
	uint8_t run;	     /* longest run of free pages */
	bool idle;	     /* linked in arena->idle */
	struct list idle_link;
	struct span *span[SEGMENT_PAGES];
};

struct arena {
	struct tmem_tenant *tenant;
	bool persistent;
	int fd;
	pthread_mutex_t lock;
	struct size_class class[CLASSES];
	char *region[REGION_MAX];	      /* addresses; set once */
	struct segment *segments[REGION_MAX]; /* descriptors of a region */
	uint32_t num_segments;
	struct list by_run[SEGMENT_PAGES + 1];
	struct list idle; /* segments with populated pages of no span */
	struct list spans;
	unsigned int compact_class; /* where compaction goes on */
	uint64_t idle_pages; /* populated and of no span */
	uint64_t demand;     /* pages that spans took, halved by every punch */
	/* Held bytes: pages populated; descriptors of spans; all the rest. */
	atomic_uint_fast64_t populated_bytes, span_bytes, index_bytes;
};

/* A place for a page's bytes, not yet published. */
struct chunk {
	struct span *span;
	uint16_t index;
	uint32_t length, crc; /* the caller sets crc */
	char *data;
};

int arena_init(struct arena *arena, struct tmem_tenant *tenant,
	       bool persistent);
void arena_destroy(struct arena *arena);
/*
 * @guaranteed: within the reservation: only the host may refuse.
 * -ENOSPC: a limit; -ENOMEM: the host; -EBUSY: headroom.
 */
int arena_alloc(struct arena *arena, uint32_t length, bool guaranteed,
		struct chunk *chunk);
void arena_abort(struct arena *arena, struct chunk *chunk);
/* Publish: the caller holds the leaf's stripe and stores the handle returned. */
tmem_handle arena_publish(struct arena *arena, struct chunk *chunk,
			  unsigned int type, struct tmem_leaf *leaf,
			  unsigned int entry);
/* The caller has removed the handle from its leaf. */
void arena_free(struct arena *arena, tmem_handle handle);
/* Address of the stored bytes; valid while the leaf's stripe is held. */
const char *arena_data(struct arena *arena, tmem_handle handle);
/* It will be wanted soon: the caches fetch it.  Likewise. */
void arena_prefetch(struct arena *arena, tmem_handle handle);
/* Checksum that the stored bytes had; likewise. */
uint32_t arena_crc(struct arena *arena, tmem_handle handle);
/* Which exclusive get took the page; the leaf's stripe is held. */
uint16_t *arena_taker(struct arena *arena, tmem_handle handle);
/* Background work, bounded: moved chunks and punched pages. */
unsigned int arena_compact(struct arena *arena, unsigned int max);
unsigned int arena_punch(struct arena *arena, unsigned int max, bool all);
/* Evict the oldest spans (ephemeral arenas): returns bytes that became idle. */
uint64_t arena_evict(struct arena *arena, uint64_t bytes);
uint64_t arena_held(struct arena *arena);
/* Of that, pages and the descriptors that go with them; and the rest. */
uint64_t arena_page_bytes(struct arena *arena);
uint64_t arena_index_bytes(struct arena *arena);
/* What growth of the latter is. */
enum grows arena_index_grows(struct arena *arena);
int arena_check(struct arena *arena, char *message, size_t size);

/* ------------------------------------------------------------------ index */

#define LEAF_ENTRIES 32u
#define LEAF_SHIFT 5
#define NODE_ENTRIES 64u
#define NODE_SHIFT 6

struct tmem_leaf {
	struct tmem_object *object;
	uint64_t number; /* index >> LEAF_SHIFT */
	pthread_mutex_t *stripe;
	uint16_t used; /* words that are not empty; under the stripe */
	bool queued;   /* on pool->empties; whoever takes it off frees it */
	struct tmem_leaf *next_empty;
	_Atomic tmem_handle word[LEAF_ENTRIES];
};

struct node {
	uint32_t used;
	void *child[NODE_ENTRIES]; /* nodes, or leaves at the lowest level */
};

struct tmem_object {
	struct list link; /* pool->objects[hash] */
	struct tmem_pool *pool;
	uint8_t id[TMEM_OBJECT_SIZE];
	uint32_t seed; /* of its pages' checksums: codec_seed() */
	uint32_t pins; /* ops that use it; under pool->lock */
	/*
	 * Pages in it.  With OBJECT_DETACHED, set under pool->lock, it was
	 * flushed as a whole: pool->detached pins it, and its pages count as
	 * draining rather than as the pool's.
	 */
	atomic_uint_fast64_t pages;
	pthread_mutex_t lock;
	/* Levels of nodes above the leaves; 0: @root is leaf 0 or NULL. */
	unsigned int levels;
	void *root;
	uint64_t leaves;
};

#define OBJECT_DETACHED (1ull << 63)

/* Levels of nodes that 64 bits of index need, and what a page alone can cost. */
#define INDEX_LEVELS ((64 - LEAF_SHIFT + NODE_SHIFT - 1) / NODE_SHIFT)
#define INDEX_MOST_BYTES                                                       \
	(sizeof(struct tmem_leaf) + INDEX_LEVELS * sizeof(struct node) +       \
	 sizeof(struct tmem_object))

static inline bool object_detached(struct tmem_object *object)
{
	return atomic_load(&object->pages) & OBJECT_DETACHED;
}

#define STRIPES 64u

struct pool_counters {
	atomic_uint_fast64_t pages, stored_bytes, same_filled, raw;
	atomic_uint_fast64_t puts, refused_limit, refused_memory,
		refused_headroom;
	atomic_uint_fast64_t gets, misses, io_errors, flushes, evictions;
};

struct tmem_pool {
	struct tmem_tenant *tenant;
	struct arena *arena;
	struct list link; /* store->dead */
	uint32_t id;
	struct tmem_pool_params params;
	uint32_t page_size;
	/* The table's or the dead list's, and ops'.  Under tenant->lock. */
	unsigned int refs;
	atomic_bool dead;
	/*
	 * Dead, no op uses it, and its pages count as draining rather than as
	 * the tenant's.  Under arena->lock, which eviction holds.
	 */
	bool settled;
	uint64_t drain_cursor; /* buckets below are empty; dead pools only */
	pthread_mutex_t lock;
	struct list *objects; /* hash table */
	struct list detached; /* objects that drain: no lookup finds them */
	struct list leaving;  /* drained ones, to which an op may still put */
	uint32_t objects_mask;
	uint64_t num_objects;
	pthread_mutex_t stripe[STRIPES];
	/* Leaves that were emptied by somebody who may not free them. */
	_Atomic(struct tmem_leaf *) empties;
	struct tmem_leaf *pruning; /* the same, on their way out */
	/* There may be something in the three above, for pool_clean(). */
	atomic_bool dirty;
	struct pool_counters count;
};

/* Find or make; pins the object.  NULL: there is none, or -ENOMEM. */
struct tmem_object *object_get(struct tmem_pool *pool,
			       const uint8_t id[TMEM_OBJECT_SIZE], bool create);
/* Unpins; frees the object if it is empty and nobody else has it. */
void object_put(struct tmem_object *object);
/*
 * From here on lookups find none and its pages are nobody's;
 * pool_drain_detached() frees them.
 */
void object_detach(struct tmem_object *object);
unsigned int pool_drain_detached(struct tmem_pool *pool, unsigned int max);
/* The leaf of @index with its stripe locked, or NULL. */
struct tmem_leaf *leaf_lock(struct tmem_object *object, uint64_t index,
			    bool create);
/* The first leaf at or after leaf @number, locked, or NULL. */
struct tmem_leaf *leaf_lock_next(struct tmem_object *object, uint64_t number);
/* Unlocks, and frees the leaf if it is empty. */
void leaf_unlock(struct tmem_leaf *leaf);
/* The same for those who hold arena->lock: an empty leaf is queued. */
void leaf_unlock_lazy(struct tmem_leaf *leaf);
/* Frees queued leaves, @max at most; how many it took from the queue. */
unsigned int pool_prune(struct tmem_pool *pool, unsigned int max);
/* Frees what has ended in a pool that goes on: pool_prune() and the like. */
unsigned int pool_clean(struct tmem_pool *pool, unsigned int max);
/*
 * Empty a word of a locked leaf, in all counters; its chunk, if any, is the
 * caller's to free.  Returns the handle that was there.
 */
tmem_handle leaf_forget(struct tmem_pool *pool, struct tmem_leaf *leaf,
			unsigned int entry);
/*
 * Count the page whose handle was stored in a locked leaf.  @claimed: raw bytes
 * of it that the tenant's counter has already.
 */
void leaf_count(struct tmem_pool *pool, struct tmem_leaf *leaf,
		tmem_handle handle, uint32_t claimed);
/* leaf_forget(), and frees the chunk. */
void leaf_remove(struct tmem_pool *pool, struct tmem_leaf *leaf,
		 unsigned int entry);
/* Free pages of a settled pool: words visited; fewer than @max: it is empty. */
unsigned int pool_drain(struct tmem_pool *pool, unsigned int max);
/* Raw bytes of the tenant's pages of the pool's kind. */
atomic_uint_fast64_t *raw_bytes(struct tmem_pool *pool);
int pool_index_init(struct tmem_pool *pool);
void pool_index_destroy(struct tmem_pool *pool);
int index_check(struct tmem_pool *pool, char *message, size_t size);

/* ----------------------------------------------------------------- tenant */

struct tmem_tenant {
	struct tmem_store *store;
	struct list link;
	char name[TMEM_NAME_SIZE];
	pthread_mutex_t lock;
	struct tmem_pool *pool[TMEM_MAX_POOLS];
	unsigned int ending; /* pools out of the table that ops still use */
	struct tmem_limits limits; /* under store->lock; as given */
	/* Resolved copies, read without a lock. */
	atomic_uint_fast64_t reserved, persistent_max, ephemeral_max;
	atomic_uint_fast64_t persistent_raw, ephemeral_raw;
	atomic_bool frozen;
	/*
	 * Numbers exclusive gets of pages: a taken page knows its own, so that
	 * nobody settles what another has taken.
	 */
	atomic_uint takers;
	atomic_uint refused; /* since when puts are refused: pressure */
	struct arena persistent, ephemeral;
	/* What pools that have ended counted. */
	struct pool_counters past;
};

/* -------------------------------------------------------------- headroom */

/* Cgroups above one another that are looked at, and the longest path. */
#define HEADROOM_LEVELS 16
#define HEADROOM_PATH	480

struct headroom {
	pthread_mutex_t lock;
	uint64_t cgroup_headroom, host_headroom, process_bytes;
	struct {
		char dir[HEADROOM_PATH];
		bool v2;
	} level[HEADROOM_LEVELS];
	unsigned int levels;
	char meminfo_path[256], statm_path[256], status_path[256];
	/* Bytes that may be taken before a new look, and until when. */
	uint64_t allowance, allowance_end_ns;
	uint64_t next_look_ns; /* not before, while there is no room */
	atomic_bool short_of;  /* the last look found no room */
};

void headroom_init(struct headroom *headroom,
		   const struct tmem_store_config *config);
/* May @bytes more be taken from the host?  Cheap. */
bool headroom_take(struct headroom *headroom, uint64_t bytes,
		   uint64_t store_held);
/* Was the last answer no, and would it still be? */
bool headroom_short(struct headroom *headroom, uint64_t store_held);

/* ------------------------------------------------------------------ store */

struct tmem_store {
	/*
	 * Outermost but for quiesce: for writing to add or drop a tenant, for
	 * reading to walk them or to drain a pool.
	 */
	pthread_rwlock_t tenants_lock;
	struct tmem_memory_ops memory;
	void *memory_opaque;
	uint32_t flags;
	pthread_mutex_t lock;
	struct list tenants, dead;
	uint64_t max_bytes;
	atomic_uint_fast64_t held_peak, draining_pages;
	struct headroom headroom;
	/*
	 * For reading while an op changes structures (never over guest memory
	 * or the codec), for writing by tmem_check().
	 */
	pthread_rwlock_t quiesce;
};

static inline void *store_zalloc(struct tmem_store *store, size_t size)
{
	return store->memory.zalloc(store->memory_opaque, size);
}
static inline void store_free(struct tmem_store *store, void *ptr)
{
	if (ptr)
		store->memory.free(store->memory_opaque, ptr);
}

/* May the store take @bytes more of the host?  0 or -EBUSY. */
int store_ask_host(struct tmem_store *store, uint64_t bytes);

/* What would grow. */
enum grows {
	GROWS_PERSISTENT, /* pages; index within its guaranteed share */
	GROWS_EPHEMERAL, /* pages, which make way for their tenant's promise */
	GROWS_INDEX, /* what no promise covers, and eviction leaves behind */
};

/*
 * May @tenant hold @bytes more?  0, -ENOSPC (a limit), -EBUSY (headroom).
 * Makes room for it, within bounds.  @guaranteed is never -ENOSPC.
 */
int store_may_grow(struct tmem_tenant *tenant, enum grows grows, uint64_t bytes,
		   bool guaranteed);
/*
 * The same for what is not guaranteed, and makes no room: may be asked with
 * locks in hand that come before store->lock.
 */
bool store_has_room(struct tmem_tenant *tenant, enum grows grows,
		    uint64_t bytes);
void store_note_held(struct tmem_store *store);
uint64_t tenant_held(struct tmem_tenant *tenant);
/* Index bytes of persistent pages that the reservation covers. */
uint64_t tenant_index_share(struct tmem_tenant *tenant);

/* Pools: a reference, or NULL. */
struct tmem_pool *pool_get(struct tmem_tenant *tenant, uint32_t id);
void pool_put(struct tmem_pool *pool);
/* Free up to @max pages of dead pools. */
unsigned int store_drain(struct tmem_store *store, unsigned int max);
/* ------------------------------------------------------------------ codec */

struct tmem_ctx {
	struct tmem_store *store;
	char *state;  /* LZ4 */
	char *page;   /* a guest page in one piece */
	char *stored; /* encoded bytes */
	uint32_t crc; /* that they had when they were stored */
};

struct encoded {
	unsigned int type; /* HANDLE_SAME, _CHUNK or _RAW */
	uint32_t pattern;
	uint32_t length;
	uint32_t crc;	  /* codec_checksum(), which the caller adds */
	const char *data; /* private memory */
};

/*
 * @page is guest memory, may change meanwhile; @encoded->data is private.
 * Cannot fail: what does not compress is stored as it is.
 */
void codec_encode(struct tmem_ctx *ctx, const char *page, uint32_t size,
		  struct encoded *encoded);
/* @stored is private, @page is guest memory.  0 or -EIO. */
int codec_decode(unsigned int type, const char *stored, uint32_t length,
		 char *page, uint32_t size);
void codec_fill(char *page, uint32_t pattern, uint32_t size);
size_t codec_state_size(void);

/*
 * CRC-32C of stored bytes and of the key under which they are.  The key is part
 * of it so that another page's bytes, which are sound but at the wrong place,
 * are not taken for this one's.  @seed: of pool and object.
 */
uint32_t codec_seed(uint32_t pool, const uint8_t id[TMEM_OBJECT_SIZE]);
uint32_t codec_checksum(uint32_t seed, uint64_t index, const char *stored,
			uint32_t length);

#endif /* TMEM_INTERNAL_H */
