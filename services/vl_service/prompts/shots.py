"""A video's prompt as a language model fills it in, field by field, and as rules say it in words.

What a model is good at, naming what it sees and what may happen, it does; order, length and the camera are ours. For
a model that begins on a picture a camera move that nobody asked for breaks the picture, so none is invented.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic import Field as Bounded

from contracts.describe import Language

Field = Literal["subject", "motions", "secondary_motion", "setting", "camera", "light", "style", "avoid"]
FIELDS: tuple[Field, ...] = get_args(Field)
Phrase = Annotated[str, Bounded(max_length=240)]
Phrases = Annotated[tuple[Phrase, ...], Bounded(max_length=4)]

_CAMERA = re.compile(
    r"\bcamera\b|\bzoom(?:s|ing|ed)?\b|\bpan(?:s|ning)?\s+(?:slowly\s+|gently\s+)?(?:left|right|up|down|across|over|to)\b|"
    r"\btilt(?:s|ing)?\s+(?:up|down)\b|\bdoll(?:y|ies)\b|\borbit(?:s|ing)?\s+(?:around|shot)\b|\btracking shot\b|"
    r"\bcrane shot\b|\bpush(?:es)?[- ]in\b|\bpull(?:s)?[- ](?:back|out)\b|\bhand-?held\b|"
    r"镜头|推近|拉远|推镜|拉镜|摇镜|运镜|变焦|跟拍|航拍|环绕拍摄", re.IGNORECASE)
_STILL = re.compile(
    r"\b(?:camera|shot|frame)\b[^.,;]{0,20}\b(?:fixed|static|still|steady|motionless|locked)|"
    r"\b(?:fixed|static|still|locked-off) (?:camera|shot|frame)|镜头(?:固定|静止|不动|保持)|固定镜头", re.IGNORECASE)
_CLAUSE = re.compile(
    r"[,;]\s+|[，；]|\s+(?=(?:as|while|and|with)\s+(?:the\s+|a\s+)?camera\b)")
_HAN = re.compile(r"[一-鿿]")
_MOST: Mapping[Language, tuple[int, int]] = {"en": (120, 80), "zh": (48, 32)}  # characters of a text and of a list's
_LEAST = 2
_FIXED: Mapping[Language, str] = {"en": "The camera stays fixed.", "zh": "镜头固定不动。"}


class Shot(BaseModel):
    """A video in fields. `motions` follow one another in time; each begins with its verb."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    subject: Phrase = Bounded(min_length=_LEAST)
    motions: Phrases = ()
    secondary_motion: Phrases = ()
    setting: Phrase = ""
    camera: Phrase = ""
    light: Phrase = ""
    style: Phrase = ""
    avoid: Phrases = ()


def schema_of(fields: Sequence[Field], language: Language) -> dict[str, Any]:
    """JSON schema of a shot with these fields, in this order; all of them are there, if empty.

    Its longest text is some 350 tokens of Qwen's, 4 English letters or 1.5 Chinese characters each, and so is not cut.
    """
    lists = {"motions": 3, "secondary_motion": 2, "avoid": 3}
    text, phrase = _MOST[language]
    known: dict[str, Any] = {
        name: {"type": "array", "items": {"type": "string", "maxLength": phrase}, "maxItems": lists[name]}
        if name in lists else {"type": "string", "maxLength": text} for name in fields}
    if "motions" in known:
        known["motions"]["minItems"] = 1
    if "subject" in known:
        known["subject"]["minLength"] = _LEAST  # what `Shot` refuses, no model may write: it would be asked again
    return {"type": "object", "properties": known, "required": list(known), "additionalProperties": False}


def read_shot(text: str) -> Shot | None:
    """Of the first JSON object in the text; None where there is none, or it is no shot."""
    try:
        return Shot.model_validate(first_object(text))
    except ValidationError:
        return None


def first_object(text: str) -> Any:
    """The first JSON object in the text, after its thinking; None where there is none."""
    text = text.rpartition("</think>")[2]
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or end < begin:
        return None
    try:
        return json.loads(text[begin: end + 1])
    except (ValueError, RecursionError):
        return None


def names_camera(*texts: str | None) -> bool:
    """Whether a camera move, or its absence, is spoken of."""
    return any(_CAMERA.search(text) is not None for text in texts if text)


def asks_for_move(*texts: str | None) -> bool:
    """Whether a camera move is spoken of, not only that the camera stays where it is."""
    sentences = [sentence for text in texts if text for sentence in _sentences(text)]
    return any(_CAMERA.search(sentence) and not _STILL.search(sentence) for sentence in sentences)


def say(
    shot: Shot, fields: Sequence[Field], language: Language, *, camera_asked: str = "", may_invent: bool = False,
    fixed: bool = False,
) -> str:
    """The shot in words.

    Args:
        camera_asked: the user's words that speak of the camera; empty: nobody did.
        may_invent: whether the shot's own camera is said although nobody asked for one.
        fixed: whether it is said that the camera stays where it is, if nothing else is.
    """
    shown = dict(shot)
    if _HAN.search(camera_asked) if language == "en" else not _HAN.search(camera_asked):
        camera_asked = ""  # in another language: the model has said it in this one, or nobody has
    if not names_camera(shown["camera"]) if asks_for_move(camera_asked) else not may_invent:
        shown["camera"] = camera_asked
    parts: list[str] = []
    for field in fields:
        if field == "subject":
            parts.append(_acting(shot.subject, shot.motions if "motions" in fields else (), language))
        elif field == "secondary_motion":
            parts.append(("，" if language == "zh" else ", ").join(_bare(one) for one in shot.secondary_motion))
        elif field == "camera":
            parts.append(shown["camera"] or (_FIXED[language] if fixed else ""))
        elif field not in ("motions", "avoid"):
            parts.append(shown[field])
    if "camera" not in fields:
        parts.append(shown["camera"])
    return ("" if language == "zh" else " ").join(_sentence(part, language) for part in parts if _bare(part))


def without_camera(text: str, language: Language) -> str:
    """The text without the camera moves that it speaks of; that the camera stays fixed may be said."""
    kept: list[str] = []
    if not asks_for_move(text):
        return text
    for sentence in re.findall(r"[^.!?。！？]*[.!?。！？]+[\"'”’」』]*\s*|[^.!?。！？]+$", text):
        if not _CAMERA.search(sentence) or _STILL.search(sentence):
            kept.append(sentence)
            continue
        clauses = [part for part in _CLAUSE.split(sentence) if part and not _CAMERA.search(part)]
        rest = ("，" if language == "zh" else ", ").join(_bare(part) for part in clauses if _bare(part))
        if len(rest) >= (4 if language == "zh" else 8):  # else it was about the camera
            kept.append(_sentence(rest, language) + ("" if language == "zh" else " "))
    return "".join(kept).strip() or text


def camera_words(text: str | None) -> str:
    """The sentences of the user's words that speak of the camera."""
    return " ".join(part.strip() for part in _sentences(text or "") if _CAMERA.search(part))


def _sentences(text: str) -> list[str]:
    return re.findall(r"[^.!?;。！？；]+[.!?;。！？；]*", text)


def _acting(subject: str, motions: Sequence[str], language: Language) -> str:
    then = "，然后" if language == "zh" else ", then "
    does = then.join(_bare(motion) for motion in motions if _bare(motion))
    return _bare(subject) + (("" if language == "zh" else " ") + does if does else "")


def _bare(text: str) -> str:
    return " ".join(text.split()).strip(" .,;。，；")


def _sentence(text: str, language: Language) -> str:
    bare = " ".join(text.split()).rstrip(" ,;，；")
    bare = bare[:1].upper() + bare[1:]
    ended = bare.endswith((".", "!", "?", "。", "！", "？", "”", '"'))
    return bare if ended else bare + ("。" if language == "zh" else ".")
