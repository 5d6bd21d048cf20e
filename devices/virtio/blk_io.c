// SPDX-License-Identifier: MIT
/*
 * A disk's I/O thread. It takes chains from all queues, a few from each in
 * turn, hands all that to the kernel by one system call, gives back what has
 * ended, and interrupts the guest once a queue.
 *
 * Nothing is allocated and nobody waits for anybody: requests come from a pool,
 * and when that is empty chains stay in their rings. The device's lock is taken
 * for orders (start and stop a queue), and to say that they are done.
 *
 * Before it sleeps the thread looks around a little longer, if that has paid
 * lately: a guest that does one small request after the other rings again
 * before a sleep would have begun.
 *
 * A request that fails is logged and reported to the guest; or, with
 * werror=stop, kept: its chain isn't given back, its head is part of the state
 * when the queue stops, and it is tried again when the queue is started, here
 * or at the target of a move.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/virtio/blk_internal.h"
#include "devices/virtio/look.h"
#include "vmm/log.h"
#include "vmm/sandbox.h"

/* Chains of a queue before it is another's turn. */
#define BUDGET 16

/* How often a lock is asked for that the peer of a move still has. */
#define LOCK_INTERVAL_NS (50 * NS_PER_MS)

#define WARN_INTERVAL_NS (10 * NS_PER_S)

void blk_io_tell(struct blk *blk)
{
	uint64_t one = 1;

	blk->told = true;
	/* An eventfd that is full is an eventfd that wakes. */
	(void)!write(blk->wake_fd, &one, sizeof(one));
}

static struct virtqueue *ring_of(struct blk *blk, unsigned int index)
{
	return &blk->virtio.queues[index].ring;
}

static void put_free(struct blk *blk, struct blk_request *request)
{
	request->next = blk->free;
	blk->free = request;
	blk->nfree++;
}

/* One that was used before, if there is any: others take no memory yet. */
static struct blk_request *take_free(struct blk *blk)
{
	struct blk_request *request = blk->free;

	blk->nfree--;
	if (!request) {
		request = &blk->requests[blk->nused++];
		request->blk = blk;
		return request;
	}
	blk->free = request->next;
	return request;
}

/* Is there a request for a chain of @q? Those that wait again have theirs. */
static bool has_room(const struct blk *blk, const struct blk_queue *q)
{
	return blk->nfree > (q->next_again < q->nagain ? 0 : blk->nwaiting);
}

/* ---- ends of requests ---- */

static void give_back(struct blk *blk, struct blk_request *request,
		      uint8_t status)
{
	/* The status is the last byte that can be written: all are marked. */
	*request->status = status;
	virtqueue_push(ring_of(blk, request->queue), &request->chain,
		       (uint32_t)request->chain.writable);
	blk->queues[request->queue].given_back = true;
	put_free(blk, request);
}

static const char *verb(enum disk_op op)
{
	static const char *const verbs[] = {
		[DISK_READ] = "reading",   [DISK_WRITE] = "writing",
		[DISK_FLUSH] = "flushing", [DISK_DISCARD] = "discarding",
		[DISK_ZEROES] = "zeroing", [DISK_UNMAP_ZEROES] = "zeroing",
	};

	return verbs[op];
}

/* A disk that is broken fails often. */
static void warn(struct blk *blk, const struct disk_request *disk, int result)
{
	uint64_t now = clock_ns();

	if (blk->warned_ns && now - blk->warned_ns < WARN_INTERVAL_NS)
		return;
	blk->warned_ns = now;
	log_warn("%s: %s %llu bytes at %llu of %s: %s", blk->virtio.dev.id,
		 verb(disk->op), (unsigned long long)disk->len,
		 (unsigned long long)disk->offset, disk_path(blk->disk),
		 strerror(-result));
}

static void keep(struct blk *blk, struct blk_request *request, int result)
{
	struct blk_queue *q = &blk->queues[request->queue];
	char text[160];

	request->next = NULL;
	*q->kept_end = request;
	q->kept_end = &request->next;
	if (atomic_exchange(&blk->stop_asked, true))
		return;
	snprintf(text, sizeof(text), "%s: %s: %s; resume when that is mended",
		 blk->virtio.dev.id, verb(request->disk.op), strerror(-result));
	blk->hooks->request_stop(blk->hooks_opaque, text);
}

static void on_done(struct disk_request *disk, int result)
{
	struct blk_request *request =
		container_of(disk, struct blk_request, disk);
	struct blk *blk = request->blk;

	blk->queues[request->queue].under_way--;
	if (!result) {
		give_back(blk, request, BLK_S_OK);
		return;
	}
	warn(blk, disk, result);
	if (request->writes && blk->options.stop_on_error)
		keep(blk, request, result);
	else
		give_back(blk, request, BLK_S_IOERR);
}

/* ---- taking chains ---- */

static void fail(struct blk *blk, unsigned int index, const char *why)
{
	struct virtio *v = &blk->virtio;

	/* The core orders a stop, which comes by and ends this for good. */
	blk->queues[index].serving = false;
	pthread_mutex_lock(&v->dev.lock);
	virtio_fail(v, why);
	pthread_mutex_unlock(&v->dev.lock);
}

static void begin(struct blk *blk, struct blk_request *request,
		  unsigned int index)
{
	uint8_t status = BLK_S_OK;

	request->queue = index;
	switch (blk_request_parse(blk, request, &status)) {
	case BLK_SUBMIT:
		blk->queues[index].under_way++;
		request->disk.done = on_done;
		disk_submit(blk->engine, &request->disk);
		break;
	case BLK_ANSWER:
		give_back(blk, request, status);
		break;
	case BLK_BROKEN:
		put_free(blk, request);
		fail(blk, index,
		     "a request has no header, no status or more "
		     "than 4 GiB");
		break;
	}
}

/* Those that were kept come first. */
static bool next_chain(struct blk *blk, unsigned int index,
		       struct virtqueue_chain *chain)
{
	struct blk_queue *q = &blk->queues[index];
	struct virtqueue *vq = ring_of(blk, index);

	if (q->next_again == q->nagain)
		return virtqueue_pop(vq, chain);
	blk->nwaiting--;
	return virtqueue_fetch(vq, q->again[q->next_again++], chain);
}

/* Return: how many chains were taken. */
static unsigned int serve_queue(struct blk *blk, unsigned int index)
{
	struct blk_queue *q = &blk->queues[index];
	struct virtqueue *vq = ring_of(blk, index);
	unsigned int n = 0;

	while (q->serving && n < BUDGET && has_room(blk, q)) {
		struct blk_request *request = take_free(blk);

		if (!next_chain(blk, index, &request->chain)) {
			put_free(blk, request);
			if (vq->broken)
				fail(blk, index, vq->why);
			break;
		}
		begin(blk, request, index);
		n++;
	}
	return n;
}

static unsigned int serve(struct blk *blk)
{
	unsigned int nqueues = blk->virtio.nqueues;
	unsigned int n = 0;

	for (unsigned int i = 0; i < nqueues; i++)
		n += serve_queue(blk, (blk->first + i) % nqueues);
	if (++blk->first >= nqueues)
		blk->first = 0;
	return n;
}

static void interrupt(struct blk *blk, unsigned int index)
{
	struct blk_queue *q = &blk->queues[index];

	if (!q->given_back)
		return;
	q->given_back = false;
	if (virtqueue_should_interrupt(ring_of(blk, index)))
		virtio_interrupt(&blk->virtio, index);
}

/* ---- orders ---- */

static void start(struct blk *blk, unsigned int index)
{
	struct blk_queue *q = &blk->queues[index];

	q->serving = true;
	q->stopping = false;
	q->nagain = 0;
	q->next_again = 0;
	q->kept = NULL;
	q->kept_end = &q->kept;
	blk->stop_asked = false;
	for (uint32_t i = 0; i < blk->nkept; i++) {
		if (blk->kept[i].queue == index)
			q->again[q->nagain++] = blk->kept[i].head;
	}
	blk->nwaiting += q->nagain;
	virtqueue_quiet(ring_of(blk, index));
}

static void forget_kept(struct blk *blk, unsigned int index)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < blk->nkept; i++) {
		if (blk->kept[i].queue != index)
			blk->kept[n++] = blk->kept[i];
	}
	blk->nkept = n;
}

static void remember(struct blk *blk, unsigned int index, uint16_t head)
{
	blk->kept[blk->nkept++] = (struct blk_kept){ (uint16_t)index, head };
}

/* What was not given back is the state's now, unless the queue is no more. */
static void save_kept(struct blk *blk, unsigned int index)
{
	struct blk_queue *q = &blk->queues[index];
	bool gone =
		blk->virtio.resetting || blk->virtio.queues[index].resetting;

	forget_kept(blk, index);
	for (; q->next_again < q->nagain; blk->nwaiting--) {
		uint16_t head = q->again[q->next_again++];

		if (!gone)
			remember(blk, index, head);
	}
	while (q->kept) {
		struct blk_request *request = q->kept;

		q->kept = request->next;
		if (!gone)
			remember(blk, index, request->chain.head);
		put_free(blk, request);
	}
	q->kept_end = &q->kept;
	q->nagain = 0;
	q->next_again = 0;
}

static void finish_stop(struct blk *blk, unsigned int index)
{
	struct blk_queue *q = &blk->queues[index];

	if (!q->stopping || q->under_way)
		return;
	q->stopping = false;
	pthread_mutex_lock(&blk->virtio.dev.lock);
	save_kept(blk, index);
	virtio_queue_stopped(&blk->virtio, index);
	pthread_mutex_unlock(&blk->virtio.dev.lock);
}

static void take_orders(struct blk *blk)
{
	if (!atomic_exchange(&blk->told, false))
		return;
	pthread_mutex_lock(&blk->virtio.dev.lock);
	for (unsigned int i = 0; i < blk->virtio.nqueues; i++) {
		struct blk_queue *q = &blk->queues[i];

		/* A stop comes after its start: what is kept stays kept. */
		if (q->to_start)
			start(blk, i);
		if (q->to_stop) {
			q->serving = false;
			q->stopping = true;
		}
		q->to_start = false;
		q->to_stop = false;
	}
	pthread_mutex_unlock(&blk->virtio.dev.lock);
}

/* ---- settling and locks ---- */

static void on_flushed(struct disk_request *request, int result)
{
	struct blk *blk = container_of(request, struct blk, flush);

	blk->flushing = false;
	/* The flush in the pause will say so again, and end the move. */
	if (result)
		log_warn("%s: flushing %s: %s", blk->virtio.dev.id,
			 disk_path(blk->disk), strerror(-result));
	pthread_mutex_lock(&blk->virtio.dev.lock);
	blk->settling = false;
	blk->settled = true;
	blk->settle_ns = clock_ns() - blk->flush_start_ns;
	pthread_mutex_unlock(&blk->virtio.dev.lock);
}

static unsigned int begin_flush(struct blk *blk)
{
	if (blk->flushing || !atomic_exchange(&blk->flush_wanted, false))
		return 0;
	blk->flush =
		(struct disk_request){ .op = DISK_FLUSH, .done = on_flushed };
	blk->flush_start_ns = clock_ns();
	blk->flushing = true;
	disk_submit(blk->engine, &blk->flush);
	return 1;
}

static void try_lock(struct blk *blk)
{
	struct error err;
	int rc = 0;

	blk->lock_tried_ns = clock_ns();
	pthread_mutex_lock(&blk->handover_lock);
	if (blk->lock_wanted == BLK_LOCK_WRITER)
		rc = disk_take_writer(blk->disk, &err);
	else if (blk->lock_wanted == BLK_LOCK_OWNER)
		rc = disk_take_owner(blk->disk, &err);
	if (!rc)
		blk->lock_wanted = BLK_LOCK_NONE;
	pthread_mutex_unlock(&blk->handover_lock);
}

static bool wants_lock(const struct blk *blk)
{
	return blk->lock_wanted != BLK_LOCK_NONE;
}

/* ---- the thread ---- */

/* Return: whether there was anything to do. */
static bool turn(struct blk *blk)
{
	unsigned int n;

	take_orders(blk);
	if (wants_lock(blk) &&
	    clock_ns() - blk->lock_tried_ns >= LOCK_INTERVAL_NS)
		try_lock(blk);
	n = begin_flush(blk) + serve(blk);
	if (n)
		disk_engine_kick(blk->engine);
	n += disk_engine_reap(blk->engine);
	for (unsigned int i = 0; i < blk->virtio.nqueues; i++) {
		interrupt(blk, i);
		finish_stop(blk, i);
	}
	return n;
}

/* Ask to be told of new chains. Return: false: there are some. */
static bool listen_all(struct blk *blk)
{
	bool quiet = true;

	for (unsigned int i = 0; i < blk->virtio.nqueues; i++) {
		struct blk_queue *q = &blk->queues[i];

		/* With no room it is the end of a request that we wait for. */
		if (!q->serving || !has_room(blk, q))
			continue;
		if (q->next_again < q->nagain ||
		    virtqueue_listen(ring_of(blk, i)))
			quiet = false;
	}
	return quiet;
}

static void quiet_all(struct blk *blk)
{
	for (unsigned int i = 0; i < blk->virtio.nqueues; i++) {
		if (blk->queues[i].serving)
			virtqueue_quiet(ring_of(blk, i));
	}
}

static void wait_for_anything(struct blk *blk)
{
	struct pollfd fds[BLK_QUEUES_MAX + 2];
	struct timespec interval = { .tv_nsec = LOCK_INTERVAL_NS };
	unsigned int n = blk->virtio.nqueues;
	uint64_t count;

	for (unsigned int i = 0; i < n; i++)
		fds[i].fd = blk->queues[i].serving
				    ? blk->virtio.queues[i].event_fd
				    : -1;
	fds[n].fd = blk->wake_fd;
	fds[n + 1].fd = disk_engine_fd(blk->engine);
	for (unsigned int i = 0; i < n + 2; i++) {
		fds[i].events = POLLIN;
		fds[i].revents = 0;
	}
	ppoll(fds, n + 2, wants_lock(blk) ? &interval : NULL, NULL);
	/* Before anything is looked at: who rings later is heard. */
	for (unsigned int i = 0; i < n + 1; i++) {
		if (fds[i].revents)
			(void)!read(fds[i].fd, &count, sizeof(count));
	}
}

static void sleep_awhile(struct blk *blk)
{
	if (listen_all(blk))
		wait_for_anything(blk);
	quiet_all(blk);
}

static void *io_main(void *opaque)
{
	struct blk *blk = opaque;
	struct look look = { 0 };

	while (!blk->ending || blk->flushing) {
		if (turn(blk)) {
			look_found(&look);
		} else if (!look_on(&look)) {
			sleep_awhile(blk);
			look_slept(&look);
		}
	}
	return NULL;
}

/* ---- making and unmaking ---- */

static int make_requests(struct blk *blk, struct error *err)
{
	/* Untouched until take_free() gets to it. */
	blk->requests = calloc(BLK_DEPTH, sizeof(*blk->requests));
	if (!blk->requests)
		return error_set(err, -ENOMEM, "%s: out of memory",
				 blk->virtio.dev.id);
	blk->nfree = BLK_DEPTH;
	return 0;
}

int blk_io_create(struct blk *blk, const struct device_env *env,
		  struct error *err)
{
	char name[16];
	int rc = make_requests(blk, err);

	if (rc)
		return rc;
	for (unsigned int i = 0; i < BLK_QUEUES_MAX; i++)
		blk->queues[i].kept_end = &blk->queues[i].kept;
	blk->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (blk->wake_fd < 0)
		return error_set(err, -errno, "%s: eventfd: %s",
				 blk->virtio.dev.id, strerror(errno));
	rc = disk_engine_create(blk->disk, BLK_DEPTH, &blk->engine, err);
	if (rc)
		return rc;
	snprintf(name, sizeof(name), "%.15s", blk->virtio.dev.id);
	rc = thread_start(env->sandbox, THREAD_IO, name, io_main, blk,
			  &blk->thread, err);
	blk->has_thread = !rc;
	return rc;
}

void blk_io_free(struct blk *blk)
{
	if (blk->has_thread) {
		blk->ending = true;
		blk_io_tell(blk);
		pthread_join(blk->thread, NULL);
	}
	disk_engine_free(blk->engine);
	close_fd(&blk->wake_fd);
	free(blk->requests);
}
