"""What a job's callers notice of a neighbour that runs wild: p50 and p99 of 100 calls a second through the gateway, alone and beside it.

Every neighbour has the default limits (one CPU, 1 GiB, 512 processes, 2 GiB of disk, 1 MiB/s of output). It is frozen and let go in turn, so
that what else the machine does weighs on both sides; the ratios' median is printed. Asserts nothing.
"""

import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests

from harness import Cli, Platform, copy_sample, wait_for

SECONDS, RATE, ROUNDS = 3, 100, 7
WILD = '''
import os, sys


class AdderModel:
    def perform(self, what: str):
        getattr(self, what)()

    def burn(self):
        while True:
            pass

    def fork_bomb(self):
        while True:
            try:
                os.fork()
            except OSError:
                pass

    def memory_hog(self):
        kept = []
        while True:
            kept.append(b"x" * (1 << 20))

    def tmp_filler(self):
        while True:
            with open("/tmp/a", "ab") as f:
                try:
                    f.write(b"x" * (1 << 20))
                except OSError:
                    os.unlink("/tmp/a")

    def disk_filler(self):
        with open("a", "ab") as f:
            while True:
                f.write(b"x" * (1 << 20))

    def log_flood(self):
        while True:
            sys.stdout.write("x" * 9999 + "\\n")
'''


def measure(platform):
    """p50 and p99 in ms; calls begin at fixed times, and a late one counts from when it was due."""
    session, times = requests.Session(), []
    url = platform.url("pub") + "/pub/job/adder/latest/api/v1/perform"
    began = time.monotonic()
    for i in range(SECONDS * RATE):
        due = began + i / RATE
        time.sleep(max(0, due - time.monotonic()))
        answer = session.post(url, json={"numbers": [40, 2]}, headers={"X-Racetrack-Auth": platform.token}, timeout=30)
        times.append(time.monotonic() - due)
        assert answer.status_code == 200, answer.text
    times.sort()
    return times[len(times) // 2] * 1000, times[len(times) * 99 // 100] * 1000


@contextlib.contextmanager
def wild(platform, cli, folder, what):
    name = "wild-" + what.replace("_", "-")
    copy_sample("python-class", folder / name, name=name, files={"adder.py": WILD})
    cli("deploy", folder / name, "dev")
    stop = threading.Event()

    def call():
        while not stop.is_set():  # whenever it was ended: again
            with contextlib.suppress(requests.RequestException):
                platform.call(name, {"what": what}, timeout=3600)
            stop.wait(0.1)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    time.sleep(1)
    [id] = [d["generation_id"] for d in (json.loads(p.read_text()) for p in (platform.state / "jobs").glob("*-*/workload.json")) if d["job_name"] == name]
    group = next(iter(Path("/sys/fs/cgroup").glob(f"**/racetrack/{id}")))

    def freeze(is_frozen):
        sent = members = None
        while members is None or (is_frozen and sent != members):  # until nobody has been added meanwhile
            sent = members
            try:
                members = (group / "cgroup.procs").read_text()
            except FileNotFoundError:  # it is being started anew
                return
            for pid in map(int, members.split()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP if is_frozen else signal.SIGCONT)

    try:
        yield freeze
    finally:
        freeze(False)
        stop.set()
        cli("delete", name, "--version", "0.0.1")
        thread.join(30)


def main():
    platform = Platform()
    try:
        platform.up()
        with tempfile.TemporaryDirectory() as text:
            folder = Path(text)
            cli = Cli(folder / "home")
            cli("set", "alias", "dev", platform.remote)
            cli("login", platform.token, "--remote", "dev")
            cli("set", "remote", "dev")
            copy_sample("python-class", folder / "adder", name="adder")
            cli("deploy", folder / "adder", "dev")
            wait_for(lambda: platform.call("adder", {"numbers": [40, 2]}).status_code == 200, 20, "the job answers")
            print(f"{'beside':14} {'p50':>8} {'p99':>8}   alone {'p50':>8} {'p99':>8}   p99 ratio")
            for what in sys.argv[1:] or ("burn", "fork_bomb", "memory_hog", "tmp_filler", "disk_filler", "log_flood"):
                alone, beside = [], []
                with wild(platform, cli, folder, what) as freeze:
                    for _ in range(ROUNDS):
                        freeze(True)
                        alone.append(measure(platform))
                        freeze(False)
                        beside.append(measure(platform))
                ratio = statistics.median(b[1] / a[1] for a, b in zip(alone, beside))
                (b50, b99), (a50, a99) = ([statistics.median(times) for times in zip(*side)] for side in (beside, alone))
                print(f"{what:14} {b50:5.2f} ms {b99:5.2f} ms         {a50:5.2f} ms {a99:5.2f} ms   {ratio:.2f}", flush=True)
    finally:
        platform.close()


main()
