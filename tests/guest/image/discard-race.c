// SPDX-License-Identifier: BSD-3-Clause
/*
 * One thread writes and discards blocks, others read them: who reads while a
 * block is being discarded gets what was written, or zeros, and no error.
 * So many blocks at a time that the driver tells the device at once.
 *
 * usage: discard-race DISK SECONDS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096ul
#define BLOCKS 2048ul
#define PIECE 256ul /* blocks that are read at a time */
#define FIRST 64ul
#define BYTE 0x77 /* what is written */

static int fd;
static volatile int stop;
static unsigned long zeros, written, wrong, errors;

static void *read_blocks(void *unused)
{
	uint8_t *buffer = aligned_alloc(BLOCK, PIECE * BLOCK);
	unsigned long i, j, first = FIRST;

	(void)unused;
	while (!stop) {
		first = first + PIECE < FIRST + BLOCKS ? first + PIECE : FIRST;
		memset(buffer, 0x5a, PIECE * BLOCK);
		if (pread(fd, buffer, PIECE * BLOCK, first * BLOCK) != (ssize_t)(PIECE * BLOCK)) {
			__atomic_add_fetch(&errors, 1, __ATOMIC_RELAXED);
			continue;
		}
		for (i = 0; i < PIECE; i++) {
			uint8_t *block = buffer + i * BLOCK;

			/* Not every byte: most of the time is to be spent in reads. */
			for (j = 1; j < BLOCK && block[j] == block[0]; j += 97)
				;
			if (j < BLOCK || (block[0] && block[0] != BYTE))
				__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
			else
				__atomic_add_fetch(block[0] ? &written : &zeros, 1,
						   __ATOMIC_RELAXED);
		}
	}
	free(buffer);
	return NULL;
}

int main(int argc, char **argv)
{
	uint64_t range[2] = { FIRST * BLOCK, BLOCKS * BLOCK };
	uint8_t *buffer = aligned_alloc(BLOCK, BLOCKS * BLOCK);
	pthread_t thread[2];
	time_t end;
	int i;

	if (argc != 3)
		return 2;
	fd = open(argv[1], O_RDWR | O_DIRECT);
	if (fd < 0) {
		perror(argv[1]);
		return 2;
	}
	memset(buffer, BYTE, BLOCKS * BLOCK);
	end = time(NULL) + atoi(argv[2]);
	for (i = 0; i < 2; i++)
		pthread_create(&thread[i], NULL, read_blocks, NULL);
	while (time(NULL) < end) {
		if (pwrite(fd, buffer, BLOCKS * BLOCK, FIRST * BLOCK) != (ssize_t)(BLOCKS * BLOCK) ||
		    ioctl(fd, BLKDISCARD, range))
			errors++;
		/* The readers that were overtaken end before the next write. */
		usleep(20000);
	}
	stop = 1;
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	printf("zeros %lu written %lu wrong %lu errors %lu\n", zeros, written, wrong, errors);
	return wrong || errors;
}
