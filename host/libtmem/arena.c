/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tenant's memory: segments of a memfd, spans of one size class, slots
 *
 * The shape is zsmalloc's (Linux mm/zsmalloc.c): spans of a few pages each for
 * one size class, compaction within a class.  Differences, and why: slots are
 * described out of band, so that stored bytes are all that a segment has and a
 * raw page fits a page; spans lie in one piece, so that a chunk is one memcpy;
 * memory is a memfd, so that it counts as what it is, can be given back page
 * by page, and can be handed to another process.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#define CACHE_LINE 64

int arena_init(struct arena *arena, struct tmem_tenant *tenant, bool persistent,
	       const int fd[2])
{
	int error;

	memset(arena, 0, sizeof(*arena));
	arena->tenant = tenant;
	arena->persistent = persistent;
	pthread_mutex_init(&arena->lock, NULL);
	for (unsigned int i = 0; i < CLASSES; i++)
		class_init(&arena->class[i], i);
	for (unsigned int i = 0; i <= SEGMENT_PAGES; i++)
		list_init(&arena->by_run[i]);
	list_init(&arena->idle);
	for (unsigned int q = 0; q < QUEUES; q++)
		list_init(&arena->spans[q]);
	list_init(&arena->settled);
	arena->fd = fd ? fd[1]
		       : memfd_make(persistent ? "tmem-persistent"
					       : "tmem-ephemeral");
	error = cells_init(arena, fd ? fd[0] : -1);
	if (arena->fd < 0)
		error = arena->fd;
	if (error)
		arena_destroy(arena);
	return error;
}

size_t span_bytes(unsigned int slots)
{
	return sizeof(struct span) + slots * sizeof(struct slot);
}

static void spans_free(struct tmem_store *store, struct list *spans)
{
	while (!list_empty(spans)) {
		struct span *span = container_of(spans->next, struct span, age);

		list_del(&span->age);
		store_free(store, span);
	}
}

void arena_destroy(struct arena *arena)
{
	struct tmem_store *store = arena->tenant->store;

	for (unsigned int q = 0; q < QUEUES; q++)
		spans_free(store, &arena->spans[q]);
	spans_free(store, &arena->settled);
	for (unsigned int i = 0; i < REGION_MAX && arena->region[i]; i++) {
		struct region *region = arena->region[i];

		munmap(region->data, REGION_BYTES);
		for (unsigned int g = 0; g < REGION_GROUPS; g++)
			store_free(store, region->group[g]);
		store_free(store, region);
	}
	cells_destroy(arena);
	if (arena->fd >= 0)
		close(arena->fd);
	arena->fd = -1;
	pthread_mutex_destroy(&arena->lock);
}

uint64_t arena_page_bytes(struct arena *arena)
{
	return atomic_load(&arena->populated_bytes) +
	       atomic_load(&arena->span_bytes);
}

uint64_t arena_index_bytes(struct arena *arena)
{
	return atomic_load(&arena->index_bytes);
}

uint64_t arena_held(struct arena *arena)
{
	return arena_page_bytes(arena) + arena_index_bytes(arena);
}

enum grows arena_index_grows(struct arena *arena)
{
	if (!arena->persistent)
		return GROWS_INDEX;
	return arena_index_bytes(arena) <= tenant_index_share(arena->tenant)
		       ? GROWS_PERSISTENT
		       : GROWS_PERSISTENT_INDEX;
}

/* --------------------------------------------------------------- segments */

struct segment *segment_of(struct arena *arena, uint32_t number)
{
	struct region *region = arena->region[number / REGION_SEGMENTS];

	return &region->group[number % REGION_SEGMENTS / GROUP_SEGMENTS]
			     [number % GROUP_SEGMENTS];
}

static char *segment_data(struct arena *arena, uint32_t number)
{
	return arena->region[number / REGION_SEGMENTS]->data +
	       (uint64_t)(number % REGION_SEGMENTS) * SEGMENT_BYTES;
}

unsigned int longest_run(uint16_t used)
{
	unsigned int run = 0;

	for (uint32_t free = (uint16_t)~used; free; run++)
		free &= free << 1;
	return run;
}

void segment_relink(struct arena *arena, struct segment *segment)
{
	bool idle = segment->populated & ~segment->used;

	segment->run = longest_run(segment->used);
	list_del(&segment->link);
	list_add_tail(&arena->by_run[segment->run], &segment->link);
	if (idle == segment->idle)
		return;
	segment->idle = idle;
	if (idle)
		list_add_tail(&arena->idle, &segment->idle_link);
	else
		list_del(&segment->idle_link);
}

/* Address space for a region.  arena->lock is not held. */
static int region_map(struct arena *arena, unsigned int index)
{
	struct tmem_store *store = arena->tenant->store;
	struct region *region = store_zalloc(store, sizeof(*region));

	if (!region)
		return -ENOMEM;
	region->data =
		memfd_map(store, arena->fd, index * REGION_BYTES, REGION_BYTES);
	if (!region->data) {
		store_free(store, region);
		return -ENOMEM;
	}
	pthread_mutex_lock(&arena->lock);
	if (!arena->region[index]) {
		arena->region[index] = region;
		atomic_fetch_add(&arena->index_bytes, sizeof(*region));
		region = NULL;
	}
	pthread_mutex_unlock(&arena->lock);
	/* Another thread was faster? */
	if (region) {
		munmap(region->data, REGION_BYTES);
		store_free(store, region);
	}
	return 0;
}

static bool region_mapped(struct arena *arena, unsigned int index)
{
	bool mapped;

	pthread_mutex_lock(&arena->lock);
	mapped = arena->region[index];
	pthread_mutex_unlock(&arena->lock);
	return mapped;
}

static size_t group_bytes(const struct arena *arena)
{
	return GROUP_SEGMENTS * sizeof(struct segment) + ghost_bytes(arena);
}

static void group_init(struct segment *group, uint32_t first)
{
	for (unsigned int i = 0; i < GROUP_SEGMENTS; i++) {
		list_init(&group[i].link);
		list_init(&group[i].idle_link);
		group[i].run = SEGMENT_PAGES;
		group[i].number = first + i;
	}
}

/*
 * The memfd's size is fallocate()'s to raise, see segment_populate(): setting
 * it here would cut off what others, who were faster, have added meanwhile.
 */
int group_make(struct arena *arena, uint32_t first)
{
	struct tmem_store *store = arena->tenant->store;
	size_t bytes = group_bytes(arena);
	struct segment *group;
	int error = 0;

	if (!region_mapped(arena, first / REGION_SEGMENTS))
		error = region_map(arena, first / REGION_SEGMENTS);
	if (error)
		return error;
	group = store_zalloc(store, bytes);
	if (!group)
		return -ENOMEM;
	group_init(group, first);

	pthread_mutex_lock(&arena->lock);
	if (arena->num_segments != first) {
		/* Another thread was faster. */
		pthread_mutex_unlock(&arena->lock);
		store_free(store, group);
		return 0;
	}
	arena->region[first / REGION_SEGMENTS]
		->group[first % REGION_SEGMENTS / GROUP_SEGMENTS] = group;
	arena->num_segments = first + GROUP_SEGMENTS;
	/* Low segments first, so that the file stays short. */
	for (unsigned int i = 0; i < GROUP_SEGMENTS; i++)
		list_add_tail(&arena->by_run[SEGMENT_PAGES], &group[i].link);
	atomic_fetch_add(&arena->index_bytes, bytes);
	pthread_mutex_unlock(&arena->lock);
	return 0;
}

/* How far an allocation goes. */
enum need {
	NEED_ROOM, /* it fails where there is none */
	NEED_MAKE_ROOM,
	NEED_GUARANTEED, /* as is what is within a reservation */
};

static int may_grow(struct arena *arena, enum grows grows, uint64_t bytes,
		    enum need need)
{
	if (need == NEED_ROOM)
		return store_has_room(arena->tenant, grows, bytes) ? 0
								   : -ENOSPC;
	return store_may_grow(arena->tenant, grows, bytes,
			      need == NEED_GUARANTEED);
}

static int group_add(struct arena *arena, enum need need)
{
	uint32_t first;
	int error;

	pthread_mutex_lock(&arena->lock);
	first = arena->num_segments;
	pthread_mutex_unlock(&arena->lock);
	if (first >= SEGMENT_MAX)
		return -ENOSPC;
	error = may_grow(arena, arena_index_grows(arena), group_bytes(arena),
			 need);
	return error ? error : group_make(arena, first);
}

/* How many idle segments are looked at for a new span. */
#define IDLE_TRIES 16

/*
 * Where @pages free pages of a segment are, as many as possible of them with
 * memory; their number, or -1 where no run is as long.
 */
static int run_place(const struct segment *segment, unsigned int pages,
		     unsigned int *page)
{
	int best = -1;

	if (segment->run < pages)
		return -1;
	for (unsigned int p = 0; p + pages <= SEGMENT_PAGES; p++) {
		uint16_t mask = run_mask(p, pages);
		int ready = __builtin_popcount(segment->populated & mask);

		if (segment->used & mask || ready <= best)
			continue;
		best = ready;
		*page = p;
	}
	return best;
}

/*
 * A run of free pages that needs no or least new host memory: idle pages
 * first, then best fit.  arena->lock held.
 */
static struct segment *run_find(struct arena *arena, unsigned int pages,
				unsigned int *page)
{
	struct segment *best = NULL;
	unsigned int tries = 0, at;
	int ready, most = 0;

	for (struct list *l = arena->idle.next;
	     l != &arena->idle && tries < IDLE_TRIES && most < (int)pages;
	     l = l->next, tries++) {
		struct segment *segment =
			container_of(l, struct segment, idle_link);

		ready = run_place(segment, pages, &at);
		if (ready > most) {
			most = ready;
			best = segment;
			*page = at;
		}
	}
	for (unsigned int run = pages; run <= SEGMENT_PAGES && !best; run++) {
		if (list_empty(&arena->by_run[run]))
			continue;
		best = container_of(arena->by_run[run].next, struct segment,
				    link);
		run_place(best, pages, page);
	}
	return best;
}

/* ------------------------------------------------------------------ spans */

void span_link(struct arena *arena, struct span *span)
{
	struct size_class *class = &arena->class[span->class_index];

	list_del(&span->link);
	list_add_tail(span->used == span->slots
			      ? &class->full
			      : &class->queue[span->queue].partial,
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
	span_count(arena, span, -1);
	list_del(&span->link);
	list_del(&span->age);
	run_free(arena, span->segment, span->page, span->pages);
	atomic_fetch_sub(&arena->span_bytes, span_bytes(span->slots));
	store_note_freed(arena->tenant->store, span_bytes(span->slots));
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
		      uint32_t number, unsigned int page)
{
	struct size_class *class = &arena->class[class_index];
	struct span *span =
		store_zalloc(arena->tenant->store, span_bytes(class->slots));

	if (!span)
		return NULL;
	list_init(&span->link);
	list_init(&span->age);
	span->segment = number;
	span->class_index = class_index;
	span->page = page;
	span->pages = class->pages;
	span->slots = class->slots;
	for (unsigned int i = 0; i < span->slots; i++)
		span->slot[i].entry = i + 1 < span->slots ? i + 1 : SLOT_END;
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
	int error = may_grow(arena, grows, bytes, need);

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
	if (span)
		note_grown(arena);
	if (span) {
		for (unsigned int i = 0; i < run->pages; i++)
			segment->span[run->page + i] = span;
		segment_relink(arena, segment);
	} else {
		run_free(arena, run->number, run->page, run->pages);
	}
}

/* One more span of a class.  No lock is held. */
static int span_add(struct arena *arena, unsigned int class_index,
		    unsigned int queue, enum need need)
{
	struct size_class *class = &arena->class[class_index];
	struct span *span = NULL;
	struct run run = { 0 };
	int error;

	error = run_claim(arena, class->pages, need, &run);
	if (error)
		return error;
	error = run_populate(arena, &run, span_bytes(class->slots), need);
	if (!error) {
		span = span_new(arena, class_index, run.number, run.page);
		if (!span)
			error = -ENOMEM;
	}

	pthread_mutex_lock(&arena->lock);
	run_settle(arena, &run, span);
	if (span) {
		atomic_fetch_add(&arena->span_bytes, span_bytes(class->slots));
		span_enqueue(arena, span, queue);
		span_link(arena, span);
	}
	pthread_mutex_unlock(&arena->lock);
	if (!error)
		store_note_held(arena->tenant->store);
	return error;
}

/* An empty segment, with nothing of it in memory.  arena->lock held. */
static struct segment *segment_empty(struct arena *arena)
{
	struct list *list = &arena->by_run[SEGMENT_PAGES];
	unsigned int tries = 0;

	for (struct list *l = list->next; l != list && tries < IDLE_TRIES;
	     l = l->next, tries++) {
		struct segment *segment = container_of(l, struct segment, link);

		if (!segment->populated)
			return segment;
	}
	return NULL;
}

/* One more segment of idle pages.  No lock is held. */
static bool segment_prefault(struct arena *arena)
{
	enum grows grows =
		arena->persistent ? GROWS_PERSISTENT : GROWS_EPHEMERAL;
	struct run run = { .pages = SEGMENT_PAGES };
	struct segment *segment;

	/* Nobody makes way for what is only likely to be of use. */
	if (may_grow(arena, grows, SEGMENT_BYTES, NEED_ROOM))
		return false;
	pthread_mutex_lock(&arena->lock);
	segment = segment_empty(arena);
	if (!segment) {
		pthread_mutex_unlock(&arena->lock);
		if (group_add(arena, NEED_ROOM))
			return false;
		pthread_mutex_lock(&arena->lock);
		segment = segment_empty(arena);
	}
	if (segment) {
		run.number = segment->number;
		run.missing = run_mask(0, SEGMENT_PAGES);
		segment->used |= run.missing;
		segment->unmapped = false;
		segment_relink(arena, segment);
	}
	pthread_mutex_unlock(&arena->lock);
	if (!segment)
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

/* ------------------------------------------------------------------ slots */

char *slot_data(struct arena *arena, struct span *span, unsigned int i)
{
	return segment_data(arena, span->segment) + span->page * ARENA_PAGE +
	       (size_t)i * arena->class[span->class_index].size;
}

/* Of the first partial span. */
bool slot_take(struct arena *arena, struct size_class *class, uint32_t length,
	       struct chunk *chunk)
{
	struct class_queue *queue = &class->queue[chunk->queue];
	struct span *span;
	struct slot *slot;

	if (list_empty(&queue->partial))
		return false;
	span = container_of(queue->partial.next, struct span, link);
	chunk->span = span;
	chunk->index = span->free_head;
	slot = &span->slot[chunk->index];
	span->free_head = slot->entry;
	span->used++;
	queue->used++;
	chunk->length = length;
	chunk->age = chunk->queue == QUEUE_MAIN ? HANDLE_MAIN : 0;
	if (!arena->persistent && span_old(arena, span))
		chunk->age |= HANDLE_YOUNG;
	atomic_store(&slot->leaf, SLOT_PENDING);
	if (span->used == span->slots)
		span_link(arena, span);
	span->filled = true;
	if (span->settled) {
		/* Not any more. */
		span->settled = false;
		list_del(&span->age);
		list_add_tail(&arena->spans[QUEUE_SMALL], &span->age);
	}
	chunk->data = slot_data(arena, span, chunk->index);
	return true;
}

void slot_release(struct arena *arena, struct span *span, unsigned int index)
{
	struct slot *slot = &span->slot[index];

	atomic_store(&slot->leaf, 0);
	slot->entry = span->used == span->slots ? SLOT_END : span->free_head;
	span->free_head = index;
	span->used--;
	arena->class[span->class_index].queue[span->queue].used--;
	/* One in no list is what compaction or eviction empties. */
	if (!span->used && !span->busy)
		span_end(arena, span);
	else if (span->used + 1 == span->slots && !list_empty(&span->link))
		span_link(arena, span);
}

static int slot_alloc(struct arena *arena, uint32_t length, enum need need,
		      struct chunk *chunk)
{
	unsigned int index = class_of(length);
	struct size_class *class = &arena->class[index];

	if (arena->persistent)
		chunk->queue = QUEUE_SMALL;
	for (;;) {
		bool taken;
		int error;

		pthread_mutex_lock(&arena->lock);
		taken = slot_take(arena, class, length, chunk);
		pthread_mutex_unlock(&arena->lock);
		if (taken)
			return 0;
		error = span_add(arena, index, chunk->queue, need);
		if (error)
			return error;
	}
}

int arena_alloc(struct arena *arena, uint32_t length, bool guaranteed,
		struct chunk *chunk)
{
	return slot_alloc(arena, length,
			  guaranteed ? NEED_GUARANTEED : NEED_MAKE_ROOM, chunk);
}

int arena_alloc_if_room(struct arena *arena, uint32_t length,
			struct chunk *chunk)
{
	return slot_alloc(arena, length, NEED_ROOM, chunk);
}

void arena_abort(struct arena *arena, struct chunk *chunk)
{
	pthread_mutex_lock(&arena->lock);
	slot_release(arena, chunk->span, chunk->index);
	pthread_mutex_unlock(&arena->lock);
}

tmem_handle arena_publish(struct arena *arena, struct chunk *chunk,
			  unsigned int type, struct tmem_leaf *leaf,
			  unsigned int entry)
{
	struct span *span = chunk->span;
	struct slot *slot = &span->slot[chunk->index];

	/*
	 * Compaction believes in the slot once leaf is set; it then tries the
	 * leaf's stripe, which the caller holds until the word is stored.
	 */
	slot->entry = entry;
	atomic_store_explicit(&slot->leaf, leaf->self, memory_order_release);
	return handle_chunk(type, chunk->length, span->segment,
			    (uint32_t)span->page << 12 | chunk->index) |
	       chunk->age;
}

static struct span *handle_span(struct arena *arena, tmem_handle handle)
{
	return segment_of(arena, handle_segment(handle))
		->span[handle_slot(handle) >> 12];
}

static struct slot *slot_of(struct arena *arena, tmem_handle handle)
{
	return &handle_span(arena, handle)->slot[handle_slot(handle) & 0xfff];
}

void arena_free(struct arena *arena, tmem_handle handle)
{
	pthread_mutex_lock(&arena->lock);
	slot_release(arena, handle_span(arena, handle),
		     handle_slot(handle) & 0xfff);
	pthread_mutex_unlock(&arena->lock);
}

const char *arena_data(struct arena *arena, tmem_handle handle)
{
	/*
	 * No arena->lock: the handle is live, so its span neither moves nor
	 * ends while the leaf's stripe is held, and regions never go away.
	 * The class follows from the length: neither the segment's nor the
	 * span's descriptor, both cold in a random get, is looked at.
	 */
	return segment_data(arena, handle_segment(handle)) +
	       (handle_slot(handle) >> 12) * ARENA_PAGE +
	       (size_t)(handle_slot(handle) & 0xfff) *
		       class_size(class_of(handle_length(handle)));
}

void arena_prefetch(struct arena *arena, tmem_handle handle)
{
	const char *data = arena_data(arena, handle);

	for (uint32_t i = 0; i < handle_length(handle); i += CACHE_LINE)
		__builtin_prefetch(data + i);
}

void arena_prefetch_slot(struct arena *arena, tmem_handle handle)
{
	struct span *span = handle_span(arena, handle);

	__builtin_prefetch(span, 1);
	__builtin_prefetch(&span->slot[handle_slot(handle) & 0xfff], 1);
}

void arena_move_leaf(struct arena *arena, const struct tmem_leaf *old,
		     struct tmem_leaf *leaf)
{
	pthread_mutex_lock(&arena->lock);
	for (unsigned int i = 0; i < old->capacity; i++) {
		tmem_handle handle = atomic_load(&leaf->word[i]);

		if (handle_has_chunk(handle))
			atomic_store(&slot_of(arena, handle)->leaf, leaf->self);
	}
	pthread_mutex_unlock(&arena->lock);
}

uint16_t *arena_taker(struct arena *arena, tmem_handle handle)
{
	return &slot_of(arena, handle)->taker;
}

/* ------------------------------------------------------------------ check */

static int span_check(struct arena *arena, struct span *span, uint16_t *used,
		      char *message, size_t size)
{
	struct segment *segment = segment_of(arena, span->segment);
	unsigned int live = 0, free = 0;

	for (unsigned int i = 0; i < span->slots; i++) {
		uint32_t cell = atomic_load(&span->slot[i].leaf);
		struct tmem_leaf *leaf;
		tmem_handle handle;

		if (!cell)
			continue;
		live++;
		if (cell == SLOT_PENDING)
			return FAULT("slot pending though no op runs");
		leaf = cell_at(&arena->cells, cell);
		if (span->slot[i].entry >= leaf->capacity)
			return FAULT("slot's leaf has no such word");
		handle = atomic_load(&leaf->word[span->slot[i].entry]);
		if (!handle_has_chunk(handle) ||
		    handle_segment(handle) != span->segment ||
		    handle_slot(handle) != ((uint32_t)span->page << 12 | i) ||
		    class_of(handle_length(handle)) != span->class_index)
			return FAULT("slot's leaf does not name the slot");
		if (arena->persistent && handle & HANDLE_MAIN)
			return FAULT("a persistent page with an age");
	}
	for (unsigned int i = span->free_head;
	     span->used < span->slots && i != SLOT_END && free < span->slots;
	     i = span->slot[i].entry)
		free++;
	if (live != span->used || live + free != span->slots)
		return FAULT("span: %u live, %u free, %u used of %u", live,
			     free, span->used, span->slots);
	for (unsigned int i = 0; i < span->pages; i++)
		if (segment->span[span->page + i] != span)
			return FAULT("segment does not name its span");
	if (*used & run_mask(span->page, span->pages))
		return FAULT("spans overlap");
	*used |= run_mask(span->page, span->pages);
	return 0;
}

int arena_check(struct arena *arena, char *message, size_t size)
{
	uint64_t populated = 0, idle = 0, metadata = 0, spans = 0;

	for (unsigned int q = 0; q < QUEUES; q++)
		if (queue_check(arena, q, &spans, &metadata, message, size))
			return -EUCLEAN;
	for (uint32_t n = 0; n < arena->num_segments; n++) {
		struct segment *segment = segment_of(arena, n);
		uint16_t used = 0;

		if (!segment->used && !segment->populated &&
		    segment->run == SEGMENT_PAGES)
			continue; /* never used: most are */
		for (unsigned int p = 0; p < SEGMENT_PAGES; p++) {
			struct span *span = segment->span[p];
			int error;

			if (!span || span->page != p)
				continue;
			spans--;
			error = span_check(arena, span, &used, message, size);
			if (error)
				return error;
		}
		if (used != segment->used || (used & ~segment->populated))
			return FAULT("segment %u: pages used %#x, spans %#x, "
				     "populated %#x",
				     n, segment->used, used,
				     segment->populated);
		populated += __builtin_popcount(segment->populated);
		idle += __builtin_popcount(segment->populated & ~used);
		if (segment->run != longest_run(used))
			return FAULT("segment %u: wrong run", n);
	}
	if (metadata != atomic_load(&arena->span_bytes))
		return FAULT("descriptors of spans miscounted");
	if (spans)
		return FAULT("spans that no segment names");
	if (populated * ARENA_PAGE != atomic_load(&arena->populated_bytes) ||
	    idle != arena->idle_pages)
		return FAULT("populated or idle pages miscounted");
	return cells_check(arena, message, size);
}
