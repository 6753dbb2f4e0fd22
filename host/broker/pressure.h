/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How short of memory the host is
 */
#ifndef TMEM_BROKER_PRESSURE_H
#define TMEM_BROKER_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

/* Tasks waited for memory for 150 ms of 2 s: what the kernel tells at once. */
#define PRESSURE_TRIGGER "some 150000 2000000"
/* ... and where it cannot be asked to: 10 % of the last 10 s. */
#define PRESSURE_AVG10 10.0

/*
 * A descriptor on which @path (/proc/pressure/memory) polls POLLPRI when tasks
 * wait for memory; -1: there is none, or it cannot be asked to tell: then
 * pressure_stalled() looks.
 */
int pressure_trigger(const char *path);

/* Tasks wait for memory, by the averages in @path. */
bool pressure_stalled(const char *path);

/* MemAvailable of @path (/proc/meminfo), in bytes; UINT64_MAX: unknown. */
uint64_t pressure_available(const char *path);

#endif /* TMEM_BROKER_PRESSURE_H */
