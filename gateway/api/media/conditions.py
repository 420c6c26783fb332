"""What a request is bound to, in the order of RFC 9110, 13.2.2: `If-Match` or its date, then `If-None-Match` or its."""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

_TAGS = re.compile(r'(?:W/)?"[^"]*"')


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
