# Build rules of client.
$(eval $(call area,client))
ifneq ($(wildcard client/main.c),)
$(eval $(call program,racetrack,client))
endif
