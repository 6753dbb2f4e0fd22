/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libtmem's structures.  docs/store.md has the picture, docs/locking.md the
 * rules at length.
 *
 * Lock order, outermost first:
 *
 *   quiesce           read by ops, written by tmem_check() and
 *                     tmem_pool_set_limits()
 *   tenants_lock      who is a tenant (read: walk them, drain)
 *   tenant->lock      the table of pools
 *   hand.lock         where the clock of a pool is
 *   pool->lock        the table of objects, objects' pins
 *   object lock       the object's radix tree (pool->object_lock[])
 *   stripe            words of leaves (pool->stripe[], by object and leaf)
 *   arena->lock       spans, classes, segments
 *   cells->lock       blocks of the index, free cells
 *   store->lock       tenants, dead pools, limits
 *   claim_lock        who is promised the rest of a reservation
 *
 * A lookup couples them: the inner lock is taken before the outer one is let
 * go, so whoever frees an inner structure holds the outer lock and knows that
 * nobody waits.  Compaction and eviction go from a chunk (arena->lock) to its
 * leaf's stripe, against the order: they only try, and skip what is busy.
 *
 * None of these is held while guest memory or a codec is used, or a system call
 * that may block, but for what docs/locking.md has as exceptions.  Beside them:
 * recompress.lock, outside arena->lock, is only tried; headroom.lock and that of
 * live.c are innermost.
 */
#ifndef TMEM_INTERNAL_H
#define TMEM_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include "tmem/tmem.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
#define MIB	      (1024ull * 1024)

#include "arena.h"
#include "cells.h"
#include "handle.h"
#include "index.h"
#include "list.h"
#include "live.h"
#include "sized.h"

/* ----------------------------------------------------------------- tenant */

struct tmem_tenant {
	struct live live;
	struct tmem_store *store;
	struct list link;
	char name[TMEM_NAME_SIZE];
	pthread_mutex_t lock;
	struct tmem_pool *pool[TMEM_MAX_POOLS];
	struct list ending; /* pools out of the table that ops still use */
	/* That are not freed: in the table, ending, or dead. */
	atomic_uint num_pools;
	struct tmem_limits limits; /* under store->lock; as given */
	/* Resolved copies, read without a lock. */
	atomic_uint_fast64_t reserved, persistent_max, ephemeral_max;
	atomic_uint weight;
	atomic_uint_fast64_t persistent_raw, ephemeral_raw;
	/*
	 * account.c: of the reservation, what no pool has to itself, and raw
	 * bytes of persistent pages beyond what their pools have to themselves.
	 */
	atomic_uint_fast64_t shared, shared_raw;
	/* Of each number; NULL as long as none has any.  Under ->lock. */
	struct tmem_pool_limits *pool_limits;
	atomic_uint_fast64_t pools_reserved; /* written under store->lock */
	atomic_bool pools_limited;	     /* the same, read without a lock */
	pthread_mutex_t claim_lock; /* innermost; only where ->pools_limited */
	/* Ephemeral pools' stored bytes, and weights, when eviction began. */
	atomic_uint_fast64_t pools_stored, pools_weight;
	atomic_bool frozen;
	/*
	 * Numbers exclusive gets of pages: a taken page knows its own, so that
	 * nobody settles what another has taken.
	 */
	atomic_uint takers;
	atomic_uint refused; /* since when puts are refused: pressure */
	struct arena persistent, ephemeral;
	/* Keep others from adopting the former: memfd_hold(). */
	int holder[TMEM_TENANT_FDS];
	/* What pools that have ended counted. */
	struct pool_counters past;
};

/* Of what a reservation costs, bytes that pools may take that are many. */
#define MAX_POOLS_SHARE (MIB / 8)

/* ---------------------------------------------------------------- account */

#define POOL_LIMITS_BYTES (TMEM_MAX_POOLS * sizeof(struct tmem_pool_limits))

/* Raw bytes of the pool's pages, which are its tenant's, too. */
void raw_add(struct tmem_pool *pool, uint64_t bytes);
void raw_sub(struct tmem_pool *pool, uint64_t bytes);
/*
 * Is a page of @bytes guaranteed, in a persistent pool?  Then they are added.
 * 0: one that takes the place of another.
 */
bool raw_claim(struct tmem_pool *pool, uint32_t bytes);
/* Raw bytes that count against what the tenant's pools share. */
uint64_t raw_beyond(const struct tmem_pool *pool);
/* Is some of its reservation left? */
bool raw_left(struct tmem_pool *pool);
/* What pools may still put of what they have to themselves. */
uint64_t raw_promised(const struct tmem_tenant *tenant);
/* Raw bytes of persistent pages that no reservation covers. */
uint64_t raw_unpromised(const struct tmem_tenant *tenant);
/* A new pool has the limits of its number.  tenant->lock held. */
void pool_limits_resolve(struct tmem_tenant *tenant, uint32_t id);
/*
 * What the number has to itself, less what pools of that number which are
 * ending still have of it.  tenant->lock held.
 */
void pool_reserve(struct tmem_tenant *tenant, uint32_t id);
/* It is ending: of its own part it keeps what it uses.  tenant->lock held. */
void pool_keep_no_more(struct tmem_pool *pool);
/* Sum over ephemeral pools, for pool_below_share(). */
void pools_weigh(struct tmem_tenant *tenant);
/* Has it less than its weight says, of what its tenant's pools have? */
bool pool_below_share(const struct tmem_pool *pool);

/* ------------------------------------------------------------------ clock */

/*
 * Evict pages of an ephemeral pool until @bytes of stored ones are gone, within
 * bounds.  Bytes.  Under quiesce, read, and no lock from tenant->lock on.
 */
uint64_t clock_evict(struct tmem_pool *pool, uint64_t bytes);
/* The same until its limit is kept; takes its time.  No lock is held. */
void clock_trim(struct tmem_pool *pool);
/* Same-filled ephemeral pages, got or not, of @max words: how many went. */
unsigned int clock_same(struct tmem_tenant *tenant, unsigned int max);
/*
 * @evicted pages of the tenant's ephemeral arena are gone: same-filled pages,
 * which are in none of its spans, are older by as much.
 */
void clock_age(struct tmem_tenant *tenant, unsigned int evicted);

/* ------------------------------------------------------------------ nodes */

/* No kernel has more. */
#define NODES_MAX 1024

struct node_mask {
	uint64_t word[NODES_MAX / 64];
};

struct nodes {
	char dir[256];
	struct node_mask all; /* that have memory */
};

/* @dir: /sys/devices/system/node, or what stands for it. */
void nodes_init(struct nodes *nodes, const char *dir);
/*
 * Bytes that are available on the nodes that the calling thread is bound to;
 * UINT64_MAX: it is bound to none, or only one has memory.
 */
uint64_t nodes_available(const struct nodes *nodes);

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
	struct nodes nodes;
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

/* ------------------------------------------------------------- recompress */

struct recompress {
	pthread_mutex_t lock; /* one thread at a time, with ctx; only tried */
	unsigned int percent; /* of a CPU; 0: no ctx, and nothing happens */
	unsigned int after_s;
	struct tmem_ctx *ctx;
	int64_t balance_ns;   /* CPU time that may be taken, or was too much */
	uint64_t balanced_ns; /* when that was so */
	atomic_uint_fast64_t cpu_ns; /* taken since the store was made */
};

/* 0 or -ENOMEM; the store is destroyed either way. */
int recompress_init(struct tmem_store *store,
		    const struct tmem_store_config *config);
void recompress_destroy(struct tmem_store *store);

/* The time, by the clock that the store was given. */
uint64_t store_now_ns(const struct tmem_store *store);
/* The thread's. */
uint64_t cpu_ns(void);

/* ------------------------------------------------------------------ store */

struct tmem_store {
	struct live live;
	/*
	 * Outermost but for quiesce: for writing to add or drop a tenant, for
	 * reading to walk them or to drain a pool.
	 */
	pthread_rwlock_t tenants_lock;
	struct tmem_memory_ops memory;
	void *memory_opaque;
	uint64_t (*clock_ns)(void *opaque);
	void *clock_opaque;
	uint32_t flags;
	pthread_mutex_t lock;
	struct list tenants, dead;
	uint64_t max_bytes;
	atomic_uint least_pressure; /* tmem_store_set_pressure() */
	atomic_uint_fast64_t held_peak, draining_pages;
	struct headroom headroom;
	struct recompress recompress;
	atomic_uint_fast64_t step_cpu_ns;
	/* Of malloc's, since it was last asked to give memory back. */
	atomic_uint_fast64_t freed_bytes, trim_ns;
	/* Room for what is promised was sought in vain: not again until then. */
	atomic_uint_fast64_t vain_ns;
	uint64_t secret; /* of objects' hash tables */
	/*
	 * For reading while an op changes structures (never over guest memory
	 * or the codec), for writing by tmem_check() and by
	 * tmem_pool_set_limits().
	 */
	pthread_rwlock_t quiesce;
};

/*
 * Read quiesce.  Not twice at a time by one thread: who waits to write comes
 * before those that begin to read, as ops are never all over at once.  Debug
 * builds abort.
 */
void quiesce_read(struct tmem_store *store);
void quiesce_done(struct tmem_store *store);

static inline void *store_zalloc(struct tmem_store *store, size_t size)
{
	return store->memory.zalloc(store->memory_opaque, size);
}
static inline void store_free(struct tmem_store *store, void *ptr)
{
	if (ptr)
		store->memory.free(store->memory_opaque, ptr);
}

/* Nodes and descriptors were freed. */
static inline void store_note_freed(struct tmem_store *store, uint64_t bytes)
{
	atomic_fetch_add_explicit(&store->freed_bytes, bytes,
				  memory_order_relaxed);
}
/*
 * Malloc gives memory back to the host, if @bytes of it or more were freed.  No
 * lock is held: it takes malloc's own, and milliseconds.
 */
void store_trim(struct tmem_store *store, uint64_t bytes);
/* For a store that is busy, and for one that is not. */
#define TRIM_BUSY (8 * MIB)
#define TRIM_IDLE (MIB / 4)

/* May the store take @bytes more of the host?  0 or -EBUSY. */
int store_ask_host(struct tmem_store *store, uint64_t bytes);

/* What would grow. */
enum grows {
	GROWS_PERSISTENT, /* pages; index within its guaranteed share */
	GROWS_EPHEMERAL,  /* pages, which make way for their tenant's promise */
	GROWS_INDEX,	  /* of these, which eviction leaves behind */
	GROWS_PERSISTENT_INDEX, /* beyond what the promise covers */
};

/*
 * May @tenant hold @bytes more?  0, -ENOSPC (a limit), -EBUSY (headroom).
 * Makes room for it, within bounds.  @guaranteed is never -ENOSPC.  Under
 * quiesce, read, and no other lock.
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
/* store->lock held. */
uint64_t store_held(struct tmem_store *store);
int limits_apply(struct tmem_tenant *tenant, const struct tmem_limits *limits);
uint64_t tenant_held(struct tmem_tenant *tenant);
/* Index bytes of persistent pages that the reservation covers. */
uint64_t tenant_index_share(struct tmem_tenant *tenant);

/* Pools: a reference, or NULL. */
struct tmem_pool *pool_get(struct tmem_tenant *tenant, uint32_t id);
void pool_put(struct tmem_pool *pool);
/* Of a pool that is in no table and no list. */
void pool_free(struct tmem_pool *pool);

/*
 * Pages or words at most, but in tmem_step(), before tenants_lock is let go of:
 * who waits to write it keeps others from reading it.
 */
#define TENANTS_TURN 1024u
/*
 * Work in the background, and for ops in need: @max pages or words at most;
 * how many there were.
 */
/* Free pages of dead pools. */
unsigned int store_drain(struct tmem_store *store, unsigned int max);
/* Of those of one tenant. */
unsigned int tenant_drain(struct tmem_tenant *tenant, unsigned int max);
/* Call @work for every tenant until @max is used up. */
unsigned int each_tenant(struct tmem_store *store, unsigned int max,
			 unsigned int (*work)(struct tmem_tenant *t,
					      unsigned int max));
/* What was flushed, and what eviction emptied. */
unsigned int tenant_clean(struct tmem_tenant *tenant, unsigned int max);
unsigned int tenant_compact(struct tmem_tenant *tenant, unsigned int max);
/* The same for somebody in need of the memory, to whom it goes at once. */
unsigned int tenant_pack(struct tmem_tenant *tenant, unsigned int max);
/* Slots that were looked at; nothing once the CPU time is used up. */
unsigned int tenant_recompress(struct tmem_tenant *tenant, unsigned int max);
/* Idle memory back to the host, the reserve too. */
unsigned int tenant_release(struct tmem_tenant *tenant, unsigned int max);
/* The same, all of it, in turns.  No lock is held. */
void tenant_give_back(struct tmem_tenant *tenant);
unsigned int tenant_evict(struct tmem_tenant *tenant, unsigned int max);
/* Of who has most ephemeral pages for its weight. */
unsigned int store_evict(struct tmem_store *store, unsigned int max);

/* What the walk of tmem_check() returns where @message says what is wrong. */
#define FAULT(...) (snprintf(message, size, __VA_ARGS__), -EUCLEAN)

/* ------------------------------------------------------------------ adopt */

/* Pool @id, if the tenant's table has one. */
int pool_adopt(struct tmem_tenant *tenant, uint32_t id);
/* The tenant's pools and pages, of the memfds of its persistent arena. */
int adopt(struct tmem_tenant *tenant);
/* The table of pools in the root of the tenant's persistent index. */
_Atomic uint64_t *pool_entry(struct tmem_tenant *tenant, uint32_t id);

/* ------------------------------------------------------------------ memfd */

/* Sealed against shrinking.  A descriptor or -errno. */
int memfd_make(const char *name);
/* Is it one that memfd_make() has made? */
bool memfd_sealed(int fd);
/* No other memfd of the host has the same; 0: it is no file. */
uint64_t memfd_id(int fd);
/* Map a part of it, out of core files, locked if the store is; or NULL. */
void *memfd_map(struct tmem_store *store, int fd, uint64_t offset,
		uint64_t bytes);
/*
 * This process is the one that works with it, until the descriptor returned is
 * closed.  -EBUSY: another does.
 */
int memfd_hold(int fd);

/* ------------------------------------------------------------------ codec */

struct tmem_ctx {
	struct live live;
	struct tmem_store *store;
	char *state;		 /* LZ4 */
	char *page;		 /* a guest page in one piece */
	char *stored;		 /* encoded bytes */
	void *decoder, *encoder; /* zstd; the latter if recompresses */
	bool recompresses;
	uint32_t crc;  /* that they had when they were stored */
	uint32_t seed; /* of the present op's pages: codec_seed() */
};

int ctx_create(struct tmem_store *store, bool recompresses,
	       struct tmem_ctx **ctx);
void ctx_free(struct tmem_ctx *ctx);

/* Of a pool that is there; the op has been checked. */
int op_put(struct tmem_ctx *ctx, struct tmem_pool *pool, struct tmem_op *op);
int op_get(struct tmem_ctx *ctx, struct tmem_pool *pool, struct tmem_op *op);

struct encoded {
	unsigned int type; /* HANDLE_SAME, _CHUNK, _RAW or _OPAQUE */
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
/* What a guest has encoded; @bytes is guest memory, and read once. */
void codec_keep(struct tmem_ctx *ctx, const char *bytes, uint32_t length,
		struct encoded *encoded);
/*
 * The page of @length bytes in ctx->stored; @page is guest memory, of which
 * HANDLE_OPAQUE writes no more than these.  0, -EIO.
 */
int codec_decode(struct tmem_ctx *ctx, unsigned int type, uint32_t length,
		 char *page, uint32_t size);
/*
 * The same bytes, of page @index, as HANDLE_ZSTD in their place; @ctx has an
 * encoder, and its seed is the page's.  Their new length; 0: it is no less, or
 * they are damaged.
 */
uint32_t codec_recompress(struct tmem_ctx *ctx, unsigned int type,
			  uint32_t length, uint64_t index, uint32_t size);
/* Is the checksum of ctx->stored right?  @ctx as it was when it was filled. */
bool codec_sound(const struct tmem_ctx *ctx, unsigned int type, uint64_t index,
		 uint32_t length);
/* Bytes that a decoder, and an encoder, take. */
size_t codec_decoder_size(void);
size_t codec_encoder_size(void);
/* Begin with such bytes, which are aligned to a page. */
void *codec_decoder_init(void *memory);
void *codec_encoder_init(void *memory);
void codec_fill(char *page, uint32_t pattern, uint32_t size);
size_t codec_state_size(void);

/*
 * CRC-32C of stored bytes and of the key under which they are.  The key is part
 * of it so that another page's bytes, which are sound but at the wrong place,
 * are not taken for this one's; nor what a guest has encoded for what we have,
 * whatever the memory says that was adopted.  @seed: of pool and object;
 * @opaque_size: pool_opaque_size().
 */
uint32_t codec_seed(uint32_t pool, uint32_t opaque_size,
		    const uint8_t id[TMEM_OBJECT_SIZE]);
uint32_t codec_checksum(uint32_t seed, uint64_t index, const char *stored,
			uint32_t length);
/* Of a same-filled page. */
uint32_t codec_checksum_same(uint32_t seed, uint64_t index, uint32_t pattern);

#endif /* TMEM_INTERNAL_H */
