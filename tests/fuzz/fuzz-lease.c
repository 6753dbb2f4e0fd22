/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzz target: datagrams of any bytes to the lease protocol's check
 *
 * What it takes keeps the header's word, has a text that ends, and comes
 * through a socket as it was.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "%s\n", what);
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd[2];
	union tmem_lease_message m, through;
	char why[64];
	uint32_t length;

	if (!fd[1] && socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd))
		return 0;
	if (size > sizeof(m))
		return 0;
	/* What was there before is no part of it. */
	memset(&m, 0xff, sizeof(m));
	memcpy(&m, data, size);
	if (tmem_lease_check(&m, size, why, sizeof(why))) {
		require(memchr(why, 0, sizeof(why)) && *why, "no reason");
		return 0;
	}
	length = tmem_lease_size(m.header.type);
	require(length == size && m.header.size == size, "another size");
	if (m.header.type == TMEM_LEASE_HELLO)
		require(tmem_lease_name_ok(m.hello.name), "a bad name");
	if (m.header.type == TMEM_LEASE_REFUSED)
		require(memchr(m.refused.text, 0, sizeof(m.refused.text)),
			"a text without end");
	require(!tmem_lease_send(fd[0], &m), "not sent");
	require(!tmem_lease_receive(fd[1], &through, why, sizeof(why)),
		"not received");
	require(!memcmp(&m, &through, size), "not the same");
	return 0;
}
