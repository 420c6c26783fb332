"""Named cut-outs → concepts: an English and a Chinese noun, the broader kind, and what evaluation alone may see."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "clipart.toml"
_SKIP = re.compile(
    r"family|kiss|people|holding hands|men |women |wrestling|silhouette|busts|no one|foggy|night with|sunrise|sunset|"
    r"cityscape|bridge at night|milky way|cyclone|sign|button|symbol|with slash|incoming|arrow|chart|muted|speaker |"
    r"paw prints|footprints|microbe|pouring|ginger|construction$|japanese post|love hotel|wedding|oncoming|"
    r"moon viewing|wood$|brick$|rock$|ice$|salt$|joker|mahjong|cards|goal|flag|bullseye|dna|drop of|x-ray|placard|"
    r"nazar|hamsa|dizzy|clinking|station$|in bed|taking bath"
)
_MERGE = (
    (re.compile(r"\bmoon\b(?! cake)"), "moon", "月亮"),
    (re.compile(r"^globe"), "globe", "地球"),
    (re.compile(r"hourglass"), "hourglass", "沙漏"),
    (re.compile(r"^airplane"), "airplane", "飞机"),
    (re.compile(r"mailbox"), "mailbox", "信箱"),
    (re.compile(r"^sun with face"), "sun", "太阳"),
    (re.compile(r"hatching chick|baby chick"), "chick", "小鸡"),
    (re.compile(r"magnifying"), "magnifying glass", "放大镜"),
    (re.compile(r"medal$"), "medal", "奖牌"),
    (re.compile(r"banknote"), "banknote", "纸币"),
    (re.compile(r"wheelchair$"), "wheelchair", "轮椅"),
    (re.compile(r"^(glowing )?star$"), "star", "星星"),
    (re.compile(r"train$|^locomotive|railway car|light rail|metro|^tram"), "train", "火车"),
    (re.compile(r"^(green|blue|orange|closed) book$"), "book", "书"),
    (re.compile(r"traffic light"), "traffic light", "红绿灯"),
    (re.compile(r"hot beverage"), "cup of coffee", "咖啡"),
    (re.compile(r"^locked"), "padlock", "挂锁"),
    (re.compile(r"^unlocked"), "padlock", "挂锁"),
    (re.compile(r"^guide dog|^service dog"), "dog", "狗"),
    (re.compile(r"^black cat"), "cat", "猫"),
    (re.compile(r"^two-hump"), "camel", "骆驼"),
)
_NOT_THE_SUBJECT = frozenset({"", "alt", "b", "bw", "ganson", "w"})
_PLURAL = re.compile(r"(?<!s)s$")
_SINGULAR_IN_S = frozenset(
    {
        "bus",
        "minibus",
        "trolleybus",
        "cactus",
        "compass",
        "dress",
        "octopus",
        "hibiscus",
        "lotus",
        "glass",
        "wine glass",
        "cocktail glass",
        "tumbler glass",
        "magnifying glass",
        "abacus",
        "globe",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One thing that cut-outs show; `role` says who may see it."""

    en: str
    zh: str
    kind_en: str
    kind_zh: str
    measure: str
    group: str
    plural: bool
    role: str
    """`known`: named in training. `strange`: trained as unsure. `held`: in no training picture, for evaluation."""
    files: tuple[str, ...]
    held_files: tuple[str, ...]
    """Drawings of a known concept that only evaluation sees."""


def place_of(text: str) -> float:
    """A number in 0..1 that depends on the text alone."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def design_of(label: str) -> str:
    """What the drawings of a man, a woman and a person who do the same have in common: they differ by the hair."""
    return re.sub(r"^(?:old )?(?:man|woman|person)\b[: ]*", "", label)


def subject_of(source: str) -> frozenset[str]:
    """What a file name tells of a drawing: `pie_cherry_bw.png` and `pie_cherry.svg` are one, coloured or not."""
    return frozenset(re.split(r"[_\-.\d]+", Path(source).stem.lower())) - _NOT_THE_SUBJECT


def called(name: str, chinese: str) -> tuple[str, str]:
    """The name for all drawings that show the same, in both languages."""
    return _same().get(name, (name, chinese))


@cache
def _same() -> dict[str, tuple[str, str]]:
    same = tomllib.loads(TABLE.read_text("utf-8"))["same"]
    return {name: (en, zh) for en, (zh, *names) in same.items() for name in (en, *names)}


def thing_of_emoji(label: str, subgroup: str, chinese: Mapping[str, str]) -> tuple[str, str, str] | None:
    """English noun, Chinese noun and key of the broader kind; `None` for what is no thing.

    `chinese` has the names of all labels.
    """
    thing = _thing_of(label, subgroup, chinese)
    return thing and (*called(*thing[:2]), thing[2])


def _thing_of(label: str, subgroup: str, chinese: Mapping[str, str]) -> tuple[str, str, str] | None:
    if subgroup.startswith("face-") and not re.search(r"costume", subgroup):
        return "smiley face", "表情脸", "face"
    if _SKIP.search(label):
        return None
    if subgroup == "cat-face":
        return "cat", "猫", "animal-mammal"
    if subgroup == "monkey-face":
        return "monkey", "猴子", "animal-mammal"
    if subgroup.startswith("hand"):
        return "hand", "手", "body"
    if subgroup in ("body-parts",):
        return label, chinese[label], "body"
    if subgroup.startswith("person") or subgroup == "family":
        work = design_of(label)
        name = label if work == label else work if work in chinese and ":" not in label else "person"
        return name, chinese[name], "person"
    for pattern, en, zh in _MERGE:
        if pattern.search(label):
            return en, zh, subgroup
    return re.sub(r" face$", "", label), re.sub(r"脸$|头$", "", chinese[label]), subgroup


def build_concepts(data: Path) -> list[Concept]:
    """Read the pack's index and the emoji's names in both languages."""
    table = tomllib.loads(TABLE.read_text("utf-8"))
    labels = data / "packages/emojibase-data/package"
    subgroups = json.loads((labels / "meta/groups.json").read_text("utf-8"))["subgroups"]
    named = {row["hexcode"]: row["label"] for row in json.loads((labels / "zh/data.json").read_text("utf-8"))}
    emoji = {row["hexcode"].lower(): row for row in json.loads((labels / "en/data.json").read_text("utf-8"))}
    chinese = {row["label"].lower(): named[row["hexcode"]] for row in emoji.values()}
    source = {row["file"]: row["source"] for row in json.loads((data / "sources.json").read_text("utf-8"))}
    found: dict[str, tuple[str, str, list[str]]] = {en: (zh, kind, []) for en, (zh, kind) in table["new"].items()}
    clip: list[tuple[str, str]] = []
    designs: dict[str, str] = {}
    for row in json.loads((data / "pack/index.json").read_text("utf-8")):
        file = row["file"]
        if row["kind"] == "clipart" and row["caption"] in table["names"] and source[file] not in table["misleading"]:
            clip.append((table["names"][row["caption"]], file))
            designs[file] = hashlib.sha256((data / "pack" / file).read_bytes()).hexdigest()  # some are there twice
        if row["kind"] != "emoji":
            continue
        entry = emoji[source[file].removesuffix(".webp")]
        label = entry["label"].lower()
        designs[file] = design_of(label)
        thing = thing_of_emoji(label, subgroups[str(entry["subgroup"])], chinese)
        if thing is not None and (thing[2] in table["kinds"] or thing[0] in table["regroup"]):
            found.setdefault(thing[0], (thing[1], thing[2], []))[2].append(file)
    alias = {en: merged for en in {name for name, _ in clip} for pattern, merged, _ in _MERGE if pattern.search(en)}
    for en, file in clip:
        found[called(alias.get(en, en), "")[0]][2].append(file)
    regroup = table["regroup"]
    return [
        build_concept(en, zh, table["kinds"][regroup.get(en, kind)], files, designs)
        for en, (zh, kind, files) in sorted(found.items())
        if files
    ]


def role_of(en: str) -> str:
    """Who may see the thing, by its English name alone."""
    place = place_of(en)
    if en in _known():
        return "known"
    return "held" if place < 0.08 else "strange" if place < 0.24 else "known"


@cache
def _known() -> frozenset[str]:
    return frozenset(tomllib.loads(TABLE.read_text("utf-8"))["known"])


def build_concept(
    en: str, zh: str, kind: list[str], files: list[str], designs: Mapping[str, str] | None = None,
) -> Concept:
    """A concept with its role, and up to half of a known thing's drawings held out.

    Files of one design are held out together, or not at all.
    """
    role = role_of(en)
    alike: dict[str, list[str]] = {}
    for file in files:
        alike.setdefault((designs or {}).get(file, file), []).append(file)
    held: list[str] = []
    for some in alike.values():
        if role == "known" and place_of(some[0]) < 0.25 and len(held) + len(some) <= len(files) // 2:
            held += some
    return Concept(
        en=en,
        zh=zh,
        kind_en=kind[0],
        kind_zh=kind[1],
        measure=kind[2],
        group=kind[3],
        plural=bool(_PLURAL.search(en)) and en not in _SINGULAR_IN_S,
        role=role,
        files=tuple(file for file in files if file not in held),
        held_files=tuple(held),
    )


def save_concepts(concepts: list[Concept], file: Path) -> None:
    """Write them as JSON."""
    file.write_text(json.dumps([asdict(concept) for concept in concepts], ensure_ascii=False, indent=0), "utf-8")


def load_concepts(file: Path) -> list[Concept]:
    """Read what `save_concepts` wrote."""
    rows = json.loads(file.read_text("utf-8"))
    return [Concept(**{**row, "files": tuple(row["files"]), "held_files": tuple(row["held_files"])}) for row in rows]
