"""A picture by its https address: from allowed hosts only, and never more of it than a picture may have."""

import asyncio
import ssl
from dataclasses import dataclass

import httpx

from contracts.refusal import Refusal
from gateway.auth.addresses import AddressRefused, AddressRules, Resolve, call_in_turn, outside_client, pin, read_url

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 10.0
_HEADERS = {
    "Accept": "image/*", "User-Agent": "Stillmotion-Images/1",
    "Accept-Encoding": "identity",  # a compressed body could unpack to any size
}


class FetchFailed(Refusal):
    """The address was called and no picture came back: a stable `code`, and in words what to do."""

    title = "The picture cannot be fetched"

    def __init__(self, code: str, detail: str) -> None:
        status = 413 if code == "image_too_many_bytes" else 422
        super().__init__(detail, status=status, code=code, field="image")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """What may be fetched and what it may cost. `rules.hosts` empty: nothing is fetched at all."""

    rules: AddressRules
    max_bytes: int
    timeout_s: float
    tls: ssl.SSLContext
    resolve: Resolve | None = None
    """`None`: the system's resolver."""


async def fetch_picture(url: str, fetching: Fetching) -> bytes:
    """The bytes behind `url`, unchecked; within `max_bytes` and `timeout_s` altogether.

    Raises:
        AddressRefused: the address is not called.
        FetchFailed: it was called in vain.
    """
    if not fetching.rules.hosts:
        raise AddressRefused(
            "image_url_not_allowed", "Pictures by web address are not fetched here: send the picture itself."
        )
    target = read_url(url, fetching.rules)
    try:
        async with asyncio.timeout(fetching.timeout_s):
            pinned = await pin(target, fetching.rules, fetching.resolve)
            connect_s = min(_CONNECT_TIMEOUT_S, fetching.timeout_s / (len(pinned) + 1))  # so that each has its turn
            timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=connect_s)
            async with outside_client(timeout=timeout, tls=fetching.tls) as client:
                response = await call_in_turn(pinned, lambda place: client.send(
                    place.request(client, "GET", headers=_HEADERS), stream=True
                ))
                return await _receive(response, fetching.max_bytes)
    except TimeoutError:
        raise FetchFailed(
            "image_url_too_slow", f"{target.host} did not send the picture within {fetching.timeout_s:g} s."
        ) from None
    except httpx.HTTPError as error:
        raise FetchFailed(
            "image_url_unreachable",
            f"{target.host} could not be asked ({type(error).__name__}): send the picture itself.",
        ) from None


async def _receive(response: httpx.Response, max_bytes: int) -> bytes:
    try:
        if response.is_redirect:
            raise FetchFailed("image_url_redirects", "The address leads elsewhere: send the one that it ends at.")
        if response.status_code != httpx.codes.OK:
            raise FetchFailed("image_url_no_picture", f"The address answered with status {response.status_code}.")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise FetchFailed("image_url_no_picture", "The address sent a compressed body though none was asked for.")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                raise FetchFailed("image_too_many_bytes", f"The picture is larger than {max_bytes / 2**20:g} MiB.")
        return bytes(body)
    finally:
        await response.aclose()
