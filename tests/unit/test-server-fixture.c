/* SPDX-License-Identifier: BSD-3-Clause */
#include <fcntl.h>
#include <unistd.h>
#include "test-server-fixture.h"

#define MAX_PIECES 4096

void must_not(const char *cond, const char *file, int line)
{
	if (gettid() == getpid()) {
		print_error("%s\n", cond);
		_fail(file, line);
	}
	fprintf(stderr, "%s:%d: %s\n", file, line, cond);
	abort();
}

/* ------------------------------------------------------------------ device */

static bool fault_now(struct faults *faults)
{
	uint64_t call = __atomic_add_fetch(&faults->calls, 1, __ATOMIC_RELAXED);

	return faults->fail_at && (faults->fail_all ? call >= faults->fail_at
						    : call == faults->fail_at);
}

static void *fault_alloc(void *opaque, size_t size)
{
	return fault_now(opaque) ? NULL : malloc(size);
}

static void *fault_zalloc(void *opaque, size_t size)
{
	return fault_now(opaque) ? NULL : calloc(1, size);
}

static void fault_free(void *opaque, void *ptr)
{
	free(ptr);
}

static int fault_fallocate(void *opaque, int fd, int mode, uint64_t offset,
			   uint64_t length)
{
	/* Giving memory back cannot be refused. */
	if (!(mode & FALLOC_FL_PUNCH_HOLE) && fault_now(opaque))
		return -ENOSPC;
	return fallocate(fd, mode, offset, length) ? -errno : 0;
}

static const struct tmem_memory_ops fault_memory = {
	.alloc = fault_alloc,
	.zalloc = fault_zalloc,
	.free = fault_free,
	.fallocate = fault_fallocate,
};

static int open_store(struct vm *vm, const struct vm_options *o)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = o->max_bytes ? o->max_bytes : 256 * MIB,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom =
			o->host_headroom ? o->host_headroom : UINT64_MAX,
		.memory = o->faults ? &fault_memory : NULL,
		.memory_opaque = o->faults,
	};

	vm->store = o->store;
	vm->own_store = !o->store;
	return o->store ? 0 : tmem_store_create(&config, &vm->store);
}

static int open_server(struct vm *vm, const struct vm_options *o)
{
	struct tmem_server_config config = {
		.store = vm->store,
		.tenant = vm->tenant,
		.features = o->features ? o->features : ALL_FEATURES,
		.num_fast = 1,
		.num_bulk = VM_QUEUES - 1,
		.max_pages = o->max_pages,
	};
	int error = tmem_server_create(&config, &vm->server);

	for (unsigned int i = 0; i < VM_QUEUES && !error; i++)
		error = tmem_server_queue_create(vm->server, i, &vm->queue[i]);
	if (!error)
		error = tmem_server_set_features(
			vm->server, tmem_server_features(vm->server));
	return error;
}

static void vm_free(struct vm *vm)
{
	for (unsigned int i = 0; i < VM_QUEUES; i++)
		tmem_server_queue_destroy(vm->queue[i]);
	tmem_server_destroy(vm->server);
	tmem_tenant_drop(vm->tenant);
	if (vm->own_store)
		tmem_store_destroy(vm->store);
	*vm = (struct vm){ 0 };
}

int vm_try_open(struct vm *vm, const struct vm_options *options)
{
	static const struct vm_options defaults;
	const struct vm_options *o = options ? options : &defaults;
	struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = o->reserved,
		.ephemeral_max = o->ephemeral_max,
	};
	int error;

	*vm = (struct vm){ 0 };
	error = open_store(vm, o);
	if (!error)
		error = tmem_tenant_open(vm->store, "vm", &limits, &vm->tenant);
	if (!error)
		error = open_server(vm, o);
	if (error)
		vm_free(vm);
	return error;
}

void vm_open(struct vm *vm, const struct vm_options *options)
{
	MUST(vm_try_open(vm, options) == 0);
}

void vm_close(struct vm *vm)
{
	char message[200] = "";

	if (tmem_check(vm->store, message, sizeof(message)))
		must_not(message, __FILE__, __LINE__);
	vm_free(vm);
}

void vm_pools(struct vm *vm)
{
	struct req req = { .op = VIRTIO_TMEM_OP_POOL_CREATE, .index = SHIFT };

	req.pool = EPHEMERAL;
	MUST(req_status(vm, BULK, &req) == VIRTIO_TMEM_S_OK);
	req.pool = PERSISTENT;
	req.flags = VIRTIO_TMEM_POOL_PERSISTENT;
	MUST(req_status(vm, BULK, &req) == VIRTIO_TMEM_S_OK);
}

/* --------------------------------------------------------------- contents */

/* xorshift64* */
uint64_t rng_next(uint64_t *state)
{
	uint64_t x = *state ? *state : 88172645463325252ull;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 2685821657736338717ull;
}

static void fill_random(uint8_t *page, size_t size, uint64_t seed)
{
	uint64_t state = seed * 0x9e3779b97f4a7c15ull + 1;

	for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
		uint64_t word = rng_next(&state);

		memcpy(page + i, &word, sizeof(word));
	}
}

void page_fill(uint8_t *page, size_t size, uint64_t seed)
{
	uint32_t word = seed * 0x9e3779b1u + 1;

	switch (seed % 4) {
	case 0:
		for (size_t i = 0; i < size; i += sizeof(word))
			memcpy(page + i, &word, sizeof(word));
		break;
	case 1:
		fill_random(page, size / 2, seed);
		for (size_t i = size / 2; i < size; i++)
			page[i] = "tmem keeps pages"[(i + seed) % 16];
		break;
	case 2:
		fill_random(page, size, seed);
		break;
	default:
		memset(page, 0, size);
		fill_random(page + size / 4, 64, seed);
		break;
	}
}

/* ----------------------------------------------------------- guest memory */

struct scatter {
	struct iovec iov[MAX_PIECES];
	unsigned int num;
};

static void scatter_add(struct scatter *s, size_t len)
{
	MUST(s->num < MAX_PIECES);
	s->iov[s->num].iov_base = malloc(len ? len : 1);
	s->iov[s->num++].iov_len = len;
}

/* Pieces of any length, some empty, some of a single byte. */
static void scatter_random(struct scatter *s, size_t len, uint64_t *rng)
{
	while (len && s->num < MAX_PIECES - 1) {
		size_t max = rng_below(rng, 3) ? 3 * PAGE : 40;
		size_t piece = rng_below(rng, max < len ? max + 1 : len + 1);

		scatter_add(s, piece);
		len -= piece;
	}
	if (len)
		scatter_add(s, len);
}

/* As a driver does it: headers, then pages. */
static void scatter_plain(struct scatter *s, size_t len, size_t head)
{
	if (head > len)
		head = len;
	scatter_add(s, head);
	for (len -= head; len; len -= len < PAGE ? len : PAGE)
		scatter_add(s, len < PAGE ? len : PAGE);
}

static void scatter_copy(const struct scatter *s, uint8_t *bytes, bool in)
{
	for (unsigned int i = 0; i < s->num; i++) {
		const struct iovec *v = &s->iov[i];

		memcpy(in ? v->iov_base : bytes, in ? bytes : v->iov_base,
		       v->iov_len);
		bytes += v->iov_len;
	}
}

static void scatter_free(struct scatter *s)
{
	for (unsigned int i = 0; i < s->num; i++)
		free(s->iov[i].iov_base);
	free(s);
}

/* --------------------------------------------------------------- requests */

void req_encode(const struct req *req, void *wire)
{
	struct virtio_tmem_req encoded = {
		.op = htole16(req->op),
		.flags = htole16(req->flags),
		.pool = htole32(req->pool),
		.index = htole64(req->index),
		.count = htole64(req->count),
	};

	/* Both ends, so that none is cut off; object 0 is all zeros. */
	memcpy(encoded.object, &req->object, sizeof(req->object));
	memcpy(encoded.object + VIRTIO_TMEM_OBJECT_SIZE - sizeof(req->object),
	       &req->object, sizeof(req->object));
	memcpy(wire, &encoded, sizeof(encoded));
}

static void check_reply(const struct msg *msg, uint8_t canary,
			struct reply *reply)
{
	struct virtio_tmem_resp resp;

	MUST(reply->used <= msg->in_len);
	for (size_t i = reply->rc ? 0 : reply->used; i < msg->in_len; i++)
		MUST(reply->in[i] == canary);
	if (reply->rc)
		return;
	MUST(reply->used >= RESP);
	memcpy(&resp, reply->in, RESP);
	MUST(resp.flags == 0);
	MUST(reply->status == le16toh(resp.status));
	MUST(reply->done == le64toh(resp.done));
	if (reply->status != VIRTIO_TMEM_S_OK)
		MUST(reply->used == RESP && reply->done == 0);
	reply->generation = le32toh(resp.generation);
	reply->data = reply->in + RESP;
}

void msg_send(struct vm *vm, unsigned int queue, const struct msg *msg,
	      struct reply *reply)
{
	struct scatter *out = calloc(1, sizeof(*out));
	struct scatter *in = calloc(1, sizeof(*in));
	struct tmem_server_request rq = { 0 };
	uint8_t canary = msg->canary ? msg->canary : 0xa5;
	uint64_t rng = msg->cut;

	if (msg->cut) {
		scatter_random(out, msg->out_len, &rng);
		scatter_random(in, msg->in_len, &rng);
	} else {
		scatter_plain(out, msg->out_len,
			      sizeof(struct virtio_tmem_req));
		scatter_plain(in, msg->in_len, RESP);
	}
	reply->in = realloc(reply->in, msg->in_len ? msg->in_len : 1);
	memset(reply->in, canary, msg->in_len);
	scatter_copy(out, msg->out, true);
	scatter_copy(in, reply->in, true);
	rq.out = out->iov;
	rq.out_num = out->num;
	rq.in = in->iov;
	rq.in_num = in->num;
	/* What a result must not depend on. */
	memset(&rq.used, 0x5a, sizeof(rq) - offsetof(typeof(rq), used));
	reply->rc = tmem_server_submit(vm->queue[queue], &rq);
	MUST(reply->rc != -EINPROGRESS);
	reply->used = rq.used;
	reply->status = rq.status;
	reply->done = rq.done;
	scatter_copy(in, reply->in, false);
	if (!reply->rc)
		tmem_server_retire(vm->queue[queue], &rq, !msg->lost);
	check_reply(msg, canary, reply);
	scatter_free(out);
	scatter_free(in);
}

void reply_free(struct reply *reply)
{
	free(reply->in);
	*reply = (struct reply){ 0 };
}

static uint32_t page_word(const struct reply *reply, unsigned int i)
{
	uint32_t word;

	MUST(RESP + (i + 1) * sizeof(word) <= reply->used);
	memcpy(&word, reply->data + i * sizeof(word), sizeof(word));
	return le32toh(word);
}

unsigned int page_status(const struct reply *reply, unsigned int i)
{
	return page_word(reply, i) >> VIRTIO_TMEM_PAGE_STATUS_SHIFT;
}

uint32_t page_length(const struct reply *reply, unsigned int i)
{
	return page_word(reply, i) & VIRTIO_TMEM_PAGE_LENGTH_MASK;
}

void req_send(struct vm *vm, unsigned int queue, const struct req *req,
	      size_t extra, struct reply *reply)
{
	struct virtio_tmem_req wire;
	struct msg msg = {
		.out = (uint8_t *)&wire,
		.out_len = sizeof(wire),
		.in_len = RESP + extra,
	};

	req_encode(req, &wire);
	msg_send(vm, queue, &msg, reply);
}

unsigned int req_status(struct vm *vm, unsigned int queue,
			const struct req *req)
{
	struct reply reply = { 0 };
	unsigned int status;

	req_send(vm, queue, req, sizeof(struct virtio_tmem_pool_stats), &reply);
	MUST(reply.rc == 0);
	status = reply.status;
	reply_free(&reply);
	return status;
}

void put_pages(struct vm *vm, unsigned int queue, const struct req *key,
	       const uint8_t *pages, struct reply *reply)
{
	size_t bytes = key->count * PAGE;
	struct msg msg = {
		.out = malloc(sizeof(struct virtio_tmem_req) + bytes),
		.out_len = sizeof(struct virtio_tmem_req) + bytes,
		.in_len = RESP + key->count * sizeof(uint32_t),
	};
	struct req req = *key;

	req.op = VIRTIO_TMEM_OP_PUT;
	req_encode(&req, msg.out);
	memcpy(msg.out + sizeof(struct virtio_tmem_req), pages, bytes);
	msg_send(vm, queue, &msg, reply);
	free(msg.out);
}

void get_pages(struct vm *vm, unsigned int queue, const struct req *key,
	       struct reply *reply)
{
	struct req req = *key;

	req.op = VIRTIO_TMEM_OP_GET;
	req_send(vm, queue, &req, key->count * (sizeof(uint32_t) + PAGE),
		 reply);
}

const uint8_t *get_data(const struct reply *reply, unsigned int count)
{
	return reply->data + count * sizeof(uint32_t);
}

unsigned int put_one(struct vm *vm, uint32_t pool, uint64_t object,
		     uint64_t index, uint64_t seed)
{
	struct req key = {
		.pool = pool, .object = object, .index = index, .count = 1
	};
	struct reply reply = { 0 };
	uint8_t page[PAGE];
	unsigned int status;

	page_fill(page, sizeof(page), seed);
	put_pages(vm, BULK, &key, page, &reply);
	MUST(reply.rc == 0 && reply.status == VIRTIO_TMEM_S_OK);
	status = page_status(&reply, 0);
	MUST(reply.done == (status == VIRTIO_TMEM_S_OK));
	reply_free(&reply);
	return status;
}

unsigned int get_one(struct vm *vm, uint32_t pool, uint64_t object,
		     uint64_t index, uint64_t seed)
{
	struct req key = {
		.pool = pool, .object = object, .index = index, .count = 1
	};
	struct reply reply = { 0 };
	uint8_t page[PAGE];
	unsigned int status;

	get_pages(vm, BULK, &key, &reply);
	MUST(reply.rc == 0 && reply.status == VIRTIO_TMEM_S_OK);
	status = page_status(&reply, 0);
	page_fill(page, sizeof(page), seed);
	if (status == VIRTIO_TMEM_S_OK)
		MUST(!memcmp(page, get_data(&reply, 1), PAGE));
	reply_free(&reply);
	return status;
}

uint64_t pool_pages(struct vm *vm, uint32_t pool)
{
	struct req req = { .op = VIRTIO_TMEM_OP_POOL_STATS, .pool = pool };
	struct virtio_tmem_pool_stats stats;
	struct reply reply = { 0 };

	req_send(vm, BULK, &req, sizeof(stats), &reply);
	MUST(reply.rc == 0 && reply.status == VIRTIO_TMEM_S_OK);
	MUST(reply.used == RESP + sizeof(stats));
	memcpy(&stats, reply.data, sizeof(stats));
	reply_free(&reply);
	return le64toh(stats.pages);
}
