"""What the children print, made readable: one prefixed line each on a terminal, JSON lines elsewhere."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.text import Text

LogSink = Callable[[str, str], None]  # (service, line)

_COLOURS = {"gateway": "cyan", "vl": "magenta", "video": "green", "stillmotion": "bold"}
_LEVEL_COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
_SHOWN_APART = frozenset({"time", "level", "service", "logger", "message", "exception"})


def readable_sink(console: Console) -> LogSink:
    """A sink that prints `time service level message key=value` with the service in its colour."""

    def write(service: str, line: str) -> None:
        record = _parse(line)
        text = Text()
        text.append(f"{service:<11} ", style=_COLOURS.get(service, ""))
        if record is None:
            text.append(line)
        else:
            level = str(record.get("level", ""))
            text.append(str(record.get("time", ""))[11:19] + " ", style="dim")
            text.append(f"{level:<7} ", style=_LEVEL_COLOURS.get(level, "dim"))
            text.append(readable_message(record))
        console.print(text, soft_wrap=True, highlight=False)

    return write


def json_sink(stream: IO[str]) -> LogSink:
    """A sink for log collectors: every line is one JSON object, whatever the child printed."""

    def write(service: str, line: str) -> None:
        record = _parse(line)
        stream.write((line if record else json.dumps({"service": service, "message": line})) + "\n")
        stream.flush()

    return write


@contextmanager
def file_sink(path: Path) -> Iterator[LogSink]:
    """A sink of JSON lines into a fresh file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        yield json_sink(stream)


def readable_message(record: dict[str, object]) -> str:
    """The message of one JSON log record, its extra fields as `key=value`, and its traceback."""
    extras = "".join(f" {key}={value}" for key, value in record.items() if key not in _SHOWN_APART)
    exception = record.get("exception")
    return f"{record.get('message', '')}{extras}" + (f"\n{exception}" if exception else "")


def plain_line(line: str) -> str:
    """One line as text for an error message, whether it was JSON or not."""
    record = _parse(line)
    return line if record is None else readable_message(record)


def _parse(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "message" in record else None
