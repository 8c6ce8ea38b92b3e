"""A redeployment of a one-line change, from the request to `done`, and what the services have in memory after a hundred.

Beside it, from the same run, what it cannot do without: an interpreter's start (the job is a Python process), and waiting for the disk
(a source, an image and a job's folder are durable before the answer).
"""

import os
import statistics
import subprocess
import time

from harness import Platform, copy_sample
from test_durability import submit
from test_storage import memory_together

COUNT = 100
GOAL_MS, GOAL_MIB = 60, 24


def median_ms(work, count):
    times = []
    for i in range(count):
        begin = time.monotonic()
        work(i)
        times.append((time.monotonic() - begin) * 1000)
    return statistics.median(times)


def main():
    platform = Platform()
    try:
        platform.up()
        api = platform.lifecycle
        folder = copy_sample("python-class", platform.folder / "job", name="bench-redeploy")
        source = (folder / "adder.py").read_text()

        def redeploy(i):
            (folder / "adder.py").write_text(f"{source}\nN = {i}\n")
            path = f"/api/v1/deploy/{submit(api, folder, force=True)}?wait_ms=20000"
            seen = ""
            while (d := api.get(path + seen).json())["status"] == "in_progress":
                seen = f"&phase={d['phase']}"
            assert d["status"] == "done", d

        def sync(i):
            fd = os.open(platform.folder / f"sync{i}", os.O_CREAT | os.O_WRONLY)
            os.write(fd, b"x" * 500)
            os.fsync(fd)
            os.close(fd)

        redeploy(-1)
        took = median_ms(redeploy, COUNT)
        start = median_ms(lambda i: subprocess.run(["/usr/bin/python3", "-c", "pass"], check=True), 20)
        disk = median_ms(sync, 50)
        print(f"redeploy of a one-line change {took:8.1f} ms (goal {GOAL_MS}), {took / start:.1f} x an interpreter's start "
              f"({start:.1f} ms), {took / disk:.0f} x a small file made durable ({disk:.2f} ms)")
        print(f"services after {COUNT} of them  {memory_together(platform):8.1f} MiB together (goal {GOAL_MIB}), shared pages counted once")
    finally:
        platform.close()


if __name__ == "__main__":
    main()
