/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Structs of the caller's that begin with their size
 */
#ifndef TMEM_SIZED_H
#define TMEM_SIZED_H

#include <stddef.h>
#include <stdint.h>

/* No version of a struct is longer: a size that is, is none. */
#define SIZED_MOST 4096u
/* What the first version of a struct had: all up to its @last member. */
#define SIZED_FIRST(type, last)                                                \
	(offsetof(type, last) + sizeof(((type *)0)->last))
/*
 * Has @theirs a size that a version of the struct has, or may have?  No member
 * ends but at the end of 8 bytes: half of a pointer is none.
 */
#define SIZED_VALID(theirs, last)                                              \
	((theirs) && (theirs)->size <= SIZED_MOST && !((theirs)->size % 8) &&  \
	 (theirs)->size >= SIZED_FIRST(__typeof__(*(theirs)), last))
/* @own becomes what @theirs says.  0, or -EINVAL: SIZED_VALID() is not true, or
 * it has members that are not known, and not 0. */
#define SIZED_IN(own, theirs, last)                                            \
	(SIZED_VALID(theirs, last)                                             \
		 ? sized_in(own, sizeof(*(own)), theirs, (theirs)->size)       \
		 : -EINVAL)
/* The same of one whose holes are kept for later. */
#define SIZED_LIMITS_IN(own, theirs)                                           \
	(SIZED_IN(own, theirs, reserved1) || (own)->reserved0 ||               \
			 (own)->reserved1                                      \
		 ? -EINVAL                                                     \
		 : 0)
/* @theirs, which is valid, becomes @own, but for its size. */
#define SIZED_OUT(theirs, own)                                                 \
	do {                                                                   \
		(own)->size = (theirs)->size;                                  \
		sized_out(theirs, (theirs)->size, own, sizeof(*(own)));        \
	} while (0)

int sized_in(void *own, size_t own_size, const void *theirs, uint64_t size);
void sized_out(void *theirs, uint64_t size, const void *own, size_t own_size);

#endif /* TMEM_SIZED_H */
