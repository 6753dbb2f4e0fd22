/*
 * QTest testcase for virtio-tmem: drivers that break the rules
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "libqos/qgraph.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/pci_regs.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-tmem-driver.h"

/* Each is answered by a status, and the device goes on. */
static void test_hostile(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    static const struct {
        uint16_t op, flags;
        uint32_t pool;
        uint64_t index, count;
        uint16_t want;
    } bad[] = {
        { 0, 0, 0, 0, 0, VIRTIO_TMEM_S_UNSUPP },
        { 9, 0, 0, 0, 0, VIRTIO_TMEM_S_UNSUPP },
        { 0xffff, 0, 0, 0, 0, VIRTIO_TMEM_S_UNSUPP },
        { VIRTIO_TMEM_OP_GET, 0, 1, 0, 1, VIRTIO_TMEM_S_NOENT },
        { VIRTIO_TMEM_OP_GET, 0, UINT32_MAX, 0, 1, VIRTIO_TMEM_S_NOENT },
        { VIRTIO_TMEM_OP_GET, 0, 1u << 31, 0, 1, VIRTIO_TMEM_S_NOENT },
        { VIRTIO_TMEM_OP_GET, 0, 0, 0, 0, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_GET, 0, 0, 0, MAX_PAGES + 1, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_GET, 0, 0, 0, UINT64_MAX, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_GET, 0, 0, UINT64_MAX, 2, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_GET, 0x8000, 0, 0, 1, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_FLUSH, 0, 0, 2, UINT64_MAX, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_FLUSH, 0, 9, 0, 1, VIRTIO_TMEM_S_NOENT },
        { VIRTIO_TMEM_OP_FLUSH, 0, UINT32_MAX, 0, 1, VIRTIO_TMEM_S_NOENT },
        { VIRTIO_TMEM_OP_POOL_CREATE, 0x40, 5, 12, 0, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_POOL_CREATE, 0, UINT32_MAX, 12, 0,
          VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_POOL_CREATE, 0, 5, 11, 0, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_POOL_CREATE, 0, 5, 17, 0, VIRTIO_TMEM_S_INVAL },
        { VIRTIO_TMEM_OP_POOL_DESTROY, 0, 5, 0, 0, VIRTIO_TMEM_S_NOENT },
        { VIRTIO_TMEM_OP_POOL_DESTROY, 0, UINT32_MAX, 0, 0,
          VIRTIO_TMEM_S_NOENT },
        { VIRTIO_TMEM_OP_RESET_ALL, 1, 0, 0, 0, VIRTIO_TMEM_S_INVAL },
    };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 77);
    for (int i = 0; i < ARRAY_SIZE(bad); i++) {
        struct virtio_tmem_req req = control(bad[i].op, bad[i].pool,
                                             bad[i].flags, bad[i].index);
        Answer a = { 0 };

        req.count = cpu_to_le64(bad[i].count);
        submit(&d, 1, req, NULL, 0, &a);
        if (a.status != bad[i].want) {
            g_error("row %d: status %u, want %u", i, a.status, bad[i].want);
        }
        g_assert_cmpuint(a.done, ==, 0);
        g_assert_cmpuint(a.used, ==, sizeof(struct virtio_tmem_resp));
    }
    g_assert_cmpuint(held(&d), ==, 1);
    driver_free(&d);
}

/* A header cut short, or none, is answered, if there is room for it. */
static void test_short_header(void *obj, void *data, QGuestAllocator *alloc)
{
    static const size_t size[] = { 0, 1, 16, 63 };
    Driver d = driver_new(obj, alloc);
    Answer a = { 0 };

    for (int queue = 0; queue < 2; queue++) {
        for (int i = 0; i < ARRAY_SIZE(size); i++) {
            struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_FLUSH, 0, 0, 1);
            uint32_t used, head = queue_chain(&d, queue, &req, size[i],
                                              NULL, 0, 16);

            qvirtqueue_kick(d.qts, d.vdev, d.vq[queue], head);
            qvirtio_wait_used_elem(d.qts, d.vdev, d.vq[queue], head, &used,
                                   TIMEOUT_US);
            read_answer(&d, &req, size[i], used, &a);
            g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_INVAL);
            g_assert_cmpuint(used, ==, sizeof(struct virtio_tmem_resp));
        }
    }
    driver_free(&d);
}

/*
 * No answer is possible: the device needs a reset, says so once, and pools
 * survive it.
 */
static void test_needs_reset(void *obj, void *data, QGuestAllocator *alloc)
{
    static const struct {
        size_t out, in;
    } bad[] = {
        { 64, 15 },     /* no room for a response */
        { 64, 0 },
    };
    Driver d = driver_new(obj, alloc);
    unsigned int lines;
    Answer a = { 0 };

    log_started();
    lines = log_lines();
    create(&d, 2, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 2, 1, 1, 5);
    for (int queue = 0; queue < 2; queue++) {
        for (int i = 0; i < ARRAY_SIZE(bad); i++) {
            struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_FLUSH, 2, 1, 1);
            uint32_t head = queue_chain(&d, queue, &req, bad[i].out, NULL, 0,
                                        bad[i].in);

            qvirtqueue_kick(d.qts, d.vdev, d.vq[queue], head);
            g_assert_true(needs_reset(&d));
            /* A broken device is deaf: no second line until it is reset. */
            qvirtqueue_kick(d.qts, d.vdev, d.vq[!queue], head);
            qvirtqueue_kick(d.qts, d.vdev, d.vq[queue], head);
            driver_down(&d);
            driver_up(&d);
            g_assert_cmpuint(held(&d), ==, 1);
            g_assert_cmpuint(log_lines(), ==, ++lines);
        }
    }
    submit(&d, 1, request(VIRTIO_TMEM_OP_GET, 2, 1, 1), NULL, 0, &a);
    expect_page(&a, 0, 5);
    log_ended();
    driver_free(&d);
}

/* A chain that points outside of memory. */
static void test_unreadable(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    uint32_t head;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    head = qvirtqueue_add(d.qts, d.vq[1], 0x7ffff0000000ull, 64, false, true);
    qvirtqueue_add(d.qts, d.vq[1], d.arena, 16, true, false);
    qvirtqueue_kick(d.qts, d.vdev, d.vq[1], head);
    g_assert_true(needs_reset(&d));
    driver_down(&d);
    driver_up(&d);
    put_ok(&d, 0, 1, 1, 5);
    driver_free(&d);
}

/* ---------------------------------------------- memory that is not RAM */

#define APIC_MSI            0xfee00000ull   /* registers: writes are MSIs */
#define HPET                0xfed00000ull   /* registers */
#define BIOS                0xfffffff0ull   /* ROM */
#define HOLE                0x7ffff0000000ull

static void common_write(Driver *d, size_t offset, uint16_t value)
{
    QVirtioPCIDevice *dev = container_of(d->vdev, QVirtioPCIDevice, vdev);

    qpci_io_writew(dev->pdev, dev->bar, dev->common_cfg_offset + offset,
                   value);
}

#define COMMON_WRITE(d, field, value) \
    common_write(d, offsetof(struct virtio_pci_common_cfg, field), value)

/*
 * Buffers and rings that are registers, ROM or nothing at all: the device
 * needs a reset, and no register has been touched.
 */
static void test_not_ram(void *obj, void *data, QGuestAllocator *alloc)
{
    static const struct {
        uint64_t out, in;       /* 0: in RAM */
    } bad[] = {
        { HOLE, 0 }, { 0, HOLE }, { HPET, 0 }, { 0, HPET },
        { APIC_MSI, 0 }, { 0, APIC_MSI }, { 0, BIOS & ~0xfffull },
    };
    Driver d = driver_new(obj, alloc);

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);
    for (int queue = 0; queue < 2; queue++) {
        for (int i = 0; i < ARRAY_SIZE(bad); i++) {
            uint64_t out = bad[i].out ?: d.arena;
            uint64_t in = bad[i].in ?: d.arena + 64;
            struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_FLUSH, 0, 1, 1);
            uint32_t head;

            qtest_memwrite(d.qts, d.arena, &req, sizeof(req));
            head = qvirtqueue_add(d.qts, d.vq[queue], out, 64, false, true);
            qvirtqueue_add(d.qts, d.vq[queue], in, 16, true, false);
            qvirtqueue_kick(d.qts, d.vdev, d.vq[queue], head);
            g_assert_true(needs_reset(&d));
            driver_down(&d);
            driver_up(&d);
            g_assert_cmpuint(held(&d), ==, 1);
        }
    }
    for (int queue = 0; queue < 2; queue++) {
        QVirtQueue ring = *d.vq[queue];

        ring.avail = HPET;
        COMMON_WRITE(&d, queue_select, queue);
        d.vdev->bus->set_queue_address(d.vdev, &ring);
        COMMON_WRITE(&d, queue_enable, 1);
        g_assert_true(needs_reset(&d));
        driver_down(&d);
        driver_up(&d);
    }
    driver_free(&d);
}

/* Configuration interrupts go where each takes QEMU's big lock. */
static void config_interrupt_to_apic(Driver *d)
{
    QVirtioPCIDevice *dev = container_of(d->vdev, QVirtioPCIDevice, vdev);
    QPCIDevice *pdev = dev->pdev;

    if (!pdev->msix_enabled) {
        qpci_msix_enable(pdev);
    }
    qpci_io_writel(pdev, pdev->msix_table_bar,
                   pdev->msix_table_off + PCI_MSIX_ENTRY_LOWER_ADDR, APIC_MSI);
    qpci_io_writel(pdev, pdev->msix_table_bar,
                   pdev->msix_table_off + PCI_MSIX_ENTRY_UPPER_ADDR, 0);
    qpci_io_writel(pdev, pdev->msix_table_bar,
                   pdev->msix_table_off + PCI_MSIX_ENTRY_DATA, 0);
    qpci_io_writel(pdev, pdev->msix_table_bar,
                   pdev->msix_table_off + PCI_MSIX_ENTRY_VECTOR_CTRL, 0);
    COMMON_WRITE(d, msix_config, 0);
}

/*
 * A reset waits for the IOThread with the big lock held.  An IOThread that
 * wants the lock, to read a register or to raise an interrupt, never ends.
 */
static void test_reset_race(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);

    for (int i = 0; i < 60; i++) {
        uint32_t head;

        config_interrupt_to_apic(&d);
        switch (i % 3) {
        case 0:         /* QEMU's own check of a chain fails */
            head = qvirtqueue_add(d.qts, d.vq[1], d.arena, 0, false, false);
            break;
        case 1:         /* it reads a register */
            head = qvirtqueue_add(d.qts, d.vq[1], HPET, 64, false, true);
            qvirtqueue_add(d.qts, d.vq[1], d.arena, 16, true, false);
            break;
        default:        /* a loop */
            head = qvirtqueue_add(d.qts, d.vq[1], d.arena, 64, false, true);
            qtest_writew(d.qts, d.vq[1]->desc + 16 * head + 14, head);
        }
        qvirtqueue_kick(d.qts, d.vdev, d.vq[1], head);
        /* Sometimes at once, sometimes when the IOThread has begun */
        g_usleep(i % 10 * 10);
        driver_down(&d);
        driver_up(&d);
    }
    qpci_msix_disable(container_of(d.vdev, QVirtioPCIDevice, vdev)->pdev);
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);
    driver_free(&d);
}

/* ---------------------------------------------------------- log and CPU */

/*
 * Whatever a driver does again and again, there is a line for each reset.
 * (dev.security.bounds)
 */
static void test_log_bound(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    unsigned int resets = 0, lines;

    log_started();
    lines = log_lines();
    for (int i = 0; i < 1000; i++) {
        uint32_t head = 0;

        switch (i % 4) {
        case 0:
            head = queue_chain(&d, 1, NULL, 0, NULL, 0, 16);
            break;
        case 1:
            head = qvirtqueue_add(d.qts, d.vq[1], d.arena, 0, false, false);
            break;
        case 2:
            head = qvirtqueue_add(d.qts, d.vq[0], HOLE, 64, false, false);
            break;
        default:
            COMMON_WRITE(&d, queue_enable, 2);
        }
        if (i % 4 != 3) {
            qvirtqueue_kick(d.qts, d.vdev, d.vq[i % 4 == 2 ? 0 : 1], head);
        }
        if (i % 20 == 19) {
            driver_down(&d);
            driver_up(&d);
            resets++;
        }
    }
    g_assert_cmpuint(log_lines() - lines, <=, resets);
    g_assert_cmpuint(log_lines() - lines, >, 0);
    log_ended();
    driver_free(&d);
}

/*
 * Resets in a loop, with something wrong after each: some lines a minute, and
 * the number of those that are missing.  (dev.security.bounds)
 */
static void test_log_resets(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    QVirtQueue ring = *d.vq[1];
    gint64 start = g_get_monotonic_time();
    unsigned int lines, minutes;

    log_started();
    lines = log_lines();
    ring.avail = HOLE;
    for (int i = 0; i < 5000; i++) {
        qvirtio_reset(d.vdev);
        COMMON_WRITE(&d, queue_select, 1);
        d.vdev->bus->set_queue_address(d.vdev, &ring);
        COMMON_WRITE(&d, queue_enable, 1);
    }
    minutes = (g_get_monotonic_time() - start) / G_TIME_SPAN_MINUTE + 1;
    g_assert_cmpuint(log_lines() - lines, <=, 10 * minutes);
    g_assert_cmpuint(log_lines() - lines, >=, 10);
    driver_down(&d);
    driver_up(&d);
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    log_ended();
    driver_free(&d);
}

/*
 * More queues than QEMU may open files for, of which each takes two: the bulk
 * queues go without an IOThread, and each start of the driver does not say so
 * anew.
 */
static void test_few_files(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    unsigned int lines;

    log_started();
    lines = log_lines();
    driver_down(&d);
    limit_files(&d, 63);
    driver_up(&d);
    for (int i = 0; i < 20; i++) {
        driver_down(&d);
        driver_up(&d);
    }
    g_assert_true(log_has("bulk queues go without an IOThread"));
    g_assert_cmpuint(log_lines() - lines, <=, 3);
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 8, 5);
    log_ended();
    driver_free(&d);
}

/* Milliseconds of CPU that QEMU takes in @ms of time */
static uint64_t qemu_cpu_ms(Driver *d, unsigned int ms)
{
    uint64_t ticks[2];

    for (int i = 0; i < 2; i++) {
        g_autofree char *path = g_strdup_printf("/proc/%d/stat",
                                                (int)qtest_pid(d->qts));
        g_autofree char *text = NULL;
        unsigned long user, system;
        const char *p;

        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        p = strrchr(text, ')');
        g_assert_nonnull(p);
        g_assert_cmpint(sscanf(p, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u "
                               "%*u %lu %lu", &user, &system), ==, 2);
        ticks[i] = user + system;
        if (!i) {
            g_usleep(ms * 1000);
        }
    }
    return (ticks[1] - ticks[0]) * 1000 / sysconf(_SC_CLK_TCK);
}

/* A queue that waits for the thaw does not wait busily. */
static void test_halted_idle(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_PUT, 0, 2, 1);
    g_autofree uint8_t *page = g_malloc(PAGE);
    uint32_t head, used;

    /* The IOThread polls, as it does for a busy guest. */
    qtest_qmp_assert_success(d.qts, "{ 'execute': 'qom-set', 'arguments': { "
        "'path': '/machine/peripheral/tmem0/virtio-backend/tmem-iothread', "
        "'property': 'poll-max-ns', 'value': 10000000 } }");
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    for (int i = 0; i < 50; i++) {
        simple(&d, control(VIRTIO_TMEM_OP_POOL_STATS, 0, 0, 0));
    }
    set_store_frozen(&d, true);
    fill(page, 12);
    head = queue_chain(&d, 1, &req, sizeof(req), page, PAGE,
                       response_size(&req));
    qvirtqueue_kick(d.qts, d.vdev, d.vq[1], head);
    g_usleep(100 * 1000);
    g_assert_cmpuint(qemu_cpu_ms(&d, 1000), <, 400);
    /* The driver cannot make it: it enables the queue once more. */
    COMMON_WRITE(&d, queue_select, 1);
    COMMON_WRITE(&d, queue_enable, 1);
    g_usleep(100 * 1000);
    g_assert_cmpuint(qemu_cpu_ms(&d, 1000), <, 400);
    set_store_frozen(&d, false);
    qvirtio_wait_used_elem(d.qts, d.vdev, d.vq[1], head, &used, TIMEOUT_US);
    g_assert_cmpuint(held(&d), ==, 1);
    driver_free(&d);
}

/* ------------------------------------------------------ order of events */

/* Nothing is taken before DRIVER_OK, nothing is forgotten after it. */
static void test_early_kick(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_GET, 0, 1, 1);
    Answer a = { 0 };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);
    driver_down(&d);
    for (int queue = 0; queue < 2; queue++) {
        uint32_t head, used;

        qvirtio_start_device(d.vdev);
        qvirtio_set_features(d.vdev, FEATURES);
        for (int i = 0; i < 2; i++) {
            d.vq[i] = qvirtqueue_setup(d.vdev, d.alloc, i);
        }
        head = queue_chain(&d, queue, &req, sizeof(req), NULL, 0,
                           response_size(&req));
        qvirtqueue_kick(d.qts, d.vdev, d.vq[queue], head);
        g_usleep(50 * 1000);
        g_assert_false(qvirtqueue_get_buf(d.qts, d.vq[queue], NULL, NULL));
        qvirtio_set_driver_ok(d.vdev);
        qvirtio_wait_used_elem(d.qts, d.vdev, d.vq[queue], head, &used,
                               TIMEOUT_US);
        read_answer(&d, &req, sizeof(req), used, &a);
        expect_page(&a, 0, 5);
        driver_down(&d);
    }
    driver_up(&d);
    driver_free(&d);
}

/* Pages of round @round; what was put is that, or not there at all. */
static void put_many(Driver *d, uint64_t *data, unsigned int round)
{
    for (int i = 0; i < 8; i++) {
        struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_PUT, 0,
                                             i * MAX_PAGES, MAX_PAGES);
        uint64_t at = data[i];
        uint32_t head;

        qtest_memwrite(d->qts, at, &req, sizeof(req));
        qtest_memset(d->qts, at + 64, round, MAX_PAGES * PAGE);
        head = qvirtqueue_add(d->qts, d->vq[1], at, 64 + MAX_PAGES * PAGE,
                              false, true);
        qvirtqueue_add(d->qts, d->vq[1], at + 64 + MAX_PAGES * PAGE,
                       16 + 4 * MAX_PAGES, true, false);
        qvirtqueue_kick(d->qts, d->vdev, d->vq[1], head);
    }
}

/*
 * Resets, of the device, of the queue and of the system, while the IOThread
 * has requests.  Afterwards each page is that of one put, and none is written
 * into memory that is no longer the device's.  (dev.life.inflight)
 */
static void test_reset_in_flight(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    size_t size = 64 + MAX_PAGES * PAGE + 16 + 4 * MAX_PAGES;
    uint64_t at[8];

    for (int i = 0; i < 8; i++) {
        at[i] = guest_alloc(alloc, size);
    }
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    for (int round = 1; round <= 30; round++) {
        static Answer a;

        put_many(&d, at, round);
        g_usleep(round % 6 * 100);
        driver_down(&d);
        for (int i = 0; i < 8; i++) {
            qtest_memset(d.qts, at[i], 0x77, size);
        }
        driver_up(&d);
        for (int i = 0; i < 8; i++) {
            submit(&d, 1, request(VIRTIO_TMEM_OP_GET, 0, i * MAX_PAGES,
                                  MAX_PAGES), NULL, 0, &a);
            g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
            for (int j = 0; j < MAX_PAGES; j++) {
                const uint8_t *page = a.data + j * PAGE;

                if (a.page[j] >> VIRTIO_TMEM_PAGE_STATUS_SHIFT) {
                    expect_miss(&a, j);
                    continue;
                }
                g_assert_cmpuint(*page, >, 0);
                g_assert_cmpuint(*page, <=, round);
                g_assert_cmpmem(page, PAGE - 1, page + 1, PAGE - 1);
            }
        }
        for (int i = 0; i < 8; i++) {
            g_assert_cmphex(qtest_readb(d.qts, at[i] + size - 1), ==, 0x77);
        }
    }
    put_many(&d, at, 1);
    qtest_system_reset(d.qts);
    g_assert_cmpuint(held(&d), ==, 0);
}

static void register_virtio_tmem_hostile_test(void)
{
    QOSGraphTestOptions opts = { 0 };
    QOSGraphTestOptions log = { .before = with_log };
    QOSGraphTestOptions few_files = {
        .before = with_log,
        .edge.extra_device_opts = "num-fast-queues=1,num-bulk-queues=63",
    };
    QOSGraphTestOptions store = {
        .before = with_store,
        .edge.extra_device_opts = "store=store0",
    };

    qos_add_test("hostile", "virtio-tmem", test_hostile, &opts);
    qos_add_test("short-header", "virtio-tmem", test_short_header, &opts);
    qos_add_test("needs-reset", "virtio-tmem", test_needs_reset, &log);
    qos_add_test("unreadable", "virtio-tmem", test_unreadable, &opts);
    qos_add_test("not-ram", "virtio-tmem", test_not_ram, &opts);
    qos_add_test("reset-race", "virtio-tmem", test_reset_race, &opts);
    qos_add_test("log-bound", "virtio-tmem", test_log_bound, &log);
    qos_add_test("log-resets", "virtio-tmem", test_log_resets, &log);
    qos_add_test("few-files", "virtio-tmem", test_few_files, &few_files);
    qos_add_test("halted-idle", "virtio-tmem", test_halted_idle, &store);
    qos_add_test("early-kick", "virtio-tmem", test_early_kick, &opts);
    qos_add_test("reset-in-flight", "virtio-tmem", test_reset_in_flight,
                 &opts);
}

libqos_init(register_virtio_tmem_hostile_test);
