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
 *  - So is, until it is written again or freed, a slot whose page was taken away
 *    by a write that was refused, or failed.
 *  - A refused write is an I/O error, after a second try: freed slots that the
 *    device was not told of yet are flushed first.  Since Linux 5.17 a failed
 *    swap write has no second choice, the page stays in RAM; so the disk is
 *    no larger than what the device promises to accept, unless it is forced.
 *  - A freed slot is flushed later, and never after a newer write of the same
 *    slot: see struct tmem_swap.
 *
 * I/O runs while memory is being reclaimed: what it takes is allocated with the
 * disk.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bitops.h>
#include <linux/idr.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <linux/vmalloc.h>

#include "tmem_swap.h"

/*
 * A disk's size in units of the guest's RAM, at most: with three bits of each
 * page in @present, @pending, @spoilt, and a byte that swapon takes, that is
 * 1/47 of it.
 */
#define TMEM_SWAP_MAX_RAMS	64

static unsigned int disksize_mb;
module_param(disksize_mb, uint, 0444);
MODULE_PARM_DESC(disksize_mb,
		 "Size of a disk in MiB (default: what the device promises to accept)");

static bool force;
module_param(force, bool, 0444);
MODULE_PARM_DESC(force,
		 "Allow a disk that is larger than what the device promises to accept: writes may fail (default: no)");

static bool sync;
module_param(sync, bool, 0444);
MODULE_PARM_DESC(sync,
		 "1: one page or folio at a time, no readahead, as zram; 0: requests of many pages, readahead (default: 0)");

static int tmem_swap_major;
static DEFINE_IDA(tmem_swap_ida);
/* Protects the list, gendisk.private_data, and openers, dead, gone of disks. */
static DEFINE_MUTEX(tmem_swap_mutex);
static LIST_HEAD(tmem_swap_list);

/* --- block device operations --- */

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
TMEM_SWAP_ATTR(kswapd_waits, TMEM_SWAP_KSWAPD_WAITS);
TMEM_SWAP_ATTR(flushed, TMEM_SWAP_FLUSHED);
TMEM_SWAP_ATTR(freed, TMEM_SWAP_FREED);
TMEM_SWAP_ATTR(discarded, TMEM_SWAP_DISCARDED);
TMEM_SWAP_ATTR(lost, TMEM_SWAP_LOST);
TMEM_SWAP_ATTR(errors, TMEM_SWAP_ERRORS);
TMEM_SWAP_ATTR(spoilt_reads, TMEM_SWAP_SPOILT_READS);
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
	&dev_attr_kswapd_waits.attr,
	&dev_attr_flushed.attr,
	&dev_attr_freed.attr,
	&dev_attr_discarded.attr,
	&dev_attr_lost.attr,
	&dev_attr_errors.attr,
	&dev_attr_spoilt_reads.attr,
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
	/* Slots may have been freed while the disk ended: again. */
	cancel_delayed_work_sync(&swap->flush_work);
	if (swap->flush_wq)
		destroy_workqueue(swap->flush_wq);
	if (swap->send_wq)
		destroy_workqueue(swap->send_wq);
	kfree(swap->header);
	vfree(swap->present);
	vfree(swap->pending);
	vfree(swap->spoilt);
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
	u64 promised = tmem_persistent_reserved(dev) >> PAGE_SHIFT;
	u64 slots = (u64)disksize_mb << (20 - PAGE_SHIFT) ?: promised;
	/* A swap header has 32 bits for the last page. */
	u64 most = min_t(u64, (u64)totalram_pages() * TMEM_SWAP_MAX_RAMS,
			 U32_MAX);

	if (slots > promised && !force) {
		dev_warn(tmem_parent(dev),
			 "disksize_mb=%u is more than the %llu MiB that the host promises: using those; force=1 has it anyway\n",
			 disksize_mb, promised >> (20 - PAGE_SHIFT));
		slots = promised;
	}
	if (slots > most) {
		dev_warn(tmem_parent(dev),
			 "a disk of %llu MiB would be more than %u times the RAM: using %llu MiB\n",
			 slots >> (20 - PAGE_SHIFT), TMEM_SWAP_MAX_RAMS,
			 most >> (20 - PAGE_SHIFT));
		slots = most;
	}
	return slots;
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
	swap->sync = sync;
	swap->promised = tmem_persistent_reserved(dev) >> PAGE_SHIFT;
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
	/* A want of memory is one line, of who calls this. */
	swap->present = __vmalloc(map_bytes,
				  GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);
	swap->pending = __vmalloc(map_bytes,
				  GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);
	swap->spoilt = __vmalloc(map_bytes,
				 GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);
	swap->header = kzalloc(PAGE_SIZE, GFP_KERNEL);
	swap->flush_wq = alloc_workqueue("tmem_swap_flush",
					 WQ_MEM_RECLAIM | WQ_UNBOUND, 1);
	swap->send_wq = alloc_workqueue("tmem_swap_send",
					WQ_MEM_RECLAIM | WQ_UNBOUND, 1);
	if (!swap->present || !swap->pending || !swap->spoilt ||
	    !swap->header || !swap->flush_wq || !swap->send_wq) {
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
		/*
		 * Linux before 6.10 leaves it to this limit that a bio's bytes
		 * fit into 32 bits, and cuts zeroing off otherwise.
		 */
		.max_write_zeroes_sectors = round_down(UINT_MAX >> SECTOR_SHIFT,
						       SECTORS_PER_SLOT),
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
	rc = ida_alloc_max(&tmem_swap_ida, MINORMASK, GFP_KERNEL);
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
	ida_free(&tmem_swap_ida, swap->index);
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
	/* See tmem_swap_leave(). */
	spin_lock_irq(&swap->lock);
	spin_unlock_irq(&swap->lock);
	wait_event(swap->wait_io, tmem_swap_all_free(swap));
	del_gendisk(disk);
	cancel_work_sync(&swap->send_work);

	if (!tmem_is_broken(dev))
		tmem_pool_destroy(dev, swap->pool);
	tmem_swap_free_requests(swap);
	ida_free(&tmem_swap_ida, swap->index);

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
static int tmem_swap_lost(struct tmem_device *dev)
{
	struct tmem_swap *swap = tmem_get_drvdata(dev, &tmem_swap_client);

	return tmem_pool_renew(dev, swap->pool);
}

/* The disk stays as large as it was: what the host may refuse is told. */
static void tmem_swap_limits(struct tmem_device *dev)
{
	struct tmem_swap *swap = tmem_get_drvdata(dev, &tmem_swap_client);
	u64 promised = tmem_persistent_reserved(dev) >> PAGE_SHIFT;

	if (promised < swap->promised && promised < swap->nr_slots)
		dev_warn_ratelimited(tmem_parent(dev),
				     "tmem%u: the host promises %llu MiB now, less than the disk's %lu: it may refuse writes\n",
				     swap->index,
				     promised >> (20 - PAGE_SHIFT),
				     swap->nr_slots >> (20 - PAGE_SHIFT));
	swap->promised = promised;
}

static struct tmem_client tmem_swap_client = {
	.name = "tmem_swap",
	.add = tmem_swap_add,
	.lost = tmem_swap_lost,
	.limits = tmem_swap_limits,
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
		long pages = atomic_long_read(&swap->nr_present);

		/* Memory is swapped out to make room for the image. */
		if (!pages && !swap->openers)
			continue;
		dev_err(tmem_parent(swap->dev),
			"tmem%u: no hibernation while the disk is %s: swapoff /dev/tmem%u, or discard it, first\n",
			swap->index, swap->openers ? "open" : "not empty",
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
