/* SPDX-License-Identifier: MIT */
/*
 * The serial port, a 16550A.
 *
 * The state is what a guest can see, in the order of the section.
 */
#ifndef GODWIT_DEVICES_SERIAL_H
#define GODWIT_DEVICES_SERIAL_H

#include "devices/device.h"

#define SERIAL_FIFO 16 /* bytes each way */

struct serial_state {
	uint8_t ier;
	uint8_t fcr; /* enable, DMA mode, trigger level; 0 when disabled */
	uint8_t lcr;
	uint8_t mcr;
	uint8_t scr;
	uint8_t dll;
	uint8_t dlm;
	uint8_t msr_delta; /* low half of MSR; the high half follows from MCR */
	bool overrun;	   /* LSR bit 1 */
	bool thre_pending; /* the latched THR-empty interrupt */
	uint32_t rx_len;
	uint8_t rx[SERIAL_FIFO]; /* oldest first */
	uint32_t tx_len;
	uint8_t tx[SERIAL_FIFO]; /* oldest first: what the host can't take yet
				  */
};

extern const struct device_ops serial_ops;

/**
 * serial_create() - make the port, on the line that has its id.
 *
 * It takes no options.
 *
 * Return: 0 or -errno with @err.
 */
int __must_check serial_create(const struct device_env *env,
			       const struct device_config *config,
			       struct device **ret, struct error *err);

#endif
