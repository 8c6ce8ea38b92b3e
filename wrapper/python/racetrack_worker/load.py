"""Loads the user's class and describes it to the front: endpoints, parameters, examples, static files."""

import os
import sys
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import spec_from_file_location

from .context import request_context, request_extra
from .encode import to_json

EXAMPLE_MAX_BYTES = 1024 * 1024
CO_VARARGS, CO_VARKEYWORDS, CO_COROUTINE = 0x04, 0x08, 0x80
OWN_FOLDER = os.path.dirname(__file__)


class LoadError(Exception):
    """The job's code does not keep the contract; the text says what to do."""


class Endpoint:
    __slots__ = ("path", "method", "handler", "parameters", "example", "doc", "takes_any")

    def __init__(self, path, method, handler):
        self.path = "/" + path.strip().lstrip("/")
        self.method = method.upper()
        self.handler = handler
        self.parameters = parameters_of(handler)
        self.example = None
        self.takes_any = self.parameters is None
        self.parameters = self.parameters or []
        doc = getattr(handler, "__doc__", None)
        self.doc = doc.strip() if isinstance(doc, str) else ""

    def needs_payload(self):
        return self.takes_any or any("default_value" not in p for p in self.parameters)


class Job:
    def __init__(self, instance, endpoints, statics):
        self.instance = instance
        self.endpoints = endpoints
        self.statics = statics
        self.metrics = getattr(instance, "metrics", None)
        self.has_async = any(is_async(e.handler) for e in endpoints)

    def announcement(self):
        return {
            "kind": "ready",
            "class": type(self.instance).__name__,
            "doc": (type(self.instance).__doc__ or "").strip(),
            "endpoints": [
                {"path": e.path, "method": e.method, "parameters": e.parameters, "example": e.example, "doc": e.doc}
                for e in self.endpoints
            ],
            "statics": self.statics,
            "metrics": callable(self.metrics),
        }


def load(path, class_name):
    module = import_file(path)
    cls = find_class(module, class_name, path)
    instance = create(cls)
    endpoints = find_endpoints(instance)
    add_examples(instance, endpoints)
    return Job(instance, endpoints, find_statics(instance))


def import_file(path):
    if not os.path.isfile(path):
        raise LoadError(f"the entrypoint file {path} does not exist in {os.getcwd()}; see entrypoint_path in the manifest")
    name = os.path.splitext(os.path.basename(path))[0]
    # Registered under its own name, so that pickle and the job's other modules find it, unless that hides another.
    if name in sys.modules or name in sys.stdlib_module_names:
        name = f"racetrack_job_{name}"
    spec = spec_from_file_location(name, os.path.abspath(path))
    if spec is None:
        raise LoadError(f"the entrypoint file {path} is not a Python file (.py)")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def find_class(module, class_name, path):
    own = {k: v for k, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__}
    if class_name:
        cls = getattr(module, class_name, None)
        if not isinstance(cls, type):
            raise LoadError(f"{path} has no class {class_name}; its classes: {', '.join(own) or 'none'}")
    else:
        with_perform = {k: v for k, v in own.items() if callable(getattr(v, "perform", None))}
        candidates = own if len(own) == 1 else with_perform
        if not own:
            raise LoadError(f"{path} defines no class; a job is a class with a method perform")
        if len(candidates) != 1:
            raise LoadError(f"{path} defines several classes ({', '.join(own)}); name the one to run (entrypoint_class in the manifest)")
        cls = next(iter(candidates.values()))
    if not callable(getattr(cls, "perform", None)):
        raise LoadError(f"class {cls.__name__} of {path} has no method perform")
    return cls


def create(cls):
    try:
        # Before __init__, which may want to keep them.
        cls.request_context = request_context
        cls.request_extra = request_extra
    except (AttributeError, TypeError):
        pass
    return cls()


def find_endpoints(instance):
    endpoints = [Endpoint("/perform", "POST", instance.perform)]
    if callable(getattr(instance, "auxiliary_endpoints", None)):
        table = instance.auxiliary_endpoints()
        if not isinstance(table, dict):
            raise LoadError("auxiliary_endpoints() must return a dict of paths and functions")
        endpoints += [checked_endpoint("auxiliary_endpoints()", p, "POST", f) for p, f in table.items()]
    if callable(getattr(instance, "auxiliary_endpoints_v2", None)):
        for config in instance.auxiliary_endpoints_v2():
            if isinstance(config, (tuple, list)):
                path, method, handler = config[:3]
            else:
                path, method, handler = config.path, config.method, config.handler
            endpoints.append(checked_endpoint("auxiliary_endpoints_v2()", path, method, handler))
    seen = set()
    for e in endpoints:
        if (e.path, e.method) in seen:
            raise LoadError(f"endpoint {e.method} {e.path} is defined twice")
        seen.add((e.path, e.method))
    return endpoints


def checked_endpoint(source, path, method, handler):
    if not isinstance(path, str) or not path.strip("/ "):
        raise LoadError(f"{source}: {path!r} is not a path")
    if not isinstance(method, str) or method.upper() not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        raise LoadError(f"{source}: method {method!r} of {path} is not one of GET, POST, PUT, PATCH, DELETE")
    if not callable(handler):
        raise LoadError(f"{source}: what is given for {path} is not a function")
    return Endpoint(path, method, handler)


def parameters_of(function):
    """[{name, type, default_value?}]; None for a function that takes any keyword."""
    bound = 0
    plain = function
    if hasattr(plain, "__func__"):
        bound = 1
        plain = plain.__func__
    while hasattr(plain, "__wrapped__"):
        plain = plain.__wrapped__
    code = getattr(plain, "__code__", None)
    if code is None:
        return parameters_by_inspection(function)
    names = code.co_varnames[: code.co_argcount]
    defaults = dict(zip(reversed(names), reversed(plain.__defaults__ or ())))
    names = names[bound:]
    only_keyword = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    defaults.update(plain.__kwdefaults__ or {})
    hints = getattr(plain, "__annotations__", {})
    found = [describe(n, hints.get(n), n in defaults, defaults.get(n)) for n in names + only_keyword]
    if not found and code.co_flags & CO_VARKEYWORDS:
        return None
    return found


def parameters_by_inspection(function):
    import inspect

    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return None
    empty = inspect.Parameter.empty
    found = []
    for p in signature.parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        hint = None if p.annotation is empty else p.annotation
        found.append(describe(p.name, hint, p.default is not empty, p.default))
    return found


def describe(name, hint, has_default, default):
    parameter = {"name": name, "type": type_name(hint)}
    if has_default:
        try:
            to_json(default)
            parameter["default_value"] = default
        except Exception:
            parameter["default_value"] = str(default)
    return parameter


def type_name(hint):
    if hint is None:
        return None
    if isinstance(hint, str):
        return hint
    if isinstance(hint, type) and not hasattr(hint, "__args__"):
        module = hint.__module__
        return hint.__qualname__ if module in ("builtins", "__main__") else f"{module}.{hint.__qualname__}"
    return str(hint).replace("typing.", "")


def is_async(function):
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return code is not None and bool(code.co_flags & CO_COROUTINE)


def add_examples(instance, endpoints):
    if callable(getattr(instance, "docs_input_example", None)):
        endpoints[0].example = checked_example("docs_input_example()", instance.docs_input_example())
    if callable(getattr(instance, "docs_input_examples", None)):
        examples = instance.docs_input_examples()
        if not isinstance(examples, dict):
            raise LoadError("docs_input_examples() must return a dict of endpoints and examples")
        by_path = {e.path: e for e in endpoints}
        for path, example in examples.items():
            endpoint = by_path.get("/" + str(path).lstrip("/"))
            if endpoint is None:
                raise LoadError(f"docs_input_examples(): there is no endpoint {path}")
            endpoint.example = checked_example(f"docs_input_examples()[{path!r}]", example)


def checked_example(source, example):
    if not isinstance(example, dict):
        raise LoadError(f"{source} must be a dict of argument names and values, not {type(example).__name__}")
    try:
        text = to_json(example)
    except Exception as e:
        raise LoadError(f"{source} cannot be turned into JSON: {e}") from e
    if len(text) > EXAMPLE_MAX_BYTES:
        raise LoadError(f"{source} has {len(text)} bytes of JSON, more than 1 MB")
    return example


def find_statics(instance):
    if not callable(getattr(instance, "static_endpoints", None)):
        return []
    table = instance.static_endpoints()
    if not isinstance(table, dict):
        raise LoadError("static_endpoints() must return a dict of paths and files")
    return [static_entry(str(path), target) for path, target in table.items()]


def static_entry(path, target):
    mime = ""
    if isinstance(target, (tuple, list)):
        if len(target) != 2 or not isinstance(target[1], str):
            raise LoadError(f"static_endpoints(): {path} must be a file, (file, mime type) or a directory")
        target, mime = target
    file = os.path.abspath(os.fspath(target))
    if not os.path.exists(file):
        raise LoadError(f"static_endpoints(): {target} (for {path}) does not exist in {os.getcwd()}")
    if any(ord(c) < 32 for c in mime) or len(mime) > 100:
        raise LoadError(f"static_endpoints(): mime type {mime!r} of {path} is not one")
    return {"path": "/" + path.strip("/ "), "file": file, "mime": mime, "directory": os.path.isdir(file)}


def cause(e):
    if isinstance(e, SystemExit):
        return f"SystemExit: the job's code called exit({'' if e.code is None else e.code})"
    text = str(e)
    if isinstance(e, ModuleNotFoundError):
        text += "; a package that the job needs belongs into its requirements (requirements_path in the manifest)"
    return f"{type(e).__name__}: {text}" if text else type(e).__name__


def without_own_frames(e):
    """Drops the wrapper's frames from the top of the traceback: the user's code is what matters."""
    tb = e.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith((OWN_FOLDER, "<frozen")):
        tb = tb.tb_next
    return e.with_traceback(tb)


def traceback_text(e):
    import traceback

    try:
        return "".join(traceback.format_exception(without_own_frames(e)))
    except Exception:  # a broken __str__ must not hide the failure
        return f"{type(e).__name__} (its traceback cannot be shown)\n"


def failure_text(e):
    if isinstance(e, LoadError):
        return f"loading the job failed: {e}"
    try:
        reason = cause(e)
    except Exception:
        reason = type(e).__name__
    return f"loading the job failed: {reason}\n{traceback_text(e)}"
