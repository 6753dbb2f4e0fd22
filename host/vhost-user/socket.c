// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * UNIX sockets, as conventions for vhost-user back ends have them
 */
#include <errno.h>
#include <grp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "report.h"
#include "socket.h"

static gid_t group_id(const char *name)
{
	const struct group *group = getgrnam(name);

	if (!group)
		fatal("--socket-group=%s: there is no such group", name);
	return group->gr_gid;
}

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
	gid_t gid = group ? group_id(group) : (gid_t)-1;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	mode_t mask;

	if (strlen(path) >= sizeof(address.sun_path))
		fatal("%s=%s: must be at most %zu characters long", option,
		      path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	make_way(option, &address);
	/* Nobody gets in before the group is right. */
	mask = umask(0177);
	if (fd < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)))
		fatal("%s=%s: cannot listen there: %s", option, path,
		      strerror(errno));
	umask(mask);
	if (group && (chown(path, -1, gid) || chmod(path, 0660))) {
		unlink(path);
		fatal("--socket-group=%s: cannot give %s to it: %s", group,
		      path, strerror(errno));
	}
	if (listen(fd, 4)) {
		unlink(path);
		fatal("%s=%s: cannot listen there: %s", option, path,
		      strerror(errno));
	}
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
