// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * UNIX sockets, as conventions for vhost-user back ends have them
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "listen-at.h"
#include "report.h"
#include "socket.h"

/* Somebody listens at @address? */
static bool is_alive(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool alive = fd >= 0 && (!connect(fd, (const struct sockaddr *)address,
					  sizeof(*address)) ||
				 errno != ECONNREFUSED);

	if (fd >= 0)
		close(fd);
	return alive;
}

static void make_way(const char *option, const struct sockaddr_un *address)
{
	struct stat st;

	if (lstat(address->sun_path, &st))
		return;
	if (!S_ISSOCK(st.st_mode))
		fatal("%s=%s: is there already, and no socket: give another "
		      "path, or remove it",
		      option, address->sun_path);
	if (is_alive(address))
		fatal("%s=%s: another process listens there: give another "
		      "path, or end it",
		      option, address->sun_path);
	unlink(address->sun_path);
}

int socket_listen(const char *option, const char *path, const char *group)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char why[200];
	int fd;

	if (strlen(path) < sizeof(address.sun_path)) {
		strcpy(address.sun_path, path);
		make_way(option, &address);
	}
	fd = listen_at(path, SOCK_STREAM | SOCK_CLOEXEC, group, 4, why,
		       sizeof(why));
	if (fd < 0)
		fatal("%s=%s: %s", option, path, why);
	return fd;
}

bool socket_is_listening(int fd)
{
	int domain, type, listening;
	socklen_t len = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) ||
	    getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) ||
	    domain != AF_UNIX || type != SOCK_STREAM)
		fatal("--fd=%d: must be an open UNIX stream socket", fd);
	return listening;
}
