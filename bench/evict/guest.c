/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guest: a page cache that loses what was not used for longest.  Its pages
 * are clean.  A miss is a get of the store, then, if need be, a read of a disk;
 * what the cache loses is put.
 */
#include <stdlib.h>

#include "evict.h"

void order_init(struct order *order, uint32_t pages)
{
	order->head = pages;
	order->next = zeroed((pages + 1) * sizeof(uint32_t));
	order->prev = zeroed((pages + 1) * sizeof(uint32_t));
	order->next[pages] = order->prev[pages] = pages;
}

void order_free(struct order *order)
{
	free(order->next);
	free(order->prev);
}

void order_push(struct order *order, uint32_t page)
{
	uint32_t first = order->next[order->head];

	order->next[page] = first;
	order->prev[page] = order->head;
	order->prev[first] = page;
	order->next[order->head] = page;
}

void order_remove(struct order *order, uint32_t page)
{
	order->next[order->prev[page]] = order->next[page];
	order->prev[order->next[page]] = order->prev[page];
}

struct outcome guest_run(const struct trace *trace, const struct policy *policy,
			 uint64_t bytes, bool take)
{
	void *cache = policy->make(policy, trace, bytes);
	bool *resident = zeroed(trace->pages * sizeof(bool));
	struct outcome outcome = { 0 };
	struct order order;
	uint32_t used = 0;

	order_init(&order, trace->pages);
	for (uint64_t i = 0; i < trace->length; i++) {
		uint32_t page = trace->access[i], last;

		if (resident[page]) {
			order_remove(&order, page);
			order_push(&order, page);
			continue;
		}
		if (i >= trace->warm)
			outcome.gets++;
		if (!policy->get(cache, page, take) && i >= trace->warm)
			outcome.misses++;
		resident[page] = true;
		order_push(&order, page);
		if (used++ < trace->guest)
			continue;
		used--;
		last = order_last(&order);
		order_remove(&order, last);
		resident[last] = false;
		policy->put(cache, last);
		outcome.puts++;
	}
	order_free(&order);
	free(resident);
	if (policy->copies)
		outcome.copies = policy->copies(cache);
	policy->end(cache);
	return outcome;
}
