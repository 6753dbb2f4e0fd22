/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef TMEM_DAEMON_LISTEN_AT_H
#define TMEM_DAEMON_LISTEN_AT_H

#include <stddef.h>

/*
 * Listen at @path, where nothing is: @type is SOCK_STREAM or SOCK_SEQPACKET
 * with flags.  Only its owner may connect, and who is in @group, if that is not
 * NULL. A descriptor; or -1, nothing is there, and @why (@size bytes) says what
 * does not go.  Changes the process's umask for a moment: before there are
 * threads.
 */
int listen_at(const char *path, int type, const char *group, int backlog,
	      char *why, size_t size);

#endif /* TMEM_DAEMON_LISTEN_AT_H */
