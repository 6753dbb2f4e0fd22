/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzz target: ops of two tenants with little room, whose stored bytes are
 * damaged meanwhile
 *
 * A get finds the page that is there, or an error if some byte of what is
 * stored for that key was changed since it was put; nobody else is concerned.
 * What is promised is not refused, structures and counters agree.
 */
#include <unistd.h>

#include "store-model.h"
#include "internal.h"

#define TENANTS 2
#define MAX_OPS 400

static const char *const names[TENANTS] = { "one", "two" };

struct world {
	struct tmem_store *store;
	struct model m[TENANTS];
};

static struct tmem_limits limits_take(struct input *in)
{
	struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = take8(in) % 16 * (MIB / 8),
		.weight = take8(in),
	};
	uint8_t most = take8(in);

	if (most & 1)
		limits.persistent_max =
			tmem_reservation_cost(limits.persistent_reserved) +
			most * 4096ull;
	if (most & 2)
		limits.ephemeral_max = most & 4 ? UINT64_MAX : most * 4096ull;
	return limits;
}

/* ----------------------------------------------------------------- damage */

/* The stored bytes of a key's page: where they are in the memfd, or false. */
static bool stored_at(struct model *m, unsigned int p, unsigned int o,
		      unsigned int i, uint64_t *from, uint64_t *to)
{
	const uint8_t id[TMEM_OBJECT_SIZE] = { o, 7 };
	struct tmem_pool *pool = pool_get(m->tenant, p);
	struct tmem_object *object = pool ? object_get(pool, id) : NULL;
	uint64_t index = model_index(i);
	struct tmem_leaf *leaf = object ? leaf_lock(object, index) : NULL;
	tmem_handle handle = HANDLE_EMPTY;

	if (leaf) {
		handle = atomic_load(&leaf->word[index % LEAF_ENTRIES]);
		leaf_unlock(object, leaf);
	}
	if (object)
		object_put(object);
	if (pool)
		pool_put(pool);
	if (!handle_has_chunk(handle))
		return false;
	*from = arena_offset(handle);
	*to = *from + handle_length(handle);
	return true;
}

static void touch(struct model *m, uint64_t at)
{
	uint64_t from, to;

	for (unsigned int p = 0; p < POOLS; p++)
		for (unsigned int o = 0; model_persistent(m, p) && o < OBJECTS;
		     o++)
			for (unsigned int i = 0; i < INDEXES; i++)
				if (stored_at(m, p, o, i, &from, &to) &&
				    from <= at && at < to)
					m->key[p][o][i].touched = true;
}

/* A byte of a page's, or of any. */
static void damage(struct model *m, struct input *in)
{
	struct place place = place_take(in);
	uint64_t at = take16(in), from, to;
	int fd[TMEM_TENANT_FDS];
	uint8_t byte;

	tmem_tenant_fds(m->tenant, fd);
	if (model_persistent(m, place.pool) &&
	    stored_at(m, place.pool, place.object, place.first, &from, &to))
		at = from + at % (to - from);
	else
		at *= 64;
	/* A hole is not to get memory. */
	if (lseek(fd[1], at, SEEK_DATA) != (off_t)at ||
	    pread(fd[1], &byte, 1, at) != 1)
		return;
	byte ^= 1 << place.cut % 8;
	require(pwrite(fd[1], &byte, 1, at) == 1, "no damage");
	touch(m, at);
}

/* -------------------------------------------------------------------- ops */

static void adopt_it(struct model *m, const char *name, struct input *in)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_reserved = m->promised };
	struct tmem_tenant *tenant;
	int fd[TMEM_TENANT_FDS];

	model_detach(m, fd);
	require(!tmem_tenant_adopt(m->store, name, &limits, fd, &tenant),
		"cannot be adopted");
	model_adopted(m, tenant);
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		close(fd[i]);
}

static void set_limits(struct model *m, struct input *in)
{
	struct tmem_limits limits = limits_take(in);
	int error = tmem_tenant_set_limits(m->tenant, &limits);

	require(!error || error == -ENOSPC, "limits: %d", error);
	if (!error)
		m->promised = limits.persistent_reserved;
}

static void reset(struct model *m)
{
	tmem_tenant_reset(m->tenant);
	for (unsigned int p = 0; p < POOLS; p++) {
		m->pool[p].there = false;
		model_pool_gone(m, p);
	}
}

static void open_again(struct model *m, const char *name, struct input *in)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_reserved = m->promised };
	struct tmem_store *store = m->store;

	model_close(m);
	model_open(m, store, name, &limits);
	m->promised = limits.persistent_reserved;
}

static void set_max(struct world *w, uint8_t most)
{
	int error = tmem_store_set_max(w->store, most * (MIB / 16));

	require(!error || error == -EINVAL, "max: %d", error);
}

static void check_stats(struct model *m)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	uint64_t pages = 0;

	tmem_tenant_stats(m->tenant, &stats);
	for (unsigned int p = 0; p < POOLS; p++)
		for (unsigned int o = 0; model_persistent(m, p) && o < OBJECTS;
		     o++)
			for (unsigned int i = 0; i < INDEXES; i++)
				pages += m->key[p][o][i].known == KNOWN_PAGE;
	require(stats.persistent_pages == pages, "%ju pages held, %ju known",
		(uintmax_t)stats.persistent_pages, (uintmax_t)pages);
}

static void op(struct world *w, struct input *in)
{
	uint8_t what = take8(in);
	unsigned int which = what >> 7;
	struct model *m = &w->m[which];

	what &= 0x7f;
	if (model_op(m, what % 24, in))
		return;
	switch (what % 24) {
	case 10:
		tmem_step(w->store, 1 + take8(in));
		break;
	case 11:
		tmem_shrink(w->store, take8(in) * 4096ull);
		break;
	case 12:
		set_limits(m, in);
		break;
	case 13:
		set_max(w, take8(in));
		break;
	case 14:
		tmem_tenant_freeze(m->tenant, take8(in) % 4 == 1);
		break;
	case 15:
		adopt_it(m, names[which], in);
		break;
	case 16:
		if (take8(in) % 4 == 1)
			reset(m);
		break;
	case 17:
		if (take8(in) % 8 == 1)
			open_again(m, names[which], in);
		break;
	case 18:
		model_check(m, "meanwhile");
		check_stats(m);
		break;
	default:
		damage(m, in);
		break;
	}
}

static void world_open(struct world *w, const struct tmem_store_config *config,
		       struct input *in)
{
	require(!tmem_store_create(config, &w->store), "no store");
	for (unsigned int i = 0; i < TENANTS; i++) {
		struct tmem_limits limits = {
			.size = sizeof(limits),
			.persistent_reserved = take8(in) % 8 * (MIB / 8)
		};

		model_open(&w->m[i], w->store, names[i], &limits);
		w->m[i].promised = limits.persistent_reserved;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct failing_memory memory = { 0 };
	struct input in = { data, data + size };
	struct tmem_store_config config = {
		.size = sizeof(config),
		.flags = size & 1 ? TMEM_STORE_SIZE_CLASSES : 0,
		.max_bytes = 5 * MIB,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
		.memory = &failing_ops,
		.memory_opaque = &memory,
	};
	static struct world w;

	world_open(&w, &config, &in);
	for (unsigned int i = 0; i < MAX_OPS && in.at < in.end; i++)
		op(&w, &in);
	model_check(&w.m[0], "in the end");
	for (unsigned int i = 0; i < TENANTS; i++) {
		model_sweep(&w.m[i]);
		check_stats(&w.m[i]);
		model_close(&w.m[i]);
	}
	tmem_store_destroy(w.store);
	require(!atomic_load(&memory.live), "memory leaks");
	return 0;
}
