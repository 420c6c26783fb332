"""What every Wan model does: conditioning, solvers, guidance and decoding, as Wan2.1 has them.

Source: https://github.com/Wan-Video/Wan2.1; numbers agree with `WanPipeline` and `WanImageToVideoPipeline`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from PIL import Image
from transformers import CLIPVisionModel, PreTrainedTokenizerBase

from contracts.models import ModelSpec
from contracts.resolve import Sampling
from engines.run.session import Session
from video_service.families.base import Batch, Placement, Solver, Stages
from video_service.families.wan.colours import CARD, learned_colours
from video_service.families.wan.int8 import without_int8
from video_service.layers.memo import Memo
from video_service.layers.pixels import Colours, coloured, picture_tensor
from video_service.layers.tokens import cut_warning
from video_service.layers.umt5 import TextEncoder, clean_prompt, embed
from video_service.layers.umt5_graph import FastTextEncoder
from video_service.layers.wan.codec import (
    TEMPORAL_SCALE,
    Codec,
    KeptStills,
    latent_frames,
    latent_statistics,
    normalised,
)
from video_service.layers.wan.engines import EngineCodec, EngineTextEncoder, EngineTransformer
from video_service.layers.wan.fast import FastTransformer
from video_service.layers.wan.keys import wan_name
from video_service.render.schedules import NUM_TRAIN_TIMESTEPS, RCM_SIGMA_MAX_I2V, RCM_SIGMA_MAX_T2V
from video_service.render.solvers import RCM_STEPS, EulerSolver, Noise, NoisySolver, RcmSolver
from video_service.weights.host import Turn
from video_service.weights.lora import Lora
from video_service.weights.lora_merge import with_loras
from web.worker.image import fit_picture

_TEXTS_BYTES = 64 << 20  # a text of 512 tokens is 4 MB in bfloat16


@dataclass(frozen=True, slots=True, kw_only=True)
class WanConditioning:
    """What steers a batch; embeddings in the model's dtype."""

    text_BLC: torch.Tensor
    negative_BLC: torch.Tensor | None
    """Set where guidance needs it."""
    beside_BCTHW: torch.Tensor | None
    """Float32 channels beside the noise: a mask and the latents of [image, zeros...]; None without such channels."""
    seen_BLC: torch.Tensor | None
    """CLIP's view of the image; None for a network that takes none."""
    sampling: Sampling
    warnings: tuple[tuple[str, ...], ...]

    def keep(self, places: Sequence[int]) -> Self:
        clips = len(self.warnings)
        kept = {name: _kept(getattr(self, name), places, clips)
                for name in ("text_BLC", "negative_BLC", "beside_BCTHW", "seen_BLC")}
        return replace(self, **kept, warnings=tuple(self.warnings[place] for place in places))


def _kept(rows: torch.Tensor | None, places: Sequence[int], clips: int) -> torch.Tensor | None:
    """The rows of these clips; of a first and a last image there are two for each."""
    return None if rows is None else rows.unflatten(0, (clips, -1))[list(places)].flatten(0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WanModel:
    """A loaded model of any Wan family with one transformer and Wan2.1's conditioning."""

    spec: ModelSpec
    placement: Placement
    flow_shift: float
    tokenizer: PreTrainedTokenizerBase
    text_encoder: TextEncoder
    vae: AutoencoderKLWan
    """Asked for its config only; `codec` runs it."""
    codec: Codec
    transformer: Any
    """diffusers' module, or its fast form or an engine, which are called the same way."""
    form: str | None = None
    """How the modules compute, where that is not the plain way."""
    image_encoder: CLIPVisionModel | None = None
    image_processor: Any = None
    texts: Memo = field(default_factory=lambda: Memo(_TEXTS_BYTES))
    """Embeddings by their words."""
    colours: Colours = field(default_factory=Colours)
    """Learned as the weights are loaded, else at the first look; the forms on engines share them."""

    def encode(self, batch: Batch, stages: Stages) -> WanConditioning:
        sampling = batch.first.sampling
        with stages("text"):
            text = self._embed([request.prompt for request in batch.requests])
            negative = None
            if sampling.is_guided:
                negative = self._embed([request.negative_prompt for request in batch.requests])
        with stages("condition"):
            beside, seen = self.condition(batch), self._see(batch)
        return WanConditioning(
            text_BLC=text, negative_BLC=negative, beside_BCTHW=beside, seen_BLC=seen,
            sampling=sampling, warnings=self._warnings(batch),
        )

    def solver(self, batch: Batch, given: WanConditioning) -> Solver:
        sampling, device = batch.first.sampling, self.placement.device
        is_rcm = sampling.sampler in RCM_STEPS
        noise = Noise(
            batch.seeds, self.latent_shape(batch), device,
            drawn_on=device if is_rcm and self.placement.rcm_noise_on_device else "cpu")
        match sampling.sampler:
            case "euler":
                return EulerSolver(noise, sampling.steps, self.flow_shift)
            case "unipc":
                return UniPCSolver(noise, sampling.steps, self.flow_shift)
            case "ode" | "sde":
                sigma_max = RCM_SIGMA_MAX_T2V if batch.first.image is None else RCM_SIGMA_MAX_I2V
                return RcmSolver(noise, sampling.steps, sigma_max, sde=sampling.sampler == "sde")
        raise ValueError(f"{self.spec.id} has no sampler {sampling.sampler!r}")

    def predict(self, state: torch.Tensor, timestep: float, given: WanConditioning) -> torch.Tensor:
        return self.velocity(self.transformer, state, timestep, given, given.sampling.guidance_scale)

    def velocity(
        self, network: Any, state: torch.Tensor, timestep: float, given: WanConditioning, guidance_scale: float
    ) -> torch.Tensor:
        """Noise minus data [B, z, t, h, w], as `network` sees it."""
        parts = [state.float()] if given.beside_BCTHW is None else [state.float(), given.beside_BCTHW]
        x = torch.cat(parts, dim=1).to(self.placement.dtype)
        # The fast form looks its rows up: a time on the device would have to be waited for.
        where = "cpu" if isinstance(network, FastTransformer) else x.device
        time_B = torch.full((len(x),), timestep, dtype=torch.float32, device=where)
        return guided(network, x, time_B, given, guidance_scale)

    def glimpse(self, state: torch.Tensor, timestep: float, prediction: torch.Tensor) -> torch.Tensor:
        middle = state.shape[2] // 2
        clean_BCHW = (state[:, :, middle] - timestep / NUM_TRAIN_TIMESTEPS * prediction[:, :, middle]).float()
        return coloured(clean_BCHW, self.colours.get(lambda: learned_colours(
            self.codec, self.vae, self.placement, clean_BCHW.shape[2:] if self.codec.one_size else CARD)))

    def decode(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        yield from self.codec.decode_levels(self._unnormalised(latents))

    def decode_floats(self, latents_BCTHW: torch.Tensor, chunk: int = 1) -> Iterator[torch.Tensor]:
        """As `decode`, but unclamped floats [B, 3, T, H, W], about -1 to 1, in the VAE's dtype.

        First the still, then 4 frames for each of up to `chunk` latent frames. The decoder is causal and carries its
        history on, so the chunk length changes speed and memory, not the frames.
        """
        yield from self.codec.decode(self._unnormalised(latents_BCTHW), chunk)

    def _unnormalised(self, latents_BCTHW: torch.Tensor) -> torch.Tensor:
        mean, std = latent_statistics(self.vae, latents_BCTHW.device)
        return (latents_BCTHW.float() * std + mean).to(self.placement.dtype)

    def adapted(self, loras: Sequence[Lora]) -> Self:
        experts = [own.name for own in fields(self) if own.name.startswith("transformer")]
        return replace(self, **{name: _adapted(getattr(self, name), loras) for name in experts})

    def on_engines(self, sessions: Mapping[str, Session], dtype: torch.dtype) -> Self:
        return replace(
            self, placement=replace(self.placement, dtype=dtype),
            text_encoder=EngineTextEncoder(sessions["text_encoder"]),
            texts=Memo(_TEXTS_BYTES),
            codec=KeptStills(EngineCodec(
                sessions["vae_encoder"], sessions["vae_decoder_first"], sessions["vae_decoder_later"])),
            transformer=EngineTransformer(sessions["transformer"], self.transformer.config),
        )

    def modules(self) -> dict[str, Any]:
        """What graphs are made of, by folder."""
        return {"text_encoder": plain(self.text_encoder), "vae": self.vae, "transformer": plain(self.transformer)}

    def _embed(self, texts: Sequence[str]) -> torch.Tensor:
        def made(text: str) -> torch.Tensor:
            embedded = embed(self.tokenizer, self.text_encoder, [text], self.spec.text_tokens, self.placement.device)
            return embedded.to(self.placement.dtype)

        embedded = [self.texts.get(text, partial(made, text)) for text in texts]
        return embedded[0] if len(embedded) == 1 else torch.cat(embedded)

    def _warnings(self, batch: Batch) -> tuple[tuple[str, ...], ...]:
        guided = batch.first.sampling.is_guided
        said = []
        for request in batch.requests:
            words = {"prompt": request.prompt} | ({"negative prompt": request.negative_prompt} if guided else {})
            cut = [
                cut_warning(self.tokenizer, clean_prompt(text), self.spec.text_tokens, name)
                for name, text in words.items()
            ]
            said.append(tuple(warning for warning in cut if warning is not None))
        return tuple(said)

    def condition(self, batch: Batch) -> torch.Tensor | None:
        """Mask and latents of a clip that is the image and then zeros; all zeros without one."""
        shape = self.latent_shape(batch)
        channels = self.transformer.config["in_channels"] - shape[0]
        if channels == 0:
            return None
        if batch.first.image is None:
            return torch.zeros(len(batch.requests), channels, *shape[1:], device=self.placement.device)
        stills = [self.codec.encode_still(image, batch.first.num_frames) for image in self.images(batch)]
        latents_BCTHW = normalised(torch.cat(stills), self.vae)
        mask_BCTHW = torch.zeros_like(latents_BCTHW[:, :1]).repeat(1, TEMPORAL_SCALE, 1, 1, 1)
        mask_BCTHW[:, :, 0] = 1.0
        return torch.cat([mask_BCTHW, latents_BCTHW], dim=1)

    def _see(self, batch: Batch) -> torch.Tensor | None:
        if self.image_encoder is None:
            return None
        ends = (image for request in batch.requests for image in (request.image, request.last_image))
        seen = self.image_processor(images=[image for image in ends if image is not None], return_tensors="pt")
        pixels = seen.pixel_values.to(self.placement.device, self.image_encoder.dtype)
        states = self.image_encoder(pixel_values=pixels, output_hidden_states=True).hidden_states
        return states[-2].to(self.placement.dtype)

    def images(self, batch: Batch) -> Iterator[torch.Tensor]:
        """Each first frame [1, 3, 1, H, W] in [-1, 1], scaled to cover the clip and cropped to its centre."""
        for request in batch.requests:
            assert request.image is not None
            yield self.frame(request.image, batch)

    def frame(self, image: Image.Image, batch: Batch) -> torch.Tensor:
        """One frame [1, 3, 1, H, W] in [-1, 1]."""
        fitted = fit_picture(image, batch.first.width, batch.first.height)
        return picture_tensor(fitted)[None, :, None].to(self.placement.device, self.placement.dtype)

    def latent_shape(self, batch: Batch) -> tuple[int, int, int, int]:
        config, first = self.vae.config, batch.first
        scale = config["scale_factor_spatial"]
        return config["z_dim"], latent_frames(first.num_frames), first.height // scale, first.width // scale


def _adapted(transformer: Any, loras: Sequence[Lora]) -> Any:
    merged: Any = with_loras(without_int8(plain(transformer)), loras, wan_name)
    if isinstance(transformer, Turn):
        return Turn(transformer.slot, merged)
    return transformer.like(merged) if isinstance(transformer, FastTransformer) else merged


def plain(part: Any) -> Any:
    """The library's own module, whatever computes with its weights."""
    return part.module if isinstance(part, FastTransformer | FastTextEncoder | Turn) else part


class UniPCSolver(NoisySolver):
    """diffusers' UniPC on flow sigmas, with the settings that Wan ships."""

    def __init__(self, noise: Noise, steps: int, shift: float) -> None:
        super().__init__(noise)
        self._scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift,
            num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        )
        self._scheduler.set_timesteps(steps)
        self._scheduler.set_begin_index(0)  # without it the step is looked up by timestep, a sync on a GPU
        self.timesteps = [float(t) for t in self._scheduler.timesteps]

    def start(self) -> torch.Tensor:
        return self._noise.draw()

    def step(self, index: int, prediction: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        timestep = self._scheduler.timesteps[index]
        return self._scheduler.step(prediction, timestep, state, return_dict=False)[0]

    def keep(self, places: Sequence[int]) -> Self:
        scheduler: Any = self._scheduler  # it looks back on a few steps
        scheduler.model_outputs = [rows if rows is None else rows[list(places)] for rows in scheduler.model_outputs]
        if scheduler.last_sample is not None:
            scheduler.last_sample = scheduler.last_sample[list(places)]
        return super().keep(places)


def is_guided(given: WanConditioning, guidance_scale: float) -> bool:
    """Whether a step runs the network a second time, with the negative prompt."""
    return given.negative_BLC is not None and guidance_scale > 1


def guided(
    network: Any, x_BCTHW: torch.Tensor, times: torch.Tensor, given: WanConditioning, guidance_scale: float
) -> torch.Tensor:
    """The network's float32 velocity; with a negative prompt it runs twice and the difference is stretched."""
    seen = () if given.seen_BLC is None else (given.seen_BLC,)
    if given.negative_BLC is None or not is_guided(given, guidance_scale):
        return network(x_BCTHW, times, given.text_BLC, *seen, return_dict=False)[0].float()
    if isinstance(network, FastTransformer):
        velocity, without = network.both(x_BCTHW, times, given.text_BLC, given.negative_BLC, *seen)
    else:
        velocity = network(x_BCTHW, times, given.text_BLC, *seen, return_dict=False)[0]
        without = network(x_BCTHW, times, given.negative_BLC, *seen, return_dict=False)[0]
    return (without + guidance_scale * (velocity - without)).float()
