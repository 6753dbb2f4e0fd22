// SPDX-License-Identifier: BSD-3-Clause
/*
 * A checksummed working set: anonymous memory that is larger than the guest's
 * RAM is written, walked and rewritten, and every byte is verified.
 *
 * A page's contents follow from its number and its version, so nothing has to
 * be remembered but a version per page.  Of each page some words are zeros,
 * some repeat as text does, and some are random: it compresses, as memory
 * does, to about two fifths.
 */
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

static uint8_t *memory;
static uint32_t *versions;
static unsigned long pages, wrong;
static unsigned int entropy = 35; /* percent of words that are random */
static uint64_t seed = 1;

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

static void write_page(unsigned long page)
{
	generate((uint64_t *)(memory + page * PAGE), page, ++versions[page]);
}

static void check_page(unsigned long page, const char *who)
{
	uint64_t want[WORDS];
	const uint64_t *have = (uint64_t *)(memory + page * PAGE);
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

/* Every page once, in an order that looks random: a step coprime to them. */
static void walk(int random, unsigned int rewrite, const char *who)
{
	unsigned long i, page = 0, step = 1;

	if (random) {
		step = pages * 0.618;
		step |= 1;
		while (pages % step == 0 || (pages % 3 == 0 && step % 3 == 0) ||
		       (pages % 5 == 0 && step % 5 == 0))
			step += 2;
	}
	for (i = 0; i < pages; i++) {
		check_page(page, who);
		if (rewrite && mix(page ^ versions[page] ^ i) % 100 < rewrite)
			write_page(page);
		page = (page + step) % pages;
	}
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
	     "  -m  size of the set (default 64)\n"
	     "  -r  rounds: one in order, one at random (default 1)\n"
	     "  -w  pages rewritten in a round (default 10)\n"
	     "  -e  random words in a page; 100 does not compress (default 35)\n"
	     "  -f  processes that share the set copy-on-write at the end (default 0)\n"
	     "  -s  keep to the set, at a slow pace, for that long at the end (default 0)");
}

int main(int argc, char **argv)
{
	unsigned long mib = 64, i;
	unsigned int rounds = 1, rewrite = 10, forks = 0, hold = 0, r;
	double start, filled, ordered = 0, shuffled = 0, t;
	int bad = 0, c;

	while ((c = getopt(argc, argv, "m:r:w:e:f:S:s:h")) != -1)
		switch (c) {
		case 'm': mib = strtoul(optarg, NULL, 0); break;
		case 'r': rounds = atoi(optarg); break;
		case 'w': rewrite = atoi(optarg); break;
		case 'e': entropy = atoi(optarg); break;
		case 'f': forks = atoi(optarg); break;
		case 'S': seed = strtoull(optarg, NULL, 0); break;
		case 's': hold = atoi(optarg); break;
		default: usage(); return c != 'h';
		}
	pages = mib << 20 >> 12;
	versions = calloc(pages, sizeof(*versions));
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!versions || memory == MAP_FAILED || !pages) {
		fprintf(stderr, "workset: no memory for %lu MiB: %s\n", mib,
			strerror(errno));
		return 2;
	}
	start = now();
	for (i = 0; i < pages; i++)
		write_page(i);
	filled = now() - start;
	for (r = 0; r < rounds; r++) {
		t = now();
		walk(0, rewrite, "ordered");
		ordered += now() - t;
		t = now();
		walk(1, rewrite, "random");
		shuffled += now() - t;
	}
	if (forks)
		bad = children(forks);
	for (t = now(); hold && now() - t < hold;) {
		walk(0, 1, "held");
		usleep(100000);
	}
	printf("pages %lu wrong %lu fill %.3f ordered %.3f random %.3f total %.3f\n",
	       pages, wrong, filled, ordered, shuffled, now() - start);
	return bad || wrong ? 1 : 0;
}
