"""Model libraries are imported in a worker, once, and stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import in the block what stays for the life of the process.

    torch, transformers and diffusers make a million objects. Looking through them again and again while they grow is a
    fifth of the time of their import, and every full collection afterwards would take a quarter of a second more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
