/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Index memory: blocks of cells in a memfd.  See cells.h.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

/* Blocks without a live cell that are kept: flushes and puts take turns. */
#define IDLE_BLOCKS 2

#define CELLS_OFFSET	      sizeof(struct block_header)
#define CELLS_PER_BLOCK(size) ((BLOCK_BYTES - CELLS_OFFSET) / (size))
#define BLOCK_UNITS	      (BLOCK_BYTES / CELL_UNIT)

size_t cell_size(enum cell_kind kind)
{
	static const uint16_t size[CELL_KINDS] = {
		[CELL_OBJECT] = sizeof(struct tmem_object),
		[CELL_LEAF_2] = LEAF_BYTES(2),
		[CELL_LEAF_8] = LEAF_BYTES(8),
		[CELL_LEAF_32] = LEAF_BYTES(32),
	};

	return size[kind];
}

static unsigned int cells_per_block(enum cell_kind kind)
{
	return CELLS_PER_BLOCK(cell_size(kind));
}

static struct block *block_of(const struct cells *cells, uint32_t number)
{
	const struct cells_region *region =
		cells->region[number / CELLS_REGION_BLOCKS];

	return &region->group[number % CELLS_REGION_BLOCKS / GROUP_BLOCKS]
			     [number % GROUP_BLOCKS];
}

static uint32_t block_cell(uint32_t block, enum cell_kind kind, unsigned int i)
{
	return block * BLOCK_UNITS +
	       (CELLS_OFFSET + i * cell_size(kind)) / CELL_UNIT;
}

static void *block_data(const struct cells *cells, uint32_t number)
{
	return cell_at(cells, number * BLOCK_UNITS);
}

struct root *cells_root(struct arena *arena)
{
	return block_data(&arena->cells, 0);
}

/* ------------------------------------------------------------------ blocks */

/* Address space for block @number.  No lock is held. */
static int region_map(struct arena *arena, uint32_t number)
{
	struct tmem_store *store = arena->tenant->store;
	struct cells *cells = &arena->cells;
	unsigned int index = number / CELLS_REGION_BLOCKS;
	struct cells_region *region = store_zalloc(store, sizeof(*region));

	if (!region)
		return -ENOMEM;
	region->data = memfd_map(store, cells->fd, index * CELLS_REGION_BYTES,
				 CELLS_REGION_BYTES);
	if (!region->data) {
		store_free(store, region);
		return -ENOMEM;
	}
	pthread_mutex_lock(&cells->lock);
	if (!cells->region[index]) {
		cells->region[index] = region;
		atomic_fetch_add(&arena->index_bytes, sizeof(*region));
		region = NULL;
	}
	pthread_mutex_unlock(&cells->lock);
	/* Another thread was faster? */
	if (region) {
		munmap(region->data, CELLS_REGION_BYTES);
		store_free(store, region);
	}
	return 0;
}

/* Descriptors of the group that block @number is in.  No lock is held. */
static int blocks_describe(struct arena *arena, uint32_t number)
{
	struct tmem_store *store = arena->tenant->store;
	struct cells *cells = &arena->cells;
	struct cells_region *region =
		cells->region[number / CELLS_REGION_BLOCKS];
	unsigned int index = number % CELLS_REGION_BLOCKS / GROUP_BLOCKS;
	size_t bytes = GROUP_BLOCKS * sizeof(struct block);
	struct block *group = store_zalloc(store, bytes);

	if (!group)
		return -ENOMEM;
	for (unsigned int i = 0; i < GROUP_BLOCKS; i++) {
		list_init(&group[i].link);
		group[i].number = number / GROUP_BLOCKS * GROUP_BLOCKS + i;
	}
	pthread_mutex_lock(&cells->lock);
	if (!region->group[index]) {
		region->group[index] = group;
		atomic_fetch_add(&arena->index_bytes, bytes);
		group = NULL;
	}
	pthread_mutex_unlock(&cells->lock);
	store_free(store, group);
	return 0;
}

/* Address and descriptor for block @number.  No lock is held. */
static int block_prepare(struct arena *arena, uint32_t number)
{
	struct cells *cells = &arena->cells;
	unsigned int index = number / CELLS_REGION_BLOCKS;
	bool mapped, described;
	int error = 0;

	if (index >= CELLS_REGION_MAX)
		return -ENOSPC;
	pthread_mutex_lock(&cells->lock);
	mapped = cells->region[index];
	described =
		mapped &&
		cells->region[index]
			->group[number % CELLS_REGION_BLOCKS / GROUP_BLOCKS];
	pthread_mutex_unlock(&cells->lock);
	if (!mapped)
		error = region_map(arena, number);
	if (!error && !described)
		error = blocks_describe(arena, number);
	return error;
}

static int block_populate(struct arena *arena, uint32_t number)
{
	struct tmem_store *store = arena->tenant->store;

	if (store->memory.fallocate(store->memory_opaque, arena->cells.fd, 0,
				    (uint64_t)number * BLOCK_BYTES,
				    BLOCK_BYTES))
		return -ENOMEM;
	(void)madvise(block_data(&arena->cells, number), BLOCK_BYTES,
		      MADV_POPULATE_WRITE);
	atomic_fetch_add(&arena->index_bytes, BLOCK_BYTES);
	return 0;
}

/* Whatever part of it has memory. */
static void block_punch(const struct cells *cells, uint32_t number)
{
	(void)fallocate(cells->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(uint64_t)number * BLOCK_BYTES, BLOCK_BYTES);
}

static void block_release(struct arena *arena, uint32_t number)
{
	block_punch(&arena->cells, number);
	atomic_fetch_sub(&arena->index_bytes, BLOCK_BYTES);
}

/*
 * A block with memory whose cells are all free becomes one of @kind.  Bytes
 * that stood for something as another kind must not stand for anything as this.
 */
static void block_format(struct arena *arena, uint32_t number,
			 enum cell_kind kind)
{
	struct block_header *header = block_data(&arena->cells, number);
	unsigned int count = cells_per_block(kind);

	__atomic_store_n(&header->magic, 0, __ATOMIC_RELAXED);
	/*
	 * For who comes after we were killed, between two instructions: the
	 * compiler's order is all that counts.
	 */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	memset((char *)header + CELLS_OFFSET, 0, BLOCK_BYTES - CELLS_OFFSET);
	__atomic_store_n(&header->magic, BLOCK_MAGIC + kind, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i + 1 < count; i++) {
		struct cell *cell =
			cell_at(&arena->cells, block_cell(number, kind, i));

		cell->next_free = block_cell(number, kind, i + 1);
	}
}

static void block_move(struct block *block, struct list *to)
{
	list_del(&block->link);
	list_add_tail(to, &block->link);
}

/*
 * A block for @kind to take: one without a live cell, else one to be populated,
 * else the next of the file.  It is in no list, so nobody else has it.
 */
static struct block *block_claim(struct arena *arena, bool *populated,
				 int *error)
{
	struct cells *cells = &arena->cells;
	struct block *block = NULL;
	uint32_t next;

	pthread_mutex_lock(&cells->lock);
	next = cells->num_blocks;
	*populated = !list_empty(&cells->idle);
	if (*populated) {
		block = container_of(cells->idle.next, struct block, link);
		block->kind = CELL_NONE;
		cells->idle_blocks--;
	} else if (!list_empty(&cells->punched)) {
		block = container_of(cells->punched.next, struct block, link);
	}
	if (block)
		list_del(&block->link);
	pthread_mutex_unlock(&cells->lock);
	if (block)
		return block;
	*error = block_prepare(arena, next);
	if (*error)
		return NULL;
	pthread_mutex_lock(&cells->lock);
	if (cells->num_blocks == next) {
		cells->num_blocks++;
		block = block_of(cells, next);
	}
	pthread_mutex_unlock(&cells->lock);
	return block; /* NULL: another thread took it; try again */
}

/* One more block of @kind.  No lock is held. */
static int block_add(struct arena *arena, enum cell_kind kind, bool guaranteed)
{
	enum grows grows = arena_index_grows(arena);
	struct cells *cells = &arena->cells;
	struct block *block;
	bool populated;
	int error = 0;

	do
		block = block_claim(arena, &populated, &error);
	while (!block && !error);
	if (error)
		return error;
	/* What a promise covers of index is a share of it: limits.c. */
	if (!populated)
		error = store_may_grow(arena->tenant, grows, BLOCK_BYTES,
				       guaranteed && grows == GROWS_PERSISTENT);
	if (!error && !populated)
		error = block_populate(arena, block->number);
	if (!error)
		block_format(arena, block->number, kind);
	pthread_mutex_lock(&cells->lock);
	if (!error) {
		block->kind = kind;
		block->used = 0;
		block->free = block_cell(block->number, kind, 0);
	}
	list_add_tail(error ? &cells->punched : &cells->partial[kind],
		      &block->link);
	pthread_mutex_unlock(&cells->lock);
	return error;
}

/* ------------------------------------------------------------------- cells */

/* The first free cell of the kind, or 0. */
static uint32_t cell_take(struct cells *cells, enum cell_kind kind)
{
	struct block *block;
	uint32_t cell = 0;

	pthread_mutex_lock(&cells->lock);
	if (!list_empty(&cells->partial[kind])) {
		block = container_of(cells->partial[kind].next, struct block,
				     link);
		cell = block->free;
		block->free = ((struct cell *)cell_at(cells, cell))->next_free;
		block->used++;
		if (!block->free)
			list_del(&block->link);
	}
	pthread_mutex_unlock(&cells->lock);
	return cell;
}

int cell_alloc(struct arena *arena, enum cell_kind kind, bool guaranteed,
	       uint32_t *cell)
{
	int error = 0;

	while (!(*cell = cell_take(&arena->cells, kind)) && !error)
		error = block_add(arena, kind, guaranteed);
	if (*cell)
		memset(cell_at(&arena->cells, *cell), 0, cell_size(kind));
	return *cell ? 0 : error;
}

void cell_free(struct arena *arena, uint32_t number)
{
	struct cells *cells = &arena->cells;
	struct cell *cell = cell_at(cells, number);
	struct block *block = block_of(cells, number / BLOCK_UNITS);

	atomic_store_explicit(&cell->state, CELL_FREE, memory_order_release);
	pthread_mutex_lock(&cells->lock);
	cell->next_free = block->free;
	block->free = number;
	if (--block->used == 0) {
		block_move(block, &cells->idle);
		cells->idle_blocks++;
	} else if (!cell->next_free) {
		list_add_tail(&cells->partial[block->kind], &block->link);
	}
	pthread_mutex_unlock(&cells->lock);
}

unsigned int cells_punch(struct arena *arena, unsigned int max, bool all)
{
	struct cells *cells = &arena->cells;
	unsigned int punched = 0;

	while (punched < max) {
		struct block *block = NULL;

		pthread_mutex_lock(&cells->lock);
		if (cells->idle_blocks > (all ? 0 : IDLE_BLOCKS)) {
			block = container_of(cells->idle.next, struct block,
					     link);
			list_del(&block->link);
			cells->idle_blocks--;
			block->kind = CELL_NONE;
		}
		pthread_mutex_unlock(&cells->lock);
		if (!block)
			break;
		block_release(arena, block->number);
		pthread_mutex_lock(&cells->lock);
		list_add_tail(&cells->punched, &block->link);
		pthread_mutex_unlock(&cells->lock);
		punched += BLOCK_BYTES / ARENA_PAGE;
	}
	return punched;
}

/* -------------------------------------------------------------- life, death */

/* The root's block has memory for the root alone. */
static int root_make(struct arena *arena)
{
	struct tmem_store *store = arena->tenant->store;
	struct root *root;

	if (store->memory.fallocate(store->memory_opaque, arena->cells.fd, 0, 0,
				    ARENA_PAGE))
		return -ENOMEM;
	root = cells_root(arena);
	root->version = ROOT_VERSION;
	root->data_id = memfd_id(arena->fd);
	memcpy(root->name, arena->tenant->name, sizeof(root->name));
	__atomic_store_n(&root->magic, ROOT_MAGIC, __ATOMIC_RELEASE);
	return 0;
}

int cells_init(struct arena *arena, int fd)
{
	struct cells *cells = &arena->cells;
	bool adopt = fd >= 0;
	int error;

	_Static_assert(sizeof(struct root) <= ARENA_PAGE, "the root is a page");
	pthread_mutex_init(&cells->lock, NULL);
	for (unsigned int i = 0; i < CELL_KINDS; i++)
		list_init(&cells->partial[i]);
	list_init(&cells->idle);
	list_init(&cells->punched);
	cells->fd =
		adopt ? fd
		      : memfd_make(arena->persistent ? "tmem-persistent-index"
						     : "tmem-ephemeral-index");
	if (cells->fd < 0)
		return cells->fd;
	error = block_prepare(arena, 0);
	if (error)
		return error;
	block_of(cells, 0)->kind = CELL_NONE;
	cells->num_blocks = 1;
	if (!adopt)
		error = root_make(arena);
	if (!error)
		atomic_fetch_add(&arena->index_bytes, ARENA_PAGE);
	return error;
}

void cells_destroy(struct arena *arena)
{
	struct cells *cells = &arena->cells;

	for (unsigned int i = 0; i < CELLS_REGION_MAX && cells->region[i];
	     i++) {
		struct cells_region *region = cells->region[i];

		munmap(region->data, CELLS_REGION_BYTES);
		for (unsigned int g = 0; g < ARRAY_SIZE(region->group); g++)
			store_free(arena->tenant->store, region->group[g]);
		store_free(arena->tenant->store, region);
	}
	if (cells->fd >= 0)
		close(cells->fd);
	cells->fd = -1;
	pthread_mutex_destroy(&cells->lock);
}

/* ------------------------------------------------------------ adopt, check */

bool cell_exists(struct arena *arena, uint32_t cell)
{
	uint32_t number = cell / BLOCK_UNITS;
	size_t offset = cell % BLOCK_UNITS * CELL_UNIT;
	struct cells *cells = &arena->cells;
	enum cell_kind kind;

	if (!number || number >= cells->num_blocks)
		return false;
	kind = block_of(cells, number)->kind;
	return kind != CELL_NONE && offset >= CELLS_OFFSET &&
	       !((offset - CELLS_OFFSET) % cell_size(kind)) &&
	       (offset - CELLS_OFFSET) / cell_size(kind) <
		       cells_per_block(kind);
}

enum cell_kind cell_kind(struct arena *arena, uint32_t cell)
{
	return block_of(&arena->cells, cell / BLOCK_UNITS)->kind;
}

uint32_t cell_next(struct arena *arena, uint32_t cell)
{
	struct cells *cells = &arena->cells;
	uint32_t number = MAX(cell / BLOCK_UNITS, 1u);

	for (; number < cells->num_blocks; number++) {
		enum cell_kind kind = block_of(cells, number)->kind;
		uint32_t first = block_cell(number, kind, 0);
		unsigned int i = 0;

		if (kind == CELL_NONE)
			continue;
		if (cell > first)
			i = ((cell - first) * CELL_UNIT + cell_size(kind) - 1) /
			    cell_size(kind);
		if (i < cells_per_block(kind))
			return block_cell(number, kind, i);
	}
	return 0;
}

static enum cell_kind header_kind(const struct block_header *header)
{
	uint64_t kind = header->magic - BLOCK_MAGIC;

	return kind > CELL_NONE && kind < CELL_KINDS ? kind : CELL_NONE;
}

/* Is there memory at @offset of a memfd?  Reading a hole would give it some. */
static bool has_memory(int fd, off_t offset)
{
	return lseek(fd, offset, SEEK_DATA) == offset;
}

int cells_scan(struct arena *arena)
{
	struct cells *cells = &arena->cells;
	off_t size = lseek(cells->fd, 0, SEEK_END);
	uint64_t blocks = size / BLOCK_BYTES;
	const struct root *root = cells_root(arena);

	if (size < (off_t)ARENA_PAGE || !has_memory(cells->fd, 0) ||
	    root->magic != ROOT_MAGIC || root->version != ROOT_VERSION ||
	    blocks > (uint64_t)CELLS_REGION_MAX * CELLS_REGION_BLOCKS)
		return -EUCLEAN;
	for (uint32_t number = 1; number < blocks; number++) {
		bool memory =
			has_memory(cells->fd, (off_t)number * BLOCK_BYTES);
		int error = block_prepare(arena, number);
		struct block *block;

		if (error)
			return error;
		block = block_of(cells, number);
		cells->num_blocks = number + 1;
		/* It was given memory in part, or taken from, when all ended.
		 */
		if (memory && block_populate(arena, number))
			return -ENOMEM;
		if (memory)
			block->kind = header_kind(block_data(cells, number));
		if (block->kind != CELL_NONE) {
			block->used = cells_per_block(block->kind);
			continue;
		}
		if (memory)
			block_release(arena, number);
		else
			block_punch(cells, number);
		list_add_tail(&cells->punched, &block->link);
	}
	return 0;
}

/* Which cells of a block are free, and into which list it goes. */
static void block_rebuild(struct cells *cells, struct block *block)
{
	for (unsigned int i = cells_per_block(block->kind); i-- > 0;) {
		uint32_t number = block_cell(block->number, block->kind, i);
		struct cell *cell = cell_at(cells, number);

		if (atomic_load(&cell->state) != CELL_FREE)
			continue;
		cell->next_free = block->free;
		block->free = number;
		block->used--;
	}
	if (!block->used) {
		list_add_tail(&cells->idle, &block->link);
		cells->idle_blocks++;
	} else if (block->free) {
		list_add_tail(&cells->partial[block->kind], &block->link);
	}
}

void cells_rebuild(struct arena *arena)
{
	struct cells *cells = &arena->cells;

	for (uint32_t number = 1; number < cells->num_blocks; number++)
		if (block_of(cells, number)->kind != CELL_NONE)
			block_rebuild(cells, block_of(cells, number));
}

static int block_check(struct arena *arena, struct block *block, char *message,
		       size_t size)
{
	struct cells *cells = &arena->cells;
	const struct block_header *header = block_data(cells, block->number);
	unsigned int count = cells_per_block(block->kind), live = 0, free = 0;

	if (header_kind(header) != block->kind)
		return FAULT("block %u: kind %u, its header says %#jx",
			     block->number, block->kind,
			     (uintmax_t)header->magic);
	for (unsigned int i = 0; i < count; i++) {
		struct cell *cell = cell_at(cells, block_cell(block->number,
							      block->kind, i));

		live += atomic_load(&cell->state) != CELL_FREE;
	}
	for (uint32_t at = block->free; at && free <= count;
	     at = ((struct cell *)cell_at(cells, at))->next_free)
		free++;
	if (free + block->used != count || live > block->used)
		return FAULT("block %u: %u cells live, %u free, %u used of %u",
			     block->number, live, free, block->used, count);
	return 0;
}

int cells_check(struct arena *arena, char *message, size_t size)
{
	struct cells *cells = &arena->cells;
	uint64_t idle = 0, blocks = 0;
	int error = 0;

	pthread_mutex_lock(&cells->lock);
	for (uint32_t number = 1; number < cells->num_blocks && !error;
	     number++) {
		struct block *block = block_of(cells, number);

		if (block->kind == CELL_NONE)
			continue;
		blocks++;
		error = block_check(arena, block, message, size);
	}
	for (struct list *l = cells->idle.next; l != &cells->idle; l = l->next)
		idle++;
	if (!error && idle != cells->idle_blocks)
		error = FAULT("%ju blocks idle, %ju counted", (uintmax_t)idle,
			      (uintmax_t)cells->idle_blocks);
	if (!error && blocks * BLOCK_BYTES > arena_index_bytes(arena))
		error = FAULT("blocks of the index miscounted");
	pthread_mutex_unlock(&cells->lock);
	return error;
}
