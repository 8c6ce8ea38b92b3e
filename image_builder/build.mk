# Build rules of image_builder.
$(eval $(call area,image_builder))
ifneq ($(wildcard image_builder/main.c),)
$(eval $(call program,image_builder,image_builder))
endif
# The last step before a build's command, in its sandbox: links nothing but libc.
PROGRAMS += $(B)/bin/build_launch
OBJECTS += $(B)/image_builder/build/launcher/main.o
$(B)/bin/build_launch: $(B)/image_builder/build/launcher/main.o $(B)/image_builder/build/shuttle.o
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^
