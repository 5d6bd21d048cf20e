/* SPDX-License-Identifier: MIT */
/*
 * A balloon as its drivers see it: VIRTIO 1.2, section 5.5.
 */
#ifndef GUESTS_BALLOON_H
#define GUESTS_BALLOON_H

#define BALLOON_ID 5U

#define F_STATS	    (1UL << 1)
#define F_HINTS	    (1UL << 3)
#define F_REPORTING (1UL << 5)

/* In place of a request's number. */
#define HINTS_STOP 0U
#define HINTS_DONE 1U

#endif
