# SPDX-License-Identifier: MIT
#
# The rungs of the test ladder. A unit test is one tests/unit/test_*.c, linked
# with everything but main().

UNIT_SRCS := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BINS := $(UNIT_SRCS:%.c=$(BUILD)/%)
CHECK_CFLAGS := $(shell $(PKG_CONFIG) --cflags check 2>/dev/null)
CHECK_LIBS := $(shell $(PKG_CONFIG) --libs check 2>/dev/null)

.PHONY: check-unit

$(BUILD)/tests/%.o: tests/%.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GODWIT_CFLAGS) $(CHECK_CFLAGS) $(CFLAGS) -fPIE -MMD -MP -c -o $@ $<

$(UNIT_BINS): %: %.o $(BUILD)/libgodwit.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) -o $@ $< $(BUILD)/libgodwit.a $(CHECK_LIBS) $(LDLIBS)

check-unit: $(UNIT_BINS)
	$(Q)for t in $^; do CK_VERBOSITY=normal $$t || exit 1; done

-include $(UNIT_BINS:%=%.d)
-include tests/model/build.mk
-include tests/inproc/build.mk
-include tests/verify/build.mk
