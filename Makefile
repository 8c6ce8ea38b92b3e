# Racetrack: one non-recursive make. `make help` lists the targets; each area adds its own in <area>/build.mk.
.DEFAULT_GOAL := all
SHELL := /bin/bash
MAKEFLAGS += --no-builtin-rules

# Configurations: `make` (release), `make SAN=address,undefined`, `make SAN=thread`.
comma := ,
SAN ?=
CONFIG := $(if $(SAN),san-$(subst $(comma),-,$(SAN)),release)
B := build/$(CONFIG)
CC := $(if $(shell command -v ccache),ccache )gcc
PYTHON := /usr/bin/python3
VERSION := $(shell cat VERSION 2>/dev/null || echo 0.0.0)
GIT_VERSION := $(shell git describe --always --dirty --tags 2>/dev/null || echo $(VERSION))

WARNINGS := -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wformat=2 -Wundef \
  -Wpointer-arith -Wwrite-strings -Wcast-qual
HARDENING := $(if $(SAN),,-D_FORTIFY_SOURCE=2) -fstack-protector-strong -fPIE
CFLAGS := -std=gnu17 -O2 -g -fno-common -fno-omit-frame-pointer $(WARNINGS) $(if $(WERROR),-Werror) $(HARDENING) \
  $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all)
CPPFLAGS := -D_GNU_SOURCE -I. -I$(B)/gen -include libtrack/base/banned.h
LDFLAGS := -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(if $(SAN),-fsanitize=$(SAN))
LIBS := -lmicrohttpd -lcurl -lpq -ljansson -ljwt -lsodium -ltalloc -lyaml -larchive -lcrypto -lz -lcares -lpthread -ldl

PROGRAMS :=
OBJECTS :=
TESTS :=

# $(call area,NAME): every NAME/**/*.c but main.c goes into $(B)/NAME.a; tests/unit/NAME/**/test_*.c are its tests,
# linked with tests/unit/support/*.c too.
find-c = $(shell find $(1) -name '*.c' $(2) 2>/dev/null | LC_ALL=C sort)
objects = $(patsubst %.c,$(B)/%.o,$(1))
TEST_SUPPORT := $(B)/tests/unit/support.a
TEST_SUPPORT_OBJECTS := $(call objects,$(call find-c,tests/unit/support))
OBJECTS += $(TEST_SUPPORT_OBJECTS)
$(TEST_SUPPORT): $(TEST_SUPPORT_OBJECTS)
	@mkdir -p $(@D); rm -f $@
	ar rcs $@ $^
define area
$(1)_OBJECTS := $$(call objects,$$(call find-c,$(1),! -name main.c ! -path '*/python/*'))
OBJECTS += $$($(1)_OBJECTS)
$(B)/$(1).a: $$($(1)_OBJECTS)
	@mkdir -p $$(@D); rm -f $$@
	$$(if $$($(1)_OBJECTS),ar rcs $$@ $$^,ar rcs $$@)
$(1)_TESTS := $$(patsubst %.c,$(B)/%,$$(call find-c,tests/unit/$(1),-name 'test_*.c'))
TESTS += $$($(1)_TESTS)
$$($(1)_TESTS): $(B)/%: $(B)/%.o $(TEST_SUPPORT) $(B)/$(1).a $(B)/libtrack.a
	$$(CC) $$(LDFLAGS) -o $$@ $$< $(TEST_SUPPORT) $(B)/$(1).a $(B)/libtrack.a $$($(1)_LIBS) -lcheck -lsubunit -lrt -lm $$(LIBS)
endef
# $(call program,NAME,AREA): AREA/main.c linked with the area and libtrack into $(B)/bin/NAME.
define program
PROGRAMS += $(B)/bin/$(1)
OBJECTS += $(B)/$(2)/main.o
$(B)/bin/$(1): $(B)/$(2)/main.o $(B)/$(2).a $(B)/libtrack.a
	@mkdir -p $$(@D)
	$$(CC) $$(LDFLAGS) -o $$@ $$< $(B)/$(2).a $(B)/libtrack.a $$($(2)_LIBS) $$(LIBS)
endef

$(eval $(call area,libtrack))
include $(sort $(wildcard */build.mk))

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $($(firstword $(subst /, ,$*))_CFLAGS) -MMD -MP -c -o $@ $<

$(B)/gen/version.h: VERSION FORCE
	@mkdir -p $(@D)
	@printf '#define TRK_VERSION "%s"\n#define TRK_GIT_VERSION "%s"\n' '$(VERSION)' '$(GIT_VERSION)' > $@.new
	@cmp -s $@.new $@ || mv $@.new $@; rm -f $@.new
FORCE:
GENERATED += $(B)/gen/version.h
$(OBJECTS) $(addsuffix .o,$(TESTS)): | $(GENERATED)

-include $(OBJECTS:.o=.d) $(addsuffix .d,$(TESTS))

.PHONY: all help FORCE tests unit
all: $(PROGRAMS) $(EXTRAS) ## Build every program (build/<config>/bin).

tests: $(TESTS) ## Build the unit tests.

unit: tests $(EXTRAS) $(PROGRAMS) ## Run the unit tests.
	@utils/run-unit-tests.sh $(TESTS)

help: ## List the targets.
	@grep -hE '^[a-zA-Z0-9_-]+:.*?## ' $(MAKEFILE_LIST) | LC_ALL=C sort | awk -F ':.*?## ' '{printf "  %-18s %s\n", $$1, $$2}'
