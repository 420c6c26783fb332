"""A Wan folder as its authors publish it, converted: each part computes what their own code computed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel, UMT5EncoderModel

from tests.checkpoints.tiny_wan import tiny_tokenizer
from tests.unit.video_service.conftest import load_tiny
from video_service.families.convert.command import main
from video_service.layers.wan.keys import wan_parameter

Tensors = dict[str, torch.Tensor]
DATA = Path(__file__).parents[3] / "data" / "wan_original.safetensors"
T5, VAE, CLIP = "models_t5_tiny.pth", "Wan2.1_VAE.pth", "models_clip_tiny.pth"


@pytest.fixture(scope="module")
def reference() -> Tensors:
    """`vae.*`, `t5.*`, `clip.*` as published, with inputs and outputs: Wan2.1's own modules of random weights, float32.
    """
    return load_file(DATA)


def part_of(reference: Tensors, name: str) -> Tensors:
    return {key.removeprefix(f"{name}."): x.float() for key, x in reference.items() if key.startswith(f"{name}.")}


def a_transformer(seed: int, *, image: bool, sees: bool) -> Tensors:
    """Of random weights, by the published names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WanTransformer3DModel(
            num_attention_heads=1, attention_head_dim=128, in_channels=36 if image else 16, out_channels=16,
            text_dim=32, freq_dim=16, ffn_dim=64, num_layers=2, qk_norm="rms_norm_across_heads", cross_attn_norm=True,
            image_dim=160 if sees else None, added_kv_proj_dim=128 if sees else None,
        )
    return {wan_parameter(name): x.clone() for name, x in network.state_dict().items()}


def save_original(folder: Path, reference: Tensors, transformers: dict[str, Tensors], *, clip: bool = False) -> Path:
    """`transformers` by folder, the first in two shards."""
    for where, weights in transformers.items():
        (folder / where).mkdir(parents=True, exist_ok=True)
        half = len(weights) // 2
        for index, names in enumerate((sorted(weights)[:half], sorted(weights)[half:]), start=1):
            save_file({name: weights[name] for name in names},
                      folder / where / f"diffusion_pytorch_model-0000{index}-of-00002.safetensors")
    for file, part in ((T5, "t5"), (VAE, "vae"), *([(CLIP, "clip")] if clip else [])):
        torch.save(part_of(reference, part), folder / file)
    tiny_tokenizer().save_pretrained(folder / "google" / "umt5-xxl")
    return folder


@pytest.fixture(scope="module")
def converted(reference: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan2.1 I2V, which has every part."""
    where = tmp_path_factory.mktemp("original")
    source = save_original(where / "Wan2.1-I2V", reference, {".": a_transformer(1, image=True, sees=True)}, clip=True)
    assert main([str(source), str(where / "out")]) == 0
    return where / "out"


@torch.no_grad()
def test_each_part_computes_what_the_authors_own_code_did(reference: Tensors, converted: Path) -> None:
    vae: Any = AutoencoderKLWan.from_pretrained(converted / "vae")
    latents = vae.encode(reference["vae_in"].float()).latent_dist.mode()
    torch.testing.assert_close(latents, reference["vae_latents"], rtol=1e-4, atol=1e-4)
    frames = vae.decode(reference["vae_latents"]).sample
    torch.testing.assert_close(frames, reference["vae_out"].float().clamp(-1, 1), rtol=1e-3, atol=1e-3)
    text: Any = UMT5EncoderModel.from_pretrained(converted / "text_encoder")
    ids = reference["t5_ids"]
    states = text(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    torch.testing.assert_close(states, reference["t5_out"], rtol=1e-4, atol=1e-4)
    clip: Any = CLIPVisionModel.from_pretrained(converted / "image_encoder")
    seen = clip(reference["clip_in"].float(), output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(seen, reference["clip_out"], rtol=1e-4, atol=1e-4)


def test_the_transformer_is_the_one_that_diffusers_makes_of_the_file(converted: Path) -> None:
    expected = convert_wan_transformer_to_diffusers(a_transformer(1, image=True, sees=True))
    found = WanTransformer3DModel.from_pretrained(converted / "transformer").state_dict()
    assert found.keys() == expected.keys()
    for name, x in found.items():
        torch.testing.assert_close(x, expected[name], rtol=0, atol=0)


def test_a_converted_folder_is_loaded_as_its_family(
    reference: Tensors, converted: Path, tmp_path: Path
) -> None:
    assert (load_tiny(converted).info.family, load_tiny(converted).info.tasks) == ("wan2.1", ["i2v"])
    experts = {name: a_transformer(seed, image=False, sees=False)
               for seed, name in enumerate(("high_noise_model", "low_noise_model"))}
    assert main([str(save_original(tmp_path / "A14B", reference, experts)), str(tmp_path / "out")]) == 0
    deployed = load_tiny(tmp_path / "out")
    model: Any = deployed.model
    assert (deployed.info.family, model.boundary, model.flow_shift) == ("wan2.2-a14b", 875.0, 12.0)


class Payload:
    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> Any:
        return Path.touch, (self._proof,)


def test_a_folder_with_a_file_that_cannot_be_used_is_refused_and_nothing_is_written(
    reference: Tensors, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = save_original(tmp_path / "wan", reference, {".": a_transformer(1, image=False, sees=False)})
    proof = tmp_path / "proof"

    def spoilt(name: str, data: Any, told: str) -> None:
        path = source / name
        whole = path.read_bytes()
        path.write_bytes(data) if isinstance(data, bytes) else torch.save(data, path)
        assert main([str(source), str(tmp_path / "out")]) == 1
        said = capfd.readouterr().err
        assert re.search(told, said), said
        path.write_bytes(whole)

    t5, vae = part_of(reference, "t5"), part_of(reference, "vae")
    shard = "diffusion_pytorch_model-00002-of-00002.safetensors"
    spoilt(T5, {**t5, "norm.weight": Payload(proof)}, f"{T5}: it holds pickled code, which is never run")
    spoilt(T5, {name: x for name, x in t5.items() if name != "blocks.1.attn.q.weight"}, "lacks blocks.1.attn.q.weight")
    spoilt(VAE, {**vae, "decoder.extra": torch.zeros(1)}, r"VAE\.pth: it holds 1 weights .* decoder\.extra")
    spoilt(VAE, {**vae, "encoder.conv1.weight": torch.zeros(8, 12, 3, 3, 3)}, "Wan2.2's VAE of TI2V-5B")
    spoilt(shard, (source / shard).read_bytes()[:-100], "00002-of-00002.safetensors: it is damaged or truncated")
    (source / VAE).unlink()
    assert main([str(source), str(tmp_path / "out")]) == 1
    assert "lacks Wan2.*_VAE.pth" in capfd.readouterr().err
    assert not proof.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wan"]
