# SPDX-License-Identifier: MIT
#
# The demonstration and the benchmark are Python; what must not wait for an
# interpreter is C.

BENCH_TOOLS := $(BUILD)/bench/observer

.PHONY: demo bench-tools
demo:
	@tools/demo

bench-tools: $(BENCH_TOOLS)

$(BENCH_TOOLS): $(BUILD)/bench/%: tools/bench/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GODWIT_CFLAGS) $(CFLAGS) -o $@ $< -pthread
