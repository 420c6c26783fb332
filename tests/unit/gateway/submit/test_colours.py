"""A picture's colour profile is applied, not dropped: what is stored means the same colours in sRGB."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from gateway.submit.uploads import PictureLimits, check_picture

LIMITS = PictureLimits(max_bytes=2**20, max_pixels=10**6, stored_long_side=2048)
# Display P3 and sRGB primaries, adapted to D50, as columns: what their ICC profiles hold.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)


def display_p3() -> bytes:
    """An ICC profile (version 2, matrix and curves) of Display P3, with a gamma of 2.2 for its curve."""
    text = b"Display P3\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249),
        **{name: b"XYZ \0\0\0\0" + fixed(*P3[:, index]) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))},
        **{name: b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256)) for name in (b"rTRC", b"gTRC", b"bTRC")},
    }
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s12x4s24xI12s4s44x", offset + len(body), b"lcms", 0x02200000, b"mntr", b"RGB ",
                         b"XYZ ", b"acsp", 0, fixed(0.9642, 1.0, 0.8249), b"lcms")
    return header + struct.pack(">I", len(tags)) + table + body


def in_srgb(rgb: tuple[int, int, int]) -> list[float]:
    """The sRGB numbers of a Display P3 colour (gamma 2.2), by the definition of both."""
    linear = np.clip(np.linalg.inv(SRGB) @ P3 @ (np.array(rgb) / 255) ** 2.2, 0, 1)
    return list(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055))


def stored_colour(mode: str, colour: tuple[int, ...], profile: bytes | None, kind: str = "PNG") -> tuple[int, ...]:
    out = io.BytesIO()
    Image.new(mode, (80, 80), colour).save(out, kind, icc_profile=profile)
    kept = Image.open(io.BytesIO(check_picture(out.getvalue(), LIMITS).data))
    assert "icc_profile" not in kept.info
    pixel = kept.getpixel((40, 40))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize("colour", [(200, 100, 100), (90, 180, 120), (60, 60, 60)])
def test_display_p3_becomes_srgb(colour: tuple[int, int, int]) -> None:
    assert stored_colour("RGB", colour, display_p3()) == pytest.approx(in_srgb(colour), abs=2)
    assert stored_colour("RGBA", (*colour, 255), display_p3()) == pytest.approx(in_srgb(colour), abs=2)
    assert in_srgb((200, 100, 100))[0] > 205  # and that is another colour than the numbers alone would say


def test_srgb_a_damaged_profile_and_none_leave_the_numbers_as_they_are() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile at all", None):
        assert stored_colour("RGB", (200, 100, 50), profile) == (200, 100, 50)
