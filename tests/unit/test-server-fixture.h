/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device without a machine: store, tenant, server and queues, and a driver's
 * side that builds requests in scattered memory and looks at what comes back.
 *
 * Every piece of guest memory is an allocation of its own, so that a sanitizer
 * sees an access beyond it; every writable byte starts as a canary, and a write
 * above the used length ends the test.
 */
#ifndef TEST_SERVER_FIXTURE_H
#define TEST_SERVER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <endian.h>
#include <errno.h>

#include "tmem-server.h"

/* What is answered, and the sizes of what every chain begins with. */
#define OK     VIRTIO_TMEM_S_OK
#define NOSPC  VIRTIO_TMEM_S_NOSPC
#define NOENT  VIRTIO_TMEM_S_NOENT
#define IO     VIRTIO_TMEM_S_IO
#define INVAL  VIRTIO_TMEM_S_INVAL
#define EXIST  VIRTIO_TMEM_S_EXIST
#define UNSUPP VIRTIO_TMEM_S_UNSUPP
#define REQ    sizeof(struct virtio_tmem_req)
#define RESP   sizeof(struct virtio_tmem_resp)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIB	      (1024ull * 1024)
#define PAGE	      4096u
#define SHIFT	      12
#define VM_QUEUES     4
#define FAST	      0 /* the first queue of the default VM; the others are bulk */
#define BULK	      1
#define ALL_FEATURES  0xffffffu
/* Pools of the default VM, made by vm_pools(). */
#define PERSISTENT 0
#define EPHEMERAL  1

/* ------------------------------------------------------------------ device */

/* Memory that fails on request; counts from 1. */
struct faults {
	uint64_t calls;	  /* allocations and fallocates so far */
	uint64_t fail_at; /* this one fails; 0: none */
	bool fail_all;	  /* and all after it */
};

/* 0: the default, which is roomy and looks at nothing of the host's. */
struct vm_options {
	uint64_t max_bytes;
	uint64_t reserved;
	uint64_t ephemeral_max;
	uint64_t host_headroom;
	uint64_t features; /* offered; all are accepted */
	uint32_t max_pages;
	struct faults *faults;
	struct tmem_store *store; /* share it */
};

struct vm {
	struct tmem_store *store;
	bool own_store;
	struct tmem_tenant *tenant;
	struct tmem_server *server;
	struct tmem_server_queue *queue[VM_QUEUES];
};

/* 0 or the error of the step that failed; nothing is left then. */
int vm_try_open(struct vm *vm, const struct vm_options *options);
void vm_open(struct vm *vm, const struct vm_options *options);
/* Checks the store's invariants first. */
void vm_close(struct vm *vm);
/* Make the two pools, with 4 KiB pages. */
void vm_pools(struct vm *vm);

/* --------------------------------------------------------------- requests */

/* What the driver sends: @out is the whole device-readable part. */
struct msg {
	uint8_t *out;
	size_t out_len;
	size_t in_len; /* device-writable bytes */
	/* 0: as a driver would; else memory is cut at random. */
	uint64_t cut;
	uint8_t canary; /* 0: the default */
	bool lost;	/* the answer does not reach the driver */
};

struct reply {
	int rc; /* of tmem_server_submit() */
	uint32_t used;
	uint16_t status;
	uint32_t generation;
	uint64_t done;
	uint8_t *in;	     /* all in_len bytes */
	const uint8_t *data; /* after the header */
};

/* As the driver fills it in, in the host's byte order. */
struct req {
	uint16_t op, flags;
	uint32_t pool;
	uint64_t object; /* number; the bytes are made of it */
	uint64_t index, count;
};

/* Writes a struct virtio_tmem_req, which need not be aligned. */
void req_encode(const struct req *req, void *wire);
/*
 * Serve @msg; @reply is freed by reply_free() or the next call.  Safe in
 * threads, as long as nothing is wrong: then it aborts.
 */
void msg_send(struct vm *vm, unsigned int queue, const struct msg *msg,
	      struct reply *reply);
void reply_free(struct reply *reply);
/* The word of a page: status and length. */
unsigned int page_status(const struct reply *reply, unsigned int i);
uint32_t page_length(const struct reply *reply, unsigned int i);

/* A well-formed request that has no data of its own; room for @extra bytes. */
void req_send(struct vm *vm, unsigned int queue, const struct req *req,
	      size_t extra, struct reply *reply);
/* The same, only its status. */
unsigned int req_status(struct vm *vm, unsigned int queue,
			const struct req *req);

/* PUT and GET of runs of 4 KiB pages. */
void put_pages(struct vm *vm, unsigned int queue, const struct req *key,
	       const uint8_t *pages, struct reply *reply);
void get_pages(struct vm *vm, unsigned int queue, const struct req *key,
	       struct reply *reply);
/* Put one page made of @seed; its status. */
unsigned int put_one(struct vm *vm, uint32_t pool, uint64_t object,
		     uint64_t index, uint64_t seed);
/* Get one page: its status; if it is OK, it must be the one made of @seed. */
unsigned int get_one(struct vm *vm, uint32_t pool, uint64_t object,
		     uint64_t index, uint64_t seed);
/* The page data of a GET's reply of @count pages. */
const uint8_t *get_data(const struct reply *reply, unsigned int count);
uint64_t pool_pages(struct vm *vm, uint32_t pool);

/* ---------------------------------------------------------------- contents */

uint64_t rng_next(uint64_t *state);
static inline uint64_t rng_below(uint64_t *state, uint64_t n)
{
	return rng_next(state) % n;
}
/*
 * Contents that differ for every seed: by seed % 4 one word repeated, half
 * text, incompressible, mostly zeros.
 */
void page_fill(uint8_t *page, size_t size, uint64_t seed);
#define SEED_RANDOM(n) ((n)*4 + 2) /* an incompressible one */

/* assert_true() for helpers that threads use as well: there it aborts. */
#define MUST(cond)                                                             \
	do {                                                                   \
		if (!(cond))                                                   \
			must_not(#cond, __FILE__, __LINE__);                   \
	} while (0)
void must_not(const char *cond, const char *file, int line);

#endif /* TEST_SERVER_FIXTURE_H */
