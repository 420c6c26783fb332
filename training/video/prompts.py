"""Labelled wording: many ways to ask for each motion, in English and Chinese."""

import random
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from training.video.ways import WAY_MOTIONS, drawn_way

# The vision-language service writes one fixed sentence a motion; those are trained on most.
_WORDS = Path(__file__).parents[2] / "services/vl_service/embedded/words/motions.toml"
_WORDINGS = tomllib.loads(Path(__file__).with_name("wordings.toml").read_text(encoding="utf-8"))
ENGLISH: dict[str, list[str]] = {motion: ways["en"] for motion, ways in _WORDINGS.items()}
CHINESE: dict[str, list[str]] = {motion: ways["zh"] for motion, ways in _WORDINGS.items()}
_PHRASES = tomllib.loads(Path(__file__).with_name("phrases.toml").read_text(encoding="utf-8"))
PHRASES: dict[str, dict[str, list[str]]] = _PHRASES | {"rotate_ccw": _PHRASES["rotate_cw"]}
_FRAMES = tomllib.loads(Path(__file__).with_name("frames.toml").read_text(encoding="utf-8"))
FRAMES: dict[str, list[str]] = _FRAMES["frames"]
CLOCKWISE = {
    "rotate_cw": {"en": ["clockwise"], "zh": ["顺时针"]},
    "rotate_ccw": {"en": ["counterclockwise", "counter-clockwise", "anticlockwise", "anti-clockwise"],
                   "zh": ["逆时针"]},
}
_THEIR_NAMES = {
    "hold": "hold_still", "rotate_cw": "rotate_clockwise", "rotate_ccw": "rotate_counterclockwise",
    "drift_left": "drifts_left", "drift_right": "drifts_right", "rise": "rises", "fall": "falls", "bounce": "bounces",
    "sway": "sways", "spin": "spins", "pulse": "pulses", "ripple": "ripples", "flicker": "flickers",
}
_THEIR_SPEEDS = {"slow": "slow", "fast": "quick"}

# By speed: before or after a verb, before a noun, and in Chinese before a verb.
ADVERBS: dict[str, list[str]] = _FRAMES["adverbs"]
ADJECTIVES: dict[str, list[str]] = _FRAMES["adjectives"]
ZH_ADVERBS: dict[str, list[str]] = _FRAMES["zh_adverbs"]

LINKS = {"en": [" while ", " and ", ", ", ". ", " as ", ", then "], "zh": ["，同时", "，", "，并且", "。"]}
SUBJECT_FORMS = ["a photo of {x}.", "{x}.", "this picture shows {x}.", "a picture of {x}.", "the photo shows {x}.",
                 "{x},", "a close-up of {x}.", "probably {x}.", "{x} in {c} light.", "{x}, mostly {c}.",
                 "a {c} scene with {x}.", "unsure, perhaps {x}."]
ZH_SUBJECT_FORMS = ["一张{x}的照片。", "{x}。", "画面中是{x}。", "照片里有{x}，", "可能是{x}。"]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "grey", "black", "warm",
           "cool", "bright", "dark", "golden", "soft"]
# Directions that ask for nothing.
PLACES = ["the subject is on the left.", "the subject is on the right.", "the subject is in the centre.",
          "{c} at the top.", "{c} at the bottom.", "the sky above, the ground below.", "seen from above.",
          "looking to the left.", "looking to the right.", "soft light from the right.", "soft light from the left.",
          "a calm scene.",
          "with an out-of-focus background.", "in the foreground.", "a busy picture.", "warm evening light."]
ZH_PLACES = ["主体在左边。", "主体在右边。", "主体在中间。", "上方是天空。", "下方是地面。", "光线柔和。", "背景虚化。"]
FRAMED_SHARE = 0.5  # of the camera's motions: a phrase in a frame, not a whole wording
NOUN_SHARE = 0.3
WAYS_SHARE = 0.35  # of the motions in ways.toml: a request drawn from its grammar, before any frame or wording
ZH_WORDS = ["猫", "狗", "鸟", "人物", "建筑", "风景", "花", "食物", "汽车", "山", "大海", "天空", "杯子", "火箭",
            "物体"]
TAILS = ["", "", "", "", " cinematic.", " high quality.", " natural light.", " sharp detail.", " realistic."]


def _tidy(text: str) -> str:
    return " ".join(text.replace(" ,", ",").split()).strip()


def _case(text: str, rng: random.Random) -> str:
    return text[:1].upper() + text[1:] if rng.random() < 0.6 else text


@cache
def _service_words() -> dict[str, Any]:
    return tomllib.loads(_WORDS.read_text(encoding="utf-8"))


def service_sentence(motion: str, speed: str, it: str, language: str) -> str | None:
    """The vision-language service's own sentence for `motion`, or None where its vocabulary lacks it."""
    words = _service_words()
    entry = words["motions"].get(_THEIR_NAMES.get(motion, motion))
    if entry is None:
        return None
    spoken = words["speeds"][_THEIR_SPEEDS[speed]][language] if speed in _THEIR_SPEEDS else ""
    text = _tidy(entry[language].format(speed=spoken, it=it))
    return text[:1].upper() + text[1:]


def motion_phrase(motion: str, speed: str, subject: str | None, rng: random.Random, language: str = "en") -> str:
    """One way to ask for `motion`; `subject` names what moves, where an object moves."""
    if motion in WAY_MOTIONS and rng.random() < WAYS_SHARE:
        return way_phrase(motion, speed, rng, language)
    if motion in PHRASES and rng.random() < FRAMED_SHARE:
        return framed_phrase(motion, speed, rng, language)
    if language == "zh":
        return rng.choice(CHINESE[motion]).format(a=rng.choice(ZH_ADVERBS[speed]), s=subject or "物体")
    phrase = rng.choice(ENGLISH[motion]).format(
        a=rng.choice(ADVERBS[speed]), j=rng.choice(ADJECTIVES[speed]), s=subject or rng.choice(["it", "the subject"])
    )
    return _tidy(phrase)


def way_phrase(motion: str, speed: str, rng: random.Random, language: str) -> str:
    """A request drawn from the slot grammar, with how fast in it."""
    if language == "zh":
        return drawn_way(motion, rng, language, rng.choice(ZH_ADVERBS[speed]))
    return _tidy(drawn_way(motion, rng, language, rng.choice(ADVERBS[speed])))


def framed_phrase(motion: str, speed: str, rng: random.Random, language: str) -> str:
    """A request put together of a phrase of PHRASES, how fast, and a frame around both."""
    phrases, turn = PHRASES[motion], rng.choice(CLOCKWISE.get(motion, {}).get(language, [""]))
    if language == "zh":
        asked = rng.choice(phrases["zh"]).format(cw=turn)
        return rng.choice(FRAMES["zh"]).format(x=f"{rng.choice(ZH_ADVERBS[speed])}{asked}")
    if rng.random() < NOUN_SHARE:
        asked = f"{rng.choice(ADJECTIVES[speed])} {rng.choice(phrases['noun']).format(cw=turn)}"
        return _tidy(rng.choice(FRAMES["noun"]).format(x=asked))
    verb, how = rng.choice(phrases["do"]).format(cw=turn), rng.choice(ADVERBS[speed])
    asked = f"{how} {verb}" if rng.random() < 0.3 else f"{verb} {how}"
    return _tidy(rng.choice(FRAMES["do"]).format(x=_tidy(asked)))


class PromptWriter:
    """Writes training prompts; `words` are names a caption may mention, right or wrong."""

    def __init__(self, words: list[str], seed: int) -> None:
        self.words = words
        self.rng = random.Random(seed)

    def photo(self, motions: tuple[str, ...], speed: str, cutout_name: str | None) -> str:
        """A prompt for a clip over a photograph; its subject is unknown, so any words may stand before the motion."""
        rng = self.rng
        language = "zh" if rng.random() < 0.36 else "en"
        if len(motions) == 1 and rng.random() < 0.3:
            text = self._as_the_service(motions[0], speed, cutout_name, language)
            if text:
                return text
        if language == "zh":
            subject = rng.choice([*ZH_WORDS, cutout_name or rng.choice(self.words)])
            opening = rng.choice(ZH_SUBJECT_FORMS).format(x=subject) if rng.random() < 0.55 else ""
            place = rng.choice(ZH_PLACES) if rng.random() < 0.15 else ""
            return opening + place + self._motions(motions, speed, subject, "zh") + rng.choice(["", "。"])
        name = cutout_name if cutout_name and rng.random() < 0.8 else rng.choice(self.words)
        text = self._motions(motions, speed, rng.choice([f"the {name}", f"a {name}", "it", "the subject"]), "en")
        opening = ""
        if rng.random() < 0.65:
            article = rng.choice(["a", "the", ""])
            opening = rng.choice(SUBJECT_FORMS).format(x=_tidy(f"{article} {name}"), c=rng.choice(COLOURS))
        if rng.random() < 0.2:
            opening = f"{opening} {rng.choice(PLACES).format(c=rng.choice(COLOURS))}"
        end = rng.choice(["", ".", "."])
        return _tidy(f"{_case(opening, rng)} {_case(text, rng)}{end}{rng.choice(TAILS) if end else ''}")

    def _motions(self, motions: tuple[str, ...], speed: str, subject: str, language: str) -> str:
        """One or two motions in one sentence; the speed may be said once."""
        rng = self.rng
        order = rng.sample(motions, len(motions))
        told = [speed] + [rng.choice([speed, "normal"]) for _ in order[1:]]
        rng.shuffle(told)
        phrases = [motion_phrase(motion, how, subject, rng, language) for motion, how in zip(order, told, strict=True)]
        return rng.choice(LINKS[language]).join(phrases)

    def _as_the_service(self, motion: str, speed: str, cutout_name: str | None, language: str) -> str | None:
        rng = self.rng
        name = rng.choice(ZH_WORDS) if language == "zh" else cutout_name or rng.choice(self.words)
        text = service_sentence(motion, speed, name if language == "zh" else f"the {name}", language)
        if text is None:
            return None
        if language == "zh":
            return rng.choice([f"{name}的照片。", ""]) + text
        some = " and ".join(rng.sample(COLOURS, 2))
        opening = rng.choice([f"A photo of a {name}.", f"A photo of {name}.", f"A photo in {some}.", ""])
        return _tidy(f"{opening} {text}")

    def scene(self, motions: tuple[str, ...], speed: str, name: str, backdrop: str) -> str:
        """A prompt that tells a plain scene in full, so that it can be drawn from words alone."""
        rng = self.rng
        where = rng.choice(["on a {b} background", "against a plain {b} background", "over a {b} backdrop", "on {b}"])
        opening = f"{rng.choice(['a', 'one', ''])} {name} {where.format(b=backdrop)}."
        text = self._motions(motions, speed, rng.choice([f"the {name}", "it"]), "en")
        return _tidy(f"{_case(_tidy(opening), rng)} {_case(text, rng)}.")
