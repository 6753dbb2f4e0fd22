// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vhost-user-tmem: a virtio-tmem device in a process of its own
 *
 * One process serves one VM (with --shared, several): if it falls, or is
 * flooded, or has a hole, one VM is hurt.  docs/vhost-user.md has the picture.
 *
 *	options.c	the command line
 *	socket.c	sockets
 *	vm.c		a VM: its thread, its pages between connections
 *	connection.c	a connection: the loop
 *	message.c	what the VMM may say
 *	ring.c		what the guest may ask
 *	keeper.c	who keeps pages when this process ends
 *	keep.c		... that is, with --keep: the parent
 *	guard.c		guest memory that goes away
 *	sandbox.c	what the process may do
 *	stats.c		what it tells
 *
 * With --lease the main thread has the lease: it shrinks the store where bytes
 * are recalled, and no VM waits for that.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "guard.h"
#include "keeper.h"
#include "options.h"
#include "report.h"
#include "sandbox.h"
#include "socket.h"
#include "stats.h"
#include "vm.h"

/* How long the process waits for a thread at its end. */
#define JOIN_S 5

static struct options options;
static struct vm vms[MAX_VMS];
static int stats_fd = -1;
static struct tmem_lease *lease;
static bool started;

static void on_lease(void *opaque, const char *line)
{
	report("--lease: %s", line);
}

/* Before the sandbox: what it opens once, it needs to open once. */
static void open_lease(struct tmem_store *store, unsigned int num)
{
	struct tmem_tenant *tenants[MAX_VMS];
	const struct tmem_lease_config config = {
		.size = sizeof(config),
		/* Then pages outlive a process. */
		.flags = keeper_keeps() ? TMEM_LEASE_CONFIG_KEPT : 0,
		.socket = options.lease,
		.name = options.name,
		.max = options.size,
		.report = on_lease,
	};
	char why[300];
	int error;

	for (unsigned int i = 0; i < num; i++)
		tenants[i] = vms[i].tenant;
	error = tmem_lease_open(store, tenants, num, &config, &lease, why,
				sizeof(why));
	if (error)
		fatal("--lease=%s: %s", options.lease,
		      error == -EACCES ? why : strerror(-error));
	for (unsigned int i = 0; i < num; i++)
		vms[i].lease = lease;
}

/* Bytes that the store begins with: a lease begins with the reservations. */
static uint64_t first_size(void)
{
	uint64_t need =
		(options.num_sockets ? options.num_sockets : 1) *
		tmem_reservation_cost(options.limits.persistent_reserved);

	if (!options.lease)
		return options.size;
	return need ? need : tmem_reservation_cost(1);
}

static struct tmem_store *open_store(void)
{
	const struct tmem_store_config config = {
		.size = sizeof(config),
		.flags = options.lock ? TMEM_STORE_LOCK : 0,
		.max_bytes = first_size(),
		.cgroup_headroom = options.cgroup_headroom,
		.host_headroom = options.host_headroom,
		.recompress_percent = options.recompress_percent,
		.recompress_after_s = options.recompress_after_s,
	};
	struct tmem_store *store;
	int error = tmem_store_create(&config, &store);

	if (error)
		fatal("cannot make a store of %llu bytes: %s",
		      (unsigned long long)config.max_bytes, strerror(-error));
	return store;
}

/*
 * --lock: what the store would take first.  Refused later, it would look like a
 * host without memory.
 */
static void check_lock(void)
{
	const size_t size = 96 << 20; /* TMEM_STORE_LOCK */
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED || mlock2(memory, size, MLOCK_ONFAULT))
		fatal("--lock: cannot lock 96 MiB of memory: %s: raise "
		      "RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=) to --size and "
		      "96 MiB for each VM, or go without",
		      strerror(errno));
	munmap(memory, size);
}

/* SIGTERM and SIGINT end the process; SIGPIPE is an error of write(2). */
static int catch_signals(void)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (fd < 0)
		fatal("signalfd: %s", strerror(errno));
	return fd;
}

/* Limits and pressure are the lease's matter, and a guest's that is idle. */
static void process_lease(unsigned int num)
{
	static struct tmem_lease_info last;
	struct tmem_lease_info info;

	tmem_lease_process(lease);
	tmem_lease_info(lease, &info);
	if (info.leased == last.leased && info.target == last.target &&
	    info.pressure == last.pressure)
		return;
	last = info;
	for (unsigned int i = 0; i < num; i++)
		eventfd_write(vms[i].changed_fd, 1);
}

/* Until a signal, or until nobody can connect any more. */
static void wait_for_end(int signal_fd, int ended_fd)
{
	struct pollfd fds[4] = {
		{ .fd = signal_fd, .events = POLLIN },
		{ .fd = ended_fd, .events = POLLIN },
		{ .fd = stats_fd, .events = POLLIN },
		{ .fd = lease ? tmem_lease_fd(lease) : -1, .events = POLLIN },
	};
	unsigned int num = options.num_sockets ? options.num_sockets : 1;

	for (;;) {
		if (poll(fds, 4, -1) < 0 && errno != EINTR)
			fatal("poll: %s", strerror(errno));
		if (fds[0].revents || fds[1].revents)
			return;
		if (fds[2].revents)
			stats_send(stats_fd, vms, num);
		if (fds[3].revents)
			process_lease(num);
	}
}

struct thread_args {
	struct vm *vm;
	int ended_fd;
};

static void *run(void *opaque)
{
	struct thread_args *args = opaque;

	vm_thread(args->vm);
	eventfd_write(args->ended_fd, 1);
	return NULL;
}

static void remove_sockets(void)
{
	for (unsigned int i = 0; i < options.num_sockets; i++)
		unlink(options.socket_path[i]);
	if (options.stats_path)
		unlink(options.stats_path);
}

/*
 * Wait for a VM's thread.  A descriptor of its VMM's, an eventfd that is full
 * and blocks, may hold it for ever: not the process.
 */
static void join(struct vm *vm)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += JOIN_S;
	if (!pthread_timedjoin_np(vm->thread, NULL, &end))
		return;
	report("%s: hangs in a descriptor of its VMM's, and is left behind",
	       vm->name);
	remove_sockets();
	/* Not a mistake of the start: the next process may well do better. */
	_exit(STATUS_AGAIN);
}

/* A mistake at the start leaves no socket behind. */
static void undo(void)
{
	for (unsigned int i = 0; !started && i < options.num_sockets; i++)
		if (vms[i].unlink)
			unlink(vms[i].name);
	if (!started && stats_fd >= 0)
		unlink(options.stats_path);
}

int main(int argc, char **argv)
{
	struct thread_args args[MAX_VMS];
	struct tmem_store *store;
	unsigned int num;
	int signal_fd, stop_fd, ended_fd;

	options_read(&options, argc, argv);
	if (options.keep)
		keep(argv);
	keeper_init();
	num = options.num_sockets ? options.num_sockets : 1;
	signal_fd = catch_signals();
	stop_fd = eventfd(0, EFD_CLOEXEC);
	ended_fd = eventfd(0, EFD_CLOEXEC);
	guard_install();
	atexit(undo);
	if (options.lock)
		check_lock();
	store = open_store();
	for (unsigned int i = 0; i < num; i++)
		vm_open(&vms[i], &options, store,
			options.num_sockets ? options.socket_path[i] : NULL,
			options.fd, stop_fd);
	keeper_done();
	if (options.lease)
		open_lease(store, num);
	if (options.stats_path)
		stats_fd = socket_listen("--stats-path", options.stats_path,
					 options.socket_group);
	sandbox_enter(options.sandbox, options.lease != NULL);
	for (unsigned int i = 0; i < num; i++) {
		args[i] = (struct thread_args){ &vms[i], ended_fd };
		if (pthread_create(&vms[i].thread, NULL, run, &args[i]))
			fatal("cannot make a thread for %s", vms[i].name);
	}
	started = true;
	wait_for_end(signal_fd, ended_fd);
	eventfd_write(stop_fd, 1);
	for (unsigned int i = 0; i < num; i++)
		join(&vms[i]);
	tmem_lease_close(lease);
	for (unsigned int i = 0; i < num; i++)
		vm_close(&vms[i]);
	if (options.stats_path)
		unlink(options.stats_path);
	tmem_store_destroy(store);
	return 0;
}
