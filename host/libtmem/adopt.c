/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Going on with a tenant's memfds after the process that had them was killed,
 * at whatever instant
 *
 * What counts is: the table of pools; an object that is live and of a pool of
 * that generation; a leaf that is live and of such an object; a word of such a
 * leaf; the checksum beside it, and the bytes that it names.  Everything else
 * is made anew from these: which cells, slots and pages are free, and all
 * counters.
 *
 * None of it is believed: another process wrote it, and memory may be damaged.
 * Numbers are checked before they are used, so that whatever stands there gives
 * wrong pages, which their checksums tell, or an error, and nothing worse.  A
 * word that names what cannot be, or what another word has, becomes
 * HANDLE_LOST, an error to who reads it, as a miss would be a lie.
 */
#include <stdio.h>
#include <unistd.h>

#include "internal.h"

/* ------------------------------------------------------------------- data */

/* Pages [from, to) of the memfd have memory. */
static void pages_found(struct arena *arena, uint64_t from, uint64_t to)
{
	atomic_fetch_add(&arena->populated_bytes, (to - from) * ARENA_PAGE);
	for (uint64_t page = from; page < to; page++)
		segment_of(arena, page / SEGMENT_PAGES)->populated |=
			1u << page % SEGMENT_PAGES;
}

/* Descriptors for segments up to @to. */
static int groups_make(struct arena *arena, uint64_t to)
{
	int error = 0;

	while (!error && (uint64_t)arena->num_segments * SEGMENT_BYTES < to)
		error = group_make(arena, arena->num_segments);
	return error;
}

/* Which pages of the memfd have memory. */
static int data_scan(struct arena *arena)
{
	off_t size = lseek(arena->fd, 0, SEEK_END), from = 0, to;
	int error = 0;

	if (size < 0 || size % ARENA_PAGE ||
	    size > (off_t)SEGMENT_MAX * (off_t)SEGMENT_BYTES)
		return -EUCLEAN;
	while (!error && (from = lseek(arena->fd, from, SEEK_DATA)) >= 0 &&
	       from < size) {
		to = lseek(arena->fd, from, SEEK_HOLE);
		if (to <= from || to > size)
			return -EUCLEAN;
		error = groups_make(arena, to);
		if (!error)
			pages_found(arena, from / ARENA_PAGE, to / ARENA_PAGE);
		from = to;
	}
	return error;
}

/* The span that a chunk of @class at @page of a segment is in; made if there is
 * none.  NULL: there cannot be one; *@error, or 0. */
static struct span *span_adopt(struct arena *arena, uint32_t number,
			       unsigned int page, unsigned int class_index,
			       int *error)
{
	struct segment *segment = segment_of(arena, number);
	struct size_class *class = &arena->class[class_index];
	/* How many are named is not known before the last is: slots_rebuild(). */
	unsigned int slots =
		class_index == CLASS_SLOTTED ? SLOTTED_SLOTS_MAX : class->slots;
	struct span *span = segment->span[page];
	uint16_t mask, missing;

	if (span)
		return span->page == page && span->class_index == class_index
			       ? span
			       : NULL;
	if (page + class->pages > SEGMENT_PAGES)
		return NULL;
	mask = run_mask(page, class->pages);
	if (segment->used & mask)
		return NULL;
	/* Of others' slots; a read would give them memory nobody counts. */
	missing = mask & ~segment->populated;
	if (missing && segment_populate(arena, number, missing)) {
		*error = -ENOMEM;
		return NULL;
	}
	segment->populated |= missing;
	atomic_fetch_add(&arena->populated_bytes,
			 (uint64_t)__builtin_popcount(missing) * ARENA_PAGE);
	span = span_new(arena, class_index, slots, number, page);
	if (!span) {
		*error = -ENOMEM;
		return NULL;
	}
	segment->used |= mask;
	for (unsigned int i = 0; i < class->pages; i++)
		segment->span[page + i] = span;
	if (span_slotted(span))
		slotted_of(span)->closed = true;
	atomic_fetch_add(&arena->span_bytes, span_size(span));
	span_enqueue(arena, span, QUEUE_SMALL);
	return span;
}

/* Are all pages there that the slot is in?  If not, its bytes are gone. */
static bool slot_has_memory(struct arena *arena, tmem_handle handle,
			    uint32_t length)
{
	uint64_t from = arena_offset(handle) -
			(uint64_t)handle_segment(handle) * SEGMENT_BYTES;
	uint64_t first = from / ARENA_PAGE;
	uint64_t last = (from + length - 1) / ARENA_PAGE;
	uint16_t mask;

	if (last >= SEGMENT_PAGES)
		return false;
	mask = run_mask(first, last - first + 1);
	return (segment_of(arena, handle_segment(handle))->populated & mask) ==
	       mask;
}

static bool length_valid(unsigned int type, uint32_t length, uint32_t page_size)
{
	if (type == HANDLE_RAW)
		return length == page_size;
	if (type == HANDLE_OPAQUE)
		return length && length <= page_size;
	return length && length < page_size;
}

/* The span and slot that a handle names, if there can be such. */
static struct span *slot_find(struct arena *arena, tmem_handle handle,
			      unsigned int *index, int *error)
{
	unsigned int page = handle_slot(handle) >> 12;
	unsigned int at = handle_slot(handle) & 0xfff;
	uint32_t length = handle_length(handle);
	struct span *span;

	if (handle & HANDLE_SLOTTED) {
		if (page || length < SLOTTED_LENGTH_MIN ||
		    length > SLOTTED_LENGTH_MAX)
			return NULL;
		span = span_adopt(arena, handle_segment(handle), 0,
				  CLASS_SLOTTED, error);
		return span && slotted_adopt(arena, span, at,
					     slot_bytes(CLASS_SLOTTED, length) /
						     UNIT,
					     index)
			       ? span
			       : NULL;
	}
	if (at >= arena->class[class_of(length)].slots)
		return NULL;
	*index = at;
	span = span_adopt(arena, handle_segment(handle), page, class_of(length),
			  error);
	return span && !atomic_load(&span->slot[at].leaf) ? span : NULL;
}

/* The slot that a handle names is that word's, if it can be. */
static bool slot_adopt(const struct tmem_pool *pool, tmem_handle handle,
		       struct tmem_leaf *leaf, unsigned int entry, int *error)
{
	struct arena *arena = pool->arena;
	uint32_t length = handle_length(handle);
	unsigned int index;
	struct span *span;

	if (handle & HANDLE_MAIN)
		return false;
	if (!length_valid(handle_type(handle), length, pool->page_size))
		return false;
	if (pool->opaque != (handle_type(handle) == HANDLE_OPAQUE))
		return false;
	if (handle_segment(handle) >= arena->num_segments ||
	    !slot_has_memory(arena, handle, length))
		return false;
	span = slot_find(arena, handle, &index, error);
	if (!span)
		return false;
	atomic_store(&span->slot[index].leaf, leaf->self);
	span->slot[index].entry = entry;
	span->used++;
	arena->class[span->class_index].queue[QUEUE_SMALL].used++;
	return true;
}

static void slots_free(struct span *span)
{
	span->free_head = SLOT_END;
	for (unsigned int i = span->slots; i-- > 0;) {
		if (atomic_load(&span->slot[i].leaf))
			continue;
		span->slot[i].entry = span->free_head;
		span->free_head = i;
	}
}

/* A slotted segment's span with as many slots as it has, in @span's place.  That
 * itself, if there is no memory for one. */
static struct span *slots_trim(struct arena *arena, struct span *span)
{
	struct segment *segment = segment_of(arena, span->segment);
	unsigned int slots = slotted_of(span)->made;
	struct span *trimmed =
		span_new(arena, CLASS_SLOTTED, slots, span->segment, 0);

	if (!trimmed)
		return span;
	trimmed->used = span->used;
	memcpy(trimmed->slot, span->slot, slots * sizeof(struct slot));
	memcpy(slotted_of(trimmed), slotted_of(span),
	       sizeof(struct slotted) + slots * sizeof(struct extent));
	for (unsigned int i = 0; i < SEGMENT_PAGES; i++)
		segment->span[i] = trimmed;
	/* In the same place of the list; its counters are those of the other. */
	list_add_tail(&span->age, &trimmed->age);
	list_del(&span->age);
	atomic_fetch_sub(&arena->span_bytes,
			 span_size(span) - span_size(trimmed));
	store_free(arena->tenant->store, span);
	return trimmed;
}

/* Slots that no word names are free. */
static void slots_rebuild(struct arena *arena)
{
	struct list *spans = &arena->spans[QUEUE_SMALL];

	for (struct list *l = spans->next; l != spans; l = l->next) {
		struct span *span = container_of(l, struct span, age);

		if (span_slotted(span)) {
			span = slots_trim(arena, span);
			arena->slotted.holes += span_holes(span);
			l = &span->age;
		} else {
			slots_free(span);
		}
		span_link(arena, span);
	}
	for (uint32_t n = 0; n < arena->num_segments; n++) {
		struct segment *segment = segment_of(arena, n);

		arena->idle_pages +=
			__builtin_popcount(segment->populated & ~segment->used);
		segment_relink(arena, segment);
	}
}

/* ------------------------------------------------------------------ index */

/* An object of one of the tenant's pools, which no other has the name of. */
static bool object_valid(struct tmem_tenant *tenant, struct tmem_object *object,
			 uint32_t cell)
{
	struct tmem_pool *pool;

	if (atomic_load(&object->state) != CELL_LIVE ||
	    object->pool_id >= TMEM_MAX_POOLS)
		return false;
	pool = tenant->pool[object->pool_id];
	if (!pool || pool->generation != object->generation ||
	    !pool->arena->persistent)
		return false;
	object->self = cell;
	object->pool = pool;
	object->pins = 0;
	object->levels = 0;
	object->root = NULL;
	atomic_store(&object->pages, 0);
	return !object_adopt(pool, object);
}

static void objects_scan(struct tmem_tenant *tenant)
{
	struct arena *arena = &tenant->persistent;
	uint32_t cell = 0;

	while ((cell = cell_next(arena, cell + 1))) {
		struct tmem_object *object = cell_at(&arena->cells, cell);

		if (cell_kind(arena, cell) == CELL_OBJECT &&
		    !object_valid(tenant, object, cell))
			atomic_store(&object->state, CELL_FREE);
	}
}

static bool is_leaf(struct arena *arena, uint32_t cell)
{
	return cell_exists(arena, cell) &&
	       cell_kind(arena, cell) != CELL_OBJECT;
}

/* Is there another leaf, or one that was live last, with the same indexes? */
static bool leaf_redundant(struct arena *arena, struct tmem_object *object,
			   struct tmem_leaf *leaf)
{
	struct tmem_leaf *old;

	if (radix_find(object, leaf->number))
		return true;
	if (atomic_load(&leaf->state) != CELL_COPY ||
	    !is_leaf(arena, leaf->next))
		return false;
	old = cell_at(&arena->cells, leaf->next);
	return old != leaf && atomic_load(&old->state) == CELL_LIVE &&
	       old->object == leaf->object && old->number == leaf->number;
}

/* What the word says of a page, as far as it can be. */
static tmem_handle word_adopt(struct tmem_object *object,
			      struct tmem_leaf *leaf, unsigned int entry,
			      int *error)
{
	tmem_handle handle = atomic_load(&leaf->word[entry]) & ~HANDLE_PRIVATE;
	struct tmem_pool *pool = object->pool;

	if (handle == HANDLE_EMPTY)
		return handle;
	if (handle_type(handle) == HANDLE_SAME && !pool->opaque)
		return handle_same((uint32_t)handle);
	if (handle_has_chunk(handle) &&
	    slot_adopt(pool, handle, leaf, entry, error))
		return handle;
	return handle_lost();
}

/* 0, and the leaf is the object's or no leaf any more; -ENOMEM. */
static int leaf_adopt(struct arena *arena, struct tmem_leaf *leaf,
		      uint32_t cell)
{
	struct tmem_object *object;
	int error = 0;

	object = cell_at(&arena->cells, leaf->object);
	leaf->capacity = leaf_capacity(cell_kind(arena, cell));
	leaf->self = cell;
	leaf->used = 0;
	leaf->queued = false;
	for (unsigned int i = 0; i < leaf->capacity; i++) {
		tmem_handle handle = word_adopt(object, leaf, i, &error);

		if (error)
			return error;
		atomic_store(&leaf->word[i], handle);
		if (handle != HANDLE_EMPTY)
			leaf_count(object, leaf, handle, 0);
	}
	if (!leaf->used) {
		atomic_store(&leaf->state, CELL_FREE);
		return 0;
	}
	error = radix_insert(object, leaf);
	if (!error)
		atomic_store(&leaf->state, CELL_LIVE);
	return error;
}

static bool leaf_valid(struct arena *arena, struct tmem_leaf *leaf)
{
	uint8_t state = atomic_load(&leaf->state);
	struct tmem_object *object;

	if ((state != CELL_LIVE && state != CELL_COPY) ||
	    leaf->number > UINT64_MAX >> LEAF_SHIFT ||
	    !cell_exists(arena, leaf->object) ||
	    cell_kind(arena, leaf->object) != CELL_OBJECT)
		return false;
	object = cell_at(&arena->cells, leaf->object);
	return atomic_load(&object->state) == CELL_LIVE &&
	       !leaf_redundant(arena, object, leaf);
}

static int leaves_scan(struct arena *arena)
{
	uint32_t cell = 0;
	int error = 0;

	while (!error && (cell = cell_next(arena, cell + 1))) {
		struct tmem_leaf *leaf = cell_at(&arena->cells, cell);

		if (!is_leaf(arena, cell))
			continue;
		if (leaf_valid(arena, leaf))
			error = leaf_adopt(arena, leaf, cell);
		else
			atomic_store(&leaf->state, CELL_FREE);
	}
	return error;
}

/* An object without a page is nobody's. */
static void objects_prune(struct arena *arena)
{
	uint32_t cell = 0;

	while ((cell = cell_next(arena, cell + 1))) {
		struct tmem_object *object = cell_at(&arena->cells, cell);

		if (cell_kind(arena, cell) != CELL_OBJECT ||
		    atomic_load(&object->state) != CELL_LIVE || object->root)
			continue;
		object->pins = 1;
		object_put(object);
	}
}

int adopt(struct tmem_tenant *tenant)
{
	struct arena *arena = &tenant->persistent;
	int error = cells_scan(arena);

	if (!error &&
	    memcmp(cells_root(arena)->name, tenant->name, sizeof(tenant->name)))
		error = -ESTALE;
	if (!error && memfd_id(arena->fd) != cells_root(arena)->data_id)
		error = -EUCLEAN;
	for (uint32_t id = 0; id < TMEM_MAX_POOLS && !error; id++)
		error = pool_adopt(tenant, id);
	if (!error)
		error = data_scan(arena);
	if (error)
		return error;
	objects_scan(tenant);
	error = leaves_scan(arena);
	if (error)
		return error;
	slots_rebuild(arena);
	cells_rebuild(arena);
	objects_prune(arena);
	return 0;
}
