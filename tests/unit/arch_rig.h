/* SPDX-License-Identifier: MIT */
/*
 * VMs with a KVM, to move the KVM-held state between: what one of them holds,
 * how it gets into another, and whether it is the same there.
 */
#ifndef GODWIT_TESTS_ARCH_RIG_H
#define GODWIT_TESTS_ARCH_RIG_H

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
static inline bool have_kvm(struct kvm *kvm, const char *test)
{
	struct error err;

	if (!kvm_open(kvm, &err))
		return true;
	fprintf(stderr, "SKIP %s: %s\n", test, err.text);
	return false;
}

#define OK(call) ck_assert_msg((call) >= 0, "%s", err.text)

static inline void rig_init(struct rig *rig)
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

static inline void rig_fini(struct rig *rig)
{
	for (size_t i = 0; i < CPUS; i++)
		close_fd(&rig->vcpu_fd[i]);
	close_fd(&rig->vm_fd);
	munmap(rig->ram, RAM_SIZE);
}

/* With all that a test wants of a KVM; or says that there is none. */
static inline bool rig_begin(struct rig *rig, const char *test)
{
	if (!have_kvm(&rig->kvm, test))
		return false;
	rig_init(rig);
	return true;
}

static inline void rig_end(struct rig *rig)
{
	rig_fini(rig);
	kvm_close(&rig->kvm);
}

struct snapshot {
	struct x86_vcpu_state vcpu[CPUS];
	struct x86_vm_state vm;
};

static inline struct snapshot *save(struct rig *rig)
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

static inline struct arch_clock_shift
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
static inline struct snapshot *prime(struct rig *rig,
				     const struct snapshot *ahead)
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

static inline uint64_t *msr(struct x86_vcpu_state *s, uint32_t index)
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
static inline void settle(struct snapshot *before, struct snapshot *after,
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

static inline void assert_same(struct snapshot *before, struct snapshot *after,
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
static inline void
assert_loads(struct rig *rig, struct snapshot *before, struct snapshot *held,
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
static inline void assert_moves_primed(const struct kvm *kvm,
				       struct snapshot *before,
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
static inline void assert_moves(const struct kvm *kvm, struct snapshot *before,
				void (*look)(struct rig *rig,
					     struct snapshot *before))
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

static inline void run_program(struct rig *rig)
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

/* Registers that no short program fills. */
static inline void fill_vcpu(struct x86_vcpu_state *s)
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

#endif
