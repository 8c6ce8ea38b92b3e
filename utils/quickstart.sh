#!/usr/bin/env bash
# From a fresh checkout to an answer: installs what is missing, builds, starts everything, deploys sample/python-class, calls it.
# Usage: make quickstart. A second run changes nothing.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"

utils/setup.sh build run
echo "building"
make --no-print-directory -s -j"$(nproc)" all
utils/local.sh up
settings=$(utils/local.sh env)
eval "$settings"
racetrack=${RACETRACK_BIN:-$top/build/release/bin}/racetrack

# The alias dev of the user's own config is theirs when it leads to another machine.
alias=dev
current=$("$racetrack" get config 2>/dev/null </dev/null | sed -n '/^lifecycle_url_aliases:/,/^[^ ]/s/^ *dev: *//p' | tr -d "\"'" | head -n 1)
case $current in
'' | http://localhost* | http://127.* | http://\[::1\]*) ;;
*)
    alias='racetrack-local'
    echo "your alias dev names $current; using the alias $alias instead"
    ;;
esac
if [ "${current%/lifecycle}" != "${LIFECYCLE_URL%/lifecycle}" ]; then
    "$racetrack" set alias "$alias" "${LIFECYCLE_URL%/lifecycle}" </dev/null
fi
if ! "$racetrack" list --remote "$alias" </dev/null >/dev/null 2>&1; then
    password='admin'
    [ ! -e "$RACETRACK_STATE/admin-password" ] || password=$(cat "$RACETRACK_STATE/admin-password")
    printf '%s\n' "$password" | "$racetrack" login --username admin --remote "$alias"
fi
"$racetrack" deploy sample/python-class "$alias" --force </dev/null
echo "calling adder with {\"numbers\": [40, 2]}:"
"$racetrack" call adder /api/v1/perform '{"numbers": [40, 2]}' --remote "$alias" </dev/null

cat <<END

It works. What next:
  open     ${LIFECYCLE_URL%/lifecycle}/    lifecycle's API; POST /api/v1/users/login there logs this browser in, and then
  open     $EXTERNAL_PUB_URL/job/adder/latest/docs    the job's own page
  type     $racetrack call adder /api/v1/perform '{"numbers": [40, 2]}' --remote $alias --curl
  change   sample/python-class/adder.py, then: $racetrack deploy sample/python-class $alias --force
  look     make status, make logs, $racetrack list --remote $alias
  stop     make down (keeps the data), make clean (removes it)
END
