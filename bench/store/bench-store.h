/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-store: libtmem against bare LZ4, on the same pages, in one process
 *
 *   measure.c   the two sides, taking turns; density
 *   report.c    medians, the table, the JSON file
 *   main.c      options and rounds
 */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include "bench.h"

/* ---------------------------------------------------------------- measure */

#define MAX_ROUNDS 32

enum row_id {
	PUT_OVERWRITE_1,
	PUT_OVERWRITE_16,
	PUT_GROW_1,
	PUT_GROW_16,
	GET_RANDOM_1,
	GET_RANDOM_16,
	PUT_2_THREADS,
	GET_2_THREADS,
	ROWS
};

/* What one round found about one row. */
struct sample {
	double tmem_us, lz4_us; /* a page: CPU time; wall time of two threads */
	/*
	 * The row's figure: tmem_us / lz4_us; with two threads the store's
	 * speed-up by the second one over bare LZ4's.
	 */
	double ratio;
	double wall_ratio;  /* the same by the wall clock */
	double lz4_speedup; /* by the second thread; 1 where there is none */
	/* CPU time of tmem_step() in between over the store's time. */
	double background;
};

/* Bytes held over bytes that LZ4 made of the same pages. */
struct density {
	uint32_t pages;
	double full_library, full_kernel;	/* after fill */
	double busy_library, busy_kernel;	/* during 3N overwrites */
	double churned_library, churned_kernel; /* after them, settled */
};

struct bench;

/* The corpus is used until bench_destroy(). */
struct bench *bench_create(struct corpus *corpus);
/* Reads every page back and compares it: a wrong one ends the program. */
void bench_verify(struct bench *bench);
void bench_destroy(struct bench *bench);
/* @round alternates who comes first.  False: needs more than one CPU. */
bool bench_row(struct bench *bench, enum row_id row, unsigned int round,
	       struct sample *sample);
/* Mean bytes of a page as LZ4 makes it; share of pages stored as they are. */
double bench_mean_length(struct bench *bench);
double bench_raw_share(struct bench *bench);
void density_measure(struct corpus *corpus, uint32_t pages,
		     struct density *density);

/* ----------------------------------------------------------------- report */

struct quartiles {
	double q1, median, q3;
};

/* All that was found about one corpus. */
struct result {
	struct corpus *corpus;
	double mean_length, raw_share;
	unsigned int rounds;
	bool measured[ROWS];
	struct sample sample[ROWS][MAX_ROUNDS];
	/* Of the whole corpus, and of a small VM's 8 MiB. */
	struct density whole, small;
};

struct run_facts {
	const char *commit;
	bool quick;
	double seconds;
};

/* A row's name in the JSON file and on the command line. */
const char *row_key(enum row_id row);
/* Quartiles of @count values, which are sorted. */
struct quartiles quartiles(double *values, unsigned int count);
/* Two threads on a machine that is busy say nothing: not measured. */
void drop_noise(struct result *result);
void print_table(const struct run_facts *facts, const struct result *results,
		 unsigned int count);
/* Complete or not at all: an old file stays if the new one cannot be written.
 */
void write_json(const char *path, const struct run_facts *facts,
		const struct result *results, unsigned int count);

#endif /* BENCH_STORE_H */
