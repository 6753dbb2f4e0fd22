/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What recompression of unused pages saves, what it takes, and what a get of
 * such a page takes then
 */
#include <string.h>
#include <unistd.h>

#include "sides.h"

#define PAGES 16384u
#define GETS  8192u

struct recompress {
	struct corpus *corpus;
	uint32_t pages;
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct worker worker;
	char *evict;
	uint64_t random;
};

static struct tmem_store *store_open_recompressing(void)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = NO_LIMIT,
		.recompress_percent = 100,
		.recompress_after_s = 1,
	};
	struct tmem_store *store;

	if (tmem_store_create(&config, &store))
		die("cannot make a store");
	return store;
}

/* CPU microseconds of a get, at random and cold. */
static double get_us(struct recompress *r)
{
	double start;

	evict_caches(r->evict);
	start = cpu_s();
	for (uint32_t i = 0; i < GETS; i++) {
		struct iovec iov = { r->worker.ring + i % RING * PAGE, PAGE };

		submit(&r->worker, r->tenant, TMEM_GET, 0,
		       next_random(&r->random) % r->pages, &iov, 1);
	}
	return (cpu_s() - start) / GETS * 1e6;
}

/* Until an idle store has nothing left to do. */
static void recompress(struct recompress *r)
{
	while (tmem_step(r->store, STEP_PAGES) || tmem_step_due(r->store) >= 0)
		usleep(1000);
}

static void verify(struct recompress *r)
{
	char buffer[PAGE];

	for (uint32_t i = 0; i < r->pages; i++) {
		struct iovec iov = { r->worker.ring, PAGE };

		submit(&r->worker, r->tenant, TMEM_GET, 0, i, &iov, 1);
		if (memcmp(r->worker.ring,
			   corpus_any_page(r->corpus, i, buffer), PAGE))
			die("key %u: the store returned another page", i);
	}
}

static void measure(struct recompress *r)
{
	struct tmem_stats before = { .size = sizeof(before) }, after = before;
	double us = get_us(r);

	tmem_store_stats(r->store, &before);
	recompress(r);
	tmem_store_stats(r->store, &after);
	figure_note("recompress", "pages", "pages that became smaller", "",
		    (double)after.recompressed_pages / r->pages);
	figure_note("recompress", "stored", "bytes of all pages, over before",
		    "x", (double)after.stored_bytes / before.stored_bytes);
	figure_note("recompress", "held", "held bytes, over before", "x",
		    (double)after.held_bytes / before.held_bytes);
	figure_note("recompress", "cpu_us", "CPU time a page", "us",
		    (after.recompress_cpu_ns - before.recompress_cpu_ns) / 1e3 /
			    r->pages);
	figure_note("recompress", "get", "a get at random, over before", "x",
		    get_us(r) / us);
}

void recompress_run(struct corpus *corpus)
{
	struct recompress r = {
		.corpus = corpus,
		.pages = corpus->pages < PAGES ? corpus->pages : PAGES,
		.store = store_open_recompressing(),
		.evict = small_pages(EVICT_BYTES),
		.random = 1,
	};
	char buffer[PAGE];

	progress("recompression");
	r.tenant = tenant_open(r.store, "cold", r.pages, TMEM_POOL_PERSISTENT);
	worker_open(r.store, &r.worker);
	for (uint32_t i = 0; i < r.pages; i++)
		put_page(&r.worker, r.tenant, i,
			 corpus_any_page(corpus, i, buffer));
	measure(&r);
	verify(&r);
	worker_close(&r.worker);
	tmem_tenant_drop(r.tenant);
	tmem_store_destroy(r.store);
	small_pages_free(r.evict, EVICT_BYTES);
}
