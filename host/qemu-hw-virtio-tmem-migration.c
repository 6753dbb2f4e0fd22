/*
 * Virtio transcendent memory device: migration and snapshots
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages do not travel.  While persistent ones are held, whatever would move
 * or save the machine is refused; pools without pages do travel.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "hw/virtio/virtio-tmem.h"
#include "migration/blocker.h"
#include "migration/vmstate.h"
#include "virtio-tmem-internal.h"
#include "trace.h"

static uint64_t virtio_tmem_persistent_pages(VirtIOTMEM *s)
{
    struct tmem_stats stats = { .size = sizeof(stats) };

    tmem_tenant_stats(s->user.tenant, &stats);
    return stats.persistent_pages;
}

static void virtio_tmem_set_held_error(VirtIOTMEM *s, Error **errp)
{
    error_setg(errp, "virtio-tmem device '%s' holds pages of the guest, which "
               "can be neither migrated nor saved: let the guest stop using "
               "it (swapoff) or unplug it", s->name);
}

void virtio_tmem_update_blocker(VirtIOTMEM *s)
{
    bool held;

    /*
     * Cleared first: a put after the count is taken sets it again and comes
     * back here.  What slips through meets the migration notifier or
     * virtio_tmem_pre_save().
     */
    qatomic_set(&s->maybe_held, false);
    smp_mb();   /* the count is not taken before the flag is cleared */
    held = virtio_tmem_persistent_pages(s);
    if (held) {
        qatomic_set(&s->maybe_held, true);
    }
    if (held && !s->blocker) {
        virtio_tmem_set_held_error(s, &s->blocker);
        /* On failure a migration runs: it will not get past pre_save */
        if (migrate_add_blocker_internal(&s->blocker, NULL) == 0) {
            trace_virtio_tmem_blocker(s, true);
        } else {
            error_free(s->blocker);
            s->blocker = NULL;
            qatomic_set(&s->maybe_held, false);
        }
    } else if (!held && s->blocker) {
        migrate_del_blocker(&s->blocker);
        trace_virtio_tmem_blocker(s, false);
    }
}

int virtio_tmem_migration_event(NotifierWithReturn *notifier,
                                       MigrationEvent *e, Error **errp)
{
    VirtIOTMEM *s = container_of(notifier, VirtIOTMEM, migration_notifier);

    if (e->type == MIG_EVENT_PRECOPY_SETUP) {
        if (virtio_tmem_persistent_pages(s)) {
            virtio_tmem_set_held_error(s, errp);
            return -EBUSY;
        }
    } else {
        qemu_bh_schedule(s->update_bh);
    }
    return 0;
}

static int virtio_tmem_pre_save(void *opaque)
{
    VirtIOTMEM *s = opaque;
    struct tmem_stats stats = { .size = sizeof(stats) };
    Error *err = NULL;

    tmem_tenant_stats(s->user.tenant, &stats);
    if (stats.persistent_pages) {
        virtio_tmem_set_held_error(s, &err);
        error_report_err(err);
        return -EBUSY;
    }
    s->mig.generation = tmem_server_generation(s->server);
    s->mig.held = stats.ephemeral_pages;
    s->mig.num_pools = tmem_server_list_pools(s->server, s->mig.pools,
                                              ARRAY_SIZE(s->mig.pools));
    return 0;
}

static bool virtio_tmem_num_pools_valid(void *opaque, int version_id)
{
    VirtIOTMEM *s = opaque;

    return s->mig.num_pools <= ARRAY_SIZE(s->mig.pools);
}

static int virtio_tmem_post_load(void *opaque, int version_id)
{
    VirtIOTMEM *s = opaque;
    int ret;

    tmem_server_system_reset(s->server);
    ret = tmem_server_restore_pools(s->server, s->mig.pools,
                                    s->mig.num_pools);
    if (ret < 0) {
        error_report("virtio-tmem device '%s': the saved state has a pool that "
                     "cannot be made: %s", s->name, strerror(-ret));
        return ret;
    }
    /* Ephemeral pages stayed behind: the driver shall know */
    tmem_server_new_generation(s->server, s->mig.generation + s->mig.held);
    /* This driver was told less than the one that was here before */
    s->config_pending = true;
    qemu_bh_schedule(s->update_bh);
    return 0;
}

static const VMStateDescription vmstate_virtio_tmem_pool = {
    .name = "virtio-tmem-device/pool",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(id, struct tmem_server_pool),
        VMSTATE_UINT32(flags, struct tmem_server_pool),
        VMSTATE_UINT32(page_shift, struct tmem_server_pool),
        VMSTATE_END_OF_LIST()
    },
};

const VMStateDescription vmstate_virtio_tmem_device = {
    .name = "virtio-tmem-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = virtio_tmem_pre_save,
    .post_load = virtio_tmem_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32_EQUAL(num_fast, VirtIOTMEM,
            "num-fast-queues must be the same on both sides"),
        VMSTATE_UINT32_EQUAL(num_bulk, VirtIOTMEM,
            "num-bulk-queues must be the same on both sides"),
        VMSTATE_UINT32(mig.generation, VirtIOTMEM),
        VMSTATE_BOOL(mig.held, VirtIOTMEM),
        VMSTATE_UINT32(mig.num_pools, VirtIOTMEM),
        VMSTATE_VALIDATE("number of pools", virtio_tmem_num_pools_valid),
        VMSTATE_STRUCT_VARRAY_UINT32(mig.pools, VirtIOTMEM, mig.num_pools, 1,
                                     vmstate_virtio_tmem_pool,
                                     struct tmem_server_pool),
        VMSTATE_END_OF_LIST()
    },
};

const VMStateDescription vmstate_virtio_tmem = {
    .name = "virtio-tmem",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};
