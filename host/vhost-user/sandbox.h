/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a process may still do that has guests' pages
 */
#ifndef VHOST_USER_TMEM_SANDBOX_H
#define VHOST_USER_TMEM_SANDBOX_H

/*
 * No core dump, no debugger without privilege, no new privileges; with @filter
 * only the system calls that are needed from now on, in all threads that come;
 * @connects: those too by which a UNIX socket is connected, and waited for.
 * Does not return if that cannot be had.
 */
void sandbox_enter(int filter, int connects);

#endif /* VHOST_USER_TMEM_SANDBOX_H */
