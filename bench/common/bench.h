/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What benchmarks share
 *
 *   program.c   lines for people, the clock, random numbers
 *   corpus.c    pages to work on: of processes that it starts, of libraries, of
 *               a file
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE	      4096u
#define MIB	      (1024.0 * 1024.0)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* ---------------------------------------------------------------- program */

/* One line on stderr that says what is wrong and what mends it; exit 1. */
void die(const char *format, ...)
	__attribute__((format(printf, 1, 2), noreturn));
/* A line on stderr with the seconds since the first one. */
void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
double now_s(void);
/* xorshift64*; the same numbers every run. */
uint64_t next_random(uint64_t *state);

/* ----------------------------------------------------------------- corpus */

struct corpus {
	const char *name;
	const char *what; /* where the pages come from, for people */
	char *memory;	  /* mapped without huge pages */
	size_t capacity;  /* pages of @memory */
	/* Pages in random order, so that a part of them is a fair sample. */
	char **page;
	uint32_t pages;
	/* What was read and left out. */
	uint64_t seen, duplicates, same_filled;
};

/* Up to @pages pages of anonymous memory of processes that run @script. */
void corpus_processes(struct corpus *corpus, const char *script,
		      uint32_t pages);
/* Up to @pages pages of shared libraries' and programs' files. */
void corpus_libraries(struct corpus *corpus, uint32_t pages);
/* The pages of a file, in that order: at least 4096. */
void corpus_file(struct corpus *corpus, const char *path);
/*
 * Page @number of as many as are wanted, the same every time: a page of the
 * corpus, or, where that is too small, the head of one and the tail of another,
 * cut at a multiple of 64 bytes, which is put together in @buffer.
 */
const char *corpus_any_page(const struct corpus *corpus, uint32_t number,
			    char *buffer);
void corpus_free(struct corpus *corpus);
/* Memory that is neither in huge pages nor shared; zeroed and touched. */
void *small_pages(size_t bytes);
void small_pages_free(void *memory, size_t bytes);

#endif /* BENCH_H */
