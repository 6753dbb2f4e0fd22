/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines for people, on stderr, and the exit status that goes with them
 */
#ifndef TMEMCTL_REPORT_H
#define TMEMCTL_REPORT_H

#include <stdio.h>
#include <stdlib.h>

#define EXIT_REFUSED 1 /* what was asked for was refused, or failed */
#define EXIT_USAGE   2 /* it was asked for wrongly */

#define say(format, ...) fprintf(stderr, "tmemctl: " format "\n", ##__VA_ARGS__)

#define end_with(status, ...)                                                  \
	do {                                                                   \
		say(__VA_ARGS__);                                              \
		exit(status);                                                  \
	} while (0)

#define fatal(...)  end_with(EXIT_REFUSED, __VA_ARGS__)
#define misuse(...) end_with(EXIT_USAGE, __VA_ARGS__)

#endif /* TMEMCTL_REPORT_H */
