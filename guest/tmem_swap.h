/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A swap disk in transcendent memory: what its files share
 *
 * tmem_swap_main.c	the module, a disk's life, statistics
 * tmem_swap_io.c	bios become requests
 * tmem_swap_slots.c	which slots the device holds, and which it shall forget
 */
#ifndef _TMEM_SWAP_H
#define _TMEM_SWAP_H

#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/swap.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "tmem.h"
#include "tmem_compat.h"

#define SECTORS_PER_SLOT	(PAGE_SIZE >> SECTOR_SHIFT)
/* Requests for I/O; a notification's worth of large ones. */
#define TMEM_SWAP_REQUESTS	16
/* Ranges that are flushed at a time. */
#define TMEM_SWAP_FLUSHES	8

enum tmem_swap_stat {
	TMEM_SWAP_READS,	/* slots read from the device */
	TMEM_SWAP_ZERO_READS,	/* absent slots read */
	TMEM_SWAP_WRITES,	/* slots written to the device */
	TMEM_SWAP_REFUSALS,	/* slots that the device refused for good */
	TMEM_SWAP_RETRIES,	/* requests tried again after a refusal */
	TMEM_SWAP_KSWAPD_WAITS,	/* writes that kswapd waited with */
	TMEM_SWAP_FLUSHED,	/* slots flushed */
	TMEM_SWAP_FREED,	/* slots freed by swap */
	TMEM_SWAP_DISCARDED,	/* slots discarded or zeroed by block requests */
	TMEM_SWAP_LOST,		/* present slots that the device did not have */
	TMEM_SWAP_ERRORS,	/* slots whose request failed as a whole */
	TMEM_SWAP_SPOILT_READS,	/* slots read whose last write did not succeed */
	TMEM_SWAP_PUTS,		/* write requests */
	TMEM_SWAP_GETS,		/* read requests */
	TMEM_SWAP_NR_STATS,
};

/* What a slot reads as. */
enum tmem_swap_state {
	TMEM_SWAP_ABSENT,	/* zeros */
	TMEM_SWAP_PRESENT,	/* what the device holds */
	TMEM_SWAP_SPOILT,	/* an error */
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
 * Who reads looks at @present first, then at @spoilt.  Who takes a slot's page
 * away sets them in the opposite order: nobody sees zeros in between.
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
 * @sync:	no plugging
 * @pool:	on the device
 * @promised:	slots that the device promised when it was last asked
 * @nr_slots:	size of the disk
 * @present:	a bit per slot: the device accepted it
 * @pending:	a bit per slot: to be flushed
 * @spoilt:	a bit per slot: absent because a write over what it had was
 *		refused, or failed.  To read it is an error, until it is
 *		written or freed
 * @nr_present:	bits in @present
 * @nr_pending:	bits in @pending, about
 * @flush_failed: the device did not do all of the last flush
 * @closed_for:	jiffies that writes are refused without asking a full device;
 *		0: the last write was accepted.  See tmem_swap_closed_to_write()
 * @closed_until: when that ends
 * @header:	what block 0 reads as until it is written
 * @header_written: block 0 is as any other
 * @lock:	protects @flushes, @free, @refused, @queued; see above
 * @flushes:	ranges that are being flushed
 * @free:	requests that are not in use
 * @refused:	requests to try again after a flush
 * @queued:	bios whose submitter could not sleep
 * @wait_io:	for @free
 * @wait_flush:	for a range in @flushes to end
 * @flush_wq:	for @flush_work, also when memory is short
 * @send_wq:	for @send_work; not the same, for that may wait for a request
 *		which waits for @flush_work, and a workqueue's rescuer is one
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
	bool sync;
	u32 pool;
	u64 promised;
	unsigned long nr_slots;
	unsigned long *present;
	unsigned long *pending;
	unsigned long *spoilt;
	atomic_long_t nr_present;
	atomic_long_t nr_pending;
	bool flush_failed;
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
	struct workqueue_struct *flush_wq;
	struct workqueue_struct *send_wq;
	struct delayed_work flush_work;
	struct work_struct send_work;

	struct tmem_swap_io ios[TMEM_SWAP_REQUESTS];
	atomic_long_t stats[TMEM_SWAP_NR_STATS];
};

static inline void tmem_swap_count(struct tmem_swap *swap,
				   enum tmem_swap_stat stat, long n)
{
	atomic_long_add(n, &swap->stats[stat]);
}

/* --- tmem_swap_slots.c --- */

void tmem_swap_set_present(struct tmem_swap *swap, unsigned long slot);
bool tmem_swap_clear_present(struct tmem_swap *swap, unsigned long slot);
bool tmem_swap_forget(struct tmem_swap *swap, unsigned long slot);
bool tmem_swap_spoil(struct tmem_swap *swap, unsigned long slot);
void tmem_swap_abandon(struct tmem_swap *swap, unsigned long slot);
enum tmem_swap_state tmem_swap_look(struct tmem_swap *swap, unsigned long slot);
unsigned long tmem_swap_discard_slots(struct tmem_swap *swap,
				      unsigned long first, unsigned long nr);
void tmem_swap_slot_free_notify(struct block_device *bdev, unsigned long slot);

void tmem_swap_claim(struct tmem_swap *swap, unsigned long first,
		     unsigned long nr);
bool tmem_swap_flushing(struct tmem_swap *swap, unsigned long first,
			unsigned long nr);
void tmem_swap_schedule_flush(struct tmem_swap *swap);
void tmem_swap_flush_work(struct work_struct *work);

bool tmem_swap_closed_to_write(struct tmem_swap *swap, struct page *page);
void tmem_swap_close(struct tmem_swap *swap);
void tmem_swap_open_up(struct tmem_swap *swap);
void tmem_swap_refuse(struct tmem_swap *swap, unsigned long slot,
		      unsigned long nr);

/* --- tmem_swap_io.c --- */

TMEM_SUBMIT_BIO_TYPE tmem_swap_submit_bio(struct bio *bio);
#ifdef TMEM_HAVE_RW_PAGE
int tmem_swap_rw_page(struct block_device *bdev, sector_t sector,
		      struct page *page, TMEM_RW_PAGE_OP op);
#endif
void tmem_swap_send_work(struct work_struct *work);
void tmem_swap_done(struct tmem_request *req);
void tmem_swap_retry(struct tmem_swap *swap);
void tmem_swap_end_refused(struct tmem_swap *swap);

#endif /* _TMEM_SWAP_H */
