/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzz target: memfds that somebody has damaged, adopted
 *
 * The input makes a tenant by ops, says how its memfds are edited, and goes on
 * with ops on who adopts them.  Whatever they hold, adoption is an error, or a
 * store like any other: tmem_check() finds no fault, a page that a get returns
 * was put at that key, and from then on every key is what ops make of it, also
 * for the next who adopts it.
 *
 * Edits move what is there, and write small numbers; no byte of a word is the
 * input's as it is, or libFuzzer, which sees what checksums are compared with,
 * would write these.
 */
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "store-model.h"
#include "internal.h"

#define MAX_EDITS 64
#define MAX_OPS	  200
/* What the memfds may grow to; more takes time and finds nothing more. */
#define INDEX_MOST (3 * MIB)
#define DATA_MOST  (48 * MIB)

static const struct tmem_limits limits = { .size = sizeof(limits),
					   .persistent_reserved = 8 * MIB };

/* ------------------------------------------------------------------ edits */

struct file {
	int fd;
	uint64_t size, most;
	char *data;
};

/* index, data */
struct files {
	struct file file[TMEM_TENANT_FDS];
};

static void files_map(struct files *files, const int fd[TMEM_TENANT_FDS])
{
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++) {
		struct file *file = &files->file[i];

		file->fd = fd[i];
		file->size = lseek(fd[i], 0, SEEK_END);
		file->most = i ? DATA_MOST : INDEX_MOST;
		require(file->size <= file->most, "a large memfd");
		file->data = mmap(NULL, file->most, PROT_READ | PROT_WRITE,
				  MAP_SHARED, fd[i], 0);
		require(file->data != MAP_FAILED, "no mapping");
	}
}

static void files_unmap(struct files *files)
{
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		munmap(files->file[i].data, files->file[i].most);
}

/* A block of the index, but the root's; NULL: there is none. */
static char *block_take(struct files *files, struct input *in, uint32_t *number)
{
	uint32_t blocks = files->file[0].size / BLOCK_BYTES;

	*number = take8(in);
	if (blocks < 2)
		return NULL;
	*number = 1 + *number % (blocks - 1);
	return files->file[0].data + *number * (uint64_t)BLOCK_BYTES;
}

struct cell_at {
	char *data;
	uint32_t number, size;
};

/* A cell of any block that has one. */
static bool cell_take_any(struct files *files, struct input *in,
			  struct cell_at *cell)
{
	const uint32_t header = sizeof(struct block_header);
	uint32_t block;
	char *data = block_take(files, in, &block);
	uint8_t n = take8(in);
	uint64_t kind;

	if (!data)
		return false;
	kind = ((struct block_header *)data)->magic - BLOCK_MAGIC;
	if (kind <= CELL_NONE || kind >= CELL_KINDS)
		return false;
	cell->size = cell_size(kind);
	/* The first ones are those that are in use. */
	cell->number = n < 192 ? n % 12 : n;
	cell->number %= (BLOCK_BYTES - header) / cell->size;
	cell->data = data + header + cell->number * cell->size;
	cell->number = block * (BLOCK_BYTES / CELL_UNIT) +
		       (header + cell->number * cell->size) / CELL_UNIT;
	return true;
}

/* A word of a cell, @bytes of it, aligned. */
static char *field_take(const struct cell_at *cell, struct input *in,
			uint32_t bytes)
{
	return cell->data + take8(in) % (cell->size / bytes) * bytes;
}

static void edit_cells(struct files *files, struct input *in, uint8_t what)
{
	struct cell_at a, b;
	uint32_t bytes = what & 1 ? 4 : 8;
	char *field;

	if (!cell_take_any(files, in, &a) || !cell_take_any(files, in, &b))
		return;
	switch (what / 2 % 6) {
	case 0: /* a cell onto another */
		memcpy(a.data, b.data, MIN(a.size, b.size));
		break;
	case 1: /* a word onto another */
		field = field_take(&b, in, bytes);
		memcpy(field_take(&a, in, bytes), field, bytes);
		break;
	case 2: /* the number of a cell */
		memcpy(field_take(&a, in, 4), &b.number, 4);
		break;
	case 3:
		a.data[0] = take8(in) % 5;
		break;
	case 4: /* a small number */
		*(uint32_t *)field_take(&a, in, 4) = take8(in);
		break;
	case 5:
		a.data[take16(in) % a.size] ^= 1 << take8(in) % 8;
		break;
	}
}

/* A handle of parts that are near what could be. */
static void edit_handle(struct files *files, struct input *in)
{
	static const uint32_t length[] = { 0,	 1,    16,   512,   2800, 3840,
					   4095, 4096, 8192, 65535, 65536 };
	struct tmem_leaf *leaf;
	struct cell_at cell;
	tmem_handle handle;
	unsigned int entry;
	uint8_t type;

	if (!cell_take_any(files, in, &cell) || cell.size < LEAF_BYTES(2) ||
	    cell.size == sizeof(struct tmem_object))
		return;
	leaf = (void *)cell.data;
	entry = take8(in) % ((cell.size - sizeof(*leaf)) / 12);
	type = take8(in);
	handle = handle_chunk(type % 8, length[take8(in) % ARRAY_SIZE(length)],
			      take8(in), take16(in));
	/* Another place, or all of it. */
	if (type & 0x80)
		handle = (atomic_load(&leaf->word[entry]) & ~0x3fffffffffull) |
			 (handle & 0x3fffffffffull);
	if (type & 0x40)
		handle |= HANDLE_TAKEN;
	if (type & 0x20)
		handle ^= HANDLE_SLOTTED;
	atomic_store(&leaf->word[entry], handle);
}

static void edit_blocks(struct files *files, struct input *in)
{
	uint32_t number, other;
	char *a = block_take(files, in, &number);
	char *b = block_take(files, in, &other);
	uint8_t what = take8(in);

	if (!a || !b)
		return;
	if (what & 1)
		memmove(a, b, what & 2 ? 8 : BLOCK_BYTES);
	else
		((struct block_header *)a)->magic = BLOCK_MAGIC + what / 2 % 8;
}

static void edit_root(struct files *files, struct input *in)
{
	struct root *root = (void *)files->file[0].data;
	uint8_t what = take8(in), value = take8(in);
	_Atomic uint64_t *entry = &root->pool[what % 8];
	uint64_t old = atomic_load(entry);

	switch (what / 8 % 8) {
	case 0:
	case 1:
		atomic_store(entry, old ^ (value & 3));
		break;
	case 2:
	case 3: /* page shift */
		atomic_store(entry, (old & ~0xff00ull) | (10 + value % 8) << 8);
		break;
	case 4:
	case 5:
		atomic_store(entry, (old & UINT32_MAX) | (uint64_t)(value % 4)
								 << 32);
		break;
	case 6:
		atomic_store(entry, atomic_load(&root->pool[value % 8]));
		break;
	case 7: /* all the rest, which few inputs should have */
		((char *)root)[(what & 7) + value / 8 * 8] ^= 1 << what / 64;
		break;
	}
}

/* Longer, holes, memory. */
static void edit_size(struct files *files, struct input *in)
{
	static const uint32_t unit[] = { 1, ARENA_PAGE, BLOCK_BYTES,
					 SEGMENT_BYTES };
	uint8_t what = take8(in);
	struct file *file = &files->file[what & 1];
	uint64_t bytes = (uint64_t)take16(in) * unit[what / 2 % 4];
	uint64_t at = file->size ? bytes % file->size : 0;

	at -= at % ARENA_PAGE;
	switch (what / 8 % 3) {
	case 0:
		if (file->size + bytes <= file->most &&
		    !ftruncate(file->fd, file->size + bytes))
			file->size += bytes;
		break;
	case 1:
		(void)fallocate(file->fd,
				FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
				ARENA_PAGE << what / 64);
		break;
	case 2:
		(void)fallocate(file->fd, FALLOC_FL_KEEP_SIZE, at, ARENA_PAGE);
		break;
	}
}

static void edit_data(struct files *files, struct input *in)
{
	uint64_t size = files->file[1].size;
	uint64_t at = (uint64_t)take8(in) * ARENA_PAGE + take16(in) % 64;

	if (size)
		files->file[1].data[at % size] ^= 1 << take8(in) % 8;
}

static void edit(struct files *files, struct input *in)
{
	uint8_t what = take8(in);

	switch (what % 16) {
	case 11:
	case 12:
		edit_handle(files, in);
		break;
	case 13:
		if (what & 16)
			edit_blocks(files, in);
		else
			edit_data(files, in);
		break;
	case 14:
		edit_root(files, in);
		break;
	case 15:
		edit_size(files, in);
		break;
	default:
		edit_cells(files, in, what);
		break;
	}
}

/* ----------------------------------------------------------------- phases */

static void ops(struct model *m, struct input *in, unsigned int count)
{
	while (count-- && in->at < in->end) {
		uint8_t what = take8(in);

		if (model_op(m, what % 12, in))
			continue;
		if (what % 12 == 10)
			tmem_step(m->store, what);
		else
			tmem_shrink(m->store, (uint64_t)what * PAGE);
	}
}

/* Nothing is known of a key any more but what was put there. */
static void doubt(struct model *m)
{
	m->damaged = true;
	m->promised = 0;
	for (unsigned int p = 0; p < POOLS; p++)
		for (unsigned int o = 0; o < OBJECTS; o++)
			for (unsigned int i = 0; i < INDEXES; i++)
				m->key[p][o][i].known = KNOWN_ANY;
}

static bool adopt_fds(struct model *m, const int fd[TMEM_TENANT_FDS])
{
	struct tmem_tenant *tenant;
	int error = tmem_tenant_adopt(m->store, "adopt", &limits, fd, &tenant);

	require(!error || error == -EUCLEAN || error == -ESTALE ||
			error == -ENOMEM,
		"adopt: %d", error);
	if (!error)
		model_adopted(m, tenant);
	return !error;
}

/* The first one has no memory at some point, and all is as it was. */
static void adopt_without_memory(struct model *m, struct failing_memory *memory,
				 const int fd[TMEM_TENANT_FDS], uint8_t call)
{
	if (!call)
		return;
	atomic_store(&memory->calls, 0);
	atomic_store(&memory->fail_at, call);
	if (adopt_fds(m, fd))
		tmem_tenant_detach(m->tenant);
	m->tenant = NULL;
	atomic_store(&memory->fail_at, 0);
}

static void fds_close(const int fd[TMEM_TENANT_FDS])
{
	for (unsigned int i = 0; i < TMEM_TENANT_FDS; i++)
		close(fd[i]);
}

static bool damage_and_adopt(struct model *m, struct failing_memory *memory,
			     struct input *in)
{
	unsigned int edits = take8(in) % (MAX_EDITS + 1);
	int fd[TMEM_TENANT_FDS];
	struct files files;
	bool adopted;

	model_detach(m, fd);
	files_map(&files, fd);
	if (edits)
		doubt(m);
	while (edits--)
		edit(&files, in);
	files_unmap(&files);
	adopt_without_memory(m, memory, fd, take8(in));
	adopted = adopt_fds(m, fd);
	fds_close(fd);
	return adopted;
}

/* What it holds now is what the next one finds. */
static void adopt_again(struct model *m)
{
	struct tmem_stats before = { .size = sizeof(before) }, after = before;
	int fd[TMEM_TENANT_FDS];

	tmem_tenant_stats(m->tenant, &before);
	model_detach(m, fd);
	require(adopt_fds(m, fd), "cannot be adopted again");
	fds_close(fd);
	model_check(m, "adopted again");
	tmem_tenant_stats(m->tenant, &after);
	require(before.persistent_pages == after.persistent_pages &&
			before.persistent_raw_bytes ==
				after.persistent_raw_bytes,
		"%ju pages, then %ju", (uintmax_t)before.persistent_pages,
		(uintmax_t)after.persistent_pages);
	model_sweep(m);
}

static void use(struct model *m, struct input *in)
{
	model_check(m, "adopted");
	/* Half of them as they were found, half looked at before. */
	if (take8(in) & 1)
		model_sweep(m);
	ops(m, in, MAX_OPS);
	model_check(m, "used");
	adopt_again(m);
	while (tmem_step(m->store, 1000))
		;
	model_check(m, "at rest");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct failing_memory memory = { 0 };
	struct tmem_store_config config = {
		.size = sizeof(config),
		.flags = size & 1 ? TMEM_STORE_SIZE_CLASSES : 0,
		.max_bytes = 32 * MIB,
		.cgroup_headroom = UINT64_MAX,
		.host_headroom = UINT64_MAX,
		.memory = &failing_ops,
		.memory_opaque = &memory,
	};
	struct input in = { data, data + size };
	struct tmem_store *store;
	static struct model m;

	require(!tmem_store_create(&config, &store), "no store");
	model_open(&m, store, "adopt", &limits);
	m.promised = limits.persistent_reserved;
	ops(&m, &in, take8(&in) % MAX_OPS);
	if (damage_and_adopt(&m, &memory, &in))
		use(&m, &in);
	model_close(&m);
	tmem_store_destroy(store);
	require(!atomic_load(&memory.live), "memory leaks");
	return 0;
}
