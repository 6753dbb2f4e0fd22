/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection: what the VMM has told us since it connected
 *
 * libvhost-user keeps that (struct VuDev) and does the rings.  It was written
 * for VMMs that behave; what others may send is sorted out before it gets to
 * see it: message.c.  Everything here is the VM's thread's.
 */
#ifndef VHOST_USER_TMEM_CONNECTION_H
#define VHOST_USER_TMEM_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guard.h"
#include "libvhost-user.h"
#include "tmem-server.h"
#include "vm.h"

#define MAX_RINGS 64

/* A virtqueue. */
struct ring {
	struct connection *connection;
	VuVirtq *vq;
	struct tmem_server_queue *server;
	unsigned int index;
	/* Where the VMM says it is; used while all of it is in its memory. */
	struct vhost_vring_addr addr;
	bool has_addr;
	bool odd_size; /* not a power of 2: cannot be served */
	bool quiet;    /* we turned its notifications off */
	bool asleep;   /* was empty, will notify: not looked at before */
	bool watched;  /* kick_fd is polled */
};

struct connection {
	VuDev dev;
	struct vm *vm;
	int fd;
	struct ring ring[MAX_RINGS];
	unsigned int num_rings;

	/* Over: at the end of its file, by an error, or by request. */
	bool ended;
	/* A request is being served: what goes wrong is the guest's doing. */
	bool serving;
	/* Device needs a reset: said once, until the rings are stopped. */
	bool broken;
	struct guard guard; /* the VMM's memory, as far as it is mapped */

	uint64_t step_at;   /* ns; when the store has work; 0: it has none */
	uint64_t config_at; /* ns; the driver is not told more before */
	bool config_pending;
	bool turned_away;    /* somebody was; said once */
	uint64_t deaf_until; /* ns; nobody could be turned away: no files */
	uint64_t poll_ns;    /* how long to poll before the next sleep */
};

static inline struct connection *connection_of(VuDev *dev)
{
	return (struct connection *)((char *)dev -
				     offsetof(struct connection, dev));
}

/* @fd: is closed.  NULL: out of memory, said. */
struct connection *connection_open(struct vm *vm, int fd);
/* The store has something to clear away. */
void connection_wants_step(struct connection *connection);
/*
 * Wait for @events of the socket until @deadline_ns of the monotonic clock.
 * False: they did not come, or the process ends.
 */
bool connection_wait(struct connection *connection, short events,
		     uint64_t deadline_ns);
/* When a message that begins now must be over. */
uint64_t connection_deadline(void);
/* Until it ends, or the process does. */
void connection_run(struct connection *connection);
void connection_close(struct connection *connection);

/* The VMM broke the protocol: one line, and the connection ends. */
void connection_fail(struct connection *connection, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * The guest's driver did: one line, and it is told to reset the device.  The
 * connection stays, or VMM and guest would come back with the same.
 */
void connection_break(struct connection *connection, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* message.c ------------------------------------------------------------- */

/* What libvhost-user asks: see VuDev.read_msg and VuDevIface.process_msg. */
bool message_read(VuDev *dev, int fd, VhostUserMsg *message);
int message_process(VuDev *dev, VhostUserMsg *message, int *reply);
/* After a message: the VMM's memory may be another. */
void message_done(struct connection *connection);
/* Tell the driver to read the configuration.  False: later. */
bool message_config_changed(struct connection *connection);

/* ring.c ---------------------------------------------------------------- */

void ring_started(VuDev *dev, int index, bool started);
void ring_kicked(VuDev *dev, int index);
/* The VMM has set it up, perhaps again: what we knew of it does not hold. */
void ring_is_new(struct ring *ring);
/* @ring is aligned as the specification wants it? */
bool ring_is_aligned(const struct ring *ring);
/* All of it lies in memory that is mapped? */
bool ring_is_mapped(const struct ring *ring);
/* Serve up to a batch of each ring's requests.  False: there were none. */
bool rings_serve(struct connection *connection);
/* Ask for notifications.  False: there are requests already. */
bool rings_sleep(struct connection *connection);
bool rings_pending(struct connection *connection);

#endif /* VHOST_USER_TMEM_CONNECTION_H */
