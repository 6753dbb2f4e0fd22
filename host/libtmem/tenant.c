/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tenants and pools: how they begin, and how they end
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "internal.h"

/* ----------------------------------------------------------------- tenant */

static void tenant_forget(struct tmem_tenant *tenant);

static void holders_close(int holder[TMEM_TENANT_FDS])
{
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++) {
		if (holder[i] >= 0)
			close(holder[i]);
		holder[i] = -1;
	}
}

/*
 * Where there is no /proc, or no locks of that kind, nobody is kept from
 * adopting what another has: -EBUSY, -EMFILE and -ENFILE are all that it fails
 * by.
 */
static int holders_open(const int fd[TMEM_TENANT_FDS],
			int holder[TMEM_TENANT_FDS])
{
	int error = 0;

	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		holder[i] = -1;
	for (unsigned int i = 0; i < TMEM_TENANT_FDS && !error; i++) {
		holder[i] = memfd_hold(fd[i]);
		if (holder[i] == -EBUSY || holder[i] == -EMFILE ||
		    holder[i] == -ENFILE)
			error = holder[i];
	}
	if (error)
		holders_close(holder);
	return error;
}

/* What is this process's of a tenant that is in no list. */
static void tenant_free(struct tmem_tenant *tenant)
{
	arena_destroy(&tenant->persistent);
	arena_destroy(&tenant->ephemeral);
	holders_close(tenant->holder);
	pthread_mutex_destroy(&tenant->lock);
	pthread_mutex_destroy(&tenant->claim_lock);
	store_free(tenant->store, tenant->pool_limits);
	store_free(tenant->store, tenant);
}

/* @fd: of a tenant to adopt, which become its; or NULL. */
static int tenant_new(struct tmem_store *store, const char *name, const int *fd,
		      struct tmem_tenant **out)
{
	struct tmem_tenant *tenant = store_zalloc(store, sizeof(*tenant));
	int error;

	if (!tenant) {
		for (unsigned int i = 0; fd && i < TMEM_TENANT_FDS; i++)
			close(fd[i]);
		return -ENOMEM;
	}
	tenant->store = store;
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		tenant->holder[i] = -1;
	list_init(&tenant->link);
	list_init(&tenant->ending);
	snprintf(tenant->name, sizeof(tenant->name), "%s", name);
	error = arena_init(&tenant->persistent, tenant, true, fd);
	if (error) {
		store_free(store, tenant);
		return error;
	}
	error = arena_init(&tenant->ephemeral, tenant, false, NULL);
	if (error) {
		arena_destroy(&tenant->persistent);
		store_free(store, tenant);
		return error;
	}
	pthread_mutex_init(&tenant->lock, NULL);
	pthread_mutex_init(&tenant->claim_lock, NULL);
	*out = tenant;
	return 0;
}

/* From here on it is one of the store's. */
static int tenant_add(struct tmem_tenant *tenant,
		      const struct tmem_limits *limits)
{
	struct tmem_store *store = tenant->store;
	int error;

	pthread_rwlock_wrlock(&store->tenants_lock);
	pthread_mutex_lock(&store->lock);
	error = limits_apply(tenant, limits);
	if (!error) {
		list_add_tail(&store->tenants, &tenant->link);
		live_add(&tenant->live, LIVE_TENANT, store);
	}
	pthread_mutex_unlock(&store->lock);
	pthread_rwlock_unlock(&store->tenants_lock);
	return error;
}

static void tenant_fds(const struct tmem_tenant *tenant,
		       int fd[TMEM_TENANT_FDS])
{
	fd[0] = tenant->persistent.cells.fd;
	fd[1] = tenant->persistent.fd;
}

int tmem_tenant_open(struct tmem_store *store, const char *name,
		     const struct tmem_limits *limits, struct tmem_tenant **out)
{
	struct tmem_tenant *tenant;
	struct tmem_limits own;
	int fd[TMEM_TENANT_FDS], error;

	CHECK_STORE(store);
	if (!name || !out || SIZED_LIMITS_IN(&own, limits))
		return -EINVAL;
	error = tenant_new(store, name, NULL, &tenant);
	if (error)
		return error;
	tenant_fds(tenant, fd);
	error = holders_open(fd, tenant->holder);
	if (!error)
		error = tenant_add(tenant, &own);
	if (error)
		tenant_free(tenant);
	else
		*out = tenant;
	return error;
}

static int fds_copy(const int fd[TMEM_TENANT_FDS], int own[TMEM_TENANT_FDS])
{
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++) {
		own[i] = fcntl(fd[i], F_DUPFD_CLOEXEC, 0);
		if (own[i] < 0) {
			while (i-- > 0)
				close(own[i]);
			return -EMFILE;
		}
	}
	return 0;
}

int tmem_tenant_adopt(struct tmem_store *store, const char *name,
		      const struct tmem_limits *limits,
		      const int fd[TMEM_TENANT_FDS], struct tmem_tenant **out)
{
	struct tmem_tenant *tenant;
	struct tmem_limits own_limits;
	int own[TMEM_TENANT_FDS], holder[TMEM_TENANT_FDS], error;

	CHECK_STORE(store);
	if (!name || !fd || !out || SIZED_LIMITS_IN(&own_limits, limits) ||
	    !memfd_sealed(fd[0]) || !memfd_sealed(fd[1]) ||
	    memfd_id(fd[0]) == memfd_id(fd[1]))
		return -EINVAL;
	error = holders_open(fd, holder);
	if (error)
		return error;
	error = fds_copy(fd, own);
	if (!error)
		error = tenant_new(store, name, own, &tenant);
	if (error) {
		holders_close(holder);
		return error;
	}
	memcpy(tenant->holder, holder, sizeof(holder));
	error = adopt(tenant);
	if (!error)
		error = tenant_add(tenant, &own_limits);
	if (error) {
		tenant_forget(tenant);
		tenant_free(tenant);
	} else {
		*out = tenant;
	}
	return error;
}

void tmem_tenant_fds(struct tmem_tenant *tenant, int fd[TMEM_TENANT_FDS])
{
	CHECK_TENANT(tenant);
	tenant_fds(tenant, fd);
}

void tmem_tenant_set_cookie(struct tmem_tenant *tenant, uint64_t cookie)
{
	CHECK_TENANT(tenant);
	atomic_store(&cells_root(&tenant->persistent)->cookie, cookie);
}

uint64_t tmem_tenant_cookie(struct tmem_tenant *tenant)
{
	CHECK_TENANT(tenant);
	return atomic_load(&cells_root(&tenant->persistent)->cookie);
}

void tmem_tenant_detach(struct tmem_tenant *tenant)
{
	struct tmem_store *store;

	if (!tenant)
		return;
	CHECK_TENANT(tenant);
	live_remove(&tenant->live);
	store = tenant->store;
	/* As long as this takes nobody has a dead pool of its in hand. */
	pthread_rwlock_wrlock(&store->tenants_lock);
	pthread_mutex_lock(&store->lock);
	list_del(&tenant->link);
	pthread_mutex_unlock(&store->lock);
	tenant_forget(tenant);
	pthread_rwlock_unlock(&store->tenants_lock);
	tenant_free(tenant);
}

/* tenants_lock held for writing: nobody drains, so all dead pools are listed.
 */
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
	CHECK_TENANT(tenant);
	tmem_tenant_reset(tenant);
	live_remove(&tenant->live);
	store = tenant->store;
	while (!drained) {
		/*
		 * Its own pools alone: others' may come as fast as they drain.
		 * Back to the host at once: who remains wants the room.
		 */
		while (tenant_drain(tenant, 4096))
			tenant_give_back(tenant);
		/*
		 * Whoever still has a pool of it in hand is waited for, but
		 * nothing is drained meanwhile, as nobody else gets the lock.
		 */
		pthread_rwlock_wrlock(&store->tenants_lock);
		drained = tenant_drained(tenant);
		pthread_rwlock_unlock(&store->tenants_lock);
	}
	tenant_free(tenant);
	store_trim(store, TRIM_IDLE);
}

void tmem_tenant_freeze(struct tmem_tenant *tenant, bool frozen)
{
	CHECK_TENANT(tenant);
	atomic_store(&tenant->frozen, frozen);
}

bool tmem_tenant_frozen(struct tmem_tenant *tenant)
{
	CHECK_TENANT(tenant);
	return atomic_load(&tenant->frozen);
}

uint64_t tmem_tenant_persistent_raw(struct tmem_tenant *tenant)
{
	CHECK_TENANT(tenant);
	return atomic_load(&tenant->persistent_raw);
}

/* ------------------------------------------------------------------- pool */

_Atomic uint64_t *pool_entry(struct tmem_tenant *tenant, uint32_t id)
{
	return &cells_root(&tenant->persistent)->pool[id];
}

static bool pool_params_valid(const struct tmem_pool_params *params)
{
	return !(params->flags & ~(TMEM_POOL_PERSISTENT | TMEM_POOL_OPAQUE)) &&
	       params->page_shift >= TMEM_PAGE_SHIFT_MIN &&
	       params->page_shift <= TMEM_PAGE_SHIFT_MAX;
}

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
	pool->opaque = params->flags & TMEM_POOL_OPAQUE;
	pool->arena = params->flags & TMEM_POOL_PERSISTENT ? &tenant->persistent
							   : &tenant->ephemeral;
	pool->refs = 1;
	list_init(&pool->link);
	atomic_store(&pool->max, UINT64_MAX);
	atomic_store(&pool->weight, TMEM_DEFAULT_WEIGHT);
	if (pool_index_init(pool)) {
		store_free(tenant->store, pool);
		return -ENOMEM;
	}
	atomic_fetch_add(&tenant->num_pools, 1);
	*out = pool;
	return 0;
}

void pool_free(struct tmem_pool *pool)
{
	struct tmem_store *store = pool->tenant->store;

	pool_index_destroy(pool);
	atomic_fetch_sub(&pool->tenant->num_pools, 1);
	store_free(store, pool);
}

/* The number is taken, for who adopts the tenant, too.  tenant->lock held. */
static void pool_begin(struct tmem_pool *pool)
{
	_Atomic uint64_t *entry = pool_entry(pool->tenant, pool->id);
	uint64_t live = POOL_LIVE | pool->params.page_shift << 8;

	if (pool->params.flags & TMEM_POOL_PERSISTENT)
		live |= POOL_ENTRY_PERSISTENT;
	if (pool->opaque)
		live |= POOL_ENTRY_OPAQUE;
	pool_limits_resolve(pool->tenant, pool->id);
	pool->generation = pool_entry_generation(atomic_load(entry)) + 1;
	atomic_store(entry, (uint64_t)pool->generation << 32 | live);
}

int pool_adopt(struct tmem_tenant *tenant, uint32_t id)
{
	uint64_t entry = atomic_load(pool_entry(tenant, id));
	struct tmem_pool_params params = {
		.flags = (entry & POOL_ENTRY_PERSISTENT ? TMEM_POOL_PERSISTENT
							: 0) |
			 (entry & POOL_ENTRY_OPAQUE ? TMEM_POOL_OPAQUE : 0),
		.page_shift = entry >> 8 & 0xff,
	};
	int error;

	if (!(entry & POOL_LIVE))
		return 0;
	if (!pool_params_valid(&params))
		return -EUCLEAN;
	error = pool_new(tenant, id, &params, &tenant->pool[id]);
	if (!error)
		tenant->pool[id]->generation = pool_entry_generation(entry);
	return error;
}

/*
 * Pools beside those of the table that a tenant may have before it is refused
 * new ones.  Each takes some 6 KiB.
 */
#define MAX_DEAD_POOLS 1024

/* More, with one that is to be made, than its reservation covers? */
static bool pools_are_many(struct tmem_tenant *tenant)
{
	uint64_t pools = atomic_load(&tenant->num_pools) + 1;

	return pools * sizeof(struct tmem_pool) > MAX_POOLS_SHARE;
}

/*
 * A guest that makes and ends pools in a loop frees them itself, or waits for
 * who calls tmem_step().
 */
static int pools_may_grow(struct tmem_tenant *tenant)
{
	int error;

	if (pools_are_many(tenant))
		tenant_drain(tenant, TENANTS_TURN);
	if (atomic_load(&tenant->num_pools) >= TMEM_MAX_POOLS + MAX_DEAD_POOLS)
		return -ENOMEM;
	if (!pools_are_many(tenant))
		return 0;
	/* Beyond what its reservation covers they are in others' way. */
	quiesce_read(tenant->store);
	error = store_may_grow(tenant, GROWS_PERSISTENT_INDEX,
			       sizeof(struct tmem_pool), false);
	quiesce_done(tenant->store);
	return error ? -ENOMEM : 0;
}

/* 0, and @held is set; -EEXIST: it is another.  tenant->lock held. */
static int pool_is(struct tmem_pool *pool,
		   const struct tmem_pool_params *params, uint64_t *held)
{
	if (pool->params.flags != params->flags ||
	    pool->params.page_shift != params->page_shift)
		return -EEXIST;
	if (held)
		*held = atomic_load(&pool->count.pages);
	return 0;
}

int tmem_pool_create(struct tmem_tenant *tenant, uint32_t id,
		     const struct tmem_pool_params *params, uint64_t *held)
{
	struct tmem_pool *pool, *fresh;
	int error;

	CHECK_TENANT(tenant);
	if (id >= TMEM_MAX_POOLS || !params || !pool_params_valid(params))
		return -EINVAL;
	/* What is there needs no room. */
	pthread_mutex_lock(&tenant->lock);
	pool = tenant->pool[id];
	if (pool)
		error = pool_is(pool, params, held);
	pthread_mutex_unlock(&tenant->lock);
	if (pool)
		return error;

	error = pools_may_grow(tenant);
	if (!error)
		error = pool_new(tenant, id, params, &fresh);
	if (error)
		return error;
	pthread_mutex_lock(&tenant->lock);
	pool = tenant->pool[id];
	if (!pool) {
		pool = tenant->pool[id] = fresh;
		pool_begin(pool);
	}
	error = pool_is(pool, params, held);
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
#define MOVE(field)                                                            \
	atomic_fetch_add(&to->field, atomic_exchange(&from->field, 0))
	MOVE(puts);
	MOVE(refused_limit);
	MOVE(refused_memory);
	MOVE(refused_headroom);
	MOVE(gets);
	MOVE(misses);
	MOVE(io_errors);
	MOVE(flushes);
	MOVE(evictions);
	MOVE(refaults);
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
	raw_sub(pool, pages * pool->page_size);
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
		uint32_t id = pool->id;

		list_del(&pool->link);
		pool_settle(pool);
		/* What it had to itself is the new one's. */
		pool_reserve(tenant, id);
	}
	pthread_mutex_unlock(&tenant->lock);
}

/* tenant->lock held. */
static void pool_end(struct tmem_tenant *tenant, uint32_t id)
{
	struct tmem_pool *pool = tenant->pool[id];

	tenant->pool[id] = NULL;
	atomic_store(pool_entry(tenant, id), (uint64_t)pool->generation << 32);
	atomic_store(&pool->dead, true);
	/* Statistics do not find it any more, though ops may still use it. */
	counters_move(&tenant->past, &pool->count);
	if (--pool->refs == 0) {
		pool_settle(pool);
		return;
	}
	/* A new pool of the number does not get the same once more. */
	pool_keep_no_more(pool);
	list_add_tail(&tenant->ending, &pool->link);
}

int tmem_pool_destroy(struct tmem_tenant *tenant, uint32_t id)
{
	int error = -ENOENT;

	CHECK_TENANT(tenant);
	if (id >= TMEM_MAX_POOLS)
		return -EINVAL;
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
	CHECK_TENANT(tenant);
	pthread_mutex_lock(&tenant->lock);
	for (uint32_t id = 0; id < TMEM_MAX_POOLS; id++)
		if (tenant->pool[id])
			pool_end(tenant, id);
	pthread_mutex_unlock(&tenant->lock);
}

int tmem_pool_query(struct tmem_tenant *tenant, uint32_t id,
		    struct tmem_pool_params *params)
{
	struct tmem_pool *pool;

	CHECK_TENANT(tenant);
	if (id >= TMEM_MAX_POOLS || !params)
		return -EINVAL;
	pool = pool_get(tenant, id);
	if (!pool)
		return -ENOENT;
	*params = pool->params;
	pool_put(pool);
	return 0;
}

/* Pools that have ended and are not drained: of the store's list to @dead. */
static void take_dead(struct tmem_tenant *tenant, struct list *dead)
{
	struct tmem_store *store = tenant->store;
	struct list *next;

	pthread_mutex_lock(&store->lock);
	for (struct list *l = store->dead.next; l != &store->dead; l = next) {
		next = l->next;
		if (container_of(l, struct tmem_pool, link)->tenant != tenant)
			continue;
		list_del(l);
		list_add_tail(dead, l);
	}
	pthread_mutex_unlock(&store->lock);
}

/*
 * Free what is this process's of pools, and leave what is in the memfds.  The
 * tenant is in no list, and no op of its runs.
 */
static void tenant_forget(struct tmem_tenant *tenant)
{
	struct list *next, dead;

	for (uint32_t id = 0; id < TMEM_MAX_POOLS; id++) {
		if (!tenant->pool[id])
			continue;
		pool_index_forget(tenant->pool[id]);
		pool_free(tenant->pool[id]);
	}
	list_init(&dead);
	take_dead(tenant, &dead);
	for (struct list *l = dead.next; l != &dead; l = next) {
		struct tmem_pool *pool =
			container_of(l, struct tmem_pool, link);

		next = l->next;
		pool_index_forget(pool);
		pool_free(pool);
	}
}
