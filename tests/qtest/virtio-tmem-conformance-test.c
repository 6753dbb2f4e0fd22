/*
 * QTest testcase for virtio-tmem: the conformance suite
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * tests/conformance has the suite and its vectors.  Here are split virtqueues
 * as the virtio specification has them, filled a batch at a time.  The test
 * is there if TMEM_VECTORS names a folder with vectors.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/module.h"
#include "libqos/qgraph.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_ring.h"
#include "virtio-tmem-driver.h"
#include "tmem-conformance/suite.h"

#define MAX_QUEUES  8

typedef struct Ring {
    QVirtQueue *vq;
    uint16_t avail;     /* index of the next entry */
    uint16_t used;
} Ring;

typedef struct Device {
    QTestState *qts;
    QVirtioDevice *vdev;
    QGuestAllocator *alloc;
    Ring ring[MAX_QUEUES];
    unsigned int num_rings;
    unsigned int failed;
} Device;

static bool has_reset(Device *d)
{
    return d->vdev->bus->get_status(d->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

static void take_down(Device *d)
{
    for (int i = 0; i < d->num_rings; i++) {
        qvirtqueue_cleanup(d->vdev->bus, d->ring[i].vq, d->alloc);
    }
    d->num_rings = 0;
}

static uint64_t conf_features(void *opaque)
{
    Device *d = opaque;

    return qvirtio_get_features(d->vdev) & MAKE_64BIT_MASK(0, 24);
}

static void conf_config(void *opaque, struct virtio_tmem_config *config)
{
    Device *d = opaque;
    uint32_t *word = (uint32_t *)config;

    for (int i = 0; i < sizeof(*config) / sizeof(*word); i++) {
        word[i] = cpu_to_le32(qvirtio_config_readl(d->vdev, 4 * i));
    }
}

static bool conf_start(void *opaque, uint64_t features)
{
    Device *d = opaque;
    struct virtio_tmem_config config;

    take_down(d);
    qvirtio_start_device(d->vdev);
    qvirtio_set_features(d->vdev, features | BIT_ULL(VIRTIO_F_VERSION_1));
    conf_config(d, &config);
    d->num_rings = le16_to_cpu(config.num_fast) + le16_to_cpu(config.num_bulk);
    g_assert_cmpuint(d->num_rings, <=, MAX_QUEUES);
    for (int i = 0; i < d->num_rings; i++) {
        d->ring[i] = (Ring) { qvirtqueue_setup(d->vdev, d->alloc, i) };
    }
    qvirtio_set_driver_ok(d->vdev);
    return true;
}

static size_t chain_bytes(const struct conf_chain *chain)
{
    size_t bytes = 0;

    for (int i = 0; i < chain->num_out + chain->num_in; i++) {
        bytes += chain->seg[i].len;
    }
    return bytes;
}

/* Descriptors from @first on, whose memory is at @addr. */
static void write_chain(Device *d, const struct conf_chain *chain,
                        unsigned int first, uint64_t addr)
{
    unsigned int num = chain->num_out + chain->num_in;
    g_autofree struct vring_desc *desc = g_new0(struct vring_desc, num);
    g_autofree uint8_t *bytes = g_malloc(chain_bytes(chain));
    size_t done = 0;

    for (int i = 0; i < num; i++) {
        desc[i].addr = cpu_to_le64(addr + done);
        desc[i].len = cpu_to_le32(chain->seg[i].len);
        desc[i].flags = cpu_to_le16(
            (i >= chain->num_out ? VRING_DESC_F_WRITE : 0) |
            (i + 1 < num ? VRING_DESC_F_NEXT : 0));
        desc[i].next = cpu_to_le16(first + i + 1);
        memcpy(bytes + done, chain->seg[i].base, chain->seg[i].len);
        done += chain->seg[i].len;
    }
    qtest_bufwrite(d->qts, addr, bytes, done);
    qtest_bufwrite(d->qts, d->ring[chain->queue].vq->desc +
                   first * sizeof(*desc), desc, num * sizeof(*desc));
}

static void read_chain(Device *d, struct conf_chain *chain, uint64_t addr)
{
    g_autofree uint8_t *bytes = g_malloc(chain_bytes(chain));
    size_t done = 0;

    qtest_bufread(d->qts, addr, bytes, chain_bytes(chain));
    for (int i = 0; i < chain->num_out + chain->num_in; i++) {
        if (i >= chain->num_out) {
            memcpy(chain->seg[i].base, bytes + done, chain->seg[i].len);
        }
        done += chain->seg[i].len;
    }
}

/* A used entry of the ring, if there is one. */
static bool take_used(Device *d, Ring *ring, struct vring_used_elem *elem)
{
    uint64_t used = ring->vq->used;

    if (qtest_readw(d->qts, used + offsetof(struct vring_used, idx)) ==
        ring->used) {
        return false;
    }
    qtest_bufread(d->qts, used + offsetof(struct vring_used, ring) +
                  ring->used % ring->vq->size * sizeof(*elem),
                  elem, sizeof(*elem));
    ring->used++;
    return true;
}

static void conf_submit(void *opaque, struct conf_chain *const *chains,
                        unsigned int num)
{
    Device *d = opaque;
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    unsigned int first[MAX_QUEUES] = { 0 }, left = num;
    g_autofree unsigned int *head = g_new0(unsigned int, num);
    g_autofree uint64_t *addr = g_new0(uint64_t, num);
    struct vring_used_elem elem;

    for (int i = 0; i < num; i++) {
        Ring *ring = &d->ring[chains[i]->queue];
        uint64_t avail = ring->vq->avail;

        head[i] = first[chains[i]->queue];
        first[chains[i]->queue] += chains[i]->num_out + chains[i]->num_in;
        g_assert_cmpuint(first[chains[i]->queue], <=, ring->vq->size);
        addr[i] = guest_alloc(d->alloc, chain_bytes(chains[i]));
        write_chain(d, chains[i], head[i], addr[i]);
        qtest_writew(d->qts, avail + offsetof(struct vring_avail, ring) +
                     ring->avail++ % ring->vq->size * 2, head[i]);
    }
    for (int i = 0; i < d->num_rings; i++) {
        if (first[i]) {
            qtest_writew(d->qts, d->ring[i].vq->avail +
                         offsetof(struct vring_avail, idx), d->ring[i].avail);
            d->vdev->bus->virtqueue_kick(d->vdev, d->ring[i].vq);
        }
    }
    while (left && !has_reset(d) && g_get_monotonic_time() < end) {
        qtest_clock_step(d->qts, 100);
        for (int i = 0; i < d->num_rings; i++) {
            while (take_used(d, &d->ring[i], &elem)) {
                int n = 0;

                while (n < num && (chains[n]->queue != i ||
                                   head[n] != le32_to_cpu(elem.id))) {
                    n++;
                }
                g_assert_cmpint(n, <, num);
                chains[n]->used = true;
                chains[n]->used_len = le32_to_cpu(elem.len);
                left--;
            }
        }
    }
    for (int i = 0; i < num; i++) {
        read_chain(d, chains[i], addr[i]);
        guest_free(d->alloc, addr[i]);
    }
}

static bool conf_needs_reset(void *opaque)
{
    return has_reset(opaque);
}

static void conf_system_reset(void *opaque)
{
    Device *d = opaque;

    qtest_system_reset(d->qts);
    qvirtio_pci_device_enable(container_of(d->vdev, QVirtioPCIDevice, vdev));
    take_down(d);
}

static void conf_reported(void *opaque, const char *name, const char *why,
                          bool skipped)
{
    Device *d = opaque;

    printf("conformance: %sok - %s%s\n", why ? "not " : "", name,
           skipped ? " # SKIP not on this device" : "");
    if (why) {
        printf("conformance: # %s\n", why);
    }
    d->failed += why != NULL;
}

static void test_conformance(void *obj, void *data, QGuestAllocator *alloc)
{
    QVirtioTmem *tmem = obj;
    Device d = {
        .qts = global_qtest,
        .vdev = tmem->vdev,
        .alloc = alloc,
    };
    const struct conf_transport transport = {
        .opaque = &d,
        .max_segs = 64,
        .features = conf_features,
        .start = conf_start,
        .config = conf_config,
        .submit = conf_submit,
        .needs_reset = conf_needs_reset,
        .system_reset = conf_system_reset,
    };
    g_autofree char *path = g_strdup_printf("%s/%s.vec", getenv("TMEM_VECTORS"),
                                            (char *)data);

    g_assert_true(conf_run_file(path, &transport, conf_reported));
    g_assert_cmpuint(d.failed, ==, 0);
    take_down(&d);
}

static void *small_store(GString *cmd_line, void *arg)
{
    g_string_append(cmd_line,
                    " -object tmem-store,id=store0,size=8M,reserved=2M ");
    return arg;
}

static void register_tests(void)
{
    static const char *const files[] = {
        "config", "framing", "pools", "pages", "life",
    };

    if (!getenv("TMEM_VECTORS")) {
        return;
    }
    for (int i = 0; i < ARRAY_SIZE(files); i++) {
        QOSGraphTestOptions opts = {
            .before = small_store,
            .arg = (void *)files[i],
            .edge.extra_device_opts = "store=store0,num-fast-queues=1,"
                                      "num-bulk-queues=2",
        };
        g_autofree char *name = g_strdup_printf("conformance-%s", files[i]);

        qos_add_test(name, "virtio-tmem", test_conformance, &opts);
    }
}

libqos_init(register_tests);
