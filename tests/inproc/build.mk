# SPDX-License-Identifier: MIT
#
# The in-process rung: sources and targets as threads of one process, on
# /dev/kvm, with the tiny guests.

INPROC_SRCS := $(sort $(wildcard tests/inproc/test_*.c))
INPROC_BINS := $(INPROC_SRCS:%.c=$(BUILD)/%)
RIG_OBJS := $(BUILD)/tests/inproc/rig.o $(BUILD)/tests/inproc/relay.o

.PHONY: check-inproc

$(BUILD)/tests/inproc/rig.o: GODWIT_CFLAGS += -DRIG_BUILD='"$(abspath $(BUILD))"'

$(INPROC_BINS): %: %.o $(RIG_OBJS) $(BUILD)/libgodwit.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) -o $@ $< $(RIG_OBJS) $(BUILD)/libgodwit.a \
		$(CHECK_LIBS) $(LDLIBS)

check-inproc: $(INPROC_BINS) guests
	$(Q)for t in $(INPROC_BINS); do CK_VERBOSITY=normal $$t || exit 1; done

-include $(INPROC_BINS:%=%.d) $(RIG_OBJS:.o=.d)
