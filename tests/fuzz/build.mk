# SPDX-License-Identifier: MIT
#
# The fuzz rung: libFuzzer targets under ASan and UBSan. `make check` gives each
# some seconds, `make fuzz` FUZZ_SECONDS; inputs that reach something new stay
# in build/fuzz/corpus, those that crash in build/fuzz/crash-*.

FUZZ_SRCS := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_NAMES := $(FUZZ_SRCS:tests/fuzz/fuzz_%.c=%)
FUZZ_BUILD := $(BUILD)/fuzz
FUZZ_CC	?= clang
FUZZ_FLAGS := -O1 -g -w -fno-omit-frame-pointer \
	   -fsanitize=address,undefined -fno-sanitize-recover=undefined
FUZZ_SECONDS ?= 3600
FUZZ_CHECK_SECONDS ?= 10

.PHONY: fuzz check-fuzz run-fuzz fuzz-bins

check-fuzz:
	+$(Q)$(MAKE) --no-print-directory FUZZ_SECONDS=$(FUZZ_CHECK_SECONDS) fuzz

fuzz: guests
	@mkdir -p $(FUZZ_BUILD) && ln -sfn ../guests $(FUZZ_BUILD)/guests
	+$(Q)$(MAKE) --no-print-directory BUILD=$(FUZZ_BUILD) CC=$(FUZZ_CC) \
		CFLAGS="$(FUZZ_FLAGS) -fsanitize=fuzzer-no-link" fuzz-bins
	$(Q)tests/fuzz/run $(FUZZ_BUILD) $(FUZZ_SECONDS) $(FUZZ_NAMES)

fuzz-bins: $(FUZZ_NAMES:%=$(BUILD)/tests/fuzz/fuzz_%)

$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/libgodwit.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) -fsanitize=fuzzer $(FUZZ_LDFLAGS) -o $@ $^ $(LDLIBS)

# Calls that a fuzzer lets fail.
$(BUILD)/tests/fuzz/fuzz_blk: FUZZ_LDFLAGS = \
	   $(patsubst %,-Wl$(comma)--wrap=%,pwritev fdatasync)
$(BUILD)/tests/fuzz/fuzz_net: FUZZ_LDFLAGS = \
	   $(patsubst %,-Wl$(comma)--wrap=%,socketpair fork mprotect)
