# SPDX-License-Identifier: MIT
#
# The rung with the real binary: real processes, sockets and signals.

.PHONY: check-guest
check-guest: $(BUILD)/godwit guests
	$(Q)BUILD=$(BUILD) tests/guest/run $(GUEST_TEST_FLAGS)
