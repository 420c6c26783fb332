"""FlashAttention is used only where it is there, known to this GPU, and computes what torch computes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from video_service.layers.attention import flash


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    flash.available.cache_clear()
    yield
    flash.available.cache_clear()


def broken() -> float:
    raise OSError("no ptxas")


@pytest.mark.parametrize(("capability", "library", "error", "taken", "said"), [
    ((9, 0), object(), lambda: 0.003, True, ""),
    ((8, 9), object(), lambda: 0.003, False, ""),
    ((9, 0), None, lambda: 0.003, False, ""),
    ((9, 0), object(), lambda: 0.3, False, "0.300 away from torch's"),
    ((9, 0), object(), lambda: float("nan"), False, "nan away"),
    ((9, 0), object(), broken, False, "does not work here: no ptxas"),
])
def test_it_is_taken_where_it_is_there_and_right(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capability: tuple[int, int], library: Any, error: Any, taken: bool, said: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(flash, "_library", lambda: library)
    monkeypatch.setattr(flash, "_error", error)
    assert flash.available() is taken
    assert said in caplog.text
    assert bool(said) == bool(caplog.records)


def test_a_cpu_s_tensors_are_not_for_it() -> None:
    q = torch.zeros(1, 5000, 1, 128, dtype=torch.bfloat16)
    assert not flash.takes(q, q)
