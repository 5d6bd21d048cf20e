# SPDX-License-Identifier: MIT
#
# The in-process rung: sources and targets as threads of one process, on
# /dev/kvm, with the tiny guests.

INPROC_SRCS := $(sort $(wildcard tests/inproc/test_*.c))
INPROC_BINS := $(INPROC_SRCS:%.c=$(BUILD)/%)
RIG_OBJS := $(patsubst %,$(BUILD)/tests/inproc/%.o,rig rig_move relay shuttle)
FAULT_OBJS := $(BUILD)/tests/inproc/fault.o

.PHONY: check-inproc soak-inproc soak

$(BUILD)/tests/inproc/rig.o: GODWIT_CFLAGS += -DRIG_BUILD='"$(abspath $(BUILD))"'

$(INPROC_BINS): %: %.o $(RIG_OBJS) $(BUILD)/libgodwit.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libgodwit.a \
		$(INPROC_LDFLAGS) $(CHECK_LIBS) $(LDLIBS)

# Every call that a migration makes and that can fail goes by way of fault.c.
FAULT_CALLS := sendmsg recv recvmsg poll ppoll read write pread pwrite madvise \
	   memfd_create ftruncate eventfd socket connect accept4 getrandom \
	   setsockopt getsockopt epoll_ctl sysinfo fcntl ioctl pthread_create \
	   malloc calloc realloc free mmap munmap fdatasync posix_fadvise
$(BUILD)/tests/inproc/test_faults $(BUILD)/tests/inproc/test_disks: $(FAULT_OBJS)
$(BUILD)/tests/inproc/test_faults: INPROC_LDFLAGS = $(FAULT_CALLS:%=-Wl,--wrap=%)

$(BUILD)/tests/inproc/test_sync: $(BUILD)/tests/inproc/peer.o

$(BUILD)/tests/inproc/test_threads: INPROC_LDFLAGS = -Wl,--wrap=ioctl

# A device of the test's own in the table.
$(BUILD)/tests/inproc/test_disks: $(BUILD)/tests/inproc/holder.o
$(BUILD)/tests/inproc/test_disks: INPROC_LDFLAGS = \
	$(FAULT_CALLS:%=-Wl,--wrap=%) -Wl,--wrap=device_type_find

check-inproc: $(INPROC_BINS) guests
	$(Q)tests/verify/check-streams $(BUILD)/streams $(INPROC_BINS)

# More moves than anyone waits for.
soak: soak-inproc
soak-inproc: export GODWIT_MOVES ?= 20000
soak-inproc: export CK_TIMEOUT_MULTIPLIER ?= 60
soak-inproc: check-inproc

-include $(INPROC_BINS:%=%.d) $(RIG_OBJS:.o=.d) $(FAULT_OBJS:.o=.d) \
	$(patsubst %,$(BUILD)/tests/inproc/%.d,holder peer)
