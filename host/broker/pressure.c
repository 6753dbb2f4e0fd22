// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How short of memory the host is
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pressure.h"

int pressure_trigger(const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return -1;
	/* A file of a test's cannot be polled, and is not to be written to. */
	if (fstat(fd, &st) || st.st_size ||
	    write(fd, PRESSURE_TRIGGER, sizeof(PRESSURE_TRIGGER)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

bool pressure_stalled(const char *path)
{
	char line[256];
	FILE *file = fopen(path, "re");
	double average = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "some avg10=%lf", &average) == 1)
			break;
	if (file)
		fclose(file);
	return average >= PRESSURE_AVG10;
}

uint64_t pressure_available(const char *path)
{
	char line[256];
	FILE *file = fopen(path, "re");
	uint64_t bytes = UINT64_MAX;
	unsigned long long kib;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			bytes = kib * 1024;
	if (file)
		fclose(file);
	return bytes;
}
