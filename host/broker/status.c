// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Operators: what they ask, and what they may change
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "broker.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

bool operator_allowed(const struct ucred *who)
{
	return !who->uid || who->uid == geteuid() || who->gid == getegid();
}

/* ---------------------------------------------------------------- answers */

void status_fill_host(struct broker *b, struct tmem_lease_host *m)
{
	uint64_t now = now_ms();

	m->generation = b->generation;
	m->limit = b->config->limit;
	m->budget = MIN(b->budget.budget, b->config->limit);
	m->leased = leases_sum(b);
	m->reserved = reserved_sum(b);
	m->held = held_sum(b);
	m->available = b->available;
	m->headroom = b->config->headroom;
	m->pressure = b->budget.low;
	m->grace_ms = b->grace_until_ms - MIN(now, b->grace_until_ms);
	m->stores = b->num_stores;
	m->peers = b->num_peers;
	m->grants = b->counters.grants;
	m->recalls = b->counters.recalls;
	m->overdue = b->counters.overdue;
	m->refused = b->counters.refused;
	m->lies = b->counters.lies;
	m->bad = b->counters.bad;
	m->throttled = b->counters.throttled;
	m->backoff = b->backoff.level;
}

void status_fill_store(const struct store *s, struct tmem_lease_store *m)
{
	strcpy(m->name, s->name);
	m->pid = s->who.pid;
	m->uid = s->who.uid;
	m->state = s->state;
	m->frozen = s->frozen;
	m->reserved = s->reserved;
	m->max = s->max;
	m->weight = s->weight;
	m->benefit = s->benefit_now;
	m->leased = s->leased;
	m->target = s->target;
	m->wanted = s->wanted;
	m->evidence = s->evidence;
	m->held = s->report.held;
	m->fixed = s->report.fixed;
	m->reclaimable = s->report.reclaimable;
	m->persistent_raw = s->report.persistent_raw;
	m->ephemeral_raw = s->report.ephemeral_raw;
	m->stored = s->report.stored;
	m->puts = s->report.puts;
	m->gets = s->report.gets;
	m->misses = s->report.misses;
	m->refused = s->report.refused;
	m->evictions = s->report.evictions;
	m->pressure = s->report.pressure;
	m->refaults = s->report.refaults;
}

/* The first store after @name: one may have gone since the last was sent. */
struct store *store_after(struct broker *b, const char *name)
{
	for (unsigned int i = 0; i < b->num_stores; i++)
		if (strcmp(b->store[i]->name, name) > 0)
			return b->store[i];
	return NULL;
}

/* The next message of the answer. */
static void next_answer(struct broker *b, struct peer *p,
			union tmem_lease_message *m)
{
	struct store *s = store_after(b, p->after);

	if (!p->host_sent) {
		tmem_lease_begin(m, TMEM_LEASE_HOST);
		status_fill_host(b, &m->host);
	} else if (s && !p->stores_sent) {
		tmem_lease_begin(m, TMEM_LEASE_STORE);
		status_fill_store(s, &m->store);
	} else {
		tmem_lease_begin(m, TMEM_LEASE_DONE);
	}
}

void operator_answer(struct broker *b, struct peer *p)
{
	union tmem_lease_message m;
	int error = 0;

	while (p->answering && !error) {
		next_answer(b, p, &m);
		error = tmem_lease_send(p->fd, &m);
		if (error)
			break;
		p->host_sent = true;
		if (m.header.type == TMEM_LEASE_STORE)
			strcpy(p->after, m.store.name);
		if (m.header.type == TMEM_LEASE_DONE)
			p->answering = false;
	}
	if (error && error != -EAGAIN) {
		peer_close(b, p);
		return;
	}
	peer_wait_write(b, p, error);
}

static void answer_done(struct broker *b, struct peer *p)
{
	p->answering = p->host_sent = p->stores_sent = true;
	operator_answer(b, p);
}

__attribute__((format(printf, 3, 4))) static void
answer_no(struct broker *b, struct peer *p, const char *format, ...)
{
	union tmem_lease_message m;
	va_list ap;

	va_start(ap, format);
	peer_fill_refused(&m, format, ap);
	va_end(ap);
	/* Who asks without reading has no answers to expect. */
	if (tmem_lease_send(p->fd, &m))
		peer_close(b, p);
}

/* --------------------------------------------------------------- requests */

static void set_limits(struct broker *b, struct peer *p, struct store *s,
		       const struct tmem_lease_limits *m)
{
	if (m->max && m->max < s->reserved) {
		answer_no(b, p,
			  "'%s': max %llu is less than its reservation's %llu",
			  s->name, (unsigned long long)m->max,
			  (unsigned long long)s->reserved);
		return;
	}
	if (m->max)
		s->set_max = m->max;
	if (m->weight)
		s->set_weight = m->weight;
	store_limits(b, s);
	plan_want(b);
	answer_done(b, p);
}

static void shrink(struct broker *b, struct peer *p, struct store *s,
		   uint64_t bytes)
{
	uint64_t target = s->target - MIN(bytes, s->target);

	if (s->state != TMEM_LEASE_ADMITTED) {
		answer_no(b, p, "'%s': is not connected", s->name);
		return;
	}
	if (target < s->reserved)
		target = s->reserved;
	if (target < s->target) {
		plan_recall(b, s, target);
		s->shrink_until_ms = s->deadline_ms;
	}
	answer_done(b, p);
}

static void status(struct broker *b, struct peer *p)
{
	p->answering = true;
	p->host_sent = p->stores_sent = false;
	*p->after = 0;
	operator_answer(b, p);
}

/* Requests but STATUS end with the name of a store. */
static const char *name_of(const union tmem_lease_message *m)
{
	switch (m->header.type) {
	case TMEM_LEASE_LIMITS:
		return m->limits.name;
	case TMEM_LEASE_FREEZE:
		return m->freeze.name;
	default:
		return m->shrink.name;
	}
}

void operator_message(struct broker *b, struct peer *p,
		      const union tmem_lease_message *m)
{
	struct store *s;

	if (m->header.type == TMEM_LEASE_STATUS) {
		status(b, p);
		return;
	}
	s = store_find(b, name_of(m));
	if (!s) {
		answer_no(b, p, "'%s': there is no such store", name_of(m));
		return;
	}
	switch (m->header.type) {
	case TMEM_LEASE_LIMITS:
		set_limits(b, p, s, &m->limits);
		break;
	case TMEM_LEASE_FREEZE:
		s->frozen = m->freeze.frozen;
		plan_want(b);
		answer_done(b, p);
		break;
	default:
		shrink(b, p, s, m->shrink.bytes);
		break;
	}
}
