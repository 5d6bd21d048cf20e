// SPDX-License-Identifier: MIT
/*
 * The KVM-held state with a KVM: from one VM into another and back out without
 * a difference, and what KVM does not take.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/msr.h"
#include "arch/x86_64/vm_arch_state.h"
#include "tests/unit/arch_sample.h"
#include "tests/unit/unit.h"

#define CPUS 2

static struct arch_cpu_model model;

struct rig {
	struct kvm kvm;
	int vm_fd;
	int vcpu_fd[CPUS];
	uint8_t *ram;
};

#define RAM_SIZE (1 * MIB)
#define CODE	 0x1000

/* Opens KVM, or says that the test is skipped. */
static bool have_kvm(struct kvm *kvm, const char *test)
{
	struct error err;

	if (!kvm_open(kvm, &err))
		return true;
	fprintf(stderr, "SKIP %s: %s\n", test, err.text);
	return false;
}

#define OK(call) ck_assert_msg((call) >= 0, "%s", err.text)

static void rig_init(struct rig *rig)
{
	struct kvm_userspace_memory_region slot = { .memory_size = RAM_SIZE };
	struct error err = { 0 };

	OK(arch_cpu_model_host(&rig->kvm, -1, CPUS, &model, &err));
	OK(arch_cpu_model_check(&rig->kvm, &model, &model, &err));
	OK(rig->vm_fd = KVM_IOCTL_NUM(rig->kvm.fd, KVM_CREATE_VM, 0, &err));
	OK(arch_vm_init(&rig->kvm, rig->vm_fd, &err));
	rig->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(rig->ram, MAP_FAILED);
	slot.userspace_addr = (uintptr_t)rig->ram;
	OK(KVM_IOCTL(rig->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot, &err));
	for (uint32_t i = 0; i < CPUS; i++) {
		OK(rig->vcpu_fd[i] =
			   KVM_IOCTL_NUM(rig->vm_fd, KVM_CREATE_VCPU, i, &err));
		OK(arch_vcpu_init(&rig->kvm, rig->vcpu_fd[i], i, &model, &err));
	}
}

static void rig_fini(struct rig *rig)
{
	for (size_t i = 0; i < CPUS; i++)
		close_fd(&rig->vcpu_fd[i]);
	close_fd(&rig->vm_fd);
	munmap(rig->ram, RAM_SIZE);
}

struct snapshot {
	struct x86_vcpu_state vcpu[CPUS];
	struct x86_vm_state vm;
};

static struct snapshot *save(struct rig *rig)
{
	struct snapshot *snap = calloc(1, sizeof(*snap));
	struct error err = { 0 };

	for (uint32_t i = 0; i < CPUS; i++) {
		OK(arch_vcpu_save(&rig->kvm, rig->vcpu_fd[i], &snap->vcpu[i],
				  &err));
		OK(arch_vcpu_check(&rig->kvm, &model, i, &snap->vcpu[i], NULL,
				   &err));
	}
	OK(arch_vm_save(&rig->kvm, rig->vm_fd, &snap->vm, &err));
	OK(arch_vm_check(&rig->kvm, &snap->vm, &err));
	return snap;
}

static struct arch_clock_shift
load(struct rig *rig, const struct snapshot *snap, const struct snapshot *held)
{
	struct arch_clock_shift shift;
	struct error err = { 0 };

	OK(arch_vm_load_begin(&rig->kvm, rig->vm_fd, &snap->vm, model.tsc_khz,
			      &shift, &err));
	for (uint32_t i = 0; i < CPUS; i++)
		OK(arch_vcpu_load(&rig->kvm, rig->vcpu_fd[i], &snap->vcpu[i],
				  held ? &held->vcpu[i] : NULL, &shift, &err));
	OK(arch_vm_load_finish(&rig->kvm, rig->vm_fd, &snap->vm, &err));
	return shift;
}

/* @rig has just been made. Returns what it holds then. */
static struct snapshot *prime(struct rig *rig, const struct snapshot *ahead)
{
	struct snapshot *fresh = save(rig);
	struct snapshot *held = calloc(1, sizeof(*held));
	struct error err = { 0 };

	for (uint32_t i = 0; i < CPUS; i++)
		OK(arch_vcpu_prime(&rig->kvm, rig->vcpu_fd[i], &ahead->vcpu[i],
				   &fresh->vcpu[i], &held->vcpu[i], &err));
	free(fresh);
	return held;
}

static uint64_t *msr(struct x86_vcpu_state *s, uint32_t index)
{
	for (uint32_t i = 0; i < s->nmsrs; i++)
		if (s->msr_index[i] == index)
			return &s->msr_value[i];
	ck_abort_msg("no MSR 0x%x", index);
}

/*
 * Take out what time changes, after checking how it did. Without offsets KVM
 * may take a TSC that is written for an attempt to synchronise it with the
 * VM's others, so then nothing is known of it.
 */
static void settle(struct snapshot *before, struct snapshot *after,
		   const struct arch_clock_shift *shift)
{
	ck_assert_uint_ge(after->vm.clock.clock_ns, before->vm.clock.clock_ns);
	after->vm.clock = before->vm.clock;
	for (size_t i = 0; i < CPUS; i++) {
		struct x86_vcpu_state *was = &before->vcpu[i];
		struct x86_vcpu_state *is = &after->vcpu[i];

		if (shift->valid && was->tsc_offset_valid) {
			uint64_t moved = is->tsc_offset - was->tsc_offset;

			/* PVM takes an offset and ignores it. */
			ck_assert(moved == (uint64_t)shift->tsc_delta ||
				  is->tsc_offset == 0);
			ck_assert_uint_ge(*msr(is, MSR_TSC),
					  *msr(was, MSR_TSC));
		}
		*msr(is, MSR_TSC) = *msr(was, MSR_TSC);
		is->tsc_offset = was->tsc_offset;
	}
}

static void assert_same(struct snapshot *before, struct snapshot *after,
			const struct arch_clock_shift *shift)
{
	settle(before, after, shift);
	for (size_t i = 0; i < CPUS; i++) {
		const uint8_t *a = (const uint8_t *)&before->vcpu[i];
		const uint8_t *b = (const uint8_t *)&after->vcpu[i];

		for (size_t at = 0; at < sizeof(before->vcpu[i]); at++)
			ck_assert_msg(a[at] == b[at],
				      "vCPU %zu: byte %zu is 0x%x, was 0x%x", i,
				      at, b[at], a[at]);
	}
	ck_assert_mem_eq(&before->vm, &after->vm, sizeof(before->vm));
}

/* @held: what @rig holds, as far as that is known, or NULL; freed. */
static void assert_loads(struct rig *rig, struct snapshot *before,
			 struct snapshot *held,
			 void (*look)(struct rig *rig, struct snapshot *before))
{
	struct arch_clock_shift shift = load(rig, before, held);
	struct snapshot *after;

	if (look)
		look(rig, before);
	after = save(rig);
	assert_same(before, after, &shift);
	free(after);
	free(held);
}

/* After it was primed with what @ahead held. */
static void assert_moves_primed(const struct kvm *kvm, struct snapshot *before,
				const struct snapshot *ahead)
{
	struct rig rig = { .kvm = *kvm };

	rig_init(&rig);
	assert_loads(&rig, before, prime(&rig, ahead), NULL);
	rig_fini(&rig);
}

/*
 * Into a fresh VM, which then is made a fresh one again; without and with its
 * being known what that holds. And into one that holds some of it already, or
 * what such a VM held at first. @look, when not NULL, at what was loaded.
 */
static void assert_moves(const struct kvm *kvm, struct snapshot *before,
			 void (*look)(struct rig *rig, struct snapshot *before))
{
	for (int told = 0; told < 2; told++) {
		struct rig rig = { .kvm = *kvm };
		struct snapshot *fresh;

		rig_init(&rig);
		fresh = save(&rig);
		assert_loads(&rig, before, told ? save(&rig) : NULL, look);
		assert_loads(&rig, fresh, told ? save(&rig) : NULL, NULL);
		assert_moves_primed(kvm, before, told ? before : fresh);
		if (told)
			assert_moves_primed(kvm, fresh, before);
		free(fresh);
		rig_fini(&rig);
	}
}

START_TEST(a_fresh_vm_moves_without_a_difference)
{
	struct rig a;
	struct snapshot *before;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	before = save(&a);
	assert_moves(&a.kvm, before, NULL);
	free(before);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/*
 * Real mode: program the PIC, the PIT and an MSR, switch the local APIC to
 * x2APIC, arm its timer far ahead, then leave by a port.
 */
static const uint8_t program[] = {
	0xb0, 0x11, 0xe6, 0x20, /* mov $0x11,%al; out %al,$0x20: ICW1 */
	0xb0, 0x20, 0xe6, 0x21, /* ICW2: vectors from 0x20 */
	0xb0, 0x04, 0xe6, 0x21, /* ICW3 */
	0xb0, 0x01, 0xe6, 0x21, /* ICW4 */
	0xb0, 0xfb, 0xe6, 0x21, /* mask all but the cascade */
	0xb0, 0x36, 0xe6, 0x43, /* PIT channel 0, mode 3 */
	0xb0, 0x34, 0xe6, 0x40, /* count 0x1234 */
	0xb0, 0x12, 0xe6, 0x40, 0x66, 0xb9, 0x74, 0x01, 0, 0, /* mov
								 $0x174,%ecx:
								 SYSENTER_CS */
	0x66, 0xb8, 0x10, 0,	0,    0,    /* mov $0x10,%eax */
	0x66, 0x31, 0xd2,		    /* xor %edx,%edx */
	0x0f, 0x30,			    /* wrmsr */
	0x66, 0xb9, 0x1b, 0,	0,    0,    /* APIC base */
	0x66, 0xb8, 0x00, 0x0d, 0xe0, 0xfe, /* enable, x2APIC, BSP */
	0x0f, 0x30,			    /* wrmsr */
	0x66, 0xb9, 0x0f, 0x08, 0,    0,    /* spurious vector */
	0x66, 0xb8, 0xff, 0x01, 0,    0,    /* enabled */
	0x0f, 0x30,			    /* wrmsr */
	0x66, 0xb9, 0x32, 0x08, 0,    0,    /* LVT timer */
	0x66, 0xb8, 0x40, 0x00, 0x04, 0,    /* TSC deadline, vector 0x40 */
	0x0f, 0x30,			    /* wrmsr */
	0x66, 0xb9, 0xe0, 0x06, 0,    0,    /* TSC_DEADLINE */
	0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, 0x66, 0xba, 0, 0, 0,
	0x40,	    /* far ahead */
	0x0f, 0x30, /* wrmsr */
	0xe6, 0x80, /* out %al,$0x80 */
	0xf4,	    /* hlt */
};

static void run_program(struct rig *rig)
{
	struct error err = { 0 };
	struct kvm_regs regs = { .rip = 0, .rflags = 2, .rsp = 0x800 };
	struct kvm_sregs sregs;
	struct kvm_run *run;

	memcpy(rig->ram + CODE, program, sizeof(program));
	OK(KVM_IOCTL(rig->vcpu_fd[0], KVM_GET_SREGS, &sregs, &err));
	sregs.cs.base = CODE;
	sregs.cs.selector = CODE >> 4;
	OK(KVM_IOCTL(rig->vcpu_fd[0], KVM_SET_SREGS, &sregs, &err));
	OK(KVM_IOCTL(rig->vcpu_fd[0], KVM_SET_REGS, &regs, &err));
	run = mmap(NULL, rig->kvm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   rig->vcpu_fd[0], 0);
	ck_assert_ptr_ne(run, MAP_FAILED);
	OK(KVM_IOCTL_NUM(rig->vcpu_fd[0], KVM_RUN, 0, &err));
	ck_assert_uint_eq(run->exit_reason, KVM_EXIT_IO);
	ck_assert_uint_eq(run->io.port, 0x80);
	run->immediate_exit = 1; /* complete the access */
	ck_assert_int_eq(ioctl(rig->vcpu_fd[0], KVM_RUN, 0), -1);
	run->immediate_exit = 0;
	munmap(run, rig->kvm.run_size);
}

START_TEST(a_vm_that_ran_moves_without_a_difference)
{
	struct rig a;
	struct snapshot *before;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	run_program(&a);
	before = save(&a);
	ck_assert_uint_eq(before->vm.pic[0].irq_base, 0x20);
	ck_assert_uint_eq(before->vm.pic[0].imr, 0xfb);
	ck_assert_uint_eq(before->vm.pit.channel[0].count, 0x1234);
	ck_assert_uint_eq(*msr(&before->vcpu[0], 0x174), 0x10);
	ck_assert_uint_eq(*msr(&before->vcpu[0], MSR_TSC_DEADLINE),
			  0x4000000012345678);
	ck_assert_uint_eq(before->vcpu[0].sregs.apic_base & 0xc00, 0xc00);
	ck_assert_uint_eq(before->vcpu[1].mp_state, KVM_MP_STATE_UNINITIALIZED);
	assert_moves(&a.kvm, before, NULL);
	free(before);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

static void look_at_xcr0(struct rig *rig, struct snapshot *before)
{
	(void)rig;
	before->vcpu[0].xcr0 = 1;
}

/* Such hosts have no XCRs to ask for: KVM would refuse. */
START_TEST(a_vm_moves_on_a_host_without_xsave)
{
	struct rig a;
	struct snapshot *before;

	if (!have_kvm(&a.kvm, __func__))
		return;
	a.kvm.has_xcrs = false;
	rig_init(&a);
	before = save(&a);
	ck_assert_uint_eq(before->vcpu[0].xcr0, 1);
	/* Not loaded: KVM would refuse this. */
	before->vcpu[0].xcr0 = 0;
	assert_moves(&a.kvm, before, look_at_xcr0);
	free(before);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/* Registers that no short program fills. */
static void fill_vcpu(struct x86_vcpu_state *s)
{
	const uint64_t xstate_bv = 3;

	poison(&s->regs, sizeof(s->regs));
	s->regs.rip = 0xfff0;
	s->regs.rflags = 0x8d7;
	for (size_t i = 0; i < 4; i++)
		s->debugregs.dr[i] = 0x1000 * (i + 1);
	s->sregs.cr2 = 0x123456789a;
	s->events.nmi_masked = 1;
	s->events.exception_injected = 1;
	s->events.exception_nr = 14;
	s->events.exception_has_error_code = 1;
	s->events.exception_error_code = 0x1f;
	s->debugregs.dr7 = 0x455;
	s->xcr0 = cpuid_xcr0(&model) & 7;
	s->sregs.cr8 = 3;
	s->lapic[0x80] = 0x30; /* TPR, the same */
	s->lapic[0xa0] = 0x30; /* PPR, which follows */
	s->sregs.seg[X86_FS].base = 0x1234;
	poison(s->xsave + 32, 128); /* x87 */
	for (size_t i = 0; i < 8; i++)
		memset(s->xsave + 32 + 16 * i + 10, 0, 6);
	poison(s->xsave + 160, 256); /* XMM0 to 15 */
	memcpy(s->xsave + 512, &xstate_bv, sizeof(xstate_bv));
	*msr(s, 0x277) = 0x0007040600070406;
	*msr(s, 0x200) = 0x80000000;
	*msr(s, 0x201) =
		((1ULL << cpuid_phys_bits(&model)) - 1) & ~0x7ffff7ffULL;
	*msr(s, 0xc0000082) = 0xffffffff81200000;
	*msr(s, 0xc0000102) = 0xffff888000123000;
}

/* A mistake made both ways would cancel out: ask KVM itself. */
static void look_at_registers(struct rig *rig, struct snapshot *before)
{
	const struct x86_vcpu_state *s = &before->vcpu[1];
	const uint32_t i = 1;
	struct error err = { 0 };
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	OK(KVM_IOCTL(rig->vcpu_fd[i], KVM_GET_REGS, &regs, &err));
	OK(KVM_IOCTL(rig->vcpu_fd[i], KVM_GET_SREGS, &sregs, &err));
	ck_assert_uint_eq(regs.rax, s->regs.rax);
	ck_assert_uint_eq(regs.rsi, s->regs.rsi);
	ck_assert_uint_eq(regs.rdi, s->regs.rdi);
	ck_assert_uint_eq(regs.r15, s->regs.r15);
	ck_assert_uint_eq(sregs.cr2, s->sregs.cr2);
	ck_assert_uint_eq(sregs.fs.base, 0x1234);
	ck_assert_uint_eq(sregs.ldt.type,
			  s->sregs.seg[X86_LDT].attr & X86_SEG_TYPE);
	ck_assert_uint_eq(sregs.cs.type,
			  s->sregs.seg[X86_CS].attr & X86_SEG_TYPE);
	ck_assert_uint_eq(sregs.cs.s, 1);
	ck_assert_uint_eq(sregs.cs.present, 1);
}

START_TEST(full_registers_move_without_a_difference)
{
	struct rig a;
	struct snapshot *before;
	struct error err = { 0 };

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		fill_vcpu(&before->vcpu[i]);
		OK(arch_vcpu_check(&a.kvm, &model, i, &before->vcpu[i], NULL,
				   &err));
	}
	assert_moves(&a.kvm, before, look_at_registers);
	free(before);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/* What is left out because the vCPU holds it is left out for itself alone. */
START_TEST(one_group_of_registers_moves_where_the_others_are_the_same)
{
#define GROUP(member)                                                \
	{                                                            \
		offsetof(struct x86_vcpu_state, member),             \
			sizeof(((struct x86_vcpu_state *)0)->member) \
	}
	static const struct {
		size_t at, size;
	} groups[] = {
		GROUP(regs),	  GROUP(sregs.seg), GROUP(xsave),
		GROUP(debugregs), GROUP(events),    GROUP(xcr0),
		GROUP(msr_value),
	};
	struct x86_vcpu_state *full;
	struct snapshot *before;
	struct rig a;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		before = save(&a);
		full = calloc(1, sizeof(*full));
		*full = before->vcpu[0];
		fill_vcpu(full);
		memcpy((uint8_t *)&before->vcpu[0] + groups[i].at,
		       (uint8_t *)full + groups[i].at, groups[i].size);
		assert_moves(&a.kvm, before, NULL);
		free(full);
		free(before);
	}
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/*
 * CR8 is the upper half of the task priority: who sets it takes away the lower,
 * even where both are what they were.
 */
START_TEST(the_task_priority_survives_special_registers)
{
	struct snapshot *ahead, *before;
	struct rig a;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	ahead = save(&a);
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		ahead->vcpu[i].sregs.cr8 = 3;
		ahead->vcpu[i].lapic[0x80] = 0x35; /* TPR */
		ahead->vcpu[i].lapic[0xa0] = 0x35; /* PPR */
		before->vcpu[i] = ahead->vcpu[i];
		before->vcpu[i].sregs.cr2 = 0x1000;
	}
	assert_moves_primed(&a.kvm, before, ahead);
	free(before);
	free(ahead);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

#define KVMCLOCK   0x4b564d01
#define STEAL_TIME 0x4b564d03

static void assert_zero(const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		ck_assert_msg(!bytes[i], "byte %zu is 0x%x", i, bytes[i]);
}

START_TEST(nothing_comes_of_what_is_primed)
{
	struct snapshot *ahead, *held, *later;
	struct rig a, b;

	if (!have_kvm(&a.kvm, __func__))
		return;
	b.kvm = a.kvm;
	rig_init(&a);
	run_program(&a);
	ahead = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		struct x86_vcpu_state *s = &ahead->vcpu[i];

		s->events.nmi_pending = 1;
		*msr(s, KVMCLOCK) = 0x2001;
		*msr(s, STEAL_TIME) = 0x3001;
	}
	/* The deadline has passed; and a timer that would soon run out. */
	*msr(&ahead->vcpu[0], MSR_TSC_DEADLINE) = 1;
	ahead->vcpu[1].lapic[0x320] = 0x41; /* LVT timer: one shot */
	ahead->vcpu[1].lapic[0x380] = 0x10; /* initial count */
	ahead->vcpu[1].lapic[0x390] = 0x10; /* current count */
	ahead->vcpu[1].lapic[0xf1] = 1;	    /* enabled */
	rig_init(&b);
	held = prime(&b, ahead);
	later = save(&b);
	assert_zero(b.ram, RAM_SIZE);
	for (uint32_t i = 0; i < CPUS; i++) {
		struct x86_vcpu_state *s = &later->vcpu[i];

		ck_assert_uint_eq(*msr(s, MSR_TSC_DEADLINE), 0);
		ck_assert_uint_eq(s->events.nmi_pending, 0);
		ck_assert_uint_eq(s->regs.rip, ahead->vcpu[i].regs.rip);
		ck_assert_uint_eq(*msr(s, KVMCLOCK), 0x2001);
		ck_assert_uint_eq(*msr(s, STEAL_TIME), 0);
		ck_assert_uint_ge(*msr(s, MSR_TSC),
				  *msr(&held->vcpu[i], MSR_TSC));
		*msr(s, MSR_TSC) = *msr(&held->vcpu[i], MSR_TSC);
		ck_assert_mem_eq(s, &held->vcpu[i], sizeof(*s));
	}
	/* In the mode that goes by the deadline, its page waits. */
	ck_assert_uint_eq(later->vcpu[0].lapic[0x320], 0x40);
	assert_zero(later->vcpu[1].lapic + 0x380, 4);
	free(later);
	free(held);
	free(ahead);
	rig_fini(&b);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

#define LVT_TIMER     0x320
#define INITIAL_COUNT 0x380
#define CURRENT_COUNT 0x390

static uint32_t *lapic(struct x86_vcpu_state *s, size_t at)
{
	return (uint32_t *)(void *)(s->lapic + at);
}

/* Switched on by software, and the timer's clock undivided. */
static void enable_lapic(struct x86_vcpu_state *s)
{
	*lapic(s, 0xf0) = 0x1ff;
	*lapic(s, 0x3e0) = 0xb;
}

/* A mode in which the other count is none makes KVM forget that one. */
START_TEST(a_timer_that_has_changed_its_mode_since_counts_on)
{
	struct snapshot *ahead, *before, *after;
	struct rig a, b;

	if (!have_kvm(&a.kvm, __func__))
		return;
	b.kvm = a.kvm;
	rig_init(&a);
	ahead = save(&a);
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++) {
		enable_lapic(&ahead->vcpu[i]);
		*lapic(&ahead->vcpu[i], LVT_TIMER) = 0x40040; /* deadline */
		enable_lapic(&before->vcpu[i]);
		*lapic(&before->vcpu[i], LVT_TIMER) = i ? 0x20040 : 0x40;
		*lapic(&before->vcpu[i], INITIAL_COUNT) = 0xffffffff;
		*lapic(&before->vcpu[i], CURRENT_COUNT) = 0xfffffffe;
	}
	rig_init(&b);
	after = prime(&b, ahead);
	ck_assert_uint_eq(*lapic(&after->vcpu[0], LVT_TIMER), 0x40040);
	(void)load(&b, before, after);
	free(after);
	after = save(&b);
	for (uint32_t i = 0; i < CPUS; i++) {
		ck_assert_uint_eq(*lapic(&after->vcpu[i], INITIAL_COUNT),
				  0xffffffff);
		ck_assert_uint_gt(*lapic(&after->vcpu[i], CURRENT_COUNT),
				  0x10000000);
	}
	free(after);
	free(before);
	free(ahead);
	rig_fini(&b);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

START_TEST(interrupts_are_not_primed)
{
	static const size_t kinds[] = { 0x100, 0x200 }; /* ISR, IRR */
	struct snapshot *ahead, *held, *later;
	struct rig a, b;

	if (!have_kvm(&a.kvm, __func__))
		return;
	b.kvm = a.kvm;
	rig_init(&a);
	ahead = save(&a);
	rig_init(&b);
	for (uint32_t i = 0; i < CPUS; i++) {
		enable_lapic(&ahead->vcpu[i]);
		*lapic(&ahead->vcpu[i], kinds[i] + 0x20) = 1;
	}
	held = prime(&b, ahead);
	later = save(&b);
	for (uint32_t i = 0; i < CPUS; i++) {
		ck_assert_uint_eq(*lapic(&later->vcpu[i], kinds[i] + 0x20), 0);
		ck_assert_uint_ne(*lapic(&later->vcpu[i], 0xf0), 0x1ff);
	}
	free(later);
	free(held);
	free(ahead);
	rig_fini(&b);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/* What a processor waits for when it isn't at work is primed, or isn't. */
START_TEST(mp_states_move_over_each_other)
{
	static const uint32_t states[] = {
		KVM_MP_STATE_RUNNABLE,
		KVM_MP_STATE_HALTED,
		KVM_MP_STATE_UNINITIALIZED,
		KVM_MP_STATE_INIT_RECEIVED,
	};
	struct snapshot *ahead, *before, *held;
	struct rig a;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	ahead = save(&a);
	before = save(&a);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
		struct rig b = { .kvm = a.kvm };

		ahead->vcpu[1].mp_state = states[i];
		for (size_t j = 0; j < ARRAY_SIZE(states); j++) {
			before->vcpu[1].mp_state = states[j];
			assert_moves_primed(&a.kvm, before, ahead);
		}
		rig_init(&b);
		held = prime(&b, ahead);
		ck_assert_uint_eq(held->vcpu[1].mp_state,
				  i < 2 ? states[i]
					: KVM_MP_STATE_UNINITIALIZED);
		free(held);
		rig_fini(&b);
	}
	free(before);
	free(ahead);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/* 64-bit code, as a kernel runs it. */
static void make_long_mode(struct x86_vcpu_state *s)
{
	const uint16_t code =
		0xb | X86_SEG_S | X86_SEG_PRESENT | X86_SEG_L | X86_SEG_G;
	const uint16_t data =
		0x3 | X86_SEG_S | X86_SEG_PRESENT | X86_SEG_DB | X86_SEG_G;

	s->sregs.cr0 = X86_CR0_PG | 0x33;
	s->sregs.cr3 = 0x1000;
	s->sregs.cr4 = 0x20;
	s->sregs.efer = X86_EFER_LMA | 0x101; /* LME, SCE */
	for (size_t i = X86_CS; i <= X86_SS; i++)
		s->sregs.seg[i] = (struct x86_segment){
			.limit = 0xffffffff,
			.selector = i == X86_CS ? 0x10 : 0x18,
			.attr = i == X86_CS ? code : data,
		};
	s->sregs.seg[X86_TR] = (struct x86_segment){
		.base = 0x3000,
		.limit = 0x67,
		.selector = 0x28,
		.attr = 0xb | X86_SEG_PRESENT,
	};
	s->regs.rip = 0xffffffff81000000;
	s->regs.rflags = 0x2;
	s->regs.rsp = 0xffffffff82000000;
	*msr(s, 0xc0000081) = 0x0023001000000000; /* STAR */
	*msr(s, 0xc0000082) = 0xffffffff81200000; /* LSTAR */
}

/* The guest is reset in the rounds, say; and starts from there. */
START_TEST(a_vcpu_primed_in_long_mode_starts_in_real_mode)
{
	struct snapshot *ahead, *before;
	struct rig a, b;

	if (!have_kvm(&a.kvm, __func__))
		return;
	b.kvm = a.kvm;
	rig_init(&a);
	ahead = save(&a);
	before = save(&a);
	for (uint32_t i = 0; i < CPUS; i++)
		make_long_mode(&ahead->vcpu[i]);
	assert_moves(&a.kvm, ahead, NULL);
	rig_init(&b);
	assert_loads(&b, before, prime(&b, ahead), NULL);
	run_program(&b);
	rig_fini(&b);
	free(before);
	free(ahead);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/* And what is primed is there, or priming would be for nothing. */
START_TEST(what_may_wait_is_primed)
{
	struct snapshot *ahead, *held;
	struct rig a;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	ahead = save(&a);
	for (uint32_t i = 0; i < CPUS; i++)
		fill_vcpu(&ahead->vcpu[i]);
	held = prime(&a, ahead);
	for (uint32_t i = 0; i < CPUS; i++) {
		struct x86_vcpu_state *is = &held->vcpu[i];
		struct x86_vcpu_state *was = &ahead->vcpu[i];

		ck_assert_mem_eq(&is->regs, &was->regs, sizeof(is->regs));
		ck_assert_mem_eq(&is->sregs, &was->sregs, sizeof(is->sregs));
		ck_assert_mem_eq(&is->debugregs, &was->debugregs,
				 sizeof(is->debugregs));
		ck_assert_mem_eq(is->xsave, was->xsave, sizeof(is->xsave));
		ck_assert_mem_eq(is->lapic, was->lapic, sizeof(is->lapic));
		ck_assert_uint_eq(is->xcr0, was->xcr0);
		ck_assert_uint_eq(*msr(is, 0xc0000082), *msr(was, 0xc0000082));
		ck_assert_uint_eq(*msr(is, 0x277), *msr(was, 0x277));
		ck_assert_uint_eq(is->events.exception_injected, 0);
	}
	free(held);
	free(ahead);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

/* KVM reads PAE's page directory pointers as it is given CR3. */
START_TEST(paging_that_starts_in_memory_is_not_primed)
{
	struct snapshot *ahead, *held;
	struct rig a;

	if (!have_kvm(&a.kvm, __func__))
		return;
	rig_init(&a);
	ahead = save(&a);
	ahead->vcpu[0].sregs.cr0 |= X86_CR0_PG | 1;
	ahead->vcpu[0].sregs.cr3 = 0x1000;
	ahead->vcpu[0].sregs.cr4 = 0x20; /* PAE */
	ahead->vcpu[1].sregs.cr2 = 0x1000;
	held = prime(&a, ahead);
	ck_assert_uint_eq(held->vcpu[0].sregs.cr3, 0);
	ck_assert_uint_eq(held->vcpu[0].sregs.cr0 & X86_CR0_PG, 0);
	ck_assert_uint_eq(held->vcpu[1].sregs.cr2, 0x1000);
	free(held);
	free(ahead);
	rig_fini(&a);
	kvm_close(&a.kvm);
}
END_TEST

START_TEST(msrs_that_are_no_state_are_refused)
{
	static const struct {
		uint32_t index;
		uint64_t value;
	} cases[] = {
		{ 0x1b, 0xfee00900 },	{ 0xc0000080, 0x500 },
		{ 0x4b564d00, 0x1000 }, { 0x808, 1 },
		{ 0xdeadbeef, 1 },	{ MSR_XSS, 1 },
	};
	struct rig rig;
	struct snapshot *snap;
	struct x86_vcpu_state *s;
	struct error err = { 0 };
	uint32_t n;

	if (!have_kvm(&rig.kvm, __func__))
		return;
	rig_init(&rig);
	snap = save(&rig);
	s = &snap->vcpu[0];
	n = s->nmsrs;
	s->nmsrs = n + 1;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		s->msr_index[n] = cases[i].index;
		s->msr_value[n] = cases[i].value;
		ck_assert_int_lt(
			arch_vcpu_check(&rig.kvm, &model, 0, s, NULL, &err), 0);
	}
	/* Another host may hold what this one doesn't, as long as it is 0. */
	s->msr_index[n] = 0x122;
	s->msr_value[n] = 0;
	OK(arch_vcpu_check(&rig.kvm, &model, 0, s, NULL, &err));
	s->msr_index[n] = s->msr_index[0];
	ck_assert_int_eq(arch_vcpu_check(&rig.kvm, &model, 0, s, NULL, &err),
			 -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "twice"));
	free(snap);
	rig_fini(&rig);
	kvm_close(&rig.kvm);
}
END_TEST

START_TEST(msrs_that_no_guest_can_write_are_refused)
{
	static const struct {
		uint32_t index;
		uint64_t value;
	} cases[] = {
		{ 0x277, 0x0007040600070402 }, /* PAT: no type 2 */
		{ 0x200, 0x80000007 },	       /* UC- is no MTRR's */
		{ 0x200, 1ULL << 60 },	       { 0x201, 0x401 },
		{ 0x250, 0x0606060606060603 }, { MSR_MTRR_DEF_TYPE, 0x1006 },
		{ 0xc0000082, 1ULL << 60 }, /* LSTAR */
		{ 0xc0000102, 1ULL << 60 }, /* KERNEL_GS_BASE */
		{ 0x175, 1ULL << 60 },	    /* SYSENTER_ESP */
	};
	struct rig rig;
	struct snapshot *snap;
	struct error err;

	if (!have_kvm(&rig.kvm, __func__))
		return;
	rig_init(&rig);
	snap = save(&rig);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t *value = msr(&snap->vcpu[0], cases[i].index);
		uint64_t was = *value;

		*value = cases[i].value;
		ck_assert_msg(arch_vcpu_check(&rig.kvm, &model, 0,
					      &snap->vcpu[0], NULL,
					      &err) == -EINVAL,
			      "case %zu", i);
		*value = was;
	}
	free(snap);
	rig_fini(&rig);
	kvm_close(&rig.kvm);
}
END_TEST

UNIT_SUITE("arch_moves", a_fresh_vm_moves_without_a_difference,
	   a_vm_that_ran_moves_without_a_difference,
	   a_vm_moves_on_a_host_without_xsave,
	   full_registers_move_without_a_difference,
	   one_group_of_registers_moves_where_the_others_are_the_same,
	   the_task_priority_survives_special_registers,
	   nothing_comes_of_what_is_primed,
	   a_timer_that_has_changed_its_mode_since_counts_on,
	   interrupts_are_not_primed, mp_states_move_over_each_other,
	   a_vcpu_primed_in_long_mode_starts_in_real_mode,
	   what_may_wait_is_primed, paging_that_starts_in_memory_is_not_primed,
	   msrs_that_are_no_state_are_refused,
	   msrs_that_no_guest_can_write_are_refused)
