"""An image as the first frame of a video."""

from PIL import Image, ImageOps


def fit_picture(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale with Lanczos to cover `width` x `height`, then crop the centre."""
    return ImageOps.fit(picture, (width, height), method=Image.Resampling.LANCZOS, centering=(0.5, 0.5))
