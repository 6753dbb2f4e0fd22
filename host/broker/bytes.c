// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Numbers that people write
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"

/* A number at the begin of @text; @end: what follows. */
static bool digits(const char *text, uint64_t *number, char **end)
{
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, end, 10);
	return !errno;
}

bool bytes_read(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	unsigned int shift = 0;
	uint64_t number;
	char *end;

	if (!digits(text, &number, &end))
		return false;
	if (*end) {
		const char *unit = strchr(units, *end);

		if (!unit || end[1])
			return false;
		shift = 10 * (unit - units + 1);
	}
	if (number > UINT64_MAX >> shift)
		return false;
	*bytes = number << shift;
	return true;
}

bool number_read(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
	char *end;

	return digits(text, number, &end) && !*end && *number >= min &&
	       *number <= max;
}
