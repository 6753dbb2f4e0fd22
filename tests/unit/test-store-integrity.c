/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory of the host that is damaged: its page is an error to who reads it, and
 * nobody else's; never other data.
 */
#include <unistd.h>

#include "store-fixture.h"
#include "internal.h"

#define P TMEM_POOL_PERSISTENT
/* make_page() makes of the low two bits: */
#define SAME	       0
#define COMPRESSIBLE   1
#define INCOMPRESSIBLE 3

/* Bytes of the tenant's persistent pages, and where they begin. */
struct stored {
	int fd;
	off_t start, end;
};

static struct stored stored_open(struct fixture *f)
{
	struct stored s;
	int fd[TMEM_TENANT_FDS];

	tmem_tenant_fds(f->tenant, fd);
	s.fd = fd[1];
	s.start = lseek(s.fd, 0, SEEK_DATA);
	s.end = lseek(s.fd, s.start, SEEK_HOLE);
	assert_true(s.start >= 0 && s.end > s.start);
	return s;
}

static void flip(const struct stored *s, off_t at, uint8_t bits)
{
	uint8_t byte;

	assert_int_equal(pread(s->fd, &byte, 1, at), 1);
	byte ^= bits;
	assert_int_equal(pwrite(s->fd, &byte, 1, at), 1);
}

/* One bit, in each byte in turn: as many errors as there are stored bytes. */
static void each_byte_counts(struct fixture *f, uint64_t seed)
{
	uint64_t errors = 0, before = stats_of(f).io_errors;
	struct stored s;

	assert_int_equal(put(f, 0, 1, 0, seed), TMEM_PAGE_OK);
	s = stored_open(f);
	for (off_t at = s.start; at < s.end; at++) {
		uint8_t bit = 1 << at % 8;

		flip(&s, at, bit);
		errors += get(f, 0, 1, 0, seed) == TMEM_PAGE_IO;
		flip(&s, at, bit);
	}
	assert_int_equal(errors, stats_of(f).stored_bytes);
	assert_int_equal(stats_of(f).io_errors - before, errors);
	/* Not held against it. */
	assert_int_equal(get(f, 0, 1, 0, seed), TMEM_PAGE_OK);
}

static void each_byte_of_a_compressed_page_counts(void **state)
{
	struct fixture f;

	fixture_open(&f, 8 * MIB, MIB);
	pool_open(&f, 0, P);
	each_byte_counts(&f, COMPRESSIBLE);
	fixture_close(&f);
}

static void each_byte_of_a_raw_page_counts(void **state)
{
	struct fixture f;

	fixture_open(&f, 8 * MIB, MIB);
	pool_open(&f, 0, P);
	each_byte_counts(&f, INCOMPRESSIBLE);
	assert_int_equal(stats_of(&f).stored_bytes, PAGE);
	fixture_close(&f);
}

static void damage_is_its_owners_alone(void **state)
{
	unsigned int failed = 0, errors = 0;
	struct stored s;
	struct fixture f;

	fixture_open(&f, 8 * MIB, MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 64; i++)
		assert_int_equal(put(&f, 0, i % 3, i, i), TMEM_PAGE_OK);
	s = stored_open(&f);
	flip(&s, s.start + 10, 0x10);
	for (uint64_t i = 0; i < 64; i++) {
		int status = get(&f, 0, i % 3, i, i);

		failed += status != TMEM_PAGE_OK;
		errors += status == TMEM_PAGE_IO;
	}
	assert_int_equal(failed, 1);
	assert_int_equal(errors, 1);
	assert_int_equal(stats_of(&f).io_errors, 1);
	/* Who has the page still, and puts it anew, has it. */
	for (uint64_t i = 0; i < 64; i++) {
		assert_int_equal(put(&f, 0, i % 3, i, i), TMEM_PAGE_OK);
		assert_int_equal(get(&f, 0, i % 3, i, i), TMEM_PAGE_OK);
	}
	fixture_close(&f);
}

/*
 * The words of two pages change places, and their checksums: each names another
 * key's sound bytes.
 */
static void swap_words(struct fixture *f, uint64_t object_a, uint64_t index_a,
		       uint64_t object_b, uint64_t index_b)
{
	const uint64_t name[2] = { object_a, object_b };
	const uint64_t index[2] = { index_a, index_b };
	struct tmem_pool *pool = pool_get(f->tenant, 0);
	_Atomic tmem_handle *word[2];
	_Atomic uint32_t *crc[2];
	struct tmem_object *object;
	struct tmem_leaf *leaf;
	tmem_handle handle;
	uint32_t sum;

	for (unsigned int i = 0; i < 2; i++) {
		uint8_t id[TMEM_OBJECT_SIZE] = { 0 };

		memcpy(id, &name[i], sizeof(name[i]));
		object = object_get(pool, id);
		leaf = leaf_lock(object, index[i]);
		word[i] = &leaf->word[index[i] % LEAF_ENTRIES];
		crc[i] = leaf_crc(leaf, index[i] % LEAF_ENTRIES);
		leaf_unlock(object, leaf);
		object_put(object);
	}
	handle = *word[0];
	*word[0] = *word[1];
	*word[1] = handle;
	sum = *crc[0];
	*crc[0] = *crc[1];
	*crc[1] = sum;
	pool_put(pool);
}

static void pages_of_other_keys_are_damage(void **state)
{
	static const uint64_t key[][2] = {
		{ 1, 0 }, { 1, 1 }, { 1, 4096 }, { 2, 0 }
	};
	struct fixture f;

	fixture_open(&f, 8 * MIB, MIB);
	pool_open(&f, 0, P);
	for (unsigned int i = 0; i < ARRAY_SIZE(key); i++)
		assert_int_equal(put(&f, 0, key[i][0], key[i][1],
				     INCOMPRESSIBLE),
				 TMEM_PAGE_OK);
	for (unsigned int i = 1; i < ARRAY_SIZE(key); i++) {
		swap_words(&f, 1, 0, key[i][0], key[i][1]);
		assert_int_equal(get(&f, 0, 1, 0, INCOMPRESSIBLE),
				 TMEM_PAGE_IO);
		assert_int_equal(get(&f, 0, key[i][0], key[i][1],
				     INCOMPRESSIBLE),
				 TMEM_PAGE_IO);
		swap_words(&f, 1, 0, key[i][0], key[i][1]);
		assert_int_equal(get(&f, 0, 1, 0, INCOMPRESSIBLE),
				 TMEM_PAGE_OK);
	}
	fixture_close(&f);
}

/*
 * Of pools, too, which have objects of the same names, or of names near by.
 */
static void pages_of_other_pools_are_damage(void **state)
{
	uint32_t seed[16 * 64];

	for (unsigned int i = 0; i < ARRAY_SIZE(seed); i++) {
		uint8_t id[TMEM_OBJECT_SIZE] = { i / 16 };

		seed[i] = codec_seed(i % 8, i / 8 % 2 * PAGE, id);
		for (unsigned int j = 0; j < i; j++)
			assert_int_not_equal(seed[i], seed[j]);
	}
}

/* What an exclusive get could not return is gone all the same. */
static void a_damaged_ephemeral_page_is_gone(void **state)
{
	uint64_t data[PAGE / 8];
	struct tmem_page page = { .status = 0xff };
	struct iovec iov = { data, PAGE };
	struct tmem_op op = {
		.verb = TMEM_GET,
		.flags = TMEM_GET_EXCLUSIVE,
		.count = 1,
		.iov = &iov,
		.iovcnt = 1,
		.page = &page,
		.page_size = PAGE,
	};
	uint8_t id[TMEM_OBJECT_SIZE] = { 0 };
	struct tmem_object *object;
	struct tmem_leaf *leaf;
	struct tmem_pool *pool;
	struct fixture f;

	fixture_open(&f, 8 * MIB, 0);
	pool_open(&f, 0, 0);
	assert_int_equal(put(&f, 0, 0, 0, INCOMPRESSIBLE), TMEM_PAGE_OK);
	pool = pool_get(f.tenant, 0);
	object = object_get(pool, id);
	leaf = leaf_lock(object, 0);
	*leaf_crc(leaf, 0) ^= 1;
	leaf_unlock(object, leaf);
	object_put(object);
	pool_put(pool);
	assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), 0);
	assert_int_equal(page.status, TMEM_PAGE_IO);
	assert_int_equal(stats_of(&f).ephemeral_pages, 1);
	tmem_retire(f.ctx, &op);
	assert_int_equal(stats_of(&f).ephemeral_pages, 0);
	assert_int_equal(get(&f, 0, 0, 0, INCOMPRESSIBLE), TMEM_PAGE_MISS);
	fixture_close(&f);
}

/* Its bytes are in the word that says where others' are. */
static void each_bit_of_a_same_filled_page_counts(void **state)
{
	uint8_t id[TMEM_OBJECT_SIZE] = { 1 };
	struct tmem_object *object;
	struct tmem_leaf *leaf;
	struct tmem_pool *pool;
	struct fixture f;

	fixture_open(&f, 32 * MIB, 8 * MIB);
	pool_open(&f, 0, P);
	assert_int_equal(put(&f, 0, 1, 5, SAME), TMEM_PAGE_OK);
	pool = pool_get(f.tenant, 0);
	object = object_get(pool, id);
	leaf = leaf_lock(object, 5);
	leaf_unlock(object, leaf);
	for (unsigned int bit = 0; bit < 32; bit++) {
		atomic_fetch_xor(&leaf->word[5], 1ull << bit);
		assert_int_equal(get(&f, 0, 1, 5, SAME), TMEM_PAGE_IO);
		atomic_fetch_xor(&leaf->word[5], 1ull << bit);
		atomic_fetch_xor(leaf_crc(leaf, 5), 1u << bit);
		assert_int_equal(get(&f, 0, 1, 5, SAME), TMEM_PAGE_IO);
		atomic_fetch_xor(leaf_crc(leaf, 5), 1u << bit);
		assert_int_equal(get(&f, 0, 1, 5, SAME), TMEM_PAGE_OK);
	}
	object_put(object);
	pool_put(pool);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_byte_of_a_compressed_page_counts),
		cmocka_unit_test(each_byte_of_a_raw_page_counts),
		cmocka_unit_test(each_bit_of_a_same_filled_page_counts),
		cmocka_unit_test(damage_is_its_owners_alone),
		cmocka_unit_test(pages_of_other_keys_are_damage),
		cmocka_unit_test(pages_of_other_pools_are_damage),
		cmocka_unit_test(a_damaged_ephemeral_page_is_gone),
	};

	return RUN_IN_BOTH_LAYOUTS("store-integrity", tests, NULL);
}
