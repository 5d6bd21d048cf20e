# SPDX-License-Identifier: MIT
#
# make            build/godwit
# make check      install what is missing, build, run every rung of tests
# make help       the rest
#
# One Makefile, not recursive: each room that builds something of its own adds
# a build.mk. Everything lands under build/.

BUILD	?= build
PREFIX	?= /usr/local
V	?= 0
Q	:= $(if $(filter 1,$(V)),,@)
say	= @printf '  %-7s %s\n' '$(1)' '$(2)'

CC	?= gcc
CFLAGS	?= -O2 -g
VERSION	:= 0.1.0

WARN	:= -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow \
	   -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wundef \
	   -Wimplicit-fallthrough -Wswitch-enum -Werror
PKGS	:= libseccomp libcap jansson
PKG_CONFIG ?= pkg-config
DEPCFLAGS := $(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null)
DEPLIBS	:= $(shell $(PKG_CONFIG) --libs $(PKGS) 2>/dev/null)

GODWIT_CFLAGS := -std=gnu11 -D_GNU_SOURCE -DGODWIT_VERSION='"$(VERSION)"' -I. \
	   -pthread -fno-common -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
	   $(WARN) $(DEPCFLAGS)
LDLIBS	:= $(DEPLIBS) -pthread
HARDEN	:= -fPIE -pie -Wl,-z,relro,-z,now

ROOMS	:= vmm devices devices/backend migration arch/x86_64
SRCS	:= $(sort $(foreach r,$(ROOMS),$(wildcard $(r)/*.c)))
LIBSRCS	:= $(filter-out vmm/main.c,$(SRCS))
OBJS	:= $(SRCS:%.c=$(BUILD)/%.o)
LIBOBJS	:= $(LIBSRCS:%.c=$(BUILD)/%.o)

.DEFAULT_GOAL := all
.PHONY: all clean help
.SUFFIXES:
.DELETE_ON_ERROR:

all: $(BUILD)/godwit

$(BUILD)/godwit: $(BUILD)/vmm/main.o $(BUILD)/libgodwit.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(HARDEN) -o $@ $^ $(LDLIBS)

$(BUILD)/libgodwit.a: $(LIBOBJS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GODWIT_CFLAGS) $(CFLAGS) -fPIE -MMD -MP -c -o $@ $<

clean:
	$(Q)rm -rf $(BUILD)

-include $(wildcard guests/build.mk tests/build.mk tests/lab/build.mk \
	   tools/build.mk)
-include $(OBJS:.o=.d)
