/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The host's memory: taken by segments, ahead of who grows, kept for who overwrites,
 * given back by who frees; and what of it was held at most.
 */
#include "store-fixture.h"

#define P TMEM_POOL_PERSISTENT

/* A peak is no less than what is held, also of what has never grown. */
static void peak_is_what_is_held_at_least(void **state)
{
	struct tmem_stats tenant = { .size = sizeof(tenant) }, store = tenant,
			  pool = tenant;
	struct fixture f;

	fixture_open(&f, 256 * MIB, 0);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 3; i++) {
		tmem_tenant_stats(f.tenant, &tenant);
		tmem_store_stats(f.store, &store);
		tmem_pool_stats(f.tenant, 0, &pool);
		assert_true(tenant.held_bytes > 0);
		assert_true(tenant.held_peak_bytes >= tenant.held_bytes);
		assert_true(store.held_peak_bytes >= store.held_bytes);
		assert_true(pool.held_peak_bytes >= pool.held_bytes);
		put(&f, 0, 1, i, i);
	}
	/* And what was held at most, after it is gone. */
	for (uint64_t i = 0; i < 4096; i++)
		put(&f, 0, 1, i, 4 * i + 3);
	tmem_store_stats(f.store, &store);
	flush(&f, 0, 1, 0, 4096);
	while (tmem_step(f.store, 4096))
		;
	tmem_shrink(f.store, UINT64_MAX);
	tmem_tenant_stats(f.tenant, &tenant);
	assert_true(tenant.held_bytes < store.held_bytes / 4);
	assert_true(tenant.held_peak_bytes >= 4096 * PAGE);
	fixture_close(&f);
}

/* What was freed goes back to the host, compaction included. */
static void memory_goes_back(void **state)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	struct fixture f;
	uint64_t live = 0;

	fixture_open(&f, 256 * MIB, 0);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 20000; i++)
		assert_int_equal(put(&f, 0, 1, i, i), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < 20000; i++) {
		if (mix(i) % 10)
			flush(&f, 0, 1, i, 1);
		else
			live++;
	}
	while (tmem_step(f.store, 256))
		;
	fixture_check(&f);
	tmem_tenant_stats(f.tenant, &stats);
	assert_int_equal(stats.persistent_pages, live);
	assert_true(stats.held_bytes < stats.stored_bytes * 13 / 10 + 2 * MIB);
	for (uint64_t i = 0; i < 20000; i++)
		assert_int_equal(get(&f, 0, 1, i, i),
				 mix(i) % 10 ? TMEM_PAGE_MISS : TMEM_PAGE_OK);
	flush(&f, 0, 1, 0, 20000);
	while (tmem_step(f.store, 256))
		;
	tmem_shrink(f.store, UINT64_MAX);
	tmem_tenant_stats(f.tenant, &stats);
	assert_true(stats.held_bytes < MIB);
	fixture_close(&f);
}

/* Who grows finds memory that a step has taken ahead; who stops gives it back. */
static void growth_finds_memory(void **state)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	const unsigned int pages = 400; /* of 25 segments */
	struct fixture f;
	uint64_t index = 0;
	long calls = 0;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 0, P);
	f.memory.only_fallocate = true;
	for (unsigned int round = 0; round < 20; round++) {
		long before = atomic_load(&f.memory.calls);

		for (unsigned int i = 0; i < pages; i++, index++)
			assert_int_equal(put(&f, 0, 1, index, 4 * index + 3),
					 TMEM_PAGE_OK);
		if (round >= 5)
			calls += atomic_load(&f.memory.calls) - before;
		tmem_step(f.store, 1024);
	}
	/* Without it 25 a round. */
	assert_true(calls < 15 * 10);
	for (unsigned int i = 0; i < 30; i++)
		tmem_step(f.store, 1024);
	tmem_tenant_stats(f.tenant, &stats);
	assert_true(stats.held_bytes <
		    stats.stored_bytes * 102 / 100 + MIB / 2);
	fixture_close(&f);
}

/* What overwriting frees it needs again: it is not given back in between. */
static void overwriting_keeps_its_memory(void **state)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	struct fixture f;
	long before = 0;

	fixture_open(&f, 64 * MIB, 32 * MIB);
	pool_open(&f, 0, P);
	f.memory.only_fallocate = true; /* calls are of fallocate() alone */
	for (uint64_t round = 0; round < 40; round++) {
		for (uint64_t i = 0; i < 1000; i++)
			assert_int_equal(
				put(&f, 0, 1, i,
				    4 * (1000 * round + i) + 1 + round % 2),
				TMEM_PAGE_OK);
		while (tmem_step(f.store, 256) >= 256)
			;
		if (round == 9)
			before = atomic_load(&f.memory.calls);
	}
	/*
	 * A round takes some 100 spans: 30 by fallocate(), for holes that are
	 * too short; more than 40 if all that is idle goes back.
	 */
	assert_true(atomic_load(&f.memory.calls) - before < 30 * 35);
	/* Quiet, the store has soon what it needs and no more. */
	for (unsigned int i = 0; i < 30; i++)
		tmem_step(f.store, 256);
	assert_int_equal(tmem_step(f.store, 256), 0);
	tmem_tenant_stats(f.tenant, &stats);
	assert_true(stats.held_bytes < stats.stored_bytes * 11 / 10 + MIB);
	fixture_close(&f);
}

/* A call of the host's costs more than a page: one gets a segment's 16. */
static void growth_is_by_segments(void **state)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	struct fixture f;
	long calls;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 0, P);
	f.memory.only_fallocate = true; /* calls are of fallocate() alone */
	atomic_store(&f.memory.calls, 0);
	for (uint64_t i = 0; i < 1600; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	calls = atomic_load(&f.memory.calls);
	/* And 4 blocks of index: of objects, and three sizes of leaves. */
	assert_in_range(calls, 1600 / 16, 1600 / 16 + 1 + 5);
	tmem_tenant_stats(f.tenant, &stats);
	assert_in_range(stats.held_bytes, 1600 * PAGE,
			1600 * PAGE + 16 * PAGE + MIB / 2);
	fixture_close(&f);
}

/* A page is not refused because there is no memory for 15 more. */
static void a_segment_in_vain_is_no_refusal(void **state)
{
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 0, P);
	/* Its object and its leaf are there. */
	assert_int_equal(put(&f, 0, 1, 31, 0), TMEM_PAGE_OK);
	f.memory.only_fallocate = true;
	atomic_store(&f.memory.calls, 0);
	f.memory.once = true;
	atomic_store(&f.memory.fail_at, 1);
	for (uint64_t i = 0; i < 15; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	/* The second for the first page, and one for each other. */
	assert_int_equal(atomic_load(&f.memory.calls), 16);
	for (uint64_t i = 0; i < 15; i++)
		assert_int_equal(get(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(peak_is_what_is_held_at_least),
		cmocka_unit_test(memory_goes_back),
		cmocka_unit_test(growth_finds_memory),
		cmocka_unit_test(overwriting_keeps_its_memory),
		cmocka_unit_test(growth_is_by_segments),
		cmocka_unit_test(a_segment_in_vain_is_no_refusal),
	};

	return RUN_IN_BOTH_LAYOUTS("store-memory", tests, NULL);
}
