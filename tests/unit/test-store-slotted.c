/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Small tenants: pages of all sizes share segments, which are packed for who
 * overwrites, who is at his limit, who was large, and who is adopted.
 */
#include "store-fixture.h"
#include "internal.h"

#define P     TMEM_POOL_PERSISTENT
#define PAGES 256u

static const struct tmem_limits limits = { .size = sizeof(limits),
					   .persistent_reserved = 8 * MIB };

/* Stored in up to 40 bytes more than @bytes. */
static void make_sized(void *page, uint64_t seed, unsigned int bytes)
{
	uint64_t *word = page;

	memset(page, 0, PAGE);
	for (unsigned int i = 0; i < bytes / 8; i++)
		word[i] = mix(seed * 1000003 + i);
}

/* Sizes that a slotted segment takes, all alike. */
static unsigned int mixed_bytes(uint64_t seed)
{
	return 256 + 8 * (mix(seed) % 390);
}

static void make_mixed(void *page, uint64_t seed)
{
	make_sized(page, seed, mixed_bytes(seed));
}

static int put_sized(struct fixture *f, uint64_t index, uint64_t seed,
		     unsigned int bytes)
{
	struct tmem_page page = { .status = 0xff };
	uint64_t data[PAGE / 8];

	make_sized(data, seed, bytes);
	assert_int_equal(
		run(f, f->ctx, TMEM_PUT, 0, 1, index, 1, data, &page, NULL), 0);
	return page.status;
}

static int put_mixed(struct fixture *f, uint64_t index, uint64_t seed)
{
	return put_sized(f, index, seed, mixed_bytes(seed));
}

static int get_mixed(struct fixture *f, uint64_t index, uint64_t seed)
{
	uint64_t data[PAGE / 8], expected[PAGE / 8];
	struct tmem_page page = { .status = 0xff };

	assert_int_equal(
		run(f, f->ctx, TMEM_GET, 0, 1, index, 1, data, &page, NULL), 0);
	make_mixed(expected, seed);
	if (page.status == TMEM_PAGE_OK)
		assert_memory_equal(data, expected, PAGE);
	return page.status;
}

static void fill(struct fixture *f, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		assert_int_equal(put_mixed(f, i, i), TMEM_PAGE_OK);
}

static void step_all(struct fixture *f)
{
	while (tmem_step(f->store, 4096))
		;
}

/* Bytes of pages, used or idle; without descriptors and index. */
static uint64_t populated(struct fixture *f)
{
	return atomic_load(&f->tenant->persistent.populated_bytes);
}

static uint64_t held_of_a_small_tenant(uint64_t *stored)
{
	struct fixture f;
	uint64_t held;

	fixture_open(&f, 64 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	fill(&f, PAGES);
	step_all(&f);
	fixture_check(&f);
	held = populated(&f);
	*stored = stats_of(&f).stored_bytes;
	fixture_close(&f);
	return held;
}

static void small_tenants_are_dense(void **state)
{
	uint64_t stored, slotted, classes;

	slotted = held_of_a_small_tenant(&stored);
	to_size_classes(NULL);
	classes = held_of_a_small_tenant(&stored);
	to_slotted(NULL);
	/* Four are open at most; 32 pages of reserve. */
	assert_true(slotted < stored + 2 * SEGMENT_BYTES + 32 * PAGE);
	assert_true(slotted + MIB / 4 < classes);
}

/* What compresses badly has pages of its own, which it fills. */
static void raw_pages_stay_exact(void **state)
{
	struct fixture f;

	fixture_open(&f, 64 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 160; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	assert_int_equal(stats_of(&f).stored_bytes, 160 * PAGE);
	assert_int_equal(populated(&f), 160 * PAGE);
	assert_int_equal(f.tenant->persistent.slotted.live, 0);
	fixture_close(&f);
}

/* Holes are not for the next step alone: nobody may step for long. */
static void overwriting_needs_no_steps(void **state)
{
	uint64_t seed[PAGES], most = 0;
	struct fixture f;

	fixture_open(&f, 64 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	fill(&f, PAGES);
	for (uint64_t i = 0; i < PAGES; i++)
		seed[i] = i;
	for (uint64_t i = 0; i < 40 * PAGES; i++) {
		uint64_t index = mix(i) % PAGES;

		seed[index] = PAGES + i;
		assert_int_equal(put_mixed(&f, index, seed[index]),
				 TMEM_PAGE_OK);
		most = MAX(most, populated(&f));
		if (i % PAGES == 0)
			fixture_check(&f);
	}
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(get_mixed(&f, i, seed[i]), TMEM_PAGE_OK);
	/* Holes of a segment and a sixteenth; the open ones; one being emptied. */
	assert_true(most <
		    stats_of(&f).stored_bytes * 9 / 8 + 5 * SEGMENT_BYTES);
	fixture_close(&f);
}

/* At its limit a tenant's holes are room, and packing them exceeds it by no more
 * than a segment. */
static void holes_are_room_at_the_limit(void **state)
{
	const struct tmem_limits tight = { .size = sizeof(tight),
					   .persistent_max = 2 * MIB };
	uint64_t pages = 0, more = 0, beside;
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &tight), 0);
	pool_open(&f, 0, P);
	while (put_mixed(&f, pages, pages) == TMEM_PAGE_OK)
		pages++;
	assert_true(stats_of(&f).stored_bytes > 2 * MIB * 8 / 10);
	for (uint64_t i = 0; i < pages; i += 2)
		flush(&f, 0, 1, i, 1);
	while (put_mixed(&f, pages + more, pages + more) == TMEM_PAGE_OK) {
		more++;
		assert_true(arena_held(&f.tenant->persistent) <= 2 * MIB);
	}
	assert_true(more > pages / 2 * 8 / 10);
	/* What the store holds beside; descriptors. */
	beside = stats_of(&f).held_bytes - arena_held(&f.tenant->persistent);
	assert_true(stats_of(&f).held_peak_bytes <=
		    2 * MIB + beside + SEGMENT_BYTES + 4 * PAGE);
	for (uint64_t i = 1; i < pages; i += 2)
		assert_int_equal(get_mixed(&f, i, i), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < more; i++)
		assert_int_equal(get_mixed(&f, pages + i, pages + i),
				 TMEM_PAGE_OK);
	fixture_close(&f);
}

/* Pages of @bytes until one is refused; how many. */
static uint64_t fill_to_limit(struct fixture *f, uint64_t max,
			      unsigned int bytes)
{
	const struct tmem_limits tight = { .size = sizeof(tight),
					   .persistent_max = max };
	uint64_t pages = 0;

	fixture_open(f, 64 * MIB, 0);
	assert_int_equal(tmem_tenant_set_limits(f->tenant, &tight), 0);
	pool_open(f, 0, P);
	while (put_sized(f, pages, pages, bytes) == TMEM_PAGE_OK)
		pages++;
	return pages;
}

/*
 * What several open segments have left together is enough for a chunk, and none of
 * them has it in one piece.
 */
static void crumbs_are_no_room(void **state)
{
	uint64_t pages, refused = 0;
	struct fixture f;

	pages = fill_to_limit(&f, 2 * MIB, 2950);
	for (uint64_t i = 0; i < pages; i++)
		if (i % 21)
			flush(&f, 0, 1, i, 1);
	for (uint64_t i = 0; i < pages; i++)
		if (i % 21)
			refused += put_sized(&f, i, i, 2950) != TMEM_PAGE_OK;
	assert_true(refused < pages / 20);
	fixture_close(&f);
}

/* Where a limit falls below what is held, what packing gives back is room. */
static void holes_are_room_above_the_limit(void **state)
{
	struct tmem_limits lower = { .size = sizeof(lower) };
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 0, P);
	fill(&f, 4 * PAGES);
	for (uint64_t i = 0; i < 4 * PAGES; i += 2)
		flush(&f, 0, 1, i, 1);
	lower.persistent_max = arena_held(&f.tenant->persistent) - PAGE;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &lower), 0);
	for (uint64_t i = 0; i < PAGES; i += 2)
		assert_int_equal(put_mixed(&f, i, i), TMEM_PAGE_OK);
	assert_true(arena_held(&f.tenant->persistent) <= lower.persistent_max);
	fixture_close(&f);
}

/*
 * A tenant at its limit, of which one page in @part is flushed: a step comes to an
 * end; what is put then is not refused, though packing took a segment.
 */
static void packed_at_the_limit(unsigned int bytes, uint64_t max,
				unsigned int part)
{
	unsigned int steps = 0;
	uint64_t pages;
	struct fixture f;

	pages = fill_to_limit(&f, max, bytes);
	for (uint64_t round = 0; round < 8; round++) {
		for (uint64_t i = round; i < pages; i += part)
			flush(&f, 0, 1, i, 1);
		while (tmem_step(f.store, 256))
			assert_true(++steps < 1000);
		fixture_check(&f);
		for (uint64_t i = round; i < pages; i += 4 * part)
			assert_int_equal(put_sized(&f, i, i, bytes),
					 TMEM_PAGE_OK);
		assert_true(arena_held(&f.tenant->persistent) <=
			    max + SEGMENT_BYTES + 2 * PAGE);
	}
	fixture_close(&f);
}

static void packing_at_the_limit_is_no_refusal(void **state)
{
	static const unsigned int bytes[] = { 250, 600, 1000, 2000, 3400 };

	for (unsigned int i = 0; i < ARRAY_SIZE(bytes); i++) {
		packed_at_the_limit(bytes[i], 2 * MIB, 20);
		packed_at_the_limit(bytes[i], 3 * MIB, 9);
	}
}

/* Large tenants have size classes; what is left of those comes back. */
static void tenants_grow_and_shrink(void **state)
{
	const uint64_t large = 8 * MIB / PAGE * 2;
	struct fixture f;

	fixture_open(&f, 64 * MIB, 16 * MIB);
	pool_open(&f, 0, P);
	for (unsigned int round = 0; round < 3; round++) {
		struct arena *arena = &f.tenant->persistent;

		fill(&f, large);
		step_all(&f);
		fixture_check(&f);
		assert_true(arena->slotted.live * UNIT < 5 * MIB);
		for (uint64_t i = 0; i < large; i++)
			if (i % 16)
				flush(&f, 0, 1, i, 1);
		step_all(&f);
		fixture_check(&f);
		assert_true(arena->slotted.live * UNIT >
			    stats_of(&f).stored_bytes / 10 * 9);
		/* Beside it what is never packed, and the reserve. */
		assert_true(populated(&f) <
			    stats_of(&f).stored_bytes + 6 * SEGMENT_BYTES);
		for (uint64_t i = 0; i < large; i += 16)
			assert_int_equal(get_mixed(&f, i, i), TMEM_PAGE_OK);
	}
	fixture_close(&f);
}

/*
 * Pages of four sizes, in turns: a segment for the larger ones has too few slots for
 * the others.  Packing comes to an end, and what is full is not packed again.
 */
static void packing_ends(void **state)
{
	static const unsigned int bytes[] = { 3600, 240, 1400, 260 };
	struct fixture f;

	/* If it packs for ever, tmem_shrink() does not return. */
	alarm(100);
	fixture_open(&f, 64 * MIB, 16 * MIB);
	pool_open(&f, 0, P);
	for (unsigned int round = 0; round < 3 * ARRAY_SIZE(bytes); round++) {
		unsigned int size = bytes[round % ARRAY_SIZE(bytes)], steps = 0;

		for (uint64_t i = round % 3; i < 700; i += 1 + round % 2)
			assert_int_equal(put_sized(&f, i, i + round, size),
					 TMEM_PAGE_OK);
		while (tmem_step(f.store, 16))
			assert_true(++steps < 20000);
		tmem_shrink(f.store, UINT64_MAX);
		fixture_check(&f);
		assert_true(populated(&f) <
			    stats_of(&f).stored_bytes * 17 / 16 +
				    8 * SEGMENT_BYTES);
	}
	fixture_close(&f);
	alarm(0);
}

/* What packing gets no memory for stays where it is: whichever call fails. */
static void packing_may_fail(void **state)
{
	for (unsigned int n = 1, failed = n; failed; n++) {
		struct fixture f;

		fixture_open(&f, 64 * MIB, 8 * MIB);
		pool_open(&f, 0, P);
		fill(&f, 2 * PAGES);
		for (uint64_t i = 0; i < 2 * PAGES; i++)
			if (i % 3)
				flush(&f, 0, 1, i, 1);
		f.memory.fail_at = f.memory.calls + n;
		step_all(&f);
		failed = f.memory.calls >= f.memory.fail_at;
		f.memory.fail_at = 0;
		fixture_check(&f);
		step_all(&f);
		for (uint64_t i = 0; i < 2 * PAGES; i += 3)
			assert_int_equal(get_mixed(&f, i, i), TMEM_PAGE_OK);
		assert_true(populated(&f) <
			    stats_of(&f).stored_bytes + 5 * SEGMENT_BYTES);
		/* The first call at least was for packing. */
		assert_true(failed || n > 1);
		fixture_close(&f);
	}
}

/* ---------------------------------------------------------------- adoption */

static void adopt_again(struct fixture *f)
{
	fixture_adopt_again(f, &limits);
}

/* What an heir finds, overwrites, and packs. */
static void heirs_go_on(void **state)
{
	struct fixture f;

	fixture_open(&f, 64 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	fill(&f, PAGES);
	for (uint64_t i = 0; i < PAGES; i += 3)
		flush(&f, 0, 1, i, 1);
	adopt_again(&f);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(get_mixed(&f, i, i),
				 i % 3 ? TMEM_PAGE_OK : TMEM_PAGE_MISS);
	for (uint64_t i = 0; i < PAGES; i += 2)
		assert_int_equal(put_mixed(&f, i, i + 1000), TMEM_PAGE_OK);
	step_all(&f);
	adopt_again(&f);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(get_mixed(&f, i, i % 2 ? i : i + 1000),
				 i % 2 && i % 3 == 0 ? TMEM_PAGE_MISS
						     : TMEM_PAGE_OK);
	assert_true(populated(&f) <
		    stats_of(&f).stored_bytes + 5 * SEGMENT_BYTES);
	fixture_close(&f);
}

/* The word of a key; set to @to, if that is not 0. */
static tmem_handle word(struct fixture *f, uint64_t index, tmem_handle to)
{
	uint8_t id[TMEM_OBJECT_SIZE] = { 1 };
	struct tmem_pool *pool = pool_get(f->tenant, 0);
	struct tmem_object *object = object_get(pool, id);
	struct tmem_leaf *leaf = leaf_lock(object, index);
	tmem_handle handle = atomic_load(&leaf->word[index % LEAF_ENTRIES]);

	if (to)
		atomic_store(&leaf->word[index % LEAF_ENTRIES], to);
	leaf_unlock(object, leaf);
	object_put(object);
	pool_put(pool);
	return handle;
}

/* Pages of which the tail of one is the head of another cannot be. */
static void overlapping_words_are_errors(void **state)
{
	static const int by[] = { 1, -1, 3, -3 };

	for (unsigned int i = 0; i < ARRAY_SIZE(by); i++) {
		unsigned int ok = 0, lost = 0;
		struct fixture f;

		fixture_open(&f, 64 * MIB, 8 * MIB);
		pool_open(&f, 0, P);
		fill(&f, 20);
		/* The tenth's place, and a little beside. */
		word(&f, 15, word(&f, 10, 0) + by[i]);
		adopt_again(&f);
		for (uint64_t n = 0; n < 20; n++) {
			int status = get_mixed(&f, n, n);

			ok += status == TMEM_PAGE_OK;
			lost += status == TMEM_PAGE_IO;
		}
		assert_int_equal(ok + lost, 20);
		/* It, and at most those that it lay across when it came first. */
		assert_in_range(lost, 1, 3);
		assert_int_equal(get_mixed(&f, 15, 15), TMEM_PAGE_IO);
		for (uint64_t n = 0; n < 20; n++)
			assert_int_equal(put_mixed(&f, n, n), TMEM_PAGE_OK);
		step_all(&f);
		fixture_close(&f);
	}
}

/*
 * A slotted segment has no place for size classes, nor these for it.  @index: the
 * key whose word is made to name slot 0 of a size class at @page of the segment of
 * all.  How many pages are lost.
 */
static unsigned int lost_to_a_class(uint64_t index, unsigned int page)
{
	unsigned int lost = 0;
	struct fixture f;
	tmem_handle handle;

	fixture_open(&f, 64 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	fill(&f, 20);
	handle = word(&f, index, 0);
	assert_true(handle & HANDLE_SLOTTED);
	word(&f, index, (handle & ~HANDLE_SLOTTED & ~0xffffull) | page << 12);
	adopt_again(&f);
	for (uint64_t n = 0; n < 20; n++) {
		int status = get_mixed(&f, n, n);

		assert_true(status == TMEM_PAGE_OK || status == TMEM_PAGE_IO);
		lost += status == TMEM_PAGE_IO;
	}
	assert_int_equal(get_mixed(&f, index, index), TMEM_PAGE_IO);
	fixture_close(&f);
	return lost;
}

static void layouts_do_not_share_a_segment(void **state)
{
	assert_int_equal(lost_to_a_class(3, 0), 1);
	assert_int_equal(lost_to_a_class(3, 5), 1);
	/* Who comes first has it. */
	assert_int_equal(lost_to_a_class(0, 5), 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_tenants_are_dense),
		cmocka_unit_test(raw_pages_stay_exact),
		cmocka_unit_test(overwriting_needs_no_steps),
		cmocka_unit_test(holes_are_room_at_the_limit),
		cmocka_unit_test(crumbs_are_no_room),
		cmocka_unit_test(holes_are_room_above_the_limit),
		cmocka_unit_test(packing_at_the_limit_is_no_refusal),
		cmocka_unit_test(tenants_grow_and_shrink),
		cmocka_unit_test(packing_ends),
		cmocka_unit_test(packing_may_fail),
		cmocka_unit_test(heirs_go_on),
		cmocka_unit_test(overlapping_words_are_errors),
		cmocka_unit_test(layouts_do_not_share_a_segment),
	};

	return cmocka_run_group_tests_name("store-slotted", tests, NULL, NULL);
}
