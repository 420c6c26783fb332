"""From the base64 of a request to the first frame."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from video_service.layers.pixels import picture_tensor
from video_service.media.image import PictureUnreadable, fit_picture, read_picture


def as_base64(picture: Image.Image, kind: str = "PNG", **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_picture_is_cropped_at_the_centre_and_never_stretched() -> None:
    """Of three equal vertical stripes, a square crop of a 3:1 picture keeps the middle one."""
    pixels = np.zeros((60, 180, 3), dtype=np.uint8)
    pixels[:, :60, 0], pixels[:, 60:120, 1], pixels[:, 120:, 2] = 255, 255, 255
    fitted = np.array(fit_picture(Image.fromarray(pixels), 64, 64))
    assert fitted.shape == (64, 64, 3)
    assert (fitted[:, 4:-4, 1] > 250).all()
    assert (fitted[:, 4:-4, [0, 2]] < 5).all()


def test_a_picture_of_the_right_size_is_left_alone(picture: Image.Image) -> None:
    assert np.array_equal(np.array(fit_picture(picture, 64, 64)), np.array(picture))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_goes_onto_white(kind: str) -> None:
    read = read_picture(as_base64(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), kind))
    assert (read.mode, read.getpixel((4, 4))) == ("RGB", (255, 255, 255))


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    assert read_picture(as_base64(Image.new("RGB", (20, 10)), "JPEG", exif=exif)).size == (10, 20)


@pytest.mark.parametrize(
    ("data", "reason"),
    [("***", "base64"), (base64.b64encode(b"words").decode(), "PNG, JPEG or WebP"),
     (as_base64(Image.new("RGB", (4, 4)), "GIF"), "PNG, JPEG or WebP"),
     (as_base64(Image.effect_noise((64, 64), 50))[:2000], "truncated"),
     (as_base64(Image.new("1", (8000, 8000))), "pixels")],
)
def test_what_is_no_usable_picture_is_refused_with_the_reason(data: str, reason: str) -> None:
    with pytest.raises(PictureUnreadable, match=reason):
        read_picture(data)


def test_pixels_span_minus_one_to_one() -> None:
    tensor = picture_tensor(Image.fromarray(np.array([[[0, 255, 128]]], dtype=np.uint8)))
    assert tensor.shape == (3, 1, 1)
    assert tensor.flatten().tolist() == pytest.approx([-1.0, 1.0, 128 / 127.5 - 1], abs=1e-6)
