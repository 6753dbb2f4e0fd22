/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a guest may do to have others pay: memory that stays when its pages are
 * gone, what cannot be taken back from it, structures that no limit knows.
 */
#include <pthread.h>
#include <unistd.h>

#include "store-fixture.h"

#define P TMEM_POOL_PERSISTENT

/* Sanitizers bring a malloc of their own, which gives nothing back. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MALLOC_IS_THE_LIBRARYS
#endif

/* A field of /proc/self/status, in bytes. */
static uint64_t status(const char *field)
{
	unsigned long long kib = 0;
	char line[200];
	FILE *file = fopen("/proc/self/status", "r");

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, field, strlen(field)))
			assert_int_equal(
				sscanf(line + strlen(field), ":%llu", &kib), 1);
	fclose(file);
	return kib * 1024;
}

static void flush_object(struct fixture *f, uint32_t pool, uint64_t object)
{
	assert_int_equal(run(f, f->ctx, TMEM_FLUSH_OBJECT, pool, object, 0, 0,
			     NULL, NULL, NULL),
			 0);
}

static void step_all(struct fixture *f)
{
	while (tmem_step(f->store, 4096))
		;
}

/* Many objects that are gone are no memory. */
static void flushed_objects_leave_nothing(void **state)
{
	uint64_t before;
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 1, 0);
	assert_int_equal(put(&f, 1, 0, 0, 0), TMEM_PAGE_OK);
	before = stats_of(&f).held_bytes;
	for (uint64_t i = 1; i <= 200000; i++)
		assert_int_equal(put(&f, 1, i, 0, 0), TMEM_PAGE_OK);
	for (uint64_t i = 1; i <= 200000; i++)
		flush_object(&f, 1, i);
	step_all(&f);
	tmem_shrink(f.store, 1);
	/* Blocks that are kept for the next: 256 KiB. */
	assert_true(stats_of(&f).held_bytes < before + MIB / 2);
	/* And those that remain are found, in a table of another size. */
	for (uint64_t i = 1; i <= 100; i++)
		assert_int_equal(put(&f, 1, i, 0, i), TMEM_PAGE_OK);
	for (uint64_t i = 0; i <= 100; i++)
		assert_int_equal(get(&f, 1, i, 0, i), TMEM_PAGE_OK);
	fixture_close(&f);
}

/* Nor do they keep their owner's pages from being taken. */
static void a_table_is_no_shelter(void **state)
{
	struct tmem_limits nothing = { .size = sizeof(nothing),
				       .ephemeral_max = TMEM_KEEP_NOTHING };
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 1, 0);
	for (uint64_t i = 1; i <= 200000; i++)
		assert_int_equal(put(&f, 1, i, 0, 0), TMEM_PAGE_OK);
	for (uint64_t i = 1; i <= 200000; i++)
		flush_object(&f, 1, i);
	for (uint64_t i = 0; i < 300000; i++)
		assert_int_equal(put(&f, 1, 0, i, 0), TMEM_PAGE_OK);
	assert_true(tmem_shrink(f.store, MIB) >= MIB / 2);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &nothing), 0);
	assert_int_equal(stats_of(&f).ephemeral_pages, 0);
	fixture_close(&f);
}

#ifdef MALLOC_IS_THE_LIBRARYS
/* A thread that fills a store with pages far apart, and flushes them. */
static void *scatter(void *arg)
{
	struct fixture *f = arg;
	struct tmem_ctx *ctx;
	struct tmem_page page = { .status = TMEM_PAGE_OK };
	uint64_t data[PAGE / 8] = { 0, 7 };

	if (tmem_ctx_create(f->store, &ctx))
		return NULL;
	for (uint64_t i = 1; page.status == TMEM_PAGE_OK; i++)
		run(f, ctx, TMEM_PUT, 0, 1, mix(i), 1, data, &page, NULL);
	run(f, ctx, TMEM_FLUSH_OBJECT, 0, 1, 0, 0, NULL, NULL, NULL);
	tmem_ctx_destroy(ctx);
	return f;
}

/* What is not held any more is the host's, whose heap it was in. */
static void freed_memory_is_the_hosts(void **state)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = 64 * MIB,
		.cgroup_headroom = TMEM_DO_NOT_LOOK,
		.host_headroom = TMEM_DO_NOT_LOOK,
	};
	struct tmem_limits limits = { .size = sizeof(limits) };
	struct fixture f = { 0 };
	uint64_t before;

	assert_int_equal(tmem_store_create(&config, &f.store), 0);
	assert_int_equal(tmem_tenant_open(f.store, "a", &limits, &f.tenant), 0);
	pool_open(&f, 0, P);
	before = status("VmRSS");
	for (unsigned int i = 0; i < 4; i++) {
		pthread_t thread;
		void *done;

		assert_int_equal(pthread_create(&thread, NULL, scatter, &f), 0);
		assert_int_equal(pthread_join(thread, &done), 0);
		assert_non_null(done);
		step_all(&f);
		assert_true(stats_of(&f).held_bytes < MIB);
	}
	assert_true(status("VmRSS") < before + 24 * MIB);
	tmem_tenant_drop(f.tenant);
	tmem_store_destroy(f.store);
}
#endif

/* Pools take memory that nothing has promised: then they need room. */
static void pools_need_room(void **state)
{
	struct tmem_pool_params params = { P, 12 };
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_reserved = 2 * MIB };
	uint64_t max = 2 * tmem_reservation_cost(2 * MIB);
	struct fixture f, g;
	unsigned int pools = 0;

	fixture_open(&f, max, 2 * MIB);
	g = f;
	assert_int_equal(
		tmem_tenant_open(f.store, "second", &limits, &g.tenant), 0);
	for (uint32_t id = 0; id < TMEM_MAX_POOLS; id++) {
		int error = tmem_pool_create(f.tenant, id, &params, NULL);

		assert_true(!error || error == -ENOMEM);
		pools += !error;
	}
	/* Some, whatever there is; not all. */
	assert_in_range(pools, 16, 32);
	pool_open(&g, 0, P);
	for (uint64_t i = 0; i < 2 * MIB / PAGE; i++) {
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
		assert_int_equal(put(&g, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	}
	assert_true(stats_of(&f).held_bytes <= max);
	tmem_tenant_drop(g.tenant);
	fixture_close(&f);
}

/* Who overwrites beside many idle pages has a step take nothing ahead for ever. */
static void taking_ahead_ends(void **state)
{
	uint64_t before;
	struct fixture f;

	for (uint32_t flags = 0; flags <= P; flags += P) {
		fixture_open(&f, 256 * MIB, 0);
		pool_open(&f, 0, flags);
		for (uint64_t i = 0; i < 1024; i++)
			assert_int_equal(put(&f, 0, 1, i, 4 * i + 3),
					 TMEM_PAGE_OK);
		flush(&f, 0, 1, 0, 320);
		before = stats_of(&f).held_bytes;
		for (unsigned int step = 0; step < 300; step++) {
			for (uint64_t i = 0; i < 300; i++)
				put(&f, 0, 1, 1000, 4 * i + 3);
			tmem_step(f.store, 256);
		}
		assert_true(stats_of(&f).held_bytes < before + MIB);
		while (tmem_step(f.store, 256))
			;
		assert_true(stats_of(&f).held_bytes < 704 * PAGE + MIB);
		fixture_close(&f);
	}
}

/* A limit of one's own is not met by taking others' pages. */
static void own_limit_takes_from_nobody(void **state)
{
	struct tmem_limits low = { .size = sizeof(low),
				   .persistent_max = 4 * MIB };
	struct fixture f, g;
	unsigned int refused = 0;

	fixture_open(&f, 128 * MIB, 0);
	g = f;
	assert_int_equal(tmem_tenant_open(f.store, "second", &low, &g.tenant),
			 0);
	pool_open(&f, 0, 0);
	pool_open(&g, 0, P);
	for (uint64_t i = 0; i < 5000; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < 3000; i++)
		refused += put(&g, 0, 1, i, 4 * i + 3) == TMEM_PAGE_REFUSED;
	assert_in_range(refused, 1900, 2100);
	assert_int_equal(stats_of(&f).ephemeral_pages, 5000);
	tmem_tenant_drop(g.tenant);
	fixture_close(&f);
}

/* Who says again what pools it has is told, however full the store is. */
static void pools_that_are_there_need_no_room(void **state)
{
	struct tmem_pool_params params = { P, 12 };
	struct fixture f;
	uint64_t held = 0, pages = 0;

	fixture_open(&f, 16 * MIB, 0);
	for (uint32_t id = 0; id < 40; id++)
		pool_open(&f, id, P);
	while (put(&f, 0, 1, pages, 4 * pages + 3) == TMEM_PAGE_OK)
		pages++;
	assert_int_equal(tmem_pool_create(f.tenant, 40, &params, NULL),
			 -ENOMEM);
	assert_int_equal(tmem_pool_create(f.tenant, 0, &params, &held), 0);
	assert_int_equal(held, pages);
	params.flags = 0;
	assert_int_equal(tmem_pool_create(f.tenant, 0, &params, NULL), -EEXIST);
	fixture_close(&f);
}

/* Freeze, shrink, and somebody else may have the memory. */
static void what_was_given_is_not_taken_back(void **state)
{
	uint64_t held;
	struct fixture f;

	fixture_open(&f, 256 * MIB, 0);
	pool_open(&f, 0, 0);
	for (uint64_t i = 0; i < 8000; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	tmem_tenant_freeze(f.tenant, true);
	assert_true(tmem_shrink(f.store, 4 * MIB) >= 4 * MIB);
	held = stats_of(&f).held_bytes;
	for (unsigned int i = 0; i < 20; i++) {
		tmem_step(f.store, 1024);
		assert_true(stats_of(&f).held_bytes <= held);
	}
	tmem_tenant_freeze(f.tenant, false);
	tmem_step(f.store, 1024);
	assert_true(stats_of(&f).held_bytes <= held);
	fixture_close(&f);
}

/* No page of a guest's passes through memory that may be swapped. */
static void scratch_is_locked(void **state)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.flags = TMEM_STORE_LOCK,
		.max_bytes = 64 * MIB,
		.cgroup_headroom = TMEM_DO_NOT_LOOK,
		.host_headroom = TMEM_DO_NOT_LOOK,
	};
	struct tmem_store *store;
	struct tmem_ctx *ctx;
	uint64_t before;

	assert_int_equal(tmem_store_create(&config, &store), 0);
	before = status("VmLck");
	assert_int_equal(tmem_ctx_create(store, &ctx), 0);
	assert_true(status("VmLck") >= before + 2 * 65536);
	tmem_ctx_destroy(ctx);
	assert_int_equal(status("VmLck"), before);
	tmem_store_destroy(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flushed_objects_leave_nothing),
		cmocka_unit_test(a_table_is_no_shelter),
#ifdef MALLOC_IS_THE_LIBRARYS
		cmocka_unit_test(freed_memory_is_the_hosts),
#endif
		cmocka_unit_test(pools_need_room),
		cmocka_unit_test(taking_ahead_ends),
		cmocka_unit_test(own_limit_takes_from_nobody),
		cmocka_unit_test(pools_that_are_there_need_no_room),
		cmocka_unit_test(what_was_given_is_not_taken_back),
		cmocka_unit_test(scratch_is_locked),
	};

	return RUN_IN_BOTH_LAYOUTS("store-abuse", tests, NULL);
}
