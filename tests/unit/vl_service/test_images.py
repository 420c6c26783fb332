"""What the backends look at."""

import io

from PIL import Image

from vl_service.images import KEPT_PIXELS, DecodedImage


def test_what_is_kept_is_bounded_and_the_sent_size_is_reported() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4600, 3000), "blue").save(buffer, "JPEG")
    image = DecodedImage.of(buffer.getvalue())
    assert image.rgb.width * image.rgb.height <= KEPT_PIXELS
    assert (image.width, image.height) == (4600, 3000)
