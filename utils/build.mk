# Targets for people and CI: set up, run on this machine, check.
.PHONY: setup quickstart up down status logs clean test test-slow e2e bench lint run-lifecycle run-image_builder run-pub run-client run-wrapper test-unit
LOCAL := utils/local.sh
# Programs that the services are started from; `make SAN=… up` runs the instrumented ones.
export RACETRACK_BIN ?= $(CURDIR)/$(B)/bin

# As many compilers as processors, unless the caller has said how many (make -j4 test).
PARALLEL = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))

# The packages come first, so the programs are built in a second make (the areas' rules ask the installed packages).
setup: ## Install the missing Debian packages (SETUP_GROUPS="build run" for some), build, make venv/bin/activate.
	@utils/setup.sh $(SETUP_GROUPS)
	@echo building
	@$(MAKE) --no-print-directory -s $(PARALLEL) all
	@utils/venv.sh

quickstart: ## From nothing to an answer: install, build, start, deploy the sample, call it.
	@utils/quickstart.sh

up: all ## Start Postgres and all services in the background (RACETRACK_STATE, *_PORT).
	@$(LOCAL) up

down: ## Stop the services, their jobs and Postgres.
	@$(LOCAL) down

status: ## Show what runs, where, since when.
	@$(LOCAL) status || true

logs: ## Show the last log lines; service=lifecycle for one, follow=1 to follow.
	@$(LOCAL) logs $(if $(follow),-f) $(service)

run-lifecycle run-image_builder run-pub: run-%: all
	@$(LOCAL) run $*

run-client: all
	@$(RACETRACK_BIN)/racetrack --help
	@echo "The client is a program, not a service: $(RACETRACK_BIN)/racetrack COMMAND, or . venv/bin/activate after make setup."

run-wrapper: all
	@echo "Serving sample/python-class on http://127.0.0.1:7000/docs; another job: job_wrapper run FILE.py in its folder"
	@cd sample/python-class && exec $(RACETRACK_BIN)/job_wrapper run adder.py

clean: ## Stop everything this checkout started, remove its state and build folders (RACETRACK_STATE: that state only).
	@$(LOCAL) clean
	@if [ -e .racetrack ]; then echo "kept: build, whose programs $(CURDIR)/.racetrack needs"; else rm -rf build; fi
	@rm -rf .pytest_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# The packages come first, so these build in a second make (the areas' rules ask the installed packages).
test: ## Build, then run the unit tests, the fuzz corpora and the end-to-end suite.
	@utils/setup.sh build run test
	@echo building
	@$(MAKE) --no-print-directory -s $(PARALLEL) all tests $(FUZZ_BINARIES)
	@$(MAKE) --no-print-directory unit $(if $(filter fuzz-replay,$(FUZZ_TARGETS)),fuzz-replay)
	@$(MAKE) --no-print-directory e2e

test-unit: ## Install, build, run the unit tests (make unit without the first).
	@utils/setup.sh build run test
	@$(MAKE) --no-print-directory -s $(PARALLEL) unit

e2e: all ## Run the end-to-end suite (args="-k name" picks tests).
	@$(PYTHON) -m pytest -p no:cacheprovider -q tests/e2e $(args)

bench: all ## Measure against peers in the same run (args=path picks one).
	@utils/setup.sh build run bench
	@tests/bench/run.sh $(args)

lint: ## Check layout, banned functions, C and shell (clang-format, cppcheck, shellcheck).
	@utils/lint.sh

test-slow: all ## The end-to-end tests that take minutes and gigabytes.
	@$(PYTHON) -m pytest -p no:cacheprovider -q -m slow tests/e2e $(args)

# unit-AREA: the unit tests of one area.
unit-%: $(EXTRAS) $(PROGRAMS)
	@$(MAKE) --no-print-directory $($*_TESTS)
	@utils/run-unit-tests.sh $($*_TESTS)
