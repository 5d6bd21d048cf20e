// SPDX-License-Identifier: MIT
/*
 * What a request asks for: header, data and status out of a chain, however its
 * bytes are spread over descriptors, and what is allowed. Section 5.2.6 of
 * VIRTIO 1.2.
 *
 * The header and the ranges of DISCARD and WRITE_ZEROES are copied once and
 * then believed: the guest may change them meanwhile.
 */
#include <endian.h>
#include <string.h>

#include "devices/virtio/blk_internal.h"

struct header {
	uint32_t type;
	uint32_t reserved;
	uint64_t sector;
};

_Static_assert(sizeof(struct header) == 16, "struct virtio_blk_req");

#define ZEROES_F_UNMAP 1

struct range {
	uint64_t sector;
	uint32_t count;
	uint32_t flags;
};

_Static_assert(sizeof(struct range) == 16,
	       "struct virtio_blk_discard_write_zeroes");

/*
 * Data begins @skip bytes into the @n segments and ends @drop bytes before
 * their end. As a rule header and status have segments of their own.
 */
static void take_data(struct blk_request *request, const struct iovec *iov,
		      unsigned int n, size_t skip, size_t drop)
{
	struct iovec *data = request->data;

	while (n && skip >= iov->iov_len) {
		skip -= iov->iov_len;
		iov++;
		n--;
	}
	while (n && drop >= iov[n - 1].iov_len) {
		drop -= iov[n - 1].iov_len;
		n--;
	}
	request->disk.iov = iov;
	request->disk.niov = n;
	if (!n || (!skip && !drop))
		return;
	memcpy(data, iov, n * sizeof(*data));
	data[0].iov_base = (uint8_t *)data[0].iov_base + skip;
	data[0].iov_len -= skip;
	data[n - 1].iov_len -= drop;
	request->disk.iov = data;
}

static bool in_disk(const struct blk *blk, uint64_t sector, uint64_t len)
{
	uint64_t size = disk_size(blk->disk);

	return sector <= size / DISK_SECTOR && !(len % DISK_SECTOR) &&
	       len <= size - sector * DISK_SECTOR;
}

static enum blk_verdict parse_transfer(struct blk *blk,
				       struct blk_request *request,
				       const struct header *header,
				       uint8_t *ret_status)
{
	const struct virtqueue_chain *chain = &request->chain;
	uint64_t sector = le64toh(header->sector);
	bool in = le32toh(header->type) == BLK_T_IN;
	uint64_t len;

	if (in) {
		len = chain->writable - 1;
		take_data(request, chain->iov + chain->nreadable,
			  chain->nwritable, 0, 1);
	} else {
		len = chain->readable - sizeof(*header);
		take_data(request, chain->iov, chain->nreadable,
			  sizeof(*header), 0);
	}
	*ret_status = BLK_S_IOERR;
	if (!in_disk(blk, sector, len) || (!in && blk->options.readonly))
		return BLK_ANSWER;
	*ret_status = BLK_S_OK;
	if (!len)
		return BLK_ANSWER;
	request->writes = !in;
	request->disk.op = in ? DISK_READ : DISK_WRITE;
	request->disk.offset = sector * DISK_SECTOR;
	request->disk.len = len;
	return BLK_SUBMIT;
}

static void no_data(struct blk_request *request, enum disk_op op,
		    uint64_t offset, uint64_t len)
{
	request->writes = true;
	request->disk.op = op;
	request->disk.offset = offset;
	request->disk.len = len;
	request->disk.iov = NULL;
	request->disk.niov = 0;
}

static enum blk_verdict
parse_flush(struct blk *blk, struct blk_request *request, uint8_t *ret_status)
{
	*ret_status = BLK_S_OK;
	if (blk->options.readonly)
		return BLK_ANSWER;
	no_data(request, DISK_FLUSH, 0, 0);
	return BLK_SUBMIT;
}

/* One range a request: the configuration says so. */
static enum blk_verdict parse_range(struct blk *blk,
				    struct blk_request *request, bool zeroes,
				    uint8_t *ret_status)
{
	const struct virtqueue_chain *chain = &request->chain;
	uint64_t max =
		zeroes ? BLK_ZEROES_SECTORS_MAX : BLK_DISCARD_SECTORS_MAX;
	enum disk_op op = zeroes ? DISK_ZEROES : DISK_DISCARD;
	struct range range;
	uint64_t sector, len;
	uint32_t flags;

	*ret_status = BLK_S_IOERR;
	if (blk->options.readonly ||
	    chain->readable != sizeof(struct header) + sizeof(range))
		return BLK_ANSWER;
	iov_read(chain->iov, chain->nreadable, sizeof(struct header), &range,
		 sizeof(range));
	sector = le64toh(range.sector);
	len = (uint64_t)le32toh(range.count) * DISK_SECTOR;
	flags = le32toh(range.flags);
	/* A discard has no flags: it always unmaps. */
	if (flags & ~(zeroes ? ZEROES_F_UNMAP : 0U)) {
		*ret_status = BLK_S_UNSUPP;
		return BLK_ANSWER;
	}
	if (len > max * DISK_SECTOR || !in_disk(blk, sector, len))
		return BLK_ANSWER;
	*ret_status = BLK_S_OK;
	if (!len)
		return BLK_ANSWER;
	if (flags & ZEROES_F_UNMAP)
		op = DISK_UNMAP_ZEROES;
	no_data(request, op, sector * DISK_SECTOR, len);
	return BLK_SUBMIT;
}

static enum blk_verdict answer_id(const struct blk *blk,
				  struct blk_request *request,
				  uint8_t *ret_status)
{
	const struct virtqueue_chain *chain = &request->chain;
	char id[BLK_SERIAL_MAX] = "";

	/* Not terminated when it fills the field; section 5.2.6. */
	memcpy(id, blk->options.serial, strlen(blk->options.serial));
	iov_write(chain->iov + chain->nreadable, chain->nwritable, 0, id,
		  MIN(sizeof(id), chain->writable - 1));
	*ret_status = BLK_S_OK;
	return BLK_ANSWER;
}

enum blk_verdict blk_request_parse(struct blk *blk, struct blk_request *request,
				   uint8_t *ret_status)
{
	const struct virtqueue_chain *chain = &request->chain;
	const struct iovec *last;
	struct header header;

	/* A chain has at most 2^32 bytes in all; section 2.7.5. */
	if (chain->readable < sizeof(header) || !chain->writable ||
	    chain->readable + chain->writable > UINT32_MAX)
		return BLK_BROKEN;
	iov_read(chain->iov, chain->nreadable, 0, &header, sizeof(header));
	last = &chain->iov[chain->nreadable + chain->nwritable - 1];
	request->status = (uint8_t *)last->iov_base + last->iov_len - 1;
	request->writes = false;
	switch (le32toh(header.type)) {
	case BLK_T_IN:
	case BLK_T_OUT:
		return parse_transfer(blk, request, &header, ret_status);
	case BLK_T_FLUSH:
		return parse_flush(blk, request, ret_status);
	case BLK_T_GET_ID:
		return answer_id(blk, request, ret_status);
	case BLK_T_DISCARD:
		return parse_range(blk, request, false, ret_status);
	case BLK_T_WRITE_ZEROES:
		return parse_range(blk, request, true, ret_status);
	default:
		*ret_status = BLK_S_UNSUPP;
		return BLK_ANSWER;
	}
}
