// SPDX-License-Identifier: MIT
/*
 * Whatever a guest may have in the rings of a virtqueue, and in between calls
 * write there: chains stay within bounds, whatever is taken and given back.
 *
 * An input: flags, the queue's size (a power of two), how many calls, the calls
 * (struct call), and the memory that the rings lie in.
 */
#include <stdlib.h>
#include <string.h>

#include "devices/virtio/queue.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DESC   0x1000
#define AVAIL  0x2000
#define USED   0x3000
#define IMAGE  0x1000 /* the input's part of memory */
#define LENGTH 0x8000

#define FLAG_EVENT_IDX 1
#define FLAG_INDIRECT  2

enum {
	CALL_POP,
	CALL_PUSH,
	CALL_FETCH,
	CALL_UNPOP,
	CALL_TELL,
	CALL_QUIET,
	CALL_LISTEN,
	CALL_POKE,
	CALLS,
};

struct call {
	uint8_t what;
	uint8_t value;
	uint8_t at[2];
};

struct bench {
	struct memory *mem;
	struct virtqueue vq;
	struct virtqueue_chain chain;
	bool has_chain;
	uint16_t popped;  /* chains, by the last calls */
	unsigned int out; /* chains that were taken and not given back */
};

static void demand(bool truth)
{
	if (!truth)
		abort();
}

static void inspect(const struct bench *b)
{
	const struct virtqueue_chain *chain = &b->chain;
	unsigned int n = chain->nreadable + chain->nwritable;
	uint64_t total = 0;
	uint8_t byte;

	demand(n <= VIRTQUEUE_SEGMENTS);
	for (unsigned int i = 0; i < n; i++) {
		demand(chain->iov[i].iov_len > 0);
		demand(chain->iov[i].iov_base ==
		       memory_hva(b->mem, chain->gpa[i],
				  chain->iov[i].iov_len));
		total += chain->iov[i].iov_len;
	}
	demand(total == chain->readable + chain->writable);
	(void)iov_read(chain->iov, n, total ? total - 1 : 0, &byte, 1);
	(void)iov_write(&chain->iov[chain->nreadable], chain->nwritable,
			chain->writable / 2, &byte, 1);
}

/* @popped: chains that were taken just before. */
static void take(struct bench *b, const struct call *call, uint16_t popped)
{
	int got = call->what % CALLS == CALL_POP
			  ? virtqueue_pop(&b->vq, &b->chain)
			  : virtqueue_fetch(&b->vq, call->value, &b->chain);

	b->has_chain = got;
	if (!got)
		return;
	inspect(b);
	if (call->what % CALLS == CALL_POP) {
		b->popped = (uint16_t)(popped + 1);
		b->out++;
	}
	demand(b->out <= b->vq.state.size);
}

static void poke(struct bench *b, const struct call *call)
{
	uint64_t gpa = IMAGE + (call->at[0] << 8 | call->at[1]) % LENGTH;

	*(uint8_t *)memory_hva(b->mem, gpa, 1) = call->value;
}

static void make_call(struct bench *b, const struct call *call)
{
	uint16_t popped = b->popped;
	uint16_t n;

	b->popped = 0;
	switch (call->what % CALLS) {
	case CALL_POP:
	case CALL_FETCH:
		take(b, call, popped);
		break;
	case CALL_PUSH:
		if (!b->has_chain || !b->out)
			break;
		virtqueue_push(&b->vq, &b->chain,
			       (uint32_t)(call->value * 0x1010101U));
		b->has_chain = false;
		b->out -= !b->vq.broken;
		break;
	case CALL_UNPOP:
		if (!popped)
			break;
		n = (uint16_t)(call->value % popped + 1);
		virtqueue_unpop(&b->vq, n);
		b->has_chain = false;
		b->out -= n;
		break;
	case CALL_TELL:
		(void)virtqueue_should_interrupt(&b->vq);
		break;
	case CALL_QUIET:
		virtqueue_quiet(&b->vq);
		break;
	case CALL_LISTEN:
		(void)virtqueue_listen(&b->vq);
		break;
	default:
		poke(b, call);
		b->popped = popped;
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct bench *b;
	struct error err;
	size_t ncalls;

	if (!b) {
		b = calloc(1, sizeof(*b));
		demand(b && !memory_create(MEMORY_MIN, false, &b->mem, &err));
	}
	if (size < 3)
		return 0;
	ncalls = (size - 3) / sizeof(struct call);
	ncalls = ncalls < data[2] ? ncalls : data[2];
	b->vq.state = (struct virtqueue_state){
		.size = (uint16_t)(1U << data[1] % 9),
		.enabled = true,
		.desc = DESC,
		.avail = AVAIL,
		.used = USED,
	};
	b->has_chain = false;
	b->popped = 0;
	b->out = 0;
	memset(memory_hva(b->mem, IMAGE, LENGTH), 0, LENGTH);
	size -= 3 + ncalls * sizeof(struct call);
	memcpy(memory_hva(b->mem, IMAGE, LENGTH),
	       data + 3 + ncalls * sizeof(struct call),
	       size < LENGTH ? size : LENGTH);
	demand(!virtqueue_start(&b->vq, b->mem, data[0] & FLAG_EVENT_IDX,
				data[0] & FLAG_INDIRECT));
	for (size_t i = 0; i < ncalls; i++) {
		struct call call;

		memcpy(&call, data + 3 + i * sizeof(call), sizeof(call));
		make_call(b, &call);
	}
	demand(!virtqueue_check(&b->vq.state, VIRTQUEUE_SIZE_MAX, &err));
	return 0;
}
