"""Laws of what stays in memory."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts.videos import VideoRequest
from tests.unit.video_service.conftest import network
from video_service.model import find_model, load_model
from video_service.render.generate import Deployed, generate
from video_service.render.progress import silent
from video_service.settings import VideoSettings
from video_service.weights.host import HostCopies
from video_service.weights.residency import DoesNotFit, Key, Residency

SIZES = {"a": 4, "b": 3, "c": 5}


def use(residency: Residency[str], key: Key, num_bytes: int) -> None:
    with residency.using(key, num_bytes, lambda: ("/".join(key), num_bytes)) as value:
        assert value == "/".join(key)


@given(st.lists(st.sampled_from("abc"), max_size=12))
def test_the_most_recently_used_stay_as_far_as_they_fit(order: list[str]) -> None:
    residency = Residency[str](8)
    for name in order:
        use(residency, (name,), SIZES[name])
        assert residency.num_bytes <= residency.budget
        assert residency.keys[-1] == (name,)
    recent = list(dict.fromkeys(reversed(order)))
    kept = [name for name in recent if (name,) in residency]
    assert kept == recent[: len(kept)], "none goes before one that was used earlier"


def test_nothing_goes_while_it_is_used() -> None:
    residency = Residency[str](8)
    with residency.using(("a",), 4, lambda: ("a", 4)):
        use(residency, ("b",), 3)
        with pytest.raises(DoesNotFit, match=r"needs 0\.0 MiB.*in use"):
            use(residency, ("c",), 5)
        assert residency.keys == [("a",), ("b",)], "a refusal drops nothing"
        residency.drop(("a",))
        assert residency.drop_unused()
        assert residency.keys == [("a",)]
    use(residency, ("c",), 5)
    assert residency.keys == [("c",)]


def test_what_holds_anothers_memory_goes_before_it_and_with_it() -> None:
    residency, dropped = Residency[str](10), []
    residency._on_drop = lambda: dropped.append(list(residency.keys))
    for _ in range(2):
        with residency.using(("a",), 4, lambda: ("a", 4)):
            use(residency, ("a", "lora"), 2)
    use(residency, ("c",), 5)
    assert residency.keys == [("a",), ("c",)]
    use(residency, ("b",), 6)
    assert residency.keys == [("b",)]
    assert dropped == [[("a",)], []]


def test_what_turns_out_larger_than_expected_makes_its_room_afterwards() -> None:
    residency = Residency[str](8)
    use(residency, ("a",), 4)
    with residency.using(("b",), 0, lambda: ("b", 7)):
        assert residency.keys == [("b",)]


def test_a_failed_load_adds_nothing() -> None:
    residency = Residency[str](8)

    def fail() -> tuple[str, int]:
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"), residency.using(("a",), 4, fail):
        pass
    assert residency.keys == []


def test_a_part_kept_on_the_host_comes_back_without_its_file_and_as_it_was_read(
    tiny_folder: Path, tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = VideoSettings(model=str(tiny_folder), device="cpu", dtype="float32")
    source = find_model(settings)
    source = replace(source, files=replace(source.files, host=HostCopies(1 << 30)))
    first = load_model(source, settings)
    for weight in network(first).parameters():
        weight.data = weight.data * 0  # as a LoRA, or a move to the device, gives it other data
    monkeypatch.setattr("video_service.weights.parts.read_part", None)
    request = request_64.model_copy(update={"num_frames": 1})
    videos = [generate(model, request, tmp_path / "video.mp4", silent).sha256
              for model in (load_model(source, settings), tiny_model, first)]
    assert videos[0] == videos[1] != videos[2]


def test_what_has_no_room_on_the_host_is_read_and_not_kept() -> None:
    copies, reads = HostCopies(100), []

    def read() -> torch.nn.Linear:
        reads.append(1)
        return torch.nn.Linear(10, 10)

    for _ in range(2):
        assert copies.part(("large",), read).weight.shape == (10, 10)
    assert len(reads) == 2
