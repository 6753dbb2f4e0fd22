// SPDX-License-Identifier: BSD-3-Clause
/*
 * A store's lease: tmem-lease.h is the manual
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* A broker that does not answer HELLO in that time is none. */
#define WELCOME_MS 60000
#define OPEN_MS	   30000
/* Pokes are at least so far apart; the last of them is looked at so late. */
#define POKE_MS	  20
#define SETTLE_MS 50
/* A reservation that was asked for in vain may come so much later. */
#define ASKED_MS 30000

static uint64_t clock_ms(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

uint64_t lease_now_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
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
		lease_look_at_stuck(l);
		lease_look(l, now);
	}
	if (l->asked_until && now >= l->asked_until) {
		/* Nobody has come for it. */
		l->asked = l->reserved = l->need;
		l->asked_until = 0;
		l->terms_due = true;
	}
	if (l->state == ADMITTED && l->terms_due && now >= l->blocked_until)
		lease_say_terms(l);
	if (l->state == ADMITTED && l->released_due && now >= l->blocked_until)
		lease_say_released(l);
	if (l->state == ADMITTED && l->want_due && now >= l->blocked_until)
		lease_say_want(l);
}

static void run(struct tmem_lease *l, bool poked)
{
	uint64_t now = lease_now_ms();

	if (l->state == AWAY && now >= l->retry_at)
		lease_connect(l);
	if (l->state == HELLO && now >= l->hello_at + WELCOME_MS)
		lease_go_away(l, "the broker does not answer");
	/* Also without a broker: it was recalled. */
	if (lease_shrinks(l))
		lease_shrink_step(l);
	if (l->state == ADMITTED)
		run_admitted(l, now, poked);
}

static uint64_t next_time(const struct tmem_lease *l)
{
	uint64_t next = UINT64_MAX;

	if (lease_shrinks(l))
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
	if (l->asked_until)
		next = MIN(next, l->asked_until);
	if (l->released_due || l->want_due || l->terms_due)
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
	lease_receive(l);
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
		.reserved = l->reserved,
		.pressure = l->pressure,
		.recalls = l->recalls,
		.sent = l->sent,
	};
}

/* --------------------------------------------------------- begin and end */

static int check_config(const struct tmem_lease_config *config,
			unsigned int num)
{
	const size_t most = sizeof(((struct sockaddr_un *)0)->sun_path);
	const uint32_t flags = TMEM_LEASE_CONFIG_KEPT | TMEM_LEASE_CONFIG_LATER;
	bool later;

	if (!config || config->size != sizeof(*config))
		return -EINVAL;
	later = config->flags & TMEM_LEASE_CONFIG_LATER;
	if (later != !num || (config->flags & ~flags) || !config->socket ||
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
		struct tmem_limits limits = { .size = sizeof(limits) };

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
	uint64_t held = lease_held(l);
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
static void wait_admitted(struct tmem_lease *l, unsigned int ms)
{
	uint64_t end = lease_now_ms() + ms;

	tmem_lease_process(l);
	while (l->state == HELLO && lease_now_ms() < end) {
		struct pollfd fd = { .fd = l->epoll_fd, .events = POLLIN };

		poll(&fd, 1, end - lease_now_ms());
		tmem_lease_process(l);
	}
}

/* @tenants are the store's from now on: -ENOMEM. */
static int take_tenants(struct tmem_lease *l, struct tmem_tenant **tenants,
			unsigned int num)
{
	struct tmem_tenant **copy = calloc(num + 1, sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	if (num)
		memcpy(copy, tenants, num * sizeof(*copy));
	free(l->tenants);
	l->tenants = copy;
	l->num_tenants = num;
	return 0;
}

int tmem_lease_open(struct tmem_store *store, struct tmem_tenant **tenants,
		    unsigned int num, const struct tmem_lease_config *config,
		    struct tmem_lease **lease, char *why, size_t size)
{
	struct tmem_lease *l;
	int error = check_config(config, num);

	if (error || !store || (num && !tenants) || !lease)
		return -EINVAL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->fd = l->epoll_fd = l->timer_fd = l->poke_fd = -1;
	l->store = store;
	l->socket = strdup(config->socket);
	strcpy(l->name, config->name);
	l->flags = config->flags;
	l->weight = config->weight;
	l->report = config->report;
	l->opaque = config->opaque;
	l->need = l->reserved = l->asked = reserved_of(tenants, num);
	l->own_max = config->max ? MAX(config->max, l->reserved) : 0;
	error = l->socket ? take_tenants(l, tenants, num) : -ENOMEM;
	if (!error)
		error = begin(l);
	if (!error) {
		l->opening = true;
		wait_admitted(l, num ? OPEN_MS : 0);
		l->opening = false;
		if (num && l->refused) {
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

int tmem_lease_set_tenants(struct tmem_lease *l, struct tmem_tenant **tenants,
			   unsigned int num)
{
	int error;

	if (num && !tenants)
		return -EINVAL;
	error = take_tenants(l, tenants, num);
	/* In place where there is no memory for a shorter list. */
	if (error && num <= l->num_tenants) {
		memcpy(l->tenants, tenants, num * sizeof(*tenants));
		l->num_tenants = num;
		error = 0;
	}
	return error;
}

/* ----------------------------------------------------------------- terms */

/* The reservation is as it was asked for. */
static int need_is(struct tmem_lease *l, uint64_t reserved)
{
	l->need = reserved;
	l->asked_until = 0;
	if (reserved < l->reserved || reserved < l->asked) {
		l->reserved = l->asked = reserved;
		l->terms_due = l->state != AWAY;
	}
	return 0;
}

/*
 * Nobody has promised anything to this store yet: it begins with its
 * reservations, as tmem_lease_open() does where there is no broker.
 */
static int go_on_alone(struct tmem_lease *l, uint64_t reserved)
{
	l->need = l->reserved = l->asked = reserved;
	l->leased = MAX(l->leased, reserved);
	l->target = MAX(l->target, reserved);
	lease_set_max(l, l->target);
	/* HELLO may be under way with less. */
	l->terms_due = l->state != AWAY;
	return 0;
}

/* Ask the broker, and wait for its answer. */
static int ask(struct tmem_lease *l, uint64_t reserved, unsigned int wait_ms,
	       unsigned int flags)
{
	uint64_t now = lease_now_ms(), end = now + wait_ms;

	if (l->state == AWAY)
		l->retry_at = now; /* it may have come back */
	tmem_lease_process(l);
	if (l->state != AWAY && l->asked != reserved) {
		l->asked = reserved;
		l->terms_due = true;
	}
	l->disagreed = false;
	tmem_lease_process(l);
	while (l->state != AWAY && !l->disagreed && l->reserved < reserved &&
	       now < end) {
		struct pollfd fd = { .fd = l->epoll_fd, .events = POLLIN };

		poll(&fd, 1, end - now);
		tmem_lease_process(l);
		now = lease_now_ms();
	}
	if (l->reserved >= reserved)
		return need_is(l, reserved);
	if (l->disagreed || l->refused)
		return -EACCES;
	if (!l->known && flags & TMEM_LEASE_ALONE)
		return go_on_alone(l, reserved);
	if (l->state == AWAY)
		return -ENOTCONN;
	l->asked_until = now + ASKED_MS;
	return -EAGAIN;
}

static int set_terms(struct tmem_lease *l,
		     const struct tmem_lease_terms_config *terms, char *why,
		     size_t size)
{
	uint64_t reserved = MAX(terms->reserved, tmem_reservation_cost(1));
	uint64_t max = terms->max ? MAX(terms->max, reserved) : 0;
	int error;

	if (max != l->own_max || terms->weight != l->weight) {
		l->own_max = max;
		l->weight = terms->weight;
		l->terms_due = l->state != AWAY;
	}
	l->opening = true;
	if (reserved <= l->reserved)
		error = need_is(l, reserved);
	else
		error = ask(l, reserved, terms->wait_ms, terms->flags);
	l->opening = false;
	if (error == -EACCES)
		snprintf(why, size, "%s", l->why);
	/* No more than that, whatever was granted. */
	if (max && l->target > MAX(max, l->reserved)) {
		l->target = MAX(max, l->reserved);
		l->stuck = false;
		if (lease_held(l) <= l->target)
			lease_set_max(l, l->target);
		l->released_due = l->state == ADMITTED;
	}
	return error;
}

int tmem_lease_set_terms(struct tmem_lease *l,
			 const struct tmem_lease_terms_config *terms, char *why,
			 size_t size)
{
	int error;

	if (!terms || terms->size != sizeof(*terms) ||
	    (terms->flags & ~TMEM_LEASE_ALONE) ||
	    terms->weight > TMEM_LEASE_MAX_WEIGHT ||
	    terms->reserved > TMEM_LEASE_MAX_BYTES ||
	    terms->max > TMEM_LEASE_MAX_BYTES)
		return -EINVAL;
	error = set_terms(l, terms, why, size);
	tmem_lease_process(l);
	return error;
}

void tmem_lease_close(struct tmem_lease *l)
{
	if (!l)
		return;
	/* What it does not hold is others' at once. */
	if (l->state == ADMITTED) {
		lease_set_max(l, MAX(lease_held(l), l->need));
		lease_say_released(l);
	}
	/* Those that were never opened are -1, which close(2) minds no more. */
	close(l->fd);
	close(l->poke_fd);
	close(l->timer_fd);
	close(l->epoll_fd);
	free(l->tenants);
	free(l->socket);
	free(l);
}
