/*
 * Stores for transcendent memory: what a broker leases to them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A tmem-store's lease, embedded in it.  The library that speaks to the broker
 * (tmem-lease.h) is driven by an IOThread, since it shrinks the store where
 * bytes are recalled: not with the BQL held.
 *
 * All functions are called with the BQL held, but for
 * tmem_store_lease_poke().
 */

#ifndef BACKENDS_TMEM_STORE_LEASE_H
#define BACKENDS_TMEM_STORE_LEASE_H

#include "qapi/visitor.h"
#include "qemu/queue.h"
#include "qemu/thread.h"
#include "qom/object.h"
#include "system/iothread.h"
#include "tmem-lease.h"

typedef struct TmemStoreLease TmemStoreLease;
struct TmemStoreLease {
    /* Properties */
    char *socket;               /* NULL: there is no lease */
    char *name;                 /* NULL: by the guest's */
    uint32_t weight;            /* 0: as the broker's configuration has it */
    bool complete;              /* they have been checked */

    /* What the broker knows the store by; then it is in the list of names */
    char *full_name;
    QLIST_ENTRY(TmemStoreLease) next;

    const char *id;             /* the store's, for people; a copy */
    struct tmem_lease *lease;   /* under @lock; NULL: not opened yet */
    struct tmem_lease_info told;
    uint64_t reserved, max;     /* the last terms */
    QemuMutex lock;
    IOThread *iothread;
    /* Limits or pressure are others now: the store's, called with the BQL */
    void (*changed)(void *opaque);
    void *opaque;
    QEMUBH *changed_bh;
};

/* tmem-store.c: a store's. */
TmemStoreLease *tmem_store_lease_of(Object *obj);

/* Add the properties. */
void tmem_store_lease_class_init(ObjectClass *oc);

/* Check the properties, and take the name: nobody else in this QEMU has it. */
bool tmem_store_lease_complete(TmemStoreLease *l, const char *id, Error **errp);

/* Is the store to have a lease? */
static inline bool tmem_store_lease_wanted(const TmemStoreLease *l)
{
    return l->socket;
}

/* Open it, unless it is open; nobody has said anything yet. */
bool tmem_store_lease_open(TmemStoreLease *l, struct tmem_store *store,
                           uint64_t max, Error **errp);

/*
 * Have the broker promise @reserved bytes; waits for that, and at start-up
 * longer.  Less than before is never an error.
 */
bool tmem_store_lease_set_terms(TmemStoreLease *l, uint64_t reserved,
                                uint64_t max, Error **errp);

/* The tenants that there are now. */
void tmem_store_lease_set_tenants(TmemStoreLease *l,
                                  struct tmem_tenant **tenants, unsigned num);

/* The store was used.  Any thread. */
void tmem_store_lease_poke(TmemStoreLease *l);

/* For statistics: the member "lease", where there is one. */
bool tmem_store_lease_visit(TmemStoreLease *l, Visitor *v, Error **errp);

/* Leave the broker, and give up the name.  May be called twice. */
void tmem_store_lease_close(TmemStoreLease *l);

#endif /* BACKENDS_TMEM_STORE_LEASE_H */
