/*
 * QTest testcase for virtio-tmem: the verbs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The device is driven without a guest: chains of every kind go in, and what
 * comes out is compared with include/virtio_tmem.h.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/module.h"
#include "libqos/qgraph.h"
#include "virtio-tmem-driver.h"

static void test_config(void *obj, void *data, QGuestAllocator *alloc)
{
    QVirtioTmem *tmem = obj;
    uint64_t offered;
    Driver d;

    qvirtio_reset(tmem->vdev);
    offered = qvirtio_get_features(tmem->vdev);
    g_assert_cmphex(offered & FEATURES, ==, FEATURES);
    g_assert_cmphex(offered & BIT_ULL(VIRTIO_TMEM_F_SHARED), ==, 0);
    g_assert_cmphex(offered & BIT_ULL(VIRTIO_TMEM_F_OPAQUE), ==, 0);

    d = driver_new(obj, alloc);
    g_assert_cmpuint(CONFIG(&d, generation), >, 0);
    g_assert_cmpuint(CONFIG(&d, pressure), ==, VIRTIO_TMEM_PRESSURE_NONE);
    g_assert_cmphex(CONFIG(&d, num_fast), ==, 1 << 16 | 1);
    g_assert_cmpuint(CONFIG(&d, max_pools), >, 0);
    g_assert_cmpuint(CONFIG(&d, max_pages), ==, MAX_PAGES);
    g_assert_cmpuint(CONFIG(&d, max_segs), >=, MAX_PAGES + 2);
    g_assert_cmphex(CONFIG(&d, page_sizes) & 0x1f000, ==, 0x1f000);
    g_assert_cmpuint(CONFIG(&d, persistent_reserved), >, 0);
    driver_free(&d);
}

static void test_verbs(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct virtio_tmem_req req;
    Answer a = { 0 };

    create(&d, 3, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 3, 10, 1, 100);
    put_ok(&d, 3, 12, 1, 102);

    /* On either queue; the hole reads as zeros, the tail is not written. */
    for (int queue = 0; queue < 2; queue++) {
        submit(&d, queue, request(VIRTIO_TMEM_OP_GET, 3, 10, 5), NULL, 0, &a);
        g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
        g_assert_cmpuint(a.done, ==, 2);
        expect_page(&a, 0, 100);
        expect_miss(&a, 1);
        g_assert_true(buffer_is_zero(a.data + PAGE, PAGE));
        expect_page(&a, 2, 102);
        expect_miss(&a, 3);
        expect_miss(&a, 4);
        g_assert_cmpuint(a.used, ==, sizeof(struct virtio_tmem_resp) + 4 * 5 +
                         3 * PAGE);
        for (int i = 3 * PAGE; i < 5 * PAGE; i++) {
            g_assert_cmphex(a.data[i], ==, 0xee);
        }
    }

    /* The newer page, then none. */
    put_ok(&d, 3, 10, 1, 200);
    submit(&d, 0, request(VIRTIO_TMEM_OP_GET, 3, 10, 1), NULL, 0, &a);
    expect_page(&a, 0, 200);
    submit(&d, 1, request(VIRTIO_TMEM_OP_FLUSH, 3, 0, 11), NULL, 0, &a);
    g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
    g_assert_cmpuint(a.done, ==, 11);
    submit(&d, 0, request(VIRTIO_TMEM_OP_GET, 3, 10, 1), NULL, 0, &a);
    expect_miss(&a, 0);
    g_assert_cmpuint(a.used, ==, sizeof(struct virtio_tmem_resp) + 4);
    g_assert_cmpuint(held(&d), ==, 1);

    /* What the pool says of itself. */
    submit(&d, 1, control(VIRTIO_TMEM_OP_POOL_STATS, 3, 0, 0), NULL, 0, &a);
    g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
    g_assert_cmpuint(ldq_le_p(a.data), ==, 1);              /* pages */
    g_assert_cmpuint(ldq_le_p(a.data + 16), ==, 3);         /* puts */
    g_assert_cmpuint(a.used, ==, 16 + 64);

    /* The same pool again; another of that number; an object; the pool. */
    submit(&d, 1, control(VIRTIO_TMEM_OP_POOL_CREATE, 3,
                          VIRTIO_TMEM_POOL_PERSISTENT, 12), NULL, 0, &a);
    g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
    g_assert_cmpuint(a.done, ==, 1);
    g_assert_cmpuint(simple(&d, control(VIRTIO_TMEM_OP_POOL_CREATE, 3, 0, 12)),
                     ==, VIRTIO_TMEM_S_EXIST);
    req = request(VIRTIO_TMEM_OP_FLUSH_OBJECT, 3, 0, 0);
    g_assert_cmpuint(simple(&d, req), ==, VIRTIO_TMEM_S_OK);
    g_assert_cmpuint(held(&d), ==, 0);
    req = control(VIRTIO_TMEM_OP_POOL_DESTROY, 3, 0, 0);
    g_assert_cmpuint(simple(&d, req), ==, VIRTIO_TMEM_S_OK);
    g_assert_cmpuint(simple(&d, req), ==, VIRTIO_TMEM_S_NOENT);
    driver_free(&d);
}

static void test_exclusive(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_GET, 1, 7, 1);
    Answer a = { 0 };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    create(&d, 1, 0);
    put_ok(&d, 0, 7, 1, 1);
    put_ok(&d, 1, 7, 1, 2);
    req.flags = cpu_to_le16(VIRTIO_TMEM_GET_EXCLUSIVE);
    submit(&d, 0, req, NULL, 0, &a);
    expect_page(&a, 0, 2);
    submit(&d, 0, req, NULL, 0, &a);
    expect_miss(&a, 0);
    /* Not from a persistent pool, whose page stays. */
    req.pool = 0;
    g_assert_cmpuint(simple(&d, req), ==, VIRTIO_TMEM_S_INVAL);
    g_assert_cmpuint(held(&d), ==, 1);
    g_assert_cmpuint(simple(&d, control(VIRTIO_TMEM_OP_RESET_ALL, 0, 0, 0)),
                     ==, VIRTIO_TMEM_S_OK);
    g_assert_cmpuint(held(&d), ==, 0);
    driver_free(&d);
}

static void test_run(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    uint64_t end = UINT64_MAX - MAX_PAGES + 1;
    Answer a = { 0 };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 5, MAX_PAGES, 1000);
    put_ok(&d, 0, end, MAX_PAGES, 2000);
    submit(&d, 1, request(VIRTIO_TMEM_OP_GET, 0, 5, MAX_PAGES), NULL, 0, &a);
    g_assert_cmpuint(a.done, ==, MAX_PAGES);
    for (int i = 0; i < MAX_PAGES; i++) {
        expect_page(&a, i, 1000 + i);
    }
    submit(&d, 1, request(VIRTIO_TMEM_OP_GET, 0, end, MAX_PAGES), NULL, 0, &a);
    for (int i = 0; i < MAX_PAGES; i++) {
        expect_page(&a, i, 2000 + i);
    }
    g_assert_cmpuint(held(&d), ==, 2 * MAX_PAGES);
    driver_free(&d);
}

static void register_virtio_tmem_test(void)
{
    QOSGraphTestOptions opts = { 0 };
    QOSGraphTestOptions store = {
        .before = with_store,
        .edge.extra_device_opts = "store=store0",
    };

    qos_add_test("config", "virtio-tmem", test_config, &opts);
    qos_add_test("verbs", "virtio-tmem", test_verbs, &opts);
    qos_add_test("exclusive", "virtio-tmem", test_exclusive, &store);
    qos_add_test("run", "virtio-tmem", test_run, &opts);
}

libqos_init(register_virtio_tmem_test);
