"""The wrapper by itself: job_wrapper serving small classes that the tests write. Needs no other service."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

WRAPPER = Path(os.environ.get("RACETRACK_BIN") or Path(__file__).resolve().parents[2] / "build/release/bin") / "job_wrapper"
PERFORM = "/api/v1/perform"


def wait_for(condition, what, deadline_s=20.0):
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come within {deadline_s} s"
        time.sleep(0.01)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.body[:500]!r}"


class Wrapper:
    """A running job_wrapper; its socket is made here, so the address is known before it starts."""

    def __init__(self, folder, code, *args, entrypoint="job.py", manifest=None, ready=True, **env):
        self.folder = folder
        if code is not None:
            (folder / entrypoint).write_text(textwrap.dedent(code))
        if manifest is not None:
            (folder / "job.yaml").write_text(textwrap.dedent(manifest))
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.port = listener.getsockname()[1]
        self.log_path = folder / "output.log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RACETRACK_", "JOB_", "LOG_"))}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [WRAPPER, "run", entrypoint, *args, "--listen-fd", str(listener.fileno())],
                cwd=folder, env={**clean, **env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[listener.fileno()])
        listener.close()
        if ready:
            wait_for(lambda: self.get("/ready").status == 200, f"readiness ({self.log()})")

    def request(self, method, path, body=None, headers=None, timeout=30):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path, **kwargs):
        return self.request("GET", path, **kwargs)

    def call(self, payload=None, path=PERFORM, timeout=30, headers=None, **arguments):
        body = json.dumps(arguments if payload is None else payload)
        return self.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})}, timeout)

    def raw(self, data, wait_close=True):
        """Everything the server answers to these bytes until it closes (or, without, after the first bytes)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as s:
            s.sendall(data)
            out = b""
            while True:
                piece = s.recv(65536)
                out += piece
                if not piece or not wait_close:
                    return out

    def workers(self):
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def log(self):
        return self.log_path.read_text(errors="replace")

    def metric(self, line):
        for text in self.get("/metrics").body.decode().splitlines():
            if text.startswith(line + " "):
                return float(text.rsplit(" ", 1)[1])
        return None

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def job(tmp_path):
    made = []

    def make(code, *args, **kwargs):
        folder = tmp_path / f"job{len(made)}"
        folder.mkdir()
        for name, text in kwargs.pop("files", {}).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text)) if isinstance(text, str) else path.write_bytes(text)
        made.append(Wrapper(folder, code, *args, **kwargs))
        return made[-1]

    yield make
    for wrapper in made:
        wrapper.close()
    for wrapper in made:
        assert "Sanitizer" not in wrapper.log()


ADDER = """
    class Adder:
        '''Adds.'''
        def perform(self, numbers: list[float], *, scale: int = 1) -> float:
            '''Add numbers.'''
            return sum(numbers) * scale
        def docs_input_example(self):
            return {"numbers": [40, 2]}
"""


# -- the contract --


def test_perform_and_mounts(job):
    w = job(ADDER)
    assert w.call(numbers=[40, 2]).json == 42
    assert w.call(numbers=[40, 2], path="/pub/job/adder/latest" + PERFORM).json == 42
    assert w.call(numbers=[40, 2], path="/pub/fatman/adder/1.x" + PERFORM).json == 42
    answer = w.call(numbers=[1], scale=3)
    assert (answer.status, answer.json, answer.headers["Content-Type"]) == (200, 3, "application/json")
    for path in ("/api/v1/nothing", "/nothing", "/pub/fatman/adder/1.x/api/v1/nothing%20at%20all"):
        missing = w.get(path + "?q=1")
        assert missing.status == 404 and f" {path};" in missing.json["error"], path
    refused = w.get(PERFORM)
    assert (refused.status, refused.headers["Allow"]) == (405, "POST")
    assert w.request("POST", "/live").status == 405


def test_redirects(job):
    w = job(ADDER, manifest="{name: adder, jobtype_extra: {home_page: /api/v1/page}}")
    for path, target in [("/", "/api/v1/page"), ("/pub/job/a/1", "/pub/job/a/1/"), ("/pub/fatman/a/1?x=1", "/pub/fatman/a/1/?x=1"),
                         ("/pub/job/a/1/", "/pub/job/a/1/api/v1/page")]:
        answer = w.get(path)
        assert (answer.status, answer.headers["Location"]) == (307, target), path
    long = "?q=" + "A" * 15000  # a redirect repeats what it was asked for
    for path in ("/", "/pub/job/a/1"):
        answer = w.get(path + long)
        assert (answer.status, answer.headers["Location"][-len(long):]) == (307, long), path
    answer = w.get("/pub/job/" + "a" * 15000 + "/1")
    assert (answer.status, len(answer.headers["Location"])) == (307, 15012)
    assert w.get("/live").status == 200


def test_probes(job):
    w = job(ADDER, JOB_NAME="adder", JOB_VERSION="1.2.3", JOB_DEPLOYMENT_TIMESTAMP="1700000000", GIT_VERSION="abc",
            DEPLOYED_BY_RACETRACK_VERSION="2", JOB_TYPE_VERSION="python3:3")
    assert w.get("/live").json == {"live": True, "deployment_timestamp": 1700000000}
    assert w.get("/ready").json == {"ready": True}
    health = w.get("/pub/job/adder/1.2.3/health")
    assert health.status == 200
    assert health.json == {
        "service": "job", "job_name": "adder", "live": True, "ready": True, "status": "pass", "error": None, "job_version": "1.2.3",
        "git_version": "abc", "deployed_by_racetrack_version": "2", "deployment_timestamp": 1700000000, "job_type_version": "python3:3"}
    fatman = w.get("/pub/fatman/adder/latest/health").json
    assert (fatman["service"], fatman["fatman_name"], fatman["fatman_version"]) == ("fatman", "adder", "1.2.3")
    assert "job_name" not in fatman and "job_version" not in fatman


def test_a_request_for_another_job_is_not_answered(job):
    """A port that another job had: whoever may call that one was let in to that one."""
    w = job(ADDER, JOB_NAME="adder x", JOB_VERSION="1.2.3")
    for path in ("/pub/job/other/1.2.3", "/pub/fatman/other/latest", "/pub/job/adder/1.2.3", "/pub/job/adder%2Fx/1"):
        refused = w.call(numbers=[40, 2], path=path + PERFORM)
        assert (refused.status, refused.json["type"]) == (421, "MisdirectedRequest"), path
    for path in ("", "/pub/job/adder%20x/latest", "/pub/fatman/adder%20x/1.2.3"):
        assert w.call(numbers=[40, 2], path=path + PERFORM).json == 42


def test_parameters_and_openapi(job):
    w = job("""
        from typing import List, Optional
        class Model:
            def perform(self, a: int, b: List[float], c: Optional[str] = None, *, d=[1], e: "str" = "x"):
                pass
            def auxiliary_endpoints(self):
                return {"/other": self.other, "free": lambda **kw: kw}
            def other(self, x: bool = True):
                pass
            def docs_input_examples(self):
                return {"/perform": {"a": 1, "b": [0.5]}, "/other": {"x": False}}
    """)
    assert w.get("/api/v1/parameters").json == [
        {"name": "a", "type": "int"}, {"name": "b", "type": "List[float]"}, {"name": "c", "type": "Optional[str]", "default_value": None},
        {"name": "d", "type": None, "default_value": [1]}, {"name": "e", "type": "str", "default_value": "x"}]
    api = w.get("/openapi.json").json
    assert api["openapi"].startswith("3.1")
    body = api["paths"]["/api/v1/perform"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == {"a": 1, "b": [0.5]}
    assert body["schema"]["required"] == ["a", "b"]
    assert body["schema"]["properties"]["a"]["type"] == "integer"
    assert body["schema"]["properties"]["e"]["default"] == "x"
    assert api["paths"]["/api/v1/other"]["post"]["requestBody"]["content"]["application/json"]["example"] == {"x": False}
    page = w.get("/docs")
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html") and b"openapi.json" in page.body
    assert w.call({"k": 1}, path="/api/v1/free").json == {"k": 1}


@pytest.mark.parametrize("body, status, word", [
    (b"{}", 400, "failed to call a function"), (b"[1]", 422, "list"), (b"null", 422, "NoneType"),
    (b"{", 400, "not valid JSON"), (b'{"numbers": NaN}', 400, "NaN"), (b"\xff\xfe", 400, "UTF-8"), (b'{"numbers": [1]} x', 400, "extra data"),
    (b'{"wrong": 1}', 400, "failed to call a function"), (b"[" * 100000, 400, "nested"), (b'{"numbers": ' + b"1" * 5000 + b"}", 400, "not valid JSON"),
])
def test_bad_payloads(job, body, status, word):
    w = job(ADDER)
    answer = w.request("POST", PERFORM, body)
    assert answer.status == status, answer
    assert word in answer.json["error"]
    assert answer.json["type"] and set(answer.json) == {"error", "type"}
    assert w.call(numbers=[1]).json == 1


def test_no_payload_takes_the_example(job):
    w = job(ADDER)
    assert w.request("POST", PERFORM).json == 42
    plain = job("class M:\n    def perform(self, a): return a")
    refused = plain.request("POST", PERFORM)
    assert refused.status == 422 and "a" in refused.json["error"]


SECRET = "s3cret-of-this-generation"


def test_a_call_must_show_the_generations_secret(job):
    """Whoever reaches the port without the gateway is not answered; probes and metrics are."""
    w = job("""
        import os
        class M:
            def perform(self):
                seen = dict(self.request_context.get().headers.items())
                return [os.environ.get("JOB_CALL_SECRET"), seen.get("x-racetrack-job-secret"), SECRET_IN_PROC]
        with open(f"/proc/{os.getppid()}/environ", "rb") as f:
            SECRET_IN_PROC = b"s3cret" in f.read()
    """, JOB_CALL_SECRET=SECRET)
    for mount in ("", "/pub/job/m/1", "/pub/fatman/m/latest"):
        for probe in ("/live", "/ready", "/health", "/metrics"):
            assert w.get(mount + probe).status == 200, mount + probe
        for path in (PERFORM, "/docs", "/openapi.json", "/api/v1/parameters", "/nothing", "/"):
            for headers in ({}, {"X-Racetrack-Job-Secret": SECRET[:-1]}, {"X-Racetrack-Job-Secret": SECRET + "x"}, {"X-Racetrack-Job-Secret": ""}):
                refused = w.request("POST" if path == PERFORM else "GET", mount + path, b"{}" if path == PERFORM else None, headers)
                assert refused.status == 403 and "gateway" in refused.json["error"], (path, headers)
        allowed = w.request("POST", mount + PERFORM, b"{}", {"x-racetrack-job-secret": SECRET})
        assert allowed.json == [None, None, False]


def test_no_payload_needed(job):
    w = job("class M:\n    def perform(self, a=1): return a")
    assert w.request("POST", PERFORM).json == 1
    assert w.request("POST", PERFORM, " {\n} ").json == 1


def test_errors_by_exception(job):
    w = job("""
        import sys
        from racetrack_job_wrapper import AlreadyExists
        class EntityNotFound(Exception):
            pass
        class Special(ValueError):
            pass
        class Model:
            def perform(self, kind):
                if kind == "type":
                    return len(5)
                if kind == "call":
                    return self.helper(1, 2)
                if kind == "exit":
                    sys.exit(3)
                raise {"value": ValueError("bad value"), "special": Special("special"), "missing": EntityNotFound("no such thing"),
                       "exists": AlreadyExists("is there"), "key": KeyError("k"), "empty": RuntimeError()}[kind]
            def helper(self):
                pass
    """)
    for kind, status, text, name in [
        ("value", 400, "bad value", "ValueError"), ("special", 400, "special", "Special"), ("missing", 404, "no such thing", "EntityNotFound"),
        ("exists", 409, "is there", "AlreadyExists"), ("key", 500, "'k'", "KeyError"), ("empty", 500, "RuntimeError", "RuntimeError"),
        ("type", 500, "object of type 'int' has no len()", "TypeError"), ("exit", 500, "exit(3)", "SystemExit"),
        ("call", 500, "takes 1 positional argument", "TypeError"),
    ]:
        answer = w.call(kind=kind, headers={"X-Request-Tracing-Id": f"trace-{kind}"})
        assert (answer.status, answer.json["type"]) == (status, name), kind
        assert text in answer.json["error"], kind
        if status >= 500:
            assert answer.json["tracing_id"] == f"trace-{kind}"
    log = w.log()
    assert "tracing_id=trace-key" in log and "Traceback" in log and "KeyError: 'k'" in log
    assert w.metric('request_internal_errors_total{endpoint="/perform"}') == 5


def test_results(job):
    w = job("""
        import dataclasses, datetime, decimal, enum, math, uuid
        @dataclasses.dataclass
        class Point:
            x: int
            inner: object = None
        class Color(enum.Enum):
            RED = "red"
        class Pydantic2:
            def model_dump(self): return {"v": 2}
        class Pydantic1:
            def dict(self): return {"v": 1}
        class Quantity:
            def __str__(self): return "5 m"
        class Opaque:
            __slots__ = ()
        class Response:
            status_code, media_type, body, headers = 201, "text/html", b"<p>hi", {"content-type": "text/html; charset=utf-8"}
        loop = []
        loop.append(loop)
        VALUES = {
            "none": None, "nan": [math.nan, math.inf, 1.5], "point": Point(1, Point(2)), "enum": Color.RED, "set": {1}, "p2": Pydantic2(),
            "p1": [Pydantic1()], "date": datetime.date(2020, 1, 2), "uuid": uuid.UUID(int=1), "decimal": decimal.Decimal("1.10"),
            "keys": {(1, 2): 1, 3: 4}, "quantity": Quantity(), "text": "zażółć \\ud800", "tuple": (1, "2"), "gen": (i for i in range(2)),
            "opaque": Opaque(), "loop": loop, "bytes": b"\\x00\\x01", "response": Response(),
        }
        class Model:
            def perform(self, name):
                return VALUES[name]
    """)
    for name, expected in {
        "none": None, "nan": [None, None, 1.5], "point": {"x": 1, "inner": {"x": 2, "inner": None}}, "enum": "red", "set": [1], "p2": {"v": 2},
        "p1": [{"v": 1}], "date": "2020-01-02", "uuid": "00000000-0000-0000-0000-000000000001", "decimal": "1.10",
        "keys": {"(1, 2)": 1, "3": 4}, "quantity": "5 m", "text": "zażółć \ud800", "tuple": [1, "2"], "gen": [0, 1],
    }.items():
        answer = w.call(name=name)
        assert (answer.status, answer.json) == (200, expected), name
    opaque = w.call(name="opaque")
    assert opaque.status == 500 and "Opaque" in opaque.json["error"]
    loop = w.call(name="loop")
    assert loop.status == 500 and "nested too deeply" in loop.json["error"]
    raw = w.call(name="bytes")
    assert (raw.body, raw.headers["Content-Type"]) == (b"\x00\x01", "application/octet-stream")
    response = w.call(name="response")
    assert (response.status, response.body, response.headers["Content-Type"]) == (201, b"<p>hi", "text/html; charset=utf-8")


def test_numpy(job, tmp_path):
    numpy = pytest.importorskip("numpy")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages/numpy").symlink_to(Path(numpy.__file__).parent)
    w = job("""
        import numpy as np
        class Model:
            def perform(self, n):
                return {"array": np.arange(n).reshape(2, -1), "scalar": np.float32(0.5), "int": np.int64(n), "bool": np.bool_(True),
                        "nan": np.array([np.nan, 1.0]), np.int64(7): 1}
    """, "Model", "--packages", str(tmp_path / "packages"))
    assert w.call(n=4).json == {"array": [[0, 1], [2, 3]], "scalar": 0.5, "int": 4, "bool": True, "nan": [None, 1.0], "7": 1}


def test_class_choice(job):
    two = "class A:\n    def perform(self): return 'A'\nclass B:\n    def perform(self): return 'B'\n"
    assert job(two, "B").call().json == "B"
    helper = "import dataclasses\n@dataclasses.dataclass\nclass Conf:\n    x: int = 1\nclass Model:\n    def perform(self): return Conf().x\n"
    assert job(helper).call().json == 1


def test_modules_packages_and_working_folder(job, tmp_path):
    packages = tmp_path / "packages"
    (packages / "dep").mkdir(parents=True)
    (packages / "dep" / "__init__.py").write_text("VALUE = 5\n")
    (packages / "ns").mkdir()
    (packages / "ns" / "inner.py").write_text("VALUE = 6\n")
    w = job("""
        import os, pickle, sys
        import helper, dep, ns.inner, sibling
        class Thing:
            pass
        class Model:
            def perform(self):
                thing = pickle.loads(pickle.dumps(Thing()))
                return [helper.VALUE, dep.VALUE, ns.inner.VALUE, sibling.VALUE, open("data.txt").read(), type(thing) is Thing, sys.argv]
    """, "Model", "--packages", str(packages), entrypoint="src/model.py",
            files={"src/sibling.py": "VALUE = 4\n", "helper.py": "VALUE = 3\n", "data.txt": "data"})
    assert w.call().json == [3, 5, 6, 4, "data", True, ["src/model.py"]]


def test_request_context(job):
    w = job("""
        class Model:
            def perform(self, x=0):
                r = self.request_context.get()
                extra = self.request_extra.get()
                before = dict(extra)
                extra["seen"] = x
                return [r.method, r.path, r.url, r.query_params, r.headers["x-test"], r.headers.get("NOT-there"), r.cookies, before]
            def auxiliary_endpoints(self):
                return {"/async": self.coroutine}
            async def coroutine(self):
                return self.request_context.get().headers["X-Test"]
    """)
    headers = {"X-Test": "yes", "Cookie": "a=b; c=d"}
    for x in (1, 2):
        answer = w.call(x=x, path=PERFORM + "?q=%20z&q=w", headers=headers)
        assert answer.json == ["POST", PERFORM, PERFORM + "?q=%20z&q=w", {"q": "w"}, "yes", None, {"a": "b", "c": "d"}, {}]
    assert w.call(path="/api/v1/async", headers=headers).json == "yes"


def test_endpoints_with_methods(job):
    w = job("""
        from racetrack_job_wrapper import EndpointConfig
        class Model:
            def perform(self): return 0
            def auxiliary_endpoints_v2(self):
                return [EndpointConfig("/item", "GET", self.read), EndpointConfig("/item", "PUT", self.write), ("/plain", "GET", self.perform)]
            def read(self, id: int, deep: bool = False, name: str = ""):
                return [id, deep, name]
            def write(self, id: int):
                return {"written": id}
    """)
    assert w.get("/api/v1/item?id=5&deep=true&name=a%26b").json == [5, True, "a&b"]
    assert w.get("/api/v1/item?id=five").status == 400
    assert w.get("/api/v1/item").status == 400
    assert w.request("PUT", "/api/v1/item", '{"id": 7}').json == {"written": 7}
    refused = w.request("DELETE", "/api/v1/item")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, PUT")
    assert w.get("/api/v1/plain").json == 0


def test_static_endpoints(job, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    w = job("""
        class Model:
            def perform(self): return 0
            def static_endpoints(self):
                return {"/page": "page.html", "data": ("data.bin", "application/x-thing"), "/assets": "assets", "/odd": "odd.unknown"}
    """, files={"page.html": "<h1>page", "data.bin": b"\x00\xff", "odd.unknown": "odd", "assets/a.css": "a{}", "assets/deep/b.json": "{}",
                "assets/index.html": "<p>index", "assets/big.bin": b"x" * 3_000_000})
    os.symlink("../../secret.txt", w.folder / "assets/link.txt")
    os.symlink("a.css", w.folder / "assets/alias.css")
    os.mkfifo(w.folder / "assets/fifo")
    for path, body, kind in [
        ("/page", b"<h1>page", "text/html; charset=utf-8"), ("/data", b"\x00\xff", "application/x-thing"),
        ("/odd", b"odd", "text/plain; charset=utf-8"), ("/assets/a.css", b"a{}", "text/css; charset=utf-8"),
        ("/assets/deep/b.json", b"{}", "application/json"), ("/assets/", b"<p>index", "text/html; charset=utf-8"),
        ("/assets/alias.css", b"a{}", "text/css; charset=utf-8"), ("/assets/big.bin", b"x" * 3_000_000, "text/plain; charset=utf-8"),
    ]:
        answer = w.get("/pub/job/a/1/api/v1" + path)
        assert (answer.status, answer.body, answer.headers["Content-Type"]) == (200, body, kind), path
    for path in ("/assets/../job.py", "/assets/%2e%2e/job.py", "/assets/..%2fjob.py", "/assets/link.txt", "/assets//etc/passwd",
                 "/assets/%2fetc%2fpasswd", "/assets/fifo", "/assets/deep", "/assets/missing", "/pageX", "/page/x"):
        assert w.get("/api/v1" + path).status == 404, path
    assert w.get("/api/v1/assets/%00").status == 400
    head = w.request("HEAD", "/api/v1/page")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "8")
    assert w.request("POST", "/api/v1/page", "{}").status == 405


def test_metrics(job):
    w = job("""
        class Model:
            calls = 0
            def perform(self, fail=False):
                self.calls += 1
                if fail: raise RuntimeError("x")
            def metrics(self):
                return [{"name": "my_calls", "value": self.calls, "description": "Calls", "labels": {"kind": 'a"b\\n'}},
                        {"name": "my_ratio", "value": float("nan")}]
    """)
    before = time.time()
    w.call()
    w.call(fail=True)
    assert w.metric("requests_started_total") == w.metric("requests_done_total") == 2
    assert w.metric('endpoint_requests_started_total{endpoint="/perform"}') == 2
    assert w.metric('request_internal_errors_total{endpoint="/perform"}') == 1
    assert w.metric('request_duration_count{endpoint="/perform"}') == 2
    assert w.metric('request_duration_bucket{endpoint="/perform",le="+Inf"}') == 2
    assert before - 1 <= w.metric("last_call_timestamp") <= time.time() + 1
    text = w.get("/metrics").body.decode()
    assert '# HELP my_calls Calls\n# TYPE my_calls gauge\nmy_calls{kind="a\\"b\\n"} 2.0\n' in text
    assert "\nmy_ratio NaN\n" in text


def test_own_metrics_that_fail_or_hang(job):
    w = job("""
        import time
        class Model:
            mode = "ok"
            def perform(self, mode):
                Model.mode = mode
            def metrics(self):
                if self.mode == "fail": raise RuntimeError("metrics broke")
                if self.mode == "hang": time.sleep(3)
                return [{"name": "mine", "value": 1}]
    """)
    assert w.metric("mine") == 1
    w.call(mode="fail")
    assert w.metric("mine") == 1 and "metrics broke" in w.log()
    w.call(mode="hang")
    began = time.monotonic()
    assert w.metric("mine") == 1
    assert w.metric("mine") == 1
    assert time.monotonic() - began < 2.5


# -- start --


@pytest.mark.parametrize("code, words", [
    ("class A:\n  def perform(self: pass\n", ["SyntaxError", "job.py"]),
    ("import nothing_like_this\n", ["ModuleNotFoundError", "nothing_like_this", "requirements_path"]),
    ("class A:\n  def __init__(self): raise RuntimeError('no model')\n  def perform(self): pass\n", ["RuntimeError: no model", "Traceback", "__init__"]),
    ("x = 1\n", ["no class"]),
    ("class A: pass\n", ["perform"]),
    ("class A:\n  def perform(self): pass\nclass B:\n  def perform(self): pass\n", ["several classes", "A, B"]),
    ("class A:\n  def perform(self): pass\n  def docs_input_example(self): return [1]\n", ["docs_input_example", "dict"]),
    ("class A:\n  def perform(self): pass\n  def docs_input_example(self): return {'a': object()}\n", ["docs_input_example", "JSON"]),
    ("class A:\n  def perform(self): pass\n  def docs_input_example(self): return {'a': 'x' * 1100000}\n", ["1 MB"]),
    ("class A:\n  def perform(self): pass\n  def static_endpoints(self): return {'/a': 'missing.html'}\n", ["missing.html"]),
    ("import sys\nsys.exit(4)\n", ["exit(4)"]),
])
def test_failing_load(job, code, words):
    w = job(code, ready=False, JOB_DEPLOYMENT_TIMESTAMP="12")
    live = wait_for(lambda: (a := w.get("/live")).status == 500 and a, "the failure")
    assert live.json["live"] is False and live.json["deployment_timestamp"] == 12
    for word in words:
        assert word in live.json["error"], live.json["error"]
    assert w.get("/ready").status == 500
    health = w.get("/health")
    assert health.status == 500 and health.json["status"] == "fail" and words[0] in health.json["error"]
    call = w.call(x=1)
    assert call.status == 503 and words[0] in call.json["error"]
    assert w.process.poll() is None
    assert words[0] in w.log()


HOST_PACKAGES = sorted(p.parent.name for p in Path("/usr/lib/python3/dist-packages").glob("*/__init__.py") if p.parent.name.isidentifier())


@pytest.mark.skipif(not HOST_PACKAGES, reason="this host has no Python packages of its own")
@pytest.mark.parametrize("python", ["/usr/bin/python3", "/usr/bin/../bin/python3"])
def test_packages_of_the_host_are_not_the_jobs(job, python):
    w = job(f"import {HOST_PACKAGES[0]}\nclass A:\n  def perform(self): pass\n", ready=False, RACETRACK_PYTHON=python)
    live = wait_for(lambda: (a := w.get("/live")).status == 500 and a, "the failure")
    assert f"No module named '{HOST_PACKAGES[0]}'" in live.json["error"] and "requirements_path" in live.json["error"]


def test_missing_file_and_class(job):
    w = job(None, entrypoint="nowhere.py", ready=False)
    live = wait_for(lambda: (a := w.get("/live")).status == 500 and a, "the failure")
    assert "nowhere.py does not exist" in live.json["error"]
    w = job(ADDER, "Subtractor", ready=False)
    live = wait_for(lambda: (a := w.get("/live")).status == 500 and a, "the failure")
    assert "no class Subtractor" in live.json["error"] and "Adder" in live.json["error"]


def test_init_that_never_ends(job):
    w = job("import time\nclass A:\n  def __init__(self): time.sleep(3600)\n  def perform(self): pass\n", ready=False)
    assert w.get("/live").json["live"] is True
    assert w.get("/ready").status == 500
    call = w.call(x=1)
    assert call.status == 503 and "still loading" in call.json["error"]
    assert w.get("/metrics").status == 200 and w.get("/openapi.json").status == 503
    w.process.terminate()
    assert w.process.wait(5) == 0


def test_crash_while_loading(job):
    w = job("import os\nos.abort()\n", ready=False)
    live = wait_for(lambda: (a := w.get("/live")).status == 500 and a, "the failure")
    assert "signal 6" in live.json["error"]
    assert w.process.poll() is None


def test_missing_interpreter(job):
    w = job(ADDER, ready=False, RACETRACK_PYTHON="/nonexistent/python")
    live = wait_for(lambda: (a := w.get("/live")).status == 500 and a, "the failure")
    assert "/nonexistent/python" in live.json["error"]


def test_bad_command_lines(tmp_path):
    def run(*args, **env):
        return subprocess.run([WRAPPER, *args], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **env}, timeout=10)

    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    for args, word in [((), "usage"), (("run",), "usage"), (("run", "a.py", "--port", "x"), "--port"), (("run", "a.py", "--what"), "--what"),
                       (("run", "a.py", "--port", str(taken.getsockname()[1])), "already in use"), (("run", "a.py", "--manifest-path", "no.yaml"), "no.yaml")]:
        result = run(*args)
        assert result.returncode == 1 and word in result.stderr, (args, result)
    taken.close()
    assert "usage" in run("--help").stdout
    bad = run("run", "a.py", JOB_MANIFEST_YAML="name: x\\njobtype_extra:\\n  max_concurrency: lots\\n")
    assert bad.returncode == 1 and "max_concurrency" in bad.stderr


# -- concurrency --


SLEEPER = """
    import threading, time
    class Model:
        running = most = 0
        lock = threading.Lock()
        def perform(self, s=0.0, who=None):
            with self.lock:
                Model.running += 1
                Model.most = max(Model.most, Model.running)
            time.sleep(s)
            with self.lock:
                Model.running -= 1
            return who
        def auxiliary_endpoints(self):
            return {"/most": lambda: Model.most}
"""


def test_blocking_handlers_run_beside_each_other(job):
    w = job(SLEEPER)
    with ThreadPoolExecutor(20) as pool:
        began = time.monotonic()
        assert [f.json for f in pool.map(lambda i: w.call(s=0.5, who=i), range(20))] == list(range(20))
        assert time.monotonic() - began < 4  # one after another: 10 s
        hanging = pool.submit(w.call, s=1.0)
        began = time.monotonic()
        assert w.call(who=1).json == 1
        assert time.monotonic() - began < 0.9
        assert hanging.result().status == 200


def test_threads_within_a_memory_limit(job):
    """Where no more threads fit, calls wait for those that are there; none is lost."""
    w = job("""
        import resource, time
        class Model:
            def __init__(self):
                used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000, used + 40_000_000))
            def perform(self):
                time.sleep(0.05)
                return 1
    """)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda i: w.call(), range(64)))
    assert {a.status for a in answers} == {200}, w.log()


def test_concurrency_limit_and_queue(job):
    w = job(SLEEPER, manifest="{name: a, jobtype_extra: {max_concurrency: 2, max_concurrency_queue: 3}}")
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda i: w.call(s=0.4, who=i), range(12)))
    assert sorted(a.status for a in answers) == [200] * 5 + [429] * 7
    refused = next(a for a in answers if a.status == 429)
    assert "too many requests waiting in a queue" in refused.json["detail"]
    assert w.metric("requests_started_total") == w.metric("requests_done_total") == 12
    assert w.metric('request_duration_count{endpoint="/perform"}') == 12
    assert w.call(path="/api/v1/most").json == 2


def test_queue_is_not_limited_by_default(job):
    w = job(SLEEPER, manifest="{name: a, jobtype_extra: {max_concurrency: 1}}")
    with ThreadPoolExecutor(10) as pool:
        assert [a.json for a in pool.map(lambda i: w.call(s=0.01, who=i), range(30))] == list(range(30))
    assert w.call(path="/api/v1/most").json == 1


def test_queued_call_of_a_gone_caller_is_dropped(job):
    w = job(SLEEPER, manifest="{name: a, jobtype_extra: {max_concurrency: 1}}")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(w.call, s=1.0, who="first")
        wait_for(lambda: w.metric("requests_started_total") == 1, "the first call")
        with pytest.raises(TimeoutError):
            w.call(s=60, timeout=0.2)
        assert w.call(who="third").json == "third"  # behind a minute's call, were it still there
        assert first.result().json == "first"


def test_async_handlers(job):
    w = job("""
        import asyncio
        class Model:
            async def perform(self, s=0.0, fail=False):
                await asyncio.sleep(s)
                if fail: raise ValueError("async bad")
                return s
            def auxiliary_endpoints(self):
                return {"/sync": lambda: "sync"}
    """)
    with ThreadPoolExecutor(100) as pool:
        began = time.monotonic()
        assert [a.json for a in pool.map(lambda i: w.call(s=0.5), range(100))] == [0.5] * 100
        assert time.monotonic() - began < 4
    assert w.call(path="/api/v1/sync").json == "sync"
    answer = w.call(fail=True)
    assert (answer.status, answer.json) == (400, {"error": "async bad", "type": "ValueError"})
    answer = w.call(wrong=1)
    assert answer.status == 400 and "failed to call a function" in answer.json["error"]


# -- resilience --


CRASHER = """
    import ctypes, os, re, signal, sys, time
    class Model:
        def __init__(self):
            self.pid = os.getpid()
        def perform(self, how="", s=0.0, after=0.0):
            if how: print("got", how)
            time.sleep(after)
            if how == "segv": ctypes.string_at(0)
            if how == "exit": os._exit(7)
            if how == "abort": os.abort()
            if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
            if how == "gil": ctypes.PyDLL(None).sleep(60)
            if how == "regex": re.match("(a+)+$", "a" * 64 + "!")
            time.sleep(s)
            return self.pid
"""


@pytest.mark.parametrize("how, words", [("segv", "signal 11"), ("exit", "status 7"), ("abort", "signal 6"), ("kill", "signal 9")])
def test_crash_costs_its_request_only(job, how, words):
    w = job(CRASHER)
    old = w.call().json
    answer = w.call(how=how)
    assert answer.status == 502 and words in answer.json["error"] and answer.json["type"] == "WorkerCrashed", answer
    fresh = w.call()  # at once: kept until the new process is there
    assert fresh.status == 200 and fresh.json != old
    assert w.get("/live").status == 200
    assert w.metric('request_internal_errors_total{endpoint="/perform"}') == 1


def test_queued_requests_survive_a_crash(job):
    w = job(CRASHER, RACETRACK_WRAPPER_THREADS="1")
    with ThreadPoolExecutor(11) as pool:
        crash = pool.submit(w.call, how="exit", after=0.5)
        wait_for(lambda: "got exit" in w.log(), "the call that crashes")
        queued = [pool.submit(w.call) for _ in range(10)]
        assert crash.result().status == 502
        answers = [f.result() for f in queued]
    assert {a.status for a in answers} == {200}, answers


def test_crash_loop_backs_off(job):
    w = job("import os, threading\nclass A:\n  def __init__(self): threading.Timer(0.02, lambda: os._exit(1)).start()\n  def perform(self): pass\n",
            ready=False)
    wait_for(lambda: w.log().count("starting another") >= 6, "restarts")
    ends = [datetime.fromisoformat(line[1:24]) for line in w.log().splitlines() if "starting another" in line]
    pauses = [(later - earlier).total_seconds() for earlier, later in zip(ends, ends[1:])]
    assert pauses[4] >= 0.8 > pauses[0], pauses
    assert w.get("/live").status == 200


def test_replacement_that_cannot_load_is_tried_again(job):
    w = job("""
        import os
        class Model:
            def __init__(self):
                open("weights.bin").close()
            def perform(self, crash=False):
                if crash: os._exit(1)
                return "ok"
    """, files={"weights.bin": "w"})
    os.rename(w.folder / "weights.bin", w.folder / "away")
    assert w.call(crash=True).status == 502
    live = wait_for(lambda: (a := w.get("/live")).status == 500 and a, "the failure")
    assert "weights.bin" in live.json["error"]
    assert "weights.bin" in w.call().json["error"]
    os.rename(w.folder / "away", w.folder / "weights.bin")
    wait_for(lambda: w.get("/ready").status == 200, "the recovery")
    assert w.call().json == "ok" and w.get("/live").status == 200


def test_hang_is_answered_and_replaced(job):
    w = job(CRASHER, RACETRACK_WRAPPER_REQUEST_TIMEOUT="0.5")
    old = w.call().json
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(w.call, s=0.4, after=0.05)
        began = time.monotonic()
        answer = w.call(s=60)
        assert answer.status == 504 and "request_timeout_s" in answer.json["error"]
        assert 0.4 < time.monotonic() - began < 3
        assert other.result().json == old
    wait_for(lambda: w.call().json != old, "the new process")
    wait_for(lambda: len(w.workers()) == 1, "the end of the old process")


@pytest.mark.parametrize("how", ["gil", "regex"])
def test_hang_that_holds_the_interpreter_lock(job, how):
    w = job(CRASHER, RACETRACK_WRAPPER_REQUEST_TIMEOUT="1")
    old = w.call().json
    with ThreadPoolExecutor(5) as pool:
        hanging = pool.submit(w.call, how=how)
        wait_for(lambda: f"got {how}" in w.log(), "the call that hangs")
        others = [pool.submit(w.call) for _ in range(3)]
        began = time.monotonic()
        for path in ("/live", "/ready", "/health", "/metrics", "/openapi.json"):
            assert w.get(path, timeout=2).status == 200, path
        assert time.monotonic() - began < 1
        assert hanging.result().status == 504
        assert all(f.result().status == 200 and f.result().json != old for f in others)  # taken back and served by the new one
    wait_for(lambda: len(w.workers()) == 1, "the end of the old process")


def test_timeout_of_the_manifest(job):
    w = job(CRASHER, manifest="{name: a, jobtype_extra: {request_timeout_s: 1}}")
    assert w.call(s=30).status == 504


def test_worker_dies_with_its_front(job):
    w = job(CRASHER)
    worker = w.call().json
    w.process.kill()
    w.process.wait()

    def gone():
        try:
            return Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_for(gone, "the worker's end")


@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap")
def test_first_process_of_a_container(tmp_path):
    """As process 1 the front takes care of what user code leaves behind, and SIGTERM still ends it."""
    (tmp_path / "job.py").write_text(textwrap.dedent("""
        import os, subprocess
        class Model:
            def perform(self):
                subprocess.run(["sh", "-c", "sleep 0.05 & sleep 0.05 &"])
                return sum(1 for p in os.listdir("/proc") if p.isdigit() and "State:\\tZ" in open(f"/proc/{p}/status").read())
    """))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = ["bwrap", "--dev-bind", "/", "/", "--unshare-pid", "--as-pid-1", "--proc", "/proc", "--die-with-parent", "--",
               WRAPPER, "run", "job.py", "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def ask(method, path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, "{}" if method == "POST" else None)
            return connection.getresponse().read()
        except OSError as e:
            return str(e).encode()
        finally:
            connection.close()

    try:
        wait_for(lambda: ask("GET", "/ready") == b'{"ready":true}', "readiness")
        for _ in range(5):
            ask("POST", PERFORM)
        wait_for(lambda: ask("POST", PERFORM) == b"0", "an answer without zombies")
        inner = next(int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        os.kill(inner, signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def test_forked_child_cannot_answer(job):
    w = job("""
        import os
        class Model:
            def perform(self):
                return "child" if os.fork() == 0 else "parent"
    """)
    for _ in range(5):
        assert w.call().json == "parent"


def test_drain(job):
    w = job(CRASHER)
    idle = http.client.HTTPConnection("127.0.0.1", w.port)
    idle.request("GET", "/live")
    idle.getresponse().read()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(w.call, how="x", s=1.0)
        wait_for(lambda: "got x" in w.log(), "the running call")
        w.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "ending" in w.log(), "the drain")
        idle.request("GET", "/live")  # a request that was on its way on a kept connection
        late = idle.getresponse()
        assert late.status == 200 and late.headers["Connection"] == "close"
        with pytest.raises(ConnectionRefusedError):
            w.get("/live")
        answer = running.result()
        assert answer.status == 200 and answer.headers["Connection"] == "close"
    assert w.process.wait(5) == 0


def test_output_goes_to_one_place_line_by_line(job):
    w = job("""
        import sys
        class Model:
            def perform(self):
                print("to", "stdout")
                print("to stderr", file=sys.stderr)
    """)
    w.call()
    assert "to stdout\n" in w.log() and "to stderr\n" in w.log()


def test_structured_log(job):
    w = job("class M:\n  def perform(self): raise KeyError('k')\n", LOG_STRUCTURED="true")
    w.call(headers={"X-Request-Tracing-Id": "trace"})
    events = [json.loads(line) for line in w.log().splitlines()]
    failure = next(e for e in events if e["lvl"] == "error")
    assert failure["tracing_id"] == "trace" and "KeyError" in failure["error"] and failure["endpoint"] == "/perform"
    assert any("ready" in e["msg"] for e in events)


def test_by_hand_in_the_folder(tmp_path):
    (tmp_path / "adder.py").write_text(textwrap.dedent(ADDER))
    process = subprocess.Popen([WRAPPER, "run", "adder.py", "--port", "0", "--entrypoint_hostname", "x"], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = next(line for line in process.stdout if "ready" in line)
        url = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        connection = http.client.HTTPConnection("127.0.0.1", int(url[1]))
        connection.request("POST", PERFORM, '{"numbers": [40, 2]}')
        assert connection.getresponse().read() == b"42"
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait()


# -- HTTP --


def test_big_bodies(job):
    w = job("class M:\n  def perform(self, data, times=1): return data * times\n", RACETRACK_WRAPPER_BODY_MAX="4000000")
    for size in (7000, 8100, 8200, 65536, 3_000_000):
        assert w.call(data="x" * size).json == "x" * size, size
    too_large = w.call(data="x" * 4_000_001)
    assert too_large.status == 413 and "4000000" in too_large.json["error"]
    result = w.call(data="x" * 1_000_000, times=5)
    assert result.status == 500 and "limit" in result.json["error"]
    headers = {"X-Long": "y" * 20000}
    assert w.call(data="ok", headers=headers).json == "ok"
    assert w.get("/live", headers={"X-Long": "y" * 40000}).status == 431
    with ThreadPoolExecutor(8) as pool:
        assert all(a.json == str(i) * 500_000 for i, a in enumerate(pool.map(lambda i: w.call(data=str(i) * 500_000), range(8))))


def test_sum_of_large_requests_is_bounded(job):
    w = job(ADDER, RACETRACK_WRAPPER_BODY_MAX="1000000")
    slow = []
    for _ in range(4):
        s = socket.create_connection(("127.0.0.1", w.port), timeout=10)
        s.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 100)
        slow.append(s)
    wait_for(lambda: w.call(numbers=[1] * 200_000).status == 503, "the refusal")
    assert w.call(numbers=[1] * 1000).json == 1000
    for s in slow:
        s.close()
    wait_for(lambda: w.call(numbers=[1] * 200_000).status == 200, "the room of those who left")


def chunked(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


HEAD = b"POST /api/v1/perform HTTP/1.1\r\nHost: a\r\n"


def test_chunked_bodies_and_pipelining(job):
    w = job(ADDER, RACETRACK_WRAPPER_BODY_MAX="100000")
    one = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b'{"numb', b'ers": [1', b", 2]}")
    last = HEAD + b"Connection: close\r\nContent-Length: 16\r\n\r\n" + b'{"numbers": [9]}'
    live = b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n"
    out = w.raw(one + live + one + last)
    assert out.count(b"HTTP/1.1 200 OK") == 4
    assert [p.split(b"HTTP/1.1")[0] for p in out.split(b"\r\n\r\n")[1:]] == [b"3", b'{"live":true,"deployment_timestamp":0}', b"3", b"9"]
    with socket.create_connection(("127.0.0.1", w.port), timeout=10) as s:  # byte by byte
        for byte in one:
            s.sendall(bytes([byte]))
        assert s.recv(65536).endswith(b"\r\n\r\n3")
    big = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"x" * 60000, b"y" * 60000)
    assert b" 413 " in w.raw(big)


def test_expect_continue_and_http10(job):
    w = job(ADDER)
    with socket.create_connection(("127.0.0.1", w.port), timeout=10) as s:
        s.sendall(HEAD + b"Content-Length: 16\r\nExpect: 100-continue\r\n\r\n")
        assert s.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b'{"numbers": [9]}')
        assert s.recv(1000).endswith(b"\r\n\r\n9")
    out = w.raw(b"GET /live HTTP/1.0\r\n\r\n")
    assert b"200 OK" in out and b"Connection: close" in out
    assert b"Connection: keep-alive" in w.raw(b"GET /live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", wait_close=False)


@pytest.mark.parametrize("data", [
    HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    HEAD + b"Content-Length: +2\r\n\r\n{}",
    HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"X: a\r\n b\r\n\r\n",
    HEAD + b"Host: b\r\n\r\n",
    b"POST /api/v1/perform HTTP/1.1\r\n\r\n",
    b"GET /live HTTP/1.1\nHost: a\n\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET http://b/live HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 tls hello\r\n\r\n",
])
def test_smuggling_shapes_are_refused(job, data):
    w = job(ADDER)
    out = w.raw(data + b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
    assert out.startswith((b"HTTP/1.1 400", b"HTTP/1.1 501")), out
    assert out.count(b"HTTP/1.1 ") == 1 and b"Connection: close" in out
    assert w.get("/live").status == 200


def test_bad_paths(job):
    w = job(ADDER)
    assert w.get("/api/v1/%zz").status == 400
    assert w.get("/api/v1/%4").status == 400
    assert w.get("/" + "x" * 5000).status == 414
    assert w.call(numbers=[1], path="/api/v1/%70erform").json == 1


def test_caller_that_leaves(job):
    w = job(SLEEPER)
    for _ in range(50):
        s = socket.create_connection(("127.0.0.1", w.port))
        s.sendall(HEAD + b'Content-Length: 10\r\n\r\n{"s": 0.1}')
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
    assert w.call(who=1).json == 1
    wait_for(lambda: w.metric("requests_done_total") == w.metric("requests_started_total"), "the end of the calls")


def test_many_connections(job):
    w = job(ADDER)
    idle = [socket.create_connection(("127.0.0.1", w.port)) for _ in range(500)]
    with ThreadPoolExecutor(32) as pool:
        assert all(a.json == i for i, a in enumerate(pool.map(lambda i: w.call(numbers=[i]), range(500))))
    for s in idle:
        s.close()


# -- calling other jobs --


def test_call_job(job):
    callee = job("class M:\n  def perform(self, x):\n    if x < 0: raise ValueError('negative')\n    return self.request_context.get().headers['x-racetrack-auth'] + str(x)\n")
    caller = job("""
        from racetrack_job_wrapper.call import call_job, call_job_async
        class M:
            def perform(self, x):
                return call_job(self, "other", payload={"x": x}, version="1.x")
            def auxiliary_endpoints(self):
                return {"/later": self.later}
            async def later(self, x):
                return await call_job_async(self, "other", "/api/v1/perform", {"x": x})
    """, PUB_URL=f"http://127.0.0.1:{callee.port}/pub", AUTH_TOKEN="family-token")
    assert caller.call(x=5).json == "family-token5"
    assert caller.call(x=6, path="/api/v1/later").json == "family-token6"
    failed = caller.call(x=-1)
    assert failed.status == 500 and "negative" in failed.json["error"] and "400" in failed.json["error"]


@pytest.mark.skipif("san-" in str(WRAPPER), reason="a sanitizer keeps freed memory")
def test_no_leak(job):
    """Twenty thousand calls and hundreds of connections leave the front's memory as it was."""
    w = job(ADDER)

    def rss():
        text = Path(f"/proc/{w.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])

    request = HEAD + b'Content-Length: 18\r\n\r\n{"numbers": [1,2]}'

    def burst(count):
        with socket.create_connection(("127.0.0.1", w.port), timeout=20) as s:
            for _ in range(count // 100):
                s.sendall(request * 100)
                got = b""
                while got.count(b"\r\n\r\n3") < 100:
                    got += s.recv(65536)

    burst(5000)
    before = rss()
    threads = [threading.Thread(target=burst, args=(2500,)) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for _ in range(300):
        w.get("/live")
    assert rss() - before < 2000
