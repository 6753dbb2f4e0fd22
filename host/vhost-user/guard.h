/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory that goes away under us
 *
 * A VMM may truncate the file that its guest's memory is in.  Who touches what
 * is no longer there gets a SIGBUS.  The handler puts empty memory in the place
 * of the region, and says so; the access goes on, and the connection ends after
 * the request at hand.  (systemd's journal does the same with files.)
 */
#ifndef VHOST_USER_TMEM_GUARD_H
#define VHOST_USER_TMEM_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_MAX_REGIONS 509 /* VHOST_USER_MAX_RAM_SLOTS */

struct guard {
	volatile bool tripped;
	volatile unsigned int num;
	struct guard_region {
		uintptr_t start;
		size_t size;
	} region[GUARD_MAX_REGIONS];
};

/* Once in a process. */
void guard_install(void);
/* From now on @guard is the calling thread's; NULL: none is. */
void guard_use(struct guard *guard);

#endif /* VHOST_USER_TMEM_GUARD_H */
