/*
 * Stores for transcendent memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A tmem-store object is host memory for pages that guests cannot keep.
 * Devices attach to it and become its tenants; what the store does, with
 * pages and with limits, is libtmem's affair.
 *
 * All functions are called with the BQL held, but for tmem_store_poke().
 */

#ifndef SYSTEM_TMEM_STORE_H
#define SYSTEM_TMEM_STORE_H

#include "qom/object.h"
#include "qemu/queue.h"
#include "tmem/tmem.h"

#define TYPE_TMEM_STORE "tmem-store"

OBJECT_DECLARE_SIMPLE_TYPE(TmemStore, TMEM_STORE)

#define TMEM_STORE_SIZE_PROP            "size"
#define TMEM_STORE_RESERVED_PROP        "reserved"
#define TMEM_STORE_PERSISTENT_MAX_PROP  "persistent-max"
#define TMEM_STORE_EPHEMERAL_MAX_PROP   "ephemeral-max"
#define TMEM_STORE_CGROUP_HEADROOM_PROP "cgroup-headroom"
#define TMEM_STORE_HOST_HEADROOM_PROP   "host-headroom"
#define TMEM_STORE_RECOMPRESS_PROP      "recompress"
#define TMEM_STORE_RECOMPRESS_AFTER_PROP "recompress-after"
#define TMEM_STORE_LEASE_PROP           "lease"
#define TMEM_STORE_LEASE_NAME_PROP      "lease-name"
#define TMEM_STORE_WEIGHT_PROP          "weight"
#define TMEM_STORE_LOCK_PROP            "lock"
#define TMEM_STORE_PARANOID_PROP        "paranoid"
#define TMEM_STORE_FROZEN_PROP          "frozen"
#define TMEM_STORE_STATS_PROP           "stats"

/* A device that is attached to a store; embedded in the device */
typedef struct TmemStoreUser TmemStoreUser;
struct TmemStoreUser {
    struct tmem_tenant *tenant;
    /* Limits have changed, or the store was frozen or thawed */
    void (*changed)(TmemStoreUser *user);
    QLIST_ENTRY(TmemStoreUser) next;
};

/*
 * Open a tenant for @user, whose changed() has been set.  @name: the device,
 * for people.
 */
bool tmem_store_attach(TmemStore *store, TmemStoreUser *user,
                       const char *name, Error **errp);

/*
 * Drop the tenant of @user and all its pages, whose memory goes back to the
 * host soon after.  No op of its may be running, and it has no context left.
 */
void tmem_store_detach(TmemStore *store, TmemStoreUser *user);

/* The library's store; not NULL while anybody is attached. */
struct tmem_store *tmem_store_get(TmemStore *store);

/* Its devices have made requests.  Any thread, while one is attached. */
void tmem_store_poke(TmemStore *store);

/* Properties for a store that keeps @reserved bytes of one guest. */
void tmem_store_set_defaults(TmemStore *store, uint64_t reserved);

/* Visit the store's statistics, and what a broker leases to it. */
bool tmem_store_visit_stats(TmemStore *store, Visitor *v, const char *name,
                            Error **errp);

/* Visit the members of @stats; for QOM properties. */
bool tmem_stats_visit(Visitor *v, const char *name,
                      const struct tmem_stats *stats, Error **errp);

#endif /* SYSTEM_TMEM_STORE_H */
