/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was measured, as a table for people
 */
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench-store.h"

static const struct {
	const char *key;  /* in the JSON file */
	const char *what; /* in the table */
} rows[ROWS] = {
	[PUT_OVERWRITE_1] = { "put_overwrite_1",
			      "put, random overwrite, single pages" },
	[PUT_OVERWRITE_16] = { "put_overwrite_16",
			       "put, random overwrite, runs of 16" },
	[PUT_GROW_1] = { "put_grow_1", "put while growing, single pages" },
	[PUT_GROW_16] = { "put_grow_16", "put while growing, runs of 16" },
	[GET_RANDOM_1] = { "get_random_1", "get, random, cold, single pages" },
	[GET_RANDOM_16] = { "get_random_16", "get, random, cold, runs of 16" },
	[PUT_HOT_1] = { "put_hot_1", "put, overwrite, hot, single pages" },
	[PUT_HOT_16] = { "put_hot_16", "put, overwrite, hot, runs of 16" },
	[GET_HOT_1] = { "get_hot_1", "get, random, hot, single pages" },
	[GET_HOT_16] = { "get_hot_16", "get, random, hot, runs of 16" },
	[PUT_2_THREADS] = { "put_2_threads",
			    "put by 2 threads, runs of 16, one object" },
	[GET_2_THREADS] = { "get_2_threads",
			    "get by 2 threads, runs of 16, one object" },
	[PUT_2_THREADS_OWN] = { "put_2_threads_own",
				"put by 2 threads, each its own object" },
	[GET_2_THREADS_OWN] = { "get_2_threads_own",
				"get by 2 threads, each its own object" },
};

const char *row_key(enum row_id row)
{
	return rows[row].key;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

struct quartiles quartiles(double *values, unsigned int count)
{
	struct quartiles q;
	double *const part[] = { &q.q1, &q.median, &q.q3 };

	qsort(values, count, sizeof(*values), compare);
	for (unsigned int i = 0; i < 3; i++) {
		double at = (count - 1) * (i + 1) / 4.0;
		unsigned int low = at;
		unsigned int high = low + 1 < count ? low + 1 : low;

		*part[i] =
			values[low] + (values[high] - values[low]) * (at - low);
	}
	return q;
}

/*
 * Where LZ4, which shares nothing, gains less than that by a second thread it
 * had no two CPUs for itself; where it gains more, one thread had less than
 * one.
 */
#define SPEEDUP_MIN 1.6
#define SPEEDUP_MAX 2.2
/* Fewer rounds than that say nothing, unless there are fewer. */
#define USABLE_MIN 3u

static bool usable(const struct sample *sample, enum row_id id)
{
	return !row_of_threads(id) || (sample->lz4_speedup >= SPEEDUP_MIN &&
				       sample->lz4_speedup <= SPEEDUP_MAX);
}

unsigned int usable_rounds(const struct result *result, enum row_id id)
{
	unsigned int needed =
		result->rounds < USABLE_MIN ? result->rounds : USABLE_MIN;
	unsigned int count = 0;

	if (!result->measured[id])
		return 0;
	for (unsigned int i = 0; i < result->rounds; i++)
		count += usable(&result->sample[id][i], id);
	return count < needed ? 0 : count;
}

struct quartiles of_rounds(const struct result *result, enum row_id id,
			   size_t offset)
{
	bool all = !usable_rounds(result, id);
	double values[MAX_ROUNDS];
	unsigned int count = 0;

	for (unsigned int i = 0; i < result->rounds; i++) {
		const struct sample *sample = &result->sample[id][i];

		if (all || usable(sample, id))
			memcpy(&values[count++], (const char *)sample + offset,
			       sizeof(*values));
	}
	return quartiles(values, count);
}

void proc_value(const char *path, const char *key, char *value, size_t size)
{
	FILE *file = fopen(path, "r");
	char line[512];

	snprintf(value, size, "unknown");
	while (file && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (!colon || strncmp(line, key, strlen(key)))
			continue;
		colon += 1 + strspn(colon + 1, " \t");
		colon[strcspn(colon, "\n")] = 0;
		snprintf(value, size, "%s", colon);
		break;
	}
	if (file)
		fclose(file);
}

/* ------------------------------------------------------------------ corpora */

static void print_held(const char *what, const struct held *held)
{
	printf("    %-20s %6.3f %6.3f (%+.1f %%)  less 1 MiB %6.3f %6.3f\n",
	       what, held->library, held->kernel,
	       100 * (held->library / held->kernel - 1), held->library_less,
	       held->kernel_less);
}

static void print_density(const struct density *density)
{
	if (!density->pages)
		return;
	printf("  held / compressed, %.0f MiB of pages, library and kernel",
	       density->pages * (PAGE / MIB));
	if (density->made)
		printf(" (%.0f MiB of them joined of two pages each)",
		       density->made * (PAGE / MIB));
	printf("\n");
	print_held("after fill", &density->full);
	print_held("while overwritten", &density->busy);
	print_held("after 3N overwrites", &density->churned);
}

static void print_row(const struct result *result, enum row_id id)
{
	struct quartiles ratio;

	if (!usable_rounds(result, id)) {
		printf("  %-42s not measured", rows[id].what);
		if (result->measured[id])
			printf(": a second thread brought bare LZ4 %.2f x, not "
			       "%.1f to %.1f",
			       OF_ROUNDS(result, id, lz4_speedup).median,
			       SPEEDUP_MIN, SPEEDUP_MAX);
		else if (row_of_threads(id) &&
			 sysconf(_SC_NPROCESSORS_ONLN) < 2)
			printf(": needs two CPUs");
		printf("\n");
		return;
	}
	ratio = OF_ROUNDS(result, id, ratio);
	printf("  %-42s %5.3f (%5.3f-%5.3f) %6.2f us %5.2f us %9.1f %%",
	       rows[id].what, ratio.median, ratio.q1, ratio.q3,
	       OF_ROUNDS(result, id, tmem_us).median,
	       OF_ROUNDS(result, id, lz4_us).median,
	       100 * OF_ROUNDS(result, id, background).median);
	if (row_of_threads(id))
		printf("  * (%u of %u rounds)", usable_rounds(result, id),
		       result->rounds);
	printf("\n");
}

static void print_result(const struct result *result)
{
	const struct corpus *corpus = result->corpus;

	printf("\n%s: %s\n", corpus->name, corpus->what);
	printf("  %u pages, %.0f MiB (%ju read, %ju same-filled and %ju "
	       "duplicates left out); LZ4 makes %.0f bytes of a page, %.1f %% "
	       "stored as they are\n",
	       corpus->pages, corpus->pages * (PAGE / MIB),
	       (uintmax_t)corpus->seen, (uintmax_t)corpus->same_filled,
	       (uintmax_t)corpus->duplicates, result->mean_length,
	       100 * result->raw_share);
	if (result->rounds)
		printf("  %-42s %-20s %9s %8s %11s\n", "", "ratio  (quartiles)",
		       "libtmem", "LZ4", "background");
	for (unsigned int i = 0; i < ROWS && result->rounds; i++)
		print_row(result, i);
	for (unsigned int i = 0; i < DENSITIES; i++)
		print_density(&result->density[i]);
}

/* ----------------------------------------------------------------- figures */

static void print_figure(const struct figure *figure)
{
	double values[MAX_ROUNDS];
	struct quartiles q;

	if (!figure->count) {
		printf("  %-58s not measured\n", figure->what);
		return;
	}
	memcpy(values, figure->value, sizeof(values));
	q = quartiles(values, figure->count);
	printf("  %-58s ", figure->what);
	if (!*figure->unit && q.median == (uint64_t)q.median)
		printf("%10.0f", q.median);
	else
		printf("%10.3f", q.median);
	printf(" %-3s", figure->unit);
	if (q.q1 < q.q3)
		printf(" (%.3f-%.3f)", q.q1, q.q3);
	printf("\n");
}

static void print_group(const struct group *group)
{
	const struct figure *figure;

	if (group->missing) {
		printf("\n%s: %s\n", group->key, group->missing);
		return;
	}
	if (!group->noted)
		return;
	printf("\n%s: %s\n", group->key, group->title);
	if (group->guest)
		printf("  measured in a guest: %s\n", group->guest);
	if (*group->said)
		printf("  %s\n", group->said);
	for (unsigned int i = 0; (figure = figure_at(i)); i++)
		if (!strcmp(figure->group, group->key))
			print_figure(figure);
}

void print_table(const struct run_facts *facts, const struct result *results,
		 unsigned int count)
{
	const struct group *group;
	char cpu[128];

	proc_value("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
	printf("bench-store%s: libtmem against LZ4 %s, %s, %ld CPUs, commit "
	       "%s, %.0f s\n",
	       facts->quick ? " --quick (too short to judge by)" : "",
	       LZ4_versionString(), cpu, sysconf(_SC_NPROCESSORS_ONLN),
	       facts->commit, facts->seconds);
	for (unsigned int i = 0; i < count; i++)
		if (results[i].corpus)
			print_result(&results[i]);
	for (unsigned int i = 0; (group = group_at(i)); i++)
		print_group(group);
	printf("\nratio: the store's time a page over bare LZ4's on the same "
	       "pages; medians of the rounds.\n"
	       "* the store's speed-up by a second thread over bare LZ4's, "
	       "by the wall clock: more is better.\n"
	       "background: CPU time of tmem_step() in between, not in the "
	       "ratio, over the store's time.\n"
	       "kernel: memfd, private memory and page tables, as the kernel "
	       "counts them.\n");
}
