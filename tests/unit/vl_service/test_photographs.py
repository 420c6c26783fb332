"""The embedded engine on real photographs."""

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.vl_service.scenes import prompt_task
from vl_service.embedded import EmbeddedEngine
from vl_service.engine import Deadline, DeadlineExceededError, Description
from vl_service.pictures import Picture
from vl_service.tower import ImageNetTower

Photograph = Callable[[str], Image.Image]


def describe(engine: EmbeddedEngine, image: Image.Image, seed: int = 0) -> Description:
    tasks = [prompt_task(kind=kind, language=language, seed=seed)
             for language in ("en", "zh") for kind in ("caption", "prompt", "edit_suggestion")]
    return engine.describe(Picture(rgb=image, width=image.width, height=image.height), tasks,
                           Deadline(at=time.monotonic() + 60))


@pytest.mark.parametrize(("name", "english", "chinese"), [
    ("chelsea", "A tabby cat in the centre of the picture.", "画面中央是一只虎斑猫。"),
    ("coffee", "A cup of espresso in the centre of the picture.", "画面中央是一杯浓缩咖啡。"),
])
def test_a_cat_and_a_coffee_are_named_surely(
    embedded_engine: EmbeddedEngine, photograph: Photograph, name: str, english: str, chinese: str
) -> None:
    answers = describe(embedded_engine, photograph(name)).answers
    assert answers[0].text.startswith(english)
    assert answers[3].text.startswith(chinese)
    assert answers[0].confidence is not None
    assert answers[0].confidence > 0.7


@pytest.mark.parametrize("name", ["rocket", "astronaut"])
def test_what_the_tower_does_not_know_is_called_unsure(
    embedded_engine: EmbeddedEngine, photograph: Photograph, name: str
) -> None:
    described = describe(embedded_engine, photograph(name))
    assert described.answers[0].text.startswith("I am unsure what this picture shows; perhaps a")
    assert described.answers[3].text.startswith("不确定")
    assert described.facts["sureness"] == "unsure"
    assert (described.answers[0].confidence or 0) < 0.4


def test_the_tower_sees_pixels_as_its_weights_were_trained(photograph: Photograph) -> None:
    """260 pixels a side, (x - 127) / 128; the picture, its mirror image and its middle count alike."""
    cat, tower = photograph("chelsea"), ImageNetTower()
    side = round(0.8 * cat.height)
    left, top = (cat.width - side) // 2, (cat.height - side) // 2
    views = [cat, cat.resize((260, 260), Image.Resampling.BICUBIC).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
             cat.crop((left, top, left + side, top + side))]
    arrays = [np.asarray(view.resize((260, 260), Image.Resampling.BICUBIC), dtype=np.float32) for view in views]
    pixels = torch.from_numpy(np.stack([(array - 127) / 128 for array in arrays])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = tower.model(pixels).softmax(-1).mean(0).numpy()
    assert tower.look(cat).probabilities == pytest.approx(expected, abs=1e-5)


def test_the_prompt_for_the_cat_is_the_trained_shape(embedded_engine: EmbeddedEngine, photograph: Photograph) -> None:
    answers = describe(embedded_engine, photograph("chelsea")).answers
    assert answers[1].text == "A photo of a tabby cat. The camera slowly zooms in."
    assert answers[4].text == "一只虎斑猫的照片。镜头缓缓推近。"


def test_mirroring_the_picture_mirrors_where_the_subject_is(
    embedded_engine: EmbeddedEngine, photograph: Photograph
) -> None:
    cat = photograph("chelsea")
    shifted = cat.crop((150, 0, cat.width, cat.height))
    left = describe(embedded_engine, shifted).facts["subject"]
    right = describe(embedded_engine, shifted.transpose(Image.Transpose.FLIP_LEFT_RIGHT)).facts["subject"]
    x_left, x_right = (float(text.split(",")[0].removeprefix("x ")) for text in (left, right))
    assert x_left < 0.45
    assert x_right == pytest.approx(1 - x_left, abs=0.03)


def test_equal_seeds_give_equal_words(embedded_engine: EmbeddedEngine, photograph: Photograph) -> None:
    coffee = photograph("coffee")
    assert describe(embedded_engine, coffee, seed=5) == describe(embedded_engine, coffee, seed=5)


def test_a_picture_costs_little_processor_time(embedded_engine: EmbeddedEngine, photograph: Photograph) -> None:
    """Half a second on two cores is one second of processor time, however busy the machine is."""
    coffee = photograph("coffee")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting threads spin, and would be counted
    try:
        spent = []
        for _ in range(4):
            started = time.process_time()
            describe(embedded_engine, coffee)
            spent.append(time.process_time() - started)
    finally:
        torch.set_num_threads(threads)
    assert min(spent) < 1.0


def test_a_passed_deadline_stops_the_engine(embedded_engine: EmbeddedEngine, photograph: Photograph) -> None:
    image = photograph("coffee")
    with pytest.raises(DeadlineExceededError):
        embedded_engine.describe(Picture(rgb=image, width=1, height=1), [prompt_task()], Deadline(at=0.0))
