/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-store: options, and rounds within a time
 */
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench-store.h"

/* The whole run takes 2 minutes at most, a quick one 20 seconds. */
static const struct plan {
	uint32_t anon, libs; /* pages; 64 MiB at least */
	unsigned int rounds, min_rounds;
	double seconds; /* no round begins after this share of the run */
} plans[] = {
	{ 32768, 24576, 9, 3, 90 },
	{ 16384, 16384, 3, 1, 12 },
};

/*
 * All of one corpus, or one row of it; the clock must not pass @deadline by
 * more than a round.
 */
static void measure(struct result *result, const struct plan *plan,
		    const char *only, double deadline)
{
	struct corpus *corpus = result->corpus;
	struct bench *bench;
	unsigned int round;
	double said = 0;

	if (!only) {
		density_measure(corpus, corpus->pages, &result->whole);
		density_measure(corpus, 8 * MIB / PAGE, &result->small);
	}
	/* What malloc() kept of that must not look like memory of the next. */
	malloc_trim(0);
	bench = bench_create(corpus);
	result->mean_length = bench_mean_length(bench);
	result->raw_share = bench_raw_share(bench);
	for (round = 0; round < plan->rounds; round++) {
		if (round >= plan->min_rounds && now_s() > deadline)
			break;
		for (unsigned int i = 0; i < ROWS; i++) {
			if (only && strcmp(only, row_key(i)))
				continue;
			if (now_s() - said > 4) {
				progress("corpus '%s': round %u of %u, %s",
					 corpus->name, round + 1, plan->rounds,
					 row_key(i));
				said = now_s();
			}
			result->measured[i] = bench_row(
				bench, i, round, &result->sample[i][round]);
		}
	}
	result->rounds = round;
	drop_noise(result);
	bench_verify(bench);
	bench_destroy(bench);
	malloc_trim(0);
}

static void usage(void)
{
	fprintf(stderr, "usage: bench-store --script PROCESSES.PY [--quick] "
			"[--json FILE] [--commit TEXT]\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "json", required_argument, NULL, 'j' },
		{ "row", required_argument, NULL, 'r' },
		{ "script", required_argument, NULL, 's' },
		{ "commit", required_argument, NULL, 'c' },
		{ 0 },
	};
	struct run_facts facts = { .commit = "unknown" };
	static struct result results[2];
	struct corpus corpora[2] = { 0 };
	const char *json = NULL, *script = NULL, *only = NULL;
	const struct plan *plan;
	double start = now_s();
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'q')
			facts.quick = true;
		else if (option == 'j')
			json = optarg;
		else if (option == 'r')
			only = optarg;
		else if (option == 's')
			script = optarg;
		else if (option == 'c')
			facts.commit = optarg;
		else
			usage();
	}
	if (optind != argc || !script)
		usage();
	plan = &plans[facts.quick];
	for (unsigned int i = 0; i < 2; i++) {
		if (i)
			corpus_libraries(&corpora[i], plan->libs);
		else
			corpus_processes(&corpora[i], script, plan->anon);
		results[i].corpus = &corpora[i];
		measure(&results[i], plan, only,
			start + plan->seconds * (i + 1) / 2);
		corpus_free(&corpora[i]);
	}
	facts.seconds = now_s() - start;
	print_table(&facts, results, 2);
	if (json)
		write_json(json, &facts, results, 2);
	return 0;
}
