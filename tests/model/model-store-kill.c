/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Processes that are killed at any instant, one after another, on the memfds of
 * one tenant.  Each adopts what the last one left, compares it with a journal
 * in memory that all of them share, and goes on: every page that was accepted
 * is there, none that was removed, and what was under way is old, new or gone.
 *
 * MODEL_SECONDS, MODEL_SEED as in model-store.c; a seed does not repeat when
 * the kills came.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "store-fixture.h"
#include "internal.h"

#define THREADS 2
#define OBJECTS 6 /* of a thread in each pool */
#define INDEXES 160
#define POOLS	2 /* pool 1 ends now and then */
#define MAX_RUN 16
#define REMOVED UINT64_MAX

/* What the pages of a key are, by their seeds; 0: there is none. */
struct key {
	_Atomic uint64_t sure;
	_Atomic uint64_t maybe; /* an op is under way; REMOVED: a flush */
};

/* Shared by the one who kills and those who are killed. */
static struct journal {
	struct key key[THREADS][POOLS][OBJECTS][INDEXES];
	atomic_ulong ops, adopted, found, undecided, exclusive, recompressed;
	_Atomic uint64_t seed;
	char fault[300];
} * journal;

static struct fixture f;
static const struct tmem_limits limits = { .size = sizeof(limits),
					   .persistent_reserved = 24 * MIB };

#define FATAL(...)                                                             \
	do {                                                                   \
		snprintf(journal->fault, sizeof(journal->fault), __VA_ARGS__); \
		abort();                                                       \
	} while (0)

struct worker {
	struct tmem_ctx *ctx;
	unsigned int number;
	uint64_t rng;
	uint64_t data[MAX_RUN][PAGE / 8];
};

static uint64_t below(struct worker *w, uint64_t n)
{
	w->rng = mix(w->rng);
	return w->rng % n;
}

/* Half of the indexes lie in a row, the others far apart. */
static uint64_t index_of(unsigned int i)
{
	return i < INDEXES / 2 ? i : mix(i) << i % 40;
}

static struct tmem_op op_of(struct worker *w, uint16_t verb, uint32_t pool,
			    unsigned int object, unsigned int i)
{
	struct tmem_op op = {
		.verb = verb,
		.pool = pool,
		.index = index_of(i),
		.count = 1,
		.page_size = PAGE,
	};

	op.object[0] = w->number;
	op.object[1] = object;
	return op;
}

static void mark(struct key *key, unsigned int count, uint64_t maybe)
{
	for (unsigned int i = 0; i < count; i++)
		atomic_store(&key[i].maybe, maybe);
}

static void settle(struct key *key, uint64_t sure)
{
	atomic_store(&key->sure, sure);
	atomic_store(&key->maybe, 0);
}

/* --------------------------------------------------------------- the work */

static void put_run(struct worker *w, uint32_t pool, unsigned int object,
		    unsigned int i)
{
	unsigned int count =
		i < INDEXES / 2 ? 1 + below(w, MIN(MAX_RUN, INDEXES / 2 - i))
				: 1;
	struct key *key = &journal->key[w->number][pool][object][i];
	struct iovec iov = { w->data, count * PAGE };
	struct tmem_op op = op_of(w, TMEM_PUT, pool, object, i);
	struct tmem_page page[MAX_RUN];
	uint64_t seed[MAX_RUN];

	for (unsigned int n = 0; n < count; n++) {
		seed[n] = 1 + below(w, UINT32_MAX);
		make_page(w->data[n], seed[n], PAGE);
		atomic_store(&key[n].maybe, seed[n]);
	}
	op.count = count;
	op.iov = &iov;
	op.iovcnt = 1;
	op.page = page;
	if (tmem_submit(w->ctx, f.tenant, &op))
		FATAL("a put was refused as a whole");
	for (unsigned int n = 0; n < count; n++)
		settle(&key[n], page[n].status == TMEM_PAGE_OK ? seed[n] : 0);
}

static void flush_some(struct worker *w, uint32_t pool, unsigned int object,
		       unsigned int i)
{
	unsigned int count =
		i < INDEXES / 2 ? 1 + below(w, INDEXES / 2 - i) : 1;
	struct key *key = &journal->key[w->number][pool][object][i];
	struct tmem_op op = op_of(w, TMEM_FLUSH, pool, object, i);

	mark(key, count, REMOVED);
	op.count = count;
	if (tmem_submit(w->ctx, f.tenant, &op) || op.done != count)
		FATAL("a flush did not end");
	for (unsigned int n = 0; n < count; n++)
		settle(&key[n], 0);
}

static void flush_object(struct worker *w, uint32_t pool, unsigned int object)
{
	struct key *key = journal->key[w->number][pool][object];
	struct tmem_op op = op_of(w, TMEM_FLUSH_OBJECT, pool, object, 0);

	mark(key, INDEXES, REMOVED);
	if (tmem_submit(w->ctx, f.tenant, &op))
		FATAL("an object was not flushed");
	for (unsigned int n = 0; n < INDEXES; n++)
		settle(&key[n], 0);
}

/* Of the one thread that uses pool 1. */
static void end_pool(struct worker *w)
{
	struct tmem_pool_params params = { TMEM_POOL_PERSISTENT, 12 };
	struct key *key = journal->key[w->number][1][0];

	mark(key, OBJECTS * INDEXES, REMOVED);
	tmem_pool_destroy(f.tenant, 1);
	for (unsigned int n = 0; n < OBJECTS * INDEXES; n++)
		settle(&key[n], 0);
	if (tmem_pool_create(f.tenant, 1, &params, NULL))
		FATAL("a pool could not be made");
}

/* Ephemeral pages come and go beside them, exclusive gets among them. */
static void ephemeral(struct worker *w)
{
	struct iovec iov = { w->data, PAGE };
	struct tmem_op op =
		op_of(w, TMEM_PUT, 2, below(w, OBJECTS), below(w, INDEXES));
	struct tmem_page page = { 0 };

	make_page(w->data[0], below(w, UINT32_MAX), PAGE);
	op.iov = &iov;
	op.iovcnt = 1;
	op.page = &page;
	tmem_submit(w->ctx, f.tenant, &op);
	op.verb = TMEM_GET;
	op.flags = TMEM_GET_EXCLUSIVE;
	op.index = index_of(below(w, INDEXES));
	tmem_submit(w->ctx, f.tenant, &op);
	if (page.status == TMEM_PAGE_OK)
		atomic_fetch_add(&journal->exclusive, 1);
	(below(w, 2) ? tmem_retire : tmem_unretire)(w->ctx, &op);
}

static void *work(void *opaque)
{
	struct worker *w = opaque;

	for (;;) {
		uint32_t pool = w->number ? 0 : below(w, POOLS);
		unsigned int object = below(w, OBJECTS), i = below(w, INDEXES);
		unsigned int what = below(w, 100);

		if (what < 60)
			put_run(w, pool, object, i);
		else if (what < 80)
			flush_some(w, pool, object, i);
		else if (what < 82)
			flush_object(w, pool, object);
		else if (what < 83 && !w->number)
			end_pool(w);
		else if (what < 93)
			ephemeral(w);
		else
			tmem_step(f.store, 1 + below(w, 300));
		atomic_fetch_add(&journal->ops, 1);
	}
	return NULL;
}

/* ------------------------------------------------------------- adoption */

/* Is the page in w->data[0] that of @seed? */
static bool is_page(struct worker *w, uint64_t seed)
{
	if (!seed || seed == REMOVED)
		return false;
	make_page(w->data[1], seed, PAGE);
	return !memcmp(w->data[0], w->data[1], PAGE);
}

static void verify_key(struct worker *w, uint32_t pool, unsigned int object,
		       unsigned int i, uint64_t *pages)
{
	struct key *key = &journal->key[w->number][pool][object][i];
	uint64_t sure = key->sure, maybe = key->maybe;
	struct iovec iov = { w->data, PAGE };
	struct tmem_op op = op_of(w, TMEM_GET, pool, object, i);
	struct tmem_page page = { 0 };

	op.iov = &iov;
	op.iovcnt = 1;
	op.page = &page;
	if (tmem_submit(w->ctx, f.tenant, &op))
		FATAL("key %u.%u.%u.%u: a get failed", w->number, pool, object,
		      i);
	if (page.status == TMEM_PAGE_IO)
		FATAL("key %u.%u.%u.%u: damaged", w->number, pool, object, i);
	if (page.status == TMEM_PAGE_MISS) {
		if (sure && !maybe)
			FATAL("key %u.%u.%u.%u: an accepted page is lost",
			      w->number, pool, object, i);
		sure = 0;
	} else {
		if (!is_page(w, sure)) {
			if (!is_page(w, maybe))
				FATAL("key %u.%u.%u.%u: another page",
				      w->number, pool, object, i);
			sure = maybe;
		}
		++*pages;
	}
	if (maybe)
		atomic_fetch_add(&journal->undecided, 1);
	settle(key, sure);
}

static void verify(struct worker *w)
{
	struct tmem_pool_params params = { TMEM_POOL_PERSISTENT, 12 };
	struct tmem_stats stats = { .size = sizeof(stats) };
	char message[200];
	uint64_t pages = 0;

	if (tmem_check(f.store, message, sizeof(message)))
		FATAL("tmem_check: %s", message);
	/* A pool that was killed between its end and its beginning. */
	if (tmem_pool_create(f.tenant, 1, &params, NULL))
		FATAL("pool 1 is another");
	for (w->number = 0; w->number < THREADS; w->number++)
		for (uint32_t pool = 0; pool < POOLS; pool++)
			for (unsigned int o = 0; o < OBJECTS; o++)
				for (unsigned int i = 0; i < INDEXES; i++)
					verify_key(w, pool, o, i, &pages);
	tmem_tenant_stats(f.tenant, &stats);
	if (stats.persistent_pages != pages)
		FATAL("%ju pages held, %ju found",
		      (uintmax_t)stats.persistent_pages, (uintmax_t)pages);
	atomic_fetch_add(&journal->adopted, 1);
	atomic_fetch_add(&journal->found, pages);
	atomic_fetch_add(&journal->recompressed, stats.recompressed_pages);
}

/* Never returns. */
static void live_until_killed(const int fd[TMEM_TENANT_FDS], uint64_t seed)
{
	static struct worker worker[THREADS];
	struct tmem_store_config config = {
		.size = sizeof(config),
		.flags = seed & 1 ? TMEM_STORE_SIZE_CLASSES : 0,
		.max_bytes = 40 * MIB,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
		.recompress_percent = 100,
	};
	pthread_t thread;
	int error;

	if (tmem_store_create(&config, &f.store))
		FATAL("no store");
	f.store->recompress.after_s = 0;
	error = tmem_tenant_adopt(f.store, "test", &limits, fd, &f.tenant);
	if (error)
		FATAL("adopt: %d", error);
	for (unsigned int i = 0; i < THREADS; i++)
		if (tmem_ctx_create(f.store, &worker[i].ctx))
			FATAL("no context");
	verify(&worker[0]);
	for (unsigned int i = 0; i < THREADS; i++) {
		worker[i].number = i;
		worker[i].rng = mix(seed + i);
		if (i && pthread_create(&thread, NULL, work, &worker[i]))
			FATAL("no thread");
	}
	work(&worker[0]);
}

/* ------------------------------------------------------------------- kills */

static void make_tenant(int fd[TMEM_TENANT_FDS])
{
	fixture_open(&f, 40 * MIB, 24 * MIB);
	pool_open(&f, 0, TMEM_POOL_PERSISTENT);
	pool_open(&f, 1, TMEM_POOL_PERSISTENT);
	pool_open(&f, 2, 0);
	tmem_tenant_fds(f.tenant, fd);
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		fd[i] = dup(fd[i]);
	tmem_ctx_destroy(f.ctx);
	tmem_tenant_detach(f.tenant);
	tmem_store_destroy(f.store);
}

static void one_life(const int fd[TMEM_TENANT_FDS], uint64_t seed)
{
	unsigned long before = atomic_load(&journal->adopted);
	uint64_t us = mix(seed) % 20000;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid)
		live_until_killed(fd, seed);
	/* Mostly while it works, sometimes while it adopts. */
	while (seed % 8 && atomic_load(&journal->adopted) == before &&
	       !journal->fault[0])
		usleep(200);
	usleep(us);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (journal->fault[0])
		fail_msg("MODEL_SEED=%ju: %s", (uintmax_t)seed, journal->fault);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("MODEL_SEED=%ju: ended by itself, status %#x",
			 (uintmax_t)seed, status);
}

static void killed_at_any_instant(void **state)
{
	const char *given = getenv("MODEL_SEED"), *s = getenv("MODEL_SECONDS");
	time_t end = time(NULL) + (s ? atoi(s) : 5);
	uint64_t seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
	int fd[TMEM_TENANT_FDS];
	unsigned int kills = 0;

	journal = mmap(NULL, sizeof(*journal), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(journal != MAP_FAILED);
	make_tenant(fd);
	print_message("# first MODEL_SEED=%ju\n", (uintmax_t)seed);
	/* On a busy machine it takes longer until some page was recompressed.
	 */
	while (kills < 100 || time(NULL) < end ||
	       (!atomic_load(&journal->recompressed) && kills < 1000)) {
		one_life(fd, seed++);
		kills++;
	}
	print_message("# %u kills after %lu ops (%lu exclusive gets); %lu "
		      "times adopted, %lu pages found, %lu undecided\n",
		      kills, atomic_load(&journal->ops),
		      atomic_load(&journal->exclusive),
		      atomic_load(&journal->adopted),
		      atomic_load(&journal->found),
		      atomic_load(&journal->undecided));
	assert_true(atomic_load(&journal->adopted) >= kills / 2);
	assert_true(atomic_load(&journal->recompressed) > 0);
	assert_true(atomic_load(&journal->undecided) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_at_any_instant),
	};

	return cmocka_run_group_tests_name("store-kill", tests, NULL, NULL);
}
