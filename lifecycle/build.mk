# Build rules of lifecycle.
$(eval $(call area,lifecycle))
ifneq ($(wildcard lifecycle/main.c),)
$(eval $(call program,lifecycle,lifecycle))
endif
