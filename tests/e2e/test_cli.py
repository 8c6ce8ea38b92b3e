"""The `racetrack` program: both spellings of its commands, its files, its exit codes, its errors."""

import json
import os
import pty
import signal
import stat
import subprocess
import threading

import pytest

from harness import BIN, TOP, Cli, fresh_name, process_alive, wait_for

SLOW_START = """
import time

class Model:
    def __init__(self):
        time.sleep({seconds})
        print("model is loaded")

    def perform(self, x: int = 1) -> int:
        return x
"""


@pytest.fixture
def lone(tmp_path):
    """The CLI without any server."""
    return Cli(tmp_path / "home")


def start_deploy(cli, folder, *args):
    return subprocess.Popen(
        [BIN / "racetrack", "deploy", folder, "dev", *args], env=cli.env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1,
    )


def slow_job(make_job, seconds):
    return make_job(
        "python-class", name=fresh_name("slow"), files={"adder.py": SLOW_START.format(seconds=seconds)},
        jobtype_extra={"entrypoint_path": "adder.py", "entrypoint_class": "Model"},
    )


# --- without a server


def test_version(lone):
    version = (TOP / "VERSION").read_text().strip()
    assert lone("version").stdout == f"racetrack-client version {version}\n"
    assert lone("--version").stdout == f"racetrack-client version {version}\n"


@pytest.mark.parametrize(
    "args",
    [("frob",), ("deploy", "--frob"), ("set", "alias", "dev"), ("config",), ("delete", "adder"), ("list", "-c", "size"),
     ("deploy", TOP / "sample/python-class", "http://127.0.0.1:1", "--build-context", "cloud"), ("logs", "x", "--tail", "-1"),
     ("login", "dev", "token", "--remote", "dev"), ("logs", "adder", "dev", "--remote", "prod"),
     ("call", "adder", "/x", "{}", "dev", "more"), ("call", "adder", "/x", "{}", "dev", "--remote", "prod"), ()],
)
def test_wrong_usage_exits_with_2(lone, args):
    lone("set", "alias", "dev", "http://127.0.0.1:1")
    done = lone(*args, check=False)
    assert done.returncode == 2, done.stdout + done.stderr


def test_every_command_has_help(lone):
    listed = [line.split("  ")[1].strip() for line in lone("--help").stdout.splitlines() if line.startswith("  ")]
    assert len(listed) >= 16
    for name in listed:
        assert f"Usage: racetrack {name}" in lone(*name.split(), "--help").stdout


@pytest.mark.parametrize(
    "spelling", [("set", "alias", "dev", "http://localhost:7202"), ("config", "alias", "set", "dev", "http://localhost:7202")]
)
def test_alias_in_both_spellings(lone, spelling):
    lone(*spelling)
    assert lone.config() == {"lifecycle_url_aliases": {"dev": "http://localhost:7202"}}
    assert stat.S_IMODE(lone.config_path.stat().st_mode) == 0o600


@pytest.mark.parametrize("spelling", [("set", "remote", "dev"), ("config", "racetrack_url", "dev")])
def test_default_remote_in_both_spellings(lone, spelling):
    lone("set", "alias", "dev", "http://localhost:7202")
    lone(*spelling)
    assert lone.config()["lifecycle_url"] == "dev"
    assert lone("get", "remote", "-q").stdout == "http://localhost:7202/lifecycle\n"


@pytest.mark.parametrize("spelling", [("set", "credentials"), ("config", "credentials", "set")])
def test_git_credentials_in_both_spellings(lone, spelling):
    lone(*spelling, "https://github.com", "me", "hunter2")
    assert lone.config()["git_credentials"] == {"https://github.com": {"username": "me", "password": "hunter2"}}
    for show in (("get", "config"), ("config", "show")):
        text = lone(*show).stdout
        assert "hunter2" not in text and "me" in text


def test_a_config_of_the_original_is_read_and_kept(lone):
    lone.config_path.parent.mkdir()
    lone.config_path.write_text(
        "git_credentials: {}\nlifecycle_url: http://127.0.0.1:7002\nlifecycle_url_aliases:\n  dev: http://127.0.0.1:7102\n"
        "user_auths:\n  http://127.0.0.1:7102/lifecycle: tok\nunknown:\n  nested: [1, 2]\n"
    )
    lone.config_path.chmod(0o644)
    done = lone("get", "auth-token", "--remote", "dev")
    assert done.stdout == "tok\n"
    assert "chmod 600" in done.stderr
    done = lone("set", "alias", "prod", "https://prod.example.com")
    config = lone.config()
    assert config["unknown"] == {"nested": [1, 2]} and config["user_auths"] == {"http://127.0.0.1:7102/lifecycle": "tok"}
    assert stat.S_IMODE(lone.config_path.stat().st_mode) == 0o600


def test_many_changes_at_once_lose_none(lone):
    threads = [threading.Thread(target=lone, args=("set", "alias", f"a{i}", f"http://h{i}")) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert lone.config()["lifecycle_url_aliases"] == {f"a{i}": f"http://h{i}" for i in range(12)}


def test_an_unknown_alias_lists_the_known(lone):
    lone("set", "alias", "dev", "http://localhost:7202")
    done = lone("list", "--remote", "preprod", check=False)
    assert done.returncode == 70
    assert "http://localhost:7202" in done.stderr and "racetrack set alias preprod URL" in done.stderr


def test_a_server_that_is_away(lone):
    done = lone("list", "--remote", "http://127.0.0.1:1", check=False)
    assert done.returncode == 70
    assert "127.0.0.1:1" in done.stderr and "make up" in done.stderr


def test_a_manifest_without_a_version_is_0_0_1_everywhere(cli, make_job, platform):
    folder, name = make_job()
    manifest = (folder / "job.yaml").read_text().replace("version: 0.0.1\n", "")
    assert "version:" not in manifest
    (folder / "job.yaml").write_text(manifest)
    assert 'version: "0.0.1"' in cli("validate", folder).stdout
    cli("deploy", folder, "dev")
    job = platform.lifecycle.get(f"/api/v1/job/{name}/latest").json()
    assert job["version"] == "0.0.1" and job["manifest"]["version"] == "0.0.1" and job["manifest_yaml"] == manifest
    health = platform.pub.get(f"/pub/job/{name}/0.0.1/health").json()
    assert health["job_version"] == "0.0.1"
    cli("delete", name, "--version", "0.0.1")


def test_a_pinned_job_type_runs_on_the_installed_one_with_a_warning(cli, make_job, platform):
    folder, name = make_job()
    manifest = (folder / "job.yaml").read_text().replace("python3:latest", "python3:2.15.0")
    (folder / "job.yaml").write_text(manifest + "  debian_version: slim-bullseye\n  memray_profiler: true\n")
    done = cli("deploy", folder, "dev")
    for said in ("python3:2.15.0 is not installed", "jobtype_extra.debian_version: has no effect", "jobtype_extra.memray_profiler: has no effect"):
        assert said in done.stdout + done.stderr, said
    assert platform.call(name, {"numbers": [40, 2]}).json() == 42
    cli("delete", name, "--version", "0.0.1")


def test_validate_prints_the_merged_manifest(lone, make_job):
    folder, name = make_job()
    (folder / "base.yaml").write_text((folder / "job.yaml").read_text())
    (folder / "job.yaml").write_text("extends: base.yaml\nversion: 1.2.3\ngit:\n  branch: next\n")
    done = lone("validate", folder, "-e", "git.directory=here")
    assert f"name: {name}" in done.stdout and "1.2.3" in done.stdout
    assert "branch: next" in done.stdout and "directory: here" in done.stdout
    assert "is valid" in done.stderr


@pytest.mark.parametrize(
    "change, named",
    [
        ("nme: x\n", "nme"),
        ("version: not-a-version\n", "version"),
        ("name: a\nname: b\n", "name"),
        ("labels: &a {x: *a}\n", "anchor"),
        ("resources: {memory_max: lots}\n", "memory_max"),
    ],
)
def test_validate_names_the_fault(lone, make_job, change, named):
    folder, _ = make_job()
    key = change.split(":")[0]
    lines = [line for line in (folder / "job.yaml").read_text().splitlines(True) if not line.startswith(key + ":")]
    (folder / "job.yaml").write_text("".join(lines) + change)
    done = lone("validate", folder, check=False)
    assert done.returncode == 70
    assert named in done.stderr and "Traceback" not in done.stderr


def test_deep_yaml_is_refused_quickly(lone, tmp_path):
    (tmp_path / "job.yaml").write_text("a: " + "[" * 20000 + "]" * 20000)
    done = lone("validate", tmp_path, check=False, timeout=5)
    assert done.returncode == 70 and "deep" in done.stderr.lower() or "level" in done.stderr.lower(), done.stderr


# --- with a server


def test_login_in_every_spelling(platform, tmp_path):
    for i, words in enumerate(
        [("login", "dev", platform.token), ("login", platform.token, "--remote", "dev"), ("login", platform.remote, platform.token)]
    ):
        cli = Cli(tmp_path / f"home{i}")
        cli("set", "alias", "dev", platform.remote)
        assert "logged in to dev as admin" in cli(*words).stdout
        assert cli.config()["user_auths"] == {platform.remote + "/lifecycle": platform.token}
        assert cli("get", "auth-token", "--remote", "dev").stdout.strip() == platform.token
        cli("set", "alias", "another", platform.remote)
        assert "logged out of another" in cli("logout", "another").stdout
        assert cli.config()["user_auths"] == {}


def test_login_from_stdin_and_with_a_password(platform, lone):
    lone("set", "alias", "dev", platform.remote)
    lone("login", "--remote", "dev", input=platform.token + "\n")
    lone("logout", "--remote", "dev")
    lone("login", "--username", "admin", "--remote", "dev", input="admin\n")
    assert "deployed at" in lone("list", "--remote", "dev").stdout
    done = lone("login", "--username", "admin", "--remote", "dev", input="wrong\n", check=False)
    assert done.returncode == 70 and "wrong user name or password" in done.stderr


def test_logout_ends_the_session(platform, lone):
    lone("set", "alias", "dev", platform.remote)
    lone("login", "--username", "admin", "--remote", "dev", input="admin\n")
    session = lone("get", "auth-token", "--remote", "dev").stdout.strip()
    assert session != platform.token
    assert platform.lifecycle.get("/api/v1/job", token=session).status_code == 200
    assert lone("logout", "dev").stderr == ""
    assert platform.lifecycle.get("/api/v1/job", token=session).status_code == 401
    lone("login", "dev", platform.token)
    lone("logout", "dev")
    assert platform.lifecycle.get("/api/v1/job", token=platform.token).status_code == 200  # no session: it was made by hand


def test_a_wrong_token_is_not_kept(platform, lone):
    lone("set", "alias", "dev", platform.remote)
    wrong = platform.token[:-4] + "AAAA"
    done = lone("login", "dev", wrong, check=False)
    assert done.returncode == 70 and wrong not in done.stderr
    assert "user_auths" not in lone.config()


def test_not_logged_in_says_what_to_type(platform, lone):
    lone("set", "alias", "dev", platform.remote)
    for args in (("list", "--remote", "dev"), ("deploy", TOP / "sample/python-class", "dev")):
        done = lone(*args, check=False)
        assert done.returncode == 70
        assert "racetrack login --username NAME --remote dev" in done.stderr


def test_phases_are_printed_once_with_time(cli, make_job):
    folder, name = make_job()
    lines = cli("deploy", folder, "dev").stdout.splitlines()
    assert lines[0] == f"deploying {name} 0.0.1 to dev"
    phases = [line.split(" s  ", 1)[1] for line in lines[1:]]
    assert phases and len(set(phases)) == len(phases)
    assert phases[-1].startswith(f"{name} 0.0.1 is running: http://")
    assert "\r" not in "".join(lines) and "\x1b" not in "".join(lines)
    cli("delete", name, "--version", "0.0.1")


def test_a_progress_line_on_a_terminal(cli, make_job):
    folder, name = slow_job(make_job, 1)
    for no_color in (None, "1"):
        env = {k: v for k, v in cli.env.items() if k != "NO_COLOR"}
        env["TERM"] = "xterm"
        if no_color:
            env["NO_COLOR"] = no_color
        master, slave = pty.openpty()
        process = subprocess.Popen([BIN / "racetrack", "deploy", folder, "dev", "--force"], env=env, stdin=slave, stdout=slave,
                                   stderr=slave)
        os.close(slave)
        output = b""
        while True:
            try:
                chunk = os.read(master, 4096)
            except OSError:
                break
            if not chunk:
                break
            output += chunk
        os.close(master)
        assert process.wait(30) == 0, output.decode()
        if no_color:
            assert b"\x1b" not in output
        else:
            assert b"\r\x1b[K" in output
            break
    cli("delete", name, "--version", "0.0.1")


def test_ctrl_c_leaves_the_deployment_going(platform, cli, make_job):
    folder, name = slow_job(make_job, 3)
    process = start_deploy(cli, folder)
    seen = []
    for line in process.stdout:
        seen.append(line)
        if " s  " in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=10)[0]
    assert process.returncode == 130, "".join(seen) + rest
    assert "goes on at the server" in rest and f"racetrack build-logs {name}" in rest
    wait_for(lambda: f"{name}" in cli("list").stdout and "RUNNING" in [
        line.split()[2] for line in cli("list").stdout.splitlines() if line.startswith(name)], 60, "the job runs")
    cli("delete", name, "--version", "0.0.1")


def test_a_lost_server_is_asked_again(platform, cli, make_job):
    folder, name = slow_job(make_job, 3)
    process = start_deploy(cli, folder)
    seen = ""
    for line in process.stdout:
        seen += line
        if " s  " in line:
            break
    platform.kill("lifecycle")
    for line in process.stdout:
        seen += line
        if "trying again" in line:
            break
    assert "trying again" in seen
    platform.up()
    seen += process.communicate(timeout=60)[0]
    assert process.returncode == 0, seen
    assert "connected again" in seen and f"{name} 0.0.1 is running" in seen
    assert platform.call(name, {"x": 7}).json() == 7
    cli("delete", name, "--version", "0.0.1")


def test_a_manifest_on_stdin(platform, cli, make_job):
    folder, _ = make_job()
    name = fresh_name("stdin")
    text = (folder / "job.yaml").read_text()
    (folder / "job.yaml").unlink()
    lines = [line for line in text.splitlines() if not line.startswith("name:")]
    cli("deploy", folder, "dev", input="\n".join([f"name: {name}", *lines]) + "\n")
    assert platform.call(name, {"numbers": [40, 2]}).json() == 42
    assert sorted(p.name for p in folder.iterdir()) == ["adder.py"], "nothing is left in the folder"
    cli("delete", name, "--version", "0.0.1")


def test_extra_vars(platform, cli, make_job):
    folder, name = make_job()
    cli("deploy", folder, "dev", "-e", "version=2.0.1", "--extra-vars", "git.branch=main")
    manifest = platform.lifecycle.get(f"/api/v1/job/{name}/2.0.1").json()["manifest"]
    assert manifest["git"]["branch"] == "main"
    cli("delete", name, "--version", "2.0.1")


def test_a_failing_deployment_exits_with_70_and_shows_why(cli, make_job):
    folder, name = make_job("python-failing-init")
    done = cli("deploy", folder, "dev", check=False)
    assert done.returncode == 70
    assert "weights.bin is missing" in done.stderr
    assert f"racetrack build-logs {name} --version 0.0.1" in done.stderr
    assert name not in cli("list").stdout


def test_list_columns(platform, cli, deployed):
    name = deployed()
    lines = cli("list", "-c", "deployed_by", "-c", "pub_url").stdout.splitlines()
    assert lines[0].startswith("List of all jobs (") and lines[0].endswith(f"deployed at {platform.remote}/lifecycle:")
    assert lines[1].split() == ["NAME", "VERSION", "STATUS", "DEPLOYED_BY", "PUB_URL"]
    (row,) = [line.split() for line in lines if line.startswith(name + " ")]
    assert row == [name, "0.0.1", "RUNNING", "admin", f"{platform.url('pub')}/pub/job/{name}/0.0.1"]
    assert len(cli("list", "-c", "all").stdout.splitlines()[1].split()) == 10


def test_list_says_why_a_job_does_not_run(platform, cli, deployed):
    healthy, broken = deployed(), deployed()

    def listed(error, *args):
        """The list while the job is broken: the supervisor mends the row at its next look."""
        def look():
            platform.sql(f"update registry_job set status = 'error', error = '{error}' where name = '{broken}'")
            out = cli("list", *args).stdout.splitlines()
            return any(line.split()[:3] == [broken, "0.0.1", "ERROR"] for line in out) and out
        return wait_for(look, 20, "listed as broken")

    def hint(error):
        out = listed(error)
        hints = out[out.index("Not running:") + 1:]
        assert not any(h.startswith(healthy) for h in hints)
        return next(h.split(":", 1)[1].strip() for h in hints if h.startswith(f"{broken} 0.0.1:"))

    assert hint("exited with status 3\nline of a log") == "exited with status 3"
    assert hint("z" * 299 + "éy") == "z" * 299 + "…", "cut between characters"
    out = listed("exited with status 3\nline of a log", "-c", "error")
    assert "Not running:" not in out
    assert out[1].split() == ["NAME", "VERSION", "STATUS", "ERROR"]
    assert any(line.startswith(broken) and line.endswith("exited with status 3 line of a log") for line in out)
    wait_for(lambda: f"{broken} 0.0.1:" not in cli("list").stdout, 20, "nothing to say of jobs that run")


def test_call_and_curl(platform, cli, deployed):
    name = deployed()
    assert cli("call", name, "/api/v1/perform", '{"numbers": [40, 2]}').stdout == "42\n"
    other = Cli(cli.home.parent / "other")
    other("set", "alias", "there", platform.remote)
    other("login", "there", platform.token)
    assert other("call", name, "/api/v1/perform", '{"numbers": [40, 2]}', "there").stdout == "42\n", "the server may follow"
    assert cli("call", name, "api/v1/perform", "numbers: [40, 2]", "--version", "0.0.1").stdout == "42\n"
    command = cli("call", name, "/api/v1/perform", json.dumps({"numbers": [1, 2], "x": "it's"}), "--curl").stdout
    assert command.startswith("curl ") and platform.token not in command
    done = cli("call", name, "/api/v1/perform", '{"nonsense": 1}', check=False)
    assert done.returncode == 70 and "400" in done.stderr
    done = cli("call", "no-such-job", "/api/v1/perform", "{}", check=False)
    assert done.returncode == 70 and "404" in done.stderr


def test_logs_in_both_forms(cli, make_job):
    folder, name = make_job(files={"adder.py": "class AdderModel:\n    def __init__(self):\n        print('hello from', 'the job')\n"
                                               "    def perform(self, a: int = 1):\n        print('called with', a)\n        return a\n"})
    cli("deploy", folder, "dev")
    for args in ((name,), (folder,), (folder, "dev"), (name, "dev"), (folder / "job.yaml", "dev"),
                 (name, "dev", "--version", "0.0.1", "--tail", "0"), (name, "dev", "--remote", "dev")):
        assert "hello from the job" in cli("logs", *args).stdout
    elsewhere = folder.parent / "elsewhere"  # a folder of the job's name that holds no manifest is no job's folder
    (elsewhere / name).mkdir(parents=True)
    assert "hello from the job" in cli("logs", name, "dev", cwd=elsewhere).stdout
    assert "hello from the job" in cli("logs", folder.name, "dev", cwd=folder.parent).stdout
    assert "hello from the job" in cli("logs", cwd=folder).stdout
    assert cli("build-logs", name).stdout.strip() and cli("build-logs", name, "dev").stdout.strip() and cli("build-logs", folder, "dev").stdout.strip()
    for args, named in (
        (("logs", "no-such-job", "dev"), ["no job named no-such-job", "no-such-job is read as a job's name", "no folder no-such-job"]),
        (("delete", "no-such-job", "dev", "--version", "1.0.0"), ["no-such-job is read as a job's name"]),
        (("logs", "dev", name), [f"{name} is neither an alias nor an address", "dev is read as a job's name"]),
        (("logs", "./no-such-folder", "dev"), ["./no-such-folder is read as a folder", "racetrack logs NAME"]),
        (("logs", folder, "--version", "7.7.7"), [f"is read as a folder, whose manifest names the job {name} 7.7.7"]),
    ):
        done = cli(*args, check=False)
        assert done.returncode == 70
        assert all(text in done.stderr for text in named), done.stderr
    done = cli("delete", name, "dev", check=False)
    assert done.returncode == 2 and "--version" in done.stderr and f"{name} is read as a job's name" in done.stderr
    cli("delete", name, "dev", "--version", "0.0.1")
    assert name not in cli("list").stdout


def test_logs_follow(platform, cli, make_job):
    folder, name = make_job(files={"adder.py": "class AdderModel:\n    def perform(self, a: int = 1):\n        print(f'called with <{a}>', flush=True)\n"
                                               "        return a\n"})
    cli("deploy", folder, "dev")
    process = subprocess.Popen([BIN / "racetrack", "logs", name, "-f"], env=cli.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    output = []
    reader = threading.Thread(target=lambda: output.extend(iter(process.stdout.readline, "")))
    reader.start()
    try:
        for n in range(5):
            assert platform.call(name, {"a": n}).status_code == 200
            wait_for(lambda: f"called with <{n}>" in "".join(output), 15, f"line {n} is shown")
        assert all("".join(output).count(f"called with <{n}>") == 1 for n in range(5)), output
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        finally:
            process.kill()
        reader.join(10)
    cli("delete", name, "--version", "0.0.1")


def test_context_is_the_folder_without_ignored_files(platform, cli, make_job):
    folder, name = make_job(files={
        ".gitignore": "*.bin\n!keep.bin\n/private/\n", "data.bin": "no", "keep.bin": "yes", "private/x": "no", "sub/private/x": "yes",
        "adder.py": "import os\nclass AdderModel:\n    def perform(self):\n"
                    "        return sorted(os.path.relpath(os.path.join(d, f)) for d, _, fs in os.walk('.') for f in fs if f[-4:] != '.pyc')\n",
    })
    cli("deploy", folder, "dev")
    assert platform.call(name, {}).json() == ["adder.py", "job.yaml", "keep.bin", "sub/private/x"]
    cli("delete", name, "--version", "0.0.1")


def test_secret_files_reach_the_job_and_nothing_else(platform, cli, make_job):
    secret = fresh_name("s3cret")
    folder, name = make_job(
        files={"run.env": f"# comment\nMY_SECRET = '{secret}'\n",
               "adder.py": "import os\nclass AdderModel:\n    def perform(self):\n        return os.environ['MY_SECRET']\n"},
        secret_runtime_env_file="run.env",
    )
    done = cli("deploy", folder, "dev")
    assert platform.call(name, {}).json() == secret
    logs = "".join(platform.log(s) for s in ("postgres", "lifecycle", "image_builder", "pub"))
    assert secret not in logs + done.stdout + done.stderr
    assert sorted(platform.source(name)) == ["adder.py", "job.yaml"], "the file is not uploaded"
    cli("delete", name, "--version", "0.0.1")


def test_token_is_not_on_any_command_line(platform, cli, make_job):
    folder, name = slow_job(make_job, 1)
    process = start_deploy(cli, folder)
    for line in process.stdout:
        if " s  " in line:
            break
    assert process_alive(process.pid)
    tokens = 0
    for proc in [d for d in os.listdir("/proc") if d.isdigit()]:
        try:
            with open(f"/proc/{proc}/cmdline", "rb") as f:
                tokens += platform.token.encode() in f.read()
        except OSError:
            continue
    assert tokens == 0
    process.communicate(timeout=60)
    cli("delete", name, "--version", "0.0.1")
