"""Tokens written by the fast decoder are those of transformers' `generate`."""

import copy
from itertools import chain
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES, save_tiny_checkpoint, tiny_tower
from vl_service.qwen.fast.decode import FastDecoder, Prompt, Sampling, candidates, common_start, positions_of, prompt_of
from vl_service.qwen.fast.tower import FastTower

GRID = torch.tensor([[1, 4, 6]])
NEW = 20
GREEDY = Sampling(greedy=True)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_tiny_checkpoint(request.param, tmp_path_factory.mktemp("qwen"))
    return AutoModelForImageTextToText.from_pretrained(folder).eval().requires_grad_(False)


def picture(model: Any) -> Any:
    torch.manual_seed(0)
    side = model.config.vision_config.patch_size
    pixels = torch.randn(int(GRID.prod()), 3 * 2 * side * side)
    return model.model.get_image_features(pixel_values=pixels, image_grid_thw=GRID, return_dict=True)


def ids_of(model: Any, words: int) -> torch.Tensor:
    """5 tokens that all share, the picture, then so many others."""
    torch.manual_seed(words)
    start = torch.arange(20, 25)
    return torch.cat([start, torch.full((6,), model.config.image_token_id), torch.randint(10, 200, (words,))])[None]


def generated(model: Any, ids: torch.Tensor, encoded: Any) -> list[int]:
    model.model.rope_deltas = None
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), image_grid_thw=GRID,
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        mm_encoder_outputs={"image": copy.deepcopy(encoded)}, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)
    return output[0, ids.shape[1]:].tolist()


def prompts_of(model: Any, words: tuple[int, ...]) -> list[Prompt]:
    encoded = picture(model)
    return [prompt_of(model, ids, ids == model.config.image_token_id, GRID, encoded)
            for ids in (ids_of(model, count) for count in words)]


def written(decoder: FastDecoder, prompts: list[Prompt], sampling: Sampling = GREEDY, **more: Any) -> list[list[int]]:
    options: dict[str, Any] = {"max_new_tokens": NEW, "stop_ids": [], "seeds": range(len(prompts))} | more
    chunks = list(decoder.write(prompts, sampling, **options))
    return [list(chain.from_iterable(parts)) for parts in zip(*chunks, strict=True)]


def test_greedy_tokens_are_generate_s_alone_and_together(model: Any) -> None:
    """Rows of several lengths share the picture, which is read once; the cache of a call before leaks into none."""
    words = (7, 4, 9)
    prompts, encoded = prompts_of(model, words), picture(model)
    stop = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = None
    expected = [generated(model, ids_of(model, count), encoded) for count in words]
    model.generation_config.eos_token_id = stop
    assert common_start(prompts) == 11
    decoder = FastDecoder(model, max_length=96, max_rows=3)
    assert written(decoder, prompts) == expected
    assert written(decoder, prompts[1:2]) == expected[1:2]
    assert len({tuple(row) for row in expected}) == 3
    ended = written(decoder, prompts, stop_ids=[expected[0][3]])
    assert ended[0] == expected[0][: expected[0].index(expected[0][3])]


def test_positions_are_the_model_s(model: Any) -> None:
    grids = torch.tensor([[1, 4, 6], [1, 8, 2]])
    image = model.config.image_token_id
    ids = torch.tensor([[1, 2, *[image] * 6, 3, *[image] * 4, 4, 5, 6]])
    expected, _ = model.model.get_rope_index(
        ids, mm_token_type_ids=(ids == image).int(), image_grid_thw=grids, attention_mask=torch.ones_like(ids))
    assert torch.equal(positions_of(ids[0] == image, grids.tolist(), 2), expected)


def test_a_seed_means_the_same_words_and_another_seed_others(model: Any) -> None:
    decoder, prompts = FastDecoder(model, max_length=96), prompts_of(model, (7,))
    lively = Sampling(temperature=2.0, top_k=50)
    first, again, other = (written(decoder, prompts, lively, seeds=[seed]) for seed in (1, 1, 2))
    assert first == again != other


def test_what_does_not_fit_is_refused(model: Any) -> None:
    decoder, prompts = FastDecoder(model, max_length=32), prompts_of(model, (7, 8))
    with pytest.raises(ValueError, match="do not fit"):
        written(decoder, prompts[:1])
    with pytest.raises(ValueError, match="do not fit"):
        written(decoder, prompts, max_new_tokens=2)


@pytest.mark.parametrize("how", [(0.7, 0.8, 20, 1.05, 0.0), (1.0, 1.0, 64, 1.0, 0.0), (1.5, 0.3, 5, 1.3, 0.0)])
def test_tokens_are_weighed_as_generate_weighs_them(how: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    logits, ids = 4 * torch.randn(3, 500), torch.randint(0, 500, (3, 40))
    temperature, top_p, top_k, repetition, _ = how
    processors = [RepetitionPenaltyLogitsProcessor(repetition), TemperatureLogitsWarper(temperature),
                  TopKLogitsWarper(int(top_k)), TopPLogitsWarper(top_p)]
    theirs = LogitsProcessorList(processors)(ids, logits.clone()).softmax(1)  # type: ignore[arg-type]
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
    weights, tokens = candidates(logits, seen, torch.tensor(how))
    torch.testing.assert_close(torch.zeros_like(logits).scatter_(1, tokens, weights.softmax(1)), theirs)


@pytest.mark.parametrize("grid", [(4, 6), (8, 8), (10, 14), (2, 2)])
def test_the_tower_is_the_model_s(grid: tuple[int, int]) -> None:
    """Windows of one to four sizes."""
    tower = tiny_tower("qwen2_5_vl")
    pixels, sides = torch.randn(grid[0] * grid[1], 3 * 2 * 14 * 14), torch.tensor([[1, *grid]])
    expected = tower(pixels, grid_thw=sides).pooler_output
    torch.testing.assert_close(FastTower(tower)(pixels, sides), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tower(pixels, grid_thw=sides).pooler_output, expected)  # its weights still stand


def test_a_tower_without_windows_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="windows"):
        FastTower(tiny_tower("qwen2_vl"))
