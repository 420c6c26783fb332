"""Writes a run beside its VAE, in the layout of a full-size Wan checkpoint: same classes and files, smaller numbers.

    python -m training.export --dit training/runs/dit --out models/video
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import UniPCMultistepScheduler
from safetensors.torch import load_file
from transformers import AutoTokenizer

from training.models import FLOW_SHIFT, MAX_TEXT_TOKENS, new_text_encoder, new_transformer

CARD = {
    "id": "stillmotion-embedded",
    "profile": "embedded",
    "tasks": ["i2v", "t2v"],
    "sizes": ["256x256", "320x192", "192x320"],
    "min_side": 128,
    "max_pixels": 256 * 256,
    "num_frames": {"minimum": 5, "maximum": 49, "default": 33},
    "fps": {"minimum": 1, "maximum": 30, "default": 16},
    "steps": {"minimum": 1, "maximum": 50, "default": 4},
    "guidance_scale": {"minimum": 1.0, "maximum": 6.0, "default": 1.0},
    "samplers": ["unipc", "euler", "ode", "sde"],
    "flow_shift": FLOW_SHIFT,
    "max_sequence_length": MAX_TEXT_TOKENS,
}
INDEX = {
    "_class_name": "WanImageToVideoPipeline", "_diffusers_version": "0.38.0", "boundary_ratio": None,
    "expand_timesteps": False, "image_encoder": [None, None], "image_processor": [None, None],
    "scheduler": ["diffusers", "UniPCMultistepScheduler"], "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [None, None],
    "vae": ["diffusers", "AutoencoderKLWan"],
}


def export(args: argparse.Namespace) -> None:
    out, dit = Path(args.out), Path(args.dit)
    tokenizer = AutoTokenizer.from_pretrained(dit / "tokenizer")
    tokenizer.save_pretrained(out / "tokenizer")
    text_encoder = new_text_encoder(len(tokenizer))
    text_encoder.load_state_dict(load_file(dit / "text_encoder.safetensors"), strict=False)  # tied weights stand once
    text_encoder.to(torch.bfloat16).save_pretrained(out / "text_encoder")
    transformer = new_transformer()
    transformer.load_state_dict(load_file(dit / "transformer.safetensors"))
    shutil.rmtree(out / "transformer", ignore_errors=True)  # shards of an earlier export
    transformer.to(torch.bfloat16).save_pretrained(out / "transformer", max_shard_size="40MB")
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT, num_train_timesteps=1000
    ).save_pretrained(out / "scheduler")
    (out / "stillmotion.json").write_text(json.dumps(CARD, indent=2) + "\n")
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dit", default="training/runs/dit")
    parser.add_argument("--out", default="models/video")
    export(parser.parse_args())
