/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The request server: the device, its configuration and its queues.
 * request.c has the requests.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "internal.h"

#define DEFAULT_POOLS	   16
#define DEFAULT_PAGES	   64
#define DEFAULT_SEGS	   130
#define DEFAULT_GENERATION 1
/* Request, response, one page. */
#define MIN_SEGS 3

#define FEATURE(name) (1ull << VIRTIO_TMEM_F_##name)
#define SERVER_FEATURES                                                        \
	(FEATURE(PERSISTENT) | FEATURE(EPHEMERAL) | FEATURE(EVENTS))
/* From here on bits belong to the transport and the ring. */
#define DEVICE_FEATURES ((1ull << 24) - 1)

static int config_complete(struct tmem_server_config *config)
{
	if (!config->max_pools)
		config->max_pools = DEFAULT_POOLS;
	if (!config->max_pages)
		config->max_pages = DEFAULT_PAGES;
	if (!config->max_segs)
		config->max_segs = DEFAULT_SEGS;
	if (!config->generation)
		config->generation = DEFAULT_GENERATION;
	config->features &= SERVER_FEATURES;
	if (!config->store || !config->tenant || !config->num_bulk ||
	    config->max_pools > TMEM_MAX_POOLS ||
	    config->max_pages > TMEM_MAX_RUN || config->max_segs < MIN_SEGS)
		return -EINVAL;
	return 0;
}

int tmem_server_create(const struct tmem_server_config *config,
		       struct tmem_server **server)
{
	struct tmem_server *s = calloc(1, sizeof(*s));
	int error;

	if (!s)
		return -ENOMEM;
	s->config = *config;
	error = config_complete(&s->config);
	if (!error)
		error = -pthread_mutex_init(&s->lock, NULL);
	if (error) {
		free(s);
		return error;
	}
	tmem_server_new_generation(s, s->config.generation);
	tmem_server_get_config(s, &s->announced);
	*server = s;
	return 0;
}

void tmem_server_destroy(struct tmem_server *server)
{
	if (!server)
		return;
	pthread_mutex_destroy(&server->lock);
	free(server);
}

uint64_t tmem_server_features(const struct tmem_server *server)
{
	return server->config.features;
}

int tmem_server_set_features(struct tmem_server *server, uint64_t features)
{
	features &= DEVICE_FEATURES;
	if (features & ~server->config.features)
		return -EINVAL;
	server->features = features;
	return 0;
}

/* --------------------------------------------------- configuration space */

static uint32_t page_sizes(void)
{
	return (2u << VIRTIO_TMEM_PAGE_SHIFT_MAX) -
	       (1u << VIRTIO_TMEM_PAGE_SHIFT_MIN);
}

void tmem_server_get_config(struct tmem_server *server,
			    struct virtio_tmem_config *config)
{
	const struct tmem_server_config *c = &server->config;
	struct tmem_limits limits = { .size = sizeof(limits) };

	tmem_tenant_get_limits(c->tenant, &limits);
	if (limits.ephemeral_max == TMEM_KEEP_NOTHING)
		limits.ephemeral_max = 0; /* none is kept */
	*config = (struct virtio_tmem_config){
		.generation = htole32(tmem_server_generation(server)),
		.pressure = htole32(tmem_tenant_pressure(c->tenant)),
		.num_fast = htole16(c->num_fast),
		.num_bulk = htole16(c->num_bulk),
		.max_pools = htole32(c->max_pools),
		.max_pages = htole32(c->max_pages),
		.max_segs = htole32(c->max_segs),
		.page_sizes = htole32(page_sizes()),
		.persistent_reserved = htole64(limits.persistent_reserved),
		.persistent_max = htole64(limits.persistent_max),
		.ephemeral_max = htole64(limits.ephemeral_max),
	};
}

bool tmem_server_config_changed(struct tmem_server *server)
{
	struct virtio_tmem_config now;
	bool changed;

	/* Without padding (its layout is asserted), hence memcmp(). */
	tmem_server_get_config(server, &now);
	pthread_mutex_lock(&server->lock);
	changed = memcmp(&now, &server->announced, sizeof(now)) != 0;
	server->announced = now;
	pthread_mutex_unlock(&server->lock);
	return changed;
}

void tmem_server_system_reset(struct tmem_server *server)
{
	/* In this order for who goes on after we were killed in between. */
	tmem_server_new_generation(server, tmem_server_generation(server) + 1);
	tmem_tenant_reset(server->config.tenant);
}

void tmem_server_new_generation(struct tmem_server *server, uint32_t generation)
{
	atomic_store(&server->generation, generation);
	/* Who goes on with the tenant goes on with its generation. */
	tmem_tenant_set_cookie(server->config.tenant, generation);
}

uint32_t tmem_server_generation(const struct tmem_server *server)
{
	return atomic_load(&server->generation);
}

/* ----------------------------------------------------------------- queues */

int tmem_server_queue_create(struct tmem_server *server, unsigned int index,
			     struct tmem_server_queue **queue)
{
	const struct tmem_server_config *c = &server->config;
	struct tmem_server_queue *q;
	int error;

	if (index >= (unsigned int)c->num_fast + c->num_bulk)
		return -EINVAL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->server = server;
	q->fast = index < c->num_fast;
	q->spare = page_array_new(server);
	error = q->spare ? tmem_ctx_create(c->store, &q->ctx) : -ENOMEM;
	if (error) {
		free(q->spare);
		free(q);
		return error;
	}
	pthread_mutex_lock(&server->lock);
	q->next = server->queues;
	if (q->next)
		q->next->prev = q;
	server->queues = q;
	pthread_mutex_unlock(&server->lock);
	*queue = q;
	return 0;
}

static void counters_sum(struct counters *from, struct counters *to)
{
	for (unsigned int i = 0; i < SERVER_OPS; i++) {
		counter_add(&to->requests[i], counter_read(&from->requests[i]));
		counter_add(&to->pages[i], counter_read(&from->pages[i]));
	}
	counter_add(&to->bad_requests, counter_read(&from->bad_requests));
	counter_add(&to->bad_chains, counter_read(&from->bad_chains));
}

void tmem_server_queue_watch_memory(struct tmem_server_queue *queue,
				    const volatile bool *lost)
{
	queue->memory_lost = lost;
}

void tmem_server_queue_destroy(struct tmem_server_queue *queue)
{
	struct tmem_server *server;
	struct page_array *array;

	if (!queue)
		return;
	server = queue->server;
	pthread_mutex_lock(&server->lock);
	counters_sum(&queue->counters, &server->gone);
	if (queue->next)
		queue->next->prev = queue->prev;
	if (queue->prev)
		queue->prev->next = queue->next;
	else
		server->queues = queue->next;
	pthread_mutex_unlock(&server->lock);
	tmem_ctx_destroy(queue->ctx);
	while ((array = queue->spare)) {
		queue->spare = array->next;
		free(array);
	}
	free(queue);
}

unsigned int tmem_server_poll(struct tmem_server_queue *queue)
{
	return tmem_poll(queue->ctx);
}

int tmem_server_queue_fd(struct tmem_server_queue *queue)
{
	return tmem_ctx_fd(queue->ctx);
}

void tmem_server_stats(struct tmem_server *server,
		       struct tmem_server_stats *stats)
{
	struct counters sum = { 0 };

	pthread_mutex_lock(&server->lock);
	counters_sum(&server->gone, &sum);
	for (struct tmem_server_queue *q = server->queues; q; q = q->next)
		counters_sum(&q->counters, &sum);
	pthread_mutex_unlock(&server->lock);
	for (unsigned int i = 0; i < SERVER_OPS; i++) {
		stats->requests[i] = counter_read(&sum.requests[i]);
		stats->pages[i] = counter_read(&sum.pages[i]);
	}
	stats->bad_requests = counter_read(&sum.bad_requests);
	stats->bad_chains = counter_read(&sum.bad_chains);
}

/* -------------------------------------------------------------- migration */

unsigned int tmem_server_list_pools(struct tmem_server *server,
				    struct tmem_server_pool *pools,
				    unsigned int max)
{
	const struct tmem_server_config *c = &server->config;
	struct tmem_pool_params params;
	unsigned int num = 0;

	for (uint32_t id = 0; id < c->max_pools; id++) {
		if (tmem_pool_query(c->tenant, id, &params))
			continue;
		if (num < max)
			pools[num] = (struct tmem_server_pool){
				.id = id,
				.flags = params.flags & TMEM_POOL_PERSISTENT
						 ? VIRTIO_TMEM_POOL_PERSISTENT
						 : 0,
				.page_shift = params.page_shift,
			};
		num++;
	}
	return num;
}

static int restore_pool(struct tmem_server *server,
			const struct tmem_server_pool *pool)
{
	struct tmem_pool_params params = { .page_shift = pool->page_shift };
	int error;

	if (pool->id >= server->config.max_pools ||
	    pool->flags & ~(uint32_t)VIRTIO_TMEM_POOL_PERSISTENT ||
	    pool->page_shift < VIRTIO_TMEM_PAGE_SHIFT_MIN ||
	    pool->page_shift > VIRTIO_TMEM_PAGE_SHIFT_MAX)
		return -EINVAL;
	if (pool->flags & VIRTIO_TMEM_POOL_PERSISTENT)
		params.flags = TMEM_POOL_PERSISTENT;
	error = tmem_pool_create(server->config.tenant, pool->id, &params,
				 NULL);
	return error == -EEXIST ? -EINVAL : error;
}

int tmem_server_restore_pools(struct tmem_server *server,
			      const struct tmem_server_pool *pools,
			      unsigned int num)
{
	int error = 0;

	for (unsigned int i = 0; i < num && !error; i++)
		error = restore_pool(server, &pools[i]);
	return error;
}
