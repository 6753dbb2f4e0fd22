/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An index test: pages of one repeated word, which are nothing but index
 *
 * Bytes of index a page, and time of gets, flushes and misses by the number of
 * keys.  Misses are of keys that were flushed, among others that are there: the
 * path to them is.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "sides.h"

/* Keys of the two tests of time, and of a test of bytes. */
#define FEW	    100000u
#define MANY	    100000000u
#define MANY_QUICK  1000000u
#define LESS	    10000000u
#define BYTES	    1000000u
#define BYTES_QUICK 100000u
/* Of a key in the index, and what is left to others. */
#define KEY_BYTES   16.0
#define SPARE_BYTES (2 * GIB)
/* Pages of one word side by side; a put may have as many. */
#define PATCH ((uint32_t)TMEM_MAX_RUN)
/* Pages of a timed pass. */
#define VISITS 204800u

struct index {
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct worker worker;
	uint32_t keys;
	uint32_t *page; /* of one word */
	char *evict;
};

/* ------------------------------------------------------------------- fills */

static uint32_t word_of(uint64_t key)
{
	return key / PATCH + 1;
}

static void fill_word(uint32_t *page, uint32_t word)
{
	for (uint32_t i = 0; i < PAGE / sizeof(word); i++)
		page[i] = word;
}

/* @count <= PATCH pages of object @object, all of one word. */
static void put_same(struct worker *worker, struct tmem_tenant *tenant,
		     uint32_t object, uint64_t index, uint32_t count,
		     uint32_t *page)
{
	static struct iovec iov[PATCH];
	static struct tmem_page status[PATCH];
	struct tmem_op op = {
		.verb = TMEM_PUT,
		.index = index,
		.count = count,
		.page_size = PAGE,
		.iov = iov,
		.iovcnt = count,
		.page = status,
	};

	memcpy(op.object, &object, sizeof(object));
	for (uint32_t i = 0; i < count; i++)
		iov[i] = (struct iovec){ page, PAGE };
	if (tmem_submit(worker->ctx, tenant, &op) || op.done != count)
		die("the store refused %u of %u same-filled pages: is memory "
		    "free?",
		    count - (unsigned int)op.done, count);
}

/* ------------------------------------------------------------------- bytes */

static double library_bytes(struct tmem_store *store)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_store_stats(store, &stats);
	return stats.held_bytes;
}

struct kind {
	uint32_t flags, run; /* pages of an object; 0: all */
	const char *key, *what, *key_kernel;
};

static void bytes_measure(const struct kind *kind, uint32_t pages)
{
	uint32_t *page = small_pages(PAGE);
	uint32_t run = kind->run ? kind->run : PATCH;
	struct tmem_tenant *tenant;
	struct tmem_store *store;
	struct worker worker;
	double kernel, library;

	fill_word(page, 1);
	malloc_trim(0);
	store = store_open(NO_LIMIT);
	worker_open(store, &worker);
	tenant = tenant_open(store, "index", 0, kind->flags);
	kernel = kernel_bytes();
	library = library_bytes(store);
	for (uint32_t i = 0; i < pages / run; i++)
		put_same(&worker, tenant, kind->run ? i : 0,
			 kind->run ? 0 : i * run, run, page);
	step_until(store, 1);
	pages = pages / run * run;
	library = (library_bytes(store) - library) / pages;
	kernel = (kernel_bytes() - kernel) / pages;
	figure_note("index", kind->key, kind->what, "B", library);
	figure_note("index", kind->key_kernel, "the same, kernel", "B", kernel);
	tmem_tenant_drop(tenant);
	worker_close(&worker);
	tmem_store_destroy(store);
	small_pages_free(page, PAGE);
}

static void bytes_run(uint32_t pages)
{
	static const struct kind kinds[] = {
		{ TMEM_POOL_PERSISTENT, 0, "bytes_persistent",
		  "bytes a page, dense, persistent, library",
		  "bytes_persistent_kernel" },
		{ 0, 0, "bytes_ephemeral",
		  "bytes a page, dense, ephemeral, library",
		  "bytes_ephemeral_kernel" },
		{ TMEM_POOL_PERSISTENT, 1, "bytes_object_1",
		  "bytes a page, objects of one page, library",
		  "bytes_object_1_kernel" },
		{ TMEM_POOL_PERSISTENT, 8, "bytes_object_8",
		  "bytes a page, objects of eight pages, library",
		  "bytes_object_8_kernel" },
	};

	progress("index test: bytes");
	for (unsigned int i = 0; i < ARRAY_SIZE(kinds); i++)
		bytes_measure(&kinds[i], pages);
}

/* -------------------------------------------------------------------- time */

enum pass {
	GET_SINGLE,
	GET_RUN,
	FILL,
	FLUSH_SINGLE,
	FLUSH_RUN,
	MISS_SINGLE,
	MISS_RUN,
	PASSES
};

/* One op over @run keys, which all are there or all are not. */
static void visit(struct index *index, enum tmem_verb verb, uint64_t key,
		  unsigned int run, bool there)
{
	struct iovec iov[MAX_RUN];
	struct tmem_page page[MAX_RUN];
	struct tmem_op op = {
		.verb = verb,
		.index = key,
		.count = run,
		.page_size = PAGE,
		.iov = iov,
		.iovcnt = run,
		.page = page,
	};
	uint32_t word;

	for (unsigned int i = 0; i < run; i++)
		iov[i] = (struct iovec){ index->worker.ring + i * PAGE, PAGE };
	if (tmem_submit(index->worker.ctx, index->tenant, &op))
		die("index test: an op failed");
	if (verb != TMEM_GET)
		return;
	if (op.done != (there ? run : 0))
		die("index test: %u of %u pages found at %ju",
		    (unsigned int)op.done, run, (uintmax_t)key);
	memcpy(&word, index->worker.ring + (run - 1) * PAGE, sizeof(word));
	if (there && word != word_of(key))
		die("index test: another page at %ju", (uintmax_t)key);
}

/*
 * Runs at random, @visits pages in all; @random: the same ones for the same.
 * CPU nanoseconds a page.
 */
static double pass_ns(struct index *index, enum tmem_verb verb,
		      unsigned int run, uint32_t visits, uint64_t random,
		      bool there)
{
	uint32_t runs = index->keys / run;
	double start;

	evict_caches(index->evict);
	start = cpu_s();
	for (uint32_t i = 0; i < visits / run; i++)
		visit(index, verb, next_random(&random) % runs * run, run,
		      there);
	return (cpu_s() - start) / (visits / run * run) * 1e9;
}

/* What a get cannot do without, into the pages that gets of runs have. */
static double fill_ns(struct index *index)
{
	double start;

	evict_caches(index->evict);
	start = cpu_s();
	for (uint32_t i = 0; i < VISITS; i++)
		fill_word((uint32_t *)(index->worker.ring + i % MAX_RUN * PAGE),
			  word_of(i));
	return (cpu_s() - start) / VISITS * 1e9;
}

/* What pass_ns() of a flush removed. */
static void put_back(struct index *index, unsigned int run, uint32_t visits,
		     uint64_t random)
{
	uint32_t runs = index->keys / run;

	for (uint32_t i = 0; i < visits / run; i++) {
		uint64_t key = next_random(&random) % runs * run;

		fill_word(index->page, word_of(key));
		put_same(&index->worker, index->tenant, 0, key, run,
			 index->page);
	}
}

static void one_round(struct index *index, unsigned int round,
		      double ns[PASSES])
{
	/* A sixteenth of the keys at most is flushed. */
	uint32_t gone = index->keys / 16 < VISITS ? index->keys / 16 : VISITS;
	uint64_t single = 3 * round + 1, run = 3 * round + 2;

	ns[GET_SINGLE] =
		pass_ns(index, TMEM_GET, 1, VISITS, 3 * round + 3, true);
	ns[GET_RUN] =
		pass_ns(index, TMEM_GET, MAX_RUN, VISITS, 3 * round + 3, true);
	ns[FILL] = fill_ns(index);
	ns[FLUSH_SINGLE] = pass_ns(index, TMEM_FLUSH, 1, gone, single, true);
	ns[MISS_SINGLE] = pass_ns(index, TMEM_GET, 1, gone, single, false);
	put_back(index, 1, gone, single);
	ns[FLUSH_RUN] = pass_ns(index, TMEM_FLUSH, MAX_RUN, gone, run, true);
	ns[MISS_RUN] = pass_ns(index, TMEM_GET, MAX_RUN, gone, run, false);
	put_back(index, MAX_RUN, gone, run);
}

/* How many keys there are: what is claimed of all is not found under its name
 * with fewer. */
enum amount { AMOUNT_FEW, AMOUNT_LESS, AMOUNT_ALL, AMOUNTS };

static void note(enum amount amount, const double ns[PASSES])
{
	static const char *const keys[AMOUNTS][PASSES] = {
		{ "few_get_ns", "few_get_run_ns", "few_fill_ns", "few_flush_ns",
		  "few_flush_run_ns", "few_miss_ns", "few_miss_run_ns" },
		{ "less_get_ns", "less_get_run_ns", "less_fill_ns",
		  "less_flush_ns", "less_flush_run_ns", "less_miss_ns",
		  "less_miss_run_ns" },
		{ "get_ns", "get_run_ns", "fill_ns", "flush_ns", "flush_run_ns",
		  "miss_ns", "miss_run_ns" },
	};
	static const char *const what[2][PASSES] = {
		{ "10^5 keys: get at random",
		  "10^5 keys: get in runs of 16, a page",
		  "10^5 keys: filling the page alone",
		  "10^5 keys: flush at random",
		  "10^5 keys: flush in runs of 16, a page",
		  "10^5 keys: miss at random",
		  "10^5 keys: miss in runs of 16, a page" },
		{ "all keys: get at random",
		  "all keys: get in runs of 16, a page",
		  "all keys: filling the page alone",
		  "all keys: flush at random",
		  "all keys: flush in runs of 16, a page",
		  "all keys: miss at random",
		  "all keys: miss in runs of 16, a page" },
	};

	for (unsigned int i = 0; i < PASSES; i++)
		figure_note("index", keys[amount][i],
			    what[amount != AMOUNT_FEW][i], "ns", ns[i]);
}

static void time_run(uint32_t keys, unsigned int rounds, enum amount amount)
{
	struct index index = { .keys = keys / PATCH * PATCH };
	double ns[PASSES];

	progress("index test: %u keys", keys);
	index.store = store_open(NO_LIMIT);
	worker_open(index.store, &index.worker);
	index.tenant =
		tenant_open(index.store, "index", 0, TMEM_POOL_PERSISTENT);
	index.page = small_pages(PAGE);
	index.evict = small_pages(EVICT_BYTES);
	for (uint32_t key = 0; key < index.keys; key += PATCH) {
		fill_word(index.page, word_of(key));
		put_same(&index.worker, index.tenant, 0, key, PATCH,
			 index.page);
		if (key % (PATCH << 16) == 0 && key)
			progress("index test: %u keys are there", key);
	}
	step_until(index.store, 1);
	if (amount != AMOUNT_FEW)
		figure_note("index", "keys", "all keys", "", index.keys);
	for (unsigned int round = 0; round < rounds; round++) {
		one_round(&index, round, ns);
		note(amount, ns);
	}
	tmem_tenant_drop(index.tenant);
	worker_close(&index.worker);
	tmem_store_destroy(index.store);
	small_pages_free(index.page, PAGE);
	small_pages_free(index.evict, EVICT_BYTES);
}

void index_run(bool quick)
{
	double available = 1024 * proc_kb("/proc/meminfo", "MemAvailable:");
	uint32_t many = quick ? MANY_QUICK : MANY;

	if (available < many * KEY_BYTES + SPARE_BYTES) {
		many = quick ? FEW : LESS;
		group_say("index", "for want of memory %u keys", many);
	}
	bytes_run(quick ? BYTES_QUICK : BYTES);
	time_run(FEW, quick ? 1 : 5, AMOUNT_FEW);
	time_run(many, quick ? 1 : 5, many == MANY ? AMOUNT_ALL : AMOUNT_LESS);
}
