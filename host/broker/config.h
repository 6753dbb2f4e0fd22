/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The configuration file: tmem-broker(8) describes it
 */
#ifndef TMEM_BROKER_CONFIG_H
#define TMEM_BROKER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"

#define CONFIG_PATH_SIZE  256
#define CONFIG_GROUP_SIZE 64
/* Most [vm NAME] sections: those of one host. */
#define CONFIG_MAX_VMS 1024

/* What stores may have: of one name, or by default. */
struct config_vm {
	char name[TMEM_LEASE_NAME_SIZE];
	unsigned int line; /* of its section */
	uint64_t reserved; /* most that it may claim; UINT64_MAX: whatever fits
			    */
	uint64_t max;	   /* most that it is granted; 0: the host's limit */
	uint32_t weight;
	bool has_user;
	uid_t user; /* who may use the name, beside root */
};

struct config {
	uint64_t limit;
	uint64_t headroom;
	uint64_t chunk;
	uint64_t grace_ms;
	uint64_t report_ms;
	uint64_t process_stores; /* most that one process may have */
	/* Where the kernel tells of memory; for tests, others. */
	char meminfo[CONFIG_PATH_SIZE];
	char psi[CONFIG_PATH_SIZE];
	char proc[CONFIG_PATH_SIZE];
	char cgroup[CONFIG_PATH_SIZE];
	/* Where scrapers are heard, as it was written; "": nowhere. */
	char metrics[CONFIG_PATH_SIZE];
	char metrics_group[CONFIG_GROUP_SIZE]; /* "": the broker's alone */
	bool others; /* [default] is there: names that no section has are
			allowed */
	struct config_vm defaults;
	unsigned int num_vms;
	struct config_vm vm[CONFIG_MAX_VMS];
};

/* One line about what is wrong. */
#define CONFIG_ERROR_SIZE 512

/*
 * Read and check a file.  NULL: @error says what is wrong, as "FILE:LINE: what
 * to do".  The caller frees it with free().
 */
struct config *config_read(const char *path, char error[CONFIG_ERROR_SIZE]);

/* What a store of that name may have; NULL: it is not allowed. */
const struct config_vm *config_vm(const struct config *config,
				  const char *name);

#endif /* TMEM_BROKER_CONFIG_H */
