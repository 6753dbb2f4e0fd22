// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A swap disk in transcendent memory: which slots the device holds, which it
 * shall forget, and when it is not asked to hold more
 *
 * A freed slot is flushed later, and never after a newer write of the same
 * slot: see struct tmem_swap.
 */

#include <linux/bitmap.h>
#include <linux/sched/mm.h>
#include <linux/swap.h>

#include "tmem_swap.h"

/* Most freed slots in one flush: bounds how long a write can wait for it. */
#define TMEM_SWAP_FLUSH_SLOTS	4096
/* How long freed slots are collected before the device hears of them. */
#define TMEM_SWAP_FLUSH_DELAY	(HZ / 50)
/* A collection of this many slots does not wait. */
#define TMEM_SWAP_FLUSH_NOW	1024
/* When to try again what the device did not flush. */
#define TMEM_SWAP_FLUSH_RETRY	HZ
/* How long, at most, a device that is full is not asked again. */
#define TMEM_SWAP_MAX_CLOSED	(HZ / 4)
/* How long, at most, kswapd waits for its turn to ask, */
#define TMEM_SWAP_MAX_KSWAPD_WAIT	HZ
/* and after how many rounds in which it has reclaimed nothing; it gives up after 16. */
#define TMEM_SWAP_KSWAPD_PATIENCE	4

/* --- slots --- */

/* The device has accepted a write of @slot. */
void tmem_swap_set_present(struct tmem_swap *swap, unsigned long slot)
{
	if (!slot)
		WRITE_ONCE(swap->header_written, true);
	if (!test_and_set_bit(slot, swap->present))
		atomic_long_inc(&swap->nr_present);
	clear_bit(slot, swap->spoilt);
}

bool tmem_swap_clear_present(struct tmem_swap *swap, unsigned long slot)
{
	if (!test_and_clear_bit(slot, swap->present))
		return false;
	atomic_long_dec(&swap->nr_present);
	return true;
}

static void tmem_swap_set_pending(struct tmem_swap *swap, unsigned long slot)
{
	if (!test_and_set_bit(slot, swap->pending))
		atomic_long_inc(&swap->nr_pending);
}

/*
 * The contents of a slot are of no use any more.  Any context, interrupts may
 * be off: only bits are set.  Absent first, so that nobody reads what is about
 * to be flushed.
 */
bool tmem_swap_forget(struct tmem_swap *swap, unsigned long slot)
{
	clear_bit(slot, swap->spoilt);
	if (!tmem_swap_clear_present(swap, slot))
		return false;
	tmem_swap_set_pending(swap, slot);
	return true;
}

/*
 * A write of @slot was refused, which takes away what was there.  If that was
 * anything, zeros in its place would be neither the old nor the new.  Returns
 * whether it was.
 */
bool tmem_swap_spoil(struct tmem_swap *swap, unsigned long slot)
{
	if (!test_bit(slot, swap->present))
		return false;
	set_bit(slot, swap->spoilt);
	smp_mb__after_atomic();	/* see struct tmem_swap */
	if (tmem_swap_clear_present(swap, slot)) {
		/* Another write may have succeeded, and cleared it. */
		set_bit(slot, swap->spoilt);
		return true;
	}
	/* Freed or discarded meanwhile. */
	clear_bit(slot, swap->spoilt);
	return false;
}

/*
 * A write of @slot failed as a whole: the device has the old page, the new one
 * or none.  It shall have none: tmem_swap_schedule_flush().
 */
void tmem_swap_abandon(struct tmem_swap *swap, unsigned long slot)
{
	tmem_swap_spoil(swap, slot);
	tmem_swap_set_pending(swap, slot);
}

/* Who writes sets present before it clears spoilt; for who takes away see above. */
enum tmem_swap_state tmem_swap_look(struct tmem_swap *swap, unsigned long slot)
{
	if (test_bit(slot, swap->present))
		return TMEM_SWAP_PRESENT;
	smp_rmb();	/* see struct tmem_swap */
	if (test_bit(slot, swap->spoilt))
		return TMEM_SWAP_SPOILT;
	smp_rmb();	/* or it was spoilt, and has been written since */
	return test_bit(slot, swap->present) ? TMEM_SWAP_PRESENT :
					       TMEM_SWAP_ABSENT;
}

/* Returns how many of @nr slots the device held. */
unsigned long tmem_swap_discard_slots(struct tmem_swap *swap,
				      unsigned long first, unsigned long nr)
{
	unsigned long slot, end = first + nr, held = 0;

	for (slot = first; ; slot++) {
		slot = find_next_bit(swap->spoilt, end, slot);
		if (slot >= end)
			break;
		clear_bit(slot, swap->spoilt);
	}
	for (slot = first; ; slot++) {
		slot = find_next_bit(swap->present, end, slot);
		if (slot >= end)
			break;
		held += tmem_swap_forget(swap, slot);
	}
	return held;
}

void tmem_swap_schedule_flush(struct tmem_swap *swap)
{
	long nr = atomic_long_read(&swap->nr_pending);

	if (nr && READ_ONCE(swap->flush_failed))
		queue_delayed_work(swap->flush_wq, &swap->flush_work,
				   TMEM_SWAP_FLUSH_RETRY);
	else if (nr >= TMEM_SWAP_FLUSH_NOW)
		mod_delayed_work(swap->flush_wq, &swap->flush_work, 0);
	else if (nr)
		queue_delayed_work(swap->flush_wq, &swap->flush_work,
				   TMEM_SWAP_FLUSH_DELAY);
}

bool tmem_swap_flushing(struct tmem_swap *swap, unsigned long first,
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
void tmem_swap_claim(struct tmem_swap *swap, unsigned long first,
		     unsigned long nr)
{
	wait_event(swap->wait_flush, tmem_swap_try_claim(swap, first, nr));
}

/* --- refusals --- */

/*
 * Reclaim knows of no disk that is full before its slots are used up: it comes
 * back with every page, again and again.  So a full device is not asked each
 * time.  It is asked as soon as a slot has been freed: what is within the
 * device's promise is not refused here.  When the time is over one write asks,
 * and the others wait for what becomes of it: refused, they would all have been.
 */
static bool tmem_swap_closed(struct tmem_swap *swap)
{
	unsigned long time = READ_ONCE(swap->closed_for);

	if (tmem_is_ending(swap->dev))
		return true;
	if (!time || (atomic_long_read(&swap->nr_pending) &&
		      !READ_ONCE(swap->flush_failed)))
		return false;
	if (time_before(jiffies, READ_ONCE(swap->closed_until)))
		return true;
	/* Two may ask at the same moment: it costs a request. */
	WRITE_ONCE(swap->closed_until, jiffies + time);
	return false;
}

/*
 * As above, for a write of @page; sleeps.  kswapd that reclaims nothing in 16
 * rounds leaves that to who allocates, and those who must not do I/O (a file
 * system that reads, in particular) then wait for ever, even if the device has
 * room again: nobody is left who swaps.  So kswapd that is about to give up does
 * not meet refusals at the speed of the CPU.  It waits until it is its turn to
 * ask.  As long as it finds something else to reclaim, files, it must not wait:
 * all who allocate would.
 */
bool tmem_swap_closed_to_write(struct tmem_swap *swap, struct page *page)
{
	unsigned long end = jiffies + TMEM_SWAP_MAX_KSWAPD_WAIT;

	if (!tmem_swap_closed(swap))
		return false;
	if (!current_is_kswapd() ||
	    tmem_compat_kswapd_failures(page) < TMEM_SWAP_KSWAPD_PATIENCE)
		return true;
	tmem_swap_count(swap, TMEM_SWAP_KSWAPD_WAITS, 1);
	do {
		if (tmem_is_ending(swap->dev) || READ_ONCE(swap->dead) ||
		    time_after(jiffies, end))
			return true;
		schedule_timeout_uninterruptible(1);
	} while (tmem_swap_closed(swap));
	return false;
}

void tmem_swap_close(struct tmem_swap *swap)
{
	unsigned long time = clamp_t(unsigned long,
				     2 * READ_ONCE(swap->closed_for), 1,
				     TMEM_SWAP_MAX_CLOSED);

	WRITE_ONCE(swap->closed_until, jiffies + time);
	WRITE_ONCE(swap->closed_for, time);
}

void tmem_swap_open_up(struct tmem_swap *swap)
{
	if (READ_ONCE(swap->closed_for))
		WRITE_ONCE(swap->closed_for, 0);
}

/*
 * Refuses a write of slots without asking.  As after a refusal by the device,
 * nothing is held of them.
 */
void tmem_swap_refuse(struct tmem_swap *swap, unsigned long slot,
		      unsigned long nr)
{
	tmem_swap_count(swap, TMEM_SWAP_REFUSALS, nr);
	for (; nr--; slot++)
		if (tmem_swap_spoil(swap, slot))
			tmem_swap_set_pending(swap, slot);
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

/*
 * Waits for @f.  The device may stop early: it is sent the rest.  What it does
 * not flush is pending again; returns whether that is nothing.
 */
static bool tmem_swap_wait_flush(struct tmem_swap *swap,
				 struct tmem_swap_flush *f)
{
	struct tmem_request *req = &f->req;
	unsigned long slot, rest, flags;

	wait_for_completion_io(&req->completion);
	while (!req->error && req->completed && req->completed < req->count) {
		req->index += req->completed;
		req->count -= req->completed;
		tmem_execute(req);
	}
	rest = req->error ? req->count : req->count - req->completed;
	tmem_swap_count(swap, TMEM_SWAP_FLUSHED, f->nr - rest);
	spin_lock_irqsave(&swap->lock, flags);
	/* Still absent: writes of them wait for this. */
	for (slot = req->index; slot < req->index + rest; slot++)
		tmem_swap_set_pending(swap, slot);
	f->nr = 0;
	spin_unlock_irqrestore(&swap->lock, flags);
	wake_up_all(&swap->wait_flush);
	return !rest;
}

/* Starts as many flushes as there can be.  Returns how many. */
static unsigned int tmem_swap_start_flushes(struct tmem_swap *swap,
					    unsigned long *cursor)
{
	unsigned int nr = 0;

	while (nr < TMEM_SWAP_FLUSHES && *cursor < swap->nr_slots) {
		struct tmem_swap_flush *f = &swap->flushes[nr];

		/* First: with nothing pending, writes would be refused. */
		tmem_swap_open_up(swap);
		if (!tmem_swap_take_pending(swap, f, cursor))
			continue;
		tmem_swap_submit_flush(f);
		nr++;
	}
	tmem_kick(swap->dev);
	tmem_poll(swap->dev);
	return nr;
}

/* Returns whether the device did it all. */
static bool tmem_swap_flush_pending(struct tmem_swap *swap)
{
	unsigned long cursor = 0;
	unsigned int i, nr;
	bool all = true;

	do {
		nr = tmem_swap_start_flushes(swap, &cursor);
		for (i = 0; i < nr; i++)
			all &= tmem_swap_wait_flush(swap, &swap->flushes[i]);
	} while (nr);
	return all;
}

/* The only one that uses swap->flushes: works do not run twice at a time. */
void tmem_swap_flush_work(struct work_struct *work)
{
	struct tmem_swap *swap = container_of(to_delayed_work(work),
					      struct tmem_swap, flush_work);
	unsigned int noio;
	bool all;

	if (READ_ONCE(swap->dead))
		return;
	noio = memalloc_noio_save();
	/* A device that is gone forgets all by itself. */
	all = !tmem_is_broken(swap->dev) && tmem_swap_flush_pending(swap);
	WRITE_ONCE(swap->flush_failed, !all);
	if (!all && !tmem_is_broken(swap->dev))
		tmem_swap_schedule_flush(swap);
	tmem_swap_retry(swap);
	memalloc_noio_restore(noio);
}

/* Spinlocks are held, and interrupts may be off. */
void tmem_swap_slot_free_notify(struct block_device *bdev,
				unsigned long slot)
{
	struct tmem_swap *swap = bdev->bd_disk->private_data;

	if (slot >= swap->nr_slots || !tmem_swap_forget(swap, slot))
		return;
	tmem_swap_count(swap, TMEM_SWAP_FREED, 1);
	if (!READ_ONCE(swap->dead))
		tmem_swap_schedule_flush(swap);
}
