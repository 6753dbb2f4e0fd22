/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Density of general allocators, one allocation a page, beside the store's; in
 * processes of their own (malloc-child.c)
 */
#include <limits.h>
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench-store.h"

#define MALLOC_PAGES 16384u /* 64 MiB */

static const struct {
	const char *key, *full, *churned, *library;
} allocators[] = {
	{ "glibc", "glibc's malloc after fill", "after 3N overwrites", "" },
	{ "jemalloc", "jemalloc after fill", "after 3N overwrites",
	  "libjemalloc.so.2" },
	{ "mimalloc", "mimalloc after fill", "after 3N overwrites",
	  "libmimalloc.so.2" },
};

/* What LZ4 makes of pages of the corpus; same-filled ones are none of it. */
static void lengths_write(struct corpus *corpus, FILE *file)
{
	char buffer[PAGE], out[LZ4_COMPRESSBOUND(PAGE)];

	for (uint32_t i = 0; i < MALLOC_PAGES; i++) {
		const char *page = corpus_any_page(corpus, i, buffer);
		int made = LZ4_compress_default(page, out, PAGE, sizeof(out));
		uint32_t length = PAGE;

		if (made > 0 && made < (int)PAGE)
			length = made;
		if (fwrite(&length, sizeof(length), 1, file) != 1)
			die("cannot write lengths");
	}
	fflush(file);
}

static void child(const char *program, const char *library, FILE *lengths,
		  int out)
{
	rewind(lengths);
	if (dup2(fileno(lengths), STDIN_FILENO) < 0 ||
	    dup2(out, STDOUT_FILENO) < 0)
		_exit(1);
	if (*library)
		setenv("LD_PRELOAD", library, 1);
	execl(program, program, library, (char *)NULL);
	_exit(1);
}

/* False: there is no such library. */
static bool allocator_run(const char *program, const char *library,
			  FILE *lengths, double held[2])
{
	char text[64] = "";
	int ends[2], status;
	pid_t pid;

	if (pipe(ends))
		die("no pipe");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		die("cannot fork");
	if (!pid)
		child(program, library, lengths, ends[1]);
	close(ends[1]);
	if (read(ends[0], text, sizeof(text) - 1) < 0)
		text[0] = '\0';
	close(ends[0]);
	return waitpid(pid, &status, 0) == pid && !status &&
	       sscanf(text, "%lf %lf", &held[0], &held[1]) == 2;
}

void mallocs_run(struct corpus *corpus)
{
	char path[PATH_MAX + 16] = "";
	FILE *lengths = tmpfile();
	ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
	bool any = false;

	progress("density of general allocators");
	if (!lengths || length < 0)
		die("cannot run bench-malloc");
	strcpy(strrchr(path, '/'), "/bench-malloc");
	lengths_write(corpus, lengths);
	for (unsigned int i = 0; i < ARRAY_SIZE(allocators); i++) {
		static char keys[ARRAY_SIZE(allocators)][2][32];
		double held[2];

		if (!allocator_run(path, allocators[i].library, lengths, held))
			continue;
		any = true;
		snprintf(keys[i][0], sizeof(keys[i][0]), "%s_full",
			 allocators[i].key);
		snprintf(keys[i][1], sizeof(keys[i][1]), "%s_churned",
			 allocators[i].key);
		figure_note("mallocs", keys[i][0], allocators[i].full, "x",
			    held[0]);
		figure_note("mallocs", keys[i][1], allocators[i].churned, "x",
			    held[1]);
	}
	fclose(lengths);
	if (!any)
		group_missing("mallocs", "bench-malloc does not run");
}
