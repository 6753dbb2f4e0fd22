/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests decoded, checked, run and answered
 *
 * The order is always the same: copy the header out of guest memory, check the
 * copy against what the device offers and against the lengths of the chain,
 * run, write the answer, set the used length.  Nothing is read from guest
 * memory twice, and nothing that was read decides anything but through its
 * copy.
 */
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tmem-server.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))

#define FEATURES \
	(1ull << VIRTIO_TMEM_F_PERSISTENT | 1ull << VIRTIO_TMEM_F_EPHEMERAL | \
	 1ull << VIRTIO_TMEM_F_EVENTS)

#define DEFAULT_MAX_POOLS 16
#define DEFAULT_MAX_PAGES 64
#define DEFAULT_MAX_SEGS 130

struct counters {
	atomic_uint_fast64_t requests[16], pages[16];
	atomic_uint_fast64_t bad_requests, bad_chains;
};

struct tmem_server {
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	uint64_t offered;
	atomic_uint_fast64_t features; /* accepted by the driver */
	uint16_t num_fast, num_bulk;
	uint32_t max_pools, max_pages, max_segs;
	atomic_uint generation;
	pthread_mutex_t lock; /* seen */
	struct virtio_tmem_config seen;
	struct counters count;
};

struct tmem_server_queue {
	struct tmem_server *server;
	struct tmem_ctx *ctx;
	bool fast;
	struct tmem_page *page; /* results of one request */
	__le32 *wire;		/* the same as the guest gets it */
};

/* ------------------------------------------------------------ guest memory */

static size_t iov_length(const struct iovec *iov, unsigned int num)
{
	size_t length = 0;

	for (unsigned int i = 0; i < num; i++)
		length += iov[i].iov_len;
	return length;
}

enum direction { FROM_GUEST, TO_GUEST, CLEAR_GUEST };

/* Copy or clear @size bytes at @offset; how many there were. */
static size_t iov_move(const struct iovec *iov, unsigned int num, size_t offset,
		       void *private, size_t size, enum direction direction)
{
	size_t done = 0;

	for (unsigned int i = 0; i < num && done < size; i++) {
		size_t length;
		char *guest;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		length = MIN(iov[i].iov_len - offset, size - done);
		guest = (char *)iov[i].iov_base + offset;
		switch (direction) {
		case FROM_GUEST:
			memcpy((char *)private + done, guest, length);
			break;
		case TO_GUEST:
			memcpy(guest, (char *)private + done, length);
			break;
		case CLEAR_GUEST:
			memset(guest, 0, length);
			break;
		}
		done += length;
		offset = 0;
	}
	return done;
}

/* ----------------------------------------------------------------- request */

/* A request's header in host order, from the one copy that is made of it. */
struct header {
	uint16_t op, flags;
	uint32_t pool;
	uint8_t object[VIRTIO_TMEM_OBJECT_SIZE];
	uint64_t index, count;
	bool has_object, has_reserved;
};

static bool any_byte(const void *bytes, size_t size)
{
	const uint8_t *byte = bytes;

	while (size--)
		if (*byte++)
			return true;
	return false;
}

static bool header_read(const struct tmem_server_request *r, struct header *h)
{
	struct virtio_tmem_req wire;

	if (iov_move(r->out, r->out_num, 0, &wire, sizeof(wire), FROM_GUEST) <
	    sizeof(wire))
		return false;
	h->op = le16toh(wire.op);
	h->flags = le16toh(wire.flags);
	h->pool = le32toh(wire.pool);
	memcpy(h->object, wire.object, sizeof(h->object));
	h->index = le64toh(wire.index);
	h->count = le64toh(wire.count);
	h->has_object = any_byte(wire.object, sizeof(wire.object));
	h->has_reserved = any_byte(wire.reserved, sizeof(wire.reserved));
	return true;
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
	case -EEXIST:
		return VIRTIO_TMEM_S_EXIST;
	case -EIO:
		return VIRTIO_TMEM_S_IO;
	default:
		return VIRTIO_TMEM_S_INVAL;
	}
}

/* Write the response and set the result; the request is over. */
static void answer(struct tmem_server_queue *q, struct tmem_server_request *r,
		   uint16_t status, uint64_t done, size_t used)
{
	struct virtio_tmem_resp resp = {
		.status = htole16(status),
		.generation = htole32(atomic_load(&q->server->generation)),
		.done = htole64(done),
	};

	iov_move(r->in, r->in_num, 0, &resp, sizeof(resp), TO_GUEST);
	r->status = status;
	r->done = done;
	r->used = sizeof(resp) + used;
	if (status != VIRTIO_TMEM_S_OK && status != VIRTIO_TMEM_S_NOSPC &&
	    status != VIRTIO_TMEM_S_NOENT)
		atomic_fetch_add(&q->server->count.bad_requests, 1);
}

static void count_pages(struct tmem_server_queue *q, uint16_t op,
			uint64_t pages)
{
	atomic_fetch_add(&q->server->count.pages[op], pages);
}

/* ------------------------------------------------------------------- pools */

static int do_pool_create(struct tmem_server_queue *q, const struct header *h,
			  struct tmem_server_request *r)
{
	struct tmem_server *s = q->server;
	bool persistent = h->flags & VIRTIO_TMEM_POOL_PERSISTENT;
	uint64_t features = atomic_load(&s->features), held = 0;
	struct tmem_pool_params params = {
		.flags = persistent ? TMEM_POOL_PERSISTENT : 0,
		.page_shift = MIN(h->index, UINT32_MAX),
	};
	uint64_t needs = 1ull << (persistent ? VIRTIO_TMEM_F_PERSISTENT :
					       VIRTIO_TMEM_F_EPHEMERAL);
	int error;

	if (h->flags & (VIRTIO_TMEM_POOL_SHARED | VIRTIO_TMEM_POOL_OPAQUE) ||
	    !(features & needs)) {
		answer(q, r, VIRTIO_TMEM_S_UNSUPP, 0, 0);
		return 0;
	}
	if (h->flags & ~VIRTIO_TMEM_POOL_PERSISTENT || h->has_object ||
	    h->count || h->pool >= s->max_pools)
		error = -EINVAL;
	else
		error = tmem_pool_create(s->tenant, h->pool, &params, &held);
	answer(q, r, status_of(error), error ? 0 : held, 0);
	return 0;
}

static int do_pool_destroy(struct tmem_server_queue *q, const struct header *h,
			   struct tmem_server_request *r)
{
	int error = -EINVAL;

	if (!h->flags && !h->has_object && !h->index && !h->count)
		error = tmem_pool_destroy(q->server->tenant, h->pool);
	answer(q, r, status_of(error), 0, 0);
	return 0;
}

static int do_reset_all(struct tmem_server_queue *q, const struct header *h,
			struct tmem_server_request *r)
{
	if (h->flags || h->pool || h->has_object || h->index || h->count) {
		answer(q, r, VIRTIO_TMEM_S_INVAL, 0, 0);
		return 0;
	}
	tmem_tenant_reset(q->server->tenant);
	answer(q, r, VIRTIO_TMEM_S_OK, 0, 0);
	return 0;
}

static int do_pool_stats(struct tmem_server_queue *q, const struct header *h,
			 struct tmem_server_request *r)
{
	struct virtio_tmem_pool_stats wire;
	struct tmem_stats stats;
	int error = -EINVAL;

	if (!h->flags && !h->has_object && !h->index && !h->count &&
	    iov_length(r->in, r->in_num) >=
		    sizeof(struct virtio_tmem_resp) + sizeof(wire))
		error = tmem_pool_stats(q->server->tenant, h->pool, &stats);
	if (error) {
		answer(q, r, status_of(error), 0, 0);
		return 0;
	}
	wire.pages = htole64(stats.persistent_pages + stats.ephemeral_pages);
	wire.bytes = htole64(stats.held_bytes);
	wire.puts = htole64(stats.puts);
	wire.refusals =
		htole64(stats.puts_refused_limit + stats.puts_refused_memory +
			stats.puts_refused_headroom);
	wire.gets = htole64(stats.gets);
	wire.misses = htole64(stats.misses);
	wire.flushes = htole64(stats.flushes);
	wire.evictions = htole64(stats.evictions);
	iov_move(r->in, r->in_num, sizeof(struct virtio_tmem_resp), &wire,
		 sizeof(wire), TO_GUEST);
	answer(q, r, VIRTIO_TMEM_S_OK, 0, sizeof(wire));
	return 0;
}

/* --------------------------------------------------------------- transfers */

/* The request's op for the store; its memory and results are set by others. */
static void op_init(struct tmem_op *op, const struct header *h, uint16_t verb,
		    uint32_t page_size)
{
	memset(op, 0, sizeof(*op));
	op->verb = verb;
	op->pool = h->pool;
	memcpy(op->object, h->object, sizeof(op->object));
	op->index = h->index;
	op->count = h->count;
	op->page_size = page_size;
}

/* 0, or what is wrong with a PUT or GET; @page_size: of its pool. */
static int transfer_check(struct tmem_server_queue *q, const struct header *h,
			  uint32_t *page_size)
{
	struct tmem_server *s = q->server;
	struct tmem_pool_params params;
	int error;

	if (!h->count || h->count > s->max_pages ||
	    h->count - 1 > UINT64_MAX - h->index)
		return -EINVAL;
	if (q->fast && h->count > VIRTIO_TMEM_FAST_PAGES)
		return -EINVAL;
	error = tmem_pool_query(s->tenant, h->pool, &params);
	if (!error)
		*page_size = 1u << params.page_shift;
	return error;
}

/* page[] of the response; its bytes. */
static size_t write_pages(struct tmem_server_queue *q,
			  struct tmem_server_request *r)
{
	static const uint8_t status[] = {
		[TMEM_PAGE_OK] = VIRTIO_TMEM_S_OK,
		[TMEM_PAGE_REFUSED] = VIRTIO_TMEM_S_NOSPC,
		[TMEM_PAGE_MISS] = VIRTIO_TMEM_S_NOENT,
		[TMEM_PAGE_IO] = VIRTIO_TMEM_S_IO,
	};
	size_t bytes = r->tmem.count * sizeof(q->wire[0]);

	for (uint64_t i = 0; i < r->tmem.count; i++)
		q->wire[i] = htole32((uint32_t)status[q->page[i].status]
					     << VIRTIO_TMEM_PAGE_STATUS_SHIFT |
				     q->page[i].length);
	iov_move(r->in, r->in_num, sizeof(struct virtio_tmem_resp), q->wire,
		 bytes, TO_GUEST);
	return bytes;
}

static int do_put(struct tmem_server_queue *q, const struct header *h,
		  struct tmem_server_request *r)
{
	struct tmem_op *op = &r->tmem;
	uint32_t page_size;
	int error = h->flags ? -EINVAL : transfer_check(q, h, &page_size);

	/* Exactly the data that it says, and room for the whole answer. */
	if (!error &&
	    (iov_length(r->out, r->out_num) !=
		     sizeof(struct virtio_tmem_req) + h->count * page_size ||
	     iov_length(r->in, r->in_num) <
		     sizeof(struct virtio_tmem_resp) +
			     h->count * sizeof(__le32)))
		error = -EINVAL;
	if (!error) {
		op_init(op, h, TMEM_PUT, page_size);
		op->iov = r->out;
		op->iovcnt = r->out_num;
		op->skip = sizeof(struct virtio_tmem_req);
		op->page = q->page;
		error = tmem_submit(q->ctx, q->server->tenant, op);
	}
	if (error == -EAGAIN)
		return error;
	if (error) {
		answer(q, r, status_of(error), 0, 0);
		return 0;
	}
	count_pages(q, h->op, h->count);
	answer(q, r, VIRTIO_TMEM_S_OK, op->done, write_pages(q, r));
	return 0;
}

/*
 * Pages that were not found, before the last that was, become zeros: every
 * byte below the used length is ours.  Returns the bytes of data used.
 */
static size_t clear_misses(struct tmem_server_queue *q,
			   struct tmem_server_request *r, size_t data,
			   uint32_t page_size)
{
	uint64_t end = r->tmem.count;

	while (end && q->page[end - 1].status != TMEM_PAGE_OK)
		end--;
	for (uint64_t i = 0; i < end; i++)
		if (q->page[i].status != TMEM_PAGE_OK)
			iov_move(r->in, r->in_num, data + i * page_size, NULL,
				 page_size, CLEAR_GUEST);
	return end * page_size;
}

static int do_get(struct tmem_server_queue *q, const struct header *h,
		  struct tmem_server_request *r)
{
	size_t data = sizeof(struct virtio_tmem_resp);
	struct tmem_op *op = &r->tmem;
	uint32_t page_size;
	int error = h->flags & ~VIRTIO_TMEM_GET_EXCLUSIVE ?
			    -EINVAL :
			    transfer_check(q, h, &page_size);

	if (!error) {
		data += h->count * sizeof(__le32);
		if (iov_length(r->in, r->in_num) < data + h->count * page_size)
			error = -EINVAL;
	}
	if (!error) {
		op_init(op, h, TMEM_GET, page_size);
		op->flags = h->flags & VIRTIO_TMEM_GET_EXCLUSIVE ?
				    TMEM_GET_EXCLUSIVE :
				    0;
		op->iov = r->in;
		op->iovcnt = r->in_num;
		op->skip = data;
		op->page = q->page;
		error = tmem_submit(q->ctx, q->server->tenant, op);
	}
	if (error) {
		answer(q, r, status_of(error), 0, 0);
		return 0;
	}
	count_pages(q, h->op, h->count);
	answer(q, r, VIRTIO_TMEM_S_OK, op->done,
	       write_pages(q, r) + clear_misses(q, r, data, page_size));
	return 0;
}

/* ------------------------------------------------------------------- flush */

static int do_flush(struct tmem_server_queue *q, const struct header *h,
		    struct tmem_server_request *r)
{
	bool object = h->op == VIRTIO_TMEM_OP_FLUSH_OBJECT;
	int error = -EINVAL;

	if (!h->flags && (!object || (!h->index && !h->count))) {
		op_init(&r->tmem, h, object ? TMEM_FLUSH_OBJECT : TMEM_FLUSH,
			0);
		error = tmem_submit(q->ctx, q->server->tenant, &r->tmem);
	}
	if (!error)
		count_pages(q, h->op, r->tmem.done);
	answer(q, r, status_of(error), error ? 0 : r->tmem.done, 0);
	return 0;
}

/* ------------------------------------------------------------------ submit */

typedef int (*verb_fn)(struct tmem_server_queue *q, const struct header *h,
		       struct tmem_server_request *r);

static const verb_fn verbs[] = {
	[VIRTIO_TMEM_OP_POOL_CREATE] = do_pool_create,
	[VIRTIO_TMEM_OP_POOL_DESTROY] = do_pool_destroy,
	[VIRTIO_TMEM_OP_RESET_ALL] = do_reset_all,
	[VIRTIO_TMEM_OP_PUT] = do_put,
	[VIRTIO_TMEM_OP_GET] = do_get,
	[VIRTIO_TMEM_OP_FLUSH] = do_flush,
	[VIRTIO_TMEM_OP_FLUSH_OBJECT] = do_flush,
	[VIRTIO_TMEM_OP_POOL_STATS] = do_pool_stats,
};

int tmem_server_submit(struct tmem_server_queue *q,
		       struct tmem_server_request *r)
{
	struct tmem_server *s = q->server;
	struct header h;
	int error;

	r->used = 0;
	r->op = 0;
	r->pool = 0;
	r->index = r->count = r->done = 0;
	r->tmem.verb = 0;
	if (iov_length(r->in, r->in_num) < sizeof(struct virtio_tmem_resp) ||
	    !iov_length(r->out, r->out_num)) {
		atomic_fetch_add(&s->count.bad_chains, 1);
		return -EBADMSG;
	}
	if (!header_read(r, &h)) {
		atomic_fetch_add(&s->count.requests[0], 1);
		answer(q, r, VIRTIO_TMEM_S_INVAL, 0, 0);
		return 0;
	}
	r->op = h.op;
	r->pool = h.pool;
	r->index = h.index;
	r->count = h.count;
	if (h.op >= ARRAY_SIZE(verbs) || !verbs[h.op]) {
		atomic_fetch_add(&s->count.requests[0], 1);
		answer(q, r, VIRTIO_TMEM_S_UNSUPP, 0, 0);
		return 0;
	}
	if (h.has_reserved || (q->fast && h.op != VIRTIO_TMEM_OP_GET)) {
		atomic_fetch_add(&s->count.requests[h.op], 1);
		answer(q, r, VIRTIO_TMEM_S_INVAL, 0, 0);
		return 0;
	}
	error = verbs[h.op](q, &h, r);
	if (!error)
		atomic_fetch_add(&s->count.requests[h.op], 1);
	return error;
}

unsigned int tmem_server_poll(struct tmem_server_queue *q)
{
	return tmem_poll(q->ctx);
}

int tmem_server_queue_fd(struct tmem_server_queue *q)
{
	return tmem_ctx_fd(q->ctx);
}

void tmem_server_retire(struct tmem_server_queue *q,
			struct tmem_server_request *r, bool delivered)
{
	if (r->tmem.verb != TMEM_GET)
		return;
	/* The results of the op, which tmem_retire() reads, are the queue's. */
	r->tmem.page = q->page;
	if (delivered)
		tmem_retire(q->ctx, &r->tmem);
	else
		tmem_unretire(q->ctx, &r->tmem);
}

/* ------------------------------------------------------------------ server */

int tmem_server_create(const struct tmem_server_config *config,
		       struct tmem_server **out)
{
	struct tmem_server *s;

	if (!config->store || !config->tenant || !config->num_bulk ||
	    config->max_pools > TMEM_MAX_POOLS ||
	    config->max_pages > TMEM_MAX_RUN ||
	    (config->max_segs && config->max_segs < 3))
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->store = config->store;
	s->tenant = config->tenant;
	s->offered = config->features & FEATURES;
	s->num_fast = config->num_fast;
	s->num_bulk = config->num_bulk;
	s->max_pools = config->max_pools ?: DEFAULT_MAX_POOLS;
	s->max_pages = config->max_pages ?: DEFAULT_MAX_PAGES;
	s->max_segs = config->max_segs ?: DEFAULT_MAX_SEGS;
	atomic_store(&s->generation, config->generation ?: 1);
	pthread_mutex_init(&s->lock, NULL);
	tmem_server_config_changed(s);
	*out = s;
	return 0;
}

void tmem_server_destroy(struct tmem_server *s)
{
	if (!s)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s);
}

uint64_t tmem_server_features(const struct tmem_server *s)
{
	return s->offered;
}

int tmem_server_set_features(struct tmem_server *s, uint64_t features)
{
	if (features & ~s->offered)
		return -EINVAL;
	atomic_store(&s->features, features);
	return 0;
}

void tmem_server_get_config(struct tmem_server *s,
			    struct virtio_tmem_config *config)
{
	struct tmem_limits limits;
	uint32_t sizes = 0;

	for (unsigned int shift = VIRTIO_TMEM_PAGE_SHIFT_MIN;
	     shift <= VIRTIO_TMEM_PAGE_SHIFT_MAX; shift++)
		sizes |= 1u << shift;
	tmem_tenant_get_limits(s->tenant, &limits);
	*config = (struct virtio_tmem_config){
		.generation = htole32(atomic_load(&s->generation)),
		.pressure = htole32(tmem_tenant_pressure(s->tenant)),
		.num_fast = htole16(s->num_fast),
		.num_bulk = htole16(s->num_bulk),
		.max_pools = htole32(s->max_pools),
		.max_pages = htole32(s->max_pages),
		.max_segs = htole32(s->max_segs),
		.page_sizes = htole32(sizes),
		.persistent_reserved = htole64(limits.persistent_reserved),
		.persistent_max = htole64(limits.persistent_max),
		.ephemeral_max = htole64(limits.ephemeral_max),
	};
}

bool tmem_server_config_changed(struct tmem_server *s)
{
	struct virtio_tmem_config now;
	bool changed;

	tmem_server_get_config(s, &now);
	pthread_mutex_lock(&s->lock);
	changed = memcmp(&now, &s->seen, sizeof(now));
	s->seen = now;
	pthread_mutex_unlock(&s->lock);
	return changed;
}

void tmem_server_system_reset(struct tmem_server *s)
{
	tmem_tenant_reset(s->tenant);
	atomic_fetch_add(&s->generation, 1);
}

void tmem_server_new_generation(struct tmem_server *s, uint32_t generation)
{
	atomic_store(&s->generation, generation);
}

uint32_t tmem_server_generation(const struct tmem_server *s)
{
	return atomic_load(&s->generation);
}

/* ------------------------------------------------------------------- queue */

int tmem_server_queue_create(struct tmem_server *s, unsigned int index,
			     struct tmem_server_queue **out)
{
	struct tmem_server_queue *q;

	if (index >= (unsigned int)s->num_fast + s->num_bulk)
		return -EINVAL;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->server = s;
	q->fast = index < s->num_fast;
	q->page = calloc(s->max_pages, sizeof(*q->page));
	q->wire = calloc(s->max_pages, sizeof(*q->wire));
	if (!q->page || !q->wire || tmem_ctx_create(s->store, &q->ctx)) {
		tmem_server_queue_destroy(q);
		return -ENOMEM;
	}
	*out = q;
	return 0;
}

void tmem_server_queue_destroy(struct tmem_server_queue *q)
{
	if (!q)
		return;
	tmem_ctx_destroy(q->ctx);
	free(q->page);
	free(q->wire);
	free(q);
}

/* ------------------------------------------------------ pools over migration */

unsigned int tmem_server_list_pools(struct tmem_server *s,
				    struct tmem_server_pool *pools,
				    unsigned int max)
{
	unsigned int num = 0;

	for (uint32_t id = 0; id < s->max_pools; id++) {
		struct tmem_pool_params params;

		if (tmem_pool_query(s->tenant, id, &params))
			continue;
		if (num < max)
			pools[num] = (struct tmem_server_pool){
				.id = id,
				.flags = params.flags & TMEM_POOL_PERSISTENT ?
						 VIRTIO_TMEM_POOL_PERSISTENT :
						 0,
				.page_shift = params.page_shift,
			};
		num++;
	}
	return num;
}

int tmem_server_restore_pools(struct tmem_server *s,
			      const struct tmem_server_pool *pools,
			      unsigned int num)
{
	for (unsigned int i = 0; i < num; i++) {
		struct tmem_pool_params params = {
			.flags = pools[i].flags & VIRTIO_TMEM_POOL_PERSISTENT ?
					 TMEM_POOL_PERSISTENT :
					 0,
			.page_shift = pools[i].page_shift,
		};
		int error;

		if (pools[i].id >= s->max_pools ||
		    pools[i].flags & ~VIRTIO_TMEM_POOL_PERSISTENT)
			return -EINVAL;
		error = tmem_pool_create(s->tenant, pools[i].id, &params, NULL);
		if (error)
			return error == -ENOMEM ? error : -EINVAL;
	}
	return 0;
}

void tmem_server_stats(struct tmem_server *s, struct tmem_server_stats *stats)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(stats->requests); i++) {
		stats->requests[i] = atomic_load(&s->count.requests[i]);
		stats->pages[i] = atomic_load(&s->count.pages[i]);
	}
	stats->bad_requests = atomic_load(&s->count.bad_requests);
	stats->bad_chains = atomic_load(&s->count.bad_chains);
}
