/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tenant's memfds go to another store, as after the end of their process:
 * what was accepted is there, what was removed is not, and what is damaged is
 * an error.  tests/model/model-store-kill.c has processes that are killed.
 */
#include <dirent.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store-fixture.h"
#include "internal.h"

#define P TMEM_POOL_PERSISTENT
/* make_page() makes of the low two bits: */
#define SAME	       0
#define COMPRESSIBLE   1
#define INCOMPRESSIBLE 3

static const struct tmem_limits limits = { .size = sizeof(limits),
					   .persistent_reserved = 8 * MIB };

static void keep(struct fixture *f, int fd[TMEM_TENANT_FDS])
{
	tmem_tenant_fds(f->tenant, fd);
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		fd[i] = dup(fd[i]);
}

static void let_go(const int fd[TMEM_TENANT_FDS])
{
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		close(fd[i]);
}

static void adopt_again(struct fixture *f)
{
	fixture_adopt_again(f, &limits);
}

static void all_kinds_are_found(void **state)
{
	struct tmem_stats before = { .size = sizeof(before) }, after = before;
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	pool_open(&f, 7, P);
	for (uint64_t i = 0; i < 600; i++)
		assert_int_equal(put(&f, i % 2 * 7, i % 5, i * (i % 5 + 1), i),
				 TMEM_PAGE_OK);
	/* Leaves of all sizes, and paths of all lengths. */
	for (unsigned int i = 0; i < 64; i++)
		assert_int_equal(put(&f, 0, 100 + i % 7, 1ull << i, i),
				 TMEM_PAGE_OK);
	tmem_tenant_stats(f.tenant, &before);
	adopt_again(&f);
	tmem_tenant_stats(f.tenant, &after);
	assert_int_equal(before.persistent_pages, after.persistent_pages);
	assert_int_equal(before.persistent_raw_bytes,
			 after.persistent_raw_bytes);
	assert_int_equal(before.stored_bytes, after.stored_bytes);
	assert_int_equal(before.same_filled_pages, after.same_filled_pages);
	assert_int_equal(before.raw_pages, after.raw_pages);
	for (uint64_t i = 0; i < 600; i++)
		assert_int_equal(get(&f, i % 2 * 7, i % 5, i * (i % 5 + 1), i),
				 TMEM_PAGE_OK);
	for (unsigned int i = 0; i < 64; i++)
		assert_int_equal(get(&f, 0, 100 + i % 7, 1ull << i, i),
				 TMEM_PAGE_OK);
	/* It is a store like any other. */
	for (uint64_t i = 0; i < 600; i++)
		assert_int_equal(put(&f, 0, i % 9, i, i + 1), TMEM_PAGE_OK);
	for (uint64_t i = 0; i < 600; i++)
		assert_int_equal(get(&f, 0, i % 9, i, i + 1), TMEM_PAGE_OK);
	fixture_close(&f);
}

static void what_was_removed_stays_removed(void **state)
{
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	for (uint32_t id = 0; id < 4; id++) {
		pool_open(&f, id, P);
		for (uint64_t i = 0; i < 100; i++)
			assert_int_equal(put(&f, id, i % 2, i, i),
					 TMEM_PAGE_OK);
	}
	flush(&f, 0, 0, 0, 50);
	assert_int_equal(run(&f, f.ctx, TMEM_FLUSH_OBJECT, 1, 1, 0, 0, NULL,
			     NULL, NULL),
			 0);
	assert_int_equal(tmem_pool_destroy(f.tenant, 2), 0);
	assert_int_equal(tmem_pool_destroy(f.tenant, 3), 0);
	pool_open(&f, 3, P); /* the number is another pool's now */
	assert_int_equal(put(&f, 3, 1, 1000, 5), TMEM_PAGE_OK);
	adopt_again(&f);
	for (uint64_t i = 0; i < 100; i++) {
		assert_int_equal(get(&f, 0, i % 2, i, i),
				 i % 2 || i >= 50 ? TMEM_PAGE_OK
						  : TMEM_PAGE_MISS);
		assert_int_equal(get(&f, 1, i % 2, i, i),
				 i % 2 ? TMEM_PAGE_MISS : TMEM_PAGE_OK);
		assert_int_equal(get(&f, 3, i % 2, i, i), TMEM_PAGE_MISS);
	}
	assert_int_equal(get(&f, 3, 1, 1000, 5), TMEM_PAGE_OK);
	assert_int_equal(tmem_pool_query(f.tenant, 2,
					 &(struct tmem_pool_params){ 0 }),
			 -ENOENT);
	assert_int_equal(stats_of(&f).persistent_pages, 75 + 50 + 1);
	fixture_close(&f);
}

/* Nothing of it, for who adopts what was drained, or has yet to be. */
static void what_drains_is_nobodys(void **state)
{
	struct fixture f;

	fixture_open(&f, 64 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 4000; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 1), TMEM_PAGE_OK);
	/* An object of more pages than its flush drains. */
	pool_open(&f, 1, P);
	for (uint64_t i = 0; i < TMEM_FLUSH_BATCH + 1000; i++)
		assert_int_equal(put(&f, 1, 1, i, SAME), TMEM_PAGE_OK);
	assert_int_equal(run(&f, f.ctx, TMEM_FLUSH_OBJECT, 1, 1, 0, 0, NULL,
			     NULL, NULL),
			 0);
	assert_in_range(stats_of(&f).draining_pages, 900, 1100);
	assert_int_equal(tmem_pool_destroy(f.tenant, 0), 0);
	tmem_step(f.store, 1000);
	adopt_again(&f);
	assert_int_equal(stats_of(&f).persistent_pages, 0);
	assert_int_equal(stats_of(&f).draining_pages, 0);
	while (tmem_step(f.store, 4096))
		;
	assert_true(stats_of(&f).held_bytes < MIB);
	fixture_close(&f);
}

static void ephemeral_pools_are_empty(void **state)
{
	struct tmem_pool_params params;
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 5, 0);
	assert_int_equal(put(&f, 5, 1, 1, 3), TMEM_PAGE_OK);
	adopt_again(&f);
	assert_int_equal(tmem_pool_query(f.tenant, 5, &params), 0);
	assert_int_equal(params.flags, 0);
	assert_int_equal(params.page_shift, 12);
	assert_int_equal(get(&f, 5, 1, 1, 3), TMEM_PAGE_MISS);
	assert_int_equal(put(&f, 5, 1, 1, 3), TMEM_PAGE_OK);
	assert_int_equal(get(&f, 5, 1, 1, 3), TMEM_PAGE_OK);
	fixture_close(&f);
}

static void one_process_at_a_time(void **state)
{
	struct tmem_tenant *other;
	int fd[TMEM_TENANT_FDS];
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	keep(&f, fd);
	assert_int_equal(tmem_tenant_adopt(f.store, "test", &limits, fd,
					   &other),
			 -EBUSY);
	tmem_tenant_detach(f.tenant);
	assert_int_equal(
		tmem_tenant_adopt(f.store, "test", &limits, fd, &f.tenant), 0);
	assert_int_equal(tmem_tenant_adopt(f.store, "test", &limits, fd,
					   &other),
			 -EBUSY);
	let_go(fd);
	fixture_close(&f);
}

/* Not another's, whose memfds the keeper has mixed up. */
static void names_and_cookies_stay(void **state)
{
	struct tmem_tenant *other;
	int fd[TMEM_TENANT_FDS];
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	assert_int_equal(put(&f, 0, 1, 1, 3), TMEM_PAGE_OK);
	assert_int_equal(tmem_tenant_cookie(f.tenant), 0);
	tmem_tenant_set_cookie(f.tenant, 1ull << 63 | 5);
	keep(&f, fd);
	tmem_tenant_detach(f.tenant);
	assert_int_equal(tmem_tenant_adopt(f.store, "tes", &limits, fd, &other),
			 -ESTALE);
	assert_int_equal(
		tmem_tenant_adopt(f.store, "test", &limits, fd, &f.tenant), 0);
	assert_int_equal(tmem_tenant_cookie(f.tenant), 1ull << 63 | 5);
	assert_int_equal(get(&f, 0, 1, 1, 3), TMEM_PAGE_OK);
	let_go(fd);
	fixture_close(&f);
}

/* Many objects are found as fast as they were: tables grow by no limit then. */
static void tables_are_as_large_as_before(void **state)
{
	const uint32_t objects = 20000;
	struct tmem_pool *pool;
	struct fixture f;
	uint32_t before;

	fixture_open(&f, 64 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < objects; i++)
		assert_int_equal(put(&f, 0, i, 0, SAME), TMEM_PAGE_OK);
	pool = pool_get(f.tenant, 0);
	before = pool->buckets;
	pool_put(pool);
	assert_true(before >= objects);
	adopt_again(&f);
	pool = pool_get(f.tenant, 0);
	assert_int_equal(pool->buckets, before);
	pool_put(pool);
	fixture_close(&f);
}

static unsigned int open_fds(void)
{
	unsigned int fds = 0;
	DIR *dir = opendir("/proc/self/fd");

	assert_non_null(dir);
	while (readdir(dir))
		fds++;
	closedir(dir);
	return fds;
}

/* Where it fails the pages are still there, for who tries again. */
static void failures_lose_nothing(void **state)
{
	int fd[TMEM_TENANT_FDS];
	long calls, failed = 0;
	unsigned int fds;
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 300; i++)
		assert_int_equal(put(&f, 0, i % 3, i * i, i), TMEM_PAGE_OK);
	keep(&f, fd);
	tmem_tenant_detach(f.tenant);
	fds = open_fds();
	for (calls = 1;; calls++) {
		int error;

		atomic_store(&f.memory.calls, 0);
		f.memory.once = true;
		atomic_store(&f.memory.fail_at, calls);
		error = tmem_tenant_adopt(f.store, "test", &limits, fd,
					  &f.tenant);
		atomic_store(&f.memory.fail_at, 0);
		if (!error && atomic_load(&f.memory.calls) < calls)
			break;
		if (!error)
			tmem_tenant_detach(f.tenant);
		else
			assert_int_equal(error, -ENOMEM);
		assert_int_equal(open_fds(), fds);
		failed += error != 0;
	}
	assert_true(failed > 50);
	fixture_check(&f);
	for (uint64_t i = 0; i < 300; i++)
		assert_int_equal(get(&f, 0, i % 3, i * i, i), TMEM_PAGE_OK);
	let_go(fd);
	fixture_close(&f);
}

/* Limits that are lower now refuse, and take nothing. */
static void limits_are_for_what_comes(void **state)
{
	struct tmem_limits low = { .size = sizeof(low),
				   .persistent_reserved = MIB,
				   .persistent_max = 3 * MIB };
	int fd[TMEM_TENANT_FDS];
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 1500; i++)
		assert_int_equal(put(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	keep(&f, fd);
	tmem_tenant_detach(f.tenant);
	low.persistent_reserved = 1ull << 40;
	assert_int_equal(tmem_tenant_adopt(f.store, "test", &low, fd,
					   &f.tenant),
			 -EINVAL);
	low.persistent_reserved = MIB;
	assert_int_equal(
		tmem_tenant_adopt(f.store, "test", &low, fd, &f.tenant), 0);
	assert_int_equal(put(&f, 0, 1, 5000, 3), TMEM_PAGE_REFUSED);
	for (uint64_t i = 0; i < 1500; i++)
		assert_int_equal(get(&f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
	let_go(fd);
	fixture_close(&f);
}

/* ------------------------------------------------------- bad memfds */

static int adopt_fds(struct fixture *f, int index, int data)
{
	const int fd[TMEM_TENANT_FDS] = { index, data };
	struct tmem_tenant *tenant;
	int error = tmem_tenant_adopt(f->store, "test", &limits, fd, &tenant);

	if (!error)
		tmem_tenant_drop(tenant);
	return error;
}

static void what_are_no_tenants_memfds(void **state)
{
	int fd[TMEM_TENANT_FDS], plain, sealed, ends[2];
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	keep(&f, fd);
	tmem_tenant_detach(f.tenant);
	plain = memfd_create("plain", MFD_CLOEXEC);
	sealed = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(sealed, 20000), 0);
	assert_int_equal(
		fcntl(sealed, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL), 0);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(adopt_fds(&f, -1, fd[1]), -EINVAL);
	assert_int_equal(adopt_fds(&f, fd[0], -1), -EINVAL);
	assert_int_equal(adopt_fds(&f, ends[0], fd[1]), -EINVAL);
	assert_int_equal(adopt_fds(&f, fd[0], plain), -EINVAL);
	assert_int_equal(adopt_fds(&f, fd[1], fd[0]), -EUCLEAN);
	assert_int_equal(adopt_fds(&f, fd[0], fd[0]), -EINVAL);
	assert_int_equal(adopt_fds(&f, sealed, fd[1]), -EUCLEAN);
	assert_int_equal(adopt_fds(&f, fd[0], sealed), -EUCLEAN);
	close(plain);
	close(sealed);
	close(ends[0]);
	close(ends[1]);
	assert_int_equal(
		tmem_tenant_adopt(f.store, "test", &limits, fd, &f.tenant), 0);
	let_go(fd);
	fixture_close(&f);
}

/* Index and pages are of one tenant, or the pages of another would be lost. */
static void memfds_of_two_are_not_mixed(void **state)
{
	int dead[TMEM_TENANT_FDS], live[TMEM_TENANT_FDS], error;
	struct tmem_tenant *tenant;
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	assert_int_equal(put(&f, 0, 1, 1, INCOMPRESSIBLE), TMEM_PAGE_OK);
	keep(&f, dead);
	tmem_tenant_detach(f.tenant);

	assert_int_equal(tmem_tenant_open(f.store, "test", &limits, &f.tenant),
			 0);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(put(&f, 0, 1, i, i), TMEM_PAGE_OK);
	keep(&f, live);
	assert_int_equal(adopt_fds(&f, dead[0], live[1]), -EBUSY);
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(get(&f, 0, 1, i, i), TMEM_PAGE_OK);
	tmem_tenant_detach(f.tenant);
	assert_int_equal(adopt_fds(&f, dead[0], live[1]), -EUCLEAN);
	assert_int_equal(adopt_fds(&f, live[0], dead[1]), -EUCLEAN);

	error = tmem_tenant_adopt(f.store, "test", &limits, dead, &tenant);
	assert_int_equal(error, 0);
	error = tmem_tenant_adopt(f.store, "test", &limits, live, &f.tenant);
	assert_int_equal(error, 0);
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(get(&f, 0, 1, i, i), TMEM_PAGE_OK);
	tmem_tenant_drop(f.tenant);
	f.tenant = tenant;
	assert_int_equal(get(&f, 0, 1, 1, INCOMPRESSIBLE), TMEM_PAGE_OK);
	let_go(dead);
	let_go(live);
	fixture_close(&f);
}

/* A tenant with a page of each kind in each of some objects. */
static void open_small(struct fixture *f, int fd[TMEM_TENANT_FDS])
{
	fixture_open(f, 32 * MIB, 8 * MIB);
	pool_open(f, 0, P);
	for (uint64_t i = 0; i < 60; i++)
		assert_int_equal(put(f, 0, i % 3, i % 3 ? i : i * i, i),
				 TMEM_PAGE_OK);
	keep(f, fd);
}

/* All verbs; what they say is not asked, for all that is there is damaged. */
static void use_all(struct fixture *f)
{
	uint64_t data[PAGE / 8] = { 1 };
	struct tmem_page page;

	for (uint64_t i = 0; i < 60; i++)
		run(f, f->ctx, TMEM_GET, 0, i % 3, i % 3 ? i : i * i, 1, data,
		    &page, NULL);
	for (uint64_t i = 0; i < 30; i++)
		run(f, f->ctx, TMEM_PUT, 0, i % 3, i % 3 ? i : i * i, 1, data,
		    &page, NULL);
	for (uint64_t i = 0; i < 3; i++)
		run(f, f->ctx, TMEM_FLUSH_OBJECT, 0, i, 0, 0, NULL, NULL, NULL);
	while (tmem_step(f->store, 1024))
		;
}

/* What a word cannot be is an error to its reader, and nobody else's. */
static void impossible_words_are_errors(void **state)
{
	static const tmem_handle bad[] = {
		5ull << HANDLE_TYPE_SHIFT,
		7ull << HANDLE_TYPE_SHIFT | 12345,
		/* No such segment, page, slot, length. */
		HANDLE_RAW << HANDLE_TYPE_SHIFT | 4096ull << 40 |
			0x3fffffull << 16,
		HANDLE_RAW << HANDLE_TYPE_SHIFT | 4096ull << 40 | 1,
		HANDLE_RAW << HANDLE_TYPE_SHIFT | 4095ull << 40,
		HANDLE_CHUNK << HANDLE_TYPE_SHIFT,
		HANDLE_CHUNK << HANDLE_TYPE_SHIFT | 4096ull << 40,
		HANDLE_CHUNK << HANDLE_TYPE_SHIFT | 2800ull << 40 | 15 << 12,
		HANDLE_CHUNK << HANDLE_TYPE_SHIFT | 1ull << 40 | 0xfff,
		/* Of a slotted segment: behind its end, in no page, a page. */
		HANDLE_CHUNK << HANDLE_TYPE_SHIFT | 1400ull << 40 |
			HANDLE_SLOTTED | 0xfff,
		HANDLE_CHUNK << HANDLE_TYPE_SHIFT | 1400ull << 40 |
			HANDLE_SLOTTED | 1 << 12,
		HANDLE_CHUNK << HANDLE_TYPE_SHIFT | 3713ull << 40 |
			HANDLE_SLOTTED,
		/* Of another kind of pool. */
		HANDLE_OPAQUE << HANDLE_TYPE_SHIFT | 2000ull << 40,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t id[TMEM_OBJECT_SIZE] = { 1 };
		struct tmem_object *object;
		struct tmem_leaf *leaf;
		struct tmem_pool *pool;
		int fd[TMEM_TENANT_FDS];
		unsigned int ok = 0, lost = 0;
		struct fixture f;

		open_small(&f, fd);
		pool = pool_get(f.tenant, 0);
		object = object_get(pool, id);
		leaf = leaf_lock(object, 1);
		atomic_store(&leaf->word[1], bad[i]);
		leaf_unlock(object, leaf);
		object_put(object);
		pool_put(pool);
		tmem_tenant_detach(f.tenant);
		assert_int_equal(tmem_tenant_adopt(f.store, "test", &limits, fd,
						   &f.tenant),
				 0);
		fixture_check(&f);
		for (uint64_t n = 0; n < 60; n++) {
			int status = get(&f, 0, n % 3, n % 3 ? n : n * n, n);

			ok += status == TMEM_PAGE_OK;
			lost += status == TMEM_PAGE_IO;
		}
		assert_int_equal(ok, 59);
		assert_int_equal(lost, 1);
		/* A put mends it. */
		assert_int_equal(put(&f, 0, 1, 1, 77), TMEM_PAGE_OK);
		assert_int_equal(get(&f, 0, 1, 1, 77), TMEM_PAGE_OK);
		use_all(&f);
		let_go(fd);
		fixture_close(&f);
	}
}

/* Words that name memory which is not there: none is taken for them. */
static void words_without_memory_take_none(void **state)
{
	uint8_t id[TMEM_OBJECT_SIZE] = { 1 };
	struct tmem_object *object;
	struct tmem_leaf *leaf;
	struct tmem_pool *pool;
	int fd[TMEM_TENANT_FDS];
	struct fixture f;
	uint64_t before;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 512; i++)
		assert_int_equal(put(&f, 0, 1, i, SAME), TMEM_PAGE_OK);
	before = stats_of(&f).held_bytes;
	keep(&f, fd);
	assert_int_equal(fallocate(fd[1], 0, 0, 1), 0);
	assert_int_equal(ftruncate(fd[1], 512 * SEGMENT_BYTES), 0);
	pool = pool_get(f.tenant, 0);
	object = object_get(pool, id);
	for (uint64_t i = 0; i < 512; i++) {
		leaf = leaf_lock(object, i);
		atomic_store(&leaf->word[i % LEAF_ENTRIES],
			     handle_chunk(HANDLE_RAW, PAGE, i, 1 << 12));
		leaf_unlock(object, leaf);
	}
	object_put(object);
	pool_put(pool);
	tmem_tenant_detach(f.tenant);
	assert_int_equal(
		tmem_tenant_adopt(f.store, "test", &limits, fd, &f.tenant), 0);
	fixture_check(&f);
	assert_true(stats_of(&f).held_bytes < before + MIB);
	for (uint64_t i = 0; i < 512; i++)
		assert_int_equal(get(&f, 0, 1, i, SAME), TMEM_PAGE_IO);
	let_go(fd);
	fixture_close(&f);
}

/* Two words that name one slot: one of them has it. */
static void a_slot_has_one_owner(void **state)
{
	uint8_t id[TMEM_OBJECT_SIZE] = { 1 };
	struct tmem_object *object;
	struct tmem_leaf *leaf;
	struct tmem_pool *pool;
	int fd[TMEM_TENANT_FDS];
	unsigned int ok = 0;
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 2; i++)
		assert_int_equal(put(&f, 0, 1, i, INCOMPRESSIBLE + 4 * i),
				 TMEM_PAGE_OK);
	keep(&f, fd);
	pool = pool_get(f.tenant, 0);
	object = object_get(pool, id);
	leaf = leaf_lock(object, 0);
	atomic_store(&leaf->word[1], atomic_load(&leaf->word[0]));
	leaf_unlock(object, leaf);
	object_put(object);
	pool_put(pool);
	tmem_tenant_detach(f.tenant);
	assert_int_equal(
		tmem_tenant_adopt(f.store, "test", &limits, fd, &f.tenant), 0);
	fixture_check(&f);
	for (uint64_t i = 0; i < 2; i++)
		ok += get(&f, 0, 1, i, INCOMPRESSIBLE + 4 * i) == TMEM_PAGE_OK;
	assert_int_equal(ok, 1);
	let_go(fd);
	fixture_close(&f);
}

/* Any bytes in place of the index's: wrong pages at worst. */
static void damaged_indexes_do_no_harm(void **state)
{
	uint64_t seed = 1, adopted = 0;

	for (unsigned int round = 0; round < 300; round++) {
		int fd[TMEM_TENANT_FDS], error;
		struct stat stat;
		struct fixture f;
		char *index;

		open_small(&f, fd);
		tmem_tenant_detach(f.tenant);
		assert_int_equal(fstat(fd[0], &stat), 0);
		index = mmap(NULL, stat.st_size, PROT_READ | PROT_WRITE,
			     MAP_SHARED, fd[0], 0);
		assert_true(index != MAP_FAILED);
		for (unsigned int i = 0; i <= round % 40; i++) {
			uint64_t at;

			/* Where something is, but for the magic numbers. */
			do {
				seed = mix(seed);
				at = seed % stat.st_size;
			} while (at % BLOCK_BYTES < 16 || !index[at]);
			index[at] ^= seed >> 32;
		}
		munmap(index, stat.st_size);
		error = tmem_tenant_adopt(f.store, "test", &limits, fd,
					  &f.tenant);
		if (error) {
			assert_true(error == -EUCLEAN || error == -ESTALE);
			f.tenant = NULL;
		} else {
			adopted++;
			fixture_check(&f);
			use_all(&f);
		}
		let_go(fd);
		fixture_close(&f);
	}
	assert_true(adopted > 200);
}

/* ------------------------------------------------------------- memory */

/*
 * Leaves that eviction has emptied and queued, and that larger ones have
 * replaced before anybody freed them: they go with their pool.
 */
static void replaced_leaves_go(void **state)
{
	uint64_t before = 0;
	struct fixture f;

	fixture_open(&f, 32 * MIB, 0);
	for (unsigned int round = 0; round < 20; round++) {
		pool_open(&f, 1, 0);
		for (uint64_t i = 0; i < 1000; i++)
			assert_int_equal(put(&f, 1, i, 0, INCOMPRESSIBLE),
					 TMEM_PAGE_OK);
		assert_true(arena_evict(&f.tenant->ephemeral, UINT64_MAX));
		for (uint64_t i = 0; i < 1000; i++)
			assert_int_equal(put(&f, 1, i, 20, SAME), TMEM_PAGE_OK);
		assert_int_equal(tmem_pool_destroy(f.tenant, 1), 0);
		while (tmem_step(f.store, 1000))
			;
		fixture_check(&f);
		if (!round)
			before = stats_of(&f).held_bytes;
		assert_int_equal(stats_of(&f).held_bytes, before);
	}
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_kinds_are_found),
		cmocka_unit_test(what_was_removed_stays_removed),
		cmocka_unit_test(what_drains_is_nobodys),
		cmocka_unit_test(ephemeral_pools_are_empty),
		cmocka_unit_test(one_process_at_a_time),
		cmocka_unit_test(names_and_cookies_stay),
		cmocka_unit_test(tables_are_as_large_as_before),
		cmocka_unit_test(failures_lose_nothing),
		cmocka_unit_test(limits_are_for_what_comes),
		cmocka_unit_test(what_are_no_tenants_memfds),
		cmocka_unit_test(memfds_of_two_are_not_mixed),
		cmocka_unit_test(impossible_words_are_errors),
		cmocka_unit_test(words_without_memory_take_none),
		cmocka_unit_test(a_slot_has_one_owner),
		cmocka_unit_test(damaged_indexes_do_no_harm),
		cmocka_unit_test(replaced_leaves_go),
	};

	return RUN_IN_BOTH_LAYOUTS("store-adopt", tests, NULL);
}
