/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a malloc(3) takes for pages' stored bytes: one allocation each
 *
 * usage: bench-malloc LIBRARY < lengths
 *
 * Reads 32 bit lengths, allocates as many bytes for each, writes to them, and prints
 * held over allocated bytes: after that, and after each was freed and allocated
 * anew with another's length three times over, at random.  Held is private memory
 * as the kernel counts it, less what there was before.  LIBRARY, which LD_PRELOAD
 * names, must be in the process, unless it is "".
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST (1u << 20)

static uint32_t length[MOST];
static char *chunk[MOST];
static uint64_t bytes;

static int loaded(const char *library)
{
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");
	int found = !*library;

	while (maps && !found && fgets(line, sizeof(line), maps))
		found = strstr(line, library) != NULL;
	return found;
}

/* Private bytes, by no malloc. */
static double held(void)
{
	static char line[256];
	unsigned long kib = 0;
	static FILE *file;

	if (!file)
		file = fopen("/proc/self/smaps_rollup", "r");
	rewind(file);
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "Private_Dirty:", 14))
			sscanf(line + 14, "%lu", &kib);
	return kib * 1024.0;
}

static void put(uint32_t i, uint32_t size)
{
	chunk[i] = malloc(size);
	if (!chunk[i])
		exit(1);
	memset(chunk[i], 1, size);
	bytes += size;
}

int main(int argc, char **argv)
{
	static uint32_t size[MOST];
	uint64_t random = 1;
	uint32_t count;
	double before, full;

	count = fread(length, sizeof(*length), MOST, stdin);
	if (argc != 2 || !count || !loaded(argv[1]))
		return 1;
	/* What is not the allocator's is there before. */
	memset(chunk, 1, count * sizeof(*chunk));
	memcpy(size, length, count * sizeof(*size));
	held();
	before = held();
	for (uint32_t i = 0; i < count; i++)
		put(i, size[i]);
	full = (held() - before) / bytes;
	for (uint32_t n = 0; n < 3 * count; n++) {
		uint32_t i, with;

		random = random * 6364136223846793005ull +
			 1442695040888963407ull;
		i = (random >> 33) % count;
		random = random * 6364136223846793005ull +
			 1442695040888963407ull;
		with = (random >> 33) % count;
		free(chunk[i]);
		bytes -= size[i];
		size[i] = length[with];
		put(i, size[i]);
	}
	printf("%.4f %.4f\n", full, (held() - before) / bytes);
	return 0;
}
