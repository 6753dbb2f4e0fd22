/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stores that are filled and overwritten, and what they hold: density.c, for one
 * large tenant, and tenants.c, for many small ones
 */
#ifndef BENCH_DENSITY_H
#define BENCH_DENSITY_H

#include "sides.h"

#define TENANTS	     64u
#define TENANT_PAGES 256u

/* Tenants of @pages pages each. */
struct some {
	struct corpus *corpus;
	struct tmem_store *store;
	struct worker worker;
	struct tmem_tenant *tenant[TENANTS];
	uint32_t tenants, pages;
	double before;
	uint64_t random;
};

/* @flags: TMEM_STORE_*. */
void some_open(struct some *some, struct corpus *corpus, uint32_t tenants,
	       uint32_t pages, uint32_t flags);
void some_fill(struct some *some);
/* Pages of all tenants at random, the device's steps in between. */
void some_overwrite(struct some *some, uint32_t count);
/* Returns the compressed bytes. */
double some_held(struct some *some, struct held *held);
void some_close(struct some *some);

#endif /* BENCH_DENSITY_H */
