// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtio transcendent memory driver: device, queues, requests
 *
 * The frontends (tmem_swap, ...) decide what is put where; this file carries
 * their requests over the virtqueues.  Its callers reclaim memory, so after
 * probe nothing is allocated: requests and their buffers are the frontends',
 * made in advance, and indirect descriptors are not negotiated.
 *
 * A request that the device has is never given up because of the time that it
 * takes: the device may still write into its pages.  It ends by a used entry,
 * or by a completed device reset.
 *
 * Locks: tmem_devices_lock, then tmem_device.control, then tmem_queue.lock
 * (interrupts off).  No lock is held while a frontend's callback runs, but for
 * tmem_devices_lock around those of struct tmem_client.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bottom_half.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/kmod.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/workqueue.h>

#include "tmem.h"
#include "tmem_compat.h"

/* How many frontends there can be; each has a slot in tmem_device.drvdata. */
#define TMEM_MAX_CLIENTS	8
/* A request that takes longer is worth a line in the log. */
#define TMEM_SLOW		(30 * HZ)
/* When to try again to map a request's pages for DMA. */
#define TMEM_RETRY		(HZ / 50)
/* When to try again to make pools that the device lost. */
#define TMEM_RENEW_RETRY	HZ
/* How long readers wait for the end of a kernel that should have ended. */
#define TMEM_END_WAIT		(10 * HZ)
/* How often a kernel that ends asks for a lock, every 20 ms. */
#define TMEM_REBOOT_TRIES	100
/* The request header and the response. */
#define TMEM_EXTRA_SEGS		2
/*
 * Of a chain.  A split ring of so many fits into a page: where memory is short,
 * Linux makes it no larger when the guest wakes up, and it must not shrink then.
 */
#define TMEM_MAX_SEGS		128u
/* Who waits longer on the CPU only keeps others from it. */
#define TMEM_MAX_SPIN_US	1000
/* Most queues that a device may have, fast and bulk: more gain nothing. */
#define TMEM_MAX_QUEUES		64

static unsigned int spin_us = 10;

static int tmem_set_spin_us(const char *text, const struct kernel_param *kp)
{
	u64 us;
	int rc = kstrtou64(text, 0, &us);

	if (rc)
		return rc;
	if (us > TMEM_MAX_SPIN_US) {
		pr_warn("spin_us=%llu is more than %u: using that\n", us,
			TMEM_MAX_SPIN_US);
		us = TMEM_MAX_SPIN_US;
	}
	WRITE_ONCE(spin_us, us);
	return 0;
}

static const struct kernel_param_ops tmem_spin_us_ops = {
	.set = tmem_set_spin_us,
	.get = param_get_uint,
};
module_param_cb(spin_us, &tmem_spin_us_ops, &spin_us, 0644);
__MODULE_PARM_TYPE(spin_us, "uint");
MODULE_PARM_DESC(spin_us,
		 "Microseconds to wait for an answer on the CPU before sleeping; 0 on one CPU (default: 10, at most 1000)");

/**
 * struct tmem_queue - a virtqueue
 * @vq:		NULL while the device is suspended, and once it has failed
 * @name:	as long as @vq lives, which is not once only
 * @lock:	protects all below, and @vq against concurrent use
 * @waiting:	requests that found no room in the ring, in order
 * @inflight:	requests that are the device's: submitted, not yet used
 * @nr_inflight: how many those are
 * @unkicked:	something was added that the device was not told of
 * @notifying:	CPUs that are using @vq without the lock, to notify
 * @notifications: that the device was sent
 */
struct tmem_queue {
	struct virtqueue *vq;
	char name[16];
	/* protects all below, and @vq against concurrent use */
	spinlock_t lock;
	struct list_head waiting;
	struct list_head inflight;
	unsigned int nr_inflight;
	bool unkicked;
	atomic_t notifying;
	unsigned long notifications;
};

/**
 * struct tmem_device - a bound virtio-tmem device
 * @vdev:	the virtio device
 * @link:	in tmem_devices
 * @queues:	for small gets, then for everything
 * @nr_fast:	of the former
 * @nr_bulk:	of the latter
 * @max_pages:	in a request
 * @max_segs:	of data in a request, by the device's and the rings' limits
 * @max_pools:	pool numbers are below
 * @generation:	what responses must carry; changed by tmem_config_work()
 * @renewing:	the device has another, and pools are not all made anew yet
 * @restored:	the device was without power: it may have no pools any more
 * @retrying:	the log has a line about pools that could not be made
 * @broken:	failed, or going away: nothing is submitted any more, for good
 * @suspended:	there are no virtqueues: requests wait
 * @ending:	the kernel ends: only reads wait, what else there is fails
 * @control:	serialises @ctl and protects @pools
 * @reset:	serialises tmem_take_back(); nothing that waits for a request
 *		is done under it
 * @ctl:	for pool requests
 * @pools:	numbers in use, a bit each
 * @pool_flags:	what those were made with
 * @config_work: looks at what has changed; tries again what could not be mended
 * @failure_work: looks whether the device has failed.  Not @config_work, which
 *		may be waiting for an answer that this device will not give
 * @watchdog:	looks for slow requests; runs only while there are requests
 * @retry:	submits again what could not be mapped
 * @end:	fails readers that wait for the end of a kernel, if it takes long:
 *		it may be waiting for them
 * @requests:	submitted, ever
 * @slow:	requests that took longer than TMEM_SLOW
 * @drvdata:	of the clients
 */
struct tmem_device {
	struct virtio_device *vdev;
	struct list_head link;
	struct tmem_queue *queues;
	unsigned int nr_fast;
	unsigned int nr_bulk;
	unsigned int max_pages;
	unsigned int max_segs;
	unsigned int max_pools;
	u32 generation;
	bool renewing;
	bool restored;
	bool retrying;
	bool broken;
	bool suspended;
	bool ending;

	/* serialises @ctl, protects @pools */
	struct mutex control;
	struct mutex reset;	/* serialises tmem_take_back() */
	struct tmem_request ctl;
	unsigned long *pools;
	u16 *pool_flags;

	struct delayed_work config_work;
	struct work_struct failure_work;
	struct delayed_work watchdog;
	struct delayed_work retry;
	struct delayed_work end;

	atomic_long_t requests;
	atomic_long_t slow;
	void *drvdata[TMEM_MAX_CLIENTS];
};

/* Protects the two lists, the slots of drvdata, and runs client callbacks. */
static DEFINE_MUTEX(tmem_devices_lock);
static LIST_HEAD(tmem_devices);
static struct tmem_client *tmem_clients[TMEM_MAX_CLIENTS];
/* For what reclaim waits for: it runs also when no thread can be made. */
static struct workqueue_struct *tmem_wq;
/* For tmem_config_work() alone, which may wait long, and must not run twice. */
static struct workqueue_struct *tmem_config_wq;

static unsigned int tmem_nr_queues(struct tmem_device *dev)
{
	return dev->nr_fast + dev->nr_bulk;
}

static bool tmem_has_data(const struct tmem_request *req)
{
	return req->op == VIRTIO_TMEM_OP_PUT || req->op == VIRTIO_TMEM_OP_GET;
}

/* --- requests: making and reading them --- */

/* Room for page[count] and for what answers POOL_STATS. */
static size_t tmem_wire_size(struct tmem_device *dev)
{
	return sizeof(struct tmem_wire) +
	       max(dev->max_pages * sizeof(__le32),
		   sizeof(struct virtio_tmem_pool_stats));
}

int tmem_request_init(struct tmem_device *dev, struct tmem_request *req,
		      gfp_t gfp)
{
	memset(req, 0, sizeof(*req));
	req->dev = dev;
	INIT_LIST_HEAD(&req->link);
	init_completion(&req->completion);
	req->wire = kzalloc(tmem_wire_size(dev), gfp);
	req->sg = kcalloc(dev->max_segs, sizeof(*req->sg), gfp);
	if (!req->wire || !req->sg) {
		tmem_request_destroy(req);
		return -ENOMEM;
	}
	return 0;
}
EXPORT_SYMBOL_GPL(tmem_request_init);

void tmem_request_destroy(struct tmem_request *req)
{
	kfree(req->wire);
	kfree(req->sg);
	req->wire = NULL;
	req->sg = NULL;
}
EXPORT_SYMBOL_GPL(tmem_request_destroy);

static int tmem_status_error(unsigned int status)
{
	switch (status) {
	case VIRTIO_TMEM_S_OK:
		return 0;
	case VIRTIO_TMEM_S_NOSPC:
		return -ENOSPC;
	case VIRTIO_TMEM_S_NOENT:
		return -ENOENT;
	case VIRTIO_TMEM_S_INVAL:
		return -EINVAL;
	case VIRTIO_TMEM_S_PERM:
		return -EPERM;
	case VIRTIO_TMEM_S_EXIST:
		return -EEXIST;
	case VIRTIO_TMEM_S_UNSUPP:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

/* Bytes of the response of @req that precede the data. */
static size_t tmem_resp_size(const struct tmem_request *req)
{
	if (tmem_has_data(req))
		return sizeof(struct virtio_tmem_resp) +
		       req->count * sizeof(__le32);
	if (req->op == VIRTIO_TMEM_OP_POOL_STATS)
		return sizeof(struct virtio_tmem_resp) +
		       sizeof(struct virtio_tmem_pool_stats);
	return sizeof(struct virtio_tmem_resp);
}

int tmem_page_error(const struct tmem_request *req, unsigned int i)
{
	u32 page = le32_to_cpu(req->wire->page[i]);
	int error = tmem_status_error(page >> VIRTIO_TMEM_PAGE_STATUS_SHIFT);

	/* Beyond the used length is whatever was in the buffer before. */
	if (!error && req->op == VIRTIO_TMEM_OP_GET &&
	    req->used < tmem_resp_size(req) + (i + 1) * PAGE_SIZE)
		return -EIO;
	return error;
}
EXPORT_SYMBOL_GPL(tmem_page_error);

static void tmem_encode(struct tmem_request *req)
{
	struct virtio_tmem_req *wire = &req->wire->req;

	wire->op = cpu_to_le16(req->op);
	wire->flags = cpu_to_le16(req->flags);
	wire->pool = cpu_to_le32(req->pool);
	memcpy(wire->object, req->object, sizeof(wire->object));
	wire->index = cpu_to_le64(req->index);
	wire->count = cpu_to_le64(req->count);

	sg_init_one(&req->head, wire, sizeof(*wire));
	sg_init_one(&req->tail, &req->wire->resp, tmem_resp_size(req));
}

/* Sets the frontend's members from what the device wrote. */
static void tmem_decode(struct tmem_request *req)
{
	const struct virtio_tmem_resp *resp = &req->wire->resp;
	struct tmem_device *dev = req->dev;
	bool other;

	req->completed = 0;
	if (req->used < sizeof(*resp)) {
		req->error = -EIO;
		return;
	}
	/* Pages that this kernel did not put, whatever the status says. */
	other = le32_to_cpu(resp->generation) != req->generation;
	if (other && !READ_ONCE(dev->renewing))
		mod_delayed_work(tmem_config_wq, &dev->config_work, 0);
	req->error = tmem_status_error(le16_to_cpu(resp->status));
	if (req->error)
		return;
	if (req->used < tmem_resp_size(req)) {
		req->error = -EIO;
		return;
	}
	req->completed = min(le64_to_cpu(resp->done), req->count);
	if (other && tmem_has_data(req))
		req->error = -EIO;
}

static void tmem_complete(struct tmem_request *req)
{
	if (req->done)
		req->done(req);
	else
		complete(&req->completion);
}

static void tmem_fail(struct tmem_request *req, int error)
{
	req->error = error;
	req->completed = 0;
	tmem_complete(req);
}

/* --- queues --- */

static struct tmem_queue *tmem_queue_for(struct tmem_device *dev,
					 const struct tmem_request *req)
{
	unsigned int cpu = raw_smp_processor_id();

	if (req->op == VIRTIO_TMEM_OP_GET && dev->nr_fast &&
	    req->count <= VIRTIO_TMEM_FAST_PAGES)
		return &dev->queues[cpu % dev->nr_fast];
	return &dev->queues[dev->nr_fast + cpu % dev->nr_bulk];
}

/* Called with the queue's lock held.  0, -ENOSPC, -ENOMEM or -EIO. */
static int tmem_queue_add(struct tmem_queue *q, struct tmem_request *req)
{
	struct scatterlist *sgs[3];
	unsigned int out = 0, in = 0;
	int rc;

	if (req->dev->suspended)
		return -ENOSPC;
	sgs[out++] = &req->head;
	if (req->op == VIRTIO_TMEM_OP_PUT)
		sgs[out++] = req->sg;
	sgs[out + in++] = &req->tail;
	if (req->op == VIRTIO_TMEM_OP_GET)
		sgs[out + in++] = req->sg;

	/* Without memory for indirect descriptors direct ones are used. */
	rc = virtqueue_add_sgs(q->vq, sgs, out, in, req,
			       GFP_ATOMIC | __GFP_NOWARN);
	/* Packed rings also say -EIO where they could not map for DMA. */
	if (rc == -EIO && !virtqueue_is_broken(q->vq))
		rc = -ENOMEM;
	if (rc)
		return rc;
	list_add_tail(&req->link, &q->inflight);
	q->nr_inflight++;
	q->unkicked = true;
	return 0;
}

static void tmem_retry_later(struct tmem_device *dev)
{
	queue_delayed_work(tmem_wq, &dev->retry, TMEM_RETRY);
}

/* Called with the queue's lock held.  Adds what was waiting for room. */
static void tmem_queue_refill(struct tmem_device *dev, struct tmem_queue *q,
			      struct list_head *failed)
{
	struct tmem_request *req, *next;

	list_for_each_entry_safe(req, next, &q->waiting, link) {
		int rc;

		list_del(&req->link);
		rc = tmem_queue_add(q, req);
		if (!rc)
			continue;
		if (rc == -ENOSPC || rc == -ENOMEM) {
			list_add(&req->link, &q->waiting);
			/* Nobody's completion will call this again. */
			if (rc == -ENOMEM && !q->nr_inflight)
				tmem_retry_later(dev);
			return;
		}
		list_add_tail(&req->link, failed);
	}
}

static void tmem_fail_list(struct list_head *list)
{
	struct tmem_request *req, *next;

	list_for_each_entry_safe(req, next, list, link) {
		list_del_init(&req->link);
		tmem_fail(req, -EIO);
	}
}

static void tmem_queue_kick(struct tmem_queue *q)
{
	struct virtqueue *vq = NULL;
	unsigned long flags;
	bool notify = false;

	if (!READ_ONCE(q->unkicked))
		return;
	spin_lock_irqsave(&q->lock, flags);
	if (q->unkicked && q->vq) {
		q->unkicked = false;
		vq = q->vq;
		notify = virtqueue_kick_prepare(vq);
		q->notifications += notify;
		/* tmem_take_back() waits for this before @vq ends. */
		atomic_add(notify, &q->notifying);
	}
	spin_unlock_irqrestore(&q->lock, flags);
	/* A fast queue is served before this returns: not under the lock. */
	if (notify) {
		virtqueue_notify(vq);
		atomic_dec(&q->notifying);
	}
}

/*
 * The kernel is about to end, and this is nothing that it waits for: a write
 * that fails leaves its page in RAM, a read that fails kills who needs it.
 */
static bool tmem_ends(const struct tmem_device *dev,
		      const struct tmem_request *req)
{
	return dev->ending && req->op != VIRTIO_TMEM_OP_GET;
}

void tmem_submit(struct tmem_request *req)
{
	struct tmem_device *dev = req->dev;
	struct tmem_queue *q = tmem_queue_for(dev, req);
	unsigned long flags;
	unsigned int i;
	int rc = -EIO;

	tmem_encode(req);
	/* Marks of an earlier use would end the list too soon. */
	for (i = 0; i + 1 < req->nr_sg; i++)
		sg_unmark_end(&req->sg[i]);
	if (req->nr_sg)
		sg_mark_end(&req->sg[req->nr_sg - 1]);
	req->used = 0;
	req->submitted = jiffies;
	req->generation = READ_ONCE(dev->generation);
	atomic_long_inc(&dev->requests);

	spin_lock_irqsave(&q->lock, flags);
	if (!dev->broken && !tmem_ends(dev, req)) {
		rc = list_empty(&q->waiting) ? tmem_queue_add(q, req) : -ENOSPC;
		if (rc == -ENOSPC || rc == -ENOMEM) {
			list_add_tail(&req->link, &q->waiting);
			if (rc == -ENOMEM && !q->nr_inflight)
				tmem_retry_later(dev);
			rc = 0;
		}
	}
	/* Within the lock: not once tmem_take_back() has said broken. */
	if (!rc && !delayed_work_pending(&dev->watchdog))
		schedule_delayed_work(&dev->watchdog, TMEM_SLOW);
	spin_unlock_irqrestore(&q->lock, flags);

	if (rc)
		tmem_fail(req, -EIO);
}
EXPORT_SYMBOL_GPL(tmem_submit);

void tmem_kick(struct tmem_device *dev)
{
	unsigned int i;

	for (i = 0; i < tmem_nr_queues(dev); i++)
		tmem_queue_kick(&dev->queues[i]);
}
EXPORT_SYMBOL_GPL(tmem_kick);

/*
 * Takes what the device is through with.  With @arm, has an interrupt announce
 * the rest, if there is a rest.  Returns how many requests are outstanding.
 */
static unsigned int tmem_queue_reap(struct tmem_device *dev,
				    struct tmem_queue *q, bool arm)
{
	struct tmem_request *req, *next;
	LIST_HEAD(failed);
	LIST_HEAD(done);
	unsigned long flags;
	unsigned int left;
	u32 used;

	spin_lock_irqsave(&q->lock, flags);
	if (!q->vq) {
		spin_unlock_irqrestore(&q->lock, flags);
		return 0;
	}
	do {
		virtqueue_disable_cb(q->vq);
		while ((req = virtqueue_get_buf(q->vq, &used))) {
			req->used = used;
			list_move_tail(&req->link, &done);
			q->nr_inflight--;
		}
		if (virtqueue_is_broken(q->vq)) {
			/* It would wait for ever for what it has sent. */
			if (!dev->broken && !dev->suspended)
				queue_work(tmem_wq, &dev->failure_work);
			break;
		}
		tmem_queue_refill(dev, q, &failed);
	} while (arm && q->nr_inflight && !virtqueue_enable_cb(q->vq));
	left = q->nr_inflight;
	spin_unlock_irqrestore(&q->lock, flags);

	/* What was refilled. */
	tmem_queue_kick(q);
	list_for_each_entry_safe(req, next, &done, link) {
		list_del_init(&req->link);
		tmem_decode(req);
		tmem_complete(req);
	}
	tmem_fail_list(&failed);
	return left;
}

static void tmem_vq_callback(struct virtqueue *vq)
{
	struct tmem_device *dev = vq->vdev->priv;

	tmem_queue_reap(dev, &dev->queues[vq->index], true);
}

/*
 * Until @deadline nothing announces an answer, neither to this task nor to
 * others: it must not lose the CPU meanwhile.  In a real-time kernel it may.
 */
static void tmem_queue_poll(struct tmem_device *dev, struct tmem_queue *q,
			    ktime_t deadline)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT)) {
		tmem_queue_reap(dev, q, true);
		return;
	}
	while (tmem_queue_reap(dev, q, false)) {
		if (ktime_after(ktime_get(), deadline) || need_resched()) {
			tmem_queue_reap(dev, q, true);
			return;
		}
		cpu_relax();
	}
}

void tmem_poll(struct tmem_device *dev)
{
	unsigned int us = num_online_cpus() > 1 ? READ_ONCE(spin_us) : 0;
	ktime_t deadline = ktime_add_us(ktime_get(), us);
	unsigned int i;

	/* To those whose requests end here it is as in an interrupt. */
	local_bh_disable();
	for (i = 0; i < tmem_nr_queues(dev); i++)
		if (READ_ONCE(dev->queues[i].nr_inflight))
			tmem_queue_poll(dev, &dev->queues[i], deadline);
	local_bh_enable();
}
EXPORT_SYMBOL_GPL(tmem_poll);

/*
 * The device asks for a reset, or has returned what it was not given.  Of a
 * device that is suspended, and maybe without power, nothing is believed.
 */
static bool tmem_has_failed(struct tmem_device *dev)
{
	u8 status = dev->vdev->config->get_status(dev->vdev);
	bool failed = status & VIRTIO_CONFIG_S_NEEDS_RESET;
	unsigned int i;

	for (i = 0; i < tmem_nr_queues(dev) && !failed; i++) {
		struct tmem_queue *q = &dev->queues[i];

		spin_lock_irq(&q->lock);
		failed = q->vq && virtqueue_is_broken(q->vq);
		spin_unlock_irq(&q->lock);
	}
	return failed && !READ_ONCE(dev->suspended) && !READ_ONCE(dev->broken);
}

int tmem_execute(struct tmem_request *req)
{
	req->done = NULL;
	reinit_completion(&req->completion);
	tmem_submit(req);
	tmem_kick(req->dev);
	tmem_poll(req->dev);
	/* While a driver is probed or suspended, nobody tells it of a failure. */
	while (!wait_for_completion_io_timeout(&req->completion, HZ))
		if (tmem_has_failed(req->dev))
			queue_work(tmem_wq, &req->dev->failure_work);
	return req->error;
}
EXPORT_SYMBOL_GPL(tmem_execute);

static void tmem_retry_work(struct work_struct *work)
{
	struct tmem_device *dev = container_of(to_delayed_work(work),
					       struct tmem_device, retry);
	unsigned int i;

	for (i = 0; i < tmem_nr_queues(dev); i++)
		tmem_queue_reap(dev, &dev->queues[i], true);
}

/* --- slow requests --- */

static bool tmem_queue_slow(struct tmem_queue *q, unsigned int *outstanding)
{
	struct tmem_request *req;
	unsigned long flags;
	bool slow = false;

	spin_lock_irqsave(&q->lock, flags);
	req = list_first_entry_or_null(&q->inflight, struct tmem_request, link);
	slow = req && time_after_eq(jiffies, req->submitted + TMEM_SLOW);
	*outstanding += q->nr_inflight;
	if (!list_empty(&q->waiting))
		(*outstanding)++;
	spin_unlock_irqrestore(&q->lock, flags);
	return slow;
}

static void tmem_watchdog_work(struct work_struct *work)
{
	struct tmem_device *dev = container_of(to_delayed_work(work),
					       struct tmem_device, watchdog);
	unsigned int i, outstanding = 0;
	bool slow = false;

	for (i = 0; i < tmem_nr_queues(dev); i++)
		slow |= tmem_queue_slow(&dev->queues[i], &outstanding);
	if (slow && atomic_long_inc_return(&dev->slow) <= 10)
		dev_warn(&dev->vdev->dev,
			 "no answer from the host for %u s; waiting\n",
			 TMEM_SLOW / HZ);
	if (outstanding && !dev->broken)
		schedule_delayed_work(&dev->watchdog, TMEM_SLOW);
}

/* --- pools --- */

/* Called with dev->control held.  Returns 0 or a negative errno. */
static int tmem_control(struct tmem_device *dev, u16 op, u32 pool, u16 flags,
			u64 index)
{
	struct tmem_request *req = &dev->ctl;

	req->op = op;
	req->pool = pool;
	req->flags = flags;
	req->index = index;
	req->count = 0;
	return tmem_execute(req);
}

int tmem_pool_create(struct tmem_device *dev, u16 flags)
{
	unsigned int pool;
	int rc;

	mutex_lock(&dev->control);
	pool = find_first_zero_bit(dev->pools, dev->max_pools);
	if (pool >= dev->max_pools) {
		rc = -ENOSPC;
		goto out_unlock;
	}
	rc = tmem_control(dev, VIRTIO_TMEM_OP_POOL_CREATE, pool, flags,
			  PAGE_SHIFT);
	if (rc)
		goto out_unlock;
	__set_bit(pool, dev->pools);
	dev->pool_flags[pool] = flags;
	rc = pool;
out_unlock:
	mutex_unlock(&dev->control);
	return rc;
}
EXPORT_SYMBOL_GPL(tmem_pool_create);

/* Called with dev->control held. */
static int tmem_pool_make(struct tmem_device *dev, u32 pool)
{
	return tmem_control(dev, VIRTIO_TMEM_OP_POOL_CREATE, pool,
			    dev->pool_flags[pool], PAGE_SHIFT);
}

int tmem_pool_renew(struct tmem_device *dev, u32 pool)
{
	int rc;

	mutex_lock(&dev->control);
	rc = tmem_control(dev, VIRTIO_TMEM_OP_POOL_DESTROY, pool, 0, 0);
	if (!rc || rc == -ENOENT)
		rc = tmem_pool_make(dev, pool);
	mutex_unlock(&dev->control);
	return rc;
}
EXPORT_SYMBOL_GPL(tmem_pool_renew);

/*
 * A kernel that wakes up from hibernation may find a device that was made
 * since, with the generation that it knows.  Pools that are there stay, but for
 * those of other kinds, which are the kernel's that loaded the image.
 */
static int tmem_pools_restore(struct tmem_device *dev)
{
	unsigned int pool;
	int rc = 0;

	mutex_lock(&dev->control);
	for_each_set_bit(pool, dev->pools, dev->max_pools) {
		rc = tmem_pool_make(dev, pool);
		if (rc == -EEXIST)
			rc = tmem_control(dev, VIRTIO_TMEM_OP_POOL_DESTROY,
					  pool, 0, 0) ?:
			     tmem_pool_make(dev, pool);
		if (rc)
			break;
	}
	mutex_unlock(&dev->control);
	return rc;
}

void tmem_pool_destroy(struct tmem_device *dev, u32 pool)
{
	mutex_lock(&dev->control);
	tmem_control(dev, VIRTIO_TMEM_OP_POOL_DESTROY, pool, 0, 0);
	__clear_bit(pool, dev->pools);
	mutex_unlock(&dev->control);
}
EXPORT_SYMBOL_GPL(tmem_pool_destroy);

/* --- what frontends ask --- */

struct device *tmem_parent(struct tmem_device *dev)
{
	return &dev->vdev->dev;
}
EXPORT_SYMBOL_GPL(tmem_parent);

unsigned int tmem_max_pages(struct tmem_device *dev)
{
	return dev->max_pages;
}
EXPORT_SYMBOL_GPL(tmem_max_pages);

unsigned int tmem_max_segs(struct tmem_device *dev)
{
	return dev->max_segs;
}
EXPORT_SYMBOL_GPL(tmem_max_segs);

size_t tmem_max_seg_bytes(struct tmem_device *dev)
{
	return virtio_max_dma_size(dev->vdev);
}
EXPORT_SYMBOL_GPL(tmem_max_seg_bytes);

u64 tmem_persistent_reserved(struct tmem_device *dev)
{
	u64 bytes;

	virtio_cread_le(dev->vdev, struct virtio_tmem_config,
			persistent_reserved, &bytes);
	return bytes;
}
EXPORT_SYMBOL_GPL(tmem_persistent_reserved);

bool tmem_has_persistent(struct tmem_device *dev)
{
	return virtio_has_feature(dev->vdev, VIRTIO_TMEM_F_PERSISTENT);
}
EXPORT_SYMBOL_GPL(tmem_has_persistent);

bool tmem_has_ephemeral(struct tmem_device *dev)
{
	return virtio_has_feature(dev->vdev, VIRTIO_TMEM_F_EPHEMERAL);
}
EXPORT_SYMBOL_GPL(tmem_has_ephemeral);

bool tmem_is_broken(struct tmem_device *dev)
{
	return READ_ONCE(dev->broken);
}
EXPORT_SYMBOL_GPL(tmem_is_broken);

bool tmem_is_ending(struct tmem_device *dev)
{
	return READ_ONCE(dev->ending);
}
EXPORT_SYMBOL_GPL(tmem_is_ending);

/* --- clients --- */

static int tmem_client_slot(struct tmem_client *client)
{
	int i;

	for (i = 0; i < TMEM_MAX_CLIENTS; i++)
		if (tmem_clients[i] == client)
			return i;
	return -1;
}

void tmem_set_drvdata(struct tmem_device *dev, struct tmem_client *client,
		      void *data)
{
	int slot = tmem_client_slot(client);

	if (slot >= 0)
		dev->drvdata[slot] = data;
}
EXPORT_SYMBOL_GPL(tmem_set_drvdata);

void *tmem_get_drvdata(struct tmem_device *dev, struct tmem_client *client)
{
	int slot = tmem_client_slot(client);

	return slot >= 0 ? dev->drvdata[slot] : NULL;
}
EXPORT_SYMBOL_GPL(tmem_get_drvdata);

/* These two are called with tmem_devices_lock held. */
static void tmem_client_add(struct tmem_client *client, struct tmem_device *dev)
{
	int rc = client->add(dev);

	if (rc)
		dev_err(&dev->vdev->dev, "%s does not work: error %d\n",
			client->name, rc);
}

static void tmem_client_remove(struct tmem_client *client,
			       struct tmem_device *dev)
{
	if (!tmem_get_drvdata(dev, client))
		return;
	client->remove(dev);
	tmem_set_drvdata(dev, client, NULL);
}

int tmem_register_client(struct tmem_client *client)
{
	struct tmem_device *dev;
	int slot;

	mutex_lock(&tmem_devices_lock);
	slot = tmem_client_slot(NULL);
	if (slot >= 0) {
		tmem_clients[slot] = client;
		list_for_each_entry(dev, &tmem_devices, link)
			tmem_client_add(client, dev);
	}
	mutex_unlock(&tmem_devices_lock);
	return slot < 0 ? -ENOSPC : 0;
}
EXPORT_SYMBOL_GPL(tmem_register_client);

void tmem_unregister_client(struct tmem_client *client)
{
	struct tmem_device *dev;
	int slot;

	mutex_lock(&tmem_devices_lock);
	list_for_each_entry(dev, &tmem_devices, link)
		tmem_client_remove(client, dev);
	slot = tmem_client_slot(client);
	if (slot >= 0)
		tmem_clients[slot] = NULL;
	mutex_unlock(&tmem_devices_lock);
}
EXPORT_SYMBOL_GPL(tmem_unregister_client);

/* --- configuration --- */

static u32 tmem_read_generation(struct tmem_device *dev)
{
	u32 generation;

	virtio_cread_le(dev->vdev, struct virtio_tmem_config, generation,
			&generation);
	return generation;
}

/*
 * The device's contents are another's, or gone.  Pools are made anew, so that
 * reads of what was there miss and fail, before requests go through again.
 */
static int tmem_renew(struct tmem_device *dev, u32 generation)
{
	int i, rc = 0;

	if (!dev->renewing)
		dev_err(&dev->vdev->dev,
			"the host has lost this guest's pages (generation %u, was %u)\n",
			generation, dev->generation);
	WRITE_ONCE(dev->renewing, true);
	for (i = 0; i < TMEM_MAX_CLIENTS && !rc; i++)
		if (tmem_clients[i] && dev->drvdata[i])
			rc = tmem_clients[i]->lost(dev);
	if (rc)
		return rc;
	WRITE_ONCE(dev->generation, generation);
	WRITE_ONCE(dev->renewing, false);
	return 0;
}

static void tmem_tell_limits(struct tmem_device *dev)
{
	int i;

	for (i = 0; i < TMEM_MAX_CLIENTS; i++)
		if (tmem_clients[i] && dev->drvdata[i])
			tmem_clients[i]->limits(dev);
}

/* Until it works: until then requests with data fail. */
static void tmem_config_work(struct work_struct *work)
{
	struct tmem_device *dev = container_of(to_delayed_work(work),
					       struct tmem_device, config_work);
	u32 generation;
	int rc = 0;

	mutex_lock(&tmem_devices_lock);
	while (!rc && !dev->broken && !dev->suspended) {
		generation = tmem_read_generation(dev);
		if (generation != dev->generation || dev->renewing) {
			rc = tmem_renew(dev, generation);
		} else if (dev->restored) {
			rc = tmem_pools_restore(dev);
			if (!rc)
				dev->restored = false;
		} else {
			break;
		}
	}
	if (rc && !dev->broken) {
		if (!dev->retrying)
			dev_err(&dev->vdev->dev,
				"the host makes no new pool: error %d; trying again\n",
				rc);
		queue_delayed_work(tmem_config_wq, &dev->config_work,
				   TMEM_RENEW_RETRY);
	}
	dev->retrying = rc;
	if (!dev->broken && !dev->suspended)
		tmem_tell_limits(dev);
	mutex_unlock(&tmem_devices_lock);
}

static void tmem_config_changed(struct virtio_device *vdev)
{
	struct tmem_device *dev = vdev->priv;

	queue_work(tmem_wq, &dev->failure_work);
	mod_delayed_work(tmem_config_wq, &dev->config_work, 0);
}

/* --- sysfs: of the virtio device --- */

static ssize_t requests_show(struct device *d, struct device_attribute *attr,
			     char *buf)
{
	struct tmem_device *dev = dev_to_virtio(d)->priv;

	return sysfs_emit(buf, "%ld\n", atomic_long_read(&dev->requests));
}
static DEVICE_ATTR_RO(requests);

static ssize_t notifications_show(struct device *d,
				  struct device_attribute *attr, char *buf)
{
	struct tmem_device *dev = dev_to_virtio(d)->priv;
	unsigned long sum = 0;
	unsigned int i;

	for (i = 0; i < tmem_nr_queues(dev); i++)
		sum += READ_ONCE(dev->queues[i].notifications);
	return sysfs_emit(buf, "%lu\n", sum);
}
static DEVICE_ATTR_RO(notifications);

static ssize_t slow_requests_show(struct device *d,
				  struct device_attribute *attr, char *buf)
{
	struct tmem_device *dev = dev_to_virtio(d)->priv;

	return sysfs_emit(buf, "%ld\n", atomic_long_read(&dev->slow));
}
static DEVICE_ATTR_RO(slow_requests);

static ssize_t generation_show(struct device *d, struct device_attribute *attr,
			       char *buf)
{
	struct tmem_device *dev = dev_to_virtio(d)->priv;

	return sysfs_emit(buf, "%u\n", READ_ONCE(dev->generation));
}
static DEVICE_ATTR_RO(generation);

static ssize_t pressure_show(struct device *d, struct device_attribute *attr,
			     char *buf)
{
	u32 pressure;

	virtio_cread_le(dev_to_virtio(d), struct virtio_tmem_config, pressure,
			&pressure);
	return sysfs_emit(buf, "%u\n", pressure);
}
static DEVICE_ATTR_RO(pressure);

static ssize_t persistent_reserved_show(struct device *d,
					struct device_attribute *attr,
					char *buf)
{
	struct tmem_device *dev = dev_to_virtio(d)->priv;

	return sysfs_emit(buf, "%llu\n", tmem_persistent_reserved(dev));
}
static DEVICE_ATTR_RO(persistent_reserved);

static struct attribute *tmem_attrs[] = {
	&dev_attr_requests.attr,
	&dev_attr_notifications.attr,
	&dev_attr_slow_requests.attr,
	&dev_attr_generation.attr,
	&dev_attr_pressure.attr,
	&dev_attr_persistent_reserved.attr,
	NULL
};
ATTRIBUTE_GROUPS(tmem);

/* --- probe and removal --- */

static int tmem_validate(struct virtio_device *vdev)
{
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "the device is not of virtio 1.0 or later\n");
		return -ENODEV;
	}
	if (tmem_compat_memory_encrypted()) {
		dev_err(&vdev->dev,
			"this guest's memory is encrypted: its pages would reach the host in clear, so this driver does not start\n");
		return -EACCES;
	}
	/* Indirect descriptors are allocated, and we must not allocate. */
	__virtio_clear_bit(vdev, VIRTIO_RING_F_INDIRECT_DESC);
	return 0;
}

/* The limits that cannot change. */
static int tmem_read_limits(struct tmem_device *dev)
{
	struct virtio_device *vdev = dev->vdev;
	u32 max_pages, max_segs, max_pools, page_sizes;
	u16 nr_fast, nr_bulk;

	virtio_cread_le(vdev, struct virtio_tmem_config, num_fast, &nr_fast);
	virtio_cread_le(vdev, struct virtio_tmem_config, num_bulk, &nr_bulk);
	virtio_cread_le(vdev, struct virtio_tmem_config, max_pools, &max_pools);
	virtio_cread_le(vdev, struct virtio_tmem_config, max_pages, &max_pages);
	virtio_cread_le(vdev, struct virtio_tmem_config, max_segs, &max_segs);
	virtio_cread_le(vdev, struct virtio_tmem_config, page_sizes,
			&page_sizes);
	if (nr_fast + nr_bulk > TMEM_MAX_QUEUES) {
		dev_err(&vdev->dev,
			"the device has %u fast and %u bulk queues: at most %u can be used\n",
			nr_fast, nr_bulk, TMEM_MAX_QUEUES);
		return -EINVAL;
	}
	if (!nr_bulk || !max_pages || !max_pools ||
	    max_segs <= TMEM_EXTRA_SEGS) {
		dev_err(&vdev->dev,
			"unusable limits: num_fast %u num_bulk %u max_pools %u max_pages %u max_segs %u\n",
			nr_fast, nr_bulk, max_pools, max_pages, max_segs);
		return -EINVAL;
	}
	if (!(page_sizes & BIT(PAGE_SHIFT))) {
		dev_err(&vdev->dev,
			"the device has no pools of %lu byte pages (page_sizes %#x)\n",
			PAGE_SIZE, page_sizes);
		return -EINVAL;
	}
	dev->nr_fast = nr_fast;
	dev->nr_bulk = nr_bulk;
	/* A request must be preallocated: do not follow a device into excess. */
	dev->max_pages = min(max_pages, 256u);
	dev->max_segs = min(max_segs, TMEM_MAX_SEGS) - TMEM_EXTRA_SEGS;
	dev->max_pools = min(max_pools, 1024u);
	return 0;
}

static int tmem_find_queues(struct tmem_device *dev)
{
	unsigned int i, nr = tmem_nr_queues(dev);
	struct virtqueue **vqs;
	const char **names;
	int rc = -ENOMEM;

	vqs = kcalloc(nr, sizeof(*vqs), GFP_KERNEL);
	names = kcalloc(nr, sizeof(*names), GFP_KERNEL);
	if (!vqs || !names)
		goto out_free;
	for (i = 0; i < nr; i++)
		names[i] = dev->queues[i].name;
	rc = tmem_compat_find_vqs(dev->vdev, nr, vqs, tmem_vq_callback, names);
	if (rc)
		goto out_free;
	for (i = 0; i < nr; i++) {
		unsigned int ring = virtqueue_get_vring_size(vqs[i]);

		if (ring <= TMEM_EXTRA_SEGS) {
			dev_err(&dev->vdev->dev,
				"queue %u has %u descriptors: a request takes 3\n",
				i, ring);
			dev->vdev->config->del_vqs(dev->vdev);
			rc = -EINVAL;
			goto out_free;
		}
		dev->max_segs = min(dev->max_segs, ring - TMEM_EXTRA_SEGS);
	}
	for (i = 0; i < nr; i++) {
		spin_lock_irq(&dev->queues[i].lock);
		dev->queues[i].vq = vqs[i];
		spin_unlock_irq(&dev->queues[i].lock);
	}
out_free:
	kfree(names);
	kfree(vqs);
	return rc;
}

static int tmem_init_queues(struct tmem_device *dev)
{
	unsigned int i;

	dev->queues = kcalloc(tmem_nr_queues(dev), sizeof(*dev->queues),
			      GFP_KERNEL);
	if (!dev->queues)
		return -ENOMEM;
	for (i = 0; i < tmem_nr_queues(dev); i++) {
		struct tmem_queue *q = &dev->queues[i];
		bool fast = i < dev->nr_fast;

		spin_lock_init(&q->lock);
		INIT_LIST_HEAD(&q->waiting);
		INIT_LIST_HEAD(&q->inflight);
		snprintf(q->name, sizeof(q->name), "%s.%u",
			 fast ? "fast" : "bulk", fast ? i : i - dev->nr_fast);
	}
	return tmem_find_queues(dev);
}

/* What becomes of requests when the device is reset. */
enum tmem_why {
	TMEM_SUSPEND,	/* they wait, to be sent again: each can be repeated */
	TMEM_END,	/* so do reads, and nobody will send them; the rest fails */
	TMEM_FAIL,	/* they fail */
};

/* Called with the queue's lock held, of a device that was reset. */
static void tmem_queue_sort(struct tmem_device *dev, struct tmem_queue *q,
			    struct list_head *failed)
{
	struct tmem_request *req, *next;

	list_splice_init(&q->inflight, &q->waiting);
	list_for_each_entry_safe(req, next, &q->waiting, link)
		if (dev->broken || tmem_ends(dev, req))
			list_move_tail(&req->link, failed);
}

/*
 * Resets the device, and with that takes back whatever it had.  Can be called
 * again, also without queues.
 */
static void tmem_take_back(struct tmem_device *dev, enum tmem_why why)
{
	LIST_HEAD(requests);
	bool queues = false;
	unsigned int i;

	mutex_lock(&dev->reset);
	for (i = 0; i < tmem_nr_queues(dev); i++) {
		struct tmem_queue *q = &dev->queues[i];

		spin_lock_irq(&q->lock);
		if (why == TMEM_FAIL)
			dev->broken = true;
		else
			dev->suspended = true;
		if (why == TMEM_END)
			dev->ending = true;
		spin_unlock_irq(&q->lock);
	}
	tmem_compat_reset_device(dev->vdev);
	for (i = 0; i < tmem_nr_queues(dev); i++) {
		struct tmem_queue *q = &dev->queues[i];

		spin_lock_irq(&q->lock);
		queues |= !!q->vq;
		while (q->vq && virtqueue_detach_unused_buf(q->vq))
			;
		q->vq = NULL;
		q->nr_inflight = 0;
		q->unkicked = false;
		tmem_queue_sort(dev, q, &requests);
		spin_unlock_irq(&q->lock);
		while (atomic_read(&q->notifying))
			usleep_range(10, 100);
	}
	if (queues)
		dev->vdev->config->del_vqs(dev->vdev);
	mutex_unlock(&dev->reset);
	tmem_fail_list(&requests);
}

/*
 * A device that asks for a reset answers nothing any more.  What it was asked
 * fails, so that nobody waits, and the guest can be shut down.
 */
static void tmem_failure_work(struct work_struct *work)
{
	struct tmem_device *dev =
		container_of(work, struct tmem_device, failure_work);

	if (!tmem_has_failed(dev))
		return;
	/* A kernel that shuts down breaks the rings itself. */
	if (system_state == SYSTEM_RUNNING)
		dev_err(&dev->vdev->dev,
			"the device has failed: all requests fail until the driver is loaded again\n");
	tmem_take_back(dev, TMEM_FAIL);
}

static void tmem_end_work(struct work_struct *work)
{
	struct tmem_device *dev = container_of(to_delayed_work(work),
					       struct tmem_device, end);

	tmem_take_back(dev, TMEM_FAIL);
}

static void tmem_free_device(struct tmem_device *dev)
{
	tmem_request_destroy(&dev->ctl);
	bitmap_free(dev->pools);
	kfree(dev->pool_flags);
	kfree(dev->queues);
	kfree(dev);
}

static int tmem_probe(struct virtio_device *vdev)
{
	struct tmem_device *dev;
	int rc, i;

	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	vdev->priv = dev;
	dev->vdev = vdev;
	mutex_init(&dev->control);
	mutex_init(&dev->reset);
	INIT_DELAYED_WORK(&dev->config_work, tmem_config_work);
	INIT_WORK(&dev->failure_work, tmem_failure_work);
	INIT_DELAYED_WORK(&dev->watchdog, tmem_watchdog_work);
	INIT_DELAYED_WORK(&dev->retry, tmem_retry_work);
	INIT_DELAYED_WORK(&dev->end, tmem_end_work);

	rc = tmem_read_limits(dev);
	if (rc)
		goto out_free;
	rc = tmem_init_queues(dev);
	if (rc)
		goto out_free;
	rc = -ENOMEM;
	dev->pools = bitmap_zalloc(dev->max_pools, GFP_KERNEL);
	dev->pool_flags = kcalloc(dev->max_pools, sizeof(*dev->pool_flags),
				  GFP_KERNEL);
	if (!dev->pools || !dev->pool_flags ||
	    tmem_request_init(dev, &dev->ctl, GFP_KERNEL))
		goto out_take_back;
	dev->generation = tmem_read_generation(dev);
	virtio_device_ready(vdev);

	/* Whatever an earlier kernel put, and did not live to flush. */
	mutex_lock(&dev->control);
	rc = tmem_control(dev, VIRTIO_TMEM_OP_RESET_ALL, 0, 0, 0);
	mutex_unlock(&dev->control);
	if (rc) {
		dev_err(&vdev->dev, "the device refused to be emptied: error %d\n",
			rc);
		goto out_take_back;
	}

	mutex_lock(&tmem_devices_lock);
	list_add_tail(&dev->link, &tmem_devices);
	for (i = 0; i < TMEM_MAX_CLIENTS; i++)
		if (tmem_clients[i])
			tmem_client_add(tmem_clients[i], dev);
	mutex_unlock(&tmem_devices_lock);
	if (tmem_has_persistent(dev))
		request_module_nowait("tmem_swap");
	return 0;

out_take_back:
	tmem_take_back(dev, TMEM_FAIL);
	cancel_work_sync(&dev->failure_work);
	cancel_delayed_work_sync(&dev->config_work);
	cancel_delayed_work_sync(&dev->watchdog);
	cancel_delayed_work_sync(&dev->retry);
out_free:
	vdev->priv = NULL;
	tmem_free_device(dev);
	return rc;
}

static void tmem_remove(struct virtio_device *vdev)
{
	struct tmem_device *dev = vdev->priv;
	int i;

	/* No change of the configuration is announced any more. */
	cancel_work_sync(&dev->failure_work);
	/* Before anything that could wait for a request. */
	tmem_take_back(dev, TMEM_FAIL);

	mutex_lock(&tmem_devices_lock);
	list_del(&dev->link);
	for (i = 0; i < TMEM_MAX_CLIENTS; i++)
		if (tmem_clients[i])
			tmem_client_remove(tmem_clients[i], dev);
	mutex_unlock(&tmem_devices_lock);
	/* Not before the clients are through with submitting and polling. */
	cancel_delayed_work_sync(&dev->end);
	cancel_work_sync(&dev->failure_work);
	cancel_delayed_work_sync(&dev->config_work);
	cancel_delayed_work_sync(&dev->watchdog);
	cancel_delayed_work_sync(&dev->retry);
	tmem_free_device(dev);
}

#ifdef CONFIG_PM_SLEEP
/* Pools outlive the device's reset; requests wait for tmem_restore(). */
static int tmem_freeze(struct virtio_device *vdev)
{
	struct tmem_device *dev = vdev->priv;

	/* No change of the configuration is announced any more. */
	cancel_work_sync(&dev->failure_work);
	/*
	 * tmem_config_work() may be waiting for requests, and must not read the
	 * configuration of a device without power: every bit of it is 1 then,
	 * which looks like another generation.
	 */
	mutex_lock(&tmem_devices_lock);
	tmem_take_back(dev, TMEM_SUSPEND);
	mutex_unlock(&tmem_devices_lock);
	cancel_work_sync(&dev->failure_work);
	cancel_delayed_work_sync(&dev->watchdog);
	cancel_delayed_work_sync(&dev->retry);
	return 0;
}

static int tmem_restore(struct virtio_device *vdev)
{
	struct tmem_device *dev = vdev->priv;
	unsigned int i, max_segs = dev->max_segs;
	int rc;

	if (dev->broken)
		return 0;
	rc = tmem_find_queues(dev);
	/* Requests were built for the rings as they were. */
	if (!rc && dev->max_segs < max_segs)
		rc = -EINVAL;
	if (rc) {
		dev_err(&vdev->dev,
			"the device did not come back as it was: error %d; all requests fail\n",
			rc);
		tmem_take_back(dev, TMEM_FAIL);
		return rc;
	}
	virtio_device_ready(vdev);
	dev->restored = true;
	dev->suspended = false;
	for (i = 0; i < tmem_nr_queues(dev); i++)
		tmem_queue_reap(dev, &dev->queues[i], true);
	tmem_poll(dev);
	queue_work(tmem_wq, &dev->failure_work);
	mod_delayed_work(tmem_config_wq, &dev->config_work, 0);
	return 0;
}
#endif

static const struct virtio_device_id tmem_id_table[] = {
	{ VIRTIO_ID_TMEM, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, tmem_id_table);

static unsigned int tmem_features[] = {
	VIRTIO_TMEM_F_PERSISTENT,
	VIRTIO_TMEM_F_EPHEMERAL,
	VIRTIO_TMEM_F_EVENTS,
};

static struct virtio_driver tmem_driver = {
	.feature_table = tmem_features,
	.feature_table_size = ARRAY_SIZE(tmem_features),
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.driver.dev_groups = tmem_groups,
	/* Not by unbinding: pages in use would be lost. */
	.driver.suppress_bind_attrs = true,
	.id_table = tmem_id_table,
	.validate = tmem_validate,
	.probe = tmem_probe,
	.remove = tmem_remove,
	.config_changed = tmem_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = tmem_freeze,
	.restore = tmem_restore,
#endif
};

/*
 * The kernel ends, and tasks go on until it has: those that need a page from
 * here wait.  Newer kernels reset the device themselves a little later, and
 * would have them fail, init among them; older ones leave it running while the
 * next kernel starts.  After all others: they may need a page.
 */
static int tmem_reboot(struct notifier_block *nb, unsigned long event,
		       void *unused)
{
	struct tmem_device *dev;
	unsigned int tries = TMEM_REBOOT_TRIES;

	/* Who holds it may wait for a device that does not answer. */
	while (!mutex_trylock(&tmem_devices_lock)) {
		if (!tries--)
			return NOTIFY_DONE;
		msleep(20);
	}
	list_for_each_entry(dev, &tmem_devices, link) {
		if (tmem_is_broken(dev))
			continue;
		tmem_take_back(dev, TMEM_END);
		cancel_delayed_work(&dev->watchdog);
		queue_delayed_work(tmem_wq, &dev->end, TMEM_END_WAIT);
	}
	mutex_unlock(&tmem_devices_lock);
	return NOTIFY_DONE;
}

static struct notifier_block tmem_reboot_nb = {
	.notifier_call = tmem_reboot,
	.priority = INT_MIN,
};

static int __init tmem_init(void)
{
	int rc;

	BUILD_BUG_ON(offsetof(struct tmem_wire, page) !=
		     offsetof(struct tmem_wire, resp) +
		     sizeof(struct virtio_tmem_resp));
	tmem_wq = alloc_workqueue("virtio_tmem", WQ_MEM_RECLAIM | WQ_UNBOUND,
				  0);
	if (!tmem_wq)
		return -ENOMEM;
	rc = -ENOMEM;
	tmem_config_wq = alloc_workqueue("virtio_tmem_config", WQ_UNBOUND, 0);
	if (!tmem_config_wq)
		goto out_wq;
	rc = register_reboot_notifier(&tmem_reboot_nb);
	if (rc)
		goto out_config_wq;
	rc = register_virtio_driver(&tmem_driver);
	if (rc)
		goto out_reboot;
	return 0;

out_reboot:
	unregister_reboot_notifier(&tmem_reboot_nb);
out_config_wq:
	destroy_workqueue(tmem_config_wq);
out_wq:
	destroy_workqueue(tmem_wq);
	return rc;
}
module_init(tmem_init);

static void __exit tmem_exit(void)
{
	unregister_virtio_driver(&tmem_driver);
	unregister_reboot_notifier(&tmem_reboot_nb);
	destroy_workqueue(tmem_config_wq);
	destroy_workqueue(tmem_wq);
}
module_exit(tmem_exit);

MODULE_SOFTDEP("post: tmem_swap");
MODULE_DESCRIPTION("Virtio transcendent memory driver");
MODULE_LICENSE("GPL");
