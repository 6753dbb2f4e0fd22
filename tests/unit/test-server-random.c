/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests at random, and cut at random
 *
 * Two devices get the same requests, in memory that is cut differently and
 * filled with different canaries before: they must answer alike, byte for byte
 * up to the used length.  A plain model of what was accepted says what a GET
 * must return.  With -DFUZZ this file is a libFuzzer target instead.
 */
#include "test-server-fixture.h"

#define MAX_MSG	    (REQ + 64 * 8192)
#define MODEL_PAGES 8192

/* Where decisions come from: a generator, or a fuzzer's bytes. */
struct source {
	uint64_t rng;
	const uint8_t *bytes;
	size_t left;
};

static uint64_t choose(struct source *s, uint64_t n)
{
	uint64_t value = 0;

	if (!s->bytes)
		return n ? rng_below(&s->rng, n) : rng_next(&s->rng);
	for (unsigned int i = 0; i < 8 && s->left; i++) {
		value = value << 8 | *s->bytes++;
		s->left--;
		if (n && n <= 1ull << (8 * (i + 1)))
			break;
	}
	return n ? value % n : value;
}

/* ------------------------------------------------------------------- model */

struct model_page {
	uint32_t pool;
	uint8_t object[VIRTIO_TMEM_OBJECT_SIZE];
	uint64_t index, hash;
};

struct model {
	struct {
		bool exists;
		uint16_t flags;
		unsigned int shift;
	} pool[16];
	struct model_page page[MODEL_PAGES];
	unsigned int pages;
};

static uint64_t hash_bytes(const uint8_t *bytes, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < size; i += 8) {
		uint64_t word;

		memcpy(&word, bytes + i, sizeof(word));
		hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
		hash ^= hash >> 29;
	}
	return hash;
}

static struct model_page *model_find(struct model *m, uint32_t pool,
				     const uint8_t *object, uint64_t index)
{
	for (unsigned int i = 0; i < m->pages; i++) {
		struct model_page *p = &m->page[i];

		if (p->pool == pool && p->index == index &&
		    !memcmp(p->object, object, sizeof(p->object)))
			return p;
	}
	return NULL;
}

static void model_remove(struct model *m, struct model_page *page)
{
	if (page)
		*page = m->page[--m->pages];
}

/* @object: NULL: all objects. */
static void model_flush(struct model *m, uint32_t pool, const uint8_t *object,
			uint64_t first, uint64_t last)
{
	for (unsigned int i = m->pages; i--;) {
		struct model_page *p = &m->page[i];

		if (p->pool == pool && p->index >= first && p->index <= last &&
		    (!object || !memcmp(p->object, object, sizeof(p->object))))
			model_remove(m, p);
	}
}

static unsigned int model_count(const struct model *m, uint32_t pool)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < m->pages; i++)
		n += m->page[i].pool == pool;
	return n;
}

static void model_put(struct model *m, const struct virtio_tmem_req *req,
		      const uint8_t *data, const struct reply *reply)
{
	uint32_t pool = le32toh(req->pool);
	size_t size = 1u << m->pool[pool].shift;
	uint64_t count = le64toh(req->count), accepted = 0;

	MUST(reply->used == RESP + 4 * count);
	for (uint64_t i = 0; i < count; i++) {
		uint64_t index = le64toh(req->index) + i;
		struct model_page *p = model_find(m, pool, req->object, index);

		MUST(page_status(reply, i) == OK ||
		     page_status(reply, i) == NOSPC);
		if (page_status(reply, i) != OK) {
			model_remove(m, p);
			continue;
		}
		accepted++;
		if (!p) {
			MUST(m->pages < MODEL_PAGES);
			p = &m->page[m->pages++];
			p->pool = pool;
			p->index = index;
			memcpy(p->object, req->object, sizeof(p->object));
		}
		p->hash = hash_bytes(data + i * size, size);
	}
	MUST(reply->done == accepted);
}

static void model_get(struct model *m, const struct virtio_tmem_req *req,
		      const struct reply *reply)
{
	uint32_t pool = le32toh(req->pool);
	size_t size = 1u << m->pool[pool].shift, end = 0;
	uint64_t count = le64toh(req->count), found = 0;
	static const uint8_t zero[1 << VIRTIO_TMEM_PAGE_SHIFT_MAX];

	for (uint64_t i = 0; i < count; i++)
		if (page_status(reply, i) == OK)
			end = (i + 1) * size;
	MUST(reply->used == RESP + 4 * count + end);
	for (uint64_t i = 0; i < count; i++) {
		const uint8_t *data = get_data(reply, count) + i * size;
		uint64_t index = le64toh(req->index) + i;
		struct model_page *p = model_find(m, pool, req->object, index);

		/* The store is roomy: ephemeral pages do not vanish either. */
		if (!p) {
			MUST(page_status(reply, i) == VIRTIO_TMEM_S_NOENT);
			MUST(i * size >= end || !memcmp(data, zero, size));
			continue;
		}
		MUST(page_status(reply, i) == OK);
		MUST(hash_bytes(data, size) == p->hash);
		found++;
		if (le16toh(req->flags) & VIRTIO_TMEM_GET_EXCLUSIVE)
			model_remove(m, p);
	}
	MUST(reply->done == found);
}

static void model_create(struct model *m, const struct virtio_tmem_req *req,
			 const struct reply *reply)
{
	uint32_t pool = le32toh(req->pool);

	MUST(pool < ARRAY_SIZE(m->pool));
	MUST(reply->done == model_count(m, pool));
	if (m->pool[pool].exists) {
		MUST(m->pool[pool].flags == le16toh(req->flags));
		MUST(m->pool[pool].shift == le64toh(req->index));
	}
	m->pool[pool].exists = true;
	m->pool[pool].flags = le16toh(req->flags);
	m->pool[pool].shift = le64toh(req->index);
}

/* What a request that was answered OK did. */
static void model_apply(struct model *m, const struct msg *msg,
			const struct reply *reply)
{
	struct virtio_tmem_req req;
	uint64_t index, pages;
	uint32_t pool;

	MUST(msg->out_len >= REQ);
	memcpy(&req, msg->out, REQ);
	pool = le32toh(req.pool);
	index = le64toh(req.index);
	switch (le16toh(req.op)) {
	case VIRTIO_TMEM_OP_PUT:
		model_put(m, &req, msg->out + REQ, reply);
		break;
	case VIRTIO_TMEM_OP_GET:
		model_get(m, &req, reply);
		break;
	case VIRTIO_TMEM_OP_FLUSH:
		MUST(reply->done && reply->done <= le64toh(req.count));
		model_flush(m, pool, req.object, index,
			    index + (reply->done - 1));
		break;
	case VIRTIO_TMEM_OP_FLUSH_OBJECT:
		model_flush(m, pool, req.object, 0, UINT64_MAX);
		break;
	case VIRTIO_TMEM_OP_POOL_CREATE:
		model_create(m, &req, reply);
		break;
	case VIRTIO_TMEM_OP_POOL_DESTROY:
		MUST(m->pool[pool].exists);
		m->pool[pool].exists = false;
		model_flush(m, pool, NULL, 0, UINT64_MAX);
		break;
	case VIRTIO_TMEM_OP_RESET_ALL:
		memset(m->pool, 0, sizeof(m->pool));
		m->pages = 0;
		break;
	case VIRTIO_TMEM_OP_POOL_STATS:
		memcpy(&pages, reply->data, sizeof(pages));
		MUST(le64toh(pages) == model_count(m, pool));
		break;
	default:
		MUST(!"an unknown op was answered OK");
	}
}

/* ---------------------------------------------------------------- requests */

static void choose_transfer(struct source *s, struct req *req, size_t *data)
{
	req->count = 1 + choose(s, choose(s, 8) ? 6 : 64);
	*data = req->count << (req->pool == 2 ? 13 : 12);
	if (req->op == VIRTIO_TMEM_OP_GET && req->pool == EPHEMERAL)
		req->flags = choose(s, 3) == 0;
}

/* A request that is well-formed, over few keys. */
static void choose_good(struct source *s, struct msg *msg)
{
	static const uint8_t ops[] = { 4, 4, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5,
				       5, 5, 5, 5, 5, 6, 6, 6, 7, 8, 1, 1 };
	struct req req = { .op = ops[choose(s, sizeof(ops))],
			   .pool = choose(s, 3) };
	size_t data = 0;

	if (choose(s, 400) == 0)
		req.op = 2 + choose(s, 2);
	if (req.op >= VIRTIO_TMEM_OP_PUT && req.op <= VIRTIO_TMEM_OP_FLUSH) {
		req.object = choose(s, 3);
		req.index = choose(s, 80);
		if (choose(s, 10) == 0)
			req.index += UINT64_MAX - 143;
	}
	msg->out_len = REQ;
	msg->in_len = RESP + (req.op == VIRTIO_TMEM_OP_POOL_STATS ? 64 : 0);
	switch (req.op) {
	case VIRTIO_TMEM_OP_POOL_CREATE:
		req.index = req.pool == 2 ? 13 : 12;
		req.flags =
			req.pool == EPHEMERAL ? 0 : VIRTIO_TMEM_POOL_PERSISTENT;
		break;
	case VIRTIO_TMEM_OP_RESET_ALL:
		req.pool = 0;
		break;
	case VIRTIO_TMEM_OP_PUT:
		choose_transfer(s, &req, &data);
		for (size_t i = 0; i < data; i += PAGE)
			page_fill(msg->out + REQ + i, PAGE, choose(s, 0));
		msg->out_len += data;
		msg->in_len += 4 * req.count;
		break;
	case VIRTIO_TMEM_OP_GET:
		choose_transfer(s, &req, &data);
		msg->in_len += 4 * req.count + data;
		break;
	case VIRTIO_TMEM_OP_FLUSH:
		req.count = 1 + choose(s, choose(s, 4) ? 20 : 128);
		break;
	case VIRTIO_TMEM_OP_FLUSH_OBJECT:
		req.object = choose(s, 3);
		break;
	}
	req_encode(&req, msg->out);
}

/* Break it somewhere. */
static void choose_damage(struct source *s, struct msg *msg)
{
	static const uint8_t fields[] = {
		0, 2, 3, 4, 7, 8, 31, 32, 39, 40, 47
	};

	switch (choose(s, 6)) {
	case 0:
		msg->out_len = choose(s, msg->out_len + 1);
		break;
	case 1:
		msg->in_len = choose(s, msg->in_len + 1);
		break;
	case 2:
		msg->out_len += choose(s, 100);
		break;
	case 3:
		msg->in_len += choose(s, 100);
		break;
	case 4:
		msg->out[choose(s, REQ)] ^= 1 << choose(s, 8);
		break;
	default:
		msg->out[fields[choose(s, sizeof(fields))]] = choose(s, 256);
		break;
	}
}

struct twins {
	struct vm vm[2];
	struct model model;
	uint8_t *out;
	struct reply reply[2];
};

static void twins_open(struct twins *t)
{
	for (unsigned int i = 0; i < 2; i++) {
		vm_open(&t->vm[i], NULL);
		vm_pools(&t->vm[i]);
	}
	t->model.pool[PERSISTENT].exists = t->model.pool[EPHEMERAL].exists =
		true;
	t->model.pool[PERSISTENT].flags = VIRTIO_TMEM_POOL_PERSISTENT;
	t->model.pool[PERSISTENT].shift = SHIFT;
	t->model.pool[EPHEMERAL].shift = SHIFT;
	t->out = calloc(1, MAX_MSG + 200);
}

static void twins_close(struct twins *t)
{
	for (unsigned int i = 0; i < 2; i++) {
		vm_close(&t->vm[i]);
		reply_free(&t->reply[i]);
	}
	free(t->out);
}

/* Send it to both; @cut: how the first one's memory is cut. */
static void twins_send(struct twins *t, struct msg *msg, unsigned int queue,
		       uint64_t cut)
{
	struct reply *a = &t->reply[0], *b = &t->reply[1];

	msg->cut = cut;
	msg->canary = 0x11;
	msg_send(&t->vm[0], queue, msg, a);
	msg->cut = 0;
	msg->canary = 0xee;
	msg_send(&t->vm[1], queue, msg, b);
	MUST(a->rc == b->rc);
	if (a->rc) {
		MUST(a->rc == -EBADMSG);
		MUST(msg->in_len < RESP);
		return;
	}
	/* Different canaries before: equal means written. */
	MUST(a->used == b->used);
	MUST(!memcmp(a->in, b->in, a->used));
	if (a->status == OK)
		model_apply(&t->model, msg, b);
}

static void twins_step(struct twins *t, struct source *s)
{
	struct msg msg = { .out = t->out };
	unsigned int queue = choose(s, 12) ? BULK : FAST;

	choose_good(s, &msg);
	if (choose(s, 5) == 0)
		choose_damage(s, &msg);
	twins_send(t, &msg, queue, choose(s, 4) ? 1 + choose(s, 1 << 16) : 0);
	/* Pools come back, so that there is something to do. */
	for (uint32_t i = 0; i < 3; i++) {
		struct req req = { .op = VIRTIO_TMEM_OP_POOL_CREATE,
				   .pool = i,
				   .flags = i != EPHEMERAL,
				   .index = i == 2 ? 13 : 12 };

		if (t->model.pool[i].exists || choose(s, 8))
			continue;
		msg.out_len = REQ;
		msg.in_len = RESP;
		req_encode(&req, msg.out);
		twins_send(t, &msg, BULK, 1);
	}
}

#ifdef FUZZ
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct twins *t = calloc(1, sizeof(*t));
	struct source s = { .bytes = data, .left = size };

	twins_open(t);
	while (s.left)
		twins_step(t, &s);
	twins_close(t);
	free(t);
	return 0;
}
#else

static void random_requests(void **state)
{
	const char *seed = getenv("TMEM_SEED");
	const char *steps = getenv("TMEM_STEPS");

	for (unsigned int round = 0; round < 4; round++) {
		struct twins *t = calloc(1, sizeof(*t));
		struct source s = {
			.rng = (seed ? strtoull(seed, NULL, 0) : 1) + round
		};

		for (unsigned int i = 0; i < 10; i++)
			rng_next(&s.rng);
		twins_open(t);
		for (int i = 0; i < (steps ? atoi(steps) : 4000); i++)
			twins_step(t, &s);
		twins_close(t);
		free(t);
	}
}

/* The same PUT and GET with one cut at every position there is. */
static void every_single_cut(void **state)
{
	static uint8_t out[REQ + PAGE], in[RESP + 4 + PAGE];
	struct req req = { .pool = PERSISTENT, .object = 1, .count = 1 };
	struct vm vm;

	vm_open(&vm, NULL);
	vm_pools(&vm);
	for (size_t cut = 0; cut <= sizeof(in); cut++) {
		struct iovec o[] = { { out, cut < REQ ? cut : REQ },
				     { out + cut, REQ - cut } };
		struct iovec i[] = { { in, cut },
				     { in + cut, sizeof(in) - cut } };
		struct tmem_server_request get = { .out = o,
						   .in = i,
						   .in_num = 2,
						   .out_num = 1 + (cut < REQ) };
		struct iovec po[] = { { out, cut },
				      { out + cut, sizeof(out) - cut } };
		struct iovec pi[] = { { in, cut < 20 ? cut : 20 },
				      { in + cut, 20 - cut } };
		struct tmem_server_request put = { .out = po,
						   .in = pi,
						   .out_num = 2,
						   .in_num = 1 + (cut < 20) };

		if (cut <= sizeof(out)) {
			req.op = VIRTIO_TMEM_OP_PUT;
			req_encode(&req, out);
			page_fill(out + REQ, PAGE, cut);
			assert_int_equal(
				tmem_server_submit(vm.queue[BULK], &put), 0);
			assert_int_equal(put.status, OK);
			assert_int_equal(put.done, 1);
			assert_int_equal(put.used, RESP + 4);
			tmem_server_retire(vm.queue[BULK], &put, true);
		}
		req.op = VIRTIO_TMEM_OP_GET;
		req_encode(&req, out);
		memset(in, 0x77, sizeof(in));
		assert_int_equal(tmem_server_submit(vm.queue[BULK], &get), 0);
		assert_int_equal(get.done, 1);
		assert_int_equal(get.used, sizeof(in));
		tmem_server_retire(vm.queue[BULK], &get, true);
		assert_memory_equal(in + RESP + 4, out + REQ, PAGE);
	}
	vm_close(&vm);
}

/* One byte per descriptor, and descriptors of no byte. */
static void finest_cuts(void **state)
{
	static struct iovec out[2 * (REQ + PAGE)], in[2 * (RESP + 4 + PAGE)];
	static uint8_t o[REQ + PAGE], i[RESP + 4 + PAGE];
	struct req req = { .pool = PERSISTENT, .object = 1, .count = 1 };
	struct tmem_server_request rq = { .out = out, .in = in };
	struct vm vm;

	vm_open(&vm, NULL);
	vm_pools(&vm);
	for (size_t n = 0; n < sizeof(o); n++)
		out[2 * n] = (struct iovec){ o + n, 1 };
	for (size_t n = 0; n < sizeof(i); n++)
		in[2 * n + 1] = (struct iovec){ i + n, 1 };
	page_fill(o + REQ, PAGE, 5);
	req.op = VIRTIO_TMEM_OP_PUT;
	req_encode(&req, o);
	rq.out_num = 2 * sizeof(o);
	rq.in_num = 2 * (RESP + 4);
	assert_int_equal(tmem_server_submit(vm.queue[BULK], &rq), 0);
	assert_int_equal(rq.done, 1);
	req.op = VIRTIO_TMEM_OP_GET;
	req_encode(&req, o);
	rq.out_num = 2 * REQ;
	rq.in_num = 2 * sizeof(i);
	assert_int_equal(tmem_server_submit(vm.queue[BULK], &rq), 0);
	assert_int_equal(rq.done, 1);
	assert_memory_equal(i + RESP + 4, o + REQ, PAGE);
	vm_close(&vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_single_cut),
		cmocka_unit_test(finest_cuts),
		cmocka_unit_test(random_requests),
	};

	return cmocka_run_group_tests_name("server-random", tests, NULL, NULL);
}
#endif
