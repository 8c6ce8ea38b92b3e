"""What is uploaded, built and kept: memory while it comes in, disk and database after a long while."""

import base64
import http.client
import json
import os
import re
import threading
import time
import zipfile

import pytest

from harness import copy_sample, fresh_name, wait_for
from test_durability import submit, wait_end

MIB = 1 << 20
BUSY = "select 1 from registry_deployment where status = 'in_progress'"


def memory(pid, what):
    return int(re.search(rf"{what}:\s+(\d+) kB", open(f"/proc/{pid}/status").read())[1]) * 1024


def forget_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")


def post_context(platform, name, encoded):
    """Without a second copy of the context in this process."""
    manifest = {"name": name, "owner_email": "a@b.c", "jobtype": "python3:latest", "git": {"remote": "https://example.com/x"},
                "jobtype_extra": {"entrypoint_path": "adder.py", "entrypoint_class": "AdderModel"}}
    head = b'{"manifest": %s, "build_context": "' % json.dumps(manifest).encode()
    connection = http.client.HTTPConnection("127.0.0.1", platform.port("lifecycle"), timeout=300)
    connection.putrequest("POST", "/lifecycle/api/v1/deploy")
    for key, value in {"Content-Type": "application/json", "X-Racetrack-Auth": platform.lifecycle.token,
                       "Content-Length": len(head) + len(encoded) + 2}.items():
        connection.putheader(key, value)
    connection.endheaders()
    connection.send(head)
    connection.send(encoded)
    connection.send(b'"}')
    answer = connection.getresponse()
    return answer.status, {**json.loads(answer.read()), "Retry-After": answer.headers["Retry-After"]}


@pytest.fixture
def own(own_platform):
    platform = own_platform()
    platform.up()
    return platform


def test_twenty_large_contexts_at_once_cost_no_memory(own):
    encoded = base64.b64encode(os.urandom(60 * 1000 * 1000))
    status, answer = post_context(own, fresh_name("warm"), encoded[:4000])
    assert status == 200, answer
    pids = {service: own.pid(service) for service in ("lifecycle", "image_builder")}
    wait_for(lambda: not own.sql(BUSY), 20, "the first one has ended")
    idle = {}
    for service, pid in pids.items():
        forget_peak(pid)
        idle[service] = memory(pid, "VmRSS")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(post_context(own, fresh_name("big"), encoded))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 20, answers
    for service, pid in pids.items():
        over = (memory(pid, "VmHWM") - idle[service]) / MIB
        print(f"{service}: {idle[service] / MIB:.1f} MiB idle, {over:.1f} MiB more at its peak")
        assert over <= 64, service
    for service, pid in pids.items():
        wait_for(lambda: memory(pid, "VmRSS") <= idle[service] + 8 * MIB, 10, f"{service} gives its memory back")
    errors = wait_for(lambda: not own.sql(BUSY) and
                      own.sql("select distinct error from registry_deployment where job_name like 'big%'"), 60, "all have ended")
    assert len(errors) == 1 and "archive" in errors[0][0], errors


def test_an_empty_context_is_an_error(own):
    for context in (b"", b"=", b"AAA"):
        status, answer = post_context(own, "empty", context)
        assert status == 400 and answer["error"].startswith("build_context: "), answer


def test_who_may_deploy_nothing_is_refused_before_the_context_is_read(own):
    api = own.lifecycle
    esc = api.post("/api/v1/escs", json={"name": "poor"}).json()["id"]
    token = api.get(f"/api/v1/auth/token/esc/{esc}").json()["token"]
    connection = http.client.HTTPConnection("127.0.0.1", own.port("lifecycle"), timeout=20)
    connection.putrequest("POST", "/lifecycle/api/v1/deploy")
    for key, value in {"Content-Type": "application/json", "X-Racetrack-Auth": token, "Content-Length": 80 * MIB}.items():
        connection.putheader(key, value)
    connection.endheaders()
    connection.send(b'{"manifest": {"name": "x"}, "build_context": "AAAA')
    answer = connection.getresponse()
    assert answer.status == 403 and "deploy_job" in json.loads(answer.read())["error"]


def test_more_uploads_than_the_disk_is_given_are_told_to_come_again(own_platform, tmp_path):
    config = tmp_path / "lifecycle.yaml"
    config.write_text("deploy_spool_max_bytes: 1048576\n")
    platform = own_platform()
    platform.up("postgres", "image_builder")
    platform.up("lifecycle", env={"CONFIG_FILE": config})
    status, answer = post_context(platform, "big", base64.b64encode(os.urandom(2 * MIB)))
    assert status == 503 and answer["Retry-After"] == "1" and "too many" in answer["error"], answer
    assert post_context(platform, "small", base64.b64encode(os.urandom(1000)))[0] == 200


def stored(platform):
    """What lies in the stores, in numbers of files."""
    images, sources = platform.state / "images", platform.state / "sources"
    return {"sources": len(list(sources.glob("blobs/sha256/*"))), "blobs": len(list(images.glob("blobs/sha256/*"))),
            "tags": len(list(images.glob("repositories/**/_tags/*"))), "manifests": len(list(images.glob("repositories/**/_manifests/*"))),
            "deployments": int(platform.sql("select count(*) from registry_deployment")[0][0]),
            "logs": int(platform.sql("select count(*) from registry_deployment where build_logs <> ''")[0][0])}


def database_bytes(platform):
    platform.sql("vacuum registry_deployment")
    return int(platform.sql("select pg_total_relation_size('registry_deployment')")[0][0])


def memory_together(platform):
    """Resident memory of the services, with what they share (libraries' files) counted once, in MiB."""
    own, files = 0, {}
    for service in ("lifecycle", "image_builder", "pub"):
        name = ""
        for line in open(f"/proc/{platform.pid(service)}/smaps"):
            words = line.split()
            if not words[0].endswith(":"):
                name = words[5] if len(words) > 5 else ""
            elif words[0] == "Rss:" and name.startswith("/"):
                files.setdefault((service, name), 0)
                files[service, name] += int(words[1])
            elif words[0] == "Rss:":
                own += int(words[1])
    once = {}
    for (_, name), kib in files.items():
        once[name] = max(once.get(name, 0), kib)
    return (own + sum(once.values())) / 1024


@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_redeployments_leave_a_bounded_store_and_database(own_platform, tmp_path, count):
    lifecycle, builder = tmp_path / "lifecycle.yaml", tmp_path / "builder.yaml"
    lifecycle.write_text("retention_interval_s: 1\ndeployments_kept_per_job: 4\nbuild_logs_kept_per_job: 2\ndrain_delay_ms: 0\n"
                         "supervisor_interval_ms: 200\n")
    builder.write_text("unused_retention_s: 2\n")
    platform = own_platform()
    platform.up("postgres")
    platform.up("image_builder", env={"CONFIG_FILE": builder})
    platform.up("lifecycle", env={"CONFIG_FILE": lifecycle})
    platform.up("pub")
    name, other = fresh_name("again"), fresh_name("deleted")
    folder = copy_sample("python-class", tmp_path / "job", name=name)
    source = (folder / "adder.py").read_text()
    gone = copy_sample("python-class", tmp_path / "gone", name=other)
    assert wait_end(platform.lifecycle, submit(platform.lifecycle, gone))["status"] == "done"
    assert platform.lifecycle.delete(f"/api/v1/job/{other}/0.0.1").status_code < 300
    half = None
    for i in range(count):
        if i % 10 != 9:  # the same again now and then: another tag of the same image
            (folder / "adder.py").write_text(f"{source}\nDATA = '{os.urandom(20000).hex()}'\n")
        ended = wait_end(platform.lifecycle, submit(platform.lifecycle, folder, force=True))
        assert ended["status"] == "done", ended
        if i == count // 2:
            half = database_bytes(platform)
    # one image: code, config, manifest; four deployments and the deleted job's one

    def is_small():
        assert stored(platform) == {"sources": 1, "blobs": 3, "tags": 1, "manifests": 1, "deployments": 5, "logs": 3}
        return True

    wait_for(is_small, 20, "only what is in use is left")
    assert not list((platform.state / "images/repositories/racetrack/job-entrypoint").glob(other))
    assert database_bytes(platform) <= half + 256 * 1024
    assert platform.call(name, {"numbers": [40, 2]}).json() == 42
    print(f"{count} redeployments: the services have {memory_together(platform):.1f} MiB")
    if count >= 100:
        wait_for(lambda: memory_together(platform) <= 24, 20, "idle services take 24 MiB together")
    # what is left is enough to start from
    assert platform.lifecycle.post(f"/api/v1/job/{name}/0.0.1/redeploy").status_code == 200
    wait_for(lambda: not platform.sql(BUSY), 20, "it was built again from its source")
    assert platform.sql("select status, error from registry_deployment order by create_time desc limit 1")[0][0] == "done"


def make_large_wheel(folder, files, file_bytes):
    """Of its size on disk nothing is left when it is packed well, but it is no bomb: 30 to 1."""
    kinds = [os.urandom(2000) * (file_bytes // 2000) for _ in range(50)]
    info = "largewheel-1.0.dist-info"
    record = [f"{info}/METADATA,,", f"{info}/WHEEL,,", f"{info}/RECORD,,", "largewheel/__init__.py,,"]
    with zipfile.ZipFile(folder / "largewheel-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: largewheel\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("largewheel/__init__.py", "ANSWER = 42\n")
        for i in range(files):
            path = f"largewheel/part{i // 1000}/f{i}.bin"
            wheel.writestr(path, kinds[i % len(kinds)])
            record.append(f"{path},,")
        wheel.writestr(f"{info}/RECORD", "\n".join(record) + "\n")


@pytest.mark.parametrize("files, file_bytes", [(300, 10_000), pytest.param(60_000, 100_000, marks=pytest.mark.slow)])
def test_a_large_set_of_requirements_builds_and_starts(own, tmp_path, files, file_bytes):
    """What may be built may be started: as much as torch with all that it needs, 6 GB in 60,000 files."""
    make_large_wheel(own.wheels, files, file_bytes)
    name = fresh_name("large")
    folder = copy_sample("python-class", tmp_path / "job", name=name, files={
        "requirements.txt": "largewheel==1.0\n",
        "adder.py": "import largewheel\n\n\nclass AdderModel:\n    def perform(self, numbers: list) -> float:\n        return largewheel.ANSWER\n",
    }, jobtype_extra={"entrypoint_path": "adder.py", "entrypoint_class": "AdderModel", "requirements_path": "requirements.txt"})
    began = time.monotonic()
    ended = wait_end(own.lifecycle, submit(own.lifecycle, folder), 1500)
    assert ended["status"] == "done", ended["error"]
    first = time.monotonic() - began
    assert own.call(name, {"numbers": []}).json() == 42
    (folder / "adder.py").write_text((folder / "adder.py").read_text() + "\n# changed\n")
    began = time.monotonic()
    ended = wait_end(own.lifecycle, submit(own.lifecycle, folder, force=True), 300)
    assert ended["status"] == "done", ended["error"]
    again = time.monotonic() - began
    peaks = {service: memory(own.pid(service), "VmHWM") / MIB for service in ("lifecycle", "image_builder")}
    print(f"{files} files: {first:.1f} s at first, {again:.2f} s with a changed line; peaks of memory {peaks}")
    assert max(peaks.values()) < 256
