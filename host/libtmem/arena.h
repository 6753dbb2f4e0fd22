/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A tenant's memory for one kind of pool: a memfd in segments of 64 KiB, of
 * which spans of 1 to 16 pages are cut; a span has slots of one size class, or is
 * a slotted segment.
 * A segment holds nothing but stored bytes.  What is stored where is said by
 * leaves' words (handle.h) and by nothing else: all that is here can be made
 * anew from those (adopt.c).
 *
 *   classes.c  sizes of slots
 *   slotted.c  segments of a small tenant's pages, whatever their sizes
 *   arena.c    segments, and slots: taken, published, given back
 *   span.c     spans: runs of pages, and their memory
 *   reclaim.c  compaction, punching
 *   evict.c    which ephemeral pages go
 *   recompress.c  zstd for pages that are not used
 */
#ifndef TMEM_ARENA_H
#define TMEM_ARENA_H

#include "cells.h"
#include "handle.h"
#include "list.h"

#define ARENA_PAGE    4096u
#define SEGMENT_PAGES 16u
#define SEGMENT_BYTES (SEGMENT_PAGES * ARENA_PAGE)
/* Address space is mapped in regions of this many segments, 64 MiB. */
#define REGION_SEGMENTS 1024u
#define REGION_BYTES	((uint64_t)REGION_SEGMENTS * SEGMENT_BYTES)
#define REGION_MAX	(SEGMENT_MAX / REGION_SEGMENTS)
/* Descriptors come in groups: 11 KiB for 4 MiB of pages. */
#define GROUP_SEGMENTS 64u
#define REGION_GROUPS  (REGION_SEGMENTS / GROUP_SEGMENTS)

/* ---------------------------------------------------------------- classes */

/* Slots of up to a page, then every 1/8 of a page to 64 KiB: classes.c. */
#define CLASSES_SMALL	 65u
#define CLASS_STEP_LARGE 512u
#define CLASSES                                                                \
	(CLASSES_SMALL + (SEGMENT_BYTES - ARENA_PAGE) / CLASS_STEP_LARGE)

/* Slots of many lengths, side by side: slotted.c.  It has no ->size, ->slots. */
#define CLASS_SLOTTED CLASSES
#define CLASSES_ALL   (CLASSES + 1)

/* What persistent spans are all in, and what new ephemeral pages come to. */
#define QUEUE_SMALL 0u
/* Ephemeral pages that were used again. */
#define QUEUE_MAIN 1u
#define QUEUES	   2u

/* A class's spans of one queue. */
struct class_queue {
	struct list partial;
	uint64_t spans, used; /* used: slots */
};

struct size_class {
	uint32_t size;
	uint8_t pages;	/* of a span */
	uint16_t slots; /* of a span */
	struct class_queue queue[QUEUES];
	struct list full;
};

/* The class that stores @length bytes, 1 .. 65536, with least waste. */
unsigned int class_of(uint32_t length);
uint32_t class_size(unsigned int index);
void class_init(struct size_class *class, unsigned int index);

/* ------------------------------------------------------------------ spans */

struct slot {
	/* Its leaf's cell; 0: free; SLOT_PENDING: allocated, not published. */
	_Atomic uint32_t leaf;
	uint16_t entry; /* which word of the leaf; next free slot if free */
	uint16_t taker; /* of HANDLE_TAKEN; under the stripe */
};
#define SLOT_PENDING UINT32_MAX
#define SLOT_END     0xffff

struct span {
	/* Its queue's partial of the class, or class->full: closed if slotted. */
	struct list link;
	/* arena->spans[queue], oldest first, or ->settled */
	struct list age;
	uint32_t segment : SEGMENT_BITS, page : 4, pages : 5; /* page: of it */
	union {
		/* Ephemeral: in the order in which its queue got them. */
		uint32_t number;
		/* Persistent: the next look: seconds, modulo 2^16. */
		uint16_t due;
	};
	uint16_t slots, used, free_head;
	uint8_t class_index;
	/* Being compacted, evicted, recompressed: not to be freed. */
	uint8_t busy : 4;
	/* By recompression; nothing in it is left to try: arena->settled. */
	uint8_t looked : 1, settled : 1;
	uint8_t filled : 1; /* a slot was taken since the last look began */
	uint8_t queue : 1;
	struct slot slot[];
	/* Of CLASS_SLOTTED, behind the last slot: struct slotted. */
};

struct segment {
	struct list link;   /* arena->by_run[longest run of free pages] */
	uint16_t used;	    /* bit n: page n belongs to a span */
	uint16_t populated; /* bit n: page n takes host memory */
	uint32_t number;
	uint8_t run; /* longest run of free pages */
	bool idle;   /* linked in arena->idle */
	/* group_unmap() was here since a span last took pages: a hint. */
	bool unmapped;
	struct list idle_link;
	struct span *span[SEGMENT_PAGES];
};

struct region {
	char *data; /* address */
	struct segment *group[REGION_GROUPS];
};

struct arena {
	struct tmem_tenant *tenant;
	bool persistent;
	int fd;
	pthread_mutex_t lock; /* arena_lock(), arena_let_in() */
	atomic_uint waiting;  /* for it */
	struct size_class class[CLASSES_ALL];
	struct slotted_units {
		uint64_t live;
		uint64_t holes; /* span_holes() */
	} slotted;
	bool slotted_short; /* one had too few slots, since the last was made */
	struct region *region[REGION_MAX]; /* set once */
	uint32_t num_segments;		   /* that have descriptors */
	struct list by_run[SEGMENT_PAGES + 1];
	struct list idle; /* segments with populated pages of no span */
	struct list spans[QUEUES];
	uint64_t queue_pages[QUEUES]; /* that these have */
	uint32_t next_number[QUEUES];
	bool has_evicted;    /* since it was empty */
	struct list settled; /* persistent ones: recompress.c has been there */
	unsigned int compact_class; /* where compaction goes on */
	uint64_t idle_pages;	    /* populated and of no span */
	uint64_t demand; /* pages that spans took, halved by every punch */
	/* Pages with memory at most, lately; and how many more they became. */
	uint64_t most_pages, grown;
	struct cells cells; /* its index */
	/* Held bytes: pages populated; descriptors of spans; all the rest. */
	atomic_uint_fast64_t populated_bytes, span_bytes, index_bytes;
};

static inline void cpu_relax(void)
{
#ifdef __x86_64__
	__builtin_ia32_pause();
#endif
}

/* It is not free at once: arena.c. */
void arena_lock_wait(struct arena *arena);
static inline void arena_lock(struct arena *arena)
{
	if (pthread_mutex_trylock(&arena->lock))
		arena_lock_wait(arena);
}

/* A place for a page's bytes, not yet published. */
struct chunk {
	uint8_t queue; /* of an ephemeral arena: which it shall be in */
	bool tried;    /* recompression need not look at it */
	struct span *span;
	uint16_t index;
	uint32_t length;
	char *data;
	tmem_handle age; /* of HANDLE_AGE */
};

struct tmem_leaf;
struct tmem_object;
struct tmem_pool;

/* @fd: index and data of an arena to adopt, which become its; or NULL. */
int arena_init(struct arena *arena, struct tmem_tenant *tenant, bool persistent,
	       const int fd[2]);
void arena_destroy(struct arena *arena);
/*
 * @guaranteed: within the reservation: only the host may refuse.
 * -ENOSPC: a limit; -ENOMEM: the host; -EBUSY: headroom.
 */
int arena_alloc(struct arena *arena, uint32_t length, bool guaranteed,
		struct chunk *chunk);
/*
 * The same for what recompression made, and must not make room: it holds
 * tenants_lock, as who makes room takes that.
 */
int arena_alloc_if_room(struct arena *arena, uint32_t length,
			struct chunk *chunk);
void arena_abort(struct arena *arena, struct chunk *chunk);
/* Publish: the caller holds the leaf's stripe and stores the handle returned.
 */
tmem_handle arena_publish(struct arena *arena, struct chunk *chunk,
			  unsigned int type, struct tmem_leaf *leaf,
			  unsigned int entry);
/* The caller has removed the handle from its leaf. */
void arena_free(struct arena *arena, tmem_handle handle);
/* The words of @old are now those of @leaf; the stripe of both is held. */
void arena_move_leaf(struct arena *arena, const struct tmem_leaf *old,
		     struct tmem_leaf *leaf);
/* Where in the memfd its stored bytes begin. */
uint64_t arena_offset(tmem_handle handle);
/* Address of the stored bytes; valid while the leaf's stripe is held. */
const char *arena_data(struct arena *arena, tmem_handle handle);
/* It will be wanted soon: the caches fetch it.  Likewise. */
void arena_prefetch(struct arena *arena, tmem_handle handle);
/* It will be freed soon: the caches fetch its descriptors.  Likewise. */
void arena_prefetch_slot(struct arena *arena, tmem_handle handle);
/* Which exclusive get took the page; the leaf's stripe is held. */
uint16_t *arena_taker(struct arena *arena, tmem_handle handle);
uint64_t arena_held(struct arena *arena);
/* Of that, pages and the descriptors that go with them; and the rest. */
uint64_t arena_page_bytes(struct arena *arena);
uint64_t arena_index_bytes(struct arena *arena);
/* What growth of the latter is. */
enum grows arena_index_grows(struct arena *arena);
int arena_check(struct arena *arena, char *message, size_t size);

/* ------------------------------------------------------------ arena, span */

/* How far an allocation goes. */
enum need {
	NEED_ROOM, /* it fails where there is none */
	NEED_MAKE_ROOM,
	NEED_GUARANTEED, /* as is what is within a reservation */
	NEED_PACK, /* for a moment, and to give back more: the host alone */
};

/* How many segments are looked at for a new span. */
#define IDLE_TRIES 16

/* Its bytes. */
char *segment_data(struct arena *arena, uint32_t number);
/* 0, -ENOSPC, -EBUSY.  No lock is held. */
int arena_may_grow(struct arena *arena, enum grows grows, uint64_t bytes,
		   enum need need);
/* Descriptors for more segments.  Likewise. */
int group_add(struct arena *arena, enum need need);
/* A segment with @pages free pages in one piece, from *@page on; or NULL.
 * arena->lock held. */
struct segment *run_find(struct arena *arena, unsigned int pages,
			 unsigned int *page);
/* One more span of a class.  No lock is held. */
int span_add(struct arena *arena, unsigned int class_index, unsigned int queue,
	     enum need need);
/*
 * Pages get memory ahead, about as many as had to get it in an op since the last
 * time: @max at most.  How many.  No lock is held but tenants_lock, read.
 */
unsigned int arena_prefault(struct arena *arena, unsigned int max);

/* ---------------------------------------------------------------- reclaim */

/*
 * Background work, bounded: moved chunks and punched pages.  @all: for somebody in
 * need: of what is left alone otherwise, too.
 */
unsigned int arena_compact(struct arena *arena, unsigned int max, bool all);
unsigned int arena_punch(struct arena *arena, unsigned int max, bool all);
/*
 * One slotted segment, or what a small tenant has left in size classes, for who has
 * no room in any.  Was anything moved?
 */
bool arena_pack(struct arena *arena);
/* What these could give back to the host, about, without removing a page. */
uint64_t arena_slack(struct arena *arena);

/* ------------------------------------------------------------------ evict */

/* Evict spans (ephemeral arenas): returns bytes that became idle. */
uint64_t arena_evict(struct arena *arena, uint64_t bytes);
/* Where a new page belongs; @old: what its word says now. */
unsigned int evict_queue(struct tmem_object *object, uint64_t index,
			 tmem_handle old);
/* An exclusive get took the page, which is about to be freed. */
void evict_note_taken(struct tmem_object *object, uint64_t index);
/*
 * A get missed the page: was it evicted lately, and is this the first one since
 * that missed it?  @seed: codec_seed() of its object, which may be gone.
 */
bool evict_lost(struct tmem_pool *pool, uint32_t seed, uint64_t index);
/* Is the span among the older half of its queue?  arena->lock held. */
bool span_old(struct arena *arena, struct span *span);
/* The spans of a queue are added to @spans, their descriptors to @metadata. */
int queue_check(struct arena *arena, unsigned int queue, uint64_t *spans,
		uint64_t *metadata, char *message, size_t size);
/* Bytes of what a group of segments remembers of keys. */
size_t ghost_bytes(const struct arena *arena);

/* ------------------------------ arena.c's, for reclaim, evict and adopt */

struct segment *segment_of(struct arena *arena, uint32_t number);
/* Keep the segment in the lists that its bitmaps say.  arena->lock held. */
void segment_relink(struct arena *arena, struct segment *segment);
/* Longest run of free pages. */
unsigned int longest_run(uint16_t used);
static inline uint16_t run_mask(unsigned int page, unsigned int pages)
{
	return ((1u << pages) - 1) << page;
}
/*
 * Descriptors for the next group of segments.  No lock is held.  It asks
 * nobody: the pages are there.
 */
int group_make(struct arena *arena, uint32_t first);
/* Host memory for pages of a segment, or none.  No lock is held. */
int segment_populate(struct arena *arena, uint32_t number, uint16_t mask);
void segment_punch(struct arena *arena, uint32_t number, uint16_t mask);
/*
 * This process forgets where the pages of a segment's group are, not what is in
 * them: who wants one takes a minor fault.  Punching what is not mapped is
 * cheap.  Locked memory stays mapped.  No lock is held.
 */
void group_unmap(struct arena *arena, uint32_t number);
/* Of @count segments from @number on. */
void segments_punch(struct arena *arena, uint32_t number, const uint16_t *mask,
		    unsigned int count);
/* A span with no slot used, not in any list yet; or NULL. */
struct span *span_new(struct arena *arena, unsigned int class_index,
		      unsigned int slots, uint32_t number, unsigned int page);
size_t span_bytes(unsigned int class_index, unsigned int slots);
static inline size_t span_size(const struct span *span)
{
	return span_bytes(span->class_index, span->slots);
}
/* Into the list that fits how many slots are used.  arena->lock held. */
void span_link(struct arena *arena, struct span *span);
/* The span becomes a queue's newest: one of none, or of another.  Likewise. */
void span_enqueue(struct arena *arena, struct span *span, unsigned int queue);
/* An empty span ends.  arena->lock held. */
void span_end(struct arena *arena, struct span *span);
char *slot_data(struct arena *arena, struct span *span, unsigned int i);
/* Take a free slot of the class in chunk->queue, if a span of its has one.
 * arena->lock held. */
bool slot_take(struct arena *arena, unsigned int class_index, uint32_t length,
	       struct chunk *chunk);
void slot_release(struct arena *arena, struct span *span, unsigned int index);
/* Bytes of its span that a chunk of @length takes. */
uint32_t slot_bytes(unsigned int class_index, uint32_t length);

/* ---------------------------------------------------------------- slotted */

/* Lengths are counted by these. */
#define UNIT	      16u
#define SEGMENT_UNITS (SEGMENT_BYTES / UNIT)

/*
 * A tenant is small, and its new pages come to slotted segments, while its spans
 * have fewer pages than this: 4 MiB.
 */
#define SLOTTED_PAGES 1024u
/*
 * What is larger than all sizes but a page has a page of its own; and what is
 * shorter than this would need more descriptors than it is worth.
 */
#define SLOTTED_LENGTH_MAX 3712u
#define SLOTTED_LENGTH_MIN 257u
/* Slots of one segment: enough for the shortest. */
#define SLOTTED_SLOTS_MAX 256u

/* Behind the slots of a slotted segment's span. */
struct slotted {
	uint16_t next; /* unit from which on nothing was given out yet */
	uint16_t made; /* slots given out since it began */
	uint16_t live; /* units of those in use */
	bool closed;   /* it gives out no more */
	/* Of each slot that was given out: these do not change. */
	struct extent {
		uint16_t at, units;
	} extent[];
};

static inline bool span_slotted(const struct span *span)
{
	return span->class_index == CLASS_SLOTTED;
}
struct slotted *slotted_of(struct span *span);
/* Does a chunk of @length that needs a new span get a slotted segment?
 * arena->lock held, as for all that follow, but in adoption. */
bool slotted_wanted(const struct arena *arena, uint32_t length);
/* How many slots a new one gets. */
unsigned int slotted_slots(struct arena *arena);
/* One is the arena's no more. */
void slotted_end(struct arena *arena, struct span *span);
/* A slot for @length bytes of a segment that has room: its span, or NULL. */
struct span *slotted_take(struct arena *arena, uint32_t length,
			  unsigned int *index);
void slotted_release(struct arena *arena, struct span *span,
		     unsigned int index);
/* The slot that begins at unit @at. */
unsigned int slotted_index(struct span *span, unsigned int at);
/* A slot that a word of an adopted tenant names, in a closed segment.  False: it
 * cannot be. */
bool slotted_adopt(struct arena *arena, struct span *span, unsigned int at,
		   unsigned int units, unsigned int *index);
/* How many of its units packing would give back. */
unsigned int span_holes(struct span *span);
/* What it has is added to @units. */
int slotted_check(struct arena *arena, struct span *span,
		  struct slotted_units *units, char *message, size_t size);

/* ----------------------------------------------- reclaim.c's, for evict */

/*
 * The leaf of a slot that is published, with its stripe locked; NULL if there
 * is none or it is busy.  arena->lock is held: until the last slot of a leaf
 * was released, which takes it, the leaf and its object stay.
 */
struct tmem_leaf *slot_leaf_trylock(struct arena *arena, struct slot *slot,
				    pthread_mutex_t **stripe);
/*
 * Copy the chunk of slot @i of @from, whose leaf is locked, to a free slot of
 * a class and @queue and have the word name that one, with age bits of @keep.
 * False: there is none.  The caller releases the old slot.
 */
bool slot_copy(struct arena *arena, struct span *from, unsigned int i,
	       unsigned int class_index, struct tmem_leaf *leaf,
	       unsigned int queue, tmem_handle keep);
/* Move it to another span of a class, and release it. */
bool slot_move(struct arena *arena, struct span *from, unsigned int i,
	       unsigned int class_index);
/* Let others have arena->lock, which is held, for as long as any wait. */
void arena_let_in(struct arena *arena);
/* For whom slotted segments are packed. */
enum pack {
	PACK_STEP, /* nobody: @max chunks, what is worth copying, within limits */
	PACK_ONE, /* a put that has no room in any: one segment, likewise */
	/*
	 * Somebody in need: all that gives back a segment, and may exceed all
	 * limits by one meanwhile; no segment is left half done.
	 */
	PACK_ALL,
};
/* And what is left of a small tenant's size classes is brought to them.  Chunks
 * moved.  arena->lock held, and let go of. */
unsigned int slotted_compact(struct arena *arena, unsigned int max,
			     enum pack pack);

#endif /* TMEM_ARENA_H */
