/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line of tmemctl
 */
#ifndef TMEMCTL_OPTIONS_H
#define TMEMCTL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "source.h"

#define MAX_SOURCES 64

struct options;

struct command {
	const char *name;
	const char *help; /* of its own --help, without its name */
	unsigned int min_args, max_args;
	const char *args;     /* what they are, for people */
	unsigned int allowed; /* options, by bits of enum option_bit */
	int (*run)(struct options *options);
};

enum option_bit {
	ALLOW_JSON = 1,
	ALLOW_MAX = 2,
	ALLOW_WEIGHT = 4,
	ALLOW_SECONDS = 8,
	ALLOW_ONCE = 16,
	ALLOW_INTERVAL = 32,
};

struct options {
	const struct command *command;
	char **args;
	unsigned int num_args;
	struct source source[MAX_SOURCES];
	unsigned int num_sources;
	bool json, once;
	uint64_t max, weight; /* 0: not given */
	uint64_t seconds;     /* --seconds, of advise */
	uint64_t interval;    /* --interval, of top */
};

extern const struct command commands[];
extern const unsigned int num_commands;

/*
 * Read the command line.  Does not return if there is nothing to do (--help,
 * --version: exit status 0) or a mistake, which one line on stderr names (2).
 */
void options_read(struct options *options, int argc, char **argv);

/* Bytes on the command line, at least 1; does not return from a mistake. */
uint64_t option_bytes(const char *what, const char *value);

int command_stats(struct options *options);
int command_names(struct options *options);
int command_limits(struct options *options);
int command_freeze(struct options *options);
int command_thaw(struct options *options);
int command_shrink(struct options *options);
int command_advise(struct options *options);
int command_top(struct options *options);

/*
 * All stores of all sources, or those that were named.  Does not return if a
 * source fails, or a name is none; one line says why.
 */
void options_view(struct options *options, struct view *view);
/* The store of that name; does not return if there is none. */
struct vm *options_find(const struct view *view, const char *name);

#endif /* TMEMCTL_OPTIONS_H */
