/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zram in a guest, where this machine has none
 *
 * This program runs there, too, with the same pages: zram, bare LZ4 and the
 * store take turns within one process, as they would here.  guest.py runs the
 * guest; it has the pages from its input, and prints lines with tabs:
 *
 *   guest    KIND
 *   figure   KEY UNIT WHAT VALUE    one of each round
 *   missing  WHY
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sides.h"

#define GROUP "zram"

/* ---------------------------------------------------------------- the host */

struct guest {
	pid_t pid;
	int to, from; /* its input, its output */
};

static void guest_exec(const char *script, bool quick)
{
	char self[4096];
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);

	/* It has a guest and a file to clean up when this program ends early. */
	prctl(PR_SET_PDEATHSIG, SIGINT);
	signal(SIGPIPE, SIG_DFL);
	if (length > 0) {
		self[length] = 0;
		execl(script, script, self, quick ? "--quick" : NULL,
		      (char *)NULL);
	}
	printf("missing\tno guest can be run: %s: %s\n", script,
	       strerror(errno));
	fflush(stdout);
	_exit(0);
}

static void guest_start(struct guest *guest, const char *script, bool quick)
{
	int to[2], from[2];

	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	guest->pid = fork();
	if (guest->pid < 0)
		die("fork: %s", strerror(errno));
	if (!guest->pid) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		guest_exec(script, quick);
	}
	close(to[0]);
	close(from[1]);
	guest->to = to[1];
	guest->from = from[0];
}

/* One that has ended takes none, and has said why. */
static void hand_over(struct guest *guest, const struct corpus *corpus)
{
	signal(SIGPIPE, SIG_IGN);
	for (uint32_t i = 0; i < corpus->pages; i++)
		if (write(guest->to, corpus->page[i], PAGE) != PAGE)
			break;
	close(guest->to);
	signal(SIGPIPE, SIG_DFL);
}

/* The next word; all are used until the end. */
static const char *word(char **line)
{
	char *word = strsep(line, "\t");

	return strdup(word ? word : "");
}

/* False: a line about something else. */
static bool take_line(char *line)
{
	const char *verb, *key, *unit, *what;

	line[strcspn(line, "\n")] = 0;
	verb = strsep(&line, "\t");
	if (!strcmp(verb, "guest")) {
		group_in_guest(GROUP, word(&line));
	} else if (!strcmp(verb, "missing")) {
		group_missing(GROUP, word(&line));
	} else if (!strcmp(verb, "figure")) {
		key = word(&line);
		unit = word(&line);
		what = word(&line);
		figure_note(GROUP, key, what, unit, atof(word(&line)));
	} else {
		return false;
	}
	return true;
}

static void guest_end(struct guest *guest)
{
	struct pollfd poll_fd = { .fd = guest->from, .events = POLLIN };
	FILE *from = fdopen(guest->from, "r");
	char line[512];
	bool said = false;
	int status;

	while (!poll(&poll_fd, 1, 8000))
		progress("zram, in a guest");
	while (from && fgets(line, sizeof(line), from))
		said |= take_line(line);
	if (from)
		fclose(from);
	if (waitpid(guest->pid, &status, 0) != guest->pid || !said || status)
		group_missing(GROUP, "the guest ended early");
}

void guest_run(const char *script, const struct corpus *corpus, bool quick)
{
	struct guest guest;

	progress("zram, in a guest");
	guest_start(&guest, script, quick);
	hand_over(&guest, corpus);
	guest_end(&guest);
}

/* --------------------------------------------------------------- the guest */

/* One without a value, too: it was not measured, but it is there. */
static void print_figure(const struct figure *figure, double value)
{
	printf("figure\t%s\t%s\t%s\t%.9g\n", figure->key, figure->unit,
	       figure->what, value);
}

static void print_figures(void)
{
	const struct figure *figure;
	const struct group *group;

	for (unsigned int i = 0; (group = group_at(i)); i++)
		if (!strcmp(group->key, GROUP) && group->missing)
			printf("missing\tin a guest: %s\n", group->missing);
	for (unsigned int i = 0; (figure = figure_at(i)); i++) {
		for (unsigned int j = 0; j < figure->count; j++)
			print_figure(figure, figure->value[j]);
		if (!figure->count)
			print_figure(figure, NAN);
	}
}

void guest_inside(const char *path, unsigned int rounds)
{
	struct corpus corpus = { 0 };
	struct bench *bench;

	corpus_file(&corpus, path);
	bench = bench_create(&corpus);
	/* User Mode Linux counts CPU time in ticks of 10 ms. */
	bench->wall = true;
	zram_run(bench, rounds);
	bench_destroy(bench);
	corpus_free(&corpus);
	print_figures();
}
