// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The rings: descriptors from libvhost-user to the request server and back
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>

#include "connection.h"

/*
 * Requests of a ring that are served before the next ring's turn, and before
 * one notification for them all.  One request is at most 64 pages.
 */
#define BATCH 16

struct request {
	VuVirtqElement elem; /* libvhost-user wants it first */
	struct tmem_server_request rq;
};

static bool is_ready(struct ring *ring)
{
	const VuDev *dev = &ring->connection->dev;

	return !dev->broken && ring->vq->started && ring->vq->enable &&
	       ring->vq->vring.avail;
}

/*
 * A ring that sleeps is not looked at, whatever else wakes us: User Mode Linux
 * frees rings without stopping them when a driver goes (it forgets that it
 * negotiated VHOST_USER_F_PROTOCOL_FEATURES, and so disables none), and what is
 * in their memory then is no request.
 */
static bool is_awake(struct ring *ring)
{
	return !ring->asleep && is_ready(ring);
}

void ring_is_new(struct ring *ring)
{
	/*
	 * Its notifications may be off: this process turned them off before
	 * the ring was stopped, or the one before it did.
	 */
	ring->quiet = true;
	ring->asleep = false;
}

/*
 * libvhost-user keeps what it knew of the ring before it was stopped; for the
 * driver it is a new one.
 */
void ring_started(VuDev *dev, int index, bool started)
{
	struct connection *c = connection_of(dev);
	VuVirtq *vq = c->ring[index].vq;
	bool any = false;

	vq->signalled_used_valid = false;
	vq->notification = true;
	vq->inuse = 0;
	ring_is_new(&c->ring[index]);
	for (unsigned int i = 0; i < c->num_rings; i++)
		any |= c->ring[i].vq->started;
	/* There are VMMs that set rings up again and never stop them. */
	if (!any || started) {
		dev->broken = false;
		c->broken = false;
	}
}

void ring_kicked(VuDev *dev, int index)
{
	/* rings_serve() looks at all of them. */
}

static bool is_inside(const VuDev *dev, uint64_t address, uint64_t size)
{
	for (unsigned int i = 0; i < dev->nregions; i++) {
		const VuDevRegion *r = &dev->regions[i];

		if (address >= r->qva && address - r->qva < r->size)
			return size <= r->size - (address - r->qva);
	}
	return false;
}

bool ring_is_aligned(const struct ring *ring)
{
	return !(ring->addr.desc_user_addr % 16 ||
		 ring->addr.avail_user_addr % 2 ||
		 ring->addr.used_user_addr % 4);
}

bool ring_is_mapped(const struct ring *ring)
{
	const VuDev *dev = &ring->connection->dev;
	uint64_t num = ring->vq->vring.num;

	return ring->has_addr && num &&
	       is_inside(dev, ring->addr.desc_user_addr, 16 * num) &&
	       is_inside(dev, ring->addr.avail_user_addr, 6 + 2 * num) &&
	       is_inside(dev, ring->addr.used_user_addr, 6 + 8 * num);
}

/* ---------------------------------------------------------------- serve */

static void notify(struct ring *ring)
{
	/* No descriptor: the driver polls. */
	if (ring->vq->call_fd >= 0)
		vu_queue_notify(&ring->connection->dev, ring->vq);
}

/*
 * As vu_queue_push(), which walks the chain once more, for the log of dirty
 * pages, also when there is none: by now the guest may have made it a long one.
 */
static void push(struct ring *ring, const VuVirtqElement *elem, uint32_t used)
{
	VuDev *dev = &ring->connection->dev;
	VuVirtq *vq = ring->vq;

	vu_queue_fill(dev, vq, elem, 0, 0);
	if (!dev->broken)
		vq->vring.used->ring[vq->used_idx % vq->vring.num].len =
			htole32(used);
	vu_queue_flush(dev, vq, 1);
}

/* False: the ring is to be left alone for now. */
static bool serve_one(struct ring *ring, struct request *req)
{
	struct connection *c = ring->connection;
	struct tmem_server_request *rq = &req->rq;
	int ret;

	*rq = (struct tmem_server_request){
		.out = req->elem.out_sg,
		.out_num = req->elem.out_num,
		.in = req->elem.in_sg,
		.in_num = req->elem.in_num,
	};
	ret = tmem_server_submit(ring->server, rq);
	if (ret == -EAGAIN) {
		vu_queue_unpop(&c->dev, ring->vq, &req->elem, 0);
		return false;
	}
	if (ret < 0) {
		ring->vq->inuse--;
		c->dev.broken = true;
		c->dev.panic(&c->dev,
			     "a request that leaves no room for an answer");
		return false;
	}
	push(ring, &req->elem, rq->used);
	tmem_server_retire(ring->server, rq, true);
	count(&c->vm->counters.requests);
	return true;
}

static bool ring_serve(struct ring *ring)
{
	struct connection *c = ring->connection;
	unsigned int served = 0;
	struct request *req;
	bool go_on = true;

	if (!is_awake(ring) || vu_queue_empty(&c->dev, ring->vq))
		return false;
	if (!ring->quiet) {
		vu_queue_set_notification(&c->dev, ring->vq, 0);
		ring->quiet = true;
	}
	while (go_on && served < BATCH &&
	       (req = vu_queue_pop(&c->dev, ring->vq, sizeof(*req)))) {
		go_on = serve_one(ring, req) && !c->guard.tripped;
		served += go_on;
		free(req);
	}
	if (served)
		notify(ring);
	return served > 0;
}

bool rings_serve(struct connection *c)
{
	bool busy = false;

	c->serving = true;
	for (unsigned int i = 0; i < c->num_rings && !c->guard.tripped; i++)
		busy |= ring_serve(&c->ring[i]);
	c->serving = false;
	return busy && !c->guard.tripped;
}

bool rings_pending(struct connection *c)
{
	bool pending = false;

	c->serving = true;
	for (unsigned int i = 0; i < c->num_rings && !pending; i++)
		pending = is_awake(&c->ring[i]) &&
			  !vu_queue_empty(&c->dev, c->ring[i].vq);
	c->serving = false;
	return pending && !c->guard.tripped;
}

bool rings_sleep(struct connection *c)
{
	for (unsigned int i = 0; i < c->num_rings; i++) {
		struct ring *ring = &c->ring[i];

		if (is_ready(ring) && ring->quiet) {
			vu_queue_set_notification(&c->dev, ring->vq, 1);
			ring->quiet = false;
		}
	}
	if (rings_pending(c))
		return false;
	/* One that is not ready may be notified before it is. */
	for (unsigned int i = 0; i < c->num_rings; i++)
		if (is_ready(&c->ring[i]))
			c->ring[i].asleep = true;
	return true;
}
