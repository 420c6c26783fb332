"""The video prompt by rule: the parts that a profile wants, the user's own words kept, nothing contradicted."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from contracts.describe import Language
from vl_service import tones
from vl_service.colours import colour_name
from vl_service.engine import Task
from vl_service.fitting import fitting_motions
from vl_service.kinds import vocabulary
from vl_service.motion import Motion, Request, read_request, speed_asked
from vl_service.profiles import Part
from vl_service.scene import Scene

_SPEAKS_OF_LIGHT = re.compile(
    r"light|lit\b|sun|moon|night|dark|bright|dusk|dawn|evening|morning|glow|shadow|neon|光|夜|阳|暗|亮|黄昏|清晨|影")
_POINTS_BACK = re.compile(r"\b(?:it|its|they|them|their|this|everything|subject|he|she|him|her|his)\b|它|他|她|主体|这")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked of a prompt, read once."""

    words: str
    """The user's own words where they must stay; empty where a canonical sentence says the same."""
    request: Request
    motions: tuple[Motion, ...]
    """To say in the trained words: asked for, or chosen where nothing was asked and the profile may choose."""
    instruction: str

    @property
    def asks_motion(self) -> bool:
        """Whether somebody asked for a motion, or for none."""
        return self.request.says_motion or bool(self.request.refused)


def write_prompt(scene: Scene | None, task: Task) -> str:
    """The prompt in the task's language and profile.

    Quoted parts of the user's words are kept to the letter. A motion that the user asks for is the only one in the
    prompt; one is chosen only where none was asked for.
    """
    wish = _read_wish(scene, task)
    parts = [_WRITERS[part](scene, task, wish) for part in task.profile.parts]
    sentences = [part for part in parts if part]
    joiner = "" if task.language == "zh" else " "
    return joiner.join(sentences)


def _read_wish(scene: Scene | None, task: Task) -> Wish:
    words = " ".join((task.user_prompt or "").split())
    instruction = task.instruction or ""
    request = read_request(words)
    asked = request
    if not (request.says_motion or request.refused) and instruction:
        asked = read_request(instruction)  # "slow zoom out" may as well come as an instruction
    motions = asked.motions
    if words and not request.only_motion:
        # an object that moves is named in the user's own words; "the cat falls" is not said by "snow falls"
        motions = tuple(motion for motion in motions if motion.kind != "object")
    elif not motions and asked.refused:
        motions = (Motion(name="hold_still"),)  # every motion named was ruled out
    if not motions and not asked.says_motion and task.profile.invents_camera:
        motions = (_chosen(scene, task, asked.refused),)
    return Wish(
        words="" if not words or request.only_motion else _as_sentence(words), request=asked, motions=motions,
        instruction=instruction,
    )


def _chosen(scene: Scene | None, task: Task, refused: frozenset[str]) -> Motion:
    motion = next(motion for motion in fitting_motions(scene, task.seed) if motion.name not in refused)
    speed = speed_asked(f"{task.user_prompt or ''} {task.instruction or ''}")
    return motion if speed == "normal" else Motion(name=motion.name, speed=speed)


def _as_sentence(words: str) -> str:
    if words[-1] not in ".!?…。！？\"”」』'":
        words += "。" if re.search(r"[一-鿿]$", words) else "."
    return words[0].upper() + words[1:]


def _it(scene: Scene | None, language: Language) -> str:
    if scene is not None and scene.subject is not None:
        return scene.subject.definite(language)
    return "主体" if language == "zh" else "the subject"


def _photo(scene: Scene | None, task: Task, wish: Wish) -> str:
    """"A photo of a tabby cat." Only where the user's words do not stand without it."""
    if scene is None or (wish.words and not _helps(scene, wish.words)):
        return ""
    if scene.subject is not None:
        noun = scene.subject.in_language(task.language)
    elif scene.group_is_sure:
        group = scene.group_words
        noun = f"一{group.measure}{group.zh}" if task.language == "zh" else _some(group.en)
    else:
        return _photo_by_colour(scene, task.language)
    return f"{noun}的照片。" if task.language == "zh" else f"A photo of {noun}."


def _photo_by_colour(scene: Scene, language: Language) -> str:
    if tones.is_grey(scene.facts):
        return "一张黑白照片。" if language == "zh" else "A black-and-white photo."
    main = tones.colours(scene.facts, language, at_most=2)
    return f"一张{main}调的照片。" if language == "zh" else f"A photo in {main}."


def _some(noun: str) -> str:
    return noun if noun.startswith("food") else f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def _helps(scene: Scene, words: str) -> bool:
    subject = scene.subject
    if subject is None or _mentions(subject.definite("en"), subject.definite("zh"), words):
        return False
    short = len(words.split()) <= 5 and not re.search(r"[一-鿿]{6}", words)
    return short or bool(_POINTS_BACK.search(words.lower()))


def _mentions(noun_en: str, noun_zh: str, words: str) -> bool:
    lowered = words.lower()
    last = noun_en.split()[-1].lower()
    return re.search(rf"\b{re.escape(last)}s?\b", lowered) is not None or noun_zh in words or noun_zh[-1] in words


def _shot(scene: Scene | None, task: Task, wish: Wish) -> str:
    """Shot size, subject and colours; left out where the user's words set the scene themselves."""
    if scene is None or (wish.words and not _helps(scene, wish.words)):
        return ""
    facts, language = scene.facts, task.language
    size = 0 if scene.extent > 0.5 else 1 if scene.extent > 0.15 else 2
    grey = tones.is_grey(facts)
    if scene.subject is None:
        return _photo_by_colour(scene, language)
    noun = scene.subject.in_language(language)
    if language == "zh":
        tone = "黑白" if grey else f"{tones.colours(facts, 'zh', at_most=2)}调"
        return f"{('近景', '中景', '远景')[size]}，{noun}，{tone}画面。"
    tone = "in black and white" if grey else f"in {tones.colours(facts, 'en', at_most=2)}"
    return f"{('Close-up', 'Medium shot', 'Wide shot')[size]} of {noun} {tone}."


def _motion(scene: Scene | None, task: Task, wish: Wish) -> str:
    """The user's words, the asked or chosen motions in the trained words, else what such a subject does by itself."""
    it = _it(scene, task.language)
    own = wish.words.lower()
    said = [
        motion.sentence(task.language, it) for motion in wish.motions
        if not any(motion.sentence(language, it).rstrip(".。").lower() in own for language in ("en", "zh"))
    ]
    joiner = "" if task.language == "zh" else " "
    if wish.words or said:
        return joiner.join([part for part in (wish.words, *said) if part]) + _living_after(scene, task, wish, joiner)
    return _living(scene, task)


def _living_after(scene: Scene | None, task: Task, wish: Wish, joiner: str) -> str:
    # a profile that never invents a camera still wants something to move in words that only set the scene
    if wish.asks_motion or wish.motions or task.profile.invents_camera:
        return ""
    return joiner + _living(scene, task)


def _living(scene: Scene | None, task: Task) -> str:
    language = task.language
    rng = random.Random(task.seed)
    if scene is None or not (scene.subject is not None or scene.group_is_sure):
        return "光影在画面上缓缓移动。" if language == "zh" else "Light and shade move slowly over the scene."
    phrase = rng.choice(vocabulary().groups[scene.group].living[language])
    it = _it(scene, language) if scene.subject is not None else scene.group_words.zh
    if language == "zh":
        return f"{it}{phrase}。"
    if scene.subject is None:
        it = f"the {scene.group_words.en}"
    return f"{it[0].upper()}{it[1:]} {phrase}."


def _ambience(scene: Scene | None, task: Task, wish: Wish) -> str:
    """Secondary motion of sky, water and green; none where the user wants stillness."""
    if scene is None or any(motion.name == "hold_still" for motion in wish.motions):
        return ""
    layout, chinese = scene.facts.layout, task.language == "zh"
    found: list[str] = []
    if layout.sky >= 0.12:
        found.append("云在天空中缓缓飘动" if chinese else "clouds drift slowly across the sky")
    if layout.water >= 0.12:
        found.append("水面泛起细小的波纹" if chinese else "small ripples run over the water")
    if layout.greenery >= 0.25 and scene.setting == "outdoors":
        found.append("枝叶在微风中轻摇" if chinese else "leaves stir in a light breeze")
    if not found:
        return ""
    text = "，".join(found) if chinese else tones.listed(found, "en")
    return f"{text}。" if chinese else f"{text[0].upper()}{text[1:]}."


def _setting(scene: Scene | None, task: Task, wish: Wish) -> str:
    """Where it is, in a prompt's plain words: a video model has no use for a "perhaps"."""
    if scene is None:
        return ""
    layout, chinese = scene.facts.layout, task.language == "zh"
    found: list[str] = []
    if layout.backdrop is not None:
        name = colour_name(layout.backdrop, task.language)
        found.append(f"纯净的{name}背景" if chinese else f"a plain {name} background")
    if layout.sky >= 0.12:
        found.append("上方是开阔的天空" if chinese else "open sky above")
    if layout.water >= 0.12:
        found.append("下方是水面" if chinese else "water below")
    if layout.greenery >= 0.25 and scene.setting == "outdoors":
        found.append("四周绿意盎然" if chinese else "green all around")
    text = "，".join(found) if chinese else tones.listed(found, "en")
    return f"{text[0].upper()}{text[1:]}{'。' if chinese else '.'}" if text else ""


def _light(scene: Scene | None, task: Task, wish: Wish) -> str:
    """The mood that was asked for, else the light as measured, unless the user's words speak of it."""
    if mood := tones.mood_sentence(wish.instruction, task.language):
        return mood
    if scene is None or _SPEAKS_OF_LIGHT.search(wish.words.lower()):
        return ""
    facts = scene.facts
    state = 0 if facts.brightness < 0.33 else 1 if facts.contrast > 0.72 else 2
    warmth = tones.tone(facts, "warmth", "en")
    if task.language == "zh":
        tint = {"warm": "温暖而", "cool": "清冷而", "neutral": ""}[warmth]
        return f"光线{tint}{('昏暗', '明暗分明', '柔和')[state]}。"
    tint = "" if warmth == "neutral" else warmth
    text = (f"dim {tint} light", f"{tint} light with deep contrast", f"soft {tint} light")[state]
    text = " ".join(text.split())
    return f"{text[0].upper()}{text[1:]}."


def _camera(scene: Scene | None, task: Task, wish: Wish) -> str:
    spoken = "camera" in wish.words.lower() or "镜头" in wish.words
    if spoken or any(motion.kind == "camera" for motion in wish.motions):
        return ""
    return "镜头固定。" if task.language == "zh" else "The camera stays fixed."


_WRITERS: dict[Part, Callable[[Scene | None, Task, Wish], str]] = {
    "photo": _photo, "shot": _shot, "motion": _motion, "ambience": _ambience, "setting": _setting, "light": _light,
    "camera": _camera,
}
