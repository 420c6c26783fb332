"""How many answers that take their time one caller may have open: event streams, and requests that wait for a job."""

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from contracts.refusal import Refusal

_RETRY_AFTER_S = 10
_NETWORK_BITS = 64  # of an IPv6 address: what one customer has at least


class TooManyWaits(Refusal):
    """The caller has as many open as it may, or, where `of_all`, all callers together have."""

    status, code, title = 429, "too_many_waits", "Too many requests that wait"

    def __init__(self, limit: int, *, of_all: bool) -> None:
        whose = "in all" if of_all else "of yours"
        super().__init__(
            f"{limit} event streams and waiting requests {whose} are open, all that may: close some, follow several "
            f"jobs with GET /v1/jobs, or send the request again in {_RETRY_AFTER_S} s.",
            status=503 if of_all else None, retry_after_s=_RETRY_AFTER_S,
        )


class Waits:
    """Counts them in this process: at most `per_caller` of one caller, at most `in_all` of everybody."""

    def __init__(self, *, per_caller: int, in_all: int) -> None:
        self._per_caller = per_caller
        self._in_all = in_all
        self._open: Counter[str] = Counter()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """One more is open during the block; raises `TooManyWaits` before it."""
        if self._open[caller] >= self._per_caller:
            raise TooManyWaits(self._per_caller, of_all=False)
        if self._open.total() >= self._in_all:
            raise TooManyWaits(self._in_all, of_all=True)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]


def network_of(host: str | None) -> str:
    """Whom an address stands for: itself, or the network of an IPv6 one, whose owner has all addresses in it."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return host or ""
    if address.version == 6:
        mapped = address.ipv4_mapped
        return str(mapped or ipaddress.ip_network((address, _NETWORK_BITS), strict=False))
    return str(address)
