// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QEMU: its objects of type tmem-store, by its machine protocol
 *
 * docs/qemu.md has the properties.  A store's limit is its size; nobody but who
 * asks moves it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "json.h"

static struct json_object *at_path(const char *path, const char *property)
{
	struct json_object *arguments = json_object_new_object();

	json_object_object_add(arguments, "path", json_object_new_string(path));
	if (property)
		json_object_object_add(arguments, "property",
				       json_object_new_string(property));
	return arguments;
}

static struct json_object *get(struct source *s, const char *path,
			       const char *property, struct why *why)
{
	return qmp_do(s, "qom-get", at_path(path, property), why);
}

/* -1: it was not there, or of another type. */
static int get_number(struct source *s, const char *path, const char *property,
		      uint64_t *number, struct why *why)
{
	struct json_object *value = get(s, path, property, why);
	struct json_object *holder = json_object_new_object();

	json_object_object_add(holder, "value", value);
	*number = json_number(holder, "value");
	if (json_truth(holder, "value") >= 0)
		*number = json_truth(holder, "value");
	json_object_put(holder);
	return value ? 0 : -1;
}

/* ------------------------------------------------------------------ stores */

/* What is being looked for, and found. */
struct search {
	struct source *source;
	struct view *view;
	char prefix[64]; /* the guest's name, or "" */
	struct why *why;
};

static int add_store(struct search *search, const char *path, const char *name)
{
	struct source *s = search->source;
	struct vm *vm = view_add(search->view);
	struct json_object *stats;

	if (!vm)
		return why_set(search->why,
			       "--%s=%s: QEMU says that it has more than %u "
			       "stores",
			       s->option, s->path, VIEW_MAX);
	vm_set_name(vm, search->prefix, name);
	snprintf(vm->path, sizeof(vm->path), "%s", path);
	vm->state = "running";
	vm->pid = s->pid;
	vm_set_age(vm);
	stats = get(s, path, "stats", search->why);
	if (!stats)
		return -1;
	json_stats(stats, '-', vm);
	json_object_put(stats);
	if (get_number(s, path, "size", &vm->leased, search->why) ||
	    get_number(s, path, "reserved", &vm->reserved, search->why) ||
	    get_number(s, path, "frozen", &vm->frozen, search->why))
		return -1;
	vm->max = vm->target = vm->leased;
	/* By default it is what the size is enough for. */
	vm->reserved = vm->reserved ? json_reservation(vm->reserved) : UNKNOWN;
	return 0;
}

/*
 * Call @found for each child below @path whose type begins so.  0 also where
 * there is no such path.
 */
static int each_child(struct search *search, const char *path, const char *type,
		      int (*found)(struct search *search, const char *path,
				   const char *name, const char *type))
{
	struct json_object *list = qmp_do(search->source, "qom-list",
					  at_path(path, NULL), search->why);
	size_t num = json_object_is_type(list, json_type_array)
			     ? json_object_array_length(list)
			     : 0;
	int error = !list && search->source->fd < 0 ? -1 : 0;

	for (size_t i = 0; i < num && !error; i++) {
		struct json_object *child = json_object_array_get_idx(list, i);
		const char *name = json_text(child, "name");
		const char *its = json_text(child, "type");
		char at[256];

		if (strncmp(its, type, strlen(type)) ||
		    snprintf(at, sizeof(at), "%s/%s", path, name) >=
			    (int)sizeof(at))
			continue;
		error = found(search, at, name, its);
	}
	json_object_put(list);
	return error;
}

static int store_found(struct search *search, const char *path,
		       const char *name, const char *type)
{
	return add_store(search, path, name);
}

/* Of /machine/peripheral/DEVICE/...: it is called as its device is. */
static int own_store_found(struct search *search, const char *path,
			   const char *name, const char *type)
{
	const char *at = strchr(path + strlen("/machine/"), '/') + 1;
	char device[256];

	snprintf(device, sizeof(device), "%.*s", (int)strcspn(at, "/"), at);
	return add_store(search, path, device);
}

static int device_found(struct search *search, const char *path,
			const char *name, const char *type)
{
	char backend[300];

	snprintf(backend, sizeof(backend), "%s%s", path,
		 strstr(type, "pci") ? "/virtio-backend" : "");
	return each_child(search, backend, "child<tmem-store>",
			  own_store_found);
}

/* -name, if it was given. */
static int find_name(struct search *search)
{
	struct json_object *result =
		qmp_do(search->source, "query-name", NULL, search->why);

	if (!result)
		return search->source->fd < 0 ? -1 : 0;
	snprintf(search->prefix, sizeof(search->prefix), "%s",
		 json_text(result, "name"));
	json_object_put(result);
	return 0;
}

static int qemu_read(struct source *s, struct view *view, struct why *why)
{
	struct search search = { .source = s, .view = view, .why = why };

	if (qmp_connect(s, why) || find_name(&search) ||
	    each_child(&search, "/objects", "child<tmem-store>", store_found) ||
	    each_child(&search, "/machine/peripheral", "child<virtio-tmem",
		       device_found) ||
	    each_child(&search, "/machine/peripheral-anon", "child<virtio-tmem",
		       device_found))
		return -1;
	return 0;
}

/* ----------------------------------------------------------------- changes */

static int set(struct source *s, const struct vm *vm, const char *property,
	       struct json_object *value, struct why *why)
{
	struct json_object *arguments = at_path(vm->path, property), *result;
	struct why said = { "" };

	json_object_object_add(arguments, "value", value);
	result = qmp_do(s, "qom-set", arguments, &said);
	json_object_put(result);
	if (result)
		return 0;
	return s->fd < 0 ? why_set(why, "%s", said.text)
			 : why_set(why, "'%s': QEMU refuses: %s", vm->name,
				   said.text);
}

static int set_size(struct source *s, const struct vm *vm, uint64_t size,
		    struct why *why)
{
	char before[BYTES_TEXT], after[BYTES_TEXT];

	if (set(s, vm, "size", json_object_new_uint64(size), why))
		return -1;
	why_set(why, "'%s': its size is %s, it was %s", vm->name,
		bytes_text(size, after), bytes_text(vm->leased, before));
	return 0;
}

static int shrink(struct source *s, const struct vm *vm, uint64_t bytes,
		  struct why *why)
{
	char size[BYTES_TEXT];

	if (vm->leased == UNKNOWN || bytes >= vm->leased)
		return why_set(why,
			       "'%s': cannot shrink by %" PRIu64
			       " bytes: its size is %s",
			       vm->name, bytes, bytes_text(vm->leased, size));
	return set_size(s, vm, vm->leased - bytes, why);
}

static int freeze(struct source *s, const struct vm *vm, bool frozen,
		  struct why *why)
{
	if (set(s, vm, "frozen", json_object_new_boolean(frozen), why))
		return -1;
	if (frozen)
		why_set(why,
			"'%s': its guest's puts wait until 'tmemctl --qmp=%s "
			"thaw %s'",
			vm->name, s->path, vm->name);
	else
		why_set(why, "'%s': puts go on", vm->name);
	return 0;
}

static int qemu_change(struct source *s, const struct vm *vm,
		       const struct change *change, struct why *why)
{
	if (qmp_connect(s, why))
		return -1;
	switch (change->kind) {
	case CHANGE_LIMITS:
		if (change->weight)
			return why_set(why,
				       "'%s': --weight=%" PRIu64
				       ": a QEMU's store has none: leave it "
				       "out",
				       vm->name, change->weight);
		return set_size(s, vm, change->max, why);
	case CHANGE_FREEZE:
		return freeze(s, vm, change->frozen, why);
	default:
		return shrink(s, vm, change->bytes, why);
	}
}

const struct source_ops qemu_ops = { qemu_read, qemu_change };
