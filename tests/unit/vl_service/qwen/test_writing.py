"""The qwen engine in its fast forms, forced here on a CPU, says what it says by transformers' `generate`."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.photographs import photograph
from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES, save_tiny_checkpoint
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import Deadline, DeadlineExceededError, Task
from vl_service.http.app import _details
from vl_service.images import DecodedImage
from vl_service.qwen.backend import QwenBackend, load_qwen
from vl_service.qwen.checkpoint import Checkpoint, load_checkpoint
from vl_service.qwen.fast.batch import Batch, repeated_end
from vl_service.qwen.fast.slots import Sampling, Slots
from vl_service.qwen.fast.writing import Ask, Generate, SlotWriter, Writer
from vl_service.qwen.vision.in_torch import TorchVision
from vl_service.qwen.vision.tower import tower_of
from vl_service.settings import Settings

CAT = DecodedImage(rgb=photograph("chelsea").resize((150, 100)), width=150, height=100)
CAT_TOKENS = 15  # and more, of every family
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
    return load_qwen(settings, fast=False)


@pytest.fixture(scope="module")
def fast(settings: Settings) -> QwenBackend:
    return load_qwen(settings, fast=True)


@pytest.fixture
def checkpoint(settings: Settings) -> Checkpoint:
    return load_checkpoint(settings)


def soon() -> Deadline:
    return Deadline(at=time.monotonic() + 60)


def picture_of(index: int) -> DecodedImage:
    return [CAT, DecodedImage(rgb=CAT.rgb.rotate(90, expand=True), width=100, height=150),
            DecodedImage(rgb=CAT.rgb.convert("L").convert("RGB"), width=150, height=100)][index]


def say(engine: QwenBackend, picture: DecodedImage | None, *tasks: Task) -> list[str]:
    return [answer.text for answer in engine.describe(picture, tasks, soon()).answers]


def engine_of(checkpoint: Checkpoint, writer: Writer) -> QwenBackend:
    return QwenBackend(checkpoint, vision=TorchVision(tower_of(checkpoint, image_tokens=64)), writer=writer)


def both(checkpoint: Checkpoint, **size: int) -> tuple[QwenBackend, QwenBackend]:
    """By `generate` and fast, over one model."""
    by_generate = Generate(checkpoint, GREEDY)
    sizes = {"length": 4096, "slots": 4} | size
    fast = SlotWriter(checkpoint, GREEDY, by_generate, length=sizes["length"], slots=sizes["slots"])
    return engine_of(checkpoint, by_generate), engine_of(checkpoint, fast)


def test_tasks_of_a_call_are_rows_and_say_what_generate_says(
    plain: QwenBackend, fast: QwenBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[list[tuple[int, int | None]]] = []
    join = Slots.join
    monkeypatch.setattr(Slots, "join", lambda self, rows: (
        joined.append([(row.start, row.donor) for row in rows]), join(self, rows)))
    said = say(fast, CAT, *TASKS)
    assert said == say(plain, CAT, *TASKS)
    assert len(set(said)) == 3
    (first, *others), = joined[:1]
    assert first[1] is None
    assert len(others) == 2
    assert all(start > CAT_TOKENS for start, _ in others)  # the system's words and the picture are read once
    assert len(joined) <= 2  # those in another language are asked again, together
    assert say(fast, CAT, *TASKS[:1] * 6) == said[:1] * 6  # more than fit at once


def test_calls_of_many_threads_say_what_each_says_alone(plain: QwenBackend, fast: QwenBackend) -> None:
    """Pictures, words and lengths of their own, joining and leaving at any step, more than there are slots."""
    calls: list[tuple[DecodedImage | None, list[Task]]] = [
        (picture_of(index % 3), [replace(task, max_new_tokens=4 + 7 * index % 23) for task in TASKS[: 1 + index % 3]])
        for index in range(9)
    ]
    calls.append((None, [WORDS]))
    expected = [say(plain, picture, *tasks) for picture, tasks in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        for _ in range(2):
            said = pool.map(lambda call: say(fast, call[0], *call[1]), calls)
            assert list(said) == expected


def test_callers_have_turns_so_that_many_tasks_keep_nobody_waiting_for_all_of_them(checkpoint: Checkpoint) -> None:
    engine, order = both(checkpoint, slots=1)[1], list[str]()
    writer = engine._writer
    assert isinstance(writer, SlotWriter)
    asks = {name: Ask(ids=range(20, 40), seed=0, max_new_tokens=12) for name in ("many 1", "many 2", "many 3", "one")}
    writing = {name: writer._begun(None, ask, GREEDY) for name, ask in asks.items()}
    for name, one in writing.items():
        take = one.take
        one.take = lambda tokens, name=name, take=take: take(tokens) and (order.append(name) or True)  # type: ignore
    with writer._batch._changed:
        writer._batch.submit([one for name, one in writing.items() if name != "one"])
        writer._batch.submit([writing["one"]])
    said = [[token for piece in one.pieces(soon()) for token in piece] for one in writing.values()]
    assert said == said[:1] * 4
    assert order == ["many 1", "one", "many 2", "many 3"]


@pytest.mark.parametrize(("tokens", "repeated"), [
    ([1, 2, 3, *[7, 8] * 13], 24), ([5] * 24, 23), ([5] * 23, 0), ([*range(40)] * 2, 0), ([*range(40)] * 3, 80),
    ([1, 2, 3] * 8 + [9], 0),
])
def test_a_text_that_only_repeats_itself_is_seen(tokens: list[int], repeated: int) -> None:
    assert repeated_end(tokens) == repeated


def test_repetition_ends_a_text_while_it_is_written(checkpoint: Checkpoint) -> None:
    checkpoint.model.generation_config.eos_token_id = None
    with torch.no_grad():
        checkpoint.model.lm_head.weight.zero_()  # one token for ever
    by_generate, fast = both(checkpoint)
    task = replace(CAPTION, max_new_tokens=500)
    assert len(say(by_generate, CAT, task)[0]) == 160  # a caption is no longer
    assert 0 < len(say(fast, CAT, task)[0]) <= 32


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
    by_generate, fast = both(checkpoint, length=900)
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


def test_a_call_that_nobody_waits_for_leaves_and_others_go_on(checkpoint: Checkpoint) -> None:
    checkpoint.model.generation_config.eos_token_id = None
    fast, canceled = both(checkpoint, slots=1)[1], Event()
    late = Deadline(at=time.monotonic() + 60, is_canceled=canceled.is_set)
    Timer(0.2, canceled.set).start()
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        fast.describe(CAT, [replace(CAPTION, max_new_tokens=1024)] * 8, late)
    assert say(fast, None, WORDS)  # the only slot is free
    assert time.monotonic() - began < 5
    with pytest.raises(DeadlineExceededError):
        fast.describe(CAT, TASKS, Deadline(at=time.monotonic() - 1))


def test_what_a_step_raises_costs_what_is_written_and_nothing_after(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = both(checkpoint)[1]
    expected, steps = say(fast, CAT, *TASKS), Slots.steps
    for name in ("steps", "join"):
        with monkeypatch.context() as broken:
            broken.setattr(Slots, name, lambda *_, **__: (_ for _ in ()).throw(RuntimeError("CUDA out of memory.")))
            with pytest.raises(RuntimeError, match="out of memory"):
                say(fast, CAT, *TASKS)
        assert say(fast, CAT, *TASKS) == expected
    assert Slots.steps is steps


def test_the_thread_ends_when_there_is_nothing_to_do(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl_service.qwen.fast.batch._IDLE_S", 0.1)
    fast = both(checkpoint)[1]
    expected = say(fast, CAT, *TASKS)
    batch: Batch = fast._writer._batch  # type: ignore[attr-defined]
    until = time.monotonic() + 10
    while batch._thread is not None and time.monotonic() < until:
        time.sleep(0.02)
    assert batch._thread is None
    assert say(fast, CAT, *TASKS) == expected


def test_the_form_is_said(plain: QwenBackend, fast: QwenBackend) -> None:
    assert plain.info.engine_reason == ""
    assert _details(fast.info)["engine_reason"] == "one step for up to 4 texts at once"
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

    monkeypatch.setattr(Slots, "warm_up", lambda _: fail("Failed to find C compiler"))
    engine = load_qwen(settings, fast=True)
    assert engine.info.engine_reason == "plain: RuntimeError: Failed to find C compiler"
    assert say(engine, CAT, *TASKS) == say(plain, CAT, *TASKS)
    monkeypatch.setattr(Slots, "warm_up", lambda _: fail("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal"):
        load_qwen(settings, fast=True)
