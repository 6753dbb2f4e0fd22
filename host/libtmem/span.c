/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Spans: runs of pages of one size class, and where their memory comes from
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include "internal.h"

void span_link(struct arena *arena, struct span *span)
{
	struct size_class *class = &arena->class[span->class_index];

	bool full = span_slotted(span) ? slotted_of(span)->closed
				       : span->used == span->slots;

	list_del(&span->link);
	list_add_tail(full ? &class->full : &class->queue[span->queue].partial,
		      &span->link);
}

/* What the span's queue has of it, which it leaves or joins. */
static void span_count(struct arena *arena, struct span *span, int sign)
{
	struct class_queue *queue =
		&arena->class[span->class_index].queue[span->queue];

	queue->spans += sign;
	queue->used += sign * span->used;
	arena->queue_pages[span->queue] += sign * span->pages;
}

void span_enqueue(struct arena *arena, struct span *span, unsigned int queue)
{
	if (!list_empty(&span->age)) {
		span_count(arena, span, -1);
		list_del(&span->age);
	}
	span->queue = queue;
	/* A persistent one has ->due there. */
	if (!arena->persistent)
		span->number = arena->next_number[queue]++;
	list_add_tail(&arena->spans[queue], &span->age);
	span_count(arena, span, 1);
}

/* Pages of an ended or never begun span become free.  arena->lock held. */
static void run_free(struct arena *arena, uint32_t number, unsigned int page,
		     unsigned int pages)
{
	struct segment *segment = segment_of(arena, number);
	uint16_t mask = run_mask(page, pages);

	arena->idle_pages += __builtin_popcount(segment->populated & mask);
	segment->used &= ~mask;
	memset(&segment->span[page], 0, pages * sizeof(segment->span[0]));
	segment_relink(arena, segment);
}

void span_end(struct arena *arena, struct span *span)
{
	size_t bytes = span_size(span);

	span_count(arena, span, -1);
	if (span_slotted(span))
		slotted_end(arena, span);
	list_del(&span->link);
	list_del(&span->age);
	run_free(arena, span->segment, span->page, span->pages);
	atomic_fetch_sub(&arena->span_bytes, bytes);
	store_note_freed(arena->tenant->store, bytes);
	store_free(arena->tenant->store, span);
}

/*
 * Take host memory for the pages of @mask that have none.  Nothing is held:
 * fallocate() may have to reclaim.  It also raises the file's size, so that
 * no page of a span lies beyond the end.  0 or -ENOMEM.
 */
int segment_populate(struct arena *arena, uint32_t number, uint16_t mask)
{
	struct tmem_store *store = arena->tenant->store;
	unsigned int page = 0;

	while (page < SEGMENT_PAGES) {
		unsigned int run = 0;
		uint64_t offset;

		while (page + run < SEGMENT_PAGES && mask & 1u << (page + run))
			run++;
		if (!run) {
			page++;
			continue;
		}
		offset = (uint64_t)number * SEGMENT_BYTES + page * ARENA_PAGE;
		if (store->memory.fallocate(store->memory_opaque, arena->fd, 0,
					    offset, run * ARENA_PAGE))
			return -ENOMEM;
		/* One call for a fault a page; Linux before 5.14 has faults. */
		(void)madvise(segment_data(arena, number) + page * ARENA_PAGE,
			      run * ARENA_PAGE, MADV_POPULATE_WRITE);
		page += run;
	}
	return 0;
}

void segments_punch(struct arena *arena, uint32_t number, const uint16_t *mask,
		    unsigned int count)
{
	unsigned int pages = count * SEGMENT_PAGES;

	for (unsigned int page = 0; page < pages; page++) {
		unsigned int run = 0;

		while (page + run < pages &&
		       mask[(page + run) / SEGMENT_PAGES] &
			       1u << (page + run) % SEGMENT_PAGES)
			run++;
		if (!run)
			continue;
		/* Giving back cannot be refused for want of memory. */
		(void)fallocate(
			arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(uint64_t)number * SEGMENT_BYTES + page * ARENA_PAGE,
			run * ARENA_PAGE);
		page += run;
	}
}

void group_unmap(struct arena *arena, uint32_t number)
{
	uint32_t first = number - number % GROUP_SEGMENTS;

	/* EINVAL if locked.  The mapping is shared: the file has the bytes. */
	(void)madvise(segment_data(arena, first),
		      (size_t)GROUP_SEGMENTS * SEGMENT_BYTES, MADV_DONTNEED);
}

void segment_punch(struct arena *arena, uint32_t number, uint16_t mask)
{
	segments_punch(arena, number, &mask, 1);
}

struct span *span_new(struct arena *arena, unsigned int class_index,
		      unsigned int slots, uint32_t number, unsigned int page)
{
	struct size_class *class = &arena->class[class_index];
	struct span *span = store_zalloc(arena->tenant->store,
					 span_bytes(class_index, slots));

	if (!span)
		return NULL;
	list_init(&span->link);
	list_init(&span->age);
	span->segment = number;
	span->class_index = class_index;
	span->page = page;
	span->pages = class->pages;
	span->slots = slots;
	/* Of a slotted segment's, which are taken in their order, nobody reads it. */
	for (unsigned int i = 0; i < slots; i++)
		span->slot[i].entry = i + 1 < slots ? i + 1 : SLOT_END;
	return span;
}

/*
 * Pages of one segment that are marked used and not yet a span's.  An empty
 * segment gets host memory as a whole: a system call costs more than the page
 * that it is about.
 */
struct run {
	uint32_t number;
	unsigned int page, pages; /* for the span */
	uint16_t missing;	  /* of these, without memory */
	uint16_t spare;		  /* beside them, without memory, to be idle */
	uint16_t populated;	  /* what has got it since */
};

static uint64_t page_bytes(uint16_t mask)
{
	return (uint64_t)__builtin_popcount(mask) * ARENA_PAGE;
}

/* A step takes no more ahead: some ms of work, and 2 MiB that may be in vain. */
#define PREFAULT_MOST 512u

/* A run of @pages pages. */
static int run_claim(struct arena *arena, unsigned int pages, enum need need,
		     struct run *run)
{
	struct segment *segment;
	int error = 0;
	uint16_t mask;

	for (;;) {
		pthread_mutex_lock(&arena->lock);
		segment = run_find(arena, pages, &run->page);
		if (segment)
			break;
		pthread_mutex_unlock(&arena->lock);
		/* Room that was made for a group may have pages: look again. */
		if (error)
			return error;
		error = group_add(arena, need);
	}
	mask = run_mask(run->page, pages);
	run->number = segment->number;
	run->pages = pages;
	run->missing = mask & ~segment->populated;
	/* Holes in a store that no longer grows are filled as they are needed.
	 */
	run->spare = segment->used | segment->populated ? 0 : ~mask;
	arena->idle_pages -= __builtin_popcount(segment->populated & mask);
	segment->used |= mask | run->spare;
	arena->demand += pages;
	segment->unmapped = false;
	segment_relink(arena, segment);
	pthread_mutex_unlock(&arena->lock);
	return 0;
}

/*
 * Memory for what of a run has none.  No lock is held.  What was populated in
 * part goes back while the pages are still ours.
 */
static int run_populate(struct arena *arena, struct run *run,
			uint64_t descriptor, enum need need)
{
	enum grows grows =
		arena->persistent ? GROWS_PERSISTENT : GROWS_EPHEMERAL;
	uint64_t bytes = page_bytes(run->missing) + descriptor;
	int error = arena_may_grow(arena, grows, bytes, need);

	if (error)
		return error;
	/* Nobody makes way for what is only likely to be of use. */
	if (run->spare && store_has_room(arena->tenant, grows,
					 bytes + page_bytes(run->spare))) {
		uint16_t mask = run->missing | run->spare;

		if (!segment_populate(arena, run->number, mask)) {
			run->populated = mask;
			return 0;
		}
		segment_punch(arena, run->number, mask);
	}
	error = segment_populate(arena, run->number, run->missing);
	if (error)
		segment_punch(arena, run->number, run->missing);
	else
		run->populated = run->missing;
	return error;
}

/*
 * It has more memory than ever: it will want more.  One that is overwritten takes
 * and gives back all the time, and does not grow.  arena->lock held.
 */
static void note_grown(struct arena *arena)
{
	uint64_t pages = atomic_load(&arena->populated_bytes) / ARENA_PAGE;

	if (pages <= arena->most_pages)
		return;
	arena->grown =
		MIN(arena->grown + (pages - arena->most_pages), PREFAULT_MOST);
	arena->most_pages = pages;
}

/* A run becomes @span's, or nobody's if NULL.  arena->lock held. */
static void run_settle(struct arena *arena, const struct run *run,
		       struct span *span)
{
	struct segment *segment = segment_of(arena, run->number);

	segment->populated |= run->populated;
	atomic_fetch_add(&arena->populated_bytes, page_bytes(run->populated));
	segment->used &= ~run->spare;
	arena->idle_pages += __builtin_popcount(run->populated & run->spare);
	if (span) {
		note_grown(arena);
		for (unsigned int i = 0; i < run->pages; i++)
			segment->span[run->page + i] = span;
		segment_relink(arena, segment);
	} else {
		run_free(arena, run->number, run->page, run->pages);
	}
}

/* How many slots its next span gets. */
static unsigned int class_slots(struct arena *arena, unsigned int class_index)
{
	unsigned int slots;

	if (class_index != CLASS_SLOTTED)
		return arena->class[class_index].slots;
	arena_lock(arena);
	slots = slotted_slots(arena);
	pthread_mutex_unlock(&arena->lock);
	return slots;
}

/* One more span of a class.  No lock is held. */
int span_add(struct arena *arena, unsigned int class_index, unsigned int queue,
	     enum need need)
{
	unsigned int slots = class_slots(arena, class_index);
	size_t bytes = span_bytes(class_index, slots);
	struct span *span = NULL;
	struct run run = { 0 };
	int error;

	error = run_claim(arena, arena->class[class_index].pages, need, &run);
	if (error)
		return error;
	error = run_populate(arena, &run, bytes, need);
	if (!error) {
		span = span_new(arena, class_index, slots, run.number,
				run.page);
		if (!span)
			error = -ENOMEM;
	}

	pthread_mutex_lock(&arena->lock);
	run_settle(arena, &run, span);
	if (span) {
		atomic_fetch_add(&arena->span_bytes, bytes);
		span_enqueue(arena, span, queue);
		span_link(arena, span);
	} else {
		/* Who packs asks at each step, and may get none: no reserve for it. */
		arena->demand -= MIN(arena->demand, run.pages);
		arena->slotted_short |= class_index == CLASS_SLOTTED &&
					slots == SLOTTED_SLOTS_MAX;
	}
	pthread_mutex_unlock(&arena->lock);
	if (!error)
		store_note_held(arena->tenant->store);
	return error;
}

/*
 * An empty segment, with nothing of it in memory.  NULL: there is none, or, if
 * *@some, which is set then, it was not looked for any further.  arena->lock held.
 */
static struct segment *segment_empty(struct arena *arena, bool *some)
{
	struct list *list = &arena->by_run[SEGMENT_PAGES];
	unsigned int tries = 0;

	for (struct list *l = list->next; l != list && tries < IDLE_TRIES;
	     l = l->next, tries++) {
		struct segment *segment = container_of(l, struct segment, link);

		if (!segment->populated)
			return segment;
	}
	*some = tries == IDLE_TRIES;
	return NULL;
}

/* All pages of an empty segment.  No lock is held.  False: there is none. */
static bool run_claim_empty(struct arena *arena, struct run *run)
{
	struct segment *segment;
	bool some;

	pthread_mutex_lock(&arena->lock);
	segment = segment_empty(arena, &some);
	if (!segment) {
		pthread_mutex_unlock(&arena->lock);
		/* Descriptors are for good: not while there are others. */
		if (some || group_add(arena, NEED_ROOM))
			return false;
		pthread_mutex_lock(&arena->lock);
		segment = segment_empty(arena, &some);
	}
	if (segment) {
		run->number = segment->number;
		run->pages = SEGMENT_PAGES;
		run->missing = run_mask(0, SEGMENT_PAGES);
		segment->used |= run->missing;
		segment->unmapped = false;
		segment_relink(arena, segment);
	}
	pthread_mutex_unlock(&arena->lock);
	return segment;
}

/* One more segment of idle pages.  Likewise. */
static bool segment_prefault(struct arena *arena)
{
	enum grows grows =
		arena->persistent ? GROWS_PERSISTENT : GROWS_EPHEMERAL;
	struct run run = { 0 };

	/* Nobody makes way for what is only likely to be of use. */
	if (arena_may_grow(arena, grows, SEGMENT_BYTES, NEED_ROOM) ||
	    !run_claim_empty(arena, &run))
		return false;
	if (segment_populate(arena, run.number, run.missing))
		segment_punch(arena, run.number, run.missing);
	else
		run.populated = run.missing;
	/* Populated is not enough: a hypervisor may map the page as it is written. */
	for (unsigned int i = 0; i < SEGMENT_PAGES && run.populated; i++)
		*(volatile char *)(segment_data(arena, run.number) +
				   (size_t)i * ARENA_PAGE) = 0;

	pthread_mutex_lock(&arena->lock);
	run_settle(arena, &run, NULL);
	arena->most_pages =
		MAX(arena->most_pages,
		    atomic_load(&arena->populated_bytes) / ARENA_PAGE);
	pthread_mutex_unlock(&arena->lock);
	return run.populated;
}

unsigned int arena_prefault(struct arena *arena, unsigned int max)
{
	unsigned int done = 0;
	uint64_t want;

	/* Who freezes it wants room for others. */
	if (atomic_load(&arena->tenant->frozen))
		return 0;
	pthread_mutex_lock(&arena->lock);
	/* No more than is kept: what nobody takes goes back soon. */
	want = MIN(arena->grown, arena->demand);
	want -= MIN(want, arena->idle_pages);
	if (!arena->queue_pages[QUEUE_SMALL] && !arena->queue_pages[QUEUE_MAIN])
		want = 0;
	if (!want) {
		uint64_t pages =
			atomic_load(&arena->populated_bytes) / ARENA_PAGE;

		arena->grown = 0;
		/* Who has been larger for long is growing again. */
		if (arena->most_pages > pages)
			arena->most_pages -= (arena->most_pages - pages) / 2;
	}
	pthread_mutex_unlock(&arena->lock);
	want = MIN(want, max);
	while (done + SEGMENT_PAGES <= want && segment_prefault(arena))
		done += SEGMENT_PAGES;
	return done;
}
