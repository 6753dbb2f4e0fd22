// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lines for people, and the clock that keeps them few
 */
#include <stdarg.h>
#include <time.h>

#include "report.h"

uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

void report_some(struct limiter *limiter, const char *who, const char *format,
		 ...)
{
	/* Names cost nothing, and each has a limiter. */
	static struct limiter all;
	const char *own = limiter_next(limiter, now_ms()), *end = NULL;
	char text[400];
	va_list ap;

	if (own)
		end = limiter_next_of(&all, LINES_OF_ALL, now_ms());
	if (!end)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	report("%s: %s%s", who, text, *end ? end : own);
}
