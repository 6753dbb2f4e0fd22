/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-store: options, what runs when, and rounds within a time
 */
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench-store.h"

/* Alone, the whole run takes 8 minutes at most, a quick one 50 seconds. */
static const struct plan {
	uint32_t anon, libs; /* pages; 64 MiB at least */
	unsigned int rounds, min_rounds;
	double seconds; /* no round of a corpus begins later than that */
	unsigned int latency_rounds, zram_rounds;
} plans[] = {
	{ 32768, 24576, 9, 3, 65, 9, 3 },
	{ 16384, 16384, 3, 1, 4, 1, 1 },
};

/* What can be asked for alone, beside a row. */
static const char *const groups[] = { "threads",    "checksum", "density",
				      "tenants",    "mallocs",	"freed",
				      "recompress", "latency",	"pages",
				      "zram",	    "index" };

struct run {
	const struct plan *plan;
	bool quick;
	const char *only;
	/* Where zram is: a program that runs a guest, or why it is nowhere; NULL
	 * and NULL: here. */
	const char *guest, *no_zram;
};

static bool wanted(const struct run *run, const char *group)
{
	return !run->only || !strcmp(run->only, group);
}

static bool wanted_row(const struct run *run, enum row_id row)
{
	if (wanted(run, row_key(row)))
		return true;
	if (!strcmp(run->only, "threads"))
		return row_of_threads(row);
	/* Its share is of these. */
	return !strcmp(run->only, "checksum") &&
	       (row == PUT_OVERWRITE_1 || row == PUT_OVERWRITE_16 ||
		row == GET_RANDOM_1 || row == GET_RANDOM_16);
}

static bool wanted_rows(const struct run *run)
{
	for (unsigned int i = 0; i < ROWS; i++)
		if (wanted_row(run, i))
			return true;
	return false;
}

static void round_run(const struct run *run, struct bench *bench,
		      struct result *result, unsigned int round)
{
	static double said;

	for (unsigned int i = 0; i < ROWS; i++) {
		if (!wanted_row(run, i))
			continue;
		if (now_s() - said > 4) {
			progress("corpus '%s': round %u of %u, %s",
				 result->corpus->name, round + 1,
				 run->plan->rounds, row_key(i));
			said = now_s();
		}
		result->measured[i] =
			bench_row(bench, i, round, &result->sample[i][round]);
	}
	if (wanted(run, "checksum"))
		checksum_run(
			bench, result->corpus->name,
			result->sample[PUT_OVERWRITE_1][round].tmem_us +
				result->sample[GET_RANDOM_1][round].tmem_us,
			result->sample[PUT_OVERWRITE_16][round].tmem_us +
				result->sample[GET_RANDOM_16][round].tmem_us);
}

static void rounds_run(const struct run *run, struct bench *bench,
		       struct result *result)
{
	double start = now_s();
	unsigned int round;

	for (round = 0; round < run->plan->rounds; round++) {
		if (round >= run->plan->min_rounds &&
		    now_s() - start > run->plan->seconds)
			break;
		round_run(run, bench, result, round);
	}
	result->rounds = round;
}

static void zram_wanted(const struct run *run, struct bench *bench,
			const struct corpus *corpus)
{
	if (run->no_zram)
		group_missing("zram", run->no_zram);
	else if (run->guest)
		guest_run(run->guest, corpus, run->quick);
	else
		zram_run(bench, run->plan->zram_rounds);
}

/* What needs both sides to be there. */
static void sides_run(const struct run *run, struct result *result, bool anon)
{
	struct bench *bench;

	/* What malloc() kept must not look like memory of the next. */
	malloc_trim(0);
	bench = bench_create(result->corpus);
	result->mean_length = bench_mean_length(bench);
	result->raw_share = bench_raw_share(bench);
	if (wanted_rows(run))
		rounds_run(run, bench, result);
	if (anon && wanted(run, "latency")) {
		progress("latency at a fixed rate");
		for (unsigned int i = 0; i < run->plan->latency_rounds; i++)
			latency_run(bench, i);
	}
	bench_verify(bench);
	if (anon && wanted(run, "zram"))
		zram_wanted(run, bench, result->corpus);
	bench_destroy(bench);
	malloc_trim(0);
}

static void corpus_run(const struct run *run, struct result *result, bool anon)
{
	struct corpus *corpus = result->corpus;

	if (wanted(run, "density"))
		density_run(corpus, run->quick, result->density);
	if (anon && wanted(run, "tenants"))
		tenants_run(corpus);
	if (anon && wanted(run, "mallocs"))
		mallocs_run(corpus);
	if (anon && wanted(run, "freed"))
		freed_run(corpus, run->quick);
	if (anon && wanted(run, "recompress"))
		recompress_run(corpus);
	sides_run(run, result, anon);
	if (anon && wanted(run, "pages"))
		pages_run(corpus, result->mean_length, run->quick);
}

/* Of which corpora something is wanted. */
static bool wanted_corpus(const struct run *run, bool anon)
{
	static const char *const both[] = { "density", "checksum" };

	if (run->only && !strcmp(run->only, "index"))
		return false;
	if (anon || wanted_rows(run))
		return true;
	for (unsigned int i = 0; i < ARRAY_SIZE(both); i++)
		if (wanted(run, both[i]))
			return true;
	return false;
}

/* ----------------------------------------------------------------- options */

static void usage(void)
{
	fprintf(stderr, "usage: bench-store --script PROCESSES.PY [--quick] "
			"[--row NAME] [--json FILE] [--commit TEXT]\n"
			"                   [--zram-guest GUEST.PY | "
			"--no-zram WHY]\n"
			"       bench-store --zram-missing\n"
			"       bench-store --zram-pages FILE [--quick]\n");
	exit(2);
}

/* For scripts/bench-store: whether there is zram here, and if not, why. */
static int say_missing(void)
{
	const char *why = zram_missing();

	if (why)
		printf("%s\n", why);
	return why != NULL;
}

static void check_row(const char *only)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(groups); i++)
		if (!strcmp(only, groups[i]))
			return;
	for (unsigned int i = 0; i < ROWS; i++)
		if (!strcmp(only, row_key(i)))
			return;
	fprintf(stderr, "bench-store: --row %s: there are", only);
	for (unsigned int i = 0; i < ARRAY_SIZE(groups); i++)
		fprintf(stderr, " %s", groups[i]);
	for (unsigned int i = 0; i < ROWS; i++)
		fprintf(stderr, " %s", row_key(i));
	fprintf(stderr, "\n");
	exit(1);
}

struct options {
	struct run run;
	struct run_facts facts;
	const char *json, *script;
	const char *pages; /* in a guest: the file that has them */
	bool missing;	   /* asks whether zram is */
};

static void parse(int argc, char **argv, struct options *options)
{
	static const struct option names[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "zram-missing", no_argument, NULL, 'm' },
		{ "json", required_argument, NULL, 'j' },
		{ "row", required_argument, NULL, 'r' },
		{ "script", required_argument, NULL, 's' },
		{ "commit", required_argument, NULL, 'c' },
		{ "zram-guest", required_argument, NULL, 'g' },
		{ "no-zram", required_argument, NULL, 'n' },
		{ "zram-pages", required_argument, NULL, 'p' },
		{ 0 },
	};
	const char **texts[] = {
		['j'] = &options->json,	     ['r'] = &options->run.only,
		['s'] = &options->script,    ['c'] = &options->facts.commit,
		['g'] = &options->run.guest, ['n'] = &options->run.no_zram,
		['p'] = &options->pages,
	};
	int option;

	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (option == 'q')
			options->run.quick = true;
		else if (option == 'm')
			options->missing = true;
		else if (option == '?')
			usage();
		else
			*texts[option] = optarg;
	}
	if (optind != argc ||
	    (!options->script && !options->pages && !options->missing))
		usage();
	if (options->run.only)
		check_row(options->run.only);
	options->facts.quick = options->run.quick;
	options->run.plan = &plans[options->run.quick];
}

int main(int argc, char **argv)
{
	struct options options = { .facts = { .commit = "unknown" } };
	static struct result results[2];
	struct corpus corpora[2] = { 0 };
	const struct run *run = &options.run;
	double start = now_s();

	parse(argc, argv, &options);
	if (options.missing)
		return say_missing();
	if (options.pages) {
		guest_inside(options.pages, run->plan->zram_rounds);
		return 0;
	}
	for (unsigned int i = 0; i < 2; i++) {
		if (!wanted_corpus(run, !i))
			continue;
		if (i)
			corpus_libraries(&corpora[i], run->plan->libs);
		else
			corpus_processes(&corpora[i], options.script,
					 run->plan->anon);
		results[i].corpus = &corpora[i];
		corpus_run(run, &results[i], !i);
		corpus_free(&corpora[i]);
	}
	if (wanted(run, "index"))
		index_run(run->quick);
	options.facts.seconds = now_s() - start;
	print_table(&options.facts, results, 2);
	if (options.json)
		write_json(options.json, &options.facts, results, 2);
	return 0;
}
