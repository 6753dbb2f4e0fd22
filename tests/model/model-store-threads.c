/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Threads with keys of their own in one object, each of which knows what it
 * must find, and one that steps, shrinks, changes limits and checks meanwhile.
 *
 * MODEL_SECONDS, MODEL_SEED as in model-store.c; a seed does not repeat what
 * the scheduler did.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include "store-fixture.h"
#include "internal.h"

#define THREADS	   3
#define KEYS	   600 /* of a thread in each pool */
#define PERSISTENT 0
#define EPHEMERAL  1

/* cmocka's asserts belong to the main thread. */
#define MUST(condition)                                                        \
	do {                                                                   \
		if (!(condition)) {                                            \
			fprintf(stderr, "%s:%d: %s (MODEL_SEED=%ju)\n",        \
				__FILE__, __LINE__, #condition,                \
				(uintmax_t)seed);                              \
			abort();                                               \
		}                                                              \
	} while (0)

static struct fixture f;
static uint64_t seed;
static atomic_bool stop;
static atomic_bool recompressed; /* some page, at some time */
static atomic_ulong ops;

struct worker {
	pthread_t thread;
	struct tmem_ctx *ctx;
	unsigned int number;
	uint64_t rng;
	uint64_t seeds[2][KEYS]; /* of the page; 0: there is none */
	uint64_t data[PAGE / 8], expected[PAGE / 8];
};

static uint64_t below(struct worker *w, uint64_t n)
{
	w->rng = mix(w->rng);
	return w->rng % n;
}

static int one(struct worker *w, uint16_t verb, uint16_t flags, uint32_t pool,
	       uint64_t key, struct tmem_page *page, struct tmem_op *op)
{
	struct iovec iov = { w->data, PAGE };

	/* Neighbours in a leaf belong to different threads. */
	*op = (struct tmem_op){ .verb = verb,
				.flags = flags,
				.pool = pool,
				.index = key * THREADS + w->number,
				.count = 1,
				.page_size = PAGE,
				.iov = &iov,
				.iovcnt = 1,
				.page = page };
	return tmem_submit(w->ctx, f.tenant, op);
}

static void work_put(struct worker *w, uint32_t pool, uint64_t key)
{
	uint64_t content = mix(w->rng) | 1ull << 40;
	struct tmem_page page = { 0 };
	struct tmem_op op;
	int error;

	make_page(w->data, content, PAGE);
	error = one(w, TMEM_PUT, 0, pool, key, &page, &op);
	if (error == -EAGAIN)
		return;
	MUST(!error);
	w->seeds[pool][key] = page.status == TMEM_PAGE_OK ? content : 0;
}

static void work_get(struct worker *w, uint32_t pool, uint64_t key, bool take)
{
	uint64_t *content = &w->seeds[pool][key];
	struct tmem_page page = { 0 };
	struct tmem_op op;

	MUST(!one(w, TMEM_GET, take ? TMEM_GET_EXCLUSIVE : 0, pool, key, &page,
		  &op));
	if (page.status == TMEM_PAGE_MISS) {
		MUST(pool == EPHEMERAL || !*content);
		*content = 0;
		return;
	}
	MUST(page.status == TMEM_PAGE_OK && *content);
	make_page(w->expected, *content, PAGE);
	MUST(!memcmp(w->data, w->expected, PAGE));
	if (!take)
		return;
	if (below(w, 2)) {
		tmem_retire(w->ctx, &op);
		*content = 0;
	} else {
		tmem_unretire(w->ctx, &op);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		uint32_t pool = below(w, 2);
		/* Most are left alone for a while, and recompressed. */
		uint64_t key = below(w, below(w, 32) ? 50 : KEYS);
		unsigned int what = below(w, 10);
		struct tmem_op op;

		if (what < 5) {
			work_put(w, pool, key);
		} else if (what < 8) {
			work_get(w, pool, key, pool == EPHEMERAL && what == 7);
		} else {
			MUST(!one(w, TMEM_FLUSH, 0, pool, key, NULL, &op));
			w->seeds[pool][key] = 0;
		}
		atomic_fetch_add(&ops, 1);
	}
	for (uint64_t key = 0; key < KEYS; key++)
		for (uint32_t pool = 0; pool < 2; pool++)
			work_get(w, pool, key, false);
	return NULL;
}

static void *keep_house(void *arg)
{
	uint64_t r = mix(seed);
	char message[200];

	while (!atomic_load(&stop)) {
		struct tmem_limits limits = {
			.size = sizeof(limits),
			.persistent_reserved = r % 3 * MIB,
			.ephemeral_max = (r >> 8) % 4 * MIB,
		};
		struct tmem_pool_limits pool_limits = {
			.size = sizeof(pool_limits),
			.reserved = (r >> 26) % 3 * MIB / 2,
			.max_bytes = (r >> 28) % 4 * MIB / 2,
			.weight = (r >> 30) % 300,
		};
		struct tmem_stats stats = { .size = sizeof(stats) };

		r = mix(r);
		tmem_step(f.store, 1 + r % 500);
		if (r >> 16 & 1)
			tmem_shrink(f.store, r % MIB);
		if (r >> 17 & 1)
			tmem_tenant_set_limits(f.tenant, &limits);
		if (r >> 24 & 1)
			tmem_pool_set_limits(f.tenant, r >> 25 & 1,
					     &pool_limits);
		if (r >> 18 & 1)
			tmem_store_set_max(f.store, (2 + r % 6) * MIB);
		if ((r >> 19) % 8 == 0) {
			tmem_tenant_freeze(f.tenant, true);
			tmem_shrink(f.store, MIB);
			tmem_tenant_freeze(f.tenant, false);
		}
		tmem_store_stats(f.store, &stats);
		if (stats.recompressed_pages)
			atomic_store(&recompressed, true);
		MUST(tmem_tenant_pressure(f.tenant) <= 3);
		if (tmem_check(f.store, message, sizeof(message))) {
			fprintf(stderr, "%s\n", message);
			MUST(!"tmem_check");
		}
	}
	return NULL;
}

/* Pools and objects that others know nothing of come and go beside them. */
static void *come_and_go(void *arg)
{
	struct worker w = { .number = 0, .rng = seed + 99 };
	struct tmem_pool_params params = { 0, 12 };

	MUST(!tmem_ctx_create(f.store, &w.ctx));
	while (!atomic_load(&stop)) {
		struct tmem_page page;
		struct tmem_op op;

		params.flags = below(&w, 2);
		MUST(!tmem_pool_create(f.tenant, 2, &params, NULL));
		for (uint64_t key = 0; key < 50; key++) {
			make_page(w.data, w.rng, PAGE);
			one(&w, TMEM_PUT, 0, 2, key, &page, &op);
			if (key == 25)
				MUST(!one(&w, TMEM_FLUSH_OBJECT, 0, 2, 0, NULL,
					  &op));
		}
		MUST(!tmem_pool_destroy(f.tenant, 2));
	}
	tmem_ctx_destroy(w.ctx);
	return NULL;
}

static void threads_of_one_object(void **state)
{
	static struct worker worker[THREADS];
	const char *given = getenv("MODEL_SEED"), *s = getenv("MODEL_SECONDS");
	double seconds = s ? atof(s) : 3;
	pthread_t house, others;
	struct timespec time = { seconds, (seconds - (long)seconds) * 1e9 };

	seed = given ? strtoull(given, NULL, 0) : (uint64_t)clock() * 1000003;
	print_message("# MODEL_SEED=%ju\n", (uintmax_t)seed);
	fixture_flags = seed & 1 ? TMEM_STORE_SIZE_CLASSES : 0;
	fixture_open_recompressing(&f, 6 * MIB, MIB, 100);
	f.store->recompress.after_s = 0;
	pool_open(&f, PERSISTENT, TMEM_POOL_PERSISTENT);
	pool_open(&f, EPHEMERAL, 0);
	for (unsigned int i = 0; i < THREADS; i++) {
		worker[i].number = i;
		worker[i].rng = mix(seed + i);
		MUST(!tmem_ctx_create(f.store, &worker[i].ctx));
		MUST(!pthread_create(&worker[i].thread, NULL, work,
				     &worker[i]));
	}
	MUST(!pthread_create(&house, NULL, keep_house, NULL));
	MUST(!pthread_create(&others, NULL, come_and_go, NULL));
	nanosleep(&time, NULL);
	/* On a busy machine that takes longer. */
	for (unsigned int i = 0; i < 60 && !atomic_load(&recompressed); i++)
		sleep(1);
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(worker[i].thread, NULL);
		tmem_ctx_destroy(worker[i].ctx);
	}
	pthread_join(house, NULL);
	pthread_join(others, NULL);
	print_message("# %lu ops\n", atomic_load(&ops));
	assert_true(atomic_load(&ops) > 100);
	assert_true(atomic_load(&recompressed));
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_of_one_object),
	};

	return cmocka_run_group_tests_name("model-store-threads", tests, NULL,
					   NULL);
}
