"""Fixtures of the end-to-end suite; see harness.py for what they return."""

import signal

import pytest

from harness import SERVICES, Cli, Platform, copy_sample, fresh_name

LOG_TAIL_BYTES = 6000

# A shell without job control starts what it puts in the background with SIGINT ignored, and children inherit that (but no handler).
# What the tests interrupt must hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes or gigabytes; make test-slow")
    config.option.markexpr = config.option.markexpr or "not slow"


@pytest.fixture(scope="session")
def session_platform():
    """The set of services that the tests share."""
    platform = Platform()
    try:
        platform.up()
        yield platform
    finally:
        platform.close()


@pytest.fixture
def platform(session_platform, request):
    """The shared set, all running: what an earlier test has killed is started again."""
    if any(not _running(session_platform, s) for s in SERVICES):
        session_platform.up()
    request.node.platform = session_platform
    request.node.log_offsets = {s: _log_size(session_platform, s) for s in SERVICES}
    return session_platform


@pytest.fixture
def own_platform(request):
    """A set for one test alone, not started yet; `own_platform(RACETRACK_PROFILE="")` sets environment."""
    made = []

    def make(**env):
        made.append(Platform(**env))
        request.node.platform = made[-1]
        request.node.log_offsets = {}
        return made[-1]

    yield make
    for platform in made:
        platform.close()


@pytest.fixture
def cli(platform, tmp_path):
    """`racetrack` logged in as admin under the alias dev."""
    cli = Cli(tmp_path / "home")
    cli("set", "alias", "dev", platform.remote)
    cli("login", platform.token, "--remote", "dev")
    cli("set", "remote", "dev")
    return cli


@pytest.fixture
def make_job(tmp_path):
    """make_job(sample, name=None, **changes) -> (folder, name): a copy of a sample under a name of its own."""
    count = iter(range(1000))

    def make(sample="python-class", name=None, **changes):
        name = name or fresh_name(sample.removeprefix("python-"))
        return copy_sample(sample, tmp_path / f"job{next(count)}", name=name, **changes), name

    return make


@pytest.fixture
def deployed(platform, cli, make_job):
    """deployed(sample, …) -> name: a sample deployed under a fresh name; removed after the test."""
    names = []

    def deploy(sample="python-class", **changes):
        folder, name = make_job(sample, **changes)
        cli("deploy", folder, "dev")
        names.append((name, changes.get("version") or "0.0.1"))
        return name

    yield deploy
    for name, version in names:
        cli("delete", name, "--version", version, check=False)


def _running(platform, service):
    done = platform.local("status", check=False)
    return any(line.split()[:2] == [service, "running"] for line in done.stdout.splitlines())


def _log_size(platform, service):
    path = platform.state / "log" / f"{service}.log"
    return path.stat().st_size if path.exists() else 0


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the services logged meanwhile."""
    outcome = yield
    report = outcome.get_result()
    platform = getattr(item, "platform", None)
    if not report.failed or platform is None:
        return
    for service in SERVICES:
        text = platform.log(service).encode()[getattr(item, "log_offsets", {}).get(service, 0):]
        if text:
            report.sections.append((f"log of {service}", text[-LOG_TAIL_BYTES:].decode(errors="replace")))


