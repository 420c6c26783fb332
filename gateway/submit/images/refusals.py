"""Why an image is not taken."""

from typing import Final

from contracts.refusal import Refusal

ADVICE: Final = "Send one still PNG, JPEG, WebP, AVIF, HEIC, GIF, BMP or TIFF picture."


class ImageRefused(Refusal):
    """The bytes are no image that we take: a stable `code`, and in words what to do. Nothing was stored."""

    title = "The picture is not taken"

    def __init__(self, code: str, detail: str) -> None:
        status = {"image_too_many_bytes": 413, "image_format_unsupported": 415}.get(code, 422)
        super().__init__(detail, status=status, code=code, field="image")


class DecodersBusy(Refusal):
    """As many images wait for a decoder as may; nothing was decoded."""

    status, code, title = 503, "image_decoders_busy", "Too many pictures at once"

    def __init__(self) -> None:
        super().__init__("Other pictures wait to be checked: send the request again in 5 s.", retry_after_s=5)


def too_many_bytes(max_bytes: int) -> ImageRefused:
    """The refusal of a file above `max_bytes`."""
    return ImageRefused(
        "image_too_many_bytes", f"The picture is larger than {max_bytes / 2**20:g} MiB: make it smaller and resend."
    )


def too_many_pixels(most: int, width: int = 0, height: int = 0, kind: str = "") -> ImageRefused:
    """The refusal of more than `most` pixels, for its `kind` where that has a bound of its own."""
    given = f"is {width}x{height}, above" if width else "has more than"
    bound = f"the {most / 1e6:.3g} million pixels that a {kind} may have" if kind else f"{most / 1e6:g} million pixels"
    return ImageRefused("image_too_many_pixels", f"The picture {given} {bound}: scale it down and resend.")


def too_costly() -> ImageRefused:
    """The refusal of a file that takes its decoder far longer, or more memory, than its size explains."""
    return ImageRefused(
        "image_too_costly", "The picture takes too long or too much memory to decode: save it anew, then resend."
    )


def several_frames(kind: str) -> ImageRefused:
    """The refusal of an animation, or of a document of several pages."""
    return ImageRefused("image_animated", f"The {kind} has several frames: send a single still picture.")


def truncated() -> ImageRefused:
    """The refusal of a file whose end is missing."""
    return ImageRefused("image_truncated", "The picture breaks off before its end: upload the whole file again.")


def unreadable() -> ImageRefused:
    """The refusal of a file that its decoder does not understand."""
    return ImageRefused(
        "image_unreadable", "The picture's bytes are damaged: open and save it in a picture program, then resend."
    )


def unsupported(name: str) -> ImageRefused:
    """The refusal of something else than a picture of a format that is decoded here."""
    return ImageRefused("image_format_unsupported", f"This is {name}. {ADVICE}")
