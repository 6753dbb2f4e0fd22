/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Opaque pools: pages that their owner has encoded come back as they were, of
 * any length, and nothing looks into them
 */
#include <stdlib.h>
#include <unistd.h>

#include "store-fixture.h"
#include "internal.h"

#define P TMEM_POOL_PERSISTENT
#define O TMEM_POOL_OPAQUE

enum { PERSISTENT, EPHEMERAL, PLAIN };

static void open_both(struct fixture *f)
{
	fixture_open(f, 64 * MIB, 16 * MIB);
	pool_open(f, PERSISTENT, P | O);
	pool_open(f, EPHEMERAL, O);
}

/* Bytes that would be told from others by any codec: of all kinds of page. */
static void make_bytes(char *bytes, uint64_t seed)
{
	make_page(bytes, seed, PAGE);
}

static int put_bytes(struct fixture *f, uint32_t pool, uint64_t index,
		     uint64_t seed, uint32_t length)
{
	struct tmem_page page = { .status = 0xff, .length = length };
	char bytes[PAGE];
	int error;

	make_bytes(bytes, seed);
	error = run(f, f->ctx, TMEM_PUT, pool, 7, index, 1, bytes, &page, NULL);
	if (error)
		return error;
	assert_int_equal(page.length, page.status == TMEM_PAGE_OK ? length : 0);
	return page.status;
}

/* What was put comes back, and not a byte of the page more. */
static int get_bytes(struct fixture *f, uint32_t pool, uint64_t index,
		     uint64_t seed, uint32_t length)
{
	struct tmem_page page = { .status = 0xff };
	char bytes[PAGE], expected[PAGE];

	memset(bytes, 0xa5, PAGE);
	assert_int_equal(run(f, f->ctx, TMEM_GET, pool, 7, index, 1, bytes,
			     &page, NULL),
			 0);
	if (page.status == TMEM_PAGE_OK) {
		make_bytes(expected, seed);
		memset(expected + length, 0xa5, PAGE - length);
		assert_int_equal(page.length, length);
		assert_memory_equal(bytes, expected, PAGE);
	}
	return page.status;
}

static void every_length_comes_back(void **state)
{
	struct fixture f;

	open_both(&f);
	for (uint32_t length = 1; length <= PAGE; length++) {
		uint32_t pool = length % 2 ? PERSISTENT : EPHEMERAL;

		assert_int_equal(put_bytes(&f, pool, length, length, length),
				 TMEM_PAGE_OK);
	}
	for (uint32_t length = 1; length <= PAGE; length++) {
		uint32_t pool = length % 2 ? PERSISTENT : EPHEMERAL;

		assert_int_equal(get_bytes(&f, pool, length, length, length),
				 TMEM_PAGE_OK);
	}
	/* 1 + .. + 4096: nothing was compressed, or found to be one word. */
	assert_int_equal(stats_of(&f).stored_bytes, PAGE * (PAGE + 1) / 2);
	assert_int_equal(stats_of(&f).same_filled_pages, 0);
	assert_int_equal(stats_of(&f).raw_pages, 0);
	fixture_close(&f);
}

static void a_put_of_another_length_replaces(void **state)
{
	struct fixture f;

	open_both(&f);
	for (uint32_t pool = PERSISTENT; pool <= EPHEMERAL; pool++) {
		assert_int_equal(put_bytes(&f, pool, 1, 2, 3000), TMEM_PAGE_OK);
		assert_int_equal(put_bytes(&f, pool, 1, 5, 1), TMEM_PAGE_OK);
		assert_int_equal(get_bytes(&f, pool, 1, 5, 1), TMEM_PAGE_OK);
		assert_int_equal(put_bytes(&f, pool, 1, 6, PAGE), TMEM_PAGE_OK);
		assert_int_equal(get_bytes(&f, pool, 1, 6, PAGE), TMEM_PAGE_OK);
	}
	assert_int_equal(stats_of(&f).stored_bytes, 2 * PAGE);
	fixture_close(&f);
}

/* A length that is none: nothing of the whole run takes effect. */
static void bad_lengths_do_nothing(void **state)
{
	static const uint32_t bad[] = { 0, PAGE + 1, 1u << 16, 1u << 17,
					UINT32_MAX };
	struct tmem_page page[3];
	char bytes[3 * PAGE];
	struct fixture f;

	open_both(&f);
	memset(bytes, 1, sizeof(bytes));
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (uint64_t k = 0; k < 3; k++)
			assert_int_equal(put_bytes(&f, PERSISTENT, k, k, 100),
					 TMEM_PAGE_OK);
		for (unsigned int at = 0; at < 3; at++) {
			for (unsigned int k = 0; k < 3; k++)
				page[k] = (struct tmem_page){
					.length = k == at ? bad[i] : 9
				};
			assert_int_equal(run(&f, f.ctx, TMEM_PUT, PERSISTENT, 7,
					     0, 3, bytes, page, NULL),
					 -EINVAL);
		}
		for (uint64_t k = 0; k < 3; k++)
			assert_int_equal(get_bytes(&f, PERSISTENT, k, k, 100),
					 TMEM_PAGE_OK);
	}
	fixture_close(&f);
}

/* A run whose memory is cut anywhere: bytes are the page's first. */
static void pages_of_a_run_lie_a_page_apart(void **state)
{
	struct tmem_page page[4];
	char out[4 * PAGE], in[4 * PAGE];
	struct fixture f;

	open_both(&f);
	for (uint32_t cut = 0; cut <= 4 * PAGE; cut += 511) {
		struct iovec iov[2] = { { out, cut },
					{ out + cut, sizeof(out) - cut } };
		struct tmem_op op = {
			.verb = TMEM_PUT,
			.index = 60,
			.count = 4,
			.page_size = PAGE,
			.iov = iov,
			.iovcnt = 2,
			.page = page,
		};

		for (unsigned int i = 0; i < 4; i++) {
			make_bytes(out + i * PAGE, cut + i);
			page[i].length = 1 + (cut * 7 + i * 1500) % PAGE;
		}
		assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), 0);
		assert_int_equal(op.done, 4);
		memset(in, 0x5a, sizeof(in));
		iov[0].iov_base = in;
		iov[1].iov_base = in + cut;
		op.verb = TMEM_GET;
		assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), 0);
		assert_int_equal(op.done, 4);
		for (unsigned int i = 0; i < 4; i++) {
			uint32_t length = 1 + (cut * 7 + i * 1500) % PAGE;

			assert_int_equal(page[i].length, length);
			memset(out + i * PAGE + length, 0x5a, PAGE - length);
		}
		assert_memory_equal(in, out, sizeof(in));
	}
	fixture_close(&f);
}

/* It is a kind of pool, as persistent and ephemeral are. */
static void the_kind_is_kept(void **state)
{
	struct tmem_pool_params params = { P, 12 };
	struct fixture f;

	open_both(&f);
	assert_int_equal(tmem_pool_create(f.tenant, PERSISTENT, &params, NULL),
			 -EEXIST);
	assert_int_equal(tmem_pool_query(f.tenant, PERSISTENT, &params), 0);
	assert_int_equal(params.flags, P | O);
	assert_int_equal(tmem_pool_query(f.tenant, EPHEMERAL, &params), 0);
	assert_int_equal(params.flags, O);
	fixture_close(&f);
}

/* What does not compress takes a page: the promise is of pages. */
static void a_reservation_counts_pages(void **state)
{
	struct fixture f;
	uint64_t pages;

	fixture_open(&f, tmem_reservation_cost(4 * MIB), 4 * MIB);
	pool_open(&f, PERSISTENT, P | O);
	for (pages = 0; pages < 4 * MIB / PAGE; pages++)
		assert_int_equal(put_bytes(&f, PERSISTENT, pages, pages,
					   pages % 2 ? PAGE : 1),
				 TMEM_PAGE_OK);
	assert_int_equal(tmem_tenant_persistent_raw(f.tenant), 4 * MIB);
	while (pages--)
		assert_int_equal(get_bytes(&f, PERSISTENT, pages, pages,
					   pages % 2 ? PAGE : 1),
				 TMEM_PAGE_OK);
	fixture_close(&f);
}

static void adopt_again(struct fixture *f)
{
	const struct tmem_limits limits = { .size = sizeof(limits),
					    .persistent_reserved = 16 * MIB };

	fixture_adopt_again(f, &limits);
}

static void they_are_adopted(void **state)
{
	struct tmem_pool_params params;
	struct fixture f;

	open_both(&f);
	for (uint32_t i = 1; i <= PAGE; i += 15)
		assert_int_equal(put_bytes(&f, PERSISTENT, i, i, i),
				 TMEM_PAGE_OK);
	adopt_again(&f);
	assert_int_equal(tmem_pool_query(f.tenant, PERSISTENT, &params), 0);
	assert_int_equal(params.flags, P | O);
	for (uint32_t i = 1; i <= PAGE; i += 15)
		assert_int_equal(get_bytes(&f, PERSISTENT, i, i, i),
				 TMEM_PAGE_OK);
	assert_int_equal(put_bytes(&f, PERSISTENT, 1, 3, 77), TMEM_PAGE_OK);
	assert_int_equal(get_bytes(&f, PERSISTENT, 1, 3, 77), TMEM_PAGE_OK);
	fixture_close(&f);
}

/* The leaf of a page, locked; *word is the page's. */
static struct tmem_leaf *leaf_of(struct fixture *f, uint64_t index,
				 struct tmem_object **object,
				 _Atomic tmem_handle **word)
{
	uint8_t id[TMEM_OBJECT_SIZE] = { 7 };
	struct tmem_pool *pool = pool_get(f->tenant, PERSISTENT);
	struct tmem_leaf *leaf;

	*object = object_get(pool, id);
	leaf = leaf_lock(*object, index);
	*word = &leaf->word[index % LEAF_ENTRIES];
	return leaf;
}

static void leaf_let_go(struct tmem_object *object, struct tmem_leaf *leaf)
{
	struct tmem_pool *pool = object->pool;

	leaf_unlock(object, leaf);
	object_put(object);
	pool_put(pool);
}

/*
 * The memfds say that there is what the pool cannot have: nothing is decoded,
 * not even by who adopts what somebody has made up.
 */
static void nothing_else_is_adopted(void **state)
{
	static const tmem_handle bad[] = {
		HANDLE_SAME << HANDLE_TYPE_SHIFT | 0x41414141,
		HANDLE_CHUNK << HANDLE_TYPE_SHIFT,
		HANDLE_RAW << HANDLE_TYPE_SHIFT,
		HANDLE_ZSTD << HANDLE_TYPE_SHIFT,
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		const tmem_handle type = 7ull << HANDLE_TYPE_SHIFT;
		struct tmem_object *object;
		_Atomic tmem_handle *word;
		struct tmem_leaf *leaf;
		struct fixture f;

		open_both(&f);
		for (uint64_t n = 0; n < 4; n++)
			assert_int_equal(put_bytes(&f, PERSISTENT, n, n,
						   i == 2 ? PAGE : 1000),
					 TMEM_PAGE_OK);
		/* Its bytes are there, and their checksum is right. */
		leaf = leaf_of(&f, 1, &object, &word);
		atomic_store(word, (atomic_load(word) & ~type) | bad[i]);
		leaf_let_go(object, leaf);
		adopt_again(&f);
		fixture_check(&f);
		for (uint64_t n = 0; n < 4; n++)
			assert_int_equal(get_bytes(&f, PERSISTENT, n, n,
						   i == 2 ? PAGE : 1000),
					 n == 1 ? TMEM_PAGE_IO : TMEM_PAGE_OK);
		fixture_close(&f);
	}
}

/*
 * Nor the other way round, where the pool itself seems to be of the other kind:
 * what was put into one is never read as if it had been put into the other.
 */
static void kinds_are_not_confused(void **state)
{
	static const uint32_t flags[] = { P, P | O };

	for (unsigned int i = 0; i < 2; i++) {
		tmem_handle type = i ? HANDLE_CHUNK : HANDLE_OPAQUE;
		struct tmem_page page = { .length = 1000 };
		struct tmem_object *object;
		_Atomic tmem_handle *word;
		struct tmem_leaf *leaf;
		struct fixture f;
		char bytes[PAGE];

		fixture_open(&f, 64 * MIB, 16 * MIB);
		pool_open(&f, PERSISTENT, flags[i]);
		make_bytes(bytes, 5);
		assert_int_equal(run(&f, f.ctx, TMEM_PUT, PERSISTENT, 7, 1, 1,
				     bytes, &page, NULL),
				 0);
		assert_int_equal(page.status, TMEM_PAGE_OK);
		atomic_fetch_xor(pool_entry(f.tenant, PERSISTENT),
				 POOL_ENTRY_OPAQUE);
		leaf = leaf_of(&f, 1, &object, &word);
		atomic_store(word, (atomic_load(word) &
				    ~(7ull << HANDLE_TYPE_SHIFT)) |
					   type << HANDLE_TYPE_SHIFT);
		leaf_let_go(object, leaf);
		adopt_again(&f);
		assert_int_equal(stats_of(&f).persistent_pages, 1);
		assert_int_equal(run(&f, f.ctx, TMEM_GET, PERSISTENT, 7, 1, 1,
				     bytes, &page, NULL),
				 0);
		assert_int_equal(page.status, TMEM_PAGE_IO);
		fixture_close(&f);
	}
}

/* A flipped bit is an error, and its bytes are not given to anybody. */
static void damage_is_found(void **state)
{
	struct tmem_object *object;
	_Atomic tmem_handle *word;
	struct tmem_leaf *leaf;
	struct fixture f;
	char *data;

	open_both(&f);
	assert_int_equal(put_bytes(&f, PERSISTENT, 1, 2, 33), TMEM_PAGE_OK);
	assert_int_equal(put_bytes(&f, PERSISTENT, 2, 2, 33), TMEM_PAGE_OK);
	leaf = leaf_of(&f, 1, &object, &word);
	data = (char *)(uintptr_t)arena_data(object->pool->arena,
					     atomic_load(word));
	data[32] ^= 1;
	leaf_let_go(object, leaf);
	assert_int_equal(get_bytes(&f, PERSISTENT, 1, 2, 33), TMEM_PAGE_IO);
	assert_int_equal(get_bytes(&f, PERSISTENT, 2, 2, 33), TMEM_PAGE_OK);
	fixture_close(&f);
}

/* Text, which zstd would take a third of: it is not ours to look into. */
static void they_are_not_recompressed(void **state)
{
	struct tmem_page page = { .length = PAGE };
	char text[PAGE];
	struct fixture f;

	fixture_open_recompressing(&f, 64 * MIB, 16 * MIB, 100);
	pool_open(&f, PERSISTENT, P | O);
	for (unsigned int i = 0; i < PAGE; i++)
		text[i] = "the quick brown fox jumps"[i % 25];
	for (uint64_t i = 0; i < 200; i++)
		assert_int_equal(run(&f, f.ctx, TMEM_PUT, PERSISTENT, 7, i, 1,
				     text, &page, NULL),
				 0);
	for (unsigned int i = 0; i < 5; i++) {
		f.later_ns += 10000000000ull;
		while (tmem_step(f.store, 64))
			;
	}
	assert_int_equal(stats_of(&f).recompressed_pages, 0);
	assert_int_equal(stats_of(&f).stored_bytes, 200 * PAGE);
	fixture_close(&f);
}

/* The others of the same tenant are as they always were. */
static void a_plain_pool_beside_it_compresses(void **state)
{
	struct fixture f;

	open_both(&f);
	pool_open(&f, PLAIN, P);
	assert_int_equal(put(&f, PLAIN, 1, 1, 4), TMEM_PAGE_OK);
	assert_int_equal(stats_of(&f).same_filled_pages, 1);
	assert_int_equal(put_bytes(&f, PERSISTENT, 1, 4, PAGE), TMEM_PAGE_OK);
	assert_int_equal(stats_of(&f).same_filled_pages, 1);
	assert_int_equal(get(&f, PLAIN, 1, 1, 4), TMEM_PAGE_OK);
	assert_int_equal(get_bytes(&f, PERSISTENT, 1, 4, PAGE), TMEM_PAGE_OK);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_length_comes_back),
		cmocka_unit_test(a_put_of_another_length_replaces),
		cmocka_unit_test(bad_lengths_do_nothing),
		cmocka_unit_test(pages_of_a_run_lie_a_page_apart),
		cmocka_unit_test(the_kind_is_kept),
		cmocka_unit_test(a_reservation_counts_pages),
		cmocka_unit_test(they_are_adopted),
		cmocka_unit_test(nothing_else_is_adopted),
		cmocka_unit_test(kinds_are_not_confused),
		cmocka_unit_test(damage_is_found),
		cmocka_unit_test(they_are_not_recompressed),
		cmocka_unit_test(a_plain_pool_beside_it_compresses),
	};

	return RUN_IN_BOTH_LAYOUTS("store-opaque", tests, NULL);
}
