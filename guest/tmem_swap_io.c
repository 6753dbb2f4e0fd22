// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A swap disk in transcendent memory: bios become requests
 *
 * Everything here runs while memory is being reclaimed.  Requests are allocated
 * with the disk; who finds none sleeps until one is done.
 */

#include <linux/highmem.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "tmem_swap.h"

/* Bios that one task submits together, on their way into requests. */
struct tmem_swap_batch {
	struct tmem_swap *swap;
	struct tmem_swap_io *io;	/* being filled */
};

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
	/* Within the lock: tmem_swap_remove() may free @swap after it. */
	wake_up(&swap->wait_io);
	spin_unlock_irqrestore(&swap->lock, flags);
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
		if (io->req.op == VIRTIO_TMEM_OP_PUT)
			tmem_swap_abandon(swap, slot);
		tmem_swap_count(swap, TMEM_SWAP_ERRORS, 1);
		return error;
	}
	error = tmem_page_error(&io->req, i);
	if (io->req.op == VIRTIO_TMEM_OP_GET) {
		enum tmem_swap_state state = tmem_swap_look(swap, slot);

		if (error == -ENOENT && state == TMEM_SWAP_SPOILT)
			return -EIO;
		if (error == -ENOENT && state == TMEM_SWAP_ABSENT) {
			/*
			 * Freed or discarded while it was being read.  With two
			 * faults on a page, Linux before 6.8 does that.
			 */
			sg_zero_buffer(io->req.sg, io->req.nr_sg, PAGE_SIZE,
				       i * PAGE_SIZE);
			tmem_swap_count(swap, TMEM_SWAP_ZERO_READS, 1);
			return 0;
		}
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
	tmem_swap_spoil(swap, slot);
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
	/* See tmem_swap_abandon(). */
	if (io->req.error && io->req.op == VIRTIO_TMEM_OP_PUT &&
	    !READ_ONCE(swap->dead))
		tmem_swap_schedule_flush(swap);
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
	/* Once dead, flush_work sends nothing: see tmem_swap_end_refused(). */
	again = !READ_ONCE(swap->dead) && !READ_ONCE(swap->flush_failed) &&
		(atomic_long_read(&swap->nr_pending) ||
		 tmem_swap_flushing(swap, 0, swap->nr_slots));
	if (again) {
		list_add_tail(&io->link, &swap->refused);
		tmem_swap_count(swap, TMEM_SWAP_RETRIES, 1);
		/* Within the lock: once @refused is ended, @swap may be freed. */
		mod_delayed_work(swap->flush_wq, &swap->flush_work, 0);
	}
	spin_unlock_irqrestore(&swap->lock, flags);
	return again;
}

void tmem_swap_done(struct tmem_request *req)
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
void tmem_swap_retry(struct tmem_swap *swap)
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

/* What was refused and will not be sent again.  The disk is dead. */
void tmem_swap_end_refused(struct tmem_swap *swap)
{
	struct tmem_swap_io *io, *next;
	LIST_HEAD(refused);

	spin_lock_irq(&swap->lock);
	list_splice_init(&swap->refused, &refused);
	spin_unlock_irq(&swap->lock);
	list_for_each_entry_safe(io, next, &refused, link)
		tmem_swap_end_io(io);
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
	unsigned long flags;

	if (!atomic_dec_and_lock_irqsave(&swap->active, &swap->lock, flags))
		return;
	/* Within the lock: tmem_swap_remove() may free @swap after it. */
	wake_up(&swap->wait_idle);
	spin_unlock_irqrestore(&swap->lock, flags);
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
			if (op == VIRTIO_TMEM_OP_PUT) {
				tmem_swap_abandon(swap, slot);
				tmem_swap_schedule_flush(swap);
			}
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

static void tmem_swap_batch_read(struct tmem_swap_batch *batch,
				 unsigned long slot, struct bio *bio,
				 struct bvec_iter iter)
{
	switch (tmem_swap_look(batch->swap, slot)) {
	case TMEM_SWAP_PRESENT:
		tmem_swap_batch_add(batch, VIRTIO_TMEM_OP_GET, slot, bio, iter);
		break;
	case TMEM_SWAP_SPOILT:
		tmem_swap_count(batch->swap, TMEM_SWAP_SPOILT_READS, 1);
		bio->bi_status = BLK_STS_IOERR;
		break;
	case TMEM_SWAP_ABSENT:
		tmem_swap_read_absent_bio(batch->swap, slot, bio, iter);
	}
}

static void tmem_swap_batch_bio(struct tmem_swap_batch *batch, struct bio *bio)
{
	struct bvec_iter iter = bio->bi_iter;
	unsigned long slot = iter.bi_sector / SECTORS_PER_SLOT;
	bool write = op_is_write(bio_op(bio));

	for (; iter.bi_size; slot++) {
		if (write)
			tmem_swap_batch_add(batch, VIRTIO_TMEM_OP_PUT, slot,
					    bio, iter);
		else
			tmem_swap_batch_read(batch, slot, bio, iter);
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

void tmem_swap_send_work(struct work_struct *work)
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
		queue_work(swap->send_wq, &swap->send_work);
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
		if (tmem_swap_closed_to_write(swap, bio_page(bio))) {
			tmem_swap_refuse(swap, first, nr);
			bio_io_error(bio);
			tmem_swap_leave(swap);
			return;
		}
		tmem_swap_claim(swap, first, nr);
	}
	if (!swap->sync && tmem_swap_plug_bio(swap, bio))
		return;
	bio_list_add(&bios, bio);
	tmem_swap_send(swap, &bios);
}

static void tmem_swap_discard(struct tmem_swap *swap, struct bio *bio)
{
	unsigned long slot = bio->bi_iter.bi_sector / SECTORS_PER_SLOT;
	unsigned long nr = bio->bi_iter.bi_size / PAGE_SIZE;

	/* Zeros were written, or the disk is as new. */
	if (!slot)
		WRITE_ONCE(swap->header_written,
			   bio_op(bio) == REQ_OP_WRITE_ZEROES);
	tmem_swap_count(swap, TMEM_SWAP_DISCARDED,
			tmem_swap_discard_slots(swap, slot, nr));
	tmem_swap_schedule_flush(swap);
	bio_endio(bio);
	tmem_swap_leave(swap);
}

TMEM_SUBMIT_BIO_TYPE tmem_swap_submit_bio(struct bio *bio)
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
	enum tmem_swap_state state = tmem_swap_look(swap, slot);
	struct tmem_swap_io *io;
	int error;

	if (write) {
		if (tmem_swap_closed_to_write(swap, page)) {
			tmem_swap_refuse(swap, slot, 1);
			return -ENOSPC;
		}
		tmem_swap_claim(swap, slot, 1);
	} else if (state == TMEM_SWAP_SPOILT) {
		/* The caller tries again with a bio, which counts. */
		return -EIO;
	} else if (state == TMEM_SWAP_ABSENT) {
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
int tmem_swap_rw_page(struct block_device *bdev, sector_t sector,
		      struct page *page, TMEM_RW_PAGE_OP op)
{
	struct tmem_swap *swap = bdev->bd_disk->private_data;
	unsigned int noio;
	int error = -EIO;

	if (PageTransHuge(page))
		return -EOPNOTSUPP;
	/* Unlike that of a bio, nobody has looked at this. */
	if (sector % SECTORS_PER_SLOT ||
	    sector / SECTORS_PER_SLOT >= swap->nr_slots)
		return -EINVAL;
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
