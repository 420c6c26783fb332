"""Questions in words of their own → the wording that the decoder was taught, in the language of the answer.

It was taught some ten questions in some sixty wordings, and people have many more. What is recognised here is asked in
plain words. The decoder knows the subject and the whole picture: a question about anything else is not put to it, or it
would tell of the subject.
"""

import re
from dataclasses import dataclass
from typing import Literal

from contracts.describe import Language
from vl_service.embedded.text.asked_about import About, Kind, asked_about
from vl_service.embedded.text.subject_words import SubjectWords

_PRESENCE = re.compile(
    r"^(?:is|are|was|were) there\b|\b(?:do|can|could) (?:you|i|we|one) see (?:an?|any|some)\b|有没有|有.*吗")
_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("setting", r"^(?!.*(?:colou?r|how (?:many|bright|dark)|颜色|几个|多少)).*"
                r"(?:\bindoors?\b|\boutdoors?\b|\binside\b|\boutside\b|室内|室外|户外|屋里|屋外)"),
    ("unknown", r"\bwho(?:se)?\b|\b(?:his|her|its|the) name\b|\bname of|\btext\b|\bwritten\b|\bread\b|\bsays\b|"
                r"\bdoes .*\bsay\b|\bwhy\b|\bwhen\b|weather|season|\btime\b|\byear\b|\bdate\b|price|\bcost|brand|"
                r"resolution|pixels|\bcity\b|\bcountry\b|\bdoing\b|happen|"
                r"how (?:old|big|large|tall|heavy|far|long|much)\b|where (?:was|were) |"
                r"\bbehind\b|background|\bday or night\b|\bsmell|\btaste|\bsound"),
    ("unknown", r"是谁|叫什么名字|文字|写着|写了|字样|为什么|什么时候|几点|哪年|哪个(?:城市|国家)|天气|季节|价格|"
                r"多少钱|品牌|牌子|分辨率|像素|做什么|干什么|发生|多(?:大|重|高|远)|在哪(?:里|儿)拍|拍摄地|背景|白天|晚上"),
    ("colours", r"how many (?:\w+ )?colou?rs|[几少]种?颜色"),
    ("how many", r"how many|\bcount(?:ed)?\b|number of|数量|数一?数|"
                 r"多少(?:个|只|条|辆|张)?|几(?:个|只|条|辆|张|朵|把)"),
    ("colours", r"\bcolou?rs\b|palette|colou?r.* mostly|颜色为主|(?:整体|主要|哪些|主)颜?色[调彩]?|色调|"
                r"(?:dominant|main|overall|whole picture).{0,12}(?:colou?r|hue|tone)"),
    ("colours", r"colou?r (?:is|of|does|has) (?:the|this) (?:whole |entire )?(?:picture|photo(?:graph)?|image|scene)\b"
                r"(?!'| show)|"
                r"(?:图片|图|画面|照片)(?:整体|的|是|呈)*(?:什么|哪种|啥)?颜色"),
    ("colour", r"colou?r|\bhue\b|\btint\b|颜色|毛色|什么色|哪种色"),
    ("where", r"\bwhere(?:abouts)?\b"),
    ("light", r"bright|\bdark\b|\blight(?:ing)?\b|exposure|亮|暗|光线"),
    ("sharp", r"sharp|blur|focus|清晰|模糊|对焦"),
    ("where", r"\bwhere(?:abouts)?\b|position|which (?:side|part|corner)|哪里|哪儿|位置|哪一?边|哪个角"),
    ("describe", r"\bdescribe|tell me about|描述|讲讲|介绍"),
    ("what", r"^what(?:'s| is| are)(?: there)? (?:on|in|at|under|near|next|beside|above|below|around|over|to)\b"),
    ("what", r"(?:\bwhat\b|\bwhich\b).*(?:\bthis\b|\bthat\b|\bit\b|\bthese\b|\bshown?\b|\bsee[ns]?\b|picture|image|"
             r"photo|\bthing|\bobject|\bsubject|\banimal)"),
    ("what", r"(?:什么|哪种|哪类).*(?:东西|物体|动物|主体|图|画|照片)|"
             r"(?:东西|物体|动物|主体|图|画|照片|看到).*(?:什么|哪种|哪类)|^这是什么"),
)
_READINGS: tuple[tuple[Kind, re.Pattern[str]], ...] = tuple((kind, re.compile(pattern)) for kind, pattern in _PATTERNS)
_COLOUR = next(pattern for kind, pattern in _READINGS if kind == "colour")
_COLOUR_WORD = (
    r"(?:light |dark |pale |bright |deep )?(?:black|white|gr[ea]y|red|orange|brown|beige|yellow|green|teal|turquoise|"
    r"cyan|blue|purple|violet|pink|golden|silver)")
# "is the sky blue?" asks for the colour of the sky; "is it an orange?" does not
_IS_COLOUR = re.compile(
    rf"^(?P<is>(?:is|are|was|were) (?!.*\ban? ).*?)(?: all| mostly| mainly)? {_COLOUR_WORD}"
    rf"(?:,? (?:or|and) {_COLOUR_WORD})*\W*$|"
    r"^(?P<ist>.+?)(?:是不是|是)[浅深暗]?[黑白红黄蓝绿紫灰棕褐粉橙青米金银]+色?的?(?:吗|么|嘛)?\W*$")
_ASKS_WHAT = re.compile(r"\b(?:what|which)\b|什么|哪")
_WITHIN = re.compile(
    r"\b(?:inside|outside) (?:of )?(?:the|an?|his|her|its|my) (?!house|home|building|room|picture|photo|image)")
_PLAIN: dict[Kind, dict[Language, str]] = {
    "unknown": {"en": "Who is this?", "zh": "这是谁？"},
    "how many": {"en": "How many are there?", "zh": "一共有几个？"},
    "setting": {"en": "Is it indoors or outdoors?", "zh": "是室内还是室外？"},
    "colours": {"en": "What are the main colours?", "zh": "主要颜色是什么？"},
    "colour": {"en": "What colour is it?", "zh": "它是什么颜色的？"},
    "light": {"en": "How is the light?", "zh": "光线怎么样？"},
    "sharp": {"en": "Is it sharp?", "zh": "清晰吗？"},
    "where": {"en": "Where is the subject?", "zh": "主体在画面的什么位置？"},
    "describe": {"en": "Describe the picture.", "zh": "描述一下这张图片。"},
    "what": {"en": "What is this?", "zh": "这是什么？"},
}
HOW_MANY = _PLAIN["how many"]
CANNOT_TELL: dict[Language, str] = {
    "en": "I cannot tell that from the picture.", "zh": "这从图片上看不出来。"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What becomes of a question."""

    way: Literal["as it is", "plain", "measured", "cannot tell"]
    plain: str = ""
    """The wording that the decoder was taught; of `plain` alone."""
    part: str = ""
    """A region, "background" or "ground", whose colour is asked; of `measured` alone."""


AS_IT_IS, REFUSED = Reading(way="as it is"), Reading(way="cannot tell")


def read_question(question: str, language: Language, subject: SubjectWords, place: frozenset[str]) -> Reading:
    """A question about a picture whose subject goes by these words and lies in these places (upper, left …).

    It goes to the decoder as it is where it is none of those that the decoder was taught, or asks what is there.
    """
    asked = " ".join(question.lower().split())
    if _PRESENCE.search(asked):
        return AS_IT_IS
    asked = _IS_COLOUR.sub(
        lambda match: f"what colour {match['is']}" if match["is"] else f"{match['ist']}是什么颜色", asked)
    if _COLOUR.search(asked) and (part := _part(asked_about(asked, "colour", subject))):
        return Reading(way="measured", part=part)
    kind: Kind | None = next((kind for kind, pattern in _READINGS if pattern.search(asked)), None)
    if kind is None:
        of_other = _ASKS_WHAT.search(asked) and not _about_subject(asked_about(asked, "what", subject), "what", place)
        return REFUSED if of_other else AS_IT_IS
    if kind == "unknown":
        return _plain(kind, language)
    if kind == "setting":
        return REFUSED if _WITHIN.search(asked) else _plain(kind, language)
    about = asked_about(_head_of(asked) if kind == "describe" else asked, kind, subject)
    if kind == "colours" and about.subject and not about.picture:
        kind = "colour"
    return _plain(kind, language) if _about_subject(about, kind, place) else REFUSED


def _plain(kind: Kind, language: Language) -> Reading:
    return Reading(way="plain", plain=_PLAIN[kind][language])


def _head_of(asked: str) -> str:
    """A request for a description without how it should be written."""
    return re.split(r"[,.;，。；]| (?:in|for|with|as|so|and|using|please|to)\b|用", asked)[0]


def _part(about: About) -> str:
    """The part of the picture that a question about a colour is about; empty where it is about a thing."""
    if about.other or about.head in ("subject", "generic"):
        return ""
    if about.parts:
        return about.parts[0] if len(about.parts) == 1 else ""
    level = [name for name in about.places if name in ("upper", "lower")]
    side = [name for name in about.places if name in ("left", "right")]
    if len(level) > 1 or len(side) > 1 or about.subject or about.generic:
        return ""
    return " ".join([*level[:1], *side[:1]]) or next(iter(about.places), "")


def _about_subject(about: About, kind: Kind, place: frozenset[str]) -> bool:
    """Whether what is known of the subject, or of the whole picture, answers the question."""
    if about.other or (about.parts and (about.head != "subject" or kind not in ("colour", "where", "how many"))):
        return False
    if not about.places or (kind in ("colour", "colours") and about.subject):
        return True
    return kind in ("colour", "what") and set(about.places) <= place
