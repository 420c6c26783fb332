"""I2VGen-XL: an image and words to a short clip, with an image VAE that knows no time.

Source: https://github.com/ali-vilab/VGen; numbers agree with diffusers' `I2VGenXLPipeline`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerBase,
)

from contracts.models import FloatRange, FrameRange, IntRange, ModelSpec
from contracts.resolve import Sampling
from engines.export.graph import Graph
from engines.run.session import Session
from video_service.engines.shape import ClipShape
from video_service.families.base import Batch, Placement, Solver, Stages
from video_service.layers.i2vgen_graph import EngineUNet, i2vgen_graphs
from video_service.layers.pixels import Colours, colour_card, coloured, fitted_colours, picture_tensor, to_levels
from video_service.layers.tokens import cut_warning
from video_service.render.solvers import Noise, NoisySolver
from video_service.weights.card import read_card, spec_of
from video_service.weights.checkpoint import CheckpointFiles
from video_service.weights.lora import Lora
from video_service.weights.lora_merge import merge_loras, with_loras
from video_service.weights.parts import read_parts, read_processor, read_tokenizer

_PARTS = {
    "text_encoder": CLIPTextModel, "image_encoder": CLIPVisionModelWithProjection, "vae": AutoencoderKL,
    "unet": I2VGenXLUNet,
}
_CONFIGS = ("model_index.json", *(f"{part}/config.json" for part in _PARTS), "scheduler/scheduler_config.json")
_CARD = 16  # latents a side, of a picture that they are compared with
_own_name = str  # trainers call its modules as diffusers does
_SCALE = 8  # pixels a latent, of the published VAE
_SKIPPED_LAYERS = 1  # of the text encoder's end


class I2VGenXL:
    """The family."""

    name = "i2vgen-xl"
    render_graphs = ("unet",)
    take_turns: Sequence[str] = ()

    def claims(self, files: CheckpointFiles) -> bool:
        return files.find_json("model_index.json").get("_class_name") == "I2VGenXLPipeline"

    def spec(self, files: CheckpointFiles) -> ModelSpec:
        files.require(_CONFIGS, _PARTS)
        return spec_of(
            files, read_card(files), family=self.name, profile=self.name, tasks=["i2v"],
            sizes=["1280x704", "704x1280", "512x512"], size_multiple=_SCALE, min_side=64, max_pixels=1280 * 704,
            num_frames=FrameRange(minimum=1, maximum=32, default=16), fps=IntRange(minimum=1, maximum=60, default=16),
            steps=IntRange(minimum=1, maximum=100, default=50),
            guidance_scale=FloatRange(minimum=1.0, maximum=20.0, default=9.0), samplers=["ddim"], batches=True,
            text_tokens=files.read_json("text_encoder/config.json").get("max_position_embeddings", 77),
        )

    def load(self, files: CheckpointFiles, placement: Placement) -> "I2VGenModel":
        # The engine replaces the UNet alone, so the other parts are needed beside it.
        parts = read_parts(files, {name: kind for name, kind in _PARTS.items() if name != "unet"}, placement.dtype)
        parts |= read_parts(files, {"unet": I2VGenXLUNet}, placement.dtype, weights=placement.weights)
        if placement.weights and files.lora is not None:
            merge_loras(parts["unet"], [files.lora], _own_name)
        for part in parts.values():
            if part.device.type != "meta":
                part.to(placement.device)
        model = I2VGenModel(
            spec=self.spec(files), placement=placement, tokenizer=read_tokenizer(files),
            image_processor=read_processor(files, CLIPImageProcessor, "feature_extractor"),
            scheduler_config=files.read_json("scheduler/scheduler_config.json"), **parts,
        )
        model.colours.get(model.learned_colours)
        return model

    def runs(self, spec: ModelSpec, shape: ClipShape) -> Mapping[str, int]:
        return {"unet": spec.steps.default}

    def graphs(self, model: "I2VGenModel", shape: ClipShape) -> list[Graph]:
        return i2vgen_graphs({"unet": model.unet}, shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class I2VGenConditioning:
    """What steers a batch, in the model's dtype."""

    text_BLC: torch.Tensor
    negative_BLC: torch.Tensor | None
    seen_BC: torch.Tensor
    """CLIP's embedding of the image."""
    image_BCTHW: torch.Tensor
    """The image's latents, then for each later frame its place in the clip, in (0, 1]."""
    fps_B: torch.Tensor
    guidance_scale: float
    warnings: tuple[tuple[str, ...], ...]

    def keep(self, places: Sequence[int]) -> Self:
        rows = {name: getattr(self, name) for name in ("text_BLC", "negative_BLC", "seen_BC", "image_BCTHW", "fps_B")}
        kept = {name: None if value is None else value[list(places)] for name, value in rows.items()}
        return replace(self, **kept, warnings=tuple(self.warnings[place] for place in places))


@dataclass(frozen=True, slots=True, kw_only=True)
class I2VGenModel:
    """A loaded model."""

    spec: ModelSpec
    placement: Placement
    tokenizer: PreTrainedTokenizerBase
    text_encoder: Any
    image_encoder: Any
    image_processor: Any
    vae: AutoencoderKL
    unet: Any
    """diffusers' module, or an engine that is called the same way."""
    scheduler_config: Mapping[str, Any]
    form: str | None = None
    colours: Colours = field(default_factory=Colours)
    """Learned as the weights are loaded."""

    def encode(self, batch: Batch, stages: Stages) -> I2VGenConditioning:
        sampling = batch.first.sampling
        with stages("text"):
            text = self._embed([request.prompt for request in batch.requests])
            negative = self._embed([request.negative_prompt for request in batch.requests])
        with stages("condition"):
            seen = torch.cat([self._see(image, batch.first.width) for image in _images(batch)])
            latents = self._image_latents(batch)
        fps_B = torch.full((len(batch.requests),), batch.first.fps, dtype=torch.float32, device=self.placement.device)
        return I2VGenConditioning(
            text_BLC=text, negative_BLC=negative if sampling.is_guided else None, seen_BC=seen, image_BCTHW=latents,
            fps_B=fps_B, guidance_scale=sampling.guidance_scale, warnings=self._warnings(batch),
        )

    def solver(self, batch: Batch, given: I2VGenConditioning) -> Solver:
        noise = Noise(batch.seeds, given.image_BCTHW.shape[1:], self.placement.device)
        return DDIMSolver(noise, batch.first.sampling, self.scheduler_config)

    def predict(self, state: torch.Tensor, timestep: float, given: I2VGenConditioning) -> torch.Tensor:
        """The UNet's prediction, of the kind that the scheduler's config names."""
        x = state.to(self.placement.dtype)
        time_B = torch.full((len(x),), timestep, dtype=torch.float32, device=x.device)

        def run(seen_BC: torch.Tensor, text_BLC: torch.Tensor) -> torch.Tensor:
            return self.unet(x, time_B, given.fps_B, given.image_BCTHW, seen_BC, text_BLC, return_dict=False)[0]

        prediction = run(given.seen_BC, given.text_BLC)
        if given.negative_BLC is not None:
            without = run(torch.zeros_like(given.seen_BC), given.negative_BLC)
            prediction = without + given.guidance_scale * (prediction - without)
        return prediction.float()

    def glimpse(self, state: torch.Tensor, timestep: float, prediction: torch.Tensor) -> torch.Tensor:
        scheduler: Any = DDIMScheduler.from_config(dict(self.scheduler_config))
        scheduler.set_timesteps(1)  # where a step goes to says nothing of what it thinks the clean latents are
        middle = state.shape[2] // 2
        told = scheduler.step(prediction[:, :, middle].float(), int(timestep), state[:, :, middle].float())
        return coloured(told.pred_original_sample, self.colours.get(self.learned_colours))

    @torch.inference_mode()
    def learned_colours(self) -> torch.Tensor:
        """See `colours`."""
        card = colour_card(_CARD * _SCALE, _CARD * _SCALE)[:, :, 0].to(self.placement.device, self.placement.dtype)
        posterior: Any = self.vae.encode(card, return_dict=False)[0]
        return fitted_colours(posterior.mean * self.vae.config["scaling_factor"], card)

    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Frame by frame: the VAE knows no time, so that is exact."""
        scaled_BCTHW = (latents / self.vae.config["scaling_factor"]).to(self.placement.dtype)
        for frame_BCHW in scaled_BCTHW.unbind(2):
            yield to_levels(self.vae.decode(frame_BCHW, return_dict=False)[0][:, :, None])

    def adapted(self, loras: Sequence[Lora]) -> Self:
        return replace(self, unet=with_loras(self.unet, loras, _own_name))

    def on_engines(self, sessions: Mapping[str, Session], dtype: torch.dtype) -> Self:
        return replace(self, unet=EngineUNet(sessions["unet"], dtype))

    def _embed(self, texts: Sequence[str]) -> torch.Tensor:
        """States [B, L, C] of the text encoder, without its last layer but with its last norm."""
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=self.spec.text_tokens, truncation=True, return_tensors="pt"
        )
        encoder = self.text_encoder
        states = encoder(tokens.input_ids.to(self.placement.device), output_hidden_states=True).hidden_states
        return encoder.final_layer_norm(states[-1 - _SKIPPED_LAYERS]).to(self.placement.dtype)

    def _see(self, image: Image.Image, side: int) -> torch.Tensor:
        """CLIP's embedding [1, C] of the image's middle square."""
        processor = self.image_processor
        size = processor.crop_size["width"], processor.crop_size["height"]
        square = cover_crop(image, side, side).resize(size, Image.Resampling.BILINEAR)
        pixels_CHW = (picture_tensor(square) + 1.0) / 2.0
        mean, std = (torch.tensor(getattr(processor, f"image_{name}")).view(3, 1, 1) for name in ("mean", "std"))
        pixels = ((pixels_CHW - mean) / std)[None].to(self.placement.device, self.placement.dtype)
        return self.image_encoder(pixels).image_embeds

    def _image_latents(self, batch: Batch) -> torch.Tensor:
        """[B, C, T, h, w]: the posterior is sampled, with each clip's seed, and not its mode taken."""
        first = batch.first
        pixels = torch.stack([picture_tensor(cover_crop(i, first.width, first.height)) for i in _images(batch)])
        posterior = self.vae.encode(pixels.to(self.placement.device, self.placement.dtype), return_dict=False)[0]
        noise = Noise(batch.seeds, posterior.mean.shape[1:], self.placement.device).draw().to(posterior.mean)
        still_BCTHW = ((posterior.mean + posterior.std * noise) * self.vae.config["scaling_factor"])[:, :, None]
        places = torch.arange(1, first.num_frames, device=still_BCTHW.device) / max(1, first.num_frames - 1)
        shape = (*still_BCTHW.shape[:2], first.num_frames - 1, *still_BCTHW.shape[3:])
        later_BCTHW = places.to(still_BCTHW.dtype).view(1, 1, -1, 1, 1).expand(shape)
        return torch.cat([still_BCTHW, later_BCTHW], dim=2)

    def _warnings(self, batch: Batch) -> tuple[tuple[str, ...], ...]:
        said = (cut_warning(self.tokenizer, request.prompt, self.spec.text_tokens) for request in batch.requests)
        return tuple(() if warning is None else (warning,) for warning in said)


class DDIMSolver(NoisySolver):
    """diffusers' DDIM as the checkpoint's scheduler is set, without noise between the steps."""

    def __init__(self, noise: Noise, sampling: Sampling, config: Mapping[str, Any]) -> None:
        super().__init__(noise)
        self._scheduler: Any = DDIMScheduler.from_config(dict(config))
        self._scheduler.set_timesteps(sampling.steps)
        self.timesteps = [float(t) for t in self._scheduler.timesteps]

    def start(self) -> torch.Tensor:
        return self._noise.draw() * self._scheduler.init_noise_sigma

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return self._scheduler.step(prediction, int(self.timesteps[index]), state, return_dict=False)[0]


def cover_crop(image: Image.Image, width: int, height: int) -> Image.Image:
    """The authors' own: scaled by boxes to cover the size, then its middle."""
    scale = min(image.width / width, image.height / height)
    scaled = image.resize((round(image.width // scale), round(image.height // scale)), Image.Resampling.BOX)
    left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
    return scaled.crop((left, top, left + width, top + height))


def _images(batch: Batch) -> Iterator[Image.Image]:
    for request in batch.requests:
        assert request.image is not None  # its only task
        yield request.image
