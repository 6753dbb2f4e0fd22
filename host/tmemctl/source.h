/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who is asked: a broker, a QEMU, or a vhost-user-tmem
 *
 * Each of them is a process that may be wrong, slow or gone: what it says is
 * checked and bounded, and waited for some seconds at most.
 */
#ifndef TMEMCTL_SOURCE_H
#define TMEMCTL_SOURCE_H

#include "view.h"

/* An answer is waited for so long. */
#define ANSWER_MS 5000

/* One line, for people. */
struct why {
	char text[512];
};

int why_set(struct why *why, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

struct source;

enum change_kind {
	CHANGE_LIMITS,
	CHANGE_FREEZE, /* and thaw */
	CHANGE_SHRINK,
};

struct change {
	enum change_kind kind;
	uint64_t max;	 /* LIMITS: bytes; 0: as it is */
	uint64_t weight; /* 0: as it is */
	bool frozen;
	uint64_t bytes; /* SHRINK */
};

struct source_ops {
	/*
	 * Add the stores, and the host if it knows it.  Connects where it is
	 * not connected.  0, or -1 and why; then it is not connected.
	 */
	int (*read)(struct source *source, struct view *view, struct why *why);
	/*
	 * Change @vm, which read() has added.  0, and what has become of it for
	 * people; or -1, and why it was refused.
	 */
	int (*change)(struct source *source, const struct vm *vm,
		      const struct change *change, struct why *why);
};

struct source {
	const struct source_ops *ops;
	const char *option; /* the command line's, for people */
	const char *path;
	int fd; /* -1: not connected */
	unsigned int number;
	uint64_t deadline_ms; /* of the request at hand */
	void *parser;	      /* qmp.c's */
	uint64_t pid;	      /* of who is there; UNKNOWN */
};

extern const struct source_ops broker_ops, qemu_ops, backend_ops;

/*
 * Connect to a socket of @type; @there: what should be there, @mend: what to do
 * if it is not.  0, or -1 and why.
 */
int source_connect(struct source *source, int type, const char *there,
		   const char *mend, struct why *why);
void source_close(struct source *source);

/* Until there is something to read, or to write: 0; -1: the deadline. */
int source_wait(struct source *source, short events);

/*
 * Ask all of them; @view is what they say together.  0, or -1 and why: some
 * have failed.
 */
int sources_read(struct source *sources, unsigned int num, struct view *view,
		 struct why *why);

#endif /* TMEMCTL_SOURCE_H */
