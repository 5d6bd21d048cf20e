/* SPDX-License-Identifier: MIT */
/*
 * sync: stops at numbered points, so that a test can move the guest at each
 * one. At a point it prints "@N name" on a line of its own and waits for a
 * byte, any byte; then it checks that the state which it had set up before is
 * still there, prints "ok N name", "skip N name: why" or "fail N name", and
 * goes on. After the last point it prints "done".
 *
 * A point that fails says what it found on lines "wrong …" before, and the
 * points after it still run.
 *
 * Most points wait by polling the UART's line status from ring 3. The others
 * are those where this would destroy what is tested; each says how it waits.
 * Some cannot be told to go on at all: they hold their state for hold_ms after
 * the announcement, check it, say "held N" and then want the byte that all
 * others want. It may be sent before, but in uart-loopback a UART may lose it.
 *
 * Options: point=N (that one only), from=N (that one and those after it),
 * auto=yes (wait for nobody: tests the guest itself), hold_ms=500, list=yes
 * (print the names and end), peer=yes (somebody is at the other end of cards,
 * consoles and the balloon, and does what the points about them say; what waits
 * for the guest to be ready he does at a line "ask name").
 * Verdict: 20 a point failed.
 */
#include "sync.h"

#define VERDICT_POINT VERDICT_OWN

struct point {
	const char *name;
	void (*run)(void);
};

/*
 * Numbers are for people; tests should go by name. The order matters in three
 * places: CPUs are parked as reset left them only until one is started, a
 * device is untouched only until a point uses it, and memory for CPUs and
 * queues can be had only until the memory points take the rest.
 */
static const struct point points[] = {
	{ "registers-ring3", point_registers_ring3 },
	{ "registers-ring0", point_registers_ring0 },
	{ "segments", point_segments },
	{ "control", point_control },
	{ "debug", point_debug },
	{ "page-fault", point_page_fault },
	{ "x87-sse", point_x87_sse },
	{ "avx", point_avx },
	{ "avx512", point_avx512 },
	{ "xcr0", point_xcr0 },
	{ "msrs", point_msrs },
	{ "mtrrs", point_mtrrs },
	{ "segment-bases", point_segment_bases },
	{ "kvm-msrs", point_kvm_msrs },
	{ "lapic-registers", point_lapic_registers },
	{ "pending", point_pending },
	{ "tpr", point_tpr },
	{ "in-service", point_in_service },
	{ "nmi", point_nmi },
	{ "ioapic-registers", point_ioapic_registers },
	{ "ioapic-level", point_ioapic_level },
	{ "remote-irr", point_remote_irr },
	{ "halted", point_halted },
	{ "timer-far", point_timer_far },
	{ "timer-near", point_timer_near },
	{ "timer-periodic", point_timer_periodic },
	{ "deadline-far", point_deadline_far },
	{ "deadline-near", point_deadline_near },
	{ "kvmclock", point_kvmclock },
	{ "pit-periodic", point_pit_periodic },
	{ "pit-channel2", point_pit_channel2 },
	{ "pic-registers", point_pic_registers },
	{ "pic-in-service", point_pic_in_service },
	{ "uart-registers", point_uart_registers },
	{ "uart-interrupt", point_uart_interrupt },
	{ "uart-loopback", point_uart_loopback },
	{ "uart-fifo", point_uart_fifo },
	{ "pci-latch", point_pci_latch },
	{ "virtio-not-loaded", point_virtio_not_loaded },
	{ "pci-registers", point_pci_registers },
	{ "pci-bar-moved", point_pci_bar_moved },
	{ "pci-decode-off", point_pci_decode_off },
	{ "msix-pending", point_msix_pending },
	{ "msix-function-mask", point_msix_function_mask },
	{ "intx-asserted", point_intx_asserted },
	{ "virtio-reset", point_virtio_reset },
	{ "virtio-acknowledge", point_virtio_acknowledge },
	{ "virtio-half", point_virtio_half },
	{ "virtio-window", point_virtio_window },
	{ "virtio-needs-reset", point_virtio_needs_reset },
	{ "virtqueue-full", point_virtqueue_full },
	{ "virtqueue-not-rung", point_virtqueue_not_rung },
	{ "virtqueue-event", point_virtqueue_event },
	{ "virtqueue-event-past", point_virtqueue_event_past },
	{ "virtqueue-reset", point_virtqueue_reset },
	{ "virtqueue-resetting", point_virtqueue_resetting },
	{ "disk-config", point_disk_config },
	{ "disk-in-flight", point_disk_in_flight },
	{ "disk-indirect", point_disk_indirect },
	{ "card-config", point_card_config },
	{ "card-set-up", point_card_set_up },
	{ "card-receiving", point_card_receiving },
	{ "card-half-received", point_card_half_received },
	{ "card-starved", point_card_starved },
	{ "card-sending", point_card_sending },
	{ "card-not-rung", point_card_not_rung },
	{ "card-filtering", point_card_filtering },
	{ "card-commanded", point_card_commanded },
	{ "card-announce", point_card_announce },
	{ "card-announce-wanted", point_card_announce_wanted },
	{ "balloon-wanted", point_balloon_wanted },
	{ "balloon-inflating", point_balloon_inflating },
	{ "balloon-not-rung", point_balloon_not_rung },
	{ "balloon-deflating", point_balloon_deflating },
	{ "balloon-statistics", point_balloon_statistics },
	{ "balloon-reporting", point_balloon_reporting },
	{ "balloon-hinting", point_balloon_hinting },
	{ "console-size", point_console_size },
	{ "console-half-said", point_console_half_said },
	{ "console-not-rung", point_console_not_rung },
	{ "console-hearing", point_console_hearing },
	{ "console-heard", point_console_heard },
	{ "ap-parked", point_ap_parked },
	{ "ap-init", point_ap_init },
	{ "ap-halted", point_ap_halted },
	{ "ap-running", point_ap_running },
	{ "x2apic", point_x2apic },
	{ "low-memory", point_low_memory },
	{ "memory-ends", point_memory_ends },
	{ "rep-movs", point_rep_movs },
	{ "rep-ins", point_rep_ins },
	{ "rep-outs", point_rep_outs },
};

static const char *const no_yes[] = { "no", "yes", NULL };

static struct {
	size_t number; /* from 1 */
	const char *skipped;
	unsigned int wrong; /* of this point */
	unsigned int failures;
	uint64_t hold_ns;
	bool automatic;
	bool peer;
} sync;

void sync_announce(void)
{
	print("@%lu %s\n", sync.number, points[sync.number - 1].name);
}

static void take_byte(void)
{
	if (sync.automatic)
		return;
	while (serial_poll() < 0)
		cpu_relax();
}

void sync_wait(void)
{
	sync_announce();
	take_byte();
}

void sync_held(void)
{
	print("held %lu\n", sync.number);
	take_byte();
}

uint64_t sync_hold_ns(void)
{
	return sync.hold_ns;
}

bool sync_auto(void)
{
	return sync.automatic;
}

bool sync_peer(void)
{
	return sync.peer;
}

void sync_ask(void)
{
	print("ask %s\n", points[sync.number - 1].name);
}

void sync_check(const char *what, uint64_t expected, uint64_t got)
{
	if (expected == got)
		return;
	sync.wrong++;
	print("wrong %s: expected=0x%lx got=0x%lx\n", what, expected, got);
}

void sync_skip(const char *why)
{
	sync.skipped = why;
}

bool sync_until(volatile uint64_t *value, uint64_t least, uint64_t ns)
{
	uint64_t start = rdtsc();

	while (*value < least) {
		if (rdtsc() - start > clock_ns_tsc(ns))
			return false;
		cpu_relax();
	}
	return true;
}

static void run(size_t number)
{
	const char *name = points[number - 1].name;

	sync.number = number;
	sync.skipped = NULL;
	sync.wrong = 0;
	points[number - 1].run();
	if (sync.wrong) {
		sync.failures++;
		print("fail %lu %s\n", number, name);
	} else if (sync.skipped) {
		print("skip %lu %s: %s\n", number, name, sync.skipped);
	} else {
		print("ok %lu %s\n", number, name);
	}
}

unsigned int guest_main(void)
{
	size_t count = ARRAY_SIZE(points);
	size_t only = option_number("point", 0, count);
	size_t from = option_number("from", 1, count);
	bool list = option_choice("list", no_yes);

	sync.hold_ns = option_number("hold_ms", 500, 60000) * 1000000;
	sync.automatic = option_choice("auto", no_yes);
	sync.peer = option_choice("peer", no_yes);
	option_end();
	for (unsigned int i = 0; i < IOAPIC_PINS; i++)
		ioapic_route(i, IOAPIC_MASKED);
	print("sync: points=%lu cpus=%u\n", count, cpu_count());
	for (size_t i = 1; i <= count; i++) {
		if (list)
			print("%lu %s\n", i, points[i - 1].name);
		else if (only ? only == i : i >= from)
			run(i);
	}
	print("done\n");
	return sync.failures ? VERDICT_POINT : VERDICT_PASS;
}
