/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The store asks for memory without a lock in hand, so anything may happen
 * while it waits.  Here it does: the memory hook plays the other threads, at
 * the same place in every run.
 */
#include "store-fixture.h"

#define P TMEM_POOL_PERSISTENT

/* ---------------------------------------------------- a region in the making */

static void fill_two_regions(void *arg)
{
	struct fixture *f = arg;
	struct tmem_ctx *mine = f->ctx;

	assert_int_equal(tmem_ctx_create(f->store, &f->ctx), 0);
	for (uint64_t i = 0; i < 72 * MIB / PAGE; i++)
		assert_int_equal(put(f, 0, 2, i, 4 * i + 3), TMEM_PAGE_OK);
	tmem_ctx_destroy(f->ctx);
	f->ctx = mine;
}

/*
 * A thread that begins to add a region of address space is held up while
 * others add that one and the next: what these hold must outlive it.
 */
static void slow_region_does_not_cut_the_file(void **state)
{
	struct fixture f;

	fixture_open(&f, 256 * MIB, 128 * MIB);
	pool_open(&f, 0, P);
	f.memory.hook = fill_two_regions;
	f.memory.hook_arg = &f;
	f.memory.hook_size = 100000; /* the descriptors of a region */
	assert_int_equal(put(&f, 0, 1, 0, 3), TMEM_PAGE_OK);
	assert_null(f.memory.hook);
	assert_int_equal(get(&f, 0, 1, 0, 3), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < 72 * MIB / PAGE; i++)
		assert_int_equal(get(&f, 0, 2, i, 4 * i + 3), TMEM_PAGE_OK);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_region_does_not_cut_the_file),
	};

	return cmocka_run_group_tests_name("store-law", tests, NULL, NULL);
}
