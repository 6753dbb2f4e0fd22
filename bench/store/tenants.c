/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Many small tenants in one store: what they hold, and what a put takes.  Their
 * pages are in slotted segments (host/libtmem/slotted.c); beside them, in the same
 * run, in size classes, as those of large tenants.
 */
#include <lz4.h>
#include <stdlib.h>

#include "density.h"

#define ROUNDS	   9u
#define OVERWRITES 8192u

/* What is measured of either. */
static const struct layout_names {
	uint32_t flags;
	const char *full[2], *churned[2], *full_beside[2], *churned_beside[2];
	const char *put[2];
	/* By the library's count; NULL: not told. */
	const char *full_library[2], *churned_library[2];
} layouts[] = {
	{
		.full_library = { "full",
				  "held / compressed after fill, library" },
		.churned_library = { "churned",
				     "held / compressed after 3N overwrites, "
				     "library" },
		.full = { "full_kernel",
			  "held / compressed after fill, kernel" },
		.churned = { "churned_kernel",
			     "held / compressed after 3N overwrites, "
			     "kernel" },
		.full_beside = { "full_beside_mib",
				 "a tenant's beside 1.05 x compressed, after "
				 "fill" },
		.churned_beside = { "churned_beside_mib",
				    "a tenant's beside 1.06 x, after "
				    "overwrites" },
		.put = { "put", "put and steps over bare LZ4, overwrites" },
	},
	{
		.flags = TMEM_STORE_SIZE_CLASSES,
		.full = { "classes_full_kernel", "size classes: after fill" },
		.churned = { "classes_churned_kernel",
			     "size classes: after 3N overwrites" },
		.full_beside = { "classes_full_beside_mib",
				 "size classes: beside 1.05 x, after fill" },
		.churned_beside = { "classes_churned_beside_mib",
				    "size classes: beside 1.06 x, after "
				    "overwrites" },
		.put = { "classes_put", "size classes: put and steps" },
	},
};

static void note(const char *const names[2], const char *unit, double value)
{
	if (names[0])
		figure_note("tenants", names[0], names[1], unit, value);
}

/* MiB a tenant beside @budget times the compressed bytes. */
static double beside_mib(double held, double budget, double stored)
{
	return (held - budget) * stored / TENANTS / MIB;
}

static void layout_held(struct corpus *corpus,
			const struct layout_names *layout)
{
	struct held held;
	struct some some;
	double stored;

	some_open(&some, corpus, TENANTS, TENANT_PAGES, layout->flags);
	some_fill(&some);
	stored = some_held(&some, &held);
	note(layout->full_library, "x", held.library);
	note(layout->full, "x", held.kernel);
	note(layout->full_beside, "MiB", beside_mib(held.kernel, 1.05, stored));
	some_overwrite(&some, 3 * TENANTS * TENANT_PAGES);
	step_until(some.store, 1);
	stored = some_held(&some, &held);
	note(layout->churned_library, "x", held.library);
	note(layout->churned, "x", held.kernel);
	note(layout->churned_beside, "MiB",
	     beside_mib(held.kernel, 1.06, stored));
	some_close(&some);
}

/* The same pages in the same order as some_overwrite() puts. */
static double lz4_overwrite(const struct some *some, char *state, char *stored)
{
	uint32_t all = some->pages * some->tenants;
	uint64_t random = some->random;
	double start = cpu_s();
	char buffer[PAGE];

	for (uint32_t i = 0; i < OVERWRITES; i++) {
		uint32_t page;

		next_random(&random);
		page = next_random(&random) % all;
		LZ4_compress_fast_extState(
			state, corpus_any_page(some->corpus, page, buffer),
			stored, PAGE, LZ4_CAP, LZ4_ACCELERATION);
	}
	return cpu_s() - start;
}

static double tmem_overwrite(struct some *some)
{
	double start = cpu_s();

	some_overwrite(some, OVERWRITES);
	return cpu_s() - start;
}

/* Both layouts and LZ4 in turn. */
static void layouts_put(struct corpus *corpus)
{
	char *state = malloc(LZ4_sizeofState()), *stored = malloc(PAGE);
	struct some some[ARRAY_SIZE(layouts)];

	if (!state || !stored)
		die("out of memory");
	for (unsigned int i = 0; i < ARRAY_SIZE(layouts); i++) {
		some_open(&some[i], corpus, TENANTS, TENANT_PAGES,
			  layouts[i].flags);
		some_fill(&some[i]);
		some_overwrite(&some[i], TENANTS * TENANT_PAGES);
	}
	for (unsigned int round = 0; round < ROUNDS; round++) {
		double lz4 = lz4_overwrite(&some[0], state, stored);

		for (unsigned int i = 0; i < ARRAY_SIZE(layouts); i++) {
			unsigned int which = (i + round) % ARRAY_SIZE(layouts);

			note(layouts[which].put, "x",
			     tmem_overwrite(&some[which]) / lz4);
		}
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(layouts); i++)
		some_close(&some[i]);
	free(stored);
	free(state);
}

void tenants_run(struct corpus *corpus)
{
	progress("%u tenants of 1 MiB", TENANTS);
	for (unsigned int i = 0; i < ARRAY_SIZE(layouts); i++)
		layout_held(corpus, &layouts[i]);
	layouts_put(corpus);
}
