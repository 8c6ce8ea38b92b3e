# Included by <component>/Makefile: delegates to the Makefile of the checkout.
COMPONENT := $(notdir $(CURDIR))
TOP := $(dir $(lastword $(MAKEFILE_LIST)))..
.PHONY: all run test help
all: ## Build everything.
	@$(MAKE) --no-print-directory -C $(TOP) all
run: ## Run this service in the foreground on its localhost port.
	@$(MAKE) --no-print-directory -C $(TOP) run-$(COMPONENT)
test: ## Run this component's unit tests.
	@$(MAKE) --no-print-directory -C $(TOP) unit-$(COMPONENT)
help: ## List the targets.
	@grep -hE '^[a-zA-Z0-9_-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  %-8s %s\n", $$1, $$2}'
