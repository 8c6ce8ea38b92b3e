# Build rules of wrapper.
$(eval $(call area,wrapper))
ifneq ($(wildcard wrapper/main.c),)
$(eval $(call program,job_wrapper,wrapper))
endif
