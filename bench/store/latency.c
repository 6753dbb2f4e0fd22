/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Latency at a fixed rate of arrivals
 *
 * Who waits for one request before sending the next does not send while the
 * store stalls, and sees one long time where a guest with several CPUs has
 * many. Here requests are due at fixed times, and what is late waits in line:
 * latency runs from when a request was due.
 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sides.h"

/* The time between arrivals over what bare LZ4 takes for a page: puts, gets. */
#define PUT_SPACE 2.0
#define GET_SPACE 3.0

uint32_t open_loop(void (*serve)(void *opaque, uint32_t i), void *opaque,
		   double interval_s, uint32_t count, double *latency,
		   const atomic_bool *until)
{
	double start = now_s();
	uint32_t i;

	for (i = 0; i < count && !(until && atomic_load(until)); i++) {
		double due = start + i * interval_s;

		/* Waking up from sleep takes longer than what is measured. */
		while (now_s() < due)
			;
		serve(opaque, i);
		latency[i] = now_s() - due;
	}
	return i;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double percentile(double *values, uint32_t count, double share)
{
	if (!count)
		return NAN;
	qsort(values, count, sizeof(*values), compare);
	return values[(uint32_t)((count - 1) * share)];
}

/* -------------------------------------------------------------- background */

struct stepper {
	struct tmem_store *store;
	atomic_bool stop;
	pthread_t thread;
	double cpu_s;
};

/* As the device: all that there is to do, then nothing for 10 ms. */
static void *stepper_run(void *opaque)
{
	struct stepper *stepper = opaque;

	while (!atomic_load(&stepper->stop)) {
		while (tmem_step(stepper->store, STEP_PAGES) &&
		       !atomic_load(&stepper->stop))
			;
		usleep(10000);
	}
	stepper->cpu_s = cpu_s();
	return NULL;
}

/* --------------------------------------------------------------- the sides */

struct arrivals {
	struct bench *bench;
	side_fn *side;
	uint32_t from;
};

static void serve(void *opaque, uint32_t i)
{
	struct arrivals *arrivals = opaque;
	uint32_t at = arrivals->from + i;

	arrivals->side(arrivals->bench, &arrivals->bench->worker[0], at,
		       at + 1);
}

enum { P50, P99, P999, PERCENTILES };

static const double shares[PERCENTILES] = { 0.5, 0.99, 0.999 };

/* Half a pass of one side; latencies in microseconds. */
static void one_side(struct bench *bench, side_fn *side, uint32_t from,
		     double interval_s, double *latency, double us[PERCENTILES])
{
	struct arrivals arrivals = { bench, side, from };
	uint32_t count = bench->pages / 2;

	evict_caches(bench->evict);
	open_loop(serve, &arrivals, interval_s, count, latency, NULL);
	for (unsigned int i = 0; i < PERCENTILES; i++)
		us[i] = percentile(latency, count, shares[i]) * 1e6;
}

/* Seconds that bare LZ4 takes for a page. */
static double lz4_s(struct bench *bench, side_fn *lz4)
{
	uint32_t pages = bench->pages / SLICES;
	double start = cpu_s();

	lz4(bench, &bench->worker[0], 0, pages);
	return (cpu_s() - start) / pages;
}

/* Between arrivals: the same in all rounds, and for both sides. */
static double fixed_interval_s(struct bench *bench, bool put)
{
	static double fixed_s[2];

	if (!fixed_s[put])
		fixed_s[put] = lz4_s(bench, put ? lz4_put : lz4_get) *
			       (put ? PUT_SPACE : GET_SPACE);
	return fixed_s[put];
}

/* ----------------------------------------------------------------- figures */

struct names {
	const char *key[3 * PERCENTILES]; /* of ours, of LZ4's, of the ratio */
	const char *what[3 * PERCENTILES];
	const char *interval_key, *interval_what;
};

static const struct names put_names = {
	{ "put_p50_us", "put_p99_us", "put_p999_us", "put_lz4_p50_us",
	  "put_lz4_p99_us", "put_lz4_p999_us", "put_p50_ratio", "put_p99_ratio",
	  "put_p999_ratio" },
	{ "put, p50", "put, p99", "put, p99.9", "compressing by LZ4, p50",
	  "compressing by LZ4, p99", "compressing by LZ4, p99.9",
	  "put over LZ4, p50", "put over LZ4, p99", "put over LZ4, p99.9" },
	"put_interval_us",
	"puts are due each",
};

static const struct names get_names = {
	{ "get_p50_us", "get_p99_us", "get_p999_us", "get_lz4_p50_us",
	  "get_lz4_p99_us", "get_lz4_p999_us", "get_p50_ratio", "get_p99_ratio",
	  "get_p999_ratio" },
	{ "get, p50", "get, p99", "get, p99.9", "decoding by LZ4, p50",
	  "decoding by LZ4, p99", "decoding by LZ4, p99.9", "get over LZ4, p50",
	  "get over LZ4, p99", "get over LZ4, p99.9" },
	"get_interval_us",
	"gets are due each",
};

static void note(const struct names *names, double interval_s,
		 const double ours[PERCENTILES], const double lz4[PERCENTILES])
{
	figure_note("latency", names->interval_key, names->interval_what, "us",
		    interval_s * 1e6);
	for (unsigned int i = 0; i < PERCENTILES; i++)
		figure_note("latency", names->key[i], names->what[i], "us",
			    ours[i]);
	for (unsigned int i = 0; i < PERCENTILES; i++)
		figure_note("latency", names->key[PERCENTILES + i],
			    names->what[PERCENTILES + i], "us", lz4[i]);
	for (unsigned int i = 0; i < PERCENTILES; i++)
		figure_note("latency", names->key[2 * PERCENTILES + i],
			    names->what[2 * PERCENTILES + i], "x",
			    ours[i] / lz4[i]);
}

/* One half of the pass by one side, then the other half by the other. */
static void both_sides(struct bench *bench, bool put, unsigned int round)
{
	uint32_t half = bench->pages / 2;
	double *latency = calloc(half, sizeof(*latency));
	double ours[PERCENTILES], lz4[PERCENTILES], interval_s;

	if (!latency)
		die("no memory");
	order_keys(bench, 1, true);
	if (put)
		order_sources(bench);
	else
		find_sources(bench);
	interval_s = fixed_interval_s(bench, put);
	for (unsigned int i = 0; i < 2; i++) {
		if ((i + round) % 2)
			one_side(bench, put ? lz4_put : lz4_get, half,
				 interval_s, latency, lz4);
		else
			one_side(bench, put ? tmem_put : tmem_get, 0,
				 interval_s, latency, ours);
	}
	if (put)
		note_held(bench, 0, half);
	note(put ? &put_names : &get_names, interval_s, ours, lz4);
	free(latency);
}

void latency_run(struct bench *bench, unsigned int round)
{
	struct stepper stepper = { .store = bench->store };

	bench->tenant = bench->full;
	bench->steps = false;
	if (pthread_create(&stepper.thread, NULL, stepper_run, &stepper))
		die("cannot make a thread");
	both_sides(bench, true, round);
	both_sides(bench, false, round);
	atomic_store(&stepper.stop, true);
	pthread_join(stepper.thread, NULL);
	figure_note("latency", "background_s",
		    "CPU time of tmem_step() in a round", "s", stepper.cpu_s);
}
