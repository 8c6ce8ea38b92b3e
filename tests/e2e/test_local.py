"""utils/local.sh: Postgres and the services on this machine, below one state folder."""

import os
import shlex
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from harness import SERVICES, TOP, Cli, clean_environment, free_port, process_alive, wait_for


def pids(platform):
    return {s: platform.pid(s) for s in SERVICES}


def test_second_up_changes_nothing(platform):
    before = pids(platform)
    done = platform.up()
    assert "all running" in done.stdout
    assert pids(platform) == before


def test_up_restarts_only_what_died(platform):
    before = pids(platform)
    platform.kill("pub")
    status = platform.local("status", check=False)
    assert status.returncode == 1
    assert [line.split()[:2] for line in status.stdout.splitlines() if line.startswith("pub")] == [["pub", "stopped"]]
    platform.up()
    after = pids(platform)
    assert after.pop("pub") != before.pop("pub")
    assert after == before
    assert platform.pub.get("/ready").status_code == 200


def test_status_says_where_and_since_when(platform):
    lines = platform.local("status").stdout.splitlines()
    for service in SERVICES:
        (line,) = [line for line in lines if line.startswith(service)]
        assert " running " in line and f"127.0.0.1:{platform.port(service)}" in line and "MiB" in line


def test_services_have_a_session_of_their_own(platform):
    """So that they go on when the terminal closes."""
    for service in SERVICES:
        assert os.getsid(platform.pid(service)) == platform.pid(service)


def test_logs_shows_one_service(platform):
    text = platform.local("logs", "pub").stdout
    assert text.strip()
    done = platform.local("logs", "nonsense", check=False)
    assert done.returncode == 1 and "there are postgres image_builder lifecycle pub" in done.stderr


def test_files_with_secrets_are_private(platform):
    for path in platform.state.rglob("*"):
        if path.name in ("secrets.env", "admin-password"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_only_loopback_is_listened_on(platform):
    for service in SERVICES:
        with socket.socket() as s:
            s.settimeout(3)
            # Another loopback address of this machine: a wildcard listener would answer there.
            with pytest.raises(ConnectionRefusedError):
                s.connect(("127.0.0.2", platform.port(service)))


def test_down_stops_this_set_and_nothing_else(platform, own_platform):
    before = pids(platform)
    other = own_platform()
    other.up()
    stopped = pids(other)
    done = other.local("down")
    assert set(done.stdout.split(": ", 1)[1].split()) == set(SERVICES)
    assert not any(process_alive(p) for p in stopped.values())
    assert pids(platform) == before and all(process_alive(p) for p in before.values())
    assert "nothing was running" in other.local("down").stdout


def test_jobs_end_with_down_and_come_back_with_up(own_platform, make_job, tmp_path):
    platform = own_platform()
    platform.up()
    cli = Cli(tmp_path / "home")
    cli("login", platform.remote, platform.token)
    folder, name = make_job()
    cli("deploy", folder, platform.remote)
    host, port = platform.lifecycle.get(f"/api/v1/job/{name}/0.0.1").json()["internal_name"].split(":")
    with socket.create_connection((host, int(port)), timeout=3):
        pass
    platform.local("down")
    with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port)), timeout=3):
        pass
    platform.up()
    wait_for(lambda: platform.call(name, {"numbers": [40, 2]}).json() == 42, 30, "the job answers again")


def test_generated_secrets_without_the_dev_profile(own_platform, make_job, tmp_path):
    platform = own_platform(RACETRACK_PROFILE="")
    platform.up()
    settings = platform.settings()
    assert len(settings["AUTH_KEY"]) >= 32 and len(settings["SECRET_KEY"]) >= 32
    assert platform.lifecycle.get("/api/v1/job").status_code == 401, "the public dev token must not count here"
    password = (platform.state / "admin-password").read_text().strip()
    body = {"username": "admin", "password": password}
    login = platform.lifecycle.post("/api/v1/users/login", json=body, token=None)
    assert login.status_code == 200, login.text
    assert platform.lifecycle.get("/api/v1/job", token=login.json()["token"]).status_code == 200
    logs = "".join(platform.log(s) for s in SERVICES)
    secrets = [settings[name] for name in ("AUTH_KEY", "SECRET_KEY", "POSTGRES_PASSWORD")]
    assert not [s for s in (password, *secrets) if s in logs]
    for service in ("image_builder", "pub", "lifecycle"):
        environ = Path(f"/proc/{platform.pid(service)}/environ").read_text()
        assert [s in environ for s in secrets] == [service == "lifecycle"] * 3, f"who holds secrets: {service}"
    cli = Cli(tmp_path / "home")
    cli("login", platform.remote, login.json()["token"])
    folder, name = make_job()
    cli("deploy", folder, platform.remote)
    assert platform.call(name, {"numbers": [40, 2]}, token=login.json()["token"]).json() == 42


def test_a_taken_port_is_explained(own_platform):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        platform = own_platform(LIFECYCLE_PORT=s.getsockname()[1])
        done = platform.up(check=False)
    assert done.returncode == 1
    assert f"(pid {os.getpid()})" in done.stderr, "who has the port"
    assert "LIFECYCLE_PORT=0 make up" in done.stderr, "what to do"


def test_a_reused_pid_is_never_killed(own_platform):
    platform = own_platform()
    platform.up("postgres")
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            (platform.state / "run/pub.pid").write_text(f"{bystander.pid} 1\n")
            platform.local("down")
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_postgres_recovers_from_sigkill(own_platform):
    platform = own_platform()
    platform.up("postgres")
    platform.sql("create schema if not exists racetrack")
    platform.sql("create table racetrack.kept as select 42 as answer")
    platform.kill("postgres")
    platform.up("postgres")
    assert platform.sql("select answer from racetrack.kept") == [["42"]]
    assert platform.sql("show fsync") == [["on"]]


def test_postgres_starts_when_its_old_pid_belongs_to_another(own_platform):
    platform = own_platform()
    platform.up("postgres")
    platform.kill("postgres")
    lock = platform.state / "postgres/postmaster.pid"
    with subprocess.Popen(["sleep", "600"]) as bystander:
        try:
            lock.write_text("\n".join([str(bystander.pid), *lock.read_text().splitlines()[1:]]) + "\n")
            platform.up("postgres")
            assert bystander.poll() is None
        finally:
            bystander.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="as another user, Postgres runs as that user")
def test_state_where_the_database_user_may_not_pass(own_platform):
    """A checkout below /root."""
    platform = own_platform()
    closed = platform.folder / "closed"
    closed.mkdir(mode=0o700)
    platform.state = closed / "state"
    platform.env["RACETRACK_STATE"] = str(platform.state)
    platform.up("postgres")
    uid = Path(f"/proc/{platform.pid('postgres')}").stat().st_uid
    assert uid != 0
    assert platform.sql("select 1") == [["1"]]


def test_a_deep_state_folder(own_platform):
    """A unix socket's path has at most 107 bytes."""
    platform = own_platform()
    platform.state = platform.folder / ("deep-" * 10) / ("folder-" * 10) / "state"
    platform.env["RACETRACK_STATE"] = str(platform.state)
    platform.up("postgres")
    host = Path(platform.settings()["POSTGRES_HOST"])
    assert platform.sql("select 1") == [["1"]]
    platform.local("clean")
    assert not host.exists() and not platform.state.exists()


def test_a_folder_that_holds_something_else_is_left_alone(own_platform):
    platform = own_platform()
    platform.state.mkdir()
    (platform.state / "thesis.txt").write_text("precious")
    for command in ("up", "clean"):
        done = platform.local(command, check=False)
        assert done.returncode == 1
        assert (platform.state / "thesis.txt").read_text() == "precious"
    (platform.state / "thesis.txt").unlink()
    platform.state.rmdir()


def test_run_in_the_foreground(own_platform):
    """`cd lifecycle && make run`: Postgres comes by itself, Ctrl-C ends it."""
    platform = own_platform(LIFECYCLE_PORT=free_port())
    with subprocess.Popen(
        [TOP / "utils/local.sh", "run", "lifecycle"],
        env=platform.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:
        wait_for(lambda: platform.lifecycle.get("/ready").status_code == 200, 30, "lifecycle ready")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert process_alive(platform.pid("postgres"))


def test_two_at_once_do_not_disturb_each_other(own_platform):
    platforms = [own_platform(), own_platform()]
    starts = [
        subprocess.Popen([TOP / "utils/local.sh", "up"], env=p.env,
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for p in platforms
    ]
    for start in starts:
        output, _ = start.communicate(timeout=120)
        assert start.returncode == 0, output
    for p in platforms:
        assert p.lifecycle.get("/ready").status_code == 200


def test_activating_puts_the_programs_on_the_path(tmp_path):
    subprocess.run([TOP / "utils/venv.sh"], check=True)
    script = (
        f". {shlex.quote(str(TOP))}/venv/bin/activate && . {shlex.quote(str(TOP))}/venv/bin/activate && command -v racetrack job_wrapper "
        'fatman_wrapper image_builder && before=$PATH && deactivate && test "$PATH" = "$ORIGINAL" && echo gone'
    )
    env = {**os.environ, "ORIGINAL": os.environ["PATH"]}
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    *paths, gone = done.stdout.split()
    assert [p.rpartition("/")[2] for p in paths] == ["racetrack", "job_wrapper", "fatman_wrapper", "image_builder"] and gone == "gone"


def test_administration_is_found(platform):
    answer = platform.lifecycle.get("/admin", allow_redirects=True)
    assert answer.status_code == 200 and answer.url.endswith("/lifecycle/docs")


@pytest.mark.parametrize("component, says", [("client", "racetrack COMMAND")])
def test_run_in_a_folder_without_a_service_says_what_to_do(component, says):
    done = subprocess.run(["make", "-s", "run"], cwd=TOP / component, env=clean_environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and says in done.stdout, done.stderr
