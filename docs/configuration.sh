#!/usr/bin/env bash
# Prints docs/configuration.md: the settings of the given programs, from their own tables.
set -euo pipefail
cat <<'TEXT'
# Configuration

<!-- Made by `make docs` from the services' own tables: change the tables, not this page. -->

Every setting has a default. A YAML file, named by the environment variable `CONFIG_FILE`, overrides defaults; the
environment overrides the file (a variable that is set but empty counts as not set). Each service answers

- `--check-config`: lists every fault at once and exits with 1, or says `configuration is valid`;
- `--show-config`: prints the effective values and where each comes from, secrets as `***`;
- `--help`: prints the settings with their meaning.

Quantities are numbers with an optional suffix, such as `256Mi`, `1Gi`, `500m` or `1.5`.
TEXT
for program in "$@"; do
    echo
    env -i PATH="$PATH" "$program" --config-markdown
done
