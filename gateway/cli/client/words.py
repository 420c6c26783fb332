"""What is said on the terminal, and the words that were typed there."""

import os
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.text import Text


class LastingConsole(Console):
    """Says how far things are. A pipe that nobody reads on, or a full disk, ends what it says and not the work."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich does."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self._fall_silent(error)

    def on_broken_pipe(self) -> None:
        """Go on: rich would end the process."""
        self._fall_silent(BrokenPipeError("nobody reads it any more"))

    def _fall_silent(self, error: OSError) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())  # what is held back goes there, in place of an error at the end
        os.close(nowhere)
        with suppress(OSError):  # where the errors go may be full too
            Console(stderr=True).print(
                Text(f"What happens cannot be shown ({error.strerror or error}); the work goes on."), soft_wrap=True)


def typed(text: str) -> str:
    """The words as UTF-8, also where the locale knows ASCII alone and Python kept the bytes as they came."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="surrogateescape")
