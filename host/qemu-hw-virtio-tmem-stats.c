/*
 * Virtio transcendent memory device: statistics
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/virtio/virtio-tmem.h"
#include "virtio-tmem-internal.h"

static bool virtio_tmem_visit_u64(Visitor *v, const char *name, uint64_t value,
                                  Error **errp)
{
    return visit_type_uint64(v, name, &value, errp);
}

static bool virtio_tmem_visit_requests(VirtIOTMEM *s, Visitor *v, Error **errp)
{
    static const char *const ops[] = {
        [0] = "unknown",
        [VIRTIO_TMEM_OP_POOL_CREATE] = "pool-create",
        [VIRTIO_TMEM_OP_POOL_DESTROY] = "pool-destroy",
        [VIRTIO_TMEM_OP_RESET_ALL] = "reset-all",
        [VIRTIO_TMEM_OP_PUT] = "put",
        [VIRTIO_TMEM_OP_GET] = "get",
        [VIRTIO_TMEM_OP_FLUSH] = "flush",
        [VIRTIO_TMEM_OP_FLUSH_OBJECT] = "flush-object",
        [VIRTIO_TMEM_OP_POOL_STATS] = "pool-stats",
    };
    struct tmem_server_stats stats;
    bool ok;

    tmem_server_stats(s->server, &stats);
    if (!visit_start_struct(v, "requests", NULL, 0, errp)) {
        return false;
    }
    ok = virtio_tmem_visit_u64(v, "bad-requests", stats.bad_requests, errp) &&
         virtio_tmem_visit_u64(v, "bad-chains", stats.bad_chains, errp);
    for (size_t i = 0; ok && i < ARRAY_SIZE(ops); i++) {
        ok = virtio_tmem_visit_u64(v, ops[i], stats.requests[i], errp);
    }
    visit_end_struct(v, NULL);

    if (!ok || !visit_start_struct(v, "pages", NULL, 0, errp)) {
        return false;
    }
    ok = virtio_tmem_visit_u64(v, "put", stats.pages[VIRTIO_TMEM_OP_PUT],
                               errp) &&
         virtio_tmem_visit_u64(v, "get", stats.pages[VIRTIO_TMEM_OP_GET],
                               errp) &&
         virtio_tmem_visit_u64(v, "flush", stats.pages[VIRTIO_TMEM_OP_FLUSH],
                               errp);
    visit_end_struct(v, NULL);
    return ok;
}

static bool virtio_tmem_visit_queue(VirtIOTMEMQueue *q, Visitor *v,
                                    Error **errp)
{
    bool fast = q->fast;
    bool ok;

    if (!visit_start_struct(v, NULL, NULL, 0, errp)) {
        return false;
    }
    ok = visit_type_bool(v, "fast", &fast, errp) &&
         virtio_tmem_visit_u64(v, "kicks", qatomic_read(&q->kicks), errp) &&
         virtio_tmem_visit_u64(v, "requests", qatomic_read(&q->requests),
                               errp);
    visit_end_struct(v, NULL);
    return ok;
}

static bool virtio_tmem_visit_queues(VirtIOTMEM *s, Visitor *v, Error **errp)
{
    bool ok = true;

    if (!visit_start_list(v, "queues", NULL, 0, errp)) {
        return false;
    }
    for (unsigned i = 0; ok && i < virtio_tmem_num_queues(s); i++) {
        ok = virtio_tmem_visit_queue(&s->queues[i], v, errp);
    }
    visit_end_list(v, NULL);
    return ok;
}

static bool virtio_tmem_visit_pool(VirtIOTMEM *s, Visitor *v,
                                   const struct tmem_server_pool *pool,
                                   Error **errp)
{
    bool persistent = pool->flags & VIRTIO_TMEM_POOL_PERSISTENT;
    struct tmem_stats stats = { .size = sizeof(stats) };
    bool ok;

    if (tmem_pool_stats(s->user.tenant, pool->id, &stats) < 0) {
        return true;    /* gone meanwhile */
    }
    if (!visit_start_struct(v, NULL, NULL, 0, errp)) {
        return false;
    }
    ok = virtio_tmem_visit_u64(v, "id", pool->id, errp) &&
         visit_type_bool(v, "persistent", &persistent, errp) &&
         virtio_tmem_visit_u64(v, "page-size", 1ull << pool->page_shift,
                               errp) &&
         tmem_stats_visit(v, "stats", &stats, errp);
    visit_end_struct(v, NULL);
    return ok;
}

static bool virtio_tmem_visit_pools(VirtIOTMEM *s, Visitor *v, Error **errp)
{
    g_autofree struct tmem_server_pool *pools =
        g_new(struct tmem_server_pool, TMEM_MAX_POOLS);
    unsigned num = tmem_server_list_pools(s->server, pools, TMEM_MAX_POOLS);
    bool ok = true;

    if (!visit_start_list(v, "pools", NULL, 0, errp)) {
        return false;
    }
    for (unsigned i = 0; ok && i < num; i++) {
        ok = virtio_tmem_visit_pool(s, v, &pools[i], errp);
    }
    visit_end_list(v, NULL);
    return ok;
}

static bool virtio_tmem_visit_config(VirtIOTMEM *s, Visitor *v, Error **errp)
{
    struct virtio_tmem_config config;

    tmem_server_get_config(s->server, &config);
    return virtio_tmem_visit_u64(v, "generation",
                                 le32_to_cpu(config.generation), errp) &&
           virtio_tmem_visit_u64(v, "pressure",
                                 le32_to_cpu(config.pressure), errp) &&
           virtio_tmem_visit_u64(v, "persistent-reserved",
                                 le64_to_cpu(config.persistent_reserved),
                                 errp) &&
           virtio_tmem_visit_u64(v, "persistent-max",
                                 le64_to_cpu(config.persistent_max), errp) &&
           virtio_tmem_visit_u64(v, "ephemeral-max",
                                 le64_to_cpu(config.ephemeral_max), errp);
}

void virtio_tmem_get_stats(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    VirtIOTMEM *s = VIRTIO_TMEM(obj);
    struct tmem_stats tenant = { .size = sizeof(tenant) };
    bool realized = s->server;
    bool ok;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    ok = visit_type_bool(v, "realized", &realized, errp);
    if (ok && realized) {
        tmem_tenant_stats(s->user.tenant, &tenant);
        ok = virtio_tmem_visit_config(s, v, errp) &&
             virtio_tmem_visit_requests(s, v, errp) &&
             virtio_tmem_visit_queues(s, v, errp) &&
             virtio_tmem_visit_pools(s, v, errp) &&
             tmem_stats_visit(v, "device", &tenant, errp) &&
             tmem_store_visit_stats(s->store, v, "store", errp);
    }
    if (ok) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}
