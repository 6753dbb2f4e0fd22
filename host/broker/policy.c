// SPDX-License-Identifier: BSD-3-Clause
/*
 * Who may hold how many bytes: policy.h says what is computed
 */
#include <stddef.h>

#include "policy.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Time constant of the average of what is useful. */
#define BENEFIT_MS 10000.0
/* A move is at least 1/20 of a lease: 5 %. */
#define MOVE_PART 20
/* Where tasks stall, so much of what is held goes at once. */
#define STALL_PART 20

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a - MIN(a, b);
}

/* --------------------------------------------------------------- benefit */

void policy_observe(struct policy_benefit *benefit, uint64_t useful,
		    uint64_t ms)
{
	double now, share;

	/* What was before it was known says nothing about a rate. */
	if (!benefit->started || useful < benefit->useful) {
		benefit->started = true;
		benefit->useful = useful;
		return;
	}
	if (!ms)
		return;
	now = (double)(useful - benefit->useful) / (double)ms;
	share = (double)ms / ((double)ms + BENEFIT_MS);
	benefit->rate += share * (now - benefit->rate);
	benefit->useful = useful;
}

/*
 * The part of what it holds that can be called back.  What persistent pages have
 * taken is not given back when the benefit changes, so for those all stores of a
 * weight are alike: else who is refused a moment earlier than others, or says so,
 * would take what is theirs for good.
 */
static double recallable(const struct policy_store *s)
{
	return s->held ? (double)minus(s->held, s->fixed) / (double)s->held : 0;
}

void policy_weigh(struct policy_store *stores, unsigned int num)
{
	double rate = 0, leased = 0, mean;

	for (unsigned int i = 0; i < num; i++) {
		rate += stores[i].rate;
		leased += (double)stores[i].leased;
	}
	mean = leased > 0 ? rate / leased : 0;
	for (unsigned int i = 0; i < num; i++) {
		struct policy_store *s = &stores[i];
		double factor = 1;

		if (mean > 0 && s->leased)
			factor = s->rate / (double)s->leased / mean;
		factor = MAX(BENEFIT_LEAST, MIN(factor, BENEFIT_MOST));
		factor = 1 + (factor - 1) * recallable(s);
		s->benefit = (uint32_t)(factor * BENEFIT_ONE);
	}
}

/* --------------------------------------------------------------- division */

static uint64_t low_of(const struct policy_store *s)
{
	if (s->frozen)
		return s->leased;
	/* What is held beyond the lease is not made right by it. */
	return MAX(s->reserved, MIN(s->fixed, s->leased));
}

/* What it can use, in whole chunks above its reservation. */
static uint64_t high_of(const struct policy_store *s, uint64_t chunk)
{
	uint64_t low = low_of(s), high;

	if (s->frozen)
		return s->leased;
	high = minus(MAX(s->held, s->wanted), s->reserved);
	high = s->reserved + (high + chunk - 1) / chunk * chunk;
	return MAX(low, MIN(high, s->max));
}

/* Its share when all are filled to @level. */
static uint64_t share_of(const struct policy_store *s, uint64_t level,
			 uint64_t chunk)
{
	unsigned __int128 above =
		(unsigned __int128)level * s->weight * s->benefit >> 16;
	uint64_t high = high_of(s, chunk);
	uint64_t share;

	if (above > high)
		above = high;
	share = s->reserved + (uint64_t)above;
	return MAX(low_of(s), MIN(share, high));
}

static bool fits(const struct policy_store *stores, unsigned int num,
		 uint64_t level, uint64_t budget, uint64_t chunk)
{
	unsigned __int128 sum = 0;

	for (unsigned int i = 0; i < num; i++)
		sum += share_of(&stores[i], level, chunk);
	return sum <= budget;
}

/* The largest level that fits: progressive filling, by bisection. */
static uint64_t fill(const struct policy_store *stores, unsigned int num,
		     uint64_t budget, uint64_t chunk)
{
	uint64_t level = 0;

	for (uint64_t bit = 1ull << 62; bit; bit >>= 1)
		if (fits(stores, num, level | bit, budget, chunk))
			level |= bit;
	return level;
}

/* Bytes above the reservation for each weight: who has least is next. */
static double filled(const struct policy_store *s)
{
	return (double)(s->target - s->reserved) /
	       ((double)s->weight * s->benefit);
}

/* What rounding left over goes, chunk by chunk, to who has least. */
static void hand_out(struct policy_store *stores, unsigned int num,
		     uint64_t left, uint64_t chunk)
{
	for (unsigned int round = 0; round < num && left >= chunk; round++) {
		struct policy_store *next = NULL;

		for (unsigned int i = 0; i < num; i++) {
			struct policy_store *s = &stores[i];

			if (s->target + chunk <= high_of(s, chunk) &&
			    (!next || filled(s) < filled(next)))
				next = s;
		}
		if (!next)
			break;
		next->target += chunk;
		left -= chunk;
	}
}

void policy_divide(struct policy_store *stores, unsigned int num,
		   uint64_t budget, uint64_t chunk)
{
	uint64_t level = fill(stores, num, budget, chunk), sum = 0;

	for (unsigned int i = 0; i < num; i++) {
		struct policy_store *s = &stores[i];
		uint64_t share = share_of(s, level, chunk);

		if (share != high_of(s, chunk) && share > s->reserved)
			share -= (share - s->reserved) % chunk;
		s->target = MAX(share, low_of(s));
		sum += s->target;
	}
	hand_out(stores, num, minus(budget, sum), chunk);
}

/* ---------------------------------------------------------------- moves */

static uint64_t least_move(const struct policy_store *s, uint64_t chunk)
{
	return MAX(chunk, s->leased / MOVE_PART);
}

/* What it would get more; a recall that is under way is void only in whole. */
static uint64_t growth_of(const struct policy_store *s)
{
	if (s->pending < s->leased && s->target < s->leased)
		return 0;
	return minus(s->target, s->leased);
}

/* Bytes that have to be recalled, beside those that are on their way. */
static uint64_t lacking(const struct policy_store *stores, unsigned int num,
			uint64_t budget)
{
	uint64_t pending = 0, growth = 0;

	for (unsigned int i = 0; i < num; i++) {
		growth += growth_of(&stores[i]);
		pending += growth_of(&stores[i]) ? stores[i].leased
						 : stores[i].pending;
	}
	return minus(pending + growth, budget);
}

/* Growth at others' expense that is not worth it. */
static void drop_small_growth(struct policy_store *stores, unsigned int num,
			      uint64_t budget, uint64_t chunk)
{
	for (unsigned int i = 0; i < num; i++) {
		struct policy_store *s = &stores[i];

		if (!lacking(stores, num, budget))
			return;
		if (s->leased >= s->reserved && growth_of(s) &&
		    growth_of(s) < least_move(s, chunk))
			s->target = s->leased;
	}
}

/* Who has most too much is asked first: the next, or NULL. */
static struct policy_store *next_payer(struct policy_store *stores,
				       unsigned int num, uint64_t chunk,
				       bool forced)
{
	struct policy_store *next = NULL;

	for (unsigned int i = 0; i < num; i++) {
		struct policy_store *s = &stores[i];
		uint64_t excess = minus(s->pending, s->target);

		if (s->order || !excess || (!forced && excess < chunk))
			continue;
		if (!next || excess > minus(next->pending, next->target))
			next = s;
	}
	return next;
}

/* Chunks of what it has too much that pay @lack. */
static uint64_t payment(const struct policy_store *s, uint64_t lack,
			uint64_t chunk)
{
	uint64_t excess = s->pending - s->target;

	lack = (lack + chunk - 1) / chunk * chunk;
	return MIN(excess, lack);
}

static void keep_leases(struct policy_store *stores, unsigned int num)
{
	for (unsigned int i = 0; i < num; i++) {
		struct policy_store *s = &stores[i];

		/* order is 1 for who pays: its target is right. */
		if (s->order)
			continue;
		if (s->pending > s->target)
			s->target = s->pending;
		else if (!growth_of(s))
			s->target = s->pending;
	}
}

void policy_settle(struct policy_store *stores, unsigned int num,
		   uint64_t budget, uint64_t chunk)
{
	struct policy_store *payer;
	uint64_t pending = 0, lack;
	bool forced = false;

	for (unsigned int i = 0; i < num; i++) {
		struct policy_store *s = &stores[i];

		pending += s->pending;
		/* A reservation is no matter of small moves. */
		forced |= s->leased < s->reserved;
		s->order = 0;
		if (s->pending > MAX(s->max, low_of(s)) && !s->frozen) {
			s->target = MAX(s->max, low_of(s));
			s->order = 1;
		}
	}
	drop_small_growth(stores, num, budget, chunk);
	lack = lacking(stores, num, budget);
	/* Nor is a budget that leases exceed. */
	forced |= pending > budget;
	while (lack && (payer = next_payer(stores, num, chunk, forced))) {
		uint64_t pays = payment(payer, lack, chunk);

		payer->target = payer->pending - pays;
		payer->order = 1;
		lack = minus(lack, pays);
	}
	keep_leases(stores, num);
}

/* ------------------------------------------------------------ the budget */

static bool is_short(const struct policy_host *host)
{
	return host->stalled || host->available < host->headroom;
}

static uint64_t backed(const struct policy_host *host)
{
	uint64_t most = host->limit;

	if (host->available != UINT64_MAX) {
		uint64_t lacks = minus(host->headroom, host->available);
		uint64_t room = minus(host->available, host->headroom);

		most = MIN(most, minus(host->held, lacks) + room);
	}
	if (host->stalled)
		most = MIN(most, host->held - host->held / STALL_PART);
	return most;
}

void policy_budget_next(struct policy_budget *b, const struct policy_host *host,
			uint64_t ms)
{
	uint64_t most = backed(host);

	/* A limit that was raised is no memory that has to be waited for. */
	if (host->limit != b->limit && !b->low && most > b->budget)
		b->budget = most;
	b->limit = host->limit;
	if (is_short(host)) {
		b->low = true;
		b->calm_ms = 0;
	}
	if (most <= b->budget) {
		/* Another limit is no pressure. */
		if (most < b->budget && most < host->limit)
			b->calm_ms = 0;
		else
			b->calm_ms += ms;
		b->budget = most;
	} else {
		b->calm_ms += ms;
		if (b->calm_ms >= BUDGET_CALM_MS)
			b->budget += MIN(most - b->budget,
					 host->limit / 32 / 1000 * ms + 1);
	}
	/* A limit that is more than the host can ever back is never reached. */
	if (b->budget >= host->limit ||
	    (b->budget >= most && b->calm_ms >= BUDGET_CALM_MS))
		b->low = false;
}

/* -------------------------------------------------------------- back-off */

void policy_backoff_next(struct policy_backoff *b,
			 const struct policy_host *host, bool spent,
			 uint64_t ms)
{
	b->tried_ms += ms;
	b->calm_ms += ms;
	if (!is_short(host)) {
		if (b->calm_ms < BUDGET_CALM_MS)
			return;
		b->calm_ms = 0;
		b->tried = false;
		b->level -= b->level > 0;
		return;
	}
	b->calm_ms = 0;
	if (!b->tried) {
		b->tried = true;
		b->tried_ms = spent && !b->level ? BACKOFF_MS : 0;
	}
	if (b->tried_ms < BACKOFF_MS || b->level == 2 || (b->level && !spent))
		return;
	b->level++;
	b->tried_ms = 0;
}
