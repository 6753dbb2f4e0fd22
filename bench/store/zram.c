/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zram beside: the same pages, in the same turns with bare LZ4, through its
 * block device
 *
 * A device of its own, made for the time being.  What the block layer takes is
 * what reading a block takes that was never written, in turns with zram's reads
 * and with its writes.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sides.h"

#define CONTROL "/sys/class/zram-control"
/* What zram leaves out of its figure, for each page: an entry of its table,
 * and zsmalloc's handle. */
#define ENTRY_BYTES  16
#define HANDLE_BYTES 8

static int made = -1;	/* the device's number */
static int opened = -1; /* its descriptor */

/* ----------------------------------------------------------------- device */

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good = fd >= 0 &&
		    write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return good;
}

static bool set(const char *attribute, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/block/zram%d/%s", made, attribute);
	return write_text(path, text);
}

static void remove_device(void)
{
	char number[16];

	if (opened >= 0)
		close(opened);
	opened = -1;
	if (made < 0)
		return;
	set("reset", "1");
	snprintf(number, sizeof(number), "%d", made);
	write_text(CONTROL "/hot_remove", number);
	made = -1;
}

/* Ctrl-C: its memory would stay. */
static void interrupted(int signal)
{
	remove_device();
	_exit(128 + signal);
}

static void remove_in_the_end(void)
{
	atexit(remove_device);
	signal(SIGINT, interrupted);
	signal(SIGTERM, interrupted);
}

static void load_module(void)
{
	pid_t pid = fork();

	if (!pid) {
		close(STDERR_FILENO);
		execlp("modprobe", "modprobe", "-q", "zram", NULL);
		_exit(1);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static int open_device(void)
{
	char path[32];
	int fd = -1;

	snprintf(path, sizeof(path), "/dev/zram%d", made);
	/* udev may look at it first. */
	for (unsigned int i = 0; i < 100 && fd < 0; i++) {
		fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
		if (fd < 0)
			usleep(10000);
	}
	return fd;
}

/* A device of @pages pages, twice as many as are written; -1: why. */
static int make_device(uint32_t pages, const char **why)
{
	char size[32];
	FILE *file;

	if (access(CONTROL, F_OK))
		load_module();
	*why = "not on this machine";
	if (access(CONTROL, F_OK))
		return -1;
	/* To read it makes a device. */
	file = fopen(CONTROL "/hot_add", "r");
	*why = "needs root";
	if (!file)
		return -1;
	remove_in_the_end();
	if (fscanf(file, "%d", &made) != 1)
		made = -1;
	fclose(file);
	snprintf(size, sizeof(size), "%ju", (uintmax_t)2 * pages * PAGE);
	*why = "this kernel's has no LZ4";
	if (made < 0 || !set("comp_algorithm", "lz4"))
		return -1;
	*why = "its device cannot be used";
	if (!set("disksize", size))
		return -1;
	opened = open_device();
	return opened;
}

/* Bytes held, by zram's count, which has no tables. */
static double device_held(void)
{
	char path[64];
	double held = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/block/zram%d/mm_stat", made);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%*s %*s %lf", &held) != 1 || !held)
		die("%s: %s", path, file ? "not as expected" : strerror(errno));
	fclose(file);
	return held;
}

/* --------------------------------------------------------------- the sides */

static void zram_put(struct bench *bench, struct worker *worker, uint32_t from,
		     uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		if (pwrite(bench->zram, bench->corpus->page[bench->source[i]],
			   PAGE, (off_t)bench->key[i] * PAGE) != PAGE)
			die("zram: a write: %s", strerror(errno));
}

static void zram_get(struct bench *bench, struct worker *worker, uint32_t from,
		     uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		if (pread(bench->zram, worker->ring + i % RING * PAGE, PAGE,
			  (off_t)bench->key[i] * PAGE) != PAGE)
			die("zram: a read: %s", strerror(errno));
}

/* Blocks behind all that are written. */
static void zram_get_nothing(struct bench *bench, struct worker *worker,
			     uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		if (pread(bench->zram, worker->ring + i % RING * PAGE, PAGE,
			  ((off_t)bench->key[i] + bench->pages) * PAGE) != PAGE)
			die("zram: a read: %s", strerror(errno));
}

/* ------------------------------------------------------------------ rounds */

static void put_pass(struct bench *bench, bool shuffle)
{
	order_keys(bench, 1, shuffle);
	order_sources(bench);
}

/* What the present pass put is there. */
static void verify(struct bench *bench)
{
	char *page = bench->worker[0].ring;

	for (uint32_t i = 0; i < bench->pages; i++) {
		if (pread(bench->zram, page, PAGE,
			  (off_t)bench->key[i] * PAGE) != PAGE ||
		    memcmp(page, bench->corpus->page[bench->source[i]], PAGE))
			die("zram returned another page at %u", bench->key[i]);
	}
}

/*
 * What is left of zram's time without the block layer's, which took turns with
 * it: a share of 1.  Where nothing is left the machine is too busy to say.
 */
static double left(const struct sample *sample)
{
	return sample->ratio > 1 ? 1 - 1 / sample->ratio : NAN;
}

/* The store's turns with zram, whose times are where LZ4's are elsewhere. */
static void note_ours(const struct sample *put, const struct sample *get,
		      double put_left, double get_left)
{
	figure_note("zram", "ours_put", "libtmem's put over its write", "x",
		    put->ratio);
	figure_note("zram", "ours_get", "libtmem's get over its read", "x",
		    get->ratio);
	figure_note("zram", "ours_put_less",
		    "libtmem's put over its write less the block layer", "x",
		    put->ratio / put_left);
	figure_note("zram", "ours_get_less",
		    "libtmem's get over its read less the block layer", "x",
		    get->ratio / get_left);
}

static void one_round(struct bench *bench, unsigned int round)
{
	struct sample put, get, put_layer, get_layer, our_put, our_get;

	put_pass(bench, true);
	take_turns(bench, zram_put, zram_get_nothing, round, &put_layer);
	put_pass(bench, true);
	take_turns(bench, zram_put, lz4_put, round, &put);
	put_pass(bench, true);
	take_turns(bench, tmem_put, zram_put, round, &our_put);
	note_held(bench, 0, bench->pages);
	for (uint32_t i = 0; i < bench->pages; i++)
		bench->visit[i] = bench->chunk[bench->source[i]];
	verify(bench);
	take_turns(bench, zram_get, lz4_get, round, &get);
	take_turns(bench, zram_get, zram_get_nothing, round, &get_layer);
	take_turns(bench, tmem_get, zram_get, round, &our_get);
	figure_note("zram", "put_us", "write of a page, O_DIRECT", "us",
		    put.tmem_us);
	figure_note("zram", "get_us", "read of a page, O_DIRECT", "us",
		    get.tmem_us);
	figure_note("zram", "block_layer_us", "of which the block layer takes",
		    "us", get_layer.lz4_us);
	figure_note("zram", "put_ratio", "write over bare LZ4", "x", put.ratio);
	figure_note("zram", "get_ratio", "read over bare LZ4", "x", get.ratio);
	figure_note("zram", "put_less_ratio",
		    "write less the block layer over bare LZ4", "x",
		    put.ratio * left(&put_layer));
	figure_note("zram", "get_less_ratio",
		    "read less the block layer over bare LZ4", "x",
		    get.ratio * left(&get_layer));
	note_ours(&our_put, &our_get, left(&put_layer), left(&get_layer));
}

/* Returns held over compressed bytes, tables and handles in. */
static double note_held_ratio(struct bench *bench, const char *key,
			      const char *what, const char *key_all,
			      const char *what_all)
{
	double stored = bench->mean_length * bench->pages;
	double tables = (double)(ENTRY_BYTES + HANDLE_BYTES) * bench->pages;
	double held = device_held();

	figure_note("zram", key, what, "x", held / stored);
	figure_note("zram", key_all, what_all, "x", (held + tables) / stored);
	return (held + tables) / stored;
}

/*
 * What the store holds of as many pages over what zram does: the kernel's count,
 * nothing left out, over mm_stat with the table and the handles.
 */
static void note_held_ours(struct bench *bench, double full, double churned)
{
	struct density ours = { 0 };

	density_measure(bench->corpus, bench->pages, &ours);
	figure_note("zram", "ours_full",
		    "what libtmem holds over what zram does, after fill", "x",
		    ours.full.kernel / full);
	figure_note("zram", "ours_churned", "the same after overwrites", "x",
		    ours.churned.kernel / churned);
}

const char *zram_missing(void)
{
	const char *why;
	int fd = make_device(GRANULE, &why);

	remove_device();
	return fd < 0 ? why : NULL;
}

void zram_run(struct bench *bench, unsigned int rounds)
{
	double full, churned;
	const char *why;

	progress("zram");
	bench->zram = make_device(bench->pages, &why);
	if (bench->zram < 0) {
		remove_device();
		group_missing("zram", why);
		return;
	}
	bench->tenant = bench->full;
	put_pass(bench, false);
	zram_put(bench, &bench->worker[0], 0, bench->pages);
	full = note_held_ratio(bench, "full", "held / compressed after fill",
			       "full_all",
			       "the same with its table and handles");
	for (unsigned int round = 0; round < (rounds < 3 ? rounds : 3); round++)
		one_round(bench, round);
	/* At random, as the store is: 3N in all, some keys more than once. */
	for (uint32_t i = 0; i < 3 * bench->pages; i++) {
		off_t key = next_random(&bench->random) % bench->pages;
		uint32_t page = next_random(&bench->random) % bench->pages;

		if (pwrite(bench->zram, bench->corpus->page[page], PAGE,
			   key * PAGE) != PAGE)
			die("zram: a write: %s", strerror(errno));
	}
	churned = note_held_ratio(bench, "churned",
				  "held / compressed after overwrites",
				  "churned_all",
				  "the same with its table and handles");
	remove_device();
	note_held_ours(bench, full, churned);
}
