# SPDX-License-Identifier: MIT
#
# make check-lab: stock Debian kernels under godwit and QEMU, in an emulated
# host. The kernels are kept in build/lab/cache (or LAB_CACHE).

LAB_AGENT := $(BUILD)/lab/agent
LAB_RELAY := $(BUILD)/lab/relay
LAB_TSC	  := $(BUILD)/lab/tsc

# Static: they run where there is no userland but busybox.
$(LAB_AGENT): tests/lab/wire.h
$(LAB_AGENT) $(LAB_RELAY): $(BUILD)/lab/%: tests/lab/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -static -o $@ $<

$(LAB_TSC): tests/lab/tsc.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(WARN) $(CFLAGS) -o $@ $<

LAB	:= LAB_CACHE="$${LAB_CACHE:-$(abspath $(BUILD))/lab/cache}" \
	   tests/lab/run --godwit $(BUILD)/godwit --agent $(LAB_AGENT) \
	   --relay $(LAB_RELAY) --tsc $(LAB_TSC) --logs $(BUILD)/lab/logs

.PHONY: check-lab bench-boots
check-lab bench-boots: $(BUILD)/godwit $(LAB_AGENT) $(LAB_RELAY) $(LAB_TSC)
check-lab:
	$(Q)tests/lab/selftest
	$(Q)$(LAB) $(LAB_ARGS)

# How long stock Debian takes to its init, beside QEMU; see boots.py.
bench-boots:
	$(Q)$(LAB) --boots 7 $(LAB_ARGS)
