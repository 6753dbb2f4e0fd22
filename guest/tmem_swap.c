// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A swap disk in transcendent memory: /dev/tmemN
 *
 * Slot n of the disk is index n of object N in a persistent pool.  The disk
 * needs no mkswap: block 0 answers with a swap header until it is written.
 *
 * What is promised:
 *
 *  - A bit per slot, @present, says what the device holds.  A read of an absent
 *    slot is zeros, without a request.  A present slot that the device does not
 *    return is an I/O error, never zeros.
 *  - A refused write is an I/O error, after a second try: freed slots that the
 *    device was not told of yet are flushed first.  Since Linux 5.17 a failed
 *    swap write has no second choice, the page stays in RAM; so the disk is
 *    no larger than what the device promises to accept, unless it is forced.
 *  - A freed slot is flushed later, and never after a newer write of the same
 *    slot: see struct tmem_swap.
 *
 * Everything here runs while memory is being reclaimed.  Requests are allocated
 * with the disk; who finds none sleeps until one is done.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/bitmap.h>
#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/idr.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/swap.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "tmem.h"
#include "tmem_compat.h"

#define SECTORS_PER_SLOT	(PAGE_SIZE >> SECTOR_SHIFT)
/* Requests for I/O; a notification's worth of large ones. */
#define TMEM_SWAP_REQUESTS	16
/* Ranges that are flushed at a time. */
#define TMEM_SWAP_FLUSHES	8
/* Most freed slots in one flush: bounds how long a write can wait for it. */
#define TMEM_SWAP_FLUSH_SLOTS	4096
/* How long freed slots are collected before the device hears of them. */
#define TMEM_SWAP_FLUSH_DELAY	(HZ / 50)
/* A collection of this many slots does not wait. */
#define TMEM_SWAP_FLUSH_NOW	1024
/* How long, at most, a device that is full is not asked again. */
#define TMEM_SWAP_MAX_CLOSED	(HZ / 4)

static unsigned int disksize_mb;
module_param(disksize_mb, uint, 0444);
MODULE_PARM_DESC(disksize_mb,
		 "Size of a disk in MiB (default: what the device promises to accept)");

static bool force;
module_param(force, bool, 0444);
MODULE_PARM_DESC(force,
		 "Allow a disk that is larger than what the device promises to accept: writes may fail (default: no)");

static bool sync = true;
module_param(sync, bool, 0444);
MODULE_PARM_DESC(sync,
		 "1: one page or folio at a time, no readahead, as zram; 0: requests of many pages, readahead (default: 1)");

enum tmem_swap_stat {
	TMEM_SWAP_READS,	/* slots read from the device */
	TMEM_SWAP_ZERO_READS,	/* absent slots read */
	TMEM_SWAP_WRITES,	/* slots written to the device */
	TMEM_SWAP_REFUSALS,	/* slots that the device refused for good */
	TMEM_SWAP_RETRIES,	/* requests tried again after a refusal */
	TMEM_SWAP_FLUSHED,	/* slots flushed */
	TMEM_SWAP_FREED,	/* slots freed by swap */
	TMEM_SWAP_DISCARDED,	/* slots discarded or zeroed by block requests */
	TMEM_SWAP_LOST,		/* present slots that the device did not have */
	TMEM_SWAP_ERRORS,	/* slots whose request failed as a whole */
	TMEM_SWAP_PUTS,		/* write requests */
	TMEM_SWAP_GETS,		/* read requests */
	TMEM_SWAP_NR_STATS,
};

/* A run of slots of one bio within a request. */
struct tmem_swap_part {
	struct bio *bio;
	unsigned int nr;
};

struct tmem_swap;

/**
 * struct tmem_swap_io - a PUT or GET of consecutive slots
 * @req:	must be first
 * @swap:	the disk
 * @link:	in swap->free or swap->refused
 * @tried:	it was refused before
 * @nr_parts:	runs of slots, each of one bio, that it serves
 * @parts:	those, in order
 * @waiter:	completed when this is done, if there is no bio; whoever waits
 *		then puts this back
 * @error:	for @waiter
 */
struct tmem_swap_io {
	struct tmem_request req;
	struct tmem_swap *swap;
	struct list_head link;
	bool tried;
	unsigned int nr_parts;
	struct tmem_swap_part *parts;
	struct completion *waiter;
	int error;
};

/* Slots first .. first + nr - 1 are being flushed, if nr. */
struct tmem_swap_flush {
	struct tmem_request req;
	unsigned long first;
	unsigned long nr;
};

/**
 * struct tmem_swap - a disk
 *
 * A freed slot moves from @pending to a range in @flushes, under @lock, before
 * its flush is submitted.  A write clears @pending for its slots, under @lock,
 * and waits until no range of @flushes has one of them.  So a flush cannot
 * overtake, or be overtaken by, a newer write of the same slot.  Who frees a
 * slot only sets a bit: it may have interrupts off and must not wait.
 *
 * @link:	in tmem_swap_list
 * @dev:	the device; not to be used once @dead, but by who is @active
 * @disk:	its gendisk
 * @openers:	of the disk: they use this after the device is gone
 * @dead:	the device is gone or going
 * @gone:	the device's part of this is torn down; the last of the openers
 *		frees the rest
 * @active:	tasks, and bios not yet in a request, that use @dev
 * @wait_idle:	for @active to be 0
 * @index:	N of /dev/tmemN
 * @pool:	on the device
 * @nr_slots:	size of the disk
 * @present:	a bit per slot: the device accepted it
 * @pending:	a bit per slot: to be flushed
 * @nr_present:	bits in @present
 * @nr_pending:	bits in @pending, about
 * @closed_for:	jiffies that writes are refused without asking a full device;
 *		0: the last write was accepted.  See tmem_swap_closed()
 * @closed_until: when that ends
 * @header:	what block 0 reads as while it is absent
 * @header_written: block 0 is as any other
 * @lock:	protects @flushes, @free, @refused, @queued; see above
 * @flushes:	ranges that are being flushed
 * @free:	requests that are not in use
 * @refused:	requests to try again after a flush
 * @queued:	bios whose submitter could not sleep
 * @wait_io:	for @free
 * @wait_flush:	for a range in @flushes to end
 * @wq:		for the two works, also when memory is short
 * @flush_work:	flushes what is pending, then tries @refused again
 * @send_work:	sends @queued
 * @ios:	the requests
 * @stats:	see enum tmem_swap_stat
 */
struct tmem_swap {
	struct list_head link;
	struct tmem_device *dev;
	struct gendisk *disk;
	unsigned int openers;
	bool dead;
	bool gone;
	atomic_t active;
	wait_queue_head_t wait_idle;
	unsigned int index;
	u32 pool;
	unsigned long nr_slots;
	unsigned long *present;
	unsigned long *pending;
	atomic_long_t nr_present;
	atomic_long_t nr_pending;
	unsigned long closed_for;
	unsigned long closed_until;
	union swap_header *header;
	bool header_written;

	/* see above */
	spinlock_t lock;
	struct tmem_swap_flush flushes[TMEM_SWAP_FLUSHES];
	struct list_head free;
	struct list_head refused;
	struct bio_list queued;
	wait_queue_head_t wait_io;
	wait_queue_head_t wait_flush;
	struct workqueue_struct *wq;
	struct delayed_work flush_work;
	struct work_struct send_work;

	struct tmem_swap_io ios[TMEM_SWAP_REQUESTS];
	atomic_long_t stats[TMEM_SWAP_NR_STATS];
};

/* Bios that one task submits together, on their way into requests. */
struct tmem_swap_batch {
	struct tmem_swap *swap;
	struct tmem_swap_io *io;	/* being filled */
};

static int tmem_swap_major;
static DEFINE_IDA(tmem_swap_ida);
/* Protects the list, gendisk.private_data, and openers, dead, gone of disks. */
static DEFINE_MUTEX(tmem_swap_mutex);
static LIST_HEAD(tmem_swap_list);

static void tmem_swap_count(struct tmem_swap *swap, enum tmem_swap_stat stat,
			    long n)
{
	atomic_long_add(n, &swap->stats[stat]);
}

/* --- slots --- */

static void tmem_swap_set_present(struct tmem_swap *swap, unsigned long slot)
{
	if (!test_and_set_bit(slot, swap->present))
		atomic_long_inc(&swap->nr_present);
}

static bool tmem_swap_clear_present(struct tmem_swap *swap, unsigned long slot)
{
	if (!test_and_clear_bit(slot, swap->present))
		return false;
	atomic_long_dec(&swap->nr_present);
	return true;
}

/*
 * The contents of a slot are of no use any more.  Any context, interrupts may
 * be off: only bits are set.  Absent first, so that nobody reads what is about
 * to be flushed.
 */
static bool tmem_swap_forget(struct tmem_swap *swap, unsigned long slot)
{
	if (!tmem_swap_clear_present(swap, slot))
		return false;
	if (!test_and_set_bit(slot, swap->pending))
		atomic_long_inc(&swap->nr_pending);
	return true;
}

static void tmem_swap_schedule_flush(struct tmem_swap *swap)
{
	long nr = atomic_long_read(&swap->nr_pending);

	if (nr >= TMEM_SWAP_FLUSH_NOW)
		mod_delayed_work(swap->wq, &swap->flush_work, 0);
	else if (nr)
		queue_delayed_work(swap->wq, &swap->flush_work,
				   TMEM_SWAP_FLUSH_DELAY);
}

static bool tmem_swap_flushing(struct tmem_swap *swap, unsigned long first,
			       unsigned long nr)
{
	unsigned int i;

	lockdep_assert_held(&swap->lock);
	for (i = 0; i < TMEM_SWAP_FLUSHES; i++) {
		const struct tmem_swap_flush *f = &swap->flushes[i];

		if (f->nr && first < f->first + f->nr && f->first < first + nr)
			return true;
	}
	return false;
}

/* True when slots can be written: none of them will be flushed. */
static bool tmem_swap_try_claim(struct tmem_swap *swap, unsigned long first,
				unsigned long nr)
{
	unsigned long slot, flags;
	bool ok;

	spin_lock_irqsave(&swap->lock, flags);
	for (slot = first; slot < first + nr; slot++)
		if (test_and_clear_bit(slot, swap->pending))
			atomic_long_dec(&swap->nr_pending);
	ok = !tmem_swap_flushing(swap, first, nr);
	spin_unlock_irqrestore(&swap->lock, flags);
	return ok;
}

/* Before a write of slots.  Sleeps. */
static void tmem_swap_claim(struct tmem_swap *swap, unsigned long first,
			    unsigned long nr)
{
	wait_event(swap->wait_flush, tmem_swap_try_claim(swap, first, nr));
}

/* --- refusals --- */

/*
 * Reclaim knows of no disk that is full before its slots are used up: it comes
 * back with every page, again and again.  So a full device is not asked each
 * time.  It is asked as soon as a slot has been freed: what is within the
 * device's promise is not refused here.
 */
static bool tmem_swap_closed(struct tmem_swap *swap)
{
	return READ_ONCE(swap->closed_for) &&
	       time_before(jiffies, READ_ONCE(swap->closed_until)) &&
	       !atomic_long_read(&swap->nr_pending);
}

static void tmem_swap_close(struct tmem_swap *swap)
{
	unsigned long time = clamp_t(unsigned long,
				     2 * READ_ONCE(swap->closed_for), 1,
				     TMEM_SWAP_MAX_CLOSED);

	WRITE_ONCE(swap->closed_until, jiffies + time);
	WRITE_ONCE(swap->closed_for, time);
}

static void tmem_swap_open_up(struct tmem_swap *swap)
{
	if (READ_ONCE(swap->closed_for))
		WRITE_ONCE(swap->closed_for, 0);
}

/*
 * Refuses a write of slots without asking.  As after a refusal by the device,
 * nothing is held of them.
 */
static void tmem_swap_refuse(struct tmem_swap *swap, unsigned long slot,
			     unsigned long nr)
{
	tmem_swap_count(swap, TMEM_SWAP_REFUSALS, nr);
	while (nr--)
		tmem_swap_forget(swap, slot++);
	tmem_swap_schedule_flush(swap);
}

/* --- flushing --- */

/* Moves a run of pending slots to @f.  False if there is none from @*cursor. */
static bool tmem_swap_take_pending(struct tmem_swap *swap,
				   struct tmem_swap_flush *f,
				   unsigned long *cursor)
{
	unsigned long first, end, limit, flags;
	bool taken = false;

	first = find_next_bit(swap->pending, swap->nr_slots, *cursor);
	if (first >= swap->nr_slots) {
		*cursor = swap->nr_slots;
		return false;
	}
	limit = min(swap->nr_slots, first + TMEM_SWAP_FLUSH_SLOTS);
	spin_lock_irqsave(&swap->lock, flags);
	/* A write may have been quicker. */
	for (end = first; end < limit; end++) {
		if (!test_and_clear_bit(end, swap->pending))
			break;
		atomic_long_dec(&swap->nr_pending);
	}
	if (end > first) {
		f->first = first;
		f->nr = end - first;
		taken = true;
	}
	spin_unlock_irqrestore(&swap->lock, flags);
	*cursor = max(end, first + 1);
	return taken;
}

static void tmem_swap_submit_flush(struct tmem_swap_flush *f)
{
	struct tmem_request *req = &f->req;

	req->index = f->first;
	req->count = f->nr;
	reinit_completion(&req->completion);
	tmem_submit(req);
}

/* Waits for @f.  The device may stop early: it is sent the rest. */
static void tmem_swap_wait_flush(struct tmem_swap *swap,
				 struct tmem_swap_flush *f)
{
	struct tmem_request *req = &f->req;
	unsigned long flags;

	wait_for_completion_io(&req->completion);
	while (!req->error && req->completed && req->completed < req->count) {
		req->index += req->completed;
		req->count -= req->completed;
		tmem_execute(req);
	}
	if (!req->error)
		tmem_swap_count(swap, TMEM_SWAP_FLUSHED, f->nr);
	spin_lock_irqsave(&swap->lock, flags);
	f->nr = 0;
	spin_unlock_irqrestore(&swap->lock, flags);
	wake_up_all(&swap->wait_flush);
}

/* Starts as many flushes as there can be.  Returns how many. */
static unsigned int tmem_swap_start_flushes(struct tmem_swap *swap,
					    unsigned long *cursor)
{
	unsigned int nr = 0;

	while (nr < TMEM_SWAP_FLUSHES && *cursor < swap->nr_slots) {
		struct tmem_swap_flush *f = &swap->flushes[nr];

		if (!tmem_swap_take_pending(swap, f, cursor))
			continue;
		tmem_swap_open_up(swap);
		tmem_swap_submit_flush(f);
		nr++;
	}
	tmem_kick(swap->dev);
	tmem_poll(swap->dev);
	return nr;
}

static void tmem_swap_flush_pending(struct tmem_swap *swap)
{
	unsigned long cursor = 0;
	unsigned int i, nr;

	do {
		nr = tmem_swap_start_flushes(swap, &cursor);
		for (i = 0; i < nr; i++)
			tmem_swap_wait_flush(swap, &swap->flushes[i]);
	} while (nr);
}

static void tmem_swap_retry(struct tmem_swap *swap);

/* The only one that uses swap->flushes: works do not run twice at a time. */
static void tmem_swap_flush_work(struct work_struct *work)
{
	struct tmem_swap *swap = container_of(to_delayed_work(work),
					      struct tmem_swap, flush_work);
	unsigned int noio;

	if (READ_ONCE(swap->dead))
		return;
	noio = memalloc_noio_save();
	tmem_swap_flush_pending(swap);
	tmem_swap_retry(swap);
	memalloc_noio_restore(noio);
}

/* --- requests --- */

static struct tmem_swap_io *tmem_swap_try_get_io(struct tmem_swap *swap)
{
	struct tmem_swap_io *io;
	unsigned long flags;

	spin_lock_irqsave(&swap->lock, flags);
	io = list_first_entry_or_null(&swap->free, struct tmem_swap_io, link);
	if (io)
		list_del(&io->link);
	spin_unlock_irqrestore(&swap->lock, flags);
	return io;
}

/* Sleeps until there is one. */
static struct tmem_swap_io *tmem_swap_get_io(struct tmem_swap *swap, u16 op)
{
	struct tmem_swap_io *io = tmem_swap_try_get_io(swap);

	if (!io) {
		/* What is waited for may not have been announced yet. */
		tmem_kick(swap->dev);
		tmem_poll(swap->dev);
		wait_event(swap->wait_io, (io = tmem_swap_try_get_io(swap)));
	}
	io->req.op = op;
	io->req.count = 0;
	io->req.nr_sg = 0;
	io->nr_parts = 0;
	io->tried = false;
	io->error = 0;
	io->waiter = NULL;
	return io;
}

static void tmem_swap_put_io(struct tmem_swap_io *io)
{
	struct tmem_swap *swap = io->swap;
	unsigned long flags;

	spin_lock_irqsave(&swap->lock, flags);
	list_add(&io->link, &swap->free);
	spin_unlock_irqrestore(&swap->lock, flags);
	wake_up(&swap->wait_io);
}

static void tmem_swap_lost_page(struct tmem_swap *swap, unsigned long slot,
				int error)
{
	tmem_swap_count(swap, TMEM_SWAP_LOST, 1);
	dev_err_ratelimited(tmem_parent(swap->dev),
			    "tmem%u: the host cannot return slot %lu: error %d\n",
			    swap->index, slot, error);
}

/* What became of slot @i of @io: 0 or a negative errno. */
static int tmem_swap_end_slot(struct tmem_swap_io *io, unsigned int i)
{
	struct tmem_swap *swap = io->swap;
	unsigned long slot = io->req.index + i;
	int error = io->req.error;

	if (error) {
		tmem_swap_count(swap, TMEM_SWAP_ERRORS, 1);
		return error;
	}
	error = tmem_page_error(&io->req, i);
	if (io->req.op == VIRTIO_TMEM_OP_GET) {
		if (error) {
			tmem_swap_lost_page(swap, slot, error);
			return -EIO;
		}
		return 0;
	}
	if (!error) {
		tmem_swap_set_present(swap, slot);
		return 0;
	}
	/* The device has dropped what it had before. */
	tmem_swap_clear_present(swap, slot);
	tmem_swap_count(swap, TMEM_SWAP_REFUSALS, 1);
	return error;
}

static bool tmem_swap_was_refused(const struct tmem_swap_io *io)
{
	return io->req.op == VIRTIO_TMEM_OP_PUT && !io->req.error &&
	       io->req.completed < io->req.count;
}

static void tmem_swap_end_io(struct tmem_swap_io *io)
{
	struct tmem_swap *swap = io->swap;
	unsigned int p, i = 0;

	tmem_swap_count(swap, io->req.op == VIRTIO_TMEM_OP_GET ?
			TMEM_SWAP_READS : TMEM_SWAP_WRITES, io->req.completed);
	if (tmem_swap_was_refused(io))
		tmem_swap_close(swap);
	else if (io->req.op == VIRTIO_TMEM_OP_PUT)
		tmem_swap_open_up(swap);
	for (p = 0; p < io->nr_parts; p++) {
		struct tmem_swap_part *part = &io->parts[p];
		unsigned int end = i + part->nr;
		int error = 0;

		for (; i < end; i++) {
			int rc = tmem_swap_end_slot(io, i);

			error = error ?: rc;
		}
		if (!part->bio) {
			io->error = error;
			continue;
		}
		if (error)
			part->bio->bi_status = errno_to_blk_status(error);
		bio_endio(part->bio);
	}
	if (io->waiter)
		complete(io->waiter);
	else
		tmem_swap_put_io(io);
}

/*
 * A refused request waits for the flushes that make room, if there are any: it
 * is of no use to ask a full device twice.
 */
static bool tmem_swap_try_again(struct tmem_swap_io *io)
{
	struct tmem_swap *swap = io->swap;
	unsigned long flags;
	bool again;

	if (!tmem_swap_was_refused(io) || io->tried)
		return false;
	io->tried = true;
	spin_lock_irqsave(&swap->lock, flags);
	again = atomic_long_read(&swap->nr_pending) ||
		tmem_swap_flushing(swap, 0, swap->nr_slots);
	if (again)
		list_add_tail(&io->link, &swap->refused);
	spin_unlock_irqrestore(&swap->lock, flags);
	if (!again)
		return false;
	tmem_swap_count(swap, TMEM_SWAP_RETRIES, 1);
	mod_delayed_work(swap->wq, &swap->flush_work, 0);
	return true;
}

static void tmem_swap_done(struct tmem_request *req)
{
	struct tmem_swap_io *io = container_of(req, struct tmem_swap_io, req);

	if (!tmem_swap_try_again(io))
		tmem_swap_end_io(io);
}

static void tmem_swap_submit_io(struct tmem_swap_io *io)
{
	tmem_swap_count(io->swap, io->req.op == VIRTIO_TMEM_OP_GET ?
			TMEM_SWAP_GETS : TMEM_SWAP_PUTS, 1);
	tmem_submit(&io->req);
}

/* Sends again, once, what was refused before the flush that just ended. */
static void tmem_swap_retry(struct tmem_swap *swap)
{
	struct tmem_swap_io *io, *next;
	LIST_HEAD(refused);
	unsigned long flags;

	spin_lock_irqsave(&swap->lock, flags);
	list_splice_init(&swap->refused, &refused);
	spin_unlock_irqrestore(&swap->lock, flags);
	if (list_empty(&refused))
		return;
	list_for_each_entry_safe(io, next, &refused, link) {
		list_del_init(&io->link);
		tmem_swap_submit_io(io);
	}
	tmem_kick(swap->dev);
	tmem_poll(swap->dev);
}

/* --- data --- */

static bool tmem_swap_merges(struct tmem_swap *swap,
			     const struct scatterlist *last, struct page *page,
			     unsigned int offset, unsigned int len)
{
	return sg_phys((struct scatterlist *)last) + last->length ==
		       page_to_phys(page) + offset &&
	       last->length + len <= tmem_max_seg_bytes(swap->dev);
}

/* Appends data to a request.  False if it has no room for it. */
static bool tmem_swap_add_data(struct tmem_swap_io *io, struct page *page,
			       unsigned int offset, unsigned int len)
{
	struct tmem_request *req = &io->req;
	struct scatterlist *last;

	if (req->nr_sg) {
		last = &req->sg[req->nr_sg - 1];
		if (tmem_swap_merges(io->swap, last, page, offset, len)) {
			last->length += len;
			return true;
		}
	}
	if (req->nr_sg >= tmem_max_segs(io->swap->dev))
		return false;
	sg_set_page(&req->sg[req->nr_sg++], page, len, offset);
	return true;
}

/* Appends the slot's worth of @bio that @iter is at.  All of it, or nothing. */
static bool tmem_swap_add_slot(struct tmem_swap_io *io, struct bio *bio,
			       struct bvec_iter iter)
{
	struct tmem_request *req = &io->req;
	unsigned int nr_sg = req->nr_sg, left = PAGE_SIZE, len;
	unsigned int length = nr_sg ? req->sg[nr_sg - 1].length : 0;

	for (; left; left -= len) {
		struct bio_vec bv = bio_iter_iovec(bio, iter);

		len = min(bv.bv_len, left);
		if (!tmem_swap_add_data(io, bv.bv_page, bv.bv_offset, len)) {
			req->nr_sg = nr_sg;
			if (nr_sg)
				req->sg[nr_sg - 1].length = length;
			return false;
		}
		bio_advance_iter(bio, &iter, len);
	}
	return true;
}

/* Bytes @from .. @from + @len - 1 of an absent slot. */
static void tmem_swap_read_absent(struct tmem_swap *swap, unsigned long slot,
				  unsigned int from, struct page *page,
				  unsigned int offset, unsigned int len)
{
	char *to = kmap_atomic(page);

	if (!slot && !READ_ONCE(swap->header_written))
		memcpy(to + offset, (char *)swap->header + from, len);
	else
		memset(to + offset, 0, len);
	flush_dcache_page(page);
	kunmap_atomic(to);
}

static void tmem_swap_read_absent_bio(struct tmem_swap *swap,
				      unsigned long slot, struct bio *bio,
				      struct bvec_iter iter)
{
	unsigned int from = 0, len;

	for (; from < PAGE_SIZE; from += len) {
		struct bio_vec bv = bio_iter_iovec(bio, iter);

		len = min_t(unsigned int, bv.bv_len, PAGE_SIZE - from);
		tmem_swap_read_absent(swap, slot, from, bv.bv_page,
				      bv.bv_offset, len);
		bio_advance_iter(bio, &iter, len);
	}
	tmem_swap_count(swap, TMEM_SWAP_ZERO_READS, 1);
}

/* --- bios --- */

/*
 * Who has entered may use swap->dev.  Pairs with tmem_swap_remove(), which
 * sets dead and waits for active to be 0.
 */
static bool tmem_swap_enter(struct tmem_swap *swap)
{
	atomic_inc(&swap->active);
	smp_mb__after_atomic();	/* see above */
	return !READ_ONCE(swap->dead);
}

static void tmem_swap_leave(struct tmem_swap *swap)
{
	if (atomic_dec_and_test(&swap->active))
		wake_up(&swap->wait_idle);
}

static void tmem_swap_batch_send(struct tmem_swap_batch *batch)
{
	if (batch->io)
		tmem_swap_submit_io(batch->io);
	batch->io = NULL;
}

static void tmem_swap_batch_end(struct tmem_swap_batch *batch)
{
	tmem_swap_batch_send(batch);
	tmem_kick(batch->swap->dev);
	tmem_poll(batch->swap->dev);
}

/* The slot that @iter is at joins the request being filled, or begins one. */
static void tmem_swap_batch_add(struct tmem_swap_batch *batch, u16 op,
				unsigned long slot, struct bio *bio,
				struct bvec_iter iter)
{
	struct tmem_swap *swap = batch->swap;
	struct tmem_swap_io *io = batch->io;
	struct tmem_swap_part *part;

	if (io && (io->req.op != op || io->req.index + io->req.count != slot ||
		   io->req.count >= tmem_max_pages(swap->dev) ||
		   !tmem_swap_add_slot(io, bio, iter))) {
		tmem_swap_batch_send(batch);
		io = NULL;
	}
	if (!io) {
		io = tmem_swap_get_io(swap, op);
		io->req.index = slot;
		if (!tmem_swap_add_slot(io, bio, iter)) {
			/* Pieces too small for the device's longest chain. */
			bio->bi_status = BLK_STS_IOERR;
			tmem_swap_put_io(io);
			return;
		}
		batch->io = io;
	}
	io->req.count++;
	part = io->nr_parts ? &io->parts[io->nr_parts - 1] : NULL;
	if (!part || part->bio != bio) {
		part = &io->parts[io->nr_parts++];
		part->bio = bio;
		part->nr = 0;
		bio_inc_remaining(bio);
	}
	part->nr++;
}

static void tmem_swap_batch_bio(struct tmem_swap_batch *batch, struct bio *bio)
{
	struct tmem_swap *swap = batch->swap;
	struct bvec_iter iter = bio->bi_iter;
	unsigned long slot = iter.bi_sector / SECTORS_PER_SLOT;
	bool write = op_is_write(bio_op(bio));

	for (; iter.bi_size; slot++) {
		if (write)
			tmem_swap_batch_add(batch, VIRTIO_TMEM_OP_PUT, slot,
					    bio, iter);
		else if (test_bit(slot, swap->present))
			tmem_swap_batch_add(batch, VIRTIO_TMEM_OP_GET, slot,
					    bio, iter);
		else
			tmem_swap_read_absent_bio(swap, slot, bio, iter);
		bio_advance_iter(bio, &iter, PAGE_SIZE);
	}
	/* The submitter's reference; each part has one of its own. */
	bio_endio(bio);
}

/* Each of @bios has entered. */
static void tmem_swap_send(struct tmem_swap *swap, struct bio_list *bios)
{
	struct tmem_swap_batch batch = { .swap = swap };
	unsigned int noio = memalloc_noio_save();
	unsigned int nr = 0;
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		tmem_swap_batch_bio(&batch, bio);
		nr++;
	}
	tmem_swap_batch_end(&batch);
	memalloc_noio_restore(noio);
	while (nr--)
		tmem_swap_leave(swap);
}

static void tmem_swap_send_work(struct work_struct *work)
{
	struct tmem_swap *swap = container_of(work, struct tmem_swap,
					      send_work);
	struct bio_list bios;
	unsigned long flags;

	spin_lock_irqsave(&swap->lock, flags);
	bios = swap->queued;
	bio_list_init(&swap->queued);
	spin_unlock_irqrestore(&swap->lock, flags);
	tmem_swap_send(swap, &bios);
}

/* --- plugging, sync=0 --- */

struct tmem_swap_plug {
	struct blk_plug_cb cb;	/* must be first: allocated by the block layer */
	struct bio_list bios;
};

static void tmem_swap_unplug(struct blk_plug_cb *cb, bool from_schedule)
{
	struct tmem_swap_plug *plug = container_of(cb, struct tmem_swap_plug,
						   cb);
	struct tmem_swap *swap = cb->data;
	unsigned long flags;

	if (from_schedule) {
		/* This task is on its way to sleep: it cannot wait here. */
		spin_lock_irqsave(&swap->lock, flags);
		bio_list_merge(&swap->queued, &plug->bios);
		spin_unlock_irqrestore(&swap->lock, flags);
		queue_work(swap->wq, &swap->send_work);
	} else {
		tmem_swap_send(swap, &plug->bios);
	}
	kfree(plug);
}

/* Keeps @bio until the plug is pulled.  False if there is no plug. */
static bool tmem_swap_plug_bio(struct tmem_swap *swap, struct bio *bio)
{
	struct blk_plug_cb *cb;

	cb = blk_check_plugged(tmem_swap_unplug, swap,
			       sizeof(struct tmem_swap_plug));
	if (!cb)
		return false;
	/* A new one is all zeros, which is an empty list. */
	bio_list_add(&container_of(cb, struct tmem_swap_plug, cb)->bios, bio);
	return true;
}

/* --- block device operations --- */

static void tmem_swap_rw(struct tmem_swap *swap, struct bio *bio)
{
	unsigned long first = bio->bi_iter.bi_sector / SECTORS_PER_SLOT;
	unsigned long nr = bio->bi_iter.bi_size / PAGE_SIZE;
	struct bio_list bios = BIO_EMPTY_LIST;

	if (op_is_write(bio_op(bio)) && nr) {
		if (tmem_swap_closed(swap)) {
			tmem_swap_refuse(swap, first, nr);
			bio_io_error(bio);
			tmem_swap_leave(swap);
			return;
		}
		tmem_swap_claim(swap, first, nr);
		if (!first)
			WRITE_ONCE(swap->header_written, true);
	}
	if (!sync && tmem_swap_plug_bio(swap, bio))
		return;
	bio_list_add(&bios, bio);
	tmem_swap_send(swap, &bios);
}

static void tmem_swap_discard(struct tmem_swap *swap, struct bio *bio)
{
	unsigned long slot = bio->bi_iter.bi_sector / SECTORS_PER_SLOT;
	unsigned long end = slot + bio->bi_iter.bi_size / PAGE_SIZE;
	unsigned long nr = 0;

	/* Zeros were written, or the disk is as new. */
	if (!slot)
		WRITE_ONCE(swap->header_written,
			   bio_op(bio) == REQ_OP_WRITE_ZEROES);
	for (; slot < end; slot++) {
		slot = find_next_bit(swap->present, end, slot);
		if (slot >= end)
			break;
		nr += tmem_swap_forget(swap, slot);
	}
	tmem_swap_count(swap, TMEM_SWAP_DISCARDED, nr);
	tmem_swap_schedule_flush(swap);
	bio_endio(bio);
	tmem_swap_leave(swap);
}

static TMEM_SUBMIT_BIO_TYPE tmem_swap_submit_bio(struct bio *bio)
{
	struct tmem_swap *swap = tmem_compat_bio_disk(bio)->private_data;
	unsigned int noio = memalloc_noio_save();

	if (!tmem_swap_enter(swap) ||
	    bio->bi_iter.bi_sector % SECTORS_PER_SLOT ||
	    bio->bi_iter.bi_size % PAGE_SIZE) {
		bio_io_error(bio);
		tmem_swap_leave(swap);
		goto out;
	}
	switch (bio_op(bio)) {
	case REQ_OP_READ:
	case REQ_OP_WRITE:
		tmem_swap_rw(swap, bio);
		break;
	case REQ_OP_DISCARD:
	case REQ_OP_WRITE_ZEROES:
		tmem_swap_discard(swap, bio);
		break;
	default:
		/* What was written is as safe as it gets: nothing to flush. */
		if (bio_op(bio) != REQ_OP_FLUSH)
			bio->bi_status = BLK_STS_NOTSUPP;
		bio_endio(bio);
		tmem_swap_leave(swap);
	}
out:
	memalloc_noio_restore(noio);
	return TMEM_SUBMIT_BIO_RETURN;
}

#ifdef TMEM_HAVE_RW_PAGE
/* A page without a bio.  Sleeps until it is done; returns its error. */
static int tmem_swap_rw_one(struct tmem_swap *swap, unsigned long slot,
			    struct page *page, bool write)
{
	DECLARE_COMPLETION_ONSTACK(done);
	struct tmem_swap_io *io;
	int error;

	if (write) {
		if (tmem_swap_closed(swap)) {
			tmem_swap_refuse(swap, slot, 1);
			return -ENOSPC;
		}
		tmem_swap_claim(swap, slot, 1);
		if (!slot)
			WRITE_ONCE(swap->header_written, true);
	} else if (!test_bit(slot, swap->present)) {
		tmem_swap_read_absent(swap, slot, 0, page, 0, PAGE_SIZE);
		tmem_swap_count(swap, TMEM_SWAP_ZERO_READS, 1);
		return 0;
	}
	io = tmem_swap_get_io(swap, write ? VIRTIO_TMEM_OP_PUT :
					    VIRTIO_TMEM_OP_GET);
	io->req.index = slot;
	io->req.count = 1;
	tmem_swap_add_data(io, page, 0, PAGE_SIZE);
	io->parts[0].bio = NULL;
	io->parts[0].nr = 1;
	io->nr_parts = 1;
	io->waiter = &done;
	tmem_swap_submit_io(io);
	tmem_kick(swap->dev);
	tmem_poll(swap->dev);
	wait_for_completion_io(&done);
	error = io->error;
	tmem_swap_put_io(io);
	return error;
}

/* On an error the caller tries again with a bio: page_endio() is for success. */
static int tmem_swap_rw_page(struct block_device *bdev, sector_t sector,
			     struct page *page, TMEM_RW_PAGE_OP op)
{
	struct tmem_swap *swap = bdev->bd_disk->private_data;
	unsigned int noio;
	int error = -EIO;

	if (PageTransHuge(page))
		return -EOPNOTSUPP;
	if (tmem_swap_enter(swap)) {
		noio = memalloc_noio_save();
		error = tmem_swap_rw_one(swap, sector / SECTORS_PER_SLOT, page,
					 op_is_write(op));
		memalloc_noio_restore(noio);
	}
	tmem_swap_leave(swap);
	if (!error)
		page_endio(page, op_is_write(op), 0);
	return error;
}
#endif

/* Spinlocks are held, and interrupts may be off. */
static void tmem_swap_slot_free_notify(struct block_device *bdev,
				       unsigned long slot)
{
	struct tmem_swap *swap = bdev->bd_disk->private_data;

	if (slot >= swap->nr_slots || !tmem_swap_forget(swap, slot))
		return;
	tmem_swap_count(swap, TMEM_SWAP_FREED, 1);
	if (!READ_ONCE(swap->dead))
		tmem_swap_schedule_flush(swap);
}

static void tmem_swap_free(struct tmem_swap *swap);

static int tmem_swap_open(TMEM_OPEN_PARAMS)
{
	struct tmem_swap *swap;
	int rc = -ENXIO;

	mutex_lock(&tmem_swap_mutex);
	swap = TMEM_OPEN_DISK->private_data;
	if (swap && !swap->dead) {
		swap->openers++;
		rc = 0;
	}
	mutex_unlock(&tmem_swap_mutex);
	return rc;
}

static void tmem_swap_release(TMEM_RELEASE_PARAMS)
{
	struct tmem_swap *swap = disk->private_data;
	bool last;

	mutex_lock(&tmem_swap_mutex);
	last = !--swap->openers && swap->gone;
	if (last)
		disk->private_data = NULL;
	mutex_unlock(&tmem_swap_mutex);
	if (last)
		tmem_swap_free(swap);
}

#define TMEM_SWAP_FOPS						\
	.owner = THIS_MODULE,					\
	.open = tmem_swap_open,					\
	.release = tmem_swap_release,				\
	.submit_bio = tmem_swap_submit_bio,			\
	.swap_slot_free_notify = tmem_swap_slot_free_notify

static const struct block_device_operations tmem_swap_fops = {
	TMEM_SWAP_FOPS,
};

/* Where rw_page is, having it is what makes a disk synchronous. */
static const struct block_device_operations tmem_swap_sync_fops = {
	TMEM_SWAP_FOPS,
#ifdef TMEM_HAVE_RW_PAGE
	.rw_page = tmem_swap_rw_page,
#endif
};

/* --- sysfs: /sys/block/tmemN/tmem/ --- */

static struct tmem_swap *tmem_swap_of(struct device *d)
{
	return dev_to_disk(d)->private_data;
}

#define TMEM_SWAP_ATTR(name, stat)					\
static ssize_t name##_show(struct device *d,				\
			   struct device_attribute *attr, char *buf)	\
{									\
	return sysfs_emit(buf, "%ld\n",					\
			  atomic_long_read(&tmem_swap_of(d)->stats[stat])); \
}									\
static DEVICE_ATTR_RO(name)

TMEM_SWAP_ATTR(reads, TMEM_SWAP_READS);
TMEM_SWAP_ATTR(zero_reads, TMEM_SWAP_ZERO_READS);
TMEM_SWAP_ATTR(writes, TMEM_SWAP_WRITES);
TMEM_SWAP_ATTR(refusals, TMEM_SWAP_REFUSALS);
TMEM_SWAP_ATTR(retries, TMEM_SWAP_RETRIES);
TMEM_SWAP_ATTR(flushed, TMEM_SWAP_FLUSHED);
TMEM_SWAP_ATTR(freed, TMEM_SWAP_FREED);
TMEM_SWAP_ATTR(discarded, TMEM_SWAP_DISCARDED);
TMEM_SWAP_ATTR(lost, TMEM_SWAP_LOST);
TMEM_SWAP_ATTR(errors, TMEM_SWAP_ERRORS);
TMEM_SWAP_ATTR(put_requests, TMEM_SWAP_PUTS);
TMEM_SWAP_ATTR(get_requests, TMEM_SWAP_GETS);

static ssize_t present_show(struct device *d, struct device_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%ld\n",
			  atomic_long_read(&tmem_swap_of(d)->nr_present));
}
static DEVICE_ATTR_RO(present);

static ssize_t pending_show(struct device *d, struct device_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%ld\n",
			  atomic_long_read(&tmem_swap_of(d)->nr_pending));
}
static DEVICE_ATTR_RO(pending);

static struct attribute *tmem_swap_attrs[] = {
	&dev_attr_reads.attr,
	&dev_attr_zero_reads.attr,
	&dev_attr_writes.attr,
	&dev_attr_refusals.attr,
	&dev_attr_retries.attr,
	&dev_attr_flushed.attr,
	&dev_attr_freed.attr,
	&dev_attr_discarded.attr,
	&dev_attr_lost.attr,
	&dev_attr_errors.attr,
	&dev_attr_put_requests.attr,
	&dev_attr_get_requests.attr,
	&dev_attr_present.attr,
	&dev_attr_pending.attr,
	NULL
};

static const struct attribute_group tmem_swap_group = {
	.name = "tmem",
	.attrs = tmem_swap_attrs,
};

static const struct attribute_group *tmem_swap_groups[] = {
	&tmem_swap_group,
	NULL
};

/* --- making and ending a disk --- */

/* What outlives the device: what an open disk can still reach. */
static void tmem_swap_free(struct tmem_swap *swap)
{
	if (swap->wq)
		destroy_workqueue(swap->wq);
	kfree(swap->header);
	vfree(swap->present);
	vfree(swap->pending);
	kvfree(swap);
}

static void tmem_swap_free_requests(struct tmem_swap *swap)
{
	unsigned int i;

	for (i = 0; i < TMEM_SWAP_REQUESTS; i++) {
		tmem_request_destroy(&swap->ios[i].req);
		kfree(swap->ios[i].parts);
	}
	for (i = 0; i < TMEM_SWAP_FLUSHES; i++)
		tmem_request_destroy(&swap->flushes[i].req);
}

static int tmem_swap_init_request(struct tmem_swap *swap,
				  struct tmem_request *req)
{
	int rc = tmem_request_init(swap->dev, req, GFP_KERNEL);
	__le32 object = cpu_to_le32(swap->index);

	req->pool = swap->pool;
	memcpy(req->object, &object, sizeof(object));
	return rc;
}

static int tmem_swap_init_requests(struct tmem_swap *swap)
{
	unsigned int i;

	for (i = 0; i < TMEM_SWAP_REQUESTS; i++) {
		struct tmem_swap_io *io = &swap->ios[i];

		if (tmem_swap_init_request(swap, &io->req))
			return -ENOMEM;
		io->parts = kcalloc(tmem_max_pages(swap->dev),
				    sizeof(*io->parts), GFP_KERNEL);
		if (!io->parts)
			return -ENOMEM;
		io->req.done = tmem_swap_done;
		io->swap = swap;
		list_add(&io->link, &swap->free);
	}
	for (i = 0; i < TMEM_SWAP_FLUSHES; i++) {
		struct tmem_request *req = &swap->flushes[i].req;

		if (tmem_swap_init_request(swap, req))
			return -ENOMEM;
		req->op = VIRTIO_TMEM_OP_FLUSH;
	}
	return 0;
}

static unsigned long tmem_swap_choose_slots(struct tmem_device *dev)
{
	u64 promised = tmem_persistent_reserved(dev);
	u64 bytes = (u64)disksize_mb << 20 ?: promised;

	if (bytes > promised && !force) {
		dev_warn(tmem_parent(dev),
			 "disksize_mb=%u is more than the %llu MiB that the host promises: using those; force=1 has it anyway\n",
			 disksize_mb, promised >> 20);
		bytes = promised;
	}
	return bytes >> PAGE_SHIFT;
}

/* All but pool, requests and disk. */
static struct tmem_swap *tmem_swap_alloc(struct tmem_device *dev,
					 unsigned long nr_slots)
{
	size_t map_bytes = BITS_TO_LONGS(nr_slots) * sizeof(long);
	struct tmem_swap *swap;

	swap = kvzalloc(sizeof(*swap), GFP_KERNEL);
	if (!swap)
		return NULL;
	swap->dev = dev;
	swap->nr_slots = nr_slots;
	spin_lock_init(&swap->lock);
	INIT_LIST_HEAD(&swap->free);
	INIT_LIST_HEAD(&swap->refused);
	bio_list_init(&swap->queued);
	init_waitqueue_head(&swap->wait_io);
	init_waitqueue_head(&swap->wait_flush);
	init_waitqueue_head(&swap->wait_idle);
	INIT_DELAYED_WORK(&swap->flush_work, tmem_swap_flush_work);
	INIT_WORK(&swap->send_work, tmem_swap_send_work);
	swap->present = vzalloc(map_bytes);
	swap->pending = vzalloc(map_bytes);
	swap->header = kzalloc(PAGE_SIZE, GFP_KERNEL);
	/* Two works at most, and memory may be short. */
	swap->wq = alloc_workqueue("tmem_swap", WQ_MEM_RECLAIM | WQ_UNBOUND, 2);
	if (!swap->present || !swap->pending || !swap->header || !swap->wq) {
		tmem_swap_free(swap);
		return NULL;
	}
	return swap;
}

static void tmem_swap_make_header(struct tmem_swap *swap)
{
	union swap_header *header = swap->header;

	header->info.version = 1;
	header->info.last_page = swap->nr_slots - 1;
	snprintf(header->info.sws_volume, sizeof(header->info.sws_volume),
		 "tmem%u", swap->index);
	memcpy(header->magic.magic, "SWAPSPACE2", 10);
}

static int tmem_swap_add_disk(struct tmem_swap *swap)
{
	unsigned int max_pages = tmem_max_pages(swap->dev);
	struct tmem_disk_limits limits = {
		.max_discard_sectors = UINT_MAX,
		.io_opt = sync ? PAGE_SIZE : max_pages * PAGE_SIZE,
		.synchronous = sync,
		/* A slot in pieces of 512 bytes must fit into a request. */
		.dma_alignment = tmem_max_segs(swap->dev) >
				 PAGE_SIZE / SECTOR_SIZE ?
				 SECTOR_SIZE - 1 : PAGE_SIZE - 1,
	};
	struct gendisk *disk = tmem_compat_alloc_disk(&limits);
	int rc;

	if (!disk)
		return -ENOMEM;
	disk->major = tmem_swap_major;
	disk->first_minor = swap->index;
	disk->fops = sync ? &tmem_swap_sync_fops : &tmem_swap_fops;
	disk->private_data = swap;
	snprintf(disk->disk_name, sizeof(disk->disk_name), "tmem%u",
		 swap->index);
	set_capacity(disk, (sector_t)swap->nr_slots * SECTORS_PER_SLOT);
	swap->disk = disk;
	rc = tmem_compat_add_disk(tmem_parent(swap->dev), disk,
				  tmem_swap_groups);
	if (rc)
		tmem_compat_free_disk(disk);
	return rc;
}

static struct tmem_client tmem_swap_client;

static int tmem_swap_add(struct tmem_device *dev)
{
	unsigned long nr_slots;
	struct tmem_swap *swap;
	int rc;

	if (!tmem_has_persistent(dev))
		return 0;
	nr_slots = tmem_swap_choose_slots(dev);
	/* A swap header and one slot. */
	if (nr_slots < 2) {
		dev_info(tmem_parent(dev),
			 "no swap disk: the host promises no memory (tmem-store's reserved)\n");
		return 0;
	}
	swap = tmem_swap_alloc(dev, nr_slots);
	if (!swap)
		return -ENOMEM;
	rc = ida_simple_get(&tmem_swap_ida, 0, 1 << MINORBITS, GFP_KERNEL);
	if (rc < 0)
		goto out_free;
	swap->index = rc;
	rc = tmem_pool_create(dev, VIRTIO_TMEM_POOL_PERSISTENT);
	if (rc < 0)
		goto out_index;
	swap->pool = rc;
	rc = tmem_swap_init_requests(swap);
	if (rc)
		goto out_pool;
	tmem_swap_make_header(swap);
	tmem_set_drvdata(dev, &tmem_swap_client, swap);
	rc = tmem_swap_add_disk(swap);
	if (rc)
		goto out_pool;
	mutex_lock(&tmem_swap_mutex);
	list_add_tail(&swap->link, &tmem_swap_list);
	mutex_unlock(&tmem_swap_mutex);
	dev_info(tmem_parent(dev), "%s: %lu MiB of swap in the host's memory\n",
		 swap->disk->disk_name, nr_slots >> (20 - PAGE_SHIFT));
	return 0;

out_pool:
	tmem_set_drvdata(dev, &tmem_swap_client, NULL);
	tmem_swap_free_requests(swap);
	tmem_pool_destroy(dev, swap->pool);
out_index:
	ida_simple_remove(&tmem_swap_ida, swap->index);
out_free:
	tmem_swap_free(swap);
	return rc;
}

static bool tmem_swap_all_free(struct tmem_swap *swap)
{
	unsigned long flags;
	struct list_head *p;
	unsigned int nr = 0;

	spin_lock_irqsave(&swap->lock, flags);
	list_for_each(p, &swap->free)
		nr++;
	spin_unlock_irqrestore(&swap->lock, flags);
	return nr == TMEM_SWAP_REQUESTS;
}

/* What was refused and will not be sent again. */
static void tmem_swap_end_refused(struct tmem_swap *swap)
{
	struct tmem_swap_io *io, *next;
	LIST_HEAD(refused);

	spin_lock_irq(&swap->lock);
	list_splice_init(&swap->refused, &refused);
	spin_unlock_irq(&swap->lock);
	list_for_each_entry_safe(io, next, &refused, link)
		tmem_swap_end_io(io);
}

/*
 * Ends the disk.  Either nobody has it open (the module is being unloaded), or
 * the device is gone and every request fails.
 */
static void tmem_swap_remove(struct tmem_device *dev)
{
	struct tmem_swap *swap = tmem_get_drvdata(dev, &tmem_swap_client);
	struct gendisk *disk = swap->disk;
	bool last;

	mutex_lock(&tmem_swap_mutex);
	list_del(&swap->link);
	WRITE_ONCE(swap->dead, true);
	mutex_unlock(&tmem_swap_mutex);
	smp_mb(); /* pairs with tmem_swap_enter() */

	cancel_delayed_work_sync(&swap->flush_work);
	tmem_swap_end_refused(swap);
	wait_event(swap->wait_idle, !atomic_read(&swap->active));
	wait_event(swap->wait_io, tmem_swap_all_free(swap));
	del_gendisk(disk);
	cancel_work_sync(&swap->send_work);

	if (!tmem_is_broken(dev))
		tmem_pool_destroy(dev, swap->pool);
	tmem_swap_free_requests(swap);
	ida_simple_remove(&tmem_swap_ida, swap->index);

	mutex_lock(&tmem_swap_mutex);
	swap->gone = true;
	last = !swap->openers;
	if (last)
		disk->private_data = NULL;
	mutex_unlock(&tmem_swap_mutex);
	tmem_compat_free_disk(disk);
	if (last)
		tmem_swap_free(swap);
}

/* Reads of what was there will miss, and fail. */
static void tmem_swap_lost(struct tmem_device *dev)
{
	struct tmem_swap *swap = tmem_get_drvdata(dev, &tmem_swap_client);
	int rc = tmem_pool_renew(dev, swap->pool, VIRTIO_TMEM_POOL_PERSISTENT);

	if (rc)
		dev_err(tmem_parent(dev),
			"tmem%u: the host makes no new pool: error %d\n",
			swap->index, rc);
}

static struct tmem_client tmem_swap_client = {
	.name = "tmem_swap",
	.add = tmem_swap_add,
	.lost = tmem_swap_lost,
	.remove = tmem_swap_remove,
};

/* --- hibernation --- */

/* The image would come back without the pages that the host holds. */
static int tmem_swap_pm_notify(struct notifier_block *nb, unsigned long event,
			       void *unused)
{
	struct tmem_swap *swap;
	int rc = 0;

	if (event != PM_HIBERNATION_PREPARE)
		return NOTIFY_DONE;
	mutex_lock(&tmem_swap_mutex);
	list_for_each_entry(swap, &tmem_swap_list, link) {
		if (!atomic_long_read(&swap->nr_present))
			continue;
		dev_err(tmem_parent(swap->dev),
			"tmem%u: no hibernation while the host holds %ld pages: swapoff /dev/tmem%u first\n",
			swap->index, atomic_long_read(&swap->nr_present),
			swap->index);
		rc = -EBUSY;
	}
	mutex_unlock(&tmem_swap_mutex);
	return notifier_from_errno(rc);
}

static struct notifier_block tmem_swap_pm_nb = {
	.notifier_call = tmem_swap_pm_notify,
};

static int __init tmem_swap_init(void)
{
	int rc = register_blkdev(0, "tmem");

	if (rc < 0)
		return rc;
	tmem_swap_major = rc;
	rc = register_pm_notifier(&tmem_swap_pm_nb);
	if (rc)
		goto out_blkdev;
	rc = tmem_register_client(&tmem_swap_client);
	if (rc)
		goto out_pm;
	return 0;

out_pm:
	unregister_pm_notifier(&tmem_swap_pm_nb);
out_blkdev:
	unregister_blkdev(tmem_swap_major, "tmem");
	return rc;
}
module_init(tmem_swap_init);

static void __exit tmem_swap_exit(void)
{
	tmem_unregister_client(&tmem_swap_client);
	unregister_pm_notifier(&tmem_swap_pm_nb);
	unregister_blkdev(tmem_swap_major, "tmem");
	ida_destroy(&tmem_swap_ida);
}
module_exit(tmem_swap_exit);

MODULE_DESCRIPTION("Swap disk in transcendent memory");
MODULE_LICENSE("GPL");
