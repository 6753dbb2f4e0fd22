/*
 * A virtio-tmem driver for qtests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Short names: nothing but virtio-tmem's own tests includes this.
 */

#ifndef TESTS_VIRTIO_TMEM_DRIVER_H
#define TESTS_VIRTIO_TMEM_DRIVER_H

#include "libqtest-single.h"
#include "qemu/bitops.h"
#include "libqos/libqos-malloc.h"
#include "libqos/virtio-tmem.h"
#include "standard-headers/linux/virtio_config.h"
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
    uint64_t features;      /* that it accepts */
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

/* Features, queues, DRIVER_OK; and back. */
void driver_up(Driver *d);
void driver_down(Driver *d);

/* @obj: what the test is given */
Driver driver_new(void *obj, QGuestAllocator *alloc);
Driver driver_new_with(void *obj, QGuestAllocator *alloc, uint64_t features);
void driver_free(Driver *d);

uint32_t config_readl(Driver *d, size_t offset);

#define CONFIG(d, field) \
    config_readl(d, offsetof(struct virtio_tmem_config, field))

/* A request on a page of object "qtest" */
struct virtio_tmem_req request(uint16_t op, uint32_t pool,
                               uint64_t index, uint64_t count);
/* Requests without a key must leave the object zero. */
struct virtio_tmem_req control(uint16_t op, uint32_t pool,
                               uint16_t flags, uint64_t index);

/* Queues a chain: header and data, then @in writable bytes; its head. */
uint32_t queue_chain(Driver *d, int queue, const void *header,
                     size_t header_len, const void *data,
                     size_t data_len, size_t in);
/* What the device may write in answer to @req */
size_t response_size(const struct virtio_tmem_req *req);
void read_answer(Driver *d, const struct virtio_tmem_req *req,
                 size_t out, uint32_t used, Answer *a);

/* Sends a request and waits for its answer. */
void submit(Driver *d, int queue, struct virtio_tmem_req req,
            const void *data, size_t data_len, Answer *a);
/* The same on the bulk queue, without data: the status */
uint16_t simple(Driver *d, struct virtio_tmem_req req);

/* Makes a pool of 4 KiB pages. */
void create(Driver *d, uint32_t pool, uint16_t flags);
/* A page that compresses, different for each @seed */
void fill(uint8_t *page, unsigned int seed);
void put(Driver *d, uint32_t pool, uint64_t index, unsigned int count,
         unsigned int seed, Answer *a);
void put_ok(Driver *d, uint32_t pool, uint64_t index,
            unsigned int count, unsigned int seed);
void expect_page(const Answer *a, unsigned int i, unsigned int seed);
void expect_miss(const Answer *a, unsigned int i);

/* Persistent pages that the device holds, as the host counts */
uint64_t held(Driver *d);
/* An integer member of the device's statistics */
uint64_t stat_of(Driver *d, const char *member);
/* The device says so within two seconds? */
bool needs_reset(Driver *d);

/* Leaves QEMU @free file descriptors more than it has open. */
void limit_files(Driver *d, unsigned int free);

/* .before: QEMU's stderr goes to a file, which log_lines() counts. */
void *with_log(GString *cmd_line, void *arg);
void log_started(void);
unsigned int log_lines(void);
bool log_has(const char *what);
void log_ended(void);

/* .before: tmem-store store0, whose properties the others set */
void *with_store(GString *cmd_line, void *arg);
void set_store_size(Driver *d, const char *property, uint64_t value);
void set_store_frozen(Driver *d, bool frozen);

char *hmp(Driver *d, const char *command);

#endif /* TESTS_VIRTIO_TMEM_DRIVER_H */
