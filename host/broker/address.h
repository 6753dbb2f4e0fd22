/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses that people write: to listen at
 */
#ifndef TMEM_BROKER_ADDRESS_H
#define TMEM_BROKER_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/un.h>

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

/*
 * "127.0.0.1:9759", "[::1]:9759" or the path of a socket, which begins with /.
 * No names: nothing here asks a resolver.  False: @text is none of these.
 */
bool address_read(const char *text, union address *address);

#endif /* TMEM_BROKER_ADDRESS_H */
