"""A real worker process with a backend that does as the question says; it needs no model library.

`VL_MODEL` is a folder. Loading waits there for the file `loaded`, unless there is none called `slow`; `fails` and
`refused` are raised. To work: `hold` waits for the file `let_go`, `cuda` is a broken device, `memory` a full one, `die`
and `break` are what they say; every call leaves a line in the file `calls` when it begins and when it ends.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from contracts.chat import ChatOptions, Turn
from contracts.models import VLModelInfo
from engines.store.manifest import EngineRefused
from vl_service.backend import Answer, CannotReplyError, CheckpointError, Deadline, Description, Piece, Task
from vl_service.images import DecodedImage
from vl_service.settings import Settings
from vl_service.worker.program import worker_program
from web.worker.child import run


class Scripted:
    concurrent = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def info(self) -> VLModelInfo:
        return VLModelInfo(
            id="scripted", revision=str(os.getpid()), engine="test", dtype="none", tasks=[], languages=[], profiles=[],
            at_once=4)

    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        self._note("+")
        try:
            for task in tasks:
                self._do(task.question or "", deadline)
        finally:
            self._note("-")
        size = "" if picture is None else f"{picture.rgb.size}"
        return Description(answers=[Answer(text=f"Said {size}. Said {size}.")] * len(tasks), facts={})

    def chat(
        self, turns: Sequence[Turn], images: Sequence[DecodedImage], options: ChatOptions, deadline: Deadline
    ) -> Iterator[Piece]:
        """Says the words of the last turn, one at a time; `hold` says `on` until it may let go."""
        if options.json_schema is not None:
            raise CannotReplyError("No JSON from me.")
        self._note("+")
        try:
            said = 0
            for word in [str(len(images)), *turns[-1].text.split()]:
                while word == "hold" and not (self.folder / "let_go").exists():
                    deadline.check()
                    said += 1
                    yield Piece(text="on ", prompt_tokens=len(turns), completion_tokens=said)
                    time.sleep(0.01)
                self._do(word, deadline)
                said += 1
                yield Piece(text=f"{word} ", prompt_tokens=len(turns), completion_tokens=said)
            yield Piece(prompt_tokens=len(turns), completion_tokens=said, finish="stop")
        finally:
            self._note("-")

    def _do(self, word: str, deadline: Deadline) -> None:
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "cuda":
            raise ValueError("the step failed") from RuntimeError("CUDA error: device-side assert triggered")
        if word == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if word == "engine":
            raise EngineRefused("the GPU is full")
        if word == "break":
            raise KeyError("no such thing")
        while word == "hold" and not (self.folder / "let_go").exists():
            time.sleep(0.01)
            deadline.check()

    def _note(self, line: str) -> None:
        with (self.folder / "calls").open("a") as file:
            file.write(line)


def load(settings: Settings) -> Scripted:
    folder = Path(settings.model)
    while (folder / "slow").exists() and not (folder / "loaded").exists():
        time.sleep(0.01)
    if (folder / "fails").exists():
        raise OSError("no such checkpoint: nowhere/model")
    if (folder / "refused").exists():
        raise CheckpointError("It is a gpt2 checkpoint.")
    return Scripted(folder)


if __name__ == "__main__":
    sys.exit(run(worker_program(load)))
