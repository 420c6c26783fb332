"""Labelled wording: many ways to ask for each motion, in English and Chinese."""

import random
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

# The vision-language service writes one fixed sentence a motion; those are trained on most.
_WORDS = Path(__file__).parents[1] / "services/vl_service/words/motions.toml"
_THEIR_NAMES = {
    "hold": "hold_still", "rotate_cw": "rotate_clockwise", "rotate_ccw": "rotate_counterclockwise",
    "drift_left": "drifts_left", "drift_right": "drifts_right", "rise": "rises", "fall": "falls", "bounce": "bounces",
    "sway": "sways", "spin": "spins", "pulse": "pulses", "ripple": "ripples", "flicker": "flickers",
}
_THEIR_SPEEDS = {"slow": "slow", "fast": "quick"}

ADVERBS = {
    "slow": ["slowly", "gently", "gradually", "softly", "smoothly and slowly", "very slowly"],
    "normal": ["", "", "", "steadily", "smoothly"],
    "fast": ["quickly", "fast", "rapidly", "swiftly"],
}
ADJECTIVES = {
    "slow": ["slow", "gentle", "gradual", "soft", "very slow", "subtle"],
    "normal": ["", "", "steady", "smooth"],
    "fast": ["fast", "quick", "rapid", "swift"],
}
ZH_ADVERBS = {
    "slow": ["缓缓", "慢慢", "缓慢地", "轻轻"], "normal": ["", "", "平稳地"], "fast": ["快速", "迅速", "飞快地"],
}

# {a} is an adverb of speed, {j} an adjective, {s} the thing that moves.
ENGLISH = {
    "zoom_in": ["the camera {a} zooms in", "the camera zooms in {a}", "{j} zoom in", "{j} zoom-in", "zoom in {a}",
                "{j} push in", "the camera {a} pushes in", "the camera {a} moves closer", "the view {a} gets closer",
                "dolly in {a}", "the camera {a} dollies forward", "{j} close-in on the subject", "move in {a}",
                "the camera {a} moves forward", "zooming in {a}", "get closer {a}", "a {j} zoom toward the subject"],
    "zoom_out": ["the camera {a} zooms out", "the camera zooms out {a}", "{j} zoom out", "{j} zoom-out",
                 "zoom out {a}", "{j} pull back", "the camera {a} pulls back", "the camera {a} moves away",
                 "the view {a} widens", "dolly out {a}", "the camera {a} dollies back", "zooming out {a}",
                 "the camera {a} moves backward", "pull out {a}", "a {j} pull away from the subject"],
    "pan_left": ["the camera {a} pans left", "the camera pans {a} to the left", "{j} pan left", "pan to the left {a}",
                 "the camera {a} moves left", "the camera {a} turns left", "panning left {a}", "{j} left pan",
                 "the camera {a} slides to the left", "the view {a} shifts to the left", "look left {a}"],
    "pan_right": ["the camera {a} pans right", "the camera pans {a} to the right", "{j} pan right",
                  "pan to the right {a}", "the camera {a} moves right", "the camera {a} turns right",
                  "panning right {a}", "{j} right pan", "the camera {a} slides to the right",
                  "the view {a} shifts to the right", "look right {a}"],
    "tilt_up": ["the camera {a} tilts up", "the camera tilts {a} upward", "{j} tilt up", "tilt up {a}",
                "the camera {a} moves up", "{j} pan up", "the camera {a} pans up", "pan up {a}", "panning upward {a}",
                "the camera {a} rises", "the view {a} moves upward", "look up {a}"],
    "tilt_down": ["the camera {a} tilts down", "the camera tilts {a} downward", "{j} tilt down", "tilt down {a}",
                  "the camera {a} moves down", "{j} pan down", "the camera {a} pans down", "pan down {a}",
                  "panning downward {a}", "the camera {a} descends", "the view {a} moves downward", "look down {a}"],
    "rotate_cw": ["the picture {a} rotates clockwise", "{j} clockwise rotation", "rotate clockwise {a}",
                  "the image {a} turns clockwise", "the scene rotates {a} clockwise", "the view {a} spins clockwise",
                  "the whole picture {a} turns to the right, clockwise", "clockwise rotation of the picture {a}"],
    "rotate_ccw": ["the picture {a} rotates counterclockwise", "{j} counterclockwise rotation",
                   "rotate counterclockwise {a}", "the image {a} turns counter-clockwise",
                   "the scene rotates {a} anticlockwise", "the view {a} spins counterclockwise", "rotate anticlockwise",
                   "the whole picture {a} turns to the left, counterclockwise"],
    "hold": ["the camera holds still, nothing moves", "hold still", "static shot", "a still shot", "nothing moves",
             "the camera does not move", "no motion", "everything stays still", "the camera is fixed",
             "locked-off camera, no movement", "keep still", "a frozen moment", "stay still",
             "static camera"],
    "handheld": ["handheld camera", "a slightly shaky handheld shot", "the camera shakes gently",
                 "handheld camera shake", "the view trembles slightly, handheld", "{j} handheld movement"],
    "drift_left": ["{s} {a} drifts left", "{s} moves {a} to the left", "{s} {a} floats to the left",
                   "{s} {a} slides left", "{s} goes left {a}", "{s} {a} glides to the left"],
    "drift_right": ["{s} {a} drifts right", "{s} moves {a} to the right", "{s} {a} floats to the right",
                    "{s} {a} slides right", "{s} goes right {a}", "{s} {a} glides to the right"],
    "rise": ["{s} {a} rises", "{s} {a} floats up", "{s} moves up {a}", "{s} {a} lifts into the air", "{s} ascends {a}"],
    "fall": ["{s} {a} falls", "{s} {a} sinks down", "{s} drops {a}", "{s} moves down {a}", "{s} descends {a}"],
    "bounce": ["{s} {a} bounces", "{s} bounces up and down {a}", "{s} {a} hops", "{s} jumps up and down {a}"],
    "sway": ["{s} {a} sways", "{s} sways from side to side {a}", "{s} {a} rocks back and forth", "{s} {a} swings",
             "{s} tilts left and right {a}"],
    "spin": ["{s} {a} spins", "{s} spins around {a}", "{s} {a} twirls", "{s} {a} whirls round"],
    "pulse": ["{s} {a} pulses", "{s} grows and shrinks {a}", "{s} {a} throbs", "{s} beats like a heart {a}",
              "{s} {a} breathes"],
    "ripple": ["the water {a} ripples", "ripples move {a} across the water", "{j} ripples", "{j} waves on the water",
               "the surface {a} ripples", "water ripples {a}", "the lower part ripples like water {a}"],
    "flicker": ["the light {a} flickers", "flickering light", "the light flickers like a candle", "{j} flicker",
                "the lamp flickers {a}", "candlelight flickers {a}"],
    "darken": ["dusk falls {a}", "it {a} gets dark", "the scene {a} darkens", "night falls {a}", "the light {a} fades",
               "{j} fade to night"],
    "brighten": ["dawn breaks {a}", "it {a} gets brighter", "the scene {a} brightens", "the light {a} grows",
                 "the sun comes out {a}", "{j} brightening"],
}
CHINESE = {
    "zoom_in": ["镜头{a}推近", "镜头{a}拉近", "{a}放大画面", "镜头{a}向前推进", "画面{a}拉近", "{a}推近主体",
                "镜头{a}靠近"],
    "zoom_out": ["镜头{a}拉远", "镜头{a}后退", "{a}缩小画面", "镜头{a}向后拉", "画面{a}拉远", "镜头{a}远离主体"],
    "pan_left": ["镜头{a}向左平移", "镜头{a}向左摇", "镜头{a}左移", "{a}向左平移镜头", "画面{a}向左摇移"],
    "pan_right": ["镜头{a}向右平移", "镜头{a}向右摇", "镜头{a}右移", "{a}向右平移镜头", "画面{a}向右摇移"],
    "tilt_up": ["镜头{a}上移", "镜头{a}向上摇", "镜头{a}向上移动", "镜头{a}抬起", "镜头{a}上摇", "{a}向上摇镜头"],
    "tilt_down": ["镜头{a}下移", "镜头{a}向下摇", "镜头{a}向下移动", "镜头{a}降低", "镜头{a}下摇", "{a}向下摇镜头"],
    "rotate_cw": ["画面{a}顺时针旋转", "{a}顺时针旋转", "图像{a}顺时针转动", "画面顺时针{a}转动"],
    "rotate_ccw": ["画面{a}逆时针旋转", "{a}逆时针旋转", "图像{a}逆时针转动", "画面逆时针{a}转动"],
    "hold": ["镜头静止不动", "画面静止", "保持不动", "固定镜头", "没有任何运动", "镜头固定，画面不动", "静止画面"],
    "handheld": ["手持镜头", "镜头轻微晃动", "手持拍摄，画面轻微抖动", "镜头轻轻抖动"],
    "drift_left": ["{s}{a}向左飘动", "{s}{a}向左移动", "{s}{a}往左滑动"],
    "drift_right": ["{s}{a}向右飘动", "{s}{a}向右移动", "{s}{a}往右滑动"],
    "rise": ["{s}{a}上升", "{s}{a}升起", "{s}{a}向上飘"],
    "fall": ["{s}{a}落下", "{s}{a}下降", "{s}{a}坠落"],
    "bounce": ["{s}{a}弹跳", "{s}上下{a}跳动", "{s}{a}蹦跳"],
    "sway": ["{s}{a}摇摆", "{s}左右{a}摇晃", "{s}{a}摆动"],
    "spin": ["{s}{a}旋转", "{s}{a}转圈", "{s}{a}打转"],
    "pulse": ["{s}{a}脉动", "{s}一大一小地{a}变化", "{s}像心跳一样{a}跳动"],
    "ripple": ["水面{a}泛起涟漪", "水波{a}荡漾", "水面{a}波动", "{a}泛起水波"],
    "flicker": ["灯光{a}闪烁", "光线{a}闪烁", "烛光{a}摇曳"],
    "darken": ["天色{a}变暗", "夜幕{a}降临", "画面{a}变暗", "光线{a}变暗"],
    "brighten": ["天色{a}变亮", "画面{a}变亮", "光线{a}变亮", "黎明{a}到来"],
}
SUBJECT_FORMS = ["a photo of {x}.", "{x}.", "this picture shows {x}.", "a picture of {x}.", "the photo shows {x}.",
                 "{x},", "a close-up of {x}.", "probably {x}.", "{x} in {c} light.", "{x}, mostly {c}.",
                 "a {c} scene with {x}.", "unsure, perhaps {x}."]
ZH_SUBJECT_FORMS = ["一张{x}的照片。", "{x}。", "画面中是{x}。", "照片里有{x}，", "可能是{x}。"]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "grey", "black", "warm",
           "cool", "bright", "dark", "golden", "soft"]
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
    if language == "zh":
        return rng.choice(CHINESE[motion]).format(a=rng.choice(ZH_ADVERBS[speed]), s=subject or "物体")
    phrase = rng.choice(ENGLISH[motion]).format(
        a=rng.choice(ADVERBS[speed]), j=rng.choice(ADJECTIVES[speed]), s=subject or rng.choice(["it", "the subject"])
    )
    return _tidy(phrase)


class PromptWriter:
    """Writes training prompts; `words` are names a caption may mention, right or wrong."""

    def __init__(self, words: list[str], seed: int) -> None:
        self.words = words
        self.rng = random.Random(seed)

    def photo(self, motion: str, speed: str, cutout_name: str | None) -> str:
        """A prompt for a clip over a photograph; its subject is unknown, so any words may stand before the motion."""
        rng = self.rng
        language = "zh" if rng.random() < 0.25 else "en"
        if rng.random() < 0.35 and (text := self._as_the_service(motion, speed, cutout_name, language)):
            return text
        if language == "zh":
            subject = rng.choice([*ZH_WORDS, cutout_name or rng.choice(self.words)])
            text = motion_phrase(motion, speed, subject, rng, "zh")
            opening = rng.choice(ZH_SUBJECT_FORMS).format(x=subject) if rng.random() < 0.6 else ""
            return opening + text + rng.choice(["", "。"])
        name = cutout_name if cutout_name and rng.random() < 0.8 else rng.choice(self.words)
        text = motion_phrase(motion, speed, rng.choice([f"the {name}", f"a {name}", "it", "the subject"]), rng)
        opening = ""
        if rng.random() < 0.65:
            article = rng.choice(["a", "the", ""])
            opening = rng.choice(SUBJECT_FORMS).format(x=_tidy(f"{article} {name}"), c=rng.choice(COLOURS))
        end = rng.choice(["", ".", "."])
        return _tidy(f"{_case(opening, rng)} {_case(text, rng)}{end}{rng.choice(TAILS) if end else ''}")

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

    def scene(self, motion: str, speed: str, name: str, backdrop: str) -> str:
        """A prompt that tells a plain scene in full, so that it can be drawn from words alone."""
        rng = self.rng
        where = rng.choice(["on a {b} background", "against a plain {b} background", "over a {b} backdrop", "on {b}"])
        opening = f"{rng.choice(['a', 'one', ''])} {name} {where.format(b=backdrop)}."
        text = motion_phrase(motion, speed, rng.choice([f"the {name}", "it"]), rng)
        return _tidy(f"{_case(_tidy(opening), rng)} {_case(text, rng)}.")
