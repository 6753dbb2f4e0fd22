/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the sandbox of vhost-user-tmem lets a file be opened for
 *
 * usage: test-sandbox FILE	an existing one, with something in it
 * Exit status 0: as it should be; else a line says what is not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox.h"

int fatal_status = 1; /* report.h */

static int wrong;

static void open_must(const char *path, int flags, int want)
{
	int fd = open(path, flags, 0600);
	int error = fd < 0 ? errno : 0;

	if (error != want) {
		fprintf(stderr, "open with 0x%x: %s: must be: %s\n", flags,
			strerror(error), strerror(want));
		wrong = 1;
	}
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	char other[4096];

	if (argc != 2) {
		fprintf(stderr, "usage: test-sandbox FILE\n");
		return 2;
	}
	snprintf(other, sizeof(other), "%s.other", argv[1]);
	sandbox_enter(1, 0);
	open_must(argv[1], O_RDONLY | O_CLOEXEC, 0);
	open_must(argv[1], O_RDWR, EPERM);
	open_must(argv[1], O_WRONLY, EPERM);
	open_must(argv[1], O_RDONLY | O_TRUNC, EPERM);
	open_must(other, O_RDONLY | O_CREAT, EPERM);
	return wrong;
}
