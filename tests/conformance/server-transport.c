/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conformance suite against the request server alone: no virtqueue, no
 * machine.  Each descriptor is memory of its own, so that a sanitizer sees an
 * access beyond it.
 *
 * usage: conformance-server VECTORS...
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"
#include "tmem-server.h"

#define NUM_FAST 1
#define NUM_BULK 2
#define MIB	 (1024ull * 1024)

struct device {
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_server *server;
	struct tmem_server_queue *queue[NUM_FAST + NUM_BULK];
	bool needs_reset;
	unsigned int tests, failed;
};

static void must(int error, const char *what)
{
	if (error) {
		fprintf(stderr, "conformance-server: %s: %s\n", what,
			strerror(-error));
		exit(1);
	}
}

static void device_open(struct device *d)
{
	struct tmem_store_config store = {
		.size = sizeof(store),
		.max_bytes = 16 * MIB,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
	};
	struct tmem_limits limits = {
		.size = sizeof(limits),
		.persistent_reserved = 4 * MIB,
		.persistent_max = 8 * MIB,
		.ephemeral_max = 8 * MIB,
	};
	struct tmem_server_config config = {
		.features = ~0ull,
		.num_fast = NUM_FAST,
		.num_bulk = NUM_BULK,
	};

	must(tmem_store_create(&store, &d->store), "store");
	must(tmem_tenant_open(d->store, "device", &limits, &d->tenant),
	     "tenant");
	config.store = d->store;
	config.tenant = d->tenant;
	must(tmem_server_create(&config, &d->server), "server");
	for (unsigned int i = 0; i < NUM_FAST + NUM_BULK; i++)
		must(tmem_server_queue_create(d->server, i, &d->queue[i]),
		     "queue");
}

static void device_close(struct device *d)
{
	for (unsigned int i = 0; i < NUM_FAST + NUM_BULK; i++)
		tmem_server_queue_destroy(d->queue[i]);
	tmem_server_destroy(d->server);
	tmem_tenant_drop(d->tenant);
	tmem_store_destroy(d->store);
}

static uint64_t features(void *opaque)
{
	struct device *d = opaque;

	return tmem_server_features(d->server);
}

static bool start(void *opaque, uint64_t features)
{
	struct device *d = opaque;

	d->needs_reset = false;
	return !tmem_server_set_features(d->server, features);
}

static void config(void *opaque, struct virtio_tmem_config *config)
{
	struct device *d = opaque;

	tmem_server_get_config(d->server, config);
}

static void copy_segs(const struct conf_seg *seg, struct iovec *iov,
		      unsigned int num, bool back)
{
	for (unsigned int i = 0; i < num; i++)
		if (back)
			memcpy(seg[i].base, iov[i].iov_base, seg[i].len);
		else
			memcpy(iov[i].iov_base, seg[i].base, seg[i].len);
}

static void serve(struct device *d, struct conf_chain *chain)
{
	unsigned int num = chain->num_out + chain->num_in;
	struct iovec iov[CONF_MAX_SEGS];
	struct tmem_server_request rq = {
		.out = iov,
		.out_num = chain->num_out,
		.in = iov + chain->num_out,
		.in_num = chain->num_in,
	};

	for (unsigned int i = 0; i < num; i++)
		iov[i] = (struct iovec){ malloc(chain->seg[i].len),
					 chain->seg[i].len };
	copy_segs(chain->seg, iov, num, false);
	if (tmem_server_submit(d->queue[chain->queue], &rq)) {
		d->needs_reset = true;
	} else {
		copy_segs(chain->seg, iov, num, true);
		chain->used = true;
		chain->used_len = rq.used;
		tmem_server_retire(d->queue[chain->queue], &rq, true);
	}
	for (unsigned int i = 0; i < num; i++)
		free(iov[i].iov_base);
}

static void submit(void *opaque, struct conf_chain *const *chains,
		   unsigned int num)
{
	struct device *d = opaque;

	for (unsigned int i = 0; i < num && !d->needs_reset; i++)
		serve(d, chains[i]);
}

static bool needs_reset(void *opaque)
{
	struct device *d = opaque;

	return d->needs_reset;
}

static void system_reset(void *opaque)
{
	struct device *d = opaque;

	tmem_server_system_reset(d->server);
}

/* TAP */
static void report(void *opaque, const char *name, const char *why,
		   bool skipped)
{
	struct device *d = opaque;

	printf("%sok %u - %s%s\n", why ? "not " : "", ++d->tests, name,
	       skipped ? " # SKIP not on this device" : "");
	if (why)
		printf("# %s\n", why);
	fflush(stdout);
	d->failed += why != NULL;
}

int main(int argc, char **argv)
{
	struct device device = { 0 };
	const struct conf_transport transport = {
		.opaque = &device,
		.max_segs = CONF_MAX_SEGS,
		.features = features,
		.start = start,
		.config = config,
		.submit = submit,
		.needs_reset = needs_reset,
		.system_reset = system_reset,
	};
	bool ok = argc > 1;

	if (!ok)
		fprintf(stderr, "usage: conformance-server VECTORS...\n");
	for (int i = 1; i < argc && ok; i++) {
		device_open(&device);
		ok = conf_run_file(argv[i], &transport, report);
		device_close(&device);
	}
	printf("1..%u\n", device.tests);
	return ok && !device.failed ? 0 : 1;
}
