/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The broker's numbers as OpenMetrics 1.0, or as Prometheus' older text format
 *
 * docs/metrics.md lists them; their names stay.  An answer is made piece by
 * piece, so that none needs memory for all stores or keeps the broker from its
 * work: what is of the host is as of its begin, what is of a store as of when
 * its line is made.  A store that has gone meanwhile is in the rest no more.
 *
 * There are as many series of stores as the broker has stores, MAX_PEERS at
 * most.
 */
#ifndef TMEM_BROKER_METRICS_H
#define TMEM_BROKER_METRICS_H

#include "broker.h"

/* No piece is larger: what one call of metrics_next() needs room for. */
#define METRICS_PIECE 4096

#define METRICS_OPENMETRICS                                                    \
	"application/openmetrics-text; version=1.0.0; charset=utf-8"
#define METRICS_TEXT "text/plain; version=0.0.4; charset=utf-8"

/* What scrapers did, since the broker's start. */
struct metrics_scrapes {
	uint64_t answered;
	uint64_t failed; /* bad requests, too slow, gone before the end */
};

struct metrics_answer {
	bool openmetrics;
	unsigned int family;		  /* whose turn it is */
	bool headed;			  /* its HELP and TYPE are written */
	char after[TMEM_LEASE_NAME_SIZE]; /* the last store of it; "": none */
	struct tmem_lease_host host;
	uint64_t reclaimable;
	struct metrics_scrapes scrapes;
};

/* Once, before the first answer: the time of the start. */
void metrics_init(void);

/* Begin an answer. */
void metrics_begin(struct broker *broker, struct metrics_answer *answer,
		   bool openmetrics, const struct metrics_scrapes *scrapes);

/*
 * Write what comes next to @text, as much of it as goes into @size bytes, which
 * are METRICS_PIECE or more.  Bytes that were written; 0: that was all.
 */
size_t metrics_next(struct broker *broker, struct metrics_answer *answer,
		    char *text, size_t size);

#endif /* TMEM_BROKER_METRICS_H */
