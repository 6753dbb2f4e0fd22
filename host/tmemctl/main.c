// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * tmemctl: who holds how much host memory, for people
 */
#include <fcntl.h>
#include <limits.h>

#include "options.h"
#include "report.h"

const struct command commands[] = {
	{ "top",
	  "Shows each store's memory as a bar: what it holds, wants and "
	  "gives.\n"
	  "q ends it; j and k, or arrows, scroll.  On what is no terminal it\n"
	  "prints once, after an interval.\n"
	  "\n"
	  "  --interval=SECONDS   draw so often; default: 1\n"
	  "  --once               print once, and end\n",
	  0, 0, " [OPTION...]", ALLOW_ONCE | ALLOW_INTERVAL, command_top },
	{ "stats",
	  "Prints all numbers, of all stores or those named: a line each.\n"
	  "\n"
	  "  --json               one JSON object\n",
	  0, UINT_MAX, " [--json] [NAME...]", ALLOW_JSON, command_stats },
	{ "advise",
	  "Watches the stores for a while, and says what to do with their "
	  "memory:\n"
	  "grow, keep, shrink or remove; or that it cannot tell.\n"
	  "\n"
	  "  --seconds=N          how long, 1 to 86400; default: 10.  0: what "
	  "was\n"
	  "                       since their processes began\n"
	  "  --json               one JSON object\n",
	  0, UINT_MAX, " [--seconds=N] [--json] [NAME...]",
	  ALLOW_JSON | ALLOW_SECONDS, command_advise },
	{ "limits",
	  "Changes what a store may have, until the broker reads its "
	  "configuration\n"
	  "again, or it or the store is started again.  Of a QEMU's store "
	  "--max is\n"
	  "its size.\n"
	  "\n"
	  "  --max=BYTES          most that it is leased; also with K, M, G, "
	  "T\n"
	  "  --weight=N           1 to 10000\n",
	  1, 1, " NAME [--max=BYTES] [--weight=N]", ALLOW_MAX | ALLOW_WEIGHT,
	  command_limits },
	{ "freeze",
	  "Leaves a store's lease as it is, but for pressure of the host, "
	  "until "
	  "'thaw',\n"
	  "or until the broker or the store is started again.  A QEMU's store "
	  "takes no\n"
	  "page then: its guest waits where it swaps out.\n",
	  1, 1, " NAME", 0, command_freeze },
	{ "thaw", "Ends what freeze began.\n", 1, 1, " NAME", 0, command_thaw },
	{ "shrink",
	  "Recalls so many bytes of a store's lease, or what there is above "
	  "its\n"
	  "reservation.  What it wants again it may get again, if nobody else "
	  "does.\n"
	  "Of a QEMU's store the size becomes so much less, and stays so.\n",
	  2, 2, " NAME BYTES", 0, command_shrink },
	{ "names", "Prints the stores' names, a line each.\n", 0, 0, "", 0,
	  command_names },
};
const unsigned int num_commands = sizeof(commands) / sizeof(commands[0]);

int main(int argc, char **argv)
{
	static struct options options;
	int status;

	/* A socket is not to be what is printed to. */
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", O_RDWR);
	options_read(&options, argc, argv);
	status = options.command->run(&options);
	/* A full disk is no success. */
	if (fflush(stdout) || ferror(stdout))
		fatal("cannot write what was asked for");
	return status;
}
