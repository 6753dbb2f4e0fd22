/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where in an op's guest memory the next page is
 */
#ifndef TMEM_CURSOR_H
#define TMEM_CURSOR_H

#include "internal.h"

struct cursor {
	const struct iovec *iov;
	unsigned int left; /* elements, iov[0] included */
	size_t offset;	   /* within iov[0] */
};

static inline void cursor_skip(struct cursor *at, size_t bytes)
{
	while (at->left && bytes >= at->iov->iov_len - at->offset) {
		bytes -= at->iov->iov_len - at->offset;
		at->iov++;
		at->left--;
		at->offset = 0;
	}
	at->offset += bytes;
}

/* The next @size bytes if they lie in one piece. */
static inline char *cursor_piece(struct cursor *at, size_t size)
{
	cursor_skip(at, 0);
	if (!at->left || at->iov->iov_len - at->offset < size)
		return NULL;
	return (char *)at->iov->iov_base + at->offset;
}

/* Copy @size bytes and move on. */
static inline void cursor_copy(struct cursor *at, char *private, size_t size,
			       bool to_guest)
{
	while (size) {
		size_t length;
		char *guest;

		cursor_skip(at, 0);
		length = MIN(size, at->iov->iov_len - at->offset);
		guest = (char *)at->iov->iov_base + at->offset;
		memcpy(to_guest ? guest : private, to_guest ? private : guest,
		       length);
		private += length;
		size -= length;
		cursor_skip(at, length);
	}
}

#endif /* TMEM_CURSOR_H */
