/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON of others: what is not there, or not what it should be, is UNKNOWN or
 * NULL, and never a mistake of ours
 */
#ifndef TMEMCTL_JSON_H
#define TMEMCTL_JSON_H

#include <json-c/json.h>

#include "source.h"

/* An answer is no longer than that. */
#define JSON_MAX (4u << 20)

struct json_object *json_member(struct json_object *object, const char *name);
/* A string's; "": it is none. */
const char *json_text(struct json_object *object, const char *name);
uint64_t json_number(struct json_object *object, const char *name);
/* -1: it is none. */
int json_truth(struct json_object *object, const char *name);

/*
 * The counters of a struct tmem_stats that was made JSON of: @separator is what
 * its names have between words, '-' in QEMU and '_' in vhost-user-tmem.
 */
void json_stats(struct json_object *stats, char separator, struct vm *vm);

/*
 * What a reservation of so many bytes of pages takes: libtmem's
 * tmem_reservation_cost(), which a test compares with this.
 */
uint64_t json_reservation(uint64_t raw);

/* A QEMU's machine protocol. */

/*
 * Carry out a command; @arguments are given up.  Its result, to be put; or
 * NULL, and why: then the connection has ended, but for what QEMU refused.
 */
struct json_object *qmp_do(struct source *source, const char *command,
			   struct json_object *arguments, struct why *why);
int qmp_connect(struct source *source, struct why *why);

#endif /* TMEMCTL_JSON_H */
