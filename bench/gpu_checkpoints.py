"""Checkpoints of random weights at full size, in the published layouts, for benches that start the real services."""

import itertools
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2VLImageProcessorPil, UMT5Config, UMT5EncoderModel

from bench.gpu_video import DIT_1_3B, random_transformer, random_vae
from bench.gpu_vl import IDS, random_model
from vl_service import prompts

UMT5_XXL = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
UMT5_TINY = {"vocab_size": 2000, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}
DIT_TINY = {"num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 64, "num_layers": 2, "text_dim": 32,
            "freq_dim": 32}
_CHAT = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %} {{ part['text'] }} "
    "{% endif %}{% endfor %}<|im_end|> {% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
_SPECIAL = {"<|im_start|>": 151644, "<|im_end|>": 151645, "<|vision_start|>": IDS["vision_start_token_id"],
            "<|vision_end|>": IDS["vision_end_token_id"], "<|image_pad|>": IDS["image_token_id"],
            "<|video_pad|>": IDS["video_token_id"]}
_CONTRAST = 0.12  # random weights decode to noise, of which no video's file is as large: 16 MB where one has 3


def save_random_wan(folder: Path, device: str, *, tiny: bool, small_text: bool = False) -> Path:
    """Wan2.1-1.3B with channels for a picture, its VAE and UMT5-XXL: 14 GB, or 3 GB with a small text encoder."""
    config: dict[str, Any] = DIT_TINY if tiny else DIT_1_3B | ({"text_dim": UMT5_TINY["d_model"]} if small_text else {})
    transformer = random_transformer(config | {"in_channels": 36, "cross_attn_norm": True}, device)
    vae = random_vae(device, tiny)
    for part in vae.decoder.conv_out.parameters():
        part.mul_(_CONTRAST)
    WanImageToVideoPipeline(
        tokenizer=words_tokenizer(UMT5_TINY["vocab_size"], eos_token="</s>", pad_token="<pad>"),
        text_encoder=_text_encoder(device, tiny=tiny or small_text), vae=vae, transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
    ).save_pretrained(folder)
    card = {"tasks": ["i2v", "t2v"], "steps": {"minimum": 1, "maximum": 50, "default": 4}}
    if tiny:
        card |= {"sizes": ["96x64"], "num_frames": {"minimum": 1, "maximum": 9, "default": 9}}
    (folder / "stillmotion.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def save_random_qwen(folder: Path, device: str, *, tiny: bool) -> Path:
    """Qwen2.5-VL-3B: 7 GB."""
    model = random_model(device, tiny)
    model.generation_config.eos_token_id = _SPECIAL["<|im_end|>"]
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    tokenizer = _bytes_tokenizer()
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}).save_pretrained(folder)
    return folder


def words_tokenizer(size: int, **tokens: Any) -> PreTrainedTokenizerFast:
    """A token for each word, made up; an unknown word is one too."""
    names = ["<pad>", "</s>", "<unk>", *itertools.islice(_made_up(4), size - 3)]
    tokenizer = Tokenizer(models.WordLevel(vocab={name: at for at, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **tokens)


def _bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Of Qwen's kind and size: it reads what our prompts say in as many tokens, and knows made-up words beside.

    Random weights write those, each as long as two tokens of Qwen's, so that a JSON's texts, which go to their most
    letters, take about as many tokens as a model takes that says what it sees.
    """
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = level  # type: ignore[assignment]
    lines = [line for path in Path(prompts.__path__[0]).rglob("*.toml") for line in path.read_text("utf-8").split("\n")]
    trained.train_from_iterator(filter(str.isascii, lines), trainers.BpeTrainer(
        vocab_size=8000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    told = json.loads(trained.to_str())["model"]
    vocabulary = dict(told["vocab"])
    for word in _made_up(7):
        if len(vocabulary) == min(_SPECIAL.values()):
            break
        vocabulary.setdefault(f"Ġ{word}", len(vocabulary))
    tokenizer = Tokenizer(models.BPE(
        vocab=vocabulary | _SPECIAL, merges=[(left, right) for left, right in told["merges"]]))
    tokenizer.pre_tokenizer, tokenizer.decoder = level, decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=list(_SPECIAL), eos_token="<|im_end|>",
        pad_token="<|im_end|>")


def _made_up(letters: int) -> Iterator[str]:
    """Words, the last letters of which turn first."""
    return map("".join, itertools.product(string.ascii_lowercase, repeat=letters))


def _text_encoder(device: str, *, tiny: bool) -> UMT5EncoderModel:
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        encoder = UMT5EncoderModel(UMT5Config(**(UMT5_TINY if tiny else UMT5_XXL)))  # type: ignore[arg-type]
    torch.set_default_dtype(torch.float32)
    return encoder.eval().requires_grad_(False)
