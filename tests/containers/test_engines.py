"""Laws of the deploy path of engines: the image that serves builds them into a volume, and then serves them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.containers.engine import Engine, find_engine, free_ports

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]

CLIP = "64x64x9"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints that the image's user may read."""
    folder = tmp_path_factory.mktemp("models")
    save_tiny_wan(folder / "tiny")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture(scope="module")
def engine(models: Path) -> Iterator[Engine]:
    """The engine, its environment as an `.env` would be, and the video image for TensorRT-RTX (and ONNX Runtime)."""
    (port,) = free_ports(1)
    found = find_engine({
        "GATEWAY_PORT": str(port), "STILLMOTION_INTERNAL_TOKEN": "a-token-for-the-tests", "MODELS_FOLDER": str(models),
        "VIDEO_MODEL": "/models/own/tiny", "ENGINE_TARGET": "onnx", "ENGINE_CLIPS": CLIP, "VIDEO_ENGINE": "onnx",
        "COMPOSE_PROFILES": "engines", "COMPOSE_FILE": "docker-compose.yml:deploy/compose.engines.yml",
    })
    if found is None:
        pytest.skip("neither a Docker daemon nor podman with podman-compose is on this machine")
    found.build("video", "--build-arg", "ENGINE_TARGET=tensorrt-rtx")
    yield found
    found.compose_run("down", "-v")


def build_engines(engine: Engine, *arguments: str) -> str:
    return engine.compose_run("run", "--rm", "build_engines", *arguments, limit_s=900)


def test_the_builder_fills_the_volume_and_a_second_start_finds_everything_there(engine: Engine) -> None:
    first = build_engines(engine)
    assert first.count("verified relative L2") == 5, first
    second = build_engines(engine)
    assert "all 5 engines were already built" in second
    assert "verified relative" not in second


def test_the_service_renders_on_what_the_builder_left(engine: Engine) -> None:
    engine.compose_run("up", "-d", "--no-build", "video_service")
    container = engine.container("video_service")
    told = ask(engine, container, "GET", "/v1/models", until="data")
    assert (told["data"][0]["engine"], told["data"][0]["clips"]) == ("onnx-cpu", [CLIP])
    body = {"prompt": "zoom", "width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": 1}
    assert ask(engine, container, "PUT", "/v1/videos/b", body | {"num_frames": 5})["status"] == 422
    ask(engine, container, "PUT", "/v1/videos/a", body)
    rendered = ask(engine, container, "GET", "/v1/videos/a", until="result")
    assert rendered["result"]["engine"] == "onnx-cpu"
    assert rendered["result"]["engine_reason"].startswith(f"forced: {CLIP} onnx fp32")


def test_the_same_image_builds_for_rtx_gpus_without_one(engine: Engine) -> None:
    told = build_engines(
        engine, "python", "-m", "video_service.engines", "build", "--target=tensorrt-rtx", f"--clips={CLIP}",
        "--sm=89,120", "--precision=fp16",
    )
    assert told.count("SM89: built in") == told.count("SM120: built in") == 5, told
    assert told.count("not verified") == 10


def ask(
    engine: Engine, container: str, method: str, path: str, body: dict | None = None, *, until: str = ""
) -> dict:
    """The service's answer, asked from inside its container, where its port is; with `until`, once that is set."""
    program = (
        "import http.client as h, sys, os; c = h.HTTPConnection('127.0.0.1', 8002, timeout=60); "
        "t = os.environ['STILLMOTION_INTERNAL_TOKEN']; b = sys.argv[3].encode() or None; "
        "c.request(sys.argv[1], sys.argv[2], b, {'Authorization': 'Bearer ' + t, 'Content-Type': 'application/json'}); "
        "print(c.getresponse().read().decode())"
    )
    body_text = json.dumps(body) if body else ""
    deadline = time.monotonic() + 300
    while True:
        try:
            text = engine.run("exec", container, "python", "-c", program, method, path, body_text)
        except AssertionError as error:
            text = json.dumps({"detail": str(error)[-300:]})
            if "ConnectionRefusedError" not in text:
                raise
        found = json.loads(text)
        if found.get(until) if until else "ConnectionRefusedError" not in text:
            return found
        assert time.monotonic() < deadline, text
        time.sleep(1)
