"""Questions with known answers, in words that no training question has."""

from collections.abc import Callable
from dataclasses import dataclass

from contracts.describe import Language
from training.evaluation.vl import verdicts
from training.evaluation.vl.pictures import Shown

WORDINGS: dict[str, dict[Language, tuple[str, ...]]] = {
    "what": {"en": ("What has been photographed here?", "Please tell me which thing the picture is about."),
             "zh": ("请问图中的东西叫什么？", "这张图主要画的是什么东西？")},
    "colour": {"en": ("What colour would you say the main thing has?", "Tell me the color of the thing shown."),
               "zh": ("请问主要的东西呈什么颜色？", "图中的东西是哪种颜色的？")},
    "where": {"en": ("Whereabouts in the frame is the main thing?", "Where should I look to find the main thing?"),
              "zh": ("主要的东西位于画面的哪个位置？", "我该在画面哪里找到它？")},
    "how many": {"en": ("How many of these things can be counted?", "How many pieces are shown altogether?"),
                 "zh": ("数数看，图里一共出现了几个？", "同样的东西共有多少个？")},
    "setting": {"en": ("Does this look like an indoor or an outdoor scene?", "Are we inside or outside here?"),
                "zh": ("看上去是室内场景还是室外场景？", "拍摄时是在室内还是在户外？")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, and the judge of its answers."""

    about: str
    language: Language
    text: str
    answered: Callable[[str], bool]


def questions_about(shown: Shown) -> list[Question]:
    """What, colour, where, how many, indoors or outdoors, in both languages, as far as the truth is known."""
    languages: tuple[Language, ...] = ("en", "zh")
    return [
        Question(about=about, language=language, answered=judge,
                 text=WORDINGS[about][language][_turn(shown.name) % len(WORDINGS[about][language])])
        for language in languages for about, judge in _judges(shown, language).items()
    ]


def _turn(name: str) -> int:
    return sum(name.encode())


def _judges(shown: Shown, language: Language) -> dict[str, Callable[[str], bool]]:
    truth = shown.truth
    if truth is None:
        return {}
    family = truth.colour.split()[-1] if truth.colour else ""
    judges: dict[str, Callable[[str], bool]] = {
        "what": lambda text: verdicts.names_it(text, shown.words, language),
        "how many": lambda text: verdicts.says_count(text, truth.count, language),
    }
    if family:
        judges["colour"] = lambda text: verdicts.says_colour(text, {family}, language)
    if truth.count == 1:
        judges["where"] = lambda text: verdicts.says_place(text, truth, language)
    if truth.setting in ("indoors", "outdoors"):
        judges["setting"] = lambda text: verdicts.says_setting(text, truth.setting, language)
    return judges
