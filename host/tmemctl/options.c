// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command line of tmemctl
 */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "bytes.h"
#include "options.h"
#include "report.h"
#include "wrong-option.h"

#define DEFAULT_SOCKET	 "/run/tmem-broker/socket"
#define DEFAULT_SECONDS	 10
#define DEFAULT_INTERVAL 1
#define MAX_SECONDS	 86400

enum {
	OPT_BROKER = 256,
	OPT_QMP,
	OPT_STATS_PATH,
	OPT_JSON,
	OPT_MAX,
	OPT_WEIGHT,
	OPT_SECONDS,
	OPT_ONCE,
	OPT_INTERVAL,
	OPT_HELP,
	OPT_VERSION,
};

static const struct option long_options[] = {
	{ "broker", required_argument, NULL, OPT_BROKER },
	{ "qmp", required_argument, NULL, OPT_QMP },
	{ "stats-path", required_argument, NULL, OPT_STATS_PATH },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "max", required_argument, NULL, OPT_MAX },
	{ "weight", required_argument, NULL, OPT_WEIGHT },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "interval", required_argument, NULL, OPT_INTERVAL },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char sources_help[] =
	"Where it asks; several of --qmp and --stats-path may be given:\n"
	"  --broker=SOCKET      a tmem-broker; default: " DEFAULT_SOCKET "\n"
	"  --qmp=SOCKET         a QEMU with -qmp "
	"unix:SOCKET,server=on,wait=off\n"
	"  --stats-path=SOCKET  a vhost-user-tmem with this --stats-path\n";

static const char help[] =
	"usage: tmemctl COMMAND [OPTION...] [ARGUMENT...]\n"
	"Shows and changes who may hold how much memory of a host's "
	"virtio-tmem stores.\n"
	"\n"
	"  top                  who holds, wants and gives, live\n"
	"  stats [NAME...]      all numbers\n"
	"  advise [NAME...]     grow, keep, shrink or remove, and why\n"
	"  limits NAME          change --max=BYTES and --weight=N\n"
	"  freeze NAME          leave the lease as it is\n"
	"  thaw NAME            ... no longer\n"
	"  shrink NAME BYTES    recall so much of the lease\n"
	"  names                the stores' names\n"
	"\n";

static const char tail[] =
	"\n"
	"  --help, --version    'tmemctl COMMAND --help': its options\n"
	"\n"
	"Exit status: 0; 1: refused, or failed; 2: a mistake in the command "
	"line.\n";

/* ------------------------------------------------------------------- help */

_Noreturn static void print_help(const struct command *command)
{
	if (command)
		printf("usage: tmemctl %s%s\n%s", command->name, command->args,
		       command->help);
	else
		fputs(help, stdout);
	fputs(command ? "\n" : "", stdout);
	fputs(sources_help, stdout);
	if (!command)
		fputs(tail, stdout);
	if (fflush(stdout))
		exit(EXIT_REFUSED);
	exit(0);
}

_Noreturn static void print_version(void)
{
	printf("tmemctl %s\n", VERSION);
	exit(0);
}

/* ----------------------------------------------------------------- values */

uint64_t option_bytes(const char *what, const char *value)
{
	uint64_t bytes;

	if (!bytes_read(value, &bytes) || !bytes ||
	    bytes > TMEM_LEASE_MAX_BYTES)
		misuse("%s%s: must be bytes, 1 to %llu, or with K, M, G, T "
		       "after the number",
		       what, value, TMEM_LEASE_MAX_BYTES);
	return bytes;
}

static uint64_t number(const char *option, const char *value, uint64_t min,
		       uint64_t max)
{
	uint64_t number;

	if (!number_read(value, min, max, &number))
		misuse("--%s=%s: must be a number, %" PRIu64 " to %" PRIu64,
		       option, value, min, max);
	return number;
}

static void add_source(struct options *o, const struct source_ops *ops,
		       const char *option, const char *path)
{
	unsigned int n = o->num_sources;

	if (!*path)
		misuse("--%s=: needs the path of a socket", option);
	if (n == MAX_SOURCES)
		misuse("--%s=%s: more than %u sockets", option, path,
		       MAX_SOURCES);
	if (n && (ops == &broker_ops || o->source[0].ops == &broker_ops))
		misuse("--%s=%s: a broker is asked alone: leave out --%s=%s",
		       option, path, o->source[0].option, o->source[0].path);
	o->source[n] = (struct source){
		.ops = ops,
		.option = option,
		.path = path,
		.fd = -1,
		.number = n,
	};
	o->num_sources++;
}

/* The options that not all commands have; which were given is in *@given. */
static void take_own(struct options *o, int option, const char *value,
		     unsigned int *given)
{
	switch (option) {
	case OPT_JSON:
		*given |= ALLOW_JSON;
		o->json = true;
		break;
	case OPT_ONCE:
		*given |= ALLOW_ONCE;
		o->once = true;
		break;
	case OPT_MAX:
		*given |= ALLOW_MAX;
		o->max = option_bytes("--max=", value);
		break;
	case OPT_WEIGHT:
		*given |= ALLOW_WEIGHT;
		o->weight = number("weight", value, 1, TMEM_LEASE_MAX_WEIGHT);
		break;
	case OPT_SECONDS:
		*given |= ALLOW_SECONDS;
		o->seconds = number("seconds", value, 0, MAX_SECONDS);
		break;
	case OPT_INTERVAL:
		*given |= ALLOW_INTERVAL;
		o->interval = number("interval", value, 1, 3600);
		break;
	}
}

static void take(struct options *o, int option, const char *value,
		 unsigned int *given, bool *want_help)
{
	switch (option) {
	case OPT_BROKER:
		add_source(o, &broker_ops, "broker", value);
		break;
	case OPT_QMP:
		add_source(o, &qemu_ops, "qmp", value);
		break;
	case OPT_STATS_PATH:
		add_source(o, &backend_ops, "stats-path", value);
		break;
	case OPT_HELP:
		*want_help = true;
		break;
	case OPT_VERSION:
		print_version();
	default:
		take_own(o, option, value, given);
		break;
	}
}

/* ---------------------------------------------------------------- command */

static const struct command *find_command(const char *name)
{
	for (unsigned int i = 0; i < num_commands; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	misuse("'%s': no such command; see --help", name);
}

static void check_given(const struct command *command, unsigned int given)
{
	static const char *const names[] = { "json",	"max",	"weight",
					     "seconds", "once", "interval" };
	unsigned int wrong = given & ~command->allowed;

	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (wrong >> i & 1)
			misuse("--%s: 'tmemctl %s' has no such option; see "
			       "'tmemctl %s --help'",
			       names[i], command->name, command->name);
}

static void check_args(const struct options *o)
{
	const struct command *c = o->command;

	if (o->num_args < c->min_args)
		misuse("usage: tmemctl %s%s", c->name, c->args);
	if (o->num_args > c->max_args)
		misuse("'%s': is one too many; usage: tmemctl %s%s",
		       o->args[c->max_args], c->name, c->args);
	if (c->allowed & ALLOW_MAX && !o->max && !o->weight)
		misuse("limits: what is to change? give --max=BYTES, "
		       "--weight=N, or both");
}

void options_read(struct options *o, int argc, char **argv)
{
	unsigned int given = 0;
	bool want_help = false;
	int option;

	*o = (struct options){
		.seconds = DEFAULT_SECONDS,
		.interval = DEFAULT_INTERVAL,
	};
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", long_options, NULL)) !=
	       -1) {
		if (option == ':')
			misuse("%s: needs a value", wrong_option(argv));
		if (option == '?')
			misuse("%s: no such option, or one without a value; "
			       "see "
			       "--help",
			       wrong_option(argv));
		take(o, option, optarg, &given, &want_help);
	}
	if (optind < argc)
		o->command = find_command(argv[optind++]);
	if (want_help)
		print_help(o->command);
	if (!o->command)
		misuse("no command: one of top, stats, advise, limits, freeze, "
		       "thaw, shrink, names; see --help");
	o->args = argv + optind;
	o->num_args = argc - optind;
	check_given(o->command, given);
	check_args(o);
	if (!o->num_sources)
		add_source(o, &broker_ops, "broker", DEFAULT_SOCKET);
}

/* ------------------------------------------------------------------ stores */

/* So many names are told; of more, how many. */
#define NAMES_TOLD 20

static void no_such_store(const struct view *view, const char *name)
{
	char text[NAMES_TOLD * (NAME_SIZE + 2) + 64] = "there is none";
	size_t length = 0;

	for (unsigned int i = 0; i < view->num && i < NAMES_TOLD; i++)
		length += sprintf(text + length, "%s%s",
				  i ? ", " : "there are ", view->vm[i].name);
	if (view->num > NAMES_TOLD)
		sprintf(text + length, " and %u more", view->num - NAMES_TOLD);
	fatal("'%s': no such store: %s", name, text);
}

struct vm *options_find(const struct view *view, const char *name)
{
	bool several;
	struct vm *vm = view_find(view, name, &several);

	if (several)
		fatal("'%s': several stores are called so: ask one of the "
		      "sockets alone",
		      name);
	if (!vm)
		no_such_store(view, name);
	return vm;
}

static bool is_named(const struct options *o, const struct view *view,
		     const struct vm *vm)
{
	for (unsigned int i = 0; i < o->num_args; i++)
		if (options_find(view, o->args[i]) == vm)
			return true;
	return false;
}

void options_view(struct options *o, struct view *view)
{
	struct view named = { 0 };
	struct why why = { "" };

	if (sources_read(o->source, o->num_sources, view, &why))
		fatal("%s", why.text);
	if (!o->num_args)
		return;
	for (unsigned int i = 0; i < view->num; i++)
		if (is_named(o, view, &view->vm[i]))
			*view_add(&named) = view->vm[i];
	/* Also where there is none of them at all. */
	for (unsigned int i = 0; i < o->num_args; i++)
		options_find(view, o->args[i]);
	free(view->vm);
	view->vm = named.vm;
	view->num = named.num;
}
