/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Virtio transcendent memory device: the wire format
 *
 * This header is the only definition, for compilers, of what a virtio-tmem
 * driver and a virtio-tmem device say to each other; spec/virtio-tmem.tex says
 * what each of them must do, and where comments here are shorter, it holds.  The
 * Linux driver, the device models and the tests all use it; it is BSD licensed
 * so that anyone can.
 *
 * The model
 * ---------
 * The device owns memory that the driver cannot address.  The driver names
 * pages in it by a key (pool, object, index):
 *
 *   pool    a 32 bit number below config.max_pools, chosen by the driver.  A
 *           pool is persistent or ephemeral and has one page size.
 *   object  24 bytes, compared and never interpreted by the device: an inode,
 *           a swap disk.
 *   index   64 bits: the page's place within its object.
 *
 * A PUT copies pages to the device.  It may be refused, page by page, at any
 * time, also for a key that was accepted before; a refusal removes the copy
 * that the device held under that key, so an old page never comes back.  A GET
 * copies pages back.  A FLUSH forgets them.
 *
 * What was accepted into a *persistent* pool stays readable until it is
 * flushed, put again, or its pool ends.  Up to config.persistent_reserved
 * bytes, counted as the driver sees them, a put is refused only if the host
 * itself fails.  A page in an *ephemeral* pool may vanish at any time.
 *
 * Pools outlive driver reset, device reset by status 0, queue reset and
 * suspend.  They end by POOL_DESTROY, RESET_ALL, unplug, or a system reset.
 * A driver that does not resume pools of its own therefore sends RESET_ALL
 * before anything else.
 *
 * Requests
 * --------
 * A request is one descriptor chain.  Descriptor boundaries carry no meaning.
 *
 *   device-readable:  struct virtio_tmem_req
 *                     [PUT: count pages of data]
 *   device-writable:  struct virtio_tmem_resp
 *                     [PUT, GET: __le32 page[count]]
 *                     [GET: count pages of data]
 *
 * More device-readable bytes than that are INVAL; more device-writable ones are
 * left alone.  Fields that an op does not name are 0, else INVAL.
 *
 * All integers are little-endian.  VIRTIO_F_VERSION_1 is required.
 */
#ifndef _UAPI_LINUX_VIRTIO_TMEM_H
#define _UAPI_LINUX_VIRTIO_TMEM_H

#include <linux/types.h>

/*
 * Provisional and unassigned: the highest device ID that the virtio PCI
 * transport of Linux binds (PCI 1af4:107f).
 */
#ifndef VIRTIO_ID_TMEM
#define VIRTIO_ID_TMEM			63
#endif

/* --- virtio-tmem: feature bits --- */

/* The device has persistent pools. */
#define VIRTIO_TMEM_F_PERSISTENT	0
/* The device has ephemeral pools. */
#define VIRTIO_TMEM_F_EPHEMERAL		1
/* Reserved: pools shared between devices, granted by the host. */
#define VIRTIO_TMEM_F_SHARED		2
/* Reserved: pools of pages that the driver has encoded, never decoded. */
#define VIRTIO_TMEM_F_OPAQUE		3
/* Configuration interrupts announce changes of generation, pressure, limits. */
#define VIRTIO_TMEM_F_EVENTS		4

/* --- virtio-tmem: queues --- */

/*
 * config.num_fast queues that take GETs of up to VIRTIO_TMEM_FAST_PAGES pages
 * only, then config.num_bulk queues that take everything.  Requests are
 * ordered with one another only within a queue, or where the earlier one was
 * seen used before the later one was made available.
 */
#define VIRTIO_TMEM_FAST_PAGES		8

/* --- virtio-tmem: configuration space --- */

struct virtio_tmem_config {
	/*
	 * Changes whenever contents may have been lost or no longer belong to
	 * the driver's memory.  The driver then forgets what it put into
	 * ephemeral pools and fails reads of what it put into persistent ones.
	 */
	__le32 generation;
	/* VIRTIO_TMEM_PRESSURE_*: how short of memory the host is. */
	__le32 pressure;
	/* Numbers of queues of either class.  Cannot change. */
	__le16 num_fast;
	__le16 num_bulk;
	/* Pool numbers are smaller than this.  Cannot change. */
	__le32 max_pools;
	/* Most pages in one PUT or GET.  Cannot change. */
	__le32 max_pages;
	/*
	 * Most descriptors in one chain, those of an indirect table included.
	 * Cannot change.
	 */
	__le32 max_segs;
	/* Bit n set: pools of 2^n byte pages can be made.  Cannot change. */
	__le32 page_sizes;
	/* Reserved for VIRTIO_TMEM_F_OPAQUE: 0. */
	__le32 codecs;
	/* Bytes of persistent pages, as the driver sees them, that are kept. */
	__le64 persistent_reserved;
	/*
	 * Bytes of host memory that persistent pages beyond the reservation may
	 * take at most.
	 */
	__le64 persistent_max;
	/* Bytes of host memory that ephemeral pages may take at most. */
	__le64 ephemeral_max;
};

/* No shortage. */
#define VIRTIO_TMEM_PRESSURE_NONE	0
/* Stop putting pages that are cheap to get elsewhere. */
#define VIRTIO_TMEM_PRESSURE_LOW	1
/* Puts beyond the reservation are being refused. */
#define VIRTIO_TMEM_PRESSURE_MEDIUM	2
/* The host is failing: puts within the reservation may be refused too. */
#define VIRTIO_TMEM_PRESSURE_CRITICAL	3

/* Page sizes that config.page_sizes and pool creation can name: 4-64 KiB. */
#define VIRTIO_TMEM_PAGE_SHIFT_MIN	12
#define VIRTIO_TMEM_PAGE_SHIFT_MAX	16

/* --- virtio-tmem: requests --- */

/*
 * Make pool @pool.  flags: VIRTIO_TMEM_POOL_*; index: log2 of the page size;
 * count: 0.  Again with the same parameters: OK, done = pages that it holds.
 * With others: EXIST.
 */
#define VIRTIO_TMEM_OP_POOL_CREATE	1
/* End pool @pool.  Its number can be used again at once. */
#define VIRTIO_TMEM_OP_POOL_DESTROY	2
/* End all pools of this device.  All fields but op are 0. */
#define VIRTIO_TMEM_OP_RESET_ALL	3
/* Copy pages @index .. @index + @count - 1 of @object to the device. */
#define VIRTIO_TMEM_OP_PUT		4
/* Copy them back.  flags: VIRTIO_TMEM_GET_*. */
#define VIRTIO_TMEM_OP_GET		5
/*
 * Forget them.  @count may exceed config.max_pages, index + count may be 2^64
 * and no more.  The device may stop early: done tells how many indexes, from
 * the first, were processed; the driver sends the rest again.
 */
#define VIRTIO_TMEM_OP_FLUSH		6
/* Forget all pages of @object.  index and count are 0. */
#define VIRTIO_TMEM_OP_FLUSH_OBJECT	7
/* struct virtio_tmem_pool_stats follows the response. */
#define VIRTIO_TMEM_OP_POOL_STATS	8
/* 9 and up are reserved; a device answers UNSUPP to what it does not know. */

/* POOL_CREATE: accepted pages stay until flushed (else: may vanish). */
#define VIRTIO_TMEM_POOL_PERSISTENT	0x0001
/* Reserved, VIRTIO_TMEM_F_SHARED. */
#define VIRTIO_TMEM_POOL_SHARED		0x0002
/* Reserved, VIRTIO_TMEM_F_OPAQUE. */
#define VIRTIO_TMEM_POOL_OPAQUE		0x0004

/* GET: forget what was returned.  Ephemeral pools only. */
#define VIRTIO_TMEM_GET_EXCLUSIVE	0x0001

#define VIRTIO_TMEM_OBJECT_SIZE		24

/* First in the chain, device-readable, 64 bytes. */
struct virtio_tmem_req {
	__le16 op;		/* VIRTIO_TMEM_OP_* */
	__le16 flags;		/* by op; unknown ones are INVAL */
	__le32 pool;
	__u8 object[VIRTIO_TMEM_OBJECT_SIZE];
	__le64 index;
	__le64 count;		/* PUT, GET: 1 .. max_pages */
	__u8 reserved[16];	/* zero, else INVAL */
};

/* --- virtio-tmem: responses --- */

/* Done; for PUT and GET, page[] tells about each page. */
#define VIRTIO_TMEM_S_OK		0
/* Refused for want of room; of a page: what was held under its key is gone. */
#define VIRTIO_TMEM_S_NOSPC		1
/* There is no such pool (request) or page (page[]). */
#define VIRTIO_TMEM_S_NOENT		2
/* A page is held but cannot be read (page[]), or the host failed (request). */
#define VIRTIO_TMEM_S_IO		3
/* The request is malformed. */
#define VIRTIO_TMEM_S_INVAL		4
/* Reserved: the host does not allow it. */
#define VIRTIO_TMEM_S_PERM		5
/* The pool exists with other parameters. */
#define VIRTIO_TMEM_S_EXIST		6
/* The device does not know this op, or its feature was not negotiated. */
#define VIRTIO_TMEM_S_UNSUPP		7

/*
 * First of the device-writable part, 16 bytes.
 *
 * status not OK: nothing took effect, and nothing follows.  A chain with fewer
 * than 16 writable bytes, or that cannot be read, is answered by
 * DEVICE_NEEDS_RESET; every other one by a status.
 */
struct virtio_tmem_resp {
	__le16 status;		/* VIRTIO_TMEM_S_* */
	__le16 flags;		/* 0; reserved */
	__le32 generation;	/* as in the configuration space */
	__le64 done;		/* pages that succeeded, or indexes processed */
};

/*
 * page[count] of PUT and GET: status << 24 | length.  Indexes run ascending
 * and independently of one another; the device does not stop at a refusal.
 * length is what the page takes in the store, in bytes, where it succeeded
 * (which can be 0), and 0 where not.
 *
 * The data of a GET: the used length ends after the last page that was found;
 * pages before it that were not found are all zeros.
 */
#define VIRTIO_TMEM_PAGE_STATUS_SHIFT	24
#define VIRTIO_TMEM_PAGE_LENGTH_MASK	0x00ffffffu

/* Follows the response to POOL_STATS.  Counters start at the pool's creation. */
struct virtio_tmem_pool_stats {
	__le64 pages;		/* held now */
	__le64 bytes;		/* of host memory that they take now */
	__le64 puts;		/* pages accepted */
	__le64 refusals;	/* pages refused */
	__le64 gets;		/* pages found */
	__le64 misses;		/* pages not found */
	__le64 flushes;		/* pages forgotten on request */
	__le64 evictions;	/* pages that vanished (ephemeral pools) */
};

/* --- virtio-tmem: layout, checked wherever this header is compiled --- */

#ifdef __cplusplus
#define VIRTIO_TMEM_ASSERT(cond) static_assert(cond, #cond)
#else
#define VIRTIO_TMEM_ASSERT(cond) __extension__ _Static_assert(cond, #cond)
#endif
#define VIRTIO_TMEM_LAYOUT(type, field, offset) \
	VIRTIO_TMEM_ASSERT(__builtin_offsetof(struct type, field) == (offset))

VIRTIO_TMEM_ASSERT(sizeof(struct virtio_tmem_config) == 56);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, generation, 0);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, pressure, 4);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, num_fast, 8);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, num_bulk, 10);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, max_pools, 12);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, max_pages, 16);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, max_segs, 20);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, page_sizes, 24);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, codecs, 28);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, persistent_reserved, 32);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, persistent_max, 40);
VIRTIO_TMEM_LAYOUT(virtio_tmem_config, ephemeral_max, 48);

VIRTIO_TMEM_ASSERT(sizeof(struct virtio_tmem_req) == 64);
VIRTIO_TMEM_LAYOUT(virtio_tmem_req, op, 0);
VIRTIO_TMEM_LAYOUT(virtio_tmem_req, flags, 2);
VIRTIO_TMEM_LAYOUT(virtio_tmem_req, pool, 4);
VIRTIO_TMEM_LAYOUT(virtio_tmem_req, object, 8);
VIRTIO_TMEM_LAYOUT(virtio_tmem_req, index, 32);
VIRTIO_TMEM_LAYOUT(virtio_tmem_req, count, 40);
VIRTIO_TMEM_LAYOUT(virtio_tmem_req, reserved, 48);

VIRTIO_TMEM_ASSERT(sizeof(struct virtio_tmem_resp) == 16);
VIRTIO_TMEM_LAYOUT(virtio_tmem_resp, status, 0);
VIRTIO_TMEM_LAYOUT(virtio_tmem_resp, flags, 2);
VIRTIO_TMEM_LAYOUT(virtio_tmem_resp, generation, 4);
VIRTIO_TMEM_LAYOUT(virtio_tmem_resp, done, 8);

VIRTIO_TMEM_ASSERT(sizeof(struct virtio_tmem_pool_stats) == 64);
VIRTIO_TMEM_LAYOUT(virtio_tmem_pool_stats, pages, 0);
VIRTIO_TMEM_LAYOUT(virtio_tmem_pool_stats, evictions, 56);

#endif /* _UAPI_LINUX_VIRTIO_TMEM_H */
