// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Connections: who may have one, how fast it may talk, and its end
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker.h"

/* Messages of one peer before others have their turn. */
#define TURN 16
/* Connections that are accepted before peers have their turn. */
#define ACCEPTS 32
#define DEAF_MS 100

static void set_events(struct broker *b, struct peer *p, uint32_t events)
{
	if (p->dead || p->events == events)
		return;
	p->events = events;
	broker_watch(b, &p->watch, p->fd, events, false);
}

void peer_wait_write(struct broker *b, struct peer *p, bool wait)
{
	uint32_t events = p->events & ~EPOLLOUT;

	set_events(b, p, wait ? events | EPOLLOUT : events);
}

static void set_role(struct broker *b, struct peer *p, enum role role)
{
	if (p->role == ROLE_NONE)
		b->num_half_open--;
	p->role = role;
}

void peer_close(struct broker *b, struct peer *p)
{
	struct store *store = p->store;

	if (p->dead)
		return;
	p->dead = true;
	set_role(b, p, p->role == ROLE_NONE ? ROLE_OPERATOR : p->role);
	close(p->fd);
	for (unsigned int i = 0; i < b->num_peers; i++) {
		if (b->peer[i] != p)
			continue;
		b->peer[i] = b->peer[--b->num_peers];
		break;
	}
	/* Events of this round may still point to it. */
	p->next_dead = b->dead_peers;
	b->dead_peers = p;
	p->store = NULL;
	if (store)
		store_lost(b, store);
}

static struct limiter *limiter_of(struct broker *b, struct peer *p)
{
	/* One that only waits is gone with its connection. */
	return p->store && p->store->state != TMEM_LEASE_WAITING
		       ? &p->store->limiter
		       : &b->limiter;
}

/* For people: a name is a claim until it was allowed. */
static const char *who_is(const struct peer *p, char text[96])
{
	if (p->store)
		snprintf(text, 96, "%s", p->store->name);
	else
		snprintf(text, 96, "process %d, user %u", p->who.pid,
			 p->who.uid);
	return text;
}

void peer_fail(struct broker *b, struct peer *p, const char *why)
{
	char who[96];

	b->counters.bad++;
	report_some(limiter_of(b, p), who_is(p, who), "connection ended: %s",
		    why);
	peer_close(b, p);
}

void peer_fill_refused(union tmem_lease_message *m, const char *format,
		       va_list ap)
{
	tmem_lease_begin(m, TMEM_LEASE_REFUSED);
	vsnprintf(m->refused.text, sizeof(m->refused.text), format, ap);
}

void peer_refuse(struct broker *b, struct peer *p, const char *name,
		 const char *format, ...)
{
	union tmem_lease_message m;
	va_list ap;

	va_start(ap, format);
	peer_fill_refused(&m, format, ap);
	va_end(ap);
	b->counters.refused++;
	report_some(limiter_of(b, p), name, "refused: %s", m.refused.text);
	/* If it does not fit into an empty socket nothing would. */
	tmem_lease_send(p->fd, &m);
	peer_close(b, p);
}

/* ------------------------------------------------------------------ rate */

/* May it say one more?  Else it is not read from until peers_tick(). */
static bool take_token(struct broker *b, struct peer *p)
{
	const uint64_t most = PEER_BURST * 1000;
	uint64_t now = now_ms();

	p->tokens += (now - p->tokens_ms) * PEER_RATE;
	p->tokens_ms = now;
	if (p->tokens > most)
		p->tokens = most;
	if (p->tokens >= 1000) {
		p->tokens -= 1000;
		return true;
	}
	if (!p->throttled) {
		char who[96];

		p->throttled = true;
		b->counters.throttled++;
		report_some(limiter_of(b, p), who_is(p, who),
			    "more than %u messages a second: the rest waits",
			    PEER_RATE);
	}
	set_events(b, p, p->events & ~EPOLLIN);
	return false;
}

/* -------------------------------------------------------------- messages */

static bool is_operators(unsigned int type)
{
	return type >= TMEM_LEASE_STATUS && type < TMEM_LEASE_HOST;
}

static bool is_stores(unsigned int type)
{
	return type < TMEM_LEASE_WELCOME;
}

static void first_message(struct broker *b, struct peer *p,
			  const union tmem_lease_message *m)
{
	unsigned int type = m->header.type;

	if (type == TMEM_LEASE_HELLO) {
		set_role(b, p, ROLE_STORE);
	} else if (is_operators(type)) {
		if (!operator_allowed(&p->who)) {
			peer_fail(b, p,
				  "operators are root, and the broker's user "
				  "and group");
			return;
		}
		set_role(b, p, ROLE_OPERATOR);
	}
}

static void handle(struct broker *b, struct peer *p,
		   const union tmem_lease_message *m)
{
	unsigned int type = m->header.type;
	char why[100];

	if (p->role == ROLE_NONE)
		first_message(b, p, m);
	if (p->dead)
		return;
	if (p->role == ROLE_STORE && is_stores(type) &&
	    (type == TMEM_LEASE_HELLO) == !p->store) {
		store_message(b, p, m);
	} else if (p->role == ROLE_OPERATOR && is_operators(type)) {
		operator_message(b, p, m);
	} else {
		snprintf(why, sizeof(why), "%s has no place here",
			 tmem_lease_type_name(type));
		peer_fail(b, p, why);
	}
}

static void read_some(struct broker *b, struct peer *p)
{
	union tmem_lease_message m;
	char why[200];

	for (unsigned int i = 0; i < TURN && !p->dead; i++) {
		int error;

		if (p->answering || !take_token(b, p))
			return;
		error = tmem_lease_receive(p->fd, &m, why, sizeof(why));
		if (!error)
			handle(b, p, &m);
		else if (error == -EPROTO)
			peer_fail(b, p, why);
		else if (error != -EAGAIN)
			peer_close(b, p);
		if (error)
			return;
	}
}

static void peer_ready(struct broker *b, struct watch *watch, uint32_t events)
{
	struct peer *p = (struct peer *)watch;

	if (p->dead)
		return;
	if (events & EPOLLOUT) {
		if (p->store)
			store_tell(b, p->store);
		else
			operator_answer(b, p);
	}
	/* What it said before it hung up is read first. */
	if (!p->dead && (events & EPOLLIN))
		read_some(b, p);
	else if (!p->dead && (events & (EPOLLHUP | EPOLLERR)))
		peer_close(b, p);
}

/* ---------------------------------------------------------------- accept */

/* Room for one more that has said nothing: the oldest such goes. */
static void drop_half_open(struct broker *b)
{
	struct peer *oldest = NULL;

	if (b->num_half_open < MAX_HALF_OPEN)
		return;
	for (unsigned int i = 0; i < b->num_peers; i++) {
		struct peer *p = b->peer[i];

		if (p->role == ROLE_NONE &&
		    (!oldest || p->opened_ms < oldest->opened_ms))
			oldest = p;
	}
	if (oldest)
		peer_fail(b, oldest, "says nothing, and others want to");
}

static void add_peer(struct broker *b, int fd)
{
	struct peer *p = calloc(1, sizeof(*p));
	socklen_t length = sizeof(p->who);

	if (!p || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &p->who, &length) ||
	    !broker_watch(b, &p->watch, fd, EPOLLIN, true)) {
		free(p);
		close(fd);
		return;
	}
	p->watch.ready = peer_ready;
	p->fd = fd;
	p->events = EPOLLIN;
	p->opened_ms = p->tokens_ms = now_ms();
	p->tokens = PEER_BURST * 1000;
	b->peer[b->num_peers++] = p;
	b->num_half_open++;
}

void peer_accept(struct broker *b, struct watch *watch, uint32_t events)
{
	for (unsigned int i = 0; i < ACCEPTS; i++) {
		int fd = accept4(b->listen_fd, NULL, NULL,
				 SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE ||
			    errno == ENOMEM || errno == ENOBUFS) {
				/* Not at full speed. */
				b->deaf_until_ms = now_ms() + DEAF_MS;
				broker_watch(b, &b->listen_watch, b->listen_fd,
					     0, false);
			}
			return;
		}
		drop_half_open(b);
		if (b->num_peers == MAX_PEERS) {
			report_some(&b->limiter, "socket",
				    "%u connections, no more are taken",
				    MAX_PEERS);
			close(fd);
			continue;
		}
		add_peer(b, fd);
	}
}

/* ------------------------------------------------------------------ time */

/* When it wants to be looked at again. */
static uint64_t peer_tick(struct broker *b, struct peer *p, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	if (p->role == ROLE_NONE) {
		next = p->opened_ms + HALF_OPEN_MS;
		if (now >= next) {
			peer_fail(b, p, "said nothing for 5 s");
			return UINT64_MAX;
		}
	}
	if (p->throttled) {
		/* For a tenth of a second's messages at once. */
		uint64_t at = p->tokens_ms + 100;

		if (now < at)
			return at < next ? at : next;
		p->throttled = false;
	}
	if (!p->answering)
		set_events(b, p, p->events | EPOLLIN);
	else
		set_events(b, p, p->events & ~EPOLLIN);
	return next;
}

uint64_t peers_tick(struct broker *b, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	if (b->deaf_until_ms) {
		if (now >= b->deaf_until_ms) {
			b->deaf_until_ms = 0;
			broker_watch(b, &b->listen_watch, b->listen_fd, EPOLLIN,
				     false);
		} else {
			next = b->deaf_until_ms;
		}
	}
	/* From the end, as one that is closed has the last in its place. */
	for (unsigned int i = b->num_peers; i-- > 0;) {
		uint64_t at = peer_tick(b, b->peer[i], now);

		if (at < next)
			next = at;
	}
	return next;
}
