"""From the image of a request to the first frame."""

import numpy as np
import pytest
from PIL import Image

from video_service.layers.pixels import picture_tensor
from web.worker.image import fit_picture


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


def test_pixels_span_minus_one_to_one() -> None:
    tensor = picture_tensor(Image.fromarray(np.array([[[0, 255, 128]]], dtype=np.uint8)))
    assert tensor.shape == (3, 1, 1)
    assert tensor.flatten().tolist() == pytest.approx([-1.0, 1.0, 128 / 127.5 - 1], abs=1e-6)
