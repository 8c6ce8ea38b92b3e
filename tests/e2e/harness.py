"""What the end-to-end tests share: a whole set of services of their own, the CLI, waiting with a deadline.

A Platform is Postgres and the services on free ports below a fresh state folder, driven by utils/local.sh as a person would; it
disturbs no other set on the machine. A Cli is the `racetrack` program with a HOME of its own.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
import uuid
from pathlib import Path

import requests
import yaml

TOP = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("RACETRACK_BIN") or TOP / "build/release/bin")
SAMPLE = TOP / "sample"
SERVICES = ("postgres", "image_builder", "lifecycle", "pub")
# The public constants of the dev profile (spec: header order typ,alg and alg,typ).
DEV_AUTH_KEY = "QaPU2UW8r7KXfRtLJVCKahCK93TKhVB5"
DEV_ADMIN_TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9."
    "eyJzZWVkIjoiY2UwODFiMDUtYTRhMC00MTRhLThmNmEtODRjMDIzMTkxNmE2Iiwic3ViamVjdCI6ImFkbWluIiwic3ViamVjdF90eXBlIjoidXNlciIs"
    "InNjb3BlcyI6bnVsbH0._XIg7ainazrLnU6-4pJ1BW63vPpgtX41O2RhxshW-E0"
)


def wait_for(condition, deadline_s=30.0, what="condition", interval_s=0.02):
    """Call `condition` until it returns something true, and return that; fail with `what` after the deadline.

    An exception that the condition raises counts as "not yet" and is shown when the time is up.
    """
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    problem = None
    while True:
        try:
            value = condition()
            if value:
                return value
            problem = f"last value: {value!r}"
        except (AssertionError, OSError, requests.RequestException, KeyError, IndexError, ValueError) as e:
            problem = f"last error: {e!r}"
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s} s; {problem}")
        pause.wait(interval_s)


def clean_environment(**extra):
    """The caller's environment without settings that would lead a test to another installation."""
    unwanted = re.compile(
        r"^(RACETRACK_(?!BIN$)|POSTGRES_|PG[A-Z]|LIFECYCLE_|IMAGE_BUILDER_|PUB_|EXTERNAL_|INTERNAL_|LOG_|CONFIG_FILE$|AUTH_KEY$|SECRET_KEY$|MAKE|MFLAGS$)"
    )
    env = {k: v for k, v in os.environ.items() if not unwanted.match(k)}
    env["RACETRACK_BIN"] = str(BIN)
    env.update({k: str(v) for k, v in extra.items()})
    return env


def registry_token():
    """What image_builder takes, in the dev profile: signed with a key that only lifecycle holds."""
    done = subprocess.run([BIN / "lifecycle", "generate-auth", "tester", "--registry", "--short"], env=clean_environment(RACETRACK_PROFILE="dev"),
                          check=True, capture_output=True, text=True)
    return done.stdout.strip()


def free_port():
    """A port that is free now, outside the ephemeral range's usual traffic."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def process_alive(pid):
    """True while the process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


def fresh_name(stem="job"):
    """A job name that no other test uses."""
    return f"{stem}-{uuid.uuid4().hex[:8]}"


class Api:
    """Requests to one service, with a token as X-Racetrack-Auth (None: without)."""

    def __init__(self, base_url, token=None, timeout=30):
        self.base_url, self.token, self.timeout = base_url.rstrip("/"), token, timeout

    def request(self, method, path, *, token=..., headers=None, **kwargs):
        headers = dict(headers or {})
        token = self.token if token is ... else token
        if token is not None:
            headers.setdefault("X-Racetrack-Auth", token)
        kwargs.setdefault("timeout", self.timeout)
        kwargs.setdefault("allow_redirects", False)
        return requests.request(method, self.base_url + path, headers=headers, **kwargs)

    def get(self, path, **kwargs):
        return self.request("GET", path, **kwargs)

    def post(self, path, **kwargs):
        return self.request("POST", path, **kwargs)

    def put(self, path, **kwargs):
        return self.request("PUT", path, **kwargs)

    def delete(self, path, **kwargs):
        return self.request("DELETE", path, **kwargs)


class Platform:
    """One set of services below its own state folder."""

    def __init__(self, **env):
        self.folder = Path(tempfile.mkdtemp(prefix="racetrack-e2e."))
        # A person's umask must not matter, and Postgres' user has to pass here.
        self.folder.chmod(0o755)
        self.state = self.folder / "state"
        self.wheels = self.folder / "wheels"
        self.wheels.mkdir()
        self.token = DEV_ADMIN_TOKEN
        ports = {f"{s.upper()}_PORT": 0 for s in SERVICES}
        self.env = clean_environment(
            RACETRACK_STATE=self.state, PIP_NO_INDEX=1, PIP_FIND_LINKS=self.wheels, **{**ports, **env}
        )

    def local(self, *args, check=True, timeout=120, env=None):
        """utils/local.sh with this set's settings."""
        done = subprocess.run(
            [TOP / "utils/local.sh", *args],
            env={**self.env, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"local.sh {shlex.join(args)} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        return done

    def up(self, *services, **kwargs):
        return self.local("up", *services, **kwargs)

    def close(self):
        """Stops all of it and removes the folder (kept with RACETRACK_E2E_KEEP=1)."""
        if os.environ.get("RACETRACK_E2E_KEEP"):
            print(f"\nkept: {self.state}")
            self.local("down", check=False)
            return
        done = self.local("clean", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert done.returncode == 0, f"local.sh clean failed:\n{done.stdout}{done.stderr}"

    def settings(self):
        """What `local.sh env` exports, as a dict."""
        text = self.local("env").stdout
        return dict(w.split("=", 1) for line in text.splitlines() for w in [shlex.split(line)[1]])

    def port(self, service):
        return int((self.state / "run" / f"{service}.port").read_text())

    def url(self, service):
        return f"http://127.0.0.1:{self.port(service)}"

    @property
    def remote(self):
        """The URL that a person gives the CLI."""
        return self.url("lifecycle")

    @property
    def lifecycle(self):
        return Api(self.url("lifecycle") + "/lifecycle", self.token)

    @property
    def image_builder(self):
        return Api(self.url("image_builder"), self.token)

    @property
    def pub(self):
        return Api(self.url("pub"), self.token)

    def call(self, name, payload, version="latest", path="/api/v1/perform", **kwargs):
        """A call of a job through the gateway; returns the response."""
        return self.pub.post(f"/pub/job/{name}/{version}{path}", json=payload, **kwargs)

    def pid(self, service):
        return int((self.state / "run" / f"{service}.pid").read_text().split()[0])

    def kill(self, service, sig=signal.SIGKILL):
        """Sends a signal to one service and, for the deadly ones, waits until it is gone."""
        pid = self.pid(service)
        os.kill(pid, sig)
        if sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            wait_for(lambda: not process_alive(pid), 20, f"{service} (pid {pid}) ends after signal {sig}")

    def log(self, service):
        path = self.state / "log" / f"{service}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def sql(self, statement):
        """Runs SQL as lifecycle's role; returns rows as lists of strings."""
        s = self.settings()
        env = {**self.env, "PGPASSWORD": s["POSTGRES_PASSWORD"], "PGOPTIONS": "-c search_path=racetrack"}
        done = subprocess.run(
            ["psql", "-X", "-q", "-A", "-t", "-F", "\x1f", "-v", "ON_ERROR_STOP=1", "-h", s["POSTGRES_HOST"],
             "-p", s["POSTGRES_PORT"], "-U", s["POSTGRES_USER"], "-d", s["POSTGRES_DB"], "-c", statement],
            env=env, capture_output=True, text=True, timeout=30,
        )
        assert done.returncode == 0, f"{statement}: {done.stderr}"
        return [line.split("\x1f") for line in done.stdout.splitlines()]

    def source(self, name, version="0.0.1"):
        """Names of the files in the stored build context of a job."""
        ((digest,),) = self.sql(f"select source_digest from registry_job where name = '{name}' and version = '{version}'")
        with tarfile.open(self.state / "sources/blobs" / digest.replace(":", "/")) as tar:
            return [os.path.normpath(m.name) for m in tar.getmembers() if m.isfile()]

    @contextlib.contextmanager
    def extra_lifecycle(self, **env):
        """Another lifecycle on the same database, with its own port and log and the same job folders; yields (Api, Popen)."""
        s = self.settings()
        state = Path(tempfile.mkdtemp(prefix="lifecycle.", dir=self.folder))
        for folder in ("run", "log"):
            (state / folder).mkdir()
        (self.state / "jobs").mkdir(exist_ok=True)
        (state / "jobs").symlink_to(self.state / "jobs")
        full = {**self.env, **s, "RACETRACK_STATE": str(state), "LIFECYCLE_PORT": "0", "LIFECYCLE_ADDR": "127.0.0.1",
                "INTERNAL_PUB_URL": s["EXTERNAL_PUB_URL"], **{k: str(v) for k, v in env.items()}}
        with open(state / "log/lifecycle.log", "wb") as log:
            process = subprocess.Popen([BIN / "lifecycle"], env=full, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       cwd=state, start_new_session=True)
        try:
            def ready():
                assert process.poll() is None, (state / "log/lifecycle.log").read_text(errors="replace")[-2000:]
                url = f"http://127.0.0.1:{int((state / 'run/lifecycle.port').read_text())}"
                return requests.get(url + "/ready", timeout=3).status_code == 200 and url
            url = wait_for(ready, 30, "second lifecycle ready")
            yield Api(url + "/lifecycle", self.token), process
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)


class Cli:
    """The `racetrack` program with a HOME of its own."""

    def __init__(self, home, env=None):
        self.home = Path(home)
        self.home.mkdir(parents=True, exist_ok=True)
        self.env = clean_environment(HOME=self.home, NO_COLOR=1, **(env or {}))

    @property
    def config_path(self):
        return self.home / ".racetrack/config.yaml"

    def config(self):
        return yaml.safe_load(self.config_path.read_text())

    def run(self, *args, check=True, input="", timeout=120, cwd=None, env=None):
        """Runs it; stdout, stderr and returncode in the result. `check`: must exit with 0."""
        done = subprocess.run(
            [BIN / "racetrack", *map(str, args)],
            env={**self.env, **(env or {})}, input=input, capture_output=True, text=True, timeout=timeout, cwd=cwd,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"racetrack {shlex.join(map(str, args))} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    __call__ = run


def copy_sample(sample, folder, name=None, version=None, files=None, **changes):
    """Copies sample/SAMPLE into `folder` under another job name; `changes` are set in job.yaml (None removes a key), `files` maps
    paths to text written over the copy. Returns the folder."""
    folder = Path(folder)
    shutil.copytree(SAMPLE / sample, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    manifest_path = folder / "job.yaml"
    manifest = yaml.safe_load(manifest_path.read_text())
    for key, value in {"name": name, "version": version}.items():
        if value is not None:
            manifest[key] = value
    for key, value in changes.items():
        if value is None:
            manifest.pop(key, None)
        else:
            manifest[key] = value
    manifest_path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    for path, text in (files or {}).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder


@contextlib.contextmanager
def frozen(platform, service):
    """A service and its children stop in their tracks, as on a host that hangs."""
    pid = platform.pid(service)
    stopped = []

    def stop(p):
        with contextlib.suppress(ProcessLookupError):  # a child that has just ended
            os.kill(p, signal.SIGSTOP)
            stopped.append(p)

    try:
        stop(pid)  # first, so that it makes no more children
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
        for child in map(int, listed.stdout.split()):
            stop(child)
        yield
    finally:
        for p in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(p, signal.SIGCONT)
