"""Weights into memory, strictly."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.video_service.conftest import load_tiny, network
from video_service.render.generate import Deployed
from video_service.settings import VideoSettings
from video_service.weights import device
from web.worker.errors import ModelUnavailable

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "wan"))


def test_sharded_weights_load_as_one_file_does(tiny_model: Deployed, copied: Path) -> None:
    shutil.rmtree(copied / "transformer")
    network(tiny_model).save_pretrained(copied / "transformer", max_shard_size="50KB")
    assert len(list((copied / "transformer").glob("*.safetensors"))) > 1
    sharded = network(load_tiny(copied)).state_dict()
    for name, value in network(tiny_model).state_dict().items():
        assert torch.equal(value, sharded[name]), name


@pytest.mark.parametrize(
    "file", [TRANSFORMER, "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"]
)
def test_a_missing_weight_is_an_error_and_not_made_up(copied: Path, file: str) -> None:
    weights = load_file(copied / file)
    lost = next(name for name in sorted(weights) if name.endswith("weight") and "embed" not in name)
    save_file({name: value for name, value in weights.items() if name != lost}, copied / file, {"format": "pt"})
    with pytest.raises(ModelUnavailable, match="lacks 1 weights"):
        load_tiny(copied)


def test_a_network_with_weights_that_nothing_reads_is_of_another_kind(copied: Path) -> None:
    """FastWan2.1's transformer, under the name of a plain Wan's, has a gate in every block."""
    weights = load_file(copied / TRANSFORMER)
    gate = "blocks.0.to_gate_compress.weight"
    save_file(weights | {gate: weights["blocks.0.attn1.to_q.weight"].clone()}, copied / TRANSFORMER, {"format": "pt"})
    with pytest.raises(ModelUnavailable, match=f"transformer has 1 weights .* such as {gate}"):
        load_tiny(copied)


def test_a_damaged_file_is_an_error_that_names_the_model(copied: Path) -> None:
    (copied / TRANSFORMER).write_bytes(b"\x00" * 64)
    with pytest.raises(ModelUnavailable, match="weights of wan"):
        load_tiny(copied)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx2", "avx512_bf16"}, "bfloat16"), ({"amx_bf16"}, "bfloat16"), ({"avx2", "avx512f"}, "float32")],
)
def test_bfloat16_is_chosen_only_where_the_processor_computes_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], expected: str
) -> None:
    monkeypatch.setattr(device, "_cpu_flags", lambda: frozenset(flags))
    assert device.pick_dtype("auto", "cpu") == expected
    assert device.pick_dtype("float32", "cpu") == "float32"


def test_asking_for_cuda_without_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_cuda_generation", lambda: None)
    assert device.pick_device("auto") == "cpu"
    with pytest.raises(device.DeviceUnavailable, match="VIDEO_DEVICE"):
        device.pick_device("cuda")


def test_the_environment_is_read_under_its_fixed_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {
        "VIDEO_PORT": "9002", "VIDEO_HOST": "0.0.0.0", "VIDEO_MODEL": "a/b", "STILLMOTION_MODELS": str(tmp_path),
        "STILLMOTION_DATA": str(tmp_path), "STILLMOTION_INTERNAL_TOKEN": "secret", "VIDEO_DTYPE": "",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = VideoSettings()
    assert (settings.port, settings.host, settings.model, settings.dtype) == (9002, "0.0.0.0", "a/b", "auto")
    assert settings.models_dir == settings.data_dir == tmp_path
    assert settings.internal_token is not None
    assert "secret" not in repr(settings)
