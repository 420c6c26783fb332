"""Damaged files of every format: an image or a refusal, never another exception; and metadata never decides."""

import random
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from gateway.submit.images.check import TooHeavy, check_image
from gateway.submit.images.decode import read_source
from gateway.submit.images.formats import format_of
from gateway.submit.images.refusals import ImageRefused
from tests.unit.gateway.submit.images.samples import HEIC, LIMITS, chunk, encoded, exif, icc, with_chunks, with_segment

PHOTO = Image.merge("RGB", [Image.effect_noise((120, 90), 60) for _ in range(3)])
TOLD = {"exif": b"Exif\0\0" + exif(6, (0x0213, 3, 1, b"\1\0\0\0")), "icc_profile": icc("Display P3", "srgb")}
SEEDS: dict[str, bytes] = {
    "png": encoded(PHOTO, "PNG", **TOLD), "palette": encoded(PHOTO.quantize(9), "PNG", transparency=3),
    "16-bit": encoded(Image.new("I;16", (80, 70), 999), "PNG"), "rgba": encoded(PHOTO.convert("RGBA"), "PNG"),
    "jpeg": encoded(PHOTO, "JPEG", **TOLD), "progressive": encoded(PHOTO, "JPEG", progressive=True),
    "cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"), "webp": encoded(PHOTO, "WEBP", **TOLD),
    "webp lossless": encoded(PHOTO.convert("RGBA"), "WEBP", lossless=True), "avif": encoded(PHOTO, "AVIF", **TOLD),
    "heic": HEIC, "gif": encoded(PHOTO.quantize(9), "GIF"), "bmp": encoded(PHOTO, "BMP"),
    "tiff": encoded(PHOTO, "TIFF", **TOLD), "tiff lzw": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
    "tiff jpeg": encoded(PHOTO, "TIFF", compression="jpeg"),
    "tiff ycbcr": encoded(PHOTO.convert("YCbCr"), "TIFF", compression="tiff_lzw"),
}
Mutation = Callable[[random.Random, bytearray], bytes]


def flip(chance: random.Random, data: bytearray) -> bytes:
    """Some bytes become others; near the start more often, where the headers are."""
    for _ in range(chance.choice((1, 1, 2, 8, 40))):
        end = len(data) if chance.random() < 0.5 else min(len(data), 600)
        data[chance.randrange(4, end)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return bytes(data)


def cut(chance: random.Random, data: bytearray) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def drop(chance: random.Random, data: bytearray) -> bytes:
    at = chance.randrange(4, len(data))
    return bytes(data[:at] + data[at + chance.choice((1, 2, 4, 12, 100)) :])


def repeat(chance: random.Random, data: bytearray) -> bytes:
    at, length = chance.randrange(len(data)), chance.choice((1, 4, 12, 100, 1000))
    return bytes(data[:at] + data[at : at + length] * chance.choice((2, 3, 20)) + data[at + length :])


def splice(chance: random.Random, data: bytearray) -> bytes:
    other = chance.choice(list(SEEDS.values()))
    return bytes(data[: chance.randrange(4, len(data))]) + other[chance.randrange(len(other)) :]


def number(chance: random.Random, data: bytearray) -> bytes:
    """A length, a size or an offset becomes an extreme one."""
    size = chance.choice((2, 4))
    at = chance.randrange(4, min(len(data), 900) - size)
    value = chance.choice((0, 1, 2**15, 2 ** (8 * size) - 1, 2 ** (8 * size - 1) - 1, len(data)))
    data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, chance.choice(("little", "big")))
    return bytes(data)


def resealed(chance: random.Random, data: bytearray) -> bytes:
    """A PNG whose chunks were damaged and carry the right checksum all the same."""
    if data[:4] != b"\x89PNG":
        return number(chance, data)
    out, at = bytes(data[:8]), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        body = data[at + 8 : at + 8 + length]
        if body and chance.random() < 0.5:
            body[chance.randrange(len(body))] = chance.randrange(256)
        out += chunk(bytes(data[at + 4 : at + 8]), bytes(body))
        at += 12 + length
    return out


MUTATIONS: tuple[Mutation, ...] = (flip, flip, cut, drop, repeat, splice, number, resealed)


def answers(seed: int) -> str:
    """What becomes of one damaged file; anything but an image or a refusal goes through."""
    chance = random.Random(seed)
    data = bytearray(SEEDS[chance.choice(list(SEEDS))])
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        data = bytearray(chance.choice(MUTATIONS)(chance, data)) or bytearray(8)
        if len(data) < 32:
            break
    try:
        read_source(bytes(data), format_of(bytes(data)))  # our own readers, without the net that is under decoders
        check_image(bytes(data), LIMITS, light=True)
    except ImageRefused as refused:
        return refused.code
    except TooHeavy:
        return "heavy"
    return "taken"


def odd_metadata(chance: random.Random) -> bytes:
    """A sound image beside metadata of random bytes, or of damaged ones."""
    noise = chance.randbytes(chance.choice((0, 1, 7, 30, 500)))
    told = bytearray(exif(chance.randrange(12), (0x8769, 4, 1, noise[:4].ljust(4, b"\0"))))
    told[chance.randrange(len(told))] = chance.randrange(256)
    body = chance.choice((noise, bytes(told), bytes(told[: chance.randrange(len(told))])))
    profile = bytearray(icc("Display P3", "srgb"))
    for _ in range(chance.choice((1, 20))):
        profile[chance.randrange(len(profile))] = chance.randrange(256)
    return chance.choice((_odd_jpeg, _odd_png, _odd_png, _odd_other))(chance, body, bytes(profile))


def _odd_jpeg(chance: random.Random, body: bytes, profile: bytes) -> bytes:
    marker = chance.choice((0xE1, 0xE1, 0xE2, 0xE3, 0xEB, 0xED, 0xFE))
    named = chance.choice((b"Exif\0\0", b"ICC_PROFILE\0\1\1", b"MPF\0", b"http://ns.adobe.com/xap/1.0/\0", b""))
    return with_segment(SEEDS["jpeg"], marker, named + chance.choice((body, profile)))


def _odd_png(chance: random.Random, body: bytes, profile: bytes) -> bytes:
    kind = chance.choice((b"eXIf", b"iCCP", b"gAMA", b"cHRM", b"cICP", b"sRGB", b"zTXt", b"iTXt", b"tEXt", b"pHYs",
                          b"sBIT", b"bKGD", b"tIME", b"hIST", b"sPLT", b"caBX", b"npTc"))
    packed = b"x\0\0" + zlib.compress(profile)
    numbers = struct.pack(">8I", *(chance.randrange(200_000) for _ in range(8)))
    piece = chunk(kind, chance.choice((body, packed, packed[:-3], numbers)))
    return with_chunks(SEEDS["rgba"], piece if chance.random() < 0.8 else piece[:-1] + b"?")


def _odd_other(chance: random.Random, body: bytes, profile: bytes) -> bytes:
    kind = chance.choice(("WEBP", "AVIF", "GIF", "TIFF"))
    if kind == "GIF":
        return encoded(PHOTO.quantize(9), "GIF", comment=body or b"x")
    if kind == "WEBP":
        return encoded(PHOTO, "WEBP", exif=b"Exif\0\0" + body, icc_profile=profile, xmp=body)
    if kind == "AVIF":
        at = SEEDS["avif"].rindex(b"Exif\0\0") + 6
        return SEEDS["avif"][:at] + body[:18].ljust(18, b"\xff") + SEEDS["avif"][at + 18 :]
    data = bytearray(encoded(PHOTO, "TIFF", icc_profile=profile, tiffinfo={0x010E: "a", 0x0132: "2026"}))
    at = data.index(struct.pack("<HHL", *chance.choice(((0x010E, 2, 2), (0x0132, 2, 5)))))
    data[at + 2 : at + 12] = struct.pack(
        "<HLL", chance.randrange(16), chance.choice((0, 1, 2, 99, 2**31)), chance.choice((0, 8, 2**31, 2**32 - 1)))
    return bytes(data)


pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # of what is damaged


def run(mutations: int, odd: int, first: int = 0) -> dict[str, int]:
    seen: dict[str, int] = {}
    for seed in range(first, first + mutations):
        answer = answers(seed)
        seen[answer] = seen.get(answer, 0) + 1
    for seed in range(first, first + odd):
        check_image(odd_metadata(random.Random(seed)), LIMITS)
    return seen


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_is_sound(name: str) -> None:
    if name == "heic":
        pytest.importorskip("pi_heif")
    assert format_of(SEEDS[name])
    check_image(SEEDS[name], LIMITS)


def test_damaged_files_are_images_or_refusals_and_odd_metadata_refuses_none() -> None:
    seen = run(500, 300)
    assert {"taken", "image_unreadable", "image_truncated"} <= seen.keys()


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_twenty_thousand_of_them() -> None:
    seen = run(16_000, 4_000, first=1_000_000)
    print(seen)
    assert sum(seen.values()) == 16_000
