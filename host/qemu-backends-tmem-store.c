/*
 * Stores for transcendent memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "block/aio.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/thread.h"
#include "qemu/units.h"
#include "qom/object_interfaces.h"
#include "hw/boards.h"
#include "system/tmem-store.h"
#include "tmem-store-lease.h"

/* More than any host has: such a size is a slip of the pen */
#define TMEM_STORE_MAX_SIZE (256ull * TiB)
/* The driver makes no smaller disk: a page for the header, and one for swap */
#define TMEM_STORE_LEAST_DISK (2 << TMEM_PAGE_SHIFT_MIN)

struct TmemStore {
    Object parent_obj;

    /*
     * NULL until the first device attaches: only then is the size of the
     * guest's memory known, which the store leaves room for.
     */
    struct tmem_store *store;
    bool complete;
    bool frozen;

    /* Properties; limits are for each user */
    uint64_t size;
    struct tmem_limits limits;
    bool has_reserved;
    uint64_t cgroup_headroom;
    uint64_t host_headroom;
    uint32_t recompress;
    uint32_t recompress_after;
    bool lock;
    bool paranoid;
    TmemStoreLease lease;

    QLIST_HEAD(, TmemStoreUser) users;
};

TmemStoreLease *tmem_store_lease_of(Object *obj)
{
    return &TMEM_STORE(obj)->lease;
}

static const char *tmem_store_id(TmemStore *s)
{
    const char *id = object_get_canonical_path_component(OBJECT(s));

    return id ?: "(new)";
}

static unsigned tmem_store_num_users(TmemStore *s)
{
    TmemStoreUser *user;
    unsigned n = 0;

    QLIST_FOREACH(user, &s->users, next) {
        n++;
    }
    return n;
}

static void tmem_store_notify(TmemStore *s)
{
    TmemStoreUser *user;

    QLIST_FOREACH(user, &s->users, next) {
        user->changed(user);
    }
}

/* Do the reservations of @users devices fit into @size and persistent-max? */
static bool tmem_store_check_fit(TmemStore *s, uint64_t size,
                                 const struct tmem_limits *limits,
                                 unsigned users, Error **errp)
{
    uint64_t reserved = limits->persistent_reserved;
    uint64_t each = tmem_reservation_cost(reserved);
    uint64_t need;

    if (reserved > TMEM_MAX_RESERVED) {
        error_setg(errp, "tmem-store '%s': %s=%" PRIu64 ": must be at most "
                   "%llu (192 GiB)", tmem_store_id(s),
                   TMEM_STORE_RESERVED_PROP, reserved, TMEM_MAX_RESERVED);
        return false;
    }
    if (limits->persistent_max && limits->persistent_max < each) {
        error_setg(errp, "tmem-store '%s': %s=%" PRIu64 " needs %s=%" PRIu64
                   " or more, not %" PRIu64 "; at most %s=%" PRIu64 " fits",
                   tmem_store_id(s), TMEM_STORE_RESERVED_PROP, reserved,
                   TMEM_STORE_PERSISTENT_MAX_PROP, each,
                   limits->persistent_max, TMEM_STORE_RESERVED_PROP,
                   tmem_reservation_fit(limits->persistent_max));
        return false;
    }
    if (umul64_overflow(each, users, &need)) {
        need = UINT64_MAX;
    }
    if (need > size) {
        error_setg(errp, "tmem-store '%s': %s=%" PRIu64 " for %u device%s "
                   "needs %s=%" PRIu64 " or more, not %" PRIu64
                   "; at most %s=%" PRIu64 " fits",
                   tmem_store_id(s), TMEM_STORE_RESERVED_PROP, reserved,
                   users, users == 1 ? "" : "s", TMEM_STORE_SIZE_PROP, need,
                   size, TMEM_STORE_RESERVED_PROP,
                   tmem_reservation_fit(size / users));
        return false;
    }
    return true;
}

/* What @users reservations need; known to fit. */
static uint64_t tmem_store_need(const struct tmem_limits *limits,
                                unsigned users)
{
    return users * tmem_reservation_cost(limits->persistent_reserved);
}

/*
 * With a lease, what the devices need must be promised before they have it.
 * The store's limit is the lease from then on, and @size the most that is ever
 * asked for.
 */
static bool tmem_store_lease_need(TmemStore *s, uint64_t need, uint64_t size,
                                  Error **errp)
{
    return !s->lease.lease ||
           tmem_store_lease_set_terms(&s->lease, need, size, errp);
}

static bool tmem_store_check_size(TmemStore *s, uint64_t size, Error **errp)
{
    if (!size) {
        error_setg(errp, "tmem-store '%s': %s=0: give the bytes of host "
                   "memory that it may hold, as in %s=1G",
                   tmem_store_id(s), TMEM_STORE_SIZE_PROP,
                   TMEM_STORE_SIZE_PROP);
        return false;
    }
    if (size > TMEM_STORE_MAX_SIZE) {
        error_setg(errp, "tmem-store '%s': %s=%" PRIu64 ": must be at most "
                   "%llu (256 TiB)", tmem_store_id(s), TMEM_STORE_SIZE_PROP,
                   size, TMEM_STORE_MAX_SIZE);
        return false;
    }
    return true;
}

/* With a headroom of all memory, every put would be refused. */
static bool tmem_store_check_headroom(TmemStore *s, const char *name,
                                      uint64_t headroom, Error **errp)
{
    uint64_t memory = qemu_get_host_physmem();

    if (memory && headroom >= memory) {
        error_setg(errp, "tmem-store '%s': %s=%" PRIu64 ": must be less than "
                   "the host's memory, %" PRIu64, tmem_store_id(s), name,
                   headroom, memory);
        return false;
    }
    return true;
}

static void tmem_store_complete(UserCreatable *uc, Error **errp)
{
    TmemStore *s = TMEM_STORE(uc);

    if (!tmem_store_check_size(s, s->size, errp) ||
        !tmem_store_check_headroom(s, TMEM_STORE_CGROUP_HEADROOM_PROP,
                                   s->cgroup_headroom, errp) ||
        !tmem_store_check_headroom(s, TMEM_STORE_HOST_HEADROOM_PROP,
                                   s->host_headroom, errp)) {
        return;
    }
    if (!s->has_reserved) {
        s->limits.persistent_reserved = tmem_reservation_fit(s->size);
        if (!s->limits.persistent_reserved) {
            error_setg(errp, "tmem-store '%s': %s=%" PRIu64 " has no room for "
                       "a page: give at least %" PRIu64, tmem_store_id(s),
                       TMEM_STORE_SIZE_PROP, s->size,
                       tmem_reservation_cost(1 << TMEM_PAGE_SHIFT_MAX));
            return;
        }
    }
    if (!tmem_store_check_fit(s, s->size, &s->limits, 1, errp)) {
        return;
    }
    if (s->limits.persistent_reserved < TMEM_STORE_LEAST_DISK) {
        warn_report("tmem-store '%s': %s=%" PRIu64 ": guests will have no "
                    "swap disk, which takes %u bytes", tmem_store_id(s),
                    TMEM_STORE_RESERVED_PROP, s->limits.persistent_reserved,
                    TMEM_STORE_LEAST_DISK);
    }
    if (!tmem_store_lease_complete(&s->lease, tmem_store_id(s), errp)) {
        return;
    }
    s->complete = true;
}

static bool tmem_store_can_be_deleted(UserCreatable *uc)
{
    return QLIST_EMPTY(&TMEM_STORE(uc)->users);
}

static bool tmem_store_open(TmemStore *s, Error **errp)
{
    struct tmem_store_config config = {
        .size = sizeof(config),
        .flags = (s->lock ? TMEM_STORE_LOCK : 0) |
                 (s->paranoid ? TMEM_STORE_PARANOID : 0),
        .max_bytes = tmem_store_lease_wanted(&s->lease) ?
                     tmem_reservation_cost(1) : s->size,
        .cgroup_headroom = s->cgroup_headroom,
        .host_headroom = s->host_headroom,
        .process_bytes = current_machine->ram_size,
        .recompress_percent = s->recompress,
        .recompress_after_s = s->recompress_after,
    };
    int ret = tmem_store_create(&config, &s->store);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "tmem-store '%s': cannot make a store "
                         "of %s=%" PRIu64, tmem_store_id(s),
                         TMEM_STORE_SIZE_PROP, s->size);
        return false;
    }
    return true;
}

/* All users' tenants, of which the lease is to know. */
static void tmem_store_tell_tenants(TmemStore *s)
{
    unsigned n = tmem_store_num_users(s);
    g_autofree struct tmem_tenant **tenants =
        g_new(struct tmem_tenant *, n + 1);
    TmemStoreUser *user;

    if (!s->lease.lease) {
        return;
    }
    n = 0;
    QLIST_FOREACH(user, &s->users, next) {
        tenants[n++] = user->tenant;
    }
    tmem_store_lease_set_tenants(&s->lease, tenants, n);
}

static bool tmem_store_open_tenant(TmemStore *s, TmemStoreUser *user,
                                   const char *name, Error **errp)
{
    unsigned n = tmem_store_num_users(s);
    int ret;

    if (!tmem_store_lease_need(s, tmem_store_need(&s->limits, n + 1), s->size,
                               errp)) {
        return false;
    }
    ret = tmem_tenant_open(s->store, name, &s->limits, &user->tenant);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "tmem-store '%s': cannot be opened for "
                         "device '%s'", tmem_store_id(s), name);
        tmem_store_lease_need(s, tmem_store_need(&s->limits, n), s->size,
                              &error_abort);
        return false;
    }
    return true;
}

bool tmem_store_attach(TmemStore *s, TmemStoreUser *user, const char *name,
                       Error **errp)
{
    if (!tmem_store_check_fit(s, s->size, &s->limits,
                              tmem_store_num_users(s) + 1, errp)) {
        return false;
    }
    if (!s->store && !tmem_store_open(s, errp)) {
        return false;
    }
    if (tmem_store_lease_wanted(&s->lease) &&
        !tmem_store_lease_open(&s->lease, s->store, s->size, errp)) {
        return false;
    }
    if (!tmem_store_open_tenant(s, user, name, errp)) {
        return false;
    }
    tmem_tenant_freeze(user->tenant, s->frozen);
    QLIST_INSERT_HEAD(&s->users, user, next);
    tmem_store_tell_tenants(s);
    return true;
}

typedef struct TmemStoreDrop {
    TmemStore *store;
    struct tmem_tenant *tenant;
} TmemStoreDrop;

/* In the main loop, which alone ends objects. */
static void tmem_store_dropped(void *opaque)
{
    TmemStoreDrop *drop = opaque;

    /* It holds less now */
    tmem_store_lease_poke(&drop->store->lease);
    object_unref(OBJECT(drop->store));
    g_free(drop);
}

static void *tmem_store_drop_thread(void *opaque)
{
    TmemStoreDrop *drop = opaque;

    tmem_tenant_drop(drop->tenant);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), tmem_store_dropped, drop);
    return NULL;
}

/*
 * The tenant's pages are gone and nothing is reserved for it when this returns,
 * so that the next device finds its place.  To free millions of pages takes
 * seconds: not with the BQL held.
 */
void tmem_store_detach(TmemStore *s, TmemStoreUser *user)
{
    static const struct tmem_limits nothing = { .size = sizeof(nothing) };
    TmemStoreDrop *drop = g_new(TmemStoreDrop, 1);
    sigset_t all, old;
    GThread *thread;

    QLIST_REMOVE(user, next);
    tmem_tenant_set_limits(user->tenant, &nothing);
    tmem_tenant_reset(user->tenant);
    tmem_store_tell_tenants(s);
    tmem_store_lease_need(s, tmem_store_need(&s->limits,
                                             tmem_store_num_users(s)),
                          s->size, &error_abort);
    *drop = (TmemStoreDrop) { .store = s, .tenant = user->tenant };
    user->tenant = NULL;
    /* The store goes last, also if it is deleted meanwhile */
    object_ref(OBJECT(s));
    /* Signals are the main thread's; a thread may be more than there can be */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    thread = g_thread_try_new("tmem-drop", tmem_store_drop_thread, drop, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (thread) {
        g_thread_unref(thread);
    } else {
        tmem_store_drop_thread(drop);
    }
}

struct tmem_store *tmem_store_get(TmemStore *s)
{
    return s->store;
}

void tmem_store_poke(TmemStore *s)
{
    tmem_store_lease_poke(&s->lease);
}

void tmem_store_set_defaults(TmemStore *s, uint64_t reserved)
{
    s->size = tmem_reservation_cost(reserved);
    s->limits.persistent_reserved = reserved;
    s->has_reserved = true;
}

/* ---------------------------------------------------------- properties */

static uint64_t *tmem_store_size_field(TmemStore *s, const char *name)
{
    if (g_str_equal(name, TMEM_STORE_SIZE_PROP)) {
        return &s->size;
    } else if (g_str_equal(name, TMEM_STORE_RESERVED_PROP)) {
        return &s->limits.persistent_reserved;
    } else if (g_str_equal(name, TMEM_STORE_PERSISTENT_MAX_PROP)) {
        return &s->limits.persistent_max;
    } else if (g_str_equal(name, TMEM_STORE_EPHEMERAL_MAX_PROP)) {
        return &s->limits.ephemeral_max;
    } else if (g_str_equal(name, TMEM_STORE_CGROUP_HEADROOM_PROP)) {
        return &s->cgroup_headroom;
    } else {
        assert(g_str_equal(name, TMEM_STORE_HOST_HEADROOM_PROP));
        return &s->host_headroom;
    }
}

static void tmem_store_get_size_prop(Object *obj, Visitor *v,
                                     const char *name, void *opaque,
                                     Error **errp)
{
    uint64_t value = *tmem_store_size_field(TMEM_STORE(obj), name);

    visit_type_size(v, name, &value, errp);
}

static bool tmem_store_set_total(TmemStore *s, uint64_t size, Error **errp)
{
    int ret;

    if (!tmem_store_check_size(s, size, errp) ||
        !tmem_store_check_fit(s, size, &s->limits,
                              MAX(tmem_store_num_users(s), 1), errp)) {
        return false;
    }
    if (s->lease.lease) {
        /* The lease is the limit; it goes down, if it has to, by itself */
        tmem_store_lease_need(s, tmem_store_need(&s->limits,
                                                 tmem_store_num_users(s)),
                              size, &error_abort);
    } else if (s->store && !tmem_store_lease_wanted(&s->lease)) {
        ret = tmem_store_set_max(s->store, size);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "tmem-store '%s': cannot change "
                             "%s to %" PRIu64, tmem_store_id(s),
                             TMEM_STORE_SIZE_PROP, size);
            return false;
        }
    }
    s->size = size;
    return true;
}

/* All users get the new limits, or none does. */
static bool tmem_store_set_user_limits(TmemStore *s,
                                       const struct tmem_limits *limits,
                                       const char *name, uint64_t value,
                                       Error **errp)
{
    TmemStoreUser *user, *undo;
    int ret;

    QLIST_FOREACH(user, &s->users, next) {
        ret = tmem_tenant_set_limits(user->tenant, limits);
        if (ret < 0) {
            error_setg_errno(errp, -ret, "tmem-store '%s': cannot change "
                             "%s to %" PRIu64, tmem_store_id(s), name, value);
            QLIST_FOREACH(undo, &s->users, next) {
                if (undo == user) {
                    break;
                }
                tmem_tenant_set_limits(undo->tenant, &s->limits);
            }
            return false;
        }
    }
    return true;
}

static bool tmem_store_set_limits(TmemStore *s,
                                  const struct tmem_limits *limits,
                                  const char *name, uint64_t value,
                                  Error **errp)
{
    unsigned users = tmem_store_num_users(s);
    uint64_t old = tmem_store_need(&s->limits, users);
    uint64_t need = tmem_store_need(limits, users);
    bool ok;

    /* More is promised first, less is given up last */
    if (!tmem_store_check_fit(s, s->size, limits, MAX(users, 1), errp) ||
        (need > old && !tmem_store_lease_need(s, need, s->size, errp))) {
        return false;
    }
    ok = tmem_store_set_user_limits(s, limits, name, value, errp);
    if (need != old && ok != (need > old)) {
        tmem_store_lease_need(s, ok ? need : old, s->size, &error_abort);
    }
    if (ok) {
        s->limits = *limits;
    }
    return ok;
}

static void tmem_store_set_size_prop(Object *obj, Visitor *v,
                                     const char *name, void *opaque,
                                     Error **errp)
{
    TmemStore *s = TMEM_STORE(obj);
    uint64_t *field = tmem_store_size_field(s, name);
    struct tmem_limits old = s->limits;
    struct tmem_limits limits = { .size = sizeof(limits) };
    uint64_t value;
    bool ok;

    if (!visit_type_size(v, name, &value, errp)) {
        return;
    }
    if (!s->complete) {
        /* Options come in any order: checked when all are known */
        *field = value;
        s->has_reserved |= field == &s->limits.persistent_reserved;
        return;
    }
    if (field == &s->size) {
        ok = tmem_store_set_total(s, value, errp);
    } else if (field == &s->cgroup_headroom || field == &s->host_headroom) {
        error_setg(errp, "tmem-store '%s': %s cannot be changed once the "
                   "store is there", tmem_store_id(s), name);
        ok = false;
    } else {
        *field = value;
        limits = s->limits;
        s->limits = old;
        ok = tmem_store_set_limits(s, &limits, name, value, errp);
    }
    if (ok) {
        tmem_store_notify(s);
    }
}

static bool tmem_store_changeable(TmemStore *s, const char *name, Error **errp)
{
    if (s->complete) {
        error_setg(errp, "tmem-store '%s': %s cannot be changed once the "
                   "store is there", tmem_store_id(s), name);
    }
    return !s->complete;
}

static uint32_t *tmem_store_recompress_field(TmemStore *s, const char *name)
{
    return g_str_equal(name, TMEM_STORE_RECOMPRESS_PROP) ?
        &s->recompress : &s->recompress_after;
}

static void tmem_store_get_recompress(Object *obj, Visitor *v,
                                      const char *name, void *opaque,
                                      Error **errp)
{
    visit_type_uint32(v, name,
                      tmem_store_recompress_field(TMEM_STORE(obj), name),
                      errp);
}

static void tmem_store_set_recompress(Object *obj, Visitor *v,
                                      const char *name, void *opaque,
                                      Error **errp)
{
    TmemStore *s = TMEM_STORE(obj);
    uint32_t *field = tmem_store_recompress_field(s, name);
    bool percent = field == &s->recompress;
    uint32_t min = percent ? 0 : 1;
    uint32_t max = percent ? 100 : TMEM_MAX_RECOMPRESS_AFTER;
    uint32_t value;

    if (!tmem_store_changeable(s, name, errp) ||
        !visit_type_uint32(v, name, &value, errp)) {
        return;
    }
    if (value < min || value > max) {
        error_setg(errp, "tmem-store '%s': %s=%" PRIu32 ": must be %" PRIu32
                   " to %" PRIu32 " %s", tmem_store_id(s), name, value, min,
                   max, percent ? "percent" : "seconds");
        return;
    }
    *field = value;
}

static bool tmem_store_get_lock(Object *obj, Error **errp)
{
    return TMEM_STORE(obj)->lock;
}

static void tmem_store_set_lock(Object *obj, bool value, Error **errp)
{
    TmemStore *s = TMEM_STORE(obj);

    if (tmem_store_changeable(s, TMEM_STORE_LOCK_PROP, errp)) {
        s->lock = value;
    }
}

static bool tmem_store_get_paranoid(Object *obj, Error **errp)
{
    return TMEM_STORE(obj)->paranoid;
}

static void tmem_store_set_paranoid(Object *obj, bool value, Error **errp)
{
    TmemStore *s = TMEM_STORE(obj);

    if (tmem_store_changeable(s, TMEM_STORE_PARANOID_PROP, errp)) {
        s->paranoid = value;
    }
}

static bool tmem_store_get_frozen(Object *obj, Error **errp)
{
    return TMEM_STORE(obj)->frozen;
}

static void tmem_store_set_frozen(Object *obj, bool value, Error **errp)
{
    TmemStore *s = TMEM_STORE(obj);
    TmemStoreUser *user;

    s->frozen = value;
    QLIST_FOREACH(user, &s->users, next) {
        tmem_tenant_freeze(user->tenant, value);
    }
    tmem_store_notify(s);
}

static bool tmem_stats_visit_members(Visitor *v,
                                     const struct tmem_stats *stats,
                                     Error **errp)
{
    const struct {
        const char *name;
        uint64_t value;
    } members[] = {
        { "persistent-pages", stats->persistent_pages },
        { "ephemeral-pages", stats->ephemeral_pages },
        { "persistent-raw-bytes", stats->persistent_raw_bytes },
        { "ephemeral-raw-bytes", stats->ephemeral_raw_bytes },
        { "stored-bytes", stats->stored_bytes },
        { "same-filled-pages", stats->same_filled_pages },
        { "raw-pages", stats->raw_pages },
        { "recompressed-pages", stats->recompressed_pages },
        { "held-bytes", stats->held_bytes },
        { "held-peak-bytes", stats->held_peak_bytes },
        { "draining-pages", stats->draining_pages },
        { "reclaimable-bytes", stats->reclaimable_bytes },
        { "puts", stats->puts },
        { "puts-refused-limit", stats->puts_refused_limit },
        { "puts-refused-memory", stats->puts_refused_memory },
        { "puts-refused-headroom", stats->puts_refused_headroom },
        { "gets", stats->gets },
        { "misses", stats->misses },
        { "io-errors", stats->io_errors },
        { "flushes", stats->flushes },
        { "evictions", stats->evictions },
        { "refaults", stats->refaults },
    };
    bool ok = true;

    for (size_t i = 0; ok && i < ARRAY_SIZE(members); i++) {
        uint64_t value = members[i].value;

        ok = visit_type_uint64(v, members[i].name, &value, errp);
    }
    return ok;
}

bool tmem_stats_visit(Visitor *v, const char *name,
                      const struct tmem_stats *stats, Error **errp)
{
    bool ok;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return false;
    }
    ok = tmem_stats_visit_members(v, stats, errp) &&
         visit_check_struct(v, errp);
    visit_end_struct(v, NULL);
    return ok;
}

bool tmem_store_visit_stats(TmemStore *s, Visitor *v, const char *name,
                            Error **errp)
{
    struct tmem_stats stats = { .size = sizeof(stats) };
    bool ok;

    if (s->store) {
        tmem_store_stats(s->store, &stats);
    }
    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return false;
    }
    ok = tmem_stats_visit_members(v, &stats, errp) &&
         tmem_store_lease_visit(&s->lease, v, errp) &&
         visit_check_struct(v, errp);
    visit_end_struct(v, NULL);
    return ok;
}

static void tmem_store_get_stats(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    tmem_store_visit_stats(TMEM_STORE(obj), v, name, errp);
}

static void tmem_store_lease_moves(void *opaque)
{
    tmem_store_notify(opaque);
}

static void tmem_store_init(Object *obj)
{
    TmemStore *s = TMEM_STORE(obj);

    QLIST_INIT(&s->users);
    s->limits.size = sizeof(s->limits);
    s->lease.changed = tmem_store_lease_moves;
    s->lease.opaque = s;
}

/*
 * Deleted: another store may have the name, and the broker the bytes, while
 * pages of this one are still being freed.  (At QEMU's end devices are there.)
 */
static void tmem_store_unparent(Object *obj)
{
    TmemStore *s = TMEM_STORE(obj);

    if (QLIST_EMPTY(&s->users)) {
        tmem_store_lease_close(&s->lease);
    }
}

static void tmem_store_finalize(Object *obj)
{
    TmemStore *s = TMEM_STORE(obj);

    assert(QLIST_EMPTY(&s->users));
    tmem_store_lease_close(&s->lease);
    g_free(s->lease.socket);
    g_free(s->lease.name);
    tmem_store_destroy(s->store);
}

static void tmem_store_class_init(ObjectClass *oc, void *data)
{
    static const struct {
        const char *name;
        const char *description;
    } sizes[] = {
        { TMEM_STORE_SIZE_PROP,
          "Bytes of host memory that the store may hold at most" },
        { TMEM_STORE_RESERVED_PROP,
          "Bytes of pages, as a guest sees them, that are kept for each "
          "device" },
        { TMEM_STORE_PERSISTENT_MAX_PROP,
          "Bytes of host memory for persistent pages of a device (0: size)" },
        { TMEM_STORE_EPHEMERAL_MAX_PROP,
          "Bytes of host memory for ephemeral pages of a device (0: size)" },
        { TMEM_STORE_CGROUP_HEADROOM_PROP,
          "Refuse puts while less is left below the cgroup's limit "
          "(0: default)" },
        { TMEM_STORE_HOST_HEADROOM_PROP,
          "Refuse puts while the host has less memory available "
          "(0: default)" },
    };
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    ucc->complete = tmem_store_complete;
    ucc->can_be_deleted = tmem_store_can_be_deleted;
    oc->unparent = tmem_store_unparent;
    tmem_store_lease_class_init(oc);

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        object_class_property_add(oc, sizes[i].name, "size",
                                  tmem_store_get_size_prop,
                                  tmem_store_set_size_prop, NULL, NULL);
        object_class_property_set_description(oc, sizes[i].name,
                                              sizes[i].description);
    }
    object_class_property_add(oc, TMEM_STORE_RECOMPRESS_PROP, "uint32",
                              tmem_store_get_recompress,
                              tmem_store_set_recompress, NULL, NULL);
    object_class_property_set_description(oc, TMEM_STORE_RECOMPRESS_PROP,
        "Percent of a CPU for compressing unused pages better");
    object_class_property_add(oc, TMEM_STORE_RECOMPRESS_AFTER_PROP, "uint32",
                              tmem_store_get_recompress,
                              tmem_store_set_recompress, NULL, NULL);
    object_class_property_set_description(oc, TMEM_STORE_RECOMPRESS_AFTER_PROP,
        "Seconds after which a page is unused");
    object_class_property_add_bool(oc, TMEM_STORE_LOCK_PROP,
                                   tmem_store_get_lock, tmem_store_set_lock);
    object_class_property_set_description(oc, TMEM_STORE_LOCK_PROP,
        "Keep the store out of the host's swap");
    object_class_property_add_bool(oc, TMEM_STORE_PARANOID_PROP,
                                   tmem_store_get_paranoid,
                                   tmem_store_set_paranoid);
    object_class_property_set_description(oc, TMEM_STORE_PARANOID_PROP,
        "Check the whole store after every operation (slow, for tests)");
    object_class_property_add_bool(oc, TMEM_STORE_FROZEN_PROP,
                                   tmem_store_get_frozen,
                                   tmem_store_set_frozen);
    object_class_property_set_description(oc, TMEM_STORE_FROZEN_PROP,
        "Let puts wait; gets and flushes go on");
    object_class_property_add(oc, TMEM_STORE_STATS_PROP, "struct",
                              tmem_store_get_stats, NULL, NULL, NULL);
    object_class_property_set_description(oc, TMEM_STORE_STATS_PROP,
        "Pages, bytes and requests of all devices");
}

static const TypeInfo tmem_store_info = {
    .name = TYPE_TMEM_STORE,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(TmemStore),
    .instance_init = tmem_store_init,
    .instance_finalize = tmem_store_finalize,
    .class_init = tmem_store_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { }
    }
};

static void tmem_store_register_types(void)
{
    type_register_static(&tmem_store_info);
}

type_init(tmem_store_register_types);
