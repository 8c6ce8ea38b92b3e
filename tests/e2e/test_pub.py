"""pub alone, between a fake lifecycle and fake jobs (pub_fakes.py)."""

import pathlib
import re
import socket
import threading
import time

import pytest
from pub_fakes import ALL, Job, Lifecycle, Pub, Wire, digest, request, wait_until

CALL = "/pub/job/adder/latest/api/v1/perform"
UPGRADE = ("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
SWITCH = ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
          "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")


@pytest.fixture
def lifecycle():
    server = Lifecycle()
    yield server
    server.close()


@pytest.fixture
def make_job():
    jobs = []

    def make(handler=None, **kwargs):
        jobs.append(Job(handler, **kwargs))
        return jobs[-1]

    yield make
    for job in jobs:
        job.close()


@pytest.fixture
def job(lifecycle, make_job):
    job = make_job()
    lifecycle.add("adder", job)
    return job


@pytest.fixture
def make_pub(lifecycle, tmp_path):
    made = []

    def make(**env):
        made.append(Pub(lifecycle, tmp_path, **env))
        made[-1].wait_for_stream()
        return made[-1]

    yield make
    for pub in made:
        code = pub.stop()
        assert code == 0, pub.log()
        assert "ERROR: " not in pub.log() and "runtime error" not in pub.log(), pub.log()


@pytest.fixture
def pub(make_pub, job):
    return make_pub()


def reads_it_all(wire, n):
    return wire.read_exactly(n)


# -- forwarding --


def test_call_reaches_the_job_with_our_headers(pub, job):
    answer = pub.call(
        CALL + "?a=1&b=%2F",
        "POST",
        body=b'{"numbers": [40, 2]}',
        headers="X-Request-Tracing-Id: trace-1\r\nX-Caller-Name: root\r\nx_caller_name: root\r\nX-Custom: kept\r\n"
        "X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Host: evil\r\nX_Forwarded_Proto: https\r\nX-Forwarded-Prefix: /x\r\n"
        "Forwarded: for=10.1.1.1\r\nX-Real-IP: 10.1.1.1\r\nX_Real_Ip: 10.1.1.1\r\n",
    )
    assert answer.status == 200
    assert answer.headers["x-request-tracing-id"] == "trace-1"
    seen = answer.json()
    assert seen["line"] == "POST /pub/job/adder/0.0.1/api/v1/perform?a=1&b=%2F HTTP/1.1"
    assert seen["body"] == '{"numbers": [40, 2]}'
    headers = seen["headers"]
    assert headers["host"] == "gateway.test"
    assert headers["x-forwarded-host"] == "gateway.test"
    assert headers["x-forwarded-for"] == "127.0.0.1" and headers["x-forwarded-proto"] == "http"
    assert not {"x_forwarded_proto", "x-forwarded-prefix", "forwarded", "x-real-ip", "x_real_ip"} & headers.keys()
    assert headers["x-caller-name"] == "ESC tester"
    assert headers["x-request-tracing-id"] == "trace-1"
    assert "x-racetrack-auth" not in headers
    assert headers["x-custom"] == "kept"
    assert "x_caller_name" not in headers and "connection" not in headers


TOKENS = ("X-Racetrack-Auth: secret-token\r\nX-Racetrack-Esc-Auth: e\r\nX-Racetrack-User-Auth: u\r\nx_racetrack_auth: secret-token\r\n"
          "Cookie: a=b;X-Racetrack-Auth=secret-token ; c=d\r\nCookie: X-Racetrack-Auth=secret-token\r\n")


def test_jobs_do_not_get_the_callers_token(pub):
    headers = pub.call(CALL, token=None, headers=TOKENS).json()["headers"]
    assert not [value for value in headers.values() if "secret-token" in value]
    assert not [name for name in headers if "racetrack" in name and "auth" in name]
    assert headers["cookie"] == "a=b; c=d"


def test_operator_may_hand_the_token_on(make_pub, job):
    headers = make_pub(FORWARD_CALLER_TOKEN="true").call(CALL, token=None, headers=TOKENS).json()["headers"]
    assert headers["x-racetrack-auth"] == "secret-token" and headers["x-racetrack-esc-auth"] == "e"
    assert headers["cookie"].count("secret-token") == 2


@pytest.mark.parametrize(
    "method,headers,status",
    [
        ("POST", "Sec-Fetch-Site: cross-site\r\n", 403),
        ("POST", "Origin: http://evil.test\r\n", 403),
        ("DELETE", "Origin: null\r\n", 403),
        ("POST", "Sec-Fetch-Site: same-origin\r\n", 200),
        ("POST", "Origin: https://gateway.test\r\n", 200),
        ("POST", "", 200),
        ("GET", "Sec-Fetch-Site: cross-site\r\n", 200),
        ("GET", "Origin: http://evil.test\r\n" + UPGRADE, 403),
        ("POST", "X-Racetrack-Auth: secret-token\r\nOrigin: http://evil.test\r\n", 200),
    ],
)
def test_pages_of_others_cannot_use_the_cookie(pub, job, method, headers, status):
    with pub.wire() as wire:
        wire.send(request(CALL, method, token=None, headers="Cookie: X-Racetrack-Auth=secret-token\r\n" + headers))
        answer = wire.answer()
    assert answer.status == status
    assert len(job.requests) == (status == 200)
    if status == 403:
        assert "a page of another origin" in answer.json()["error"]


def test_pages_of_jobs_stay_in_their_place(lifecycle, make_job, make_pub):
    kinds = {
        "page": "Content-Type: text/html\r\nSet-Cookie: X-Racetrack-Auth=mine; Path=/\r\nSet-Cookie: own=1\r\n"
        "Service-Worker-Allowed: /\r\nClear-Site-Data: *\r\nReferrer-Policy: no-referrer\r\n",
        "data": "Content-Type: application/json; charset=utf-8\r\n",
        "odd": "",
    }
    lifecycle.add("adder", make_job(lambda wire, request: Job.reply(wire, b"x", headers=kinds[request.target.rpartition("/")[2]])))
    pub = make_pub()
    page = pub.call(CALL + "/page").headers
    assert page["set-cookie"] == "own=1" and not {"service-worker-allowed", "clear-site-data"} & page.keys()
    assert (page["x-content-type-options"], page["x-frame-options"], page["referrer-policy"]) == ("nosniff", "SAMEORIGIN", "no-referrer")
    assert "frame-ancestors 'self'" in page["content-security-policy"]
    assert "x-content-type-options" not in pub.call(CALL + "/data").headers
    assert pub.call(CALL + "/odd").headers["x-content-type-options"] == "nosniff"


def test_hop_by_hop_headers_end_here(pub):
    answer = pub.call(
        CALL,
        headers="Connection: X-Secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        "Proxy-Connection: x\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\n",
    )
    names = answer.json()["headers"]
    assert not {"x-secret", "keep-alive", "te", "proxy-connection", "proxy-authorization", "upgrade"} & names.keys()


def test_tracing_id_is_made_when_missing_or_odd(pub):
    uuid4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    first, second = (pub.call(CALL).headers["x-request-tracing-id"] for _ in range(2))
    assert re.fullmatch(uuid4, first) and first != second
    odd = pub.call(CALL, headers="X-Request-Tracing-Id: " + "x" * 200 + "\r\n")
    assert re.fullmatch(uuid4, odd.headers["x-request-tracing-id"])


@pytest.mark.parametrize("prefix", ["/job", "/pub/job", "/fatman", "/pub/fatman", "/p%75b/j%6fb"])
def test_every_mount_leads_to_the_job(pub, prefix):
    answer = pub.call(f"{prefix}/adder/0.x/docs")
    assert answer.json()["line"] == "GET /pub/job/adder/0.0.1/docs HTTP/1.1"


@pytest.mark.parametrize("path", ["", "/", "//a//b/", "/a%2Fb", "/caf%C3%A9", "/a?x=../..", "/a;b=c", "/...", "/.hidden"])
def test_path_is_forwarded_as_sent(pub, path):
    line = pub.call("/pub/job/adder/latest" + path).json()["line"]
    assert line == f"GET /pub/job/adder/0.0.1{path} HTTP/1.1"


@pytest.mark.parametrize(
    "path",
    ["/..", "/a/../b", "/%2e%2e/x", "/a/%2E", "/a%2F..%2Fb", "/a%2f%2e%2e", "/a%5Cb", "/a\\b", "/%00", "/%zz", "/%2", "/a%0d%0ab"],
)
def test_ambiguous_path_is_refused(pub, job, path):
    answer = pub.call("/pub/job/adder/latest" + path)
    assert answer.status == 400
    assert answer.json()["error"].startswith("Proxy request error: the path has")
    assert not job.requests


@pytest.mark.parametrize("path", ["/", "/pub", "/pub/job", "/pub/job/adder", "/nothing/here", "/pub/job//latest/x", "/live/x"])
def test_unknown_path_says_what_there_is(pub, path):
    answer = pub.call(path)
    assert answer.status == 404
    assert "/pub/job/{name}/{version}" in answer.json()["error"]
    assert answer.json()["requestId"] == answer.headers["x-request-tracing-id"]


def test_probes(pub):
    for prefix in ("", "/pub"):
        assert pub.call(prefix + "/live").json() == {"live": True}
        assert pub.call(prefix + "/ready").json() == {"ready": True}
        health = pub.call(prefix + "/health").json()
        assert (health["service"], health["status"], health["auth_required"]) == ("pub", "pass", True)
    assert pub.call("/live", "HEAD").body == b""


def test_jobs_own_answers_pass_unchanged(lifecycle, make_job, make_pub):
    statuses = iter(["404 Gone Fishing", "500 Oops", "418 I'm a teapot", "204 No Content"])

    def handler(wire, _request):
        status = next(statuses)
        if status.startswith("204"):
            wire.send(f"HTTP/1.1 {status}\r\nX-Own: 1\r\n\r\n")
        else:
            Job.reply(wire, b"own words", status, "X-Own: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n")

    lifecycle.add("adder", make_job(handler))
    pub = make_pub()
    with pub.wire() as wire:
        for status in (404, 500, 418):
            answer = wire.send(request(CALL)).answer()
            assert (answer.status, answer.body, answer.headers["x-own"]) == (status, b"own words", "1")
            assert answer.headers["set-cookie"] == "a=b, c=d"
        assert wire.send(request(CALL)).answer().status == 204
        assert wire.send(request("/live", "GET")).answer().status == 200


def test_location_of_the_job_becomes_relative(lifecycle, make_job, make_pub):
    locations = ["http://{job}/pub/job/adder/0.0.1/docs?x=1", "http://gateway.test", "https://other.test/x", "/relative",
                 "http://gateway.test//other.test/x"]

    def handler(wire, request):
        n = int(request.target[-1])
        Job.reply(wire, b"", "307 Moved", f"Location: {locations[n].format(job=job.address)}\r\n")

    job = make_job(handler)
    lifecycle.add("adder", job)
    pub = make_pub()
    seen = [pub.call(f"{CALL}/{n}").headers["location"] for n in range(5)]
    assert seen == ["/pub/job/adder/0.0.1/docs?x=1", "/", "https://other.test/x", "/relative", "http://gateway.test//other.test/x"]


def test_options_and_trace(pub, job):
    with pub.wire() as wire:
        for line, headers in (("OPTIONS *", ""), (f"OPTIONS {CALL}", "Max-Forwards: 0\r\n")):
            answer = wire.send(f"{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").answer()
            assert answer.status == 204 and "POST" in answer.headers["allow"]
            assert not {"content-length", "content-type"} & answer.headers.keys()
        answer = wire.send(request(CALL, "TRACE")).answer()
        assert answer.status == 405 and "TRACE" not in answer.headers["allow"]
    assert not job.requests
    assert pub.call(CALL, "OPTIONS", headers="Max-Forwards: 10\r\n").json()["headers"]["max-forwards"] == "9"
    assert "max-forwards" not in pub.call(CALL, "OPTIONS", headers="Max-Forwards: x\r\n").json()["headers"]
    assert pub.call(CALL, "GET", headers="Max-Forwards: 10\r\n").json()["headers"]["max-forwards"] == "10"


def test_target_in_absolute_form(pub):
    with pub.wire() as wire:
        answer = wire.send(request(f"http://Gateway.test{CALL}?x=1", "GET")).answer()
        assert answer.json()["line"] == "GET /pub/job/adder/0.0.1/api/v1/perform?x=1 HTTP/1.1"
        assert wire.send(request("http://other.test/live", "GET")).answer().status == 400


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body_do_not_speak_of_one(lifecycle, make_job, make_pub, status):
    lifecycle.add("adder", make_job(lambda wire, _: wire.send(f"HTTP/1.1 {status}\r\nContent-Length: 5\r\nETag: x\r\n\r\n")))
    pub = make_pub()
    with pub.wire() as wire:
        for _ in range(2):
            answer = wire.send(request(CALL, "GET")).answer()
            assert answer.headers["etag"] == "x" and not {"content-length", "transfer-encoding"} & answer.headers.keys()


def test_chunk_extensions_end_here(lifecycle, make_job, make_pub):
    def handler(wire, _request):
        seen = wire.read_until(b"0\r\n\r\n")
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.send(b"%x;a=b\r\n%s\r\n0;c\r\n\r\n" % (len(seen), seen))

    lifecycle.add("adder", make_job(handler, reads_body=False))
    with make_pub().wire() as wire:
        wire.send(request(CALL, headers="Transfer-Encoding: chunked\r\n") + b"3;evil=1\r\nabc\r\n0;x\r\n\r\n")
        _, headers = wire.read_head()
        assert wire.read_until(b"0\r\n\r\n") == b"d\r\n3\r\nabc\r\n0\r\n\r\n"
        assert wire.read_until(b"0\r\n\r\n") == b"\r\n0\r\n\r\n"


# -- connections --


def test_connections_are_kept_on_both_sides(pub, job):
    with pub.wire() as wire:
        for i in range(20):
            assert wire.send(request(CALL, body=b"x" * i)).answer().json()["body"] == "x" * i
    assert job.accepted == 1


def test_pipelined_requests_are_answered_in_order(pub):
    with pub.wire() as wire:
        wire.send(b"".join(request(f"{CALL}/{i}", body=b"b%d" % i) for i in range(50)))
        for i in range(50):
            answer = wire.answer().json()
            assert answer["body"] == f"b{i}" and f"/{i} " in answer["line"]


def test_pipelined_requests_then_end_of_input(pub):
    with pub.wire() as wire:
        wire.send(request(CALL, body=b"1") + request(CALL, body=b"2", headers="Connection: close\r\n"))
        wire.socket.shutdown(socket.SHUT_WR)
        assert [wire.answer().json()["body"] for _ in range(2)] == ["1", "2"]
        assert wire.is_closed()


def test_http10(lifecycle, make_job, make_pub):
    def handler(wire, _request):
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: 1\r\n\r\n")

    lifecycle.add("adder", make_job(handler))
    pub = make_pub()
    with pub.wire() as wire:
        wire.send(f"GET {CALL} HTTP/1.0\r\nX-Racetrack-Auth: secret-token\r\nConnection: keep-alive\r\n\r\n")
        line, headers = wire.read_head()
        assert "transfer-encoding" not in headers and headers["connection"] == "close"
        assert wire.read_to_end() == b"abcdefg"
    with pub.wire() as wire:
        for _ in range(2):
            answer = wire.send("GET /live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer()
            assert answer.headers["connection"] == "keep-alive"
        wire.send("GET /live HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200 and wire.is_closed()


def test_head_has_no_body(lifecycle, make_job, make_pub):
    lifecycle.add("adder", make_job(lambda wire, _: wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")))
    pub = make_pub()
    with pub.wire() as wire:
        for _ in range(3):
            answer = wire.send(request(CALL, "HEAD")).answer(head_only=True)
            assert answer.headers["content-length"] == "1234"
        assert wire.send(request("/live", "GET")).answer().status == 200


def test_chunked_request_and_trailers(pub, job):
    with pub.wire() as wire:
        wire.send(request(CALL, headers="Transfer-Encoding: chunked\r\n"))
        wire.send("3\r\nabc\r\n3;ext=1\r\ndef\r\n0\r\nX-Caller-Name: root\r\n\r\n" + request("/live", "GET").decode())
        answer = wire.answer().json()
        assert answer["body"] == "abcdef"
        assert answer["headers"]["transfer-encoding"] == "chunked" and "content-length" not in answer["headers"]
        assert wire.answer().json() == {"live": True}
        # The trailer must not be left over for the job's next request.
        assert wire.send(request(CALL, body=b"next")).answer().json()["body"] == "next"
    assert job.accepted == 1 and not job.errors


def test_chunked_request_byte_by_byte(pub):
    with pub.wire() as wire:
        for byte in request(CALL, headers="Transfer-Encoding: chunked\r\n") + b"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n":
            wire.send(bytes([byte]))
        assert wire.answer().json()["body"] == "hello0123456789"


def test_answer_until_close_is_passed_on(lifecycle, make_job, make_pub):
    def handler(wire, _request):
        wire.send("HTTP/1.0 200 OK\r\n\r\n" + "y" * 100000)
        return False

    lifecycle.add("adder", make_job(handler))
    answer = make_pub().call(CALL)
    assert answer.body == b"y" * 100000 and answer.headers["connection"] == "close"


def test_interim_answers_are_not_taken_for_the_answer(lifecycle, make_job, make_pub):
    def handler(wire, _request):
        wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        Job.reply(wire, b"final")

    lifecycle.add("adder", make_job(handler))
    assert make_pub().call(CALL).body == b"final"


def test_expect_100_continue(pub, job):
    with pub.wire() as wire:
        wire.send(request(CALL, headers="Expect: 100-continue\r\nContent-Length: 5\r\n"))
        assert wire.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = wire.send("hello").answer()
        assert answer.json()["body"] == "hello" and "expect" not in answer.json()["headers"]
    with pub.wire() as wire:
        wire.send(request(CALL, token="unknown", headers="Expect: 100-continue\r\nContent-Length: 5\r\n"))
        answer = wire.answer()
        assert answer.status == 401 and answer.headers["connection"] == "close"


# -- streaming --


def test_answer_is_streamed(lifecycle, make_job, make_pub):
    go_on = threading.Event()

    def handler(wire, _request):
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert go_on.wait(10)
        wire.send("6\r\nsecond\r\n0\r\n\r\n")

    lifecycle.add("adder", make_job(handler))
    with make_pub().wire() as wire:
        wire.send(request(CALL)).read_head()
        assert wire.read_chunk() == b"first"
        go_on.set()
        assert wire.read_chunk() == b"second" and wire.read_chunk() == b""


def test_request_is_streamed(lifecycle, make_job, make_pub):
    seen = threading.Event()

    def handler(wire, _request):
        assert wire.read_exactly(5) == b"first"
        seen.set()
        assert wire.read_exactly(6) == b"second"
        Job.reply(wire, b"ok")

    lifecycle.add("adder", make_job(handler, reads_body=False))
    with make_pub().wire() as wire:
        wire.send(request(CALL, headers="Content-Length: 11\r\n") + b"first")
        assert seen.wait(10), "the first half did not reach the job before the second was sent"
        assert wire.send("second").answer().body == b"ok"


def test_large_bodies_both_ways_in_bounded_memory(lifecycle, make_job, make_pub):
    size = 64 * 1024 * 1024
    piece = bytes(range(256)) * 1024

    def handler(wire, _request):
        wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
        left = size
        while left > 0:  # an echo without storing
            data = wire.read_exactly(min(left, len(piece)))
            assert data == piece
            wire.send(data)
            left -= len(data)

    job = make_job(handler, reads_body=False)
    lifecycle.add("adder", job)
    pub = make_pub()
    before = rss_kb(pub)
    with pub.wire(timeout=60) as wire:

        def send_body():
            for _ in range(size // len(piece)):
                wire.send(piece)

        wire.send(request(CALL, headers=f"Content-Length: {size}\r\n"))
        sender = threading.Thread(target=send_body)
        sender.start()
        wire.read_head()
        for _ in range(size // len(piece)):
            assert wire.read_exactly(len(piece)) == piece
        sender.join()
    assert not job.errors
    assert rss_kb(pub) - before < 4096


def rss_kb(pub):
    with open(f"/proc/{pub.process.pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def test_client_that_does_not_read_holds_the_job_back(lifecycle, make_job, make_pub):
    sent = []

    def handler(wire, _request):
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        for _ in range(1024):
            wire.send(b"z" * 1048576)
            sent.append(1)

    lifecycle.add("adder", make_job(handler))
    pub = make_pub()
    before = rss_kb(pub)
    with pub.wire() as wire:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        wire.send(request(CALL)).read_head()
        settled = wait_until(lambda: stable(lambda: len(sent)), "the job to be held back")
        assert settled < 64, "pub took megabytes that nobody read"
        assert rss_kb(pub) - before < 4096


def stable(read):
    """The value, once it has been the same for 0.5 s; else None."""
    value = read()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        if read() != value:
            return None
        time.sleep(0.05)
    return value or 1


def test_early_answer_to_an_unfinished_request(lifecycle, make_job, make_pub):
    def handler(wire, _request):
        Job.reply(wire, b"too large", "413 Content Too Large", "Connection: close\r\n")
        return False

    lifecycle.add("adder", make_job(handler, reads_body=False))
    with make_pub().wire() as wire:
        wire.send(request(CALL, headers="Content-Length: 100000000\r\n") + b"x" * 1000)
        answer = wire.answer()
        assert (answer.status, answer.body) == (413, b"too large")
        assert answer.headers["connection"] == "close"


# -- authorisation --


@pytest.mark.parametrize(
    "headers",
    [
        "X-Racetrack-Auth: tok/en=\r\nX-Racetrack-Esc-Auth: other\r\nCookie: X-Racetrack-Auth=other\r\n",
        "Cookie: a=b; X-Racetrack-Auth=tok%2Fen%3D; c=d\r\nX-Racetrack-Esc-Auth: other\r\n",
        "X-Racetrack-Esc-Auth: tok/en=\r\nX-Racetrack-User-Auth: other\r\n",
        "X-Racetrack-User-Auth: tok/en=\r\n",
    ],
)
def test_token_is_found(pub, lifecycle, headers):
    lifecycle.allow("tok/en=", grants=[{**ALL, "family": "adder"}])
    wait_until(lambda: pub.call(CALL, token=None, headers=headers).status == 200, "the token to be known", 1.0)


def test_cookie_cannot_smuggle_a_header(pub, job):
    answer = pub.call(CALL, token=None, headers="Cookie: X-Racetrack-Auth=a%0d%0aX-Evil:%201\r\n")
    assert answer.status == 401 and not job.requests


def test_refusals_have_their_shapes(pub, lifecycle, job):
    lifecycle.allow("forbidden", name="ESC x", grants=[{**ALL, "family": "another"}])
    missing = pub.call(CALL, token=None)
    assert missing.status == 401
    assert missing.json() == {
        "error": "Proxy request error: Unauthenticated",
        "requestId": missing.headers["x-request-tracing-id"],
    }
    forbidden = wait_until(lambda: (a := pub.call(CALL, token="forbidden")).status == 403 and a, "the caller to be known")
    assert forbidden.json()["error"] == "Proxy request error: Forbidden: no permission to call adder 0.0.1"
    for path, why in (
        ("unknown/latest", "no job named unknown"),
        ("adder/2.x", "no job named adder in version 2.x (1 deployed, none of them live and fitting)"),
    ):
        unknown = pub.call(f"/pub/job/{path}/x")
        assert unknown.status == 404
        assert unknown.json()["error"] == f"Proxy request error: Job was not found: {why}"
    failed = pub.metric("pub_auth_failed")
    lifecycle.set_maintenance(True)
    maintenance = wait_until(lambda: (a := pub.call(CALL, token=None)).status == 503 and a, "the maintenance", 1.0)
    assert maintenance.headers["retry-after"] == "1"
    assert maintenance.json()["error"] == "Proxy request error: Racetrack is in maintenance mode; try again when it is over"
    lifecycle.set_maintenance(False)
    wait_until(lambda: pub.call(CALL).status == 200, "its end", 1.0)
    assert failed >= 2 and len(job.requests) == 1


def test_auth_debug_says_why(make_pub, lifecycle, job):
    lifecycle.allow("ended", name="ESC x", ends=1000)
    pub = make_pub(AUTH_DEBUG="true")
    assert pub.call(CALL, token="ended").json()["error"] == "Proxy request error: Unauthenticated: the token has expired"
    lifecycle.allow("ended", name="ESC x", grants=[])
    answer = wait_until(lambda: (a := pub.call(CALL, token="ended")).status == 403 and a, "the change", 1.0)
    assert answer.json()["error"] == (
        "Proxy request error: Forbidden: no permission: ESC x lacks the scope call_job on adder 0.0.1 /api/v1/perform")


def test_public_paths_need_no_token(pub, lifecycle, job):
    lifecycle.add("adder", job, public=["/public"])
    base = "/pub/job/adder/latest"
    wait_until(lambda: pub.call(base + "/public", token=None).status == 200, "the path to be public", 1.0)
    assert [pub.call(base + p, token=None).status for p in ("/public/a", "//public", "/public%2Fa", "/publicity", "/private", "/live")] == [
        200, 200, 200, 401, 401, 200]
    assert "x-caller-name" not in job.requests[-1].headers


def test_jobs_get_the_secret_of_their_generation(pub, lifecycle, job):
    evil = "X-Racetrack-Job-Secret: mine\r\nx_racetrack_job_secret: mine\r\n"
    headers = pub.call(CALL, headers=evil).json()["headers"]
    assert not {"x-racetrack-job-secret", "x_racetrack_job_secret"} & headers.keys()
    lifecycle.add("adder", job, secret="of-its-own")
    wait_until(lambda: pub.call(CALL, headers=evil).json()["headers"].get("x-racetrack-job-secret") == "of-its-own", "the secret", 1.0)
    assert "x_racetrack_job_secret" not in job.requests[-1].headers


def test_changes_take_effect_within_a_second_on_every_thread(make_pub, lifecycle, job):
    pub = make_pub(PUB_THREADS=2)

    def all_are(status, token="secret-token"):
        return all(pub.call(CALL, token=token).status == status for _ in range(10))

    assert all_are(200)
    lifecycle.allow("secret-token", name="ESC tester", grants=[])
    wait_until(lambda: all_are(403), "the grant to be gone", 1.0)
    lifecycle.allow("another", name="ESC tester")
    wait_until(lambda: all_are(401), "the token to be revoked", 1.0)
    assert all_are(200, "another")
    lifecycle.allow("another", name="ESC tester", active=False)
    wait_until(lambda: all_are(401, "another"), "the user to be off", 1.0)
    lifecycle.allow("another", name="ESC tester")
    wait_until(lambda: all_are(200, "another"), "the user to be on", 1.0)
    lifecycle.forbid()
    wait_until(lambda: all_are(401, "another"), "the caller to be gone", 1.0)
    lifecycle.remove("adder")
    wait_until(lambda: all_are(404), "the job to be gone", 1.0)


def test_token_ends_at_its_time_without_lifecycle(make_pub, lifecycle, job):
    lifecycle.allow("short", ends=int(time.time()) + 2)
    pub = make_pub()
    assert pub.call(CALL, token="short").status == 200
    lifecycle.close()
    wait_until(lambda: pub.call(CALL, token="short").status == 401, "the token's end", 4.0)
    assert pub.call(CALL).status == 200


def test_stream_is_resumed_where_it_broke(pub, lifecycle, job):
    assert pub.call(CALL).status == 200
    lifecycle.add("unrelated", job)
    last = lifecycle.event_id
    wait_until(lambda: pub.metric("pub_table_jobs") == 2, "the change")
    lifecycle.accept_streams = False
    lifecycle.end_streams()
    wait_until(lambda: pub.metric("pub_lifecycle_event_stream_up") == 0, "the loss to be noticed")
    lifecycle.push("weather", {"of a newer": "lifecycle"})
    lifecycle.allow("meanwhile")
    wait_until(lambda: pub.call("/health").json()["table_age_seconds"] >= 1, "the age to grow")
    assert pub.call("/health").json()["lifecycle_stream"] is False
    assert [pub.call(CALL).status, pub.call(CALL, token="meanwhile").status] == [200, 401]
    lifecycle.accept_streams = True
    pub.wait_for_stream()
    wait_until(lambda: pub.call(CALL, token="meanwhile").status == 200, "what came meanwhile", 1.0)
    assert lifecycle.stream_requests[-1]["last-event-id"] == str(last)
    assert lifecycle.stream_requests[-1]["x-racetrack-auth"].count(".") == 2
    assert pub.metric("pub_table_age_seconds") < 8


def test_picture_replaces_what_was_known(pub, lifecycle, job):
    lifecycle.accept_streams = False
    lifecycle.end_streams()
    lifecycle.add("new", job)
    lifecycle.remove("adder")
    lifecycle.forbid()
    lifecycle.allow("other")
    lifecycle.history.clear()
    lifecycle.push("weather", [])  # too much has passed to resume
    lifecycle.accept_streams = True
    wait_until(lambda: pub.call("/pub/job/new/latest/x", token="other").status == 200, "the picture")
    assert [pub.call(CALL, token="other").status, pub.call("/pub/job/new/latest/x").status] == [404, 401]


def test_damaged_record_is_no_reason_to_stop(pub, lifecycle):
    """It asks for a whole picture instead, and goes on with what it knows."""
    asked = len(lifecycle.stream_requests)
    lifecycle.push("subject", [{"id": "x", "name": "x", "active": True, "tokens": [], "grants": [{}]}])
    wait_until(lambda: len(lifecycle.stream_requests) > asked, "the picture to be asked for")
    assert "last-event-id" not in lifecycle.stream_requests[-1]
    pub.wait_for_stream()
    assert pub.call(CALL).status == 200


def test_nothing_is_known_yet(lifecycle, job, tmp_path):
    lifecycle.accept_streams = False
    pub = Pub(lifecycle, tmp_path)
    try:
        answer = pub.call(CALL)
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
        assert "has not heard from lifecycle yet" in answer.json()["error"]
        assert pub.call("/ready").status == 503 and pub.call("/live").status == 200
        assert pub.call("/health").json()["table_age_seconds"] is None
        lifecycle.accept_streams = True
        wait_until(lambda: pub.call(CALL).status == 200, "the picture")
        assert pub.call("/ready").status == 200
    finally:
        assert pub.stop() == 0


def test_lifecycle_away_everything_known_goes_on(make_pub, lifecycle, job, tmp_path):
    """On every thread, for callers that never called; also after a start without lifecycle, from the copy on disk."""
    for i in range(20):
        lifecycle.allow(f"token-{i}", name=f"ESC {i}")
    lifecycle.add("other", job, version="1.2.0")
    pub = make_pub(PUB_THREADS=4)
    assert pub.call(CALL).status == 200
    lifecycle.close()
    wait_until(lambda: pub.metric("pub_lifecycle_event_stream_up") == 0, "the loss to be noticed")
    for _ in range(2):
        assert [pub.call(CALL, token=f"token-{i}").status for i in range(20)] == [200] * 20
        assert pub.call("/pub/job/other/1.x/x").status == 200
        assert pub.call(CALL, token="never-seen").status == 401
        copy = wait_until(lambda: (path := pub.state / "pub" / "told").exists() and path, "the copy")
        assert copy.stat().st_mode & 0o777 == 0o600 and "token-7" not in copy.read_text()
        assert pub.stop() == 0
        pub = Pub(lifecycle, tmp_path, PUB_THREADS=4)
    assert pub.call("/health").json()["table_age_seconds"] >= 0
    assert pub.stop() == 0


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda text: text.replace('"d":"', '"d":"zz'), lambda _: ""])
def test_damaged_copy_is_left_alone(make_pub, lifecycle, job, tmp_path, damage):
    pub = make_pub()
    assert pub.stop() == 0
    copy = pub.state / "pub" / "told"
    copy.write_text(damage(copy.read_text()))
    lifecycle.close()
    pub = Pub(lifecycle, tmp_path)
    assert pub.call(CALL).status == 503
    assert pub.stop() == 0


def test_copy_of_another_lifecycle_is_left_alone(make_pub, lifecycle, job, tmp_path):
    assert make_pub().stop() == 0
    other = Lifecycle()
    other.accept_streams = False
    pub = Pub(other, tmp_path)
    assert pub.call(CALL).status == 503
    assert pub.stop() == 0
    other.close()


def test_staleness_can_be_bounded(make_pub, lifecycle, job):
    pub = make_pub(PUB_MAX_STALENESS_S=1)
    lifecycle.close()
    assert pub.call(CALL).status == 200
    old = wait_until(lambda: (a := pub.call(CALL)).status == 503 and a, "the knowledge to be too old", 20.0)
    assert "PUB_MAX_STALENESS_S" in old.json()["error"] and old.headers["retry-after"] == "1"


def test_use_is_reported_in_batches(pub, lifecycle):
    started = int(time.time())
    for _ in range(5):
        assert pub.call(CALL).status == 200
    pub.call(CALL, token="unknown")

    def told():
        jobs = [job for report in lifecycle.reports for job in report["jobs"]]
        return sum(job["calls"] for job in jobs) == 5 and jobs

    jobs = wait_until(told, "the report")
    assert {(job["name"], job["version"]) for job in jobs} == {("adder", "0.0.1")}
    tokens = [token for report in lifecycle.reports for token in report["tokens"]]
    assert {token["d"] for token in tokens} == {digest("secret-token")}
    assert all(started <= item["t"] <= time.time() for item in jobs + tokens)
    assert len(lifecycle.reports) <= 2
    pub.call(CALL)
    assert pub.stop() == 0
    assert sum(job["calls"] for report in lifecycle.reports for job in report["jobs"]) == 6, "the last one goes before the end"


def test_first_deployment_is_waited_for(pub, lifecycle, make_job):
    lifecycle.add("fresh", status="starting")
    wait_until(lambda: pub.metric("pub_table_jobs") == 2, "the job to be known")
    with pub.wire() as wire, pub.wire() as latest:
        wire.send(request("/pub/job/fresh/0.0.1/x", "GET"))
        latest.send(request("/pub/job/fresh/latest/x", "GET"))
        assert pub.call(CALL).status == 200, "others are not held up"
        lifecycle.add("fresh", make_job())
        assert wire.answer().status == 200 and latest.answer().status == 200
    lifecycle.add("late", status="starting")
    wait_until(lambda: pub.metric("pub_table_jobs") == 3, "the job to be known")
    answer = pub.call("/pub/job/late/0.0.1/x")
    assert answer.status == 503 and answer.headers["retry-after"] == "1"
    assert answer.json()["error"] == "Proxy request error: job late 0.0.1 is starting: nothing serves it yet, try again in a moment"
    assert pub.call("/pub/job/late/0.0.1/x", token="unknown").status == 401


# -- jobs that move, break, hang --


def test_redeploy_without_a_failed_call(pub, lifecycle, job, make_job):
    statuses, stop = [], threading.Event()

    def caller():
        with pub.wire() as wire:
            while not stop.is_set():
                statuses.append(wire.send(request(CALL, body=b"x")).answer().status)

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    old = job
    for round_number in range(3):
        wait_until(lambda: len(old.requests) > 20, "calls")
        new = make_job()
        lifecycle.add("adder", new, version=f"0.0.{round_number + 2}")
        wait_until(lambda: len(new.requests) > 20, "calls of the new one", 1.0)
        old.close()
        old = new
    stop.set()
    for thread in callers:
        thread.join()
    assert set(statuses) == {200}


def test_job_that_moves_while_it_is_called(pub, lifecycle, job, make_job):
    """Its address is refused before the news has come."""
    assert pub.call(CALL, "POST", body=b"1").status == 200
    job.close()
    new = make_job()
    with pub.wire() as wire:
        wire.send(request(CALL, "POST", body=b"2"))
        lifecycle.add("adder", new)
        answer = wire.answer()
    assert answer.status == 200 and answer.json()["body"] == "2"


def test_dead_job(pub, lifecycle, job):
    job.close()
    answer = pub.call(CALL)
    assert answer.status == 502
    value = answer.json()
    assert value.pop("error").startswith("Reverse proxy error: connection refused to a target job (job may be dead)")
    assert value == {
        "jobName": "adder",
        "jobVersion": "0.0.1",
        "jobStatus": "running",
        "requestId": answer.headers["x-request-tracing-id"],
        "caller": "ESC tester",
    }
    assert pub.metric("pub_job_proxy_connection_refused_errors") == 1


def test_job_that_dies_in_a_call(lifecycle, make_job, make_pub):
    lifecycle.add("adder", make_job(lambda wire, _: False))
    pub = make_pub()
    answer = pub.call(CALL, "POST", body=b"x")
    assert answer.status == 502
    assert answer.json()["error"] == "Reverse proxy error: connection broken to a target job (job may have died): EOF"
    assert pub.metric("pub_job_proxy_connection_broken_errors") == 1


def test_job_that_dies_in_its_answer_is_not_mistaken_for_a_whole_one(lifecycle, make_job, make_pub):
    heads = {
        "/length": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart",
        "/chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
    }

    def handler(wire, request):
        wire.send(heads[request.target.removeprefix("/pub/job/adder/0.0.1")])
        return False

    lifecycle.add("adder", make_job(handler))
    pub = make_pub()
    for path in heads:
        with pub.wire() as wire:
            wire.send(request("/pub/job/adder/latest" + path, "GET"))
            with pytest.raises((EOFError, ConnectionResetError)):
                wire.answer()


@pytest.mark.parametrize(
    "answer",
    [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 1\n\na",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: " + "y" * 40000,
    ],
)
def test_malformed_answer_is_not_passed_on(lifecycle, make_job, make_pub, answer):
    def handler(wire, _request):
        wire.send(answer)
        wire.fill()
        return False

    lifecycle.add("adder", make_job(handler))
    got = make_pub().call(CALL)
    assert got.status == 502
    assert got.json()["error"].startswith("Reverse proxy error: invalid response of a target job")


def test_answers_beyond_the_answer_never_reach_the_next_caller(lifecycle, make_job, make_pub):
    job = make_job(lambda wire, _: wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))
    lifecycle.add("adder", job)
    pub = make_pub()
    for _ in range(5):
        assert pub.call(CALL).body == b"ok"
    assert job.accepted == 5


def test_connection_closed_while_idle_costs_nobody_a_call(lifecycle, make_job, make_pub):
    job = make_job(lambda wire, request: Job.echo(wire, request) or False)
    lifecycle.add("adder", job)
    pub = make_pub()
    with pub.wire() as wire:
        for i in range(30):
            assert f"/{i} " in wire.send(request(f"{CALL}/{i}", "GET")).answer().json()["line"]


def test_idempotent_call_is_repeated_once_when_a_kept_connection_broke(lifecycle, make_job, make_pub):
    served = []

    def handler(wire, request):
        served.append(request.method)
        if len(served) in (2, 4):
            return False  # takes the request and closes: the race of keep-alive
        Job.reply(wire, b"ok")

    lifecycle.add("adder", make_job(handler))
    pub = make_pub()
    assert pub.call(CALL).status == 200
    assert pub.call(CALL).status == 200
    assert served == ["GET", "GET", "GET"] and pub.metric("pub_job_proxy_retries") == 1
    assert pub.call(CALL, "POST", body=b"x").status == 502, "a POST must not be sent twice"
    assert served == ["GET", "GET", "GET", "POST"]


def test_replicas_share_the_calls_and_cover_for_each_other(lifecycle, make_job, make_pub):
    jobs = [make_job() for _ in range(3)]
    lifecycle.add("adder", *jobs)
    pub = make_pub()
    for _ in range(30):
        assert pub.call(CALL).status == 200
    assert [len(job.requests) for job in jobs] == [10, 10, 10]
    jobs[1].close()
    for _ in range(30):
        assert pub.call(CALL, "POST", body=b"x").status == 200


def test_hung_job_times_out(lifecycle, make_job, make_pub):
    release = threading.Event()
    lifecycle.add("adder", make_job(lambda wire, _: release.wait(20) and False))
    pub = make_pub(PUB_RESPONSE_TIMEOUT_MS=300)
    answer = pub.call(CALL)
    release.set()
    assert answer.status == 504
    assert answer.json()["error"].startswith("Reverse proxy error: request to a job timed out")
    assert pub.metric("pub_job_proxy_context_deadline_errors") == 1


@pytest.mark.parametrize("how", ["close", "reset"])
def test_client_that_goes_away_is_told_to_the_job(lifecycle, make_job, make_pub, how):
    gone = threading.Event()

    def handler(wire, _request):
        if not wire.fill():
            gone.set()
        return False

    job = make_job(handler)
    lifecycle.add("adder", job)
    pub = make_pub()
    wire = pub.wire().send(request(CALL, body=b"x"))
    wait_until(lambda: job.requests, "the call")
    getattr(wire, how)()
    assert gone.wait(10)
    wait_until(lambda: pub.metric("pub_job_proxy_context_canceled_errors") == 1, "the count")


def test_client_may_close_its_half_after_its_last_request(lifecycle, make_job, make_pub):
    go_on = threading.Event()
    job = make_job(lambda wire, request: go_on.wait(10) and Job.reply(wire, b"late"))
    lifecycle.add("adder", job)
    with make_pub().wire() as wire:
        wire.send(request(CALL, headers="Connection: close\r\n"))
        wire.socket.shutdown(socket.SHUT_WR)
        wait_until(lambda: job.requests, "the call")
        go_on.set()
        assert wire.answer().body == b"late"


# -- WebSocket --

def test_websocket_passes_bytes_both_ways_and_half_closes(lifecycle, make_job, make_pub):
    def handler(wire, request):
        assert request.headers["upgrade"] == "websocket" and request.headers["connection"] == "Upgrade"
        wire.send(SWITCH + "hello")
        assert wire.read_exactly(5) == b"early"
        data = wire.read_to_end()
        wire.send(b"echo:" + data)
        return False

    job = make_job(handler)
    lifecycle.add("adder", job)
    pub = make_pub()
    with pub.wire() as wire:
        wire.send(request("/pub/job/adder/latest/ws", "GET", headers=UPGRADE) + b"early")
        line, headers = wire.read_head()
        assert " 101 " in line and headers["upgrade"] == "websocket" and headers["sec-websocket-accept"].startswith("s3pP")
        assert wire.read_exactly(5) == b"hello"
        data = bytes(range(256)) * 2000
        wire.send(data)
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.read_to_end() == b"echo:" + data
    assert not job.errors


@pytest.mark.parametrize("how", ["token", "grant", "job", "time"])
def test_tunnel_ends_with_its_right(lifecycle, make_job, make_pub, how):
    gone = threading.Event()

    def handler(wire, _request):
        wire.send(SWITCH)
        while wire.fill():
            wire.send(b"pong")
        gone.set()
        return False

    lifecycle.add("adder", make_job(handler))
    lifecycle.allow("tunnel", ends=int(time.time()) + 2 if how == "time" else None)
    pub = make_pub()
    with pub.wire() as wire, pub.wire() as other:
        for each, token in ((wire, "tunnel"), (other, "secret-token")):
            each.send(request("/pub/job/adder/latest/ws", "GET", token, UPGRADE)).read_head()
        lifecycle.add("unrelated")  # a change that concerns neither
        wait_until(lambda: pub.metric("pub_table_jobs") == 2, "the change")
        assert wire.send("ping").read_exactly(4) == b"pong"
        if how == "token":
            lifecycle.allow("another")
        elif how == "grant":
            lifecycle.allow("tunnel", grants=[{**ALL, "endpoint": "/other"}])
        elif how == "job":
            lifecycle.remove("adder")
        assert wire.is_closed() and gone.wait(10)
        if how != "job":
            assert other.send("ping").read_exactly(4) == b"pong"


@pytest.mark.parametrize(
    "headers",
    [
        UPGRADE.replace("websocket\r\n", "h2c\r\n"),
        UPGRADE.replace("Version: 13", "Version: 12"),
        UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        UPGRADE.replace("Upgrade: websocket", "Upgrade: h2c, websocket"),
        UPGRADE + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        UPGRADE + "Content-Length: 1\r\n",
    ],
)
def test_tunnel_needs_a_right_handshake(lifecycle, make_job, make_pub, headers):
    job = make_job(lambda wire, request: Job.reply(wire, {"upgrade": request.headers.get("upgrade")}))
    lifecycle.add("adder", job)
    with make_pub().wire() as wire:
        wire.send(request(CALL, "GET", headers=headers) + b"x" * ("Content-Length" in headers))
        assert wire.answer().json() == {"upgrade": None}


@pytest.mark.parametrize(
    "answer",
    [
        SWITCH.replace("s3pP", "S3pP"),
        SWITCH.replace("Sec-WebSocket-Accept", "X"),
        SWITCH.replace("Upgrade: websocket", "Upgrade: h2c"),
        SWITCH.replace("Connection: Upgrade\r\n", ""),
    ],
)
def test_tunnel_needs_a_right_answer(lifecycle, make_job, make_pub, answer):
    def handler(wire, _request):
        wire.send(answer)
        assert not wire.fill(), "nothing more gets through"
        return False

    job = make_job(handler)
    lifecycle.add("adder", job)
    with make_pub().wire() as wire:
        refused = wire.send(request(CALL, "GET", headers=UPGRADE)).answer()
        assert refused.status == 502 and "WebSocket" in refused.json()["error"]
    assert not job.errors


def test_refused_upgrade_is_an_ordinary_answer(pub):
    with pub.wire() as wire:
        answer = wire.send(request(CALL, "GET", headers=UPGRADE)).answer()
        assert answer.status == 200
        assert wire.send(request("/live", "GET")).answer().status == 200


# -- attacks --

SMUGGLED = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head,status",
    [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        ("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        ("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
        ("Content-Length: 5,5\r\n\r\nhello", 400),
        ("Content-Length: +5\r\n\r\nhello", 400),
        ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n", 400),
        ("X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("X: y\rZ: w\r\n\r\n", 400),
        ("X: a\0b\r\n\r\n", 400),
        ("Host: second\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\nhello\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", 400),
    ],
)
def test_smuggling_is_refused(pub, job, head, status):
    with pub.wire() as wire:
        wire.send(f"POST {CALL} HTTP/1.1\r\nHost: x\r\n{head}{SMUGGLED}")
        answer = wire.answer()
        assert answer.status == status and answer.headers["connection"] == "close"
        assert wire.is_closed(), "what came behind was taken for a request"
    assert not job.requests


@pytest.mark.parametrize(
    "head,status",
    [
        ("GET / HTTP/1.1\n\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\n\r\n", 505),
        ("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % ("a" * 20000), 414),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: %s" % ("a" * 40000), 431),
        ("GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % ("X: y\r\n" * 120), 431),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),
    ],
)
def test_malformed_head_is_answered_and_closed(pub, head, status):
    with pub.wire() as wire:
        wire.send(head)
        answer = wire.answer()
        assert answer.status == status
        assert set(answer.json()) == {"error", "requestId"}
        assert wire.is_closed()


def test_slow_head_is_given_up(make_pub, job):
    pub = make_pub(PUB_HEADER_TIMEOUT_MS=300)
    with pub.wire() as silent, pub.wire() as slow:
        slow.send("GET / HTTP/1.1\r\nHost:")
        stop = threading.Event()

        def drip():
            while not stop.wait(0.05):
                try:
                    slow.send("x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        assert silent.is_closed()
        assert slow.answer().status == 408
        stop.set()
        thread.join()


def test_slow_body_is_given_up(make_pub, lifecycle, make_job):
    job = make_job(reads_body=True)
    lifecycle.add("adder", job)
    pub = make_pub(PUB_IDLE_TIMEOUT_MS=300)
    with pub.wire() as wire:
        wire.send(request(CALL, headers="Content-Length: 10\r\n") + b"part")
        assert wire.answer().status == 408
    assert not job.requests


def test_idle_connection_is_closed(make_pub, job):
    with make_pub(PUB_KEEPALIVE_TIMEOUT_MS=200).wire() as wire:
        assert wire.send(request("/live", "GET")).answer().status == 200
        assert wire.is_closed()


def test_too_many_connections(make_pub, job):
    pub = make_pub(PUB_CONNECTION_MAX=8)
    wires = [pub.wire().send(request("/live", "GET")) for _ in range(8)]
    assert all(wire.answer().status == 200 for wire in wires)
    with pub.wire() as wire:
        answer = wire.answer()
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
        assert "too many connections" in answer.json()["error"]
    wires.pop().close()
    wait_until(lambda: first_status(pub) == 200, "room for one more")
    for wire in wires:
        wire.close()


def first_status(pub):
    with pub.wire() as wire:
        try:
            return wire.send(request("/live", "GET")).answer().status
        except (EOFError, OSError):
            return None


def test_out_of_descriptors_is_survived(make_pub, lifecycle, job):
    pub = make_pub()
    prlimit(pub.process.pid, 40)
    wires = [Wire(pub.port) for _ in range(80)]
    time_left = time.monotonic() + 5
    refused = 0
    for wire in wires:
        wire.socket.settimeout(0.05)
        try:
            refused += wire.answer().status == 503
        except (EOFError, OSError):
            pass
        if refused and time.monotonic() > time_left:
            break
    assert refused > 0
    for wire in wires:
        wire.close()
    wait_until(lambda: first_status(pub) == 200, "service after the rush")
    wait_until(lambda: pub.call(CALL).status == 200, "calls after the rush")


def test_no_descriptor_for_the_job_is_said_in_words(make_pub, lifecycle, job, make_job):
    """It is the gateway's fault, not the job's. An idle connection to one job is given up for one to another first."""
    pub = make_pub()
    other = make_job()
    lifecycle.add("other", other)
    wait_until(lambda: pub.metric("pub_table_jobs") == 2, "the job to be known")

    def descriptors():
        return {int(fd.name) for fd in pathlib.Path(f"/proc/{pub.process.pid}/fd").iterdir()}

    def leave_none():
        used = descriptors()
        prlimit(pub.process.pid, next(n for n in range(1000) if n not in used))

    with pub.wire() as wire:
        assert wire.send(request(CALL, "GET")).answer().status == 200
        leave_none()
        assert wire.send(request("/pub/job/other/latest/x", "GET")).answer().status == 200
        before = descriptors()
        other.cut()
        wait_until(lambda: len(descriptors()) < len(before), "the end of the idle connection")
        leave_none()
        answer = wire.send(request(CALL, "GET")).answer()
        assert answer.status == 503 and answer.headers["retry-after"] == "1"
        assert "no file descriptor left" in answer.json()["error"]
        prlimit(pub.process.pid, 1000)
        assert wire.send(request(CALL, "GET")).answer().status == 200


def prlimit(pid, files):
    import resource

    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, hard))


# -- service --


def test_metrics_have_the_names_dashboards_know(pub):
    pub.call(CALL)
    text = pub.call("/metrics").body.decode()
    labels = 'job_name="adder",job_version="0.0.1"'
    for line in (
        f"pub_job_proxy_requests{{{labels}}} 1",
        f"pub_job_proxy_requests_started{{{labels}}} 1",
        f"pub_job_proxy_requests_done{{{labels}}} 1",
        f'pub_job_proxy_response_codes{{{labels},status_code="200"}} 1',
        f'pub_job_call_response_time_histogram_bucket{{{labels},le="+Inf"}} 1',
        "pub_lifecycle_calls 1",
        "pub_auth_successful 1",
    ):
        assert line in text.splitlines()
    for name in (
        "pub_job_proxy_errors pub_job_proxy_connection_broken_errors pub_job_proxy_connection_refused_errors "
        "pub_job_proxy_context_canceled_errors pub_job_proxy_context_deadline_errors pub_job_proxy_request_errors "
        "pub_job_call_response_time pub_overall_job_proxy_response_time pub_lifecycle_call_time pub_lifecycle_errors "
        "pub_lifecycle_cache_retrieved_responses pub_lifecycle_cache_recovered_failed_responses pub_auth_failed "
        "pub_health_requests pub_panic_errors process_resident_memory_bytes"
    ).split():
        assert re.search(rf"^{name}[ {{]", text, re.M), name


def test_removed_jobs_leave_the_metrics(pub, lifecycle):
    pub.call(CALL)
    lifecycle.remove("adder")
    wait_until(lambda: 'job_name="adder"' not in pub.call("/metrics").body.decode(), "the series to go")


def test_sigterm_lets_calls_finish(lifecycle, make_job, make_pub):
    go_on = threading.Event()
    job = make_job(lambda wire, _: go_on.wait(10) and Job.reply(wire, b"done"))
    lifecycle.add("adder", job)
    pub = make_pub()
    idle = pub.wire()
    wire = pub.wire().send(request(CALL))
    wait_until(lambda: job.requests, "the call")
    pub.process.terminate()
    assert idle.is_closed()
    with pytest.raises(OSError):
        wait_until(lambda: Wire(pub.port).close(), "the listener to be closed")
    go_on.set()
    answer = wire.answer()
    assert (answer.body, answer.headers["connection"]) == (b"done", "close")
    assert pub.process.wait(5) == 0


def test_taken_port_is_named(make_pub, lifecycle, job, tmp_path):
    first = make_pub()
    for threads in (1, 2):
        folder = tmp_path / str(threads)
        folder.mkdir()
        with pytest.raises(AssertionError, match=f"port {first.port} on 127.0.0.1 is already in use"):
            Pub(lifecycle, folder, PUB_PORT=first.port, PUB_THREADS=threads)
    assert first.call("/live").status == 200


def test_names_are_resolved_without_holding_up_others(pub, lifecycle, job):
    lifecycle.add("adder", addresses=[f"localhost:{job.port}"])
    lifecycle.add("ghost", addresses=["no-such-host.invalid:7000"])
    wait_until(lambda: pub.metric("pub_table_jobs") == 2, "the jobs to be known")
    assert all(pub.call(CALL).status == 200 for _ in range(3))
    answer = pub.call("/pub/job/ghost/latest/x")
    assert answer.status == 502
    assert answer.json()["error"].startswith("Reverse proxy error: connection failed to a target job")


def test_unusable_address_is_no_reason_to_fail(pub, lifecycle, job):
    lifecycle.add("odd", addresses=["", "a:b:c:d"])
    lifecycle.add("half", addresses=["", job.address])
    wait_until(lambda: pub.metric("pub_table_jobs") == 3, "the jobs to be known")
    answer = pub.call("/pub/job/odd/latest/x")
    assert answer.status == 503 and "no replica of the job has a usable address" in answer.json()["error"]
    assert pub.call("/pub/job/half/latest/x").status == 200


@pytest.mark.parametrize(
    "env,text",
    [
        ({"LIFECYCLE_URL": "https://lifecycle/"}, "LIFECYCLE_URL 'https://lifecycle/': must be http://host:port/path"),
        ({"FORWARD_TO_PROTOCOL": "https"}, "FORWARD_TO_PROTOCOL: 'https' is not supported"),
        ({"REQUEST_TRACING_HEADER": "X Y"}, "REQUEST_TRACING_HEADER: 'X Y' is not a header name"),
        ({"RACETRACK_PROFILE": ""}, "LIFECYCLE_AUTH_TOKEN is required"),
        ({"RACETRACK_PROFILE": "prod"}, "LIFECYCLE_AUTH_TOKEN is required"),
        ({"PUB_ADDR": "no.such.addr.invalid"}, "PUB_ADDR 'no.such.addr.invalid'"),
        ({"PUB_PORT": "70000"}, "PUB_PORT"),
        ({"PUB_ACCESS_LOG": "/no/such/folder/log"}, "PUB_ACCESS_LOG: opening /no/such/folder/log"),
    ],
)
def test_wrong_setting_is_named(lifecycle, tmp_path, env, text):
    with pytest.raises(AssertionError) as raised:
        Pub(lifecycle, tmp_path, **env)
    assert text in str(raised.value)


def test_public_token_stays_on_this_machine(make_pub, lifecycle, job, tmp_path):
    make_pub()
    token = lifecycle.stream_requests[0]["x-racetrack-auth"]
    folder = tmp_path / "open"
    folder.mkdir()
    with pytest.raises(AssertionError, match="development key that everybody knows"):
        Pub(lifecycle, folder, PUB_ADDR="0.0.0.0", RACETRACK_PROFILE="", LIFECYCLE_AUTH_TOKEN=token)


def test_access_log(make_pub, lifecycle, make_job, tmp_path):
    path = tmp_path / "access.log"
    lifecycle.add("adder", make_job(lambda wire, request: "upgrade" in request.headers and wire.send(SWITCH) or Job.echo(wire, request)))
    pub = make_pub(PUB_ACCESS_LOG=path)
    with pub.wire() as wire:
        wire.send(request(CALL + "?secret=1", "GET", headers="X-Request-Tracing-Id: trace-1\r\n")).answer()
        wire.send(request("/pub/job/none/latest", "GET", token=None)).answer()
        wire.send(request("/pub/job/adder/latest/ws", "GET", headers=UPGRADE)).read_head()
    pub.call("/a" * 3000)
    with pub.wire() as wire:
        wire.send("garbage\r\n\r\n").answer()
    lines = wait_until(lambda: (lines := path.read_text().splitlines())[-1:] and "- - 400" in lines[-1] and lines, "the lines", 2.0)
    lines = [line for line in lines if "/metrics" not in line]
    times, rest = zip(*(line.split(" ", 1) for line in lines))
    assert all(re.fullmatch(r"20..-..-..T..:..:..\....Z", at) for at in times)
    expected = [
        rf'127.0.0.1 GET {CALL} 200 \d+\.\d\d\d trace-1 "ESC tester"',
        r"127.0.0.1 GET /pub/job/none/latest 404 \d+\.\d\d\d [0-9a-f-]+ null",
        r'127.0.0.1 GET /pub/job/adder/latest/ws 101 \d+\.\d\d\d [0-9a-f-]+ "ESC tester"',
        r"127.0.0.1 - - 404 \d+\.\d\d\d [0-9a-f-]+ null",
        r"127.0.0.1 - - 400 0\.000 [0-9a-f-]+ null",
    ]
    assert len(rest) == len(expected)
    for line, pattern in zip(rest, expected):
        assert re.fullmatch(pattern, line), line
    assert "secret" not in path.read_text()


def test_tokens_are_never_logged(make_pub, lifecycle, job):
    pub = make_pub(LOG_LEVEL="debug")
    pub.call(CALL, token="very-secret-token")
    pub.call("/pub/job/unknown/1.0.0", token="very-secret-token")
    assert "very-secret-token" not in pub.log()
    assert lifecycle.stream_requests[0]["x-racetrack-auth"] not in pub.log()
