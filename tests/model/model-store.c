/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The store against a plain map: random ops, and after each of them everything
 * that the map knows must be true of the store.  Several tenants share a store
 * that is far too small; memory fails at random; limits change; pools of all
 * page sizes come and go.
 *
 * MODEL_SECONDS  how long (default 5)
 * MODEL_SEED     this sequence only; a failure prints its own
 *
 * A sequence that fails is cut down to a short one that still does.
 */
#include <stdlib.h>
#include <time.h>
#include "store-fixture.h"
#include "internal.h"

#define TENANTS	 3
#define POOLS	 4
#define OBJECTS	 4
#define OPS	 400
#define RUN	 4 /* pages of an op at most */
#define PENDING	 3 /* exclusive gets that were not settled yet */
#define MAX_PAGE (1u << TMEM_PAGE_SHIFT_MAX)

/* Where pages are: dense, at the borders of leaves, far apart, at the end. */
static const struct {
	uint64_t first;
	unsigned int count;
} places[] = {
	{ 0, 16 },
	{ 30, 4 },
	{ 1ull << 20, 4 },
	{ 1ull << 40, 4 },
	{ UINT64_MAX - 3, 4 },
};
#define CELLS 32

static uint64_t cell_index(unsigned int cell)
{
	for (unsigned int i = 0; i < sizeof(places) / sizeof(*places); i++) {
		if (cell < places[i].count)
			return places[i].first + cell;
		cell -= places[i].count;
	}
	abort();
}

/* ------------------------------------------------------------------- ops */

enum kind {
	PUT,
	GET,
	TAKE,
	SETTLE,
	FLUSH,
	FLUSH_ALL,
	CREATE,
	DESTROY,
	RESET,
	LIMITS,
	POOL_LIMITS,
	MAX,
	STEP,
	SHRINK,
	FREEZE,
	KINDS
};

static const struct {
	const char *name;
	unsigned int weight;
} kinds[KINDS] = {
	[PUT] = { "put", 40 },
	[GET] = { "get", 20 },
	[TAKE] = { "exclusive get", 8 },
	[SETTLE] = { "settle", 5 },
	[FLUSH] = { "flush", 6 },
	[FLUSH_ALL] = { "flush object", 2 },
	[CREATE] = { "create pool", 5 },
	[DESTROY] = { "destroy pool", 1 },
	[RESET] = { "reset tenant", 1 },
	[LIMITS] = { "tenant limits", 3 },
	[POOL_LIMITS] = { "pool limits", 3 },
	[MAX] = { "store limit", 2 },
	[STEP] = { "step", 5 },
	[SHRINK] = { "shrink", 2 },
	[FREEZE] = { "freeze", 1 },
};

/* All that an op does follows from this and from what was done before it. */
struct step {
	enum kind kind;
	unsigned int tenant, pool, object, cell, count;
	unsigned int fail_after; /* calls for memory that succeed; 0: all do */
	uint64_t random;
};

static uint64_t rng;

static uint64_t below(uint64_t n)
{
	rng = mix(rng);
	return rng % n;
}

/* So that ops meet one another at the same keys. */
static uint64_t often_low(uint64_t n)
{
	switch (below(4)) {
	case 0:
		return below(n);
	case 1:
		return below(MIN(n, 3));
	default:
		return 0;
	}
}

static struct step random_step(void)
{
	struct step s = { 0 };
	unsigned int total = 0, pick;

	for (unsigned int i = 0; i < KINDS; i++)
		total += kinds[i].weight;
	pick = below(total);
	while (pick >= kinds[s.kind].weight)
		pick -= kinds[s.kind++].weight;
	s.tenant = often_low(TENANTS);
	s.pool = often_low(POOLS);
	s.object = often_low(OBJECTS);
	s.cell = often_low(CELLS);
	s.count = 1 + below(RUN);
	s.fail_after = below(12) ? 0 : 1 + below(8);
	s.random = mix(rng);
	return s;
}

static void print_step(unsigned int number, const struct step *s)
{
	print_message("  %3u: %s tenant %u pool %u object %u index %#jx count "
		      "%u random %#jx%s\n",
		      number, kinds[s->kind].name, s->tenant, s->pool,
		      s->object, (uintmax_t)cell_index(s->cell), s->count,
		      (uintmax_t)s->random,
		      s->fail_after ? " memory fails" : "");
}

/* ----------------------------------------------------------------- model */

struct model_cell {
	uint64_t seed;	  /* of the page; 0: there is none */
	uint64_t version; /* changes whenever the key does */
};

struct model_pool {
	bool exists, persistent, opaque;
	unsigned int shift;
	struct model_cell cell[OBJECTS][CELLS];
};

/* An exclusive get whose result is on its way. */
struct pending {
	bool used;
	struct step step;
	struct tmem_op op;
	struct tmem_page page[RUN];
	struct model_cell before[RUN];
};

struct model {
	struct tmem_store *store;
	struct tmem_ctx *ctx;
	struct tmem_tenant *tenant[TENANTS];
	struct failing_memory memory;
	struct tmem_limits limits[TENANTS];
	struct tmem_pool_limits pool_limits[TENANTS][POOLS];
	bool frozen[TENANTS];
	uint64_t max_bytes, version;
	struct model_pool pool[TENANTS][POOLS];
	struct pending pending[PENDING];
	char fault[300];
};

static char buffer[RUN * MAX_PAGE], expected[MAX_PAGE];

#define EXPECT(m, condition, ...)                                              \
	do {                                                                   \
		if (!(condition) && !*(m)->fault)                              \
			snprintf((m)->fault, sizeof((m)->fault), __VA_ARGS__); \
	} while (0)

static struct model_pool *pool_of(struct model *m, const struct step *s)
{
	return &m->pool[s->tenant][s->pool];
}

static void cell_set(struct model *m, struct model_cell *cell, uint64_t seed)
{
	cell->seed = seed;
	cell->version = ++m->version;
}

static uint64_t model_raw_bytes(struct model *m, unsigned int tenant,
				unsigned int p)
{
	struct model_pool *pool = &m->pool[tenant][p];
	struct model_cell *cell = &pool->cell[0][0];
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < OBJECTS * CELLS; i++)
		if (pool->exists && pool->persistent && cell[i].seed)
			bytes += 1ull << pool->shift;
	return bytes;
}

/*
 * May a put that adds @size bytes to a pool not be refused?  @raw: what pools
 * have now.  What they have beyond their own must fit into what they share.
 */
static bool promised(struct model *m, const struct step *s,
		     const uint64_t raw[POOLS], uint64_t size)
{
	uint64_t shared = m->limits[s->tenant].persistent_reserved, beyond = 0;

	for (unsigned int p = 0; p < POOLS; p++) {
		uint64_t own = m->pool_limits[s->tenant][p].reserved;
		uint64_t after = raw[p] + (p == s->pool ? size : 0);

		shared -= own;
		beyond += after - MIN(after, own);
		if (p == s->pool && after <= own)
			return true;
	}
	return beyond <= shared;
}

/* Pages of a run from @cell on that lie side by side. */
static unsigned int run_length(const struct step *s)
{
	unsigned int n = 1;

	while (n < s->count && s->cell + n < CELLS &&
	       cell_index(s->cell + n) == cell_index(s->cell) + n)
		n++;
	return n;
}

/* The op that a step asks for; memory in three pieces of any length. */
static void op_init(struct model *m, const struct step *s, struct tmem_op *op,
		    struct iovec *iov, struct tmem_page *page)
{
	struct model_pool *pool = pool_of(m, s);
	uint64_t object = s->object * 0x100000001ull;
	unsigned int count = run_length(s);
	size_t size = pool->exists ? 1u << pool->shift : PAGE;
	size_t cut[2] = { s->random % (count * size + 1),
			  s->random / 7 % (count * size + 1) };

	memset(op, 0, sizeof(*op));
	memcpy(op->object + 16, &object, sizeof(object));
	op->pool = s->pool;
	op->index = cell_index(s->cell);
	op->count = count;
	op->page_size = size;
	op->page = page;
	if (s->random & 1)
		cut[0] = cut[1] = 0;
	if (cut[0] > cut[1])
		cut[1] = cut[0];
	iov[0] = (struct iovec){ buffer, cut[0] };
	iov[1] = (struct iovec){ buffer + cut[0], cut[1] - cut[0] };
	iov[2] = (struct iovec){ buffer + cut[1], count * size - cut[1] };
	op->iov = iov;
	op->iovcnt = 3;
}

/* -------------------------------------------------------------- transfers */

/* How many bytes of its page count. */
static uint32_t page_length(const struct model_pool *pool, uint64_t seed,
			    size_t size)
{
	return pool->opaque ? 1 + mix(seed) % size : size;
}

static void do_put(struct model *m, const struct step *s)
{
	struct model_pool *pool = pool_of(m, s);
	uint64_t raw[POOLS], seed[RUN];
	struct tmem_page page[RUN];
	struct iovec iov[3];
	struct tmem_op op;
	int error;

	for (unsigned int p = 0; p < POOLS; p++)
		raw[p] = model_raw_bytes(m, s->tenant, p);
	op_init(m, s, &op, iov, page);
	op.verb = TMEM_PUT;
	for (unsigned int i = 0; i < op.count; i++) {
		seed[i] = mix(s->random + i) | 1ull << 40;
		make_page(buffer + i * op.page_size, seed[i], op.page_size);
		page[i].length = page_length(pool, seed[i], op.page_size);
	}
	error = tmem_submit(m->ctx, m->tenant[s->tenant], &op);
	if (m->frozen[s->tenant] || !pool->exists) {
		EXPECT(m, error == (m->frozen[s->tenant] ? -EAGAIN : -ENOENT),
		       "put into no pool or a frozen tenant: %d", error);
		return;
	}
	EXPECT(m, !error, "put: %d", error);
	for (unsigned int i = 0; i < op.count && !error; i++) {
		struct model_cell *cell = &pool->cell[s->object][s->cell + i];
		bool ok = page[i].status == TMEM_PAGE_OK;
		uint64_t more = cell->seed ? 0 : op.page_size;

		EXPECT(m, ok || page[i].status == TMEM_PAGE_REFUSED,
		       "put: status %u", page[i].status);
		EXPECT(m,
		       ok || !pool->persistent || s->fail_after ||
			       !promised(m, s, raw, more),
		       "put refused with %ju bytes in the pool and %ju "
		       "reserved, %ju of them its own",
		       (uintmax_t)raw[s->pool],
		       (uintmax_t)m->limits[s->tenant].persistent_reserved,
		       (uintmax_t)m->pool_limits[s->tenant][s->pool].reserved);
		if (pool->persistent)
			raw[s->pool] += (ok ? op.page_size : 0) -
					(cell->seed ? op.page_size : 0);
		cell_set(m, cell, ok ? seed[i] : 0);
	}
}

static void check_page(struct model *m, struct model_pool *pool,
		       struct model_cell *cell, const struct tmem_page *page,
		       const char *data, size_t size)
{
	if (page->status == TMEM_PAGE_MISS) {
		EXPECT(m, !pool->persistent || !cell->seed,
		       "persistent page is lost");
		for (size_t i = 0; i < size; i++)
			EXPECT(m, data[i] == 0x5a, "a miss wrote something");
		/* Evicted: from here on it stays away. */
		if (cell->seed)
			cell_set(m, cell, 0);
		return;
	}
	EXPECT(m, page->status == TMEM_PAGE_OK, "get: status %u", page->status);
	EXPECT(m, cell->seed, "a page that is not there was found");
	make_page(expected, cell->seed, size);
	if (pool->opaque) {
		uint32_t length = page_length(pool, cell->seed, size);

		EXPECT(m, page->length == length, "%u bytes came of %u",
		       page->length, length);
		memset(expected + length, 0x5a, size - length);
	}
	EXPECT(m, !memcmp(data, expected, size), "a page has wrong bytes");
}

static void do_get(struct model *m, const struct step *s, struct pending *p)
{
	struct model_pool *pool = pool_of(m, s);
	struct tmem_page pages[RUN], *page = p ? p->page : pages;
	struct iovec iov[3];
	struct tmem_op op;
	int error;

	op_init(m, s, &op, iov, page);
	op.verb = TMEM_GET;
	op.flags = p ? TMEM_GET_EXCLUSIVE : 0;
	memset(buffer, 0x5a, op.count * op.page_size);
	error = tmem_submit(m->ctx, m->tenant[s->tenant], &op);
	if (!pool->exists || (p && pool->persistent)) {
		EXPECT(m, error == (pool->exists ? -EINVAL : -ENOENT),
		       "get that must fail: %d", error);
		return;
	}
	EXPECT(m, !error, "get: %d", error);
	for (unsigned int i = 0; i < op.count && !error; i++) {
		struct model_cell *cell = &pool->cell[s->object][s->cell + i];

		check_page(m, pool, cell, &page[i], buffer + i * op.page_size,
			   op.page_size);
		if (!p || page[i].status != TMEM_PAGE_OK)
			continue;
		p->before[i] = *cell;
		cell_set(m, cell, 0);
		p->before[i].version = cell->version;
	}
	if (!p || error)
		return;
	p->used = true;
	p->step = *s;
	p->op = op;
}

/* The result of an exclusive get arrived, or did not. */
static void do_settle(struct model *m, const struct step *s)
{
	struct pending *p = &m->pending[s->random % PENDING];
	bool back = s->random >> 8 & 1;
	struct model_pool *pool;

	if (!p->used)
		return;
	if (back)
		tmem_unretire(m->ctx, &p->op);
	else
		tmem_retire(m->ctx, &p->op);
	p->used = false;
	pool = pool_of(m, &p->step);
	for (unsigned int i = 0; i < p->op.count && back; i++) {
		struct model_cell *cell =
			&pool->cell[p->step.object][p->step.cell + i];

		/* Unless somebody has put, flushed, or ended it meanwhile. */
		if (p->page[i].status == TMEM_PAGE_OK &&
		    cell->version == p->before[i].version)
			cell_set(m, cell, p->before[i].seed);
	}
}

/* ------------------------------------------------------------ the others */

static void do_flush(struct model *m, const struct step *s)
{
	static const uint64_t counts[] = { 1, 2, 20, 1ull << 21, 1ull << 41 };
	struct model_pool *pool = pool_of(m, s);
	struct tmem_page page[RUN];
	struct iovec iov[3];
	struct tmem_op op;
	uint64_t last, left;

	op_init(m, s, &op, iov, page);
	op.verb = TMEM_FLUSH;
	left = s->random & 7 ? counts[s->random >> 8 & 3] : UINT64_MAX;
	left = left > UINT64_MAX - op.index ? UINT64_MAX - op.index + 1 : left;
	left += !left; /* 2^64 cannot be said */
	last = op.index + (left - 1);
	for (unsigned int i = 0; i < CELLS; i++)
		if (pool->exists && cell_index(i) >= op.index &&
		    cell_index(i) <= last)
			cell_set(m, &pool->cell[s->object][i], 0);
	while (left && !*m->fault) {
		int error;

		op.count = left;
		error = tmem_submit(m->ctx, m->tenant[s->tenant], &op);
		EXPECT(m, error == (pool->exists ? 0 : -ENOENT), "flush: %d",
		       error);
		if (error)
			break;
		EXPECT(m, op.done && op.done <= left, "flush did %ju of %ju",
		       (uintmax_t)op.done, (uintmax_t)left);
		op.index += op.done;
		left -= op.done;
	}
}

static void do_flush_all(struct model *m, const struct step *s)
{
	struct model_pool *pool = pool_of(m, s);
	struct tmem_page page[RUN];
	struct iovec iov[3];
	struct tmem_op op;
	int error;

	op_init(m, s, &op, iov, page);
	op.verb = TMEM_FLUSH_OBJECT;
	error = tmem_submit(m->ctx, m->tenant[s->tenant], &op);
	EXPECT(m, error == (pool->exists ? 0 : -ENOENT), "flush object: %d",
	       error);
	for (unsigned int i = 0; i < CELLS && pool->exists; i++)
		cell_set(m, &pool->cell[s->object][i], 0);
}

static void pool_clear(struct model *m, struct model_pool *pool)
{
	pool->exists = false;
	for (unsigned int o = 0; o < OBJECTS; o++)
		for (unsigned int i = 0; i < CELLS; i++)
			cell_set(m, &pool->cell[o][i], 0);
}

static void do_create(struct model *m, const struct step *s)
{
	struct model_pool *pool = pool_of(m, s);
	struct tmem_pool_params params = {
		.flags = (s->random & 1 ? TMEM_POOL_PERSISTENT : 0) |
			 (s->random & 12 ? 0 : TMEM_POOL_OPAQUE),
		.page_shift = TMEM_PAGE_SHIFT_MIN + (s->random >> 8) % 5,
	};
	bool same = pool->exists && pool->shift == params.page_shift &&
		    pool->persistent == (params.flags & TMEM_POOL_PERSISTENT) &&
		    pool->opaque == !!(params.flags & TMEM_POOL_OPAQUE);
	uint64_t held = 0, pages = 0;
	int error;

	error = tmem_pool_create(m->tenant[s->tenant], s->pool, &params, &held);
	if (error == -ENOMEM && s->fail_after)
		return;
	EXPECT(m, error == (pool->exists && !same ? -EEXIST : 0),
	       "pool create: %d", error);
	for (unsigned int i = 0; i < OBJECTS * CELLS; i++)
		pages += (&pool->cell[0][0])[i].seed != 0;
	if (!error && pool->exists)
		EXPECT(m, pool->persistent ? held == pages : true,
		       "pool create: %ju pages held, not %ju", (uintmax_t)held,
		       (uintmax_t)pages);
	if (error || pool->exists)
		return;
	EXPECT(m, !held, "a new pool has %ju pages", (uintmax_t)held);
	pool->exists = true;
	pool->shift = params.page_shift;
	pool->persistent = params.flags & TMEM_POOL_PERSISTENT;
	pool->opaque = params.flags & TMEM_POOL_OPAQUE;
}

static void do_destroy(struct model *m, const struct step *s)
{
	struct model_pool *pool = pool_of(m, s);
	int error = tmem_pool_destroy(m->tenant[s->tenant], s->pool);

	EXPECT(m, error == (pool->exists ? 0 : -ENOENT), "pool destroy: %d",
	       error);
	pool_clear(m, pool);
}

static void do_limits(struct model *m, const struct step *s)
{
	struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = s->random % 4 * 512 * 1024,
		.persistent_max = s->random >> 8 & 1 ? 3 * MIB : 0,
		.ephemeral_max = (s->random >> 9) % 3 * MIB,
	};
	int error;

	if ((s->random >> 16) % 16 == 0)
		limits.ephemeral_max = UINT64_MAX;
	error = tmem_tenant_set_limits(m->tenant[s->tenant], &limits);
	EXPECT(m, !error || error == -ENOSPC || error == -EINVAL,
	       "tenant limits: %d", error);
	if (!error)
		m->limits[s->tenant] = limits;
}

/* Of a pool that there is, or of one that there is not. */
static void do_pool_limits(struct model *m, const struct step *s)
{
	struct tmem_pool_limits limits = {
		.size = sizeof(limits),
		.reserved = s->random % 4 * 256 * 1024,
		.max_bytes = (s->random >> 9) % 3 * 64 * 1024,
		.weight = (s->random >> 20) % 400,
	};
	uint64_t sum = limits.reserved;
	struct tmem_stats stats = { .size = sizeof(stats) };
	int error;

	if ((s->random >> 16) % 16 == 0)
		limits.max_bytes = UINT64_MAX;
	for (unsigned int p = 0; p < POOLS; p++)
		if (p != s->pool)
			sum += m->pool_limits[s->tenant][p].reserved;
	error = tmem_pool_set_limits(m->tenant[s->tenant], s->pool, &limits);
	if (error == -ENOMEM && s->fail_after)
		return;
	EXPECT(m,
	       error == (sum > m->limits[s->tenant].persistent_reserved
				 ? -ENOSPC
				 : 0),
	       "pool limits: %d", error);
	if (error)
		return;
	m->pool_limits[s->tenant][s->pool] = limits;
	if (tmem_pool_stats(m->tenant[s->tenant], s->pool, &stats))
		return;
	/* Pages that a get has taken stay until it has its result. */
	for (unsigned int i = 0; i < PENDING; i++)
		if (m->pending[i].used)
			return;
	EXPECT(m,
	       pool_of(m, s)->persistent || !limits.max_bytes ||
		       (limits.max_bytes == UINT64_MAX
				? !stats.ephemeral_pages
				: stats.held_bytes <= limits.max_bytes),
	       "%ju bytes held beyond a pool's limit",
	       (uintmax_t)stats.held_bytes);
}

static void do_max(struct model *m, const struct step *s)
{
	uint64_t max = MIB + s->random % (8 * MIB), needed = 0;
	int error = tmem_store_set_max(m->store, max);

	for (unsigned int i = 0; i < TENANTS; i++)
		needed +=
			tmem_reservation_cost(m->limits[i].persistent_reserved);
	EXPECT(m, error == (max < needed ? -EINVAL : 0),
	       "store limit %ju with %ju needed: %d", (uintmax_t)max,
	       (uintmax_t)needed, error);
}

/* ------------------------------------------------------------- sequences */

static void do_step(struct model *m, const struct step *s)
{
	switch (s->kind) {
	case PUT:
		do_put(m, s);
		break;
	case GET:
		do_get(m, s, NULL);
		break;
	case TAKE: {
		struct pending *p = &m->pending[s->random % PENDING];

		if (!p->used)
			do_get(m, s, p);
		break;
	}
	case SETTLE:
		do_settle(m, s);
		break;
	case FLUSH:
		do_flush(m, s);
		break;
	case FLUSH_ALL:
		do_flush_all(m, s);
		break;
	case CREATE:
		do_create(m, s);
		break;
	case DESTROY:
		do_destroy(m, s);
		break;
	case RESET:
		tmem_tenant_reset(m->tenant[s->tenant]);
		for (unsigned int i = 0; i < POOLS; i++)
			pool_clear(m, &m->pool[s->tenant][i]);
		break;
	case LIMITS:
		do_limits(m, s);
		break;
	case POOL_LIMITS:
		do_pool_limits(m, s);
		break;
	case MAX:
		do_max(m, s);
		break;
	case STEP:
		tmem_step(m->store, 1 + s->random % 300);
		break;
	case SHRINK:
		tmem_shrink(m->store, s->random % (2 * MIB));
		break;
	case FREEZE:
		m->frozen[s->tenant] = s->random % 3 == 0;
		tmem_tenant_freeze(m->tenant[s->tenant], m->frozen[s->tenant]);
		break;
	case KINDS:
		break;
	}
}

static void check_all(struct model *m)
{
	char message[200];

	if (tmem_check(m->store, message, sizeof(message)))
		EXPECT(m, false, "tmem_check: %s", message);
	for (unsigned int i = 0; i < TENANTS; i++) {
		uint64_t raw = tmem_tenant_persistent_raw(m->tenant[i]);
		uint64_t put = 0;

		for (unsigned int p = 0; p < POOLS; p++)
			put += model_raw_bytes(m, i, p);
		EXPECT(m, raw == put,
		       "tenant %u: %ju raw bytes counted, %ju put", i,
		       (uintmax_t)raw, (uintmax_t)put);
	}
}

static void read_all(struct model *m)
{
	struct step s = { .kind = GET, .count = 1 };

	for (s.tenant = 0; s.tenant < TENANTS; s.tenant++)
		for (s.pool = 0; s.pool < POOLS; s.pool++)
			for (s.object = 0; s.object < OBJECTS; s.object++)
				for (s.cell = 0; s.cell < CELLS; s.cell++)
					do_get(m, &s, NULL);
}

/* Either layout of small tenants: by the seed. */
static uint32_t flags;

static void model_open(struct model *m)
{
	struct tmem_store_config config = {
		.size = sizeof(config),
		.flags = flags,
		.max_bytes = 6 * MIB,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
		.memory = &failing_ops,
		.memory_opaque = &m->memory,
		.recompress_percent = 100,
	};

	assert_int_equal(tmem_store_create(&config, &m->store), 0);
	m->store->recompress.after_s = 0;
	assert_int_equal(tmem_ctx_create(m->store, &m->ctx), 0);
	for (unsigned int i = 0; i < TENANTS; i++) {
		m->limits[i].size = sizeof(m->limits[i]);
		assert_int_equal(tmem_tenant_open(m->store, "model",
						  &m->limits[i], &m->tenant[i]),
				 0);
	}
}

static void model_close(struct model *m)
{
	for (unsigned int i = 0; i < TENANTS; i++)
		tmem_tenant_drop(m->tenant[i]);
	tmem_ctx_destroy(m->ctx);
	tmem_store_destroy(m->store);
	EXPECT(m, !atomic_load(&m->memory.live), "%ld allocations are left",
	       atomic_load(&m->memory.live));
}

/* Which step failed, or -1; @fault: why. */
static int run_steps(const struct step *steps, unsigned int n, char *fault,
		     size_t size)
{
	struct model *m = calloc(1, sizeof(*m));
	int failed = -1;

	model_open(m);
	for (unsigned int i = 0; i < n && failed < 0; i++) {
		if (steps[i].fail_after)
			m->memory.fail_at =
				m->memory.calls + steps[i].fail_after;
		do_step(m, &steps[i]);
		m->memory.fail_at = 0;
		check_all(m);
		if (*m->fault)
			failed = i;
	}
	if (failed < 0)
		read_all(m);
	model_close(m);
	if (*m->fault && failed < 0)
		failed = n;
	snprintf(fault, size, "%s", m->fault);
	free(m);
	return failed;
}

/* Leave out what is not needed for a failure: halves first, then single ops. */
static unsigned int shrink(struct step *steps, unsigned int n)
{
	struct step *trial = malloc(n * sizeof(*trial));
	char fault[300];

	for (unsigned int cut = n / 2; cut; cut /= 2) {
		for (unsigned int at = 0; at + cut <= n;) {
			memcpy(trial, steps, at * sizeof(*steps));
			memcpy(trial + at, steps + at + cut,
			       (n - at - cut) * sizeof(*steps));
			if (run_steps(trial, n - cut, fault, sizeof(fault)) <
			    0) {
				at += cut;
				continue;
			}
			n -= cut;
			memcpy(steps, trial, n * sizeof(*steps));
		}
	}
	free(trial);
	return n;
}

static void random_sequence(uint64_t seed)
{
	struct step *steps = malloc(OPS * sizeof(*steps));
	char fault[300];
	unsigned int n;
	int failed;

	rng = seed;
	flags = seed & 1 ? TMEM_STORE_SIZE_CLASSES : 0;
	for (unsigned int i = 0; i < OPS; i++) {
		steps[i] = random_step();
		if (i >= TENANTS * POOLS)
			continue;
		steps[i].kind = CREATE;
		steps[i].tenant = i / POOLS;
		steps[i].pool = i % POOLS;
	}
	failed = run_steps(steps, OPS, fault, sizeof(fault));
	if (failed >= 0) {
		print_message("MODEL_SEED=%ju: op %d: %s\n", (uintmax_t)seed,
			      failed, fault);
		n = shrink(steps, MIN((unsigned int)failed + 1, OPS));
		failed = run_steps(steps, n, fault, sizeof(fault));
		print_message("%u ops are enough: %s\n", n, fault);
		for (unsigned int i = 0; i < n; i++)
			print_step(i, &steps[i]);
		fail_msg("MODEL_SEED=%ju", (uintmax_t)seed);
	}
	free(steps);
}

static uint64_t environment(const char *name, uint64_t missing)
{
	const char *value = getenv(name);

	return value ? strtoull(value, NULL, 0) : missing;
}

static void random_sequences(void **state)
{
	uint64_t seconds = environment("MODEL_SECONDS", 5), rounds = 0;
	uint64_t seed = environment("MODEL_SEED", 0);
	struct timespec now;
	time_t end;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (seed) {
		random_sequence(seed);
		return;
	}
	seed = time(NULL) * 1000003ull + now.tv_nsec;
	print_message("# first MODEL_SEED=%ju\n", (uintmax_t)seed);
	for (end = now.tv_sec + seconds; now.tv_sec < end; rounds++) {
		random_sequence(seed++);
		clock_gettime(CLOCK_MONOTONIC, &now);
	}
	print_message("# %ju sequences of %u ops\n", (uintmax_t)rounds, OPS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_sequences),
	};

	return cmocka_run_group_tests_name("model-store", tests, NULL, NULL);
}
