/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz target: what a VMM may say to vhost-user-tmem
 *
 * The input is a row of steps, each a struct step and then the payload of a
 * message. Some steps stand for what an honest VMM and its driver do, so that
 * the fuzzer need not find out how rings are set up, and how a request looks.
 *
 * A step is done whenever the VM's thread would go to sleep: poll(2) and the
 * clock are ours.  So time costs nothing, and whoever is asleep can be asked
 * whether he should be.
 *
 * Sanitizers see accesses, libvhost-user its own assertions, pages that cannot
 * be touched what lies beside the guest's memory.  This file looks for requests
 * that an honest driver waits for in vain, descriptors that are left open or
 * closed twice, and a store that disagrees with itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <linux/virtio_ring.h>

#include "connection.h"

#define MEMORY	  (1u << 20)
#define GPA	  (1ull << 32)
#define QVA	  (1ull << 44)
#define RINGS	  2u
#define RING_SIZE 16u
/* Two descriptors each. */
#define CHAINS (RING_SIZE / 2)
/* Where parts of ring i are: at i * RING_STEP. */
#define RING_STEP 16384u
#define USED_AT	  4096u
#define AVAIL_AT  8192u
/* A chain's bytes: request and data, then the answer. */
#define DATA_AT	   (1u << 16)
#define CHAIN_STEP 32768u
#define ANSWER_AT  16384u
/* More messages find nothing more. */
#define MAX_STEPS 64
#define MAX_FDS	  12

/* Requests from here on are what an honest VMM does, or its driver. */
enum {
	SET_UP = 236, /* features and memory; flags: which features */
	START_RING,   /* flags: which; LATE_BASE */
	STOP_RING,    /* flags: which */
	REQUEST,      /* flags: on which ring; payload: see add_request() */
	READ,	      /* the answers of the back end */
	SLEEP,	      /* until the back end wants to wake up by itself */
	REMOVE_MEMORY,
	ADD_MEMORY,
	/* Not honest. */
	FILL,	  /* memory at 16 * offset is the payload */
	TRUNCATE, /* the memory's file, to 16 * offset */
	KICK,	  /* flags: which */
};

/* Of START_RING: the base comes after the addresses, as some VMMs send it. */
#define LATE_BASE 0x02
/* Of an honest step: it is done when the thread would not sleep, too. */
#define EARLY 0x40

struct step {
	uint8_t request;
	uint8_t flags;	 /* of the message, the version's bit turned */
	uint8_t num_fds; /* modulo MAX_FDS; 0x80: eventfds, else memory */
	uint8_t more;	 /* bytes that the header claims beyond the payload */
	uint16_t offset;
	uint16_t size; /* of the payload in the input, at most */
};

/* A ring as its driver sees it. */
struct driver {
	bool waits;   /* what it makes available must be used */
	bool tainted; /* its memory may hold anything */
	uint16_t avail;
	int kick;
};

struct peer {
	int fd, memory, spare;
	bool set_up; /* and nothing was done since that is not honest */
	bool has_memory, event_idx;
	struct driver ring[RINGS];
};

/* The one input that is played. */
static struct {
	bool active;
	const uint8_t *data;
	size_t size;
	unsigned int steps;
	bool over;	/* there is no step left, and the peer has hung up */
	bool sleep;	/* let the present poll() time out */
	uint64_t clock; /* ns */
	struct peer peer;
	struct vm vm;
	uint64_t broken; /* of vm.counters, when it was last looked at */
} play;

/* Of all inputs, for people: did they get anywhere? */
static uint64_t requests_served;

static void fail(const char *why)
{
	fprintf(stderr, "fuzz-socket: %s\n", why);
	abort();
}

static void send_message(struct peer *p, uint32_t request, uint32_t flags,
			 const void *payload, uint32_t size, uint32_t claimed,
			 const int *fds, unsigned int num_fds)
{
	const uint32_t header[3] = { request, flags, claimed };
	struct iovec iov[2] = { { (void *)header, sizeof(header) },
				{ (void *)payload, size } };
	union {
		char bytes[CMSG_SPACE(MAX_FDS * sizeof(int))];
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
	/* A full socket: it is not said. */
	if (sendmsg(p->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		p->set_up = false;
}

static void write_memory(uint32_t at, const void *data, size_t size)
{
	if (at + size <= MEMORY &&
	    pwrite(play.peer.memory, data, size, at) != (ssize_t)size)
		fail("the guest's memory cannot be written");
}

static uint16_t read_u16(uint32_t at)
{
	uint16_t value = 0; /* where the file has ended */

	if (pread(play.peer.memory, &value, sizeof(value), at) < 0)
		fail("the guest's memory cannot be read");
	return value;
}

/* ------------------------------------------------------- an honest VMM's */

static void say(struct peer *p, uint32_t request, const void *payload,
		uint32_t size, int fd)
{
	send_message(p, request, 1, payload, size, size, &fd, fd >= 0);
}

static void set_up(struct peer *p, uint8_t flags)
{
	uint64_t features = 1ull << VIRTIO_F_VERSION_1 |
			    1ull << VHOST_USER_F_PROTOCOL_FEATURES | 3;
	uint64_t protocol = 1ull << VHOST_USER_PROTOCOL_F_MQ |
			    1ull << VHOST_USER_PROTOCOL_F_CONFIG |
			    1ull << VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS;
	const struct {
		uint32_t num, padding;
		uint64_t gpa, size, qva, offset;
	} table = { 1, 0, GPA, MEMORY, QVA, 0 };

	if (flags & 1)
		features |= 1ull << VIRTIO_RING_F_INDIRECT_DESC;
	if (flags & 2)
		features |= 1ull << VIRTIO_RING_F_EVENT_IDX;
	if (flags & 4)
		protocol |= 1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK;
	/* Not while rings run. */
	p->set_up = true;
	for (unsigned int i = 0; i < RINGS; i++)
		p->ring[i].waits = false;
	p->has_memory = true;
	p->event_idx = flags & 2;
	say(p, VHOST_USER_SET_PROTOCOL_FEATURES, &protocol, 8, -1);
	say(p, VHOST_USER_SET_FEATURES, &features, 8, -1);
	say(p, VHOST_USER_SET_MEM_TABLE, &table, sizeof(table), p->memory);
}

/* A driver that begins anew, after whatever was done to its memory. */
static void clean_ring(struct peer *p, unsigned int index)
{
	static const uint8_t zeros[RING_STEP];

	write_memory(RING_STEP * index, zeros, sizeof(zeros));
	p->ring[index].avail = 0;
	p->ring[index].tainted = false;
}

static void start_ring(struct peer *p, unsigned int index, bool late_base)
{
	const uint64_t base = QVA + RING_STEP * index, which = index;
	uint32_t state[2] = { index, RING_SIZE };
	const struct {
		uint32_t index, flags;
		uint64_t desc, used, avail, log;
	} addr = { index, 0, base, base + USED_AT, base + AVAIL_AT, 0 };

	if (p->ring[index].tainted)
		clean_ring(p, index);
	say(p, VHOST_USER_SET_VRING_NUM, state, 8, -1);
	state[1] = p->ring[index].avail;
	if (!late_base)
		say(p, VHOST_USER_SET_VRING_BASE, state, 8, -1);
	say(p, VHOST_USER_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	if (late_base)
		say(p, VHOST_USER_SET_VRING_BASE, state, 8, -1);
	say(p, VHOST_USER_SET_VRING_ERR, &which, 8, p->spare);
	say(p, VHOST_USER_SET_VRING_CALL, &which, 8, p->spare);
	say(p, VHOST_USER_SET_VRING_KICK, &which, 8, p->ring[index].kick);
	state[1] = 1;
	say(p, VHOST_USER_SET_VRING_ENABLE, state, 8, -1);
	p->ring[index].waits = p->set_up;
	/* As VMMs do: something may be there. */
	eventfd_write(p->ring[index].kick, 1);
}

static void stop_ring(struct peer *p, unsigned int index)
{
	const uint32_t state[2] = { index, 0 };

	say(p, VHOST_USER_GET_VRING_BASE, state, 8, -1);
	p->ring[index].waits = false;
}

static void region(struct peer *p, bool add)
{
	const uint64_t memory[5] = { 0, GPA, MEMORY, QVA, 0 };

	if (add == p->has_memory)
		return;
	say(p, add ? VHOST_USER_ADD_MEM_REG : VHOST_USER_REM_MEM_REG, memory,
	    sizeof(memory), add ? p->memory : -1);
	p->has_memory = add;
}

/* ------------------------------------------------------------- the driver */

static uint32_t used_idx_at(unsigned int index)
{
	return RING_STEP * index + USED_AT + 2;
}

/* Kick, if the device wants to be told that @ring has one chain more. */
static void notify(struct peer *p, unsigned int index)
{
	uint32_t used = RING_STEP * index + USED_AT;
	uint16_t new = p->ring[index].avail, event;

	if (p->event_idx) {
		event = read_u16(used + 4 + 8 * RING_SIZE);
		if (!vring_need_event(event, new, new - 1))
			return;
	} else if (read_u16(used) & VRING_USED_F_NO_NOTIFY) {
		return;
	}
	eventfd_write(p->ring[index].kick, 1);
}

/*
 * One chain: the payload, which begins with a struct virtio_tmem_req, or a part
 * of one, as the device-readable part; @in_len device-writable bytes.
 */
static void add_request(struct peer *p, unsigned int index,
			const uint8_t *payload, size_t size, uint16_t in_len)
{
	struct driver *ring = &p->ring[index];
	uint32_t base = RING_STEP * index, num = ring->avail % CHAINS;
	uint32_t at = DATA_AT + (index * CHAINS + num) * CHAIN_STEP;
	uint16_t head = 2 * num, avail = ring->avail + 1;
	size_t out = size < 64 ? 64 : size;
	static const uint8_t zeros[64];
	struct vring_desc desc[2] = {
		{ GPA + at, out, VRING_DESC_F_NEXT, head + 1 },
		{ GPA + at + ANSWER_AT, in_len % ANSWER_AT + 1,
		  VRING_DESC_F_WRITE, 0 },
	};

	if (out > ANSWER_AT ||
	    (uint16_t)(ring->avail - read_u16(used_idx_at(index))) >= CHAINS)
		return;
	write_memory(at, zeros, sizeof(zeros));
	write_memory(at, payload, size);
	write_memory(base + 16 * head, desc, sizeof(desc));
	write_memory(base + AVAIL_AT + 4 + 2 * (ring->avail % RING_SIZE), &head,
		     2);
	write_memory(base + AVAIL_AT + 2, &avail, 2);
	ring->avail = avail;
	notify(p, index);
}

/* Who sleeps while an honest driver waits has not heard of its request. */
static void check_no_request_waits(void)
{
	struct peer *p = &play.peer;
	uint64_t broken = atomic_load(&play.vm.counters.broken);

	/* Needs a reset: the driver's rings are started again, or never. */
	for (unsigned int i = 0; i < RINGS && broken != play.broken; i++)
		p->ring[i].waits = false;
	play.broken = broken;
	for (unsigned int i = 0; i < RINGS; i++)
		if (p->ring[i].waits && p->set_up && p->has_memory &&
		    p->ring[i].avail != read_u16(used_idx_at(i)))
			fail("a request is not served");
}

/* ------------------------------------------------------------------ steps */

static void read_answers(struct peer *p)
{
	char bytes[4096];

	while (recv(p->fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
		;
}

/* True: it was an honest one. */
static bool take_honest(struct peer *p, const struct step *step,
			const uint8_t *data, size_t size)
{
	unsigned int index = step->flags % RINGS;

	switch (step->request) {
	case SET_UP:
		set_up(p, step->flags);
		return true;
	case START_RING:
		start_ring(p, index, step->flags & LATE_BASE);
		return true;
	case STOP_RING:
		stop_ring(p, index);
		return true;
	case REQUEST:
		add_request(p, index, data, size, step->offset);
		return true;
	case READ:
		read_answers(p);
		return true;
	case SLEEP:
		play.sleep = true;
		return true;
	case REMOVE_MEMORY:
	case ADD_MEMORY:
		region(p, step->request == ADD_MEMORY);
		return true;
	default:
		return false;
	}
}

static void take(struct peer *p, const struct step *step, const uint8_t *data,
		 size_t size)
{
	int fds[MAX_FDS];
	unsigned int num = (step->num_fds & 0x7f) % MAX_FDS;

	if (take_honest(p, step, data, size))
		return;
	p->set_up = false;
	for (unsigned int i = 0; i < RINGS; i++)
		p->ring[i].tainted = true;
	if (step->request == FILL) {
		write_memory(16 * step->offset, data, size);
	} else if (step->request == TRUNCATE) {
		if (ftruncate(p->memory, 16 * step->offset))
			fail("the guest's memory cannot be truncated");
	} else if (step->request == KICK) {
		eventfd_write(p->ring[step->flags % RINGS].kick, 1);
	} else {
		for (unsigned int i = 0; i < num; i++)
			fds[i] = step->num_fds & 0x80 ? p->spare : p->memory;
		send_message(p, step->request, step->flags ^ 1, data, size,
			     size + step->more, fds, num);
	}
}

/* The next one.  False: there is none. */
static bool play_step(void)
{
	struct step step;
	size_t payload;

	if (play.steps == MAX_STEPS || play.size < sizeof(step))
		return false;
	play.steps++;
	memcpy(&step, play.data, sizeof(step));
	play.data += sizeof(step);
	play.size -= sizeof(step);
	payload = step.size < play.size ? step.size : play.size;
	take(&play.peer, &step, play.data, payload);
	play.data += payload;
	play.size -= payload;
	return true;
}

static bool next_is_early(void)
{
	struct step step;

	if (play.size < sizeof(step))
		return false;
	memcpy(&step, play.data, sizeof(step));
	return step.request >= SET_UP && step.request < FILL &&
	       step.flags & EARLY;
}

/* -------------------------------------------------------- the world around */

int __real_poll(struct pollfd *fds, nfds_t num, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t num, int timeout);
int __real_clock_gettime(clockid_t id, struct timespec *now);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __real_close(int fd);
int __wrap_close(int fd);
void *__real_mmap(void *at, size_t size, int prot, int flags, int fd,
		  off_t offset);
void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd,
		  off_t offset);
int __real_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size);

int __wrap_poll(struct pollfd *fds, nfds_t num, int timeout)
{
	int ready;

	if (!play.active)
		return __real_poll(fds, num, timeout);
	play.sleep = false;
	if (!timeout && next_is_early())
		play_step();
	while (!(ready = __real_poll(fds, num, 0)) && timeout) {
		/* The loop over rings; others wait in the middle of things. */
		if (num == RINGS + 3)
			check_no_request_waits();
		if (play.over || play.sleep) {
			play.sleep = false;
			if (timeout < 0)
				fail("sleeps though its peer has hung up");
			play.clock += timeout * 1000000ull;
			return 0;
		}
		if (!play_step()) {
			shutdown(play.peer.fd, SHUT_WR);
			play.over = true;
		}
		/* Nobody wakes up by itself: the next step. */
		play.sleep &= timeout > 0;
	}
	return ready;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	if (!play.active || id != CLOCK_MONOTONIC)
		return __real_clock_gettime(id, now);
	play.clock += 1000;
	now->tv_sec = play.clock / 1000000000;
	now->tv_nsec = play.clock % 1000000000;
	return 0;
}

int __wrap_close(int fd)
{
	int ret = __real_close(fd);

	if (play.active && fd >= 0 && ret && errno == EBADF)
		fail("a descriptor is closed twice");
	return ret;
}

/* Mappings of files have a page on both sides that cannot be touched. */
#define FENCE 4096
static struct fenced {
	uint8_t *at;
	size_t size; /* whole pages */
} fenced[64];

static struct fenced *find_fenced(const void *at)
{
	for (size_t i = 0; i < sizeof(fenced) / sizeof(fenced[0]); i++)
		if (fenced[i].at == at)
			return &fenced[i];
	return NULL;
}

void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd,
		  off_t offset)
{
	struct fenced *free_one = find_fenced(NULL);
	size_t whole = (size + FENCE - 1) / FENCE * FENCE;
	uint8_t *room, *there;

	if (!play.active || at || fd < 0 || !free_one || !size ||
	    size > 64u << 20)
		return __real_mmap(at, size, prot, flags, fd, offset);
	room = __real_mmap(NULL, whole + 2 * FENCE, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		return room;
	there = __real_mmap(room + FENCE, size, prot, flags | MAP_FIXED, fd,
			    offset);
	if (there == MAP_FAILED) {
		__real_munmap(room, whole + 2 * FENCE);
		return there;
	}
	*free_one = (struct fenced){ there, whole };
	return there;
}

int __wrap_munmap(void *at, size_t size)
{
	struct fenced *one = at ? find_fenced(at) : NULL;
	size_t whole = (size + FENCE - 1) / FENCE * FENCE;

	if (!one || whole != one->size)
		return __real_munmap(at, size);
	one->at = NULL;
	return __real_munmap((uint8_t *)at - FENCE, whole + 2 * FENCE);
}

static void check_nothing_is_mapped(void)
{
	for (size_t i = 0; i < sizeof(fenced) / sizeof(fenced[0]); i++)
		if (fenced[i].at)
			fail("a mapping is left behind");
}

/* ------------------------------------------------------------- the target */

static unsigned int open_files(void)
{
	unsigned int num = 0;

	for (int fd = 0; fd < 256; fd++)
		num += fcntl(fd, F_GETFD) >= 0;
	return num;
}

static void open_peer(struct peer *p, int sockets[2])
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
		fail("no socket");
	*p = (struct peer){ .fd = sockets[0] };
	p->memory = memfd_create("guest", MFD_CLOEXEC);
	p->spare = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned int i = 0; i < RINGS; i++)
		p->ring[i].kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->ring[1].kick < 0 || ftruncate(p->memory, MEMORY))
		fail("no memory");
}

static void close_peer(const struct peer *p)
{
	close(p->fd);
	close(p->memory);
	close(p->spare);
	for (unsigned int i = 0; i < RINGS; i++)
		close(p->ring[i].kick);
}

static void check_store(struct tmem_store *store)
{
	char message[200];

	if (tmem_check(store, message, sizeof(message)))
		fail(message);
}

/* What the thread does, and nothing around it. */
static void run(struct tmem_store *store)
{
	play.active = true;
	vm_thread(&play.vm);
	check_store(store);
	vm_close(&play.vm);
	play.active = false;
	requests_served += atomic_load(&play.vm.counters.requests);
}

__attribute__((constructor)) static void prepare(void)
{
	guard_install();
}

__attribute__((destructor)) static void tell(void)
{
	printf("# %ju requests served\n", (uintmax_t)requests_served);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct options options = {
		.num_fast = 1,
		.num_bulk = 1,
		.poll_us = 8,
		.limits = { .size = sizeof(struct tmem_limits),
			    .persistent_reserved = 1 << 20 },
	};
	const struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = 4 << 20,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
	};
	unsigned int before = open_files();
	int sockets[2], stop = eventfd(0, EFD_CLOEXEC);
	struct tmem_store *store;

	memset(&play, 0, sizeof(play));
	play.data = data;
	play.size = size;
	open_peer(&play.peer, sockets);
	if (tmem_store_create(&config, &store))
		fail("no store");
	vm_open(&play.vm, &options, store, NULL, sockets[1], stop);
	run(store);
	tmem_store_destroy(store);
	close_peer(&play.peer);
	close(stop);
	check_nothing_is_mapped();
	if (open_files() != before)
		fail("a descriptor is left open");
	return 0;
}
