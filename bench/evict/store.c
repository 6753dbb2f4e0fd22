/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The store itself, as the policies beside it: an ephemeral pool of a library that
 * keeps as many bytes of a page as the trace says (an opaque one), under a limit.
 * What the others do not count it has beside: its index and its descriptors.
 */
#include <stdlib.h>

#include "evict.h"
#include "tmem/tmem.h"

/* Bytes of these for a page, and once; docs/store.md, "What a page costs". */
#define BESIDE_A_PAGE 24u
#define BESIDE	      (1u << 18)
#define STEP_EVERY    256u

struct library {
	const struct trace *trace;
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_ctx *ctx;
	unsigned int puts;
	char page[4096];
};

void *store_make(const struct policy *policy, const struct trace *trace,
		 uint64_t bytes)
{
	struct tmem_pool_params params = { TMEM_POOL_OPAQUE, 12 };
	struct tmem_limits limits = { .size = sizeof(limits) };
	struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes =
			bytes + BESIDE +
			bytes * trace->pages / trace->bytes * BESIDE_A_PAGE,
		.cgroup_headroom = TMEM_DO_NOT_LOOK,
		.host_headroom = TMEM_DO_NOT_LOOK,
	};
	struct library *library = zeroed(sizeof(*library));

	library->trace = trace;
	if (tmem_store_create(&config, &library->store) ||
	    tmem_tenant_open(library->store, "evict", &limits,
			     &library->tenant) ||
	    tmem_pool_create(library->tenant, 0, &params, NULL) ||
	    tmem_ctx_create(library->store, &library->ctx))
		die("cannot make a store");
	return library;
}

/* Was the page there, or accepted? */
static bool submit(struct library *library, uint32_t page, uint16_t verb,
		   uint16_t flags)
{
	struct tmem_page result = {
		.length = verb == TMEM_PUT && library->trace->size[page]
				  ? library->trace->size[page]
				  : 1,
	};
	struct iovec iov = { library->page, sizeof(library->page) };
	struct tmem_op op = {
		.verb = verb,
		.flags = flags,
		.index = page,
		.count = 1,
		.page_size = sizeof(library->page),
		.iov = &iov,
		.iovcnt = 1,
		.page = &result,
	};

	if (tmem_submit(library->ctx, library->tenant, &op))
		die("an op is refused");
	tmem_retire(library->ctx, &op);
	return result.status == TMEM_PAGE_OK;
}

bool store_get(void *cache, uint32_t page, bool take)
{
	return submit(cache, page, TMEM_GET, take ? TMEM_GET_EXCLUSIVE : 0);
}

void store_put(void *cache, uint32_t page)
{
	struct library *library = cache;

	submit(library, page, TMEM_PUT, 0);
	if (++library->puts % STEP_EVERY == 0)
		tmem_step(library->store, STEP_EVERY);
}

void store_end(void *cache)
{
	struct library *library = cache;

	tmem_ctx_destroy(library->ctx);
	tmem_tenant_drop(library->tenant);
	tmem_store_destroy(library->store);
	free(library);
}
