// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One VM: its socket, its device, and the time between connections
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "connection.h"
#include "keeper.h"
#include "report.h"
#include "socket.h"
#include "vm.h"

/* Pages that are cleared away at a time while nobody is connected. */
#define STEP_PAGES 1024
/* ... and how often. */
#define STEP_MS 1

static uint32_t random_generation(void)
{
	uint32_t generation;

	/*
	 * Whoever reconnects after this process was restarted must see that
	 * the pages of the last one are gone.
	 */
	if (getrandom(&generation, sizeof(generation), 0) != sizeof(generation))
		generation = time(NULL);
	return generation ? generation : 1;
}

/* The pages of this socket that a process before this one has left, if any. */
static bool adopt_tenant(struct vm *vm)
{
	int fd[TMEM_TENANT_FDS], error;
	struct tmem_stats stats = { .size = sizeof(stats) };

	if (!keeper_kept(vm->name, fd))
		return false;
	error = tmem_tenant_adopt(vm->store, vm->name, &vm->options->limits, fd,
				  &vm->tenant);
	if (error && error != -EUCLEAN && error != -ESTALE)
		fatal("%s: cannot go on with its pages: %s", vm->name,
		      error == -EBUSY	 ? "another process has them"
		      : error == -ENOSPC ? "--reserved does not fit into --size"
					 : strerror(-error));
	if (error) {
		report("%s: the memory of its pages is damaged; it begins "
		       "without them",
		       vm->name);
		return false;
	}
	tmem_tenant_stats(vm->tenant, &stats);
	report("%s: goes on with %" PRIu64 " pages", vm->name,
	       stats.persistent_pages);
	return true;
}

static void open_tenant(struct vm *vm)
{
	int fd[TMEM_TENANT_FDS], error;

	if (adopt_tenant(vm))
		return;
	error = tmem_tenant_open(vm->store, vm->name, &vm->options->limits,
				 &vm->tenant);
	if (error)
		fatal("%s: cannot make a store: %s", vm->name,
		      strerror(-error));
	tmem_tenant_fds(vm->tenant, fd);
	keeper_store(vm->name, fd);
}

void vm_open(struct vm *vm, const struct options *options,
	     struct tmem_store *store, const char *path, int fd, int stop_fd)
{
	struct tmem_server_config config = {
		.store = store,
		.features = ~0ull,
		.num_fast = options->num_fast,
		.num_bulk = options->num_bulk,
		.generation = random_generation(),
	};
	int error;

	*vm = (struct vm){
		.options = options,
		.name = path ? path : "--fd",
		.store = store,
		.listen_fd = -1,
		.connected_fd = -1,
		.stop_fd = stop_fd,
		.changed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
	};
	if (vm->changed_fd < 0)
		fatal("eventfd: %s", strerror(errno));
	open_tenant(vm);
	config.tenant = vm->tenant;
	/* What the last process has left is of its generation. */
	if (tmem_tenant_cookie(vm->tenant))
		config.generation = tmem_tenant_cookie(vm->tenant);
	error = tmem_server_create(&config, &vm->server);
	if (error)
		fatal("%s: cannot make a device: %s", vm->name,
		      strerror(-error));
	if (path) {
		vm->listen_fd = socket_listen("--socket-path", path,
					      options->socket_group);
		vm->unlink = true;
	} else if (socket_is_listening(fd)) {
		vm->listen_fd = fd;
	} else if (options->keep) {
		/* The parent would keep it open: no VMM would see its end. */
		fatal("--keep: --fd=%d is a connection: give a listening "
		      "socket",
		      fd);
	} else {
		vm->connected_fd = fd;
	}
}

void vm_close(struct vm *vm)
{
	if (vm->unlink)
		unlink(vm->name);
	if (vm->listen_fd >= 0)
		close(vm->listen_fd);
	close(vm->changed_fd);
	tmem_server_destroy(vm->server);
	/* Whoever keeps its memory wants the pages; nobody else has it. */
	tmem_tenant_detach(vm->tenant);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

unsigned int vm_step(struct vm *vm, unsigned int pages)
{
	unsigned int visited = tmem_step(vm->store, pages);

	if (vm->lease)
		tmem_lease_poke(vm->lease);
	return visited;
}

void vm_report(struct vm *vm, const char *format, ...)
{
	const char *end = limiter_next(&vm->lines, now_ms());
	char text[300];
	va_list ap;

	if (!end)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	report("%s: %s%s", vm->name, text, end);
}

static void serve(struct vm *vm, int fd)
{
	struct connection *connection = connection_open(vm, fd);

	if (!connection)
		return;
	count(&vm->counters.connections);
	atomic_store(&vm->connected, true);
	connection_run(connection);
	atomic_store(&vm->connected, false);
	connection_close(connection);
}

static bool holds_pages(struct vm *vm)
{
	struct tmem_server_pool pool;

	return tmem_server_list_pools(vm->server, &pool, 1) > 0;
}

/*
 * Wait for the next connection, with @vm's pages for the grace time.  -1: the
 * process ends.
 */
static int next_connection(struct vm *vm)
{
	struct pollfd fds[2] = {
		{ .fd = vm->stop_fd, .events = POLLIN },
		{ .fd = vm->listen_fd, .events = POLLIN },
	};
	uint64_t end = now_ms() + vm->options->grace_s * 1000ull;

	while (vm->listen_fd >= 0) {
		bool held = holds_pages(vm);
		uint64_t now = now_ms();
		int fd, timeout = -1;

		if (held && now >= end) {
			/* The VMM is gone for good: so are its pages. */
			tmem_server_system_reset(vm->server);
			held = false;
		}
		/* Of pools that have ended, too, perhaps by its last word. */
		if (vm_step(vm, STEP_PAGES))
			timeout = STEP_MS;
		else if (held)
			timeout = end - now;
		if (poll(fds, 2, timeout) < 0 && errno != EINTR)
			fatal("%s: poll: %s", vm->name, strerror(errno));
		if (fds[0].revents)
			return -1;
		if (!fds[1].revents)
			continue;
		fd = accept4(vm->listen_fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			poll(fds, 1, 100); /* not at full speed */
	}
	return -1;
}

void *vm_thread(void *opaque)
{
	struct vm *vm = opaque;
	int fd = vm->connected_fd;

	if (fd >= 0)
		serve(vm, fd);
	while ((fd = next_connection(vm)) >= 0)
		serve(vm, fd);
	return NULL;
}
