// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A broker, by its protocol
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "source.h"

static int fail(struct source *s, struct why *why, const char *what)
{
	source_close(s);
	return why_set(why, "--%s=%s: %s", s->option, s->path, what);
}

static int broker_connect(struct source *s, struct why *why)
{
	if (s->fd >= 0)
		return 0;
	return source_connect(s, SOCK_SEQPACKET, "broker there",
			      "is tmem-broker running, and is that its socket?",
			      why);
}

static int request(struct source *s, const union tmem_lease_message *m,
		   struct why *why)
{
	int error;

	do
		error = tmem_lease_send(s->fd, m);
	while (error == -EAGAIN && !source_wait(s, POLLOUT));
	if (error == -EAGAIN)
		return fail(s, why, "the broker does not read");
	return error ? fail(s, why, "the broker is gone") : 0;
}

/* The next message of the answer; REFUSED is one, too. */
static int answer(struct source *s, union tmem_lease_message *m,
		  struct why *why)
{
	char wrong[200], text[300];
	int error;

	for (;;) {
		error = tmem_lease_receive(s->fd, m, wrong, sizeof(wrong));
		if (error != -EAGAIN || source_wait(s, POLLIN))
			break;
	}
	switch (error) {
	case 0:
		return 0;
	case -EAGAIN:
		return fail(s, why, "the broker does not answer");
	case -EPROTO:
		snprintf(text, sizeof(text),
			 "what is there speaks another protocol: %s", wrong);
		return fail(s, why, text);
	default:
		return fail(s, why,
			    "the broker has closed the connection: it does so "
			    "when it ends, and to who is no operator: root, "
			    "its user and its group");
	}
}

static const char *state_text(uint64_t state)
{
	switch (state) {
	case TMEM_LEASE_WAITING:
		return "waiting";
	case TMEM_LEASE_ADMITTED:
		return "admitted";
	case TMEM_LEASE_ABSENT:
		return "absent";
	default:
		return "unknown";
	}
}

static void take_store(struct vm *vm, const struct tmem_lease_store *m)
{
	vm_set_name(vm, "", m->name);
	vm->state = state_text(m->state);
	vm->pid = m->pid;
	vm->uid = m->uid;
	vm_set_age(vm);
	vm->frozen = m->frozen;
	vm->reserved = m->reserved;
	vm->max = m->max;
	vm->weight = m->weight;
	vm->benefit = m->benefit;
	vm->leased = m->leased;
	vm->target = m->target;
	vm->wanted = m->wanted;
	vm->evidence = m->evidence;
	vm->held = m->held;
	vm->fixed = m->fixed;
	vm->reclaimable = m->reclaimable;
	vm->persistent_raw = m->persistent_raw;
	vm->ephemeral_raw = m->ephemeral_raw;
	vm->stored = m->stored;
	vm->puts = m->puts;
	vm->gets = m->gets;
	vm->misses = m->misses;
	vm->refused = m->refused;
	vm->evictions = m->evictions;
	vm->refaults = m->refaults;
	vm->pressure = m->pressure;
}

/* One message of STATUS' answer: 1, more follows; 0; -1. */
static int take_status(struct source *s, struct view *view,
		       const union tmem_lease_message *m, char *last,
		       struct why *why)
{
	struct vm *vm;

	switch (m->header.type) {
	case TMEM_LEASE_HOST:
		view->host = m->host;
		view->has_host = true;
		return 1;
	case TMEM_LEASE_STORE:
		/* By name; so it ends, whatever the peer is. */
		if (strcmp(m->store.name, last) <= 0)
			return fail(s, why,
				    "the broker's stores are not in "
				    "order");
		vm = view_add(view);
		if (!vm)
			return fail(s, why,
				    "the broker says that it has more "
				    "stores than it can");
		strcpy(last, m->store.name);
		take_store(vm, &m->store);
		return 1;
	case TMEM_LEASE_DONE:
		return 0;
	default:
		return fail(s, why, "the broker's answer is none");
	}
}

static int broker_read(struct source *s, struct view *view, struct why *why)
{
	char last[TMEM_LEASE_NAME_SIZE] = "";
	union tmem_lease_message m;
	int more = 1;

	if (broker_connect(s, why))
		return -1;
	tmem_lease_begin(&m, TMEM_LEASE_STATUS);
	if (request(s, &m, why))
		return -1;
	while (more > 0) {
		if (answer(s, &m, why))
			return -1;
		more = take_status(s, view, &m, last, why);
	}
	return more;
}

static void fill_change(union tmem_lease_message *m, const struct vm *vm,
			const struct change *change)
{
	switch (change->kind) {
	case CHANGE_LIMITS:
		tmem_lease_begin(m, TMEM_LEASE_LIMITS);
		m->limits.max = change->max;
		m->limits.weight = change->weight;
		strcpy(m->limits.name, vm->name);
		break;
	case CHANGE_FREEZE:
		tmem_lease_begin(m, TMEM_LEASE_FREEZE);
		m->freeze.frozen = change->frozen;
		strcpy(m->freeze.name, vm->name);
		break;
	default:
		tmem_lease_begin(m, TMEM_LEASE_SHRINK);
		m->shrink.bytes = change->bytes;
		strcpy(m->shrink.name, vm->name);
		break;
	}
}

static int tell_change(const struct vm *vm, const struct change *change,
		       struct why *done)
{
	char max[BYTES_TEXT], now[BYTES_TEXT];

	switch (change->kind) {
	case CHANGE_LIMITS:
		bytes_text(change->max ? change->max : vm->max, max);
		why_set(done, "'%s': max %s, weight %llu", vm->name, max,
			(unsigned long long)(change->weight ? change->weight
							    : vm->weight));
		break;
	case CHANGE_FREEZE:
		bytes_text(vm->leased, now);
		if (change->frozen)
			why_set(done,
				"'%s': its lease stays %s until 'tmemctl thaw "
				"%s', but for pressure of the host",
				vm->name, now, vm->name);
		else
			why_set(done, "'%s': its lease moves again", vm->name);
		break;
	default:
		why_set(done,
			"'%s': %s are recalled, or what is above its "
			"reservation of %s",
			vm->name, bytes_text(change->bytes, now),
			bytes_text(vm->reserved, max));
		break;
	}
	return 0;
}

static int broker_change(struct source *s, const struct vm *vm,
			 const struct change *change, struct why *why)
{
	union tmem_lease_message m;

	if (broker_connect(s, why))
		return -1;
	fill_change(&m, vm, change);
	if (request(s, &m, why) || answer(s, &m, why))
		return -1;
	if (m.header.type == TMEM_LEASE_REFUSED)
		return why_set(why, "%s", m.refused.text);
	if (m.header.type != TMEM_LEASE_DONE)
		return fail(s, why, "the broker's answer is none");
	return tell_change(vm, change, why);
}

const struct source_ops broker_ops = { broker_read, broker_change };
