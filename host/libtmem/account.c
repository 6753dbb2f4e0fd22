/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Whose raw bytes are promised: a tenant's reservation, of which its pools may
 * have parts to themselves; and what else the host says of a pool
 *
 * A persistent pool's first @reserved bytes count against its own part, the
 * rest against what the tenant's pools share.  Which of them a page is counted
 * by is not noted anywhere: it follows from the pool's sum, whose every change
 * says by how much the sum beyond the pool's own part has changed.
 *
 * Where pools have parts, claim_lock orders all changes of these sums and of
 * the parts.  Where none has, shared_raw is all that counts, and no lock is
 * needed.  tmem_pool_set_limits() goes from one to the other while nobody
 * changes anything.
 */
#include "internal.h"

/* ------------------------------------------------------------------ bytes */

static uint64_t beyond(const struct tmem_pool *pool, uint64_t raw)
{
	return raw - MIN(raw, atomic_load(&pool->reserved));
}

uint64_t raw_beyond(const struct tmem_pool *pool)
{
	return pool->arena->persistent ? beyond(pool, atomic_load(&pool->raw))
				       : 0;
}

static atomic_uint_fast64_t *tenant_raw(const struct tmem_pool *pool)
{
	return pool->arena->persistent ? &pool->tenant->persistent_raw
				       : &pool->tenant->ephemeral_raw;
}

/* @bytes may be less than 0, as one of these types says it. */
static void raw_change(struct tmem_pool *pool, uint64_t bytes)
{
	uint64_t old = atomic_fetch_add(&pool->raw, bytes);

	atomic_fetch_add(tenant_raw(pool), bytes);
	if (pool->arena->persistent)
		atomic_fetch_add(&pool->tenant->shared_raw,
				 beyond(pool, old + bytes) - beyond(pool, old));
}

static void raw_change_locked(struct tmem_pool *pool, uint64_t bytes)
{
	struct tmem_tenant *tenant = pool->tenant;
	bool parts =
		pool->arena->persistent && atomic_load(&tenant->pools_limited);

	if (!bytes)
		return;
	if (parts)
		pthread_mutex_lock(&tenant->claim_lock);
	raw_change(pool, bytes);
	if (parts)
		pthread_mutex_unlock(&tenant->claim_lock);
}

void raw_add(struct tmem_pool *pool, uint64_t bytes)
{
	raw_change_locked(pool, bytes);
}

void raw_sub(struct tmem_pool *pool, uint64_t bytes)
{
	raw_change_locked(pool, -bytes);
}

/* Of what the pools share.  No two claims get the same bytes. */
static bool shared_claim(struct tmem_tenant *tenant, uint64_t bytes)
{
	uint64_t raw = atomic_load(&tenant->shared_raw);

	do {
		if (raw + bytes > atomic_load(&tenant->shared))
			return false;
	} while (bytes && !atomic_compare_exchange_weak(&tenant->shared_raw,
							&raw, raw + bytes));
	return true;
}

/* Some pool has a part to itself.  claim_lock held. */
static bool raw_claim_own(struct tmem_pool *pool, uint32_t bytes)
{
	uint64_t old = atomic_load(&pool->raw);
	uint64_t more = beyond(pool, old + bytes) - beyond(pool, old);

	/* In place of another: is that one within a promise? */
	if ((more || (!bytes && beyond(pool, old))) &&
	    !shared_claim(pool->tenant, more))
		return false;
	atomic_fetch_add(&pool->raw, bytes);
	atomic_fetch_add(tenant_raw(pool), bytes);
	return true;
}

bool raw_claim(struct tmem_pool *pool, uint32_t bytes)
{
	struct tmem_tenant *tenant = pool->tenant;
	bool claimed;

	if (atomic_load(&tenant->pools_limited)) {
		pthread_mutex_lock(&tenant->claim_lock);
		claimed = raw_claim_own(pool, bytes);
		pthread_mutex_unlock(&tenant->claim_lock);
		return claimed;
	}
	if (!shared_claim(tenant, bytes))
		return false;
	atomic_fetch_add(&pool->raw, bytes);
	atomic_fetch_add(tenant_raw(pool), bytes);
	return true;
}

bool raw_left(struct tmem_pool *pool)
{
	struct tmem_tenant *tenant = pool->tenant;

	return pool->arena->persistent &&
	       (atomic_load(&pool->raw) < atomic_load(&pool->reserved) ||
		atomic_load(&tenant->shared_raw) <
			atomic_load(&tenant->shared));
}

uint64_t raw_promised(const struct tmem_tenant *tenant)
{
	uint64_t shared = atomic_load(&tenant->shared_raw),
		 all = atomic_load(&tenant->persistent_raw);
	uint64_t own = all - MIN(all, shared);

	return tenant->pools_reserved - MIN(tenant->pools_reserved, own);
}

uint64_t raw_unpromised(const struct tmem_tenant *tenant)
{
	uint64_t raw = atomic_load(&tenant->shared_raw);

	return raw - MIN(raw, atomic_load(&tenant->shared));
}

/* ----------------------------------------------------------------- weight */

void pools_weigh(struct tmem_tenant *tenant)
{
	uint64_t stored = 0, weight = 0;

	if (!atomic_load(&tenant->pools_limited))
		return;
	pthread_mutex_lock(&tenant->lock);
	for (uint32_t id = 0; id < TMEM_MAX_POOLS; id++) {
		struct tmem_pool *pool = tenant->pool[id];

		if (!pool || pool->arena->persistent ||
		    !atomic_load(&pool->count.stored_bytes))
			continue;
		stored += atomic_load(&pool->count.stored_bytes);
		weight += atomic_load(&pool->weight);
	}
	pthread_mutex_unlock(&tenant->lock);
	atomic_store(&tenant->pools_stored, stored);
	atomic_store(&tenant->pools_weight, weight);
}

bool pool_below_share(const struct tmem_pool *pool)
{
	const struct tmem_tenant *tenant = pool->tenant;
	uint64_t all = atomic_load(&tenant->pools_weight), share;

	if (!atomic_load(&tenant->pools_limited) || !all)
		return false;
	/* 2^38 bytes at most, and 2^14 of weight. */
	share = atomic_load(&tenant->pools_stored) *
		atomic_load(&pool->weight) / all;
	/* Who is about there takes turns with the others: less is copied. */
	return atomic_load(&pool->count.stored_bytes) < share - share / 32;
}

/* ----------------------------------------------------------------- limits */

static struct tmem_pool_limits limits_of(const struct tmem_tenant *tenant,
					 uint32_t id)
{
	struct tmem_pool_limits none = { 0 };

	return tenant->pool_limits ? tenant->pool_limits[id] : none;
}

/* The pool's own part, and what is beyond it.  claim_lock held. */
static void reserved_set(struct tmem_pool *pool, uint64_t reserved)
{
	uint64_t raw = atomic_load(&pool->raw), before = beyond(pool, raw);

	atomic_store(&pool->reserved, reserved);
	atomic_fetch_add(&pool->tenant->shared_raw, beyond(pool, raw) - before);
}

void pool_reserve(struct tmem_tenant *tenant, uint32_t id)
{
	struct tmem_pool *pool = tenant->pool[id];
	uint64_t own = limits_of(tenant, id).reserved;

	if (!pool || !pool->arena->persistent ||
	    !atomic_load(&tenant->pools_limited))
		return;
	for (struct list *l = tenant->ending.next; l != &tenant->ending;
	     l = l->next) {
		const struct tmem_pool *other =
			container_of(l, struct tmem_pool, link);

		if (other->id == id)
			own -= MIN(own, atomic_load(&other->reserved));
	}
	pthread_mutex_lock(&tenant->claim_lock);
	reserved_set(pool, own);
	pthread_mutex_unlock(&tenant->claim_lock);
}

void pool_keep_no_more(struct tmem_pool *pool)
{
	struct tmem_tenant *tenant = pool->tenant;

	if (!pool->arena->persistent || !atomic_load(&tenant->pools_limited))
		return;
	pthread_mutex_lock(&tenant->claim_lock);
	reserved_set(pool, MIN(atomic_load(&pool->raw),
			       atomic_load(&pool->reserved)));
	pthread_mutex_unlock(&tenant->claim_lock);
}

void pool_limits_resolve(struct tmem_tenant *tenant, uint32_t id)
{
	struct tmem_pool_limits limits = limits_of(tenant, id);
	struct tmem_pool *pool = tenant->pool[id];

	atomic_store(&pool->max, !limits.max_bytes ? UINT64_MAX
				 : limits.max_bytes == TMEM_KEEP_NOTHING
					 ? 0
					 : limits.max_bytes);
	atomic_store(&pool->weight,
		     limits.weight ? limits.weight : TMEM_DEFAULT_WEIGHT);
	pool_reserve(tenant, id);
}

/* Nothing is put or removed meanwhile.  tenant->lock held. */
static int limits_change(struct tmem_tenant *tenant, uint32_t id,
			 const struct tmem_pool_limits *limits)
{
	struct tmem_store *store = tenant->store;
	uint64_t sum =
		tenant->pools_reserved - tenant->pool_limits[id].reserved;
	int error = 0;

	pthread_mutex_lock(&store->lock);
	if (limits->reserved > tenant->reserved ||
	    sum > tenant->reserved - limits->reserved) {
		error = -ENOSPC;
	} else {
		tenant->pools_reserved = sum + limits->reserved;
		atomic_store(&tenant->shared,
			     tenant->reserved - tenant->pools_reserved);
	}
	pthread_mutex_unlock(&store->lock);
	if (error)
		return error;
	tenant->pool_limits[id] = *limits;
	atomic_store(&tenant->pools_limited, true);
	if (tenant->pool[id])
		pool_limits_resolve(tenant, id);
	return 0;
}

/* What is beyond a lower limit goes: ephemeral pages. */
static void limits_enforce(struct tmem_tenant *tenant, uint32_t id)
{
	struct tmem_pool *pool = pool_get(tenant, id);

	if (!pool)
		return;
	if (!pool->arena->persistent)
		clock_trim(pool);
	pool_put(pool);
	tenant_give_back(tenant);
}

int tmem_pool_set_limits(struct tmem_tenant *tenant, uint32_t id,
			 const struct tmem_pool_limits *limits)
{
	struct tmem_pool_limits *fresh, own;
	struct tmem_store *store;
	int error = 0;

	CHECK_TENANT(tenant);
	if (id >= TMEM_MAX_POOLS || SIZED_LIMITS_IN(&own, limits) ||
	    own.reserved > TMEM_MAX_RESERVED || own.weight > TMEM_MAX_WEIGHT)
		return -EINVAL;
	store = tenant->store;
	fresh = store_zalloc(store, POOL_LIMITS_BYTES);
	/*
	 * No page comes or goes until they are counted anew: a persistent
	 * pool's do in ops alone, and with all others where it ends, under
	 * tenant->lock.  Ops wait, so they must not wait for who packs or
	 * evicts: tenants_lock is not taken.
	 */
	pthread_rwlock_wrlock(&store->quiesce);
	pthread_mutex_lock(&tenant->lock);
	if (!tenant->pool_limits) {
		tenant->pool_limits = fresh;
		fresh = NULL;
	}
	error = tenant->pool_limits ? limits_change(tenant, id, &own) : -ENOMEM;
	pthread_mutex_unlock(&tenant->lock);
	pthread_rwlock_unlock(&store->quiesce);
	store_free(store, fresh);
	if (!error)
		limits_enforce(tenant, id);
	return error;
}

int tmem_pool_get_limits(struct tmem_tenant *tenant, uint32_t id,
			 struct tmem_pool_limits *limits)
{
	struct tmem_pool_limits own;

	CHECK_TENANT(tenant);
	if (id >= TMEM_MAX_POOLS || !SIZED_VALID(limits, reserved1))
		return -EINVAL;
	pthread_mutex_lock(&tenant->lock);
	own = limits_of(tenant, id);
	pthread_mutex_unlock(&tenant->lock);
	if (!own.weight)
		own.weight = TMEM_DEFAULT_WEIGHT;
	SIZED_OUT(limits, &own);
	return 0;
}
