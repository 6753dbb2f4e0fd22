/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a leaf's word says about a page.  0: there is none.  Every change of
 * state is one store of a word.
 *
 *   63..61  type
 *   60      taken: an exclusive get returned it and was not retired yet
 *   59      visited: got, or where persistent put, since the last look
 *   58      settled: recompression has tried, and will not again (persistent)
 *           young: came late, to an old span's hole (ephemeral)
 *   57      in QUEUE_MAIN (ephemeral); later: sent since it changed (persistent)
 *   same    47..32 which get that was   31..0 the word that fills the page
 *   chunk   56..40 length   39 slotted   37..16 segment
 *           15..0 page of segment << 12 | slot; slotted: where in it, by 16 bytes
 *
 * Type 7 is for pages that are not here: spilled, remote, or a tombstone, by bits
 * 56..55, and where.
 */
#ifndef TMEM_HANDLE_H
#define TMEM_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

typedef uint64_t tmem_handle;

#define HANDLE_TYPE_SHIFT 61
#define HANDLE_EMPTY	  0ull
#define HANDLE_SAME	  1ull /* 32 bit pattern, repeated */
#define HANDLE_CHUNK	  2ull /* LZ4 */
#define HANDLE_RAW	  3ull /* as it was */
#define HANDLE_LOST	  4ull /* there was a page; its reader gets an error */
#define HANDLE_ZSTD	  5ull /* recompressed: its checksum, then zstd */
#define HANDLE_OPAQUE	  6ull /* the guest's own: TMEM_POOL_OPAQUE */
#define HANDLE_TAKEN	  (1ull << 60)
/* Of recompress.c's look at the page, or evict.c's. */
#define HANDLE_VISITED (1ull << 59)
#define HANDLE_SETTLED (1ull << 58)
#define HANDLE_YOUNG   HANDLE_SETTLED
#define HANDLE_MAIN    (1ull << 57)
#define HANDLE_AGE     (HANDLE_VISITED | HANDLE_YOUNG | HANDLE_MAIN)
/* What another process does not go on with. */
#define HANDLE_PRIVATE (HANDLE_TAKEN | HANDLE_VISITED | HANDLE_SETTLED)

#define SEGMENT_BITS                                                           \
	22 /* 256 GiB of a tenant's persistent or ephemeral pages */
#define SEGMENT_MAX (1u << SEGMENT_BITS)

static inline unsigned int handle_type(tmem_handle h)
{
	return h >> HANDLE_TYPE_SHIFT;
}
static inline tmem_handle handle_same(uint32_t pattern)
{
	return HANDLE_SAME << HANDLE_TYPE_SHIFT | pattern;
}
static inline tmem_handle handle_lost(void)
{
	return HANDLE_LOST << HANDLE_TYPE_SHIFT;
}
static inline tmem_handle handle_chunk(unsigned int type, uint32_t length,
				       uint32_t segment, uint32_t slot)
{
	return (uint64_t)type << HANDLE_TYPE_SHIFT | (uint64_t)length << 40 |
	       (uint64_t)segment << 16 | slot;
}
/* The same, in a slotted segment (slotted.c), @at units of it from its begin. */
#define HANDLE_SLOTTED (1ull << 39)
static inline tmem_handle handle_slotted_chunk(unsigned int type,
					       uint32_t length,
					       uint32_t segment, uint32_t at)
{
	return handle_chunk(type, length, segment, at) | HANDLE_SLOTTED;
}
static inline bool handle_has_chunk(tmem_handle h)
{
	const unsigned int chunks = 1u << HANDLE_CHUNK | 1u << HANDLE_RAW |
				    1u << HANDLE_ZSTD | 1u << HANDLE_OPAQUE;

	return chunks >> handle_type(h) & 1;
}
static inline uint32_t handle_length(tmem_handle h)
{
	return handle_has_chunk(h) ? h >> 40 & 0x1ffff : 0;
}
static inline uint32_t handle_segment(tmem_handle h)
{
	return h >> 16 & (SEGMENT_MAX - 1);
}
static inline uint32_t handle_slot(tmem_handle h)
{
	return h & 0xffff;
}
/* A same-filled page's; a chunk's is arena_taker(). */
static inline uint16_t handle_taker(tmem_handle h)
{
	return h >> 32;
}
static inline tmem_handle handle_set_taker(tmem_handle h, uint16_t taker)
{
	return (h & ~(0xffffull << 32)) | (uint64_t)taker << 32;
}

#endif /* TMEM_HANDLE_H */
