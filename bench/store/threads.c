/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two threads against one, and bare LZ4's two against one beside
 */
#include <sched.h>

#include "sides.h"

static bool has_cpus(int needed)
{
	cpu_set_t set;

	return !sched_getaffinity(0, sizeof(set), &set) &&
	       CPU_COUNT(&set) >= needed;
}

/*
 * Each side does half of the slices with one thread and half with two, the
 * halves exchanged from round to round.  Wall time, for what is looked for is
 * waiting.
 */
static void take_turns_threads(struct bench *bench, side_fn *tmem, side_fn *lz4,
			       unsigned int round, struct sample *sample)
{
	unsigned int half = SLICES / 2, first = round % 2 * half;
	unsigned int second = half - first;
	struct spent of_tmem[2] = { 0 }, of_lz4[2] = { 0 };
	double half_pages = bench->pages / 2;

	for (unsigned int i = 0; i < half; i++) {
		unsigned int far = (i + half / 2) % half;

		timed(bench, lz4, first + i, 1, &of_lz4[0]);
		timed(bench, tmem, second + i, 1, &of_tmem[0]);
		background(bench, STEP_PAGES);
		timed(bench, lz4, second + far, 2, &of_lz4[1]);
		timed(bench, tmem, first + far, 2, &of_tmem[1]);
		background(bench, STEP_PAGES);
	}
	background(bench, 1);
	sample->tmem_us = of_tmem[1].wall_s / half_pages * 1e6;
	sample->lz4_us = of_lz4[1].wall_s / half_pages * 1e6;
	sample->ratio = (of_tmem[0].wall_s / of_tmem[1].wall_s) /
			(of_lz4[0].wall_s / of_lz4[1].wall_s);
	sample->wall_ratio = sample->ratio;
	sample->lz4_speedup = of_lz4[0].wall_s / of_lz4[1].wall_s;
	sample->background = bench->background.cpu_s /
			     (of_tmem[0].wall_s + of_tmem[1].wall_s);
}

bool threads_row(struct bench *bench, bool put, bool own, unsigned int round,
		 struct sample *sample)
{
	if (!has_cpus(2))
		return false;
	order_keys_threads(bench, MAX_RUN, own ? OWN_OBJECTS : SAME_OBJECT);
	if (put)
		order_sources(bench);
	else
		find_sources(bench);
	take_turns_threads(bench, put ? tmem_put : tmem_get,
			   put ? lz4_put : lz4_get, round, sample);
	if (put)
		note_held(bench, 0, bench->pages);
	return true;
}
