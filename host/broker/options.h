/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line of tmem-broker
 */
#ifndef TMEM_BROKER_OPTIONS_H
#define TMEM_BROKER_OPTIONS_H

#include <stdbool.h>

struct options {
	const char *config;
	const char *socket;
	const char *socket_group;
	bool check; /* read the configuration, and end */
};

/*
 * Read the command line.  Does not return if there is nothing to do (--help,
 * --version: exit status 0) or a mistake, which one line on stderr names (1).
 */
void options_read(struct options *options, int argc, char **argv);

#endif /* TMEM_BROKER_OPTIONS_H */
