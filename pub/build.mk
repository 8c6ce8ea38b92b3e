# Build rules of pub.
$(eval $(call area,pub))
ifneq ($(wildcard pub/main.c),)
$(eval $(call program,pub,pub))
endif
