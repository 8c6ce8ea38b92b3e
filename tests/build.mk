# Fuzz targets: tests/fuzz/fuzz_NAME.c with seeds in tests/fuzz/corpus/NAME. A target that tests code of an area names
# it: fuzz_NAME_AREAS := pub. `make fuzz-replay` (part of `make test`) runs every seed through its target; it works with
# SAN= too. `make fuzz TARGET=yaml SECONDS=30` searches for new inputs with clang's libFuzzer.
fuzz_wrapper_route_AREAS := wrapper
fuzz_pub_input_AREAS := pub
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_BINARIES := $(FUZZ_NAMES:%=$(B)/tests/fuzz/fuzz_%)
FUZZ_TARGETS := fuzz-replay
OBJECTS += $(FUZZ_BINARIES:=.o) $(B)/tests/fuzz/replay.o

ifneq ($(findstring fuzzer-no-link,$(SAN)),)
FUZZ_MAIN :=
FUZZ_LDFLAGS := -fsanitize=fuzzer
else
FUZZ_MAIN := $(B)/tests/fuzz/replay.o
FUZZ_LDFLAGS :=
endif

define fuzz-target
$(B)/tests/fuzz/fuzz_$(1): $(B)/tests/fuzz/fuzz_$(1).o $(FUZZ_MAIN) $(fuzz_$(1)_AREAS:%=$(B)/%.a) $(B)/libtrack.a
	$$(CC) $$(LDFLAGS) $$(FUZZ_LDFLAGS) -o $$@ $$(filter %.o,$$^) $$(filter %.a,$$^) $$(LIBS)
endef
$(foreach name,$(FUZZ_NAMES),$(eval $(call fuzz-target,$(name))))

.PHONY: fuzz-replay fuzz fuzz-run docs
fuzz-replay: $(FUZZ_BINARIES) ## Run the fuzz corpora through their targets.
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	for name in $(FUZZ_NAMES); do \
	    TEST_TMP=$$scratch $(B)/tests/fuzz/fuzz_$$name tests/fuzz/corpus/$$name; \
	done

TARGET ?= yaml
SECONDS ?= 30
fuzz: ## Search for inputs that break a parser: TARGET=yaml SECONDS=30 (needs clang).
	@command -v clang >/dev/null || { echo "fuzz: clang is missing (apt-get install clang)"; exit 1; }
	@$(MAKE) --no-print-directory CC=clang WARNINGS=-w SAN=address,undefined,fuzzer-no-link fuzz-run TARGET=$(TARGET) SECONDS=$(SECONDS)

fuzz-run: $(B)/tests/fuzz/fuzz_$(TARGET)
	@mkdir -p build/fuzz/$(TARGET)
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	TEST_TMP=$$scratch $< -max_total_time=$(SECONDS) -timeout=5 -rss_limit_mb=2048 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/$(TARGET)- build/fuzz/$(TARGET) tests/fuzz/corpus/$(TARGET)

# A benchmark that is a program: tests/bench/NAME.c, linked with pub and libtrack; tests/bench/NAME.sh runs it.
$(B)/tests/bench/table: $(B)/tests/bench/table.o $(B)/pub.a $(B)/libtrack.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
OBJECTS += $(B)/tests/bench/table.o
