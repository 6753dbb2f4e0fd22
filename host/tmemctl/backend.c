// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A vhost-user-tmem, by its statistics: whoever connects is sent one object
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "json.h"

#define MEND "is it running, and is that its --stats-path?"

/* All that it sends, to be put; NULL, and why. */
static struct json_object *read_object(struct source *s, struct why *why)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *object = NULL;
	size_t bytes = 0;

	while (tokener && !object && bytes < JSON_MAX) {
		char text[16384];
		ssize_t got = recv(s->fd, text, sizeof(text), 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN && !source_wait(s, POLLIN))
			continue;
		if (got <= 0)
			break;
		bytes += got;
		object = json_tokener_parse_ex(tokener, text, got);
		if (json_tokener_get_error(tokener) != json_tokener_success &&
		    json_tokener_get_error(tokener) != json_tokener_continue)
			break;
	}
	if (tokener)
		json_tokener_free(tokener);
	if (!object)
		why_set(why,
			"--%s=%s: what is there sends no statistics; " MEND,
			s->option, s->path);
	return object;
}

static void take_lease(struct json_object *store, struct vm *vm)
{
	struct json_object *lease = json_member(store, "lease");

	if (!lease)
		return;
	vm->leased = json_number(lease, "leased_bytes");
	vm->target = json_number(lease, "target_bytes");
	vm->wanted = json_number(lease, "wanted_bytes");
}

static int take_vm(struct source *s, struct view *view, struct json_object *of,
		   struct json_object *alone, struct why *why)
{
	struct vm *vm = view_add(view);

	if (!vm)
		return why_set(why, "--%s=%s: more than %u VMs", s->option,
			       s->path, VIEW_MAX);
	vm_set_name(vm, "", json_text(of, "name"));
	vm->state = json_truth(of, "connected") == 1   ? "connected"
		    : json_truth(of, "connected") == 0 ? "disconnected"
						       : "unknown";
	vm->pid = s->pid;
	vm_set_age(vm);
	json_stats(of, '_', vm);
	vm->reserved = json_reservation(json_number(of, "persistent_reserved"));
	vm->pressure = json_number(of, "pressure");
	/* One VM's is all of the store; more share it. */
	if (alone)
		take_lease(alone, vm);
	return 0;
}

static int backend_read(struct source *s, struct view *view, struct why *why)
{
	struct json_object *object, *vms;
	size_t num;
	int error = 0;

	if (source_connect(s, SOCK_STREAM, "vhost-user-tmem there", MEND, why))
		return -1;
	object = read_object(s, why);
	source_close(s);
	if (!object)
		return -1;
	vms = json_member(object, "vms");
	if (!json_object_is_type(vms, json_type_array)) {
		json_object_put(object);
		return why_set(why,
			       "--%s=%s: what is there sends other JSON; " MEND,
			       s->option, s->path);
	}
	num = json_object_array_length(vms);
	for (size_t i = 0; i < num && !error; i++)
		error = take_vm(s, view, json_object_array_get_idx(vms, i),
				num == 1 ? json_member(object, "store") : NULL,
				why);
	json_object_put(object);
	return error;
}

static int backend_change(struct source *s, const struct vm *vm,
			  const struct change *change, struct why *why)
{
	return why_set(why,
		       "'%s': a vhost-user-tmem is changed by a broker alone: "
		       "start it with --lease=SOCKET, and ask by "
		       "--broker=SOCKET",
		       vm->name);
}

const struct source_ops backend_ops = { backend_read, backend_change };
