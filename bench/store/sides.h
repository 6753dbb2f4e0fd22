/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two sides that take turns, libtmem and bare LZ4, and the orders in which
 * they visit pages: sides.c
 */
#ifndef BENCH_SIDES_H
#define BENCH_SIDES_H

#include "bench-store.h"
#include "tmem/tmem.h"

#define SLICES	8u
#define MAX_RUN 16u
/*
 * Passes are cut to whole runs in whole slices, for one thread and two, in one
 * object and two.
 */
#define GRANULE (SLICES * MAX_RUN * 4)
#define THREADS 2u
/* Pages are decoded into these in turn, as both sides' guests would. */
#define RING 32u
/* More than one core can have of any cache that is sold. */
#define EVICT_BYTES (64u << 20)
/*
 * As they are, compressed, and the pages that they are decoded into: 512 KiB,
 * which a core's second cache has or nearly has.
 */
#define HOT_PAGES 64u
/* LZ4 as host/libtmem/codec.c has it; fill() in sides.c compares the lengths. */
#define LZ4_ACCELERATION 1
#define LZ4_CAP		 (PAGE - PAGE / 16)
/* A store's limit that is in nobody's way. */
#define NO_LIMIT (1ull << 40)

struct chunk {
	char *data;
	uint32_t length;
};

/* What one thread works with. */
struct worker {
	struct tmem_ctx *ctx;
	char *state;  /* LZ4's */
	char *stored; /* one compressed page */
	char *ring;
};

struct spent {
	double cpu_s; /* of the calling thread */
	double wall_s;
};

struct bench {
	struct corpus *corpus;
	uint32_t pages;
	struct chunk *chunk; /* by page */
	double mean_length, raw_share;
	struct tmem_store *store;
	/* Keys 0 .. pages - 1, always all there: half of them in each of two
	 * objects. */
	struct tmem_tenant *full;
	struct tmem_tenant *tenant; /* that the present row works on */
	uint32_t *holds;	    /* by key: which page */
	/* The present pass: keys, and what is put there or found there. */
	uint32_t *key, *source;
	struct chunk *visit; /* chunk[source[i]] */
	unsigned int run;
	/* The caches keep what they have before a slice. */
	bool hot;
	/* Puts call tmem_step() as the device does; else some thread does. */
	bool steps;
	/* Times are by the wall clock: the kernel's count of CPU time is too
	 * coarse. */
	bool wall;
	/* Within the present slice: not the store's time. */
	struct spent background;
	struct worker worker[THREADS];
	char *evict;
	uint64_t random;
	int zram; /* a block device, while it is one of the sides */
	struct mapping {
		void *memory;
		size_t bytes;
	} mapping[24];
	unsigned int mappings;
};

typedef void side_fn(struct bench *bench, struct worker *worker, uint32_t from,
		     uint32_t to);
side_fn lz4_put, lz4_get, tmem_put, tmem_get;

/* CPU time of this thread. */
double cpu_s(void);
/* One op over a run of keys; all its pages must be there. */
void submit(struct worker *worker, struct tmem_tenant *tenant,
	    enum tmem_verb verb, uint32_t object, uint64_t index,
	    struct iovec *iov, unsigned int run);
/* Put one page, which must not be refused. */
void put_page(struct worker *worker, struct tmem_tenant *tenant, uint64_t index,
	      const char *page);
/* tmem_step() until fewer than @enough pages a call are left; its time. */
struct spent step_until(struct tmem_store *store, unsigned int enough);
/* The same in the midst of a pass, whose time it is not. */
void background(struct bench *bench, unsigned int enough);

/* A store with headroom looked after, as in the product. */
struct tmem_store *store_open(uint64_t max_bytes);
/* The same with flags, TMEM_STORE_*. */
struct tmem_store *store_open_with(uint64_t max_bytes, uint32_t flags);
/* A tenant of @pages reserved pages with one pool, of the kind @flags. */
struct tmem_tenant *tenant_open(struct tmem_store *store, const char *name,
				uint32_t pages, uint32_t flags);
/* One that works without struct bench: @ctx and @ring. */
void worker_open(struct tmem_store *store, struct worker *worker);
void worker_close(struct worker *worker);

/* How the two threads of a pass find their objects. */
enum layout {
	ANYWHERE,
	SAME_OBJECT, /* both in one, the next slice in the other */
	OWN_OBJECTS, /* each in its own */
};

/* Keys in runs: in order, or the runs at random. */
void order_keys(struct bench *bench, unsigned int run, bool shuffle);
/*
 * A few keys over and over, at random, so that all that is needed stays in the
 * caches.  What is @put are the pages that these keys hold.
 */
void order_keys_hot(struct bench *bench, unsigned int run, bool put);
/* At random, for two threads. */
void order_keys_threads(struct bench *bench, unsigned int run,
			enum layout layout);
/* Pages to put, at random. */
void order_sources(struct bench *bench);
/* Pages that the keys hold, in the order in which the keys are visited. */
void find_sources(struct bench *bench);
/* A part of the pass was put. */
void note_held(struct bench *bench, uint32_t from, uint32_t to);

void evict_caches(char *evict);
/* Each side does every slice, with one thread. */
void take_turns(struct bench *bench, side_fn *ours, side_fn *lz4,
		unsigned int round, struct sample *sample);
/*
 * Adds what a slice takes, done by one thread or by two, each one half.  Work
 * in the background is left out; it stays in bench->background.
 */
void timed(struct bench *bench, side_fn *side, unsigned int slice,
	   unsigned int threads, struct spent *spent);

#endif /* BENCH_SIDES_H */
