/* SPDX-License-Identifier: BSD-3-Clause */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "vector.h"

struct name {
	const char *name;
	unsigned int value;
};

static const struct name ops[] = {
	{ "create", VIRTIO_TMEM_OP_POOL_CREATE },
	{ "destroy", VIRTIO_TMEM_OP_POOL_DESTROY },
	{ "reset-all", VIRTIO_TMEM_OP_RESET_ALL },
	{ "put", VIRTIO_TMEM_OP_PUT },
	{ "get", VIRTIO_TMEM_OP_GET },
	{ "flush", VIRTIO_TMEM_OP_FLUSH },
	{ "flush-object", VIRTIO_TMEM_OP_FLUSH_OBJECT },
	{ "stats", VIRTIO_TMEM_OP_POOL_STATS },
	{ NULL, 0 },
};

static const struct name statuses[] = {
	{ "OK", VIRTIO_TMEM_S_OK },
	{ "NOSPC", VIRTIO_TMEM_S_NOSPC },
	{ "NOENT", VIRTIO_TMEM_S_NOENT },
	{ "IO", VIRTIO_TMEM_S_IO },
	{ "INVAL", VIRTIO_TMEM_S_INVAL },
	{ "PERM", VIRTIO_TMEM_S_PERM },
	{ "EXIST", VIRTIO_TMEM_S_EXIST },
	{ "UNSUPP", VIRTIO_TMEM_S_UNSUPP },
	{ NULL, 0 },
};

static const struct name flags[] = {
	{ "persistent", VIRTIO_TMEM_POOL_PERSISTENT },
	{ "shared", VIRTIO_TMEM_POOL_SHARED },
	{ "opaque", VIRTIO_TMEM_POOL_OPAQUE },
	{ "exclusive", VIRTIO_TMEM_GET_EXCLUSIVE },
	{ NULL, 0 },
};

static const char *const stats[] = {
	"held", "bytes",  "puts",    "refusals",
	"gets", "misses", "flushes", "evictions",
};

static const struct name *lookup(const struct name *names, const char *text)
{
	for (; names->name; names++)
		if (!strcmp(names->name, text))
			return names;
	return NULL;
}

/* --------------------------------------------------------------- contents */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

void vec_fill(const struct vec_data *data, void *page, size_t size)
{
	uint64_t word = 0, seed = mix(data->seed + 0x9e3779b97f4a7c15);

	for (size_t i = 0; i < size; i += sizeof(word)) {
		if (data->kind == VEC_RANDOM)
			word = mix(seed + i * 0x2545f4914f6cdd1d);
		else if (data->kind == VEC_TEXT)
			word = i % 64 ? 0x2074786574202061 : mix(seed + i);
		else if (data->kind == VEC_SAME)
			word = (seed & 0xffffffff) | seed << 32;
		memcpy((char *)page + i, &word, sizeof(word));
	}
}

/* ---------------------------------------------------------------- numbers */

static bool symbol(const char *name, size_t len,
		   const struct vec_context *context, uint64_t *value)
{
	const struct {
		const char *name;
		uint64_t value;
	} symbols[] = {
		{ "max_pages", context->config.max_pages },
		{ "max_pools", context->config.max_pools },
		{ "max_segs", context->config.max_segs },
		{ "reserved_pages",
		  context->config.persistent_reserved / 4096 },
	};

	for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++)
		if (strlen(symbols[i].name) == len &&
		    !strncmp(name, symbols[i].name, len)) {
			*value = symbols[i].value;
			return true;
		}
	return false;
}

const char *vec_number(const char *text, const struct vec_context *context,
		       uint64_t *value)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz_");
	char *end = (char *)text;

	if (len && symbol(text, len, context, value)) {
		end += len;
		if (*end == '+' || *end == '-')
			*value += strtoull(end, &end, 0);
	} else {
		*value = strtoull(text, &end, 0);
		if (end == text)
			return "not a number";
	}
	return *end ? "something behind a number" : NULL;
}

/* ------------------------------------------------------------------ lists */

/* One of a list of pages: r7, s7, 7, zero; or a row of them: r7..20. */
static const char *parse_data(char *text, struct vec_data **list, bool **any,
			      unsigned int *num)
{
	char *save, *item;

	*list = calloc(VEC_MAX_PAGES, sizeof(**list));
	if (any)
		*any = calloc(VEC_MAX_PAGES, sizeof(**any));
	for (item = strtok_r(text, ",", &save); item;
	     item = strtok_r(NULL, ",", &save)) {
		struct vec_data data = { VEC_TEXT, 0 };
		bool ignored = !strcmp(item, "any");
		uint64_t last;
		char *end = item;

		if (ignored || !strcmp(item, "zero")) {
			data.kind = VEC_ZERO;
			last = 0;
		} else {
			if (*item == 'r')
				data.kind = VEC_RANDOM;
			else if (*item == 's')
				data.kind = VEC_SAME;
			item += data.kind != VEC_TEXT;
			last = data.seed = strtoull(item, &end, 0);
			if (end == item)
				return "data: not a number";
			if (!strncmp(end, "..", 2))
				last = strtoull(end + 2, &end, 0);
			if (*end || last < data.seed)
				return "data: not a number or a row of them";
		}
		for (; data.seed <= last; data.seed++) {
			if (*num == VEC_MAX_PAGES)
				return "data: too many pages";
			if (any)
				(*any)[*num] = ignored;
			(*list)[(*num)++] = data;
		}
	}
	return NULL;
}

/* OK, or OK|NOENT: any of these. */
static const char *parse_statuses(char *text, vec_statuses *set)
{
	char *save, *item;

	*set = 0;
	for (item = strtok_r(text, "|", &save); item;
	     item = strtok_r(NULL, "|", &save)) {
		const struct name *name = lookup(statuses, item);

		if (!name)
			return "not a status";
		*set |= 1u << name->value;
	}
	return *set ? NULL : "a status is missing";
}

/* OK,NOENT*3: of each page, in order. */
static const char *parse_pages(char *text, struct vec_answer *answer)
{
	char *save, *item;

	answer->pages = calloc(VEC_MAX_PAGES, sizeof(*answer->pages));
	for (item = strtok_r(text, ",", &save); item;
	     item = strtok_r(NULL, ",", &save)) {
		char *star = strchr(item, '*');
		unsigned long times = star ? strtoul(star + 1, NULL, 0) : 1;
		const char *error;
		vec_statuses set;

		if (star)
			*star = 0;
		error = parse_statuses(item, &set);
		if (error)
			return error;
		if (answer->num_pages + times > VEC_MAX_PAGES)
			return "too many pages";
		while (times--)
			answer->pages[answer->num_pages++] = set;
	}
	return NULL;
}

/* ---------------------------------------------------------------- members */

static const char *parse_flags(char *text, uint16_t *value)
{
	char *save, *item;

	for (item = strtok_r(text, "|", &save); item;
	     item = strtok_r(NULL, "|", &save)) {
		const struct name *name = lookup(flags, item);
		char *end = item;

		*value |= name ? name->value : strtoul(item, &end, 0);
		if (!name && (end == item || *end))
			return "not a flag";
	}
	return NULL;
}

/* Text, or 0x and hexadecimal bytes. */
static const char *parse_bytes(const char *text, uint8_t *bytes, size_t size)
{
	size_t len = strlen(text);

	if (strncmp(text, "0x", 2)) {
		if (len > size)
			return "too long";
		memcpy(bytes, text, len);
		return NULL;
	}
	text += 2;
	if (len - 2 > 2 * size || len % 2)
		return "not so many bytes in hexadecimal";
	for (size_t i = 0; i < len / 2 - 1; i++) {
		char byte[3] = { text[2 * i], text[2 * i + 1] };

		if (!isxdigit((unsigned char)byte[0]) ||
		    !isxdigit((unsigned char)byte[1]))
			return "not hexadecimal";
		bytes[i] = strtoul(byte, NULL, 16);
	}
	return NULL;
}

/* +N and -N: relative to what is needed. */
static const char *parse_size(const char *text, long *value, bool *exact)
{
	char *end;

	*exact = *text != '+' && *text != '-';
	*value = strtol(text, &end, 0);
	return end == text || *end ? "not a number of bytes" : NULL;
}

/* fast, bulk, fast1, bulk2 */
static const char *parse_queue(const char *text,
			       const struct vec_context *context,
			       unsigned int *queue)
{
	bool fast = !strncmp(text, "fast", 4);
	unsigned int num =
		fast ? context->config.num_fast : context->config.num_bulk;
	unsigned long n = 0;

	if (!fast && strncmp(text, "bulk", 4))
		return "not a queue: fast or bulk, and a number";
	if (text[4])
		n = strtoul(text + 4, NULL, 0);
	if (n >= num)
		return "the device has no such queue";
	*queue = n + (fast ? 0 : context->config.num_fast);
	return NULL;
}

static const char *request_member(const char *key, char *value,
				  const struct vec_context *context,
				  struct vec_line *line)
{
	struct vec_request *r = &line->request;
	struct vec_answer *a = &line->answer;
	const char *error = NULL;
	uint64_t n = 0;

	if (!strcmp(key, "object"))
		return parse_bytes(value, r->object, sizeof(r->object));
	if (!strcmp(key, "reserved"))
		return parse_bytes(value, r->reserved, sizeof(r->reserved));
	if (!strcmp(key, "flags"))
		return parse_flags(value, &r->flags);
	/* Of a GET: what shall come. */
	if (!strcmp(key, "data") && r->op == VIRTIO_TMEM_OP_GET)
		return parse_data(value, &a->data, &a->data_any, &a->num_data);
	if (!strcmp(key, "data"))
		return parse_data(value, &r->data, NULL, &r->num_data);
	if (!strcmp(key, "queue"))
		return parse_queue(value, context, &r->queue);
	if (!strcmp(key, "out"))
		return parse_size(value, &r->out, &r->out_exact);
	if (!strcmp(key, "in"))
		return parse_size(value, &r->in, &r->in_exact);
	error = vec_number(value, context, &n);
	if (error)
		return error;
	if (!strcmp(key, "pool")) {
		r->pool = n;
	} else if (!strcmp(key, "index") || !strcmp(key, "shift")) {
		r->index = n;
	} else if (!strcmp(key, "count")) {
		r->count = n;
	} else if (!strcmp(key, "op")) {
		r->op = n;
	} else if (!strcmp(key, "divide")) {
		r->divided = true;
		r->division = n;
	} else {
		return "no such member of a request";
	}
	return NULL;
}

static const char *answer_member(const char *key, char *value,
				 const struct vec_context *context,
				 struct vec_answer *a)
{
	const char *error;
	uint64_t n = 0;

	if (!strcmp(key, "pages"))
		return parse_pages(value, a);
	error = vec_number(value, context, &n);
	if (error)
		return error;
	for (unsigned int i = 0; i < sizeof(stats) / sizeof(stats[0]); i++)
		if (!strcmp(key, stats[i])) {
			a->stats[i] = n;
			a->has_stats |= 1u << i;
			return NULL;
		}
	if (strcmp(key, "done"))
		return "no such member of an answer";
	a->done = n;
	a->has_done = true;
	return NULL;
}

/* ------------------------------------------------------------------- line */

/* What a driver would set, where the line is silent. */
static void complete(struct vec_line *line, bool has_count)
{
	struct vec_request *r = &line->request;

	if (has_count)
		return;
	if (r->op == VIRTIO_TMEM_OP_PUT)
		r->count = r->num_data;
	else if (r->op == VIRTIO_TMEM_OP_GET || r->op == VIRTIO_TMEM_OP_FLUSH)
		r->count = line->answer.num_data ? line->answer.num_data : 1;
}

const char *vec_parse(char *text, const struct vec_context *context,
		      struct vec_line *line)
{
	char *arrow = strstr(text, "->"), *save, *item;
	const struct name *op;
	const char *error = NULL;
	bool has_count = false;

	memset(line, 0, sizeof(*line));
	line->request.queue = context->config.num_fast;
	if (!arrow)
		return "no '->' and answer";
	*arrow = 0;
	item = strtok_r(text, " \t", &save);
	op = item ? lookup(ops, item) : NULL;
	if (op)
		line->request.op = op->value;
	else if (!item || strcmp(item, "request"))
		return "no such request or command";
	while (!error && (item = strtok_r(NULL, " \t", &save))) {
		char *equals = strchr(item, '=');

		if (!equals)
			return "not KEY=VALUE";
		*equals = 0;
		has_count |= !strcmp(item, "count");
		error = request_member(item, equals + 1, context, line);
	}
	if (error)
		return error;
	item = strtok_r(arrow + 2, " \t", &save);
	if (!item)
		return "no status behind '->'";
	if (!strcmp(item, "needs-reset"))
		line->answer.needs_reset = true;
	else
		error = parse_statuses(item, &line->answer.statuses);
	while (!error && (item = strtok_r(NULL, " \t", &save))) {
		char *equals = strchr(item, '=');

		if (!equals)
			return "not KEY=VALUE";
		*equals = 0;
		error = answer_member(item, equals + 1, context, &line->answer);
	}
	complete(line, has_count);
	return error;
}

void vec_free(struct vec_line *line)
{
	free(line->request.data);
	free(line->answer.pages);
	free(line->answer.data);
	free(line->answer.data_any);
}
