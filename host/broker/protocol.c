// SPDX-License-Identifier: BSD-3-Clause
/*
 * Messages of the lease protocol: sent, received, checked
 *
 * Every message is a header, numbers of 64 bits, and at most one text at its
 * end.  So one table says all that there is to say about any of them.
 */
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "protocol.h"

struct format {
	const char *name;
	uint32_t size;
	uint32_t text; /* bytes of text at the end */
	/* Which of the numbers, by bits, are bytes. */
	uint64_t bytes;
	bool is_name; /* the text */
};

#define FORMAT(upper, lower, of_text, of_bytes, of_name)                       \
	[TMEM_LEASE_##upper] = { #upper, sizeof(struct tmem_lease_##lower),    \
				 of_text, of_bytes, of_name }

#define NAME TMEM_LEASE_NAME_SIZE

static const struct format formats[] = {
	FORMAT(HELLO, hello, NAME, 0x76, true),
	FORMAT(REPORT, report, 0, 0x3f, false),
	FORMAT(WANT, want, 0, 0x1, false),
	FORMAT(RELEASED, released, 0, 0x2, false),
	FORMAT(TERMS, terms, 0, 0x3, false),
	FORMAT(WELCOME, welcome, 0, 0x1a, false),
	FORMAT(REFUSED, refused, TMEM_LEASE_TEXT_SIZE, 0, false),
	FORMAT(GRANT, grant, 0, 0x2, false),
	FORMAT(RECALL, recall, 0, 0x2, false),
	FORMAT(PRESSURE, pressure, 0, 0, false),
	FORMAT(AGREED, agreed, TMEM_LEASE_TEXT_SIZE, 0x3, false),
	FORMAT(STATUS, status, 0, 0, false),
	FORMAT(LIMITS, limits, NAME, 0x1, true),
	FORMAT(FREEZE, freeze, NAME, 0, true),
	FORMAT(SHRINK, shrink, NAME, 0x1, true),
	FORMAT(HOST, host, 0, 0, false),
	FORMAT(STORE, store, NAME, 0, true),
	FORMAT(DONE, done, 0, 0, false),
};

/* A number, of which there may be more in later versions, is 8 bytes. */
_Static_assert(sizeof(struct tmem_lease_header) == 8, "the header's size");
_Static_assert(sizeof(union tmem_lease_message) == TMEM_LEASE_MESSAGE_MAX,
	       "the largest message");
_Static_assert(sizeof(struct tmem_lease_hello) == 8 + 12 * 8 + NAME, "packed");
_Static_assert(sizeof(struct tmem_lease_agreed) ==
		       8 + 5 * 8 + TMEM_LEASE_TEXT_SIZE,
	       "packed");
_Static_assert(sizeof(struct tmem_lease_store) == 8 + 32 * 8 + NAME, "packed");

static const struct format *format_of(unsigned int type)
{
	if (type >= sizeof(formats) / sizeof(formats[0]) || !formats[type].size)
		return NULL;
	return &formats[type];
}

uint32_t tmem_lease_size(unsigned int type)
{
	const struct format *format = format_of(type);

	return format ? format->size : 0;
}

const char *tmem_lease_type_name(unsigned int type)
{
	const struct format *format = format_of(type);

	return format ? format->name : "unknown";
}

bool tmem_lease_name_ok(const char *name)
{
	size_t length = strnlen(name, TMEM_LEASE_NAME_SIZE);

	return length && length < TMEM_LEASE_NAME_SIZE &&
	       strspn(name,
		      "abcdefghijklmnopqrstuvwxyz"
		      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:-") == length;
}

void tmem_lease_begin(union tmem_lease_message *message,
		      enum tmem_lease_type type)
{
	memset(message, 0, sizeof(*message));
	message->header.size = tmem_lease_size(type);
	message->header.version = TMEM_LEASE_VERSION;
	message->header.type = type;
}

/* --------------------------------------------------------------- contents */

static unsigned int num_numbers(const struct format *format)
{
	return (format->size - sizeof(struct tmem_lease_header) -
		format->text) /
	       sizeof(uint64_t);
}

/* Both ways; nothing on a little-endian host. */
static void swap(union tmem_lease_message *message, const struct format *format)
{
	uint64_t number;

	message->header.size = htole32(message->header.size);
	message->header.version = htole16(message->header.version);
	message->header.type = htole16(message->header.type);
	for (unsigned int i = 0; i < num_numbers(format); i++) {
		uint8_t *at = message->bytes + sizeof(message->header) + 8 * i;

		memcpy(&number, at, 8);
		number = htole64(number);
		memcpy(at, &number, 8);
	}
}

__attribute__((format(printf, 3, 4))) static int wrong(char *why, size_t size,
						       const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(why, size, format, ap);
	va_end(ap);
	return -EPROTO;
}

static int check_numbers(const union tmem_lease_message *message,
			 const struct format *format, char *why, size_t size)
{
	for (unsigned int i = 0; i < num_numbers(format); i++) {
		uint64_t number;

		memcpy(&number, message->bytes + 8 + 8 * i, 8);
		if ((format->bytes >> i & 1) && number > TMEM_LEASE_MAX_BYTES)
			return wrong(why, size,
				     "%s: number %u is %llu, more than %llu "
				     "bytes",
				     format->name, i,
				     (unsigned long long)number,
				     TMEM_LEASE_MAX_BYTES);
	}
	return 0;
}

/* One line, and nothing behind it that somebody forgot. */
static int check_text(const union tmem_lease_message *message,
		      const struct format *format, char *why, size_t size)
{
	const char *text =
		(const char *)message->bytes + format->size - format->text;
	size_t length = strnlen(text, format->text);

	if (!format->text)
		return 0;
	for (size_t i = length; i < format->text; i++)
		if (text[i])
			return wrong(why, size, "%s: bytes behind its text",
				     format->name);
	if (length == format->text)
		return wrong(why, size, "%s: its text has no end",
			     format->name);
	if (format->is_name && !tmem_lease_name_ok(text))
		return wrong(why, size,
			     "%s: a name has 1 to %u of A-Z a-z 0-9 _ . : -",
			     format->name, TMEM_LEASE_NAME_SIZE - 1);
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] < ' ')
			return wrong(why, size, "%s: its text is no line",
				     format->name);
	return 0;
}

/* What HELLO and TERMS say of a lease. */
static int check_terms(const char *name, uint64_t reserved, uint64_t max,
		       uint64_t weight, char *why, size_t size)
{
	if (weight > TMEM_LEASE_MAX_WEIGHT)
		return wrong(why, size, "%s: weight %llu: 0 to %u", name,
			     (unsigned long long)weight, TMEM_LEASE_MAX_WEIGHT);
	if (!reserved)
		return wrong(why, size, "%s: reserved 0: at least 1", name);
	if (max && max < reserved)
		return wrong(why, size, "%s: max %llu: less than reserved %llu",
			     name, (unsigned long long)max,
			     (unsigned long long)reserved);
	return 0;
}

static int check_hello(const struct tmem_lease_hello *hello, char *why,
		       size_t size)
{
	if (hello->flags & ~(uint64_t)TMEM_LEASE_KEPT)
		return wrong(why, size, "HELLO: unknown flags %#llx",
			     (unsigned long long)hello->flags);
	if (hello->leased < hello->reserved)
		return wrong(why, size,
			     "HELLO: leased %llu: less than reserved %llu",
			     (unsigned long long)hello->leased,
			     (unsigned long long)hello->reserved);
	return check_terms("HELLO", hello->reserved, hello->max, hello->weight,
			   why, size);
}

static int check_members(const union tmem_lease_message *m, char *why,
			 size_t size)
{
	switch (m->header.type) {
	case TMEM_LEASE_HELLO:
		return check_hello(&m->hello, why, size);
	case TMEM_LEASE_TERMS:
		return check_terms("TERMS", m->terms.reserved, m->terms.max,
				   m->terms.weight, why, size);
	case TMEM_LEASE_PRESSURE:
		if (m->pressure.level > TMEM_LEASE_MAX_PRESSURE)
			return wrong(why, size, "PRESSURE: level %llu: 0 to %u",
				     (unsigned long long)m->pressure.level,
				     TMEM_LEASE_MAX_PRESSURE);
		return 0;
	case TMEM_LEASE_LIMITS:
		if (m->limits.weight > TMEM_LEASE_MAX_WEIGHT)
			return wrong(why, size, "LIMITS: weight %llu: 0 to %u",
				     (unsigned long long)m->limits.weight,
				     TMEM_LEASE_MAX_WEIGHT);
		return 0;
	case TMEM_LEASE_FREEZE:
		if (m->freeze.frozen > 1)
			return wrong(why, size, "FREEZE: 0 or 1, not %llu",
				     (unsigned long long)m->freeze.frozen);
		return 0;
	default:
		return 0;
	}
}

int tmem_lease_check(union tmem_lease_message *message, size_t length,
		     char *why, size_t size)
{
	const struct format *format;
	uint32_t told;
	uint16_t version, type;
	int error;

	if (length < sizeof(message->header))
		return wrong(why, size, "%zu bytes: shorter than a header",
			     length);
	told = le32toh(message->header.size);
	version = le16toh(message->header.version);
	type = le16toh(message->header.type);
	if (version != TMEM_LEASE_VERSION)
		return wrong(why, size, "protocol version %u: this is %u",
			     version, TMEM_LEASE_VERSION);
	format = format_of(type);
	if (!format)
		return wrong(why, size, "unknown message type %u", type);
	if (length != format->size || told != format->size)
		return wrong(why, size,
			     "%s: %zu bytes came, its header says %u, it has "
			     "%u",
			     format->name, length, told, format->size);
	swap(message, format);
	error = check_numbers(message, format, why, size);
	if (!error)
		error = check_text(message, format, why, size);
	if (!error)
		error = check_members(message, why, size);
	return error;
}

/* --------------------------------------------------------------- sockets */

int tmem_lease_send(int fd, const union tmem_lease_message *message)
{
	const struct format *format = format_of(message->header.type);
	union tmem_lease_message copy;
	ssize_t sent;

	memcpy(&copy, message, format->size);
	swap(&copy, format);
	do
		sent = send(fd, &copy, format->size,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent >= 0)
		return 0;
	/* What the kernel has no memory for now is as good as not read. */
	return errno == EWOULDBLOCK || errno == ENOBUFS ? -EAGAIN : -errno;
}

int tmem_lease_receive(int fd, union tmem_lease_message *message, char *why,
		       size_t size)
{
	ssize_t length;

	do
		/* MSG_TRUNC: the length that it had. */
		length = recv(fd, message, sizeof(*message),
			      MSG_DONTWAIT | MSG_TRUNC);
	while (length < 0 && errno == EINTR);
	if (length < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	/* An empty datagram looks the same; nobody means one. */
	if (!length)
		return -EPIPE;
	if ((size_t)length > sizeof(*message))
		return wrong(why, size, "%zd bytes: no message is so long",
			     length);
	return tmem_lease_check(message, length, why, size);
}
