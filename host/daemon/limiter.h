/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines in the log that a peer may cause: ten a minute, the last of which says
 * that there will be no more.
 */
#ifndef TMEM_DAEMON_LIMITER_H
#define TMEM_DAEMON_LIMITER_H

#include <stddef.h>
#include <stdint.h>

#define LINES_A_MINUTE 10

struct limiter {
	uint64_t minute; /* that @lines are of; 0: there was none */
	unsigned int lines;
};

/*
 * What the next line ends with, of @most a minute; NULL: it is not to be said.
 * @now_ms: CLOCK_MONOTONIC.
 */
static inline const char *limiter_next_of(struct limiter *limiter,
					  unsigned int most, uint64_t now_ms)
{
	uint64_t minute = now_ms / 60000 + 1;

	if (limiter->minute != minute) {
		limiter->minute = minute;
		limiter->lines = 0;
	}
	if (limiter->lines == most)
		return NULL;
	return ++limiter->lines < most ? "" : " (more is not said this minute)";
}

static inline const char *limiter_next(struct limiter *limiter, uint64_t now_ms)
{
	return limiter_next_of(limiter, LINES_A_MINUTE, now_ms);
}

#endif /* TMEM_DAEMON_LIMITER_H */
