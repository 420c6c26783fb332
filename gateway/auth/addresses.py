"""Which web addresses this server calls on a caller's word, and how it makes sure that it calls just those.

Used wherever a URL comes from outside: pictures by address, webhooks. Three parts, in this order: `read_url` (what the
text says), `pin` (the name is resolved once, every answer is checked), `Pinned.request` (the call goes to a checked
address itself, while TLS still proves the host's name). So a name that resolves elsewhere a moment later (DNS
rebinding) changes nothing.
"""

import asyncio
import functools
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import certifi
import httpx
from anyio import to_thread

from contracts.refusal import Refusal

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_URL_CHARS: Final = 8192
_MAX_ADDRESSES: Final = 8
_RESOLVE_TIMEOUT_S: Final = 5.0
_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?")
# IANA's special-purpose registry. Written out, for `ipaddress.is_global` differs between patch releases of Python and
# calls some of these global (multicast, 192.0.0.8, 64:ff9b::/96, fec0::/10).
_SPECIAL_V4: Final = tuple(map(IPv4Network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
)))
# Only global unicast is public; the rest of IPv6 (mapped and translated IPv4, link-local, multicast…) lies outside it.
_PUBLIC_V6: Final = IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(map(IPv6Network, (
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)))


class AddressRefused(Refusal):
    """The address is not called: a stable `code`, and in words what to do. Nothing was sent."""

    status, title = 422, "The picture cannot be fetched"

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code=code, field="image")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """What may be called; `hosts` are names or `*.example.com`, `None` standing for every public host."""

    schemes: frozenset[str] = frozenset({"https"})
    hosts: tuple[str, ...] | None = None
    ports: frozenset[int] | None = None
    open_networks: tuple[IPNetwork, ...] = ()
    """Networks that are not public and still may be called: the operator's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that the rules allow, taken apart; `host` in lower case, `path` with its query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """What the `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A target and the one checked address at which it is called."""

    target: Target
    address: IPAddress

    def request(
        self, client: httpx.AsyncClient, method: str, *, headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Request:
        """The request for `client.send`: to the address, with the host's name in `Host`, SNI and certificate check."""
        address = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        url = f"{self.target.scheme}://{address}:{self.target.port}{self.target.path}"
        request = client.build_request(
            method, url, headers={**(headers or {}), "Host": self.target.authority}, content=content
        )
        request.extensions = {**request.extensions, "sni_hostname": self.target.host}
        return request


@functools.cache
def outside_tls(ca_file: Path | None = None) -> ssl.SSLContext:
    """Whom to believe: the public authorities, or those in `ca_file`. Reads a file, once."""
    return ssl.create_default_context(cafile=ca_file or certifi.where())


def outside_client(*, timeout: httpx.Timeout, tls: ssl.SSLContext) -> httpx.AsyncClient:
    """A client for `Pinned.request`: no proxy (it would resolve again), no redirects, no connection kept."""
    return httpx.AsyncClient(
        timeout=timeout, verify=tls, trust_env=False, follow_redirects=False,
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=0),
    )


def read_url(url: str, rules: AddressRules) -> Target:
    """Take a URL apart and hold it to the rules, without asking anybody.

    Raises:
        AddressRefused: it is no plain URL, or the rules do not allow its scheme, host or port.
    """
    if len(url) > MAX_URL_CHARS:
        raise AddressRefused("url_too_long", f"A URL has at most {MAX_URL_CHARS} characters.")
    if not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        raise AddressRefused("url_not_plain", "The URL has characters that must be percent-encoded (or punycode).")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError as error:
        raise AddressRefused("url_unreadable", f"This is no valid URL: {error}.") from None
    if scheme not in rules.schemes:
        raise AddressRefused("url_scheme_not_allowed", f"Use an {' or '.join(sorted(rules.schemes))} address.")
    if "@" in parts.netloc:
        raise AddressRefused("url_with_credentials", "Leave the user name and password out of the URL.")
    host = _plain_host(host)
    port = _PORTS[scheme] if port is None else port
    if not 1 <= port <= 65535 or (rules.ports is not None and port not in rules.ports):
        allowed = ", ".join(map(str, sorted(rules.ports or ()))) or "1 to 65535"
        raise AddressRefused("url_port_not_allowed", f"Port {port} is not called; use one of: {allowed}.")
    if rules.hosts is not None and not any(_host_fits(host, pattern) for pattern in rules.hosts):
        raise AddressRefused("url_host_not_allowed", f"{host} is not among the hosts that this server calls.")
    query = f"?{parts.query}" if parts.query else ""
    return Target(scheme=scheme, host=host, port=port, path=(parts.path or "/") + query)


async def pin(target: Target, rules: AddressRules, resolve: Resolve | None = None) -> tuple[Pinned, ...]:
    """Resolve the host once: its addresses in the resolver's order, provided that every one of them may be called.

    Raises:
        AddressRefused: the name has no address, or any of its addresses is not public.
    """
    try:
        async with asyncio.timeout(_RESOLVE_TIMEOUT_S):
            found = await (resolve or _resolve)(target.host, target.port)
    except TimeoutError:
        raise AddressRefused("url_host_unknown", f"{target.host} could not be resolved in time.") from None
    except OSError:
        raise AddressRefused("url_host_unknown", f"{target.host} has no address.") from None
    addresses = [ipaddress.ip_address(text) for text in found]
    if not addresses:
        raise AddressRefused("url_host_unknown", f"{target.host} has no address.")
    for address in addresses:
        if not may_call(address, rules):
            raise AddressRefused("url_address_not_public", f"{target.host} does not lie on the public internet.")
    return tuple(Pinned(target=target, address=address) for address in dict.fromkeys(addresses[:_MAX_ADDRESSES]))


async def call_in_turn(
    pinned: Sequence[Pinned], send: Callable[[Pinned], Awaitable[httpx.Response]]
) -> httpx.Response:
    """The answer of the first address that can be connected to; what happens once one can is not tried elsewhere.

    Raises:
        httpx.ConnectError, httpx.ConnectTimeout: of the last one.
    """
    for place in pinned[:-1]:
        with suppress(httpx.ConnectError, httpx.ConnectTimeout):
            return await send(place)
    return await send(pinned[-1])


def may_call(address: IPAddress, rules: AddressRules) -> bool:
    """Whether the address is public, or in a network that the operator opened."""
    if any(address in network for network in rules.open_networks if network.version == address.version):
        return True
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address.scope_id is not None or address not in _PUBLIC_V6:
        return False
    return not any(address in network for network in _SPECIAL_V6)


def _plain_host(host: str) -> str:
    with suppress(ValueError):
        address = ipaddress.ip_address(host)
        if isinstance(address, IPv4Address) or address.scope_id is None:
            return str(address)
    # Only names and dotted quads: not 2130706433, 0x7f.1 or 0177.0.0.1, which some resolvers take for 127.0.0.1.
    last_label = host.rstrip(".").rpartition(".")[2]
    if len(host) > 253 or not _HOST.fullmatch(host) or re.fullmatch(r"0x[0-9a-f]*|\d+", last_label):
        raise AddressRefused("url_unreadable", "The URL names no valid host.")
    return host.rstrip(".")


def _host_fits(host: str, pattern: str) -> bool:
    pattern = pattern.lower().rstrip(".")
    return pattern == "*" or host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:]))


async def _resolve(host: str, port: int) -> list[str]:
    found = await to_thread.run_sync(
        lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), abandon_on_cancel=True
    )
    return [str(address[0]) for *_, address in found]


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` is reached from its own machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
