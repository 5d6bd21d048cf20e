# SPDX-License-Identifier: MIT
#
# What the linters need of make: clang-tidy file by file, in parallel and only
# for files that changed or include one that did (the object stands for both).

TIDIED	:= $(SRCS:%.c=$(BUILD)/lint/%.tidy)

.PHONY: lint lint-tidy
lint: $(OBJS)
	@tools/lint

lint-tidy: $(TIDIED)

$(BUILD)/lint/%.tidy: %.c $(BUILD)/%.o .clang-tidy
	@mkdir -p $(@D)
	$(Q)clang-tidy --quiet --warnings-as-errors='*' $< -- \
		$(filter-out -W%,$(GODWIT_CFLAGS)) 2>$@.err || \
		{ grep -v 'warnings generated' $@.err >&2; exit 1; }
	@touch $@

include tools/bench/build.mk
