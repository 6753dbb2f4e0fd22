/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What tmem.h has and the library has not yet.  A call moves from here to the
 * file of its subject when it does something.
 */
#include "internal.h"

int tmem_store_set_holder(struct tmem_store *store,
			  int (*hold)(void *opaque, const char *name,
				      const int *fd, unsigned int num),
			  void *opaque)
{
	CHECK_STORE(store);
	return -ENOTSUP;
}

int tmem_tenant_linger(struct tmem_tenant *tenant, uint32_t seconds)
{
	CHECK_TENANT(tenant);
	return -ENOTSUP;
}

int tmem_pool_attach_shared(struct tmem_tenant *tenant, uint32_t pool,
			    const char *group, bool writer)
{
	CHECK_TENANT(tenant);
	return -ENOTSUP;
}

int tmem_tier_attach(struct tmem_store *store, const char *path, uint64_t bytes,
		     struct tmem_tier **tier)
{
	CHECK_STORE(store);
	return -ENOTSUP;
}

int tmem_tier_detach(struct tmem_tier *tier)
{
	return -ENOTSUP;
}

int tmem_track_start(struct tmem_tenant *tenant)
{
	CHECK_TENANT(tenant);
	return -ENOTSUP;
}

int tmem_track_next(struct tmem_tenant *tenant, struct tmem_key *keys,
		    unsigned int count)
{
	CHECK_TENANT(tenant);
	return -ENOTSUP;
}

int tmem_track_pending(struct tmem_tenant *tenant, uint64_t *keys)
{
	CHECK_TENANT(tenant);
	return -ENOTSUP;
}

int tmem_track_stop(struct tmem_tenant *tenant)
{
	CHECK_TENANT(tenant);
	return -ENOTSUP;
}

int tmem_export(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		const struct tmem_key *key, void *bytes, uint32_t size,
		uint32_t *length, enum tmem_codec *codec)
{
	CHECK_CTX_AND_TENANT(ctx, tenant);
	return -ENOTSUP;
}

int tmem_import_reserve(struct tmem_tenant *tenant, uint64_t bytes)
{
	CHECK_TENANT(tenant);
	return -ENOTSUP;
}

int tmem_import_remote(struct tmem_tenant *tenant, const struct tmem_key *key)
{
	CHECK_TENANT(tenant);
	return -ENOTSUP;
}

int tmem_import(struct tmem_ctx *ctx, struct tmem_tenant *tenant,
		const struct tmem_key *key, const void *bytes, uint32_t length,
		enum tmem_codec codec)
{
	CHECK_CTX_AND_TENANT(ctx, tenant);
	return -ENOTSUP;
}

int tmem_event_notify(struct tmem_store *store, uint32_t events,
		      void (*notify)(void *opaque, uint32_t event),
		      void *opaque)
{
	CHECK_STORE(store);
	return -ENOTSUP;
}
