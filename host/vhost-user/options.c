// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command line of vhost-user-tmem
 *
 * Its conventions are those of QEMU's docs/interop/vhost-user.rst, "Back-end
 * program conventions"; names and meanings of limits are tmem-store's.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "options.h"
#include "protocol.h"
#include "report.h"
#include "wrong-option.h"

#define MIB		 (1024ull * 1024)
#define DEFAULT_RESERVED (256 * MIB)
#define MAX_SIZE	 (256ull << 40)
#define DEFAULT_GRACE_S	 10
#define DEFAULT_POLL_US	 32
#define MAX_QUEUES	 32

enum {
	OPT_SOCKET_PATH = 256,
	OPT_FD,
	OPT_SHARED,
	OPT_SOCKET_GROUP,
	OPT_STATS_PATH,
	OPT_LEASE,
	OPT_NAME,
	OPT_SIZE,
	OPT_RESERVED,
	OPT_PERSISTENT_MAX,
	OPT_EPHEMERAL_MAX,
	OPT_CGROUP_HEADROOM,
	OPT_HOST_HEADROOM,
	OPT_RECOMPRESS,
	OPT_RECOMPRESS_AFTER,
	OPT_LOCK,
	OPT_KEEP,
	OPT_NUM_FAST,
	OPT_NUM_BULK,
	OPT_GRACE,
	OPT_POLL_US,
	OPT_SANDBOX,
	OPT_CAPABILITIES,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "socket-path", required_argument, NULL, OPT_SOCKET_PATH },
	{ "fd", required_argument, NULL, OPT_FD },
	{ "shared", no_argument, NULL, OPT_SHARED },
	{ "socket-group", required_argument, NULL, OPT_SOCKET_GROUP },
	{ "stats-path", required_argument, NULL, OPT_STATS_PATH },
	{ "lease", required_argument, NULL, OPT_LEASE },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "reserved", required_argument, NULL, OPT_RESERVED },
	{ "persistent-max", required_argument, NULL, OPT_PERSISTENT_MAX },
	{ "ephemeral-max", required_argument, NULL, OPT_EPHEMERAL_MAX },
	{ "cgroup-headroom", required_argument, NULL, OPT_CGROUP_HEADROOM },
	{ "host-headroom", required_argument, NULL, OPT_HOST_HEADROOM },
	{ "recompress", required_argument, NULL, OPT_RECOMPRESS },
	{ "recompress-after", required_argument, NULL, OPT_RECOMPRESS_AFTER },
	{ "lock", no_argument, NULL, OPT_LOCK },
	{ "keep", no_argument, NULL, OPT_KEEP },
	{ "num-fast-queues", required_argument, NULL, OPT_NUM_FAST },
	{ "num-bulk-queues", required_argument, NULL, OPT_NUM_BULK },
	{ "grace", required_argument, NULL, OPT_GRACE },
	{ "poll-us", required_argument, NULL, OPT_POLL_US },
	{ "sandbox", required_argument, NULL, OPT_SANDBOX },
	{ "print-capabilities", no_argument, NULL, OPT_CAPABILITIES },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char help[] =
	"usage: vhost-user-tmem --socket-path=PATH [OPTION...]\n"
	"A virtio-tmem device for one VM, over vhost-user.\n"
	"\n"
	"Sockets\n"
	"  --socket-path=PATH      listen there; the VMM connects\n"
	"  --fd=NUMBER             use this open socket, listening or "
	"connected\n"
	"  --socket-group=GROUP    the socket's group, which may connect\n"
	"  --shared                serve several --socket-path, one VM each, "
	"from one\n"
	"                          store\n"
	"  --stats-path=PATH       who connects there is sent statistics, as "
	"JSON\n"
	"\n"
	"Memory (bytes, or with K, M, G, T)\n"
	"  --lease=PATH            tmem-broker's socket: it says how much the "
	"store holds\n"
	"  --name=NAME             the store's name there; default: the last "
	"part of\n"
	"                          --socket-path\n"
	"  --size=BYTES            most that the store holds; default: what "
	"the\n"
	"                          reservations need\n"
	"  --reserved=BYTES        raw bytes of persistent pages that each VM "
	"is sure of;\n"
	"                          default: 256M, or what fits into --size\n"
	"  --persistent-max=BYTES  most that persistent pages of a VM hold\n"
	"  --ephemeral-max=BYTES   most that ephemeral pages of a VM hold\n"
	"  --cgroup-headroom=BYTES, --host-headroom=BYTES\n"
	"                          refuse puts when less is left; default: by "
	"itself\n"
	"  --recompress=PERCENT    compress unused pages better with so much "
	"of a CPU,\n"
	"                          0 to 100; default: 0, not at all\n"
	"  --recompress-after=SECONDS\n"
	"                          unused for so long, 1 to 14400; default: "
	"30\n"
	"  --lock                  keep the store out of the host's swap\n"
	"  --keep                  stay behind as a process that keeps the "
	"pages' memory,\n"
	"                          and starts the back end again if it is "
	"killed; SIGHUP\n"
	"                          starts a new version of the program\n"
	"\n"
	"Device\n"
	"  --num-fast-queues=N     queues for small gets, 0 to 32; default: 1\n"
	"  --num-bulk-queues=N     queues for everything, 1 to 32; default: 1\n"
	"  --grace=SECONDS         keep pages so long after the VMM is gone; "
	"default: 10\n"
	"  --poll-us=MICROSECONDS  poll up to so long before sleeping, 0 to "
	"1000;\n"
	"                          default: 32, or 0 on one CPU\n"
	"  --sandbox=on|off        allow only the system calls that are "
	"needed;\n"
	"                          default: on\n"
	"\n"
	"  --print-capabilities, --help, --version\n";

static uint64_t read_number(const char *name, const char *text, uint64_t min,
			    uint64_t max)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || *text < '0' || *text > '9' ||
	    value < min || value > max)
		fatal("--%s=%s: must be a number from %" PRIu64 " to %" PRIu64,
		      name, text, min, max);
	return value;
}

static uint64_t read_bytes(const char *name, const char *text)
{
	static const char units[] = "KMGT";
	unsigned int shift = 0;
	const char *unit;
	uint64_t value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end && (unit = strchr(units, *end))) {
		shift = 10 * (unit - units + 1);
		end++;
	}
	if (errno || *text < '0' || *text > '9' || *end ||
	    value > UINT64_MAX >> shift)
		fatal("--%s=%s: must be bytes, as in --%s=256M", name, text,
		      name);
	return value << shift;
}

static bool read_switch(const char *name, const char *text)
{
	if (strcmp(text, "on") && strcmp(text, "off"))
		fatal("--%s=%s: must be on or off", name, text);
	return !strcmp(text, "on");
}

static void add_socket(struct options *o, const char *path)
{
	if (!*path ||
	    strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		fatal("--socket-path=%s: must be 1 to %zu characters long",
		      path, sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	if (o->num_sockets == MAX_VMS)
		fatal("--socket-path=%s: one process serves %u VMs at most",
		      path, MAX_VMS);
	for (unsigned int i = 0; i < o->num_sockets; i++)
		if (!strcmp(o->socket_path[i], path))
			fatal("--socket-path=%s: is given twice", path);
	o->socket_path[o->num_sockets++] = path;
}

static void take(struct options *o, int option, const char *name,
		 const char *value)
{
	switch (option) {
	case OPT_SOCKET_PATH:
		add_socket(o, value);
		break;
	case OPT_FD:
		o->fd = read_number(name, value, 0, INT32_MAX);
		break;
	case OPT_SHARED:
		o->shared = true;
		break;
	case OPT_SOCKET_GROUP:
		o->socket_group = value;
		break;
	case OPT_STATS_PATH:
		if (!*value)
			fatal("--stats-path=: must be the path of a socket");
		o->stats_path = value;
		break;
	case OPT_LEASE:
		if (!*value ||
		    strlen(value) >=
			    sizeof(((struct sockaddr_un *)0)->sun_path))
			fatal("--lease=%s: must be the path of tmem-broker's "
			      "socket, as in --lease=/run/tmem-broker/socket",
			      value);
		o->lease = value;
		break;
	case OPT_NAME:
		o->name = value;
		break;
	case OPT_SIZE:
		o->size = read_bytes(name, value);
		if (!o->size)
			fatal("--size=0: give the bytes of host memory that "
			      "the store may hold, as in --size=1G");
		break;
	case OPT_RESERVED:
		o->limits.persistent_reserved = read_bytes(name, value);
		break;
	case OPT_PERSISTENT_MAX:
		o->limits.persistent_max = read_bytes(name, value);
		break;
	case OPT_EPHEMERAL_MAX:
		o->limits.ephemeral_max = read_bytes(name, value);
		break;
	case OPT_CGROUP_HEADROOM:
		o->cgroup_headroom = read_bytes(name, value);
		break;
	case OPT_HOST_HEADROOM:
		o->host_headroom = read_bytes(name, value);
		break;
	case OPT_RECOMPRESS:
		o->recompress_percent = read_number(name, value, 0, 100);
		break;
	case OPT_RECOMPRESS_AFTER:
		o->recompress_after_s =
			read_number(name, value, 1, TMEM_MAX_RECOMPRESS_AFTER);
		break;
	case OPT_LOCK:
		o->lock = true;
		break;
	case OPT_KEEP:
		o->keep = true;
		break;
	case OPT_NUM_FAST:
		o->num_fast = read_number(name, value, 0, MAX_QUEUES);
		break;
	case OPT_NUM_BULK:
		o->num_bulk = read_number(name, value, 1, MAX_QUEUES);
		break;
	case OPT_GRACE:
		o->grace_s = read_number(name, value, 0, 86400);
		break;
	case OPT_POLL_US:
		o->poll_us = read_number(name, value, 0, 1000);
		break;
	case OPT_SANDBOX:
		o->sandbox = read_switch(name, value);
		break;
	case OPT_CAPABILITIES:
		printf("{\n  \"type\": \"tmem\",\n  \"features\": []\n}\n");
		exit(0);
	case OPT_HELP:
		fputs(help, stdout);
		exit(0);
	case OPT_VERSION:
		printf("vhost-user-tmem %s\n", VERSION);
		exit(0);
	}
}

static void check_sockets(struct options *o)
{
	if (o->fd >= 0 && o->num_sockets)
		fatal("--fd and --socket-path: give one of them");
	if (o->fd < 0 && !o->num_sockets)
		fatal("no socket: give --socket-path=PATH or --fd=NUMBER");
	if (o->num_sockets > 1 && !o->shared)
		fatal("--socket-path is given %u times: one process serves one "
		      "VM, or give --shared",
		      o->num_sockets);
	if (o->fd >= 0 && o->socket_group)
		fatal("--socket-group=%s: --fd is a socket that somebody else "
		      "has opened",
		      o->socket_group);
}

/* Its name, where it has a lease. */
static void check_lease(struct options *o)
{
	const char *path = o->num_sockets ? o->socket_path[0] : NULL;

	if (o->name && !o->lease)
		fatal("--name=%s: is the name for a broker: give --lease=PATH, "
		      "too",
		      o->name);
	if (!o->lease)
		return;
	if (!o->name && !path)
		fatal("--lease=%s: with --fd, give --name=NAME, too", o->lease);
	if (!o->name)
		o->name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	if (!tmem_lease_name_ok(o->name))
		fatal("--name=%s: must have 1 to %u of A-Z a-z 0-9 _ . : -",
		      o->name, TMEM_LEASE_NAME_SIZE - 1);
}

/* With a headroom of all memory, every put would be refused. */
static void check_headroom(const char *name, uint64_t headroom)
{
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) *
			  (uint64_t)sysconf(_SC_PAGESIZE);

	if (headroom >= memory)
		fatal("--%s=%" PRIu64 ": must be less than the host's memory, "
		      "%" PRIu64,
		      name, headroom, memory);
}

static void check_limits(struct options *o)
{
	unsigned int vms = o->num_sockets ? o->num_sockets : 1;
	uint64_t *reserved = &o->limits.persistent_reserved, need;

	if (*reserved == UINT64_MAX)
		*reserved = o->size ? tmem_reservation_fit(o->size / vms)
				    : DEFAULT_RESERVED;
	if (!*reserved && o->size && o->size < tmem_reservation_cost(1))
		fatal("--size=%" PRIu64
		      ": has no room for a page: give at least %" PRIu64,
		      o->size, tmem_reservation_cost(1));
	if (o->size > MAX_SIZE)
		fatal("--size=%" PRIu64 ": must be at most %llu (256 TiB)",
		      o->size, MAX_SIZE);
	if (!*reserved && !o->size && !o->lease)
		fatal("--reserved=0: give --size, too: what the store may hold "
		      "without a promise");
	if (*reserved > TMEM_MAX_RESERVED)
		fatal("--reserved=%" PRIu64 ": must be at most %llu (192 GiB)",
		      *reserved, TMEM_MAX_RESERVED);
	need = vms * tmem_reservation_cost(*reserved);
	if (!o->size && !o->lease)
		o->size = need;
	if (o->limits.persistent_max &&
	    o->limits.persistent_max < tmem_reservation_cost(*reserved))
		fatal("--reserved=%" PRIu64 " needs --persistent-max=%" PRIu64
		      " or more, not %" PRIu64,
		      *reserved, tmem_reservation_cost(*reserved),
		      o->limits.persistent_max);
	if (o->size && need > o->size)
		fatal("--reserved=%" PRIu64 " for %u VM%s needs --size=%" PRIu64
		      " or more, not %" PRIu64 "; at most --reserved=%" PRIu64
		      " fits",
		      *reserved, vms, vms == 1 ? "" : "s", need, o->size,
		      tmem_reservation_fit(o->size / vms));
}

void options_read(struct options *o, int argc, char **argv)
{
	int option, index = 0;

	*o = (struct options){
		.fd = -1,
		.limits = { .size = sizeof(o->limits),
			    .persistent_reserved = UINT64_MAX },
		.num_fast = 1,
		.num_bulk = 1,
		.grace_s = DEFAULT_GRACE_S,
		.poll_us =
			sysconf(_SC_NPROCESSORS_ONLN) > 1 ? DEFAULT_POLL_US : 0,
		.sandbox = true,
	};
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", long_options, &index)) !=
	       -1) {
		if (option == ':')
			fatal("%s: needs a value", wrong_option(argv));
		if (option == '?')
			fatal("%s: no such option, or one without a value; see "
			      "--help",
			      wrong_option(argv));
		take(o, option, long_options[index].name, optarg);
	}
	if (optind < argc)
		fatal("'%s': is no option; see --help", argv[optind]);
	check_sockets(o);
	check_lease(o);
	check_limits(o);
	check_headroom("cgroup-headroom", o->cgroup_headroom);
	check_headroom("host-headroom", o->host_headroom);
	if (o->recompress_after_s && !o->recompress_percent)
		fatal("--recompress-after=%u: give --recompress=PERCENT, too, "
		      "without which nothing is recompressed",
		      o->recompress_after_s);
}
