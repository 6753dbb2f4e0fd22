/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory back: compaction within a class, punching of pages that belong to no
 * span
 *
 * Compaction, as eviction, knows a chunk and wants its leaf, against the order
 * of locks: it only tries, and leaves alone what is busy.
 */
#include "internal.h"

/*
 * Populated pages kept in reserve rather than given back: 32 + 1/128, and what
 * spans took lately (arena->demand).
 */
#define IDLE_RESERVE_PAGES 32
#define IDLE_RESERVE_PART  128

struct tmem_leaf *slot_leaf_trylock(struct arena *arena, struct slot *slot,
				    pthread_mutex_t **stripe)
{
	uint32_t cell = atomic_load_explicit(&slot->leaf, memory_order_acquire);
	struct tmem_leaf *leaf;

	if (!cell || cell == SLOT_PENDING)
		return NULL;
	leaf = cell_at(&arena->cells, cell);
	*stripe = leaf_stripe(leaf_object(arena, leaf)->pool, leaf);
	return pthread_mutex_trylock(*stripe) ? NULL : leaf;
}

bool slot_copy(struct arena *arena, struct span *from, unsigned int i,
	       unsigned int class_index, struct tmem_leaf *leaf,
	       unsigned int queue, tmem_handle keep)
{
	struct slot *slot = &from->slot[i];
	tmem_handle handle = atomic_load_explicit(&leaf->word[slot->entry],
						  memory_order_relaxed);
	struct chunk to = { .queue = queue };
	tmem_handle used = 0;

	if (!slot_take(arena, class_index, handle_length(handle), &to))
		return false;
	/* Packed segments are new, and looked at sooner than the page should be. */
	if (class_index == CLASS_SLOTTED)
		used = HANDLE_VISITED;
	/* Who keeps its age has more of it only where it came later. */
	if (keep && (int32_t)(to.span->number - from->number) > 0)
		to.age &= ~HANDLE_YOUNG;
	memcpy(to.data, slot_data(arena, from, i), to.length);
	to.span->slot[to.index].taker = slot->taker;
	atomic_store_explicit(&leaf->word[slot->entry],
			      arena_publish(arena, &to, handle_type(handle),
					    leaf, slot->entry) |
				      (handle & (HANDLE_TAKEN | keep)) | used,
			      memory_order_release);
	return true;
}

/*
 * Move one live chunk of @from into another span of a class, and of its queue.
 * arena->lock is held; the leaf's stripe is only tried: see internal.h.  What
 * an ephemeral page's age is goes with it.
 */
bool slot_move(struct arena *arena, struct span *from, unsigned int i,
	       unsigned int class_index)
{
	struct slot *slot = &from->slot[i];
	pthread_mutex_t *stripe;
	struct tmem_leaf *leaf = slot_leaf_trylock(arena, slot, &stripe);
	bool moved;

	if (!leaf)
		return false;
	moved = slot_copy(arena, from, i, class_index, leaf, from->queue,
			  HANDLE_AGE);
	pthread_mutex_unlock(stripe);
	if (moved)
		slot_release(arena, from, i);
	return moved;
}

/* The emptiest of the last few partial spans. */
static struct span *compact_victim(struct class_queue *queue)
{
	struct span *best = NULL;
	unsigned int tries = 0;

	for (struct list *l = queue->partial.prev;
	     l != &queue->partial && tries < 16; l = l->prev, tries++) {
		struct span *span = container_of(l, struct span, link);

		if (!span->busy && (!best || span->used < best->used))
			best = span;
	}
	return best;
}

/* Free slots that would be left over if the class were packed: whole spans. */
static bool compact_worthwhile(const struct size_class *class,
			       const struct class_queue *queue)
{
	return queue->spans * class->slots - queue->used >= class->slots &&
	       queue->spans > 1;
}

/* Looks at who waits: some 50 us, if nobody comes. */
#define LET_IN_LOOKS 2000

/*
 * Let others in between two spans.  Who waits for a mutex is asleep, and takes tens
 * of microseconds to wake up; whoever unlocks it and locks it again has it by then,
 * span after span.  So it is left until nobody waits.
 */
void arena_let_in(struct arena *arena)
{
	pthread_mutex_unlock(&arena->lock);
	for (unsigned int i = 0;
	     i < LET_IN_LOOKS &&
	     atomic_load_explicit(&arena->waiting, memory_order_relaxed);
	     i++)
		cpu_relax();
	pthread_mutex_lock(&arena->lock);
}

/*
 * Pack a class's spans of one queue, @max chunks at most.  arena->lock held,
 * and let go of.
 */
static unsigned int queue_compact(struct arena *arena, struct size_class *class,
				  struct class_queue *queue, unsigned int max)
{
	unsigned int moved = 0;

	while (moved < max && compact_worthwhile(class, queue)) {
		struct span *from = compact_victim(queue);
		unsigned int before = moved;
		bool ended;

		if (!from)
			break;
		/* Out of the list, lest it be its own target. */
		list_del(&from->link);
		from->busy++;
		for (unsigned int i = 0; i < from->slots && moved < max; i++)
			moved += slot_move(arena, from, i, from->class_index);
		from->busy--;
		ended = !from->used;
		if (ended)
			span_end(arena, from);
		else
			span_link(arena, from);
		if (!ended && moved == before)
			break; /* all of it is busy: later */
		arena_let_in(arena);
	}
	return moved;
}

static unsigned int class_compact(struct arena *arena, struct size_class *class,
				  unsigned int max)
{
	unsigned int moved = 0;

	for (unsigned int q = 0; q < QUEUES && moved < max; q++)
		moved += queue_compact(arena, class, &class->queue[q],
				       max - moved);
	return moved;
}

bool arena_pack(struct arena *arena)
{
	bool packed;

	arena_lock(arena);
	packed = slotted_compact(arena, UINT32_MAX, PACK_ONE);
	pthread_mutex_unlock(&arena->lock);
	return packed;
}

unsigned int arena_compact(struct arena *arena, unsigned int max, bool all)
{
	unsigned int moved = 0;

	pthread_mutex_lock(&arena->lock);
	moved = slotted_compact(arena, max, all ? PACK_ALL : PACK_STEP);
	/* Where the last call stopped, lest the first classes get everything.
	 */
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
 * How many idle pages to keep.  Overwriting frees pages and takes about as
 * many, and giving them back to take them anew costs more than compressing what
 * they hold.  So what spans took since the last time stays, and that memory is
 * halved every time: some ten steps after the last put it is gone.  Who holds
 * nothing keeps nothing else: what is left of its pages is in that memory.
 */
static uint64_t idle_reserve(struct arena *arena, bool *more)
{
	uint64_t reserve =
		IDLE_RESERVE_PAGES + atomic_load(&arena->populated_bytes) /
					     ARENA_PAGE / IDLE_RESERVE_PART;

	pthread_mutex_lock(&arena->lock);
	if (!arena->queue_pages[QUEUE_SMALL] && !arena->queue_pages[QUEUE_MAIN])
		reserve = 0;
	*more = arena->demand && arena->idle_pages > reserve;
	reserve += arena->demand;
	arena->demand /= 2;
	pthread_mutex_unlock(&arena->lock);
	return reserve;
}

/*
 * Idle pages of neighbours in one group.  A hole in what is mapped has all CPUs
 * forget what they know of the mapping, which is dear: one call for what lies in
 * one piece, and a group that is mostly idle is unmapped at once, before.
 */
struct punch {
	uint32_t first;
	unsigned int count, pages;
	bool unmap; /* the group, first */
	uint16_t mask[GROUP_SEGMENTS];
};

/*
 * Is most of what a group has idle?  Else those who use the rest would take
 * more faults than this saves.  Once is enough until it gets memory again.
 * arena->lock held.
 */
static bool group_unmaps(struct arena *arena, uint32_t number)
{
	struct segment *segment =
		segment_of(arena, number - number % GROUP_SEGMENTS);
	unsigned int idle = 0, used = 0;
	bool mapped = false;

	for (unsigned int i = 0; i < GROUP_SEGMENTS; i++) {
		uint16_t populated = segment[i].populated;

		idle += __builtin_popcount(populated & ~segment[i].used);
		used += __builtin_popcount(populated & segment[i].used);
		mapped |= populated && !segment[i].unmapped;
	}
	if (!mapped || idle < 3 * used)
		return false;
	for (unsigned int i = 0; i < GROUP_SEGMENTS; i++)
		segment[i].unmapped = true;
	return true;
}

/* arena->lock held. */
static void punch_claim(struct arena *arena, struct punch *punch,
			uint64_t reserve, unsigned int max)
{
	struct segment *segment;

	if (list_empty(&arena->idle) || arena->idle_pages <= reserve)
		return;
	segment = container_of(arena->idle.next, struct segment, idle_link);
	punch->first = segment->number;
	punch->unmap = group_unmaps(arena, punch->first);
	while (segment->idle && arena->idle_pages > reserve &&
	       punch->pages < max) {
		uint16_t mask = segment->populated & ~segment->used;

		/* Used while they are punched, so that nobody takes them. */
		segment->used |= mask;
		segment->populated &= ~mask;
		arena->idle_pages -= __builtin_popcount(mask);
		segment_relink(arena, segment);
		punch->mask[punch->count++] = mask;
		punch->pages += __builtin_popcount(mask);
		if ((punch->first + punch->count) % GROUP_SEGMENTS == 0)
			break;
		segment = segment_of(arena, punch->first + punch->count);
	}
}

/* They are punched, and anybody's.  arena->lock held. */
static void punch_settle(struct arena *arena, const struct punch *punch)
{
	for (unsigned int i = 0; i < punch->count; i++) {
		struct segment *segment = segment_of(arena, punch->first + i);

		segment->used &= ~punch->mask[i];
		segment_relink(arena, segment);
	}
	atomic_fetch_sub(&arena->populated_bytes,
			 (uint64_t)punch->pages * ARENA_PAGE);
}

unsigned int arena_punch(struct arena *arena, unsigned int max, bool all)
{
	unsigned int punched = 0;
	bool more = false;
	uint64_t reserve = all ? 0 : idle_reserve(arena, &more);

	if (all) {
		/* Nor is any taken ahead: somebody else wants it. */
		pthread_mutex_lock(&arena->lock);
		arena->grown = 0;
		pthread_mutex_unlock(&arena->lock);
	}

	while (punched < max) {
		struct punch punch = { 0 };

		pthread_mutex_lock(&arena->lock);
		punch_claim(arena, &punch, reserve, max - punched);
		pthread_mutex_unlock(&arena->lock);
		if (!punch.pages)
			break;

		if (punch.unmap)
			group_unmap(arena, punch.first);
		segments_punch(arena, punch.first, punch.mask, punch.count);

		pthread_mutex_lock(&arena->lock);
		punch_settle(arena, &punch);
		pthread_mutex_unlock(&arena->lock);
		punched += punch.pages;
	}
	if (punched < max)
		punched += cells_punch(arena, max - punched, all);
	/* Nothing to give back yet, but soon: the caller comes again. */
	return punched ? punched : more;
}

uint64_t arena_slack(struct arena *arena)
{
	uint64_t pages;

	pthread_mutex_lock(&arena->lock);
	pages = arena->idle_pages +
		arena->slotted.holes / SEGMENT_UNITS * SEGMENT_PAGES;
	for (unsigned int i = 0; i < CLASSES; i++) {
		struct size_class *class = &arena->class[i];

		for (unsigned int q = 0; q < QUEUES; q++)
			pages += (class->queue[q].spans * class->slots -
				  class->queue[q].used) /
				 class->slots * class->pages;
	}
	pthread_mutex_unlock(&arena->lock);
	return pages * ARENA_PAGE;
}
