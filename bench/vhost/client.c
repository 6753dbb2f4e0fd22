/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bench-vhost-client: options and rounds
 *
 * In a round each row is done by each target before the next row's turn, in an
 * order that changes, so that what else the machine does meets all of them.
 */
#include <errno.h>
#include <getopt.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench-vhost.h"

#define MAX_TARGETS 16u
#define MAX_OPS	    8192u
/* Longer than a back end polls, steps its store, or finishes what is behind. */
#define SETTLE_US 40000

static const struct row rows[] = {
	{ "put_1_depth_1", PUT, 1, 1, false, 1024 },
	{ "get_1_depth_1", GET, 1, 1, false, 1024 },
	{ "put_16_depth_1", PUT, 16, 1, false, 512 },
	{ "get_16_depth_1", GET, 16, 1, false, 512 },
	{ "put_1_polled", PUT, 1, 1, true, 2048 },
	{ "get_1_polled", GET, 1, 1, true, 2048 },
	{ "put_16_polled", PUT, 16, 1, true, 1024 },
	{ "get_16_polled", GET, 16, 1, true, 1024 },
	{ "put_1_depth_32", PUT, 1, 32, false, 8192 },
	{ "get_1_depth_32", GET, 1, 32, false, 8192 },
	{ "put_16_depth_32", PUT, 16, 32, false, 1024 },
	{ "get_16_depth_32", GET, 16, 32, false, 1024 },
};
static const struct row fill = { "fill", PUT, 16, 32, false, 0 };
static const struct row read_back = { "verify", GET, 16, 32, false, 0 };

static struct target *targets[MAX_TARGETS];
static unsigned int num_targets;
static uint64_t random_state = 1;

static double latency[MAX_OPS];
static uint32_t latencies;

void note_latency(double us)
{
	if (latencies < MAX_OPS)
		latency[latencies++] = us;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void run(struct target *target, const struct work *work,
		struct sample *sample)
{
	latencies = 0;
	target->run(target, work, sample);
	qsort(latency, latencies, sizeof(latency[0]), compare);
	if (latencies) {
		sample->p50 = latency[latencies / 2];
		sample->p99 = latency[latencies * 99ull / 100];
	}
}

/* All pages, in order: put, or got and compared. */
static void run_all(struct target *target, const struct corpus *corpus,
		    const struct row *row, bool check)
{
	uint32_t runs = corpus->pages / row->run;
	uint32_t *key = malloc(runs * sizeof(*key));
	struct sample sample;
	struct work work = { row, runs, key, target->holds, check };

	if (!key)
		die("no memory for %u keys", runs);
	for (uint32_t i = 0; i < runs; i++)
		key[i] = i * row->run;
	run(target, &work, &sample);
	free(key);
}

static void add_target(struct target *target, const struct corpus *corpus)
{
	if (num_targets == MAX_TARGETS)
		die("%s: at most %u targets", target->name, MAX_TARGETS);
	targets[num_targets++] = target;
	target->holds = malloc(corpus->pages * sizeof(*target->holds));
	if (!target->holds)
		die("no memory for %u keys", corpus->pages);
	for (uint32_t i = 0; i < corpus->pages; i++)
		target->holds[i] = i;
	progress("%s: filling", target->name);
	run_all(target, corpus, &fill, false);
}

/* NAME=KIND:PATH */
static void parse_target(char *text, const struct corpus *corpus)
{
	char *kind = strchr(text, '='), *path = strchr(text, ':');

	if (!kind || !path || path < kind)
		die("target '%s': must be NAME=KIND:SOCKET", text);
	*kind++ = *path++ = 0;
	if (!strcmp(kind, "tmem"))
		add_target(target_tmem(text, path, corpus), corpus);
	else if (!strcmp(kind, "blk"))
		add_target(target_blk(text, path, corpus, false), corpus);
	else if (!strcmp(kind, "sink"))
		add_target(target_blk(text, path, corpus, true), corpus);
	else
		die("target '%s': kind '%s' must be tmem, blk or sink", text,
		    kind);
}

static void shuffle_targets(void)
{
	for (unsigned int i = num_targets; i > 1; i--) {
		unsigned int j = next_random(&random_state) % i;
		struct target *target = targets[i - 1];

		targets[i - 1] = targets[j];
		targets[j] = target;
	}
}

/*
 * @num different ones of @runs runs: a block device may do requests that are in
 * flight in any order, and the last put of a page must be known.
 */
static void draw_keys(uint32_t *key, uint32_t num, uint32_t runs, uint32_t run)
{
	uint32_t *all = malloc(runs * sizeof(*all));

	if (!all)
		die("no memory for %u keys", runs);
	for (uint32_t i = 0; i < runs; i++)
		all[i] = i * run;
	for (uint32_t i = 0; i < num; i++) {
		uint32_t j = i + next_random(&random_state) % (runs - i);

		key[i] = all[j];
		all[j] = all[i];
	}
	free(all);
}

/* The same requests for all targets. */
static void measure_row(const struct row *row, const struct corpus *corpus,
			unsigned int round, uint32_t ops)
{
	static uint32_t key[MAX_OPS], source[MAX_OPS * MAX_RUN];

	shuffle_targets();
	draw_keys(key, ops, corpus->pages / row->run, row->run);
	for (uint32_t i = 0; i < ops * row->run; i++)
		source[i] = next_random(&random_state) % corpus->pages;
	for (unsigned int i = 0; i < num_targets; i++) {
		struct target *target = targets[i];
		struct work work = { row, ops, key, source, false };
		struct sample sample = { 0 };

		if (target->local && (row->depth > 1 || !row->spin))
			continue;
		usleep(SETTLE_US);
		run(target, &work, &sample);
		printf("sample %s %s %u %.4f %.3f %.3f %.4f %.4f\n",
		       target->name, row->name, round, sample.us_page,
		       sample.p50, sample.p99, sample.kicks, sample.calls);
		for (uint32_t j = 0; row->verb == PUT && j < ops; j++)
			memcpy(&target->holds[key[j]], &source[j * row->run],
			       row->run * sizeof(*source));
	}
}

static uint32_t ops_of(const struct row *row, const struct corpus *corpus,
		       unsigned int divide)
{
	uint32_t ops = row->ops / divide, runs = corpus->pages / row->run;

	return ops < runs ? ops : runs;
}

static void usage(void)
{
	fprintf(stderr,
		"usage: bench-vhost-client --script PROCESSES.PY [--pages N] "
		"[--rounds N] [--divide N] NAME=KIND:SOCKET...\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "script", required_argument, NULL, 's' },
		{ "pages", required_argument, NULL, 'p' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "divide", required_argument, NULL, 'd' },
		{ 0 },
	};
	unsigned int rounds = 11, divide = 1;
	const char *script = NULL;
	uint32_t pages = 32768;
	struct corpus corpus = { 0 };
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 's')
			script = optarg;
		else if (option == 'p')
			pages = strtoul(optarg, NULL, 10) / MAX_RUN * MAX_RUN;
		else if (option == 'r')
			rounds = strtoul(optarg, NULL, 10);
		else if (option == 'd')
			divide = strtoul(optarg, NULL, 10);
		else
			usage();
	}
	if (!script || !pages || !rounds || !divide)
		usage();
	corpus_processes(&corpus, script, pages);
	corpus.pages = corpus.pages / MAX_RUN * MAX_RUN;
	add_target(target_lz4(&corpus), &corpus);
	add_target(target_library(&corpus), &corpus);
	add_target(target_server(&corpus), &corpus);
	for (; optind < argc; optind++)
		parse_target(argv[optind], &corpus);
	printf("corpus %u %s\nlz4 %s\n", corpus.pages, corpus.what,
	       LZ4_versionString());
	for (unsigned int round = 0; round < rounds; round++) {
		progress("round %u of %u", round + 1, rounds);
		for (unsigned int i = 0; i < ARRAY_SIZE(rows); i++)
			measure_row(&rows[i], &corpus, round,
				    ops_of(&rows[i], &corpus, divide));
	}
	for (unsigned int i = 0; i < num_targets; i++) {
		if (!targets[i]->discards)
			run_all(targets[i], &corpus, &read_back, true);
		free(targets[i]->holds);
		targets[i]->destroy(targets[i]);
	}
	progress("every page of every target read back and compared");
	corpus_free(&corpus);
	return 0;
}
