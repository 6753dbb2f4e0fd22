/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Targets in this process: what is behind the socket, by itself
 *
 * bare LZ4, which is the least that compressing and finding a page can cost;
 * libtmem, called as the request server calls it; the request server on
 * requests in memory, which is a device without a transport.
 */
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench-vhost.h"
#include "tmem-server.h"

/* As host/libtmem/codec.c has it. */
#define CAP (PAGE - PAGE / 16)

struct chunk {
	char *data;
	uint32_t length; /* PAGE: as it is */
};

struct local {
	struct target base;
	const struct corpus *corpus;
	/* Does one request; false: it failed. */
	bool (*request)(struct local *t, const struct work *work, uint32_t op);
	char *pages; /* of the corpus, its own copy: as cold as the others' */
	char *data;  /* MAX_RUN pages that gets write to */
	struct chunk *chunk;
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_ctx *ctx;
	struct tmem_server *server;
	struct tmem_server_queue *queue;
};

static char *corpus_page(const struct local *t, uint32_t page)
{
	return t->pages + (size_t)page * PAGE;
}

static char *page_of(struct local *t, const struct work *work, uint32_t op,
		     unsigned int i)
{
	if (work->row->verb == GET)
		return t->data + i * PAGE;
	return corpus_page(t, work->source[op * work->row->run + i]);
}

/* One piece a page, from iov[0] on. */
static void fill_iov(struct local *t, const struct work *work, uint32_t op,
		     struct iovec *iov)
{
	for (unsigned int i = 0; i < work->row->run; i++)
		iov[i] = (struct iovec){ page_of(t, work, op, i), PAGE };
}

static void check(struct local *t, const struct work *work, uint32_t op)
{
	for (unsigned int i = 0; i < work->row->run; i++)
		if (memcmp(t->data + i * PAGE,
			   corpus_page(t,
				       work->source[op * work->row->run + i]),
			   PAGE))
			die("%s: page %u came back wrong", t->base.name,
			    work->key[op] + i);
}

static void local_run(struct target *target, const struct work *work,
		      struct sample *sample)
{
	struct local *t = (struct local *)target;
	double start = now_s();

	for (uint32_t op = 0; op < work->ops; op++) {
		double before = now_s();

		if (!t->request(t, work, op))
			die("%s: %s of %u pages at %u failed: is less than 1 "
			    "GiB of memory free?",
			    t->base.name,
			    work->row->verb == PUT ? "put" : "get",
			    work->row->run, work->key[op]);
		note_latency((now_s() - before) * 1e6);
		if (work->check)
			check(t, work, op);
	}
	sample->us_page = (now_s() - start) * 1e6 / work->ops / work->row->run;
	/* As the back end does when it has nothing else to do. */
	while (t->store && tmem_step(t->store, 256))
		;
}

static void local_free(struct local *t)
{
	munmap(t->pages, (size_t)t->corpus->pages * PAGE);
	munmap(t->data, MAX_RUN * PAGE);
	free(t);
}

static struct local *local_create(const char *name, const struct corpus *corpus)
{
	struct local *t = calloc(1, sizeof(*t));

	if (!t)
		die("no memory for a target");
	t->base.name = name;
	t->base.local = true;
	t->base.run = local_run;
	t->corpus = corpus;
	t->data = small_pages(MAX_RUN * PAGE);
	t->pages = small_pages((size_t)corpus->pages * PAGE);
	for (uint32_t i = 0; i < corpus->pages; i++)
		memcpy(corpus_page(t, i), corpus->page[i], PAGE);
	return t;
}

/* --------------------------------------------------------------- bare LZ4 */

static bool lz4_request(struct local *t, const struct work *work, uint32_t op)
{
	char stored[PAGE];

	for (unsigned int i = 0; i < work->row->run; i++) {
		char *page = page_of(t, work, op, i);
		const struct chunk *chunk;

		if (work->row->verb == PUT) {
			LZ4_compress_fast(page, stored, PAGE, CAP, 1);
			continue;
		}
		chunk = &t->chunk[t->base.holds[work->key[op] + i]];
		if (chunk->length == PAGE)
			memcpy(page, chunk->data, PAGE);
		else if (LZ4_decompress_safe(chunk->data, page, chunk->length,
					     PAGE) != (int)PAGE)
			return false;
	}
	return true;
}

static void lz4_destroy(struct target *target)
{
	struct local *t = (struct local *)target;

	for (uint32_t i = 0; i < t->corpus->pages; i++)
		free(t->chunk[i].data);
	free(t->chunk);
	local_free(t);
}

struct target *target_lz4(const struct corpus *corpus)
{
	struct local *t = local_create("lz4", corpus);

	t->request = lz4_request;
	t->base.destroy = lz4_destroy;
	t->chunk = calloc(corpus->pages, sizeof(*t->chunk));
	for (uint32_t i = 0; t->chunk && i < corpus->pages; i++) {
		char stored[PAGE];
		const char *from = stored;
		int length = LZ4_compress_fast(corpus->page[i], stored, PAGE,
					       CAP, 1);

		if (length <= 0) {
			length = PAGE;
			from = corpus->page[i];
		}
		t->chunk[i].length = length;
		t->chunk[i].data = malloc(length);
		if (!t->chunk[i].data)
			die("no memory for %u compressed pages", corpus->pages);
		memcpy(t->chunk[i].data, from, length);
	}
	return &t->base;
}

/* ---------------------------------------------------------------- libtmem */

static void open_store(struct local *t)
{
	const struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = (uint64_t)t->corpus->pages * PAGE,
	};
	const struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = tmem_reservation_cost(limits.persistent_reserved),
	};

	if (tmem_store_create(&config, &t->store) ||
	    tmem_tenant_open(t->store, t->base.name, &limits, &t->tenant))
		die("%s: no store", t->base.name);
}

static bool library_request(struct local *t, const struct work *work,
			    uint32_t op)
{
	struct iovec iov[MAX_RUN];
	struct tmem_page page[MAX_RUN];
	struct tmem_op request = {
		.verb = work->row->verb == PUT ? TMEM_PUT : TMEM_GET,
		.index = work->key[op],
		.count = work->row->run,
		.page_size = PAGE,
		.iov = iov,
		.iovcnt = work->row->run,
		.page = page,
	};

	fill_iov(t, work, op, iov);
	return !tmem_submit(t->ctx, t->tenant, &request) &&
	       request.done == work->row->run;
}

static void library_destroy(struct target *target)
{
	struct local *t = (struct local *)target;

	if (t->ctx)
		tmem_ctx_destroy(t->ctx);
	if (t->server) {
		tmem_server_queue_destroy(t->queue);
		tmem_server_destroy(t->server);
	}
	tmem_tenant_drop(t->tenant);
	tmem_store_destroy(t->store);
	local_free(t);
}

struct target *target_library(const struct corpus *corpus)
{
	const struct tmem_pool_params params = { TMEM_POOL_PERSISTENT,
						 TMEM_PAGE_SHIFT_MIN };
	struct local *t = local_create("libtmem", corpus);

	t->request = library_request;
	t->base.destroy = library_destroy;
	open_store(t);
	if (tmem_ctx_create(t->store, &t->ctx) ||
	    tmem_pool_create(t->tenant, 0, &params, NULL))
		die("%s: no pool", t->base.name);
	return &t->base;
}

/* ----------------------------------------------------------------- server */

/* A request and its @num pages; false: not all OK. */
static bool serve(struct local *t, struct virtio_tmem_req *req,
		  struct iovec *pages, unsigned int num)
{
	struct {
		struct virtio_tmem_resp resp;
		uint32_t page[MAX_RUN];
	} answer;
	struct iovec out[MAX_RUN + 1] = { { req, sizeof(*req) } };
	struct iovec in[MAX_RUN + 1] = { { &answer,
					   sizeof(answer.resp) + 4 * num } };
	struct tmem_server_request request = {
		.out = out,
		.out_num = 1,
		.in = in,
		.in_num = 1,
	};

	if (req->op == VIRTIO_TMEM_OP_PUT) {
		memcpy(out + 1, pages, num * sizeof(*pages));
		request.out_num += num;
	} else {
		memcpy(in + 1, pages, num * sizeof(*pages));
		request.in_num += num;
	}
	if (tmem_server_submit(t->queue, &request))
		return false;
	tmem_server_retire(t->queue, &request, true);
	return answer.resp.status == VIRTIO_TMEM_S_OK &&
	       answer.resp.done == num;
}

static bool server_request(struct local *t, const struct work *work,
			   uint32_t op)
{
	struct iovec iov[MAX_RUN];
	struct virtio_tmem_req req = {
		.op = work->row->verb == PUT ? VIRTIO_TMEM_OP_PUT
					     : VIRTIO_TMEM_OP_GET,
		.index = work->key[op],
		.count = work->row->run,
	};

	fill_iov(t, work, op, iov);
	return serve(t, &req, iov, work->row->run);
}

struct target *target_server(const struct corpus *corpus)
{
	struct local *t = local_create("server", corpus);
	struct tmem_server_config config = {
		.features = 1ull << VIRTIO_TMEM_F_PERSISTENT,
		.num_bulk = 1,
	};
	struct virtio_tmem_req pool = {
		.op = VIRTIO_TMEM_OP_POOL_CREATE,
		.flags = VIRTIO_TMEM_POOL_PERSISTENT,
		.index = VIRTIO_TMEM_PAGE_SHIFT_MIN,
	};

	t->request = server_request;
	t->base.destroy = library_destroy;
	open_store(t);
	config.store = t->store;
	config.tenant = t->tenant;
	if (tmem_server_create(&config, &t->server) ||
	    tmem_server_set_features(t->server, config.features) ||
	    tmem_server_queue_create(t->server, 0, &t->queue) ||
	    !serve(t, &pool, NULL, 0))
		die("%s: no pool", t->base.name);
	return &t->base;
}
