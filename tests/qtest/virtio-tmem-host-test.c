/*
 * QTest testcase for virtio-tmem: the host's side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Resets, migration, limits and what the monitor shows.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qemu/module.h"
#include "libqos/qgraph.h"
#include "virtio-tmem-driver.h"

/* Pools outlive the driver's reset, and no system reset. */
static void test_resets(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    uint32_t generation;
    Answer a = { 0 };

    create(&d, 4, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 4, 9, 1, 42);
    generation = CONFIG(&d, generation);

    driver_down(&d);
    g_assert_cmpuint(held(&d), ==, 1);
    driver_up(&d);
    submit(&d, 0, request(VIRTIO_TMEM_OP_GET, 4, 9, 1), NULL, 0, &a);
    expect_page(&a, 0, 42);
    g_assert_cmpuint(a.generation, ==, generation);
    g_assert_cmpuint(CONFIG(&d, generation), ==, generation);

    qtest_system_reset(d.qts);
    g_assert_cmpuint(held(&d), ==, 0);
    /* The transport was reset with the system: there is nothing to take down */
}

static QDict *migrate(Driver *d)
{
    return qtest_qmp(d->qts, "{ 'execute': 'migrate', 'arguments': {"
                             "  'uri': 'exec:cat >/dev/null' } }");
}

/* While persistent pages are held, nothing saves or moves the machine. */
static void test_blocker(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    g_autofree char *text = NULL;
    QDict *reply;
    const char *why;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    create(&d, 1, 0);
    put_ok(&d, 0, 3, 1, 1);

    reply = migrate(&d);
    g_assert(qdict_haskey(reply, "error"));
    why = qdict_get_str(qdict_get_qdict(reply, "error"), "desc");
    g_assert_nonnull(strstr(why, "virtio-tmem device 'tmem0'"));
    g_assert_null(strchr(why, '\n'));
    qobject_unref(reply);

    text = hmp(&d, "savevm x");
    g_assert_nonnull(strstr(text, "Error"));
    g_assert_nonnull(strstr(text, "virtio-tmem device 'tmem0'"));
    g_assert_nonnull(strchr(text, '\n'));
    g_assert_null(strchr(strchr(text, '\n') + 1, '\n'));

    /* Pages that may vanish do not count. */
    put_ok(&d, 1, 3, 1, 1);
    g_assert_cmpuint(simple(&d, request(VIRTIO_TMEM_OP_FLUSH, 0, 3, 1)), ==,
                     VIRTIO_TMEM_S_OK);
    for (int i = 0; ; i++) {
        bool allowed;

        reply = migrate(&d);
        allowed = !qdict_haskey(reply, "error");
        if (!allowed) {
            g_test_message("%s", qdict_get_str(qdict_get_qdict(reply, "error"),
                                               "desc"));
        }
        qobject_unref(reply);
        if (allowed) {
            break;
        }
        g_assert_cmpint(i, <, 500);
        g_usleep(10 * 1000);
    }
    for (int i = 0; i < 2000; i++) {
        bool done;

        reply = qtest_qmp_assert_success_ref(d.qts,
                                             "{ 'execute': 'query-migrate' }");
        why = qdict_get_try_str(reply, "status") ?: "";
        g_assert_cmpstr(why, !=, "failed");
        done = !strcmp(why, "completed");
        qobject_unref(reply);
        if (done) {
            return;
        }
        g_usleep(10 * 1000);
    }
    g_assert_not_reached();
}

/* A frozen store: puts wait, gets and the monitor do not. */
static void test_frozen(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_PUT, 0, 2, 1);
    g_autofree uint8_t *page = g_malloc(PAGE);
    uint32_t head, used;
    Answer a = { 0 };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 11);
    set_store_frozen(&d, true);
    /* The fast queue goes on. */
    submit(&d, 0, request(VIRTIO_TMEM_OP_GET, 0, 1, 1), NULL, 0, &a);
    expect_page(&a, 0, 11);

    fill(page, 12);
    head = queue_chain(&d, 1, &req, sizeof(req), page, PAGE,
                       response_size(&req));
    qvirtqueue_kick(d.qts, d.vdev, d.vq[1], head);
    for (int i = 0; i < 20; i++) {
        g_usleep(10 * 1000);
        g_assert_cmpuint(held(&d), ==, 1);
        g_assert_false(qvirtqueue_get_buf(d.qts, d.vq[1], NULL, NULL));
    }
    set_store_frozen(&d, false);
    qvirtio_wait_used_elem(d.qts, d.vdev, d.vq[1], head, &used, TIMEOUT_US);
    g_assert_cmpuint(held(&d), ==, 2);
    driver_free(&d);
}

/* Limits can be read and changed; below what is held nothing is lost. */
static void test_limits(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    Answer a = { 0 };
    unsigned int refused = 0;
    QDict *reply;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    for (int i = 0; i < 16; i++) {
        put_ok(&d, 0, i * MAX_PAGES, MAX_PAGES, i * MAX_PAGES);
    }
    set_store_size(&d, "reserved", MiB / 2);
    set_store_size(&d, "size", 2 * MiB);
    reply = qtest_qmp(d.qts, "{ 'execute': 'qom-get', 'arguments': {"
                      "  'path': '/objects/store0', 'property': 'size' } }");
    g_assert_cmpuint(qdict_get_int(reply, "return"), ==, 2 * MiB);
    qobject_unref(reply);
    for (int i = 16; i < 32; i++) {
        put(&d, 0, i * MAX_PAGES, MAX_PAGES, i * MAX_PAGES, &a);
        g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
        for (int j = 0; j < MAX_PAGES; j++) {
            uint8_t status = a.page[j] >> VIRTIO_TMEM_PAGE_STATUS_SHIFT;

            refused += status == VIRTIO_TMEM_S_NOSPC;
            g_assert_true(!status || status == VIRTIO_TMEM_S_NOSPC);
        }
    }
    g_assert_cmpuint(refused, >, 0);
    for (int i = 0; i < 16; i++) {
        submit(&d, 1, request(VIRTIO_TMEM_OP_GET, 0, i * MAX_PAGES, MAX_PAGES),
               NULL, 0, &a);
        for (int j = 0; j < MAX_PAGES; j++) {
            expect_page(&a, j, i * MAX_PAGES + j);
        }
    }
    driver_free(&d);
}

static void test_query_status(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    QDict *reply;
    QList *list;
    const char *path;

    reply = qtest_qmp(d.qts, "{ 'execute': 'x-query-virtio' }");
    list = qdict_get_qlist(reply, "return");
    g_assert_false(qlist_empty(list));
    path = qdict_get_str(qobject_to(QDict, qlist_peek(list)), "path");
    {
        QDict *status = qtest_qmp_assert_success_ref(d.qts,
            "{ 'execute': 'x-query-virtio-status', 'arguments': {"
            "  'path': %s } }", path);

        g_assert_cmpstr(qdict_get_str(status, "name"), ==, "virtio-tmem");
        g_assert_cmpint(qdict_get_int(status, "device-id"), ==, VIRTIO_ID_TMEM);
        qobject_unref(status);
    }
    qobject_unref(reply);
    driver_free(&d);
}

static void test_hotplug(void *obj, void *data, QGuestAllocator *alloc)
{
    QVirtioPCIDevice *dev = obj;
    QTestState *qts = dev->pdev->bus->qts;

    if (dev->pdev->bus->not_hotpluggable) {
        g_test_skip("pci bus does not support hotplug");
        return;
    }
    qtest_qmp_device_add(qts, "virtio-tmem-pci", "tmem1", "{'addr': '06'}");
    qpci_unplug_acpi_device_test(qts, "tmem1", 0x06);
}

static void register_virtio_tmem_host_test(void)
{
    QOSGraphTestOptions opts = { 0 };
    QOSGraphTestOptions store = {
        .before = with_store,
        .edge.extra_device_opts = "store=store0",
    };

    qos_add_test("resets", "virtio-tmem", test_resets, &opts);
    qos_add_test("blocker", "virtio-tmem", test_blocker, &store);
    qos_add_test("frozen", "virtio-tmem", test_frozen, &store);
    qos_add_test("limits", "virtio-tmem", test_limits, &store);
    qos_add_test("query-status", "virtio-tmem", test_query_status, &opts);
    qos_add_test("hotplug", "virtio-tmem-pci", test_hotplug, &opts);
}

libqos_init(register_virtio_tmem_host_test);
