"""What survives what: lifecycle killed at any moment, jobs that crash, hosts that restart, two lifecycles at once."""

import base64
import io
import json
import os
import shutil
import signal
import tarfile

import pytest
import yaml

from harness import process_alive, wait_for

ADDER = {"numbers": [40, 2]}
PHASES = ["queued", "building image", "creating cluster resources", "starting Job server", "initializing Job entrypoint"]
SLOW_START = "import time\n\n\nclass AdderModel:\n    def __init__(self):\n        time.sleep(1)\n\n" \
             "    def perform(self, numbers: list) -> float:\n        return sum(numbers)\n"


NEEDS_FILE = """import os


class AdderModel:
    def __init__(self):
        with open("model.txt") as f:
            self.offset = int(f.read())

    def perform(self, numbers: list) -> float:
        return sum(numbers) + self.offset

    def auxiliary_endpoints(self):
        return {"/break": self.break_it}

    def break_it(self):
        os._exit(3)
"""


def manifest_of(folder):
    return yaml.safe_load((folder / "job.yaml").read_text())


def submit(api, folder, **body):
    """Deploys a folder by the API alone; returns the deployment's id."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(folder, arcname=".")
    answer = api.post("/api/v1/deploy", json={
        "manifest": manifest_of(folder), "build_context": base64.b64encode(packed.getvalue()).decode(), **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def wait_end(api, id, deadline_s=60):
    return wait_for(lambda: (d := api.get(f"/api/v1/deploy/{id}").json())["status"] != "in_progress" and d,
                    deadline_s, f"deployment {id} ends")


def workloads(platform, name):
    """Documents of the generations of a job that the process target knows."""
    found = []
    for path in (platform.state / "jobs").glob("[0-9a-f]*/workload.json"):
        try:
            doc = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        if doc["job_name"] == name:
            found.append(doc)
    return found


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            return [int(p) for p in f.read().split()]
    except OSError:
        return []


def wrapper_pid(doc):
    """Of a running workload: bubblewrap -> the init of its namespace -> the wrapper."""
    if doc["sandbox"] != "bwrap":
        return doc["pid"]
    init = wait_for(lambda: children(doc["pid"]), 10, "bubblewrap's init")[0]
    return wait_for(lambda: children(init), 10, "the wrapper")[0]


@pytest.mark.parametrize("phase", PHASES)
def test_lifecycle_killed_while_deploying(platform, make_job, phase):
    folder, name = make_job()
    (folder / "adder.py").write_text(SLOW_START)
    api = platform.lifecycle
    id = submit(api, folder)

    def reached():
        now = api.get(f"/api/v1/deploy/{id}").json()
        assert now["status"] == "in_progress", now
        return phase == "queued" or (now["phase"] in PHASES and PHASES.index(now["phase"]) >= PHASES.index(phase))
    wait_for(reached, 30, phase, interval_s=0.001)
    platform.kill("lifecycle")
    platform.up("lifecycle")
    ended = wait_end(platform.lifecycle, id)
    assert ended["status"] == "done", ended
    assert platform.call(name, ADDER).json() == 42
    assert len(workloads(platform, name)) == 1
    assert platform.sql(f"select count(*) from registry_jobgeneration where job_name = '{name}'") == [["1"]]
    assert platform.sql(f"select count(*) from registry_auditlogevent where job_name = '{name}'") == [["1"]]
    platform.lifecycle.delete(f"/api/v1/job/{name}/0.0.1")


def test_job_runs_on_without_lifecycle(platform, deployed, cli):
    name = deployed()
    before = workloads(platform, name)[0]
    wait_for(lambda: platform.call(name, ADDER).json() == 42, 10, "the gateway has been told")
    platform.kill("lifecycle")
    assert platform.call(name, ADDER).json() == 42
    platform.up("lifecycle")
    wait_for(lambda: platform.lifecycle.get(f"/api/v1/job/{name}/0.0.1").json()["status"] == "running", 10, "job is running")
    after = workloads(platform, name)[0]
    assert (after["pid"], after["start_ticks"], after["address"]) == (before["pid"], before["start_ticks"], before["address"])
    assert platform.call(name, ADDER).json() == 42
    cli("delete", name, "--version", "0.0.1")
    wait_for(lambda: not process_alive(before["pid"]), 10, "the adopted job ends")
    assert not (platform.state / "jobs" / before["generation_id"]).exists()


def test_crashed_job_comes_back(platform, deployed):
    name = deployed()
    doc = workloads(platform, name)[0]
    os.kill(wrapper_pid(doc), signal.SIGKILL)
    wait_for(lambda: workloads(platform, name)[0].get("restarts", 0) >= 1, 20, "it is started again")
    wait_for(lambda: platform.call(name, ADDER).status_code == 200, 20, "it answers again")
    assert workloads(platform, name)[0]["address"] == doc["address"]
    assert "killed by signal 9" in workloads(platform, name)[0]["reason"]


def test_lifecycle_dead_while_the_job_crashes(platform, deployed):
    name = deployed()
    doc = workloads(platform, name)[0]
    pid = wrapper_pid(doc)
    platform.kill("lifecycle")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not process_alive(doc["pid"]), 10, "the sandbox ends with its job")
    platform.up("lifecycle")
    wait_for(lambda: platform.call(name, ADDER).status_code == 200, 20, "it answers again")


@pytest.mark.parametrize("damage", ["", '{"generation_id": "'])
def test_a_damaged_record_of_one_job(platform, deployed, damage):
    """Its job is started anew; the others are watched all the time."""
    victim, other = deployed(), deployed()
    [doc] = workloads(platform, victim)
    path = platform.state / "jobs" / doc["generation_id"] / "workload.json"
    path.write_text(damage)
    healed = wait_for(lambda: [d for d in read_whole(path) if d["state"] == "running"], 30, "the victim is started anew")
    assert healed[0]["pid"] != doc["pid"]
    wait_for(lambda: not process_alive(doc["pid"]), 10, "the former process ends")
    wait_for(lambda: platform.call(victim, ADDER).json() == 42, 20, "the victim answers")
    [doc] = workloads(platform, other)
    os.kill(doc["pid"], signal.SIGKILL)
    wait_for(lambda: [d["restarts"] for d in workloads(platform, other)] == [1], 20, "the other is started again")


def read_whole(path):
    text = path.read_text() if path.exists() else ""
    return [json.loads(text)] if text.endswith("}") else []


def test_two_lifecycles_share_the_work(platform, make_job):
    with platform.extra_lifecycle() as (second, _):
        jobs = []
        for i in range(6):
            folder, name = make_job()
            jobs.append((name, submit([platform.lifecycle, second][i % 2], folder)))
        for name, id in jobs:
            assert wait_end(second, id)["status"] == "done"
            assert platform.call(name, ADDER).json() == 42
            assert len(workloads(platform, name)) == 1
            assert platform.sql(f"select attempts from registry_deployment where id = '{id}'") == [["1"]]
            assert platform.sql(f"select count(*) from registry_jobgeneration where job_name = '{name}'") == [["1"]]
    for name, _ in jobs:
        assert platform.lifecycle.delete(f"/api/v1/job/{name}/0.0.1").status_code == 200


def test_jobs_come_back_after_down_and_up(own_platform, make_job):
    platform = own_platform()
    platform.up()
    folder, name = make_job()
    assert wait_end(platform.lifecycle, submit(platform.lifecycle, folder))["status"] == "done"
    pid = workloads(platform, name)[0]["pid"]
    platform.local("down")
    wait_for(lambda: not process_alive(pid), 10, "the job ends with the rest")
    platform.up()
    wait_for(lambda: platform.call(name, ADDER).status_code == 200, 30, "it answers again")
    # The gateway may reach it a moment before the supervisor has noted that.
    events = f"select to_status from registry_jobstatusevent where job_name = '{name}' order by id"
    wait_for(lambda: [e[0] for e in platform.sql(events)][-2:] == ["lost", "running"], 10, "it was lost and is running")


def test_a_lost_image_store(own_platform, make_job):
    """Images and job folders are gone: what was uploaded is built again, what was cloned waits for a person, who is told."""
    platform = own_platform()
    platform.up()
    uploaded, cloned = (make_job() for _ in range(2))
    for folder, name in (uploaded, cloned):
        assert wait_end(platform.lifecycle, submit(platform.lifecycle, folder))["status"] == "done"
    cloned_name = cloned[1]
    platform.sql(f"update registry_job set source_digest = null where name = '{cloned_name}'")
    platform.local("down")
    for doomed in ("images", "jobs"):
        shutil.rmtree(platform.state / doomed)
    platform.up()
    wait_for(lambda: platform.call(uploaded[1], ADDER).json() == 42, 60, "it was built again and answers")
    job = wait_for(lambda: "image is gone" in str((j := platform.lifecycle.get(f"/api/v1/job/{cloned_name}/0.0.1").json())["error"]) and j,
                   30, "the error of the other one")
    assert job["status"] == "lost"
    assert "built from git" in job["error"] and f"POST /api/v1/job/{cloned_name}/0.0.1/redeploy" in job["error"]


def test_job_that_cannot_load_again_is_an_error_until_it_can(own_platform, make_job):
    platform = own_platform(HEALTH_PROBE_INTERVAL_S=1)
    platform.up()
    api = platform.lifecycle
    folder, name = make_job()
    (folder / "adder.py").write_text(NEEDS_FILE)
    (folder / "model.txt").write_text("0")
    assert wait_end(api, submit(api, folder))["status"] == "done"
    assert platform.call(name, ADDER).json() == 42
    doc = workloads(platform, name)[0]
    model, = (platform.state / "jobs" / doc["generation_id"]).rglob("model.txt")
    model.rename(model.with_suffix(".away"))
    assert platform.call(name, {}, path="/api/v1/break").status_code == 502

    def job():
        return api.get(f"/api/v1/job/{name}/0.0.1").json()
    broken = wait_for(lambda: (j := job())["status"] == "error" and j, 30, "the job is an error")
    assert "GET /ready answered status 500" in broken["error"]
    assert "FileNotFoundError: [Errno 2] No such file or directory: 'model.txt'" in broken["error"]
    # `latest` still means it, and what the job itself says reaches the caller.
    answer = platform.call(name, ADDER)
    assert answer.status_code in (500, 503) and "model.txt" in answer.json()["error"], answer.text
    assert process_alive(doc["pid"])  # it is no crash of the workload

    model.with_suffix(".away").rename(model)
    wait_for(lambda: job()["status"] == "running", 60, "the job is running again")
    assert job()["error"] is None
    assert platform.call(name, ADDER).json() == 42
    events = platform.sql(f"select to_status, reason from registry_jobstatusevent where job_name = '{name}' order by id")
    changes = [e for e in events if len(e) == 2]
    assert [e[0] for e in changes][-2:] == ["error", "running"], events


def test_memory_limit_costs_the_request_not_the_platform(platform, deployed, make_job, cli):
    folder, name = make_job(resources={"memory_max": "128Mi"})
    (folder / "adder.py").write_text(
        "class AdderModel:\n    def perform(self, mib: int) -> int:\n        return len(bytearray(mib << 20).replace(b'\\0', b'x'))\n")
    cli("deploy", folder, "dev")
    if "limits of jobs are not enforced" in platform.log("lifecycle"):
        pytest.skip("no writable control groups here")
    assert platform.call(name, {"mib": 1}).json() == 1 << 20
    assert platform.call(name, {"mib": 1024}).status_code != 200
    wait_for(lambda: platform.call(name, {"mib": 1}).status_code == 200, 20, "it answers again")
    cli("delete", name, "--version", "0.0.1")


@pytest.mark.parametrize("shift", range(3))
@pytest.mark.parametrize("how", ["raise RuntimeError(text)", "os._exit(3)"])
def test_a_job_that_fails_with_any_bytes_is_noted(platform, make_job, how, shift):
    """What it said and printed is in the error, cut somewhere; the database takes valid text only."""
    folder, name = make_job()
    (folder / "adder.py").write_text(
        f"import os\n\ntext = 'x' * {shift} + '\\u20ac' * 2000\nos.write(1, text.encode() + b'\\xff\\n')\n{how}\n\n\nclass AdderModel:\n    pass\n")
    ended = wait_end(platform.lifecycle, submit(platform.lifecycle, folder), 20)
    assert ended["status"] == "failed" and "\u20ac" in ended["error"], ended
    assert platform.sql(f"select attempts from registry_deployment where job_name = '{name}'") == [["1"]]


def test_a_job_may_print_any_bytes(platform, make_job, cli):
    folder, name = make_job()
    (folder / "adder.py").write_text(
        "import os\n\nos.write(1, b'caf\\xe9 \\xe2\\x82\\xac\\n')\n\n\nclass AdderModel:\n    def perform(self, numbers: list) -> float:\n        return sum(numbers)\n")
    assert wait_end(platform.lifecycle, submit(platform.lifecycle, folder), 20)["status"] == "done"
    assert platform.call(name, ADDER).json() == 42
    logs = platform.lifecycle.get(f"/api/v1/job/{name}/0.0.1/logs")
    assert logs.status_code == 200 and "caf" in logs.json()["logs"] and "\u20ac" in logs.json()["logs"], logs.text
    assert "\u20ac" in cli("logs", name, "--version", "0.0.1").stdout
    platform.lifecycle.delete(f"/api/v1/job/{name}/0.0.1")
