// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a process can be seen to hold
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "evidence.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* /proc/PID/cgroup has no longer ones. */
#define PATH_SIZE 4096
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

/* The number in a file of one ("max": none); @missing where there is none. */
static uint64_t read_number(const char *path, uint64_t missing)
{
	char text[64] = "";
	FILE *file = fopen(path, "re");

	if (!file)
		return missing;
	if (!fgets(text, sizeof(text), file) || *text < '0' || *text > '9')
		*text = 0;
	fclose(file);
	return *text ? strtoull(text, NULL, 10) : missing;
}

/* Where a cgroup's files are. */
struct group {
	char folder[2 * PATH_SIZE];
	size_t root; /* length of the part that is the hierarchy's root */
	bool v2;
};

/*
 * A memory cgroup, of a line "0::/path" or "4:memory:/path" of
 * /proc/PID/cgroup.  The root is none: it has everybody's.
 */
static bool read_group(const char *cgroup, char *line, struct group *group)
{
	char *names = strchr(line, ':');
	char *at = names ? strchr(names + 1, ':') : NULL;

	group->v2 = names && names[1] == ':';
	if (!at || (!group->v2 && strncmp(names + 1, "memory:", 7)))
		return false;
	at++;
	at[strcspn(at, "\n")] = 0;
	/* ".." is outside of what we see. */
	if (*at != '/' || !at[1] || strstr(at, ".."))
		return false;
	group->root = strlen(cgroup) + (group->v2 ? 0 : strlen("/memory"));
	snprintf(group->folder, sizeof(group->folder), "%s%s%s", cgroup,
		 group->v2 ? "" : "/memory", at);
	return true;
}

static uint64_t group_number(const struct group *group, const char *v2,
			     const char *v1, uint64_t missing)
{
	char path[2 * PATH_SIZE + 64];

	snprintf(path, sizeof(path), "%s/%s", group->folder,
		 group->v2 ? v2 : v1);
	return read_number(path, missing);
}

static uint64_t group_bytes(const struct group *group)
{
	return group_number(group, "memory.current", "memory.usage_in_bytes",
			    0);
}

/* Of files that nobody uses: the kernel takes them before it says no. */
static uint64_t group_inactive(const struct group *group)
{
	char path[2 * PATH_SIZE + 64], line[256];
	const char *key = group->v2 ? "inactive_file " : "total_inactive_file ";
	uint64_t bytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/memory.stat", group->folder);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, key, strlen(key)))
			bytes = strtoull(line + strlen(key), NULL, 10);
	if (file)
		fclose(file);
	return bytes;
}

/*
 * The least that @group and those that it is in leave of their limits.  Its
 * folder is the topmost one's then.
 */
static uint64_t group_room(struct group *group)
{
	uint64_t least = UINT64_MAX;
	char *end;

	for (;;) {
		uint64_t limit =
			group_number(group, "memory.max",
				     "memory.limit_in_bytes", UINT64_MAX);

		if (limit != UINT64_MAX) {
			uint64_t used = group_bytes(group);

			used -= MIN(used, group_inactive(group));
			least = MIN(least, limit - MIN(limit, used));
		}
		end = strrchr(group->folder, '/');
		if (end <= group->folder + group->root)
			return least;
		*end = 0;
	}
}

/* Call @look for each memory cgroup of a process. */
static void each_group(const char *proc, const char *cgroup, pid_t pid,
		       void (*look)(struct group *group, uint64_t *value),
		       uint64_t *value)
{
	char path[PATH_SIZE], line[PATH_SIZE];
	struct group group;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%d/cgroup", proc, pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (read_group(cgroup, line, &group))
			look(&group, value);
	if (file)
		fclose(file);
}

static void look_for_bytes(struct group *group, uint64_t *most)
{
	uint64_t bytes = group_bytes(group);

	if (bytes > *most)
		*most = bytes;
}

static void look_for_room(struct group *group, uint64_t *least)
{
	uint64_t room = group_room(group);

	*least = MIN(*least, room);
}

static uint64_t charged(const char *proc, const char *cgroup, pid_t pid)
{
	uint64_t most = 0;

	each_group(proc, cgroup, pid, look_for_bytes, &most);
	return most;
}

uint64_t evidence_room(const char *proc, const char *cgroup, pid_t pid)
{
	uint64_t least = UINT64_MAX;

	each_group(proc, cgroup, pid, look_for_room, &least);
	return least;
}

uint64_t evidence_bytes(const char *proc, const char *cgroup, pid_t pid)
{
	uint64_t in_process = resident(proc, pid);
	uint64_t in_cgroup = charged(proc, cgroup, pid);

	if (in_process == UINT64_MAX)
		return in_cgroup ? in_cgroup : UINT64_MAX;
	return in_cgroup > in_process ? in_cgroup : in_process;
}

bool evidence_lives(int pidfd)
{
	struct pollfd poll_fd = { .fd = pidfd, .events = POLLIN };

	return pidfd >= 0 && !poll(&poll_fd, 1, 0);
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
