"""Caption by rule: what is there and how surely, then colour and light, then the surroundings."""

from contracts.describe import Language
from vl_service import tones
from vl_service.scene import Scene


def write_caption(scene: Scene, language: Language) -> str:
    """Two to four sentences, honest about what is not known."""
    joiner = "" if language == "zh" else " "
    return joiner.join([what(scene, language), colour_and_light(scene, language),
                        *tones.surroundings(scene, language)[:2]])


def what(scene: Scene, language: Language) -> str:
    """The sentence that names the subject, or says that it is not known."""
    return _what_zh(scene) if language == "zh" else _what_en(scene)


def _what_en(scene: Scene) -> str:
    subject = scene.subject
    if subject is None:
        if not scene.guesses:
            return "I cannot tell what this picture shows."
        guesses = tones.listed([name.en for name in scene.guesses], "en", last="or")
        if scene.group_is_sure:
            return f"Some kind of {scene.group_words.en}; I am unsure which, perhaps {guesses}."
        return f"I am unsure what this picture shows; perhaps {guesses}."
    where = "filling most of the picture" if scene.extent > 0.5 else tones.place(scene, "en")
    if scene.sureness == "likely":
        return f"Probably {subject.en} ({scene.confidence:.0%} sure), {where}."
    return f"{subject.en[0].upper()}{subject.en[1:]}{',' if scene.extent > 0.5 else ''} {where}."


def _what_zh(scene: Scene) -> str:
    subject = scene.subject
    if subject is None:
        if not scene.guesses:
            return "看不出这张图片拍的是什么。"
        guesses = tones.listed([name.zh for name in scene.guesses], "zh", last="or")
        if scene.group_is_sure:
            return f"画面里是某种{scene.group_words.zh}，不确定具体是什么，也许是{guesses}。"
        return f"不确定这张图片拍的是什么，也许是{guesses}。"
    where = tones.place(scene, "zh")
    if scene.sureness == "likely":
        return f"{where}可能是{subject.zh}（把握约{scene.confidence:.0%}）。"
    return f"{subject.zh}几乎占满画面。" if scene.extent > 0.5 else f"{where}是{subject.zh}。"


def colour_and_light(scene: Scene, language: Language) -> str:
    """One sentence on colours, light and focus."""
    return _colour_zh(scene) if language == "zh" else _colour_en(scene)


def _colour_en(scene: Scene) -> str:
    facts = scene.facts
    ending = tones.light(facts, "en")
    if (contrast := tones.tone(facts, "contrast", "en")) != "moderate contrast":
        ending += f" with {contrast}"
    if (focus := tones.tone(facts, "sharpness", "en")) != "sharp":
        ending += f", {focus}"
    if tones.is_grey(facts):
        return f"A black-and-white picture {ending}."
    warmth, vivid = tones.tone(facts, "warmth", "en"), tones.tone(facts, "colourfulness", "en")
    manner = ", ".join(word for word in (warmth, vivid) if word not in ("natural", "neutral"))
    if facts.palette[0].share > 0.8:
        return f"Almost all of it is {tones.colours(facts, 'en', at_most=1)}, {ending}."
    start = f"{manner} tones of" if manner else "tones of"
    return f"{start[0].upper()}{start[1:]} {tones.colours(facts, 'en')}, {ending}."


def _colour_zh(scene: Scene) -> str:
    facts = scene.facts
    qualities = [tones.light(facts, "zh")]
    if (contrast := tones.tone(facts, "contrast", "zh")) != "反差适中":
        qualities.append(contrast)
    if (focus := tones.tone(facts, "sharpness", "zh")) != "清晰":
        qualities.append(f"画面{focus}")
    ending = "，".join(qualities)
    if tones.is_grey(facts):
        return f"这是一张黑白图片，{ending}。"
    if (warmth := tones.tone(facts, "warmth", "zh")) != "冷暖适中":
        ending = f"整体{warmth}，{ending}"
    if facts.palette[0].share > 0.8:
        return f"画面几乎全是{tones.colours(facts, 'zh', at_most=1)}，{ending}。"
    return f"色调以{tones.colours(facts, 'zh')}为主，{ending}。"
