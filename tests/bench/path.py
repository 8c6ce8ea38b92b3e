"""The whole path: deploying, starting, resting. Budgets are those of the project's first issue.

The peer of a redeployment, docker build + push + pull + run-to-ready of the same job, took 1.32 s on this kind of machine; it is given
as a number because no container engine is needed here.
"""

import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import requests

from harness import BIN, Cli, Platform, copy_sample, free_port

DOCKER_S = 1.32
SERVICES = ("image_builder", "lifecycle", "pub")


def row(what, measured, budget, unit="ms", note=""):
    verdict = "within" if measured <= budget else "OVER"
    print(f"{what:46} {measured:9.1f} {unit:4} budget {budget:7.1f}  {verdict:6} {note}")


def redeploy(platform, cli, folder, rounds):
    """CLI start to the first 200 of the new code through pub; seconds of each round."""
    source = (folder / "adder.py").read_text()
    session = requests.Session()
    session.headers["X-Racetrack-Auth"] = platform.token
    url = platform.url("pub") + "/pub/job/bench-adder/latest/api/v1/perform"
    times = []
    for n in range(1, rounds + 1):
        (folder / "adder.py").write_text(source.replace("return sum(numbers)", f"return sum(numbers) + {n}"))
        begin = time.monotonic()
        process = subprocess.Popen([BIN / "racetrack", "deploy", folder, "dev", "--force"], env=cli.env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while True:
            answer = session.post(url, json={"numbers": [40, 2]})
            if answer.status_code == 200 and answer.json() == 42 + n:
                times.append(time.monotonic() - begin)
                break
            if process.poll() not in (None, 0):
                raise SystemExit(process.stdout.read().decode())
        if process.wait() != 0:
            raise SystemExit(process.stdout.read().decode())
    return times


def unchanged(cli, folder, rounds):
    times = []
    for _ in range(rounds):
        begin = time.monotonic()
        cli("deploy", folder, "dev", "--force")
        times.append(time.monotonic() - begin)
    return times


def time_to_ready(platform, service, rounds):
    """exec to /ready of a second instance on the migrated database."""
    times = []
    settings = platform.settings()
    for _ in range(rounds):
        port = free_port()
        with tempfile.TemporaryDirectory(dir=platform.folder) as state:
            env = {**platform.env, **settings, "RACETRACK_STATE": state, f"{service.upper()}_PORT": str(port)}
            begin = time.monotonic()
            process = subprocess.Popen([BIN / service], env=env, cwd=state, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                while process.poll() is None:
                    try:
                        if requests.get(f"http://127.0.0.1:{port}/ready", timeout=2).status_code == 200:
                            times.append(time.monotonic() - begin)
                            break
                    except requests.ConnectionError:
                        continue
                else:
                    raise SystemExit(f"{service} ended while starting")
            finally:
                process.terminate()
                process.wait(10)
    return times


def kib(file, name):
    return next(int(line.split()[1]) for line in Path(file).read_text().splitlines() if line.startswith(name + ":"))


def rss_mib(pid):
    return kib(f"/proc/{pid}/status", "VmRSS") / 1024


def pss_mib(pid):
    """Pages shared with other processes (libraries, mostly) are counted in parts."""
    return kib(f"/proc/{pid}/smaps_rollup", "Pss") / 1024


def each(memory):
    return ", ".join(f"{service} {mib:.1f}" for service, mib in memory.items())


def main():
    platform = Platform()
    try:
        platform.up()
        cli = Cli(platform.folder / "home")
        cli("set", "alias", "dev", platform.remote)
        cli("login", "dev", platform.token)
        resting = {s: rss_mib(platform.pid(s)) for s in SERVICES}
        folder = copy_sample("python-class", platform.folder / "job", name="bench-adder")
        cli("deploy", folder, "dev")
        times = redeploy(platform, cli, folder, 10)
        median = statistics.median(times)
        row("redeploy of a one-line change, median of 10", 1000 * median, 300,
            note=f"worst {1000 * max(times):.0f} ms; docker's way takes {DOCKER_S / median:.1f} times as long")
        row("redeploy, unchanged, median of 10", 1000 * statistics.median(unchanged(cli, folder, 10)), 100)
        for service in SERVICES:
            row(f"{service}: exec to ready, median of 5", 1000 * statistics.median(time_to_ready(platform, service, 5)), 150)
        after = {s: rss_mib(platform.pid(s)) for s in SERVICES}
        row("idle memory of the three services", sum(resting.values()), 30, "MiB", note=each(resting))
        print(f"{'the same, idle again after the redeployments':46} {sum(after.values()):9.1f} MiB  {each(after)}; "
              f"{sum(pss_mib(platform.pid(s)) for s in SERVICES):.1f} MiB when shared pages are counted in parts")
        # hyperfine, because starting a process from Python takes longer than the program.
        report = platform.folder / "version.json"
        subprocess.run(["hyperfine", "-N", "-w", "5", "-r", "200", "--style", "none", "--export-json", report,
                        f"{BIN}/racetrack version"], stdout=subprocess.DEVNULL, check=True)
        row("racetrack version, median of 200", 1000 * json.loads(report.read_text())["results"][0]["median"], 5)
    finally:
        platform.close()


main()
