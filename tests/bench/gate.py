"""What the gate before libmicrohttpd costs, and what slow clients cost a good one.

image_builder's /live (gate, routing, metrics, tracing id) beside bare libmicrohttpd with the same answer, in turns; then a good client's
latency while 10,000 others send a byte a second each, in the head and in the body of a request.
"""

import contextlib
import os
import re
import resource
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from harness import BIN, TOP, clean_environment, wait_for

ROUNDS = 3
SLOW = 10_000
SECONDS = 8
REQUEST = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
BEGINS = {"head": b"GET /", "body": b"POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n"}


def wrk(port, connections):
    out = subprocess.run(["wrk", "-t1", f"-c{connections}", "-d2s", f"http://127.0.0.1:{port}/live"], check=True, capture_output=True, text=True)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out.stdout)[1])


def resident_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def costs(servers):
    print("| connections | libmicrohttpd, requests/s | image_builder, requests/s | more machine time a request |")
    print("|---|---|---|---|")
    for connections in (1, 16, 64):
        best = dict.fromkeys(servers, 0.0)
        for _ in range(ROUNDS):
            for name, port in servers.items():
                best[name] = max(best[name], wrk(port, connections))
        bare, ours = best.values()
        cores = 1 if connections == 1 else os.cpu_count()
        print(f"| {connections} | {bare:,.0f} | {ours:,.0f} | {(1 / ours - 1 / bare) * 1e6 * cores:.1f} µs |")


def good_client(port):
    times = []
    end = time.monotonic() + SECONDS
    with socket.create_connection(("127.0.0.1", port)) as s:
        while time.monotonic() < end:
            begun = time.perf_counter()
            s.sendall(REQUEST)
            s.recv(4096)
            times.append((time.perf_counter() - begun) * 1e3)
            time.sleep(0.003)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def drip(clients, stop):
    while not stop.wait(0.2):
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(b"x")
        stop.wait(0.8)


def slow_clients(port, pid):
    print(f"\n| {SLOW} clients, a byte a second in the | a good client's p50 | p99 | memory for each |")
    print("|---|---|---|---|")
    print("| (none) | {:.2f} ms | {:.2f} ms | |".format(*good_client(port)))
    for where, begin in BEGINS.items():
        before = resident_kb(pid)
        clients = []
        for _ in range(SLOW):
            clients.append(socket.create_connection(("127.0.0.1", port)))
            clients[-1].send(begin)
        stop = threading.Event()
        thread = threading.Thread(target=drip, args=(clients, stop))
        thread.start()
        p50, p99 = good_client(port)
        print(f"| {where} | {p50:.2f} ms | {p99:.2f} ms | {(resident_kb(pid) - before) / SLOW * 1024:.0f} bytes |", flush=True)
        stop.set()
        thread.join()
        for client in clients:
            client.close()


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="racetrack-bench.") as folder, contextlib.ExitStack() as stack:
        peer = f"{folder}/gate_peer"
        subprocess.run(["gcc", "-O2", "-o", peer, TOP / "tests/bench/gate_peer.c", "-lmicrohttpd"], check=True)
        bare = stack.enter_context(subprocess.Popen([peer], stdout=subprocess.PIPE, text=True))
        stack.callback(bare.kill)
        env = clean_environment(RACETRACK_STATE=folder, RACETRACK_PROFILE="dev", IMAGE_BUILDER_PORT=0, BUILD_SANDBOX="off", LOG_LEVEL="error")
        ours = stack.enter_context(subprocess.Popen([BIN / "image_builder"], env=env))
        stack.callback(ours.kill)
        port = wait_for(lambda: int(Path(f"{folder}/run/image_builder.port").read_text()), 10, "image_builder listens")
        costs({"libmicrohttpd": int(bare.stdout.readline()), "image_builder": port})
        slow_clients(port, ours.pid)


if __name__ == "__main__":
    main()
