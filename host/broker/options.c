// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command line of tmem-broker
 */
#include <getopt.h>
#include <string.h>
#include <sys/un.h>

#include "options.h"
#include "report.h"
#include "wrong-option.h"

enum {
	OPT_CONFIG = 256,
	OPT_SOCKET,
	OPT_SOCKET_GROUP,
	OPT_CHECK,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "socket-group", required_argument, NULL, OPT_SOCKET_GROUP },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char help[] =
	"usage: tmem-broker [OPTION...]\n"
	"Leases host memory to the virtio-tmem stores of a host's VMs.\n"
	"\n"
	"  --config=FILE         default: /etc/tmem-broker.conf; SIGHUP reads "
	"it again\n"
	"  --socket=PATH         stores and operators connect there; default:\n"
	"                        /run/tmem-broker/socket\n"
	"  --socket-group=GROUP  the socket's group, whose stores may connect\n"
	"  --check               read the configuration file, and end\n"
	"\n"
	"  --help, --version\n";

/* Its lock is beside it, with a longer name. */
#define LOCK_SUFFIX ".lock"

static void take(struct options *o, int option, const char *value)
{
	const size_t most = sizeof(((struct sockaddr_un *)0)->sun_path) -
			    sizeof(LOCK_SUFFIX);

	switch (option) {
	case OPT_CONFIG:
		if (!*value)
			fatal("--config=: needs the path of a file");
		o->config = value;
		break;
	case OPT_SOCKET:
		if (!*value || strlen(value) > most)
			fatal("--socket=%s: must be 1 to %zu characters long",
			      value, most);
		o->socket = value;
		break;
	case OPT_SOCKET_GROUP:
		o->socket_group = value;
		break;
	case OPT_CHECK:
		o->check = true;
		break;
	case OPT_HELP:
		fputs(help, stdout);
		exit(0);
	case OPT_VERSION:
		printf("tmem-broker %s\n", VERSION);
		exit(0);
	}
}

void options_read(struct options *o, int argc, char **argv)
{
	int option;

	*o = (struct options){
		.config = "/etc/tmem-broker.conf",
		.socket = "/run/tmem-broker/socket",
	};
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", long_options, NULL)) !=
	       -1) {
		if (option == ':')
			fatal("%s: needs a value", wrong_option(argv));
		if (option == '?')
			fatal("%s: no such option, or one without a value; see "
			      "--help",
			      wrong_option(argv));
		take(o, option, optarg);
	}
	if (optind < argc)
		fatal("'%s': is no option; see --help", argv[optind]);
}
