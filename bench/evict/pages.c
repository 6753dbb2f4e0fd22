/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Policies that know each page, as libCacheSim has them: LRU, SIEVE, S3-FIFO
 * with 10 % of the bytes for its small queue and a ghost of as many bytes as
 * the other 90 %.  Each page takes its stored bytes and nothing else, which no
 * store can do: holes of all sizes would be all that it has.  So they are a
 * bound, not a candidate.
 */
#include <stdlib.h>

#include "evict.h"

enum where { OUT, SMALL, MAIN, GHOST, QUEUES };

struct pages {
	struct page_options by_page;
	const struct trace *trace;
	uint64_t bytes;
	uint64_t used[QUEUES];
	struct order queue[QUEUES]; /* first: the newest */
	uint8_t *where, *count;	    /* of gets */
	uint32_t hand;		    /* SIEVE's */
	bool has_evicted;
};

void *pages_make(const struct policy *policy, const struct trace *trace,
		 uint64_t bytes)
{
	struct pages *p = zeroed(sizeof(*p));

	p->by_page = policy->by_page;
	p->trace = trace;
	p->bytes = bytes;
	p->hand = NONE;
	p->where = zeroed(trace->pages);
	p->count = zeroed(trace->pages);
	for (unsigned int i = SMALL; i < QUEUES; i++)
		order_init(&p->queue[i], trace->pages);
	return p;
}

void pages_end(void *cache)
{
	struct pages *p = cache;

	for (unsigned int i = SMALL; i < QUEUES; i++)
		order_free(&p->queue[i]);
	free(p->where);
	free(p->count);
	free(p);
}

static void leave(struct pages *p, uint32_t page)
{
	enum where where = p->where[page];

	if (page == p->hand) {
		p->hand = p->queue[where].prev[page];
		if (p->hand == p->queue[where].head)
			p->hand = NONE;
	}
	order_remove(&p->queue[where], page);
	p->used[where] -= p->trace->size[page];
	p->where[page] = OUT;
}

static void enter(struct pages *p, uint32_t page, enum where where)
{
	order_push(&p->queue[where], page);
	p->used[where] += p->trace->size[page];
	p->where[page] = where;
}

static void haunt(struct pages *p, uint32_t page)
{
	uint64_t most = p->bytes / 10 * 9;

	enter(p, page, GHOST);
	while (p->used[GHOST] > most)
		leave(p, order_last(&p->queue[GHOST]));
}

static void sieve_evict(struct pages *p)
{
	uint32_t page = p->hand;

	for (;;) {
		if (page == NONE || page == p->queue[MAIN].head)
			page = order_last(&p->queue[MAIN]);
		if (!p->count[page])
			break;
		p->count[page] = 0;
		page = p->queue[MAIN].prev[page];
	}
	p->hand = page;
	leave(p, page);
}

static void s3fifo_evict_small(struct pages *p)
{
	while (p->used[SMALL]) {
		uint32_t page = order_last(&p->queue[SMALL]);

		leave(p, page);
		if (p->count[page] < p->by_page.threshold) {
			haunt(p, page);
			return;
		}
		p->count[page] = 0;
		enter(p, page, MAIN);
	}
}

static void s3fifo_evict_main(struct pages *p)
{
	while (p->used[MAIN]) {
		uint32_t page = order_last(&p->queue[MAIN]);

		leave(p, page);
		if (!p->count[page])
			return;
		p->count[page] = MIN(p->count[page], 3) - 1;
		enter(p, page, MAIN);
	}
}

static void evict(struct pages *p)
{
	p->has_evicted = true;
	if (p->by_page.kind == SIEVE)
		sieve_evict(p);
	else if (p->by_page.kind == LRU)
		leave(p, order_last(&p->queue[MAIN]));
	else if (p->used[MAIN] > p->bytes / 10 * 9 || !p->used[SMALL])
		s3fifo_evict_main(p);
	else
		s3fifo_evict_small(p);
}

bool pages_get(void *cache, uint32_t page, bool take)
{
	struct pages *p = cache;

	if (p->where[page] != SMALL && p->where[page] != MAIN)
		return false;
	if (take) {
		leave(p, page);
		/* That it was used is to be known when it comes back. */
		if (p->by_page.kind == S3FIFO)
			haunt(p, page);
		return true;
	}
	if (p->by_page.kind == LRU) {
		leave(p, page);
		enter(p, page, MAIN);
	} else if (p->count[page] < 250) {
		p->count[page]++;
	}
	return true;
}

void pages_put(void *cache, uint32_t page)
{
	struct pages *p = cache;
	enum where to = MAIN;

	if (p->where[page] == SMALL || p->where[page] == MAIN) {
		if (p->by_page.kind == LRU) {
			leave(p, page);
			enter(p, page, MAIN);
		}
		return;
	}
	if (p->where[page] == GHOST)
		leave(p, page);
	else if (p->by_page.kind == S3FIFO &&
		 (p->has_evicted || p->used[SMALL] < p->bytes / 10))
		to = SMALL;
	while (p->used[SMALL] + p->used[MAIN] + p->trace->size[page] > p->bytes)
		evict(p);
	p->count[page] = 0;
	enter(p, page, to);
}
