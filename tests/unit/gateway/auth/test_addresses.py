"""Addresses on a caller's word: refused unasked, refused once resolved, and what the call is bound to."""

import ipaddress
from collections.abc import Awaitable, Callable

import httpx
import pytest

from gateway.auth.addresses import (
    AddressRefused,
    AddressRules,
    Target,
    may_call,
    outside_client,
    outside_tls,
    pin,
    read_url,
)

RULES = AddressRules(hosts=("pictures.example", "*.cdn.example"), ports=frozenset({443}))

HOSTILE_URLS = {
    "another scheme": ("http://pictures.example/a.png", "url_scheme_not_allowed"),
    "a file": ("file:///etc/passwd", "url_scheme_not_allowed"),
    "gopher": ("gopher://pictures.example/_x", "url_scheme_not_allowed"),
    "no scheme": ("//pictures.example/a.png", "url_scheme_not_allowed"),
    "no host": ("https:///a.png", "url_unreadable"),
    "credentials": ("https://pictures.example@evil.example/", "url_with_credentials"),
    "password": ("https://a:b@pictures.example/", "url_with_credentials"),
    "empty credentials": ("https://@pictures.example/", "url_with_credentials"),
    "backslash": ("https://pictures.example\\@evil.example/", "url_not_plain"),
    "newline": ("https://pictures.example/\r\nX-Evil: 1", "url_not_plain"),
    "tab in the host": ("https://pictures\t.example/", "url_not_plain"),
    "space": ("https://pictures.example/a b", "url_not_plain"),
    "look-alike letters": ("https://рictures.example/", "url_not_plain"),
    "full-width dot": ("https://127\uff0e0.0.1/", "url_not_plain"),
    "another port": ("https://pictures.example:22/", "url_port_not_allowed"),
    "port zero": ("https://pictures.example:0/", "url_port_not_allowed"),
    "port too large": ("https://pictures.example:70000/", "url_unreadable"),
    "port no number": ("https://pictures.example:4a/", "url_unreadable"),
    "another host": ("https://evil.example/", "url_host_not_allowed"),
    "a host that ends alike": ("https://evilpictures.example/", "url_host_not_allowed"),
    "a host that begins alike": ("https://pictures.example.evil.example/", "url_host_not_allowed"),
    "the pattern's own domain": ("https://cdn.example/", "url_host_not_allowed"),
    "an address": ("https://93.184.216.34/", "url_host_not_allowed"),
    "one number": ("https://2130706433/", "url_unreadable"),
    "short dotted": ("https://127.1/", "url_unreadable"),
    "octal": ("https://0177.0.0.1/", "url_unreadable"),
    "hexadecimal": ("https://0x7f000001/", "url_unreadable"),
    "percent in the host": ("https://%6c%6f.example/", "url_unreadable"),
    "zone id": ("https://[fe80::1%25eth0]/", "url_unreadable"),
    "broken brackets": ("https://[::1/", "url_unreadable"),
    "too long": ("https://pictures.example/" + "a" * 8192, "url_too_long"),
    "empty": ("", "url_scheme_not_allowed"),
}

NOT_PUBLIC = [
    "0.0.0.0", "10.0.0.1", "10.255.255.255", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1",
    "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
    "2002:7f00:1::", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
]
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "192.0.1.1", "2606:4700:4700::1111", "2a00:1450:4001::1",
]


def answering(*addresses: str) -> Callable[[str, int], Awaitable[list[str]]]:
    async def resolve(_: str, __: int) -> list[str]:
        return list(addresses)

    return resolve


@pytest.mark.parametrize(("url", "code"), HOSTILE_URLS.values(), ids=HOSTILE_URLS.keys())
def test_a_hostile_url_is_refused_before_anybody_is_asked(url: str, code: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        read_url(url, RULES)
    assert refused.value.code == code
    assert refused.value.detail


def test_an_allowed_url_is_taken_apart() -> None:
    assert read_url("HTTPS://Pictures.Example./a%20b.png?x=1#top", RULES) == Target(
        scheme="https", host="pictures.example", port=443, path="/a%20b.png?x=1"
    )
    assert read_url("https://eu.cdn.example", RULES).path == "/"


@pytest.mark.parametrize("address", NOT_PUBLIC)
async def test_a_name_that_leads_to_an_address_that_is_not_public_is_refused(address: str) -> None:
    """Also where it is one of several: the next look-up might give that one alone."""
    target = read_url("https://pictures.example/", RULES)
    for answers in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        with pytest.raises(AddressRefused) as refused:
            await pin(target, RULES, answering(*answers))
        assert refused.value.code == "url_address_not_public"
        assert address not in refused.value.detail, "nobody learns from us what lies inside"


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_called(address: str) -> None:
    assert may_call(ipaddress.ip_address(address), RULES)


async def test_a_network_that_the_operator_opened_may_be_called_and_no_other() -> None:
    rules = AddressRules(open_networks=(ipaddress.ip_network("10.1.0.0/16"),))
    target = read_url("https://hooks.internal/", rules)
    assert [str(place.address) for place in await pin(target, rules, answering("10.1.2.3"))] == ["10.1.2.3"]
    with pytest.raises(AddressRefused):
        await pin(target, rules, answering("10.2.2.3"))


async def test_the_call_goes_to_the_checked_address_under_the_name_of_the_host() -> None:
    """A second look-up would be free to lie: there is none."""
    asked: list[str] = []

    async def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["2606:4700:4700::1111", "8.8.8.8"]

    rules = AddressRules(ports=frozenset({443, 8443}))
    pinned = await pin(read_url("https://pictures.example:8443/a.png?x=1", rules), rules, resolve)
    async with outside_client(timeout=httpx.Timeout(1), tls=outside_tls()) as client:
        requests = [
            place.request(client, "GET", headers={"Host": "evil.example", "Accept": "image/*"}) for place in pinned
        ]
    assert asked == ["pictures.example"]
    request = requests[0]
    assert [str(each.url) for each in requests] == [
        "https://[2606:4700:4700::1111]:8443/a.png?x=1", "https://8.8.8.8:8443/a.png?x=1"
    ]
    assert request.headers.get_list("Host") == ["pictures.example:8443"]
    assert request.extensions["sni_hostname"] == "pictures.example"


async def test_a_name_without_an_address_is_refused() -> None:
    async def resolve(_: str, __: int) -> list[str]:
        raise OSError("no such name")

    target = read_url("https://pictures.example/", RULES)
    for answer in (resolve, answering()):
        with pytest.raises(AddressRefused) as refused:
            await pin(target, RULES, answer)
        assert refused.value.code == "url_host_unknown"
