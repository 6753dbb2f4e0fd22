/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The server's structures
 *
 * Lock order: server->lock is the only lock, it is held for a few loads and
 * stores, never while the library is called or guest memory is touched.
 */
#ifndef TMEM_SERVER_INTERNAL_H
#define TMEM_SERVER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "tmem-server.h"

#define SERVER_OPS 16 /* elements of the counters' arrays */

struct counters {
	_Atomic uint64_t requests[SERVER_OPS];
	_Atomic uint64_t pages[SERVER_OPS];
	_Atomic uint64_t bad_requests;
	_Atomic uint64_t bad_chains;
};

struct tmem_server {
	struct tmem_server_config config; /* constant, defaults filled in */
	/* What the driver accepted; constant while requests run. */
	uint64_t features;
	_Atomic uint32_t generation;

	pthread_mutex_t lock;
	struct tmem_server_queue *queues; /* by lock */
	struct counters gone;		  /* of queues that are no more */
	/* What the driver was last told to look at; by lock. */
	struct virtio_tmem_config announced;
};

/*
 * For what became of the pages of a run: memory that the guest cannot reach.
 * max_pages elements.
 */
struct page_array {
	struct page_array *next;
	struct tmem_page page[];
};

static inline struct page_array *
page_array_new(const struct tmem_server *server)
{
	return calloc(1, sizeof(struct page_array) +
				 server->config.max_pages *
					 sizeof(struct tmem_page));
}

/*
 * Everything but the list's links is used by the queue's thread alone; the
 * counters are atomic because tmem_server_stats() reads them from others.
 */
struct tmem_server_queue {
	struct tmem_server *server;
	struct tmem_ctx *ctx;
	bool fast;
	/*
	 * Arrays that no request has.  One is there from the beginning, others
	 * are made when requests overlap, none is freed before the queue is.
	 */
	struct page_array *spare;
	struct counters counters;
	const volatile bool *memory_lost;      /* NULL, or the transport's */
	struct tmem_server_queue *prev, *next; /* by server->lock */
};

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline uint64_t counter_read(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif /* TMEM_SERVER_INTERNAL_H */
