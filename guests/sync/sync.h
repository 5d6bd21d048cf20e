/* SPDX-License-Identifier: MIT */
/*
 * What a sync point may use. A point is a function that brings the machine
 * into a state, waits, and then checks that the state is still there:
 *
 *	set something up
 *	sync_wait();		once, and the guest may be moved meanwhile
 *	sync_check("name", expected, got);
 *	put things back
 *
 * The runtime works in ring 0 and in interrupt handlers too, so a point may
 * wait wherever its state exists. One rule: what the wait does (it prints,
 * then polls the UART's line status with interrupts as they are) must not
 * destroy what is tested.
 */
#ifndef SYNC_H
#define SYNC_H

#include "lib/guest.h"

#define SYNC_VECTOR  0x41U /* for what a point sends itself */
#define SYNC_VECTOR2 0x61U /* the same, of higher priority */
#define TIMER_VECTOR 0x45U
#define UART_VECTOR  0x44U
#define PIT_VECTOR   0x46U

#define SECOND_NS 1000000000UL

/**
 * sync_wait - announce the point and wait for a byte
 */
void sync_wait(void);

/**
 * sync_announce - the first half of sync_wait(), for points that cannot poll
 */
void sync_announce(void);

/**
 * sync_held - the end of such a point: says "held N" and waits for the byte
 */
void sync_held(void);

/**
 * sync_hold_ns - how long a point that cannot be told to go on stays
 */
uint64_t sync_hold_ns(void);

/**
 * sync_auto - whether nobody is there to send bytes
 */
bool sync_auto(void);

/**
 * sync_peer - whether somebody is at the other end of devices; option peer
 */
bool sync_peer(void);

/**
 * sync_ask - have him do what this point wants of him now
 */
void sync_ask(void);

/**
 * sync_check - note a failure of this point when two values differ
 */
void sync_check(const char *what, uint64_t expected, uint64_t got);

/**
 * sync_skip - say why this machine cannot have this point
 */
void sync_skip(const char *why);

/**
 * sync_until - spin until *value reaches @least
 *
 * Return: false when it has not after @ns.
 */
bool sync_until(volatile uint64_t *value, uint64_t least, uint64_t ns);

/* IOAPIC number 0: one helper for all points (interrupt.c). */
void ioapic_write(uint32_t reg, uint32_t value);
uint32_t ioapic_read(uint32_t reg);

#define IOAPIC_PINS   24U
#define IOAPIC_MASKED 0x10000U
#define IOAPIC_LEVEL  0x8000U
#define IOAPIC_REMOTE 0x4000U

/**
 * ioapic_route - program a pin, to the first CPU
 */
void ioapic_route(unsigned int pin, uint32_t low);

/* The points, in files by what they are about. */

/* registers.c */
void point_registers_ring3(void);
void point_registers_ring0(void);
void point_segments(void);
void point_control(void);
void point_debug(void);
void point_page_fault(void);
/* vector.c */
void point_x87_sse(void);
void point_avx(void);
void point_avx512(void);
void point_xcr0(void);
/* msr.c */
void point_msrs(void);
void point_mtrrs(void);
void point_segment_bases(void);
void point_kvm_msrs(void);
/* interrupt.c */
void point_lapic_registers(void);
void point_pending(void);
void point_tpr(void);
void point_in_service(void);
void point_nmi(void);
void point_ioapic_registers(void);
void point_ioapic_level(void);
void point_remote_irr(void);
void point_halted(void);
void point_x2apic(void);
/* timer.c */
void point_timer_far(void);
void point_timer_near(void);
void point_timer_periodic(void);
void point_deadline_far(void);
void point_deadline_near(void);
void point_kvmclock(void);
/* legacy.c */
void point_pit_periodic(void);
void point_pit_channel2(void);
void point_pic_registers(void);
void point_pic_in_service(void);
/* uart.c */
void point_uart_registers(void);
void point_uart_interrupt(void);
void point_uart_loopback(void);
void point_uart_fifo(void);
/* pci.c */
void point_pci_latch(void);
void point_pci_registers(void);
void point_pci_bar_moved(void);
void point_pci_decode_off(void);
void point_msix_pending(void);
void point_msix_function_mask(void);
void point_intx_asserted(void);
/* virtio.c */
void point_virtio_not_loaded(void);
void point_virtio_reset(void);
void point_virtio_acknowledge(void);
void point_virtio_half(void);
void point_virtio_window(void);
void point_virtio_needs_reset(void);
void point_virtqueue_full(void);
void point_virtqueue_not_rung(void);
void point_virtqueue_event(void);
void point_virtqueue_event_past(void);
void point_virtqueue_reset(void);
void point_virtqueue_resetting(void);
/* disk.c */
void point_disk_in_flight(void);
void point_disk_indirect(void);
void point_disk_config(void);
/* card.c */
void point_card_config(void);
void point_card_set_up(void);
void point_card_receiving(void);
void point_card_half_received(void);
void point_card_starved(void);
void point_card_sending(void);
void point_card_not_rung(void);
void point_card_filtering(void);
void point_card_commanded(void);
void point_card_announce(void);
void point_card_announce_wanted(void);
/* balloon.c */
void point_balloon_wanted(void);
void point_balloon_inflating(void);
void point_balloon_not_rung(void);
void point_balloon_deflating(void);
void point_balloon_statistics(void);
void point_balloon_reporting(void);
void point_balloon_hinting(void);
/* console.c */
void point_console_size(void);
void point_console_half_said(void);
void point_console_not_rung(void);
void point_console_hearing(void);
void point_console_heard(void);
/* cpus.c */
void point_ap_parked(void);
void point_ap_init(void);
void point_ap_halted(void);
void point_ap_running(void);
/* memory.c */
void point_low_memory(void);
void point_memory_ends(void);
void point_rep_movs(void);
void point_rep_ins(void);
void point_rep_outs(void);

#endif
