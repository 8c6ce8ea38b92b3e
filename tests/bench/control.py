"""The control plane: questions of the original's gateway, the list of many jobs, a caller's first call.

can-call-job is compared with pgbench running the statements that one such question was seen to send (read from the server's log), on
the same server in the same run.
"""

import re
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import requests

from harness import Cli, Platform, copy_sample, wait_for

CONNECTIONS = 16
SECONDS = 4
JOBS = 10_000


def log_statements(platform, value):
    """Tells the server, which takes no administrator's connection, by its file and a signal."""
    with (platform.state / "postgres/postgresql.auto.conf").open("a") as conf:
        conf.write(f"log_statement = '{value}'\n")
    platform.kill("postgres", signal.SIGHUP)
    wait_for(lambda: platform.sql("show log_statement") == [[value]], 5, "the server has read its settings")


def resident_kb(platform, service):
    status = Path(f"/proc/{platform.pid(service)}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def wrk(url, token):
    done = subprocess.run(["wrk", "-t2", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-H", f"X-Racetrack-Auth: {token}", url],
                          check=True, capture_output=True, text=True)
    assert "Non-2xx" not in done.stdout, done.stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])


def statements_of(platform, url, token):
    """The SQL of one question, with its parameters in place."""
    log = platform.state / "log/postgres.log"
    log_statements(platform, "all")
    at = log.stat().st_size
    mark = "bench-question"
    assert requests.get(url.replace("/perform", f"/{mark}"), headers={"X-Racetrack-Auth": token}).status_code == 200
    wait_for(lambda: b"registry_authtoken" in log.read_bytes()[at:], 5, "the statements are in the server's log")
    text = log.read_bytes()[at:].decode()
    log_statements(platform, "none")
    found = []
    for sql, parameters in re.findall(r"LOG:  execute \S+: (.*?)\n[^\n]*DETAIL:  parameters: ([^\n]*)", text, re.S):
        if "bench-adder" not in parameters and token not in parameters:
            continue
        values = dict(re.findall(r"(\$\d+) = ('(?:[^']|'')*'|NULL)", parameters))
        found.append(re.sub(r"\$\d+", lambda m: f"({values[m[0]]})", sql.replace("\n", " ")))
    assert found, text
    return found


def pgbench(platform, statements):
    s = platform.settings()
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write("".join(f"{one};\n" for one in statements))
        script.flush()
        done = subprocess.run([next(Path("/usr/lib/postgresql").glob("*/bin/pgbench")), "-n", "-M", "prepared", "-c", str(CONNECTIONS), "-j2",
                               f"-T{SECONDS}", "-f", script.name, "-h", s["POSTGRES_HOST"], "-p", s["POSTGRES_PORT"],
                               "-U", s["POSTGRES_USER"], s["POSTGRES_DB"]],
                              env={**platform.env, "PGPASSWORD": s["POSTGRES_PASSWORD"], "PGOPTIONS": "-c search_path=racetrack"},
                              check=True, capture_output=True, text=True)
    return float(re.search(r"tps = ([\d.]+)", done.stdout)[1])


def row(what, measured, goal, unit="ms"):
    print(f"{what:60} {measured:9.1f} {unit:4} goal {goal:7.1f}  {'within' if measured <= goal else 'OVER'}")


def questions(platform):
    token = platform.token
    for version in ("0.0.1", "latest"):
        url = f"{platform.url('lifecycle')}/lifecycle/api/v1/auth/can-call-job/bench-adder/{version}/api/v1/perform"
        wrk(url, token)
        statements = statements_of(platform, url, token)
        ours, peer = wrk(url, token), pgbench(platform, statements)
        print(f"can-call-job {version:8} {CONNECTIONS} connections {ours:10.0f} /s  goal 8000  pgbench, the same {len(statements)} statements: "
              f"{peer:.0f} /s, ratio {ours / peer:.2f}")


def list_of_jobs(platform):
    columns = [r[0] for r in platform.sql("select column_name from information_schema.columns where table_schema = 'racetrack' and "
                                          "table_name = 'registry_job' and is_generated = 'NEVER' order by ordinal_position")]
    changed = {"id": "gen_random_uuid()::text", "version": "'1.0.' || n", "current_generation_id": "null", "generation_id": "null"}
    platform.sql(f"insert into registry_job ({', '.join(columns)}) select {', '.join(changed.get(c, c) for c in columns)} from registry_job, "
                 f"generate_series(1, {JOBS}) n where name = 'bench-adder'")
    before = resident_kb(platform, "lifecycle")
    times = []
    for _ in range(5):
        begin = time.monotonic()
        answer = platform.lifecycle.get("/api/v1/job")
        times.append(time.monotonic() - begin)
        assert answer.status_code == 200
    assert len(answer.json()) > JOBS
    grown = (resident_kb(platform, "lifecycle") - before) / 1024
    row(f"list of {JOBS} jobs ({len(answer.content) >> 20} MiB)", statistics.median(times) * 1000, 100)
    row("  lifecycle's resident memory, more than before", grown, 4, "MiB")
    platform.sql("delete from registry_job where version like '1.0.%'")


def first_calls(platform):
    """A caller's first call beside a later one, both after the same pause."""
    url = platform.url("pub") + "/pub/job/bench-adder/latest/api/v1/perform"
    first, later = [], []

    def call(session, token):
        begin = time.monotonic()
        assert session.post(url, json={"numbers": [40, 2]}, headers={"X-Racetrack-Auth": token}).status_code == 200
        return time.monotonic() - begin

    for n in range(20):
        esc = platform.lifecycle.post("/api/v1/escs", json={"name": f"bench-{n}"}).json()
        assert platform.lifecycle.post(f"/api/v1/auth/allow/esc/{esc['id']}/job/bench-adder/scope/call_job").status_code < 300
        token = platform.lifecycle.get(f"/api/v1/escs/{esc['id']}/auth_data").json()["tokens"][0]["token"]
        session = requests.Session()
        session.get(platform.url("pub") + "/pub/live")
        time.sleep(0.2)  # the gateway has been told
        first.append(call(session, token))
        for _ in range(50):
            call(session, token)
        time.sleep(0.2)
        later.append(call(session, token))
    first_ms, later_ms = (statistics.median(times) * 1000 for times in (first, later))
    print(f"a caller's first call through pub {first_ms:6.2f} ms, the 51st {later_ms:6.2f} ms, ratio {first_ms / later_ms:.2f}")


def main():
    platform = Platform()
    try:
        platform.up()
        with tempfile.TemporaryDirectory() as home:
            cli = Cli(Path(home))
            cli("set", "alias", "dev", platform.remote)
            cli("login", "dev", platform.token)
            folder = copy_sample("python-class", Path(home) / "job", name="bench-adder", version="0.0.1")
            cli("deploy", folder, "dev")
            questions(platform)
            first_calls(platform)
            list_of_jobs(platform)
    finally:
        platform.close()


if __name__ == "__main__":
    main()
