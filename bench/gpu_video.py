"""Wan2.1-1.3B's stages with random weights: diffusers' own modules, then ours over the same weights."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from bench.gpu_measure import measure, psnr, relative
from video_service.layers.attention.sla import Sla
from video_service.layers.attention.vsa import Vsa
from video_service.layers.linear import Int8Linear, quantise_blocks
from video_service.layers.wan.transformer import FastWanTransformer
from video_service.layers.wan.vae import WanVaeDecoder

TIMESTEPS = (988.0, 932.0, 852.0, 608.0)
FULL: dict[str, Any] = {"latents": (16, 21, 60, 104), "text": 512}
TINY: dict[str, Any] = {"latents": (16, 2, 4, 6), "text": 24}
DIT_1_3B = {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30}
DIT_14B = {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40}
DIT_TINY = {"num_attention_heads": 2, "ffn_dim": 512, "num_layers": 2, "text_dim": 64}


def vae_stage(device: str, tiny: bool) -> dict[str, Any]:
    """Latents to frames on the host."""
    vae: Any = random_vae(device, tiny)
    latents = torch.randn(1, *(TINY if tiny else FULL)["latents"], device=device, dtype=vae.dtype)
    rows: dict[str, Any] = {}
    with torch.no_grad():
        rows["plain"] = measure(lambda: as_bytes(vae.decode(latents, return_dict=False)[0]))
        plain = vae.decode(latents, return_dict=False)[0]
        few = latents[:, :, :3]
        exact = vae.float().decode(few.float(), return_dict=False)[0].clamp(-1, 1)
        vae.to(latents.dtype)
        rows["plain"]["PSNR_float32"] = psnr(plain[:, :, : exact.shape[2]].clamp(-1, 1), exact, 2)
        if device == "cpu":
            decoder = WanVaeDecoder(vae)
            rows["history"] = measure(lambda: list(decoder.decode(latents)))
            return rows
        rows["fast"] = _fast_vae(vae, latents, plain, exact)
        rows["fast_yuv"] = _fast_vae(vae, latents, None, None)
    return rows


def _fast_vae(vae: AutoencoderKLWan, latents: torch.Tensor, plain: torch.Tensor | None, exact: Any) -> dict[str, Any]:
    from video_service.layers.frames import to_bytes
    from video_service.layers.wan.vae_cuda import FastVaeDecoder

    fast = FastVaeDecoder(vae, latents.shape[3], latents.shape[4], yuv420=plain is None)
    found = measure(lambda: list(fast.decode(latents)), kernels=0 if plain is None else 14)
    if plain is not None:
        frames = torch.cat(list(fast.decode(latents))).permute(3, 0, 1, 2)[None].to(plain.device)
        found["PSNR_plain"] = psnr(frames, to_bytes(plain), 255)
        found["PSNR_float32"] = psnr(frames[:, :, : exact.shape[2]] / 127.5 - 1.0, exact, 2)
    return found


def still_stage(device: str, tiny: bool) -> dict[str, Any]:
    """A picture to the condition of an image-to-video clip of 81 frames."""
    vae: Any = random_vae(device, tiny)
    height, width, frames = (32, 48, 9) if tiny else (480, 832, 81)
    picture = torch.randn(1, 3, 1, height, width, device=device, dtype=vae.dtype)
    clip = torch.cat([picture, picture.new_zeros(1, 3, frames - 1, height, width)], dim=2)
    with torch.no_grad():
        rows: dict[str, Any] = {"plain": measure(lambda: vae.encode(clip).latent_dist.mode())}
        plain = vae.encode(clip).latent_dist.mode()
        exact = vae.float().encode(clip.float()).latent_dist.mode()
        vae.to(picture.dtype)
    rows["plain"]["relative_L2_float32"] = relative(plain, exact)
    if device == "cuda":
        from video_service.layers.wan.still_cuda import FastStillEncoder

        fast = FastStillEncoder(vae, height, width, frames)
        rows["fast"] = measure(lambda: fast(picture), kernels=10)
        rows["fast"] |= {"relative_L2_plain": relative(fast(picture), plain),
                         "relative_L2_float32": relative(fast(picture), exact)}
    return rows


def dit_stage(device: str, tiny: bool, size: dict[str, int] | None = None, steps: int = 4) -> dict[str, Any]:
    """Four steps of the transformer, without the solver."""
    config = DIT_TINY if tiny else (size or DIT_1_3B)
    shape = TINY if tiny else FULL
    transformer = random_transformer(config, device)
    latents = torch.randn(1, *shape["latents"], device=device).to(transformer.dtype)
    text = torch.randn(1, shape["text"], transformer.config["text_dim"], device=device).to(transformer.dtype)
    times = TIMESTEPS[:steps]

    def plain(at: float) -> torch.Tensor:
        with torch.no_grad():
            return transformer(latents, torch.tensor([at], device=device), text, return_dict=False)[0]

    rows: dict[str, Any] = {"plain": measure(lambda: [plain(at) for at in times])}
    reference = plain(times[0])
    blocks = len(transformer.blocks)
    head = transformer.config["attention_head_dim"]
    torch.manual_seed(1)
    projections = [(torch.randn(head, head, device=device) / head, torch.zeros(head, device=device))] * blocks
    ways: dict[str, dict[str, Any]] = {
        "dense": {}, "dense_fp8": {"fp8": True},
        "sla_fp8": {"fp8": True, "sparse": Sla(topk=0.1, projections=projections)},
        "vsa": {"sparse": Vsa(topk=0.2)}, "int8": {},
    }
    _add_gates(transformer)
    for name, options in ways.items():
        if name == "int8":
            _to_int8(transformer)
        rows[name] = _fast_dit(transformer, latents, text, times, options)
        output = rows[name].pop("output")
        rows[name]["relative_L2_dense"] = relative(output, reference)
        print(name, rows[name], flush=True)
    return rows


def _add_gates(transformer: Any) -> None:
    """As FastWan has them."""
    for block in transformer.blocks:
        like = block.attn1.to_q
        block.to_gate_compress = nn.Linear(
            like.in_features, like.out_features, device=like.weight.device, dtype=like.weight.dtype)
        block.to_gate_compress.requires_grad_(False)


def _to_int8(transformer: Any) -> None:
    for name, layer in list(transformer.blocks.named_modules()):
        if isinstance(layer, nn.Linear):
            bias = None if layer.bias is None else layer.bias.data
            transformer.blocks.set_submodule(
                name, Int8Linear(*quantise_blocks(layer.weight.data), bias, layer.weight.dtype))


def dit_14b_stage(device: str, tiny: bool) -> dict[str, Any]:
    """One step of the 14B."""
    return dit_stage(device, tiny, DIT_14B, 1)


def _fast_dit(transformer: Any, latents: Any, text: Any, times: Any, options: dict[str, Any]) -> dict[str, Any]:
    fast = FastWanTransformer(transformer, **options)
    steps = fast.graphed(fast.begin(latents.shape, text, times))

    def run() -> None:
        steps.restart(fast.begin(latents.shape, text, times))
        for index in range(len(times)):
            steps(latents, index)

    return measure(run, kernels=14) | {"output": steps(latents, 0).clone()}


def random_vae(device: str, tiny: bool) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(base_dim=16, num_res_blocks=1) if tiny else AutoencoderKLWan()
    return vae.to(device, torch.bfloat16 if device == "cuda" else torch.float32).eval().requires_grad_(False)


def random_transformer(config: dict[str, int], device: str) -> WanTransformer3DModel:
    """In bfloat16, but for what diffusers keeps in float32."""
    torch.manual_seed(0)
    # Made in float32 first, it would take twice the memory.
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        full: Any = {"in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256} | config
        transformer: Any = WanTransformer3DModel(**full)
    torch.set_default_dtype(torch.float32)
    for key, parameter in transformer.named_parameters():
        if any(word in key for word in transformer._keep_in_fp32_modules):
            parameter.data = parameter.data.float()
    fresh: Any = WanTransformer3DModel(**(full | {"num_layers": 1}))
    transformer.rope = fresh.rope.to(device)  # its tables are made in the default type, which they must not be
    return transformer.eval().requires_grad_(False)


def as_bytes(frames: torch.Tensor) -> torch.Tensor:
    """As diffusers' pipelines bring them to the host."""
    return (frames.clamp(-1, 1) / 2 + 0.5).float().cpu()
