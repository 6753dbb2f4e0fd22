/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a scraper asks for: one HTTP request
 *
 * Much of HTTP is not here, since the answer does not depend on it: no bodies,
 * no second request on a connection, no header but Accept.
 */
#ifndef TMEM_BROKER_HTTP_REQUEST_H
#define TMEM_BROKER_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>

struct http_request {
	bool head;	  /* HEAD: without what GET would give */
	bool chunked;	  /* HTTP/1.1, which knows chunks */
	bool openmetrics; /* else the older text format */
};

/*
 * Read what has come so far.  200: a good request for /metrics, @request is
 * set; 0: it is not all there yet; else the status that it is answered with.
 * @text is looked at up to @length and has no 0 at its end.
 */
int http_request_read(const char *text, size_t length,
		      struct http_request *request);

/* A status as its line has it: "404 Not Found". */
const char *http_status_text(int status);

#endif /* TMEM_BROKER_HTTP_REQUEST_H */
