// SPDX-License-Identifier: MIT
/*
 * The guest's time: kvmclock, and what its passage means for TSCs.
 *
 * kvmclock goes on for as long as the guest was under way, by the two hosts'
 * CLOCK_REALTIME, so that a guest's monotonic clock doesn't lose the pause.
 * KVM could add that itself (KVM_CLOCK_REALTIME), but only on some hosts, and
 * it bounds the step on one side only; so it is added here, on all hosts alike.
 *
 * TSCs are then set by offset, the same way as Linux's
 * Documentation/virt/kvm/devices/vcpu.rst has it: between the instant when the
 * source read its clock and an instant here, the guest's TSC must advance by
 * as many cycles as kvmclock has by nanoseconds. All vCPUs are shifted by the
 * same, so that they stay as close to each other as they were, which KVM asks
 * for its master clock. That needs KVM to tell (clock, host TSC) pairs, and
 * both hosts to run the guest's TSC at their own rate; otherwise each TSC is
 * set to its saved value and the time under way, and KVM evens them out.
 */
#include <errno.h>
#include <stdlib.h>

#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/vm_arch_state.h"

/* 100 years: the guest can't have run for longer. */
#define CLOCK_NS_MAX (100ULL * 366 * 24 * 3600 * NS_PER_S)

/* More than any move takes, less than clocks that nobody keeps are apart. */
#define UNDER_WAY_MAX_NS (3600 * NS_PER_S)

/* The rate at which vCPUs run when the host needn't scale; 0: can't scale. */
static uint32_t host_khz(const struct kvm *kvm, int vm_fd)
{
	struct error ignored;
	int rc;

	if (!kvm_extension(kvm->fd, KVM_CAP_TSC_CONTROL))
		return 0;
	rc = KVM_IOCTL_NUM(vm_fd, KVM_GET_TSC_KHZ, 0, &ignored);
	/* A host that scales and doesn't say from what: nothing is equal. */
	return rc > 0 ? (uint32_t)rc : 1;
}

int clock_save(const struct kvm *kvm, int vm_fd, struct x86_clock *clock,
	       struct error *err)
{
	struct kvm_clock_data data = { 0 };
	int rc = KVM_IOCTL(vm_fd, KVM_GET_CLOCK, &data, err);
	bool real = data.flags & KVM_CLOCK_REALTIME;

	if (rc < 0)
		return rc;
	*clock = (struct x86_clock){
		.clock_ns = data.clock,
		.realtime_ns = real ? data.realtime : clock_real_ns(),
		.host_tsc = data.flags & KVM_CLOCK_HOST_TSC ? data.host_tsc : 0,
		.host_tsc_khz = host_khz(kvm, vm_fd),
	};
	return 0;
}

void clock_visit(struct codec *c, struct x86_clock *clock)
{
	codec_enter(c, "clock");
	codec_u64(c, "clock_ns", &clock->clock_ns);
	codec_u64(c, "realtime_ns", &clock->realtime_ns);
	codec_u64(c, "host_tsc", &clock->host_tsc);
	codec_u32(c, "host_tsc_khz", &clock->host_tsc_khz);
	codec_leave(c);
}

int clock_check(const struct x86_clock *clock, struct error *err)
{
	if (clock->clock_ns <= CLOCK_NS_MAX)
		return 0;
	return error_set(err, -EINVAL,
			 "clock: the guest's clock of %llu ns is more than a "
			 "hundred years",
			 (unsigned long long)clock->clock_ns);
}

uint64_t clock_elapsed(uint64_t then, uint64_t now)
{
	if (now <= then || now - then > UNDER_WAY_MAX_NS)
		return 0;
	return now - then;
}

static bool unscaled(const struct x86_clock *clock, uint32_t tsc_khz)
{
	return !clock->host_tsc_khz ||
	       tsc_khz_same(tsc_khz, clock->host_tsc_khz);
}

struct arch_clock_shift clock_shift(const struct x86_clock *src,
				    const struct x86_clock *dest,
				    uint32_t tsc_khz)
{
	struct arch_clock_shift shift = { 0 };
	uint64_t ns = dest->clock_ns > src->clock_ns
			      ? dest->clock_ns - src->clock_ns
			      : 0;

	/* kHz are cycles a millisecond. */
	shift.tsc_advance =
		(uint64_t)((unsigned __int128)ns * tsc_khz / NS_PER_MS);
	shift.tsc_delta =
		(int64_t)(shift.tsc_advance + src->host_tsc - dest->host_tsc);
	shift.valid = src->host_tsc && dest->host_tsc &&
		      unscaled(src, tsc_khz) && unscaled(dest, tsc_khz);
	return shift;
}

int arch_vm_load_begin(const struct kvm *kvm, int vm_fd, const void *state,
		       uint32_t tsc_khz, struct arch_clock_shift *ret_shift,
		       struct error *err)
{
	const struct x86_vm_state *s = state;
	struct kvm_clock_data data = { .clock = s->clock.clock_ns };
	struct x86_clock here;
	int rc;

	data.clock += clock_elapsed(s->clock.realtime_ns, clock_real_ns());
	rc = KVM_IOCTL(vm_fd, KVM_SET_CLOCK, &data, err);
	if (rc >= 0)
		rc = clock_save(kvm, vm_fd, &here, err);
	if (rc < 0)
		return rc;
	*ret_shift = clock_shift(&s->clock, &here, tsc_khz);
	return 0;
}
