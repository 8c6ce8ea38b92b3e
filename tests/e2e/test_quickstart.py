"""The first path: from an empty folder to 42 through the gateway, and what a person does next."""

import subprocess

from harness import TOP, clean_environment, wait_for

ADDER = {"numbers": [40, 2]}


def test_first_job_end_to_end(platform, cli, make_job):
    folder, name = make_job("python-class")
    assert f"{name} 0.0.1 is running" in cli("deploy", folder, "dev").stdout

    answer = platform.call(name, ADDER)
    assert (answer.status_code, answer.json()) == (200, 42)
    assert platform.pub.post(f"/pub/fatman/{name}/0.0.1/api/v1/perform", json=ADDER).json() == 42
    assert platform.pub.post(f"/pub/job/{name}/latest/api/v1/perform", json=ADDER, token=None).status_code == 401
    assert name in cli("list").stdout
    cli("logs", name)
    assert cli("build-logs", name).stdout.strip()

    # The same version again needs --force; nothing to do then, and the job goes on.
    done = cli("deploy", folder, "dev", check=False)
    assert done.returncode == 70 and "--force" in done.stderr
    done = cli("deploy", folder, "dev", "--force")
    assert "unchanged" in done.stderr

    # A change takes effect within a second of the deployment's end.
    (folder / "adder.py").write_text((folder / "adder.py").read_text().replace("return sum(numbers)", "return sum(numbers) + 1"))
    cli("deploy", folder, "dev", "--force")
    wait_for(lambda: platform.call(name, ADDER).json() == 43, 1, "the new code answers")

    # A further version: latest is the higher one, the first still answers.
    cli("deploy", folder, "dev", "-e", "version=0.1.0")
    wait_for(lambda: platform.pub.get(f"/pub/job/{name}/latest/health").json()["job_version"] == "0.1.0", 1, "latest moves")
    assert platform.pub.get(f"/pub/job/{name}/0.0.x/health").json()["job_version"] == "0.0.1"

    for version in ("0.0.1", "0.1.0"):
        cli("delete", name, "--version", version)
    wait_for(lambda: platform.call(name, ADDER).status_code == 404, 2, "the job is gone")
    assert name not in cli("list").stdout
    done = cli("delete", name, "--version", "0.0.1", check=False)
    assert done.returncode == 70 and "404" in done.stderr or "no job" in done.stderr.lower()


def test_a_redeploy_loses_no_call(platform, cli, make_job):
    folder, name = make_job("python-class")
    cli("deploy", folder, "dev")
    source = (folder / "adder.py").read_text()
    (folder / "adder.py").write_text(source.replace("return sum(numbers)", "return sum(numbers) + 1"))
    process = subprocess.Popen(
        [platform.env["RACETRACK_BIN"] + "/racetrack", "deploy", folder, "dev", "--force"], env=cli.env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )
    answers = []
    while not (process.poll() is not None and answers and answers[-1] == 43):
        answer = platform.call(name, ADDER)
        assert answer.status_code == 200, (answer.status_code, answer.text, len(answers))
        answers.append(answer.json())
        assert len(answers) < 20000
    assert process.returncode == 0, process.stdout.read()
    assert answers == sorted(answers), "once the new code has answered, the old does not any more"
    cli("delete", name, "--version", "0.0.1")


def test_make_quickstart(own_platform, tmp_path):
    """The command of the README, with ports, state and HOME of its own."""
    platform = own_platform()
    home = tmp_path / "home"
    (home / ".racetrack").mkdir(parents=True)
    config = home / ".racetrack/config.yaml"
    config.write_text("lifecycle_url_aliases:\n  prod: https://prod.example.com\nuser_auths:\n  https://prod.example.com/lifecycle: t\n")
    config.chmod(0o600)

    def quickstart():
        done = subprocess.run(
            ["make", "--no-print-directory", "-C", TOP, "quickstart"], env=clean_environment(**{**platform.env, "HOME": home}),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    first = quickstart()
    assert "\n42\n" in first.stdout
    assert "make down" in first.stdout and "make status" in first.stdout
    pids = {s: platform.pid(s) for s in ("postgres", "lifecycle", "image_builder", "pub")}
    job = platform.lifecycle.get("/api/v1/job/adder/0.0.1").json()
    text = config.read_text()
    assert "https://prod.example.com/lifecycle: t" in text and "dev:" in text

    second = quickstart()
    assert "\n42\n" in second.stdout and "unchanged" in second.stderr
    assert {s: platform.pid(s) for s in pids} == pids
    again = platform.lifecycle.get("/api/v1/job/adder/0.0.1").json()
    assert (again["update_time"], again["image_tag"]) == (job["update_time"], job["image_tag"])
    assert config.read_text() == text


def test_quickstart_leaves_a_foreign_alias_alone(own_platform, tmp_path):
    platform = own_platform()
    home = tmp_path / "home"
    (home / ".racetrack").mkdir(parents=True)
    config = home / ".racetrack/config.yaml"
    config.write_text("lifecycle_url_aliases:\n  dev: https://dev.example.com\n")
    config.chmod(0o600)
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", TOP, "quickstart"], env=clean_environment(**{**platform.env, "HOME": home}),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n42\n" in done.stdout
    assert "dev: https://dev.example.com" in config.read_text()
