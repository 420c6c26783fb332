"""The fast transformer in the plain one's place: called the same way, in any order of words and sizes."""

import torch

from tests.unit.video_service.layers.test_wan_transformer import away, transformer_of
from video_service.layers.wan.fast import FastTransformer


def test_words_times_and_sizes_may_alternate() -> None:
    plain = transformer_of()
    torch.manual_seed(1)
    texts = [torch.randn(1, 12, 32) for _ in range(3)]
    latents = [torch.randn(1, 16, 3, 12, width) for width in (20, 24, 28)]
    order = [(latents[at % 3], texts[word], 900.0 - 100.0 * at) for at, word in enumerate([0, 1, 0, 1, 2, 0, 2, 1, 0])]
    expected = [plain(x, torch.tensor([time]), text, return_dict=False)[0] for x, text, time in order]
    fast = FastTransformer(plain)
    for (x, text, time), reference in zip(order, expected, strict=True):
        (found,) = fast(x, torch.tensor([time]), text, return_dict=False)
        assert away(found, reference) < 1e-5
    assert fast.module is plain
