/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tenant frees nine tenths of its pages, at random: how long until the host
 * has the memory, and what another tenant notices
 *
 * Nobody calls tmem_step() before the last page is freed, so that all of the
 * work is in the time.
 */
#include <lz4.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sides.h"

/* Of the other tenant, whose pages are got: more than caches hold. */
#define OTHER_PAGES 16384u
/* Between its gets: 10 % of a CPU or so. */
#define INTERVAL_S 20e-6
/* Latencies that are kept: 10 seconds. */
#define GETS (1u << 19)
/* A p99 of fewer says nothing. */
#define GETS_MIN 200u
/* Gets while nothing else happens: 0.4 s. */
#define GETS_QUIET 20000u
/* The goal: held bytes over live ones, and what a tenant may take beside. */
#define GOAL	     1.3
#define TENANT_BYTES MIB

struct freed {
	struct corpus *corpus;
	uint32_t pages, other_pages;
	struct tmem_store *store;
	struct tmem_tenant *tenant, *other;
	struct worker worker; /* the main thread's */
	bool *gone;	      /* by page */
	double *latency;
	char *evict;
	uint64_t random;
	double kernel_before; /* the other tenant is there, the pages are not */
	/* The present round's. */
	double live_bytes, seconds, cpu_seconds, all_cpu_seconds;
	atomic_bool done, stop;
};

/* ------------------------------------------------------------ other tenant */

static void serve(void *opaque, uint32_t i)
{
	struct freed *freed = opaque;
	struct iovec iov = { freed->worker.ring + i % RING * PAGE, PAGE };

	submit(&freed->worker, freed->other, TMEM_GET, 0,
	       next_random(&freed->random) % freed->other_pages, &iov, 1);
}

/* Microseconds; NAN if there were too few. */
static double p99_until(struct freed *freed, uint32_t most,
			const atomic_bool *until)
{
	uint32_t count = open_loop(serve, freed, INTERVAL_S, most,
				   freed->latency, until);

	return count < GETS_MIN ? NAN
				: percentile(freed->latency, count, 0.99) * 1e6;
}

/* What a CPU's neighbour does to this one, whoever it is. */
static void *neighbour_run(void *opaque)
{
	struct freed *freed = opaque;
	char *state = small_pages(LZ4_sizeofState());
	char *stored = small_pages(PAGE);

	for (uint32_t i = 0; !atomic_load(&freed->stop); i++)
		LZ4_compress_fast_extState(
			state, freed->corpus->page[i % freed->corpus->pages],
			stored, PAGE, PAGE, 1);
	small_pages_free(state, LZ4_sizeofState());
	small_pages_free(stored, PAGE);
	return NULL;
}

static double p99_beside_lz4(struct freed *freed)
{
	pthread_t thread;
	double p99;

	atomic_store(&freed->stop, false);
	if (pthread_create(&thread, NULL, neighbour_run, freed))
		die("cannot make a thread");
	p99 = p99_until(freed, GETS_QUIET, NULL);
	atomic_store(&freed->stop, true);
	pthread_join(thread, NULL);
	return p99;
}

/* -------------------------------------------------------------- the thread */

/* Held bytes, less what a tenant may take, over live ones. */
static double held_over_live(struct freed *freed)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_tenant_stats(freed->tenant, &stats);
	return (stats.held_bytes - TENANT_BYTES) / freed->live_bytes;
}

static void *stepper_run(void *opaque)
{
	struct freed *freed = opaque;
	double start = now_s(), cpu = cpu_s();
	unsigned int visited;

	freed->seconds = NAN;
	freed->cpu_seconds = NAN;
	do {
		visited = tmem_step(freed->store, STEP_PAGES);
		if (isnan(freed->seconds) && held_over_live(freed) <= GOAL) {
			freed->seconds = now_s() - start;
			freed->cpu_seconds = cpu_s() - cpu;
		}
	} while (visited);
	freed->all_cpu_seconds = cpu_s() - cpu;
	atomic_store(&freed->done, true);
	return NULL;
}

/* ------------------------------------------------------------------ rounds */

static void fill(struct freed *freed)
{
	char buffer[PAGE];

	for (uint32_t i = 0; i < freed->pages; i++) {
		if (freed->gone[i])
			put_page(&freed->worker, freed->tenant, i,
				 corpus_any_page(freed->corpus, i, buffer));
		freed->gone[i] = false;
	}
	step_until(freed->store, 1);
}

static void free_most(struct freed *freed)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	for (uint32_t i = 0; i < freed->pages; i++) {
		struct tmem_op op = {
			.verb = TMEM_FLUSH,
			.index = i,
			.count = 1,
		};

		freed->gone[i] = next_random(&freed->random) % 10;
		if (freed->gone[i] &&
		    tmem_submit(freed->worker.ctx, freed->tenant, &op))
			die("a flush failed");
	}
	tmem_tenant_stats(freed->tenant, &stats);
	freed->live_bytes = stats.stored_bytes;
}

/* What is left is what was put. */
static void verify(struct freed *freed)
{
	char buffer[PAGE];

	for (uint32_t i = 0; i < freed->pages; i++) {
		struct iovec iov = { freed->worker.ring, PAGE };

		if (freed->gone[i])
			continue;
		submit(&freed->worker, freed->tenant, TMEM_GET, 0, i, &iov, 1);
		if (memcmp(freed->worker.ring,
			   corpus_any_page(freed->corpus, i, buffer), PAGE))
			die("key %u: the store returned another page", i);
	}
}

static void note(struct freed *freed, double quiet, double beside,
		 double meanwhile)
{
	double live_gib = freed->live_bytes / GIB;
	double kernel = kernel_bytes() - freed->kernel_before;

	figure_note("freed", "seconds_per_live_gib",
		    "until held <= 1.3 x live + 1 MiB, a live (compressed) GiB",
		    "s", freed->seconds / live_gib);
	figure_note("freed", "cpu_seconds_per_live_gib",
		    "the same, CPU time of the thread", "s",
		    freed->cpu_seconds / live_gib);
	figure_note("freed", "all_cpu_seconds_per_live_gib",
		    "CPU time until nothing was left to do", "s",
		    freed->all_cpu_seconds / live_gib);
	figure_note("freed", "held", "then (held - 1 MiB) / live, library", "x",
		    held_over_live(freed));
	figure_note("freed", "held_kernel", "the same, kernel", "x",
		    (kernel - TENANT_BYTES) / freed->live_bytes);
	figure_note("freed", "others_p99_us", "the other tenant's get, p99",
		    "us", quiet);
	figure_note("freed", "others_p99_meanwhile_us", "the same meanwhile",
		    "us", meanwhile);
	figure_note("freed", "others_p99_ratio", "the ratio of these", "x",
		    meanwhile / quiet);
	figure_note("freed", "others_p99_ratio_lz4",
		    "the same where the thread is not ours: LZ4's", "x",
		    beside / quiet);
}

static void one_round(struct freed *freed)
{
	double quiet, beside, meanwhile;
	pthread_t thread;

	fill(freed);
	evict_caches(freed->evict);
	quiet = p99_until(freed, GETS_QUIET, NULL);
	beside = p99_beside_lz4(freed);
	free_most(freed);
	evict_caches(freed->evict);
	atomic_store(&freed->done, false);
	if (pthread_create(&thread, NULL, stepper_run, freed))
		die("cannot make a thread");
	meanwhile = p99_until(freed, GETS, &freed->done);
	pthread_join(thread, NULL);
	note(freed, quiet, beside, meanwhile);
	verify(freed);
}

static void other_fill(struct freed *freed)
{
	freed->other_pages = freed->corpus->pages < OTHER_PAGES
				     ? freed->corpus->pages
				     : OTHER_PAGES;
	freed->other = tenant_open(freed->store, "other", freed->other_pages,
				   TMEM_POOL_PERSISTENT);
	for (uint32_t i = 0; i < freed->other_pages; i++)
		put_page(&freed->worker, freed->other, i,
			 freed->corpus->page[i]);
	step_until(freed->store, 1);
}

void freed_run(struct corpus *corpus, bool quick)
{
	struct freed freed = {
		.corpus = corpus,
		.pages = quick ? 16384 : 262144,
		.random = 1,
	};

	progress("90 %% of %.0f MiB freed", freed.pages * (PAGE / MIB));
	freed.gone = small_pages(freed.pages * sizeof(*freed.gone));
	memset(freed.gone, true, freed.pages * sizeof(*freed.gone));
	freed.latency = small_pages(GETS * sizeof(*freed.latency));
	freed.evict = small_pages(EVICT_BYTES);
	freed.store = store_open(NO_LIMIT);
	worker_open(freed.store, &freed.worker);
	other_fill(&freed);
	freed.kernel_before = kernel_bytes();
	freed.tenant = tenant_open(freed.store, "frees", freed.pages,
				   TMEM_POOL_PERSISTENT);
	for (unsigned int round = 0; round < (quick ? 1 : 5); round++)
		one_round(&freed);
	group_say("freed", "%u pages; gets are due each %.0f us", freed.pages,
		  INTERVAL_S * 1e6);
	tmem_tenant_drop(freed.tenant);
	tmem_tenant_drop(freed.other);
	worker_close(&freed.worker);
	tmem_store_destroy(freed.store);
	small_pages_free(freed.gone, freed.pages * sizeof(*freed.gone));
	small_pages_free(freed.latency, GETS * sizeof(*freed.latency));
	small_pages_free(freed.evict, EVICT_BYTES);
}
