/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * UNIX sockets, as conventions for vhost-user back ends have them
 */
#ifndef VHOST_USER_TMEM_SOCKET_H
#define VHOST_USER_TMEM_SOCKET_H

#include <stdbool.h>

/*
 * Listen at @path, which @option named.  A socket that a dead process left
 * there is replaced.  @group: who may connect beside the owner, or NULL.  Does
 * not return if it cannot be done: one line says why.
 */
int socket_listen(const char *option, const char *path, const char *group);

/* @fd: --fd.  False: it is a connected one.  Does not return for others. */
bool socket_is_listening(int fd);

#endif /* VHOST_USER_TMEM_SOCKET_H */
