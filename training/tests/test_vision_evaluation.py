"""An engine that tells the truth holds every row, one that is wrong in one thing misses that row alone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from contracts.describe import Language
from contracts.models import VLModelInfo
from training.evaluation.vl import verdicts
from training.evaluation.vl.evaluate import (
    BARS,
    COLOUR,
    LAYOUT,
    NAMED,
    PHOTOGRAPHED,
    QUESTION,
    STRANGE,
    TEXTS,
    Vision,
    failures,
    judge_engine,
)
from training.evaluation.vl.pictures import HOW_TO_FETCH, Shown, dominant_colours, load_evaluation_stock
from training.evaluation.vl.questions import WORDINGS
from training.evaluation.vl.speed import SECONDS
from training.vl.pictures.compose import Truth, held_combination
from training.vl.pictures.concepts import Concept
from training.vl.texts import question_wordings
from vl_service.backend import Answer, Deadline, Description, Task
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import profiles

LONG = {"en": " and then nods".join(f" {n}" for n in range(25)), "zh": "".join(f"、看{n}号" for n in range(30))}


def red_circle() -> Image.Image:
    picture = Image.new("RGB", (96, 64), (40, 60, 200))
    ImageDraw.Draw(picture).ellipse((6, 6, 30, 30), fill=(220, 20, 20))
    return picture


def shown(name: str) -> Shown:
    picture = red_circle()
    concept = Concept(en="red balloon", zh="红气球", kind_en="toy", kind_zh="玩具", measure="个", group="object",
                      plural=False, role="known", files=(), held_files=())
    truth = Truth(concept=0, count=1, colour="red", x=0.19, y=0.28, extent=0.09, setting="outdoors", aspect=1.5)
    return Shown(
        name=name, picture=DecodedImage(rgb=picture, width=96, height=64), colours=dominant_colours(picture),
        words=verdicts.words_of_concept(concept), truth=None if name == "photograph" else truth,
        concept=None if name == "photograph" else concept,
    )


def truthful(task: Task) -> str:
    english = task.language == "en"
    if task.kind == "prompt":
        start = "A photo of a red balloon; it nods" if english else "一个红气球看看它慢慢升上去"
        least, _ = verdicts.prompt_bounds(task.profile, task.language)
        return f"{start}{LONG[task.language] if least > 20 else ''}{'.' if english else '。'}"
    if task.kind == "edit_suggestion":
        return "It rises\nIt falls\nIt turns" if english else "升起\n落下\n转动"
    if task.kind == "caption":
        return ("A red balloon in the upper left of the picture. The main colours are blue and red." if english
                else "画面左上方是一个红气球。主要颜色是蓝色和红色。")
    about = next(about for about, ways in WORDINGS.items() if task.question in ways[task.language])
    answers = {
        "what": ("It is a red balloon.", "是一个红气球。"), "colour": ("It is red.", "是红色的。"),
        "where": ("In the upper left.", "在左上方。"), "how many": ("I count one.", "我数出一个。"),
        "setting": ("It was taken outdoors.", "是在室外。"),
    }
    return answers[about][0 if english else 1]


class Spoken:
    """An engine behind the service's Protocol that says what a function says."""

    def __init__(self, say: Callable[[Task], str]) -> None:
        self._say = say

    @property
    def info(self) -> VLModelInfo:
        return VLModelInfo(id="spoken", revision="1", engine="test", dtype="none", languages=["en", "zh"],
                           tasks=["caption", "prompt", "edit_suggestion", "question"], profiles=list(profiles()))

    def describe(self, picture: DecodedImage | None, tasks: Sequence[Task], deadline: Deadline) -> Description:
        return Description(answers=[Answer(text=self._say(task)) for task in tasks], facts={})


def judged(say: Callable[[Task], str]) -> Vision:
    names = ((PHOTOGRAPHED, "photograph"), (NAMED, "composition"), (STRANGE, "stranger"))
    return judge_engine(Spoken(say), [(measure, shown(name)) for measure, name in names])


def instead(kind: str, old: str, new: str) -> Callable[[Task], str]:
    return lambda task: truthful(task).replace(old, new) if task.kind == kind else truthful(task)


def test_an_engine_that_tells_the_truth_holds_every_row() -> None:
    vision = judged(truthful)
    assert [row.measure for row in vision.rows] == [*BARS, SECONDS]
    assert [check for check in vision.checks if not check.right] == []
    assert all(row.held for row in vision.rows)
    assert failures(vision) == []


@pytest.mark.parametrize(("say", "missed"), [
    (instead("caption", "red balloon", "wall clock"), {NAMED, PHOTOGRAPHED, STRANGE}),
    (instead("caption", "blue and red", "green and pink"), {COLOUR}),
    (instead("caption", "upper left", "lower right"), {LAYOUT}),
    (instead("question", "one", "four"), {QUESTION}),
    (instead("prompt", "A photo", "照片 A photo"), {TEXTS}),
    (instead("prompt", LONG["en"], ""), {TEXTS}),
    (instead("prompt", "it nods", "it nods nods"), {TEXTS}),
    (instead("edit_suggestion", "\nIt turns", ""), {TEXTS}),
])
def test_an_engine_that_is_wrong_in_one_thing_misses_its_row(say: Callable[[Task], str], missed: set[str]) -> None:
    vision = judged(say)
    with_failures = {check.measure for check in vision.checks if not check.right}
    assert with_failures == missed
    # one wrong answer of five leaves the questions at their bar of 80 %
    assert {row.measure for row in vision.rows if row.held is False} == missed - {QUESTION}
    assert len(failures(vision)) > 2


def test_without_compositions_their_rows_say_how_to_get_them(tmp_path: Path) -> None:
    assert load_evaluation_stock(tmp_path) is None
    vision = judge_engine(Spoken(truthful), [(PHOTOGRAPHED, shown("photograph"))], HOW_TO_FETCH)
    not_run = {row.measure for row in vision.rows if row.held is None}
    assert not_run == {NAMED, STRANGE, LAYOUT, QUESTION}
    assert all("python -m training.ingredients.fetch" in row.found for row in vision.rows if row.held is None)


def test_no_question_of_the_evaluation_is_one_of_the_training() -> None:
    languages: tuple[Language, ...] = ("en", "zh")
    tables = [table for table in vars(question_wordings).values()
              if isinstance(table, dict) and set(table) == set(languages)]
    trained = {way.lower() for table in tables for language in languages for way in table[language]}
    assert len(trained) > 100
    asked = [way for ways in WORDINGS.values() for language in languages for way in ways[language]]
    assert not [way for way in asked if way.lower() in trained]


def test_the_dominant_colour_is_the_backgrounds_and_of_a_grey_picture_none() -> None:
    assert dominant_colours(red_circle()) == {"blue"}
    assert dominant_colours(red_circle().convert("L").convert("RGB")) == {"black", "white", "grey"}


def test_training_shows_every_thing_in_some_number_from_two_to_four() -> None:
    """Else the decoder never sees the plural, and says another."""
    one = shown("composition").concept
    assert one is not None
    held = [{number for number in (1, 2, 3, 4) if held_combination(replace(one, en=f"thing {turn}"), number)}
            for turn in range(2000)]
    assert max(map(len, held)) == 2
    assert not any(1 in numbers for numbers in held)
    assert 0.5 < sum(map(len, held)) / len(held) < 0.7
