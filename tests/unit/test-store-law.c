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

/* ------------------------------------------------- puts that meet one another */

/*
 * A tenant whose reservation is full to the last page, and whose index is so
 * sparse that no limit has room for more than what is guaranteed.
 */
static void open_full(struct fixture *f, uint64_t reserved)
{
	struct tmem_limits limits = {
		.persistent_reserved = reserved,
		.persistent_max = tmem_reservation_cost(reserved),
	};
	uint64_t pages = reserved / PAGE;

	fixture_open(f, tmem_reservation_cost(reserved), reserved);
	assert_int_equal(tmem_tenant_set_limits(f->tenant, &limits), 0);
	pool_open(f, 0, P);
	for (uint64_t i = 0; i < pages; i++)
		assert_int_equal(put(f, 0, 1, i < pages * 3 / 4 ? i << 32 : i,
				     4 * i + 3), TMEM_PAGE_OK);
	/* Beyond the reservation there is nothing to be had. */
	assert_int_equal(put(f, 0, 2, 0, 3), TMEM_PAGE_REFUSED);
}

struct overwrite {
	struct fixture *f;
	uint64_t index, seed;
	int status;
};

static void overwrite(void *arg)
{
	struct overwrite *o = arg;
	struct fixture g = *o->f;

	assert_int_equal(tmem_ctx_create(g.store, &g.ctx), 0);
	o->status = put(&g, 0, 1, o->index, o->seed);
	tmem_ctx_destroy(g.ctx);
}

/* Two that overwrite at the same time: neither uses the other's page up. */
static void overwrites_do_not_refuse_one_another(void **state)
{
	struct overwrite o = { .index = 1ull << 32, .seed = 2 };
	struct fixture f;

	open_full(&f, 2 * MIB);
	o.f = &f;
	f.memory.hook = overwrite;
	f.memory.hook_arg = &o;
	assert_int_equal(put(&f, 0, 1, 0, 1), TMEM_PAGE_OK);
	assert_null(f.memory.hook);
	assert_int_equal(o.status, TMEM_PAGE_OK);
	assert_int_equal(get(&f, 0, 1, 0, 1), TMEM_PAGE_OK);
	assert_int_equal(get(&f, 0, 1, o.index, o.seed), TMEM_PAGE_OK);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_region_does_not_cut_the_file),
		cmocka_unit_test(overwrites_do_not_refuse_one_another),
	};

	return cmocka_run_group_tests_name("store-law", tests, NULL, NULL);
}
