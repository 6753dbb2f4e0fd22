// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What there is
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "report.h"
#include "view.h"

#define VM(name)                                                               \
	{                                                                      \
#name, offsetof(struct vm, name)                               \
	}
#define HOST(name)                                                             \
	{                                                                      \
#name, offsetof(struct tmem_lease_host, name)                  \
	}

const struct member vm_members[] = {
	VM(pid),	   VM(uid),	VM(age_s),	 VM(frozen),
	VM(reserved),	   VM(max),	VM(weight),	 VM(benefit),
	VM(leased),	   VM(target),	VM(wanted),	 VM(evidence),
	VM(held),	   VM(fixed),	VM(reclaimable), VM(persistent_raw),
	VM(ephemeral_raw), VM(stored),	VM(puts),	 VM(gets),
	VM(misses),	   VM(refused), VM(evictions),	 VM(refaults),
	VM(pressure),
};
const unsigned int num_vm_members = sizeof(vm_members) / sizeof(vm_members[0]);

const struct member host_members[] = {
	HOST(generation), HOST(limit),	  HOST(budget),	   HOST(leased),
	HOST(reserved),	  HOST(held),	  HOST(available), HOST(headroom),
	HOST(pressure),	  HOST(grace_ms), HOST(stores),	   HOST(peers),
	HOST(grants),	  HOST(recalls),  HOST(overdue),   HOST(refused),
	HOST(lies),	  HOST(bad),	  HOST(throttled), HOST(backoff),
};
const unsigned int num_host_members =
	sizeof(host_members) / sizeof(host_members[0]);

struct vm *view_add(struct view *view)
{
	struct vm *vm;

	if (view->num == VIEW_MAX)
		return NULL;
	/* To powers of two. */
	if (!(view->num & (view->num - 1))) {
		unsigned int room = view->num ? 2 * view->num : 1;

		vm = realloc(view->vm, room * sizeof(*vm));
		if (!vm)
			fatal("no memory for %u stores", room);
		view->vm = vm;
	}
	vm = &view->vm[view->num++];
	memset(vm, 0, sizeof(*vm));
	vm->state = "unknown";
	for (unsigned int i = 0; i < num_vm_members; i++)
		*(uint64_t *)((char *)vm + vm_members[i].offset) = UNKNOWN;
	return vm;
}

void view_free(struct view *view)
{
	free(view->vm);
	*view = (struct view){ 0 };
}

struct vm *view_find(const struct view *view, const char *name, bool *several)
{
	struct vm *found = NULL;

	*several = false;
	for (unsigned int i = 0; i < view->num; i++) {
		struct vm *vm = &view->vm[i];
		const char *end = strrchr(vm->name, '/');

		if (strcmp(vm->name, name) && (!end || strcmp(end + 1, name)))
			continue;
		if (found) {
			*several = true;
			return NULL;
		}
		found = vm;
	}
	return found;
}

void vm_set_name(struct vm *vm, const char *prefix, const char *text)
{
	snprintf(vm->name, sizeof(vm->name), "%s%s%s", prefix,
		 *prefix ? "/" : "", text);
	for (char *c = vm->name; *c; c++)
		if (*c < '!' || *c > '~')
			*c = '_';
}

/* ------------------------------------------------------------------- time */

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

/* Member 22 of /proc/PID/stat: when it began, in ticks since the boot. */
static uint64_t started_ticks(uint64_t pid)
{
	char path[64], text[1024];
	uint64_t ticks = UNKNOWN;
	size_t length;
	FILE *file;
	char *at;

	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return UNKNOWN;
	length = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[length] = 0;
	/* The second is the program's name, which may have anything in it. */
	at = strrchr(text, ')');
	if (at && sscanf(at + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u "
			 "%*d %*d %*d %*d %*d %*d %" SCNu64,
			 &ticks) != 1)
		ticks = UNKNOWN;
	return ticks;
}

void vm_set_age(struct vm *vm)
{
	uint64_t ticks, hz = sysconf(_SC_CLK_TCK), now;
	struct timespec t;

	if (vm->pid == UNKNOWN || !vm->pid)
		return;
	ticks = started_ticks(vm->pid);
	clock_gettime(CLOCK_BOOTTIME, &t);
	now = t.tv_sec;
	if (ticks != UNKNOWN && ticks / hz <= now)
		vm->age_s = now - ticks / hz;
}

/* ------------------------------------------------------------------- text */

const char *bytes_text(uint64_t bytes, char text[BYTES_TEXT])
{
	static const char units[] = "KMGTPE";
	unsigned int unit = 0;
	double value = bytes;

	if (bytes == UNKNOWN)
		return strcpy(text, "-");
	if (bytes < 1024) {
		snprintf(text, BYTES_TEXT, "%" PRIu64, bytes);
		return text;
	}
	/* What rounds to 1024 of a unit is one of the next. */
	for (value /= 1024; value >= 1023.5; value /= 1024)
		unit++;
	snprintf(text, BYTES_TEXT, value < 9.95 ? "%.1f%c" : "%.0f%c", value,
		 units[unit]);
	return text;
}
