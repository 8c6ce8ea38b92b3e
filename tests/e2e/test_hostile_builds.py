"""Code that pip runs is hostile code: each test is a package whose setup.py tries to do harm."""

import contextlib
import http.server
import json
import os
import socket
import threading
import time

import pytest

from harness import wait_for
from test_image_builder import REQUIRES, Builder, make_sdist, make_wheel, manifest, with_requirements

SAY = "import json, os, sys\ndef say(**facts):\n    sys.stderr.write('FACTS' + json.dumps(facts) + 'END\\n')\n"


def facts_of(result):
    return json.loads(result["logs"].split("FACTS")[1].split("END")[0])


def install(builder, setup, requirements="custom\n", **changes):
    make_sdist(builder.wheels, SAY + setup + "\nsys.exit(1)\n")
    return builder.build(manifest(**REQUIRES), with_requirements(requirements), **changes)


@pytest.fixture
def start(tmp_path):
    with contextlib.ExitStack() as stack:

        def run(**env):
            builder = Builder(tmp_path, **env)
            stack.callback(builder.stop)
            return builder

        yield run


def processes_with(mark):
    out = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if mark.encode() in file.read():
                out.append(int(pid))
    return out


def test_kernel_settings_cannot_be_written(start):
    before = open("/proc/sys/kernel/core_pattern").read()
    result = install(
        start(),
        "def tries(path):\n"
        "    try:\n        open(path, 'w').write('|/tmp/evil')\n        return 'written'\n"
        "    except OSError as e:\n        return e.strerror\n"
        "say(written=[p for p in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sysrq-trigger',"
        " '/sys/kernel/mm/ksm/run', '/etc/hosts', '/usr/bin/x') if tries(p) == 'written'],"
        " sys=os.path.exists('/sys/kernel'), uid=os.getuid(), groups=os.getgroups(),"
        " caps=[l for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'NoNewPrivs'))])\n",
    )
    facts = facts_of(result)
    assert facts["written"] == [] and facts["sys"] is False
    assert facts["uid"] != 0 and 0 not in facts["groups"]
    assert [line.split()[1] for line in facts["caps"]] == ["0" * 16, "0" * 16, "1"]
    assert open("/proc/sys/kernel/core_pattern").read() == before


def test_root_files_and_a_new_user_namespace_are_of_no_use(start):
    """Also as root of a user namespace of its own it is an ordinary user of the machine."""
    facts = facts_of(install(
        start(),
        "import subprocess\n"
        "out = subprocess.run(['unshare', '-Ur', 'sh', '-c', 'cat /etc/shadow; cat /proc/sys/kernel/core_pattern >/dev/null;"
        " echo x > /proc/sys/kernel/core_pattern && echo written'], capture_output=True, text=True)\n"
        "say(out=out.stdout)\n",
    ))
    assert "root:" not in facts["out"] and "written" not in facts["out"]


@contextlib.contextmanager
def listener(family, address):
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    accepted = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                accepted.append(server.accept()[0])

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname(), accepted
    server.close()


def test_no_service_is_reached(start, tmp_path):
    """Stand-ins of Postgres (TCP in both families, a socket's path, an abstract name) and the builder's own port."""
    builder = start()
    path = str(tmp_path / "pg.sock")
    with contextlib.ExitStack() as stack:
        places = [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0)), (socket.AF_UNIX, path),
                  (socket.AF_UNIX, f"\0racetrack-{os.getpid()}")]
        open_places = [(family, *stack.enter_context(listener(family, address))) for family, address in places]
        targets = [(int(f), a.decode("latin-1") if isinstance(a, bytes) else a) for f, a, _ in open_places]
        targets.append((int(socket.AF_INET), ("127.0.0.1", builder.port)))
        facts = facts_of(install(
            builder,
            "import socket\nreached = []\n"
            f"for family, address in {targets!r}:\n"
            "    s = socket.socket(family)\n    s.settimeout(3)\n"
            "    try:\n        s.connect(tuple(address) if isinstance(address, tuple) else address)\n        reached.append(str(address))\n"
            "    except OSError:\n        pass\n"
            # and through the way out that pip has
            "answers = []\n"
            f"for port in {[a[1] for f, a, _ in open_places[:2]] + [builder.port]!r}:\n"
            "    for host in ('127.0.0.1', '[::1]', 'localhost', '0.0.0.0', '[::ffff:127.0.0.1]', '2130706433'):\n"
            "        for ask in ('CONNECT %s:%d HTTP/1.1', 'GET http://%s:%d/health HTTP/1.1'):\n"
            "            s = socket.create_connection(('127.0.0.1', 3128), 10)\n"
            "            s.sendall((ask % (host, port) + '\\r\\nHost: x\\r\\n\\r\\n').encode())\n"
            "            answers.append(s.recv(100).split(b' ')[1].decode())\n"
            "say(reached=reached, answers=sorted(set(answers)))\n",
        ))
        assert facts == {"reached": [], "answers": ["403"]}
        assert [accepted for _, _, accepted in open_places] == [[]] * 4


def test_the_state_of_the_service_is_not_there(start):
    builder = start()
    (builder.state / "secrets.env").write_text("AUTH_KEY=hidden\n")
    facts = facts_of(install(
        builder,
        "seen = []\n"
        f"for folder, folders, files in os.walk({str(builder.state)!r}):\n"
        "    seen += [os.path.join(folder, n) for n in files]\n"
        f"say(seen=[s for s in seen if '/workspaces/' not in s and '/cache/pip/' not in s],"
        f" other=[n for n in os.listdir({str(builder.state / 'images')!r})], homes=[p for p in ('/root', '/home', '/var') if os.path.exists(p)])\n",
    ))
    assert facts["seen"] == [] and sorted(facts["other"]) == ["cache", "workspaces"]
    assert [p for p in facts["homes"] if p not in str(builder.state)] == []


def test_a_fork_bomb_is_bounded(start):
    builder = start(BUILD_PIDS_MAX=64)
    facts = facts_of(install(
        builder,
        "import time\nchildren = 0\n"
        "try:\n"
        "    while children < 5000:\n"
        "        if os.fork() == 0:\n            time.sleep(60)\n            os._exit(0)\n"
        "        children += 1\n"
        "except OSError as e:\n    pass\n"
        "say(children=children)\n",
    ))
    assert 0 < facts["children"] < 64
    assert builder.left_over() == []


def test_a_recursive_fork_bomb_harms_nobody(start):
    builder = start(BUILD_PIDS_MAX=64, BUILD_TIMEOUT_S=4)
    mark = f"bomb-{os.getpid()}"
    setup = f"import subprocess\nsubprocess.run([sys.executable, '-c', 'import os\\nwhile True:\\n try: os.fork()\\n except OSError: pass', {mark!r}])\n"
    began = time.monotonic()
    peak = []
    done = threading.Event()

    def watch():
        while not done.wait(0.2):
            peak.append(len(processes_with(mark)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    result = install(builder, setup)
    done.set()
    watcher.join()
    assert "longer than 4 s" in result["error"]
    assert time.monotonic() - began < 30 and max(peak) <= 64
    wait_for(lambda: not processes_with(mark), 10, "all of the build has ended")
    assert builder.get("/health").status_code == 200


def test_memory_is_bounded(start):
    builder = start(BUILD_MEMORY_MAX_BYTES=256 << 20)
    result = install(builder, "kept = []\nfor i in range(4096):\n    kept.append(b'x' * (1 << 20))\nsay(filled=True)\n")
    assert "FACTS" not in result["logs"]
    assert "ran out of memory: at most 256" in result["error"] or "MemoryError" in result["logs"], result
    assert builder.left_over() == []


def test_memory_files_are_bounded_too(start):
    """What lies in a tmpfs is memory."""
    builder = start(BUILD_MEMORY_MAX_BYTES=512 << 20)
    facts = facts_of(install(
        builder,
        "sizes = {}\n"
        "for path in ('/tmp/x', '/dev/shm/x'):\n"
        "    n = 0\n"
        "    try:\n"
        "        with open(path, 'wb', buffering=0) as f:\n"
        "            while n < 1024:\n                f.write(b'x' * (1 << 20))\n                n += 1\n"
        "    except OSError:\n        pass\n"
        "    sizes[path] = n\n"
        "    os.unlink(path)\n"
        "say(**sizes)\n",
    ))
    assert max(facts.values()) <= 256


def test_cpu_is_bounded(start):
    """Four processes that want all get what one half of a CPU gives."""
    builder = start(BUILD_CPU_MAX_MILLI=500, BUILD_TIMEOUT_S=60)
    facts = facts_of(install(
        builder,
        "import resource, time\nbegan = time.monotonic()\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        while time.monotonic() - began < 4: pass\n"
        "        os._exit(0)\n"
        "for _ in range(4): os.wait()\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "say(used=used.ru_utime + used.ru_stime, took=time.monotonic() - began)\n",
    ))
    if not any(os.access(f"/sys/fs/cgroup/{name}", os.W_OK) for name in ("cpu", "cpu,cpuacct", "cgroup.subtree_control")):
        pytest.skip("no writable control groups here")
    assert facts["used"] / facts["took"] < 0.75, facts


def test_disk_is_bounded(start):
    builder = start(BUILD_DISK_MAX_BYTES=64 << 20)
    result = install(
        builder,
        "import tempfile\n"
        "for i in range(4096):\n    open(os.path.join(tempfile.gettempdir(), 'f%d' % i), 'wb').write(b'x' * (1 << 20))\n"
        "    import time; time.sleep(0.01)\n"
        "say(filled=True)\n",
    )
    assert "FACTS" not in result["logs"] and result["error_code"] == "too_large"
    assert "on disk, at most 64" in result["error"]
    assert builder.left_over() == []


def test_one_huge_file_is_bounded(start):
    result = install(
        start(BUILD_DISK_MAX_BYTES=64 << 20),
        "import signal, tempfile\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try:\n"
        "    with open(os.path.join(tempfile.gettempdir(), 'f'), 'wb') as f:\n        os.posix_fallocate(f.fileno(), 0, 1 << 32)\n"
        "    say(size=1 << 32)\n"
        "except OSError as e:\n    say(error=e.strerror)\n",
    )
    assert facts_of(result) == {"error": "File too large"}


def test_the_number_of_files_is_bounded(start, tmp_path):
    config = tmp_path / "image_builder.yaml"
    config.write_text("build_files_max: 3000\n")
    builder = start(CONFIG_FILE=str(config))
    result = install(
        builder,
        "import tempfile, time\n"
        "for i in range(200000):\n    open(os.path.join(tempfile.gettempdir(), 'f%d' % i), 'w').close()\n    i % 1000 or time.sleep(0.05)\n"
        "say(filled=True)\n",
    )
    assert "FACTS" not in result["logs"] and "files, at most 3000 are allowed" in result["error"]
    assert builder.left_over() == []


def test_what_runs_for_ever_is_ended_with_all_it_started(start):
    builder = start(BUILD_TIMEOUT_S=3)
    mark = f"forever-{os.getpid()}"
    result = install(
        builder,
        "import subprocess, time\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', {mark!r}], start_new_session=True,"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "time.sleep(600)\n",
    )
    assert "longer than 3 s" in result["error"]
    wait_for(lambda: not processes_with(mark), 10, "what the build left running has ended")
    assert builder.left_over() == []


def test_a_build_that_ends_leaves_nothing_running(start):
    builder = start()
    mark = f"left-{os.getpid()}"
    install(
        builder,
        "import subprocess\n"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', {mark!r}], start_new_session=True,"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n",
    )
    wait_for(lambda: not processes_with(mark), 10, "what the build left running has ended")


def test_folders_that_cannot_be_entered_are_removed(start):
    builder = start()
    install(
        builder,
        "import tempfile\nd = os.path.join(tempfile.gettempdir(), 'a')\nos.makedirs(d + '/b')\nopen(d + '/b/c', 'w').close()\n"
        "os.chmod(d + '/b', 0)\nos.chmod(d, 0o500)\n",
    )
    assert builder.left_over() == []


# ---- the package index ----


class Index(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.strip("/").split("/")[-1]
        wheels = self.server.wheels
        if self.path.startswith("/simple/tinywheel"):
            body = "".join(f'<a href="/files/{w.name}">{w.name}</a>' for w in wheels.glob("tinywheel-*")).encode()
        elif (wheels / name).is_file():
            body = (wheels / name).read_bytes()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path.startswith("/simple") else "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def index(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        server.asked, server.wheels = [], tmp_path / "index"
        server.wheels.mkdir()
        make_wheel(server.wheels)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def with_index(start, index, **env):
    builder = start(PIP_INDEX_URL=f"http://127.0.0.1:{index.server_port}/simple", PIP_DEFAULT_TIMEOUT=3, PIP_RETRIES=0, **env)
    builder.stop()
    del builder.env["PIP_NO_INDEX"], builder.env["PIP_FIND_LINKS"]
    builder.start()
    return builder


def test_the_operators_index_is_reached_wherever_it_is(start, index):
    builder = with_index(start, index)
    result = builder.build(manifest(**REQUIRES), with_requirements("tinywheel==1.0\n"))
    assert any(name.endswith("tinywheel/__init__.py") for name in builder.layers(result)["dependencies"])
    assert index.asked


def test_an_index_that_the_job_names_must_be_public(start, index):
    """A job's own PIP_INDEX_URL would be a way to every service of this machine."""
    builder = start(PIP_DEFAULT_TIMEOUT=3, PIP_RETRIES=0)
    builder.stop()
    del builder.env["PIP_NO_INDEX"]
    builder.start()
    url = f"http://127.0.0.1:{index.server_port}/simple"
    for job, requirements in ((manifest(**REQUIRES, build_env={"PIP_INDEX_URL": url}), "tinywheel\n"),
                              (manifest(**REQUIRES), f"--index-url {url}\ntinywheel\n")):
        result = builder.build(job, with_requirements(requirements))
        assert "BUILD_NETWORK_HOSTS" in result["error"] and "no public address" in result["logs"], result
    assert index.asked == []


def test_the_operator_may_allow_a_host(start, index):
    builder = start(BUILD_NETWORK_HOSTS=f"127.0.0.1:{index.server_port}")
    builder.stop()
    del builder.env["PIP_NO_INDEX"]
    builder.start()
    job = manifest(**REQUIRES, build_env={"PIP_INDEX_URL": f"http://127.0.0.1:{index.server_port}/simple"})
    assert builder.build(job, with_requirements("tinywheel==1.0\n"))["error"] is None


def test_no_network_at_all(start, index):
    builder = with_index(start, index, BUILD_NETWORK="none")
    result = builder.build(manifest(**REQUIRES), with_requirements("tinywheel==1.0\n"))
    assert result["error_code"] == "invalid" and "builds have no network here" in result["error"]
    assert index.asked == []


def test_advice_tells_a_missing_version_from_a_missing_index(start, index):
    builder = with_index(start, index)
    missing = builder.build(manifest(**REQUIRES), with_requirements("tinywheel==9.9\n"))["error"]
    assert "check the name and the version" in missing and "can not be reached" not in missing
    index.shutdown()
    index.server_close()
    away = builder.build(manifest(**REQUIRES), with_requirements("tinywheel==1.0\n"))["error"]
    assert "the package index can not be reached" in away and "check the name" not in away


# ---- where there is no sandbox ----


@pytest.fixture
def no_bubblewrap(tmp_path):
    """As in a container that allows no namespaces."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create a new namespace' >&2\nexit 1\n")
    (folder / "bwrap").chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_without_a_sandbox_builds_are_refused_with_the_reason(start, no_bubblewrap):
    builder = start(PATH=no_bubblewrap)
    make_wheel(builder.wheels)
    result = builder.build(manifest(**REQUIRES), with_requirements("tinywheel==1.0\n"))
    assert result["image_name"] is None and result["error_code"] == "invalid"
    for part in ("refused", "No permissions to create a new namespace", "seccomp=unconfined", "BUILD_SANDBOX=off"):
        assert part in result["error"]
    assert "refused" in (builder.state / "log").read_text()
    assert builder.build(manifest(), {"adder.py": "class Adder:\n    pass\n"})["error"] is None  # runs nobody's code


def test_the_operator_may_do_without_a_sandbox(start, no_bubblewrap):
    builder = start(PATH=no_bubblewrap, BUILD_SANDBOX="off")
    make_wheel(builder.wheels)
    assert builder.build(manifest(**REQUIRES), with_requirements("tinywheel==1.0\n"))["error"] is None


def test_a_proc_that_is_refused_is_borrowed(start, tmp_path):
    """In a container that masks /proc no fresh one can be mounted: ours is shown, read-only."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "bwrap").write_text(
        "#!/bin/sh\nfor a; do [ \"$a\" != --proc ] || { echo \"bwrap: Can't mount proc on /newroot/proc\" >&2; exit 1; }; done\n"
        "exec /usr/bin/bwrap \"$@\"\n")
    (folder / "bwrap").chmod(0o755)
    builder = start(PATH=f"{folder}:{os.environ['PATH']}")
    make_wheel(builder.wheels)
    assert builder.build(manifest(**REQUIRES), with_requirements("tinywheel==1.0\n"))["error"] is None
    facts = facts_of(install(
        builder,
        "mine = []\n"
        f"for pid in ({builder.process.pid}, {os.getpid()}):\n"
        "    try:\n        mine.append(open('/proc/%d/environ' % pid, 'rb').read(10).decode())\n"
        "    except OSError:\n        pass\n"
        "    try:\n        os.kill(pid, 0)\n        mine.append(pid)\n"
        "    except OSError:\n        pass\n"
        "try:\n    open('/proc/sys/kernel/core_pattern', 'w').write('x')\n    mine.append('written')\n"
        "except OSError:\n    pass\n"
        "say(mine=mine)\n",
    ))
    assert facts == {"mine": []}
