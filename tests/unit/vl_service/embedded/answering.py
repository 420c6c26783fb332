"""A generator whose answers the test sets; its other texts are those of the training."""

from collections.abc import Callable, Sequence

from tests.unit.vl_service.embedded.taught import TaughtGenerator
from vl_service.embedded.model.observation import Observation, Said


class Answering(TaughtGenerator):
    """Answers every question with the same words, as probable as the test says."""

    def __init__(self, whole: TaughtGenerator, text: str, least: float) -> None:
        super().__init__(whole._sight, whole.tokenizer)
        self.text, self.least, self.asked = text, least, list[str]()

    def say(
        self, observation: Observation, header: Sequence[str], asked: str, at_most: int, seed: int | None,
        check: Callable[[], None], until: str = "<eos>",
    ) -> Said:
        if header[0] != "<question>":
            return super().say(observation, header, asked, at_most, seed, check, until)
        self.asked.append(asked)
        return Said(tokens=tuple(self.tokenizer.encode(self.text)), ended=True, least=self.least)
