"""What an idle connection costs pub: resident memory with 10,000 clients that have called once and keep their connection."""

import re
import resource
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from harness import BIN, free_port, wait_for

CONNECTIONS = 10000
CALL = f"GET /pub/job/adder/latest/x HTTP/1.1\r\nHost: a\r\nX-Racetrack-Auth: {'a' * 180}0\r\n\r\n".encode()


def rss_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def call(connection):
    connection.sendall(CALL)
    answer = connection.recv(4096)
    return b" 200 " in answer and connection


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < CONNECTIONS + 1000:
        raise SystemExit(f"open files are limited to {hard}: raise the hard limit above {CONNECTIONS + 1000}")
    with tempfile.TemporaryDirectory() as folder:
        peer = f"{folder}/pub_peer"
        subprocess.run(["gcc", "-O2", "-o", peer, Path(__file__).with_name("pub_peer.c"), "-lcrypto"], check=True)
        job, port = free_port(), free_port()
        env = {"RACETRACK_PROFILE": "dev", "RACETRACK_STATE": folder, "PUB_PORT": str(port), "PUB_CONNECTION_MAX": str(2 * CONNECTIONS),
               "LIFECYCLE_URL": f"http://127.0.0.1:{job}/lifecycle", "LOG_LEVEL": "error"}
        processes = [subprocess.Popen([peer, str(job), "1"]), subprocess.Popen([BIN / "pub"], env=env)]
        try:
            wait_for(lambda: call(socket.create_connection(("127.0.0.1", port))), 10, "the first call")
            time.sleep(1.5)  # the copy is written
            before = rss_kb(processes[1].pid)
            kept = [call(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS)]
            assert all(kept)
            after = rss_kb(processes[1].pid)
            each = (after - before) * 1024 / CONNECTIONS
            print(f"pub: {before} KiB, with {CONNECTIONS} idle connections {after} KiB: {each:.0f} bytes each, goal 1024  "
                  f"{'within' if each <= 1024 else 'OVER'}")
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(10)


main()
