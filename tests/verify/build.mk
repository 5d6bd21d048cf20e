# SPDX-License-Identifier: MIT
#
# The independent stream verifier is tested by itself here, before it judges
# others: check-inproc shows it what in-process migrations send.

.PHONY: check-verify

check-verify:
	$(Q)python3 tests/verify/test_verify.py
