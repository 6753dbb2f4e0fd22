/*
 * Virtio transcendent memory device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Pages that the guest cannot keep go to a tmem-store.  This file moves
 * descriptors between virtqueues and the request server, and knows nothing
 * of requests; the server and the store (libtmem) know nothing of QEMU.
 *
 * Threads: see VirtIOTMEMQueue.  Fast queues have no ioeventfd: a small GET
 * is answered on the vCPU before its notification returns, with no wake-up
 * and no interrupt.  Bulk queues are an IOThread's, so that nothing is
 * compressed under the BQL.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "block/aio-wait.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "exec/memory.h"
#include "hw/boards.h"
#include "hw/qdev-properties.h"
#include "hw/resettable.h"
#include "hw/virtio/virtio-bus.h"
#include "hw/virtio/virtio-tmem.h"
#include "migration/blocker.h"
#include "standard-headers/linux/virtio_ids.h"
#include "system/reset.h"
#include "qom/object_interfaces.h"
#include "system/runstate.h"
#include "system/system.h"
#include "trace.h"

/*
 * Requests that a queue gets before others have their turn.  One request is
 * at most 64 pages, so this bounds how long a vCPU or an IOThread is taken.
 */
#define VIRTIO_TMEM_BATCH           16
/* How long after requests their leftovers are cleared away */
#define VIRTIO_TMEM_STEP_MS         10
/* Pages that are cleared away at a time */
#define VIRTIO_TMEM_STEP_PAGES      256
/* Least time between two configuration interrupts */
#define VIRTIO_TMEM_CONFIG_MS       100

typedef struct VirtIOTMEMReq {
    VirtQueueElement elem;
    struct tmem_server_request rq;
} VirtIOTMEMReq;

typedef enum VirtIOTMEMProgress {
    TMEM_QUEUE_EMPTY,
    TMEM_QUEUE_MORE,
    TMEM_QUEUE_HALTED,
} VirtIOTMEMProgress;

#define TYPE_VIRTIO_TMEM_SYSTEM_RESET "virtio-tmem-system-reset"

OBJECT_DECLARE_SIMPLE_TYPE(VirtioTmemSystemReset, VIRTIO_TMEM_SYSTEM_RESET)

/*
 * System resets end all pools: the memory that the pages belonged to is gone.
 * Device resets do not, so they need an object of their own to be told apart.
 */
struct VirtioTmemSystemReset {
    Object parent;
    ResettableState reset_state;
    VirtIOTMEM *tmem;
};

static unsigned virtio_tmem_num_queues(VirtIOTMEM *s)
{
    return (unsigned)s->num_fast + s->num_bulk;
}

/* Where the bulk queues are served; any thread. */
static AioContext *virtio_tmem_bulk_context(VirtIOTMEM *s)
{
    return s->bulk_iothread ? iothread_get_aio_context(s->bulk_iothread)
                            : qemu_get_aio_context();
}

/* The IOThread serves @q?  Called by the serving thread or with the BQL. */
static bool virtio_tmem_in_iothread(VirtIOTMEMQueue *q)
{
    return !q->fast && q->tmem->ioeventfd_started;
}

/* ------------------------------------------------------------- requests */

static void virtio_tmem_trace(VirtIOTMEMQueue *q,
                              const struct tmem_server_request *rq)
{
    VirtIOTMEM *s = q->tmem;

    switch (rq->op) {
    case VIRTIO_TMEM_OP_PUT:
        trace_virtio_tmem_put(s, q->index, rq->pool, rq->index, rq->count,
                              rq->done, rq->status);
        break;
    case VIRTIO_TMEM_OP_GET:
        trace_virtio_tmem_get(s, q->index, rq->pool, rq->index, rq->count,
                              rq->done, rq->status);
        break;
    case VIRTIO_TMEM_OP_FLUSH:
        trace_virtio_tmem_flush(s, q->index, rq->pool, rq->index, rq->count,
                                rq->done, rq->status);
        break;
    case VIRTIO_TMEM_OP_FLUSH_OBJECT:
        trace_virtio_tmem_flush_object(s, q->index, rq->pool, rq->status);
        break;
    case VIRTIO_TMEM_OP_POOL_CREATE:
        trace_virtio_tmem_pool_create(s, q->index, rq->pool, rq->index,
                                      rq->done, rq->status);
        break;
    case VIRTIO_TMEM_OP_POOL_DESTROY:
        trace_virtio_tmem_pool_destroy(s, q->index, rq->pool, rq->status);
        break;
    case VIRTIO_TMEM_OP_POOL_STATS:
        trace_virtio_tmem_pool_stats(s, q->index, rq->pool, rq->status);
        break;
    case VIRTIO_TMEM_OP_RESET_ALL:
        trace_virtio_tmem_reset_all(s, q->index, rq->status);
        break;
    default:
        trace_virtio_tmem_unknown(s, q->index, rq->op, rq->status);
        break;
    }
}

static bool virtio_tmem_iov_is_ram(const struct iovec *iov, unsigned num)
{
    ram_addr_t offset;

    for (unsigned i = 0; i < num; i++) {
        if (!memory_region_from_host(iov[i].iov_base, &offset)) {
            return false;
        }
    }
    return true;
}

/*
 * Only RAM will do.  Other memory is mapped through a bounce buffer that is
 * written back by the IOThread when the element is unmapped; where that is a
 * register of this very device, it would be reset from within its own thread.
 */
static bool virtio_tmem_elem_is_ram(const VirtQueueElement *elem)
{
    RCU_READ_LOCK_GUARD();

    return virtio_tmem_iov_is_ram(elem->out_sg, elem->out_num) &&
           virtio_tmem_iov_is_ram(elem->in_sg, elem->in_num);
}

/* Is said once; the device needs a reset.  The queue is halted. */
static void virtio_tmem_bad_chain(VirtIOTMEMQueue *q, VirtIOTMEMReq *req)
{
    VirtIOTMEM *s = q->tmem;
    VirtQueueElement *elem = &req->elem;

    trace_virtio_tmem_bad_chain(s, q->index,
                                iov_size(elem->out_sg, elem->out_num),
                                iov_size(elem->in_sg, elem->in_num));
    virtqueue_detach_element(q->vq, elem, 0);
    g_free(req);
    /* virtio_error() raises a configuration interrupt: not from IOThreads */
    qatomic_set(&s->broken, true);
    qemu_bh_schedule(s->update_bh);
}

/* False: the queue is to be left alone. */
static bool virtio_tmem_serve_one(VirtIOTMEMQueue *q, VirtIOTMEMReq *req)
{
    VirtQueueElement *elem = &req->elem;
    struct tmem_server_request *rq = &req->rq;
    int ret;

    rq->out = elem->out_sg;
    rq->out_num = elem->out_num;
    rq->in = elem->in_sg;
    rq->in_num = elem->in_num;
    ret = virtio_tmem_elem_is_ram(elem) ? tmem_server_submit(q->server, rq)
                                        : -EBADMSG;
    if (ret == -EAGAIN) {
        trace_virtio_tmem_frozen(q->tmem, q->index);
        virtqueue_unpop(q->vq, elem, 0);
        g_free(req);
        return false;
    }
    if (ret < 0) {
        virtio_tmem_bad_chain(q, req);
        return false;
    }
    virtio_tmem_trace(q, rq);
    /*
     * Exact: what lies beyond it is not marked dirty, and would be lost to
     * a live migration.
     */
    virtqueue_push(q->vq, elem, rq->used);
    tmem_server_retire(q->server, rq, true);
    if (rq->op == VIRTIO_TMEM_OP_PUT && rq->done &&
        !qatomic_read(&q->tmem->maybe_held)) {
        qatomic_set(&q->tmem->maybe_held, true);
        qemu_bh_schedule(q->tmem->update_bh);
    }
    g_free(req);
    return true;
}

static void virtio_tmem_arm_step(VirtIOTMEM *s)
{
    if (!qatomic_read(&s->step_armed)) {
        qatomic_set(&s->step_armed, true);
        timer_mod(s->step_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                 VIRTIO_TMEM_STEP_MS);
    }
}

static VirtIOTMEMProgress virtio_tmem_serve_batch(VirtIOTMEMQueue *q)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(q->tmem);
    VirtIOTMEMProgress progress = TMEM_QUEUE_MORE;
    unsigned served = 0;
    VirtIOTMEMReq *req;

    while (progress == TMEM_QUEUE_MORE && served < VIRTIO_TMEM_BATCH) {
        req = virtqueue_pop(q->vq, sizeof(*req));
        if (!req) {
            progress = TMEM_QUEUE_EMPTY;
        } else if (virtio_tmem_serve_one(q, req)) {
            served++;
        } else {
            progress = TMEM_QUEUE_HALTED;
        }
    }
    if (served) {
        qatomic_set(&q->requests, q->requests + served);
        if (virtio_tmem_in_iothread(q)) {
            virtio_notify_irqfd(vdev, q->vq);
        } else {
            virtio_notify(vdev, q->vq);
        }
        virtio_tmem_arm_step(q->tmem);
    }
    return progress;
}

/*
 * A polled queue that is left non-empty would be polled again and again.
 * Attaching it kicks it.  In the IOThread.
 */
static void virtio_tmem_halt(VirtIOTMEMQueue *q)
{
    q->halted = true;
    if (virtio_tmem_in_iothread(q)) {
        virtio_queue_aio_detach_host_notifier(q->vq,
                                              qemu_get_current_aio_context());
    }
}

static void virtio_tmem_serve(VirtIOTMEMQueue *q)
{
    VirtIOTMEMProgress progress;

    do {
        if (q->halted) {
            return;
        }
        /* Polling turns them off too; then they are not ours to turn on */
        if (virtio_queue_get_notification(q->vq)) {
            virtio_queue_set_notification(q->vq, 0);
            q->quiet = true;
        }
        progress = virtio_tmem_serve_batch(q);
        if (progress == TMEM_QUEUE_MORE) {
            qemu_bh_schedule(virtio_tmem_in_iothread(q) ? q->iothread_bh
                                                        : q->bh);
            return;
        }
        if (q->quiet) {
            q->quiet = false;
            virtio_queue_set_notification(q->vq, 1);
        }
        if (progress == TMEM_QUEUE_HALTED) {
            virtio_tmem_halt(q);
            return;
        }
    } while (!virtio_queue_empty(q->vq));
}

static void virtio_tmem_bh(void *opaque)
{
    VirtIOTMEMQueue *q = opaque;

    /* Not while the VM is stopped: guest memory must not change then */
    if (VIRTIO_DEVICE(q->tmem)->vm_running && !virtio_tmem_in_iothread(q)) {
        virtio_tmem_serve(q);
    }
}

static void virtio_tmem_iothread_bh(void *opaque)
{
    virtio_tmem_serve(opaque);
}

static VirtIOTMEMQueue *virtio_tmem_queue(VirtIOTMEM *s, VirtQueue *vq)
{
    return &s->queues[virtio_get_queue_index(vq)];
}

static void virtio_tmem_handle_fast(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOTMEMQueue *q = virtio_tmem_queue(VIRTIO_TMEM(vdev), vq);

    qatomic_set(&q->kicks, q->kicks + 1);
    virtio_tmem_serve(q);
}

static void virtio_tmem_handle_bulk(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    VirtIOTMEMQueue *q = virtio_tmem_queue(s, vq);

    if (s->bulk_iothread && !s->ioeventfd_started && !s->ioeventfd_failed) {
        /* A driver that kicks before DRIVER_OK */
        virtio_device_start_ioeventfd(vdev);
        if (s->ioeventfd_started) {
            return;
        }
    }
    /* Not if this is polling, which saved the driver the notification */
    if (virtio_queue_get_notification(vq)) {
        qatomic_set(&q->kicks, q->kicks + 1);
    }
    virtio_tmem_serve(q);
}

/* ---------------------------------------------------------- housekeeping */

/* In the bulk context. */
static void virtio_tmem_step(void *opaque)
{
    VirtIOTMEM *s = opaque;
    unsigned pages;

    qatomic_set(&s->step_armed, false);
    pages = tmem_step(tmem_store_get(s->store), VIRTIO_TMEM_STEP_PAGES);
    if (pages) {
        qatomic_set(&s->step_armed, true);
        timer_mod(s->step_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                  (pages < VIRTIO_TMEM_STEP_PAGES ? VIRTIO_TMEM_STEP_MS : 0));
    }
    qemu_bh_schedule(s->update_bh);
}

static uint64_t virtio_tmem_persistent_pages(VirtIOTMEM *s)
{
    struct tmem_stats stats;

    tmem_tenant_stats(s->user.tenant, &stats);
    return stats.persistent_pages;
}

static void virtio_tmem_set_held_error(VirtIOTMEM *s, Error **errp)
{
    error_setg(errp, "virtio-tmem device '%s' holds pages of the guest, which "
               "can be neither migrated nor saved: let the guest stop using "
               "it (swapoff) or unplug it", s->name);
}

static void virtio_tmem_update_blocker(VirtIOTMEM *s)
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

static int virtio_tmem_migration_event(NotifierWithReturn *notifier,
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

static void virtio_tmem_thaw_bh(void *opaque)
{
    VirtIOTMEMQueue *q = opaque;

    if (q->halted) {
        q->halted = false;
        virtio_queue_aio_attach_host_notifier(q->vq,
                                              qemu_get_current_aio_context());
    }
}

/* The store has new limits, or was frozen or thawed. */
static void virtio_tmem_store_changed(TmemStoreUser *user)
{
    VirtIOTMEM *s = container_of(user, VirtIOTMEM, user);
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (!tmem_tenant_frozen(user->tenant) && !vdev->broken &&
        !qatomic_read(&s->broken)) {
        for (unsigned i = s->num_fast; i < virtio_tmem_num_queues(s); i++) {
            VirtIOTMEMQueue *q = &s->queues[i];

            if (virtio_tmem_in_iothread(q)) {
                aio_wait_bh_oneshot(virtio_tmem_bulk_context(s),
                                    virtio_tmem_thaw_bh, q);
            } else if (q->halted) {
                q->halted = false;
                qemu_bh_schedule(q->bh);
            }
        }
    }
    virtio_tmem_arm_step(s);
    virtio_tmem_update_config(s);
}

/* ------------------------------------------------------------- ioeventfd */

/* The IOThread takes the bulk queues.  Context: BQL held */
static int virtio_tmem_start_ioeventfd(VirtIODevice *vdev)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);
    unsigned nvqs = virtio_tmem_num_queues(s);
    unsigned i;
    int r;

    if (s->ioeventfd_started || s->ioeventfd_starting) {
        return 0;
    }
    s->ioeventfd_starting = true;

    r = k->set_guest_notifiers(qbus->parent, nvqs, true);
    if (r != 0) {
        error_report("virtio-tmem device '%s': cannot set guest notifiers "
                     "(%d): bulk queues go without an IOThread", s->name, r);
        goto fail;
    }

    /* One transaction, as each commit visits all ioeventfds */
    memory_region_transaction_begin();
    for (i = s->num_fast; i < nvqs; i++) {
        r = virtio_bus_set_host_notifier(VIRTIO_BUS(qbus), i, true);
        if (r != 0) {
            unsigned j = i;

            while (j-- > s->num_fast) {
                virtio_bus_set_host_notifier(VIRTIO_BUS(qbus), j, false);
            }
            /* The transaction wants them open when it commits */
            memory_region_transaction_commit();
            while (i-- > s->num_fast) {
                virtio_bus_cleanup_host_notifier(VIRTIO_BUS(qbus), i);
            }
            k->set_guest_notifiers(qbus->parent, nvqs, false);
            error_report("virtio-tmem device '%s': cannot set host notifiers "
                         "(%d): bulk queues go without an IOThread",
                         s->name, r);
            goto fail;
        }
    }
    memory_region_transaction_commit();

    s->ioeventfd_starting = false;
    s->ioeventfd_started = true;
    smp_wmb(); /* paired with aio_notify_accept() on the read side */

    for (i = 0; i < nvqs; i++) {
        VirtIOTMEMQueue *q = &s->queues[i];

        q->halted = false;
        if (q->fast) {
            /* What came while the VM was stopped */
            qemu_bh_schedule(q->bh);
        } else {
            virtio_queue_aio_attach_host_notifier(q->vq,
                                                  virtio_tmem_bulk_context(s));
        }
    }
    trace_virtio_tmem_start(s, 0);
    return 0;

fail:
    s->ioeventfd_failed = true;
    s->ioeventfd_starting = false;
    trace_virtio_tmem_start(s, r);
    return -ENOSYS;
}

/* Context: BH in the IOThread */
static void virtio_tmem_stop_queue_bh(void *opaque)
{
    VirtIOTMEMQueue *q = opaque;
    EventNotifier *notifier = virtio_queue_get_host_notifier(q->vq);

    virtio_queue_aio_detach_host_notifier(q->vq,
                                          qemu_get_current_aio_context());
    /*
     * Whoever takes the queue next looks into it first, so that a kick which
     * nobody has seen yet is not lost.
     */
    event_notifier_test_and_clear(notifier);
    qemu_bh_cancel(q->iothread_bh);
    if (q->quiet) {
        q->quiet = false;
        virtio_queue_set_notification(q->vq, 1);
    }
}

/* No request is running when this returns.  Context: BQL held */
static void virtio_tmem_stop_ioeventfd(VirtIODevice *vdev)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);
    unsigned nvqs = virtio_tmem_num_queues(s);
    unsigned i;

    s->ioeventfd_failed = false;    /* better luck next time */
    if (!s->ioeventfd_started || s->ioeventfd_stopping) {
        return;
    }
    s->ioeventfd_stopping = true;

    for (i = s->num_fast; i < nvqs; i++) {
        aio_wait_bh_oneshot(virtio_tmem_bulk_context(s),
                            virtio_tmem_stop_queue_bh, &s->queues[i]);
    }

    memory_region_transaction_begin();
    for (i = s->num_fast; i < nvqs; i++) {
        virtio_bus_set_host_notifier(VIRTIO_BUS(qbus), i, false);
    }
    memory_region_transaction_commit();
    s->ioeventfd_started = false;
    for (i = s->num_fast; i < nvqs; i++) {
        event_notifier_cleanup(virtio_queue_get_host_notifier(
                                   s->queues[i].vq));
        s->queues[i].halted = false;
    }

    k->set_guest_notifiers(qbus->parent, nvqs, false);
    s->ioeventfd_stopping = false;
    trace_virtio_tmem_stop(s);
}

static void virtio_tmem_queue_reset(VirtIODevice *vdev, uint32_t index)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    VirtIOTMEMQueue *q;

    if (index >= virtio_tmem_num_queues(s)) {
        return;
    }
    q = &s->queues[index];
    qemu_bh_cancel(q->bh);
    if (virtio_tmem_in_iothread(q)) {
        aio_wait_bh_oneshot(virtio_tmem_bulk_context(s),
                            virtio_tmem_stop_queue_bh, q);
    }
    q->quiet = false;
    q->halted = false;
}

static void virtio_tmem_queue_enable(VirtIODevice *vdev, uint32_t index)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    VirtIOTMEMQueue *q;

    if (index >= virtio_tmem_num_queues(s)) {
        return;
    }
    q = &s->queues[index];
    if (virtio_tmem_in_iothread(q)) {
        virtio_queue_aio_attach_host_notifier(q->vq,
                                              virtio_tmem_bulk_context(s));
    }
}

/* Kicks were not served while the VM was stopped. */
static void virtio_tmem_vm_change(void *opaque, bool running, RunState state)
{
    VirtIOTMEM *s = opaque;

    if (running) {
        for (unsigned i = 0; i < virtio_tmem_num_queues(s); i++) {
            qemu_bh_schedule(s->queues[i].bh);
        }
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
    VirtIOTMEM *s = VIRTIO_TMEM_SYSTEM_RESET(obj)->tmem;

    /* A wake-up is not a reset: the guest's memory is still there */
    if (type == RESET_TYPE_WAKEUP) {
        return;
    }
    tmem_server_system_reset(s->server);
    trace_virtio_tmem_system_reset(s, tmem_server_generation(s->server));
    virtio_tmem_arm_step(s);
    qemu_bh_schedule(s->update_bh);
}

static void virtio_tmem_system_reset_class_init(ObjectClass *klass, void *data)
{
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    rc->get_state = virtio_tmem_system_reset_get_state;
    rc->phases.exit = virtio_tmem_system_reset_exit;
}

/* ------------------------------------------------------ virtio callbacks */

static void virtio_tmem_get_config(VirtIODevice *vdev, uint8_t *config)
{
    struct virtio_tmem_config wire;

    tmem_server_get_config(VIRTIO_TMEM(vdev)->server, &wire);
    memcpy(config, &wire, sizeof(wire));
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

static int virtio_tmem_validate_features(VirtIODevice *vdev)
{
    return virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1) ? 0 : -EINVAL;
}

/* ------------------------------------------------------------- migration */

static int virtio_tmem_pre_save(void *opaque)
{
    VirtIOTMEM *s = opaque;
    struct tmem_stats stats;
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

static const VMStateDescription vmstate_virtio_tmem_device = {
    .name = "virtio-tmem-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = virtio_tmem_pre_save,
    .post_load = virtio_tmem_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16_EQUAL(num_fast, VirtIOTMEM,
            "num-fast-queues must be the same on both sides"),
        VMSTATE_UINT16_EQUAL(num_bulk, VirtIOTMEM,
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

static const VMStateDescription vmstate_virtio_tmem = {
    .name = "virtio-tmem",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};

/* ------------------------------------------------------------ statistics */

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
    struct tmem_stats stats;
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

static void virtio_tmem_get_stats(Object *obj, Visitor *v, const char *name,
                                  void *opaque, Error **errp)
{
    VirtIOTMEM *s = VIRTIO_TMEM(obj);
    struct tmem_stats tenant = {}, store = {};
    bool realized = s->server;
    bool ok;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    ok = visit_type_bool(v, "realized", &realized, errp);
    if (ok && realized) {
        tmem_tenant_stats(s->user.tenant, &tenant);
        tmem_store_stats(tmem_store_get(s->store), &store);
        ok = virtio_tmem_visit_config(s, v, errp) &&
             virtio_tmem_visit_requests(s, v, errp) &&
             virtio_tmem_visit_queues(s, v, errp) &&
             virtio_tmem_visit_pools(s, v, errp) &&
             tmem_stats_visit(v, "device", &tenant, errp) &&
             tmem_stats_visit(v, "store", &store, errp);
    }
    if (ok) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
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

/* The user's name for the device: its own, or that of its proxy. */
static char *virtio_tmem_make_name(DeviceState *dev)
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

static bool virtio_tmem_check_options(VirtIOTMEM *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (!s->num_bulk) {
        error_setg(errp, "virtio-tmem device '%s': %s=0: must be at least 1",
                   s->name, VIRTIO_TMEM_NUM_BULK_PROP);
        return false;
    }
    if (virtio_tmem_num_queues(s) > VIRTIO_QUEUE_MAX) {
        error_setg(errp, "virtio-tmem device '%s': %s=%u and %s=%u: must be "
                   "at most %u together", s->name, VIRTIO_TMEM_NUM_FAST_PROP,
                   s->num_fast, VIRTIO_TMEM_NUM_BULK_PROP, s->num_bulk,
                   VIRTIO_QUEUE_MAX);
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

static bool virtio_tmem_make_store(VirtIOTMEM *s, Error **errp)
{
    Object *store;
    bool ok;

    if (s->store) {
        object_ref(OBJECT(s->store));
        return true;
    }
    store = object_new(TYPE_TMEM_STORE);
    /* Half of the guest's memory, in whole MiB so that it reads well */
    tmem_store_set_defaults(TMEM_STORE(store),
                            MAX(current_machine->ram_size / 2 & ~(MiB - 1),
                                MiB));
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
    Object *reset;

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

    reset = object_new(TYPE_VIRTIO_TMEM_SYSTEM_RESET);
    s->system_reset = VIRTIO_TMEM_SYSTEM_RESET(reset);
    s->system_reset->tmem = s;
    qemu_register_resettable(reset);
}

/* In the bulk context: after it, virtio_tmem_step() does not run. */
static void virtio_tmem_cancel_step(void *opaque)
{
    VirtIOTMEM *s = opaque;

    timer_del(s->step_timer);
}

/* Unplug: the pages are gone, and the host has its memory back. */
static void virtio_tmem_device_unrealize(DeviceState *dev)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOTMEM *s = VIRTIO_TMEM(dev);

    assert(!s->ioeventfd_started);
    qemu_unregister_resettable(OBJECT(s->system_reset));
    object_unref(OBJECT(s->system_reset));
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
    DEFINE_PROP_UINT16(VIRTIO_TMEM_NUM_FAST_PROP, VirtIOTMEM, num_fast,
                       VIRTIO_TMEM_AUTO_QUEUES),
    DEFINE_PROP_UINT16(VIRTIO_TMEM_NUM_BULK_PROP, VirtIOTMEM, num_bulk,
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
    vdc->validate_features = virtio_tmem_validate_features;
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
