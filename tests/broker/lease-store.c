// SPDX-License-Identifier: BSD-3-Clause
/*
 * A store with a lease, for tests: what a VM's process is to the broker
 *
 * usage: lease-store SOCKET NAME RESERVED [MAX [RANDOM]]
 * RESERVED, MAX: bytes, the first raw; RANDOM: percent of each page that does
 * not compress, the rest is zeros; default: 100
 *
 * Lines on standard input, each answered by one line of JSON:
 *	put N		put N persistent pages at new keys; "broken": refused
 *			though the reservation had room
 *	cache N		the same, ephemeral
 *	get N		get N ephemeral pages, the youngest first
 *	flush N		flush the N oldest persistent pages
 *	verify		get all persistent pages that were accepted, and compare
 *	reserve N	reserve N raw bytes: what the broker says to that
 *	stats		what the store and its lease say
 * What the lease reports is a line on standard error.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tmem-lease.h"

#define PAGE	   4096u
#define PERSISTENT 1
#define EPHEMERAL  2
#define MAX_PAGES  (1u << 20)

static struct tmem_store *store;
static struct tmem_tenant *tenant;
static struct tmem_ctx *ctx;
static struct tmem_lease *lease;
/* Persistent pages that were accepted, and not flushed. */
static uint8_t accepted[MAX_PAGES];
static uint64_t next_page, first_page, next_cached, live, reserved;
static unsigned int words_random = PAGE / 8;

static void must(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "lease-store: %s: %s\n", what, strerror(-error));
	exit(1);
}

static void on_report(void *opaque, const char *line)
{
	fprintf(stderr, "lease-store: %s\n", line);
}

/* Of a page, by its number and its pool. */
static void make_page(uint64_t *page, uint64_t seed)
{
	memset(page + words_random, 0, PAGE - 8 * words_random);
	for (unsigned int i = 0; i < words_random; i++) {
		uint64_t x = seed * 1000003 + i + 0x9e3779b97f4a7c15ull;

		x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
		x = (x ^ x >> 27) * 0x94d049bb133111ebull;
		page[i] = x ^ x >> 31;
	}
}

static unsigned int run(uint16_t verb, uint32_t pool, uint64_t index,
			void *page)
{
	struct iovec iov = { page, PAGE };
	struct tmem_page result = { 0 };
	struct tmem_op op = {
		.verb = verb,
		.pool = pool,
		.index = index,
		.count = 1,
		.page_size = PAGE,
		.iov = &iov,
		.iovcnt = 1,
		.page = &result,
	};

	must(tmem_submit(ctx, tenant, &op), "tmem_submit");
	return result.status;
}

/* As a process does between requests: the lease has its turn, too. */
static void breathe(uint64_t i)
{
	struct pollfd fd = { .fd = tmem_lease_fd(lease), .events = POLLIN };

	tmem_lease_poke(lease);
	if (i % 64 == 0 && poll(&fd, 1, 0) > 0)
		tmem_lease_process(lease);
}

static void put(uint64_t n)
{
	uint64_t page[PAGE / 8], refused = 0, broken = 0;

	for (uint64_t i = 0; i < n && next_page < MAX_PAGES; i++) {
		make_page(page, next_page);
		accepted[next_page] =
			!run(TMEM_PUT, PERSISTENT, next_page, page);
		if (accepted[next_page++]) {
			live++;
		} else {
			refused++;
			broken += (live + 1) * PAGE <= reserved;
		}
		breathe(i);
	}
	printf("{\"refused\": %" PRIu64 ", \"broken\": %" PRIu64 "}\n", refused,
	       broken);
}

static void cache(uint64_t n)
{
	uint64_t page[PAGE / 8], refused = 0;

	for (uint64_t i = 0; i < n; i++) {
		make_page(page, ~next_cached);
		refused += run(TMEM_PUT, EPHEMERAL, next_cached++, page);
		breathe(i);
	}
	printf("{\"refused\": %" PRIu64 "}\n", refused);
}

static void get(uint64_t n)
{
	uint64_t page[PAGE / 8], hits = 0;

	for (uint64_t i = 0; i < n && i < next_cached; i++) {
		hits += !run(TMEM_GET, EPHEMERAL, next_cached - 1 - i, page);
		breathe(i);
	}
	printf("{\"hits\": %" PRIu64 "}\n", hits);
}

static void flush(uint64_t n)
{
	for (uint64_t i = 0; i < n && first_page < next_page; first_page++) {
		if (!accepted[first_page])
			continue;
		run(TMEM_FLUSH, PERSISTENT, first_page, NULL);
		accepted[first_page] = 0;
		live--;
		breathe(i++);
	}
	while (tmem_step(store, 1024))
		;
	tmem_lease_poke(lease);
	printf("{}\n");
}

static void verify(void)
{
	uint64_t page[PAGE / 8], want[PAGE / 8], lost = 0, found = 0;

	for (uint64_t i = first_page; i < next_page; i++) {
		if (!accepted[i])
			continue;
		make_page(want, i);
		if (run(TMEM_GET, PERSISTENT, i, page) ||
		    memcmp(page, want, PAGE))
			lost++;
		else
			found++;
		breathe(i);
	}
	printf("{\"found\": %" PRIu64 ", \"lost\": %" PRIu64 "}\n", found,
	       lost);
}

static void reserve(uint64_t raw)
{
	const struct tmem_lease_terms_config terms = {
		.size = sizeof(terms),
		.reserved = tmem_reservation_cost(raw),
		.wait_ms = 10000,
	};
	const struct tmem_limits limits = { .size = sizeof(limits),
					    .persistent_reserved = raw };
	struct tmem_limits now = { .size = sizeof(now) };
	char why[300] = "";
	int error;

	tmem_tenant_get_limits(tenant, &now);
	/* Less is given up after it is no more needed. */
	if (raw < now.persistent_reserved)
		must(tmem_tenant_set_limits(tenant, &limits), "limits");
	error = tmem_lease_set_terms(lease, &terms, why, sizeof(why));
	if (!error) {
		must(tmem_tenant_set_limits(tenant, &limits), "limits");
		reserved = raw;
	}
	printf("{\"error\": %d, \"why\": \"%s\"}\n", error, why);
}

static void stats(void)
{
	struct tmem_lease_info info;
	struct tmem_stats s = { .size = sizeof(s) };

	tmem_store_stats(store, &s);
	tmem_lease_info(lease, &info);
	printf("{\"held\": %" PRIu64 ", \"reclaimable\": %" PRIu64
	       ", \"connected\": %s, \"leased\": %" PRIu64
	       ", \"target\": %" PRIu64 ", \"wanted\": %" PRIu64
	       ", \"recalls\": %" PRIu64 ", \"sent\": %" PRIu64
	       ", \"evictions\": %" PRIu64 ", \"refused\": %" PRIu64 "}\n",
	       s.held_bytes, s.reclaimable_bytes,
	       info.connected ? "true" : "false", info.leased, info.target,
	       info.wanted, info.recalls, info.sent, s.evictions,
	       s.puts_refused_limit);
}

static void command(const char *line)
{
	char verb[16] = "";
	uint64_t n = 0;

	sscanf(line, "%15s %" SCNu64, verb, &n);
	if (!strcmp(verb, "put"))
		put(n);
	else if (!strcmp(verb, "cache"))
		cache(n);
	else if (!strcmp(verb, "get"))
		get(n);
	else if (!strcmp(verb, "flush"))
		flush(n);
	else if (!strcmp(verb, "verify"))
		verify();
	else if (!strcmp(verb, "reserve"))
		reserve(n);
	else
		stats();
	fflush(stdout);
}

static void open_store(char **argv, int argc)
{
	const struct tmem_pool_params persistent = { TMEM_POOL_PERSISTENT, 12 },
				      ephemeral = { 0, 12 };
	const struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = tmem_reservation_cost(reserved ? reserved : 1),
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
	};
	const struct tmem_limits limits = { .size = sizeof(limits),
					    .persistent_reserved = reserved };
	const struct tmem_lease_config lease_config = {
		.size = sizeof(lease_config),
		.socket = argv[1],
		.name = argv[2],
		.max = argc > 4 ? strtoull(argv[4], NULL, 10) : 0,
		.report = on_report,
	};
	char why[300] = "";
	int error;

	must(tmem_store_create(&config, &store), "tmem_store_create");
	must(tmem_tenant_open(store, argv[2], &limits, &tenant),
	     "tmem_tenant_open");
	must(tmem_ctx_create(store, &ctx), "tmem_ctx_create");
	must(tmem_pool_create(tenant, PERSISTENT, &persistent, NULL), "pool");
	must(tmem_pool_create(tenant, EPHEMERAL, &ephemeral, NULL), "pool");
	error = tmem_lease_open(store, &tenant, 1, &lease_config, &lease, why,
				sizeof(why));
	if (error == -EACCES) {
		fprintf(stderr, "lease-store: refused: %s\n", why);
		exit(2);
	}
	must(error, "tmem_lease_open");
}

/* Standard input, a line at a time; poll(2) and stdio do not go together. */
static void read_commands(void)
{
	static char text[4096];
	static size_t length;
	ssize_t got = read(0, text + length, sizeof(text) - 1 - length);
	char *line = text, *end;

	if (got <= 0)
		exit(0);
	length += got;
	text[length] = 0;
	while ((end = strchr(line, '\n'))) {
		*end = 0;
		command(line);
		line = end + 1;
	}
	length -= line - text;
	memmove(text, line, length);
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: lease-store SOCKET NAME RESERVED "
				"[MAX [RANDOM]]\n");
		return 1;
	}
	reserved = strtoull(argv[3], NULL, 10);
	if (argc > 5)
		words_random = PAGE / 8 * strtoul(argv[5], NULL, 10) / 100;
	open_store(argv, argc);
	printf("{\"open\": true}\n");
	fflush(stdout);
	for (;;) {
		struct pollfd fds[2] = {
			{ .fd = 0, .events = POLLIN },
			{ .fd = tmem_lease_fd(lease), .events = POLLIN },
		};

		poll(fds, 2, -1);
		if (fds[1].revents)
			tmem_lease_process(lease);
		if (fds[0].revents)
			read_commands();
	}
}
