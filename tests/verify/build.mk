# SPDX-License-Identifier: MIT
#
# The independent stream verifier is tested by itself before it judges others.

.PHONY: check-verify

check-verify:
	$(Q)python3 tests/verify/test_verify.py
