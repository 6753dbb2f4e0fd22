/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs test vectors.  Whatever a line says, each answer must also keep the laws
 * that hold for all of them: see check_laws().
 */
#include <endian.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "vector.h"

#define CANARY	     0xa5
#define MAX_BATCH    32
#define REQ	     sizeof(struct virtio_tmem_req)
#define RESP	     sizeof(struct virtio_tmem_resp)
#define KINDS	     (1u << VIRTIO_TMEM_F_PERSISTENT | 1u << VIRTIO_TMEM_F_EPHEMERAL)
#define ALL_FEATURES (KINDS | 1u << VIRTIO_TMEM_F_EVENTS)

/* A request on its way, and what came back. */
struct flight {
	struct vec_line line;
	struct conf_chain chain;
	uint8_t *out, *in;
	size_t out_size, in_size;
	unsigned int page_size;
	unsigned int number; /* of its line */
};

struct run {
	const struct conf_transport *t;
	conf_report *report;
	const char *path;
	unsigned int number; /* of the line */
	struct vec_context context;
	uint64_t features;
	struct virtio_tmem_config begin; /* at the beginning of the test */
	uint8_t shift[65536]; /* log2 of each pool's page size; 0: unknown */
	struct flight batch[MAX_BATCH];
	unsigned int num_batch;
	bool in_batch;
	bool malformed;
	bool skip;	   /* the rest of this test */
	char failure[512]; /* of this test; empty: none */
};

static bool fail(struct run *run, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Only the first failure of a test is told. */
static bool fail(struct run *run, const char *format, ...)
{
	size_t n;
	va_list ap;

	if (run->failure[0])
		return false;
	n = snprintf(run->failure, sizeof(run->failure), "%s:%u: ", run->path,
		     run->number);
	va_start(ap, format);
	vsnprintf(run->failure + n, sizeof(run->failure) - n, format, ap);
	va_end(ap);
	return false;
}

/* ----------------------------------------------------------------- device */

static void read_config(struct run *run)
{
	struct virtio_tmem_config *c = &run->context.config;

	run->t->config(run->t->opaque, c);
	c->generation = le32toh(c->generation);
	c->pressure = le32toh(c->pressure);
	c->num_fast = le16toh(c->num_fast);
	c->num_bulk = le16toh(c->num_bulk);
	c->max_pools = le32toh(c->max_pools);
	c->max_pages = le32toh(c->max_pages);
	c->max_segs = le32toh(c->max_segs);
	c->page_sizes = le32toh(c->page_sizes);
	c->codecs = le32toh(c->codecs);
	c->persistent_reserved = le64toh(c->persistent_reserved);
	c->persistent_max = le64toh(c->persistent_max);
	c->ephemeral_max = le64toh(c->ephemeral_max);
}

static bool start(struct run *run, uint64_t features)
{
	run->features = features;
	if (!run->t->start(run->t->opaque, features))
		return fail(run, "features 0x%llx are refused",
			    (unsigned long long)features);
	read_config(run);
	return true;
}

/* ------------------------------------------------------------------ sizes */

static unsigned int page_size(const struct run *run,
			      const struct vec_request *r)
{
	unsigned int shift = run->shift[r->pool & 0xffff];

	return 1u << (shift ? shift : VIRTIO_TMEM_PAGE_SHIFT_MIN);
}

/* Pages for which there is memory; more than that is refused anyway. */
static uint64_t pages_of(const struct run *run, const struct vec_request *r)
{
	uint64_t most = (uint64_t)run->context.config.max_pages + 1;

	return r->count < most ? r->count : most;
}

static size_t size_needed(const struct run *run, const struct vec_request *r,
			  bool writable)
{
	size_t pages = pages_of(run, r), data = pages * page_size(run, r);

	switch (r->op) {
	case VIRTIO_TMEM_OP_PUT:
		return writable ? RESP + 4 * pages : REQ + data;
	case VIRTIO_TMEM_OP_GET:
		return writable ? RESP + 4 * pages + data : REQ;
	case VIRTIO_TMEM_OP_POOL_STATS:
		return writable ? RESP + sizeof(struct virtio_tmem_pool_stats)
				: REQ;
	default:
		return writable ? RESP : REQ;
	}
}

static size_t size_asked(size_t needed, long n, bool exact)
{
	return exact ? (size_t)n : needed + n;
}

/* ------------------------------------------------------------------ chain */

/* Divide memory into descriptors of @piece bytes; the @most'th has the rest. */
static unsigned int divide(struct conf_seg *seg, uint8_t *base, size_t len,
			   size_t piece, unsigned int most)
{
	unsigned int num = 0;

	while (len) {
		size_t n = num + 1 == most || len < piece ? len : piece;

		seg[num++] = (struct conf_seg){ base, n };
		base += n;
		len -= n;
	}
	return num;
}

/*
 * One direction of a chain: as a driver would divide it, the header and what
 * follows it, or into pieces of one size.
 */
static unsigned int add_part(const struct run *run, const struct flight *f,
			     struct conf_seg *seg, bool writable)
{
	const struct vec_request *r = &f->line.request;
	uint8_t *base = writable ? f->in : f->out;
	size_t size = writable ? f->in_size : f->out_size;
	size_t head = writable ? RESP : REQ;
	unsigned int most = run->context.config.max_segs, num;

	if (most > run->t->max_segs)
		most = run->t->max_segs;
	if (most > CONF_MAX_SEGS)
		most = CONF_MAX_SEGS;
	/* A chain of three: one each way. */
	if (r->divided || most < 4)
		return divide(seg, base, size, r->division ? r->division : size,
			      most / 2);
	if (head > size)
		head = size;
	num = divide(seg, base, head, head, 1);
	return num + divide(seg + num, base + head, size - head, size, 1);
}

static void build(struct run *run, struct flight *f)
{
	const struct vec_request *r = &f->line.request;
	struct virtio_tmem_req req = {
		.op = htole16(r->op),
		.flags = htole16(r->flags),
		.pool = htole32(r->pool),
		.index = htole64(r->index),
		.count = htole64(r->count),
	};
	size_t needed = size_needed(run, r, false), room;

	memcpy(req.object, r->object, sizeof(req.object));
	memcpy(req.reserved, r->reserved, sizeof(req.reserved));
	f->page_size = page_size(run, r);
	f->out_size = size_asked(needed, r->out, r->out_exact);
	f->in_size = size_asked(size_needed(run, r, true), r->in, r->in_exact);
	room = f->out_size > needed ? f->out_size : needed;
	f->out = calloc(1, room + REQ);
	f->in = malloc(f->in_size + 1);
	memset(f->in, CANARY, f->in_size);
	memcpy(f->out, &req, REQ);
	for (unsigned int i = 0; i < r->num_data && i < pages_of(run, r); i++)
		vec_fill(&r->data[i], f->out + REQ + (size_t)i * f->page_size,
			 f->page_size);
	memset(&f->chain, 0, sizeof(f->chain));
	f->chain.queue = r->queue;
	f->chain.num_out = add_part(run, f, f->chain.seg, false);
	f->chain.num_in =
		add_part(run, f, f->chain.seg + f->chain.num_out, true);
}

static void flight_free(struct flight *f)
{
	free(f->out);
	free(f->in);
	vec_free(&f->line);
}

/* ----------------------------------------------------------------- answer */

struct reply {
	unsigned int status;
	uint64_t done;
	uint32_t used;
	const uint8_t *extra; /* behind the response */
	uint64_t pages;
};

static uint32_t page_word(const struct reply *a, uint64_t i)
{
	uint32_t word;

	memcpy(&word, a->extra + 4 * i, sizeof(word));
	return le32toh(word);
}

static unsigned int page_status(const struct reply *a, uint64_t i)
{
	return page_word(a, i) >> VIRTIO_TMEM_PAGE_STATUS_SHIFT;
}

static bool all(const uint8_t *bytes, size_t size, uint8_t value)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

static bool paged(const struct vec_request *r)
{
	return r->op == VIRTIO_TMEM_OP_PUT || r->op == VIRTIO_TMEM_OP_GET;
}

/* dev.op.used */
static size_t used_right(const struct flight *f, const struct reply *a)
{
	const struct vec_request *r = &f->line.request;
	uint64_t last = 0;

	if (a->status != VIRTIO_TMEM_S_OK)
		return RESP;
	if (r->op == VIRTIO_TMEM_OP_POOL_STATS)
		return RESP + sizeof(struct virtio_tmem_pool_stats);
	if (!paged(r))
		return RESP;
	for (uint64_t i = 0; i < a->pages; i++)
		if (page_status(a, i) == VIRTIO_TMEM_S_OK)
			last = i + 1;
	return RESP + 4 * a->pages +
	       (r->op == VIRTIO_TMEM_OP_GET ? last * f->page_size : 0);
}

/* dev.op.beyond, dev.op.written: canaries, or zeros for pages that were spoilt.
 */
static bool check_beyond(struct run *run, const struct flight *f,
			 const struct reply *a)
{
	for (size_t i = a->used; i < f->in_size; i++)
		if (f->in[i] != CANARY && f->in[i])
			return fail(run, "byte %zu was written, used length %u",
				    i, a->used);
	return true;
}

/* dev.op.page-status, dev.put.status, dev.get.status */
static bool check_pages(struct run *run, const struct flight *f,
			const struct reply *a)
{
	const struct vec_request *r = &f->line.request;
	const uint8_t *data = a->extra + 4 * a->pages;
	uint64_t ok = 0;

	for (uint64_t i = 0; i < a->pages; i++) {
		unsigned int status = page_status(a, i);
		const uint8_t *page = data + i * f->page_size;

		ok += status == VIRTIO_TMEM_S_OK;
		if (status != VIRTIO_TMEM_S_OK &&
		    page_word(a, i) & VIRTIO_TMEM_PAGE_LENGTH_MASK)
			return fail(run, "page %llu has status %u and a length",
				    (unsigned long long)i, status);
		if (r->op == VIRTIO_TMEM_OP_PUT) {
			if (status != VIRTIO_TMEM_S_OK &&
			    status != VIRTIO_TMEM_S_NOSPC)
				return fail(run, "put page has status %u",
					    status);
			continue;
		}
		if (status != VIRTIO_TMEM_S_OK &&
		    status != VIRTIO_TMEM_S_NOENT && status != VIRTIO_TMEM_S_IO)
			return fail(run, "got page has status %u", status);
		/* dev.get.gaps */
		if (status != VIRTIO_TMEM_S_OK &&
		    page + f->page_size <= f->in + a->used &&
		    !all(page, f->page_size, 0))
			return fail(run,
				    "page %llu was not found and is not "
				    "zeros",
				    (unsigned long long)i);
	}
	if (a->done != ok)
		return fail(run, "done is %llu, but %llu pages are OK",
			    (unsigned long long)a->done,
			    (unsigned long long)ok);
	return true;
}

/* dev.op.done */
static bool check_done(struct run *run, const struct flight *f,
		       const struct reply *a)
{
	const struct vec_request *r = &f->line.request;

	if (a->status != VIRTIO_TMEM_S_OK)
		return !a->done || fail(run, "status %u and done %llu",
					a->status, (unsigned long long)a->done);
	if (r->op == VIRTIO_TMEM_OP_FLUSH)
		/* dev.flush.some */
		return (a->done && a->done <= r->count) ||
		       fail(run, "done %llu of %llu",
			    (unsigned long long)a->done,
			    (unsigned long long)r->count);
	if (paged(r) || r->op == VIRTIO_TMEM_OP_POOL_CREATE)
		return true;
	return !a->done ||
	       fail(run, "done is %llu", (unsigned long long)a->done);
}

/* What every answer must keep. */
static bool check_laws(struct run *run, struct flight *f, struct reply *a)
{
	struct virtio_tmem_resp resp;

	/* dev.op.answer */
	if (!f->chain.used)
		return fail(run, "no answer");
	a->used = f->chain.used_len;
	if (a->used < RESP || a->used > f->in_size)
		return fail(run, "used length %u of %zu", a->used, f->in_size);
	memcpy(&resp, f->in, RESP);
	a->status = le16toh(resp.status);
	a->done = le64toh(resp.done);
	a->extra = f->in + RESP;
	a->pages = paged(&f->line.request) && a->status == VIRTIO_TMEM_S_OK
			   ? f->line.request.count
			   : 0;
	if (a->pages > run->context.config.max_pages)
		return fail(run, "OK for more than max_pages");
	/* dev.op.resp-flags */
	if (resp.flags)
		return fail(run, "flags of the response are set");
	read_config(run);
	/* dev.generation.same, dev.generation.config */
	if (le32toh(resp.generation) != run->context.config.generation)
		return fail(run,
			    "generation %u in the response, %u in the "
			    "configuration",
			    le32toh(resp.generation),
			    run->context.config.generation);
	if (a->pages && a->used < RESP + 4 * a->pages)
		return fail(run, "used length %u ends within page[]", a->used);
	if (a->used != used_right(f, a))
		return fail(run, "status %u, used length %u, not %zu",
			    a->status, a->used, used_right(f, a));
	return check_beyond(run, f, a) && check_done(run, f, a) &&
	       (!a->pages || check_pages(run, f, a));
}

/* ------------------------------------------------------------ expectations */

static bool check_stats(struct run *run, const struct vec_answer *want,
			const struct reply *a)
{
	for (unsigned int i = 0; i < 8; i++) {
		uint64_t value;

		memcpy(&value, a->extra + 8 * i, sizeof(value));
		value = le64toh(value);
		if (want->has_stats >> i & 1 && value != want->stats[i])
			return fail(run, "figure %u is %llu, not %llu", i,
				    (unsigned long long)value,
				    (unsigned long long)want->stats[i]);
	}
	return true;
}

static bool check_data(struct run *run, const struct flight *f,
		       const struct reply *a)
{
	const struct vec_answer *want = &f->line.answer;
	const uint8_t *data = a->extra + 4 * a->pages;
	bool same = true;
	uint8_t *page;

	page = malloc(f->page_size);
	for (unsigned int i = 0; i < want->num_data && same; i++) {
		if (want->data_any[i] || i >= a->pages ||
		    page_status(a, i) != VIRTIO_TMEM_S_OK)
			continue;
		vec_fill(&want->data[i], page, f->page_size);
		same = !memcmp(page, data + (size_t)i * f->page_size,
			       f->page_size);
		if (!same)
			fail(run, "page %u has other bytes", i);
	}
	free(page);
	return same;
}

static bool check_wanted(struct run *run, const struct flight *f,
			 const struct reply *a)
{
	const struct vec_answer *want = &f->line.answer;

	if (!(want->statuses >> a->status & 1))
		return fail(run, "status %u, not one of 0x%x", a->status,
			    want->statuses);
	if (want->has_done && a->done != want->done)
		return fail(run, "done is %llu, not %llu",
			    (unsigned long long)a->done,
			    (unsigned long long)want->done);
	if (a->status != VIRTIO_TMEM_S_OK)
		return true;
	if (want->pages && want->num_pages != a->pages)
		return fail(run, "%u statuses are wanted of %llu pages",
			    want->num_pages, (unsigned long long)a->pages);
	for (unsigned int i = 0; i < want->num_pages; i++)
		if (!(want->pages[i] >> page_status(a, i) & 1))
			return fail(run, "page %u has status %u", i,
				    page_status(a, i));
	if (f->line.request.op == VIRTIO_TMEM_OP_POOL_STATS)
		return check_stats(run, want, a);
	return check_data(run, f, a);
}

/* --------------------------------------------------------------- requests */

static bool check_answer(struct run *run, struct flight *f)
{
	const struct vec_request *r = &f->line.request;
	bool wanted = f->line.answer.needs_reset;
	struct reply a = { 0 };

	run->number = f->number;
	/* dev.op.needs-reset */
	if (run->t->needs_reset(run->t->opaque) != wanted)
		return fail(run, wanted ? "DEVICE_NEEDS_RESET is not set"
					: "DEVICE_NEEDS_RESET is set");
	if (wanted)
		return true;
	if (!check_laws(run, f, &a) || !check_wanted(run, f, &a))
		return false;
	if (r->op == VIRTIO_TMEM_OP_POOL_CREATE && a.status == VIRTIO_TMEM_S_OK)
		run->shift[r->pool & 0xffff] = r->index;
	return true;
}

static bool send_batch(struct run *run)
{
	struct conf_chain *chains[MAX_BATCH];
	unsigned int number = run->number;
	bool ok = true;

	for (unsigned int i = 0; i < run->num_batch; i++)
		chains[i] = &run->batch[i].chain;
	if (run->num_batch)
		run->t->submit(run->t->opaque, chains, run->num_batch);
	for (unsigned int i = 0; i < run->num_batch; i++)
		ok = ok && check_answer(run, &run->batch[i]);
	for (unsigned int i = 0; i < run->num_batch; i++)
		flight_free(&run->batch[i]);
	run->num_batch = 0;
	run->number = number;
	return ok;
}

/* Malformed: the vectors are wrong, not the device. */
static void malformed(struct run *run, const char *what)
{
	fprintf(stderr, "%s:%u: %s\n", run->path, run->number, what);
	run->malformed = true;
}

static bool send_line(struct run *run, char *text)
{
	struct flight *f = &run->batch[run->num_batch];
	const char *error = vec_parse(text, &run->context, &f->line);

	if (!error && run->num_batch + 1 == MAX_BATCH)
		error = "too many requests in a batch";
	if (error) {
		vec_free(&f->line);
		malformed(run, error);
		return false;
	}
	f->number = run->number;
	build(run, f);
	run->num_batch++;
	return run->in_batch || send_batch(run);
}

/* A line made here: not in a batch. */
static bool say(struct run *run, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static bool say(struct run *run, const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return send_line(run, text);
}

/* --------------------------------------------------------------- commands */

/*
 * overfill POOL PAGES SEED: put so many incompressible pages, which the device
 * need not take, and again with other bytes; a page that was refused must not
 * be there, one that was accepted must be the newer one.
 */
static bool overfill(struct run *run, unsigned int pool, uint64_t pages,
		     bool all_accepted)
{
	uint64_t refused = 0;
	uint8_t *took = calloc(1, pages);
	bool ok = true;

	for (unsigned int round = 1; round <= 2; round++) {
		for (uint64_t i = 0; i < pages && ok; i++) {
			struct flight *f = &run->batch[0];

			run->in_batch =
				true; /* look at it before it is freed */
			ok = say(run,
				 "put pool=%u object=full index=%llu "
				 "data=r%llu -> OK",
				 pool, (unsigned long long)i,
				 (unsigned long long)(i * 2 + round * 1000003));
			run->in_batch = false;
			if (!ok)
				break;
			run->t->submit(run->t->opaque,
				       (struct conf_chain *[]){ &f->chain }, 1);
			ok = check_answer(run, f);
			took[i] = ok && f->in[RESP + 3] == VIRTIO_TMEM_S_OK;
			refused += !took[i];
			flight_free(f);
			run->num_batch = 0;
		}
		for (uint64_t i = 0; i < pages && ok; i++)
			ok = say(run,
				 "get pool=%u object=full index=%llu "
				 "data=r%llu -> OK pages=%s",
				 pool, (unsigned long long)i,
				 (unsigned long long)(i * 2 + round * 1000003),
				 took[i] ? "OK" : "NOENT");
	}
	free(took);
	if (ok && all_accepted && refused)
		return fail(run, "%llu pages were refused",
			    (unsigned long long)refused);
	if (ok && !all_accepted && !refused)
		return fail(run, "no page was refused");
	return ok;
}

static bool do_fill(struct run *run, char *save, bool all_accepted)
{
	char *pool = strtok_r(NULL, " \t", &save);
	char *pages = strtok_r(NULL, " \t", &save);
	uint64_t n[2] = { 0 };

	if (!pool || !pages || vec_number(pool, &run->context, &n[0]) ||
	    vec_number(pages, &run->context, &n[1])) {
		malformed(run, "fill POOL PAGES, overfill POOL PAGES");
		return false;
	}
	return overfill(run, n[0], n[1], all_accepted);
}

static bool config_field(const struct virtio_tmem_config *c, const char *name,
			 uint64_t *value)
{
	const struct {
		const char *name;
		uint64_t value;
	} fields[] = {
		{ "generation", c->generation },
		{ "pressure", c->pressure },
		{ "num_fast", c->num_fast },
		{ "num_bulk", c->num_bulk },
		{ "max_pools", c->max_pools },
		{ "max_pages", c->max_pages },
		{ "max_segs", c->max_segs },
		{ "page_sizes", c->page_sizes },
		{ "codecs", c->codecs },
		{ "persistent_reserved", c->persistent_reserved },
		{ "persistent_max", c->persistent_max },
		{ "ephemeral_max", c->ephemeral_max },
	};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (!strcmp(fields[i].name, name)) {
			*value = fields[i].value;
			return true;
		}
	return false;
}

/*
 * config FIELD at-least, at-most, within (bits) or has (a bit) VALUE; changed
 * or same: since the beginning of the test.  needs ...: else the rest is
 * skipped.
 */
static bool do_config(struct run *run, const char *word, char *save)
{
	char *field = strtok_r(NULL, " \t", &save);
	char *op = strtok_r(NULL, " \t", &save);
	char *number = strtok_r(NULL, " \t", &save);
	uint64_t is, was, want = 0;
	bool ok = false;

	read_config(run);
	if (!field || !op || !config_field(&run->context.config, field, &is) ||
	    !config_field(&run->begin, field, &was) ||
	    (number && vec_number(number, &run->context, &want))) {
		malformed(run, "config FIELD OP VALUE");
		return false;
	}
	if (!strcmp(op, "at-least"))
		ok = is >= want;
	else if (!strcmp(op, "at-most"))
		ok = is <= want;
	else if (!strcmp(op, "within"))
		ok = !(is & ~want);
	else if (!strcmp(op, "has"))
		ok = want < 64 && is >> want & 1;
	else if (!strcmp(op, "changed"))
		ok = is != was;
	else if (!strcmp(op, "same"))
		ok = is == was;
	else
		malformed(run, "config: no such comparison");
	if (!strcmp(word, "needs")) {
		run->skip = !ok;
		return true;
	}
	return ok || fail(run, "%s is 0x%llx", field, (unsigned long long)is);
}

/* features NAME...: another negotiation; the rest of the test is skipped where
 * the device does not offer them. */
static bool do_features(struct run *run, char *save)
{
	static const char *const names[] = { "persistent", "ephemeral", NULL,
					     NULL, "events" };
	uint64_t features = 0;
	char *item;

	while ((item = strtok_r(NULL, " \t", &save))) {
		bool found = !strcmp(item, "none");

		for (unsigned int i = 0; i < 5; i++)
			if (names[i] && !strcmp(names[i], item)) {
				features |= 1ull << i;
				found = true;
			}
		if (!found) {
			malformed(run, "features: no such feature");
			return false;
		}
	}
	if (features & ~run->t->features(run->t->opaque)) {
		run->skip = true;
		return true;
	}
	return start(run, features);
}

/* offers: what may and must be offered, as the specification says */
static bool check_offer(struct run *run)
{
	uint64_t offered = run->t->features(run->t->opaque);

	if (!(offered & KINDS))
		return fail(run, "neither kind of pool is offered");
	if (offered & ~(uint64_t)ALL_FEATURES & 0xffffff)
		return fail(run, "features 0x%llx are offered",
			    (unsigned long long)offered);
	return true;
}

static bool do_line(struct run *run, char *text)
{
	char copy[1024], *save, *word;

	if (run->skip)
		return true;
	snprintf(copy, sizeof(copy), "%s", text);
	word = strtok_r(copy, " \t", &save);
	if (!strcmp(word, "reset"))
		return start(run, run->features);
	if (!strcmp(word, "features"))
		return do_features(run, save);
	if (!strcmp(word, "offers"))
		return check_offer(run);
	if (!strcmp(word, "config") || !strcmp(word, "needs"))
		return do_config(run, word, save);
	if (!strcmp(word, "fill"))
		return do_fill(run, save, true);
	if (!strcmp(word, "overfill"))
		return do_fill(run, save, false);
	if (!strcmp(word, "system-reset")) {
		if (!run->t->system_reset) {
			run->skip = true;
			return true;
		}
		run->t->system_reset(run->t->opaque);
		return start(run, run->features);
	}
	if (!strcmp(word, "batch") || !strcmp(word, "end")) {
		run->in_batch = !strcmp(word, "batch");
		return run->in_batch || send_batch(run);
	}
	return send_line(run, text);
}

/* ------------------------------------------------------------------- file */

static bool begin_test(struct run *run)
{
	run->failure[0] = 0;
	run->skip = false;
	run->in_batch = false;
	memset(run->shift, 0, sizeof(run->shift));
	if (!start(run, run->t->features(run->t->opaque) & ALL_FEATURES) ||
	    !say(run, "reset-all -> OK"))
		return false;
	run->begin = run->context.config;
	return true;
}

static void end_test(struct run *run, const char *name)
{
	run->in_batch = false;
	for (unsigned int i = 0; i < run->num_batch; i++)
		flight_free(&run->batch[i]);
	run->num_batch = 0;
	run->report(run->t->opaque, name, run->failure[0] ? run->failure : NULL,
		    run->skip && !run->failure[0]);
}

static bool run_lines(struct run *run, FILE *file)
{
	char line[1024], name[128] = "";

	while (!run->malformed && fgets(line, sizeof(line), file)) {
		char *text = line + strspn(line, " \t");

		run->number++;
		text[strcspn(text, "#\n")] = 0;
		if (!*text)
			continue;
		if (!strncmp(text, "test ", 5)) {
			if (*name)
				end_test(run, name);
			snprintf(name, sizeof(name), "%.*s",
				 (int)strcspn(text + 5, ":"), text + 5);
			begin_test(run);
		} else if (!*name) {
			malformed(run, "no 'test NAME:' before this");
		} else if (!run->failure[0]) {
			do_line(run, text);
		}
	}
	if (*name)
		end_test(run, name);
	return !run->malformed;
}

bool conf_run_file(const char *path, const struct conf_transport *transport,
		   conf_report *report)
{
	FILE *file = fopen(path, "r");
	struct run *run;
	bool ok;

	if (!file) {
		perror(path);
		return false;
	}
	run = calloc(1, sizeof(*run));
	run->t = transport;
	run->report = report;
	run->path = path;
	ok = run_lines(run, file);
	free(run);
	fclose(file);
	return ok;
}
