/* SPDX-License-Identifier: MIT */
/*
 * Prodding a device; see prod.h.
 */
#include "prod.h"

#define ANSWER	  BLOCK_ID_SIZE
#define UNTOUCHED 0xa5
#define WAIT_NS	  (5 * NS_PER_S)

struct prod_request {
	struct block_header header; /* a disk's */
	uint8_t answer[ANSWER];
	uint8_t status;
};

bool prod_find(struct prod *prod)
{
	static const uint32_t kinds[] = { VIRTIO_ID_RNG, VIRTIO_ID_BLOCK };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (!virtio_find(kinds[i], 0, &prod->v))
			continue;
		prod->kind = kinds[i];
		return msix_open(&prod->msix, &prod->v.pci);
	}
	return false;
}

void prod_start(struct prod *prod, uint64_t features)
{
	virtio_negotiate(&prod->v, features);
	prod->v.common->config_vector = PROD_CONFIG;
	virtqueue_setup(&prod->queue, &prod->v, 0, VIRTQUEUE_SIZE, PROD_QUEUE);
	if (!prod->requests)
		prod->requests = mem_alloc(
			VIRTQUEUE_SIZE * sizeof(*prod->requests), PAGE_SIZE);
	virtio_status(&prod->v, VIRTIO_DRIVER_OK);
}

bool prod_add(struct prod *prod)
{
	struct prod_request *r = &prod->requests[prod->queue.free];
	struct virtqueue_buffer buf[] = {
		{ &r->header, sizeof(r->header) },
		{ r->answer, ANSWER },
		{ &r->status, 1 },
	};

	if (!prod->queue.free_count)
		return false;
	r->header = (struct block_header){ .type = BLOCK_GET_ID };
	r->status = BLOCK_NO_STATUS;
	memset(r->answer, UNTOUCHED, ANSWER);
	if (prod->kind == VIRTIO_ID_RNG)
		return virtqueue_add(&prod->queue, &buf[1], 0, 1) >= 0;
	return virtqueue_add(&prod->queue, buf, 1, 2) >= 0;
}

/* That many bytes, and none behind them. */
static void check(const struct prod *prod, const struct prod_request *r,
		  uint32_t len)
{
	uint32_t most = prod->kind == VIRTIO_ID_RNG ? ANSWER : ANSWER + 1;
	bool ok = len && len <= most;

	for (uint32_t i = len; ok && i < ANSWER; i++)
		ok = r->answer[i] == UNTOUCHED;
	if (prod->kind == VIRTIO_ID_BLOCK)
		ok = len == most && r->status == BLOCK_OK;
	if (!ok)
		guest_fail(VERDICT_DEVICE, "an answer of %u bytes, status %u\n",
			   len, r->status);
}

unsigned int prod_take(struct prod *prod)
{
	unsigned int n = 0;
	uint32_t len;
	int head;

	for (; (head = virtqueue_take(&prod->queue, &len)) >= 0; n++)
		check(prod, &prod->requests[head], len);
	return n;
}

unsigned int prod_wait(struct prod *prod)
{
	uint64_t start = rdtsc();
	unsigned int n = 0;

	while (virtqueue_in_flight(&prod->queue) &&
	       rdtsc() - start < clock_ns_tsc(WAIT_NS)) {
		n += prod_take(prod);
		cpu_relax();
	}
	return n;
}

void prod_once(struct prod *prod)
{
	prod_add(prod);
	virtqueue_kick(&prod->queue);
	while (!prod_take(prod))
		cpu_relax();
}
