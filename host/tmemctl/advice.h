/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What to do with a store's memory, from what it did with it in a while
 *
 * Nothing here waits, reads a clock, or knows of sockets.  All numbers that
 * decide are below; tmemctl(1) says what they mean.
 */
#ifndef TMEMCTL_ADVICE_H
#define TMEMCTL_ADVICE_H

#include "view.h"

/* A guest's pages are taken to be as large. */
#define ADVICE_PAGE 4096u
/* Fewer requests, in pages, say nothing. */
#define ADVICE_ASKED 64u
/* Refused, or missed and evicted lately: fewer are noise ... */
#define ADVICE_LACKING 16u
/* ... and so are fewer percent, of puts that were refused, of gets. */
#define ADVICE_REFUSED_PERCENT 1u
#define ADVICE_REFAULT_PERCENT 2u
/* Ephemeral pages: gets to judge by, and percent that must be found. */
#define ADVICE_GETS	   1000u
#define ADVICE_HIT_PERCENT 5u
/* Idle bytes of a lease: at least so many, and 1/4 of it. */
#define ADVICE_IDLE_BYTES (16ull << 20)
#define ADVICE_IDLE_PART  4u
/* Nor is it judged from less: a store wants what it wants for 5 s. */
#define ADVICE_IDLE_MS 5000u
/* What was never of use for so long, and so many puts, may be removed. */
#define ADVICE_REMOVE_S	   3600u
#define ADVICE_REMOVE_PUTS 1000u

enum verdict {
	ADVICE_UNKNOWN, /* too little to tell */
	ADVICE_GROW,
	ADVICE_KEEP,
	ADVICE_SHRINK,
	ADVICE_REMOVE,
};

struct advice {
	enum verdict verdict;
	uint64_t bytes; /* GROW, SHRINK, REMOVE: about; 0 of the others */
	/* In the while that was looked at, in pages; 0 where it is not known.
	 */
	uint64_t puts, gets, misses, refused, refaults;
	char reason[300];
};

/* A word: "grow". */
const char *advice_word(enum verdict verdict);

/*
 * @then and @now are the same store @ms apart.  @then NULL: @now's counts since
 * its process began; @ms: since when, 0: unknown.
 */
void advise(const struct vm *then, const struct vm *now, uint64_t ms,
	    struct advice *advice);

#endif /* TMEMCTL_ADVICE_H */
