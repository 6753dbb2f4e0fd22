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

#define fatal(...)                                                             \
	do {                                                                   \
		report(__VA_ARGS__);                                           \
		exit(1);                                                       \
	} while (0)

#endif /* VHOST_USER_TMEM_REPORT_H */
