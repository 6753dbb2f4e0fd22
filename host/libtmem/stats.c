/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What stores, tenants and pools hold: statistics, and the walk that compares
 * them with what is there
 */
#include <stdio.h>

#include "internal.h"

/* ------------------------------------------------------------------ stats */

static void stats_add(struct tmem_stats *stats, struct pool_counters *count,
		      const struct tmem_pool *pool)
{
	if (pool) {
		uint64_t pages = atomic_load(&count->pages);

		if (pool->arena->persistent) {
			stats->persistent_pages += pages;
			stats->persistent_raw_bytes += pages * pool->page_size;
		} else {
			stats->ephemeral_pages += pages;
			stats->ephemeral_raw_bytes += pages * pool->page_size;
		}
		stats->stored_bytes += atomic_load(&count->stored_bytes);
		stats->same_filled_pages += atomic_load(&count->same_filled);
		stats->raw_pages += atomic_load(&count->raw);
		stats->recompressed_pages += atomic_load(&count->recompressed);
	}
	stats->puts += atomic_load(&count->puts);
	stats->puts_refused_limit += atomic_load(&count->refused_limit);
	stats->puts_refused_memory += atomic_load(&count->refused_memory);
	stats->puts_refused_headroom += atomic_load(&count->refused_headroom);
	stats->gets += atomic_load(&count->gets);
	stats->misses += atomic_load(&count->misses);
	stats->io_errors += atomic_load(&count->io_errors);
	stats->flushes += atomic_load(&count->flushes);
	stats->evictions += atomic_load(&count->evictions);
	stats->refaults += atomic_load(&count->refaults);
}

static void tenant_stats_add(struct tmem_tenant *tenant,
			     struct tmem_stats *stats)
{
	pthread_mutex_lock(&tenant->lock);
	stats_add(stats, &tenant->past, NULL);
	for (uint32_t id = 0; id < TMEM_MAX_POOLS; id++)
		if (tenant->pool[id])
			stats_add(stats, &tenant->pool[id]->count,
				  tenant->pool[id]);
	pthread_mutex_unlock(&tenant->lock);
	stats->held_bytes += tenant_held(tenant);
	stats->reclaimable_bytes += arena_slack(&tenant->persistent) +
				    arena_page_bytes(&tenant->ephemeral);
}

/* Index grows without being noted each time. */
static void stats_peak(struct tmem_stats *stats, struct tmem_store *store)
{
	stats->held_peak_bytes =
		MAX(atomic_load(&store->held_peak), stats->held_bytes);
}

#define STATS_VALID(theirs) SIZED_VALID(theirs, recompress_cpu_ns)

int tmem_tenant_stats(struct tmem_tenant *tenant, struct tmem_stats *stats)
{
	struct tmem_stats own = { 0 };

	CHECK_TENANT(tenant);
	if (!STATS_VALID(stats))
		return -EINVAL;
	tenant_stats_add(tenant, &own);
	stats_peak(&own, tenant->store);
	own.draining_pages = atomic_load(&tenant->store->draining_pages);
	SIZED_OUT(stats, &own);
	return 0;
}

int tmem_store_stats(struct tmem_store *store, struct tmem_stats *stats)
{
	struct tmem_stats own = { 0 };

	CHECK_STORE(store);
	if (!STATS_VALID(stats))
		return -EINVAL;
	pthread_rwlock_rdlock(&store->tenants_lock);
	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next)
		tenant_stats_add(container_of(l, struct tmem_tenant, link),
				 &own);
	pthread_rwlock_unlock(&store->tenants_lock);
	own.held_bytes += sizeof(*store);
	stats_peak(&own, store);
	own.draining_pages = atomic_load(&store->draining_pages);
	own.step_cpu_ns = atomic_load(&store->step_cpu_ns);
	own.recompress_cpu_ns = atomic_load(&store->recompress.cpu_ns);
	SIZED_OUT(stats, &own);
	return 0;
}

int tmem_pool_stats(struct tmem_tenant *tenant, uint32_t id,
		    struct tmem_stats *stats)
{
	struct tmem_stats own = { 0 };
	struct tmem_pool *pool;

	CHECK_TENANT(tenant);
	if (id >= TMEM_MAX_POOLS || !STATS_VALID(stats))
		return -EINVAL;
	pool = pool_get(tenant, id);
	if (!pool)
		return -ENOENT;
	stats_add(&own, &pool->count, pool);
	own.held_bytes = own.stored_bytes;
	own.held_peak_bytes = own.held_bytes;
	pool_put(pool);
	SIZED_OUT(stats, &own);
	return 0;
}

/* ------------------------------------------------------------------ check */

static int tenant_check(struct tmem_tenant *tenant, char *message, size_t size)
{
	uint64_t raw[2] = { 0, 0 }, beyond = 0;
	int error = 0;

	pthread_mutex_lock(&tenant->lock);
	for (uint32_t id = 0; id < TMEM_MAX_POOLS && !error; id++) {
		struct tmem_pool *pool = tenant->pool[id];
		uint64_t bytes;

		if (!pool)
			continue;
		error = index_check(pool, message, size);
		bytes = atomic_load(&pool->count.pages) * pool->page_size;
		raw[pool->arena->persistent] += bytes;
		beyond += raw_beyond(pool);
		if (!error && bytes != atomic_load(&pool->raw))
			error = FAULT("pool %u: raw bytes miscounted", id);
	}
	/* A pool that is about to end still counts. */
	for (struct list *l = tenant->ending.next; l != &tenant->ending;
	     l = l->next) {
		struct tmem_pool *pool =
			container_of(l, struct tmem_pool, link);

		raw[pool->arena->persistent] += atomic_load(&pool->raw);
		beyond += raw_beyond(pool);
	}
	if (!error && (raw[1] != atomic_load(&tenant->persistent_raw) ||
		       raw[0] != atomic_load(&tenant->ephemeral_raw))) {
		snprintf(message, size,
			 "tenant: %ju + %ju raw bytes found, %ju + %ju counted",
			 (uintmax_t)raw[1], (uintmax_t)raw[0],
			 (uintmax_t)atomic_load(&tenant->persistent_raw),
			 (uintmax_t)atomic_load(&tenant->ephemeral_raw));
		error = -EUCLEAN;
	}
	if (!error && beyond != atomic_load(&tenant->shared_raw))
		error = FAULT("tenant: %ju raw bytes beyond its pools' own "
			      "reservations, %ju counted",
			      (uintmax_t)beyond,
			      (uintmax_t)atomic_load(&tenant->shared_raw));
	if (!error)
		error = arena_check(&tenant->persistent, message, size);
	if (!error)
		error = arena_check(&tenant->ephemeral, message, size);
	pthread_mutex_unlock(&tenant->lock);
	return error;
}

int tmem_check(struct tmem_store *store, char *message, size_t size)
{
	int error = 0;

	CHECK_STORE(store);
	if (!message && size)
		return -EINVAL;
	/*
	 * Ops, which may drain while they hold quiesce, then steps and drains
	 * of others, which change structures under tenants_lock alone.  Pools
	 * come and go, and gets pin objects, under the locks of these.
	 */
	pthread_rwlock_wrlock(&store->quiesce);
	pthread_rwlock_wrlock(&store->tenants_lock);
	for (struct list *l = store->tenants.next;
	     l != &store->tenants && !error; l = l->next)
		error = tenant_check(container_of(l, struct tmem_tenant, link),
				     message, size);
	pthread_rwlock_unlock(&store->tenants_lock);
	pthread_rwlock_unlock(&store->quiesce);
	return error;
}
