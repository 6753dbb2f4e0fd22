/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Gets of single real pages at random among many, over those among few
 *
 * More memory is slower memory, whoever reads it: its page tables are in no
 * cache.  How much slower is measured beside, by copying as many bytes as a
 * page has from random places of the same memory: without index, codec and
 * checksum.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sides.h"

/* How many are few and many, and many where memory is short. */
#define FEW  100000u
#define MANY 5000000u
#define LESS 1000000u
/* Of a quick run. */
#define FEW_QUICK  10000u
#define MANY_QUICK 100000u
/* Left to the rest of the machine. */
#define SPARE_BYTES (3 * GIB)
#define GETS	    50000u
#define TURNS	    8u

struct part {
	struct corpus *corpus;
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	uint32_t from, to;
};

static void *part_fill(void *opaque)
{
	struct part *part = opaque;
	struct worker worker;
	char buffer[PAGE];

	worker_open(part->store, &worker);
	for (uint32_t i = part->from; i < part->to; i++) {
		put_page(&worker, part->tenant, i,
			 corpus_any_page(part->corpus, i, buffer));
		if (!part->from && i % (1u << 20) == (1u << 20) - 1)
			progress("pages: %u put by one thread", i + 1);
	}
	worker_close(&worker);
	return NULL;
}

/* Two threads, for it takes long. */
static struct tmem_tenant *fill(struct tmem_store *store, struct corpus *corpus,
				const char *name, uint32_t pages)
{
	struct tmem_tenant *tenant =
		tenant_open(store, name, pages, TMEM_POOL_PERSISTENT);
	struct part part[2] = {
		{ corpus, store, tenant, 0, pages / 2 },
		{ corpus, store, tenant, pages / 2, pages },
	};
	pthread_t thread;

	if (pthread_create(&thread, NULL, part_fill, &part[1]))
		die("cannot make a thread");
	part_fill(&part[0]);
	pthread_join(thread, NULL);
	return tenant;
}

/* CPU microseconds of a get among the first @pages pages. */
static double get_us(struct worker *worker, struct tmem_tenant *tenant,
		     uint32_t pages, uint64_t *random, char *evict)
{
	double start;

	evict_caches(evict);
	start = cpu_s();
	for (uint32_t i = 0; i < GETS / TURNS; i++) {
		struct iovec iov = { worker->ring + i % RING * PAGE, PAGE };

		submit(worker, tenant, TMEM_GET, 0, next_random(random) % pages,
		       &iov, 1);
	}
	return (cpu_s() - start) / (GETS / TURNS) * 1e6;
}

/* ---------------------------------------------------------- memory itself */

/* A tenant's stored bytes, to be read. */
struct data {
	const char *map;
	size_t bytes;
	bool *there; /* by page */
};

/* Never a hole: reading one would give it memory. */
static void data_find(struct data *data, int fd)
{
	off_t at = 0, end;

	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		for (; at < end; at += PAGE)
			data->there[at / PAGE] = true;
	}
}

static void data_open(struct data *data, struct tmem_tenant *tenant)
{
	int fd[TMEM_TENANT_FDS];
	volatile char sum = 0;
	struct stat stat;

	/* The last one has the pages. */
	tmem_tenant_fds(tenant, fd);
	if (fstat(fd[1], &stat))
		die("a tenant's memfd has no size");
	data->bytes = stat.st_size;
	data->map = mmap(NULL, data->bytes, PROT_READ, MAP_SHARED, fd[1], 0);
	data->there = calloc(data->bytes / PAGE + 1, 1);
	if (data->map == MAP_FAILED || !data->there)
		die("no memory to map a tenant's pages");
	data_find(data, fd[1]);
	for (size_t i = 0; i < data->bytes / PAGE; i++)
		if (data->there[i])
			sum += data->map[i * PAGE];
}

static void data_close(struct data *data)
{
	munmap((void *)(uintptr_t)data->map, data->bytes);
	free(data->there);
}

/* CPU microseconds of copying @length bytes from a random place. */
static double copy_us(const struct data *data, size_t length, uint64_t *random,
		      char *evict)
{
	static size_t place[GETS / TURNS];
	static char copy[PAGE];
	double start;

	for (uint32_t i = 0; i < GETS / TURNS; i++)
		do
			place[i] = next_random(random) % (data->bytes - PAGE) /
				   64 * 64;
		while (!data->there[place[i] / PAGE] ||
		       !data->there[place[i] / PAGE + 1]);
	evict_caches(evict);
	start = cpu_s();
	for (uint32_t i = 0; i < GETS / TURNS; i++) {
		memcpy(copy, data->map + place[i], length);
		/* All of it, each time. */
		__asm__ volatile("" : : "r"(copy) : "memory");
	}
	return (cpu_s() - start) / (GETS / TURNS) * 1e6;
}

static void memory_rounds(struct tmem_tenant *tenant[2], unsigned int rounds,
			  size_t length, uint64_t *random, char *evict)
{
	struct data data[2];

	for (unsigned int i = 0; i < 2; i++)
		data_open(&data[i], tenant[i]);
	for (unsigned int round = 0; round < rounds; round++) {
		double us[2] = { 0 };

		for (unsigned int i = 0; i < 2 * TURNS; i++)
			us[i % 2] +=
				copy_us(&data[i % 2], length, random, evict) /
				TURNS;
		figure_note("pages", "copy_few_us",
			    "copying as many bytes, of the memory of few", "us",
			    us[0]);
		figure_note("pages", "copy_many_us",
			    "copying as many bytes, of the memory of many",
			    "us", us[1]);
	}
	for (unsigned int i = 0; i < 2; i++)
		data_close(&data[i]);
}

/* ------------------------------------------------------------------ rounds */

static void verify(struct worker *worker, struct tmem_tenant *tenant,
		   struct corpus *corpus, uint32_t pages, uint64_t *random)
{
	char buffer[PAGE];

	for (uint32_t i = 0; i < GETS; i++) {
		uint32_t key = next_random(random) % pages;
		struct iovec iov = { worker->ring, PAGE };

		submit(worker, tenant, TMEM_GET, 0, key, &iov, 1);
		if (memcmp(worker->ring, corpus_any_page(corpus, key, buffer),
			   PAGE))
			die("key %u: the store returned another page", key);
	}
}

static void one_round(struct worker *worker, struct tmem_tenant *tenant[2],
		      const uint32_t pages[2], uint64_t *random, char *evict)
{
	bool all = pages[1] == MANY;
	double us[2] = { 0 };

	for (unsigned int i = 0; i < 2 * TURNS; i++)
		us[i % 2] += get_us(worker, tenant[i % 2], pages[i % 2], random,
				    evict) /
			     TURNS;
	/* What is claimed of so many is not found under its name with fewer. */
	figure_note("pages", "few", "few pages", "", pages[0]);
	figure_note("pages", "many", "many pages", "", pages[1]);
	figure_note("pages", "few_us", "get among few", "us", us[0]);
	figure_note("pages", all ? "many_us" : "less_us", "get among many",
		    "us", us[1]);
	figure_note("pages", all ? "ratio" : "less_ratio", "the ratio of these",
		    "x", us[1] / us[0]);
}

/* How many are many: what there is memory for; 0: nothing. */
static uint32_t many_pages(double mean_length, bool quick)
{
	double available = 1024 * proc_kb("/proc/meminfo", "MemAvailable:");
	/* What is joined compresses a little less, and has an index. */
	double page = 1.15 * mean_length + 64;
	uint32_t wanted[] = { MANY, LESS, MANY_QUICK };

	for (unsigned int i = quick ? 2 : 0; i < ARRAY_SIZE(wanted); i++)
		if (available > wanted[i] * page + SPARE_BYTES)
			return wanted[i];
	return 0;
}

void pages_run(struct corpus *corpus, double mean_length, bool quick)
{
	uint32_t many = many_pages(mean_length, quick);
	uint32_t pages[2] = { quick ? FEW_QUICK : FEW, many };
	unsigned int rounds = quick ? 1 : 7;
	struct tmem_tenant *tenant[2];
	struct tmem_store *store;
	struct worker worker;
	uint64_t random = 1;
	char *evict;

	if (!many) {
		group_missing("pages", "too little memory is available");
		return;
	}
	if (!quick && many < MANY)
		group_say("pages", "%u pages, for want of memory for %u", many,
			  MANY);
	progress("gets among %u pages", many);
	store = store_open(NO_LIMIT);
	worker_open(store, &worker);
	evict = small_pages(EVICT_BYTES);
	tenant[0] = fill(store, corpus, "few", pages[0]);
	tenant[1] = fill(store, corpus, "many", pages[1]);
	step_until(store, 1);
	for (unsigned int round = 0; round < rounds; round++)
		one_round(&worker, tenant, pages, &random, evict);
	memory_rounds(tenant, rounds, mean_length, &random, evict);
	verify(&worker, tenant[1], corpus, many, &random);
	tmem_tenant_drop(tenant[0]);
	tmem_tenant_drop(tenant[1]);
	worker_close(&worker);
	tmem_store_destroy(store);
	small_pages_free(evict, EVICT_BYTES);
}
