#!/usr/bin/env bash
# Makes venv/: `. venv/bin/activate` puts this checkout's programs on the PATH, `deactivate` takes them off again.
# Usage: make setup. The name fatman_wrapper is the one that early guides use.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$top/venv/bin
mkdir -p "$bin"
link() { ln -sfn "../../build/release/bin/$1" "$bin/$2"; }
for program in racetrack job_wrapper image_builder lifecycle pub; do
    link "$program" "$program"
done
link job_wrapper fatman_wrapper
cat >"$bin/activate" <<'END'
# Source it: . venv/bin/activate
if [ -n "${RACETRACK_VENV_PATH:-}" ]; then
    PATH=$RACETRACK_VENV_PATH
fi
RACETRACK_VENV_PATH=$PATH
END
# shellcheck disable=SC2016 # expanded when it is sourced
printf 'PATH=%q:$PATH\n' "$bin" >>"$bin/activate"
cat >>"$bin/activate" <<'END'
export PATH
deactivate() {
    PATH=$RACETRACK_VENV_PATH
    unset RACETRACK_VENV_PATH
    unset -f deactivate
}
END
