/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The request server: one request, from its descriptors to its answer
 *
 * Checks go from what the request says of itself, over what its pool says, to
 * the length of its buffers, and all stand before the first effect.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "internal.h"
#include "iov.h"

#define REQ_SIZE  sizeof(struct virtio_tmem_req)
#define RESP_SIZE sizeof(struct virtio_tmem_resp)
/* Elements of page[] that are put into wire order at a time. */
#define PAGE_CHUNK 64

/* The request's own copy of its header, in the host's byte order. */
struct request {
	struct tmem_server_queue *queue;
	struct tmem_server *server;
	struct tmem_server_request *rq;
	size_t out_size;
	size_t in_size;
	uint16_t op;
	uint16_t flags;
	uint32_t pool;
	uint64_t index;
	uint64_t count;
	struct virtio_tmem_req req;
};

/* --------------------------------------------------------------- answers */

static void count_answer(struct tmem_server_queue *queue,
			 const struct tmem_server_request *rq)
{
	uint64_t max_pages = queue->server->config.max_pages;
	struct counters *c = &queue->counters;
	unsigned int op = rq->op;

	if (op > VIRTIO_TMEM_OP_POOL_STATS)
		op = 0;
	counter_add(&c->requests[op], 1);
	if (op == VIRTIO_TMEM_OP_PUT || op == VIRTIO_TMEM_OP_GET)
		counter_add(&c->pages[op],
			    rq->count < max_pages ? rq->count : max_pages);
	else if (op == VIRTIO_TMEM_OP_FLUSH)
		counter_add(&c->pages[op], rq->done);
	if (rq->status != VIRTIO_TMEM_S_OK &&
	    rq->status != VIRTIO_TMEM_S_NOSPC &&
	    rq->status != VIRTIO_TMEM_S_NOENT)
		counter_add(&c->bad_requests, 1);
}

/* Write the response header; what follows it is @extra bytes long. */
static void answer(struct tmem_server_queue *queue,
		   struct tmem_server_request *rq, uint16_t status,
		   uint64_t done, uint32_t extra)
{
	struct virtio_tmem_resp resp = {
		.status = htole16(status),
		.generation = htole32(tmem_server_generation(queue->server)),
		.done = htole64(done),
	};
	struct iov_pos pos = iov_at(rq->in, rq->in_num, 0);

	iov_write(&pos, &resp, sizeof(resp));
	rq->status = status;
	rq->done = done;
	rq->used = sizeof(resp) + extra;
	count_answer(queue, rq);
}

static uint16_t status_of(int error)
{
	switch (error) {
	case 0:
		return VIRTIO_TMEM_S_OK;
	case -ENOMEM:
	case -ENOSPC:
		return VIRTIO_TMEM_S_NOSPC;
	case -ENOENT:
		return VIRTIO_TMEM_S_NOENT;
	case -EINVAL:
		return VIRTIO_TMEM_S_INVAL;
	case -EPERM:
		return VIRTIO_TMEM_S_PERM;
	case -EEXIST:
		return VIRTIO_TMEM_S_EXIST;
	case -EOPNOTSUPP:
		return VIRTIO_TMEM_S_UNSUPP;
	default:
		return VIRTIO_TMEM_S_IO;
	}
}

/* ----------------------------------------------------------- put and get */

static struct tmem_page *pages_take(struct tmem_server_queue *queue)
{
	struct page_array *array = queue->spare;

	if (array)
		queue->spare = array->next;
	else
		array = page_array_new(queue->server);
	return array ? array->page : NULL;
}

/* Take the pages away from an op that may have none. */
static void pages_give(struct tmem_server_queue *queue, struct tmem_op *op)
{
	struct page_array *array;

	if (!op->page)
		return;
	array = (void *)((char *)op->page - offsetof(struct page_array, page));
	array->next = queue->spare;
	queue->spare = array;
	op->page = NULL;
}

static uint32_t page_word(const struct tmem_page *page)
{
	static const uint8_t status[] = {
		[TMEM_PAGE_OK] = VIRTIO_TMEM_S_OK,
		[TMEM_PAGE_REFUSED] = VIRTIO_TMEM_S_NOSPC,
		[TMEM_PAGE_MISS] = VIRTIO_TMEM_S_NOENT,
		[TMEM_PAGE_IO] = VIRTIO_TMEM_S_IO,
	};

	if (page->status == TMEM_PAGE_OK)
		return page->length & VIRTIO_TMEM_PAGE_LENGTH_MASK;
	if (page->status >= sizeof(status))
		return VIRTIO_TMEM_S_IO << VIRTIO_TMEM_PAGE_STATUS_SHIFT;
	return (uint32_t)status[page->status] << VIRTIO_TMEM_PAGE_STATUS_SHIFT;
}

/* Write page[]; returns its length. */
static uint32_t write_pages(struct tmem_server_request *rq)
{
	struct iov_pos pos = iov_at(rq->in, rq->in_num, RESP_SIZE);
	const struct tmem_op *op = &rq->tmem;
	uint32_t words[PAGE_CHUNK];

	for (uint64_t i = 0; i < op->count;) {
		unsigned int n = 0;

		while (n < PAGE_CHUNK && i < op->count)
			words[n++] = htole32(page_word(&op->page[i++]));
		iov_write(&pos, words, n * sizeof(words[0]));
	}
	return op->count * sizeof(uint32_t);
}

/*
 * Write zeros to the pages that the driver may look at and that were not found,
 * and to those that the library spoilt; returns the length up to the last one
 * that was found.
 */
static uint32_t fill_gaps(struct tmem_server_request *rq)
{
	const struct tmem_op *op = &rq->tmem;
	struct iov_pos pos = { op->iov, op->iovcnt, op->skip };
	size_t size = op->page_size;
	uint64_t found = op->count;

	while (found && op->page[found - 1].status != TMEM_PAGE_OK)
		found--;
	for (uint64_t i = 0; i < op->count; i++) {
		uint8_t status = op->page[i].status;

		if (status != TMEM_PAGE_OK &&
		    (i < found || status != TMEM_PAGE_MISS))
			iov_zero(&pos, size);
		else
			iov_advance(&pos, size);
	}
	return found * size;
}

/* The library wants to hear of it again, and then to see op->page. */
static bool must_retire(const struct tmem_op *op)
{
	return op->verb == TMEM_GET && op->flags & TMEM_GET_EXCLUSIVE;
}

/*
 * Its pages were not what the guest has.  What a put stored may be anything,
 * and so may be used by nobody (drv.put.failed); what a get took is back.
 */
static int lose(struct tmem_server_queue *queue, struct tmem_op *op)
{
	if (must_retire(op))
		tmem_unretire(queue->ctx, op);
	return -EIO;
}

static void answer_op(struct tmem_server_queue *queue,
		      struct tmem_server_request *rq, int error)
{
	struct tmem_op *op = &rq->tmem;
	uint64_t done = op->verb == TMEM_FLUSH_OBJECT ? 0 : op->done;
	uint32_t extra = 0;

	if (!error && queue->memory_lost && *queue->memory_lost)
		error = lose(queue, op);
	if (op->page && !error)
		extra = write_pages(rq);
	if (op->verb == TMEM_GET && !error)
		extra += fill_gaps(rq);
	if (error)
		op->verb = 0;
	if (!must_retire(op))
		pages_give(queue, op);
	answer(queue, rq, status_of(error), error ? 0 : done, extra);
}

static void op_complete(struct tmem_op *op, int error)
{
	struct tmem_server_request *rq =
		(void *)((char *)op -
			 offsetof(struct tmem_server_request, tmem));

	answer_op(op->opaque, rq, error);
	rq->complete(rq);
}

/* Run the op that was prepared: as tmem_server_submit(). */
static int run(const struct request *r)
{
	struct tmem_op *op = &r->rq->tmem;
	int error;

	op->pool = r->pool;
	memcpy(op->object, r->req.object, sizeof(op->object));
	op->index = r->index;
	op->count = r->count;
	op->complete = op_complete;
	op->opaque = r->queue;
	error = tmem_submit(r->queue->ctx, r->server->config.tenant, op);
	if (error == -EAGAIN) {
		/* Nobody answers, so nobody retires. */
		pages_give(r->queue, op);
		op->verb = 0;
	} else if (error != -EINPROGRESS) {
		answer_op(r->queue, r->rq, error);
		error = 0;
	}
	return error;
}

/* The pool's feature was negotiated?  Pools outlive the driver that made them.
 */
static bool pool_usable(const struct request *r, uint32_t pool_flags)
{
	unsigned int feature = pool_flags & TMEM_POOL_PERSISTENT
				       ? VIRTIO_TMEM_F_PERSISTENT
				       : VIRTIO_TMEM_F_EPHEMERAL;

	/* VIRTIO_TMEM_F_OPAQUE is never offered: somebody else's. */
	return !(pool_flags & TMEM_POOL_OPAQUE) &&
	       r->server->features >> feature & 1;
}

/* 0 or -errno.  A pool number is only ever used after this said 0. */
static int pool_find(const struct request *r, struct tmem_pool_params *params)
{
	int error;

	if (r->pool >= r->server->config.max_pools)
		return -ENOENT;
	error = tmem_pool_query(r->server->config.tenant, r->pool, params);
	if (!error && !pool_usable(r, params->flags))
		error = -EOPNOTSUPP;
	return error;
}

static bool range_valid(const struct request *r)
{
	return r->count && r->index <= UINT64_MAX - (r->count - 1);
}

/* Check a PUT or GET and say in its op what is special to it. */
static int run_prepare(const struct request *r, struct tmem_op *op)
{
	bool put = r->op == VIRTIO_TMEM_OP_PUT;
	uint16_t flags = put ? 0 : VIRTIO_TMEM_GET_EXCLUSIVE;
	struct tmem_pool_params params;
	struct iov_pos pos;
	size_t data, head;
	int error;

	if (r->flags & ~flags || r->count > r->server->config.max_pages ||
	    !range_valid(r))
		return -EINVAL;
	error = pool_find(r, &params);
	if (error)
		return error;
	if (r->flags & VIRTIO_TMEM_GET_EXCLUSIVE &&
	    params.flags & TMEM_POOL_PERSISTENT)
		return -EINVAL;
	/* At most TMEM_MAX_RUN << TMEM_PAGE_SHIFT_MAX: 32 bits are enough. */
	data = (size_t)r->count << params.page_shift;
	head = RESP_SIZE + r->count * sizeof(uint32_t);
	if (r->out_size != REQ_SIZE + (put ? data : 0) ||
	    r->in_size < head + (put ? 0 : data))
		return -EINVAL;
	pos = put ? iov_at(r->rq->out, r->rq->out_num, REQ_SIZE)
		  : iov_at(r->rq->in, r->rq->in_num, head);
	op->verb = put ? TMEM_PUT : TMEM_GET;
	op->flags = r->flags ? TMEM_GET_EXCLUSIVE : 0;
	op->page_size = 1u << params.page_shift;
	op->iov = pos.iov;
	op->iovcnt = pos.num;
	op->skip = pos.skip;
	return 0;
}

static int serve_run(const struct request *r)
{
	struct tmem_op *op = &r->rq->tmem;
	int error = run_prepare(r, op);

	/* No memory for page[]: neither a miss nor a refusal, it was not tried.
	 */
	if (!error && !(op->page = pages_take(r->queue)))
		error = -EIO;
	if (!error)
		return run(r);
	answer_op(r->queue, r->rq, error);
	return 0;
}

/* ------------------------------------------------------------ other verbs */

/* What an op does not use must be zero, so that it can get a meaning later. */
static bool object_zero(const struct request *r)
{
	static const uint8_t zero[VIRTIO_TMEM_OBJECT_SIZE];

	return !memcmp(r->req.object, zero, sizeof(zero));
}

static bool no_key(const struct request *r)
{
	return !r->flags && !r->index && !r->count && object_zero(r);
}

static int pool_create(const struct request *r, uint64_t *held)
{
	const uint16_t later =
		VIRTIO_TMEM_POOL_SHARED | VIRTIO_TMEM_POOL_OPAQUE;
	struct tmem_pool_params params = { 0 };

	if (r->flags & ~(later | VIRTIO_TMEM_POOL_PERSISTENT) || r->count ||
	    !object_zero(r) || r->pool >= r->server->config.max_pools ||
	    r->index < VIRTIO_TMEM_PAGE_SHIFT_MIN ||
	    r->index > VIRTIO_TMEM_PAGE_SHIFT_MAX)
		return -EINVAL;
	params.page_shift = r->index;
	if (r->flags & VIRTIO_TMEM_POOL_PERSISTENT)
		params.flags = TMEM_POOL_PERSISTENT;
	if (r->flags & later || !pool_usable(r, params.flags))
		return -EOPNOTSUPP;
	return tmem_pool_create(r->server->config.tenant, r->pool, &params,
				held);
}

static int pool_destroy(const struct request *r)
{
	if (!no_key(r))
		return -EINVAL;
	if (r->pool >= r->server->config.max_pools)
		return -ENOENT;
	return tmem_pool_destroy(r->server->config.tenant, r->pool);
}

static int reset_all(const struct request *r)
{
	if (!no_key(r) || r->pool)
		return -EINVAL;
	tmem_tenant_reset(r->server->config.tenant);
	return 0;
}

static int pool_stats(const struct request *r)
{
	struct virtio_tmem_pool_stats wire;
	struct tmem_pool_params params;
	struct tmem_stats stats = { .size = sizeof(stats) };
	struct iov_pos pos;
	int error;

	if (!no_key(r))
		return -EINVAL;
	error = pool_find(r, &params);
	if (error)
		return error;
	if (r->in_size < RESP_SIZE + sizeof(wire))
		return -EINVAL;
	error = tmem_pool_stats(r->server->config.tenant, r->pool, &stats);
	if (error)
		return error;
	wire = (struct virtio_tmem_pool_stats){
		.pages =
			htole64(stats.persistent_pages + stats.ephemeral_pages),
		.bytes = htole64(stats.held_bytes),
		.puts = htole64(stats.puts),
		.refusals = htole64(stats.puts_refused_limit +
				    stats.puts_refused_memory +
				    stats.puts_refused_headroom),
		.gets = htole64(stats.gets),
		.misses = htole64(stats.misses),
		.flushes = htole64(stats.flushes),
		.evictions = htole64(stats.evictions),
	};
	pos = iov_at(r->rq->in, r->rq->in_num, RESP_SIZE);
	iov_write(&pos, &wire, sizeof(wire));
	return 0;
}

static int serve_flush(const struct request *r)
{
	struct tmem_op *op = &r->rq->tmem;
	struct tmem_pool_params params;
	bool valid;
	int error;

	if (r->op == VIRTIO_TMEM_OP_FLUSH) {
		op->verb = TMEM_FLUSH;
		valid = range_valid(r);
	} else {
		op->verb = TMEM_FLUSH_OBJECT;
		valid = !r->index && !r->count;
	}
	valid = valid && !r->flags && r->out_size == REQ_SIZE;
	error = valid ? pool_find(r, &params) : -EINVAL;
	if (!error)
		return run(r);
	answer_op(r->queue, r->rq, error);
	return 0;
}

static int serve_other(const struct request *r)
{
	uint64_t done = 0;
	uint32_t extra = 0;
	int error;

	if (r->out_size != REQ_SIZE) {
		error = -EINVAL;
	} else if (r->op == VIRTIO_TMEM_OP_POOL_CREATE) {
		error = pool_create(r, &done);
	} else if (r->op == VIRTIO_TMEM_OP_POOL_DESTROY) {
		error = pool_destroy(r);
	} else if (r->op == VIRTIO_TMEM_OP_RESET_ALL) {
		error = reset_all(r);
	} else {
		error = pool_stats(r);
		extra = error ? 0 : sizeof(struct virtio_tmem_pool_stats);
	}
	answer(r->queue, r->rq, status_of(error), error ? 0 : done, extra);
	return 0;
}

/* --------------------------------------------------------------- requests */

/* Copy the header, once. */
static void decode(struct request *r)
{
	struct tmem_server_request *rq = r->rq;
	struct iov_pos pos = iov_at(rq->out, rq->out_num, 0);

	iov_read(&pos, &r->req, sizeof(r->req));
	rq->op = r->op = le16toh(r->req.op);
	r->flags = le16toh(r->req.flags);
	rq->pool = r->pool = le32toh(r->req.pool);
	rq->index = r->index = le64toh(r->req.index);
	rq->count = r->count = le64toh(r->req.count);
}

/* What every request must keep; a status. */
static uint16_t check(const struct request *r)
{
	static const uint8_t zero[sizeof(r->req.reserved)];

	if (r->op < VIRTIO_TMEM_OP_POOL_CREATE ||
	    r->op > VIRTIO_TMEM_OP_POOL_STATS)
		return VIRTIO_TMEM_S_UNSUPP;
	if (memcmp(r->req.reserved, zero, sizeof(zero)))
		return VIRTIO_TMEM_S_INVAL;
	if (r->queue->fast &&
	    (r->op != VIRTIO_TMEM_OP_GET || r->count > VIRTIO_TMEM_FAST_PAGES))
		return VIRTIO_TMEM_S_INVAL;
	return VIRTIO_TMEM_S_OK;
}

int tmem_server_submit(struct tmem_server_queue *queue,
		       struct tmem_server_request *rq)
{
	struct request r = {
		.queue = queue,
		.server = queue->server,
		.rq = rq,
		.out_size = iov_size(rq->out, rq->out_num),
		.in_size = iov_size(rq->in, rq->in_num),
	};
	uint16_t status;

	rq->used = 0;
	rq->op = 0;
	rq->pool = 0;
	rq->index = rq->count = rq->done = 0;
	rq->status = VIRTIO_TMEM_S_INVAL;
	memset(&rq->tmem, 0, sizeof(rq->tmem));
	if (r.in_size < RESP_SIZE) {
		counter_add(&queue->counters.bad_chains, 1);
		return -EBADMSG;
	}
	if (r.out_size < REQ_SIZE) {
		answer(queue, rq, VIRTIO_TMEM_S_INVAL, 0, 0);
		return 0;
	}
	decode(&r);
	status = check(&r);
	if (status != VIRTIO_TMEM_S_OK) {
		answer(queue, rq, status, 0, 0);
		return 0;
	}
	switch (r.op) {
	case VIRTIO_TMEM_OP_PUT:
	case VIRTIO_TMEM_OP_GET:
		return serve_run(&r);
	case VIRTIO_TMEM_OP_FLUSH:
	case VIRTIO_TMEM_OP_FLUSH_OBJECT:
		return serve_flush(&r);
	default:
		return serve_other(&r);
	}
}

void tmem_server_retire(struct tmem_server_queue *queue,
			struct tmem_server_request *request, bool delivered)
{
	struct tmem_op *op = &request->tmem;

	if (!must_retire(op))
		return;
	if (delivered)
		tmem_retire(queue->ctx, op);
	else
		tmem_unretire(queue->ctx, op);
	pages_give(queue, op);
	op->verb = 0;
}
