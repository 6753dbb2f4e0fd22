/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fixed script, run again for every single allocation in it, fallocate()
 * included, with that one failing, and with that one and all later ones: what
 * was said to be there is, what was refused is not, nothing is left over.
 */
#include "store-fixture.h"

#define KEYS	   256
#define PERSISTENT 0
#define EPHEMERAL  1

struct script {
	struct failing_memory memory;
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_ctx *ctx;
	unsigned long refused;
	/* What was put last: 0 is none. */
	struct {
		uint64_t object, index, seed;
	} key[2][KEYS];
	unsigned int keys[2];
};

static int submit(struct script *s, uint16_t verb, uint16_t flags,
		  uint32_t pool, uint64_t object, uint64_t index, void *data,
		  struct tmem_page *page, struct tmem_op *op)
{
	struct iovec iov = { data, PAGE };

	*op = (struct tmem_op){ .verb = verb,
				.flags = flags,
				.pool = pool,
				.index = index,
				.count = 1,
				.iov = &iov,
				.iovcnt = 1,
				.page = page,
				.page_size = PAGE };
	memcpy(op->object, &object, sizeof(object));
	return tmem_submit(s->ctx, s->tenant, op);
}

static unsigned int key_of(struct script *s, uint32_t pool, uint64_t object,
			   uint64_t index)
{
	unsigned int i;

	for (i = 0; i < s->keys[pool]; i++)
		if (s->key[pool][i].object == object &&
		    s->key[pool][i].index == index)
			return i;
	assert_true(i < KEYS);
	s->keys[pool]++;
	s->key[pool][i].object = object;
	s->key[pool][i].index = index;
	return i;
}

static void script_put(struct script *s, uint32_t pool, uint64_t object,
		       uint64_t index, uint64_t seed)
{
	unsigned int key = key_of(s, pool, object, index);
	uint64_t data[PAGE / 8];
	struct tmem_page page;
	struct tmem_op op;

	make_page(data, seed, PAGE);
	assert_int_equal(submit(s, TMEM_PUT, 0, pool, object, index, data,
				&page, &op),
			 0);
	s->refused += page.status != TMEM_PAGE_OK;
	s->key[pool][key].seed = page.status == TMEM_PAGE_OK ? seed : 0;
}

/* A page that is there, or was refused: never another one. */
static void script_get(struct script *s, uint32_t pool, unsigned int key,
		       uint16_t flags, bool retire)
{
	uint64_t data[PAGE / 8], expected[PAGE / 8];
	uint64_t seed = s->key[pool][key].seed;
	struct tmem_page page;
	struct tmem_op op;

	assert_int_equal(submit(s, TMEM_GET, flags, pool,
				s->key[pool][key].object,
				s->key[pool][key].index, data, &page, &op),
			 0);
	if (pool == PERSISTENT || !seed)
		assert_int_equal(page.status,
				 seed ? TMEM_PAGE_OK : TMEM_PAGE_MISS);
	if (page.status != TMEM_PAGE_OK) {
		assert_int_equal(page.status, TMEM_PAGE_MISS);
		return;
	}
	make_page(expected, seed, PAGE);
	assert_memory_equal(data, expected, PAGE);
	if (!flags)
		return;
	if (retire) {
		tmem_retire(s->ctx, &op);
		s->key[pool][key].seed = 0;
	} else {
		tmem_unretire(s->ctx, &op);
	}
}

static void read_all(struct script *s)
{
	for (uint32_t pool = 0; pool < 2; pool++)
		for (unsigned int i = 0; i < s->keys[pool]; i++)
			script_get(s, pool, i, 0, false);
}

/* Everything that asks for memory, and what must not need any. */
static void script_ops(struct script *s)
{
	struct tmem_op op;

	for (uint32_t pool = 0; pool < 2; pool++) {
		/* Every kind; leaves, nodes of all levels, new and old ones. */
		for (uint64_t i = 0; i < 48; i++)
			script_put(s, pool, i % 3, i % 2 ? i : i << (i + 10),
				   i + 1);
		/* More objects than the table has buckets. */
		for (uint64_t i = 0; i < 40; i++)
			script_put(s, pool, 1000 + i, 0, i + 100);
		/* Overwritten by pages of other sizes. */
		for (unsigned int i = 0; i < 48; i++)
			script_put(s, pool, i % 3,
				   i % 2 ? i : 1ull * i << (i + 10), i + 202);
	}
	read_all(s);
	for (unsigned int i = 0; i < s->keys[EPHEMERAL]; i++)
		script_get(s, EPHEMERAL, i, TMEM_GET_EXCLUSIVE, i % 2);
	for (uint32_t pool = 0; pool < 2; pool++) {
		assert_int_equal(submit(s, TMEM_FLUSH, 0, pool, 1, 1, NULL,
					NULL, &op),
				 0);
		assert_int_equal(submit(s, TMEM_FLUSH_OBJECT, 0, pool, 2, 0,
					NULL, NULL, &op),
				 0);
		for (unsigned int i = 0; i < s->keys[pool]; i++)
			if (s->key[pool][i].object == 2 ||
			    (s->key[pool][i].object == 1 &&
			     s->key[pool][i].index == 1))
				s->key[pool][i].seed = 0;
	}
	while (tmem_step(s->store, 50))
		;
	tmem_shrink(s->store, 256 * 1024);
	read_all(s);
}

static int script_open(struct script *s)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = 64 * MIB,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
		.memory = &failing_ops,
		.memory_opaque = &s->memory,
	};
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_reserved = 4 * MIB };
	int error = tmem_store_create(&config, &s->store);

	if (!error)
		error = tmem_tenant_open(s->store, "faults", &limits,
					 &s->tenant);
	if (!error)
		error = tmem_ctx_create(s->store, &s->ctx);
	for (uint32_t pool = 0; pool < 2 && !error; pool++) {
		struct tmem_pool_params params = {
			pool == PERSISTENT ? TMEM_POOL_PERSISTENT : 0, 12
		};

		error = tmem_pool_create(s->tenant, pool, &params, NULL);
		/* Refused is not half made. */
		if (error)
			assert_int_equal(tmem_pool_destroy(s->tenant, pool),
					 -ENOENT);
	}
	return error;
}

static void script_close(struct script *s)
{
	char message[200];

	if (s->store && tmem_check(s->store, message, sizeof(message)))
		fail_msg("call %ld of memory failed: %s",
			 atomic_load(&s->memory.fail_at), message);
	tmem_ctx_destroy(s->ctx);
	tmem_tenant_drop(s->tenant);
	tmem_store_destroy(s->store);
	assert_int_equal(atomic_load(&s->memory.live), 0);
}

/* Runs the script until the failing call lies beyond its end. */
static void every_site(bool once)
{
	unsigned long refused = 0, opened = 0;
	struct script *s = malloc(sizeof(*s));
	long n = 0;

	do {
		memset(s, 0, sizeof(*s));
		s->memory.fail_at = ++n;
		s->memory.once = once;
		if (!script_open(s)) {
			opened++;
			script_ops(s);
		}
		refused += s->refused;
		s->memory.fail_at = 0;
		script_close(s);
	} while (atomic_load(&s->memory.calls) >= n);
	print_message("# %ld sites, %lu puts refused\n", n - 1, refused);
	assert_true(opened > 100 && n - 1 > 100 && refused > 100);
	free(s);
}

static void v13_every_allocation_once(void **state)
{
	every_site(true);
}

static void v13_every_allocation_and_all_later(void **state)
{
	every_site(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v13_every_allocation_once),
		cmocka_unit_test(v13_every_allocation_and_all_later),
	};

	return RUN_IN_BOTH_LAYOUTS("store-faults", tests, NULL);
}
