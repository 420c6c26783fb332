"""Trying a fast form: whatever keeps it from running here leaves transformers' own."""

import logging
from collections.abc import Callable
from typing import TypeVar

from web.worker.faults import breaks_the_device, one_line

log = logging.getLogger(__name__)
T = TypeVar("T")


def try_form(make: Callable[[], T]) -> tuple[T | None, str]:
    """A fast form, or why transformers' own form stays: not covered, no memory for it, no compiler here."""
    try:
        return make(), ""
    except NotImplementedError as error:
        return None, f"plain: {error}"
    except Exception as error:
        if breaks_the_device(error):
            raise
        log.warning("a fast form does not run here", exc_info=True)
        return None, f"plain: {one_line(error, 300)}"
