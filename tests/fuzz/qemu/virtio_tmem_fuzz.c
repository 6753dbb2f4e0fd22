/*
 * Fuzzing target: virtio-tmem behind its virtqueues
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The input is a row of actions.  Most of them become requests that are right
 * but for what the input spoils, so that they get past the first checks; others
 * are bytes of the input.  ioeventfd is off, so that everything happens in the
 * thread that is watched.
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/rcu.h"
#include "qapi/error.h"
#include "qom/object.h"
#include "system/runstate.h"

#include "tests/qtest/libqtest.h"
#include "tests/qtest/libqos/virtio-tmem.h"
#include "tests/qtest/libqos/virtio.h"
#include "tests/qtest/libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/pci_regs.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio_tmem.h"
#include "fuzz.h"
#include "qos_fuzz.h"

#define NUM_QUEUES      2
#define MAX_ACTIONS     100
#define MAX_DATA        (12 * 4096)
#define PAGE            4096

/* The store's limits, in bytes */
#define SIZE            ((uint64_t)4 << 20)
#define RESERVED        ((uint64_t)1 << 20)

/* Values of Action.queue, after whose request something else happens */
#define DRIVER_RESET    0xf8    /* this and above */
#define SYSTEM_RESET    0xf4    /* to 0xf7 */
#define FREEZE          0xf2    /* 0xf2 freezes the store, 0xf3 thaws it */
#define LIMITS          0xf0    /* to 0xf1: half the limits, and back */

typedef struct Action {
    uint8_t queue;
    uint8_t op;             /* from 0xc0 on: bytes of the input */
    uint8_t flags;
    uint8_t pool;
    uint8_t object;
    uint8_t index;
    uint8_t count;
    int8_t out;             /* bytes more or fewer */
    int8_t in;
    uint8_t pieces;         /* descriptors each way, modulo 4 */
    uint8_t fill;
    uint8_t where;          /* from 0xf0 on: not in RAM */
} Action;

static const uint32_t pools[] = {
    0, 1, 2, 3, 15, 16, 17, 0x7fffffff, 0x80000000, 0xffffffff,
};

static const uint64_t indexes[] = {
    0, 1, 2, 7, 64, 12, 16, 13, 0xffffffff, 0x100000000, UINT64_MAX - 8,
    UINT64_MAX - 1, UINT64_MAX,
};

static const uint64_t counts[] = {
    1, 2, 0, 8, 9, 3, 64, 65, 0xffffffff, 0x100000001, UINT64_MAX - 1,
    UINT64_MAX,
};

static const uint64_t holes[] = {
    0xfee00000, 0xfed00000, 0xfffffff0, 0x7ffff0000000, UINT64_MAX - 4096,
};

#define PICK(table, n) table[(n) % ARRAY_SIZE(table)]

static void start(QTestState *s, QVirtioDevice *dev, uint8_t ring,
                  QVirtQueue **vq)
{
    uint64_t features = qvirtio_get_features(dev);

    features &= 0xff | BIT_ULL(VIRTIO_F_VERSION_1) |
                (ring & 1 ? BIT_ULL(VIRTIO_RING_F_EVENT_IDX) : 0);
    if (ring & 6) {
        /* Any of the two kinds of pools may be missing */
        features &= ~(uint64_t)(ring >> 1 & 3);
    }
    qvirtio_set_features(dev, features);
    for (int i = 0; i < NUM_QUEUES; i++) {
        vq[i] = qvirtqueue_setup(dev, fuzz_qos_alloc, i);
    }
    qvirtio_set_driver_ok(dev);
}

static size_t data_bytes(uint64_t count)
{
    return MIN(count, MAX_DATA / PAGE - 2) * PAGE;
}

/* Adds @bytes of memory at @addr in some pieces; the first one's number */
static uint32_t add(QTestState *s, QVirtQueue *vq, uint64_t addr, size_t bytes,
                    unsigned int pieces, bool write, bool next)
{
    size_t piece = bytes / (pieces % 4 + 1) + 1;
    uint32_t head = 0;
    bool first = true;

    while (bytes) {
        size_t n = MIN(piece, bytes);
        uint32_t desc = qvirtqueue_add(s, vq, addr, n, write,
                                       next || n < bytes);

        head = first ? desc : head;
        first = false;
        addr += n;
        bytes -= n;
    }
    return head;
}

static void act(QTestState *s, QVirtioDevice *dev, QVirtQueue *vq,
                const Action *a, const uint8_t *raw, size_t raw_bytes,
                uint64_t memory)
{
    struct virtio_tmem_req req = {
        .op = cpu_to_le16(a->op % 10),
        .flags = cpu_to_le16(a->flags),
        .pool = cpu_to_le32(PICK(pools, a->pool)),
        .index = cpu_to_le64(PICK(indexes, a->index)),
        .count = cpu_to_le64(PICK(counts, a->count)),
    };
    size_t out = sizeof(req), in = sizeof(struct virtio_tmem_resp);
    uint64_t out_at = memory, in_at, count = PICK(counts, a->count);
    static uint8_t pages[MAX_DATA];
    uint32_t head = 0;

    req.object[0] = a->object;
    /* Not qtest_memset(): the fuzzer's own one never frees what it writes. */
    memset(pages, a->fill, sizeof(pages));
    qtest_memwrite(s, memory, pages, sizeof(pages));
    if (a->op >= 0xc0) {
        qtest_memwrite(s, memory, raw, raw_bytes);
        out = raw_bytes;
        in += a->count * 16;
    } else {
        qtest_memwrite(s, memory, &req, sizeof(req));
        if (a->op % 10 == VIRTIO_TMEM_OP_PUT) {
            out += data_bytes(count);
            in += 4 * MIN(count, 64);
        } else if (a->op % 10 == VIRTIO_TMEM_OP_GET) {
            in += 4 * MIN(count, 64) + data_bytes(count);
        } else if (a->op % 10 == VIRTIO_TMEM_OP_POOL_STATS) {
            in += sizeof(struct virtio_tmem_pool_stats);
        }
    }
    out = MAX(0, (ssize_t)out + a->out);
    in = MAX(0, (ssize_t)in + a->in);
    in_at = memory + (a->where & 1 ? 0 : MAX_DATA);
    if (a->where >= 0xf0) {
        out_at = a->where & 2 ? PICK(holes, a->where) : out_at;
        in_at = a->where & 4 ? PICK(holes, a->where + 1) : in_at;
    }
    if (!out && !in) {
        return;
    }
    if (out) {
        head = add(s, vq, out_at, out, a->pieces, false, in);
    }
    if (in) {
        uint32_t desc = add(s, vq, in_at, in, a->pieces >> 2, true, false);

        head = out ? head : desc;
    }
    qvirtqueue_kick(s, dev, vq, head);
}

/* What the PCI device's configuration is after libqos has enabled it */
static uint32_t pci_command, pci_bars[6];

static QPCIDevice *pci_device(QVirtioTmem *tmem)
{
    return container_of(tmem->vdev, QVirtioPCIDevice, vdev)->pdev;
}

/* The system is reset, and a firmware gives the device its BARs again. */
static void system_reset(QVirtioTmem *tmem)
{
    QPCIDevice *pdev = pci_device(tmem);

    qemu_system_reset(SHUTDOWN_CAUSE_GUEST_RESET);
    for (int i = 0; i < ARRAY_SIZE(pci_bars); i++) {
        qpci_config_writel(pdev, PCI_BASE_ADDRESS_0 + 4 * i, pci_bars[i]);
    }
    qpci_config_writew(pdev, PCI_COMMAND, pci_command);
}

static void set_store(const char *property, uint64_t value)
{
    object_property_set_uint(object_resolve_path("/objects/store0", NULL),
                             property, value, &error_abort);
}

static void set_frozen(bool frozen)
{
    object_property_set_bool(object_resolve_path("/objects/store0", NULL),
                             "frozen", frozen, &error_abort);
}

static void halve_limits(bool halve)
{
    if (halve) {
        set_store("reserved", RESERVED / 2);
        set_store("size", SIZE / 2);
    } else {
        set_store("size", SIZE);
        set_store("reserved", RESERVED);
    }
}

static void stop(QVirtioDevice *dev, QVirtQueue **vq)
{
    for (int i = 0; i < NUM_QUEUES; i++) {
        qvirtqueue_cleanup(dev->bus, vq[i], fuzz_qos_alloc);
    }
}

/* What else happens, besides requests */
static void disturb(QTestState *s, QVirtioTmem *tmem, QVirtQueue **vq,
                    uint8_t how)
{
    if (how >= SYSTEM_RESET) {
        if (how & 1) {
            flush_events(s);
        }
        stop(tmem->vdev, vq);
        if (how < DRIVER_RESET) {
            system_reset(tmem);
        }
        qvirtio_start_device(tmem->vdev);
        start(s, tmem->vdev, how, vq);
    } else if (how >= FREEZE) {
        set_frozen(!(how & 1));
    } else if (how >= LIMITS) {
        halve_limits(!(how & 1));
    }
}

static void virtio_tmem_fuzz(QTestState *s, const unsigned char *data,
                             size_t size)
{
    static unsigned int inputs;
    QVirtioTmem *tmem = fuzz_qos_obj;
    QVirtQueue *vq[NUM_QUEUES];
    uint64_t memory;

    if (size < 1) {
        return;
    }
    qvirtio_start_device(tmem->vdev);
    start(s, tmem->vdev, data[0], vq);
    memory = guest_alloc(fuzz_qos_alloc, 2 * MAX_DATA);
    data++;
    size--;
    for (int i = 0; i < MAX_ACTIONS && size >= sizeof(Action); i++) {
        size_t raw = 0;
        Action a;

        memcpy(&a, data, sizeof(a));
        data += sizeof(a);
        size -= sizeof(a);
        if (a.op >= 0xc0) {
            raw = MIN(size, (size_t)a.fill);
        }
        act(s, tmem->vdev, vq[a.queue % NUM_QUEUES], &a, data, raw, memory);
        data += raw;
        size -= raw;
        disturb(s, tmem, vq, a.queue);
    }
    flush_events(s);
    set_frozen(false);
    halve_limits(false);
    flush_events(s);
    guest_free(fuzz_qos_alloc, memory);
    stop(tmem->vdev, vq);
    system_reset(tmem);
    flush_events(s);
    if (++inputs % 16 == 0) {
        /* What a reset leaves to RCU is freed with the lock that we hold. */
        drain_call_rcu();
    }
}

static void virtio_tmem_pre_fuzz(QTestState *s)
{
    QPCIDevice *pdev;

    qos_init_path(s);
    pdev = pci_device(fuzz_qos_obj);
    pci_command = qpci_config_readw(pdev, PCI_COMMAND);
    for (int i = 0; i < ARRAY_SIZE(pci_bars); i++) {
        pci_bars[i] = qpci_config_readl(pdev, PCI_BASE_ADDRESS_0 + 4 * i);
    }
}

static void *small_store(GString *cmd_line, void *arg)
{
    g_string_append_printf(cmd_line, " -object tmem-store,id=store0,"
                           "size=%" PRIu64 ",reserved=%" PRIu64 " ",
                           SIZE, RESERVED);
    return arg;
}

static void register_virtio_tmem_fuzz_targets(void)
{
    fuzz_add_qos_target(&(FuzzTarget){
            .name = "virtio-tmem",
            .description = "Fuzz the requests of virtio-tmem",
            .pre_fuzz = &virtio_tmem_pre_fuzz,
            .fuzz = virtio_tmem_fuzz,
        }, "virtio-tmem",
        &(QOSGraphTestOptions) {
            .before = small_store,
            .edge.extra_device_opts = "store=store0,num-fast-queues=1,"
                                      "num-bulk-queues=1,ioeventfd=off",
        });
}

fuzz_target_init(register_virtio_tmem_fuzz_targets);
