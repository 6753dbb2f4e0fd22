/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which leaf has an index: for each object a radix tree of nodes, as high as
 * the largest index needs, as Linux's XArray is; so a file of up to 32 pages
 * has one leaf and no node.  Nodes are this process's memory: who adopts an
 * index makes them anew from the leaves.  All under the object's lock.
 */
#include "internal.h"

/* Leaf numbers that a tree of @levels can name, less one. */
static uint64_t levels_max(unsigned int levels)
{
	return levels * NODE_SHIFT >= 64 ? UINT64_MAX
					 : (1ull << levels * NODE_SHIFT) - 1;
}

static unsigned int child_index(uint64_t number, unsigned int level)
{
	return number >> (level - 1) * NODE_SHIFT & (NODE_ENTRIES - 1);
}

struct tmem_leaf *radix_find(struct tmem_object *object, uint64_t number)
{
	void *at = object->root;

	if (number > levels_max(object->levels))
		return NULL;
	for (unsigned int level = object->levels; level && at; level--)
		at = ((struct node *)at)->child[child_index(number, level)];
	return at;
}

/* The first leaf at or after @number below @at. */
static struct tmem_leaf *next_below(void *at, unsigned int level,
				    uint64_t number)
{
	struct node *node = at;
	unsigned int i;

	if (!at || !level)
		return at;
	for (i = child_index(number, level); i < NODE_ENTRIES; i++) {
		struct tmem_leaf *leaf =
			next_below(node->child[i], level - 1, number);

		if (leaf && leaf->number >= number)
			return leaf;
		/* Whatever comes after starts at its first leaf. */
		number = (number >> (level - 1) * NODE_SHIFT) + 1;
		number <<= (level - 1) * NODE_SHIFT;
	}
	return NULL;
}

struct tmem_leaf *radix_next(struct tmem_object *object, uint64_t number)
{
	struct tmem_leaf *leaf = NULL;

	if (number <= levels_max(object->levels))
		leaf = next_below(object->root, object->levels, number);
	return leaf && leaf->number >= number ? leaf : NULL;
}

/* Free empty nodes on the way to @number.  True if @*at became empty. */
static bool trim(struct arena *arena, void **at, unsigned int level,
		 uint64_t number)
{
	struct node *node = *at;
	void **child;

	if (!node || !level)
		return !node;
	child = &node->child[child_index(number, level)];
	if (trim(arena, child, level - 1, number)) {
		unsigned int used = 0;

		for (unsigned int i = 0; i < NODE_ENTRIES; i++)
			used += node->child[i] != NULL;
		node->used = used;
	}
	if (node->used)
		return false;
	index_free(arena, node, sizeof(*node));
	*at = NULL;
	return true;
}

static void radix_clean(struct tmem_object *object, uint64_t number)
{
	if (trim(object->pool->arena, &object->root, object->levels, number))
		object->levels = 0;
}

/* Levels of nodes, until @number is one that the tree can name. */
static int grow(struct tmem_object *object, uint64_t number)
{
	while (number > levels_max(object->levels)) {
		if (object->root) {
			struct node *node = index_zalloc(object->pool->arena,
							 sizeof(*node));

			if (!node)
				return -ENOMEM;
			node->child[0] = object->root;
			node->used = 1;
			object->root = node;
		}
		object->levels++;
	}
	return 0;
}

int radix_insert(struct tmem_object *object, struct tmem_leaf *leaf)
{
	struct arena *arena = object->pool->arena;
	int error = grow(object, leaf->number);
	void **at = &object->root;

	for (unsigned int level = object->levels; level && !error; level--) {
		struct node *node = *at;
		void **child;

		if (!node) {
			node = *at = index_zalloc(arena, sizeof(*node));
			if (!node) {
				error = -ENOMEM;
				break;
			}
		}
		child = &node->child[child_index(leaf->number, level)];
		if (!*child)
			node->used++;
		at = child;
	}
	if (error)
		radix_clean(object, leaf->number);
	else
		*at = leaf;
	return error;
}

static void **radix_place(struct tmem_object *object, uint64_t number)
{
	void **at = &object->root;

	for (unsigned int level = object->levels; level; level--)
		at = &((struct node *)*at)->child[child_index(number, level)];
	return at;
}

void radix_replace(struct tmem_object *object, struct tmem_leaf *leaf)
{
	*radix_place(object, leaf->number) = leaf;
}

void radix_remove(struct tmem_object *object, uint64_t number)
{
	*radix_place(object, number) = NULL;
	radix_clean(object, number);
}

static void forget_below(struct arena *arena, void *at, unsigned int level)
{
	struct node *node = at;

	if (!at || !level)
		return;
	for (unsigned int i = 0; i < NODE_ENTRIES; i++)
		forget_below(arena, node->child[i], level - 1);
	index_free(arena, node, sizeof(*node));
}

void radix_forget(struct tmem_object *object)
{
	forget_below(object->pool->arena, object->root, object->levels);
	object->root = NULL;
	object->levels = 0;
}
