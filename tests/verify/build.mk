# SPDX-License-Identifier: MIT
#
# The independent stream verifier is tested by itself before it judges others
# (check-verify), then sees what in-process migrations send (check-streams;
# needs /dev/kvm).

.PHONY: check-verify check-streams

check-verify:
	$(Q)python3 tests/verify/test_verify.py

check-streams: $(INPROC_BINS) guests
	$(Q)tests/verify/check-streams $(BUILD)/streams $(INPROC_BINS)
