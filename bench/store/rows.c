/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Puts and gets of one thread over bare LZ4's, and the checksum's share of them
 */
#include <isa-l/crc.h>
#include <stdlib.h>
#include <string.h>

#include "sides.h"

bool bench_row(struct bench *bench, enum row_id id, unsigned int round,
	       struct sample *sample)
{
	static const struct row {
		unsigned int run, threads;
		bool put, grow, own, hot;
	} rows[ROWS] = {
		[PUT_OVERWRITE_1] = { 1, 1, true, false, false },
		[PUT_OVERWRITE_16] = { 16, 1, true, false, false },
		[PUT_GROW_1] = { 1, 1, true, true, false },
		[PUT_GROW_16] = { 16, 1, true, true, false },
		[GET_RANDOM_1] = { 1, 1, false, false, false },
		[GET_RANDOM_16] = { 16, 1, false, false, false },
		[PUT_HOT_1] = { 1, 1, true, .hot = true },
		[PUT_HOT_16] = { 16, 1, true, .hot = true },
		[GET_HOT_1] = { 1, 1, false, .hot = true },
		[GET_HOT_16] = { 16, 1, false, .hot = true },
		[PUT_2_THREADS] = { 16, 2, true, false, false },
		[GET_2_THREADS] = { 16, 2, false, false, false },
		[PUT_2_THREADS_OWN] = { 16, 2, true, false, true },
		[GET_2_THREADS_OWN] = { 16, 2, false, false, true },
	};
	const struct row *row = &rows[id];

	bench->tenant = bench->full;
	bench->background = (struct spent){ 0 };
	if (row->threads > 1)
		return threads_row(bench, row->put, row->own, round, sample);
	if (row->grow)
		bench->tenant = tenant_open(bench->store, "growing",
					    bench->pages, TMEM_POOL_PERSISTENT);
	if (row->hot)
		order_keys_hot(bench, row->run, row->put);
	else
		order_keys(bench, row->run, !row->grow);
	bench->hot = row->hot;
	if (row->put && !row->hot)
		order_sources(bench);
	else
		find_sources(bench);
	take_turns(bench, row->put ? tmem_put : tmem_get,
		   row->put ? lz4_put : lz4_get, round, sample);
	bench->hot = false;
	if (row->grow)
		tmem_tenant_drop(bench->tenant);
	else if (row->put)
		note_held(bench, 0, bench->pages);
	return true;
}

bool row_of_threads(enum row_id row)
{
	return row >= PUT_2_THREADS;
}

/* ---------------------------------------------------------------- checksum */

/* Chunks at a time: 32 KiB at most, so that they stay where a put has just
 * made them and a get has just copied them, in the innermost cache. */
#define BATCH 8u

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Stands for all that follows from the checksums: none is left out. */
static volatile uint32_t checksums;

/*
 * The checksums of @count chunks, seconds.  As the store does it: the object
 * once an op, then the index, then the bytes.
 */
static double checksum_batch(char *const *chunk, const uint32_t *length,
			     uint32_t index, unsigned int run)
{
	unsigned char object[TMEM_OBJECT_SIZE] = { 0 };
	uint32_t seed = 0, all = 0;
	double start = now_s();

	for (uint32_t i = 0; i < BATCH; i++) {
		uint64_t at = index + i;
		uint32_t crc;

		if (at % run == 0)
			seed = crc32_iscsi(object, sizeof(object), i);
		crc = crc32_iscsi((unsigned char *)&at, sizeof(at), seed);
		all ^= crc32_iscsi((unsigned char *)chunk[i], length[i], crc);
	}
	checksums = all;
	return now_s() - start;
}

/* Microseconds of one page's checksum: the median batch, which nobody
 * interrupted. */
static double checksum_us(struct bench *bench, unsigned int run)
{
	uint32_t batches = bench->pages / BATCH, length[BATCH];
	double *took = calloc(batches, sizeof(*took));
	char *copy[BATCH];
	double median;

	if (!took)
		die("no memory");
	for (uint32_t i = 0; i < batches; i++) {
		for (uint32_t j = 0; j < BATCH; j++) {
			const struct chunk *chunk =
				&bench->visit[i * BATCH + j];

			copy[j] = bench->worker[0].ring + j * PAGE;
			length[j] = chunk->length;
			memcpy(copy[j], chunk->data, chunk->length);
		}
		took[i] = checksum_batch(copy, length, i * BATCH, run);
	}
	qsort(took, batches, sizeof(*took), compare);
	median = took[batches / 2];
	free(took);
	return median / BATCH * 1e6;
}

void checksum_run(struct bench *bench, const char *corpus, double single_us,
		  double run_us)
{
	bool anon = !strcmp(corpus, "anon");
	double single, run;

	order_keys(bench, 1, true);
	find_sources(bench);
	single = checksum_us(bench, 1);
	run = checksum_us(bench, 16);
	figure_note("checksum", anon ? "anon_ns" : "libs_ns",
		    anon ? "anon: a page" : "libs: a page", "ns",
		    single * 1000);
	figure_note("checksum", anon ? "anon_share" : "libs_share",
		    anon ? "anon: share of put + get, single pages"
			 : "libs: share of put + get, single pages",
		    "", 2 * single / single_us);
	figure_note("checksum", anon ? "anon_share_16" : "libs_share_16",
		    anon ? "anon: share of put + get, runs of 16"
			 : "libs: share of put + get, runs of 16",
		    "", 2 * run / run_us);
}
