// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who is asked: connections, and how long they are waited for
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "source.h"

int why_set(struct why *why, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why->text, sizeof(why->text), format, ap);
	va_end(ap);
	/* Words of others may be in it. */
	for (char *c = why->text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	return -1;
}

static const char *mend_of(int error, const char *mend)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return "become root";
	case EPROTOTYPE:
		return "that is another kind of socket: is the option the "
		       "right one?";
	default:
		return mend;
	}
}

int source_connect(struct source *s, int type, const char *there,
		   const char *mend, struct why *why)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred who;
	socklen_t length = sizeof(who);

	if (strlen(s->path) >= sizeof(address.sun_path))
		return why_set(why, "--%s=%s: longer than %zu characters",
			       s->option, s->path,
			       sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, s->path);
	s->fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0 || connect(s->fd, (const struct sockaddr *)&address,
				 sizeof(address))) {
		int error = errno;

		source_close(s);
		/* A queue of connections that nobody accepts is full. */
		return why_set(why, "--%s=%s: no %s: %s; %s", s->option,
			       s->path, there,
			       error == EAGAIN ? "it does not answer"
					       : strerror(error),
			       mend_of(error, mend));
	}
	s->pid = UNKNOWN;
	if (!getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &who, &length) &&
	    who.pid)
		s->pid = who.pid;
	return 0;
}

void source_close(struct source *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

int source_wait(struct source *s, short events)
{
	for (;;) {
		uint64_t now = now_ms();
		struct pollfd fd = { .fd = s->fd, .events = events };
		int ready;

		if (now >= s->deadline_ms)
			return -1;
		ready = poll(&fd, 1, s->deadline_ms - now);
		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return -1;
	}
}

int sources_read(struct source *sources, unsigned int num, struct view *view,
		 struct why *why)
{
	int error = 0;

	view_free(view);
	for (unsigned int i = 0; i < num; i++) {
		unsigned int first = view->num;

		sources[i].deadline_ms = now_ms() + ANSWER_MS;
		if (sources[i].ops->read(&sources[i], view, why)) {
			error = -1;
			view->num = first;
			continue;
		}
		for (unsigned int k = first; k < view->num; k++)
			view->vm[k].source = i;
	}
	view->at_ms = now_ms();
	return error;
}
