/*
 * Virtio transcendent memory device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_VIRTIO_TMEM_H
#define HW_VIRTIO_TMEM_H

#include "hw/virtio/virtio.h"
#include "hw/virtio/virtio-tmem-common.h"
#include "migration/misc.h"
#include "qom/object.h"
#include "system/iothread.h"
#include "system/tmem-store.h"
#include "tmem-server.h"

#define TYPE_VIRTIO_TMEM "virtio-tmem-device"

OBJECT_DECLARE_SIMPLE_TYPE(VirtIOTMEM, VIRTIO_TMEM)

#define VIRTIO_TMEM_STORE_PROP      "store"
#define VIRTIO_TMEM_IOTHREAD_PROP   "iothread"
#define VIRTIO_TMEM_NUM_FAST_PROP   "num-fast-queues"
#define VIRTIO_TMEM_NUM_BULK_PROP   "num-bulk-queues"
#define VIRTIO_TMEM_STATS_PROP      "stats"

/* As many queues as there are vCPUs, VIRTIO_TMEM_MAX_AUTO_QUEUES at most */
#define VIRTIO_TMEM_AUTO_QUEUES     UINT32_MAX
#define VIRTIO_TMEM_MAX_AUTO_QUEUES 16
/* Linux' driver takes no device that has more */
#define VIRTIO_TMEM_MAX_QUEUES      64

/*
 * A queue is served by one thread at a time: a bulk queue by the IOThread
 * while ioeventfd runs, everything else by whoever holds the BQL.
 */
typedef struct VirtIOTMEMQueue {
    VirtIOTMEM *tmem;
    VirtQueue *vq;
    unsigned index;
    bool fast;
    struct tmem_server_queue *server;

    /* Go on with a queue that was left non-empty to be fair to others */
    QEMUBH *bh;                     /* under the BQL */
    QEMUBH *iothread_bh;            /* in the IOThread; bulk queues only */
    MemReentrancyGuard iothread_guard;

    /* By the serving thread */
    bool quiet;                     /* we have turned notifications off */
    bool halted;                    /* frozen, or broken: leave it alone */

    /* Statistics: written by the serving thread, atomically */
    uint64_t kicks;
    uint64_t requests;
} VirtIOTMEMQueue;

struct VirtIOTMEM {
    VirtIODevice parent_obj;

    /* Properties */
    TmemStore *store;
    IOThread *iothread;
    uint32_t num_fast;
    uint32_t num_bulk;

    char *name;                     /* for people */
    TmemStoreUser user;
    struct tmem_server *server;
    VirtIOTMEMQueue *queues;

    /* The IOThread that serves the bulk queues; NULL: there is none */
    IOThread *bulk_iothread;
    bool ioeventfd_starting;
    bool ioeventfd_started;
    bool ioeventfd_stopping;
    bool ioeventfd_failed;      /* at ioeventfd_failed_ms */
    int64_t ioeventfd_failed_ms;
    bool queues_wanted;         /* the BQL's holder waits for the IOThread */
    bool frozen;                /* the store was, when it last changed */

    /* What ops left behind is done a moment later; in the bulk context */
    QEMUTimer *step_timer;
    bool step_armed;                /* atomic */

    /* Everything that needs the BQL is done by this BH */
    QEMUBH *update_bh;
    bool broken;                    /* atomic: report and break the device */
    bool maybe_held;                /* atomic: the blocker may be needed */
    Error *blocker;
    NotifierWithReturn migration_notifier;

    /* What the driver last read: see virtio_tmem_get_config() */
    struct virtio_tmem_config config_seen;
    QEMUTimer *config_timer;
    bool config_pending;
    int64_t config_last_ms;

    VMChangeStateEntry *change;
    VirtioTmemResetHook *system_reset;

    /* What travels */
    struct {
        uint32_t generation;
        bool held;                  /* ephemeral pages, which do not travel */
        uint32_t num_pools;
        struct tmem_server_pool pools[TMEM_MAX_POOLS];
    } mig;
};

/* Replace VIRTIO_TMEM_AUTO_QUEUES; the proxy needs the numbers early. */
void virtio_tmem_default_queues(VirtIOTMEM *s);

#endif /* HW_VIRTIO_TMEM_H */
