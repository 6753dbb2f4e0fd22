/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The store asks for memory without a lock in hand, so anything may happen
 * while it waits.  Here it does: the memory hook plays the other threads, at
 * the same place in every run.
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
#include "store-fixture.h"
#include "internal.h"

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
	f.memory.hook_size = 11000; /* the descriptors of a group of segments */
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
		.size = sizeof(limits),
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

/*
 * An op of 3 pages of object 1, in a thread of its own, in which each page
 * faults until the main thread lets it go on.
 */
static struct {
	struct fixture *f;
	uint16_t verb;
	char *guest;
	sem_t waits, goes_on;
	int page; /* that faults; -1: the op is over */
	int error;
	uint8_t status[3];
	uint64_t word[3]; /* the first of each page that was OK */
} slow;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	size_t at = (char *)info->si_addr - slow.guest;

	if (at >= 3 * PAGE)
		abort();
	slow.page = at / PAGE;
	sem_post(&slow.waits);
	while (sem_wait(&slow.goes_on))
		;
}

static void *slow_op(void *arg)
{
	struct tmem_page page[3];

	slow.error = run(slow.f, slow.f->ctx, slow.verb, 0, 1, 0, 3, slow.guest,
			 page, NULL);
	for (unsigned int i = 0; i < 3; i++) {
		slow.status[i] = page[i].status;
		/* Others may never have been touched. */
		if (page[i].status == TMEM_PAGE_OK)
			memcpy(&slow.word[i], slow.guest + i * PAGE,
			       sizeof(slow.word[i]));
	}
	slow.page = -1;
	sem_post(&slow.waits);
	return NULL;
}

/* Runs @what while the op waits for each of the pages that it touches. */
static void run_faulting(struct fixture *f, uint16_t verb,
			 void (*what)(struct fixture *f, unsigned int page))
{
	const struct sigaction action = { .sa_sigaction = on_fault,
					  .sa_flags = SA_SIGINFO };
	struct sigaction old;
	pthread_t thread;

	slow.f = f;
	slow.verb = verb;
	slow.guest = mmap(NULL, 3 * PAGE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(slow.guest != MAP_FAILED);
	sem_init(&slow.waits, 0, 0);
	sem_init(&slow.goes_on, 0, 0);
	assert_int_equal(sigaction(SIGSEGV, &action, &old), 0);
	assert_int_equal(pthread_create(&thread, NULL, slow_op, NULL), 0);
	alarm(60); /* a lock that is held: die, do not hang */
	for (;;) {
		char *page;

		while (sem_wait(&slow.waits))
			;
		if (slow.page < 0)
			break;
		page = slow.guest + slow.page * PAGE;
		what(f, slow.page);
		assert_int_equal(mprotect(page, PAGE, PROT_READ | PROT_WRITE),
				 0);
		make_page(page, slow.page + 1, PAGE);
		sem_post(&slow.goes_on);
	}
	alarm(0);
	pthread_join(thread, NULL);
	assert_int_equal(slow.error, 0);
	sigaction(SIGSEGV, &old, NULL);
	munmap(slow.guest, 3 * PAGE);
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
	struct tmem_stats before = { .size = sizeof(before) }, after = before;

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
	struct tmem_stats stats = { .size = sizeof(stats) };
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

/* The number of pool 0 goes to another pool, which has other pages. */
static void remake_pool(struct fixture *f, unsigned int page)
{
	struct fixture g = *f;

	if (page != 1)
		return;
	assert_int_equal(tmem_pool_destroy(f->tenant, 0), 0);
	pool_open(f, 0, P);
	assert_int_equal(tmem_ctx_create(g.store, &g.ctx), 0);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(put(&g, 0, 1, i, 101 + i), TMEM_PAGE_OK);
	tmem_ctx_destroy(g.ctx);
}

/*
 * A pool ends under an op, and its number begins anew: the op goes on in the
 * pool in which it began, page by page (dev.op.pool).
 */
static void op_stays_in_its_pool(void **state)
{
	uint64_t page[PAGE / 8];
	struct fixture f;

	fixture_open(&f, 64 * MIB, 4 * MIB);
	pool_open(&f, 0, P);
	run_faulting(&f, TMEM_PUT, remake_pool);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(get(&f, 0, 1, i, 101 + i), TMEM_PAGE_OK);
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(put(&f, 0, 1, i, 1 + i), TMEM_PAGE_OK);
	run_faulting(&f, TMEM_GET, remake_pool);
	assert_int_equal(slow.status[0], TMEM_PAGE_OK);
	for (unsigned int i = 0; i < 3; i++) {
		make_page(page, 1 + i, PAGE);
		if (slow.status[i] == TMEM_PAGE_OK)
			assert_int_equal(slow.word[i], page[0]);
	}
	fixture_close(&f);
}

static unsigned int taken, beside_checks;

/*
 * tmem_check() must not see an op that makes room, by packing or by giving
 * memory back, half done: whoever takes memory keeps it out.
 */
static void ask_quiesce(void *arg)
{
	struct fixture *f = arg;

	if (!pthread_rwlock_trywrlock(&f->store->quiesce)) {
		pthread_rwlock_unlock(&f->store->quiesce);
		beside_checks++;
	}
	f->memory.hook = ask_quiesce;
	taken++;
}

static void memory_is_taken_under_quiesce(void **state)
{
	struct fixture f;

	fixture_open(&f, 64 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	pool_open(&f, 1, 0);
	f.memory.hook_arg = &f;
	f.memory.hook = ask_quiesce;
	taken = beside_checks = 0;
	/* Objects alone, leaves alone, pages alone take blocks and spans. */
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(put(&f, i % 2, i, 1ull << i % 60, 0),
				 TMEM_PAGE_OK);
		assert_int_equal(put(&f, i % 2, 5, i, 3), TMEM_PAGE_OK);
	}
	f.memory.hook = NULL;
	assert_true(taken > 50);
	assert_int_equal(beside_checks, 0);
	fixture_close(&f);
}

/* ------------------------------------------------- who writes among readers */

/* Nobody reads who wants to, as somebody waits to write. */
static bool writer_waits(pthread_rwlock_t *lock)
{
	if (pthread_rwlock_tryrdlock(lock))
		return true;
	pthread_rwlock_unlock(lock);
	return false;
}

static void *limit_pool(void *arg)
{
	struct tmem_pool_limits limits = { .size = sizeof(limits),
					   .weight = 7 };
	struct fixture *f = arg;

	assert_int_equal(tmem_pool_set_limits(f->tenant, 0, &limits), 0);
	return NULL;
}

static struct {
	pthread_t thread;
	bool waited;
} limiter;

/* A put takes memory; until it has it, somebody waits to write quiesce. */
static void limit_beside_a_put(void *arg)
{
	struct fixture *f = arg;

	assert_int_equal(pthread_create(&limiter.thread, NULL, limit_pool, f),
			 0);
	for (unsigned int ms = 0; ms < 20000 && !limiter.waited; ms++) {
		usleep(1000);
		limiter.waited = writer_waits(&f->store->quiesce);
	}
}

/*
 * Ops read quiesce, and are never all over at once: they let in who waits to
 * write, before more of them begin.
 */
static void ops_let_writers_in(void **state)
{
	struct tmem_pool_limits now = { .size = sizeof(now) };
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 0, P);
	memset(&limiter, 0, sizeof(limiter));
	f.memory.hook_arg = &f;
	f.memory.hook = limit_beside_a_put;
	assert_int_equal(put(&f, 0, 1, 0, 3), TMEM_PAGE_OK);
	assert_null(f.memory.hook);
	pthread_join(limiter.thread, NULL);
	assert_true(limiter.waited);
	assert_int_equal(tmem_pool_get_limits(f.tenant, 0, &now), 0);
	assert_int_equal(now.weight, 7);
	fixture_close(&f);
}

/* --------------------------------------------------- tenants beside others */

static void open_other(struct fixture *f, struct fixture *other)
{
	struct tmem_limits none = { .size = sizeof(none) };

	*other = *f;
	assert_int_equal(
		tmem_tenant_open(f->store, "other", &none, &other->tenant), 0);
}

/*
 * Who is dropped waits for pages of its own.  Others' pools may end as fast as
 * anybody drains them, and it would never be over.
 */
static void drop_drains_its_own(void **state)
{
	struct fixture f, other;

	fixture_open(&f, 64 * MIB, 0);
	open_other(&f, &other);
	for (uint32_t id = 0; id < 4; id++) {
		pool_open(&f, id, 0);
		pool_open(&other, id, 0);
		for (uint64_t i = 0; i < 100; i++) {
			assert_int_equal(put(&f, id, 1, i, 3), TMEM_PAGE_OK);
			assert_int_equal(put(&other, id, 1, i, 3),
					 TMEM_PAGE_OK);
		}
		/* In turns in the list of what drains. */
		assert_int_equal(tmem_pool_destroy(f.tenant, id), 0);
		if (id % 2)
			assert_int_equal(tmem_pool_destroy(other.tenant, id),
					 0);
	}
	assert_int_equal(stats_of(&f).draining_pages, 600);
	tmem_tenant_drop(other.tenant);
	assert_int_equal(stats_of(&f).draining_pages, 400);
	assert_int_equal(stats_of(&f).ephemeral_pages, 0);
	fixture_close(&f);
}

/*
 * A store that packs: each span that is empty is freed, with tenants_lock and
 * its arena's in hand.  Then @on_span_free is called, on the thread that packs.
 */
static void (*on_span_free)(struct fixture *f);

static void packing_free(void *opaque, void *ptr)
{
	struct fixture *f =
		(void *)((char *)opaque - offsetof(struct fixture, memory));

	failing_free(opaque, ptr);
	if (on_span_free)
		on_span_free(f);
}

static void open_packing(struct fixture *f)
{
	static struct tmem_memory_ops memory;
	struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = 256 * MIB,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
		.memory = &memory,
		.memory_opaque = &f->memory,
	};
	struct tmem_limits none = { .size = sizeof(none) };

	memory = failing_ops;
	memory.free = packing_free;
	memset(f, 0, sizeof(*f));
	assert_int_equal(tmem_store_create(&config, &f->store), 0);
	assert_int_equal(
		tmem_tenant_open(f->store, "packed", &none, &f->tenant), 0);
	assert_int_equal(tmem_ctx_create(f->store, &f->ctx), 0);
}

/* Pages of which packing empties some 4000 spans. */
static void fill_to_pack(struct fixture *f)
{
	pool_open(f, 0, P);
	for (uint64_t i = 0; i < 60000; i++)
		assert_int_equal(put(f, 0, 1, i, 4 * i + 1), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < 60000; i++)
		if (i % 8)
			flush(f, 0, 1, i, 1);
}

static struct fixture beside;

static struct {
	pthread_t thread;
	bool begun, waits;
	unsigned int spans, waited; /* that were emptied: all, meanwhile */
} opener;

static void *open_beside(void *arg)
{
	struct tmem_limits none = { .size = sizeof(none) };

	assert_int_equal(tmem_tenant_open(beside.store, "other", &none,
					  &beside.tenant),
			 0);
	return NULL;
}

static void open_while_packing(struct fixture *f)
{
	pthread_rwlock_t *lock = &f->store->tenants_lock;

	opener.spans++;
	if (!opener.begun) {
		opener.begun = true;
		assert_int_equal(pthread_create(&opener.thread, NULL,
						open_beside, NULL),
				 0);
		alarm(60);
		while (!writer_waits(lock))
			usleep(1000);
		alarm(0);
		opener.waits = true;
	} else if (opener.waits) {
		opener.waits = writer_waits(lock);
		opener.waited += opener.waits;
	}
}

/*
 * A tenant that is opened waits for a turn of what packs, which empties no more
 * spans than it moves pages; statistics would wait for it.
 */
static void packing_lets_tenants_come(void **state)
{
	struct fixture f;

	open_packing(&f);
	fill_to_pack(&f);
	beside = f; /* here, as its counters change while it packs */
	memset(&opener, 0, sizeof(opener));
	on_span_free = open_while_packing;
	tmem_shrink(f.store, UINT64_MAX);
	on_span_free = NULL;
	pthread_join(opener.thread, NULL);
	assert_true(opener.spans > 2 * TENANTS_TURN);
	assert_true(opener.waited <= TENANTS_TURN);
	tmem_tenant_drop(beside.tenant);
	fixture_close(&f);
}

static void *limit_and_put(void *arg)
{
	struct tmem_pool_limits limits = { .size = sizeof(limits),
					   .reserved = 64 * PAGE };

	assert_int_equal(tmem_pool_set_limits(beside.tenant, 0, &limits), 0);
	assert_int_equal(put(&beside, 0, 1, 1, 7), TMEM_PAGE_OK);
	return NULL;
}

static void limit_while_packing(struct fixture *f)
{
	pthread_t thread;

	on_span_free = NULL;
	assert_int_equal(pthread_rwlock_trywrlock(&f->store->tenants_lock),
			 EBUSY);
	alarm(60); /* it waits: die, do not hang */
	assert_int_equal(pthread_create(&thread, NULL, limit_and_put, NULL), 0);
	pthread_join(thread, NULL);
	alarm(0);
	taken++;
}

/*
 * tmem_pool_set_limits() keeps out all ops.  It waits for theirs, and not for
 * who walks the tenants, or all ops would.
 */
static void pool_limits_do_not_wait_for_packing(void **state)
{
	struct tmem_limits reserved = { .size = sizeof(reserved),
					.persistent_reserved = MIB };
	struct fixture f;

	open_packing(&f);
	fill_to_pack(&f);
	open_other(&f, &beside);
	assert_int_equal(tmem_tenant_set_limits(beside.tenant, &reserved), 0);
	assert_int_equal(tmem_ctx_create(f.store, &beside.ctx), 0);
	pool_open(&beside, 0, P);
	assert_int_equal(put(&beside, 0, 1, 1, 3), TMEM_PAGE_OK);
	taken = 0;
	on_span_free = limit_while_packing;
	tmem_shrink(f.store, UINT64_MAX);
	on_span_free = NULL;
	assert_int_equal(taken, 1);
	assert_int_equal(get(&beside, 0, 1, 1, 7), TMEM_PAGE_OK);
	tmem_ctx_destroy(beside.ctx);
	tmem_tenant_drop(beside.tenant);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slow_region_does_not_cut_the_file),
		cmocka_unit_test(overwrites_do_not_refuse_one_another),
		cmocka_unit_test(check_while_ops_wait),
		cmocka_unit_test(op_stays_in_its_pool),
		cmocka_unit_test(memory_is_taken_under_quiesce),
		cmocka_unit_test(ops_let_writers_in),
		cmocka_unit_test(drop_drains_its_own),
		cmocka_unit_test(packing_lets_tenants_come),
		cmocka_unit_test(pool_limits_do_not_wait_for_packing),
	};

	return cmocka_run_group_tests_name("store-law", tests, NULL, NULL);
}
