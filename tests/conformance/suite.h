/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conformance suite: chains in, answers out, from one description
 *
 * Test vectors (vectors/NAME.vec, explained in README.md) say what goes into a
 * device and what must come out.  This file runs them against any device: who
 * has one writes a struct conf_transport for it.  Nothing here but the wire
 * header knows of virtio-tmem's other parts.
 */
#ifndef CONFORMANCE_SUITE_H
#define CONFORMANCE_SUITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "virtio_tmem.h"

#define CONF_MAX_SEGS 256

/* A descriptor; the memory is the suite's. */
struct conf_seg {
	void *base;
	size_t len; /* bytes, 1 or more */
};

struct conf_chain {
	unsigned int queue; /* the virtqueue's number */
	/* num_out device-readable ones, then num_in device-writable ones. */
	struct conf_seg seg[CONF_MAX_SEGS];
	unsigned int num_out, num_in;
	/* What the transport fills in. */
	bool used;
	uint32_t used_len;
};

/* Functions are called from one thread, none after one of them failed. */
struct conf_transport {
	void *opaque;
	unsigned int max_segs; /* descriptors that a chain can have */
	/* The device features that are offered: bits 0 to 23. */
	uint64_t (*features)(void *opaque);
	/*
	 * Reset the device by status 0, negotiate exactly @features and
	 * VERSION_1, set up all queues, DRIVER_OK.  False: refused.
	 */
	bool (*start)(void *opaque, uint64_t features);
	void (*config)(void *opaque, struct virtio_tmem_config *config);
	/*
	 * Make all @num chains available, in this order, then notify, and wait
	 * until all are used or the device needs a reset.  Writable memory is
	 * handed over as it is, and what the device wrote is there afterwards.
	 */
	void (*submit)(void *opaque, struct conf_chain *const *chains,
		       unsigned int num);
	bool (*needs_reset)(void *opaque);
	/* A reset of the whole machine; NULL: cannot be done. */
	void (*system_reset)(void *opaque);
};

/*
 * Told of each test.  @why: where and why it failed; NULL: it passed, or does
 * not apply to this device (@skipped).
 */
typedef void conf_report(void *opaque, const char *name, const char *why,
			 bool skipped);

/*
 * Run the tests of one file of vectors.  @report is given @transport's opaque.
 * The device must have memory to
 * spare: persistent_reserved of 1 MiB or more, and persistent_max low enough to
 * be filled (README.md).  False: the file cannot be read or is malformed; a
 * line on stderr says where.
 */
bool conf_run_file(const char *path, const struct conf_transport *transport,
		   conf_report *report);

#endif /* CONFORMANCE_SUITE_H */
