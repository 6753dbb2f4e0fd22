// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tmem-broker: leases host memory to the stores of a host's VMs
 *
 *	options.c	the command line
 *	config.c	the configuration file
 *	bytes.c		numbers that people write
 *	listen.c	the socket and its lock
 *	peer.c		connections
 *	protocol.c	what is said on them (protocol.h is its manual)
 *	store.c		stores: how they come, what they say, how they end
 *	evidence.c	what their processes can be seen to hold
 *	pressure.c	how short of memory the host is
 *	policy.c	who may hold how many bytes: arithmetic
 *	plan.c		... and how leases get there
 *	status.c	operators
 *	metrics.c	the same for scrapers, as OpenMetrics
 *	http.c		... who come by HTTP (http-request.c, address.c)
 *	report.c	lines for people
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "broker.h"
#include "http.h"
#include "listen.h"
#include "metrics.h"
#include "pressure.h"

#define EVENTS 64

static struct broker broker;

bool broker_watch(struct broker *b, struct watch *watch, int fd,
		  uint32_t events, bool add)
{
	struct epoll_event event = { .events = events, .data.ptr = watch };

	return !epoll_ctl(b->epoll_fd, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd,
			  &event);
}

static void read_config(struct broker *b)
{
	char error[CONFIG_ERROR_SIZE];

	b->config = config_read(b->options.config, error);
	if (!b->config)
		fatal("%s", error);
}

/* SIGHUP: a bad file changes nothing. */
static void reload(struct broker *b)
{
	char error[CONFIG_ERROR_SIZE];
	struct config *config = config_read(b->options.config, error);

	if (!config) {
		report("%s: the configuration stays as it was", error);
		return;
	}
	if (strcmp(config->psi, b->config->psi))
		report("%s: psi= is used from the next start on",
		       b->options.config);
	free(b->config);
	b->config = config;
	for (unsigned int i = 0; i < b->num_stores; i++)
		store_reconfigured(b, b->store[i]);
	report("%s: read again", b->options.config);
	plan_want(b);
}

static void signal_ready(struct broker *b, struct watch *watch, uint32_t events)
{
	struct signalfd_siginfo info;

	if (read(b->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP)
		reload(b);
	else
		b->ends = true;
}

static void trigger_ready(struct broker *b, struct watch *watch,
			  uint32_t events)
{
	if (events & EPOLLERR) {
		/* The monitor is gone; averages are left. */
		close(b->trigger_fd);
		b->trigger_fd = -1;
		return;
	}
	b->stalled = true;
	plan_want(b);
}

static void open_signals(struct broker *b)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	b->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	b->signal_watch.ready = signal_ready;
	if (b->signal_fd < 0 ||
	    !broker_watch(b, &b->signal_watch, b->signal_fd, EPOLLIN, true))
		fatal("signalfd: %s", strerror(errno));
}

static void open_trigger(struct broker *b)
{
	b->trigger_fd = pressure_trigger(b->config->psi);
	b->trigger_watch.ready = trigger_ready;
	if (b->trigger_fd >= 0 &&
	    !broker_watch(b, &b->trigger_watch, b->trigger_fd, EPOLLPRI,
			  true)) {
		close(b->trigger_fd);
		b->trigger_fd = -1;
	}
}

static void open_socket(struct broker *b)
{
	b->listen_fd = listen_open(b->options.socket, b->options.socket_group,
				   &b->survivors, &b->their_generation);
	b->listen_watch.ready = peer_accept;
	if (!broker_watch(b, &b->listen_watch, b->listen_fd, EPOLLIN, true))
		fatal("epoll: %s", strerror(errno));
	if (b->survivors)
		b->grace_until_ms = now_ms() + b->config->grace_ms + 1;
}

/* A descriptor for each connection and its process, and some for files. */
static void raise_files(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files))
		return;
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
}

static uint64_t random_generation(void)
{
	uint64_t generation;

	if (getrandom(&generation, sizeof(generation), 0) != sizeof(generation))
		generation = now_ms() ^ (uint64_t)getpid() << 32;
	return generation ? generation : 1;
}

static void bury(struct broker *b)
{
	while (b->dead_peers) {
		struct peer *p = b->dead_peers;

		b->dead_peers = p->next_dead;
		free(p);
	}
	while (b->dead_stores) {
		struct store *s = b->dead_stores;

		b->dead_stores = s->next_dead;
		free(s);
	}
}

/* Everything that is due; milliseconds until the next of it, or -1. */
static int tick(struct broker *b)
{
	uint64_t now = now_ms(), next = peers_tick(b, now), at;

	at = stores_tick(b, now);
	next = at < next ? at : next;
	at = plan_tick(b, now);
	next = at < next ? at : next;
	at = http_tick(b, now);
	next = at < next ? at : next;
	if (next == UINT64_MAX)
		return -1;
	now = now_ms();
	/* Rounded up, or the last millisecond would be spent here. */
	return next > now ? (int)(next - now < 60000 ? next - now + 1 : 60000)
			  : 0;
}

static void run(struct broker *b)
{
	struct epoll_event events[EVENTS];

	while (!b->ends) {
		int timeout = tick(b), num;

		bury(b);
		num = epoll_wait(b->epoll_fd, events, EVENTS, timeout);
		if (num < 0 && errno != EINTR)
			fatal("epoll: %s", strerror(errno));
		for (int i = 0; i < num; i++) {
			struct watch *watch = events[i].data.ptr;

			watch->ready(b, watch, events[i].events);
		}
	}
}

static unsigned int with_leases(const struct broker *b)
{
	unsigned int num = b->survivors;

	for (unsigned int i = 0; i < b->num_stores; i++)
		num += b->store[i]->state != TMEM_LEASE_WAITING;
	return num;
}

int main(int argc, char **argv)
{
	struct broker *b = &broker;

	options_read(&b->options, argc, argv);
	read_config(b);
	if (b->options.check)
		return 0;
	b->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (b->epoll_fd < 0)
		fatal("epoll: %s", strerror(errno));
	raise_files();
	b->generation = random_generation();
	b->budget.budget = UINT64_MAX;
	b->available = UINT64_MAX;
	open_signals(b);
	open_trigger(b);
	open_socket(b);
	metrics_init();
	run(b);
	http_close();
	listen_close(b->options.socket, with_leases(b), b->generation);
	while (b->num_peers) {
		/* Their stores' leases are for the next broker to learn of. */
		b->peer[0]->store = NULL;
		peer_close(b, b->peer[0]);
	}
	while (b->num_stores)
		store_remove(b, b->store[0]);
	bury(b);
	free(b->config);
	return 0;
}
