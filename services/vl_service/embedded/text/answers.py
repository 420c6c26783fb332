"""Texts about one picture, all told from the record that the decoder said of it first."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from contracts.describe import Language
from vl_service.embedded.model.generator import ASKED_AT_MOST, PART_MARKERS, Generator
from vl_service.embedded.model.observation import Observation, Said
from vl_service.embedded.model.record import Record
from vl_service.embedded.text.languages import any_known, is_unread
from vl_service.embedded.text.measured import with_measured_colours
from vl_service.embedded.text.naming import definite
from vl_service.embedded.text.phrasing import guessed, hedged
from vl_service.embedded.text.questions import CANNOT_TELL, HOW_MANY, read_question
from vl_service.embedded.text.regions import colour_there
from vl_service.embedded.text.subject_words import SubjectWords, says, words_of_subject
from vl_service.prompts.polish import in_language, lines, sentences
from vl_service.prompts.profiles import Part, Profile

TRIES = 4
SUGGESTIONS = 3
LEAST_SURE = 0.5  # of a word in the answer to a question in words of its own: under it the answer is made up
_RUN: dict[Language, int] = {"en": 9, "zh": 18}  # words or characters in a row that no text says twice
_PHRASE: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"^A photo of (.+?)\.?$"), "zh": re.compile(r"^(.+?)的照片。?$"),
}
_PHRASE_TOKENS = 40
_JOINERS: dict[Language, str] = {"en": " ", "zh": ""}
# the decoder was not taught to say of a thing without a name where it is, unless it is asked
_WHERE: dict[Language, str] = {"en": "Where is the subject?", "zh": "主体在画面的什么位置？"}
_IT_IS_AT: dict[Language, str] = {"en": "The subject is ", "zh": "主体"}
# nor to count what it knows nothing of: there are two at least
_COUNTED: dict[Language, dict[int, str]] = {
    "en": {2: "I count two.", 3: "I count three.", 4: "I count four."},
    "zh": {2: "我数出两个。", 3: "我数出三个。", 4: "我数出四个。"},
}
# the vocabulary that is shipped lacks two characters of this sentence
_MENDED = {"影子的形慢慢变。": "影子的形状慢慢改变。"}
_NUMBER = re.compile("^(?:two|three|four) ")
_HAN = re.compile(r"[一-鿿]")


class Answers:
    """Tells of one observation. `check` is called at every token and may raise."""

    def __init__(self, generator: Generator, observation: Observation, check: Callable[[], None]) -> None:
        self._generator, self._observation, self._check = generator, observation, check
        self._phrases: dict[Language, str] = {}
        guesses = (Answers(generator, guess, check) for guess in observation.guesses)
        self._guessing = next((guess for guess in guesses if guess.keeps_name()), None)

    @property
    def record(self) -> Record:
        """What every text goes on from."""
        return self._observation.record

    @property
    def guess(self) -> Record | None:
        """What the subject may be, where the record has no name for it; only captions and answers say so."""
        return self._guessing and self._guessing.record

    def caption(self, language: Language, at_most: int, seed: int) -> str:
        """Two or three sentences, in at most so many tokens; `seed` matters only where the likeliest text is spoilt."""
        text = self._told(["<caption>", f"<{language}>"], "", language, at_most, [None, *_others(seed)], _whole)
        if not self.record.kind and self.record.size != "large":
            first, *rest = sentences(text) or [""]
            where = self.answer(_WHERE[language], language, at_most)
            text = _JOINERS[language].join([first, *[where] * where.startswith(_IT_IS_AT[language]), *rest])
        return self._hedged(text, language)

    def answer(self, question: str, language: Language, at_most: int) -> str:
        """The answer to a question; where the decoder gropes for words, that it cannot tell."""
        header = ["<question>", f"<{language}>"]
        reading = read_question(question, language, self._words(question), _places(self.record))
        knows = self._generator.tokenizer.knows
        if reading.way == "as it is" and (is_unread(question, knows) or not any_known(question, knows)):
            return CANNOT_TELL[language]
        if reading.way == "measured":
            there = colour_there(reading.part, self._observation.facts, self.record, language)
            return there or CANNOT_TELL[language]
        if reading.way == "cannot tell":
            return CANNOT_TELL[language]
        if not self.record.kind and reading.plain == HOW_MANY[language] and self.record.count in _COUNTED[language]:
            return _COUNTED[language][self.record.count]
        said = self._generator.say(self._observation, header, reading.plain or question, at_most, None, self._check)
        text = self._measured(self._generator.tokenizer.decode(said.tokens), language)
        phrase = self.phrase(language)
        nouns = "|".join(re.escape(_noun(said, language)) for said in (phrase, self._guessed(language)) if said)
        denies = f"(?:I do not see|我没有看到) ?(?:an? )?(?:{nouns})"
        groping = not reading.plain and said.least < LEAST_SURE
        if groping or (nouns and re.search(denies, text)) or not _whole(text, language):
            return CANNOT_TELL[language]
        names = not self.record.name or (phrase and phrase in text)
        return self._hedged(text, language) if names else text

    def reads_only_the_start_of(self, question: str, language: Language) -> bool:
        """Whether the question goes to the decoder as it is, and is longer than what that reads."""
        if len(self._generator.tokenizer.encode(question)) <= ASKED_AT_MOST:
            return False
        return read_question(question, language, self._words(question), _places(self.record)).way == "as it is"

    def suggestions(self, language: Language, at_most: int, seed: int) -> str:
        """Three lines, drawn."""
        seeds = [seed, *_others(seed), None]
        return self._told(["<edits>", f"<{language}>"], "", language, at_most, seeds, _three)

    def parts(self, profile: Profile, language: Language, at_most: int, seed: int) -> dict[Part, str]:
        """A prompt of the profile by its parts; what moves is drawn, what is there is not."""
        header = [f"<prompt:{profile.like}>", f"<{language}>"]
        found: dict[Part, str] = {}
        for chance in (seed, *_others(seed), None):
            said = self._generator.say(self._observation, header, "", at_most, chance, self._check)
            found = {part: self._measured(text, language) for part, text in self._split(said).items()}
            text = "\n".join(found.values())
            if said.ended and set(found) >= set(profile.parts) and _whole(text, language):
                break
        return found

    def phrase(self, language: Language) -> str:
        """The subject with its article or measure word: "a tabby cat", "一只虎斑猫"; empty where it has no name."""
        if language not in self._phrases:
            header = ["<prompt:embedded>", f"<{language}>"]
            said = self._generator.say(
                self._observation, header, "", _PHRASE_TOKENS, None, self._check, until="<motion>")
            match = _PHRASE[language].match(self._split(said).get("photo", ""))
            self._phrases[language] = match.group(1) if match and self.record.kind else ""
        return self._phrases[language]

    def _guessed(self, language: Language) -> str:
        """What the subject may be, "a mouse", of several "mice" or "三只老鼠"; empty where nothing is guessed."""
        phrase = "" if self._guessing is None else self._guessing.phrase(language)
        return _NUMBER.sub("", phrase)

    def _hedged(self, text: str, language: Language) -> str:
        """The text, as sure of the subject as the record is."""
        if self.record.sureness == "likely":
            return hedged(text, language)
        guess = self._guessed(language)
        return guessed(text, self.phrase(language), guess, language) if guess else text

    def keeps_name(self) -> bool:
        """Whether the decoder's texts call the subject what its record calls it.

        Of a thing that training never shows in a number it may say the record, and then fail at the plural.
        """
        return not self.record.name or says(self.phrase("en"), self.record.name)

    def _words(self, question: str) -> SubjectWords:
        """What the subject may be called; its Chinese name is told only where it is needed."""
        noun = definite(self.phrase("zh"), "zh") if _HAN.search(question) and self.record.kind else ""
        words = words_of_subject(self.record, noun.removeprefix("这"))
        if self._guessing is None:
            return words
        may_be = self._guessing._words(question)
        return SubjectWords(en=words.en | may_be.en, zh=words.zh | may_be.zh, known=words.known)

    def _told(
        self, header: list[str], asked: str, language: Language, at_most: int, seeds: Sequence[int | None],
        fits: Callable[[str, Language], bool],
    ) -> str:
        """The first text of a good form; a later seed is tried where one is not."""
        text = ""
        for seed in seeds:
            said = self._generator.say(self._observation, header, asked, at_most, seed, self._check)
            text = self._measured(self._generator.tokenizer.decode(said.tokens), language)
            if fits(text, language):
                break
        return text

    def _measured(self, text: str, language: Language) -> str:
        for lost, whole in _MENDED.items():
            text = text.replace(lost, whole)
        return with_measured_colours(text, self._observation.facts, language)

    def _split(self, said: Said) -> dict[Part, str]:
        tokenizer = self._generator.tokenizer
        markers: dict[int, Part] = {tokenizer.numbers[marker]: part for marker, part in PART_MARKERS.items()}
        found: dict[Part, list[int]] = {}
        part: Part | None = None
        for token in said.tokens:
            if token in markers:
                part = markers[token]
            if part is not None:
                found.setdefault(part, []).append(token)
        return {name: tokenizer.decode(tokens) for name, tokens in found.items()}


def _noun(phrase: str, language: Language) -> str:
    return definite(phrase, language).removeprefix("the ")


def _places(record: Record) -> frozenset[str]:
    """Where the subject lies, as parts of the picture are called."""
    if (record.level, record.side) == ("middle", "centre"):
        return frozenset({"middle"})
    level, side = {"top": "upper", "bottom": "lower"}.get(record.level, ""), record.side
    return frozenset({level, side} - {"", "centre"})


def _others(seed: int) -> list[int]:
    return [(seed + more) % 2**63 for more in range(1, TRIES)]


def _whole(text: str, language: Language) -> bool:
    """Whether a text is in its language and does not run in circles."""
    foreign = language == "en" and _HAN.search(text) is not None
    return bool(text.strip()) and in_language(text, language) and not foreign and not circles(text, language)


def _three(text: str, language: Language) -> bool:
    return len(lines(text, SUGGESTIONS).split("\n")) == SUGGESTIONS and _whole(text, language)


def circles(text: str, language: Language) -> bool:
    """Whether a sentence, a long run of words, or a word right after itself is said twice."""
    said = [re.sub(r"\W+", "", sentence.lower()) for sentence in sentences(text)]
    if len(set(said)) < len(said):
        return True
    if language == "zh":
        units, stutter = _HAN.findall(text), re.search(r"([一-鿿]{2,})\1", text)
    else:
        units, stutter = re.findall(r"[a-z']+", text.lower()), re.search(r"\b([a-z']+) \1\b", text.lower())
    size = _RUN[language]
    runs = Counter(tuple(units[at:at + size]) for at in range(len(units) - size + 1))
    return stutter is not None or any(number > 1 for number in runs.values())
