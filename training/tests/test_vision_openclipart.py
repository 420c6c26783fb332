"""Clip-art joins the training only for things that training may show, and no drawing that evaluation alone sees."""

from pathlib import Path

import pytest

from training.vl.pictures.concepts import Concept, role_of, subject_of
from training.vl.pictures.openclipart import read_table, with_clipart


def concept(name: str, role: str = "known") -> Concept:
    return Concept(en=name, zh="物", kind_en="thing", kind_zh="物", measure="个", group="thing", plural=False,
                   role=role, files=("cutouts/emoji-0001.webp",), held_files=("cutouts/clipart-0001.webp",))


def test_a_drawing_joins_those_of_its_thing() -> None:
    concepts, drawings = with_clipart(
        [concept("pie"), concept("dog")], [("pie", "food/pie_apple.png")], ["dog_01.svg"], Path("data"))
    assert [drawing.file for drawing in drawings] == ["drawings/openclipart-png-food-pie-apple.webp"]
    assert concepts[0].files == ("cutouts/emoji-0001.webp", drawings[0].file)
    assert concepts[1].files == ("cutouts/emoji-0001.webp",)
    assert concepts[0].held_files == ("cutouts/clipart-0001.webp",)


@pytest.mark.parametrize("name", ["owl", "no such thing"])
def test_what_training_must_not_show_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"training shows no {name}"):
        with_clipart([concept("owl", role="held")], [(name, "animals/owl.png")], [], Path("data"))


@pytest.mark.parametrize("path", ["food/pie_cherry_bw.png", "food/desserts/pie_cherry_ganson_02.png"])
def test_the_same_drawing_without_its_colours_is_refused_where_evaluation_sees_it(path: str) -> None:
    with pytest.raises(ValueError, match="evaluation alone"):
        with_clipart([concept("pie")], [("pie", path)], ["pie_cherry.svg"], Path("data"))


def test_names_of_authors_are_part_of_what_a_file_name_tells() -> None:
    assert subject_of("food/cone_alt1_bw.png") == subject_of("cone1_ganson.svg") == {"cone"}
    assert subject_of("gatto_cat_architetto_fra_04.svg") != subject_of("gatto_cat_01.svg")


def test_the_table_names_each_drawing_once_and_nothing_held_out() -> None:
    rows = read_table()
    assert len(rows) > 500
    assert len({path for _, path in rows}) == len(rows)
    assert [name for name, _ in rows if role_of(name) == "held"] == []
    assert all(path.endswith(".png") and not path.startswith("/") for _, path in rows)
