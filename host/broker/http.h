/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scrapers: who they are and what they get
 *
 * [metrics] listen= of the configuration says where.  One connection is one
 * GET /metrics.  What they cost is bounded: connections, their memory and time,
 * how many a second, and the work of one turn of the loop.
 */
#ifndef TMEM_BROKER_HTTP_H
#define TMEM_BROKER_HTTP_H

#include "broker.h"

/* At once; then the oldest that has not asked yet makes way. */
#define HTTP_CONNECTIONS 16
/* A second, and at once; then they wait to be accepted. */
#define HTTP_RATE  10
#define HTTP_BURST 20
/* All of a request, and all of an answer. */
#define HTTP_REQUEST_MS 5000
#define HTTP_ANSWER_MS	10000
/* A request has at most so many bytes; an answer is written so much at a time.
 */
#define HTTP_REQUEST_SIZE 4096
#define HTTP_BUFFER_SIZE  16384

/* Listen where the configuration says, close who is too slow; when to call it
 * again. */
uint64_t http_tick(struct broker *broker, uint64_t now);

/* Listen no more, and close all connections. */
void http_close(void);

#endif /* TMEM_BROKER_HTTP_H */
