"""Parts that fail under load: calls through pub go on, the rest says what is away and recovers by itself, nothing is lost or left
behind. What lifecycle's own death in each phase of a deployment does is in test_durability.py."""

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time

import pytest
import requests

from harness import BIN, Cli, Platform, copy_sample, fresh_name, frozen, wait_for

ADDER = {"numbers": [40, 2]}
SETTINGS = "drain_delay_ms: 200\nsupervisor_interval_ms: 500\n"
SLOW_START = "import time\n\ntime.sleep({seconds})\n"


def start(platform):
    config = platform.folder / "lifecycle.yaml"
    config.write_text(SETTINGS)
    platform.up("postgres", "image_builder")
    platform.up("lifecycle", env={"CONFIG_FILE": config})
    platform.up("pub")


@pytest.fixture(scope="module")
def module_platform():
    platform = Platform()
    try:
        start(platform)
        yield platform
    finally:
        platform.close()


@pytest.fixture
def own(module_platform, request):
    """The whole set, all running."""
    start(module_platform)
    request.node.platform = module_platform
    return module_platform


def login(platform, home):
    cli = Cli(home)
    cli("set", "alias", "dev", platform.remote)
    cli("login", "dev", platform.token)
    cli("set", "remote", "dev")
    return cli


@pytest.fixture
def cli(own, tmp_path):
    return login(own, tmp_path / "home")


@pytest.fixture
def job(own, cli, tmp_path):
    """(folder, name) of a running adder."""
    name = fresh_name("adder")
    folder = copy_sample("python-class", tmp_path / "job", name=name)
    cli("deploy", folder, "dev")
    yield folder, name
    cli("delete", name, "--version", "0.0.1", check=False)


def start_deploy(cli, folder, **env):
    return subprocess.Popen([BIN / "racetrack", "deploy", folder, "dev", "--force"], env={**cli.env, **env}, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)


class Load:
    """Calls a job through pub without a pause, on kept connections; every answer that is not wanted is kept."""

    def __init__(self, platform, name, threads=3, first=20):
        self.address = ("127.0.0.1", platform.port("pub"))
        self.path = f"/pub/job/{name}/latest/api/v1/perform"
        self.headers = {"X-Racetrack-Auth": platform.token, "Content-Type": "application/json"}
        self.ended, self.lock = threading.Event(), threading.Lock()
        self.first, self.count, self.values, self.bad = first, 0, set(), []
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]

    def run(self):
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        while not self.ended.is_set():
            try:
                connection.request("POST", self.path, json.dumps(ADDER), self.headers)
                response = connection.getresponse()
                status, text = response.status, response.read().decode()
            except (OSError, http.client.HTTPException) as e:
                status, text = 0, repr(e)
                connection.close()
            with self.lock:
                self.count += 1
                self.values.add(text)
                if status != 200:
                    self.bad.append((status, text))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        wait_for(lambda: self.count >= self.first, 10, "calls flow")
        return self

    def flows(self, calls=50):
        """Waits until so many further calls have been answered."""
        until = self.count + calls
        wait_for(lambda: self.count >= until, 20, "calls go on")

    def __exit__(self, kind, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        if kind is None:
            assert not self.bad, f"{len(self.bad)} of {self.count} calls failed; first: {self.bad[:3]}"


def says_that_the_database_is_away(platform, cli, folder, within_s):
    began = time.monotonic()
    reply = platform.lifecycle.get("/api/v1/job")
    assert reply.status_code == 503 and time.monotonic() - began < within_s
    assert "database is not reachable" in reply.json()["error"] and reply.json()["tracing_id"]
    for command in (("list",), ("deploy", folder, "dev", "--force")):
        began = time.monotonic()
        done = cli(*command, check=False)
        assert done.returncode == 70 and "database is not reachable, try again" in done.stderr, done.stderr
        assert time.monotonic() - began < within_s
    assert platform.lifecycle.get("/ready", token=None).status_code == 503


# --- under load

def test_redeploys_under_load_lose_no_call(own, cli, job):
    folder, name = job
    source = (folder / "adder.py").read_text()
    with Load(own, name) as load:
        for i in range(1, 6):
            (folder / "adder.py").write_text(source.replace("return sum(numbers)", f"return sum(numbers) + {i}"))
            cli("deploy", folder, "dev", "--force")
            wait_for(lambda want=42 + i: own.call(name, ADDER).json() == want, 1, "the new code within a second")
            load.flows()
    assert {"42", "47"} <= load.values <= {str(n) for n in range(42, 48)}


def test_redeploys_let_running_calls_finish(own, cli, job):
    """Calls that take longer than the old generation is kept for new ones."""
    folder, name = job
    source = (folder / "adder.py").read_text()
    slow = "import time\n" + source.replace("return sum(numbers)", "time.sleep(1)\n        return sum(numbers)")
    (folder / "adder.py").write_text(slow)
    cli("deploy", folder, "dev", "--force")
    wait_for(lambda: own.call(name, ADDER).elapsed.total_seconds() >= 1, 5, "the slow code")
    with Load(own, name, threads=3, first=0) as load:
        for i in range(4):
            calls = load.count
            (folder / "adder.py").write_text(f"{slow}\n# {i}\n")
            cli("deploy", folder, "dev", "--force")
            wait_for(lambda calls=calls: load.count >= calls + 3, 15, "the calls that ran during the switch end, in each thread")


def test_a_delete_lets_running_calls_finish(own, cli, job):
    folder, name = job
    source = (folder / "adder.py").read_text()
    (folder / "adder.py").write_text("import time\n" + source.replace("return sum(numbers)", "print('working', flush=True)\n        time.sleep(1)\n        return sum(numbers)"))
    cli("deploy", folder, "dev", "--force")
    answers = []
    call = threading.Thread(target=lambda: answers.append(own.call(name, ADDER)))
    call.start()
    wait_for(lambda: "working" in cli("logs", name, "--version", "0.0.1").stdout, 5, "the call runs")
    cli("delete", name, "--version", "0.0.1")
    call.join()
    assert answers[0].status_code == 200 and answers[0].json() == 42, answers[0].text
    wait_for(lambda: not list((own.state / "jobs").glob("[0-9a-f]*")), 5, "nothing is left of the job")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_lifecycle_dies_while_calls_flow(own, cli, job, sig):
    _, name = job
    with Load(own, name) as load:
        own.kill("lifecycle", sig)
        load.flows(300)
        done = cli("list", check=False)
        assert done.returncode == 70 and own.remote in done.stderr and "cannot be reached" in done.stderr
        start(own)
        load.flows()
        wait_for(lambda: name in cli("list", check=False).stdout, 10, "lifecycle answers again")


def test_postgres_killed_while_calls_flow(own, cli, job):
    folder, name = job
    with Load(own, name) as load:
        own.kill("postgres")
        load.flows(300)
        says_that_the_database_is_away(own, cli, folder, within_s=3)
        load.flows()
        own.up("postgres")
        wait_for(lambda: own.lifecycle.get("/api/v1/job").status_code == 200, 5, "the API recovers by itself")
        wait_for(lambda: cli("deploy", folder, "dev", "--force", check=False).returncode == 0, 10, "deploys again")
        load.flows()


def test_postgres_freezes_in_a_deployment(own, cli, job):
    """The API says so within seconds and not when a statement's time is up; the deployment goes on afterwards."""
    folder, name = job
    source = (folder / "adder.py").read_text()
    (folder / "adder.py").write_text(SLOW_START.format(seconds=1) + source.replace("return sum(numbers)", "return sum(numbers) + 1"))
    deployment = start_deploy(cli, folder)
    output = ""
    for line in deployment.stdout:
        output += line
        if "initializing" in line:
            break
    with Load(own, name) as load:
        with frozen(own, "postgres"):
            says_that_the_database_is_away(own, cli, folder, within_s=6)
            load.flows()
        wait_for(lambda: own.lifecycle.get("/api/v1/job").status_code == 200, 5, "the API recovers by itself")
        output += deployment.communicate(timeout=30)[0]
        assert deployment.returncode == 0, output
        assert "database is not reachable" in output and "connected again" in output
        load.flows()
        # The gateway's stream has been away, too: it comes back within two seconds.
        wait_for(lambda: own.call(name, ADDER).json() == 43, 3, "the new code")


def test_lifecycle_freezes_while_calls_flow(own, job):
    _, name = job
    with Load(own, name) as load:
        with frozen(own, "lifecycle"):
            load.flows(300)
        load.flows()


def test_what_was_made_just_before_an_outage_works_in_it(own, job):
    """Also for callers that never called, and with a gateway that starts while everything else is away. Their use is told afterwards."""
    _, name = job

    def make_caller():
        esc = own.lifecycle.post("/api/v1/escs", json={"name": fresh_name("esc")}).json()["id"]
        token = own.lifecycle.get(f"/api/v1/auth/token/esc/{esc}").json()["token"]
        own.lifecycle.post(f"/api/v1/auth/allow/esc/{esc}/job/{name}/scope/call_job")
        return token

    quiet, last = make_caller(), make_caller()
    wait_for(lambda: own.call(name, ADDER, token=last).status_code == 200, 3, "the gateway hears of the last")

    def last_call():
        return own.lifecycle.get(f"/api/v1/job/{name}/0.0.1").json()["last_call_time"] or 0

    before = last_call()
    own.kill("lifecycle")
    own.kill("postgres")
    assert own.call(name, ADDER, token=quiet).json() == 42
    own.kill("pub", signal.SIGTERM)
    own.up("pub")
    assert own.call(name, ADDER, token=quiet).json() == 42
    assert own.call(name, ADDER, token="unknown").status_code == 401
    assert own.pub.get("/health").json()["lifecycle_stream"] is False
    wait_for(lambda: time.time() > before + 1, 3, "a later second than the last call that was told")
    own.call(name, ADDER, token=quiet)
    start(own)
    wait_for(lambda: last_call() > before, 15, "the last call is told")


def test_pub_killed_and_restarted(own, job):
    _, name = job
    own.kill("pub")
    with pytest.raises(requests.ConnectionError):
        own.call(name, ADDER)
    start(own)
    assert own.call(name, ADDER).json() == 42
    before = own.pid("pub")
    own.kill("pub", signal.SIGTERM)
    start(own)
    assert own.pid("pub") != before and own.call(name, ADDER).json() == 42


# --- a job that dies

FRAGILE = "import os\n\nclass AdderModel:\n    def perform(self, numbers: list) -> float:\n" \
          "        if not numbers:\n            os._exit(7)\n        return sum(numbers)\n"


def test_a_crashing_call_costs_that_call_only(own, cli, job):
    folder, name = job
    (folder / "adder.py").write_text(FRAGILE)
    cli("deploy", folder, "dev", "--force")
    for _ in range(2):
        # The gateway hears of the new generation within a moment.
        [broken] = wait_for(lambda: [a for a in [own.call(name, {"numbers": []})] if a.status_code != 200], 3, "the new code")
        assert broken.status_code == 502 and "ended by itself with exit status 7" in broken.json()["error"], broken.text
        wait_for(lambda: own.call(name, ADDER).status_code == 200, 5, "it answers again")
    assert own.lifecycle.get(f"/api/v1/job/{name}/0.0.1").json()["status"] == "running"


def test_a_replica_dies_and_the_others_serve(own, cli, tmp_path):
    """Each call is answered while one is away; it comes back alone, and a redeployment replaces all without a gap."""
    name = fresh_name("many")
    folder = copy_sample("python-class", tmp_path / "job", name=name, replicas=2)
    cli("deploy", folder, "dev")

    def rows():
        return own.sql("select g.id, r.replica, r.state, r.address from registry_jobreplica r join registry_jobgeneration g "
                       f"on g.id = r.generation_id where g.job_name = '{name}' and g.state = 'serving' order by r.replica")

    first = rows()
    assert [r[2] for r in first] == ["running", "running"] and first[0][3] != first[1][3]
    assert own.lifecycle.get(f"/api/v1/job/{name}/0.0.1").json()["replica_internal_names"] == [r[3] for r in first]
    with Load(own, name, threads=2) as load:
        load.flows(20)
        workload = json.loads((own.state / "jobs" / f"{first[1][0]}.1" / "workload.json").read_text())
        os.kill(workload["pid"], signal.SIGKILL)
        wait_for(lambda: json.loads((own.state / "jobs" / f"{first[1][0]}.1" / "workload.json").read_text())["restarts"] == 1, 20, "it is back")
        assert len(load.bad) < 20 and {status for status, _ in load.bad} <= {502}, "only calls that were in it while it died"
        load.bad.clear()
        load.flows(50)
        (folder / "adder.py").write_text((folder / "adder.py").read_text() + "\n# another\n")
        cli("deploy", folder, "dev", "--force")
        load.flows(50)
    assert own.lifecycle.get(f"/api/v1/job/{name}/0.0.1").json()["status"] == "running"
    second = rows()
    assert len(second) == 2 and second[0][0] != first[0][0]
    wait_for(lambda: not list((own.state / "jobs").glob(f"{first[0][0]}*")), 20, "both old ones are gone")
    cli("delete", name, "--version", "0.0.1", "--remote", "dev")
    wait_for(lambda: not list((own.state / "jobs").glob(f"{second[0][0]}*")), 20, "both are gone")


# --- image_builder

def make_sdist(folder, name, setup):
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as tar:
        for path, text in {"setup.py": setup, "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"}.items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


def image_leftovers(platform):
    return sorted(str(p) for folder in ("tmp", "workspaces") for p in (platform.state / "images" / folder).glob("*"))


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_image_builder_killed_in_a_build(own, cli, tmp_path, sig):
    """The build is begun again by itself; nothing of the first attempt stays."""
    package = f"slow{os.getpid()}{sig.name.lower()}"
    make_sdist(own.wheels, package, "import time\ntime.sleep(60)\n")
    name = fresh_name("build")
    folder = copy_sample("python-class", tmp_path / "job", name=name, files={"requirements.txt": package + "\n"},
                         jobtype_extra={"entrypoint_path": "adder.py", "requirements_path": "requirements.txt"})
    deployment = start_deploy(cli, folder)
    wait_for(lambda: image_leftovers(own), 10, "it works in a folder of its own")
    own.kill("image_builder", sig)
    make_sdist(own.wheels, package, "import sys\nsys.exit('no slow package any more')\n")
    own.up("image_builder")
    output = deployment.communicate(timeout=60)[0]
    assert deployment.returncode == 70 and "no slow package any more" in output, output
    wait_for(lambda: image_leftovers(own) == [], 5, "no half build is left")
    assert own.lifecycle.get(f"/api/v1/job/{name}/0.0.1").status_code == 404


def test_image_builder_away(own, cli, job):
    """Known jobs run on; a deployment waits for it to come back."""
    folder, name = job
    own.kill("image_builder")
    assert own.call(name, ADDER).json() == 42
    (folder / "adder.py").write_text((folder / "adder.py").read_text().replace("return sum(numbers)", "return sum(numbers) + 1"))
    deployment = start_deploy(cli, folder)
    wait_for(lambda: "a source waits for it" in own.log("lifecycle"), 10, "it waits")
    own.up("image_builder")
    output = deployment.communicate(timeout=60)[0]
    assert deployment.returncode == 0, output
    wait_for(lambda: own.call(name, ADDER).json() == 43, 3, "the new code")  # when the gateway has heard of it


# --- the CLI and a server that stays away

def test_the_cli_gives_up_and_says_how_to_look_again(own, cli, job):
    folder, name = job
    (folder / "adder.py").write_text(SLOW_START.format(seconds=1) + (folder / "adder.py").read_text())
    deployment = start_deploy(cli, folder, RACETRACK_PATIENCE_S="2")
    output = ""
    for line in deployment.stdout:
        output += line
        if "initializing" in line:
            break
    ((id,),) = own.sql(f"select id from registry_deployment where job_name = '{name}' and status = 'in_progress'")
    own.kill("lifecycle")
    began = time.monotonic()
    output += deployment.communicate(timeout=20)[0]
    assert deployment.returncode == 70 and time.monotonic() - began < 8, output
    assert id in output and "cannot be reached" in output, output
    assert "racetrack list --remote dev" in output and f"racetrack build-logs {name} --version 0.0.1 --remote dev" in output
    start(own)
    wait_for(lambda: own.lifecycle.get(f"/api/v1/deploy/{id}").json()["status"] == "done", 20, "the deployment goes on by itself")


# --- the disk is full

def mount(folder, size):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder], check=True, capture_output=True, timeout=10)


@pytest.fixture
def small(tmp_path, request):
    """A set whose whole state lies on a small disk."""
    platform = Platform()
    try:
        mount(platform.folder, "160m")
    except (OSError, subprocess.CalledProcessError) as e:
        platform.close()
        pytest.skip(f"a small file system cannot be mounted here: {getattr(e, 'stderr', e)}")
    try:
        platform.wheels.mkdir()
        start(platform)
        request.node.platform = platform
        yield platform
    finally:
        platform.close()
        subprocess.run(["umount", platform.folder], check=True, timeout=10)
        platform.wheels.rmdir()
        platform.folder.rmdir()


@contextlib.contextmanager
def full_disk(platform, room_bytes):
    filler = platform.folder / "filler"
    with open(filler, "wb", buffering=0) as f, contextlib.suppress(OSError):
        while f.write(bytes(1 << 16)):
            pass
    os.truncate(filler, max(0, filler.stat().st_size - room_bytes))
    try:
        yield
    finally:
        filler.unlink()


def job_folders(platform):
    return sorted(str(p) for folder in ("jobs", "jobs/.locks", "images/tmp", "images/workspaces") for p in (platform.state / folder).glob("*"))


def test_the_disk_of_the_state_is_full(small, tmp_path):
    """At several amounts of room left, so that it runs out in lifecycle, in the image store, in a build, and in the job's folder."""
    cli = login(small, tmp_path / "home")
    name = fresh_name("adder")
    folder = copy_sample("python-class", tmp_path / "job", name=name)
    cli("deploy", folder, "dev")
    source = (folder / "adder.py").read_text()
    said = set()
    with Load(small, name, threads=1) as load:
        for i, room in enumerate((0, 256, 448, 640, 704, 768, 832, 1024)):
            # Hardly packs: it takes 200 KiB as it comes in, and again in each store.
            (folder / "adder.py").write_text(f"{source}\nDATA = '{os.urandom(200 << 10).hex()}'\n".replace("return sum(numbers)", f"return sum(numbers) + {i + 1}"))
            wait_for(lambda: len(list((small.state / "jobs").glob("[0-9a-f]*"))) == 1, 10, "the former generation is gone")
            before, rows = job_folders(small), small.sql("select count(*) from registry_jobgeneration")
            with full_disk(small, room << 10):
                done = cli("deploy", folder, "dev", "--force", check=False)
                if done.returncode == 0:
                    break
                assert done.returncode == 70
                error = done.stderr.lower()
                assert "disk is full" in error or "disk of the platform is full" in error, done.stderr
                assert "room" in error, "what to do"
                said.add(next((what for what in ("database", "the build context", "the source in the image store", "the uploaded source", "the job's folder", "starting job") if what in error), error))
                load.flows(20)
                assert small.lifecycle.get(f"/api/v1/job/{name}/0.0.1").json()["status"] == "running"
            wait_for(lambda: job_folders(small) == before, 5, "nothing half is left")
            assert small.sql("select count(*) from registry_jobgeneration") == rows
            assert small.sql("select count(*) from registry_deployment where status = 'in_progress'") == [["0"]]
            cli("deploy", folder, "dev", "--force")
            wait_for(lambda want=43 + i: small.call(name, ADDER).json() == want, 2, "the new code")
    assert "the build context" in said and len(said) > 1, said
