// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A connection: its loop over the socket, the rings and the store's work
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "connection.h"

/* How long after requests their leftovers are cleared away. */
#define STEP_NS 10000000ull
/* Pages that are cleared away at a time. */
#define STEP_PAGES 256
/* Least time between two messages about the configuration. */
#define CONFIG_NS 100000000ull
/* How long a message may take, and a VMM to read what it was answered. */
#define MESSAGE_NS 10000000000ull
/* Least time between two looks for a file descriptor when there is none. */
#define DEAF_NS 100000000ull
/* Polling begins with this, if it is worth while. */
#define POLL_MIN_NS 4000
/* Turns of the rings that a message waits for at most, and for how long. */
#define SETTLE_TURNS 16
#define SETTLE_NS    100000000ull
/* Looks at the rings between two at the clock, while polling. */
#define POLL_LOOKS 16

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---------------------------------------------------- for libvhost-user */

void connection_fail(struct connection *c, const char *format, ...)
{
	char why[200];
	va_list ap;

	if (c->ended)
		return;
	va_start(ap, format);
	vsnprintf(why, sizeof(why), format, ap);
	va_end(ap);
	why[strcspn(why, "\n")] = 0; /* some of libvhost-user's have one */
	vm_report(c->vm, "connection ended: %s", why);
	c->ended = true;
}

void connection_break(struct connection *c, const char *format, ...)
{
	char why[200];
	va_list ap;

	if (c->broken)
		return;
	c->broken = true;
	va_start(ap, format);
	vsnprintf(why, sizeof(why), format, ap);
	va_end(ap);
	count(&c->vm->counters.broken);
	vm_report(c->vm, "the device needs a reset: %s", why);
	for (unsigned int i = 0; i < c->num_rings; i++)
		if (c->ring[i].vq->err_fd >= 0)
			eventfd_write(c->ring[i].vq->err_fd, 1);
}

/*
 * Of a message: the VMM's fault.  Of a ring: the guest's, who is told to reset
 * the device; the connection stays, or VMM and guest would come back with the
 * same ring.
 */
static void on_panic(VuDev *dev, const char *why)
{
	struct connection *c = connection_of(dev);

	if (!c->serving) {
		connection_fail(c, "%s", why ? why : "out of memory");
		return;
	}
	connection_break(c, "%s", why ? why : "out of memory");
}

/* libvhost-user watches the rings' kick_fd alone. */
static void set_watch(VuDev *dev, int fd, int condition, vu_watch_cb callback,
		      void *data)
{
	connection_of(dev)->ring[(intptr_t)data].watched = true;
}

static void remove_watch(VuDev *dev, int fd)
{
	struct connection *c = connection_of(dev);

	for (unsigned int i = 0; i < c->num_rings; i++)
		if (c->ring[i].vq->kick_fd == fd)
			c->ring[i].watched = false;
}

static bool in_order(VuDev *dev, int index)
{
	/*
	 * A request is answered before the next is taken, so that the used
	 * index says where to go on, whatever became of the last process: see
	 * docs/vhost-user.md.
	 */
	return true;
}

static const VuDevIface iface = {
	.process_msg = message_process,
	.queue_set_started = ring_started,
	.queue_is_processed_in_order = in_order,
};

/* -------------------------------------------------------- begin and end */

static bool open_rings(struct connection *c)
{
	for (unsigned int i = 0; i < c->num_rings; i++) {
		struct ring *ring = &c->ring[i];

		ring->connection = c;
		ring->index = i;
		ring->vq = vu_get_queue(&c->dev, i);
		if (tmem_server_queue_create(c->vm->server, i, &ring->server))
			return false;
		tmem_server_queue_watch_memory(ring->server, &c->guard.tripped);
		vu_set_queue_handler(&c->dev, ring->vq, ring_kicked);
	}
	return true;
}

struct connection *connection_open(struct vm *vm, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));

	if (!c ||
	    !vu_init(&c->dev, vm->options->num_fast + vm->options->num_bulk, fd,
		     on_panic, message_read, set_watch, remove_watch, &iface)) {
		vm_report(vm, "connection ended: out of memory");
		free(c);
		close(fd);
		return NULL;
	}
	c->vm = vm;
	c->fd = fd;
	c->num_rings = vm->options->num_fast + vm->options->num_bulk;
	if (!open_rings(c)) {
		vm_report(vm, "connection ended: out of memory");
		connection_close(c);
		return NULL;
	}
	tmem_server_set_features(vm->server, 0);
	/* What it was told of is the last connection's. */
	tmem_server_config_changed(vm->server);
	return c;
}

void connection_close(struct connection *c)
{
	for (unsigned int i = 0; i < c->num_rings; i++)
		tmem_server_queue_destroy(c->ring[i].server);
	vu_deinit(&c->dev); /* and closes the socket */
	free(c);
}

/* ----------------------------------------------------------- the socket */

uint64_t connection_deadline(void)
{
	return now_ns() + MESSAGE_NS;
}

bool connection_wait(struct connection *c, short events, uint64_t deadline)
{
	for (;;) {
		struct pollfd fds[2] = {
			{ .fd = c->fd, .events = events },
			{ .fd = c->vm->stop_fd, .events = POLLIN },
		};
		uint64_t now = now_ns();

		if (now >= deadline)
			return false;
		if (poll(fds, 2, (deadline - now) / 1000000 + 1) < 0 &&
		    errno != EINTR)
			return false;
		if (fds[1].revents) {
			c->ended = true; /* no fault */
			return false;
		}
		if (fds[0].revents)
			return true;
	}
}

/*
 * A message.  libvhost-user would wait for ever for a VMM that does not read
 * its answers; where the socket takes anything, it takes the longest of them.
 */
static void dispatch(struct connection *c)
{
	uint64_t end = now_ns() + SETTLE_NS;

	/*
	 * User Mode Linux takes any answer as a sign that rings are left alone,
	 * and frees them: so they are, if they are empty.
	 */
	for (unsigned int i = 0;
	     i < SETTLE_TURNS && now_ns() < end && !rings_sleep(c); i++)
		rings_serve(c);
	if (!connection_wait(c, POLLOUT, connection_deadline()))
		connection_fail(c, "the answers to its messages are not read");
	else if (!vu_dispatch(&c->dev))
		c->ended = true;
	message_done(c);
}

/* ----------------------------------------------------------- the store */

void connection_wants_step(struct connection *c)
{
	uint64_t soon = now_ns() + STEP_NS;

	/* It may be set for what is due in half a minute. */
	if (!c->step_at || c->step_at > soon)
		c->step_at = soon;
}

static void look_at_config(struct connection *c)
{
	if (tmem_server_config_changed(c->vm->server))
		c->config_pending = true;
}

static void store_step(struct connection *c, uint64_t now)
{
	if (!c->step_at || now < c->step_at)
		return;
	if (vm_step(c->vm, STEP_PAGES)) {
		c->step_at = now + STEP_NS;
	} else {
		int due = tmem_step_due(c->vm->store);

		c->step_at = due < 0 ? 0 : now + due * 1000000ull;
	}
	look_at_config(c);
}

static void config_step(struct connection *c, uint64_t now)
{
	if (!c->config_pending || now < c->config_at)
		return;
	c->config_at = now + CONFIG_NS;
	if (message_config_changed(c))
		c->config_pending = false;
}

/* Milliseconds until one of them has something to do. */
static int next_timeout(struct connection *c, uint64_t now)
{
	uint64_t at = c->step_at ? c->step_at : UINT64_MAX;

	if (c->config_pending && c->config_at < at)
		at = c->config_at;
	if (c->deaf_until && c->deaf_until < at)
		at = c->deaf_until;
	if (at == UINT64_MAX)
		return -1;
	return at > now ? (at - now) / 1000000 + 1 : 0;
}

/* ------------------------------------------------------------- polling */

/* Look for requests for a while.  False: there were none. */
static bool poll_rings(struct connection *c)
{
	uint64_t begin, end;

	if (!c->poll_ns)
		return false;
	begin = now_ns();
	end = begin + c->poll_ns;
	do {
		for (unsigned int i = 0; i < POLL_LOOKS; i++) {
			if (rings_pending(c))
				return true;
			__builtin_ia32_pause();
		}
	} while (now_ns() < end);
	return false;
}

/*
 * @slept: ns.  Polling would have caught what came within the longest time that
 * is allowed: poll longer next time.  It came later: polling is wasted.
 */
static void poll_adapt(struct connection *c, uint64_t slept)
{
	uint64_t max = c->vm->options->poll_us * 1000ull;

	if (slept > max)
		c->poll_ns = 0;
	else
		c->poll_ns = c->poll_ns ? 2 * c->poll_ns : POLL_MIN_NS;
	if (c->poll_ns > max)
		c->poll_ns = max;
}

/* ---------------------------------------------------------------- loop */

#define FIXED_FDS 4

static unsigned int fill_fds(struct connection *c, struct pollfd *fds)
{
	unsigned int n = FIXED_FDS;

	fds[0] = (struct pollfd){ .fd = c->fd, .events = POLLIN };
	fds[1] = (struct pollfd){ .fd = c->vm->stop_fd, .events = POLLIN };
	fds[2] = (struct pollfd){ .fd = c->deaf_until ? -1 : c->vm->listen_fd,
				  .events = POLLIN };
	fds[3] = (struct pollfd){ .fd = c->vm->changed_fd, .events = POLLIN };
	for (unsigned int i = 0; i < c->num_rings; i++)
		fds[n++] = (struct pollfd){
			.fd = c->ring[i].watched ? c->ring[i].vq->kick_fd : -1,
			.events = POLLIN,
		};
	return n;
}

/*
 * One VM, one VMM at a time.  Whoever has closed its connection and comes back
 * is not turned away: the end of the first is seen before the second.
 */
static void turn_away(struct connection *c)
{
	struct pollfd first = { .fd = c->fd, .events = POLLIN };
	int fd;

	if (poll(&first, 1, 0))
		return;
	fd = accept4(c->vm->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0) {
		c->deaf_until = now_ns() + DEAF_NS;
		return;
	}
	close(fd);
	if (!c->turned_away)
		vm_report(c->vm,
			  "has a VMM already; another one was turned away");
	c->turned_away = true;
}

/*
 * Does not wait, whoever else has read it since poll(2), and whether or not the
 * VMM made it so: RWF_NOWAIT is of this call, O_NONBLOCK of all who have it.
 */
static ssize_t read_kick(int fd, eventfd_t *value)
{
	const struct iovec iov = { value, sizeof(*value) };

	return preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
}

static void drain_kick(struct connection *c, struct ring *ring, short revents)
{
	eventfd_t value;
	ssize_t got;

	if (!(revents & POLLIN)) {
		connection_fail(c, "ring %u: its kick descriptor is broken",
				ring->index);
		return;
	}
	got = read_kick(ring->vq->kick_fd, &value);
	if (got != sizeof(value) &&
	    (got >= 0 || (errno != EAGAIN && errno != EINTR)))
		connection_fail(c, "ring %u: its kick descriptor is no eventfd",
				ring->index);
	else
		count(&c->vm->counters.kicks);
	ring->asleep = false;
}

static void handle_fds(struct connection *c, const struct pollfd *fds)
{
	if (fds[1].revents) {
		c->ended = true;
		return;
	}
	if (fds[2].revents && !fds[0].revents)
		turn_away(c);
	if (fds[3].revents) {
		eventfd_t value;

		eventfd_read(c->vm->changed_fd, &value);
		look_at_config(c);
	}
	for (unsigned int i = 0; i < c->num_rings; i++)
		if (fds[FIXED_FDS + i].revents)
			drain_kick(c, &c->ring[i], fds[FIXED_FDS + i].revents);
	if (fds[0].revents && !c->ended)
		dispatch(c);
}

void connection_run(struct connection *c)
{
	struct pollfd fds[FIXED_FDS + MAX_RINGS];

	guard_use(&c->guard);
	while (!c->ended) {
		bool busy = rings_serve(c);
		uint64_t now, slept = 0;
		int timeout = 0;

		/* By a ring, or by a message. */
		if (c->guard.tripped) {
			connection_fail(
				c, "guest memory was taken away (is its file "
				   "truncated, or a page of it faulty?)");
			break;
		}
		if (busy)
			connection_wants_step(c);
		if (!busy &&
		    (poll_rings(c) || !rings_sleep(c) || c->guard.tripped))
			continue;
		now = now_ns();
		if (now >= c->deaf_until)
			c->deaf_until = 0;
		store_step(c, now);
		config_step(c, now);
		if (!busy)
			timeout = next_timeout(c, now);
		if (poll(fds, fill_fds(c, fds), timeout) < 0) {
			if (errno != EINTR)
				connection_fail(c, "poll: %s", strerror(errno));
			continue;
		}
		if (!busy) {
			slept = now_ns() - now;
			count(&c->vm->counters.sleeps);
			poll_adapt(c, slept);
		}
		handle_fds(c, fds);
	}
	guard_use(NULL);
}
