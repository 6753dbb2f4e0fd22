/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What getopt_long(3) has found wrong, in the words of who wrote it
 */
#ifndef TMEM_DAEMON_WRONG_OPTION_H
#define TMEM_DAEMON_WRONG_OPTION_H

#include <getopt.h>

/* After ':' or '?'.  Of "-ab" optind may be behind what is wrong, or not yet. */
static inline const char *wrong_option(char **argv)
{
	static char letter[] = "-x";

	if (optopt <= 0 || optopt > 255)
		return argv[optind - 1];
	letter[1] = (char)optopt;
	return letter;
}

#endif /* TMEM_DAEMON_WRONG_OPTION_H */
