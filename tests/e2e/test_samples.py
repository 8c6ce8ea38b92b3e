"""Each folder of sample/, deployed and used."""

import concurrent.futures
import hashlib
import base64
import zipfile
from pathlib import Path

import roman

from harness import SAMPLE, wait_for


def test_every_sample_is_tested():
    text = Path(__file__).read_text() + Path(__file__).with_name("test_quickstart.py").read_text()
    for folder in SAMPLE.iterdir():
        assert f'"{folder.name}"' in text, folder


def test_python_class(platform, deployed):
    name = deployed("python-class")
    assert platform.call(name, {"numbers": [40, 2]}).json() == 42
    assert platform.call(name, {"numbers": [0.1, 0.2, 0.3], "digits": 1}, path="/api/v1/rounded").json() == 0.6
    base = f"/pub/job/{name}/latest"
    parameters = platform.pub.get(base + "/api/v1/parameters").json()
    assert [p["name"] for p in parameters] == ["numbers"]
    assert "adder_calls 1" in platform.pub.get(base + "/metrics").text
    assert platform.pub.get(base + "/health").json()["git_version"] == "tar"  # of an upload
    api = platform.pub.get(base + "/openapi.json").json()
    assert "/api/v1/perform" in str(list(api["paths"]))
    assert "[40, 2]" in str(api).replace("'", '"')


def test_python_chain(platform, cli, deployed, make_job):
    """It calls the job `adder` with its own family's token, once that family may."""
    adder, _ = make_job("python-class", name="adder")
    cli("deploy", adder, "dev", "--force")
    chain = deployed("python-chain")
    denied = platform.call(chain, {"numbers": [40, 1]})
    assert denied.status_code == 500 and "403" in denied.text or "permission" in denied.text, denied.text
    grant = platform.lifecycle.post(f"/api/v1/auth/allow/job_family/{chain}/job/adder/scope/call_job")
    assert grant.status_code == 200, grant.text

    def answer():
        response = platform.call(chain, {"numbers": [40, 1]})
        return response.status_code == 200 and response.json()
    assert wait_for(answer, 2, "the grant takes effect") == {"adder": 41, "result": 42}
    cli("delete", "adder", "--version", "0.0.1")


def make_wheel(folder, name, version, files):
    """A wheel as pip reads it (PEP 427)."""
    info = f"{name}-{version}.dist-info"
    contents = dict(files)
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text.encode())}\n"
        for path, text in contents.items()
    )
    contents[f"{info}/RECORD"] = record + f"{info}/RECORD,,\n"
    path = Path(folder) / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name_, text in contents.items():
            wheel.writestr(name_, text)
    return path


def test_python_requirements(platform, cli, make_job):
    """Its dependency is installed by pip: Debian's `roman`, made into a wheel that --find-links offers."""
    source = Path(roman.__file__)
    package = {f"roman/{p.name}" if source.name == "__init__.py" else p.name: p.read_text()
               for p in (source.parent.glob("*.py") if source.name == "__init__.py" else [source])}
    folder, name = make_job("python-requirements")
    done = cli("deploy", folder, "dev", check=False)
    assert done.returncode == 70 and "roman" in done.stderr, "without the wheel, the error names what is missing"
    make_wheel(platform.wheels, "roman", "3.3", package)
    cli("deploy", folder, "dev")
    assert platform.call(name, {"number": 42}).json() == "XLII"
    refused = platform.call(name, {"number": 5000})
    assert refused.status_code == 500 and "out of range" in refused.text
    cli("delete", name, "--version", "0.0.1")


def test_python_failing_init(platform, cli, make_job):
    folder, name = make_job("python-failing-init")
    done = cli("deploy", folder, "dev", check=False)
    assert done.returncode == 70
    assert "RuntimeError" in done.stderr and "weights.bin is missing" in done.stderr
    assert platform.lifecycle.get(f"/api/v1/job/{name}/0.0.1").status_code == 404
    assert platform.call(name, {}).status_code == 404


def test_python_slow(platform, deployed):
    name = deployed("python-slow")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(platform.call, name, {"seconds": 1.5}) for _ in range(8)]
        health = platform.pub.get(f"/pub/job/{name}/latest/health", timeout=1)
        assert health.status_code == 200, "answers while calls wait"
        codes = sorted(c.result().status_code for c in calls)
    assert codes == [200] * 4 + [429] * 4, "two at once, two waiting, the rest refused"


def test_python_static(platform, deployed):
    name = deployed("python-static")
    base = f"/pub/job/{name}/latest/api/v1"
    page = platform.pub.get(base + "/page")
    assert page.headers["content-type"].startswith("text/html") and "Served by the job itself" in page.text
    for path in ("/notes", "/assets/notes.txt"):
        answer = platform.pub.get(base + path)
        assert answer.headers["content-type"].startswith("text/plain") and answer.text == "Plain text beside the model.\n"
    assert platform.pub.get(base + "/assets/../model.py").status_code == 404
    assert platform.call(name, {"name": "racetrack"}).json() == "hello racetrack"
    home = platform.pub.get(f"/pub/job/{name}/latest/")
    assert home.status_code in (302, 307) and home.headers["location"].endswith("/api/v1/page")
