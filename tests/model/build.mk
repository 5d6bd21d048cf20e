# SPDX-License-Identifier: MIT
#
# The handoff and the locks of disks, model-checked: `make check-model` proves
# them with spin and breaks them on purpose; about a minute and 600 MiB. Done
# again only when the tables or the models changed.

MODEL_SRCS := migration/handoff.def tests/model/handoff.pml \
	      tests/model/locks.pml tests/model/check-model

.PHONY: check-model check-format

ifneq ($(shell command -v spin 2>/dev/null),)
check-model: $(BUILD)/model/proved
else
check-model:
	@echo 'SKIP    check-model: spin is not installed'
endif

$(BUILD)/model/proved: $(MODEL_SRCS)
	$(call say,MODEL,tests/model)
	@mkdir -p $(@D)
	$(Q)tests/model/check-model $(@D) && touch $@

# FORMAT.md says what handoff.def and wire.h say
check-format:
	$(Q)tests/model/check-format
