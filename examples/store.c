// SPDX-License-Identifier: BSD-3-Clause
/*
 * libtmem in a program: keeps a page and a page that may vanish, gets them back,
 * changes limits, and makes room for somebody else
 *
 * cc store.c -o store $(pkg-config --cflags --libs --static libtmem)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tmem/tmem.h>

enum { PERSISTENT, EPHEMERAL }; /* pools: the caller numbers them */

static void must(int error, const char *what)
{
	if (error) {
		fprintf(stderr, "store: %s: %s\n", what, strerror(-error));
		exit(1);
	}
}

/* One page; what became of it.  An object is a file, or whatever has pages. */
static enum tmem_page_status run(struct tmem_ctx *ctx,
				 struct tmem_tenant *tenant,
				 enum tmem_verb verb, uint32_t pool,
				 uint64_t index, void *data)
{
	struct iovec iov = { .iov_base = data, .iov_len = 4096 };
	struct tmem_page page = { 0 };
	struct tmem_op op = {
		.verb = verb,
		.pool = pool,
		.object = "example",
		.index = index,
		.count = 1,
		.page_size = 4096,
		.iov = &iov,
		.iovcnt = 1,
		.page = &page,
	};

	must(tmem_submit(ctx, tenant, &op), "tmem_submit");
	tmem_retire(ctx, &op);
	return page.status;
}

/* Less for this tenant, and a part of it for one of its pools alone. */
static void limit(struct tmem_tenant *tenant)
{
	/* Of the reservation a half; of what may vanish 1 MiB, all in. */
	const struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = 8 << 20,
		.ephemeral_max = 1 << 20,
	};
	/* Of these the pool has a quarter to itself. */
	const struct tmem_pool_limits pool = { .size = sizeof(pool),
					       .reserved = 2 << 20 };

	must(tmem_tenant_set_limits(tenant, &limits), "tmem_tenant_set_limits");
	must(tmem_pool_set_limits(tenant, PERSISTENT, &pool),
	     "tmem_pool_set_limits");
}

/* Somebody needs 1 MiB now: pages that may vanish go for it, no other does. */
static void make_room(struct tmem_store *store, struct tmem_tenant *tenant)
{
	/* Or puts would take what is given back: they are -EAGAIN meanwhile. */
	tmem_tenant_freeze(tenant, true);
	printf("%llu bytes given back\n",
	       (unsigned long long)tmem_shrink(store, 1 << 20));
	/* Here whoever needs the memory takes it. */
	tmem_tenant_freeze(tenant, false);
}

int main(void)
{
	/* Room for 16 MiB that are promised, and 8 MiB for the rest. */
	const struct tmem_limits limits = { .size = sizeof(limits),
					    .persistent_reserved = 16 << 20 };
	const struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = tmem_reservation_cost(16 << 20) + (8 << 20),
	};
	const struct tmem_pool_params persistent = { TMEM_POOL_PERSISTENT, 12 };
	const struct tmem_pool_params ephemeral = { 0, 12 };
	static char data[4096] = "a page", got[4096];
	struct tmem_tenant *tenant;
	struct tmem_store *store;
	struct tmem_stats stats = { .size = sizeof(stats) };
	struct tmem_ctx *ctx;

	must(tmem_store_create(&config, &store), "tmem_store_create");
	must(tmem_tenant_open(store, "vm1", &limits, &tenant),
	     "tmem_tenant_open");
	must(tmem_ctx_create(store, &ctx), "tmem_ctx_create");
	must(tmem_pool_create(tenant, PERSISTENT, &persistent, NULL), "pool");
	must(tmem_pool_create(tenant, EPHEMERAL, &ephemeral, NULL), "pool");

	/* A put may be refused at any time; what it is told counts. */
	if (run(ctx, tenant, TMEM_PUT, PERSISTENT, 7, data) != TMEM_PAGE_OK)
		puts("refused: the caller keeps the page");
	run(ctx, tenant, TMEM_PUT, EPHEMERAL, 7, data);
	if (run(ctx, tenant, TMEM_GET, PERSISTENT, 7, got) != TMEM_PAGE_OK ||
	    memcmp(got, data, sizeof(got)))
		puts("never, for an accepted page");
	if (run(ctx, tenant, TMEM_GET, EPHEMERAL, 7, got) == TMEM_PAGE_MISS)
		puts("evicted: as it may be");

	limit(tenant);
	make_room(store, tenant);
	run(ctx, tenant, TMEM_FLUSH, PERSISTENT, 7, NULL);

	/* Idle, some 10 ms after ops: packs, and gives memory back. */
	while (tmem_step(store, 1024))
		;
	tmem_store_stats(store, &stats);
	printf("%llu pages in %llu bytes of the host, %llu puts\n",
	       (unsigned long long)(stats.persistent_pages +
				    stats.ephemeral_pages),
	       (unsigned long long)stats.held_bytes,
	       (unsigned long long)stats.puts);

	tmem_tenant_drop(tenant);
	tmem_ctx_destroy(ctx);
	tmem_store_destroy(store);
	return 0;
}
