// SPDX-License-Identifier: BSD-3-Clause
/*
 * The broker's policy: who gets what, which way weights go, what is not worth a
 * move, and that nobody is ever planned to have less than is its own
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "policy.h"

#define MIB	  (1024ull * 1024)
#define GIB	  (1024 * MIB)
#define CHUNK	  (16 * MIB)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* One that holds all of its lease and wants far more. */
static struct policy_store hungry(uint64_t reserved, uint64_t leased,
				  uint32_t weight)
{
	return (struct policy_store){
		.reserved = reserved,
		.max = 100 * GIB,
		.leased = leased,
		.pending = leased,
		.held = leased,
		.wanted = 50 * GIB,
		.weight = weight,
		.benefit = BENEFIT_ONE,
	};
}

static void plan(struct policy_store *s, unsigned int num, uint64_t budget)
{
	policy_divide(s, num, budget, CHUNK);
	policy_settle(s, num, budget, CHUNK);
}

/* What there is of a target above the reservation. */
static uint64_t above(const struct policy_store *s)
{
	return s->target - s->reserved;
}

static void near(uint64_t value, uint64_t want)
{
	assert_in_range(value, want - want / 50 - CHUNK,
			want + want / 50 + CHUNK);
}

static void more_weight_is_more_memory(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, GIB, 100),
		hungry(GIB, GIB, 300),
	};

	plan(s, 2, 10 * GIB);
	near(above(&s[0]), 2 * GIB);
	near(above(&s[1]), 6 * GIB);
}

/* The reservation does not count against its owner. */
static void reservation_is_beside(void **state)
{
	struct policy_store s[] = {
		hungry(5 * GIB, 5 * GIB, 100),
		hungry(MIB, MIB, 100),
	};

	plan(s, 2, 9 * GIB);
	near(above(&s[0]), 2 * GIB);
	near(above(&s[1]), 2 * GIB);
}

static void who_has_enough_leaves_the_rest(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, GIB, 100),
		hungry(GIB, GIB, 100),
		hungry(GIB, GIB, 100),
	};

	s[0].wanted = GIB + 256 * MIB;
	s[1].max = 2 * GIB;
	plan(s, 3, 12 * GIB);
	assert_int_equal(above(&s[0]), 256 * MIB);
	assert_int_equal(above(&s[1]), GIB);
	near(above(&s[2]), 12 * GIB - 3 * GIB - GIB - 256 * MIB);
}

static void benefit_is_weight(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 2 * GIB, 100),
		hungry(GIB, 2 * GIB, 100),
	};

	/* Three times the hits of the other, from as many bytes. */
	s[0].rate = 3;
	s[1].rate = 1;
	policy_weigh(s, 2);
	assert_int_equal(s[0].benefit, BENEFIT_ONE * 3 / 2);
	assert_int_equal(s[1].benefit, BENEFIT_ONE / 2);
	plan(s, 2, 10 * GIB);
	near(above(&s[0]), 6 * GIB);
	near(above(&s[1]), 2 * GIB);
}

/* Whatever a guest makes up, it is a factor of 4. */
static void benefit_has_bounds(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 2 * GIB, 100), hungry(GIB, 2 * GIB, 100),
		hungry(GIB, 2 * GIB, 100), hungry(GIB, 2 * GIB, 100),
		hungry(GIB, 2 * GIB, 100), hungry(GIB, 2 * GIB, 100),
	};

	s[0].rate = 1e12;
	policy_weigh(s, 6);
	assert_int_equal(s[0].benefit, BENEFIT_MAX);
	for (unsigned int i = 1; i < 6; i++)
		assert_int_equal(s[i].benefit, BENEFIT_MIN);
	/* Nobody has hits: all are alike. */
	s[0].rate = 0;
	policy_weigh(s, 6);
	for (unsigned int i = 0; i < 6; i++)
		assert_int_equal(s[i].benefit, BENEFIT_ONE);
}

/* What persistent pages have taken would not come back. */
static void benefit_is_of_what_can_be_recalled(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 2 * GIB, 100),
		hungry(GIB, 2 * GIB, 100),
	};

	s[0].rate = 3;
	s[1].rate = 1;
	s[0].fixed = s[0].held;
	s[1].fixed = s[1].held / 2;
	policy_weigh(s, 2);
	assert_int_equal(s[0].benefit, BENEFIT_ONE);
	assert_int_equal(s[1].benefit, BENEFIT_ONE * 3 / 4);
	/* Nor what it has not taken yet. */
	s[0].held = s[0].fixed = 0;
	s[1].fixed = s[1].held;
	policy_weigh(s, 2);
	assert_int_equal(s[0].benefit, BENEFIT_ONE);
	assert_int_equal(s[1].benefit, BENEFIT_ONE);
}

static void benefit_is_an_average(void **state)
{
	struct policy_benefit benefit = { 0 };
	double before;

	/* What was counted before it was known is no rate. */
	policy_observe(&benefit, 1000000, 1000);
	assert_true(benefit.rate == 0);
	for (unsigned int i = 1; i <= 200; i++)
		policy_observe(&benefit, 1000000 + i * 5000, 1000);
	assert_true(benefit.rate > 4.9 && benefit.rate < 5.1);
	/* No time has passed. */
	before = benefit.rate;
	policy_observe(&benefit, 1000000 + 200 * 5000, 0);
	assert_true(benefit.rate == before);
	/* Nothing more comes. */
	for (unsigned int i = 0; i < 20; i++)
		policy_observe(&benefit, 1000000 + 200 * 5000, 1000);
	assert_true(benefit.rate < before / 4);
	/* A process that was started again counts from 0. */
	policy_observe(&benefit, 0, 1000);
	assert_true(benefit.rate >= 0);
}

/* What nobody else can use is left where it is. */
static void idle_stays_until_somebody_wants(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 6 * GIB, 100),
		hungry(GIB, GIB, 100),
	};

	s[0].held = GIB;
	s[0].wanted = s[1].wanted = 0;
	plan(s, 2, 8 * GIB);
	assert_int_equal(s[0].target, 6 * GIB);
	assert_int_equal(s[1].target, GIB);
	/* 1 GiB is free: that first. */
	s[1].wanted = 2 * GIB;
	plan(s, 2, 8 * GIB);
	assert_int_equal(s[0].target, 6 * GIB);
	assert_int_equal(s[1].target, 2 * GIB);
	s[1].wanted = 5 * GIB;
	plan(s, 2, 8 * GIB);
	assert_int_equal(s[0].target, 3 * GIB);
	assert_int_equal(s[1].target, 5 * GIB);
}

static void small_moves_are_not_made(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 5 * GIB, 100),
		hungry(GIB, 5 * GIB, 100),
	};

	/* 10 to 9: each is within 5 % of what it should have. */
	s[0].weight = 104;
	plan(s, 2, 10 * GIB);
	assert_int_equal(s[0].target, 5 * GIB);
	assert_int_equal(s[1].target, 5 * GIB);
	s[0].weight = 150;
	plan(s, 2, 10 * GIB);
	assert_true(s[1].target < 5 * GIB);
	/* From what is free anybody gets anything. */
	s[0].weight = 100;
	plan(s, 2, 10 * GIB + 2 * CHUNK);
	assert_int_equal(s[0].target, 5 * GIB + CHUNK);
	assert_int_equal(s[1].target, 5 * GIB + CHUNK);
}

static void recalls_under_way_are_counted(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 8 * GIB, 100),
		hungry(GIB, 2 * GIB, 100),
	};

	s[0].pending = 5 * GIB;
	plan(s, 2, 10 * GIB);
	assert_int_equal(s[0].target, 5 * GIB);
	assert_int_equal(s[1].target, 5 * GIB);
}

static void pages_that_cannot_go_stay(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 7 * GIB, 100),
		hungry(GIB, GIB, 10000),
	};

	s[0].fixed = 6 * GIB;
	plan(s, 2, 8 * GIB);
	assert_int_equal(s[0].target, 6 * GIB);
	assert_int_equal(s[1].target, 2 * GIB);
}

static void frozen_stays(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 6 * GIB, 1),
		hungry(GIB, 2 * GIB, 100),
	};

	s[0].frozen = true;
	plan(s, 2, 8 * GIB);
	assert_int_equal(s[0].target, 6 * GIB);
	assert_int_equal(s[1].target, 2 * GIB);
	plan(s, 2, 9 * GIB);
	assert_int_equal(s[0].target, 6 * GIB);
	assert_int_equal(s[1].target, 3 * GIB);
}

/* A limit that was lowered is no wish. */
static void max_is_kept(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 6 * GIB, 100),
		hungry(GIB, GIB, 100),
	};

	s[1].wanted = 0;
	s[0].max = 6 * GIB - CHUNK;
	plan(s, 2, 20 * GIB);
	assert_int_equal(s[0].target, 6 * GIB - CHUNK);
}

/* A store that comes has nothing: others make room, be it a small move. */
static void reservations_come_first(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 10 * GIB, 10000),
		hungry(64 * MIB, 0, 1),
	};

	s[1].held = s[1].wanted = 0;
	plan(s, 2, 10 * GIB);
	assert_int_equal(s[1].target, 64 * MIB);
	assert_true(s[0].target <= 10 * GIB - 64 * MIB);
}

static void pressure_takes_from_all(void **state)
{
	struct policy_store s[] = {
		hungry(GIB, 5 * GIB, 100),
		hungry(GIB, 5 * GIB, 100),
	};

	s[0].fixed = 4 * GIB + 512 * MIB;
	plan(s, 2, 6 * GIB);
	assert_int_equal(s[0].target, 4 * GIB + 512 * MIB);
	near(s[1].target, 6 * GIB - 4 * GIB - 512 * MIB);
	/* Less than all reservations: these stay. */
	plan(s, 2, MIB);
	assert_int_equal(s[0].target, 4 * GIB + 512 * MIB);
	assert_int_equal(s[1].target, GIB);
}

static uint64_t random_below(uint64_t bound)
{
	return ((uint64_t)rand() << 31 ^ (uint64_t)rand()) % bound;
}

static void make_random(struct policy_store *s)
{
	s->reserved = 1 + random_below(GIB);
	s->max = s->reserved + random_below(10 * GIB);
	s->leased = rand() % 8 ? s->reserved + random_below(10 * GIB) : 0;
	s->pending = s->leased;
	if (s->leased > s->reserved && rand() % 2)
		s->pending -= random_below(s->leased - s->reserved);
	s->held = random_below(s->leased + 1);
	s->fixed = random_below(s->held + 1);
	s->wanted = rand() % 2 ? random_below(10 * GIB) : 0;
	s->weight = 1 + random_below(10000);
	s->benefit = BENEFIT_MIN + random_below(BENEFIT_MAX - BENEFIT_MIN);
	s->frozen = s->leased && rand() % 8 == 0;
}

/* Whatever comes: each has what is its own, and growth is paid for. */
static void laws_hold_for_any_input(void **state)
{
	static struct policy_store s[40];

	srand(6);
	for (unsigned int round = 0; round < 20000; round++) {
		unsigned int num = random_below(41);
		uint64_t budget = random_below(100 * GIB), sum = 0, low = 0;

		for (unsigned int i = 0; i < num; i++)
			make_random(&s[i]);
		policy_divide(s, num, budget, CHUNK);
		for (unsigned int i = 0; i < num; i++)
			sum += s[i].target;
		policy_settle(s, num, budget, CHUNK);
		for (unsigned int i = 0; i < num; i++) {
			uint64_t fixed = MIN(s[i].fixed, s[i].leased);

			low += s[i].frozen ? s[i].leased
					   : MAX(s[i].reserved, fixed);
			/* A recall takes neither of these. */
			if (s[i].target < s[i].pending) {
				assert_true(s[i].target >= s[i].reserved);
				assert_true(s[i].target >= fixed);
				assert_false(s[i].frozen);
			}
			if (s[i].target > s[i].leased)
				assert_true(s[i].target <=
					    MAX(s[i].max,
						MAX(s[i].reserved, fixed)));
		}
		/* Shares fit, but for what must be. */
		assert_true(sum <= MAX(budget, low));
	}
}

/* Plans carried out again and again come to an end. */
static void plans_settle(void **state)
{
	static struct policy_store s[20];

	srand(7);
	for (unsigned int round = 0; round < 300; round++) {
		unsigned int moves = 1;

		for (unsigned int i = 0; i < 20; i++) {
			make_random(&s[i]);
			s[i].leased = s[i].pending = s[i].reserved;
			s[i].held = s[i].fixed = 0;
			s[i].frozen = false;
		}
		for (unsigned int turn = 0; moves; turn++) {
			uint64_t sum = 0;

			assert_true(turn < 50);
			moves = 0;
			plan(s, 20, 60 * GIB);
			for (unsigned int i = 0; i < 20; i++) {
				moves += s[i].target != s[i].leased;
				s[i].leased = s[i].pending = s[i].target;
				sum += s[i].leased;
			}
			assert_true(sum <= 60 * GIB);
		}
	}
}

/* ------------------------------------------------------------ the budget */

static struct policy_host host_with(uint64_t available)
{
	return (struct policy_host){
		.limit = 10 * GIB,
		.held = 4 * GIB,
		.available = available,
		.headroom = GIB,
	};
}

static void budget_follows_the_host(void **state)
{
	struct policy_budget b = { .budget = UINT64_MAX };
	struct policy_host host = host_with(20 * GIB);

	policy_budget_next(&b, &host, 0);
	assert_int_equal(b.budget, 10 * GIB);
	assert_false(b.low);
	/* A limit that is raised counts at once. */
	host.limit = 12 * GIB;
	policy_budget_next(&b, &host, 100);
	assert_int_equal(b.budget, 12 * GIB);
	/* What it cannot back is not leased, and no pressure yet. */
	host = host_with(3 * GIB);
	policy_budget_next(&b, &host, 100);
	assert_int_equal(b.budget, 6 * GIB);
	assert_false(b.low);
	/* Below the headroom: what lacks is taken from what is held. */
	host = host_with(GIB / 2);
	policy_budget_next(&b, &host, 100);
	assert_int_equal(b.budget, 4 * GIB - GIB / 2);
	assert_true(b.low);
	/* It is unknown: the limit is what there is. */
	b = (struct policy_budget){ .budget = UINT64_MAX };
	host = host_with(UINT64_MAX);
	policy_budget_next(&b, &host, 0);
	assert_int_equal(b.budget, 10 * GIB);
}

static void budget_comes_back_slowly(void **state)
{
	struct policy_budget b = { .budget = UINT64_MAX };
	struct policy_host host = host_with(GIB / 2);
	unsigned int seconds = 0;

	policy_budget_next(&b, &host, 0);
	host = host_with(20 * GIB);
	for (unsigned int ms = 1000; ms < BUDGET_CALM_MS; ms += 1000) {
		policy_budget_next(&b, &host, 1000);
		assert_int_equal(b.budget, 4 * GIB - GIB / 2);
	}
	while (b.low && seconds < 100) {
		uint64_t before = b.budget;

		policy_budget_next(&b, &host, 1000);
		assert_true(b.budget - before <= 10 * GIB / 32 + 1);
		seconds++;
	}
	assert_in_range(seconds, 15, 40);
	assert_int_equal(b.budget, 10 * GIB);
}

/* A limit beyond what the host has is never reached, and is no pressure. */
static void pressure_ends_below_a_limit_too_high(void **state)
{
	struct policy_budget b = { .budget = UINT64_MAX };
	struct policy_host host = host_with(GIB / 2);
	unsigned int seconds = 0;

	policy_budget_next(&b, &host, 0);
	assert_true(b.low);
	host = host_with(3 * GIB);
	while (b.low && seconds < 100) {
		policy_budget_next(&b, &host, 1000);
		seconds++;
	}
	assert_in_range(seconds, BUDGET_CALM_MS / 1000, 40);
	assert_int_equal(b.budget, 6 * GIB);
}

static void stalls_take_from_what_is_held(void **state)
{
	struct policy_budget b = { .budget = UINT64_MAX };
	struct policy_host host = host_with(20 * GIB);

	host.stalled = true;
	policy_budget_next(&b, &host, 0);
	assert_int_equal(b.budget, 4 * GIB - 4 * GIB / 20);
	assert_true(b.low);
	/* Again, from what is held then. */
	host.held = b.budget;
	policy_budget_next(&b, &host, 2000);
	assert_int_equal(b.budget, host.held - host.held / 20);
}

/* -------------------------------------------------------------- back-off */

/* Guests are told when recalls did not help, and not before. */
static void guests_are_told_last(void **state)
{
	struct policy_host host = host_with(GIB / 2),
			   calm = host_with(20 * GIB);
	struct policy_backoff b = { 0 };

	policy_backoff_next(&b, &host, false, 0);
	assert_int_equal(b.level, 0);
	policy_backoff_next(&b, &host, false, BACKOFF_MS - 1);
	assert_int_equal(b.level, 0);
	policy_backoff_next(&b, &host, false, 1);
	assert_int_equal(b.level, 1);
	/* There is still something to recall. */
	policy_backoff_next(&b, &host, false, 60000);
	assert_int_equal(b.level, 1);
	policy_backoff_next(&b, &host, true, 1);
	assert_int_equal(b.level, 2);
	policy_backoff_next(&b, &host, true, 60000);
	assert_int_equal(b.level, 2);
	/* A moment's shortage that a recall mends is none of the guests'. */
	b = (struct policy_backoff){ 0 };
	policy_backoff_next(&b, &host, false, 0);
	policy_backoff_next(&b, &calm, false, BUDGET_CALM_MS);
	policy_backoff_next(&b, &host, false, BACKOFF_MS);
	assert_int_equal(b.level, 0);
	/* Nothing to recall in the first place. */
	b = (struct policy_backoff){ 0 };
	policy_backoff_next(&b, &host, true, 0);
	assert_int_equal(b.level, 1);
	policy_backoff_next(&b, &host, true, BACKOFF_MS);
	assert_int_equal(b.level, 2);
}

/* One level after each time of calm, which any shortage begins anew. */
static void guests_are_told_slowly_of_calm(void **state)
{
	struct policy_host host = host_with(GIB / 2),
			   calm = host_with(20 * GIB);
	struct policy_backoff b = { .level = 2 };

	policy_backoff_next(&b, &calm, false, BUDGET_CALM_MS - 1);
	assert_int_equal(b.level, 2);
	policy_backoff_next(&b, &host, false, 1);
	policy_backoff_next(&b, &calm, false, BUDGET_CALM_MS - 1);
	assert_int_equal(b.level, 2);
	policy_backoff_next(&b, &calm, false, 1);
	assert_int_equal(b.level, 1);
	policy_backoff_next(&b, &calm, false, BUDGET_CALM_MS - 1);
	assert_int_equal(b.level, 1);
	policy_backoff_next(&b, &calm, false, 1);
	assert_int_equal(b.level, 0);
	policy_backoff_next(&b, &calm, false, BUDGET_CALM_MS);
	assert_int_equal(b.level, 0);
	/* Tasks that wait are as good as a headroom that is gone. */
	calm.stalled = true;
	policy_backoff_next(&b, &calm, true, 1);
	assert_int_equal(b.level, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(more_weight_is_more_memory),
		cmocka_unit_test(reservation_is_beside),
		cmocka_unit_test(who_has_enough_leaves_the_rest),
		cmocka_unit_test(benefit_is_weight),
		cmocka_unit_test(benefit_has_bounds),
		cmocka_unit_test(benefit_is_of_what_can_be_recalled),
		cmocka_unit_test(benefit_is_an_average),
		cmocka_unit_test(idle_stays_until_somebody_wants),
		cmocka_unit_test(small_moves_are_not_made),
		cmocka_unit_test(recalls_under_way_are_counted),
		cmocka_unit_test(pages_that_cannot_go_stay),
		cmocka_unit_test(frozen_stays),
		cmocka_unit_test(max_is_kept),
		cmocka_unit_test(reservations_come_first),
		cmocka_unit_test(pressure_takes_from_all),
		cmocka_unit_test(laws_hold_for_any_input),
		cmocka_unit_test(plans_settle),
		cmocka_unit_test(budget_follows_the_host),
		cmocka_unit_test(budget_comes_back_slowly),
		cmocka_unit_test(pressure_ends_below_a_limit_too_high),
		cmocka_unit_test(stalls_take_from_what_is_held),
		cmocka_unit_test(guests_are_told_last),
		cmocka_unit_test(guests_are_told_slowly_of_calm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
