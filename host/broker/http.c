// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Scrapers' connections
 *
 * READING until the request is there, ANSWERING piece by piece as they read,
 * DRAINING until they close: what they still say would, unread, take the answer
 * away from them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "address.h"
#include "http-request.h"
#include "http.h"
#include "listen-at.h"
#include "metrics.h"

#define BACKLOG 64
/* Where nobody can listen now is tried again. */
#define RETRY_MS 5000
/* Connections that are accepted in one turn. */
#define ACCEPTS 4
/* Who is being answered has so long before it makes way. */
#define ANSWER_LEAST_MS 1000
#define DRAIN_MS	1000
/* No place, or no descriptor: nobody is accepted for so long. */
#define DEAF_MS 100
/* Else the kernel keeps megabytes of an answer that nobody reads. */
#define KERNEL_BUFFER 65536
/* "1ff0\r\n" before a chunk, "\r\n" behind it, and the last one. */
#define CHUNK_HEAD 6
#define CHUNK_TAIL 2
#define CHUNK_END  "0\r\n\r\n"

enum phase { FREE, READING, ANSWERING, DRAINING };

struct connection {
	struct watch watch;
	enum phase phase;
	int fd;
	uint64_t opened_ms;
	uint64_t until_ms; /* closed then */
	struct http_request request;
	int status;
	bool made; /* all of the answer: what is in @buffer is its end */
	size_t length, sent;
	struct metrics_answer answer;
	char buffer[HTTP_BUFFER_SIZE]; /* the request, then the answer */
};

_Static_assert(HTTP_REQUEST_SIZE <= HTTP_BUFFER_SIZE, "a request fits");
_Static_assert(HTTP_BUFFER_SIZE <= 0xffff,
	       "four digits say how long a chunk is");

static struct {
	struct watch watch;
	/* As the configuration had it when it was opened; "": nowhere. */
	char address[CONFIG_PATH_SIZE], group[CONFIG_GROUP_SIZE];
	int fd;		   /* -1: none, tried again at @retry_ms */
	uint64_t retry_ms; /* 0: never */
	bool told;	   /* that it cannot be opened */
	uint64_t deaf_until_ms;
	/* Connections that may be accepted at once, in 1/1000, as of then. */
	uint64_t tokens, tokens_ms;
	struct metrics_scrapes scrapes;
	struct connection connection[HTTP_CONNECTIONS];
} http = { .fd = -1 };

/* ----------------------------------------------------------------- close */

static void close_one(struct connection *c)
{
	/* An answer that was written in full is one, whoever closes first. */
	if (c->phase == READING || c->phase == ANSWERING)
		http.scrapes.failed++;
	close(c->fd); /* and epoll forgets it */
	c->phase = FREE;
}

/* The answer is written: wait for the end of what it says. */
static void drain(struct broker *b, struct connection *c)
{
	if (c->status == 200)
		http.scrapes.answered++;
	else
		http.scrapes.failed++;
	c->phase = DRAINING;
	c->until_ms = now_ms() + DRAIN_MS;
	if (shutdown(c->fd, SHUT_WR) ||
	    !broker_watch(b, &c->watch, c->fd, EPOLLIN, false))
		close_one(c);
}

/* ---------------------------------------------------------------- answer */

static void add_bytes(struct connection *c, const char *bytes, size_t length)
{
	memcpy(c->buffer + c->length, bytes, length);
	c->length += length;
}

/* What precedes the numbers; or all that is said to who asks for others. */
static void fill_head(struct connection *c)
{
	static const char hint[] = "See /metrics\n";
	bool good = c->status == 200;
	int length;

	length = snprintf(
		c->buffer, sizeof(c->buffer),
		"HTTP/1.1 %s\r\nContent-Type: %s\r\n%s%sConnection: close\r\n",
		http_status_text(c->status),
		!good			 ? "text/plain; charset=utf-8"
		: c->request.openmetrics ? METRICS_OPENMETRICS
					 : METRICS_TEXT,
		c->status == 405 ? "Allow: GET, HEAD\r\n" : "",
		good && c->request.chunked ? "Transfer-Encoding: chunked\r\n"
					   : "");
	if (!good)
		length +=
			snprintf(c->buffer + length, sizeof(c->buffer) - length,
				 "Content-Length: %zu\r\n\r\n%s",
				 sizeof(hint) - 1, c->request.head ? "" : hint);
	else
		length +=
			snprintf(c->buffer + length, sizeof(c->buffer) - length,
				 "Vary: Accept\r\n\r\n");
	c->length = length;
	c->made = !good || c->request.head;
}

/* The next part of the numbers, behind what is in the buffer. */
static void fill_numbers(struct broker *b, struct connection *c)
{
	size_t head = c->request.chunked ? CHUNK_HEAD : 0;
	size_t tail = c->request.chunked ? CHUNK_TAIL + sizeof(CHUNK_END) : 0;
	char *at = c->buffer + c->length + head;
	char size[16];
	size_t length = metrics_next(
		b, &c->answer, at, sizeof(c->buffer) - c->length - head - tail);

	c->made = !length;
	if (!c->request.chunked) {
		c->length += length;
	} else if (!length) {
		add_bytes(c, CHUNK_END, sizeof(CHUNK_END) - 1);
	} else {
		snprintf(size, sizeof(size), "%04x\r\n", (unsigned int)length);
		add_bytes(c, size, CHUNK_HEAD);
		c->length += length;
		add_bytes(c, "\r\n", CHUNK_TAIL);
	}
}

/* A turn: one buffer is filled and written, as far as it is read. */
static void answer(struct broker *b, struct connection *c)
{
	ssize_t sent;

	if (c->sent == c->length) {
		c->sent = c->length = 0;
		fill_numbers(b, c);
	}
	sent = send(c->fd, c->buffer + c->sent, c->length - c->sent,
		    MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		close_one(c);
		return;
	}
	c->sent += sent > 0 ? sent : 0;
	if (c->made && c->sent == c->length)
		drain(b, c);
}

static void begin_answer(struct broker *b, struct connection *c, int status)
{
	c->status = status;
	c->phase = ANSWERING;
	c->until_ms = now_ms() + HTTP_ANSWER_MS;
	c->sent = 0;
	fill_head(c);
	if (!c->made) {
		metrics_begin(b, &c->answer, c->request.openmetrics,
			      &http.scrapes);
		fill_numbers(b, c);
	}
	if (!broker_watch(b, &c->watch, c->fd, EPOLLOUT, false))
		close_one(c);
	else
		answer(b, c);
}

/* --------------------------------------------------------------- request */

static void read_request(struct broker *b, struct connection *c)
{
	ssize_t got = recv(c->fd, c->buffer + c->length,
			   HTTP_REQUEST_SIZE - c->length, MSG_DONTWAIT);
	int status;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		close_one(c);
		return;
	}
	c->length += got;
	status = http_request_read(c->buffer, c->length, &c->request);
	if (!status && c->length == HTTP_REQUEST_SIZE)
		status = 431;
	if (status)
		begin_answer(b, c, status);
}

/* What nobody looks at, a part in each turn. */
static void read_rest(struct connection *c)
{
	ssize_t got = recv(c->fd, c->buffer, sizeof(c->buffer), MSG_DONTWAIT);

	if (!got || (got < 0 && errno != EAGAIN && errno != EINTR))
		close_one(c);
}

/* An event of one that had the place before does no harm: none is believed. */
static void connection_ready(struct broker *b, struct watch *watch,
			     uint32_t events)
{
	struct connection *c = (struct connection *)watch;

	switch (c->phase) {
	case READING:
		read_request(b, c);
		break;
	case ANSWERING:
		answer(b, c);
		break;
	case DRAINING:
		read_rest(c);
		break;
	case FREE:
		break;
	}
}

/* ---------------------------------------------------------------- accept */

/* Not until then: what comes waits in the kernel. */
static void go_deaf(struct broker *b, uint64_t until)
{
	http.deaf_until_ms = until;
	broker_watch(b, &http.watch, http.fd, 0, false);
}

/* Time until the next one may be accepted; 0: now, and it is counted. */
static uint64_t take_token(uint64_t now)
{
	const uint64_t most = HTTP_BURST * 1000;

	http.tokens += (now - http.tokens_ms) * HTTP_RATE;
	http.tokens = http.tokens < most ? http.tokens : most;
	http.tokens_ms = now;
	if (http.tokens < 1000)
		return (1000 - http.tokens) / HTTP_RATE + 1;
	http.tokens -= 1000;
	return 0;
}

static bool makes_way(const struct connection *c, uint64_t now)
{
	return c->phase != ANSWERING || now >= c->opened_ms + ANSWER_LEAST_MS;
}

/*
 * A free place; or that of the oldest who is not being answered, or has been
 * for long; NULL: there is none.
 */
static struct connection *find_place(uint64_t now)
{
	struct connection *found = NULL;

	for (unsigned int i = 0; i < HTTP_CONNECTIONS; i++) {
		struct connection *c = &http.connection[i];

		if (c->phase == FREE)
			return c;
		if (!makes_way(c, now))
			continue;
		if (!found ||
		    (c->phase != ANSWERING) > (found->phase != ANSWERING) ||
		    ((c->phase != ANSWERING) == (found->phase != ANSWERING) &&
		     c->opened_ms < found->opened_ms))
			found = c;
	}
	return found;
}

static void begin_connection(struct broker *b, struct connection *c, int fd,
			     uint64_t now)
{
	const int room = KERNEL_BUFFER;

	if (c->phase != FREE)
		close_one(c);
	/* Where that fails the kernel's own limit is one, too. */
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	c->watch.ready = connection_ready;
	c->fd = fd;
	c->phase = READING;
	c->opened_ms = now;
	c->until_ms = now + HTTP_REQUEST_MS;
	c->length = c->sent = 0;
	if (!broker_watch(b, &c->watch, fd, EPOLLIN, true))
		close_one(c);
}

static void accept_some(struct broker *b, struct watch *watch, uint32_t events)
{
	uint64_t now = now_ms(), wait;

	for (unsigned int i = 0; i < ACCEPTS; i++) {
		struct connection *c = find_place(now);
		int fd;

		wait = c ? take_token(now) : DEAF_MS;
		if (wait) {
			go_deaf(b, now + wait);
			return;
		}
		fd = accept4(http.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0) {
			begin_connection(b, c, fd, now);
			continue;
		}
		http.tokens += 1000;
		/* No descriptors, or no memory: not at full speed. */
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			go_deaf(b, now + DEAF_MS);
		return;
	}
}

/* ---------------------------------------------------------------- listen */

/* A socket that nobody listens at any more. */
static void remove_dead(const union address *address)
{
	struct stat st;
	int fd;

	if (lstat(address->un.sun_path, &st) || !S_ISSOCK(st.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	if (connect(fd, &address->any, sizeof(address->un)) &&
	    errno == ECONNREFUSED)
		unlink(address->un.sun_path);
	close(fd);
}

static int open_path(const union address *address, char *why, size_t size)
{
	remove_dead(address);
	return listen_at(address->un.sun_path,
			 SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
			 *http.group ? http.group : NULL, BACKLOG, why, size);
}

static int open_port(const union address *address, char *why, size_t size)
{
	bool is_6 = address->any.sa_family == AF_INET6;
	socklen_t length = is_6 ? sizeof(address->in6) : sizeof(address->in);
	int one = 1;
	int fd = socket(address->any.sa_family,
			SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 &&
	    !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) &&
	    (!is_6 ||
	     !setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one))) &&
	    !bind(fd, &address->any, length) && !listen(fd, BACKLOG))
		return fd;
	snprintf(why, size, "cannot listen there: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

static void close_listener(void)
{
	if (http.fd < 0)
		return;
	close(http.fd);
	http.fd = -1;
	if (*http.address == '/')
		unlink(http.address);
}

/*
 * One line when it does not go, and another when it does: leases are more
 * important than who looks at them, so the broker goes on without.
 */
static void open_listener(struct broker *b, uint64_t now)
{
	union address address;
	char why[200] = "";

	http.retry_ms = now + RETRY_MS;
	if (!address_read(http.address, &address))
		return;
	http.fd = *http.address == '/' ? open_path(&address, why, sizeof(why))
				       : open_port(&address, why, sizeof(why));
	http.watch.ready = accept_some;
	if (http.fd >= 0 &&
	    !broker_watch(b, &http.watch, http.fd, EPOLLIN, true)) {
		snprintf(why, sizeof(why), "epoll: %s", strerror(errno));
		close_listener();
	}
	if (http.fd < 0 && !http.told)
		report("[metrics] listen=%s: %s; it is tried again",
		       http.address, why);
	else if (http.fd >= 0 && http.told)
		report("[metrics] listen=%s: scrapers are heard", http.address);
	http.told = http.fd < 0;
	http.deaf_until_ms = 0;
}

/* The configuration may have been read again. */
static void look_at_config(struct broker *b)
{
	const struct config *c = b->config;

	if (!strcmp(c->metrics, http.address) &&
	    !strcmp(c->metrics_group, http.group))
		return;
	http_close();
	strcpy(http.address, c->metrics);
	strcpy(http.group, c->metrics_group);
	http.retry_ms = 0;
	http.told = false;
}

/* ------------------------------------------------------------------ time */

static uint64_t listener_tick(struct broker *b, uint64_t now)
{
	look_at_config(b);
	if (!*http.address)
		return UINT64_MAX;
	if (http.fd < 0 && now >= http.retry_ms)
		open_listener(b, now);
	if (http.fd < 0)
		return http.retry_ms;
	if (!http.deaf_until_ms)
		return UINT64_MAX;
	if (now < http.deaf_until_ms)
		return http.deaf_until_ms;
	http.deaf_until_ms = 0;
	broker_watch(b, &http.watch, http.fd, EPOLLIN, false);
	return UINT64_MAX;
}

uint64_t http_tick(struct broker *b, uint64_t now)
{
	uint64_t next = listener_tick(b, now);

	for (unsigned int i = 0; i < HTTP_CONNECTIONS; i++) {
		struct connection *c = &http.connection[i];

		if (c->phase != FREE && now >= c->until_ms)
			close_one(c);
		if (c->phase != FREE && c->until_ms < next)
			next = c->until_ms;
	}
	return next;
}

void http_close(void)
{
	for (unsigned int i = 0; i < HTTP_CONNECTIONS; i++)
		if (http.connection[i].phase != FREE)
			close_one(&http.connection[i]);
	close_listener();
}
