#!/usr/bin/env bash
# Runs the given check binaries, two at a time, each in its own scratch folder; prints each one's output on failure and a summary.
set -u
jobs=${UNIT_JOBS:-2}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/racetrack-unit.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
run_one() {
    local test=$1 dir=$2
    mkdir -p "$dir"
    TEST_TMP=$dir CK_DEFAULT_TIMEOUT=${CK_DEFAULT_TIMEOUT:-60} "$test" >"$dir/output" 2>&1
    echo $? >"$dir/status"
}
export -f run_one
n=0
# shellcheck disable=SC2016 # expanded by the inner bash
for test in "$@"; do
    n=$((n + 1))
    printf '%s\0%s\0' "$test" "$scratch/$n"
done | xargs -0 -r -n 2 -P "$jobs" bash -c 'run_one "$0" "$1"'
passed=0 failed=0 n=0
for test in "$@"; do
    n=$((n + 1))
    if [ "$(cat "$scratch/$n/status" 2>/dev/null)" = 0 ]; then
        passed=$((passed + 1))
        tail -n 1 "$scratch/$n/output"
    else
        failed=$((failed + 1))
        echo "FAILED: $test"
        cat "$scratch/$n/output"
    fi
done
echo "unit: $passed passed, $failed failed"
[ "$failed" = 0 ]
