/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which ephemeral pages go: those that nobody asked for, not those that are
 * used; and what that may cost.
 */
#include "store-fixture.h"
#undef MIN
#undef MIB
#include "internal.h"

#define ROOM (4 * MIB + 80 * 1024) /* which are for the tenant */
/* Some 2700 pages of that kind fit into ROOM; a tenth of them for what is new.
 */
#define KIND  1
#define HOT   200
#define OTHER 1000000

static int put_page(struct fixture *f, uint64_t n)
{
	return put(f, 1, n / 64, n % 64, 4 * n + KIND);
}

static bool get_page(struct fixture *f, uint64_t n)
{
	return get(f, 1, n / 64, n % 64, 4 * n + KIND) == TMEM_PAGE_OK;
}

/* A get that removes it. */
static bool take_page(struct fixture *f, uint64_t n)
{
	uint64_t data[PAGE / 8], object = n / 64;
	struct iovec iov = { data, PAGE };
	struct tmem_page page;
	struct tmem_op op = { .verb = TMEM_GET,
			      .flags = TMEM_GET_EXCLUSIVE,
			      .pool = 1,
			      .index = n % 64,
			      .count = 1,
			      .iov = &iov,
			      .iovcnt = 1,
			      .page = &page,
			      .page_size = PAGE };

	memcpy(op.object, &object, sizeof(object));
	assert_int_equal(tmem_submit(f->ctx, f->tenant, &op), 0);
	tmem_retire(f->ctx, &op);
	return page.status == TMEM_PAGE_OK;
}

/* Pages that are put once, and that nobody gets: @count of them. */
static void scan(struct fixture *f, uint64_t *next, uint64_t count)
{
	while (count--)
		assert_int_equal(put_page(f, OTHER + (*next)++), TMEM_PAGE_OK);
}

static void put_hot(struct fixture *f)
{
	for (uint64_t n = 0; n < HOT; n++)
		assert_int_equal(put_page(f, n), TMEM_PAGE_OK);
}

static unsigned int get_hot(struct fixture *f)
{
	unsigned int hits = 0;

	for (uint64_t n = 0; n < HOT; n++)
		hits += get_page(f, n);
	return hits;
}

/* A store that is full of what nobody wants. */
static void open_full(struct fixture *f, uint64_t *next)
{
	*next = 0;
	fixture_open(f, ROOM, 0);
	pool_open(f, 1, 0);
	scan(f, next, 6000);
	assert_true(stats_of(f).evictions > 2000);
}

static void a_get_protects(void **state)
{
	struct fixture f;
	uint64_t next;

	open_full(&f, &next);
	put_hot(&f);
	for (unsigned int round = 0; round < 20; round++) {
		assert_in_range(get_hot(&f), HOT * 95 / 100, HOT);
		scan(&f, &next, 500);
	}
	fixture_close(&f);
}

/* Seen once more is enough, for a scan of several times the store. */
static void a_scan_does_not_flush(void **state)
{
	struct fixture f;
	uint64_t next;

	open_full(&f, &next);
	put_hot(&f);
	get_hot(&f);
	scan(&f, &next, 15000);
	assert_in_range(get_hot(&f), HOT * 95 / 100, HOT);
	fixture_close(&f);
}

/* What nobody has asked for does not stay, nor what was used long ago. */
static void what_is_not_used_goes(void **state)
{
	struct fixture f;
	uint64_t next;

	open_full(&f, &next);
	put_hot(&f);
	scan(&f, &next, 1000);
	assert_in_range(get_hot(&f), 0, HOT / 20);
	put_hot(&f);
	get_hot(&f);
	/* Others that are used take the place of what is not any more. */
	for (uint64_t n = 0; n < 12000; n++) {
		assert_int_equal(put_page(&f, OTHER * 2 + n), TMEM_PAGE_OK);
		assert_true(get_page(&f, OTHER * 2 + n));
	}
	assert_in_range(get_hot(&f), 0, HOT / 20);
	fixture_close(&f);
}

/* A guest that takes what it gets brings it back: it was used. */
static void taken_pages_are_known(void **state)
{
	struct fixture f;
	uint64_t next;

	open_full(&f, &next);
	put_hot(&f);
	for (uint64_t n = 0; n < HOT; n++)
		assert_true(take_page(&f, n));
	scan(&f, &next, 1000);
	put_hot(&f);
	scan(&f, &next, 15000);
	assert_in_range(get_hot(&f), HOT * 90 / 100, HOT);
	fixture_close(&f);
}

/* So was what is brought again soon after it was evicted. */
static void lost_pages_are_known(void **state)
{
	struct fixture f;
	uint64_t next;

	open_full(&f, &next);
	put_hot(&f);
	scan(&f, &next, 700);
	assert_in_range(get_hot(&f), 0, HOT / 20);
	put_hot(&f);
	scan(&f, &next, 15000);
	assert_in_range(get_hot(&f), HOT * 90 / 100, HOT);
	fixture_close(&f);
}

/* A large file, then many small ones: looking for one does not take longer. */
static void table_of_a_full_store_grows(void **state)
{
	struct tmem_pool *pool;
	struct fixture f;

	fixture_open(&f, 32 * MIB, 0);
	pool_open(&f, 1, 0);
	for (uint64_t n = 0; n < 32 * MIB / PAGE; n++)
		assert_int_equal(put(&f, 1, 1, n, 4 * n + 3), TMEM_PAGE_OK);
	assert_true(stats_of(&f).evictions > 0);
	for (uint64_t n = 0; n < 100000; n++)
		assert_int_equal(put(&f, 1, 2 + n, 0, 4 * n), TMEM_PAGE_OK);
	pool = pool_get(f.tenant, 1);
	print_message("# %u buckets, %llu objects\n", pool->buckets,
		      (unsigned long long)pool->num_objects);
	assert_true(pool->num_objects > 50000);
	assert_true(pool->buckets > pool->num_objects / 2);
	pool_put(pool);
	fixture_close(&f);
}

static uint64_t refaults_of_hot(struct fixture *f)
{
	uint64_t before = stats_of(f).refaults;

	get_hot(f);
	return stats_of(f).refaults - before;
}

/* What was lost lately and is missed is what more memory would have kept. */
static void refaults_are_counted(void **state)
{
	struct fixture f;
	uint64_t next;

	open_full(&f, &next);
	/* Never there, or gone before there was an end to what was lost. */
	assert_in_range(refaults_of_hot(&f), 0, 1);
	put_hot(&f);
	scan(&f, &next, 700);
	assert_in_range(refaults_of_hot(&f), HOT * 90 / 100, HOT);
	/* Who asks again for what it has not put is not counted again. */
	assert_in_range(refaults_of_hot(&f), 0, 1);
	put_hot(&f);
	assert_int_equal(refaults_of_hot(&f), 0);
	/* What its owner has taken was not lost. */
	for (uint64_t n = 0; n < HOT; n++)
		assert_true(take_page(&f, n));
	assert_in_range(refaults_of_hot(&f), 0, 1);
	assert_true(stats_of(&f).misses >= stats_of(&f).refaults);
	fixture_close(&f);
}

/* Nor does who never evicts ask what was lost, nor swap. */
static void no_refaults_where_nothing_was_evicted(void **state)
{
	struct fixture f;

	fixture_open(&f, ROOM, 0);
	pool_open(&f, 1, 0);
	put_hot(&f);
	assert_int_equal(get(&f, 1, 77, 0, 1), TMEM_PAGE_MISS);
	assert_int_equal(stats_of(&f).misses, 1);
	assert_int_equal(stats_of(&f).refaults, 0);
	fixture_close(&f);
}

/* A guest that puts what is still there has used it. */
static void rewritten_pages_stay(void **state)
{
	struct fixture f;
	uint64_t next;

	open_full(&f, &next);
	put_hot(&f);
	assert_int_equal(get_hot(&f), HOT);
	put_hot(&f);
	scan(&f, &next, 15000);
	assert_in_range(get_hot(&f), HOT * 95 / 100, HOT);
	fixture_close(&f);
}

/* Who comes to an old span's hole is not as old as the span. */
static void holes_do_not_age(void **state)
{
	struct fixture f;
	unsigned int hits = 0;
	uint64_t next;

	open_full(&f, &next);
	/* The oldest of the new ones, most of which must still be there. */
	for (uint64_t n = next - 260; n < next - 200; n++)
		hits += take_page(&f, OTHER + n);
	assert_true(hits > 40);
	for (uint64_t n = 0; n < hits; n++)
		assert_int_equal(put_page(&f, n), TMEM_PAGE_OK);
	scan(&f, &next, 220);
	for (uint64_t n = 0; n < hits; n++)
		assert_true(get_page(&f, n));
	fixture_close(&f);
}

/* Of a loop that is nearly three times as large as the store a third is found.
 */
static void a_loop_is_kept_in_part(void **state)
{
	unsigned int hits = 0;
	struct fixture f;

	fixture_open(&f, ROOM, 0);
	pool_open(&f, 1, 0);
	for (unsigned int round = 0; round < 4; round++) {
		hits = 0;
		for (uint64_t n = 0; n < 8000; n++) {
			hits += get_page(&f, n);
			assert_int_equal(put_page(&f, n), TMEM_PAGE_OK);
		}
	}
	assert_in_range(hits, 1500, 2900);
	fixture_close(&f);
}

/* Packing does not mix what is used with what is new. */
static void packing_keeps_ages(void **state)
{
	struct fixture f;
	uint64_t next;

	open_full(&f, &next);
	put_hot(&f);
	get_hot(&f);
	scan(&f, &next, 6000);
	for (uint64_t n = 0; n < next; n++)
		if (n % 3)
			flush(&f, 1, (OTHER + n) / 64, (OTHER + n) % 64, 1);
	for (uint64_t n = HOT / 2; n < HOT; n++)
		flush(&f, 1, n / 64, n % 64, 1);
	while (tmem_step(f.store, 256))
		;
	fixture_check(&f);
	assert_true(stats_of(&f).held_bytes <
		    stats_of(&f).stored_bytes * 4 / 3 + MIB);
	scan(&f, &next, 15000);
	assert_in_range(get_hot(&f), HOT / 2 * 95 / 100, HOT / 2);
	fixture_close(&f);
}

/*
 * Eviction visits no more spans than it says, and gets somewhere though each
 * page was used: incompressible pages are a span each.
 */
static void work_is_bounded(void **state)
{
	const uint64_t pages = 4096;
	uint64_t before, freed;
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 1, 0);
	for (uint64_t i = 0; i < pages; i++)
		assert_int_equal(put(&f, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	freed = arena_evict(&f.tenant->ephemeral, UINT64_MAX);
	assert_in_range(freed, 512 * PAGE, 1024 * PAGE);
	assert_int_equal(stats_of(&f).evictions, freed / PAGE);
	fixture_check(&f);
	for (unsigned int round = 0; round < 10; round++) {
		for (uint64_t i = 0; i < pages; i++)
			get(&f, 1, 1, i, 4 * i + 3);
		before = stats_of(&f).evictions;
		freed = arena_evict(&f.tenant->ephemeral, 64 * 1024);
		assert_in_range(freed, PAGE, 64 * 1024);
		assert_int_equal(stats_of(&f).evictions - before, freed / PAGE);
		fixture_check(&f);
	}
	fixture_close(&f);
}

/* All pages are used: limits and weights hold all the same, no put is refused.
 */
static void limits_hold(void **state)
{
	struct tmem_limits limits[2] = { { .size = sizeof(*limits),
					   .weight = 300 },
					 { .size = sizeof(*limits),
					   .weight = 100,
					   .ephemeral_max = 6 * MIB } };
	struct fixture f[2];
	uint64_t raw[2];

	fixture_open(&f[0], 24 * MIB, 0);
	f[1] = f[0];
	assert_int_equal(tmem_tenant_open(f[0].store, "second", &limits[1],
					  &f[1].tenant),
			 0);
	assert_int_equal(tmem_tenant_set_limits(f[0].tenant, &limits[0]), 0);
	for (unsigned int i = 0; i < 2; i++)
		pool_open(&f[i], 1, 0);
	for (uint64_t n = 0; n < 30000; n++)
		for (unsigned int i = 0; i < 2; i++) {
			assert_int_equal(put_page(&f[i], n), TMEM_PAGE_OK);
			assert_true(get_page(&f[i], n));
			get_page(&f[i], n - n % 1000);
		}
	for (unsigned int i = 0; i < 2; i++) {
		struct tmem_stats stats = { .size = sizeof(stats) };

		tmem_tenant_stats(f[i].tenant, &stats);
		raw[i] = stats.held_bytes;
	}
	fixture_check(&f[0]);
	assert_in_range(raw[1], 5 * MIB, 6 * MIB + MIB / 4);
	assert_in_range(raw[0] + raw[1], 24 * MIB - MIB, 24 * MIB + MIB / 4);
	limits[1].ephemeral_max = 2 * MIB;
	assert_int_equal(tmem_tenant_set_limits(f[1].tenant, &limits[1]), 0);
	fixture_check(&f[0]);
	tmem_tenant_drop(f[1].tenant);
	fixture_close(&f[0]);
}

/* Persistent pages are in one queue, and no word says that it is another. */
static void persistent_pages_have_no_age(void **state)
{
	struct arena *arena;
	struct fixture f;

	fixture_open(&f, 8 * MIB, 0);
	pool_open(&f, 0, TMEM_POOL_PERSISTENT);
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
		assert_int_equal(get(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 2), TMEM_PAGE_OK);
		assert_int_equal(get(&f, 0, 1, i, 4 * i + 2), TMEM_PAGE_OK);
	}
	arena = &f.tenant->persistent;
	assert_true(list_empty(&arena->spans[QUEUE_MAIN]));
	/* That no word has one is for the check. */
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_get_protects),
		cmocka_unit_test(a_scan_does_not_flush),
		cmocka_unit_test(what_is_not_used_goes),
		cmocka_unit_test(taken_pages_are_known),
		cmocka_unit_test(lost_pages_are_known),
		cmocka_unit_test(table_of_a_full_store_grows),
		cmocka_unit_test(refaults_are_counted),
		cmocka_unit_test(no_refaults_where_nothing_was_evicted),
		cmocka_unit_test(rewritten_pages_stay),
		cmocka_unit_test(holes_do_not_age),
		cmocka_unit_test(a_loop_is_kept_in_part),
		cmocka_unit_test(packing_keeps_ages),
		cmocka_unit_test(work_is_bounded),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(persistent_pages_have_no_age),
	};

	return cmocka_run_group_tests_name("store-evict", tests, NULL, NULL);
}
