"""The vision and the language role as they are deployed: two services that meet over HTTP and a token."""

import base64
import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageOps
from safetensors.torch import load

from contracts.describe import DescribeRequest, DescribeTask
from tests.support.photographs import photograph
from tests.support.processes import free_port
from tests.unit.vl_service.http.test_process import running, wait_until
from tests.unit.vl_service.qwen.test_roles import save_sharded
from vl_service.backend import Deadline
from vl_service.http.describe import resolve_tasks
from vl_service.images import DecodedImage
from vl_service.qwen.backend import load_qwen
from vl_service.settings import Settings
from vl_service.worker.describe import answer

TOKEN = {"Authorization": "Bearer secret"}


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


CAT, WOMAN = png(photograph("chelsea")), png(photograph("astronaut"))


@dataclass
class Two:
    """The addresses of both."""

    folder: Path
    language: str
    port: int

    def vision(self) -> Any:
        return running({**environment(self.folder), "VL_ROLE": "vision"}, port=self.port)

    @property
    def vision_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def describe(self, picture: bytes = CAT, **more: Any) -> httpx.Response:
        body = {"image": base64.b64encode(picture).decode(), "tasks": [{"kind": "caption"}], "max_new_tokens": 8}
        return httpx.post(f"{self.language}/v1/describe", json={**body, **more}, headers=TOKEN, timeout=120)


def environment(folder: Path) -> dict[str, str]:
    return {"VL_MODEL": str(folder), "VL_DEVICE": "cpu", "VL_GREEDY": "true", "STILLMOTION_INTERNAL_TOKEN": "secret",
            "VL_QUEUE_LIMIT": "20", "STILLMOTION_DATA": str(folder)}


def counted(url: str) -> dict[str, float]:
    """How many pictures were found where."""
    lines = httpx.get(f"{url}/metrics", timeout=20).text.splitlines()
    series = [line for line in lines if line.startswith("stillmotion_features_total{")]
    return {line.partition('cache="')[2].partition('"')[0]: float(line.split()[-1]) for line in series}


@pytest.mark.slow
def test_two_processes_are_one_service_that_waits_for_its_eyes(tmp_path: Path) -> None:
    folder = save_sharded("qwen3_vl", tmp_path / "model")
    expected = said_by_the_whole(folder)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running({**environment(folder), "VL_ROLE": "language", "VL_VISION_URL": url}) as (_, language):
        two = Two(folder, language, port)
        away = wait_until(f"{language}/readyz", 503, saying="does not answer")
        assert url in away.text
        refused = two.describe()
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1

        with two.vision() as (process, _):
            wait_until(f"{language}/readyz", 200)
            one_look_for_ten(two, expected)
            features_go_to_holders_of_the_token_alone(two)
            assert two.describe(WOMAN).json()["cache"] == "miss"
            process.kill()
            process.wait(10)
            assert two.describe(CAT).json()["cache"] == "memory", "what was seen is still known"
            blind = two.describe(png(ImageOps.flip(photograph("chelsea"))))
            assert (blind.status_code, blind.json()["code"]) == (503, "unavailable")
            wait_until(f"{language}/readyz", 503)


def said_by_the_whole(folder: Path) -> list[Any]:
    request = DescribeRequest(image=CAT, tasks=[DescribeTask(kind="caption")], max_new_tokens=8)
    whole = load_qwen(Settings(model=str(folder), device="cpu", greedy=True, data_dir=folder))
    now = time.monotonic()
    said = answer(whole, DecodedImage.of(CAT), resolve_tasks(request), Deadline(at=now + 60), now)
    return said.model_dump(mode="json")["results"]


def one_look_for_ten(two: Two, expected: list[Any]) -> None:
    with ThreadPoolExecutor(10) as pool:
        answers = [call.result().json() for call in [pool.submit(two.describe) for _ in range(10)]]
    assert [found["results"] for found in answers] == [expected] * 10
    assert sorted(found["cache"] for found in answers) == ["memory"] * 9 + ["miss"]
    assert counted(two.vision_url) == {"miss": 1}
    assert counted(two.language) == {"memory": 9, "miss": 1}


def features_go_to_holders_of_the_token_alone(two: Two) -> None:
    def ask(url: str, **more: Any) -> httpx.Response:
        return httpx.post(f"{url}/v1/features", content=CAT, timeout=60, **more)

    assert ask(two.vision_url).status_code == 401
    given = ask(two.vision_url, headers=TOKEN)
    assert (given.status_code, given.headers["X-Feature-Cache"]) == (200, "memory")
    assert set(load(given.content)) == {"embeddings", "grid_thw", "deepstack.0"}
    bad = httpx.post(f"{two.vision_url}/v1/features", content=b"no picture", headers=TOKEN, timeout=60)
    assert (bad.status_code, bad.json()["code"]) == (422, "unreadable_image")
    assert ask(two.language, headers=TOKEN).json()["code"] == "wrong_role"
    wrong = Two(two.folder, two.vision_url, 0).describe()
    assert (wrong.status_code, wrong.json()["code"]) == (503, "wrong_role")
