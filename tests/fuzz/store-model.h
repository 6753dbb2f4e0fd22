/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the fuzz targets of the store share: an input that is taken byte by
 * byte, and a tenant whose every key is known: what a get may say of it.
 */
#ifndef STORE_MODEL_H
#define STORE_MODEL_H

#include "store-fixture.h"

#define POOLS	5
#define OBJECTS 4
#define INDEXES 40
#define DENSE	32 /* of these lie in a row */
#define MAX_RUN 20
#define BUFFER	(256 * 1024)
/* Puts of one input; more of them find nothing more. */
#define MAX_PUTS 600

#define require(what, ...)                                                     \
	do {                                                                   \
		if (!(what)) {                                                 \
			fprintf(stderr, "store-model: " __VA_ARGS__);          \
			fprintf(stderr, "\n");                                 \
			abort();                                               \
		}                                                              \
	} while (0)

/* ------------------------------------------------------------------ input */

struct input {
	const uint8_t *at, *end;
};

static inline uint8_t take8(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static inline uint16_t take16(struct input *in)
{
	uint16_t low = take8(in);

	return low | take8(in) << 8;
}

/* ------------------------------------------------------------------ model */

enum known {
	KNOWN_NONE, /* a get misses */
	KNOWN_PAGE, /* it finds the page of key.seed */
	KNOWN_LOST, /* it is an error */
	KNOWN_ANY,  /* a miss, an error, or any page that was put there */
};

struct key {
	uint32_t seed;
	uint8_t known;
	bool touched; /* its stored bytes: an error, too, then */
};

struct model_pool {
	bool there;
	struct tmem_pool_params params;
};

struct model {
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_ctx *ctx;
	struct model_pool pool[POOLS];
	struct key key[POOLS][OBJECTS][INDEXES];
	struct {
		struct key *key;
		uint32_t seed;
	} put[MAX_PUTS];
	unsigned int puts;
	uint64_t promised; /* raw bytes */
	bool damaged;	   /* what is adopted may be anything */
};

static const struct tmem_pool_params model_params[POOLS] = {
	{ TMEM_POOL_PERSISTENT, 12 },
	{ TMEM_POOL_PERSISTENT, 13 },
	{ 0, 12 },
	{ TMEM_POOL_PERSISTENT, 16 },
	{ TMEM_POOL_PERSISTENT | TMEM_POOL_OPAQUE, 12 },
};

static inline uint64_t model_index(unsigned int i)
{
	static const uint64_t far[INDEXES - DENSE] = {
		32, 100, 2047, 2048, 5000, 1ull << 40, 1ull << 63, UINT64_MAX
	};

	return i < DENSE ? i : far[i - DENSE];
}

/* No two seeds make the same page; the low two bits are its kind. */
static inline void model_page(void *page, uint32_t seed, uint32_t size)
{
	static const uint8_t random[] = { 0, 4, 40, 64 }; /* of 64 words */
	uint64_t *word = page, fill = (uint32_t)mix(seed);

	fill |= fill << 32;
	for (uint32_t i = 0; i < size / 8; i++)
		word[i] = i % 64 < random[seed & 3]
				  ? mix((uint64_t)seed << 20 | i)
				  : fill;
}

static inline bool model_persistent(const struct model *m, unsigned int pool)
{
	return m->pool[pool].params.flags & TMEM_POOL_PERSISTENT;
}

/* How many bytes of its page count: of an opaque pool's any number. */
static inline uint32_t model_length(const struct tmem_pool_params *params,
				    uint32_t seed)
{
	uint32_t size = 1u << params->page_shift;

	return params->flags & TMEM_POOL_OPAQUE ? 1 + mix(seed) % size : size;
}

static inline void model_key_gone(struct key *key)
{
	key->known = KNOWN_NONE;
	key->touched = false;
}

static inline void model_pool_gone(struct model *m, unsigned int pool)
{
	for (unsigned int o = 0; o < OBJECTS; o++)
		for (unsigned int i = 0; i < INDEXES; i++)
			model_key_gone(&m->key[pool][o][i]);
}

static inline void model_check(struct model *m, const char *when)
{
	char message[200];

	require(!tmem_check(m->store, message, sizeof(message)), "%s: %s", when,
		message);
}

/* ------------------------------------------------------------------- ops */

/* Guest memory of a run, in pieces. */
struct guest {
	char data[BUFFER + 64];
	struct iovec iov[8];
};

/* @cut: where pieces begin, and what is skipped. */
static inline void guest_of_op(struct guest *guest, struct tmem_op *op,
			       uint64_t bytes, uint8_t cut)
{
	uint64_t skip = cut % 5, all = bytes + skip, at = 0;
	unsigned int pieces = 1 + cut / 5 % 8;

	for (unsigned int i = 0; i < pieces; i++) {
		uint64_t end = i + 1 == pieces
				       ? all
				       : MIN(at + (all / pieces | 3), all);

		guest->iov[i].iov_base = guest->data + at;
		guest->iov[i].iov_len = end - at;
		at = end;
	}
	op->iov = guest->iov;
	op->iovcnt = pieces;
	op->skip = skip;
}

/* What an input says of an op. */
struct place {
	unsigned int pool, object, first, count;
	uint8_t cut;
};

static inline struct place place_take(struct input *in)
{
	uint8_t where = take8(in);
	struct place place = { where % POOLS, where / POOLS % OBJECTS,
			       take8(in) % INDEXES, where / 16 + 1, 0 };

	place.cut = take8(in);
	return place;
}

static inline struct tmem_op op_at(const struct model *m,
				   const struct place *place, uint16_t verb)
{
	struct tmem_op op = {
		.verb = verb,
		.pool = place->pool,
		.object = { place->object, 7 },
		.index = model_index(place->first),
		.count = 1,
		.page_size = 1u << m->pool[place->pool].params.page_shift,
	};

	return op;
}

/* Pages of a run: it does not leave the row, nor the buffer. */
static inline unsigned int place_run(const struct model *m,
				     const struct place *place)
{
	uint32_t size = 1u << m->pool[place->pool].params.page_shift;

	if (place->first >= DENSE)
		return 1;
	return MIN(MIN(place->count, DENSE - place->first), BUFFER / size);
}

/* Does the op fail as it must, where it must? */
static inline bool model_failed(struct model *m, const struct tmem_op *op,
				int error)
{
	int expected = m->pool[op->pool].there ? 0 : -ENOENT;

	if (op->verb == TMEM_PUT && tmem_tenant_frozen(m->tenant))
		expected = -EAGAIN;
	require(error == expected, "verb %u: %d, not %d", op->verb, error,
		expected);
	return error;
}

static inline void model_accepted(struct model *m, struct key *key,
				  uint32_t seed)
{
	key->known = KNOWN_PAGE;
	key->seed = seed;
	key->touched = false;
	m->put[m->puts].key = key;
	m->put[m->puts++].seed = seed;
}

static inline void model_put(struct model *m, const struct place *place,
			     uint8_t kind)
{
	struct key *key = &m->key[place->pool][place->object][place->first];
	struct tmem_op op = op_at(m, place, TMEM_PUT);
	unsigned int count = place_run(m, place);
	struct tmem_page page[MAX_RUN];
	static struct guest guest;
	bool promised;

	if (m->puts + count > MAX_PUTS)
		return;
	guest_of_op(&guest, &op, (uint64_t)count * op.page_size, place->cut);
	for (unsigned int i = 0; i < count; i++) {
		uint32_t seed = (m->puts + i) * 4 + (kind >> i % 4 * 2 & 3);
		static uint64_t whole[BUFFER / 8];

		model_page(whole, seed, op.page_size);
		memcpy(guest.data + op.skip + i * op.page_size, whole,
		       op.page_size);
		page[i].length =
			model_length(&m->pool[place->pool].params, seed);
	}
	op.count = count;
	op.page = page;
	promised = model_persistent(m, place->pool) &&
		   tmem_tenant_persistent_raw(m->tenant) +
				   (uint64_t)count * op.page_size <=
			   m->promised;
	if (model_failed(m, &op, tmem_submit(m->ctx, m->tenant, &op)))
		return;
	for (unsigned int i = 0, base = m->puts; i < count; i++) {
		uint32_t seed = (base + i) * 4 + (kind >> i % 4 * 2 & 3);

		if (page[i].status == TMEM_PAGE_OK) {
			model_accepted(m, &key[i], seed);
			continue;
		}
		require(page[i].status == TMEM_PAGE_REFUSED, "put: status %u",
			page[i].status);
		require(!promised, "a put was refused that was promised");
		model_key_gone(&key[i]);
		m->puts++; /* no seed comes twice */
		m->put[m->puts - 1].key = NULL;
	}
}

/* @expected: what a get of that page leaves in memory that was all 0xa5. */
static inline void model_expect(const struct tmem_pool_params *params,
				uint32_t seed, void *expected)
{
	uint32_t length = model_length(params, seed);

	model_page(expected, seed, 1u << params->page_shift);
	memset((char *)expected + length, 0xa5,
	       (1u << params->page_shift) - length);
}

/* The page that a get returned is one that was put at that key. */
static inline void model_found(struct model *m, unsigned int pool,
			       struct key *key, const char *data)
{
	const struct tmem_pool_params *params = &m->pool[pool].params;
	uint32_t size = 1u << params->page_shift;
	static uint64_t expected[BUFFER / 8];

	if (key->known == KNOWN_PAGE) {
		model_expect(params, key->seed, expected);
		require(!memcmp(data, expected, size), "another page came");
		return;
	}
	require(key->known == KNOWN_ANY, "a page came where none is");
	for (unsigned int i = 0; i < m->puts; i++) {
		if (m->put[i].key != key)
			continue;
		model_expect(params, m->put[i].seed, expected);
		if (memcmp(data, expected, size))
			continue;
		key->known = KNOWN_PAGE;
		key->seed = m->put[i].seed;
		return;
	}
	require(false, "a page came that was never put there");
}

static inline void model_missed(struct key *key, bool persistent)
{
	require(!persistent || key->known == KNOWN_NONE ||
			key->known == KNOWN_ANY,
		"a page is lost");
	model_key_gone(key);
}

static inline void model_damaged(struct key *key)
{
	require(key->touched || key->known == KNOWN_LOST ||
			key->known == KNOWN_ANY,
		"a page is damaged that nobody has touched");
	if (key->known == KNOWN_ANY)
		key->known = KNOWN_LOST;
}

static inline void model_got(struct model *m, unsigned int pool,
			     struct key *key, const struct tmem_page *page,
			     const char *data, uint32_t size)
{
	switch (page->status) {
	case TMEM_PAGE_OK:
		model_found(m, pool, key, data);
		return;
	case TMEM_PAGE_IO:
		model_damaged(key);
		return;
	}
	require(page->status == TMEM_PAGE_MISS, "get: status %u", page->status);
	require(data[0] == (char)0xa5 && !memcmp(data, data + 1, size - 1),
		"a miss writes");
	model_missed(key, model_persistent(m, pool));
}

/* @how: of an ephemeral pool: 1, 2: exclusive, and it arrived, or did not. */
static inline void model_get(struct model *m, const struct place *place,
			     unsigned int how)
{
	struct key *key = &m->key[place->pool][place->object][place->first];
	struct tmem_op op = op_at(m, place, TMEM_GET);
	struct tmem_page page[MAX_RUN];
	static struct guest guest;

	op.count = place_run(m, place);
	guest_of_op(&guest, &op, op.count * op.page_size, place->cut);
	memset(guest.data, 0xa5, op.count * op.page_size + op.skip);
	op.page = page;
	if (how && !model_persistent(m, place->pool))
		op.flags = TMEM_GET_EXCLUSIVE;
	if (model_failed(m, &op, tmem_submit(m->ctx, m->tenant, &op)))
		return;
	for (unsigned int i = 0; i < op.count; i++) {
		model_got(m, place->pool, &key[i], &page[i],
			  guest.data + op.skip + i * op.page_size,
			  op.page_size);
		if (op.flags && how == 1)
			model_key_gone(&key[i]);
	}
	(how == 1 ? tmem_retire : tmem_unretire)(m->ctx, &op);
}

static inline void model_flush(struct model *m, const struct place *place,
			       bool all)
{
	struct key *key = m->key[place->pool][place->object];
	struct tmem_op op = op_at(m, place, TMEM_FLUSH);
	uint64_t last;

	op.count = all ? UINT64_MAX : 1u + place->cut;
	if (op.count - 1 > UINT64_MAX - op.index)
		op.count = UINT64_MAX - op.index + 1;
	last = op.index + (op.count - 1);
	if (model_failed(m, &op, tmem_submit(m->ctx, m->tenant, &op)))
		return;
	require(op.done == op.count, "a flush did not end");
	for (unsigned int i = 0; i < INDEXES; i++)
		if (model_index(i) >= op.index && model_index(i) <= last)
			model_key_gone(&key[i]);
}

static inline void model_flush_object(struct model *m,
				      const struct place *place)
{
	struct tmem_op op = op_at(m, place, TMEM_FLUSH_OBJECT);

	if (model_failed(m, &op, tmem_submit(m->ctx, m->tenant, &op)))
		return;
	for (unsigned int i = 0; i < INDEXES; i++)
		model_key_gone(&m->key[place->pool][place->object][i]);
}

/* A bad op is an error, whatever else it says, and nothing happens. */
static inline void model_bad(struct model *m, const struct place *place,
			     struct input *in)
{
	uint8_t how = take8(in), more = take8(in);
	struct tmem_op op = op_at(m, place, 1 + more % 2);
	struct tmem_page page[MAX_RUN];
	static struct guest guest;
	int error;

	guest_of_op(&guest, &op, op.page_size, place->cut);
	op.page = page;
	switch (how % 8) {
	case 0:
		op.verb = more % 6;
		op.flags = more | 2;
		break;
	case 1:
		op.verb = more % 4 ? TMEM_FLUSH_OBJECT + 1 + more : 0;
		break;
	case 2:
		op.verb = TMEM_PUT + more % 3;
		op.count = 0;
		break;
	case 3:
		op.count = TMEM_MAX_RUN + 1 + ((uint64_t)more << more % 64);
		break;
	case 4:
		op.page_size ^= 1u << more % 32;
		break;
	case 5:
		op.skip += more & 2 ? SIZE_MAX / 2 : (size_t)1;
		break;
	case 6:
		op.verb = TMEM_GET;
		op.flags = model_persistent(m, place->pool) ? 1 : 2;
		break;
	case 7:
		op.pool = POOLS - 1; /* the opaque one */
		op.verb = TMEM_PUT;
		page->length = more & 1 ? 0 : op.page_size + 1 + more;
		break;
	}
	error = tmem_submit(m->ctx, m->tenant, &op);
	require(error == -EINVAL || error == -ENOENT || error == -EAGAIN,
		"a bad op: %d", error);
}

static inline void model_pool_make(struct model *m, unsigned int pool)
{
	uint64_t held = 1;
	int error =
		tmem_pool_create(m->tenant, pool, &model_params[pool], &held);

	if (m->pool[pool].there) {
		require(!error || error == -EEXIST, "pool: %d", error);
		return;
	}
	require(!error && !held, "pool: %d, %ju pages", error, (uintmax_t)held);
	m->pool[pool].there = true;
	m->pool[pool].params = model_params[pool];
	model_pool_gone(m, pool);
}

static inline void model_pool_end(struct model *m, unsigned int pool)
{
	int error = tmem_pool_destroy(m->tenant, pool);

	require(error == (m->pool[pool].there ? 0 : -ENOENT), "pool's end: %d",
		error);
	m->pool[pool].there = false;
	model_pool_gone(m, pool);
}

/* Every key, once; of pages that take long and are not there, some. */
static inline void model_sweep(struct model *m)
{
	struct place place = { .count = 1 };

	for (unsigned int n = 0; n < POOLS * OBJECTS * INDEXES; n++) {
		place.pool = n / INDEXES / OBJECTS;
		place.object = n / INDEXES % OBJECTS;
		place.first = n % INDEXES;
		if (m->pool[place.pool].params.page_shift < 16 || !(n % 8) ||
		    m->key[place.pool][place.object][place.first].known)
			model_get(m, &place, 0);
	}
}

/* What ops of one tenant are in the input; false: it is another. */
static inline bool model_op(struct model *m, uint8_t what, struct input *in)
{
	struct place place;

	if (what >= 10)
		return false;
	place = place_take(in);
	switch (what) {
	case 0:
	case 1:
	case 2:
		model_put(m, &place, take8(in));
		break;
	case 3:
		model_get(m, &place, take8(in) % 3);
		break;
	case 4:
	case 5:
		model_flush(m, &place, what == 5);
		break;
	case 6:
		model_flush_object(m, &place);
		break;
	case 7:
		model_pool_end(m, place.pool);
		break;
	case 8:
		model_pool_make(m, place.pool);
		break;
	case 9:
		model_bad(m, &place, in);
		break;
	}
	return true;
}

/* ---------------------------------------------------------- birth, adoption */

static inline void model_open(struct model *m, struct tmem_store *store,
			      const char *name,
			      const struct tmem_limits *limits)
{
	memset(m, 0, sizeof(*m));
	m->store = store;
	require(!tmem_ctx_create(store, &m->ctx), "no context");
	require(!tmem_tenant_open(store, name, limits, &m->tenant),
		"no tenant");
	for (unsigned int p = 0; p < POOLS; p++)
		model_pool_make(m, p);
}

static inline void model_close(struct model *m)
{
	tmem_ctx_destroy(m->ctx);
	tmem_tenant_drop(m->tenant);
}

/* Descriptors that outlive the tenant, which has gone as if killed. */
static inline void model_detach(struct model *m, int fd[TMEM_TENANT_FDS])
{
	tmem_tenant_fds(m->tenant, fd);
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		fd[i] = dup(fd[i]);
	tmem_tenant_detach(m->tenant);
	m->tenant = NULL;
}

/* The tenant is another, of these memfds; ephemeral pages are gone. */
static inline void model_adopted(struct model *m, struct tmem_tenant *tenant)
{
	m->tenant = tenant;
	for (unsigned int p = 0; p < POOLS; p++) {
		struct model_pool *pool = &m->pool[p], before = *pool;

		pool->there = !tmem_pool_query(tenant, p, &pool->params);
		require(m->damaged || (pool->there == before.there &&
				       (!pool->there ||
					!memcmp(&pool->params, &before.params,
						sizeof(before.params)))),
			"pool %u is another", p);
		if (!pool->there || !model_persistent(m, p))
			model_pool_gone(m, p);
	}
	m->damaged = false;
}

#endif /* STORE_MODEL_H */
