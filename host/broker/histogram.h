/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long things take, by powers of two
 */
#ifndef TMEM_BROKER_HISTOGRAM_H
#define TMEM_BROKER_HISTOGRAM_H

#include <stdint.h>

/* Bucket i has what took at most 2^i ms, the last what took longer: 33 s. */
#define HISTOGRAM_BUCKETS 17

struct histogram {
	uint64_t count[HISTOGRAM_BUCKETS]; /* of this bucket alone */
	uint64_t sum_ms;
};

static inline void histogram_add(struct histogram *histogram, uint64_t ms)
{
	unsigned int i = 0;

	while (i < HISTOGRAM_BUCKETS - 1 && ms > 1ull << i)
		i++;
	histogram->count[i]++;
	histogram->sum_ms += ms;
}

#endif /* TMEM_BROKER_HISTOGRAM_H */
