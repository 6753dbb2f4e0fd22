/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-vhost-client: what a request costs, without a guest
 *
 *   ring.c    targets behind a vhost-user socket: a tmem device, a block device
 *   local.c   targets in this process: bare LZ4, libtmem, the request server
 *   client.c  options, and rounds in which the targets take turns
 *
 * All targets get the same requests for the same pages.  One line on stdout a
 * sample; bench/bench-vhost makes medians, ratios and tables of them.
 */
#ifndef BENCH_VHOST_H
#define BENCH_VHOST_H

#include "bench.h"

#define MAX_RUN	  16u
#define MAX_DEPTH 32u

enum verb { PUT, GET };

struct row {
	const char *name;
	enum verb verb;
	unsigned int run;   /* pages in a request */
	unsigned int depth; /* requests in flight */
	bool spin;	    /* wait for the answer without sleeping */
	uint32_t ops;	    /* requests in a sample */
};

/* Requests to be made; keys are pages' numbers, runs begin at multiples. */
struct work {
	const struct row *row;
	uint32_t ops;
	const uint32_t *key; /* of each request's first page */
	/*
	 * Of each page of each put, or of each get if @check: which page of the
	 * corpus is put, or must be found.
	 */
	const uint32_t *source;
	bool check;
};

struct sample {
	double us_page;	     /* by the wall clock */
	double p50, p99;     /* us from submission to completion of a request */
	double kicks, calls; /* notifications a request, both ways */
};

struct target {
	const char *name;
	bool local;    /* in this process: no depth, no sleep */
	bool discards; /* what is read is not what was written */
	/* Ends the program where the target fails. */
	void (*run)(struct target *target, const struct work *work,
		    struct sample *sample);
	void (*destroy)(struct target *target);
	uint32_t *holds; /* by key: the page of the corpus */
};

/*
 * A back end that listens at @path.  @name, @path and @corpus stay.
 * The block device needs room for the corpus.
 */
struct target *target_tmem(const char *name, const char *path,
			   const struct corpus *corpus);
struct target *target_blk(const char *name, const char *path,
			  const struct corpus *corpus, bool discards);

struct target *target_lz4(const struct corpus *corpus);
struct target *target_library(const struct corpus *corpus);
struct target *target_server(const struct corpus *corpus);

/* --- for targets --- */

/* A request's latency in a sample. */
void note_latency(double us);

#endif /* BENCH_VHOST_H */
