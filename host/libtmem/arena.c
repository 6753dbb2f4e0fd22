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

/*
 * Populated pages kept in reserve rather than given back: 32 + 1/128, and what
 * spans took lately (arena->demand).
 */
#define IDLE_RESERVE_PAGES 32
#define CACHE_LINE	   64

static unsigned int class_of(uint32_t length)
{
	if (length <= ARENA_PAGE)
		return (MAX(length, 1u) - 1) / CLASS_STEP;
	return CLASSES_SMALL + (length - ARENA_PAGE - 1) / CLASS_STEP_LARGE;
}

static uint32_t class_size(unsigned int index)
{
	if (index < CLASSES_SMALL)
		return (index + 1) * CLASS_STEP;
	return ARENA_PAGE + (index - CLASSES_SMALL + 1) * CLASS_STEP_LARGE;
}

/* The shortest span up to 8 pages that wastes least, by 1/128 steps. */
static void class_init(struct size_class *class, unsigned int index)
{
	unsigned int best = UINT32_MAX;

	class->size = class_size(index);
	for (unsigned int pages = 1; pages <= SEGMENT_PAGES; pages++) {
		unsigned int bytes = pages * ARENA_PAGE, waste;

		if (bytes < class->size || (pages > 8 && best != UINT32_MAX))
			continue;
		waste = bytes % class->size * 128 / bytes;
		if (waste < best) {
			best = waste;
			class->pages = pages;
			class->slots = bytes / class->size;
		}
	}
	list_init(&class->partial);
	list_init(&class->full);
}

int arena_init(struct arena *arena, struct tmem_tenant *tenant, bool persistent)
{
	memset(arena, 0, sizeof(*arena));
	arena->tenant = tenant;
	arena->persistent = persistent;
	arena->fd = memfd_create(persistent ? "tmem-persistent" :
					      "tmem-ephemeral",
				 MFD_CLOEXEC);
	if (arena->fd < 0)
		return -errno;
	pthread_mutex_init(&arena->lock, NULL);
	for (unsigned int i = 0; i < CLASSES; i++)
		class_init(&arena->class[i], i);
	for (unsigned int i = 0; i <= SEGMENT_PAGES; i++)
		list_init(&arena->by_run[i]);
	list_init(&arena->idle);
	list_init(&arena->spans);
	return 0;
}

static size_t span_bytes(unsigned int slots)
{
	return sizeof(struct span) + slots * sizeof(struct slot);
}

void arena_destroy(struct arena *arena)
{
	struct tmem_store *store = arena->tenant->store;

	if (arena->fd < 0)
		return;
	while (!list_empty(&arena->spans)) {
		struct span *span =
			container_of(arena->spans.next, struct span, age);

		list_del(&span->age);
		store_free(store, span);
	}
	for (unsigned int i = 0; i < REGION_MAX && arena->region[i]; i++) {
		munmap(arena->region[i], REGION_BYTES);
		store_free(store, arena->segments[i]);
	}
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
	return arena->persistent && arena_index_bytes(arena) <=
					    tenant_index_share(arena->tenant) ?
		       GROWS_PERSISTENT :
		       GROWS_INDEX;
}

/* --------------------------------------------------------------- segments */

static struct segment *segment_of(struct arena *arena, uint32_t number)
{
	return &arena->segments[number / REGION_SEGMENTS]
			       [number % REGION_SEGMENTS];
}

static char *segment_data(struct arena *arena, uint32_t number)
{
	return arena->region[number / REGION_SEGMENTS] +
	       (uint64_t)(number % REGION_SEGMENTS) * SEGMENT_BYTES;
}

static uint16_t run_mask(unsigned int page, unsigned int pages)
{
	return ((1u << pages) - 1) << page;
}

static unsigned int longest_run(uint16_t used)
{
	unsigned int run = 0;

	for (uint32_t free = (uint16_t)~used; free; run++)
		free &= free << 1;
	return run;
}

/* Keep the segment in the lists that its bitmaps say.  arena->lock held. */
static void segment_relink(struct arena *arena, struct segment *segment)
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

/*
 * One more region of address space and of descriptors.  arena->lock is not
 * held.  The memfd's size is fallocate()'s to raise, see populate(): setting
 * it here would cut off what others, who were faster, have added meanwhile.
 */
static int region_add(struct arena *arena, unsigned int index, bool guaranteed)
{
	struct tmem_store *store = arena->tenant->store;
	size_t bytes = REGION_SEGMENTS * sizeof(struct segment);
	struct segment *segments;
	char *data;
	int error;

	if (index >= REGION_MAX)
		return -ENOSPC;
	error = store_may_grow(arena->tenant, arena_index_grows(arena), bytes,
			       guaranteed);
	if (error)
		return error;
	segments = store_zalloc(store, bytes);
	if (!segments)
		return -ENOMEM;
	data = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
		    arena->fd, index * REGION_BYTES);
	if (data == MAP_FAILED) {
		store_free(store, segments);
		return -ENOMEM;
	}
	/* Guests' pages do not belong into a core file of ours. */
	madvise(data, REGION_BYTES, MADV_DONTDUMP);
	if (store->flags & TMEM_STORE_LOCK &&
	    mlock2(data, REGION_BYTES, MLOCK_ONFAULT)) {
		munmap(data, REGION_BYTES);
		store_free(store, segments);
		return -ENOMEM;
	}

	pthread_mutex_lock(&arena->lock);
	if (arena->region[index]) {
		/* Another thread was faster. */
		pthread_mutex_unlock(&arena->lock);
		munmap(data, REGION_BYTES);
		store_free(store, segments);
		return 0;
	}
	arena->region[index] = data;
	arena->segments[index] = segments;
	for (unsigned int i = 0; i < REGION_SEGMENTS; i++) {
		list_init(&segments[i].link);
		list_init(&segments[i].idle_link);
		segments[i].run = SEGMENT_PAGES;
		segments[i].number = index * REGION_SEGMENTS + i;
	}
	arena->num_segments = (index + 1) * REGION_SEGMENTS;
	/* Low segments first, so that the file stays short. */
	for (unsigned int i = 0; i < REGION_SEGMENTS; i++)
		list_add_tail(&arena->by_run[SEGMENT_PAGES], &segments[i].link);
	atomic_fetch_add(&arena->index_bytes, bytes);
	pthread_mutex_unlock(&arena->lock);
	return 0;
}

/*
 * A run of free pages that needs no or least new host memory: idle pages
 * first, then best fit.  arena->lock held.
 */
static struct segment *run_find(struct arena *arena, unsigned int pages,
				unsigned int *page)
{
	unsigned int tries = 0;

	for (struct list *l = arena->idle.next; l != &arena->idle && tries < 8;
	     l = l->next, tries++) {
		struct segment *segment =
			container_of(l, struct segment, idle_link);
		uint16_t ready = segment->populated & ~segment->used;

		for (unsigned int p = 0; p + pages <= SEGMENT_PAGES; p++) {
			uint16_t mask = run_mask(p, pages);

			if ((ready & mask) == mask) {
				*page = p;
				return segment;
			}
		}
	}
	for (unsigned int run = pages; run <= SEGMENT_PAGES; run++) {
		struct segment *segment;

		if (list_empty(&arena->by_run[run]))
			continue;
		segment = container_of(arena->by_run[run].next, struct segment,
				       link);
		for (unsigned int p = 0; p + pages <= SEGMENT_PAGES; p++) {
			if (!(segment->used & run_mask(p, pages))) {
				*page = p;
				return segment;
			}
		}
	}
	return NULL;
}

/* ------------------------------------------------------------------ spans */

static void span_link(struct arena *arena, struct span *span)
{
	struct size_class *class = &arena->class[span->class_index];

	list_del(&span->link);
	list_add_tail(span->used == span->slots ? &class->full :
						  &class->partial,
		      &span->link);
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

/* An empty span ends.  arena->lock held. */
static void span_end(struct arena *arena, struct span *span)
{
	struct size_class *class = &arena->class[span->class_index];

	class->spans--;
	list_del(&span->link);
	list_del(&span->age);
	run_free(arena, span->segment, span->page, span->pages);
	atomic_fetch_sub(&arena->span_bytes, span_bytes(span->slots));
	store_free(arena->tenant->store, span);
}

/*
 * Take host memory for the pages of @mask that have none.  Nothing is held:
 * fallocate() may have to reclaim.  It also raises the file's size, so that
 * no page of a span lies beyond the end.  0 or -ENOMEM.
 */
static int populate(struct arena *arena, uint32_t number, uint16_t mask)
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

static void punch(struct arena *arena, uint32_t number, uint16_t mask)
{
	for (unsigned int page = 0; page < SEGMENT_PAGES; page++) {
		unsigned int run = 0;

		while (page + run < SEGMENT_PAGES && mask & 1u << (page + run))
			run++;
		if (!run)
			continue;
		/* Giving back cannot be refused for want of memory. */
		(void)fallocate(arena->fd,
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(uint64_t)number * SEGMENT_BYTES +
					page * ARENA_PAGE,
				run * ARENA_PAGE);
		page += run;
	}
}

static struct span *span_new(struct arena *arena, unsigned int class_index,
			     uint32_t number, unsigned int page)
{
	struct size_class *class = &arena->class[class_index];
	struct span *span = store_zalloc(arena->tenant->store,
					 span_bytes(class->slots));

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

/* A run of @pages pages. */
static int run_claim(struct arena *arena, unsigned int pages, bool guaranteed,
		     struct run *run)
{
	struct segment *segment;
	int error = 0;
	uint16_t mask;

	for (;;) {
		unsigned int regions;

		pthread_mutex_lock(&arena->lock);
		segment = run_find(arena, pages, &run->page);
		regions = arena->num_segments / REGION_SEGMENTS;
		if (segment)
			break;
		pthread_mutex_unlock(&arena->lock);
		/* Room that was made for a region may have pages: look again. */
		if (error)
			return error;
		error = region_add(arena, regions, guaranteed);
	}
	mask = run_mask(run->page, pages);
	run->number = segment->number;
	run->pages = pages;
	run->missing = mask & ~segment->populated;
	/* Holes in a store that no longer grows are filled as they are needed. */
	run->spare = segment->used | segment->populated ? 0 : ~mask;
	arena->idle_pages -= __builtin_popcount(segment->populated & mask);
	segment->used |= mask | run->spare;
	arena->demand += pages;
	segment_relink(arena, segment);
	pthread_mutex_unlock(&arena->lock);
	return 0;
}

/*
 * Memory for what of a run has none.  No lock is held.  What was populated in
 * part goes back while the pages are still ours.
 */
static int run_populate(struct arena *arena, struct run *run,
			uint64_t descriptor, bool guaranteed)
{
	enum grows grows = arena->persistent ? GROWS_PERSISTENT :
					       GROWS_EPHEMERAL;
	uint64_t bytes = page_bytes(run->missing) + descriptor;
	int error = store_may_grow(arena->tenant, grows, bytes, guaranteed);

	if (error)
		return error;
	/* Nobody makes way for what is only likely to be of use. */
	if (run->spare && store_has_room(arena->tenant, grows,
					 bytes + page_bytes(run->spare))) {
		uint16_t mask = run->missing | run->spare;

		if (!populate(arena, run->number, mask)) {
			run->populated = mask;
			return 0;
		}
		punch(arena, run->number, mask);
	}
	error = populate(arena, run->number, run->missing);
	if (error)
		punch(arena, run->number, run->missing);
	else
		run->populated = run->missing;
	return error;
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
		for (unsigned int i = 0; i < run->pages; i++)
			segment->span[run->page + i] = span;
		segment_relink(arena, segment);
	} else {
		run_free(arena, run->number, run->page, run->pages);
	}
}

/* One more span of a class.  No lock is held. */
static int span_add(struct arena *arena, unsigned int class_index,
		    bool guaranteed)
{
	struct size_class *class = &arena->class[class_index];
	struct span *span = NULL;
	struct run run = { 0 };
	int error;

	error = run_claim(arena, class->pages, guaranteed, &run);
	if (error)
		return error;
	error = run_populate(arena, &run, span_bytes(class->slots), guaranteed);
	if (!error) {
		span = span_new(arena, class_index, run.number, run.page);
		if (!span)
			error = -ENOMEM;
	}

	pthread_mutex_lock(&arena->lock);
	run_settle(arena, &run, span);
	if (span) {
		atomic_fetch_add(&arena->span_bytes, span_bytes(class->slots));
		class->spans++;
		list_add_tail(&arena->spans, &span->age);
		list_add_tail(&class->partial, &span->link);
	}
	pthread_mutex_unlock(&arena->lock);
	if (!error)
		store_note_held(arena->tenant->store);
	return error;
}

/* ------------------------------------------------------------------ slots */

static char *slot_data(struct arena *arena, struct span *span, unsigned int i)
{
	return segment_data(arena, span->segment) + span->page * ARENA_PAGE +
	       (size_t)i * arena->class[span->class_index].size;
}

/* Take a free slot of the fullest kind: the class's first partial span. */
static bool slot_take(struct arena *arena, struct size_class *class,
		      uint32_t length, struct chunk *chunk)
{
	struct span *span;
	struct slot *slot;

	if (list_empty(&class->partial))
		return false;
	span = container_of(class->partial.next, struct span, link);
	chunk->span = span;
	chunk->index = span->free_head;
	slot = &span->slot[chunk->index];
	span->free_head = slot->entry;
	span->used++;
	class->used++;
	chunk->length = length;
	atomic_store(&slot->leaf, SLOT_PENDING);
	if (span->used == span->slots)
		span_link(arena, span);
	chunk->data = slot_data(arena, span, chunk->index);
	return true;
}

static void slot_release(struct arena *arena, struct span *span,
			 unsigned int index)
{
	struct slot *slot = &span->slot[index];

	atomic_store(&slot->leaf, NULL);
	slot->entry = span->used == span->slots ? SLOT_END : span->free_head;
	span->free_head = index;
	span->used--;
	arena->class[span->class_index].used--;
	if (!span->used && !span->busy)
		span_end(arena, span);
	else if (span->used + 1 == span->slots)
		span_link(arena, span);
}

int arena_alloc(struct arena *arena, uint32_t length, bool guaranteed,
		struct chunk *chunk)
{
	unsigned int index = class_of(length);
	struct size_class *class = &arena->class[index];

	for (;;) {
		bool taken;
		int error;

		pthread_mutex_lock(&arena->lock);
		taken = slot_take(arena, class, length, chunk);
		pthread_mutex_unlock(&arena->lock);
		if (taken)
			return 0;
		error = span_add(arena, index, guaranteed);
		if (error)
			return error;
	}
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
	slot->crc = chunk->crc;
	atomic_store_explicit(&slot->leaf, leaf, memory_order_release);
	return handle_chunk(type, chunk->length, span->segment,
			    (uint32_t)span->page << 12 | chunk->index);
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
	__builtin_prefetch(slot_of(arena, handle));
}

uint32_t arena_crc(struct arena *arena, tmem_handle handle)
{
	return slot_of(arena, handle)->crc;
}

uint16_t *arena_taker(struct arena *arena, tmem_handle handle)
{
	return &slot_of(arena, handle)->taker;
}

/* ------------------------------------------------------------- background */

/*
 * Move one live chunk of @from into another span of its class.  arena->lock is
 * held; the leaf's stripe is only tried: see internal.h.
 */
static bool slot_move(struct arena *arena, struct span *from, unsigned int i)
{
	struct size_class *class = &arena->class[from->class_index];
	struct slot *slot = &from->slot[i];
	struct tmem_leaf *leaf =
		atomic_load_explicit(&slot->leaf, memory_order_acquire);
	struct chunk to;
	tmem_handle handle;

	if (!leaf || leaf == SLOT_PENDING)
		return false;
	if (pthread_mutex_trylock(leaf->stripe))
		return false;
	handle = atomic_load_explicit(&leaf->word[slot->entry],
				      memory_order_relaxed);
	if (!slot_take(arena, class, handle_length(handle), &to)) {
		pthread_mutex_unlock(leaf->stripe);
		return false;
	}
	memcpy(to.data, slot_data(arena, from, i), to.length);
	to.crc = slot->crc;
	to.span->slot[to.index].taker = slot->taker;
	atomic_store_explicit(&leaf->word[slot->entry],
			      arena_publish(arena, &to, handle_type(handle),
					    leaf, slot->entry) |
				      (handle & HANDLE_TAKEN),
			      memory_order_release);
	pthread_mutex_unlock(leaf->stripe);
	slot_release(arena, from, i);
	return true;
}

/* The emptiest of the first few partial spans. */
static struct span *compact_victim(struct size_class *class)
{
	struct span *best = NULL;
	unsigned int tries = 0;

	for (struct list *l = class->partial.prev;
	     l != &class->partial && tries < 16; l = l->prev, tries++) {
		struct span *span = container_of(l, struct span, link);

		if (!span->busy && (!best || span->used < best->used))
			best = span;
	}
	return best;
}

/* Free slots that would be left over if the class were packed: whole spans. */
static bool compact_worthwhile(const struct size_class *class)
{
	return class->spans * class->slots - class->used >= class->slots &&
	       class->spans > 1;
}

/* Pack one class, @max chunks at most.  arena->lock held, and let go of. */
static unsigned int class_compact(struct arena *arena, struct size_class *class,
				  unsigned int max)
{
	unsigned int moved = 0;

	while (moved < max && compact_worthwhile(class)) {
		struct span *from = compact_victim(class);
		unsigned int before = moved;
		bool ended;

		if (!from)
			break;
		/* Out of the list, lest it be its own target. */
		list_del(&from->link);
		from->busy++;
		for (unsigned int i = 0; i < from->slots && moved < max; i++)
			moved += slot_move(arena, from, i);
		from->busy--;
		ended = !from->used;
		if (ended)
			span_end(arena, from);
		else
			span_link(arena, from);
		if (!ended && moved == before)
			break; /* all of it is busy: later */
		/* Let others in between two spans. */
		pthread_mutex_unlock(&arena->lock);
		pthread_mutex_lock(&arena->lock);
	}
	return moved;
}

unsigned int arena_compact(struct arena *arena, unsigned int max)
{
	unsigned int moved = 0;

	pthread_mutex_lock(&arena->lock);
	/* Where the last call stopped, lest the first classes get everything. */
	for (unsigned int i = 0; i < CLASSES && moved < max; i++) {
		moved += class_compact(arena,
				       &arena->class[arena->compact_class],
				       max - moved);
		if (moved < max)
			arena->compact_class =
				(arena->compact_class + 1) % CLASSES;
	}
	pthread_mutex_unlock(&arena->lock);
	return moved;
}

/*
 * How many idle pages to keep.  Overwriting frees pages and takes about as many,
 * and giving them back to take them anew costs more than compressing what they
 * hold.  So what spans took since the last time stays, and that memory is halved
 * every time: some ten steps after the last put it is gone.  Who holds nothing
 * keeps nothing else: what is left of its pages is in that memory.
 */
static uint64_t idle_reserve(struct arena *arena, bool *more)
{
	uint64_t reserve = IDLE_RESERVE_PAGES +
			   atomic_load(&arena->populated_bytes) / ARENA_PAGE /
				   128;

	pthread_mutex_lock(&arena->lock);
	if (list_empty(&arena->spans))
		reserve = 0;
	*more = arena->demand && arena->idle_pages > reserve;
	reserve += arena->demand;
	arena->demand /= 2;
	pthread_mutex_unlock(&arena->lock);
	return reserve;
}

unsigned int arena_punch(struct arena *arena, unsigned int max, bool all)
{
	unsigned int punched = 0;
	bool more = false;
	uint64_t reserve = all ? 0 : idle_reserve(arena, &more);

	while (punched < max) {
		struct segment *segment;
		uint32_t number;
		uint16_t mask;
		unsigned int pages;

		pthread_mutex_lock(&arena->lock);
		if (arena->idle_pages <= reserve || list_empty(&arena->idle)) {
			pthread_mutex_unlock(&arena->lock);
			break;
		}
		segment = container_of(arena->idle.next, struct segment,
				       idle_link);
		number = segment->number;
		mask = segment->populated & ~segment->used;
		pages = __builtin_popcount(mask);
		/* Used while they are punched, so that nobody takes them. */
		segment->used |= mask;
		segment->populated &= ~mask;
		arena->idle_pages -= pages;
		segment_relink(arena, segment);
		pthread_mutex_unlock(&arena->lock);

		punch(arena, number, mask);

		pthread_mutex_lock(&arena->lock);
		segment->used &= ~mask;
		segment_relink(arena, segment);
		atomic_fetch_sub(&arena->populated_bytes,
				 (uint64_t)pages * ARENA_PAGE);
		pthread_mutex_unlock(&arena->lock);
		punched += pages;
	}
	/* Nothing to give back yet, but soon: the caller comes again. */
	return punched ? punched : more;
}

/* Evict what a span holds.  arena->lock held.  True if the span has ended. */
static bool span_evict(struct arena *arena, struct span *span)
{
	bool ended;

	span->busy++;
	for (unsigned int i = 0; i < span->slots; i++) {
		struct slot *slot = &span->slot[i];
		struct tmem_leaf *leaf =
			atomic_load_explicit(&slot->leaf, memory_order_acquire);
		struct tmem_pool *pool;

		if (!leaf || leaf == SLOT_PENDING ||
		    pthread_mutex_trylock(leaf->stripe))
			continue;
		pool = leaf->object->pool;
		atomic_fetch_add(&pool->count.evictions, 1);
		leaf_forget(pool, leaf, slot->entry);
		leaf_unlock_lazy(leaf);
		slot_release(arena, span, i);
	}
	span->busy--;
	ended = !span->used;
	if (ended)
		span_end(arena, span);
	return ended;
}

uint64_t arena_evict(struct arena *arena, uint64_t bytes)
{
	uint64_t freed = 0;
	unsigned int tries = 0;

	while (freed < bytes && tries++ < 1024) {
		struct span *span;
		unsigned int pages;

		pthread_mutex_lock(&arena->lock);
		if (list_empty(&arena->spans)) {
			pthread_mutex_unlock(&arena->lock);
			break;
		}
		span = container_of(arena->spans.next, struct span, age);
		pages = span->pages;
		if (span->busy) {
			pthread_mutex_unlock(&arena->lock);
			break;
		}
		if (span_evict(arena, span)) {
			freed += (uint64_t)pages * ARENA_PAGE;
		} else {
			/* Partly busy: it had its chance, to the end. */
			list_del(&span->age);
			list_add_tail(&arena->spans, &span->age);
		}
		pthread_mutex_unlock(&arena->lock);
	}
	return freed;
}

/* ------------------------------------------------------------------ check */

#define FAULT(...) (snprintf(message, size, __VA_ARGS__), -EUCLEAN)

static int span_check(struct arena *arena, struct span *span, uint16_t *used,
		      char *message, size_t size)
{
	struct segment *segment = segment_of(arena, span->segment);
	unsigned int live = 0, free = 0;

	for (unsigned int i = 0; i < span->slots; i++) {
		struct tmem_leaf *leaf = atomic_load(&span->slot[i].leaf);
		tmem_handle handle;

		if (!leaf)
			continue;
		live++;
		if (leaf == SLOT_PENDING)
			return FAULT("slot pending though no op runs");
		handle = atomic_load(&leaf->word[span->slot[i].entry]);
		if (!handle_has_chunk(handle) ||
		    handle_segment(handle) != span->segment ||
		    handle_slot(handle) != ((uint32_t)span->page << 12 | i) ||
		    class_of(handle_length(handle)) != span->class_index)
			return FAULT("slot's leaf does not name the slot");
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

	for (struct list *l = arena->spans.next; l != &arena->spans;
	     l = l->next) {
		struct span *span = container_of(l, struct span, age);

		metadata += span_bytes(span->slots);
		spans++;
	}
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
			return FAULT("segment %u: pages used %#x, spans %#x, populated %#x",
				     n, segment->used, used,
				     segment->populated);
		populated += __builtin_popcount(segment->populated);
		idle += __builtin_popcount(segment->populated & ~used);
		if (segment->run != longest_run(used))
			return FAULT("segment %u: wrong run", n);
	}
	if (metadata != atomic_load(&arena->span_bytes))
		return FAULT("descriptors of spans miscounted");
	metadata = arena->num_segments * sizeof(struct segment);
	if (spans)
		return FAULT("spans that no segment names");
	if (populated * ARENA_PAGE != atomic_load(&arena->populated_bytes) ||
	    idle != arena->idle_pages)
		return FAULT("populated or idle pages miscounted");
	if (metadata > arena_index_bytes(arena))
		return FAULT("descriptors miscounted");
	return 0;
}
