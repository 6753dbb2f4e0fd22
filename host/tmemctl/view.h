/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What there is: the stores of a host at one moment, wherever they were asked
 */
#ifndef TMEMCTL_VIEW_H
#define TMEMCTL_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol.h"

/* Who was asked does not say. */
#define UNKNOWN UINT64_MAX
/* More stores than a broker has connections are nonsense. */
#define VIEW_MAX  4096
#define NAME_SIZE 160

/*
 * A store, by the words of protocol.h.  Bytes and pages are numbers of their
 * own units; members that a source does not tell are UNKNOWN.
 */
struct vm {
	char name[NAME_SIZE]; /* printable ASCII */
	const char *state;    /* a word */
	unsigned int source;  /* which of the sources has it */
	char path[256];	      /* of a QEMU's object */
	uint64_t pid, uid;
	uint64_t age_s; /* of its process */
	uint64_t frozen;
	uint64_t reserved, max, weight, benefit, leased, target, wanted;
	uint64_t evidence, held, fixed, reclaimable;
	uint64_t persistent_raw, ephemeral_raw, stored;
	uint64_t puts, gets, misses, refused, evictions, refaults, pressure;
};

struct view {
	uint64_t at_ms; /* CLOCK_MONOTONIC */
	bool has_host;	/* a broker was asked */
	struct tmem_lease_host host;
	struct vm *vm;
	unsigned int num;
};

/* A member of struct vm, or of struct tmem_lease_host, that is a number. */
struct member {
	const char *name;
	size_t offset;
};

extern const struct member vm_members[], host_members[];
extern const unsigned int num_vm_members, num_host_members;

/* Its value in @of, a struct as @member is of. */
static inline uint64_t member_value(const struct member *member, const void *of)
{
	return *(const uint64_t *)((const char *)of + member->offset);
}

/* One more, of which nothing is known; NULL: there are VIEW_MAX. */
struct vm *view_add(struct view *view);
void view_free(struct view *view);

/*
 * The one of that name, or the only one whose name ends in "/" and that name.
 * NULL: there is none, or (*@several) there are some.
 */
struct vm *view_find(const struct view *view, const char *name, bool *several);

/* Put @text in, printable ASCII in any case. */
void vm_set_name(struct vm *vm, const char *prefix, const char *text);
/* The age of process vm->pid. */
void vm_set_age(struct vm *vm);

/* CLOCK_MONOTONIC. */
uint64_t now_ms(void);

/* For people: "1.5G", "-" for UNKNOWN. */
#define BYTES_TEXT 16
const char *bytes_text(uint64_t bytes, char text[BYTES_TEXT]);

#endif /* TMEMCTL_VIEW_H */
