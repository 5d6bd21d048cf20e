/* SPDX-License-Identifier: MIT */
/*
 * The inside of the balloon, for balloon*.c only.
 */
#ifndef GODWIT_DEVICES_VIRTIO_BALLOON_INTERNAL_H
#define GODWIT_DEVICES_VIRTIO_BALLOON_INTERNAL_H

#include "devices/virtio/balloon.h"
#include "vmm/hints.h"
#include "vmm/loop.h"

/* Features, section 5.5.3; bit numbers. */
#define BALLOON_F_STATS_VQ	 1
#define BALLOON_F_DEFLATE_ON_OOM 2
#define BALLOON_F_FREE_PAGE_HINT 3
#define BALLOON_F_PAGE_POISON	 4
#define BALLOON_F_REPORTING	 5

/* Section 5.5.2. */
enum balloon_queue {
	BALLOON_INFLATE,
	BALLOON_DEFLATE,
	BALLOON_STATISTICS,
	BALLOON_HINTS,
	BALLOON_REPORTS,
	BALLOON_QUEUES,
};

/* What free_page_hint_cmd_id says when it asks for nothing; 5.5.6.5. */
#define BALLOON_HINTS_STOP 0
#define BALLOON_HINTS_DONE 1
#define BALLOON_HINTS_ASK  2 /* the first one that asks */

/*
 * A queue as it is served. A chain that takes long is served in several turns:
 * it stays taken, and `done` says how far it is.
 */
struct balloon_service {
	struct balloon *balloon;
	unsigned int index; /* enum balloon_queue */
	struct loop_fd *watch;
	bool serving;
	bool busy; /* a chain is taken and not given back */
	bool kept; /* it is given back when there is a reason to */
	uint64_t done;
	struct virtqueue_chain chain;
};

struct balloon {
	struct virtio virtio;
	struct hints *hints;
	const struct device_hooks *hooks;
	void *hooks_opaque;
	struct balloon_service services[BALLOON_QUEUES];
	/* As in struct balloon_state, but for virtio. */
	struct balloon_state state;
	bool asking;  /* hint_id asks for hints */
	bool hinting; /* and the driver gives them */
	uint64_t told_s;
	uint64_t stats[BALLOON_STATS];
	/* who watches is told of `actual`, and not too often */
	struct loop_timer *tell;
	uint64_t told_ns;
};

/**
 * balloon_serve_init() - begin to listen to the doorbells.
 */
int __must_check balloon_serve_init(struct balloon *b, struct loop *loop,
				    struct error *err);

/**
 * balloon_serve_fini() - the counterpart; accepts what is half done.
 */
void balloon_serve_fini(struct balloon *b);

/* As virtio_ops has them. */
void balloon_start_queue(struct virtio *v, unsigned int index);
void balloon_stop_queue(struct virtio *v, unsigned int index);

/**
 * balloon_forget_stats() - the guest has said nothing.
 */
void balloon_forget_stats(struct balloon *b);

/**
 * balloon_refresh_stats() - have the driver say them again.
 */
void balloon_refresh_stats(struct balloon *b);

#endif
