// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Addresses that people write
 */
#include <arpa/inet.h>
#include <string.h>

#include "address.h"
#include "bytes.h"

/* Both: an address, in brackets or not, a colon, a port. */
#define TEXT_SIZE 64

static bool read_port(const char *text, in_port_t *port)
{
	uint64_t number;

	if (!number_read(text, 1, 65535, &number))
		return false;
	*port = htons(number);
	return true;
}

static bool read_in(char *host, const char *port, union address *address)
{
	size_t length = strlen(host);

	if (*host != '[') {
		address->in.sin_family = AF_INET;
		return inet_pton(AF_INET, host, &address->in.sin_addr) == 1 &&
		       read_port(port, &address->in.sin_port);
	}
	if (host[length - 1] != ']')
		return false;
	host[length - 1] = 0;
	address->in6.sin6_family = AF_INET6;
	return inet_pton(AF_INET6, host + 1, &address->in6.sin6_addr) == 1 &&
	       read_port(port, &address->in6.sin6_port);
}

bool address_read(const char *text, union address *address)
{
	char copy[TEXT_SIZE], *colon;

	memset(address, 0, sizeof(*address));
	if (*text == '/') {
		if (strlen(text) >= sizeof(address->un.sun_path))
			return false;
		address->un.sun_family = AF_UNIX;
		strcpy(address->un.sun_path, text);
		return true;
	}
	if (strlen(text) >= sizeof(copy))
		return false;
	strcpy(copy, text);
	colon = strrchr(copy, ':');
	if (!colon || colon == copy)
		return false;
	*colon = 0;
	return read_in(copy, colon + 1, address);
}
