/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who may hold how many bytes: arithmetic alone
 *
 * Nothing here waits, reads a clock or a file, or knows of sockets.
 *
 * A store's lease is divided into its reservation, which is always its own, and
 * what is above.  That is divided by weighted max-min fairness: all stores are
 * filled at rates that are as their weights, and whoever has what it can use
 * drops out.  So nobody can get more without somebody getting less who has less
 * for its weight.  A store is never filled to less than what it cannot give
 * back.
 *
 *	share(L) = clamp(reserved + L x weight x benefit, low, high)
 *	low      = max(reserved, what it cannot give back)
 *	high     = min(max, max(low, held, wanted))
 *
 * with the largest L with which all shares fit into the budget.
 *
 * benefit is what the store made of its bytes lately, relative to all stores:
 * hits of pages that may be dropped, and pages that it could have used (refused,
 * or evicted and missed), for each leased byte; within 1/2 .. 2, as a guest can
 * make hits up, and what one gains others lose: a factor of 4 between two; and 1
 * as far as what the store holds cannot be called back.
 */
#ifndef TMEM_BROKER_POLICY_H
#define TMEM_BROKER_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* policy_store.benefit: 1/256, within these. */
#define BENEFIT_LEAST 0.5
#define BENEFIT_MOST  2.0
#define BENEFIT_ONE   256u
#define BENEFIT_MIN   (BENEFIT_ONE / 2)
#define BENEFIT_MAX   (BENEFIT_ONE * 2)

/* What a store made of its lease lately. */
struct policy_benefit {
	uint64_t useful; /* pages so far, at the last observation */
	double rate;	 /* pages a millisecond, averaged over some 10 s */
	bool started;
};

struct policy_store {
	uint64_t reserved; /* bytes, as are all but weight and benefit */
	uint64_t max;
	uint64_t leased;  /* that the store may hold now */
	uint64_t pending; /* what a recall brings it to; else leased */
	uint64_t held;
	uint64_t fixed;	  /* of held, what cannot be given back */
	uint64_t wanted;  /* a lease that it would use up; 0: what it holds */
	uint32_t weight;  /* at least 1 */
	uint32_t benefit; /* BENEFIT_MIN .. BENEFIT_MAX */
	double rate;	  /* policy_benefit.rate, for policy_weigh() */
	bool frozen;	  /* neither more nor less */
	uint64_t target;  /* result */
	uint64_t order;	  /* policy_settle()'s */
};

/*
 * Note that so many pages were @useful so far, @ms after the last observation.
 */
void policy_observe(struct policy_benefit *benefit, uint64_t useful,
		    uint64_t ms);

/* Set each store's benefit from its rate, its lease, and what it holds. */
void policy_weigh(struct policy_store *stores, unsigned int num);

/*
 * Set each store's target: its fair share of @budget, above its reservation in
 * steps of @chunk.  Targets may exceed the budget together where reservations,
 * and what cannot be given back, do.
 */
void policy_divide(struct policy_store *stores, unsigned int num,
		   uint64_t budget, uint64_t chunk);

/*
 * Change targets to what is worth doing now.  Bytes that nobody else can use
 * stay where they are; as many are recalled as are needed for who gets more, or
 * as the budget lacks; and moves of less than a chunk, or of less than 5 % of
 * the lease that gets it, are not made at somebody's expense.  (Of the lease
 * that gives: then a small store could not get anything from a large one.)  A
 * store that has less than its reservation comes first and is subject to none
 * of that.
 */
void policy_settle(struct policy_store *stores, unsigned int num,
		   uint64_t budget, uint64_t chunk);

/* ------------------------------------------------------------ the budget */

/* What the host has. */
struct policy_host {
	uint64_t limit;	    /* that leases may be, whatever the host has */
	uint64_t held;	    /* by stores, of their leases */
	uint64_t available; /* MemAvailable; UINT64_MAX: unknown */
	uint64_t headroom;  /* ... that is to be left */
	bool stalled;	    /* tasks wait for memory (PSI) */
};

/* Set it to { .budget = UINT64_MAX }. */
struct policy_budget {
	uint64_t budget;  /* bytes that leases may be now */
	uint64_t limit;	  /* the host's, at the last call */
	uint64_t calm_ms; /* since the host last was short of memory */
	bool low;	  /* kept low because it was */
};

/*
 * The budget @ms after the last call: what the host can back, at once where
 * that is less, and where it is more after BUDGET_CALM_MS, by 1/32 of the limit
 * a second.
 */
#define BUDGET_CALM_MS 5000u
void policy_budget_next(struct policy_budget *budget,
			const struct policy_host *host, uint64_t ms);

/* -------------------------------------------------------------- back-off */

/* What guests are told of the host's memory.  Set it to { 0 }. */
struct policy_backoff {
	unsigned int level; /* 0 .. 2: TMEM_LEASE_PRESSURE */
	bool tried;	    /* the host is short of memory, and leases go */
	uint64_t tried_ms;  /* since when, or since the last step up */
	uint64_t calm_ms;   /* since the host last was short of memory */
};

/*
 * The level @ms after the last call.  Leases are recalled first: only when the
 * host is still short of memory BACKOFF_MS after that are guests told, and told
 * more when it is so as long after that again and nothing is left to recall
 * (@spent).  With nothing to recall in the first place they are told at once.
 * Each BUDGET_CALM_MS of calm takes one level back.
 */
#define BACKOFF_MS 1000u
void policy_backoff_next(struct policy_backoff *backoff,
			 const struct policy_host *host, bool spent,
			 uint64_t ms);

#endif /* TMEM_BROKER_POLICY_H */
