"""The qwen engine in its fast forms, forced here on a CPU, says what it says by transformers' `generate`."""

import logging
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from skimage.data import chelsea
from torch import nn

from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES, save_tiny_checkpoint
from tests.unit.vl_service.scenes import prompt_task
from vl_service.app import _details
from vl_service.backend import Deadline, DeadlineExceededError, Task
from vl_service.images import DecodedImage
from vl_service.qwen.backend import QwenBackend, load_qwen
from vl_service.qwen.checkpoint import Checkpoint, load_checkpoint
from vl_service.qwen.fast.decode import FastDecoder, Sampling
from vl_service.qwen.fast.writing import FastWriter, Generate, Writer
from vl_service.qwen.tower import tower_of
from vl_service.qwen.vision import TorchVision
from vl_service.settings import Settings

CAT = DecodedImage(rgb=Image.fromarray(chelsea()).resize((150, 100)), width=150, height=100)
GREEDY = Sampling(greedy=True)
CAPTION = prompt_task(kind="caption", max_new_tokens=12)
WORDS = prompt_task("a red balloon", max_new_tokens=12)
TASKS = [CAPTION, WORDS, prompt_task(kind="question", question="What is it?", max_new_tokens=12)]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    return Settings(model=str(folder), device="cpu", greedy=True, data_dir=folder)


@pytest.fixture(scope="module")
def plain(settings: Settings) -> QwenBackend:
    return load_qwen(settings)


@pytest.fixture(scope="module")
def fast(settings: Settings) -> QwenBackend:
    return load_qwen(settings, fast=True)


@pytest.fixture
def checkpoint(settings: Settings) -> Checkpoint:
    return load_checkpoint(settings)


def soon() -> Deadline:
    return Deadline(at=time.monotonic() + 60)


def say(engine: QwenBackend, picture: DecodedImage | None, *tasks: Task) -> list[str]:
    return [answer.text for answer in engine.describe(picture, tasks, soon()).answers]


def engine_of(checkpoint: Checkpoint, writer: Writer) -> QwenBackend:
    return QwenBackend(checkpoint, vision=TorchVision(tower_of(checkpoint, image_tokens=64)), writer=writer)


def both(checkpoint: Checkpoint, **size: int) -> tuple[QwenBackend, QwenBackend]:
    """By `generate` and fast, over one model."""
    by_generate = Generate(checkpoint, GREEDY)
    fast = FastWriter(checkpoint, GREEDY, by_generate, **{"max_length": 4096, **size})
    return engine_of(checkpoint, by_generate), engine_of(checkpoint, fast)


def test_tasks_of_a_call_are_rows_and_say_what_generate_says(
    plain: QwenBackend, fast: QwenBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    write = FastDecoder.write
    monkeypatch.setattr(FastDecoder, "write", lambda self, prompts, *args, **more: (
        rows.append(len(prompts)), write(self, prompts, *args, **more))[1])
    said = say(fast, CAT, *TASKS)
    assert said == say(plain, CAT, *TASKS)
    assert len(set(said)) == 3
    assert rows[0] == 3
    assert len(rows) <= 2  # those in another language are asked again, together
    assert say(fast, CAT, *TASKS[:1] * 6) == said[:1] * 6  # more than fit at once


def test_no_state_leaks_from_one_call_to_the_next(
    plain: QwenBackend, fast: QwenBackend, checkpoint: Checkpoint
) -> None:
    """The cache, and the positions of the last conversation that Qwen-VL keeps on the model."""
    with_picture, without = say(plain, CAT, *TASKS), say(plain, None, WORDS)
    by_generate, beside = both(checkpoint)
    for picture, tasks, expected in ((CAT, TASKS, with_picture), (None, [WORDS], without)) * 2:
        for engine in (fast, beside, by_generate):
            assert say(engine, picture, *tasks) == expected


@pytest.mark.parametrize(
    "rules", [{"repetition_penalty": 1.3}, {"eos_token_id": None}, {"eos_token_id": [*range(30, 70)]}])
def test_the_checkpoint_s_own_rules_hold(checkpoint: Checkpoint, rules: dict[str, Any]) -> None:
    checkpoint.model.generation_config.update(**rules)
    by_generate, fast = both(checkpoint)
    longer = [replace(CAPTION, max_new_tokens=40), WORDS]
    expected = say(by_generate, CAT, *longer)
    # `generate` tells the token that ended it, which a tokenizer leaves out of the text where it is a special one
    ends = tuple(checkpoint.tokenizer.decode([token]) for token in rules.get("eos_token_id") or ())
    assert say(fast, CAT, *longer) == [text[:-1] if ends and text.endswith(ends) else text for text in expected]
    assert not ends or any(text.endswith(ends) for text in expected)


def test_what_is_too_long_is_written_by_generate_and_logged(
    checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    by_generate, fast = both(checkpoint, max_length=900)
    tasks = [CAPTION, prompt_task(kind="question", question="why? " * 200, max_new_tokens=12), CAPTION]
    with caplog.at_level(logging.INFO, logger="vl_service.qwen.fast.writing"):
        assert say(fast, CAT, *tasks) == say(by_generate, CAT, *tasks)
    reasons = [getattr(record, "reason", "") for record in caplog.records]
    assert reasons
    assert all(reason.endswith("are more than the fast cache's 900") for reason in reasons)


def test_sampling_repeats_with_the_seed_and_changes_with_it(folder: Path) -> None:
    engine = load_qwen(Settings(model=str(folder), device="cpu", data_dir=folder), fast=True)
    before = torch.random.get_rng_state()
    said = [say(engine, CAT, replace(CAPTION, seed=seed)) for seed in range(4)]
    assert said == [say(engine, CAT, replace(CAPTION, seed=seed)) for seed in range(4)]
    assert len({words for words, in said}) > 1
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_cancel_stops_between_chunks(checkpoint: Checkpoint) -> None:
    checkpoint.model.generation_config.eos_token_id = None
    fast, looks = both(checkpoint)[1], count()
    late = Deadline(at=time.monotonic() + 60, is_canceled=lambda: next(looks) == 5)
    with pytest.raises(DeadlineExceededError):
        fast.describe(CAT, [replace(CAPTION, max_new_tokens=1024)], late)
    assert next(looks) == 6
    with pytest.raises(DeadlineExceededError):
        fast.describe(CAT, TASKS, Deadline(at=time.monotonic() - 1))


def test_the_form_is_said(plain: QwenBackend, fast: QwenBackend) -> None:
    assert plain.info.engine_reason == ""
    assert _details(fast.info)["engine_reason"] == "a token as a CUDA graph, up to 4 tasks at once"
    windowed = type(fast._checkpoint.model.model.visual).__name__.startswith("Qwen2_5")
    form = "windows of a size at once" if windowed else "plain: the tower has no windows"
    assert fast.info.vision_engine_reason == f"{plain.info.vision_engine_reason}; {form}"


def _set_min_p(model: Any) -> None:
    model.generation_config.min_p = 0.1


def _be_another_family(model: Any) -> None:
    model.config.model_type = "qwen3_vl_moe"


def _have_a_packed_layer(model: Any) -> None:
    model.model.language_model.layers[0].mlp.up_proj = type("Packed", (nn.Linear,), {})(32, 64, bias=False)


@pytest.mark.parametrize(("change", "reason"), [
    (_set_min_p, "its generation config sets min_p"), (_be_another_family, "no fast form of qwen3_vl_moe"),
    (_have_a_packed_layer, "its linear layers are not plain"),
])
def test_what_it_does_not_cover_stays_generate_s_with_the_reason(
    checkpoint: Checkpoint, change: Any, reason: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(checkpoint.model)
    monkeypatch.setattr("vl_service.qwen.backend.load_checkpoint", lambda _: checkpoint)
    assert load_qwen(settings, fast=True).info.engine_reason == f"plain: {reason}"


def test_a_form_that_does_not_run_here_leaves_the_plain_one(
    plain: QwenBackend, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: str) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(FastWriter, "try_out", lambda _: fail("Failed to find C compiler"))
    engine = load_qwen(settings, fast=True)
    assert engine.info.engine_reason == "plain: RuntimeError: Failed to find C compiler"
    assert say(engine, CAT, *TASKS) == say(plain, CAT, *TASKS)
    monkeypatch.setattr(FastWriter, "try_out", lambda _: fail("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal"):
        load_qwen(settings, fast=True)
