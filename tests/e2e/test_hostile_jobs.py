"""Jobs that mean harm, or mean well and run wild: what they reach, and what their neighbours notice."""

import contextlib
import os
import socket
import threading
import time

import pytest
import requests
import yaml

from harness import Cli, Platform, copy_sample, fresh_name, wait_for

ADDER = {"numbers": [40, 2]}
NO_PRIVILEGES = {"CapEff": "0" * 16, "CapPrm": "0" * 16, "CapAmb": "0" * 16, "NoNewPrivs": "1"}
HOSTILE = '''
import ctypes, os, signal, socket, subprocess, sys, time


class AdderModel:
    kept = []

    def perform(self, what: str, **arguments):
        return getattr(self, what)(**arguments)

    def reach(self, host: str, port: int):
        """What a connection to there meets."""
        try:
            with socket.create_connection((host, port), timeout=1) as s:
                s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
                s.settimeout(10)
                return "reached: " + repr(s.recv(100))
        except OSError as e:
            return type(e).__name__

    def reach_abstract(self, name: str):
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect("\\0" + name)
            return "reached"
        except OSError as e:
            return type(e).__name__

    def answer_at(self, host: str, port: int):
        s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind((host, port))
        s.listen()
        self.kept.append(s)
        return os.getpid()

    def others_network(self):
        """Into the network of a process that has another one."""
        tried = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
                if os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net"):
                    tried.append(ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000))
            except OSError:
                pass
        return tried

    def trace(self):
        """The keeper's memory: it stands in the network outside."""
        libc = ctypes.CDLL(None, use_errno=True)
        return {pid: libc.ptrace(16, int(pid), 0, 0) for pid in filter(str.isdigit, os.listdir("/proc"))
                if open(f"/proc/{pid}/comm").read().startswith("job_launch")}

    def environments(self, pids: list):
        """Of which processes the environment can be read, or which can be signalled."""
        found = []
        for pid in pids:
            for attempt in (lambda: b"JOB_NAME=hostile" not in open(f"/proc/{pid}/environ", "rb").read(), lambda: os.kill(pid, 0) is None):
                try:
                    if attempt() and pid > 100:  # smaller numbers are its own as well
                        found.append(pid)
                except OSError:
                    pass
        return found

    def read(self, path: str):
        return open(path).read()

    def write(self, path: str):
        try:
            open(path, "w").write("x")
            return True
        except OSError:
            return False

    def interfaces(self):
        return [name for _, name in socket.if_nameindex()]

    def privileges(self):
        status = open("/proc/self/status").read()
        return {k: v.strip() for k, v in (line.split(":", 1) for line in status.splitlines()) if k in ("CapEff", "CapPrm", "CapAmb", "NoNewPrivs")}

    def get(self, path: str):
        import urllib.request
        try:
            return urllib.request.urlopen(os.environ["PUB_URL"] + path, timeout=10).status
        except urllib.error.HTTPError as e:
            return e.code

    def call_adder(self, name: str, count: int):
        from racetrack_job_wrapper.call import JobCallError, call_job
        try:
            return call_job(self, name, payload={"numbers": [1.0] * count}, timeout=30)
        except JobCallError as e:
            return str(e)

    def watch_gateway(self):
        import threading
        seen = self.seen = []

        def watch():
            for _ in range(400):
                try:
                    seen.append(self.get("/job/none/latest/api/v1/perform"))
                except OSError as e:  # cut, while pub ends
                    pass
                time.sleep(0.05)

        threading.Thread(target=watch, daemon=True).start()

    def watched(self):
        return self.seen

    def fork_bomb(self):
        pids = []
        try:
            while True:
                pid = os.fork()
                if pid == 0:
                    while True:
                        pass
                pids.append(pid)
        except OSError as e:
            left = len(pids)
        time.sleep(1)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return left

    def open_files(self):
        try:
            while True:
                self.kept.append(open("/dev/null"))
        except OSError as e:
            n = len(self.kept)
            self.kept.clear()
            return n

    def memory_hog(self):
        while True:
            self.kept.append(b"x" * (1 << 20))

    def fill(self, path: str):
        written = 0
        try:
            with open(path, "wb") as f:
                while True:
                    written += f.write(b"x" * (1 << 20))
                    f.flush()
        except OSError as e:
            return f"{e.strerror} after {written >> 20} MiB"

    def crash(self):
        os._exit(3)

    def flood(self, seconds: float):
        end = time.monotonic() + seconds
        n = 0
        while time.monotonic() < end:
            sys.stdout.write("x" * 9999 + "\\n")
            n += 10000
        return n

    def listing(self, path: str):
        return sorted(os.listdir(path))
'''


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A set with small limits."""
    config = tmp_path_factory.mktemp("hostile") / "lifecycle.yaml"
    config.write_text(yaml.safe_dump({"process_tmp_max": "16Mi", "process_disk_max": "64Mi", "process_log_rate": "64Ki",
                                      "process_pids_max": 64, "process_files_max": 256, "supervisor_interval_ms": 200}))
    platform = Platform()
    platform.config = config
    try:
        platform.up("postgres", "image_builder")
        platform.up("lifecycle", env={"CONFIG_FILE": config})
        platform.up("pub")
        yield platform
    finally:
        platform.close()


@pytest.fixture(autouse=True)
def shown(request, own):
    request.node.platform = own
    request.node.log_offsets = {}


@pytest.fixture
def cli(own, tmp_path):
    cli = Cli(tmp_path / "home")
    cli("set", "alias", "dev", own.remote)
    cli("login", own.token, "--remote", "dev")
    cli("set", "remote", "dev")
    return cli


def deploy(cli, folder, name, code=HOSTILE, **changes):
    copy_sample("python-class", folder / name, name=name, files={"adder.py": code} if code else None, **changes)
    cli("deploy", folder / name, "dev")
    return name


@pytest.fixture
def hostile(own, cli, tmp_path):
    """A hostile job: hostile(what, **arguments) is what it says."""
    name = deploy(cli, tmp_path, fresh_name("hostile"))

    def ask(what, timeout=60, **arguments):
        answer = own.call(name, {"what": what, **arguments}, timeout=timeout)
        assert answer.status_code == 200, answer.text
        return answer.json()

    ask.name = name
    yield ask
    cli("delete", name, "--version", "0.0.1", check=False)


@pytest.fixture
def neighbour(own, cli, tmp_path):
    name = deploy(cli, tmp_path, fresh_name("neighbour"), code=None)
    yield name
    cli("delete", name, "--version", "0.0.1", check=False)


def workload(own, name):
    for path in (own.state / "jobs").glob("[0-9a-f]*/workload.json"):
        with contextlib.suppress(FileNotFoundError):
            doc = yaml.safe_load(path.read_text()) or {}
            if doc.get("job_name") == name:
                return doc
    return None


@contextlib.contextmanager
def answering(own, name):
    """The neighbour answers every call, one after another, all the time."""
    stop, faults, times = threading.Event(), [], []

    def call():
        while not stop.is_set():
            began = time.monotonic()
            answer = own.call(name, ADDER)
            times.append(time.monotonic() - began)
            if answer.status_code != 200 or answer.json() != 42:
                faults.append(f"{answer.status_code} {answer.text}")

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join()
    assert not faults, faults
    assert times, "not one call of the neighbour came back"


@contextlib.contextmanager
def outside_server():
    """At an address of this host that is not its loopback, which a job with network: outside takes for any other."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this host has no address but its loopback")
        host = s.getsockname()[0]
    with socket.create_server((host, 0)) as server:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    peer, _ = server.accept()
                    peer.recv(1000)
                    peer.sendall(b"here")
                    peer.close()

        threading.Thread(target=answer, daemon=True).start()
        yield host, server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


# --- the network


def test_a_job_reaches_the_gateway_and_nothing_else(own, hostile, neighbour):
    ports = {s: own.port(s) for s in ("postgres", "lifecycle", "image_builder")}
    ports["neighbour"] = workload(own, neighbour)["port"]
    ports["itself"] = workload(own, hostile.name)["port"]
    for service, port in ports.items():
        for host in ("127.0.0.1", "::1", "localhost"):
            met = hostile("reach", host=host, port=port)
            assert "reached" not in met, f"{service} at {host}: {met}"
    for host in ("169.254.169.254", "10.0.2.2", "10.0.2.3"):
        assert "reached" not in hostile("reach", host=host, port=ports["lifecycle"]), host
    with outside_server() as (host, port):
        assert "reached" not in hostile("reach", host=host, port=port)
    assert hostile("interfaces") == ["lo"]
    assert hostile("get", path="/job/none/latest/api/v1/perform") in (401, 403, 404, 405)
    allow = f"/api/v1/auth/allow/job_family/{hostile.name}/job/{neighbour}/scope/call_job"
    assert own.lifecycle.post(allow).status_code == 200
    wait_for(lambda: hostile("call_adder", name=neighbour, count=500_000) == 500_000, 10, "a large call of another job")
    with socket.socket(socket.AF_UNIX) as s:
        name = fresh_name("racetrack-test")
        s.bind("\0" + name)
        s.listen()
        assert hostile("reach_abstract", name=name) == "ConnectionRefusedError"


def test_a_job_does_not_answer_for_others(own, hostile, neighbour):
    ports = {s: own.port(s) for s in ("postgres", "lifecycle", "image_builder", "pub")}
    for port in [*ports.values(), workload(own, neighbour)["port"]]:
        hostile("answer_at", host="::1", port=port)
    for service in ("lifecycle", "image_builder", "pub"):
        assert requests.get(f"http://[::1]:{ports[service]}/live", timeout=10).status_code == 200, f"{service} itself answers"
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("::1", workload(own, neighbour)["port"]), timeout=3):
        pass
    assert own.call(neighbour, ADDER).json() == 42


def test_a_job_is_called_through_the_gateway_only(own, cli, tmp_path):
    """What is not in a sandbox reaches a job's port, and is refused there. Other ways to begin: again, after lifecycle, after a loss."""
    name = deploy(cli, tmp_path, fresh_name("called"), code=None)

    def check():
        wait_for(lambda: own.call(name, ADDER).json() == 42, 20, "a call through the gateway")
        address = f"http://{workload(own, name)['address']}"
        for headers in ({}, {"X-Racetrack-Job-Secret": "x" * 43}, {"X-Racetrack-Auth": own.token}):
            answer = requests.post(f"{address}/api/v1/perform", json=ADDER, headers=headers, timeout=10)
            assert answer.status_code == 403 and "gateway" in answer.json()["error"], answer.text
        assert requests.get(f"{address}/live", timeout=10).status_code == 200

    check()
    cli("deploy", tmp_path / name, "dev", "--force")
    check()
    own.local("stop", "lifecycle")
    check()
    own.up("lifecycle", env={"CONFIG_FILE": own.config})
    generation = workload(own, name)["generation_id"]
    (own.state / "jobs" / generation / "workload.json").write_text("")
    wait_for(lambda: (workload(own, name) or {}).get("state") == "running", 30, "the lost one is started anew")
    check()
    cli("delete", name, "--version", "0.0.1")


def test_a_job_has_no_way_into_the_network_outside(hostile):
    assert all(result == -1 for result in hostile("others_network"))
    traced = hostile("trace")
    assert traced and all(result == -1 for result in traced.values())
    assert hostile("privileges") == NO_PRIVILEGES
    assert "4294967295" not in hostile("read", path="/proc/self/uid_map"), "root within is not root outside"


def test_the_gateway_away_is_said_so(own, hostile):
    hostile("watch_gateway")
    own.local("stop", "pub")
    own.up("pub")
    seen = wait_for(lambda: (s := hostile("watched")) and s[-1] != 503 and 503 in s and s, 20, "503, and then pub's answer again")
    assert set(seen) <= {503, 401, 403, 404, 405}, seen


# --- limits


def test_a_fork_bomb_is_bounded(hostile, own, neighbour):
    with answering(own, neighbour):
        assert 8 < hostile("fork_bomb") < 64
    assert hostile("open_files") < 256


def test_a_memory_hog_is_ended_with_its_reason(own, cli, tmp_path, neighbour):
    name = deploy(cli, tmp_path, fresh_name("hog"), resources={"memory_max": "128Mi"})
    with answering(own, neighbour):
        assert own.call(name, {"what": "memory_hog"}, timeout=60).status_code == 502
    reason = "out of memory: a process of the job was ended at its limit of 128 MiB (memory_max)"
    wait_for(lambda: reason in own.lifecycle.get(f"/api/v1/job/{name}/0.0.1/logs/plain").text, 10, "its log says why")
    wait_for(lambda: own.call(name, {"what": "interfaces"}).status_code == 200, 30, "it answers again")
    cli("delete", name, "--version", "0.0.1")


@pytest.mark.parametrize("path", ["/tmp/a", "/dev/shm/a"])
def test_a_full_tmp_does_not_keep_a_job_dead(own, hostile, neighbour, path):
    with answering(own, neighbour):
        assert "No space left on device" in hostile("fill", path=path)
    assert own.call(hostile.name, {"what": "crash"}).status_code == 502
    folder = os.path.dirname(path)
    wait_for(lambda: hostile("listing", path=folder) == [], 20, "the next process finds it empty")


def test_a_disk_filler_is_ended_with_its_reason(own, hostile, neighbour):
    with answering(own, neighbour):
        generation = workload(own, hostile.name)["generation_id"]
        with contextlib.suppress(requests.RequestException):
            own.call(hostile.name, {"what": "fill", "path": "filling"}, timeout=30)
        doc = wait_for(lambda: (d := workload(own, hostile.name))["restarts"] > 0 and d, 30, "it is started anew")
    assert "process_disk_max" in doc["reason"]
    wait_for(lambda: "filling" not in hostile("listing", path="."), 20, "with its folder as it was deployed")
    assert "adder.py" in hostile("listing", path=".")
    assert workload(own, hostile.name)["generation_id"] == generation


def test_a_log_flood_is_slowed_down(own, hostile, neighbour):
    with answering(own, neighbour):
        assert hostile("flood", seconds=4, timeout=60) < 40 * (64 << 10)
    notice = "the job's output exceeds 65536 bytes a second"
    wait_for(lambda: notice in own.lifecycle.get(f"/api/v1/job/{hostile.name}/0.0.1/logs/plain?tail=0").text, 10, "the log says so")


# --- other forms of the sandbox


@pytest.fixture
def fake_bwrap(tmp_path):
    def make(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "bwrap").write_text("#!/bin/sh\n" + script)
        (folder / "bwrap").chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"

    return make


def test_without_a_sandbox_jobs_are_refused(own_platform, fake_bwrap, tmp_path):
    """As in a container that allows no namespaces; the operator may do without."""
    platform = own_platform()
    platform.up("postgres", "image_builder")
    platform.up("lifecycle", env={"PATH": fake_bwrap("echo 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")})
    platform.up("pub")
    cli = Cli(tmp_path / "home")
    cli("login", platform.remote, platform.token)
    folder = copy_sample("python-class", tmp_path / "job", name="adder")
    done = cli("deploy", folder, platform.remote, check=False)
    assert done.returncode == 70
    for part in ("refused", "No permissions to create a new namespace", "seccomp=unconfined", "PROCESS_SANDBOX=off"):
        assert part in done.stderr
    platform.local("stop", "lifecycle")
    platform.up("lifecycle", env={"PATH": fake_path(tmp_path), "PROCESS_SANDBOX": "off"})
    cli("deploy", folder, platform.remote)
    wait_for(lambda: platform.call("adder", ADDER).json() == 42, 20, "it runs")


def fake_path(tmp_path):
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


@pytest.mark.parametrize("problem", ["--proc", "--userns"])
def test_what_a_container_refuses_is_done_without(own_platform, fake_bwrap, tmp_path, problem):
    """A fresh /proc where ours is masked: then that is shown, read-only. A user namespace: then root sets the sandbox up."""
    if problem == "--userns" and os.geteuid() != 0:
        pytest.skip("an ordinary user cannot do without")
    platform = own_platform()
    path = fake_bwrap(f"for a; do [ \"$a\" != {problem} ] || {{ echo \"bwrap: Can't mount proc on /newroot/proc\" >&2; exit 1; }}; done\n"
                      "exec /usr/bin/bwrap \"$@\"\n")
    platform.up("postgres", "image_builder")
    platform.up("lifecycle", env={"PATH": path})
    platform.up("pub")
    cli = Cli(tmp_path / "home")
    cli("login", platform.remote, platform.token)
    cli("set", "remote", platform.remote)
    cli("set", "alias", "dev", platform.remote)
    name, neighbour, outside = (deploy(cli, tmp_path, n, **changes) for n, changes in
                                (("hostile", {}), ("neighbour", {}), ("outside", {"network": "outside"})))

    def ask(what, job=name, **arguments):
        answer = platform.call(job, {"what": what, **arguments}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    for job, interfaces in ((name, ["lo"]), (outside, ["lo", "tap0"])):
        assert ask("interfaces", job) == interfaces
        assert "reached" not in ask("reach", job, host="127.0.0.1", port=platform.port("lifecycle"))
        assert ask("get", job, path="/job/none/latest/api/v1/perform") in (401, 403, 404, 405)
        assert ask("privileges", job) == NO_PRIVILEGES
    assert ask("environments", pids=[platform.pid(s) for s in ("lifecycle", "pub", "image_builder")] + family(workload(platform, neighbour)["pid"])) == []
    assert ask("write", path="/proc/sys/kernel/core_pattern") is False


def family(pid):
    """A process and all below it."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [pid] + [p for child in f.read().split() for p in family(int(child))]
    except OSError:
        return [pid]


# --- outside


def test_outside_is_asked_for_and_bounded(own, cli, tmp_path):
    folder = copy_sample("python-class", tmp_path / "job", name=fresh_name("outside"), files={"adder.py": HOSTILE}, network="somewhere")
    assert "network" in cli("deploy", folder, "dev", check=False).stderr


def test_outside_is_not_this_host(own, cli, tmp_path, neighbour):
    name = deploy(cli, tmp_path, fresh_name("outside"), network="outside")

    def hostile(what, **arguments):
        return own.call(name, {"what": what, **arguments}, timeout=60).json()

    assert hostile("interfaces") == ["lo", "tap0"]
    if os.path.exists("/etc/resolv.conf"):
        assert hostile("read", path="/etc/resolv.conf") == "nameserver 10.0.2.3\n"
    ports = [own.port(s) for s in ("postgres", "lifecycle", "image_builder")] + [workload(own, neighbour)["port"]]
    for port in ports:
        for host in ("127.0.0.1", "::1", "10.0.2.2"):
            assert "reached" not in hostile("reach", host=host, port=port), (host, port)
    with outside_server() as (host, port):
        assert "reached: b'here'" == hostile("reach", host=host, port=port)
    assert hostile("get", path="/job/none/latest/api/v1/perform") in (401, 403, 404, 405)
    assert hostile("privileges") == NO_PRIVILEGES
    cli("delete", name, "--version", "0.0.1")
