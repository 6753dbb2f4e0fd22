/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The store and bare LZ4 take turns on the same pages
 *
 * A row is one pass over all pages of the corpus, cut into slices.  In each
 * turn one side works on one slice and the other on the slice half a pass away,
 * so that in the end both have done the same pages in the same order, neither
 * finds a page warm because the other just had it, and whatever else the
 * machine does meets both.  Before each slice the caches are filled with
 * something else.
 *
 * LZ4's side is the harshest that there is: put compresses into one warm
 * buffer; get finds address and length of the next chunk in an array that it
 * walks in order.
 */
#include <lz4.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "sides.h"

static void *bench_map(struct bench *bench, size_t bytes)
{
	struct mapping *mapping = &bench->mapping[bench->mappings++];

	if (bench->mappings > ARRAY_SIZE(bench->mapping))
		die("struct bench has too few mappings");
	mapping->memory = small_pages(bytes);
	mapping->bytes = bytes;
	return mapping->memory;
}

/* --------------------------------------------------------------- the sides */

void lz4_put(struct bench *bench, struct worker *worker, uint32_t from,
	     uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		LZ4_compress_fast_extState(
			worker->state, bench->corpus->page[bench->source[i]],
			worker->stored, PAGE, LZ4_CAP, LZ4_ACCELERATION);
}

void lz4_get(struct bench *bench, struct worker *worker, uint32_t from,
	     uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		const struct chunk *chunk = &bench->visit[i];
		char *page = worker->ring + i % RING * PAGE;

		if (chunk->length == PAGE)
			memcpy(page, chunk->data, PAGE);
		else if (LZ4_decompress_safe(chunk->data, page, chunk->length,
					     PAGE) != (int)PAGE)
			die("LZ4 cannot decode what it made");
	}
}

double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

void submit(struct worker *worker, struct tmem_tenant *tenant,
	    enum tmem_verb verb, uint32_t object, uint64_t index,
	    struct iovec *iov, unsigned int run)
{
	struct tmem_page page[MAX_RUN];
	struct tmem_op op = {
		.verb = verb,
		.object = { object },
		.index = index,
		.count = run,
		.page_size = PAGE,
		.iov = iov,
		.iovcnt = run,
		.page = page,
	};
	int error = tmem_submit(worker->ctx, tenant, &op);

	if (error || op.done != run)
		die("the store %s %u of %u pages (error %d): is less than 1 "
		    "GiB of memory free?",
		    verb == TMEM_PUT ? "refused" : "missed",
		    run - (unsigned int)op.done, run, error);
}

void put_page(struct worker *worker, struct tmem_tenant *tenant, uint64_t index,
	      const char *page)
{
	struct iovec iov = { (void *)(uintptr_t)page, PAGE };

	submit(worker, tenant, TMEM_PUT, 0, index, &iov, 1);
}

struct spent step_until(struct tmem_store *store, unsigned int enough)
{
	double cpu = cpu_s(), wall = now_s();

	while (tmem_step(store, STEP_PAGES) >= enough)
		;
	return (struct spent){ cpu_s() - cpu, now_s() - wall };
}

void background(struct bench *bench, unsigned int enough)
{
	struct spent spent = step_until(bench->store, enough);

	bench->background.cpu_s += spent.cpu_s;
	bench->background.wall_s += spent.wall_s;
}

/* A run of keys never has some in one object and some in the other. */
static void submit_keys(struct bench *bench, struct worker *worker,
			enum tmem_verb verb, uint32_t key, struct iovec *iov,
			unsigned int run)
{
	uint32_t half = bench->pages / 2, object = key >= half;

	submit(worker, bench->tenant, verb, object, key - object * half, iov,
	       run);
}

void tmem_put(struct bench *bench, struct worker *worker, uint32_t from,
	      uint32_t to)
{
	struct iovec iov[MAX_RUN];
	unsigned int run = bench->run;

	for (uint32_t i = from; i < to; i += run) {
		for (unsigned int j = 0; j < run; j++) {
			iov[j].iov_base =
				bench->corpus->page[bench->source[i + j]];
			iov[j].iov_len = PAGE;
		}
		submit_keys(bench, worker, TMEM_PUT, bench->key[i], iov, run);
		if (bench->steps && (i + run) % STEP_EVERY == 0)
			background(bench, STEP_PAGES);
	}
}

void tmem_get(struct bench *bench, struct worker *worker, uint32_t from,
	      uint32_t to)
{
	struct iovec iov[MAX_RUN];
	unsigned int run = bench->run;

	for (uint32_t i = from; i < to; i += run) {
		for (unsigned int j = 0; j < run; j++) {
			iov[j].iov_base = worker->ring + (i + j) % RING * PAGE;
			iov[j].iov_len = PAGE;
		}
		submit_keys(bench, worker, TMEM_GET, bench->key[i], iov, run);
	}
}

/* ------------------------------------------------------------------ orders */

/* Keys @from to @to - 1, in runs. */
static void order_range(struct bench *bench, uint32_t from, uint32_t to,
			bool shuffle)
{
	unsigned int run = bench->run;
	uint32_t *key = bench->key + from;

	for (uint32_t i = 0; i < (to - from) / run; i++) {
		uint32_t j =
			shuffle ? next_random(&bench->random) % (i + 1) : i;

		key[i * run] = key[j * run];
		key[j * run] = from + i * run;
	}
	for (uint32_t i = 0; i < to - from; i++)
		key[i] = key[i - i % run] + i % run;
}

void order_keys(struct bench *bench, unsigned int run, bool shuffle)
{
	bench->run = run;
	order_range(bench, 0, bench->pages, shuffle);
}

void order_keys_hot(struct bench *bench, unsigned int run, bool put)
{
	uint32_t half = bench->pages / 2;

	bench->run = run;
	for (uint32_t i = 0; i < bench->pages; i += HOT_PAGES)
		order_range(bench, i, i + HOT_PAGES, true);
	for (uint32_t i = 0; i < bench->pages; i++)
		bench->key[i] %= HOT_PAGES;
	find_sources(bench);
	/* Another order of the same: a page replaces another. */
	for (uint32_t i = 0; put && i < half; i++) {
		uint32_t source = bench->source[i];

		bench->source[i] = bench->source[i + half];
		bench->source[i + half] = source;
	}
}

void order_keys_threads(struct bench *bench, unsigned int run,
			enum layout layout)
{
	uint32_t half = bench->pages / 2, part = half / SLICES;
	uint32_t next[2] = { 0, half };

	bench->run = run;
	order_range(bench, 0, half, true);
	order_range(bench, half, bench->pages, true);
	/* A thread's share of a slice is of one object. */
	for (unsigned int share = 0; share < 2 * SLICES; share++) {
		unsigned int object =
			layout == OWN_OBJECTS ? share % 2 : share / 2 % 2;

		memcpy(bench->source + share * part, bench->key + next[object],
		       part * sizeof(*bench->key));
		next[object] += part;
	}
	memcpy(bench->key, bench->source, bench->pages * sizeof(*bench->key));
}

void order_sources(struct bench *bench)
{
	for (uint32_t i = 0; i < bench->pages; i++) {
		uint32_t j = next_random(&bench->random) % (i + 1);

		bench->source[i] = bench->source[j];
		bench->source[j] = i;
	}
}

void find_sources(struct bench *bench)
{
	for (uint32_t i = 0; i < bench->pages; i++) {
		bench->source[i] = bench->holds[bench->key[i]];
		bench->visit[i] = bench->chunk[bench->source[i]];
	}
}

void note_held(struct bench *bench, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		bench->holds[bench->key[i]] = bench->source[i];
}

/* ------------------------------------------------------------------- turns */

void evict_caches(char *evict)
{
	for (size_t i = 0; i < EVICT_BYTES; i += 64)
		evict[i]++;
}

struct share {
	struct bench *bench;
	struct worker *worker;
	side_fn *side;
	uint32_t from, to;
};

static void *share_run(void *opaque)
{
	struct share *share = opaque;

	share->side(share->bench, share->worker, share->from, share->to);
	return NULL;
}

void timed(struct bench *bench, side_fn *side, unsigned int slice,
	   unsigned int threads, struct spent *spent)
{
	uint32_t pages = bench->pages / SLICES, from = slice * pages;
	uint32_t middle = threads == 1 ? from + pages : from + pages / 2;
	struct share other = { bench, &bench->worker[1], side, middle,
			       from + pages };
	struct spent before = bench->background;
	pthread_t thread;
	double cpu, wall;

	bench->steps = threads == 1;
	if (!bench->hot)
		evict_caches(bench->evict);
	wall = now_s();
	cpu = cpu_s();
	if (threads > 1 && pthread_create(&thread, NULL, share_run, &other))
		die("cannot make a thread");
	side(bench, &bench->worker[0], from, middle);
	if (threads > 1)
		pthread_join(thread, NULL);
	spent->cpu_s += cpu_s() - cpu;
	spent->wall_s += now_s() - wall;
	spent->cpu_s -= bench->background.cpu_s - before.cpu_s;
	spent->wall_s -= bench->background.wall_s - before.wall_s;
}

/*
 * CPU time, which leaves out the time that other processes took: nothing sleeps
 * here, and no other thread works for us.
 */
static double seconds(const struct bench *bench, const struct spent *spent)
{
	return bench->wall ? spent->wall_s : spent->cpu_s;
}

void take_turns(struct bench *bench, side_fn *ours, side_fn *lz4,
		unsigned int round, struct sample *sample)
{
	struct spent of_ours = { 0 }, of_lz4 = { 0 };

	for (unsigned int i = 0; i < 2 * SLICES; i++) {
		unsigned int slice = i / 2;

		if ((i + round) % 2) {
			slice = (slice + SLICES / 2) % SLICES;
			timed(bench, lz4, slice, 1, &of_lz4);
		} else {
			timed(bench, ours, slice, 1, &of_ours);
		}
	}
	background(bench, 1);
	sample->tmem_us = seconds(bench, &of_ours) / bench->pages * 1e6;
	sample->lz4_us = seconds(bench, &of_lz4) / bench->pages * 1e6;
	sample->ratio = sample->tmem_us / sample->lz4_us;
	sample->wall_ratio = of_ours.wall_s / of_lz4.wall_s;
	sample->lz4_speedup = 1;
	sample->background = bench->background.cpu_s / of_ours.cpu_s;
}

/* ------------------------------------------------------------------- store */

struct tmem_tenant *tenant_open(struct tmem_store *store, const char *name,
				uint32_t pages, uint32_t flags)
{
	struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = (uint64_t)pages * PAGE,
	};
	struct tmem_pool_params params = { flags, 12 };
	struct tmem_tenant *tenant;

	if (tmem_tenant_open(store, name, &limits, &tenant) ||
	    tmem_pool_create(tenant, 0, &params, NULL))
		die("cannot make a pool for %u pages", pages);
	return tenant;
}

struct tmem_store *store_open(uint64_t max_bytes)
{
	return store_open_with(max_bytes, 0);
}

struct tmem_store *store_open_with(uint64_t max_bytes, uint32_t flags)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.flags = flags,
		.max_bytes = max_bytes,
	};
	struct tmem_store *store;

	if (tmem_store_create(&config, &store))
		die("cannot make a store");
	return store;
}

void worker_open(struct tmem_store *store, struct worker *worker)
{
	worker->ring = small_pages(RING * PAGE);
	if (tmem_ctx_create(store, &worker->ctx))
		die("cannot make a context");
}

void worker_close(struct worker *worker)
{
	tmem_ctx_destroy(worker->ctx);
	small_pages_free(worker->ring, RING * PAGE);
}

/* Compress every page once, side by side as an allocator would have them. */
static void make_chunks(struct bench *bench)
{
	char *at = bench_map(bench, (size_t)bench->pages * PAGE);
	uint32_t raw = 0;

	for (uint32_t i = 0; i < bench->pages; i++) {
		const char *page = bench->corpus->page[i];
		int length = LZ4_compress_fast_extState(bench->worker[0].state,
							page, at, PAGE, LZ4_CAP,
							LZ4_ACCELERATION);

		if (length <= 0) {
			length = PAGE;
			memcpy(at, page, PAGE);
			raw++;
		}
		bench->chunk[i].data = at;
		bench->chunk[i].length = length;
		bench->mean_length += length;
		at += (length + 15) & ~15;
	}
	bench->mean_length /= bench->pages;
	bench->raw_share = (double)raw / bench->pages;
}

static void fill(struct bench *bench)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	double stored = bench->mean_length * bench->pages;

	order_keys(bench, 1, false);
	order_sources(bench);
	bench->steps = true;
	tmem_put(bench, &bench->worker[0], 0, bench->pages);
	note_held(bench, 0, bench->pages);
	tmem_tenant_stats(bench->tenant, &stats);
	if (stats.stored_bytes < stored - 1 || stats.stored_bytes > stored + 1)
		die("the store holds %ju bytes where LZ4 makes %.0f: sides.c "
		    "and host/libtmem/codec.c compress differently",
		    (uintmax_t)stats.stored_bytes, stored);
}

struct bench *bench_create(struct corpus *corpus)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	uint32_t pages = corpus->pages / GRANULE * GRANULE;

	if (!bench)
		die("no memory");
	bench->corpus = corpus;
	bench->pages = pages;
	bench->random = 1;
	bench->chunk = bench_map(bench, pages * sizeof(*bench->chunk));
	bench->visit = bench_map(bench, pages * sizeof(*bench->visit));
	bench->holds = bench_map(bench, pages * sizeof(*bench->holds));
	bench->key = bench_map(bench, pages * sizeof(*bench->key));
	bench->source = bench_map(bench, pages * sizeof(*bench->source));
	bench->evict = bench_map(bench, EVICT_BYTES);
	/* Room for one more, which grows. */
	bench->store =
		store_open(2 * tmem_reservation_cost((uint64_t)pages * PAGE));
	for (unsigned int i = 0; i < THREADS; i++) {
		bench->worker[i].state = bench_map(bench, LZ4_sizeofState());
		bench->worker[i].stored = bench_map(bench, PAGE);
		worker_open(bench->store, &bench->worker[i]);
	}
	make_chunks(bench);
	bench->full = bench->tenant =
		tenant_open(bench->store, "full", pages, TMEM_POOL_PERSISTENT);
	fill(bench);
	return bench;
}

void bench_verify(struct bench *bench)
{
	struct worker *worker = &bench->worker[0];

	bench->tenant = bench->full;
	for (uint32_t key = 0; key < bench->pages; key++) {
		struct iovec iov = { worker->ring, PAGE };

		submit_keys(bench, worker, TMEM_GET, key, &iov, 1);
		if (memcmp(worker->ring, bench->corpus->page[bench->holds[key]],
			   PAGE))
			die("key %u: the store returned another page", key);
	}
}

void bench_destroy(struct bench *bench)
{
	for (unsigned int i = 0; i < THREADS; i++)
		worker_close(&bench->worker[i]);
	tmem_tenant_drop(bench->full);
	tmem_store_destroy(bench->store);
	for (unsigned int i = 0; i < bench->mappings; i++)
		munmap(bench->mapping[i].memory, bench->mapping[i].bytes);
	free(bench);
}

double bench_mean_length(struct bench *bench)
{
	return bench->mean_length;
}

double bench_raw_share(struct bench *bench)
{
	return bench->raw_share;
}
