#!/usr/bin/env bash
# pub's table of jobs, callers and grants: memory, loading, changes, decisions (tests/bench/table.c).
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
make -s -C "$top" build/release/tests/bench/table
"$top/build/release/tests/bench/table"
