/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a store holds over what LZ4 made of its pages: by the library's count,
 * and by what the kernel has given to this process
 */
#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "density.h"

/* What a tenant may take beside (docs/store.md). */
#define TENANT_BYTES MIB

double proc_kb(const char *path, const char *key)
{
	FILE *file = fopen(path, "r");
	char line[256];
	double value = 0;

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)))
			value = strtod(line + strlen(key), NULL);
	if (file)
		fclose(file);
	return value;
}

/* Blocks of the memfds, each once: a tenant has two descriptors of each. */
static double memfd_bytes(int folder, const char *name)
{
	static ino_t seen[2048];
	static unsigned int count;
	char target[64] = "";
	struct stat stat;

	if (!name) { /* begin anew */
		count = 0;
		return 0;
	}
	if (readlinkat(folder, name, target, sizeof(target) - 1) <= 0 ||
	    strncmp(target, "/memfd:tmem", 11) ||
	    fstatat(folder, name, &stat, 0))
		return 0;
	for (unsigned int i = 0; i < count; i++)
		if (seen[i] == stat.st_ino)
			return 0;
	if (count == ARRAY_SIZE(seen))
		die("more than %u memfds", count);
	seen[count++] = stat.st_ino;
	return stat.st_blocks * 512.0;
}

double kernel_bytes(void)
{
	double bytes =
		1024 * (proc_kb("/proc/self/smaps_rollup", "Anonymous:") +
			proc_kb("/proc/self/status", "VmPTE:"));
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	if (!dir)
		die("/proc/self/fd: cannot be read");
	memfd_bytes(-1, NULL);
	while ((entry = readdir(dir)))
		bytes += memfd_bytes(dirfd(dir), entry->d_name);
	closedir(dir);
	return bytes;
}

/* ------------------------------------------------------------ one or many */

void some_open(struct some *some, struct corpus *corpus, uint32_t tenants,
	       uint32_t pages, uint32_t flags)
{
	*some = (struct some){
		.corpus = corpus,
		.tenants = tenants,
		.pages = pages,
		.random = 1,
	};
	/* What malloc() kept of others must not look like memory of these. */
	malloc_trim(0);
	some->before = kernel_bytes();
	some->store = store_open_with(
		tenants * tmem_reservation_cost((uint64_t)pages * PAGE), flags);
	if (tmem_ctx_create(some->store, &some->worker.ctx))
		die("cannot make a context");
	for (uint32_t i = 0; i < tenants; i++)
		some->tenant[i] = tenant_open(some->store, "density", pages,
					      TMEM_POOL_PERSISTENT);
}

void some_fill(struct some *some)
{
	char buffer[PAGE];

	for (uint32_t i = 0; i < some->pages * some->tenants; i++)
		put_page(&some->worker, some->tenant[i / some->pages],
			 i % some->pages,
			 corpus_any_page(some->corpus, i, buffer));
	step_until(some->store, 1);
}

void some_overwrite(struct some *some, uint32_t count)
{
	uint32_t all = some->pages * some->tenants;
	char buffer[PAGE];

	for (uint32_t i = 0; i < count; i++) {
		uint32_t key = next_random(&some->random) % all;
		uint32_t page = next_random(&some->random) % all;

		put_page(&some->worker, some->tenant[key / some->pages],
			 key % some->pages,
			 corpus_any_page(some->corpus, page, buffer));
		if (i % STEP_EVERY == 0)
			step_until(some->store, STEP_PAGES);
	}
}

double some_held(struct some *some, struct held *held)
{
	double kernel = kernel_bytes() - some->before, free, stored;
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_store_stats(some->store, &stats);
	free = some->tenants * TENANT_BYTES;
	stored = stats.stored_bytes;
	held->library = stats.held_bytes / stored;
	held->kernel = kernel / stored;
	held->library_less = (stats.held_bytes - free) / stored;
	held->kernel_less = (kernel - free) / stored;
	return stored;
}

void some_close(struct some *some)
{
	tmem_ctx_destroy(some->worker.ctx);
	for (uint32_t i = 0; i < some->tenants; i++)
		tmem_tenant_drop(some->tenant[i]);
	tmem_store_destroy(some->store);
}

/* --------------------------------------------------------------- one VM's */

void density_measure(struct corpus *corpus, uint32_t pages,
		     struct density *density)
{
	struct some some;

	progress("corpus '%s': held / compressed, %.0f MiB", corpus->name,
		 pages * (PAGE / MIB));
	some_open(&some, corpus, 1, pages, 0);
	some_fill(&some);
	density->pages = pages;
	density->made = pages > corpus->pages ? pages - corpus->pages : 0;
	density->mean_length = some_held(&some, &density->full) / pages;
	some_overwrite(&some, 3 * pages);
	some_held(&some, &density->busy);
	step_until(some.store, 1);
	some_held(&some, &density->churned);
	some_close(&some);
}

void density_run(struct corpus *corpus, bool quick,
		 struct density density[DENSITIES])
{
	static const struct {
		const char *key;
		uint32_t mib;
	} sizes[DENSITIES] = {
		{ "8_mib", 8 },
		{ "64_mib", 64 },
		{ "1_gib", 1024 },
	};

	for (unsigned int i = 0; i < DENSITIES; i++) {
		density[i].key = sizes[i].key;
		if (!quick || sizes[i].mib < 1024)
			density_measure(corpus, sizes[i].mib * (MIB / PAGE),
					&density[i]);
	}
}
