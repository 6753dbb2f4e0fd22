/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The socket, and the lock that says whose it is
 *
 * A file beside the socket, SOCKET.lock, is locked (flock) for as long as the
 * broker lives, so that of two brokers that start at once one gives way; a
 * socket without a locked file is a dead broker's, and is replaced.  In the
 * file is the number of stores that have leases, and the broker's generation,
 * which those alone know: what the next broker, if this one dies, waits for before
 * it grants anything.
 */
#ifndef TMEM_BROKER_LISTEN_H
#define TMEM_BROKER_LISTEN_H

#include <stdint.h>

/*
 * Listen at @path.  @group: who may connect beside the owner, or NULL.
 * @survivors: stores that had leases from a broker that has died, of that
 * @generation; 0: none, or there was none.  Does not return if it cannot be done: one line says why.
 */
int listen_open(const char *path, const char *group, unsigned int *survivors,
		uint64_t *generation);

/* Note how many stores have leases of a broker of that generation. */
void listen_note(unsigned int stores, uint64_t generation);

/* The broker ends: remove the socket, and the lock if nobody has a lease. */
void listen_close(const char *path, unsigned int stores, uint64_t generation);

#endif /* TMEM_BROKER_LISTEN_H */
