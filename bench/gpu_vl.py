"""Qwen2.5-VL-3B with random weights: a picture to 128 tokens, by transformers' `generate` and by ours."""

import time
from types import SimpleNamespace
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from bench.gpu_measure import measure, relative
from vl_service.qwen.fast.network import Cache
from vl_service.qwen.fast.prompt import Prompt, prompt_of
from vl_service.qwen.fast.slots import Joining, Sampling, Slots
from vl_service.qwen.fast.tower import FastTower

NEW_TOKENS = 128
GREEDY = Sampling(greedy=True)
GRIDS = {False: (52, 92), True: (4, 6)}
IDS = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652,
       "vision_end_token_id": 151653}


def vl_stage(device: str, tiny: bool) -> dict[str, Any]:
    """A picture of 1,196 tokens and 84 tokens of words to 128 new ones."""
    model = random_model(device, tiny)
    ids, mask, grid, pixels = _inputs(model, tiny)
    new = 4 if tiny else NEW_TOKENS

    def plain() -> Any:
        with torch.no_grad():
            return model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=mask.int(), image_grid_thw=grid,
                pixel_values=pixels, max_new_tokens=new, min_new_tokens=new, do_sample=False)

    rows: dict[str, Any] = {"plain": measure(plain, count=False)}
    expected = plain()[0, ids.shape[1]:].tolist()
    with torch.no_grad():
        features = model.model.get_image_features(pixel_values=pixels, image_grid_thw=grid, return_dict=True)
    rows["plain_tower"] = measure(lambda: model.model.visual(pixels, grid_thw=grid))
    with torch.no_grad():
        logits = model(input_ids=ids, mm_token_type_ids=mask.int(), image_grid_thw=grid, pixel_values=pixels,
                       logits_to_keep=1).logits[0, -1:]
    rows |= _fast(model, ids, mask, grid, pixels, new, expected, features, logits)
    return rows


def _fast(
    model: Any, ids: Any, mask: Any, grid: Any, pixels: Any, new: int, expected: list[int], features: Any, logits: Any
) -> dict[str, Any]:
    tower = FastTower(model.model.visual)
    slots = Slots(model, length=256 if new < NEW_TOKENS else 1536, count=4)
    with torch.inference_mode():
        slots.warm_up()

    def see() -> Prompt:
        seen: Any = SimpleNamespace(embeddings=tower(pixels, grid), grid_thw=grid.cpu(), deepstack=(), names=("one",))
        image = model.config.image_token_id
        return prompt_of(ids[0].tolist(), seen, image_token_id=image, merge=2, device=model.device)

    @torch.inference_mode()
    def write(tokens: int, rows: int = 1) -> list[int]:
        prompt = see()
        slots.join([Joining(prompt=prompt, slot=row, start=len(prompt.ids) - 1 if row else 0, donor=0 if row else None,
                            sampling=GREEDY, noise=None) for row in range(rows)])
        return slots.steps(range(rows), tokens)[0]

    plain_features = features.pooler_output[0]
    found: dict[str, Any] = {"fast_tower": measure(lambda: tower(pixels, grid), kernels=8)}
    found["fast_tower"]["relative_L2"] = relative(tower(pixels, grid), plain_features)
    found["fast_first"] = measure(lambda: write(1), kernels=8)
    with torch.no_grad():
        network, prompt = slots.network, see()
        network.read([prompt.part(network, row=0, start=0, donor=None)], slots._cache)
        last = torch.tensor([len(prompt.ids) - 1], dtype=torch.int32, device=model.device)
        turn = prompt.positions[0, 0, -1:].int()
        one = Cache(keys=slots._cache.keys[:, :1], values=slots._cache.values[:, :1])
        found["fast_first"]["relative_L2"] = relative(network.step(prompt.ids[-1:], last, turn, one), logits)
    found["fast"] = measure(lambda: write(new), kernels=10)
    written = write(new)
    found["fast"]["agreed_tokens"] = next(
        (index for index, pair in enumerate(zip(written, expected, strict=True)) if len(set(pair)) > 1), new)
    found["fast_3_rows"] = measure(lambda: write(new, 3), kernels=6)
    return found


def _inputs(model: Any, tiny: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    device, (rows, columns) = model.device, GRIDS[tiny]
    grid = torch.tensor([[1, rows, columns]], device=device)
    words = torch.randint(0, 1000, (1, 84), device=device)
    picture = torch.full((1, rows * columns // 4), model.config.image_token_id, device=device)
    ids = torch.cat([words[:, :20], picture, words[:, 20:]], dim=1)
    pixels = torch.randn(rows * columns, 3 * 2 * 14 * 14, device=device, dtype=model.dtype)
    return ids, ids == model.config.image_token_id, grid, pixels


def random_model(device: str, tiny: bool, *, seven: bool = False) -> Any:
    """Of 3B; of 7B where `seven`."""
    torch.manual_seed(0)
    text: dict[str, Any] = {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": True,
    }
    vision: dict[str, Any] = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
        "fullatt_block_indexes": [7, 15, 23, 31], "window_size": 112,
    }
    if seven:
        text |= {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                 "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False}
        vision |= {"out_hidden_size": 3584}
    if tiny:
        text |= {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2,
                 "num_key_value_heads": 1}
        vision |= {"depth": 2, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2, "out_hidden_size": 256,
                   "fullatt_block_indexes": [1]}
    start = time.perf_counter()
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        config = Qwen2_5_VLConfig(text_config=text, vision_config=vision,  # type: ignore[arg-type]
                                 tie_word_embeddings=not seven, **IDS)  # type: ignore[arg-type]
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    torch.set_default_dtype(torch.float32)
    _exact_tables(model)
    print(f"made in {time.perf_counter() - start:.0f} s", flush=True)
    return model.eval().requires_grad_(False)


def _exact_tables(model: Any) -> None:
    """Rotary frequencies in float32, whatever the default type was when they were made."""
    for module in model.modules():
        if hasattr(module, "inv_freq"):
            compute = getattr(module, "compute_axial_rope_parameters", None) or module.compute_default_rope_parameters
            module.inv_freq = compute(module.config)[0].float().to(module.inv_freq.device)
            module.original_inv_freq = module.inv_freq.clone()
