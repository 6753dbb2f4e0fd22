// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A UNIX socket that few may connect to
 */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "listen-at.h"

/* Nobody gets in before the group is right. */
static int bind_closed(int fd, const struct sockaddr_un *address)
{
	mode_t mask = umask(0177);
	int error = bind(fd, (const struct sockaddr *)address, sizeof(*address))
			    ? errno
			    : 0;

	umask(mask);
	return error;
}

int listen_at(const char *path, int type, const char *group, int backlog,
	      char *why, size_t size)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const struct group *found = group ? getgrnam(group) : NULL;
	int fd, error;

	if (group && !found) {
		snprintf(why, size, "--socket-group=%s: there is no such group",
			 group);
		return -1;
	}
	if (strlen(path) >= sizeof(address.sun_path)) {
		snprintf(why, size, "must be at most %zu characters long",
			 sizeof(address.sun_path) - 1);
		return -1;
	}
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, type, 0);
	error = fd < 0 ? errno : bind_closed(fd, &address);
	if (error) {
		snprintf(why, size, "cannot listen there: %s", strerror(error));
	} else if (group &&
		   (chown(path, -1, found->gr_gid) || chmod(path, 0660))) {
		error = errno;
		snprintf(why, size, "--socket-group=%s: cannot give it: %s",
			 group, strerror(error));
		unlink(path);
	} else if (listen(fd, backlog)) {
		error = errno;
		snprintf(why, size, "cannot listen there: %s", strerror(error));
		unlink(path);
	}
	if (error && fd >= 0)
		close(fd);
	return error ? -1 : fd;
}
