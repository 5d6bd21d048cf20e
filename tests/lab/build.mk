# SPDX-License-Identifier: MIT
#
# make check-lab: stock Debian kernels under godwit and QEMU, in an emulated
# host. The kernels are kept in build/lab/cache (or LAB_CACHE).

LAB_AGENT := $(BUILD)/lab/agent

# Static: it runs where there is no userland but busybox.
$(LAB_AGENT): tests/lab/agent.c tests/lab/wire.h
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -static -o $@ $<

.PHONY: check-lab
check-lab: $(BUILD)/godwit $(LAB_AGENT)
	$(Q)tests/lab/selftest
	$(Q)LAB_CACHE="$${LAB_CACHE:-$(abspath $(BUILD))/lab/cache}" \
		tests/lab/run --godwit $(BUILD)/godwit --agent $(LAB_AGENT) \
		--logs $(BUILD)/lab/logs $(LAB_ARGS)
