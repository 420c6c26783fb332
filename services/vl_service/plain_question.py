"""Questions in words of their own → the wording that the decoder was taught, in the language of the answer.

It was taught some ten questions in some sixty wordings, and people have many more. What is recognised here is asked in
plain words; the answer is the decoder's either way.
"""

import re

from contracts.describe import Language

_PRESENCE = re.compile(
    r"^(?:is|are|was|were) there\b|\b(?:do|can|could) (?:you|i|we|one) see (?:an?|any|some)\b|有没有|有.*吗")
_READINGS = tuple((about, re.compile(pattern)) for about, pattern in (
    ("setting", r"\bindoors?\b|\boutdoors?\b|\binside\b|\boutside\b|室内|室外|户外|屋里|屋外"),
    ("unknown", r"\bwho(?:se)?\b|\b(?:his|her|its|the) name\b|\bname of|\btext\b|\bwritten\b|\bread\b|\bsays\b|"
                r"\bdoes .*\bsay\b|\bwhy\b|\bwhen\b|weather|season|\btime\b|\byear\b|\bdate\b|price|\bcost|brand|"
                r"resolution|pixels|\bcity\b|\bcountry\b|\bdoing\b|happen|"
                r"how (?:old|big|large|tall|heavy|far|long|much)\b|where (?:was|were) |"
                r"\bbehind\b|background|\bday or night\b|\bsmell|\btaste|\bsound"),
    ("unknown", r"是谁|叫什么名字|文字|写着|写了|字样|为什么|什么时候|几点|哪年|哪个(?:城市|国家)|天气|季节|价格|"
                r"多少钱|品牌|牌子|分辨率|像素|做什么|干什么|发生|多(?:大|重|高|远)|在哪(?:里|儿)拍|拍摄地|背景|白天|晚上"),
    ("how many", r"how many|\bcount(?:ed)?\b|number of|数量|数一?数|"
                 r"多少(?:个|只|条|辆|张)?|几(?:个|只|条|辆|张|朵|把)"),
    ("colours", r"\bcolou?rs\b|palette|colou?r.* mostly|颜色为主|(?:整体|主要|哪些|主)颜?色[调彩]?|色调|"
                r"(?:dominant|main|overall|whole picture).{0,12}(?:colou?r|hue|tone)"),
    ("colour", r"colou?r|\bhue\b|\btint\b|颜色|什么色|哪种色"),
    ("light", r"bright|\bdark\b|\blight(?:ing)?\b|exposure|亮|暗|光线"),
    ("sharp", r"sharp|blur|focus|清晰|模糊|对焦"),
    ("where", r"\bwhere(?:abouts)?\b|position|which (?:side|part|corner)|哪里|哪儿|位置|哪一?边|哪个角"),
    ("describe", r"\bdescribe|tell me about|描述|讲讲|介绍"),
    ("what", r"(?:\bwhat\b|\bwhich\b).*(?:\bthis\b|\bthat\b|\bit\b|\bthese\b|\bshown?\b|\bsee[ns]?\b|picture|image|"
             r"photo|\bthing|\bobject|\bsubject|\banimal)"),
    ("what", r"(?:什么|哪种|哪类).*(?:东西|物体|动物|主体|图|画|照片)|"
             r"(?:东西|物体|动物|主体|图|画|照片|看到).*(?:什么|哪种|哪类)|^这是什么"),
))
_PLAIN: dict[str, dict[Language, str]] = {
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
CANNOT_TELL: dict[Language, str] = {
    "en": "I cannot tell that from the picture.", "zh": "这从图片上看不出来。"}


def plainly(question: str, language: Language) -> str | None:
    """The question as the decoder was taught it; `None` where it is none of those, or asks for one thing by name."""
    asked = " ".join(question.lower().split())
    if _PRESENCE.search(asked):
        return None
    about = next((about for about, pattern in _READINGS if pattern.search(asked)), None)
    return None if about is None else _PLAIN[about][language]
