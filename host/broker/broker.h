/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tmem-broker: what its parts share
 *
 * One thread, one epoll loop; no part waits for anything.  What must hold:
 *
 * 1. The sum of the leases is at most the host's limit whenever a lease is made
 *    larger: leases_sum() is looked at first, by plan.c alone.  A lease counts
 *    in full until its store has said RELEASED.
 * 2. A lease is never less than its store's reservation.  (One that is being
 *    made larger counts from when the store was told.)
 * 3. A lease is never recalled to less than what its store cannot give back.
 *
 * After a restart stores come back with leases that together may be more than a
 * limit that was lowered meanwhile.  They are counted, as they are held whether
 * counted or not; then 1 holds as written, and nothing grows until they fit.
 */
#ifndef TMEM_BROKER_H
#define TMEM_BROKER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "config.h"
#include "histogram.h"
#include "options.h"
#include "policy.h"
#include "protocol.h"
#include "report.h"

#define MAX_STORES 1024
/* Connections: theirs, of who has said nothing yet, and some for operators. */
#define MAX_PEERS (MAX_STORES + MAX_HALF_OPEN + 16)
/* Connections that have not said who they are; the oldest makes way. */
#define MAX_HALF_OPEN 128
#define HALF_OPEN_MS  5000
/* Messages a second of one peer, and at once; then it has to wait. */
#define PEER_RATE  200
#define PEER_BURST 400
/* Plans are at least so far apart. */
#define PLAN_MS 20
/* How long a store waits for its reservation before it is refused. */
#define WAITING_MS 15000

struct broker;

/* Something that epoll watches. */
struct watch {
	void (*ready)(struct broker *broker, struct watch *watch,
		      uint32_t events);
};

enum role {
	ROLE_NONE, /* has said nothing yet */
	ROLE_STORE,
	ROLE_OPERATOR,
};

/* A connection. */
struct peer {
	struct watch watch;
	int fd;
	struct ucred who;
	enum role role;
	struct store *store; /* ROLE_STORE */
	uint64_t opened_ms;
	/* Messages that it may send at once, in 1/1000; as of tokens_ms. */
	uint64_t tokens, tokens_ms;
	bool throttled;
	uint32_t events; /* that epoll waits for */
	bool dead;	 /* closed, freed when the loop comes round */
	/* ROLE_OPERATOR: an answer that goes on. */
	bool answering, host_sent, stores_sent;
	char after[TMEM_LEASE_NAME_SIZE]; /* the last store that was sent */
	struct peer *next_dead;
};

/* A store, from HELLO until its lease is free. */
struct store {
	struct watch watch; /* pidfd */
	int pidfd;
	char name[TMEM_LEASE_NAME_SIZE];
	struct ucred who;
	struct peer *peer; /* NULL: TMEM_LEASE_ABSENT */
	enum tmem_lease_state state;
	bool kept;	   /* its pages outlive its process */
	bool ended;	   /* ... which has ended */
	bool frozen;	   /* by an operator */
	uint64_t until_ms; /* WAITING: refused then; ABSENT: removed then */
	/* Its own limits, an operator's, and what follows from all. */
	uint64_t own_max, set_max, max;
	uint64_t own_weight, set_weight, weight;
	/*
	 * What its reservations need.  More than what was promised: others are
	 * asked for the rest, until then.
	 */
	uint64_t reserved;
	uint64_t promised;
	uint64_t reserve_until_ms;
	uint64_t leased; /* bytes that it may hold, as it knows or will know */
	uint64_t target; /* what a recall brings it to; else leased */
	uint64_t deadline_ms;	  /* of the recall */
	uint64_t shrink_until_ms; /* an operator's: it gets nothing before */
	bool overdue;
	/* For metrics: when HELLO came, and the first RECALL that is not
	 * released; 0: there is none. */
	uint64_t hello_ms, recalled_ms;
	uint64_t serial;
	/* What it has not been sent yet: a message about its lease, or 0... */
	unsigned int say;
	bool say_agreed;      /* ... the answer to TERMS */
	unsigned int backoff; /* ... and PRESSURE, if this is not the host's */
	uint64_t terms_number;
	char why_not[TMEM_LEASE_TEXT_SIZE];
	uint64_t wanted;
	struct tmem_lease_report report;
	uint64_t report_ms;
	uint64_t evidence; /* what its process can be seen to hold */
	uint64_t evidence_ms;
	uint64_t room; /* what its process's cgroup still leaves it */
	uint64_t room_ms;
	uint64_t hits_seen; /* of all pages; of ephemeral ones, so far: */
	double hits;
	struct policy_benefit benefit;
	uint64_t observed_ms;
	uint32_t benefit_now; /* 1/256 */
	struct limiter limiter;
	struct store *next_dead;
};

struct counters {
	uint64_t grants, recalls, overdue, refused, lies, bad, throttled;
};

struct broker {
	struct options options;
	struct config *config;
	int epoll_fd, listen_fd, signal_fd, trigger_fd;
	struct watch listen_watch, signal_watch, trigger_watch;
	uint64_t deaf_until_ms; /* nobody is accepted: no descriptors */
	bool ends;
	uint64_t generation;
	struct peer *peer[MAX_PEERS];
	unsigned int num_peers, num_half_open;
	struct store *store[MAX_STORES]; /* by name */
	unsigned int num_stores;
	/* After a restart: until then nothing is granted; 0: not so. */
	uint64_t grace_until_ms;
	/* Stores that have not come back yet, of the broker of that generation. */
	unsigned int survivors;
	uint64_t their_generation;
	struct policy_budget budget;
	struct policy_backoff backoff;
	uint64_t budget_ms; /* when it was looked at */
	uint64_t available; /* MemAvailable then */
	bool stalled;	    /* the trigger told since */
	bool plan_wanted;
	uint64_t planned_ms;
	bool over_told; /* that leases are more than the limit */
	struct counters counters;
	/* Since the start, and what the third measures now; 0: nothing. */
	struct histogram welcome, recall, relief;
	uint64_t short_ms;
	struct limiter limiter; /* of lines about peers without a name */
	struct peer *dead_peers;
	struct store *dead_stores;
};

/* main.c: have epoll call @watch; 0 events: not any more. */
bool broker_watch(struct broker *broker, struct watch *watch, int fd,
		  uint32_t events, bool add);

/* peer.c */
void peer_accept(struct broker *broker, struct watch *watch, uint32_t events);
/* Close it.  Its store, if it has one, is told by store_lost(). */
void peer_close(struct broker *broker, struct peer *peer);
/* A mistake of the peer's: one line, and the connection ends. */
void peer_fail(struct broker *broker, struct peer *peer, const char *why);
/* The last message of a store's connection, and one line. */
void peer_refuse(struct broker *broker, struct peer *peer, const char *name,
		 const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Make @m a REFUSED of that text. */
void peer_fill_refused(union tmem_lease_message *m, const char *format,
		       va_list ap);
/* Wait, or not, for room to write to it. */
void peer_wait_write(struct broker *broker, struct peer *peer, bool wait);
/* Milliseconds' work; returns when it wants to be called again. */
uint64_t peers_tick(struct broker *broker, uint64_t now);

/* store.c */
struct store *store_find(struct broker *broker, const char *name);
void store_message(struct broker *broker, struct peer *peer,
		   const union tmem_lease_message *message);
/* What the next broker is to wait for is noted. */
void stores_note(struct broker *broker);
/* Its connection has ended. */
void store_lost(struct broker *broker, struct store *store);
void store_remove(struct broker *broker, struct store *store);
/* Send it what it has not been sent. */
void store_tell(struct broker *broker, struct store *store);
/* Its lease is what its reservation needs. */
void store_promised(struct store *store);
/* Its limits, from the configuration, HELLO and the operator. */
void store_limits(struct broker *broker, struct store *store);
/* The configuration was read again: the operator's limits end. */
void store_reconfigured(struct broker *broker, struct store *store);
/* @claim, or as much of it as its process can be seen to hold. */
uint64_t store_believed(struct broker *broker, struct store *store,
			uint64_t claim);
/*
 * The largest lease that its process's cgroup has room for, of a store that
 * holds @held and wants more.
 */
uint64_t store_fits(struct broker *broker, struct store *store, uint64_t held,
		    uint64_t now);
uint64_t stores_tick(struct broker *broker, uint64_t now);
uint64_t leases_sum(const struct broker *broker);
uint64_t reserved_sum(const struct broker *broker);

/* plan.c */
/* Something has changed that may move leases. */
void plan_want(struct broker *broker);
uint64_t plan_tick(struct broker *broker, uint64_t now);
/* Recall so many bytes at once, whatever policy says. */
void plan_recall(struct broker *broker, struct store *store, uint64_t target);
/* What the store holds, as far as that is believed. */
uint64_t held_sum(const struct broker *broker);

/* status.c */
bool operator_allowed(const struct ucred *who);
void operator_message(struct broker *broker, struct peer *peer,
		      const union tmem_lease_message *message);
/* Go on with an answer. */
void operator_answer(struct broker *broker, struct peer *peer);
void status_fill_host(struct broker *broker, struct tmem_lease_host *message);
void status_fill_store(const struct store *store,
		       struct tmem_lease_store *message);
/* The first store after @name; NULL: there is none. */
struct store *store_after(struct broker *broker, const char *name);

#endif /* TMEM_BROKER_H */
