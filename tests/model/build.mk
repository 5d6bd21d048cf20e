# SPDX-License-Identifier: MIT
#
# The handoff, model-checked: `make check-model` proves it with spin and breaks
# it on purpose; about a minute and 200 MiB. Done again only when the
# tables or the model changed.

MODEL_SRCS := migration/handoff.def tests/model/handoff.pml \
	      tests/model/check-model

.PHONY: check-model check-format

ifneq ($(shell command -v spin 2>/dev/null),)
check-model: $(BUILD)/model/proved
else
check-model:
	@echo 'SKIP    check-model: spin is not installed'
endif

$(BUILD)/model/proved: $(MODEL_SRCS)
	$(call say,MODEL,tests/model/handoff.pml)
	@mkdir -p $(@D)
	$(Q)tests/model/check-model $(@D) && touch $@

# FORMAT.md says what handoff.def and wire.h say
check-format:
	$(Q)tests/model/check-format
