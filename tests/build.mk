# SPDX-License-Identifier: MIT
#
# The rungs of the test ladder. A unit test is one tests/unit/test_*.c, linked
# with everything but main().

UNIT_SRCS := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BINS := $(UNIT_SRCS:%.c=$(BUILD)/%)
CHECK_CFLAGS := $(shell $(PKG_CONFIG) --cflags check 2>/dev/null)
CHECK_LIBS := $(shell $(PKG_CONFIG) --libs check 2>/dev/null)

.PHONY: check check-quick check-unit check-unit-asan check-inproc-asan \
	check-tsan check-inproc-tsan

# Packages first, in a make of their own: this one has looked for them already.
check:
	@tools/setup build test lab
	@tools/check

check-quick:
	@tools/setup build test
	@tools/check unit inproc

$(BUILD)/tests/%.o: tests/%.c | packages
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GODWIT_CFLAGS) $(CHECK_CFLAGS) $(CFLAGS) -fPIE -MMD -MP -c -o $@ $<

$(UNIT_BINS): %: %.o $(BUILD)/libgodwit.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(UNIT_LDFLAGS) -o $@ $< $(BUILD)/libgodwit.a \
		$(CHECK_LIBS) $(LDLIBS)

# Calls that tests let fail.
comma := ,
$(BUILD)/tests/unit/test_disk_io: UNIT_LDFLAGS = \
	   $(patsubst %,-Wl$(comma)--wrap=%,preadv pwritev fallocate)
$(patsubst %,$(BUILD)/tests/unit/test_%,disk_locks disk_moves badge): \
	UNIT_LDFLAGS = -Wl,--wrap=fcntl
$(BUILD)/tests/unit/test_disks: UNIT_LDFLAGS = \
	   $(patsubst %,-Wl$(comma)--wrap=%,disk_is_block_device disk_direct)
$(patsubst %,$(BUILD)/tests/unit/test_%,blk blk_failures blk_moves): UNIT_LDFLAGS = \
	   $(patsubst %,-Wl$(comma)--wrap=%,pwritev fdatasync)
$(BUILD)/tests/unit/test_user: UNIT_LDFLAGS = \
	   -Wl,--wrap=recv -Wl,--wrap=__recv_chk
$(BUILD)/tests/unit/test_net: UNIT_LDFLAGS = -Wl,--wrap=clock_ns
$(BUILD)/tests/unit/test_crew: UNIT_LDFLAGS = -Wl,--wrap=processors
$(BUILD)/tests/unit/test_spares $(BUILD)/tests/unit/test_memory \
$(BUILD)/tests/unit/test_dirty: \
	UNIT_LDFLAGS = -Wl,--wrap=ioctl
$(BUILD)/tests/unit/test_fairness: UNIT_LDFLAGS = \
	   $(patsubst %,-Wl$(comma)--wrap=%,pwritev getrandom)

check-unit: $(UNIT_BINS)
	$(Q)failed=0; for t in $^; do \
		CK_VERBOSITY=normal $$t || failed=1; \
	done; exit $$failed

# The same under sanitizers, each in a build directory of its own. gcc's
# warnings, which the plain build heeds, go astray in instrumented code.
SANITIZE := -O1 -g -fno-omit-frame-pointer -w
ASAN	:= $(SANITIZE) -fsanitize=address,undefined -fno-sanitize-recover=undefined
TSAN	:= $(SANITIZE) -fsanitize=thread

check-inproc-asan: export GODWIT_MOVES ?= 100
check-inproc-asan: export GODWIT_FAULTS ?= 1

# The tiny guests are not instrumented: there is one build of them.
check-unit-asan check-inproc-asan:
	@mkdir -p $(BUILD)/asan && ln -sfn ../guests $(BUILD)/asan/guests
	+$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/asan CFLAGS="$(ASAN)" \
		$(@:-asan=)

# Tests of what threads do to each other: the loop alone, a disk's I/O thread,
# what a listener has done aside, crowds that hold a VM and write to its memory,
# and whole moves, with doors and devices. One process for all tests of a
# program: TSan and the fork of a process with threads don't go together.
TSAN_UNIT := loop blk blk_failures blk_moves net spares chores
TSAN_INPROC := moves threads
.PHONY: run-tsan run-inproc-tsan
check-tsan check-inproc-tsan: guests
	@mkdir -p $(BUILD)/tsan && ln -sfn ../guests $(BUILD)/tsan/guests
	+$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan CFLAGS="$(TSAN)" \
		$(@:check-%=run-%)

run-tsan: $(TSAN_UNIT:%=$(BUILD)/tests/unit/test_%)
run-inproc-tsan: $(TSAN_INPROC:%=$(BUILD)/tests/inproc/test_%)
run-inproc-tsan: export GODWIT_MOVES ?= 30
run-inproc-tsan:
	$(Q)CK_FORK=no tests/verify/check-streams $(BUILD)/streams $^
run-tsan:
	$(Q)failed=0; for t in $^; do \
		CK_FORK=no CK_VERBOSITY=normal $$t || failed=1; \
	done; exit $$failed

-include $(UNIT_BINS:%=%.d)
-include tests/model/build.mk
-include tests/inproc/build.mk
-include tests/verify/build.mk
-include tests/fuzz/build.mk
-include tests/guest/build.mk
