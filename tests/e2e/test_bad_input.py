"""Bad input to the whole set, as the CLI or plain HTTP sends it: each mistake gets an answer that names the thing and says what to
do, and leaves nothing behind. What single parsers make of hostile bytes is in the unit tests."""

import base64
import contextlib
import gzip
import hashlib
import hmac
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import time
from pathlib import Path

import pytest

from harness import BIN, DEV_AUTH_KEY, Cli, Platform, copy_sample, fresh_name, process_alive, registry_token, wait_for

ADDER = "class AdderModel:\n    def perform(self, numbers: list) -> float:\n        return sum(numbers)\n"
LIMIT_S = 2
TIMEOUTS = f"timeout_until_job_alive: {LIMIT_S}\ntimeout_until_job_ready: {LIMIT_S}\ndrain_delay_ms: 100\nsupervisor_interval_ms: 500\n"


@pytest.fixture(scope="module")
def module_platform():
    """The whole set; a job may take two seconds to become ready."""
    platform = Platform()
    config = platform.folder / "lifecycle.yaml"
    config.write_text(TIMEOUTS)
    try:
        platform.up("postgres", "image_builder")
        platform.up("lifecycle", env={"CONFIG_FILE": config})
        platform.up("pub")
        yield platform
    finally:
        platform.close()


@pytest.fixture
def own(module_platform, request):
    request.node.platform = module_platform
    return module_platform


@pytest.fixture
def cli(own, tmp_path):
    cli = Cli(tmp_path / "home")
    cli("set", "alias", "dev", own.remote)
    cli("login", "dev", own.token)
    cli("set", "remote", "dev")
    return cli


def job_processes(platform):
    """Processes of this set's jobs: the sandbox's command line names its folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.fsencode(platform.state / "jobs") in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return {pid for pid in found if process_alive(pid)}


def traces(platform):
    """What a deployment that failed must not leave: rows, folders, temporary files, processes."""
    def names(*folders):
        return {str(p) for folder in folders for p in (platform.state / folder).glob("*")}

    tables = ("registry_job", "registry_jobgeneration", "registry_jobsecret", "registry_deploymentsecret")
    counts = ", ".join(f"(select count(*) from {table})" for table in tables)
    return {
        "rows": platform.sql(f"select {counts}, (select count(*) from registry_deployment where status = 'in_progress')"),
        "folders": names("jobs", "jobs/.locks", "images/tmp", "images/workspaces"),
        "processes": job_processes(platform),
    }


@pytest.fixture
def clean(own):
    """Fails when the test has left something behind."""
    before = traces(own)
    yield
    wait_for(lambda: traces(own) == before, 10, f"nothing is left behind; before: {before}", 0.1)


# --- the manifest: refused by the CLI before anything is sent, and by the server when something else sends it

DEEP = "labels: " + "[" * 20_000 + "]" * 20_000 + "\n"
MANIFESTS = {  # what is appended to a good manifest (or replaces it), what the answer must say
    "unknown key": ("replica: 2\n", ["replica", "not a known key", "did you mean 'replicas'", "line "]),
    "SemVer": ("version: 1.0.x\n", ["version: '1.0.x' is not a version", "MAJOR.MINOR.PATCH"]),
    "alias": ("labels: &a {x: y}\nextra_vars: *a\n", ["anchors (&a) are not supported", "line "]),
    "duplicate key": ("name: another\n", ["the key 'name' is there twice", "line "]),
    "20,000 levels": (DEEP, ["nested deeper than 32 levels", "line "]),
    "tab": ("\tname: x\n", ["tab", "line "]),
    "entrypoint outside": ("jobtype_extra: {entrypoint_path: ../../etc/passwd}\n", ["entrypoint_path", "inside the job's folder"]),
}


def manifest_text(name, tail):
    text = f"name: {name}\nowner_email: sample@example.com\njobtype: python3:latest\ngit: {{remote: https://github.com/x/y}}\n"
    if not tail.startswith("jobtype_extra"):
        text += "jobtype_extra: {entrypoint_path: adder.py}\n"
    return text + tail


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_wrong_manifest_is_refused_by_the_cli(own, cli, tmp_path, case, clean):
    tail, says = MANIFESTS[case]
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "adder.py").write_text(ADDER)
    (folder / "job.yaml").write_text(manifest_text(fresh_name("bad"), tail))
    began = time.monotonic()
    done = cli("deploy", folder, "dev", check=False)
    assert done.returncode == 70 and time.monotonic() - began < 2
    assert all(text in done.stderr for text in says), done.stderr
    assert str(folder / "job.yaml") in done.stderr, "which file"


MANIFEST = {"name": "x", "version": "1.0.0", "owner_email": "a@example.com", "jobtype": "python3:latest",
            "git": {"remote": "https://example.com/x"}, "jobtype_extra": {"entrypoint_path": "adder.py"}}
OBJECTS = {
    "unknown key": ({"replica": 2}, ["replica: is not a known key: did you mean 'replicas'"]),
    "SemVer": ({"version": "1.0.x"}, ["version: '1.0.x' is not a version"]),
    "entrypoint outside": ({"jobtype_extra": {"entrypoint_path": "../../etc/passwd"}}, ["jobtype_extra.entrypoint_path", "inside the job's folder"]),
    "several": ({"replica": 2, "version": "x", "name": None}, ["replica", "version", "name"]),
    "too much memory": ({"resources": {"memory_max": "900Gi"}}, ["resources.memory_max", "8Gi", "max_job_memory_limit"]),
    "no job type": ({"jobtype": 7}, ["jobtype"]),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_a_wrong_manifest_is_refused_by_the_server(own, case, clean):
    changes, says = OBJECTS[case]
    deployments = own.sql("select count(*) from registry_deployment")
    reply = own.lifecycle.post("/api/v1/deploy", json={"manifest": {**MANIFEST, **changes}, "build_context": archive(GOOD)})
    assert reply.status_code in (400, 422), reply.text
    assert all(text in reply.json()["error"] for text in says), reply.text
    assert own.sql("select count(*) from registry_deployment") == deployments


@pytest.mark.parametrize("body", [
    b'{"manifest": ' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    b'{"manifest": {"labels": ' + b"[" * 20_000 + b"]" * 20_000 + b"}}",
    b'{"manifest": {"name": "a", "name": "b"}}',
])
def test_json_of_20000_levels_or_with_doubled_keys_is_refused(own, body, clean):
    reply = own.lifecycle.post("/api/v1/deploy", data=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400, reply.text
    assert "not valid JSON" in reply.json()["error"]


@pytest.mark.parametrize("text", ["name: &a [*a]\n", "{" * 20_000, "name: another\n", "\tx\0"])
def test_a_manifest_text_that_says_something_else_does_not_count(own, text):
    """What is checked is what is deployed: the object. The text beside it is kept for its comments only."""
    name = fresh_name("text")
    ended = deploy_raw(own, archive(GOOD), name, manifest_yaml=text.replace("\0", ""))
    assert ended["status"] == "done", ended["error"]
    job = own.lifecycle.get(f"/api/v1/job/{name}/1.0.0").json()
    assert job["manifest"]["name"] == name and f"name: {name}" in job["manifest_yaml"]
    own.lifecycle.delete(f"/api/v1/job/{name}/1.0.0")


# --- the code: the error is the user's own, with the line where it is

CODE = {
    "missing file": ({}, {"entrypoint_path": "nope.py"}, ["entrypoint_path", "no file 'nope.py'"]),
    "missing class": ({}, {"entrypoint_path": "adder.py", "entrypoint_class": "Nope"}, ["adder.py has no class Nope", "AdderModel"]),
    "missing requirements": ({}, {"entrypoint_path": "adder.py", "requirements_path": "needs.txt"}, ["requirements_path", "no file 'needs.txt'"]),
    "syntax": ({"adder.py": "class AdderModel:\n    def perform(self:\n"}, None, ["SyntaxError: '(' was never closed", "adder.py", "line 2"]),
    "import": ({"adder.py": "import nothere\n"}, None, ["ModuleNotFoundError: No module named 'nothere'", 'adder.py", line 1']),
    "raises": ({"adder.py": ADDER + "    def __init__(self):\n        raise RuntimeError('weights.bin is missing')\n"}, None,
               ["RuntimeError: weights.bin is missing", 'adder.py", line 5']),
    "exits": ({"adder.py": "import os\nprint('bye', flush=True)\nos._exit(3)\n"}, None, ["exit", "3", "bye"]),
    "never ends": ({"adder.py": ADDER + "    def __init__(self):\n        print('loading', flush=True)\n        while True: pass\n"}, None,
                   [f"is not ready after {LIMIT_S} s", "timeout_until_job_ready", "loading"]),
    "no perform": ({"adder.py": "class AdderModel:\n    pass\n"}, None, ["perform"]),
    "unknown job type": ({}, None, ["jobtype", "'cobol'", "available: python3"]),
}


@pytest.mark.parametrize("case", CODE)
def test_wrong_code_is_explained(own, cli, tmp_path, case, clean):
    files, extra, says = CODE[case]
    name = fresh_name("bad")
    changes = {"jobtype_extra": extra} if extra else {}
    if case == "unknown job type":
        changes["jobtype"] = "cobol:latest"
    folder = copy_sample("python-class", tmp_path / "job", name=name, files=files, **changes)
    done = cli("deploy", folder, "dev", check=False, timeout=30)
    assert done.returncode == 70, done.stdout
    assert all(text in done.stderr for text in says), done.stderr
    assert f"racetrack build-logs {name}" in done.stderr, "where to look"
    assert cli("build-logs", name, "--version", "0.0.1").stdout, "the command that the error names works"
    assert own.lifecycle.get(f"/api/v1/job/{name}/0.0.1").status_code == 404
    assert own.call(name, {}).status_code == 404


@pytest.mark.parametrize("case", ["syntax", "never ends", "exits"])
def test_a_wrong_redeploy_leaves_the_running_job(own, cli, tmp_path, case, clean):
    name = fresh_name("good")
    folder = copy_sample("python-class", tmp_path / "job", name=name)
    cli("deploy", folder, "dev")
    with_one = traces(own)
    (folder / "adder.py").write_text(CODE[case][0]["adder.py"])
    done = cli("deploy", folder, "dev", "--force", check=False)
    assert done.returncode == 70
    assert own.call(name, {"numbers": [40, 2]}).json() == 42
    assert own.lifecycle.get(f"/api/v1/job/{name}/0.0.1").json()["status"] == "running"
    wait_for(lambda: traces(own) == with_one, 10, "only the running generation is there", 0.1)
    cli("delete", name, "--version", "0.0.1")


# --- the uploaded archive

def archive(*members, end=None):
    """base64 of a tar.gz; a member is (name, text) or (name, dict of the header's fields)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            data = what.encode() if isinstance(what, str) else b""
            for field, value in ({} if isinstance(what, str) else what).items():
                setattr(info, field, value)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return base64.b64encode(out.getvalue()[:end]).decode()


def bomb():
    """2.5 GiB of zeros in one file, 2.5 MB packed (a gzip file may have many members)."""
    info = tarfile.TarInfo("zeros")
    info.size = 2560 << 20
    zeros = gzip.compress(bytes(64 << 20), 9)
    return base64.b64encode(gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + zeros * 40 + gzip.compress(bytes(1024))).decode()


def many_small():
    """Less than the limit for one file, but a hundred times its size and more than all may have together."""
    out = b""
    zeros = gzip.compress(bytes(64 << 20), 9)
    for i in range(48):
        info = tarfile.TarInfo(f"zeros{i}")
        info.size = 64 << 20
        out += gzip.compress(info.tobuf(tarfile.GNU_FORMAT)) + zeros
    return base64.b64encode(out + gzip.compress(bytes(1024))).decode()


GOOD = ("adder.py", ADDER)
ARCHIVES = {
    "..": (lambda out: archive(GOOD, (f"../../../../../..{out}/evil", "x")), ["path with '..'"]),
    "absolute": (lambda out: archive(GOOD, (f"{out}/evil", "x")), ["absolute path", "evil"]),
    "through a symlink": (lambda out: archive(GOOD, ("way", {"type": tarfile.SYMTYPE, "linkname": str(out)}), ("way/evil", "x")),
                          ["symbolic link that leads out of it: way"]),
    "through an upward symlink": (lambda out: archive(GOOD, ("way", {"type": tarfile.SYMTYPE, "linkname": "../.."}), ("way/evil", "x")),
                                  ["symbolic link that leads out of it: way"]),
    "hardlink": (lambda out: archive(GOOD, ("passwd", {"type": tarfile.LNKTYPE, "linkname": "../../../../etc/passwd"})), ["path with '..'"]),
    "absolute hardlink": (lambda out: archive(GOOD, ("passwd", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})), ["absolute path: /etc/passwd"]),
    "device": (lambda out: archive(GOOD, ("zero", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})), ["zero", "neither a file"]),
    "disk": (lambda out: archive(GOOD, ("disk", {"type": tarfile.BLKTYPE, "devmajor": 8})), ["disk", "neither a file"]),
    "pipe": (lambda out: archive(GOOD, ("pipe", {"type": tarfile.FIFOTYPE})), ["pipe", "neither a file"]),
    "setuid": (lambda out: archive(GOOD, ("tool", {"mode": 0o4755})), ["setuid", "tool"]),
    "bomb": (lambda out: bomb(), ["unpacks to more than", "zeros"]),
    "bomb of many": (lambda out: many_small(), ["unpacks to more than"]),
    "cut off": (lambda out: archive(GOOD, end=-12), ["cut off"]),
    "no archive": (lambda out: base64.b64encode(b"hello").decode(), ["not a sound tar archive"]),
    "no entrypoint": (lambda out: archive(("other.py", "")), ["no file 'adder.py'"]),
}


def deploy_raw(platform, context, name, **more):
    """POSTs a deployment and waits for its end; the deployment's row."""
    reply = platform.lifecycle.post("/api/v1/deploy", json={"manifest": {**MANIFEST, "name": name}, "build_context": context, **more})
    assert reply.status_code == 200, reply.text
    path = f"/api/v1/deploy/{reply.json()['id']}?wait_ms=5000&status=in_progress"
    return wait_for(lambda: (lambda d: d["status"] != "in_progress" and d)(platform.lifecycle.get(path).json()), 30, "the deployment ends")


@pytest.mark.parametrize("case", ARCHIVES)
def test_a_hostile_archive_is_refused(own, tmp_path, case, clean):
    make, says = ARCHIVES[case]
    tmp_path.chmod(0o777)
    name = fresh_name("bad")
    ended = deploy_raw(own, make(tmp_path), name)
    assert ended["status"] == "failed"
    assert all(text in ended["error"] for text in says), ended["error"]
    assert not (tmp_path / "evil").exists()
    assert own.lifecycle.get(f"/api/v1/job/{name}/1.0.0").status_code == 404


def test_a_good_archive_is_deployed(own):
    """The archives above are refused for what is wrong with them, not for what they share."""
    name = fresh_name("good")
    assert deploy_raw(own, archive(GOOD), name)["status"] == "done"
    assert own.call(name, {"numbers": [40, 2]}).json() == 42
    assert own.lifecycle.delete(f"/api/v1/job/{name}/1.0.0").status_code == 200


def test_a_folder_that_cannot_be_packed_is_explained(own, cli, tmp_path, clean):
    def deploy(name, spoil):
        folder = copy_sample("python-class", tmp_path / name, name=fresh_name("bad"))
        spoil(folder)
        done = cli("deploy", folder, "dev", check=False)
        assert done.returncode == 70
        return done.stderr

    def heavy(folder):
        with open(folder / "weights.bin", "wb") as f:
            f.write(os.urandom(75 << 20))

    assert "passwd is a symbolic link that leads out of the folder" in deploy("link", lambda f: (f / "passwd").symlink_to("/etc/passwd"))
    assert "pipe is neither a file, a folder nor a symbolic link" in deploy("pipe", lambda f: os.mkfifo(f / "pipe"))
    error = deploy("heavy", heavy)
    assert "are too large: at most 70 MiB" in error and "75 MiB  weights.bin" in error and ".gitignore" in error


# --- bodies and framing

BODY_CASES = {
    "cut JSON": ({"data": b'{"manifest": {"name": "x"', "headers": {"Content-Type": "application/json"}}, 400, "not valid JSON"),
    "no JSON": ({"data": b"name: x", "headers": {"Content-Type": "application/json"}}, 400, "not valid JSON"),
    "a form": ({"data": {"manifest": "x"}}, 415, "Content-Type must be application/json"),
    "a list": ({"json": [1]}, 422, "must be a mapping"),
    "nothing in it": ({"json": {}}, 422, "body.manifest is required"),
    "no base64": ({"json": {"manifest": {"name": "x"}, "build_context": "%%%"}}, (400, 422), ""),
    "a huge manifest": ({"json": {"manifest": {**MANIFEST, "labels": {"a": "x" * 300_000}}}}, 413, "256 KiB"),
}


@pytest.mark.parametrize("case", BODY_CASES)
def test_a_wrong_body_is_explained(own, case, clean):
    kwargs, status, says = BODY_CASES[case]
    reply = own.lifecycle.post("/api/v1/deploy", **kwargs)
    assert reply.status_code in (status if isinstance(status, tuple) else (status,)), reply.text
    assert says in reply.json()["error"] and reply.json()["type"]


def head(platform, path, *lines, token=None):
    fields = [f"POST {path} HTTP/1.1", "Host: x", f"X-Racetrack-Auth: {token or platform.token}", "Content-Type: application/json", *lines]
    return "\r\n".join(fields).encode() + b"\r\n\r\n"


def exchange(port, data, more=b"", end_of_input=False):
    """Sends bytes, reads until the server closes: what it said."""
    out = b""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as s:
        s.sendall(data)
        if end_of_input:
            s.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            for _ in range(200 if more else 0):
                s.sendall(more)
        with contextlib.suppress(ConnectionResetError):
            while chunk := s.recv(65536):
                out += chunk
    return out


@pytest.fixture(scope="module")
def adder(module_platform):
    name = fresh_name("adder")
    assert deploy_raw(module_platform, archive(GOOD), name)["status"] == "done"
    yield name
    module_platform.lifecycle.delete(f"/api/v1/job/{name}/1.0.0")


FRAMING = {
    "CL and TE": (["Content-Length: 5", "Transfer-Encoding: chunked"], b"0\r\n\r\n", 400, b"Transfer-Encoding"),
    "two lengths": (["Content-Length: 5", "Content-Length: 6"], b"hello!", 400, b"Content-Length"),
    "same length twice": (["Content-Length: 5", "Content-Length: 5"], b"hello", 400, b"Content-Length"),
    "list of lengths": (["Content-Length: 5, 5"], b"hello", 400, b"Content-Length"),
    "200 MB announced": (["Content-Length: 209715200"], b"{", 413, b" MiB"),
}


@pytest.mark.parametrize("case", FRAMING)
@pytest.mark.parametrize("service", ["lifecycle", "image_builder", "pub"])
def test_framing_that_could_smuggle_is_refused(own, adder, service, case):
    """And what follows on the connection is never taken for a request."""
    lines, body, status, says = FRAMING[case]
    path = {"lifecycle": "/api/v1/deploy", "image_builder": "/api/v1/build", "pub": f"/pub/job/{adder}/latest/api/v1/perform"}[service]
    smuggled = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n" if status == 400 else b""
    token = registry_token() if service == "image_builder" else None
    answer = exchange(own.port(service), head(own, path, *lines, token=token) + body + smuggled)
    assert answer.split()[1] == str(status).encode() and says in answer, answer
    assert b"HTTP/1.1 2" not in answer, "what followed was taken for a request"
    assert own.call(adder, {"numbers": [40, 2]}).json() == 42


@pytest.mark.parametrize("service", ["lifecycle", "pub"])
def test_a_200_mb_body_is_refused(own, adder, service):
    """Its length is not announced: it is refused on the way, and is not kept in memory."""
    path = "/api/v1/deploy" if service == "lifecycle" else f"/pub/job/{adder}/latest/api/v1/perform"
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    peak = [0]
    done = threading.Event()

    def measure():
        while not done.wait(0.02):
            with open(f"/proc/{own.pid(service)}/status") as f:
                peak[0] = max(peak[0], int(next(line for line in f if line.startswith("VmRSS")).split()[1]))

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        answer = exchange(own.port(service), head(own, path, "Transfer-Encoding: chunked"), chunk)
    finally:
        done.set()
        thread.join()
    assert not answer or answer.split()[1] == b"413", answer[:300]  # a reset may overtake the answer
    assert peak[0] < (250 if service == "lifecycle" else 64) * 1024, "KiB resident"
    assert own.lifecycle.get("/ready").status_code == 200
    assert own.call(adder, {"numbers": [40, 2]}).json() == 42


@pytest.mark.parametrize("service", ["lifecycle", "pub"])
def test_a_body_that_ends_too_early_costs_only_its_sender(own, adder, service, clean):
    path = "/api/v1/deploy" if service == "lifecycle" else f"/pub/job/{adder}/latest/api/v1/perform"
    answer = exchange(own.port(service), head(own, path, "Content-Length: 100") + b'{"numbers":', end_of_input=True)
    assert not answer or answer.split()[1] == b"400", answer
    assert own.call(adder, {"numbers": [40, 2]}).json() == 42


@pytest.mark.parametrize("body", [b'{"numbers": [40', b"hello", b"[1]", b'{"nope": 1}'])
def test_a_wrong_payload_is_explained(own, adder, body):
    reply = own.pub.post(f"/pub/job/{adder}/latest/api/v1/perform", data=body, headers={"Content-Type": "application/json"})
    assert 400 <= reply.status_code < 500 or b"nope" in body, reply.text
    assert reply.json()["error"]


# --- tokens

def b64url(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwt(payload, key=DEV_AUTH_KEY, alg="HS256", digest=hashlib.sha256):
    signed = b64url(json.dumps({"alg": alg, "typ": "JWT"}).encode()) + "." + b64url(json.dumps(payload).encode())
    return signed + "." + (b64url(hmac.new(key.encode(), signed.encode(), digest).digest()) if key else "")


INTERNAL = {"seed": "1", "subject": "lifecycle", "subject_type": "internal", "scopes": ["full_access"]}


TOKENS = {
    "none": None,
    "garbage": "x",
    "not signed": jwt(INTERNAL, key=None, alg="none"),
    "none in capitals": jwt(INTERNAL, key=None, alg="NoNe"),
    "signed, said to be unsigned": jwt(INTERNAL, alg="none"),
    "another algorithm": jwt(INTERNAL, alg="HS512", digest=hashlib.sha512),
    "an asymmetric algorithm": jwt(INTERNAL, alg="RS256"),
    "another key": jwt(INTERNAL, key="x" * 32),
    "an unknown subject": jwt({"seed": "1", "subject": "ghost", "subject_type": "user", "scopes": None}),
    "expired by its own words": jwt({**INTERNAL, "exp": 1}),
}


@pytest.mark.parametrize("case", TOKENS)
def test_a_wrong_token_opens_nothing(own, adder, case):
    token = TOKENS[case]
    replies = [
        own.lifecycle.get("/api/v1/job", token=token),
        own.lifecycle.post("/api/v1/deploy", token=token, json={"manifest": {}}),
        own.image_builder.post("/api/v1/build", token=token, json={}),
        own.image_builder.get("/v2/", token=token),
        own.pub.post(f"/pub/job/{adder}/latest/api/v1/perform", token=token, json={"numbers": [40, 2]}),
    ]
    refusals = {401, 403} if case == "an unknown subject" else {401}  # who has the key is known, and refused for what he is
    assert {r.status_code for r in replies} <= refusals, [r.text for r in replies]
    for reply in replies:
        assert "error" in reply.text and (token is None or len(token) < 4 or token not in reply.text)


def caller(own, adder, **token):
    """An ESC that may call the adder: (its id, its token's row)."""
    esc = own.lifecycle.post("/api/v1/escs", json={"name": fresh_name("esc")}).json()["id"]
    for row in own.lifecycle.get(f"/api/v1/escs/{esc}/auth_data").json()["tokens"]:
        own.lifecycle.delete(f"/api/v1/escs/{esc}/auth_token/{row['id']}")
    added = own.lifecycle.post(f"/api/v1/escs/{esc}/auth_token", json={"expiry_time": None, **token})
    assert added.status_code in (200, 201), added.text
    (row,) = [t for t in own.lifecycle.get(f"/api/v1/escs/{esc}/auth_data").json()["tokens"] if t["active"]]
    granted = own.lifecycle.post(f"/api/v1/auth/allow/esc/{esc}/job/{adder}/scope/call_job")
    assert granted.status_code == 200, granted.text
    return esc, row


def test_an_expired_token_ends_at_its_time(own, adder):
    """Also for a caller whom pub knows already."""
    ends = int(time.time()) + 3
    _, row = caller(own, adder, expiry_time=ends)

    def call():
        return own.call(adder, {"numbers": [40, 2]}, token=row["token"]).status_code

    wait_for(lambda: call() == 200, 2, "the grant takes effect")
    wait_for(lambda: call() == 401, ends + 1 - time.time(), "the end within a second")
    assert time.time() >= ends - 0.1
    reply = own.lifecycle.get("/api/v1/job", token=row["token"])
    assert reply.status_code == 401 and "expired" in reply.json()["error"]


@pytest.mark.parametrize("what", ["token", "grant"])
def test_what_is_revoked_ends_within_a_second(own, adder, what):
    esc, row = caller(own, adder)

    def call():
        return own.call(adder, {"numbers": [40, 2]}, token=row["token"]).status_code

    wait_for(lambda: call() == 200, 1, "the grant takes effect within a second")
    path = f"/api/v1/escs/{esc}/auth_token/{row['id']}" if what == "token" else f"/api/v1/auth/allow/esc/{esc}/job/{adder}/scope/call_job"
    assert own.lifecycle.delete(path).status_code == 200
    wait_for(lambda: call() == (401 if what == "token" else 403), 1, "the revocation within a second")


# --- a port that somebody has

@pytest.mark.parametrize("service", ["lifecycle", "image_builder", "pub"])
def test_a_taken_port_is_named(own, tmp_path, service):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        env = {**own.env, **own.settings(), "RACETRACK_STATE": str(tmp_path), f"{service.upper()}_PORT": str(port)}
        done = subprocess.run([BIN / service], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, cwd=tmp_path)
    assert done.returncode not in (0, -6, -11), done.stderr
    assert str(port) in done.stderr and "in use" in done.stderr and f"{service.upper()}_PORT" in done.stderr, done.stderr
