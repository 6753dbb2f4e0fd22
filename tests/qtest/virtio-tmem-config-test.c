/*
 * QTest testcase for virtio-tmem: the configuration space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "libqos/qgraph.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_pci.h"
#include "virtio-tmem-driver.h"

/* A configuration interrupt is pending?  Reading takes it away. */
static bool config_isr(Driver *d)
{
    QVirtioPCIDevice *dev = container_of(d->vdev, QVirtioPCIDevice, vdev);

    return qpci_io_readb(dev->pdev, dev->bar, dev->isr_cfg_offset) & 2;
}

/* dev.config.events: new limits are announced, and then others. */
static void test_config_interrupt(void *obj, void *data,
                                  QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);

    for (int i = 1; i <= 3; i++) {
        set_store_size(&d, "reserved", i * MiB);
        d.vdev->bus->wait_config_isr_status(d.vdev, TIMEOUT_US);
        g_assert_cmpuint(CONFIG(&d, persistent_reserved), ==, i * MiB);
    }
    driver_free(&d);
}

/*
 * dev.config.rate: changes that follow one another closely share a
 * notification; the last one is not lost.
 */
static void test_config_rate(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    gint64 start = g_get_monotonic_time(), end = start + 1500 * 1000;
    unsigned int changes = 0, told = 0, most;

    while (g_get_monotonic_time() < end) {
        set_store_size(&d, "reserved", (1 + changes++ % 16) * MiB);
        told += config_isr(&d);
    }
    /* One for each tenth of a second that has begun. */
    most = (g_get_monotonic_time() - start) / (100 * 1000) + 1;
    g_assert_cmpuint(changes, >, 2 * most);
    g_assert_cmpuint(told, >, 0);
    g_assert_cmpuint(told, <=, most);
    /* One that it has not been: no change, no interrupt */
    set_store_size(&d, "reserved", 17 * MiB);
    d.vdev->bus->wait_config_isr_status(d.vdev, TIMEOUT_US);
    g_assert_cmpuint(CONFIG(&d, persistent_reserved), ==, 17 * MiB);
    driver_free(&d);
}

static void up_with(Driver *d, uint64_t features)
{
    driver_down(d);
    d->features = features;
    driver_up(d);
}

static uint16_t want(bool negotiated)
{
    return negotiated ? VIRTIO_TMEM_S_OK : VIRTIO_TMEM_S_UNSUPP;
}

/* Page 0 of @pool is the one of @seed, or the pool is not to be seen. */
static void expect_pool(Driver *d, uint32_t pool, bool seen, int seed)
{
    Answer a = { 0 };

    submit(d, 0, request(VIRTIO_TMEM_OP_GET, pool, 0, 1), NULL, 0, &a);
    g_assert_cmpuint(a.status, ==, want(seen));
    if (seen) {
        expect_page(&a, 0, seed);
    }
}

/*
 * dev.features.subset, dev.features.pools: with each subset of the device's
 * features and of the rings', what was negotiated works and the rest does not;
 * pools of another negotiation are there again when theirs is.
 */
static void test_negotiation(void *obj, void *data, QGuestAllocator *alloc)
{
    static const int bits[] = {
        VIRTIO_TMEM_F_PERSISTENT, VIRTIO_TMEM_F_EPHEMERAL, VIRTIO_TMEM_F_EVENTS,
        VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX,
    };
    Driver d = driver_new(obj, alloc);

    create(&d, 0, VIRTIO_TMEM_POOL_PERSISTENT);
    create(&d, 1, 0);
    put_ok(&d, 0, 0, 1, 100);
    put_ok(&d, 1, 0, 1, 101);
    for (int subset = 0; subset < 1 << ARRAY_SIZE(bits); subset++) {
        uint64_t features = BIT_ULL(VIRTIO_F_VERSION_1);
        bool persistent = subset & 1, ephemeral = subset & 2;

        for (int i = 0; i < ARRAY_SIZE(bits); i++) {
            features |= subset & 1 << i ? BIT_ULL(bits[i]) : 0;
        }
        up_with(&d, features);
        g_assert_cmphex(d.vdev->features, ==, features);
        g_assert_cmpuint(CONFIG(&d, max_pages), ==, MAX_PAGES);
        expect_pool(&d, 0, persistent, 100);
        expect_pool(&d, 1, ephemeral, 101);
        g_assert_cmpuint(simple(&d, control(VIRTIO_TMEM_OP_POOL_CREATE, 2,
                                            VIRTIO_TMEM_POOL_PERSISTENT, 12)),
                         ==, want(persistent));
        g_assert_cmpuint(simple(&d, control(VIRTIO_TMEM_OP_POOL_CREATE, 3, 0,
                                            12)), ==, want(ephemeral));
        for (int kind = 0; kind < 2; kind++) {
            if (subset & 1 << kind) {
                put_ok(&d, 2 + kind, 5, 9, subset);
            }
            /* Whatever was negotiated, a pool can be ended. */
            g_assert_cmpuint(simple(&d, control(VIRTIO_TMEM_OP_POOL_DESTROY,
                                                2 + kind, 0, 0)), ==,
                             subset & 1 << kind ? VIRTIO_TMEM_S_OK :
                                                  VIRTIO_TMEM_S_NOENT);
        }
    }
    driver_free(&d);
}

/* dev.config.noevents: who did not ask is not told, and can look. */
static void test_config_no_events(void *obj, void *data,
                                  QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);

    up_with(&d, FEATURES & ~BIT_ULL(VIRTIO_TMEM_F_EVENTS));
    for (int i = 1; i <= 4; i++) {
        set_store_size(&d, "reserved", i * MiB);
        g_usleep(150 * 1000);
        g_assert_false(config_isr(&d));
        g_assert_cmpuint(CONFIG(&d, persistent_reserved), ==, i * MiB);
    }
    driver_free(&d);
}

/* dev.config.writes: ignored, whatever their width and place. */
static void test_config_writes(void *obj, void *data, QGuestAllocator *alloc)
{
    Driver d = driver_new(obj, alloc);
    QVirtioPCIDevice *dev = container_of(d.vdev, QVirtioPCIDevice, vdev);
    struct virtio_tmem_config before, after;
    uint32_t *word[] = { (uint32_t *)&before, (uint32_t *)&after };

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < sizeof(before) / 4; i++) {
            word[round][i] = qvirtio_config_readl(d.vdev, 4 * i);
        }
        for (int i = 0; !round && i < sizeof(before); i++) {
            uint64_t offset = dev->device_cfg_offset + i;

            qpci_io_writeb(dev->pdev, dev->bar, offset, 0xff);
            if (i % 2 == 0) {
                qpci_io_writew(dev->pdev, dev->bar, offset, 0);
            }
            if (i % 4 == 0) {
                qpci_io_writel(dev->pdev, dev->bar, offset, 0x5a5a5a5a);
            }
        }
    }
    g_assert_cmpmem(&before, sizeof(before), &after, sizeof(after));
    g_assert_cmpuint(before.max_pages, ==, cpu_to_le32(MAX_PAGES));
    driver_free(&d);
}

static uint8_t config_generation(Driver *d)
{
    QVirtioPCIDevice *dev = container_of(d->vdev, QVirtioPCIDevice, vdev);

    return qpci_io_readb(dev->pdev, dev->bar, dev->common_cfg_offset +
                         offsetof(struct virtio_pci_common_cfg,
                                  config_generation));
}

/*
 * A limit of 64 bits, read by halves.  With @to other than 0 it becomes that in
 * between.  Is it to be trusted, as the generation says?
 */
static bool read_limit(Driver *d, const char *property, size_t offset,
                       uint64_t to, uint64_t *value)
{
    uint8_t generation = config_generation(d);

    *value = config_readl(d, offset);
    if (to) {
        set_store_size(d, property, to);
    }
    *value |= (uint64_t)config_readl(d, offset + 4) << 32;
    return config_generation(d) == generation;
}

/*
 * Limits that change while they are read: the generation tells, also those who
 * did not ask for notifications, and before DRIVER_OK.
 */
static void test_config_torn(void *obj, void *data, QGuestAllocator *alloc)
{
    static const struct {
        const char *property;
        size_t offset;
    } limit[] = {
        { "reserved", offsetof(struct virtio_tmem_config,
                               persistent_reserved) },
        { "persistent-max", offsetof(struct virtio_tmem_config,
                                     persistent_max) },
        { "ephemeral-max", offsetof(struct virtio_tmem_config,
                                    ephemeral_max) },
    };
    Driver d = driver_new(obj, alloc);

    set_store_size(&d, "size", 64 * GiB);
    for (int state = 0; state < 3; state++) {
        if (state == 1) {
            up_with(&d, FEATURES & ~BIT_ULL(VIRTIO_TMEM_F_EVENTS));
        } else if (state == 2) {
            driver_down(&d);
            qvirtio_start_device(d.vdev);
            qvirtio_set_features(d.vdev, FEATURES);
        }
        for (int i = 0; i < 20 * ARRAY_SIZE(limit); i++) {
            const char *property = limit[i / 20].property;
            size_t offset = limit[i / 20].offset;
            uint64_t older = 40 * GiB + i * MiB, newer = 48 * GiB - i * MiB;
            uint64_t value;

            if (i < 20) {      /* it has to fit under the others */
                older = (1 + i % 5) * 4 * GiB + MiB;
                newer = (2 + i % 5) * 4 * GiB + 2 * MiB;
            }
            set_store_size(&d, property, older);
            if (read_limit(&d, property, offset, newer, &value)) {
                g_assert_cmphex(value, ==, older);
            }
            /* A driver tries again; nothing changes any more. */
            for (int tries = 0;
                 !read_limit(&d, property, offset, 0, &value); tries++) {
                g_assert_cmpint(tries, <, 3);
            }
            g_assert_cmphex(value, ==, newer);
        }
    }
    driver_up(&d);
    driver_free(&d);
}

static void register_virtio_tmem_config_test(void)
{
    QOSGraphTestOptions store = {
        .before = with_store,
        .edge.extra_device_opts = "store=store0",
    };

    qos_add_test("config-interrupt", "virtio-tmem", test_config_interrupt,
                 &store);
    qos_add_test("config-rate", "virtio-tmem", test_config_rate, &store);
    qos_add_test("negotiation", "virtio-tmem", test_negotiation, &store);
    qos_add_test("config-no-events", "virtio-tmem", test_config_no_events,
                 &store);
    qos_add_test("config-torn", "virtio-tmem", test_config_torn, &store);
    qos_add_test("config-writes", "virtio-tmem", test_config_writes, &store);
}

libqos_init(register_virtio_tmem_config_test);
