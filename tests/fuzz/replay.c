/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs a fuzz target on files, without a fuzzer: what it once found is found
 * again by any compiler and sanitizer.
 *
 * usage: replay-TARGET FOLDER...      every file in them; prints TAP
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file's bytes, in memory of exactly their number. */
static uint8_t *slurp(const char *path, size_t *size)
{
	FILE *file = fopen(path, "rb");
	uint8_t *data = NULL;
	long end;

	if (!file)
		return NULL;
	if (!fseek(file, 0, SEEK_END) && (end = ftell(file)) >= 0) {
		rewind(file);
		data = malloc(end ? end : 1);
		*size = data ? fread(data, 1, end, file) : 0;
	}
	fclose(file);
	return data;
}

static int replay(const char *folder)
{
	unsigned int files = 0;
	struct dirent *entry;
	DIR *dir = opendir(folder);

	if (!dir) {
		fprintf(stderr, "%s: %s\n", folder, strerror(errno));
		return -1;
	}
	while ((entry = readdir(dir))) {
		char path[4096];
		uint8_t *data;
		size_t size = 0;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		data = slurp(path, &size);
		if (!data) {
			fprintf(stderr, "%s: cannot be read\n", path);
			closedir(dir);
			return -1;
		}
		/* The last one named is the one that a crash is about. */
		printf("running %s\n", path);
		fflush(stdout);
		LLVMFuzzerTestOneInput(data, size);
		free(data);
		files++;
	}
	closedir(dir);
	return files;
}

int main(int argc, char **argv)
{
	int failed = 0;

	for (int i = 1; i < argc; i++) {
		int files = replay(argv[i]);

		printf("%s %d - %d inputs of %s\n", files > 0 ? "ok" : "not ok",
		       i, files, argv[i]);
		failed |= files <= 0;
	}
	printf("1..%d\n", argc - 1);
	return failed;
}
