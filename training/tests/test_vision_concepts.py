"""What a drawing shows has one name, and what evaluation alone sees is in no drawing of training."""

import json
import tomllib
from pathlib import Path

import pytest

from training.vl.pictures.concepts import (
    TABLE,
    build_concept,
    build_concepts,
    called,
    design_of,
    place_of,
    role_of,
    thing_of_emoji,
)

KIND = ["animal", "动物", "只", "animal"]
NAMES = {"man": "男人", "farmer": "农民", "man farmer": "男农民", "woman farmer": "女农民", "person": "人",
         "woman with headscarf": "戴头巾的女人", "person surfing": "冲浪的人", "man: bald": "男子：秃顶",
         "bald": "秃顶", "calendar": "日历", "tear-off calendar": "手撕日历", "dog face": "狗脸"}


@pytest.mark.parametrize(("label", "subgroup", "thing"), [
    ("woman farmer", "person-role", ("farmer", "农民", "person")),
    ("man farmer", "person-role", ("farmer", "农民", "person")),
    ("farmer", "person-role", ("farmer", "农民", "person")),
    ("man", "person", ("person", "人", "person")),
    ("man: bald", "person", ("person", "人", "person")),
    ("woman with headscarf", "person-role", ("person", "人", "person")),
    ("person surfing", "person-sport", ("person", "人", "person")),
    ("tear-off calendar", "office", ("calendar", "日历", "office")),
    ("calendar", "office", ("calendar", "日历", "office")),
    ("dog face", "animal-mammal", ("dog", "狗", "animal-mammal")),
])
def test_drawings_that_show_the_same_have_one_name(label: str, subgroup: str, thing: tuple[str, str, str]) -> None:
    assert thing_of_emoji(label, subgroup, NAMES) == thing


def test_a_man_a_woman_and_a_person_who_do_the_same_are_one_design() -> None:
    assert {design_of(label) for label in ("man surfing", "woman surfing", "person surfing")} == {"surfing"}
    assert design_of("manual wheelchair") == "manual wheelchair"


def test_a_name_that_is_merged_into_another_is_not_merged_into() -> None:
    same = tomllib.loads(TABLE.read_text("utf-8"))["same"]
    merged = [name for _, *names in same.values() for name in names]
    assert len(merged) == len(set(merged))
    assert not set(merged) & set(same)
    assert called("tear-off calendar", "手撕日历") == called("calendar", "") == ("calendar", "日历")
    assert called("lamp", "灯") == ("lamp", "灯")


def test_what_names_were_merged_into_is_named_whatever_its_hash_says() -> None:
    known = tomllib.loads(TABLE.read_text("utf-8"))["known"]
    assert {role_of(name) for name in known} == {"known"}
    assert all(place_of(name) < 0.24 for name in known)  # for all others the hash is enough


def held_name(at_least: float = 0.0, below: float = 0.25) -> str:
    return next(f"cutouts/{n}.webp" for n in range(999) if at_least <= place_of(f"cutouts/{n}.webp") < below)


def test_drawings_of_one_design_are_held_out_together_or_not_at_all() -> None:
    held, own = held_name(), held_name(0.25, 1.0)
    files = [held, "cutouts/a.webp", own, "cutouts/b.webp", "cutouts/c.webp"]
    designs = {held: "sitting", "cutouts/a.webp": "sitting"} | {own: "standing", "cutouts/b.webp": "standing"}
    dog = build_concept("dog", "狗", KIND, files, designs)
    assert dog.held_files == (held, "cutouts/a.webp")
    assert dog.files == (own, "cutouts/b.webp", "cutouts/c.webp")
    assert build_concept("dog", "狗", KIND, files[:3], designs).held_files == ()  # more than half would be held out


def write_pack(data: Path, rows: list[tuple[str, str, str, bytes]]) -> None:
    labels = data / "packages/emojibase-data/package"
    for name, told in (("en/data.json", []), ("zh/data.json", []), ("meta/groups.json", {"subgroups": {}})):
        (labels / name).parent.mkdir(parents=True, exist_ok=True)
        (labels / name).write_text(json.dumps(told))
    (data / "pack/cutouts").mkdir(parents=True)
    for file, _, _, pixels in rows:
        (data / "pack" / file).write_bytes(pixels)
    (data / "pack/index.json").write_text(json.dumps(
        [{"file": file, "kind": "clipart", "caption": caption} for file, caption, _, _ in rows]))
    (data / "sources.json").write_text(json.dumps([{"file": file, "source": source} for file, _, source, _ in rows]))


def test_the_same_pixels_under_two_names_are_one_design_and_misleading_drawings_are_left_out(tmp_path: Path) -> None:
    held, own = held_name(), held_name(0.25, 1.0)
    write_pack(tmp_path, [
        (held, "gull", "gull_a.svg", b"1"), ("cutouts/a.webp", "gabbiano", "gull_b.svg", b"1"),
        (own, "gull", "gull_c.svg", b"2"), ("cutouts/b.webp", "gull", "gull_d.svg", b"3"),
        ("cutouts/c.webp", "gull", "dolphin_01.svg", b"4"), ("cutouts/d.webp", "lemon svg theme", "e.svg", b"5"),
    ])
    gull, = build_concepts(tmp_path)
    assert (gull.en, gull.held_files) == ("gull", (held, "cutouts/a.webp"))
    assert gull.files == (own, "cutouts/b.webp")
