# Build rules of wrapper: the front (job_wrapper) and the Python side of its workers, which is installed beside it in
# build/<config>/lib/racetrack_job. The extension is loaded by an interpreter that knows no sanitizers, so it is built without.
$(eval $(call area,wrapper))
ifneq ($(wildcard wrapper/main.c),)
$(eval $(call program,job_wrapper,wrapper))
endif

WRAPPER_LIB := $(B)/lib/racetrack_job
WRAPPER_PY := $(shell find wrapper/python -name '*.py' | LC_ALL=C sort)
WRAPPER_PY_OUT := $(patsubst wrapper/python/%,$(WRAPPER_LIB)/%,$(WRAPPER_PY))
WRAPPER_EXT := $(WRAPPER_LIB)/_racetrack.so
PYTHON_CONFIG := $(PYTHON)-config

$(WRAPPER_EXT): wrapper/python/_racetrack.c wrapper/ring.c wrapper/ring.h
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE -I. -include libtrack/base/banned.h -std=gnu17 -O2 -g -fPIC -shared $(filter-out -Wundef,$(WARNINGS)) \
	  $(if $(WERROR),-Werror) -fstack-protector-strong -fvisibility=hidden -Wl,-z,relro,-z,now \
	  $(patsubst -I%,-isystem %,$(shell $(PYTHON_CONFIG) --includes)) -o $@ wrapper/python/_racetrack.c wrapper/ring.c

$(WRAPPER_PY_OUT): $(WRAPPER_LIB)/%: wrapper/python/%
	@mkdir -p $(@D)
	@cp $< $@

# Compiled here, once: the folder may not be writable where jobs run.
$(WRAPPER_LIB)/.compiled: $(WRAPPER_PY_OUT)
	@$(PYTHON) -m compileall -q --invalidation-mode unchecked-hash $(WRAPPER_LIB)
	@touch $@

EXTRAS += $(WRAPPER_EXT) $(WRAPPER_LIB)/.compiled
