// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * top: who holds, wants and gives
 */
#include <inttypes.h>
#include <poll.h>
#include <string.h>

#include "options.h"
#include "report.h"
#include "screen.h"

/* Columns of the table; what is left of a line is the bar. */
#define NAME_COLS 14
#define BAR_AT	  (NAME_COLS + 48)
#define BAR_MIN	  10
/* Lines above the table's stores, and below them. */
#define HEAD_ROWS 5
#define FOOT_ROWS 2

struct top {
	struct options *options;
	struct view before, now; /* two looks: rates are what is between */
	struct why why;
	bool failed;	    /* the last look */
	unsigned int first; /* line of the table */
	struct canvas canvas;
};

/* ------------------------------------------------------------------- bars */

/* What is drawn of a store, in bytes; all are parts of the same scale. */
struct bar {
	uint64_t held, leased, target, wanted;
};

static unsigned int cells(uint64_t bytes, uint64_t scale, unsigned int width)
{
	if (!scale || bytes == UNKNOWN)
		return 0;
	if (bytes >= scale)
		return width;
	return (unsigned int)((double)bytes / (double)scale * width + 0.5);
}

/* [####===>>>   ]: held, leased, wanted; < is what it gives. */
static void draw_bar(struct canvas *c, unsigned int row, unsigned int col,
		     unsigned int width, const struct bar *bar, uint64_t scale)
{
	unsigned int inner = width - 2;
	unsigned int held = cells(bar->held, scale, inner);
	unsigned int leased = cells(bar->leased, scale, inner);
	unsigned int target = cells(bar->target, scale, inner);
	unsigned int wanted = cells(bar->wanted, scale, inner);

	canvas_text(c, row, col, ATTR_NONE, "[");
	canvas_text(c, row, col + width - 1, ATTR_NONE, "]");
	for (unsigned int i = 0; i < inner; i++) {
		bool gives = i < leased && i >= target;
		enum attr attr = gives	      ? ATTR_GIVES
				 : i < held   ? ATTR_HELD
				 : i < leased ? ATTR_IDLE
					      : ATTR_WANTS;
		const char *cell = gives	? "<"
				   : i < held	? "#"
				   : i < leased ? "="
				   : i < wanted ? ">"
						: " ";

		canvas_text(c, row, col + 1 + i, attr, "%s", cell);
	}
}

static uint64_t scale_of(const struct view *view)
{
	uint64_t scale = 1;

	for (unsigned int i = 0; i < view->num; i++) {
		const struct vm *vm = &view->vm[i];
		const uint64_t values[] = { vm->held, vm->leased, vm->wanted };

		for (unsigned int k = 0; k < 3; k++)
			if (values[k] != UNKNOWN && values[k] > scale)
				scale = values[k];
	}
	return scale;
}

/* ------------------------------------------------------------------ table */

static const struct vm *earlier(const struct top *top, const struct vm *vm)
{
	for (unsigned int i = 0; i < top->before.num; i++) {
		const struct vm *then = &top->before.vm[i];

		if (then->source == vm->source && then->pid == vm->pid &&
		    !strcmp(then->name, vm->name))
			return then;
	}
	return NULL;
}

/* A count's growth a second; "-": it is not known. */
static const char *rate_text(const struct top *top, const struct vm *vm,
			     size_t offset, char text[BYTES_TEXT])
{
	const struct member member = { NULL, offset };
	const struct vm *then = earlier(top, vm);
	uint64_t ms = top->now.at_ms - top->before.at_ms;
	uint64_t a, b;

	strcpy(text, "-");
	if (!then || !ms)
		return text;
	a = member_value(&member, then);
	b = member_value(&member, vm);
	if (a == UNKNOWN || b == UNKNOWN || b < a)
		return text;
	snprintf(text, BYTES_TEXT, "%.0f", (double)(b - a) * 1000 / (double)ms);
	return text;
}

static const char *gives_text(const struct vm *vm, char text[BYTES_TEXT])
{
	if (vm->leased == UNKNOWN || vm->target == UNKNOWN ||
	    vm->target >= vm->leased)
		return strcpy(text, "-");
	return bytes_text(vm->leased - vm->target, text);
}

/* More than it has; "-": nothing. */
static const char *wants_text(const struct vm *vm, char text[BYTES_TEXT])
{
	if (vm->wanted == UNKNOWN || vm->leased == UNKNOWN ||
	    vm->wanted <= vm->leased)
		return strcpy(text, "-");
	return bytes_text(vm->wanted - vm->leased, text);
}

static void draw_store(struct top *top, unsigned int row, const struct vm *vm,
		       uint64_t scale)
{
	struct canvas *c = &top->canvas;
	char held[BYTES_TEXT], leased[BYTES_TEXT], wants[BYTES_TEXT],
		gives[BYTES_TEXT], gets[BYTES_TEXT], lost[BYTES_TEXT],
		refused[BYTES_TEXT];
	const struct bar bar = { vm->held, vm->leased, vm->target, vm->wanted };

	canvas_text(c, row, 0, ATTR_NONE, "%.*s", NAME_COLS - 1, vm->name);
	canvas_text(c, row, NAME_COLS, ATTR_NONE, "%6s %6s %6s %6s %6s %6s %5s",
		    bytes_text(vm->held, held), bytes_text(vm->leased, leased),
		    wants_text(vm, wants), gives_text(vm, gives),
		    rate_text(top, vm, offsetof(struct vm, gets), gets),
		    rate_text(top, vm, offsetof(struct vm, refaults), lost),
		    rate_text(top, vm, offsetof(struct vm, refused), refused));
	if (!strcmp(vm->state, "absent") || !strcmp(vm->state, "waiting") ||
	    !strcmp(vm->state, "disconnected"))
		canvas_text(c, row, BAR_AT, ATTR_WRONG, "%s", vm->state);
	else if (c->cols >= BAR_AT + BAR_MIN)
		draw_bar(c, row, BAR_AT, c->cols - BAR_AT, &bar, scale);
	if (vm->frozen == 1)
		canvas_text(c, row, NAME_COLS - 1, ATTR_WRONG, "*");
}

static void draw_table(struct top *top)
{
	struct canvas *c = &top->canvas;
	unsigned int rows = c->rows > HEAD_ROWS + FOOT_ROWS
				    ? c->rows - HEAD_ROWS - FOOT_ROWS
				    : 0;
	unsigned int num = top->now.num;
	uint64_t scale = scale_of(&top->now);

	if (top->first + rows > num)
		top->first = num > rows ? num - rows : 0;
	canvas_text(c, HEAD_ROWS - 1, 0, ATTR_HEAD,
		    "%-*s%6s %6s %6s %6s %6s %6s %5s", NAME_COLS, "STORE",
		    "HELD", "LEASED", "WANTS", "GIVES", "HITS/s", "LOST/s",
		    "REF/s");
	for (unsigned int i = 0; i < rows && top->first + i < num; i++)
		draw_store(top, HEAD_ROWS + i, &top->now.vm[top->first + i],
			   scale);
	canvas_text(c, c->rows - 1, 0, ATTR_NONE,
		    "# held  = leased  > wants  < gives  * frozen");
	if (num > rows)
		canvas_text(c, c->rows - 1, 46, ATTR_HEAD, "%u-%u of %u: j, k",
			    top->first + 1, top->first + rows, num);
}

/* ------------------------------------------------------------------- head */

static void draw_host(struct top *top)
{
	const struct tmem_lease_host *h = &top->now.host;
	struct canvas *c = &top->canvas;
	const struct bar bar = { h->held, h->leased, h->leased, 0 };
	char held[BYTES_TEXT], leased[BYTES_TEXT], limit[BYTES_TEXT],
		reserved[BYTES_TEXT], available[BYTES_TEXT], budget[BYTES_TEXT];

	canvas_text(c, 1, 0, ATTR_NONE,
		    "held %s, leased %s of %s; reserved %s; host has %s "
		    "available",
		    bytes_text(h->held, held), bytes_text(h->leased, leased),
		    bytes_text(h->limit, limit),
		    bytes_text(h->reserved, reserved),
		    bytes_text(h->available, available));
	if (c->cols >= BAR_MIN)
		draw_bar(c, 2, 0, c->cols, &bar, h->limit);
	if (h->pressure)
		canvas_text(c, 3, 0, ATTR_WRONG,
			    "the host is short of memory: leases may be %s",
			    bytes_text(h->budget, budget));
	else if (h->grace_ms)
		canvas_text(c, 3, 0, ATTR_WRONG,
			    "waits %" PRIu64 " ms for stores of the broker "
			    "before",
			    h->grace_ms);
}

static void draw(struct top *top)
{
	const struct options *o = top->options;
	struct canvas *c = &top->canvas;
	uint64_t held = 0;
	char text[BYTES_TEXT];

	canvas_clear(c, top->now.num + HEAD_ROWS + FOOT_ROWS);
	canvas_text(c, 0, 0, ATTR_HEAD, "tmemctl --%s=%s%s: %u stores",
		    o->source[0].option, o->source[0].path,
		    o->num_sources > 1 ? " ..." : "", top->now.num);
	for (unsigned int i = 0; i < top->now.num; i++)
		if (top->now.vm[i].held != UNKNOWN)
			held += top->now.vm[i].held;
	if (top->now.has_host)
		draw_host(top);
	else
		canvas_text(c, 1, 0, ATTR_NONE, "held %s",
			    bytes_text(held, text));
	draw_table(top);
	if (top->failed)
		canvas_text(c, 3, 0, ATTR_WRONG, "%-*s", c->cols,
			    top->why.text);
	canvas_draw(c);
}

/* ------------------------------------------------------------------- loop */

/* What was seen last stays where somebody does not answer. */
static void look(struct top *top)
{
	struct view view = { 0 };

	top->failed = sources_read(top->options->source,
				   top->options->num_sources, &view, &top->why);
	if (top->failed && !view.num) {
		view_free(&view);
		return;
	}
	view_free(&top->before);
	top->before = top->now;
	top->now = view;
}

static bool take_event(struct top *top, enum screen_event event)
{
	if (event == SCREEN_QUIT)
		return false;
	if (event == SCREEN_UP && top->first)
		top->first--;
	else if (event == SCREEN_DOWN)
		top->first++;
	draw(top);
	return true;
}

/* Until the next look is due; false: it ends. */
static bool wait_until(struct top *top, uint64_t ms)
{
	for (;;) {
		uint64_t now = now_ms();
		enum screen_event event;

		if (now >= ms)
			return true;
		event = screen_wait(ms - now);
		if (event != SCREEN_NOTHING && !take_event(top, event))
			return false;
	}
}

/* Rates want two looks. */
static int print_once(struct top *top, uint64_t interval)
{
	poll(NULL, 0, interval);
	look(top);
	if (top->failed)
		fatal("%s", top->why.text);
	draw(top);
	return 0;
}

int command_top(struct options *o)
{
	static struct top top;
	uint64_t interval = o->interval * 1000, next;

	top.options = o;
	look(&top);
	/* Who begins wants to be told; who watches wants to go on watching. */
	if (top.failed)
		fatal("%s", top.why.text);
	if (o->once || !screen_open())
		return print_once(&top, interval);
	for (next = now_ms() + interval;; next += interval) {
		draw(&top);
		if (!wait_until(&top, next))
			break;
		look(&top);
		if (now_ms() > next + interval)
			next = now_ms();
	}
	screen_close();
	return 0;
}
