"""Conditions and ranges of a file as RFC 9110 has them.

What is no range of bytes is ignored; 416 only where the file has none of them. Of conditions (13.2.2) `If-Match` or its
date goes first, then `If-None-Match` or its.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from fastapi.responses import FileResponse, Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from contracts.errors import Problem
from web.problems import problem_response

# Forty digits and sixteen ranges: no file needs more, and each costs a seek. Places in the list may be left empty.
_RANGE = r"[0-9]{0,40}-[0-9]{0,40}"
_TAGS = re.compile(r'(?:W/)?"[^"]*"')
_RANGES = re.compile(
    rf"\s*bytes\s*=[\s,]{{0,40}}{_RANGE}(?:\s*,[\s,]{{0,40}}{_RANGE}){{0,15}}[\s,]{{0,40}}", re.IGNORECASE)


class RangedFile(FileResponse):
    """A file, the wanted ranges of it, or 416."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        # Ranges are for GET alone: HEAD tells of the whole file.
        asks = self.stat_result is not None and scope["method"] == "GET"
        wanted = self._wanted(headers) if asks else None
        if wanted == []:
            assert self.stat_result is not None
            return await _none_fits(self.stat_result.st_size)(scope, receive, send)
        kept = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        if wanted:
            kept.append((b"range", f"bytes={','.join(wanted)}".encode()))
        return await super().__call__({**scope, "headers": kept}, receive, send)

    def _wanted(self, headers: Headers) -> list[str] | None:
        """The ranges that the file has; `None` where the whole of it is wanted."""
        given, condition = headers.get("range"), headers.get("if-range")
        if given is None or (condition is not None and condition not in self._names()):
            return None
        return fitting(given, self.stat_result.st_size if self.stat_result else 0)

    def _names(self) -> tuple[str, ...]:
        """What `If-Range` may say: the strong tag, or the date."""
        return self.headers["etag"], self.headers["last-modified"]


def fitting(header: str, size: int) -> list[str] | None:
    """The ranges of a `Range` header that a file of `size` bytes has; `None` where the header is to be ignored."""
    if not _RANGES.fullmatch(header):
        return None
    found = re.findall(r"([0-9]*)-([0-9]*)", header)
    if any((not start and not end) or (start and end and int(end) < int(start)) for start, end in found):
        return None  # one that is no range spoils them all
    return [
        f"{start}-{end}" for start, end in found if (int(start) < size if start else int(end) > 0 and size > 0)
    ]


def _none_fits(size: int) -> Response:
    problem = Problem(
        status=416, code="range_not_satisfiable", title="Range outside the file",
        detail=f"The file has {size} bytes: ask for a range within them, such as bytes=0-.",
    )
    return problem_response(problem, {"Content-Range": f"bytes */{size}"})


def bound_to_another(headers: Mapping[str, str], tag: str, modified_s: float) -> bool:
    """Whether the file must not be sent, for it is not the one that was meant (412)."""
    if (wanted := headers.get("if-match")) is not None:
        return wanted.strip() != "*" and tag not in _TAGS.findall(wanted)
    date = _seconds(headers.get("if-unmodified-since"))
    return date is not None and int(modified_s) > date


def is_known(headers: Mapping[str, str], tag: str, modified_s: float | None = None) -> bool:
    """Whether the caller has the file already (304)."""
    if (known := headers.get("if-none-match")) is not None:
        return known.strip() == "*" or tag in [one.removeprefix("W/") for one in _TAGS.findall(known)]
    date = _seconds(headers.get("if-modified-since"))
    return date is not None and modified_s is not None and int(modified_s) <= date


def _seconds(date: str | None) -> float | None:
    """Since the epoch; None where it is no date, which is to be ignored."""
    try:
        moment = parsedate_to_datetime(date) if date else None
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
