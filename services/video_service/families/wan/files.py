"""Wan checkpoints in diffusers' layout: which kind one is, what it can do, and its parts into memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import AutoImageProcessor, CLIPVisionModel, UMT5EncoderModel

from contracts.models import FloatRange, FrameRange, IntRange, ModelSpec, VideoTask
from video_service.families.base import Placement
from video_service.families.wan.colours import learned_colours
from video_service.families.wan.int8 import keep_int8
from video_service.layers.attention import flash
from video_service.layers.attention.sla import Sla
from video_service.layers.attention.vsa import Vsa
from video_service.layers.pixels import Colours
from video_service.layers.umt5_graph import FastTextEncoder
from video_service.layers.wan.codec import TEMPORAL_SCALE, KeptStills, TorchCodec
from video_service.layers.wan.fast import FastCodec, FastTransformer
from video_service.layers.wan.keys import wan_name
from video_service.layers.wan.lean_vae import make_lean
from video_service.layers.wan.transformer import Sparse, why_not
from video_service.render.solvers import RCM_STEPS
from video_service.weights.card import read_card, spec_of
from video_service.weights.checkpoint import CheckpointFiles
from video_service.weights.lora_merge import merge_loras
from video_service.weights.memory import INT8_FOLDER
from video_service.weights.parts import read_parts, read_processor, read_tokenizer
from web.worker.errors import ModelUnavailable

WAN_CONFIGS = (
    "model_index.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json",
    "scheduler/scheduler_config.json",
)
WAN_PARTS = {"text_encoder": UMT5EncoderModel, "vae": AutoencoderKLWan, "transformer": WanTransformer3DModel}
WAN_GRAPHS = ("text_encoder", "vae_encoder", "vae_decoder_first", "vae_decoder_later", "transformer")
WAN_SAMPLERS = ("unipc", "euler", "ode", "sde")
DEFAULT_SHIFT = 3.0


DMD_PIPELINE = "WanDMDPipeline"
"""Of FastVideo: Wan's parts, taught to denoise otherwise."""


def is_wan(files: CheckpointFiles) -> bool:
    """Whether the checkpoint is a Wan in diffusers' layout, and denoises as one."""
    return has_wan_parts(files) and files.read_json("model_index.json")["_class_name"] != DMD_PIPELINE


def has_wan_parts(files: CheckpointFiles) -> bool:
    """Whether transformer and VAE are Wan's, in diffusers' layout."""
    known = {"transformer": "WanTransformer3DModel", "vae": "AutoencoderKLWan"}
    kinds = {part: files.find_json(f"{part}/config.json").get("_class_name", known[part]) for part in known}
    return str(files.find_json("model_index.json").get("_class_name")).startswith("Wan") and kinds == known


def has_experts(files: CheckpointFiles) -> bool:
    """Two transformers, as Wan2.2 A14B has them."""
    return (files.find_json("model_index.json").get("transformer_2") or [None])[0] is not None


def has_frame_times(files: CheckpointFiles) -> bool:
    """A time for each latent frame, as Wan2.2 TI2V has them, or its VAE."""
    vae = files.find_json("vae/config.json")
    return bool(
        files.find_json("model_index.json").get("expand_timesteps") or vae.get("is_residual")
        or vae.get("patch_size") not in (None, 1)
    )


def wan_spec(files: CheckpointFiles, family: str, **own: Any) -> ModelSpec:
    """Wan2.1's bounds and defaults with the family's `own` in their place, and over both the checkpoint's card.

    Raises `ModelUnavailable`.
    """
    transformer, vae = files.read_json("transformer/config.json"), files.read_json("vae/config.json")
    patch, latents = transformer.get("patch_size", [1, 2, 2]), vae.get("z_dim", 16)
    if patch[1] != patch[2]:
        raise ModelUnavailable(f"{files.name}: patches of {patch[1]}x{patch[2]} are not supported, only squares.")
    if vae.get("scale_factor_temporal", TEMPORAL_SCALE) != TEMPORAL_SCALE:
        raise ModelUnavailable(f"{files.name}: a temporal scale other than {TEMPORAL_SCALE} is not supported.")
    if transformer.get("in_channels", 16) not in (latents, latents + TEMPORAL_SCALE + latents):
        raise ModelUnavailable(f"{files.name}: in_channels fit neither text- nor image-to-video of {latents} latents.")
    # A 36-channel checkpoint was trained with an image in every clip unless its card says otherwise.
    tasks: list[VideoTask] = ["t2v"] if transformer.get("in_channels", 16) == latents else ["i2v"]
    bounds = {
        "family": family, "profile": "wan2.1", "tasks": tasks, "sizes": ["832x480", "480x832", "1280x720", "720x1280"],
        "size_multiple": vae.get("scale_factor_spatial", 8) * patch[1], "min_side": 64, "max_pixels": 1280 * 720,
        "num_frames": FrameRange(minimum=1, maximum=161, default=81, step=TEMPORAL_SCALE),
        "fps": IntRange(minimum=1, maximum=60, default=16), "steps": IntRange(minimum=1, maximum=100, default=50),
        "batches": True,
        "guidance_scale": FloatRange(minimum=1.0, maximum=20.0, default=5.0), "samplers": list(WAN_SAMPLERS),
        "sampler_steps": RCM_STEPS, "unguided_samplers": list(RCM_STEPS), "text_tokens": 512,
    }
    return spec_of(files, read_card(files), **bounds | own)


def load_wan(
    spec: ModelSpec, files: CheckpointFiles, placement: Placement, kinds: Mapping[str, Any],
    shift: float | None = None, sparse: Mapping[str, Sparse] | None = None,
) -> dict[str, Any]:
    """The fields of a `WanModel`, and any further part by its folder.

    `shift` is what the authors use, where the published scheduler's config says something else; a card goes before it.
    With `sparse` each transformer, by its folder, attends its own way, on any device.

    Raises `ModelUnavailable`.
    """
    sees = files.read_json("transformer/config.json").get("image_dim") is not None
    if sees:
        files.require(["image_encoder/config.json"], ["image_encoder"])
        kinds = {**kinds, "image_encoder": CLIPVisionModel}
    parts = read_parts(files, kinds, placement.dtype, weights=placement.weights)
    if placement.weights:
        if files.lora is not None:
            for name in _transformers(parts):
                merge_loras(parts[name], [files.lora], wan_name)
        said = _kept_int8(files, parts, placement) if placement.layers.int8 else None
        on_host = _transformers(parts) if placement.turns else []
        parts = {name: part if name in on_host else part.to(placement.device) for name, part in parts.items()}
        make_lean(parts["vae"])
        colours = Colours(learned_colours(TorchCodec(parts["vae"]), parts["vae"], placement))
        parts |= fast_parts(files, parts, placement, sparse or {}) | {"colours": colours}
        parts["form"] = ", ".join(part for part in (parts.get("form"), said) if part) or None
    scheduler = files.find_json("scheduler/scheduler_config.json")
    given = read_card(files).flow_shift or shift or scheduler.get("flow_shift") or scheduler.get("shift")
    return parts | {
        "spec": spec, "placement": placement, "flow_shift": float(given or DEFAULT_SHIFT),
        "tokenizer": read_tokenizer(files), "codec": KeptStills(parts.get("codec", TorchCodec(parts["vae"]))),
        "image_processor": read_processor(files, AutoImageProcessor) if sees else None,
    }


def _transformers(parts: Mapping[str, Any]) -> list[str]:
    return [name for name in parts if name.startswith("transformer")]


def _kept_int8(files: CheckpointFiles, parts: Mapping[str, Any], placement: Placement) -> str:
    """What was done. Raises `ModelUnavailable`."""
    if files.lora is not None:
        return "linear layers not in int8: a LoRA is in them"
    names = _transformers(parts)
    folder = files.fetch(names)
    return " and ".join(keep_int8(parts[name], folder / name / INT8_FOLDER, placement.dtype) for name in names)


def fast_parts(
    files: CheckpointFiles, parts: Mapping[str, Any], placement: Placement, sparse: Mapping[str, Sparse]
) -> dict[str, Any]:
    """The transformers and the codec in their fast forms where device and format fit, and what was done, as `form`.

    With `sparse` the transformers have theirs everywhere: a model taught so has no plain one.
    Raises `ModelUnavailable`.
    """
    layers, peers = placement.layers, placement.peers
    transformers = _transformers(parts)
    reasons = [reason for name in transformers if (reason := why_not(parts[name]))]
    if sparse and reasons:
        raise ModelUnavailable(f"{files.name}: its sparse attention cannot run: {reasons[0]}.")
    on_gpu = layers.fast and placement.device.type == "cuda" and placement.dtype == torch.bfloat16
    make_codec = peers.codec if peers is not None and peers.decodes else FastCodec
    fast: dict[str, Any] = {
        "codec": make_codec(parts["vae"]), "text_encoder": FastTextEncoder(parts["text_encoder"])} if on_gpu else {}
    done = ["VAE and text encoder as CUDA graphs"] * on_gpu
    done += [f"frames decoded by rows over {peers.size} devices"] if on_gpu and peers and peers.decodes else []
    plain = _why_plain(files, placement, reasons)
    if plain is not None and (on_gpu or peers is not None):
        done.append(plain)
    elif on_gpu or peers is not None or sparse:
        if on_gpu and not sparse and layers.topk is not None:
            sparse = dict.fromkeys(transformers, Sla(topk=layers.topk))
        make = FastTransformer if peers is None else peers.split
        fp8 = on_gpu and layers.fp8
        fast |= {name: make(parts[name], fp8=fp8, sparse=sparse.get(name)) for name in transformers}
        done += ["a step as a CUDA graph"] * on_gpu + ["float8 products"] * fp8
        by_tiles = any(isinstance(form, Vsa) for form in sparse.values())  # its blocks have sizes of their own
        done += ["attention by FlashAttention 4"] * (on_gpu and not by_tiles and flash.available())
        done += [_said(sparse)] if sparse else []
    return fast | ({"form": ", ".join(done)} if done else {})


def _why_plain(files: CheckpointFiles, placement: Placement, reasons: Sequence[str]) -> str | None:
    """What keeps the transformers as they are, in words, or None."""
    if placement.turns:
        return "transformers plain: they take turns in memory"
    if has_frame_times(files):
        return "transformer plain: it has a time for each latent frame"
    return f"transformer plain: {reasons[0]}" if reasons else None


def _said(sparse: Mapping[str, Sparse]) -> str:
    return str(next(iter(sparse.values())))
