"""I2VGen-XL beside diffusers' pipeline, and what the change of experts costs in Wan2.2 A14B; random weights."""

import statistics
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from diffusers.pipelines.deprecated.i2vgen_xl.pipeline_i2vgen_xl import I2VGenXLPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from bench.gpu_checkpoints import words_tokenizer
from bench.gpu_measure import measure, relative
from bench.gpu_video import DIT_14B, DIT_TINY, FULL, TINY, random_transformer
from contracts.resolve import Sampling
from video_service.families.base import Batch, Placement, RenderRequest
from video_service.families.i2vgen_xl import I2VGenModel
from video_service.families.wan.wan22_a14b import in_turns
from video_service.layers.wan.fast import FastTransformer
from video_service.render.progress import StageClock, silent
from video_service.render.solvers import Noise
from video_service.weights.host import Turn

STEPS = 4
SEED = 7
EXPERT_TIMES = (980.0, 960.0, 940.0, 880.0, 780.0, 600.0)
BOUNDARY = 900.0


def i2vgen_stage(device: str, tiny: bool) -> dict[str, Any]:
    """A picture to a clip of 16 frames at 1280x704 in four of its fifty steps, guided: all but the file."""
    parts = _i2vgen_parts(device, tiny)
    pipeline: Any = I2VGenXLPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    # The pipeline looks for the norm where transformers 5 no longer has it.
    pipeline.text_encoder.text_model = SimpleNamespace(final_layer_norm=pipeline.text_encoder.final_layer_norm)
    width, height, frames = (64, 64, 4) if tiny else (1280, 704, 16)
    picture = Image.effect_noise((width, height), 90).convert("RGB")
    request = RenderRequest(
        prompt="a cat walks", negative_prompt="blurred", image=picture, width=width, height=height, num_frames=frames,
        fps=16, seed=SEED, sampling=Sampling(sampler="ddim", steps=STEPS, guidance_scale=9.0))

    model = _i2vgen_model(parts, device)
    drawn = Noise([SEED], (4, frames, height // 8, width // 8), model.placement.device).draw()
    still = Noise([SEED], (4, height // 8, width // 8), model.placement.device).draw()

    def theirs(output: str = "np") -> Any:
        """From our noise: it draws its own in another format, and so others."""
        def sample(posterior: DiagonalGaussianDistribution, generator: Any = None) -> torch.Tensor:
            return posterior.mean + posterior.std * still.to(posterior.mean)

        with mock.patch.object(DiagonalGaussianDistribution, "sample", sample):
            return pipeline(
                prompt=request.prompt, negative_prompt=request.negative_prompt, image=picture, height=height,
                width=width, num_frames=frames, target_fps=request.fps, num_inference_steps=STEPS, guidance_scale=9.0,
                latents=drawn.to(parts["unet"].dtype), output_type=output).frames

    rows = {"plain": measure(theirs, count=False), "ours": measure(lambda: _clip(model, request), count=False)}
    rows["ours"]["relative_L2_plain"] = relative(_latents(model, request), theirs("latent"))
    return rows


@torch.inference_mode()
def _clip(model: I2VGenModel, request: RenderRequest) -> list[torch.Tensor]:
    return [frames.cpu() for frames in model.decode(_latents(model, request))]


@torch.inference_mode()
def _latents(model: I2VGenModel, request: RenderRequest) -> torch.Tensor:
    batch = Batch((request,))
    given = model.encode(batch, StageClock(silent))
    solver = model.solver(batch, given)
    x = solver.start()
    for index, timestep in enumerate(solver.timesteps):
        x = solver.step(index, model.predict(x, timestep, given), x)
    return x


def _i2vgen_model(parts: dict[str, Any], device: str) -> I2VGenModel:
    modules = {name: parts[name] for name in ("tokenizer", "text_encoder", "image_encoder", "vae", "unet")}
    spec: Any = SimpleNamespace(id="random", text_tokens=77)  # all that a render asks of it
    return I2VGenModel(
        spec=spec, placement=Placement(device=torch.device(device), dtype=parts["unet"].dtype),
        image_processor=parts["feature_extractor"], scheduler_config=dict(parts["scheduler"].config), **modules)


def _i2vgen_parts(device: str, tiny: bool) -> dict[str, Any]:
    """As published, or each part of a few channels."""
    seen = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14, "projection_dim": 32} if tiny else {
            "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
            "image_size": 224, "patch_size": 14, "projection_dim": 1024}
    words = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    if not tiny:
        words = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    unet = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 32,
            "attention_head_dim": 16, "down_block_types": ("DownBlock3D",) * 2,
            "up_block_types": ("UpBlock3D",) * 2} if tiny else {}
    vae: Any = {"block_out_channels": (8, 8, 16, 16) if tiny else (128, 256, 512, 512), "latent_channels": 4,
                "layers_per_block": 1 if tiny else 2, "norm_num_groups": 4 if tiny else 32,
                "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    torch.manual_seed(0)
    with torch.device(device):  # on a CPU it takes minutes
        made = {
            "unet": I2VGenXLUNet(**unet), "vae": AutoencoderKL(**vae),
            "text_encoder": CLIPTextModel(CLIPTextConfig(
                vocab_size=2000, max_position_embeddings=77, eos_token_id=1, **words)),  # type: ignore[arg-type]
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**seen)),  # type: ignore[arg-type]
        }
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    parts: dict[str, Any] = {
        name: part.to(device, dtype).eval().requires_grad_(False) for name, part in made.items()}
    side = seen["image_size"]
    return parts | {
        "tokenizer": words_tokenizer(2000, eos_token="</s>", pad_token="<pad>", model_max_length=77),
        "feature_extractor": CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="squaredcos_cap_v2", clip_sample=False,
            set_alpha_to_one=True, steps_offset=1, prediction_type="v_prediction", timestep_spacing="leading",
            rescale_betas_zero_snr=True),
    }


def experts_stage(device: str, tiny: bool) -> dict[str, Any]:
    """Six steps of 33 frames, three of each expert: how much longer the fourth takes where both are on the device."""
    experts, step = _experts(device, tiny)
    fast = [FastTransformer(expert) for expert in experts]
    return {"plain": _switched([partial_step(step, expert) for expert in experts]),
            "ours": _switched([partial_step(step, expert) for expert in fast])}


def turns_stage(device: str, tiny: bool) -> dict[str, Any]:
    """The same where one of them waits in the host's memory: 28 GB of pinned memory for each."""
    experts, step = _experts(device, tiny)
    for expert in experts:
        for weight in expert.parameters():
            host = torch.empty(weight.shape, dtype=weight.dtype, pin_memory=device == "cuda")
            weight.data = host.copy_(weight.data)
    parts = dict(zip(("transformer", "transformer_2"), experts, strict=True))
    waiting = in_turns(parts, Placement(device=torch.device(device), dtype=experts[0].dtype))
    slot = waiting["turns"].slot
    turns: list[Turn] = [waiting["transformer"], waiting["transformer_2"]]
    rows = {"ours": _switched(
        [partial_step(step, turn) for turn in turns], lambda following: slot.expect(1, turns[following].module))}
    slot.waited_s()
    return rows


def _experts(device: str, tiny: bool) -> tuple[list[Any], Callable[[Any, float], None]]:
    """Both, and what makes a step of one at a time."""
    config = (DIT_TINY if tiny else DIT_14B) | {"in_channels": 36, "cross_attn_norm": True}
    shape = TINY if tiny else FULL | {"latents": (16, 9, 60, 104)}
    experts = [random_transformer(config, device) for _ in range(2)]
    dtype = experts[0].dtype
    latents = torch.randn(1, 36, *shape["latents"][1:], device=device).to(dtype)
    text = torch.randn(1, shape["text"], experts[0].config["text_dim"], device=device).to(dtype)

    def step(network: Any, timestep: float) -> None:
        where = "cpu" if isinstance(network, FastTransformer) else device
        with torch.no_grad():
            network(latents, torch.tensor([timestep], device=where), text, return_dict=False)

    return experts, step


def partial_step(step: Callable[[Any, float], None], network: Any) -> Callable[[float], None]:
    return lambda timestep: step(network, timestep)


def _switched(
    steps: Sequence[Callable[[float], None]], expect: Callable[[int], None] = lambda following: None
) -> dict[str, Any]:
    """Of the second of two clips: all its seconds, those of a step, and what the first of the other's took beyond."""
    seconds: list[float] = []
    for _ in range(2):
        seconds = []
        for index, timestep in enumerate(EXPERT_TIMES):
            following = EXPERT_TIMES[(index + 1) % len(EXPERT_TIMES)]
            expect(int(following < BOUNDARY))
            started_s = time.perf_counter()
            steps[int(timestep < BOUNDARY)](timestep)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started_s)
    usual, switch = statistics.median(seconds), next(i for i, t in enumerate(EXPERT_TIMES) if t < BOUNDARY)
    return {"seconds": round(sum(seconds), 4), "step_s": round(usual, 4),
            "stall_ms": round(1000 * (seconds[switch] - usual), 1)}
