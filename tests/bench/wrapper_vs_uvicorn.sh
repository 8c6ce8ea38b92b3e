#!/usr/bin/env bash
# The adder behind the wrapper against starlette + uvicorn (uvloop, httptools): alternating short rounds on one core, ratios of
# requests/s and p99, then start-up time and memory of the wrapper. Needs wrk and the peers' Debian packages; asserts nothing.
#   tests/bench/wrapper_vs_uvicorn.sh [ROUNDS=4] [SECONDS_A_ROUND=2]
set -eu
rounds=${1:-4} seconds=${2:-2}
root=$(cd "$(dirname "$0")/../.." && pwd)
wrapper=${JOB_WRAPPER:-$root/build/release/bin/job_wrapper}
python=/usr/bin/python3
dir=$(mktemp -d)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT
cores=$(nproc)
server_core=0 load_core=$((cores > 1 ? 1 : 0))

cat >"$dir/adder.py" <<'PY'
class Adder:
    def perform(self, numbers: list[float]) -> float:
        return sum(numbers)
PY
cat >"$dir/peer.py" <<'PY'
import json
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

def add(numbers):
    return sum(numbers)

async def perform(request):
    payload = json.loads(await request.body())
    return JSONResponse(add(**payload))

app = Starlette(routes=[Route("/api/v1/perform", perform, methods=["POST"])])
PY
cat >"$dir/post.lua" <<'LUA'
wrk.method = "POST"
wrk.body = '{"numbers": [40, 2]}'
wrk.headers["Content-Type"] = "application/json"
LUA
free_port() { $python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_answer() {
    for _ in $(seq 200); do
        curl -sf -o /dev/null -d '{"numbers":[40,2]}' "$1" && return
        sleep 0.02
    done
    echo "no answer from $1" >&2
    return 1
}
port_a=$(free_port) port_b=$(free_port)
cd "$dir"
taskset -c $server_core "$wrapper" run adder.py --port "$port_a" >wrapper.log 2>&1 &
pids+=($!)
front=$!
taskset -c $server_core $python -m uvicorn peer:app --port "$port_b" --loop uvloop --http httptools --no-access-log --log-level warning >peer.log 2>&1 &
pids+=($!)
url_a=http://127.0.0.1:$port_a/api/v1/perform url_b=http://127.0.0.1:$port_b/api/v1/perform
wait_answer "$url_a"
wait_answer "$url_b"

round() { taskset -c $load_core wrk -t1 -c16 -d"${seconds}s" --latency -s post.lua "$1" >out; awk -v name="$2" '
    function ms(v) { return v ~ /us$/ ? v / 1000 : v ~ /ms$/ ? v + 0 : v * 1000 }
    $1 == "99%" { p99 = ms($2) } $1 == "Requests/sec:" { rps = $2 } /Non-2xx/ { bad = 1 }
    END { printf "%s %.0f %.3f %d\n", name, rps, p99, bad }' out | tee -a results; }
round "$url_a" warm >/dev/null
round "$url_b" warm >/dev/null
rm -f results
for _ in $(seq "$rounds"); do
    round "$url_a" wrapper
    round "$url_b" uvicorn
done
awk '{ n[$1]++; rps[$1] += $2; p99[$1] += $3; bad += $4 }
    END { printf "wrapper %.0f req/s p99 %.3f ms, uvicorn %.0f req/s p99 %.3f ms; ratio of req/s %.2f, of p99 %.2f%s\n",
        rps["wrapper"] / n["wrapper"], p99["wrapper"] / n["wrapper"], rps["uvicorn"] / n["uvicorn"], p99["uvicorn"] / n["uvicorn"],
        rps["wrapper"] / rps["uvicorn"], p99["wrapper"] / p99["uvicorn"], bad ? " (SOME ANSWERS WERE NOT 2xx)" : "" }' results
memory() { awk '/^Rss|^Pss:/ { sum[$1] += $2 } END { printf "rss %.1f MiB pss %.1f MiB\n", sum["Rss:"] / 1024, sum["Pss:"] / 1024 }' \
    "/proc/$1/smaps_rollup"; }
echo "memory after the load: front $(memory "$front"), worker $(memory "$(pgrep -P "$front" | head -1)")"

$python - "$wrapper" <<'PY'
import http.client, socket, subprocess, sys, time
times = {"listening": [], "ready": []}
for _ in range(10):
    s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(); port = s.getsockname()[1]
    s.set_inheritable(True)
    began = time.perf_counter()
    p = subprocess.Popen([sys.argv[1], "run", "adder.py", "--listen-fd", str(s.fileno())], pass_fds=[s.fileno()], stdout=subprocess.DEVNULL)
    s.close()
    seen = False
    while True:
        c = http.client.HTTPConnection("127.0.0.1", port); c.request("GET", "/ready"); r = c.getresponse(); r.read(); c.close()
        if not seen:
            seen = True; times["listening"].append(time.perf_counter() - began)
        if r.status == 200:
            break
        time.sleep(0.001)
    times["ready"].append(time.perf_counter() - began)
    p.terminate(); p.wait()
for name, values in times.items():
    values.sort()
    print(f"{name}: median {values[5] * 1000:.1f} ms, worst {values[-1] * 1000:.1f} ms after exec")
PY
