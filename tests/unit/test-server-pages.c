/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The request server's PUT, GET and FLUSH: what is answered, how long the
 * answer is, and what it leaves in the store.
 */
#include "test-server-fixture.h"

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

/*
 * The host has no memory to spare: even reserved pages are refused.
 * (dev.put.critical)
 */
static void headroom_is_kept(void **state)
{
	const struct vm_options options = { .reserved = 16 * MIB,
					    .host_headroom = 1ull << 60 };
	struct virtio_tmem_config config;
	struct tmem_stats stats = { .size = sizeof(stats) };
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

/*
 * Reserved pages go in to the last one, though others want the room.
 * (dev.put.reserved, dev.put.content)
 */
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
/* dev.get.unused, dev.get.exclusive */
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_SMALL(name)                                                       \
	cmocka_unit_test_setup_teardown(name, setup_small, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	return cmocka_run_group_tests_name("server-pages", tests, NULL, NULL);
}
