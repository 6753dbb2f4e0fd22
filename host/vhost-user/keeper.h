/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who keeps the memfds that pages are in when this process ends, and has the
 * next one go on with them
 *
 * systemd, if its unit says FileDescriptorStoreMax=: its protocol is
 * sd_notify(3)'s FDSTORE=1 to keep, and sd_listen_fds(3)'s variables to be
 * given back what was kept.  Or the process that --keep leaves behind as the
 * parent of the one that works (keep.c): the same messages, both ways, over a
 * socket pair. Few lines, and no library more in a process that has guests'
 * pages.
 */
#ifndef VHOST_USER_TMEM_KEEPER_H
#define VHOST_USER_TMEM_KEEPER_H

#include <stdbool.h>

#include "options.h"

/* A VM's: index and data. */
#define KEEPER_FDS (MAX_VMS * TMEM_TENANT_FDS)
/* Of a descriptor, with the final 0: "tmem-0123456789abcdef-index". */
#define KEEPER_NAME_SIZE 32

/*
 * Finds out who keeps, and takes what was kept.  At the start, with one thread:
 * the environment loses what says so.
 */
void keeper_init(void);

/*
 * What was kept of the VM of that name, its socket's; false if nothing was. The
 * descriptors stay this module's.
 */
bool keeper_kept(const char *vm, int fd[TMEM_TENANT_FDS]);

/* From now on these, and no others, are kept of it. */
void keeper_store(const char *vm, const int fd[TMEM_TENANT_FDS]);

/* Does anybody keep anything?  After keeper_init(). */
bool keeper_keeps(void);

/* What was kept of VMs that nobody has asked for is kept no longer. */
void keeper_done(void);

/* ------------------------------------------------------------------ --keep */

/*
 * Start the program as a child, keep what it says, and start it again when it
 * was killed; SIGHUP ends it and starts what is then in the program's file: a
 * live upgrade.  Does not return in the parent; returns in a process that was
 * started so.
 */
void keep(char **argv);

/* --- between the two --- */

/* The environment's name for the child's end of the socket pair. */
#define KEEP_VARIABLE "VHOST_USER_TMEM_KEEPER"

/* One message, with a descriptor (-1: none).  False: nobody is there.
 */
bool keeper_send(int socket, const char *text, int fd);
/*
 * The next one, without waiting if @wait is false.  Its length, 0: there is
 * none.  @fd: set to its descriptor or -1.
 */
int keeper_receive(int socket, char *text, unsigned int size, int *fd,
		   bool wait);

#endif /* VHOST_USER_TMEM_KEEPER_H */
