/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pages to work on
 *
 * Memory of processes that this program starts itself: what strangers'
 * processes hold is nobody's business and differs from day to day.  Duplicates
 * are left out, because one copy would be warm when the next comes, and so are
 * pages of one repeated word, which no codec sees.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

void *small_pages(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("no memory for %.0f MiB: free some, or use --quick",
		    bytes / MIB);
	/* Huge pages on one side only would be an unfair advantage. */
	madvise(memory, bytes, MADV_NOHUGEPAGE);
	memset(memory, 0, bytes);
	return memory;
}

void small_pages_free(void *memory, size_t bytes)
{
	munmap(memory, bytes);
}

/* ------------------------------------------------------------ unique pages */

/* Open addressing; the table is a power of two, at least twice the pages. */
struct seen {
	uint32_t *entry; /* page number + 1 */
	uint32_t mask;
};

static uint64_t hash_page(const char *page)
{
	uint64_t hash = 0, word;

	for (size_t i = 0; i < PAGE; i += 8) {
		memcpy(&word, page + i, 8);
		hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
		hash ^= hash >> 32;
	}
	return hash;
}

static bool same_filled(const char *page)
{
	return !memcmp(page, page + 4, PAGE - 4);
}

static void corpus_open(struct corpus *corpus, struct seen *seen,
			size_t capacity)
{
	uint32_t size = 1;

	corpus->capacity = capacity;
	corpus->memory = small_pages(capacity * PAGE);
	while (size < 2 * capacity)
		size *= 2;
	seen->mask = size - 1;
	seen->entry = calloc(size, sizeof(*seen->entry));
	if (!seen->entry)
		die("no memory for %u hashes", size);
}

/* Keeps the page that lies behind the last one, if it is one of its kind. */
static void corpus_keep(struct corpus *corpus, struct seen *seen)
{
	char *page = corpus->memory + (size_t)corpus->pages * PAGE;
	uint32_t at = hash_page(page) & seen->mask;

	corpus->seen++;
	if (same_filled(page)) {
		corpus->same_filled++;
		return;
	}
	for (; seen->entry[at]; at = (at + 1) & seen->mask) {
		size_t other = seen->entry[at] - 1;

		if (!memcmp(corpus->memory + other * PAGE, page, PAGE)) {
			corpus->duplicates++;
			return;
		}
	}
	seen->entry[at] = ++corpus->pages;
}

/* Shuffles the pages and cuts them to @pages. */
static void corpus_close(struct corpus *corpus, struct seen *seen,
			 uint32_t pages)
{
	uint64_t random = 1;

	free(seen->entry);
	if (corpus->pages < 4096)
		die("corpus '%s': %u pages found, 4096 needed: %s",
		    corpus->name, corpus->pages, corpus->what);
	corpus->page = malloc(corpus->pages * sizeof(*corpus->page));
	if (!corpus->page)
		die("no memory for %u addresses", corpus->pages);
	for (uint32_t i = 0; i < corpus->pages; i++) {
		uint32_t j = next_random(&random) % (i + 1);

		corpus->page[i] = corpus->page[j];
		corpus->page[j] = corpus->memory + (size_t)i * PAGE;
	}
	if (corpus->pages > pages)
		corpus->pages = pages;
	progress("corpus '%s': %u pages (%.0f MiB) of %ju read; left out %ju "
		 "same-filled, %ju duplicates",
		 corpus->name, corpus->pages, corpus->pages * (PAGE / MIB),
		 (uintmax_t)corpus->seen, (uintmax_t)corpus->same_filled,
		 (uintmax_t)corpus->duplicates);
}

/* Of 5 x 10^6 pages that are joined from 32768 some 200 pairs are the same. */
const char *corpus_any_page(const struct corpus *corpus, uint32_t number,
			    char *buffer)
{
	uint64_t random = (number + 1) * 0x9e3779b97f4a7c15ull;
	uint32_t head, tail, cut;

	if (number < corpus->pages)
		return corpus->page[number];
	next_random(&random);
	head = next_random(&random) % corpus->pages;
	tail = next_random(&random) % (corpus->pages - 1);
	tail += tail >= head;
	cut = 64 * (1 + next_random(&random) % (PAGE / 64 - 1));
	memcpy(buffer, corpus->page[head], cut);
	memcpy(buffer + cut, corpus->page[tail] + cut, PAGE - cut);
	return buffer;
}

void corpus_free(struct corpus *corpus)
{
	munmap(corpus->memory, corpus->capacity * PAGE);
	free(corpus->page);
}

/* --------------------------------------------------------------- processes */

struct process {
	const char *kind;
	pid_t pid;
	pid_t memory; /* whose it is to be read: its own, or its child's */
	int to, from; /* its input, its output */
};

static void process_start(struct process *process, const char *script,
			  unsigned int mib)
{
	int to[2], from[2];
	char size[16];

	snprintf(size, sizeof(size), "%u", mib);
	if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	process->pid = fork();
	if (process->pid < 0)
		die("fork: %s", strerror(errno));
	if (!process->pid) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		/* The order of its dictionaries. */
		setenv("PYTHONHASHSEED", "0", 1);
		execl("/usr/bin/python3", "python3", script, process->kind,
		      size, (char *)NULL);
		fprintf(stderr,
			"%s: cannot run /usr/bin/python3: %s: install the "
			"package python3\n",
			program_invocation_short_name, strerror(errno));
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	process->to = to[1];
	process->from = from[0];
}

static void process_wait_ready(struct process *process)
{
	struct pollfd poll_fd = { .fd = process->from, .events = POLLIN };
	char answer[32] = "";

	while (!poll(&poll_fd, 1, 5000))
		progress("waiting for the memory of '%s'", process->kind);
	if (read(process->from, answer, sizeof(answer) - 1) <= 0 ||
	    sscanf(answer, "ready %d", &process->memory) != 1)
		die("the process '%s' ended before it was ready",
		    process->kind);
}

static void process_stop(struct process *process)
{
	close(process->to);
	close(process->from);
	waitpid(process->pid, NULL, 0);
}

/* Pages of [start, end) that are in RAM: others would read as zeros. */
static void read_range(struct corpus *corpus, struct seen *seen, int memory,
		       int pagemap, uint64_t start, uint64_t end)
{
	for (uint64_t at = start; at < end && corpus->pages < corpus->capacity;
	     at += PAGE) {
		char *page = corpus->memory + (size_t)corpus->pages * PAGE;
		uint64_t entry = 0;

		if (pread(pagemap, &entry, sizeof(entry), at / PAGE * 8) !=
			    sizeof(entry) ||
		    !(entry >> 63))
			continue;
		if (pread(memory, page, PAGE, at) == PAGE)
			corpus_keep(corpus, seen);
	}
}

static int proc_open(pid_t pid, const char *name)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("%s: %s: run as root, or set kernel.yama.ptrace_scope to 1 "
		    "or 0",
		    path, strerror(errno));
	return fd;
}

static void process_read(struct corpus *corpus, struct seen *seen,
			 const struct process *process)
{
	int memory = proc_open(process->memory, "mem");
	int pagemap = proc_open(process->memory, "pagemap");
	FILE *maps = fdopen(proc_open(process->memory, "maps"), "r");
	char line[512];

	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long long start, end, inode;
		char mode[8];

		/* Writable and of no file: heap, stack, anonymous. */
		if (sscanf(line, "%llx-%llx %7s %*x %*s %llu", &start, &end,
			   mode, &inode) == 4 &&
		    !inode && mode[1] == 'w')
			read_range(corpus, seen, memory, pagemap, start, end);
	}
	fclose(maps);
	close(memory);
	close(pagemap);
}

void corpus_processes(struct corpus *corpus, const char *script, uint32_t pages)
{
	struct process processes[] = {
		{ .kind = "records" },
		{ .kind = "source" },
		{ .kind = "database" },
		{ .kind = "compiler" },
	};
	size_t count = ARRAY_SIZE(processes);
	/* Some pages are left out: an eighth more than a fair share. */
	unsigned int mib = pages * (PAGE / MIB) / count * 9 / 8 + 4;
	struct seen seen;

	corpus->name = "anon";
	corpus->what = "anonymous memory of processes: Python's records, "
		       "Python's syntax trees and code, SQLite, gcc -O2";
	corpus_open(corpus, &seen, pages + pages / 2);
	progress("starting %zu processes of %u MiB", count, mib);
	for (size_t i = 0; i < count; i++)
		process_start(&processes[i], script, mib);
	for (size_t i = 0; i < count; i++) {
		process_wait_ready(&processes[i]);
		process_read(corpus, &seen, &processes[i]);
		process_stop(&processes[i]);
	}
	corpus_close(corpus, &seen, pages);
}

/* --------------------------------------------------------------- libraries */

/* nftw() has no argument for its callback. */
static struct {
	struct corpus *corpus;
	struct seen *seen;
	uint32_t pages;
} walk;

static int read_library(const char *path, const struct stat *stat, int type,
			struct FTW *ftw)
{
	static const char elf[4] = { 0x7f, 'E', 'L', 'F' };
	struct corpus *corpus = walk.corpus;
	char magic[4];
	int fd;

	if (type != FTW_F || stat->st_size < 64 * 1024)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (pread(fd, magic, 4, 0) == 4 && !memcmp(magic, elf, 4)) {
		for (off_t at = 0;
		     at + PAGE <= stat->st_size && corpus->pages < walk.pages;
		     at += PAGE) {
			char *page =
				corpus->memory + (size_t)corpus->pages * PAGE;

			if (pread(fd, page, PAGE, at) == PAGE)
				corpus_keep(corpus, walk.seen);
		}
	}
	close(fd);
	return corpus->pages == walk.pages;
}

void corpus_libraries(struct corpus *corpus, uint32_t pages)
{
	static const char *const folders[] = { "/usr/lib", "/usr/bin",
					       "/usr/sbin", "/usr/libexec" };
	struct seen seen;

	corpus->name = "libs";
	corpus->what = "files of shared libraries and programs in /usr";
	corpus_open(corpus, &seen, pages + 1);
	progress("reading libraries");
	walk.corpus = corpus;
	walk.seen = &seen;
	walk.pages = pages;
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		if (nftw(folders[i], read_library, 32, FTW_PHYS) > 0)
			break;
	corpus_close(corpus, &seen, pages);
}

/* -------------------------------------------------------------------- file */

void corpus_file(struct corpus *corpus, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat stat;

	if (fd < 0 || fstat(fd, &stat))
		die("%s: %s", path, strerror(errno));
	corpus->name = "anon";
	corpus->what = path;
	corpus->capacity = corpus->pages = corpus->seen = stat.st_size / PAGE;
	if (corpus->pages < 4096)
		die("%s: %u pages, 4096 needed", path, corpus->pages);
	corpus->memory = small_pages(corpus->capacity * PAGE);
	corpus->page = malloc(corpus->pages * sizeof(*corpus->page));
	if (!corpus->page)
		die("no memory for %u addresses", corpus->pages);
	for (uint32_t i = 0; i < corpus->pages; i++) {
		corpus->page[i] = corpus->memory + (size_t)i * PAGE;
		if (pread(fd, corpus->page[i], PAGE, (off_t)i * PAGE) != PAGE)
			die("%s: cannot be read", path);
	}
	close(fd);
}
