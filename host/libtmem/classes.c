/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sizes of slots
 *
 * Three things cost memory: a page that is smaller than its slot, the rest of a
 * span behind its last slot, and the span of each class that is not full.  Many
 * classes help against the first and cost the last.  scripts/size-classes finds
 * the 65 sizes up to a page that together cost least for a tenant of 128 MiB
 * whose pages have all lengths alike; nearly all are a whole part of a span of
 * up to 10 pages.  docs/store.md says what they cost small and large tenants.
 */
#include "internal.h"

static const struct {
	uint16_t size;
	uint8_t pages;
} small[CLASSES_SMALL] = {
	{ 32, 1 },   { 64, 1 },	  { 96, 1 },   { 128, 1 },   { 160, 1 },
	{ 192, 1 },  { 224, 1 },  { 256, 1 },  { 288, 1 },   { 304, 1 },
	{ 336, 1 },  { 368, 1 },  { 400, 1 },  { 448, 1 },   { 480, 2 },
	{ 512, 1 },  { 544, 2 },  { 576, 1 },  { 624, 2 },   { 672, 1 },
	{ 720, 3 },  { 768, 3 },  { 816, 1 },  { 864, 3 },   { 896, 2 },
	{ 944, 3 },  { 1024, 1 }, { 1088, 4 }, { 1168, 2 },  { 1216, 3 },
	{ 1280, 5 }, { 1360, 1 }, { 1440, 6 }, { 1488, 4 },  { 1536, 3 },
	{ 1568, 5 }, { 1632, 2 }, { 1696, 5 }, { 1744, 3 },  { 1808, 4 },
	{ 1856, 5 }, { 1936, 9 }, { 2048, 1 }, { 2160, 9 },  { 2224, 6 },
	{ 2272, 5 }, { 2336, 4 }, { 2384, 7 }, { 2448, 3 },  { 2560, 5 },
	{ 2624, 9 }, { 2720, 2 }, { 2832, 9 }, { 2912, 5 },  { 2976, 8 },
	{ 3072, 3 }, { 3184, 7 }, { 3264, 4 }, { 3344, 9 },  { 3408, 5 },
	{ 3504, 6 }, { 3584, 7 }, { 3632, 8 }, { 3712, 10 }, { 4096, 1 },
};

/* By length in 16 byte steps: the first class that is large enough. */
static uint8_t small_class[ARENA_PAGE / 16 + 1];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fill_small_class(void)
{
	unsigned int class = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(small_class); i++) {
		if (i * 16 > small[class].size)
			class ++;
		small_class[i] = class;
	}
}

unsigned int class_of(uint32_t length)
{
	if (length <= ARENA_PAGE)
		return small_class[(length + 15) / 16];
	return CLASSES_SMALL + (length - ARENA_PAGE - 1) / CLASS_STEP_LARGE;
}

uint32_t class_size(unsigned int index)
{
	if (index < CLASSES_SMALL)
		return small[index].size;
	return ARENA_PAGE + (index - CLASSES_SMALL + 1) * CLASS_STEP_LARGE;
}

/* For what is larger than a page: the shortest span that wastes least. */
static unsigned int large_pages(uint32_t size)
{
	unsigned int best = UINT32_MAX, best_pages = 0;

	for (unsigned int pages = 1; pages <= SEGMENT_PAGES; pages++) {
		unsigned int bytes = pages * ARENA_PAGE, waste;

		if (bytes < size || (pages > 8 && best != UINT32_MAX))
			continue;
		waste = bytes % size * 128 / bytes;
		if (waste < best) {
			best = waste;
			best_pages = pages;
		}
	}
	return best_pages;
}

void class_init(struct size_class *class, unsigned int index)
{
	pthread_once(&once, fill_small_class);
	if (index == CLASS_SLOTTED) {
		class->pages = SEGMENT_PAGES;
	} else {
		class->size = class_size(index);
		class->pages = index < CLASSES_SMALL ? small[index].pages
						     : large_pages(class->size);
		class->slots = class->pages * ARENA_PAGE / class->size;
	}
	for (unsigned int q = 0; q < QUEUES; q++)
		list_init(&class->queue[q].partial);
	list_init(&class->full);
}
