/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limits against what would get around them.  Nobody calls tmem_step() here,
 * as when a guest leaves the host no idle moment: ops must help themselves.
 */
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "store-fixture.h"

#define P TMEM_POOL_PERSISTENT
/* Room for spans that are half full and for descriptors of regions. */
#define SLACK (MIB / 2)

static uint64_t held(struct fixture *f)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_store_stats(f->store, &stats);
	return stats.held_bytes;
}

static uint64_t ephemeral_pages(struct fixture *f)
{
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_tenant_stats(f->tenant, &stats);
	return stats.ephemeral_pages;
}

static void fill(struct fixture *f, uint32_t pool, uint64_t object,
		 uint64_t bytes, int expected)
{
	for (uint64_t i = 0; i < bytes / PAGE; i++)
		assert_int_equal(put(f, pool, object, i, 4 * i + 3), expected);
}

/* A reservation is no way to fill the host with pools that drain. */
static void destroyed_pools_count(void **state)
{
	const uint64_t reserved = 4 * MIB,
		       max = tmem_reservation_cost(reserved);
	struct fixture f;

	fixture_open(&f, max, reserved);
	for (unsigned int round = 0; round < 8; round++) {
		pool_open(&f, 0, P);
		fill(&f, 0, 1, reserved, TMEM_PAGE_OK);
		assert_in_range(held(&f), reserved, max + SLACK);
		assert_int_equal(tmem_pool_destroy(f.tenant, 0), 0);
	}
	fixture_close(&f);
}

static void flushed_objects_count(void **state)
{
	const uint64_t reserved = 32 * MIB,
		       max = tmem_reservation_cost(reserved);
	struct fixture f;

	fixture_open(&f, max, reserved);
	pool_open(&f, 0, P);
	for (uint64_t object = 0; object < 4; object++) {
		fill(&f, 0, object, reserved, TMEM_PAGE_OK);
		assert_in_range(held(&f), reserved, max + SLACK);
		assert_int_equal(run(&f, f.ctx, TMEM_FLUSH_OBJECT, 0, object, 0,
				     0, NULL, NULL, NULL),
				 0);
	}
	fixture_close(&f);
}

/* Beyond the reservation, too, there is room where something drains. */
static void flushed_objects_make_room(void **state)
{
	struct fixture f;

	fixture_open(&f, 40 * MIB, 0);
	pool_open(&f, 0, P);
	for (uint64_t object = 0; object < 3; object++) {
		fill(&f, 0, object, 38 * MIB, TMEM_PAGE_OK);
		assert_int_equal(run(&f, f.ctx, TMEM_FLUSH_OBJECT, 0, object, 0,
				     0, NULL, NULL, NULL),
				 0);
	}
	fixture_close(&f);
}

/* What a reservation is said to cost is what it costs, at the worst. */
static void large_reservation_costs_what_it_says(void **state)
{
	const uint64_t reserved = 256 * MIB;
	struct fixture f;

	fixture_open(&f, tmem_reservation_cost(reserved), reserved);
	pool_open(&f, 0, P);
	fill(&f, 0, 1, reserved, TMEM_PAGE_OK);
	assert_in_range(held(&f), reserved, tmem_reservation_cost(reserved));
	fixture_close(&f);
}

/*
 * A store of @max bytes whose tenant has reserved half; pool 0 is persistent,
 * 1 ephemeral.
 */
static uint64_t open_half_reserved(struct fixture *f, uint64_t max)
{
	const uint64_t reserved = tmem_reservation_fit(max / 2);

	fixture_open(f, max, reserved);
	pool_open(f, 0, P);
	pool_open(f, 1, 0);
	return reserved;
}

/* Whatever else there is: what was promised is kept, and within the limit. */
static void fill_reservation(struct fixture *f, uint64_t max, uint64_t reserved)
{
	for (uint64_t i = 0; i < reserved / PAGE; i++) {
		assert_int_equal(put(f, 0, 1, i, 4 * i + 3), TMEM_PAGE_OK);
		assert_in_range(held(f), 0, max + SLACK);
	}
}

/* Ephemeral pages use what is not used, and make way: the oldest go. */
static void ephemeral_leaves_the_reservation(void **state)
{
	const uint64_t max = 16 * MIB;
	struct fixture f;
	uint64_t reserved = open_half_reserved(&f, max);

	fill(&f, 1, 1, 2 * max, TMEM_PAGE_OK);
	assert_in_range(held(&f), max - MIB, max + SLACK);
	fill_reservation(&f, max, reserved);
	fixture_close(&f);
}

/* Not of another's reservation, who would have to wait for it. */
static void ephemeral_leaves_others_reservation(void **state)
{
	const uint64_t max = 16 * MIB;
	struct tmem_limits none = { .size = sizeof(none) };
	struct fixture f, g;
	uint64_t reserved = open_half_reserved(&f, max);

	g = f;
	assert_int_equal(tmem_tenant_open(f.store, "other", &none, &g.tenant),
			 0);
	pool_open(&g, 1, 0);
	fill(&g, 1, 1, 2 * max, TMEM_PAGE_OK);
	assert_in_range(held(&f), max / 2 - MIB, max / 2 + SLACK);
	fill_reservation(&f, max, reserved);
	tmem_tenant_drop(g.tenant);
	fixture_close(&f);
}

/* Nor does their index, when they are same-filled: old ones make way for new.
 */
static void ephemeral_index_leaves_the_reservation(void **state)
{
	/* Pages in objects of their own; far apart in one; side by side. */
	static const struct {
		unsigned int object, index;
	} shift[] = { { 0, 63 }, { 63, 20 }, { 63, 0 } };
	const uint64_t max = 8 * MIB;

	for (unsigned int i = 0; i < 3; i++) {
		unsigned int refused = 0;
		uint64_t reserved;
		struct fixture f;

		reserved = open_half_reserved(&f, max);
		for (uint64_t n = 0; n < 400000; n++)
			refused +=
				put(&f, 1, shift[i].object == 63 ? 1 : n,
				    shift[i].index == 63 ? 0
							 : n << shift[i].index,
				    0) != TMEM_PAGE_OK;
		/* A block of index is freed when all in it is. */
		assert_in_range(refused, 0, 400);
		/* As much as there is room for. */
		assert_in_range(held(&f), max / 2 - MIB, max / 2 + SLACK);
		assert_in_range(stats_of(&f).ephemeral_pages, 1000, 399999);
		fill_reservation(&f, max, reserved);
		fixture_close(&f);
	}
}

/*
 * Keys so far apart that each costs nodes of its own: within the reservation
 * a page is refused only once they all take more than an eighth of it and 1 MiB
 * (dev.put.sparse).  What they make held is index alone: they are all the same.
 */
static void sparse_index_may_be_refused(void **state)
{
	const uint64_t reserved = 16 * MIB, dense = reserved / 4,
		       bound = reserved / 8 + MIB;
	struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = reserved,
		.persistent_max = tmem_reservation_cost(reserved),
	};
	uint64_t refused = 0, accepted = 0;
	struct fixture f;

	fixture_open(&f, limits.persistent_max, reserved);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	pool_open(&f, 0, P);
	fill(&f, 0, 2, dense, TMEM_PAGE_OK);
	for (uint64_t i = 0; i < (reserved - dense) / PAGE; i++) {
		uint64_t index = mix(i) | 31, before = held(&f);

		/* An object each: they share no node of an index. */
		if (put(&f, 0, 100 + i, index, 0) == TMEM_PAGE_OK) {
			accepted++;
			assert_int_equal(get(&f, 0, 100 + i, index, 0),
					 TMEM_PAGE_OK);
			continue;
		}
		refused++;
		assert_true(before > dense + bound);
		assert_int_equal(get(&f, 0, 100 + i, index, 0), TMEM_PAGE_MISS);
	}
	print_message("# %llu sparse pages accepted, %llu refused\n",
		      (unsigned long long)accepted,
		      (unsigned long long)refused);
	assert_true(accepted && refused);
	/*
	 * What is there can be replaced by what takes room, and the rest of the
	 * promise filled in their leaves: the store holds more by no more than
	 * the index that is guaranteed.
	 */
	for (uint64_t i = 0; i < (reserved - dense) / PAGE; i++) {
		uint64_t index = mix(i) | 31;

		if (get(&f, 0, 100 + i, index, 0) != TMEM_PAGE_OK)
			continue;
		assert_int_equal(put(&f, 0, 100 + i, index, 4 * i + 3),
				 TMEM_PAGE_OK);
		for (uint64_t n = 1; n < 32 && refused; n++, refused--)
			assert_int_equal(put(&f, 0, 100 + i, index ^ n,
					     4 * n + 3),
					 TMEM_PAGE_OK);
	}
	assert_int_equal(refused, 0);
	assert_in_range(held(&f), reserved,
			limits.persistent_max + bound + SLACK);
	fixture_close(&f);
}

/*
 * Pages that have no slot, far apart, are bounded by the limit for persistent
 * pages, too; and not by that for ephemeral ones.
 */
static void persistent_index_has_its_limit(void **state)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_max = 4 * MIB };
	uint64_t accepted = 0;
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	pool_open(&f, 0, P);
	for (uint64_t i = 0; i < 40000; i++)
		accepted += put(&f, 0, 1, i << 12, 0) == TMEM_PAGE_OK;
	assert_in_range(held(&f), 3 * MIB, 4 * MIB + SLACK);
	limits.persistent_max = 16 * MIB;
	limits.ephemeral_max = UINT64_MAX;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	for (uint64_t i = 0; i < 40000; i++)
		accepted += put(&f, 0, 2, i << 12, 0) == TMEM_PAGE_OK;
	assert_in_range(held(&f), 15 * MIB, 16 * MIB + SLACK);
	assert_true(accepted > 1000);
	fixture_close(&f);
}

/* The tenant's own ephemeral pages make way for what it is promised. */
static void ephemeral_makes_way(void **state)
{
	const uint64_t max = 16 * MIB;
	struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = tmem_reservation_fit(max - MIB),
	};
	struct fixture f;

	/* All but a MiB is promised, which is room for their index. */
	fixture_open(&f, max, limits.persistent_reserved);
	pool_open(&f, 0, P);
	pool_open(&f, 1, 0);
	fill(&f, 1, 1, max, TMEM_PAGE_OK);
	assert_in_range(held(&f), max - MIB, max + SLACK);
	fill(&f, 0, 1, limits.persistent_reserved, TMEM_PAGE_OK);
	assert_in_range(held(&f), limits.persistent_reserved, max + SLACK);
	fixture_close(&f);
}

/* So do another's, if the promise came after they did. */
static void ephemeral_of_others_makes_way(void **state)
{
	const uint64_t max = 16 * MIB;
	struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = tmem_reservation_fit(max),
	};
	struct tmem_limits none = { .size = sizeof(none) };
	struct fixture f, g;

	fixture_open(&f, max, 0);
	g = f;
	assert_int_equal(tmem_tenant_open(f.store, "other", &none, &g.tenant),
			 0);
	pool_open(&g, 1, 0);
	fill(&g, 1, 1, max, TMEM_PAGE_OK);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	pool_open(&f, 0, P);
	fill(&f, 0, 1, limits.persistent_reserved, TMEM_PAGE_OK);
	assert_in_range(held(&f), limits.persistent_reserved, max + SLACK);
	tmem_tenant_drop(g.tenant);
	fixture_close(&f);
}

/* The index of pages that were evicted is freed by those who need room. */
static void evicted_pages_leave_no_index(void **state)
{
	struct fixture f;
	uint64_t pages = 0;

	fixture_open(&f, 8 * MIB, 0);
	pool_open(&f, 1, 0);
	for (uint64_t i = 0; i < 24000; i++) {
		assert_int_equal(put(&f, 1, 1, i << 20, 4 * i + 2),
				 TMEM_PAGE_OK);
		if (i == 8000)
			pages = ephemeral_pages(&f);
	}
	assert_in_range(held(&f), 0, 8 * MIB + SLACK);
	assert_in_range(ephemeral_pages(&f), pages * 9 / 10, pages * 11 / 10);
	fixture_close(&f);
}

/* A lowered limit evicts down to it, before it returns. */
static void lowered_ephemeral_limit_evicts(void **state)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .ephemeral_max = 8 * MIB };
	struct fixture f;

	fixture_open(&f, 256 * MIB, 0);
	pool_open(&f, 1, 0);
	fill(&f, 1, 1, 64 * MIB, TMEM_PAGE_OK);
	assert_int_equal(tmem_shrink(f.store, 0), 0);
	assert_in_range(held(&f), 64 * MIB, 80 * MIB);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	assert_in_range(held(&f), MIB, 8 * MIB + SLACK);
	assert_true(ephemeral_pages(&f) > 100);
	limits.ephemeral_max = UINT64_MAX;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	assert_int_equal(ephemeral_pages(&f), 0);
	assert_int_equal(put(&f, 1, 1, 0, 2), TMEM_PAGE_REFUSED);
	fixture_close(&f);
}

/* ------------------------------------------------------------- headroom */

static char fakes[] = "/tmp/tmem-headroom-XXXXXX";

static void make_fakes(void)
{
	if (strstr(fakes, "XXXXXX"))
		assert_non_null(mkdtemp(fakes));
}

static void fake(const char *name, const char *format, uint64_t value)
{
	char path[100];
	FILE *file;

	make_fakes();
	snprintf(path, sizeof(path), "%s/%s", fakes, name);
	file = fopen(path, "w");
	assert_non_null(file);
	fprintf(file, format, (unsigned long)value);
	fclose(file);
}

/*
 * A store in a cgroup of 256 MiB, of which @used are taken, by a process that
 * will take @process in all.
 */
static void open_process(struct fixture *f, uint64_t used, uint64_t process)
{
	struct tmem_store_config config = { .size = sizeof(config),
					    .max_bytes = 1024 * MIB,
					    .host_headroom = UINT64_MAX,
					    .process_bytes = process };
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_reserved = 512 * MIB };

	memset(f, 0, sizeof(*f));
	fake("memory.max", "%lu\n", 256 * MIB);
	fake("memory.current", "%lu\n", used);
	fake("memory.stat", "inactive_file %lu\n", 0);
	config.host_dir = fakes;
	assert_int_equal(tmem_store_create(&config, &f->store), 0);
	assert_int_equal(
		tmem_tenant_open(f->store, "test", &limits, &f->tenant), 0);
	assert_int_equal(tmem_ctx_create(f->store, &f->ctx), 0);
	pool_open(f, 0, P);
}

static void open_in_cgroup(struct fixture *f, uint64_t used)
{
	open_process(f, used, 0);
}

static int remove_fakes(void **state)
{
	static const char *const name[] = {
		"memory.max",	 "memory.current", "memory.stat",
		"statm",	 "status",	   "meminfo",
		"node0/meminfo", "node1/meminfo",  "node0",
		"node1",	 "has_memory",
	};
	char path[100];

	for (unsigned int i = 0; i < sizeof(name) / sizeof(*name); i++) {
		snprintf(path, sizeof(path), "%s/%s", fakes, name[i]);
		remove(path);
	}
	rmdir(fakes);
	return 0;
}

/* What was granted when there was room is not taken when there is none. */
static void old_room_is_no_room(void **state)
{
	uint64_t accepted = 0;
	struct fixture f;

	open_in_cgroup(&f, 64 * MIB);
	assert_int_equal(put(&f, 0, 1, 0, 3), TMEM_PAGE_OK);
	fake("memory.current", "%lu\n", 255 * MIB);
	usleep(150000);
	for (uint64_t i = 0; i < 200; i++)
		accepted += put(&f, 0, 1, i, 4 * i + 3) == TMEM_PAGE_OK;
	/* The first replaces the page that is there. */
	assert_in_range(accepted, 0, 1);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 3);
	fixture_close(&f);
}

/* Index structures are the host's memory as well, also those of a reservation.
 */
static void index_asks_the_host(void **state)
{
	uint64_t accepted = 0, before;
	struct fixture f;

	open_in_cgroup(&f, 250 * MIB);
	before = held(&f);
	for (uint64_t i = 0; i < 20000; i++)
		/* Of one word: it takes nothing but index. */
		accepted += put(&f, 0, i, UINT64_MAX - i, 0) == TMEM_PAGE_OK;
	assert_in_range(accepted, 0, 2000);
	assert_true(held(&f) - before < 4 * MIB);
	fixture_close(&f);
}

/* A guest's memory on hugetlbfs is there, though not among resident pages. */
static void hugetlb_pages_are_resident(void **state)
{
	struct fixture f;

	fake("statm", "1 %lu\n", 1);
	fake("status", "HugetlbPages:\t %lu kB\n", 128 * MIB / 1024);
	open_process(&f, 130 * MIB, 128 * MIB);
	assert_int_equal(put(&f, 0, 1, 0, 3), TMEM_PAGE_OK);
	fixture_close(&f);
	fake("status", "HugetlbPages:\t %lu kB\n", 0);
	open_process(&f, 130 * MIB, 128 * MIB);
	assert_int_equal(put(&f, 0, 1, 0, 3), TMEM_PAGE_REFUSED);
	fixture_close(&f);
	fake("statm", "1 %lu\n", 0);
}

static void fake_node(unsigned int node, uint64_t free, uint64_t files)
{
	char name[32], path[100], format[200];

	make_fakes();
	snprintf(path, sizeof(path), "%s/node%u", fakes, node);
	mkdir(path, 0700);
	snprintf(name, sizeof(name), "node%u/meminfo", node);
	snprintf(format, sizeof(format),
		 "Node %u MemFree: %lu kB\nNode %u Active: 999999999 kB\n"
		 "Node %u Active(file): 0 kB\n"
		 "Node %u Inactive(file): %%lu kB\n",
		 node, (unsigned long)free / 1024, node, node, node);
	fake(name, format, files / 1024);
}

static bool bind_to(const unsigned long *nodes)
{
	return !syscall(SYS_set_mempolicy, nodes ? 2 : 0, nodes,
			nodes ? 64 : 0);
}

/* A put of a store that keeps 64 MiB of the host; all nodes have 1 GiB. */
static int put_on_nodes(const char *nodes)
{
	struct tmem_store_config config = { .size = sizeof(config),
					    .max_bytes = 1024 * MIB,
					    .host_headroom = 64 * MIB,
					    .host_dir = fakes };
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_reserved = 512 * MIB };
	struct fixture f = { 0 };
	int status;

	fake("memory.max", "max\n", 0);
	fake("meminfo", "MemAvailable: %lu kB\n", 1024 * MIB / 1024);
	fake("has_memory", nodes, 0);
	assert_int_equal(tmem_store_create(&config, &f.store), 0);
	assert_int_equal(tmem_tenant_open(f.store, "test", &limits, &f.tenant),
			 0);
	assert_int_equal(tmem_ctx_create(f.store, &f.ctx), 0);
	pool_open(&f, 0, P);
	status = put(&f, 0, 1, 0, 3);
	fixture_close(&f);
	return status;
}

/*
 * Who is bound to a node is killed when that is full, whatever others have.
 * Files' pages of a node go before anybody does.
 */
static void a_full_node_is_a_full_host(void **state)
{
	const unsigned long first = 1;

	fake_node(0, 60 * MIB, 0);
	fake_node(1, 960 * MIB, 0);
	if (!bind_to(&first))
		skip();
	assert_int_equal(put_on_nodes("0-1\n"), TMEM_PAGE_REFUSED);
	fake_node(0, 60 * MIB, 60 * MIB);
	assert_int_equal(put_on_nodes("0-1\n"), TMEM_PAGE_OK);
	/* Where only one has memory MemAvailable is that one's. */
	fake_node(0, 60 * MIB, 0);
	assert_int_equal(put_on_nodes("0\n"), TMEM_PAGE_OK);
	assert_true(bind_to(NULL));
}

/* Pressure goes when its cause does, also if nobody dares to put. */
static void pressure_ends(void **state)
{
	struct fixture f;

	open_in_cgroup(&f, 255 * MIB);
	assert_int_equal(put(&f, 0, 1, 0, 3), TMEM_PAGE_REFUSED);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 3);
	fake("memory.current", "%lu\n", 64 * MIB);
	usleep(10000);
	tmem_step(f.store, 100);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 0);
	fixture_close(&f);
}

/* What is said of the host is the least that there is, and no more than that.
 */
/* Puts until the tenant is told of pressure of @level; held bytes then. */
static uint64_t put_until(struct fixture *f, unsigned int level)
{
	struct tmem_stats stats = { .size = sizeof(stats) };
	static uint64_t next;

	while (tmem_tenant_pressure(f->tenant) < level)
		put(f, 0, 2, next++, 3);
	assert_int_equal(tmem_tenant_pressure(f->tenant), level);
	tmem_store_stats(f->store, &stats);
	return stats.held_bytes;
}

/* A guest is told while there is an eighth left, of the store or of its own. */
static void pressure_comes_before_refusals(void **state)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .persistent_max = 8 * MIB };
	struct fixture f;

	fixture_open(&f, 32 * MIB, 0);
	pool_open(&f, 0, P);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 0);
	assert_in_range(put_until(&f, 1), 27 * MIB, 29 * MIB);
	assert_int_equal(stats_of(&f).puts_refused_limit, 0);
	assert_in_range(put_until(&f, 2), 31 * MIB, 33 * MIB);
	assert_true(stats_of(&f).puts_refused_limit > 0);
	fixture_close(&f);

	fixture_open(&f, 256 * MIB, 0);
	pool_open(&f, 0, P);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	assert_in_range(put_until(&f, 1), 13 * MIB / 2, 8 * MIB);
	assert_int_equal(stats_of(&f).puts_refused_limit, 0);
	put_until(&f, 2);
	assert_true(stats_of(&f).puts_refused_limit > 0);
	fixture_close(&f);
}

static void pressure_from_outside(void **state)
{
	struct fixture f;

	open_in_cgroup(&f, 64 * MIB);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 0);
	for (unsigned int level = 0; level <= 2; level++) {
		assert_int_equal(tmem_store_set_pressure(f.store, level), 0);
		assert_int_equal(tmem_tenant_pressure(f.tenant), level);
	}
	assert_int_equal(tmem_store_set_pressure(f.store, 3), -EINVAL);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 2);
	/* Its own is more. */
	fake("memory.current", "%lu\n", 255 * MIB);
	assert_int_equal(put(&f, 0, 1, 0, 3), TMEM_PAGE_REFUSED);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 3);
	fake("memory.current", "%lu\n", 64 * MIB);
	usleep(10000);
	tmem_step(f.store, 100);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 2);
	assert_int_equal(tmem_store_set_pressure(f.store, 0), 0);
	assert_int_equal(tmem_tenant_pressure(f.tenant), 0);
	fixture_close(&f);
}

/* --------------------------------------------------------- locked memory */

/* Exit status: of a put by a user who may lock @bytes; 98: no tenant. */
static int put_as_nobody(rlim_t bytes)
{
	const struct rlimit limit = { bytes, bytes };
	struct tmem_store_config config = { .size = sizeof(config),
					    .flags = TMEM_STORE_LOCK,
					    .max_bytes = 64 * MIB,
					    .cgroup_headroom = UINT64_MAX,
					    .host_headroom = UINT64_MAX };
	struct tmem_pool_params params = { P, 12 };
	struct tmem_limits limits = { .size = sizeof(limits) };
	uint64_t data[PAGE / 8];
	struct tmem_page page = { 0 };
	struct iovec iov = { data, PAGE };
	struct tmem_op op = { .verb = TMEM_PUT,
			      .count = 1,
			      .iov = &iov,
			      .iovcnt = 1,
			      .page = &page,
			      .page_size = PAGE };
	struct tmem_tenant *tenant;
	struct tmem_store *store;
	struct tmem_ctx *ctx;

	make_page(data, 3, PAGE);
	if (setrlimit(RLIMIT_MEMLOCK, &limit) || (!getuid() && setuid(65534)) ||
	    tmem_store_create(&config, &store))
		return 99;
	if (tmem_tenant_open(store, "nobody", &limits, &tenant) == -ENOMEM)
		return 98;
	if (tmem_ctx_create(store, &ctx) ||
	    tmem_pool_create(tenant, 0, &params, NULL) ||
	    tmem_submit(ctx, tenant, &op))
		return 99;
	tmem_ctx_destroy(ctx);
	tmem_tenant_drop(tenant);
	tmem_store_destroy(store);
	return page.status;
}

/* Pages that must not be swapped are refused where they cannot be locked. */
static void put_with_lock_limit(rlim_t bytes, int expected)
{
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(put_as_nobody(bytes));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), expected);
}

/* Pages that may go do, however little is too much, and whatever is freed first. */
static void lower_limit_is_kept_to_the_byte(void **state)
{
	struct fixture f;

	fixture_open(&f, 64 * MIB, 0);
	pool_open(&f, 1, 0);
	for (uint64_t i = 0; i < 40000; i++)
		put(&f, 1, i / 7, i % 7, i);
	for (unsigned int i = 0; i < 400; i++) {
		uint64_t max = held(&f) - 1 - i * 7919 % 50000;

		assert_int_equal(tmem_store_set_max(f.store, max), 0);
		assert_in_range(held(&f), 0, max);
	}
	assert_true(ephemeral_pages(&f) > 1000);
	fixture_close(&f);
}

/* What is read can be set: with another weight, say. */
static void limits_are_read_as_set(void **state)
{
	struct tmem_limits limits = { .size = sizeof(limits),
				      .ephemeral_max = UINT64_MAX };
	struct fixture f;

	fixture_open(&f, 16 * MIB, 0);
	pool_open(&f, 1, 0);
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	tmem_tenant_get_limits(f.tenant, &limits);
	assert_true(limits.ephemeral_max == UINT64_MAX);
	assert_true(limits.persistent_max == 16 * MIB);
	limits.weight = 7;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	assert_int_equal(put(&f, 1, 1, 0, 3), TMEM_PAGE_REFUSED);
	limits.ephemeral_max = 0;
	assert_int_equal(tmem_tenant_set_limits(f.tenant, &limits), 0);
	tmem_tenant_get_limits(f.tenant, &limits);
	assert_true(limits.ephemeral_max == 16 * MIB);
	assert_int_equal(limits.weight, 7);
	assert_int_equal(put(&f, 1, 1, 0, 3), TMEM_PAGE_OK);
	fixture_close(&f);
}

static void what_cannot_be_locked_is_refused(void **state)
{
	struct rlimit limit;

	put_with_lock_limit(0, 98);
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
	if (limit.rlim_max < 96 * MIB) {
		print_message("# the rest needs a hard limit of 96 MiB\n");
		return;
	}
	/* Two indexes, 16 MiB at a time, and not the 64 MiB for pages. */
	put_with_lock_limit(48 * MIB, TMEM_PAGE_REFUSED);
	put_with_lock_limit(96 * MIB, TMEM_PAGE_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(destroyed_pools_count),
		cmocka_unit_test(flushed_objects_count),
		cmocka_unit_test(flushed_objects_make_room),
		cmocka_unit_test(large_reservation_costs_what_it_says),
		cmocka_unit_test(ephemeral_leaves_the_reservation),
		cmocka_unit_test(ephemeral_leaves_others_reservation),
		cmocka_unit_test(ephemeral_index_leaves_the_reservation),
		cmocka_unit_test(sparse_index_may_be_refused),
		cmocka_unit_test(persistent_index_has_its_limit),
		cmocka_unit_test(ephemeral_makes_way),
		cmocka_unit_test(ephemeral_of_others_makes_way),
		cmocka_unit_test(evicted_pages_leave_no_index),
		cmocka_unit_test(lowered_ephemeral_limit_evicts),
		cmocka_unit_test(old_room_is_no_room),
		cmocka_unit_test(index_asks_the_host),
		cmocka_unit_test(hugetlb_pages_are_resident),
		cmocka_unit_test(a_full_node_is_a_full_host),
		cmocka_unit_test(pressure_ends),
		cmocka_unit_test(pressure_comes_before_refusals),
		cmocka_unit_test(pressure_from_outside),
		cmocka_unit_test(lower_limit_is_kept_to_the_byte),
		cmocka_unit_test(limits_are_read_as_set),
		cmocka_unit_test(what_cannot_be_locked_is_refused),
	};

	return RUN_IN_BOTH_LAYOUTS("store-limits", tests, remove_fakes);
}
