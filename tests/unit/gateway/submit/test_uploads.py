"""Images that come as text."""

import pytest

from gateway.submit.images.refusals import ImageRefused
from gateway.submit.picture_text import decode_text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("https://example.com/cat.png", "image_url_not_allowed"), ("http://169.254.169.254/", "image_url_not_allowed"),
        ("data:image/png,rawbytes", "image_not_base64"), ("not base64 at all!", "image_not_base64"),
        ("A" * 1000, "image_too_many_bytes"), ("data:image/png;base64," + "A" * 1000, "image_too_many_bytes"),
        ("QUJD=RA", "image_not_base64"),
    ],
)
def test_text_that_is_no_picture_in_base64_is_refused(text: str, code: str) -> None:
    limit = 100 if code == "image_too_many_bytes" else 10_000
    with pytest.raises(ImageRefused) as refused:
        decode_text(text * (20 if code == "image_too_many_bytes" else 1), limit)
    assert refused.value.code == code


def test_base64_may_be_wrapped_in_lines() -> None:
    assert decode_text("aGVs\nbG8=\r\n", 100) == b"hello"
    assert decode_text("DATA:image/png;base64,aGVsbG8=", 100) == b"hello"
