/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stores, and work in the background: draining, packing, giving memory back
 */
#include <assert.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* ------------------------------------------------------------------ store */

static void *libc_alloc(void *opaque, size_t size)
{
	return malloc(size);
}
static void *libc_zalloc(void *opaque, size_t size)
{
	return calloc(1, size);
}
static void libc_free(void *opaque, void *ptr)
{
	free(ptr);
}
static int libc_fallocate(void *opaque, int fd, int mode, uint64_t offset,
			  uint64_t length)
{
	int error;

	do {
		error = fallocate(fd, mode, offset, length) ? -errno : 0;
	} while (error == -EINTR);
	return error;
}

static const struct tmem_memory_ops libc_memory = {
	.alloc = libc_alloc,
	.zalloc = libc_zalloc,
	.free = libc_free,
	.fallocate = libc_fallocate,
};

static bool config_valid(const struct tmem_store_config *config)
{
	const struct tmem_memory_ops *memory;

	if (!config->max_bytes ||
	    config->flags & ~(TMEM_STORE_LOCK | TMEM_STORE_PARANOID |
			      TMEM_STORE_SIZE_CLASSES) ||
	    config->recompress_percent > 100 ||
	    config->recompress_after_s > TMEM_MAX_RECOMPRESS_AFTER)
		return false;
	memory = config->memory;
	return !memory || (memory->alloc && memory->zalloc && memory->free &&
			   memory->fallocate);
}

static void store_end(struct tmem_store *store)
{
	recompress_destroy(store);
	pthread_mutex_destroy(&store->lock);
	pthread_mutex_destroy(&store->headroom.lock);
	pthread_rwlock_destroy(&store->quiesce);
	pthread_rwlock_destroy(&store->tenants_lock);
	store_free(store, store);
}

static int store_new(const struct tmem_store_config *config,
		     struct tmem_store **out)
{
	const struct tmem_memory_ops *memory =
		config->memory ? config->memory : &libc_memory;
	struct tmem_store *store =
		memory->zalloc(config->memory_opaque, sizeof(*store));
	pthread_rwlockattr_t attr;

	if (!store)
		return -ENOMEM;
	store->memory = *memory;
	store->memory_opaque = config->memory_opaque;
	store->clock_ns = config->clock_ns;
	store->clock_opaque = config->clock_opaque;
	store->flags = config->flags;
	store->max_bytes = config->max_bytes;
	list_init(&store->tenants);
	list_init(&store->dead);
	/* Early at boot there may be none: then names are only hard to choose.
	 */
	if (getrandom(&store->secret, sizeof(store->secret), GRND_NONBLOCK) < 0)
		store->secret = (uintptr_t)store ^ getpid();
	pthread_mutex_init(&store->lock, NULL);
	/* Ops and steppers nearly always read them: who writes must get them.
	 */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&store->quiesce, &attr);
	pthread_rwlock_init(&store->tenants_lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	headroom_init(&store->headroom, config);
	if (recompress_init(store, config)) {
		store_end(store);
		return -ENOMEM;
	}
	live_add(&store->live, LIVE_STORE, store);
	*out = store;
	return 0;
}

int tmem_store_create(const struct tmem_store_config *config,
		      struct tmem_store **out)
{
	struct tmem_store_config own;
	int error = SIZED_IN(&own, config, recompress_after_s);

	if (error || !config_valid(&own) || !out)
		return -EINVAL;
	return store_new(&own, out);
}

uint64_t store_now_ns(const struct tmem_store *store)
{
	struct timespec t;

	if (store->clock_ns)
		return store->clock_ns(store->clock_opaque);
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

void tmem_store_destroy(struct tmem_store *store)
{
	if (!store)
		return;
	CHECK_STORE(store);
	live_check_last(__func__, store);
	live_remove(&store->live);
	store_end(store);
}

/* ---------------------------------------------------------------- quiesce */

#ifndef NDEBUG
static _Thread_local bool reads_quiesce;
#endif

void quiesce_read(struct tmem_store *store)
{
#ifndef NDEBUG
	assert(!reads_quiesce);
	reads_quiesce = true;
#endif
	pthread_rwlock_rdlock(&store->quiesce);
}

void quiesce_done(struct tmem_store *store)
{
	pthread_rwlock_unlock(&store->quiesce);
#ifndef NDEBUG
	reads_quiesce = false;
#endif
}

/* ------------------------------------------------------------- background */

/*
 * The first dead pool, of @tenant alone if there is one, or NULL.  Off the list
 * while it is drained: one drainer a pool.
 */
static struct tmem_pool *dead_take(struct tmem_store *store,
				   const struct tmem_tenant *tenant)
{
	struct tmem_pool *pool = NULL;

	pthread_mutex_lock(&store->lock);
	for (struct list *l = store->dead.next; l != &store->dead && !pool;
	     l = l->next) {
		pool = container_of(l, struct tmem_pool, link);
		if (tenant && pool->tenant != tenant)
			pool = NULL;
	}
	if (pool)
		list_del(&pool->link);
	pthread_mutex_unlock(&store->lock);
	return pool;
}

/*
 * Pools of @tenant, or of all, in one turn.  No tenant goes while a pool of its
 * drains, as tenants_lock is held.
 */
static unsigned int drain_turn(struct tmem_store *store,
			       const struct tmem_tenant *tenant,
			       unsigned int max)
{
	unsigned int done = 0;

	pthread_rwlock_rdlock(&store->tenants_lock);
	while (done < max) {
		struct tmem_pool *pool = dead_take(store, tenant);

		if (!pool)
			break;
		done += pool_drain(pool, max - done) + 1;
		if (done <= max) {
			pool_free(pool);
			continue;
		}
		pthread_mutex_lock(&store->lock);
		list_add_tail(&store->dead, &pool->link);
		pthread_mutex_unlock(&store->lock);
	}
	pthread_rwlock_unlock(&store->tenants_lock);
	return done;
}

static unsigned int drain(struct tmem_store *store,
			  const struct tmem_tenant *tenant, unsigned int max)
{
	unsigned int done = 0, turn, n;

	do {
		turn = MIN(max - done, TENANTS_TURN);
		n = drain_turn(store, tenant, turn);
		done += n;
	} while (n >= turn && done < max);
	return done;
}

unsigned int store_drain(struct tmem_store *store, unsigned int max)
{
	return drain(store, NULL, max);
}

unsigned int tenant_drain(struct tmem_tenant *tenant, unsigned int max)
{
	return drain(tenant->store, tenant, max);
}

unsigned int each_tenant(struct tmem_store *store, unsigned int max,
			 unsigned int (*work)(struct tmem_tenant *t,
					      unsigned int max))
{
	unsigned int done = 0, turn, n;

	/* From the first tenant on in each turn, as others may be gone. */
	do {
		turn = MIN(max - done, TENANTS_TURN);
		n = 0;
		pthread_rwlock_rdlock(&store->tenants_lock);
		for (struct list *l = store->tenants.next;
		     l != &store->tenants && n < turn; l = l->next)
			n += work(container_of(l, struct tmem_tenant, link),
				  turn - n);
		pthread_rwlock_unlock(&store->tenants_lock);
		done += n;
	} while (n >= turn && done < max);
	return done;
}

/* The first pool at or after @*id with something to clean, or NULL. */
static struct tmem_pool *pool_get_dirty(struct tmem_tenant *tenant,
					uint32_t *id)
{
	struct tmem_pool *pool = NULL;

	pthread_mutex_lock(&tenant->lock);
	for (; *id < TMEM_MAX_POOLS && !pool; ++*id)
		if (tenant->pool[*id] && atomic_load(&tenant->pool[*id]->dirty))
			pool = tenant->pool[*id];
	if (pool)
		pool->refs++;
	pthread_mutex_unlock(&tenant->lock);
	return pool;
}

unsigned int tenant_clean(struct tmem_tenant *tenant, unsigned int max)
{
	struct tmem_pool *pool;
	unsigned int done = 0;
	uint32_t id = 0;

	while (done < max && (pool = pool_get_dirty(tenant, &id))) {
		done += pool_clean(pool, max - done);
		pool_put(pool);
	}
	return done;
}

static unsigned int compact(struct tmem_tenant *tenant, unsigned int max,
			    bool all)
{
	unsigned int done = arena_compact(&tenant->persistent, max, all);

	if (done < max)
		done += arena_compact(&tenant->ephemeral, max - done, all);
	return done;
}

unsigned int tenant_compact(struct tmem_tenant *tenant, unsigned int max)
{
	return compact(tenant, max, false);
}

unsigned int tenant_pack(struct tmem_tenant *tenant, unsigned int max)
{
	unsigned int done = compact(tenant, max, true);

	/* Before the next tenant's turn, or each holds more for a while. */
	if (done)
		arena_punch(&tenant->persistent, TENANTS_TURN, true);
	return done;
}

/* Memory ahead for who grows, and back of who does not. */
static unsigned int tenant_memory(struct tmem_tenant *tenant, unsigned int max)
{
	unsigned int done = arena_prefault(&tenant->persistent, max);

	done += arena_prefault(&tenant->ephemeral, max - done);
	if (done < max)
		done += arena_punch(&tenant->persistent, max - done, false);
	if (done < max)
		done += arena_punch(&tenant->ephemeral, max - done, false);
	return done;
}

/*
 * A quarter for each kind of work at first, or a guest that always has some of
 * the first kind done never has any of the others; then what is left, to those
 * that were cut short.
 */
static unsigned int tenant_step(struct tmem_tenant *tenant, unsigned int max)
{
	static unsigned int (*const work[])(struct tmem_tenant * t,
					    unsigned int max) = {
		tenant_clean,
		tenant_compact,
		tenant_memory,
		tenant_recompress,
	};
	unsigned int done = 0, share = MAX(max / 4, 1u);
	bool more[ARRAY_SIZE(work)];

	for (unsigned int i = 0; i < ARRAY_SIZE(work); i++) {
		unsigned int most = MIN(share, max - MIN(done, max)), n;

		n = most ? work[i](tenant, most) : 0;
		more[i] = n >= most;
		done += n;
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(work) && done < max; i++)
		if (more[i])
			done += work[i](tenant, max - done);
	/* Puts were refused; are they still?  The next one tells. */
	atomic_store(&tenant->refused, 0);
	return done;
}

/* tenant_step() for each, with equal shares of what is left by those before. */
static unsigned int step_tenants(struct tmem_store *store, unsigned int max)
{
	unsigned int done = 0, tenants = 0;

	pthread_rwlock_rdlock(&store->tenants_lock);
	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next)
		tenants++;
	for (struct list *l = store->tenants.next;
	     l != &store->tenants && done < max; l = l->next, tenants--)
		done += tenant_step(container_of(l, struct tmem_tenant, link),
				    MAX((max - done) / tenants, 1u));
	pthread_rwlock_unlock(&store->tenants_lock);
	return done;
}

uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

unsigned int tmem_step(struct tmem_store *store, unsigned int pages)
{
	uint64_t start = cpu_ns();
	unsigned int done;

	CHECK_STORE(store);
	/* Half for what has ended, if there is anything else to do. */
	done = store_drain(store, pages / 2);
	if (done < pages)
		done += step_tenants(store, pages - done);
	if (done < pages)
		done += store_drain(store, pages - done);
	store_trim(store, done ? TRIM_BUSY : TRIM_IDLE);
	atomic_fetch_add(&store->step_cpu_ns, cpu_ns() - start);
	return done;
}

unsigned int tenant_release(struct tmem_tenant *tenant, unsigned int max)
{
	return arena_punch(&tenant->persistent, max, true) +
	       arena_punch(&tenant->ephemeral, max, true);
}

void tenant_give_back(struct tmem_tenant *tenant)
{
	struct tmem_store *store = tenant->store;
	unsigned int done;

	do {
		pthread_rwlock_rdlock(&store->tenants_lock);
		done = tenant_release(tenant, TENANTS_TURN);
		pthread_rwlock_unlock(&store->tenants_lock);
	} while (done >= TENANTS_TURN);
}

/* Same-filled pages that one call takes, where it need not be fewer. */
#define EVICT_SAME_WORDS 512

unsigned int tenant_evict(struct tmem_tenant *tenant, unsigned int max)
{
	unsigned int pages =
		arena_evict(&tenant->ephemeral, (uint64_t)max * ARENA_PAGE) /
		ARENA_PAGE;

	/* Where there are no others, same-filled pages have all the index. */
	if (!pages)
		return clock_same(tenant, MAX(max, EVICT_SAME_WORDS));
	clock_age(tenant, pages);
	return pages;
}

/* While it is busy not more often than that. */
#define TRIM_NS 100000000ull

void store_trim(struct tmem_store *store, uint64_t bytes)
{
	uint64_t now;

	if (store->memory.free != libc_free ||
	    atomic_load(&store->freed_bytes) < bytes)
		return;
	/* It goes through all heaps of the process, whosever: not each time. */
	now = store_now_ns(store);
	if (bytes >= TRIM_BUSY && now < atomic_load(&store->trim_ns))
		return;
	atomic_store(&store->trim_ns, now + TRIM_NS);
	atomic_store(&store->freed_bytes, 0);
#ifdef __GLIBC__
	/*
	 * Each thread's heap keeps what was freed, so that held bytes that are
	 * gone would be counted no more, and be there, once for each thread.
	 */
	malloc_trim(0);
#endif
}

/* Pages after which it is asked anew who has most for its weight. */
#define EVICT_SLICE 256u

static uint64_t held_bytes(struct tmem_store *store)
{
	uint64_t held;

	pthread_mutex_lock(&store->lock);
	held = store_held(store);
	pthread_mutex_unlock(&store->lock);
	return held;
}

/* Pages that went.  Packing takes some first: what it gives back is not all. */
static unsigned int shrink_by_packing(struct tmem_store *store)
{
	uint64_t before = held_bytes(store), after;

	each_tenant(store, UINT32_MAX / 2, tenant_pack);
	after = held_bytes(store);
	return (before - MIN(before, after)) / ARENA_PAGE;
}

uint64_t tmem_shrink(struct tmem_store *store, uint64_t bytes)
{
	unsigned int pages, done = 0;

	CHECK_STORE(store);
	if (!bytes)
		return 0;
	/* No more than there is: others may fill it as fast as it empties. */
	bytes = MIN(bytes, held_bytes(store));
	pages = MIN(bytes / ARENA_PAGE + 1, UINT32_MAX / 2);
	store_drain(store, pages);
	done = each_tenant(store, pages, tenant_release);
	if (done < pages)
		done += shrink_by_packing(store);
	while (done < pages &&
	       store_evict(store, MIN(pages - done, EVICT_SLICE)))
		done += each_tenant(store, UINT32_MAX / 2, tenant_release);
	each_tenant(store, pages, tenant_clean);
	store_trim(store, TRIM_IDLE);
	return (uint64_t)done * ARENA_PAGE;
}
