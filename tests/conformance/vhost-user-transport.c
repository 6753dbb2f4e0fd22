/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The conformance suite against a vhost-user back end, ours or somebody else's:
 * with descriptors in the ring, and with indirect tables and event indexes.
 *
 * usage: conformance-vhost-user SOCKET VECTORS...
 *
 * The back end must be one that keeps a device's pages over a reconnection.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "suite.h"

#define RING_SIZE 256
#define MIB	  (1024ull * 1024)
#define WAIT_MS	  30000
#define DEVICE	  ((1ull << 24) - 1) /* features that are the device's */

struct device {
	struct client client;
	const char *path;
	const char *mode;
	uint64_t ring_features;
	unsigned int tests, failed;
	size_t mark; /* where the rings' memory ends */
	bool broken;
};

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "conformance-vhost-user: %s\n", what);
	exit(1);
}

static void reconnect(struct device *d)
{
	client_disconnect(&d->client);
	client_free_all(&d->client);
	must(client_connect(&d->client, d->path), "nobody listens there");
}

static uint64_t features(void *opaque)
{
	struct device *d = opaque;
	uint64_t features;

	must(client_ask(&d->client, VU_GET_FEATURES, &features),
	     "the back end does not say what it offers");
	return features & DEVICE;
}

static bool start(void *opaque, uint64_t features)
{
	struct device *d = opaque;
	struct virtio_tmem_config config;
	uint64_t accept = features | d->ring_features | VU_F_VERSION_1 |
			  VU_F_PROTOCOL_FEATURES;

	d->broken = false;
	must(client_stop(&d->client), "the back end does not stop its rings");
	client_free_all(&d->client);
	if (!client_set_up(&d->client, accept)) {
		reconnect(d);
		return false;
	}
	must(client_get_config(&d->client, &config, sizeof(config)),
	     "the back end has no configuration");
	must(client_start(&d->client, config.num_fast + config.num_bulk,
			  RING_SIZE),
	     "the back end does not start its rings");
	d->mark = d->client.memory_used;
	return true;
}

static void config(void *opaque, struct virtio_tmem_config *config)
{
	struct device *d = opaque;

	must(client_get_config(&d->client, config, sizeof(*config)),
	     "the back end has no configuration");
}

/* Copies of @chain's memory where the back end can reach them. */
static void add(struct device *d, struct conf_chain *chain)
{
	struct client_seg segs[CONF_MAX_SEGS];
	unsigned int num = chain->num_out + chain->num_in;

	for (unsigned int i = 0; i < num; i++) {
		segs[i] = (struct client_seg){
			client_alloc(&d->client, chain->seg[i].len, 1),
			chain->seg[i].len,
			i >= chain->num_out,
		};
		memcpy(segs[i].base, chain->seg[i].base, segs[i].len);
	}
	/* Where they went; the suite has no room for that. */
	must(client_add(&d->client, chain->queue, segs, num, chain),
	     "a chain does not fit into the ring");
}

static void take_back(struct device *d, struct conf_chain *chain,
		      uint8_t *memory)
{
	unsigned int num = chain->num_out + chain->num_in;

	for (unsigned int i = 0; i < num; i++) {
		memcpy(chain->seg[i].base, memory, chain->seg[i].len);
		memory += chain->seg[i].len;
	}
}

static bool collect(struct device *d, unsigned int queue)
{
	struct conf_chain *chain;
	uint32_t len;

	if (!client_wait(&d->client, queue, WAIT_MS, false))
		return false;
	while ((chain = client_used(&d->client, queue, &len))) {
		chain->used = true;
		chain->used_len = len;
	}
	return true;
}

static void submit(void *opaque, struct conf_chain *const *chains,
		   unsigned int num)
{
	struct device *d = opaque;
	uint8_t *memory[CONF_MAX_SEGS];

	for (unsigned int i = 0; i < num; i++) {
		memory[i] = client_alloc(&d->client, 0, 1);
		add(d, chains[i]);
	}
	for (unsigned int i = 0; i < d->client.num_rings; i++)
		client_kick(&d->client, i);
	for (unsigned int i = 0; i < num && !d->broken; i++)
		while (!chains[i]->used && !d->broken)
			d->broken = !collect(d, chains[i]->queue);
	for (unsigned int i = 0; i < num; i++)
		if (chains[i]->used)
			take_back(d, chains[i], memory[i]);
	/* Indirect tables are the rings'. */
	if (!(d->ring_features & VU_F_INDIRECT))
		d->client.memory_used = d->mark;
}

static bool needs_reset(void *opaque)
{
	struct device *d = opaque;

	return d->broken && client_is_broken(&d->client);
}

static void system_reset(void *opaque)
{
	struct device *d = opaque;

	must(client_system_reset(&d->client),
	     "the back end is not told that the machine was reset");
}

/* TAP */
static void report(void *opaque, const char *name, const char *why,
		   bool skipped)
{
	struct device *d = opaque;

	printf("%sok %u - %s, %s%s\n", why ? "not " : "", ++d->tests, name,
	       d->mode, skipped ? " # SKIP not on this device" : "");
	if (why)
		printf("# %s\n", why);
	fflush(stdout);
	d->failed += why != NULL;
}

static bool run(struct device *d, const char *file)
{
	const struct conf_transport transport = {
		.opaque = d,
		.max_segs =
			RING_SIZE < CONF_MAX_SEGS ? RING_SIZE : CONF_MAX_SEGS,
		.features = features,
		.start = start,
		.config = config,
		.submit = submit,
		.needs_reset = needs_reset,
		.system_reset = system_reset,
	};
	bool ok;

	client_init(&d->client, 256 * MIB);
	must(client_connect(&d->client, d->path), "nobody listens there");
	ok = conf_run_file(file, &transport, report);
	client_exit(&d->client);
	return ok;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		uint64_t features;
	} modes[] = {
		{ "direct", 0 },
		{ "indirect, event index", VU_F_INDIRECT | VU_F_EVENT_IDX },
	};
	struct device device = { .path = argv[1] };
	bool ok = argc > 2;

	if (!ok)
		fprintf(stderr,
			"usage: conformance-vhost-user SOCKET VECTORS...\n");
	for (unsigned int mode = 0; mode < 2; mode++) {
		device.mode = modes[mode].name;
		device.ring_features = modes[mode].features;
		for (int i = 2; i < argc && ok; i++)
			ok = run(&device, argv[i]);
	}
	printf("1..%u\n", device.tests);
	return ok && !device.failed ? 0 : 1;
}
