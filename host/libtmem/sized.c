/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Structs that begin with their size, so that programs and libraries of
 * different versions understand one another; as copy_struct_from_user() of the
 * kernel has it
 *
 * Who has the longer one has members that the other does not know.  0 is their
 * default, so they may be missing, and must be 0 where they are not understood.
 */
#include "internal.h"

static bool zero(const char *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i])
			return false;
	return true;
}

int sized_in(void *own, size_t own_size, const void *theirs, uint64_t size)
{
	if (size > own_size &&
	    !zero((const char *)theirs + own_size, size - own_size))
		return -EINVAL;
	memset(own, 0, own_size);
	memcpy(own, theirs, MIN(size, own_size));
	return 0;
}

void sized_out(void *theirs, uint64_t size, const void *own, size_t own_size)
{
	memset(theirs, 0, size);
	memcpy(theirs, own, MIN(size, own_size));
}
