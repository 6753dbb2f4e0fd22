/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A table of all stores, tenants and contexts of the process.  Its lock is the
 * innermost of all.
 */
#include "internal.h"

#ifndef NDEBUG
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define BUCKETS 64u

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static struct live *bucket[BUCKETS];

static struct live **bucket_of(const void *handle)
{
	return &bucket[((uintptr_t)handle >> 4) * 0x9e3779b9u / 67 % BUCKETS];
}

void live_add(struct live *live, enum live_kind kind,
	      const struct tmem_store *store)
{
	struct live **head = bucket_of(live);

	live->kind = kind;
	live->store = store;
	pthread_rwlock_wrlock(&lock);
	live->next = *head;
	*head = live;
	pthread_rwlock_unlock(&lock);
}

void live_remove(struct live *live)
{
	struct live **at = bucket_of(live);

	pthread_rwlock_wrlock(&lock);
	while (*at && *at != live)
		at = &(*at)->next;
	if (*at)
		*at = live->next;
	pthread_rwlock_unlock(&lock);
}

static _Noreturn void fail(const char *function, const char *what,
			   const char *why)
{
	fprintf(stderr, "libtmem: %s(): %s %s\n", function, what, why);
	abort();
}

void live_check(const char *function, enum live_kind kind, const void *handle,
		const struct tmem_store *store)
{
	static const char *const name[] = {
		[LIVE_STORE] = "the store",
		[LIVE_TENANT] = "the tenant",
		[LIVE_CTX] = "the context",
	};
	const char *fault = NULL;
	struct live *live;

	pthread_rwlock_rdlock(&lock);
	live = *bucket_of(handle);
	while (live && live != handle)
		live = live->next;
	if (!live || live->kind != kind)
		fault = "has ended, or never was one";
	else if (store && live->store != store)
		fault = "is another store's";
	pthread_rwlock_unlock(&lock);
	if (fault)
		fail(function, name[kind], fault);
}

void live_check_last(const char *function, const struct tmem_store *store)
{
	bool left = false;

	pthread_rwlock_rdlock(&lock);
	for (unsigned int i = 0; i < BUCKETS; i++)
		for (struct live *l = bucket[i]; l; l = l->next)
			left |= l->store == store && l->kind != LIVE_STORE;
	pthread_rwlock_unlock(&lock);
	if (left)
		fail(function, "a tenant or a context of the store",
		     "is still there");
}
#endif
