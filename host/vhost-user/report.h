/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lines for people, on stderr: the journal adds time and unit.
 */
#ifndef VHOST_USER_TMEM_REPORT_H
#define VHOST_USER_TMEM_REPORT_H

#include <stdio.h>
#include <stdlib.h>

/* One write(2), so that lines of several threads do not mix. */
#define report(format, ...)                                                    \
	fprintf(stderr, "vhost-user-tmem: " format "\n", ##__VA_ARGS__)

/*
 * The process's exit status: 1, a mistake that the same start would make again;
 * or STATUS_AGAIN while somebody keeps pages for the next process: try again.
 */
#define STATUS_AGAIN 3
extern int fatal_status;

#define fatal(...)                                                             \
	do {                                                                   \
		report(__VA_ARGS__);                                           \
		exit(fatal_status);                                            \
	} while (0)

#endif /* VHOST_USER_TMEM_REPORT_H */
