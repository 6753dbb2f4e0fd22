// SPDX-License-Identifier: BSD-3-Clause
/*
 * Preloaded into QEMU: of the calls that make a memfd larger every second fails, but for
 * the first, without which there is no store.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>

#define FIRST 8u

static atomic_uint calls;

#define FALLOCATE(name, type)                                           \
	int name(int fd, int mode, type offset, type length)            \
	{                                                               \
		int (*real)(int, int, type, type);                      \
		unsigned int call;                                      \
		*(void **)&real = dlsym(RTLD_NEXT, #name);              \
		call = mode & FALLOC_FL_PUNCH_HOLE ?                    \
			       0 : atomic_fetch_add(&calls, 1);         \
		if (call >= FIRST && call % 2) {                        \
			errno = ENOMEM;                                 \
			return -1;                                      \
		}                                                       \
		return real(fd, mode, offset, length);                  \
	}

FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)
