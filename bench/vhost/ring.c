/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Targets behind a vhost-user socket
 *
 * One descriptor a page, as a guest's pages lie; one indirect table a request.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>

#include "bench-vhost.h"
#include "client.h"
#include "virtio_tmem.h"

#define RING_SIZE  256u
#define TIMEOUT_MS 20000
#define MIB_SLACK  8u /* rings, tables, requests */

struct slot {
	uint8_t *request; /* what the device reads */
	uint8_t *answer;  /* what it writes, but for pages */
	uint8_t *data;	  /* MAX_RUN pages */
	uint32_t op;	  /* number in the present work */
	double start;
};

struct ring_target {
	struct target base;
	bool block;
	struct client client;
	uint8_t *pages; /* the corpus */
	struct slot slot[MAX_DEPTH];
};

static uint8_t *page_of(struct ring_target *t, const struct slot *slot,
			const struct work *work, unsigned int i)
{
	if (work->row->verb == GET)
		return slot->data + i * PAGE;
	return t->pages +
	       (size_t)work->source[slot->op * work->row->run + i] * PAGE;
}

static unsigned int add_pages(struct ring_target *t, const struct slot *slot,
			      const struct work *work, struct client_seg *seg)
{
	for (unsigned int i = 0; i < work->row->run; i++)
		seg[i] = (struct client_seg){ page_of(t, slot, work, i), PAGE,
					      work->row->verb == GET };
	return work->row->run;
}

/* ---------------------------------------------------------------- devices */

static unsigned int tmem_request(struct ring_target *t, struct slot *slot,
				 const struct work *work,
				 struct client_seg *seg)
{
	struct virtio_tmem_req *req = (void *)slot->request;
	unsigned int num = 0, run = work->row->run;

	memset(req, 0, sizeof(*req));
	memset(slot->answer, 0xff, sizeof(struct virtio_tmem_resp));
	req->op = work->row->verb == PUT ? VIRTIO_TMEM_OP_PUT
					 : VIRTIO_TMEM_OP_GET;
	req->index = work->key[slot->op];
	req->count = run;
	seg[num++] = (struct client_seg){ req, sizeof(*req), false };
	if (work->row->verb == PUT)
		num += add_pages(t, slot, work, seg + num);
	seg[num++] = (struct client_seg){
		slot->answer, sizeof(struct virtio_tmem_resp) + 4 * run, true
	};
	if (work->row->verb == GET)
		num += add_pages(t, slot, work, seg + num);
	return num;
}

static bool tmem_answer(const struct slot *slot, const struct work *work)
{
	const struct virtio_tmem_resp *resp = (const void *)slot->answer;

	return resp->status == VIRTIO_TMEM_S_OK && resp->done == work->row->run;
}

static unsigned int blk_request(struct ring_target *t, struct slot *slot,
				const struct work *work, struct client_seg *seg)
{
	struct virtio_blk_outhdr *req = (void *)slot->request;
	unsigned int num = 0;

	memset(req, 0, sizeof(*req));
	req->type = work->row->verb == PUT ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	req->sector = (uint64_t)work->key[slot->op] * PAGE / 512;
	*slot->answer = 0xff;
	seg[num++] = (struct client_seg){ req, sizeof(*req), false };
	num += add_pages(t, slot, work, seg + num);
	seg[num++] = (struct client_seg){ slot->answer, 1, true };
	return num;
}

/* ---------------------------------------------------------------- running */

static void submit(struct ring_target *t, unsigned int ring, struct slot *slot,
		   const struct work *work)
{
	struct client_seg seg[MAX_RUN + 2];
	unsigned int num;

	slot->start = now_s();
	num = t->block ? blk_request(t, slot, work, seg)
		       : tmem_request(t, slot, work, seg);
	if (!client_add(&t->client, ring, seg, num, slot))
		die("%s: the ring has no room for %u requests", t->base.name,
		    work->row->depth);
}

static void finish(struct ring_target *t, const struct slot *slot,
		   const struct work *work)
{
	bool good = t->block ? *slot->answer == VIRTIO_BLK_S_OK
			     : tmem_answer(slot, work);

	note_latency((now_s() - slot->start) * 1e6);
	if (!good)
		die("%s: %s of %u pages at %u failed", t->base.name,
		    work->row->verb == PUT ? "put" : "get", work->row->run,
		    work->key[slot->op]);
	for (unsigned int i = 0; work->check && i < work->row->run; i++) {
		uint32_t page = work->source[slot->op * work->row->run + i];

		if (memcmp(slot->data + i * PAGE,
			   t->pages + (size_t)page * PAGE, PAGE))
			die("%s: page %u came back wrong", t->base.name,
			    work->key[slot->op] + i);
	}
}

static void ring_run(struct target *target, const struct work *work,
		     struct sample *sample)
{
	struct ring_target *t = (struct ring_target *)target;
	struct client *client = &t->client;
	const struct row *row = work->row;
	/* The tmem device's first queue takes small gets only. */
	unsigned int ring = !t->block && (row->verb == PUT ||
					  row->run > VIRTIO_TMEM_FAST_PAGES);
	struct slot *free_slot[MAX_DEPTH], *slot;
	unsigned int num_free = 0;
	uint32_t begun = 0, done = 0;
	double start;

	client_take_calls(client, ring);
	client->kicks = client->calls = 0;
	start = now_s();
	while (num_free < row->depth) {
		free_slot[num_free] = &t->slot[num_free];
		num_free++;
	}
	while (done < work->ops) {
		for (; num_free && begun < work->ops; begun++) {
			slot = free_slot[--num_free];
			slot->op = begun;
			submit(t, ring, slot, work);
		}
		client_kick(client, ring);
		if (!client_wait(client, ring, TIMEOUT_MS, row->spin))
			die("%s: no answer in %u s", target->name,
			    TIMEOUT_MS / 1000);
		while ((slot = client_used(client, ring, NULL))) {
			finish(t, slot, work);
			free_slot[num_free++] = slot;
			done++;
		}
	}
	sample->us_page = (now_s() - start) * 1e6 / work->ops / row->run;
	client->calls += client_take_calls(client, ring);
	sample->kicks = (double)client->kicks / work->ops;
	sample->calls = (double)client->calls / work->ops;
}

static void ring_destroy(struct target *target)
{
	struct ring_target *t = (struct ring_target *)target;

	client_stop(&t->client);
	client_exit(&t->client);
	free(t);
}

static struct ring_target *connect_to(const char *name, const char *path,
				      const struct corpus *corpus,
				      unsigned int rings, uint64_t features)
{
	const uint64_t wanted = VU_F_INDIRECT | VU_F_EVENT_IDX |
				VU_F_PROTOCOL_FEATURES | VU_F_VERSION_1 |
				features;
	struct ring_target *t = calloc(1, sizeof(*t));
	struct client *client;
	uint64_t offered;

	if (!t)
		die("no memory for a target");
	client = &t->client;
	client_init(client, (size_t)corpus->pages * PAGE +
				    MAX_DEPTH * MAX_RUN * PAGE +
				    (MIB_SLACK << 20));
	if (!client_connect(client, path) ||
	    !client_ask(client, VU_GET_FEATURES, &offered) ||
	    !client_set_up(client, offered & wanted) ||
	    !client_start(client, rings, RING_SIZE))
		die("%s: nobody answers at %s", name, path);
	t->pages = client_alloc(client, (size_t)corpus->pages * PAGE, PAGE);
	for (uint32_t i = 0; i < corpus->pages; i++)
		memcpy(t->pages + (size_t)i * PAGE, corpus->page[i], PAGE);
	for (unsigned int i = 0; i < MAX_DEPTH; i++) {
		t->slot[i].request = client_alloc(client, 64, 64);
		t->slot[i].answer = client_alloc(client, 16 + 4 * MAX_RUN, 64);
		t->slot[i].data = client_alloc(client, MAX_RUN * PAGE, PAGE);
	}
	t->base.name = name;
	t->base.run = ring_run;
	t->base.destroy = ring_destroy;
	return t;
}

/* RESET_ALL, then pool 0. */
static void make_pool(struct ring_target *t)
{
	static const struct virtio_tmem_req requests[] = {
		{ .op = VIRTIO_TMEM_OP_RESET_ALL },
		{ .op = VIRTIO_TMEM_OP_POOL_CREATE,
		  .flags = VIRTIO_TMEM_POOL_PERSISTENT,
		  .index = VIRTIO_TMEM_PAGE_SHIFT_MIN },
	};
	const struct virtio_tmem_resp *resp = (void *)t->slot[0].answer;
	struct client_seg seg[2] = {
		{ t->slot[0].request, sizeof(requests[0]), false },
		{ t->slot[0].answer, sizeof(*resp), true },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(requests); i++) {
		memcpy(seg[0].base, &requests[i], sizeof(requests[i]));
		if (!client_add(&t->client, 1, seg, 2, t))
			die("%s: the ring has no room", t->base.name);
		client_kick(&t->client, 1);
		if (!client_wait(&t->client, 1, TIMEOUT_MS, false) ||
		    !client_used(&t->client, 1, NULL) || resp->status)
			die("%s: no pool can be made", t->base.name);
	}
}

struct target *target_tmem(const char *name, const char *path,
			   const struct corpus *corpus)
{
	struct ring_target *t = connect_to(name, path, corpus, 2,
					   1ull << VIRTIO_TMEM_F_PERSISTENT);

	make_pool(t);
	return &t->base;
}

struct target *target_blk(const char *name, const char *path,
			  const struct corpus *corpus, bool discards)
{
	struct ring_target *t = connect_to(name, path, corpus, 1, 0);

	t->block = true;
	t->base.discards = discards;
	return &t->base;
}
