// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The socket, and the lock that says whose it is
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "listen-at.h"
#include "listen.h"
#include "report.h"

#define BACKLOG	  1024
#define PATH_SIZE (sizeof(((struct sockaddr_un *)0)->sun_path))

static char lock_path[PATH_SIZE];
static int lock_fd = -1;
static unsigned int noted;
static uint64_t noted_generation;

/* Is what we have locked what others would find at its path? */
static int is_current(int fd)
{
	struct stat ours, theirs;

	return !fstat(fd, &ours) && !stat(lock_path, &theirs) &&
	       ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

static void lock(const char *path)
{
	snprintf(lock_path, sizeof(lock_path), "%s.lock", path);
	for (;;) {
		lock_fd = open(lock_path,
			       O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (lock_fd < 0)
			fatal("--socket=%s: cannot make %s: %s", path,
			      lock_path, strerror(errno));
		if (flock(lock_fd, LOCK_EX | LOCK_NB))
			fatal("--socket=%s: another broker has it: give "
			      "another path, or end it",
			      path);
		/* The one before may have removed it as we opened it. */
		if (is_current(lock_fd))
			return;
		close(lock_fd);
	}
}

/* A dead broker's socket. */
static void make_way(const char *path)
{
	struct stat st;

	if (lstat(path, &st))
		return;
	if (!S_ISSOCK(st.st_mode))
		fatal("--socket=%s: is there already, and no socket: give "
		      "another path, or remove it",
		      path);
	unlink(path);
}

static unsigned int read_survivors(uint64_t *generation)
{
	char text[40] = "", *end;
	unsigned int stores;

	if (pread(lock_fd, text, sizeof(text) - 1, 0) < 0)
		return 0;
	stores = strtoul(text, &end, 10);
	*generation = strtoull(end, NULL, 16);
	return stores;
}

int listen_open(const char *path, const char *group, unsigned int *survivors,
		uint64_t *generation)
{
	char why[200];
	int fd;

	lock(path);
	*survivors = noted = read_survivors(generation);
	noted_generation = *generation;
	make_way(path);
	fd = listen_at(path, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK,
		       group, BACKLOG, why, sizeof(why));
	if (fd < 0)
		fatal("--socket=%s: %s", path, why);
	return fd;
}

void listen_note(unsigned int stores, uint64_t generation)
{
	char text[40];
	int length;

	if (lock_fd < 0 || (stores == noted && generation == noted_generation))
		return;
	noted = stores;
	noted_generation = generation;
	/* Always of one length: there is never a part of another number. */
	length = snprintf(text, sizeof(text), "%010u %016llx\n", stores,
			  (unsigned long long)generation);
	if (pwrite(lock_fd, text, length, 0) != length)
		report("%s: cannot be written: %s", lock_path, strerror(errno));
}

void listen_close(const char *path, unsigned int stores, uint64_t generation)
{
	listen_note(stores, generation);
	unlink(path);
	if (!stores)
		unlink(lock_path);
	/* What stores do from here on is nothing that the next one waits for.
	 */
	close(lock_fd);
	lock_fd = -1;
}
