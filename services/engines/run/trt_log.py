"""What TensorRT said, kept, since it returns nothing but None or False when it fails; and what to do about it."""

import logging
from collections import deque
from typing import Any

from engines.run.trt_protocol import TensorRT

log = logging.getLogger(__name__)

_KEPT = 16
_TOLD = 4
_MEMORY_WORDS = (
    "out of memory", "outofmemory", "out_of_memory", "insufficient memory", "bad_alloc", "could not allocate",
    "memory allocation",
)
_ADVICE = (
    (_MEMORY_WORDS, "Stop what else uses the memory, take a smaller size or fewer frames, or build with "
                    "`--stream-weights on`."),
    (("does not support this compute capability",),
     "Use torch here, or `tensorrt` with engines built on this GPU."),
    (("expecting compute", "incompatible device", "compute capability"), "Build it again on this machine."),
    (("expecting library version", "serialization version", "version tag", "not compatible with this version"),
     "Another version of TensorRT made it: build it again with `stillmotion engines build --rebuild`."),
)


class Log:
    """A logger for TensorRT. Of its errors the last few are kept."""

    def __init__(self, api: TensorRT) -> None:
        said: deque[str] = deque(maxlen=_KEPT)
        severity = api.ILogger.Severity

        class Logger(api.ILogger):
            def __init__(self) -> None:
                super().__init__()

            def log(self, level: Any, message: str) -> None:
                if level in (severity.INTERNAL_ERROR, severity.ERROR):
                    said.append(message)
                elif level == severity.WARNING:
                    log.debug(message)

        self.errors = said
        self.logger: Any = Logger()

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether an error was about memory."""
        text = " ".join(self.errors).lower()
        return any(words in text for words in _MEMORY_WORDS)

    def reason(self, otherwise: str) -> str:
        """TensorRT's last errors in one line, with what to do where that is known; `otherwise` if it said nothing."""
        said = "; ".join(" ".join(message.split()) for message in list(self.errors)[-_TOLD:])
        advice = next((text for words, text in _ADVICE if any(word in said.lower() for word in words)), "")
        return f"{said}. {advice}".replace("..", ".").strip() if advice else said or otherwise
