/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzz target: chains as a hostile guest makes them, byte for byte
 *
 * The input is a row of chains, each a struct head and then its device-readable
 * bytes.  Whatever they are, the fixture looks for bytes that were written
 * above the used length, the sanitizers for accesses beyond any descriptor, and
 * tmem_check() for structures and counters that disagree.
 */
#include "test-server-fixture.h"

/* Chains of one input; more of them find nothing more. */
#define MAX_CHAINS 64
/* Readable bytes that follow a request without being in the input. */
#define MAX_TAIL (16 * PAGE)

struct head {
	uint8_t queue;	  /* modulo VM_QUEUES */
	uint8_t cut;	  /* how memory is cut; 0: not */
	uint16_t in_len;  /* writable bytes */
	uint16_t out_len; /* bytes that follow in the input, at most */
	uint8_t tail;	  /* quarter pages of zeros behind them */
	uint8_t features; /* renegotiate, unless 0 */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct vm_options options = { .max_bytes = 4 * MIB,
						   .reserved = MIB };
	static uint8_t out[UINT16_MAX + MAX_TAIL];
	struct reply reply = { 0 };
	struct head head;
	struct vm vm;

	vm_open(&vm, &options);
	vm_pools(&vm);
	for (unsigned int i = 0; i < MAX_CHAINS && size >= sizeof(head); i++) {
		struct msg msg = { .out = out };

		memcpy(&head, data, sizeof(head));
		data += sizeof(head);
		size -= sizeof(head);
		msg.out_len = head.out_len < size ? head.out_len : size;
		memcpy(out, data, msg.out_len);
		data += msg.out_len;
		size -= msg.out_len;
		memset(out + msg.out_len, 0, MAX_TAIL);
		msg.out_len += (size_t)(head.tail % 65) * (PAGE / 4);
		msg.in_len = head.in_len;
		msg.cut = head.cut;
		if (head.features)
			tmem_server_set_features(vm.server, head.features & 7);
		msg_send(&vm, head.queue % VM_QUEUES, &msg, &reply);
	}
	reply_free(&reply);
	vm_close(&vm);
	return 0;
}
