/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A device that breaks the specification's rules, for tests of drivers
 *
 * It is linked around the calls that QEMU's device makes to the request server
 * (scripts/build-qemu --misbehave, by ld's --wrap), into a binary beside the
 * product's, which has not a line of it.
 *
 * The environment's TMEM_RULES names a file with the rules that hold now, lines
 * of "NAME NUMBER"; it is read again for each request.  OP: see ops[].
 *
 *   config.FIELD N	what the configuration shows
 *   generation N	is added to the generation, wherever it is told
 *   status.OP N	the request is answered with it, and not carried out
 *   page.OP N		so is each page, of a request that was carried out
 *   done.OP N		the response's done
 *   used.OP N		the used length; what is beyond is written as well
 *   most.flush N	a FLUSH stops after so many indexes
 *   stall.OP 1		the request stays in the ring, and its queue stands
 *			still: until the store was frozen and thawed, if bulk
 *
 * What a driver must not do, and what a test waits for, are lines in
 * $TMEM_RULES.log:
 *
 *   segs N		a chain of more than config.max_segs descriptors
 *   overlap OP OP	two requests on one key at a time, on two queues;
 *			of requests that stand still it knows each queue's first
 *   config-write N	into the device's configuration, of so many bytes
 *   stall OP		a request stands still
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tmem-server.h"

#define MAX_QUEUES 64
#define FIELD(name)                                                            \
	{                                                                      \
		"config." #name, offsetof(struct virtio_tmem_config, name),    \
			sizeof(((struct virtio_tmem_config *)0)->name),        \
	}

static const char *const ops[] = {
	[VIRTIO_TMEM_OP_POOL_CREATE] = "create",
	[VIRTIO_TMEM_OP_POOL_DESTROY] = "destroy",
	[VIRTIO_TMEM_OP_RESET_ALL] = "reset-all",
	[VIRTIO_TMEM_OP_PUT] = "put",
	[VIRTIO_TMEM_OP_GET] = "get",
	[VIRTIO_TMEM_OP_FLUSH] = "flush",
	[VIRTIO_TMEM_OP_FLUSH_OBJECT] = "flush-object",
	[VIRTIO_TMEM_OP_POOL_STATS] = "stats",
};

static const struct {
	const char *name;
	size_t at, size;
} fields[] = {
	FIELD(num_fast), FIELD(num_bulk), FIELD(max_pools),  FIELD(max_pages),
	FIELD(max_segs), FIELD(codecs),	  FIELD(page_sizes), FIELD(pressure),
};

/* The first request of a queue that stands still. */
static struct {
	struct tmem_server_queue *queue; /* NULL: free */
	struct virtio_tmem_req req;
	bool stalled;
} queues[MAX_QUEUES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int __real_tmem_server_submit(struct tmem_server_queue *queue,
			      struct tmem_server_request *rq);
void __real_tmem_server_get_config(struct tmem_server *server,
				   struct virtio_tmem_config *config);
const char *object_get_typename(const void *object);

/* ------------------------------------------------------------------ rules */

struct rules {
	char text[4096];
};

static const char *rules_path(void)
{
	const char *path = getenv("TMEM_RULES");

	return path ? path : "/nonexistent";
}

static void rules_read(struct rules *r)
{
	int fd = open(rules_path(), O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, r->text + 1, sizeof(r->text) - 2);

	r->text[0] = '\n';
	r->text[n < 0 ? 1 : n + 1] = 0;
	if (fd >= 0)
		close(fd);
}

__attribute__((format(printf, 3, 4))) static bool
rule(const struct rules *r, uint64_t *value, const char *format, ...)
{
	char name[64] = "\n";
	const char *found;
	va_list args;

	va_start(args, format);
	vsnprintf(name + 1, sizeof(name) - 2, format, args);
	va_end(args);
	strcat(name, " ");
	found = strstr(r->text, name);
	if (found)
		*value = strtoull(found + strlen(name), NULL, 0);
	return found;
}

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...)
{
	char path[4096], line[128];
	va_list args;
	int fd;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	snprintf(path, sizeof(path), "%s.log", rules_path());
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, strlen(line)) < 0)
		perror(path);
	if (fd >= 0)
		close(fd);
}

/* --------------------------------------------------------------- requests */

/* Copy bytes @at .. @at + @len - 1 of a chain, as far as there are any. */
static void chain_copy(const struct iovec *iov, unsigned int num, size_t at,
		       void *buffer, size_t len, bool write)
{
	char *mine = buffer;

	for (; num && len; num--, iov++) {
		size_t n = iov->iov_len - at;

		if (at >= iov->iov_len) {
			at -= iov->iov_len;
			continue;
		}
		if (n > len)
			n = len;
		memcpy(write ? (char *)iov->iov_base + at : mine,
		       write ? mine : (char *)iov->iov_base + at, n);
		mine += n;
		len -= n;
		at = 0;
	}
}

static const char *op_name(const struct virtio_tmem_req *req)
{
	unsigned int op = le16toh(req->op);

	return op < sizeof(ops) / sizeof(ops[0]) && ops[op] ? ops[op]
							    : "unknown";
}

static bool has_key(const struct virtio_tmem_req *req)
{
	unsigned int op = le16toh(req->op);

	return op == VIRTIO_TMEM_OP_PUT || op == VIRTIO_TMEM_OP_GET ||
	       op == VIRTIO_TMEM_OP_FLUSH;
}

static bool overlap(const struct virtio_tmem_req *a,
		    const struct virtio_tmem_req *b)
{
	uint64_t first[] = { le64toh(a->index), le64toh(b->index) };

	return has_key(a) && has_key(b) && a->pool == b->pool &&
	       !memcmp(a->object, b->object, sizeof(a->object)) &&
	       first[0] < first[1] + le64toh(b->count) &&
	       first[1] < first[0] + le64toh(a->count);
}

/* @queue's first request is @req: does another queue's name the same key? */
static void judge(struct tmem_server_queue *queue,
		  const struct virtio_tmem_req *req, bool stalled)
{
	int mine = -1;

	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_QUEUES; i++) {
		if (queues[i].queue == queue || (!queues[i].queue && mine < 0))
			mine = i;
		else if (queues[i].stalled && overlap(&queues[i].req, req))
			tell("overlap %s %s\n", op_name(&queues[i].req),
			     op_name(req));
	}
	if (mine >= 0) {
		queues[mine].queue = queue;
		queues[mine].req = *req;
		queues[mine].stalled = stalled;
	}
	pthread_mutex_unlock(&lock);
	if (stalled)
		tell("stall %s\n", op_name(req));
}

/* Have the server carry @req out instead of what the chain says. */
static int submit_instead(struct tmem_server_queue *queue,
			  struct tmem_server_request *rq,
			  struct virtio_tmem_req *req)
{
	struct iovec iov = { .iov_base = req, .iov_len = sizeof(*req) };
	const struct iovec *out = rq->out;
	unsigned int out_num = rq->out_num;
	int ret;

	rq->out = &iov;
	rq->out_num = 1;
	ret = __real_tmem_server_submit(queue, rq);
	rq->out = out;
	rq->out_num = out_num;
	return ret;
}

/* An answer without an effect: as to a request that nobody knows. */
static int refuse(struct tmem_server_queue *queue,
		  struct tmem_server_request *rq, uint16_t status)
{
	struct virtio_tmem_req req = { .op = 0xffff };
	int ret = submit_instead(queue, rq, &req);

	status = htole16(status);
	chain_copy(rq->in, rq->in_num,
		   offsetof(struct virtio_tmem_resp, status), &status,
		   sizeof(status), true);
	return ret;
}

/* Spoil the answer to @req. */
static void spoil(const struct rules *r, const struct virtio_tmem_req *req,
		  struct tmem_server_request *rq)
{
	const char *op = op_name(req);
	struct virtio_tmem_resp resp;
	uint64_t value;

	chain_copy(rq->in, rq->in_num, 0, &resp, sizeof(resp), false);
	if (rule(r, &value, "generation"))
		resp.generation = htole32(le32toh(resp.generation) + value);
	if (rule(r, &value, "done.%s", op))
		resp.done = htole64(value);
	chain_copy(rq->in, rq->in_num, 0, &resp, sizeof(resp), true);
	if (rule(r, &value, "page.%s", op)) {
		uint32_t page = htole32(value << VIRTIO_TMEM_PAGE_STATUS_SHIFT);

		for (uint64_t i = 0; i < le64toh(req->count); i++)
			chain_copy(rq->in, rq->in_num,
				   sizeof(resp) + i * sizeof(page), &page,
				   sizeof(page), true);
	}
	if (rule(r, &value, "used.%s", op))
		rq->used = value;
}

static int serve(const struct rules *r, struct tmem_server_queue *queue,
		 struct tmem_server_request *rq, struct virtio_tmem_req *req)
{
	uint64_t value;

	if (rule(r, &value, "stall.%s", op_name(req)))
		return -EAGAIN;
	if (rule(r, &value, "config.max_segs") &&
	    rq->out_num + rq->in_num > value) {
		tell("segs %u\n", rq->out_num + rq->in_num);
		return refuse(queue, rq, VIRTIO_TMEM_S_INVAL);
	}
	if (rule(r, &value, "status.%s", op_name(req)))
		return refuse(queue, rq, value);
	if (le16toh(req->op) == VIRTIO_TMEM_OP_FLUSH &&
	    rule(r, &value, "most.flush") && value < le64toh(req->count)) {
		req->count = htole64(value);
		return submit_instead(queue, rq, req);
	}
	return __real_tmem_server_submit(queue, rq);
}

int __wrap_tmem_server_submit(struct tmem_server_queue *queue,
			      struct tmem_server_request *rq)
{
	struct virtio_tmem_req req = { 0 };
	struct rules rules;
	int ret;

	rules_read(&rules);
	chain_copy(rq->out, rq->out_num, 0, &req, sizeof(req), false);
	ret = serve(&rules, queue, rq, &req);
	judge(queue, &req, ret == -EAGAIN);
	if (!ret)
		spoil(&rules, &req, rq);
	return ret;
}

/* ---------------------------------------------------------- configuration */

void __wrap_tmem_server_get_config(struct tmem_server *server,
				   struct virtio_tmem_config *config)
{
	struct rules rules;
	uint64_t value;

	__real_tmem_server_get_config(server, config);
	rules_read(&rules);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (!rule(&rules, &value, "%s", fields[i].name))
			continue;
		value = htole64(value);
		memcpy((char *)config + fields[i].at, &value, fields[i].size);
	}
	if (rule(&rules, &value, "generation"))
		config->generation =
			htole32(le32toh(config->generation) + value);
}

#define CONFIG_WRITE(letter, bytes)                                            \
	void __real_virtio_config_modern_write##letter(                        \
		void *vdev, uint32_t addr, uint32_t data);                     \
	void __wrap_virtio_config_modern_write##letter(                        \
		void *vdev, uint32_t addr, uint32_t data)                      \
	{                                                                      \
		if (!strncmp(object_get_typename(vdev), "virtio-tmem", 11))    \
			tell("config-write %d\n", bytes);                      \
		__real_virtio_config_modern_write##letter(vdev, addr, data);   \
	}

CONFIG_WRITE(b, 1)
CONFIG_WRITE(w, 2)
CONFIG_WRITE(l, 4)
