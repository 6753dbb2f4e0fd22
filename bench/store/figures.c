/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Figures by name, each with its rounds
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bench-store.h"

/* One stays unused: the end. */
static struct figure figures[128];

static struct group groups[] = {
	{ .key = "checksum", .title = "CRC-32C alone, of the same chunks" },
	{ .key = "tenants", .title = "64 tenants of 1 MiB in one store" },
	{ .key = "mallocs",
	  .title = "held over allocated bytes, one allocation for each "
		   "page's LZ4 block, 64 MiB of pages, kernel" },
	{ .key = "freed",
	  .title = "a random 90 % of a tenant's pages freed; one thread calls "
		   "tmem_step(), another gets a second tenant's pages" },
	{ .key = "recompress",
	  .title = "pages that are not used, compressed once more by zstd" },
	{ .key = "latency",
	  .title =
		  "single pages at a fixed rate, from when each was due, while "
		  "a thread calls tmem_step()" },
	{ .key = "pages", .title = "gets among many real pages" },
	{ .key = "zram", .title = "the same pages through its block device" },
	{ .key = "index",
	  .title = "a test of the index alone: all pages are same-filled" },
	{ 0 },
};

static struct group *group_find(const char *key)
{
	for (struct group *group = groups; group->key; group++)
		if (!strcmp(group->key, key))
			return group;
	die("struct group has no '%s'", key);
}

static struct figure *figure_find(const char *group, const char *key)
{
	struct figure *figure = figures;

	for (; figure->key; figure++)
		if (!strcmp(figure->group, group) && !strcmp(figure->key, key))
			return figure;
	if (figure == figures + ARRAY_SIZE(figures) - 1)
		die("there is no room for the figure '%s'", key);
	return figure;
}

void figure_note(const char *group, const char *key, const char *what,
		 const char *unit, double value)
{
	struct figure *figure = figure_find(group, key);

	group_find(group)->noted = true;
	figure->group = group;
	figure->key = key;
	figure->what = what;
	figure->unit = unit;
	if (isfinite(value) && figure->count < MAX_ROUNDS)
		figure->value[figure->count++] = value;
}

void group_missing(const char *group, const char *why)
{
	group_find(group)->missing = why;
}

void group_in_guest(const char *group, const char *guest)
{
	group_find(group)->guest = guest;
}

void group_say(const char *key, const char *format, ...)
{
	struct group *group = group_find(key);
	va_list args;

	va_start(args, format);
	vsnprintf(group->said, sizeof(group->said), format, args);
	va_end(args);
}

const struct figure *figure_at(unsigned int i)
{
	return figures[i].key ? &figures[i] : NULL;
}

const struct group *group_at(unsigned int i)
{
	return groups[i].key ? &groups[i] : NULL;
}
