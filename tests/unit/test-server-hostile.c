/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hostile requests.  A test named vN_ stands for a class of hole that Xen's
 * transcendent memory or its relatives had: 1 privileged verbs, 2 pool numbers
 * as indexes, 3 destroy, 5 guest memory, 6 overflows, 7 locks on error paths,
 * 8 the host's log, 12 races for a new object (test-server-threads.c), 13
 * success without data.
 */
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>
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

/* All that was put before is there and everything works. */
static void assert_alive(void)
{
	static uint64_t seed;

	assert_int_equal(put_one(&vm, PERSISTENT, 99, 1, ++seed), OK);
	assert_int_equal(get_one(&vm, PERSISTENT, 99, 1, seed), OK);
}

/*
 * V1: operations for administrators that a guest could reach.  There is none:
 * 8 verbs are known, whatever the rest of the request says.
 */
static void v1_no_other_verbs(void **state)
{
	uint64_t rng = 1;

	put_one(&vm, PERSISTENT, 1, 1, 1);
	for (unsigned int op = 0; op <= UINT16_MAX; op++) {
		struct req req = {
			.op = op,
			.flags = rng_below(&rng, 4) ? 0 : rng_next(&rng),
			.pool = rng_below(&rng, 2) ? 0 : rng_next(&rng),
			.object = rng_below(&rng, 2) ? 1 : rng_next(&rng),
			.index = rng_below(&rng, 2) ? 1 : rng_next(&rng),
			.count = rng_below(&rng, 2) ? 1 : rng_next(&rng),
		};

		if (op >= VIRTIO_TMEM_OP_POOL_CREATE &&
		    op <= VIRTIO_TMEM_OP_POOL_STATS)
			continue;
		assert_int_equal(req_status(&vm, BULK, &req), UNSUPP);
	}
	assert_int_equal(pool_pages(&vm, PERSISTENT), 1);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 1, 1), OK);
}

/* V1: reserved bytes and unknown flags are errors, not yet-unknown options. */
static void v1_reserved_is_invalid(void **state)
{
	struct virtio_tmem_req wire;
	struct msg msg = { .out = (uint8_t *)&wire,
			   .out_len = REQ,
			   .in_len = RESP };
	struct reply reply = { 0 };

	put_one(&vm, PERSISTENT, 0, 0, 1);
	for (unsigned int op = 1; op <= 8; op++) {
		struct req req = { .op = op, .pool = PERSISTENT, .count = 1 };

		for (unsigned int i = 0; i < sizeof(wire.reserved); i++) {
			req_encode(&req, &wire);
			wire.reserved[i] = 0x80;
			msg_send(&vm, BULK, &msg, &reply);
			assert_int_equal(reply.status, INVAL);
		}
		for (unsigned int bit = 0; bit < 16; bit++) {
			unsigned int status;

			req.flags = 1 << bit;
			/* Known and without meaning here, or not negotiated. */
			status = req_status(&vm, BULK, &req);
			assert_true(status == INVAL || status == UNSUPP);
		}
	}
	assert_int_equal(get_one(&vm, PERSISTENT, 0, 0, 1), OK);
	reply_free(&reply);
}

static const uint32_t bad_pools[] = {
	2,	    15,		16,	    17,		255,
	256,	    257,	65535,	    65536,	0x7fffffff,
	0x80000000, 0x80000001, 0xfffffff0, 0xffffff00, 0xffffffff,
};

/* V2: pool numbers as array indexes: negative, huge, one too large. */
static void v2_pool_out_of_range(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(bad_pools); i++) {
		for (unsigned int op = 2; op <= 8; op++) {
			struct req req = { .op = op, .pool = bad_pools[i] };
			struct reply reply = { 0 };
			uint8_t page[PAGE] = { 0 };

			if (op == VIRTIO_TMEM_OP_RESET_ALL)
				continue;
			if (op >= VIRTIO_TMEM_OP_PUT &&
			    op <= VIRTIO_TMEM_OP_FLUSH)
				req.count = 1;
			if (op == VIRTIO_TMEM_OP_PUT)
				put_pages(&vm, BULK, &req, page, &reply);
			else
				req_send(&vm, BULK, &req, 4 + PAGE, &reply);
			assert_int_equal(reply.status, NOENT);
			reply_free(&reply);
		}
		if (bad_pools[i] >= 16) {
			struct req req = { .op = VIRTIO_TMEM_OP_POOL_CREATE,
					   .pool = bad_pools[i],
					   .index = SHIFT };

			assert_int_equal(req_status(&vm, BULK, &req), INVAL);
		}
	}
	assert_int_equal(tmem_server_list_pools(vm.server, NULL, 0), 2);
	assert_alive();
}

/*
 * V3: destroying what was never made, twice, or is another's: the same number
 * in another VM of the same store is another pool.
 * (dev.reset-all.own, dev.security.isolation, dev.stats.own)
 */
static void v3_destroy(void **state)
{
	struct req destroy = { .op = VIRTIO_TMEM_OP_POOL_DESTROY };
	struct vm other;

	vm_open(&other, &(struct vm_options){ .store = vm.store });
	put_one(&vm, PERSISTENT, 1, 1, 1);
	/* Not there, for the other one. */
	assert_int_equal(req_status(&other, BULK, &destroy), NOENT);
	vm_pools(&other);
	assert_int_equal(get_one(&other, PERSISTENT, 1, 1, 1), NOENT);
	put_one(&other, PERSISTENT, 1, 1, 2);
	assert_int_equal(req_status(&other, BULK, &destroy), OK);
	assert_int_equal(req_status(&other, BULK, &destroy), NOENT);
	destroy.op = VIRTIO_TMEM_OP_RESET_ALL;
	assert_int_equal(req_status(&other, BULK, &destroy), OK);
	tmem_server_system_reset(other.server);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 1, 1), OK);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad_pools); i++) {
		destroy = (struct req){ .op = VIRTIO_TMEM_OP_POOL_DESTROY,
					.pool = bad_pools[i] };
		assert_int_equal(req_status(&vm, BULK, &destroy), NOENT);
	}
	assert_int_equal(pool_pages(&vm, PERSISTENT), 1);
	vm_close(&other);
}

/*
 * V5: guest memory is not the host's.  Here all of it is the same few bytes:
 * the data and the answer of a GET are written over its own request, so
 * whatever is read a second time is rubbish.  (dev.op.copy)
 */
static void v5_answer_overwrites_request(void **state)
{
	static uint8_t memory[8 * PAGE];
	struct req req = { .op = VIRTIO_TMEM_OP_GET,
			   .pool = PERSISTENT,
			   .object = 1,
			   .count = 4 };

	for (size_t shift = 0; shift < REQ; shift += 4) {
		struct iovec out = { memory + shift, REQ };
		struct iovec in = { memory, RESP + 4 * (4 + PAGE) };
		struct tmem_server_request rq = {
			.out = &out, .out_num = 1, .in = &in, .in_num = 1
		};

		for (uint64_t i = 0; i < 4; i++)
			put_one(&vm, PERSISTENT, 1, i, SEED_RANDOM(i + shift));
		req_encode(&req, memory + shift);
		assert_int_equal(tmem_server_submit(vm.queue[BULK], &rq), 0);
		tmem_server_retire(vm.queue[BULK], &rq, true);
		assert_int_equal(rq.status, OK);
		assert_int_equal(rq.done, 4);
		assert_int_equal(rq.used, in.iov_len);
		assert_int_equal(rq.count, 4);
		for (unsigned int i = 0; i < 4; i++) {
			uint8_t page[PAGE];

			page_fill(page, PAGE, SEED_RANDOM(i + shift));
			assert_memory_equal(page, memory + RESP + 16 + i * PAGE,
					    PAGE);
		}
	}
}

struct scribbler {
	uint8_t *memory;
	size_t bytes;
	bool stop;
};

/* Another vCPU, writing into everything that a request consists of. */
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread")))
#endif
static void *
scribble(void *arg)
{
	struct scribbler *s = arg;
	uint64_t rng = 7;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		/* Mostly the header, where it hurts. */
		size_t at = rng_below(&rng, 3) ? rng_below(&rng, REQ)
					       : rng_below(&rng, s->bytes);
		volatile uint8_t *byte = s->memory + at;

		*byte = rng_below(&rng, 2) ? rng_below(&rng, 9)
					   : rng_next(&rng);
	}
	return NULL;
}

/*
 * V5: memory that changes while it is used: no crash, no access beyond it.
 * (dev.op.copy)
 */
static void v5_memory_changes(void **state)
{
	const size_t pages = 8;
	struct scribbler s = { .bytes = REQ + pages * PAGE + RESP + 4 * pages };
	struct iovec iov[3];
	pthread_t thread;

	s.memory = malloc(s.bytes);
	iov[0] = (struct iovec){ s.memory, REQ };
	iov[1] = (struct iovec){ s.memory + REQ, pages * PAGE };
	iov[2] = (struct iovec){ s.memory + REQ + pages * PAGE,
				 RESP + 4 * pages };
	assert_int_equal(pthread_create(&thread, NULL, scribble, &s), 0);
	for (unsigned int i = 0; i < 20000; i++) {
		struct tmem_server_request rq = {
			.out = iov, .out_num = 2, .in = &iov[2], .in_num = 1
		};
		struct iovec in[2] = { iov[2], iov[1] };
		struct req req = { .op = VIRTIO_TMEM_OP_PUT,
				   .pool = i / 2 % 2,
				   .count = pages };

		if (i % 2) {
			req.op = VIRTIO_TMEM_OP_GET;
			rq.out_num = 1;
			rq.in = in;
			rq.in_num = 2;
		}
		req_encode(&req, s.memory);
		assert_int_equal(tmem_server_submit(vm.queue[BULK], &rq), 0);
		tmem_server_retire(vm.queue[BULK], &rq, i % 3);
		assert_true(rq.used >= RESP);
		assert_true(rq.used <= RESP + pages * (4 + PAGE));
		if (rq.status == OK && (rq.op == VIRTIO_TMEM_OP_PUT ||
					rq.op == VIRTIO_TMEM_OP_GET))
			assert_true(rq.done <= rq.count && rq.count <= pages);
	}
	__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	free(s.memory);
	/* What was scribbled may have ended the pools. */
	tmem_tenant_reset(vm.tenant);
	vm_pools(&vm);
	assert_alive();
}

/* A vCPU that goes on writing its page while it is put: 1 to 8, or 101 to 108. */
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread")))
#endif
static void *
rewrite(void *arg)
{
	struct scribbler *s = arg;
	volatile uint8_t *memory = s->memory;

	for (unsigned int n = 0; !__atomic_load_n(&s->stop, __ATOMIC_RELAXED);
	     n++)
		for (size_t i = 0; i < s->bytes; i++)
			memory[i] = 1 + n % 2 * 100 + (i * n >> 3) % 8;
	return NULL;
}

/* A GET of one page into @in; its status. */
static unsigned int get_into(uint8_t *in)
{
	struct req req = { .op = VIRTIO_TMEM_OP_GET,
			   .pool = PERSISTENT,
			   .count = 1 };
	uint8_t wire[REQ];
	struct iovec o = { wire, REQ }, i = { in, RESP + 4 + PAGE };
	struct tmem_server_request rq = {
		.out = &o, .out_num = 1, .in = &i, .in_num = 1
	};

	req_encode(&req, wire);
	assert_int_equal(tmem_server_submit(vm.queue[BULK], &rq), 0);
	tmem_server_retire(vm.queue[BULK], &rq, true);
	assert_int_equal(rq.status, OK);
	return in[RESP + 3];
}

/*
 * V5: what is kept of such a page is made of its own bytes and of zeros (LZ4
 * decodes a match with itself to those), or cannot be read, and is the same
 * each time.  (dev.put.changing)
 */
static void v5_page_changes(void **state)
{
	struct req req = { .op = VIRTIO_TMEM_OP_PUT,
			   .pool = PERSISTENT,
			   .count = 1 };
	uint8_t wire[REQ], resp[RESP + 4], *page = calloc(1, PAGE);
	static uint8_t first[RESP + 4 + PAGE], second[RESP + 4 + PAGE];
	struct iovec out[2] = { { wire, REQ }, { page, PAGE } };
	struct iovec in = { resp, sizeof(resp) };
	struct scribbler s = { .memory = page, .bytes = PAGE };
	pthread_t thread;

	memset(page, 1, PAGE);
	assert_int_equal(pthread_create(&thread, NULL, rewrite, &s), 0);
	for (unsigned int i = 0; i < 3000; i++) {
		struct tmem_server_request rq = {
			.out = out, .out_num = 2, .in = &in, .in_num = 1
		};
		unsigned int status;

		req_encode(&req, wire);
		assert_int_equal(tmem_server_submit(vm.queue[BULK], &rq), 0);
		tmem_server_retire(vm.queue[BULK], &rq, true);
		assert_int_equal(rq.status, OK);
		assert_int_equal(rq.done, 1);
		memset(first, 0xee, sizeof(first));
		memset(second, 0xdd, sizeof(second));
		status = get_into(first);
		assert_true(status == OK || status == IO);
		assert_int_equal(get_into(second), status);
		assert_memory_equal(first + RESP + 4, second + RESP + 4, PAGE);
		for (unsigned int n = 0; n < PAGE; n++) {
			uint8_t byte = first[RESP + 4 + n];

			assert_true(byte % 100 <= 8 && byte <= 108);
		}
	}
	__atomic_store_n(&s.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	free(page);
	tmem_tenant_reset(vm.tenant);
	vm_pools(&vm);
}

/* V6: index + count and count x page size beyond what an integer holds. */
static void v6_overflow(void **state)
{
	static const uint64_t counts[] = {
		0,
		65,
		512,
		513,
		0xffffffff,
		0x100000000,
		0x100000001, /* 1, cut to 32 bits */
		1ull << 52,  /* x 4096 = 2^64 */
		(1ull << 52) + 1,
		1ull << 62, /* x 4 = 2^64 */
		(1ull << 62) + 1,
		1ull << 63,
		UINT64_MAX - 1,
		UINT64_MAX,
	};
	static const uint64_t ends[][2] = {
		{ UINT64_MAX, 2 },     { UINT64_MAX - 1, 3 },
		{ UINT64_MAX - 5, 7 }, { UINT64_MAX, UINT64_MAX },
		{ 2, UINT64_MAX },     { 1ull << 63, (1ull << 63) + 1 },
	};
	static const uint16_t verbs[] = { VIRTIO_TMEM_OP_PUT,
					  VIRTIO_TMEM_OP_GET };
	struct req key = { .pool = PERSISTENT, .object = 1 };
	uint8_t page[8 * PAGE] = { 0 };
	struct reply reply = { 0 };

	put_one(&vm, PERSISTENT, 1, 0, 1);
	put_one(&vm, PERSISTENT, 1, UINT64_MAX, 2);
	for (size_t v = 0; v < ARRAY_SIZE(verbs); v++)
		for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
			struct req req = key;

			req.op = verbs[v];
			req.count = counts[i];
			req_send(&vm, BULK, &req, 4 + PAGE, &reply);
			assert_int_equal(reply.status, INVAL);
		}
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		struct req req = key;

		req.op = VIRTIO_TMEM_OP_FLUSH;
		req.index = ends[i][0];
		req.count = ends[i][1];
		assert_int_equal(req_status(&vm, BULK, &req), INVAL);
		if (req.count > 8)
			continue;
		get_pages(&vm, BULK, &req, &reply);
		assert_int_equal(reply.status, INVAL);
		put_pages(&vm, BULK, &req, page, &reply);
		assert_int_equal(reply.status, INVAL);
	}
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 0, 1), OK);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, UINT64_MAX, 2), OK);
	assert_int_equal(pool_pages(&vm, PERSISTENT), 2);
	reply_free(&reply);
}

/* V6: chains of every length around the right one, and of no length at all. */
static void v6_lengths(void **state)
{
	const size_t put = REQ + 2 * PAGE, get = RESP + 2 * (4 + PAGE);
	struct req req = { .pool = PERSISTENT, .object = 1, .count = 2 };
	struct reply reply = { 0 };
	struct msg msg = { .out = calloc(1, put + 2 * PAGE) };
	struct tmem_server_stats stats;
	uint64_t bad = 0;

	for (size_t out = 0; out <= REQ + 1; out++)
		for (size_t in = 0; in <= RESP + 1; in++) {
			req.op = VIRTIO_TMEM_OP_FLUSH;
			req_encode(&req, msg.out);
			msg.out_len = out;
			msg.in_len = in;
			msg.cut = out * 100 + in;
			msg_send(&vm, BULK, &msg, &reply);
			if (in < RESP) {
				assert_int_equal(reply.rc, -EBADMSG);
				assert_int_equal(reply.used, 0);
				bad++;
				continue;
			}
			assert_int_equal(reply.rc, 0);
			assert_int_equal(reply.status, out == REQ ? OK : INVAL);
			assert_int_equal(reply.used, RESP);
		}
	tmem_server_stats(vm.server, &stats);
	assert_int_equal(stats.bad_chains, bad);
	req.op = VIRTIO_TMEM_OP_PUT;
	req_encode(&req, msg.out);
	for (int off = -PAGE; off <= (int)PAGE;
	     off += off > -9 && off < 9 ? 1 : 73) {
		msg.out_len = put + off;
		msg.in_len = RESP + 8;
		msg_send(&vm, BULK, &msg, &reply);
		assert_int_equal(reply.status, off ? INVAL : OK);
		msg.out_len = put;
		for (msg.in_len = RESP; msg.in_len < RESP + 12; msg.in_len++) {
			msg_send(&vm, BULK, &msg, &reply);
			assert_int_equal(reply.status,
					 msg.in_len < RESP + 8 ? INVAL : OK);
		}
	}
	req.op = VIRTIO_TMEM_OP_GET;
	req_encode(&req, msg.out);
	msg.out_len = REQ;
	for (msg.in_len = RESP; msg.in_len <= get + 9;
	     msg.in_len += msg.in_len + 10 > get ? 1 : 77) {
		msg_send(&vm, BULK, &msg, &reply);
		assert_int_equal(reply.status, msg.in_len < get ? INVAL : OK);
	}
	free(msg.out);
	reply_free(&reply);
}

/*
 * V6: pages on the wrong side: those of a PUT where the device writes, room for
 * those of a GET where it reads.  Neither is taken for the other.
 */
static void v6_wrong_direction(void **state)
{
	struct req req = { .op = VIRTIO_TMEM_OP_PUT,
			   .pool = PERSISTENT,
			   .object = 1,
			   .count = 2 };
	struct msg msg = { .out = calloc(1, REQ + 2 * PAGE) };
	struct reply reply = { 0 };

	put_one(&vm, PERSISTENT, 1, 0, 1);
	req_encode(&req, msg.out);
	msg.out_len = REQ;
	msg.in_len = RESP + 2 * (4 + PAGE);
	msg_send(&vm, BULK, &msg, &reply);
	assert_int_equal(reply.status, INVAL);
	assert_int_equal(reply.used, RESP);
	req.op = VIRTIO_TMEM_OP_GET;
	req_encode(&req, msg.out);
	msg.out_len = REQ + 2 * PAGE;
	msg.in_len = RESP + 8;
	msg_send(&vm, BULK, &msg, &reply);
	assert_int_equal(reply.status, INVAL);
	/* Both at once: there is room, and too much to read. */
	msg.in_len = RESP + 2 * (4 + PAGE);
	msg_send(&vm, BULK, &msg, &reply);
	assert_int_equal(reply.status, INVAL);
	assert_int_equal(reply.used, RESP);
	/* Nothing but memory to write into, or nothing but memory to read. */
	msg.out_len = 0;
	msg_send(&vm, BULK, &msg, &reply);
	assert_int_equal(reply.status, INVAL);
	msg.out_len = REQ + 2 * PAGE;
	msg.in_len = 0;
	msg_send(&vm, BULK, &msg, &reply);
	assert_int_equal(reply.rc, -EBADMSG);
	assert_int_equal(get_one(&vm, PERSISTENT, 1, 0, 1), OK);
	free(msg.out);
	reply_free(&reply);
}

/* ------------------------------------------------------------- V7: locks */

static sem_t fault_entered, fault_leave;
static uint8_t *fault_page;

/* A page fault that lasts until somebody allows it to end. */
static void on_fault(int signal, siginfo_t *info, void *context)
{
	uint8_t *at = info->si_addr;

	if (at < fault_page || at >= fault_page + PAGE)
		abort();
	sem_post(&fault_entered);
	while (sem_wait(&fault_leave))
		;
	if (mprotect(fault_page, PAGE, PROT_READ | PROT_WRITE))
		abort();
}

/* A run of 3 pages of which the middle one faults, in a thread of its own. */
static void *faulting_request(void *arg)
{
	const uint16_t *op = arg;
	struct req req = {
		.op = *op, .pool = PERSISTENT, .object = 1, .count = 3
	};
	bool put = *op == VIRTIO_TMEM_OP_PUT;
	uint8_t page[2][PAGE] = { { 1 }, { 2 } };
	struct virtio_tmem_req wire;
	uint8_t resp[RESP + 12];
	struct iovec out[] = { { &wire, REQ },
			       { page[0], PAGE },
			       { fault_page, PAGE },
			       { page[1], PAGE } };
	struct iovec in[] = { { resp, sizeof(resp) },
			      { page[0], PAGE },
			      { fault_page, PAGE },
			      { page[1], PAGE } };
	struct tmem_server_request rq = { .out = out,
					  .out_num = put ? 4 : 1,
					  .in = in,
					  .in_num = put ? 1 : 4 };

	req_encode(&req, &wire);
	MUST(tmem_server_submit(vm.queue[BULK + 1], &rq) == 0);
	MUST(rq.status == OK && rq.done == 3);
	tmem_server_retire(vm.queue[BULK + 1], &rq, true);
	return NULL;
}

/*
 * V7: a lock that is held when the guest's memory faults, or that an error path
 * forgets to release.  While one request sits in a fault, every verb works on
 * the same pool and object.
 */
static void v7_no_lock_over_guest_memory(void **state)
{
	const struct sigaction action = { .sa_sigaction = on_fault,
					  .sa_flags = SA_SIGINFO };
	static const uint16_t verbs[] = { VIRTIO_TMEM_OP_PUT,
					  VIRTIO_TMEM_OP_GET };
	struct sigaction old;

	sem_init(&fault_entered, 0, 0);
	sem_init(&fault_leave, 0, 0);
	assert_int_equal(sigaction(SIGSEGV, &action, &old), 0);
	for (unsigned int i = 0; i < 3 * ARRAY_SIZE(verbs); i++) {
		bool destroy = i % 3 == 1, reset = i % 3 == 2;
		struct req req = { .op = VIRTIO_TMEM_OP_POOL_CREATE,
				   .pool = PERSISTENT,
				   .index = SHIFT,
				   .flags = VIRTIO_TMEM_POOL_PERSISTENT };
		uint16_t op = verbs[i / 3];
		pthread_t thread;

		for (uint64_t n = 0; n < 3; n++)
			put_one(&vm, PERSISTENT, 1, n, SEED_RANDOM(n));
		fault_page = mmap(NULL, PAGE, PROT_NONE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(fault_page != MAP_FAILED);
		assert_int_equal(pthread_create(&thread, NULL, faulting_request,
						&op),
				 0);
		while (sem_wait(&fault_entered))
			;
		alarm(60); /* a lock that is held: die, do not hang */
		assert_int_equal(req_status(&vm, BULK, &req), OK);
		assert_int_equal(put_one(&vm, PERSISTENT, 1, 7, 5), OK);
		assert_int_equal(get_one(&vm, PERSISTENT, 1, 7, 5), OK);
		assert_int_equal(put_one(&vm, PERSISTENT, 2, 7, 5), OK);
		assert_int_equal(get_one(&vm, PERSISTENT, 1, 1, SEED_RANDOM(1)),
				 OK);
		req = (struct req){ .op = VIRTIO_TMEM_OP_FLUSH,
				    .pool = PERSISTENT,
				    .object = 1,
				    .index = 5,
				    .count = 100 };
		assert_int_equal(req_status(&vm, BULK, &req), OK);
		assert_true(pool_pages(&vm, PERSISTENT) > 0);
		req = (struct req){ .op = VIRTIO_TMEM_OP_FLUSH_OBJECT,
				    .pool = PERSISTENT,
				    .object = 2 };
		assert_int_equal(req_status(&vm, BULK, &req), OK);
		if (destroy || reset) {
			/* Even the pool may go, and another one come. */
			req = (struct req){ .op = VIRTIO_TMEM_OP_POOL_DESTROY,
					    .pool = PERSISTENT };
			if (reset)
				req.op = VIRTIO_TMEM_OP_RESET_ALL;
			if (reset)
				req.pool = 0;
			assert_int_equal(req_status(&vm, BULK, &req), OK);
			req = (struct req){
				.op = VIRTIO_TMEM_OP_POOL_CREATE,
				.pool = PERSISTENT,
				.index = SHIFT,
				.flags = VIRTIO_TMEM_POOL_PERSISTENT
			};
			assert_int_equal(req_status(&vm, BULK, &req), OK);
			assert_int_equal(put_one(&vm, PERSISTENT, 1, 9, 5), OK);
		}
		alarm(0);
		sem_post(&fault_leave);
		pthread_join(thread, NULL);
		/* What the old pool got late did not get into the new one. */
		if (destroy || reset)
			assert_int_equal(pool_pages(&vm, PERSISTENT), 1);
		munmap(fault_page, PAGE);
	}
	sigaction(SIGSEGV, &old, NULL);
}

/* V7: after any kind of error, from another thread: nothing is locked. */
static void *try_everything(void *arg)
{
	MUST(put_one(&vm, PERSISTENT, 1, 1, 9) == OK);
	MUST(get_one(&vm, PERSISTENT, 1, 1, 9) == OK);
	MUST(put_one(&vm, EPHEMERAL, 1, 1, 9) == OK);
	MUST(pool_pages(&vm, PERSISTENT) > 0);
	MUST(tmem_server_list_pools(vm.server, NULL, 0) == 2);
	return NULL;
}

static void v7_errors_release_locks(void **state)
{
	uint64_t rng = 3;

	for (unsigned int i = 0; i < 300; i++) {
		struct req req = { .op = 1 + rng_below(&rng, 8),
				   .flags = rng_below(&rng, 3),
				   .pool = rng_below(&rng, 4),
				   .object = rng_below(&rng, 2),
				   .index = rng_next(&rng),
				   .count = rng_next(&rng) };
		pthread_t thread;

		alarm(60); /* a lock that is held: die, do not hang */
		req_status(&vm, BULK, &req);
		assert_int_equal(
			pthread_create(&thread, NULL, try_everything, NULL), 0);
		pthread_join(thread, NULL);
		alarm(0);
	}
}

/*
 * V8: nothing that a guest sends is worth a line of log; it is counted.
 * (dev.security.bounds)
 */
static void v8_no_log(void **state)
{
	const unsigned int requests = 100000;
	FILE *log = tmpfile();
	struct tmem_server_stats before, after;
	struct virtio_tmem_req wire;
	uint8_t resp[RESP];
	struct iovec out = { &wire, REQ }, in = { resp, RESP };
	int saved[2] = { dup(1), dup(2) };
	uint64_t rng = 5, bad = 0, chains = 0;

	assert_non_null(log);
	tmem_server_stats(vm.server, &before);
	fflush(NULL);
	dup2(fileno(log), 1);
	dup2(fileno(log), 2);
	for (unsigned int i = 0; i < requests; i++) {
		struct tmem_server_request rq = {
			.out = &out, .out_num = 1, .in = &in, .in_num = 1
		};
		struct req req = { .op = rng_next(&rng),
				   .flags = rng_next(&rng) | 0x8000,
				   .pool = rng_next(&rng),
				   .count = rng_next(&rng) };

		if (i % 2)
			req.op = 1 + req.op % 8;
		out.iov_len = i % 7 ? REQ : i % REQ;
		in.iov_len = i % 5 ? RESP : i % RESP;
		req_encode(&req, &wire);
		if (tmem_server_submit(vm.queue[BULK], &rq)) {
			chains++;
			continue;
		}
		tmem_server_retire(vm.queue[BULK], &rq, true);
		bad += rq.status != OK && rq.status != NOENT;
	}
	fflush(NULL);
	dup2(saved[0], 1);
	dup2(saved[1], 2);
	close(saved[0]);
	close(saved[1]);
	fseek(log, 0, SEEK_END);
	assert_int_equal(ftell(log), 0);
	fclose(log);
	tmem_server_stats(vm.server, &after);
	assert_int_equal(after.bad_requests - before.bad_requests, bad);
	assert_int_equal(after.bad_chains, chains);
	assert_int_equal(bad + chains, requests);
	assert_alive();
}

/* ------------------------------------------- V13: allocations that fail */

/*
 * A page of every kind goes in under failing allocations.  Whatever is said to
 * be stored is there; what is refused is not, nor what was there before.
 */
static void put_under_faults(struct vm *v, struct faults *faults,
			     uint64_t *refused)
{
	unsigned int status[24];

	for (uint64_t i = 0; i < ARRAY_SIZE(status); i++) {
		/* New objects, old ones, overwritten and far away pages. */
		uint64_t object = i % 5, index = i % 3 ? i % 7 : i << 40;

		status[i] = put_one(v, PERSISTENT, object, index, i);
		MUST(status[i] == OK || status[i] == NOSPC);
		*refused += status[i] == NOSPC;
	}
	faults->fail_at = 0;
	for (uint64_t i = 0; i < ARRAY_SIZE(status); i++) {
		uint64_t object = i % 5, index = i % 3 ? i % 7 : i << 40;
		bool last = true;

		for (uint64_t j = i + 1; j < ARRAY_SIZE(status); j++)
			if (j % 5 == object &&
			    (j % 3 ? j % 7 : j << 40) == index)
				last = false;
		if (last)
			MUST(get_one(v, PERSISTENT, object, index, i) ==
			     (status[i] == OK ? OK : NOENT));
	}
}

static void v13_allocations_fail(void **state)
{
	uint64_t opened = 0, refused = 0;

	alarm(300); /* V7 again: an error path that keeps a lock hangs here */
	for (unsigned int all = 0; all < 2; all++) {
		for (uint64_t n = 1;; n++) {
			struct faults faults = { .fail_at = n,
						 .fail_all = all };
			const struct vm_options options = { .faults = &faults,
							    .max_bytes =
								    64 * MIB,
							    .reserved =
								    4 * MIB };
			struct req req = {
				.op = VIRTIO_TMEM_OP_POOL_CREATE,
				.index = SHIFT,
				.flags = VIRTIO_TMEM_POOL_PERSISTENT
			};
			unsigned int status;
			struct vm v;
			int error;
			bool done;

			error = vm_try_open(&v, &options);
			if (error) {
				assert_int_equal(error, -ENOMEM);
				continue;
			}
			opened++;
			status = req_status(&v, BULK, &req);
			if (status != OK) {
				assert_int_equal(status, NOSPC);
				req.op = VIRTIO_TMEM_OP_POOL_DESTROY;
				req.index = req.flags = 0;
				assert_int_equal(req_status(&v, BULK, &req),
						 NOENT);
				faults.fail_at = 0;
				vm_close(&v);
				continue;
			}
			put_under_faults(&v, &faults, &refused);
			done = faults.calls < n;
			vm_close(&v);
			if (done)
				break;
			assert_in_range(n, 1, 100000);
		}
	}
	alarm(0);
	/* Failures were met on the way. */
	assert_in_range(opened, 5, 1000000);
	assert_in_range(refused, 5, 1000000);
}

/* V13: the old copy must not outlive a refused put, whatever it failed of. */
static void v13_refused_put_removes(void **state)
{
	struct faults faults = { 0 };
	const struct vm_options options = { .faults = &faults,
					    .reserved = 4 * MIB };
	unsigned int refused = 0;
	struct vm v;

	vm_open(&v, &options);
	vm_pools(&v);
	for (uint64_t i = 0; i < 200; i++) {
		uint64_t fresh = SEED_RANDOM(i + 1000);
		unsigned int status;

		faults.fail_at = 0;
		assert_int_equal(put_one(&v, PERSISTENT, i, 0, 4 * i), OK);
		faults.fail_at = faults.calls + 1;
		faults.fail_all = true;
		status = put_one(&v, PERSISTENT, i, 0, fresh);
		refused += status == NOSPC;
		assert_int_equal(get_one(&v, PERSISTENT, i, 0, fresh),
				 status == OK ? OK : NOENT);
	}
	assert_in_range(refused, 1, 200);
	faults.fail_at = 0;
	vm_close(&v);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(v1_no_other_verbs),
		TEST(v1_reserved_is_invalid),
		TEST(v2_pool_out_of_range),
		TEST(v3_destroy),
		TEST(v5_answer_overwrites_request),
		TEST(v5_memory_changes),
		TEST(v5_page_changes),
		TEST(v6_overflow),
		TEST(v6_lengths),
		TEST(v6_wrong_direction),
		TEST(v7_no_lock_over_guest_memory),
		TEST(v7_errors_release_locks),
		TEST(v8_no_log),
		cmocka_unit_test(v13_allocations_fail),
		cmocka_unit_test(v13_refused_put_removes),
	};

	return cmocka_run_group_tests_name("server-hostile", tests, NULL, NULL);
}
