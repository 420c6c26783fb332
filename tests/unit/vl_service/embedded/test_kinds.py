"""Names: every class has one kind, every kind words in both languages, and probability becomes a fitting name."""

import numpy as np
import pytest

from tests.unit.vl_service.scenes import ESPRESSO, TABBY, class_probabilities
from vl_service.embedded.vision.kinds import NUM_CLASSES, _name_in_kind, rank_names, vocabulary, with_article


def test_every_class_is_in_exactly_one_kind() -> None:
    numbers = [number for kind in vocabulary().kinds for number in kind.classes]
    assert sorted(numbers) == list(range(NUM_CLASSES))


def test_every_kind_has_a_group_and_chinese_of_one_character_measure() -> None:
    words = vocabulary()
    for kind in words.kinds:
        assert kind.group in words.groups
        assert len(kind.measure) == 1
        assert any("一" <= char <= "鿿" for char in kind.zh)
    for group in words.groups.values():
        for language in ("en", "zh"):
            assert group.living[language]
            assert group.edits[language]


def test_every_class_can_be_named_in_both_languages() -> None:
    for number in range(NUM_CLASSES):
        name = _name_in_kind(vocabulary().kind_of[number], class_probabilities({number: 0.9}), vocabulary())
        assert name.en.split()[0] in ("a", "an", "some")
        assert name.zh.startswith("一")
        assert name.definite("en").startswith("the ")
        assert name.definite("zh")
        assert "(" not in name.en, name.en


@pytest.mark.parametrize(("noun", "phrase"), [
    ("cat", "a cat"), ("owl", "an owl"), ("hourglass", "an hourglass"), ("unicycle", "a unicycle"), ("hay", "some hay"),
    ("a pair of jeans", "a pair of jeans"), ("Airedale Terrier", "an Airedale Terrier"), ("ukulele", "a ukulele"),
])
def test_articles_follow_the_sound(noun: str, phrase: str) -> None:
    assert with_article(noun) == phrase


def test_classes_that_people_call_the_same_add_up() -> None:
    """The tower splits tabby cats over three classes."""
    name = rank_names(class_probabilities({281: 0.3, 282: 0.3, 285: 0.3}))[0]
    assert (name.en, name.zh) == ("a tabby cat", "一只虎斑猫")
    assert name.probability == pytest.approx(0.9, abs=0.01)


def test_breeds_that_compete_become_the_kind() -> None:
    name = rank_names(class_probabilities({207: 0.3, 208: 0.3, 219: 0.3}))[0]
    assert (name.en, name.zh) == ("a dog", "一只狗")


def test_a_class_without_chinese_keeps_its_english_name_beside_the_kind() -> None:
    name = rank_names(class_probabilities({160: 0.9}))[0]
    assert name.zh == "一只狗（Afghan Hound）"


def test_an_even_spread_is_evidence_for_nothing() -> None:
    """118 classes of dogs hold a tenth of an even spread; that must not read as a dog."""
    ranked = rank_names(np.full(NUM_CLASSES, 1 / NUM_CLASSES, dtype=np.float32))
    assert all(name.probability == 0 for name in ranked)


def test_phrases_read_as_people_say_them() -> None:
    assert rank_names(class_probabilities({ESPRESSO: 0.9}))[0].en == "a cup of espresso"
    assert rank_names(class_probabilities({ESPRESSO: 0.9}))[0].zh == "一杯浓缩咖啡"
    assert rank_names(class_probabilities({TABBY: 0.9}))[0].definite("zh") == "虎斑猫"
