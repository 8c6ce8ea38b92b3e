# libtrack itself is declared first, in the Makefile: the other areas link it.
# NAME.json becomes a C string in $(B)/gen/NAME.h.
libtrack_JSON := $(patsubst %.json,$(B)/gen/%.h,$(notdir $(wildcard libtrack/*/*.json)))
GENERATED += $(libtrack_JSON)
vpath %.json $(wildcard libtrack/*/)
$(libtrack_JSON): $(B)/gen/%.h: %.json
	@mkdir -p $(@D)
	@{ echo 'static const char $*[] ='; sed 's/\\/\\\\/g; s/"/\\"/g; s/^ */"/; s/$$/\\n"/' $<; echo ';'; } > $@
