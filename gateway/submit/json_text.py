"""JSON from outside → plain values, looked through before anything is built from it."""

from typing import Any

from pydantic_core import from_json

from gateway.submit.refusals import BodyRefused
from gateway.submit.text import decode, refuse_nul

_LONG_STRING = 32 * 1024  # above every text field's bound in UTF-8: only a picture is as long
_MAX_LONG_STRINGS = 4
MAX_FIELDS_BYTES = 256 * 1024
"""What a request has beside its pictures, at most; in a form too."""
_MAX_MEMBERS = 1000
_MAX_DEPTH = 12


def read_object(body: bytes) -> dict[str, Any]:
    """The fields of a JSON object. Milliseconds for whatever comes: call it off the event loop for megabytes.

    Raises:
        BodyRefused: it is empty, no JSON object, or has more in it than any request.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
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
