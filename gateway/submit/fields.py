"""Both encodings of an HTML form → its parts."""

from dataclasses import dataclass
from urllib.parse import parse_qsl

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.submit.refusals import BodyRefused
from gateway.submit.text import decode

MAX_PARTS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One field of a form; `filename` is `None` where it was sent as text."""

    name: str
    data: bytes
    filename: str | None = None
    media_type: str = ""

    @property
    def left_empty(self) -> bool:
        """Whether this is what a browser sends for a field that nobody filled in."""
        return not self.data and not self.filename

    @property
    def text(self) -> str:
        """Its words; raises `BodyRefused`."""
        return decode(self.data, self.name)


def parse_urlencoded(body: bytes) -> list[Part]:
    """The fields of an `application/x-www-form-urlencoded` body. Raises `BodyRefused`."""
    if body.count(b"&") >= MAX_PARTS:
        raise _too_many()
    try:
        pairs = parse_qsl(decode(body), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise BodyRefused("invalid_request", "The form is no UTF-8: encode its text as UTF-8, then as %xx.") from None
    return [Part(name=decode(name.encode()), data=value.encode()) for name, value in pairs]


def parse_multipart(body: bytes, content_type: str) -> list[Part]:
    """The fields of a `multipart/form-data` body.

    Raises:
        BodyRefused: it cannot be read, has too many parts, or ends before its closing boundary.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise _unreadable("its Content-Type names no boundary")
    reader = _Reader()
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # pyright: ignore[reportArgumentType]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise _unreadable(str(error)) from None
    if not reader.ended:
        raise _unreadable("it ends before its closing boundary: send it again, whole")
    return reader.parts


class _Reader:
    """What the parser calls, with slices of what it was given."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._begin()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin, "on_part_data": self._on_data, "on_part_end": self._on_part_end,
            "on_header_field": self._on_header_name, "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end, "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._header_name = self._header_value = b""
        self._data = bytearray()

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_part_end(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition"))[1]
        if b"name" not in options:
            raise _unreadable("a part has no name in its Content-Disposition")
        if len(self.parts) >= MAX_PARTS:
            raise _too_many()
        filename = options.get(b"filename")
        self.parts.append(Part(
            name=decode(options[b"name"]), data=bytes(self._data),
            filename=None if filename is None else filename.decode(errors="replace"),
            media_type=self._headers.get(b"content-type", b"").decode("latin-1").lower(),
        ))
        self._begin()

    def _on_end(self) -> None:
        self.ended = True


def _too_many() -> BodyRefused:
    return BodyRefused("too_many_fields", f"A form has at most {MAX_PARTS} fields: see /docs for those that there are.")


def _unreadable(why: str) -> BodyRefused:
    return BodyRefused("form_unreadable", f"The form cannot be read: {why}.")
