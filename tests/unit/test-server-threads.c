/* SPDX-License-Identifier: BSD-3-Clause */
/* Queues that are served at the same time, each by a thread of its own. */
#include <pthread.h>
#include "test-server-fixture.h"

static struct vm vm;

static int setup(void **state)
{
	vm_open(&vm, NULL);
	vm_pools(&vm);
	return 0;
}

static int teardown(void **state)
{
	vm_close(&vm);
	return 0;
}

struct worker {
	pthread_t thread;
	pthread_barrier_t *start;
	unsigned int number, queue;
	uint64_t object;
};

static void run_workers(struct worker *workers, unsigned int num,
			void *(*function)(void *))
{
	pthread_barrier_t start;

	pthread_barrier_init(&start, NULL, num);
	for (unsigned int i = 0; i < num; i++) {
		workers[i].start = &start;
		workers[i].number = i;
		workers[i].queue = BULK + i;
		MUST(!pthread_create(&workers[i].thread, NULL, function,
				     &workers[i]));
	}
	for (unsigned int i = 0; i < num; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_barrier_destroy(&start);
}

/* A page through the worker's own queue; its status. */
static unsigned int put_by(const struct worker *w, uint64_t index,
			   uint64_t seed)
{
	struct req key = { .pool = PERSISTENT,
			   .object = w->object,
			   .index = index,
			   .count = 1 };
	struct reply reply = { 0 };
	uint8_t page[PAGE];
	unsigned int status;

	page_fill(page, PAGE, seed);
	put_pages(&vm, w->queue, &key, page, &reply);
	MUST(!reply.rc && reply.status == OK);
	status = page_status(&reply, 0);
	reply_free(&reply);
	return status;
}

#define ROUNDS	   400
#define PER_THREAD 4

static void *first_puts(void *arg)
{
	struct worker *w = arg;

	pthread_barrier_wait(w->start);
	for (uint64_t i = 0; i < PER_THREAD; i++) {
		uint64_t index = i * 2 + w->number;

		MUST(put_by(w, index, w->object * 100 + index) == OK);
	}
	return NULL;
}

/*
 * V12: two vCPUs put the first pages of the same new object: whoever loses the
 * race to make it must not lose its page.
 */
static void v12_first_puts_race(void **state)
{
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		struct worker w[2] = { { .object = round },
				       { .object = round } };

		run_workers(w, 2, first_puts);
		for (uint64_t i = 0; i < 2 * PER_THREAD; i++)
			assert_int_equal(get_one(&vm, PERSISTENT, round, i,
						 round * 100 + i),
					 OK);
	}
	assert_int_equal(pool_pages(&vm, PERSISTENT), ROUNDS * 2 * PER_THREAD);
}

static void *empty_and_fill(void *arg)
{
	struct worker *w = arg;
	struct req flush = { .op = VIRTIO_TMEM_OP_FLUSH,
			     .pool = PERSISTENT,
			     .object = w->object,
			     .count = 1 };

	pthread_barrier_wait(w->start);
	for (uint64_t i = 0; i < 500; i++) {
		uint64_t index = w->number;

		/* The other thread sees the object come and go. */
		MUST(put_by(w, index, i) == OK);
		flush.index = index;
		if (i % 2)
			MUST(req_status(&vm, w->queue, &flush) == OK);
	}
	MUST(put_by(w, w->number, 1234) == OK);
	return NULL;
}

/* V12, the other way round: one empties the object that the other puts into. */
static void v12_last_flush_races_first_put(void **state)
{
	struct worker w[3] = { { .object = 1 },
			       { .object = 1 },
			       { .object = 1 } };

	run_workers(w, 3, empty_and_fill);
	for (uint64_t i = 0; i < 3; i++)
		assert_int_equal(get_one(&vm, PERSISTENT, 1, i, 1234), OK);
}

static void *own_keys(void *arg)
{
	struct worker *w = arg;
	uint64_t rng = 17 + w->number, seeds[64] = { 0 };

	pthread_barrier_wait(w->start);
	for (unsigned int i = 0; i < 4000; i++) {
		unsigned int n = rng_below(&rng, ARRAY_SIZE(seeds));
		/* Neighbours in one leaf belong to different threads. */
		struct req key = { .pool = PERSISTENT,
				   .object = 5,
				   .index = n * 3 + w->number,
				   .count = 1 };
		struct reply reply = { 0 };
		uint8_t page[PAGE];

		switch (rng_below(&rng, 3)) {
		case 0:
			seeds[n] = 1 + rng_below(&rng, 1000);
			w->object = 5;
			MUST(put_by(w, key.index, seeds[n]) == OK);
			continue;
		case 1:
			key.op = VIRTIO_TMEM_OP_FLUSH;
			if (rng_below(&rng, 2))
				continue;
			MUST(req_status(&vm, w->queue, &key) == OK);
			seeds[n] = 0;
			continue;
		}
		get_pages(&vm, w->queue, &key, &reply);
		MUST(!reply.rc && reply.status == OK);
		MUST(page_status(&reply, 0) == (seeds[n] ? OK : NOENT));
		page_fill(page, PAGE, seeds[n]);
		if (seeds[n])
			MUST(!memcmp(get_data(&reply, 1), page, PAGE));
		reply_free(&reply);
	}
	return NULL;
}

/* Three queues, one object: each thread sees its own keys as if alone. */
static void queues_do_not_disturb(void **state)
{
	struct worker w[3] = { 0 };

	run_workers(w, 3, own_keys);
}

/* Pages that say which version they are, all over. */
static void stamp(uint8_t *page, uint64_t version)
{
	for (size_t i = 0; i < PAGE; i += 16) {
		uint64_t words[2] = { version,
				      version * 0x9e3779b97f4a7c15ull + i };

		memcpy(page + i, words, sizeof(words));
	}
}

static void *same_key(void *arg)
{
	struct worker *w = arg;
	struct req key = { .pool = PERSISTENT, .object = 1, .count = 1 };
	uint8_t page[PAGE], expected[PAGE];
	struct reply reply = { 0 };
	uint64_t last = 0, version;

	pthread_barrier_wait(w->start);
	for (uint64_t i = 1; i <= 3000; i++) {
		if (w->number == 0) {
			stamp(page, i);
			put_pages(&vm, w->queue, &key, page, &reply);
			MUST(page_status(&reply, 0) == OK);
			continue;
		}
		get_pages(&vm, w->queue, &key, &reply);
		if (page_status(&reply, 0) != OK) {
			MUST(!last);
			continue;
		}
		/* One version, whole, and never an older one. */
		memcpy(&version, get_data(&reply, 1), sizeof(version));
		stamp(expected, version);
		MUST(!memcmp(get_data(&reply, 1), expected, PAGE));
		MUST(version >= last);
		last = version;
	}
	reply_free(&reply);
	return NULL;
}

/* One writes a key, two read it: pages are never torn and never go back. */
static void readers_see_whole_versions(void **state)
{
	struct worker w[3] = { 0 };

	run_workers(w, 3, same_key);
}

static void *any_request(void *arg)
{
	struct worker *w = arg;
	uint64_t rng = 99 + w->number;
	struct reply reply = { 0 };

	pthread_barrier_wait(w->start);
	for (unsigned int i = 0; i < 4000; i++) {
		struct req req = { .op = 1 + rng_below(&rng, 8),
				   .pool = rng_below(&rng, 3),
				   .object = rng_below(&rng, 2),
				   .index = rng_below(&rng, 64),
				   .count = 1 + rng_below(&rng, 8) };
		uint8_t pages[8 * PAGE];

		if (req.op == VIRTIO_TMEM_OP_PUT) {
			for (unsigned int n = 0; n < req.count; n++)
				page_fill(pages + n * PAGE, PAGE,
					  rng_next(&rng));
			put_pages(&vm, w->queue, &req, pages, &reply);
		} else if (req.op == VIRTIO_TMEM_OP_GET) {
			req.flags = req.pool == EPHEMERAL && rng_below(&rng, 2);
			get_pages(&vm, w->queue, &req, &reply);
		} else if (req.op <= VIRTIO_TMEM_OP_RESET_ALL) {
			if (req.op == VIRTIO_TMEM_OP_RESET_ALL)
				req.pool = 0;
			if (req.op != VIRTIO_TMEM_OP_POOL_CREATE &&
			    rng_below(&rng, 10))
				continue;
			req.flags = req.op == VIRTIO_TMEM_OP_POOL_CREATE &&
				    req.pool != EPHEMERAL;
			/* Of either page size: transfers meet the other one. */
			req.index = req.op == VIRTIO_TMEM_OP_POOL_CREATE
					    ? SHIFT + rng_below(&rng, 2)
					    : 0;
			req.object = req.count = 0;
			req_status(&vm, w->queue, &req);
		} else {
			if (req.op != VIRTIO_TMEM_OP_FLUSH)
				req.index = req.count = 0;
			req_status(&vm, w->queue, &req);
		}
		MUST(!reply.rc);
	}
	reply_free(&reply);
	return NULL;
}

/* Pools come and go under requests; the fixture checks every used length. */
static void pools_come_and_go(void **state)
{
	struct worker w[3] = { 0 };

	run_workers(w, 3, any_request);
}

/* Statistics and configuration are read by others while queues run. */
static void *read_all(void *arg)
{
	struct worker *w = arg;

	if (w->number)
		return any_request(arg);
	pthread_barrier_wait(w->start);
	for (unsigned int i = 0; i < 2000; i++) {
		struct virtio_tmem_config config;
		struct tmem_server_pool pools[16];
		struct tmem_server_stats stats;

		tmem_server_stats(vm.server, &stats);
		tmem_server_get_config(vm.server, &config);
		tmem_server_config_changed(vm.server);
		MUST(tmem_server_list_pools(vm.server, pools, 16) <= 3);
		if (i % 100 == 0)
			tmem_server_system_reset(vm.server);
	}
	return NULL;
}

static void monitored_while_running(void **state)
{
	struct worker w[3] = { 0 };

	run_workers(w, 3, read_all);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(v12_first_puts_race),
		TEST(v12_last_flush_races_first_put),
		TEST(queues_do_not_disturb),
		TEST(readers_see_whole_versions),
		TEST(pools_come_and_go),
		TEST(monitored_while_running),
	};

	return cmocka_run_group_tests_name("server-threads", tests, NULL, NULL);
}
