/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tests of the store share: a store with one tenant, pages that a seed
 * makes, ops in one line, and memory that fails on demand.
 */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <cmocka.h>

#include "tmem/tmem.h"

#define PAGE 4096u
#define MIB (1024ull * 1024)
#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* ------------------------------------------------- memory that fails */

struct failing_memory {
	atomic_long calls;   /* so far */
	atomic_long fail_at; /* this call fails, and later ones too; 0: none */
	atomic_bool once;    /* that call alone */
	atomic_bool only_fallocate;
	atomic_long live; /* allocations that were not freed */
	/*
	 * Called before the memory is given, once: it is set to NULL first.
	 * What the store holds then, others do without; where it holds no
	 * lock that they take, as for a span or a region, the hook may submit
	 * ops.  It runs on a thread of its own, as theirs do.
	 */
	void (*hook)(void *arg);
	void *hook_arg;
	size_t hook_size; /* only for allocations from here on; 0: fallocate */
};

static inline void *memory_hook_run(void *opaque)
{
	struct failing_memory *m = opaque;
	void (*hook)(void *arg) = m->hook;

	m->hook = NULL;
	hook(m->hook_arg);
	return NULL;
}

static inline void memory_hook(struct failing_memory *m, size_t size)
{
	pthread_t thread;

	if (!m->hook || (m->hook_size ? size < m->hook_size : size))
		return;
	if (pthread_create(&thread, NULL, memory_hook_run, m))
		abort();
	pthread_join(thread, NULL);
}

static inline bool memory_fails(struct failing_memory *m, bool is_fallocate)
{
	long call, fail_at;

	if (atomic_load(&m->only_fallocate) && !is_fallocate)
		return false;
	call = atomic_fetch_add(&m->calls, 1) + 1;
	fail_at = atomic_load(&m->fail_at);
	return fail_at && (atomic_load(&m->once) ? call == fail_at :
						   call >= fail_at);
}

static inline void *failing_zalloc(void *opaque, size_t size)
{
	struct failing_memory *m = opaque;
	void *ptr;

	memory_hook(m, size);
	ptr = memory_fails(m, false) ? NULL : calloc(1, size);
	if (ptr)
		atomic_fetch_add(&m->live, 1);
	return ptr;
}

static inline void failing_free(void *opaque, void *ptr)
{
	struct failing_memory *m = opaque;

	if (ptr)
		atomic_fetch_sub(&m->live, 1);
	free(ptr);
}

static inline int failing_fallocate(void *opaque, int fd, int mode,
				    uint64_t offset, uint64_t length)
{
	memory_hook(opaque, 0);
	if (memory_fails(opaque, true))
		return -ENOSPC;
	return fallocate(fd, mode, offset, length) ? -errno : 0;
}

static const struct tmem_memory_ops failing_ops = {
	.alloc = failing_zalloc,
	.zalloc = failing_zalloc,
	.free = failing_free,
	.fallocate = failing_fallocate,
};

/* -------------------------------------------------------------- pages */

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/*
 * The page that @seed makes.  Its low two bits choose the kind: same-filled,
 * well compressible, compressible by zstd alone, incompressible.
 */
static inline void make_page(void *page, uint64_t seed, size_t size)
{
	uint64_t *word = page;
	unsigned int random = (seed & 3) * size / 8 / 3;

	for (size_t i = 0; i < size / 8; i++)
		word[i] = i < random ? mix(seed * 1000003 + i) :
				       (seed & 3 ? seed * 0x0101 : 0x4141414141414141ull);
	if ((seed & 3) == 2)
		for (size_t i = 0; i < size / 8; i++)
			word[i] = mix(seed * 1000003 + i) & 0x0f0f0f0f0f0f0f0full;
}

/* ------------------------------------------------------------ fixture */

/* TMEM_STORE_*, of the stores that are opened. */
static uint32_t fixture_flags;

struct fixture {
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_ctx *ctx;
	struct failing_memory memory;
	uint64_t later_ns; /* the store's clock is so far ahead */
};

static inline uint64_t fixture_clock(void *opaque)
{
	const struct fixture *f = opaque;
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec + f->later_ns;
}

/* One that recompresses, too. */
static inline void fixture_open_recompressing(struct fixture *f,
					      uint64_t max_bytes,
					      uint64_t reserved,
					      unsigned int percent)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.flags = fixture_flags,
		.max_bytes = max_bytes,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
		.memory = &failing_ops,
		.memory_opaque = &f->memory,
		.recompress_percent = percent,
		.recompress_after_s = 1,
		.clock_ns = fixture_clock,
		.clock_opaque = f,
	};
	struct tmem_limits limits = { .size = sizeof(limits), .persistent_reserved = reserved };

	memset(f, 0, sizeof(*f));
	assert_int_equal(tmem_store_create(&config, &f->store), 0);
	assert_int_equal(tmem_tenant_open(f->store, "test", &limits,
					  &f->tenant), 0);
	assert_int_equal(tmem_ctx_create(f->store, &f->ctx), 0);
}

static inline void fixture_open(struct fixture *f, uint64_t max_bytes,
				uint64_t reserved)
{
	fixture_open_recompressing(f, max_bytes, reserved, 0);
}

static inline void fixture_check(struct fixture *f)
{
	char message[200];

	if (tmem_check(f->store, message, sizeof(message)))
		fail_msg("tmem_check: %s", message);
}

static inline struct tmem_stats stats_of(struct fixture *f)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_store_stats(f->store, &stats);
	return stats;
}

static inline void fixture_close(struct fixture *f)
{
	fixture_check(f);
	tmem_ctx_destroy(f->ctx);
	tmem_tenant_drop(f->tenant);
	tmem_store_destroy(f->store);
	assert_int_equal(atomic_load(&f->memory.live), 0);
}

static inline void pool_open(struct fixture *f, uint32_t id, uint32_t flags)
{
	struct tmem_pool_params params = { flags, 12 };

	assert_int_equal(tmem_pool_create(f->tenant, id, &params, NULL), 0);
}

/* One op; the result of tmem_submit(). */
static inline int run(struct fixture *f, struct tmem_ctx *ctx, uint16_t verb,
		      uint32_t pool, uint64_t object, uint64_t index,
		      uint64_t count, void *data, struct tmem_page *page,
		      uint64_t *done)
{
	struct iovec iov = { data, data ? count * PAGE : 0 };
	struct tmem_op op = {
		.verb = verb,
		.pool = pool,
		.index = index,
		.count = count,
		.iov = &iov,
		.iovcnt = 1,
		.page = page,
		.page_size = PAGE,
	};
	int error;

	memcpy(op.object, &object, sizeof(object));
	error = tmem_submit(ctx, f->tenant, &op);
	tmem_retire(ctx, &op);
	if (done)
		*done = op.done;
	return error;
}

/* One page by seed: its enum tmem_page_status. */
static inline int put(struct fixture *f, uint32_t pool, uint64_t object,
		      uint64_t index, uint64_t seed)
{
	uint64_t data[PAGE / 8];
	struct tmem_page page = { .status = 0xff };

	make_page(data, seed, PAGE);
	assert_int_equal(run(f, f->ctx, TMEM_PUT, pool, object, index, 1, data,
			     &page, NULL), 0);
	return page.status;
}

/* Reads a page: its status; if OK it must be the page of @seed. */
static inline int get(struct fixture *f, uint32_t pool, uint64_t object,
		      uint64_t index, uint64_t seed)
{
	uint64_t data[PAGE / 8], expected[PAGE / 8];
	struct tmem_page page = { .status = 0xff };

	memset(data, 0xa5, sizeof(data));
	assert_int_equal(run(f, f->ctx, TMEM_GET, pool, object, index, 1, data,
			     &page, NULL), 0);
	if (page.status == TMEM_PAGE_OK) {
		make_page(expected, seed, PAGE);
		assert_memory_equal(data, expected, PAGE);
	} else {
		memset(expected, 0xa5, PAGE);
		assert_memory_equal(data, expected, PAGE);
	}
	return page.status;
}

static inline void flush(struct fixture *f, uint32_t pool, uint64_t object,
			 uint64_t index, uint64_t count)
{
	while (count) {
		uint64_t done;

		assert_int_equal(run(f, f->ctx, TMEM_FLUSH, pool, object, index,
				     count, NULL, NULL, &done), 0);
		assert_true(done > 0 && done <= count);
		index += done;
		count -= done;
	}
}

/* As if another process went on with the tenant's memfds. */
static inline void fixture_adopt_again(struct fixture *f,
				       const struct tmem_limits *limits)
{
	int fd[TMEM_TENANT_FDS];

	tmem_tenant_fds(f->tenant, fd);
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		fd[i] = dup(fd[i]);
	tmem_tenant_detach(f->tenant);
	assert_int_equal(tmem_tenant_adopt(f->store, "test", limits, fd,
					   &f->tenant), 0);
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		close(fd[i]);
	fixture_check(f);
}

/* ------------------------------------------------------------ layouts */

static inline int to_size_classes(void **state)
{
	(void)state;
	fixture_flags |= TMEM_STORE_SIZE_CLASSES;
	return 0;
}

static inline int to_slotted(void **state)
{
	(void)state;
	fixture_flags &= ~TMEM_STORE_SIZE_CLASSES;
	return 0;
}

/*
 * Each test twice: a small tenant's pages are in slotted segments, or, with its
 * name and "_in_classes", in size classes as a large one's.
 */
static inline int run_in_both_layouts(const char *group,
				      const struct CMUnitTest *tests,
				      size_t count,
				      CMFixtureFunction teardown)
{
	static struct CMUnitTest both[128];
	static char name[128][128];

	assert_true(2 * count <= sizeof(both) / sizeof(both[0]));
	for (size_t i = 0; i < count; i++) {
		both[i] = both[count + i] = tests[i];
		snprintf(name[i], sizeof(name[i]), "%s_in_classes",
			 tests[i].name);
		both[count + i].name = name[i];
		both[count + i].setup_func = to_size_classes;
		both[count + i].teardown_func = to_slotted;
	}
	return _cmocka_run_group_tests(group, both, 2 * count, NULL,
				       teardown);
}
#define RUN_IN_BOTH_LAYOUTS(group, tests, teardown)                            \
	run_in_both_layouts(group, tests, sizeof(tests) / sizeof((tests)[0]),   \
			    teardown)

#endif /* STORE_FIXTURE_H */
