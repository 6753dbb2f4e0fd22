/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Slotted segments: pages of a small tenant side by side, whatever their sizes
 *
 * Each size class has a span that is not full.  There are 65 of them, so that
 * costs half a MiB, little beside a GiB and a lot beside one MiB.  A slotted
 * segment is a span of 16 pages that takes chunks of all sizes one behind the
 * other, from its begin to its end, and does not fill the holes that they leave.
 * A segment with holes is packed instead: its chunks are copied to the end of
 * others, and all of it is free.  That is how a log-structured store cleans
 * (Rosenblum and Ousterhout, 1992).  The planned way was to slide chunks within
 * their segment; but a chunk that overlaps its new place is in pieces when the
 * process is killed, and who adopts the tenant needs it whole.
 *
 * Copying costs more than holes are worth once a tenant is large, so no put begins
 * one from SLOTTED_PAGES on, and what is packed then goes to size classes, where
 * they have a free slot.  A tenant that becomes small again has spans of size
 * classes that are not full brought here.
 *
 * A word names the place, not the slot: that is what adoption can trust in.
 */
#include <stdio.h>

#include "internal.h"

/* So many are open at most: where a chunk fits none of them, the fullest is closed. */
#define OPEN_MOST 4u
/* Holes that are left alone: a segment's, and, where nobody is in need of them,
 * this part of all segments. */
#define HOLES_PART 16u
/* Victims that are looked at: all, but where memfds were adopted that have more. */
#define VICTIM_TRIES (2 * SLOTTED_PAGES / SEGMENT_PAGES)
/* Tries in a row that moved nothing. */
#define VAIN_MOST 8u
/* Chunks that are moved before others may have arena->lock. */
#define MOVES_LOCKED 32u
/* Pages of a tenant that was large and is small again. */
#define SMALL_AGAIN (SLOTTED_PAGES / 4 * 3)

static unsigned int units_of(uint32_t length)
{
	return (length + UNIT - 1) / UNIT;
}

static struct class_queue *slotted_queue(struct arena *arena)
{
	return &arena->class[CLASS_SLOTTED].queue[QUEUE_SMALL];
}

struct slotted *slotted_of(struct span *span)
{
	return (struct slotted *)&span->slot[span->slots];
}

static bool slotted_fits(uint32_t length)
{
	return length >= SLOTTED_LENGTH_MIN && length <= SLOTTED_LENGTH_MAX;
}

bool slotted_wanted(const struct arena *arena, uint32_t length)
{
	return arena->queue_pages[QUEUE_SMALL] + SEGMENT_PAGES <=
		       SLOTTED_PAGES &&
	       arena->persistent && slotted_fits(length) &&
	       !(arena->tenant->store->flags & TMEM_STORE_SIZE_CLASSES);
}

/*
 * As many as chunks of the present size need, and a quarter.  Where that was too
 * few, the next segment has enough for any: so packing comes to an end, though
 * what it made may be packed again for want of slots.
 */
unsigned int slotted_slots(struct arena *arena)
{
	uint64_t slots = 64;

	if (arena->slotted_short)
		slots = SLOTTED_SLOTS_MAX;
	else if (arena->slotted.live)
		slots = slotted_queue(arena)->used * SEGMENT_UNITS * 5 / 4 /
			arena->slotted.live;
	arena->slotted_short = false;
	return MAX(MIN(slots, SLOTTED_SLOTS_MAX), 32u);
}

/* ------------------------------------------------------------------ slots */

static unsigned int units_left(struct span *span)
{
	return SEGMENT_UNITS - slotted_of(span)->next;
}

/*
 * What was released, and, once it gives out no more, the rest that any chunk
 * would have fitted: a smaller one is as good as used, or full segments would be
 * packed for it again and again.
 */
unsigned int span_holes(struct span *span)
{
	struct slotted *slotted = slotted_of(span);
	unsigned int left = slotted->closed ? units_left(span) : 0;

	if (left < units_of(SLOTTED_LENGTH_MAX))
		left = 0;
	return slotted->next - slotted->live + left;
}

static void slotted_close(struct arena *arena, struct span *span)
{
	struct slotted *slotted = slotted_of(span);

	if (slotted->closed)
		return;
	arena->slotted.holes -= span_holes(span);
	slotted->closed = true;
	arena->slotted.holes += span_holes(span);
	span_link(arena, span);
}

void slotted_end(struct arena *arena, struct span *span)
{
	arena->slotted.holes -= span_holes(span);
}

/*
 * An open segment with room for @units.  Where there is none, and enough are
 * open, the fullest is closed; one each time, if none is opened any more.
 */
static struct span *open_find(struct arena *arena, unsigned int units,
			      unsigned int most)
{
	struct list *partial = &slotted_queue(arena)->partial;
	struct span *fullest = NULL;
	unsigned int open = 0;

	for (struct list *l = partial->next; l != partial; l = l->next) {
		struct span *span = container_of(l, struct span, link);

		if (units_left(span) >= units)
			return span;
		if (!fullest || units_left(span) < units_left(fullest))
			fullest = span;
		open++;
	}
	if (fullest && open >= most)
		slotted_close(arena, fullest);
	return NULL;
}

struct span *slotted_take(struct arena *arena, uint32_t length,
			  unsigned int *index)
{
	unsigned int units = units_of(length);
	struct slotted *slotted;
	struct span *span;

	if (!slotted_fits(length))
		return NULL;
	span = open_find(arena, units,
			 slotted_wanted(arena, length) ? OPEN_MOST : 1);
	if (!span)
		return NULL;
	slotted = slotted_of(span);
	*index = slotted->made++;
	slotted->extent[*index].at = slotted->next;
	slotted->extent[*index].units = units;
	slotted->next += units;
	slotted->live += units;
	arena->slotted.live += units;
	/* What counts as a hole then: span_holes(). */
	if (slotted->made == span->slots)
		arena->slotted_short |=
			units_left(span) >= units_of(SLOTTED_LENGTH_MAX);
	if (slotted->made == span->slots || !units_left(span))
		slotted_close(arena, span);
	return span;
}

void slotted_release(struct arena *arena, struct span *span, unsigned int index)
{
	unsigned int units = slotted_of(span)->extent[index].units;

	slotted_of(span)->live -= units;
	arena->slotted.live -= units;
	arena->slotted.holes += units;
}

unsigned int slotted_index(struct span *span, unsigned int at)
{
	struct slotted *slotted = slotted_of(span);
	unsigned int i = 0;

	/* Some forty, 256 at most, side by side, and no two begin there. */
	while (slotted->extent[i].at != at)
		i++;
	return i;
}

/* ---------------------------------------------------------------- packing */

static bool pack_worthwhile(struct arena *arena, enum pack pack)
{
	uint64_t units = slotted_queue(arena)->spans * SEGMENT_UNITS;

	return arena->slotted.holes >=
	       SEGMENT_UNITS + (pack == PACK_ALL ? 0 : units / HOLES_PART);
}

/* The one with most holes, of a list and @best. */
static struct span *most_holes(struct list *list, struct span *best)
{
	unsigned int tries = 0;

	for (struct list *l = list->next; l != list && tries++ < VICTIM_TRIES;
	     l = l->next) {
		struct span *span = container_of(l, struct span, link);

		if (!span->busy && span_holes(span) &&
		    (!best || span_holes(span) > span_holes(best)))
			best = span;
	}
	return best;
}

/* Has one that is open room for any chunk?  The sum of them all may be in pieces
 * too small for any. */
static bool open_has_room(struct arena *arena)
{
	struct list *partial = &slotted_queue(arena)->partial;

	for (struct list *l = partial->next; l != partial; l = l->next)
		if (units_left(container_of(l, struct span, link)) >=
		    units_of(SLOTTED_LENGTH_MAX))
			return true;
	return false;
}

/*
 * Chunks of @from, which is in no list, go to the end of other slotted segments, or,
 * if @classes, to free slots of theirs: @max at most.  arena->lock held, and let go of.
 */
static unsigned int chunks_pack(struct arena *arena, struct span *from,
				unsigned int max, bool classes)
{
	unsigned int moved = 0;

	for (unsigned int i = 0; i < from->slots && moved < max; i++) {
		unsigned int class_index = CLASS_SLOTTED;

		if (classes)
			class_index = class_of(
				slotted_of(from)->extent[i].units * UNIT);
		if (!slot_move(arena, from, i, class_index))
			continue;
		if (++moved % MOVES_LOCKED == 0)
			arena_let_in(arena);
	}
	return moved;
}

/*
 * One turn: to size classes what a tenant that is large has in a slotted segment, so
 * that it is moved once; else to where room is, which is made if need be.
 */
static unsigned int span_pack_turn(struct arena *arena, struct span *from,
				   unsigned int max, enum need need,
				   bool *failed)
{
	unsigned int moved = 0;

	if (span_slotted(from) && !slotted_wanted(arena, SLOTTED_LENGTH_MIN))
		moved = chunks_pack(arena, from, max, true);
	if (moved)
		return moved;
	if (!open_has_room(arena)) {
		pthread_mutex_unlock(&arena->lock);
		*failed = span_add(arena, CLASS_SLOTTED, QUEUE_SMALL, need);
		arena_lock(arena);
	}
	return *failed ? 0 : chunks_pack(arena, from, max, false);
}

/*
 * All chunks of @from, unless there is no room, @max is reached, or what is left is
 * busy.  arena->lock held, and let go of.
 */
static unsigned int span_pack(struct arena *arena, struct span *from,
			      unsigned int max, enum need need, bool *failed)
{
	unsigned int moved = 0, n;

	if (span_slotted(from))
		slotted_close(arena, from);
	/* Out of the list, lest it be its own target. */
	list_del(&from->link);
	from->busy++;
	do {
		n = span_pack_turn(arena, from, max - moved, need, failed);
		moved += n;
	} while (n && from->used && moved < max);
	from->busy--;
	if (!from->used && !from->busy)
		span_end(arena, from);
	else
		span_link(arena, from);
	arena_let_in(arena);
	return moved;
}

/* Free slots of size classes, in bytes.  arena->lock held. */
static uint64_t classes_free(const struct arena *arena)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < CLASSES; i++) {
		const struct size_class *class = &arena->class[i];
		const struct class_queue *queue = &class->queue[QUEUE_SMALL];

		if (slotted_fits(class->size))
			bytes += (queue->spans * class->slots - queue->used) *
				 class->size;
	}
	return bytes;
}

/* A span of a size class that is not full and whose pages belong here. */
static struct span *left_over(struct arena *arena)
{
	uint64_t pages = arena->queue_pages[QUEUE_SMALL];

	if (pages > SMALL_AGAIN || !slotted_wanted(arena, SLOTTED_LENGTH_MIN) ||
	    classes_free(arena) <
		    SEGMENT_BYTES + pages * ARENA_PAGE / HOLES_PART)
		return NULL;
	for (unsigned int i = 0; i < CLASSES; i++) {
		struct size_class *class = &arena->class[i];
		struct list *partial = &class->queue[QUEUE_SMALL].partial;
		struct span *span;

		if (list_empty(partial) || !slotted_fits(class->size))
			continue;
		span = container_of(partial->next, struct span, link);
		if (!span->busy)
			return span;
	}
	return NULL;
}

static struct span *pack_victim(struct arena *arena, enum pack pack)
{
	if (!pack_worthwhile(arena, pack))
		return left_over(arena);
	return most_holes(&slotted_queue(arena)->partial,
			  most_holes(&arena->class[CLASS_SLOTTED].full, NULL));
}

/* Open segments that got nothing, as others were faster to make room. */
static void unused_end(struct arena *arena)
{
	struct list *partial = &slotted_queue(arena)->partial;

	for (struct list *l = partial->next, *next; l != partial; l = next) {
		struct span *span = container_of(l, struct span, link);

		next = l->next;
		if (!span->used && !span->busy)
			span_end(arena, span);
	}
}

unsigned int slotted_compact(struct arena *arena, unsigned int max,
			     enum pack pack)
{
	enum need need = pack == PACK_ALL ? NEED_PACK : NEED_ROOM;
	unsigned int moved = 0, vain = 0;
	bool failed = false;
	struct span *from;

	/* In vain: what is left of it is busy. */
	while (moved < max && !failed && vain < VAIN_MOST &&
	       (from = pack_victim(arena, pack))) {
		unsigned int n =
			span_pack(arena, from,
				  pack == PACK_STEP ? max - moved : UINT32_MAX,
				  need, &failed);

		moved += n;
		vain = n ? 0 : vain + 1;
		if (pack == PACK_ONE)
			break;
	}
	if (failed || vain)
		unused_end(arena);
	return moved;
}

/* --------------------------------------------------------------- adoption */

bool slotted_adopt(struct arena *arena, struct span *span, unsigned int at,
		   unsigned int units, unsigned int *index)
{
	struct slotted *slotted = slotted_of(span);

	if (slotted->made == span->slots || at + units > SEGMENT_UNITS)
		return false;
	for (unsigned int i = 0; i < slotted->made; i++) {
		struct extent *other = &slotted->extent[i];

		if (at < other->at + other->units && other->at < at + units)
			return false;
	}
	*index = slotted->made++;
	slotted->extent[*index].at = at;
	slotted->extent[*index].units = units;
	slotted->next = MAX(slotted->next, at + units);
	slotted->live += units;
	arena->slotted.live += units;
	return true;
}

/* ------------------------------------------------------------------ check */

static int extents_check(struct span *span, char *message, size_t size)
{
	struct slotted *slotted = slotted_of(span);
	uint8_t taken[SEGMENT_UNITS] = { 0 };
	unsigned int live = 0;

	for (unsigned int i = 0; i < slotted->made; i++) {
		struct extent *extent = &slotted->extent[i];

		if (!atomic_load(&span->slot[i].leaf))
			continue;
		live += extent->units;
		if (extent->at + extent->units > slotted->next)
			return FAULT("slotted segment: a slot behind its end");
		for (unsigned int u = 0; u < extent->units; u++)
			if (taken[extent->at + u]++)
				return FAULT("slotted segment: slots overlap");
	}
	if (live != slotted->live)
		return FAULT("slotted segment: %u units live, not %u", live,
			     slotted->live);
	return 0;
}

int slotted_check(struct arena *arena, struct span *span,
		  struct slotted_units *units, char *message, size_t size)
{
	struct slotted *slotted = slotted_of(span);

	if (slotted->made > span->slots || slotted->next > SEGMENT_UNITS)
		return FAULT("slotted segment: more than it has");
	if (!slotted->closed && list_empty(&span->link))
		return FAULT("slotted segment: open, and in no list");
	if (!arena->persistent)
		return FAULT("slotted segment of ephemeral pages");
	units->live += slotted->live;
	units->holes += span_holes(span);
	return extents_check(span, message, size);
}
