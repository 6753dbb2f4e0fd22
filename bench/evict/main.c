/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Miss ratios of policies: a table for people, JSON for others.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "evict.h"

#define BY_PAGE(...)                                                           \
	.make = pages_make, .get = pages_get, .put = pages_put,                \
	.end = pages_end, .by_page = { __VA_ARGS__ }
#define BY_SPAN(...)                                                           \
	.make = spans_make, .get = spans_get, .put = spans_put,                \
	.end = spans_end, .copies = spans_copies, .by_span = { __VA_ARGS__ }

static const struct policy policies[] = {
	{ "lru", "each page: least recently used", BY_PAGE(.kind = LRU) },
	{ "sieve", "each page: SIEVE", BY_PAGE(.kind = SIEVE) },
	{ "s3fifo", "each page: S3-FIFO, ghost and all",
	  BY_PAGE(.kind = S3FIFO, .threshold = 2) },
	{ "fifo", "spans: first in, first out", BY_SPAN(.queues = 1) },
	{ "chance",
	  "the same; a span half of which was got stays once more, as it is",
	  BY_SPAN(.queues = 1, .visited = true, .whole = true) },
	{ "clock", "fifo; pages that were got are copied to the newest span",
	  BY_SPAN(.queues = 1, .visited = true) },
	{ "two", "two queues of spans; what was got is copied to the second",
	  BY_SPAN(.queues = 2, .visited = true) },
	{ "fill", "two; until one is evicted the second gets its share",
	  BY_SPAN(.queues = 2, .visited = true, .fill = true) },
	{ "ghost", "fill; keys that went are known, and come to the second",
	  BY_SPAN(.queues = 2, .visited = true, .fill = true, .ghost = true) },
	{ "kept", "ghost; what fills an old span's hole stays once more",
	  BY_SPAN(.queues = 2, .visited = true, .fill = true, .ghost = true,
		  .young = true) },
	{ "store", "kept, by the library itself, whose index comes beside",
	  .make = store_make, .get = store_get, .put = store_put,
	  .end = store_end },
};
#define POLICIES ARRAY_SIZE(policies)

static const unsigned int percents[] = { 1, 10, 50 };

struct arguments {
	bool quick;
	const char *json, *commit, *record;
};

static void run(FILE *json, const struct trace *trace,
		const struct policy *policy, unsigned int percent, bool take)
{
	struct outcome o =
		guest_run(trace, policy, trace->bytes * percent / 100, take);
	double ratio = (double)o.misses / o.gets;

	printf(" %6.3f", ratio);
	fflush(stdout);
	fprintf(json,
		"\n{\"trace\":\"%s\",\"policy\":\"%s\",\"percent\":%u,"
		"\"exclusive\":%s,\"gets\":%llu,\"misses\":%llu,"
		"\"miss_ratio\":%.5f,\"copies_per_put\":%.4f}",
		trace->name, policy->name, percent, take ? "true" : "false",
		(unsigned long long)o.gets, (unsigned long long)o.misses, ratio,
		(double)o.copies / o.puts);
}

static void run_trace(FILE *json, const struct trace *trace)
{
	static bool more;

	for (unsigned int line = 0; line < 2 * ARRAY_SIZE(percents); line++) {
		unsigned int percent = percents[line % ARRAY_SIZE(percents)];
		bool take = line >= ARRAY_SIZE(percents);

		printf("%-8s %4u %%  %-9s", trace->name, percent,
		       take ? "exclusive" : "");
		for (unsigned int p = 0; p < POLICIES; p++) {
			if (more)
				fprintf(json, ",");
			more = true;
			run(json, trace, &policies[p], percent, take);
		}
		printf("\n");
	}
}

static void print_head(void)
{
	printf("Miss ratios of gets.  Sizes of the store: percent of the "
	       "stored "
	       "bytes of all of the trace's pages.\nIn front a guest's page "
	       "cache "
	       "(LRU) of 1 %% of the pages, \"files\" of 10 %%.  The first "
	       "three "
	       "have no spans: bounds.\n\n");
	for (unsigned int p = 0; p < POLICIES; p++)
		printf("  %-7s %s\n", policies[p].name, policies[p].what);
	printf("\n%-26s", "trace   store  gets");
	for (unsigned int p = 0; p < POLICIES; p++)
		printf(" %6s", policies[p].name);
	printf("\n");
}

static void describe(FILE *json, const struct trace *trace, bool first)
{
	fprintf(json,
		"%s\n\"%s\":{\"pages\":%u,\"accesses\":%llu,\"bytes\":%llu,"
		"\"guest_pages\":%u}",
		first ? "" : ",", trace->name, trace->pages,
		(unsigned long long)trace->length,
		(unsigned long long)trace->bytes, trace->guest);
}

static void run_all(const struct arguments *arguments, FILE *json)
{
	uint32_t pages = arguments->quick ? 32768 : 262144;
	uint64_t length = (uint64_t)pages * 12;
	struct trace *traces[] = {
		trace_zipf("zipf-0.8", pages, length, 0.8),
		trace_zipf("zipf-1.0", pages, length, 1.0),
		trace_loop("loop", pages, pages * 4),
		trace_scan("scan", pages, length),
		trace_shift("shift", pages, length),
		arguments->record ? trace_file("files", arguments->record)
				  : NULL,
	};
	unsigned int count = ARRAY_SIZE(traces) - !arguments->record;

	print_head();
	fprintf(json, "{\"quick\":%s,\"commit\":\"%s\",\"traces\":{",
		arguments->quick ? "true" : "false", arguments->commit);
	for (unsigned int i = 0; i < count; i++)
		describe(json, traces[i], !i);
	fprintf(json, "},\n\"runs\":[");
	for (unsigned int i = 0; i < count; i++) {
		run_trace(json, traces[i]);
		trace_free(traces[i]);
	}
	fprintf(json, "]}\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "json", required_argument, NULL, 'j' },
		{ "commit", required_argument, NULL, 'c' },
		{ "record", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	struct arguments arguments = { .json = "/dev/null", .commit = "" };
	FILE *json;
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 'q')
			arguments.quick = true;
		else if (option == 'j')
			arguments.json = optarg;
		else if (option == 'c')
			arguments.commit = optarg;
		else if (option == 'r')
			arguments.record = optarg;
		else
			return 2;
	}
	json = fopen(arguments.json, "w");
	if (!json)
		die("cannot write %s", arguments.json);
	run_all(&arguments, json);
	if (fclose(json))
		die("cannot write %s", arguments.json);
	return 0;
}
