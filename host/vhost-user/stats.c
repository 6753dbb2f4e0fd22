// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Statistics, as JSON.  Names are those of QEMU's device and of struct
 * tmem_stats.
 */
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stats.h"

#define FIELD(name)                                                            \
	{                                                                      \
#name, offsetof(struct tmem_stats, name)                       \
	}
static const struct field {
	const char *name;
	size_t offset;
} fields[] = {
	FIELD(persistent_pages),
	FIELD(ephemeral_pages),
	FIELD(persistent_raw_bytes),
	FIELD(ephemeral_raw_bytes),
	FIELD(stored_bytes),
	FIELD(same_filled_pages),
	FIELD(raw_pages),
	FIELD(recompressed_pages),
	FIELD(held_bytes),
	FIELD(held_peak_bytes),
	FIELD(draining_pages),
	FIELD(reclaimable_bytes),
	FIELD(puts),
	FIELD(puts_refused_limit),
	FIELD(puts_refused_memory),
	FIELD(puts_refused_headroom),
	FIELD(gets),
	FIELD(misses),
	FIELD(io_errors),
	FIELD(flushes),
	FIELD(evictions),
	FIELD(refaults),
};

static void print_member(FILE *out, const char *name, uint64_t value)
{
	fprintf(out, ", \"%s\": %" PRIu64, name, value);
}

static void print_stats(FILE *out, const struct tmem_stats *stats)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		print_member(out, fields[i].name,
			     *(const uint64_t *)((const char *)stats +
						 fields[i].offset));
}

/* A path may have any character. */
static void print_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', out);
		if ((unsigned char)*text < ' ')
			fprintf(out, "\\u%04x", *text);
		else
			fputc(*text, out);
	}
	fputc('"', out);
}

static uint64_t read_counter(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* What the broker allows. */
static void print_lease(FILE *out, struct tmem_lease *lease)
{
	struct tmem_lease_info info;

	if (!lease)
		return;
	tmem_lease_info(lease, &info);
	fprintf(out, ", \"lease\": {\"connected\": %s",
		info.connected ? "true" : "false");
	print_member(out, "leased_bytes", info.leased);
	print_member(out, "target_bytes", info.target);
	print_member(out, "wanted_bytes", info.wanted);
	print_member(out, "reserved_bytes", info.reserved);
	print_member(out, "pressure", info.pressure);
	print_member(out, "recalls", info.recalls);
	fputc('}', out);
}

static void print_limits(FILE *out, struct tmem_tenant *tenant)
{
	struct tmem_limits limits = { .size = sizeof(limits) };

	tmem_tenant_get_limits(tenant, &limits);
	print_member(out, "pressure", tmem_tenant_pressure(tenant));
	print_member(out, "persistent_reserved", limits.persistent_reserved);
	print_member(out, "persistent_max", limits.persistent_max);
	print_member(out, "ephemeral_max",
		     limits.ephemeral_max == TMEM_KEEP_NOTHING
			     ? 0
			     : limits.ephemeral_max);
}

static void print_vm(FILE *out, struct vm *vm)
{
	struct tmem_server_stats server;
	struct tmem_stats stats = { .size = sizeof(stats) };

	tmem_tenant_stats(vm->tenant, &stats);
	tmem_server_stats(vm->server, &server);
	fputs("{\"name\": ", out);
	print_string(out, vm->name);
	fprintf(out, ", \"connected\": %s",
		atomic_load(&vm->connected) ? "true" : "false");
	print_member(out, "generation", tmem_server_generation(vm->server));
	print_member(out, "connections",
		     read_counter(&vm->counters.connections));
	print_member(out, "requests", read_counter(&vm->counters.requests));
	print_member(out, "kicks", read_counter(&vm->counters.kicks));
	print_member(out, "sleeps", read_counter(&vm->counters.sleeps));
	print_member(out, "broken", read_counter(&vm->counters.broken));
	print_member(out, "bad_requests", server.bad_requests);
	print_member(out, "bad_chains", server.bad_chains);
	print_limits(out, vm->tenant);
	print_stats(out, &stats);
	fputc('}', out);
}

void stats_send(int listen_fd, struct vm *vms, unsigned int num)
{
	int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
	char *text = NULL;
	size_t size = 0;
	FILE *out;

	if (fd < 0) {
		poll(NULL, 0, 100); /* no files: not at full speed */
		return;
	}
	out = open_memstream(&text, &size);
	if (out) {
		struct tmem_stats stats = { .size = sizeof(stats) };

		tmem_store_stats(vms->store, &stats);
		fputs("{\"store\": {\"vms\": ", out);
		fprintf(out, "%u", num);
		print_stats(out, &stats);
		print_lease(out, vms->lease);
		fputs("}, \"vms\": [", out);
		for (unsigned int i = 0; i < num; i++) {
			fputs(i ? ", " : "", out);
			print_vm(out, &vms[i]);
		}
		fputs("]}\n", out);
		if (!fclose(out))
			/* Some kilobytes: who does not read gets part of it. */
			send(fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL);
		free(text);
	}
	close(fd);
}
