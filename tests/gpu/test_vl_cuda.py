"""The qwen engine on CUDA: the same words as on the CPU, in both dtypes that a user may ask for."""

import time
from pathlib import Path

import pytest
import torch

from tests.support.photographs import photograph
from tests.unit.vl_service.qwen.test_roles import say, served
from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES, save_tiny_checkpoint
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.backend import load_qwen
from vl_service.qwen.vision.looking import load_vision
from vl_service.settings import Settings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_on_cuda_says_what_the_cpu_says(family: str, tmp_path: Path) -> None:
    folder = save_tiny_checkpoint(family, tmp_path)
    picture = DecodedImage(rgb=photograph("chelsea"), width=451, height=300)
    task = prompt_task(kind="caption", max_new_tokens=12)
    texts = []
    for device in ("cpu", "cuda"):
        engine = load_qwen(Settings(model=str(folder), device=device, dtype="float32", greedy=True))
        assert engine.info.engine == f"transformers-{device}"
        texts.append(engine.describe(picture, [task], Deadline(at=time.monotonic() + 60)).answers[0].text)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_on_cuda_the_default_is_bfloat16_and_a_seed_repeats(family: str, tmp_path: Path) -> None:
    engine = load_qwen(Settings(model=str(save_tiny_checkpoint(family, tmp_path))))
    assert (engine.info.engine, engine.info.dtype) == ("transformers-cuda", "bfloat16")
    picture = DecodedImage(rgb=photograph("chelsea"), width=451, height=300)
    task = prompt_task(kind="caption", max_new_tokens=12, seed=5)
    said = [engine.describe(picture, [task], Deadline(at=time.monotonic() + 60)).answers[0].text for _ in range(2)]
    assert said[0] == said[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16_tasks_are_written_fast_and_the_setting_turns_it_off(family: str, tmp_path: Path) -> None:
    """Rounding may choose other words than `generate` does; what is alike is said alike, and no call leaks."""
    folder = save_tiny_checkpoint(family, tmp_path, width=128)  # heads of 64 channels, as the kernels need
    engine = load_qwen(Settings(model=str(folder), greedy=True))
    assert engine.info.engine_reason == "a CUDA graph a token for up to 16 texts at once"
    windowed = family == "qwen2_5_vl"
    assert engine.info.vision_engine_reason.endswith("windows of a size at once" if windowed else "has no windows")
    off = load_qwen(Settings(model=str(folder), greedy=True, fast_layers=False))
    assert off.info.engine_reason == ""
    picture = DecodedImage(rgb=photograph("chelsea"), width=451, height=300)
    tasks = [prompt_task(kind="caption", max_new_tokens=12), prompt_task("a red balloon", max_new_tokens=12)]

    def say(seen: DecodedImage | None) -> list[str]:
        deadline = Deadline(at=time.monotonic() + 60)
        return [answer.text for answer in engine.describe(seen, tasks if seen else tasks[1:], deadline).answers]

    first, without = say(picture), say(None)
    assert all(first)
    assert (say(picture), say(None)) == (first, without)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_float32_the_graphs_write_what_generate_does(family: str, tmp_path: Path) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    settings = Settings(model=str(save_tiny_checkpoint(family, tmp_path)), dtype="float32", greedy=True)
    picture = DecodedImage(rgb=photograph("chelsea"), width=451, height=300)
    tasks = [prompt_task(kind="caption", max_new_tokens=12), prompt_task("a red balloon", max_new_tokens=12)]
    texts = [
        [answer.text for answer in engine.describe(picture, tasks, Deadline(at=time.monotonic() + 60)).answers]
        for engine in (load_qwen(settings), load_qwen(settings, fast=True))
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_two_roles_on_cuda_say_what_the_whole_says(family: str, dtype: str, tmp_path: Path) -> None:
    """Features leave the device and come back; a cached answer is the first one's."""
    folder = save_tiny_checkpoint(family, tmp_path, width=64)
    both = {"model": str(folder), "device": "cuda", "dtype": dtype, "greedy": True, "data_dir": tmp_path}
    whole = load_qwen(Settings(**both))
    with served(load_vision(Settings(role="vision", **both))) as there:
        language = load_qwen(Settings(role="language", vision_url=there.url, **both))
        expected = say(whole)
        assert [say(language), say(language), say(whole)] == [expected] * 3
