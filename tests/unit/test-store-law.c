/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The store asks for memory without a lock in hand, so anything may happen
 * while it waits.  Here it does: the memory hook plays the other threads, at
 * the same place in every run.
 */
#include <signal.h>
#include <sys/mman.h>
#include "store-fixture.h"

#define P TMEM_POOL_PERSISTENT

/* ---------------------------------------------------- a region in the making
 */

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

/* ------------------------------------------------- puts that meet one another
 */

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
				     4 * i + 3),
				 TMEM_PAGE_OK);
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

/* -------------------------------------------- guest memory that faults in */

/* Pages that fault; the handler plays what happens in the meantime. */
static char *guest;
static void (*meanwhile)(struct fixture *f, unsigned int page);
static struct fixture *faulting;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	size_t at = (char *)info->si_addr - guest;
	unsigned int page = at / PAGE;

	/* The op runs in this thread and holds nothing: see tmem.h, 6. */
	if (at >= 3 * PAGE ||
	    mprotect(guest + page * PAGE, PAGE, PROT_READ | PROT_WRITE))
		abort();
	make_page(guest + page * PAGE, page + 1, PAGE);
	meanwhile(faulting, page);
}

/* A put or get of 3 pages of object 1, each of which faults. */
static void run_faulting(struct fixture *f, uint16_t verb,
			 void (*what)(struct fixture *f, unsigned int page))
{
	const struct sigaction action = { .sa_sigaction = on_fault,
					  .sa_flags = SA_SIGINFO | SA_NODEFER };
	struct tmem_page page[3];
	struct sigaction old;

	guest = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		     0);
	assert_true(guest != MAP_FAILED);
	faulting = f;
	meanwhile = what;
	assert_int_equal(sigaction(SIGSEGV, &action, &old), 0);
	assert_int_equal(run(f, f->ctx, verb, 0, 1, 0, 3, guest, page, NULL),
			 0);
	sigaction(SIGSEGV, &old, NULL);
	munmap(guest, 3 * PAGE);
}

static void flush_object_then_check(struct fixture *f, unsigned int page)
{
	struct fixture g = *f;

	assert_int_equal(tmem_ctx_create(g.store, &g.ctx), 0);
	if (page == 1) {
		assert_int_equal(run(&g, g.ctx, TMEM_FLUSH_OBJECT, 0, 1, 0, 0,
				     NULL, NULL, NULL),
				 0);
		while (tmem_step(g.store, 100))
			;
		assert_int_equal(put(&g, 0, 1, 5, 7), TMEM_PAGE_OK);
	}
	fixture_check(&g);
	tmem_ctx_destroy(g.ctx);
}

static void destroy_then_check(struct fixture *f, unsigned int page)
{
	struct tmem_stats before, after;

	tmem_tenant_stats(f->tenant, &before);
	if (page == 1)
		assert_int_equal(tmem_pool_destroy(f->tenant, 0), 0);
	/* Counters only grow. */
	tmem_tenant_stats(f->tenant, &after);
	assert_true(before.puts > 0 && after.puts >= before.puts);
	while (tmem_step(f->store, 100))
		;
	fixture_check(f);
}

/* Structures are whole while an op waits, also for what has ended under it. */
static void check_while_ops_wait(void **state)
{
	static const uint16_t verb[] = { TMEM_PUT, TMEM_GET };
	struct tmem_stats stats;
	struct fixture f;

	fixture_open(&f, 64 * MIB, 4 * MIB);
	for (unsigned int i = 0; i < 2; i++) {
		pool_open(&f, 0, P);
		put(&f, 0, 1, 0, 1);
		put(&f, 0, 1, 1, 2);
		run_faulting(&f, verb[i], flush_object_then_check);
		/* The late pages went with the object that they were for. */
		assert_int_equal(get(&f, 0, 1, 1, 0), TMEM_PAGE_MISS);
		assert_int_equal(get(&f, 0, 1, 5, 7), TMEM_PAGE_OK);
		put(&f, 0, 1, 0, 1);
		put(&f, 0, 1, 1, 2);
		run_faulting(&f, verb[i], destroy_then_check);
		fixture_check(&f);
		assert_int_equal(tmem_tenant_persistent_raw(f.tenant), 0);
		while (tmem_step(f.store, 100))
			;
		tmem_tenant_stats(f.tenant, &stats);
		assert_int_equal(stats.draining_pages, 0);
	}
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_region_does_not_cut_the_file),
		cmocka_unit_test(overwrites_do_not_refuse_one_another),
		cmocka_unit_test(check_while_ops_wait),
	};

	return cmocka_run_group_tests_name("store-law", tests, NULL, NULL);
}
