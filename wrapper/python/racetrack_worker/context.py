"""What a handler may know of its request: `request_context` and `request_extra`."""

from _contextvars import ContextVar

request_context = ContextVar("request_context")
request_extra = ContextVar("request_extra")


class Headers:
    """Read-only mapping with names in any case; a repeated header's values are joined with ", "."""

    __slots__ = ("_items",)

    def __init__(self, head):
        items = {}
        for line in head.split("\r\n")[1:]:
            name, colon, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            if colon and name != "x-racetrack-job-secret":  # between the gateway and the front
                items[name] = f"{items[name]}, {value}" if name in items else value
        self._items = items

    def get(self, name, default=None):
        return self._items.get(name.lower(), default)

    def __getitem__(self, name):
        return self._items[name.lower()]

    def __contains__(self, name):
        return isinstance(name, str) and name.lower() in self._items

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)

    def keys(self):
        return self._items.keys()

    def values(self):
        return self._items.values()

    def items(self):
        return self._items.items()

    def __repr__(self):
        return f"Headers({self._items!r})"


class Request:
    """The current request; everything is taken from the head when asked for."""

    __slots__ = ("_head", "_text", "_headers")

    def __init__(self, head):
        self._head = head
        self._text = None
        self._headers = None

    def _line(self):
        if self._text is None:
            self._text = self._head.decode("latin-1").lstrip("\r\n")
        return self._text[: self._text.index("\r\n")].split(" ")

    @property
    def method(self):
        return self._line()[0]

    @property
    def url(self):
        """Path and query as the caller sent them."""
        return self._line()[1]

    @property
    def path(self):
        return self.url.partition("?")[0]

    @property
    def query_string(self):
        return self.url.partition("?")[2]

    @property
    def query_params(self):
        """Name -> last value, decoded."""
        return {name: values[-1] for name, values in query_lists(self.query_string).items()}

    @property
    def headers(self):
        if self._headers is None:
            self._line()
            self._headers = Headers(self._text)
        return self._headers

    @property
    def cookies(self):
        pairs = (part.partition("=") for part in self.headers.get("cookie", "").split(";"))
        return {name.strip(): value.strip() for name, sep, value in pairs if sep}


def query_lists(query):
    if not query:
        return {}
    from urllib.parse import parse_qs

    return parse_qs(query, keep_blank_values=True)
