// SPDX-License-Identifier: BSD-3-Clause
/*
 * Random direct I/O on a disk, by two threads on halves of it, against a model:
 * what each 4 KiB block must read as.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#define BLOCK 4096ul
#define MOST 300 /* blocks in an operation: several requests */

static int fd;
static unsigned long operations = 1000;
static unsigned int alignment = 512; /* of memory; the disk may want more */

struct half {
	unsigned long first, blocks, wrong, done;
	uint32_t *version; /* 0: zeros; block 0 of the disk is not touched */
	uint64_t state;
	int failed;
};

static uint64_t next(struct half *h)
{
	h->state ^= h->state << 13;
	h->state ^= h->state >> 7;
	h->state ^= h->state << 17;
	return h->state;
}

static void generate(uint64_t *to, unsigned long block, uint32_t version)
{
	uint64_t x = block * 0x9e3779b97f4a7c15 ^ version * 0xbf58476d1ce4e5b9;
	unsigned int i;

	if (!version) {
		memset(to, 0, BLOCK);
		return;
	}
	for (i = 0; i < BLOCK / 8; i++) {
		if (version % 3 == 0) { /* one word, again and again */
			to[i] = x;
			continue;
		}
		if (version % 3 == 1 || i % 4 == 0)
			x = x * 6364136223846793005 + 1442695040888963407;
		to[i] = x;
	}
}

/* Splits a buffer, whose blocks need not begin where pages do. */
static int split(struct half *h, uint8_t *buffer, size_t length, struct iovec *iov)
{
	int n = 0;

	while (length) {
		size_t piece = length;

		if (n < 7)
			piece = (next(h) % (length / BLOCK) + 1) * BLOCK;
		iov[n].iov_base = buffer;
		iov[n].iov_len = piece;
		n++;
		buffer += piece;
		length -= piece;
	}
	return n;
}

static int check(struct half *h, uint8_t *buffer, unsigned long block, unsigned int n)
{
	uint64_t want[BLOCK / 8];
	unsigned int i;

	for (i = 0; i < n; i++) {
		generate(want, block + i, h->version[block + i - h->first]);
		if (!memcmp(want, buffer + i * BLOCK, BLOCK))
			continue;
		if (h->wrong++ < 5)
			printf("block %lu version %u differs\n", block + i,
			       h->version[block + i - h->first]);
	}
	return 0;
}

static int operate(struct half *h, uint8_t *buffer)
{
	unsigned int n = next(h) % 4 ? next(h) % 20 + 1 : next(h) % MOST + 1;
	unsigned long block, i;
	uint64_t range[2];
	struct iovec iov[8];
	ssize_t rc;
	int parts;

	block = h->first + next(h) % (h->blocks - n);
	buffer += next(h) % (BLOCK / alignment) * alignment;
	range[0] = block * BLOCK;
	range[1] = n * BLOCK;
	switch (next(h) % 8) {
	case 0:
		if (ioctl(fd, next(h) % 2 ? BLKDISCARD : BLKZEROOUT, range))
			return -errno;
		for (i = 0; i < n; i++)
			h->version[block + i - h->first] = 0;
		return 0;
	case 1 ... 4:
		for (i = 0; i < n; i++)
			generate((uint64_t *)(buffer + i * BLOCK), block + i,
				 ++h->version[block + i - h->first]);
		parts = split(h, buffer, n * BLOCK, iov);
		rc = pwritev(fd, iov, parts, block * BLOCK);
		break;
	default:
		parts = split(h, buffer, n * BLOCK, iov);
		memset(buffer, 0x5a, n * BLOCK);
		rc = preadv(fd, iov, parts, block * BLOCK);
		if (rc == (ssize_t)(n * BLOCK))
			check(h, buffer, block, n);
	}
	if (rc != (ssize_t)(n * BLOCK))
		return rc < 0 ? -errno : -EIO;
	return 0;
}

static void *work(void *arg)
{
	struct half *h = arg;
	uint8_t *buffer = aligned_alloc(BLOCK, (MOST + 1) * BLOCK);
	unsigned long i;
	int rc;

	for (i = 0; i < operations; i++) {
		rc = operate(h, buffer);
		if (rc) {
			printf("operation %lu: %s\n", i, strerror(-rc));
			h->failed = 1;
			break;
		}
		h->done++;
	}
	/* Everything, once more. */
	for (i = 0; !h->failed && i < h->blocks; i += MOST) {
		unsigned int n = h->blocks - i < MOST ? h->blocks - i : MOST;

		if (pread(fd, buffer, n * BLOCK, (h->first + i) * BLOCK) != (ssize_t)(n * BLOCK))
			h->failed = 1;
		check(h, buffer, h->first + i, n);
	}
	free(buffer);
	return NULL;
}

int main(int argc, char **argv)
{
	const char *path = "/dev/tmem0";
	struct half half[2] = { { 0 } };
	pthread_t thread[2];
	uint64_t bytes, seed = 1;
	uint8_t *probe = aligned_alloc(BLOCK, 2 * BLOCK);
	int c, i;

	while ((c = getopt(argc, argv, "d:n:S:")) != -1)
		switch (c) {
		case 'd': path = optarg; break;
		case 'n': operations = strtoul(optarg, NULL, 0); break;
		case 'S': seed = strtoull(optarg, NULL, 0); break;
		default: return 2;
		}
	fd = open(path, O_RDWR | O_DIRECT);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes)) {
		perror(path);
		return 2;
	}
	/* Kernels before 6.0 want memory that is aligned as the disk's blocks. */
	if (pread(fd, probe + 512, BLOCK, BLOCK) < 0)
		alignment = BLOCK;
	if (ioctl(fd, BLKDISCARD, (uint64_t[]){ 0, bytes })) {
		perror("discard");
		return 2;
	}
	for (i = 0; i < 2; i++) {
		half[i].first = 1 + i * (bytes / BLOCK / 2);
		half[i].blocks = bytes / BLOCK / 2 - 1;
		half[i].version = calloc(half[i].blocks, sizeof(uint32_t));
		half[i].state = seed * 0x9e3779b97f4a7c15 + i + 1;
		pthread_create(&thread[i], NULL, work, &half[i]);
	}
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	printf("operations %lu alignment %u wrong %lu\n", half[0].done + half[1].done, alignment,
	       half[0].wrong + half[1].wrong);
	return half[0].wrong || half[1].wrong || half[0].failed || half[1].failed;
}
