/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much more the store may take from the host before somebody is killed
 *
 * The store grows page by page, and asking the kernel each time would cost
 * more than the page, so a look grants an allowance: a quarter of the room that
 * it found, 16 MiB at most, for a tenth of a second: others take memory, too.
 * Near the end looks are frequent and grants small; without room there is one
 * look a millisecond and every put in between is refused.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define ALLOWANCE_MAX (16 * MIB)
#define ALLOWANCE_NS  100000000ull
#define LOOK_NS	      1000000ull

/* The number in a file of one ("max": none); UINT64_MAX where there is none. */
static uint64_t read_number(const char *path)
{
	char text[64];
	FILE *file = fopen(path, "re");
	uint64_t value = UINT64_MAX;

	if (!file)
		return value;
	if (fgets(text, sizeof(text), file) && *text >= '0' && *text <= '9')
		value = strtoull(text, NULL, 10);
	fclose(file);
	return value;
}

/* "KEY value" or "KEY: value kB" of a file with one such line a key. */
static uint64_t read_field(const char *path, const char *key, uint64_t missing)
{
	char line[256];
	FILE *file = fopen(path, "re");
	size_t length = strlen(key);

	if (!file)
		return missing;
	while (fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, length) ||
		    (line[length] != ' ' && line[length] != ':'))
			continue;
		missing = strtoull(line + length + 1, NULL, 10);
		if (strstr(line, "kB"))
			missing *= 1024;
		break;
	}
	fclose(file);
	return missing;
}

/* A file of a level: the limit, what is used of it, statistics. */
static const char *level_file(const struct headroom *headroom, unsigned int i,
			      unsigned int which, char *path)
{
	static const char *const name[2][3] = {
		{ "memory.limit_in_bytes", "memory.usage_in_bytes",
		  "memory.stat" },
		{ "memory.max", "memory.current", "memory.stat" },
	};

	snprintf(path, HEADROOM_PATH + 32, "%s/%s", headroom->level[i].dir,
		 name[headroom->level[i].v2][which]);
	return path;
}

/* Is there a limit in @dir?  Then it is one level to watch. */
static void add_level(struct headroom *headroom, const char *dir, bool v2)
{
	unsigned int n = headroom->levels;
	char path[HEADROOM_PATH + 32];

	if (n == HEADROOM_LEVELS)
		return;
	snprintf(headroom->level[n].dir, sizeof(headroom->level[n].dir), "%s",
		 dir);
	headroom->level[n].v2 = v2;
	if (!access(level_file(headroom, n, 0, path), R_OK))
		headroom->levels++;
}

/* The cgroup at @mount/@path and all its parents that have limits. */
static void add_levels(struct headroom *headroom, const char *mount, char *path,
		       bool v2)
{
	char dir[HEADROOM_PATH];

	for (;;) {
		char *slash;

		snprintf(dir, sizeof(dir), "%s%s", mount,
			 strcmp(path, "/") ? path : "");
		if (strlen(dir) < HEADROOM_PATH - 1)
			add_level(headroom, dir, v2);
		slash = strrchr(path, '/');
		if (!slash || !path[1])
			break;
		slash[slash == path] = 0;
	}
}

/* Where the memory controller of a hierarchy is mounted, and what of it. */
static bool find_mount(bool v2, char *mount, size_t mount_size, char *root,
		       size_t root_size)
{
	char line[4096];
	FILE *file = fopen("/proc/self/mountinfo", "re");
	bool found = false;

	while (file && !found && fgets(line, sizeof(line), file)) {
		char from[256], at[256], *tail = strstr(line, " - ");

		if (!tail ||
		    sscanf(line, "%*s %*s %*s %255s %255s", from, at) != 2)
			continue;
		found = v2 ? !strncmp(tail, " - cgroup2 ", 11)
			   : !strncmp(tail, " - cgroup ", 10) &&
					strstr(tail + 10, "memory");
		if (found) {
			snprintf(mount, mount_size, "%s", at);
			snprintf(root, root_size, "%s", from);
		}
	}
	if (file)
		fclose(file);
	return found;
}

static void find_cgroups(struct headroom *headroom)
{
	char line[HEADROOM_PATH];
	FILE *file = fopen("/proc/self/cgroup", "re");

	while (file && fgets(line, sizeof(line), file)) {
		char mount[256], root[256], *path, *names;
		bool v2;

		line[strcspn(line, "\n")] = 0;
		names = strchr(line, ':');
		path = names ? strchr(names + 1, ':') : NULL;
		if (!path)
			continue;
		*path++ = 0;
		v2 = !names[1];
		if (!v2 && !strstr(names, "memory"))
			continue;
		if (!find_mount(v2, mount, sizeof(mount), root, sizeof(root)))
			continue;
		/* In a container the mount shows a part of the hierarchy. */
		if (strcmp(root, "/") && !strncmp(path, root, strlen(root)))
			path += strlen(root);
		if (!*path)
			path = strcpy(line, "/");
		add_levels(headroom, mount, path, v2);
	}
	if (file)
		fclose(file);
}

static uint64_t clamp(uint64_t value, uint64_t low, uint64_t high)
{
	return MIN(MAX(value, low), high);
}

/* For tests: files that stand for those of the kernel. */
static void use_fakes(struct headroom *headroom, const char *dir)
{
	headroom->levels = 0;
	add_level(headroom, dir, true);
	add_level(headroom, dir, false);
	snprintf(headroom->meminfo_path, sizeof(headroom->meminfo_path),
		 "%s/meminfo", dir);
	snprintf(headroom->statm_path, sizeof(headroom->statm_path), "%s/statm",
		 dir);
	snprintf(headroom->status_path, sizeof(headroom->status_path),
		 "%s/status", dir);
	nodes_init(&headroom->nodes, dir);
}

void headroom_init(struct headroom *headroom,
		   const struct tmem_store_config *config)
{
	uint64_t total;

	pthread_mutex_init(&headroom->lock, NULL);
	headroom->process_bytes = config->process_bytes;
	headroom->cgroup_headroom = config->cgroup_headroom;
	headroom->host_headroom = config->host_headroom;
	strcpy(headroom->meminfo_path, "/proc/meminfo");
	strcpy(headroom->statm_path, "/proc/self/statm");
	strcpy(headroom->status_path, "/proc/self/status");
	nodes_init(&headroom->nodes, "/sys/devices/system/node");
	if (config->host_dir)
		use_fakes(headroom, config->host_dir);
	else if (config->cgroup_headroom != TMEM_DO_NOT_LOOK)
		find_cgroups(headroom);
	if (!headroom->host_headroom) {
		total = read_field(headroom->meminfo_path, "MemTotal", 0);
		headroom->host_headroom =
			clamp(total / 32, 16 * MIB, 1024 * MIB);
	}
}

/* What the process will still need beside the store. */
static uint64_t process_needs(struct headroom *headroom, uint64_t store_held)
{
	unsigned long long resident = 0;
	FILE *file;

	if (!headroom->process_bytes)
		return 0;
	file = fopen(headroom->statm_path, "re");
	if (file) {
		if (fscanf(file, "%*s %llu", &resident) != 1)
			resident = 0;
		fclose(file);
	}
	resident *= sysconf(_SC_PAGESIZE);
	/* Pages of hugetlbfs are not in it. */
	resident += read_field(headroom->status_path, "HugetlbPages", 0);
	resident -= MIN(resident, store_held);
	return headroom->process_bytes - MIN(resident, headroom->process_bytes);
}

/* Bytes below the nearest limit, all deductions made. */
static uint64_t look(struct headroom *headroom, uint64_t store_held)
{
	uint64_t room = UINT64_MAX;
	uint64_t needs = process_needs(headroom, store_held);

	for (unsigned int i = 0; i < headroom->levels; i++) {
		char path[HEADROOM_PATH + 32];
		uint64_t limit = read_number(level_file(headroom, i, 0, path));
		uint64_t usage = read_number(level_file(headroom, i, 1, path));
		uint64_t cache, keep = headroom->cgroup_headroom;

		/* v1 says "no limit" by a huge number. */
		if (limit > UINT64_MAX / 4 || usage > UINT64_MAX / 4)
			continue;
		if (!keep)
			keep = clamp(limit / 32, 4 * MIB, 256 * MIB);
		/* Cold page cache goes before anybody is killed. */
		level_file(headroom, i, 2, path);
		cache = read_field(path, "total_inactive_file", UINT64_MAX);
		if (cache == UINT64_MAX)
			cache = read_field(path, "inactive_file", 0);
		usage -= MIN(usage, cache);
		keep = MIN(keep, limit);
		keep += usage + MIN(needs, limit);
		room = MIN(room, limit - MIN(limit, keep));
	}
	if (headroom->host_headroom != TMEM_DO_NOT_LOOK) {
		uint64_t available = read_field(headroom->meminfo_path,
						"MemAvailable", UINT64_MAX);
		uint64_t keep = headroom->host_headroom;

		available = MIN(available, nodes_available(&headroom->nodes));
		keep += MIN(needs, UINT64_MAX - keep);
		room = MIN(room, available - MIN(available, keep));
	}
	return room;
}

bool headroom_take(struct headroom *headroom, uint64_t bytes,
		   uint64_t store_held)
{
	bool granted = false;
	uint64_t now;

	if (!headroom->levels && headroom->host_headroom == TMEM_DO_NOT_LOOK)
		return true;
	pthread_mutex_lock(&headroom->lock);
	now = store_now_ns(container_of(headroom, struct tmem_store, headroom));
	if (now >= headroom->allowance_end_ns)
		headroom->allowance = 0;
	if (headroom->allowance < bytes && now >= headroom->next_look_ns) {
		uint64_t room = look(headroom, store_held);

		headroom->allowance = MIN(room / 4, ALLOWANCE_MAX);
		/* What is being asked for now may take all that there is. */
		if (headroom->allowance < bytes && room >= bytes)
			headroom->allowance = bytes;
		headroom->allowance_end_ns = now + ALLOWANCE_NS;
		if (headroom->allowance < bytes)
			headroom->next_look_ns = now + LOOK_NS;
	}
	if (headroom->allowance >= bytes) {
		headroom->allowance -= bytes;
		granted = true;
	}
	atomic_store(&headroom->short_of, !granted);
	pthread_mutex_unlock(&headroom->lock);
	return granted;
}

bool headroom_short(struct headroom *headroom, uint64_t store_held)
{
	return atomic_load(&headroom->short_of) &&
	       !headroom_take(headroom, SEGMENT_BYTES, store_held);
}
