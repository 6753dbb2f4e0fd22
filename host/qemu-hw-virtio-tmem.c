/*
 * Virtio transcendent memory device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages that the guest cannot keep go to a tmem-store.  The device moves
 * descriptors between virtqueues and the request server, and knows nothing
 * of requests; the server and the store (libtmem) know nothing of QEMU.
 * This file makes and unmakes the device, resets it, and keeps house;
 * virtio-tmem-queue.c has the queues.
 *
 * Threads: see VirtIOTMEMQueue.  Fast queues have no ioeventfd: a small GET
 * is answered on the vCPU before its notification returns, with no wake-up
 * and no interrupt.  Bulk queues are an IOThread's, so that nothing is
 * compressed under the BQL.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "block/aio-wait.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "hw/boards.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-bus.h"
#include "hw/virtio/virtio-tmem.h"
#include "hw/virtio/virtio-tmem-common.h"
#include "migration/blocker.h"
#include "standard-headers/linux/virtio_ids.h"
#include "qom/object_interfaces.h"
#include "system/runstate.h"
#include "system/system.h"
#include "virtio-tmem-internal.h"
#include "trace.h"

/* How long after requests their leftovers are cleared away */
#define VIRTIO_TMEM_STEP_MS         10
/* Pages that are cleared away at a time */
#define VIRTIO_TMEM_STEP_PAGES      256
/* Least time between two configuration interrupts */
#define VIRTIO_TMEM_CONFIG_MS       100

/* ---------------------------------------------------------- housekeeping */

static void virtio_tmem_step_in(VirtIOTMEM *s, int64_t ms)
{
    timer_mod(s->step_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + ms);
}

void virtio_tmem_arm_step(VirtIOTMEM *s)
{
    if (!qatomic_read(&s->step_armed)) {
        qatomic_set(&s->step_armed, true);
        virtio_tmem_step_in(s, VIRTIO_TMEM_STEP_MS);
    }
}

/* In the bulk context. */
static void virtio_tmem_step(void *opaque)
{
    VirtIOTMEM *s = opaque;
    struct tmem_store *store = tmem_store_get(s->store);
    unsigned pages;
    int due;

    qatomic_set(&s->step_armed, false);
    pages = tmem_step(store, VIRTIO_TMEM_STEP_PAGES);
    tmem_store_poke(s->store);
    if (pages) {
        qatomic_set(&s->step_armed, true);
        virtio_tmem_step_in(s, pages < VIRTIO_TMEM_STEP_PAGES ?
                            VIRTIO_TMEM_STEP_MS : 0);
    } else {
        /* Not armed: requests may set it for an earlier time */
        due = tmem_step_due(store);
        if (due >= 0) {
            virtio_tmem_step_in(s, due);
        }
    }
    qemu_bh_schedule(s->update_bh);
}

/* Tell the driver about new limits or pressure, but not too often. */
static void virtio_tmem_update_config(void *opaque)
{
    VirtIOTMEM *s = opaque;
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);
    struct virtio_tmem_config config;

    if (tmem_server_config_changed(s->server)) {
        s->config_pending = true;
    }
    if (!s->config_pending || timer_pending(s->config_timer)) {
        return;
    }
    if (now < s->config_last_ms + VIRTIO_TMEM_CONFIG_MS) {
        timer_mod(s->config_timer, s->config_last_ms + VIRTIO_TMEM_CONFIG_MS);
        return;
    }
    s->config_pending = false;
    s->config_last_ms = now;
    tmem_server_get_config(s->server, &config);
    trace_virtio_tmem_config(s, le32_to_cpu(config.pressure),
                             le64_to_cpu(config.persistent_reserved));
    if (virtio_vdev_has_feature(vdev, VIRTIO_TMEM_F_EVENTS)) {
        virtio_notify_config(vdev);
    }
}

static void virtio_tmem_update_bh(void *opaque)
{
    VirtIOTMEM *s = opaque;
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (qatomic_xchg(&s->broken, false) && !vdev->broken) {
        virtio_error(vdev, "virtio-tmem device '%s': a request that is not in "
                     "guest memory or leaves no room for an answer", s->name);
    }
    virtio_tmem_update_blocker(s);
    virtio_tmem_update_config(s);
}

/* The store has new limits, or was frozen or thawed. */
static void virtio_tmem_store_changed(TmemStoreUser *user)
{
    VirtIOTMEM *s = container_of(user, VirtIOTMEM, user);
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    bool frozen = tmem_tenant_frozen(user->tenant);

    if (s->frozen && !frozen && !vdev->broken && !qatomic_read(&s->broken)) {
        virtio_tmem_thaw(s);
    }
    s->frozen = frozen;
    virtio_tmem_arm_step(s);
    virtio_tmem_update_config(s);
}

static void virtio_tmem_schedule_queues(VirtIOTMEM *s)
{
    for (unsigned i = 0; i < virtio_tmem_num_queues(s); i++) {
        qemu_bh_schedule(s->queues[i].bh);
    }
}

/* Kicks were not served while the VM was stopped. */
static void virtio_tmem_vm_change(void *opaque, bool running, RunState state)
{
    VirtIOTMEM *s = opaque;

    if (running) {
        virtio_tmem_schedule_queues(s);
        qemu_bh_schedule(s->update_bh);
    }
}

/* ----------------------------------------------------------------- reset */

/* By the driver: pools outlive it.  Requests have been stopped. */
static void virtio_tmem_reset(VirtIODevice *vdev)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);

    assert(!s->ioeventfd_started);
    for (unsigned i = 0; i < virtio_tmem_num_queues(s); i++) {
        qemu_bh_cancel(s->queues[i].bh);
        s->queues[i].quiet = false;
        s->queues[i].halted = false;
    }
    qatomic_set(&s->broken, false);
}

/* By the machine: pools end.  The device was reset before. */
static void virtio_tmem_system_reset(void *opaque)
{
    VirtIOTMEM *s = opaque;

    tmem_server_system_reset(s->server);
    trace_virtio_tmem_system_reset(s, tmem_server_generation(s->server));
    virtio_tmem_arm_step(s);
    qemu_bh_schedule(s->update_bh);
}

/* ------------------------------------------------------ virtio callbacks */

/*
 * A driver reads in several accesses, each of which comes here, and between two
 * of which limits may change.  As long as it reads the same generation of the
 * configuration before and after, it has seen one state of all fields: they
 * change here, with the generation, and nowhere else.  Context: BQL held
 */
static void virtio_tmem_get_config(VirtIODevice *vdev, uint8_t *config)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    struct virtio_tmem_config now;

    tmem_server_get_config(s->server, &now);
    if (memcmp(&now, &s->config_seen, sizeof(now))) {
        s->config_seen = now;
        vdev->generation++;
    }
    memcpy(config, &s->config_seen, sizeof(s->config_seen));
}

static uint64_t virtio_tmem_get_features(VirtIODevice *vdev, uint64_t features,
                                         Error **errp)
{
    return features | tmem_server_features(VIRTIO_TMEM(vdev)->server);
}

static void virtio_tmem_set_features(VirtIODevice *vdev, uint64_t features)
{
    tmem_server_set_features(VIRTIO_TMEM(vdev)->server, features);
}

static void virtio_tmem_set_status(VirtIODevice *vdev, uint8_t status)
{
    /* What the driver made available before; the BHs run after this */
    if (status & VIRTIO_CONFIG_S_DRIVER_OK) {
        virtio_tmem_schedule_queues(VIRTIO_TMEM(vdev));
    }
}

/* --------------------------------------------------------------- realize */

void virtio_tmem_default_queues(VirtIOTMEM *s)
{
    uint16_t n = MIN(current_machine->smp.cpus, VIRTIO_TMEM_MAX_AUTO_QUEUES);

    if (s->num_fast == VIRTIO_TMEM_AUTO_QUEUES) {
        s->num_fast = n;
    }
    if (s->num_bulk == VIRTIO_TMEM_AUTO_QUEUES) {
        s->num_bulk = n;
    }
}

static bool virtio_tmem_check_options(VirtIOTMEM *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (!s->num_bulk) {
        error_setg(errp, "virtio-tmem device '%s': %s=0: must be at least 1",
                   s->name, VIRTIO_TMEM_NUM_BULK_PROP);
        return false;
    }
    if ((uint64_t)s->num_fast + s->num_bulk > VIRTIO_TMEM_MAX_QUEUES) {
        error_setg(errp, "virtio-tmem device '%s': %s=%u and %s=%u: must be "
                   "at most %u together", s->name, VIRTIO_TMEM_NUM_FAST_PROP,
                   s->num_fast, VIRTIO_TMEM_NUM_BULK_PROP, s->num_bulk,
                   VIRTIO_TMEM_MAX_QUEUES);
        return false;
    }
    if (s->iothread && !virtio_device_ioeventfd_enabled(vdev)) {
        error_setg(errp, "virtio-tmem device '%s': %s needs ioeventfd=on and "
                   "a transport that has it: leave it out", s->name,
                   VIRTIO_TMEM_IOTHREAD_PROP);
        return false;
    }
    if (only_migratable) {
        error_setg(errp, "virtio-tmem device '%s' cannot be migrated while it "
                   "holds pages: leave out -only-migratable", s->name);
        return false;
    }
    return true;
}

/* Half of the guest's memory, in whole MiB so that it reads well. */
static uint64_t virtio_tmem_default_reserved(void)
{
    uint64_t half = current_machine->ram_size / 2 & ~(MiB - 1);

    return MIN(MAX(half, MiB), TMEM_MAX_RESERVED);
}

static bool virtio_tmem_make_store(VirtIOTMEM *s, Error **errp)
{
    Object *store;
    bool ok;

    if (s->store) {
        object_ref(OBJECT(s->store));
        return true;
    }
    store = object_new(TYPE_TMEM_STORE);
    tmem_store_set_defaults(TMEM_STORE(store), virtio_tmem_default_reserved());
    object_property_add_child(OBJECT(s), "default-store", store);
    object_unref(store);
    ok = user_creatable_complete(USER_CREATABLE(store), errp) &&
         object_property_set_link(OBJECT(s), VIRTIO_TMEM_STORE_PROP, store,
                                  errp);
    if (!ok) {
        object_unparent(store);
        return false;
    }
    object_ref(store);
    return true;
}

static bool virtio_tmem_make_iothread(VirtIOTMEM *s, Error **errp)
{
    Object *iothread;

    if (!virtio_device_ioeventfd_enabled(VIRTIO_DEVICE(s))) {
        return true;
    }
    if (s->iothread) {
        s->bulk_iothread = s->iothread;
        object_ref(OBJECT(s->iothread));
        return true;
    }
    iothread = object_new_with_props(TYPE_IOTHREAD, OBJECT(s), "tmem-iothread",
                                     errp, NULL);
    if (!iothread) {
        return false;
    }
    /* The child property has a reference of its own */
    s->bulk_iothread = IOTHREAD(object_ref(iothread));
    return true;
}

static bool virtio_tmem_make_server(VirtIOTMEM *s, Error **errp)
{
    struct tmem_server_config config = {
        .store = tmem_store_get(s->store),
        .tenant = s->user.tenant,
        .features = BIT_ULL(VIRTIO_TMEM_F_PERSISTENT) |
                    BIT_ULL(VIRTIO_TMEM_F_EPHEMERAL) |
                    BIT_ULL(VIRTIO_TMEM_F_EVENTS),
        .num_fast = s->num_fast,
        .num_bulk = s->num_bulk,
    };
    unsigned nvqs = virtio_tmem_num_queues(s);
    int ret = tmem_server_create(&config, &s->server);

    /* Plugged in while the store is frozen, it must notice the thaw */
    s->frozen = tmem_tenant_frozen(s->user.tenant);
    s->queues = g_new0(VirtIOTMEMQueue, nvqs);
    for (unsigned i = 0; !ret && i < nvqs; i++) {
        ret = tmem_server_queue_create(s->server, i, &s->queues[i].server);
        /* This store has no tier that a request would have to wait for */
        assert(ret || tmem_server_queue_fd(s->queues[i].server) < 0);
    }
    if (ret) {
        error_setg_errno(errp, -ret, "virtio-tmem device '%s': cannot make "
                         "its %u queues", s->name, nvqs);
    }
    return !ret;
}

/* All that virtio_tmem_device_realize() may have made before virtio_init(). */
static void virtio_tmem_unmake(VirtIOTMEM *s)
{
    Object *own;

    for (unsigned i = 0; s->queues && i < virtio_tmem_num_queues(s); i++) {
        tmem_server_queue_destroy(s->queues[i].server);
    }
    tmem_server_destroy(s->server);
    s->server = NULL;
    g_free(s->queues);
    s->queues = NULL;
    if (s->user.tenant) {
        tmem_store_detach(s->store, &s->user);
    }
    if (s->bulk_iothread) {
        object_unref(OBJECT(s->bulk_iothread));
        s->bulk_iothread = NULL;
        own = object_resolve_path_component(OBJECT(s), "tmem-iothread");
        if (own) {
            object_unparent(own);
        }
    }
    if (s->store) {
        object_unref(OBJECT(s->store));
        own = object_resolve_path_component(OBJECT(s), "default-store");
        if (own) {
            object_property_set_link(OBJECT(s), VIRTIO_TMEM_STORE_PROP, NULL,
                                     &error_abort);
            object_unparent(own);
        }
    }
    g_free(s->name);
    s->name = NULL;
}

static void virtio_tmem_add_queues(VirtIOTMEM *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    DeviceState *dev = DEVICE(s);

    for (unsigned i = 0; i < virtio_tmem_num_queues(s); i++) {
        VirtIOTMEMQueue *q = &s->queues[i];

        q->tmem = s;
        q->index = i;
        q->fast = i < s->num_fast;
        q->vq = virtio_add_queue(vdev, VIRTQUEUE_MAX_SIZE,
                                 q->fast ? virtio_tmem_handle_fast
                                         : virtio_tmem_handle_bulk);
        q->bh = virtio_bh_new_guarded(dev, virtio_tmem_bh, q);
        if (!q->fast) {
            /*
             * Not with the proxy's guard: that would refuse the vCPUs'
             * accesses while requests are served.  See
             * virtio_tmem_elem_is_ram() for why there is no re-entrancy.
             */
            q->iothread_bh = aio_bh_new_guarded(virtio_tmem_bulk_context(s),
                                                virtio_tmem_iothread_bh, q,
                                                &q->iothread_guard);
        }
    }
}

static void virtio_tmem_device_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOTMEM *s = VIRTIO_TMEM(dev);

    s->name = virtio_tmem_make_name(dev);
    s->user.changed = virtio_tmem_store_changed;
    virtio_tmem_default_queues(s);
    if (!virtio_tmem_check_options(s, errp)) {
        g_free(s->name);
        s->name = NULL;
        return;
    }
    if (!virtio_tmem_make_store(s, errp)) {
        g_free(s->name);
        s->name = NULL;
        return;
    }
    if (!virtio_tmem_make_iothread(s, errp) ||
        !tmem_store_attach(s->store, &s->user, s->name, errp) ||
        !virtio_tmem_make_server(s, errp)) {
        virtio_tmem_unmake(s);
        return;
    }

    virtio_init(vdev, VIRTIO_ID_TMEM, sizeof(struct virtio_tmem_config));
    vdev->ram_only = true;
    vdev->pause_queues = true;
    virtio_tmem_add_queues(s);
    s->step_timer = aio_timer_new(virtio_tmem_bulk_context(s),
                                  QEMU_CLOCK_REALTIME, SCALE_MS,
                                  virtio_tmem_step, s);
    s->config_timer = timer_new_ms(QEMU_CLOCK_REALTIME,
                                   virtio_tmem_update_config, s);
    s->update_bh = virtio_bh_new_guarded(dev, virtio_tmem_update_bh, s);
    /* After virtio_init(), so that ioeventfd has been started by then */
    s->change = qdev_add_vm_change_state_handler(dev, virtio_tmem_vm_change,
                                                 s);
    migration_add_notifier(&s->migration_notifier,
                           virtio_tmem_migration_event);

    s->system_reset = virtio_tmem_register_system_reset(
                          virtio_tmem_system_reset, s);
}

/* In the bulk context: after it, virtio_tmem_step() does not run. */
static void virtio_tmem_cancel_step(void *opaque)
{
    VirtIOTMEM *s = opaque;

    timer_del(s->step_timer);
}

/* Unplug: the pages are gone, and the host gets its memory back. */
static void virtio_tmem_device_unrealize(DeviceState *dev)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOTMEM *s = VIRTIO_TMEM(dev);

    assert(!s->ioeventfd_started);
    virtio_tmem_unregister_system_reset(s->system_reset);
    migration_remove_notifier(&s->migration_notifier);
    qemu_del_vm_change_state_handler(s->change);

    /* It may rearm itself once while it is being cancelled */
    aio_wait_bh_oneshot(virtio_tmem_bulk_context(s), virtio_tmem_cancel_step,
                        s);
    timer_free(s->step_timer);
    timer_free(s->config_timer);
    qemu_bh_delete(s->update_bh);
    migrate_del_blocker(&s->blocker);

    for (unsigned i = 0; i < virtio_tmem_num_queues(s); i++) {
        VirtIOTMEMQueue *q = &s->queues[i];

        qemu_bh_delete(q->bh);
        if (q->iothread_bh) {
            qemu_bh_delete(q->iothread_bh);
        }
        virtio_del_queue(vdev, i);
    }
    virtio_cleanup(vdev);
    virtio_tmem_unmake(s);
}

static const Property virtio_tmem_properties[] = {
    DEFINE_PROP_LINK(VIRTIO_TMEM_STORE_PROP, VirtIOTMEM, store,
                     TYPE_TMEM_STORE, TmemStore *),
    DEFINE_PROP_LINK(VIRTIO_TMEM_IOTHREAD_PROP, VirtIOTMEM, iothread,
                     TYPE_IOTHREAD, IOThread *),
    DEFINE_PROP_UINT32(VIRTIO_TMEM_NUM_FAST_PROP, VirtIOTMEM, num_fast,
                       VIRTIO_TMEM_AUTO_QUEUES),
    DEFINE_PROP_UINT32(VIRTIO_TMEM_NUM_BULK_PROP, VirtIOTMEM, num_bulk,
                       VIRTIO_TMEM_AUTO_QUEUES),
};

static void virtio_tmem_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);

    device_class_set_props(dc, virtio_tmem_properties);
    object_class_property_set_description(klass, VIRTIO_TMEM_STORE_PROP,
        "tmem-store for the pages (default: one of its own)");
    object_class_property_set_description(klass, VIRTIO_TMEM_IOTHREAD_PROP,
        "IOThread for the bulk queues (default: one of its own)");
    object_class_property_set_description(klass, VIRTIO_TMEM_NUM_FAST_PROP,
        "Queues for small gets, served on the vCPU (default: one per vCPU)");
    object_class_property_set_description(klass, VIRTIO_TMEM_NUM_BULK_PROP,
        "Queues for everything (default: one per vCPU)");
    object_class_property_add(klass, VIRTIO_TMEM_STATS_PROP, "struct",
                              virtio_tmem_get_stats, NULL, NULL, NULL);
    object_class_property_set_description(klass, VIRTIO_TMEM_STATS_PROP,
        "Requests, pages and bytes");
    dc->vmsd = &vmstate_virtio_tmem;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    vdc->realize = virtio_tmem_device_realize;
    vdc->unrealize = virtio_tmem_device_unrealize;
    vdc->get_config = virtio_tmem_get_config;
    vdc->get_features = virtio_tmem_get_features;
    vdc->set_features = virtio_tmem_set_features;
    vdc->set_status = virtio_tmem_set_status;
    vdc->reset = virtio_tmem_reset;
    vdc->queue_reset = virtio_tmem_queue_reset;
    vdc->queue_enable = virtio_tmem_queue_enable;
    vdc->start_ioeventfd = virtio_tmem_start_ioeventfd;
    vdc->stop_ioeventfd = virtio_tmem_stop_ioeventfd;
    vdc->vmsd = &vmstate_virtio_tmem_device;
}

static const TypeInfo virtio_tmem_info = {
    .name = TYPE_VIRTIO_TMEM,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VirtIOTMEM),
    .class_init = virtio_tmem_class_init,
};

static void virtio_tmem_register_types(void)
{
    type_register_static(&virtio_tmem_info);
}

type_init(virtio_tmem_register_types)
