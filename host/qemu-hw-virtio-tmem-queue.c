/*
 * Virtio transcendent memory device: its queues
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Descriptors go from the virtqueues to the request server and back, on
 * whichever thread has the queue: see VirtIOTMEMQueue.
 */

#include "qemu/osdep.h"
#include "block/aio-wait.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/rcu.h"
#include "exec/address-spaces.h"
#include "exec/memory.h"
#include "hw/virtio/virtio-bus.h"
#include "hw/virtio/virtio-tmem.h"
#include "virtio-tmem-internal.h"
#include "trace.h"

/*
 * Requests that a queue gets before others have their turn.  One request is
 * at most 64 pages, so this bounds how long a vCPU or an IOThread is taken.
 */
#define VIRTIO_TMEM_BATCH           16

/*
 * Least time between two attempts to give the bulk queues to the IOThread after
 * one failed: each says so in three lines, and a driver may make many.
 */
#define VIRTIO_TMEM_RETRY_MS        60000

typedef struct VirtIOTMEMReq {
    VirtQueueElement elem;
    struct tmem_server_request rq;
} VirtIOTMEMReq;

typedef enum VirtIOTMEMProgress {
    TMEM_QUEUE_EMPTY,
    TMEM_QUEUE_MORE,
    TMEM_QUEUE_HALTED,
} VirtIOTMEMProgress;

/*
 * The IOThread runs only then.  Elsewhere: a driver may make buffers available
 * before DRIVER_OK, but the device must not take them; and guest memory must
 * not change while the VM is stopped.  Either's end schedules the BHs.
 */
static bool virtio_tmem_ready(VirtIODevice *vdev)
{
    return vdev->vm_running && (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK);
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
 * Only RAM will do: see VirtIODevice.ram_only.  Other memory is mapped through
 * a bounce buffer, which is not written back as nothing has been written to it.
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
    if (rq->op == VIRTIO_TMEM_OP_PUT && rq->done) {
        smp_mb();   /* paired with that in virtio_tmem_update_blocker() */
        if (!qatomic_read(&q->tmem->maybe_held)) {
            qatomic_set(&q->tmem->maybe_held, true);
            qemu_bh_schedule(q->tmem->update_bh);
        }
    }
    g_free(req);
    return true;
}

/* Serves at most *@left requests, and takes them off that. */
static VirtIOTMEMProgress virtio_tmem_serve_batch(VirtIOTMEMQueue *q,
                                                  unsigned *left)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(q->tmem);
    VirtIOTMEMProgress progress = TMEM_QUEUE_MORE;
    unsigned served = 0;
    VirtIOTMEMReq *req;

    while (progress == TMEM_QUEUE_MORE && served < *left &&
           !qatomic_read(&q->tmem->queues_wanted)) {
        req = virtqueue_pop(q->vq, sizeof(*req));
        if (!req) {
            progress = TMEM_QUEUE_EMPTY;
        } else if (virtio_tmem_serve_one(q, req)) {
            served++;
        } else {
            progress = TMEM_QUEUE_HALTED;
        }
    }
    *left -= served;
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
    /* Of the whole turn, also if the ring is filled as it is emptied */
    unsigned left = VIRTIO_TMEM_BATCH;
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
        progress = virtio_tmem_serve_batch(q, &left);
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

/*
 * Run @bh in the IOThread and wait for it, with the BQL held.  A queue that is
 * being served stops after the request at hand.
 */
static void virtio_tmem_run_in_iothread(VirtIOTMEM *s, QEMUBHFunc *bh,
                                        void *opaque)
{
    qatomic_set(&s->queues_wanted, true);
    aio_wait_bh_oneshot(virtio_tmem_bulk_context(s), bh, opaque);
    qatomic_set(&s->queues_wanted, false);
}

void virtio_tmem_bh(void *opaque)
{
    VirtIOTMEMQueue *q = opaque;

    if (virtio_tmem_ready(VIRTIO_DEVICE(q->tmem)) &&
        !virtio_tmem_in_iothread(q)) {
        virtio_tmem_serve(q);
    }
}

void virtio_tmem_iothread_bh(void *opaque)
{
    virtio_tmem_serve(opaque);
}

static VirtIOTMEMQueue *virtio_tmem_queue(VirtIOTMEM *s, VirtQueue *vq)
{
    return &s->queues[virtio_get_queue_index(vq)];
}

void virtio_tmem_handle_fast(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOTMEMQueue *q = virtio_tmem_queue(VIRTIO_TMEM(vdev), vq);

    qatomic_set(&q->kicks, q->kicks + 1);
    if (virtio_tmem_ready(vdev)) {
        virtio_tmem_serve(q);
    }
}

void virtio_tmem_handle_bulk(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOTMEMQueue *q = virtio_tmem_queue(VIRTIO_TMEM(vdev), vq);

    /* Not if this is polling, which saved the driver the notification */
    if (virtio_queue_get_notification(vq)) {
        qatomic_set(&q->kicks, q->kicks + 1);
    }
    if (virtio_tmem_in_iothread(q) || virtio_tmem_ready(vdev)) {
        virtio_tmem_serve(q);
    }
}

static void virtio_tmem_thaw_bh(void *opaque)
{
    VirtIOTMEM *s = opaque;

    for (unsigned i = s->num_fast; i < virtio_tmem_num_queues(s); i++) {
        VirtIOTMEMQueue *q = &s->queues[i];

        if (q->halted) {
            q->halted = false;
            virtio_queue_aio_attach_host_notifier(
                q->vq, qemu_get_current_aio_context());
        }
    }
}

/* Context: BH in the IOThread */
static void virtio_tmem_enable_bh(void *opaque)
{
    VirtIOTMEMQueue *q = opaque;

    if (!q->halted) {
        virtio_queue_aio_attach_host_notifier(q->vq,
                                              qemu_get_current_aio_context());
    }
}

/* Frozen queues go on.  Context: BQL held */
void virtio_tmem_thaw(VirtIOTMEM *s)
{
    if (s->ioeventfd_started) {
        virtio_tmem_run_in_iothread(s, virtio_tmem_thaw_bh, s);
        return;
    }
    for (unsigned i = s->num_fast; i < virtio_tmem_num_queues(s); i++) {
        VirtIOTMEMQueue *q = &s->queues[i];

        if (q->halted) {
            q->halted = false;
            qemu_bh_schedule(q->bh);
        }
    }
}

/* ------------------------------------------------------------- ioeventfd */

/*
 * Behind an IOMMU, or what may become one, each access may end in a fault that
 * is reported by a write to a register, and the translation may change under
 * the ring: both want the BQL, which the IOThread must not take.
 */
static bool virtio_tmem_may_use_iothread(VirtIOTMEM *s)
{
    int64_t now;

    if (VIRTIO_DEVICE(s)->dma_as != &address_space_memory) {
        return false;
    }
    now = qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
    /* A snapshot that is loaded may set the clock back */
    return !s->ioeventfd_failed || now < s->ioeventfd_failed_ms ||
           now - s->ioeventfd_failed_ms >= VIRTIO_TMEM_RETRY_MS;
}

/*
 * The IOThread takes the bulk queues; or it does not, and they are served as
 * the fast ones are.  Context: BQL held
 */
int virtio_tmem_start_ioeventfd(VirtIODevice *vdev)
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
    if (!virtio_tmem_may_use_iothread(s)) {
        trace_virtio_tmem_start(s, -ENOTSUP);
        return 0;
    }
    s->ioeventfd_failed = false;
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

    for (i = s->num_fast; i < nvqs; i++) {
        s->queues[i].halted = false;
        virtio_queue_aio_attach_host_notifier(s->queues[i].vq,
                                              virtio_tmem_bulk_context(s));
    }
    trace_virtio_tmem_start(s, 0);
    return 0;

fail:
    s->ioeventfd_starting = false;
    s->ioeventfd_failed = true;
    s->ioeventfd_failed_ms = qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL);
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

/* All at once: one after another they would go on serving meanwhile. */
static void virtio_tmem_stop_bh(void *opaque)
{
    VirtIOTMEM *s = opaque;

    for (unsigned i = s->num_fast; i < virtio_tmem_num_queues(s); i++) {
        virtio_tmem_stop_queue_bh(&s->queues[i]);
    }
}

/* No request is running when this returns.  Context: BQL held */
void virtio_tmem_stop_ioeventfd(VirtIODevice *vdev)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    BusState *qbus = qdev_get_parent_bus(DEVICE(s));
    VirtioBusClass *k = VIRTIO_BUS_GET_CLASS(qbus);
    unsigned nvqs = virtio_tmem_num_queues(s);
    unsigned i;

    if (!s->ioeventfd_started || s->ioeventfd_stopping) {
        return;
    }
    s->ioeventfd_stopping = true;

    virtio_tmem_run_in_iothread(s, virtio_tmem_stop_bh, s);

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

void virtio_tmem_queue_reset(VirtIODevice *vdev, uint32_t index)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    VirtIOTMEMQueue *q;

    if (index >= virtio_tmem_num_queues(s)) {
        return;
    }
    q = &s->queues[index];
    qemu_bh_cancel(q->bh);
    if (virtio_tmem_in_iothread(q)) {
        virtio_tmem_run_in_iothread(s, virtio_tmem_stop_queue_bh, q);
    }
    q->quiet = false;
    q->halted = false;
}

void virtio_tmem_queue_enable(VirtIODevice *vdev, uint32_t index)
{
    VirtIOTMEM *s = VIRTIO_TMEM(vdev);
    VirtIOTMEMQueue *q;

    if (index >= virtio_tmem_num_queues(s)) {
        return;
    }
    q = &s->queues[index];
    /* A driver may enable a queue that is enabled, and halted */
    if (virtio_tmem_in_iothread(q)) {
        virtio_tmem_run_in_iothread(s, virtio_tmem_enable_bh, q);
    }
}
