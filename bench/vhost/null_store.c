/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A store that does nothing: the floor of everything around it
 *
 * It has libtmem's interface, as far as the request server and vhost-user-tmem
 * use it, and keeps the pages of one persistent pool where their index says, as
 * they are: one copy in, one copy out, no codec, no allocator, no limit.  What
 * is left of a request's time is the path's.  Linked with the back end it is
 * vhost-user-tmem-null, for bench-vhost alone: it trusts its guest with
 * max_bytes of memory.  For one VM, whose thread is the only one that changes
 * anything.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tmem/tmem.h"

#define PAGE 4096ull

struct tmem_store {
	uint8_t *memory; /* of all indexes that there can be */
	uint8_t *held;	 /* one byte an index */
	uint64_t num;
};

struct tmem_tenant {
	struct tmem_store *store;
	struct tmem_limits limits;
	struct tmem_pool_params pool[TMEM_MAX_POOLS];
	uint32_t keeps; /* the pool whose pages are kept */
	struct tmem_stats stats;
};

struct tmem_ctx {
	int unused;
};

/* ------------------------------------------------------------------ store */

int tmem_store_create(const struct tmem_store_config *config,
		      struct tmem_store **store)
{
	struct tmem_store *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->num = config->max_bytes / PAGE;
	s->held = calloc(s->num, 1);
	s->memory = mmap(NULL, s->num * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!s->held || s->memory == MAP_FAILED)
		return -ENOMEM;
	madvise(s->memory, s->num * PAGE, MADV_NOHUGEPAGE);
	*store = s;
	return 0;
}

void tmem_store_destroy(struct tmem_store *store)
{
	if (!store)
		return;
	munmap(store->memory, store->num * PAGE);
	free(store->held);
	free(store);
}

int tmem_store_set_max(struct tmem_store *store, uint64_t max_bytes)
{
	return 0;
}

uint64_t tmem_reservation_cost(uint64_t raw)
{
	return raw;
}

uint64_t tmem_reservation_fit(uint64_t max_bytes)
{
	return max_bytes;
}

int tmem_step_due(struct tmem_store *store)
{
	return -1;
}

unsigned int tmem_step(struct tmem_store *store, unsigned int pages)
{
	return 0;
}

int tmem_store_stats(struct tmem_store *store, struct tmem_stats *stats)
{
	*stats = (struct tmem_stats){ .size = sizeof(*stats) };
	return 0;
}

/* ----------------------------------------------------------------- tenant */

int tmem_tenant_open(struct tmem_store *store, const char *name,
		     const struct tmem_limits *limits,
		     struct tmem_tenant **tenant)
{
	struct tmem_tenant *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->store = store;
	t->limits = *limits;
	*tenant = t;
	tmem_tenant_reset(t);
	return 0;
}

void tmem_tenant_drop(struct tmem_tenant *tenant)
{
	free(tenant);
}

/* It has no memfds: nothing is kept of it, and nothing found. */
void tmem_tenant_set_cookie(struct tmem_tenant *tenant, uint64_t cookie)
{
}

uint64_t tmem_tenant_cookie(struct tmem_tenant *tenant)
{
	return 0;
}

void tmem_tenant_fds(struct tmem_tenant *tenant, int fd[TMEM_TENANT_FDS])
{
	fd[0] = fd[1] = -1;
}

int tmem_tenant_adopt(struct tmem_store *store, const char *name,
		      const struct tmem_limits *limits,
		      const int fd[TMEM_TENANT_FDS],
		      struct tmem_tenant **tenant)
{
	return -EINVAL;
}

void tmem_tenant_detach(struct tmem_tenant *tenant)
{
	tmem_tenant_drop(tenant);
}

int tmem_tenant_get_limits(struct tmem_tenant *tenant,
			   struct tmem_limits *limits)
{
	*limits = tenant->limits;
	return 0;
}

static void forget(struct tmem_tenant *tenant)
{
	memset(tenant->store->held, 0, tenant->store->num);
	/* As ours gives memory back: the next guest finds none ready. */
	madvise(tenant->store->memory, tenant->store->num * PAGE,
		MADV_DONTNEED);
	tenant->stats.persistent_pages = 0;
	tenant->keeps = TMEM_MAX_POOLS;
}

void tmem_tenant_reset(struct tmem_tenant *tenant)
{
	forget(tenant);
	memset(tenant->pool, 0, sizeof(tenant->pool));
}

int tmem_tenant_stats(struct tmem_tenant *tenant, struct tmem_stats *stats)
{
	*stats = tenant->stats;
	return 0;
}

unsigned int tmem_tenant_pressure(struct tmem_tenant *tenant)
{
	return 0;
}

int tmem_store_set_pressure(struct tmem_store *store, unsigned int level)
{
	return 0;
}

/* ------------------------------------------------------------------- pool */

int tmem_pool_create(struct tmem_tenant *tenant, uint32_t pool,
		     const struct tmem_pool_params *params, uint64_t *held)
{
	tenant->pool[pool] = *params;
	if (params->flags & TMEM_POOL_PERSISTENT &&
	    tenant->keeps == TMEM_MAX_POOLS)
		tenant->keeps = pool;
	if (held)
		*held = 0;
	return 0;
}

int tmem_pool_destroy(struct tmem_tenant *tenant, uint32_t pool)
{
	if (!tenant->pool[pool].page_shift)
		return -ENOENT;
	tenant->pool[pool].page_shift = 0;
	if (pool == tenant->keeps)
		forget(tenant);
	return 0;
}

int tmem_pool_query(struct tmem_tenant *tenant, uint32_t pool,
		    struct tmem_pool_params *params)
{
	*params = tenant->pool[pool];
	return params->page_shift ? 0 : -ENOENT;
}

int tmem_pool_stats(struct tmem_tenant *tenant, uint32_t pool,
		    struct tmem_stats *stats)
{
	*stats = tenant->stats;
	return tenant->pool[pool].page_shift ? 0 : -ENOENT;
}

/* -------------------------------------------------------------------- ops */

int tmem_ctx_create(struct tmem_store *store, struct tmem_ctx **ctx)
{
	*ctx = malloc(sizeof(**ctx));
	return *ctx ? 0 : -ENOMEM;
}

void tmem_ctx_destroy(struct tmem_ctx *ctx)
{
	free(ctx);
}

int tmem_ctx_fd(struct tmem_ctx *ctx)
{
	return -1;
}

/* Copy a page between @at and the pieces from @skip bytes on. */
static void copy(const struct tmem_op *op, size_t skip, uint8_t *at)
{
	const struct iovec *iov = op->iov;
	size_t left = PAGE;

	for (; skip >= iov->iov_len; iov++)
		skip -= iov->iov_len;
	for (; left; iov++, skip = 0) {
		size_t size =
			iov->iov_len - skip < left ? iov->iov_len - skip : left;
		uint8_t *guest = (uint8_t *)iov->iov_base + skip;

		if (op->verb == TMEM_PUT)
			memcpy(at, guest, size);
		else
			memcpy(guest, at, size);
		at += size;
		left -= size;
	}
}

static void put_or_get(struct tmem_tenant *tenant, struct tmem_op *op)
{
	struct tmem_store *store = tenant->store;
	bool kept = op->pool == tenant->keeps;

	for (uint64_t i = 0; i < op->count; i++) {
		uint64_t index = op->index + i;
		bool there = kept && index < store->num &&
			     (op->verb == TMEM_PUT || store->held[index]);

		op->page[i] = (struct tmem_page){
			.status = there			 ? TMEM_PAGE_OK
				  : op->verb == TMEM_PUT ? TMEM_PAGE_REFUSED
							 : TMEM_PAGE_MISS,
			.length = there ? PAGE : 0,
		};
		if (!there)
			continue;
		copy(op, op->skip + i * PAGE, store->memory + index * PAGE);
		op->done++;
		if (op->verb == TMEM_GET)
			tenant->stats.gets++;
		else
			tenant->stats.puts++;
		tenant->stats.persistent_pages += !store->held[index];
		store->held[index] = 1;
	}
}

static void flush(struct tmem_tenant *tenant, struct tmem_op *op)
{
	struct tmem_store *store = tenant->store;

	for (uint64_t i = 0; i < op->count && op->index + i < store->num; i++) {
		tenant->stats.persistent_pages -= store->held[op->index + i];
		store->held[op->index + i] = 0;
	}
	op->done = op->count;
}

int tmem_submit(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		struct tmem_op *op)
{
	op->done = 0;
	if (!tenant->pool[op->pool].page_shift)
		return -ENOENT;
	if (op->verb == TMEM_PUT || op->verb == TMEM_GET)
		put_or_get(tenant, op);
	else if (op->verb == TMEM_FLUSH && op->pool == tenant->keeps)
		flush(tenant, op);
	else
		op->done = op->count;
	return 0;
}

unsigned int tmem_poll(struct tmem_ctx *ctx)
{
	return 0;
}

void tmem_retire(struct tmem_ctx *ctx, struct tmem_op *op)
{
}

void tmem_unretire(struct tmem_ctx *ctx, struct tmem_op *op)
{
}
