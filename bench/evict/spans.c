/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Policies that know spans: pages of a size class that go together.  Memory is
 * counted as the store takes it, in whole spans of the store's own classes.
 *
 * A span's pages that shall stay are copied to free slots of their class in the
 * queue where they belong.  Where there are none the span itself goes there:
 * nobody needs memory in order to free some.
 */
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "evict.h"

struct cut {
	struct list age, link; /* of its queue; partial ones of its class */
	struct size_class *class;
	unsigned int queue;
	uint32_t number; /* in the order in which its queue got them */
	unsigned int used;
	uint32_t page[]; /* NONE: free */
};

struct place {
	struct cut *cut;
	uint16_t slot;
	bool visited, young;
};

/*
 * Keys that are remembered: 16 bits of a hash of each, four to a word, which
 * another hash chooses and from which a fifth pushes the oldest.
 */
struct ghost {
	uint64_t *word;
	uint32_t words;
};

/* Percent of the memory that the first of two queues has, as evict.c has it. */
#define SMALL_PERCENT 10
/* Places for evicted keys and for taken ones, for each 4 KiB of the store. */
#define LOST_PLACES  1
#define TAKEN_PLACES 2

struct spans {
	struct span_options by_span;
	const struct trace *trace;
	uint64_t most, held[QUEUES]; /* host pages */
	uint64_t pages, copies;
	bool has_evicted;
	struct list age[QUEUES];
	uint32_t next[QUEUES];
	struct list partial[QUEUES][CLASSES];
	struct size_class class[CLASSES];
	struct place *place;
	struct ghost lost, taken;
};

static void ghost_init(struct ghost *ghost, uint64_t places)
{
	ghost->words = places / 4 + 1;
	ghost->word = zeroed(ghost->words * sizeof(uint64_t));
}

void *spans_make(const struct policy *policy, const struct trace *trace,
		 uint64_t bytes)
{
	struct spans *s = zeroed(sizeof(*s));

	s->by_span = policy->by_span;
	s->trace = trace;
	s->most = bytes / ARENA_PAGE;
	s->place = zeroed(trace->pages * sizeof(s->place[0]));
	ghost_init(&s->lost, s->most * LOST_PLACES);
	ghost_init(&s->taken, s->most * TAKEN_PLACES);
	for (unsigned int q = 0; q < QUEUES; q++) {
		list_init(&s->age[q]);
		for (unsigned int i = 0; i < CLASSES; i++)
			list_init(&s->partial[q][i]);
	}
	for (unsigned int i = 0; i < CLASSES; i++)
		class_init(&s->class[i], i);
	return s;
}

static void cut_end(struct spans *s, struct cut *cut)
{
	s->held[cut->queue] -= cut->class->pages;
	list_del(&cut->age);
	list_del(&cut->link);
	free(cut);
}

void spans_end(void *cache)
{
	struct spans *s = cache;

	for (unsigned int q = 0; q < QUEUES; q++)
		while (!list_empty(&s->age[q]))
			cut_end(s,
				container_of(s->age[q].next, struct cut, age));
	free(s->place);
	free(s->lost.word);
	free(s->taken.word);
	free(s);
}

uint64_t spans_copies(void *cache)
{
	return ((struct spans *)cache)->copies;
}

static unsigned int class_of_page(struct spans *s, uint32_t page)
{
	return class_of(s->trace->size[page]);
}

/* The newest of a queue. */
static void cut_queue(struct spans *s, struct cut *cut, unsigned int queue)
{
	s->held[cut->queue] -= cut->class->pages;
	s->held[queue] += cut->class->pages;
	cut->queue = queue;
	cut->number = s->next[queue]++;
	list_del(&cut->age);
	list_add_tail(&s->age[queue], &cut->age);
}

static void cut_link(struct spans *s, struct cut *cut)
{
	list_del(&cut->link);
	if (cut->used < cut->class->slots)
		list_add_tail(&s->partial[cut->queue][cut->class - s->class],
			      &cut->link);
}

static void cut_add(struct spans *s, unsigned int queue, unsigned int class)
{
	struct cut *cut =
		zeroed(sizeof(*cut) + s->class[class].slots * sizeof(uint32_t));

	cut->class = &s->class[class];
	cut->queue = queue;
	memset(cut->page, 0xff, cut->class->slots * sizeof(uint32_t));
	list_init(&cut->age);
	list_init(&cut->link);
	s->held[queue] += cut->class->pages;
	cut_queue(s, cut, queue);
	cut_link(s, cut);
}

/* Is the span among the older half of its queue? */
static bool cut_old(struct spans *s, struct cut *cut)
{
	struct cut *first =
		container_of(s->age[cut->queue].next, struct cut, age);

	return (cut->number - first->number) * 2 <
	       s->next[cut->queue] - first->number;
}

static bool page_enter(struct spans *s, uint32_t page, unsigned int queue)
{
	struct place *place = &s->place[page];
	struct list *partial = &s->partial[queue][class_of_page(s, page)];
	struct cut *cut;

	if (list_empty(partial))
		return false;
	cut = container_of(partial->next, struct cut, link);
	place->cut = cut;
	place->slot = 0;
	while (cut->page[place->slot] != NONE)
		place->slot++;
	place->visited = false;
	place->young = s->by_span.young && cut_old(s, cut);
	cut->page[place->slot] = page;
	if (++cut->used == cut->class->slots)
		list_del(&cut->link);
	s->pages++;
	return true;
}

/* @keep: the span, though it may be empty. */
static void page_leave(struct spans *s, uint32_t page, bool keep)
{
	struct place *place = &s->place[page];
	struct cut *cut = place->cut;

	cut->page[place->slot] = NONE;
	place->cut = NULL;
	s->pages--;
	cut->used--;
	if (keep)
		return;
	if (!cut->used)
		cut_end(s, cut);
	else if (cut->used + 1 == cut->class->slots)
		cut_link(s, cut);
}

static uint64_t *ghost_at(struct ghost *ghost, uint32_t page, uint16_t *key)
{
	uint64_t hash = page * 0x9e3779b97f4a7c15ull;

	hash ^= hash >> 29;
	hash *= 0xbf58476d1ce4e5b9ull;
	*key = hash >> 48 | 1;
	return &ghost->word[(uint32_t)hash % ghost->words];
}

static void haunt(struct ghost *ghost, uint32_t page)
{
	uint16_t key;
	uint64_t *word = ghost_at(ghost, page, &key);

	*word = *word << 16 | key;
}

static bool haunted(struct ghost *ghost, uint32_t page)
{
	uint16_t key;
	uint64_t *word = ghost_at(ghost, page, &key);

	for (unsigned int shift = 0; shift < 64; shift += 16)
		if ((uint16_t)(*word >> shift) == key) {
			*word &= ~(0xffffull << shift);
			return true;
		}
	return false;
}

/* A span's page when its turn has come.  Where it stays, or QUEUES: nowhere. */
static unsigned int page_stays(struct spans *s, struct cut *cut,
			       struct place *place)
{
	if (s->by_span.visited && place->visited)
		return s->by_span.queues > 1 ? QUEUE_MAIN : QUEUE_SMALL;
	return place->young ? cut->queue : QUEUES;
}

static bool cut_popular(struct spans *s, struct cut *cut)
{
	unsigned int visited = 0;

	for (unsigned int i = 0; i < cut->class->slots; i++)
		visited +=
			cut->page[i] != NONE && s->place[cut->page[i]].visited;
	return visited * 2 >= cut->used;
}

static void cut_evict(struct spans *s, struct cut *cut)
{
	bool whole = s->by_span.whole && cut_popular(s, cut);
	unsigned int stays = QUEUE_SMALL;

	list_del(&cut->link);
	for (unsigned int i = 0; i < cut->class->slots; i++) {
		uint32_t page = cut->page[i];
		unsigned int to;

		if (page == NONE)
			continue;
		to = page_stays(s, cut, &s->place[page]);
		s->place[page].visited = s->place[page].young = false;
		if (whole)
			continue;
		if (to == QUEUES || s->by_span.whole) {
			page_leave(s, page, true);
			if (cut->queue == QUEUE_SMALL)
				haunt(&s->lost, page);
			continue;
		}
		page_leave(s, page, true);
		if (page_enter(s, page, to)) {
			s->copies++;
			continue;
		}
		cut->page[i] = page;
		s->place[page] = (struct place){ cut, i, false, false };
		s->pages++;
		cut->used++;
		if (to == QUEUE_MAIN)
			stays = QUEUE_MAIN;
	}
	if (!cut->used) {
		cut_end(s, cut);
		return;
	}
	cut_queue(s, cut, stays);
	cut_link(s, cut);
}

/* Has the first queue more than its share? */
static bool small_is_large(struct spans *s)
{
	return s->held[QUEUE_SMALL] * 100 >
	       (s->held[QUEUE_SMALL] + s->held[QUEUE_MAIN]) * SMALL_PERCENT;
}

static void evict(struct spans *s)
{
	unsigned int queue = QUEUE_SMALL;

	if (list_empty(&s->age[QUEUE_SMALL]) ||
	    (!list_empty(&s->age[QUEUE_MAIN]) && !small_is_large(s)))
		queue = QUEUE_MAIN;
	s->has_evicted = true;
	cut_evict(s, container_of(s->age[queue].next, struct cut, age));
}

bool spans_get(void *cache, uint32_t page, bool take)
{
	struct spans *s = cache;
	struct place *place = &s->place[page];

	if (!place->cut)
		return false;
	place->visited = true;
	if (!take)
		return true;
	page_leave(s, page, false);
	haunt(&s->taken, page);
	return true;
}

void spans_put(void *cache, uint32_t page)
{
	struct spans *s = cache;
	unsigned int class = class_of_page(s, page);
	struct place *place = &s->place[page];
	unsigned int queue = QUEUE_SMALL;

	if (s->by_span.ghost &&
	    (haunted(&s->lost, page) || haunted(&s->taken, page)))
		queue = QUEUE_MAIN;

	/* The guest had it, and lost it again: it was used. */
	if (place->cut) {
		if (place->visited || place->cut->queue == QUEUE_MAIN)
			queue = QUEUE_MAIN;
		page_leave(s, page, false);
	}
	if (s->by_span.fill && !s->has_evicted && small_is_large(s))
		queue = QUEUE_MAIN;
	if (s->by_span.queues == 1)
		queue = QUEUE_SMALL;
	while (!page_enter(s, page, queue)) {
		while (s->held[QUEUE_SMALL] + s->held[QUEUE_MAIN] +
			       s->class[class].pages >
		       s->most)
			evict(s);
		/* What was evicted may have left a slot. */
		if (list_empty(&s->partial[queue][class]))
			cut_add(s, queue, class);
	}
}
