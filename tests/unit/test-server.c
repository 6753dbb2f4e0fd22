/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The request server, verb by verb: what is answered, how long the answer is,
 * and what it leaves in the store.
 */
#include "test-server-fixture.h"

#define OK     VIRTIO_TMEM_S_OK
#define NOSPC  VIRTIO_TMEM_S_NOSPC
#define NOENT  VIRTIO_TMEM_S_NOENT
#define INVAL  VIRTIO_TMEM_S_INVAL
#define EXIST  VIRTIO_TMEM_S_EXIST
#define UNSUPP VIRTIO_TMEM_S_UNSUPP
#define RESP   sizeof(struct virtio_tmem_resp)

static struct vm vm;

static int setup(void **state)
{
	vm_open(&vm, NULL);
	vm_pools(&vm);
	return 0;
}

static int setup_small(void **state)
{
	const struct vm_options options = { .max_bytes = 2 * MIB };

	vm_open(&vm, &options);
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
	struct tmem_limits limits = { .persistent_reserved = MIB };
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

/* ---------------------------------------------------------------- transfer */

static void put_and_get(void **state)
{
	const uint32_t pools[] = { PERSISTENT, EPHEMERAL };

	for (size_t p = 0; p < ARRAY_SIZE(pools); p++) {
		for (uint64_t i = 0; i < 64; i++)
			assert_int_equal(put_one(&vm, pools[p], i % 3, i * i,
						 i + p * 100),
					 OK);
		for (uint64_t i = 0; i < 64; i++)
			assert_int_equal(get_one(&vm, pools[p], i % 3, i * i,
						 i + p * 100),
					 OK);
		assert_int_equal(pool_pages(&vm, pools[p]), 64);
	}
}

/* Objects differ in any of 24 bytes, indexes in any of 64 bits. */
static void keys_are_whole(void **state)
{
	struct virtio_tmem_req *wire;
	struct msg msg = { .out_len = sizeof(*wire) + PAGE,
			   .in_len = RESP + 4 + PAGE };
	struct reply reply = { 0 };

	msg.out = calloc(1, msg.out_len);
	wire = (void *)msg.out;
	for (unsigned int pass = 0; pass < 2; pass++) {
		for (unsigned int i = 0; i < 24 + 64; i++) {
			uint8_t page[PAGE];

			page_fill(page, PAGE, i + 1);
			memset(wire, 0, sizeof(*wire));
			wire->op = htole16(pass ? VIRTIO_TMEM_OP_GET
						: VIRTIO_TMEM_OP_PUT);
			wire->count = htole64(1);
			if (i < 24)
				wire->object[i] = 1;
			else
				wire->index = htole64(1ull << (i - 24));
			memcpy(msg.out + sizeof(*wire), page, PAGE);
			msg.out_len = sizeof(*wire) + (pass ? 0 : PAGE);
			msg_send(&vm, BULK, &msg, &reply);
			assert_int_equal(reply.done, 1);
			if (pass)
				assert_memory_equal(get_data(&reply, 1), page,
						    PAGE);
		}
		assert_int_equal(pool_pages(&vm, PERSISTENT), 24 + 64);
	}
	free(msg.out);
	reply_free(&reply);
}

static void put_replaces(void **state)
{
	for (uint64_t seed = 1; seed < 20; seed++) {
		assert_int_equal(put_one(&vm, PERSISTENT, 1, 5, seed), OK);
		assert_int_equal(get_one(&vm, PERSISTENT, 1, 5, seed), OK);
	}
	assert_int_equal(pool_pages(&vm, PERSISTENT), 1);
}

static void pools_are_separate(void **state)
{
	put_one(&vm, PERSISTENT, 1, 5, 1);
	put_one(&vm, EPHEMERAL, 1, 5, 2);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 5, 1), OK);
	assert_int_equal(get_one(&vm, EPHEMERAL, 1, 5, 2), OK);
	assert_int_equal(get_one(&vm, PERSISTENT, 2, 5, 1), NOENT);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 6, 1), NOENT);
}

static void stored_lengths(void **state)
{
	struct req key = { .pool = PERSISTENT, .count = 4 };
	struct reply reply = { 0 };
	uint8_t pages[4 * PAGE];

	for (unsigned int i = 0; i < 4; i++)
		page_fill(pages + i * PAGE, PAGE, i);
	put_pages(&vm, BULK, &key, pages, &reply);
	assert_int_equal(reply.used, RESP + 16);
	assert_int_equal(reply.done, 4);
	for (unsigned int pass = 0; pass < 2; pass++) {
		assert_int_equal(page_length(&reply, 0), 0);
		assert_in_range(page_length(&reply, 1), PAGE / 2, PAGE - 1);
		assert_int_equal(page_length(&reply, 2), PAGE);
		assert_in_range(page_length(&reply, 3), 1, PAGE / 4);
		get_pages(&vm, BULK, &key, &reply);
		assert_int_equal(reply.used, RESP + 16 + sizeof(pages));
		assert_memory_equal(get_data(&reply, 4), pages, sizeof(pages));
	}
	reply_free(&reply);
}

/*
 * All patterns of hits and misses of 10 pages: what is found is right, what is
 * not before the last hit is zeros, the length ends after the last hit.
 */
static void runs_with_misses(void **state)
{
	const unsigned int pages = 10;
	struct req key = { .pool = PERSISTENT, .object = 1, .count = pages };
	struct reply reply = { 0 };
	static const uint8_t zero[PAGE];
	uint8_t page[PAGE];

	for (unsigned int mask = 0; mask < 1u << pages; mask++) {
		unsigned int hits = 0, end = 0;

		key.object = mask;
		for (unsigned int i = 0; i < pages; i++) {
			if (!(mask >> i & 1))
				continue;
			put_one(&vm, PERSISTENT, mask, i, mask + i);
			hits++;
			end = i + 1;
		}
		get_pages(&vm, BULK, &key, &reply);
		assert_int_equal(reply.status, OK);
		assert_int_equal(reply.done, hits);
		assert_int_equal(reply.used, RESP + 4 * pages + end * PAGE);
		for (unsigned int i = 0; i < pages; i++) {
			bool hit = mask >> i & 1;

			page_fill(page, PAGE, mask + i);
			assert_int_equal(page_status(&reply, i),
					 hit ? OK : NOENT);
			if (!hit)
				assert_int_equal(page_length(&reply, i), 0);
			if (i < end)
				assert_memory_equal(get_data(&reply, pages) +
							    i * PAGE,
						    hit ? page : zero, PAGE);
		}
	}
	reply_free(&reply);
}

static void largest_run(void **state)
{
	struct req key = { .pool = PERSISTENT,
			   .index = UINT64_MAX - 63,
			   .count = 64 };
	uint8_t *pages = malloc(64 * PAGE);
	struct reply reply = { 0 };

	for (unsigned int i = 0; i < 64; i++)
		page_fill(pages + i * PAGE, PAGE, i);
	put_pages(&vm, BULK, &key, pages, &reply);
	assert_int_equal(reply.done, 64);
	get_pages(&vm, BULK, &key, &reply);
	assert_int_equal(reply.done, 64);
	assert_memory_equal(get_data(&reply, 64), pages, 64 * PAGE);
	for (unsigned int i = 0; i < 64; i++)
		assert_int_equal(get_one(&vm, PERSISTENT, 0,
					 UINT64_MAX - 63 + i, i),
				 OK);
	free(pages);
	reply_free(&reply);
}

static void page_sizes(void **state)
{
	struct reply reply = { 0 };

	for (unsigned int shift = 12; shift <= 16; shift++) {
		size_t size = 1u << shift, bytes = 5 * size;
		struct req create = { .op = VIRTIO_TMEM_OP_POOL_CREATE,
				      .pool = shift - 8,
				      .index = shift };
		struct req req = { .op = VIRTIO_TMEM_OP_PUT,
				   .pool = shift - 8,
				   .count = 5 };
		struct msg msg = { .cut = shift };

		assert_int_equal(req_status(&vm, BULK, &create), OK);
		msg.out_len = sizeof(struct virtio_tmem_req) + bytes;
		msg.in_len = RESP + 20 + bytes;
		msg.out = malloc(msg.out_len);
		for (unsigned int i = 0; i < 5; i++)
			page_fill(msg.out + 64 + i * size, size, i + shift);
		req_encode(&req, msg.out);
		msg_send(&vm, BULK, &msg, &reply);
		assert_int_equal(reply.status, OK);
		assert_int_equal(reply.done, 5);
		assert_int_equal(reply.used, RESP + 20);
		req.op = VIRTIO_TMEM_OP_GET;
		req_send(&vm, BULK, &req, 20 + bytes, &reply);
		assert_int_equal(reply.used, RESP + 20 + bytes);
		assert_memory_equal(get_data(&reply, 5), msg.out + 64, bytes);
		free(msg.out);
	}
	reply_free(&reply);
}

static void flush(void **state)
{
	struct req req = { .op = VIRTIO_TMEM_OP_FLUSH,
			   .pool = PERSISTENT,
			   .object = 1,
			   .index = 3,
			   .count = 4 };
	struct reply reply = { 0 };

	for (uint64_t i = 0; i < 10; i++) {
		put_one(&vm, PERSISTENT, 1, i, i);
		put_one(&vm, PERSISTENT, 2, i, i);
	}
	req_send(&vm, BULK, &req, 0, &reply);
	assert_int_equal(reply.status, OK);
	assert_int_equal(reply.done, 4);
	assert_int_equal(reply.used, RESP);
	for (uint64_t i = 0; i < 10; i++) {
		assert_int_equal(get_one(&vm, PERSISTENT, 1, i, i),
				 i >= 3 && i < 7 ? NOENT : OK);
		assert_int_equal(get_one(&vm, PERSISTENT, 2, i, i), OK);
	}
	/* Everything there can be: index + count is 2^64, both ways. */
	put_one(&vm, PERSISTENT, 1, UINT64_MAX, 1);
	req.index = 1;
	req.count = UINT64_MAX;
	req_send(&vm, BULK, &req, 0, &reply);
	assert_int_equal(reply.status, OK);
	assert_int_equal(reply.done, UINT64_MAX);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, UINT64_MAX, 1), NOENT);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 0, 0), OK);
	assert_int_equal(pool_pages(&vm, PERSISTENT), 11);
	req.index = UINT64_MAX;
	req.count = 1;
	assert_int_equal(req_status(&vm, BULK, &req), OK);
	req.count = 2;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req.count = 0;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req.count = 1;
	req.flags = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	reply_free(&reply);
}

/* A flush does bounded work: the driver sends the rest again. */
static void flush_stops_early(void **state)
{
	const uint64_t pages = 3 * TMEM_FLUSH_BATCH;
	struct req req = { .op = VIRTIO_TMEM_OP_FLUSH,
			   .pool = PERSISTENT,
			   .object = 1,
			   .count = 2 * pages };
	struct reply reply = { 0 };
	unsigned int rounds = 0;

	for (uint64_t i = 0; i < pages; i++)
		put_one(&vm, PERSISTENT, 1, i, 4);
	while (req.count) {
		req_send(&vm, BULK, &req, 0, &reply);
		assert_int_equal(reply.status, OK);
		assert_in_range(reply.done, 1, req.count);
		req.index += reply.done;
		req.count -= reply.done;
		rounds++;
		/* Indexes that are reported are done, all others are not. */
		if (req.index < pages)
			assert_int_equal(pool_pages(&vm, PERSISTENT),
					 pages - req.index);
	}
	assert_in_range(rounds, 2, 10);
	assert_int_equal(pool_pages(&vm, PERSISTENT), 0);
	reply_free(&reply);
}

static void flush_object(void **state)
{
	struct req req = { .op = VIRTIO_TMEM_OP_FLUSH_OBJECT,
			   .pool = PERSISTENT,
			   .object = 1 };

	for (uint64_t i = 0; i < 50; i++) {
		put_one(&vm, PERSISTENT, 1, i << i, i);
		put_one(&vm, PERSISTENT, 2, i << i, i);
	}
	req.index = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req.index = 0;
	req.count = 1;
	assert_int_equal(req_status(&vm, BULK, &req), INVAL);
	req.count = 0;
	assert_int_equal(req_status(&vm, BULK, &req), OK);
	for (uint64_t i = 0; i < 50; i++) {
		assert_int_equal(get_one(&vm, PERSISTENT, 1, i << i, i), NOENT);
		assert_int_equal(get_one(&vm, PERSISTENT, 2, i << i, i), OK);
	}
	/* It is as new. */
	assert_int_equal(put_one(&vm, PERSISTENT, 1, 0, 9), OK);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 0, 9), OK);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 2, 1), NOENT);
}

/*
 * A full store: refusals are counted per page, a refused put takes the old copy
 * with it, what was accepted stays, and a flush makes room again.
 */
static void refusals(void **state)
{
	struct req req = { .op = VIRTIO_TMEM_OP_FLUSH_OBJECT,
			   .pool = PERSISTENT };
	const uint64_t pages = 1024;
	uint64_t refused = 0;

	for (uint64_t i = 0; i < pages; i++)
		assert_int_equal(put_one(&vm, PERSISTENT, 0, i, 4 * i), OK);
	for (uint64_t i = 0; i < pages; i++)
		put_one(&vm, PERSISTENT, 1, i, SEED_RANDOM(i));
	/* Incompressible pages over those of one word. */
	for (uint64_t i = 0; i < pages; i++) {
		unsigned int status =
			put_one(&vm, PERSISTENT, 0, i, SEED_RANDOM(i));

		assert_true(status == OK || status == NOSPC);
		refused += status == NOSPC;
		assert_int_equal(get_one(&vm, PERSISTENT, 0, i, SEED_RANDOM(i)),
				 status == OK ? OK : NOENT);
	}
	assert_in_range(refused, pages / 2, pages);
	/* What is here is what was said to be. */
	req.object = 1;
	assert_int_equal(req_status(&vm, BULK, &req), OK);
	assert_int_equal(put_one(&vm, PERSISTENT, 0, 0, SEED_RANDOM(7)), OK);
	assert_int_equal(get_one(&vm, PERSISTENT, 0, 0, SEED_RANDOM(7)), OK);
}

/* One request, some pages refused: each has its own fate. */
static void refusals_in_a_run(void **state)
{
	struct req key = { .pool = PERSISTENT, .object = 2, .count = 64 };
	uint8_t *pages = malloc(64 * PAGE);
	struct reply reply = { 0 };
	uint64_t refused = 0, found = 0;

	/* Pages of one word need no room where the index has a place for them.
	 */
	for (uint64_t i = 0; i < 64; i++)
		assert_int_equal(put_one(&vm, PERSISTENT, 2, i, 4), OK);
	for (uint64_t i = 0; i < 1024; i++)
		put_one(&vm, PERSISTENT, 1, i, SEED_RANDOM(i));
	for (unsigned int i = 0; i < 64; i++)
		page_fill(pages + i * PAGE, PAGE, i % 2 ? 4 * i : 4 * i + 2);
	put_pages(&vm, BULK, &key, pages, &reply);
	assert_int_equal(reply.status, OK);
	assert_int_equal(reply.used, RESP + 4 * 64);
	for (unsigned int i = 0; i < 64; i++) {
		if (i % 2)
			assert_int_equal(page_status(&reply, i), OK);
		refused += page_status(&reply, i) == NOSPC;
		assert_int_equal(page_status(&reply, i) == NOSPC &&
					 page_length(&reply, i),
				 0);
	}
	assert_in_range(refused, 1, 32);
	assert_int_equal(reply.done, 64 - refused);
	get_pages(&vm, BULK, &key, &reply);
	for (unsigned int i = 0; i < 64; i++)
		if (page_status(&reply, i) == OK) {
			assert_memory_equal(get_data(&reply, 64) + i * PAGE,
					    pages + i * PAGE, PAGE);
			found++;
		}
	assert_int_equal(found, 64 - refused);
	free(pages);
	reply_free(&reply);
}

/* The host has no memory to spare: even reserved pages are refused. */
static void headroom_is_kept(void **state)
{
	const struct vm_options options = { .reserved = 16 * MIB,
					    .host_headroom = 1ull << 60 };
	struct virtio_tmem_config config;
	struct tmem_stats stats;
	uint64_t refused = 0;
	struct vm v;

	vm_open(&v, &options);
	vm_pools(&v);
	for (uint64_t i = 0; i < 2048; i++)
		refused +=
			put_one(&v, PERSISTENT, 1, i, SEED_RANDOM(i)) == NOSPC;
	/* What fits into one allowance may have gone in. */
	assert_in_range(refused, 1024, 2048);
	tmem_tenant_stats(v.tenant, &stats);
	assert_int_equal(stats.puts_refused_headroom, refused);
	tmem_server_get_config(v.server, &config);
	assert_int_equal(le32toh(config.pressure),
			 VIRTIO_TMEM_PRESSURE_CRITICAL);
	vm_close(&v);
}

/* Reserved pages go in to the last one, though others want the room. */
static void reservation_is_kept(void **state)
{
	const struct vm_options options = { .max_bytes = 24 * MIB,
					    .reserved = 8 * MIB };
	struct vm v, other;

	vm_open(&v, &options);
	vm_pools(&v);
	vm_open(&other, &(struct vm_options){ .store = v.store });
	vm_pools(&other);
	for (uint64_t i = 0; i < 8192; i++) {
		put_one(&other, PERSISTENT, 1, i, SEED_RANDOM(i));
		put_one(&v, EPHEMERAL, 1, i, SEED_RANDOM(i));
	}
	for (uint64_t i = 0; i < 8 * MIB / PAGE; i++)
		assert_int_equal(put_one(&v, PERSISTENT, 1, i, SEED_RANDOM(i)),
				 OK);
	for (uint64_t i = 0; i < 8 * MIB / PAGE; i++)
		assert_int_equal(get_one(&v, PERSISTENT, 1, i, SEED_RANDOM(i)),
				 OK);
	vm_close(&other);
	vm_close(&v);
}

static void exclusive_get(void **state)
{
	struct req key = { .pool = EPHEMERAL,
			   .object = 1,
			   .index = 2,
			   .count = 4,
			   .flags = VIRTIO_TMEM_GET_EXCLUSIVE };
	struct reply reply = { 0 };
	uint8_t page[PAGE];

	for (uint64_t i = 0; i < 8; i++)
		if (i != 3)
			put_one(&vm, EPHEMERAL, 1, i, i);
	get_pages(&vm, BULK, &key, &reply);
	assert_int_equal(reply.status, OK);
	assert_int_equal(reply.done, 3);
	page_fill(page, PAGE, 5);
	assert_memory_equal(get_data(&reply, 4) + 3 * PAGE, page, PAGE);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(get_one(&vm, EPHEMERAL, 1, i, i),
				 i >= 2 && i < 6 ? NOENT : OK);
	assert_int_equal(pool_pages(&vm, EPHEMERAL), 4);
	/* Never from a persistent pool. */
	put_one(&vm, PERSISTENT, 1, 2, 2);
	key.pool = PERSISTENT;
	get_pages(&vm, BULK, &key, &reply);
	assert_int_equal(reply.status, INVAL);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 2, 2), OK);
	key.pool = EPHEMERAL;
	key.flags = 2;
	get_pages(&vm, BULK, &key, &reply);
	assert_int_equal(reply.status, INVAL);
	reply_free(&reply);
}

/*
 * Until the answer is retired the page is neither found nor gone: an answer
 * that did not arrive gives it back.
 */
static void exclusive_get_is_two_steps(void **state)
{
	struct virtio_tmem_req wire;
	struct req req = { .op = VIRTIO_TMEM_OP_GET,
			   .pool = EPHEMERAL,
			   .object = 1,
			   .count = 2,
			   .flags = VIRTIO_TMEM_GET_EXCLUSIVE };
	uint8_t in[RESP + 2 * (4 + PAGE)];
	struct iovec out_iov = { &wire, sizeof(wire) };
	struct iovec in_iov = { in, sizeof(in) };

	for (unsigned int delivered = 0; delivered < 2; delivered++) {
		struct tmem_server_request rq[3] = { 0 };

		put_one(&vm, EPHEMERAL, 1, 0, 1);
		put_one(&vm, EPHEMERAL, 1, 1, 2);
		req_encode(&req, &wire);
		/* The later ones find nothing and must not disturb the first.
		 */
		for (unsigned int i = 0; i < 3; i++) {
			rq[i].out = &out_iov;
			rq[i].in = &in_iov;
			rq[i].out_num = rq[i].in_num = 1;
			assert_int_equal(
				tmem_server_submit(vm.queue[BULK], &rq[i]), 0);
			assert_int_equal(rq[i].done, i ? 0 : 2);
			assert_int_equal(get_one(&vm, EPHEMERAL, 1, 0, 1),
					 NOENT);
		}
		tmem_server_retire(vm.queue[BULK], &rq[1], true);
		tmem_server_retire(vm.queue[BULK], &rq[2], false);
		if (delivered) {
			tmem_server_retire(vm.queue[BULK], &rq[0], true);
			assert_int_equal(get_one(&vm, EPHEMERAL, 1, 0, 1),
					 NOENT);
			assert_int_equal(pool_pages(&vm, EPHEMERAL), 0);
		} else {
			tmem_server_retire(vm.queue[BULK], &rq[0], false);
			assert_int_equal(get_one(&vm, EPHEMERAL, 1, 0, 1), OK);
			assert_int_equal(get_one(&vm, EPHEMERAL, 1, 1, 2), OK);
		}
	}
}

static void frozen(void **state)
{
	struct virtio_tmem_req *wire;
	struct req req = { .op = VIRTIO_TMEM_OP_PUT,
			   .pool = PERSISTENT,
			   .object = 1,
			   .count = 1 };
	struct tmem_server_stats before, after;
	struct msg msg = { .in_len = RESP + 4 };
	struct reply reply = { 0 };

	put_one(&vm, PERSISTENT, 1, 0, 1);
	put_one(&vm, PERSISTENT, 1, 1, 2);
	msg.out_len = sizeof(*wire) + PAGE;
	msg.out = calloc(1, msg.out_len);
	page_fill(msg.out + sizeof(*wire), PAGE, 3);
	req_encode(&req, msg.out);
	tmem_server_stats(vm.server, &before);
	tmem_tenant_freeze(vm.tenant, true);
	for (unsigned int i = 0; i < 10; i++) {
		msg_send(&vm, BULK, &msg, &reply);
		assert_int_equal(reply.rc, -EAGAIN);
		assert_int_equal(reply.used, 0);
	}
	/* Nothing took effect and nothing was counted. */
	tmem_server_stats(vm.server, &after);
	assert_memory_equal(&before, &after, sizeof(after));
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 0, 1), OK);
	/* Other verbs go on; a put that is wrong is told so at once. */
	req = (struct req){ .op = VIRTIO_TMEM_OP_FLUSH,
			    .pool = PERSISTENT,
			    .object = 1,
			    .index = 1,
			    .count = 1 };
	assert_int_equal(req_status(&vm, BULK, &req), OK);
	msg.out_len--;
	msg_send(&vm, BULK, &msg, &reply);
	assert_int_equal(reply.status, INVAL);
	msg.out_len++;
	tmem_tenant_freeze(vm.tenant, false);
	msg_send(&vm, BULK, &msg, &reply);
	assert_int_equal(reply.done, 1);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 0, 3), OK);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 1, 2), NOENT);
	free(msg.out);
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
#define TEST_SMALL(name)                                                       \
	cmocka_unit_test_setup_teardown(name, setup_small, teardown)

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
		TEST(put_and_get),
		TEST(keys_are_whole),
		TEST(put_replaces),
		TEST(pools_are_separate),
		TEST(stored_lengths),
		TEST(runs_with_misses),
		TEST(largest_run),
		TEST(page_sizes),
		TEST(flush),
		TEST(flush_stops_early),
		TEST(flush_object),
		TEST_SMALL(refusals),
		TEST_SMALL(refusals_in_a_run),
		cmocka_unit_test(headroom_is_kept),
		cmocka_unit_test(reservation_is_kept),
		TEST(exclusive_get),
		TEST(exclusive_get_is_two_steps),
		TEST(frozen),
		TEST(fast_queue),
		TEST(counters),
	};

	return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
