"""Qwen's decoder and tower on a CUDA device, against their references in torch."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3VLConfig
from transformers import Qwen3VLForConditionalGeneration as Qwen3VL

from vl_service.qwen.fast.network import Network
from vl_service.qwen.fast.prompt import prompt_of
from vl_service.qwen.fast.slots import Joining, Sampling, Slots
from vl_service.qwen.fast.tower import FastTower

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def away(found: torch.Tensor, reference: torch.Tensor) -> float:
    reference = reference.float().cpu()
    return float((found.float().cpu() - reference).norm() / reference.norm())


def model_of(family: str) -> Any:
    torch.manual_seed(3)
    text: dict[str, Any] = {
        "vocab_size": 500, "hidden_size": 256, "intermediate_size": 352, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]}}
    vision: dict[str, Any] = {"depth": 2, "hidden_size": 160, "intermediate_size": 96, "num_heads": 2,
                              "out_hidden_size": 256}
    if family == "qwen3":
        text["rope_parameters"]["mrope_interleaved"] = True
        vision |= {"deepstack_visual_indexes": [0]}
        model: Any = Qwen3VL(Qwen3VLConfig(text_config=text, vision_config=vision))  # type: ignore[arg-type]
    else:
        text |= {"num_attention_heads": 4}
        vision |= {"fullatt_block_indexes": [1], "window_size": 112}
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision))  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.mul_(3)
    return model.eval().requires_grad_(False)


def halved(module: Any, device: str = "cuda") -> Any:
    """In bfloat16, but for the rotary frequencies, as a checkpoint is loaded."""
    for parameter in module.parameters():
        parameter.data = parameter.data.bfloat16()
    return module.to(device)


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_step_is_its_reference(family: str, rows: int) -> None:
    """As near to float32 as torch in bfloat16: the logits; and what joined the cache."""
    exact = Network(model_of(family), 300)
    rounded, quick = Network(halved(model_of(family), "cpu"), 300), Network(halved(model_of(family)), 300)
    plain_cache, rounded_cache, quick_cache = (network.new_cache(rows) for network in (exact, rounded, quick))
    for name in ("keys", "values"):
        numbers = getattr(plain_cache, name).normal_()
        for cache in (rounded_cache, quick_cache):
            getattr(cache, name).copy_(numbers)
    tokens, position = torch.tensor([7, 300, 41])[:rows], torch.tensor([130, 63, 299], dtype=torch.int32)[:rows]
    turn = position - 20
    expected = exact.step(tokens, position, turn, plain_cache)
    found = quick.step(tokens.cuda(), position.cuda(), turn.cuda(), quick_cache)
    assert found.dtype == torch.float32
    in_torch = rounded.step(tokens, position, turn, rounded_cache)
    assert away(found, expected) < 1.2 * away(in_torch, expected)
    assert away(quick_cache.keys, plain_cache.keys) < 6e-3
    assert away(quick_cache.values, plain_cache.values) < 6e-3
    row = rows - 1
    where = int(position[row])
    assert away(quick_cache.keys[1, row, :, where], plain_cache.keys[1, row, :, where]) < 5e-2


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(("outputs", "width", "gated"), [(2560, 2048, False), (704, 256, True), (500, 300, False)])
@pytest.mark.parametrize("fp8", [False, True])
def test_a_product_is_its_reference(rows: int, outputs: int, width: int, gated: bool, fp8: bool) -> None:
    from vl_service.qwen.fast.float8 import Float8
    from vl_service.qwen.fast.kernels import product

    torch.manual_seed(0)
    made, weight = outputs // (1 + gated), (torch.randn(outputs, width) * width**-0.5).bfloat16().cuda()
    x, norm = torch.randn(rows, width).bfloat16().cuda(), (torch.rand(width) + 0.5).bfloat16().cuda()
    bias, residual = torch.randn(made).bfloat16().cuda(), torch.randn(rows, made).bfloat16().cuda()
    given = Float8.of(weight) if fp8 else weight
    exact = (given.numbers.double() * given.scale[:, None].double()) if isinstance(given, Float8) else weight.double()
    expected = F.linear(F.rms_norm(x.double(), (width,), norm.double(), 1e-6), exact)
    if gated:
        gate, up = expected.chunk(2, dim=1)
        expected = F.silu(gate) * up
    found = product(x, given, bias=bias, norm=norm, eps=1e-6, residual=residual, gated=gated)
    assert away(found, expected + bias.double() + residual.double()) < 6e-3
    if fp8:  # a scale for each output leaves what eight bits round
        assert away(exact, weight) < 3e-2


@torch.inference_mode()
def written(slots: Slots, ids: list[list[int]], sampling: Sampling, tokens: int) -> list[list[int]]:
    """As many rows as there are prompts, which begin alike."""
    prompts = [prompt_of(one, None, image_token_id=-1, merge=2, device=slots.device) for one in ids]
    slots.join([
        Joining(prompt=prompt, slot=row, start=8 if row else 0, donor=0 if row else None, sampling=sampling,
                noise=sampling.noise(row, tokens)) for row, prompt in enumerate(prompts)])
    said = slots.steps(range(len(ids)), tokens)
    for row in range(len(ids)):
        slots.leave(row)
    return list(said.values())


def test_graphs_write_what_steps_without_them_do() -> None:
    """In float32, so on torch's own operators: token for token as on the CPU, one row and more, the second time too."""
    torch.backends.cuda.matmul.allow_tf32 = False
    ids = [[at % 11 for at in range(length)] for length in (40, 25, 60)]
    plain, quick = (Slots(model, length=96, count=4) for model in (model_of("qwen2.5"), model_of("qwen2.5").cuda()))
    with torch.inference_mode():
        quick.warm_up()
    assert sorted(quick._graphs) == [1, 2, 4]
    for sampling in (Sampling(greedy=True), Sampling(temperature=0.8, top_k=20, repetition_penalty=1.1)):
        for rows in (1, 2, 3, 1):
            assert written(quick, ids[:rows], sampling, 20) == written(plain, ids[:rows], sampling, 20)


def test_rules_said_while_the_device_goes_on_are_those_of_the_next_token() -> None:
    """A row that may say other tokens at each step beside one that may say all, which joins in between."""
    torch.backends.cuda.matmul.allow_tf32 = False
    said: list[list[list[int]]] = []
    for model in (model_of("qwen2.5"), model_of("qwen2.5").cuda()):
        slots, tokens = Slots(model, length=96, count=2), [list[int](), list[int]()]
        ids, vocabulary = torch.arange(40) % 11, torch.arange(len(slots.network.head))
        with torch.inference_mode():
            slots.warm_up()
            for turn in range(20):
                for row in (0, 1):
                    if turn == 5 * row:
                        prompt = prompt_of(ids.tolist(), None, image_token_id=-1, merge=2, device=slots.device)
                        slots.join([Joining(prompt=prompt, slot=row, start=0, donor=None, noise=None,
                                            sampling=Sampling(greedy=True, repetition_penalty=1.1))])
                slots.allow(0, vocabulary[:-2] % 7 == turn % 7)
                for row, new in slots.steps([0, 1] if turn >= 5 else [0], 1, ahead=True).items():
                    tokens[row] += new
        assert [token % 7 for token in tokens[0]] == [turn % 7 for turn in range(20)]
        said.append(tokens)
    assert said[0] == said[1]


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_kernels_write_in_bfloat16(rows: int) -> None:
    slots, lively = Slots(halved(model_of("qwen2.5")), length=200, count=4), Sampling(temperature=0.9)
    with torch.inference_mode():
        slots.warm_up()
    ids = [[at % 17 for at in range(100 + row)] for row in range(rows)]
    first, second = (written(slots, ids, lively, 60) for _ in range(2))
    assert first == second
    assert all(len(set(row)) > 10 for row in first)


@pytest.mark.parametrize("grid", [(8, 8), (10, 14), (52, 92)])
def test_the_tower_is_its_reference(grid: tuple[int, int]) -> None:
    exact = model_of("qwen2.5").model.visual
    sides, pixels = torch.tensor([[1, *grid]]), torch.randn(grid[0] * grid[1], 3 * 2 * 14 * 14)
    expected = exact(pixels, grid_thw=sides).pooler_output
    found = FastTower(halved(exact))(pixels.cuda(), sides.cuda())
    assert away(found, expected) < 3e-2
