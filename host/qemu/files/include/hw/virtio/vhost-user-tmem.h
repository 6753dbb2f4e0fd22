/*
 * Vhost-user transcendent memory device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VHOST_USER_TMEM_H
#define HW_VHOST_USER_TMEM_H

#include "chardev/char-fe.h"
#include "hw/virtio/vhost.h"
#include "hw/virtio/vhost-user.h"
#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio-tmem-common.h"
#include "qom/object.h"
#include "virtio_tmem.h"

#define TYPE_VHOST_USER_TMEM "vhost-user-tmem-device"

OBJECT_DECLARE_SIMPLE_TYPE(VHostUserTMEM, VHOST_USER_TMEM)

#define VHOST_USER_TMEM_CHARDEV_PROP    "chardev"
#define VHOST_USER_TMEM_NUM_FAST_PROP   "num-fast-queues"
#define VHOST_USER_TMEM_NUM_BULK_PROP   "num-bulk-queues"
#define VHOST_USER_TMEM_QUEUE_SIZE_PROP "queue-size"

struct VHostUserTMEM {
    VirtIODevice parent_obj;

    /* Options */
    CharBackend chardev;
    uint32_t num_fast;
    uint32_t num_bulk;
    uint16_t queue_size;

    char *name;                     /* for people */
    struct vhost_dev vhost_dev;
    struct vhost_virtqueue *vhost_vqs;
    VhostUserState vhost_user;
    VirtQueue **vqs;
    /* The back end's configuration, as it last told it */
    struct virtio_tmem_config config;
    bool connected;
    bool started;                   /* it serves the queues */
    /* The machine was reset while no back end was there to be told */
    bool reset_pending;
    VirtioTmemResetHook *system_reset;
    Error *blocker;
};

#endif /* HW_VHOST_USER_TMEM_H */
