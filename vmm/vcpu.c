// SPDX-License-Identifier: MIT
/*
 * vCPU threads; see vcpu.h for the contract.
 *
 * Everything that others may touch is under vcpu->lock: whether a park is
 * wanted, whether the thread is parked, and the errand it shall run. The one
 * exception is kvm_run's immediate_exit, a byte shared with the kernel. The
 * thread counts itself out and in under the lock too, as it leaves the parked
 * state and enters it: who was kicked is parked and stays so, or is counted.
 *
 *	            kick                 thread gets there
 *	RUNNING ──────────▶ (park wanted) ────────────────▶ PARKED ⇄ errand
 *	   ▲                                                  │
 *	   └──────────────────── unpark ──────────────────────┘
 */
#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "vmm/log.h"
#include "vmm/vcpu.h"

/* From a state that has been loaded to the word that it shall run. */
#define ALERT_NS 300000

struct vcpu {
	struct vcpu_env env;
	uint32_t index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool started;
	struct arch_faults faults;
	bool exited; /* the thread's own: an access may be half done */

	pthread_mutex_t lock;
	pthread_cond_t wake;	  /* the thread waits here while it is parked */
	_Atomic bool park_wanted; /* written under lock, read anywhere */
	bool parked;
	bool summoned; /* while parked, to do what there is to do */
	bool quit;
	_Atomic bool called;   /* something of these has changed … */
	int caller_cpu;	       /* … by a thread that ran there */
	uint64_t nap_until_ns; /* of clock_ns(); 0: awake */
	bool errand_busy;
	vcpu_errand_fn *errand;
	void *errand_opaque;
	int errand_ret;
	struct error errand_err;
};

static void kick_handler(int signal)
{
	(void)signal; /* only there to interrupt KVM_RUN */
}

void vcpu_signals_init(void)
{
	struct sigaction action = { .sa_handler = kick_handler };

	sigemptyset(&action.sa_mask);
	sigaction(VCPU_KICK_SIGNAL, &action, NULL);
}

int vcpu_fd(const struct vcpu *vcpu)
{
	return vcpu->fd;
}

uint32_t vcpu_index(const struct vcpu *vcpu)
{
	return vcpu->index;
}

static void set_immediate_exit(struct vcpu *vcpu, uint8_t value)
{
	__atomic_store_n(&vcpu->run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

/* ---- the thread ---- */

static void handle_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT)
			bus_write(vcpu->env.pio, run->io.port, data,
				  run->io.size);
		else
			bus_read(vcpu->env.pio, run->io.port, data,
				 run->io.size);
	}
}

static void handle_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	if (run->mmio.is_write)
		bus_write(vcpu->env.mmio, run->mmio.phys_addr, run->mmio.data,
			  run->mmio.len);
	else
		bus_read(vcpu->env.mmio, run->mmio.phys_addr, run->mmio.data,
			 run->mmio.len);
}

static void leave_guest(struct vcpu *vcpu, enum vcpu_exit why, const char *text)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu->park_wanted = true;
	pthread_mutex_unlock(&vcpu->lock);
	vcpu->env.on_exit(vcpu->env.opaque, vcpu->index, why, text);
}

static void handle_system_event(struct vcpu *vcpu)
{
	char text[64];

	if (vcpu->run->system_event.type == KVM_SYSTEM_EVENT_RESET) {
		leave_guest(vcpu, VCPU_EXIT_RESET, "");
		return;
	}
	snprintf(text, sizeof(text), "system event %u",
		 vcpu->run->system_event.type);
	leave_guest(vcpu, VCPU_EXIT_SHUTDOWN, text);
}

static void handle_failure(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct kvm_regs regs = { 0 };
	struct error err;
	char text[160];

	(void)KVM_IOCTL(vcpu->fd, KVM_GET_REGS, &regs, &err);
	if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
		snprintf(text, sizeof(text),
			 "KVM refuses to enter the guest: hardware reason "
			 "0x%llx (rip 0x%llx)",
			 run->fail_entry.hardware_entry_failure_reason,
			 regs.rip);
	else if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		snprintf(text, sizeof(text),
			 "KVM internal error %u, which for 1 means an "
			 "instruction it can't emulate (rip 0x%llx)",
			 run->internal.suberror, regs.rip);
	else
		snprintf(text, sizeof(text),
			 "unexpected KVM exit %u (rip 0x%llx)",
			 run->exit_reason, regs.rip);
	leave_guest(vcpu, VCPU_EXIT_ERROR, text);
}

static void handle_exit(struct vcpu *vcpu)
{
	switch (vcpu->run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(vcpu);
		break;
	case KVM_EXIT_MMIO:
		handle_mmio(vcpu);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		break;
	case KVM_EXIT_SHUTDOWN:
		leave_guest(vcpu, VCPU_EXIT_SHUTDOWN, "triple fault");
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		handle_system_event(vcpu);
		break;
	default:
		handle_failure(vcpu);
		break;
	}
}

static void sleep_until(struct vcpu *vcpu, uint64_t deadline_ns)
{
	struct timespec until = {
		.tv_sec = (time_t)(deadline_ns / NS_PER_S),
		.tv_nsec = (long)(deadline_ns % NS_PER_S),
	};

	pthread_cond_timedwait(&vcpu->wake, &vcpu->lock, &until);
}

/* Called with the lock held, which is let go meanwhile. */
static void run_errand(struct vcpu *vcpu)
{
	vcpu_errand_fn *errand = vcpu->errand;

	if (!errand)
		return;
	vcpu->errand = NULL;
	pthread_mutex_unlock(&vcpu->lock);
	vcpu->errand_ret = errand(vcpu->errand_opaque, vcpu, &vcpu->errand_err);
	pthread_mutex_lock(&vcpu->lock);
	vcpu->errand_busy = false;
	tally_done(vcpu->env.busy);
}

/*
 * Somebody got this thread out of the guest: to park it, which the caller sees
 * to; for an errand; to let it nap; or to park it and then thought better of
 * it. Nothing is half done: it was an interruption, not an access.
 */
static void see_why(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	while (!vcpu->park_wanted &&
	       (vcpu->errand || clock_ns() < vcpu->nap_until_ns)) {
		if (vcpu->errand)
			run_errand(vcpu);
		else
			sleep_until(vcpu, vcpu->nap_until_ns);
	}
	vcpu->nap_until_ns = 0;
	if (!vcpu->park_wanted)
		set_immediate_exit(vcpu, 0);
	pthread_mutex_unlock(&vcpu->lock);
}

/* Enter the guest once. */
static void run_once(struct vcpu *vcpu)
{
	char text[96];
	int code;

	vcpu->exited = !ioctl(vcpu->fd, KVM_RUN, NULL);
	if (vcpu->exited) {
		handle_exit(vcpu);
		return;
	}
	code = errno;
	/* EAGAIN: this vCPU waits to be started and was interrupted. */
	if (code == EINTR || code == EAGAIN) {
		see_why(vcpu);
		return;
	}
	snprintf(text, sizeof(text), "KVM_RUN: %s", strerror(code));
	leave_guest(vcpu, VCPU_EXIT_ERROR, text);
}

/*
 * An access that left the guest is only complete once KVM_RUN has been
 * entered again; before that the registers show the instruction half done. A
 * KVM_RUN that was interrupted had completed it first. The re-entry may itself
 * produce an exit (the next item of a string instruction), so go on until it is
 * the flag that ends it.
 */
static void complete_access(struct vcpu *vcpu)
{
	uint32_t reason;

	if (!vcpu->exited)
		return;
	vcpu->exited = false;
	set_immediate_exit(vcpu, 1);
	while (ioctl(vcpu->fd, KVM_RUN, NULL) == 0) {
		reason = vcpu->run->exit_reason;
		handle_exit(vcpu);
		if (reason != KVM_EXIT_IO && reason != KVM_EXIT_MMIO)
			break;
	}
}

/*
 * Whoever asks something of a parked vCPU soon asks more of it, and in a pause
 * a guest waits while a thread is woken: an alert one stays awake until
 * *@until_ns, and once woken for as long again, unless it would keep that very
 * thread from its processor. Called with the lock held, which is let go
 * meanwhile.
 */
static void rest(struct vcpu *vcpu, uint64_t *until_ns)
{
	if (!vcpu->env.alert || vcpu->caller_cpu == sched_getcpu() ||
	    clock_ns() >= *until_ns) {
		pthread_cond_wait(&vcpu->wake, &vcpu->lock);
		*until_ns = clock_ns() + ALERT_NS;
		return;
	}
	vcpu->called = false;
	pthread_mutex_unlock(&vcpu->lock);
	while (!vcpu->called && clock_ns() < *until_ns)
		__builtin_ia32_pause();
	pthread_mutex_lock(&vcpu->lock);
}

/* Called with the lock held, which is let go meanwhile. */
static void help(struct vcpu *vcpu)
{
	vcpu->summoned = false;
	pthread_mutex_unlock(&vcpu->lock);
	vcpu->env.help(vcpu->env.helper);
	pthread_mutex_lock(&vcpu->lock);
}

/* Wait, running errands, until unparked. Returns false to end the thread. */
static bool park(struct vcpu *vcpu)
{
	uint64_t alert_until_ns = clock_ns() + ALERT_NS;
	bool go_on;

	complete_access(vcpu);
	pthread_mutex_lock(&vcpu->lock);
	vcpu->parked = true;
	tally_done(vcpu->env.out);
	while ((vcpu->park_wanted || vcpu->errand) && !vcpu->quit) {
		if (vcpu->errand)
			run_errand(vcpu);
		else if (vcpu->summoned)
			help(vcpu);
		else
			rest(vcpu, &alert_until_ns);
	}
	go_on = !vcpu->quit;
	if (go_on) {
		vcpu->parked = false;
		vcpu->summoned = false;
		tally_add(vcpu->env.out);
		set_immediate_exit(vcpu, 0);
	}
	pthread_mutex_unlock(&vcpu->lock);
	if (go_on)
		arch_vcpu_resumed(vcpu->fd);
	return go_on;
}

/* What KVM_SET_SIGNAL_MASK takes: how the thread's mask is in KVM_RUN. */
struct run_mask {
	uint32_t size;
	uint8_t blocked[sizeof(uint64_t)]; /* the kernel's sigset, unaligned */
};

static bool set_run_mask(const struct vcpu *vcpu, uint64_t blocked)
{
	struct run_mask mask = { .size = sizeof(mask.blocked) };
	struct error ignored;

	memcpy(mask.blocked, &blocked, sizeof(mask.blocked));
	return KVM_IOCTL_VAR(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask, &ignored) >=
	       0;
}

/*
 * KVM_RUN with a signal that waits: all that comes before the guest is done,
 * and the guest isn't entered. The flag immediate_exit would end it too early.
 */
static void run_up_to_guest(struct vcpu *vcpu)
{
	struct error ignored;
	sigset_t kick, usual;

	sigemptyset(&kick);
	sigaddset(&kick, VCPU_KICK_SIGNAL);
	pthread_sigmask(SIG_BLOCK, &kick, &usual);
	pthread_kill(pthread_self(), VCPU_KICK_SIGNAL);
	/* What is wrong with this vCPU is told when it is to run. */
	if (set_run_mask(vcpu, ~(1ULL << (VCPU_KICK_SIGNAL - 1))))
		(void)!ioctl(vcpu->fd, KVM_RUN, NULL);
	(void)KVM_IOCTL_NUM(vcpu->fd, KVM_SET_SIGNAL_MASK, 0, &ignored);
	pthread_sigmask(SIG_SETMASK, &usual, NULL);
}

/*
 * A guest that has been moved here shall not wait for what a first KVM_RUN
 * takes: the kernel maps kvm_run's page, KVM makes a thread of the VM's own,
 * and lays in a stock of page tables for each vCPU. One that waits for its
 * start would not get as far, so it is as if started meanwhile.
 */
static void warm_up(struct vcpu *vcpu)
{
	struct kvm_mp_state was, ready = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct error ignored;

	if (KVM_IOCTL(vcpu->fd, KVM_GET_MP_STATE, &was, &ignored) < 0 ||
	    KVM_IOCTL(vcpu->fd, KVM_SET_MP_STATE, &ready, &ignored) < 0)
		return;
	run_up_to_guest(vcpu);
	(void)KVM_IOCTL(vcpu->fd, KVM_SET_MP_STATE, &was, &ignored);
}

static void *vcpu_thread(void *opaque)
{
	struct vcpu *vcpu = opaque;

	warm_up(vcpu);
	for (;;) {
		if (vcpu->park_wanted && !park(vcpu))
			return NULL;
		run_once(vcpu);
	}
}

/* ---- everyone else ---- */

/* With the lock held: it has a reason to look up. */
static void call(struct vcpu *vcpu)
{
	vcpu->caller_cpu = sched_getcpu();
	vcpu->called = true;
}

/*
 * Out of the guest, or out of bed. Called with the lock held, which it lets go
 * first: who is woken wants it, and shall not be put back to sleep at once. If
 * the thread has parked and gone on by then, the signal finds nothing to do.
 */
static void rouse_and_unlock(struct vcpu *vcpu)
{
	bool parked = vcpu->parked;

	if (!parked)
		set_immediate_exit(vcpu, 1);
	call(vcpu);
	pthread_mutex_unlock(&vcpu->lock);
	pthread_cond_signal(&vcpu->wake);
	if (!parked)
		pthread_kill(vcpu->thread, VCPU_KICK_SIGNAL);
}

void vcpu_nap(struct vcpu *vcpu, uint64_t ns)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu->nap_until_ns = ns ? clock_ns() + ns : 0;
	rouse_and_unlock(vcpu);
}

void vcpu_kick(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu->park_wanted = true;
	rouse_and_unlock(vcpu);
}

int vcpu_faults(const struct vcpu *vcpu, uint64_t *ret)
{
	return arch_faults_read(&vcpu->faults, ret);
}

void vcpu_unpark(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	vcpu->park_wanted = false;
	call(vcpu);
	pthread_mutex_unlock(&vcpu->lock);
	pthread_cond_signal(&vcpu->wake);
}

/* Called with the lock held. */
static void set_errand(struct vcpu *vcpu, vcpu_errand_fn *fn, void *opaque)
{
	assert(!vcpu->errand_busy);
	vcpu->errand = fn;
	vcpu->errand_opaque = opaque;
	vcpu->errand_busy = true;
	tally_add(vcpu->env.busy);
}

void vcpu_errand_start(struct vcpu *vcpu, vcpu_errand_fn *fn, void *opaque)
{
	pthread_mutex_lock(&vcpu->lock);
	set_errand(vcpu, fn, opaque);
	rouse_and_unlock(vcpu);
}

void vcpu_errand_offer(struct vcpu *vcpu, vcpu_errand_fn *fn, void *opaque)
{
	pthread_mutex_lock(&vcpu->lock);
	assert(vcpu->parked);
	set_errand(vcpu, fn, opaque);
	pthread_mutex_unlock(&vcpu->lock);
}

void vcpu_summon(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	assert(vcpu->parked);
	vcpu->summoned = true;
	rouse_and_unlock(vcpu);
}

void vcpu_errand_take(struct vcpu *vcpu)
{
	pthread_mutex_lock(&vcpu->lock);
	if (vcpu->parked)
		run_errand(vcpu);
	pthread_mutex_unlock(&vcpu->lock);
}

int vcpu_errand_result(const struct vcpu *vcpu, struct error *err)
{
	if (vcpu->errand_ret)
		*err = vcpu->errand_err;
	return vcpu->errand_ret;
}

static int open_vcpu(struct vcpu *vcpu, struct error *err)
{
	const struct vcpu_env *env = &vcpu->env;
	int rc;

	rc = KVM_IOCTL_NUM(env->vm_fd, KVM_CREATE_VCPU, vcpu->index, err);
	if (rc < 0)
		return rc;
	vcpu->fd = rc;
	vcpu->run = mmap(NULL, env->kvm->run_size, PROT_READ | PROT_WRITE,
			 MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		vcpu->run = NULL;
		return error_set(err, -errno, "mmap of kvm_run: %s",
				 strerror(errno));
	}
	/* Now, for KVM answers no such question while a vCPU runs. */
	rc = arch_faults_open(env->kvm, vcpu->fd, &vcpu->faults, err);
	if (rc)
		return rc;
	return arch_vcpu_init(env->kvm, vcpu->fd, vcpu->index, env->model, err);
}

int vcpu_create(const struct vcpu_env *env, uint32_t index, struct vcpu **ret,
		struct error *err)
{
	struct vcpu *vcpu = calloc(1, sizeof(*vcpu));
	pthread_condattr_t monotonic;
	char name[16];
	int rc;

	if (!vcpu)
		return error_set(err, -ENOMEM, "vCPU %u: out of memory", index);
	vcpu->env = *env;
	vcpu->index = index;
	vcpu->fd = -1;
	vcpu->faults.fd = -1;
	vcpu->park_wanted = true;
	pthread_mutex_init(&vcpu->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&vcpu->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	rc = open_vcpu(vcpu, err);
	if (rc < 0)
		goto fail;
	snprintf(name, sizeof(name), "vcpu%u", index);
	tally_add(env->out);
	rc = thread_start(env->sandbox, THREAD_VCPU, name, vcpu_thread, vcpu,
			  &vcpu->thread, err);
	if (rc) {
		tally_done(env->out);
		goto fail;
	}
	vcpu->started = true;
	*ret = vcpu;
	return 0;

fail:
	error_prefix(err, "vCPU %u", index);
	vcpu_free(vcpu);
	return rc;
}

void vcpu_end(struct vcpu *vcpu)
{
	if (!vcpu->started)
		return;
	vcpu_kick(vcpu);
	pthread_mutex_lock(&vcpu->lock);
	vcpu->quit = true;
	call(vcpu);
	pthread_cond_signal(&vcpu->wake);
	pthread_mutex_unlock(&vcpu->lock);
	pthread_join(vcpu->thread, NULL);
	vcpu->started = false;
}

void vcpu_free(struct vcpu *vcpu)
{
	if (!vcpu)
		return;
	vcpu_end(vcpu);
	if (vcpu->run)
		munmap(vcpu->run, vcpu->env.kvm->run_size);
	close_fd(&vcpu->faults.fd);
	close_fd(&vcpu->fd);
	pthread_cond_destroy(&vcpu->wake);
	pthread_mutex_destroy(&vcpu->lock);
	free(vcpu);
}
