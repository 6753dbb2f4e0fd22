/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transcendent memory for frontends: what virtio_tmem.ko offers in the kernel
 *
 * A frontend (a swap disk, a cache) registers a client.  For each device it
 * makes pools, allocates the requests that it will ever need, and submits
 * them.  It knows nothing of virtqueues, and nothing here knows what a page
 * is for.
 *
 * All of this can be used while memory is being reclaimed: once its requests
 * are allocated, a frontend's I/O allocates nothing.
 */
#ifndef _TMEM_H
#define _TMEM_H

#include <linux/completion.h>
#include <linux/list.h>
#include <linux/scatterlist.h>
#include <linux/types.h>

#include "virtio_tmem.h"

struct module;
struct tmem_device;

/* --- requests --- */

/*
 * The buffers that the device reads and writes, on cache lines of their own:
 * they are mapped for DMA in different directions.
 */
struct tmem_wire {
	struct virtio_tmem_req req ____cacheline_aligned;
	struct virtio_tmem_resp resp ____cacheline_aligned;
	/* page[count] of a PUT or GET, or the statistics of a POOL_STATS. */
	__le32 page[];
};

/**
 * struct tmem_request - one request, used again and again
 * @op:		VIRTIO_TMEM_OP_*
 * @flags:	by @op
 * @pool:	a number that tmem_pool_create() gave
 * @index:	first index
 * @count:	number of indexes; PUT and GET: pages of data in @sg
 * @object:	the object's name
 * @nr_sg:	segments of @sg in use, at most tmem_max_segs()
 * @sg:		the data of a PUT or GET, count pages in total
 * @done:	called once the device is through with the request, or is gone;
 *		in any context, also within tmem_submit(), and interrupts may be
 *		off.  It may submit again, unless @error is -EIO.
 * @error:	0, or a negative errno for the request as a whole: then
 *		nothing took effect, but for -EIO, where it is unknown
 * @completed:	indexes that succeeded (PUT, GET) or were processed (FLUSH)
 *
 * Members up to @done are the frontend's.  The rest is set before @done runs.
 */
struct tmem_request {
	u16 op;
	u16 flags;
	u32 pool;
	u64 index;
	u64 count;
	u8 object[VIRTIO_TMEM_OBJECT_SIZE];
	unsigned int nr_sg;
	struct scatterlist *sg;
	void (*done)(struct tmem_request *req);

	int error;
	u64 completed;

	/* private: of virtio_tmem.c */
	struct tmem_device *dev;
	struct tmem_wire *wire;
	struct scatterlist head;
	struct scatterlist tail;
	struct list_head link;
	struct completion completion;
	unsigned long submitted;	/* jiffies */
	u32 generation;			/* that the response must carry */
	u32 used;			/* bytes that the device wrote */
};

/* Prepares @req, which the frontend embeds in something of its own. */
int tmem_request_init(struct tmem_device *dev, struct tmem_request *req,
		      gfp_t gfp);
void tmem_request_destroy(struct tmem_request *req);

/*
 * Hands @req to the device.  Does not sleep, does not fail, does not
 * allocate: what finds no room in the ring waits for it.  The device hears of
 * it at tmem_kick().  Not for two requests on the same key at a time, unless
 * their order is of no account.
 */
void tmem_submit(struct tmem_request *req);

/* Notifies the device of what was submitted, once a queue. */
void tmem_kick(struct tmem_device *dev);

/*
 * Waits a few microseconds for answers, on the CPU, and has interrupts
 * announce those that did not come.  Each tmem_kick() needs one.
 */
void tmem_poll(struct tmem_device *dev);

/* Submits @req and sleeps until it is done.  Returns its error. */
int tmem_execute(struct tmem_request *req);

/*
 * What became of page @i of a PUT or GET whose error is 0: 0, -ENOSPC
 * (refused), -ENOENT (missing) or -EIO (held, but unreadable).
 */
int tmem_page_error(const struct tmem_request *req, unsigned int i);

/* --- pools --- */

/*
 * Makes an empty pool of PAGE_SIZE pages.  @flags: VIRTIO_TMEM_POOL_*.
 * Returns its number or a negative errno.  Sleeps.
 */
int tmem_pool_create(struct tmem_device *dev, u16 flags);

/*
 * Makes pool @pool anew and empty, after the device's contents were lost.
 * Returns 0 or a negative errno.  Sleeps.
 */
int tmem_pool_renew(struct tmem_device *dev, u32 pool);

/* Ends a pool and all its pages.  Sleeps. */
void tmem_pool_destroy(struct tmem_device *dev, u32 pool);

/* --- devices --- */

/* For messages, and as the parent of the frontend's own device. */
struct device *tmem_parent(struct tmem_device *dev);

/* Most pages in a PUT or GET. */
unsigned int tmem_max_pages(struct tmem_device *dev);

/* Most segments in a PUT or GET. */
unsigned int tmem_max_segs(struct tmem_device *dev);

/* Most bytes in a segment. */
size_t tmem_max_seg_bytes(struct tmem_device *dev);

/* Bytes of persistent pages that the device promises to accept. */
u64 tmem_persistent_reserved(struct tmem_device *dev);

/* The device has persistent (ephemeral) pools. */
bool tmem_has_persistent(struct tmem_device *dev);
bool tmem_has_ephemeral(struct tmem_device *dev);

/* The device has failed or is going away: every request fails. */
bool tmem_is_broken(struct tmem_device *dev);

/* The kernel ends: what is no GET fails. */
bool tmem_is_ending(struct tmem_device *dev);

/* --- clients --- */

/**
 * struct tmem_client - a frontend
 * @name:	for messages
 * @add:	a device has come; returns a negative errno if it is of no use
 * @lost:	the device's contents are lost or not this guest's: make pools
 *		anew.  Requests with data fail until this returns 0; after a
 *		negative errno it is called again, later.
 * @limits:	what the device promises may have changed
 * @remove:	the device is going; every request has failed, and will.
 *		Requests must be destroyed when this returns.
 *
 * All of them may sleep, and are called one at a time.
 */
struct tmem_client {
	const char *name;
	int (*add)(struct tmem_device *dev);
	int (*lost)(struct tmem_device *dev);
	void (*limits)(struct tmem_device *dev);
	void (*remove)(struct tmem_device *dev);
};

/* Calls @add for each device, now and when one comes. */
int tmem_register_client(struct tmem_client *client);
/* Calls @remove for each device. */
void tmem_unregister_client(struct tmem_client *client);

/*
 * What client @client keeps for @dev.  Set it in @add: the others are called
 * only for devices where it is not NULL.
 */
void tmem_set_drvdata(struct tmem_device *dev, struct tmem_client *client,
		      void *data);
void *tmem_get_drvdata(struct tmem_device *dev, struct tmem_client *client);

#endif /* _TMEM_H */
