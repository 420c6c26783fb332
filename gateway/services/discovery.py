"""A name that resolves to several addresses is several members of a service, followed as addresses come and go; so are
those that a directory lists (`ray://`, services/on_ray/directory.py).
"""

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from gateway.services.pool import Client, Member, Pool, Probed
from web.edge import is_local_name

log = logging.getLogger(__name__)

MISSED_TO_LEAVE = 3
"""Answers in a row without an address before it counts as gone from its name: one may be an answer in part."""
_RESOLVE_S = 5.0
_MAX_ADDRESSES = 1000  # of one name; more is no service of ours
_LONGEST_LEAVE_S = 7200.0  # a render ends in less, and another pod may have got the address since
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Made = TypeVar("Made", bound=Probed, covariant=True)
_CLOSE_AFTER_S = 60.0  # whoever still has a dropped one's client finds it open, and nobody at its other end


class Connect(Protocol[Made]):
    """Makes the client of a base URL."""

    def __call__(
        self, url: str, *, host: str | None = None, transport: httpx.AsyncBaseTransport | None = None
    ) -> Made:
        """`host` is what requests name in place of the URL's own, `transport` stands in for the network."""
        ...


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a name now, of one family: a service on both has two addresses and is one member.

    Raises:
        OSError: it does not resolve.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    by_family = {family: {str(where[0]) for of, _, _, _, where in found if of == family} for family, *_ in found}
    addresses = by_family.get(socket.AF_INET) or by_family.get(socket.AF_INET6) or set()
    return sorted(addresses)[:_MAX_ADDRESSES]


async def ask_directory(url: str, token: str | None = None) -> Sequence[str]:
    """The base URLs that the directory at `url` (`http://`) lists now. Raises `OSError` where it has no answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with httpx.AsyncClient(timeout=_RESOLVE_S, trust_env=False) as http:
            answer = (await http.get(url, headers=headers)).raise_for_status()
        return _Listed.model_validate_json(answer.content).members[:_MAX_ADDRESSES]
    except (httpx.HTTPError, ValidationError) as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


class _Listed(BaseModel):
    members: list[str]


@dataclass(slots=True, kw_only=True)
class _Name:
    """A base URL with a name in it, and the base URLs that it led to when it last resolved."""

    url: str
    host: str
    port: int | None
    """`None`: a directory, whose members each have their own."""
    members: frozenset[str] = frozenset()
    """What it led to when it was answered last, by somebody."""
    answers: int = 0
    problem: str = ""
    looking: "asyncio.Task[Sequence[str]] | None" = None

    @property
    def words(self) -> str:
        """What it is called in sentences."""
        return f"the name {self.host}" if self.port else f"the directory {self.url}"


@dataclass(slots=True)
class _Gone:
    """How often in a row, and since when, no name led to a member."""

    missed: int = 0
    since: float = field(default_factory=time.monotonic)


class _NotResolved(httpx.AsyncBaseTransport):
    """In place of the network where a name has not resolved: a call by the name would reach any of its addresses."""

    def __init__(self, name: _Name) -> None:
        self._name = name

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(self._name.problem or "its name was not looked up yet", request=request)


class DiscoveredPool(Pool[Client]):
    """The members that `urls` lead to now. What resolves to nothing has the members that it had; a member whose address
    left its name gets no new work, and is dropped once nothing was heard from it for `forget_s`.

    `http://` names and `ray://` are followed: addresses, this machine's own names and `https://` are one member each.
    """

    def __init__(
        self, urls: Sequence[str], connect: Connect[Client], *, forget_s: float = 60.0, resolve: Resolve = resolve,
        directory: Callable[[str], Awaitable[Sequence[str]]] = ask_directory,
    ) -> None:
        self._connect, self._resolve, self._directory, self._forget_s = connect, resolve, directory, forget_s
        self._names = [name for url in urls if (name := _name_in(url)) is not None]
        self._gone: dict[str, _Gone] = {}
        self._dropped: list[tuple[float, Member[Client]]] = []
        names = {name.url: name for name in self._names}
        super().__init__([
            Member(url, connect(url, transport=_NotResolved(names[url]) if url in names else None)) for url in urls
        ])
        for member in self.members:
            if member.address in names:
                member.unasked("its name was not looked up yet")

    async def look(self) -> None:
        """Look every name up, each within a few seconds, and take in what came or went."""
        if not self._names:
            return
        await asyncio.gather(*(self._look_up(name) for name in self._names))
        wanted = {address for name in self._names for address in name.members or {name.url}}
        for name in self._names:
            for address in sorted(name.members):
                self._join(address, name)
        for member in [*self.members]:
            if self._follows(member.address):
                self._keep_or_drop(member, wanted)
        await self._close_dropped()

    def recall(self, address: str) -> Member[Client] | None:
        """The one at that address, also where its name does not lead there (any more): it may have a render."""
        member = self.at(address)
        if member is None and (name := self._name_of(address)) is not None:
            member = self._join(address, name)
            self._gone[address] = _Gone(missed=name.answers)
            member.leaving = name.answers >= MISSED_TO_LEAVE
        return member

    def comes_and_goes(self, address: str) -> bool:
        """Whether the address is one that a name led to: another process may have it by now."""
        return self._name_of(address) is not None

    async def _look_up(self, name: _Name) -> None:
        if name.looking is None:  # one that hangs is not asked again before it answers
            name.looking = asyncio.ensure_future(self._find(name))
        await asyncio.wait({name.looking}, timeout=_RESOLVE_S)
        if not name.looking.done():
            name.problem = f"{name.words} was not answered within {_RESOLVE_S:g} s"
            return
        looked, name.looking = name.looking, None
        try:
            found = frozenset(looked.result())
        except (OSError, UnicodeError) as error:
            name.problem = f"{name.words} does not resolve ({error})"
            return
        name.problem = f"{name.words} leads to nobody yet"
        if found:
            name.members, name.answers, name.problem = found, name.answers + 1, ""

    async def _find(self, name: _Name) -> Sequence[str]:
        if name.port is None:
            return await self._directory(f"http{name.url.removeprefix('ray')}")
        return [_base_url(address, name.port) for address in await self._resolve(name.host, name.port)]

    def _join(self, address: str, name: _Name) -> Member[Client]:
        member = self.at(address)
        if member is None:
            called = None if name.port is None else urlsplit(name.url).netloc
            member = Member(address, self._connect(address, host=called))
            member.unasked("was not asked yet")
            self.members = (*self.members, member)
            log.info("%s is at %s, too", name.host, address, extra={"upstream": address})
        return member

    def _keep_or_drop(self, member: Member[Client], wanted: set[str]) -> None:
        if member.address in wanted:
            self._gone.pop(member.address, None)
            member.leaving = False
            return
        placeholder = any(member.address == name.url for name in self._names)
        gone = self._gone.setdefault(member.address, _Gone())
        gone.missed += 1
        if gone.missed >= MISSED_TO_LEAVE and not member.leaving:
            member.leaving = True
            log.info("%s is gone from its name", member.address, extra={"upstream": member.address})
        silent = member.silent_since is not None and member.silent_for_s() >= self._forget_s
        if placeholder or (member.leaving and (silent or time.monotonic() - gone.since >= _LONGEST_LEAVE_S)):
            self.members = tuple(other for other in self.members if other is not member)
            self._gone.pop(member.address, None)
            self._dropped.append((time.monotonic(), member))

    async def _close_dropped(self, older_than_s: float = _CLOSE_AFTER_S) -> None:
        due = [entry for entry in self._dropped if time.monotonic() - entry[0] >= older_than_s]
        self._dropped = [entry for entry in self._dropped if entry not in due]
        await asyncio.gather(*(member.client.aclose() for _, member in due))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._close_dropped(older_than_s=0.0)
        await super().aclose()

    def _follows(self, address: str) -> bool:
        return any(address == name.url for name in self._names) or self.comes_and_goes(address)

    def _name_of(self, address: str) -> _Name | None:
        parts = urlsplit(address)
        if parts.scheme != "http" or not _is_address(parts.hostname or ""):
            return None
        named = (name for name in self._names if address in name.members)
        return next(named, next((name for name in self._names if name.port in (None, parts.port or 80)), None))


def _name_in(url: str) -> _Name | None:
    """The name to follow in a base URL, `None` where it is one member."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "ray":
        return _Name(url=url, host=host, port=None)
    if parts.scheme != "http" or parts.path not in ("", "/") or not host or is_local_name(host):
        return None
    return _Name(url=url, host=host, port=parts.port or 80)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _base_url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
