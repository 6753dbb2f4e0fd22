/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which pages, in what order.  The same numbers every run.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evict.h"

void *zeroed(size_t bytes)
{
	void *ptr = calloc(1, bytes);

	if (!ptr)
		die("no memory for %zu bytes", bytes);
	return ptr;
}

/*
 * Stored bytes of 5 % of the pages each, smallest first: of file pages, text
 * and programs, by LZ4; one in ten does not compress.
 */
static const uint16_t quantile[] = { 60,   260,	 560,  840,  1090, 1290, 1460,
				     1620, 1770, 1920, 2070, 2230, 2400, 2580,
				     2770, 2980, 3230, 3550, 4096, 4096, 4096 };

static uint16_t size_of_page(uint32_t page)
{
	uint64_t seed = page * 0x9e3779b97f4a7c15ull + 1, random;
	unsigned int part;

	next_random(&seed);
	random = next_random(&seed);
	part = random % 20;
	return quantile[part] +
	       (random >> 8) % (quantile[part + 1] - quantile[part] + 1);
}

static struct trace *trace_new(const char *name, uint32_t pages,
			       uint64_t length)
{
	struct trace *trace = zeroed(sizeof(*trace));

	trace->name = name;
	trace->pages = pages;
	trace->length = length;
	trace->guest = pages / 100;
	trace->access = zeroed(length * sizeof(trace->access[0]));
	trace->size = zeroed(pages * sizeof(trace->size[0]));
	for (uint32_t page = 0; page < pages; page++)
		trace->bytes += trace->size[page] = size_of_page(page);
	return trace;
}

void trace_free(struct trace *trace)
{
	free(trace->access);
	free(trace->size);
	free(trace);
}

/* The probability of a rank is in proportion to rank ^ -alpha. */
struct zipf {
	double *sum;
	uint32_t *page; /* ranks are strewn over the pages */
	uint32_t pages;
	uint64_t seed;
};

static void zipf_init(struct zipf *zipf, uint32_t pages, double alpha)
{
	double sum = 0;

	zipf->sum = zeroed(pages * sizeof(double));
	zipf->page = zeroed(pages * sizeof(uint32_t));
	zipf->pages = pages;
	zipf->seed = 1;
	for (uint32_t i = 0; i < pages; i++) {
		uint32_t other = next_random(&zipf->seed) % (i + 1);

		zipf->sum[i] = sum += pow(i + 1, -alpha);
		zipf->page[i] = zipf->page[other];
		zipf->page[other] = i;
	}
}

static uint32_t zipf_next(struct zipf *zipf)
{
	double want = (next_random(&zipf->seed) >> 4) * 0x1p-44 *
		      zipf->sum[zipf->pages - 1];
	uint32_t low = 0, high = zipf->pages - 1;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (zipf->sum[middle] < want)
			low = middle + 1;
		else
			high = middle;
	}
	return zipf->page[low];
}

static void zipf_free(struct zipf *zipf)
{
	free(zipf->sum);
	free(zipf->page);
}

struct trace *trace_zipf(const char *name, uint32_t pages, uint64_t length,
			 double alpha)
{
	struct trace *trace = trace_new(name, pages, length);
	struct zipf zipf;

	trace->warm = length / 4;
	zipf_init(&zipf, pages, alpha);
	for (uint64_t i = 0; i < length; i++)
		trace->access[i] = zipf_next(&zipf);
	zipf_free(&zipf);
	return trace;
}

struct trace *trace_loop(const char *name, uint32_t pages, uint64_t length)
{
	struct trace *trace = trace_new(name, pages, length);

	trace->warm = pages;
	for (uint64_t i = 0; i < length; i++)
		trace->access[i] = i % pages;
	return trace;
}

/*
 * A quarter of the pages is used by zipf; after every two accesses to them in
 * the mean comes one to a page of the rest, in bursts of an eighth of the
 * former.
 */
struct trace *trace_scan(const char *name, uint32_t pages, uint64_t length)
{
	uint32_t hot = pages / 4, burst = hot / 8, cold = hot;
	struct trace *trace;
	struct zipf zipf;
	uint64_t at = 0;

	length = MIN(length, (uint64_t)(pages - hot) / burst * burst * 3);
	trace = trace_new(name, pages, length);
	trace->warm = length / 4;
	zipf_init(&zipf, hot, 1.0);
	while (at + 3 * burst <= length) {
		for (uint32_t i = 0; i < 2 * burst; i++)
			trace->access[at++] = zipf_next(&zipf);
		for (uint32_t i = 0; i < burst; i++)
			trace->access[at++] = cold++;
	}
	trace->length = at;
	zipf_free(&zipf);
	return trace;
}

struct trace *trace_shift(const char *name, uint32_t pages, uint64_t length)
{
	struct trace *trace = trace_new(name, pages, length);
	uint32_t half = pages / 2;
	struct zipf zipf;

	trace->warm = length / 4;
	zipf_init(&zipf, half, 0.8);
	for (uint64_t i = 0; i < length; i++)
		trace->access[i] =
			zipf_next(&zipf) + (i < length / 2 ? 0 : half);
	zipf_free(&zipf);
	return trace;
}

struct trace *trace_file(const char *name, const char *path)
{
	FILE *file = fopen(path, "rb");
	uint32_t head[2];
	struct trace *trace;

	if (!file)
		die("%s: %s", path, strerror(errno));
	if (fread(head, sizeof(head), 1, file) != 1)
		die("%s: no trace", path);
	trace = trace_new(name, head[0], head[1]);
	trace->guest = head[0] / 10;
	if (fread(trace->access, sizeof(uint32_t), head[1], file) != head[1])
		die("%s: ends too early", path);
	for (uint64_t i = 0; i < trace->length; i++)
		if (trace->access[i] >= trace->pages)
			die("%s: a page that it does not have", path);
	fclose(file);
	return trace;
}
