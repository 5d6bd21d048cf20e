// SPDX-License-Identifier: MIT
/*
 * Whatever a peer may send as state: decoded and checked against a real
 * machine. One section of a good state is replaced by the fuzzer's, so that
 * check() is reached with values that no guest ever had. What passes the check
 * is loaded into a throwaway VM: KVM may refuse it, nothing may crash.
 *
 * The VM is made once; it never runs.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/vm_state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECTIONS_MAX 16

struct good {
	struct vm_section section;
	struct buffer data;
};

struct lab {
	struct kvm kvm;
	struct vm *vm;
	struct vm_state *state;
	struct good good[SECTIONS_MAX];
	size_t ngood;
};

static void on_event(void *opaque, enum vm_event event, uint8_t status,
		     const char *text)
{
	(void)opaque;
	(void)event;
	(void)status;
	(void)text;
}

static int keep(void *opaque, const struct vm_section *section,
		struct error *err)
{
	struct lab *lab = opaque;
	struct good *good = &lab->good[lab->ngood++];

	(void)err;
	good->section = *section;
	if (buffer_append(&good->data, section->data, section->len))
		abort();
	good->section.data = good->data.data;
	return 0;
}

static struct lab *make_lab(void)
{
	static struct machine machine;
	struct lab *lab = calloc(1, sizeof(*lab));
	struct vm_host host = { .kvm = &lab->kvm, .on_event = on_event };
	struct error err;

	vcpu_signals_init();
	machine_init(&machine);
	strcpy(machine.name, "fuzz");
	machine.memory_size = MEMORY_MIN;
	if (kvm_open(&lab->kvm, &err) || loop_create(&host.loop, &err) ||
	    arch_cpu_model_host(&lab->kvm, -1, 1, &machine.cpu_model, &err) ||
	    vm_create(&machine, &host, NULL, &lab->vm, &err) ||
	    vm_state_create(lab->vm, &lab->state, &err) ||
	    vm_state_save(lab->state, &err) ||
	    vm_state_emit(lab->state, keep, lab, &err))
		abort();
	return lab;
}

static int decode_all(struct lab *lab, size_t which, const uint8_t *data,
		      size_t size, struct error *err)
{
	int rc = 0;

	vm_state_reset(lab->state);
	for (size_t i = 0; !rc && i < lab->ngood; i++) {
		struct vm_section section = lab->good[i].section;

		if (i == which) {
			section.data = data;
			section.len = size;
		}
		rc = vm_state_decode(lab->state, &section, err);
	}
	return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct lab *lab;
	struct good *good;
	struct error err;
	uint8_t *copy;
	size_t which;

	if (!lab)
		lab = make_lab();
	if (!size)
		return 0;
	/*
	 * The input is a difference to the good section, so that short inputs
	 * reach far: bytes are xored in, at an offset it names.
	 */
	which = data[0] % lab->ngood;
	good = &lab->good[which];
	copy = malloc(good->data.len);
	memcpy(copy, good->data.data, good->data.len);
	for (size_t i = 1; i + 2 < size; i += 3)
		copy[(data[i] << 8 | data[i + 1]) % good->data.len] ^=
			data[i + 2];
	if (!decode_all(lab, which, copy, good->data.len, &err))
		(void)!vm_state_check(lab->state, &err);
	free(copy);
	return 0;
}
