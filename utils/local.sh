#!/usr/bin/env bash
# Racetrack on this machine: Postgres and the services in the background, below one state folder.
#
#   utils/local.sh up [SERVICE...]     start what does not run (all: postgres image_builder lifecycle pub), wait until ready
#   utils/local.sh down                stop all of this state folder: services, jobs, Postgres
#   utils/local.sh status              what runs, where, since when, how much memory
#   utils/local.sh logs [-f] [SERVICE] the last lines of the logs
#   utils/local.sh run SERVICE         one service in the foreground (Postgres is started when it needs it)
#   utils/local.sh stop SERVICE...     stop single services
#   utils/local.sh env                 the settings as shell exports: eval "$(utils/local.sh env)"
#   utils/local.sh clean               down, then remove the state folder
#
# Settings (environment): RACETRACK_STATE (.racetrack in the checkout), RACETRACK_PROFILE (dev; empty: generated secrets),
# LIFECYCLE_PORT 7202, IMAGE_BUILDER_PORT 7201, PUB_PORT 7205, POSTGRES_PORT 7232 (0: a free one), RACETRACK_BIN (folder of the
# programs), RACETRACK_READY_TIMEOUT (s). Everything else that a service knows passes through (docs/configuration.md).
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
RACETRACK_STATE=$(realpath -m -- "${RACETRACK_STATE:-$top/.racetrack}")
state=$RACETRACK_STATE
bin=${RACETRACK_BIN:-$top/build/release/bin}
ready_timeout=${RACETRACK_READY_TIMEOUT:-60}
RACETRACK_PROFILE=${RACETRACK_PROFILE-dev}
services=(postgres image_builder lifecycle pub)
address=127.0.0.1

say() { printf '%s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# --- processes: a pid file holds "PID STARTTICKS", so that a reused pid is never taken for ours

start_ticks() { # PID -> field 22 of /proc/PID/stat; nothing when it is gone or a zombie
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    stat=${stat##*) }
    local fields
    read -r -a fields <<<"$stat"
    [ "${fields[0]}" != Z ] || return 1
    printf '%s' "${fields[19]}"
}
recorded_pid() { # SERVICE -> its pid while this very process lives
    local pid ticks
    read -r pid ticks 2>/dev/null <"$state/run/$1.pid" || return 1
    [[ $pid =~ ^[0-9]+$ ]] && [ "$(start_ticks "$pid")" = "$ticks" ] && printf '%s' "$pid"
}
is_running() { recorded_pid "$1" >/dev/null; }
record_pid() { # SERVICE PID
    local ticks
    ticks=$(start_ticks "$2") || return 1
    printf '%s %s\n' "$2" "$ticks" >"$state/run/$1.pid.new"
    mv "$state/run/$1.pid.new" "$state/run/$1.pid"
}
now_ms() {
    local now=${EPOCHREALTIME/[.,]/}
    printf '%s' "${now%???}"
}
pause() { # seconds; a wait between two looks, without a child process
    read -r -t "$1" <> <(:) || true
}
stop_process() { # SERVICE SIGNAL DEADLINE_S
    local pid deadline
    pid=$(recorded_pid "$1") || {
        rm -f "$state/run/$1.pid"
        return 0
    }
    kill -s "$2" "$pid" 2>/dev/null || true
    deadline=$(($(now_ms) + $3 * 1000))
    while is_running "$1"; do
        if [ "$(now_ms)" -gt "$deadline" ]; then
            say "$1 (pid $pid) did not end within $3 s: killed"
            kill -s KILL "$pid" 2>/dev/null || true
            deadline=$(($(now_ms) + 5000))
        fi
        pause 0.02
    done
    rm -f "$state/run/$1.pid"
}

# --- ports

port_setting() {
    case $1 in
    postgres) printf '%s' "${POSTGRES_PORT:-7232}" ;;
    image_builder) printf '%s' "${IMAGE_BUILDER_PORT:-7201}" ;;
    lifecycle) printf '%s' "${LIFECYCLE_PORT:-7202}" ;;
    pub) printf '%s' "${PUB_PORT:-7205}" ;;
    esac
}
port_variable() { # SERVICE -> LIFECYCLE_PORT
    local name=${1}_PORT
    printf '%s' "${name^^}"
}
port_listener() { # PORT -> inode of a listening TCP socket on it
    local hex
    hex=$(printf '%04X' "$1")
    awk -v port=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10; found = 1; exit } END { exit !found }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null
}
port_holder() { # PORT -> "NAME (pid PID)" of who listens there, as far as we may look
    local inode link pid
    inode=$(port_listener "$1") || return 1
    for link in /proc/[0-9]*/fd/*; do
        if [ "$(readlink "$link" 2>/dev/null)" = "socket:[$inode]" ]; then
            pid=${link#/proc/}
            pid=${pid%%/*}
            printf '%s (pid %s)' "$(cat "/proc/$pid/comm" 2>/dev/null)" "$pid"
            return 0
        fi
    done
    printf 'a process of another user'
}
free_port() { # below the ephemeral range, so that no outgoing connection takes it meanwhile
    local port try
    for try in {1..200}; do
        port=$((20000 + (RANDOM * 32768 + RANDOM + try) % 12000))
        if ! port_listener "$port" >/dev/null && [[ " ${ports[*]} " != *" $port "* ]]; then
            printf '%s' "$port"
            return 0
        fi
    done
    fail "no free port found between 20000 and 32000"
}
declare -A ports=()
# The port each service has or will have: as set; for 0 the recorded one, else a free one. lifecycle and pub need each other's
# address, so all are chosen before anything starts.
choose_ports() {
    local service port
    for service in "${services[@]}"; do
        port=$(port_setting "$service")
        if ! [[ $port =~ ^[0-9]{1,5}$ ]] || [ "$port" -gt 65535 ]; then
            fail "$(port_variable "$service") is no port: $port"
        fi
        if [ "$port" = 0 ]; then
            port=$(cat "$state/run/$service.port" 2>/dev/null || true)
            [[ $port =~ ^[1-9][0-9]*$ ]] || port=$(free_port)
            printf '%s\n' "$port" >"$state/run/$service.port"
        fi
        ports[$service]=$port
    done
}
forget_free_ports() { # of services whose setting is 0
    local service
    for service in "${services[@]}"; do
        [ "$(port_setting "$service")" != 0 ] || rm -f "$state/run/$service.port"
    done
    ports=()
}

# --- state folder, secrets, environment

prepare_state() {
    local folder
    mkdir -p "$state"
    [ -e "$state/.racetrack-state" ] || {
        [ -z "$(ls -A "$state")" ] || [ -e "$state/run" ] ||
            fail "RACETRACK_STATE=$state holds something else; name an empty or new folder"
        printf 'State of a local Racetrack (utils/local.sh); removed by "make clean".\n' >"$state/.racetrack-state"
    }
    for folder in run log; do mkdir -p "$state/$folder"; done
    local free_kb
    free_kb=$(df -Pk "$state" | awk 'NR == 2 { print $4 }')
    [ "${free_kb:-0}" -ge 102400 ] || say "warning: only $((free_kb / 1024)) MiB are free below $state" >&2
}
random_hex() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
secret() { # NAME: the value kept in secrets.env, made at first use
    local file=$state/secrets.env value
    value=$(sed -n "s/^$1=//p" "$file" 2>/dev/null | tail -n 1)
    if [ -z "$value" ]; then
        value=${2:-$(random_hex 24)}
        (umask 077 && printf '%s=%s\n' "$1" "$value" >>"$file")
        chmod 600 "$file"
    fi
    printf '%s' "$value"
}
load_environment() { # exports what every service gets
    [ "${#ports[@]}" -gt 0 ] || choose_ports
    export RACETRACK_STATE RACETRACK_PROFILE
    export LIFECYCLE_ADDR=${LIFECYCLE_ADDR:-$address} LIFECYCLE_PORT=${ports[lifecycle]}
    export IMAGE_BUILDER_ADDR=${IMAGE_BUILDER_ADDR:-$address} IMAGE_BUILDER_PORT=${ports[image_builder]}
    export PUB_ADDR=${PUB_ADDR:-$address} PUB_PORT=${ports[pub]}
    # A LIFECYCLE_URL in the caller's environment would name another installation: all addresses follow from the ports.
    export LIFECYCLE_URL=http://$address:${ports[lifecycle]}/lifecycle
    export IMAGE_BUILDER_URL=http://$address:${ports[image_builder]}
    export EXTERNAL_PUB_URL=http://$address:${ports[pub]}/pub INTERNAL_PUB_URL=http://$address:${ports[pub]}/pub
    export EXTERNAL_LIFECYCLE_URL=$LIFECYCLE_URL
    export DOCKER_REGISTRY=${DOCKER_REGISTRY:-$address:${ports[image_builder]}}
    export POSTGRES_HOST=$socket_dir POSTGRES_PORT=${ports[postgres]} POSTGRES_USER=racetrack POSTGRES_DB=racetrack
    export POSTGRES_SCHEMA=${POSTGRES_SCHEMA:-racetrack}
    POSTGRES_PASSWORD=$(secret POSTGRES_PASSWORD)
    if [ "$RACETRACK_PROFILE" != dev ]; then
        AUTH_KEY=${AUTH_KEY:-$(secret AUTH_KEY)} SECRET_KEY=${SECRET_KEY:-$(secret SECRET_KEY)}
    fi
    export -n AUTH_KEY SECRET_KEY POSTGRES_PASSWORD
}
lifecycle_secrets() { # exports them: the keys and the database's password are lifecycle's alone
    export POSTGRES_PASSWORD
    [ -z "${AUTH_KEY:-}" ] || export AUTH_KEY
    if [ -n "${SECRET_KEY:-}" ]; then export SECRET_KEY; fi
}
service_secrets() { # SERVICE: exports what only it gets
    if [ "$1" = lifecycle ]; then
        lifecycle_secrets
    elif [ "$1" = image_builder ] && [ "$RACETRACK_PROFILE" != dev ]; then
        LIFECYCLE_PUBLIC_KEY=$(lifecycle_secrets && "$bin/lifecycle" public-key --short) || fail "lifecycle public-key failed"
        export LIFECYCLE_PUBLIC_KEY
    fi
    LIFECYCLE_AUTH_TOKEN=$(service_token "$1")
    [ -z "$LIFECYCLE_AUTH_TOKEN" ] || export LIFECYCLE_AUTH_TOKEN
}
service_token() { # SERVICE: outside the dev profile, an internal token signed with our own key
    [ "$RACETRACK_PROFILE" != dev ] || return 0
    local name=TOKEN_${1^^} token
    token=$(sed -n "s/^$name=//p" "$state/secrets.env" 2>/dev/null | tail -n 1)
    if [ -z "$token" ]; then
        token=$(lifecycle_secrets && "$bin/lifecycle" generate-auth "${1/_/-}" --short) || fail "lifecycle generate-auth ${1/_/-} failed"
        token=$(secret "$name" "$token")
    fi
    printf '%s' "$token"
}
need_program() {
    [ -x "$bin/$1" ] || fail "$bin/$1 is not built: type make"
}

# --- Postgres

# A unix socket's path has at most 107 bytes; deep state folders get a short folder under /tmp instead.
socket_dir=$state/run/postgres
if [ "$((${#socket_dir} + 16))" -gt 100 ]; then
    socket_dir=/tmp/racetrack-$(id -u)-$(printf '%s' "$state" | sha256sum | cut -c1-12)
fi
pg_bin() { # folder of the newest Postgres server installed
    local folder
    folder=$(for folder in /usr/lib/postgresql/*/bin; do [ -x "$folder/initdb" ] && printf '%s\n' "$folder"; done | sort -V | tail -n 1)
    [ -n "$folder" ] || folder=$(dirname "$(command -v initdb 2>/dev/null || true)" 2>/dev/null)
    [ -x "$folder/postgres" ] || fail "Postgres is not installed: type make setup"
    printf '%s' "$folder"
}
# Postgres refuses to run as root: then it runs as user postgres. Where that user may not pass a folder above the state (a checkout
# below /root), it gets the one capability that lets it pass; it is not given when the folders are open.
as_postgres=()
may_enter() { # really enters: access(2) would not count capabilities
    # shellcheck disable=SC2016 # expanded by the inner shell
    (cd / && "${as_postgres[@]}" sh -c 'cd -- "$1"' sh "$1") 2>/dev/null
}
choose_postgres_user() {
    [ "$(id -u)" = 0 ] || return 0
    local user=postgres capability
    id "$user" >/dev/null 2>&1 || fail "there is no user postgres to run the database as: type make setup"
    chown "$user:" "$state/postgres"
    as_postgres=(setpriv --reuid="$user" --regid="$(id -gn "$user")" --init-groups --)
    ! may_enter "$state/postgres" || return 0
    for capability in dac_read_search dac_override; do
        as_postgres=(setpriv --reuid="$user" --regid="$(id -gn "$user")" --init-groups
            --inh-caps="+$capability" --ambient-caps="+$capability" --)
        ! may_enter "$state/postgres" || return 0
    done
    fail "user $user, which runs the database, may not enter $state: name a state folder that it can reach, for instance
  RACETRACK_STATE=/var/lib/racetrack make up"
}
init_postgres() {
    local pg data=$state/postgres
    pg=$(pg_bin)
    [ ! -e "$data/racetrack-ready" ] || return 0
    say "postgres: making a new cluster in $data"
    rm -rf "${data:?}"/* # what an interrupted attempt left
    (cd / && "${as_postgres[@]}" "$pg/initdb" -D "$data" --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
        --no-instructions) >"$state/log/postgres-init.log" 2>&1 || fail "initdb failed: $(tail -n 5 "$state/log/postgres-init.log")"
    # Before its first start: every connection needs a password, and the superuser has none, so nobody connects as superuser.
    printf '%s\n' 'local all all scram-sha-256' 'host all all 127.0.0.1/32 scram-sha-256' 'host all all ::1/128 scram-sha-256' >"$data/pg_hba.conf"
    # The role that lifecycle uses owns its database and nothing else.
    # Single-user mode ends well even when a statement failed, so its output is looked at.
    printf '%s\n' "create role racetrack login password '$POSTGRES_PASSWORD'" "create database racetrack owner racetrack" |
        (cd / && "${as_postgres[@]}" "$pg/postgres" --single -D "$data" postgres) >>"$state/log/postgres-init.log" 2>&1 ||
        fail "setting up the database failed: $(tail -n 5 "$state/log/postgres-init.log")"
    ! grep -E 'ERROR|FATAL|PANIC' "$state/log/postgres-init.log" >&2 || fail "setting up the database failed"
    (cd / && "${as_postgres[@]}" touch "$data/racetrack-ready")
}
postgres_accepts() { "$(pg_bin)/pg_isready" -q -h "$socket_dir" -p "${ports[postgres]}" -t 2; }
# After kill -9 the lock file stays. Postgres itself recognises that, unless its pid was given to another process meanwhile.
drop_stale_lock() {
    local data=$state/postgres pid
    pid=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) || return 0
    [[ $pid =~ ^[0-9]+$ ]] || return 0
    if [ "$(readlink "/proc/$pid/cwd" 2>/dev/null)" != "$data" ]; then
        rm -f "$data/postmaster.pid" "$socket_dir/.s.PGSQL.${ports[postgres]}"{,.lock}
    fi
}
start_postgres() {
    local pg data=$state/postgres pid try
    pg=$(pg_bin)
    mkdir -p "$data"
    chmod 700 "$data"
    [ "$(id -u)" != 0 ] || chmod a+x "$state" "$state/run"
    choose_postgres_user
    init_postgres
    [ -d "$socket_dir" ] || mkdir -m 0711 "$socket_dir"
    [ -O "$socket_dir" ] || [ "$(id -u)" = 0 ] || fail "$socket_dir belongs to somebody else"
    [ "$(id -u)" != 0 ] || chown postgres: "$socket_dir"
    for try in {1..50}; do
        drop_stale_lock
        rotate_log postgres
        (
            cd /
            exec setsid "${as_postgres[@]}" "$pg/postgres" -D "$data" -k "$socket_dir" -p "${ports[postgres]}" \
                -c listen_addresses="$address,::1" -c fsync=on -c max_connections=60 -c shared_buffers=32MB \
                -c log_line_prefix='[%m] %p %q%u@%d ' -c unix_socket_permissions=0777 \
                </dev/null >>"$state/log/postgres.log" 2>&1 9>&-
        ) &
        pid=$!
        record_pid postgres "$pid" || true
        if wait_until_ready postgres "$pid" postgres_accepts; then
            printf '%s\n' "${ports[postgres]}" >"$state/run/postgres.port"
            return 0
        fi
        # The backends of a killed server hold its memory for a moment.
        if ! is_running postgres && tail -n 3 "$state/log/postgres.log" | grep -q 'shared memory block'; then
            pause 0.1
            continue
        fi
        return 1
    done
    return 1
}

# --- services

rotate_log() { # one old log is kept
    local log=$state/log/$1.log
    if [ "$(stat -c %s "$log" 2>/dev/null || echo 0)" -gt 67108864 ]; then
        mv -f "$log" "$log.1"
    fi
}
http_status() { # PORT PATH -> status of a GET
    local line
    (
        exec 3<>"/dev/tcp/$address/$1" || exit 1
        printf 'GET %s HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n' "$2" "$address" "$1" >&3
        read -r -t 3 _ line _ <&3 && printf '%s' "$line"
    ) 2>/dev/null
}
service_ready() { [ "$(http_status "${ports[$1]}" /ready)" = 200 ]; }
wait_until_ready() { # SERVICE PID CHECK [ARGUMENT]: 1 when it ended or the time is up
    local service=$1 pid=$2 deadline
    shift 2
    deadline=$(($(now_ms) + ready_timeout * 1000))
    while ! "$@"; do
        [ "$(now_ms)" -lt "$deadline" ] && start_ticks "$pid" >/dev/null || return 1
        pause 0.02
    done
    # Somebody else may answer on that port: it counts only while our process lives.
    start_ticks "$pid" >/dev/null && is_running "$service"
}
start_service() {
    local service=$1 pid
    need_program "$service"
    rotate_log "$service"
    (
        cd "$state"
        service_secrets "$service"
        ulimit -S -n "$(ulimit -H -n)" 2>/dev/null || true
        exec setsid "$bin/$service" </dev/null >>"$state/log/$service.log" 2>&1 9>&-
    ) &
    pid=$!
    record_pid "$service" "$pid" || true
}
explain_failure() { # SERVICE: why it is not there, and what to do
    local service=$1 port=${ports[$1]} holder
    {
        if is_running "$service"; then
            say "error: $service did not become ready within $ready_timeout s. Its last log lines ($state/log/$service.log):"
        else
            say "error: $service ended while starting. Its last log lines ($state/log/$service.log):"
        fi
        tail -n 15 "$state/log/$service.log" 2>/dev/null | sed 's/^/  | /'
        if ! is_running "$service" && holder=$(port_holder "$port"); then
            say "Port $port is taken by $holder. Stop that, or choose another port: $(port_variable "$service")=0 takes a free one:"
            say "  $(port_variable "$service")=0 make up"
        fi
    } >&2
}
port_was_taken() { ! is_running "$1" && [ "$(port_setting "$1")" = 0 ] && port_listener "${ports[$1]}" >/dev/null; }

start_missing() { # SERVICE...: 0; 1 failed (explained); 2 a freely chosen port was taken meanwhile
    local service started=()
    load_environment
    for service in "$@"; do
        if is_running "$service" && [ "$(cat "$state/run/$service.port" 2>/dev/null)" != "${ports[$service]}" ]; then
            say "$service: port changed, restarting"
            stop_service "$service"
        fi
        ! is_running "$service" || continue
        if [ "$service" = postgres ]; then
            start_postgres || {
                ! port_was_taken postgres || return 2
                explain_failure postgres
                return 1
            }
            say "postgres       ready at $address:${ports[postgres]}"
        else
            if port_listener "${ports[$service]}" >/dev/null; then
                [ "$(port_setting "$service")" != 0 ] || return 2
                fail "port ${ports[$service]}, which $service wants, is taken by $(port_holder "${ports[$service]}").
Stop that, or choose another port: $(port_variable "$service")=0 takes a free one:
  $(port_variable "$service")=0 make up"
            fi
            start_service "$service"
            started+=("$service")
        fi
    done
    for service in "${started[@]}"; do
        wait_until_ready "$service" "$(recorded_pid "$service" || echo 0)" service_ready "$service" || {
            ! port_was_taken "$service" || return 2
            explain_failure "$service"
            return 1
        }
        printf '%s\n' "${ports[$service]}" >"$state/run/$service.port"
        say "$(printf '%-14s ready at http://%s:%s' "$service" "$address" "${ports[$service]}")"
    done
    # One that became ready may have died since.
    for service in "$@"; do
        is_running "$service" || {
            explain_failure "$service"
            return 1
        }
    done
}
stop_service() {
    case $1 in
    postgres) stop_process postgres INT 30 ;;
    *) stop_process "$1" TERM 10 ;;
    esac
}

# --- commands

check_names() {
    local name
    for name in "$@"; do
        [[ " ${services[*]} " == *" $name "* ]] || fail "there is no service $name; there are ${services[*]}"
    done
}
lock_state() {
    exec 9>"$state/run/lock"
    flock -w 120 9 || fail "another utils/local.sh works on $state"
}
up() {
    check_names "$@"
    [ "$#" -gt 0 ] || set -- "${services[@]}"
    prepare_state
    lock_state
    choose_ports
    local service all=1 try result
    for service in "$@"; do
        is_running "$service" && [ "$(cat "$state/run/$service.port" 2>/dev/null)" = "${ports[$service]}" ] || all=0
    done
    if [ "$all" = 1 ]; then
        say "all running: make status tells where"
        return 0
    fi
    for try in {1..5}; do
        result=0
        start_missing "$@" || result=$?
        if [ "$result" != 2 ] || [ "$try" = 5 ]; then break; fi
        for service in pub lifecycle image_builder postgres; do stop_service "$service"; done
        forget_free_ports
    done
    return "$result"
}
stop_jobs() {
    [ -d "$state/jobs" ] || return 0
    if [ -x "$bin/lifecycle" ]; then
        choose_ports
        (load_environment && lifecycle_secrets && cd "$state" && exec "$bin/lifecycle" stop-jobs) </dev/null >>"$state/log/lifecycle.log" 2>&1 9>&- || {
            say "error: stopping the jobs failed; the last log lines:" >&2
            tail -n 5 "$state/log/lifecycle.log" | sed 's/^/  | /' >&2
            return 1
        }
    elif [ -n "$(ls -A "$state/jobs")" ]; then
        say "error: $bin/lifecycle is not built, so the jobs below $state/jobs cannot be stopped: type make, then try again" >&2
        return 1
    fi
}
down() {
    [ -d "$state/run" ] || {
        say "nothing runs below $state"
        return 0
    }
    lock_state
    local service result=0 stopped=()
    for service in pub lifecycle; do
        ! is_running "$service" || stopped+=("$service")
        stop_service "$service"
    done
    stop_jobs || result=1
    for service in image_builder postgres; do
        ! is_running "$service" || stopped+=("$service")
        stop_service "$service"
    done
    if [ "${#stopped[@]}" -gt 0 ]; then say "stopped: ${stopped[*]}"; else say "nothing was running"; fi
    return "$result"
}
rss_kb() { # of a process and its children
    local pid=$1 child total children
    total=$(awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status" 2>/dev/null)
    read -r -a children <"/proc/$pid/task/$pid/children" 2>/dev/null || true
    for child in "${children[@]}"; do
        total=$((${total:-0} + $(awk '/^RssAnon:/ { print $2 }' "/proc/$child/status" 2>/dev/null || echo 0)))
    done
    printf '%s' "${total:-0}"
}
status() {
    local service pid since result=0 running=0
    printf '%-14s %-8s %8s  %-19s %9s  %s\n' SERVICE STATE PID SINCE MEMORY ADDRESS
    for service in "${services[@]}"; do
        if pid=$(recorded_pid "$service"); then
            running=$((running + 1))
            since=$(stat -c %Y "/proc/$pid" 2>/dev/null || echo 0)
            local port scheme='http://' health=running
            port=$(cat "$state/run/$service.port" 2>/dev/null || echo '?')
            if [ "$service" = postgres ]; then
                scheme=''
            elif [ "$(http_status "$port" /ready)" != 200 ]; then
                health=unready
                result=1
            fi
            printf '%-14s %-8s %8s  %-19s %5s MiB  %s\n' "$service" "$health" "$pid" "$(date -d "@$since" '+%F %T')" \
                "$((($(rss_kb "$pid") + 512) / 1024))" "$scheme$address:$port"
        else
            printf '%-14s %-8s\n' "$service" stopped
            result=1
        fi
    done
    printf 'state: %s\n' "$state"
    [ "$running" != 0 ] || say "start: make up"
    return "$result"
}
logs() {
    local follow=0 files=() service
    while [ "$#" -gt 0 ]; do
        case $1 in
        -f | --follow) follow=1 ;;
        *)
            check_names "$1"
            files+=("$state/log/$1.log")
            ;;
        esac
        shift
    done
    [ "${#files[@]}" -gt 0 ] || for service in "${services[@]}"; do files+=("$state/log/$service.log"); done
    local file existing=()
    for file in "${files[@]}"; do [ ! -e "$file" ] || existing+=("$file"); done
    [ "${#existing[@]}" -gt 0 ] || fail "no logs yet below $state/log"
    if [ "$follow" = 1 ]; then exec tail -n 20 -F "${existing[@]}"; fi
    tail -n "${lines:-40}" "${existing[@]}"
}
run_foreground() {
    [ "$#" = 1 ] || fail "usage: utils/local.sh run SERVICE"
    check_names "$1"
    [ "$1" != postgres ] || fail "Postgres runs in the background: utils/local.sh up postgres"
    prepare_state
    ! is_running "$1" || fail "$1 runs in the background already (pid $(recorded_pid "$1")); stop that one first: utils/local.sh stop $1"
    need_program "$1"
    if [ "$1" = lifecycle ]; then up postgres; else choose_ports; fi
    load_environment
    local holder
    if holder=$(port_holder "${ports[$1]}"); then
        fail "port ${ports[$1]} is taken by $holder; $(port_variable "$1")=0 takes a free one"
    fi
    say "$1 at http://$address:${ports[$1]}; Ctrl-C ends it"
    service_secrets "$1"
    exec 9>&-
    cd "$state"
    exec "$bin/$1"
}
print_environment() {
    prepare_state
    load_environment
    local name
    for name in RACETRACK_STATE RACETRACK_PROFILE AUTH_KEY SECRET_KEY LIFECYCLE_URL LIFECYCLE_PORT IMAGE_BUILDER_URL \
        IMAGE_BUILDER_PORT EXTERNAL_PUB_URL PUB_PORT POSTGRES_HOST POSTGRES_PORT POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB; do
        [ -z "${!name+set}" ] || printf 'export %s=%q\n' "$name" "${!name}"
    done
}
clean() {
    if [ -e "$state" ]; then
        [ -e "$state/.racetrack-state" ] || fail "$state was not made by utils/local.sh; not removed"
        down
        [[ $socket_dir != /tmp/* ]] || rm -rf "$socket_dir"
        rm -rf "$state"
        say "removed $state"
    fi
}

command=${1:-}
[ "$#" = 0 ] || shift
case $command in
up) up "$@" ;;
down) down ;;
stop)
    check_names "$@"
    for service in "$@"; do stop_service "$service"; done
    ;;
status) status ;;
logs) logs "$@" ;;
run) run_foreground "$@" ;;
env) print_environment ;;
clean) clean ;;
*)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
