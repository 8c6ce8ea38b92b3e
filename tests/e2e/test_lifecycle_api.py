"""lifecycle by itself with its Postgres: what several processes, a lost database, or a hostile client make of it. What one request
answers to whom is in tests/unit/lifecycle/test_api.c."""

import base64
import concurrent.futures
import contextlib
import io
import json
import os
import signal
import socket
import stat
import subprocess
import tarfile
import threading
import time

import pytest
import requests

from harness import BIN, DEV_AUTH_KEY, SAMPLE, Api, Platform, clean_environment, fresh_name, frozen, process_alive, wait_for


@pytest.fixture(scope="module")
def module_platform():
    platform = Platform()
    try:
        platform.up("postgres", "lifecycle")
        yield platform
    finally:
        platform.close()


@pytest.fixture
def own(module_platform, request):
    """Postgres and lifecycle, both running."""
    module_platform.up("postgres", "lifecycle")
    request.node.platform = module_platform
    return module_platform


def internal_token(platform, subject="pub"):
    done = subprocess.run(
        [BIN / "lifecycle", "generate-auth", subject, "--short"],
        env={**platform.env, **platform.settings()}, capture_output=True, text=True, timeout=10, check=True,
    )
    return done.stdout.strip()


class Stream:
    """Reads the event stream in a thread: `events` holds (id, kind, data)."""

    def __init__(self, base_url, token, last_id=None):
        headers = {"X-Racetrack-Auth": token, **({"Last-Event-ID": str(last_id)} if last_id is not None else {})}
        self.response = requests.get(base_url + "/api/v1/events/stream", headers=headers, stream=True, timeout=(5, 15))
        assert self.response.status_code == 200, self.response.text
        self.events, self.ended = [], False
        threading.Thread(target=self._read, daemon=True).start()
        wait_for(lambda: self.events, 10, "hello of the event stream")

    def _read(self):
        event = {}
        with contextlib.suppress(requests.RequestException, AttributeError):
            for line in self.response.iter_lines(chunk_size=1, decode_unicode=True):
                if line == "" and "event" in event:
                    self.events.append((int(event.get("id", 0)), event["event"], json.loads(event["data"])))
                    event = {}
                elif ": " in line and not line.startswith(":"):
                    key, _, value = line.partition(": ")
                    event[key] = value
        self.ended = True

    def kinds(self):
        return [kind for _, kind, _ in self.events]

    def close(self):
        self.response.close()


def rss_kib(platform):
    with open(f"/proc/{platform.pid('lifecycle')}/status") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def new_esc(api, name):
    return api.post("/api/v1/escs", json={"name": name}).json()["id"]


def test_answers_under_both_mounts(own):
    url = own.url("lifecycle")
    for mount in ("", "/lifecycle"):
        assert requests.get(f"{url}{mount}/live", timeout=5).json() == {"service": "lifecycle", "live": True}
        info = requests.get(f"{url}{mount}/api/v1/info", timeout=5).json()
        assert info["external_pub_url"].endswith("/pub") and info["service"] == "lifecycle"
    redirect = requests.get(f"{url}/lifecycle", timeout=5, allow_redirects=False)
    assert (redirect.status_code, redirect.headers["Location"]) == (307, "/lifecycle/")
    page = requests.get(f"{url}/lifecycle/", timeout=5)
    assert page.status_code == 200 and "/api/v1/deploy" in page.text
    document = requests.get(f"{url}/openapi.json", timeout=5).json()
    assert document["paths"]["/api/v1/job/{name}/{version}"]["get"]


def test_metrics_speak_of_the_database(own):
    text = own.lifecycle.get("/metrics", token=None).text
    assert "\nlifecycle_database_connected 1\n" in text
    assert "\nlifecycle_database_pool_size 20\n" in text
    assert "commons_requests_done_total" in text


@pytest.mark.parametrize(
    "body, status",
    [
        (b"", 422),
        (b"{", 400),
        (b"not json", 400),
        (b'{"manifest": {}, "manifest": {}}', 400),
        (b'{"manifest": "text"}', 422),
        (b"[" * 100_000, 400),
        (b'{"manifest": {"name": "\xff"}}', 400),
        (json.dumps({"manifest": {"name": "x"}, "build_context": "%%%"}).encode(), 400),
    ],
)
def test_bad_bodies_are_client_errors(own, body, status):
    reply = own.lifecycle.post("/api/v1/deploy", data=body, headers={"Content-Type": "application/json"})
    assert reply.status_code in (status, 422), reply.text
    assert reply.json()["error"] and reply.json()["type"]
    assert own.lifecycle.get("/ready").status_code == 200


def test_a_200_mb_body_is_refused_without_being_kept(own):
    def chunks():
        first = b'{"build_context": "'
        for _ in range(200):
            yield first or b"A" * (1 << 20)
            first = b""

    with contextlib.suppress(requests.ConnectionError):  # it may close before all was sent
        reply = own.lifecycle.post("/api/v1/deploy", data=chunks(), headers={"Content-Type": "application/json"})
        assert reply.status_code == 413
        assert "100663296" in reply.text or "96 MiB" in reply.text
    wait_for(lambda: rss_kib(own) < 64 * 1024, 20, "the memory is given back")
    # told by the header alone, before the body is sent
    with socket.create_connection(("127.0.0.1", own.port("lifecycle")), timeout=10) as s:
        s.sendall(
            b"POST /api/v1/deploy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"X-Racetrack-Auth: " + own.token.encode() + b"\r\nContent-Length: 209715200\r\n\r\n"
        )
        assert s.recv(4096).split()[1] == b"413"


def test_tokens_of_all_kinds_of_wrong(own):
    header, payload, signature = own.token.split(".")
    none_alg = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0." + payload + "."
    wrong = [
        "x", "a.b.c", own.token[:-2], f"{header}.{payload}.", none_alg, own.token + "A", "é".encode().decode("latin-1"),
        "A" * 5000, f"{header}.{payload[:-4]}AAAA.{signature}",
    ]
    for token in wrong:
        reply = own.lifecycle.get("/api/v1/job", token=token)
        assert reply.status_code == 401, (token[:40], reply.text)
        assert token not in reply.text or len(token) < 4
    assert all(token not in own.log("lifecycle") for token in wrong if len(token) > 40)


def test_a_flood_of_logins_leaves_room_for_the_rest(own):
    login = {"username": "admin", "password": "wrong"}
    with concurrent.futures.ThreadPoolExecutor(48) as pool:
        replies = [pool.submit(own.lifecycle.post, "/api/v1/users/login", json=login, token=None) for _ in range(96)]
        began = time.monotonic()
        assert own.lifecycle.get("/api/v1/job").status_code == 200
        assert time.monotonic() - began < 2
        statuses = {r.result().status_code for r in replies}
    assert 401 in statuses and statuses <= {401, 429}


def test_two_lifecycles_on_one_database(own):
    token = internal_token(own)
    with own.extra_lifecycle() as (second, process):
        first_stream = Stream(own.lifecycle.base_url, token)
        second_stream = Stream(second.base_url, token)
        began = time.monotonic()
        esc = new_esc(second, "made by the second")
        for stream in (first_stream, second_stream):
            wait_for(lambda stream=stream: "subject_changed" in stream.kinds(), 10, "the event on both")
        assert time.monotonic() - began < 4  # by notification, not by the look every five seconds
        assert esc in [e["id"] for e in own.lifecycle.get("/api/v1/escs").json()]
        # a reader that lost its replica goes on at the other one
        seen = first_stream.events[-1][0]
        first_stream.close()
        new_esc(own.lifecycle, "while nobody looked")
        resumed = Stream(second.base_url, token, last_id=seen)
        wait_for(lambda: any(i > seen for i, _, _ in resumed.events), 10, "what was missed")
        assert "missed" not in str(resumed.events)
        process.terminate()
        assert process.wait(5) == 0
        wait_for(lambda: second_stream.ended and resumed.ended, 5, "streams end with their service")


def test_while_postgres_is_away(own):
    token = internal_token(own)
    stream = Stream(own.lifecycle.base_url, token)
    own.kill("postgres", signal.SIGQUIT)
    began = time.monotonic()
    reply = own.lifecycle.get("/api/v1/job")
    assert time.monotonic() - began < 3
    assert reply.status_code == 503
    assert "database is not reachable" in reply.json()["error"] and reply.json()["tracing_id"]
    assert own.lifecycle.get("/live", token=None).status_code == 200
    assert own.lifecycle.get("/ready", token=None).status_code == 503
    health = own.lifecycle.get("/health", token=None)
    assert (health.status_code, health.json()["database_connected"]) == (500, False)
    assert "\nlifecycle_database_connected 0\n" in own.lifecycle.get("/metrics", token=None).text
    wait_for(lambda: stream.ended, 15, "the stream ends: silence would mean no change")

    # a lifecycle that starts meanwhile is live, waits, and says for what
    own.kill("lifecycle", signal.SIGKILL)
    settings = {**own.env, **own.settings(), "LIFECYCLE_PORT": str(own.port("lifecycle"))}
    with open(own.state / "log/waiting.log", "wb") as log:
        waiting = subprocess.Popen([BIN / "lifecycle"], env=settings, stdout=log, stderr=log, cwd=own.state)
    try:
        wait_for(lambda: own.lifecycle.get("/live", token=None).status_code == 200, 10, "live without a database")
        assert own.lifecycle.get("/ready", token=None).status_code == 503
        assert own.lifecycle.get("/api/v1/job").status_code == 503
        wait_for(lambda: "waiting for Postgres" in (own.state / "log/waiting.log").read_text(), 10, "its log says so")
        own.up("postgres")
        wait_for(lambda: own.lifecycle.get("/ready", token=None).status_code == 200, 20, "ready by itself")
        assert own.lifecycle.get("/api/v1/job").status_code == 200
    finally:
        waiting.terminate()
        assert waiting.wait(5) == 0


def test_a_frozen_postgres_does_not_freeze_the_probes(own):
    with frozen(own, "postgres"):
        for path in ("/live", "/health", "/ready", "/metrics"):
            began = time.monotonic()
            own.lifecycle.get(path, token=None)
            assert time.monotonic() - began < 1, path
        wait_for(lambda: own.lifecycle.get("/ready", token=None).status_code == 503, 10, "it notices")
        began = time.monotonic()
        assert own.lifecycle.get("/api/v1/job").status_code == 503
        assert time.monotonic() - began < 3
    wait_for(lambda: own.lifecycle.get("/ready", token=None).status_code == 200, 10, "it recovers")
    assert own.lifecycle.get("/api/v1/job").status_code == 200


def test_stops_in_time_with_clients_hanging_on(own):
    token = internal_token(own)
    stream = Stream(own.lifecycle.base_url, token)
    idle = socket.create_connection(("127.0.0.1", own.port("lifecycle")))
    half = socket.create_connection(("127.0.0.1", own.port("lifecycle")))
    half.sendall(b"POST /api/v1/users/login HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    pid = own.pid("lifecycle")
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not process_alive(pid), 6, "lifecycle ends")
    assert time.monotonic() - began < 5
    wait_for(lambda: stream.ended, 5, "the stream ends")
    idle.close()
    half.close()


def test_a_taken_port_is_named(own):
    settings = {**own.env, **own.settings(), "LIFECYCLE_PORT": str(own.port("lifecycle"))}
    done = subprocess.run([BIN / "lifecycle"], env=settings, capture_output=True, text=True, timeout=10, cwd=own.state)
    assert done.returncode == 1
    assert str(own.port("lifecycle")) in done.stderr and "in use" in done.stderr


def test_generated_tokens_open_what_internal_ones_do(own):
    token = internal_token(own, "someone")
    assert own.lifecycle.get("/api/v1/job", token=token).status_code == 200
    assert own.lifecycle.get("/api/v1/users/validate_user_auth", token=token).status_code == 403
    done = subprocess.run([BIN / "lifecycle", "generate-auth"], env={**own.env, **own.settings()}, capture_output=True, text=True)
    assert done.returncode == 2 and "usage" in done.stderr


def test_without_the_dev_profile(own_platform):
    platform = own_platform(RACETRACK_PROFILE="production")
    done = platform.up("postgres", "lifecycle", check=False)
    assert done.returncode != 0  # no such profile, and it says so
    assert platform.log("lifecycle").count("RACETRACK_PROFILE: must be") == 1

    platform = own_platform(RACETRACK_PROFILE="")
    platform.up("postgres", "lifecycle")
    path = platform.state / "admin-password"
    password = path.read_text().strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(password) >= 32
    assert password not in platform.log("lifecycle") and str(path) in platform.log("lifecycle")
    api = Api(platform.url("lifecycle"), None)
    assert api.get("/api/v1/job", token=platform.token).status_code == 401  # the public token is worth nothing here
    login = {"username": "admin", "password": "admin"}
    assert api.post("/api/v1/users/login", json=login).status_code == 401
    reply = api.post("/api/v1/users/login", json={**login, "password": password})
    assert reply.status_code == 200
    assert api.get("/api/v1/job", token=reply.json()["token"]).status_code == 200
    assert DEV_AUTH_KEY not in json.dumps(platform.settings())


def test_dev_keys_stay_off_open_networks(tmp_path):
    env = clean_environment(RACETRACK_STATE=tmp_path, AUTH_KEY=DEV_AUTH_KEY, SECRET_KEY="x" * 32, LIFECYCLE_ADDR="0.0.0.0")
    done = subprocess.run([BIN / "lifecycle"], env=env, capture_output=True, text=True, timeout=10)
    assert done.returncode == 1 and "RACETRACK_PROFILE=dev" in done.stderr
    env = clean_environment(RACETRACK_STATE=tmp_path, LIFECYCLE_PORT="70000", POSTGRES_PORT="x")
    done = subprocess.run([BIN / "lifecycle", "--check-config"], env=env, capture_output=True, text=True, timeout=10)
    assert done.returncode == 1
    assert all(name in done.stderr for name in ("LIFECYCLE_PORT", "POSTGRES_PORT"))  # every fault at once


def test_grants_and_revocations_reach_the_gateway_at_once(platform, deployed):
    api, name = platform.lifecycle, deployed("python-class")
    esc = new_esc(api, "caller")
    token = api.get(f"/api/v1/auth/token/esc/{esc}").json()["token"]
    numbers = {"numbers": [40, 2]}

    def call():
        return platform.call(name, numbers, token=token).status_code

    assert call() == 403
    assert api.post(f"/api/v1/auth/allow/esc/{esc}/job/{name}/scope/call_job").status_code == 200
    began = time.monotonic()
    wait_for(lambda: call() == 200, 5, "the grant works")
    assert time.monotonic() - began < 1.5
    assert api.delete(f"/api/v1/auth/allow/esc/{esc}/job/{name}/scope/call_job").status_code == 200
    began = time.monotonic()
    wait_for(lambda: call() == 403, 5, "the revoked grant works no more")
    assert time.monotonic() - began < 1.5
    assert api.delete(f"/api/v1/auth/allow/esc/{esc}/job/{name}/scope/call_job").status_code == 404
    assert api.post(f"/api/v1/auth/allow/esc/{esc}/job/{name}/scope/call_job").status_code == 200
    wait_for(lambda: call() == 200, 5, "granted once more")
    row = api.get(f"/api/v1/escs/{esc}/auth_data").json()["tokens"][0]["id"]
    assert api.delete(f"/api/v1/escs/{esc}/auth_token/{row}").status_code == 200
    began = time.monotonic()
    wait_for(lambda: call() == 401, 5, "the token is refused")
    assert time.monotonic() - began < 1.5

    # maintenance, switched in the table as the records API will do it, is for new decisions
    platform.sql("insert into registry_setting values ('maintenance_mode', '\"true\"')")
    try:
        refused = api.get(f"/api/v1/auth/can-call-job/{name}/latest/x")
        assert refused.status_code == 503 and "maintenance" in refused.json()["error"]
        assert api.delete(f"/api/v1/job/{name}/0.0.1").status_code == 503
    finally:
        platform.sql("delete from registry_setting where name = 'maintenance_mode'")


def test_a_public_endpoint_is_opened_and_closed(platform, cli, make_job):
    folder, name = make_job(
        public_endpoints=["/api/v1/perform", "/api/v1/echo"],
        files={"adder.py": "class AdderModel:\n    def perform(self, numbers):\n        return sum(numbers)\n"
                           "    def echo(self):\n        return 'echo'\n"
                           "    def auxiliary_endpoints(self):\n"
                           "        return {'/echo': self.echo, '/echo/deep': self.echo, '/echoes': self.echo}\n"})
    cli("deploy", folder, "dev")
    api, path = platform.lifecycle, f"/api/v1/job/{name}/0.0.1/public-endpoints"

    def call(endpoint):
        return platform.call(name, {}, path=f"/api/v1{endpoint}", token=None).status_code

    def set_active(active):
        reply = api.put(path, json={"endpoint": "/api/v1/echo", "active": active})
        assert reply.status_code == 200, reply.text
        assert reply.json() == {"job_name": name, "job_version": "0.0.1", "endpoint": "/api/v1/echo", "active": active}

    assert {e["endpoint"]: e["active"] for e in api.get(path).json()} == {"/api/v1/echo": False, "/api/v1/perform": False}
    assert call("/echo") == 401
    set_active(True)
    wait_for(lambda: call("/echo") == 200, 1.5, "open without a token")
    assert call("/echo/deep") == 200
    assert call("/echoes") == call("/perform") == 401
    set_active(False)
    wait_for(lambda: call("/echo") == 401, 1.5, "closed again")
    assert call("/echo/deep") == 401

    set_active(True)
    cli("deploy", folder, "dev", "--force", "-e", "owner_email=someone@example.com", "--build-context", "local")
    assert call("/echo") == 200, "it stays open over a deployment"
    manifest = (folder / "job.yaml").read_text()
    (folder / "job.yaml").write_text(manifest.replace("- /api/v1/echo\n", ""))
    cli("deploy", folder, "dev", "--force")
    wait_for(lambda: call("/echo") == 401, 1.5, "closed when the manifest asks for it no more")
    assert [e["endpoint"] for e in api.get(path).json()] == ["/api/v1/perform"]
    cli("delete", name, "--version", "0.0.1")


def test_secret_files_in_an_uploaded_context(platform):
    """Clients of the original upload them besides sending their content; that in the clear is not kept, and not taken for the secret."""
    api, name = platform.lifecycle, fresh_name("secret")
    manifest = {"name": name, "version": "0.0.1", "owner_email": "a@example.com", "jobtype": "python3:latest",
                "git": {"remote": "https://example.com/x.git"}, "secret_runtime_env_file": "conf/run.env",
                "jobtype_extra": {"entrypoint_path": "adder.py", "entrypoint_class": "AdderModel"}}
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w:gz") as tar:
        for path, code in {
            "adder.py": b"import os\nclass AdderModel:\n    def perform(self):\n        return os.environ['TOKEN']\n",
            "conf/run.env": b"TOKEN=hunter2\n",
        }.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(code)
            tar.addfile(entry, io.BytesIO(code))
    body = {"manifest": manifest, "build_context": base64.b64encode(context.getvalue()).decode()}
    refused = api.post("/api/v1/deploy", json=body)
    assert refused.status_code == 400, refused.text
    assert "'conf/run.env'" in refused.json()["error"] and "secret_vars.runtime_env" in refused.json()["error"]
    body["secret_vars"] = {"build_env": {}, "runtime_env": {"TOKEN": "hunter2"}}
    deployment = api.post("/api/v1/deploy", json=body)
    assert deployment.status_code == 200, deployment.text
    path = f"/api/v1/deploy/{deployment.json()['id']}"
    done = wait_for(lambda: (d := api.get(path).json())["status"] != "in_progress" and d, 60, "the deployment ends")
    assert done["status"] == "done", done["error"]
    assert "'conf/run.env'" in done["warnings"]
    assert platform.source(name) == ["adder.py"]
    assert platform.call(name, {}).json() == "hunter2"
    assert api.delete(f"/api/v1/job/{name}/0.0.1").status_code < 300


def test_a_fatman_era_client_deploys_and_deletes(platform):
    """The calls of a 2.2.0 client, in its words."""
    api, name = platform.lifecycle, fresh_name("fatman")
    manifest = {
        "name": name, "owner_email": "sample@example.com", "lang": "python3", "version": "0.0.1",
        "git": {"remote": "https://github.com/TheRacetrack/racetrack", "directory": "sample/python-class", "branch": None},
        "python": {"requirements_path": None, "entrypoint_path": "adder.py", "entrypoint_class": "AdderModel"},
    }
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w:gz") as tar:
        tar.add(SAMPLE / "python-class/adder.py", "adder.py")
    body = {"manifest": manifest, "git_credentials": None, "secret_vars": None, "force": False,
            "build_context": base64.b64encode(context.getvalue()).decode()}
    deployment = api.post("/api/v1/deploy", json=body)
    assert deployment.status_code == 200, deployment.text
    path = f"/api/v1/deploy/{deployment.json()['id']}"
    done = wait_for(lambda: (d := api.get(path).json())["status"] != "in_progress" and d, 60, "the deployment ends")
    assert done["status"] == "done", done["error"]
    assert done["fatman"]["name"] == name and done["fatman"]["pub_url"].endswith(f"/pub/fatman/{name}/0.0.1")
    assert done["job"]["pub_url"].endswith(f"/pub/job/{name}/0.0.1") and done["job"]["manifest"]["jobtype"] is None
    fatman = api.get(f"/api/v1/fatman/{name}/latest").json()
    assert fatman["status"] == "running" and f"/fatman/{name}/0.0.1" in fatman["pub_url"]
    assert name in [f["name"] for f in api.get("/api/v1/fatman").json()]
    assert name in [f["name"] for f in api.get("/api/v1/fatman_family").json()]
    answer = platform.pub.post(f"/pub/fatman/{name}/latest/api/v1/perform", json={"numbers": [40, 2]})
    assert answer.json() == 42
    assert "logs" in api.get(f"/api/v1/fatman/{name}/0.0.1/build-logs?tail=0").json()
    assert api.post(f"/api/v1/fatman/{name}/0.0.1/redeploy").status_code == 200
    assert api.delete(f"/api/v1/fatman/{name}/0.0.1").status_code == 200
    assert api.get(f"/api/v1/fatman/{name}/0.0.1").status_code == 404


# What a 2.2.0 client's models have; any other key of a manifest fails there.
FATMAN_MANIFEST_KEYS = set(
    "name owner_email git version lang extends python golang docker image_type system_dependencies build_env runtime_env "
    "secret_build_env_file secret_runtime_env_file labels public_endpoints replicas resources".split()
)


def test_a_job_of_today_is_a_fatman_to_clients_of_that_era(platform, deployed):
    name = deployed("python-class")
    api = platform.lifecycle
    one = api.get(f"/api/v1/fatman/{name}/latest").json()
    listed = next(f for f in api.get("/api/v1/fatman").json() if f["name"] == name)
    for fatman in (one, listed):
        manifest = fatman["manifest"]
        assert set(manifest) == FATMAN_MANIFEST_KEYS
        assert manifest["lang"] == "python3"
        assert manifest["python"] == {"entrypoint_path": "adder.py", "entrypoint_class": "AdderModel"}
        assert set(manifest["git"]) == {"remote", "branch", "directory"} and manifest["replicas"] == 1
        assert fatman["pub_url"].endswith(f"/pub/fatman/{name}/0.0.1")
    job = api.get(f"/api/v1/job/{name}/latest").json()
    assert job["manifest"]["jobtype"] == "python3:latest" and job["pub_url"].endswith(f"/pub/job/{name}/0.0.1")


def test_a_path_that_is_not_there_is_named_as_it_was_asked_for(platform):
    answer = platform.lifecycle.get("/api/v1/fatman/a/b/c/d")
    assert answer.status_code == 404 and "/api/v1/fatman/a/b/c/d" in answer.json()["error"]


def test_jobs_of_the_fatman_era_find_their_environment(platform, cli, make_job):
    folder, name = make_job()
    (folder / "adder.py").write_text(
        "import os\n"
        "class AdderModel:\n"
        "    def perform(self, numbers=()):\n"
        "        return {k: os.environ.get(k) for k in ('FATMAN_NAME', 'FATMAN_VERSION', 'FATMAN_DEPLOYMENT_TIMESTAMP', 'JOB_DEPLOYMENT_TIMESTAMP')}\n"
    )
    cli("deploy", folder, "dev")
    seen = platform.call(name, {}).json()
    assert (seen["FATMAN_NAME"], seen["FATMAN_VERSION"]) == (name, "0.0.1")
    assert seen["FATMAN_DEPLOYMENT_TIMESTAMP"] == seen["JOB_DEPLOYMENT_TIMESTAMP"] != None  # noqa: E711
    cli("delete", name, "--version", "0.0.1")
