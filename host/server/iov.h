/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Scattered guest memory as one run of bytes
 *
 * Offsets and lengths are bounded by the callers, who have compared them with
 * iov_size() before.  Nothing here looks at what it copies.
 */
#ifndef TMEM_SERVER_IOV_H
#define TMEM_SERVER_IOV_H

#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

/* Bytes in all; SIZE_MAX if that is more than a size_t can say. */
static inline size_t iov_size(const struct iovec *iov, unsigned int num)
{
	size_t size = 0;

	for (unsigned int i = 0; i < num; i++) {
		if (iov[i].iov_len > SIZE_MAX - size)
			return SIZE_MAX;
		size += iov[i].iov_len;
	}
	return size;
}

/* A place in an iovec. */
struct iov_pos {
	const struct iovec *iov;
	unsigned int num; /* elements from iov on */
	size_t skip;	  /* bytes of iov[0] that are behind; < its length */
};

static inline void iov_advance(struct iov_pos *pos, size_t bytes)
{
	pos->skip += bytes;
	while (pos->num && pos->skip >= pos->iov->iov_len) {
		pos->skip -= pos->iov->iov_len;
		pos->iov++;
		pos->num--;
	}
}

static inline struct iov_pos iov_at(const struct iovec *iov, unsigned int num,
				    size_t offset)
{
	struct iov_pos pos = { iov, num, 0 };

	iov_advance(&pos, offset);
	return pos;
}

/* The next piece, of @max bytes at most; NULL at the end. */
static inline void *iov_next(struct iov_pos *pos, size_t max, size_t *len)
{
	void *piece;

	if (!pos->num || !max)
		return NULL;
	*len = pos->iov->iov_len - pos->skip;
	if (*len > max)
		*len = max;
	piece = (char *)pos->iov->iov_base + pos->skip;
	iov_advance(pos, *len);
	return piece;
}

static inline void iov_read(struct iov_pos *pos, void *to, size_t bytes)
{
	void *piece;
	size_t len;

	while ((piece = iov_next(pos, bytes, &len))) {
		memcpy(to, piece, len);
		to = (char *)to + len;
		bytes -= len;
	}
}

static inline void iov_write(struct iov_pos *pos, const void *from,
			     size_t bytes)
{
	void *piece;
	size_t len;

	while ((piece = iov_next(pos, bytes, &len))) {
		memcpy(piece, from, len);
		from = (const char *)from + len;
		bytes -= len;
	}
}

static inline void iov_zero(struct iov_pos *pos, size_t bytes)
{
	void *piece;
	size_t len;

	while ((piece = iov_next(pos, bytes, &len))) {
		memset(piece, 0, len);
		bytes -= len;
	}
}

#endif /* TMEM_SERVER_IOV_H */
