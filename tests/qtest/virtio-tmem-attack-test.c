/*
 * QTest testcase for virtio-tmem: floods, and memory that is two things at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a hostile driver does to the device as a whole; single requests that are
 * malformed are in virtio-tmem-hostile-test.c and in the conformance vectors.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "libqos/qgraph.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_pci.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio-tmem-driver.h"

#define FAST    0
#define BULK    1

/* Bytes of QEMU's memory that are there */
static uint64_t resident(Driver *d)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            qtest_pid(d->qts));
    g_autofree char *text = NULL;
    const char *line;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    line = strstr(text, "VmRSS:");
    g_assert_nonnull(line);
    return g_ascii_strtoull(line + strlen("VmRSS:"), NULL, 10) * KiB;
}

/*
 * The available ring is full of one chain; each time the index moves on by the
 * ring's size, the device has so many requests.
 */
static void fill_ring(Driver *d, int queue, uint32_t head)
{
    QVirtQueue *vq = d->vq[queue];

    for (int i = 0; i < vq->size; i++) {
        qtest_writew(d->qts, vq->avail + offsetof(struct vring_avail, ring) +
                     2 * i, head);
    }
}

static void move_on(Driver *d, int queue, uint16_t by)
{
    QVirtQueue *vq = d->vq[queue];
    uint64_t idx = vq->avail + offsetof(struct vring_avail, idx);

    qtest_writew(d->qts, idx, qtest_readw(d->qts, idx) + by);
    d->vdev->bus->virtqueue_kick(d->vdev, vq);
}

static void wait_used(Driver *d, int queue)
{
    QVirtQueue *vq = d->vq[queue];
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    uint16_t want = qtest_readw(d->qts, vq->avail +
                                offsetof(struct vring_avail, idx));

    while (qtest_readw(d->qts, vq->used + offsetof(struct vring_used, idx)) !=
           want) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        qtest_clock_step(d->qts, 100);
    }
}

static bool needs_reset_now(Driver *d)
{
    return d->vdev->bus->get_status(d->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/*
 * A million bad requests whose completions nobody takes: neither memory nor
 * the log grows, and the next request is served.  (dev.security.bounds)
 */
static void test_flood(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    uint64_t before = 0, generation = stat_of(&d, "generation");
    unsigned int lines, rounds;

    log_started();
    lines = log_lines();
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);
    for (int queue = 0; queue < 2; queue++) {
        struct virtio_tmem_req req = request(77, 0x80000000, -1, -1);
        uint32_t head = queue_chain(&d, queue, &req, sizeof(req), NULL, 0, 16);

        fill_ring(&d, queue, head);
        rounds = 500 * 1000 / d.vq[queue]->size;
        for (unsigned int i = 0; i < rounds; i++) {
            move_on(&d, queue, d.vq[queue]->size);
            wait_used(&d, queue);
            if (i == rounds / 10) {
                before = resident(&d);
            }
        }
        g_assert_cmpuint(resident(&d), <, before + 4 * MiB);
        driver_down(&d);
        driver_up(&d);
    }
    g_assert_cmpuint(log_lines(), ==, lines);
    g_assert_cmpuint(stat_of(&d, "generation"), ==, generation);
    g_assert_cmpuint(held(&d), ==, 1);
    log_ended();
    driver_free(&d);
}

/* The device has taken all that is available */
static bool all_used(Driver *d, int queue)
{
    QVirtQueue *vq = d->vq[queue];

    return qtest_readw(d->qts, vq->used + offsetof(struct vring_used, idx)) ==
           qtest_readw(d->qts, vq->avail + offsetof(struct vring_avail, idx));
}

/* As many requests are available as the ring holds, and no more. */
static void refill(Driver *d, int queue)
{
    QVirtQueue *vq = d->vq[queue];
    uint16_t used = qtest_readw(d->qts, vq->used +
                                offsetof(struct vring_used, idx));

    qtest_writew(d->qts, vq->avail + offsetof(struct vring_avail, idx),
                 used + vq->size);
    d->vdev->bus->virtqueue_kick(d->vdev, vq);
}

/*
 * Queues that are never empty: a notification returns before all is done, and
 * the monitor is answered meanwhile.  How long that takes is told, and that it
 * does not take for ever is tested.
 */
static void test_refilled(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct virtio_tmem_req get = request(VIRTIO_TMEM_OP_GET, 0, 1, 8);
    unsigned int in_turns = 0;
    gint64 worst = 0;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 8, 5);
    for (int queue = 0; queue < 2; queue++) {
        fill_ring(&d, queue, queue_chain(&d, queue, &get, sizeof(get), NULL, 0,
                                         response_size(&get)));
    }
    for (int i = 0; i < 200; i++) {
        gint64 start;

        refill(&d, FAST);
        in_turns += !all_used(&d, FAST);
        refill(&d, BULK);
        start = g_get_monotonic_time();
        qtest_qmp_assert_success(d.qts, "{ 'execute': 'query-status' }");
        worst = MAX(worst, g_get_monotonic_time() - start);
    }
    g_test_message("query-status took %" G_GINT64_FORMAT " us at the most; "
                   "%u of 200 notifications left something for later", worst,
                   in_turns);
    g_assert_cmpint(worst, <, TIMEOUT_US);
    g_assert_cmpuint(in_turns, >, 0);
    g_assert_false(needs_reset_now(&d));
    driver_down(&d);
    driver_up(&d);
    g_assert_cmpuint(held(&d), ==, 8);
    driver_free(&d);
}

/*
 * The answer is written over the request, over the descriptors that lead to it,
 * and over both rings.  What comes of it is the driver's affair; after a reset
 * the device is as it was.  (dev.op.copy, dev.life.reset)
 */
static void test_overlap(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 8, 5);
    for (int queue = 0; queue < 2; queue++) {
        for (int i = 0; i < 6; i++) {
            struct virtio_tmem_req get = request(VIRTIO_TMEM_OP_GET, 0, 1, 8);
            QVirtQueue *vq = d.vq[queue];
            const uint64_t where[] = {
                d.arena, d.arena + 60, vq->desc, vq->avail, vq->used,
                vq->desc + 8,
            };
            uint32_t head;
            Answer a = { 0 };

            qtest_memwrite(d.qts, d.arena, &get, sizeof(get));
            head = qvirtqueue_add(d.qts, vq, d.arena, sizeof(get), false, true);
            qvirtqueue_add(d.qts, vq, where[i], response_size(&get), true,
                           false);
            qvirtqueue_kick(d.qts, d.vdev, vq, head);
            qtest_clock_step(d.qts, 100);
            g_usleep(5000);
            driver_down(&d);
            driver_up(&d);
            submit(&d, queue, get, NULL, 0, &a);
            g_assert_cmpuint(a.done, ==, 8);
            for (int n = 0; n < 8; n++) {
                expect_page(&a, n, 5 + n);
            }
        }
    }
    driver_free(&d);
}

/*
 * Descriptors that are the same memory: all pages of a put are one page, and
 * all pages of a get go where one is.  (dev.op.copy)
 */
static void test_overlap_pages(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    uint64_t memory = guest_alloc(alloc, 2 * PAGE);
    struct virtio_tmem_req put = request(VIRTIO_TMEM_OP_PUT, 0, 1, 8);
    struct virtio_tmem_req get = request(VIRTIO_TMEM_OP_GET, 0, 1, 8);
    uint8_t page[PAGE], got[PAGE];
    uint32_t head, used, status[8];
    QVirtQueue *vq = d.vq[BULK];
    Answer a = { 0 };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    fill(page, 5);
    qtest_memwrite(d.qts, d.arena, &put, sizeof(put));
    qtest_bufwrite(d.qts, memory, page, PAGE);
    head = qvirtqueue_add(d.qts, vq, d.arena, sizeof(put), false, true);
    for (int i = 0; i < 8; i++) {
        qvirtqueue_add(d.qts, vq, memory, PAGE, false, true);
    }
    qvirtqueue_add(d.qts, vq, d.arena + sizeof(put), response_size(&put), true,
                   false);
    qvirtqueue_kick(d.qts, d.vdev, vq, head);
    qvirtio_wait_used_elem(d.qts, d.vdev, vq, head, &used, TIMEOUT_US);
    g_assert_cmpuint(used, ==, response_size(&put));
    submit(&d, BULK, get, NULL, 0, &a);
    for (int i = 0; i < 8; i++) {
        expect_page(&a, i, 5);
    }

    put_ok(&d, 0, 1, 8, 20);
    qtest_memwrite(d.qts, d.arena, &get, sizeof(get));
    head = qvirtqueue_add(d.qts, vq, d.arena, sizeof(get), false, true);
    qvirtqueue_add(d.qts, vq, d.arena + sizeof(get), 16 + sizeof(status), true,
                   true);
    for (int i = 0; i < 8; i++) {
        qvirtqueue_add(d.qts, vq, memory, PAGE, true, i < 7);
    }
    qvirtqueue_kick(d.qts, d.vdev, vq, head);
    qvirtio_wait_used_elem(d.qts, d.vdev, vq, head, &used, TIMEOUT_US);
    g_assert_cmpuint(used, ==, response_size(&get));
    qtest_bufread(d.qts, d.arena + sizeof(get) + 16, status, sizeof(status));
    qtest_bufread(d.qts, memory, got, PAGE);
    for (int i = 0; i < 8; i++) {
        g_assert_cmphex(status[i] >> VIRTIO_TMEM_PAGE_STATUS_SHIFT, ==, 0);
        fill(page, 20 + i);
        if (!memcmp(got, page, PAGE)) {
            guest_free(alloc, memory);
            driver_free(&d);
            return;
        }
    }
    g_assert_not_reached();
}

/* ------------------------------------------------- memory that goes away */

#define ACPI_MEMORY         0xa00   /* ACPI's registers for memory hot-plug */
#define DIMM_BYTES          (16 * MiB)

static uint64_t plug_dimm(Driver *d)
{
    QDict *reply;
    const QListEntry *entry;
    uint64_t addr;

    qtest_qmp_assert_success(d->qts, "{ 'execute': 'object-add', 'arguments': "
        "{ 'qom-type': 'memory-backend-ram', 'id': 'mem0', 'size': %d } }",
        (int)DIMM_BYTES);
    qtest_qmp_device_add(d->qts, "pc-dimm", "dimm0", "{ 'memdev': 'mem0' }");
    reply = qtest_qmp(d->qts, "{ 'execute': 'query-memory-devices' }");
    entry = qlist_first(qdict_get_qlist(reply, "return"));
    g_assert_nonnull(entry);
    addr = qdict_get_int(qdict_get_qdict(qobject_to(QDict,
                                                    qlist_entry_obj(entry)),
                                         "data"), "addr");
    qobject_unref(reply);
    return addr;
}

/* As a guest does that has let go of it, and as one that has not. */
static void unplug_dimm(Driver *d)
{
    qtest_outl(d->qts, ACPI_MEMORY, 0);
    qtest_outb(d->qts, ACPI_MEMORY + 0x14, 1 << 3);
    qtest_qmp_eventwait(d->qts, "DEVICE_DELETED");
    qtest_qmp_assert_success(d->qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'mem0' } }");
}

/*
 * Memory is unplugged while requests on it are served, and is named
 * afterwards: the device needs a reset, and what it holds is there.
 */
static void test_unplugged(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct virtio_tmem_req put = request(VIRTIO_TMEM_OP_PUT, 0, 100, MAX_PAGES);
    struct virtio_tmem_req one = request(VIRTIO_TMEM_OP_PUT, 0, 100, 1);

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);
    for (int round = 0; round < 10; round++) {
        uint64_t dimm = plug_dimm(&d);
        QVirtQueue *vq = d.vq[BULK];
        uint32_t head;
        Answer a = { 0 };

        qtest_memset(d.qts, dimm, 0x40 + round, MAX_PAGES * PAGE);
        qtest_memwrite(d.qts, d.arena, &put, sizeof(put));
        head = qvirtqueue_add(d.qts, vq, d.arena, sizeof(put), false, true);
        qvirtqueue_add(d.qts, vq, dimm, MAX_PAGES * PAGE, false, true);
        qvirtqueue_add(d.qts, vq, d.arena + sizeof(put), response_size(&put),
                       true, false);
        fill_ring(&d, BULK, head);
        move_on(&d, BULK, vq->size);
        g_usleep(round * 300);
        unplug_dimm(&d);
        /* The ring is full of it: some of it was served, the rest is not */
        g_assert_true(all_used(&d, BULK) || needs_reset(&d));
        driver_down(&d);
        driver_up(&d);
        submit(&d, BULK, request(VIRTIO_TMEM_OP_GET, 0, 1, 1), NULL, 0, &a);
        expect_page(&a, 0, 5);

        /* Named when it has gone, on each queue and in each direction */
        for (int i = 0; i < 4; i++) {
            vq = d.vq[i & 1];
            qtest_memwrite(d.qts, d.arena, &one, sizeof(one));
            head = qvirtqueue_add(d.qts, vq, d.arena, sizeof(one), false, true);
            qvirtqueue_add(d.qts, vq, dimm, PAGE, i & 2, !(i & 2));
            if (!(i & 2)) {
                qvirtqueue_add(d.qts, vq, d.arena + sizeof(one), 20, true,
                               false);
            }
            qvirtqueue_kick(d.qts, d.vdev, vq, head);
            g_assert_true(needs_reset(&d));
            driver_down(&d);
            driver_up(&d);
        }
    }
    driver_free(&d);
}

/*
 * One key on two queues at a time: a get has the older page or the newer one,
 * each of them whole.  (dev.op.instant)
 */
static void test_two_queues(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct virtio_tmem_req put = request(VIRTIO_TMEM_OP_PUT, 0, 1, 1);
    struct virtio_tmem_req get = request(VIRTIO_TMEM_OP_GET, 0, 1, 1);
    uint64_t memory = guest_alloc(alloc, 2 * PAGE);
    unsigned int older = 0;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 0);
    for (unsigned int seed = 1; seed <= 300; seed++) {
        uint8_t page[2][PAGE];
        uint32_t head;
        Answer a = { 0 };
        bool is_older;
        gint64 end;

        fill(page[0], seed - 1);
        fill(page[1], seed);
        qtest_memwrite(d.qts, memory, &put, sizeof(put));
        qtest_bufwrite(d.qts, memory + sizeof(put), page[1], PAGE);
        head = qvirtqueue_add(d.qts, d.vq[BULK], memory, sizeof(put) + PAGE,
                              false, true);
        qvirtqueue_add(d.qts, d.vq[BULK], memory + sizeof(put) + PAGE, 20,
                       true, false);
        qvirtqueue_kick(d.qts, d.vdev, d.vq[BULK], head);
        submit(&d, FAST, get, NULL, 0, &a);
        g_assert_cmpuint(a.done, ==, 1);
        is_older = !memcmp(a.data, page[0], PAGE);
        older += is_older;
        g_assert_true(is_older || !memcmp(a.data, page[1], PAGE));
        /* The interrupt may have been taken for the other queue's. */
        end = g_get_monotonic_time() + TIMEOUT_US;
        while (!qvirtqueue_get_buf(d.qts, d.vq[BULK], NULL, NULL)) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
        }
        submit(&d, FAST, get, NULL, 0, &a);
        expect_page(&a, 0, seed);
        if (seed % 64 == 0) {
            /* libqos does not take descriptors back */
            driver_down(&d);
            driver_up(&d);
        }
    }
    g_test_message("%u of 300 gets came before the put", older);
    guest_free(alloc, memory);
    driver_free(&d);
}

/*
 * The size and the addresses of a ring are written while the IOThread reads it:
 * whatever comes of it, QEMU is there afterwards.
 */
static void test_ring_changes(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    QVirtioPCIDevice *dev = container_of(d.vdev, QVirtioPCIDevice, vdev);
    uint64_t common = dev->common_cfg_offset;
    uint64_t size = common + offsetof(struct virtio_pci_common_cfg, queue_size);
    uint64_t enable = common +
                      offsetof(struct virtio_pci_common_cfg, queue_enable);
    struct virtio_tmem_req get = request(VIRTIO_TMEM_OP_GET, 0, 1, 1);
    Answer a = { 0 };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);
    for (int round = 0; round < 4; round++) {
        fill_ring(&d, BULK, queue_chain(&d, BULK, &get, sizeof(get), NULL, 0,
                                        response_size(&get)));
        d.vdev->bus->queue_select(d.vdev, BULK);
        for (int i = 0; i < 400; i++) {
            if (i % 16 == 15 && needs_reset_now(&d)) {
                break;
            }
            move_on(&d, BULK, 1024);
            for (int n = 0; n < 8; n++) {
                qpci_io_writew(dev->pdev, dev->bar, size, 256);
                qpci_io_writew(dev->pdev, dev->bar, size, 1024);
            }
            if (round & 1) {
                qpci_io_writew(dev->pdev, dev->bar, enable, 1);
            }
        }
        driver_down(&d);
        driver_up(&d);
        submit(&d, BULK, get, NULL, 0, &a);
        expect_page(&a, 0, 5);
    }
    driver_free(&d);
}

/*
 * Two devices on one store have pools of their own.
 * (dev.security.isolation)
 */
static void test_two_devices(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    QDict *stats;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);
    qtest_qmp_device_add(d.qts, "virtio-tmem-pci", "tmem1",
                         "{'addr': '07', 'store': 'store0'}");
    stats = qtest_qmp_assert_success_ref(d.qts,
        "{ 'execute': 'qom-get', 'arguments': {"
        "  'path': '/machine/peripheral/tmem1', 'property': 'stats' } }");
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(stats, "device"),
                                  "persistent-pages"), ==, 0);
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(stats, "store"),
                                  "persistent-pages"), ==, 1);
    qobject_unref(stats);
    qtest_system_reset(d.qts);
    g_assert_cmpuint(held(&d), ==, 0);
}

/* ------------------------------------------------------- virtual IOMMU */

#define VTD                 0xfed90000ull   /* intel-iommu's registers */
#define VTD_GCMD            (VTD + 0x18)
#define VTD_GCMD_TE         0x80000000u     /* translate */
#define VTD_GCMD_SRTP       0x40000000u     /* take RTADDR */
#define VTD_RTADDR          (VTD + 0x20)
#define VTD_FSTS            (VTD + 0x34)
#define VTD_FECTL           (VTD + 0x38)    /* 0: faults interrupt */
#define VTD_FEDATA          (VTD + 0x3c)
#define VTD_FEADDR          (VTD + 0x40)
#define APIC_MSI            0xfee00000u

static void *with_iommu(GString *cmd_line, void *arg)
{
    /* The last -M counts */
    g_string_append(cmd_line, " -M q35 -device intel-iommu "
                              "-trace virtio_tmem_start ");
    return with_log(cmd_line, with_store(cmd_line, arg));
}

/*
 * Tables that map the first MiBs of memory, where the rings are, as they are,
 * but for the buffers.  The root table's address.
 */
static uint64_t make_tables(Driver *d)
{
    enum { ROOT, CONTEXT, LEVEL3, LEVEL2, LEVEL1, TABLES = LEVEL1 + 8 };
    const unsigned int entries = PAGE / sizeof(uint64_t);
    g_autofree uint64_t *table = g_malloc0(TABLES * PAGE);
    uint64_t base = QEMU_ALIGN_UP(guest_alloc(d->alloc, (TABLES + 1) * PAGE),
                                  PAGE);

    /* Each bus' context table; each function: 39 bits of address, domain 1 */
    for (unsigned int i = 0; i < entries / 2; i++) {
        table[ROOT * entries + 2 * i] = base + CONTEXT * PAGE + 1;
        table[CONTEXT * entries + 2 * i] = base + LEVEL3 * PAGE + 1;
        table[CONTEXT * entries + 2 * i + 1] = 1 << 8 | 1;
    }
    table[LEVEL3 * entries] = base + LEVEL2 * PAGE + 3;
    for (unsigned int i = 0; i < TABLES - LEVEL1; i++) {
        table[LEVEL2 * entries + i] = base + (LEVEL1 + i) * PAGE + 3;
    }
    for (uint64_t i = 0; i < (TABLES - LEVEL1) * entries; i++) {
        if (i * PAGE + PAGE <= d->arena || i * PAGE >= d->arena + ARENA) {
            table[LEVEL1 * entries + i] = i * PAGE + 3;
        }
    }
    for (int i = 0; i < 2; i++) {
        g_assert_cmphex(d->vq[i]->used, <,
                        (TABLES - LEVEL1) * entries * PAGE - 64 * KiB);
    }
    for (unsigned int i = 0; i < TABLES * entries; i++) {
        table[i] = cpu_to_le64(table[i]);
    }
    qtest_memwrite(d->qts, base, table, TABLES * PAGE);
    return base;
}

/*
 * A guest puts buffers out of its IOMMU's reach: each is a fault, which is
 * reported by an interrupt.  QEMU is there afterwards, and so is the device.
 * An interrupt without the big lock ends QEMU under TCG (not under qtest): the
 * IOThread must have nothing to do with it.
 */
static void test_iommu(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new_with(obj, alloc, FEATURES |
                               BIT_ULL(VIRTIO_F_ACCESS_PLATFORM));
    struct virtio_tmem_req get = request(VIRTIO_TMEM_OP_GET, 0, 1, 1);
    Answer a = { 0 };

    log_started();
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);
    qtest_writel(d.qts, VTD_FEDATA, 0);
    qtest_writel(d.qts, VTD_FEADDR, APIC_MSI);
    qtest_writel(d.qts, VTD_FECTL, 0);
    qtest_writeq(d.qts, VTD_RTADDR, make_tables(&d));
    qtest_writel(d.qts, VTD_GCMD, VTD_GCMD_SRTP);
    for (int i = 0; i < 10; i++) {
        int queue = i & 1;
        uint32_t head;

        driver_down(&d);
        qtest_writel(d.qts, VTD_GCMD, VTD_GCMD_TE);
        driver_up(&d);
        head = queue_chain(&d, queue, &get, sizeof(get), NULL, 0,
                           response_size(&get));
        g_assert_false(needs_reset_now(&d));
        qvirtqueue_kick(d.qts, d.vdev, d.vq[queue], head);
        g_assert_true(needs_reset(&d));
        /* Faults were recorded. */
        g_assert_cmphex(qtest_readl(d.qts, VTD_FSTS) & 3, !=, 0);
        driver_down(&d);
        qtest_writel(d.qts, VTD_GCMD, 0);
        driver_up(&d);
        submit(&d, queue, get, NULL, 0, &a);
        expect_page(&a, 0, 5);
    }
    g_assert_true(log_has("virtio_tmem_start"));
    g_assert_false(log_has("ret 0"));
    log_ended();
    driver_free(&d);
}

static void *with_dimm_slot(GString *cmd_line, void *arg)
{
    g_string_append(cmd_line, " -m 128M,slots=1,maxmem=1G ");
    return arg;
}

static void register_virtio_tmem_attack_test(void)
{
    QOSGraphTestOptions store = {
        .before = with_store,
        .edge.extra_device_opts = "store=store0,num-fast-queues=1,"
                                  "num-bulk-queues=1",
    };
    QOSGraphTestOptions log = { .before = with_log };
    QOSGraphTestOptions iommu = {
        .before = with_iommu,
        .edge.extra_device_opts = "store=store0,iommu_platform=on",
    };
    QOSGraphTestOptions dimm = { .before = with_dimm_slot };

    qos_add_test("flood", "virtio-tmem", test_flood, &log);
    qos_add_test("refilled", "virtio-tmem", test_refilled, &store);
    qos_add_test("overlap", "virtio-tmem", test_overlap, &store);
    qos_add_test("overlap-pages", "virtio-tmem", test_overlap_pages, &store);
    qos_add_test("unplugged", "virtio-tmem", test_unplugged, &dimm);
    qos_add_test("two-queues", "virtio-tmem", test_two_queues, &store);
    qos_add_test("ring-changes", "virtio-tmem", test_ring_changes, &store);
    qos_add_test("iommu", "virtio-tmem", test_iommu, &iommu);
    qos_add_test("two-devices", "virtio-tmem", test_two_devices, &store);
}

libqos_init(register_virtio_tmem_attack_test);
