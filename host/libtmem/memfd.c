/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory that another process can go on with: memfds, sealed against becoming
 * shorter, as who maps one would be killed by that, and held by one process
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_SEAL)
/* The kernel may add it to every memfd; glibc before 2.39 has no name for it.
 */
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x20
#endif

int memfd_make(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_ADD_SEALS, SEALS)) {
		close(fd);
		return -ENOMEM;
	}
	return fd;
}

bool memfd_sealed(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & SEALS) == SEALS &&
	       !(seals & ~(SEALS | F_SEAL_EXEC));
}

uint64_t memfd_id(int fd)
{
	struct stat of;

	/* All memfds of a host are of one file system. */
	return fstat(fd, &of) ? 0 : of.st_ino;
}

void *memfd_map(struct tmem_store *store, int fd, uint64_t offset,
		uint64_t bytes)
{
	void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			  offset);

	if (data == MAP_FAILED)
		return NULL;
	/* Guests' pages do not belong into a core file of ours. */
	madvise(data, bytes, MADV_DONTDUMP);
	/* Nor to a child, which would change what is its parent's. */
	madvise(data, bytes, MADV_DONTFORK);
	if (store->flags & TMEM_STORE_LOCK &&
	    mlock2(data, bytes, MLOCK_ONFAULT)) {
		munmap(data, bytes);
		return NULL;
	}
	return data;
}

/*
 * A lock that ends with the process, and with children that it forks and that
 * execute nothing.  It belongs to an open file of its own:
 * the one that a keeper has, too, would go on holding it.
 */
int memfd_hold(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char path[40];
	int own, error = 0;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_RDWR | O_CLOEXEC);
	if (own < 0)
		return -errno;
	if (fcntl(own, F_OFD_SETLK, &lock))
		error = errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
	if (error)
		close(own);
	return error ? error : own;
}
