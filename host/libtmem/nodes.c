/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the NUMA nodes have that this thread's memory may come from
 *
 * A process that is bound to some nodes, by a policy (numactl --membind) or by
 * its cpuset (cpuset.mems), is killed when these are full, whatever the others
 * have.  MemAvailable is the whole host's, and there is none for each node, so
 * it is put together as the kernel does it: what is free, and files' pages.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

/* Of <linux/mempolicy.h>, for which libnuma would be needed. */
#define MPOL_BIND	    2
#define MPOL_MODES	    0xff /* the rest are flags */
#define MPOL_F_MEMS_ALLOWED 4

/* The next nodes of a list such as "0-1,3"; false: it has ended. */
static bool next_range(const char **list, unsigned long *first,
		       unsigned long *last)
{
	char *end;

	*first = *last = strtoul(*list, &end, 10);
	if (end == *list)
		return false;
	if (*end == '-')
		*last = strtoul(end + 1, &end, 10);
	*list = end + (*end == ',');
	return true;
}

static void read_mask(const char *path, struct node_mask *mask)
{
	char text[512] = "";
	const char *list = text;
	unsigned long first, last;
	FILE *file = fopen(path, "re");

	memset(mask, 0, sizeof(*mask));
	if (file && !fgets(text, sizeof(text), file))
		*text = 0;
	if (file)
		fclose(file);
	while (next_range(&list, &first, &last))
		for (; first <= last && first < NODES_MAX; first++)
			mask->word[first / 64] |= 1ull << first % 64;
}

void nodes_init(struct nodes *nodes, const char *dir)
{
	char path[sizeof(nodes->dir) + 16];

	snprintf(nodes->dir, sizeof(nodes->dir), "%s", dir);
	snprintf(path, sizeof(path), "%s/has_memory", dir);
	read_mask(path, &nodes->all);
}

static bool and_mask(struct node_mask *mask, const struct node_mask *other)
{
	uint64_t any = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(mask->word); i++)
		any |= mask->word[i] &= other->word[i];
	return any;
}

/* The kernel's answer, of a size that it never needs in full. */
static bool get_policy(int *mode, struct node_mask *mask, unsigned long flags)
{
	memset(mask, 0, sizeof(*mask));
	return !syscall(SYS_get_mempolicy, mode, mask->word, NODES_MAX, NULL,
			flags);
}

/* The nodes with memory that this thread may use.  False: all, or not known. */
static bool allowed_nodes(const struct nodes *nodes, struct node_mask *mask)
{
	struct node_mask bound;
	int mode = 0;

	if (!get_policy(NULL, mask, MPOL_F_MEMS_ALLOWED) ||
	    !and_mask(mask, &nodes->all))
		return false;
	/* Of any other policy the nodes are a wish. */
	if (get_policy(&mode, &bound, 0) && (mode & MPOL_MODES) == MPOL_BIND &&
	    and_mask(&bound, mask))
		*mask = bound;
	return memcmp(mask, &nodes->all, sizeof(*mask));
}

/* The number of kB in a line "Node 0 KEY:   number kB", if it has that key. */
static uint64_t line_bytes(const char *line, const char *key)
{
	const char *found = strstr(line, key);

	return found ? strtoull(found + strlen(key), NULL, 10) * 1024 : 0;
}

static uint64_t node_available(const struct nodes *nodes, unsigned int node)
{
	char path[sizeof(nodes->dir) + 32], line[256];
	uint64_t bytes = 0;
	FILE *file;

	snprintf(path, sizeof(path), "%s/node%u/meminfo", nodes->dir, node);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		bytes += line_bytes(line, " MemFree:") +
			 line_bytes(line, " Active(file):") +
			 line_bytes(line, " Inactive(file):");
	if (file)
		fclose(file);
	return bytes;
}

uint64_t nodes_available(const struct nodes *nodes)
{
	struct node_mask mask;
	uint64_t bytes = 0;

	if (!allowed_nodes(nodes, &mask))
		return UINT64_MAX;
	for (unsigned int i = 0; i < NODES_MAX; i++)
		if (mask.word[i / 64] >> i % 64 & 1)
			bytes += node_available(nodes, i);
	return bytes;
}
