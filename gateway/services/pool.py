"""Several addresses of one service: who is healthy, who has the least to do, who was put aside and may come back."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from contracts.models import Health

log = logging.getLogger(__name__)

FAILURES_TO_EJECT = 2
"""Calls in a row that got no usable answer before an address is put aside; one may be an accident of the network."""
_LEAST_PLACES = 2
_BUSY_S, _LONGEST_BUSY_S = 1.0, 10.0  # how long a full address is left alone where it names no time, and at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What `/readyz` says; `answered` is false where nothing answered, and `health` then says why.

    `models` are the ids of what it runs, where it said so, and `loaded` those that it need not load first.
    """

    health: Health
    answered: bool
    models: frozenset[str] | None = None
    loaded: frozenset[str] = frozenset()
    at_once: int | None = None
    """Calls that it answers at one time, where it said so."""


class Probed(Protocol):
    """What every client of a service can say about it."""

    async def probe(self) -> Probe:
        """Ask it how it is; never raises."""
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


Client = TypeVar("Client", bound=Probed)


class Member(Generic[Client]):
    """One address: its client, the calls that it has not answered yet, and what is known of its health."""

    def __init__(self, address: str, client: Client) -> None:
        self.address = address
        self.client = client
        self.outstanding = 0
        self.failures = 0
        self.healthy = True
        self.reason = ""
        """Why it takes no work, while it takes none."""
        self.away_since: float | None = None
        """Monotonic seconds since when it is not healthy."""
        self._busy_until = 0.0
        self.silent_since: float | None = None
        """Monotonic seconds since when nothing was heard from it; `None` while it answers."""
        self.models: frozenset[str] = frozenset()
        """Ids of the models it runs; empty while unknown."""
        self.loaded: frozenset[str] = frozenset()
        """Those that are in its memory."""
        self.leaving = False
        """Whether its address is gone from the name that led to it: it gets no new work."""
        self.at_once: int | None = None
        """Calls that it answers at one time, where that is known."""

    @property
    def takes_work(self) -> bool:
        """Whether it is healthy and was not full a moment ago."""
        return self.healthy and time.monotonic() >= self._busy_until

    @property
    def load(self) -> float:
        """Calls in flight for each that it answers at one time."""
        return self.outstanding / self.places

    @property
    def places(self) -> int:
        """How many calls to give it at one time: while it answers one, the next one's picture is made ready."""
        return max(_LEAST_PLACES, self.at_once or 0)

    def runs(self, model: str | None) -> bool:
        """Whether it may serve `model`: it says so, or nothing is known of it."""
        return model is None or not self.models or model in self.models

    @contextmanager
    def at_work(self) -> Iterator[Client]:
        """Count a call to it for as long as it lasts."""
        self.outstanding += 1
        try:
            yield self.client
        finally:
            self.outstanding -= 1

    def answered(self) -> None:
        """It did what it was asked, or refused for a good reason."""
        if not self.healthy:
            log.info("%s is back", self.address, extra={"upstream": self.address})
        self.failures, self.healthy, self.silent_since, self.away_since = 0, True, None, None

    def unasked(self, reason: str) -> None:
        """Nothing is known of it yet: others go before it, until a probe finds it ready."""
        self.healthy, self.reason = False, reason

    def full(self, reason: str, retry_after_s: float | None) -> None:
        """It has as much work as it takes: it gets no more for a moment."""
        self.silent_since = None
        self.reason = reason
        self._busy_until = time.monotonic() + min(_BUSY_S if retry_after_s is None else retry_after_s, _LONGEST_BUSY_S)

    def failed(self, reason: str, *, silent: bool) -> None:
        """It gave no usable answer; `silent` when it gave none at all."""
        self.failures += 1
        self._note_silence(silent)
        if self.failures >= FAILURES_TO_EJECT:
            self._put_aside(reason)

    def probed(self, probe: Probe) -> None:
        """Take in the answer of its `/readyz`: not ready puts it aside at once, ready brings it back."""
        if probe.models:
            self.models, self.loaded, self.at_once = probe.models, probe.loaded, probe.at_once
        if probe.health.ready:
            self.answered()
            return
        self._note_silence(not probe.answered)
        self._put_aside("; ".join(probe.health.reasons) or "is not ready")

    def silent_for_s(self) -> float:
        """Seconds in which nothing was heard from it; 0 while it answers."""
        return 0.0 if self.silent_since is None else time.monotonic() - self.silent_since

    def _note_silence(self, silent: bool) -> None:
        if not silent:
            self.silent_since = None
        elif self.silent_since is None:
            self.silent_since = time.monotonic()

    def _put_aside(self, reason: str) -> None:
        if self.healthy:
            log.warning("%s is put aside: %s", self.address, reason, extra={"upstream": self.address})
            self.away_since = time.monotonic()
        self.healthy, self.reason = False, reason


class Pool(Generic[Client]):
    """Every address of one service, fixed here. Used on one event loop."""

    def __init__(self, members: Sequence[Member[Client]]) -> None:
        assert members, "a service has at least one address"
        self.members = tuple(members)

    def at(self, address: str) -> Member[Client] | None:
        """The one at that address, `None` where the settings no longer name it."""
        return next((member for member in self.members if member.address == address), None)

    async def look(self) -> None:
        """Take in which members came and went."""

    def recall(self, address: str) -> Member[Client] | None:
        """As `at`, for whoever put work there before."""
        return self.at(address)

    def comes_and_goes(self, address: str) -> bool:
        """Whether another process may have the address one day."""
        return False

    def ranked(
        self, *, model: str | None = None, load: Callable[[Member[Client]], float] | None = None,
        avoid: frozenset[str] = frozenset(),
    ) -> list[Member[Client]]:
        """All that may serve `model`, the best first: healthy before the others, then least `load` (default: calls in
        flight), and of the healthy ones those to `avoid` last. None is left out: with nobody healthy, asking is the way
        to find out.
        """
        load = load or (lambda member: member.outstanding)
        return sorted(
            self._able(model), key=lambda member: (not member.healthy, member.address in avoid, load(member))
        )

    def absence(self, model: str | None = None) -> tuple[str, float] | None:
        """Why no address takes work of `model` now, and for how many seconds all have been away; `None`: one does."""
        able = self._able(model)
        if any(member.takes_work for member in able):
            return None
        since = [member.away_since for member in able]
        away_s = min((0.0 if begun is None else time.monotonic() - begun) for begun in since)
        reasons = [member.reason if len(able) == 1 else f"{member.address}: {member.reason}" for member in able]
        return "; ".join(reasons), away_s

    def absent_models(self) -> frozenset[str]:
        """Models that are known to be run here, and by no address that takes work."""
        known = frozenset[str]().union(*(member.models for member in self._staying()))
        return frozenset(model for model in known if self.absence(model) is not None)

    def num_healthy(self) -> int:
        """How many take work."""
        return sum(member.healthy for member in self._staying())

    async def probe(self) -> list[Probe]:
        """Ask every address once how it is."""
        return list((await self._probed()).values())

    async def health(self) -> Health:
        """Ready when one address is; what keeps the others away is then a detail. Stuck when every one is."""
        probes = {member: probe for member, probe in (await self._probed()).items() if not member.leaving}
        if len(probes) == 1:
            return next(iter(probes.values())).health
        details: dict[str, str] = {}
        reasons: list[str] = []
        for member, probe in probes.items():
            details |= {f"{member.address} {key}": value for key, value in probe.health.details.items()}
            if not probe.health.ready:
                why = "; ".join(probe.health.reasons) or "is not ready"
                details[f"{member.address} not_ready"] = why
                reasons.append(f"{member.address}: {why}")
        ready = len(reasons) < len(probes)
        stuck = all(probe.health.stuck for probe in probes.values())
        return Health(ready=ready, stuck=stuck, reasons=[] if ready else reasons, details=details)

    async def _probed(self) -> dict[Member[Client], Probe]:
        members = self.members  # others may come meanwhile
        probes = await asyncio.gather(*(member.client.probe() for member in members))
        for member, probe in zip(members, probes, strict=True):
            member.probed(probe)
        return dict(zip(members, probes, strict=True))

    def _staying(self) -> Sequence[Member[Client]]:
        return [member for member in self.members if not member.leaving] or self.members

    def _able(self, model: str | None) -> Sequence[Member[Client]]:
        """Those that may serve `model`; where none is known to, all: they say it best."""
        return [member for member in self._staying() if member.runs(model)] or self._staying()

    async def aclose(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(member.client.aclose() for member in self.members))
