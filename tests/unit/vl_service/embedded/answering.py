"""A speaker whose answers the test sets; its other texts are those of the training."""

from collections.abc import Callable, Sequence

from tests.unit.vl_service.embedded.taught import TaughtSpeaker
from vl_service.embedded.model.observation import Glimpse, Said


class Answering(TaughtSpeaker):
    """Answers every question with the same words, as probable as the test says."""

    def __init__(self, whole: TaughtSpeaker, text: str, least: float) -> None:
        super().__init__(whole._sight, whole.tokenizer)
        self.text, self.least, self.asked = text, least, list[str]()

    def say(
        self, glimpse: Glimpse, header: Sequence[str], asked: str, at_most: int, seed: int | None,
        check: Callable[[], None], until: str = "<eos>",
    ) -> Said:
        if header[0] != "<question>":
            return super().say(glimpse, header, asked, at_most, seed, check, until)
        self.asked.append(asked)
        return Said(tokens=tuple(self.tokenizer.encode(self.text)), ended=True, least=self.least)
