"""Tokens written as rows of one step are those of transformers' `generate`."""

import copy
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

from tests.unit.vl_service.qwen.tiny_qwen import WRITTEN, save_tiny_checkpoint, tiny_tower
from vl_service.qwen.fast.float8 import Float8
from vl_service.qwen.fast.prompt import Prompt, common_start, positions_of, prompt_of
from vl_service.qwen.fast.slots import Joining, Sampling, Slots, candidates
from vl_service.qwen.fast.tower import FastTower
from vl_service.qwen.vision.features import Features

GRID = torch.tensor([[1, 4, 6]])
NEW = 20
GREEDY = Sampling(greedy=True)


@pytest.fixture(scope="module", params=WRITTEN)
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
    """About one picture."""
    encoded = picture(model)
    seen = Features(
        embeddings=torch.cat(tuple(encoded.pooler_output)), grid_thw=GRID, revision="", processor="",
        deepstack=tuple(torch.cat(tuple(part)) for part in getattr(encoded, "deepstack_features", None) or ()))
    return [prompt_of(ids_of(model, count)[0].tolist(), seen, image_token_id=model.config.image_token_id,
                      device=torch.device("cpu"), merge=2) for count in words]


def joining(prompt: Prompt, slot: int, *, start: int = 0, donor: int | None = None, how: Sampling = GREEDY,
            seed: int = 0) -> Joining:
    return Joining(prompt=prompt, slot=slot, start=start, donor=donor, sampling=how, noise=how.noise(seed, NEW))


@torch.inference_mode()
def written(slots: Slots, *rows: Joining) -> list[list[int]]:
    """In the order of the rows."""
    slots.join(rows)
    tokens = slots.steps([row.slot for row in rows], NEW)
    for row in rows:
        slots.leave(row.slot)
    return [tokens[row.slot] for row in rows]


def expected_of(model: Any, words: tuple[int, ...]) -> list[list[int]]:
    stop, model.generation_config.eos_token_id = model.generation_config.eos_token_id, None
    encoded = picture(model)
    expected = [generated(model, ids_of(model, count), encoded) for count in words]
    model.generation_config.eos_token_id = stop
    return expected


def test_greedy_tokens_are_generate_s_alone_and_together(model: Any) -> None:
    """Rows of several lengths, the picture read once or taken from a row of before; nothing leaks from it."""
    expected, prompts = expected_of(model, (7, 4, 9)), prompts_of(model, (7, 4, 9))
    assert len({tuple(row) for row in expected}) == 3
    slots = Slots(model, length=96, count=4)
    together = [joining(prompts[0], 2), joining(prompts[1], 0, start=11, donor=2), joining(prompts[2], 1)]
    assert written(slots, *together) == expected
    assert written(slots, joining(prompts[1], 3, start=11, donor=1)) == expected[1:2]
    assert written(slots, joining(prompts[0], 2, start=len(prompts[0].ids) - 1)) == expected[:1]  # all was read


@torch.inference_mode()
def test_rows_join_and_leave_at_any_step(model: Any) -> None:
    expected, prompts = expected_of(model, (7, 4, 9)), prompts_of(model, (7, 4, 9))
    slots, said = Slots(model, length=96, count=4), [list[int]() for _ in range(3)]
    for at in range(NEW + 8):
        for row, begin in enumerate((0, 3, 8)):
            if at == begin:
                slots.join([joining(prompts[row], row)])
            if at == begin + NEW:
                slots.leave(row)
        running = [row for row, begin in enumerate((0, 3, 8)) if begin <= at < begin + NEW]
        for row, [token] in slots.steps(running, 1).items():
            said[row].append(token)
    assert said == expected


def test_what_two_prompts_share_ends_where_words_or_pictures_differ(model: Any) -> None:
    same, other = prompts_of(model, (7, 4)), prompts_of(model, (7,))[0]

    def shared(one: Prompt, two: Prompt) -> int:
        return common_start(one.marks, one.pictures, two.marks, two.pictures)

    assert shared(*same) == 11  # five words and the picture
    assert shared(same[0], same[0]) == 18
    assert shared(same[0], other) == 5  # another picture of the same size


def test_positions_are_the_model_s(model: Any) -> None:
    grids = torch.tensor([[1, 4, 6], [1, 8, 2]])
    image = model.config.image_token_id
    ids = torch.tensor([[1, 2, *[image] * 6, 3, *[image] * 4, 4, 5, 6]])
    expected, _ = model.model.get_rope_index(
        ids, mm_token_type_ids=(ids == image).int(), image_grid_thw=grids, attention_mask=torch.ones_like(ids))
    assert torch.equal(positions_of(ids[0] == image, grids.tolist(), 2), expected)


def test_a_seed_means_the_same_words_and_another_seed_others(model: Any) -> None:
    slots, [prompt] = Slots(model, length=96, count=1), prompts_of(model, (7,))
    lively = Sampling(temperature=2.0, top_k=50)
    first, again, other = (written(slots, joining(prompt, 0, how=lively, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_rows_are_drawn_each_in_its_own_way(model: Any) -> None:
    expected, [prompt] = expected_of(model, (7,)), prompts_of(model, (7,))
    slots, lively = Slots(model, length=96, count=2), Sampling(temperature=2.0, top_k=50)
    alone = written(slots, joining(prompt, 1, how=lively, seed=3))
    assert written(slots, joining(prompt, 0), joining(prompt, 1, how=lively, seed=3)) == expected + alone


@pytest.mark.parametrize("how", [(0.7, 0.8, 20, 1.05, 0.0), (1.0, 1.0, 64, 1.0, 0.0), (1.5, 0.3, 5, 1.3, 0.0)])
def test_tokens_are_weighed_as_generate_weighs_them(how: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    logits, ids = 4 * torch.randn(3, 500), torch.randint(0, 500, (3, 40))
    temperature, top_p, top_k, repetition, _ = how
    processors = [RepetitionPenaltyLogitsProcessor(repetition), TemperatureLogitsWarper(temperature),
                  TopKLogitsWarper(int(top_k)), TopPLogitsWarper(top_p)]
    theirs = LogitsProcessorList(processors)(ids, logits.clone()).softmax(1)  # type: ignore[arg-type]
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
    weights, tokens = candidates(logits, seen, torch.tensor(how).expand(3, 5))
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


def test_a_weight_in_eight_bits_is_itself_but_for_rounding_however_it_is_cut() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4200, 4096).bfloat16()  # more than is taken at once
    weight[7] = 0
    packed = Float8.of(weight)
    back = packed.numbers.float() * packed.scale[:, None]
    assert ((back - weight.float()).norm(dim=1) <= 3e-2 * weight.float().norm(dim=1)).all()
    for at in (0, 4095, 4096, 4199):
        alone = Float8.of(weight[at : at + 1])
        assert torch.equal(alone.numbers.view(torch.uint8)[0], packed.numbers.view(torch.uint8)[at])
        assert torch.equal(alone.scale[0], packed.scale[at])
