"""The embedded demo model. This is its one door: nothing outside the package imports what is inside."""

from vl_service.embedded.backend import load_embedded
from vl_service.embedded.checkpoint import is_embedded

__all__ = ["is_embedded", "load_embedded"]
