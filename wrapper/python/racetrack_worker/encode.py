"""JSON in and out with the C halves of the json package, without importing the package (7 ms)."""

from _json import encode_basestring, make_encoder, make_scanner

STRING_TYPES = frozenset(("Quantity", "Decimal", "UUID", "Fraction", "complex", "IPv4Address", "IPv6Address", "timedelta", "Timedelta"))


class PayloadError(ValueError):
    """The request's body is not the JSON that is expected."""

    def __init__(self, text, status=400):
        super().__init__(text)
        self.status = status


def _refuse_constant(name):
    raise PayloadError(f"{name} is not valid JSON")


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo = {}


_scan = make_scanner(_Context)


def from_json(text):
    text = text.strip(" \t\n\r")
    try:
        try:
            value, end = _scan(text, 0)
        except SystemError:
            # The scanner wants to raise JSONDecodeError and does not import it by itself.
            import json.decoder  # noqa: F401

            value, end = _scan(text, 0)
    except StopIteration as e:
        raise PayloadError(f"the request's body is not valid JSON: a value is expected at character {e.value}") from None
    except PayloadError as e:
        raise PayloadError(f"the request's body is not valid JSON: {e}") from None
    except RecursionError:
        raise PayloadError("the request's body is nested too deeply") from None
    except ValueError as e:
        raise PayloadError(f"the request's body is not valid JSON: {e}") from None
    if end != len(text):
        raise PayloadError(f"the request's body is not valid JSON: extra data at character {end}")
    return value


def plain(value):
    """Turns what JSON does not know into what it knows; the parts are looked at again by the encoder."""
    kind = type(value)
    fields = getattr(kind, "__dataclass_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    if kind.__name__ in STRING_TYPES:
        return str(value)
    if not isinstance(value, type):
        for method in ("tolist", "model_dump"):
            if hasattr(value, method):
                return getattr(value, method)()
        if hasattr(kind, "__members__") and hasattr(value, "value"):  # Enum
            return value.value
        if isinstance(value, (set, frozenset)):
            return list(value)
        for method in ("isoformat", "to_dict", "dict", "_asdict"):
            if callable(getattr(value, method, None)):
                return getattr(value, method)()
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8")
        if hasattr(kind, "__fspath__"):
            return kind.__fspath__(value)
        if hasattr(kind, "keys") and hasattr(kind, "__getitem__"):
            return {k: value[k] for k in value.keys()}
        if hasattr(kind, "__iter__"):
            return list(value)
    raise TypeError(f"a result of type {kind.__module__}.{kind.__qualname__} cannot be turned into JSON")


# No marker dict: it is shared by threads and would report one object encoded twice at a time as circular. Circles
# end in RecursionError.
_encode = make_encoder(None, plain, encode_basestring, None, ":", ",", False, False, False)


def to_json(value):
    """JSON text; numbers that JSON does not have (NaN, infinities) become null, odd keys text."""
    try:
        return "".join(_encode(value, 0))
    except (ValueError, TypeError) as e:
        text = str(e)
        if not text.startswith(("Out of range", "keys must be")):
            raise
    except RecursionError:
        raise RecursionError("the result is nested too deeply for JSON, or contains itself") from None
    return "".join(_encode(_clean(value), 0))


def _clean(value):
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {_clean_key(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return _clean(plain(value))


def _clean_key(key):
    if key is None or isinstance(key, (str, bool, int)):
        return key
    if isinstance(key, float):
        return repr(key)
    if hasattr(key, "tolist"):
        return _clean_key(key.tolist())
    return str(key)
