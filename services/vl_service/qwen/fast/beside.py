"""A CUDA stream beside the one that writes tokens.

What a caller makes of his picture and words waits for the device a few times: on the stream of the tokens, each time
for a chunk of everybody's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """What the block computes is there when it ends, for every stream. One for all calls: its memory is kept once."""
    if device.type != "cuda":
        yield
        return
    stream = _stream(device)
    with torch.cuda.stream(stream):
        yield
        stream.synchronize()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=-1)
