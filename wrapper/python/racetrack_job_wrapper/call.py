"""Calling another job through the gateway, as the job family that this job belongs to."""

import os


class JobCallError(RuntimeError):
    """The other job could not be called or answered with an error; `status` is 0 when there was no answer."""

    def __init__(self, message, status=0):
        super().__init__(message)
        self.status = status


def call_job(entrypoint, name, path="/api/v1/perform", payload=None, version="latest", timeout=10):
    """Calls the latest (or the given) version of job `name` and returns its result."""
    import json
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import quote, urlsplit

    pub_url = os.environ.get("PUB_URL")
    if not pub_url:
        raise JobCallError(f"job {name} cannot be called: PUB_URL is not set (it is when Racetrack runs the job)")
    url = urlsplit(pub_url)
    connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
    target = f"{url.path.rstrip('/')}/job/{quote(name, safe='')}/{quote(version, safe='')}{path}"
    headers = {"Content-Type": "application/json", **_passed_on(entrypoint)}
    body = json.dumps({} if payload is None else payload)
    connection = connect(url.hostname, url.port, timeout=timeout)
    try:
        connection.request("POST", target, body, headers)
        response = connection.getresponse()
        content = response.read()
    except (OSError, HTTPException) as e:
        raise JobCallError(f"calling job {name} {version} {path} failed: {type(e).__name__}: {e}") from e
    finally:
        connection.close()
    try:
        result = json.loads(content) if content else None
    except ValueError:
        result = None
        if response.status < 400:
            raise JobCallError(f"job {name} {version} {path} did not answer JSON", response.status) from None
    if response.status >= 400:
        text = (result.get("error") or result.get("detail")) if isinstance(result, dict) else None
        text = text or content[:1000].decode("utf-8", "replace")
        raise JobCallError(f"job {name} {version} {path} answered {response.status}: {text}", response.status)
    return result


async def call_job_async(entrypoint, name, path="/api/v1/perform", payload=None, version="latest", timeout=10):
    """call_job for asynchronous handlers."""
    import asyncio

    return await asyncio.to_thread(call_job, entrypoint, name, path, payload, version, timeout)


def _passed_on(entrypoint):
    headers = {"X-Racetrack-Auth": os.environ.get("AUTH_TOKEN", "")}
    context = getattr(entrypoint, "request_context", None)
    request = context.get(None) if context is not None else None
    if request is not None:
        for variable, default in (("REQUEST_TRACING_HEADER", "X-Request-Tracing-Id"), ("CALLER_NAME_HEADER", "X-Caller-Name")):
            header = os.environ.get(variable) or default
            value = request.headers.get(header)
            if value:
                headers[header] = value
    return headers
