// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Leases that move: the policy's answers, carried out in an order in which the
 * sum of the leases never exceeds the host's limit
 *
 * Recalls are sent first.  Reservations of stores that wait and then growth are
 * paid from what is free at that moment; the rest has its turn when something
 * was released, which calls for another plan.
 */
#include <string.h>

#include "broker.h"
#include "listen.h"
#include "pressure.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* The host is looked at while there are stores, at most and at least so often.
 */
#define LOOK_LEAST_MS 100
#define LOOK_MOST_MS  1000
/* A recall's time: 1 s, and 1 s for each GiB. */
#define RECALL_MS	1000
#define RECALL_MS_SHIFT 20
/* What could be recalled is nothing: 3 % of what is held. */
#define SPENT_PART 32

typedef unsigned long long ull; /* for lines */

void plan_want(struct broker *b)
{
	b->plan_wanted = true;
}

/* ------------------------------------------------------------------ host */

static uint64_t held_of(struct broker *b, struct store *s)
{
	return MIN(store_believed(b, s, s->report.held), s->leased);
}

uint64_t held_sum(const struct broker *b)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < b->num_stores; i++)
		sum += held_of((struct broker *)b, b->store[i]);
	return sum;
}

/* Is there next to nothing left that could be recalled? */
static bool spent(struct broker *b, uint64_t held)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < b->num_stores; i++) {
		const struct store *s = b->store[i];
		uint64_t low = MAX(s->reserved, s->report.fixed);

		sum += s->leased - MIN(s->leased, low);
	}
	return sum <= held / SPENT_PART;
}

/* What is left when recalls did not help. */
static void look_at_backoff(struct broker *b, const struct policy_host *host,
			    uint64_t ms)
{
	unsigned int was = b->backoff.level;

	policy_backoff_next(&b->backoff, host, spent(b, host->held), ms);
	if (b->backoff.level != was)
		report("guests are told that the host is %s of memory: level "
		       "%u",
		       b->backoff.level > was ? "short" : "less short",
		       b->backoff.level);
}

static void look_at_host(struct broker *b, uint64_t now)
{
	uint64_t ms = b->budget_ms ? now - b->budget_ms : 0;
	struct policy_host host = {
		.limit = b->config->limit,
		.held = held_sum(b),
		.headroom = b->config->headroom,
	};
	bool was_low = b->budget.low;

	b->available = pressure_available(b->config->meminfo);
	host.available = b->available;
	host.stalled = b->stalled ||
		       (b->trigger_fd < 0 && pressure_stalled(b->config->psi));
	b->stalled = false;
	policy_budget_next(&b->budget, &host, ms);
	look_at_backoff(b, &host, ms);
	b->budget_ms = now;
	if (b->budget.low != was_low)
		report("the host is %s memory: %llu bytes available, headroom "
		       "%llu%s; leases may be %llu of %llu",
		       was_low ? "no longer short of" : "short of",
		       (ull)b->available, (ull)host.headroom,
		       host.stalled ? ", tasks wait for memory" : "",
		       (ull)b->budget.budget, (ull)host.limit);
}

/* ---------------------------------------------------------------- policy */

/*
 * Hits of pages that the store may drop.  A persistent page is found whatever
 * the lease is: gets of those say how much a guest swaps, and one that swaps
 * within its lease must not starve one whose pages are refused.  Gets are of
 * both kinds, and are parted as the pages are.
 */
static double ephemeral_hits(struct store *s)
{
	const struct tmem_lease_report *r = &s->report;
	double all = (double)r->ephemeral_raw + (double)r->persistent_raw;

	if (r->gets > s->hits_seen && all > 0)
		s->hits += (double)(r->gets - s->hits_seen) *
			   (double)r->ephemeral_raw / all;
	s->hits_seen = r->gets;
	return s->hits;
}

/* What has become of its bytes, and what more of them could have done. */
static uint64_t useful(struct store *s)
{
	const struct tmem_lease_report *r = &s->report;
	double sum =
		ephemeral_hits(s) + (double)r->refused + (double)r->refaults;

	/* A peer may say anything. */
	return sum < (double)INT64_MAX ? (uint64_t)sum : INT64_MAX;
}

static void describe(struct broker *b, struct store *s, uint64_t now,
		     struct policy_store *p)
{
	uint64_t held = held_of(b, s), fixed = MIN(s->report.fixed, held);

	policy_observe(&s->benefit, useful(s), now - s->observed_ms);
	s->observed_ms = now;
	*p = (struct policy_store){
		.reserved = s->reserved,
		/* What its cgroup does not let it hold others can use. */
		.max = MIN(s->max, store_fits(b, s, held, now)),
		.leased = s->leased,
		/* What will not come pays for nothing: others are asked. */
		.pending = s->overdue ? s->leased : MAX(s->target, fixed),
		.held = held,
		.fixed = fixed,
		.wanted = s->wanted,
		.weight = s->weight,
		.rate = s->benefit.rate,
		/* Whom nobody can tell has what it has. */
		.frozen = s->state == TMEM_LEASE_ABSENT || s->overdue ||
			  (s->frozen && !b->budget.low &&
			   s->leased >= s->reserved),
	};
	/* Parts of it are released on the way, and are not to come back. */
	if (s->leased > s->target && now < s->shrink_until_ms) {
		p->held = MIN(p->held, MAX(s->target, p->fixed));
		p->wanted = 0;
	}
}

/* ---------------------------------------------------------------- moving */

void plan_recall(struct broker *b, struct store *s, uint64_t target)
{
	uint64_t more = s->target - MIN(target, s->target);

	s->target = MAX(target, s->reserved);
	s->serial++;
	/* One that is under way gets time for what is more, and no new second. */
	if (s->recalled_ms && s->deadline_ms)
		s->deadline_ms += more >> RECALL_MS_SHIFT;
	else
		s->deadline_ms = now_ms() + RECALL_MS +
				 ((s->leased - s->target) >> RECALL_MS_SHIFT);
	b->counters.recalls++;
	if (!s->recalled_ms)
		s->recalled_ms = now_ms();
	if (s->say != TMEM_LEASE_WELCOME)
		s->say = TMEM_LEASE_RECALL;
	store_tell(b, s);
}

static void grant(struct broker *b, struct store *s, uint64_t leased)
{
	s->leased = s->target = leased;
	s->deadline_ms = s->recalled_ms = 0;
	s->overdue = false;
	s->serial++;
	b->counters.grants++;
	if (leased >= s->reserved)
		store_promised(s);
	if (s->state == TMEM_LEASE_WAITING) {
		s->state = TMEM_LEASE_ADMITTED;
		s->say = TMEM_LEASE_WELCOME;
		/* Before it is told: we may be killed in between. */
		stores_note(b);
	} else if (s->say != TMEM_LEASE_WELCOME) {
		s->say = TMEM_LEASE_GRANT;
	}
	store_tell(b, s);
}

/* Bytes that leases may still grow by. */
static uint64_t room(const struct broker *b, uint64_t limit)
{
	uint64_t sum = leases_sum(b);

	return limit - MIN(limit, sum);
}

/*
 * Reservations that are waited for, of new stores and by TERMS: the host's
 * limit, whatever its pressure.
 */
static void admit(struct broker *b)
{
	for (unsigned int i = 0; i < b->num_stores; i++) {
		struct store *s = b->store[i];

		if (s->state != TMEM_LEASE_ABSENT && s->leased < s->reserved &&
		    s->reserved - s->leased <= room(b, b->config->limit))
			grant(b, s, s->reserved);
	}
}

static double filled(const struct store *s, const struct policy_store *p)
{
	return (double)(s->leased - s->reserved) /
	       ((double)p->weight * p->benefit);
}

/* Whole chunks of what policy gives it, as far as there is room: @left. */
static uint64_t growth(const struct broker *b, const struct store *s,
		       const struct policy_store *p, uint64_t left)
{
	uint64_t bytes;

	/* One that lacks some of its reservation has all of it, or waits. */
	if (s->state != TMEM_LEASE_ADMITTED || p->target <= s->leased ||
	    s->leased < s->reserved)
		return 0;
	bytes = p->target - s->leased;
	if (bytes <= left)
		return bytes;
	return left - left % b->config->chunk;
}

/* Who has least for its weight is first. */
static void grant_all(struct broker *b, struct policy_store *p)
{
	const uint64_t most = MIN(b->budget.budget, b->config->limit);

	for (;;) {
		unsigned int next = b->num_stores;
		uint64_t left = room(b, most);

		for (unsigned int i = 0; i < b->num_stores; i++)
			if (growth(b, b->store[i], &p[i], left) &&
			    (next == b->num_stores ||
			     filled(b->store[i], &p[i]) <
				     filled(b->store[next], &p[next])))
				next = i;
		if (next == b->num_stores)
			return;
		grant(b, b->store[next],
		      b->store[next]->leased +
			      growth(b, b->store[next], &p[next], left));
	}
}

/* More than a limit was lowered to: one line. */
static void tell_over(struct broker *b)
{
	uint64_t sum = leases_sum(b);
	bool over = sum > b->config->limit;

	if (over && !b->over_told)
		report("leases are %llu bytes, more than the limit of %llu: "
		       "nothing is granted until they fit",
		       (ull)sum, (ull)b->config->limit);
	b->over_told = over;
}

/* For metrics: how long leases are more than what a short host can back. */
static void watch_relief(struct broker *b, uint64_t now)
{
	uint64_t most = MIN(b->budget.budget, b->config->limit);
	bool over = b->budget.low && leases_sum(b) > most;

	if (over && !b->short_ms)
		b->short_ms = now;
	if (over || !b->short_ms)
		return;
	histogram_add(&b->relief, now - b->short_ms);
	b->short_ms = 0;
}

static void make_plan(struct broker *b, uint64_t now)
{
	static struct policy_store p[MAX_STORES];
	unsigned int num = b->num_stores;
	uint64_t budget;

	/* What the trigger told is once in 2 s, and does not wait. */
	if (b->stalled || now >= b->budget_ms + LOOK_LEAST_MS)
		look_at_host(b, now);
	for (unsigned int i = 0; i < num; i++)
		describe(b, b->store[i], now, &p[i]);
	policy_weigh(p, num);
	budget = MIN(b->budget.budget, b->config->limit);
	policy_divide(p, num, budget, b->config->chunk);
	policy_settle(p, num, budget, b->config->chunk);
	for (unsigned int i = 0; i < num; i++)
		b->store[i]->benefit_now = p[i].benefit;
	/* A peer that is gone is noticed by sending: its store stays, ABSENT.
	 */
	for (unsigned int i = 0; i < num; i++)
		if (b->store[i]->state == TMEM_LEASE_ADMITTED &&
		    p[i].target < b->store[i]->target)
			plan_recall(b, b->store[i], p[i].target);
	admit(b);
	grant_all(b, p);
	/* What is left to say: PRESSURE. */
	for (unsigned int i = 0; i < num; i++)
		store_tell(b, b->store[i]);
	tell_over(b);
	watch_relief(b, now);
}

/* --------------------------------------------------------------- restart */

static bool in_grace(struct broker *b, uint64_t now)
{
	if (!b->grace_until_ms)
		return false;
	if (now < b->grace_until_ms)
		return true;
	b->grace_until_ms = 0;
	b->survivors = 0;
	b->plan_wanted = true;
	return false;
}

uint64_t plan_tick(struct broker *b, uint64_t now)
{
	uint64_t next;

	if (in_grace(b, now))
		return b->grace_until_ms;
	next = b->num_stores ? b->budget_ms + LOOK_MOST_MS : UINT64_MAX;
	if (b->num_stores && now >= next)
		b->plan_wanted = true;
	if (!b->plan_wanted)
		return next;
	if (now < b->planned_ms + PLAN_MS)
		return b->planned_ms + PLAN_MS;
	b->plan_wanted = false;
	b->planned_ms = now;
	make_plan(b, now);
	stores_note(b);
	return now + (b->plan_wanted ? PLAN_MS : LOOK_MOST_MS);
}
