"""Facts measured on pictures made so that the facts are known."""

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage.data import chelsea

from tests.unit.vl_service.scenes import landscape, plain, spotted
from vl_service.embedded.vision.colours import known_colours
from vl_service.embedded.vision.facts import ImageFacts, measure_facts


def facts(picture: Image.Image) -> ImageFacts:
    return measure_facts(picture, width=picture.width, height=picture.height)


@pytest.mark.parametrize(("rgb", "name"), [
    ((0, 0, 0), "black"), ((255, 255, 255), "white"), ((128, 128, 128), "grey"), ((220, 20, 20), "red"),
    ((250, 140, 20), "orange"), ((120, 75, 40), "brown"), ((220, 200, 165), "beige"), ((250, 230, 40), "yellow"),
    ((40, 160, 50), "green"), ((30, 80, 200), "blue"), ((15, 25, 70), "dark blue"), ((130, 200, 235), "light blue"),
    ((120, 40, 160), "purple"), ((240, 150, 180), "pink"), ((0, 140, 140), "teal"), ((90, 20, 20), "dark red"),
])
def test_a_plain_picture_has_the_colour_that_people_call_it(rgb: tuple[int, int, int], name: str) -> None:
    palette = facts(plain(colour=rgb)).palette
    assert [(colour.name, colour.share) for colour in palette] == [(name, 1.0)]


def test_palette_shares_are_the_areas() -> None:
    picture = plain(200, 100, (255, 255, 255))
    picture.paste((220, 20, 20), (0, 0, 60, 100))
    shares = {colour.name: colour.share for colour in facts(picture).palette}
    assert shares == pytest.approx({"white": 0.7, "red": 0.3}, abs=0.02)


def test_brightness_rises_with_the_grey_level_from_black_to_white() -> None:
    levels = [facts(plain(colour=(value, value, value))).brightness for value in (0, 64, 128, 192, 255)]
    assert levels == sorted(levels)
    assert levels[0] == pytest.approx(0, abs=0.01)
    assert levels[-1] == pytest.approx(1, abs=0.01)


def test_contrast_is_none_on_a_plain_picture_and_full_on_black_and_white() -> None:
    half = plain(colour=(0, 0, 0))
    half.paste((255, 255, 255), (0, 0, half.width // 2, half.height))
    assert facts(plain()).contrast == pytest.approx(0, abs=0.01)
    assert facts(half).contrast == pytest.approx(1, abs=0.01)


def test_grey_has_no_colourfulness_and_warmth_tells_orange_from_blue() -> None:
    assert facts(plain(colour=(90, 90, 90))).colourfulness < 0.01
    assert facts(plain(colour=(230, 140, 60))).warmth > 0.3
    assert facts(plain(colour=(60, 90, 220))).warmth < -0.3


def test_sharpness_falls_with_every_blur() -> None:
    sharp = Image.fromarray(chelsea())
    values = [facts(sharp.filter(ImageFilter.GaussianBlur(radius))).sharpness for radius in (0, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 4 * values[-1]


@pytest.mark.parametrize("height", [0.3, 0.5, 0.7])
def test_the_horizon_is_found_where_it_is(height: float) -> None:
    assert facts(landscape(horizon=height)).layout.horizon == pytest.approx(height, abs=0.03)


def test_a_step_from_left_to_right_is_no_horizon_nor_are_rows_of_bricks() -> None:
    assert facts(landscape().rotate(90, expand=True)).layout.horizon is None
    rng = np.random.default_rng(1)
    bricks = np.repeat(np.repeat(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), 20, 0), 20, 1)
    assert facts(Image.fromarray(bricks)).layout.horizon is None


@pytest.mark.parametrize(("x", "y"), [(0.2, 0.2), (0.8, 0.3), (0.5, 0.5), (0.3, 0.8)])
def test_detail_is_where_the_only_pattern_is(x: float, y: float) -> None:
    layout = facts(spotted(x, y)).layout
    assert (layout.detail_x, layout.detail_y) == pytest.approx((x, y), abs=0.08)
    assert layout.detail_area < 0.25


def test_sky_is_the_even_blue_above_and_nothing_else() -> None:
    assert facts(landscape(horizon=0.4)).layout.sky == pytest.approx(0.4, abs=0.03)
    assert facts(landscape(horizon=0.4).rotate(180)).layout.sky == 0
    assert facts(plain(colour=(255, 255, 255))).layout.sky == 0  # paper, not a bright sky


def test_greenery_is_the_share_of_green() -> None:
    assert facts(landscape(horizon=0.4)).layout.greenery == pytest.approx(0.6, abs=0.03)


def test_water_is_blue_ground_with_level_streaks() -> None:
    rows = np.random.default_rng(2).integers(-25, 25, (80, 1, 1))
    ripples = np.clip(np.array([50, 90, 150]) + rows + np.zeros((80, 240, 1)), 0, 255).astype(np.uint8)
    above = np.full((80, 240, 3), (230, 210, 180), dtype=np.uint8)
    picture = Image.fromarray(np.concatenate([above, ripples]))
    assert facts(picture).layout.water > 0.3
    assert facts(picture.rotate(90, expand=True)).layout.water == 0


def test_a_studio_backdrop_is_named_and_a_picture_to_the_edge_has_none() -> None:
    studio = plain(200, 200, (250, 250, 250))
    studio.paste((200, 30, 30), (60, 60, 140, 140))
    assert facts(studio).layout.backdrop == "white"
    assert facts(landscape()).layout.backdrop is None


def test_every_colour_has_a_chinese_name_of_its_own() -> None:
    names = known_colours()
    assert len(set(names.values())) == len(names) >= 20


@pytest.mark.parametrize("size", [(16, 16), (16, 320), (320, 16), (1, 1)])
def test_odd_sizes_are_measured_without_failing(size: tuple[int, int]) -> None:
    assert facts(plain(*size)).palette[0].share == 1.0
