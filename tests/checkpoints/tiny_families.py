"""Random checkpoints of every family but the one of `tiny_wan.py`, small enough to render or export in seconds.

    from tests.checkpoints.tiny_families import save_tiny_family, tiny_parts
    parts = tiny_parts("wan2.2-ti2v")                # diffusers' own modules
    folder = save_tiny_family(tmp_path, "i2vgen-xl")   # the same in the hub layout
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_anyflow import AnyFlowTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from diffusers.pipelines.anyflow.pipeline_anyflow import AnyFlowPipeline
from diffusers.pipelines.deprecated.i2vgen_xl.pipeline_i2vgen_xl import I2VGenXLPipeline
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_map_euler_discrete import FlowMapEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.checkpoints.tiny_wan import tiny_tokenizer


def tiny_parts(family: str, *, shallow: bool = False) -> dict[str, Any]:
    """The parts of one family by folder, of equal weights each time.

    Where they are `shallow`, every kind of layer is there once or so, for what is paid by the layer.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = _FAMILIES[family][0](shallow)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return parts


def tiny_pipeline(family: str, *, shallow: bool = False) -> Any:
    """diffusers' pipeline of them."""
    _, kind, settings = _FAMILIES[family]
    return kind(**tiny_parts(family, shallow=shallow), **settings)


def save_tiny_family(folder: Path, family: str, *, shallow: bool = False) -> Path:
    """Write the checkpoint into `folder`, as diffusers does, and return it."""
    tiny_pipeline(family, shallow=shallow).save_pretrained(folder)
    return folder


def _clip_i2v(shallow: bool) -> dict[str, Any]:
    """Wan2.1 I2V-14B: 36 channels, and CLIP's view of the image beside the words."""
    return _wan(_transformer(36, 16, shallow, image_dim=24)) | {
        "image_encoder": CLIPVisionModel(CLIPVisionConfig(
            hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, image_size=28,
            patch_size=14, projection_dim=24,
        )),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    }


def _flf2v(shallow: bool) -> dict[str, Any]:
    """Wan2.1 FLF2V-14B: the same, with a place for each token of the first and of the last image."""
    parts = _clip_i2v(shallow)
    return parts | {"transformer": _transformer(36, 16, shallow, image_dim=24, pos_embed_seq_len=2 * 5)}


def _anyflow(shallow: bool) -> dict[str, Any]:
    """AnyFlow on Wan2.1-T2V: a network of its own, told two times, and a scheduler that takes both."""
    network = AnyFlowTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, text_dim=32, freq_dim=32, ffn_dim=64,
        num_layers=1 if shallow else 2, rope_max_seq_len=64,
    )
    return _wan(_transformer(16, 16, shallow)) | {
        "transformer": network, "scheduler": FlowMapEulerDiscreteScheduler(shift=5.0)}


def _experts(shallow: bool) -> dict[str, Any]:
    """Wan2.2 I2V-A14B: Wan2.1's VAE, 36 channels, two transformers."""
    return _wan(_transformer(36, 16, shallow)) | {"transformer_2": _transformer(36, 16, shallow)}


def _experts_t2v(shallow: bool) -> dict[str, Any]:
    """Wan2.2 T2V-A14B: the same with 16 channels."""
    return _wan(_transformer(16, 16, shallow)) | {"transformer_2": _transformer(16, 16, shallow)}


def _ti2v(shallow: bool) -> dict[str, Any]:
    """Wan2.2 TI2V-5B: residual VAE of 2x2 patches at 16x, here with 4 of its 48 channels."""
    widths, blocks = ([1, 1, 1, 1], 0) if shallow else ([1, 2, 4, 4], 1)  # without blocks its encoder changes no widths
    vae = AutoencoderKLWan(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=widths, num_res_blocks=blocks,
        temperal_downsample=[False, True, True], is_residual=True, in_channels=12, out_channels=12, patch_size=2,
        scale_factor_spatial=16, latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )
    return _wan(_transformer(4, 4, shallow), vae)


def _i2vgen(_: bool) -> dict[str, Any]:
    """I2VGen-XL, but for its widths; the scheduler is set as the published one."""
    image_vae: Any = AutoencoderKL  # its annotations say tuples of one
    # The blocks in the middle attend to the text, so those before and after them need not: a third of the nodes less.
    unet = I2VGenXLUNet(
        block_out_channels=(32, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=32,
        attention_head_dim=16, down_block_types=("DownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "UpBlock3D"),
    )
    return {
        "unet": unet, "tokenizer": tiny_tokenizer(model_max_length=77), "feature_extractor": CLIPImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        "text_encoder": CLIPTextModel(CLIPTextConfig(
            vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
            max_position_embeddings=77, pad_token_id=0, bos_token_id=1, eos_token_id=1,
        )),
        "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(
            hidden_size=24, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=28,
            patch_size=14, projection_dim=32,
        )),
        "vae": image_vae(
            block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        "scheduler": DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="squaredcos_cap_v2", clip_sample=False,
            set_alpha_to_one=True, steps_offset=1, prediction_type="v_prediction", timestep_spacing="leading",
            rescale_betas_zero_snr=True,
        ),
    }


def _wan(transformer: WanTransformer3DModel, vae: AutoencoderKLWan | None = None) -> dict[str, Any]:
    """What goes with a Wan transformer; the VAE is Wan2.1's unless another is given."""
    return {
        "tokenizer": tiny_tokenizer(), "text_encoder": _text_encoder(), "transformer": transformer,
        "vae": vae or AutoencoderKLWan(
            base_dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, temperal_downsample=[False, True, True],
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def _text_encoder() -> UMT5EncoderModel:
    return UMT5EncoderModel(UMT5Config(vocab_size=258, d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2))


def _transformer(
    in_channels: int, out_channels: int, shallow: bool, image_dim: int | None = None, **more: Any
) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=in_channels,
        out_channels=out_channels, text_dim=32, freq_dim=32, ffn_dim=64, num_layers=1 if shallow else 2,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=64,
        image_dim=image_dim, added_kv_proj_dim=None if image_dim is None else 32,
        **more,
    )


_FAMILIES: dict[str, tuple[Callable[[bool], dict[str, Any]], Any, dict[str, Any]]] = {
    "wan2.1-i2v-clip": (_clip_i2v, WanImageToVideoPipeline, {}),
    "wan2.1-flf2v": (_flf2v, WanImageToVideoPipeline, {}),
    "wan2.2-experts": (_experts, WanImageToVideoPipeline, {"boundary_ratio": 0.9}),
    "wan2.2-experts-t2v": (_experts_t2v, WanPipeline, {"boundary_ratio": 0.875}),
    "i2vgen-xl": (_i2vgen, I2VGenXLPipeline, {}),
    "anyflow": (_anyflow, AnyFlowPipeline, {}),
    "wan2.2-ti2v": (_ti2v, WanPipeline, {"expand_timesteps": True}),
}
"""By name: its parts, diffusers' pipeline, and what that is told beside them."""
