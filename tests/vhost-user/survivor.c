/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A guest whose back end is killed again and again: with many requests in
 * flight, each of which must be answered once, and rightly, by whoever comes
 * next.
 *
 * usage: survivor SOCKET       until its stdin ends
 *
 * "ready" on stdout when it has begun; a line each time that the back end is
 * gone ("gone N": N requests were in flight) and at the end, with what was
 * counted; on stderr what is wrong, and exit status 1.
 */
#include <endian.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "virtio_tmem.h"

#define PAGE	   4096u
#define RING_SIZE  128u
#define DEPTH	   32u
#define RUN	   4u  /* pages in a request, at most */
#define KEYS	   64u /* of a slot in each pool, for one request at a time */
#define PERSISTENT 0u
#define EPHEMERAL  1u
#define FAST_RING  0u
#define BULK_RING  1u
#define TIMEOUT_MS 30000

#define FAULT(...)                                                             \
	do {                                                                   \
		fprintf(stderr, "survivor: " __VA_ARGS__);                     \
		fputc('\n', stderr);                                           \
		exit(1);                                                       \
	} while (0)

struct slot {
	struct virtio_tmem_req *req;
	struct virtio_tmem_resp *resp;
	uint8_t *data;
	unsigned int number, ring, pool, first, count;
	uint64_t version; /* of the pages being put */
	/* What was accepted under each key; 0: nothing. */
	uint64_t held[2][KEYS];
};

static struct client client;
static struct slot slots[DEPTH];
static uint64_t rng = 1, version;
static uint32_t generation;
static struct {
	uint64_t requests, puts, gets, exclusive, flushes, gone;
} counted;

static uint64_t below(uint64_t n)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return rng * 0x2545f4914f6cdd1dull % n;
}

/* Pages of all kinds: same-filled, compressible, not compressible. */
static void make_page(uint8_t *page, uint64_t of)
{
	uint64_t state = of * 0x9e3779b97f4a7c15ull | 1, *word = (void *)page;
	unsigned int random = of % 4 * PAGE / 8 / 3;

	for (unsigned int i = 0; i < PAGE / 8; i++) {
		state ^= state >> 12;
		state ^= state << 25;
		state ^= state >> 27;
		word[i] = i < random ? state : of;
	}
}

static uint64_t seed_of(const struct slot *slot, unsigned int key,
			uint64_t of_version)
{
	return of_version * DEPTH * KEYS + slot->number * KEYS + key;
}

static void fill_request(struct slot *slot, uint16_t op)
{
	*slot->req = (struct virtio_tmem_req){
		.op = htole16(op),
		.pool = htole32(slot->pool),
		.index = htole64(slot->first),
		.count = htole64(slot->count),
	};
	slot->req->object[0] = slot->number;
}

static void send_request(struct slot *slot)
{
	uint16_t op = le16toh(slot->req->op);
	struct client_seg seg[3];
	unsigned int num = 0, bytes = slot->count * PAGE;
	bool pages = op == VIRTIO_TMEM_OP_PUT || op == VIRTIO_TMEM_OP_GET;

	seg[num++] =
		(struct client_seg){ slot->req, sizeof(*slot->req), false };
	if (op == VIRTIO_TMEM_OP_PUT)
		seg[num++] = (struct client_seg){ slot->data, bytes, false };
	seg[num++] = (struct client_seg){ slot->resp,
					  sizeof(*slot->resp) +
						  (pages ? 4 * slot->count : 0),
					  true };
	if (op == VIRTIO_TMEM_OP_GET)
		seg[num++] = (struct client_seg){ slot->data, bytes, true };
	memset(slot->resp, 0xff, sizeof(*slot->resp) + 4 * RUN);
	if (!client_add(&client, slot->ring, seg, num, slot))
		FAULT("the ring has no room");
	counted.requests++;
}

static void next_request(struct slot *slot)
{
	unsigned int what = below(10);

	slot->pool = below(2);
	slot->first = below(KEYS - RUN);
	slot->count = 1 + below(RUN);
	slot->ring = BULK_RING;
	if (what < 5) {
		slot->version = ++version;
		for (unsigned int i = 0; i < slot->count; i++)
			make_page(slot->data + i * PAGE,
				  seed_of(slot, slot->first + i, version));
		fill_request(slot, VIRTIO_TMEM_OP_PUT);
	} else if (what < 9) {
		slot->ring = below(2) ? FAST_RING : BULK_RING;
		fill_request(slot, VIRTIO_TMEM_OP_GET);
		if (slot->pool == EPHEMERAL && below(2))
			slot->req->flags = htole16(VIRTIO_TMEM_GET_EXCLUSIVE);
	} else {
		fill_request(slot, VIRTIO_TMEM_OP_FLUSH);
	}
	send_request(slot);
}

/* --------------------------------------------------------------- answers */

static void check_got(struct slot *slot, unsigned int i, unsigned int status)
{
	bool exclusive = slot->req->flags != 0;
	unsigned int key = slot->first + i;
	uint64_t *held = &slot->held[slot->pool][key];
	uint8_t expected[PAGE];

	if (status == VIRTIO_TMEM_S_NOENT) {
		if (*held && slot->pool == PERSISTENT)
			FAULT("slot %u: key %u is lost", slot->number, key);
		*held = 0;
		return;
	}
	if (status != VIRTIO_TMEM_S_OK)
		FAULT("slot %u: key %u: status %u", slot->number, key, status);
	if (!*held)
		FAULT("slot %u: key %u was found though it is gone",
		      slot->number, key);
	make_page(expected, seed_of(slot, key, *held));
	if (memcmp(expected, slot->data + i * PAGE, PAGE))
		FAULT("slot %u: key %u is another page", slot->number, key);
	counted.gets++;
	counted.exclusive += exclusive;
	if (exclusive)
		*held = 0;
}

static void check_answer(struct slot *slot)
{
	const uint32_t *pages = (const void *)(slot->resp + 1);
	uint16_t op = le16toh(slot->req->op);

	if (slot->resp->status != VIRTIO_TMEM_S_OK)
		FAULT("slot %u: op %u: status %u", slot->number, op,
		      le16toh(slot->resp->status));
	if (generation && le32toh(slot->resp->generation) != generation)
		FAULT("the generation is another: pages were given up");
	generation = le32toh(slot->resp->generation);
	for (unsigned int i = 0; i < slot->count; i++) {
		unsigned int status = le32toh(pages[i]) >> 24;
		uint64_t *held = &slot->held[slot->pool][slot->first + i];

		if (op == VIRTIO_TMEM_OP_PUT) {
			*held = status ? 0 : slot->version;
			counted.puts += !status;
		} else if (op == VIRTIO_TMEM_OP_GET) {
			check_got(slot, i, status);
		} else {
			*held = 0;
			counted.flushes++;
		}
	}
}

/* ------------------------------------------------------------------ loop */

static unsigned int in_flight(void)
{
	unsigned int sum = 0;

	for (unsigned int i = 0; i < client.num_rings; i++)
		sum += (uint16_t)(client.ring[i].avail->idx -
				  client.ring[i].used->idx);
	return sum;
}

static void resume(const char *path)
{
	unsigned int lost = in_flight();

	counted.gone++;
	for (unsigned int i = 0; !client_resume(&client, path); i++)
		if (i == 1000)
			FAULT("nobody comes back");
	printf("gone %u\n", lost);
	fflush(stdout);
}

static bool stdin_ended(void)
{
	struct pollfd fd = { .fd = 0, .events = POLLIN };
	char byte;

	return poll(&fd, 1, 0) > 0 && fread(&byte, 1, 1, stdin) != 1;
}

static bool take_answers(unsigned int ring, bool more)
{
	struct slot *slot;
	bool any = false;

	while ((slot = client_used(&client, ring, NULL))) {
		check_answer(slot);
		if (more)
			next_request(slot);
		any = true;
	}
	return any;
}

static void make_pool(unsigned int pool, uint16_t flags)
{
	struct slot *slot = &slots[0];

	slot->pool = pool;
	slot->first = 12; /* log2 of the page size */
	slot->count = 0;
	slot->ring = BULK_RING;
	fill_request(slot, VIRTIO_TMEM_OP_POOL_CREATE);
	slot->req->flags = htole16(flags);
	send_request(slot);
	client_kick(&client, BULK_RING);
	if (!client_wait(&client, BULK_RING, TIMEOUT_MS, false) ||
	    client_used(&client, BULK_RING, NULL) != slot ||
	    slot->resp->status != VIRTIO_TMEM_S_OK)
		FAULT("cannot make a pool");
}

static void set_up(const char *path)
{
	client_init(&client, 16 << 20);
	if (!client_connect(&client, path) ||
	    !client_set_up(&client, VU_F_VERSION_1 | VU_F_PROTOCOL_FEATURES |
					    VU_F_INDIRECT | VU_F_EVENT_IDX |
					    1ull << VIRTIO_TMEM_F_PERSISTENT |
					    1ull << VIRTIO_TMEM_F_EPHEMERAL) ||
	    !client_start(&client, 2, RING_SIZE))
		FAULT("nobody is at %s", path);
	for (unsigned int i = 0; i < DEPTH; i++) {
		slots[i].number = i;
		slots[i].req = client_alloc(&client, sizeof(*slots[i].req), 64);
		slots[i].resp = client_alloc(
			&client, sizeof(*slots[i].resp) + 4 * RUN, 64);
		slots[i].data = client_alloc(&client, RUN * PAGE, PAGE);
	}
	make_pool(PERSISTENT, VIRTIO_TMEM_POOL_PERSISTENT);
	make_pool(EPHEMERAL, 0);
}

/* Until nothing is in flight any more. */
static void run(const char *path)
{
	bool more = true;

	for (unsigned int i = 0; i < DEPTH; i++)
		next_request(&slots[i]);
	while (more || in_flight()) {
		bool any = false;

		more = more && !stdin_ended();
		client_kick(&client, FAST_RING);
		client_kick(&client, BULK_RING);
		any = take_answers(FAST_RING, more);
		any |= take_answers(BULK_RING, more);
		if (any)
			continue;
		/* The bulk ring has most; the fast one is looked at again. */
		if (!client_wait(&client, BULK_RING, 1, false) &&
		    client_is_closed(&client, 0))
			resume(path);
	}
	take_answers(FAST_RING, false);
	take_answers(BULK_RING, false);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: survivor SOCKET\n");
		return 2;
	}
	set_up(argv[1]);
	printf("ready\n");
	fflush(stdout);
	run(argv[1]);
	printf("end requests=%ju puts=%ju gets=%ju exclusive=%ju flushes=%ju "
	       "gone=%ju\n",
	       (uintmax_t)counted.requests, (uintmax_t)counted.puts,
	       (uintmax_t)counted.gets, (uintmax_t)counted.exclusive,
	       (uintmax_t)counted.flushes, (uintmax_t)counted.gone);
	return 0;
}
