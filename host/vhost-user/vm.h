/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One VM: a socket, and the device that whoever connects to it has
 *
 * The socket is the identity: pages belong to it, and outlive a connection by
 * the grace time.  A VM has one thread, which does everything: it accepts,
 * reads messages and serves the rings.  So nothing here needs a lock, memory
 * that a message unmaps is memory that no request is using, and VMs wait for
 * each other in the store alone, whose law is not to hold a lock over guest
 * memory.
 */
#ifndef VHOST_USER_TMEM_VM_H
#define VHOST_USER_TMEM_VM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "limiter.h"
#include "options.h"
#include "tmem-lease.h"
#include "tmem-server.h"

/* Only grow; written by the VM's thread, read by others. */
struct vm_counters {
	_Atomic uint64_t connections;
	_Atomic uint64_t requests;
	_Atomic uint64_t kicks;	 /* notifications by the driver */
	_Atomic uint64_t sleeps; /* times that the thread waited for one */
	_Atomic uint64_t broken; /* devices that wanted a reset */
};

struct vm {
	const struct options *options;
	const char *name; /* the socket's path, for people */
	struct tmem_store *store;
	struct tmem_tenant *tenant;
	struct tmem_server *server;
	/* The store's, which the main thread has; NULL: none. */
	struct tmem_lease *lease;
	int listen_fd; /* -1: there is only the connection that we were given */
	int connected_fd; /* that one; -1: there is none */
	int stop_fd;	  /* polls readable when the process ends */
	/* eventfd: limits or pressure have become others while no ring ran */
	int changed_fd;
	bool unlink; /* the socket's path is ours */
	pthread_t thread;
	struct vm_counters counters;
	/* Lines that a VMM or its guest may cause. */
	struct limiter lines;
	_Atomic bool connected;
};

/* Open the VM's socket and its device.  Does not return if that fails. */
void vm_open(struct vm *vm, const struct options *options,
	     struct tmem_store *store, const char *path, int fd, int stop_fd);
void vm_close(struct vm *vm);

/*
 * A line about what @vm's VMM or guest did; ten a minute, the last of which
 * says that there will be no more.  By the VM's thread.
 */
void vm_report(struct vm *vm, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Work that ops left behind: tmem_step() of that many pages, and its result.
 * Who has the lease hears of it.
 */
unsigned int vm_step(struct vm *vm, unsigned int pages);

/* The VM's thread; ends when stop_fd is readable, or nobody can connect. */
void *vm_thread(void *vm);

static inline void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

#endif /* VHOST_USER_TMEM_VM_H */
