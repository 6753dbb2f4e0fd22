// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a process can be seen to hold
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "evidence.h"

#define PATH_SIZE 1024
/* Linux 6.5; not in the headers of Debian 12. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static uint64_t resident(const char *proc, pid_t pid)
{
	char path[PATH_SIZE];
	unsigned long long pages = 0;
	bool found;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%d/statm", proc, pid);
	file = fopen(path, "re");
	if (!file)
		return UINT64_MAX;
	found = fscanf(file, "%*s %llu", &pages) == 1;
	fclose(file);
	return found ? pages * sysconf(_SC_PAGESIZE) : UINT64_MAX;
}

/* The number in a file of one; 0 where there is none. */
static uint64_t read_number(const char *path)
{
	char text[64] = "";
	FILE *file = fopen(path, "re");

	if (!file)
		return 0;
	if (!fgets(text, sizeof(text), file))
		*text = 0;
	fclose(file);
	return strtoull(text, NULL, 10);
}

/* What a line of /proc/PID/cgroup leads to: "0::/path" or "4:memory:/path". */
static uint64_t cgroup_bytes(const char *cgroup, char *line)
{
	char path[2 * PATH_SIZE];
	char *names = strchr(line, ':');
	char *at = names ? strchr(names + 1, ':') : NULL;
	bool v2 = names && names[1] == ':';

	if (!at || (!v2 && strncmp(names + 1, "memory:", 7)))
		return 0;
	at++;
	at[strcspn(at, "\n")] = 0;
	/* The root's has everybody's; ".." is outside of what we see. */
	if (!strcmp(at, "/") || strstr(at, ".."))
		return 0;
	snprintf(path, sizeof(path), "%s%s%s/%s", cgroup, v2 ? "" : "/memory",
		 at, v2 ? "memory.current" : "memory.usage_in_bytes");
	return read_number(path);
}

static uint64_t charged(const char *proc, const char *cgroup, pid_t pid)
{
	char path[PATH_SIZE], line[PATH_SIZE];
	uint64_t most = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%d/cgroup", proc, pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file)) {
		uint64_t bytes = cgroup_bytes(cgroup, line);

		if (bytes > most)
			most = bytes;
	}
	if (file)
		fclose(file);
	return most;
}

uint64_t evidence_bytes(const char *proc, const char *cgroup, pid_t pid)
{
	uint64_t in_process = resident(proc, pid);
	uint64_t in_cgroup = charged(proc, cgroup, pid);

	if (in_process == UINT64_MAX)
		return in_cgroup ? in_cgroup : UINT64_MAX;
	return in_cgroup > in_process ? in_cgroup : in_process;
}

int evidence_pidfd(int socket, pid_t pid)
{
	socklen_t length = sizeof(int);
	int fd;

	/* Of the process that connected, whatever has its number by now. */
	if (!getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &length)) {
		fcntl(fd, F_SETFD, FD_CLOEXEC);
		return fd;
	}
	/* A process of another PID namespace has the number 0 here. */
	return pid > 0 ? syscall(SYS_pidfd_open, pid, 0) : -1;
}
