/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What lies between pages: a guest that leaves one page in each span, and then
 * keeps the store from packing them, must not hold many times what it stores.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "store-fixture.h"

#define P TMEM_POOL_PERSISTENT
/* Of pages that compress to a third: more than a span has of them. */
#define STRIDE 24

/* Compressible pages of object 1 from index 0 on, @most of them at most. */
static uint64_t put_compressible(struct fixture *f, uint64_t most)
{
	uint64_t n = 0;

	while (n < most && put(f, 0, 1, n, 4 * n + 1) == TMEM_PAGE_OK)
		n++;
	return n;
}

/* All but each STRIDEth of them go. */
static void leave_fragments(struct fixture *f, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i += STRIDE)
		flush(f, 0, 1, i + 1, STRIDE - 1);
}

static void check_fragments(struct fixture *f, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i += STRIDE)
		assert_int_equal(get(f, 0, 1, i, 4 * i + 1), TMEM_PAGE_OK);
}

/* Pools that end all the time do not keep the others from being packed. */
static void drains_do_not_starve_compaction(void **state)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 0, P);
	assert_int_equal(put_compressible(&f, 24000), 24000);
	leave_fragments(&f, 24000);
	stats = stats_of(&f);
	assert_true(stats.held_bytes > 5 * stats.stored_bytes);
	for (unsigned int round = 0; round < 200; round++) {
		pool_open(&f, 1, P);
		for (uint64_t i = 0; i < 300; i++)
			assert_int_equal(put(&f, 1, 1, i, 0), TMEM_PAGE_OK);
		assert_int_equal(tmem_pool_destroy(f.tenant, 1), 0);
		tmem_step(f.store, 256);
	}
	stats = stats_of(&f);
	/* There always was something to drain. */
	assert_true(stats.draining_pages > 0);
	assert_true(stats.held_bytes < 2 * stats.stored_bytes + MIB);
	check_fragments(&f, 24000);
	fixture_close(&f);
}

/* Nobody steps: who needs room packs what is there, before he is refused. */
static void fragments_are_room(void **state)
{
	const uint64_t max = 16 * MIB;
	uint64_t pages, accepted = 0;
	struct fixture f;

	fixture_open(&f, max, 0);
	pool_open(&f, 0, P);
	pages = put_compressible(&f, UINT64_MAX);
	leave_fragments(&f, pages);
	assert_true(stats_of(&f).held_bytes > max * 7 / 8);
	while (put(&f, 0, 2, accepted, 4 * accepted + 3) == TMEM_PAGE_OK)
		accepted++;
	assert_true(accepted * PAGE > max * 3 / 4);
	assert_true(stats_of(&f).held_bytes <= max + MIB / 16);
	check_fragments(&f, pages);
	fixture_close(&f);
}

/* Nor do fragments stand in a reservation's way, or the store exceed its limit.
 */
static void fragments_leave_the_reservation(void **state)
{
	const uint64_t reserved = 16 * MIB,
		       max = tmem_reservation_cost(reserved);
	struct fixture f;
	uint64_t pages;

	fixture_open(&f, max, reserved);
	pool_open(&f, 0, P);
	pages = put_compressible(&f, UINT64_MAX);
	assert_true(pages * PAGE > 2 * reserved);
	leave_fragments(&f, pages);
	pages = (pages + STRIDE - 1) / STRIDE;
	for (uint64_t i = 0; i < reserved / PAGE - pages; i++) {
		assert_int_equal(put(&f, 0, 2, i, 4 * i + 3), TMEM_PAGE_OK);
		assert_true(stats_of(&f).held_bytes <= max + MIB / 16);
	}
	check_fragments(&f, pages * STRIDE);
	fixture_close(&f);
}

/* ------------------------------------------------------------ given back */

/* Bytes of shared memory that this process has mapped, memfds' among it. */
static uint64_t mapped_shared(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[256];

	assert_non_null(status);
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "RssShmem: %lu", &kib) == 1)
			break;
	fclose(status);
	return (uint64_t)kib * 1024;
}

/* Incompressible pages, of which the last few stay. */
#define GIVEN 1000u
#define STAYS 16u

/*
 * Nearly all pages of a group go: bytes that this process has unmapped once the
 * first few were given back.
 */
static int64_t unmapped_by_few(void)
{
	uint64_t mapped, held;
	struct fixture f;
	int64_t unmapped;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < GIVEN; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	flush(&f, 0, 1, 0, GIVEN - STAYS);
	held = stats_of(&f).held_bytes;
	mapped = mapped_shared();
	while (stats_of(&f).held_bytes + 4 * PAGE > held)
		assert_true(tmem_step(f.store, 4) > 0);
	assert_true(stats_of(&f).held_bytes + MIB > held);
	unmapped = mapped - mapped_shared();
	for (uint64_t i = GIVEN - STAYS; i < GIVEN; i++)
		assert_int_equal(get(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	while (tmem_step(f.store, 256))
		;
	assert_true(stats_of(&f).held_bytes + 3 * MIB < held);
	assert_true(mapped_shared() + 3 * MIB < mapped);
	for (uint64_t i = GIVEN - STAYS; i < GIVEN; i++)
		assert_int_equal(get(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	fixture_close(&f);
	return unmapped;
}

/* What is about to be given back is unmapped at once; nothing else is lost. */
static void an_idle_group_is_unmapped(void **state)
{
	assert_true(unmapped_by_few() > (int64_t)(2 * MIB));
}

/* Locked memory, which cannot be unmapped before, is given back as well. */
static void locked_memory_is_given_back(void **state)
{
	if (geteuid() || mlockall(MCL_FUTURE | MCL_ONFAULT)) {
		print_message("# needs a user who may lock memory\n");
		skip();
	}
	/* Sanitizers lock nothing: how much is unmapped is not said. */
	unmapped_by_few();
	munlockall();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(drains_do_not_starve_compaction),
		cmocka_unit_test(fragments_are_room),
		cmocka_unit_test(fragments_leave_the_reservation),
		cmocka_unit_test(an_idle_group_is_unmapped),
		cmocka_unit_test(locked_memory_is_given_back),
	};

	return RUN_IN_BOTH_LAYOUTS("store-compaction", tests, NULL);
}
