/*
 * QTest testcase for virtio-tmem: the host's side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Resets, migration, limits and what the monitor shows.
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qemu/module.h"
#include "libqos/qgraph.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_pci.h"
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
    g_assert_cmpuint(stat_of(&d, "generation"), !=, generation);
    /* The transport was reset with the system: there is nothing to take down */
}

/* ------------------------------------------------------------ migration */

/* One line that names the device */
static void expect_refusal(const char *text)
{
    const char *end;

    g_assert_nonnull(text);
    if (!strstr(text, "virtio-tmem device 'tmem0'")) {
        g_error("no line that names the device: '%s'", text);
    }
    end = strchr(text, '\n');
    g_assert_true(!end || !end[strspn(end, "\r\n")]);
}

/* Starts a migration: NULL, or why it is refused */
static char *migrate(Driver *d, const char *uri)
{
    QDict *reply = qtest_qmp(d->qts, "{ 'execute': 'migrate', 'arguments': {"
                                     "  'uri': %s } }", uri);
    char *why = NULL;

    if (qdict_haskey(reply, "error")) {
        why = g_strdup(qdict_get_str(qdict_get_qdict(reply, "error"), "desc"));
    }
    qobject_unref(reply);
    return why;
}

static void wait_migrated(Driver *d)
{
    for (int i = 0; i < 2000; i++) {
        QDict *reply = qtest_qmp_assert_success_ref(d->qts,
            "{ 'execute': 'query-migrate' }");
        g_autofree char *status = g_strdup(qdict_get_try_str(reply, "status"));

        qobject_unref(reply);
        g_assert_cmpstr(status, !=, "failed");
        if (!g_strcmp0(status, "completed")) {
            return;
        }
        g_usleep(10 * 1000);
    }
    g_assert_not_reached();
}

/*
 * While persistent pages are held the machine is neither moved (migrate) nor
 * saved to a file (migrate too, as libvirt's save does); afterwards it is.
 * (dev.life.migrate)
 */
static void test_blocker(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    g_autofree char *path = NULL, *uri = NULL, *why = NULL, *text = NULL;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    create(&d, 1, 0);
    put_ok(&d, 0, 3, 1, 1);
    if (data) {
        int fd = g_file_open_tmp("qtest-tmem-XXXXXX", &path, NULL);

        g_assert_cmpint(fd, >=, 0);
        close(fd);
    }
    uri = path ? g_strdup_printf("file:%s", path)
               : g_strdup("exec:cat>/dev/null");
    why = migrate(&d, uri);
    expect_refusal(why);
    text = qtest_hmp(d.qts, "migrate -d %s", uri);
    expect_refusal(text);

    /* Pages that may vanish do not count. */
    put_ok(&d, 1, 3, 1, 1);
    g_assert_cmpuint(simple(&d, request(VIRTIO_TMEM_OP_FLUSH, 0, 3, 1)), ==,
                     VIRTIO_TMEM_S_OK);
    for (int i = 0; ; i++) {
        g_autofree char *again = migrate(&d, uri);

        if (!again) {
            break;
        }
        expect_refusal(again);
        g_assert_cmpint(i, <, 500);
        g_usleep(10 * 1000);
    }
    wait_migrated(&d);
    if (path) {
        unlink(path);
    }
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

/* Makes a request available on the bulk queue and does not wait for it. */
static uint32_t begin(Driver *d, struct virtio_tmem_req req, unsigned int seed)
{
    bool put = req.op == cpu_to_le16(VIRTIO_TMEM_OP_PUT);
    g_autofree uint8_t *page = g_malloc(PAGE);
    uint64_t arena = d->arena;
    uint32_t head;

    fill(page, seed);
    /* Memory that it keeps */
    d->arena = guest_alloc(d->alloc, ARENA);
    head = queue_chain(d, 1, &req, sizeof(req), page, put ? PAGE : 0,
                       response_size(&req));
    d->arena = arena;
    qvirtqueue_kick(d->qts, d->vdev, d->vq[1], head);
    return head;
}

/* Nothing is used in a fifth of a second. */
static void expect_silence(Driver *d)
{
    for (int i = 0; i < 20; i++) {
        g_usleep(10 * 1000);
        g_assert_false(qvirtqueue_get_buf(d->qts, d->vq[1], NULL, NULL));
    }
}

/*
 * What was not used before a reset has no effect any more, also where what it
 * waited for happens then.  (dev.life.late)
 */
static void test_late(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    Answer a = { 0 };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 11);
    put_ok(&d, 0, 3, 1, 13);
    set_store_frozen(&d, true);
    begin(&d, request(VIRTIO_TMEM_OP_PUT, 0, 1, 1), 21);
    begin(&d, request(VIRTIO_TMEM_OP_PUT, 0, 2, 1), 22);
    begin(&d, request(VIRTIO_TMEM_OP_FLUSH, 0, 3, 1), 0);
    expect_silence(&d);
    driver_down(&d);
    driver_up(&d);
    set_store_frozen(&d, false);
    for (int i = 0; i < 20; i++) {
        g_usleep(10 * 1000);
        submit(&d, 0, request(VIRTIO_TMEM_OP_GET, 0, 1, 3), NULL, 0, &a);
        expect_page(&a, 0, 11);
        expect_miss(&a, 1);
        expect_page(&a, 2, 13);
        /* Whatever wakes the queue up: the pages are as they were. */
        submit(&d, 1, request(VIRTIO_TMEM_OP_GET, 0, 1, 3), NULL, 0, &a);
        expect_page(&a, 0, 11);
        expect_miss(&a, 1);
        expect_page(&a, 2, 13);
    }
    driver_free(&d);
}

/*
 * A request that has to wait is not carried out after later ones on its page,
 * and not twice, whichever thread serves the queue then.  (dev.life.once)
 */
static void test_once(void *obj, void *data, QGuestAllocator *alloc)
{
    static const uint16_t op[] = {
        VIRTIO_TMEM_OP_PUT, VIRTIO_TMEM_OP_FLUSH, VIRTIO_TMEM_OP_PUT,
        VIRTIO_TMEM_OP_FLUSH,
    };
    Driver d = driver_new(obj, alloc);
    uint32_t head[ARRAY_SIZE(op)];
    Answer a = { 0 };
    QDict *reply;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    set_store_frozen(&d, true);
    for (int i = 0; i < ARRAY_SIZE(op); i++) {
        head[i] = begin(&d, request(op[i], 0, 1, 1), 21 + i);
    }
    expect_silence(&d);
    /* The queue goes from the IOThread to the main loop, and back. */
    for (int i = 0; i < 3; i++) {
        qtest_qmp_assert_success(d.qts, "{ 'execute': 'stop' }");
        qtest_qmp_assert_success(d.qts, "{ 'execute': 'cont' }");
    }
    expect_silence(&d);
    qtest_qmp_assert_success(d.qts, "{ 'execute': 'stop' }");
    set_store_frozen(&d, false);
    qtest_qmp_assert_success(d.qts, "{ 'execute': 'cont' }");
    for (int i = 0; i < ARRAY_SIZE(op); i++) {
        uint32_t used = 0;

        /* In order; one interrupt may be for all of them */
        for (int j = 0; !qvirtqueue_get_buf(d.qts, d.vq[1], &used, NULL); j++) {
            g_assert_cmpint(j, <, 500);
            g_usleep(10 * 1000);
        }
        g_assert_cmpuint(used, ==, head[i]);
    }
    expect_silence(&d);
    submit(&d, 0, request(VIRTIO_TMEM_OP_GET, 0, 1, 1), NULL, 0, &a);
    expect_miss(&a, 0);
    reply = qtest_qmp_assert_success_ref(d.qts,
        "{ 'execute': 'qom-get', 'arguments': {"
        "  'path': '/machine/peripheral/tmem0', 'property': 'stats' } }");
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(reply, "device"), "puts"),
                    ==, 2);
    g_assert_cmpint(qdict_get_int(qdict_get_qdict(reply, "device"), "flushes"),
                    ==, 2);
    qobject_unref(reply);
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

static uint64_t store_stat(Driver *d, const char *member)
{
    QDict *reply = qtest_qmp_assert_success_ref(d->qts,
        "{ 'execute': 'qom-get', 'arguments': {"
        "  'path': '/objects/store0', 'property': 'stats' } }");
    uint64_t value = qdict_get_int(reply, member);

    qobject_unref(reply);
    return value;
}

static void *with_replug(GString *cmd_line, void *arg)
{
    /* Without the device it is of no use to the next test */
    g_string_append(cmd_line, " -name replug ");
    return with_store(cmd_line, arg);
}

/* The strictest sandbox: all that the device and the store need is allowed. */
static void *with_sandbox(GString *cmd_line, void *arg)
{
    g_string_append(cmd_line, " -sandbox on,obsolete=deny,"
                    "elevateprivileges=deny,spawn=deny,resourcecontrol=deny ");
    return with_replug(cmd_line, arg);
}

/*
 * A device is unplugged with its pages, and one of the same name takes its
 * place at once, though the store has room for one reservation; what the first
 * one held goes back to the host, and then the store can go.
 */
static void test_replug(void *obj, void *data, QGuestAllocator *alloc)
{
    QVirtioPCIDevice *dev = container_of(((QVirtioTmem *)obj)->vdev,
                                         QVirtioPCIDevice, vdev);
    Driver d = driver_new(obj, alloc);

    if (dev->pdev->bus->not_hotpluggable) {
        g_test_skip("pci bus does not support hotplug");
        return;
    }
    set_store_size(&d, "reserved", 40 * MiB);
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    create(&d, 1, 0);
    for (int i = 0; i < 64; i++) {
        put_ok(&d, i & 1, i * MAX_PAGES, MAX_PAGES, i * MAX_PAGES);
    }
    g_assert_cmpuint(store_stat(&d, "held-bytes"), >, 4 * MiB);
    driver_free(&d);

    for (int i = 0; i < 3; i++) {
        qpci_unplug_acpi_device_test(d.qts, "tmem0", 4);
        g_assert_cmpuint(store_stat(&d, "persistent-pages"), ==, 0);
        qtest_qmp_device_add(d.qts, "virtio-tmem-pci", "tmem0",
                             "{'addr': '04', 'store': 'store0'}");
        g_assert_cmpuint(held(&d), ==, 0);
    }
    for (int i = 0; store_stat(&d, "held-bytes") > MiB; i++) {
        g_assert_cmpint(i, <, 500);
        g_usleep(10 * 1000);
    }
    qpci_unplug_acpi_device_test(d.qts, "tmem0", 4);
    qtest_qmp_assert_success(d.qts, "{ 'execute': 'object-del', "
                             "'arguments': { 'id': 'store0' } }");
    qtest_qmp_assert_success(d.qts, "{ 'execute': 'object-add', 'arguments': {"
                             " 'qom-type': 'tmem-store', 'id': 'store0',"
                             " 'size': 4194304 } }");
}

/* ------------------------------------------------------------ snapshots */

/* Waits for a job that @command started; its error, or NULL. */
static char *run_job(Driver *d, const char *id, QDict *started)
{
    g_assert_false(qdict_haskey(started, "error"));
    qobject_unref(started);
    for (int i = 0; i < 2000; i++) {
        QDict *reply = qtest_qmp(d->qts, "{ 'execute': 'query-jobs' }");
        QListEntry *entry;
        bool concluded = false;
        char *error = NULL;

        QLIST_FOREACH_ENTRY(qdict_get_qlist(reply, "return"), entry) {
            QDict *job = qobject_to(QDict, qlist_entry_obj(entry));

            if (!strcmp(qdict_get_str(job, "id"), id)) {
                concluded = !strcmp(qdict_get_str(job, "status"), "concluded");
                error = g_strdup(qdict_get_try_str(job, "error"));
            }
        }
        qobject_unref(reply);
        if (concluded) {
            qtest_qmp_assert_success(d->qts, "{ 'execute': 'job-dismiss', "
                                     "'arguments': { 'id': %s } }", id);
            return error;
        }
        g_free(error);
        g_usleep(10 * 1000);
    }
    g_assert_not_reached();
}

/* Gives the machine a disk for snapshots, node snap0; the file's name. */
static char *add_snapshot_disk(Driver *d)
{
    char *path;
    int fd = g_file_open_tmp("qtest-tmem-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    close(fd);
    qtest_qmp_assert_success(d->qts, "{ 'execute': 'blockdev-add', "
        "'arguments': { 'driver': 'file', 'node-name': 'file0', "
        "'filename': %s } }", path);
    g_assert_null(run_job(d, "create", qtest_qmp(d->qts,
        "{ 'execute': 'blockdev-create', 'arguments': { 'job-id': 'create', "
        "'options': { 'driver': 'qcow2', 'file': 'file0', "
        "'size': 1048576 } } }")));
    qtest_qmp_assert_success(d->qts, "{ 'execute': 'blockdev-add', "
        "'arguments': { 'driver': 'qcow2', 'node-name': 'snap0', "
        "'file': 'file0' } }");
    return path;
}

static char *snapshot_save(Driver *d, const char *tag)
{
    return run_job(d, tag, qtest_qmp(d->qts,
        "{ 'execute': 'snapshot-save', 'arguments': { 'job-id': %s, "
        "'tag': %s, 'vmstate': 'snap0', 'devices': [ 'snap0' ] } }",
        tag, tag));
}

/*
 * Neither savevm nor snapshot-save while a persistent page is held; both when
 * none is.  What is loaded has the pools, without pages, and tells the driver
 * when ephemeral ones stayed behind.  (dev.life.migrate,
 * dev.generation.change)
 */
static void test_savevm(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    g_autofree char *path = add_snapshot_disk(&d);
    g_autofree char *refused = NULL, *job = NULL;
    QVirtQueue vq[2];
    uint32_t generation;
    Answer a = { 0 };

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    create(&d, 1, 0);
    put_ok(&d, 0, 3, 1, 1);
    refused = hmp(&d, "savevm one");
    expect_refusal(refused);
    job = snapshot_save(&d, "two");
    expect_refusal(job);

    g_assert_cmpuint(simple(&d, request(VIRTIO_TMEM_OP_FLUSH, 0, 3, 1)), ==,
                     VIRTIO_TMEM_S_OK);
    for (int i = 0; ; i++) {
        g_autofree char *text = hmp(&d, "savevm empty");

        if (!*text) {
            break;
        }
        expect_refusal(text);
        g_assert_cmpint(i, <, 500);
        g_usleep(10 * 1000);
    }
    put_ok(&d, 1, 3, 1, 1);
    generation = CONFIG(&d, generation);
    g_assert_null(snapshot_save(&d, "ephemeral"));
    vq[0] = *d.vq[0];
    vq[1] = *d.vq[1];

    /* Twice: the second one is told, too, that its pages are not there. */
    for (int i = 0; i < 2; i++) {
        g_autofree char *text = NULL;

        put_ok(&d, 0, 7, 1, 7);
        text = hmp(&d, "loadvm ephemeral");
        g_assert_cmpstr(text, ==, "");
        *d.vq[0] = vq[0];
        *d.vq[1] = vq[1];
        g_assert_cmpuint(held(&d), ==, 0);
        g_assert_cmpuint(CONFIG(&d, generation), !=, generation);
        d.vdev->bus->wait_config_isr_status(d.vdev, TIMEOUT_US);
        submit(&d, 0, request(VIRTIO_TMEM_OP_GET, 1, 3, 1), NULL, 0, &a);
        g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
        g_assert_cmpuint(a.generation, !=, generation);
        expect_miss(&a, 0);
        submit(&d, 1, request(VIRTIO_TMEM_OP_GET, 0, 7, 1), NULL, 0, &a);
        g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
        expect_miss(&a, 0);
        put_ok(&d, 0, 8, 1, 8);
        g_assert_cmpuint(simple(&d, request(VIRTIO_TMEM_OP_FLUSH, 0, 8, 1)),
                         ==, VIRTIO_TMEM_S_OK);
    }
    unlink(path);
    driver_free(&d);
}

/* A snapshot, and what the driver in it has been told */
typedef struct Snapshot {
    const char *tag;
    QVirtQueue vq[2];
    uint32_t told[8];
    unsigned int num_told;
} Snapshot;

static void expect_fresh(Driver *d, Snapshot *s)
{
    uint32_t generation = CONFIG(d, generation);

    for (unsigned int i = 0; i < s->num_told; i++) {
        g_assert_cmpuint(s->told[i], !=, generation);
    }
    g_assert_cmpuint(s->num_told, <, ARRAY_SIZE(s->told));
    s->told[s->num_told++] = generation;
}

static void save_snapshot(Driver *d, Snapshot *s, const char *tag)
{
    g_autofree char *error = snapshot_save(d, tag);

    g_assert_null(error);
    s->tag = tag;
    s->vq[0] = *d->vq[0];
    s->vq[1] = *d->vq[1];
}

static void load_snapshot(Driver *d, Snapshot *s)
{
    g_autofree char *command = g_strdup_printf("loadvm %s", s->tag);
    g_autofree char *text = hmp(d, command);

    g_assert_cmpstr(text, ==, "");
    *d->vq[0] = s->vq[0];
    *d->vq[1] = s->vq[1];
    expect_fresh(d, s);
}

/*
 * Each snapshot is of a driver that was told one generation more, and a driver
 * goes back to an earlier one: none is told a value that it knows.
 * (dev.generation.fresh)
 */
static void test_generations(void *obj, void *data, QGuestAllocator *alloc)
{
    static const char *const tags[] = { "one", "two", "three", "four" };
    Driver d = driver_new(obj, alloc);
    g_autofree char *path = add_snapshot_disk(&d);
    Snapshot s = { 0 }, first;

    create(&d, 1, 0);
    expect_fresh(&d, &s);
    put_ok(&d, 1, 1, 1, 1);
    save_snapshot(&d, &s, tags[0]);
    first = s;
    for (int i = 1; i < ARRAY_SIZE(tags); i++) {
        load_snapshot(&d, &s);
        put_ok(&d, 1, 1, 1, 1);
        save_snapshot(&d, &s, tags[i]);
    }
    load_snapshot(&d, &first);
    put_ok(&d, 1, 1, 1, 1);
    load_snapshot(&d, &s);
    unlink(path);
    /* The memory that knows it goes; what knows it may be kept elsewhere. */
    qtest_system_reset(d.qts);
    expect_fresh(&d, &s);
}

/* ------------------------------------------------------ what is observed */

static void expect_int(QDict *dict, const char *member, int64_t want)
{
    if (qdict_get_int(dict, member) != want) {
        g_error("%s: %" PRId64 ", want %" PRId64, member,
                qdict_get_int(dict, member), want);
    }
}

static void test_stats(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    QDict *stats, *dict;
    QList *list;
    Answer a = { 0 };

    create(&d, 2, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 2, 0, 8, 1);
    submit(&d, 0, request(VIRTIO_TMEM_OP_GET, 2, 4, 8), NULL, 0, &a);
    simple(&d, request(VIRTIO_TMEM_OP_FLUSH, 2, 0, 2));
    simple(&d, request(77, 2, 0, 2));

    stats = qtest_qmp_assert_success_ref(d.qts,
        "{ 'execute': 'qom-get', 'arguments': {"
        "  'path': '/machine/peripheral/tmem0', 'property': 'stats' } }");
    g_assert_true(qdict_get_bool(stats, "realized"));
    expect_int(stats, "generation", CONFIG(&d, generation));
    expect_int(stats, "pressure", 0);
    expect_int(stats, "persistent-reserved", 16 * MiB);

    dict = qdict_get_qdict(stats, "requests");
    expect_int(dict, "pool-create", 1);
    expect_int(dict, "put", 1);
    expect_int(dict, "get", 1);
    expect_int(dict, "flush", 1);
    expect_int(dict, "unknown", 1);
    expect_int(dict, "bad-requests", 1);
    expect_int(dict, "bad-chains", 0);
    dict = qdict_get_qdict(stats, "pages");
    expect_int(dict, "put", 8);
    expect_int(dict, "get", 8);
    expect_int(dict, "flush", 2);

    list = qdict_get_qlist(stats, "queues");
    g_assert_cmpuint(qlist_size(list), ==, 2);
    dict = qobject_to(QDict, qlist_peek(list));
    g_assert_true(qdict_get_bool(dict, "fast"));
    expect_int(dict, "kicks", 1);
    expect_int(dict, "requests", 1);

    list = qdict_get_qlist(stats, "pools");
    g_assert_cmpuint(qlist_size(list), ==, 1);
    dict = qobject_to(QDict, qlist_peek(list));
    expect_int(dict, "id", 2);
    expect_int(dict, "page-size", PAGE);
    g_assert_true(qdict_get_bool(dict, "persistent"));
    expect_int(qdict_get_qdict(dict, "stats"), "persistent-pages", 6);

    dict = qdict_get_qdict(stats, "device");
    expect_int(dict, "puts", 8);
    expect_int(dict, "gets", 4);
    expect_int(dict, "misses", 4);
    expect_int(dict, "flushes", 2);
    expect_int(dict, "persistent-raw-bytes", 6 * PAGE);
    expect_int(qdict_get_qdict(stats, "store"), "persistent-pages", 6);
    qobject_unref(stats);
    driver_free(&d);
}

/* There is a trace event for each verb, and for what goes wrong. */
static void test_trace(void *obj, void *data, QGuestAllocator *alloc)
{
    static const char *const events[] = {
        "put", "get", "flush", "flush_object", "pool_create", "pool_destroy",
        "pool_stats", "reset_all", "unknown", "bad_chain", "frozen",
        "system_reset", "config", "blocker", "start", "stop",
    };
    Driver d = driver_new(obj, alloc);

    for (int i = 0; i < ARRAY_SIZE(events); i++) {
        g_autofree char *name = g_strdup_printf("virtio_tmem_%s", events[i]);

        qtest_qmp_assert_success(d.qts,
            "{ 'execute': 'trace-event-get-state', "
            "'arguments': { 'name': %s } }", name);
    }
    driver_free(&d);
}

/* A queue is reset alone, with requests in it; the device goes on. */
static void test_queue_reset(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    QVirtioPCIDevice *dev = container_of(d.vdev, QVirtioPCIDevice, vdev);
    uint64_t select = dev->common_cfg_offset +
                      offsetof(struct virtio_pci_common_cfg, queue_select);
    uint64_t reset = dev->common_cfg_offset +
                     offsetof(struct virtio_pci_modern_common_cfg,
                              queue_reset);
    struct virtio_tmem_req req = request(VIRTIO_TMEM_OP_GET, 0, 1, 1);
    Answer a = { 0 };

    driver_down(&d);
    qvirtio_start_device(d.vdev);
    qvirtio_set_features(d.vdev, FEATURES | BIT_ULL(VIRTIO_F_RING_RESET));
    for (int i = 0; i < 2; i++) {
        d.vq[i] = qvirtqueue_setup(d.vdev, d.alloc, i);
    }
    qvirtio_set_driver_ok(d.vdev);
    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    put_ok(&d, 0, 1, 1, 5);

    for (int i = 0; i < 40; i++) {
        int queue = i & 1;
        uint32_t head = queue_chain(&d, queue, &req, sizeof(req), NULL, 0,
                                    response_size(&req));

        qvirtqueue_kick(d.qts, d.vdev, d.vq[queue], head);
        qpci_io_writew(dev->pdev, dev->bar, select, queue);
        qpci_io_writew(dev->pdev, dev->bar, reset, 1);
        g_assert_cmpuint(qpci_io_readw(dev->pdev, dev->bar, reset), ==, 0);
        qvirtqueue_cleanup(d.vdev->bus, d.vq[queue], d.alloc);
        d.vq[queue] = qvirtqueue_setup(d.vdev, d.alloc, queue);
        submit(&d, queue, req, NULL, 0, &a);
        expect_page(&a, 0, 5);
        submit(&d, !queue, req, NULL, 0, &a);
        expect_page(&a, 0, 5);
    }
    driver_free(&d);
}

/* ------------------------------------------------------ what runs out */

/*
 * Without file descriptors for its IOThread, whichever of them is missing, the
 * device serves all queues itself; later it has its IOThread again.
 */
static void test_no_files(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    struct rlimit before;
    unsigned int without = 0;

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    g_assert_cmpint(prlimit(qtest_pid(d.qts), RLIMIT_NOFILE, NULL, &before),
                    ==, 0);
    log_started();
    for (unsigned int free = 0; free < 10; free++) {
        unsigned int lines = log_lines();
        Answer a = { 0 };

        driver_down(&d);
        limit_files(&d, free);
        driver_up(&d);
        put_ok(&d, 0, free, 1, free);
        for (int queue = 0; queue < 2; queue++) {
            submit(&d, queue, request(VIRTIO_TMEM_OP_GET, 0, free, 1), NULL, 0,
                   &a);
            expect_page(&a, 0, free);
        }
        g_assert_cmpint(prlimit(qtest_pid(d.qts), RLIMIT_NOFILE, &before,
                                NULL), ==, 0);
        without += log_lines() > lines;
        /* It is tried again when the driver starts a minute later. */
        qtest_clock_step(d.qts, 61ll * 1000 * 1000 * 1000);
    }
    /* Some were too few, and some enough. */
    g_assert_cmpuint(without, >, 1);
    g_assert_cmpuint(without, <, 10);
    log_ended();
    driver_free(&d);
}

static void register_virtio_tmem_host_test(void)
{
    QOSGraphTestOptions opts = { 0 };
    QOSGraphTestOptions log = {
        .before = with_log,
        .edge.extra_device_opts = "num-fast-queues=1,num-bulk-queues=2",
    };
    QOSGraphTestOptions store = {
        .before = with_store,
        .edge.extra_device_opts = "store=store0",
    };

    qos_add_test("resets", "virtio-tmem", test_resets, &opts);
    qos_add_test("migrate", "virtio-tmem", test_blocker, &store);
    store.arg = (void *)"file";
    qos_add_test("save", "virtio-tmem", test_blocker, &store);
    store.arg = NULL;
    qos_add_test("savevm", "virtio-tmem", test_savevm, &store);
    qos_add_test("generations", "virtio-tmem", test_generations, &store);
    qos_add_test("frozen", "virtio-tmem", test_frozen, &store);
    qos_add_test("late", "virtio-tmem", test_late, &store);
    qos_add_test("once", "virtio-tmem", test_once, &store);
    qos_add_test("limits", "virtio-tmem", test_limits, &store);
    qos_add_test("queue-reset", "virtio-tmem", test_queue_reset, &opts);
    qos_add_test("stats", "virtio-tmem", test_stats, &store);
    qos_add_test("trace", "virtio-tmem", test_trace, &opts);
    qos_add_test("query-status", "virtio-tmem", test_query_status, &opts);
    qos_add_test("hotplug", "virtio-tmem-pci", test_hotplug, &opts);
    store.before = with_replug;
    qos_add_test("replug", "virtio-tmem", test_replug, &store);
    store.before = with_sandbox;
    qos_add_test("sandbox", "virtio-tmem", test_replug, &store);
    qos_add_test("no-files", "virtio-tmem", test_no_files, &log);
}

libqos_init(register_virtio_tmem_host_test);
