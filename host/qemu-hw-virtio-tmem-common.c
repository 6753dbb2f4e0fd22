/*
 * Virtio transcendent memory: what the device and its vhost-user kin share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/queue.h"
#include "hw/qdev-core.h"
#include "hw/resettable.h"
#include "hw/virtio/virtio-tmem-common.h"
#include "system/reset.h"

char *virtio_tmem_make_name(DeviceState *dev)
{
    BusState *bus = qdev_get_parent_bus(dev);

    if (dev->id) {
        return g_strdup(dev->id);
    }
    if (bus->parent && bus->parent->id) {
        return g_strdup(bus->parent->id);
    }
    return object_get_canonical_path(OBJECT(dev));
}

OBJECT_DECLARE_SIMPLE_TYPE(VirtioTmemSystemReset, VIRTIO_TMEM_SYSTEM_RESET)

struct VirtioTmemSystemReset {
    Object parent;
    ResettableState reset_state;
};

/* What devices want to be called by it. */
struct VirtioTmemResetHook {
    void (*reset)(void *opaque);
    void *opaque;
    QLIST_ENTRY(VirtioTmemResetHook) next;
};

static QLIST_HEAD(, VirtioTmemResetHook) virtio_tmem_reset_hooks =
    QLIST_HEAD_INITIALIZER(virtio_tmem_reset_hooks);

OBJECT_DEFINE_SIMPLE_TYPE_WITH_INTERFACES(VirtioTmemSystemReset,
                                          virtio_tmem_system_reset,
                                          VIRTIO_TMEM_SYSTEM_RESET, OBJECT,
                                          { TYPE_RESETTABLE_INTERFACE }, { })

static void virtio_tmem_system_reset_init(Object *obj)
{
}

static void virtio_tmem_system_reset_finalize(Object *obj)
{
}

static ResettableState *virtio_tmem_system_reset_get_state(Object *obj)
{
    return &VIRTIO_TMEM_SYSTEM_RESET(obj)->reset_state;
}

/* After the hold phase, in which the device was reset: no request is left. */
static void virtio_tmem_system_reset_exit(Object *obj, ResetType type)
{
    VirtioTmemResetHook *hook;

    /* A wake-up is not a reset: the guest's memory is still there */
    if (type == RESET_TYPE_WAKEUP) {
        return;
    }
    QLIST_FOREACH(hook, &virtio_tmem_reset_hooks, next) {
        hook->reset(hook->opaque);
    }
}

static void virtio_tmem_system_reset_class_init(ObjectClass *klass, void *data)
{
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    rc->get_state = virtio_tmem_system_reset_get_state;
    rc->phases.exit = virtio_tmem_system_reset_exit;
}

/*
 * One object for all devices, which stays: a device whose unplug is pending
 * goes in the middle of a system reset, when nothing may be taken off the list
 * of what is being reset.
 */
VirtioTmemResetHook *virtio_tmem_register_system_reset(
                                            void (*reset)(void *opaque),
                                            void *opaque)
{
    static Object *obj;
    VirtioTmemResetHook *hook = g_new(VirtioTmemResetHook, 1);

    if (!obj) {
        obj = object_new(TYPE_VIRTIO_TMEM_SYSTEM_RESET);
        qemu_register_resettable(obj);
    }
    *hook = (VirtioTmemResetHook) { .reset = reset, .opaque = opaque };
    QLIST_INSERT_HEAD(&virtio_tmem_reset_hooks, hook, next);
    return hook;
}

void virtio_tmem_unregister_system_reset(VirtioTmemResetHook *hook)
{
    QLIST_REMOVE(hook, next);
    g_free(hook);
}
