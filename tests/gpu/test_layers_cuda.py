"""Our layers' kernels on a CUDA device, against their references in torch."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from video_service.families.fastwan import GatedTransformer
from video_service.layers import rows
from video_service.layers.attention.dense import dense_attention
from video_service.layers.attention.sla import Sla, SparseLinearAttention, choose_blocks
from video_service.layers.attention.vsa import Tiles, VideoSparseAttention, Vsa
from video_service.layers.frames import to_bytes, to_yuv420
from video_service.layers.linear import Fp8Linear
from video_service.layers.umt5_graph import FastTextEncoder
from video_service.layers.wan.fast import FastTransformer
from video_service.layers.wan.transformer import FastWanTransformer
from video_service.layers.wan.vae import WanVaeDecoder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def away(found: torch.Tensor, reference: torch.Tensor) -> float:
    reference = reference.float().cpu()
    return float((found.float().cpu() - reference).norm() / reference.norm())


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda").bfloat16()


@pytest.mark.parametrize("width", [1536, 5120, 160])
@pytest.mark.parametrize("quantise", [False, True])
@pytest.mark.parametrize("way", ["gated", "added", "alone"])
def test_residual_norm_is_its_reference(width: int, quantise: bool, way: str) -> None:
    x, update = normal(300, width), None if way == "alone" else normal(300, width)
    gate = torch.randn(width, device="cuda") if way == "gated" else None
    factor, shift = torch.randn(width, device="cuda"), torch.randn(width, device="cuda")
    given = (x, update, gate, factor, shift)
    kept, normed, scale = rows.residual_norm(*given, eps=1e-6, quantise=quantise)
    on_cpu = [None if part is None else part.cpu() for part in given]
    kept_, normed_, scale_ = rows.residual_norm(*on_cpu, eps=1e-6, quantise=quantise)  # type: ignore[arg-type]
    assert away(kept, kept_) < 1e-4
    if scale is None or scale_ is None:
        assert away(normed, normed_) < 1e-3
    else:
        # a number in many rounds to the other side
        assert away(normed.float() * scale, normed_.float() * scale_) < 6e-3


@pytest.mark.parametrize("tokens", [100, 200])
def test_a_short_text_is_encoded_as_with_its_padding(tokens: int) -> None:
    torch.manual_seed(5)
    config = UMT5Config(vocab_size=500, d_model=256, d_kv=64, d_ff=512, num_layers=3, num_heads=4)
    encoder: Any = UMT5EncoderModel(config).eval().requires_grad_(False)
    ids, mask = torch.randint(2, 500, (1, 512)), (torch.arange(512) < tokens).long()[None]
    exact = encoder(ids, mask).last_hidden_state[:, :tokens]
    encoder, given = encoder.bfloat16().cuda(), (ids.cuda(), mask.cuda())
    fast = FastTextEncoder(encoder)
    fast(*given)  # captures
    found = fast(*given).last_hidden_state
    assert away(found[:, :tokens], exact) < 1.2 * away(encoder(*given).last_hidden_state[:, :tokens], exact)
    assert not found[:, tokens:].any()


@pytest.mark.parametrize("rotated", [False, True])
def test_rms_rotate_is_its_reference(rotated: bool) -> None:
    parts = 2 if rotated else 1
    x, weight = normal(2 * 50, 3 * 384), normal(parts, 384)
    rotary = (torch.randn(50, 64, device="cuda"), torch.randn(50, 64, device="cuda")) if rotated else None
    reference = rows.rms_rotate_(x.cpu(), weight.cpu(), rotary and (rotary[0].cpu(), rotary[1].cpu()), eps=1e-6)
    assert away(rows.rms_rotate_(x, weight, rotary, eps=1e-6), reference) < 2e-3


@pytest.mark.parametrize("width", [8960, 13824, 1536, 512])
@pytest.mark.parametrize("gelu", [False, True])
def test_quantised_rows_are_their_reference(width: int, gelu: bool) -> None:
    x = normal(70, width)
    (data, scale), (data_, scale_) = rows.quantise_rows(x, gelu=gelu), rows.quantise_rows(x.cpu(), gelu=gelu)
    exact = F.gelu(x.double(), approximate="tanh") if gelu else x
    assert away(data.float() * scale, exact) < 1.02 * away(data_.float() * scale_, exact)


def test_float8_products_are_their_reference() -> None:
    weight, bias = normal(256, 384), normal(256)
    data, scale = rows.quantise_rows(normal(100, 384))
    found = Fp8Linear(weight, bias)(data, scale)
    assert away(found, Fp8Linear(weight.cpu(), bias.cpu())(data.cpu(), scale.cpu())) < 6e-3


@pytest.mark.parametrize(("head", "length", "batch"), [(128, 5000, 2), (64, 4200, 1), (128, 300, 1), (40, 5000, 1)])
def test_dense_attention_is_its_reference(head: int, length: int, batch: int) -> None:
    """By every library that it chooses from; queries, keys and values lie beside one another as a layer makes them."""
    q, k, v = torch.randn(batch, length, 3, 3, head, device="cuda").bfloat16().unbind(2)
    exact = F.scaled_dot_product_attention(
        q.float().transpose(1, 2), k.float().transpose(1, 2), v.float().transpose(1, 2)).transpose(1, 2)
    assert away(dense_attention(q, k, v), exact) < 5e-3


@pytest.mark.parametrize(
    ("head", "length", "topk", "batch"),
    [(64, 1000, 0.3, 1), (128, 1000, 0.1, 2), (128, 4100, 0.2, 2), (64, 4200, 1.0, 1)])
@pytest.mark.parametrize("projected", [False, True])
def test_sparse_attention_is_its_reference(head: int, length: int, topk: float, batch: int, projected: bool) -> None:
    """The reference computes in float32 on the blocks that bfloat16 numbers choose."""
    q, k, v = (torch.randn(batch, length, 3, 2, head, device="cuda").bfloat16()).unbind(2)
    projection = torch.randn(head + 1, head, device="cuda") / 8
    layer = SparseLinearAttention(topk, *((projection[:head], projection[head]) if projected else (None, None)))
    found = layer(q, k, v)
    assert (choose_blocks(q, k, topk) == choose_blocks(q.cpu(), k.cpu(), topk).cuda()).float().mean() > 0.99
    assert away(found, layer(q.float(), k.float(), v.float())) < 1e-2


@pytest.mark.parametrize(("head", "grid", "topk", "batch"), [
    (64, (5, 7, 13), 0.2, 2), (128, (3, 9, 10), 0.4, 1), (128, (9, 16, 16), 0.2, 1)])
def test_video_sparse_attention_is_its_reference(
    head: int, grid: tuple[int, int, int], topk: float, batch: int
) -> None:
    """The reference computes in float32 on the tiles that bfloat16 numbers choose."""
    torch.manual_seed(0)
    q, k, v, gate = torch.randn(batch, math.prod(grid), 4, 2, head, device="cuda").bfloat16().unbind(2)
    layer, tiles = VideoSparseAttention(topk), Tiles.of(grid, q.device)
    assert away(layer(q, k, v, gate, tiles), layer(q.float(), k.float(), v.float(), gate.float(), tiles)) < 1e-2


@pytest.mark.parametrize("way", [
    {}, {"fp8": True}, {"fp8": True, "sparse": Sla(topk=0.3)}, {"sparse": Vsa(topk=0.5)},
])
def test_a_step_is_its_reference(way: dict[str, Any]) -> None:
    """On the CPU the same transformer in bfloat16; the graph's second clip differs from its first."""
    torch.manual_seed(0)
    kind: Any = GatedTransformer if isinstance(way.get("sparse"), Vsa) else WanTransformer3DModel
    transformer: Any = kind(
        num_attention_heads=2, attention_head_dim=128, text_dim=64, freq_dim=32, ffn_dim=512, num_layers=2).bfloat16()
    for key, parameter in transformer.named_parameters():
        if any(word in key for word in transformer._keep_in_fp32_modules or ()):
            parameter.data = parameter.data.float()
    latents, texts = torch.randn(1, 16, 3, 16, 24).bfloat16(), torch.randn(2, 1, 16, 64).bfloat16()
    reference = FastWanTransformer(transformer, **way)
    expected = [reference.graphed(reference.begin(latents.shape, text, [900.0, 300.0]))(latents, 1) for text in texts]
    fast = FastWanTransformer(transformer.cuda(), **way)
    first, second = (fast.begin(latents.shape, text.cuda(), [900.0, 300.0]) for text in texts)
    steps = fast.graphed(first)
    assert away(steps(latents.cuda(), 1), expected[0]) < 3e-2
    steps.restart(second)
    assert away(steps(latents.cuda(), 1), expected[1]) < 3e-2
    assert away(expected[0], expected[1]) > 3e-2


def test_a_band_of_the_decoder_s_attention_is_its_reference() -> None:
    """A rank's rows of two frames to all rows."""
    from video_service.layers.wan.vae_cuda import _wide_attention

    q, k, v = normal(2, 300, 384), normal(2, 600, 384), normal(2, 600, 384)
    found = _wide_attention(q, k, v)
    assert found.shape == q.shape
    assert away(found, F.scaled_dot_product_attention(q.float(), k.float(), v.float())) < 1e-2


def test_guidance_has_both_velocities_at_one_time() -> None:
    """The graph writes each where the one before lay."""
    torch.manual_seed(0)
    plain: Any = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=64, text_dim=32, freq_dim=32, ffn_dim=256, num_layers=2)
    plain = plain.cuda().bfloat16().eval().requires_grad_(False)
    latents, texts, times = normal(1, 16, 3, 8, 12), (normal(1, 12, 32), normal(1, 12, 32)), torch.tensor([900.0])
    found = FastTransformer(plain).both(latents, times, *texts)
    alone = [FastTransformer(plain)(latents, times, text, return_dict=False)[0] for text in texts]
    assert away(found[0], alone[0]) == 0
    assert away(found[1], alone[1]) == 0
    assert away(found[0], found[1]) > 1e-3


@pytest.mark.parametrize("num_frames", [1, 5, 33])
def test_an_encoded_still_is_the_encoder_s(num_frames: int) -> None:
    """As near to float32 as torch's own bfloat16 is, for each picture."""
    from video_service.layers.wan.still_cuda import FastStillEncoder

    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(base_dim=32, num_res_blocks=1)
    vae = vae.cuda().eval().requires_grad_(False)
    clips = [F.pad(torch.randn(1, 3, 1, 48, 64, device="cuda"), (0, 0, 0, 0, 0, num_frames - 1)) for _ in range(2)]
    exact = [vae.encode(clip).latent_dist.mode() for clip in clips]
    vae = vae.bfloat16()
    plain = [vae.encode(clip.bfloat16()).latent_dist.mode() for clip in clips]
    fast = FastStillEncoder(vae, 48, 64, num_frames)
    for clip, own, reference in zip(clips, plain, exact, strict=True):
        assert away(fast(clip[:, :, :1]), reference) < 1.2 * away(own, reference)


@pytest.mark.parametrize("residual", [False, True])
def test_decoded_frames_are_the_decoder_s(residual: bool) -> None:
    """As near to float32 as torch's own bfloat16 is; and a second clip begins anew."""
    from video_service.layers.wan.vae_cuda import FastVaeDecoder

    torch.manual_seed(0)
    more: dict[str, Any] = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
    vae: Any = AutoencoderKLWan(base_dim=32, num_res_blocks=1, **(more if residual else {}))
    vae = vae.cuda().eval().requires_grad_(False)
    for key, parameter in vae.named_parameters():
        if key.endswith("bias"):
            parameter.normal_(0, 0.05)
    latents = torch.randn(1, 16, 4, 8, 12, device="cuda")
    exact = torch.cat(list(WanVaeDecoder(vae).decode(latents)), dim=2)[0].permute(1, 2, 3, 0)
    vae = vae.bfloat16()
    plain = torch.cat(list(WanVaeDecoder(vae).decode(latents.bfloat16())), dim=2)[0].permute(1, 2, 3, 0)
    fast = FastVaeDecoder(vae, 8, 12)
    frames = torch.empty(0)
    for _ in range(2):
        frames = torch.cat(list(fast.decode(latents)))
        assert frames.shape == exact.shape
        assert away(frames, to_bytes(exact)) < 1.1 * away(to_bytes(plain), to_bytes(exact)) + 1e-3
    planes = torch.cat(list(FastVaeDecoder(vae, 8, 12, yuv420=True).decode(latents)))
    assert (planes.int() - to_yuv420(frames).int()).abs().max() <= 1
