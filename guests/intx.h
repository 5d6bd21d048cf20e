/* SPDX-License-Identifier: MIT */
/*
 * A virtio device's interrupt line, found by watching the IOAPIC: which pin it
 * is wired to is written in AML only, and no guest here reads that.
 */
#ifndef GUEST_INTX_H
#define GUEST_INTX_H

#include "prod.h"

#define INTX_VECTOR 0x50U /* of the IDT, and as many behind it as pins */

/**
 * intx_find - which IOAPIC pin the device's line is
 *
 * MSI-X is off and the device is up. Turns interrupts on for a moment; all
 * pins from 5 on are masked afterwards.
 *
 * Return: false when no interrupt comes.
 */
bool intx_find(struct prod *prod, unsigned int *ret_pin);

/**
 * intx_unmask - let the line interrupt the first CPU, or not
 */
void intx_unmask(unsigned int pin, bool on);

/**
 * intx_hits - interrupts that were the device's; each has cleared its ISR
 */
uint64_t intx_hits(void);

#endif
