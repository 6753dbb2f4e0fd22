/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line of vhost-user-tmem
 */
#ifndef VHOST_USER_TMEM_OPTIONS_H
#define VHOST_USER_TMEM_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "tmem/tmem.h"

/* Most sockets, and so VMs, of one process. */
#define MAX_VMS 64

struct options {
	const char *socket_path[MAX_VMS];
	unsigned int num_sockets;
	int fd; /* a socket that somebody opened for us; -1: none */
	bool shared;
	const char *socket_group;
	const char *stats_path;
	const char *lease; /* the broker's socket; NULL: there is none */
	const char *name;  /* for it */
	/* Bytes that the store may hold; with a lease most that it asks for,
	 * 0: what the broker allows. */
	uint64_t size;
	struct tmem_limits limits; /* of each VM */
	uint64_t cgroup_headroom;
	uint64_t host_headroom;
	bool lock;
	unsigned int recompress_percent, recompress_after_s;
	bool keep; /* a process that keeps pages while this one is killed */
	uint16_t num_fast;
	uint16_t num_bulk;
	unsigned int grace_s; /* how long pages outlive a connection */
	unsigned int poll_us; /* the longest that is polled before sleeping */
	bool sandbox;
};

/*
 * Read the command line.  Does not return if there is nothing to do (--help,
 * --version, --print-capabilities: exit status 0) or a mistake, which one line
 * on stderr names (1).
 */
void options_read(struct options *options, int argc, char **argv);

#endif /* VHOST_USER_TMEM_OPTIONS_H */
