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
	for (unsigned int i = 0; i < CLASSES_ALL; i++)
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

size_t span_bytes(unsigned int class_index, unsigned int slots)
{
	size_t bytes = sizeof(struct span) + slots * sizeof(struct slot);

	if (class_index == CLASS_SLOTTED)
		bytes += sizeof(struct slotted) + slots * sizeof(struct extent);
	return bytes;
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

char *segment_data(struct arena *arena, uint32_t number)
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

/* Looks at a lock, some 10 us. */
#define LOCK_LOOKS 400

/*
 * Who packs sees that somebody waits, and lets go between two spans.  A thread that
 * sleeps takes longer to wake up than a span to pack: look for that long before.
 */
void arena_lock_wait(struct arena *arena)
{
	bool locked = false;

	atomic_fetch_add(&arena->waiting, 1);
	for (unsigned int i = 0; i < LOCK_LOOKS && !locked; i++) {
		cpu_relax();
		locked = !pthread_mutex_trylock(&arena->lock);
	}
	if (!locked)
		pthread_mutex_lock(&arena->lock);
	atomic_fetch_sub(&arena->waiting, 1);
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
	arena_lock(arena);
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

	arena_lock(arena);
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

	arena_lock(arena);
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

int arena_may_grow(struct arena *arena, enum grows grows, uint64_t bytes,
		   enum need need)
{
	if (need == NEED_ROOM)
		return store_has_room(arena->tenant, grows, bytes) ? 0
								   : -ENOSPC;
	if (need == NEED_PACK)
		return store_ask_host(arena->tenant->store, bytes);
	return store_may_grow(arena->tenant, grows, bytes,
			      need == NEED_GUARANTEED);
}

int group_add(struct arena *arena, enum need need)
{
	uint32_t first;
	int error;

	arena_lock(arena);
	first = arena->num_segments;
	pthread_mutex_unlock(&arena->lock);
	if (first >= SEGMENT_MAX)
		return -ENOSPC;
	error = arena_may_grow(arena, arena_index_grows(arena),
			       group_bytes(arena), need);
	return error ? error : group_make(arena, first);
}

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
struct segment *run_find(struct arena *arena, unsigned int pages,
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

/* ------------------------------------------------------------------ slots */

char *slot_data(struct arena *arena, struct span *span, unsigned int i)
{
	char *data = segment_data(arena, span->segment);

	if (span_slotted(span))
		return data + (size_t)slotted_of(span)->extent[i].at * UNIT;
	return data + span->page * ARENA_PAGE +
	       (size_t)i * arena->class[span->class_index].size;
}

uint32_t slot_bytes(unsigned int class_index, uint32_t length)
{
	return class_index == CLASS_SLOTTED ? (length + UNIT - 1) / UNIT * UNIT
					    : class_size(class_index);
}

/* Of the first partial span. */
static struct span *class_take(struct class_queue *queue, unsigned int *index)
{
	struct span *span;

	if (list_empty(&queue->partial))
		return NULL;
	span = container_of(queue->partial.next, struct span, link);
	*index = span->free_head;
	span->free_head = span->slot[*index].entry;
	return span;
}

/* It gets a page that recompression has not looked at. */
static void span_unsettle(struct arena *arena, struct span *span)
{
	span->filled = true;
	if (!span->settled)
		return;
	span->settled = false;
	list_del(&span->age);
	list_add_tail(&arena->spans[QUEUE_SMALL], &span->age);
}

bool slot_take(struct arena *arena, unsigned int class_index, uint32_t length,
	       struct chunk *chunk)
{
	struct class_queue *queue =
		&arena->class[class_index].queue[chunk->queue];
	struct span *span;
	unsigned int index;
	struct slot *slot;

	span = class_index == CLASS_SLOTTED
		       ? slotted_take(arena, length, &index)
		       : class_take(queue, &index);
	if (!span)
		return false;
	chunk->span = span;
	chunk->index = index;
	slot = &span->slot[index];
	span->used++;
	queue->used++;
	chunk->length = length;
	chunk->age = chunk->queue == QUEUE_MAIN ? HANDLE_MAIN : 0;
	if (!arena->persistent && span_old(arena, span))
		chunk->age |= HANDLE_YOUNG;
	atomic_store(&slot->leaf, SLOT_PENDING);
	if (span->used == span->slots && !span_slotted(span))
		span_link(arena, span);
	chunk->data = slot_data(arena, span, chunk->index);
	if (!chunk->tried)
		span_unsettle(arena, span);
	return true;
}

void slot_release(struct arena *arena, struct span *span, unsigned int index)
{
	struct slot *slot = &span->slot[index];

	atomic_store(&slot->leaf, 0);
	if (span_slotted(span)) {
		slotted_release(arena, span, index);
	} else {
		slot->entry =
			span->used == span->slots ? SLOT_END : span->free_head;
		span->free_head = index;
	}
	span->used--;
	arena->class[span->class_index].queue[span->queue].used--;
	/* One in no list is what compaction or eviction empties. */
	if (!span->used && !span->busy)
		span_end(arena, span);
	else if (span->used + 1 == span->slots && !span_slotted(span) &&
		 !list_empty(&span->link))
		span_link(arena, span);
}

/* Whatever has a free slot for it; else *@class_index is what needs a span. */
static bool slot_take_any(struct arena *arena, uint32_t length,
			  struct chunk *chunk, unsigned int *class_index)
{
	struct class_queue *slotted =
		&arena->class[CLASS_SLOTTED].queue[QUEUE_SMALL];
	bool taken;

	arena_lock(arena);
	*class_index = class_of(length);
	taken = (!list_empty(&slotted->partial) &&
		 slot_take(arena, CLASS_SLOTTED, length, chunk)) ||
		slot_take(arena, *class_index, length, chunk);
	if (!taken && slotted_wanted(arena, length))
		*class_index = CLASS_SLOTTED;
	pthread_mutex_unlock(&arena->lock);
	return taken;
}

static int slot_alloc(struct arena *arena, uint32_t length, enum need need,
		      struct chunk *chunk)
{
	unsigned int index;
	int error = 0;

	if (arena->persistent)
		chunk->queue = QUEUE_SMALL;
	while (!error && !slot_take_any(arena, length, chunk, &index)) {
		/* Holes are for who needs them, not for the next step alone. */
		if (index == CLASS_SLOTTED && arena_pack(arena) &&
		    slot_take_any(arena, length, chunk, &index))
			break;
		error = span_add(arena, index, chunk->queue, need);
		/* A whole segment is more than there is room for. */
		if (error == -ENOSPC && index == CLASS_SLOTTED)
			error = span_add(arena, class_of(length), chunk->queue,
					 need);
	}
	/* Making room in vain may have left some in the segment packed to. */
	if (error == -ENOSPC && slot_take_any(arena, length, chunk, &index))
		error = 0;
	return error;
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
	chunk->tried = true;
	return slot_alloc(arena, length, NEED_ROOM, chunk);
}

void arena_abort(struct arena *arena, struct chunk *chunk)
{
	arena_lock(arena);
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
	if (span_slotted(span))
		return handle_slotted_chunk(
			type, chunk->length, span->segment,
			slotted_of(span)->extent[chunk->index].at);
	return handle_chunk(type, chunk->length, span->segment,
			    (uint32_t)span->page << 12 | chunk->index) |
	       chunk->age;
}

static struct span *handle_span(struct arena *arena, tmem_handle handle)
{
	return segment_of(arena, handle_segment(handle))
		->span[handle_slot(handle) >> 12];
}

/* arena->lock held. */
static unsigned int slot_index(struct span *span, tmem_handle handle)
{
	unsigned int index = handle_slot(handle) & 0xfff;

	return span_slotted(span) ? slotted_index(span, index) : index;
}

/* arena->lock held. */
static struct slot *slot_of(struct arena *arena, tmem_handle handle)
{
	struct span *span = handle_span(arena, handle);

	return &span->slot[slot_index(span, handle)];
}

void arena_free(struct arena *arena, tmem_handle handle)
{
	struct span *span;

	arena_lock(arena);
	span = handle_span(arena, handle);
	slot_release(arena, span, slot_index(span, handle));
	pthread_mutex_unlock(&arena->lock);
}

uint64_t arena_offset(tmem_handle handle)
{
	uint64_t segment = (uint64_t)handle_segment(handle) * SEGMENT_BYTES;
	uint32_t slot = handle_slot(handle);

	if (handle & HANDLE_SLOTTED)
		return segment + slot * UNIT;
	return segment + (slot >> 12) * ARENA_PAGE +
	       (slot & 0xfff) * class_size(class_of(handle_length(handle)));
}

const char *arena_data(struct arena *arena, tmem_handle handle)
{
	/*
	 * No arena->lock: the handle is live, so its span neither moves nor
	 * ends while the leaf's stripe is held, and regions never go away.
	 * The class follows from the length: neither the segment's nor the
	 * span's descriptor, both cold in a random get, is looked at.
	 */
	uint64_t offset = arena_offset(handle);

	return arena->region[offset / REGION_BYTES]->data +
	       offset % REGION_BYTES;
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
	/* Which slot of a slotted segment takes a look at it to know. */
	if (!(handle & HANDLE_SLOTTED))
		__builtin_prefetch(&span->slot[handle_slot(handle) & 0xfff], 1);
}

void arena_move_leaf(struct arena *arena, const struct tmem_leaf *old,
		     struct tmem_leaf *leaf)
{
	arena_lock(arena);
	for (unsigned int i = 0; i < old->capacity; i++) {
		tmem_handle handle = atomic_load(&leaf->word[i]);

		if (handle_has_chunk(handle))
			atomic_store(&slot_of(arena, handle)->leaf, leaf->self);
	}
	pthread_mutex_unlock(&arena->lock);
}

uint16_t *arena_taker(struct arena *arena, tmem_handle handle)
{
	struct slot *slot;

	arena_lock(arena);
	slot = slot_of(arena, handle);
	pthread_mutex_unlock(&arena->lock);
	return &slot->taker;
}

/* ------------------------------------------------------------------ check */

/* Does the word name slot @i of the span? */
static bool names_slot(tmem_handle handle, struct span *span, unsigned int i)
{
	if (!handle_has_chunk(handle) ||
	    handle_segment(handle) != span->segment ||
	    span_slotted(span) != !!(handle & HANDLE_SLOTTED))
		return false;
	if (!span_slotted(span))
		return handle_slot(handle) ==
			       ((uint32_t)span->page << 12 | i) &&
		       class_of(handle_length(handle)) == span->class_index;
	return handle_slot(handle) == slotted_of(span)->extent[i].at &&
	       slot_bytes(CLASS_SLOTTED, handle_length(handle)) ==
		       slotted_of(span)->extent[i].units * UNIT;
}

/* As many as are not in use. */
static int free_slots_check(struct span *span, unsigned int live, char *message,
			    size_t size)
{
	unsigned int free = 0;

	for (unsigned int i = span->free_head;
	     span->used < span->slots && i != SLOT_END && free < span->slots;
	     i = span->slot[i].entry)
		free++;
	if (live + free != span->slots)
		return FAULT("span: %u live, %u free of %u", live, free,
			     span->slots);
	return 0;
}

static int span_check(struct arena *arena, struct span *span, uint16_t *used,
		      struct slotted_units *units, char *message, size_t size)
{
	struct segment *segment = segment_of(arena, span->segment);
	unsigned int live = 0;
	int error;

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
		if (!names_slot(handle, span, i))
			return FAULT("slot's leaf does not name the slot");
		if (arena->persistent && handle & HANDLE_MAIN)
			return FAULT("a persistent page with an age");
	}
	if (live != span->used)
		return FAULT("span: %u live, %u used", live, span->used);
	error = span_slotted(span)
			? slotted_check(arena, span, units, message, size)
			: free_slots_check(span, live, message, size);
	if (error)
		return error;
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
	struct slotted_units units = { 0 };

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
			error = span_check(arena, span, &used, &units, message,
					   size);
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
	if (memcmp(&units, &arena->slotted, sizeof(units)))
		return FAULT("units of slotted segments miscounted");
	if (populated * ARENA_PAGE != atomic_load(&arena->populated_bytes) ||
	    idle != arena->idle_pages)
		return FAULT("populated or idle pages miscounted");
	return cells_check(arena, message, size);
}
