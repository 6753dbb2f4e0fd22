/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libtmem: a store for pages that virtual machines cannot keep
 *
 * This header is the library's manual.
 *
 * Words
 * -----
 * store    what one host process keeps, under one limit.  Almost always there
 *          is one store and one tenant in a process: the VM it serves.
 * tenant   an owner of pages: a VM's device.  Tenants see nothing of one
 *          another; each has limits of its own and memory of its own.
 * pool     a tenant's set of pages, persistent or ephemeral, of one page size.
 * object   24 opaque bytes that name a set of pages within a pool.
 * index    64 bits: a page's place within its object.
 * op       one request over a run of pages of one object.
 * ctx      a thread's scratch memory.  One thread uses a ctx at a time.
 * raw      bytes as the guest sees them: pages x page size.
 * held     bytes of host memory: what the pages take, with all that the store
 *          needs to find them again.
 *
 * What the store promises
 * -----------------------
 * 1. A put copies.  It may be refused at any time; a refused put removes what
 *    was held under its key.
 * 2. Persistent: an accepted page is found, bit for bit, until it is flushed,
 *    put again, or its pool ends.  While a tenant holds fewer than
 *    tmem_limits.persistent_reserved raw bytes a put is refused only when the
 *    host fails (no memory, or the headroom is reached): not because a page
 *    does not compress, and not for another tenant's sake.  (Pages that lie so
 *    far apart that their index takes more than an eighth of the reservation
 *    and 1 MiB are not promised: tmem_reservation_cost().)
 * 3. Ephemeral: a page may vanish at any time.  A get may ask for its removal
 *    (TMEM_GET_EXCLUSIVE).
 * 4. After a get that missed, gets miss until the next accepted put, or until
 *    tmem_unretire() gives back what another get had taken.
 * 5. An op on one page takes effect at one instant between submission and
 *    completion.  Pages of a run are independent of one another.
 * 6. Damaged memory of the host is an error to the owner of its page, and nobody
 *    else's.  That is for the bytes of pages and their checksums.  What leads to
 *    them, a key's path, has none: damage there may make a persistent page
 *    missed, never another page's bytes.
 * 7. No lock is held while guest memory or a codec is touched: an op's iovecs
 *    may point to memory that takes long to fault in, that changes while it
 *    is read, or that other ops use, and nobody else waits for it.
 *
 * Conventions
 * -----------
 * Functions return 0 or a negative errno, may change errno, and never log,
 * print or exit.  All sizes are in bytes.  Unless it says otherwise a function is safe
 * to call from any thread, also for the same object, except that an object must
 * not be used while or after it is destroyed.
 *
 * Structs that may grow begin with their size, which the caller sets to sizeof
 * before each call that takes one.  Later versions append members, and know
 * shorter ones by it: what is missing is 0, and what the library does not know
 * must be (-EINVAL).  What it fills for the caller has 0 there.
 *
 * Bad input: a size, a count, a number, a flag that is out of range is -EINVAL,
 * as is NULL where something is to be read or written, and nothing has
 * happened.  Functions that return void cannot say so: they take no NULL, but
 * where their comment allows it.  A handle (store, tenant, ctx) that is none,
 * has ended, or is not of the store that the other one is of, is a bug of the
 * caller's that no errno mends.  A debug build of the library (meson's buildtype
 * debug or debugoptimized: NDEBUG is not defined) says which function was called with it, in one line on
 * stderr, and aborts; and so it does where a store is destroyed that has a tenant
 * or a ctx.  Other builds do not look.  The address of a handle that has ended
 * may be that of a new one, which is not told from it.
 *
 * fork(2): a child has no store.  The pages' memory is not inherited, and no
 * function may be called in it, not even to clean up; what it may do is execute
 * a program, or _exit(2).  As long as a child lives that has done neither, its
 * parent's tenants are -EBUSY to who would adopt them.
 */
#ifndef TMEM_TMEM_H
#define TMEM_TMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_store;
struct tmem_tenant;
struct tmem_ctx;

#define TMEM_OBJECT_SIZE    24
#define TMEM_PAGE_SHIFT_MIN 12 /* 4 KiB */
#define TMEM_PAGE_SHIFT_MAX 16 /* 64 KiB */
/* Pool numbers are smaller than this. */
#define TMEM_MAX_POOLS 256
/* Most pages in one put or get. */
#define TMEM_MAX_RUN 512
/* Most indexes that hold a page that one flush removes before it returns. */
#define TMEM_FLUSH_BATCH 4096
/*
 * Most bytes that can be reserved for a tenant: three quarters of what its
 * structures can name; the rest is for fragmentation.
 */
#define TMEM_MAX_RESERVED (192ull << 30)
/* A tenant's name, with the final 0. */
#define TMEM_NAME_SIZE 128

/* ------------------------------------------------------------------ store */

/* Where the store's memory comes from.  For tests that make it fail. */
struct tmem_memory_ops {
	/* As malloc(3), calloc(3), free(3). */
	void *(*alloc)(void *opaque, size_t size);
	void *(*zalloc)(void *opaque, size_t size);
	void (*free)(void *opaque, void *ptr);
	/* As fallocate(2), but 0 or -errno. */
	int (*fallocate)(void *opaque, int fd, int mode, uint64_t offset,
			 uint64_t length);
};

/* Everything that is not wanted is 0, which always means the default. */
struct tmem_store_config {
	uint32_t size;
	uint32_t flags; /* TMEM_STORE_* */
	/*
	 * Most bytes that the store may hold.  0 is -EINVAL.  What drains
	 * counts.  What reservations may still take is kept free of all but
	 * their own tenants' ephemeral pages, whose index needs a limit above
	 * tmem_reservation_cost().  Threads that grow the store at the same
	 * moment may exceed it: docs/store.md has by how much.
	 */
	uint64_t max_bytes;
	/*
	 * Puts are refused, ephemeral pages first given up, while less than
	 * this is left below the limit of the process's memory cgroup (v1 or
	 * v2, and of its parents).  Default: 1/32 of that limit, within
	 * 4 .. 256 MiB.  TMEM_DO_NOT_LOOK: whatever is left.
	 */
	uint64_t cgroup_headroom;
	/*
	 * The same for MemAvailable of the host.  Default: 1/32 of MemTotal,
	 * within 16 .. 1024 MiB.  TMEM_DO_NOT_LOOK: whatever is left.  Where
	 * the thread that puts may only have memory of some NUMA nodes, by its
	 * policy (MPOL_BIND) or its cpuset, it is these nodes', too.
	 */
	uint64_t host_headroom;
	/*
	 * Bytes that the process will need beside the store, such as its
	 * guest's memory: what of it is not resident yet is kept free too, or
	 * a guest that touches the rest of its memory meets the OOM killer.
	 */
	uint64_t process_bytes;
	/* NULL: the C library and fallocate(2). */
	const struct tmem_memory_ops *memory;
	void *memory_opaque;
	/*
	 * tmem_step() compresses persistent pages once more, and better (zstd),
	 * that were neither put nor got for recompress_after_s seconds, or up to
	 * twice that; with this share of one CPU's time at most, in percent, 100
	 * at most.  A page stays that way until it is put again or removed; a
	 * get of it takes some 3 times as long.  0: never.
	 */
	uint32_t recompress_percent;
	/* 1 .. TMEM_MAX_RECOMPRESS_AFTER; 0: 30. */
	uint32_t recompress_after_s;
	/*
	 * What time it is, in nanoseconds, never less than before: for tests
	 * that cannot wait.  Any thread calls it, also several at a time, with
	 * locks held: it calls no function of the library.
	 * NULL: CLOCK_MONOTONIC.  CPU time is the kernel's in any case.
	 */
	uint64_t (*clock_ns)(void *opaque);
	void *clock_opaque;
	/*
	 * A folder with files meminfo, statm, status (as in /proc) and memory.max,
	 * memory.current, memory.stat (as in a cgroup), read instead of the
	 * kernel's: for tests of headroom.  NULL: the kernel's.
	 */
	const char *host_dir;
};
#define TMEM_MAX_RECOMPRESS_AFTER 14400u
#define TMEM_DO_NOT_LOOK	  UINT64_MAX

/*
 * Keep the store's pages, their words and what a page passes through out of swap
 * (mlock).  RLIMIT_MEMLOCK must suffice for 0.3 MiB for each ctx and 32 MiB for
 * each tenant, or it cannot be opened (-ENOMEM), and for 64 MiB of pages and
 * 16 MiB of index at a time, or puts are refused.
 */
#define TMEM_STORE_LOCK 0x1u
/* Walk all structures after every op, and abort at the first that is wrong. */
#define TMEM_STORE_PARANOID 0x2u
/*
 * Pages of small tenants in size classes, too, as those of others, not in slotted
 * segments: for tests, and to measure what these are worth (docs/store.md).
 */
#define TMEM_STORE_SIZE_CLASSES 0x4u

/*
 * Make an empty store.  @store: set on success; the caller destroys it.
 * -EINVAL: a bad config; -ENOMEM.
 */
int tmem_store_create(const struct tmem_store_config *config,
		      struct tmem_store **store);

/*
 * Free the store and all that it holds.  All its tenants must have been dropped
 * and all its contexts destroyed.  NULL is allowed.
 */
void tmem_store_destroy(struct tmem_store *store);

/*
 * Change max_bytes.  -EINVAL: less than the sum of the tenants' reservations
 * (tmem_reservation_cost()).  Less than what is held is allowed: ephemeral
 * pages go, then puts beyond reservations are refused until enough is flushed;
 * no persistent page is lost.
 */
int tmem_store_set_max(struct tmem_store *store, uint64_t max_bytes);

/*
 * Bytes of max_bytes that a reservation of @raw bytes needs: what that many
 * incompressible pages take with their index where indexes are dense, as a swap
 * disk's are.  An index of single pages far apart takes more; an eighth of the
 * reservation and 1 MiB of it are guaranteed, for which the store may exceed
 * its limit when it has nothing else to give up.  Monotonic.
 */
uint64_t tmem_reservation_cost(uint64_t raw);

/* The largest reservation that fits into @max_bytes: the inverse. */
uint64_t tmem_reservation_fit(uint64_t max_bytes);

/*
 * Do a bounded share of the work that ops left behind: draining destroyed
 * pools, compaction, giving memory back to the host.  @pages: how many pages
 * to visit at most, but for the rest of a span; after much was freed
 * malloc_trim(3), too.  Returns how many were visited; 0: nothing is left to do.
 * Ops that find the store short of space help by themselves; whoever owns the store calls this while it is idle (some
 * 10 ms after ops) until it returns 0, and now and then while it is busy: a store
 * that grows, and is never stepped, can hold nearly twice of what it needs until
 * its limit makes it pack.
 */
unsigned int tmem_step(struct tmem_store *store, unsigned int pages);

/*
 * Milliseconds until tmem_step() has something to do though no op runs; -1: it
 * has not.  For who calls it no more once it returned 0.  Only recompression
 * has such work.
 */
int tmem_step_due(struct tmem_store *store);

/*
 * Give memory back to the host now: empty memory, what packing frees, then
 * ephemeral pages, those first that are old and that nobody got lately.  Returns
 * the bytes given back, which may be more or less than @bytes.  Never removes a
 * persistent page.  Takes its time, up to some 10 us a page that is packed, and
 * ends though others put meanwhile: it gives no more than was held at first.
 * Others' ops do not wait longer than for a span.
 */
uint64_t tmem_shrink(struct tmem_store *store, uint64_t bytes);

/* ----------------------------------------------------------------- tenant */

struct tmem_limits {
	uint32_t size;	    /* sizeof(struct tmem_limits) */
	uint32_t reserved0; /* 0 */
	/* Raw bytes of persistent pages that are kept: promise 2 above. */
	uint64_t persistent_reserved;
	/*
	 * Held bytes of persistent pages beyond which puts that exceed the
	 * reservation are refused.  0: the store's max_bytes.  Else at least
	 * tmem_reservation_cost(persistent_reserved), or it is -EINVAL.
	 */
	uint64_t persistent_max;
	/*
	 * Held bytes of ephemeral pages beyond which such are evicted as are
	 * old and as nobody got lately.  0: the store's max_bytes.
	 * TMEM_KEEP_NOTHING: no ephemeral page is kept.
	 */
	uint64_t ephemeral_max;
	/*
	 * What the tenant may have of the room that no reservation takes, beside
	 * the others': who holds most ephemeral bytes for its weight loses some
	 * of them when anybody needs room.  More weight, more room.
	 * 1 .. TMEM_MAX_WEIGHT; 0: TMEM_DEFAULT_WEIGHT.
	 */
	uint32_t weight;
	uint32_t reserved1; /* 0 */
};
/* Of a limit whose 0 says that there is none. */
#define TMEM_KEEP_NOTHING   UINT64_MAX
#define TMEM_DEFAULT_WEIGHT 100u
#define TMEM_MAX_WEIGHT	    10000u

/*
 * Open a tenant.  @name: for people, and for who adopts it, who must say it;
 * copied, cut to TMEM_NAME_SIZE - 1; need not be the only one of its kind.
 * @limits: copied.  @tenant: set on success; the caller drops it.
 * -ENOSPC: the reservation does not fit into the store beside the others';
 * -EINVAL; -ENOMEM; -EMFILE, -ENFILE: it takes six descriptors.
 */
int tmem_tenant_open(struct tmem_store *store, const char *name,
		     const struct tmem_limits *limits,
		     struct tmem_tenant **tenant);

/* Descriptors of the memfds that hold what a tenant's persistent pools hold. */
#define TMEM_TENANT_FDS 2

/*
 * The memfds.  The library's: who wants to keep them, so that pages outlive this
 * process, passes them on (SCM_RIGHTS, or systemd's file descriptor store) once
 * the tenant is open and before the first page is put: they stay the same until
 * it is dropped.  Nobody but this process may write to them while it lives.
 */
void tmem_tenant_fds(struct tmem_tenant *tenant, int fd[TMEM_TENANT_FDS]);

/*
 * Open a tenant on the memfds of one whose process has ended, at whatever
 * instant, or that was detached.  Its pools are there; persistent ones with each
 * page that a put had accepted and nothing had removed, ephemeral ones are
 * empty.  A page that a put was replacing is the old one, the new one or none.
 *
 * @fd: copied; also where it fails all is in the memfds as it was.  @name,
 * @limits, @tenant, and their errors: as for tmem_tenant_open(); more may be
 * held than limits allow, and nothing is lost by that.  -EBUSY: the process is
 * still there (told where there is /proc); -ESTALE: it is a tenant of another
 * name; -EINVAL: not such memfds; -EMFILE, -ENFILE; -EUCLEAN: they are not of
 * one tenant, or so damaged that nothing can be told.  Other damage costs the
 * pages that it concerns: they are TMEM_PAGE_IO to who gets them, or missed where
 * it is their names that are lost (promise 6).
 *
 * Takes some 100 ns for each page, and the store's other tenants do not wait.
 * What memory is needed to know the pages again is taken, whatever limits and
 * headroom say: it is a small part of what the pages have.
 */
int tmem_tenant_adopt(struct tmem_store *store, const char *name,
		      const struct tmem_limits *limits,
		      const int fd[TMEM_TENANT_FDS],
		      struct tmem_tenant **tenant);

/*
 * 64 bits of the owner's, 0 at first, which are in the memfds: who adopts the
 * tenant finds them.
 */
void tmem_tenant_set_cookie(struct tmem_tenant *tenant, uint64_t cookie);
uint64_t tmem_tenant_cookie(struct tmem_tenant *tenant);

/*
 * Let a tenant go as if this process had ended: what it holds stays in the
 * memfds for who adopts it, if somebody keeps them.  No op of its may be
 * running.  NULL is allowed.
 */
void tmem_tenant_detach(struct tmem_tenant *tenant);

/*
 * End a tenant: all its pools and pages are gone, its memory goes back to the
 * host before the call returns.  No op of its may be running.  NULL is allowed.
 * It takes its time, 60 ns a page or so, 900 where pages do not compress, in
 * which others' calls do not wait: who
 * cannot wait sets its limits to 0 and resets it, and has a thread drop it.
 */
void tmem_tenant_drop(struct tmem_tenant *tenant);

/*
 * Change limits.  -ENOSPC, -EINVAL as for tmem_tenant_open(), or for less than
 * its pools have to themselves (tmem_pool_set_limits()), and nothing has
 * changed.  Lower limits are enforced by eviction and by refusals.
 */
int tmem_tenant_set_limits(struct tmem_tenant *tenant,
			   const struct tmem_limits *limits);

/*
 * The limits in force: 0 replaced by what it stands for now; set again, that
 * stays where it is when the store's max_bytes changes.  TMEM_KEEP_NOTHING is
 * what it was.  -EINVAL.
 */
int tmem_tenant_get_limits(struct tmem_tenant *tenant,
			   struct tmem_limits *limits);

/*
 * While frozen, tmem_submit() of a put is -EAGAIN, nothing took effect, and
 * the caller submits it again after the thaw; gets and flushes go on.  For
 * maintenance, for tests, and to make room: freeze, tmem_shrink(), allocate,
 * thaw.
 */
void tmem_tenant_freeze(struct tmem_tenant *tenant, bool frozen);
bool tmem_tenant_frozen(struct tmem_tenant *tenant);

/* End all pools of the tenant; the memory is freed by tmem_step(). */
void tmem_tenant_reset(struct tmem_tenant *tenant);

/* ------------------------------------------------------------------- pool */

#define TMEM_POOL_PERSISTENT 0x1u
/*
 * The owner has encoded its pages, compressed or encrypted them: of each one
 * tmem_page.length bytes are kept, as they are, and come back.  Nothing is
 * decoded, compressed or compared.
 */
#define TMEM_POOL_OPAQUE 0x2u

struct tmem_pool_params {
	uint32_t flags;	     /* TMEM_POOL_* */
	uint32_t page_shift; /* log2 of the page size */
};

/*
 * Make pool @pool < TMEM_MAX_POOLS.  @held: if not NULL, set to how many pages
 * are in it.  0: it was made, or exists with the same parameters.
 * -EEXIST: it exists with others; -EINVAL; -ENOMEM, also where limits or the host
 * have no room for it, once the tenant's pools take more than 128 KiB (some 20),
 * and while more than a thousand of them have ended and are not freed:
 * tmem_step() frees them, and so does this function, a few at a time.
 */
int tmem_pool_create(struct tmem_tenant *tenant, uint32_t pool,
		     const struct tmem_pool_params *params, uint64_t *held);

/*
 * End a pool.  Its pages are gone and its number is free when this returns,
 * however many there were; their memory, which no longer counts as the
 * tenant's, is freed by tmem_step() and by ops that are short of space.
 * -ENOENT: there is no such pool; -EINVAL.
 */
int tmem_pool_destroy(struct tmem_tenant *tenant, uint32_t pool);

/* Parameters of a pool.  -ENOENT: there is no such pool; -EINVAL. */
int tmem_pool_query(struct tmem_tenant *tenant, uint32_t pool,
		    struct tmem_pool_params *params);

/*
 * What the host allows one pool of a tenant, within the tenant's limits.  It is
 * said of a number, whether there is such a pool or not, and holds for each pool
 * of that number: a guest that ends its pool and makes it again has no more.
 * tmem_tenant_adopt() does not know of them: they are configuration.
 */
struct tmem_pool_limits {
	uint32_t size;	    /* sizeof(struct tmem_pool_limits) */
	uint32_t reserved0; /* 0 */
	/*
	 * Raw bytes of the tenant's persistent_reserved that are this pool's
	 * alone; promise 2 holds for it up to these and what no pool has to
	 * itself.  Of no use to an ephemeral pool.
	 */
	uint64_t reserved;
	/*
	 * Stored bytes (held_bytes of tmem_pool_stats()) beyond which puts to a
	 * persistent pool that exceed the reservation are refused, and beyond
	 * which an ephemeral pool's own pages go: those that nobody got lately.
	 * 0: no limit.  TMEM_KEEP_NOTHING: an ephemeral pool keeps no page, a
	 * persistent one what is promised.
	 */
	uint64_t max_bytes;
	/*
	 * Of an ephemeral pool: what it may have of the tenant's ephemeral
	 * bytes, beside the tenant's other pools.  More weight, more room.
	 * 1 .. TMEM_MAX_WEIGHT; 0: TMEM_DEFAULT_WEIGHT.  Weights count from the
	 * first call of tmem_pool_set_limits() for the tenant on.
	 */
	uint32_t weight;
	uint32_t reserved1; /* 0 */
};

/*
 * Change them.  -EINVAL: out of range; -ENOSPC: the tenant's reservation has
 * less than its pools shall have; -ENOMEM; and nothing has changed.  From then
 * on the tenant's persistent_reserved can be no less than the sum of its pools'.
 * Waits for ops of the whole store, but for their guest memory and codec.
 */
int tmem_pool_set_limits(struct tmem_tenant *tenant, uint32_t pool,
			 const struct tmem_pool_limits *limits);

/* What was said of the number; weight is never 0, size is as for stats.
 * -EINVAL. */
int tmem_pool_get_limits(struct tmem_tenant *tenant, uint32_t pool,
			 struct tmem_pool_limits *limits);

/* -------------------------------------------------------------------- ops */

enum tmem_verb {
	TMEM_PUT = 1,
	TMEM_GET,
	TMEM_FLUSH,
	TMEM_FLUSH_OBJECT, /* of the op pool and object count, nothing else */
};

/* Get: remove what was returned.  Ephemeral pools only. */
#define TMEM_GET_EXCLUSIVE 0x1u

/* What became of a page. */
enum tmem_page_status {
	TMEM_PAGE_OK = 0,
	TMEM_PAGE_REFUSED = 1, /* put: no room; the old copy is gone */
	TMEM_PAGE_MISS = 2,    /* get: there is none */
	/*
	 * get: held, but its bytes are damaged: their checksum, CRC-32C
	 * (RFC 3720) from the key on, is another
	 */
	TMEM_PAGE_IO = 3,
};

struct tmem_page {
	uint8_t status; /* enum tmem_page_status */
	/*
	 * Stored length if OK: 0 for a page that is one 4 byte word repeated,
	 * the page size for one that does not compress.  In an opaque pool 1 ..
	 * the page size: read by a put too, which sets it to 0 where it is
	 * refused, and what a get has written.
	 */
	uint32_t length;
	uint16_t internal; /* the library's; need not be set */
};

/*
 * One request.  The caller owns it, with all that it points to, until it is
 * complete: when tmem_submit() returned other than -EINPROGRESS, or when done()
 * is called.
 */
struct tmem_op {
	uint16_t verb;	/* enum tmem_verb */
	uint16_t flags; /* TMEM_GET_* */
	uint32_t pool;
	uint8_t object[TMEM_OBJECT_SIZE];
	uint64_t index;
	/*
	 * Put, get: 1 .. TMEM_MAX_RUN pages.  Flush: any number of indexes.
	 * index + count may be 2^64 but not exceed it.
	 */
	uint64_t count;
	/*
	 * Put, get: the page size that iov was cut for.  -EINVAL if it is not,
	 * or no longer, the pool's.
	 */
	uint32_t page_size;

	/*
	 * Put, get: count x page size bytes of guest memory, from @skip bytes
	 * after the start of iov[0], in any number of pieces of any length.
	 * A get writes pages that it finds and no byte of others, but may leave
	 * anything in a page that it reports as TMEM_PAGE_IO.  In an opaque pool
	 * a page is its first tmem_page.length bytes; the others are not touched.
	 */
	const struct iovec *iov;
	unsigned int iovcnt;
	size_t skip;

	/* Put, get: count elements, written; not guest memory. */
	struct tmem_page *page;

	/*
	 * Result.  Put, get: pages that are TMEM_PAGE_OK.  Flush: indexes
	 * processed, from the first; fewer than count if TMEM_FLUSH_BATCH
	 * pages were removed, or places of evicted ones were passed, before
	 * the end: submit the rest again.
	 */
	uint64_t done;

	/* Called from tmem_poll() where tmem_submit() said -EINPROGRESS. */
	void (*complete)(struct tmem_op *op, int error);
	void *opaque; /* the caller's */
	/* The library's, from submission to tmem_retire(); need not be set. */
	uint64_t internal[8];
};

/*
 * Make a context for one thread.  @ctx: set on success; the caller destroys it
 * when none of its ops is in flight (NULL is allowed).  -ENOMEM.
 */
int tmem_ctx_create(struct tmem_store *store, struct tmem_ctx **ctx);
void tmem_ctx_destroy(struct tmem_ctx *ctx);

/*
 * A file descriptor that polls readable while tmem_poll() has something to do,
 * or -1 if ops of this store always complete in tmem_submit() (the case as long
 * as nothing spills).  The library's: do not read, write or close it.
 */
int tmem_ctx_fd(struct tmem_ctx *ctx);

/*
 * Run an op.  0: it is complete, see @op->done and @op->page.
 * -EINPROGRESS: it will complete in tmem_poll() of this ctx.
 * Other errors: nothing took effect and the op is complete:
 * -EINVAL: verb, flags, pool's number, count, index + count, page size, no page,
 * a length of an opaque pool's page, too little iovec, exclusive get of a
 * persistent pool; -ENOENT: no such pool;
 * -EAGAIN: a put while frozen.
 * @ctx is used by one thread at a time.
 */
int tmem_submit(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		struct tmem_op *op);

/*
 * Complete what can be completed: calls op->complete().  Returns the number
 * of ops that were.  @ctx is used by one thread at a time.
 */
unsigned int tmem_poll(struct tmem_ctx *ctx);

/*
 * The same until no op of the ctx is in flight: waits for them.  For who ends, or
 * wants the guest memory back.  @ctx is used by one thread at a time.
 */
unsigned int tmem_drain(struct tmem_ctx *ctx);

/*
 * The result of @op has reached its owner.  Call it once for every completed
 * TMEM_GET_EXCLUSIVE: only then are the pages freed, though nobody else can get
 * them any more; those that are TMEM_PAGE_IO, too.  Harmless for other ops, and
 * for ops that failed.  @ctx may be any of the store's, also one that another
 * thread is using.
 * @op, and op->page if it was exclusive, must be as they were at completion.
 */
void tmem_retire(struct tmem_ctx *ctx, struct tmem_op *op);

/* The same, but the result did not reach its owner: the pages are back. */
void tmem_unretire(struct tmem_ctx *ctx, struct tmem_op *op);

/* ------------------------------------------------------------------ stats */

/*
 * Counters only grow, from creation on; gauges are as of now.  Read without
 * stopping anybody: values of one struct may be some ops apart.
 */
struct tmem_stats {
	uint64_t size; /* sizeof(struct tmem_stats), before the call */
	/* gauges */
	uint64_t persistent_pages;
	uint64_t ephemeral_pages;
	uint64_t persistent_raw_bytes;
	uint64_t ephemeral_raw_bytes;
	uint64_t stored_bytes;	     /* sum of stored lengths */
	uint64_t same_filled_pages;  /* among the pages above */
	uint64_t raw_pages;	     /* stored as they are: incompressible */
	uint64_t recompressed_pages; /* tmem_store_config.recompress_percent */
	uint64_t held_bytes; /* of the host, all in but ctxs: 0.2 MiB each */
	/* The most it ever was: of the whole store; of a pool no peak is kept. */
	uint64_t held_peak_bytes;
	/*
	 * Of pools and objects that have ended, not freed yet: of the store,
	 * whatever was asked; 0 of a pool.
	 */
	uint64_t draining_pages;
	/*
	 * Of held_bytes, what tmem_shrink() could give back, about: memory that
	 * is empty, that packing would empty, that ephemeral pages take.  0 of a
	 * pool.
	 */
	uint64_t reclaimable_bytes;
	/* counters, in pages */
	uint64_t puts;			/* that were accepted */
	uint64_t puts_refused_limit;	/* a limit of the tenant or store */
	uint64_t puts_refused_memory;	/* an allocation failed */
	uint64_t puts_refused_headroom; /* host or cgroup nearly full */
	uint64_t gets;			/* that found their page */
	uint64_t misses;
	uint64_t io_errors; /* gets of damaged pages: TMEM_PAGE_IO */
	uint64_t flushes;
	uint64_t evictions;
	/*
	 * Of the misses, those of pages that were evicted lately: what more
	 * memory would have kept.  About: a store remembers one lost page for
	 * each 4 KiB that ephemeral pages take, and none of those that it lost
	 * after they had been got, or for their pool's own limit.  A lost page
	 * counts once, until it is put and lost again; if it was flushed
	 * meanwhile, too.  On the other side it knows pages by marks
	 * of 16 bits, so one miss in 16384 is taken for a lost page's; and of a
	 * pool that is made again under its number, misses of what the last one
	 * lost may count.
	 */
	uint64_t refaults;
	/*
	 * Of the whole store, in nanoseconds; 0 of a tenant or pool: CPU time of
	 * tmem_step(), and what of it recompression took.
	 */
	uint64_t step_cpu_ns;
	uint64_t recompress_cpu_ns;
};

/* -EINVAL: NULL, or a size of no version; nothing is written then. */
int tmem_store_stats(struct tmem_store *store, struct tmem_stats *stats);
int tmem_tenant_stats(struct tmem_tenant *tenant, struct tmem_stats *stats);
/*
 * A pool's; held_bytes there leaves out what pools of a tenant share.
 * -ENOENT: there is no such pool; -EINVAL.
 */
int tmem_pool_stats(struct tmem_tenant *tenant, uint32_t pool,
		    struct tmem_stats *stats);

/* Raw bytes of persistent pages that the tenant holds.  Takes no lock. */
uint64_t tmem_tenant_persistent_raw(struct tmem_tenant *tenant);

/*
 * How short of memory the tenant is, 0 .. 3, as VIRTIO_TMEM_PRESSURE_*: 0 none;
 * 1 more than 7/8 of a limit is used; 2 puts beyond the reservation are being
 * refused; 3 headroom is gone: any put may be.  Never less than what
 * tmem_store_set_pressure() said.
 */
unsigned int tmem_tenant_pressure(struct tmem_tenant *tenant);

/*
 * What somebody who sees the whole host says of its memory: the least that
 * tmem_tenant_pressure() is from now on, 0 .. 2 (only the store can tell that
 * any put may be refused).  At first 0.  Whoever tells guests of pressure is to
 * look again after the call.  -EINVAL: more than 2.
 */
int tmem_store_set_pressure(struct tmem_store *store, unsigned int level);

/*
 * Walk all structures and compare them with one another and with the counters.
 * Ops wait while it runs, but for their guest memory and codec.  0, or -EUCLEAN
 * with one line about the first fault in @message (@size bytes).
 */
int tmem_check(struct tmem_store *store, char *message, size_t size);

/* ----------------------------------------------------------------- later */

/*
 * What is decided and not there yet: these all return -ENOTSUP, and do nothing.
 * They are here so that who builds on the library can be written for them, and
 * so that what is there fits to them.
 */

/* A page's place. */
struct tmem_key {
	uint32_t pool;
	uint8_t object[TMEM_OBJECT_SIZE];
	uint64_t index;
};

/* How the bytes of an exported page are to be read. */
enum tmem_codec {
	TMEM_CODEC_SAME = 1, /* 4 bytes, which are repeated */
	TMEM_CODEC_LZ4,	     /* an LZ4 block */
	TMEM_CODEC_RAW,	     /* the page */
	TMEM_CODEC_OPAQUE,   /* the guest's own: as it was put */
	TMEM_CODEC_ZSTD,     /* a zstd frame */
};

/*
 * Have @hold called with the descriptors of what tenant @name holds, @num of
 * them, copies that are the callee's, when the tenant is opened and whenever
 * another file is added, such as one that pages are spilled to.  0 from it: they
 * are kept; else what needs them does not happen.  NULL: no more.  Until then
 * tmem_tenant_fds() tells all of them.
 */
int tmem_store_set_holder(struct tmem_store *store,
			  int (*hold)(void *opaque, const char *name,
				      const int *fd, unsigned int num),
			  void *opaque);

/*
 * Let a tenant go, and keep it for @seconds for who opens one of its name in this
 * store; then it is dropped.  Until then a keeper of its memfds does that, with
 * tmem_tenant_detach() and tmem_tenant_adopt().
 */
int tmem_tenant_linger(struct tmem_tenant *tenant, uint32_t seconds);

/*
 * Join pool @pool of @tenant to the group of that name, all of whose members see
 * the same ephemeral pages.  @writer: it may put, flush and get exclusively;
 * others get -EPERM for these.  The host's configuration calls this, never a
 * guest.
 */
int tmem_pool_attach_shared(struct tmem_tenant *tenant, uint32_t pool,
			    const char *group, bool writer);

/*
 * Spill cold pages of the store to @path, a file or block device, @bytes of it
 * at most.  Gets of spilled pages are -EINPROGRESS, and complete in tmem_poll().
 * @tier: set; the caller detaches it before the store is destroyed, which brings
 * all pages back or is -ENOSPC.  -ENOENT and the like: as open(2) of @path, which
 * is the tier's alone as long as it is attached.
 */
struct tmem_tier;
int tmem_tier_attach(struct tmem_store *store, const char *path, uint64_t bytes,
		     struct tmem_tier **tier);
int tmem_tier_detach(struct tmem_tier *tier);

/*
 * Note which keys change, for a migration that goes on while the guest runs.
 * tmem_track_next(): up to @count keys that have changed, each once until it
 * changes again; returns how many.  tmem_track_pending(): how many there are.
 */
int tmem_track_start(struct tmem_tenant *tenant);
int tmem_track_next(struct tmem_tenant *tenant, struct tmem_key *keys,
		    unsigned int count);
int tmem_track_pending(struct tmem_tenant *tenant, uint64_t *keys);
int tmem_track_stop(struct tmem_tenant *tenant);

/*
 * The stored bytes of a page, @size bytes of room for them; @length, @codec:
 * set.  -ENOENT: there is none; -EIO: it is damaged.
 */
int tmem_export(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		const struct tmem_key *key, void *bytes, uint32_t size,
		uint32_t *length, enum tmem_codec *codec);
/*
 * Room for @bytes (raw) of what is going to be imported, or -ENOSPC.  They count
 * as the tenant's until they are imported, or another call says 0.
 */
int tmem_import_reserve(struct tmem_tenant *tenant, uint64_t bytes);
/*
 * The page is somewhere else for the time being: gets of it are -EINPROGRESS
 * until it is imported.  -EEXIST: it is here.
 */
int tmem_import_remote(struct tmem_tenant *tenant, const struct tmem_key *key);
/*
 * An exported page, @length bytes as @codec says, only where it is still remote
 * or nothing was put since: else -EEXIST.  -EIO: these are no bytes of a page.
 */
int tmem_import(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		const struct tmem_key *key, const void *bytes, uint32_t length,
		enum tmem_codec codec);

/*
 * Have @notify called at what @events say, by the thread that finds it, which has
 * no lock of the library's; it may call what it likes but tmem_store_destroy().
 * @opaque is the caller's.  @events 0: no more.
 */
#define TMEM_EVENT_PRESSURE 0x1u /* tmem_tenant_pressure() is another */
#define TMEM_EVENT_DAMAGE   0x2u /* a page was TMEM_PAGE_IO */
int tmem_event_notify(struct tmem_store *store, uint32_t events,
		      void (*notify)(void *opaque, uint32_t event),
		      void *opaque);

#ifdef __cplusplus
}
#endif

#endif /* TMEM_TMEM_H */
