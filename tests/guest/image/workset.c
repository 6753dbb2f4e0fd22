// SPDX-License-Identifier: BSD-3-Clause
/*
 * A checksummed working set: anonymous memory that is larger than the guest's
 * RAM is written, walked and rewritten, and every byte is verified.
 *
 * A page's contents follow from its number and its version, so nothing has to
 * be remembered but a version per page.  Of each page some words are zeros,
 * some repeat as text does, and some are random: it compresses, as memory
 * does, to about two fifths.
 *
 * With -M the set is a file in memory, which is read and written: swapped as
 * anonymous memory is, but without a page fault for each page, which costs User
 * Mode Linux more than all the rest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define WORDS (PAGE / 8)
#define BLOCK 16ul /* pages, with -M */

static uint8_t *memory;	       /* the set; with -M, @block pages of it */
static int file = -1;	       /* with -M */
static unsigned long block = 1; /* pages that are read and written together */
static unsigned long block_at = -1;
static int block_is_new; /* and to be written */
static uint32_t *versions;
static unsigned long pages, wrong;
static unsigned int entropy = 35; /* percent of words that are random */
static uint64_t seed = 1;
static FILE *progress;
static unsigned long done, to_do; /* pages written or looked at */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* One page more; @progress is told in hundredths. */
static void tell(void)
{
	unsigned long before = done * 100 / to_do, now = ++done * 100 / to_do;

	if (!progress || now == before || now > 100)
		return;
	fprintf(progress, "workset: %lu of 100\n", now);
	fflush(progress);
}

/* What page @page of version @version is. */
static void generate(uint64_t *to, unsigned long page, uint32_t version)
{
	uint64_t state = mix(seed ^ mix(page * 4294967291u + version));
	unsigned int i, random = WORDS * entropy / 100;
	unsigned int zeros = entropy >= 100 ? 0 : (WORDS - random) / 2;

	for (i = 0; i < random; i++)
		to[i] = state = mix(state);
	for (; i < WORDS - zeros; i++)
		to[i] = 0x2065726f6d656d20 + (mix(page + i / 8) & 0x0f0f);
	if (zeros)
		memset(to + i, 0, zeros * 8);
	/* No two pages are the same. */
	to[0] = state ^ page;
	to[WORDS - 1] = page << 32 | version;
}

static void transferred(ssize_t bytes)
{
	if (bytes == (ssize_t)(block * PAGE))
		return;
	perror("workset: the file in memory");
	exit(1);
}

static void flush_block(void)
{
	if (block_is_new)
		transferred(pwrite(file, memory, block * PAGE, block_at * block * PAGE));
	block_is_new = 0;
}

/* Where @page is, until the next call. */
static uint64_t *at(unsigned long page)
{
	if (file < 0)
		return (uint64_t *)(memory + page * PAGE);
	if (page / block != block_at) {
		flush_block();
		block_at = page / block;
		transferred(pread(file, memory, block * PAGE, block_at * block * PAGE));
	}
	return (uint64_t *)(memory + page % block * PAGE);
}

static void write_page(unsigned long page)
{
	generate(at(page), page, ++versions[page]);
	block_is_new = file >= 0;
}

static void check_page(unsigned long page, const char *who)
{
	uint64_t want[WORDS];
	const uint64_t *have = at(page);
	unsigned int i;

	generate(want, page, versions[page]);
	if (!memcmp(want, have, PAGE))
		return;
	if (wrong++ < 10) {
		for (i = 0; want[i] == have[i]; i++)
			;
		printf("%s: page %lu version %u differs at byte %u: want %016llx have %016llx\n",
		       who, page, versions[page], i * 8,
		       (unsigned long long)want[i], (unsigned long long)have[i]);
	}
}

/* Every block once, in an order that looks random: a step coprime to them. */
static void walk(int random, unsigned int rewrite, const char *who)
{
	unsigned long blocks = pages / block, i, page, first = 0, step = 1;

	if (random) {
		step = blocks * 0.618;
		step |= 1;
		while (blocks % step == 0 || (blocks % 3 == 0 && step % 3 == 0) ||
		       (blocks % 5 == 0 && step % 5 == 0))
			step += 2;
	}
	for (i = 0; i < pages; i++) {
		page = first * block + i % block;
		check_page(page, who);
		if (rewrite && mix(page ^ versions[page] ^ i) % 100 < rewrite)
			write_page(page);
		tell();
		if (page % block == block - 1)
			first = (first + step) % blocks;
	}
	flush_block();
}

/* The set, of zeros. */
static int make_set(int in_file)
{
	unsigned long mapped = in_file ? BLOCK : pages;

	memory = mmap(NULL, mapped * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		return -1;
	if (!in_file)
		return 0;
	block = BLOCK;
	file = memfd_create("workset", MFD_CLOEXEC);
	return file < 0 ? -1 : ftruncate(file, pages * PAGE);
}

/* A child sees the parent's pages as they were, while the parent rewrites. */
static int children(unsigned int n)
{
	unsigned int i;
	int status, bad = 0;

	for (i = 0; i < n; i++) {
		pid_t pid = fork();

		if (pid < 0) {
			perror("workset: fork");
			return 1;
		}
		if (!pid) {
			walk(1, 10, "child");
			walk(0, 0, "child");
			fflush(stdout);
			_exit(wrong != 0);
		}
	}
	walk(0, 30, "parent");
	for (i = 0; i < n; i++) {
		wait(&status);
		bad |= status;
	}
	walk(1, 0, "parent");
	return bad;
}

static void usage(void)
{
	puts("usage: workset [-m MIB] [-r ROUNDS] [-w PERCENT] [-e PERCENT] [-f CHILDREN] [-S SEED] [-s SECONDS]\n"
	     "               [-g FILE] [-p FILE] [-M] [-R]\n"
	     "  -m  size of the set (default 64)\n"
	     "  -r  rounds: one in order, one at random (default 1)\n"
	     "  -w  pages rewritten in a round (default 10)\n"
	     "  -e  random words in a page; 100 does not compress (default 35)\n"
	     "  -f  processes that share the set copy-on-write at the end (default 0)\n"
	     "  -s  keep to the set, at a slow pace, for that long at the end (default 0)\n"
	     "  -g  then keep to it until FILE is there\n"
	     "  -p  tell FILE, the console, say, how far it is, before -f, -s and -g\n"
	     "  -M  in a file in memory, without page faults\n"
	     "  -R  no walk in order");
}

int main(int argc, char **argv)
{
	unsigned long mib = 64, i;
	unsigned int rounds = 1, rewrite = 10, forks = 0, hold = 0, r;
	int in_file = 0, in_order = 1;
	double start, filled, ordered = 0, shuffled = 0, t;
	const char *gate = NULL;
	int bad = 0, c;

	while ((c = getopt(argc, argv, "m:r:w:e:f:S:s:g:p:MRh")) != -1)
		switch (c) {
		case 'm': mib = strtoul(optarg, NULL, 0); break;
		case 'r': rounds = atoi(optarg); break;
		case 'w': rewrite = atoi(optarg); break;
		case 'e': entropy = atoi(optarg); break;
		case 'f': forks = atoi(optarg); break;
		case 'S': seed = strtoull(optarg, NULL, 0); break;
		case 's': hold = atoi(optarg); break;
		case 'g': gate = optarg; break;
		case 'M': in_file = 1; break;
		case 'R': in_order = 0; break;
		case 'p':
			progress = fopen(optarg, "w");
			if (!progress) {
				perror(optarg);
				return 2;
			}
			break;
		default: usage(); return c != 'h';
		}
	pages = mib << 20 >> 12;
	versions = calloc(pages, sizeof(*versions));
	if (in_file && forks) {
		fputs("workset: -M: a file is not copied on write: no -f\n", stderr);
		return 2;
	}
	if (!versions || !pages || make_set(in_file)) {
		fprintf(stderr, "workset: no memory for %lu MiB: %s\n", mib,
			strerror(errno));
		return 2;
	}
	to_do = pages * (1 + (1 + in_order) * rounds);
	start = now();
	for (i = 0; i < pages; i++) {
		write_page(i);
		tell();
	}
	flush_block();
	filled = now() - start;
	for (r = 0; r < rounds; r++) {
		t = now();
		if (in_order)
			walk(0, rewrite, "ordered");
		ordered += now() - t;
		t = now();
		walk(1, rewrite, "random");
		shuffled += now() - t;
	}
	if (forks)
		bad = children(forks);
	for (t = now(); now() - t < hold || (gate && access(gate, F_OK));) {
		walk(0, 1, "held");
		usleep(100000);
	}
	printf("pages %lu wrong %lu fill %.3f ordered %.3f random %.3f total %.3f\n",
	       pages, wrong, filled, ordered, shuffled, now() - start);
	return bad || wrong ? 1 : 0;
}
