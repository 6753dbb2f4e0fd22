// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * advise: two looks at the stores, and what is to be done with their memory
 */
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "advice.h"
#include "options.h"
#include "output.h"
#include "report.h"

static const struct vm *same_store(const struct view *view, const struct vm *vm)
{
	for (unsigned int i = 0; i < view->num; i++)
		if (view->vm[i].source == vm->source &&
		    !strcmp(view->vm[i].name, vm->name))
			return &view->vm[i];
	return NULL;
}

/* Of one that came meanwhile nothing is known but that. */
static void judge(const struct options *o, const struct view *before,
		  const struct view *now, const struct vm *vm,
		  struct advice *advice)
{
	const struct vm *then = o->seconds ? same_store(before, vm) : NULL;
	uint64_t since = vm->age_s == UNKNOWN ? 0 : vm->age_s * 1000;

	if (o->seconds && !then) {
		*advice = (struct advice){ .verdict = ADVICE_UNKNOWN };
		strcpy(advice->reason, "it has just come: too little to tell");
	} else {
		advise(then, vm, then ? now->at_ms - before->at_ms : since,
		       advice);
	}
}

static struct json_object *advice_json(const struct vm *vm,
				       const struct advice *a)
{
	struct json_object *object = json_object_new_object();

	output_text(object, "name", vm->name);
	output_text(object, "verdict", advice_word(a->verdict));
	output_number(object, "bytes", a->bytes);
	output_text(object, "reason", a->reason);
	output_number(object, "puts", a->puts);
	output_number(object, "gets", a->gets);
	output_number(object, "misses", a->misses);
	output_number(object, "refused", a->refused);
	output_number(object, "refaults", a->refaults);
	return object;
}

static void print_json(const struct options *o, const struct view *before,
		       const struct view *now)
{
	struct json_object *all = json_object_new_object();
	struct json_object *vms = json_object_new_array();

	output_number(all, "seconds", o->seconds);
	output_host(all, now);
	for (unsigned int i = 0; i < now->num; i++) {
		struct advice advice;

		judge(o, before, now, &now->vm[i], &advice);
		json_object_array_add(vms, advice_json(&now->vm[i], &advice));
	}
	json_object_object_add(all, "stores", vms);
	output_print(all);
}

static int longest_name(const struct view *view)
{
	size_t longest = 4;

	for (unsigned int i = 0; i < view->num; i++)
		if (strlen(view->vm[i].name) > longest)
			longest = strlen(view->vm[i].name);
	return longest;
}

/* Is there anything to give? */
static void print_host(const struct view *view)
{
	const struct tmem_lease_host *h = &view->host;
	char unleased[BYTES_TEXT], budget[BYTES_TEXT];

	if (!view->has_host)
		return;
	printf("host: %s of %s are not leased%s\n",
	       bytes_text(h->budget > h->leased ? h->budget - h->leased : 0,
			  unleased),
	       bytes_text(h->budget, budget),
	       h->pressure ? "; it is short of memory" : "");
}

static void print_text(const struct options *o, const struct view *before,
		       const struct view *now)
{
	int width = longest_name(now);

	for (unsigned int i = 0; i < now->num; i++) {
		char bytes[BYTES_TEXT] = "";
		struct advice a;

		judge(o, before, now, &now->vm[i], &a);
		if (a.bytes)
			bytes_text(a.bytes, bytes);
		printf("%-*s  %-7s %6s  %s\n", width, now->vm[i].name,
		       advice_word(a.verdict), bytes, a.reason);
	}
	print_host(now);
}

int command_advise(struct options *o)
{
	struct view before = { 0 }, now = { 0 };

	if (o->seconds) {
		options_view(o, &before);
		/* QEMU's other users may ask meanwhile. */
		for (unsigned int i = 0; i < o->num_sources; i++)
			source_close(&o->source[i]);
		poll(NULL, 0, o->seconds * 1000);
	}
	options_view(o, &now);
	if (o->json)
		print_json(o, &before, &now);
	else
		print_text(o, &before, &now);
	view_free(&before);
	view_free(&now);
	return 0;
}
