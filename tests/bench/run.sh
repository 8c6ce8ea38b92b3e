#!/usr/bin/env bash
# Runs every benchmark of this folder, one after the other: *.sh and *.py here. Arguments choose by name: make bench args=path
# Benchmarks print ratios against a peer of the same run; they assert nothing.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for bench in "$here"/*.sh "$here"/*.py; do
    name=$(basename "$bench")
    name=${name%.*}
    [ "$name" != run ] || continue
    [ "$#" = 0 ] || [[ " $* " == *" $name "* ]] || continue
    echo "== $name"
    case $bench in
    *.py) PYTHONPATH=$here/../e2e /usr/bin/python3 "$bench" ;;
    *) "$bench" ;;
    esac || echo "$name failed ($?)"
done
