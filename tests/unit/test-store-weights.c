/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tenants that share one store's room: who has more weight has more of it.  (In
 * Xen's tmem it was the other way round, from its first day to its removal.)
 * And what a store says that it could give back, it gives back.
 */
#include "store-fixture.h"

#define P    TMEM_POOL_PERSISTENT
#define ROOM (24 * MIB)

/* A second tenant of the fixture's store. */
static void open_second(struct fixture *f, struct fixture *g)
{
	struct tmem_limits none = { .size = sizeof(none) };

	*g = *f;
	assert_int_equal(
		tmem_tenant_open(f->store, "second", &none, &g->tenant), 0);
}

static void weigh(struct fixture *f, uint32_t weight)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .weight = weight };

	assert_int_equal(tmem_tenant_set_limits(f->tenant, &limits), 0);
}

static uint64_t ephemeral_of(struct fixture *f)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_tenant_stats(f->tenant, &stats);
	return stats.ephemeral_raw_bytes;
}

/* Both put as fast as they can, again and again more than there is room for. */
static void compete(struct fixture *f, struct fixture *g)
{
	for (uint64_t i = 0; i < 3 * ROOM / PAGE; i++) {
		assert_int_equal(put(f, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
		assert_int_equal(put(g, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	}
}

static void room_goes_by_weight(void **state)
{
	static const uint32_t weights[][2] = {
		{ 100, 100 }, { 300, 100 },	      { 100, 300 },
		{ 0, 25 },    { TMEM_MAX_WEIGHT, 1 },
	};

	for (unsigned int i = 0; i < 5; i++) {
		struct fixture f, g;
		double first = weights[i][0] ? weights[i][0] : 100, share;

		fixture_open(&f, ROOM, 0);
		open_second(&f, &g);
		weigh(&f, weights[i][0]);
		weigh(&g, weights[i][1]);
		pool_open(&f, 1, 0);
		pool_open(&g, 1, 0);
		compete(&f, &g);
		share = (double)ephemeral_of(&f) /
			(ephemeral_of(&f) + ephemeral_of(&g));
		first /= first + weights[i][1];
		assert_true(share > first - 0.03 && share < first + 0.03);
		/* Between them they use what there is. */
		assert_true(ephemeral_of(&f) + ephemeral_of(&g) >
			    ROOM * 9 / 10 - MIB);
		tmem_tenant_drop(g.tenant);
		fixture_close(&f);
	}
}

/* Who does nothing keeps what it has, while others have more for their weight.
 */
static void the_quiet_keep_their_share(void **state)
{
	struct fixture f, g;
	uint64_t before;

	fixture_open(&f, ROOM, 0);
	open_second(&f, &g);
	pool_open(&f, 1, 0);
	pool_open(&g, 1, 0);
	for (uint64_t i = 0; i < ROOM / 4 / PAGE; i++)
		assert_int_equal(put(&g, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	before = ephemeral_of(&g);
	for (uint64_t i = 0; i < 3 * ROOM / PAGE; i++)
		assert_int_equal(put(&f, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	assert_int_equal(ephemeral_of(&g), before);
	tmem_tenant_drop(g.tenant);
	fixture_close(&f);
}

/* Its own limit is not for others to pay. */
static void own_limits_cost_oneself(void **state)
{
	struct tmem_limits low = { .size = sizeof(low),
				   .ephemeral_max = 4 * MIB };
	struct fixture f, g;
	uint64_t before;

	fixture_open(&f, ROOM, 0);
	open_second(&f, &g);
	pool_open(&f, 1, 0);
	pool_open(&g, 1, 0);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &low), 0);
	for (uint64_t i = 0; i < ROOM / 2 / PAGE; i++)
		assert_int_equal(put(&g, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	before = ephemeral_of(&g);
	for (uint64_t i = 0; i < ROOM / PAGE; i++)
		assert_int_equal(put(&f, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	assert_int_equal(ephemeral_of(&g), before);
	tmem_tenant_drop(g.tenant);
	fixture_close(&f);
}

/* Persistent pages beyond a reservation take the room of the heaviest. */
static void best_effort_takes_from_the_heaviest(void **state)
{
	struct fixture f, g;

	fixture_open(&f, ROOM, 0);
	open_second(&f, &g);
	pool_open(&f, 0, P);
	pool_open(&g, 1, 0);
	for (uint64_t i = 0; i < 2 * ROOM / PAGE; i++)
		assert_int_equal(put(&g, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < ROOM / 2 / PAGE; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < ROOM / 2 / PAGE; i++)
		assert_int_equal(get(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	assert_in_range(ephemeral_of(&g), ROOM / 3, ROOM / 2);
	tmem_tenant_drop(g.tenant);
	fixture_close(&f);
}

/*
 * Also for who keeps no ephemeral page at all: its own limit of these is not what
 * is in the way of a persistent one.
 */
static void who_keeps_none_takes_from_others(void **state)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .ephemeral_max = UINT64_MAX };
	struct fixture f, g;
	uint64_t before;

	fixture_open(&f, ROOM, 0);
	open_second(&f, &g);
	assert_int_equal(tmem_tenant_set_limits(g.tenant, &limits), 0);
	pool_open(&f, 1, 0);
	pool_open(&g, 1, P);
	for (uint64_t i = 0; i < 2 * ROOM / PAGE; i++)
		assert_int_equal(put(&f, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	before = ephemeral_of(&f);
	for (uint64_t i = 0; i < ROOM / 4 / PAGE; i++)
		assert_int_equal(put(&g, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	assert_true(ephemeral_of(&f) < before - ROOM / 5);
	tmem_tenant_drop(g.tenant);
	fixture_close(&f);
}

static void weights_are_checked(void **state)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .weight = TMEM_MAX_WEIGHT + 1 };
	struct tmem_limits now = { .size = sizeof(now) };
	struct fixture f;

	fixture_open(&f, ROOM, 0);
	tmem_tenant_get_limits(f.tenant, &now);
	assert_int_equal(now.weight, TMEM_DEFAULT_WEIGHT);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), -EINVAL);
	weigh(&f, TMEM_MAX_WEIGHT);
	tmem_tenant_get_limits(f.tenant, &now);
	assert_int_equal(now.weight, TMEM_MAX_WEIGHT);
	fixture_close(&f);
}

/*
 * A frozen store with holes, idle memory and ephemeral pages: what it says that
 * it could give back is what tmem_shrink() gives, and no persistent page goes.
 */
static void what_is_reclaimable_comes_back(void **state)
{
	uint64_t said, given, before;
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 0, P);
	pool_open(&f, 1, 0);
	for (uint64_t i = 0; i < 8192; i++) {
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 1 + i % 2),
				 TMEM_PAGE_OK);
		if (i < 2000)
			assert_int_equal(put(&f, 1, 1, i, 4 * i + 3),
					 TMEM_PAGE_OK);
	}
	for (uint64_t i = 0; i < 8192; i++)
		if (i % 8)
			flush(&f, 0, 1, i, 1);
	tmem_tenant_freeze(f.tenant, true);
	said = stats_of(&f).reclaimable_bytes;
	before = stats_of(&f).held_bytes;
	given = tmem_shrink(f.store, UINT64_MAX);
	assert_in_range(given, said * 9 / 10, said * 11 / 10);
	assert_in_range(before - stats_of(&f).held_bytes, given * 9 / 10,
			given * 11 / 10);
	assert_true(stats_of(&f).reclaimable_bytes < MIB / 2);
	tmem_tenant_freeze(f.tenant, false);
	for (uint64_t i = 0; i < 8192; i += 8)
		assert_int_equal(get(&f, 0, 1, i, 4 * i + 1 + i % 2),
				 TMEM_PAGE_OK);
	assert_int_equal(stats_of(&f).ephemeral_pages, 0);
	fixture_close(&f);
}

/* As much as was asked for, and not all. */
static void shrinking_stops(void **state)
{
	struct fixture f;
	uint64_t given;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 1, 0);
	for (uint64_t i = 0; i < 8192; i++)
		assert_int_equal(put(&f, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	given = tmem_shrink(f.store, 4 * MIB);
	assert_in_range(given, 4 * MIB, 5 * MIB);
	assert_in_range(stats_of(&f).ephemeral_pages, 8192 - 5 * MIB / PAGE,
			8192 - 3 * MIB / PAGE);
	/* The oldest. */
	assert_int_equal(get(&f, 1, 1, 0, 3), TMEM_PAGE_MISS);
	assert_int_equal(get(&f, 1, 1, 8191, 4 * 8191 + 3), TMEM_PAGE_OK);
	fixture_close(&f);
}

/* 8 MiB of ephemeral pages each, of tenants of these weights. */
static void fill_both(struct fixture *f, struct fixture *g, uint64_t max_bytes,
		      const uint32_t weight[2])
{
	fixture_open(f, max_bytes, 0);
	open_second(f, g);
	weigh(f, weight[0]);
	weigh(g, weight[1]);
	pool_open(f, 1, 0);
	pool_open(g, 1, 0);
	for (uint64_t i = 0; i < 8 * MIB / PAGE; i++) {
		assert_int_equal(put(f, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
		assert_int_equal(put(g, 1, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	}
	assert_int_equal(ephemeral_of(f), 8 * MIB);
	assert_int_equal(ephemeral_of(g), 8 * MIB);
}

static void give_back(struct fixture *f, uint64_t bytes, bool by_limit)
{
	if (by_limit)
		assert_int_equal(
			tmem_store_set_max(f->store,
					   stats_of(f).held_bytes - bytes),
			0);
	else
		assert_true(tmem_shrink(f->store, bytes) >= bytes);
}

/* Who of the two was there first does not matter. */
static void shrinking_goes_by_weight(void **state)
{
	static const uint32_t weight[][2] = {
		{ TMEM_MAX_WEIGHT, 1 },
		{ 1, TMEM_MAX_WEIGHT },
		{ 100, 100 },
	};

	for (unsigned int i = 0; i < 6; i++) {
		const uint32_t *w = weight[i / 2];
		struct fixture f, g;

		fill_both(&f, &g, 64 * MIB, w);
		give_back(&f, 4 * MIB, i % 2);
		assert_in_range(ephemeral_of(&f) + ephemeral_of(&g), 10 * MIB,
				13 * MIB);
		if (w[0] == w[1])
			assert_in_range(ephemeral_of(&f), 5 * MIB, 7 * MIB);
		else
			assert_int_equal(ephemeral_of(w[0] > w[1] ? &f : &g),
					 8 * MIB);
		tmem_tenant_drop(g.tenant);
		fixture_close(&f);
	}
}

/*
 * Room for what is promised, where a tenant may have no ephemeral page of its
 * own to give up for it.
 */
static void promises_are_kept_by_weight(void **state)
{
	static const uint32_t weight[][2] = {
		{ TMEM_MAX_WEIGHT, 1 },
		{ 1, TMEM_MAX_WEIGHT },
	};
	struct tmem_limits promise = {
		.size = sizeof(promise),
		.persistent_reserved = 4 * MIB,
		.ephemeral_max = UINT64_MAX,
	};

	for (unsigned int i = 0; i < 2; i++) {
		struct fixture f, g, h;

		fill_both(&f, &g, 20 * MIB, weight[i]);
		h = f;
		assert_int_equal(tmem_tenant_open(f.store, "third", &promise,
						  &h.tenant),
				 0);
		pool_open(&h, 0, P);
		for (uint64_t j = 0; j < 4 * MIB / PAGE; j++)
			assert_int_equal(put(&h, 0, 1, j, 4 * j + 3),
					 TMEM_PAGE_OK);
		assert_int_equal(ephemeral_of(i ? &g : &f), 8 * MIB);
		assert_in_range(ephemeral_of(i ? &f : &g), 4 * MIB,
				8 * MIB - 1);
		tmem_tenant_drop(h.tenant);
		tmem_tenant_drop(g.tenant);
		fixture_close(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(room_goes_by_weight),
		cmocka_unit_test(the_quiet_keep_their_share),
		cmocka_unit_test(own_limits_cost_oneself),
		cmocka_unit_test(best_effort_takes_from_the_heaviest),
		cmocka_unit_test(who_keeps_none_takes_from_others),
		cmocka_unit_test(weights_are_checked),
		cmocka_unit_test(what_is_reclaimable_comes_back),
		cmocka_unit_test(shrinking_stops),
		cmocka_unit_test(shrinking_goes_by_weight),
		cmocka_unit_test(promises_are_kept_by_weight),
	};

	return RUN_IN_BOTH_LAYOUTS("store-weights", tests, NULL);
}
