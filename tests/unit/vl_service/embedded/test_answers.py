"""Texts told from one record: a text of a bad form is told again, and what the subject is called is found."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from contracts.describe import Language
from tests.unit.vl_service.embedded.scripted import PICTURE, Scripted, answers_of
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import Deadline
from vl_service.embedded.backend import EmbeddedBackend
from vl_service.embedded.model.observation import Observation, Said
from vl_service.embedded.text.answers import TRIES, Answers, circles
from vl_service.embedded.text.naming import definite
from vl_service.embedded.text.subject_words import says
from vl_service.images import DecodedImage
from vl_service.prompts.profiles import profile_named


class Stumbling(Scripted):
    """Says something of bad form so many times, and then what the script has."""

    def __init__(self, scene: str, bad: str, times: int, ended: bool = True) -> None:
        super().__init__(scene)
        self.bad, self.times, self.ended = bad, times, ended

    def say(
        self, observation: Observation, header: Sequence[str], asked: str, at_most: int, seed: int | None,
        check: Callable[[], None], until: str = "<eos>",
    ) -> Said:
        said = super().say(observation, header, asked, at_most, seed, check, until)
        if len(self.asked) <= self.times:
            return Said(tokens=tuple(self.tokenizer.encode(self.bad)), ended=self.ended, least=1.0)
        return said

    @property
    def seeds(self) -> list[int | None]:
        return [call.seed for call in self.asked]


class Renaming(Scripted):
    """Its record says one thing, its texts another, until it is asked to look without naming anything."""

    def __init__(self, recorded: str, told_as: str) -> None:
        super().__init__(recorded)
        self._told_as, self.named = Scripted(told_as), list[bool]()

    def see(self, picture: DecodedImage, check: Callable[[], None], named: bool = True) -> Observation:
        self.named.append(named)
        return super().see(picture, check, named)

    def say(
        self, observation: Observation, header: Sequence[str], asked: str, at_most: int, seed: int | None,
        check: Callable[[], None], until: str = "<eos>",
    ) -> Said:
        says = self._told_as.say if all(self.named) else super().say
        return says(observation, header, asked, at_most, seed, check, until)


@pytest.mark.parametrize(("told_as", "named"), [("coffee", [True, False]), ("three cats", [True])])
def test_a_thing_that_is_called_otherwise_than_in_the_record_gets_no_name(told_as: str, named: list[bool]) -> None:
    generator = Renaming("cat", told_as)
    tasks = [prompt_task(kind="caption", language=language) for language in ("en", "zh")]
    described = EmbeddedBackend(generator, "1").describe(PICTURE, tasks, Deadline(at=time.monotonic() + 600))
    texts = " ".join(answer.text for answer in described.answers)
    assert generator.named == named
    assert "espresso" not in texts
    assert ("unsure" in texts and "不确定" in texts) is (told_as == "coffee")
    assert (described.answers[0].confidence is None) is (told_as == "coffee")


class Guessing(Scripted):
    """Knows the kind of a thing, and may guess its name."""

    def __init__(self, kind: str, name: Scripted) -> None:
        super().__init__(kind)
        self._name = name

    def see(self, picture: DecodedImage, check: Callable[[], None], named: bool = True) -> Observation:
        return replace(super().see(picture, check, named), guesses=(self._name.see(picture, check),))

    def say(
        self, observation: Observation, header: Sequence[str], asked: str, at_most: int, seed: int | None,
        check: Callable[[], None], until: str = "<eos>",
    ) -> Said:
        if header[0] == "<question>":  # where the subject is
            where = "主体在画面左侧。" if header[1] == "<zh>" else "The subject is on the left."
            return Said(tokens=tuple(self.tokenizer.encode(where)), ended=True, least=1.0)
        told = super().say if observation.guesses else self._name.say
        return told(observation, header, asked, at_most, seed, check, until)


@pytest.mark.parametrize(("kind", "en", "zh"), [
    ("some kind", "Some kind of animal, perhaps a tabby cat, ", "某种动物，可能是一只虎斑猫，"),
    ("unsure", "I am unsure what this picture shows, perhaps a tabby cat.",
     "不确定这张图片拍的是什么，可能是一只虎斑猫。"),
])
def test_a_guess_stands_in_the_caption_and_the_facts_and_in_no_prompt(kind: str, en: str, zh: str) -> None:
    generator = Guessing(kind, Scripted("cat"))
    tasks = [prompt_task(kind="caption", language="en"), prompt_task(kind="caption", language="zh"), prompt_task()]
    described = EmbeddedBackend(generator, "1").describe(PICTURE, tasks, Deadline(at=time.monotonic() + 600))
    english, chinese, prompt = (answer.text for answer in described.answers)
    assert en in english
    assert zh in chinese
    assert "tabby" not in prompt
    assert (described.facts["subject"], described.facts["guess"]) == ("unsure", "tabby cat")
    assert all(answer.confidence is None for answer in described.answers)


def test_a_guess_that_the_decoder_calls_otherwise_is_not_said() -> None:
    answers = answers_of(Guessing("some kind", Renaming("cat", "coffee")))
    assert answers.guess is None
    assert "perhaps" not in answers.caption("en", 200, 0)


def test_of_several_things_whose_plural_the_decoder_lacks_one_is_guessed() -> None:
    generator = Guessing("some kind", Scripted("cat"))
    observation = generator.see(PICTURE, lambda: None)
    wrong = replace(observation.guesses[0], record=replace(observation.guesses[0].record, name="espresso"))
    answers = Answers(generator, replace(observation, guesses=(wrong, *observation.guesses)), lambda: None)
    assert "perhaps a tabby cat," in answers.caption("en", 200, 0)


def test_who_asks_for_what_was_guessed_asks_for_the_subject() -> None:
    for question, asked in (
        ("Where is the tabby?", True), ("Where is the lighthouse?", False), ("这只虎斑猫在哪里？", True),
    ):
        language: Language = "zh" if "？" in question else "en"
        answer = answers_of(Guessing("some kind", Scripted("cat"))).answer(question, language, 200)
        assert (answer in ("The subject is on the left.", "主体在画面左侧。")) is asked


BAD = {"another language": "一只猫。一只猫在这里。", "a Chinese word": "A tabby cat 猫.", "nothing": "",
       "a sentence twice": "The tabby cat. The tabby cat.", "a word twice": "The the tabby tabby cat."}


def test_a_text_of_bad_form_is_told_again() -> None:
    for why, bad in BAD.items():
        generator = Stumbling("cat", bad, times=1)
        assert "tabby cat" in answers_of(generator).caption("en", 200, 7), why
        assert generator.seeds == [None, 8], why


def test_a_decoder_that_only_stumbles_is_not_asked_for_ever() -> None:
    generator = Stumbling("cat", "the the", times=99)
    answers_of(generator).caption("en", 200, 7)
    assert len(generator.seeds) == TRIES


def test_three_suggestions_are_asked_for_until_there_are_three() -> None:
    generator = Stumbling("cat", "Let it turn\nLet it turn", times=2)
    assert len(answers_of(generator).suggestions("en", 200, 0).split("\n")) == 3
    assert len(generator.seeds) == 3


def test_a_prompt_that_lacks_a_part_or_its_end_is_told_again() -> None:
    for bad, ended in (("", True), ("A photo", False)):
        generator = Stumbling("cat", bad, times=1, ended=ended)
        assert set(answers_of(generator).parts(profile_named("wan2.1"), "en", 250, 0)) == {
            "shot", "motion", "ambience", "setting", "light"}


CIRCLES: tuple[tuple[str, Language, bool], ...] = (
    ("A cat. A dog.", "en", False), ("A cat. A cat.", "en", True), ("It had had enough.", "en", True),
    (" ".join(f"word{chr(97 + n)}" for n in range(20)), "en", False),
    (f"{'a b c d e f g h i '}x {'a b c d e f g h i'}", "en", True),
    ("一只猫。一只狗。", "zh", False), ("一只猫。一只猫。", "zh", True), ("猫在在这里", "zh", False),
    ("缓缓移动移动", "zh", True),
)


def test_circles_are_noticed() -> None:
    for text, language, expected in CIRCLES:
        assert circles(text, language) is expected, text


DEFINITE: tuple[tuple[str, Language, str], ...] = (
    ("a tabby cat", "en", "the tabby cat"), ("an owl", "en", "the owl"), ("some scissors", "en", "the scissors"),
    ("three apples", "en", "the three apples"), ("some kind of animal", "en", "the animal"), ("", "en", "the subject"),
    ("two of some kind of animal", "en", "the animal"), ("a", "en", "the"),
    ("一只虎斑猫", "zh", "虎斑猫"), ("三个苹果", "zh", "这三个苹果"), ("某种动物", "zh", "动物"), ("", "zh", "主体"),
)


def test_a_thing_already_named_has_its_definite_form() -> None:
    for phrase, language, named in DEFINITE:
        assert definite(phrase, language) == named, phrase


def test_what_the_subject_is_called_is_the_noun_phrase_of_the_decoders_own_photo_sentence() -> None:
    assert [answers_of(Scripted("cat")).phrase(language) for language in ("en", "zh")] == ["a tabby cat", "一只虎斑猫"]
    assert [answers_of(Scripted("unsure")).phrase(language) for language in ("en", "zh")] == ["", ""]


def test_seeds_at_their_end_wrap_round() -> None:
    generator = Stumbling("cat", "the the", times=2)
    answers_of(generator).caption("en", 200, 2**63 - 1)
    assert generator.seeds == [None, 0, 1]


@pytest.mark.parametrize(("language", "where"), [("en", "The subject is on the left"), ("zh", "主体在画面左侧")])
def test_a_caption_of_a_thing_without_a_name_says_where_it_is(language: Language, where: str) -> None:
    """The decoder says so only when it is asked; of what fills the picture there is nothing to say."""
    asked = Scripted("unsure", answer={"en": "The subject is on the left.", "zh": "主体在画面左侧。"}[language])
    for size, told_where in (("small", True), ("large", False)):
        observation = asked.see(PICTURE, lambda: None)
        observation = replace(observation, record=replace(observation.record, size=size))
        caption = Answers(asked, observation, lambda: None).caption(language, 200, 0)
        assert (where in caption) is told_where
        assert caption.startswith(("I am unsure", "不确定"))


SAID = (
    ("a tabby cat", "tabby cat", True), ("two tabby cats", "tabby cat", True), ("three knives", "knife", True),
    ("four mice", "mouse", True), ("two cherries", "cherry", True), ("a cup of coffee", "cup of espresso", False),
    ("three ice skates", "telescope", False), ("two sandwiches", "tripod", False), ("", "tripod", False),
)


def test_a_phrase_says_a_name_in_singular_or_plural() -> None:
    for phrase, name, expected in SAID:
        assert says(phrase, name) is expected, phrase


@pytest.mark.parametrize(("language", "question", "counted"), [
    ("en", "How many things can you see?", "I count three."), ("zh", "有几个？", "我数出三个。")])
def test_several_of_what_is_not_known_at_all_are_counted_without_the_decoder(
    language: Language, question: str, counted: str,
) -> None:
    said: dict[Language, str] = {"en": "The subject is on the left.", "zh": "主体在画面左侧。"}
    for name, count, by_rule in (("unsure", 3, True), ("unsure", 1, False), ("some kind", 3, False)):
        generator = Scripted(name, answer=said[language])
        observation = generator.see(PICTURE, lambda: None)
        counted_so = replace(observation, record=replace(observation.record, count=count))
        answers = Answers(generator, counted_so, lambda: None)
        assert answers.answer(question, language, 60) == (counted if by_rule else said[language])
