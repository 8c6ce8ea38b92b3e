"""job_launch by itself, without bubblewrap: what it hands on, what its keeper carries. Needs root, for the network namespace."""

import errno
import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import BIN, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")


@pytest.fixture
def launch(tmp_path):
    """launch(code, option…) runs Python code; its output is .log."""
    started = []

    def start(code, *options, env=()):
        memory = os.memfd_create("env")
        os.write(memory, b"".join(entry.encode() + b"\0" for entry in env))
        os.lseek(memory, 0, 0)
        os.set_inheritable(memory, True)
        log = tmp_path / f"log{len(started)}"
        with open(log, "ab") as out:
            process = subprocess.Popen([BIN / "job_launch", f"env={memory}", *options, "--", "/usr/bin/python3", "-u", "-c", code],
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                       preexec_fn=lambda: os.dup2(0, 3), pass_fds=[3, memory])  # 3 stands for the listening socket
        os.close(memory)
        process.log = log
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


class Pub:
    """A server of one kind of answer; what it got is .got."""

    def __init__(self, serve):
        self.server = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port = self.server.getsockname()[1]
        self.options = ("network=alone", f"pub=127.0.0.1:{self.port}", "pub_port=7205")
        threading.Thread(target=self.run, args=(serve,), daemon=True).start()

    def run(self, serve):
        try:
            while True:
                peer, _ = self.server.accept()
                threading.Thread(target=serve, args=(peer,), daemon=True).start()
        except OSError:
            pass

    def close(self):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


def read_all(peer):
    data = b""
    while piece := peer.recv(1 << 20):
        data += piece
    return data


def echo_when_all_is_read(peer):
    with peer:
        peer.sendall(read_all(peer))


@pytest.mark.parametrize("code, status", [("import sys; sys.exit(7)", 7), ("import os; os.abort()", 128 + 6), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_it_ends_as_the_program_does(launch, code, status):
    assert launch(code).wait(10) == status
    assert launch(code, "network=alone").wait(10) == status


def test_signals_are_passed_on(launch):
    process = launch("import signal, sys, time; signal.signal(15, lambda *a: sys.exit(5)); print('ready'); time.sleep(60)")
    wait_for(lambda: "ready" in process.log.read_text(), 10, "it runs")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 5


def test_the_environment_is_the_given_one_and_descriptors_are_closed(launch):
    process = launch("import os; print(dict(os.environ)); print(sorted(map(int, os.listdir('/proc/self/fd'))))", "files=100", env=["A=1", "B=x y"])
    assert process.wait(10) == 0
    env, fds = process.log.read_text().splitlines()
    assert env.replace("'LC_CTYPE': 'C.UTF-8'", "").rstrip(", }") == "{'A': '1', 'B': 'x y'" and eval(fds)[:3] == [0, 1, 2] and len(eval(fds)) == 5
    process = launch("import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE))", "files=100")
    assert process.wait(10) == 0 and process.log.read_text() == "(100, 100) (0, 0)\n"


@pytest.mark.parametrize("rate", [0, 1 << 20])
def test_the_last_output_is_written(launch, rate):
    process = launch("import os, sys; sys.stdout.write('x' * 500000 + 'end'); sys.stdout.flush(); os._exit(3)", f"log_rate={rate}")
    assert process.wait(20) == 3
    assert process.log.read_text() == "x" * 500000 + "end"


def test_output_beyond_the_rate_waits_and_is_complete(launch):
    began = time.monotonic()
    process = launch("for i in range(12): print('y' * 99999)", "log_rate=100000")
    assert process.wait(60) == 0
    assert time.monotonic() - began > 2  # 1.2 MB, of which 0.8 MB may come at once
    text = process.log.read_text()
    assert text.count("y" * 99999) >= 10 and text.replace("bytes", "").count("y") == 12 * 99999 and text.count("exceeds 100000 bytes a second") == 1


CLIENT = """
import socket
def call(data):
    with socket.create_connection(("127.0.0.1", 7205), timeout=20) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        got = b""
        while piece := s.recv(1 << 20):
            got += piece
        return got
"""


def test_connections_are_carried_whole_and_each_side_ends_by_itself(launch):
    pub = Pub(echo_when_all_is_read)
    process = launch(CLIENT + "data = bytes(range(256)) * 40000\nfor n in (0, 1, 16384, 16385, len(data)): assert call(data[:n]) == data[:n], n\nprint('fine')", *pub.options)
    assert process.wait(60) == 0 and process.log.read_text() == "fine\n"
    pub.close()


def test_more_connections_than_are_carried_at_once_wait(launch):
    pub = Pub(echo_when_all_is_read)
    code = CLIENT + """
from concurrent.futures import ThreadPoolExecutor
held = [socket.create_connection(("127.0.0.1", 7205), timeout=20) for _ in range(300)]
for s in held: s.sendall(b"x")
for s in held: s.shutdown(socket.SHUT_WR)
assert all(s.recv(10) == b"x" for s in held)
for s in held: s.close()
with ThreadPoolExecutor(16) as pool: assert list(pool.map(call, [b"y"] * 600)) == [b"y"] * 600
print('fine')
"""
    process = launch(code, *pub.options)
    assert process.wait(60) == 0 and process.log.read_text() == "fine\n", process.log.read_text()
    pub.close()


def test_a_peer_that_breaks_off_costs_no_cpu(launch):
    def reset(peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()

    def cpu_ticks(pid):
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    pub = Pub(reset)
    code = CLIENT + """
import time
kept = []
for i in range(20):
    s = socket.create_connection(("127.0.0.1", 7205), timeout=20)
    try: s.sendall(b"x")
    except OSError: pass
    kept.append(s)
print("ready")
time.sleep(60)
"""
    process = launch(code, *pub.options)
    wait_for(lambda: "ready" in process.log.read_text(), 20, "it runs")
    before = cpu_ticks(process.pid)
    time.sleep(1)
    assert cpu_ticks(process.pid) - before < 20
    pub.close()


def test_without_pub_it_says_so(launch):
    pub = Pub(echo_when_all_is_read)
    pub.close()
    process = launch(CLIENT + "print(call(b'POST / HTTP/1.1\\r\\nContent-Length: 100000\\r\\n\\r\\n' + b'x' * 50000).decode())", *pub.options)
    assert process.wait(20) == 0
    head, _, body = process.log.read_text().replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 503 ") and "Retry-After: 1" in head
    assert f"Content-Length: {len(body) - 1}" in head and "gateway cannot be reached" in body


def test_nothing_else_is_reached(launch):
    code = """
import socket
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "192.0.2.1")):
    try: socket.create_connection((host, %d), timeout=2); print("reached", host)
    except OSError as e: print(type(e).__name__)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = launch(code % server.getsockname()[1], "network=alone")
        assert process.wait(20) == 0 and "reached" not in process.log.read_text()


def test_no_socket_leads_around_the_network(launch):
    """AF_VSOCK and the like know no network namespaces; io_uring makes sockets, too."""
    code = """
import ctypes, socket
made = set()
for family in range(1, 46):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind).close()
            made.add(family)
        except OSError:
            pass
libc = ctypes.CDLL(None, use_errno=True)
print(sorted(made), libc.syscall(425, 8, ctypes.create_string_buffer(200)), ctypes.get_errno(), libc.syscall(41 | 0x40000000, 40, 1, 0))
"""
    process = launch(code, "network=alone", "uid=65534", "gid=65534")
    assert process.wait(20) == 0
    made, rest = process.log.read_text().split("]")
    assert set(eval(made + "]")) <= {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    assert {socket.AF_UNIX, socket.AF_INET} <= set(eval(made + "]")) and rest.split() == ["-1", str(errno.ENOSYS), "-1"]


@pytest.mark.parametrize("options", [("network=alone", "uid=x=1", "nonsense=1"), ("pub=nowhere:80",), ("pub=127.0.0.1",)])
def test_wrong_options(launch, options):
    process = launch("pass", *options)
    assert process.wait(10) == 126 and "is not understood" in process.log.read_text()
