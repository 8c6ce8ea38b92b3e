"""Exceptions with a status of their own; other classes of these names are treated alike."""


class EntityNotFound(Exception):
    """Answered with 404."""


class AlreadyExists(Exception):
    """Answered with 409."""
