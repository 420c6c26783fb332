"""Writes a run in the layout of a full-size Wan checkpoint: same classes and files, smaller numbers.

    python -m training.video.export --dit training/runs/dit --out models/video

With `--mix models/video` transformer and VAE become the mean of the run's weights and of those that it went on from
(WiSE-FT, Wortsman et al. 2022): what only one of the two draws into a frame is halved.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import UniPCMultistepScheduler
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from training.video.models import FLOW_SHIFT, MAX_TEXT_TOKENS, new_text_encoder, new_transformer

VAE = "diffusion_pytorch_model.safetensors"
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


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """All shards of one part of a checkpoint."""
    return {name: value for file in sorted(folder.glob("*.safetensors")) for name, value in load_file(file).items()}


def mixed(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mean of two sets of weights, in the precision of the first. Raises ValueError where names differ."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"only one of the two has {sorted(ours.keys() ^ theirs.keys())[:3]}")
    return {name: ((value.float() + theirs[name].float()) / 2).to(value.dtype) for name, value in ours.items()}


def export(args: argparse.Namespace) -> None:
    out, dit = Path(args.out), Path(args.dit)
    state, vae = load_file(dit / "transformer.safetensors"), dit / "vae" / VAE
    decoded = load_file(vae) if vae.exists() else None  # only a run that learnt texture has one
    if args.mix:
        state = mixed(state, weights_of(args.mix / "transformer"))
        decoded = decoded and mixed(decoded, weights_of(args.mix / "vae"))
    tokenizer = AutoTokenizer.from_pretrained(dit / "tokenizer")
    tokenizer.save_pretrained(out / "tokenizer")
    text_encoder = new_text_encoder(len(tokenizer))
    text_encoder.load_state_dict(load_file(dit / "text_encoder.safetensors"), strict=False)  # tied weights stand once
    text_encoder.to(torch.bfloat16).save_pretrained(out / "text_encoder")
    transformer = new_transformer()
    transformer.load_state_dict(state)
    shutil.rmtree(out / "transformer", ignore_errors=True)  # shards of an earlier export
    transformer.to(torch.bfloat16).save_pretrained(out / "transformer", max_shard_size="40MB")
    if decoded:
        (out / "vae").mkdir(parents=True, exist_ok=True)
        save_file(decoded, out / "vae" / VAE, metadata={"format": "pt"})
    UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT, num_train_timesteps=1000
    ).save_pretrained(out / "scheduler")
    (out / "stillmotion.json").write_text(json.dumps(CARD, indent=2) + "\n")
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dit", default="training/runs/dit")
    parser.add_argument("--out", default="models/video")
    parser.add_argument("--mix", type=Path, help="exported checkpoint whose transformer and VAE count half")
    export(parser.parse_args())
