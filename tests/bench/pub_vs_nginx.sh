#!/usr/bin/env bash
# pub (one thread; authorisation, metrics and access log on) against nginx and HAProxy as plain proxies (one worker; nginx with its access
# log), all in front of the same tiny job: CPU of a call, requests per second, and latencies at 30 % of pub's rate with 256 connections. The
# gateway has core 0 for itself, wrk and the job share core 1. Short rounds in turn; the median is what counts on a machine with
# neighbours, and CPU of a call counts most: neighbours change it little.
#   tests/bench/pub_vs_nginx.sh [rounds] [seconds]
set -eu
rounds=${1:-3} seconds=${2:-1}
callers=20000
top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${RACETRACK_BIN:-$top/build/release/bin}
dir=$(mktemp -d)
pids=()
cleanup() {
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap cleanup EXIT
free_ports() {
    /usr/bin/python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*(s.getsockname()[1] for s in sockets))'
}
read -r job pub nginx haproxy < <(free_ports)
"${CC:-gcc}" -O2 -o "$dir/pub_peer" "$top/tests/bench/pub_peer.c" -lcrypto
taskset -c 1 "$dir/pub_peer" "$job" "$callers" &
pids+=($!)

RACETRACK_PROFILE=dev RACETRACK_STATE=$dir PUB_PORT=$pub PUB_THREADS=1 LIFECYCLE_URL=http://127.0.0.1:$job/lifecycle LOG_LEVEL=error \
    PUB_ACCESS_LOG=$dir/pub.access taskset -c 0 "$bin/pub" &
pids+=($!)
declare -A pid_of=([pub]=$!)

cat >"$dir/nginx.conf" <<EOF
daemon off; pid $dir/nginx.pid; worker_processes 1; error_log $dir/nginx.log crit;
events { worker_connections 1024; }
http {
    access_log $dir/nginx.access combined buffer=32k flush=1s; keepalive_requests 1000000000;
    client_body_temp_path $dir/t1; proxy_temp_path $dir/t2; fastcgi_temp_path $dir/t3; uwsgi_temp_path $dir/t4; scgi_temp_path $dir/t5;
    upstream job { server 127.0.0.1:$job; keepalive 128; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:$nginx reuseport;
        location / { proxy_pass http://job; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host \$http_host; }
    }
}
EOF
peers=("nginx $nginx")
taskset -c 0 nginx -c "$dir/nginx.conf" -g 'master_process off;' &
pids+=($!)
pid_of[nginx]=$!
if command -v haproxy >/dev/null; then
    cat >"$dir/haproxy.cfg" <<EOF
global
    nbthread 1
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend f
    bind 127.0.0.1:$haproxy
    default_backend b
backend b
    server job 127.0.0.1:$job
EOF
    taskset -c 0 haproxy -f "$dir/haproxy.cfg" -q &
    pids+=($!)
    pid_of[haproxy]=$!
    peers+=("haproxy $haproxy")
fi
# Calls of the first args[1] callers in turn; a connection waits args[2] ms on average between its calls.
cat >"$dir/call.lua" <<'EOF'
local calls, at, pause = {}, 0, 0
function init(args)
    for i = 0, tonumber(args[1]) - 1 do
        calls[i] = wrk.format("POST", nil, {["Content-Type"] = "application/json",
            ["X-Racetrack-Auth"] = string.rep("a", 180) .. i}, '{"numbers": [40, 2]}')
    end
    pause = tonumber(args[2])
    if pause > 0 then
        function delay() return math.random(0, 2 * pause) end
    end
end
function request()
    at = (at + 1) % (#calls + 1)
    return calls[at]
end
function done(summary, latency)
    local errors = summary.errors
    print(string.format("RESULT %d %d %.3f %.3f %d", summary.requests, summary.duration / 1000, latency:percentile(99) / 1000,
        latency:percentile(99.9) / 1000, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
EOF
token=$(printf 'a%.0s' $(seq 180))0
wait_for() {
    for _ in $(seq 200); do
        if curl -fs -o /dev/null -H "X-Racetrack-Auth: $token" "http://127.0.0.1:$1/pub/job/adder/latest/api/v1/perform"; then return; fi
        sleep 0.02
    done
    echo "nothing answers on port $1" >&2
    exit 1
}
cpu_ticks() { awk '{print $14 + $15}' "/proc/${pid_of[$1]}/stat"; }
# name port connections callers pause -> requests/s, microseconds of CPU a call, p99 and p99.9 in ms
measure() {
    local before after
    before=$(cpu_ticks "$1")
    taskset -c 1 wrk -t1 -c"$3" -d"${seconds}s" -s "$dir/call.lua" "http://127.0.0.1:$2/pub/job/adder/latest/api/v1/perform" -- "$4" "$5" >"$dir/wrk"
    after=$(cpu_ticks "$1")
    if ! grep -q '^RESULT .* 0$' "$dir/wrk"; then cat "$dir/wrk" >&2; exit 1; fi
    awk -v ticks=$((after - before)) '/^RESULT/ {printf "%d %.2f %s %s\n", $2 * 1000 / $3, ticks * 10000 / $2, $4, $5}' "$dir/wrk"
}
median() { sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN {print a / b}'; }
wait_for "$pub"
for peer in "${peers[@]}"; do wait_for "${peer#* }"; done
for ((i = 1; i <= rounds; i++)); do
    read -r rps cpu _ _ < <(measure pub "$pub" 64 1 0)
    read -r many _ < <(measure pub "$pub" 64 "$callers" 0)
    pause=$(awk -v rps="$rps" 'BEGIN {printf "%d", 1 + 256 * 1000 / (0.3 * rps)}')
    read -r _ _ p99 p999 < <(measure pub "$pub" 256 1 "$pause")
    echo "round $i: pub $rps/s, $cpu us a call, at 30 % p99 $p99 ms p99.9 $p999 ms; $callers callers in turn $many/s"
    ratio "$many" "$rps" >>"$dir/many.ratio"
    echo "$cpu" >>"$dir/pub.cpu"
    for peer in "${peers[@]}"; do
        name=${peer% *}
        read -r their_rps their_cpu _ _ < <(measure "$name" "${peer#* }" 64 1 0)
        read -r _ _ their_p99 their_p999 < <(measure "$name" "${peer#* }" 256 1 "$pause")
        echo "         $name $their_rps/s, $their_cpu us a call, at 30 % p99 $their_p99 ms p99.9 $their_p999 ms"
        echo "$their_cpu" >>"$dir/$name.cpu"
        ratio "$rps" "$their_rps" >>"$dir/$name.rps"
        ratio "$cpu" "$their_cpu" >>"$dir/$name.cpu_ratio"
        ratio "$p99" "$their_p99" >>"$dir/$name.p99"
        ratio "$p999" "$their_p999" >>"$dir/$name.p999"
    done
done
echo "medians of $rounds rounds; pub $(median <"$dir/pub.cpu") us a call, $callers callers in turn / one caller: $(median <"$dir/many.ratio")"
for peer in "${peers[@]}"; do
    name=${peer% *}
    echo "pub / $name: CPU of a call $(median <"$dir/$name.cpu_ratio") ($name $(median <"$dir/$name.cpu") us), requests/s $(median <"$dir/$name.rps")," \
        "p99 $(median <"$dir/$name.p99"), p99.9 $(median <"$dir/$name.p999") at 30 % load"
done
