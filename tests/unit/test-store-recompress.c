/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pages that are not used become smaller in the background, and stay what they
 * were: for gets, checksums, counters, and who adopts them.
 */
#include <unistd.h>

#include "store-fixture.h"
#include "internal.h"

#define P     TMEM_POOL_PERSISTENT
#define PAGES 500ull
#define MS    1000000ull

static const struct tmem_limits limits = { .size = sizeof(limits),
					   .persistent_reserved = 8 * MIB };

/* Text as a log has it: LZ4 leaves half of it, zstd a third. */
static void make_text(void *page, uint64_t seed, uint32_t size)
{
	char *at = page, *end = at + size;

	for (uint64_t i = 0; at < end; i++) {
		char line[80];
		int length = snprintf(
			line, sizeof(line), "%s %u: %s, 0x%04x\n",
			mix(seed + i) & 1 ? "read" : "write",
			(unsigned int)(mix(seed * 31 + i) % 100000),
			mix(seed * 7 + i) & 1 ? "page was there" : "missed",
			(unsigned int)(mix(seed * 3 + i) & 0xffff));

		memcpy(at, line, MIN(length, end - at));
		at += MIN(length, end - at);
	}
}

static void open_recompressing(struct fixture *f, unsigned int percent,
			       unsigned int after_s)
{
	fixture_open_recompressing(f, 64 * MIB, 8 * MIB, percent);
	f->store->recompress.after_s = after_s;
	pool_open(f, 0, P);
}

static void put_text(struct fixture *f, uint64_t index, uint64_t seed)
{
	char page[PAGE];
	struct tmem_page result;

	make_text(page, seed, PAGE);
	assert_int_equal(run(f, f->ctx, TMEM_PUT, 0, 1, index, 1, page, &result,
			     NULL),
			 0);
	assert_int_equal(result.status, TMEM_PAGE_OK);
}

static int get_text(struct fixture *f, uint64_t index, uint64_t seed)
{
	char page[PAGE], want[PAGE];
	struct tmem_page result;

	assert_int_equal(run(f, f->ctx, TMEM_GET, 0, 1, index, 1, page, &result,
			     NULL),
			 0);
	make_text(want, seed, PAGE);
	if (result.status == TMEM_PAGE_OK)
		assert_memory_equal(page, want, PAGE);
	return result.status;
}

static void step_all(struct fixture *f)
{
	while (tmem_step(f->store, 4096))
		;
}

/* As if each page had been left alone long enough. */
static void recompress_all(struct fixture *f)
{
	f->store->recompress.after_s = 0;
	do {
		step_all(f);
		f->later_ns += 10 * MS;
	} while (tmem_step_due(f->store) >= 0);
	fixture_check(f);
}

static void pages_become_smaller_and_stay_the_same(void **state)
{
	struct tmem_stats before = { .size = sizeof(before) }, after = before;
	struct fixture f;

	open_recompressing(&f, 100, 1);
	for (uint64_t i = 0; i < PAGES; i++)
		put_text(&f, i, i);
	for (uint64_t i = 0; i < 16; i++)
		assert_int_equal(put(&f, 0, 2, i, i), TMEM_PAGE_OK);
	before = stats_of(&f);
	recompress_all(&f);
	after = stats_of(&f);
	/* The store's own figure is of all its tenants. */
	assert_true(after.recompressed_pages >= PAGES);
	assert_true(after.stored_bytes < before.stored_bytes * 85 / 100);
	assert_true(after.held_bytes < before.held_bytes * 9 / 10);
	assert_int_equal(after.persistent_pages, before.persistent_pages);
	tmem_store_stats(f.store, &after);
	assert_true(after.recompress_cpu_ns > 0);
	assert_true(after.step_cpu_ns >= after.recompress_cpu_ns);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(get_text(&f, i, i), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < 16; i++)
		assert_int_equal(get(&f, 0, 2, i, i), TMEM_PAGE_OK);
	/* They are pages as any other. */
	for (uint64_t i = 0; i < PAGES; i += 2)
		put_text(&f, i, i + 1000);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(get_text(&f, i, i % 2 ? i : i + 1000),
				 TMEM_PAGE_OK);
	fixture_check(&f);
	flush(&f, 0, 1, 0, PAGES);
	flush(&f, 0, 2, 0, 16);
	assert_int_equal(stats_of(&f).recompressed_pages, 0);
	fixture_close(&f);
}

/* A get in each interval keeps a page what it is. */
static void used_pages_are_left_alone(void **state)
{
	struct fixture f;

	open_recompressing(&f, 100, 2);
	for (uint64_t i = 0; i < PAGES; i++)
		put_text(&f, i, i);
	for (unsigned int round = 0; round < 45; round++) {
		for (uint64_t i = 0; i < PAGES; i += 10)
			assert_int_equal(get_text(&f, i, i), TMEM_PAGE_OK);
		step_all(&f);
		f.later_ns += 100 * MS;
	}
	assert_int_equal(stats_of(&f).recompressed_pages, PAGES - PAGES / 10);
	fixture_check(&f);
	fixture_close(&f);
}

/* What is off takes no time; what is on takes what it may, and not more. */
static void cpu_time_is_bounded(void **state)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	struct fixture f;
	uint64_t start;

	open_recompressing(&f, 0, 1);
	put_text(&f, 0, 0);
	assert_int_equal(tmem_step_due(f.store), -1);
	step_all(&f);
	tmem_store_stats(f.store, &stats);
	assert_int_equal(stats.recompress_cpu_ns, 0);
	fixture_close(&f);

	open_recompressing(&f, 1, 1);
	start = fixture_clock(&f);
	for (uint64_t i = 0; i < 8 * PAGES; i++)
		put_text(&f, i, i);
	f.store->recompress.after_s = 0;
	for (unsigned int i = 0; i < 200; i++) {
		step_all(&f);
		f.later_ns += 5 * MS;
	}
	tmem_store_stats(f.store, &stats);
	/* 1 %, and what the last span took beside. */
	assert_true(stats.recompress_cpu_ns > 0);
	assert_true(stats.recompress_cpu_ns <
		    (fixture_clock(&f) - start) / 100 + 20 * MS);
	fixture_close(&f);
}

/* Who calls tmem_step() no more knows when to begin again. */
static void owner_is_told_when(void **state)
{
	struct fixture f;
	int due;

	open_recompressing(&f, 100, 1);
	assert_int_equal(tmem_step_due(f.store), -1);
	put_text(&f, 0, 0);
	due = tmem_step_due(f.store);
	assert_in_range(due, 0, 100);
	f.later_ns += 50 * MS;
	step_all(&f);
	due = tmem_step_due(f.store);
	assert_in_range(due, 10, 1000);
	f.later_ns += 1050 * MS;
	step_all(&f);
	assert_int_equal(stats_of(&f).recompressed_pages, 1);
	/* All is done: no timer. */
	assert_int_equal(tmem_step_due(f.store), -1);
	put_text(&f, 1, 1);
	/* A page that comes to a span waits for the span's turn. */
	assert_in_range(tmem_step_due(f.store), 0, fixture_flags ? 100 : 1000);
	fixture_close(&f);
}

/* However long nobody has stepped: seconds are counted by 16 bits. */
static void hours_are_no_obstacle(void **state)
{
	static const unsigned int hours[] = { 1, 8, 10, 15, 17, 20, 40 };
	struct fixture f;

	for (unsigned int i = 0; i < ARRAY_SIZE(hours); i++) {
		open_recompressing(&f, 100, 2);
		for (uint64_t n = 0; n < 20; n++)
			put_text(&f, n, n);
		step_all(&f);
		f.later_ns += hours[i] * 3600000 * MS;
		for (unsigned int s = 0; s < 10; s++) {
			step_all(&f);
			f.later_ns += 1000 * MS;
		}
		assert_int_equal(stats_of(&f).recompressed_pages, 20);
		fixture_close(&f);
	}
}

static void put_one_more(void *arg)
{
	put_text(arg, 3, 0);
}

/* A page that comes to a span while that is looked at has its turn later. */
static void late_pages_have_their_turn(void **state)
{
	struct fixture f;

	/* A slotted segment has no free slots, and room for them without memory. */
	if (!fixture_flags)
		return;
	open_recompressing(&f, 100, 0);
	/* One span, whose first slot is free. */
	for (uint64_t i = 0; i < 3; i++)
		put_text(&f, i, 0);
	flush(&f, 0, 1, 0, 1);
	/* While the second one's new place is made. */
	f.memory.hook_size = 1;
	f.memory.hook_arg = &f;
	f.memory.hook = put_one_more;
	recompress_all(&f);
	assert_null(f.memory.hook);
	assert_int_equal(stats_of(&f).recompressed_pages, 3);
	for (uint64_t i = 1; i <= 3; i++)
		assert_int_equal(get_text(&f, i, 0), TMEM_PAGE_OK);
	fixture_close(&f);
}

static void bad_values_are_refused(void **state)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = MIB,
		.recompress_percent = 101,
	};
	struct tmem_store *store;

	assert_int_equal(tmem_store_create(&config, &store), -EINVAL);
	config.recompress_percent = 1;
	config.recompress_after_s = TMEM_MAX_RECOMPRESS_AFTER + 1;
	assert_int_equal(tmem_store_create(&config, &store), -EINVAL);
}

static void flip(struct fixture *f, uint64_t index, uint32_t byte)
{
	uint8_t id[TMEM_OBJECT_SIZE] = { 1 };
	struct tmem_pool *pool = pool_get(f->tenant, 0);
	struct tmem_object *object = object_get(pool, id);
	struct tmem_leaf *leaf = leaf_lock(object, index);
	tmem_handle handle = atomic_load(&leaf->word[index % LEAF_ENTRIES]);
	char *data = (char *)(uintptr_t)arena_data(pool->arena, handle);

	assert_int_equal(handle_type(handle), HANDLE_ZSTD);
	data[byte % handle_length(handle)] ^= 1 << byte % 8;
	leaf_unlock(object, leaf);
	object_put(object);
	pool_put(pool);
}

static void damage_is_found(void **state)
{
	struct fixture f;

	open_recompressing(&f, 100, 1);
	for (uint64_t i = 0; i < PAGES; i++)
		put_text(&f, i, i);
	recompress_all(&f);
	for (uint32_t byte = 0; byte < PAGES; byte++) {
		flip(&f, byte, byte);
		assert_int_equal(get_text(&f, byte, byte), TMEM_PAGE_IO);
		flip(&f, byte, byte);
		assert_int_equal(get_text(&f, byte, byte), TMEM_PAGE_OK);
	}
	fixture_close(&f);
}

static void heirs_find_them(void **state)
{
	int fd[TMEM_TENANT_FDS];
	struct fixture f;

	open_recompressing(&f, 100, 1);
	for (uint64_t i = 0; i < PAGES; i++)
		put_text(&f, i, i);
	recompress_all(&f);
	tmem_tenant_fds(f.tenant, fd);
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		fd[i] = dup(fd[i]);
	tmem_tenant_detach(f.tenant);
	assert_int_equal(
		tmem_tenant_adopt(f.store, "test", &limits, fd, &f.tenant), 0);
	fixture_check(&f);
	assert_int_equal(stats_of(&f).recompressed_pages, PAGES);
	for (uint64_t i = 0; i < PAGES; i++)
		assert_int_equal(get_text(&f, i, i), TMEM_PAGE_OK);
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		close(fd[i]);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_become_smaller_and_stay_the_same),
		cmocka_unit_test(used_pages_are_left_alone),
		cmocka_unit_test(cpu_time_is_bounded),
		cmocka_unit_test(owner_is_told_when),
		cmocka_unit_test(hours_are_no_obstacle),
		cmocka_unit_test(late_pages_have_their_turn),
		cmocka_unit_test(bad_values_are_refused),
		cmocka_unit_test(damage_is_found),
		cmocka_unit_test(heirs_find_them),
	};

	return RUN_IN_BOTH_LAYOUTS("store-recompress", tests, NULL);
}
