// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * --keep: the process that keeps memfds while others come and go
 *
 * It maps none of them, listens nowhere, and reads nothing but the few words of
 * keeper.h; so little can end it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "keeper.h"
#include "report.h"

/* Between two that are killed as soon as they work, in ms: twice as long ... */
#define PAUSE_MIN 10
/* ... up to this. */
#define PAUSE_MAX 1000
/* Who has lived so long has worked. */
#define LIVED_S 5

static struct store {
	char name[KEEPER_NAME_SIZE];
	int fd; /* -1: none */
} stores[KEEPER_FDS];

static char program[4096];
static bool ending; /* SIGTERM, SIGINT: whatever comes then */

static struct store *store_find(const char *name)
{
	struct store *empty = NULL;

	for (unsigned int i = 0; i < KEEPER_FDS; i++) {
		if (stores[i].fd >= 0 && !strcmp(stores[i].name, name))
			return &stores[i];
		if (stores[i].fd < 0 && !empty)
			empty = &stores[i];
	}
	return empty;
}

static void store_set(const char *name, int fd)
{
	struct store *store = store_find(name);

	if (!store || strlen(name) >= sizeof(store->name)) {
		if (fd >= 0)
			close(fd);
		return;
	}
	if (store->fd >= 0)
		close(store->fd);
	strcpy(store->name, name);
	store->fd = fd;
}

/*
 * FDSTORE=1 or FDSTOREREMOVE=1, and FDNAME= of what: as many as there can be of
 * all, so that signals are heard whatever the child does.
 */
static void obey(int socket)
{
	char text[128], *name;
	int fd;

	for (unsigned int i = 0; i < 2 * KEEPER_FDS; i++) {
		if (!keeper_receive(socket, text, sizeof(text), &fd, false))
			break;
		name = strstr(text, "\nFDNAME=");
		if (name && !strncmp(text, "FDSTORE=1\n", 10) && fd >= 0)
			store_set(name + strlen("\nFDNAME="), fd);
		else if (name && !strncmp(text, "FDSTOREREMOVE=1\n", 16))
			store_set(name + strlen("\nFDNAME="), -1);
		else if (fd >= 0)
			close(fd);
	}
}

static void give_back(int socket)
{
	for (unsigned int i = 0; i < KEEPER_FDS; i++)
		if (stores[i].fd >= 0)
			keeper_send(socket, stores[i].name, stores[i].fd);
	keeper_send(socket, "\n", -1);
}

/* The child, with its end of the pair; @signals as this process had them. */
static pid_t start(char **argv, const sigset_t *signals, int *socket)
{
	int pair[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		fatal("--keep: socketpair: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		fatal("--keep: cannot make a process: %s", strerror(errno));
	if (!pid) {
		char number[16];

		snprintf(number, sizeof(number), "%d", pair[1]);
		setenv(KEEP_VARIABLE, number, 1);
		fcntl(pair[1], F_SETFD, 0);
		sigprocmask(SIG_SETMASK, signals, NULL);
		execv(program, argv);
		fatal("--keep: cannot run %s: %s", program, strerror(errno));
	}
	close(pair[1]);
	give_back(pair[0]);
	*socket = pair[0];
	return pid;
}

/*
 * While the child lives: what it says, and signals.  Its status.  @again: set
 * if it was ended to be started again.
 */
static int watch(pid_t pid, int socket, int signal_fd, bool *again)
{
	struct pollfd fds[2] = {
		{ .fd = signal_fd, .events = POLLIN },
		{ .fd = socket, .events = POLLIN },
	};
	struct signalfd_siginfo info;
	int status;

	*again = false;
	for (;;) {
		poll(fds, 2, -1);
		if (fds[1].revents & POLLIN)
			obey(socket);
		if (fds[1].revents & (POLLHUP | POLLERR))
			fds[1].fd = -1; /* it is about to end */
		if (!(fds[0].revents & POLLIN) ||
		    read(signal_fd, &info, sizeof(info)) != sizeof(info))
			continue;
		if (info.ssi_signo == SIGCHLD) {
			if (waitpid(pid, &status, WNOHANG) != pid)
				continue;
			obey(socket); /* its last words */
			return status;
		}
		if (info.ssi_signo == SIGHUP)
			*again = true;
		else
			ending = true;
		kill(pid, SIGTERM);
	}
}

static int catch_signals(sigset_t *before)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, before);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (fd < 0)
		fatal("--keep: signalfd: %s", strerror(errno));
	return fd;
}

/* By a signal that was read, or was not?  What else came is of no interest. */
static bool asked_to_end(int signal_fd)
{
	struct pollfd fd = { .fd = signal_fd, .events = POLLIN };
	struct signalfd_siginfo info;

	while (poll(&fd, 1, 0) > 0 &&
	       read(signal_fd, &info, sizeof(info)) == sizeof(info))
		ending |= info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT;
	return ending;
}

static void pause_for(int signal_fd, unsigned int ms)
{
	struct pollfd fd = { .fd = signal_fd, .events = POLLIN };

	poll(&fd, 1, ms);
}

/* Guests' pages are neither in a core file of ours nor for who may trace us. */
static void hide(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0))
		fatal("--keep: cannot turn off core dumps: %s",
		      strerror(errno));
}

static time_t now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

void keep(char **argv)
{
	unsigned int pause_ms = PAUSE_MIN;
	sigset_t signals;
	ssize_t length;
	int signal_fd;

	if (getenv(KEEP_VARIABLE))
		return;
	length = readlink("/proc/self/exe", program, sizeof(program) - 1);
	if (length <= 0)
		fatal("--keep: cannot find the program's file: %s",
		      strerror(errno));
	for (unsigned int i = 0; i < KEEPER_FDS; i++)
		stores[i].fd = -1;
	hide();
	signal_fd = catch_signals(&signals);
	for (;;) {
		time_t began = now_s();
		int socket, status;
		pid_t pid = start(argv, &signals, &socket);
		bool again;

		status = watch(pid, socket, signal_fd, &again);
		close(socket);
		if (asked_to_end(signal_fd))
			exit(WIFEXITED(status) ? WEXITSTATUS(status) : 0);
		/* Its VMM is gone for good, or a mistake: not STATUS_AGAIN. */
		if (WIFEXITED(status) && !again && WEXITSTATUS(status) <= 1)
			exit(WEXITSTATUS(status));
		if (WIFSIGNALED(status) && !again)
			report("killed by signal %d; the next process goes on "
			       "with its pages",
			       WTERMSIG(status));
		pause_ms = again || now_s() - began >= LIVED_S ? PAUSE_MIN
							       : pause_ms;
		pause_for(signal_fd, pause_ms);
		if (asked_to_end(signal_fd))
			exit(0);
		pause_ms = pause_ms * 2 < PAUSE_MAX ? pause_ms * 2 : PAUSE_MAX;
	}
}
