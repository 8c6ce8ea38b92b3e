"""A real pub between a fake lifecycle and fake jobs, all on raw sockets, for test_pub.py."""

import hashlib
import json
import os
import pathlib
import queue
import signal
import socket
import struct
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PUB = str(pathlib.Path(os.environ.get("RACETRACK_BIN") or ROOT / "build/release/bin") / "pub")
DEADLINE = 10.0


def wait_until(condition, what, deadline=DEADLINE):
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {deadline} s for: {what}"
        time.sleep(0.01)


class Answer:
    def __init__(self, status, headers, body, raw_head):
        self.status, self.headers, self.body, self.raw_head = status, headers, body, raw_head

    def json(self):
        return json.loads(self.body)


class Wire:
    """One TCP connection, spoken to in bytes."""

    def __init__(self, port_or_socket, timeout=DEADLINE):
        if isinstance(port_or_socket, int):
            self.socket = socket.create_connection(("127.0.0.1", port_or_socket), timeout=timeout)
        else:
            self.socket = port_or_socket
            self.socket.settimeout(timeout)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())
        return self

    def fill(self):
        data = self.socket.recv(65536)
        self.buffer += data
        return bool(data)

    def read_until(self, end):
        while end not in self.buffer:
            if not self.fill():
                raise EOFError(f"end of stream in front of {end!r}: {self.buffer[:200]!r}")
        at = self.buffer.index(end) + len(end)
        data, self.buffer = self.buffer[:at], self.buffer[at:]
        return data

    def read_exactly(self, n):
        while len(self.buffer) < n:
            if not self.fill():
                raise EOFError(f"end of stream after {len(self.buffer)} of {n} bytes")
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def read_to_end(self):
        while self.fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def is_closed(self):
        """Waits for the end of the stream; nothing more may come."""
        try:
            return self.read_to_end() == b""
        except ConnectionResetError:
            return True

    def read_head(self):
        lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:-2]:
            name, value = line.split(":", 1)
            headers.setdefault(name.lower(), []).append(value.strip())
        return lines[0], {k: ", ".join(v) for k, v in headers.items()}

    def read_chunk(self):
        size = int(self.read_until(b"\r\n").split(b";")[0], 16)
        data = self.read_exactly(size)
        assert self.read_exactly(2) == b"\r\n"
        return data

    def read_body(self, headers, until_close=False):
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while piece := self.read_chunk():
                body += piece
            return body
        if "content-length" in headers:
            return self.read_exactly(int(headers["content-length"]))
        return self.read_to_end() if until_close else b""

    def answer(self, head_only=False):
        line, headers = self.read_head()
        status = int(line.split(" ")[1])
        no_body = head_only or status < 200 or status in (204, 304)
        body = b"" if no_body else self.read_body(headers, until_close=True)
        return Answer(status, headers, body, line)

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Server:
    """Accepts on a free port; every connection gets a thread that runs self.serve(wire)."""

    def __init__(self, port=0):
        self.connections = []
        self.accepted = 0
        self.errors = []
        self.listener = None
        self.listen(port)

    def listen(self, port):
        self.listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(connection, timeout=60)
            self.accepted += 1
            self.connections.append(wire)
            threading.Thread(target=self._run, args=(wire,), daemon=True).start()

    def _run(self, wire):
        try:
            self.serve(wire)
        except (EOFError, OSError):
            pass
        except Exception as error:  # shown by the test that asks for errors
            self.errors.append(error)
            raise
        finally:
            wire.close()

    def stop_listening(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()

    def cut(self):
        for wire in self.connections:
            try:
                wire.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.connections.clear()

    def close(self):
        self.stop_listening()
        self.cut()


class Request:
    def __init__(self, line, headers, body):
        self.line, self.headers, self.body = line, headers, body
        self.method, self.target = line.split(" ")[:2]


class Job(Server):
    """Answers every request with 200 and what it was asked; `handler(wire, request)` replaces that. The body is read
    before the handler runs unless `reads_body` is False."""

    def __init__(self, handler=None, reads_body=True):
        self.handler = handler
        self.reads_body = reads_body
        self.requests = []
        super().__init__()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def serve(self, wire):
        while True:
            line, headers = wire.read_head()
            body = wire.read_body(headers) if self.reads_body else None
            request = Request(line, headers, body)
            self.requests.append(request)
            if (self.handler or self.echo)(wire, request) is False:
                return

    @staticmethod
    def echo(wire, request):
        Job.reply(wire, {"line": request.line, "headers": request.headers, "body": request.body.decode("latin-1")})

    @staticmethod
    def reply(wire, value, status="200 OK", headers=""):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        wire.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)


ALL = {"family": None, "job": None, "endpoint": None}


class Lifecycle(Server):
    """Tells gateways what may be called, as lifecycle does: a picture, then changes. Knows one caller at first, whose token
    `secret-token` opens everything."""

    def __init__(self):
        self.jobs = {}
        self.subjects = {}
        self.maintenance = False
        self.reports = []
        self.streams = []
        self.stream_requests = []
        self.accept_streams = True
        self.event_id = 100
        self.history = []  # (id, text) of what can be resumed
        self.lock = threading.RLock()
        self.allow("secret-token", name="ESC tester")
        super().__init__()

    # -- what there is --

    def add(self, name, *jobs, version="0.0.1", status="running", public=(), secret=None, addresses=None):
        addresses = [job.address for job in jobs] if addresses is None else addresses
        record = {"id": f"{name} {version}", "name": name, "version": version, "status": status, "public": list(public),
                  "replicas": [{"address": address} for address in addresses], "secret": secret}
        with self.lock:
            self.jobs[record["id"]] = record
            self.push("job", [record])

    def remove(self, name, version="0.0.1"):
        with self.lock:
            del self.jobs[f"{name} {version}"]
            self.push("job_removed", [{"id": f"{name} {version}", "name": name, "version": version}])

    def allow(self, *tokens, grants=(ALL,), name="ESC other", active=True, ends=None):
        """The caller's whole present state."""
        record = {"id": name, "type": "esc", "name": name, "active": active, "grants": list(grants),
                  "tokens": [{"d": digest(token), "e": ends} for token in tokens]}
        with self.lock:
            self.subjects[name] = record
            self.push("subject", [record])

    def forbid(self, name="ESC tester"):
        with self.lock:
            del self.subjects[name]
            self.push("subject_removed", [{"id": name}])

    def set_maintenance(self, is_on):
        with self.lock:
            self.maintenance = is_on
            self.push("settings", {"maintenance": is_on})

    def push(self, kind, data):
        with self.lock:
            self.event_id += 1
            text = event(kind, data) + f"id: {self.event_id}\n" + event("seen", {})
            self.history.append((self.event_id, text))
            for stream in list(self.streams):
                stream.put(text)

    def end_streams(self):
        for stream in list(self.streams):
            stream.put(None)

    # -- being asked --

    def serve(self, wire):
        while True:
            line, headers = wire.read_head()
            path = line.split(" ")[1].removeprefix("/lifecycle/api/v1")
            if path == "/gateway/stream":
                return self.stream(wire, headers)
            assert line.startswith("POST ") and path == "/gateway/report", line
            self.reports.append(json.loads(wire.read_body(headers)))
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull")

    def picture(self):
        text = event("snapshot", {"id": self.event_id})
        text += event("job", list(self.jobs.values())) if self.jobs else ""
        text += event("subject", list(self.subjects.values())) if self.subjects else ""
        text += event("settings", {"maintenance": self.maintenance})
        return text + f"id: {self.event_id}\n" + event("snapshot_end", {})

    def beginning(self, last):
        if last is None or (self.history and int(last) < self.history[0][0] - 1):
            return self.picture()
        text = event("resumed", {"id": self.event_id}) + event("settings", {"maintenance": self.maintenance})
        return text + "".join(text for id, text in self.history if id > int(last))

    def stream(self, wire, headers):
        self.stream_requests.append(headers)
        if not self.accept_streams:
            return
        mine = queue.Queue()
        with self.lock:
            mine.put(self.beginning(headers.get("last-event-id")))
            self.streams.append(mine)
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while (text := self.next(mine)) is not None:
                wire.send(f"{len(text.encode()):x}\r\n{text}\r\n")
        finally:
            self.streams.remove(mine)

    @staticmethod
    def next(mine):
        try:
            return mine.get(timeout=5)
        except queue.Empty:
            return ": heartbeat\n\n"


def digest(token):
    return hashlib.sha256(token.encode()).hexdigest()


def event(kind, data):
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


class Pub:
    def __init__(self, lifecycle, folder, **env):
        pathlib.Path(folder, "state", "run", "pub.port").unlink(missing_ok=True)
        self.log_path = pathlib.Path(folder) / "pub.log"
        self.state = pathlib.Path(folder) / "state"
        env = {
            **{k: v for k, v in os.environ.items() if k in ("PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")},
            "RACETRACK_PROFILE": "dev",
            "RACETRACK_STATE": str(self.state),
            "PUB_PORT": "0",
            "PUB_THREADS": "1",
            "LIFECYCLE_URL": f"http://127.0.0.1:{lifecycle.port}/lifecycle",
            **{k: str(v) for k, v in env.items()},
        }
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([PUB], env=env, stdout=log, stderr=log)
        port_file = self.state / "run" / "pub.port"
        wait_until(lambda: self.process.poll() is not None or port_file.exists(), "pub to listen")
        assert self.process.poll() is None, self.log()
        self.port = int(port_file.read_text())

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wire(self, **kwargs):
        return Wire(self.port, **kwargs)

    def call(self, path, method="GET", token="secret-token", headers="", body=b""):
        with self.wire() as wire:
            wire.send(request(path, method, token, headers + "Connection: close\r\n", body))
            return wire.answer(head_only=method == "HEAD")

    def metric(self, name):
        for line in self.call("/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split(" ")[1])
        raise AssertionError(f"no metric {name}")

    def wait_for_stream(self):
        wait_until(lambda: self.metric("pub_lifecycle_event_stream_up") == 1, "the event stream")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(15)
        return code


def request(path, method="POST", token="secret-token", headers="", body=b""):
    head = f"{method} {path} HTTP/1.1\r\nHost: gateway.test\r\n{headers}"
    if token:
        head += f"X-Racetrack-Auth: {token}\r\n"
    if body:
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body
