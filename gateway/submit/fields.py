"""A body's bytes → its fields, in every encoding: JSON, both encodings of an HTML form, and one rule for text.

Text is UTF-8, without lone surrogates and U+0000, which not every database keeps.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pydantic import ValidationError
from pydantic_core import from_json
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # it is not there at run time

from contracts.refusal import Refusal
from web.problems import validation_problem

_BOM = b"\xef\xbb\xbf"
MAX_PARTS = 60
_LONG_STRING = 32 * 1024  # above every text field's bound in UTF-8: only a picture is as long
_MAX_LONG_STRINGS = 4
MAX_FIELDS_BYTES = 256 * 1024
"""What a request has beside its pictures, at most; in a form too."""
_MAX_MEMBERS = 1000
_MAX_DEPTH = 12


class BodyRefused(Refusal):
    """The body is not one that we take: stable `code`, in words what to send, and the field where it is one's fault."""

    title = "The request is not valid"

    def __init__(self, code: str, detail: str, field: str | None = None) -> None:
        status = {"unsupported_media_type": 415, "too_many_fields": 413}.get(code, 422)
        super().__init__(detail, status=status, code=code, field=field)


class FieldsRefused(Refusal):
    """Fields that are unknown or out of bounds."""

    status, code, title = 422, "invalid_request", "The request is not valid"

    def __init__(self, cause: ValidationError) -> None:
        problem = validation_problem(cause.errors(include_url=False, include_input=False))
        super().__init__(problem.detail, errors=problem.errors)


def decode(data: bytes, field: str | None = None) -> str:
    """The text; a byte order mark before it is skipped. Raises `BodyRefused`."""
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        where = "The body" if field is None else f"`{field}`"
        raise BodyRefused(
            "invalid_request", f"{where} is no UTF-8 (at byte {error.start}): save or send the text as UTF-8.", field
        ) from None
    refuse_nul(text, field)
    return text


def refuse_nul(text: str, field: str | None = None) -> None:
    """Raise `BodyRefused` where there is a U+0000: Postgres keeps none, and no word has one."""
    if "\0" in text:
        where = "The body" if field is None else f"`{field}`"
        raise BodyRefused("invalid_request", f"{where} has the character U+0000: leave it out.", field)


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
        raise _too_many_parts()
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
        parser = MultipartParser(boundary, reader.callbacks())
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

    def callbacks(self) -> "MultipartCallbacks":
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
            raise _too_many_parts()
        filename = options.get(b"filename")
        self.parts.append(Part(
            name=decode(options[b"name"]), data=bytes(self._data),
            filename=None if filename is None else filename.decode(errors="replace"),
            media_type=self._headers.get(b"content-type", b"").decode("latin-1").lower(),
        ))
        self._begin()

    def _on_end(self) -> None:
        self.ended = True


def _too_many_parts() -> BodyRefused:
    return BodyRefused("too_many_fields", f"A form has at most {MAX_PARTS} fields: see /docs for those that there are.")


def _unreadable(why: str) -> BodyRefused:
    return BodyRefused("form_unreadable", f"The form cannot be read: {why}.")


def read_object(body: bytes) -> dict[str, Any]:
    """The fields of a JSON object. Milliseconds for whatever comes: call it off the event loop for megabytes.

    Raises:
        BodyRefused: it is empty, no JSON object, or has more in it than any request.
    """
    body = body.removeprefix(_BOM)
    if not body.strip():
        raise BodyRefused("empty_body", "The request is empty: send a picture as `image`, or words as `prompt`.")
    _refuse_bulk(body)
    try:
        value = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        decode(body)  # it says so where it is no UTF-8
        raise BodyRefused("invalid_request", f"The body is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BodyRefused("invalid_request", 'The body is to be a JSON object, such as {"prompt": "a kite rises"}.')
    _look_through(value)
    return value


def _refuse_bulk(body: bytes) -> None:
    """Count the bytes outside of long strings: each small value costs the parser hundreds of bytes of memory."""
    at = small = long_strings = 0
    while (start := body.find(b'"', at)) >= 0:
        end = _end_of_string(body, start)
        if end - start > _LONG_STRING:
            long_strings += 1
            small += start - at
        else:
            small += end - at
        if small > MAX_FIELDS_BYTES or long_strings > _MAX_LONG_STRINGS:
            raise _too_much()
        at = end
    if small + len(body) - at > MAX_FIELDS_BYTES:
        raise _too_much()


def _end_of_string(body: bytes, start: int) -> int:
    """Just behind the closing quote; the body's end where there is none."""
    end = start
    while (end := body.find(b'"', end + 1)) >= 0:
        before = body[max(start + 1, end - _LONG_STRING):end]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:  # an even number of backslashes escapes itself alone
            return end + 1
        if end - start > _LONG_STRING:
            raise _too_much()  # no picture has quotes
    return len(body)


def _look_through(value: dict[str, Any]) -> None:
    members = 0
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        members += len(level)
        if members > _MAX_MEMBERS:
            raise _too_much()
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str):
                refuse_nul(item)
            elif isinstance(item, dict):
                inner += item.keys()
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        if not inner:
            return
        level = inner
    raise BodyRefused("json_too_deep", f"The JSON is nested more than {_MAX_DEPTH} deep; no request is.")


def _too_much() -> BodyRefused:
    return BodyRefused(
        "too_many_fields", f"Beside its pictures a request has at most {MAX_FIELDS_BYTES // 1024} KiB and "
        f"{_MAX_MEMBERS // 2} fields: see /docs for those that there are.",
    )
