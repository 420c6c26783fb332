"""The fast transformer in the plain one's place: called the same way, in any order of words and sizes."""

from typing import Any

import pytest
import torch

from tests.unit.video_service.layers.test_wan_transformer import away, transformer_of
from video_service.layers.wan.fast import FastTransformer
from video_service.layers.wan.transformer import ClipSteps


@pytest.fixture(autouse=True)
def one_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA: the steps of a size write each velocity where the one before lay."""
    compute, memory = ClipSteps.at, {}

    def at(self: ClipSteps, *given: Any) -> torch.Tensor:
        found = compute(self, *given)
        return memory.setdefault(self, torch.empty_like(found)).copy_(found)

    monkeypatch.setattr(ClipSteps, "at", at)


def test_words_times_and_sizes_may_alternate_and_a_result_is_kept() -> None:
    plain = transformer_of()
    torch.manual_seed(1)
    texts = [torch.randn(1, 12, 32) for _ in range(3)]
    latents = [torch.randn(1, 16, 3, 12, width) for width in (20, 24, 28)]
    order = [(latents[at % 3], texts[word], 900.0 - 100.0 * at) for at, word in enumerate([0, 1, 0, 1, 2, 0, 2, 1, 0])]
    expected = [plain(x, torch.tensor([time]), text, return_dict=False)[0] for x, text, time in order]
    fast = FastTransformer(plain)
    found = [fast(x, torch.tensor([time]), text, return_dict=False)[0] for x, text, time in order]
    for one, reference in zip(found, expected, strict=True):
        assert away(one, reference) < 1e-5
    assert fast.module is plain


def test_guidance_has_both_velocities_at_one_time() -> None:
    plain = transformer_of()
    torch.manual_seed(1)
    latents, text, negative = torch.randn(1, 16, 3, 12, 20), torch.randn(1, 12, 32), torch.randn(1, 12, 32)
    times = torch.tensor([900.0])
    found = FastTransformer(plain).both(latents, times, text, negative)
    for one, words in zip(found, (text, negative), strict=True):
        assert away(one, plain(latents, times, words, return_dict=False)[0]) < 1e-5
    assert away(*found) > 1e-3
