/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory of an arena's index: a memfd of blocks of 16 KiB, each of cells of one
 * kind.  A cell has a number, not an address, so that another process that maps
 * the memfd finds what it names.  The first byte of a cell says whether it is
 * anything; it is the last that is written when a cell comes to life and the
 * first when its life ends, so whenever the process is killed the memfd says
 * which cells are alive.  Which of them are free beside that is known to
 * descriptors that are not in the memfd.
 *
 * Block 0 is the root: what the memfd is, and the table of the tenant's pools.
 */
#ifndef TMEM_CELLS_H
#define TMEM_CELLS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "list.h"
#include "tmem/tmem.h"

#define BLOCK_BYTES 16384u
/* A cell's number: its offset in the memfd in these units; 0: none. */
#define CELL_UNIT 8u
/* Address space is mapped 16 MiB at a time, 16 GiB at most. */
#define CELLS_REGION_BLOCKS 1024u
#define CELLS_REGION_BYTES  ((uint64_t)CELLS_REGION_BLOCKS * BLOCK_BYTES)
#define CELLS_REGION_MAX    1024u
/* Descriptors of blocks come in groups. */
#define GROUP_BLOCKS 64u

enum cell_kind {
	CELL_NONE, /* a block without memory */
	CELL_OBJECT,
	CELL_LEAF_2,
	CELL_LEAF_8,
	CELL_LEAF_32,
	CELL_KINDS
};

/* A cell's first byte. */
enum cell_state {
	CELL_FREE,
	CELL_LIVE,
	CELL_COPY, /* a leaf that is live once the one it replaces is not */
	CELL_GONE, /* dead, but somebody still has its number */
};

struct cell {
	_Atomic uint8_t state; /* enum cell_state */
	uint8_t kind_specific[7];
	uint32_t next_free; /* number; while it is free */
};

/* At the start of each block but the root's. */
struct block_header {
	uint64_t magic; /* BLOCK_MAGIC + kind; 0: no block yet */
	uint64_t unused;
};
#define BLOCK_MAGIC 0x6b6c426d656d7400ull

/* What is known of a block beside what it says itself. */
struct block {
	struct list link; /* cells->partial[kind], or ->idle, or ->punched */
	uint32_t number;
	uint32_t free; /* number of the first free cell; 0: none */
	uint16_t used;
	uint8_t kind;
};

struct cells_region {
	char *data; /* address */
	struct block *group[CELLS_REGION_BLOCKS / GROUP_BLOCKS];
};

struct cells {
	int fd;
	pthread_mutex_t lock;
	struct cells_region *region[CELLS_REGION_MAX]; /* set once */
	uint32_t num_blocks;		 /* that were ever in use */
	struct list partial[CELL_KINDS]; /* blocks with free cells */
	struct list idle;    /* blocks without a live cell, with memory */
	struct list punched; /* blocks without memory, below num_blocks */
	uint64_t idle_blocks;
};

/* ------------------------------------------------------------------- root */

/*
 * A pool's entry.  Whether there is a pool, which, and what kind, in one word:
 *   63..32  generation: how often the number was used
 *   15..8   page shift   2  opaque   1  persistent   0  there is one
 * An object names pool and generation; those of another are dead.
 */
#define POOL_LIVE	      1ull
#define POOL_ENTRY_PERSISTENT 2ull
#define POOL_ENTRY_OPAQUE     4ull
static inline uint32_t pool_entry_generation(uint64_t entry)
{
	return entry >> 32;
}

struct root {
	uint64_t magic;	  /* ROOT_MAGIC, written last */
	uint64_t version; /* ROOT_VERSION */
	_Atomic uint64_t pool[TMEM_MAX_POOLS];
	_Atomic uint64_t cookie; /* tmem_tenant_set_cookie() */
	uint64_t data_id;	 /* memfd_id() of the other memfd */
	char name[TMEM_NAME_SIZE];
};
#define ROOT_MAGIC 0x7865646e496d656dull
/* Of everything in both memfds, handles and size classes included. */
#define ROOT_VERSION 4u

struct arena;

/*
 * @fd: a memfd to adopt, or -1.  It is the cells' from then on, and
 * cells_destroy() is due also where this fails.
 */
int cells_init(struct arena *arena, int fd);
void cells_destroy(struct arena *arena);

size_t cell_size(enum cell_kind kind);
/* Address of a cell that exists. */
static inline void *cell_at(const struct cells *cells, uint32_t cell)
{
	uint64_t at = (uint64_t)cell * CELL_UNIT;

	return cells->region[at / CELLS_REGION_BYTES]->data +
	       at % CELLS_REGION_BYTES;
}
struct root *cells_root(struct arena *arena);

/*
 * A cell of zeros, whose state is the caller's to set.  No lock is held.
 * @guaranteed as for arena_alloc(), whose errors it has.
 */
int cell_alloc(struct arena *arena, enum cell_kind kind, bool guaranteed,
	       uint32_t *cell);
/* Under any lock but headroom's. */
void cell_free(struct arena *arena, uint32_t cell);
/* Give blocks without a live cell back to the host, all but a few or all. */
unsigned int cells_punch(struct arena *arena, unsigned int max, bool all);

/* ------------------------------------------------------------ adopt, check */

/* Is it the number of a cell of a block that has memory? */
bool cell_exists(struct arena *arena, uint32_t cell);
enum cell_kind cell_kind(struct arena *arena, uint32_t cell);
/* The first cell at or after @cell, of any state; 0: there is none. */
uint32_t cell_next(struct arena *arena, uint32_t cell);
/*
 * Of an adopted memfd: finds blocks, believes none of what they say but their
 * kind; until cells_rebuild() no cell is free.  0, -EUCLEAN, -ENOMEM.
 */
int cells_scan(struct arena *arena);
/* All cells that are CELL_FREE become free. */
void cells_rebuild(struct arena *arena);
int cells_check(struct arena *arena, char *message, size_t size);

#endif /* TMEM_CELLS_H */
