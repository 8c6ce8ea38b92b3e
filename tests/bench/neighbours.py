"""What a job's callers notice of a neighbour that runs wild: p50 and p99 of 100 calls a second through the gateway, alone and beside it.

Every neighbour has the default limits (one CPU, 1 GiB, 512 processes, 2 GiB of disk, 1 MiB/s of output). Prints the ratio to the run alone
that was just before it; asserts nothing.
"""

import contextlib
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests

from harness import Cli, Platform, copy_sample, wait_for

SECONDS, RATE = 8, 100
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
    try:
        yield
    finally:
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
                alone = measure(platform)
                with wild(platform, cli, folder, what):
                    beside = measure(platform)
                print(f"{what:14} {beside[0]:5.2f} ms {beside[1]:5.2f} ms         {alone[0]:5.2f} ms {alone[1]:5.2f} ms   {beside[1] / alone[1]:.2f}", flush=True)
    finally:
        platform.close()


main()
