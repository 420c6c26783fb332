"""What a language role takes of a vision service, what it tries again, and what it refuses by name."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from contracts.refusal import Refusal
from tests.unit.vl_service.qwen.roles import CAT, TASKS, Parts, save_sharded, say, served, settings, soon
from vl_service.backend import Backend, CheckpointError, Deadline, DeadlineExceededError, FeatureBackend
from vl_service.images import DecodedImage
from vl_service.qwen.backend import load_qwen
from vl_service.qwen.vision.features import Expected, Features, FeaturesRefusedError, read_features, write_features
from vl_service.qwen.vision.looking import VisionBackend, load_vision
from vl_service.qwen.vision.remote import VisionMismatchError, VisionUnavailableError
from vl_service.settings import Settings
from vl_service.worker.program import explain, load_backend


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = save_sharded("qwen3_vl", tmp_path_factory.mktemp("qwen3_vl"))
    vision = load_vision(settings(folder, role="vision"))
    with served(vision) as there:
        yield Parts(folder=folder, whole=load_qwen(settings(folder)), vision=vision, served=there)


@pytest.mark.parametrize(("change", "named"), [
    ({"revision": "folder-0"}, "revision folder-0, not"), ({"processor": "0"}, "processor 0, not .*VL_IMAGE_TOKENS"),
    ({"embeddings": torch.zeros(6, 32, dtype=torch.float16)}, r"dtype torch.float16, not torch.float32: set VL_DTYPE"),
    ({"embeddings": torch.zeros(6, 31)}, r"embeddings \[6, 31\]"), ({"embeddings": torch.zeros(5, 32)}, r"\[5, 32\]"),
    ({"deepstack": ()}, "deepstack levels 0, not 1"), ({"deepstack": (torch.zeros(6, 8),)}, r"deepstack.0 \[6, 8\]"),
    ({"grid_thw": torch.tensor([[1, 4, 8]])}, r"not \[8, 32\]"),
    ({"grid_thw": torch.tensor([[1, 4, 6], [1, 4, 6]])}, "not the grid of one picture"),
    ({"grid_thw": torch.tensor([[0, 4, 6]])}, "not the grid of one picture"),
])
def test_features_of_another_kind_are_refused_by_name(three: Parts, change: dict[str, Any], named: str) -> None:
    expected: Expected = three.language()._vision._expected  # pyright: ignore[reportAttributeAccessIssue]
    good = Features(embeddings=torch.zeros(6, 32), grid_thw=torch.tensor([[1, 4, 6]]),
                    deepstack=(torch.zeros(6, 32),), revision=expected.revision, processor=expected.processor)
    assert read_features(write_features(good), expected).num_tokens == 6
    body = write_features(replace(good, **change))
    with pytest.raises(FeaturesRefusedError, match=named):
        read_features(body, expected)
    three.served.answers.append((200, body))
    with pytest.raises(VisionMismatchError, match=named) as refused:
        three.language().describe(CAT, TASKS, soon())
    assert (explain(refused.value).status, explain(refused.value).code) == (503, "vision_mismatch")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff" * 40, b"\x02" + bytes(7) + b"{}"])
def test_what_are_no_features_is_refused(three: Parts, body: bytes) -> None:
    three.served.answers.append((200, body))
    with pytest.raises(VisionMismatchError, match="no features"):
        three.language().describe(CAT, TASKS, soon())


def problem(status: int, code: str) -> tuple[int, bytes]:
    return status, json.dumps({"status": status, "code": code, "title": "T", "detail": "Why."}).encode()


def test_what_passes_is_tried_again(three: Parts) -> None:
    three.served.answers += [problem(503, "model_loading"), problem(429, "queue_full"), (502, b"<html>")]
    assert say(three.language()) == say(three.whole)
    assert not three.served.answers


@pytest.mark.parametrize(("answers", "kind", "status"), [
    ([problem(503, "unavailable")] * 4, VisionUnavailableError, 503), ([(500, b"")] * 4, VisionUnavailableError, 503),
    ([problem(401, "unauthorized")], VisionMismatchError, 503), ([problem(413, "image_too_large")], Refusal, 413),
])
def test_what_does_not_pass_is_told(
    three: Parts, answers: list[tuple[int, bytes]], kind: type[Refusal], status: int
) -> None:
    language = three.language()
    three.served.answers[:] = answers
    with pytest.raises(kind) as refused:
        language.describe(CAT, TASKS, soon())
    assert refused.value.status == status
    assert three.served.answers == []
    assert say(language) == say(three.whole), "and the next call is served"


def test_a_vision_service_that_hangs_costs_the_deadline_and_no_more(
    three: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(picture: DecodedImage, deadline: Deadline) -> tuple[bytes, str]:
        time.sleep(1.5)
        return b"", "miss"

    language = three.language()
    monkeypatch.setattr(VisionBackend, "features", lambda self, picture, deadline: slow(picture, deadline))
    began = time.monotonic()
    with pytest.raises((DeadlineExceededError, VisionUnavailableError)):
        language.describe(CAT, TASKS, soon(0.3))
    assert time.monotonic() - began < 1.4


def test_the_token_goes_with_every_question(three: Parts) -> None:
    three.language(internal_token="secret", feature_cache_bytes=0).describe(CAT, TASKS, soon())
    assert three.served.asked[-1] == "Bearer secret"


@pytest.mark.parametrize(("more", "words"), [
    ({"role": "language"}, "VL_VISION_URL"), ({"role": "language", "vision_url": "file:///x"}, "VL_VISION_URL|pattern"),
])
def test_a_role_that_lacks_something_is_refused_at_start(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(**more)


def test_the_embedded_checkpoint_has_no_roles() -> None:
    with pytest.raises(CheckpointError, match="VL_ROLE=vision is for a Qwen checkpoint"):
        load_backend(Settings(role="vision"))


def test_what_does_not_run_is_in_the_type(three: Parts) -> None:
    """A vision role says nothing, a language role gives no features on."""
    backends = (three.whole, three.vision, three.language())
    assert [isinstance(backend, FeatureBackend) for backend in backends] == [True, True, False]
    assert [isinstance(backend, Backend) for backend in backends] == [True, False, True]
