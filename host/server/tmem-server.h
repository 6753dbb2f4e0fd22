/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The request server: buffers of a virtqueue in, libtmem, buffers out
 *
 * Every transport uses it: a device model hands over the descriptors of one
 * chain as iovecs and gives back what the server wrote.  The server knows
 * nothing of virtqueues, and nothing of QEMU; the transport knows nothing of
 * requests.
 *
 * Guest memory is hostile: it may change at any time.  The server reads each
 * request header and each response array at most once, into memory of its own,
 * and decides only by that copy.
 */
#ifndef TMEM_SERVER_H
#define TMEM_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "tmem/tmem.h"
#include "virtio_tmem.h"

struct tmem_server;	  /* one device */
struct tmem_server_queue; /* one virtqueue, or the thread that serves it */

/* 0 in a member that is not a size or a feature means the default. */
struct tmem_server_config {
	/* The device's identity.  Not owned; outlives the server. */
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	uint64_t features;   /* 1 << VIRTIO_TMEM_F_*: what may be offered */
	uint16_t num_fast;   /* queues; may be 0 */
	uint16_t num_bulk;   /* queues; 1 or more */
	uint32_t max_pools;  /* default 16, at most TMEM_MAX_POOLS */
	uint32_t max_pages;  /* default 64, at most TMEM_MAX_RUN */
	uint32_t max_segs;   /* default 130 (2 for header and response, 128) */
	uint32_t generation; /* to start with; default 1 */
};

/* Monotonic counters of one device. */
struct tmem_server_stats {
	uint64_t requests[16]; /* by op, VIRTIO_TMEM_OP_*; [0]: unknown ones */
	uint64_t pages[16];    /* pages named in them, by op */
	uint64_t bad_requests; /* answered other than OK, NOSPC and NOENT */
	uint64_t bad_chains;   /* answered by nothing at all: -EBADMSG */
};

/*
 * A page count in a request is hostile: pages[] saturates at max_pages for
 * each PUT and GET and at indexes really processed for FLUSH.
 */

/* -EINVAL: a bad config; -ENOMEM. */
int tmem_server_create(const struct tmem_server_config *config,
		       struct tmem_server **server);
/* No queue of it may be left.  Does not touch the store or the tenant. */
void tmem_server_destroy(struct tmem_server *server);

/*
 * The features to offer: those configured that the server has.
 * tmem_server_set_features(): what the driver accepted, nothing before the
 * first call; -EINVAL if that is more than was offered.  Bits from 24 on are
 * the transport's and not looked at.  Not while requests run.
 */
uint64_t tmem_server_features(const struct tmem_server *server);
int tmem_server_set_features(struct tmem_server *server, uint64_t features);

/* The configuration space as of now, in wire order. */
void tmem_server_get_config(struct tmem_server *server,
			    struct virtio_tmem_config *config);

/*
 * True if fields that raise a configuration interrupt (generation, pressure,
 * limits) differ from what the last call of this function saw.
 */
bool tmem_server_config_changed(struct tmem_server *server);

/*
 * System reset: the memory that the pages belonged to is gone, so are they.
 * Ends all pools and changes the generation.  (Device reset, queue reset,
 * suspend and disconnect call nothing: pools outlive them.)
 */
void tmem_server_system_reset(struct tmem_server *server);

/* Contents may have been lost, as after loading a snapshot. */
void tmem_server_new_generation(struct tmem_server *server,
				uint32_t generation);
uint32_t tmem_server_generation(const struct tmem_server *server);

/*
 * A queue's serving context.  @index: the virtqueue's number; it decides
 * whether the queue is fast or bulk.  -EINVAL, -ENOMEM.
 */
int tmem_server_queue_create(struct tmem_server *server, unsigned int index,
			     struct tmem_server_queue **queue);
void tmem_server_queue_destroy(struct tmem_server_queue *queue);
/*
 * @lost, which outlives the queue, becomes true when guest memory that the
 * transport gave is found to be gone, and something else was read or written in
 * its place: requests are answered by VIRTIO_TMEM_S_IO from then on.  A
 * transport whose memory cannot go does not call this.
 */
void tmem_server_queue_watch_memory(struct tmem_server_queue *queue,
				    const volatile bool *lost);

/*
 * One request, in the transport's memory from tmem_server_submit() until it is
 * retired.  The transport sets the first five members.
 */
struct tmem_server_request {
	const struct iovec *out; /* device-readable, in the chain's order */
	unsigned int out_num;
	const struct iovec *in; /* device-writable */
	unsigned int in_num;
	/* Called by tmem_server_poll() where submit said -EINPROGRESS. */
	void (*complete)(struct tmem_server_request *request);

	/*
	 * Result: every byte of the device-writable part below this was
	 * written, none above: the used length.  (One exception: a page that
	 * the store cannot read any more is overwritten with zeros, wherever
	 * it stands.)
	 */
	uint32_t used;
	/* What was answered, for traces: VIRTIO_TMEM_S_* and the request. */
	uint16_t status;
	uint16_t op;
	uint32_t pool;
	uint64_t index;
	uint64_t count;
	uint64_t done;

	struct tmem_op tmem; /* the server's */
};

/*
 * Serve one request.
 *
 * 0: answered; publish it with @request->used, then call
 *    tmem_server_retire().
 * -EINPROGRESS: the answer comes from tmem_server_poll().
 * -EAGAIN: a put while the tenant is frozen.  Nothing took effect: the
 * transport puts the chain back, leaves the queue alone until the thaw, and
 * submits it again. -EBADMSG: no answer is possible (fewer than 16 writable
 * bytes): the device needs a reset.  The request is
 * over.
 *
 * One thread at a time per queue.
 */
int tmem_server_submit(struct tmem_server_queue *queue,
		       struct tmem_server_request *request);

/* Complete requests; returns how many.  -1 from _fd(): there never are any. */
unsigned int tmem_server_poll(struct tmem_server_queue *queue);
int tmem_server_queue_fd(struct tmem_server_queue *queue);

/*
 * The used entry is visible to the driver (@delivered), or will never be.
 * Exactly once for every request that was answered.
 */
void tmem_server_retire(struct tmem_server_queue *queue,
			struct tmem_server_request *request, bool delivered);

/* What a device must carry over a migration: which pools exist. */
struct tmem_server_pool {
	uint32_t id;
	uint32_t flags; /* VIRTIO_TMEM_POOL_* */
	uint32_t page_shift;
};

/*
 * Write up to @max existing pools to @pools; returns how many there are.
 * tmem_server_restore_pools(): make them, empty.  -EINVAL (the list is
 * hostile), -ENOMEM; what was made stays.
 */
unsigned int tmem_server_list_pools(struct tmem_server *server,
				    struct tmem_server_pool *pools,
				    unsigned int max);
int tmem_server_restore_pools(struct tmem_server *server,
			      const struct tmem_server_pool *pools,
			      unsigned int num);

void tmem_server_stats(struct tmem_server *server,
		       struct tmem_server_stats *stats);

#endif /* TMEM_SERVER_H */
