# SPDX-License-Identifier: MIT
#
## make               build/godwit
## make demo          install what is missing, build, move a guest ten times
## make check         install what is missing, build, run every rung of tests
## make check-quick   the unit and in-process tests alone: minutes
## make check-RUNG    one rung alone; tools/check --list names them
## make soak          the in-process tests with 20000 moves: an hour
## make install       to PREFIX (/usr/local), below DESTDIR
## make fuzz          FUZZ_SECONDS each for the fuzzers; what crashes is kept
## make bench         figures of moves, with QEMU's beside them; BENCH="--help"
## make bench-links   moves over slow and long links, as root
## make bench-boots   boots of Debian, with QEMU beside it, in the lab
## make format        have clang-format lay out the sources
## make lint          what the tools and our own rules say of the sources
## make clean
##
## Variables: CC, CFLAGS, BUILD (directory), V=1 (show commands), NO_SETUP=1
## (never install packages)
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
HAVE_PKGS := $(shell $(PKG_CONFIG) --exists $(PKGS) 2>/dev/null && echo yes)
# Used when it is there.
LIBURING := $(shell $(PKG_CONFIG) --modversion liburing 2>/dev/null)
LIBSLIRP := $(shell $(PKG_CONFIG) --modversion slirp 2>/dev/null)
ALL_PKGS := $(PKGS) $(if $(LIBURING),liburing) $(if $(LIBSLIRP),slirp)
DEPCFLAGS := $(shell $(PKG_CONFIG) --cflags $(ALL_PKGS) 2>/dev/null) \
	   $(if $(LIBURING),-DHAVE_LIBURING='"$(LIBURING)"') \
	   $(if $(LIBSLIRP),-DHAVE_LIBSLIRP='"$(LIBSLIRP)"')
DEPLIBS	:= $(shell $(PKG_CONFIG) --libs $(ALL_PKGS) 2>/dev/null)

GODWIT_CFLAGS := -std=gnu11 -D_GNU_SOURCE -DGODWIT_VERSION='"$(VERSION)"' -I. \
	   -pthread -fno-common -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
	   $(WARN) $(DEPCFLAGS)
LDLIBS	:= $(DEPLIBS) -pthread
HARDEN	:= -fPIE -pie -Wl,-z,relro,-z,now

ROOMS	:= vmm devices devices/backend devices/virtio migration arch/x86_64
SRCS	:= $(sort $(foreach r,$(ROOMS),$(wildcard $(r)/*.c)))
LIBSRCS	:= $(filter-out vmm/main.c,$(SRCS))
OBJS	:= $(SRCS:%.c=$(BUILD)/%.o)
LIBOBJS	:= $(LIBSRCS:%.c=$(BUILD)/%.o)

.DEFAULT_GOAL := all
.PHONY: all clean help packages install uninstall format
.SUFFIXES:
.DELETE_ON_ERROR:

all: $(BUILD)/godwit

$(BUILD)/godwit: $(BUILD)/vmm/main.o $(BUILD)/libgodwit.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(HARDEN) -o $@ $^ $(LDLIBS)

$(BUILD)/libgodwit.a: $(LIBOBJS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c | packages
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GODWIT_CFLAGS) $(CFLAGS) -fPIE -MMD -MP -c -o $@ $<

# A missing header would say less.
packages:
ifneq ($(HAVE_PKGS),yes)
	@for p in $(PKGS); do $(PKG_CONFIG) --exists $$p || \
		echo "godwit needs $$p to build, and pkg-config doesn't find it." >&2; \
	done
	@echo "On Debian, 'tools/setup build' installs what is missing of:" \
		$$(tools/setup --list build) >&2
	@exit 1
endif

BINDIR	:= $(DESTDIR)$(PREFIX)/bin
SHARE	:= $(DESTDIR)$(PREFIX)/share
MANUALS	:= $(wildcard tools/man/*.[1-8])
# Where each shell looks for completions of a command named godwit.
COMPLETIONS := tools/completions/godwit.bash:bash-completion/completions/godwit \
	   tools/completions/godwit.zsh:zsh/site-functions/_godwit \
	   tools/completions/godwit.fish:fish/vendor_completions.d/godwit.fish

install: all
	install -D -m 755 $(BUILD)/godwit $(BINDIR)/godwit
	$(foreach m,$(MANUALS),\
		install -D -m 644 $(m) \
			$(SHARE)/man/man$(patsubst .%,%,$(suffix $(m)))/$(notdir $(m)) &&) :
	@for c in $(COMPLETIONS); do \
		[ ! -e $${c%%:*} ] || \
		install -D -m 644 $${c%%:*} $(SHARE)/$${c#*:} || exit 1; \
	done

uninstall:
	rm -f $(BINDIR)/godwit $(foreach m,$(MANUALS),\
		$(SHARE)/man/man$(patsubst .%,%,$(suffix $(m)))/$(notdir $(m)))
	@for c in $(COMPLETIONS); do rm -f $(SHARE)/$${c#*:}; done

FORMATTED := $(wildcard $(foreach r,$(ROOMS) arch guests guests/* tests/*,\
	   $(r)/*.c $(r)/*.h))

format:
	clang-format -i $(FORMATTED)

help:
	@sed -n 's/^## \{0,1\}//p' Makefile

clean:
	$(Q)rm -rf $(BUILD)

-include $(wildcard guests/build.mk tests/build.mk tests/lab/build.mk \
	   tools/build.mk)
-include $(OBJS:.o=.d)
