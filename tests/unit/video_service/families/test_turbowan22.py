"""TurboWan2.2 I2V from its two published files to latents, against TurboDiffusion's rules written out plainly."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan_i2v import WanImageToVideoPipeline
from PIL import Image
from transformers import AutoTokenizer, UMT5EncoderModel

from tests.checkpoints.parity import a_request, ours
from tests.checkpoints.turbowan import quantised, save_base, save_published
from tests.unit.video_service.conftest import load_tiny
from video_service.families.convert.command import convert, main
from video_service.layers.wan.keys import wan_parameter
from video_service.model import find_model
from video_service.settings import VideoSettings

Tensors = dict[str, torch.Tensor]
WIDTH, HEIGHT, FRAMES, TOPK = 192, 128, 9, 0.4
"""288 tokens: three blocks of queries and five of keys, the last of both not full; two are kept."""


def an_expert(seed: int) -> tuple[WanTransformer3DModel, Tensors]:
    """Of random weights, and the file of it as published."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=128, in_channels=36, out_channels=16, text_dim=64,
            freq_dim=32, ffn_dim=256, num_layers=2, qk_norm="rms_norm_across_heads", cross_attn_norm=True,
        )
        published = {wan_parameter(name): value.clone() for name, value in network.state_dict().items()}
        published["patch_embedding.weight"] = published["patch_embedding.weight"].flatten(1)
        blocks: Any = network.blocks
        for index, block in enumerate(blocks):
            proj = torch.nn.Linear(128, 128)
            for name, value in proj.state_dict().items():
                published[f"blocks.{index}.self_attn.attn_op.local_attn.proj_l.{name}"] = value
            block.attn1.processor = WrittenOutSla(proj)
    return network.eval().requires_grad_(False), published


class WrittenOutSla:
    """SLA as one dense attention under a mask, and the linear branch; float64."""

    def __init__(self, proj: torch.nn.Linear) -> None:
        self._proj = proj

    def __call__(self, attn: Any, x: torch.Tensor, _text: Any, _mask: Any, rotary: Any) -> torch.Tensor:
        q, k, v = attn.norm_q(attn.to_q(x)), attn.norm_k(attn.to_k(x)), attn.to_v(x)
        q, k, v = (part.unflatten(2, (attn.heads, -1)).double() for part in (q, k, v))
        q, k = (_rotated(part, *rotary).transpose(1, 2) for part in (q, k))
        v = v.transpose(1, 2)
        centred = k - k.mean(2, keepdim=True)
        means = [torch.stack([block.mean(2) for block in part.split(size, 2)], 2)
                 for part, size in ((q, 128), (centred, 64))]
        scores = means[0] @ means[1].transpose(2, 3)
        kept = scores.topk(max(1, int(TOPK * scores.shape[3])), -1).indices
        blocks = torch.zeros_like(scores).scatter_(3, kept, 1.0).bool()
        mask = blocks.repeat_interleave(128, 2).repeat_interleave(64, 3)[:, :, :q.shape[2], :k.shape[2]]
        logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[3])
        sparse = logits.masked_fill(~mask, -torch.inf).softmax(-1) @ v
        fq, fk = q.softmax(-1), k.softmax(-1)
        linear = (fq @ (fk.transpose(2, 3) @ v)) / (fq @ fk.sum(2)[..., None] + 1e-5)
        out = sparse + F.linear(linear, self._proj.weight.double(), self._proj.bias.double())
        return attn.to_out[0](out.transpose(1, 2).flatten(2).to(x.dtype))


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    one, two = x.unflatten(-1, (-1, 2)).unbind(-1)
    c, s = cos[..., 0::2].double(), sin[..., 1::2].double()
    return torch.stack([one * c - two * s, one * s + two * c], -1).flatten(-2)


@pytest.fixture(scope="module")
def experts() -> list[tuple[WanTransformer3DModel, Tensors]]:
    return [an_expert(1), an_expert(2)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "wan")


@pytest.fixture(scope="module")
def files(experts: list[Any], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """`-high-` and `-low-`, plain and then of int8 blocks."""
    where = tmp_path_factory.mktemp("published")
    return [
        save_published(where / f"TurboWan2.2-I2V-{name}{'-quant' * quant}.pth", published, quant=quant)
        for quant in (False, True) for name, (_, published) in zip(("high", "low"), experts, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(files: list[Path], base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("turbo") / "out"
    convert(files[0], base, out, low=files[1], topk=TOPK)
    return out


@torch.no_grad()
def written_out(
    experts: list[Any], base: Path, request: Any, *, steps: int, ode: bool
) -> tuple[torch.Tensor, list[int]]:
    """The rules of TurboDiffusion's `wan2.2_i2v_infer.py` line by line, and the tokens' expert at each step."""
    pipeline = WanImageToVideoPipeline(
        tokenizer=AutoTokenizer.from_pretrained(base / "tokenizer"), transformer=experts[0][0],
        text_encoder=UMT5EncoderModel.from_pretrained(base / "text_encoder"),
        scheduler=None,  # pyright: ignore[reportArgumentType] - nothing here asks it
        vae=AutoencoderKLWan.from_pretrained(base / "vae"),
    )
    text, _ = pipeline.encode_prompt(request.prompt, do_classifier_free_guidance=False, max_sequence_length=512)
    pixels = pipeline.video_processor.preprocess(request.image, height=HEIGHT, width=WIDTH)
    generator = torch.Generator("cpu").manual_seed(request.seed)
    noise, y = pipeline.prepare_latents(
        pixels, 1, 16, HEIGHT, WIDTH, FRAMES, torch.float32, torch.device("cpu"), generator)
    angles = torch.tensor([*[math.atan(200.0), 1.5, 1.4, 1.0][:steps], 0.0], dtype=torch.float64)
    times = angles.sin() / (angles.cos() + angles.sin())
    x, used = noise.double() * times[0], []
    for now, then in itertools.pairwise(times):
        used.append(int(now < 0.9))
        told = (now.float() * 1000).to(torch.bfloat16).float()[None]
        v = experts[used[-1]][0](torch.cat([x.float(), y], 1), told, text, return_dict=False)[0].double()
        if ode:
            x = x - (now - then) * v
        else:
            x = (1 - then) * (x - now * v) + then * torch.randn(noise.shape, generator=generator).double()
    return x, used


@pytest.mark.parametrize(("sampler", "steps", "used"), [
    ("sde", 4, [0, 0, 1, 1]), ("ode", 3, [0, 0, 1]),
])
def test_latents_are_those_of_the_rules_written_out(
    experts: list[Any], base: Path, folder: Path, picture: Image.Image, sampler: str, steps: int, used: list[int]
) -> None:
    request = a_request(
        image=picture.resize((WIDTH, HEIGHT)), width=WIDTH, height=HEIGHT, num_frames=FRAMES,
        sampling={"sampler": sampler, "steps": steps, "guidance_scale_2": 1.0},
    )
    expected, took = written_out(experts, base, request, steps=steps, ode=sampler == "ode")
    assert took == used
    [(latents, frames)] = ours(load_tiny(folder).model, request)
    torch.testing.assert_close(latents, expected.float(), rtol=1e-4, atol=1e-4)
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)


def test_its_spec_is_of_an_image_to_video_model_of_few_steps(folder: Path) -> None:
    source = find_model(VideoSettings(model=str(folder), device="cpu", dtype="float32"))
    info = source.info
    assert (info.family, info.profile, info.tasks, info.sizes[0]) == ("turbowan2.2", "wan2.2", ["i2v"], "1280x720")
    assert (info.steps.default, info.steps.maximum, info.samplers) == (4, 4, ["sde", "ode"])
    assert info.guidance_scale_2 is not None
    assert info.guidance_scale_2.maximum == 1.0


def test_int8_blocks_become_the_numbers_they_stand_for(
    experts: list[Any], files: list[Path], base: Path, tmp_path: Path
) -> None:
    converted = convert(files[2], base, tmp_path / "out", low=files[3], topk=TOPK)
    assert [weights.dequantised for weights in converted.values()] == [20, 20]
    levels = quantised(experts[1][1])
    name = "blocks.1.ffn.2"
    expected = levels[f"{name}.int8_weight"].float() * levels[f"{name}.scale"].repeat_interleave(
        128, 0).repeat_interleave(128, 1)
    loaded: Any = load_tiny(tmp_path / "out").model
    found = loaded.transformer_2.module.blocks[1].ffn.net[2].weight
    torch.testing.assert_close(found, expected.to(torch.bfloat16).float(), rtol=0, atol=0)


def test_flags_and_files_that_disagree_are_refused_in_a_sentence(
    experts: list[Any], files: list[Path], base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    high, low = files[:2]
    smaller = {name: x for name, x in experts[1][1].items() if not name.startswith("blocks.1.")}
    other = save_published(tmp_path / "small.pth", smaller)
    cases: list[tuple[list[Path | str], str]] = [
        ([high], "give the high-noise file first and the low-noise one as --low"),
        ([low, "--low", high], "the wrong way round"),
        ([high, "--low", other], "is of another model: it differs in num_layers"),
        ([high, "--low", tmp_path / "none.pth"], "No such file"),
    ]
    for given, told in cases:
        assert main([*map(str, given), "--base", str(base), str(tmp_path / "out")]) == 1
        assert re.search(told, capfd.readouterr().err), told
    assert [path.name for path in tmp_path.iterdir()] == ["small.pth"]
