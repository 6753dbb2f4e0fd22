/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Limits and reservations: what may grow, and who makes way for it
 */
#include "internal.h"

/*
 * What a reservation costs beyond its raw bytes, at the worst: a page that
 * does not compress takes a slot (8 bytes) that is a span of its own (48), a
 * word, its checksum, their share of leaf and nodes (13), and a share of a
 * segment's descriptor (11): 80 bytes of 4096, where 1/48 is 85; and once, 1
 * MiB for classes and blocks that are not full, for segments that are not used
 * yet.
 */
#define RESERVATION_PARTS 48
#define RESERVATION_FIXED MIB

uint64_t tmem_reservation_cost(uint64_t raw)
{
	uint64_t extra = raw / RESERVATION_PARTS + RESERVATION_FIXED;

	if (!raw)
		return 0;
	return raw > UINT64_MAX - extra ? UINT64_MAX : raw + extra;
}

uint64_t tmem_reservation_fit(uint64_t max_bytes)
{
	uint64_t raw;

	if (max_bytes <= RESERVATION_FIXED)
		return 0;
	raw = max_bytes - RESERVATION_FIXED;
	raw -= raw / (RESERVATION_PARTS + 1);
	raw &= ~(uint64_t)(SEGMENT_BYTES - 1);
	return MIN(raw, TMEM_MAX_RESERVED);
}

/* ------------------------------------------------------------------- held */

uint64_t store_held(struct tmem_store *store)
{
	uint64_t held = 0;

	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next)
		held += tenant_held(container_of(l, struct tmem_tenant, link));
	return held;
}

/* Its tables of regions, too: sparse, but calloc(3) has written the zeroes. */
static uint64_t tenant_base(void)
{
	return sizeof(struct tmem_tenant);
}

/* What its pools take beside their objects and pages. */
static uint64_t pools_bytes(const struct tmem_tenant *tenant)
{
	return atomic_load(&tenant->num_pools) * sizeof(struct tmem_pool);
}

uint64_t tenant_held(struct tmem_tenant *tenant)
{
	uint64_t pools =
		atomic_load(&tenant->pools_limited) ? POOL_LIMITS_BYTES : 0;

	return tenant_base() + pools + pools_bytes(tenant) +
	       arena_held(&tenant->persistent) + arena_held(&tenant->ephemeral);
}

uint64_t tenant_index_share(struct tmem_tenant *tenant)
{
	return tenant->reserved / 8 + MIB;
}

/*
 * What pools will need of what they have to themselves though their tenant
 * holds as much already: other pools' pages, which nothing promises.  How much
 * of what is held is theirs is not known, but it is no more than if none
 * compressed.
 */
static uint64_t tenant_misplaced(const struct tmem_tenant *tenant)
{
	uint64_t raw = MIN(raw_promised(tenant), raw_unpromised(tenant));

	return raw + raw / RESERVATION_PARTS;
}

/*
 * What its reservation may still take beside what @tenant holds and @bytes. Its
 * own ephemeral pages make way for it; their index does not, nor does index of
 * persistent pages beyond the share of it that is guaranteed.
 */
static uint64_t tenant_unfulfilled(struct tmem_tenant *tenant, uint64_t bytes)
{
	uint64_t cost = tmem_reservation_cost(tenant->reserved);
	uint64_t index = arena_index_bytes(&tenant->persistent);
	uint64_t misplaced = tenant_misplaced(tenant);

	bytes += tenant_base() + MIN(pools_bytes(tenant), MAX_POOLS_SHARE) +
		 arena_page_bytes(&tenant->persistent) +
		 MIN(index, tenant_index_share(tenant)) +
		 arena_page_bytes(&tenant->ephemeral);
	bytes -= MIN(bytes, misplaced);
	return cost - MIN(cost, bytes);
}

/*
 * What is held, and what reservations may still take, once @grows holds @bytes
 * more, @within of which its reservation has room for.  store->lock held.
 */
static uint64_t store_committed(struct tmem_store *store,
				struct tmem_tenant *grows, uint64_t bytes,
				uint64_t within)
{
	uint64_t sum = store_held(store) + bytes;

	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next) {
		struct tmem_tenant *t =
			container_of(l, struct tmem_tenant, link);

		sum += tenant_unfulfilled(t, t == grows ? within : 0);
	}
	return sum;
}

static uint64_t store_reserved(struct tmem_store *store,
			       struct tmem_tenant *except)
{
	uint64_t bytes = 0;

	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next) {
		struct tmem_tenant *t =
			container_of(l, struct tmem_tenant, link);

		if (t != except)
			bytes += tmem_reservation_cost(t->reserved);
	}
	return bytes;
}

/* 0 or -EBUSY. */
int store_ask_host(struct tmem_store *store, uint64_t bytes)
{
	uint64_t held;

	pthread_mutex_lock(&store->lock);
	held = store_held(store);
	pthread_mutex_unlock(&store->lock);
	return headroom_take(&store->headroom, bytes, held) ? 0 : -EBUSY;
}

/* ----------------------------------------------------------------- growth */

/*
 * Is there room under the store's and the tenant's limits?  For what is
 * guaranteed only the store's counts: the room was kept for it.  What is not
 * must leave reservations what they may still take; where it cannot be helped
 * that they lack it already, because limits were changed, it may not lack more.
 */
static bool limits_allow(struct tmem_tenant *tenant, enum grows grows,
			 uint64_t bytes, bool guaranteed)
{
	bool persistent =
		grows == GROWS_PERSISTENT || grows == GROWS_PERSISTENT_INDEX;
	struct tmem_store *store = tenant->store;
	uint64_t max =
		persistent ? tenant->persistent_max : tenant->ephemeral_max;
	uint64_t held = arena_held(persistent ? &tenant->persistent
					      : &tenant->ephemeral);
	bool allow;

	if (!guaranteed && (bytes > max || held > max - bytes))
		return false;
	pthread_mutex_lock(&store->lock);
	max = store->max_bytes;
	held = store_held(store);
	allow = bytes <= max && held <= max - bytes;
	if (allow && !guaranteed) {
		bool index =
			grows == GROWS_INDEX || grows == GROWS_PERSISTENT_INDEX;
		/* Pages without a promise are in the way of others' own. */
		bool misplaced =
			grows == GROWS_PERSISTENT && raw_promised(tenant);
		uint64_t within = index || misplaced ? 0 : bytes;

		allow = store_committed(store, tenant, bytes, within) <= max ||
			tenant_unfulfilled(tenant, within) + bytes ==
				tenant_unfulfilled(tenant, 0);
	}
	pthread_mutex_unlock(&store->lock);
	return allow;
}

bool store_has_room(struct tmem_tenant *tenant, enum grows grows,
		    uint64_t bytes)
{
	return limits_allow(tenant, grows, bytes, false) &&
	       !store_ask_host(tenant->store, bytes);
}

/* Words that one op visits at most, in one go, to make room for itself. */
#define HELP_WORDS 1024
/* How often; what is guaranteed must not fail for lack of patience. */
#define HELP_TRIES	      4
#define HELP_TRIES_GUARANTEED 64

/* Who holds most @bytes of ephemeral pages for its weight; NULL: none has any.
 */
static struct tmem_tenant *heaviest_by(struct tmem_store *store,
				       uint64_t (*bytes)(struct arena *arena))
{
	struct tmem_tenant *found = NULL;
	uint64_t most = 0;

	for (struct list *l = store->tenants.next; l != &store->tenants;
	     l = l->next) {
		struct tmem_tenant *t =
			container_of(l, struct tmem_tenant, link);
		/* Bytes by 1/16: 2^60 of them and the weight's 14 bits. */
		uint64_t share =
			bytes(&t->ephemeral) / 16 * TMEM_MAX_WEIGHT / t->weight;

		if (share > most) {
			most = share;
			found = t;
		}
	}
	return found;
}

/* Whose ephemeral pages go, or NULL.  tenants_lock held. */
static struct tmem_tenant *heaviest(struct tmem_store *store)
{
	struct tmem_tenant *found = heaviest_by(store, arena_page_bytes);

	/* Same-filled pages have index alone. */
	return found ? found : heaviest_by(store, arena_held);
}

unsigned int store_evict(struct tmem_store *store, unsigned int max)
{
	struct tmem_tenant *victim;
	unsigned int evicted = 0;

	pthread_rwlock_rdlock(&store->tenants_lock);
	victim = heaviest(store);
	if (victim)
		evicted = tenant_evict(victim, max);
	/* All that it has may be busy: then it is others' turn. */
	for (struct list *l = store->tenants.next;
	     l != &store->tenants && !evicted; l = l->next)
		evicted = tenant_evict(
			container_of(l, struct tmem_tenant, link), max);
	pthread_rwlock_unlock(&store->tenants_lock);
	return evicted;
}

/* Is it the tenant's own limit for ephemeral pages that keeps it from growing?
 */
static bool own_limit(struct tmem_tenant *tenant, enum grows grows,
		      uint64_t bytes)
{
	uint64_t held = arena_held(&tenant->ephemeral);

	return (grows == GROWS_EPHEMERAL || grows == GROWS_INDEX) &&
	       held + bytes > tenant->ephemeral_max;
}

/* Is it the one for persistent pages?  Then no other page's end is of use. */
static bool at_persistent_max(struct tmem_tenant *tenant, enum grows grows,
			      uint64_t bytes)
{
	uint64_t held = arena_held(&tenant->persistent);

	return (grows == GROWS_PERSISTENT || grows == GROWS_PERSISTENT_INDEX) &&
	       (bytes > tenant->persistent_max ||
		held > tenant->persistent_max - bytes);
}

static bool evict_for(struct tmem_tenant *tenant, enum grows grows,
		      uint64_t bytes)
{
	struct tmem_store *store = tenant->store;
	struct tmem_tenant *victim = tenant;
	unsigned int evicted = 0;

	pthread_rwlock_rdlock(&store->tenants_lock);
	if (!own_limit(tenant, grows, bytes))
		victim = heaviest(store);
	if (victim)
		evicted = tenant_evict(victim, bytes / ARENA_PAGE);
	if (evicted) {
		/* Its index of them is room, too. */
		tenant_clean(victim, HELP_WORDS);
		tenant_release(victim, 64);
	}
	pthread_rwlock_unlock(&store->tenants_lock);
	return evicted;
}

/*
 * A store that holds more than it may, all of it promised, has no room to make,
 * and to find that out takes a look at all of its tenants: not for each put.
 */
#define VAIN_NS 1000000u

static bool sought_in_vain(struct tmem_store *store)
{
	uint64_t until = atomic_load(&store->vain_ns);

	return until && store_now_ns(store) < until;
}

/*
 * Make room: what has ended, then what is idle, then what lies between the
 * tenant's pages, then ephemeral pages by weight; then, for what is guaranteed,
 * what lies between others' pages, and any ephemeral pages, by weight, too.
 */
static bool make_room(struct tmem_tenant *tenant, enum grows grows,
		      uint64_t bytes, bool guaranteed)
{
	struct tmem_store *store = tenant->store;
	unsigned int done;

	if (guaranteed && sought_in_vain(store))
		return false;
	done = store_drain(store, HELP_WORDS);
	/* The words were pages of whoever it was. */
	if (done && guaranteed)
		each_tenant(store, 64, tenant_release);
	if (done < HELP_WORDS)
		done += tenant_clean(tenant, HELP_WORDS - done);
	done += tenant_release(tenant, 64);
	if (!done && tenant_pack(tenant, HELP_WORDS)) {
		tenant_release(tenant, 64);
		done++;
	}
	if (!done && !guaranteed && at_persistent_max(tenant, grows, bytes))
		return false;
	if (!done && evict_for(tenant, grows, bytes))
		done++;
	if (!done && guaranteed &&
	    (each_tenant(store, HELP_WORDS, tenant_clean) ||
	     each_tenant(store, 64, tenant_release) ||
	     each_tenant(store, HELP_WORDS, tenant_pack) ||
	     store_evict(store, bytes / ARENA_PAGE))) {
		each_tenant(store, 64, tenant_release);
		done++;
	}
	if (!done && guaranteed)
		atomic_store(&store->vain_ns, store_now_ns(store) + VAIN_NS);
	return done;
}

int store_may_grow(struct tmem_tenant *tenant, enum grows grows, uint64_t bytes,
		   bool guaranteed)
{
	struct tmem_store *store = tenant->store;
	int error = 0;

	for (unsigned int tries = 0;; tries++) {
		error = limits_allow(tenant, grows, bytes, guaranteed)
				? 0
				: -ENOSPC;
		if (!error)
			error = store_ask_host(store, bytes);
		/* What the host refuses it refuses for a while: no patience. */
		if (!error ||
		    tries >= (guaranteed && error == -ENOSPC
				      ? HELP_TRIES_GUARANTEED
				      : HELP_TRIES) ||
		    !make_room(tenant, grows, MAX(bytes, SEGMENT_BYTES),
			       guaranteed))
			break;
	}
	/* A promise is kept, though the store exceeds its limit by it. */
	if (error == -ENOSPC && guaranteed)
		error = store_ask_host(store, bytes);
	return error;
}

void store_note_held(struct tmem_store *store)
{
	uint64_t held, peak = atomic_load(&store->held_peak);

	pthread_mutex_lock(&store->lock);
	held = store_held(store);
	pthread_mutex_unlock(&store->lock);
	while (held > peak &&
	       !atomic_compare_exchange_weak(&store->held_peak, &peak, held))
		;
}

/* ----------------------------------------------------------------- limits */

/* As statistics have it: who lowers a limit looks at these. */
static uint64_t held_now(struct tmem_store *store)
{
	uint64_t held;

	pthread_mutex_lock(&store->lock);
	held = store_held(store) + sizeof(*store);
	pthread_mutex_unlock(&store->lock);
	return held;
}

int tmem_store_set_max(struct tmem_store *store, uint64_t max_bytes)
{
	uint64_t held, before = UINT64_MAX;
	int error = 0;

	CHECK_STORE(store);
	pthread_mutex_lock(&store->lock);
	if (!max_bytes || max_bytes < store_reserved(store, NULL))
		error = -EINVAL;
	else
		store->max_bytes = max_bytes;
	pthread_mutex_unlock(&store->lock);
	if (error)
		return error;
	/* Not all that goes is memory at once: as long as there is less of it. */
	while ((held = held_now(store)) > max_bytes && held < before) {
		before = held;
		tmem_shrink(store, held - max_bytes);
	}
	return 0;
}

/* store->lock held; @limits is of this version. */
int limits_apply(struct tmem_tenant *tenant, const struct tmem_limits *limits)
{
	struct tmem_store *store = tenant->store;
	uint64_t cost = tmem_reservation_cost(limits->persistent_reserved);
	uint64_t others = store_reserved(store, tenant);

	if (limits->persistent_reserved > TMEM_MAX_RESERVED ||
	    limits->weight > TMEM_MAX_WEIGHT ||
	    limits->persistent_reserved < tenant->pools_reserved ||
	    (limits->persistent_max && limits->persistent_max < cost))
		return -EINVAL;
	if (cost > store->max_bytes || others > store->max_bytes - cost)
		return -ENOSPC;
	tenant->limits = *limits;
	tenant->reserved = limits->persistent_reserved;
	tenant->shared = tenant->reserved - tenant->pools_reserved;
	tenant->weight = limits->weight ? limits->weight : TMEM_DEFAULT_WEIGHT;
	tenant->persistent_max =
		limits->persistent_max ? limits->persistent_max : UINT64_MAX;
	tenant->ephemeral_max = !limits->ephemeral_max ? UINT64_MAX
				: limits->ephemeral_max == TMEM_KEEP_NOTHING
					? 0
					: limits->ephemeral_max;
	return 0;
}

/* A turn of what lowers ephemeral pages to their limit; false: that is all. */
static bool enforce_turn(struct tmem_tenant *tenant)
{
	struct tmem_store *store = tenant->store;
	uint64_t held = arena_held(&tenant->ephemeral);
	uint64_t max = tenant->ephemeral_max, pages;
	bool progress;

	if (held <= max)
		return false;
	pages = MIN((held - max) / ARENA_PAGE + 1, TENANTS_TURN);
	pthread_rwlock_rdlock(&store->tenants_lock);
	progress = arena_punch(&tenant->ephemeral, TENANTS_TURN, true) ||
		   tenant_clean(tenant, TENANTS_TURN) ||
		   tenant_evict(tenant, pages);
	pthread_rwlock_unlock(&store->tenants_lock);
	return progress;
}

int tmem_tenant_set_limits(struct tmem_tenant *tenant,
			   const struct tmem_limits *limits)
{
	struct tmem_store *store;
	struct tmem_limits own;
	int error;

	CHECK_TENANT(tenant);
	if (SIZED_LIMITS_IN(&own, limits))
		return -EINVAL;
	store = tenant->store;
	pthread_mutex_lock(&store->lock);
	error = limits_apply(tenant, &own);
	pthread_mutex_unlock(&store->lock);
	while (!error && enforce_turn(tenant))
		;
	return error;
}

int tmem_tenant_get_limits(struct tmem_tenant *tenant,
			   struct tmem_limits *limits)
{
	struct tmem_limits own = { 0 };
	struct tmem_store *store;

	CHECK_TENANT(tenant);
	if (!SIZED_VALID(limits, reserved1))
		return -EINVAL;
	store = tenant->store;
	pthread_mutex_lock(&store->lock);
	own.persistent_reserved = tenant->reserved;
	own.persistent_max = MIN(tenant->persistent_max, store->max_bytes);
	own.ephemeral_max = tenant->ephemeral_max ? MIN(tenant->ephemeral_max,
							store->max_bytes)
						  : TMEM_KEEP_NOTHING;
	own.weight = tenant->weight;
	pthread_mutex_unlock(&store->lock);
	SIZED_OUT(limits, &own);
	return 0;
}

unsigned int tmem_tenant_pressure(struct tmem_tenant *tenant)
{
	uint64_t committed, all, max, held;
	unsigned int pressure = 0;
	struct tmem_store *store;

	CHECK_TENANT(tenant);
	store = tenant->store;
	held = arena_held(&tenant->persistent);
	pthread_mutex_lock(&store->lock);
	/* Its own reservation is there to be used by it. */
	committed = store_committed(store, NULL, 0, 0) -
		    tenant_unfulfilled(tenant, 0);
	all = store_held(store);
	max = store->max_bytes;
	pthread_mutex_unlock(&store->lock);
	if (headroom_short(&store->headroom, all))
		return 3;
	if (atomic_load(&tenant->refused))
		pressure = 2;
	else if (committed > max - max / 8 ||
		 held / 7 > tenant->persistent_max / 8)
		pressure = 1;
	return MAX(pressure, atomic_load(&store->least_pressure));
}

int tmem_store_set_pressure(struct tmem_store *store, unsigned int level)
{
	CHECK_STORE(store);
	if (level > 2)
		return -EINVAL;
	atomic_store(&store->least_pressure, level);
	return 0;
}
