/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-store: libtmem against bare LZ4, on the same pages, in one process
 *
 *   main.c      options, what runs when, rounds within a time
 *   sides.c     the two sides, taking turns: sides.h
 *   rows.c      puts and gets over bare LZ4's; the checksum's share
 *   threads.c   the same of two threads
 *   density.c   held over compressed
 *   tenants.c   the same of many small tenants, in both layouts
 *   freed.c     memory back after nine tenths of the pages are freed
 *   latency.c   at a fixed rate of arrivals
 *   index.c     the index alone, up to 10^8 keys
 *   pages.c     gets among 5 x 10^6 real pages
 *   zram.c      zram beside, where the kernel has it
 *   guest.c     zram in a guest, where it has not, with guest.py
 *   figures.c   what all but rows and density found
 *   report.c    medians, the table
 *   json.c      the JSON file
 *   plot.py     a picture of that
 */
#ifndef BENCH_STORE_H
#define BENCH_STORE_H

#include <stdatomic.h>

#include "bench.h"

#define MAX_ROUNDS 32
/*
 * The QEMU device calls tmem_step() 10 ms after the first op of a quiet time,
 * and again until nothing is left: here after as many pages as one compresses
 * in that time.
 */
#define STEP_PAGES 256u
#define STEP_EVERY 1024u
#define GIB	   (1024 * MIB)

/* ------------------------------------------------------------------- rows */

enum row_id {
	PUT_OVERWRITE_1,
	PUT_OVERWRITE_16,
	PUT_GROW_1,
	PUT_GROW_16,
	GET_RANDOM_1,
	GET_RANDOM_16,
	PUT_HOT_1,
	PUT_HOT_16,
	GET_HOT_1,
	GET_HOT_16,
	PUT_2_THREADS,
	GET_2_THREADS,
	PUT_2_THREADS_OWN,
	GET_2_THREADS_OWN,
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

struct bench;

/* The corpus is used until bench_destroy(). */
struct bench *bench_create(struct corpus *corpus);
/* Reads every page back and compares it: a wrong one ends the program. */
void bench_verify(struct bench *bench);
void bench_destroy(struct bench *bench);
/* Mean bytes of a page as LZ4 makes it; share of pages stored as they are. */
double bench_mean_length(struct bench *bench);
double bench_raw_share(struct bench *bench);

/* @round alternates who comes first.  False: needs more than one CPU. */
bool bench_row(struct bench *bench, enum row_id row, unsigned int round,
	       struct sample *sample);
bool row_of_threads(enum row_id row);
/* The same, of two threads: @put or get, in one object or in two. */
bool threads_row(struct bench *bench, bool put, bool own, unsigned int round,
		 struct sample *sample);

/* ---------------------------------------------------------------- density */

/* Bytes held over bytes that LZ4 made of the same pages. */
struct held {
	double library, kernel; /* by whose count */
	/* The same less the MiB that a tenant may take. */
	double library_less, kernel_less;
};

struct density {
	const char *key; /* in the JSON file */
	uint32_t pages;	 /* 0: not measured */
	uint32_t made;	 /* of them not of the corpus, but made of its pages */
	double mean_length;
	struct held full, busy, churned; /* after fill, during and after
					    overwrites */
};

enum { DENSITIES = 3 };

/* A quick run leaves out the largest. */
void density_run(struct corpus *corpus, bool quick,
		 struct density density[DENSITIES]);
/* Of the first @pages pages of the corpus, or of more than it has. */
void density_measure(struct corpus *corpus, uint32_t pages,
		     struct density *density);
/* 64 tenants of 1 MiB in one store: tenants.c. */
void tenants_run(struct corpus *corpus);
/* Takes some three seconds, most of them waiting. */
void recompress_run(struct corpus *corpus);
/*
 * What the kernel has given to this process: private memory, page tables,
 * memfds.
 */
double kernel_bytes(void);
/* A number of kB in a file of /proc; 0 if there is none. */
double proc_kb(const char *path, const char *key);

/* ---------------------------------------------------------------- figures */

struct quartiles {
	double q1, median, q3;
};

struct figure {
	/* Where it is in the JSON file, and what the table calls it. */
	const char *group, *key, *what, *unit;
	double value[MAX_ROUNDS];
	unsigned int count; /* 0: not measured */
};

/*
 * One more round's value of a figure; all strings are used until the end.  A
 * value that is not finite was not measured.
 */
void figure_note(const char *group, const char *key, const char *what,
		 const char *unit, double value);
/* A group that this machine cannot do: null in the JSON file, and @why. */
void group_missing(const char *group, const char *why);
/* A group that was measured in a guest, of the kind @guest. */
void group_in_guest(const char *group, const char *guest);
/* A line about a group in the table. */
void group_say(const char *group, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* All that were noted, in that order, NULL behind the last. */
const struct figure *figure_at(unsigned int i);

struct group {
	const char *key, *title;
	const char *missing; /* why; NULL: it is there */
	const char *guest;   /* in which it was measured; NULL: none */
	char said[256];
	bool noted;
};

/* The groups in the order of the table, NULL behind the last. */
const struct group *group_at(unsigned int i);

/* ----------------------------------------------------------------- groups */

void freed_run(struct corpus *corpus, bool quick);
void mallocs_run(struct corpus *corpus);
/* One round. */
void latency_run(struct bench *bench, unsigned int round);
void checksum_run(struct bench *bench, const char *corpus, double single_us,
		  double run_us);
void index_run(bool quick);
void pages_run(struct corpus *corpus, double mean_length, bool quick);
/* What keeps zram from being measured on this machine; NULL: nothing. */
const char *zram_missing(void);
void zram_run(struct bench *bench, unsigned int rounds);
/* The same in a guest that the program @script runs: guest.py. */
void guest_run(const char *script, const struct corpus *corpus, bool quick);
/* The guest's part, of the pages in the file @path. */
void guest_inside(const char *path, unsigned int rounds);

/*
 * Calls @serve(@opaque, i) for i = 0, 1, ... at fixed times, @interval_s apart,
 * or at once when it is late; @latency[i]: seconds from when it was due until
 * it was done.  Ends after @count calls, or when @until, if there is one, is
 * set. Returns the calls.
 */
uint32_t open_loop(void (*serve)(void *opaque, uint32_t i), void *opaque,
		   double interval_s, uint32_t count, double *latency,
		   const atomic_bool *until);
/* The value that a part @share of @count values, which are sorted, is below. */
double percentile(double *values, uint32_t count, double share);

/* ----------------------------------------------------------------- report */

/* All that was found about one corpus. */
struct result {
	struct corpus *corpus;
	double mean_length, raw_share;
	unsigned int rounds;
	bool measured[ROWS];
	struct sample sample[ROWS][MAX_ROUNDS];
	struct density density[DENSITIES];
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
/* Quartiles over the rounds of the member at @offset of a row's samples. */
struct quartiles of_rounds(const struct result *result, enum row_id id,
			   size_t offset);
#define OF_ROUNDS(result, id, member)                                          \
	of_rounds(result, id, offsetof(struct sample, member))
/*
 * Rounds that count: all of one thread; of two those in which bare LZ4, which
 * shares nothing, had both CPUs.  A row with too few was not measured: 0.
 */
unsigned int usable_rounds(const struct result *result, enum row_id id);
/* The value of the first "KEY: value" line of a file of /proc. */
void proc_value(const char *path, const char *key, char *value, size_t size);
void print_table(const struct run_facts *facts, const struct result *results,
		 unsigned int count);
/* Complete or not at all: an old file stays if the new one cannot be written.
 */
void write_json(const char *path, const struct run_facts *facts,
		const struct result *results, unsigned int count);

#endif /* BENCH_STORE_H */
