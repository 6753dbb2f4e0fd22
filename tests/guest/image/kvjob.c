// SPDX-License-Identifier: BSD-3-Clause
/*
 * A verified job for a key-value server: sets keys, takes each of them out again
 * in another order, and compares every byte.
 *
 * Values are generated, of mixed entropy: part random, part text, part zeros.
 * With -p FILE (the console, say) it tells how far it is, in hundredths.
 */
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BATCH 8

static unsigned long keys = 1000, bytes = 16320;
static uint64_t seed = 1;
static FILE *to, *from, *progress;

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

/* Per kilobyte some 2/5 random, 2/5 repetitive, 1/5 zeros. */
static void generate(char *value, unsigned long key)
{
	uint64_t state = mix(seed * 0x9e3779b97f4a7c15 + key), word;
	unsigned long i;

	for (i = 0; i + 8 <= bytes; i += 8) {
		unsigned int part = i / 8 % 128;

		if (part < 48)
			word = state = mix(state + i + 1);
		else if (part < 102)
			word = 0x3d65756c61763a79 + (mix(key + i / 128) & 0x0707);
		else
			word = 0;
		memcpy(value + i, &word, 8);
	}
	memset(value + i, 'x', bytes - i);
}

static int open_server(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return -1;
	to = fdopen(fd, "w");
	from = fdopen(dup(fd), "r");
	return to && from ? 0 : -1;
}

static int set(unsigned long first, unsigned long n, char *value)
{
	char line[64];
	unsigned long i;

	for (i = first; i < first + n; i++) {
		snprintf(line, sizeof(line), "key:%012lu", i);
		generate(value, i);
		fprintf(to, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%lu\r\n", strlen(line), line, bytes);
		fwrite(value, 1, bytes, to);
		fputs("\r\n", to);
	}
	if (fflush(to))
		return -1;
	for (i = 0; i < n; i++)
		if (!fgets(line, sizeof(line), from) || strncmp(line, "+OK", 3))
			return -1;
	return 0;
}

/* 1: right; 0: wrong; -1: the server is gone */
static int take(unsigned long key, char *value, char *want)
{
	char line[64];

	snprintf(line, sizeof(line), "key:%012lu", key);
	/* Taken out, so that what the job needs has one peak and ends. */
	fprintf(to, "*2\r\n$6\r\nGETDEL\r\n$%zu\r\n%s\r\n", strlen(line), line);
	if (fflush(to) || !fgets(line, sizeof(line), from))
		return -1;
	if (line[0] != '$' || strtoul(line + 1, NULL, 10) != bytes)
		return 0;
	if (fread(value, 1, bytes, from) != bytes || fread(line, 1, 2, from) != 2)
		return -1;
	generate(want, key);
	return !memcmp(value, want, bytes);
}

/* Of @keys set and as many taken, @done are done. */
static void tell(unsigned long done)
{
	static unsigned long told;
	unsigned long now = done * 50 / keys;

	if (!progress || now == told)
		return;
	told = now;
	fprintf(progress, "kvjob: %lu of 100\n", now);
	fflush(progress);
}

int main(int argc, char **argv)
{
	const char *path = "/run/redis.sock";
	unsigned long i, done = 0, verified = 0, wrong = 0;
	char *value, *want;
	int c, rc = 1;

	while ((c = getopt(argc, argv, "n:b:S:s:p:")) != -1)
		switch (c) {
		case 'n': keys = strtoul(optarg, NULL, 0); break;
		case 'b': bytes = strtoul(optarg, NULL, 0); break;
		case 'S': seed = strtoull(optarg, NULL, 0); break;
		case 's': path = optarg; break;
		case 'p':
			progress = fopen(optarg, "w");
			if (!progress)
				return 2;
			break;
		default: return 2;
		}
	value = malloc(bytes);
	want = malloc(bytes);
	if (open_server(path)) {
		fprintf(stderr, "kvjob: %s: %s\n", path, strerror(errno));
		return 2;
	}
	for (i = 0; i < keys; i += BATCH) {
		unsigned long n = keys - i < BATCH ? keys - i : BATCH;

		if (set(i, n, value))
			goto out;
		done += n;
		tell(done);
	}
	for (i = 0; i < keys; i++) {
		c = take((i * 7919 + 13) % keys, value, want);
		if (c < 0)
			goto out;
		verified += c;
		wrong += !c;
		tell(keys + i + 1);
	}
	rc = wrong != 0;
out:
	printf("keys %lu set %lu verified %lu wrong %lu\n", keys, done, verified, wrong);
	return rc;
}
