"""A TurboWan published in int8 blocks stays so in memory where that is asked for: half of it, and the same latents."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.parity import a_request, ours
from tests.checkpoints.tiny_lora import write_lora
from tests.checkpoints.turbowan import TOPK, load_reference, save_base, save_published, weights_of
from tests.unit.video_service.conftest import load_tiny, network
from video_service.families.convert.command import convert
from video_service.families.wan.int8 import NONE
from video_service.model import find_model, load_model
from video_service.render.generate import Deployed
from video_service.settings import VideoSettings
from video_service.weights.held import held_bytes
from video_service.weights.lora import Lora
from web.worker.errors import ModelUnavailable

REQUEST = a_request(num_frames=5, sampling={"sampler": "sde", "steps": 2})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("turbo")
    source = save_published(where / "TurboWan-quant.pth", weights_of(load_reference()), quant=True)
    convert(source, save_base(where / "base"), where / "quant", topk=TOPK)
    return where / "quant"


@pytest.fixture(scope="module")
def plain(folder: Path) -> Deployed:
    return load_tiny(folder)


@pytest.fixture(scope="module")
def kept(folder: Path) -> Deployed:
    return loaded(folder)


def loaded(folder: Path, **more: Any) -> Deployed:
    settings = VideoSettings(model=str(folder), device="cpu", dtype="float32", quant_linear="int8", **more)
    return load_model(find_model(settings), settings)


def latents(model: Any) -> torch.Tensor:
    [(found, _)] = ours(model, REQUEST)
    return found


def test_latents_are_those_of_the_dequantised_weights_to_the_bit(kept: Deployed, plain: Deployed) -> None:
    assert "20 linear layers in int8" in kept.info.engine_reason
    assert torch.equal(latents(kept.model), latents(plain.model))


def test_a_weight_takes_a_byte(kept: Deployed, plain: Deployed) -> None:
    """Here of four, and a scale for each 16,384; said before loading, and true after it."""
    blocks = network(plain).module.blocks
    weights = sum(layer.weight.numel() for layer in blocks.modules() if isinstance(layer, torch.nn.Linear))
    saved = held_bytes(plain.model) - held_bytes(kept.model)
    assert saved == pytest.approx(3 * weights, rel=0.01)
    assert plain.info.memory_bytes is not None
    assert kept.info.memory_bytes == plain.info.memory_bytes - 3 * weights


def test_loras_of_a_request_go_into_the_numbers_that_they_stand_for(
    kept: Deployed, plain: Deployed, tmp_path: Path
) -> None:
    path = write_lora(tmp_path / "a.safetensors", network(plain).module, "diffusers", 0.02)
    lora = Lora(path=path, scale=1.0, digest="0" * 16)
    with_lora = latents(kept.model.adapted([lora]))
    assert torch.equal(with_lora, latents(plain.model.adapted([lora])))
    assert not torch.equal(with_lora, latents(kept.model))


def test_where_it_cannot_be_it_is_said(folder: Path, wan_t2v_folder: Path, plain: Deployed, tmp_path: Path) -> None:
    assert NONE in loaded(wan_t2v_folder).info.engine_reason
    lora = write_lora(tmp_path / "a.safetensors", network(plain).module, "diffusers", 0.02)
    assert "linear layers not in int8: a LoRA is in them" in loaded(folder, lora=lora).info.engine_reason


def test_blocks_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    file = other / "transformer/int8/diffusion_pytorch_model.safetensors"
    save_file({name: x[:128].clone() for name, x in load_file(file).items()}, file)
    with pytest.raises(ModelUnavailable, match=r"its blocks are .* convert the published file again"):
        loaded(other)
