"""Questions answered from the scene record by rule; what it does not hold is said not to be known."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from contracts.describe import Language
from vl_service import tones
from vl_service.caption import what, write_caption
from vl_service.colours import known_colours
from vl_service.kinds import Kind, vocabulary, with_article
from vl_service.scene import Scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, and how sure it is where that is measured (0..1)."""

    text: str
    confidence: float | None = None


def answer_question(scene: Scene, question: str, language: Language) -> Reply:
    """Answer in `language`; the question may be in either. The first rule that fits answers."""
    asked = " ".join(question.lower().split())
    for pattern, rule in _RULES:
        if pattern.search(asked) and (reply := rule(scene, asked, language)) is not None:
            return reply
    return _cannot(scene, language)


def _cannot(scene: Scene, language: Language) -> Reply:
    known = what(scene, language)
    if language == "zh":
        return Reply(text=f"这个问题我无法从图片中判断。我能看出的是：{known}")
    return Reply(text=f"I cannot tell that from the picture. What I can tell: {known}")


def _not_measured(subject_en: str, subject_zh: str) -> Callable[[Scene, str, Language], Reply | None]:
    def rule(scene: Scene, asked: str, language: Language) -> Reply | None:
        if language == "zh":
            return Reply(text=f"{subject_zh}，无法判断。")
        return Reply(text=f"I cannot tell: {subject_en}.")
    return rule


def _colour(scene: Scene, asked: str, language: Language) -> Reply | None:
    facts = scene.facts
    if tones.is_grey(facts):
        return Reply(text="这是一张黑白图片。" if language == "zh" else "The picture is black and white.")
    if re.search(r"background|backdrop|背景", asked) and facts.layout.backdrop is not None:
        return Reply(text=tones.surroundings(scene, language)[0])
    shares = "、" if language == "zh" else ", "
    names = known_colours()
    listed = shares.join(
        f"{names[colour.name] if language == 'zh' else colour.name} {colour.share:.0%}" for colour in facts.palette)
    if language == "zh":
        return Reply(text=f"画面的主要颜色：{listed}。我只测量整幅画面，不区分单个物体的颜色。")
    return Reply(text=f"The main colours of the picture are {listed}. I measure the picture as a whole, "
                      "not the colour of single things.")


def _where(scene: Scene, asked: str, language: Language) -> Reply | None:
    if _asks_location(asked):
        return Reply(text="拍摄地点从画面上看不出来。" if language == "zh"
                     else "The picture does not tell where it was taken.")
    spot = tones.place(scene, language)
    if scene.subject is None:
        return Reply(text=f"不确定主体是什么，画面细节主要集中在{spot}。" if language == "zh"
                     else f"I am unsure what the subject is; most of the detail lies {spot}.")
    it = scene.subject.definite(language)
    text = f"{it}在{spot}。" if language == "zh" else f"{it[0].upper()}{it[1:]} is {spot}."
    return Reply(text=text, confidence=scene.confidence)


def _asks_location(asked: str) -> bool:
    return bool(re.search(r"where (?:was|were|is) (?:this|the|it)(?: \w+)? (?:taken|shot|made)|which (?:city|country)|"
                          r"what (?:city|country)|在哪(?:里|儿)拍|哪个(?:城市|国家)|拍摄地", asked))


def _brightness(scene: Scene, asked: str, language: Language) -> Reply | None:
    facts = scene.facts
    light, contrast = tones.tone(facts, "brightness", language), tones.tone(facts, "contrast", language)
    if language == "zh":
        return Reply(text=f"画面{light}（平均亮度 {facts.brightness:.0%}），{contrast}。")
    return Reply(text=f"The picture is {light} (mean lightness {facts.brightness:.0%}) with {contrast}.")


def _sharpness(scene: Scene, asked: str, language: Language) -> Reply | None:
    word = tones.tone(scene.facts, "sharpness", language)
    return Reply(text=f"画面{word}。" if language == "zh" else f"The picture is {word}.")


def _setting(scene: Scene, asked: str, language: Language) -> Reply | None:
    texts = {
        "indoors": ("It looks like it was taken indoors.", "看起来是在室内。"),
        "outdoors": ("It looks like it was taken outdoors.", "看起来是在室外。"),
        "unclear": ("I cannot tell whether it is indoors or outdoors.", "无法判断是室内还是室外。"),
    }
    return Reply(text=texts[scene.setting][language == "zh"])


def _size(scene: Scene, asked: str, language: Language) -> Reply | None:
    facts = scene.facts
    shape_zh = {"landscape": "横幅", "portrait": "竖幅", "square": "方形"}[scene.shape]
    if language == "zh":
        return Reply(text=f"{shape_zh}，{facts.width}×{facts.height} 像素。")
    return Reply(text=f"It is a {scene.shape} picture of {facts.width}x{facts.height} pixels.")


def _nature(scene: Scene, asked: str, language: Language) -> Reply | None:
    layout = scene.facts.layout
    for pattern, share, en, zh in (
        (r"\bsky\b|天空", layout.sky, "sky", "天空"),
        (r"\bwater|\bsea\b|\blake\b|水|海|湖", layout.water, "water", "水面"),
        (r"green(?:ery)?\b|plants?\b|grass|植物|草|绿", layout.greenery, "green", "绿色"),
        (r"horizon|地平线|水平线", 0.0 if layout.horizon is None else 1.0, "level line", "水平线"),
    ):
        if not re.search(pattern, asked):
            continue
        amount = "" if en == "level line" else f" ({share:.0%} of the picture)"
        amount_zh = "" if en == "level line" else f"，约占画面 {share:.0%}"
        if share >= 0.06:
            return Reply(text=f"有像{zh}的区域{amount_zh}。" if language == "zh"
                         else f"Yes, there is something like a {en}{amount}." if en == "level line"
                         else f"Yes, part of it looks like {en}{amount}.")
        return Reply(text=f"我没有测到{zh}。" if language == "zh" else f"I do not measure any {en} in it.")
    return None


def _is_there(scene: Scene, asked: str, language: Language) -> Reply | None:
    """Yes or no about a thing that the tower has a word for."""
    found = _asked_thing(asked)
    if found is None:
        return None
    kind, class_name = found
    name = next((name for name in scene.names if name.kind is kind), None)
    named_otherwise = class_name is not None and name is not None and class_name not in (name.en, name.zh)
    if name is not None and name.probability >= 0.3 and not named_otherwise:
        sure = f"{name.probability:.0%}"
        return Reply(confidence=name.probability, text=f"是的，看起来有{name.zh}（把握约{sure}）。"
                     if language == "zh" else f"Yes, I see {name.en} ({sure} sure).")
    thing = class_name or (f"一{kind.measure}{kind.zh}" if language == "zh" else with_article(kind.en))
    if scene.sureness == "unsure":
        return Reply(text=f"不确定；没有明显看到{thing}。" if language == "zh"
                     else f"I am unsure; I do not clearly see {thing}.")
    return Reply(text=f"我没有看到{thing}。{what(scene, 'zh')}" if language == "zh"
                 else f"I do not see {thing}. {what(scene, 'en')}", confidence=scene.confidence)


def _asked_thing(asked: str) -> tuple[Kind, str | None] | None:
    """The kind that a question names, and the phrase of the class where it names one of those."""
    words = vocabulary()
    for number in range(len(words.class_en)):
        kind, chinese = words.kind_of[number], words.class_zh.get(number)
        noun = words.class_en[number].lower()
        if noun in asked and re.search(rf"\b{re.escape(noun)}(?:s|es)?\b", asked):
            return kind, with_article(words.class_en[number])
        if chinese is not None and len(chinese) > 1 and chinese in asked:
            return kind, chinese if chinese.startswith("一") else f"一{kind.measure}{chinese}"
    for kind in words.kinds:
        english = re.search(rf"\b{re.escape(kind.en)}(?:s|es)?\b", asked)
        if english or (kind.zh in asked if len(kind.zh) > 1 else re.search(f"(?:是|有|只|条|匹|头){kind.zh}", asked)):
            return kind, None
    return None


def _describe(scene: Scene, asked: str, language: Language) -> Reply | None:
    return Reply(text=write_caption(scene, language), confidence=scene.confidence)


def _what(scene: Scene, asked: str, language: Language) -> Reply | None:
    if scene.sureness != "sure":
        return Reply(text=what(scene, language), confidence=scene.confidence)
    name = scene.names[0].in_language(language)
    text = (f"是{name}，把握约{scene.confidence:.0%}。" if language == "zh"
            else f"It is {name}; I am {scene.confidence:.0%} sure.")
    return Reply(text=text, confidence=scene.confidence)


_RULES: tuple[tuple[re.Pattern[str], Callable[[Scene, str, Language], Reply | None]], ...] = tuple(
    (re.compile(pattern), rule) for pattern, rule in (
        (r"how many|\bcount\b|number of|多少(?:个|只|条|辆|人|张)|几(?:个|只|条|辆|人|张)",
         _not_measured("I name the main subject but do not count things", "我能说出主体，但不会数数量")),
        (r"\btext\b|\bwritten\b|\bread\b|\bwords?\b|\bsays?\b|文字|写着|写了|字样",
         _not_measured("I do not read text in pictures", "我不识别图片中的文字")),
        (r"\bwho\b|\bname of\b|\bfeel|emotion|mood of|\bage\b|how old|是谁|叫什么|情绪|几岁|年龄",
         _not_measured("I do not recognise people, feelings or ages", "我不识别人物身份、情绪或年龄")),
        (r"\bwhy\b|为什么", _not_measured("reasons are not in the picture", "原因无法从画面看出")),
        (r"weather|season|time\b|\byear\b|\bdate\b|price|\bcost|brand|\bmodel\b|heavy|weigh|"
         r"how (?:big|large|tall|far|long)|天气|季节|几点|时间|哪年|价格|品牌|型号|多重|多大|多高|多远",
         _not_measured("I measure the picture, not the world behind it", "我只测量画面本身，不了解画面之外的事")),
        (r"colou?r|颜色|什么色|色调", _colour),
        (r"\bindoors?\b|\boutdoors?\b|\binside\b|\boutside\b|室内|室外|户外", _setting),
        (r"bright|\bdark|\blight(?:ing)?\b|contrast|exposure|亮|暗|光线|反差|对比", _brightness),
        (r"sharp|blur|focus|清晰|模糊|对焦", _sharpness),
        (r"\bsize\b|resolution|pixels|portrait|landscape or|orientation|wide|尺寸|分辨率|像素|横|竖", _size),
        (r"\bsky\b|\bwater\b|\bsea\b|\blake\b|greenery|plants?\b|grass|horizon|天空|水|海|湖|植物|草|地平线|水平线",
         _nature),
        (r"\bwhere\b|position|哪里|哪儿|位置|哪边", _where),
        (r"\b(?:person|people|man|men|woman|women|child|children|boy|girl|face|human|someone|anyone)\b|人|脸",
         _not_measured("I am not made to see people", "我不具备识别人物的能力")),
        (r"\b(?:is|are) there\b|\b(?:do|can) you see\b|^(?:is|are) (?:this|that|it|these|those)\b|\bany\b|"
         r"是不是|有没有|是否|有.*吗|是.*吗", _is_there),
        (r"\bdoing\b|happen|在做什么|在干什么|做什么|干什么|发生",
         _not_measured("what goes on is more than a still picture tells me", "画面里正在发生什么")),
        (r"describe|tell me about|描述|讲讲", _describe),
        (r"^what(?:'s| is| are| do| does| did| can| kind| type| sort| animal| object| thing)\b.*"
         r"(?:\bthis|\bthat|\bit\b|\bthese|\bin\b|picture|image|photo|\bsee|subject|show|object|animal|thing)|"
         r"^which (?:animal|object|thing|kind)|subject|什么|哪种|主体", _what),
    )
)
