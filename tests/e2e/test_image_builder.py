"""image_builder by itself: what needs pip, git, skopeo, or a process to kill."""

import base64
import contextlib
import hashlib
import http.server
import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import tarfile
import threading
import zipfile

import pytest
import requests
import yaml

from harness import BIN, clean_environment, copy_sample, process_alive, registry_token, wait_for

ADDER = "class Adder:\n    def perform(self, a, b):\n        return a + b\n"


def manifest(name="adder", **changes):
    text = {
        "name": name, "version": "1.0.0", "owner_email": "a@example.com", "jobtype": "python3:latest",
        "git": {"remote": "https://example.com/x"},
        "jobtype_extra": {"entrypoint_path": "adder.py", "entrypoint_class": "Adder"},
    }
    extra = changes.pop("extra", {})
    text.update(changes)
    text["jobtype_extra"].update(extra)
    return text


def context(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            data = data if isinstance(data, bytes) else data.encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def make_wheel(folder, name="tinywheel", version="1.0", code="ANSWER = 42\n"):
    files = {
        f"{name}/__init__.py": code,
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{name}-{version}.dist-info/RECORD"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(record, "".join(f"{p},,\n" for p in [*files, record]))


def make_sdist(folder, setup, name="custom"):
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as tar:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        for path, text in {"setup.py": setup, "PKG-INFO": metadata}.items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


class Builder:
    def __init__(self, folder, **env):
        self.state, self.wheels = folder / "state", folder / "wheels"
        self.wheels.mkdir(exist_ok=True)
        self.state.mkdir(exist_ok=True)
        self.env = clean_environment(
            RACETRACK_STATE=self.state, RACETRACK_PROFILE="dev", IMAGE_BUILDER_PORT=0, LIFECYCLE_URL="http://127.0.0.1:1/lifecycle",
            PIP_NO_INDEX=1, PIP_FIND_LINKS=self.wheels, **env,
        )
        self.token = registry_token()
        self.process = None
        self.start()

    def start(self):
        port_file = self.state / "run/image_builder.port"
        port_file.unlink(missing_ok=True)
        with open(self.state / "log", "a") as log:
            self.process = subprocess.Popen([BIN / "image_builder"], env=self.env, stdin=subprocess.DEVNULL, stderr=log)

        def port():
            assert self.process.poll() is None, (self.state / "log").read_text()
            return int(port_file.read_text())

        self.port = wait_for(port, 20, "image_builder starts")
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
        return self.process.wait(10)

    def put_source(self, files):
        data = context(files)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        answer = requests.put(f"{self.url}/api/v1/sources/{digest}", data=data, headers={"X-Racetrack-Auth": self.token}, timeout=60)
        assert answer.status_code == 201, answer.text
        return digest

    def body(self, job, files, **changes):
        return {
            "manifest": job, "manifest_yaml": yaml.safe_dump(job), "git_credentials": None, "secret_build_env": {},
            "tag": "2026-01-31T120000", "source_digest": None if files is None else self.put_source(files), "deployment_id": "dep-1",
            "build_flags": [], **changes,
        }

    def post(self, path, body, **kwargs):
        kwargs.setdefault("timeout", 120)
        return requests.post(self.url + path, json=body, headers={"X-Racetrack-Auth": self.token}, **kwargs)

    def get(self, path):
        return requests.get(self.url + path, headers={"X-Racetrack-Auth": self.token}, timeout=30)

    def build(self, job, files, **changes):
        answer = self.post("/api/v1/build", self.body(job, files, **changes))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def layers(self, result):
        """{role: {path: bytes}} of a built image."""
        assert result["error"] is None, result
        repository = result["image_name"].split("/", 1)[1].rsplit(":", 1)[0]
        document = self.get(f"/v2/{repository}/manifests/{result['image_digest']}").json()
        out = {}
        for layer in document["layers"]:
            blob = self.get(f"/v2/{repository}/blobs/{layer['digest']}").content
            with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
                out[layer["annotations"]["io.racetrack.layer"]] = {
                    m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()
                }
        return out

    def left_over(self):
        return os.listdir(self.state / "images/workspaces") + os.listdir(self.state / "images/tmp")


@pytest.fixture
def builder(tmp_path):
    b = Builder(tmp_path)
    yield b
    b.stop()


def with_requirements(text, **more):
    return {"adder.py": ADDER, "requirements.txt": text, **more}


REQUIRES = {"extra": {"requirements_path": "requirements.txt"}}


# ---- other clients of the registry ----


def test_skopeo_pulls_what_was_built_and_pushes_it_back(builder, tmp_path):
    result = builder.build(manifest(), {"adder.py": ADDER})
    remote = f"docker://127.0.0.1:{builder.port}/"
    image, copy = result["image_name"].split("/", 1)[1], tmp_path / "copy"
    credentials = f"anyone:{builder.token}"

    def skopeo(*args):
        done = subprocess.run(["skopeo", "--insecure-policy", *args], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    skopeo("copy", "--src-tls-verify=false", "--src-creds", credentials, remote + image, f"dir:{copy}")
    pulled = (copy / "manifest.json").read_bytes()
    assert "sha256:" + hashlib.sha256(pulled).hexdigest() == result["image_digest"]
    # a layer that the store has not seen, so that it is uploaded
    changed = json.loads(pulled)
    layer = b"another layer" * 100000
    digest = hashlib.sha256(layer).hexdigest()
    (copy / digest).write_bytes(layer)
    changed["layers"] = [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": len(layer), "digest": f"sha256:{digest}"}]
    (copy / "manifest.json").write_text(json.dumps(changed))
    skopeo("copy", "--dest-tls-verify=false", "--dest-creds", credentials, f"dir:{copy}", remote + "pushed/image:v1")
    seen = json.loads(skopeo("inspect", "--tls-verify=false", "--creds", credentials, remote + "pushed/image:v1"))
    assert seen["RepoTags"] == ["v1"] and seen["Layers"]
    assert builder.get(f"/v2/pushed/image/blobs/{seen['Layers'][0]}").status_code == 200


def test_skopeo_without_a_token_is_refused(builder, tmp_path):
    result = builder.build(manifest(), {"adder.py": ADDER})
    image = result["image_name"].split("/", 1)[1]
    done = subprocess.run(
        ["skopeo", "copy", "--src-tls-verify=false", f"docker://127.0.0.1:{builder.port}/{image}", f"dir:{tmp_path}/copy"],
        capture_output=True, text=True, timeout=60,
    )
    assert done.returncode != 0 and "unauthorized" in done.stderr.lower()


# ---- requirements ----


def test_requirements_become_a_layer_and_are_installed_once(builder):
    make_wheel(builder.wheels)
    files = with_requirements("# one\ntinywheel==1.0\n")
    first = builder.build(manifest(**REQUIRES), files)
    layers = builder.layers(first)
    assert layers["dependencies"]["src/packages/tinywheel/__init__.py"] == b"ANSWER = 42\n"
    assert not [p for p in layers["dependencies"] if "__pycache__" in p or p.endswith(".pyc")]
    assert layers["code"]["src/job/adder.py"] == ADDER.encode()
    assert "Successfully installed tinywheel" in first["logs"]
    (builder.wheels / "tinywheel-1.0-py3-none-any.whl").unlink()  # from here on only the cache has it
    again = builder.build(manifest(**REQUIRES), files)
    assert again["image_digest"] == first["image_digest"] and "unchanged" in again["logs"]
    changed = builder.build(manifest(**REQUIRES), {**files, "adder.py": ADDER + "# changed\n"})
    assert changed["image_digest"] != first["image_digest"] and "unchanged" in changed["logs"]
    fresh = builder.build(manifest(**REQUIRES), files, build_flags=["--no-cache"])
    assert fresh["error_code"] == "invalid"


def test_same_requirements_give_the_same_layer_on_another_machine(builder, tmp_path):
    make_wheel(builder.wheels)
    files = with_requirements("tinywheel\n")
    digest = builder.build(manifest(**REQUIRES), files)["image_digest"]
    (tmp_path / "other").mkdir()
    other = Builder(tmp_path / "other")
    try:
        make_wheel(other.wheels)
        assert other.build(manifest(**REQUIRES), files)["image_digest"] == digest
    finally:
        other.stop()


def test_files_that_requirements_refer_to_are_part_of_the_key(builder):
    make_wheel(builder.wheels, "one")
    make_wheel(builder.wheels, "two")
    files = with_requirements("-r more.txt\n", **{"more.txt": "one\n"})
    assert "src/packages/one/__init__.py" in builder.layers(builder.build(manifest(**REQUIRES), files))["dependencies"]
    files["more.txt"] = "two\n"
    assert "src/packages/two/__init__.py" in builder.layers(builder.build(manifest(**REQUIRES), files))["dependencies"]


def test_a_vendored_wheel_is_part_of_the_key(builder, tmp_path):
    for path in ("tinywheel-1.0-py3-none-any.whl", "vendor/tinywheel-1.0-py3-none-any.whl"):
        for answer in ("1", "2"):
            make_wheel(tmp_path, code=f"ANSWER = {answer}\n")
            files = with_requirements(f"{path}\n")
            files[path] = (tmp_path / "tinywheel-1.0-py3-none-any.whl").read_bytes()
            layers = builder.layers(builder.build(manifest(**REQUIRES), files))
            assert layers["dependencies"]["src/packages/tinywheel/__init__.py"] == f"ANSWER = {answer}\n".encode()


def test_a_file_that_the_job_gives_pip_is_part_of_the_key(builder):
    job = manifest(**REQUIRES, build_env={"PIP_CONSTRAINT": "constraints.txt"})
    for version in ("1.0", "2.0"):
        make_wheel(builder.wheels, version=version)
    for version in ("1.0", "2.0"):
        files = with_requirements("tinywheel\n", **{"constraints.txt": f"tinywheel=={version}\n"})
        layers = builder.layers(builder.build(job, files))
        assert f"src/packages/tinywheel-{version}.dist-info/METADATA" in layers["dependencies"]


def test_modules_of_the_job_are_not_pips(builder):
    make_wheel(builder.wheels)
    poison = "import sys, pathlib\n[target] = [a[9:] for a in sys.argv if a.startswith('--target=')]\n" \
             "pathlib.Path(target, 'tinywheel').mkdir(parents=True)\npathlib.Path(target, 'tinywheel/__init__.py').write_text('ANSWER = 0')\n"
    files = with_requirements("tinywheel\n", **{"pip/__init__.py": "", "pip/__main__.py": poison, "random.py": "raise Exception('mine')\n"})
    layers = builder.layers(builder.build(manifest(**REQUIRES), files))
    assert layers["dependencies"]["src/packages/tinywheel/__init__.py"] == b"ANSWER = 42\n"


def test_families_do_not_share_what_their_packages_may_have_changed(builder):
    make_wheel(builder.wheels)
    files = with_requirements("tinywheel\n")
    first = builder.build(manifest(**REQUIRES), files)
    other = builder.build({**manifest(**REQUIRES), "name": "another"}, files)
    assert "unchanged" not in other["logs"] and other["image_digest"] != first["image_digest"]


def test_empty_requirements_make_no_layer(builder):
    result = builder.build(manifest(**REQUIRES), with_requirements("\n  # nothing\n\n"))
    assert set(builder.layers(result)) == {"code"}


def test_failing_requirements_say_what_and_what_to_do(builder):
    result = builder.build(manifest(**REQUIRES), with_requirements("no-such-package==9\n"))
    assert result["error_code"] == "invalid" and result["image_name"] is None
    assert "requirements.txt" in result["error"] and "No matching distribution found for no-such-package==9" in result["error"]
    assert "check the name and the version" in result["error"]
    assert builder.left_over() == []


def test_secrets_reach_neither_log_nor_layer(builder):
    make_wheel(builder.wheels)
    secret = "very-secret-value-1"
    talk = "import os, sys\nsys.stderr.write('value: ' + os.environ['TOKEN'])\nsys.exit(1)\n"
    make_sdist(builder.wheels, talk)
    result = builder.build(manifest(**REQUIRES), with_requirements("custom\n"), secret_build_env={"TOKEN": secret})
    assert result["error_code"] == "invalid" and "value: ***" in result["logs"]
    assert secret not in json.dumps(result) and secret not in (builder.state / "images/logs/dep-1.log").read_text()
    make_wheel(builder.wheels, "leaky", code=f"VALUE = '{secret}'\n")
    result = builder.build(manifest(**REQUIRES), with_requirements("leaky\n"), secret_build_env={"TOKEN": secret})
    assert result["error_code"] == "invalid" and "secret build variable" in result["error"]
    assert secret not in (builder.state / "log").read_text()


def test_code_that_pip_runs_sees_neither_secrets_nor_state(builder):
    (builder.state / "secrets.env").write_text("AUTH_KEY=hidden\n")
    spy = (
        "import os, sys\n"
        f"sys.stderr.write('files: %s; ' % os.listdir({str(builder.state)!r}))\n"
        "sys.stderr.write('names: %s; ' % ' '.join(sorted(os.environ)))\n"
        "for p in ('/etc/shadow', '/root', '/home', '/run', '/var'):\n"
        "    try: sys.stderr.write('look: %s %s; ' % (p, open(p).read() if p == '/etc/shadow' else os.listdir(p)))\n"
        "    except OSError: pass\n"
        "sys.stderr.write('pids: %d;' % len([p for p in os.listdir('/proc') if p.isdigit()]))\n"
        "sys.exit(1)\n"
    )
    make_sdist(builder.wheels, spy)
    logs = builder.build(manifest(**REQUIRES), with_requirements("custom\n"))["logs"]
    names = logs.split("names: ")[1].split(";")[0]
    assert "AUTH_KEY" not in names and "RACETRACK" not in names and "LIFECYCLE" not in names
    assert "secrets.env" not in logs
    assert "root:" not in logs
    assert [line for line in re.findall(r"look: (\S+) ([^;]*);", logs) if line[1] not in ("", "[]")] in ([], [("/run", "['racetrack']")])
    assert int(logs.split("pids: ")[1].split(";")[0]) < 12


def test_client_that_goes_away_cancels_its_build(builder, tmp_path):
    make_sdist(builder.wheels, "import time\nprint('slow', flush=True)\ntime.sleep(100)\n")
    body = builder.body(manifest(**REQUIRES), with_requirements("custom\n"))
    with builder.post("/api/v1/build/sse", body, stream=True) as answer:
        lines = answer.iter_lines()
        assert any(b"Installing requirements.txt" in line for line in lines)
        wait_for(lambda: "active_building_tasks 1" in builder.get("/metrics").text, what="the build runs")
    wait_for(lambda: "active_building_tasks 0" in builder.get("/metrics").text, 15, "the build ends")
    assert builder.left_over() == []


def test_client_that_gives_up_waiting_cancels_its_build(builder):
    make_sdist(builder.wheels, "import time\ntime.sleep(100)\n")
    body = builder.body(manifest(**REQUIRES), with_requirements("custom\n"))
    with pytest.raises(requests.ReadTimeout):
        builder.post("/api/v1/build", body, timeout=2)
    wait_for(lambda: "image_building_done_requests_total{" in builder.get("/metrics").text, 15, "the build ends")
    assert builder.left_over() == []
    assert "images_buidling_errors_total 1" in builder.get("/metrics").text


def test_killed_in_a_build_it_starts_clean_and_builds_again(builder):
    make_sdist(builder.wheels, "import time\ntime.sleep(100)\n", name="slow")
    make_wheel(builder.wheels)
    body = builder.body(manifest(**REQUIRES), with_requirements("slow\n"))
    with builder.post("/api/v1/build/sse", body, stream=True) as answer:
        assert any(b"Preparing metadata" in line for line in answer.iter_lines())
        children = subprocess.run(["pgrep", "-P", str(builder.process.pid)], capture_output=True, text=True).stdout.split()
        builder.stop(signal.SIGKILL)
    assert children
    wait_for(lambda: not any(process_alive(int(pid)) for pid in children), 10, "pip ends with its parent")
    assert builder.left_over() != []
    builder.start()
    assert builder.left_over() == []
    assert builder.build(manifest(**REQUIRES), with_requirements("tinywheel\n"))["error"] is None


def test_end_of_the_service_cancels_builds_in_time(builder):
    make_sdist(builder.wheels, "import time\ntime.sleep(100)\n")
    body = builder.body(manifest(**REQUIRES), with_requirements("custom\n"))
    with builder.post("/api/v1/build/sse", body, stream=True) as answer:
        lines = answer.iter_lines()
        assert any(b"Installing requirements.txt" in line for line in lines)
        builder.process.terminate()
        assert builder.process.wait(5) == 0
        rest = b"\n".join(lines)
    assert b'"error_code":"cancelled"' in rest.replace(b": ", b":")


def test_a_second_one_on_the_same_store_says_so(builder):
    done = subprocess.run([BIN / "image_builder"], env=builder.env, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0 and "another image_builder is using the image store" in done.stderr


# ---- git ----


class GitHandler(http.server.BaseHTTPRequestHandler):
    """git http-backend (smart HTTP) with Basic authentication."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def serve(self):
        want = "Basic " + base64.b64encode(b"someone:git-password-1").decode()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", f"https://127.0.0.1:{self.server.server_port}/repo/{self.path[6:]}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.headers.get("Authorization") != want:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.server.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)), "REMOTE_USER": "someone", "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }
        out = subprocess.run(["git", "http-backend"], input=body, env=env, capture_output=True, timeout=30).stdout
        head, _, content = out.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = serve


def git(folder, *args):
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main", *args],
        cwd=folder, check=True, capture_output=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"},
    )


@contextlib.contextmanager
def git_server(folder, address="127.0.0.1"):
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
         "-days", "2", "-subj", "/CN=git", "-addext", f"subjectAltName=IP:127.0.0.1,IP:{address}"],
        check=True, capture_output=True,
    )
    server = http.server.ThreadingHTTPServer((address, 0), GitHandler)
    server.root = folder
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"https://{address}:{server.server_port}/repo", cert
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def repository(tmp_path):
    repo = tmp_path / "repo"
    (repo / "jobs/adder").mkdir(parents=True)
    git(repo, "init")
    (repo / "jobs/adder/adder.py").write_text(ADDER)
    (repo / "outside").symlink_to("/etc")
    git(repo, "add", ".")
    git(repo, "commit", "-m", "first")
    git(repo, "branch", "feature")
    with git_server(tmp_path) as (url, cert):
        b = Builder(tmp_path, GIT_LOCAL_REMOTES="true", GIT_SSL_CAINFO=str(cert))
        yield b, url, repo
        b.stop()


CREDENTIALS = {"username": "someone", "password": "git-password-1"}


def test_git_clone_of_a_folder_and_a_branch(repository):
    builder, url, repo = repository
    job = manifest(git={"remote": url, "directory": "jobs/adder", "branch": "feature"})
    result = builder.build(job, None, git_credentials=CREDENTIALS)
    code = builder.layers(result)["code"]
    assert code["src/job/adder.py"] == ADDER.encode() and set(code) == {"src/job/adder.py", "src/job/job.yaml"}
    assert result["warnings"] == ""
    by_url = builder.build({**job, "git": {**job["git"], "remote": url.replace("https://", "https://someone:git-password-1@")}}, None)
    assert builder.layers(by_url)["code"]["src/job/adder.py"] == ADDER.encode()
    for text in (json.dumps(result), by_url["logs"], (builder.state / "log").read_text()):
        assert "git-password-1" not in text
    assert builder.left_over() == []


def test_git_says_when_the_manifest_was_not_pushed(repository):
    builder, url, repo = repository
    job = manifest(git={"remote": url, "directory": "jobs/adder"})
    (repo / "jobs/adder/job.yaml").write_text(yaml.safe_dump({**job, "version": "0.9.0"}))
    git(repo, "add", ".")
    git(repo, "commit", "-m", "old manifest")
    result = builder.build(job, None, git_credentials=CREDENTIALS)
    assert result["error"] is None and "version" in result["warnings"] and "not pushed" in result["warnings"]
    (repo / "jobs/adder/job.yaml").write_text(yaml.safe_dump(job))
    git(repo, "commit", "-am", "manifest")
    assert builder.build(job, None, git_credentials=CREDENTIALS)["warnings"] == ""


@pytest.mark.parametrize(
    "settings, credentials, says",
    [
        ({}, None, "credentials"),
        ({}, {"username": "someone", "password": "wrong-password"}, "credentials"),
        ({"branch": "nowhere"}, CREDENTIALS, "nowhere"),
        ({"directory": "jobs/missing"}, CREDENTIALS, "git.directory"),
        ({"directory": "../../.."}, CREDENTIALS, "git.directory"),
        ({"directory": "outside"}, CREDENTIALS, "git.directory"),
        ({"directory": "."}, CREDENTIALS, "adder.py"),
    ],
)
def test_git_mistakes_are_named(repository, settings, credentials, says):
    builder, url, repo = repository
    result = builder.build(manifest(git={"remote": url, "directory": "jobs/adder", **settings}), None, git_credentials=credentials)
    assert result["error_code"] in ("invalid", "not_found") and says in result["error"], result
    assert "wrong-password" not in json.dumps(result)
    assert builder.left_over() == []


def test_git_remotes_elsewhere_are_reached_and_do_not_lead_back(tmp_path):
    """With this machine's address on its network for elsewhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            pytest.skip("no network but loopback")
        address = s.getsockname()[0]
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init")
    (repo / "adder.py").write_text(ADDER)
    git(repo, "add", ".")
    git(repo, "commit", "-m", "first")
    with git_server(tmp_path, address) as (url, cert):
        builder = Builder(tmp_path, GIT_SSL_CAINFO=str(cert))
        try:
            result = builder.build(manifest(git={"remote": url}), None, git_credentials=CREDENTIALS)
            assert builder.layers(result)["code"]["src/job/adder.py"] == ADDER.encode()
            result = builder.build(manifest(git={"remote": url.replace("/repo", "/away")}), None, git_credentials=CREDENTIALS)
            assert "GIT_LOCAL_REMOTES" in result["error"], result
            assert re.search("(?i)proxy.*build:", result["logs"]) is None
        finally:
            builder.stop()


def test_git_repository_is_measured_before_it_is_checked_out(tmp_path):
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init")
    (repo / "adder.py").write_text(ADDER)
    for i in range(3):
        (repo / f"zeros{i}").write_bytes(bytes(4 << 20))
    git(repo, "add", ".")
    git(repo, "commit", "-m", "large")
    config = tmp_path / "config.yaml"
    config.write_text("source_max_bytes: 10000000\n")
    with git_server(tmp_path) as (url, cert):
        builder = Builder(tmp_path, GIT_LOCAL_REMOTES="true", GIT_SSL_CAINFO=str(cert), CONFIG_FILE=str(config))
        try:
            result = builder.build(manifest(git={"remote": url}), None, git_credentials=CREDENTIALS)
            assert result["error_code"] == "too_large", result
        finally:
            builder.stop()


# ---- without a service ----


def test_a_folder_is_built_without_a_service(tmp_path):
    """And what it made is served by the service that is started on it; while that runs, the store is taken."""
    folder = copy_sample("python-class", tmp_path / "job", name="alone", files={".gitignore": "*.csv\n", "big.csv": "1,2\n", "secret.env": "TOKEN=hunter2\n"},
                         secret_build_env_file="secret.env")
    env = clean_environment(XDG_CACHE_HOME=tmp_path / "cache", HOME=tmp_path)
    done = subprocess.run([BIN / "image_builder", "build"], cwd=folder, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    state = tmp_path / "cache/racetrack"
    assert f"The image lies in {state}/images" in done.stdout and "hunter2" not in done.stdout
    image, digest = (re.search(f"^{what}: (.+)$", done.stdout, re.M)[1] for what in ("Image", "Digest"))
    state.rename(tmp_path / "state")
    builder = Builder(tmp_path)
    try:
        code = builder.layers({"error": None, "image_name": image, "image_digest": digest})["code"]
        assert sorted(code) == ["src/job/adder.py", "src/job/job.yaml"]
        taken = subprocess.run([BIN / "image_builder", "build", folder], env={**env, "RACETRACK_STATE": builder.state},
                               capture_output=True, text=True, timeout=60)
        assert taken.returncode == 70 and "another image_builder is using the image store" in taken.stderr, taken.stderr
    finally:
        builder.stop()
    nothing = subprocess.run([BIN / "image_builder", "build", tmp_path], env=env, capture_output=True, text=True, timeout=60)
    assert nothing.returncode == 70 and "job.yaml" in nothing.stderr
