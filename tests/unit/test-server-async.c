/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What no store does yet, or only a damaged one: ops that complete later, pages
 * that cannot be read, errors that are not expected.  tmem_submit(), as the
 * server sees it, is replaced by the linker (--wrap) with one that a test can
 * tell what to do.
 */
#include "test-server-fixture.h"

int __real_tmem_submit(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		       struct tmem_op *op);
int __wrap_tmem_submit(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		       struct tmem_op *op);
unsigned int __real_tmem_poll(struct tmem_ctx *ctx);
unsigned int __wrap_tmem_poll(struct tmem_ctx *ctx);

#define DEFERRED 8
static struct {
	bool defer;
	int error;	    /* answer this */
	unsigned int spoil; /* bit n: page n of a get is damaged */
	struct {
		struct tmem_ctx *ctx;
		struct tmem_tenant *tenant;
		struct tmem_op *op;
	} later[DEFERRED];
	unsigned int num;
} wrap;

/* Damage: rubbish in the guest's page, as a failed decoder leaves it. */
static void spoil(struct tmem_op *op)
{
	for (unsigned int i = 0; i < op->count; i++) {
		size_t at = op->skip + i * op->page_size, left = op->page_size;

		if (!(wrap.spoil >> i & 1))
			continue;
		op->done -= op->page[i].status == TMEM_PAGE_OK;
		op->page[i].status = TMEM_PAGE_IO;
		op->page[i].length = 77;
		for (unsigned int n = 0; n < op->iovcnt && left; n++) {
			size_t len = op->iov[n].iov_len;

			if (at >= len) {
				at -= len;
				continue;
			}
			len = len - at < left ? len - at : left;
			memset((char *)op->iov[n].iov_base + at, 0xbd, len);
			left -= len;
			at = 0;
		}
	}
}

int __wrap_tmem_submit(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		       struct tmem_op *op)
{
	int error;

	if (wrap.error)
		return wrap.error;
	if (wrap.defer) {
		MUST(wrap.num < DEFERRED);
		wrap.later[wrap.num].ctx = ctx;
		wrap.later[wrap.num].tenant = tenant;
		wrap.later[wrap.num++].op = op;
		return -EINPROGRESS;
	}
	error = __real_tmem_submit(ctx, tenant, op);
	if (!error && op->verb == TMEM_GET && wrap.spoil)
		spoil(op);
	return error;
}

/* The last one first: order means nothing. */
unsigned int __wrap_tmem_poll(struct tmem_ctx *ctx)
{
	unsigned int num = 0;

	while (wrap.num) {
		struct tmem_op *op = wrap.later[--wrap.num].op;

		op->complete(op, __real_tmem_submit(
					 ctx, wrap.later[wrap.num].tenant, op));
		num++;
	}
	return num;
}

static struct vm vm;

static int setup(void **state)
{
	memset(&wrap, 0, sizeof(wrap));
	vm_open(&vm, NULL);
	vm_pools(&vm);
	return 0;
}

static int teardown(void **state)
{
	memset(&wrap, 0, sizeof(wrap));
	vm_close(&vm);
	return 0;
}

/*
 * A damaged page is an error of its own, with no length and no residue: zeros
 * wherever it stands; the used length ends after the last page that is whole.
 */
static void damaged_pages(void **state)
{
	struct virtio_tmem_req wire;
	struct req req = { .op = VIRTIO_TMEM_OP_GET,
			   .pool = PERSISTENT,
			   .object = 1,
			   .count = 6 };
	static uint8_t in[RESP + 6 * (4 + PAGE)];
	static const uint8_t zero[PAGE];
	struct iovec o = { &wire, REQ },
		     i[] = { { in, 30 }, { in + 30, sizeof(in) - 30 } };

	for (uint64_t n = 0; n < 6; n++)
		if (n != 1)
			put_one(&vm, PERSISTENT, 1, n, SEED_RANDOM(n));
	req_encode(&req, &wire);
	for (unsigned int mask = 1; mask < 1 << 6; mask++) {
		struct tmem_server_request rq = {
			.out = &o, .out_num = 1, .in = i, .in_num = 2
		};
		unsigned int end = 0, found = 0;

		wrap.spoil = mask & ~2u;
		memset(in, 0xa5, sizeof(in));
		assert_int_equal(tmem_server_submit(vm.queue[BULK], &rq), 0);
		tmem_server_retire(vm.queue[BULK], &rq, true);
		for (unsigned int n = 0; n < 6; n++) {
			uint8_t *data = in + RESP + 24 + n * PAGE;
			uint32_t word;
			uint8_t page[PAGE];

			memcpy(&word, in + RESP + 4 * n, 4);
			word = le32toh(word);
			page_fill(page, PAGE, SEED_RANDOM(n));
			if (wrap.spoil >> n & 1) {
				assert_int_equal(word, IO << 24);
				assert_memory_equal(data, zero, PAGE);
			} else if (n == 1) {
				assert_int_equal(word, (uint32_t)NOENT << 24);
			} else {
				assert_int_equal(word, PAGE);
				assert_memory_equal(data, page, PAGE);
				end = n + 1;
				found++;
			}
		}
		assert_int_equal(rq.status, OK);
		assert_int_equal(rq.done, found);
		assert_int_equal(rq.used, RESP + 24 + end * PAGE);
		assert_memory_equal(in + RESP + 24 + PAGE,
				    end > 1 ? zero
					    : memset((uint8_t[PAGE]){ 0 }, 0xa5,
						     PAGE),
				    PAGE);
	}
}

/* V13: any error that the store may come up with is a failure, not a success.
 */
static void v13_any_error_is_an_error(void **state)
{
	static const struct {
		int error;
		unsigned int status;
	} errors[] = {
		{ -ENOMEM, VIRTIO_TMEM_S_NOSPC },
		{ -ENOSPC, VIRTIO_TMEM_S_NOSPC },
		{ -EINVAL, INVAL },
		{ -ENOENT, NOENT },
		{ -EPERM, VIRTIO_TMEM_S_PERM },
		{ -EIO, IO },
		{ -EUCLEAN, IO },
		{ -1234, IO },
	};

	for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
		for (unsigned int op = VIRTIO_TMEM_OP_PUT;
		     op <= VIRTIO_TMEM_OP_FLUSH_OBJECT; op++) {
			struct req req = { .op = op,
					   .pool = PERSISTENT,
					   .count = op < 7 };
			struct reply reply = { 0 };
			uint8_t page[PAGE] = { 0 };

			wrap.error = errors[i].error;
			if (op == VIRTIO_TMEM_OP_PUT)
				put_pages(&vm, BULK, &req, page, &reply);
			else
				req_send(&vm, BULK, &req, 4 + PAGE, &reply);
			assert_int_equal(reply.rc, 0);
			assert_int_equal(reply.status, errors[i].status);
			assert_int_equal(reply.used, RESP);
			reply_free(&reply);
		}
}

static unsigned int completed;

static void on_complete(struct tmem_server_request *request)
{
	completed++;
}

/* Requests that overlap each have results of their own. */
static void requests_complete_later(void **state)
{
	struct virtio_tmem_req wire[DEFERRED];
	static uint8_t in[DEFERRED][RESP + 3 * (4 + PAGE)];
	struct tmem_server_request rq[DEFERRED] = { 0 };
	struct iovec o[DEFERRED], i[DEFERRED];
	uint8_t page[PAGE];

	for (uint64_t n = 0; n < DEFERRED; n++) {
		struct req req = { .op = VIRTIO_TMEM_OP_GET,
				   .pool = EPHEMERAL,
				   .object = n,
				   .count = 3,
				   .flags = VIRTIO_TMEM_GET_EXCLUSIVE };

		put_one(&vm, EPHEMERAL, n, n % 3, n);
		if (n == DEFERRED - 1)
			req = (struct req){ .op = VIRTIO_TMEM_OP_FLUSH,
					    .pool = EPHEMERAL,
					    .count = 1 };
		req_encode(&req, &wire[n]);
		o[n] = (struct iovec){ &wire[n], REQ };
		i[n] = (struct iovec){ in[n], sizeof(in[n]) };
		rq[n] = (struct tmem_server_request){ .out = &o[n],
						      .out_num = 1,
						      .in = &i[n],
						      .in_num = 1,
						      .complete = on_complete };
	}
	completed = 0;
	wrap.defer = true;
	memset(in, 0xa5, sizeof(in));
	for (unsigned int n = 0; n < DEFERRED; n++) {
		assert_int_equal(tmem_server_submit(vm.queue[BULK], &rq[n]),
				 -EINPROGRESS);
		/* The driver may do with its request what it likes. */
		memset(&wire[n], 0xff, REQ);
	}
	assert_int_equal(completed, 0);
	wrap.defer = false;
	assert_int_equal(tmem_server_poll(vm.queue[BULK]), DEFERRED);
	assert_int_equal(completed, DEFERRED);
	for (unsigned int n = 0; n < DEFERRED - 1; n++) {
		/* Object 0 was flushed first: it came last. */
		assert_int_equal(rq[n].status, OK);
		assert_int_equal(rq[n].done, n != 0);
		assert_int_equal(rq[n].used,
				 RESP + 12 + (n ? (n % 3 + 1) * PAGE : 0));
		page_fill(page, PAGE, n);
		if (n)
			assert_memory_equal(in[n] + RESP + 12 + n % 3 * PAGE,
					    page, PAGE);
	}
	assert_int_equal(rq[DEFERRED - 1].status, OK);
	assert_int_equal(rq[DEFERRED - 1].done, 1);
	/* Some of them arrive. */
	for (unsigned int n = 0; n < DEFERRED; n++)
		tmem_server_retire(vm.queue[BULK], &rq[n], n % 2);
	for (uint64_t n = 1; n < DEFERRED - 1; n++)
		assert_int_equal(get_one(&vm, EPHEMERAL, n, n % 3, n),
				 n % 2 ? NOENT : OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(damaged_pages),
		TEST(v13_any_error_is_an_error),
		TEST(requests_complete_later),
	};

	return cmocka_run_group_tests_name("server-async", tests, NULL, NULL);
}
