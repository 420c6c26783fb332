"""A child process that decodes: one image after the other from its parent's pipe, within a deadline and a memory limit.

`python -m gateway.submit.images.decoder JSON`: settings as `DecoderSettings`. Frames in and out begin with their length
in 8 bytes; in comes an image file, out an answer: its JSON and the image's bytes, each a frame. The kernel ends the
process at its deadline whatever code is running then, and when its parent dies.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import warnings
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from gateway.submit.images.check import ImageLimits, TooHeavy, check_image
from gateway.submit.images.refusals import ImageRefused

LENGTH_BYTES = 8
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings:
    """`memory_bytes` beyond what the process has at its start; `cpu_s` and `wall_s` for one image."""

    limits: ImageLimits
    light: bool
    memory_bytes: int
    cpu_s: float
    wall_s: float


def main() -> None:
    """Answer until the parent closes the pipe."""
    given = json.loads(sys.argv[1])
    settings = DecoderSettings(**{**given, "limits": ImageLimits(**given["limits"])})
    _confine(settings)
    warnings.simplefilter("ignore")  # of damaged bytes: the refusal says it
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What libraries print of damaged bytes belongs neither among the answers nor in the log.
    sys.stderr = os.fdopen(os.dup(2), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    while (data := _read(incoming)) is not None:
        signal.setitimer(signal.ITIMER_PROF, settings.cpu_s)
        signal.setitimer(signal.ITIMER_REAL, settings.wall_s)
        head, body = _answer(data, settings)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        del data
        for part in (json.dumps(head).encode(), body):
            outgoing.write(len(part).to_bytes(LENGTH_BYTES))
            outgoing.write(part)
        outgoing.flush()


def _answer(data: bytes, settings: DecoderSettings) -> tuple[dict[str, object], bytes]:
    try:
        image = check_image(data, settings.limits, light=settings.light)
    except ImageRefused as refused:
        return {"refused": refused.code, "detail": refused.detail}, b""
    except (TooHeavy, MemoryError):
        return {"too_heavy": True}, b""
    return {
        "media_type": image.media_type, "width": image.width, "height": image.height, "warnings": image.warnings,
    }, image.data


def _confine(settings: DecoderSettings) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        with open("/proc/self/statm") as statm:  # noqa: PTH123 pathlib costs the start a tenth
            most = int(statm.read().split()[0]) * resource.getpagesize() + settings.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not settings.light:
        os.nice(5)  # light images, and the event loop, go first
    Image.init()


def _read(incoming: BinaryIO) -> bytes | None:
    head = incoming.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    data = incoming.read(int.from_bytes(head))
    return data if len(data) == int.from_bytes(head) else None


if __name__ == "__main__":
    main()
