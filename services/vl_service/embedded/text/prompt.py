"""A video prompt: the decoder's parts where the user left them open, the user's own words to the letter."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from contracts.describe import Language
from vl_service.backend import Task
from vl_service.embedded.text.answers import Answers
from vl_service.embedded.text.languages import Knows
from vl_service.embedded.text.moods import mood_sentence
from vl_service.embedded.text.motions import Motion, Request, motion_names, read_request, speed_asked
from vl_service.embedded.text.naming import definite
from vl_service.embedded.text.user_words import UserWords, as_sentence, read_user_words
from vl_service.prompts.polish import sentences
from vl_service.prompts.profiles import Part

SUITS_ANYTHING = ("zoom_in", "zoom_out", "pan_left", "pan_right")
_SPEAKS_OF_LIGHT = re.compile(
    r"light|lit\b|sun|moon|night|dark|bright|dusk|dawn|evening|morning|glow|shadow|neon|光|夜|阳|暗|亮|黄昏|清晨|影")
_SPEAKS_OF_CAMERA = re.compile(
    r"camera|\blens\b|\bshot\b|\bview|\bdrone|\bdolly|\bcrane\b|gimbal|steadicam|hand-?held|tripod|track(?:s|ing)\b|"
    r"\borbit|\bpans?\b|\bpanning|\bzoom|\btilt|fly-?(?:over|by|through)|lapse|\bwe\b|\bus\b|镜头|航拍|运镜|跟拍|环绕|视角|我们|"
    r"推轨|摇臂|稳定器|三脚架|延时")
_POINTS_BACK = re.compile(r"\b(?:it|its|they|them|their|this|everything|subject|he|she|him|her|his)\b|它|他|她|主体|这")
_SEVERAL = re.compile(r"(?:two|three|four) (?!of )")
_HAN = re.compile(r"[一-鿿]")
_STIRS: dict[Language, str] = {
    "en": "Light and shade move slowly over the scene.", "zh": "光影在画面上缓缓移动。"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One prompt in the making. `told` holds the decoder's parts; without a picture there is nobody to tell."""

    task: Task
    user_words: UserWords
    answers: Answers | None
    told: dict[Part, str]

    @property
    def language(self) -> Language:
        """To write in."""
        return self.task.language

    @property
    def joiner(self) -> str:
        """Between sentences."""
        return "" if self.language == "zh" else " "

    @property
    def it(self) -> str:
        """The subject, as a thing already named."""
        phrase = "" if self.answers is None else self.answers.phrase(self.language)
        several = self.language == "en" and _SEVERAL.match(phrase)  # the motions' sentences have their verb for one
        return f"each of {definite(phrase, 'en')}" if several else definite(phrase, self.language)


def write_prompt(answers: Answers | None, task: Task, knows: Knows) -> str:
    """The prompt in the task's language and profile; `knows` tells which words the model has.

    The user's words are kept to the letter, in whatever script, unless a sentence that the video checkpoint was taught
    says all that they say. A motion that the user asks for is the only one in the prompt; one is chosen only where none
    was asked for.
    """
    user_words = read_user_words(task, knows)
    told: dict[Part, str] = {}
    if answers is not None:
        parts = answers.parts(task.profile, task.language, task.max_new_tokens, task.seed)
        told = {part: without_contradiction(text, user_words.request, task.language) for part, text in parts.items()}
    draft = Draft(task=task, user_words=user_words, answers=answers, told=told)
    parts = [_WRITERS[part](draft) for part in task.profile.parts]
    return draft.joiner.join(part for part in parts if part)


def without_contradiction(text: str, wanted: Request, language: Language) -> str:
    """Without sentences that tell of another camera move than the one asked for, or of one that was ruled out."""
    camera = {motion.name for motion in wanted.motions if motion.kind == "camera"}

    def contradicts(sentence: str) -> bool:
        moves = {motion.name for motion in read_request(sentence).motions if motion.kind == "camera"}
        return bool(moves - camera) if camera else bool(moves & wanted.refused)

    joiner = "" if language == "zh" else " "
    return joiner.join(sentence for sentence in sentences(text) if not contradicts(sentence))


def _subject(part: Part) -> Callable[[Draft], str]:
    """What is there, left out where the user's words set the scene themselves."""
    def write(draft: Draft) -> str:
        return "" if draft.user_words.words and not _helps(draft) else draft.told.get(part, "")
    return write


def _helps(draft: Draft) -> bool:
    """Whether the user's words do not stand without the name of the subject."""
    words, answers = draft.user_words.words, draft.answers
    if answers is None or not answers.record.name or _mentions(answers, words):
        return False
    if draft.user_words.unread:
        return True
    short = len(words.split()) <= 5 and not re.search(r"[一-鿿]{6}", words)
    return short or bool(_POINTS_BACK.search(words.lower()))


def _mentions(answers: Answers, words: str) -> bool:
    last = answers.record.name.split()[-1].lower()
    if re.search(rf"\b{re.escape(last)}s?\b", words.lower()):
        return True
    if not _HAN.search(words):
        return False
    noun = definite(answers.phrase("zh"), "zh")
    return noun in words or noun[-1] in words


def _motion(draft: Draft) -> str:
    """The user's words, the motions asked for in the trained words, else what the decoder lets the subject do."""
    user_words = draft.user_words
    motions = user_words.motions
    if user_words.leaves_motion_open and draft.task.profile.invents_camera:
        motions = (_chosen(draft),)
    said = [_sentence(motion, draft) for motion in motions if not _said_already(motion, draft)]
    if user_words.template:
        said.append(as_sentence(user_words.template))
    if not (user_words.words or said):
        return draft.told.get("motion") or _STIRS[draft.language]
    if not (user_words.asks_motion or motions):
        # a profile that never invents a camera still wants something to move in words that only set the scene
        said.append(draft.told.get("motion") or _STIRS[draft.language])
    return draft.joiner.join([part for part in (as_sentence(user_words.words), *said) if part])


def _said_already(motion: Motion, draft: Draft) -> bool:
    """Whether the user's words hold the motion's own sentence, in either language."""
    it, own = _it_of(motion, draft), draft.user_words.words.lower()
    languages: tuple[Language, ...] = ("en", "zh")
    return any(motion.sentence(language, it).rstrip(".。").lower() in own for language in languages)


def _chosen(draft: Draft) -> Motion:
    """The motion that the decoder tells, where the video checkpoint knows it and nobody ruled it out."""
    refused, user_words = draft.user_words.request.refused, draft.user_words
    told = [motion for motion in read_request(draft.told.get("motion", "")).motions if motion.name not in refused]
    order = random.Random(draft.task.seed).sample(SUITS_ANYTHING, len(SUITS_ANYTHING))
    names = [name for name in (*order, *motion_names()) if name not in refused]
    motion = told[0] if told else Motion(name=names[0], speed="slow")
    speed = speed_asked(f"{draft.task.user_prompt or ''} {user_words.instruction}")
    return motion if speed == "normal" else Motion(name=motion.name, speed=speed)


def _sentence(motion: Motion, draft: Draft) -> str:
    return motion.sentence(draft.language, _it_of(motion, draft))


def _it_of(motion: Motion, draft: Draft) -> str:
    return draft.it if motion.kind == "object" else ""  # the camera's sentences need no name of the subject


def _ambience(draft: Draft) -> str:
    """Secondary motion; none where the user wants stillness."""
    return "" if draft.user_words.wants_stillness else draft.told.get("ambience", "")


def _setting(draft: Draft) -> str:
    return draft.told.get("setting", "")


def _light(draft: Draft) -> str:
    """The mood that was asked for, else the light as told, unless the user's words speak of it."""
    if mood := mood_sentence(draft.user_words.instruction, draft.language):
        return mood
    spoken = f"{draft.user_words.words} {draft.user_words.template}".lower()
    return "" if _SPEAKS_OF_LIGHT.search(spoken) else draft.told.get("light", "")


def _camera(draft: Draft) -> str:
    words = f"{draft.user_words.words} {draft.user_words.template}".lower()
    spoken = draft.user_words.unread or _SPEAKS_OF_CAMERA.search(words) is not None
    if spoken or any(motion.kind == "camera" for motion in draft.user_words.motions):
        return ""
    return draft.told.get("camera") or ("镜头固定。" if draft.language == "zh" else "The camera stays fixed.")


_WRITERS: dict[Part, Callable[[Draft], str]] = {
    "photo": _subject("photo"), "shot": _subject("shot"), "motion": _motion, "ambience": _ambience,
    "setting": _setting, "light": _light, "camera": _camera,
}
