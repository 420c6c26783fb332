"""English texts about a sight: caption, prompts in parts, three suggestions, answers."""

import random
import re
import tomllib
from pathlib import Path

from training.vl.texts.fitting_motions import motions
from training.vl.texts.sight import Sight
from vl_service.embedded.vision.kinds import vocabulary, with_article

GOES_ON = tomllib.loads((Path(__file__).parent / "words.toml").read_text("utf-8"))
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
SPOTS = {
    ("top", "left"): "in the upper left",
    ("top", "centre"): "in the upper half",
    ("top", "right"): "in the upper right",
    ("middle", "left"): "on the left",
    ("middle", "centre"): "in the centre",
    ("middle", "right"): "on the right",
    ("bottom", "left"): "in the lower left",
    ("bottom", "centre"): "in the lower half",
    ("bottom", "right"): "in the lower right",
}
_IRREGULAR = {
    "mouse": "mice",
    "goose": "geese",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "person": "people",
    "man": "men",
    "woman": "women",
    "child": "children",
    "tooth": "teeth",
    "foot": "feet",
    "bison": "bison",
    "shrimp": "shrimp",
    "squid": "squid",
    "knife": "knives",
    "leaf": "leaves",
    "wolf": "wolves",
}


def plural(noun: str) -> str:
    """The plural of a noun phrase without article."""
    for link in (" of ", " to "):
        first, found, rest = noun.partition(link)
        if found:
            return f"{plural(first)}{link}{rest}"
    head, _, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif re.search(r"(s|x|z|ch|sh)$", last):
        last += "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return f"{head} {last}".strip()


def noun(sight: Sight) -> str:
    """The noun as far as it is known, without article."""
    if sight.thing is None:
        return "subject"
    return sight.thing.kind_en if sight.sureness == "unsure" else sight.thing.en


def phrase(sight: Sight, colour: bool = False) -> str:
    """ "a tabby cat", "three red apples", "some kind of animal"."""
    thing = sight.thing
    if thing is None:
        return "something that I cannot name"
    if sight.sureness == "unsure":
        return (
            f"some kind of {thing.kind_en}"
            if sight.count == 1
            else f"{NUMBERS[sight.count]} of some kind of {thing.kind_en}"
        )
    tint = f"{sight.colour} " if colour and sight.colour and sight.colour.split()[-1] not in thing.en else ""
    if sight.count > 1:
        return f"{NUMBERS[sight.count]} {tint}{plural(thing.en)}"
    if thing.plural:
        return f"some {tint}{thing.en}"
    return with_article(f"{tint}{thing.en}")


def definite(sight: Sight) -> str:
    """ "the tabby cat", "the three apples"."""
    name = noun(sight)
    return f"the {NUMBERS[sight.count]} {plural(name)}" if sight.count > 1 else f"the {name}"


def spot(sight: Sight) -> str:
    """Where the subject is."""
    return (
        "filling most of the picture" if sight.size == "large" else f"{SPOTS[sight.level, sight.side]} of the picture"
    )


def upper(text: str) -> str:
    """With a capital first letter."""
    return text[0].upper() + text[1:]


def listed(words: list[str]) -> str:
    """ "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f" and {words[-1]}"


def light(sight: Sight) -> str:
    """ "dim warm light", "bright light with deep contrast"."""
    words = " ".join(part for part in (sight.light, sight.warmth) if part)
    return f"{words} light" + (" with deep contrast" if sight.facts.contrast > 0.72 else "")


def backdrop(sight: Sight) -> list[str]:
    """What lies around the subject, as noun phrases."""
    layout, found = sight.facts.layout, []
    if layout.backdrop is not None:
        return [f"a plain {layout.backdrop} background"]
    if layout.sky >= 0.12:
        found.append("open sky above")
    if layout.water >= 0.12:
        found.append("water below")
    if layout.greenery >= 0.25 and sight.setting == "outdoors":
        found.append("green all around")
    return found


def tones(sight: Sight, at_most: int = 2) -> str:
    """ "brown and beige", "black and white"."""
    return "black and white" if sight.grey else listed(sight.palette(at_most))


def caption(sight: Sight, rng: random.Random) -> str:
    """Two or three sentences."""
    where = {"indoors": "indoors", "outdoors": "outdoors", "under water": "under water"}.get(sight.setting, "")
    start = upper(phrase(sight, colour=rng.random() < 0.5))
    if sight.thing is None:
        first = "I am unsure what this picture shows."
    elif sight.sureness == "unsure":
        first = f"{start}, {spot(sight)}; I am unsure which one."
    elif sight.sureness == "likely":
        first = f"Probably {phrase(sight)}, {spot(sight)}."
    else:
        first = f"{start}{',' if sight.size == 'large' or rng.random() < 0.3 else ''} {spot(sight)}."
    around = backdrop(sight)
    second = ""
    if where or around:
        second = f"It was taken {where}" if where else f"There is {listed(around)}"
        second += f", with {listed(around)}." if where and around else "."
    if sight.grey:
        third = f"The picture is black and white, in {light(sight)}."
    else:
        third = f"The main colours are {tones(sight, 3)}, in {light(sight)}."
    return " ".join(part for part in (first, second, third) if part)


def _living(sight: Sight, rng: random.Random) -> str:
    if sight.thing is None:
        return rng.choice(
            ("Light and shade move slowly over the scene.", "Everything stirs a little as the light shifts.")
        )
    text = rng.choice(vocabulary().groups[sight.thing.group].living["en"])
    if sight.count > 1:
        return f"One after the other, each of {definite(sight)} {text}."
    return f"{upper(definite(sight))} {text}."


def _then(sight: Sight, rng: random.Random) -> str:
    if sight.thing is None:
        return "Then the light shifts and the shadows slowly change their shape."
    begins = "they begin" if sight.count > 1 else "it begins"
    return f"Then {begins} to {rng.choice(GOES_ON[sight.thing.group]['en'])}."


def _ambience(sight: Sight, rng: random.Random) -> str:
    layout, found = sight.facts.layout, []
    if layout.sky >= 0.12:
        found.append("clouds drift slowly across the sky")
    if layout.water >= 0.12:
        found.append("small ripples run over the water")
    if layout.greenery >= 0.25 and sight.setting == "outdoors":
        found.append("leaves stir in a light breeze")
    if sight.setting == "under water":
        found.append("fine bubbles rise through the water")
    if not found:
        found.append(
            rng.choice(
                (
                    "soft shadows shift almost unnoticed",
                    "a faint shimmer moves through the air",
                    "fine dust floats in the light",
                )
            )
        )
    return upper(listed(found)) + "."


def _setting(sight: Sight, long: bool) -> str:
    where = {
        "indoors": "an indoor scene",
        "outdoors": "an open outdoor scene",
        "under water": "an underwater scene",
    }.get(sight.setting, "a simple scene")
    around = backdrop(sight)
    text = f"The surroundings are {where}" + (f" with {listed(around)}" if around else "")
    if long:
        text += (
            f", in tones of {tones(sight, 3)}; the background stays calm and slightly out of focus, "
            f"so that the eye rests on {definite(sight)}"
        )
    return text + "."


def _shot(sight: Sight, long: bool) -> str:
    size = {"large": "close-up", "medium": "medium shot", "small": "wide shot"}[sight.size]
    if sight.thing is None:
        text = f"{upper(with_article(size))} in {tones(sight)}"
    else:
        text = f"{upper(with_article(size))} of {phrase(sight, colour=True)}"
    if not long:
        return text + "."
    text += f", {spot(sight)}, framed in a {sight.shape} picture."
    return text + f" The colours are {tones(sight, 3)}, and every edge and surface is shown in fine detail."


def _light(sight: Sight, long: bool) -> str:
    if not long:
        return upper(light(sight)) + "."
    mood = {
        "very dark": "hushed and mysterious",
        "dim": "quiet and intimate",
        "even": "calm and natural",
        "bright": "fresh and cheerful",
    }[sight.light]
    return (
        f"{upper(light(sight))} falls over the scene and changes only a little from beginning to end, "
        f"which gives the whole a {mood} mood."
    )


def prompt(sight: Sight, profile: str, rng: random.Random) -> list[tuple[str, str]]:
    """Parts of a prompt in the profile's order: (part, text)."""
    long = profile == "turbowan"
    if profile == "embedded":
        subject = f"A photo of {phrase(sight)}." if sight.thing else f"A photo in {tones(sight)}."
        return [("photo", subject), ("motion", motions(sight, rng)[0].sentence("en", definite(sight)))]
    if profile == "i2vgen-xl":
        return [
            ("shot", _shot(sight, long=False)),
            ("motion", _living(sight, rng)),
            ("light", _light(sight, long=False)),
        ]
    if profile == "wan2.2":
        return [
            ("motion", f"{_living(sight, rng)} {_then(sight, rng)}"),
            ("ambience", _ambience(sight, rng)),
            ("light", f"The {light(sight)} changes only a little."),
            ("camera", "The camera stays fixed."),
        ]
    return [
        ("shot", _shot(sight, long=True)),
        ("motion", f"{_living(sight, rng)} {_then(sight, rng)}"),
        ("ambience", _ambience(sight, rng)),
        ("setting", _setting(sight, long)),
        ("light", _light(sight, long=long)),
    ]


def edits(sight: Sight, rng: random.Random) -> list[str]:
    """Three suggestions."""
    fitting = motions(sight, rng)
    lines = [fitting[0].sentence("en", definite(sight)).rstrip(".")]
    if sight.thing is not None:
        lines.append(rng.choice(vocabulary().groups[sight.thing.group].edits["en"]))
    else:
        other = next(motion for motion in fitting if motion.name.split("_")[0] != fitting[0].name.split("_")[0])
        lines.append(other.sentence("en", definite(sight)).rstrip("."))
    lines.append(
        "Let soft colour slowly return to the picture"
        if sight.grey
        else "Let the light slowly grow brighter"
        if sight.light in ("very dark", "dim")
        else "Let evening fall until only the edges glow"
    )
    return lines
