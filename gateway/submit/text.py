"""One rule for text, in every encoding and on every database: UTF-8, no lone surrogates, no U+0000."""

from gateway.submit.refusals import BodyRefused

_BOM = b"\xef\xbb\xbf"


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
