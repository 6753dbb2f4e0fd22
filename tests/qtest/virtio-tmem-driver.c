/*
 * A virtio-tmem driver for qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "qemu/bswap.h"
#include "qobject/qdict.h"
#include "libqos/libqos-malloc.h"
#include "libqos/virtio-tmem.h"
#include "standard-headers/linux/virtio_config.h"
#include "virtio-tmem-driver.h"

void driver_up(Driver *d)
{
    qvirtio_start_device(d->vdev);
    qvirtio_set_features(d->vdev, d->features);
    for (int i = 0; i < 2; i++) {
        d->vq[i] = qvirtqueue_setup(d->vdev, d->alloc, i);
    }
    qvirtio_set_driver_ok(d->vdev);
}

void driver_down(Driver *d)
{
    for (int i = 0; i < 2; i++) {
        qvirtqueue_cleanup(d->vdev->bus, d->vq[i], d->alloc);
    }
    qvirtio_reset(d->vdev);
}

Driver driver_new_with(void *obj, QGuestAllocator *alloc, uint64_t features)
{
    QVirtioTmem *tmem = obj;
    Driver d = {
        .qts = global_qtest,
        .vdev = tmem->vdev,
        .alloc = alloc,
        .arena = guest_alloc(alloc, ARENA),
        .features = features,
    };

    driver_up(&d);
    return d;
}

Driver driver_new(void *obj, QGuestAllocator *alloc)
{
    return driver_new_with(obj, alloc, FEATURES);
}

void driver_free(Driver *d)
{
    driver_down(d);
    guest_free(d->alloc, d->arena);
}

uint32_t config_readl(Driver *d, size_t offset)
{
    return qvirtio_config_readl(d->vdev, offset);
}

struct virtio_tmem_req request(uint16_t op, uint32_t pool,
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
struct virtio_tmem_req control(uint16_t op, uint32_t pool,
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
uint32_t queue_chain(Driver *d, int queue, const void *header,
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

size_t response_size(const struct virtio_tmem_req *req)
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

void read_answer(Driver *d, const struct virtio_tmem_req *req,
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
void submit(Driver *d, int queue, struct virtio_tmem_req req,
            const void *data, size_t data_len, Answer *a)
{
    uint32_t head, used;

    head = queue_chain(d, queue, &req, sizeof(req), data, data_len,
                       response_size(&req));
    if (d->vq[queue]->event) {
        qvirtqueue_set_used_event(d->qts, d->vq[queue],
                                  d->vq[queue]->last_used_idx);
    }
    qvirtqueue_kick(d->qts, d->vdev, d->vq[queue], head);
    qvirtio_wait_used_elem(d->qts, d->vdev, d->vq[queue], head, &used,
                           TIMEOUT_US);
    read_answer(d, &req, sizeof(req) + data_len, used, a);
}

uint16_t simple(Driver *d, struct virtio_tmem_req req)
{
    Answer a = { 0 };

    submit(d, 1, req, NULL, 0, &a);
    return a.status;
}

void create(Driver *d, uint32_t pool, uint16_t flags)
{
    g_assert_cmpuint(simple(d, control(VIRTIO_TMEM_OP_POOL_CREATE, pool, flags,
                                       12)), ==, VIRTIO_TMEM_S_OK);
}

void fill(uint8_t *page, unsigned int seed)
{
    for (int i = 0; i < PAGE; i++) {
        seed = seed * 1103515245 + 12345;
        page[i] = i % 3 ? seed >> 16 : 'a';
    }
}

void put(Driver *d, uint32_t pool, uint64_t index, unsigned int count,
         unsigned int seed, Answer *a)
{
    g_autofree uint8_t *data = g_malloc(count * PAGE);

    for (int i = 0; i < count; i++) {
        fill(data + i * PAGE, seed + i);
    }
    submit(d, 1, request(VIRTIO_TMEM_OP_PUT, pool, index, count), data,
           count * PAGE, a);
}

void put_ok(Driver *d, uint32_t pool, uint64_t index,
            unsigned int count, unsigned int seed)
{
    Answer a = { 0 };

    put(d, pool, index, count, seed, &a);
    g_assert_cmpuint(a.status, ==, VIRTIO_TMEM_S_OK);
    g_assert_cmpuint(a.done, ==, count);
    g_assert_cmpuint(a.used, ==, sizeof(struct virtio_tmem_resp) + 4 * count);
}

void expect_page(const Answer *a, unsigned int i, unsigned int seed)
{
    uint8_t want[PAGE];

    fill(want, seed);
    g_assert_cmpuint(a->page[i] >> VIRTIO_TMEM_PAGE_STATUS_SHIFT, ==,
                     VIRTIO_TMEM_S_OK);
    g_assert_cmpmem(a->data + i * PAGE, PAGE, want, PAGE);
}

void expect_miss(const Answer *a, unsigned int i)
{
    g_assert_cmphex(a->page[i], ==,
                    VIRTIO_TMEM_S_NOENT << VIRTIO_TMEM_PAGE_STATUS_SHIFT);
}

static QDict *stats(Driver *d)
{
    return qtest_qmp_assert_success_ref(d->qts,
        "{ 'execute': 'qom-get', 'arguments': {"
        "  'path': '/machine/peripheral/tmem0', 'property': 'stats' } }");
}

uint64_t held(Driver *d)
{
    QDict *reply = stats(d);
    uint64_t pages = qdict_get_int(qdict_get_qdict(reply, "device"),
                                   "persistent-pages");

    qobject_unref(reply);
    return pages;
}

uint64_t stat_of(Driver *d, const char *member)
{
    QDict *reply = stats(d);
    uint64_t value = qdict_get_int(reply, member);

    qobject_unref(reply);
    return value;
}

bool needs_reset(Driver *d)
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

void limit_files(Driver *d, unsigned int free)
{
    pid_t pid = qtest_pid(d->qts);
    struct rlimit limit;

    g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, NULL, &limit), ==, 0);
    limit.rlim_cur = 0;
    for (;;) {
        g_autofree char *path = g_strdup_printf("/proc/%d/fd/%d", (int)pid,
                                                (int)limit.rlim_cur);

        if (!g_file_test(path, G_FILE_TEST_IS_SYMLINK) && !free--) {
            break;
        }
        limit.rlim_cur++;
    }
    g_assert_cmpint(prlimit(pid, RLIMIT_NOFILE, &limit, NULL), ==, 0);
}

/* QEMU's stderr goes to a file, which the test reads. */
static struct {
    char *path;
    int saved;
} qemu_log;

void *with_log(GString *cmd_line, void *arg)
{
    static int started;
    int fd = g_file_open_tmp("qtest-tmem-XXXXXX", &qemu_log.path, NULL);

    g_assert_cmpint(fd, >=, 0);
    fflush(stderr);
    qemu_log.saved = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
    /* QEMU is started anew only if its command line is another. */
    g_string_append_printf(cmd_line, " -name logged%d ", ++started);
    return arg;
}

/* QEMU has started. */
void log_started(void)
{
    dup2(qemu_log.saved, STDERR_FILENO);
    close(qemu_log.saved);
}

unsigned int log_lines(void)
{
    g_autofree char *text = NULL;
    unsigned int lines = 0;

    g_assert_true(g_file_get_contents(qemu_log.path, &text, NULL, NULL));
    for (const char *p = text; (p = strchr(p, '\n')); p++) {
        lines++;
    }
    return lines;
}

bool log_has(const char *what)
{
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(qemu_log.path, &text, NULL, NULL));
    return strstr(text, what);
}

void log_ended(void)
{
    unlink(qemu_log.path);
    g_free(qemu_log.path);
}

void set_store_size(Driver *d, const char *property, uint64_t value)
{
    qtest_qmp_assert_success(d->qts,
        "{ 'execute': 'qom-set', 'arguments': { 'path': '/objects/store0', "
        "'property': %s, 'value': %" PRIu64 " } }", property, value);
}

void set_store_frozen(Driver *d, bool frozen)
{
    qtest_qmp_assert_success(d->qts,
        "{ 'execute': 'qom-set', 'arguments': { 'path': '/objects/store0', "
        "'property': 'frozen', 'value': %i } }", frozen);
}

void *with_store(GString *cmd_line, void *arg)
{
    g_string_append(cmd_line,
                    " -object tmem-store,id=store0,size=64M,reserved=16M ");
    return arg;
}

char *hmp(Driver *d, const char *command)
{
    return qtest_hmp(d->qts, "%s", command);
}
