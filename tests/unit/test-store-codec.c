/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a page is stored: what is worth it, and that what is read back is a page
 * and nothing shorter, whose rest would be what was in memory before.
 */
#include "store-fixture.h"
#include "internal.h"

#define P TMEM_POOL_PERSISTENT

/* The first @bytes of a page are random, the others are one word. */
static void make_part(char *page, uint32_t bytes)
{
	memset(page, 0x11, PAGE);
	for (uint32_t i = 0; i + 8 <= bytes; i += 8) {
		uint64_t word = mix(i + 1);

		memcpy(page + i, &word, 8);
	}
}

static uint32_t stored_as(struct fixture *f, uint32_t bytes)
{
	struct tmem_page result = { .status = 0xff };
	char page[PAGE];

	make_part(page, bytes);
	assert_int_equal(run(f, f->ctx, TMEM_PUT, 0, 1, bytes, 1, page, &result,
			     NULL),
			 0);
	assert_int_equal(result.status, TMEM_PAGE_OK);
	return result.length;
}

/* What saves less than a sixteenth costs more to decode than it saves. */
static void little_gain_is_none(void **state)
{
	struct fixture f;

	fixture_open(&f, 16 * MIB, MIB);
	pool_open(&f, 0, P);
	assert_int_equal(stored_as(&f, 0), 0);
	assert_in_range(stored_as(&f, PAGE * 3 / 4), PAGE * 3 / 4,
			PAGE * 13 / 16);
	assert_in_range(stored_as(&f, PAGE * 7 / 8), PAGE * 7 / 8,
			PAGE * 15 / 16);
	assert_int_equal(stats_of(&f).raw_pages, 0);
	assert_int_equal(stored_as(&f, PAGE * 31 / 32), PAGE);
	assert_int_equal(stored_as(&f, PAGE), PAGE);
	assert_int_equal(stats_of(&f).raw_pages, 2);
	fixture_close(&f);
}

/* Bytes of half a page, stored as @type; their length. */
static uint32_t half_a_page(struct tmem_ctx *ctx, unsigned int type)
{
	struct encoded encoded;
	char page[PAGE];

	for (unsigned int i = 0; i < PAGE / 2; i++)
		page[i] = "half of a page, and no more "[i % 28];
	codec_encode(ctx, page, PAGE / 2, &encoded);
	assert_int_equal(encoded.type, HANDLE_CHUNK);
	if (type == HANDLE_CHUNK)
		return encoded.length;
	memcpy(ctx->stored, page, PAGE / 2);
	if (type == HANDLE_RAW)
		return PAGE / 2;
	ctx->seed = 1;
	ctx->crc = codec_checksum(1, 2, ctx->stored, PAGE / 2);
	return codec_recompress(ctx, HANDLE_RAW, PAGE / 2, 2, PAGE / 2);
}

static void short_pages_are_errors(void **state)
{
	static const unsigned int type[] = { HANDLE_CHUNK, HANDLE_RAW,
					     HANDLE_ZSTD };
	struct fixture f;
	char page[PAGE];

	fixture_open_recompressing(&f, 16 * MIB, MIB, 100);
	for (unsigned int i = 0; i < ARRAY_SIZE(type); i++) {
		struct tmem_ctx *ctx = f.store->recompress.ctx;
		uint32_t length = half_a_page(ctx, type[i]);

		assert_true(length > 0);
		assert_int_equal(
			codec_decode(ctx, type[i], length, page, PAGE / 2), 0);
		length = half_a_page(ctx, type[i]);
		assert_int_equal(codec_decode(ctx, type[i], length, page, PAGE),
				 -EIO);
	}
	fixture_close(&f);
}

/* A type that is none, or has no bytes. */
static void other_types_are_errors(void **state)
{
	struct fixture f;
	char page[PAGE];

	fixture_open(&f, 16 * MIB, MIB);
	for (unsigned int type = 0; type < 100; type++) {
		if (type >= HANDLE_CHUNK && type != HANDLE_LOST &&
		    type <= HANDLE_OPAQUE)
			continue;
		assert_int_equal(codec_decode(f.ctx, type, 100, page, PAGE),
				 -EIO);
	}
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(little_gain_is_none),
		cmocka_unit_test(short_pages_are_errors),
		cmocka_unit_test(other_types_are_errors),
	};

	return cmocka_run_group_tests_name("store-codec", tests, NULL, NULL);
}
