/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The lease protocol: what stores and operators say to tmem-broker
 *
 * This header is the protocol's manual, and its only definition.
 *
 * Transport
 * ---------
 * A UNIX socket of type SOCK_SEQPACKET.  One datagram is one message: a struct
 * below, of exactly its size.  Boundaries are the kernel's, so there is no parser
 * that could be fed halves; a message is bounded, has no length inside that could
 * lie, and is checked by one table (protocol.c), which makes it easy to fuzz.
 * JSON would need a parser in each store's process; tools make it from these
 * structs.  All numbers are little-endian.
 *
 * Every message begins with struct tmem_lease_header.  A header of another
 * version, an unknown type, a size that is not the type's, a number that is out
 * of range, a name that is none: the connection ends, with one line in the
 * broker's log.  Members called spare are sent as 0 and not looked at.
 *
 * Who a peer is, the kernel says (SO_PEERCRED: process, user, group).  The name
 * in HELLO is a claim, which the broker's configuration must allow to that user.
 *
 * Words
 * -----
 * store    what asks for a lease: a process with a libtmem store.
 * lease    bytes of host memory that a store may hold, all in: tmem_stats'
 *          held_bytes stays at or below it.
 * reserved the part of it that is always the store's: what its reservations
 *          need, tmem_reservation_cost().
 * fixed    held bytes that the store cannot give back: persistent pages, index.
 * serial   numbers what the broker says of a lease, from 1 on, for each store.
 *
 * A store's life
 * --------------
 *	store				broker
 *	HELLO ------------------------->
 *	      <------------------------ WELCOME, or REFUSED and the end
 *	REPORT, WANT ------------------>
 *	TERMS ------------------------->
 *	      <------------------------ AGREED, or not
 *	      <------------------------ GRANT: more
 *	      <------------------------ RECALL: less, until then
 *	RELEASED ---------------------->
 *	      <------------------------ PRESSURE: of the host
 *
 * WELCOME may take time: until others have released what the reservation needs,
 * and after a restart of the broker until those have come back who have leases.
 * Until it came the store holds at most what HELLO said is leased, which for
 * a new one is its reservation.
 *
 * Accounts
 * --------
 * The broker counts a lease from the moment that it sends it, and until the
 * store has said RELEASED.  So what stores may hold is never more than the sum
 * that the broker counts, whatever is under way; and it grants only what that
 * sum leaves of the host's limit.
 *
 * RELEASED names the serial that the store saw last.  One that is not the
 * broker's last has crossed another message, says something about a lease that
 * is no more, and is passed over; the store answers the later message, too.
 *
 * When a connection ends the store goes on with its lease, without growing, and
 * connects again.  The broker keeps the lease for its grace time, or until the
 * process ends.
 */
#ifndef TMEM_LEASE_PROTOCOL_H
#define TMEM_LEASE_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TMEM_LEASE_VERSION 1u

/* A store's name, with the final 0: [A-Za-z0-9_.:-], not empty. */
#define TMEM_LEASE_NAME_SIZE 64
/* One line of text, with the final 0; what is behind it is 0, too. */
#define TMEM_LEASE_TEXT_SIZE 256
/* No number of bytes is larger. */
#define TMEM_LEASE_MAX_BYTES  (1ull << 52)
#define TMEM_LEASE_MAX_WEIGHT 10000u
/* No datagram is larger. */
#define TMEM_LEASE_MESSAGE_MAX 512

enum tmem_lease_type {
	/* by stores */
	TMEM_LEASE_HELLO = 1,
	TMEM_LEASE_REPORT = 2,
	TMEM_LEASE_WANT = 3,
	TMEM_LEASE_RELEASED = 4,
	TMEM_LEASE_TERMS = 5,
	/* by the broker, to stores */
	TMEM_LEASE_WELCOME = 16,
	TMEM_LEASE_REFUSED = 17, /* to operators, too */
	TMEM_LEASE_GRANT = 18,
	TMEM_LEASE_RECALL = 19,
	TMEM_LEASE_PRESSURE = 20,
	TMEM_LEASE_AGREED = 21,
	/* by operators */
	TMEM_LEASE_STATUS = 32,
	TMEM_LEASE_LIMITS = 33,
	TMEM_LEASE_FREEZE = 34,
	TMEM_LEASE_SHRINK = 35,
	/* by the broker, to operators */
	TMEM_LEASE_HOST = 48,
	TMEM_LEASE_STORE = 49,
	TMEM_LEASE_DONE = 50,
};

struct tmem_lease_header {
	uint32_t size;	  /* of the message with this header: the type's */
	uint16_t version; /* TMEM_LEASE_VERSION */
	uint16_t type;	  /* enum tmem_lease_type */
};

/* ----------------------------------------------------------------- stores */

/* Somebody keeps the store's pages when its process ends, and the next one goes
 * on with them: the lease outlives the process by the grace time. */
#define TMEM_LEASE_KEPT 0x1u

/*
 * The first message of a store.  Its process has one store of that name; who
 * says HELLO again, on another connection, means the same store and ends the
 * first connection.
 */
struct tmem_lease_hello {
	struct tmem_lease_header header;
	uint64_t flags;	   /* TMEM_LEASE_KEPT; others are refused */
	uint64_t reserved; /* bytes; at least 1 */
	uint64_t max;	   /* most that it ever wants, bytes; 0: no bound */
	uint64_t weight;   /* 1 .. 10000; 0: as configured */
	/*
	 * What it may hold until it is told otherwise: from its last lease,
	 * what it holds of it, rounded up to a chunk; at least @reserved.
	 */
	uint64_t leased;
	uint64_t held;	     /* bytes that it holds now */
	uint64_t fixed;	     /* ... that it cannot give back */
	uint64_t generation; /* of the broker that gave the lease; 0: none */
	uint64_t spare[4];
	char name[TMEM_LEASE_NAME_SIZE];
};

/* The store's is admitted.  @leased may be less than what HELLO said. */
struct tmem_lease_welcome {
	struct tmem_lease_header header;
	uint64_t serial;
	uint64_t leased;     /* bytes in all */
	uint64_t generation; /* of this broker: another one after each start */
	uint64_t max;	     /* most that it will ever be granted, bytes */
	uint64_t chunk;	     /* leases move by this many bytes */
	uint64_t report_ms;  /* REPORTs are at least so long apart */
	uint64_t spare[2];
};

/*
 * The store is not admitted, or the operator's request not carried out: why,
 * for people, with all numbers that do not fit.  To a store it is the last
 * message of the connection.
 */
struct tmem_lease_refused {
	struct tmem_lease_header header;
	char text[TMEM_LEASE_TEXT_SIZE];
};

/*
 * What the store does.  Sent when something has changed, and not more often
 * than WELCOME says.  Bytes are as of now; counts, in pages, only grow.
 */
struct tmem_lease_report {
	struct tmem_lease_header header;
	uint64_t held;
	uint64_t fixed;
	uint64_t reclaimable;
	uint64_t persistent_raw;
	uint64_t ephemeral_raw;
	uint64_t stored;
	uint64_t puts;
	uint64_t gets; /* that found their page */
	uint64_t misses;
	uint64_t refused;
	uint64_t evictions;
	uint64_t pressure; /* tmem_tenant_pressure(), 0 .. 3 */
	uint64_t refaults; /* of the misses: pages that were evicted lately */
	uint64_t spare[3];
};

/*
 * The store would use a lease of so many bytes.  (In all, not more than it has:
 * that would be true anew after each GRANT.)  Stays true until the next WANT;
 * 0: it wants what it holds.
 */
struct tmem_lease_want {
	struct tmem_lease_header header;
	uint64_t bytes;
};

/* The lease is @leased bytes now, more than it was: a RECALL before it is void.
 */
struct tmem_lease_grant {
	struct tmem_lease_header header;
	uint64_t serial;
	uint64_t leased;
};

/*
 * The lease is to be @leased bytes, less than it is.  From now on the store
 * does not grow beyond that, and gives back what it can; it says RELEASED as it
 * comes down, at least every 100 ms and when it has arrived or can do no more.
 * Where persistent pages do not allow it the store comes down later, as they
 * are flushed.
 */
struct tmem_lease_recall {
	struct tmem_lease_header header;
	uint64_t serial;
	uint64_t leased;
	/* Milliseconds; then the broker counts as leased what the store's
	 * process can be seen to hold, and says so in its log. */
	uint64_t deadline_ms;
};

/* From now on the store holds @leased bytes at most, less than before. */
struct tmem_lease_released {
	struct tmem_lease_header header;
	uint64_t serial; /* that of the broker's last message */
	uint64_t leased;
};

/*
 * What HELLO said of these is this from now on.  A larger reservation waits, as
 * a new store's does, until others have released what it needs; until AGREED
 * the old one counts for the store, and the new one against others.  Of several
 * TERMS that were not answered yet the last counts, and is answered alone.
 */
struct tmem_lease_terms {
	struct tmem_lease_header header;
	uint64_t reserved; /* bytes; at least 1 */
	uint64_t max;	   /* bytes; 0: no bound */
	uint64_t weight;   /* 1 .. 10000; 0: as configured */
	uint64_t number;   /* the store's: AGREED has it, too */
	uint64_t spare[4];
};

/*
 * The reservation is @reserved bytes, and the lease at least that: a GRANT that
 * it took came before.  With a text it is what it was before, and the text says
 * why, as REFUSED does; the other terms hold, and the connection goes on.
 */
struct tmem_lease_agreed {
	struct tmem_lease_header header;
	uint64_t reserved;
	uint64_t max; /* most that the store will ever be granted, bytes */
	uint64_t number;
	uint64_t spare[2];
	char text[TMEM_LEASE_TEXT_SIZE]; /* empty: agreed */
};

/*
 * How short of memory the host is, though leases were recalled.  0, as WELCOME
 * means: not.  1: guests had better put nothing that they can do without.  2:
 * nothing is left to recall, either.  The store tells its guests no less than
 * that (tmem_store_set_pressure()), until the next PRESSURE or the end of the
 * connection.
 */
#define TMEM_LEASE_MAX_PRESSURE 2u
struct tmem_lease_pressure {
	struct tmem_lease_header header;
	uint64_t level;
};

/* -------------------------------------------------------------- operators */

/*
 * Operators are root, the broker's user, and the broker's group.  A connection
 * whose first message is one of these is an operator's.
 */

/*
 * Answered by HOST, a STORE for each store in the order of their names, and
 * DONE.
 */
struct tmem_lease_status {
	struct tmem_lease_header header;
};

/* Of the store named, until the configuration is read again, or it or the broker
 * is started again.  Answer: DONE, or REFUSED. */
struct tmem_lease_limits {
	struct tmem_lease_header header;
	uint64_t max;	 /* bytes; 0: as it is */
	uint64_t weight; /* 1 .. 10000; 0: as it is */
	char name[TMEM_LEASE_NAME_SIZE];
};

/* Leave the store's lease as it is, but for pressure of the host; or go on. */
struct tmem_lease_freeze {
	struct tmem_lease_header header;
	uint64_t frozen; /* 0 or 1 */
	char name[TMEM_LEASE_NAME_SIZE];
};

/*
 * Recall so many bytes of the store's lease, or what there is above its
 * reservation.  What it wants again it may get again, if nobody else does.
 */
struct tmem_lease_shrink {
	struct tmem_lease_header header;
	uint64_t bytes;
	char name[TMEM_LEASE_NAME_SIZE];
};

struct tmem_lease_host {
	struct tmem_lease_header header;
	uint64_t generation;
	uint64_t limit;	    /* bytes that all leases may be: [host] limit */
	uint64_t budget;    /* ... as far as the host's memory goes now */
	uint64_t leased;    /* sum of the leases */
	uint64_t reserved;  /* sum of the reservations */
	uint64_t held;	    /* sum of what stores report */
	uint64_t available; /* MemAvailable of the host; 2^64-1: unknown */
	uint64_t headroom;
	uint64_t pressure; /* 1: the budget is kept low */
	uint64_t grace_ms; /* until leases are granted after a restart; 0 */
	uint64_t stores;
	uint64_t peers; /* connections */
	/* counts since the broker's start */
	uint64_t grants;
	uint64_t recalls;
	uint64_t overdue; /* recalls that were not paid in time */
	uint64_t refused; /* stores */
	uint64_t lies;	  /* claims beyond what a process can be seen to hold */
	uint64_t bad;	  /* connections that ended for a bad message */
	uint64_t throttled; /* times that a peer was too fast */
	uint64_t backoff;   /* not a count: PRESSURE's level */
	uint64_t spare[7];
};

/* In tmem_lease_store.state. */
enum tmem_lease_state {
	TMEM_LEASE_WAITING = 0, /* for its WELCOME */
	TMEM_LEASE_ADMITTED = 1,
	TMEM_LEASE_ABSENT = 2, /* its connection has ended */
};

struct tmem_lease_store {
	struct tmem_lease_header header;
	uint64_t pid;
	uint64_t uid;
	uint64_t state; /* enum tmem_lease_state */
	uint64_t frozen;
	uint64_t reserved;
	uint64_t max;
	uint64_t weight;
	uint64_t benefit; /* what the weight is multiplied by, in 1/256 */
	uint64_t leased;
	uint64_t target;   /* what it is to become; more: it waits for others */
	uint64_t wanted;   /* WANT */
	uint64_t evidence; /* bytes that its process can be seen to hold */
	uint64_t held;	   /* this and the rest: its last REPORT */
	uint64_t fixed;
	uint64_t reclaimable;
	uint64_t persistent_raw;
	uint64_t ephemeral_raw;
	uint64_t stored;
	uint64_t puts;
	uint64_t gets;
	uint64_t misses;
	uint64_t refused;
	uint64_t evictions;
	uint64_t pressure;
	uint64_t refaults;
	uint64_t spare[7];
	char name[TMEM_LEASE_NAME_SIZE];
};

struct tmem_lease_done {
	struct tmem_lease_header header;
};

/* Any of them. */
union tmem_lease_message {
	struct tmem_lease_header header;
	struct tmem_lease_hello hello;
	struct tmem_lease_welcome welcome;
	struct tmem_lease_refused refused;
	struct tmem_lease_report report;
	struct tmem_lease_want want;
	struct tmem_lease_grant grant;
	struct tmem_lease_recall recall;
	struct tmem_lease_released released;
	struct tmem_lease_terms terms;
	struct tmem_lease_pressure pressure;
	struct tmem_lease_agreed agreed;
	struct tmem_lease_status status;
	struct tmem_lease_limits limits;
	struct tmem_lease_freeze freeze;
	struct tmem_lease_shrink shrink;
	struct tmem_lease_host host;
	struct tmem_lease_store store;
	struct tmem_lease_done done;
	uint8_t bytes[TMEM_LEASE_MESSAGE_MAX];
};

/* -------------------------------------------------------------- functions */

/* The size of a message of that type; 0: there is no such type. */
uint32_t tmem_lease_size(unsigned int type);

/* A type's name, for people. */
const char *tmem_lease_type_name(unsigned int type);

/* Is it a store's name? */
bool tmem_lease_name_ok(const char *name);

/*
 * Fill @message's header; everything else is 0.
 */
void tmem_lease_begin(union tmem_lease_message *message,
		      enum tmem_lease_type type);

/*
 * Send one message without waiting.  It is in host byte order; the call changes
 * nothing in it.  0; -EAGAIN: the peer does not read; other -errno: it is gone.
 */
int tmem_lease_send(int fd, const union tmem_lease_message *message);

/*
 * Receive one message without waiting, into host byte order, and check it.
 * 0; -EAGAIN: there is none; -EPIPE: the peer has closed; -EPROTO: it is wrong,
 * and @why (@size bytes) says how; other -errno.
 */
int tmem_lease_receive(int fd, union tmem_lease_message *message, char *why,
		       size_t size);

/*
 * Check a message of @length bytes as it came, and put it into host byte order.
 * 0, or -EPROTO and @why (@size bytes) says what is wrong.
 */
int tmem_lease_check(union tmem_lease_message *message, size_t length,
		     char *why, size_t size);

#endif /* TMEM_LEASE_PROTOCOL_H */
