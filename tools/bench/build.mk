# SPDX-License-Identifier: MIT
#
# The demonstration and the benchmark are Python; what must not wait for an
# interpreter is C.

BENCH_TOOLS := $(patsubst %,$(BUILD)/bench/%,observer probe wire asker)
BENCH_LOGGED := $(BUILD)/bench/logged

.PHONY: demo bench bench-links bench-tools
demo:
	@tools/demo

# BENCH holds options: make bench BENCH="--moves 30 --json figures.json"
bench: all guests bench-tools
	@python3 tools/bench $(BENCH)

# Moves over links of a set rate and latency; options as for bench.
bench-links: all guests bench-tools
	@python3 tools/bench/links.py $(BENCH)

bench-tools: $(BENCH_TOOLS) $(BENCH_LOGGED)

$(BENCH_TOOLS): $(BUILD)/bench/%: tools/bench/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GODWIT_CFLAGS) $(CFLAGS) -o $@ $< -pthread

# A VM without its VMM.
$(BENCH_LOGGED): tools/bench/logged.c $(BUILD)/libgodwit.a
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GODWIT_CFLAGS) $(CFLAGS) -o $@ $< $(BUILD)/libgodwit.a \
		$(LDLIBS) -pthread
