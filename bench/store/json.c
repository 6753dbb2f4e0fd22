/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What was measured, as JSON for scripts/verify-claims and plot.py
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

	proc_value("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
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

/* ----------------------------------------------------------------- corpora */

static void json_row(FILE *file, const struct result *result, enum row_id id)
{
	unsigned int usable = usable_rounds(result, id);

	fprintf(file, "        \"%s\": {", row_key(id));
	if (row_of_threads(id)) {
		fprintf(file, "\"usable_rounds\": %u, ", usable);
		if (result->measured[id])
			json_quartiles(file, "lz4_speedup",
				       OF_ROUNDS(result, id, lz4_speedup));
		else
			fprintf(file, "\"lz4_speedup\": null");
		fprintf(file, ",\n          ");
	}
	if (!usable) {
		fprintf(file, "\"ratio\": null}");
		return;
	}
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

static void json_held(FILE *file, const char *name, const struct held *held)
{
	/* What the library counts beside what the kernel does. */
	double off = held->library / held->kernel - 1;

	fprintf(file,
		",\n          \"%s\": {\"library\": %.4f, \"kernel\": %.4f, "
		"\"library_less\": %.4f, \"kernel_less\": %.4f, "
		"\"disagreement\": %.4f}",
		name, held->library, held->kernel, held->library_less,
		held->kernel_less, off < 0 ? -off : off);
}

static void json_density(FILE *file, const struct density *density)
{
	if (!density->pages) {
		fprintf(file, "        \"%s\": null", density->key);
		return;
	}
	fprintf(file,
		"        \"%s\": {\"pages\": %u, \"joined_pages\": %u, "
		"\"mean_length\": %.1f",
		density->key, density->pages, density->made,
		density->mean_length);
	json_held(file, "full", &density->full);
	json_held(file, "busy", &density->busy);
	json_held(file, "churned", &density->churned);
	fprintf(file, "}");
}

static void json_rows(FILE *file, const struct result *result)
{
	const char *separator = "";

	fprintf(file, "      \"rows\": {");
	for (unsigned int i = 0; i < ROWS && result->rounds; i++) {
		if (!result->measured[i] && !row_of_threads(i))
			continue;
		fprintf(file, "%s\n", separator);
		json_row(file, result, i);
		separator = ",";
	}
	fprintf(file, "\n      },\n      \"density\": {");
	for (unsigned int i = 0; i < DENSITIES && result->density[0].key; i++) {
		fprintf(file, "%s\n", i ? "," : "");
		json_density(file, &result->density[i]);
	}
	fprintf(file, "\n      }\n    }");
}

static void json_result(FILE *file, const struct result *result)
{
	const struct corpus *corpus = result->corpus;

	fprintf(file, "    \"%s\": {\n      ", corpus->name);
	json_string(file, "what", corpus->what);
	fprintf(file,
		", \"rounds\": %u,\n      \"pages\": %u, \"seen\": %ju, "
		"\"same_filled\": %ju, \"duplicates\": %ju,\n"
		"      \"mean_length\": %.1f, \"raw_share\": %.4f,\n",
		result->rounds, corpus->pages, (uintmax_t)corpus->seen,
		(uintmax_t)corpus->same_filled, (uintmax_t)corpus->duplicates,
		result->mean_length, result->raw_share);
	json_rows(file, result);
}

/* ----------------------------------------------------------------- figures */

static void json_figure(FILE *file, const struct figure *figure)
{
	double values[MAX_ROUNDS];

	if (!figure->count) {
		fprintf(file, "\"%s\": null", figure->key);
		return;
	}
	memcpy(values, figure->value, sizeof(values));
	json_quartiles(file, figure->key, quartiles(values, figure->count));
}

static void json_group(FILE *file, const struct group *group)
{
	const struct figure *figure;
	const char *separator = "\n    ";

	if (group->missing) {
		fprintf(file, ",\n  \"%s\": null", group->key);
		return;
	}
	if (!group->noted)
		return;
	fprintf(file, ",\n  \"%s\": {", group->key);
	if (group->guest) {
		fprintf(file, "%s", separator);
		json_string(file, "in_guest", group->guest);
		separator = ",\n    ";
	}
	for (unsigned int i = 0; (figure = figure_at(i)); i++) {
		if (strcmp(figure->group, group->key))
			continue;
		fprintf(file, "%s", separator);
		json_figure(file, figure);
		separator = ",\n    ";
	}
	fprintf(file, "\n  }");
}

/* -------------------------------------------------------------------- file */

static void json_file(FILE *file, const struct run_facts *facts,
		      const struct result *results, unsigned int count)
{
	const struct group *group;
	const char *separator = "";
	time_t now = time(NULL);
	char date[32];

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
		if (!results[i].corpus)
			continue;
		fprintf(file, "%s", separator);
		json_result(file, &results[i]);
		separator = ",\n";
	}
	fprintf(file, "\n  }");
	for (unsigned int i = 0; (group = group_at(i)); i++)
		json_group(file, group);
	fprintf(file, "\n}\n");
}

void write_json(const char *path, const struct run_facts *facts,
		const struct result *results, unsigned int count)
{
	char part[4096];
	FILE *file;

	snprintf(part, sizeof(part), "%s.part", path);
	file = fopen(part, "w");
	if (!file)
		die("--json %s: %s", path, strerror(errno));
	json_file(file, facts, results, count);
	if (fflush(file) || ferror(file) || fclose(file) || rename(part, path))
		die("--json %s: %s", path, strerror(errno));
}
