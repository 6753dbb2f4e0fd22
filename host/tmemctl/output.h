/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON for programs; docs/broker.md and tmemctl(1) have its members
 */
#ifndef TMEMCTL_OUTPUT_H
#define TMEMCTL_OUTPUT_H

#include <json-c/json.h>

#include "view.h"

/* null for UNKNOWN. */
void output_number(struct json_object *object, const char *name,
		   uint64_t value);
void output_text(struct json_object *object, const char *name,
		 const char *text);
/* The host's numbers; null without a broker. */
void output_host(struct json_object *object, const struct view *view);
/* Print @object, and give it up. */
void output_print(struct json_object *object);

#endif /* TMEMCTL_OUTPUT_H */
