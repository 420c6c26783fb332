"""Chinese texts about a sight: caption, prompts in parts, three suggestions."""

import random

from training.vl.texts.english import GOES_ON
from training.vl.texts.fitting_motions import motions
from training.vl.texts.sight import Sight
from vl_service.embedded.vision.colours import colour_name
from vl_service.embedded.vision.kinds import vocabulary

NUMBERS = {1: "一", 2: "两", 3: "三", 4: "四"}
SPOTS = {
    ("top", "left"): "左上方",
    ("top", "centre"): "上方",
    ("top", "right"): "右上方",
    ("middle", "left"): "左侧",
    ("middle", "centre"): "中央",
    ("middle", "right"): "右侧",
    ("bottom", "left"): "左下方",
    ("bottom", "centre"): "下方",
    ("bottom", "right"): "右下方",
}
_LIGHT = {"very dark": "几乎没有光线", "dim": "光线昏暗", "even": "光线均匀", "bright": "光线明亮"}
_PLACES = {"indoors": "室内", "outdoors": "户外", "under water": "水下"}


def noun(sight: Sight) -> str:
    """The noun as far as it is known."""
    if sight.thing is None:
        return "主体"
    return sight.thing.kind_zh if sight.sureness == "unsure" else sight.thing.zh


def phrase(sight: Sight, colour: bool = False) -> str:
    """ "一只虎斑猫", "三个红苹果", "某种动物"."""
    if sight.thing is None:
        return "说不出名字的东西"
    if sight.sureness == "unsure":
        return (
            f"某种{sight.thing.kind_zh}"
            if sight.count == 1
            else f"{NUMBERS[sight.count]}{sight.thing.measure}某种{sight.thing.kind_zh}"
        )
    tint = f"{colour_name(sight.colour, 'zh')}的" if colour and sight.colour else ""
    return f"{NUMBERS[sight.count]}{sight.thing.measure}{tint}{sight.thing.zh}"


def definite(sight: Sight) -> str:
    """ "虎斑猫", "这三个苹果"."""
    if sight.count > 1 and sight.thing is not None:
        return f"这{NUMBERS[sight.count]}{sight.thing.measure}{noun(sight)}"
    return noun(sight)


def listed(words: list[str]) -> str:
    """ "甲、乙和丙"."""
    return words[0] if len(words) == 1 else "、".join(words[:-1]) + f"和{words[-1]}"


def tones(sight: Sight, at_most: int = 2) -> str:
    """ "棕色和米色", "黑白"."""
    return "黑白" if sight.grey else listed([colour_name(name, "zh") for name in sight.palette(at_most)])


def light(sight: Sight) -> str:
    """ "光线昏暗，色调偏暖"."""
    tint = {"warm": "，色调偏暖", "cool": "，色调偏冷", "": ""}[sight.warmth]
    return _LIGHT[sight.light] + tint + ("，明暗分明" if sight.facts.contrast > 0.72 else "")


def backdrop(sight: Sight) -> list[str]:
    """What lies around the subject."""
    layout, found = sight.facts.layout, []
    if layout.backdrop is not None:
        return [f"纯净的{colour_name(layout.backdrop, 'zh')}背景"]
    if layout.sky >= 0.12:
        found.append("上方开阔的天空")
    if layout.water >= 0.12:
        found.append("下方的水面")
    if layout.greenery >= 0.25 and sight.setting == "outdoors":
        found.append("四周的绿意")
    return found


def caption(sight: Sight, rng: random.Random) -> str:
    """Two or three sentences."""
    spot = f"画面{SPOTS[sight.level, sight.side]}"
    what = phrase(sight, colour=rng.random() < 0.5)
    if sight.thing is None:
        first = "不确定这张图片拍的是什么。"
    elif sight.sureness == "unsure":
        first = f"{spot}是{what}，不确定具体是哪一种。"
    elif sight.sureness == "likely":
        first = f"{spot}可能是{phrase(sight)}。"
    else:
        first = f"{what}几乎占满画面。" if sight.size == "large" else f"{spot}是{what}。"
    around = backdrop(sight)
    place = _PLACES.get(sight.setting, "")
    second = f"拍摄于{place}" if place else "背景是" + listed(around) if around else ""
    if place and around:
        second += f"，可见{listed(around)}"
    third = f"这是一张黑白图片，{light(sight)}。" if sight.grey else f"主要颜色是{tones(sight, 3)}，{light(sight)}。"
    return first + (f"{second}。" if second else "") + third


def _living(sight: Sight, rng: random.Random) -> str:
    if sight.thing is None:
        return "光影在画面上缓缓移动。"
    text = rng.choice(vocabulary().groups[sight.thing.group].living["zh"])
    return f"{definite(sight)}依次{text}。" if sight.count > 1 else f"{definite(sight)}{text}。"


def _then(sight: Sight, rng: random.Random) -> str:
    if sight.thing is None:
        return "随后光线变化，影子的形状慢慢改变。"
    return f"随后{'它们' if sight.count > 1 else '它'}{rng.choice(GOES_ON[sight.thing.group]['zh'])}。"


def _ambience(sight: Sight, rng: random.Random) -> str:
    layout, found = sight.facts.layout, []
    if layout.sky >= 0.12:
        found.append("云在天空中缓缓飘动")
    if layout.water >= 0.12:
        found.append("水面泛起细小的波纹")
    if layout.greenery >= 0.25 and sight.setting == "outdoors":
        found.append("枝叶在微风中轻摇")
    if sight.setting == "under water":
        found.append("细小的气泡在水中上升")
    if not found:
        found.append(rng.choice(("柔和的影子几乎不被察觉地移动", "空气中有微光浮动", "细尘在光中漂浮")))
    return "，".join(found) + "。"


def _setting(sight: Sight) -> str:
    place = {"indoors": "环境是室内", "outdoors": "环境是开阔的户外", "under water": "环境是水下"}.get(
        sight.setting, "场景简洁"
    )
    around = backdrop(sight)
    return place + (f"，有{listed(around)}" if around else "") + "，背景安静而略微虚化。"


def prompt(sight: Sight, profile: str, rng: random.Random) -> list[tuple[str, str]]:
    """Parts of a prompt in the profile's order: (part, text)."""
    if profile == "embedded":
        subject = f"{phrase(sight)}的照片。" if sight.thing else f"一张{tones(sight)}调的照片。"
        return [("photo", subject), ("motion", motions(sight, rng)[0].sentence("zh", definite(sight)))]
    living = _living(sight, rng) + _then(sight, rng)
    if profile == "wan2.2":
        return [
            ("motion", living),
            ("ambience", _ambience(sight, rng)),
            ("light", f"{light(sight)}，变化很小。"),
            ("camera", "镜头固定。"),
        ]
    size = {"large": "近景", "medium": "中景", "small": "远景"}[sight.size]
    what = f"{phrase(sight, colour=True)}，" if sight.thing else ""
    shot = f"{size}，{what}位于画面{SPOTS[sight.level, sight.side]}，{tones(sight, 3)}的色调，细节清晰。"
    return [
        ("shot", shot),
        ("motion", living),
        ("ambience", _ambience(sight, rng)),
        ("setting", _setting(sight)),
        ("light", f"{light(sight)}，整体氛围自然而宁静。"),
    ]


def edits(sight: Sight, rng: random.Random) -> list[str]:
    """Three suggestions."""
    fitting = motions(sight, rng)
    lines = [fitting[0].sentence("zh", definite(sight)).rstrip("。")]
    if sight.thing is not None:
        lines.append(rng.choice(vocabulary().groups[sight.thing.group].edits["zh"]))
    else:
        other = next(motion for motion in fitting if motion.name.split("_")[0] != fitting[0].name.split("_")[0])
        lines.append(other.sentence("zh", definite(sight)).rstrip("。"))
    lines.append(
        "让柔和的色彩慢慢回到画面"
        if sight.grey
        else "让光线慢慢变亮"
        if sight.light in ("very dark", "dim")
        else "让暮色降临，只留边缘的微光"
    )
    return lines
