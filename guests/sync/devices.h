/* SPDX-License-Identifier: MIT */
/*
 * The virtio device that the points about PCI and virtio share, and its
 * interrupts. Each point leaves it reset, MSI-X off.
 */
#ifndef SYNC_DEVICES_H
#define SYNC_DEVICES_H

#include "intx.h"
#include "prod.h"
#include "sync/sync.h"

#define PROD_VECTOR	   0x70U
#define PROD_CONFIG_VECTOR 0x71U

/* Interrupts since device_up(). */
extern volatile uint64_t queue_hits, config_hits;

/**
 * device_find - the device, registers mapped; NULL, and skipped, if none
 */
struct prod *device_find(void);

/**
 * device_up - the same, brought up to DRIVER_OK, with both MSI-X entries aimed
 * at the first CPU and not masked
 * @features: wanted
 * @msix: enable MSI-X; else the interrupt line is on
 */
struct prod *device_up(uint64_t features, bool msix);

/**
 * device_works - bring it up from reset, use it once, and reset it again
 */
void device_works(struct prod *prod);

/* device_down - reset it, MSI-X off */
void device_down(struct prod *prod);

/**
 * device_holds - wait until @holds() is @want
 *
 * A request is done a moment before its interrupt is raised.
 */
bool device_holds(struct prod *prod, bool (*holds)(struct prod *prod),
		  bool want);

bool device_pending(struct prod *prod);
bool device_line(struct prod *prod);
bool device_broken(struct prod *prod);

#endif
