// SPDX-License-Identifier: BSD-3-Clause
/*
 * Fuzz target: bytes of scrapers to the broker's reader of requests
 *
 * What is answered does not depend on how the bytes came: the first that are
 * enough are, whatever follows.
 */
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "http-request.h"

#define SIZE 1024

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz-http: %s\n", what);
	abort();
}

/* Of its own, so that a read beyond the end is seen. */
static int read_copy(const uint8_t *data, size_t size, struct http_request *r)
{
	char *copy = calloc(1, size);
	int status;

	require(copy, "out of memory");
	if (size)
		memcpy(copy, data, size);
	status = http_request_read(copy, size, r);
	free(copy);
	return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_request whole, part;
	int status;

	if (size > SIZE)
		return 0;
	status = read_copy(data, size, &whole);
	require(!status || status == 200 || status == 400 || status == 404 ||
			status == 405 || status == 505,
		"a status that there is not");
	for (size_t i = 0; i < size; i++) {
		int early = read_copy(data, i, &part);

		if (!early)
			continue;
		require(early == status && part.head == whole.head &&
				part.chunked == whole.chunked &&
				part.openmetrics == whole.openmetrics,
			"the answer depends on how it comes");
	}
	return 0;
}
