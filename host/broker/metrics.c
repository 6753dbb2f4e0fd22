// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The broker's numbers, for scrapers
 *
 * One table says what there is.  Most of it are members of what STATUS answers,
 * all of which are numbers of 64 bits.
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "metrics.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))

enum kind { GAUGE, COUNTER, INFO, HISTOGRAM };

/* Whose number it is, and so what is written for each. */
enum scope { HOST, STORE };

struct text {
	char *at;
	size_t used, size;
};

struct family {
	/* Without _total or _info, with its unit. */
	const char *name;
	const char *unit; /* NULL: none */
	const char *help;
	enum kind kind;
	enum scope scope;
	/* Of struct tmem_lease_host or _store; with @write: what it wants. */
	size_t offset;
	/* What is no such member; @s is NULL for the host. */
	void (*write)(struct text *t, const struct family *f, struct broker *b,
		      const struct metrics_answer *a, const struct store *s);
};

static double start_s;

/* ------------------------------------------------------------------ text */

__attribute__((format(printf, 2, 3))) static void add(struct text *t,
						      const char *format, ...)
{
	va_list ap;
	int length;

	va_start(ap, format);
	length = vsnprintf(t->at + t->used, t->size - t->used, format, ap);
	va_end(ap);
	/* It does fit: METRICS_PIECE is larger than any piece. */
	if (length > 0)
		t->used += MIN((size_t)length, t->size - t->used - 1);
}

static const char *suffix(enum kind kind)
{
	return kind == COUNTER ? "_total" : kind == INFO ? "_info" : "";
}

/*
 * A sample's name and labels.  Names of stores have no letter that would have
 * to be quoted; @more: other labels, or "".
 */
static void add_name(struct text *t, const struct family *f,
		     const struct store *s, const char *more)
{
	add(t, "%s%s", f->name, suffix(f->kind));
	if (s)
		add(t, "{vm=\"%s\"%s%s} ", s->name, *more ? "," : "", more);
	else if (*more)
		add(t, "{%s} ", more);
	else
		add(t, " ");
}

static void add_number(struct text *t, const struct family *f,
		       const struct store *s, uint64_t number)
{
	add_name(t, f, s, "");
	add(t, "%" PRIu64 "\n", number);
}

/* -------------------------------------------------- what is in no member */

static void write_build(struct text *t, const struct family *f,
			struct broker *b, const struct metrics_answer *a,
			const struct store *s)
{
	char labels[100];

	snprintf(labels, sizeof(labels), "version=\"%s\",protocol=\"%u\"",
		 VERSION, TMEM_LEASE_VERSION);
	add_name(t, f, s, labels);
	add(t, "1\n");
}

static void write_start(struct text *t, const struct family *f,
			struct broker *b, const struct metrics_answer *a,
			const struct store *s)
{
	add(t, "%s %.3f\n", f->name, start_s);
}

static void write_cpu(struct text *t, const struct family *f, struct broker *b,
		      const struct metrics_answer *a, const struct store *s)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	add_name(t, f, s, "");
	add(t, "%lld.%06ld\n", (long long)used.tv_sec, used.tv_nsec / 1000);
}

/* Nobody knows: no number is better than a large one. */
static void write_known(struct text *t, const struct family *f,
			struct broker *b, const struct metrics_answer *a,
			const struct store *s)
{
	uint64_t number = s ? s->evidence : a->host.available;

	if (number != UINT64_MAX)
		add_number(t, f, s, number);
}

static void write_reclaimable(struct text *t, const struct family *f,
			      struct broker *b, const struct metrics_answer *a,
			      const struct store *s)
{
	add_number(t, f, s, a->reclaimable);
}

static void write_grace(struct text *t, const struct family *f,
			struct broker *b, const struct metrics_answer *a,
			const struct store *s)
{
	add_name(t, f, s, "");
	add(t, "%.3f\n", a->host.grace_ms / 1000.0);
}

static void write_scrapes(struct text *t, const struct family *f,
			  struct broker *b, const struct metrics_answer *a,
			  const struct store *s)
{
	const uint8_t *at = (const uint8_t *)&a->scrapes + f->offset;
	uint64_t number;

	memcpy(&number, at, sizeof(number));
	add_number(t, f, s, number);
}

static const char *const state_name[] = {
	[TMEM_LEASE_WAITING] = "waiting",
	[TMEM_LEASE_ADMITTED] = "admitted",
	[TMEM_LEASE_ABSENT] = "absent",
};

#define NUM_STATES 3

static void add_state(struct text *t, const struct family *f,
		      const struct store *s, unsigned int state,
		      unsigned int number)
{
	char label[40];

	snprintf(label, sizeof(label), "state=\"%s\"", state_name[state]);
	add_name(t, f, s, label);
	add(t, "%u\n", number);
}

/* How many are in each; or for one, in which it is. */
static void write_states(struct text *t, const struct family *f,
			 struct broker *b, const struct metrics_answer *a,
			 const struct store *s)
{
	unsigned int number[NUM_STATES] = { 0 };

	if (s)
		number[s->state]++;
	else
		for (unsigned int i = 0; i < b->num_stores; i++)
			number[b->store[i]->state]++;
	for (unsigned int i = 0; i < NUM_STATES; i++)
		add_state(t, f, s, i, number[i]);
}

static void write_process(struct text *t, const struct family *f,
			  struct broker *b, const struct metrics_answer *a,
			  const struct store *s)
{
	char labels[64];

	snprintf(labels, sizeof(labels), "pid=\"%d\",uid=\"%u\"", s->who.pid,
		 s->who.uid);
	add_name(t, f, s, labels);
	add(t, "1\n");
}

static void write_benefit(struct text *t, const struct family *f,
			  struct broker *b, const struct metrics_answer *a,
			  const struct store *s)
{
	add_name(t, f, s, "");
	add(t, "%.4f\n", s->benefit_now / (double)BENEFIT_ONE);
}

static void write_overdue(struct text *t, const struct family *f,
			  struct broker *b, const struct metrics_answer *a,
			  const struct store *s)
{
	/* Its lease may have been cut since to what was to be left of it. */
	add_number(t, f, s, s->overdue && s->leased > s->target);
}

/* f->offset: in struct broker. */
static void write_histogram(struct text *t, const struct family *f,
			    struct broker *b, const struct metrics_answer *a,
			    const struct store *s)
{
	const struct histogram *h = (const void *)((const char *)b + f->offset);
	uint64_t sum = 0;

	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		sum += h->count[i];
		add(t, "%s_bucket{le=\"", f->name);
		if (i < HISTOGRAM_BUCKETS - 1)
			add(t, "%.3f", (1 << i) / 1000.0);
		else
			add(t, "+Inf");
		add(t, "\"} %" PRIu64 "\n", sum);
	}
	add(t, "%s_sum %.3f\n%s_count %" PRIu64 "\n", f->name,
	    h->sum_ms / 1000.0, f->name, sum);
}

/* ----------------------------------------------------------------- table */

#define OF_HOST(member)	  HOST, offsetof(struct tmem_lease_host, member), NULL
#define OF_STORE(member)  STORE, offsetof(struct tmem_lease_store, member), NULL
#define OF_BROKER(member) HOST, offsetof(struct broker, member), write_histogram
#define OF_SCRAPES(member)                                                     \
	HOST, offsetof(struct metrics_scrapes, member), write_scrapes

static const struct family families[] = {
	{ "tmem_build", NULL, "Version of tmem-broker and its protocol.", INFO,
	  HOST, 0, write_build },
	{ "process_start_time_seconds", "seconds",
	  "Start of tmem-broker, in seconds since 1970.", GAUGE, HOST, 0,
	  write_start },
	{ "process_cpu_seconds", "seconds",
	  "CPU time that tmem-broker has used.", COUNTER, HOST, 0, write_cpu },

	{ "tmem_host_limit_bytes", "bytes",
	  "What all leases may be together: limit= of [host].", GAUGE,
	  OF_HOST(limit) },
	{ "tmem_host_budget_bytes", "bytes",
	  "What leases may be now: less than the limit while the host is short "
	  "of memory.",
	  GAUGE, OF_HOST(budget) },
	{ "tmem_host_leased_bytes", "bytes", "Sum of the leases.", GAUGE,
	  OF_HOST(leased) },
	{ "tmem_host_reserved_bytes", "bytes", "Sum of the reservations.",
	  GAUGE, OF_HOST(reserved) },
	{ "tmem_host_held_bytes", "bytes",
	  "What stores hold, as far as it is believed.", GAUGE, OF_HOST(held) },
	{ "tmem_reclaimable_bytes", "bytes",
	  "What stores could give back at once: memory of the host that is as "
	  "good as available.",
	  GAUGE, HOST, 0, write_reclaimable },
	{ "tmem_host_available_bytes", "bytes",
	  "MemAvailable when the broker last looked.", GAUGE, HOST, 0,
	  write_known },
	{ "tmem_host_headroom_bytes", "bytes",
	  "MemAvailable that the host is to keep: headroom= of [host].", GAUGE,
	  OF_HOST(headroom) },
	{ "tmem_host_pressure", NULL, "1: the host is short of memory.", GAUGE,
	  OF_HOST(pressure) },
	{ "tmem_host_guest_pressure", NULL,
	  "What guests are told of it, as their device's pressure: 0 to 2.",
	  GAUGE, OF_HOST(backoff) },
	{ "tmem_host_pressure_relief_seconds", "seconds",
	  "From when the host was short of memory, and leases more than it can "
	  "back, until they were not.",
	  HISTOGRAM, OF_BROKER(relief) },

	{ "tmem_broker_stores", NULL, "Stores, by state.", GAUGE, HOST, 0,
	  write_states },
	{ "tmem_broker_connections", NULL,
	  "Connections of stores and operators.", GAUGE, OF_HOST(peers) },
	{ "tmem_broker_grace_seconds", "seconds",
	  "After a restart: until leases are granted again.", GAUGE, HOST, 0,
	  write_grace },
	{ "tmem_broker_welcome_seconds", "seconds",
	  "From HELLO of a store until its WELCOME.", HISTOGRAM,
	  OF_BROKER(welcome) },
	{ "tmem_broker_recall_seconds", "seconds",
	  "From a recall until all of it was released.", HISTOGRAM,
	  OF_BROKER(recall) },
	{ "tmem_broker_grants", NULL, "Leases that were made larger.", COUNTER,
	  OF_HOST(grants) },
	{ "tmem_broker_recalls", NULL, "Leases that were called back.", COUNTER,
	  OF_HOST(recalls) },
	{ "tmem_broker_recalls_overdue", NULL,
	  "Recalls that were not released in time.", COUNTER,
	  OF_HOST(overdue) },
	{ "tmem_broker_refused_stores", NULL, "Stores that were turned away.",
	  COUNTER, OF_HOST(refused) },
	{ "tmem_broker_lies", NULL,
	  "Claims beyond what a process can be seen to hold.", COUNTER,
	  OF_HOST(lies) },
	{ "tmem_broker_bad_connections", NULL,
	  "Connections that ended for a bad message.", COUNTER, OF_HOST(bad) },
	{ "tmem_broker_throttled_connections", NULL,
	  "Times that a connection was too fast.", COUNTER,
	  OF_HOST(throttled) },
	{ "tmem_broker_scrapes", NULL, "Scrapes that were answered in full.",
	  COUNTER, OF_SCRAPES(answered) },
	{ "tmem_broker_scrapes_failed", NULL,
	  "Scrapers that asked for something else, were too slow or went away.",
	  COUNTER, OF_SCRAPES(failed) },

	{ "tmem_vm", NULL, "Process and user of the store.", INFO, STORE, 0,
	  write_process },
	{ "tmem_vm_state", NULL, "1 for the state that the store is in.", GAUGE,
	  STORE, 0, write_states },
	{ "tmem_vm_frozen", NULL, "1: an operator keeps the lease as it is.",
	  GAUGE, OF_STORE(frozen) },
	{ "tmem_vm_recall_overdue", NULL,
	  "1: the store has not released in time what was called back.", GAUGE,
	  STORE, 0, write_overdue },
	{ "tmem_vm_pressure", NULL,
	  "How short of memory the store is: 0 not at all, to 3.", GAUGE,
	  OF_STORE(pressure) },
	{ "tmem_vm_weight", NULL, "Weight of the store, 1 to 10000.", GAUGE,
	  OF_STORE(weight) },
	{ "tmem_vm_benefit_ratio", "ratio",
	  "What the weight is multiplied by for what the store makes of its "
	  "memory.",
	  GAUGE, STORE, 0, write_benefit },
	{ "tmem_vm_reserved_bytes", "bytes",
	  "What is always the store's: its lease is never less.", GAUGE,
	  OF_STORE(reserved) },
	{ "tmem_vm_max_bytes", "bytes", "Most that is leased to the store.",
	  GAUGE, OF_STORE(max) },
	{ "tmem_vm_leased_bytes", "bytes",
	  "Its lease: what the store may hold.", GAUGE, OF_STORE(leased) },
	{ "tmem_vm_target_bytes", "bytes",
	  "What a recall brings the lease to; else what it is.", GAUGE,
	  OF_STORE(target) },
	{ "tmem_vm_wanted_bytes", "bytes",
	  "The lease that the store asks for; 0: what it has will do.", GAUGE,
	  OF_STORE(wanted) },
	{ "tmem_vm_seen_bytes", "bytes",
	  "What the store's process can be seen to hold: an upper bound.",
	  GAUGE, STORE, 0, write_known },
	{ "tmem_vm_held_bytes", "bytes", "What the store holds, as it says.",
	  GAUGE, OF_STORE(held) },
	{ "tmem_vm_fixed_bytes", "bytes",
	  "What the store holds and cannot give back: persistent pages, index.",
	  GAUGE, OF_STORE(fixed) },
	{ "tmem_vm_reclaimable_bytes", "bytes",
	  "What the store holds and can give back at once.", GAUGE,
	  OF_STORE(reclaimable) },
	{ "tmem_vm_persistent_raw_bytes", "bytes",
	  "Persistent pages (swap), as the guest sees them.", GAUGE,
	  OF_STORE(persistent_raw) },
	{ "tmem_vm_ephemeral_raw_bytes", "bytes",
	  "Ephemeral pages (cache), as the guest sees them.", GAUGE,
	  OF_STORE(ephemeral_raw) },
	{ "tmem_vm_stored_bytes", "bytes",
	  "All pages of the store, compressed.", GAUGE, OF_STORE(stored) },
	{ "tmem_vm_puts_pages", "pages", "Pages that were stored.", COUNTER,
	  OF_STORE(puts) },
	{ "tmem_vm_gets_pages", "pages", "Pages that the guest got back.",
	  COUNTER, OF_STORE(gets) },
	{ "tmem_vm_misses_pages", "pages",
	  "Pages that the guest asked for and that were not there.", COUNTER,
	  OF_STORE(misses) },
	{ "tmem_vm_refused_pages", "pages", "Pages that were not taken.",
	  COUNTER, OF_STORE(refused) },
	{ "tmem_vm_evicted_pages", "pages",
	  "Ephemeral pages that were dropped for others.", COUNTER,
	  OF_STORE(evictions) },
	{ "tmem_vm_refaulted_pages", "pages",
	  "Misses of pages that were dropped lately: more memory would have "
	  "kept them.",
	  COUNTER, OF_STORE(refaults) },
};

#define NUM_FAMILIES (sizeof(families) / sizeof(families[0]))

/* ---------------------------------------------------------------- answer */

static void write_head(struct text *t, const struct family *f, bool openmetrics)
{
	static const char *const kinds[] = { "gauge", "counter", "info",
					     "histogram" };
	/* The older format has samples' names, and no information. */
	const char *end = openmetrics ? "" : suffix(f->kind);
	const char *kind =
		f->kind == INFO && !openmetrics ? "gauge" : kinds[f->kind];

	add(t, "# HELP %s%s %s\n# TYPE %s%s %s\n", f->name, end, f->help,
	    f->name, end, kind);
	if (openmetrics && f->unit)
		add(t, "# UNIT %s %s\n", f->name, f->unit);
}

/* @s: NULL for the host. */
static void write_sample(struct text *t, const struct family *f,
			 struct broker *b, const struct metrics_answer *a,
			 const struct store *s)
{
	union tmem_lease_message m = { .host = a->host };
	uint64_t number;

	if (f->write) {
		f->write(t, f, b, a, s);
		return;
	}
	if (s)
		status_fill_store(s, &m.store);
	memcpy(&number, m.bytes + f->offset, sizeof(number));
	add_number(t, f, s, number);
}

static void next_family(struct metrics_answer *a)
{
	a->family++;
	a->headed = false;
	*a->after = 0;
}

/* A head, a sample of the host, or what a family has of one store. */
static void next_piece(struct broker *b, struct metrics_answer *a,
		       struct text *t)
{
	const struct family *f = &families[a->family];
	const struct store *s;

	if (!a->headed) {
		write_head(t, f, a->openmetrics);
		a->headed = true;
		return;
	}
	s = f->scope == STORE ? store_after(b, a->after) : NULL;
	if (s || f->scope == HOST)
		write_sample(t, f, b, a, s);
	if (s)
		strcpy(a->after, s->name);
	else
		next_family(a);
}

static uint64_t reclaimable_sum(struct broker *b)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < b->num_stores; i++) {
		struct store *s = b->store[i];
		uint64_t held = store_believed(b, s, s->report.held);

		sum += MIN(s->report.reclaimable, MIN(held, s->leased));
	}
	return sum;
}

void metrics_init(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	start_s = now.tv_sec + now.tv_nsec / 1e9;
}

void metrics_begin(struct broker *b, struct metrics_answer *a, bool openmetrics,
		   const struct metrics_scrapes *scrapes)
{
	*a = (struct metrics_answer){
		.openmetrics = openmetrics,
		.reclaimable = reclaimable_sum(b),
		.scrapes = *scrapes,
	};
	status_fill_host(b, &a->host);
}

size_t metrics_next(struct broker *b, struct metrics_answer *a, char *text,
		    size_t size)
{
	struct text t = { .at = text, .size = size };

	while (a->family < NUM_FAMILIES && size - t.used >= METRICS_PIECE)
		next_piece(b, a, &t);
	if (a->family == NUM_FAMILIES && size - t.used >= METRICS_PIECE) {
		if (a->openmetrics)
			add(&t, "# EOF\n");
		a->family++;
	}
	return t.used;
}
