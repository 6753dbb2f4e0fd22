// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a process may still do that has guests' pages
 */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "report.h"
#include "sandbox.h"

/*
 * Of the C library's memory, threads and files; of the store; of sockets. Files
 * are read only: the store looks at /proc, its cgroup and NUMA nodes.
 */
static const int allowed[] = {
	/* memory */
	SCMP_SYS(brk),
	SCMP_SYS(mmap),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(mprotect),
	SCMP_SYS(madvise),
	SCMP_SYS(mlock2),
	SCMP_SYS(munlock),
	SCMP_SYS(memfd_create),
	SCMP_SYS(ftruncate),
	SCMP_SYS(fallocate),
	/* threads, time, signals, the end */
	SCMP_SYS(futex),
	SCMP_SYS(clone),
	SCMP_SYS(clone3),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(gettid),
	SCMP_SYS(getpid),
	SCMP_SYS(tgkill),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(get_mempolicy),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(getrandom),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	/* descriptors */
	SCMP_SYS(read),
	SCMP_SYS(pread64),
	SCMP_SYS(preadv2),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(close),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(fstatfs),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(accept4),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(shutdown),
	SCMP_SYS(unlink),
};

/* Of a lease: the broker comes and goes. */
static const int allowed_lease[] = {
	SCMP_SYS(connect),    SCMP_SYS(recvfrom),    SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(timerfd_settime),
};

static int allow(scmp_filter_ctx context, const int *calls, size_t num)
{
	int error = 0;

	for (size_t i = 0; !error && i < num; i++)
		error = seccomp_rule_add(context, SCMP_ACT_ALLOW, calls[i], 0);
	return error;
}

static int allow_lease(scmp_filter_ctx context)
{
	int error = allow(context, allowed_lease,
			  sizeof(allowed_lease) / sizeof(*allowed_lease));

	if (!error)
		error = seccomp_rule_add(context, SCMP_ACT_ALLOW,
					 SCMP_SYS(socket), 1,
					 SCMP_A0(SCMP_CMP_EQ, AF_UNIX, 0));
	return error;
}

static void filter_calls(int connects)
{
	/* Not killed: a line in the log is worth more than a core. */
	scmp_filter_ctx context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int error = context ? 0 : -ENOMEM;

	if (!error)
		error = allow(context, allowed,
			      sizeof(allowed) / sizeof(*allowed));
	if (!error && connects)
		error = allow_lease(context);
	if (!error)
		error = seccomp_rule_add(
			context, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
			SCMP_A2(SCMP_CMP_MASKED_EQ,
				O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
	if (!error)
		error = seccomp_load(context);
	seccomp_release(context);
	if (error)
		fatal("--sandbox=on: cannot filter system calls: %s; "
		      "--sandbox=off goes without",
		      strerror(-error));
}

void sandbox_enter(int filter, int connects)
{
	const struct rlimit none = { 0, 0 };
	struct rlimit files;

	/* A VMM may send more descriptors than the usual soft limit allows. */
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (setrlimit(RLIMIT_CORE, &none) || prctl(PR_SET_DUMPABLE, 0) ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		fatal("cannot turn off core dumps: %s", strerror(errno));
	if (filter)
		filter_calls(connects);
}
