/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The wire header says what goes over the wire, byte by byte.
 *
 * Sizes and offsets are asserted by the header itself; here a request and a
 * response are built field by field and compared with the bytes that the
 * format promises, so that a reordered or retyped field cannot go unseen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include <endian.h>

#include "virtio_tmem.h"

static void request_bytes(void **state)
{
	static const uint8_t expected[64] = {
		0x05, 0x00, 0x01, 0x00, 0x44, 0x33, 0x22, 0x11, 'o', 'b', 'j',
		'e',  'c',  't',  [31] = 0xff,
		[32] = 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
		[40] = 0x40,
	};
	struct virtio_tmem_req req = {
		.op = htole16(VIRTIO_TMEM_OP_GET),
		.flags = htole16(VIRTIO_TMEM_GET_EXCLUSIVE),
		.pool = htole32(0x11223344),
		.object = "object",
		.index = htole64(0x1122334455667788),
		.count = htole64(64),
	};

	req.object[VIRTIO_TMEM_OBJECT_SIZE - 1] = 0xff;
	assert_memory_equal(&req, expected, sizeof(expected));
}

static void response_bytes(void **state)
{
	static const uint8_t expected[16] = {
		0x01, 0x00, 0x00, 0x00, 0x04, 0x03, 0x02, 0x01, 0x09,
	};
	struct virtio_tmem_resp resp = {
		.status = htole16(VIRTIO_TMEM_S_NOSPC),
		.generation = htole32(0x01020304),
		.done = htole64(9),
	};

	assert_memory_equal(&resp, expected, sizeof(expected));
}

/* Values are ABI: renumbering one must fail here. */
static void constants(void **state)
{
	static const int values[][2] = {
		{ VIRTIO_ID_TMEM, 63 },
		{ VIRTIO_TMEM_F_PERSISTENT, 0 },
		{ VIRTIO_TMEM_F_EPHEMERAL, 1 },
		{ VIRTIO_TMEM_F_SHARED, 2 },
		{ VIRTIO_TMEM_F_OPAQUE, 3 },
		{ VIRTIO_TMEM_F_EVENTS, 4 },
		{ VIRTIO_TMEM_FAST_PAGES, 8 },
		{ VIRTIO_TMEM_OP_POOL_CREATE, 1 },
		{ VIRTIO_TMEM_OP_POOL_DESTROY, 2 },
		{ VIRTIO_TMEM_OP_RESET_ALL, 3 },
		{ VIRTIO_TMEM_OP_PUT, 4 },
		{ VIRTIO_TMEM_OP_GET, 5 },
		{ VIRTIO_TMEM_OP_FLUSH, 6 },
		{ VIRTIO_TMEM_OP_FLUSH_OBJECT, 7 },
		{ VIRTIO_TMEM_OP_POOL_STATS, 8 },
		{ VIRTIO_TMEM_S_OK, 0 },
		{ VIRTIO_TMEM_S_NOSPC, 1 },
		{ VIRTIO_TMEM_S_NOENT, 2 },
		{ VIRTIO_TMEM_S_IO, 3 },
		{ VIRTIO_TMEM_S_INVAL, 4 },
		{ VIRTIO_TMEM_S_PERM, 5 },
		{ VIRTIO_TMEM_S_EXIST, 6 },
		{ VIRTIO_TMEM_S_UNSUPP, 7 },
		{ VIRTIO_TMEM_POOL_PERSISTENT, 1 },
		{ VIRTIO_TMEM_GET_EXCLUSIVE, 1 },
		{ VIRTIO_TMEM_PAGE_STATUS_SHIFT, 24 },
		{ VIRTIO_TMEM_PAGE_LENGTH_MASK, 0xffffff },
	};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		assert_int_equal(values[i][0], values[i][1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(request_bytes),
		cmocka_unit_test(response_bytes),
		cmocka_unit_test(constants),
	};

	return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
