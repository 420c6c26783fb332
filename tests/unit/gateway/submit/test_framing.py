"""The clip shows the picture whole where nobody asked otherwise; where it does not, the job says so."""

from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.jobs import GenerateOptions
from contracts.sizes import NOTICED, cut_in_words, share_cut, whole_size
from gateway.submit.accept import framing_warnings, resolve
from tests.unit.gateway.model_services import VIDEO_MODEL, VL_MODEL

SMALL = ((256, 192), (192, 256), (192, 192))
WAN = ((832, 480), (480, 832))
BUILT = VIDEO_MODEL.model_copy(update={"sizes": ["256x192"], "clips": ["256x192x25"]})


@pytest.mark.parametrize(
    ("image", "recommended", "size"),
    [
        ((4080, 3060), SMALL, (256, 192)), ((3060, 4080), SMALL, (192, 256)), ((2048, 2048), SMALL, (192, 192)),
        ((1920, 1080), SMALL, (288, 160)), ((3000, 2000), SMALL, (240, 160)), ((1080, 1920), SMALL, (160, 288)),
        ((1920, 1080), WAN, (832, 480)), ((4080, 3060), WAN, (720, 544)), ((2048, 2048), WAN, (624, 624)),
        ((4000, 1000), WAN, (1216, 304)),
    ],
)
def test_a_phones_picture_is_shown_whole(
    image: tuple[int, int], recommended: tuple[tuple[int, int], ...], size: tuple[int, int]
) -> None:
    assert whole_size(image, recommended, 16, 64, 832 * 480) == size


@given(width=st.integers(64, 4096), height=st.integers(64, 4096))
def test_the_size_is_always_legal_and_never_cuts_more_than_a_recommended_one(width: int, height: int) -> None:
    image = (width, height)
    got = whole_size(image, SMALL, 16, 64, 65536)
    assert got[0] % 16 == got[1] % 16 == 0
    assert min(got) >= 64
    assert got[0] * got[1] <= 65536
    best = min(share_cut(image, size) for size in SMALL)
    assert share_cut(image, got) <= max(best, NOTICED)
    if max(image) <= 4 * min(image):
        assert share_cut(image, got) < 0.05


def test_what_is_cut_is_said_with_the_size_that_shows_it() -> None:
    videos, image = [VIDEO_MODEL], (1920, 1080)
    asked = resolve(GenerateOptions(size="256x192"), videos, [VL_MODEL], image)
    (said,) = framing_warnings(asked, videos, image)
    assert said == (
        "256x192 shows the picture without 25% of its width (left and right): `size` 288x160 shows all of it.")
    for options, size in ((GenerateOptions(), image), (GenerateOptions(prompt="a kite"), None)):
        assert framing_warnings(resolve(options, videos, [VL_MODEL], size), videos, size) == ()
    assert cut_in_words((100, 200), (192, 192), (192, 192)) == (
        "192x192 shows the picture without 50% of its height (top and bottom).")


def test_where_only_built_clips_are_rendered_the_cut_is_said_and_no_other_size_is_named() -> None:
    asked = resolve(GenerateOptions(), [BUILT], [VL_MODEL], (1920, 1080))
    assert (asked.width, asked.height) == (256, 192)
    (said,) = framing_warnings(asked, [BUILT], (1920, 1080))
    assert said.endswith("(left and right).")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_job_says_what_its_clip_leaves_out(client: httpx.AsyncClient, picture: Callable[..., bytes]) -> None:
    files = {"image": ("a.png", picture(1280, 720))}
    cut = (await client.post("/generate", files=files, data={"size": "192x192"})).json()
    assert any("44% of its width" in warning for warning in cut["warnings"])
    whole = (await client.post("/generate", files=files)).json()
    assert whole["warnings"] == []
    assert (whole["parameters"]["width"], whole["parameters"]["height"]) == (288, 160)
