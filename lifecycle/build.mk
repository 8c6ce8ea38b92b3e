# Build rules of lifecycle.
# The numbered SQL files become the rows of a C table (lifecycle/store/migrations.c includes it).
LIFECYCLE_SQL := $(sort $(wildcard lifecycle/store/sql/[0-9]*.sql))
$(B)/gen/migrations.inc: $(LIFECYCLE_SQL) lifecycle/build.mk
	@mkdir -p $(@D)
	@for file in $(LIFECYCLE_SQL); do \
	  name=$$(basename $$file .sql); \
	  printf '{%d, "%s",\n' "$$((10#$${name%%_*}))" "$$name"; \
	  sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/"&\\n"/' "$$file"; \
	  echo '},'; \
	done > $@.new
	@mv $@.new $@
GENERATED += $(B)/gen/migrations.inc

$(eval $(call area,lifecycle))
ifneq ($(wildcard lifecycle/main.c),)
$(eval $(call program,lifecycle,lifecycle))
endif
# The last step before a job's wrapper: links nothing but libc, so that it starts in no time.
PROGRAMS += $(B)/bin/job_launch
OBJECTS += $(B)/lifecycle/infra/process/launcher/main.o
$(B)/bin/job_launch: $(B)/lifecycle/infra/process/launcher/main.o $(patsubst %,$(B)/lifecycle/infra/process/launcher/%.o,filter keeper network relay)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^
