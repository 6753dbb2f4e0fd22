// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The side of the process that works: what it is given back, what it has kept
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "keeper.h"
#include "report.h"

/* The first descriptor that sd_listen_fds(3) tells of. */
#define LISTEN_FDS_START 3

int fatal_status = 1;

static int keeper_socket = -1;
static struct kept {
	char name[KEEPER_NAME_SIZE];
	int fd;
	bool wanted;
} kept[KEEPER_FDS];
static unsigned int num_kept;

static const char *const part[TMEM_TENANT_FDS] = { "index", "data" };

/*
 * The name of a descriptor.  A socket's path may be longer than a name, and
 * have other characters; that it is this one's the memfds themselves say.
 */
static void make_name(char *name, const char *vm, unsigned int i)
{
	uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */

	for (; *vm; vm++)
		hash = (hash ^ (uint8_t)*vm) * 0x100000001b3;
	snprintf(name, KEEPER_NAME_SIZE, "tmem-%016" PRIx64 "-%s", hash,
		 part[i]);
}

/* --------------------------------------------------------------- messages */

bool keeper_send(int socket, const char *text, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { (char *)text, strlen(text) };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		struct cmsghdr *header;

		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(int));
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL) >= 0;
}

int keeper_receive(int socket, char *text, unsigned int size, int *fd,
		   bool wait)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { text, size - 1 };
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	ssize_t length;

	*fd = -1;
	length = recvmsg(socket, &message,
			 MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
	if (length <= 0)
		return 0;
	text[length] = 0;
	if (message.msg_flags & MSG_CTRUNC)
		report("no descriptor is left for the memory of pages");
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_level == SOL_SOCKET &&
	    header->cmsg_type == SCM_RIGHTS &&
	    header->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(header), sizeof(int));
	return length;
}

/* ------------------------------------------------------------- given back */

static void take(const char *name, int fd)
{
	if (num_kept == KEEPER_FDS || strlen(name) >= KEEPER_NAME_SIZE) {
		close(fd);
		return;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	strcpy(kept[num_kept].name, name);
	kept[num_kept++].fd = fd;
}

/* What systemd has kept; and sockets, which have other names. */
static void take_listen_fds(void)
{
	const char *pid = getenv("LISTEN_PID"), *num = getenv("LISTEN_FDS");
	const char *names = getenv("LISTEN_FDNAMES");
	char *copy, *name, *rest;
	int fd = LISTEN_FDS_START;

	if (!pid || !num || !names || atol(pid) != getpid())
		return;
	copy = rest = strdup(names);
	while (copy && (name = strsep(&rest, ":")) &&
	       fd < LISTEN_FDS_START + atoi(num)) {
		if (!strncmp(name, "tmem-", 5))
			take(name, fd);
		fd++;
	}
	free(copy);
}

/* What the parent has kept, up to an empty line. */
static void take_from_parent(void)
{
	char text[64];
	int fd;

	while (keeper_receive(keeper_socket, text, sizeof(text), &fd, true) &&
	       strcmp(text, "\n"))
		if (fd >= 0)
			take(text, fd);
}

/* Where sd_notify(3)'s messages go; -1: nowhere. */
static int notify_socket(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv("NOTIFY_SOCKET");
	socklen_t length;
	int fd;

	if (!path || (*path != '/' && *path != '@') ||
	    strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
	/* An abstract one has a 0 there, and none at its end. */
	if (*path == '@')
		address.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, length)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

bool keeper_keeps(void)
{
	return keeper_socket >= 0;
}

void keeper_init(void)
{
	const char *parent = getenv(KEEP_VARIABLE);

	if (parent) {
		keeper_socket = atoi(parent);
		fcntl(keeper_socket, F_SETFD, FD_CLOEXEC);
		take_from_parent();
	} else {
		keeper_socket = notify_socket();
		take_listen_fds();
	}
	if (num_kept)
		fatal_status = STATUS_AGAIN;
	unsetenv(KEEP_VARIABLE);
	unsetenv("NOTIFY_SOCKET");
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

/* ------------------------------------------------------------------- kept */

static struct kept *find(const char *vm, unsigned int i)
{
	char name[KEEPER_NAME_SIZE];

	make_name(name, vm, i);
	for (unsigned int n = 0; n < num_kept; n++)
		if (kept[n].fd >= 0 && !strcmp(kept[n].name, name))
			return &kept[n];
	return NULL;
}

bool keeper_kept(const char *vm, int fd[TMEM_TENANT_FDS])
{
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++) {
		struct kept *one = find(vm, i);

		if (!one)
			return false;
		one->wanted = true;
		fd[i] = one->fd;
	}
	return true;
}

static void tell(const char *what, const char *name, int fd)
{
	char text[KEEPER_NAME_SIZE + 32];

	snprintf(text, sizeof(text), "%s=1\nFDNAME=%.*s", what,
		 KEEPER_NAME_SIZE - 1, name);
	if (keeper_socket >= 0 && !keeper_send(keeper_socket, text, fd)) {
		report("who keeps the memory of pages does not answer: %s",
		       strerror(errno));
		close(keeper_socket);
		keeper_socket = -1;
	}
}

static void forget(struct kept *one)
{
	tell("FDSTOREREMOVE", one->name, -1);
	close(one->fd);
	one->fd = -1;
}

void keeper_store(const char *vm, const int fd[TMEM_TENANT_FDS])
{
	char name[KEEPER_NAME_SIZE];

	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++) {
		struct kept *old = find(vm, i);

		if (old)
			forget(old);
		make_name(name, vm, i);
		tell("FDSTORE", name, fd[i]);
	}
}

void keeper_done(void)
{
	for (unsigned int n = 0; n < num_kept; n++)
		if (kept[n].fd >= 0 && !kept[n].wanted)
			forget(&kept[n]);
}
