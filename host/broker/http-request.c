// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a scraper asks for: one HTTP request
 */
#include <string.h>
#include <strings.h>

#include "http-request.h"

/* A part of the request. */
struct span {
	const char *at;
	size_t length;
};

static bool is(struct span s, const char *text)
{
	return s.length == strlen(text) && !memcmp(s.at, text, s.length);
}

static bool is_any_case(struct span s, const char *text)
{
	return s.length == strlen(text) && !strncasecmp(s.at, text, s.length);
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t';
}

static struct span trim(struct span s)
{
	while (s.length && is_space(*s.at))
		s = (struct span){ s.at + 1, s.length - 1 };
	while (s.length && is_space(s.at[s.length - 1]))
		s.length--;
	return s;
}

/*
 * Take what is before @end away from @rest; all of it, and false, where there
 * is no @end.
 */
static bool cut(struct span *rest, char end, struct span *part)
{
	const char *found =
		rest->length ? memchr(rest->at, end, rest->length) : NULL;

	*part = *rest;
	if (!found) {
		*rest = (struct span){ rest->at + rest->length, 0 };
		return false;
	}
	part->length = found - rest->at;
	*rest = (struct span){ found + 1, rest->length - part->length - 1 };
	return true;
}

/* A line, which ends with \n or \r\n; false: there is no whole one. */
static bool cut_line(struct span *rest, struct span *line)
{
	if (!cut(rest, '\n', line))
		return false;
	if (line->length && line->at[line->length - 1] == '\r')
		line->length--;
	return true;
}

/* ---------------------------------------------------------------- accept */

/* How much a format is wanted, in 1/1000: the most that any range says. */
struct wanted {
	unsigned int openmetrics, text;
};

/* "1", "0.5", "0.333": thousandths.  What is none counts as not wanted. */
static unsigned int read_quality(struct span s)
{
	unsigned int value, unit = 1000;

	if (!s.length || (*s.at != '0' && *s.at != '1') || s.length > 5 ||
	    (s.length > 1 && s.at[1] != '.'))
		return 0;
	value = (*s.at - '0') * 1000;
	for (size_t i = 2; i < s.length; i++) {
		if (s.at[i] < '0' || s.at[i] > '9')
			return 0;
		unit /= 10;
		value += (s.at[i] - '0') * unit;
	}
	return value > 1000 ? 1000 : value;
}

/* One of Accept's ranges: "text/plain;version=0.0.4;q=0.5". */
static void read_range(struct span range, struct wanted *wanted)
{
	struct span type, parameter, name;
	unsigned int quality = 1000;
	bool known_version = true, openmetrics;

	cut(&range, ';', &type);
	type = trim(type);
	openmetrics = is_any_case(type, "application/openmetrics-text");
	while (range.length) {
		cut(&range, ';', &parameter);
		cut(&parameter, '=', &name);
		name = trim(name);
		parameter = trim(parameter);
		if (is_any_case(name, "q"))
			quality = read_quality(parameter);
		else if (openmetrics && is_any_case(name, "version"))
			known_version = is(parameter, "1.0.0");
	}
	if (openmetrics && known_version && quality > wanted->openmetrics)
		wanted->openmetrics = quality;
	if ((is_any_case(type, "text/plain") || is(type, "text/*") ||
	     is(type, "*/*")) &&
	    quality > wanted->text)
		wanted->text = quality;
}

static void read_accept(struct span value, struct wanted *wanted)
{
	struct span range;

	while (value.length) {
		cut(&value, ',', &range);
		read_range(range, wanted);
	}
}

/* --------------------------------------------------------------- request */

/* Letters of method, version and header names; and all of a target. */
static bool is_plain(struct span s)
{
	for (size_t i = 0; i < s.length; i++)
		if (s.at[i] <= ' ' || s.at[i] > '~')
			return false;
	return s.length;
}

/* "http://host/metrics?x" is "/metrics", as is "/metrics". */
static struct span path_of(struct span target)
{
	struct span path;

	if (target.length > 7 && !strncasecmp(target.at, "http://", 7)) {
		const char *slash =
			memchr(target.at + 7, '/', target.length - 7);

		if (!slash)
			return (struct span){ "/", 1 };
		target.length -= slash - target.at;
		target.at = slash;
	}
	cut(&target, '?', &path);
	return path;
}

static int read_first(struct span line, struct http_request *request)
{
	struct span method, target, path;

	if (!cut(&line, ' ', &method) || !cut(&line, ' ', &target) ||
	    !is_plain(method) || !is_plain(target) || !is_plain(line))
		return 400;
	request->chunked = is(line, "HTTP/1.1");
	if (!request->chunked && !is(line, "HTTP/1.0"))
		return line.length > 5 && !memcmp(line.at, "HTTP/", 5) ? 505
								       : 400;
	request->head = is(method, "HEAD");
	path = path_of(target);
	if (!is(path, "/metrics"))
		return 404;
	return request->head || is(method, "GET") ? 200 : 405;
}

int http_request_read(const char *text, size_t length,
		      struct http_request *request)
{
	struct span rest = { text, length }, line, name;
	struct wanted wanted = { 0 };
	bool good = true;
	int status;

	*request = (struct http_request){ 0 };
	if (!cut_line(&rest, &line))
		return 0;
	status = read_first(line, request);
	for (;;) {
		if (!cut_line(&rest, &line))
			return 0;
		if (!line.length)
			break;
		/* A line that goes on in the next one is no more allowed. */
		if (!cut(&line, ':', &name) || !is_plain(name))
			good = false;
		else if (is_any_case(name, "accept"))
			read_accept(line, &wanted);
	}
	request->openmetrics =
		wanted.openmetrics && wanted.openmetrics >= wanted.text;
	return good ? status : 400;
}

const char *http_status_text(int status)
{
	switch (status) {
	case 200:
		return "200 OK";
	case 400:
		return "400 Bad Request";
	case 404:
		return "404 Not Found";
	case 405:
		return "405 Method Not Allowed";
	case 431:
		return "431 Request Header Fields Too Large";
	default:
		return "505 HTTP Version Not Supported";
	}
}
