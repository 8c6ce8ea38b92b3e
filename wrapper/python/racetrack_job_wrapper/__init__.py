"""What a job may import from its wrapper. All of it is optional."""

from .endpoints import EndpointConfig
from .errors import AlreadyExists, EntityNotFound

__all__ = ["AlreadyExists", "EndpointConfig", "EntityNotFound"]
