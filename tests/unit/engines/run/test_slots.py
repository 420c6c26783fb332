"""The decoder's history over engines: two sets of memory in turn, nothing copied, no frame lost to a later step."""

from collections.abc import Mapping

import torch

from video_service.layers.wan.engines import EngineCodec


class Decoder:
    """A session that counts: each history adds the latent's value, and remembers where everything lay."""

    def __init__(self, *, first: bool) -> None:
        slots = (0,) if first else (0, 1)  # the first frame does not reach the second layer
        self.input_names: tuple[str, ...] = ("latent",) if first else ("latent", "history_0", "history_1")
        self.output_names: tuple[str, ...] = ("frames", *(f"history_out_{slot}" for slot in slots))
        self.read: list[set[int]] = []
        self.written: list[set[int]] = []

    def zeros(self, name: str) -> torch.Tensor:
        return torch.zeros(1)

    def run(
        self, inputs: Mapping[str, torch.Tensor], into: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        into = into or {}
        assert set(into) <= set(self.output_names)
        assert set(inputs) == set(self.input_names)
        self.read.append({x.data_ptr() for name, x in inputs.items() if name != "latent"})
        self.written.append({x.data_ptr() for x in into.values()})
        for name, x in into.items():
            x.copy_(inputs.get(name.replace("_out", ""), torch.zeros(1)) + inputs["latent"].flatten())
        return {"frames": torch.cat([x.clone() for x in into.values()] or [torch.zeros(1)])} | dict(into)


def decode(values: list[float]) -> tuple[list[list[float]], Decoder, Decoder]:
    first, later = Decoder(first=True), Decoder(first=False)
    latents = torch.tensor(values).reshape(1, 1, len(values), 1, 1)
    frames = list(EngineCodec(first, first, later).decode(latents, 1))
    return [frame.tolist() for frame in frames], first, later


def test_each_step_reads_what_the_one_before_wrote_and_zeros_where_that_wrote_nothing() -> None:
    frames, _, _ = decode([1.0, 2.0, 4.0, 8.0])
    assert frames == [[1.0], [3.0, 2.0], [7.0, 6.0], [15.0, 14.0]]


def test_two_sets_of_memory_are_read_and_written_in_turn() -> None:
    _, first, later = decode([1.0] * 6)
    assert first.written[0] < later.read[0]
    for read, written in zip(later.read, later.written, strict=True):
        assert not read & written
    assert later.read[1:] == later.written[:-1]
    assert len(set().union(*later.read, *later.written)) == 4  # two layers, two sets


def test_a_single_frame_needs_no_history() -> None:
    first, later = Decoder(first=True), Decoder(first=False)
    assert len(list(EngineCodec(first, first, later).decode(torch.ones(1, 1, 1, 1, 1), 1))) == 1
    assert later.read == []
    assert first.written == [set()]
