/*
 * Virtio transcendent memory device: what its files share
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_TMEM_INTERNAL_H
#define HW_VIRTIO_TMEM_INTERNAL_H

#include "qemu/main-loop.h"
#include "hw/virtio/virtio-tmem.h"
#include "migration/vmstate.h"

static inline unsigned virtio_tmem_num_queues(VirtIOTMEM *s)
{
    return s->num_fast + s->num_bulk;
}

/* Where the bulk queues are served; any thread. */
static inline AioContext *virtio_tmem_bulk_context(VirtIOTMEM *s)
{
    return s->bulk_iothread ? iothread_get_aio_context(s->bulk_iothread)
                            : qemu_get_aio_context();
}

/* virtio-tmem.c: clear away, soon, what requests leave behind; any thread */
void virtio_tmem_arm_step(VirtIOTMEM *s);

/* virtio-tmem-queue.c */
void virtio_tmem_bh(void *opaque);
void virtio_tmem_iothread_bh(void *opaque);
void virtio_tmem_handle_fast(VirtIODevice *vdev, VirtQueue *vq);
void virtio_tmem_handle_bulk(VirtIODevice *vdev, VirtQueue *vq);
void virtio_tmem_thaw(VirtIOTMEM *s);
int virtio_tmem_start_ioeventfd(VirtIODevice *vdev);
void virtio_tmem_stop_ioeventfd(VirtIODevice *vdev);
void virtio_tmem_queue_reset(VirtIODevice *vdev, uint32_t index);
void virtio_tmem_queue_enable(VirtIODevice *vdev, uint32_t index);

/* virtio-tmem-migration.c; with the BQL */
void virtio_tmem_update_blocker(VirtIOTMEM *s);
int virtio_tmem_migration_event(NotifierWithReturn *notifier,
                                MigrationEvent *e, Error **errp);
extern const VMStateDescription vmstate_virtio_tmem;
extern const VMStateDescription vmstate_virtio_tmem_device;

/* virtio-tmem-stats.c: getter of VIRTIO_TMEM_STATS_PROP */
void virtio_tmem_get_stats(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp);

#endif /* HW_VIRTIO_TMEM_INTERNAL_H */
