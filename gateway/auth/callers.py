"""Who calls, how often, and how many answers at once: everybody is one caller where no keys are needed, else each key.
"""

import ipaddress
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from anyio.to_thread import run_sync as off_loop
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from contracts.jobs import DEFAULT_PRIORITY, HIGHEST_PRIORITY
from contracts.refusal import Refusal
from gateway.auth.keys import LOCAL_OWNER, KeyRecord, KeyStore, parse_rate
from gateway.database.errors import DatabaseBusy

_RETRY_AFTER_S = 10
_NETWORK_BITS = 64  # of an IPv6 address: what one customer has at least


class KeyRefused(Refusal):
    """A key is needed, and none that is known was given."""

    status, code, title = 401, "key_required", "A key is required"


class RateExceeded(Refusal):
    """The key asked for work more often than it may; nothing was done."""

    status, code, title = 429, "rate_limited", "Too many requests"

    def __init__(self, rate: str, retry_after_s: int) -> None:
        super().__init__(
            f"This key may ask for work {rate}: send the request again in {retry_after_s} s.",
            retry_after_s=retry_after_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """On whose behalf a request is served.

    `owner` marks everything that the caller makes, and the caller sees nothing of any other owner. `max_jobs` bounds
    the owner's jobs that wait or run (`None`: no bound of its own); no job of theirs has a priority number below
    `best_priority`.
    """

    owner: str
    max_jobs: int | None
    best_priority: int


ANYBODY = Caller(owner=LOCAL_OWNER, max_jobs=None, best_priority=HIGHEST_PRIORITY)


def priority_for(caller: Caller, asked: int | None) -> tuple[int, tuple[str, ...]]:
    """The priority that the caller's job gets, and a warning where it is not the one that was asked for."""
    granted = max(DEFAULT_PRIORITY if asked is None else asked, caller.best_priority)
    if asked is None or asked == granted:
        return granted, ()
    return granted, (f"Priority {asked} was asked for; this key's jobs have {granted} at best.",)


class Door:
    """Lets callers in: by their key where keys are required, everybody as `ANYBODY` where not.

    Rates are counted in this process: several API processes allow a key as many times its rate.
    """

    def __init__(self, keys: KeyStore, *, keys_required: bool) -> None:
        self._keys = keys
        self._required = keys_required
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    async def admit(self, token: str | None, *, asks_for_work: bool) -> Caller:
        """The caller with this bearer token.

        Raises:
            KeyRefused: a key is required, and the token is none or is not known (any more).
            RateExceeded: the key's rate is used up, and the request asks for work.
        """
        if not self._required:
            return ANYBODY
        if token is None:
            raise KeyRefused("Send your key as `Authorization: Bearer sm_…`; `stillmotion keys create` makes one.")
        key = await off_loop(self._keys.find, token)
        if key is None:
            raise KeyRefused("This key is not known here, or was revoked: ask whoever runs this server for a new one.")
        if asks_for_work:
            await self._count(key)
        with suppress(DatabaseBusy):  # a note for the operator: a full disk must not keep its owner from removing jobs
            await off_loop(self._keys.note_use, key)
        return _caller(key)

    async def _count(self, key: KeyRecord) -> None:
        if key.limits.rate is None:
            return
        rate = parse_rate(key.limits.rate)
        if not await self._limiter.hit(rate, key.id):
            window = await self._limiter.get_window_stats(rate, key.id)
            raise RateExceeded(key.limits.rate, max(1, math.ceil(window.reset_time - time.time())))


def _caller(key: KeyRecord) -> Caller:
    # Unless it was given more, a key's jobs may step back behind the others but not before them.
    best = DEFAULT_PRIORITY if key.limits.best_priority is None else key.limits.best_priority
    return Caller(owner=key.id, max_jobs=key.limits.max_jobs, best_priority=best)


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
    """Counts answers that take their time, event streams and requests that wait for a job, in this process: at most
    `per_caller` of one caller, at most `in_all` of everybody."""

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
