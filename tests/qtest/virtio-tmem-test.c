/*
 * QTest testcase for virtio-tmem
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The device is driven without a guest: chains of every kind go in, and what
 * comes out is compared with include/virtio_tmem.h.
 */

#include "qemu/osdep.h"
#include "libqtest-single.h"
#include "qemu/bitops.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "libqos/qgraph.h"
#include "libqos/libqos-malloc.h"
#include "libqos/virtio-tmem.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio_tmem.h"

#define PAGE                4096
#define MAX_PAGES           64
#define TIMEOUT_US          (20 * 1000 * 1000)
#define FEATURES            (BIT_ULL(VIRTIO_TMEM_F_PERSISTENT) | \
                             BIT_ULL(VIRTIO_TMEM_F_EPHEMERAL) | \
                             BIT_ULL(VIRTIO_TMEM_F_EVENTS) | \
                             BIT_ULL(VIRTIO_F_VERSION_1))
/* Of guest memory that a request may take */
#define ARENA               (sizeof(struct virtio_tmem_req) + \
                             sizeof(struct virtio_tmem_resp) + \
                             4 * MAX_PAGES + MAX_PAGES * PAGE + 4096)

/* The device as a driver has it: queue 0 is fast, queue 1 is bulk. */
typedef struct Driver {
    QTestState *qts;
    QVirtioDevice *vdev;
    QGuestAllocator *alloc;
    QVirtQueue *vq[2];
    uint64_t arena;
} Driver;

/* What a request is answered with */
typedef struct Answer {
    uint16_t status;
    uint32_t generation;
    uint64_t done;
    uint32_t page[MAX_PAGES];
    uint32_t used;
    uint8_t data[MAX_PAGES * PAGE];
} Answer;

static void driver_up(Driver *d)
{
    qvirtio_start_device(d->vdev);
    qvirtio_set_features(d->vdev, FEATURES);
    for (int i = 0; i < 2; i++) {
        d->vq[i] = qvirtqueue_setup(d->vdev, d->alloc, i);
    }
    qvirtio_set_driver_ok(d->vdev);
}

static void driver_down(Driver *d)
{
    for (int i = 0; i < 2; i++) {
        qvirtqueue_cleanup(d->vdev->bus, d->vq[i], d->alloc);
    }
    qvirtio_reset(d->vdev);
}

static Driver driver_new(void *obj, QGuestAllocator *alloc)
{
    QVirtioTmem *tmem = obj;
    Driver d = {
        .qts = global_qtest,
        .vdev = tmem->vdev,
        .alloc = alloc,
        .arena = guest_alloc(alloc, ARENA),
    };

    driver_up(&d);
    return d;
}

static void driver_free(Driver *d)
{
    driver_down(d);
    guest_free(d->alloc, d->arena);
}

static uint32_t config_readl(Driver *d, size_t offset)
{
    return qvirtio_config_readl(d->vdev, offset);
}

#define CONFIG(d, field) \
    config_readl(d, offsetof(struct virtio_tmem_config, field))

static struct virtio_tmem_req request(uint16_t op, uint32_t pool,
                                      uint64_t index, uint64_t count)
{
    return (struct virtio_tmem_req) {
        .op = cpu_to_le16(op),
        .pool = cpu_to_le32(pool),
        .object = "qtest",
        .index = cpu_to_le64(index),
        .count = cpu_to_le64(count),
    };
}

/* Requests without a key must leave the object zero. */
static struct virtio_tmem_req control(uint16_t op, uint32_t pool,
                                      uint16_t flags, uint64_t index)
{
    return (struct virtio_tmem_req) {
        .op = cpu_to_le16(op),
        .flags = cpu_to_le16(flags),
        .pool = cpu_to_le32(pool),
        .index = cpu_to_le64(index),
    };
}

/* Queues a chain: @out bytes readable, then @in bytes writable.  Its head. */
static uint32_t queue_chain(Driver *d, int queue, const void *header,
                            size_t header_len, const void *data,
                            size_t data_len, size_t in)
{
    QVirtQueue *vq = d->vq[queue];
    uint64_t out_addr = d->arena, in_addr = d->arena + header_len + data_len;
    uint32_t head = 0;
    bool first = true;

    qtest_memset(d->qts, d->arena, 0xee, ARENA);
    if (header_len) {
        qtest_memwrite(d->qts, out_addr, header, header_len);
        head = qvirtqueue_add(d->qts, vq, out_addr, header_len, false,
                              data_len || in);
        first = false;
    }
    if (data_len) {
        qtest_bufwrite(d->qts, out_addr + header_len, data, data_len);
        qvirtqueue_add(d->qts, vq, out_addr + header_len, data_len, false, in);
    }
    if (in) {
        uint32_t desc = qvirtqueue_add(d->qts, vq, in_addr, in, true, false);

        head = first ? desc : head;
    }
    return head;
}

static size_t response_size(const struct virtio_tmem_req *req)
{
    size_t size = sizeof(struct virtio_tmem_resp);
    uint64_t count = MIN(le64_to_cpu(req->count), MAX_PAGES);

    switch (le16_to_cpu(req->op)) {
    case VIRTIO_TMEM_OP_PUT:
        return size + 4 * count;
    case VIRTIO_TMEM_OP_GET:
        return size + (4 + PAGE) * count;
    case VIRTIO_TMEM_OP_POOL_STATS:
        return size + sizeof(struct virtio_tmem_pool_stats);
    default:
        return size;
    }
}

static void read_answer(Driver *d, const struct virtio_tmem_req *req,
                        size_t out, uint32_t used, Answer *a)
{
    struct virtio_tmem_resp resp;
    uint64_t count = MIN(le64_to_cpu(req->count), MAX_PAGES);
    uint16_t op = le16_to_cpu(req->op);
    bool paged = op == VIRTIO_TMEM_OP_PUT || op == VIRTIO_TMEM_OP_GET;

    g_assert_cmpuint(used, >=, sizeof(resp));
    qtest_memread(d->qts, d->arena + out, &resp, sizeof(resp));
    a->status = le16_to_cpu(resp.status);
    a->generation = le32_to_cpu(resp.generation);
    a->done = le64_to_cpu(resp.done);
    a->used = used;
    g_assert_cmpuint(resp.flags, ==, 0);
    if (!paged) {
        qtest_bufread(d->qts, d->arena + out + sizeof(resp), a->data, 128);
        return;
    }
    if (!count) {
        return;
    }
    qtest_bufread(d->qts, d->arena + out + sizeof(resp), a->page, 4 * count);
    for (int i = 0; i < count; i++) {
        a->page[i] = le32_to_cpu(a->page[i]);
    }
    if (op == VIRTIO_TMEM_OP_GET) {
        qtest_bufread(d->qts, d->arena + out + sizeof(resp) + 4 * count,
                      a->data, count * PAGE);
    }
}

/* Sends a request and waits for its answer. */
static void submit(Driver *d, int queue, struct virtio_tmem_req req,
                   const void *data, size_t data_len, Answer *a)
{
    uint32_t head, used;

    head = queue_chain(d, queue, &req, sizeof(req), data, data_len,
                       response_size(&req));
    qvirtqueue_kick(d->qts, d->vdev, d->vq[queue], head);
    qvirtio_wait_used_elem(d->qts, d->vdev, d->vq[queue], head, &used,
                           TIMEOUT_US);
    read_answer(d, &req, sizeof(req) + data_len, used, a);
}

static uint16_t simple(Driver *d, struct virtio_tmem_req req)
{
    Answer a = { 0 };

    submit(d, 1, req, NULL, 0, &a);
    return a.status;
}

static void create(Driver *d, uint32_t pool, uint16_t flags)
{
    g_assert_cmpuint(simple(d, control(VIRTIO_TMEM_OP_POOL_CREATE, pool, flags,
                                       12)), ==, VIRTIO_TMEM_S_OK);
}

static void fill(uint8_t *page, unsigned int seed)
{
    for (int i = 0; i < PAGE; i++) {
        seed = seed * 1103515245 + 12345;
        page[i] = i % 3 ? seed >> 16 : 'a';
    }
}

static void put(Driver *d, uint32_t pool, uint64_t index, unsigned int count,
                unsigned int seed, Answer *a)
{
    g_autofree uint8_t *data = g_malloc(count * PAGE);

    for (int i = 0; i < count; i++) {
        fill(data + i * PAGE, seed + i);
    }
    submit(d, 1, request(VIRTIO_TMEM_OP_PUT, pool, index, count), data,
           count * PAGE, a);
}

static void put_ok(Driver *d, uint32_t pool, uint64_t index,
                   unsigned int count, unsigned int seed)
{
    Answer a = { 0 };

    put(d, pool, index, count, seed, &a);
    g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
    g_assert_cmpuint(a.done, ==, count);
    g_assert_cmpuint(a.used, ==, sizeof(struct virtio_tmem_resp) + 4 * count);
}

static void expect_page(const Answer *a, unsigned int i, unsigned int seed)
{
    uint8_t want[PAGE];

    fill(want, seed);
    g_assert_cmpuint(a->page[i] >> VIRTIO_TMEM_PAGE_STATUS_SHIFT, ==,
                     VIRTIO_TMEM_S_OK);
    g_assert_cmpmem(a->data + i * PAGE, PAGE, want, PAGE);
}

static void expect_miss(const Answer *a, unsigned int i)
{
    g_assert_cmphex(a->page[i], ==,
                    VIRTIO_TMEM_S_NOENT << VIRTIO_TMEM_PAGE_STATUS_SHIFT);
}

static uint64_t held(Driver *d)
{
    QDict *reply = qtest_qmp_assert_success_ref(d->qts,
        "{ 'execute': 'qom-get', 'arguments': {"
        "  'path': '/machine/peripheral/tmem0', 'property': 'stats' } }");
    uint64_t pages = qdict_get_int(qdict_get_qdict(reply, "device"),
                                   "persistent-pages");

    qobject_unref(reply);
    return pages;
}

/* ------------------------------------------------------------ the tests */

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

static bool needs_reset(Driver *d)
{
    for (int i = 0; i < 200; i++) {
        if (d->vdev->bus->get_status(d->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET) {
            return true;
        }
        qtest_clock_step(d->qts, 1000 * 1000);
        g_usleep(10 * 1000);
    }
    return false;
}

/* QEMU's stderr goes to a file, which the test reads. */
static struct {
    char *path;
    int saved;
} qemu_log;

static void *with_log(GString *cmd_line, void *arg)
{
    int fd = g_file_open_tmp("qtest-tmem-XXXXXX", &qemu_log.path, NULL);

    g_assert_cmpint(fd, >=, 0);
    fflush(stderr);
    qemu_log.saved = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
    /* QEMU is started anew only if its command line is another. */
    g_string_append(cmd_line, " -name logged ");
    return arg;
}

/* QEMU has started. */
static void log_started(void)
{
    dup2(qemu_log.saved, STDERR_FILENO);
    close(qemu_log.saved);
}

static unsigned int log_lines(void)
{
    g_autofree char *text = NULL;
    unsigned int lines = 0;

    g_assert_true(g_file_get_contents(qemu_log.path, &text, NULL, NULL));
    for (const char *p = text; (p = strchr(p, '\n')); p++) {
        lines++;
    }
    return lines;
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

static char *hmp(Driver *d, const char *command)
{
    return qtest_hmp(d->qts, "%s", command);
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

static void set_store_size(Driver *d, const char *property, uint64_t value)
{
    qtest_qmp_assert_success(d->qts,
        "{ 'execute': 'qom-set', 'arguments': { 'path': '/objects/store0', "
        "'property': %s, 'value': %" PRIu64 " } }", property, value);
}

static void set_store_frozen(Driver *d, bool frozen)
{
    qtest_qmp_assert_success(d->qts,
        "{ 'execute': 'qom-set', 'arguments': { 'path': '/objects/store0', "
        "'property': 'frozen', 'value': %i } }", frozen);
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

static void *with_store(GString *cmd_line, void *arg)
{
    g_string_append(cmd_line,
                    " -object tmem-store,id=store0,size=64M,reserved=16M ");
    return arg;
}

static void register_virtio_tmem_test(void)
{
    QOSGraphTestOptions opts = { 0 };
    QOSGraphTestOptions store = {
        .before = with_store,
        .edge.extra_device_opts = "store=store0",
    };
    QOSGraphTestOptions log = { .before = with_log };

    qos_add_test("config", "virtio-tmem", test_config, &opts);
    qos_add_test("verbs", "virtio-tmem", test_verbs, &opts);
    qos_add_test("exclusive", "virtio-tmem", test_exclusive, &store);
    qos_add_test("run", "virtio-tmem", test_run, &opts);
    qos_add_test("hostile", "virtio-tmem", test_hostile, &opts);
    qos_add_test("short-header", "virtio-tmem", test_short_header, &opts);
    qos_add_test("needs-reset", "virtio-tmem", test_needs_reset, &log);
    qos_add_test("unreadable", "virtio-tmem", test_unreadable, &opts);
    qos_add_test("resets", "virtio-tmem", test_resets, &opts);
    qos_add_test("blocker", "virtio-tmem", test_blocker, &store);
    qos_add_test("frozen", "virtio-tmem", test_frozen, &store);
    qos_add_test("limits", "virtio-tmem", test_limits, &store);
    qos_add_test("query-status", "virtio-tmem", test_query_status, &opts);
    qos_add_test("hotplug", "virtio-tmem-pci", test_hotplug, &opts);
}

libqos_init(register_virtio_tmem_test);
