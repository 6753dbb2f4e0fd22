/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a process can be seen to hold
 */
#ifndef TMEM_BROKER_EVIDENCE_H
#define TMEM_BROKER_EVIDENCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Bytes that process @pid has in memory at most: the larger of its resident
 * size and of what its memory cgroup has, where that is not the root, as pages
 * may be in the one and not the other (they were adopted from a process before,
 * or another process of the VM touched them first).  UINT64_MAX: cannot be
 * seen.
 * @proc, @cgroup: where these are mounted.
 */
uint64_t evidence_bytes(const char *proc, const char *cgroup, pid_t pid);

/*
 * Bytes that the memory cgroup of process @pid, and those that it is in, still
 * leave it: the least of limit - usage, where unused pages of files count as
 * free.  UINT64_MAX: nothing limits it, or it cannot be seen.
 */
uint64_t evidence_room(const char *proc, const char *cgroup, pid_t pid);

/* A descriptor that polls readable when the socket's peer ends; -1: none. */
int evidence_pidfd(int socket, pid_t pid);
/* Is it one, of a process that lives? */
bool evidence_lives(int pidfd);

#endif /* TMEM_BROKER_EVIDENCE_H */
