/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A store's lease: the store's side of the lease protocol
 *
 * This header is the manual of a small library for processes that have a
 * libtmem store and let tmem-broker say how much it may hold.  It knows of
 * sockets and of libtmem, of no event loop and no thread.  broker/protocol.h
 * has the protocol.
 *
 * What it does
 * ------------
 * The lease is the store's max_bytes (tmem_store_set_max()), which nobody else
 * may change while there is one.  It begins with what the tenants' reservations
 * need.  The broker grants more and recalls it; then the store is shrunk, a
 * step in each call of tmem_lease_process().  When the tenants come near the
 * lease, and grow, more is asked for, which is before puts are refused.  What
 * the store does is reported when it has changed; a store that nobody uses says
 * nothing and sets no timer.
 *
 * The broker also tells how short of memory the host is, which guests are told
 * in turn (tmem_store_set_pressure()).
 *
 * When the broker is gone the lease stays what it is, and the library connects
 * again, for ever, after 100 ms to 5 s.  So it does when the broker turns the
 * store away that it had admitted once; then every 5 s.
 *
 * How to drive it
 * ---------------
 * tmem_lease_fd() polls readable when tmem_lease_process() has something to do:
 * with messages, its own timers, and tmem_lease_poke().  It is the same until
 * tmem_lease_close().
 *
 *	thread that owns the lease	threads that run ops
 *	poll(tmem_lease_fd())		tmem_submit() ...
 *	tmem_lease_process()		tmem_lease_poke()
 *
 * Functions but tmem_lease_poke() are called by one thread at a time.  None
 * waits but tmem_lease_open() and tmem_lease_set_terms(); tmem_lease_process()
 * takes some 20 ms at most, while the store is shrunk.  When it returns the
 * tenants' limits and pressure may be others: whoever tells guests of these is
 * to look.
 *
 * Tenants that come and go
 * ------------------------
 * A store that has its tenants when it is opened gives them to
 * tmem_lease_open().  One that has none yet says so
 * (TMEM_LEASE_CONFIG_LATER); then, and for any that comes later:
 *
 *	tmem_lease_set_terms()		the reservations with the new one's
 *	tmem_tenant_open()
 *	tmem_lease_set_tenants()	all of them
 *
 * and before one goes tmem_lease_set_tenants() and, where its limits have been
 * set to nothing, tmem_lease_set_terms().
 */
#ifndef TMEM_LEASE_H
#define TMEM_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tmem/tmem.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tmem_lease;

/* The store's pages outlive its process, which somebody starts again. */
#define TMEM_LEASE_CONFIG_KEPT 0x1u
/*
 * There is no tenant yet: tmem_lease_open() takes none and waits for nothing,
 * and neither a lease that is had for the first time is reported, nor that it is
 * refused until tenants come: tmem_lease_set_terms() says so.
 */
#define TMEM_LEASE_CONFIG_LATER 0x2u

/*
 * Set size to sizeof(struct tmem_lease_config) and what is not wanted to 0.
 */
struct tmem_lease_config {
	uint32_t size;
	uint32_t flags;	    /* TMEM_LEASE_CONFIG_* */
	const char *socket; /* the broker's; copied */
	/* The store's, as the broker's configuration has it; copied.  1 to 63
	 * of A-Z a-z 0-9 _ . : - */
	const char *name;
	uint64_t max;	 /* most bytes that are ever asked for; 0: any */
	uint32_t weight; /* 1 .. 10000; 0: as the broker's configuration has it
			  */
	/*
	 * Called from the functions below with a line for people, without a
	 * newline, when something has changed that they want to know: the
	 * broker came or went, or turned the store away.  NULL: nobody.
	 */
	void (*report)(void *opaque, const char *line);
	void *opaque;
};

/*
 * Ask for a lease for @store, whose tenants are @tenants[0 .. num - 1]; these
 * are kept, and must outlive the lease.  Waits until the broker has admitted
 * the store, 30 s at most; where there is no broker, or it says nothing, the
 * store goes on with its reservations until it comes.  @lease: set on success.
 * -EACCES: the broker refuses the store, and @why (@size bytes) says why;
 * -EINVAL: a bad config, or reservations that have changed; -ENOMEM; -EMFILE,
 * -ENFILE: it takes four descriptors.
 */
int tmem_lease_open(struct tmem_store *store, struct tmem_tenant **tenants,
		    unsigned int num, const struct tmem_lease_config *config,
		    struct tmem_lease **lease, char *why, size_t size);

/*
 * Leave the broker.  The store's max_bytes becomes what it holds, or what its
 * reservations need, which the broker counts for its grace time.  NULL is
 * allowed.
 */
void tmem_lease_close(struct tmem_lease *lease);

/* The tenants whose pressure counts from now on; kept.  -EINVAL; -ENOMEM. */
int tmem_lease_set_tenants(struct tmem_lease *lease,
			   struct tmem_tenant **tenants, unsigned int num);

/*
 * Where no broker has admitted the store yet, and none does while it is waited
 * for, go on with the reservation until it comes, as tmem_lease_open() does.
 */
#define TMEM_LEASE_ALONE 0x1u

/* What may change while there is a lease.  Set size, and what is not wanted to
 * 0. */
struct tmem_lease_terms_config {
	uint32_t size;	   /* of this struct */
	uint32_t flags;	   /* TMEM_LEASE_ALONE */
	uint64_t reserved; /* that all reservations need:
			      tmem_reservation_cost(), added up */
	uint64_t max;	   /* as in tmem_lease_config */
	uint32_t weight;   /* the same */
	uint32_t wait_ms;  /* for the broker's word about a larger reservation
			    */
};

/*
 * Change them.  On success the store's max_bytes is at least @reserved.  Less
 * reserved, and another max or weight, never fail; where it is an errno these
 * hold, and the reservation is what it was:
 * -EACCES: the broker says no, and @why (@size bytes) says why, with the
 * numbers; -EAGAIN: it has not answered in time, as it recalls bytes from other
 * stores, or was started a moment ago: it stays asked for 30 s, and the same
 * call may succeed then; -ENOTCONN: there is no broker; -EINVAL: a bad struct.
 */
int tmem_lease_set_terms(struct tmem_lease *lease,
			 const struct tmem_lease_terms_config *terms, char *why,
			 size_t size);

/* Is it a store's name? */
bool tmem_lease_name_ok(const char *name);

/* Polls readable when tmem_lease_process() is to be called.  The library's. */
int tmem_lease_fd(struct tmem_lease *lease);

/* Do what there is to do. */
void tmem_lease_process(struct tmem_lease *lease);

/*
 * The store was used: call it after ops.  It costs a look at the clock, and a
 * write(2) once in 20 ms.  Safe to call from any thread.
 */
void tmem_lease_poke(struct tmem_lease *lease);

struct tmem_lease_info {
	bool connected;	 /* and admitted */
	uint64_t leased; /* bytes that the store may hold, as the broker counts
			  */
	uint64_t target; /* ... that it comes down to; else the same */
	uint64_t wanted; /* the lease that it asks for; 0: none */
	uint64_t reserved;     /* of it, promised by the broker */
	unsigned int pressure; /* of the host, as the broker says: 0 .. 2 */
	uint64_t recalls;      /* counts */
	uint64_t sent;
};

void tmem_lease_info(struct tmem_lease *lease, struct tmem_lease_info *info);

#ifdef __cplusplus
}
#endif

#endif /* TMEM_LEASE_H */
