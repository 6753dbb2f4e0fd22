/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stores, tenants, pools: their lives, their limits, and background work
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

/*
 * What a reservation costs beyond its raw bytes, at the worst: a page that
 * does not compress takes a slot (16 bytes) that is a span of its own (48), a
 * word and its share of leaf and nodes (10 bytes), and a share of a segment's
 * descriptor (11 bytes): 85 of 4096, or 1/48; and once, 1 MiB for classes that
 * are not full and for segments that are not used yet.
 */
#define RESERVATION_PARTS 48
#define RESERVATION_FIXED MIB

uint64_t tmem_reservation_cost(uint64_t raw)
{
	uint64_t extra = raw / RESERVATION_PARTS + RESERVATION_FIXED;

	if (!raw)
		return 0;
	return raw > UINT64_MAX - extra ? UINT64_MAX : raw + extra;
}

uint64_t tmem_reservation_fit(uint64_t max_bytes)
{
	uint64_t raw;

	if (max_bytes <= RESERVATION_FIXED)
		return 0;
	raw = max_bytes - RESERVATION_FIXED;
	raw -= raw / (RESERVATION_PARTS + 1);
	raw &= ~(uint64_t)(SEGMENT_BYTES - 1);
	return MIN(raw, TMEM_MAX_RESERVED);
}

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

int tmem_store_create(const struct tmem_store_config *config,
		      struct tmem_store **out)
{
	const struct tmem_memory_ops *memory = config->memory;
	struct tmem_store *store;
	pthread_rwlockattr_t attr;

	if (config->size != sizeof(*config) || !config->max_bytes ||
	    config->flags & ~(TMEM_STORE_LOCK | TMEM_STORE_PARANOID))
		return -EINVAL;
	if (!memory)
		memory = &libc_memory;
	store = memory->zalloc(config->memory_opaque, sizeof(*store));
	if (!store)
		return -ENOMEM;
	store->memory = *memory;
	store->memory_opaque = config->memory_opaque;
	store->flags = config->flags;
	store->max_bytes = config->max_bytes;
	list_init(&store->tenants);
	list_init(&store->dead);
	pthread_mutex_init(&store->lock, NULL);
	pthread_rwlock_init(&store->quiesce, NULL);
	/* Steppers hold it for reading nearly always: who adds must get it. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(
		&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&store->tenants_lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	headroom_init(&store->headroom, config);
	*out = store;
	return 0;
}

void tmem_store_destroy(struct tmem_store *store)
{
	if (!store)
		return;
	pthread_mutex_destroy(&store->lock);
	pthread_mutex_destroy(&store->headroom.lock);
	pthread_rwlock_destroy(&store->quiesce);
	pthread_rwlock_destroy(&store->tenants_lock);
	store_free(store, store);
}

static uint64_t store_held(struct tmem_store *store)
{
	uint64_t held = 0;

	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next)
		held += tenant_held(container_of(l, struct tmem_tenant, link));
	return held;
}

/* The tables of regions are sparse: zeroes that take no memory. */
static uint64_t tenant_base(void)
{
	const struct tmem_tenant *t;

	return sizeof(*t) - 2 * (sizeof(t->persistent.region) +
				 sizeof(t->persistent.segments));
}

uint64_t tenant_index_share(struct tmem_tenant *tenant)
{
	return tenant->reserved / 8 + MIB;
}

/*
 * What its reservation may still take beside what @tenant holds and @bytes.  Its
 * own ephemeral pages make way for it; their index does not, nor does index of
 * persistent pages beyond the share of it that is guaranteed.
 */
static uint64_t tenant_unfulfilled(struct tmem_tenant *tenant, uint64_t bytes)
{
	uint64_t cost = tmem_reservation_cost(tenant->reserved);
	uint64_t index = arena_index_bytes(&tenant->persistent);

	bytes += tenant_base() + arena_page_bytes(&tenant->persistent) +
		 MIN(index, tenant_index_share(tenant)) +
		 arena_page_bytes(&tenant->ephemeral);
	return cost - MIN(cost, bytes);
}

/*
 * What is held, and what reservations may still take, once @grows holds @bytes
 * more, @within of which its reservation has room for.  store->lock held.
 */
static uint64_t store_committed(struct tmem_store *store,
				struct tmem_tenant *grows, uint64_t bytes,
				uint64_t within)
{
	uint64_t sum = store_held(store) + bytes;

	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next) {
		struct tmem_tenant *t =
			container_of(l, struct tmem_tenant, link);

		sum += tenant_unfulfilled(t, t == grows ? within : 0);
	}
	return sum;
}

static uint64_t store_reserved(struct tmem_store *store,
			       struct tmem_tenant *except)
{
	uint64_t bytes = 0;

	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next) {
		struct tmem_tenant *t =
			container_of(l, struct tmem_tenant, link);

		if (t != except)
			bytes += tmem_reservation_cost(t->reserved);
	}
	return bytes;
}

/* 0 or -EBUSY. */
int store_ask_host(struct tmem_store *store, uint64_t bytes)
{
	uint64_t held;

	pthread_mutex_lock(&store->lock);
	held = store_held(store);
	pthread_mutex_unlock(&store->lock);
	return headroom_take(&store->headroom, bytes, held) ? 0 : -EBUSY;
}

/*
 * Is there room under the store's and the tenant's limits?  For what is
 * guaranteed only the store's counts: the room was kept for it.  What is not
 * must leave reservations what they may still take; where it cannot be helped
 * that they lack it already, because limits were changed, it may not lack more.
 */
static bool limits_allow(struct tmem_tenant *tenant, enum grows grows,
			 uint64_t bytes, bool guaranteed)
{
	bool persistent = grows == GROWS_PERSISTENT;
	struct tmem_store *store = tenant->store;
	uint64_t max = persistent ? tenant->persistent_max :
				    tenant->ephemeral_max;
	uint64_t held = arena_held(persistent ? &tenant->persistent :
						&tenant->ephemeral);
	bool allow;

	if (!guaranteed && (bytes > max || held > max - bytes))
		return false;
	pthread_mutex_lock(&store->lock);
	max = store->max_bytes;
	held = store_held(store);
	allow = bytes <= max && held <= max - bytes;
	if (allow && !guaranteed) {
		uint64_t within = grows == GROWS_INDEX ? 0 : bytes;

		allow = store_committed(store, tenant, bytes, within) <= max ||
			tenant_unfulfilled(tenant, within) + bytes ==
				tenant_unfulfilled(tenant, 0);
	}
	pthread_mutex_unlock(&store->lock);
	return allow;
}

bool store_has_room(struct tmem_tenant *tenant, enum grows grows,
		    uint64_t bytes)
{
	return limits_allow(tenant, grows, bytes, false) &&
	       !store_ask_host(tenant->store, bytes);
}

static unsigned int each_tenant(struct tmem_store *store, unsigned int max,
				unsigned int (*work)(struct tmem_tenant *t,
						     unsigned int max));
static unsigned int tenant_clean(struct tmem_tenant *tenant, unsigned int max);
static unsigned int tenant_release(struct tmem_tenant *tenant,
				   unsigned int max);
static unsigned int tenant_compact(struct tmem_tenant *tenant,
				   unsigned int max);
static unsigned int tenant_evict(struct tmem_tenant *tenant, unsigned int max);

/* Words that one op visits at most, in one go, to make room for itself. */
#define HELP_WORDS 1024
/* How often; what is guaranteed must not fail for lack of patience. */
#define HELP_TRIES 4
#define HELP_TRIES_GUARANTEED 64

/*
 * Make room: what has ended, then what is idle, then what lies between the
 * tenant's pages, then its ephemeral pages; then, for what is guaranteed, the
 * same of others.
 */
static bool make_room(struct tmem_tenant *tenant, uint64_t bytes,
		      bool guaranteed)
{
	struct tmem_store *store = tenant->store;
	unsigned int done = store_drain(store, HELP_WORDS);

	/* The words were pages of whoever it was. */
	if (done && guaranteed)
		each_tenant(store, 64, tenant_release);
	if (done < HELP_WORDS)
		done += tenant_clean(tenant, HELP_WORDS - done);
	done += tenant_release(tenant, 64);
	if (!done && tenant_compact(tenant, HELP_WORDS)) {
		tenant_release(tenant, 64);
		done++;
	}
	if (!done && arena_evict(&tenant->ephemeral, bytes)) {
		tenant_release(tenant, 64);
		done++;
	}
	if (!done && guaranteed &&
	    (each_tenant(store, HELP_WORDS, tenant_clean) ||
	     each_tenant(store, 64, tenant_release) ||
	     each_tenant(store, HELP_WORDS, tenant_compact) ||
	     each_tenant(store, bytes / ARENA_PAGE, tenant_evict))) {
		each_tenant(store, 64, tenant_release);
		done++;
	}
	return done;
}

int store_may_grow(struct tmem_tenant *tenant, enum grows grows, uint64_t bytes,
		   bool guaranteed)
{
	struct tmem_store *store = tenant->store;
	int error = 0;

	for (unsigned int tries = 0;; tries++) {
		error = limits_allow(tenant, grows, bytes, guaranteed) ?
				0 :
				-ENOSPC;
		if (!error)
			error = store_ask_host(store, bytes);
		/* What the host refuses it refuses for a while: no patience. */
		if (!error ||
		    tries >= (guaranteed && error == -ENOSPC ?
				      HELP_TRIES_GUARANTEED :
				      HELP_TRIES) ||
		    !make_room(tenant, MAX(bytes, SEGMENT_BYTES), guaranteed))
			break;
	}
	/* A promise is kept, though the store exceeds its limit by it. */
	if (error == -ENOSPC && guaranteed)
		error = store_ask_host(store, bytes);
	return error;
}

void store_note_held(struct tmem_store *store)
{
	uint64_t held, peak = atomic_load(&store->held_peak);

	pthread_mutex_lock(&store->lock);
	held = store_held(store);
	pthread_mutex_unlock(&store->lock);
	while (held > peak &&
	       !atomic_compare_exchange_weak(&store->held_peak, &peak, held))
		;
}

int tmem_store_set_max(struct tmem_store *store, uint64_t max_bytes)
{
	int error = 0;

	pthread_mutex_lock(&store->lock);
	if (!max_bytes || max_bytes < store_reserved(store, NULL))
		error = -EINVAL;
	else
		store->max_bytes = max_bytes;
	pthread_mutex_unlock(&store->lock);
	if (!error) {
		uint64_t held;

		pthread_mutex_lock(&store->lock);
		held = store_held(store);
		pthread_mutex_unlock(&store->lock);
		if (held > max_bytes)
			tmem_shrink(store, held - max_bytes);
	}
	return error;
}

/* ----------------------------------------------------------------- tenant */

static unsigned int drain_locked(struct tmem_store *store, unsigned int max);

uint64_t tenant_held(struct tmem_tenant *tenant)
{
	return tenant_base() + arena_held(&tenant->persistent) +
	       arena_held(&tenant->ephemeral);
}

/* store->lock held. */
static int limits_apply(struct tmem_tenant *tenant,
			const struct tmem_limits *limits)
{
	struct tmem_store *store = tenant->store;
	uint64_t cost = tmem_reservation_cost(limits->persistent_reserved);
	uint64_t others = store_reserved(store, tenant);

	if (limits->persistent_reserved > TMEM_MAX_RESERVED ||
	    (limits->persistent_max && limits->persistent_max < cost))
		return -EINVAL;
	if (cost > store->max_bytes || others > store->max_bytes - cost)
		return -ENOSPC;
	tenant->limits = *limits;
	tenant->reserved = limits->persistent_reserved;
	tenant->persistent_max = limits->persistent_max ?
					 limits->persistent_max :
					 UINT64_MAX;
	tenant->ephemeral_max = !limits->ephemeral_max ? UINT64_MAX :
				limits->ephemeral_max == UINT64_MAX ?
							 0 :
							 limits->ephemeral_max;
	return 0;
}

int tmem_tenant_open(struct tmem_store *store, const char *name,
		     const struct tmem_limits *limits, struct tmem_tenant **out)
{
	struct tmem_tenant *tenant = store_zalloc(store, sizeof(*tenant));
	int error;

	if (!tenant)
		return -ENOMEM;
	tenant->store = store;
	snprintf(tenant->name, sizeof(tenant->name), "%s", name);
	tenant->ephemeral.fd = -1;
	error = arena_init(&tenant->persistent, tenant, true);
	if (!error)
		error = arena_init(&tenant->ephemeral, tenant, false);
	if (error) {
		arena_destroy(&tenant->persistent);
		store_free(store, tenant);
		return error;
	}
	pthread_mutex_init(&tenant->lock, NULL);
	pthread_rwlock_wrlock(&store->tenants_lock);
	pthread_mutex_lock(&store->lock);
	error = limits_apply(tenant, limits);
	if (!error)
		list_add_tail(&store->tenants, &tenant->link);
	pthread_mutex_unlock(&store->lock);
	pthread_rwlock_unlock(&store->tenants_lock);
	if (error) {
		arena_destroy(&tenant->persistent);
		arena_destroy(&tenant->ephemeral);
		pthread_mutex_destroy(&tenant->lock);
		store_free(store, tenant);
		return error;
	}
	*out = tenant;
	return 0;
}

/* tenants_lock held for writing: nobody drains, so all dead pools are listed. */
static bool tenant_drained(struct tmem_tenant *tenant)
{
	struct tmem_store *store = tenant->store;
	bool drained = true;

	pthread_mutex_lock(&store->lock);
	for (struct list *l = store->dead.next; l != &store->dead && drained;
	     l = l->next)
		drained = container_of(l, struct tmem_pool, link)->tenant !=
			  tenant;
	if (drained)
		list_del(&tenant->link);
	pthread_mutex_unlock(&store->lock);
	return drained;
}

void tmem_tenant_drop(struct tmem_tenant *tenant)
{
	struct tmem_store *store;
	bool drained = false;

	if (!tenant)
		return;
	store = tenant->store;
	tmem_tenant_reset(tenant);
	while (!drained) {
		/* Back to the host at once: others want the room. */
		while (store_drain(store, 4096))
			tenant_release(tenant, UINT32_MAX);
		/*
		 * Whoever still has a pool of it in hand is waited for, but
		 * nothing is drained meanwhile, as nobody else gets the lock.
		 */
		pthread_rwlock_wrlock(&store->tenants_lock);
		drained = tenant_drained(tenant);
		pthread_rwlock_unlock(&store->tenants_lock);
	}
	arena_destroy(&tenant->persistent);
	arena_destroy(&tenant->ephemeral);
	pthread_mutex_destroy(&tenant->lock);
	store_free(store, tenant);
}

int tmem_tenant_set_limits(struct tmem_tenant *tenant,
			   const struct tmem_limits *limits)
{
	struct tmem_store *store = tenant->store;
	bool progress = true;
	int error;

	pthread_rwlock_rdlock(&store->tenants_lock);
	pthread_mutex_lock(&store->lock);
	error = limits_apply(tenant, limits);
	pthread_mutex_unlock(&store->lock);
	while (!error && progress) {
		uint64_t held = arena_held(&tenant->ephemeral);
		uint64_t max = tenant->ephemeral_max;

		if (held <= max)
			break;
		progress = arena_evict(&tenant->ephemeral, held - max);
		progress |= tenant_clean(tenant, UINT32_MAX) > 0;
		progress |= arena_punch(&tenant->ephemeral, UINT32_MAX, true) > 0;
	}
	pthread_rwlock_unlock(&store->tenants_lock);
	return error;
}

void tmem_tenant_get_limits(struct tmem_tenant *tenant,
			    struct tmem_limits *limits)
{
	struct tmem_store *store = tenant->store;

	pthread_mutex_lock(&store->lock);
	limits->persistent_reserved = tenant->reserved;
	limits->persistent_max = MIN(tenant->persistent_max, store->max_bytes);
	limits->ephemeral_max = MIN(tenant->ephemeral_max, store->max_bytes);
	pthread_mutex_unlock(&store->lock);
}

void tmem_tenant_freeze(struct tmem_tenant *tenant, bool frozen)
{
	atomic_store(&tenant->frozen, frozen);
}

bool tmem_tenant_frozen(struct tmem_tenant *tenant)
{
	return atomic_load(&tenant->frozen);
}

uint64_t tmem_tenant_persistent_raw(struct tmem_tenant *tenant)
{
	return atomic_load(&tenant->persistent_raw);
}

unsigned int tmem_tenant_pressure(struct tmem_tenant *tenant)
{
	struct tmem_store *store = tenant->store;
	uint64_t committed, all, max, held = arena_held(&tenant->persistent);

	pthread_mutex_lock(&store->lock);
	/* Its own reservation is there to be used by it. */
	committed = store_committed(store, NULL, 0, 0) -
		    tenant_unfulfilled(tenant, 0);
	all = store_held(store);
	max = store->max_bytes;
	pthread_mutex_unlock(&store->lock);
	if (headroom_short(&store->headroom, all))
		return 3;
	if (atomic_load(&tenant->refused))
		return 2;
	return committed > max - max / 8 ||
	       held / 7 > tenant->persistent_max / 8;
}

/* ------------------------------------------------------------------- pool */

static int pool_new(struct tmem_tenant *tenant, uint32_t id,
		    const struct tmem_pool_params *params,
		    struct tmem_pool **out)
{
	struct tmem_pool *pool = store_zalloc(tenant->store, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	pool->tenant = tenant;
	pool->id = id;
	pool->params = *params;
	pool->page_size = 1u << params->page_shift;
	pool->arena = params->flags & TMEM_POOL_PERSISTENT ?
			      &tenant->persistent :
			      &tenant->ephemeral;
	pool->refs = 1;
	list_init(&pool->link);
	if (pool_index_init(pool)) {
		store_free(tenant->store, pool);
		return -ENOMEM;
	}
	*out = pool;
	return 0;
}

static void pool_free(struct tmem_pool *pool)
{
	struct tmem_store *store = pool->tenant->store;

	pool_index_destroy(pool);
	store_free(store, pool);
}

int tmem_pool_create(struct tmem_tenant *tenant, uint32_t id,
		     const struct tmem_pool_params *params, uint64_t *held)
{
	struct tmem_pool *pool, *fresh;
	int error;

	if (id >= TMEM_MAX_POOLS || params->flags & ~TMEM_POOL_PERSISTENT ||
	    params->page_shift < TMEM_PAGE_SHIFT_MIN ||
	    params->page_shift > TMEM_PAGE_SHIFT_MAX)
		return -EINVAL;
	error = pool_new(tenant, id, params, &fresh);
	if (error)
		return error;
	pthread_mutex_lock(&tenant->lock);
	pool = tenant->pool[id];
	if (!pool)
		pool = tenant->pool[id] = fresh;
	if (pool->params.flags != params->flags ||
	    pool->params.page_shift != params->page_shift)
		error = -EEXIST;
	else if (held)
		*held = atomic_load(&pool->count.pages);
	pthread_mutex_unlock(&tenant->lock);
	if (pool != fresh)
		pool_free(fresh);
	return error;
}

struct tmem_pool *pool_get(struct tmem_tenant *tenant, uint32_t id)
{
	struct tmem_pool *pool = NULL;

	if (id >= TMEM_MAX_POOLS)
		return NULL;
	pthread_mutex_lock(&tenant->lock);
	pool = tenant->pool[id];
	if (pool)
		pool->refs++;
	pthread_mutex_unlock(&tenant->lock);
	return pool;
}

/* What is counted later is moved by a later call. */
static void counters_move(struct pool_counters *to, struct pool_counters *from)
{
#define MOVE(field) atomic_fetch_add(&to->field, atomic_exchange(&from->field, 0))
	MOVE(puts);
	MOVE(refused_limit);
	MOVE(refused_memory);
	MOVE(refused_headroom);
	MOVE(gets);
	MOVE(misses);
	MOVE(io_errors);
	MOVE(flushes);
	MOVE(evictions);
#undef MOVE
}

/*
 * The pool is dead and the last op has left it: from here on its pages drain
 * and are nobody's.  tenant->lock held; the pool may be gone when this returns.
 */
static void pool_settle(struct tmem_pool *pool)
{
	struct tmem_tenant *tenant = pool->tenant;
	struct tmem_store *store = tenant->store;
	uint64_t pages;

	pthread_mutex_lock(&pool->arena->lock);
	pool->settled = true;
	pages = atomic_load(&pool->count.pages);
	atomic_fetch_sub(pool->arena->persistent ? &tenant->persistent_raw :
						   &tenant->ephemeral_raw,
			 pages * pool->page_size);
	atomic_fetch_add(&store->draining_pages, pages);
	pthread_mutex_unlock(&pool->arena->lock);
	counters_move(&tenant->past, &pool->count);
	pthread_mutex_lock(&store->lock);
	list_add_tail(&store->dead, &pool->link);
	pthread_mutex_unlock(&store->lock);
}

void pool_put(struct tmem_pool *pool)
{
	struct tmem_tenant *tenant = pool->tenant;

	pthread_mutex_lock(&tenant->lock);
	if (--pool->refs == 0) {
		tenant->ending--;
		pool_settle(pool);
	}
	pthread_mutex_unlock(&tenant->lock);
}

/* tenant->lock held. */
static void pool_end(struct tmem_tenant *tenant, uint32_t id)
{
	struct tmem_pool *pool = tenant->pool[id];

	tenant->pool[id] = NULL;
	atomic_store(&pool->dead, true);
	/* Statistics do not find it any more, though ops may still use it. */
	counters_move(&tenant->past, &pool->count);
	if (--pool->refs == 0)
		pool_settle(pool);
	else
		tenant->ending++;
}

int tmem_pool_destroy(struct tmem_tenant *tenant, uint32_t id)
{
	int error = -ENOENT;

	if (id >= TMEM_MAX_POOLS)
		return -ENOENT;
	pthread_mutex_lock(&tenant->lock);
	if (tenant->pool[id]) {
		pool_end(tenant, id);
		error = 0;
	}
	pthread_mutex_unlock(&tenant->lock);
	return error;
}

void tmem_tenant_reset(struct tmem_tenant *tenant)
{
	pthread_mutex_lock(&tenant->lock);
	for (uint32_t id = 0; id < TMEM_MAX_POOLS; id++)
		if (tenant->pool[id])
			pool_end(tenant, id);
	pthread_mutex_unlock(&tenant->lock);
}

int tmem_pool_query(struct tmem_tenant *tenant, uint32_t id,
		    struct tmem_pool_params *params)
{
	struct tmem_pool *pool = pool_get(tenant, id);

	if (!pool)
		return -ENOENT;
	*params = pool->params;
	pool_put(pool);
	return 0;
}

/* ------------------------------------------------------------- background */

/* tenants_lock held: no tenant goes while a pool of its drains. */
static unsigned int drain_locked(struct tmem_store *store, unsigned int max)
{
	unsigned int done = 0;

	while (done < max) {
		struct tmem_pool *pool = NULL;
		unsigned int visited;

		/* Off the list while it is drained: one drainer a pool. */
		pthread_mutex_lock(&store->lock);
		if (!list_empty(&store->dead)) {
			pool = container_of(store->dead.next, struct tmem_pool,
					    link);
			list_del(&pool->link);
		}
		pthread_mutex_unlock(&store->lock);
		if (!pool)
			break;
		visited = pool_drain(pool, max - done);
		done += visited + 1;
		if (done <= max) {
			pool_free(pool);
			continue;
		}
		pthread_mutex_lock(&store->lock);
		list_add_tail(&store->dead, &pool->link);
		pthread_mutex_unlock(&store->lock);
	}
	return done;
}

unsigned int store_drain(struct tmem_store *store, unsigned int max)
{
	unsigned int done;

	pthread_rwlock_rdlock(&store->tenants_lock);
	done = drain_locked(store, max);
	pthread_rwlock_unlock(&store->tenants_lock);
	return done;
}

/* Call @work for every tenant until @max is used up. */
static unsigned int each_tenant(struct tmem_store *store, unsigned int max,
				unsigned int (*work)(struct tmem_tenant *t,
						     unsigned int max))
{
	unsigned int done = 0;

	pthread_rwlock_rdlock(&store->tenants_lock);
	for (struct list *l = store->tenants.next;
	     l != &store->tenants && done < max; l = l->next)
		done += work(container_of(l, struct tmem_tenant, link),
			     max - done);
	pthread_rwlock_unlock(&store->tenants_lock);
	return done;
}

/* The first pool at or after @*id with something to clean, or NULL. */
static struct tmem_pool *pool_get_dirty(struct tmem_tenant *tenant,
					uint32_t *id)
{
	struct tmem_pool *pool = NULL;

	pthread_mutex_lock(&tenant->lock);
	for (; *id < TMEM_MAX_POOLS && !pool; ++*id)
		if (tenant->pool[*id] &&
		    atomic_load(&tenant->pool[*id]->dirty))
			pool = tenant->pool[*id];
	if (pool)
		pool->refs++;
	pthread_mutex_unlock(&tenant->lock);
	return pool;
}

static unsigned int tenant_clean(struct tmem_tenant *tenant, unsigned int max)
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

static unsigned int tenant_compact(struct tmem_tenant *tenant, unsigned int max)
{
	unsigned int done = arena_compact(&tenant->persistent, max);

	if (done < max)
		done += arena_compact(&tenant->ephemeral, max - done);
	return done;
}

static unsigned int tenant_punch(struct tmem_tenant *tenant, unsigned int max)
{
	unsigned int done = arena_punch(&tenant->persistent, max, false);

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
	static unsigned int (*const work[])(struct tmem_tenant *t,
					    unsigned int max) = {
		tenant_clean,
		tenant_compact,
		tenant_punch,
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

unsigned int tmem_step(struct tmem_store *store, unsigned int pages)
{
	/* Half for what has ended, if there is anything else to do. */
	unsigned int done = store_drain(store, pages / 2);

	if (done < pages)
		done += step_tenants(store, pages - done);
	if (done < pages)
		done += store_drain(store, pages - done);
	return done;
}

static unsigned int tenant_release(struct tmem_tenant *tenant, unsigned int max)
{
	return arena_punch(&tenant->persistent, max, true) +
	       arena_punch(&tenant->ephemeral, max, true);
}

static unsigned int tenant_evict(struct tmem_tenant *tenant, unsigned int max)
{
	return arena_evict(&tenant->ephemeral, (uint64_t)max * ARENA_PAGE) /
	       ARENA_PAGE;
}

uint64_t tmem_shrink(struct tmem_store *store, uint64_t bytes)
{
	unsigned int pages = MIN(bytes / ARENA_PAGE + 1, UINT32_MAX / 2);
	unsigned int done = 0;

	store_drain(store, pages);
	done = each_tenant(store, pages, tenant_release);
	while (done < pages && each_tenant(store, pages - done, tenant_evict))
		done += each_tenant(store, UINT32_MAX / 2, tenant_release);
	each_tenant(store, pages, tenant_clean);
	return (uint64_t)done * ARENA_PAGE;
}
