/*
 * Vhost-user transcendent memory device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The queues and the pages are a back end's, vhost-user-tmem, which may go and
 * come back: until then the guest waits.  What is here is the device as the
 * guest sees it, and what the back end has to be told of the machine.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "exec/memory.h"
#include "hw/boards.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "hw/virtio/vhost-user-tmem.h"
#include "hw/virtio/virtio-bus.h"
#include "hw/virtio/virtio-tmem-common.h"
#include "migration/blocker.h"
#include "migration/vmstate.h"
#include "standard-headers/linux/virtio_ids.h"
#include "system/hostmem.h"

/* Features of the transport that depend on the back end */
static const int vhost_user_tmem_ring_features[] = {
    VIRTIO_F_VERSION_1,
    VIRTIO_F_NOTIFY_ON_EMPTY,
    VIRTIO_F_IOMMU_PLATFORM,
    VIRTIO_F_RING_PACKED,
    VIRTIO_F_IN_ORDER,
    VIRTIO_F_RING_RESET,
    VIRTIO_F_NOTIFICATION_DATA,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VHOST_INVALID_FEATURE_BIT
};

/* Bits below this are the device's */
#define VHOST_USER_TMEM_DEVICE_FEATURES MAKE_64BIT_MASK(0, 24)

static unsigned vhost_user_tmem_num_queues(VHostUserTMEM *s)
{
    return s->num_fast + s->num_bulk;
}

/* -------------------------------------------------------------- start, stop */

static int vhost_user_tmem_do_start(VHostUserTMEM *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);
    int ret;

    if (!k->set_guest_notifiers) {
        return -ENOSYS;
    }
    ret = vhost_dev_enable_notifiers(&s->vhost_dev, vdev);
    if (ret < 0) {
        return ret;
    }
    ret = k->set_guest_notifiers(qbus->parent, s->vhost_dev.nvqs, true);
    if (ret < 0) {
        goto err_host_notifiers;
    }
    s->vhost_dev.acked_features = vdev->guest_features;
    ret = vhost_dev_start(&s->vhost_dev, vdev, true);
    if (ret < 0) {
        goto err_guest_notifiers;
    }
    /* Masking is not used: see use_guest_notifier_mask */
    for (int i = 0; i < s->vhost_dev.nvqs; i++) {
        vhost_virtqueue_mask(&s->vhost_dev, vdev, i, false);
    }
    s->started = true;
    return 0;

err_guest_notifiers:
    k->set_guest_notifiers(qbus->parent, s->vhost_dev.nvqs, false);
err_host_notifiers:
    vhost_dev_disable_notifiers(&s->vhost_dev, vdev);
    return ret;
}

static void vhost_user_tmem_start(VHostUserTMEM *s)
{
    int ret = vhost_user_tmem_do_start(s);

    if (ret == -ENOMEM) {
        /* vhost's word for rings that are not in the guest's memory */
        virtio_error(VIRTIO_DEVICE(s), "vhost-user-tmem device '%s': its rings "
                     "are not in memory", s->name);
    } else if (ret < 0) {
        /*
         * The back end is going away, which may not have been seen yet, or did
         * not like something: the device is started when it is back.
         */
        error_report("vhost-user-tmem device '%s': cannot start the back end: "
                     "%s: trying again", s->name, strerror(-ret));
        qemu_chr_fe_disconnect(&s->chardev);
    }
}

static void vhost_user_tmem_stop(VHostUserTMEM *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);

    if (!s->started) {
        return;
    }
    s->started = false;
    vhost_dev_stop(&s->vhost_dev, vdev, true);
    k->set_guest_notifiers(qbus->parent, s->vhost_dev.nvqs, false);
    vhost_dev_disable_notifiers(&s->vhost_dev, vdev);
}

static void vhost_user_tmem_set_status(VirtIODevice *vdev, uint8_t status)
{
    VHostUserTMEM *s = VHOST_USER_TMEM(vdev);
    bool should_start = virtio_device_should_start(vdev, status);

    if (!s->connected || s->started == should_start) {
        return;
    }
    if (should_start) {
        vhost_user_tmem_start(s);
    } else {
        vhost_user_tmem_stop(s);
    }
}

/* ------------------------------------------------------------ configuration */

/*
 * Fetch the back end's.  The numbers of queues are the machine's, and must be
 * the back end's, too: queues cannot come and go.
 */
static bool vhost_user_tmem_fetch_config(VHostUserTMEM *s, Error **errp)
{
    struct virtio_tmem_config config;

    if (vhost_dev_get_config(&s->vhost_dev, (uint8_t *)&config, sizeof(config),
                             errp) < 0) {
        return false;
    }
    if (le16_to_cpu(config.num_fast) != s->num_fast ||
        le16_to_cpu(config.num_bulk) != s->num_bulk) {
        error_setg(errp, "vhost-user-tmem device '%s': %s=%u and %s=%u: the "
                   "back end has %u and %u: give both the same", s->name,
                   VHOST_USER_TMEM_NUM_FAST_PROP, s->num_fast,
                   VHOST_USER_TMEM_NUM_BULK_PROP, s->num_bulk,
                   le16_to_cpu(config.num_fast), le16_to_cpu(config.num_bulk));
        return false;
    }
    s->config = config;
    return true;
}

static int vhost_user_tmem_config_changed(struct vhost_dev *dev)
{
    VHostUserTMEM *s = container_of(dev, VHostUserTMEM, vhost_dev);
    Error *err = NULL;

    if (!s->connected) {
        return 0;
    }
    if (!vhost_user_tmem_fetch_config(s, &err)) {
        error_report_err(err);
        return -EIO;
    }
    virtio_notify_config(VIRTIO_DEVICE(s));
    return 0;
}

static const VhostDevConfigOps vhost_user_tmem_config_ops = {
    .vhost_dev_config_notifier = vhost_user_tmem_config_changed,
};

static void vhost_user_tmem_get_config(VirtIODevice *vdev, uint8_t *config)
{
    VHostUserTMEM *s = VHOST_USER_TMEM(vdev);

    memcpy(config, &s->config, sizeof(s->config));
}

static uint64_t vhost_user_tmem_get_features(VirtIODevice *vdev,
                                             uint64_t features, Error **errp)
{
    VHostUserTMEM *s = VHOST_USER_TMEM(vdev);

    features |= s->vhost_dev.features & VHOST_USER_TMEM_DEVICE_FEATURES;
    return vhost_get_features(&s->vhost_dev, vhost_user_tmem_ring_features,
                              features);
}

/* A ring that the back end cannot make sense of: the driver is told. */
static void vhost_user_tmem_ring_error(struct vhost_dev *dev, int index)
{
    VHostUserTMEM *s = container_of(dev, VHostUserTMEM, vhost_dev);
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (s->started && !vdev->broken) {
        virtio_error(vdev, "vhost-user-tmem device '%s': the back end cannot "
                     "serve queue %d any more", s->name, index);
    }
}

/* ------------------------------------------------------------ system reset */

/*
 * Writing a new generation is how the back end is told that the pages' memory
 * is gone.  A reset by the driver, which pools outlive, is not told.
 */
static void vhost_user_tmem_tell_reset(VHostUserTMEM *s)
{
    static const uint8_t nothing[sizeof_field(struct virtio_tmem_config,
                                              generation)];

    s->reset_pending =
        !s->connected ||
        vhost_dev_set_config(&s->vhost_dev, nothing,
                             offsetof(struct virtio_tmem_config, generation),
                             sizeof(nothing), VHOST_SET_CONFIG_TYPE_FRONTEND);
}

static void vhost_user_tmem_system_reset(void *opaque)
{
    VHostUserTMEM *s = opaque;
    Error *err = NULL;

    vhost_user_tmem_tell_reset(s);
    if (!s->reset_pending && !vhost_user_tmem_fetch_config(s, &err)) {
        error_report_err(err);
    }
}

/* --------------------------------------------------------------- connection */

/*
 * The newest blocker is the one that is told.  vhost adds one for each
 * connection, which names no device, and takes it away at its end.
 */
static bool vhost_user_tmem_block_migration(VHostUserTMEM *s, Error **errp)
{
    migrate_del_blocker(&s->blocker);
    error_setg(&s->blocker, "vhost-user-tmem device '%s': its pages are with "
               "a back end and cannot be carried", s->name);
    return migrate_add_blocker(&s->blocker, errp) == 0;
}

static void vhost_user_tmem_event(void *opaque, QEMUChrEvent event);

static bool vhost_user_tmem_connect(VHostUserTMEM *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (s->connected) {
        return true;
    }
    s->vhost_dev.nvqs = vhost_user_tmem_num_queues(s);
    /* One line says so where the back end has fewer */
    s->vhost_dev.num_queues = s->vhost_dev.nvqs;
    s->vhost_dev.vqs = s->vhost_vqs;
    s->vhost_dev.vq_index = 0;
    s->vhost_dev.backend_features = 0;
    s->vhost_dev.ring_error = vhost_user_tmem_ring_error;
    s->vhost_user.supports_config = true;
    vhost_dev_set_config_notifier(&s->vhost_dev, &vhost_user_tmem_config_ops);
    if (vhost_dev_init(&s->vhost_dev, &s->vhost_user, VHOST_BACKEND_TYPE_USER,
                       0, errp) < 0) {
        return false;
    }
    s->connected = true;
    if (s->reset_pending) {
        vhost_user_tmem_tell_reset(s);
    }
    if (!vhost_user_tmem_block_migration(s, errp) ||
        !vhost_user_tmem_fetch_config(s, errp)) {
        s->connected = false;
        vhost_dev_cleanup(&s->vhost_dev);
        return false;
    }
    if (virtio_device_started(vdev, vdev->status)) {
        /* Its pages may be gone: the generation says so */
        virtio_notify_config(vdev);
        vhost_user_tmem_start(s);
    }
    return true;
}

static void vhost_user_tmem_disconnect(DeviceState *dev)
{
    VHostUserTMEM *s = VHOST_USER_TMEM(dev);

    if (s->connected) {
        s->connected = false;
        vhost_user_tmem_stop(s);
        vhost_dev_cleanup(&s->vhost_dev);
    }
    /* For the next connection */
    qemu_chr_fe_set_handlers(&s->chardev, NULL, NULL, vhost_user_tmem_event,
                             NULL, dev, NULL, true);
}

static void vhost_user_tmem_event(void *opaque, QEMUChrEvent event)
{
    VHostUserTMEM *s = opaque;
    Error *err = NULL;

    switch (event) {
    case CHR_EVENT_OPENED:
        if (!vhost_user_tmem_connect(s, &err)) {
            error_report_err(err);
            qemu_chr_fe_disconnect(&s->chardev);
        }
        break;
    case CHR_EVENT_CLOSED:
        /* Not while whoever found it closed is using the device */
        vhost_user_async_close(DEVICE(s), &s->chardev, &s->vhost_dev,
                               vhost_user_tmem_disconnect);
        break;
    case CHR_EVENT_BREAK:
    case CHR_EVENT_MUX_IN:
    case CHR_EVENT_MUX_OUT:
        break;
    }
}

/* ------------------------------------------------------------------ realize */

/*
 * Guest memory that the back end cannot map is found out only when the driver
 * starts the device; say it while somebody is looking.  Where the memory is
 * several backends' (NUMA), the back end says it.
 */
static bool vhost_user_tmem_check_memory(VHostUserTMEM *s, Error **errp)
{
    MemoryRegion *ram = current_machine->ram;

    if (!ram || (memory_region_get_fd(ram) >= 0 &&
                 qemu_ram_is_shared(ram->ram_block))) {
        return true;
    }
    error_setg(errp, "vhost-user-tmem device '%s': the guest's memory is not "
               "shared with other processes: give -object memory-backend-memfd,"
               "id=ram,size=%" PRIu64 "M,share=on -machine memory-backend=ram",
               s->name, (uint64_t)current_machine->ram_size / MiB);
    return false;
}

static bool vhost_user_tmem_check_options(VHostUserTMEM *s, Error **errp)
{
    if (!s->chardev.chr) {
        error_setg(errp, "vhost-user-tmem device '%s': %s is missing: give the "
                   "id of a -chardev socket at which vhost-user-tmem listens",
                   s->name, VHOST_USER_TMEM_CHARDEV_PROP);
        return false;
    }
    if (!s->num_bulk) {
        error_setg(errp, "vhost-user-tmem device '%s': %s=0: must be at least "
                   "1", s->name, VHOST_USER_TMEM_NUM_BULK_PROP);
        return false;
    }
    if ((uint64_t)s->num_fast + s->num_bulk > VIRTIO_QUEUE_MAX) {
        error_setg(errp, "vhost-user-tmem device '%s': %s=%u and %s=%u: must "
                   "be at most %u together", s->name,
                   VHOST_USER_TMEM_NUM_FAST_PROP, s->num_fast,
                   VHOST_USER_TMEM_NUM_BULK_PROP, s->num_bulk,
                   VIRTIO_QUEUE_MAX);
        return false;
    }
    if (s->queue_size < 4 || s->queue_size > VIRTQUEUE_MAX_SIZE ||
        !is_power_of_2(s->queue_size)) {
        error_setg(errp, "vhost-user-tmem device '%s': %s=%u: must be a power "
                   "of 2 from 4 to %u", s->name,
                   VHOST_USER_TMEM_QUEUE_SIZE_PROP, s->queue_size,
                   VIRTQUEUE_MAX_SIZE);
        return false;
    }
    return vhost_user_tmem_check_memory(s, errp);
}

/* Kicks that nobody sees: no back end is there, it looks when it comes back. */
static void vhost_user_tmem_handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
}

static void vhost_user_tmem_unmake(VHostUserTMEM *s)
{
    for (unsigned i = 0; i < vhost_user_tmem_num_queues(s); i++) {
        virtio_delete_queue(s->vqs[i]);
    }
    g_free(s->vqs);
    g_free(s->vhost_vqs);
    virtio_cleanup(VIRTIO_DEVICE(s));
    vhost_user_cleanup(&s->vhost_user);
    migrate_del_blocker(&s->blocker);
    g_free(s->name);
    s->name = NULL;
}

static void vhost_user_tmem_device_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VHostUserTMEM *s = VHOST_USER_TMEM(dev);

    s->name = virtio_tmem_make_name(dev);
    if (!vhost_user_tmem_check_options(s, errp) ||
        !vhost_user_init(&s->vhost_user, &s->chardev, errp)) {
        g_free(s->name);
        s->name = NULL;
        return;
    }
    virtio_init(vdev, VIRTIO_ID_TMEM, sizeof(s->config));
    vdev->use_guest_notifier_mask = false;
    s->vqs = g_new(VirtQueue *, vhost_user_tmem_num_queues(s));
    s->vhost_vqs = g_new0(struct vhost_virtqueue,
                          vhost_user_tmem_num_queues(s));
    for (unsigned i = 0; i < vhost_user_tmem_num_queues(s); i++) {
        s->vqs[i] = virtio_add_queue(vdev, s->queue_size,
                                     vhost_user_tmem_handle_output);
    }
    if (qemu_chr_fe_wait_connected(&s->chardev, errp) < 0 ||
        !vhost_user_tmem_connect(s, errp)) {
        vhost_user_tmem_unmake(s);
        return;
    }
    qemu_chr_fe_set_handlers(&s->chardev, NULL, NULL, vhost_user_tmem_event,
                             NULL, dev, NULL, true);
    s->system_reset = virtio_tmem_register_system_reset(
                          vhost_user_tmem_system_reset, s);
}

static void vhost_user_tmem_device_unrealize(DeviceState *dev)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VHostUserTMEM *s = VHOST_USER_TMEM(dev);

    virtio_tmem_unregister_system_reset(s->system_reset);
    virtio_set_status(vdev, 0);
    /* Unplug: the pages are gone */
    if (s->connected) {
        vhost_user_tmem_tell_reset(s);
    }
    qemu_chr_fe_set_handlers(&s->chardev, NULL, NULL, NULL, NULL, NULL, NULL,
                             false);
    if (s->connected) {
        s->connected = false;
        vhost_dev_cleanup(&s->vhost_dev);
        /* What is left of this device's protocol is not the next one's */
        qemu_chr_fe_disconnect(&s->chardev);
    }
    vhost_user_tmem_unmake(s);
}

static struct vhost_dev *vhost_user_tmem_get_vhost(VirtIODevice *vdev)
{
    return &VHOST_USER_TMEM(vdev)->vhost_dev;
}

/* Not unmigratable: the blocker says it, and names the device */
static const VMStateDescription vhost_user_tmem_vmstate = {
    .name = "vhost-user-tmem",
    .minimum_version_id = 1,
    .version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};

static const Property vhost_user_tmem_properties[] = {
    DEFINE_PROP_CHR(VHOST_USER_TMEM_CHARDEV_PROP, VHostUserTMEM, chardev),
    DEFINE_PROP_UINT32(VHOST_USER_TMEM_NUM_FAST_PROP, VHostUserTMEM, num_fast,
                       1),
    DEFINE_PROP_UINT32(VHOST_USER_TMEM_NUM_BULK_PROP, VHostUserTMEM, num_bulk,
                       1),
    DEFINE_PROP_UINT16(VHOST_USER_TMEM_QUEUE_SIZE_PROP, VHostUserTMEM,
                       queue_size, 256),
};

static void vhost_user_tmem_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);

    device_class_set_props(dc, vhost_user_tmem_properties);
    dc->vmsd = &vhost_user_tmem_vmstate;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    vdc->realize = vhost_user_tmem_device_realize;
    vdc->unrealize = vhost_user_tmem_device_unrealize;
    vdc->get_config = vhost_user_tmem_get_config;
    vdc->get_features = vhost_user_tmem_get_features;
    vdc->set_status = vhost_user_tmem_set_status;
    vdc->get_vhost = vhost_user_tmem_get_vhost;
}

static const TypeInfo vhost_user_tmem_types[] = {
    {
        .name = TYPE_VHOST_USER_TMEM,
        .parent = TYPE_VIRTIO_DEVICE,
        .instance_size = sizeof(VHostUserTMEM),
        .class_init = vhost_user_tmem_class_init,
    }
};

DEFINE_TYPES(vhost_user_tmem_types)
