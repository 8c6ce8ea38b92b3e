#!/usr/bin/env bash
# Requests per second of pub (one thread, authorisation and metrics on) against nginx and HAProxy as plain proxies (one worker), all
# in front of the same tiny job. The gateway has core 0 for itself, wrk and the job share core 1. Short rounds in turn; the ratio's
# median is what counts on a machine with neighbours.
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
    taskset -c 0 "$bin/pub" &
pids+=($!)

cat >"$dir/nginx.conf" <<EOF
daemon off; pid $dir/nginx.pid; worker_processes 1; error_log $dir/nginx.log crit;
events { worker_connections 1024; }
http {
    access_log off; keepalive_requests 1000000000;
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
    peers+=("haproxy $haproxy")
fi
# Calls of one caller, or of all in turn.
cat >"$dir/call.lua" <<'EOF'
local calls, at = {}, 0
function init(args)
    for i = 0, tonumber(args[1]) - 1 do
        calls[i] = wrk.format("POST", nil, {["Content-Type"] = "application/json",
            ["X-Racetrack-Auth"] = string.rep("a", 180) .. i}, '{"numbers": [40, 2]}')
    end
end
function request()
    at = (at + 1) % (#calls + 1)
    return calls[at]
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
measure() { # port callers -> requests/s
    taskset -c 1 wrk -t1 -c64 -d"${seconds}s" -s "$dir/call.lua" "http://127.0.0.1:$1/pub/job/adder/latest/api/v1/perform" -- "$2" >"$dir/wrk"
    if grep -q 'Non-2xx\|Socket errors' "$dir/wrk"; then cat "$dir/wrk" >&2; exit 1; fi
    awk '/Requests\/sec/ {printf "%d", $2}' "$dir/wrk"
}
median() { sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
wait_for "$pub"
for peer in "${peers[@]}"; do wait_for "${peer#* }"; done
for ((i = 1; i <= rounds; i++)); do
    ours=$(measure "$pub" 1)
    many=$(measure "$pub" "$callers")
    line="round $i: pub $ours ($callers callers in turn: $many)"
    echo "$ours" >>"$dir/pub.rps"
    awk -v a="$many" -v b="$ours" 'BEGIN {print a / b}' >>"$dir/many.ratio"
    for peer in "${peers[@]}"; do
        theirs=$(measure "${peer#* }" 1)
        line+=", ${peer% *} $theirs"
        echo "$theirs" >>"$dir/${peer% *}.rps"
        awk -v a="$ours" -v b="$theirs" 'BEGIN {print a / b}' >>"$dir/${peer% *}.ratio"
    done
    echo "$line"
done
for peer in "${peers[@]}"; do
    name=${peer% *}
    printf 'pub / %s: %.2f (median of %d; pub %d, %s %d requests/s)\n' "$name" "$(median <"$dir/$name.ratio")" "$rounds" \
        "$(median <"$dir/pub.rps")" "$name" "$(median <"$dir/$name.rps")"
done
printf 'pub, %d callers in turn / one caller: %.2f (median of %d)\n' "$callers" "$(median <"$dir/many.ratio")" "$rounds"
