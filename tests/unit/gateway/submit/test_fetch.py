"""Pictures by https address: from a real TLS server, under the name that its certificate proves, within the caps."""

import asyncio
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from gateway.auth.addresses import AddressRefused, AddressRules, outside_tls
from gateway.submit.images.fetch import FetchFailed, Fetching, fetch_picture
from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client, until
from tests.unit.gateway.model_services import Services

HOST = "pictures.example"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class PictureServer:
    """Answers each path as the test set it: raw bytes, with what follows sent slowly where `drip_s` says so."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.drip_s = 0.0
        self.seen: list[str] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.seen.append(request)
            answer = self.answers.get(request.split(" ")[1], b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
            for start in range(0, len(answer), 65536):
                writer.write(answer[start : start + 65536])
                await writer.drain()
                await asyncio.sleep(self.drip_s)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()


def ok(body: bytes, *headers: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def server(authority: trustme.CA) -> AsyncIterator[PictureServer]:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(HOST).configure_cert(tls)
    pictures = PictureServer()
    listening = await asyncio.start_server(pictures.handle, "127.0.0.1", 0, ssl=tls)
    pictures.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield pictures


@pytest.fixture
def fetching(server: PictureServer, authority: trustme.CA, tmp_path: Path) -> Fetching:
    """Every name leads to the server on loopback, which is opened for the test."""
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))

    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    return Fetching(
        rules=AddressRules(hosts=(HOST, "other.example"), open_networks=LOOPBACK), max_bytes=200_000, timeout_s=5,
        tls=outside_tls(ca_file), resolve=resolve,
    )


def url(server: PictureServer, path: str = "/cat.png", host: str = HOST) -> str:
    return f"https://{host}:{server.port}{path}"


async def test_the_picture_comes_under_the_hosts_own_name(server: PictureServer, fetching: Fetching) -> None:
    server.answers["/cat.png?size=2"] = ok(b"the picture")
    assert await fetch_picture(url(server, "/cat.png?size=2"), fetching) == b"the picture"
    head = server.seen[0].lower()
    assert f"host: {HOST}:{server.port}" in head
    assert "accept-encoding: identity" in head
    assert "user-agent: stillmotion-images/1" in head
    assert "authorization" not in head
    assert "cookie" not in head


async def test_a_certificate_of_another_name_or_authority_is_not_believed(
    server: PictureServer, fetching: Fetching
) -> None:
    """The address alone proves nothing: whoever answers there must prove the name."""
    server.answers["/cat.png"] = ok(b"the picture")
    for address, changed in (
        (url(server, host="other.example"), fetching),
        (url(server), replace(fetching, tls=outside_tls())),
    ):
        with pytest.raises(FetchFailed) as failed:
            await fetch_picture(address, changed)
        assert failed.value.code == "image_url_unreachable"
    assert server.seen == []


async def test_addresses_that_are_not_public_are_not_called(server: PictureServer, fetching: Fetching) -> None:
    closed = replace(fetching, rules=replace(fetching.rules, open_networks=()))
    with pytest.raises(AddressRefused) as refused:
        await fetch_picture(url(server), closed)
    assert refused.value.code == "url_address_not_public"
    assert server.seen == []


async def test_a_name_is_resolved_once_and_what_it_says_a_moment_later_counts_for_nothing(
    server: PictureServer, fetching: Fetching
) -> None:
    """DNS rebinding: first a public address, then one inside."""
    answers = [["127.0.0.1"], ["169.254.169.254"]]

    async def resolve(_: str, __: int) -> list[str]:
        return answers.pop(0)

    server.answers["/cat.png"] = ok(b"the picture")
    assert await fetch_picture(url(server), replace(fetching, resolve=resolve)) == b"the picture"
    assert len(answers) == 1


async def test_every_address_of_a_name_has_its_turn(server: PictureServer, fetching: Fetching) -> None:
    """The first ones answer nobody, as IPv6 does in many networks; 8,192 characters of signed query are an address."""

    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.77", "127.0.0.78", "127.0.0.1"]

    path = "/cat.png?signature="
    path += "a" * (8192 - len(url(server, path)))
    server.answers[path] = ok(b"the picture")
    assert await fetch_picture(url(server, path), replace(fetching, resolve=resolve)) == b"the picture"
    server.answers["/gone"] = b"HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(FetchFailed) as failed:
        await fetch_picture(url(server, "/gone"), replace(fetching, resolve=resolve))
    assert failed.value.code == "image_url_no_picture"
    assert len(server.seen) == 2, "an answer is an answer: the other addresses are not asked too"


@pytest.mark.parametrize(("answer", "code"), {
    "redirect": (b"HTTP/1.1 302 F\r\nLocation: https://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
                 "image_url_redirects"),
    "not found": (b"HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n", "image_url_no_picture"),
    "partial": (b"HTTP/1.1 206 P\r\nContent-Length: 1\r\n\r\nx", "image_url_no_picture"),
    "compressed": (ok(b"\x1f\x8b", "Content-Encoding: gzip"), "image_url_no_picture"),
    "too large": (ok(bytes(300_000)), "image_too_many_bytes"),
    "too large, in chunks": (b"HTTP/1.1 200 O\r\nTransfer-Encoding: chunked\r\n\r\n"
                             + b"10000\r\n" + bytes(65536) + b"\r\n" + 4 * (b"10000\r\n" + bytes(65536) + b"\r\n"),
                             "image_too_many_bytes"),
    "declares less than it sends": (b"HTTP/1.1 200 O\r\nContent-Length: 9\r\n\r\nshort", "image_url_unreachable"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "image_url_unreachable"),
    "endless headers": (b"HTTP/1.1 200 O\r\n" + b"X-A: b\r\n" * 200_000, "image_url_unreachable"),
}.values(), ids=lambda value: value if isinstance(value, str) else "")
async def test_what_is_no_plain_picture_is_not_taken(
    server: PictureServer, fetching: Fetching, answer: bytes, code: str
) -> None:
    server.answers["/cat.png"] = answer
    with pytest.raises(FetchFailed) as failed:
        await fetch_picture(url(server), fetching)
    assert failed.value.code == code
    assert len(server.seen) == 1, "asked once, and nobody else"


async def test_a_slow_server_costs_the_deadline_and_no_more(server: PictureServer, fetching: Fetching) -> None:
    """Every chunk comes in time; all of them together do not."""
    server.answers["/cat.png"] = ok(bytes(190_000))
    server.drip_s = 0.3
    started = time.monotonic()
    with pytest.raises(FetchFailed) as failed:
        await fetch_picture(url(server), replace(fetching, timeout_s=0.4))
    assert failed.value.code == "image_url_too_slow"
    assert time.monotonic() - started < 20


async def test_generate_takes_a_picture_by_address_only_where_its_host_is_allowed(
    tmp_path: Path, services: Services, server: PictureServer, authority: trustme.CA, picture: Callable[..., bytes]
) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    local = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    address = f"https://localhost:{local.sockets[0].getsockname()[1]}"
    server.answers |= {"/cat.png": ok(picture()), "/text": ok(b"<html>no picture</html>")}
    allowed = gateway_settings(
        tmp_path / "data", services, image_url_hosts="localhost", open_networks="127.0.0.0/8,::1/128", ca_file=ca_file
    )
    async with local, open_client(allowed) as client:
        made = await client.post("/generate", json={"image": f"{address}/cat.png"})
        assert made.status_code == 202, made.text
        job = await until(client, made.json()["id"], lambda job: job["state"] == "completed")
        assert services.script.requests[job["id"]].image is not None
        form = await client.post("/generate", files={"image": (None, f"{address}/cat.png")})
        assert form.status_code == 202
        before = left_behind(tmp_path / "data")
        for wrong, code in ((f"{address}/text", "image_format_unsupported"), (f"{address}/no", "image_url_no_picture"),
                            ("https://evil.example/a.png", "url_host_not_allowed")):
            refused = await client.post("/generate", json={"image": wrong})
            assert 400 <= refused.status_code < 500
            assert json.loads(refused.text)["code"] == code
        openai = await client.post(
            "/v1/videos", json={"prompt": "a kite", "input_reference": {"image_url": "http://localhost/a.png"}}
        )
        assert (openai.status_code, openai.json()["error"]["code"]) == (400, "url_scheme_not_allowed")
        for told, status, code in ((f"{address}/cat.png", 200, None),
                                   ("https://evil.example/a.png", 400, "url_host_not_allowed")):
            content = [{"type": "image_url", "image_url": {"url": told}}]
            chat = await client.post(
                "/v1/chat/completions", json={"model": "tiny-vl", "messages": [{"role": "user", "content": content}]})
            assert (chat.status_code, chat.json().get("error", {}).get("code")) == (status, code)
        for told, status in (("cat.png", 200), ("text", 415)):
            asked = {"tasks": [{"kind": "caption"}], "image": f"{address}/{told}"}
            described = await client.post("/v1/describe", json=asked)
            assert described.status_code == status, described.text
        [talked] = services.script.chat_calls
        assert talked.pictures[0].startswith((b"\x89PNG", b"\xff\xd8"))
        await until(client, form.json()["id"], lambda job: job["state"] == "completed")
        assert {name.split("/")[0] for name in left_behind(tmp_path / "data")} >= {n.split("/")[0] for n in before}
    async with open_client(gateway_settings(tmp_path / "closed", services)) as client:
        off = await client.post("/generate", json={"image": f"{address}/cat.png"})
        assert (off.status_code, off.json()["code"]) == (422, "image_url_not_allowed")
        assert left_behind(tmp_path / "closed") == []
