/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A store's lease: what lease.c and talk.c share
 *
 *	lease.c	its life: time, terms, begin and end
 *	talk.c	what is said, and what the store is made to do
 */
#ifndef TMEM_LEASE_INTERNAL_H
#define TMEM_LEASE_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "protocol.h"
#include "tmem-lease.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIB	  (1024ull * 1024)

/* Until it connects again: doubled each time. */
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000

enum lease_state {
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
	enum lease_state state;
	bool refused; /* the last time; @why */
	bool told_away;
	bool opening; /* who opens it is told by tmem_lease_open() */
	bool known;   /* a broker has admitted it once */
	char why[TMEM_LEASE_TEXT_SIZE];
	uint64_t retry_ms, retry_at;
	uint64_t hello_at;

	/*
	 * Bytes of reservations: what tenants need, what the broker has
	 * promised, and what it was asked for.  The first is the least of them.
	 */
	uint64_t need, reserved, asked;
	uint64_t asked_until; /* then what nobody needs is given up; 0: never */
	uint64_t number;      /* of the last TERMS */
	bool terms_due;
	bool disagreed;	 /* to @asked; @why */
	uint64_t leased; /* as the broker counts it */
	uint64_t
		target; /* what the store may hold: less while it is recalled */
	uint64_t set;	/* the store's max_bytes */
	bool stuck;	/* nothing more can be given back for now */
	uint64_t serial, generation, chunk, max, report_ms;
	uint64_t wanted, want_until;
	uint64_t want_held; /* held when it last grew, and wanted more */
	bool want_due;	    /* the broker does not know of it yet */
	bool released_due;
	uint64_t released_at;
	uint64_t blocked_until;
	/* Looked at last: growth is what came since. */
	uint64_t last_held, last_refused;
	bool shrunk;		       /* since then, by a recall */
	union tmem_lease_message told; /* the last REPORT */
	uint64_t report_at;
	bool report_due;
	uint64_t look_at; /* once more after the last poke; 0: not */
	uint64_t recalls, sent;
	unsigned int pressure; /* the host's, as the broker says */
	_Atomic uint64_t poke_after;
};

uint64_t lease_now_ms(void);
uint64_t lease_held(struct tmem_lease *l);
void lease_set_max(struct tmem_lease *l, uint64_t max);
/* There is no broker any more. */
void lease_go_away(struct tmem_lease *l, const char *why);
void lease_connect(struct tmem_lease *l);
void lease_receive(struct tmem_lease *l);
/* Is there more to be given back?  A step of it. */
bool lease_shrinks(const struct tmem_lease *l);
void lease_shrink_step(struct tmem_lease *l);
/* What was stuck, and has come down since. */
void lease_look_at_stuck(struct tmem_lease *l);
/* What the store did since: what it wants, and REPORT when that is due. */
void lease_look(struct tmem_lease *l, uint64_t now);
void lease_say_released(struct tmem_lease *l);
void lease_say_want(struct tmem_lease *l);
void lease_say_terms(struct tmem_lease *l);

#endif /* TMEM_LEASE_INTERNAL_H */
