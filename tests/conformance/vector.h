/* SPDX-License-Identifier: BSD-3-Clause */
/* One line of a vector file, parsed; suite.c carries it out. */
#ifndef CONFORMANCE_VECTOR_H
#define CONFORMANCE_VECTOR_H

#include "suite.h"

#define VEC_MAX_PAGES 4096 /* of one request in a vector */

/* What a page holds: made of a number, or a constant. */
struct vec_data {
	enum { VEC_ZERO, VEC_TEXT, VEC_RANDOM, VEC_SAME } kind;
	uint64_t seed;
};

/* Statuses that are right, a bit each. */
typedef uint32_t vec_statuses;

struct vec_request {
	uint16_t op, flags;
	uint32_t pool;
	uint8_t object[VIRTIO_TMEM_OBJECT_SIZE];
	uint64_t index, count;
	uint8_t reserved[16];
	struct vec_data *data; /* of a PUT */
	unsigned int num_data;
	unsigned int queue; /* number of the virtqueue */
	/* Bytes more or fewer than needed, or exactly so many. */
	long out, in;
	bool out_exact, in_exact;
	bool divided;	       /* else as a driver would */
	unsigned int division; /* bytes of a descriptor; 0: all in one */
};

struct vec_answer {
	bool needs_reset;
	vec_statuses statuses;
	bool has_done;
	uint64_t done;
	vec_statuses *pages; /* NULL: any */
	unsigned int num_pages;
	struct vec_data *data; /* of a GET */
	bool *data_any;	       /* not compared */
	unsigned int num_data;
	/* POOL_STATS: the fields that are given. */
	uint64_t stats[8];
	unsigned int has_stats; /* a bit each */
};

struct vec_line {
	struct vec_request request;
	struct vec_answer answer;
};

/* Symbols of numbers in a line; the rest is the device's configuration. */
struct vec_context {
	struct virtio_tmem_config config; /* in the host's byte order */
};

/*
 * Parse a request's line, @text is modified.  NULL, or what is wrong with it.
 * vec_free() frees what @line has, also after an error.
 */
const char *vec_parse(char *text, const struct vec_context *context,
		      struct vec_line *line);
void vec_free(struct vec_line *line);
/* A number, as it may stand in a line: 17, 0x11, -1, max_pages, max_pools+1. */
const char *vec_number(const char *text, const struct vec_context *context,
		       uint64_t *value);

void vec_fill(const struct vec_data *data, void *page, size_t size);

#endif /* CONFORMANCE_VECTOR_H */
