// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * limits, freeze, thaw, shrink
 */
#include "options.h"
#include "report.h"

static int carry_out(struct options *o, const struct change *change)
{
	struct view view = { 0 };
	struct why why = { "" };
	struct source *source;
	struct vm *vm;

	if (sources_read(o->source, o->num_sources, &view, &why))
		fatal("%s", why.text);
	vm = options_find(&view, o->args[0]);
	source = &o->source[vm->source];
	source->deadline_ms = now_ms() + ANSWER_MS;
	why.text[0] = 0;
	if (source->ops->change(source, vm, change, &why))
		fatal("%s", why.text);
	printf("%s\n", why.text);
	view_free(&view);
	return 0;
}

int command_limits(struct options *o)
{
	return carry_out(o, &(struct change){ .kind = CHANGE_LIMITS,
					      .max = o->max,
					      .weight = o->weight });
}

int command_freeze(struct options *o)
{
	return carry_out(o, &(struct change){ .kind = CHANGE_FREEZE,
					      .frozen = true });
}

int command_thaw(struct options *o)
{
	return carry_out(o, &(struct change){ .kind = CHANGE_FREEZE });
}

int command_shrink(struct options *o)
{
	uint64_t bytes = option_bytes("BYTES=", o->args[1]);

	return carry_out(o, &(struct change){ .kind = CHANGE_SHRINK,
					      .bytes = bytes });
}
