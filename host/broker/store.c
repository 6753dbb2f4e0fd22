// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stores: how they come, what they say, how they end
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker.h"
#include "evidence.h"
#include "listen.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* A look at a process costs two files: not more often than this. */
#define EVIDENCE_MS 2000
/* ... but where what is said has outgrown what was seen. */
#define DOUBT_MS 100
/* A look at what its cgroups leave it costs three files for each with a limit. */
#define ROOM_MS 1000
/* After a recall that is overdue the next look. */
#define OVERDUE_MS 10000

typedef unsigned long long ull; /* for lines */

/* ------------------------------------------------------------------ sums */

uint64_t leases_sum(const struct broker *b)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < b->num_stores; i++)
		sum += b->store[i]->leased;
	return sum;
}

uint64_t reserved_sum(const struct broker *b)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < b->num_stores; i++)
		sum += b->store[i]->reserved;
	return sum;
}

/* Those that the next broker is to wait for. */
void stores_note(struct broker *b)
{
	unsigned int admitted = 0;

	for (unsigned int i = 0; i < b->num_stores; i++)
		admitted += b->store[i]->state != TMEM_LEASE_WAITING;
	/* While some have not come back, they are those. */
	if (!b->grace_until_ms)
		listen_note(admitted, b->generation);
}

/* -------------------------------------------------------------- evidence */

static void look_at_process(struct broker *b, struct store *s, uint64_t now)
{
	s->evidence =
		evidence_bytes(b->config->proc, b->config->cgroup, s->who.pid);
	s->evidence_ms = now;
}

/* A process is larger than its store; and pages come and go while we look. */
static uint64_t tolerance(const struct broker *b, const struct store *s)
{
	return MAX(b->config->chunk, s->evidence / 8);
}

uint64_t store_believed(struct broker *b, struct store *s, uint64_t claim)
{
	uint64_t seen;

	if (s->evidence == UINT64_MAX)
		return claim;
	seen = s->evidence + tolerance(b, s);
	return MIN(claim, MAX(seen, s->promised));
}

static void check_claim(struct broker *b, struct store *s, uint64_t claim)
{
	bool believed = store_believed(b, s, claim) == claim;
	uint64_t now = now_ms();

	if (claim <= s->promised ||
	    now < s->evidence_ms + (believed ? EVIDENCE_MS : DOUBT_MS))
		return;
	look_at_process(b, s, now);
	if (store_believed(b, s, claim) == claim)
		return;
	b->counters.lies++;
	report_some(&s->limiter, s->name,
		    "says that it holds %llu bytes; process %d can be seen to "
		    "hold %llu: that is what counts",
		    (ull)claim, s->who.pid, (ull)s->evidence);
}

uint64_t store_fits(struct broker *b, struct store *s, uint64_t held,
		    uint64_t now)
{
	uint64_t above;

	if (s->wanted <= held)
		return UINT64_MAX;
	if (now >= s->room_ms + ROOM_MS) {
		s->room = evidence_room(b->config->proc, b->config->cgroup,
					s->who.pid);
		s->room_ms = now;
	}
	if (s->room > UINT64_MAX - held)
		return UINT64_MAX;
	/* In chunks: the last few bytes come and go. */
	above = held + s->room - MIN(held + s->room, s->reserved);
	return s->reserved + above - above % b->config->chunk;
}

/* ----------------------------------------------------------------- table */

static unsigned int position(const struct broker *b, const char *name)
{
	unsigned int low = 0, high = b->num_stores;

	while (low < high) {
		unsigned int mid = (low + high) / 2;

		if (strcmp(b->store[mid]->name, name) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

struct store *store_find(struct broker *b, const char *name)
{
	unsigned int at = position(b, name);

	if (at == b->num_stores || strcmp(b->store[at]->name, name))
		return NULL;
	return b->store[at];
}

static void insert(struct broker *b, struct store *s)
{
	unsigned int at = position(b, s->name);

	memmove(&b->store[at + 1], &b->store[at],
		(b->num_stores - at) * sizeof(b->store[0]));
	b->store[at] = s;
	b->num_stores++;
}

void store_remove(struct broker *b, struct store *s)
{
	unsigned int at = position(b, s->name);
	struct peer *peer = s->peer;

	memmove(&b->store[at], &b->store[at + 1],
		(b->num_stores - at - 1) * sizeof(b->store[0]));
	b->num_stores--;
	if (s->pidfd >= 0)
		close(s->pidfd);
	s->pidfd = -1;
	/* Events of this round may still point to it. */
	s->next_dead = b->dead_stores;
	b->dead_stores = s;
	s->peer = NULL;
	if (peer) {
		peer->store = NULL;
		peer_close(b, peer);
	}
	stores_note(b);
	plan_want(b);
}

/* Its process has ended. */
static void pid_ready(struct broker *b, struct watch *watch, uint32_t events)
{
	struct store *s = (struct store *)watch;

	if (s->pidfd < 0)
		return;
	close(s->pidfd);
	s->pidfd = -1;
	s->ended = true;
	if (s->peer)
		peer_close(b, s->peer); /* calls store_lost() */
	else if (!s->kept)
		store_remove(b, s);
}

void store_lost(struct broker *b, struct store *s)
{
	s->peer = NULL;
	if (s->state == TMEM_LEASE_WAITING || (s->ended && !s->kept)) {
		store_remove(b, s);
		return;
	}
	s->state = TMEM_LEASE_ABSENT;
	s->until_ms = now_ms() + b->config->grace_ms;
	s->wanted = 0;
	s->say = 0;
	s->say_agreed = false;
	/* What it waits for it will ask for again. */
	s->reserved = s->promised;
	store_limits(b, s);
	/* Nobody knows whether it has heard of a recall. */
	s->target = s->leased;
	s->deadline_ms = s->recalled_ms = 0;
	plan_want(b);
}

/* ---------------------------------------------------------------- limits */

static uint64_t least_of(uint64_t a, uint64_t b)
{
	return !a ? b : !b ? a : MIN(a, b);
}

void store_limits(struct broker *b, struct store *s)
{
	const struct config_vm *vm = config_vm(b->config, s->name);
	uint64_t max = vm ? vm->max : 0, weight = vm ? vm->weight : 1;

	/* Those of the operator replace the configured ones. */
	if (s->set_max)
		max = s->set_max;
	if (s->set_weight)
		weight = s->set_weight;
	max = least_of(least_of(max, s->own_max), b->config->limit);
	s->max = MAX(max, s->reserved);
	s->weight = least_of(weight, s->own_weight);
}

/* ----------------------------------------------------------------- hello */

/* Stores of a process; one of another PID namespace has no number here. */
static unsigned int stores_of(const struct broker *b, pid_t pid)
{
	unsigned int n = 0;

	for (unsigned int i = 0; pid > 0 && i < b->num_stores; i++)
		n += b->store[i]->who.pid == pid && !b->store[i]->ended;
	return n;
}

/*
 * Is there a place for another?  One process must not have them all.  If not it was
 * refused.
 */
static bool has_place(struct broker *b, struct peer *p, const char *name)
{
	if (b->num_stores == MAX_STORES)
		peer_refuse(b, p, name,
			    "'%s': there are %u stores, and no more are taken",
			    name, MAX_STORES);
	else if (stores_of(b, p->who.pid) >= b->config->process_stores)
		peer_refuse(b, p, name,
			    "'%s': process %d has %llu stores; see "
			    "process-stores= in [host]",
			    name, p->who.pid, (ull)b->config->process_stores);
	else
		return true;
	return false;
}

/* Does it say that it had a lease before, and memory with it? */
static bool had_lease(const struct tmem_lease_hello *hello)
{
	return hello->generation || hello->held > hello->reserved;
}

/*
 * May this peer be the store of that name?  If not it was refused.  @old: who
 * has the name.
 */
static bool may_have_name(struct broker *b, struct peer *p,
			  const struct tmem_lease_hello *hello,
			  const struct config_vm *vm, struct store *old)
{
	if (vm && vm->has_user && p->who.uid && p->who.uid != vm->user)
		peer_refuse(b, p, hello->name,
			    "'%s': is user %u's, and process %d is user %u's",
			    hello->name, vm->user, p->who.pid, p->who.uid);
	else if (old && old->who.uid != p->who.uid && p->who.uid)
		peer_refuse(b, p, hello->name,
			    "'%s': user %u has a store of that name, and "
			    "process %d is user %u's",
			    hello->name, old->who.uid, p->who.pid, p->who.uid);
	else if (old && !old->ended && old->who.pid != p->who.pid)
		peer_refuse(b, p, hello->name,
			    "'%s': process %d has that name, and lives",
			    hello->name, old->who.pid);
	else
		return true;
	return false;
}

/*
 * Has the configuration a place for a store, and does its reservation fit beside the
 * others?  If not @why says what lacks.
 */
static bool fits_reserved(struct broker *b, const char *name, uint64_t reserved,
			  const struct config_vm *vm, const struct store *old,
			  char why[TMEM_LEASE_TEXT_SIZE])
{
	uint64_t limit = b->config->limit;
	uint64_t others = reserved_sum(b) - (old ? old->reserved : 0);

	*why = 0;
	if (!vm)
		snprintf(why, TMEM_LEASE_TEXT_SIZE,
			 "'%s': there is no [vm %s] in %s, and no [default]",
			 name, name, b->options.config);
	else if (vm->reserved != UINT64_MAX && reserved > vm->reserved)
		snprintf(why, TMEM_LEASE_TEXT_SIZE,
			 "'%s': its reservation takes %llu bytes, and "
			 "reserved=%llu is configured",
			 name, (ull)reserved, (ull)vm->reserved);
	else if (vm->max && reserved > vm->max)
		snprintf(why, TMEM_LEASE_TEXT_SIZE,
			 "'%s': its reservation takes %llu bytes, and max=%llu "
			 "is configured",
			 name, (ull)reserved, (ull)vm->max);
	else if (old && old->set_max && reserved > old->set_max)
		snprintf(why, TMEM_LEASE_TEXT_SIZE,
			 "'%s': its reservation takes %llu bytes, and an "
			 "operator has set max=%llu",
			 name, (ull)reserved, (ull)old->set_max);
	else if (reserved > limit || others > limit - reserved)
		snprintf(why, TMEM_LEASE_TEXT_SIZE,
			 "'%s': its reservation takes %llu bytes, and %llu are "
			 "left of the host's limit of %llu beside the other "
			 "stores' reservations",
			 name, (ull)reserved, (ull)(limit - MIN(limit, others)),
			 (ull)limit);
	return !*why;
}

void store_reconfigured(struct broker *b, struct store *s)
{
	const struct config_vm *vm = config_vm(b->config, s->name);
	char why[TMEM_LEASE_TEXT_SIZE];

	s->set_max = s->set_weight = 0;
	store_limits(b, s);
	if (!fits_reserved(b, s->name, s->reserved, vm, s, why))
		report("%s: it goes on, and would be refused if it came now",
		       why);
}

static struct store *make_store(struct broker *b, struct peer *p,
				const struct tmem_lease_hello *hello)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->watch.ready = pid_ready;
	s->pidfd = -1;
	strcpy(s->name, hello->name);
	s->observed_ms = now_ms();
	s->benefit_now = BENEFIT_ONE;
	s->evidence = UINT64_MAX;
	insert(b, s);
	return s;
}

static void take_process(struct broker *b, struct store *s, struct peer *p,
			 int pidfd)
{
	if (s->pidfd >= 0)
		close(s->pidfd);
	s->who = p->who;
	s->ended = false;
	s->pidfd = pidfd;
	if (s->pidfd >= 0)
		broker_watch(b, &s->watch, s->pidfd, EPOLLIN, true);
}

/*
 * One that has had a lease: it is counted as what it holds, whether it fits or
 * not, since it is held.  A claim beyond the lease that we know of is no claim.
 */
static void come_back(struct broker *b, struct store *s,
		      const struct tmem_lease_hello *hello, bool known)
{
	uint64_t claim = hello->leased;

	if (known && s->state != TMEM_LEASE_WAITING)
		claim = MIN(claim, MAX(s->leased, s->reserved));
	s->promised = s->reserved;
	check_claim(b, s, MAX(claim, hello->held));
	s->leased = MAX(s->reserved, store_believed(b, s, claim));
	s->target = s->leased;
	s->state = TMEM_LEASE_ADMITTED;
	s->say = TMEM_LEASE_WELCOME;
	s->serial++;
}

/*
 * Who knows the last broker's generation had a lease of it; one for each process,
 * or one could end the time in which the others come back.
 */
static void survivor_is_back(struct broker *b,
			     const struct tmem_lease_hello *hello)
{
	if (!b->survivors || hello->generation != b->their_generation)
		return;
	if (!--b->survivors)
		b->grace_until_ms = 1; /* all are back: it ends now */
}

/*
 * The configuration has no place for a store that was there before: it keeps what
 * it holds and gets no more, and of its reservation what is left is promised.
 */
static void tolerate(struct broker *b, struct store *s, const char *why)
{
	uint64_t others = reserved_sum(b) - s->reserved;
	uint64_t left = b->config->limit - MIN(b->config->limit, others);

	s->reserved = s->promised = MIN(s->reserved, left);
	s->own_max = MAX(s->leased, 1);
	store_limits(b, s);
	report_some(&s->limiter, s->name,
		    "was there before, and keeps its %llu bytes: %s",
		    (ull)s->leased, why);
}

static void hello(struct broker *b, struct peer *p,
		  const struct tmem_lease_hello *hello)
{
	const struct config_vm *vm = config_vm(b->config, hello->name);
	struct store *s = store_find(b, hello->name);
	bool known = s, returns, fits, first;
	int pidfd;
	struct peer *before = s ? s->peer : NULL;
	char why[TMEM_LEASE_TEXT_SIZE];

	if (!may_have_name(b, p, hello, vm, s))
		return;
	fits = fits_reserved(b, hello->name, hello->reserved, vm, s, why);
	/*
	 * Who had a lease of the broker before this one has memory, and is counted
	 * whatever is configured now, or others would be leased the same bytes.
	 */
	if (!fits && (!b->survivors || s || !had_lease(hello))) {
		peer_refuse(b, p, hello->name, "%s", why);
		return;
	}
	if (!s && !has_place(b, p, hello->name))
		return;
	/* Of a dead one nothing can be seen, and its end was before. */
	pidfd = evidence_pidfd(p->fd, p->who.pid);
	if (p->who.pid > 0 && !evidence_lives(pidfd)) {
		peer_refuse(b, p, hello->name, "'%s': process %d has ended",
			    hello->name, p->who.pid);
		close(pidfd);
		return;
	}
	if (!s)
		s = make_store(b, p, hello);
	if (!s) {
		peer_fail(b, p, "out of memory");
		close(pidfd);
		return;
	}
	/* The same store again: the first connection is no more. */
	if (before) {
		before->store = NULL;
		peer_close(b, before);
	}
	/* Another process that holds nothing: what the last one had is free. */
	returns = had_lease(hello) || (known && s->who.pid == p->who.pid &&
				       s->state != TMEM_LEASE_WAITING);
	p->store = s;
	s->peer = p;
	s->kept = hello->flags & TMEM_LEASE_KEPT;
	s->reserved = hello->reserved;
	s->own_max = hello->max;
	s->own_weight = hello->weight;
	s->report.held = hello->held;
	s->report.fixed = hello->fixed;
	s->hello_ms = now_ms();
	s->deadline_ms = s->recalled_ms = 0;
	s->overdue = false;
	s->wanted = 0;
	s->say_agreed = false;
	s->backoff = 0;
	first = !stores_of(b, p->who.pid);
	take_process(b, s, p, pidfd);
	s->evidence_ms = 0;
	s->room_ms = 0;
	store_limits(b, s);
	if (returns) {
		come_back(b, s, hello, known);
		if (!known && first)
			survivor_is_back(b, hello);
		if (!fits)
			tolerate(b, s, why);
	} else {
		s->state = TMEM_LEASE_WAITING;
		s->leased = s->target = s->promised = 0;
		s->until_ms = now_ms() + WAITING_MS + b->config->grace_ms;
	}
	stores_note(b);
	plan_want(b);
	store_tell(b, s);
}

/* -------------------------------------------------------------- messages */

static void reported(struct broker *b, struct store *s,
		     const struct tmem_lease_report *report)
{
	uint64_t most = MAX(report->held, report->fixed);

	if (report->fixed > report->held) {
		peer_fail(b, s->peer, "REPORT: fixed is more than held");
		return;
	}
	s->report = *report;
	s->report_ms = now_ms();
	check_claim(b, s, most);
	plan_want(b);
}

/* All of it was released. */
static void recall_done(struct broker *b, struct store *s)
{
	if (s->recalled_ms)
		histogram_add(&b->recall, now_ms() - s->recalled_ms);
	s->recalled_ms = 0;
}

static void released(struct broker *b, struct store *s,
		     const struct tmem_lease_released *m)
{
	if (m->serial > s->serial) {
		peer_fail(b, s->peer, "RELEASED: a serial that was never sent");
		return;
	}
	/* It has crossed one of ours. */
	if (m->serial < s->serial)
		return;
	if (m->leased > s->leased) {
		peer_fail(b, s->peer, "RELEASED: more than its lease");
		return;
	}
	s->leased = MAX(m->leased, s->promised);
	/* What it reported before is more than it holds now. */
	s->report.held = MIN(s->report.held, s->leased);
	s->report.fixed = MIN(s->report.fixed, s->report.held);
	if (s->leased <= s->target) {
		s->target = s->leased;
		s->deadline_ms = 0;
		s->overdue = false;
		recall_done(b, s);
	}
	plan_want(b);
}

/* Not so: the reservation is what was promised. */
static void disagree(struct broker *b, struct store *s)
{
	s->reserved = s->promised;
	s->say_agreed = true;
	b->counters.refused++;
	report_some(&s->limiter, s->name, "refused: %s", s->why_not);
}

void store_promised(struct store *s)
{
	if (s->promised == s->reserved)
		return;
	s->promised = s->reserved;
	s->say_agreed = s->state == TMEM_LEASE_ADMITTED;
}

/*
 * A reservation that has become larger is paid for by plan.c, as a new store's
 * is: until then it is not promised.
 */
static void terms(struct broker *b, struct store *s,
		  const struct tmem_lease_terms *m)
{
	const struct config_vm *vm = config_vm(b->config, s->name);

	s->own_max = m->max;
	s->own_weight = m->weight;
	s->terms_number = m->number;
	*s->why_not = 0;
	s->say_agreed = false;
	/* One that is no longer configured has no more than it has. */
	if (m->reserved > s->promised)
		fits_reserved(b, s->name, m->reserved, vm, s, s->why_not);
	if (*s->why_not)
		disagree(b, s);
	else
		s->reserved = m->reserved;
	store_limits(b, s);
	if (s->reserved > s->leased) {
		s->reserve_until_ms =
			now_ms() + WAITING_MS + b->config->grace_ms;
	} else if (!*s->why_not) {
		s->promised = s->reserved;
		s->say_agreed = true;
		/* It is not to come down to less than it is promised now. */
		if (s->target < s->reserved)
			plan_recall(b, s, s->reserved);
	}
	plan_want(b);
	store_tell(b, s);
}

void store_message(struct broker *b, struct peer *p,
		   const union tmem_lease_message *m)
{
	struct store *s = p->store;

	if (m->header.type == TMEM_LEASE_HELLO) {
		hello(b, p, &m->hello);
		return;
	}
	if (s->state == TMEM_LEASE_WAITING) {
		peer_fail(b, p, "did not wait for its WELCOME");
		return;
	}
	switch (m->header.type) {
	case TMEM_LEASE_REPORT:
		reported(b, s, &m->report);
		break;
	case TMEM_LEASE_WANT:
		s->wanted = m->want.bytes;
		plan_want(b);
		break;
	case TMEM_LEASE_TERMS:
		terms(b, s, &m->terms);
		break;
	default:
		released(b, s, &m->released);
		break;
	}
}

/* ------------------------------------------------------------------ tell */

static void fill_welcome(struct broker *b, struct store *s,
			 struct tmem_lease_welcome *m)
{
	m->serial = s->serial;
	m->leased = s->leased;
	m->generation = b->generation;
	m->max = s->max;
	m->chunk = b->config->chunk;
	m->report_ms = b->config->report_ms;
}

static void fill_lease(struct broker *b, struct store *s,
		       union tmem_lease_message *m)
{
	tmem_lease_begin(m, s->say);
	switch (s->say) {
	case TMEM_LEASE_WELCOME:
		fill_welcome(b, s, &m->welcome);
		break;
	case TMEM_LEASE_GRANT:
		m->grant.serial = s->serial;
		m->grant.leased = s->leased;
		break;
	default:
		m->recall.serial = s->serial;
		m->recall.leased = s->target;
		m->recall.deadline_ms =
			s->deadline_ms - MIN(s->deadline_ms, now_ms());
		break;
	}
}

static void fill_agreed(struct store *s, struct tmem_lease_agreed *m)
{
	m->reserved = s->promised;
	m->max = s->max;
	m->number = s->terms_number;
	strcpy(m->text, s->why_not);
}

/* The next thing that it has not been told, in @m.  False: there is none. */
static bool next_word(struct broker *b, struct store *s,
		      union tmem_lease_message *m)
{
	if (s->say) {
		fill_lease(b, s, m);
	} else if (s->state != TMEM_LEASE_ADMITTED) {
		return false;
	} else if (s->say_agreed) {
		tmem_lease_begin(m, TMEM_LEASE_AGREED);
		fill_agreed(s, &m->agreed);
	} else if (s->backoff != b->backoff.level) {
		tmem_lease_begin(m, TMEM_LEASE_PRESSURE);
		m->pressure.level = b->backoff.level;
	} else {
		return false;
	}
	return true;
}

/* It has been told. */
static void word_sent(struct broker *b, struct store *s,
		      const union tmem_lease_message *m)
{
	switch (m->header.type) {
	case TMEM_LEASE_AGREED:
		s->say_agreed = false;
		break;
	case TMEM_LEASE_PRESSURE:
		s->backoff = m->pressure.level;
		break;
	case TMEM_LEASE_WELCOME:
		histogram_add(&b->welcome, now_ms() - s->hello_ms);
		/* Perhaps recalled before it could be told what from. */
		s->say = s->target < s->leased ? TMEM_LEASE_RECALL : 0;
		break;
	default:
		s->say = 0;
		break;
	}
}

/*
 * There is no queue: of a lease only the last word counts, so a store that does
 * not read costs no room here, and hears the last one.
 */
void store_tell(struct broker *b, struct store *s)
{
	union tmem_lease_message m;
	int error = 0;

	while (s->peer && !error && next_word(b, s, &m)) {
		error = tmem_lease_send(s->peer->fd, &m);
		if (!error)
			word_sent(b, s, &m);
	}
	if (!s->peer)
		return;
	if (error && error != -EAGAIN)
		peer_close(b, s->peer);
	else
		peer_wait_write(b, s->peer, error);
}

/* ------------------------------------------------------------------ time */

/*
 * A recall that was not paid in time: what the process cannot be seen to hold
 * it cannot keep by saying nothing.
 */
static void recall_overdue(struct broker *b, struct store *s, uint64_t now)
{
	uint64_t keeps;

	look_at_process(b, s, now);
	keeps = MAX(s->target, store_believed(b, s, s->leased));
	if (!s->overdue) {
		b->counters.overdue++;
		report_some(&s->limiter, s->name,
			    "has not released what was recalled: its lease is "
			    "%llu bytes instead of %llu, and process %d can be "
			    "seen to hold %llu",
			    (ull)s->leased, (ull)s->target, s->who.pid,
			    (ull)s->evidence);
	}
	s->overdue = true;
	s->deadline_ms = now + OVERDUE_MS;
	if (keeps < s->leased) {
		s->leased = keeps;
		plan_want(b);
	}
	if (s->leased <= s->target) {
		s->deadline_ms = 0;
		recall_done(b, s);
	}
}

/* Its reservation was waited for in vain: @why. */
static void not_paid(struct broker *b, const struct store *s,
		     char why[TMEM_LEASE_TEXT_SIZE])
{
	snprintf(why, TMEM_LEASE_TEXT_SIZE,
		 "'%s': its reservation takes %llu bytes, and of the host's "
		 "limit of %llu other stores have %llu that they did not "
		 "release",
		 s->name, (ull)s->reserved, (ull)b->config->limit,
		 (ull)(leases_sum(b) - s->leased));
}

static uint64_t store_tick(struct broker *b, struct store *s, uint64_t now)
{
	char why[TMEM_LEASE_TEXT_SIZE];
	uint64_t next = UINT64_MAX;

	if (s->state != TMEM_LEASE_ADMITTED) {
		if (now < s->until_ms) {
			next = s->until_ms;
		} else if (s->state == TMEM_LEASE_ABSENT) {
			store_remove(b, s);
			return UINT64_MAX;
		} else {
			not_paid(b, s, why);
			peer_refuse(b, s->peer, s->name, "%s", why);
			return UINT64_MAX;
		}
	}
	if (s->reserved > s->promised && s->state == TMEM_LEASE_ADMITTED) {
		if (now < s->reserve_until_ms) {
			next = s->reserve_until_ms;
		} else {
			not_paid(b, s, s->why_not);
			disagree(b, s);
			store_tell(b, s);
		}
	}
	if (s->deadline_ms && now >= s->deadline_ms)
		recall_overdue(b, s, now);
	return s->deadline_ms ? MIN(next, s->deadline_ms) : next;
}

uint64_t stores_tick(struct broker *b, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (unsigned int i = b->num_stores; i-- > 0;) {
		uint64_t at = store_tick(b, b->store[i], now);

		next = MIN(next, at);
	}
	return next;
}
