# Build rules of image_builder.
$(eval $(call area,image_builder))
ifneq ($(wildcard image_builder/main.c),)
$(eval $(call program,image_builder,image_builder))
endif
