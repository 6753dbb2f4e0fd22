// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The configuration file, which is libinih's kind of INI
 *
 * libinih splits lines.  What it would pass over in silence is looked at before
 * it sees it, in read_line(): lines and names that it would cut, and sections,
 * of which it tells only by their keys.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ini.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "address.h"
#include "bytes.h"
#include "config.h"

#define MIB (1024ull * 1024)
/* libinih cuts sections and keys at 50 bytes, lines at 200. */
#define NAME_MAX_INI 49
/* Smaller chunks would be all messages and no memory. */
#define CHUNK_MIN (64ull << 10)

struct reader {
	const char *path;
	FILE *file;
	unsigned int line;
	char section[NAME_MAX_INI + 1];
	char *error;
	struct config *config;
	struct config_vm *vm; /* whose section it is */
	/* Of what kind the section is; NULL: there was none yet. */
	const struct section *keys;
	bool host_seen, metrics_seen;
	/* Keys of the section that came already, as bits. */
	uint64_t seen;
	unsigned int limit_line, group_line;
};

/* A kind of section. */
struct section {
	const char *const *key;
	unsigned int num;
	const char *list; /* the keys, for people */
	/* 1; or 0 after mistake(). */
	int (*value)(struct reader *r, int key, const char *name,
		     const char *text);
};

/* Where nothing was said yet: the first mistake is the one that counts. */
__attribute__((format(printf, 3, 4))) static int
mistake(struct reader *r, unsigned int line, const char *format, ...)
{
	char text[CONFIG_ERROR_SIZE - 200];
	va_list ap;

	if (*r->error)
		return 0;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	if (line)
		snprintf(r->error, CONFIG_ERROR_SIZE, "%.180s:%u: %s", r->path,
			 line, text);
	else
		snprintf(r->error, CONFIG_ERROR_SIZE, "%.180s: %s", r->path,
			 text);
	return 0;
}

/* ---------------------------------------------------------------- values */

static int read_size(struct reader *r, const char *key, const char *text,
		     uint64_t min, uint64_t *bytes)
{
	if (!bytes_read(text, bytes) || *bytes > TMEM_LEASE_MAX_BYTES)
		return mistake(
			r, r->line,
			"%s=%s: must be bytes, at most %lluT, or with K, "
			"M, G, T after the number, as in %s=256M",
			key, text, TMEM_LEASE_MAX_BYTES >> 40, key);
	if (*bytes < min)
		return mistake(r, r->line, "%s=%s: must be at least %llu", key,
			       text, (unsigned long long)min);
	return 1;
}

static int read_ms(struct reader *r, const char *key, const char *text,
		   uint64_t max, uint64_t *ms)
{
	if (!number_read(text, 0, max, ms))
		return mistake(r, r->line,
			       "%s=%s: must be milliseconds, 0 to %llu", key,
			       text, (unsigned long long)max);
	return 1;
}

static int read_path(struct reader *r, const char *key, const char *text,
		     char path[CONFIG_PATH_SIZE])
{
	if (*text != '/' || strlen(text) >= CONFIG_PATH_SIZE)
		return mistake(r, r->line,
			       "%s=%s: must be a path that begins with /, of "
			       "at most %u characters",
			       key, text, CONFIG_PATH_SIZE - 1);
	strcpy(path, text);
	return 1;
}

static int read_user(struct reader *r, const char *text, struct config_vm *vm)
{
	const struct passwd *user = getpwnam(text);
	uint64_t id;

	if (user) {
		vm->user = user->pw_uid;
	} else if (number_read(text, 0, UINT32_MAX - 1, &id)) {
		vm->user = id;
	} else {
		return mistake(r, r->line,
			       "user=%s: there is no such user; give a name or "
			       "a number",
			       text);
	}
	vm->has_user = true;
	return 1;
}

static int read_listen(struct reader *r, const char *text)
{
	union address address;

	if (!address_read(text, &address))
		return mistake(r, r->line,
			       "listen=%s: must be an address and a port, as "
			       "127.0.0.1:9759 or [::1]:9759, or the path of a "
			       "socket, of at most %zu characters",
			       text, sizeof(address.un.sun_path) - 1);
	strcpy(r->config->metrics, text);
	return 1;
}

static int read_group(struct reader *r, const char *text)
{
	if (strlen(text) >= CONFIG_GROUP_SIZE || !getgrnam(text))
		return mistake(r, r->line, "group=%s: there is no such group",
			       text);
	strcpy(r->config->metrics_group, text);
	r->group_line = r->line;
	return 1;
}

/* ------------------------------------------------------------------ keys */

enum {
	LIMIT,
	HEADROOM,
	CHUNK,
	GRACE,
	REPORT,
	PROCESS_STORES,
	MEMINFO,
	PSI,
	PROC,
	CGROUP,
};

static const char *const host_key[] = {
	"limit",	  "headroom", "chunk", "grace-ms", "report-ms",
	"process-stores", "meminfo",  "psi",   "proc",	   "cgroup",
};

enum { RESERVED, MAX_KEY, WEIGHT, USER };

static const char *const vm_key[] = { "reserved", "max", "weight", "user" };

static int host_value(struct reader *r, int key, const char *name,
		      const char *text)
{
	struct config *c = r->config;

	switch (key) {
	case LIMIT:
		r->limit_line = r->line;
		return read_size(r, name, text, MIB, &c->limit);
	case HEADROOM:
		return read_size(r, name, text, 0, &c->headroom);
	case CHUNK:
		return read_size(r, name, text, CHUNK_MIN, &c->chunk);
	case GRACE:
		return read_ms(r, name, text, 600000, &c->grace_ms);
	case REPORT:
		return read_ms(r, name, text, 60000, &c->report_ms);
	case PROCESS_STORES:
		if (!number_read(text, 1, CONFIG_MAX_VMS, &c->process_stores))
			return mistake(r, r->line,
				       "%s=%s: must be a number from 1 to %u",
				       name, text, CONFIG_MAX_VMS);
		return 1;
	case MEMINFO:
		return read_path(r, name, text, c->meminfo);
	case PSI:
		return read_path(r, name, text, c->psi);
	case PROC:
		return read_path(r, name, text, c->proc);
	default:
		return read_path(r, name, text, c->cgroup);
	}
}

static int vm_value(struct reader *r, int key, const char *name,
		    const char *text)
{
	struct config_vm *vm = r->vm;
	uint64_t number;

	switch (key) {
	case RESERVED:
		return read_size(r, name, text, 1, &vm->reserved);
	case MAX_KEY:
		return read_size(r, name, text, 1, &vm->max);
	case WEIGHT:
		if (!number_read(text, 1, TMEM_LEASE_MAX_WEIGHT, &number))
			return mistake(r, r->line,
				       "weight=%s: must be a number from 1 to "
				       "%u",
				       text, TMEM_LEASE_MAX_WEIGHT);
		vm->weight = number;
		return 1;
	default:
		return read_user(r, text, vm);
	}
}

enum { LISTEN, GROUP };

static const char *const metrics_key[] = { "listen", "group" };

static int metrics_value(struct reader *r, int key, const char *name,
			 const char *text)
{
	return key == LISTEN ? read_listen(r, text) : read_group(r, text);
}

static const struct section
	host_section = { host_key, 10,
			 "limit, headroom, chunk, grace-ms, report-ms, "
			 "process-stores, meminfo, psi, proc, cgroup",
			 host_value },
	metrics_section = { metrics_key, 2, "listen, group", metrics_value },
	vm_section = { vm_key, 4, "reserved, max, weight, user", vm_value };

static int find_key(const struct section *section, const char *name)
{
	for (unsigned int i = 0; i < section->num; i++)
		if (!strcmp(section->key[i], name))
			return i;
	return -1;
}

/* libinih's: a key of the section that read_line() saw last. */
static int take(void *opaque, const char *section, const char *name,
		const char *value)
{
	struct reader *r = opaque;
	int key;

	if (*r->error)
		return 0;
	if (!r->keys)
		return mistake(r, r->line,
			       "%s: belongs into a section: [host], [metrics], "
			       "[default] or [vm NAME]",
			       name);
	key = find_key(r->keys, name);
	if (key < 0)
		return mistake(r, r->line, "%s: unknown key; [%s] has %s", name,
			       r->section, r->keys->list);
	if (r->seen >> key & 1)
		return mistake(r, r->line, "%s: is given twice in [%s]", name,
			       r->section);
	r->seen |= 1ull << key;
	return r->keys->value(r, key, name, value);
}

/* -------------------------------------------------------------- sections */

static int begin_vm(struct reader *r, const char *name)
{
	struct config *c = r->config;

	if (!tmem_lease_name_ok(name))
		return mistake(r, r->line,
			       "[vm %s]: a name has A-Z a-z 0-9 _ . : -", name);
	for (unsigned int i = 0; i < c->num_vms; i++)
		if (!strcmp(c->vm[i].name, name))
			return mistake(r, r->line,
				       "[vm %s]: is there already, in line %u",
				       name, c->vm[i].line);
	if (c->num_vms == CONFIG_MAX_VMS)
		return mistake(r, r->line, "[vm %s]: %u VMs at most", name,
			       CONFIG_MAX_VMS);
	r->keys = &vm_section;
	r->vm = &c->vm[c->num_vms++];
	*r->vm = (struct config_vm){ .reserved = UINT64_MAX };
	strcpy(r->vm->name, name);
	r->vm->line = r->line;
	return 1;
}

static int begin_section(struct reader *r, const char *name)
{
	r->vm = NULL;
	r->keys = NULL;
	r->seen = 0;
	snprintf(r->section, sizeof(r->section), "%s", name);
	if (!strcmp(name, "host")) {
		if (r->host_seen)
			return mistake(r, r->line, "[host]: is there already");
		r->host_seen = true;
		r->keys = &host_section;
		return 1;
	}
	if (!strcmp(name, "metrics")) {
		if (r->metrics_seen)
			return mistake(r, r->line,
				       "[metrics]: is there already");
		r->metrics_seen = true;
		r->keys = &metrics_section;
		return 1;
	}
	if (!strcmp(name, "default")) {
		if (r->config->others)
			return mistake(r, r->line,
				       "[default]: is there already, in line "
				       "%u",
				       r->config->defaults.line);
		r->config->others = true;
		r->keys = &vm_section;
		r->vm = &r->config->defaults;
		r->vm->line = r->line;
		return 1;
	}
	if (!strncmp(name, "vm ", 3))
		return begin_vm(r, name + 3);
	return mistake(r, r->line,
		       "[%s]: unknown section: there are [host], [metrics], "
		       "[default] and [vm NAME]",
		       name);
}

/* fgets(3) for libinih. */
static char *read_line(char *line, int size, void *opaque)
{
	struct reader *r = opaque;
	size_t length;
	char *end;

	if (!fgets(line, size, r->file) || *r->error)
		return NULL;
	r->line++;
	length = strlen(line);
	if (length && line[length - 1] != '\n' && !feof(r->file)) {
		mistake(r, r->line, "the line is longer than %d characters",
			size - 2);
		return NULL;
	}
	/* libinih would take an indented line as more of the one before. */
	if (*line == ' ' || *line == '\t')
		memmove(line, line + strspn(line, " \t"),
			length + 1 - strspn(line, " \t"));
	if (*line != '[')
		return line;
	end = strchr(line, ']');
	if (!end || end - line - 1 > NAME_MAX_INI ||
	    strspn(end + 1, " \t\r\n") != strlen(end + 1)) {
		mistake(r, r->line,
			"a section is a line [NAME], of at most %d characters",
			NAME_MAX_INI);
		return NULL;
	}
	*end = 0;
	begin_section(r, line + 1);
	*end = ']';
	return line;
}

/* ---------------------------------------------------------------- checks */

static void inherit(struct config *c, struct config_vm *vm)
{
	if (!vm->weight)
		vm->weight = c->defaults.weight;
	if (!vm->max)
		vm->max = c->defaults.max;
	if (vm->reserved == UINT64_MAX)
		vm->reserved = c->defaults.reserved;
	if (!vm->has_user && c->defaults.has_user) {
		vm->has_user = true;
		vm->user = c->defaults.user;
	}
}

static void check_vm(struct reader *r, const struct config_vm *vm)
{
	unsigned long long reserved = vm->reserved, max = vm->max;

	if (vm->reserved == UINT64_MAX)
		return;
	if (vm->reserved > r->config->limit)
		mistake(r, vm->line,
			"[%s%s]: reserved=%llu is more than [host] limit=%llu",
			*vm->name ? "vm " : "default", vm->name, reserved,
			(unsigned long long)r->config->limit);
	if (vm->max && vm->reserved > vm->max)
		mistake(r, vm->line,
			"[%s%s]: reserved=%llu is more than max=%llu",
			*vm->name ? "vm " : "default", vm->name, reserved, max);
}

/* All VMs that have a section can run at once. */
static void check_sum(struct reader *r)
{
	struct config *c = r->config;
	uint64_t sum = 0;

	for (unsigned int i = 0; i < c->num_vms; i++)
		if (c->vm[i].reserved != UINT64_MAX)
			sum += c->vm[i].reserved;
	if (sum > c->limit)
		mistake(r, r->limit_line,
			"limit=%llu: the reservations of the [vm] sections are "
			"%llu together: raise the one or lower the others",
			(unsigned long long)c->limit, (unsigned long long)sum);
}

static void check(struct reader *r)
{
	struct config *c = r->config;

	if (!c->limit)
		mistake(r, 0,
			"[host] limit= is missing: bytes that all stores "
			"may hold, as in limit=16G");
	if (c->chunk > c->limit)
		mistake(r, r->limit_line,
			"limit=%llu: is less than one chunk of %llu bytes",
			(unsigned long long)c->limit,
			(unsigned long long)c->chunk);
	if (r->metrics_seen && !*c->metrics)
		mistake(r, 0,
			"[metrics] listen= is missing: where scrapers are "
			"heard, as in listen=127.0.0.1:9759");
	if (*c->metrics_group && *c->metrics != '/')
		mistake(r, r->group_line,
			"group=%s: is for a socket that has a path, and not "
			"for listen=%s",
			c->metrics_group, c->metrics);
	check_vm(r, &c->defaults);
	for (unsigned int i = 0; i < c->num_vms; i++) {
		inherit(c, &c->vm[i]);
		check_vm(r, &c->vm[i]);
	}
	check_sum(r);
}

static void set_defaults(struct config *c)
{
	c->headroom = 512 * MIB;
	c->chunk = 64 * MIB;
	/* Longer than stores wait until they connect again. */
	c->grace_ms = 10000;
	c->report_ms = 250;
	/* More than a VM has devices. */
	c->process_stores = 16;
	strcpy(c->meminfo, "/proc/meminfo");
	strcpy(c->psi, "/proc/pressure/memory");
	strcpy(c->proc, "/proc");
	strcpy(c->cgroup, "/sys/fs/cgroup");
	c->defaults.reserved = UINT64_MAX;
	c->defaults.weight = 100;
}

/* A pipe, or a device without an end, would keep us for ever.  NULL: errno. */
static FILE *open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat found;
	FILE *file = NULL;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &found) || S_ISREG(found.st_mode))
		file = fdopen(fd, "r");
	else
		errno = S_ISDIR(found.st_mode) ? EISDIR : ENOTSUP;
	if (!file)
		close(fd);
	return file;
}

/* fgets(3) and libinih pass over these, or take them for something else. */
static void check_bytes(struct reader *r)
{
	unsigned int line = 1;
	int c;

	while ((c = getc(r->file)) != EOF) {
		if (c == 0xef && line == 1 && ftell(r->file) == 1)
			mistake(r, line,
				"begins with a byte order mark: save "
				"it without");
		else if ((c < ' ' || c == 127) && !strchr("\t\r\n", c ? c : 1))
			mistake(r, line, "has a byte %d, which is no text", c);
		line += c == '\n';
	}
	rewind(r->file);
}

struct config *config_read(const char *path, char error[CONFIG_ERROR_SIZE])
{
	struct reader r = {
		.path = path,
		.error = error,
		.config = calloc(1, sizeof(struct config)),
	};
	int line;

	*error = 0;
	r.file = r.config ? open_file(path) : NULL;
	if (!r.file) {
		mistake(&r, 0, "cannot be read: %s",
			errno == ENOTSUP ? "it is no file" : strerror(errno));
		free(r.config);
		return NULL;
	}
	set_defaults(r.config);
	check_bytes(&r);
	line = ini_parse_stream(read_line, &r, take, &r);
	if (ferror(r.file))
		mistake(&r, 0, "cannot be read: %s", strerror(errno));
	fclose(r.file);
	if (line)
		mistake(&r, line > 0 ? line : 0,
			"must be a section, KEY=VALUE or a comment");
	check(&r);
	if (*error) {
		free(r.config);
		return NULL;
	}
	return r.config;
}

const struct config_vm *config_vm(const struct config *config, const char *name)
{
	for (unsigned int i = 0; i < config->num_vms; i++)
		if (!strcmp(config->vm[i].name, name))
			return &config->vm[i];
	return config->others ? &config->defaults : NULL;
}
