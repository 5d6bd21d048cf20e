// SPDX-License-Identifier: MIT
/*
 * A crew on a host with more processors than this one may have: vCPUs' threads
 * that help the others may be about it when nobody waits for them any more.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/unit.h"
#include "vmm/crew.h"

#define CROWD 8
#define TURNS 60

unsigned int __wrap_processors(void);

unsigned int __wrap_processors(void)
{
	return CROWD;
}

static void on_exit_never(void *opaque, uint32_t index, enum vcpu_exit why,
			  const char *text)
{
	(void)opaque;
	(void)index;
	(void)why;
	(void)text;
}

static int count_errand(void *opaque, struct vcpu *vcpu, struct error *err)
{
	_Atomic unsigned int *ran = opaque;

	(void)vcpu;
	(void)err;
	*ran += 1;
	return 0;
}

/* What is freed too early is found where memory is watched (check-unit-asan).
 */
START_TEST(helpers_have_ended_before_what_they_look_at_is_gone)
{
	struct arch_cpu_model *model = calloc(1, sizeof(*model));
	struct kvm kvm;
	struct error err;

	if (kvm_open(&kvm, &err)) {
		fprintf(stderr, "SKIP %s: %s\n", __func__, err.text);
		free(model);
		return;
	}
	ck_assert(!arch_cpu_model_host(&kvm, -1, CROWD, model, &err));
	vcpu_signals_init();
	for (int i = 0; i < TURNS; i++) {
		struct vcpu_env env = { .kvm = &kvm,
					.model = model,
					.on_exit = on_exit_never };
		_Atomic unsigned int ran = 0;
		struct crew *crew;

		env.vm_fd = KVM_IOCTL_NUM(kvm.fd, KVM_CREATE_VM, 0, &err);
		ck_assert_int_ge(env.vm_fd, 0);
		ck_assert(!arch_vm_init(&kvm, env.vm_fd, &err));
		ck_assert_msg(!crew_create(&env, CROWD, &crew, &err), "%s",
			      err.text);
		ck_assert(!crew_errand_helped(crew, count_errand, &ran, &err));
		ck_assert_uint_eq(ran, CROWD);
		crew_free(crew);
		close_fd(&env.vm_fd);
	}
	kvm_close(&kvm);
	free(model);
}
END_TEST

UNIT_SUITE("crew", helpers_have_ended_before_what_they_look_at_is_gone)
