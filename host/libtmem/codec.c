/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a page is stored: one repeated word, LZ4, as it is; zstd, later; or
 * whatever it is, where the guest has compressed it itself
 *
 * The page may change while it is read.  LZ4's compressor then stays within
 * its bounds, which depend on lengths alone, and makes a block of the right
 * length that decodes to something: the guest's own race.  The decoder runs on
 * private bytes with every bound checked.  A match that such a race has put at
 * its own place decodes to zeros since LZ4 1.9, not to what was in memory.
 */
#include <isa-l/crc.h>
#include <lz4.h>
/* Coders in memory that we give them: theirs would be in core files. */
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "internal.h"

/* A block longer than 15/16 of the page saves less than decoding it costs. */
static uint32_t worthwhile(uint32_t size)
{
	return size - size / 16;
}

size_t codec_state_size(void)
{
	return LZ4_sizeofState();
}

/* Reads few bytes of most pages: the first word that differs ends it. */
static bool same_filled(const char *page, uint32_t size, uint32_t *pattern)
{
	uint64_t first, word;
	const char *end = page + size;

	memcpy(&first, page, 8);
	if ((uint32_t)first != first >> 32)
		return false;
	/* From the end: heads of pages are often zero where tails are not. */
	for (const char *at = end - 8; at > page; at -= 8) {
		memcpy(&word, at, 8);
		if (word != first)
			return false;
	}
	*pattern = first;
	return true;
}

void codec_encode(struct tmem_ctx *ctx, const char *page, uint32_t size,
		  struct encoded *encoded)
{
	int length;

	encoded->data = ctx->stored;
	if (same_filled(page, size, &encoded->pattern)) {
		encoded->type = HANDLE_SAME;
		encoded->length = 0;
		return;
	}
	length = LZ4_compress_fast_extState(ctx->state, page, ctx->stored, size,
					    worthwhile(size), 1);
	if (length > 0) {
		encoded->type = HANDLE_CHUNK;
		encoded->length = length;
		return;
	}
	memcpy(ctx->stored, page, size);
	encoded->type = HANDLE_RAW;
	encoded->length = size;
}

/* These bytes are read once: their checksum is that of what is stored. */
void codec_keep(struct tmem_ctx *ctx, const char *bytes, uint32_t length,
		struct encoded *encoded)
{
	memcpy(ctx->stored, bytes, length);
	encoded->data = ctx->stored;
	encoded->type = HANDLE_OPAQUE;
	encoded->length = length;
}

void codec_fill(char *page, uint32_t pattern, uint32_t size)
{
	uint64_t word = (uint64_t)pattern << 32 | pattern;
	char line[64];

	if (!pattern) {
		memset(page, 0, size);
		return;
	}
	for (size_t i = 0; i < sizeof(line); i += sizeof(word))
		memcpy(line + i, &word, sizeof(word));
	/*
	 * By lines: where a loop of one store lies across two lines of code, it
	 * takes twice as long.  size_t: a counter that may wrap is not unrolled.
	 */
	for (size_t i = 0; i < size; i += sizeof(line))
		memcpy(page + i, line, sizeof(line));
}

/* ISA-L takes pointers to what it does not change. */
static uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
	return crc32_iscsi((unsigned char *)(uintptr_t)data, length, crc);
}

uint32_t codec_seed(uint32_t pool, uint32_t opaque_size,
		    const uint8_t id[TMEM_OBJECT_SIZE])
{
	/*
	 * As bytes, not as the value to start from, to which those of the id
	 * are added: pool 1's object 0 would be pool 0's object 1.
	 */
	pool |= opaque_size << 8; /* pools' numbers are smaller */
	return crc32c(crc32c(0, &pool, sizeof(pool)), id, TMEM_OBJECT_SIZE);
}

uint32_t codec_checksum(uint32_t seed, uint64_t index, const char *stored,
			uint32_t length)
{
	return crc32c(crc32c(seed, &index, sizeof(index)), stored, length);
}

uint32_t codec_checksum_same(uint32_t seed, uint64_t index, uint32_t pattern)
{
	return codec_checksum(seed, index, (const char *)&pattern,
			      sizeof(pattern));
}

/* ------------------------------------------------------------------- zstd */

/*
 * A frame's first four bytes are always the same; the checksum of the others
 * stands there instead, and not beside the word: so one store of the word
 * replaces a page by its recompressed self, whenever the process is killed.
 */
#define FRAME_MAGIC ZSTD_MAGICNUMBER
/* As fast as LZ4, a quarter smaller; 3 is 1.4 times slower for 2 % more. */
#define ZSTD_LEVEL 1

size_t codec_decoder_size(void)
{
	return ZSTD_estimateDCtxSize();
}

size_t codec_encoder_size(void)
{
	return ZSTD_estimateCCtxSize(ZSTD_LEVEL);
}

void *codec_decoder_init(void *memory)
{
	return ZSTD_initStaticDCtx(memory, codec_decoder_size());
}

void *codec_encoder_init(void *memory)
{
	ZSTD_CCtx *encoder = ZSTD_initStaticCCtx(memory, codec_encoder_size());

	if (!encoder)
		return NULL;
	ZSTD_CCtx_setParameter(encoder, ZSTD_c_compressionLevel, ZSTD_LEVEL);
	ZSTD_CCtx_setParameter(encoder, ZSTD_c_contentSizeFlag, 0);
	return encoder;
}

/* By way of ctx->page: a decoder reads back what it has written. */
static int zstd_decode(struct tmem_ctx *ctx, uint32_t length, char *page,
		       uint32_t size)
{
	const uint32_t magic = FRAME_MAGIC;

	if (length <= sizeof(magic))
		return -EIO;
	memcpy(ctx->stored, &magic, sizeof(magic));
	if (ZSTD_decompressDCtx(ctx->decoder, ctx->page, size, ctx->stored,
				length) != size)
		return -EIO;
	if (page != ctx->page)
		memcpy(page, ctx->page, size);
	return 0;
}

bool codec_sound(const struct tmem_ctx *ctx, unsigned int type, uint64_t index,
		 uint32_t length)
{
	const char *stored = ctx->stored;
	uint32_t crc = ctx->crc;

	if (type == HANDLE_ZSTD) {
		if (length <= sizeof(crc))
			return false;
		memcpy(&crc, stored, sizeof(crc));
		stored += sizeof(crc);
		length -= sizeof(crc);
	}
	return codec_checksum(ctx->seed, index, stored, length) == crc;
}

uint32_t codec_recompress(struct tmem_ctx *ctx, unsigned int type,
			  uint32_t length, uint64_t index, uint32_t size)
{
	uint32_t crc;
	size_t shorter;

	if (!codec_sound(ctx, type, index, length) ||
	    codec_decode(ctx, type, length, ctx->page, size))
		return 0;
	shorter = ZSTD_compress2(ctx->encoder, ctx->stored, size, ctx->page,
				 size);
	if (ZSTD_isError(shorter) || shorter >= length)
		return 0;
	crc = codec_checksum(ctx->seed, index, ctx->stored + sizeof(crc),
			     shorter - sizeof(crc));
	memcpy(ctx->stored, &crc, sizeof(crc));
	return shorter;
}

/* ----------------------------------------------------------------- decode */

static int lz4_decode(struct tmem_ctx *ctx, uint32_t length, char *page,
		      uint32_t size)
{
	return LZ4_decompress_safe(ctx->stored, page, length, size) == (int)size
		       ? 0
		       : -EIO;
}

static int raw_decode(struct tmem_ctx *ctx, uint32_t length, char *page,
		      uint32_t size)
{
	if (length != size)
		return -EIO;
	memcpy(page, ctx->stored, size);
	return 0;
}

/* Nothing is decoded that a guest has encoded. */
static int opaque_decode(struct tmem_ctx *ctx, uint32_t length, char *page,
			 uint32_t size)
{
	if (length > size)
		return -EIO;
	memcpy(page, ctx->stored, length);
	return 0;
}

/* By the type of the word.  A page of one repeated word has no bytes. */
static int (*const decoders[])(struct tmem_ctx *ctx, uint32_t length,
			       char *page, uint32_t size) = {
	[HANDLE_CHUNK] = lz4_decode,
	[HANDLE_RAW] = raw_decode,
	[HANDLE_ZSTD] = zstd_decode,
	[HANDLE_OPAQUE] = opaque_decode,
};

int codec_decode(struct tmem_ctx *ctx, unsigned int type, uint32_t length,
		 char *page, uint32_t size)
{
	if (type >= ARRAY_SIZE(decoders) || !decoders[type])
		return -EIO;
	return decoders[type](ctx, length, page, size);
}
