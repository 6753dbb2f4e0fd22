// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * stats and names: all numbers, as text or JSON
 */
#include <inttypes.h>
#include <string.h>

#include "options.h"
#include "output.h"
#include "report.h"

/* ------------------------------------------------------------------- JSON */

void output_number(struct json_object *object, const char *name, uint64_t value)
{
	json_object_object_add(
		object, name,
		value == UNKNOWN ? NULL : json_object_new_uint64(value));
}

void output_text(struct json_object *object, const char *name, const char *text)
{
	json_object_object_add(object, name, json_object_new_string(text));
}

void output_host(struct json_object *object, const struct view *view)
{
	struct json_object *host = NULL;

	if (view->has_host) {
		host = json_object_new_object();
		for (unsigned int i = 0; i < num_host_members; i++)
			output_number(host, host_members[i].name,
				      member_value(&host_members[i],
						   &view->host));
	}
	json_object_object_add(object, "host", host);
}

void output_print(struct json_object *object)
{
	puts(json_object_to_json_string_ext(
		object,
		JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(object);
}

static void print_json(const struct view *view)
{
	struct json_object *all = json_object_new_object();
	struct json_object *vms = json_object_new_array();

	output_host(all, view);
	for (unsigned int i = 0; i < view->num; i++) {
		const struct vm *vm = &view->vm[i];
		struct json_object *object = json_object_new_object();

		output_text(object, "name", vm->name);
		output_text(object, "state", vm->state);
		for (unsigned int k = 0; k < num_vm_members; k++)
			output_number(object, vm_members[k].name,
				      member_value(&vm_members[k], vm));
		json_object_array_add(vms, object);
	}
	json_object_object_add(all, "stores", vms);
	output_print(all);
}

/* ------------------------------------------------------------------- text */

static void print_value(const char *who, const char *name, uint64_t value)
{
	if (value != UNKNOWN)
		printf("%s.%s=%" PRIu64 "\n", who, name, value);
}

static void print_text(const struct view *view)
{
	for (unsigned int i = 0; view->has_host && i < num_host_members; i++)
		print_value("host", host_members[i].name,
			    member_value(&host_members[i], &view->host));
	for (unsigned int i = 0; i < view->num; i++) {
		const struct vm *vm = &view->vm[i];
		char who[NAME_SIZE + 8];

		snprintf(who, sizeof(who), "store.%s", vm->name);
		printf("%s.state=%s\n", who, vm->state);
		for (unsigned int k = 0; k < num_vm_members; k++)
			print_value(who, vm_members[k].name,
				    member_value(&vm_members[k], vm));
	}
}

int command_stats(struct options *o)
{
	struct view view = { 0 };

	options_view(o, &view);
	if (o->json)
		print_json(&view);
	else
		print_text(&view);
	view_free(&view);
	return 0;
}

int command_names(struct options *o)
{
	struct view view = { 0 };

	options_view(o, &view);
	for (unsigned int i = 0; i < view.num; i++)
		puts(view.vm[i].name);
	view_free(&view);
	return 0;
}
