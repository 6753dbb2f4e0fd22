/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bad input.  Handles that are none, or not of one store: a debug build ends,
 * with the name of the function that was called.  Sizes, counts and numbers out
 * of range, and pointers to nothing: -EINVAL, and nothing happens.
 */
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store-fixture.h"

#define P TMEM_POOL_PERSISTENT

/* What a child passes on, some of which is wrong. */
struct handles {
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_ctx *ctx;
	struct tmem_op *op; /* complete */
};

#ifndef NDEBUG
/* ------------------------------------------------------- what is called */

static const struct tmem_limits limits = { .size = sizeof(limits) };
static const struct tmem_pool_params params = { P, 12 };
static const struct tmem_pool_limits pool_limits = {
	.size = sizeof(pool_limits)
};
static struct tmem_pool_limits pool_limits_out = {
	.size = sizeof(pool_limits_out)
};
static struct tmem_limits limits_out = { .size = sizeof(limits_out) };
static struct tmem_pool_params params_out;
static struct tmem_stats stats_out = { .size = sizeof(stats_out) };
static struct tmem_tenant *tenant_out;
static struct tmem_ctx *ctx_out;
static struct tmem_key key;
static char message[100];
static int fds[TMEM_TENANT_FDS];
static uint64_t number;

/* Every call that takes a handle, by what it takes. */
/* clang-format off */
#define STORES(X)                                                              \
	X(tmem_store_destroy, (h->store))                                      \
	X(tmem_store_set_pressure, (h->store, 1))                              \
	X(tmem_store_set_max, (h->store, MIB))                                 \
	X(tmem_step, (h->store, 1))                                            \
	X(tmem_step_due, (h->store))                                           \
	X(tmem_shrink, (h->store, 1))                                          \
	X(tmem_tenant_open, (h->store, "x", &limits, &tenant_out))             \
	X(tmem_tenant_adopt, (h->store, "x", &limits, fds, &tenant_out))       \
	X(tmem_ctx_create, (h->store, &ctx_out))                               \
	X(tmem_store_stats, (h->store, &stats_out))                            \
	X(tmem_check, (h->store, message, sizeof(message)))                    \
	X(tmem_tier_attach, (h->store, "/tmp", MIB, NULL))                     \
	X(tmem_store_set_holder, (h->store, NULL, NULL))                       \
	X(tmem_event_notify, (h->store, 1, NULL, NULL))

#define TENANTS(X)                                                             \
	X(tmem_tenant_fds, (h->tenant, fds))                                   \
	X(tmem_tenant_set_cookie, (h->tenant, 1))                              \
	X(tmem_tenant_cookie, (h->tenant))                                     \
	X(tmem_tenant_detach, (h->tenant))                                     \
	X(tmem_tenant_linger, (h->tenant, 1))                                  \
	X(tmem_tenant_drop, (h->tenant))                                       \
	X(tmem_tenant_set_limits, (h->tenant, &limits))                        \
	X(tmem_tenant_get_limits, (h->tenant, &limits_out))                    \
	X(tmem_tenant_freeze, (h->tenant, true))                               \
	X(tmem_tenant_frozen, (h->tenant))                                     \
	X(tmem_tenant_reset, (h->tenant))                                      \
	X(tmem_pool_create, (h->tenant, 1, &params, NULL))                     \
	X(tmem_pool_destroy, (h->tenant, 1))                                   \
	X(tmem_pool_query, (h->tenant, 1, &params_out))                        \
	X(tmem_pool_set_limits, (h->tenant, 1, &pool_limits))                  \
	X(tmem_pool_get_limits, (h->tenant, 1, &pool_limits_out))              \
	X(tmem_tenant_stats, (h->tenant, &stats_out))                          \
	X(tmem_pool_stats, (h->tenant, 1, &stats_out))                         \
	X(tmem_tenant_persistent_raw, (h->tenant))                             \
	X(tmem_tenant_pressure, (h->tenant))                                   \
	X(tmem_pool_attach_shared, (h->tenant, 1, "x", true))                  \
	X(tmem_track_start, (h->tenant))                                       \
	X(tmem_track_next, (h->tenant, &key, 1))                               \
	X(tmem_track_pending, (h->tenant, &number))                            \
	X(tmem_track_stop, (h->tenant))                                        \
	X(tmem_import_reserve, (h->tenant, MIB))                               \
	X(tmem_import_remote, (h->tenant, &key))

#define CONTEXTS(X)                                                            \
	X(tmem_ctx_destroy, (h->ctx))                                          \
	X(tmem_ctx_fd, (h->ctx))                                               \
	X(tmem_poll, (h->ctx))                                                 \
	X(tmem_drain, (h->ctx))

#define BOTH(X)                                                                \
	X(tmem_submit, (h->ctx, h->tenant, h->op))                             \
	X(tmem_export, (h->ctx, h->tenant, &key, NULL, 0, NULL, NULL))         \
	X(tmem_import, (h->ctx, h->tenant, &key, "", 1, TMEM_CODEC_LZ4))

#define SETTLE(X)                                                              \
	X(tmem_retire, (h->ctx, h->op))                                        \
	X(tmem_unretire, (h->ctx, h->op))
/* clang-format on */

struct call {
	const char *name;
	void (*call)(struct handles *h);
};

#define CALL(function, arguments)                                              \
	static void call_##function(struct handles *h)                         \
	{                                                                      \
		(void)function arguments;                                      \
	}
STORES(CALL)
TENANTS(CALL)
CONTEXTS(CALL)
BOTH(CALL)
SETTLE(CALL)

#define NAMED(function, arguments) { #function, call_##function },
static const struct call stores[] = { STORES(NAMED){ NULL, NULL } };
static const struct call tenants[] = { TENANTS(NAMED){ NULL, NULL } };
static const struct call contexts[] = { CONTEXTS(NAMED){ NULL, NULL } };
static const struct call both[] = { BOTH(NAMED){ NULL, NULL } };
static const struct call settle[] = { SETTLE(NAMED){ NULL, NULL } };

/* ---------------------------------------------------------------- children */

static void child(const struct call *call, struct handles *h, int out)
{
	const struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	/* Sanitizers and cmocka would have something to say. */
	signal(SIGABRT, SIG_DFL);
	dup2(out, STDERR_FILENO);
	call->call(h);
	_exit(0);
}

/* The call ends its process, with these words. */
static void ends(const struct call *call, struct handles *h, const char *why)
{
	char said[400] = "", expected[400];
	int ends[2], status;
	ssize_t length;
	pid_t pid;

	assert_int_equal(pipe(ends), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		child(call, h, ends[1]);
	close(ends[1]);
	length = read(ends[0], said, sizeof(said) - 1);
	close(ends[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	snprintf(expected, sizeof(expected), "libtmem: %s(): %s\n", call->name,
		 why);
	assert_true(length >= 0);
	assert_string_equal(said, expected);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void all_end(const struct call *call, struct handles *h, const char *why)
{
	for (; call->name; call++)
		ends(call, h, why);
}

/* An op that has taken a page: it is to be settled. */
static void take(struct fixture *f, struct tmem_op *op, struct iovec *iov,
		 struct tmem_page *page)
{
	static uint64_t data[PAGE / 8];

	pool_open(f, 0, 0);
	assert_int_equal(put(f, 0, 0, 1, 3), TMEM_PAGE_OK);
	*iov = (struct iovec){ data, PAGE };
	*op = (struct tmem_op){
		.verb = TMEM_GET,
		.flags = TMEM_GET_EXCLUSIVE,
		.index = 1,
		.count = 1,
		.iov = iov,
		.iovcnt = 1,
		.page = page,
		.page_size = PAGE,
	};
	assert_int_equal(tmem_submit(f->ctx, f->tenant, op), 0);
	assert_int_equal(page->status, TMEM_PAGE_OK);
}

static void handles_that_are_none(void **state)
{
	char memory[100000] = "";
	struct handles h = { .op = &(struct tmem_op){ 0 } };

	all_end(both, &h, "the context has ended, or never was one");
	h.store = (void *)memory;
	h.tenant = (void *)memory;
	h.ctx = (void *)memory;
	all_end(stores, &h, "the store has ended, or never was one");
	all_end(tenants, &h, "the tenant has ended, or never was one");
	all_end(contexts, &h, "the context has ended, or never was one");
	all_end(both, &h, "the context has ended, or never was one");
	all_end(settle, &h, "the context has ended, or never was one");
}

/* One is not the other. */
static void handles_of_another_kind(void **state)
{
	struct handles h = { 0 };
	struct fixture f;

	fixture_open(&f, 16 * MIB, 0);
	h.store = (void *)f.tenant;
	h.tenant = (void *)f.ctx;
	h.ctx = (void *)f.store;
	all_end(stores, &h, "the store has ended, or never was one");
	all_end(tenants, &h, "the tenant has ended, or never was one");
	all_end(contexts, &h, "the context has ended, or never was one");
	fixture_close(&f);
}

static void handles_that_have_ended(void **state)
{
	struct handles h = { .op = &(struct tmem_op){ 0 } };
	struct fixture f, open;

	/* What is freed here is not to be given to the next. */
	fixture_open(&open, 16 * MIB, 0);
	fixture_open(&f, 16 * MIB, 0);
	h.store = f.store;
	h.tenant = f.tenant;
	h.ctx = f.ctx;
	fixture_close(&f);
	all_end(stores, &h, "the store has ended, or never was one");
	all_end(tenants, &h, "the tenant has ended, or never was one");
	all_end(contexts, &h, "the context has ended, or never was one");
	h.ctx = open.ctx;
	all_end(both, &h, "the tenant has ended, or never was one");
	fixture_close(&open);
}

static void a_detached_tenant_has_ended(void **state)
{
	struct handles h = { 0 };
	struct fixture f;

	fixture_open(&f, 16 * MIB, 0);
	h.tenant = f.tenant;
	tmem_tenant_detach(f.tenant);
	f.tenant = NULL;
	all_end(tenants, &h, "the tenant has ended, or never was one");
	fixture_close(&f);
}

static void handles_of_two_stores(void **state)
{
	struct tmem_page page = { 0 };
	struct handles h = { 0 };
	struct fixture f, other;
	struct tmem_op op;
	struct iovec iov;

	fixture_open(&f, 16 * MIB, 0);
	fixture_open(&other, 16 * MIB, 0);
	take(&f, &op, &iov, &page);
	h.tenant = f.tenant;
	h.ctx = other.ctx;
	h.op = &op;
	all_end(both, &h, "the tenant is another store's");
	all_end(settle, &h, "the tenant is another store's");
	tmem_retire(f.ctx, &op);
	fixture_close(&other);
	fixture_close(&f);
}

/* Who takes a page settles it before its tenant ends. */
static void ops_of_what_has_ended(void **state)
{
	struct tmem_page page = { 0 };
	struct handles h = { 0 };
	struct fixture f;
	struct tmem_op op;
	struct iovec iov;

	fixture_open(&f, 16 * MIB, 0);
	take(&f, &op, &iov, &page);
	tmem_tenant_drop(f.tenant);
	f.tenant = NULL;
	h.ctx = f.ctx;
	h.op = &op;
	all_end(settle, &h, "the tenant has ended, or never was one");
	fixture_close(&f);
}

static void a_store_ends_last(void **state)
{
	const struct call destroy = { "tmem_store_destroy",
				      call_tmem_store_destroy };
	const char *why = "a tenant or a context of the store is still there";
	struct handles h = { 0 };
	struct fixture f;

	fixture_open(&f, 16 * MIB, 0);
	h.store = f.store;
	ends(&destroy, &h, why);
	tmem_tenant_drop(f.tenant);
	f.tenant = NULL;
	ends(&destroy, &h, why);
	fixture_close(&f);
}
#endif /* NDEBUG */

/* A child that cleans up what is its parent's ends, and takes no page along. */
static void children_cannot_take_pages(void **state)
{
	void (*const clean[])(struct tmem_tenant *tenant) = {
		tmem_tenant_detach, tmem_tenant_drop, tmem_tenant_reset
	};
	const struct rlimit none = { 0, 0 };
	struct fixture f;
	int status;

	fixture_open(&f, 16 * MIB, MIB);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 64; i++)
		assert_int_equal(put(&f, 0, 1, i, i), TMEM_PAGE_OK);
	for (unsigned int i = 0; i < sizeof(clean) / sizeof(clean[0]); i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (!pid) {
			setrlimit(RLIMIT_CORE, &none);
			signal(SIGSEGV, SIG_DFL);
			signal(SIGABRT, SIG_DFL);
			close(STDERR_FILENO);
			clean[i](f.tenant);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		for (uint64_t n = 0; n < 64; n++)
			assert_int_equal(get(&f, 0, 1, n, n), TMEM_PAGE_OK);
	}
	fixture_close(&f);
}

/* -------------------------------------------------------- out of range */

static void null_is_a_handle_for_who_ends_it(void **state)
{
	tmem_store_destroy(NULL);
	tmem_tenant_drop(NULL);
	tmem_tenant_detach(NULL);
	tmem_ctx_destroy(NULL);
}

static void bad_configs(void **state)
{
	struct tmem_memory_ops memory = failing_ops;
	const uint32_t size[] = {
		0, 1, offsetof(struct tmem_store_config, recompress_after_s),
		1u << 16, UINT32_MAX
	};
	struct tmem_store_config good = { .size = sizeof(good),
					  .max_bytes = MIB };
	struct tmem_store_config bad = good;
	struct tmem_store *store = NULL;

	assert_int_equal(tmem_store_create(NULL, &store), -EINVAL);
	assert_int_equal(tmem_store_create(&good, NULL), -EINVAL);
	for (unsigned int i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		bad.size = size[i];
		assert_int_equal(tmem_store_create(&bad, &store), -EINVAL);
	}
	bad = good;
	bad.max_bytes = 0;
	assert_int_equal(tmem_store_create(&bad, &store), -EINVAL);
	bad = good;
	for (unsigned int bit = 3; bit < 32; bit++) {
		bad.flags = 1u << bit;
		assert_int_equal(tmem_store_create(&bad, &store), -EINVAL);
	}
	bad = good;
	bad.memory = &memory;
	memory.fallocate = NULL;
	assert_int_equal(tmem_store_create(&bad, &store), -EINVAL);
	assert_null(store);
}

static void bad_tenants(void **state)
{
	struct tmem_limits good = { .size = sizeof(good) },
			   bad = { .size = sizeof(bad),
				   .weight = TMEM_MAX_WEIGHT + 1 };
	const int fd[TMEM_TENANT_FDS] = { -1, -1 };
	struct tmem_tenant *tenant = NULL;
	struct fixture f;

	fixture_open(&f, 16 * MIB, 0);
	assert_int_equal(tmem_tenant_open(f.store, NULL, &good, &tenant),
			 -EINVAL);
	assert_int_equal(tmem_tenant_open(f.store, "x", NULL, &tenant),
			 -EINVAL);
	assert_int_equal(tmem_tenant_open(f.store, "x", &good, NULL), -EINVAL);
	assert_int_equal(tmem_tenant_open(f.store, "x", &bad, &tenant),
			 -EINVAL);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &bad), -EINVAL);
	bad = (struct tmem_limits){ .size = sizeof(bad),
				    .persistent_reserved =
					    TMEM_MAX_RESERVED + 1 };
	assert_int_equal(tmem_tenant_open(f.store, "x", &bad, &tenant),
			 -EINVAL);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &bad), -EINVAL);
	bad.persistent_reserved = UINT64_MAX;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &bad), -EINVAL);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, NULL), -EINVAL);
	assert_int_equal(tmem_tenant_adopt(f.store, "x", &good, NULL, &tenant),
			 -EINVAL);
	assert_int_equal(tmem_tenant_adopt(f.store, "x", &good, fd, &tenant),
			 -EINVAL);
	assert_int_equal(tmem_store_set_max(f.store, 0), -EINVAL);
	assert_int_equal(tmem_ctx_create(f.store, NULL), -EINVAL);
	assert_int_equal(tmem_check(f.store, NULL, 10), -EINVAL);
	assert_null(tenant);
	fixture_close(&f);
}

/* As a program has it that was compiled with another version's header. */
struct longer_limits {
	struct tmem_limits known;
	uint64_t later[4];
};
struct longer_stats {
	struct tmem_stats known;
	uint64_t later[4], beyond;
};

static void other_versions_limits(void **state)
{
	struct longer_limits mine = { .known.weight = 7 };
	const uint32_t bad[] = { 0, 1, offsetof(struct tmem_limits, reserved1),
				 1u << 20, UINT32_MAX };
	struct tmem_limits now = { .size = sizeof(now) };
	struct fixture f;

	fixture_open(&f, 16 * MIB, 0);
	/* What it knows, and we do not, it does not want. */
	mine.known.size = sizeof(mine) - 8;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &mine.known), 0);
	assert_int_equal(tmem_tenant_get_limits(f.tenant, &now), 0);
	assert_int_equal(now.weight, 7);
	/* Or it does. */
	mine.known.weight = 8;
	mine.later[3] = 1;
	mine.known.size = sizeof(mine);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &mine.known),
			 -EINVAL);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		mine.known.size = bad[i];
		assert_int_equal(tmem_tenant_set_limits(f.tenant, &mine.known),
				 -EINVAL);
		assert_int_equal(tmem_tenant_get_limits(f.tenant, &mine.known),
				 -EINVAL);
	}
	assert_int_equal(tmem_tenant_get_limits(f.tenant, &now), 0);
	assert_int_equal(now.weight, 7);
	now.reserved0 = 1;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &now), -EINVAL);
	now.reserved0 = 0;
	now.reserved1 = 1;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &now), -EINVAL);
	mine.known.size = sizeof(mine);
	assert_int_equal(tmem_tenant_get_limits(f.tenant, &mine.known), 0);
	assert_int_equal(mine.known.size, sizeof(mine));
	assert_int_equal(mine.known.weight, 7);
	assert_int_equal(mine.later[3], 0);
	fixture_close(&f);
}

static void other_versions_stats(void **state)
{
	struct longer_stats mine;
	struct fixture f;

	fixture_open(&f, 16 * MIB, 0);
	memset(&mine, 0xa5, sizeof(mine));
	mine.known.size = offsetof(struct longer_stats, beyond);
	assert_int_equal(tmem_store_stats(f.store, &mine.known), 0);
	assert_int_equal(mine.known.size, offsetof(struct longer_stats, beyond));
	assert_true(mine.known.held_bytes > 0);
	assert_int_equal(mine.known.recompress_cpu_ns, 0);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(mine.later[i], 0);
	assert_int_equal(mine.beyond, 0xa5a5a5a5a5a5a5a5ull);
	memset(&mine, 0xa5, sizeof(mine));
	mine.known.size = sizeof(mine.known) - 1;
	assert_int_equal(tmem_store_stats(f.store, &mine.known), -EINVAL);
	assert_int_equal(tmem_tenant_stats(f.tenant, &mine.known), -EINVAL);
	assert_int_equal(mine.known.held_bytes, 0xa5a5a5a5a5a5a5a5ull);
	assert_int_equal(tmem_store_stats(f.store, NULL), -EINVAL);
	assert_int_equal(tmem_tenant_stats(f.tenant, NULL), -EINVAL);
	fixture_close(&f);
}

static void other_versions_config(void **state)
{
	struct {
		struct tmem_store_config known;
		uint64_t later;
	} mine = { .known = { .size = sizeof(mine), .max_bytes = MIB } };
	struct tmem_store *store;

	assert_int_equal(tmem_store_create(&mine.known, &store), 0);
	tmem_store_destroy(store);
	/* The first version had no clock, and what stands there is none. */
	mine.known.clock_ns = fixture_clock;
	mine.known.size = offsetof(struct tmem_store_config, clock_ns);
	assert_int_equal(tmem_store_create(&mine.known, &store), 0);
	tmem_store_destroy(store);
	mine.known.size += 4; /* half of it */
	assert_int_equal(tmem_store_create(&mine.known, &store), -EINVAL);
	mine.later = 1;
	mine.known.size = sizeof(mine);
	assert_int_equal(tmem_store_create(&mine.known, &store), -EINVAL);
}

static void bad_pools(void **state)
{
	static const uint32_t id[] = { TMEM_MAX_POOLS, TMEM_MAX_POOLS + 1,
				       1u << 31, UINT32_MAX };
	static const struct tmem_pool_params bad[] = {
		{ P, TMEM_PAGE_SHIFT_MIN - 1 },
		{ P, TMEM_PAGE_SHIFT_MAX + 1 },
		{ P, UINT32_MAX },
		{ P, 0 },
		{ 4, 12 },
		{ UINT32_MAX, 12 },
	};
	struct tmem_pool_params params = { P, 12 };
	struct tmem_stats stats = { .size = sizeof(stats) };
	struct fixture f;

	fixture_open(&f, 16 * MIB, 0);
	for (unsigned int i = 0; i < sizeof(id) / sizeof(id[0]); i++) {
		assert_int_equal(tmem_pool_create(f.tenant, id[i], &params,
						  NULL),
				 -EINVAL);
		assert_int_equal(tmem_pool_destroy(f.tenant, id[i]), -EINVAL);
		assert_int_equal(tmem_pool_query(f.tenant, id[i], &params),
				 -EINVAL);
		assert_int_equal(tmem_pool_stats(f.tenant, id[i], &stats),
				 -EINVAL);
	}
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(tmem_pool_create(f.tenant, 1, &bad[i], NULL),
				 -EINVAL);
	assert_int_equal(tmem_pool_create(f.tenant, 1, NULL, NULL), -EINVAL);
	assert_int_equal(tmem_pool_query(f.tenant, 1, &params), -ENOENT);
	pool_open(&f, TMEM_MAX_POOLS - 1, P);
	assert_int_equal(tmem_pool_query(f.tenant, TMEM_MAX_POOLS - 1, NULL),
			 -EINVAL);
	assert_int_equal(tmem_pool_stats(f.tenant, TMEM_MAX_POOLS - 1, NULL),
			 -EINVAL);
	fixture_close(&f);
}

/* Each is the good op but for one thing. */
static void bad_ops(void **state)
{
	static uint64_t data[PAGE / 8];
	struct iovec iov = { data, PAGE };
	struct tmem_page page;
	const struct tmem_op good = {
		.verb = TMEM_PUT,
		.index = UINT64_MAX,
		.count = 1,
		.iov = &iov,
		.iovcnt = 1,
		.page = &page,
		.page_size = PAGE,
	};
	struct fixture f;
	struct tmem_op op;

#define BAD(member, value)                                                     \
	do {                                                                   \
		op = good;                                                     \
		op.member = value;                                             \
		assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), -EINVAL);  \
		op.verb = op.verb == TMEM_PUT ? TMEM_GET : op.verb;            \
		assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), -EINVAL);  \
	} while (0)

	fixture_open(&f, 16 * MIB, 0);
	pool_open(&f, 0, P);
	BAD(verb, 0);
	BAD(verb, TMEM_FLUSH_OBJECT + 1);
	BAD(verb, UINT16_MAX);
	BAD(flags, 2);
	BAD(flags, TMEM_GET_EXCLUSIVE);
	BAD(pool, TMEM_MAX_POOLS);
	BAD(pool, UINT32_MAX);
	BAD(count, 0);
	BAD(count, 2);
	BAD(count, TMEM_MAX_RUN + 1);
	BAD(count, UINT64_MAX);
	BAD(page_size, 0);
	BAD(page_size, PAGE * 2);
	BAD(iov, NULL);
	BAD(iovcnt, 0);
	BAD(skip, 1);
	BAD(skip, SIZE_MAX);
	BAD(page, NULL);
	assert_int_equal(tmem_submit(f.ctx, f.tenant, NULL), -EINVAL);
	op = good;
	assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), 0);
	assert_int_equal(page.status, TMEM_PAGE_OK);
	/* It needs neither. */
	op = (struct tmem_op){ .verb = TMEM_FLUSH, .count = UINT64_MAX };
	assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), 0);
	op.index = 2;
	assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), -EINVAL);
	op.pool = TMEM_MAX_POOLS;
	op.count = 1;
	assert_int_equal(tmem_submit(f.ctx, f.tenant, &op), -EINVAL);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifndef NDEBUG
		cmocka_unit_test(handles_that_are_none),
		cmocka_unit_test(handles_of_another_kind),
		cmocka_unit_test(handles_that_have_ended),
		cmocka_unit_test(a_detached_tenant_has_ended),
		cmocka_unit_test(handles_of_two_stores),
		cmocka_unit_test(ops_of_what_has_ended),
		cmocka_unit_test(a_store_ends_last),
#endif
		cmocka_unit_test(children_cannot_take_pages),
		cmocka_unit_test(null_is_a_handle_for_who_ends_it),
		cmocka_unit_test(bad_configs),
		cmocka_unit_test(bad_tenants),
		cmocka_unit_test(other_versions_limits),
		cmocka_unit_test(other_versions_stats),
		cmocka_unit_test(other_versions_config),
		cmocka_unit_test(bad_pools),
		cmocka_unit_test(bad_ops),
	};

	return cmocka_run_group_tests_name("store-handles", tests, NULL, NULL);
}
