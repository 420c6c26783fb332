"""What a process imports at its start, once, stays as long as it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import in the block what stays for the life of the process.

    torch, transformers and diffusers make a million objects, and the libraries of an HTTP process a quarter of that;
    looking through them again and again while they grow is a fifth of the time of their import, and each full
    collection later, as after a render, would take 0.25 s more.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
