/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The request server: configuration, features, pools, queues and counters.
 * test-server-pages.c has what happens to pages.
 */
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

/* ---------------------------------------------------------- configuration */

static void config_space(void **state)
{
	struct virtio_tmem_config config;

	tmem_server_get_config(vm.server, &config);
	assert_int_equal(le32toh(config.generation), 1);
	assert_int_equal(le32toh(config.pressure), VIRTIO_TMEM_PRESSURE_NONE);
	assert_int_equal(le16toh(config.num_fast), 1);
	assert_int_equal(le16toh(config.num_bulk), VM_QUEUES - 1);
	assert_int_equal(le32toh(config.max_pools), 16);
	assert_int_equal(le32toh(config.max_pages), 64);
	assert_int_equal(le32toh(config.max_segs), 130);
	assert_int_equal(le32toh(config.page_sizes), 0x1f000);
	assert_int_equal(le32toh(config.codecs), 0);
	assert_int_equal(le64toh(config.persistent_reserved), 0);
	assert_int_equal(le64toh(config.persistent_max), 256 * MIB);
	assert_int_equal(le64toh(config.ephemeral_max), 256 * MIB);
}

static void config_changes(void **state)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_reserved = MIB };
	struct virtio_tmem_config config;

	assert_false(tmem_server_config_changed(vm.server));
	assert_int_equal(tmem_tenant_set_limits(vm.tenant, &limits), 0);
	assert_true(tmem_server_config_changed(vm.server));
	assert_false(tmem_server_config_changed(vm.server));
	tmem_server_get_config(vm.server, &config);
	assert_int_equal(le64toh(config.persistent_reserved), MIB);
	tmem_server_new_generation(vm.server, 77);
	assert_true(tmem_server_config_changed(vm.server));
	tmem_server_get_config(vm.server, &config);
	assert_int_equal(le32toh(config.generation), 77);
}

static void bad_configs(void **state)
{
	const struct tmem_server_config good = { .store = vm.store,
						 .tenant = vm.tenant,
						 .num_bulk = 1 };
	struct tmem_server_config bad[7];
	struct tmem_server_queue *queue;
	struct tmem_server *server;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[0].store = NULL;
	bad[1].tenant = NULL;
	bad[2].num_bulk = 0;
	bad[3].max_pools = TMEM_MAX_POOLS + 1;
	bad[4].max_pages = TMEM_MAX_RUN + 1;
	bad[5].max_segs = 2;
	bad[6].max_pools = UINT32_MAX;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(tmem_server_create(&bad[i], &server), -EINVAL);
	assert_int_equal(tmem_server_create(&good, &server), 0);
	assert_int_equal(tmem_server_queue_create(server, 1, &queue), -EINVAL);
	assert_int_equal(tmem_server_queue_create(server, UINT32_MAX, &queue),
			 -EINVAL);
	tmem_server_destroy(server);
	tmem_server_destroy(NULL);
	tmem_server_queue_destroy(NULL);
}

static void features(void **state)
{
	const uint64_t all = 1 << VIRTIO_TMEM_F_PERSISTENT |
			     1 << VIRTIO_TMEM_F_EPHEMERAL |
			     1 << VIRTIO_TMEM_F_EVENTS;
	struct req req = { .op = VIRTIO_TMEM_OP_POOL_CREATE,
			   .pool = 5,
			   .index = SHIFT };

	/* Configured with all bits, has these. */
	assert_int_equal(tmem_server_features(vm.server), all);
	assert_int_equal(tmem_server_set_features(
				 vm.server, all | 1 << VIRTIO_TMEM_F_SHARED),
			 -EINVAL);
	/* The transport's bits are none of the server's business. */
	assert_int_equal(tmem_server_set_features(
				 vm.server, 1ull << 32 | 1ull << 29 | all),
			 0);
	/* What was not negotiated does not work, in either direction. */
	put_one(&vm, PERSISTENT, 1, 1, 1);
	put_one(&vm, EPHEMERAL, 1, 1, 1);
	tmem_server_set_features(vm.server, 1 << VIRTIO_TMEM_F_PERSISTENT);
	assert_int_equal(req_status(&vm, BULK, &req), UNSUPP);
	req.flags = VIRTIO_TMEM_POOL_PERSISTENT;
	assert_int_equal(req_status(&vm, BULK, &req), OK);
	req = (struct req){ .op = VIRTIO_TMEM_OP_FLUSH,
			    .pool = EPHEMERAL,
			    .count = 1 };
	assert_int_equal(req_status(&vm, BULK, &req), UNSUPP);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 1, 1), OK);
	tmem_server_set_features(vm.server, 1 << VIRTIO_TMEM_F_EPHEMERAL);
	req.pool = PERSISTENT;
	assert_int_equal(req_status(&vm, BULK, &req), UNSUPP);
	assert_int_equal(get_one(&vm, EPHEMERAL, 1, 1, 1), OK);
	/* Nothing needs no feature but these. */
	tmem_server_set_features(vm.server, 0);
	req = (struct req){ .op = VIRTIO_TMEM_OP_POOL_DESTROY,
			    .pool = PERSISTENT };
	assert_int_equal(req_status(&vm, BULK, &req), OK);
	req = (struct req){ .op = VIRTIO_TMEM_OP_RESET_ALL };
	assert_int_equal(req_status(&vm, BULK, &req), OK);
}

/* A server that nobody has told what was negotiated offers nothing. */
static void no_features_yet(void **state)
{
	const struct tmem_server_config config = { .store = vm.store,
						   .tenant = vm.tenant,
						   .features = ALL_FEATURES,
						   .num_bulk = 1 };
	struct vm fresh = { .store = vm.store, .tenant = vm.tenant };
	struct req req = { .op = VIRTIO_TMEM_OP_POOL_CREATE,
			   .pool = 5,
			   .index = SHIFT,
			   .flags = VIRTIO_TMEM_POOL_PERSISTENT };

	assert_int_equal(tmem_server_create(&config, &fresh.server), 0);
	assert_int_equal(
		tmem_server_queue_create(fresh.server, 0, &fresh.queue[0]), 0);
	assert_int_equal(req_status(&fresh, 0, &req), UNSUPP);
	tmem_server_queue_destroy(fresh.queue[0]);
	tmem_server_destroy(fresh.server);
}

/* ------------------------------------------------------------------- pools */

static void pool_create(void **state)
{
	struct req req = { .op = VIRTIO_TMEM_OP_POOL_CREATE,
			   .pool = 15,
			   .flags = VIRTIO_TMEM_POOL_PERSISTENT,
			   .index = 16 };
	struct reply reply = { 0 };

	req_send(&vm, BULK, &req, 0, &reply);
	assert_int_equal(reply.status, OK);
	assert_int_equal(reply.used, RESP);
	assert_int_equal(reply.done, 0);
	/* The same again: what it holds. */
	req = (struct req){ .op = VIRTIO_TMEM_OP_POOL_CREATE,
			    .pool = PERSISTENT,
			    .flags = VIRTIO_TMEM_POOL_PERSISTENT,
			    .index = SHIFT };
	for (uint64_t i = 0; i < 3; i++)
		put_one(&vm, PERSISTENT, 1, i * i, i);
	req_send(&vm, BULK, &req, 0, &reply);
	assert_int_equal(reply.status, OK);
	assert_int_equal(reply.done, 3);
	/* With other parameters. */
	req.index = 13;
	assert_int_equal(req_status(&vm, BULK, &req), EXIST);
	req.index = SHIFT;
	req.flags = 0;
	assert_int_equal(req_status(&vm, BULK, &req), EXIST);
	assert_int_equal(pool_pages(&vm, PERSISTENT), 3);
	reply_free(&reply);
}

static void pool_create_bad(void **state)
{
	const struct req good = { .op = VIRTIO_TMEM_OP_POOL_CREATE,
				  .pool = 9,
				  .index = SHIFT };
	struct req req = good;

	req.index = 11;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req.index = 17;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req.index = SHIFT | 1ull << 32;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req = good;
	req.count = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req = good;
	req.object = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req = good;
	req.flags = 8;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req.flags = VIRTIO_TMEM_POOL_SHARED;
	assert_int_equal(req_status(&vm, BULK, &req), UNSUPP);
	req.flags = VIRTIO_TMEM_POOL_OPAQUE;
	assert_int_equal(req_status(&vm, BULK, &req), UNSUPP);
	assert_int_equal(tmem_server_list_pools(vm.server, NULL, 0), 2);
}

static void pool_destroy(void **state)
{
	struct req req = { .op = VIRTIO_TMEM_OP_POOL_DESTROY };

	put_one(&vm, PERSISTENT, 1, 1, 1);
	put_one(&vm, EPHEMERAL, 1, 1, 1);
	req.pool = PERSISTENT;
	assert_int_equal(req_status(&vm, BULK, &req), OK);
	req = (struct req){ .op = VIRTIO_TMEM_OP_FLUSH, .count = 1 };
	assert_int_equal(req_status(&vm, BULK, &req), NOENT);
	assert_int_equal(get_one(&vm, EPHEMERAL, 1, 1, 1), OK);
	/* Its number can be used again, and finds nothing. */
	vm_pools(&vm);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 1, 1), NOENT);
	assert_int_equal(pool_pages(&vm, PERSISTENT), 0);
}

static void reset_all(void **state)
{
	const struct req good = { .op = VIRTIO_TMEM_OP_RESET_ALL };
	uint32_t generation = tmem_server_generation(vm.server);
	struct req req = good;

	put_one(&vm, PERSISTENT, 1, 1, 1);
	req.pool = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req = good;
	req.index = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req = good;
	req.count = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req = good;
	req.flags = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req = good;
	req.object = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 1, 1), OK);
	assert_int_equal(req_status(&vm, BULK, &good), OK);
	assert_int_equal(tmem_server_list_pools(vm.server, NULL, 0), 0);
	/* The driver asked for it: nothing was lost. */
	assert_int_equal(tmem_server_generation(vm.server), generation);
}

static void system_reset(void **state)
{
	struct req key = { .pool = PERSISTENT, .count = 1 };
	struct reply reply = { 0 };

	put_one(&vm, PERSISTENT, 0, 0, 1);
	get_pages(&vm, BULK, &key, &reply);
	assert_int_equal(reply.generation, 1);
	tmem_server_system_reset(vm.server);
	assert_true(tmem_server_config_changed(vm.server));
	assert_int_equal(tmem_server_generation(vm.server), 2);
	assert_int_equal(tmem_server_list_pools(vm.server, NULL, 0), 0);
	get_pages(&vm, BULK, &key, &reply);
	assert_int_equal(reply.status, NOENT);
	assert_int_equal(reply.generation, 2);
	reply_free(&reply);
}

static void list_and_restore_pools(void **state)
{
	struct tmem_server_pool pools[4] = { 0 };
	const struct tmem_server_pool bad[] = {
		{ .id = 16, .page_shift = SHIFT },
		{ .id = UINT32_MAX, .page_shift = SHIFT },
		{ .id = 1, .page_shift = 11 },
		{ .id = 1, .page_shift = 17 },
		{ .id = 1, .page_shift = UINT32_MAX },
		{ .id = 1,
		  .page_shift = SHIFT,
		  .flags = VIRTIO_TMEM_POOL_SHARED },
		{ .id = 1, .page_shift = SHIFT, .flags = 1u << 31 },
	};
	struct tmem_server_pool twice[2] = {
		{ .id = 3, .page_shift = SHIFT },
		{ .id = 3, .page_shift = SHIFT + 1 },
	};

	assert_int_equal(tmem_server_list_pools(vm.server, pools, 1), 2);
	assert_int_equal(pools[1].page_shift, 0);
	assert_int_equal(tmem_server_list_pools(vm.server, pools, 4), 2);
	assert_int_equal(pools[0].id, PERSISTENT);
	assert_int_equal(pools[0].flags, VIRTIO_TMEM_POOL_PERSISTENT);
	assert_int_equal(pools[0].page_shift, SHIFT);
	assert_int_equal(pools[1].id, EPHEMERAL);
	assert_int_equal(pools[1].flags, 0);
	tmem_server_system_reset(vm.server);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(tmem_server_restore_pools(vm.server, &bad[i],
							   1),
				 -EINVAL);
	assert_int_equal(tmem_server_restore_pools(vm.server, twice, 2),
			 -EINVAL);
	assert_int_equal(tmem_server_restore_pools(vm.server, pools, 2), 0);
	assert_int_equal(put_one(&vm, PERSISTENT, 1, 1, 1), OK);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 1, 1), OK);
	assert_int_equal(tmem_server_list_pools(vm.server, pools, 4), 3);
}

static void pool_stats(void **state)
{
	struct req req = { .op = VIRTIO_TMEM_OP_POOL_STATS,
			   .pool = PERSISTENT };
	struct virtio_tmem_pool_stats stats;
	struct reply reply = { 0 };

	for (uint64_t i = 0; i < 10; i++)
		put_one(&vm, PERSISTENT, 1, i, SEED_RANDOM(i));
	put_one(&vm, EPHEMERAL, 1, 1, 1);
	for (uint64_t i = 0; i < 7; i++)
		get_one(&vm, PERSISTENT, 1, i + 5, SEED_RANDOM(i + 5));
	req = (struct req){ .op = VIRTIO_TMEM_OP_FLUSH,
			    .pool = PERSISTENT,
			    .object = 1,
			    .index = 8,
			    .count = 5 };
	assert_int_equal(req_status(&vm, BULK, &req), OK);
	req = (struct req){ .op = VIRTIO_TMEM_OP_POOL_STATS,
			    .pool = PERSISTENT };
	req_send(&vm, BULK, &req, sizeof(stats) + 8, &reply);
	assert_int_equal(reply.status, OK);
	assert_int_equal(reply.used, RESP + sizeof(stats));
	memcpy(&stats, reply.data, sizeof(stats));
	assert_int_equal(le64toh(stats.pages), 8);
	assert_true(le64toh(stats.bytes) >= 8 * PAGE);
	assert_true(le64toh(stats.bytes) < 4 * MIB);
	assert_int_equal(le64toh(stats.puts), 10);
	assert_int_equal(le64toh(stats.refusals), 0);
	assert_int_equal(le64toh(stats.gets), 5);
	assert_int_equal(le64toh(stats.misses), 2);
	assert_int_equal(le64toh(stats.flushes), 2);
	assert_int_equal(le64toh(stats.evictions), 0);
	/* No room for them, no such pool, something in the key. */
	req_send(&vm, BULK, &req, sizeof(stats) - 1, &reply);
	assert_int_equal(reply.status, INVAL);
	req.pool = 7;
	assert_int_equal(req_status(&vm, BULK, &req), NOENT);
	req.pool = PERSISTENT;
	req.count = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	reply_free(&reply);
}

/* ------------------------------------------------------------ queues, misc */

static void fast_queue(void **state)
{
	struct req key = { .pool = PERSISTENT, .object = 1, .count = 8 };
	struct reply reply = { 0 };
	uint8_t page[PAGE];

	for (uint64_t i = 0; i < 9; i++)
		put_one(&vm, PERSISTENT, 1, i, i);
	get_pages(&vm, FAST, &key, &reply);
	assert_int_equal(reply.status, OK);
	assert_int_equal(reply.done, 8);
	page_fill(page, PAGE, 7);
	assert_memory_equal(get_data(&reply, 8) + 7 * PAGE, page, PAGE);
	key.count = 9;
	get_pages(&vm, FAST, &key, &reply);
	assert_int_equal(reply.status, INVAL);
	get_pages(&vm, BULK, &key, &reply);
	assert_int_equal(reply.done, 9);
	key.count = 1;
	put_pages(&vm, FAST, &key, page, &reply);
	assert_int_equal(reply.status, INVAL);
	for (uint16_t op = 0; op < 16; op++) {
		struct req req = { .op = op, .pool = PERSISTENT };

		if (op != VIRTIO_TMEM_OP_GET)
			assert_int_equal(req_status(&vm, FAST, &req),
					 op && op <= 8 ? INVAL : UNSUPP);
	}
	assert_int_equal(pool_pages(&vm, PERSISTENT), 9);
	reply_free(&reply);
}

static void counters(void **state)
{
	struct tmem_server_stats before, now;
	struct req req = { .op = VIRTIO_TMEM_OP_GET,
			   .pool = PERSISTENT,
			   .count = UINT64_MAX };
	struct tmem_server_queue *queue;

	tmem_server_stats(vm.server, &before);
	assert_int_equal(before.requests[VIRTIO_TMEM_OP_POOL_CREATE], 2);
	put_one(&vm, PERSISTENT, 1, 1, 1);
	get_one(&vm, PERSISTENT, 1, 1, 1);
	req_status(&vm, FAST, &req); /* INVAL, saturates */
	req.op = 99;
	req_status(&vm, BULK, &req);
	req = (struct req){ .op = VIRTIO_TMEM_OP_FLUSH,
			    .pool = PERSISTENT,
			    .object = 1,
			    .count = 1000 };
	req_status(&vm, BULK, &req);
	req.pool = 6;
	req_status(&vm, BULK, &req); /* NOENT is not bad */
	tmem_server_stats(vm.server, &now);
	assert_int_equal(now.requests[VIRTIO_TMEM_OP_PUT], 1);
	assert_int_equal(now.pages[VIRTIO_TMEM_OP_PUT], 1);
	assert_int_equal(now.requests[VIRTIO_TMEM_OP_GET], 2);
	assert_int_equal(now.pages[VIRTIO_TMEM_OP_GET], 1 + 64);
	assert_int_equal(now.requests[VIRTIO_TMEM_OP_FLUSH], 2);
	assert_int_equal(now.pages[VIRTIO_TMEM_OP_FLUSH], 1000);
	assert_int_equal(now.requests[0], 1);
	assert_int_equal(now.bad_requests, 2);
	assert_int_equal(now.bad_chains, 0);
	/* They outlive their queue. */
	before = now;
	tmem_server_queue_destroy(vm.queue[BULK]);
	tmem_server_stats(vm.server, &now);
	assert_memory_equal(&before, &now, sizeof(now));
	assert_int_equal(tmem_server_queue_create(vm.server, BULK, &queue), 0);
	vm.queue[BULK] = queue;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(config_space),
		TEST(config_changes),
		TEST(bad_configs),
		TEST(features),
		TEST(no_features_yet),
		TEST(pool_create),
		TEST(pool_create_bad),
		TEST(pool_destroy),
		TEST(reset_all),
		TEST(system_reset),
		TEST(list_and_restore_pools),
		TEST(pool_stats),
		TEST(fast_queue),
		TEST(counters),
	};

	return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
