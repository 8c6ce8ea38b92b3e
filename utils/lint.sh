#!/usr/bin/env bash
# Checks of the source: layout, banned functions, cppcheck, shell scripts, the house's rules. Prints every finding; fails when there is one.
# shellcheck disable=SC2317 # the checks are called through run
set -uo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top" || exit 1
utils/setup.sh build lint || exit 1
failed=0
run() { # NAME COMMAND...
    local name=$1
    shift
    if "$@"; then echo "lint: $name: ok"; else
        echo "lint: $name: FAILED"
        failed=1
    fi
}
mapfile -t c_files < <(git ls-files --cached --others --exclude-standard '*.c' '*.h' | LC_ALL=C sort)
mapfile -t shell_files < <(git ls-files --cached --others --exclude-standard | while read -r f; do
    [ -f "$f" ] && head -c 64 "$f" | head -n 1 | grep -aqE '^#!.*\b(ba)?sh\b' && echo "$f"
done)

check_format() { clang-format --dry-run --Werror "${c_files[@]}"; }
# libtrack/base/banned.h makes most of them compile errors; this finds the ones in code that a build leaves out, and what cannot be poisoned.
check_banned() {
    ! grep -nE '(^|[^_[:alnum:]."])(strcpy|strcat|sprintf|vsprintf|strtok|gmtime|localtime|ctime|asctime|gets|popen|tmpnam|mktemp|system) ?\(' \
        "${c_files[@]}" | grep -vE '^[^:]+:[0-9]+: *(\*|//|/\*)'
}
check_cppcheck() {
    cppcheck --quiet --std=c11 --language=c --enable=warning,performance,portability --error-exitcode=1 --inline-suppr -j 2 \
        --suppressions-list=utils/cppcheck.txt --library=utils/cppcheck.cfg -D_GNU_SOURCE -D__x86_64__ -DTRK_VERSION='"0"' -DTRK_GIT_VERSION='"0"' -I. \
        "${c_files[@]}"
}
check_shell() { shellcheck --severity=style "${shell_files[@]}"; }

run clang-format check_format
run "banned functions" check_banned
run cppcheck check_cppcheck
run shellcheck check_shell
run "house rules" utils/house.py
exit "$failed"
