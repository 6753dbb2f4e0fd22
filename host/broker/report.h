/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines for people, on stderr: the journal adds time and unit.
 */
#ifndef TMEM_BROKER_REPORT_H
#define TMEM_BROKER_REPORT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "limiter.h"

#define report(format, ...)                                                    \
	fprintf(stderr, "tmem-broker: " format "\n", ##__VA_ARGS__)

#define fatal(...)                                                             \
	do {                                                                   \
		report(__VA_ARGS__);                                           \
		exit(1);                                                       \
	} while (0)

/*
 * A line about what somebody did, @who: ten a minute for each limiter, the last
 * of which says that there will be no more, and LINES_OF_ALL in all.
 */
#define LINES_OF_ALL 200u

void report_some(struct limiter *limiter, const char *who, const char *format,
		 ...) __attribute__((format(printf, 3, 4)));

/* CLOCK_MONOTONIC, the only clock there is here. */
uint64_t now_ms(void);

#endif /* TMEM_BROKER_REPORT_H */
