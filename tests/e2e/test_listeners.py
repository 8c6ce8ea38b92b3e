"""What every listener of ours refuses, and bears: the same list for image_builder, lifecycle and pub."""

import contextlib
import socket

import pytest
from pub_fakes import Wire

LISTENERS = ("image_builder", "lifecycle", "pub")
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"
# Behind "POST /live HTTP/1.1\r\nHost: x\r\n", before a request that must not be seen.
SHAPES = [
    ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    ("Content-Length: 5,5\r\n\r\nhello", 400),
    ("Content-Length: +5\r\n\r\nhello", 400),
    ("Content-Length: -5\r\n\r\nhello", 400),
    ("Content-Length: 0x5\r\n\r\nhello", 400),
    ("Content-Length:\r\n\r\nhello", 400),
    ("Content-Length:\r\n 5\r\n\r\nhello", 400),
    ("Content-Length:\n 5\r\n\r\nhello", 400),
    ("Content-Length : 5\r\n\r\nhello", 400),
    ("Content-Length: 5\0\r\n\r\nhello", 400),
    ("Content-Length: 99999999999999999999\r\n\r\nhello", 400),
    (":\r\nContent-Length: 5\r\n\r\nhello", 400),
    (": x\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    ("Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
    ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    ("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding:\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("X: y\rZ: w\r\n\r\n", 400),
    ("X: a\0b\r\n\r\n", 400),
    ("X: a\x01b\r\n\r\n", 400),
    ("X\0: a\r\n\r\n", 400),
    ("no colon\r\n\r\n", 400),
    ("X: y\r\n\n", 400),
    ("Host: second\r\n\r\n", 400),
    (CHUNKED + "5\nhello\n0\n\n", 400),
    (CHUNKED + "5;a\nhello\r\n0\r\n\r\n", 400),
    (CHUNKED + "0x5\r\nhello\r\n0\r\n\r\n", 400),
    (CHUNKED + "-1\r\nhello\r\n0\r\n\r\n", 400),
    (CHUNKED + "ffffffffffffffff0\r\nhello\r\n0\r\n\r\n", 400),
    (CHUNKED + "3\r\nhello\r\n0\r\n\r\n", 400),
]
HEADS = [
    ("GET / HTTP/1.1\n\n", 400),
    ("GET / HTTP/1.1\nHost: x\n\n", 400),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET /live\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\n\r\n", 505),
    ("GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505),
    ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % ("a" * 20000), 414),
    ("GET / HTTP/1.1\r\nHost: x\r\nX: %s" % ("a" * 40000), 431),
    ("GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % ("X: y\r\n" * 120), 431),
    ("\x16\x03\x01\x02\x00\x01\x00", 400),
]


@pytest.mark.parametrize("service", LISTENERS)
def test_malformed_requests_are_refused(platform, service):
    for text, status in [("POST /live HTTP/1.1\r\nHost: x\r\n" + head, status) for head, status in SHAPES] + HEADS:
        with Wire(platform.port(service)) as wire:
            wire.send(text + SMUGGLED)
            answer = wire.answer()
            assert answer.status == status, (text[:200], answer.status, answer.body)
            assert answer.headers["connection"] == "close" and answer.json()["error"], text[:200]
            assert wire.is_closed(), f"what came behind was taken for a request: {text[:200]!r}"


@pytest.mark.parametrize("service", LISTENERS)
def test_slow_clients_hold_nobody_up(platform, service):
    """More than requests are served at once; each stops in the middle of one."""
    begins = ("GET /li", "POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", "POST /live HTTP/1.1\r\nHost: x\r\n" + CHUNKED + "5")
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Wire(platform.port(service))) for _ in range(700)]
        for i, wire in enumerate(slow):
            wire.send(begins[i % 3])
        with Wire(platform.port(service)) as wire:
            assert wire.send("GET /live HTTP/1.1\r\nHost: x\r\n\r\n").answer().status == 200
        assert slow[0].send("ve HTTP/1.1\r\nHost: x\r\n\r\n").answer().status == 200


@pytest.mark.parametrize("service", LISTENERS[:2])
def test_both_loopback_families(platform, service):
    try:
        connection = socket.create_connection(("::1", platform.port(service)), timeout=10)
    except OSError as e:
        if not socket.has_ipv6 or e.errno in (97, 99):
            pytest.skip("no IPv6 on this machine")
        raise
    with Wire(connection) as wire:
        assert wire.send("GET /live HTTP/1.1\r\nHost: x\r\n\r\n").answer().status == 200
