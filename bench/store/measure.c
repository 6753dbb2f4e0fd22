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
#include <dirent.h>
#include <lz4.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench-store.h"
#include "tmem/tmem.h"

/* As host/libtmem/codec.c has it; fill() compares the lengths. */
#define ACCELERATION 1
#define CAP	     (PAGE - PAGE / 16)

#define SLICES	8u
#define MAX_RUN 16u
/* Passes are cut to whole runs in whole slices, for one thread and two. */
#define GRANULE (SLICES * MAX_RUN * 2)
#define THREADS 2u
/* Pages are decoded into these in turn, as both sides' guests would. */
#define RING 32u
/* More than one core can have of any cache that is sold. */
#define EVICT_BYTES (64u << 20)
/*
 * The QEMU device calls tmem_step() 10 ms after the first op of a quiet time,
 * and again until nothing is left: here after as many pages as one compresses
 * in that time.
 */
#define STEP_PAGES 256u
#define STEP_EVERY 1024u

struct chunk {
	char *data;
	uint32_t length;
};

/* What one thread works with. */
struct worker {
	struct tmem_ctx *ctx;
	char *state;  /* LZ4's */
	char *stored; /* one compressed page */
	char *ring;
};

struct spent {
	double cpu_s; /* of the calling thread */
	double wall_s;
};

struct bench {
	struct corpus *corpus;
	uint32_t pages;
	struct chunk *chunk; /* by page */
	double mean_length, raw_share;
	struct tmem_store *store;
	struct tmem_tenant *full;   /* keys 0 .. pages - 1, always all there */
	struct tmem_tenant *tenant; /* that the present row works on */
	uint32_t *holds;	    /* by key: which page */
	/* The present pass: keys, and what is put there or found there. */
	uint32_t *key, *source;
	struct chunk *visit; /* chunk[source[i]] */
	unsigned int run, threads;
	/* Within the present slice: not the store's time. */
	struct spent background;
	struct worker worker[THREADS];
	char *evict;
	uint64_t random;
	struct mapping {
		void *memory;
		size_t bytes;
	} mapping[24];
	unsigned int mappings;
};

typedef void side_fn(struct bench *bench, struct worker *worker, uint32_t from,
		     uint32_t to);

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

static void lz4_put(struct bench *bench, struct worker *worker, uint32_t from,
		    uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		LZ4_compress_fast_extState(
			worker->state, bench->corpus->page[bench->source[i]],
			worker->stored, PAGE, CAP, ACCELERATION);
}

static void lz4_get(struct bench *bench, struct worker *worker, uint32_t from,
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

static double cpu_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* One op over a run of keys; all its pages must be there. */
static void submit(struct worker *worker, struct tmem_tenant *tenant,
		   enum tmem_verb verb, uint64_t index, struct iovec *iov,
		   unsigned int run)
{
	struct tmem_page page[MAX_RUN];
	struct tmem_op op = {
		.verb = verb,
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

/* What the store left for later, as the device would do it about now. */
static void background(struct bench *bench, unsigned int enough)
{
	double cpu = cpu_s(), wall = now_s();

	while (tmem_step(bench->store, STEP_PAGES) >= enough)
		;
	bench->background.cpu_s += cpu_s() - cpu;
	bench->background.wall_s += now_s() - wall;
}

static void tmem_put(struct bench *bench, struct worker *worker, uint32_t from,
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
		submit(worker, bench->tenant, TMEM_PUT, bench->key[i], iov,
		       run);
		if (bench->threads == 1 && (i + run) % STEP_EVERY == 0)
			background(bench, STEP_PAGES);
	}
}

static void tmem_get(struct bench *bench, struct worker *worker, uint32_t from,
		     uint32_t to)
{
	struct iovec iov[MAX_RUN];
	unsigned int run = bench->run;

	for (uint32_t i = from; i < to; i += run) {
		for (unsigned int j = 0; j < run; j++) {
			iov[j].iov_base = worker->ring + (i + j) % RING * PAGE;
			iov[j].iov_len = PAGE;
		}
		submit(worker, bench->tenant, TMEM_GET, bench->key[i], iov,
		       run);
	}
}

/* ------------------------------------------------------------------ orders */

/* Keys in runs: in order, or the runs at random. */
static void order_keys(struct bench *bench, unsigned int run, bool shuffle)
{
	uint32_t runs = bench->pages / run;

	bench->run = run;
	for (uint32_t i = 0; i < runs; i++) {
		uint32_t j =
			shuffle ? next_random(&bench->random) % (i + 1) : i;

		bench->key[i * run] = bench->key[j * run];
		bench->key[j * run] = i * run;
	}
	for (uint32_t i = 0; i < bench->pages; i++)
		bench->key[i] = bench->key[i - i % run] + i % run;
}

/* Pages to put, at random. */
static void order_sources(struct bench *bench)
{
	for (uint32_t i = 0; i < bench->pages; i++) {
		uint32_t j = next_random(&bench->random) % (i + 1);

		bench->source[i] = bench->source[j];
		bench->source[j] = i;
	}
}

/* Pages that the keys hold, in the order in which the keys are visited. */
static void find_sources(struct bench *bench)
{
	for (uint32_t i = 0; i < bench->pages; i++) {
		bench->source[i] = bench->holds[bench->key[i]];
		bench->visit[i] = bench->chunk[bench->source[i]];
	}
}

static void note_held(struct bench *bench)
{
	for (uint32_t i = 0; i < bench->pages; i++)
		bench->holds[bench->key[i]] = bench->source[i];
}

/* ------------------------------------------------------------------- turns */

static void evict_caches(struct bench *bench)
{
	for (size_t i = 0; i < EVICT_BYTES; i += 64)
		bench->evict[i]++;
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

/*
 * Adds what a slice takes, done by one thread or by two, each one half.  Work
 * in the background is left out; it stays in bench->background.
 */
static void timed(struct bench *bench, side_fn *side, unsigned int slice,
		  unsigned int threads, struct spent *spent)
{
	uint32_t pages = bench->pages / SLICES, from = slice * pages;
	uint32_t middle = threads == 1 ? from + pages : from + pages / 2;
	struct share other = { bench, &bench->worker[1], side, middle,
			       from + pages };
	struct spent before = bench->background;
	pthread_t thread;
	double cpu, wall;

	bench->threads = threads;
	evict_caches(bench);
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
 * One thread: each side does every slice.  CPU time, which leaves out the time
 * that other processes took: nothing sleeps here, and no other thread works for
 * us.
 */
static void take_turns(struct bench *bench, side_fn *tmem, side_fn *lz4,
		       unsigned int round, struct sample *sample)
{
	struct spent of_tmem = { 0 }, of_lz4 = { 0 };

	for (unsigned int i = 0; i < 2 * SLICES; i++) {
		unsigned int slice = i / 2;

		if ((i + round) % 2) {
			slice = (slice + SLICES / 2) % SLICES;
			timed(bench, lz4, slice, 1, &of_lz4);
		} else {
			timed(bench, tmem, slice, 1, &of_tmem);
		}
	}
	background(bench, 1);
	sample->tmem_us = of_tmem.cpu_s / bench->pages * 1e6;
	sample->lz4_us = of_lz4.cpu_s / bench->pages * 1e6;
	sample->ratio = of_tmem.cpu_s / of_lz4.cpu_s;
	sample->wall_ratio = of_tmem.wall_s / of_lz4.wall_s;
	sample->lz4_speedup = 1;
	sample->background = bench->background.cpu_s / of_tmem.cpu_s;
}

/*
 * Two threads against one: each side does half of the slices with one thread
 * and half with two, the halves exchanged from round to round.  Wall time, for
 * what is looked for is waiting.
 */
static void take_turns_threads(struct bench *bench, side_fn *tmem, side_fn *lz4,
			       unsigned int round, struct sample *sample)
{
	unsigned int half = SLICES / 2, first = round % 2 * half;
	unsigned int second = half - first;
	struct spent of_tmem[2] = { 0 }, of_lz4[2] = { 0 };
	double half_pages = bench->pages / 2;

	for (unsigned int i = 0; i < half; i++) {
		unsigned int far = (i + half / 2) % half;

		timed(bench, lz4, first + i, 1, &of_lz4[0]);
		timed(bench, tmem, second + i, 1, &of_tmem[0]);
		background(bench, STEP_PAGES);
		timed(bench, lz4, second + far, 2, &of_lz4[1]);
		timed(bench, tmem, first + far, 2, &of_tmem[1]);
		background(bench, STEP_PAGES);
	}
	background(bench, 1);
	sample->tmem_us = of_tmem[1].wall_s / half_pages * 1e6;
	sample->lz4_us = of_lz4[1].wall_s / half_pages * 1e6;
	sample->ratio = (of_tmem[0].wall_s / of_tmem[1].wall_s) /
			(of_lz4[0].wall_s / of_lz4[1].wall_s);
	sample->wall_ratio = sample->ratio;
	sample->lz4_speedup = of_lz4[0].wall_s / of_lz4[1].wall_s;
	sample->background = bench->background.cpu_s /
			     (of_tmem[0].wall_s + of_tmem[1].wall_s);
}

/* ------------------------------------------------------------------- store */

static struct tmem_tenant *tenant_open(struct tmem_store *store,
				       const char *name, uint32_t pages)
{
	struct tmem_limits limits = {
		.persistent_reserved = (uint64_t)pages * PAGE,
	};
	struct tmem_pool_params params = { TMEM_POOL_PERSISTENT, 12 };
	struct tmem_tenant *tenant;

	if (tmem_tenant_open(store, name, &limits, &tenant) ||
	    tmem_pool_create(tenant, 0, &params, NULL))
		die("cannot make a pool for %u pages", pages);
	return tenant;
}

/* Headroom is looked after, as in the product. */
static struct tmem_store *store_open(uint32_t pages, unsigned int tenants)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes =
			tenants * tmem_reservation_cost((uint64_t)pages * PAGE),
	};
	struct tmem_store *store;

	if (tmem_store_create(&config, &store))
		die("cannot make a store");
	return store;
}

static void worker_open(struct bench *bench, struct worker *worker)
{
	worker->state = bench_map(bench, LZ4_sizeofState());
	worker->stored = bench_map(bench, PAGE);
	worker->ring = bench_map(bench, RING * PAGE);
	if (tmem_ctx_create(bench->store, &worker->ctx))
		die("cannot make a context");
}

/* Compress every page once, side by side as an allocator would have them. */
static void make_chunks(struct bench *bench)
{
	char *at = bench_map(bench, (size_t)bench->pages * PAGE);
	uint32_t raw = 0;

	for (uint32_t i = 0; i < bench->pages; i++) {
		const char *page = bench->corpus->page[i];
		int length =
			LZ4_compress_fast_extState(bench->worker[0].state, page,
						   at, PAGE, CAP, ACCELERATION);

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
	struct tmem_stats stats;
	double stored = bench->mean_length * bench->pages;

	order_keys(bench, 1, false);
	order_sources(bench);
	bench->threads = 1;
	tmem_put(bench, &bench->worker[0], 0, bench->pages);
	note_held(bench);
	tmem_tenant_stats(bench->tenant, &stats);
	if (stats.stored_bytes < stored - 1 || stats.stored_bytes > stored + 1)
		die("the store holds %ju bytes where LZ4 makes %.0f: measure.c "
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
	bench->store = store_open(pages, 2);
	for (unsigned int i = 0; i < THREADS; i++)
		worker_open(bench, &bench->worker[i]);
	make_chunks(bench);
	bench->full = bench->tenant = tenant_open(bench->store, "full", pages);
	fill(bench);
	return bench;
}

void bench_verify(struct bench *bench)
{
	struct worker *worker = &bench->worker[0];

	for (uint32_t key = 0; key < bench->pages; key++) {
		struct iovec iov = { worker->ring, PAGE };

		submit(worker, bench->full, TMEM_GET, key, &iov, 1);
		if (memcmp(worker->ring, bench->corpus->page[bench->holds[key]],
			   PAGE))
			die("key %u: the store returned another page", key);
	}
}

void bench_destroy(struct bench *bench)
{
	for (unsigned int i = 0; i < THREADS; i++)
		tmem_ctx_destroy(bench->worker[i].ctx);
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

/* -------------------------------------------------------------------- rows */

static bool has_cpus(int needed)
{
	cpu_set_t set;

	return !sched_getaffinity(0, sizeof(set), &set) &&
	       CPU_COUNT(&set) >= needed;
}

bool bench_row(struct bench *bench, enum row_id id, unsigned int round,
	       struct sample *sample)
{
	static const struct row {
		unsigned int run, threads;
		bool put, grow;
	} rows[ROWS] = {
		[PUT_OVERWRITE_1] = { 1, 1, true, false },
		[PUT_OVERWRITE_16] = { 16, 1, true, false },
		[PUT_GROW_1] = { 1, 1, true, true },
		[PUT_GROW_16] = { 16, 1, true, true },
		[GET_RANDOM_1] = { 1, 1, false, false },
		[GET_RANDOM_16] = { 16, 1, false, false },
		[PUT_2_THREADS] = { 16, 2, true, false },
		[GET_2_THREADS] = { 16, 2, false, false },
	};
	const struct row *row = &rows[id];

	if (row->threads > 1 && !has_cpus(row->threads))
		return false;
	bench->tenant = bench->full;
	bench->background = (struct spent){ 0 };
	if (row->grow)
		bench->tenant =
			tenant_open(bench->store, "growing", bench->pages);
	order_keys(bench, row->run, !row->grow);
	if (row->put)
		order_sources(bench);
	else
		find_sources(bench);
	(row->threads > 1 ? take_turns_threads : take_turns)(
		bench, row->put ? tmem_put : tmem_get,
		row->put ? lz4_put : lz4_get, round, sample);
	if (row->grow)
		tmem_tenant_drop(bench->tenant);
	else if (row->put)
		note_held(bench);
	return true;
}

/* ----------------------------------------------------------------- density */

/* A number of kB in a file of /proc. */
static double proc_kb(const char *path, const char *key)
{
	FILE *file = fopen(path, "r");
	char line[256];
	double value = 0;

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)))
			value = strtod(line + strlen(key), NULL);
	if (file)
		fclose(file);
	return value;
}

/* What the kernel has given to this process: private memory, page tables,
 * memfds. */
static double kernel_bytes(void)
{
	double bytes =
		1024 * (proc_kb("/proc/self/smaps_rollup", "Anonymous:") +
			proc_kb("/proc/self/status", "VmPTE:"));
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		char target[64] = "";
		struct stat stat;

		if (readlinkat(dirfd(dir), entry->d_name, target,
			       sizeof(target) - 1) > 0 &&
		    !strncmp(target, "/memfd:tmem", 11) &&
		    !fstatat(dirfd(dir), entry->d_name, &stat, 0))
			bytes += stat.st_blocks * 512.0;
	}
	if (dir)
		closedir(dir);
	return bytes;
}

static void density_ratios(struct tmem_store *store, double before,
			   double *library, double *kernel)
{
	struct tmem_stats stats;

	tmem_store_stats(store, &stats);
	*library = (double)stats.held_bytes / stats.stored_bytes;
	*kernel = (kernel_bytes() - before) / stats.stored_bytes;
}

void density_measure(struct corpus *corpus, uint32_t pages,
		     struct density *density)
{
	struct worker worker = { 0 };
	uint64_t random = 1;
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	double before;

	density->pages = pages;
	before = kernel_bytes();
	store = store_open(pages, 1);
	if (tmem_ctx_create(store, &worker.ctx))
		die("cannot make a context");
	tenant = tenant_open(store, "density", pages);
	for (uint32_t i = 0; i < pages; i++) {
		struct iovec iov = { corpus->page[i], PAGE };

		submit(&worker, tenant, TMEM_PUT, i, &iov, 1);
	}
	while (tmem_step(store, STEP_PAGES))
		;
	density_ratios(store, before, &density->full_library,
		       &density->full_kernel);
	for (uint32_t i = 0; i < 3 * pages; i++) {
		struct iovec iov = { corpus->page[next_random(&random) % pages],
				     PAGE };

		submit(&worker, tenant, TMEM_PUT, next_random(&random) % pages,
		       &iov, 1);
		if (i % STEP_EVERY == 0)
			while (tmem_step(store, STEP_PAGES) >= STEP_PAGES)
				;
	}
	density_ratios(store, before, &density->busy_library,
		       &density->busy_kernel);
	while (tmem_step(store, STEP_PAGES))
		;
	density_ratios(store, before, &density->churned_library,
		       &density->churned_kernel);
	tmem_ctx_destroy(worker.ctx);
	tmem_tenant_drop(tenant);
	tmem_store_destroy(store);
}
