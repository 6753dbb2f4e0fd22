/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was measured, as a table for people and as JSON for
 * scripts/verify-claims
 */
#include <errno.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "bench-store.h"

static const struct {
	const char *key;  /* in the JSON file */
	const char *what; /* in the table */
	bool scaling;
} rows[ROWS] = {
	[PUT_OVERWRITE_1] = { "put_overwrite_1",
			      "put, random overwrite, single pages", false },
	[PUT_OVERWRITE_16] = { "put_overwrite_16",
			       "put, random overwrite, runs of 16", false },
	[PUT_GROW_1] = { "put_grow_1", "put while growing, single pages",
			 false },
	[PUT_GROW_16] = { "put_grow_16", "put while growing, runs of 16",
			  false },
	[GET_RANDOM_1] = { "get_random_1", "get, random, cold, single pages",
			   false },
	[GET_RANDOM_16] = { "get_random_16", "get, random, cold, runs of 16",
			    false },
	[PUT_2_THREADS] = { "put_2_threads",
			    "put by 2 threads, runs of 16, one object", true },
	[GET_2_THREADS] = { "get_2_threads",
			    "get by 2 threads, runs of 16, one object", true },
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

/* Quartiles over the rounds of the member at @offset of a row's samples. */
static struct quartiles of_rounds(const struct result *result, enum row_id id,
				  size_t offset)
{
	double values[MAX_ROUNDS];

	for (unsigned int i = 0; i < result->rounds; i++)
		memcpy(&values[i],
		       (const char *)&result->sample[id][i] + offset,
		       sizeof(values[i]));
	return quartiles(values, result->rounds);
}

/*
 * Where LZ4, which shares nothing, gains less than that by a second thread it
 * had no two CPUs for itself; where it gains more, one thread had less than
 * one.
 */
#define SPEEDUP_MIN 1.6
#define SPEEDUP_MAX 2.2

#define OF_ROUNDS(result, id, member)                                          \
	of_rounds(result, id, offsetof(struct sample, member))

void drop_noise(struct result *result)
{
	for (unsigned int i = 0; i < ROWS; i++) {
		struct quartiles lz4;

		if (!rows[i].scaling || !result->measured[i])
			continue;
		lz4 = OF_ROUNDS(result, i, lz4_speedup);
		if (lz4.q1 < SPEEDUP_MIN || lz4.q3 > SPEEDUP_MAX)
			result->measured[i] = false;
	}
}

/* ----------------------------------------------------------------- machine */

/* The value of the first "KEY: value" line of a file of /proc. */
static void proc_value(const char *path, const char *key, char *value,
		       size_t size)
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

static void cpu_model(char *value, size_t size)
{
	proc_value("/proc/cpuinfo", "model name", value, size);
}

/* ------------------------------------------------------------------- table */

static void print_density(const char *what, const struct density *density)
{
	printf("  held / compressed, %3.0f MiB %-13s %6.3f after fill, %.3f "
	       "while overwritten, %.3f after 3N overwrites (kernel: %.3f, "
	       "%.3f, %.3f)\n",
	       density->pages * (PAGE / MIB), what, density->full_library,
	       density->busy_library, density->churned_library,
	       density->full_kernel, density->busy_kernel,
	       density->churned_kernel);
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
	printf("  %-42s %-20s %9s %8s %11s\n", "", "ratio  (quartiles)",
	       "libtmem", "LZ4", "background");
	for (unsigned int i = 0; i < ROWS; i++) {
		struct quartiles ratio;

		if (!result->measured[i]) {
			printf("  %-42s not measured%s\n", rows[i].what,
			       rows[i].scaling ? ": needs two idle CPUs" : "");
			continue;
		}
		ratio = OF_ROUNDS(result, i, ratio);
		printf("  %-42s %5.3f (%5.3f-%5.3f) %6.2f us %5.2f us %9.1f "
		       "%%%s\n",
		       rows[i].what, ratio.median, ratio.q1, ratio.q3,
		       OF_ROUNDS(result, i, tmem_us).median,
		       OF_ROUNDS(result, i, lz4_us).median,
		       100 * OF_ROUNDS(result, i, background).median,
		       rows[i].scaling ? "  *" : "");
	}
	if (!result->whole.pages)
		return;
	print_density("(all)", &result->whole);
	print_density("(a small VM)", &result->small);
}

void print_table(const struct run_facts *facts, const struct result *results,
		 unsigned int count)
{
	char cpu[128];

	cpu_model(cpu, sizeof(cpu));
	printf("bench-store%s: libtmem against LZ4 %s, %s, %ld CPUs, commit "
	       "%s, %.0f s\n",
	       facts->quick ? " --quick (too short to judge by)" : "",
	       LZ4_versionString(), cpu, sysconf(_SC_NPROCESSORS_ONLN),
	       facts->commit, facts->seconds);
	for (unsigned int i = 0; i < count; i++)
		print_result(&results[i]);
	printf("\nratio: the store's time a page over bare LZ4's on the same "
	       "pages; medians of %u rounds.\n"
	       "* the store's speed-up by a second thread over bare LZ4's, "
	       "by the wall clock: more is better.\n"
	       "background: CPU time of tmem_step() in between, not in the "
	       "ratio, over the store's time.\n"
	       "kernel: memfd, private memory and page tables, as the kernel "
	       "counts them.\n",
	       results->rounds);
}

/* -------------------------------------------------------------------- JSON */

static void json_string(FILE *file, const char *key, const char *value)
{
	fprintf(file, "\"%s\": \"", key);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			fputc('\\', file);
		if ((unsigned char)*value >= ' ')
			fputc(*value, file);
	}
	fputc('"', file);
}

static void json_quartiles(FILE *file, const char *key, struct quartiles q)
{
	fprintf(file, "\"%s\": {\"q1\": %.4f, \"median\": %.4f, \"q3\": %.4f}",
		key, q.q1, q.median, q.q3);
}

static void json_machine(FILE *file)
{
	char cpu[128], memory[64];
	struct utsname name;
	double load = 0;

	cpu_model(cpu, sizeof(cpu));
	proc_value("/proc/meminfo", "MemTotal", memory, sizeof(memory));
	uname(&name);
	getloadavg(&load, 1);
	fprintf(file, "  \"machine\": {");
	json_string(file, "cpu", cpu);
	fprintf(file, ", \"cpus\": %ld, \"load\": %.1f, ",
		sysconf(_SC_NPROCESSORS_ONLN), load);
	json_string(file, "memory", memory);
	fprintf(file, ", ");
	json_string(file, "kernel", name.release);
	fprintf(file, ", ");
	json_string(file, "lz4", LZ4_versionString());
	fprintf(file, "},\n");
}

static void json_row(FILE *file, const struct result *result, enum row_id id)
{
	fprintf(file, "        \"%s\": {", rows[id].key);
	json_quartiles(file, "ratio", OF_ROUNDS(result, id, ratio));
	fprintf(file, ",\n          ");
	json_quartiles(file, "wall_ratio", OF_ROUNDS(result, id, wall_ratio));
	fprintf(file, ",\n          ");
	json_quartiles(file, "tmem_us", OF_ROUNDS(result, id, tmem_us));
	fprintf(file, ",\n          ");
	json_quartiles(file, "lz4_us", OF_ROUNDS(result, id, lz4_us));
	fprintf(file, ",\n          ");
	json_quartiles(file, "background", OF_ROUNDS(result, id, background));
	fprintf(file, "}");
}

static void json_density(FILE *file, const char *key,
			 const struct density *density)
{
	fprintf(file,
		"      \"%s\": {\"pages\": %u, \"full\": %.4f, "
		"\"full_kernel\": %.4f, \"busy\": %.4f, \"busy_kernel\": %.4f, "
		"\"churned\": %.4f, \"churned_kernel\": %.4f}",
		key, density->pages, density->full_library,
		density->full_kernel, density->busy_library,
		density->busy_kernel, density->churned_library,
		density->churned_kernel);
}

static void json_result(FILE *file, const struct result *result)
{
	const struct corpus *corpus = result->corpus;
	const char *separator = "";

	fprintf(file, "    \"%s\": {\n      ", corpus->name);
	json_string(file, "what", corpus->what);
	fprintf(file,
		", \"rounds\": %u,\n      \"pages\": %u, \"seen\": %ju, "
		"\"same_filled\": %ju, \"duplicates\": %ju,\n"
		"      \"mean_length\": %.1f, \"raw_share\": %.4f,\n      "
		"\"rows\": {\n",
		result->rounds, corpus->pages, (uintmax_t)corpus->seen,
		(uintmax_t)corpus->same_filled, (uintmax_t)corpus->duplicates,
		result->mean_length, result->raw_share);
	for (unsigned int i = 0; i < ROWS; i++) {
		if (!result->measured[i])
			continue;
		fprintf(file, "%s", separator);
		json_row(file, result, i);
		separator = ",\n";
	}
	fprintf(file, "\n      }");
	if (result->whole.pages) {
		fprintf(file, ",\n");
		json_density(file, "density", &result->whole);
		fprintf(file, ",\n");
		json_density(file, "density_8_mib", &result->small);
	}
	fprintf(file, "\n    }");
}

void write_json(const char *path, const struct run_facts *facts,
		const struct result *results, unsigned int count)
{
	char part[4096], date[32];
	time_t now = time(NULL);
	FILE *file;

	snprintf(part, sizeof(part), "%s.part", path);
	file = fopen(part, "w");
	if (!file)
		die("--json %s: %s", path, strerror(errno));
	strftime(date, sizeof(date), "%Y-%m-%d", gmtime(&now));
	fprintf(file, "{\n  ");
	json_string(file, "commit", facts->commit);
	fprintf(file, ", ");
	json_string(file, "date", date);
	fprintf(file, ", \"quick\": %s, \"seconds\": %.0f,\n",
		facts->quick ? "true" : "false", facts->seconds);
	json_machine(file);
	fprintf(file, "  \"corpora\": {\n");
	for (unsigned int i = 0; i < count; i++) {
		json_result(file, &results[i]);
		fprintf(file, i + 1 < count ? ",\n" : "\n");
	}
	fprintf(file, "  }\n}\n");
	if (fflush(file) || ferror(file) || fclose(file) || rename(part, path))
		die("--json %s: %s", path, strerror(errno));
}
