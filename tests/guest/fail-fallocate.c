// SPDX-License-Identifier: BSD-3-Clause
/* Preloaded into QEMU: of the calls that make a memfd larger, every second fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>

static atomic_uint calls;

#define FALLOCATE(name, type)                                           \
	int name(int fd, int mode, type offset, type length)            \
	{                                                               \
		int (*real)(int, int, type, type);                      \
		*(void **)&real = dlsym(RTLD_NEXT, #name);              \
		if (!(mode & FALLOC_FL_PUNCH_HOLE) &&                   \
		    atomic_fetch_add(&calls, 1) % 2) {                  \
			errno = ENOMEM;                                 \
			return -1;                                      \
		}                                                       \
		return real(fd, mode, offset, length);                  \
	}

FALLOCATE(fallocate, off_t)
FALLOCATE(fallocate64, off64_t)
