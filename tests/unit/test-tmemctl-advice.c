// SPDX-License-Identifier: BSD-3-Clause
/*
 * tmemctl's advice: what is said of which store, a table of cases
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "advice.h"

#define MIB  (1ull << 20)
#define HOUR 3600u

/* One that holds half of what it has, and hits half of the time. */
static struct vm store(void)
{
	struct view view = { 0 };
	struct vm vm = *view_add(&view);

	view_free(&view);
	strcpy(vm.name, "vm");
	vm.state = "admitted";
	vm.pid = 1;
	vm.age_s = 10 * HOUR;
	vm.frozen = 0;
	vm.reserved = 10 * MIB;
	vm.max = 1024 * MIB;
	vm.leased = vm.target = 100 * MIB;
	vm.wanted = 0;
	vm.held = 90 * MIB;
	vm.fixed = 50 * MIB;
	vm.reclaimable = 40 * MIB;
	/* Half of each; a page takes a quarter of its size. */
	vm.persistent_raw = vm.ephemeral_raw = 160 * MIB;
	vm.stored = 80 * MIB;
	vm.puts = 100000;
	vm.gets = 50000;
	vm.misses = 50000;
	vm.refused = vm.evictions = vm.refaults = vm.pressure = 0;
	return vm;
}

/* What is different now: of a counter what is more, of the rest the value. */
struct change {
	size_t member;
	uint64_t value;
};
#define IS(name, value)                                                        \
	{                                                                      \
		offsetof(struct vm, name), value                               \
	}
/* Both looks. */
#define WAS(name, value)                                                       \
	{                                                                      \
		offsetof(struct vm, name) | 1, value                           \
	}

struct row {
	const char *what;
	enum verdict verdict;
	uint64_t bytes;
	const char *reason; /* part of it */
	struct change change[8];
};

/* Ten seconds, but where it is said otherwise. */
static const struct row rows[] = {
	{ "nothing happens",
	  ADVICE_UNKNOWN,
	  0,
	  "0 pages asked for in 10 s",
	  { { 0, 0 } } },
	{ "hits",
	  ADVICE_KEEP,
	  0,
	  "90 % of 1000 gets hit in 10 s",
	  { IS(gets, 900), IS(misses, 100) } },
	{ "63 requests",
	  ADVICE_UNKNOWN,
	  0,
	  "too little to tell",
	  { IS(gets, 63) } },
	{ "64 requests", ADVICE_KEEP, 0, "100 % of 64", { IS(gets, 64) } },
	{ "puts alone", ADVICE_KEEP, 0, "no page was got", { IS(puts, 100) } },
	/* Refused: 4096 pages, of 1 KiB each. */
	{ "refused",
	  ADVICE_GROW,
	  4 * MIB,
	  "4096 of 8192 puts refused in 10 s",
	  { IS(puts, 4096), IS(refused, 4096) } },
	{ "refused again and again",
	  ADVICE_GROW,
	  50 * MIB,
	  "puts refused",
	  { IS(refused, 1000000) } },
	{ "refused at its max",
	  ADVICE_GROW,
	  4 * MIB,
	  "it is at its max",
	  { IS(refused, 4096), WAS(max, 100 * MIB) } },
	{ "refused a little",
	  ADVICE_GROW,
	  MIB,
	  "16 of 1600 puts refused",
	  { IS(puts, 1584), IS(refused, 16) } },
	{ "refused less",
	  ADVICE_KEEP,
	  0,
	  "15 puts refused",
	  { IS(puts, 100), IS(refused, 15) } },
	{ "one in a hundred is refused",
	  ADVICE_KEEP,
	  0,
	  "99 puts refused",
	  { IS(puts, 9900), IS(refused, 99) } },
	{ "refused by the host",
	  ADVICE_KEEP,
	  0,
	  "short of memory",
	  { IS(refused, 4096), WAS(pressure, 3) } },
	{ "refused by a limit",
	  ADVICE_GROW,
	  4 * MIB,
	  "refused",
	  { IS(refused, 4096), WAS(pressure, 2) } },
	/* Lost lately. */
	{ "refaults",
	  ADVICE_GROW,
	  4 * MIB,
	  "hits 40 %, up to 81 % with more",
	  { IS(gets, 4000), IS(misses, 6000), IS(refaults, 4096) } },
	{ "the ghost reaches no further",
	  ADVICE_GROW,
	  10 * MIB,
	  "evicted",
	  { IS(misses, 2000000), IS(refaults, 1000000) } },
	{ "few refaults",
	  ADVICE_KEEP,
	  0,
	  "15 misses of pages evicted",
	  { IS(gets, 100), IS(misses, 100), IS(refaults, 15) } },
	{ "refaults among many hits",
	  ADVICE_KEEP,
	  0,
	  "19 misses",
	  { IS(gets, 981), IS(misses, 19), IS(refaults, 19) } },
	{ "refaults count, not misses",
	  ADVICE_KEEP,
	  0,
	  "0 misses of pages",
	  { IS(gets, 1000), IS(misses, 9000) } },
	/* Remove. */
	{ "never used",
	  ADVICE_REMOVE,
	  100 * MIB,
	  "no page was put in 10 h",
	  { WAS(persistent_raw, 0), WAS(puts, 0) } },
	{ "never used, but young",
	  ADVICE_UNKNOWN,
	  0,
	  "no page was put yet",
	  { WAS(persistent_raw, 0), WAS(puts, 0), WAS(age_s, HOUR - 1),
	    WAS(held, MIB), WAS(reserved, 100 * MIB) } },
	{ "never used, of unknown age",
	  ADVICE_UNKNOWN,
	  0,
	  "no page was put",
	  { WAS(persistent_raw, 0), WAS(puts, 0), WAS(age_s, UNKNOWN) } },
	{ "swap is not asked how often it is read",
	  ADVICE_UNKNOWN,
	  0,
	  "little",
	  { WAS(gets, 0) } },
	{ "put and never got",
	  ADVICE_REMOVE,
	  100 * MIB,
	  "100000 pages put and",
	  { WAS(persistent_raw, 0), WAS(gets, 999) } },
	{ "one in a hundred is got",
	  ADVICE_UNKNOWN,
	  0,
	  "too little",
	  { WAS(persistent_raw, 0), WAS(gets, 1000) } },
	{ "refused for ever",
	  ADVICE_UNKNOWN,
	  0,
	  "too little",
	  { WAS(persistent_raw, 0), WAS(puts, 0), WAS(refused, 9) } },
	/* Shrink: what is idle. */
	{ "idle",
	  ADVICE_SHRINK,
	  76 * MIB,
	  "holds 20M of 100M, did not grow",
	  { WAS(held, 20 * MIB) } },
	{ "idle, and reserved",
	  ADVICE_SHRINK,
	  50 * MIB,
	  "holds 20M of 100M",
	  { WAS(held, 20 * MIB), WAS(reserved, 50 * MIB) } },
	{ "all is reserved",
	  ADVICE_UNKNOWN,
	  0,
	  "too little",
	  { WAS(held, 20 * MIB), WAS(reserved, 90 * MIB) } },
	{ "reserved is not known",
	  ADVICE_UNKNOWN,
	  0,
	  "too little",
	  { WAS(held, 20 * MIB), WAS(reserved, UNKNOWN) } },
	{ "idle, and wants more",
	  ADVICE_UNKNOWN,
	  0,
	  "too little",
	  { WAS(held, 20 * MIB), WAS(wanted, 150 * MIB) } },
	{ "idle, and grows",
	  ADVICE_UNKNOWN,
	  0,
	  "too little",
	  { WAS(held, 20 * MIB), IS(held, 22 * MIB) } },
	{ "idle, and small",
	  ADVICE_UNKNOWN,
	  0,
	  "too little",
	  { WAS(leased, 16 * MIB), WAS(held, MIB), WAS(reserved, MIB) } },
	/* Shrink: what nobody gets.  40 MiB could be given back. */
	{ "cold",
	  ADVICE_SHRINK,
	  40 * MIB,
	  "49 of 1000 gets found",
	  { IS(gets, 49), IS(misses, 951) } },
	{ "one in twenty is found",
	  ADVICE_KEEP,
	  0,
	  "5 % of 1000 gets hit",
	  { IS(gets, 50), IS(misses, 950) } },
	{ "cold, by 999 gets",
	  ADVICE_KEEP,
	  0,
	  "0 % of 999",
	  { IS(misses, 999) } },
	{ "cold, and reserved",
	  ADVICE_SHRINK,
	  20 * MIB,
	  "found",
	  { IS(misses, 1000), WAS(reserved, 80 * MIB) } },
	{ "swap alone is never cold",
	  ADVICE_KEEP,
	  0,
	  "0 % of 1000",
	  { IS(misses, 1000), WAS(ephemeral_raw, 0) } },
	/* Nothing to compare. */
	{ "another process",
	  ADVICE_UNKNOWN,
	  0,
	  "restarted",
	  { IS(pid, 2), IS(gets, 1000) } },
	{ "not told",
	  ADVICE_UNKNOWN,
	  0,
	  "does not say",
	  { WAS(gets, UNKNOWN) } },
	{ "frozen",
	  ADVICE_KEEP,
	  0,
	  "; it is frozen",
	  { IS(gets, 1000), WAS(frozen, 1) } },
};

static bool is_counter(size_t member)
{
	return member >= offsetof(struct vm, puts) &&
	       member <= offsetof(struct vm, refaults);
}

static void apply(const struct change *change, struct vm *then, struct vm *now)
{
	size_t member = change->member & ~(size_t)1;
	uint64_t *value = (uint64_t *)((char *)now + member);

	if (!change->member)
		return;
	if (change->member & 1)
		*(uint64_t *)((char *)then + member) = change->value;
	if (!(change->member & 1) && is_counter(member))
		*value += change->value;
	else
		*value = change->value;
}

static void judge_row(const struct row *row)
{
	struct vm then = store(), now = store();
	struct advice advice;

	for (unsigned int i = 0; i < 8; i++)
		apply(&row->change[i], &then, &now);
	advise(&then, &now, 10000, &advice);
	if (advice.verdict != row->verdict || advice.bytes != row->bytes ||
	    !strstr(advice.reason, row->reason))
		fail_msg("%s: %s %llu: %s", row->what,
			 advice_word(advice.verdict),
			 (unsigned long long)advice.bytes, advice.reason);
}

static void table(void **state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		judge_row(&rows[i]);
}

static void counts_that_go_back(void **state)
{
	struct vm then = store(), now = store();
	struct advice advice;

	now.puts--;
	advise(&then, &now, 10000, &advice);
	assert_int_equal(advice.verdict, ADVICE_UNKNOWN);
	assert_non_null(strstr(advice.reason, "restarted"));
}

static void who_is_not_there(void **state)
{
	static const char *const states[] = { "absent", "waiting",
					      "disconnected" };

	for (unsigned int i = 0; i < 3; i++) {
		struct vm then = store(), now = store();
		struct advice advice;

		now.state = states[i];
		now.refused = 1000;
		advise(&then, &now, 10000, &advice);
		assert_int_equal(advice.verdict, ADVICE_UNKNOWN);
		assert_non_null(strstr(advice.reason, states[i]));
	}
}

/* Without an earlier look it is all that ever was. */
static void since_it_began(void **state)
{
	struct vm now = store();
	struct advice advice;

	now.refused = 100000;
	advise(NULL, &now, 10 * HOUR * 1000, &advice);
	assert_int_equal(advice.verdict, ADVICE_GROW);
	assert_non_null(strstr(advice.reason, "100000 of 200000 puts refused "
					      "in 10 h"));
	advise(NULL, &now, 0, &advice);
	assert_non_null(strstr(advice.reason, "since it began"));
}

/* What a store wants it wants for 5 s. */
static void idle_takes_5_s(void **state)
{
	struct vm now = store();
	struct advice advice;

	now.held = 20 * MIB;
	advise(&now, &now, 4999, &advice);
	assert_int_equal(advice.verdict, ADVICE_UNKNOWN);
	advise(&now, &now, 5000, &advice);
	assert_int_equal(advice.verdict, ADVICE_SHRINK);
}

/* Nothing known, or all numbers as large as they can be: no overflow. */
static void any_numbers(void **state)
{
	static const uint64_t values[] = {
		0, 1, 4096, 1ull << 52, UINT64_MAX - 1, UNKNOWN
	};
	struct vm vm[2] = { store(), store() };
	struct advice advice;

	srand(1);
	for (unsigned int round = 0; round < 200000; round++) {
		unsigned int member = rand() % num_vm_members;
		uint64_t *value = (uint64_t *)((char *)&vm[rand() % 2] +
					       vm_members[member].offset);

		*value = values[rand() % 6];
		advise(rand() % 4 ? &vm[0] : NULL, &vm[1], rand(), &advice);
		assert_true(strlen(advice.reason) > 5);
		assert_in_range(advice.verdict, ADVICE_UNKNOWN, ADVICE_REMOVE);
		if (advice.verdict == ADVICE_UNKNOWN ||
		    advice.verdict == ADVICE_KEEP)
			assert_int_equal(advice.bytes, 0);
	}
}

static void bytes_as_text(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *text;
	} cases[] = {
		{ 0, "0" },
		{ 1023, "1023" },
		{ 1024, "1.0K" },
		{ 10188, "9.9K" },
		{ 10189, "10K" },
		{ 1023 * 1024, "1023K" },
		{ MIB - 1, "1.0M" },
		{ 100 * MIB, "100M" },
		{ 1ull << 52, "4.0P" },
		{ UINT64_MAX - 1, "16E" },
		{ UNKNOWN, "-" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[BYTES_TEXT];

		assert_string_equal(bytes_text(cases[i].bytes, text),
				    cases[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),
		cmocka_unit_test(counts_that_go_back),
		cmocka_unit_test(who_is_not_there),
		cmocka_unit_test(since_it_began),
		cmocka_unit_test(idle_takes_5_s),
		cmocka_unit_test(any_numbers),
		cmocka_unit_test(bytes_as_text),
	};

	return cmocka_run_group_tests_name("tmemctl-advice", tests, NULL, NULL);
}
