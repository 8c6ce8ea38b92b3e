# libtrack itself is declared first, in the Makefile: the other areas link it.
# NAME.json becomes a C string in $(B)/gen/NAME.h.
libtrack_JSON := $(patsubst libtrack/%.json,$(B)/gen/%.h,$(wildcard libtrack/*.json))
GENERATED += $(libtrack_JSON)
$(libtrack_JSON): $(B)/gen/%.h: libtrack/%.json
	@mkdir -p $(@D)
	@{ echo 'static const char $*[] ='; sed 's/\\/\\\\/g; s/"/\\"/g; s/^ */"/; s/$$/\\n"/' $<; echo ';'; } > $@
