"""A LoRA in the model: the weights that render, the revision that says so, and the files that are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from safetensors.torch import save_file

from contracts.videos import VideoRequest
from engines.store.revisions import base_of
from tests.checkpoints.tiny_lora import LAYOUTS, write_lora
from tests.unit.video_service.conftest import network
from video_service.layers.wan.keys import wan_name
from video_service.model import find_model, load_model
from video_service.render.generate import Deployed, generate
from video_service.render.progress import silent
from video_service.settings import VideoSettings
from video_service.weights.lora import Lora, find_lora
from video_service.weights.lora_merge import merge_loras
from web.worker.errors import ModelUnavailable

SCALE = 0.7


def lora_at(path: Path, scale: float = SCALE) -> Lora:
    return Lora(path=path, scale=scale, digest="0" * 16)


def copy_of(model: Deployed, dtype: torch.dtype = torch.float32) -> Any:
    own = network(model)
    transformer: Any = type(own).from_config(own.config)
    transformer.load_state_dict(own.state_dict())
    return transformer.to(dtype)


def settings_of(folder: Path, lora: Path | None, scale: float = 1.0) -> VideoSettings:
    return VideoSettings(model=str(folder), device="cpu", dtype="float32", lora=lora, lora_scale=scale)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_weights_that_diffusers_reading_of_the_file_gives(
    tiny_model: Deployed, tmp_path: Path, layout: str
) -> None:
    path = write_lora(tmp_path / "lora.safetensors", network(tiny_model), layout)
    merged = copy_of(tiny_model)
    merge_loras(merged, [lora_at(path)], wan_name)
    read = WanLoraLoaderMixin.lora_state_dict(str(path))  # alpha / rank is in the matrices
    assert isinstance(read, dict)
    for name, before in network(tiny_model).state_dict().items():
        layer = f"transformer.{name.removesuffix('.weight')}"
        expected = before.double()
        if f"{layer}.lora_A.weight" in read:
            a, b = read.pop(f"{layer}.lora_A.weight"), read.pop(f"{layer}.lora_B.weight")
            expected = expected + SCALE * b.double() @ a.double()
            assert not torch.allclose(expected, before.double())
        torch.testing.assert_close(merged.state_dict()[name].double(), expected, rtol=1e-6, atol=1e-6)
    assert read == {}


def test_a_merged_layer_computes_the_layer_and_its_two_matrices(tiny_model: Deployed, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "lora.safetensors", network(tiny_model), "diffusers")
    merged, name = copy_of(tiny_model), "blocks.1.ffn.net.2"
    merge_loras(merged, [lora_at(path)], wan_name)
    read: Any = WanLoraLoaderMixin.lora_state_dict(str(path))
    a, b = (read[f"transformer.{name}.lora_{half}.weight"] for half in "AB")
    layer, x = network(tiny_model).get_submodule(name), torch.linspace(-2, 2, 4 * 64).reshape(4, 64)
    torch.testing.assert_close(merged.get_submodule(name)(x), layer(x) + SCALE * ((x @ a.T) @ b.T))


def test_weights_are_rounded_once(tiny_model: Deployed, tmp_path: Path) -> None:
    path = write_lora(tmp_path / "lora.safetensors", network(tiny_model), "diffusers", size=0.02)
    before, merged = copy_of(tiny_model, torch.bfloat16), copy_of(tiny_model, torch.bfloat16)
    exact = copy_of(tiny_model)
    merge_loras(merged, [lora_at(path)], wan_name)
    exact.load_state_dict({name: x.float() for name, x in before.state_dict().items()})
    merge_loras(exact, [lora_at(path)], wan_name)
    for name, value in merged.state_dict().items():
        assert torch.equal(value, exact.state_dict()[name].bfloat16()), name


def test_biases_whole_differences_and_a_convolutions_matrices_are_added_too(
    tiny_model: Deployed, tmp_path: Path
) -> None:
    before: Any = network(tiny_model)
    random = torch.Generator().manual_seed(1)
    kernel, norm = before.patch_embedding.weight, before.blocks[0].norm2.weight
    tensors = {
        "diffusion_model.patch_embedding.lora_down.weight": torch.randn(2, *kernel.shape[1:], generator=random),
        "diffusion_model.patch_embedding.lora_up.weight": torch.randn(len(kernel), 2, 1, 1, 1, generator=random),
        "diffusion_model.blocks.0.self_attn.q.diff_b": torch.randn(32, generator=random),
        "diffusion_model.blocks.0.norm3.diff": torch.randn(norm.shape, generator=random),
        "diffusion_model.head.head.diff": torch.randn(before.proj_out.weight.shape, generator=random),
    }
    save_file(tensors, tmp_path / "lora.safetensors")
    merged = copy_of(tiny_model)
    merge_loras(merged, [lora_at(tmp_path / "lora.safetensors")], wan_name)
    down, up, bias, scale, head = tensors.values()
    product = torch.einsum("or,rcthw->octhw", up[:, :, 0, 0, 0], down)
    for found, old, delta in (
        (merged.patch_embedding.weight, kernel, product), (merged.blocks[0].norm2.weight, norm, scale),
        (merged.blocks[0].attn1.to_q.bias, before.blocks[0].attn1.to_q.bias, bias),
        (merged.proj_out.weight, before.proj_out.weight, head),
    ):
        torch.testing.assert_close(found, old + SCALE * delta, rtol=1e-6, atol=1e-5)


def test_an_alpha_in_diffusers_metadata_counts_and_a_layers_own_goes_first(
    tiny_model: Deployed, tmp_path: Path
) -> None:
    layers = "blocks.0.attn1.to_q", "blocks.1.attn1.to_q"
    tensors = {f"transformer.{name}.lora_{half}.weight": torch.ones(shape) for name in layers
               for half, shape in (("A", (2, 32)), ("B", (32, 2)))}
    config = {"transformer.r": 2, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {"blocks.1.attn1.to_q": 6}}
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": json.dumps(config)})
    merged = copy_of(tiny_model)
    merge_loras(merged, [lora_at(tmp_path / "lora.safetensors", scale=1.0)], wan_name)
    for name, expected in zip(layers, (8.0, 6.0), strict=True):  # alpha / 2 · (1 + 1)
        delta = merged.state_dict()[f"{name}.weight"] - network(tiny_model).state_dict()[f"{name}.weight"]
        torch.testing.assert_close(delta, torch.full_like(delta, expected))


Q = "transformer.blocks.0.attn1.to_q"
A, B = torch.ones(2, 32), torch.ones(32, 2)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"blocks.7.attn1.to_q.lora_A.weight": A, f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B},
         r"blocks\.7\.attn1\.to_q\.lora_A\.weight belongs to no layer"),
        ({"lora_te_layer.lora_down.weight": A}, r"lora_te_layer\.lora_down\.weight belongs to no layer"),
        ({f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B, f"{Q}.dora_scale": B}, "dora_scale .* DoRA is not"),
        ({f"{Q}.lora_A.weight": A}, r"to_q\.lora_A\.weight lacks its other half"),
        ({f"{Q}.lora_A.weight": torch.ones(2, 31), f"{Q}.lora_B.weight": B}, r"lora_A\.weight .*\(2, 31\).*\(32, 32\)"),
        ({f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": torch.ones(32, 3)}, r"lora_B\.weight .*\(32, 3\).*\(32, 32\)"),
        ({f"{Q}.lora_A.weight": A * torch.nan, f"{Q}.lora_B.weight": B}, r"lora_A\.weight holds .* not finite"),
        ({f"{Q}.alpha": torch.tensor(1.0)}, r"to_q\.alpha stands alone"),
        ({f"{Q}.diff": A}, r"to_q\.diff has the shape \(2, 32\)"),
        ({f"{Q}.lora_A.weight": A, f"{Q}.lora_B.weight": B, f"{Q.removeprefix('transformer.')}.lora_A.weight": A},
         r"are the same"),
        ({}, "no tensors"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_name_and_first_bad_key_and_changes_nothing(
    tiny_model: Deployed, tmp_path: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    save_file({key: value.clone() for key, value in tensors.items()}, tmp_path / "wrong.safetensors")
    transformer = copy_of(tiny_model)
    with pytest.raises(ModelUnavailable, match=rf"wrong\.safetensors cannot be used: .*{words}"):
        merge_loras(transformer, [lora_at(tmp_path / "wrong.safetensors")], wan_name)
    for name, value in network(tiny_model).state_dict().items():
        assert torch.equal(value, transformer.state_dict()[name]), name


def test_a_missing_file_is_told_at_start_and_a_damaged_one_when_loading(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"nowhere\.safetensors cannot be read .*set VIDEO_LORA"):
        find_model(settings_of(tiny_folder, tmp_path / "nowhere.safetensors"))
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 64)
    settings = settings_of(tiny_folder, tmp_path / "damaged.safetensors")
    with pytest.raises(ModelUnavailable, match=r"damaged\.safetensors cannot be used"):
        load_model(find_model(settings), settings)


def test_the_revision_tells_every_file_and_scale_from_every_other(
    tiny_folder: Path, tiny_model: Deployed, tmp_path: Path
) -> None:
    one = write_lora(tmp_path / "one.safetensors", network(tiny_model), "kohya")
    two = write_lora(tmp_path / "two.safetensors", network(tiny_model), "original")
    folder, plain = tiny_folder, tiny_model.info.revision
    combinations = [(one, 1.0), (one, 0.5), (one, 0.50000001), (two, 1.0)]
    sources = [find_model(settings_of(folder, path, scale)) for path, scale in combinations]
    revisions = [source.files.revision for source in sources]
    assert len({plain, *revisions}) == 5
    assert {base_of(revision) for revision in revisions} == {plain} == {base_of(plain)}
    assert [source.info.revision for source in sources] == revisions  # as /v1/models and each job show it
    renamed = one.rename(tmp_path / "renamed.safetensors")
    assert find_model(settings_of(folder, renamed)).info.revision == revisions[0]


def test_a_clip_changes_with_a_lora_and_is_the_same_as_without_it_at_scale_0(
    tiny_folder: Path, tiny_model: Deployed, request_64: VideoRequest, tmp_path: Path
) -> None:
    path = write_lora(tmp_path / "lora.safetensors", network(tiny_model), "kohya")
    request = request_64.model_copy(update={"num_frames": 5})

    def render(model: Deployed) -> tuple[str, str]:
        result = generate(model, request, tmp_path / "video.mp4", silent)
        return result.sha256, result.revision

    clips: dict[float, tuple[str, str]] = {}
    for scale in (0.0, 1.0):
        settings = settings_of(tiny_folder, path, scale)
        clips[scale] = render(load_model(find_model(settings), settings))
    plain, revision = render(tiny_model)
    assert clips[0.0][0] == plain != clips[1.0][0]
    assert clips[1.0][1].startswith(f"{revision}+lora-")


def test_weights_of_a_hub_model_are_asked_for_by_the_hubs_own_revision(
    tiny_folder: Path, tiny_model: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lora(tmp_path / "lora.safetensors", network(tiny_model), "kohya")
    settings = settings_of(tiny_folder, path)
    asked: list[str] = []

    def snapshot(hub_id: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append(revision)
        return str(tiny_folder)

    monkeypatch.setattr("video_service.weights.checkpoint.snapshot_download", snapshot)
    source = find_model(settings)
    load_model(replace(source, files=replace(source.files, hub_id="wan/wan")), settings)
    assert set(asked) == {tiny_model.info.revision}


def test_the_environment_names_the_lora(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDEO_LORA", "")
    monkeypatch.setenv("VIDEO_LORA_SCALE", "")
    assert find_lora(VideoSettings()) is None
    (tmp_path / "a.safetensors").write_bytes(b"a")
    monkeypatch.setenv("VIDEO_LORA", str(tmp_path / "a.safetensors"))
    monkeypatch.setenv("VIDEO_LORA_SCALE", "-0.25")
    found = find_lora(VideoSettings())
    assert found is not None
    assert (found.path, found.scale) == (tmp_path / "a.safetensors", -0.25)
