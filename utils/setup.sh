#!/usr/bin/env bash
# Installs what is missing of utils/packages.txt with apt. Usage: utils/setup.sh [GROUP...] (default: all groups; see the list).
# Prints what it installs, and nothing when all is there. As root, or through sudo.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
groups=("$@")

wanted=()
while read -r package group _; do
    case $package in '' | \#*) continue ;; esac
    if [ "${#groups[@]}" = 0 ] || [[ " ${groups[*]} " == *" $group "* ]]; then
        wanted+=("$package")
    fi
done <"$top/utils/packages.txt"

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this is not a Debian system (no apt). Install what these Debian packages hold: ${wanted[*]}" >&2
    exit 1
fi
# Installed or provided by another package (libcurl4-gnutls-dev is no libcurl4-openssl-dev, but a virtual name may be).
installed=$(dpkg-query -W -f '${db:Status-Abbrev} ${Package}, ${Provides}\n' 2>/dev/null | sed -n 's/^ii  *//p' |
    tr ',' '\n' | sed 's/^ *//; s/[ :(].*//')
missing=()
for package in "${wanted[@]}"; do
    grep -qxF "$package" <<<"$installed" || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0

echo "setup: installing ${#missing[@]} missing Debian packages: ${missing[*]}"
as_root=()
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: this needs root. As root, type: apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
    # No terminal, no question: fail at once instead of waiting for a password that nobody types.
    [ -t 0 ] || as_root=(sudo -n)
fi
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The lists may know nothing yet (fresh machine), or name versions that the mirror has dropped since.
if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then
    echo "setup: updating apt's package lists"
    "${apt[@]}" update </dev/null >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
fi
install=("${apt[@]}" install --no-install-recommends "${missing[@]}")
if ! "${install[@]}" </dev/null >"$log" 2>&1; then
    echo "setup: trying again with fresh package lists"
    "${apt[@]}" update </dev/null >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
    "${install[@]}" </dev/null >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        echo "setup: apt could not install: ${missing[*]}" >&2
        exit 1
    }
fi
echo "setup: done"
