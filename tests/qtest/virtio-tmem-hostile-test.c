/*
 * QTest testcase for virtio-tmem: drivers that break the rules
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "libqos/qgraph.h"
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

/* A header cut short is answered, as long as there is room for it. */
static void test_short_header(void *obj, void *data, QGuestAllocator *alloc)
{
    static const size_t size[] = { 1, 16, 63 };
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
        { 0, 16 },      /* nothing to read */
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
    unlink(qemu_log.path);
    g_free(qemu_log.path);
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

static void register_virtio_tmem_hostile_test(void)
{
    QOSGraphTestOptions opts = { 0 };
    QOSGraphTestOptions log = { .before = with_log };

    qos_add_test("hostile", "virtio-tmem", test_hostile, &opts);
    qos_add_test("short-header", "virtio-tmem", test_short_header, &opts);
    qos_add_test("needs-reset", "virtio-tmem", test_needs_reset, &log);
    qos_add_test("unreadable", "virtio-tmem", test_unreadable, &opts);
}

libqos_init(register_virtio_tmem_hostile_test);
