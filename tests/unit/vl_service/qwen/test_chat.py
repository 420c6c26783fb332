"""Dialogues with tiny random checkpoints of the three classes, against transformers' own direct use."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil

from contracts.chat import ChatOptions, ImagePart, TextPart, Turn
from tests.support.photographs import photograph
from tests.unit.vl_service.qwen.test_backend import CLASSES
from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES, save_tiny_checkpoint
from vl_service.backend import CannotReplyError, Deadline, DeadlineExceededError, Piece
from vl_service.images import DecodedImage
from vl_service.prompts.asking import dialogue
from vl_service.qwen.backend import QwenBackend, load_qwen
from vl_service.settings import Settings


def picture(pixels: Image.Image, size: tuple[int, int]) -> DecodedImage:
    return DecodedImage(rgb=pixels.resize(size), width=size[0], height=size[1])


CAT, CUP = picture(photograph("chelsea"), (150, 100)), picture(photograph("coffee"), (90, 120))
OPTIONS = ChatOptions(max_new_tokens=12)


def user(text: str, *, pictures: int = 0) -> Turn:
    return Turn(role="user", content=(*[ImagePart()] * pictures, TextPart(text=text)))


def assistant(text: str) -> Turn:
    return Turn(role="assistant", content=(TextPart(text=text),))


DIALOGUES: list[tuple[list[Turn], list[DecodedImage]]] = [
    ([user("What is it?", pictures=1)], [CAT]),
    ([user("Hello.")], []),
    ([user("And these?", pictures=2), assistant("Two."), user("Which is larger?")], [CUP, CAT]),
    ([user("What?", pictures=1), assistant("A cat."), user("And this?", pictures=1)], [CAT, CUP]),
    ([Turn(role="system", content=(TextPart(text="Be brief."),)), user("慢一点，黄昏。", pictures=1)], [CUP]),
]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def plain(folder: Path) -> QwenBackend:
    return load_qwen(Settings(model=str(folder), device="cpu", greedy=True, data_dir=folder), fast=False)


@pytest.fixture(scope="module")
def fast(folder: Path) -> QwenBackend:
    return load_qwen(Settings(model=str(folder), device="cpu", greedy=True, data_dir=folder), fast=True)


def soon() -> Deadline:
    return Deadline(at=time.monotonic() + 60)


def reply(
    engine: QwenBackend, turns: list[Turn], images: list[DecodedImage], options: ChatOptions = OPTIONS
) -> list[Piece]:
    return list(engine.chat(turns, images, options, soon()))


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def direct(folder: Path, turns: list[Turn], images: list[DecodedImage]) -> str:
    """A new model, pixels of all pictures into `generate`, the prompt expanded as text."""
    model = CLASSES[folder.name.rstrip("0123456789")].from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(dialogue(turns, OPTIONS), tokenize=False, add_generation_prompt=True)
    inputs: dict[str, Any] = {}
    if images:
        processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        inputs = dict(processor(images=[image.rgb for image in images], return_tensors="pt"))
        first, *others = prompt.split("<|image_pad|>")
        for grid, rest in zip(inputs["image_grid_thw"], others, strict=True):
            first += "<|image_pad|>" * (int(grid.prod()) // 4) + rest
        prompt = first
    inputs |= dict(tokenizer(prompt, return_tensors="pt"))
    inputs.pop("token_type_ids", None)
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=OPTIONS.max_new_tokens, do_sample=False)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)


def test_interleaved_dialogues_say_what_transformers_says_to_each_alone(
    folder: Path, plain: QwenBackend, fast: QwenBackend
) -> None:
    """Qwen-VL keeps positions of the last conversation on the model; each call reads its own from the beginning."""
    expected = [direct(folder, *one) for one in DIALOGUES]
    assert len(set(expected)) == len(expected)
    for engine in (plain, fast):
        said = [text(reply(engine, *one)) for one in [*DIALOGUES, *reversed(DIALOGUES)]]
        assert said == [*expected, *reversed(expected)]


def test_a_reply_comes_in_pieces_with_its_counts(plain: QwenBackend) -> None:
    pieces = reply(plain, *DIALOGUES[2], ChatOptions(max_new_tokens=6))
    assert len(pieces) > 2
    assert [piece.finish for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert (pieces[-1].finish, pieces[-1].completion_tokens) == ("length", 6)
    vision = sum(plain._vision.features_of(image).num_tokens for image in DIALOGUES[2][1])
    words = reply(plain, *DIALOGUES[1])[-1].prompt_tokens
    assert pieces[-1].prompt_tokens > vision + words


def test_a_reply_that_is_closed_early_stops_writing(plain: QwenBackend) -> None:
    """And the next one is what it would have been."""
    alone = text(reply(plain, *DIALOGUES[0]))
    long = plain.chat(*DIALOGUES[2], ChatOptions(max_new_tokens=2000), soon())
    next(long)
    started = time.monotonic()
    long.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 1
    assert text(reply(plain, *DIALOGUES[0])) == alone


def test_a_canceled_reply_stops_between_tokens(plain: QwenBackend, fast: QwenBackend) -> None:
    for engine in (plain, fast):
        said: list[Piece] = []
        deadline = Deadline(at=time.monotonic() + 60, is_canceled=lambda: len(said) > 2)  # noqa: B023
        with pytest.raises(DeadlineExceededError):
            said.extend(engine.chat(*DIALOGUES[0], ChatOptions(max_new_tokens=2000), deadline))
        assert len(said) < 10


def test_seed_temperature_and_top_p_are_the_call_s(folder: Path) -> None:
    engine = load_qwen(Settings(model=str(folder), device="cpu", data_dir=folder))
    greedy = text(reply(engine, *DIALOGUES[0], OPTIONS.model_copy(update={"temperature": 0.0})))
    said = {}
    for seed in (1, 2, 3):
        options = OPTIONS.model_copy(update={"seed": seed, "temperature": 1.5, "top_p": 1.0})
        said[seed] = text(reply(engine, *DIALOGUES[0], options))
        assert said[seed] == text(reply(engine, *DIALOGUES[0], options))
    assert len({greedy, *said.values()}) > 2
    assert greedy == direct(folder, *DIALOGUES[0])


def test_a_dialogue_longer_than_the_model_reads_is_refused_in_words(plain: QwenBackend) -> None:
    with pytest.raises(CannotReplyError, match=r"4096 at most: begin a new dialogue"):
        reply(plain, [user("word " * 900)], [])


SCHEMA: dict[str, Any] = {
    "type": "object", "additionalProperties": False, "required": ["subject", "moods", "frames"],
    "properties": {
        "subject": {"type": "string", "maxLength": 12}, "frames": {"type": "integer", "minimum": 1, "maximum": 99},
        "moods": {"type": "array", "items": {"enum": ["calm", "wild"]}, "minItems": 1, "maxItems": 2}}}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_a_reply_is_json_of_the_schema_beside_replies_that_are_not(
    plain: QwenBackend, fast: QwenBackend, temperature: float
) -> None:
    """Random weights would never write it by themselves."""
    held = ChatOptions(max_new_tokens=200, json_schema=SCHEMA, temperature=temperature, seed=3)
    for engine in (plain, fast):
        alone = text(reply(engine, *DIALOGUES[1]))
        with ThreadPoolExecutor(3) as pool:
            said = list(pool.map(lambda options, engine=engine: reply(engine, *DIALOGUES[1], options),
                                 (held, OPTIONS, held)))
        assert text(said[1]) == alone
        for pieces in (said[0], said[2]):
            found = json.loads(text(pieces))
            assert set(found) == {"subject", "moods", "frames"}
            assert set(found["moods"]) <= {"calm", "wild"}
            assert 1 <= found["frames"] <= 99
            assert pieces[-1].finish == "stop"


def test_any_object_is_json_and_what_is_no_schema_is_refused(fast: QwenBackend) -> None:
    pieces = reply(fast, *DIALOGUES[0], ChatOptions(max_new_tokens=30, json_schema={"type": "object"}))
    assert text(pieces).startswith("{")
    for broken in ({"type": "nonsense"}, {"$ref": "#/nowhere"}, {"properties": 5}):
        with pytest.raises(CannotReplyError, match="schema"):
            reply(fast, *DIALOGUES[0], ChatOptions(json_schema=broken))
