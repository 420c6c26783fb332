"""An image's colours are those that a browser shows, whatever its file counts in.

What is right is worked out here from the definitions (primaries, curves, Bradford), or comes from littleCMS.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.unit.gateway.submit.images.samples import (
    PRIMARIES,
    Gamma,
    as_image,
    centre,
    checked,
    chunk,
    encoded,
    icc,
    noise,
    raw_png,
    shown,
    with_chunks,
)

SIZE = (96, 96)
COLOUR = (200, 60, 40)
FLAT = Image.new("RGB", SIZE, COLOUR)
PNG = encoded(FLAT, "PNG")
P3 = icc("Display P3", "srgb", "Display P3")
COLOUR_P3 = shown(COLOUR, "Display P3", "srgb")
WHITE = (255, 255, 255)


def profile_chunk(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))


def gamma_chunk(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def primaries_chunk(name: str) -> bytes:
    *rgb, white = PRIMARIES[name]
    return chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * value) for corner in (white, *rgb) for value in corner)))


def coding_chunk(primaries: int, transfer: int) -> bytes:
    return chunk(b"cICP", bytes((primaries, transfer, 0, 1)))


@pytest.mark.parametrize("colour", [(200, 100, 100), (90, 180, 120), (60, 60, 60), (3, 3, 3), (255, 255, 255)])
@pytest.mark.parametrize(
    ("primaries", "gamma", "name"),
    [("Display P3", "srgb", "Display P3"), ("Adobe RGB (1998)", 2.2, "Adobe RGB (1998)"),
     ("sRGB", 1.0, "GIMP built-in Linear sRGB"), ("sRGB", 1.0, "sRGB-elle-V2-g10.icc"), ("BT.2020", 2.4, "sRGB")],
)
def test_a_profile_means_what_it_holds_and_not_what_it_is_called(
    colour: tuple[int, int, int], primaries: str, gamma: Gamma, name: str
) -> None:
    right = pytest.approx(shown(colour, primaries, gamma), abs=3)
    profile = icc(primaries, gamma, name)
    for image in (Image.new("RGB", SIZE, colour), Image.new("RGBA", SIZE, (*colour, 255)),
                  Image.new("RGB", SIZE, colour).quantize(4)):
        assert centre(encoded(image, "PNG", icc_profile=profile)) == right, image.mode
    for kind, more in (("TIFF", {}), ("WEBP", {"lossless": True})):
        seen = centre(encoded(Image.new("RGB", SIZE, colour), kind, icc_profile=profile, **more))
        assert seen == pytest.approx(shown(colour, primaries, gamma), abs=4), kind


GREY_16 = np.full((96, 96, 1), 128 * 257)
COLOURS_16 = np.full((96, 96, 3), 0) + np.array(COLOUR) * 257
LINEAR_GREY = shown((128,) * 3, "sRGB", 1.0)


@pytest.mark.parametrize(("data", "right"), {
    "grey, linear profile": (encoded(Image.new("L", SIZE, 128), "PNG", icc_profile=icc(None, 1.0)), LINEAR_GREY),
    "grey and alpha, linear profile":
        (encoded(Image.new("LA", SIZE, (128, 255)), "PNG", icc_profile=icc(None, 1.0)), LINEAR_GREY),
    "16-bit grey, linear profile": (raw_png(GREY_16, 0, 16, profile_chunk(icc(None, 1.0))), LINEAR_GREY),
    "16-bit grey of 3/65535, linear profile: not black":
        (raw_png(GREY_16 * 0 + 100, 0, 16, profile_chunk(icc(None, 1.0))), (5, 5, 5)),
    "grey with a profile of colours": (encoded(Image.new("L", SIZE, 128), "PNG", icc_profile=icc("sRGB", 1.0)),
                                       LINEAR_GREY),
    "colours with a profile of greys: it says nothing":
        (with_chunks(PNG, profile_chunk(icc(None, 1.0))), COLOUR),
    "16-bit colours": (raw_png(COLOURS_16, 2, 16), COLOUR),
    "16-bit colours, profile": (raw_png(COLOURS_16, 2, 16, profile_chunk(P3)), COLOUR_P3),
    "16-bit grey": (raw_png(GREY_16, 0, 16), (128,) * 3),
    "grey of 2 bits": (raw_png(GREY_16 * 0 + 2, 0, 2), (170,) * 3),
    "colour key beside a profile": (encoded(FLAT, "PNG", icc_profile=P3, transparency=COLOUR), WHITE),
    "colour key of a grey": (raw_png(GREY_16 * 0 + 77, 0, 8, chunk(b"tRNS", b"\0\x4d")), WHITE),
    "colour key of a grey of 2 bits": (raw_png(GREY_16 * 0 + 2, 0, 2, chunk(b"tRNS", b"\0\2")), WHITE),
    "colour key of a grey of 1 bit": (raw_png(GREY_16 * 0, 0, 1, chunk(b"tRNS", b"\0\0")), WHITE),
    "colour key of a 16-bit grey": (raw_png(GREY_16 * 0 + 777, 0, 16, chunk(b"tRNS", b"\3\x09")), WHITE),
    "colour key of 16-bit colours":
        (raw_png(COLOURS_16, 2, 16, chunk(b"tRNS", struct.pack(">3H", *(257 * value for value in COLOUR)))), WHITE),
    "colour key of another colour": (with_chunks(PNG, chunk(b"tRNS", b"\0\1\0\2\0\3")), COLOUR),
    "palette with alpha": (encoded(Image.new("RGBA", SIZE, (9, 9, 9, 0)).quantize(4), "PNG"), WHITE),
    "GIF with a transparent colour": (encoded(FLAT.quantize(4), "GIF", transparency=FLAT.quantize(4).getpixel((0, 0))),
                                      WHITE),
    "half transparent, profile": (encoded(Image.new("RGBA", SIZE, (*COLOUR, 128)), "PNG", icc_profile=P3),
                                  tuple(255 + (value - 255) * 128 / 255 for value in COLOUR_P3)),
    "gAMA of linear light": (with_chunks(PNG, gamma_chunk(1)), shown(COLOUR, "sRGB", 1.0)),
    "gAMA as sRGB has it": (with_chunks(PNG, gamma_chunk(0.45455)), COLOUR),
    "gAMA and cHRM as sRGB has them": (with_chunks(PNG, gamma_chunk(0.45455), primaries_chunk("sRGB")), COLOUR),
    "cHRM alone": (with_chunks(PNG, primaries_chunk("Display P3")), COLOUR_P3),
    "gAMA and cHRM": (with_chunks(PNG, gamma_chunk(0.5), primaries_chunk("Adobe RGB (1998)")),
                      shown(COLOUR, "Adobe RGB (1998)", 2.0)),
    "gAMA of a grey": (raw_png(GREY_16, 0, 16, gamma_chunk(1)), LINEAR_GREY),
    "sRGB before gAMA": (with_chunks(PNG, chunk(b"sRGB", b"\0"), gamma_chunk(1)), COLOUR),
    "profile before gAMA": (with_chunks(PNG, profile_chunk(P3), gamma_chunk(1)), COLOUR_P3),
    "cICP before a profile": (with_chunks(PNG, coding_chunk(1, 13), profile_chunk(P3)), COLOUR),
    "cICP of Display P3": (with_chunks(PNG, coding_chunk(12, 13)), COLOUR_P3),
    "cICP of linear BT.2020": (with_chunks(PNG, coding_chunk(9, 8)), shown(COLOUR, "BT.2020", 1.0)),
    "cICP that says nothing": (with_chunks(PNG, coding_chunk(2, 2), profile_chunk(P3)), COLOUR_P3),
    "cHRM that spans nothing": (with_chunks(PNG, chunk(b"cHRM", bytes(32))), COLOUR),
    "a damaged profile": (encoded(FLAT, "PNG", icc_profile=b"no profile at all"), COLOUR),
    "a profile of no space": (encoded(FLAT, "PNG", icc_profile=P3[:16] + b"R\xfcB " + P3[20:]), COLOUR),
    "a profile of 1.5 MB": (encoded(FLAT, "PNG", icc_profile=icc("sRGB", "srgb") + bytes(1_500_000)), COLOUR),
}.values(), ids=lambda value: None)
def test_a_colour_is_shown_as_a_browser_shows_it(data: bytes, right: tuple[float, ...]) -> None:
    assert centre(data) == pytest.approx(right, abs=2)


INK = (20, 120, 200, 60)


def test_cmyk_photographs_are_inverted_as_adobe_writes_them() -> None:
    """Without a profile, (1 - C)(1 - K) and so on: what browsers compute."""
    data = encoded(Image.new("CMYK", SIZE, INK), "JPEG", quality=100, subsampling=0)
    right = [(255 - value) * (255 - INK[3]) / 255 for value in INK[:3]]
    assert centre(data) == pytest.approx(right, abs=4)
    # The same numbers marked as YCCK: inverted they are luminance and chroma, of which JFIF's formula makes C, M and Y.
    ycck = data.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2")
    assert ycck != data
    light, blue, red = 255 - INK[0], 127 - INK[1], 127 - INK[2]
    stored = np.clip([light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue], 0, 255)
    assert centre(ycck) == pytest.approx((255 - stored) * (255 - INK[3]) / 255, abs=4)


def test_a_lab_tiff_is_converted_as_littlecms_does() -> None:
    lab = ImageCms.applyTransform(FLAT, ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"))
    assert lab is not None
    assert centre(encoded(lab, "TIFF")) == pytest.approx(COLOUR, abs=3)


def test_a_gradient_through_a_profile_is_littlecms_own() -> None:
    """Every pixel of a noisy image, not one colour: the same transform, applied to the whole."""
    image = Image.merge("RGB", [Image.effect_noise(SIZE, 80) for _ in range(3)])
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc("Adobe RGB (1998)", 2.2)))
    right = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB",
                                      renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC)
    assert right is not None
    got = as_image(checked(encoded(image, "PNG", icc_profile=icc("Adobe RGB (1998)", 2.2))))
    assert np.abs(np.asarray(got, int) - np.asarray(right, int)).max() <= 1


@pytest.mark.parametrize("profile", [
    ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), icc("sRGB", "srgb"), None])
def test_an_image_in_srgb_keeps_every_number(profile: bytes | None) -> None:
    image = Image.merge("RGB", [Image.effect_noise(SIZE, 80) for _ in range(3)])
    kept = as_image(checked(encoded(image, "PNG", icc_profile=profile)))
    assert kept.tobytes() == image.tobytes()
    assert "icc_profile" not in kept.info


def test_what_is_brighter_than_white_is_bent_below_it_and_keeps_its_order() -> None:
    """PQ (BT.2100): 203 cd/m² is where diffuse white lies; light beyond it is still told apart."""
    levels = []
    for value in (80, 148, 180, 192):
        data = with_chunks(encoded(Image.new("RGB", SIZE, (value,) * 3), "PNG"), coding_chunk(9, 16))
        levels.append(centre(data)[0])
    assert levels == sorted(set(levels))
    assert levels[-1] <= 255


def test_an_avif_says_its_colours_in_its_boxes() -> None:
    """nclx: libavif writes (1, 13); with the primaries of Display P3 the same numbers are other colours."""
    data = encoded(FLAT, "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    wide = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert centre(data) == pytest.approx(COLOUR, abs=3)
    assert centre(wide) == pytest.approx(COLOUR_P3, abs=4)


def test_a_jpeg_keeps_its_profile_over_many_segments() -> None:
    data = noise(96, 96, "JPEG", quality=95, icc_profile=icc("Display P3", "srgb") + bytes(150_000))
    assert data.count(b"ICC_PROFILE\0") == 3
    assert as_image(checked(data)).size == SIZE
