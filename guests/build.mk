# SPDX-License-Identifier: MIT
#
# The tiny guests: build/guests/NAME.elf for each. Included by the top-level
# Makefile; the target is "guests". Needs CC (gcc) and honours Q (quiet).
#
# Guests are freestanding and must not inherit the VMM's flags: sanitizers,
# hardening and PIE have no meaning in them.

GUEST_OUT := build/guests
GUEST_OBJ := $(GUEST_OUT)/obj

GUEST_NAMES := hello echo heartbeat dirty smp timer sync blk net inet balloon \
	msix crash console

GUEST_LIB := $(patsubst %,$(GUEST_OBJ)/lib/%.o,boot trap_entry trap mem acpi \
	smp clock lapic pci virtio start cmdline print serial string)

# One guest is its own .c file, unless it is listed here, plus its extras.
GUEST_MAIN_sync := $(GUEST_OBJ)/sync/main.o
GUEST_MAIN_net := $(GUEST_OBJ)/net/main.o
GUEST_MAIN_inet := $(GUEST_OBJ)/inet/main.o
GUEST_MAIN_blk := $(GUEST_OBJ)/blk/main.o
GUEST_EXTRA_blk := $(patsubst %,$(GUEST_OBJ)/%.o,blk/plan blk/bench block \
	sector latency)
GUEST_EXTRA_heartbeat := $(GUEST_OBJ)/heart.o
GUEST_EXTRA_net := $(patsubst %,$(GUEST_OBJ)/%.o,net/bench nic latency)
GUEST_EXTRA_inet := $(GUEST_OBJ)/nic.o $(patsubst %,$(GUEST_OBJ)/inet/%.o, \
	ip dhcp tcp)
GUEST_EXTRA_msix := $(GUEST_OBJ)/prod.o $(GUEST_OBJ)/intx.o
GUEST_EXTRA_dirty := $(GUEST_OBJ)/page.o $(GUEST_OBJ)/heart.o
GUEST_EXTRA_sync := $(GUEST_OBJ)/page.o $(patsubst %,$(GUEST_OBJ)/sync/%.o, \
	registers registers_wait vector msr interrupt timer legacy uart cpus \
	memory devices pci virtio disk unit card balloon console) \
	$(patsubst %,$(GUEST_OBJ)/%.o,prod intx block sector)

GUEST_CFLAGS := -std=gnu11 -O2 -g -m64 -march=x86-64 -ffreestanding \
	-fno-pic -fno-pie -mcmodel=small -mno-red-zone -fcf-protection=none \
	-fno-stack-protector -fno-asynchronous-unwind-tables \
	-fno-strict-aliasing -fno-delete-null-pointer-checks \
	-ffile-prefix-map=$(CURDIR)=. -Iguests \
	-Wall -Wextra -Werror -Wconversion -Wsign-conversion -Wshadow \
	-Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wformat=2 \
	-Wimplicit-fallthrough -Wswitch-enum
GUEST_LDFLAGS := -nostdlib -static -no-pie -Wl,--build-id=none \
	-Wl,-z,noexecstack -Wl,-z,max-page-size=4096 -Wl,-T,guests/lib/guest.ld

# Ring 0 must not touch vector registers that it did not save. What a file
# here lists instead runs in ring 3 only.
GUEST_FP := -mgeneral-regs-only
GUEST_FP_page := -msse2

$(foreach name,$(GUEST_NAMES),$(eval GUEST_OBJECTS_$(name) := \
	$(or $(GUEST_MAIN_$(name)),$(GUEST_OBJ)/$(name).o) \
	$(GUEST_EXTRA_$(name))))

GUEST_ELFS := $(GUEST_NAMES:%=$(GUEST_OUT)/%.elf)

.PHONY: guests
guests: $(GUEST_ELFS)

$(GUEST_OBJ)/%.o: guests/%.c guests/build.mk
	@echo "  CC      $@"
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(or $(GUEST_FP_$*),$(GUEST_FP)) \
		-MMD -MP -c -o $@ $<

$(GUEST_OBJ)/%.o: guests/%.S guests/build.mk
	@echo "  AS      $@"
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<

define guest_rule
$(GUEST_OUT)/$(1).elf: $(GUEST_OBJECTS_$(1)) $(GUEST_LIB) guests/lib/guest.ld
	@echo "  LD      $$@"
	$$(Q)$$(CC) $(GUEST_LDFLAGS) -o $$@ $$(filter %.o,$$^)
endef
$(foreach name,$(GUEST_NAMES),$(eval $(call guest_rule,$(name))))

-include $(GUEST_LIB:.o=.d) \
	$(foreach name,$(GUEST_NAMES),$(GUEST_OBJECTS_$(name):.o=.d))
