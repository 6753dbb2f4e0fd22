// SPDX-License-Identifier: BSD-3-Clause
/*
 * A store's lease: tmem-lease.h is the manual
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "protocol.h"
#include "tmem-lease.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIB	  (1024ull * 1024)

/* Until it connects again: doubled each time. */
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000
/* A broker that does not answer HELLO in that time is none. */
#define WELCOME_MS 60000
#define OPEN_MS	   30000
/* Pokes are at least so far apart; the last of them is looked at so late. */
#define POKE_MS	  20
#define SETTLE_MS 50
/* What was wanted is forgotten when the store no longer grows. */
#define WANT_MS 5000
/* Bytes that one call takes from the store. */
#define SHRINK_STEP (4 * MIB)
/* What was released is told so often on the way. */
#define RELEASED_MS 100
/* A peer that does not read is tried again. */
#define BLOCKED_MS 100
/* What a store that comes back keeps above what it holds, until it has a chunk.
 */
#define SPARE (4 * MIB)

enum state {
	AWAY,  /* there is no broker */
	HELLO, /* it has not answered */
	ADMITTED,
};

struct tmem_lease {
	struct tmem_store *store;
	struct tmem_tenant **tenants;
	unsigned int num_tenants;
	char *socket;
	char name[TMEM_LEASE_NAME_SIZE];
	uint32_t flags;
	uint32_t weight;
	uint64_t own_max;
	void (*report)(void *opaque, const char *line);
	void *opaque;

	int epoll_fd, timer_fd, poke_fd, fd;
	enum state state;
	bool refused; /* the last time; @why */
	bool told_away;
	bool opening; /* who opens it is told by tmem_lease_open() */
	char why[TMEM_LEASE_TEXT_SIZE];
	uint64_t retry_ms, retry_at;
	uint64_t hello_at;

	uint64_t reserved;
	uint64_t leased; /* as the broker counts it */
	uint64_t
		target; /* what the store may hold: less while it is recalled */
	uint64_t set;	/* the store's max_bytes */
	bool stuck;	/* nothing more can be given back for now */
	uint64_t serial, generation, chunk, max, report_ms;
	uint64_t wanted, want_until;
	bool want_due; /* the broker does not know of it yet */
	bool released_due;
	uint64_t released_at;
	uint64_t blocked_until;
	/* Looked at last: growth is what came since. */
	uint64_t last_held, last_refused;
	union tmem_lease_message told; /* the last REPORT */
	uint64_t report_at;
	bool report_due;
	uint64_t look_at; /* once more after the last poke; 0: not */
	uint64_t recalls, sent;
	_Atomic uint64_t poke_after;
};

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static uint64_t now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

__attribute__((format(printf, 2, 3))) static void tell(struct tmem_lease *l,
						       const char *format, ...)
{
	char line[400];
	va_list ap;

	if (!l->report)
		return;
	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	l->report(l->opaque, line);
}

/* ------------------------------------------------------------- the store */

static uint64_t store_held(struct tmem_lease *l)
{
	struct tmem_stats stats;

	tmem_store_stats(l->store, &stats);
	return stats.held_bytes;
}

static void set_max(struct tmem_lease *l, uint64_t max)
{
	max = MAX(max, l->reserved);
	/* It fails where reservations have grown: the old limit stays. */
	if (max != l->set && !tmem_store_set_max(l->store, max))
		l->set = max;
}

static unsigned int pressure_of(struct tmem_lease *l)
{
	unsigned int most = 0;

	for (unsigned int i = 0; i < l->num_tenants; i++) {
		unsigned int pressure = tmem_tenant_pressure(l->tenants[i]);

		most = MAX(most, pressure);
	}
	return most;
}

/* ---------------------------------------------------------------- socket */

static void go_away(struct tmem_lease *l, const char *why)
{
	close(l->fd); /* and epoll forgets it */
	l->fd = -1;
	/* One line when it goes, not one each time that it is not there. */
	if (!l->told_away && !(l->opening && l->refused))
		tell(l, "%s: %s; the lease stays %llu bytes", l->socket, why,
		     (unsigned long long)l->leased);
	l->told_away = true;
	l->state = AWAY;
	l->retry_at = now_ms() + l->retry_ms;
	l->retry_ms = MIN(2 * l->retry_ms, RETRY_MAX_MS);
	/* It does not grow by what nobody counts. */
	l->wanted = 0;
	l->want_due = l->released_due = l->report_due = false;
	l->blocked_until = 0;
}

/* False: not now. */
static bool say(struct tmem_lease *l, const union tmem_lease_message *m)
{
	int error = tmem_lease_send(l->fd, m);

	if (!error) {
		l->sent++;
		return true;
	}
	if (error == -EAGAIN)
		l->blocked_until = now_ms() + BLOCKED_MS;
	else
		go_away(l, strerror(-error));
	return false;
}

/*
 * What it holds is claimed, and some room: what is idle of the last lease,
 * others may have by now.
 */
static void say_hello(struct tmem_lease *l)
{
	union tmem_lease_message m;
	struct tmem_stats stats;

	tmem_store_stats(l->store, &stats);
	tmem_lease_begin(&m, TMEM_LEASE_HELLO);
	l->leased = MIN(l->leased, MAX(stats.held_bytes + SPARE, l->reserved));
	l->leased = MAX(l->leased, l->reserved);
	l->target = MIN(l->target, l->leased);
	set_max(l, l->target);
	m.hello.flags = l->flags & TMEM_LEASE_CONFIG_KEPT ? TMEM_LEASE_KEPT : 0;
	m.hello.reserved = l->reserved;
	m.hello.max = l->own_max;
	m.hello.weight = l->weight;
	m.hello.leased = l->leased;
	m.hello.held = stats.held_bytes;
	m.hello.fixed = stats.held_bytes -
			MIN(stats.held_bytes, stats.reclaimable_bytes);
	m.hello.generation = l->generation;
	strcpy(m.hello.name, l->name);
	if (say(l, &m)) {
		l->state = HELLO;
		l->hello_at = now_ms();
	} else if (l->fd >= 0) {
		go_away(l, "the broker does not read");
	}
}

static void try_connect(struct tmem_lease *l)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct epoll_event event = { .events = EPOLLIN };

	strcpy(address.sun_path, l->socket);
	l->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       0);
	if (l->fd < 0 ||
	    connect(l->fd, (const struct sockaddr *)&address,
		    sizeof(address)) ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->fd, &event)) {
		go_away(l, strerror(errno));
		return;
	}
	say_hello(l);
}

/* -------------------------------------------------------------- released */

static void say_released(struct tmem_lease *l)
{
	union tmem_lease_message m;
	uint64_t leased = MAX(l->set, l->stuck ? store_held(l) : 0);

	l->released_due = false;
	/* The limit is what the store keeps to, or what it cannot get below. */
	leased = MAX(leased, l->reserved);
	if (leased > l->leased)
		leased = l->leased;
	tmem_lease_begin(&m, TMEM_LEASE_RELEASED);
	m.released.serial = l->serial;
	m.released.leased = leased;
	if (!say(l, &m)) {
		l->released_due = l->state == ADMITTED;
		return;
	}
	l->leased = leased;
	l->released_at = now_ms();
}

/*
 * A step on the way down.  The limit comes down with what is held, so that what
 * was given back is not taken anew.
 */
static void shrink_step(struct tmem_lease *l)
{
	uint64_t before = store_held(l), after;

	if (before > l->target) {
		uint64_t step = MIN(before - l->target, SHRINK_STEP);

		set_max(l, before - step);
		after = store_held(l);
		l->stuck = after > l->set && after + SHRINK_STEP / 64 >= before;
	} else {
		l->stuck = false;
	}
	/* The rest comes as pages are flushed: puts are refused until then. */
	if (l->stuck || before <= l->target)
		set_max(l, l->target);
	if (l->stuck || l->set == l->target ||
	    now_ms() >= l->released_at + RELEASED_MS)
		l->released_due = true;
}

static bool shrinks(const struct tmem_lease *l)
{
	return l->set > l->target && !l->stuck;
}

/* What was stuck, and has come down since. */
static void look_at_stuck(struct tmem_lease *l)
{
	uint64_t held;

	if (!l->stuck)
		return;
	held = store_held(l);
	if (held <= l->target)
		l->stuck = false;
	if (MAX(held, l->target) < l->leased)
		l->released_due = l->state == ADMITTED;
}

static void lease_is(struct tmem_lease *l, uint64_t leased, uint64_t target)
{
	l->leased = MAX(leased, l->reserved);
	l->target = MAX(target, l->reserved);
	l->stuck = false;
	/* Less is gone to in steps. */
	if (l->target >= l->set || store_held(l) <= l->target)
		set_max(l, l->target);
}

/* -------------------------------------------------------------- messages */

static void welcome(struct tmem_lease *l, const struct tmem_lease_welcome *m)
{
	l->state = ADMITTED;
	l->refused = false;
	l->told_away = false;
	l->retry_ms = RETRY_MIN_MS;
	l->serial = m->serial;
	l->generation = m->generation;
	l->max = m->max;
	l->chunk = MAX(m->chunk, 1);
	l->report_ms = m->report_ms;
	l->report_at = now_ms() + m->report_ms;
	l->report_due = true;
	memset(&l->told, 0, sizeof(l->told));
	lease_is(l, m->leased, m->leased);
	tell(l, "%s: the lease is %llu bytes, of at most %llu", l->socket,
	     (unsigned long long)l->leased, (unsigned long long)l->max);
	l->look_at = now_ms();
}

static void recall(struct tmem_lease *l, const struct tmem_lease_recall *m)
{
	l->recalls++;
	l->serial = m->serial;
	lease_is(l, l->leased, MIN(m->leased, l->leased));
	/* What was idle is there at once. */
	if (!shrinks(l))
		l->released_due = true;
}

static void handle(struct tmem_lease *l, const union tmem_lease_message *m)
{
	unsigned int type = m->header.type;

	if (l->state == HELLO && type == TMEM_LEASE_WELCOME) {
		welcome(l, &m->welcome);
	} else if (type == TMEM_LEASE_REFUSED) {
		l->refused = true;
		snprintf(l->why, sizeof(l->why), "%s", m->refused.text);
		l->retry_ms = RETRY_MAX_MS;
		l->told_away = false;
		go_away(l, l->why);
	} else if (l->state == ADMITTED && type == TMEM_LEASE_GRANT) {
		l->serial = m->grant.serial;
		lease_is(l, m->grant.leased, m->grant.leased);
		l->look_at = now_ms();
	} else if (l->state == ADMITTED && type == TMEM_LEASE_RECALL) {
		recall(l, &m->recall);
	} else {
		go_away(l, "the broker said what has no place here");
	}
}

static void receive(struct tmem_lease *l)
{
	union tmem_lease_message m;
	char why[200];

	while (l->state != AWAY) {
		int error = tmem_lease_receive(l->fd, &m, why, sizeof(why));

		if (error == -EAGAIN)
			return;
		if (!error)
			handle(l, &m);
		else
			go_away(l,
				error == -EPROTO ? why : "the broker is gone");
	}
}

/* ---------------------------------------------------------- what it says */

/* Does it need more, and how much? */
static void look_at_want(struct tmem_lease *l, const struct tmem_stats *stats,
			 uint64_t now)
{
	uint64_t refused = stats->puts_refused_limit + stats->evictions;
	bool grew =
		stats->held_bytes > l->last_held || refused > l->last_refused;
	uint64_t want = l->wanted;

	if (grew && pressure_of(l)) {
		want = l->leased + MAX(2 * l->chunk, l->leased / 2);
		l->want_until = now + WANT_MS;
	} else if (now >= l->want_until) {
		want = 0;
	}
	l->last_held = stats->held_bytes;
	l->last_refused = refused;
	want = MIN(want, l->max);
	if (want != l->wanted) {
		l->wanted = want;
		l->want_due = true;
	}
}

static void fill_report(struct tmem_lease *l, const struct tmem_stats *stats,
			union tmem_lease_message *m)
{
	struct tmem_lease_report *r = &m->report;

	tmem_lease_begin(m, TMEM_LEASE_REPORT);
	r->held = stats->held_bytes;
	r->reclaimable = MIN(stats->reclaimable_bytes, stats->held_bytes);
	r->fixed = r->held - r->reclaimable;
	r->persistent_raw = stats->persistent_raw_bytes;
	r->ephemeral_raw = stats->ephemeral_raw_bytes;
	r->stored = stats->stored_bytes;
	r->puts = stats->puts;
	r->gets = stats->gets;
	r->misses = stats->misses;
	r->refused = stats->puts_refused_limit + stats->puts_refused_memory +
		     stats->puts_refused_headroom;
	r->evictions = stats->evictions;
	r->refaults = stats->refaults;
	r->pressure = pressure_of(l);
}

static void look(struct tmem_lease *l, uint64_t now)
{
	union tmem_lease_message m;
	struct tmem_stats stats;

	tmem_store_stats(l->store, &stats);
	look_at_want(l, &stats, now);
	fill_report(l, &stats, &m);
	if (!memcmp(&m, &l->told, sizeof(m))) {
		l->report_due = false;
		return;
	}
	if (now < l->report_at) {
		l->report_due = true;
		return;
	}
	l->report_due = !say(l, &m) && l->state == ADMITTED;
	l->report_at = now + l->report_ms;
	if (!l->report_due)
		l->told = m;
}

static void say_want(struct tmem_lease *l)
{
	union tmem_lease_message m;

	tmem_lease_begin(&m, TMEM_LEASE_WANT);
	m.want.bytes = l->wanted;
	l->want_due = !say(l, &m) && l->state == ADMITTED;
}

/* ------------------------------------------------------------------ time */

static void run_admitted(struct tmem_lease *l, uint64_t now, bool poked)
{
	if (poked)
		l->look_at = now + SETTLE_MS;
	if (poked || (l->look_at && now >= l->look_at) ||
	    (l->report_due && now >= l->report_at) ||
	    (l->wanted && now >= l->want_until)) {
		if (now >= l->look_at)
			l->look_at = 0;
		look_at_stuck(l);
		look(l, now);
	}
	if (l->state == ADMITTED && l->released_due && now >= l->blocked_until)
		say_released(l);
	if (l->state == ADMITTED && l->want_due && now >= l->blocked_until)
		say_want(l);
}

static void run(struct tmem_lease *l, bool poked)
{
	uint64_t now = now_ms();

	if (l->state == AWAY && now >= l->retry_at)
		try_connect(l);
	if (l->state == HELLO && now >= l->hello_at + WELCOME_MS)
		go_away(l, "the broker does not answer");
	/* Also without a broker: it was recalled. */
	if (shrinks(l))
		shrink_step(l);
	if (l->state == ADMITTED)
		run_admitted(l, now, poked);
}

static uint64_t next_time(const struct tmem_lease *l)
{
	uint64_t next = UINT64_MAX;

	if (shrinks(l))
		return 1;
	if (l->state == AWAY)
		return l->retry_at;
	if (l->state == HELLO)
		return l->hello_at + WELCOME_MS;
	if (l->look_at)
		next = l->look_at;
	if (l->report_due)
		next = MIN(next, MAX(l->report_at, l->blocked_until));
	if (l->wanted)
		next = MIN(next, l->want_until);
	if (l->released_due || l->want_due)
		next = MIN(next, MAX(l->blocked_until, 1));
	return next;
}

static void set_timer(struct tmem_lease *l)
{
	uint64_t at = next_time(l);
	struct itimerspec when = { 0 };

	if (at != UINT64_MAX) {
		when.it_value.tv_sec = at / 1000;
		when.it_value.tv_nsec = at % 1000 * 1000000;
	}
	timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void tmem_lease_process(struct tmem_lease *l)
{
	bool poked = false;
	uint64_t value;

	/* Both are non-blocking: nothing to read is no news. */
	if (read(l->timer_fd, &value, sizeof(value)) < 0)
		value = 0;
	if (read(l->poke_fd, &value, sizeof(value)) == sizeof(value))
		poked = true;
	receive(l);
	run(l, poked);
	set_timer(l);
}

void tmem_lease_poke(struct tmem_lease *l)
{
	uint64_t now = clock_ms(CLOCK_MONOTONIC_COARSE);
	uint64_t after =
		atomic_load_explicit(&l->poke_after, memory_order_relaxed);

	if (now < after || !atomic_compare_exchange_strong(
				   &l->poke_after, &after, now + POKE_MS))
		return;
	eventfd_write(l->poke_fd, 1);
}

int tmem_lease_fd(struct tmem_lease *l)
{
	return l->epoll_fd;
}

void tmem_lease_info(struct tmem_lease *l, struct tmem_lease_info *info)
{
	*info = (struct tmem_lease_info){
		.connected = l->state == ADMITTED,
		.leased = l->leased,
		.target = l->target,
		.wanted = l->wanted,
		.recalls = l->recalls,
		.sent = l->sent,
	};
}

/* --------------------------------------------------------- begin and end */

static int check_config(const struct tmem_lease_config *config,
			unsigned int num)
{
	const size_t most = sizeof(((struct sockaddr_un *)0)->sun_path);

	if (!config || config->size != sizeof(*config) || !num ||
	    (config->flags & ~TMEM_LEASE_CONFIG_KEPT) || !config->socket ||
	    !*config->socket || strlen(config->socket) >= most ||
	    !config->name || !tmem_lease_name_ok(config->name) ||
	    config->weight > TMEM_LEASE_MAX_WEIGHT ||
	    config->max > TMEM_LEASE_MAX_BYTES)
		return -EINVAL;
	return 0;
}

static uint64_t reserved_of(struct tmem_tenant **tenants, unsigned int num)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < num; i++) {
		struct tmem_limits limits;

		tmem_tenant_get_limits(tenants[i], &limits);
		sum += tmem_reservation_cost(limits.persistent_reserved);
	}
	/* A store without a promise needs room to begin with, too. */
	return MAX(sum, tmem_reservation_cost(1));
}

static int open_fds(struct tmem_lease *l)
{
	struct epoll_event event = { .events = EPOLLIN };

	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->timer_fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	l->poke_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->epoll_fd < 0 || l->timer_fd < 0 || l->poke_fd < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->timer_fd, &event) ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->poke_fd, &event))
		return -errno;
	return 0;
}

static int begin(struct tmem_lease *l)
{
	uint64_t held = store_held(l);
	int error = open_fds(l);

	if (error)
		return error;
	l->retry_ms = RETRY_MIN_MS;
	/* Pages of a process before may be more than the reservations. */
	l->leased = l->target = MAX(l->reserved, held);
	error = tmem_store_set_max(l->store, l->leased);
	l->set = l->leased;
	return error;
}

/* Until the broker has said yes or no, or is not there. */
static void wait_admitted(struct tmem_lease *l)
{
	uint64_t end = now_ms() + OPEN_MS;

	tmem_lease_process(l);
	while (l->state == HELLO && now_ms() < end) {
		struct pollfd fd = { .fd = l->epoll_fd, .events = POLLIN };

		poll(&fd, 1, end - now_ms());
		tmem_lease_process(l);
	}
}

int tmem_lease_open(struct tmem_store *store, struct tmem_tenant **tenants,
		    unsigned int num, const struct tmem_lease_config *config,
		    struct tmem_lease **lease, char *why, size_t size)
{
	struct tmem_lease *l;
	int error = check_config(config, num);

	if (error || !store || !tenants || !lease)
		return -EINVAL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->fd = l->epoll_fd = l->timer_fd = l->poke_fd = -1;
	l->store = store;
	l->num_tenants = num;
	l->tenants = calloc(num, sizeof(*tenants));
	l->socket = strdup(config->socket);
	strcpy(l->name, config->name);
	l->flags = config->flags;
	l->weight = config->weight;
	l->report = config->report;
	l->opaque = config->opaque;
	l->reserved = reserved_of(tenants, num);
	l->own_max = config->max ? MAX(config->max, l->reserved) : 0;
	error = l->tenants && l->socket ? begin(l) : -ENOMEM;
	if (!error) {
		memcpy(l->tenants, tenants, num * sizeof(*tenants));
		l->opening = true;
		wait_admitted(l);
		l->opening = false;
		if (l->refused) {
			snprintf(why, size, "%s", l->why);
			error = -EACCES;
		}
	}
	if (error) {
		tmem_lease_close(l);
		return error;
	}
	*lease = l;
	return 0;
}

void tmem_lease_close(struct tmem_lease *l)
{
	if (!l)
		return;
	/* Those that were never opened are -1, which close(2) minds no more. */
	close(l->fd);
	close(l->poke_fd);
	close(l->timer_fd);
	close(l->epoll_fd);
	free(l->tenants);
	free(l->socket);
	free(l);
}
