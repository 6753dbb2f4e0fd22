// SPDX-License-Identifier: BSD-3-Clause
/*
 * What a store and its broker say, and what the store is made to do by that
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/*
 * What was wanted is forgotten when the store no longer grows, and at once when
 * it has given back a quarter of what it held: its work is done, and others
 * would be refused what it does not use.
 */
#define WANT_MS	       5000
#define WANT_BACK_PART 4
/* Bytes that one call takes from the store. */
#define SHRINK_STEP (4 * MIB)
/* What was released is told so often on the way. */
#define RELEASED_MS 100
/* A peer that does not read is tried again. */
#define BLOCKED_MS 100
/* What a store that comes back keeps above what it holds, until it has a chunk.
 */
#define SPARE (4 * MIB)

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

uint64_t lease_held(struct tmem_lease *l)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_store_stats(l->store, &stats);
	return stats.held_bytes;
}

void lease_set_max(struct tmem_lease *l, uint64_t max)
{
	max = MAX(max, l->reserved);
	/* It fails where reservations have grown: the old limit stays. */
	if (max != l->set && !tmem_store_set_max(l->store, max))
		l->set = max;
}

/* The host's: what guests are told at least. */
static void set_pressure(struct tmem_lease *l, unsigned int level)
{
	l->pressure = level;
	tmem_store_set_pressure(l->store, level);
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

/* Why it was refused is the answer to a call, now or to come. */
static bool is_answer(const struct tmem_lease *l)
{
	bool unused = l->flags & TMEM_LEASE_CONFIG_LATER && !l->num_tenants;

	return l->refused && (l->opening || (unused && !l->known));
}

void lease_go_away(struct tmem_lease *l, const char *why)
{
	close(l->fd); /* and epoll forgets it */
	l->fd = -1;
	/* One line when it goes, not one each time that it is not there. */
	if (!l->told_away && !is_answer(l))
		tell(l, "%s: %s; the lease stays %llu bytes", l->socket, why,
		     (unsigned long long)l->leased);
	l->told_away = true;
	l->state = AWAY;
	l->retry_at = lease_now_ms() + l->retry_ms;
	l->retry_ms = MIN(2 * l->retry_ms, RETRY_MAX_MS);
	/* It does not grow by what nobody counts. */
	l->wanted = 0;
	l->want_due = l->released_due = l->report_due = l->terms_due = false;
	/* The next HELLO says what is promised; more is asked for anew. */
	l->asked = l->reserved;
	l->asked_until = 0;
	/* Nobody would take it back. */
	set_pressure(l, 0);
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
		l->blocked_until = lease_now_ms() + BLOCKED_MS;
	else
		lease_go_away(l, strerror(-error));
	return false;
}

/*
 * What it holds is claimed, and some room: what is idle of the last lease,
 * others may have by now.
 */
static void say_hello(struct tmem_lease *l)
{
	union tmem_lease_message m;
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_store_stats(l->store, &stats);
	tmem_lease_begin(&m, TMEM_LEASE_HELLO);
	l->leased = MIN(l->leased, MAX(stats.held_bytes + SPARE, l->reserved));
	l->leased = MAX(l->leased, l->reserved);
	l->target = MIN(l->target, l->leased);
	lease_set_max(l, l->target);
	/* Other threads put meanwhile: that is held, too. */
	tmem_store_stats(l->store, &stats);
	l->leased = MAX(l->leased, stats.held_bytes);
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
		l->hello_at = lease_now_ms();
	} else if (l->fd >= 0) {
		lease_go_away(l, "the broker does not read");
	}
}

void lease_connect(struct tmem_lease *l)
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
		lease_go_away(l, strerror(errno));
		return;
	}
	say_hello(l);
}

/* -------------------------------------------------------------- released */

void lease_say_released(struct tmem_lease *l)
{
	union tmem_lease_message m;
	uint64_t held = lease_held(l), leased;

	l->released_due = false;
	/* By puts that were under way when the limit came down. */
	if (held > l->set && l->set == l->target)
		l->stuck = true;
	/* The limit is what the store keeps to, or what it cannot get below. */
	leased = MAX(MAX(l->set, held), l->reserved);
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
	l->released_at = lease_now_ms();
}

/*
 * A step on the way down.  The limit comes down with what is held, so that what
 * was given back is not taken anew.
 */
void lease_shrink_step(struct tmem_lease *l)
{
	uint64_t before = lease_held(l), after;

	if (before > l->target) {
		uint64_t step = MIN(before - l->target, SHRINK_STEP);

		l->shrunk = true;
		lease_set_max(l, before - step);
		after = lease_held(l);
		/* The last step has given what there was, be it a part. */
		l->stuck =
			after > l->set && (l->set == l->target ||
					   after + SHRINK_STEP / 64 >= before);
	} else {
		l->stuck = false;
	}
	/* The rest comes as pages are flushed: puts are refused until then. */
	if (l->stuck || before <= l->target)
		lease_set_max(l, l->target);
	if (l->stuck || l->set == l->target ||
	    lease_now_ms() >= l->released_at + RELEASED_MS)
		l->released_due = true;
}

bool lease_shrinks(const struct tmem_lease *l)
{
	return l->set > l->target && !l->stuck;
}

void lease_look_at_stuck(struct tmem_lease *l)
{
	uint64_t held;

	if (!l->stuck)
		return;
	held = lease_held(l);
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
	if (l->target >= l->set || lease_held(l) <= l->target)
		lease_set_max(l, l->target);
}

/* -------------------------------------------------------------- messages */

static void welcome(struct tmem_lease *l, const struct tmem_lease_welcome *m)
{
	bool silent = l->flags & TMEM_LEASE_CONFIG_LATER && !l->told_away;

	l->state = ADMITTED;
	l->known = true;
	l->refused = false;
	l->told_away = false;
	l->retry_ms = RETRY_MIN_MS;
	l->serial = m->serial;
	l->generation = m->generation;
	l->max = m->max;
	l->chunk = MAX(m->chunk, 1);
	l->report_ms = m->report_ms;
	l->report_at = lease_now_ms() + m->report_ms;
	l->report_due = true;
	memset(&l->told, 0, sizeof(l->told));
	lease_is(l, m->leased, m->leased);
	if (silent) {
		l->look_at = lease_now_ms();
		return;
	}
	tell(l, "%s: the lease is %llu bytes, of at most %llu", l->socket,
	     (unsigned long long)l->leased, (unsigned long long)l->max);
	l->look_at = lease_now_ms();
}

static void recall(struct tmem_lease *l, const struct tmem_lease_recall *m)
{
	l->recalls++;
	l->serial = m->serial;
	lease_is(l, l->leased, MIN(m->leased, l->leased));
	/* What was idle is there at once. */
	if (!lease_shrinks(l))
		l->released_due = true;
}

/* The answer to the last TERMS; others have been replaced since. */
static void agreed(struct tmem_lease *l, const struct tmem_lease_agreed *m)
{
	if (m->number != l->number)
		return;
	l->max = m->max;
	l->disagreed = *m->text;
	if (l->disagreed) {
		snprintf(l->why, sizeof(l->why), "%s", m->text);
		l->asked = l->reserved;
		return;
	}
	l->reserved = MAX(m->reserved, l->need);
	l->asked = l->reserved;
	/* It is the lease's by now; a RECALL before it is void to that extent.
	 */
	l->leased = MAX(l->leased, l->reserved);
	l->target = MAX(l->target, l->reserved);
	lease_set_max(l, l->set);
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
		lease_go_away(l, l->why);
	} else if (l->state == ADMITTED && type == TMEM_LEASE_GRANT) {
		l->serial = m->grant.serial;
		lease_is(l, m->grant.leased, m->grant.leased);
		l->look_at = lease_now_ms();
	} else if (l->state == ADMITTED && type == TMEM_LEASE_RECALL) {
		recall(l, &m->recall);
	} else if (l->state == ADMITTED && type == TMEM_LEASE_AGREED) {
		agreed(l, &m->agreed);
	} else if (l->state == ADMITTED && type == TMEM_LEASE_PRESSURE) {
		set_pressure(l, m->pressure.level);
	} else {
		lease_go_away(l, "the broker said what has no place here");
	}
}

void lease_receive(struct tmem_lease *l)
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
			lease_go_away(l, error == -EPROTO
						 ? why
						 : "the broker is gone");
	}
}

/* ---------------------------------------------------------- what it says */

/* Of pressure, its own counts: the host's is no reason to ask for more. */
static bool near_its_lease(struct tmem_lease *l, const struct tmem_stats *stats)
{
	return pressure_of(l) > l->pressure ||
	       (l->pressure && stats->held_bytes > l->leased - l->leased / 8);
}

/* Does it need more, and how much? */
static void look_at_want(struct tmem_lease *l, const struct tmem_stats *stats,
			 uint64_t now)
{
	uint64_t refused = stats->puts_refused_limit + stats->evictions;
	/* What a recall evicts is not pushed out by the guest's puts. */
	bool grew = !l->shrunk && (stats->held_bytes > l->last_held ||
				   refused > l->last_refused);
	uint64_t want = l->wanted;

	if (grew && near_its_lease(l, stats)) {
		want = l->leased + MAX(2 * l->chunk, l->leased / 2);
		l->want_until = now + WANT_MS;
		l->want_held = stats->held_bytes;
	} else if (now >= l->want_until ||
		   stats->held_bytes <
			   l->want_held - l->want_held / WANT_BACK_PART) {
		want = 0;
	}
	l->shrunk = false;
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

void lease_look(struct tmem_lease *l, uint64_t now)
{
	union tmem_lease_message m;
	struct tmem_stats stats = { .size = sizeof(stats) };

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

void lease_say_want(struct tmem_lease *l)
{
	union tmem_lease_message m;

	tmem_lease_begin(&m, TMEM_LEASE_WANT);
	m.want.bytes = l->wanted;
	l->want_due = !say(l, &m) && l->state == ADMITTED;
}

void lease_say_terms(struct tmem_lease *l)
{
	union tmem_lease_message m;

	tmem_lease_begin(&m, TMEM_LEASE_TERMS);
	m.terms.reserved = MAX(l->asked, l->reserved);
	m.terms.max = l->own_max;
	m.terms.weight = l->weight;
	m.terms.number = ++l->number;
	l->terms_due = !say(l, &m) && l->state == ADMITTED;
}
