/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which handles are live, for debug builds: what is passed to a function of the
 * library is one, and of the right store, or the process ends with the name of
 * that function.  What a handle points to is not looked at, as it may be freed.
 */
#ifndef TMEM_LIVE_H
#define TMEM_LIVE_H

struct tmem_store;

enum live_kind { LIVE_STORE, LIVE_TENANT, LIVE_CTX };

/* The first member of what is a handle. */
struct live {
	struct live *next;
	const struct tmem_store *store;
	enum live_kind kind;
};

#ifdef NDEBUG
#define live_add(live, kind, store)		  ((void)0)
#define live_remove(live)			  ((void)0)
#define live_check(function, kind, handle, store) ((void)0)
#define live_check_last(function, store)	  ((void)0)
#else
void live_add(struct live *live, enum live_kind kind,
	      const struct tmem_store *store);
void live_remove(struct live *live);
/* @store: whose it has to be, or NULL. */
void live_check(const char *function, enum live_kind kind, const void *handle,
		const struct tmem_store *store);
/* Nothing of the store is left. */
void live_check_last(const char *function, const struct tmem_store *store);
#endif

#define CHECK_STORE(store)   live_check(__func__, LIVE_STORE, store, NULL)
#define CHECK_TENANT(tenant) live_check(__func__, LIVE_TENANT, tenant, NULL)
#define CHECK_CTX(ctx)	     live_check(__func__, LIVE_CTX, ctx, NULL)
#define CHECK_CTX_AND_TENANT(ctx, tenant)                                      \
	do {                                                                   \
		CHECK_CTX(ctx);                                                \
		live_check(__func__, LIVE_TENANT, tenant, (ctx)->store);       \
	} while (0)

#endif /* TMEM_LIVE_H */
