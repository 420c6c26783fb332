"""The vision and the language role: parts of one checkpoint that say together what the whole says."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from skimage.data import chelsea
from transformers import AutoModelForImageTextToText

from contracts.refusal import Refusal
from tests.unit.vl_service.qwen.built_tower import FIRST, Build
from tests.unit.vl_service.qwen.tiny_qwen import FAMILIES, save_tiny_checkpoint
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import Backend, CheckpointError, Deadline, DeadlineExceededError, FeatureBackend
from vl_service.images import DecodedImage
from vl_service.qwen.backend import QwenBackend, load_qwen
from vl_service.qwen.checkpoint import UnsupportedCheckpointError
from vl_service.qwen.vision.features import Expected, Features, FeaturesRefusedError, read_features, write_features
from vl_service.qwen.vision.looking import VisionBackend, load_vision
from vl_service.qwen.vision.remote import VisionMismatchError, VisionUnavailableError
from vl_service.qwen.vision.wire import CACHE_HEADER, FORMATS
from vl_service.settings import Settings
from vl_service.worker.program import explain, load_backend

CAT = DecodedImage(rgb=Image.fromarray(chelsea()).resize((150, 100)), width=150, height=100)
TASKS = [prompt_task(kind="caption", max_new_tokens=12),
         prompt_task(kind="question", question="What is it?", max_new_tokens=12)]


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(model=str(folder), device="cpu", greedy=True, **{"data_dir": folder, **more})


def soon(seconds: float = 60) -> Deadline:
    return Deadline(at=time.monotonic() + seconds)


def say(engine: QwenBackend, picture: DecodedImage | None = CAT) -> list[str]:
    tasks = TASKS if picture is not None else [prompt_task("a red balloon", max_new_tokens=12)]
    return [answer.text for answer in engine.describe(picture, tasks, soon()).answers]


def save_sharded(family: str, folder: Path) -> Path:
    """Of several files: some with the tower's weights, some with the language model's alone."""
    save_tiny_checkpoint(family, folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    return folder


def shards(folder: Path, *, with_tower: bool) -> list[Path]:
    places: dict[str, str] = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    of_tower = {file for key, file in places.items() if key.startswith(("visual.", "model.visual."))}
    return [folder / file for file in sorted(set(places.values())) if (file in of_tower) == with_tower]


@dataclass
class Served:
    """A vision backend behind a socket; `answers` are given before it is asked: status, then what the body is."""

    url: str
    asked: list[str]
    answers: list[tuple[int, bytes]]


@contextmanager
def served(vision: VisionBackend) -> Iterator[Served]:
    told = Served(url="", asked=[], answers=[])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            told.asked.append(self.headers.get("Authorization", ""))
            cache = "miss"
            if told.answers:
                status, body = told.answers.pop(0)
            else:
                status = 200
                body, cache = vision.features(DecodedImage.of(sent, FORMATS), soon())
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header(CACHE_HEADER, cache)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One checkpoint whole and in its two roles."""

    folder: Path
    whole: QwenBackend
    vision: VisionBackend
    served: Served

    def language(self, *, fast: bool | None = None, **more: Any) -> QwenBackend:
        return load_qwen(settings(self.folder, role="language", vision_url=self.served.url, **more), fast=fast)


@pytest.fixture(scope="module", params=[*FAMILIES, "qwen3_5"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    folder = save_sharded(request.param, tmp_path_factory.mktemp(request.param))
    vision = load_vision(settings(folder, role="vision"))
    with served(vision) as there:
        yield Parts(folder=folder, whole=load_qwen(settings(folder)), vision=vision, served=there)


def test_the_language_role_says_what_the_whole_model_says(parts: Parts) -> None:
    language = parts.language()
    assert not hasattr(language._checkpoint.model.model, "visual")
    assert say(language) == say(parts.whole)
    assert say(language, None) == say(parts.whole, None)
    assert say(parts.language(feature_cache_bytes=0), CAT) == say(parts.whole)


def test_the_fast_writer_reads_features_from_elsewhere(parts: Parts) -> None:
    assert say(parts.language(fast=True)) == say(parts.whole)


def test_an_engine_sees_for_a_language_role_and_behind_the_cache(build_tower: Build) -> None:
    built = build_tower(FIRST)
    on_engine = {"data_dir": built.data, "threads": 1}
    vision = load_vision(settings(built.folder, role="vision", engine="onnx", **on_engine))
    assert vision.info.vision_engine == "onnx-cpu"
    whole = load_qwen(settings(built.folder, engine="torch", **on_engine))
    with served(vision) as there:
        language = load_qwen(settings(built.folder, role="language", vision_url=there.url))
        answers = [language.describe(CAT, TASKS, soon()) for _ in range(2)]
    assert [answer.cache for answer in answers] == ["miss", "memory"]
    assert [said.text for said in answers[1].answers] == say(whole)


def test_features_over_the_wire_are_those_of_the_whole_model_bit_for_bit(parts: Parts) -> None:
    for size in ((150, 100), (640, 480), (300, 40)):
        picture = DecodedImage(rgb=CAT.rgb.resize(size), width=size[0], height=size[1])
        here, there = (engine._vision.features_of(picture) for engine in (parts.whole, parts.language()))
        assert torch.equal(here.embeddings, there.embeddings)
        assert torch.equal(here.grid_thw, there.grid_thw)
        assert len(here.deepstack) == len(there.deepstack) == ("qwen3_vl" in parts.folder.name)
        assert all(map(torch.equal, here.deepstack, there.deepstack))
        assert (here.revision, here.processor) == (there.revision, there.processor)


def test_the_vision_role_reads_the_tower_s_weights_and_opens_no_other_file(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even where the language model's are no weights, or not there at all."""
    opened: list[str] = []
    monkeypatch.setattr(
        "vl_service.qwen.vision.tower.safe_open",
        lambda path, **more: (opened.append(Path(path).name), safe_open(path, **more))[1])
    folder = tmp_path / parts.folder.name
    folder.mkdir()
    others = shards(parts.folder, with_tower=False)
    assert others
    for file in parts.folder.iterdir():
        if file in others:
            (folder / file.name).mkdir()  # to open one is an error
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    vision = load_vision(settings(folder, role="vision"))
    assert opened == [path.name for path in shards(parts.folder, with_tower=True)]
    found, expected = (part._vision.features_of(CAT) for part in (vision, parts.whole))
    assert torch.equal(found.embeddings, expected.embeddings)
    assert found.revision == expected.revision


def test_a_tower_that_lacks_a_weight_is_refused_by_name(parts: Parts, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    for file in parts.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    first = shards(folder, with_tower=True)[0]
    from safetensors.torch import load_file, save_file

    weights = load_file(first)
    name = next(key for key in weights if "visual." in key)
    save_file({key: value for key, value in weights.items() if key != name}, first, {"format": "pt"})
    with pytest.raises(UnsupportedCheckpointError, match=name.partition("visual.")[2]):
        load_vision(settings(folder, role="vision"))


def test_the_language_role_reads_no_weight_of_the_tower(parts: Parts) -> None:
    whole, language = parts.whole._checkpoint.model, parts.language()._checkpoint.model
    expected = {name: value for name, value in whole.named_parameters() if ".visual." not in name}
    found = dict(language.named_parameters())
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_an_equal_picture_is_looked_at_once_and_a_hit_says_so(parts: Parts) -> None:
    language = parts.language(data_dir=parts.folder)
    other = DecodedImage(rgb=CAT.rgb.rotate(90, expand=True), width=100, height=150)
    parts.vision._vision._cache._kept.drop_to(0)  # pyright: ignore[reportAttributeAccessIssue]
    before = len(parts.served.asked)
    found = [language.describe(picture, TASKS, soon()).cache for picture in (CAT, CAT, other, CAT)]
    assert found == ["miss", "memory", "miss", "memory"]
    assert len(parts.served.asked) == before + 2
    assert language.describe(None, [prompt_task("a red balloon", max_new_tokens=2)], soon()).cache is None


def test_the_second_level_serves_the_next_process(parts: Parts, tmp_path: Path) -> None:
    kept = {"feature_cache_dir": tmp_path / "kept"}
    first, second = load_qwen(settings(parts.folder, **kept)), load_qwen(settings(parts.folder, **kept))
    answers = [engine.describe(CAT, TASKS, soon()) for engine in (first, second, second)]
    assert [answer.cache for answer in answers] == ["miss", "disk", "memory"]
    assert answers[0].answers == answers[1].answers == answers[2].answers
    smaller = load_qwen(settings(parts.folder, image_tokens=16, **kept))
    assert smaller.describe(CAT, TASKS, soon()).cache == "miss", "made with other limits"


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
