# Pages that are made from the code's own tables.
CONFIGURED := lifecycle image_builder pub dashboard

.PHONY: docs docs-check
docs: all ## Write the generated pages (docs/configuration.md).
	@docs/configuration.sh $(wildcard $(CONFIGURED:%=$(B)/bin/%)) > docs/configuration.md.new
	@mv docs/configuration.md.new docs/configuration.md

docs-check: all
	@docs/configuration.sh $(wildcard $(CONFIGURED:%=$(B)/bin/%)) | diff -u docs/configuration.md - \
	    || { echo "docs/configuration.md is not up to date: run 'make docs'"; exit 1; }
