// SPDX-License-Identifier: BSD-3-Clause
/*
 * Many stores that have leases, and the time that gets of their pages take
 *
 * usage: bench-scrape-client SOCKET STORES PAGES
 *
 * Each store has PAGES persistent pages.  Then each line on standard input is a
 * window, "MILLISECONDS RATE": so many gets a second in all, of any store and
 * page, each at its time whether the one before is done or not.  It is answered
 * by a line of JSON: percentiles over all gets, and all times of each store,
 * in ns.
 *
 * One thread gets; another has the leases, as in a back end.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "bench.h"
#include "tmem-lease.h"

#define POOL 1
#define SIZE 4096u

struct store {
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_ctx *ctx;
	struct tmem_lease *lease;
	/* Times of this window. */
	uint32_t *ns;
	size_t num, room;
};

static struct store *stores;
static unsigned int num_stores;
static uint64_t num_pages;
static int epoll_fd;
static uint64_t seed = 88172645463325252ull;

static void must(int error, const char *what)
{
	if (error)
		die("%s: %s", what, strerror(-error));
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static unsigned int run(struct store *s, uint16_t verb, uint64_t index,
			void *page)
{
	struct iovec iov = { page, SIZE };
	struct tmem_page result = { 0 };
	struct tmem_op op = {
		.verb = verb,
		.pool = POOL,
		.index = index,
		.count = 1,
		.page_size = SIZE,
		.iov = &iov,
		.iovcnt = 1,
		.page = &result,
	};

	must(tmem_submit(s->ctx, s->tenant, &op), "tmem_submit");
	return result.status;
}

/* Half of it compresses. */
static void fill(struct store *s)
{
	static uint64_t page[SIZE / 8];

	for (uint64_t i = 0; i < num_pages; i++) {
		for (unsigned int k = 0; k < SIZE / 16; k++)
			page[k] = next_random(&seed);
		if (run(s, TMEM_PUT, i, page))
			die("a page was refused within a reservation");
	}
}

static void open_store(struct store *s, const char *socket, unsigned int number)
{
	const struct tmem_pool_params params = { TMEM_POOL_PERSISTENT, 12 };
	const uint64_t reserved = num_pages * SIZE;
	const struct tmem_limits limits = { .size = sizeof(limits),
					    .persistent_reserved = reserved };
	const struct tmem_store_config config = {
		.size = sizeof(config),
		.max_bytes = tmem_reservation_cost(reserved),
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
	};
	char name[32], why[300] = "";
	const struct tmem_lease_config lease = {
		.size = sizeof(lease),
		.socket = socket,
		.name = name,
	};
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = s };

	snprintf(name, sizeof(name), "vm%u", number);
	must(tmem_store_create(&config, &s->store), "tmem_store_create");
	must(tmem_tenant_open(s->store, name, &limits, &s->tenant),
	     "tmem_tenant_open");
	must(tmem_ctx_create(s->store, &s->ctx), "tmem_ctx_create");
	must(tmem_pool_create(s->tenant, POOL, &params, NULL), "pool");
	if (tmem_lease_open(s->store, &s->tenant, 1, &lease, &s->lease, why,
			    sizeof(why)))
		die("%s: no lease: %s", name, why);
	fill(s);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, tmem_lease_fd(s->lease), &event))
		die("epoll: %s", strerror(errno));
}

static void *run_leases(void *opaque)
{
	struct epoll_event events[64];

	for (;;) {
		int num = epoll_wait(epoll_fd, events, 64, -1);

		for (int i = 0; i < num; i++) {
			struct store *s = events[i].data.ptr;

			tmem_lease_process(s->lease);
		}
	}
	return NULL;
}

static void wait_until(uint64_t at)
{
	struct timespec t = { at / 1000000000, at % 1000000000 };

	/* A sleep ends late by as much as a get takes: only long ones. */
	if (at > now_ns() + 100000)
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	while (now_ns() < at)
		;
}

static void note(struct store *s, uint64_t ns)
{
	if (s->num == s->room) {
		s->room = s->room ? 2 * s->room : 1024;
		s->ns = realloc(s->ns, s->room * sizeof(*s->ns));
		if (!s->ns)
			die("out of memory");
	}
	s->ns[s->num++] = ns < UINT32_MAX ? ns : UINT32_MAX;
}

static void window(uint64_t ms, uint64_t rate)
{
	static uint64_t page[SIZE / 8];
	const uint64_t gets = ms * rate / 1000;
	uint64_t begin = now_ns() + 1000000;

	for (unsigned int i = 0; i < num_stores; i++)
		stores[i].num = 0;
	for (uint64_t i = 0; i < gets; i++) {
		struct store *s = &stores[next_random(&seed) % num_stores];
		uint64_t at = begin + i * 1000000000 / rate;

		wait_until(at);
		if (run(s, TMEM_GET, next_random(&seed) % num_pages, page))
			die("a page is lost");
		note(s, now_ns() - at);
		tmem_lease_poke(s->lease);
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void print_window(void)
{
	struct store all = { 0 };

	for (unsigned int i = 0; i < num_stores; i++)
		for (size_t k = 0; k < stores[i].num; k++)
			note(&all, stores[i].ns[k]);
	if (!all.num)
		die("a window without a get: give a longer one");
	qsort(all.ns, all.num, sizeof(*all.ns), compare);
	printf("{\"gets\": %zu, \"p50\": %u, \"p99\": %u, \"p999\": %u, "
	       "\"vms\": [",
	       all.num, all.ns[all.num / 2], all.ns[all.num * 99 / 100],
	       all.ns[all.num * 999 / 1000]);
	for (unsigned int i = 0; i < num_stores; i++) {
		printf("%s[", i ? ", " : "");
		for (size_t k = 0; k < stores[i].num; k++)
			printf("%s%u", k ? "," : "", stores[i].ns[k]);
		printf("]");
	}
	printf("]}\n");
	fflush(stdout);
	free(all.ns);
}

int main(int argc, char **argv)
{
	uint64_t ms, rate;
	pthread_t thread;
	char line[100];

	if (argc != 4)
		die("usage: bench-scrape-client SOCKET STORES PAGES");
	num_stores = strtoul(argv[2], NULL, 10);
	num_pages = strtoul(argv[3], NULL, 10);
	stores = calloc(num_stores, sizeof(*stores));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (!num_stores || !num_pages || !stores || epoll_fd < 0)
		die("STORES and PAGES: 1 or more");
	for (unsigned int i = 0; i < num_stores; i++)
		open_store(&stores[i], argv[1], i);
	if (pthread_create(&thread, NULL, run_leases, NULL))
		die("no thread");
	printf("{}\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%" SCNu64 " %" SCNu64, &ms, &rate) != 2)
			die("'%s': must be MILLISECONDS RATE", line);
		window(ms, rate);
		print_window();
	}
	return 0;
}
