"""Tiny random checkpoints of the three Qwen-VL classes, saved in the hub's layout."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
WRITTEN = [pytest.param("qwen2_vl", marks=pytest.mark.full), "qwen2_5_vl", "qwen3_vl"]
"""Of the first two the decoders are alike, and so is what writes with them; their towers have tests of their own."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> Any:
    """Byte-level tokenizer with Qwen's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        additional_special_tokens=SPECIAL, clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _text(vocab: int, **more: Any) -> Any:
    return {"vocab_size": vocab, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
            "bos_token_id": None, "eos_token_id": vocab - 6, **more}


def _model(family: str, vocab: int, ids: Any, width: int = 32) -> Any:
    vision: Any
    unit = width // 16
    rope: Any = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [unit, 3 * unit // 2, 3 * unit // 2]}
    if family == "qwen2_vl":
        vision = {"depth": 2, "embed_dim": 32, "hidden_size": width, "num_heads": 2, "mlp_ratio": 2}
        return Qwen2VLForConditionalGeneration(Qwen2VLConfig(
            text_config=_text(vocab, hidden_size=width, rope_parameters=rope), vision_config=vision, **ids))
    if family == "qwen2_5_vl":
        vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": width, "num_heads": 2, "intermediate_size": 48,
                  "fullatt_block_indexes": [1], "window_size": 56}
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(
            text_config=_text(vocab, hidden_size=width, rope_parameters=rope), vision_config=vision, **ids))
    if family == "qwen3_5":  # layers with a state in turns with such as attend
        vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": width, "num_heads": 2, "intermediate_size": 48,
                  "num_position_embeddings": 64, "patch_size": 16}
        text = _text(
            vocab, hidden_size=width, head_dim=width // 2, num_hidden_layers=3,
            layer_types=["full_attention", "linear_attention", "full_attention"],
            linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=2,
            rope_parameters={**rope, "mrope_interleaved": True, "partial_rotary_factor": 1.0})
        return Qwen3_5ForConditionalGeneration(Qwen3_5Config(text_config=text, vision_config=vision, **ids))
    vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": width, "num_heads": 2, "intermediate_size": 48,
              "deepstack_visual_indexes": [0], "num_position_embeddings": 64, "patch_size": 16}
    rope3 = {**rope, "mrope_interleaved": True}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(
        text_config=_text(vocab, hidden_size=width, head_dim=width // 2, rope_parameters=rope3),
        vision_config=vision, **ids))


def save_tiny_checkpoint(family: str, folder: Path, *, width: int = 32) -> Path:
    """Write config, weights, tokenizer with chat template and image processor to `folder`.

    The language model has two heads, each of half its `width`.
    """
    tokenizer = tiny_tokenizer()
    ids = {f"{name}_id": int(tokenizer.convert_tokens_to_ids(token)) for name, token in (
        ("image_token", "<|image_pad|>"), ("video_token", "<|video_pad|>"),
        ("vision_start_token", "<|vision_start|>"), ("vision_end_token", "<|vision_end|>"))}
    torch.manual_seed(7)
    model = _model(family, len(tokenizer), ids, width)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(4)  # the init's 0.02 makes all logits alike, and greedy output a constant
            if "norm" in name and name.endswith("weight") and not parameter.any():  # Qwen3.5 tells what is above one
                parameter.fill_(3)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    patch = 16 if family.startswith("qwen3") else 14
    Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": (2 * patch) ** 2, "longest_edge": 64 * (2 * patch) ** 2},
    ).save_pretrained(folder)
    return folder


def tiny_tower(family: str) -> Any:
    """The vision tower alone, with numbers large enough that a mistake in one shows."""
    torch.manual_seed(7)
    ids = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}
    tower = _model(family, 300, ids).model.visual.eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.mul_(4)
    return tower
