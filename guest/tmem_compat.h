/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One kernel's interface from another's: 5.10 to 7.x
 *
 * The only place that knows about kernels.  Distributions carry changes back,
 * so nothing here asks for a version: TMEM_HAVE_* come from Kbuild, which looks
 * into the headers that it compiles against.
 */
#ifndef _TMEM_COMPAT_H
#define _TMEM_COMPAT_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>

#ifdef TMEM_HAVE_GENHD
#include <linux/genhd.h>
#endif
#ifdef TMEM_HAVE_CC_PLATFORM
#include <linux/cc_platform.h>
#else
#include <linux/mem_encrypt.h>
#endif

/* --- virtio --- */

static inline void tmem_compat_reset_device(struct virtio_device *vdev)
{
#ifdef TMEM_HAVE_VIRTIO_RESET_DEVICE
	virtio_reset_device(vdev);
#else
	vdev->config->reset(vdev);
#endif
}

/* The same callback for each of @nr queues. */
static inline int tmem_compat_find_vqs(struct virtio_device *vdev,
				       unsigned int nr, struct virtqueue **vqs,
				       vq_callback_t *callback,
				       const char *const *names)
{
	unsigned int i;
	int rc;
#ifdef TMEM_HAVE_VIRTQUEUE_INFO
	struct virtqueue_info *info = kcalloc(nr, sizeof(*info), GFP_KERNEL);

	if (!info)
		return -ENOMEM;
	for (i = 0; i < nr; i++) {
		info[i].name = names[i];
		info[i].callback = callback;
	}
	rc = virtio_find_vqs(vdev, nr, vqs, info, NULL);
	kfree(info);
#else
	vq_callback_t **callbacks = kcalloc(nr, sizeof(*callbacks), GFP_KERNEL);

	if (!callbacks)
		return -ENOMEM;
	for (i = 0; i < nr; i++)
		callbacks[i] = callback;
	rc = virtio_find_vqs(vdev, nr, vqs, callbacks, names, NULL);
	kfree(callbacks);
#endif
	return rc;
}

/* --- reclaim --- */

/*
 * Rounds in which kswapd of @page's node has reclaimed nothing: since it last
 * did, or, on newer kernels, since the node had enough free memory.
 */
static inline int tmem_compat_kswapd_failures(const struct page *page)
{
#ifdef TMEM_HAVE_ATOMIC_FAILURES
	return atomic_read(&page_pgdat(page)->kswapd_failures);
#else
	return READ_ONCE(page_pgdat(page)->kswapd_failures);
#endif
}

/* --- memory encryption --- */

/* The host cannot read this guest's memory, unless it is handed out. */
static inline bool tmem_compat_memory_encrypted(void)
{
#ifdef TMEM_HAVE_CC_PLATFORM
	return cc_platform_has(CC_ATTR_GUEST_MEM_ENCRYPT);
#elif defined(CONFIG_AMD_MEM_ENCRYPT)
	return sev_active();
#else
	return mem_encrypt_active();
#endif
}

/* --- block: bios --- */

static inline struct gendisk *tmem_compat_bio_disk(struct bio *bio)
{
#ifdef TMEM_HAVE_BI_DISK
	return bio->bi_disk;
#else
	return bio->bi_bdev->bd_disk;
#endif
}

#ifdef TMEM_HAVE_SUBMIT_BIO_COOKIE
#define TMEM_SUBMIT_BIO_TYPE	blk_qc_t
#define TMEM_SUBMIT_BIO_RETURN	BLK_QC_T_NONE
#else
#define TMEM_SUBMIT_BIO_TYPE	void
#define TMEM_SUBMIT_BIO_RETURN
#endif

/* --- block: disks --- */

#ifdef TMEM_HAVE_BLK_MODE
#define TMEM_OPEN_PARAMS	struct gendisk *disk, blk_mode_t mode
#define TMEM_RELEASE_PARAMS	struct gendisk *disk
#define TMEM_OPEN_DISK		disk
#else
#define TMEM_OPEN_PARAMS	struct block_device *bdev, fmode_t mode
#define TMEM_RELEASE_PARAMS	struct gendisk *disk, fmode_t mode
#define TMEM_OPEN_DISK		(bdev->bd_disk)
#endif

#ifdef TMEM_HAVE_RW_PAGE_ENUM
#define TMEM_RW_PAGE_OP		enum req_op
#else
#define TMEM_RW_PAGE_OP		unsigned int
#endif

struct tmem_disk_limits {
	unsigned int max_discard_sectors;
	unsigned int max_write_zeroes_sectors;
	unsigned int dma_alignment;	/* mask */
	unsigned int io_opt;		/* bytes */
	bool synchronous;
};

#ifndef BLK_FEAT_SYNCHRONOUS
static inline void tmem_compat_set_limits(struct request_queue *q,
					  const struct tmem_disk_limits *l)
{
	blk_queue_logical_block_size(q, PAGE_SIZE);
	blk_queue_physical_block_size(q, PAGE_SIZE);
	blk_queue_io_min(q, PAGE_SIZE);
	blk_queue_io_opt(q, l->io_opt);
	blk_queue_dma_alignment(q, l->dma_alignment);
	blk_queue_max_discard_sectors(q, l->max_discard_sectors);
	blk_queue_max_write_zeroes_sectors(q, l->max_write_zeroes_sectors);
	q->limits.discard_granularity = PAGE_SIZE;
#ifdef QUEUE_FLAG_DISCARD
	blk_queue_flag_set(QUEUE_FLAG_DISCARD, q);
#endif
	blk_queue_flag_set(QUEUE_FLAG_NONROT, q);
	blk_queue_flag_set(QUEUE_FLAG_STABLE_WRITES, q);
#ifdef QUEUE_FLAG_ADD_RANDOM
	blk_queue_flag_clear(QUEUE_FLAG_ADD_RANDOM, q);
#endif
#ifdef QUEUE_FLAG_SYNCHRONOUS
	if (l->synchronous)
		blk_queue_flag_set(QUEUE_FLAG_SYNCHRONOUS, q);
#endif
}
#endif

/* A disk with its queue, or NULL. */
static inline struct gendisk *
tmem_compat_alloc_disk(const struct tmem_disk_limits *l)
{
	struct gendisk *disk;
#ifdef TMEM_HAVE_ALLOC_DISK_LIMITS
	struct queue_limits lim = {
		.logical_block_size = PAGE_SIZE,
		.physical_block_size = PAGE_SIZE,
		.io_min = PAGE_SIZE,
		.io_opt = l->io_opt,
		.dma_alignment = l->dma_alignment,
		.max_hw_discard_sectors = l->max_discard_sectors,
		.max_write_zeroes_sectors = l->max_write_zeroes_sectors,
		.discard_granularity = PAGE_SIZE,
#ifdef BLK_FEAT_SYNCHRONOUS
		.features = BLK_FEAT_STABLE_WRITES |
			    (l->synchronous ? BLK_FEAT_SYNCHRONOUS : 0),
#endif
	};

	disk = blk_alloc_disk(&lim, NUMA_NO_NODE);
	if (IS_ERR(disk))
		return NULL;
#elif defined(TMEM_HAVE_ALLOC_DISK)
	disk = blk_alloc_disk(NUMA_NO_NODE);
	if (!disk)
		return NULL;
#else
	struct request_queue *q = blk_alloc_queue(NUMA_NO_NODE);

	if (!q)
		return NULL;
	disk = alloc_disk(1);
	if (!disk) {
		blk_cleanup_queue(q);
		return NULL;
	}
	disk->queue = q;
#endif
#ifndef BLK_FEAT_SYNCHRONOUS
	tmem_compat_set_limits(disk->queue, l);
#endif
	disk->minors = 1;
#ifdef TMEM_HAVE_NO_PART
	disk->flags |= GENHD_FL_NO_PART;
#else
	disk->flags |= GENHD_FL_NO_PART_SCAN;
#endif
	return disk;
}

static inline int tmem_compat_add_disk(struct device *parent,
				       struct gendisk *disk,
				       const struct attribute_group **groups)
{
#ifdef TMEM_HAVE_ADD_DISK_ERROR
	return device_add_disk(parent, disk, groups);
#else
	device_add_disk(parent, disk, groups);
	return 0;
#endif
}

/* A disk that was never added. */
static inline void tmem_compat_free_disk(struct gendisk *disk)
{
#ifdef TMEM_HAVE_CLEANUP_DISK
	blk_cleanup_disk(disk);
#elif defined(TMEM_HAVE_ALLOC_DISK) || defined(TMEM_HAVE_ALLOC_DISK_LIMITS)
	put_disk(disk);
#else
	blk_cleanup_queue(disk->queue);
	put_disk(disk);
#endif
}

#endif /* _TMEM_COMPAT_H */
