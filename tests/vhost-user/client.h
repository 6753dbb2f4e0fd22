/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A vhost-user front end without a guest
 *
 * It is what a VMM and a driver are together: it connects to a back end, shares
 * memory with it, and puts chains into split rings.  Written from the
 * vhost-user and virtio specifications; it uses nothing of the project but the
 * wire header. Tests that misbehave send messages of their own by
 * client_message().
 *
 * Functions end the process with a line on stderr where the client itself
 * cannot go on; what a back end may do wrong is returned.  For one thread.
 */
#ifndef VHOST_USER_CLIENT_H
#define VHOST_USER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLIENT_MAX_RINGS 64
#define CLIENT_MAX_SEGS	 256

/* Requests of a front end, by their numbers in the vhost-user specification. */
enum {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_POSTCOPY_ADVISE = 28,
	VU_GET_INFLIGHT_FD = 31,
	VU_ADD_MEM_REG = 37,
	VU_REM_MEM_REG = 38,
};

/* Bits 24 and up of the features, and protocol features. */
#define VU_F_INDIRECT	       (1ull << 28)
#define VU_F_EVENT_IDX	       (1ull << 29)
#define VU_F_PROTOCOL_FEATURES (1ull << 30)
#define VU_F_VERSION_1	       (1ull << 32)

#define VU_PF_MQ	  (1ull << 0)
#define VU_PF_REPLY_ACK	  (1ull << 3)
#define VU_PF_BACKEND_REQ (1ull << 5)
#define VU_PF_CONFIG	  (1ull << 9)
#define VU_PF_MEM_SLOTS	  (1ull << 15)

struct client_ring {
	uint16_t num;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	int kick_fd, call_fd, err_fd;
	uint16_t last_used;
	uint16_t kicked; /* avail->idx when it was last thought about */
	uint16_t free_head, num_free;
	/* Of each head that is in flight. */
	void *cookie[1024];
	void *table[1024]; /* indirect */
	bool started;
};

struct client {
	int fd; /* the socket; -1: not connected */
	int memory_fd;
	uint8_t *memory; /* all of it is shared with the back end */
	size_t memory_size, memory_used;
	uint64_t gpa, qva; /* where the back end is told that it is */
	uint64_t features, protocol_features;
	bool direct; /* no indirect tables even if there can be */
	struct client_ring ring[CLIENT_MAX_RINGS];
	unsigned int num_rings;
	/* Counted: notifications sent, and received. */
	uint64_t kicks, calls;
};

struct client_seg {
	void *base; /* in the client's memory */
	uint32_t len;
	bool writable;
};

/* @memory_size: bytes to share with the back end. */
void client_init(struct client *client, size_t memory_size);
void client_exit(struct client *client);

/* Connect to @path, for 10 seconds at most.  False: nobody is there. */
bool client_connect(struct client *client, const char *path);
void client_disconnect(struct client *client);

/* @size bytes of shared memory, aligned to @align; there is no free. */
void *client_alloc(struct client *client, size_t size, size_t align);
/* Forget all that was allocated.  The rings must be stopped. */
void client_free_all(struct client *client);

/*
 * Send a message.  @fds: @num_fds descriptors that go with it.  False: the back
 * end has closed the connection.
 */
bool client_message(struct client *client, uint32_t request, uint32_t flags,
		    const void *payload, uint32_t size, const int *fds,
		    unsigned int num_fds);
/* The answer, up to @size bytes of it; returns its size, -1: there is none. */
int client_answer(struct client *client, void *payload, uint32_t size);
/* Both, for requests that are answered by 64 bits.  False: it did not. */
bool client_ask(struct client *client, uint32_t request, uint64_t *value);

/*
 * What a VMM does at first: features, protocol features, memory.  @accept: the
 * features to accept, bits 0 to 63.  False: the back end closed the connection.
 */
bool client_set_up(struct client *client, uint64_t accept);
/* Start all rings, of @num descriptors each.  False as above. */
bool client_start(struct client *client, unsigned int num_rings, uint16_t num);
/*
 * The back end is gone; there will be another one at @path, which goes on with
 * the rings, as with a VMM that reconnects.  False: it went away meanwhile.
 */
bool client_resume(struct client *client, const char *path);
/* Stop them. */
bool client_stop(struct client *client);

bool client_get_config(struct client *client, void *config, uint32_t size);
/* The machine is reset. */
bool client_system_reset(struct client *client);

/*
 * Make a chain available.  False: there is no room in the ring.  @cookie comes
 * back when it was used.
 */
bool client_add(struct client *client, unsigned int ring,
		const struct client_seg *segs, unsigned int num, void *cookie);
/* Notify the back end, if it wants that. */
void client_kick(struct client *client, unsigned int ring);
/* The next chain that was used: its cookie; NULL: there is none. */
void *client_used(struct client *client, unsigned int ring, uint32_t *len);
/*
 * Wait until there is one, for @timeout_ms at most; with @spin without
 * sleeping. False: none came, or the back end closed the connection or is
 * broken.
 */
bool client_wait(struct client *client, unsigned int ring, int timeout_ms,
		 bool spin);
/* Notifications of a ring that nobody has waited for; they are taken. */
uint64_t client_take_calls(struct client *client, unsigned int ring);
/* The back end says that the device needs a reset? */
bool client_is_broken(struct client *client);
/* The back end has closed the connection? Waits @timeout_ms for it. */
bool client_is_closed(struct client *client, int timeout_ms);

#endif /* VHOST_USER_CLIENT_H */
