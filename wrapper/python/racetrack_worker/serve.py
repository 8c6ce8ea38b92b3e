"""The loop that takes requests from the ring, calls the job and answers."""

import os
import sys
import time
from _contextvars import copy_context
from _thread import allocate_lock, start_new_thread

from _racetrack import complete, take

from . import load
from .context import Request, query_lists, request_context, request_extra
from .encode import PayloadError, from_json, to_json

KIND_CALL, KIND_METRICS = 0, 1
THREADS_MAX = int(os.environ.get("RACETRACK_WRAPPER_THREADS", "") or 64)
TRACING_HEADER = os.environ.get("REQUEST_TRACING_HEADER") or "X-Request-Tracing-Id"
LOG_STRUCTURED = os.environ.get("LOG_STRUCTURED", "")[:1] in ("t", "1")
PLAIN_TYPES = frozenset((dict, list, str, int, float, bool, type(None)))
STATUS_BY_NAME = {"EntityNotFound": 404, "AlreadyExists": 409}

_threads = 1
_loop = None
_loop_lock = allocate_lock()


async def _nothing():
    pass


_probe = _nothing()
CoroutineType = type(_probe)
_probe.close()
del _probe


class BadCall(Exception):
    """The arguments do not fit the function."""


def start_spare(job):
    global _threads
    if _threads >= THREADS_MAX:
        return
    try:
        if "threading" not in sys.modules:
            import threading  # noqa: F401  first in the main thread, which it takes its importer for
        start_new_thread(serve, (job,))
        _threads += 1
    except (RuntimeError, MemoryError):
        pass  # a memory limit: go on with the threads that are there


def serve(job):
    endpoints = job.endpoints
    while True:
        slot, kind, index, head, body, spare_needed = take()
        payload = None
        try:  # nothing may leave it: a request that nobody answers waits for its time-out
            if spare_needed:
                start_spare(job)
            if kind == KIND_METRICS:
                complete(slot, 200, "text/plain; version=0.0.4; charset=utf-8", metrics_text(job))
                continue
            endpoint = endpoints[index]
            request = Request(head)
            request_context.set(request)
            request_extra.set({})
            if endpoint.method == "POST" and body:
                payload = from_json(body)
                if type(payload) is not dict:
                    raise PayloadError(not_an_object(payload), 422)
            else:
                payload = other_payload(endpoint, request, body)
            result = endpoint.handler(**payload)
            if type(result) is CoroutineType:
                hand_over(slot, endpoint, request, payload, result)
                continue
            if type(result) in PLAIN_TYPES:
                complete(slot, 200, None, to_json(result))
            else:
                complete_result(slot, result)
        except BaseException as e:
            fail(slot, kind, index, job, head, e, payload)
        # The frame must not keep the last request's values alive while the thread waits.
        result = payload = request = head = body = None


def not_an_object(payload):
    return f"the request's body must be a JSON object of argument names and values, not {type(payload).__name__}"


def other_payload(endpoint, request, body):
    if body is False:
        raise PayloadError("the request's body is not valid UTF-8")
    if body:
        payload = from_json(body)
        if type(payload) is not dict:
            raise PayloadError(not_an_object(payload), 422)
        return payload
    if endpoint.method in ("GET", "DELETE"):
        return query_payload(endpoint, request)
    if endpoint.example is not None:
        return dict(endpoint.example)  # as the original: the documentation's example is the default
    if endpoint.needs_payload():
        names = ", ".join(p["name"] for p in endpoint.parameters)
        raise PayloadError(f"the request has no body: a JSON object is expected{f' with the arguments {names}' if names else ''}", 422)
    return {}


def query_payload(endpoint, request):
    types = {p["name"]: p["type"] for p in endpoint.parameters}
    payload = {}
    for name, values in query_lists(request.query_string).items():
        kind = types.get(name)
        try:
            payload[name] = query_value(kind, values)
        except ValueError:
            raise PayloadError(f"query parameter {name}={values[-1]} is not of type {kind}") from None
    return payload


def query_value(kind, values):
    text = values[-1]
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    if kind == "bool":
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "1")
    if kind is not None and kind.lower().startswith("list"):
        return values
    return text


def complete_result(slot, result):
    if hasattr(result, "status_code") and hasattr(result, "body"):
        complete_response(slot, result)
    elif type(result) is bytes:
        complete(slot, 200, "application/octet-stream", result)
    else:
        complete(slot, 200, None, to_json(result))


def complete_response(slot, response):
    """A framework's response object (starlette, flask …)."""
    body = response.body
    if callable(body):
        body = body()
    if isinstance(body, str):
        body = body.encode()
    headers = getattr(response, "headers", None)
    kind = headers.get("content-type") if hasattr(headers, "get") else None
    kind = kind or getattr(response, "media_type", None) or "application/octet-stream"
    complete(slot, int(response.status_code), kind, bytes(body))


# -- asynchronous handlers --


def start_loop():
    """The event loop in its own thread, made when the first coroutine needs it."""
    global _loop
    with _loop_lock:
        if _loop is None:
            import asyncio

            loop = asyncio.new_event_loop()

            def run():
                asyncio.set_event_loop(loop)
                loop.run_forever()

            import threading

            threading.Thread(target=run, name="racetrack-loop", daemon=True).start()
            _loop = loop
    return _loop


def hand_over(slot, endpoint, request, payload, coroutine):
    loop = _loop or start_loop()

    async def run():
        try:
            result = await coroutine
            complete_result(slot, result)
        except BaseException as e:
            answer_failure(slot, endpoint, request, e, False)

    tasks = _tasks

    def begin():
        task = loop.create_task(run())
        tasks.add(task)  # the loop itself keeps weak references only
        task.add_done_callback(tasks.discard)

    loop.call_soon_threadsafe(begin, context=copy_context())


_tasks = set()


# -- failures --


def fail(slot, kind, index, job, head, e, payload):
    try:
        if kind == KIND_METRICS:
            log_failure("ERROR", "metrics() failed", "/metrics", "", e)
            complete(slot, 500, "text/plain", "")
            return
        endpoint = job.endpoints[index]
        answer_failure(slot, endpoint, Request(head), e, is_bad_call(e, endpoint.handler, payload))
    except BaseException as e2:
        # The answer cannot be made (a broken __str__, no memory): still answer.
        text = f'{{"error":"the request failed and so did making its answer: {type(e2).__name__}","type":"InternalError"}}'
        try:
            complete(slot, 500, None, text)
        except BaseException:
            try:
                os.write(2, b"a request could not be answered\n")
            except BaseException:
                pass


def is_bad_call(e, handler, payload):
    """A TypeError raised by the call itself, not within the function."""
    if type(e) is not TypeError or payload is None:
        return False
    tb = e.__traceback__
    if tb is None or tb.tb_next is not None:
        return False
    if hasattr(getattr(handler, "__func__", handler), "__code__"):
        return True
    import inspect

    try:
        inspect.signature(handler).bind(**payload)
    except TypeError:
        return True
    except ValueError:
        return False
    return False


def status_of(e):
    for cls in type(e).__mro__:
        if cls.__name__ in STATUS_BY_NAME:
            return STATUS_BY_NAME[cls.__name__]
    if isinstance(e, PayloadError):
        return e.status
    return 400 if isinstance(e, ValueError) else 500


def answer_failure(slot, endpoint, request, e, bad_call):
    tracing_id = request.headers.get(TRACING_HEADER) or ""
    if bad_call:
        status, text = 400, f"failed to call a function: {e}"
    elif isinstance(e, SystemExit):
        status, text = 500, load.cause(e)
    else:
        status, text = status_of(e), str(e) or type(e).__name__
    answer = {"error": text, "type": type(e).__name__}
    if status >= 500:
        if not tracing_id:
            tracing_id = os.urandom(16).hex()
        answer["tracing_id"] = tracing_id
    is_callers_fault = bad_call or isinstance(e, PayloadError)
    level = "ERROR" if status >= 500 else "INFO"
    log_failure(level, f"request failed with status {status}", endpoint.path, tracing_id, e, not is_callers_fault)
    complete(slot, status, None, to_json(answer))


def log_failure(level, message, path, tracing_id, e, with_traceback=True):
    """One event in the form of the front's log lines, so that the job's log reads as one."""
    now = time.time()
    tracing_id = "".join(c for c in tracing_id[:128] if c.isprintable())
    rest = load.traceback_text(e) if with_traceback else load.cause(e)
    try:
        if LOG_STRUCTURED:
            stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03}Z"
            event = {"time": stamp, "lvl": level.lower(), "msg": message, "endpoint": path, "tracing_id": tracing_id, "error": rest}
            sys.stdout.write(to_json(event) + "\n")
        else:
            stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03}"
            id_text = f", tracing_id={tracing_id}" if tracing_id else ""
            sys.stdout.write(f"[{stamp}] {level:5} {message}, endpoint={path}{id_text}\n{rest.rstrip()}\n")
    except Exception:
        pass  # user code has closed or replaced it: the answer matters more


# -- the job's own metrics --


def metrics_text(job):
    lines = []
    described = set()
    for metric in job.metrics():
        name = metric["name"]
        if not isinstance(name, str) or not name or name[0].isdigit() or not all(c.isascii() and (c.isalnum() or c in "_:") for c in name):
            raise ValueError(f"{name!r} is not a metric's name")
        value = float(metric["value"])
        if name not in described:
            described.add(name)
            text = str(metric.get("description") or "").replace("\\", "\\\\").replace("\n", "\\n")
            lines.append(f"# HELP {name} {text}\n# TYPE {name} gauge\n")
        labels = ",".join(f'{label_name(k)}="{label_value(v)}"' for k, v in (metric.get("labels") or {}).items())
        shown = repr(value) if value - value == 0 else ("NaN" if value != value else ("+Inf" if value > 0 else "-Inf"))
        lines.append(f"{name}{{{labels}}} {shown}\n" if labels else f"{name} {shown}\n")
    return "".join(lines)


def label_name(name):
    name = str(name)
    if not name or name[0].isdigit() or not all(c.isascii() and (c.isalnum() or c == "_") for c in name):
        raise ValueError(f"{name!r} is not a label's name")
    return name


def label_value(value):
    return str(value).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
