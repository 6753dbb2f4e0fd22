// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Messages of the VMM, before libvhost-user gets to see them
 *
 * libvhost-user trusts its peer: a short read, nine descriptors, a table of
 * nine regions, a ring that ends beyond its region, a size of 0 or 2^16 for a
 * ring end in an assertion or in memory that is not the guest's.  Rather than
 * patch it, which ties us to one version of it, this file reads messages
 * itself, answers some, and passes on only those that libvhost-user cannot trip
 * over.  Messages that this device has no use for (dirty logging, post-copy,
 * in-flight buffers: docs/vhost-user.md says why) end the connection.
 */
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/magic.h>
#include <linux/virtio_config.h>

#include "connection.h"

#define MAX_FDS VHOST_MEMORY_BASELINE_NREGIONS
/* No guest has more; sums of two addresses do not overflow. */
#define MAX_ADDRESS (1ull << 62)
/* Of the 2^47 bytes of address space, what all VMs' memory may take together.
 */
#define MAX_MAPPED (1ull << 46)

/* libvhost-user's macro needs a variable that is called c. */
#define CONFIG_HEADER offsetof(VhostUserConfig, region)

#define BIT(n) (1ull << (n))
#define PROTOCOL_FEATURES                                                      \
	(BIT(VHOST_USER_PROTOCOL_F_MQ) |                                       \
	 BIT(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                                \
	 BIT(VHOST_USER_PROTOCOL_F_BACKEND_REQ) |                              \
	 BIT(VHOST_USER_PROTOCOL_F_CONFIG) |                                   \
	 BIT(VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS))
#define RING_FEATURES                                                          \
	(BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |          \
	 BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VHOST_USER_F_PROTOCOL_FEATURES))

static void close_fds(VhostUserMsg *m)
{
	for (int i = 0; i < m->fd_num; i++)
		close(m->fds[i]);
	m->fd_num = 0;
}

/* ----------------------------------------------------------------- read */

/*
 * Exactly @size bytes.  0: the peer closed the connection before the first;
 * -1: it did so later, or took too long.
 */
static int read_all(struct connection *c, void *to, size_t size,
		    VhostUserMsg *m, uint64_t deadline)
{
	union {
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	size_t got = 0;

	while (got < size) {
		struct iovec iov = { (char *)to + got, size - got };
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = &control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n =
			recvmsg(c->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
		struct cmsghdr *cmsg;

		if (n < 0 && errno == EAGAIN &&
		    connection_wait(c, POLLIN, deadline))
			continue;
		cmsg = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
		if (cmsg && cmsg->cmsg_level == SOL_SOCKET &&
		    cmsg->cmsg_type == SCM_RIGHTS) {
			close_fds(m);
			m->fd_num =
				(cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(m->fds, CMSG_DATA(cmsg),
			       m->fd_num * sizeof(int));
		}
		if (n <= 0 || msg.msg_flags & MSG_CTRUNC)
			return n == 0 && got == 0 ? 0 : -1;
		got += n;
	}
	return 1;
}

bool message_read(VuDev *dev, int fd, VhostUserMsg *m)
{
	struct connection *c = connection_of(dev);
	uint64_t deadline = connection_deadline();
	int ok;

	m->fd_num = 0;
	ok = read_all(c, m, VHOST_USER_HDR_SIZE, m, deadline);
	if (ok == 0) {
		c->ended = true; /* no fault */
		return false;
	}
	if (ok > 0 && m->size > sizeof(m->payload)) {
		connection_fail(c, "message %d of %u bytes: is too long",
				m->request, m->size);
		ok = -1;
	} else if (ok > 0 && m->size) {
		ok = read_all(c, &m->payload, m->size, m, deadline) > 0 ? 1
									: -1;
	}
	if (ok < 0) {
		connection_fail(
			c, "half a message, or too many descriptors with it");
		close_fds(m);
	}
	return ok > 0;
}

/* ---------------------------------------------------------------- check */

/* What a message must be.  Sizes in bytes; what is not here is refused. */
static const struct shape {
	bool known;
	uint16_t min_size, max_size; /* of the payload */
	uint8_t min_fds, max_fds;
} shapes[VHOST_USER_MAX] = {
#define SHAPE(name, ...) [VHOST_USER_##name] = { true, __VA_ARGS__ }
	SHAPE(GET_FEATURES, 0, 0, 0, 0),
	SHAPE(SET_FEATURES, 8, 8, 0, 0),
	SHAPE(SET_OWNER, 0, 0, 0, 0),
	SHAPE(RESET_OWNER, 0, 0, 0, 0),
	SHAPE(SET_MEM_TABLE, 8, 8 + 32 * MAX_FDS, 0, MAX_FDS),
	SHAPE(SET_VRING_NUM, 8, 8, 0, 0),
	SHAPE(SET_VRING_ADDR, 40, 40, 0, 0),
	SHAPE(SET_VRING_BASE, 8, 8, 0, 0),
	SHAPE(GET_VRING_BASE, 8, 8, 0, 0),
	SHAPE(SET_VRING_KICK, 8, 8, 0, 1),
	SHAPE(SET_VRING_CALL, 8, 8, 0, 1),
	SHAPE(SET_VRING_ERR, 8, 8, 0, 1),
	SHAPE(GET_PROTOCOL_FEATURES, 0, 0, 0, 0),
	SHAPE(SET_PROTOCOL_FEATURES, 8, 8, 0, 0),
	SHAPE(GET_QUEUE_NUM, 0, 0, 0, 0),
	SHAPE(SET_VRING_ENABLE, 8, 8, 0, 0),
	SHAPE(SET_BACKEND_REQ_FD, 0, 8, 1, 1),
	SHAPE(GET_CONFIG, 12, 12 + VHOST_USER_MAX_CONFIG_SIZE, 0, 0),
	SHAPE(SET_CONFIG, 12, 12 + VHOST_USER_MAX_CONFIG_SIZE, 0, 0),
	SHAPE(GET_MAX_MEM_SLOTS, 0, 8, 0, 0),
	SHAPE(ADD_MEM_REG, 40, 40, 1, 1),
	SHAPE(REM_MEM_REG, 40, 40, 0, 1),
#undef SHAPE
};

static bool check_shape(struct connection *c, const VhostUserMsg *m)
{
	const struct shape *shape =
		m->request > 0 && m->request < VHOST_USER_MAX
			? &shapes[m->request]
			: &shapes[0];
	const char *name = vu_request_to_string(m->request);

	if ((m->flags & (VHOST_USER_VERSION_MASK | VHOST_USER_REPLY_MASK)) != 1)
		connection_fail(c,
				"message %d (%s): flags 0x%x: must be a "
				"request of version 1",
				m->request, name, m->flags);
	else if (!shape->known)
		connection_fail(c,
				"message %d (%s): is none that this device has "
				"a use for",
				m->request, name);
	else if (m->size < shape->min_size || m->size > shape->max_size)
		connection_fail(c, "%s: %u bytes: must be %u to %u", name,
				m->size, shape->min_size, shape->max_size);
	else if (m->fd_num < shape->min_fds || m->fd_num > shape->max_fds)
		connection_fail(c, "%s: %d descriptors: must be %u to %u", name,
				m->fd_num, shape->min_fds, shape->max_fds);
	return !c->ended;
}

/* The sum does not overflow. */
static bool is_range(uint64_t start, uint64_t size)
{
	return size <= MAX_ADDRESS && start <= MAX_ADDRESS - size;
}

/*
 * A mapping of huge pages has whole ones: another cannot be unmapped, nor
 * replaced when the host has no page for it.
 */
static bool is_whole(const VhostUserMemoryRegion *r, int fd)
{
	struct statfs fs;

	return fstatfs(fd, &fs) || fs.f_type != HUGETLBFS_MAGIC ||
	       !((r->mmap_offset + r->memory_size) % fs.f_bsize);
}

static bool check_region(struct connection *c, const VhostUserMemoryRegion *r,
			 int fd)
{
	struct stat st;

	if (!r->memory_size || !is_range(r->guest_phys_addr, r->memory_size) ||
	    r->userspace_addr > UINT64_MAX - r->memory_size ||
	    !is_range(r->mmap_offset, r->memory_size))
		connection_fail(c,
				"memory at 0x%llx, 0x%llx bytes at 0x%llx of "
				"its file: is no range",
				(unsigned long long)r->guest_phys_addr,
				(unsigned long long)r->memory_size,
				(unsigned long long)r->mmap_offset);
	else if (fstat(fd, &st))
		connection_fail(
			c, "memory at 0x%llx: its file cannot be looked at",
			(unsigned long long)r->guest_phys_addr);
	else if (S_ISREG(st.st_mode) &&
		 (uint64_t)st.st_size < r->mmap_offset + r->memory_size)
		connection_fail(c,
				"memory at 0x%llx, 0x%llx bytes at 0x%llx of "
				"its file: the file has 0x%llx bytes",
				(unsigned long long)r->guest_phys_addr,
				(unsigned long long)r->memory_size,
				(unsigned long long)r->mmap_offset,
				(unsigned long long)st.st_size);
	else if (!is_whole(r, fd))
		connection_fail(c,
				"memory at 0x%llx, 0x%llx bytes at 0x%llx of "
				"its file: ends within a huge page",
				(unsigned long long)r->guest_phys_addr,
				(unsigned long long)r->memory_size,
				(unsigned long long)r->mmap_offset);
	return !c->ended;
}

/*
 * @r is beside a region of @size bytes at @start.  libvhost-user finds out,
 * too, when it has answered.
 */
static bool check_beside(struct connection *c, const VhostUserMemoryRegion *r,
			 uint64_t start, uint64_t size)
{
	if (r->guest_phys_addr < start + size &&
	    start < r->guest_phys_addr + r->memory_size)
		connection_fail(c,
				"memory at 0x%llx, 0x%llx bytes: overlaps what "
				"is at 0x%llx",
				(unsigned long long)r->guest_phys_addr,
				(unsigned long long)r->memory_size,
				(unsigned long long)start);
	return !c->ended;
}

/* A sparse file costs its VMM nothing, and takes address space from all VMs. */
static bool check_mapped(struct connection *c, uint64_t mapped)
{
	unsigned int vms = c->vm->options->num_sockets;
	uint64_t most = MAX_MAPPED / (vms ? vms : 1);

	if (mapped > most)
		connection_fail(c,
				"memory of 0x%llx bytes: must be at most "
				"0x%llx, a VM's share of the address space",
				(unsigned long long)mapped,
				(unsigned long long)most);
	return !c->ended;
}

static bool check_table(struct connection *c, const VhostUserMsg *m)
{
	const VhostUserMemory table = m->payload.memory; /* m is packed */
	const VhostUserMemoryRegion *r = table.regions;
	uint64_t mapped = 0;

	if (table.nregions > MAX_FDS ||
	    m->size < 8 + table.nregions * sizeof(table.regions[0]) ||
	    (int)table.nregions != m->fd_num) {
		connection_fail(c,
				"memory table of %u regions: %u bytes and %d "
				"descriptors came with it",
				table.nregions, m->size, m->fd_num);
		return false;
	}
	for (unsigned int i = 0; i < table.nregions; i++) {
		if (!check_region(c, &r[i], m->fds[i]))
			return false;
		for (unsigned int j = 0; j < i; j++)
			if (!check_beside(c, &r[i], r[j].guest_phys_addr,
					  r[j].memory_size))
				return false;
		mapped += r[i].mmap_offset + r[i].memory_size;
		if (!check_mapped(c, mapped))
			return false;
	}
	return true;
}

/* One more region. */
static bool check_added(struct connection *c, const VhostUserMsg *m)
{
	const VhostUserMemoryRegion r = m->payload.memreg.region;
	const VuDev *dev = &c->dev;
	uint64_t mapped = r.mmap_offset;

	if (!check_region(c, &r, m->fds[0]))
		return false;
	mapped += r.memory_size;
	for (unsigned int i = 0; i < dev->nregions; i++) {
		if (!check_beside(c, &r, dev->regions[i].gpa,
				  dev->regions[i].size))
			return false;
		mapped += dev->regions[i].mmap_offset + dev->regions[i].size;
	}
	return check_mapped(c, mapped);
}

static struct ring *check_ring(struct connection *c, const VhostUserMsg *m,
			       unsigned int index)
{
	if (index < c->num_rings)
		return &c->ring[index];
	connection_fail(c, "%s: ring %u: there are %u",
			vu_request_to_string(m->request), index, c->num_rings);
	return NULL;
}

/* ---------------------------------------------------------------- rings */

/* libvhost-user does not look again at what it has mapped. */
static void unmap_ring(struct ring *ring)
{
	ring->vq->vring.desc = NULL;
	ring->vq->vring.avail = NULL;
	ring->vq->vring.used = NULL;
	memset(&ring->vq->vra, 0, sizeof(ring->vq->vra));
}

/* What is left of them is mapped again when the message is done. */
static void unmap_rings(struct connection *c)
{
	for (unsigned int i = 0; i < c->num_rings; i++)
		unmap_ring(&c->ring[i]);
}

static void check_rings(struct connection *c)
{
	for (unsigned int i = 0; i < c->num_rings; i++) {
		struct ring *ring = &c->ring[i];

		if (!ring_is_mapped(ring)) {
			unmap_ring(ring);
		} else if (!ring->vq->vring.desc) {
			ring->vq->vra = ring->addr;
			vu_queue_empty(&c->dev, ring->vq); /* maps it */
		}
	}
}

static bool set_num(struct connection *c, const VhostUserMsg *m)
{
	unsigned int num = m->payload.state.num;
	struct ring *ring = check_ring(c, m, m->payload.state.index);

	if (!ring)
		return false;
	if (!num || num > VIRTQUEUE_MAX_SIZE) {
		connection_fail(c, "ring %u: size %u: must be from 1 to %u",
				ring->index, num, VIRTQUEUE_MAX_SIZE);
		return false;
	}
	/* Another size may end beyond the memory. */
	ring->has_addr = false;
	unmap_ring(ring);
	/* A VMM passes on what its guest wants: it would come back with it. */
	ring->odd_size = num & (num - 1);
	if (ring->odd_size)
		connection_break(c, "ring %u: size %u: is no power of 2",
				 ring->index, num);
	return !ring->odd_size;
}

static bool set_addr(struct connection *c, const VhostUserMsg *m)
{
	struct ring *ring = check_ring(c, m, m->payload.addr.index);

	if (!ring || ring->odd_size)
		return false;
	ring->addr = m->payload.addr;
	if (!ring_is_aligned(ring)) {
		ring->has_addr = false;
		unmap_ring(ring);
		connection_break(c, "ring %u: is not aligned", ring->index);
		return false;
	}
	ring->has_addr = true;
	ring_is_new(ring);
	/*
	 * libvhost-user goes on at the used index where it had another one in
	 * mind; but it keeps what it read of the ring before.
	 */
	ring->vq->last_avail_idx = 0;
	ring->vq->shadow_avail_idx = 0;
	if (!ring_is_mapped(ring))
		connection_fail(c,
				"ring %u of %u: its addresses 0x%llx, 0x%llx, "
				"0x%llx: are not in the memory",
				ring->index, ring->vq->vring.num,
				(unsigned long long)ring->addr.desc_user_addr,
				(unsigned long long)ring->addr.avail_user_addr,
				(unsigned long long)ring->addr.used_user_addr);
	return !c->ended;
}

static bool set_fd(struct connection *c, const VhostUserMsg *m)
{
	bool none = m->payload.u64 & VHOST_USER_VRING_NOFD_MASK;

	if (!check_ring(c, m, m->payload.u64 & VHOST_USER_VRING_IDX_MASK))
		return false;
	if (!none && m->fd_num != 1)
		connection_fail(c, "%s: without a descriptor",
				vu_request_to_string(m->request));
	else if (none && m->request == VHOST_USER_SET_VRING_KICK)
		connection_fail(c,
				"%s: rings that do not notify are not "
				"served: give a descriptor",
				vu_request_to_string(m->request));
	return !c->ended;
}

/* -------------------------------------------------- answered by ourselves */

static int answer(VhostUserMsg *m, uint64_t value, int *reply)
{
	m->payload.u64 = value;
	m->size = sizeof(m->payload.u64);
	m->fd_num = 0;
	*reply = 1;
	return 1;
}

static uint64_t features(struct connection *c)
{
	return tmem_server_features(c->vm->server) | RING_FEATURES;
}

static void set_features(struct connection *c, uint64_t accepted)
{
	VuDev *dev = &c->dev;

	if (accepted & ~features(c) || !(accepted & BIT(VIRTIO_F_VERSION_1))) {
		connection_fail(c,
				"features 0x%llx: 0x%llx are offered, and "
				"version 1 is a must",
				(unsigned long long)accepted,
				(unsigned long long)features(c));
		return;
	}
	dev->features = accepted;
	/* Bits from 24 on are the transport's. */
	tmem_server_set_features(c->vm->server, accepted & (BIT(24) - 1));
	if (!(accepted & BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
		for (unsigned int i = 0; i < c->num_rings; i++)
			c->ring[i].vq->enable = 1;
}

/* The message has the bytes that it speaks of, and so has the space. */
static bool config_is_there(struct connection *c, const VhostUserMsg *m)
{
	const VhostUserConfig config = m->payload.config; /* m is packed */
	const uint32_t space = VHOST_USER_MAX_CONFIG_SIZE;

	if (config.offset > space || config.size > space - config.offset ||
	    m->size < CONFIG_HEADER + config.size)
		connection_fail(
			c, "configuration: %u bytes from %u on: there are %u",
			config.size, config.offset, space);
	return !c->ended;
}

static void get_config(struct connection *c, VhostUserMsg *m)
{
	const VhostUserConfig config = m->payload.config; /* m is packed */
	uint8_t space[VHOST_USER_MAX_CONFIG_SIZE] = { 0 };
	struct virtio_tmem_config now;

	if (!config_is_there(c, m))
		return;
	tmem_server_get_config(c->vm->server, &now);
	memcpy(space, &now, sizeof(now));
	memcpy(m->payload.config.region, space + config.offset, config.size);
}

/*
 * Drivers have nothing to write.  A VMM writes `generation` to say that the
 * machine was reset: no message of the protocol tells that from a reset by the
 * driver, which pools outlive.
 */
static void set_config(struct connection *c, const VhostUserMsg *m)
{
	const VhostUserConfig config = m->payload.config; /* m is packed */

	if (!config_is_there(c, m))
		return;
	/*
	 * Other writes have no effect: VMMs that do not know the device pass
	 * on what a guest writes, and may end with the connection.
	 */
	if (config.offset != offsetof(struct virtio_tmem_config, generation) ||
	    config.size != sizeof(uint32_t))
		return;
	tmem_server_system_reset(c->vm->server);
	connection_wants_step(c);
}

/* True: the message is done with. */
static bool process(struct connection *c, VhostUserMsg *m, int *reply)
{
	switch (m->request) {
	case VHOST_USER_GET_FEATURES:
		return answer(m, features(c), reply);
	case VHOST_USER_SET_FEATURES:
		set_features(c, m->payload.u64);
		return true;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		return answer(m, PROTOCOL_FEATURES, reply);
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		if (m->payload.u64 & ~PROTOCOL_FEATURES)
			connection_fail(
				c,
				"protocol features 0x%llx: 0x%llx are offered",
				(unsigned long long)m->payload.u64,
				(unsigned long long)PROTOCOL_FEATURES);
		return false;
	case VHOST_USER_SET_MEM_TABLE:
		if (!check_table(c, m))
			return true;
		unmap_rings(c);
		return false;
	case VHOST_USER_ADD_MEM_REG:
		return !check_added(c, m);
	case VHOST_USER_REM_MEM_REG:
		unmap_rings(c);
		return false;
	case VHOST_USER_SET_VRING_NUM:
		return !set_num(c, m);
	case VHOST_USER_SET_VRING_BASE:
		/*
		 * The used index, which SET_VRING_ADDR finds, says where to go
		 * on (docs/vhost-user.md).  VMMs that send this one later may
		 * mean the available index, and skip what a back end that died
		 * has not served.
		 */
		check_ring(c, m, m->payload.state.index);
		return true;
	case VHOST_USER_SET_VRING_ADDR:
		return !set_addr(c, m);
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		return !set_fd(c, m);
	case VHOST_USER_GET_CONFIG:
		get_config(c, m);
		*reply = 1;
		return true;
	case VHOST_USER_SET_CONFIG:
		set_config(c, m);
		return true;
	default:
		return false;
	}
}

int message_process(VuDev *dev, VhostUserMsg *m, int *reply)
{
	struct connection *c = connection_of(dev);
	bool done = !check_shape(c, m) || process(c, m, reply);

	if (c->ended) {
		close_fds(m);
		*reply = 0;
		/* Who asked is told, before the connection ends. */
		if (m->flags & VHOST_USER_NEED_REPLY_MASK)
			answer(m, 1, reply);
		return 1;
	}
	return done;
}

void message_done(struct connection *c)
{
	const VuDev *dev = &c->dev;

	c->guard.num = 0;
	for (unsigned int i = 0; i < dev->nregions; i++)
		c->guard.region[i] = (struct guard_region){
			.start = dev->regions[i].mmap_addr,
			.size = dev->regions[i].size +
				dev->regions[i].mmap_offset,
		};
	c->guard.num = dev->nregions;
	/* It reads them: after the guard knows where they are. */
	check_rings(c);
}

bool message_config_changed(struct connection *c)
{
	const VhostUserMsg m = {
		.request = VHOST_USER_BACKEND_CONFIG_CHANGE_MSG,
		.flags = 1,
	};

	if (c->dev.backend_fd < 0)
		return true; /* it polls the field */
	/* Not libvhost-user's, which waits for a VMM that does not read. */
	return send(c->dev.backend_fd, &m, VHOST_USER_HDR_SIZE,
		    MSG_DONTWAIT | MSG_NOSIGNAL) == VHOST_USER_HDR_SIZE ||
	       errno != EAGAIN;
}
