/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers that people write
 */
#ifndef TMEM_BROKER_BYTES_H
#define TMEM_BROKER_BYTES_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes, or with K, M, G, T: "512M".  False: it is something else. */
bool bytes_read(const char *text, uint64_t *bytes);

/* A number within these.  False: it is something else. */
bool number_read(const char *text, uint64_t min, uint64_t max,
		 uint64_t *number);

#endif /* TMEM_BROKER_BYTES_H */
