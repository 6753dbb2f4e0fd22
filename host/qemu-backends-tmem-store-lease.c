/*
 * Stores for transcendent memory: what a broker leases to them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "block/aio.h"
#include "block/aio-wait.h"
#include "hw/qdev-core.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "system/system.h"
#include "system/tmem-store.h"
#include "tmem-store-lease.h"
#include <sys/un.h>

/*
 * How long the broker's word about a larger reservation is waited for: at
 * start-up as long as it may take others to release it, later as long as a
 * guest can wait for the BQL.
 */
#define TMEM_STORE_LEASE_START_MS   30000
#define TMEM_STORE_LEASE_HOTPLUG_MS 2000

/* Of all stores with leases: a broker has one store of a name. */
static QLIST_HEAD(, TmemStoreLease) tmem_store_leases =
    QLIST_HEAD_INITIALIZER(tmem_store_leases);

static bool tmem_store_lease_check_socket(TmemStoreLease *l, const char *id,
                                          Error **errp)
{
    const size_t most = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
    size_t length = strlen(l->socket);

    if (!length || length > most) {
        error_setg(errp, "tmem-store '%s': %s=%s: must be the path of a "
                   "tmem-broker's socket, of at most %zu bytes", id,
                   TMEM_STORE_LEASE_PROP, l->socket, most);
        return false;
    }
    return true;
}

/* Who has the name, at the same broker. */
static TmemStoreLease *tmem_store_lease_find(const char *socket,
                                             const char *name)
{
    TmemStoreLease *l;

    QLIST_FOREACH(l, &tmem_store_leases, next) {
        if (g_str_equal(l->full_name, name) &&
            g_str_equal(l->socket, socket)) {
            return l;
        }
    }
    return NULL;
}

/* The guest's name is the first store's; others add their own. */
static char *tmem_store_lease_default_name(TmemStoreLease *l, const char *id)
{
    const char *name = qemu_get_vm_name();

    if (!name || !tmem_store_lease_find(l->socket, name)) {
        return g_strdup(name);
    }
    return g_strdup_printf("%s:%s", name, id);
}

static bool tmem_store_lease_take_name(TmemStoreLease *l, const char *id,
                                       Error **errp)
{
    g_autofree char *name = l->name ? g_strdup(l->name)
                                    : tmem_store_lease_default_name(l, id);
    TmemStoreLease *other;

    if (!name) {
        error_setg(errp, "tmem-store '%s': %s=%s needs a name for the broker: "
                   "give the guest's by -name, or %s", id,
                   TMEM_STORE_LEASE_PROP, l->socket,
                   TMEM_STORE_LEASE_NAME_PROP);
        return false;
    }
    if (!tmem_lease_name_ok(name)) {
        error_setg(errp, "tmem-store '%s': %s=%s%s: must have 1 to 63 of A-Z "
                   "a-z 0-9 _ . : -", id, TMEM_STORE_LEASE_NAME_PROP, name,
                   l->name ? "" : ", by the guest's name");
        return false;
    }
    other = tmem_store_lease_find(l->socket, name);
    if (other) {
        error_setg(errp, "tmem-store '%s': %s=%s is tmem-store '%s's: give "
                   "one of its own", id, TMEM_STORE_LEASE_NAME_PROP, name,
                   other->id);
        return false;
    }
    l->full_name = g_steal_pointer(&name);
    QLIST_INSERT_HEAD(&tmem_store_leases, l, next);
    return true;
}

bool tmem_store_lease_complete(TmemStoreLease *l, const char *id, Error **errp)
{
    l->complete = true;
    if (l->socket) {
        l->id = g_strdup(id);
        return tmem_store_lease_check_socket(l, id, errp) &&
               tmem_store_lease_take_name(l, id, errp);
    }
    if (l->name || l->weight) {
        error_setg(errp, "tmem-store '%s': %s needs %s", id,
                   l->name ? TMEM_STORE_LEASE_NAME_PROP
                           : TMEM_STORE_WEIGHT_PROP, TMEM_STORE_LEASE_PROP);
        return false;
    }
    return true;
}

/* ------------------------------------------------------------ the thread */

/* What a guest may see of it. */
static bool tmem_store_lease_moved(TmemStoreLease *l)
{
    struct tmem_lease_info now;
    bool moved;

    tmem_lease_info(l->lease, &now);
    moved = now.leased != l->told.leased || now.target != l->told.target ||
            now.pressure != l->told.pressure;
    l->told = now;
    return moved;
}

/* In the IOThread. */
static void tmem_store_lease_ready(void *opaque)
{
    TmemStoreLease *l = opaque;

    QEMU_LOCK_GUARD(&l->lock);
    tmem_lease_process(l->lease);
    if (tmem_store_lease_moved(l)) {
        qemu_bh_schedule(l->changed_bh);
    }
}

static void tmem_store_lease_changed(void *opaque)
{
    TmemStoreLease *l = opaque;

    l->changed(l->opaque);
}

static void tmem_store_lease_report(void *opaque, const char *line)
{
    TmemStoreLease *l = opaque;

    warn_report("tmem-store '%s': %s: %s", l->id, TMEM_STORE_LEASE_PROP, line);
}

static void tmem_store_lease_forget(void *opaque)
{
    TmemStoreLease *l = opaque;

    aio_set_fd_handler(iothread_get_aio_context(l->iothread),
                       tmem_lease_fd(l->lease), NULL, NULL, NULL, NULL, NULL);
}

bool tmem_store_lease_open(TmemStoreLease *l, struct tmem_store *store,
                           uint64_t max, Error **errp)
{
    static unsigned number;
    const struct tmem_lease_config config = {
        .size = sizeof(config),
        .flags = TMEM_LEASE_CONFIG_LATER,
        .socket = l->socket,
        .name = l->full_name,
        .max = max,
        .weight = l->weight,
        .report = tmem_store_lease_report,
        .opaque = l,
    };
    g_autofree char *name = g_strdup_printf("tmem-lease-%u", number);
    int ret;

    if (l->lease) {
        return true;
    }
    l->iothread = iothread_create(name, errp);
    if (!l->iothread) {
        return false;
    }
    number++;
    ret = tmem_lease_open(store, NULL, 0, &config, &l->lease, NULL, 0);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "tmem-store '%s': %s=%s", l->id,
                         TMEM_STORE_LEASE_PROP, l->socket);
        iothread_destroy(l->iothread);
        return false;
    }
    qemu_mutex_init(&l->lock);
    l->changed_bh = aio_bh_new(qemu_get_aio_context(),
                               tmem_store_lease_changed, l);
    aio_set_fd_handler(iothread_get_aio_context(l->iothread),
                       tmem_lease_fd(l->lease), tmem_store_lease_ready, NULL,
                       NULL, NULL, l);
    return true;
}

void tmem_store_lease_close(TmemStoreLease *l)
{
    if (l->lease) {
        aio_wait_bh_oneshot(iothread_get_aio_context(l->iothread),
                            tmem_store_lease_forget, l);
        iothread_destroy(l->iothread);
        qemu_bh_delete(l->changed_bh);
        qemu_mutex_destroy(&l->lock);
        tmem_lease_close(l->lease);
        l->lease = NULL;
    }
    if (l->full_name) {
        QLIST_REMOVE(l, next);
        g_free(l->full_name);
        l->full_name = NULL;
    }
    g_free((char *)l->id);
    l->id = NULL;
}

/* --------------------------------------------------------------- the store */

bool tmem_store_lease_set_terms(TmemStoreLease *l, uint64_t reserved,
                                uint64_t max, Error **errp)
{
    const bool started = phase_check(PHASE_MACHINE_READY);
    const struct tmem_lease_terms_config terms = {
        .size = sizeof(terms),
        .flags = started ? 0 : TMEM_LEASE_ALONE,
        .reserved = reserved,
        .max = max,
        .weight = l->weight,
        .wait_ms = started ? TMEM_STORE_LEASE_HOTPLUG_MS
                           : TMEM_STORE_LEASE_START_MS,
    };
    char why[300];
    int ret;

    l->max = max;
    WITH_QEMU_LOCK_GUARD(&l->lock) {
        ret = tmem_lease_set_terms(l->lease, &terms, why, sizeof(why));
    }
    switch (ret) {
    case 0:
        l->reserved = reserved;
        return true;
    case -EACCES:
        break;
    case -EAGAIN:
        snprintf(why, sizeof(why), "the broker has not made room for "
                 "reservations of %" PRIu64 " bytes in %u s: try again",
                 reserved, terms.wait_ms / 1000);
        break;
    case -ENOTCONN:
        snprintf(why, sizeof(why), "there is no broker that could promise "
                 "reservations of %" PRIu64 " bytes", reserved);
        break;
    default:
        snprintf(why, sizeof(why), "%s", strerror(-ret));
        break;
    }
    error_setg(errp, "tmem-store '%s': %s=%s: %s", l->id,
               TMEM_STORE_LEASE_PROP, l->socket, why);
    return false;
}

void tmem_store_lease_set_tenants(TmemStoreLease *l,
                                  struct tmem_tenant **tenants, unsigned num)
{
    QEMU_LOCK_GUARD(&l->lock);
    /* As everywhere in QEMU, there is memory for small things */
    if (tmem_lease_set_tenants(l->lease, tenants, num) < 0) {
        abort();
    }
}

void tmem_store_lease_poke(TmemStoreLease *l)
{
    if (l->lease) {
        tmem_lease_poke(l->lease);
    }
}

bool tmem_store_lease_visit(TmemStoreLease *l, Visitor *v, Error **errp)
{
    struct tmem_lease_info info;
    bool ok;

    if (!l->lease) {
        return true;
    }
    WITH_QEMU_LOCK_GUARD(&l->lock) {
        tmem_lease_info(l->lease, &info);
    }
    if (!visit_start_struct(v, "lease", NULL, 0, errp)) {
        return false;
    }
    ok = visit_type_bool(v, "connected", &info.connected, errp) &&
         visit_type_uint64(v, "leased-bytes", &info.leased, errp) &&
         visit_type_uint64(v, "target-bytes", &info.target, errp) &&
         visit_type_uint64(v, "wanted-bytes", &info.wanted, errp) &&
         visit_type_uint64(v, "reserved-bytes", &info.reserved, errp) &&
         visit_type_uint32(v, "pressure", &info.pressure, errp) &&
         visit_type_uint64(v, "recalls", &info.recalls, errp) &&
         visit_check_struct(v, errp);
    visit_end_struct(v, NULL);
    return ok;
}

/* ---------------------------------------------------------- properties */

static void tmem_store_lease_set_str(Object *obj, char **field,
                                     const char *name, const char *value,
                                     Error **errp)
{
    if (tmem_store_lease_of(obj)->complete) {
        error_setg(errp, "tmem-store '%s': %s cannot be changed once the "
                   "store is there",
                   object_get_canonical_path_component(obj), name);
        return;
    }
    g_free(*field);
    *field = g_strdup(value);
}

static char *tmem_store_get_lease(Object *obj, Error **errp)
{
    return g_strdup(tmem_store_lease_of(obj)->socket);
}

static void tmem_store_set_lease(Object *obj, const char *value, Error **errp)
{
    tmem_store_lease_set_str(obj, &tmem_store_lease_of(obj)->socket,
                             TMEM_STORE_LEASE_PROP, value, errp);
}

static char *tmem_store_get_lease_name(Object *obj, Error **errp)
{
    TmemStoreLease *l = tmem_store_lease_of(obj);

    return g_strdup(l->full_name ?: l->name);
}

static void tmem_store_set_lease_name(Object *obj, const char *value,
                                      Error **errp)
{
    tmem_store_lease_set_str(obj, &tmem_store_lease_of(obj)->name,
                             TMEM_STORE_LEASE_NAME_PROP, value, errp);
}

static void tmem_store_get_weight(Object *obj, Visitor *v, const char *name,
                                  void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &tmem_store_lease_of(obj)->weight, errp);
}

static void tmem_store_set_weight(Object *obj, Visitor *v, const char *name,
                                  void *opaque, Error **errp)
{
    const char *id = object_get_canonical_path_component(obj) ?: "(new)";
    TmemStoreLease *l = tmem_store_lease_of(obj);
    uint32_t value;

    if (!visit_type_uint32(v, name, &value, errp)) {
        return;
    }
    if (!value || value > TMEM_MAX_WEIGHT) {
        error_setg(errp, "tmem-store '%s': %s=%" PRIu32 ": must be 1 to %u",
                   id, name, value, TMEM_MAX_WEIGHT);
        return;
    }
    if (l->complete && !l->socket) {
        error_setg(errp, "tmem-store '%s': %s needs %s", id, name,
                   TMEM_STORE_LEASE_PROP);
        return;
    }
    l->weight = value;
    if (l->lease) {
        tmem_store_lease_set_terms(l, l->reserved, l->max, &error_abort);
    }
}

void tmem_store_lease_class_init(ObjectClass *oc)
{
    object_class_property_add_str(oc, TMEM_STORE_LEASE_PROP,
                                  tmem_store_get_lease, tmem_store_set_lease);
    object_class_property_set_description(oc, TMEM_STORE_LEASE_PROP,
        "Socket of the tmem-broker that says how much the store may hold");
    object_class_property_add_str(oc, TMEM_STORE_LEASE_NAME_PROP,
                                  tmem_store_get_lease_name,
                                  tmem_store_set_lease_name);
    object_class_property_set_description(oc, TMEM_STORE_LEASE_NAME_PROP,
        "What the broker knows the store by (default: the guest's name)");
    object_class_property_add(oc, TMEM_STORE_WEIGHT_PROP, "uint32",
                              tmem_store_get_weight, tmem_store_set_weight,
                              NULL, NULL);
    object_class_property_set_description(oc, TMEM_STORE_WEIGHT_PROP,
        "The store's weight among those of the broker");
}
