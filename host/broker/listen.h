/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The socket, and the lock that says whose it is
 *
 * A file beside the socket, SOCKET.lock, is locked (flock) for as long as the
 * broker lives, so that of two brokers that start at once one gives way; a
 * socket without a locked file is a dead broker's, and is replaced.  In the
 * file is the number of stores that have leases: what the next broker, if this
 * one dies, waits for before it grants anything.
 */
#ifndef TMEM_BROKER_LISTEN_H
#define TMEM_BROKER_LISTEN_H

/*
 * Listen at @path.  @group: who may connect beside the owner, or NULL.
 * @survivors: stores that had leases from a broker that has died; 0: none, or
 * there was none.  Does not return if it cannot be done: one line says why.
 */
int listen_open(const char *path, const char *group, unsigned int *survivors);

/* Note how many stores have leases. */
void listen_note(unsigned int stores);

/* The broker ends: remove the socket, and the lock if nobody has a lease. */
void listen_close(const char *path, unsigned int stores);

#endif /* TMEM_BROKER_LISTEN_H */
