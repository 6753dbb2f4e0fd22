/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A vhost-user front end without a guest
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <linux/virtio_ring.h>

#include "client.h"

#define VERSION	   1u
#define REPLY	   (1u << 2)
#define NEED_REPLY (1u << 3)

struct header {
	uint32_t request, flags, size;
};

static void die(const char *what)
{
	fprintf(stderr, "vhost-user client: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* --------------------------------------------------------------- memory */

void client_init(struct client *c, size_t memory_size)
{
	memset(c, 0, sizeof(*c));
	c->fd = -1;
	c->memory_size = memory_size;
	/* Far apart, so that one taken for the other is found out. */
	c->gpa = 1ull << 32;
	c->qva = 1ull << 44;
	c->memory_fd = memfd_create("client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (c->memory_fd < 0 || ftruncate(c->memory_fd, memory_size))
		die("memory");
	c->memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE, MAP_SHARED,
			 c->memory_fd, 0);
	if (c->memory == MAP_FAILED)
		die("memory");
	for (unsigned int i = 0; i < CLIENT_MAX_RINGS; i++)
		c->ring[i].kick_fd = c->ring[i].call_fd = c->ring[i].err_fd =
			-1;
	signal(SIGPIPE, SIG_IGN);
}

void client_exit(struct client *c)
{
	client_disconnect(c);
	munmap(c->memory, c->memory_size);
	close(c->memory_fd);
}

void *client_alloc(struct client *c, size_t size, size_t align)
{
	size_t at = (c->memory_used + align - 1) / align * align;

	if (at + size > c->memory_size) {
		errno = ENOMEM;
		die("shared memory is used up");
	}
	c->memory_used = at + size;
	return c->memory + at;
}

void client_free_all(struct client *c)
{
	c->memory_used = 0;
}

static uint64_t gpa_of(const struct client *c, const void *address)
{
	return c->gpa + ((const uint8_t *)address - c->memory);
}

static uint64_t qva_of(const struct client *c, const void *address)
{
	return c->qva + ((const uint8_t *)address - c->memory);
}

/* ------------------------------------------------------------- messages */

bool client_connect(struct client *c, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	uint64_t end = now_ms() + 10000;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	do {
		c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (c->fd < 0)
			die("socket");
		if (!connect(c->fd, (struct sockaddr *)&address,
			     sizeof(address)))
			return true;
		close(c->fd);
		usleep(10000);
	} while (now_ms() < end);
	c->fd = -1;
	return false;
}

static void close_ring(struct client_ring *ring)
{
	int *fds[3] = { &ring->kick_fd, &ring->call_fd, &ring->err_fd };

	for (unsigned int i = 0; i < 3; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	ring->started = false;
}

void client_disconnect(struct client *c)
{
	for (unsigned int i = 0; i < CLIENT_MAX_RINGS; i++)
		close_ring(&c->ring[i]);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

bool client_message(struct client *c, uint32_t request, uint32_t flags,
		    const void *payload, uint32_t size, const int *fds,
		    unsigned int num_fds)
{
	struct header header = { request, flags | VERSION, size };
	struct iovec iov[2] = { { &header, sizeof(header) },
				{ (void *)payload, size } };
	union {
		char bytes[CMSG_SPACE(64 * sizeof(int))];
		struct cmsghdr align;
	} control = { { 0 } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = size ? 2 : 1 };
	struct cmsghdr *cmsg;

	if (num_fds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(num_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(num_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, num_fds * sizeof(int));
	}
	return c->fd >= 0 && sendmsg(c->fd, &msg, MSG_NOSIGNAL) ==
				     (ssize_t)(sizeof(header) + size);
}

static bool read_all(int fd, void *to, size_t size)
{
	size_t got = 0;

	while (got < size) {
		ssize_t n = recv(fd, (char *)to + got, size - got, 0);

		if (n <= 0)
			return false;
		got += n;
	}
	return true;
}

int client_answer(struct client *c, void *payload, uint32_t size)
{
	struct header header;
	uint8_t rest[4096];

	if (!read_all(c->fd, &header, sizeof(header)) ||
	    !(header.flags & REPLY) || header.size > sizeof(rest) ||
	    !read_all(c->fd, rest, header.size))
		return -1;
	memcpy(payload, rest, header.size < size ? header.size : size);
	return header.size;
}

bool client_ask(struct client *c, uint32_t request, uint64_t *value)
{
	return client_message(c, request, 0, NULL, 0, NULL, 0) &&
	       client_answer(c, value, sizeof(*value)) == sizeof(*value);
}

/* Send a message and wait until the back end has done as it says. */
static bool tell(struct client *c, uint32_t request, const void *payload,
		 uint32_t size, const int *fds, unsigned int num_fds)
{
	bool ack = c->protocol_features & VU_PF_REPLY_ACK;
	uint64_t error = 0;

	if (!client_message(c, request, ack ? NEED_REPLY : 0, payload, size,
			    fds, num_fds))
		return false;
	return !ack ||
	       (client_answer(c, &error, sizeof(error)) == sizeof(error) &&
		!error);
}

static bool tell_u64(struct client *c, uint32_t request, uint64_t value)
{
	return tell(c, request, &value, sizeof(value), NULL, 0);
}

bool client_set_up(struct client *c, uint64_t accept)
{
	struct {
		uint32_t num, padding;
		uint64_t gpa, size, qva, offset;
	} table = { 1, 0, c->gpa, c->memory_size, c->qva, 0 };
	uint64_t features, protocol, rings;

	c->protocol_features = 0;
	if (!client_ask(c, VU_GET_FEATURES, &features))
		return false;
	if (features & VU_F_PROTOCOL_FEATURES) {
		if (!client_ask(c, VU_GET_PROTOCOL_FEATURES, &protocol))
			return false;
		protocol &= VU_PF_MQ | VU_PF_REPLY_ACK | VU_PF_CONFIG;
		if (!tell_u64(c, VU_SET_PROTOCOL_FEATURES, protocol))
			return false;
		c->protocol_features = protocol;
	}
	c->features = accept;
	return client_ask(c, VU_GET_QUEUE_NUM, &rings) &&
	       tell(c, VU_SET_OWNER, NULL, 0, NULL, 0) &&
	       tell_u64(c, VU_SET_FEATURES, accept) &&
	       tell(c, VU_SET_MEM_TABLE, &table, sizeof(table), &c->memory_fd,
		    1);
}

bool client_get_config(struct client *c, void *config, uint32_t size)
{
	uint8_t message[12 + 256] = { 0 };

	memcpy(message + 4, &size, 4);
	if (!client_message(c, VU_GET_CONFIG, 0, message, 12 + size, NULL, 0) ||
	    client_answer(c, message, sizeof(message)) != (int)(12 + size))
		return false;
	memcpy(config, message + 12, size);
	return true;
}

bool client_system_reset(struct client *c)
{
	/* offset and size of `generation`, flags, four bytes */
	const uint32_t message[4] = { 0, 4, 0, 0 };

	return tell(c, VU_SET_CONFIG, message, sizeof(message), NULL, 0);
}

/* ---------------------------------------------------------------- rings */

/* Tell of a ring that goes on at @base. */
static bool tell_ring(struct client *c, unsigned int index, uint16_t base)
{
	struct client_ring *ring = &c->ring[index];
	uint32_t state[2] = { index, ring->num };
	uint64_t fd_message = index;
	struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr;

	close_ring(ring);
	ring->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ring->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ring->err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ring->err_fd < 0)
		die("eventfd");
	addr = (typeof(addr)){ index,
			       0,
			       qva_of(c, ring->desc),
			       qva_of(c, ring->used),
			       qva_of(c, ring->avail),
			       0 };
	ring->started = true;
	if (!tell(c, VU_SET_VRING_NUM, state, sizeof(state), NULL, 0))
		return false;
	state[1] = base;
	if (!tell(c, VU_SET_VRING_BASE, state, sizeof(state), NULL, 0) ||
	    !tell(c, VU_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0) ||
	    !tell(c, VU_SET_VRING_ERR, &fd_message, sizeof(fd_message),
		  &ring->err_fd, 1) ||
	    !tell(c, VU_SET_VRING_CALL, &fd_message, sizeof(fd_message),
		  &ring->call_fd, 1) ||
	    !tell(c, VU_SET_VRING_KICK, &fd_message, sizeof(fd_message),
		  &ring->kick_fd, 1))
		return false;
	state[1] = 1;
	return !(c->features & VU_F_PROTOCOL_FEATURES) ||
	       tell(c, VU_SET_VRING_ENABLE, state, sizeof(state), NULL, 0);
}

static bool start_ring(struct client *c, unsigned int index, uint16_t num)
{
	struct client_ring *ring = &c->ring[index];

	ring->num = num;
	ring->desc = client_alloc(c, 16 * num, 16);
	ring->avail = client_alloc(c, 6 + 2 * num, 2);
	ring->used = client_alloc(c, 6 + 8 * num, 4);
	memset(ring->desc, 0, 16 * num);
	memset(ring->avail, 0, 6 + 2 * num);
	memset(ring->used, 0, 6 + 8 * num);
	for (unsigned int i = 0; i < num; i++)
		ring->desc[i].next = i + 1;
	ring->free_head = 0;
	ring->num_free = num;
	ring->last_used = 0;
	ring->kicked = 0;
	memset(ring->table, 0, sizeof(ring->table));
	return tell_ring(c, index, 0);
}

bool client_start(struct client *c, unsigned int num_rings, uint16_t num)
{
	c->num_rings = num_rings;
	for (unsigned int i = 0; i < num_rings; i++)
		if (!start_ring(c, i, num))
			return false;
	return true;
}

bool client_resume(struct client *c, const char *path)
{
	client_disconnect(c);
	if (!client_connect(c, path))
		return false;
	if (!client_set_up(c, c->features))
		return false;
	for (unsigned int i = 0; i < c->num_rings; i++) {
		struct client_ring *ring = &c->ring[i];

		/* What was made available and not used is there once more. */
		if (!tell_ring(c, i, ring->used->idx))
			return false;
		ring->kicked = ring->avail->idx;
		eventfd_write(ring->kick_fd, 1);
	}
	return true;
}

bool client_stop(struct client *c)
{
	for (unsigned int i = 0; i < c->num_rings; i++) {
		uint32_t state[2] = { i, 0 };

		if (!c->ring[i].started)
			continue;
		if (!client_message(c, VU_GET_VRING_BASE, 0, state,
				    sizeof(state), NULL, 0) ||
		    client_answer(c, state, sizeof(state)) != sizeof(state))
			return false;
		close_ring(&c->ring[i]);
	}
	return true;
}

/* Write @segs to @table, whose free elements are linked from @at on. */
static uint16_t write_descs(struct client *c, struct vring_desc *table,
			    uint16_t at, const struct client_seg *segs,
			    unsigned int num)
{
	uint16_t next = at;

	for (unsigned int i = 0; i < num; i++) {
		struct vring_desc *desc = &table[next];

		desc->addr = gpa_of(c, segs[i].base);
		desc->len = segs[i].len;
		desc->flags = (segs[i].writable ? VRING_DESC_F_WRITE : 0) |
			      (i + 1 < num ? VRING_DESC_F_NEXT : 0);
		next = desc->next;
	}
	return next;
}

bool client_add(struct client *c, unsigned int index,
		const struct client_seg *segs, unsigned int num, void *cookie)
{
	struct client_ring *ring = &c->ring[index];
	bool indirect = c->features & VU_F_INDIRECT && !c->direct;
	uint16_t head = ring->free_head, avail = ring->avail->idx;
	struct vring_desc *table;

	if (ring->num_free < (indirect ? 1 : num))
		return false;
	if (indirect) {
		/* One for each head; from the first time on it stays. */
		if (!ring->table[head])
			ring->table[head] =
				client_alloc(c, 16 * CLIENT_MAX_SEGS, 16);
		table = ring->table[head];
		for (unsigned int i = 0; i < num; i++)
			table[i].next = i + 1;
		write_descs(c, table, 0, segs, num);
		ring->free_head = ring->desc[head].next;
		ring->desc[head].addr = gpa_of(c, table);
		ring->desc[head].len = 16 * num;
		ring->desc[head].flags = VRING_DESC_F_INDIRECT;
		ring->num_free--;
	} else {
		ring->free_head = write_descs(c, ring->desc, head, segs, num);
		ring->num_free -= num;
	}
	ring->cookie[head] = cookie;
	ring->avail->ring[avail % ring->num] = head;
	__atomic_store_n(&ring->avail->idx, (uint16_t)(avail + 1),
			 __ATOMIC_RELEASE);
	return true;
}

void client_kick(struct client *c, unsigned int index)
{
	struct client_ring *ring = &c->ring[index];
	uint16_t event;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (c->features & VU_F_EVENT_IDX) {
		memcpy(&event, &ring->used->ring[ring->num], sizeof(event));
		if ((uint16_t)(ring->avail->idx - event - 1) >=
		    (uint16_t)(ring->avail->idx - ring->kicked)) {
			ring->kicked = ring->avail->idx;
			return;
		}
		ring->kicked = ring->avail->idx;
	} else if (*(volatile uint16_t *)&ring->used->flags &
		   VRING_USED_F_NO_NOTIFY) {
		return;
	}
	c->kicks++;
	eventfd_write(ring->kick_fd, 1);
}

static void free_chain(struct client_ring *ring, uint16_t head)
{
	uint16_t last = head;
	unsigned int num = 1;

	while (ring->desc[last].flags & VRING_DESC_F_NEXT) {
		last = ring->desc[last].next;
		num++;
	}
	ring->desc[last].next = ring->free_head;
	ring->free_head = head;
	ring->num_free += num;
}

static bool has_used(const struct client_ring *ring)
{
	return __atomic_load_n(&ring->used->idx, __ATOMIC_ACQUIRE) !=
	       ring->last_used;
}

void *client_used(struct client *c, unsigned int index, uint32_t *len)
{
	struct client_ring *ring = &c->ring[index];
	struct vring_used_elem used;

	if (!has_used(ring))
		return NULL;
	used = ring->used->ring[ring->last_used++ % ring->num];
	/* Tell me of the next one. */
	ring->avail->ring[ring->num] = ring->last_used;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (used.id >= ring->num)
		return NULL;
	free_chain(ring, used.id);
	if (len)
		*len = used.len;
	return ring->cookie[used.id];
}

uint64_t client_take_calls(struct client *c, unsigned int index)
{
	eventfd_t value = 0;

	return eventfd_read(c->ring[index].call_fd, &value) ? 0 : value;
}

bool client_is_broken(struct client *c)
{
	for (unsigned int i = 0; i < c->num_rings; i++) {
		struct pollfd fd = { .fd = c->ring[i].err_fd,
				     .events = POLLIN };

		if (c->ring[i].err_fd >= 0 && poll(&fd, 1, 0) > 0)
			return true;
	}
	return false;
}

bool client_wait(struct client *c, unsigned int index, int timeout_ms,
		 bool spin)
{
	struct client_ring *ring = &c->ring[index];
	uint64_t end = now_ms() + timeout_ms;
	eventfd_t value;

	while (!has_used(ring)) {
		struct pollfd fds[3] = {
			{ .fd = ring->call_fd, .events = POLLIN },
			{ .fd = ring->err_fd, .events = POLLIN },
			{ .fd = c->fd, .events = POLLIN },
		};

		if (spin) {
			for (unsigned int i = 0; i < 1000; i++) {
				if (has_used(ring))
					return true;
				__builtin_ia32_pause();
			}
			if (now_ms() >= end)
				return false;
			continue;
		}
		if (poll(fds, 3, end > now_ms() ? (int)(end - now_ms()) : 0) <=
		    0)
			return has_used(ring);
		if (fds[0].revents && !eventfd_read(ring->call_fd, &value))
			c->calls += value;
		if ((fds[1].revents || fds[2].revents) && !has_used(ring))
			return false;
	}
	return true;
}

bool client_is_closed(struct client *c, int timeout_ms)
{
	uint64_t end = now_ms() + timeout_ms;
	struct pollfd fd = { .fd = c->fd, .events = POLLIN };
	char byte;

	/* What it still had to say comes first. */
	while (poll(&fd, 1, end > now_ms() ? (int)(end - now_ms()) : 0) > 0)
		if (recv(c->fd, &byte, 1, 0) <= 0)
			return true;
	return false;
}
