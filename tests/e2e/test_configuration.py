"""Every service's configuration: its options, faults listed at once, the generated page."""

import subprocess

import pytest

from harness import BIN, TOP, clean_environment

SERVICES = ("lifecycle", "image_builder", "pub")
LONG_KEY = "a key of 32 bytes and more for tests"


def run(service, *options, **env):
    keys = {"AUTH_KEY": LONG_KEY, "SECRET_KEY": LONG_KEY, "LIFECYCLE_AUTH_TOKEN": "given", **env}
    return subprocess.run(
        [BIN / service, *options], env=clean_environment(**keys), capture_output=True, text=True, timeout=20
    )


@pytest.mark.parametrize("service", SERVICES)
def test_valid_configuration_is_said_to_be_so(service):
    answer = run(service, "--check-config")
    assert (answer.returncode, answer.stdout) == (0, "configuration is valid\n"), answer.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_every_fault_is_listed_at_once(service, tmp_path):
    port = f"{service.upper()}_PORT"
    file = tmp_path / "config.yaml"
    file.write_text("log_structred: true\nlog_level: loud\n")
    answer = run(service, "--check-config", CONFIG_FILE=file, **{port: "99999"})
    assert answer.returncode == 1
    assert "log_structred: is not a known setting; did you mean 'log_structured'?" in answer.stderr
    assert "log_level: must be debug, info, warn or error, is 'loud'" in answer.stderr
    assert f"({port}): must be between 0 and 65535, is 99999" in answer.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_secrets_are_not_shown(service):
    secret = "s3cret-s3cret-s3cret-s3cret-s3cret"
    answer = run(
        service, "--show-config", AUTH_KEY=secret, SECRET_KEY=secret, LIFECYCLE_AUTH_TOKEN=secret,
        POSTGRES_PASSWORD=secret,
    )
    assert answer.returncode == 0, answer.stderr
    assert secret not in answer.stdout + answer.stderr
    assert "***  # env" in answer.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_faults_end_the_start(service):
    answer = run(service, **{f"{service.upper()}_PORT": "no"})
    assert answer.returncode == 1
    assert "must be a whole number, is 'no'" in answer.stderr


def test_generated_page_is_up_to_date():
    page = subprocess.run(
        [TOP / "docs/configuration.sh", *(BIN / service for service in SERVICES)],
        env=clean_environment(), capture_output=True, text=True, timeout=20, check=True,
    ).stdout
    assert (TOP / "docs/configuration.md").read_text() == page, "run 'make docs'"
