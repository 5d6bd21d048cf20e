/* SPDX-License-Identifier: MIT */
/*
 * msix: interrupts of a virtio device, each counted: none may be lost, none
 * doubled, and none may come while it is masked.
 *
 * A round is one of the steps below. Each has the device raise its vector in
 * some state of mask, function mask, address and enable bit, and says how many
 * interrupts must come, on which CPU, and what the pending bit must be. A
 * vector that is raised several times while it is masked comes once.
 *
 * Options: rounds=N, seconds=N (end by itself; 0, default: on 'q'), cpus=N
 * (default: 2 if there are; the vector is moved between them), intx=yes|no,
 * seed=N.
 * Serial: 's' prints "stats …", 'q' ends with the same after "end".
 * Verdicts: 20 an interrupt is lost, 21 one is doubled or came while masked, 22
 * a pending bit is wrong, 23 one came to another CPU, 24 the interrupt line is
 * wrong.
 */
#include "intx.h"
#include "prod.h"

#define VERDICT_LOST	(VERDICT_OWN + 0)
#define VERDICT_DOUBLED (VERDICT_OWN + 1)
#define VERDICT_PENDING (VERDICT_OWN + 2)
#define VERDICT_CPU	(VERDICT_OWN + 3)
#define VERDICT_LINE	(VERDICT_OWN + 4)

#define QUEUE_VECTOR  0x70U
#define CONFIG_VECTOR 0x71U
#define CPUS	      2U

/* Turns of a loop, not only time: the guest may have stood still. */
#define LOST_NS	  (5 * NS_PER_S)
#define TURN_NS	  1000000UL
#define SETTLE_NS 20000UL

static struct {
	struct prod prod;
	volatile uint64_t hits[CPUS];
	uint64_t expected[CPUS];
	unsigned int cpus, cpu; /* there are, it goes to */
	unsigned int pin;
	bool lines;
	const char *step;
	uint64_t rounds, raised, line_hits, random;
	volatile bool stop;
} m;

static void on_queue(struct trap_frame *frame)
{
	unsigned int cpu = this_cpu()->index;

	(void)frame;
	m.hits[cpu] = m.hits[cpu] + 1;
	lapic_eoi();
}

static void on_config(struct trap_frame *frame)
{
	(void)frame;
	lapic_eoi();
}

/* The second CPU waits with interrupts on. */
static void stand_by(void *arg)
{
	(void)arg;
	irq_set(true);
	while (!m.stop)
		cpu_relax();
	irq_set(false);
}

static uint64_t pick(uint64_t below)
{
	m.random = m.random * 6364136223846793005UL + 1442695040888963407UL;
	return (m.random >> 33) % below;
}

/* ---- claims ---- */

static _Noreturn void wrong(unsigned int verdict, const char *what,
			    uint64_t expected, uint64_t got)
{
	guest_fail(verdict, "%s in step %s of round %lu: %s: %lu, not %lu\n",
		   "wrong", m.step, m.rounds, what, got, expected);
}

static bool enough(volatile uint64_t *hits, uint64_t least)
{
	return *hits >= least;
}

static bool line_enough(volatile uint64_t *unused, uint64_t least)
{
	(void)unused;
	return intx_hits() >= least;
}

static bool pending(volatile uint64_t *unused, uint64_t want)
{
	(void)unused;
	return msix_pending(&m.prod.msix, PROD_QUEUE) == want;
}

static bool line_status(volatile uint64_t *unused, uint64_t want)
{
	(void)unused;
	return (pci_read(&m.prod.v.pci, PCI_STATUS, 2) &
		PCI_STATUS_INTERRUPT) == want;
}

/*
 * Wait until it holds: a request is done a moment before its interrupt is
 * raised. Up to LOST_NS of turns.
 */
static bool wait_until(bool (*holds)(volatile uint64_t *hits, uint64_t want),
		       volatile uint64_t *hits, uint64_t want)
{
	uint64_t last = rdtsc();
	uint64_t waited = 0;

	while (!holds(hits, want)) {
		uint64_t now = rdtsc();
		uint64_t ns = clock_tsc_ns(now - last);

		last = now;
		waited += ns < TURN_NS ? ns : TURN_NS;
		if (waited > LOST_NS)
			return false;
		cpu_relax();
	}
	return true;
}

static void expect_none(void)
{
	clock_delay(SETTLE_NS);
	for (unsigned int i = 0; i < m.cpus; i++)
		if (m.hits[i] != m.expected[i])
			wrong(VERDICT_DOUBLED, "interrupts", m.expected[i],
			      m.hits[i]);
}

static void expect_one(void)
{
	unsigned int other = 1 - m.cpu;
	bool came = wait_until(enough, &m.hits[m.cpu], m.expected[m.cpu] + 1);

	if (!came && m.cpus > 1 && m.hits[other] != m.expected[other])
		wrong(VERDICT_CPU, "it came to CPU", m.cpu, other);
	if (!came)
		wrong(VERDICT_LOST, "interrupts", m.expected[m.cpu] + 1,
		      m.hits[m.cpu]);
	m.expected[m.cpu]++;
	expect_none();
}

static void expect_pending(bool want)
{
	bool ok = want ? wait_until(pending, NULL, true) : pending(NULL, false);

	if (!ok)
		wrong(VERDICT_PENDING, "pending", want, !want);
}

static void raise_once(void)
{
	m.raised++;
	prod_once(&m.prod);
}

/*
 * Several times, then reset the queue: only after that is it certain that the
 * last of them was raised. The queue is not ready for use afterwards.
 */
static void raise_many(void)
{
	for (uint64_t n = 2 + pick(3); n; n--)
		raise_once();
	virtqueue_reset(&m.prod.queue);
}

static void setup_queue(void)
{
	virtqueue_setup(&m.prod.queue, &m.prod.v, 0, VIRTQUEUE_SIZE,
			PROD_QUEUE);
}

static void mask(bool masked)
{
	msix_mask(&m.prod.msix, PROD_QUEUE, masked);
}

static void function_mask(bool masked)
{
	msix_control(&m.prod.msix, MSIX_ENABLE | (masked ? MSIX_MASK : 0));
}

static void aim(unsigned int cpu)
{
	m.cpu = cpu;
	msix_target(&m.prod.msix, PROD_QUEUE, cpu_apic_id(cpu), QUEUE_VECTOR);
}

/* ---- steps ---- */

static void step_plain(void)
{
	raise_once();
	expect_one();
	expect_pending(false);
}

static void step_mask(void)
{
	mask(true);
	raise_once();
	expect_pending(true);
	expect_none();
	mask(false);
	expect_one();
	expect_pending(false);
}

/* Raised several times while masked: comes once. */
static void step_mask_many(void)
{
	if (!(m.prod.v.features & VIRTIO_F_RING_RESET))
		return;
	mask(true);
	raise_many();
	expect_pending(true);
	mask(false);
	expect_one();
	setup_queue();
	expect_none();
}

static void step_mask_unused(void)
{
	mask(true);
	expect_pending(false);
	mask(false);
	expect_none();
}

static void step_function_mask(void)
{
	function_mask(true);
	raise_once();
	expect_pending(true);
	expect_none();
	function_mask(false);
	expect_one();
	expect_pending(false);
}

static void step_both_masks(void)
{
	mask(true);
	function_mask(true);
	raise_once();
	expect_pending(true);
	function_mask(false);
	expect_none();
	expect_pending(true);
	mask(false);
	expect_one();
}

/* Software must mask an entry before it changes the address. */
static void step_affinity(void)
{
	mask(true);
	aim((m.cpu + 1) % m.cpus);
	mask(false);
	raise_once();
	expect_one();
}

/* What is pending goes to where the address says when the mask goes. */
static void step_affinity_pending(void)
{
	mask(true);
	raise_once();
	expect_pending(true);
	aim((m.cpu + 1) % m.cpus);
	expect_pending(true);
	mask(false);
	expect_one();
}

/* The table stays as it is. */
static void step_disable(void)
{
	msix_control(&m.prod.msix, 0);
	msix_control(&m.prod.msix, MSIX_ENABLE);
	raise_once();
	expect_one();
}

static void step_no_vector(void)
{
	volatile struct virtio_common *common = m.prod.v.common;

	if (!(m.prod.v.features & VIRTIO_F_RING_RESET))
		return;
	common->queue_select = 0;
	common->queue_vector = VIRTIO_NO_VECTOR;
	raise_many();
	expect_pending(false);
	setup_queue();
	expect_none();
}

static void expect_line(uint64_t n)
{
	uint64_t want = m.line_hits + n;

	wait_until(line_enough, NULL, want);
	clock_delay(SETTLE_NS);
	if (intx_hits() != want)
		wrong(VERDICT_LINE, "interrupts by the line", want,
		      intx_hits());
	m.line_hits = want;
}

/* Without MSI-X, and then masked at the function by the INTx disable bit. */
static void step_line(void)
{
	const struct pci_device *pci = &m.prod.v.pci;

	if (!m.lines)
		return;
	msix_control(&m.prod.msix, 0);
	virtio_isr(&m.prod.v);
	intx_unmask(m.pin, true);
	raise_once();
	expect_line(1);
	pci_command(pci, PCI_COMMAND_INTX_OFF, 0);
	raise_once();
	if (!wait_until(line_status, NULL, PCI_STATUS_INTERRUPT))
		wrong(VERDICT_LINE, "interrupt status", 1, 0);
	expect_line(0);
	pci_command(pci, 0, PCI_COMMAND_INTX_OFF);
	expect_line(1);
	intx_unmask(m.pin, false);
	msix_control(&m.prod.msix, MSIX_ENABLE);
	expect_none();
}

static const struct {
	const char *name;
	void (*run)(void);
} steps[] = {
	{ "plain", step_plain },
	{ "mask", step_mask },
	{ "mask-many", step_mask_many },
	{ "mask-unused", step_mask_unused },
	{ "function-mask", step_function_mask },
	{ "both-masks", step_both_masks },
	{ "affinity", step_affinity },
	{ "affinity-pending", step_affinity_pending },
	{ "disable", step_disable },
	{ "no-vector", step_no_vector },
	{ "line", step_line },
};

/* ---- the start and the end ---- */

static void show(const char *what)
{
	uint64_t delivered = 0;

	for (unsigned int i = 0; i < m.cpus; i++)
		delivered += m.hits[i];
	/* A wrong count ends the guest, so whoever reads this saw none. */
	print("%s rounds=%lu raised=%lu delivered=%lu lines=%lu lost=0 "
	      "doubled=0\n",
	      what, m.rounds, m.raised, delivered, m.line_hits);
}

static void start_device(bool lines)
{
	if (!prod_find(&m.prod))
		guest_fail(VERDICT_MACHINE,
			   "no virtio device with MSI-X to prod\n");
	prod_start(&m.prod, VIRTIO_F_RING_RESET);
	if (lines)
		m.lines = intx_find(&m.prod, &m.pin);
	m.line_hits = intx_hits();
	trap_set(QUEUE_VECTOR, on_queue);
	trap_set(CONFIG_VECTOR, on_config);
	msix_target(&m.prod.msix, PROD_CONFIG, cpu_apic_id(0), CONFIG_VECTOR);
	msix_mask(&m.prod.msix, PROD_CONFIG, false);
	aim(0);
	mask(false);
	msix_control(&m.prod.msix, MSIX_ENABLE);
	virtio_isr(&m.prod.v);
}

static const char *const yes_no[] = { "yes", "no", NULL };

unsigned int guest_main(void)
{
	uint64_t rounds = option_number("rounds", 0, UINT64_MAX);
	uint64_t seconds = option_number("seconds", 0, 1000000);
	uint64_t cpus = option_number("cpus", cpu_count() > 1 ? 2 : 1, CPUS);
	bool lines = !option_choice("intx", yes_no);
	uint64_t start;
	int c;

	m.random = option_number("seed", 1, UINT64_MAX);
	option_end();
	if (!cpus || cpus > cpu_count())
		guest_fail(VERDICT_USAGE, "cpus=%lu: there are %u\n", cpus,
			   cpu_count());
	m.cpus = (unsigned int)cpus;
	start_device(lines);
	if (m.cpus > 1)
		cpu_start(1, stand_by, NULL);
	print("msix: device=%s vectors=%u cpus=%u line=%d\nready\n",
	      m.prod.kind == VIRTIO_ID_RNG ? "rng" : "disk",
	      m.prod.msix.vectors, m.cpus, m.lines ? (int)m.pin : -1);
	irq_set(true);
	start = rdtsc();
	while (!m.stop) {
		size_t i = pick(ARRAY_SIZE(steps));

		m.step = steps[i].name;
		steps[i].run();
		m.rounds++;
		c = serial_poll();
		if (c == 's')
			show("stats");
		if (c == 'q' || m.rounds == rounds ||
		    (seconds &&
		     clock_tsc_ns(rdtsc() - start) >= seconds * NS_PER_S))
			m.stop = true;
	}
	show("end");
	return VERDICT_PASS;
}
