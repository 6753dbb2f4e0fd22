/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a host allows single pools of a tenant: a part of its reservation, a
 * limit, a weight.  And same-filled pages, which eviction by spans does not
 * see.
 */
#include "store-fixture.h"
#include "internal.h"

#define P	 TMEM_POOL_PERSISTENT
#define RAW	 3 /* kinds of pages: make_page() */
#define SAME	 0
#define ROOM	 (24 * MIB)
#define RESERVED (8 * MIB)

static int limit(struct fixture *f, uint32_t pool, uint64_t reserved,
		 uint64_t max, uint32_t weight)
{
	struct tmem_pool_limits limits = { .size = sizeof(limits),
					   .reserved = reserved,
					   .max_bytes = max,
					   .weight = weight };

	return tmem_pool_set_limits(f->tenant, pool, &limits);
}

static struct tmem_stats pool_stats(struct fixture *f, uint32_t pool)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	assert_int_equal(tmem_pool_stats(f->tenant, pool, &stats), 0);
	return stats;
}

/* Puts of pages that do not compress, from @first on: how many were accepted.
 */
static unsigned int fill(struct fixture *f, uint32_t pool, uint64_t first,
			 uint64_t bytes)
{
	unsigned int accepted = 0;

	for (uint64_t i = first; i < first + bytes / PAGE; i++)
		accepted += put(f, pool, 1, i, 4 * i + RAW) == TMEM_PAGE_OK;
	return accepted;
}

static void all_there(struct fixture *f, uint32_t pool, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes / PAGE; i++)
		assert_int_equal(get(f, pool, 1, i, 4 * i + RAW), TMEM_PAGE_OK);
}

static void limits_are_checked(void **state)
{
	struct tmem_limits less = { .size = sizeof(less),
				    .persistent_reserved = 5 * MIB };
	struct tmem_pool_limits now = { .size = sizeof(now) };
	struct fixture f;

	fixture_open(&f, ROOM, RESERVED);
	assert_int_equal(limit(&f, TMEM_MAX_POOLS, 0, 0, 0), -EINVAL);
	assert_int_equal(limit(&f, 1, 0, 0, TMEM_MAX_WEIGHT + 1), -EINVAL);
	assert_int_equal(limit(&f, 1, TMEM_MAX_RESERVED + 1, 0, 0), -EINVAL);
	assert_int_equal(tmem_pool_set_limits(f.tenant, 1, NULL), -EINVAL);
	assert_int_equal(tmem_pool_get_limits(f.tenant, 1, NULL), -EINVAL);
	assert_int_equal(tmem_pool_get_limits(f.tenant, TMEM_MAX_POOLS, &now),
			 -EINVAL);
	assert_int_equal(tmem_pool_get_limits(f.tenant, 1, &now), 0);
	assert_int_equal(now.reserved, 0);
	assert_int_equal(now.max_bytes, 0);
	assert_int_equal(now.weight, TMEM_DEFAULT_WEIGHT);
	assert_int_equal(limit(&f, 1, RESERVED + 1, 0, 0), -ENOSPC);
	assert_int_equal(limit(&f, 1, 4 * MIB, 0, 7), 0);
	assert_int_equal(limit(&f, 2, 4 * MIB + 1, 0, 0), -ENOSPC);
	assert_int_equal(limit(&f, 2, 2 * MIB, MIB, 0), 0);
	/* The tenant cannot have less than its pools have to themselves. */
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &less), -EINVAL);
	assert_int_equal(limit(&f, 2, MIB, 0, 0), 0);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &less), 0);
	assert_int_equal(tmem_pool_get_limits(f.tenant, 1, &now), 0);
	assert_int_equal(now.reserved, 4 * MIB);
	assert_int_equal(now.weight, 7);
	fixture_close(&f);
}

/* Whatever one pool puts, another one gets what is its own, and the store's
 * limit holds. */
static void own_reservation_is_nobody_elses(void **state)
{
	struct fixture f;
	uint64_t max = tmem_reservation_cost(RESERVED) + MIB;

	fixture_open(&f, max, RESERVED);
	assert_int_equal(limit(&f, 1, 3 * MIB, 0, 0), 0);
	pool_open(&f, 1, P);
	pool_open(&f, 2, P);
	/* What is shared is promised; a little beyond there may be room. */
	assert_in_range(fill(&f, 2, 0, 2 * RESERVED), 5 * MIB / PAGE,
			6 * MIB / PAGE + MIB / PAGE);
	assert_int_equal(fill(&f, 1, 0, 3 * MIB), 3 * MIB / PAGE);
	all_there(&f, 1, 3 * MIB);
	all_there(&f, 2, 5 * MIB);
	assert_in_range(stats_of(&f).held_bytes, RESERVED, max + MIB / 2);
	fixture_check(&f);
	/* What is flushed is its own again, in place of others' or not. */
	flush(&f, 1, 1, 0, 1000);
	fill(&f, 2, 10000, RESERVED);
	assert_int_equal(fill(&f, 1, 0, 3 * MIB), 3 * MIB / PAGE);
	fixture_close(&f);
}

/* A pool with a part to itself has its share of the rest, too. */
static void own_reservation_is_not_all(void **state)
{
	struct fixture f;

	fixture_open(&f, tmem_reservation_cost(RESERVED) + MIB, RESERVED);
	assert_int_equal(limit(&f, 1, 3 * MIB, 0, 0), 0);
	pool_open(&f, 1, P);
	pool_open(&f, 2, P);
	assert_int_equal(fill(&f, 1, 0, RESERVED), RESERVED / PAGE);
	/* Overwriting needs no more. */
	assert_int_equal(fill(&f, 1, 0, RESERVED), RESERVED / PAGE);
	flush(&f, 1, 1, 0, 3 * MIB / PAGE);
	/* Of these 5 MiB none is beyond the pool's own but 2. */
	assert_in_range(fill(&f, 2, 0, RESERVED), 3 * MIB / PAGE,
			4 * MIB / PAGE + MIB / PAGE);
	fixture_close(&f);
}

/* Said of a pool that has pages, taken back, said of another. */
static void own_reservation_changes(void **state)
{
	struct fixture f;

	fixture_open(&f, tmem_reservation_cost(RESERVED) + MIB, RESERVED);
	pool_open(&f, 1, P);
	pool_open(&f, 2, P);
	assert_int_equal(fill(&f, 1, 0, 4 * MIB), 4 * MIB / PAGE);
	assert_int_equal(limit(&f, 1, 6 * MIB, 0, 0), 0);
	fixture_check(&f);
	fill(&f, 2, 0, RESERVED);
	assert_int_equal(fill(&f, 1, 4 * MIB / PAGE, 2 * MIB), 2 * MIB / PAGE);
	assert_int_equal(limit(&f, 1, MIB, 0, 0), 0);
	assert_int_equal(limit(&f, 2, 7 * MIB, 0, 0), 0);
	fixture_check(&f);
	flush(&f, 1, 1, 0, 10000);
	assert_int_equal(fill(&f, 2, 0, 7 * MIB), 7 * MIB / PAGE);
	assert_int_equal(fill(&f, 1, 0, MIB), MIB / PAGE);
	fixture_close(&f);
}

static void limits_outlive_pools(void **state)
{
	struct fixture f;

	fixture_open(&f, ROOM, RESERVED);
	assert_int_equal(limit(&f, 1, 0, MIB, 0), 0);
	for (unsigned int i = 0; i < 2; i++) {
		pool_open(&f, 1, 0);
		fill(&f, 1, 0, 4 * MIB);
		assert_in_range(pool_stats(&f, 1).held_bytes, MIB / 2, MIB);
		assert_int_equal(tmem_pool_destroy(f.tenant, 1), 0);
	}
	tmem_tenant_reset(f.tenant);
	pool_open(&f, 1, 0);
	fill(&f, 1, 0, 4 * MIB);
	assert_in_range(pool_stats(&f, 1).held_bytes, MIB / 2, MIB);
	fixture_close(&f);
}

/*
 * A guest ends its pool while an op of it copies a page, and makes it again:
 * together they have what one of them had.
 */
static void ending_pool_keeps_its_part(void **state)
{
	struct tmem_pool *ending[4];
	struct fixture f;
	uint64_t max = tmem_reservation_cost(RESERVED) + MIB;

	fixture_open(&f, max, RESERVED);
	assert_int_equal(limit(&f, 1, 3 * MIB, 0, 0), 0);
	pool_open(&f, 2, P);
	for (unsigned int i = 0; i < ARRAY_SIZE(ending); i++) {
		pool_open(&f, 1, P);
		fill(&f, 1, 0, 4 * MIB);
		ending[i] = pool_get(f.tenant, 1); /* as an op has it */
		assert_int_equal(tmem_pool_destroy(f.tenant, 1), 0);
		fixture_check(&f);
	}
	pool_open(&f, 1, P);
	/* A little beyond there may be room. */
	assert_in_range(tmem_tenant_persistent_raw(f.tenant), RESERVED,
			RESERVED + 2 * MIB);
	assert_in_range(stats_of(&f).held_bytes, RESERVED, max + MIB / 2);
	assert_in_range(fill(&f, 1, 0, 3 * MIB), 0, 8);
	/* Once they are gone the new one has it all. */
	for (unsigned int i = 0; i < ARRAY_SIZE(ending); i++)
		pool_put(ending[i]);
	fixture_check(&f);
	fill(&f, 2, 0, 2 * RESERVED);
	assert_int_equal(fill(&f, 1, 0, 3 * MIB), 3 * MIB / PAGE);
	fixture_close(&f);
}

/* Pools without a page are memory, too. */
static void pools_in_a_loop(void **state)
{
	struct tmem_pool_params params = { P, 12 };
	uint64_t before;
	struct fixture f;

	fixture_open(&f, ROOM, RESERVED);
	before = stats_of(&f).held_bytes;
	for (uint32_t i = 0; i < TMEM_MAX_POOLS; i++)
		assert_int_equal(tmem_pool_create(f.tenant, i, &params, NULL),
				 0);
	assert_in_range(stats_of(&f).held_bytes - before,
			TMEM_MAX_POOLS * sizeof(struct tmem_pool), 4 * MIB);
	for (unsigned int i = 0; i < 20000; i++) {
		assert_int_equal(tmem_pool_destroy(f.tenant, i % 256), 0);
		assert_int_equal(
			tmem_pool_create(f.tenant, i % 256, &params, NULL), 0);
	}
	/* Nobody has called tmem_step(). */
	assert_in_range(stats_of(&f).held_bytes - before, 0, 16 * MIB);
	tmem_tenant_reset(f.tenant);
	while (tmem_step(f.store, 1024))
		;
	assert_in_range(stats_of(&f).held_bytes, 0, before + MIB / 8);
	fixture_close(&f);
}

/* Its own pages make way, new ones are taken, and others' stay. */
static void ephemeral_pool_keeps_its_limit(void **state)
{
	struct fixture f;
	uint64_t hits = 0;

	fixture_open(&f, ROOM, 0);
	assert_int_equal(limit(&f, 1, 0, MIB, 0), 0);
	pool_open(&f, 1, 0);
	pool_open(&f, 2, 0);
	assert_int_equal(fill(&f, 2, 0, 4 * MIB), 4 * MIB / PAGE);
	for (uint64_t i = 0; i < 2000; i++) {
		assert_int_equal(put(&f, 1, 1 + i / 64, i % 64, 4 * i + RAW),
				 TMEM_PAGE_OK);
		assert_true(pool_stats(&f, 1).held_bytes <= MIB);
		/* One that is used again and again. */
		hits += get(&f, 1, 1, 0, RAW) == TMEM_PAGE_OK;
	}
	assert_int_equal(hits, 2000);
	assert_true(pool_stats(&f, 1).held_bytes > MIB * 7 / 8);
	assert_int_equal(pool_stats(&f, 1).evictions,
			 2000 - pool_stats(&f, 1).ephemeral_pages);
	all_there(&f, 2, 4 * MIB);
	fixture_close(&f);
}

/* Lowered, and lowered to nothing: at once. */
static void lower_limits_evict(void **state)
{
	struct fixture f;

	fixture_open(&f, ROOM, 0);
	pool_open(&f, 1, 0);
	pool_open(&f, 2, 0);
	fill(&f, 1, 0, 4 * MIB);
	fill(&f, 2, 0, 4 * MIB);
	all_there(&f, 1, 4 * MIB); /* each of them is in use */
	for (uint64_t i = 0; i < 100; i++)
		put(&f, 1, 2, i * 1000, SAME);
	assert_int_equal(limit(&f, 1, 0, 2 * MIB, 0), 0);
	assert_in_range(pool_stats(&f, 1).held_bytes, MIB, 2 * MIB);
	assert_true(stats_of(&f).held_bytes < 8 * MIB);
	assert_int_equal(limit(&f, 1, 0, UINT64_MAX, 0), 0);
	assert_int_equal(pool_stats(&f, 1).ephemeral_pages, 0);
	assert_int_equal(put(&f, 1, 1, 1, RAW), TMEM_PAGE_REFUSED);
	assert_int_equal(put(&f, 1, 1, 1, SAME), TMEM_PAGE_REFUSED);
	all_there(&f, 2, 4 * MIB);
	assert_int_equal(limit(&f, 1, 0, 0, 0), 0);
	assert_int_equal(put(&f, 1, 1, 1, RAW), TMEM_PAGE_OK);
	fixture_close(&f);
}

/* What is promised is not refused for a limit of the pool. */
static void persistent_limit_is_for_best_effort(void **state)
{
	struct fixture f;

	fixture_open(&f, ROOM, 4 * MIB);
	assert_int_equal(limit(&f, 1, 0, 2 * MIB, 0), 0);
	pool_open(&f, 1, P);
	assert_int_equal(fill(&f, 1, 0, RESERVED), 4 * MIB / PAGE);
	assert_int_equal(pool_stats(&f, 1).puts_refused_limit,
			 RESERVED / PAGE - 4 * MIB / PAGE);
	all_there(&f, 1, 4 * MIB);
	assert_int_equal(limit(&f, 1, 0, 6 * MIB, 0), 0);
	assert_int_equal(fill(&f, 1, 0, RESERVED), 6 * MIB / PAGE);
	/* Overwriting is not more. */
	assert_int_equal(fill(&f, 1, 0, 6 * MIB), 6 * MIB / PAGE);
	fixture_close(&f);
}

/* Two pools of a tenant that want all of its room. */
static void room_goes_by_weight(void **state)
{
	static const uint32_t weights[][2] = {
		{ 100, 100 }, { 300, 100 }, { 100, 300 },
		{ 0, 25 },    { 1000, 1 },
	};
	const uint64_t room = 8 * MIB;

	for (unsigned int i = 0; i < 5; i++) {
		double first = weights[i][0] ? weights[i][0] : 100, share;
		struct fixture f;

		fixture_open(&f, room, 0);
		assert_int_equal(limit(&f, 1, 0, 0, weights[i][0]), 0);
		assert_int_equal(limit(&f, 2, 0, 0, weights[i][1]), 0);
		pool_open(&f, 1, 0);
		pool_open(&f, 2, 0);
		for (uint64_t n = 0; n < 3 * room / PAGE; n++) {
			assert_int_equal(put(&f, 1, 1, n, 4 * n + RAW),
					 TMEM_PAGE_OK);
			assert_int_equal(put(&f, 2, 1, n, 4 * n + RAW),
					 TMEM_PAGE_OK);
		}
		share = (double)pool_stats(&f, 1).held_bytes /
			(pool_stats(&f, 1).held_bytes +
			 pool_stats(&f, 2).held_bytes);
		first /= first + weights[i][1];
		/* Of 8 MiB: eviction goes by spans that both have pages in. */
		if (share < first - 0.07 || share > first + 0.07)
			fail_msg("weights %u and %u: the first has %.3f",
				 weights[i][0], weights[i][1], share);
		assert_true(pool_stats(&f, 1).held_bytes +
				    pool_stats(&f, 2).held_bytes >
			    room * 9 / 10 - MIB);
		fixture_close(&f);
	}
}

/* While others' pages come and go, those that nobody gets go, too. */
static void same_filled_pages_age(void **state)
{
	unsigned int used = 0, unused = 0;
	struct fixture f;

	fixture_open(&f, 4 * MIB, 0);
	pool_open(&f, 1, 0);
	pool_open(&f, 2, 0);
	for (uint64_t i = 0; i < 2000; i++) {
		assert_int_equal(put(&f, 1, i / 8, i % 8, SAME), TMEM_PAGE_OK);
		assert_int_equal(put(&f, 1, 5000 + i / 8, i % 8, SAME),
				 TMEM_PAGE_OK);
	}
	for (uint64_t i = 0; i < 12000; i++) {
		assert_int_equal(put(&f, 2, i / 64, i % 64, 4 * i + RAW),
				 TMEM_PAGE_OK);
		used += get(&f, 1, i % 200 / 8, i % 8, SAME) == TMEM_PAGE_OK;
	}
	for (uint64_t i = 0; i < 2000; i++)
		unused += get(&f, 1, 5000 + i / 8, i % 8, SAME) == TMEM_PAGE_OK;
	/* Some 11600; the order in which the clock goes round is by chance. */
	assert_in_range(used, 10000, 12000);
	assert_in_range(unused, 0, 200);
	fixture_close(&f);
}

/* Nothing but such: their index has a limit, and new ones are taken. */
static void same_filled_pages_make_room(void **state)
{
	unsigned int refused = 0;
	struct fixture f;

	fixture_open(&f, 2 * MIB, 0);
	pool_open(&f, 1, 0);
	for (uint64_t i = 0; i < 100000; i++)
		refused += put(&f, 1, i, 0, SAME) != TMEM_PAGE_OK;
	assert_int_equal(refused, 0);
	assert_true(stats_of(&f).held_bytes <= 2 * MIB + MIB / 4);
	assert_true(stats_of(&f).evictions > 80000);
	assert_int_equal(get(&f, 1, 99999, 0, SAME), TMEM_PAGE_OK);
	/* And shrinking takes the rest of them. */
	tmem_shrink(f.store, 2 * MIB);
	assert_in_range(stats_of(&f).ephemeral_pages, 0, 100);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_are_checked),
		cmocka_unit_test(own_reservation_is_nobody_elses),
		cmocka_unit_test(own_reservation_is_not_all),
		cmocka_unit_test(own_reservation_changes),
		cmocka_unit_test(limits_outlive_pools),
		cmocka_unit_test(ending_pool_keeps_its_part),
		cmocka_unit_test(pools_in_a_loop),
		cmocka_unit_test(ephemeral_pool_keeps_its_limit),
		cmocka_unit_test(lower_limits_evict),
		cmocka_unit_test(persistent_limit_is_for_best_effort),
		cmocka_unit_test(room_goes_by_weight),
		cmocka_unit_test(same_filled_pages_age),
		cmocka_unit_test(same_filled_pages_make_room),
	};

	return RUN_IN_BOTH_LAYOUTS("store-pools", tests, NULL);
}
