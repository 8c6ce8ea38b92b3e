"""Endpoints with a method of their own, for `auxiliary_endpoints_v2`."""


class EndpointConfig:
    """GET and DELETE handlers get the query's parameters as arguments, the others those of the JSON body."""

    def __init__(self, path, method, handler, other_options=None):
        self.path = path
        self.method = method
        self.handler = handler
        self.other_options = other_options or {}
