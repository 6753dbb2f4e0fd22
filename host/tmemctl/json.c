// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * JSON of others
 */
#include <stdio.h>
#include <string.h>

#include "json.h"

struct json_object *json_member(struct json_object *object, const char *name)
{
	struct json_object *member = NULL;

	if (json_object_is_type(object, json_type_object))
		json_object_object_get_ex(object, name, &member);
	return member;
}

const char *json_text(struct json_object *object, const char *name)
{
	struct json_object *member = json_member(object, name);

	return json_object_is_type(member, json_type_string)
		       ? json_object_get_string(member)
		       : "";
}

uint64_t json_number(struct json_object *object, const char *name)
{
	struct json_object *member = json_member(object, name);

	if (!json_object_is_type(member, json_type_int) ||
	    json_object_get_int64(member) < 0)
		return UNKNOWN;
	return json_object_get_uint64(member);
}

int json_truth(struct json_object *object, const char *name)
{
	struct json_object *member = json_member(object, name);

	return json_object_is_type(member, json_type_boolean)
		       ? json_object_get_boolean(member)
		       : -1;
}

/* ------------------------------------------------------------------ stats */

static uint64_t stat_of(struct json_object *stats, char separator,
			const char *name)
{
	char text[64];

	snprintf(text, sizeof(text), "%s", name);
	for (char *c = text; *c; c++)
		if (*c == '-')
			*c = separator;
	return json_number(stats, text);
}

/* UNKNOWN if one of them is. */
static uint64_t sum(uint64_t a, uint64_t b)
{
	return a == UNKNOWN || b == UNKNOWN || a + b < a ? UNKNOWN : a + b;
}

void json_stats(struct json_object *stats, char separator, struct vm *vm)
{
#define STAT(name) stat_of(stats, separator, name)
	vm->held = STAT("held-bytes");
	vm->reclaimable = STAT("reclaimable-bytes");
	if (vm->held != UNKNOWN && vm->reclaimable != UNKNOWN)
		vm->fixed = vm->held > vm->reclaimable
				    ? vm->held - vm->reclaimable
				    : 0;
	vm->persistent_raw = STAT("persistent-raw-bytes");
	vm->ephemeral_raw = STAT("ephemeral-raw-bytes");
	vm->stored = STAT("stored-bytes");
	vm->puts = STAT("puts");
	vm->gets = STAT("gets");
	vm->misses = STAT("misses");
	vm->refused = sum(STAT("puts-refused-limit"),
			  sum(STAT("puts-refused-memory"),
			      STAT("puts-refused-headroom")));
	vm->evictions = STAT("evictions");
	vm->refaults = STAT("refaults");
#undef STAT
}

uint64_t json_reservation(uint64_t raw)
{
	uint64_t extra = raw / 48 + (1ull << 20);

	if (!raw || raw == UNKNOWN)
		return raw;
	return raw > UNKNOWN - extra ? UNKNOWN : raw + extra;
}
