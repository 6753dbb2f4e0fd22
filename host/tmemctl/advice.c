// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What to do with a store's memory: advice.h says by what numbers
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "advice.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIB	  (1ull << 20)
/* tmem_tenant_pressure(): puts are refused as the host has no memory. */
#define PRESSURE_HOST 3

/* What is being judged. */
struct sample {
	const struct vm *then, *now;
	struct advice *advice;
	char when[40]; /* "in 10 s" */
	uint64_t ms;   /* 0: unknown */
	uint64_t asked, reads;
};

const char *advice_word(enum verdict verdict)
{
	static const char *const words[] = {
		[ADVICE_UNKNOWN] = "unknown", [ADVICE_GROW] = "grow",
		[ADVICE_KEEP] = "keep",	      [ADVICE_SHRINK] = "shrink",
		[ADVICE_REMOVE] = "remove",
	};

	return words[verdict];
}

/* Always true: it is decided. */
__attribute__((format(printf, 4, 5))) static bool
decide(struct sample *s, enum verdict verdict, uint64_t bytes,
       const char *format, ...)
{
	va_list ap;

	s->advice->verdict = verdict;
	s->advice->bytes = bytes;
	va_start(ap, format);
	vsnprintf(s->advice->reason, sizeof(s->advice->reason), format, ap);
	va_end(ap);
	return true;
}

/* ---------------------------------------------------------------- numbers */

static uint64_t known(uint64_t value)
{
	return value == UNKNOWN ? 0 : value;
}

static uint64_t minus(uint64_t a, uint64_t b)
{
	return a - MIN(a, b);
}

static bool is_part(uint64_t part, uint64_t of, unsigned int percent)
{
	return part && (double)part * 100 >= (double)of * percent;
}

static unsigned int percent(uint64_t part, uint64_t of)
{
	return of ? (unsigned int)((double)part * 100 / (double)of + 0.5) : 0;
}

/* Bytes of the host that a page takes, on the average of those that there are.
 */
static uint64_t page_cost(const struct vm *vm)
{
	uint64_t pages =
		(known(vm->persistent_raw) + known(vm->ephemeral_raw)) /
		ADVICE_PAGE;
	uint64_t cost = pages ? known(vm->stored) / pages : ADVICE_PAGE;

	return MAX(MIN(cost, ADVICE_PAGE), 64);
}

/* @pages more, in whole MiB, within 1 MiB and @most. */
static uint64_t room_for(const struct vm *vm, uint64_t pages, uint64_t most)
{
	double bytes = (double)pages * page_cost(vm);
	uint64_t whole = bytes < (double)most ? (uint64_t)bytes : most;

	return MAX((whole + MIB - 1) / MIB * MIB, MIB);
}

/*
 * A store knows one lost page for each 4 KiB that its ephemeral pages take; so
 * with that many pages more it had found all that are counted.
 */
static uint64_t ghost_reach(const struct vm *vm)
{
	uint64_t raw = known(vm->persistent_raw) + known(vm->ephemeral_raw);
	double part = raw ? (double)known(vm->ephemeral_raw) / raw : 0;
	double stored = known(vm->stored) * part;

	return (uint64_t)(stored / ADVICE_PAGE * page_cost(vm));
}

/* False: it went back. */
static bool difference(const struct sample *s, size_t member, uint64_t *result)
{
	struct member at = { NULL, member };
	uint64_t now = known(member_value(&at, s->now));
	uint64_t then = s->then ? known(member_value(&at, s->then)) : 0;

	*result = minus(now, then);
	return now >= then;
}

/* What was done in between; false: by two different processes. */
static bool compare(struct sample *s)
{
	struct advice *a = s->advice;
	bool good = !s->then || s->then->pid == s->now->pid;

	good &= difference(s, offsetof(struct vm, puts), &a->puts);
	good &= difference(s, offsetof(struct vm, gets), &a->gets);
	good &= difference(s, offsetof(struct vm, misses), &a->misses);
	good &= difference(s, offsetof(struct vm, refused), &a->refused);
	good &= difference(s, offsetof(struct vm, refaults), &a->refaults);
	s->reads = a->gets + a->misses;
	s->asked = s->reads + a->puts + a->refused;
	return good;
}

static void span_text(uint64_t seconds, char text[32])
{
	if (seconds >= 2 * 86400)
		snprintf(text, 32, "%" PRIu64 " d", seconds / 86400);
	else if (seconds >= 2 * 3600)
		snprintf(text, 32, "%" PRIu64 " h", seconds / 3600);
	else if (seconds >= 120)
		snprintf(text, 32, "%" PRIu64 " min", seconds / 60);
	else
		snprintf(text, 32, "%" PRIu64 " s", seconds);
}

static void set_when(struct sample *s, uint64_t ms)
{
	char span[32];

	span_text((ms + 500) / 1000, span);
	if (ms)
		snprintf(s->when, sizeof(s->when), "in %s", span);
	else
		strcpy(s->when, "since it began");
}

/* --------------------------------------------------------------- verdicts */

static bool is_connected(const struct vm *vm)
{
	return strcmp(vm->state, "waiting") && strcmp(vm->state, "absent") &&
	       strcmp(vm->state, "disconnected");
}

/* Nothing can be said of it. */
static bool says_nothing(struct sample *s)
{
	if (!is_connected(s->now))
		return decide(s, ADVICE_UNKNOWN, 0, "it is %s", s->now->state);
	if (!compare(s))
		return decide(s, ADVICE_UNKNOWN, 0,
			      "its process was restarted meanwhile");
	if (s->now->puts == UNKNOWN || s->now->gets == UNKNOWN ||
	    s->now->held == UNKNOWN)
		return decide(s, ADVICE_UNKNOWN, 0,
			      "it does not say what it does");
	return false;
}

/* Pages were refused.  A guest offers the same ones again: it is a bound. */
static bool was_refused(struct sample *s)
{
	const struct vm *vm = s->now;
	struct advice *a = s->advice;
	uint64_t offered = a->puts + a->refused;
	bool at_max = vm->leased != UNKNOWN && vm->max != UNKNOWN &&
		      vm->leased >= vm->max;
	uint64_t most = MAX(known(vm->leased), known(vm->held)) / 2;

	if (a->refused < ADVICE_LACKING ||
	    !is_part(a->refused, offered, ADVICE_REFUSED_PERCENT))
		return false;
	if (vm->pressure == PRESSURE_HOST)
		return decide(s, ADVICE_KEEP, 0,
			      "%" PRIu64 " of %" PRIu64 " puts refused %s, but "
			      "the host is short of memory: a larger lease "
			      "would not help",
			      a->refused, offered, s->when);
	return decide(s, ADVICE_GROW, room_for(vm, a->refused, most),
		      "%" PRIu64 " of %" PRIu64 " puts refused %s%s",
		      a->refused, offered, s->when,
		      at_max ? ": it is at its max" : "");
}

/* Pages were missed that more memory would have kept. */
static bool had_refaults(struct sample *s)
{
	struct advice *a = s->advice;
	uint64_t bytes;

	if (a->refaults < ADVICE_LACKING ||
	    !is_part(a->refaults, s->reads, ADVICE_REFAULT_PERCENT))
		return false;
	bytes = room_for(s->now, a->refaults, ghost_reach(s->now));
	return decide(s, ADVICE_GROW, bytes,
		      "%" PRIu64 " of %" PRIu64 " gets %s missed pages evicted "
		      "lately: hits %u %%, up to %u %% with more",
		      a->refaults, s->reads, s->when,
		      percent(a->gets, s->reads),
		      percent(a->gets + a->refaults, s->reads));
}

/* In all its life it was of no use, and nothing is in it that must be kept. */
static bool is_useless(struct sample *s)
{
	const struct vm *vm = s->now;
	uint64_t offered = known(vm->puts) + known(vm->refused);
	uint64_t bytes = vm->leased == UNKNOWN ? vm->held : vm->leased;
	char age[32];

	if (vm->age_s == UNKNOWN || vm->age_s < ADVICE_REMOVE_S ||
	    vm->persistent_raw)
		return false;
	span_text(vm->age_s, age);
	if (!offered)
		return decide(s, ADVICE_REMOVE, bytes,
			      "no page was put in %s, since its process began",
			      age);
	if (vm->puts >= ADVICE_REMOVE_PUTS && vm->gets < vm->puts / 100)
		return decide(s, ADVICE_REMOVE, bytes,
			      "%" PRIu64 " pages put and %" PRIu64
			      " got in %s, "
			      "since its process began",
			      vm->puts, vm->gets, age);
	return false;
}

/* Of a lease, what is neither used nor asked for. */
static bool is_idle(struct sample *s)
{
	const struct vm *vm = s->now, *then = s->then ? s->then : vm;
	uint64_t use, idle;
	char held[BYTES_TEXT], leased[BYTES_TEXT];

	if (s->ms < ADVICE_IDLE_MS || vm->leased == UNKNOWN ||
	    vm->reserved == UNKNOWN || known(vm->wanted) > vm->leased ||
	    vm->held > known(then->held) + known(then->held) / 16)
		return false;
	use = MAX(vm->reserved, vm->held + vm->held / 8 + MIB);
	idle = minus(vm->leased, use) / MIB * MIB;
	if (idle < ADVICE_IDLE_BYTES || idle < vm->leased / ADVICE_IDLE_PART)
		return false;
	return decide(s, ADVICE_SHRINK, idle,
		      "it holds %s of %s, did not grow %s, and wants no more",
		      bytes_text(vm->held, held),
		      bytes_text(vm->leased, leased), s->when);
}

/* Ephemeral pages that hardly anybody gets. */
static bool is_cold(struct sample *s)
{
	const struct vm *vm = s->now;
	struct advice *a = s->advice;
	uint64_t bytes = known(vm->reclaimable);

	if (!known(vm->ephemeral_raw) || s->reads < ADVICE_GETS ||
	    is_part(a->gets, s->reads, ADVICE_HIT_PERCENT))
		return false;
	if (vm->leased != UNKNOWN)
		bytes = MIN(bytes, minus(vm->leased, known(vm->reserved)));
	bytes = bytes / MIB * MIB;
	if (!bytes)
		return false;
	return decide(s, ADVICE_SHRINK, bytes,
		      "%" PRIu64 " of %" PRIu64
		      " gets found their page %s, and "
		      "few of the rest were evicted lately",
		      a->gets, s->reads, s->when);
}

static bool tells_too_little(struct sample *s)
{
	if (s->asked >= ADVICE_ASKED)
		return false;
	if (!known(s->now->puts) && !known(s->now->refused))
		return decide(s, ADVICE_UNKNOWN, 0,
			      "no page was put yet: too little to tell");
	return decide(s, ADVICE_UNKNOWN, 0,
		      "%" PRIu64 " pages asked for %s: too little to tell",
		      s->asked, s->when);
}

static void keep(struct sample *s)
{
	struct advice *a = s->advice;
	char hits[64] = "no page was got";

	if (s->reads)
		snprintf(hits, sizeof(hits), "%u %% of %" PRIu64 " gets hit",
			 percent(a->gets, s->reads), s->reads);
	decide(s, ADVICE_KEEP, 0,
	       "%s %s, %" PRIu64 " puts refused, %" PRIu64 " misses of pages "
	       "evicted lately",
	       hits, s->when, a->refused, a->refaults);
}

void advise(const struct vm *then, const struct vm *now, uint64_t ms,
	    struct advice *advice)
{
	struct sample s = {
		.then = then, .now = now, .advice = advice, .ms = ms
	};
	size_t length;

	*advice = (struct advice){ 0 };
	set_when(&s, ms);
	if (!says_nothing(&s) && !was_refused(&s) && !had_refaults(&s) &&
	    !is_useless(&s) && !is_idle(&s) && !is_cold(&s) &&
	    !tells_too_little(&s))
		keep(&s);
	length = strlen(advice->reason);
	if (now->frozen == 1)
		snprintf(advice->reason + length,
			 sizeof(advice->reason) - length, "; it is frozen");
}
