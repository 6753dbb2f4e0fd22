// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A QEMU's machine protocol (QMP): JSON objects, one after another, on a stream
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "json.h"

/* What was read, and not yet taken. */
struct parser {
	struct json_tokener *tokener;
	size_t at, length;
	char bytes[16384];
};

static int fail(struct source *s, struct why *why, const char *what)
{
	source_close(s);
	return why_set(why, "--%s=%s: %s", s->option, s->path, what);
}

/* 0, or -1 and why. */
static int fill(struct source *s, struct parser *p, const char *waiting,
		struct why *why)
{
	for (;;) {
		ssize_t got = recv(s->fd, p->bytes, sizeof(p->bytes), 0);

		if (got > 0) {
			p->at = 0;
			p->length = got;
			return 0;
		}
		if (!got || (errno != EAGAIN && errno != EINTR))
			return fail(s, why, "QEMU has closed the connection");
		if (source_wait(s, POLLIN))
			return fail(s, why, waiting);
	}
}

/* The next object; NULL, and why. */
static struct json_object *next_object(struct source *s, const char *waiting,
				       struct why *why)
{
	struct parser *p = s->parser;
	size_t bytes = 0;

	for (;;) {
		struct json_object *object;
		enum json_tokener_error error;

		if (p->at == p->length && fill(s, p, waiting, why))
			return NULL;
		object = json_tokener_parse_ex(p->tokener, p->bytes + p->at,
					       p->length - p->at);
		error = json_tokener_get_error(p->tokener);
		if (error == json_tokener_success) {
			p->at += json_tokener_get_parse_end(p->tokener);
			if (json_object_is_type(object, json_type_object))
				return object;
			json_object_put(object);
			fail(s, why, "what is there does not speak QMP");
			return NULL;
		}
		bytes += p->length - p->at;
		p->at = p->length;
		if (error != json_tokener_continue || bytes > JSON_MAX) {
			fail(s, why, "what is there does not speak QMP");
			return NULL;
		}
	}
}

static int send_text(struct source *s, const char *text, size_t length,
		     struct why *why)
{
	size_t sent = 0;

	while (sent < length) {
		ssize_t done =
			send(s->fd, text + sent, length - sent, MSG_NOSIGNAL);

		if (done > 0)
			sent += done;
		else if (errno != EAGAIN && errno != EINTR)
			return fail(s, why, "QEMU has closed the connection");
		else if (source_wait(s, POLLOUT))
			return fail(s, why, "QEMU does not read");
	}
	return 0;
}

static int send_object(struct source *s, struct json_object *object,
		       struct why *why)
{
	size_t length;
	const char *text = json_object_to_json_string_length(
		object, JSON_C_TO_STRING_PLAIN, &length);

	return send_text(s, text, length, why) || send_text(s, "\n", 1, why)
		       ? -1
		       : 0;
}

/* Events come in between. */
static struct json_object *reply(struct source *s, struct why *why)
{
	struct json_object *object, *result;

	for (;;) {
		object = next_object(s, "QEMU does not answer", why);
		if (!object || !json_member(object, "event"))
			break;
		json_object_put(object);
		/* Who sends nothing else does not answer. */
		if (now_ms() >= s->deadline_ms) {
			fail(s, why, "QEMU does not answer");
			return NULL;
		}
	}
	if (!object)
		return NULL;
	result = json_object_get(json_member(object, "return"));
	if (!result)
		why_set(why, "%s",
			json_text(json_member(object, "error"), "desc"));
	json_object_put(object);
	if (!result && !*why->text)
		fail(s, why, "what is there does not speak QMP");
	return result;
}

struct json_object *qmp_do(struct source *s, const char *command,
			   struct json_object *arguments, struct why *why)
{
	struct json_object *object = json_object_new_object();
	int error;

	json_object_object_add(object, "execute",
			       json_object_new_string(command));
	if (arguments)
		json_object_object_add(object, "arguments", arguments);
	error = send_object(s, object, why);
	json_object_put(object);
	return error ? NULL : reply(s, why);
}

static int new_parser(struct source *s)
{
	struct parser *p = s->parser;

	if (p)
		json_tokener_free(p->tokener);
	else
		p = s->parser = calloc(1, sizeof(*p));
	if (!p)
		return -1;
	p->at = p->length = 0;
	p->tokener = json_tokener_new();
	return p->tokener ? 0 : -1;
}

int qmp_connect(struct source *s, struct why *why)
{
	struct json_object *greeting, *result;
	bool good;

	if (s->fd >= 0)
		return 0;
	if (source_connect(s, SOCK_STREAM, "QEMU there",
			   "does it run, with -qmp unix:PATH,server=on,"
			   "wait=off?",
			   why))
		return -1;
	if (new_parser(s))
		return fail(s, why, "no memory");
	greeting = next_object(s,
			       "QEMU does not greet: one program at a time can "
			       "be connected: is another?",
			       why);
	if (!greeting)
		return -1;
	good = json_member(greeting, "QMP");
	json_object_put(greeting);
	if (!good)
		return fail(s, why, "what is there does not speak QMP");
	result = qmp_do(s, "qmp_capabilities", NULL, why);
	json_object_put(result);
	return result ? 0 : -1;
}
