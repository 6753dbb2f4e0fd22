// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guest memory that goes away under us
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include "guard.h"

/* A thread touches its own VM's memory alone. */
static _Thread_local struct guard *volatile mine;

static const struct guard_region *find(const struct guard *guard,
				       uintptr_t address)
{
	for (unsigned int i = 0; guard && i < guard->num; i++) {
		const struct guard_region *r = &guard->region[i];

		if (address >= r->start && address - r->start < r->size)
			return r;
	}
	return NULL;
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	const struct guard_region *r = find(mine, (uintptr_t)info->si_addr);
	int saved = errno;

	/* Somebody sent it, or it is memory of our own: as without a handler.
	 */
	if (info->si_code <= 0 || !r ||
	    mmap((void *)r->start, r->size, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		 0) == MAP_FAILED) {
		signal(SIGBUS, SIG_DFL);
		raise(SIGBUS);
		return;
	}
	mine->tripped = true;
	errno = saved;
}

void guard_install(void)
{
	struct sigaction action = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGBUS, &action, NULL);
}

void guard_use(struct guard *guard)
{
	mine = guard;
}
