"""Two processes compute what one does: the worker's side in this one, a peer of its own, gloo between them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from PIL import Image

from tests.checkpoints.parity import a_request, ours
from tests.checkpoints.tiny_lora import write_lora
from tests.support.vae_on_cpu import CpuDecoders, Owner, cpu_decoder
from tests.unit.video_service.conftest import network
from tests.unit.video_service.layers.test_wan_transformer import IMAGE, away
from video_service.families.fastwan import GatedTransformer
from video_service.layers.attention.sla import Sla
from video_service.layers.attention.vsa import Vsa
from video_service.layers.pixels import to_levels
from video_service.layers.wan.bands import Bands
from video_service.layers.wan.fast import FastTransformer
from video_service.layers.wan.vae import WanVaeDecoder
from video_service.model import find_model, load_model
from video_service.render.generate import Deployed
from video_service.settings import VideoSettings
from video_service.weights.lora import Lora
from video_service.worker.peers.group import PeerGroup
from web.worker.errors import ModelUnavailable

HEADS, DIM = 6, 16


@pytest.fixture(scope="module")
def group() -> Iterator[PeerGroup]:
    lost: list[str] = []
    group = PeerGroup(2, "cpu", threads=1, on_loss=lost.append)
    group.wait()
    yield group
    group.close()
    assert lost == []
    assert [peer.returncode for peer in group._peers] == [0]


def gated(heads: int = HEADS, **more: Any) -> Any:
    """With the gates that VSA takes."""
    config: Any = {
        "num_attention_heads": heads, "attention_head_dim": DIM, "text_dim": 32, "freq_dim": 32, "ffn_dim": 96,
        "num_layers": 2}
    torch.manual_seed(0)
    made: Any = GatedTransformer.from_config(config | more)
    transformer = made.eval()
    for parameter in transformer.parameters():
        parameter.data.normal_(0, 0.2)
    return transformer.requires_grad_(False)


def sla(transformer: Any, topk: float = 0.3) -> Sla:
    dim = transformer.config["attention_head_dim"]
    torch.manual_seed(3)
    return Sla(topk=topk, projections=[(torch.randn(dim, dim), torch.randn(dim)) for _ in transformer.blocks])


EVEN, ODD = (1, 16, 3, 12, 20), (2, 16, 3, 6, 18)
"""Latents whose tokens two ranks share evenly; and of two clips of 81 tokens each."""


@pytest.mark.parametrize("shape", [EVEN, ODD], ids=["even", "odd-batch"])
@pytest.mark.parametrize(("sparse", "more"), [
    (None, {}), ("sla", {}), (Vsa(topk=0.3), {}), (None, IMAGE | {"added_kv_proj_dim": HEADS * DIM}),
], ids=["dense", "sla", "vsa", "clip"])
def test_a_step_over_two_processes_is_one_process_step(
    group: PeerGroup, shape: tuple[int, ...], sparse: Any, more: dict[str, Any]
) -> None:
    transformer = gated(**more)
    form = sla(transformer) if sparse == "sla" else sparse
    one, two = FastTransformer(transformer, sparse=form), group.split(transformer, sparse=form)
    torch.manual_seed(1)
    latents = torch.randn(shape)
    texts = [torch.randn(shape[0], 512 if more else 12, 32) for _ in range(3)]
    seen = torch.randn(shape[0], 7, 24) if more else None
    for at, text in enumerate([texts[0], texts[1], texts[0], texts[2], texts[0]]):
        times = torch.full((shape[0],), 900.0 - 100 * at)
        (expected,) = one(latents, times, text, seen, return_dict=False)
        (found,) = two(latents, times, text, seen, return_dict=False)
        assert away(found, expected) < 1e-5


@pytest.mark.parametrize("more", [{}, IMAGE | {"added_kv_proj_dim": HEADS * DIM}], ids=["text", "clip"])
def test_each_of_two_processes_computes_one_of_guidances_two_where_it_is_to(
    group: PeerGroup, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(group, "guides", True)
    transformer, lengths = gated(**more), []
    one, two = FastTransformer(transformer), group.split(transformer)
    torch.manual_seed(1)
    latents, time = torch.randn(ODD), torch.full((2,), 700.0)
    texts = [torch.randn(2, 512 if more else 12, 32) for _ in range(3)]
    seen = torch.randn(2, 7, 24) if more else None
    first: Any = two._network.blocks[0]
    hook = first.qkv.register_forward_pre_hook(lambda _, given: lengths.append(len(given[0])))
    for text, negative in ((0, 1), (0, 1), (2, 1)):
        expected = one.both(latents, time, texts[text], texts[negative], seen)
        found = two.both(latents, time, texts[text], texts[negative], seen)
        assert max(map(away, found, expected)) < 1e-5
        (alone,) = two(latents, time, texts[text], seen, return_dict=False)
        assert away(alone, expected[0]) < 1e-5
    hook.remove()
    assert lengths == [2 * 81, 2 * 41] * 3, "the whole of one of two; then this rank's share of a step"


@pytest.mark.parametrize("guides", [False, True], ids=["shared", "apart"])
@pytest.mark.parametrize("is_sparse", [False, True], ids=["dense", "sla"])
def test_a_guided_clip_is_one_process_clip(
    group: PeerGroup, tiny_model: Deployed, picture: Image.Image, is_sparse: bool, guides: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group, "guides", guides)
    alone: Any = tiny_model.model
    plain = network(tiny_model)
    form = sla(plain, 0.5) if is_sparse else None
    if is_sparse:
        alone = replace(alone, transformer=FastTransformer(plain, sparse=form))
    parted = replace(alone, transformer=group.split(plain, sparse=form))
    request = a_request(image=picture, sampling={"guidance_scale": 3.0})
    (latents, frames), (expected, own) = ours(parted, request)[0], ours(alone, request)[0]
    assert away(latents, expected) < 1e-5
    assert np.abs(frames.astype(int) - own.astype(int)).max() <= 1


def test_a_loaded_model_is_split_says_so_and_takes_loras(
    group: PeerGroup, tiny_folder: Path, tiny_model: Deployed, tmp_path: Path
) -> None:
    settings = VideoSettings(model=str(tiny_folder), device="cpu", dtype="float32", gpus=2)
    parted = load_model(find_model(settings), settings, group)
    assert parted.info.engine_reason == "VIDEO_ENGINE=torch; steps over 2 devices"
    request = a_request()
    plain = ours(tiny_model.model, request)[0][0]
    assert away(ours(parted.model, request)[0][0], plain) < 1e-5
    lora = Lora(path=write_lora(tmp_path / "style.safetensors", network(tiny_model), "kohya"), scale=0.7, digest="d")
    adapted = ours(tiny_model.model.adapted([lora]), request)[0][0]
    assert away(ours(parted.model.adapted([lora]), request)[0][0], adapted) < 1e-5 < away(plain, adapted)
    assert away(ours(parted.model, request)[0][0], plain) < 1e-5


def test_heads_that_do_not_divide_are_refused_with_what_would_do(group: PeerGroup) -> None:
    with pytest.raises(ModelUnavailable, match=r"VIDEO_GPUS=2 does not divide the transformer's 3 heads: .* 1, 3"):
        group.split(gated(heads=3))


def test_rows_decoded_by_two_processes_are_those_of_one(group: PeerGroup) -> None:
    """The CUDA decoder with torch for its kernels: two clips, so that the first one's history must not show."""
    torch.manual_seed(0)
    vae: Any = AutoencoderKLWan(base_dim=8, num_res_blocks=1)
    vae = vae.to(torch.bfloat16).eval().requires_grad_(False)
    latents = torch.randn(2, 1, 16, 3, 4, 3)
    with torch.no_grad():
        expected = [to_levels(torch.cat(list(WanVaeDecoder(vae).decode(clip.bfloat16())), 2)) for clip in latents]
    owner = Owner()
    number = group.load(owner, partial(CpuDecoders, vae))
    told = partial(group.decoding, number, (4, 3))
    found = {bands: [torch.cat([x.clone() for x in decoder.decode_on_device(clip)]) for clip in latents]
             for bands in (False, True)
             for decoder in [cpu_decoder(vae, 4, 3, **({"bands": Bands(), "told": told} if bands else {}))]}
    for one, two, reference in zip(found[False], found[True], expected, strict=True):
        assert (one.int() - reference[0].int()).abs().float().mean() < 2  # bfloat16 rounds in another order
        assert (one.int() - two.int()).abs().max() <= 1
