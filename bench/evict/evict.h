/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which pages should an ephemeral pool lose?  A simulator of policies.
 *
 *   trace.c   which pages of which sizes a guest's programs use, in order
 *   guest.c   the guest's page cache: what it misses is got, what it evicts put
 *   pages.c   policies that know each page: LRU, SIEVE, S3-FIFO
 *   spans.c   policies that know spans, as the store has them
 *   store.c   the store
 *   main.c    runs all of them, a table, JSON
 */
#ifndef EVICT_H
#define EVICT_H

#include "bench.h"

#define NONE UINT32_MAX
#ifndef MIN
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#endif

struct trace {
	const char *name;
	uint32_t pages; /* that it names: 0 .. pages - 1 */
	uint64_t length;
	uint64_t warm;	/* accesses that are not counted */
	uint32_t guest; /* pages of the guest's cache */
	uint32_t *access;
	uint16_t *size; /* stored bytes of a page */
	uint64_t bytes; /* of all of them */
};

struct trace *trace_zipf(const char *name, uint32_t pages, uint64_t length,
			 double alpha);
/* Over and over the same pages in order. */
struct trace *trace_loop(const char *name, uint32_t pages, uint64_t length);
/* Zipf, and in between bursts of pages that never come again. */
struct trace *trace_scan(const char *name, uint32_t pages, uint64_t length);
/* Zipf over one half of the pages, then over the other. */
struct trace *trace_shift(const char *name, uint32_t pages, uint64_t length);
/* What bench/evict/record.py has written. */
struct trace *trace_file(const char *name, const char *path);
void trace_free(struct trace *trace);

/* What sets policies on spans apart. */
struct span_options {
	unsigned int queues; /* 1, or 2: small, main */
	bool visited;	     /* what was got stays once more */
	bool whole;	     /* ... with its span, where half of it was */
	bool fill;	     /* main gets what comes until one is evicted */
	bool ghost;	     /* who comes back soon goes to main */
	bool young;	     /* a page in an old span's hole stays once more */
};

/* The same for policies on pages. */
struct page_options {
	enum { LRU, SIEVE, S3FIFO } kind;
	unsigned int threshold; /* S3-FIFO: gets that move a page to main */
};

struct policy {
	const char *name, *what;
	void *(*make)(const struct policy *policy, const struct trace *trace,
		      uint64_t bytes);
	/* A get: was it a hit?  @take: an exclusive one. */
	bool (*get)(void *cache, uint32_t page, bool take);
	void (*put)(void *cache, uint32_t page);
	void (*end)(void *cache);
	/* Pages copied so that their span could go. */
	uint64_t (*copies)(void *cache);
	struct page_options by_page;
	struct span_options by_span;
};

void *pages_make(const struct policy *policy, const struct trace *trace,
		 uint64_t bytes);
bool pages_get(void *cache, uint32_t page, bool take);
void pages_put(void *cache, uint32_t page);
void pages_end(void *cache);

void *spans_make(const struct policy *policy, const struct trace *trace,
		 uint64_t bytes);
bool spans_get(void *cache, uint32_t page, bool take);
void spans_put(void *cache, uint32_t page);
void spans_end(void *cache);
uint64_t spans_copies(void *cache);

void *store_make(const struct policy *policy, const struct trace *trace,
		 uint64_t bytes);
bool store_get(void *cache, uint32_t page, bool take);
void store_put(void *cache, uint32_t page);
void store_end(void *cache);

struct outcome {
	uint64_t gets, misses, puts, copies;
};

/* Run a trace through the guest's cache and then @bytes of a policy's. */
struct outcome guest_run(const struct trace *trace, const struct policy *policy,
			 uint64_t bytes, bool take);

/* Keys in the order in which they were used, the last first: for all LRUs. */
struct order {
	uint32_t *next, *prev; /* [head]: the head */
	uint32_t head;
};
void order_init(struct order *order, uint32_t pages);
void order_free(struct order *order);
void order_push(struct order *order, uint32_t page);
void order_remove(struct order *order, uint32_t page);
static inline uint32_t order_last(const struct order *order)
{
	return order->prev[order->head];
}

void *zeroed(size_t bytes);

#endif /* EVICT_H */
