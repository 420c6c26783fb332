"""What it renders, which model is in memory, and LoRAs by request, at the service's own door and behind the gateway."""

import base64
import hashlib
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import av
import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from contracts.videos import VideoRequest
from gateway.services.clients import multipart
from gateway.settings import GatewaySettings
from tests.support.video_process import VideoProcess
from tests.unit.gateway.conftest import open_client
from tests.unit.gateway.model_services import Services, running_services
from tests.wire.one_service.conftest import EXPERTS, WAN

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

BODY: dict[str, Any] = {"prompt": "zoom in", "width": 64, "height": 64, "num_frames": 5, "fps": 16, "seed": 1,
                        "steps": 2}
LONG = {"width": 128, "height": 128, "num_frames": 33, "steps": 50}
"""Some seconds of denoising, in short steps."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    service: VideoProcess, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    def start(vl: Services) -> GatewaySettings:
        return GatewaySettings.model_validate({
            "data_dir": tmp_path_factory.mktemp("gateway"), "vl_url_given": vl.vl_url, "min_free_bytes": 1,
            "video_url_given": f"http://127.0.0.1:{service.port}", "engine_poll_s": 0.2,
        })

    with running_services() as vl:
        async with open_client(start(vl)) as client:
            deadline = time.monotonic() + 60
            while (await client.get("/readyz")).status_code != 200:
                assert time.monotonic() < deadline
            yield client


def render(service: VideoProcess, name: str, **changes: Any) -> dict[str, Any]:
    """The result of a render."""
    answer = service.http.put(f"/v1/videos/{name}", json=BODY | changes)
    assert answer.status_code == 202, answer.text
    status = service.wait_ended(name)
    assert status["state"] == "completed", status["error"]
    return status["result"]


def states(service: VideoProcess) -> dict[str, str]:
    listed = service.http.get("/v1/models").json()
    return {model["id"]: model["state"] for model in listed["data"] + listed["absent"]}


def refused(service: VideoProcess, **changes: Any) -> dict[str, Any]:
    answer = service.http.put("/v1/videos/refused", json=BODY | changes)
    assert answer.status_code == 422, answer.text
    return answer.json()


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), "orange").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("image", [None, picture()], ids=["words", "picture"])
async def test_words_or_a_picture_become_the_video_that_the_result_describes(
    service: VideoProcess, image: bytes | None
) -> None:
    render_id = "words" if image is None else "picture"
    asked = VideoRequest.model_validate(BODY | {"image": image})
    assert service.http.put(f"/v1/videos/{render_id}", **multipart(asked)).status_code == 202
    status = service.wait_ended(render_id)
    result = status["result"]
    assert status["state"] == "completed", status["error"]
    content = service.http.get(f"/v1/videos/{render_id}/content").content
    assert (len(content), hashlib.sha256(content).hexdigest()) == (result["num_bytes"], result["sha256"])
    assert {"text", "denoise", "decode", "total"} <= result["timings"].keys()
    with av.open(io.BytesIO(content), mode="r") as container:
        frames = list(container.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [(64, 64)] * 5


async def test_a_running_render_stops_within_a_denoising_step(service: VideoProcess) -> None:
    worker = service.worker().pid
    service.http.put("/v1/videos/cancel", json=BODY | LONG)
    service.until(lambda: service.http.get("/v1/videos/cancel").json()["step"] >= 3)
    asked = service.http.delete("/v1/videos/cancel")
    assert (asked.status_code, asked.json()["state"]) == (202, "running")
    ended = service.wait_ended("cancel")
    assert ended["state"] == "canceled"
    assert ended["step"] <= asked.json()["step"] + 1  # the step under way may still end
    assert service.worker().pid == worker


async def test_a_render_that_asks_for_it_shows_a_picture_while_it_runs(service: VideoProcess) -> None:
    """More come where steps take their time: see `Allowance`."""
    service.http.put("/v1/videos/shown", json=BODY | LONG | {"preview": True})
    shown = service.until(lambda: service.http.get("/v1/videos/shown").json().get("preview"))
    with Image.open(io.BytesIO(base64.b64decode(shown))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 32))
    service.http.delete("/v1/videos/shown")
    assert "preview" not in service.wait_ended("shown")


async def test_models_take_turns_in_memory_and_each_renders_as_it_did_before(service: VideoProcess) -> None:
    found = states(service)
    assert found == found | {WAN: "loaded", EXPERTS: "loadable", "incomplete": "absent"}
    frames: dict[str, set[str]] = {}
    for turn, (model, left) in enumerate([(WAN, EXPERTS), (EXPERTS, WAN)] * 2):
        result = render(service, f"turn-{turn}", model=model)
        assert result["model"] == model
        assert ("load" in result["timings"]) == (turn > 0)
        found = states(service)
        assert (found[model], found[left]) == ("loaded", "loadable"), "there is room for one"
        frames.setdefault(model, set()).add(result["sha256"])
    assert [len(videos) for videos in frames.values()] == [1, 1]
    assert frames[WAN] != frames[EXPERTS]
    assert render(service, "default")["model"] == WAN


async def test_what_is_no_model_here_is_refused_with_what_is(service: VideoProcess) -> None:
    unknown = refused(service, model="sora")
    assert unknown["errors"][0]["field"] == "body.model"
    assert f"use one of: {WAN}, {EXPERTS}" in unknown["detail"]
    absent = refused(service, model="incomplete")
    assert "vae/config.json" in absent["detail"]
    assert WAN in absent["detail"]


async def test_a_model_that_cannot_be_loaded_costs_its_render_and_leaves_the_others_ready(
    service: VideoProcess
) -> None:
    worker = service.worker().pid
    if states(service)["damaged"] == "loadable":  # else it was asked for before
        service.http.put("/v1/videos/damaged", json=BODY | {"model": "damaged"})
        assert service.wait_ended("damaged")["error"]["code"] == "model_unavailable"
    assert states(service)["damaged"] == "absent"
    assert "weights of damaged" in refused(service, model="damaged")["detail"]
    assert service.http.get("/readyz").status_code == 200
    render(service, "after-damaged")
    assert service.worker().pid == worker


@pytest.mark.parametrize("model", [WAN, EXPERTS])
async def test_loras_change_their_render_alone(service: VideoProcess, model: str) -> None:
    name = f"lora-{model}"
    plain = render(service, f"{name}-before", model=model)
    one = render(service, f"{name}-one", model=model, loras=[{"id": "style", "scale": 0.7}])
    two = render(service, f"{name}-two", model=model, loras=[{"id": "style", "scale": 0.7}, {"id": "motion"}])
    after = render(service, f"{name}-after", model=model)
    again = render(service, f"{name}-again", model=model, loras=[{"id": "style", "scale": 0.7}])
    assert len({result["sha256"] for result in (plain, one, two)}) == 3
    assert after["sha256"] == plain["sha256"]
    assert again["sha256"] == one["sha256"]
    assert one["revision"].startswith(f"{plain['revision']}+lora-")
    assert one["revision"].endswith("@0.7")
    assert two["revision"].count("+lora-") == 2
    assert states(service)[model] == "loaded"


@pytest.mark.parametrize(("loras", "words"), [
    ([{"id": "nowhere"}], "no LoRA 'nowhere' here; there are: foreign, motion, style"),
    ([{"id": "style"}, {"id": "style"}], "Name style once"),
    ([{"id": "../wan"}], "pattern"),
    ([{"id": "style", "scale": 5}], "less than or equal to 4"),
    ([{"id": "style"}] * 9, "at most 8"),
])
async def test_loras_that_cannot_be_are_refused_at_both_doors(
    service: VideoProcess, gateway: httpx.AsyncClient, loras: list[dict[str, Any]], words: str
) -> None:
    assert words in json.dumps(refused(service, loras=loras))
    answer = await gateway.post("/generate", json={"prompt": "a kite", "loras": loras})
    assert answer.status_code == 422
    assert words in json.dumps(answer.json())


async def test_a_lora_that_does_not_fit_fails_its_render_and_is_refused_from_then_on(service: VideoProcess) -> None:
    body = BODY | {"loras": [{"id": "foreign"}]}
    if service.http.put("/v1/videos/foreign", json=body).status_code == 202:
        error = service.wait_ended("foreign")["error"]
        assert (error["code"], error["status"]) == ("lora_does_not_fit", 422)
        assert "The LoRA foreign cannot be used: blocks.9.attn1.to_q" in error["detail"]
    assert "The LoRA foreign cannot be used" in refused(service, loras=[{"id": "foreign"}])["detail"]


async def until(reached: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not await reached():
        assert time.monotonic() < deadline


async def test_the_gateway_lists_them_and_a_job_picks_one(service: VideoProcess, gateway: httpx.AsyncClient) -> None:
    async def told() -> bool:
        return (await gateway.get(f"/v1/models/{EXPERTS}")).json()["state"] == "loaded"

    form = {"prompt": "a kite", "model": EXPERTS, "size": "64x64", "num_frames": "5", "steps": "2", "seed": "1",
            "enhance": "never", "loras": json.dumps([{"id": "style", "scale": 0.7}])}
    job = (await gateway.post("/generate", data=form, headers={"Prefer": "wait=60"})).json()
    assert job["state"] == "completed", job["error"]
    assert (job["parameters"]["model"], job["parameters"]["loras"]) == (EXPERTS, [{"id": "style", "scale": 0.7}])
    assert "+lora-" in job["parameters"]["revision"]
    await until(told)
    listed = {model["id"]: model for model in (await gateway.get("/v1/models")).json()["data"]}
    assert list(listed)[:2] == [WAN, EXPERTS]
    assert (listed[WAN]["state"], listed["incomplete"]["state"]) == ("loadable", "absent")
    assert "vae/config.json" in listed["incomplete"]["reason"]
    assert listed[EXPERTS]["memory_bytes"] > 1000
    assert [lora["id"] for lora in listed[WAN]["loras"]] == ["foreign", "motion", "style"]
    unknown = await gateway.post("/generate", json={"prompt": "a kite", "model": "sora"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "unknown_model")
    absent = await gateway.post("/generate", json={"prompt": "a kite", "model": "incomplete"})
    assert (absent.status_code, absent.json()["code"]) == (422, "model_absent")


def decoded(video: bytes) -> tuple[list[float], np.ndarray]:
    """When each frame is shown, and all of them."""
    with av.open(io.BytesIO(video), "r") as file:
        frames = list(file.decode(video=0))
    return [frame.time or 0.0 for frame in frames], np.stack([frame.to_ndarray() for frame in frames])


async def test_a_video_goes_on_from_another_in_one_file(gateway: httpx.AsyncClient) -> None:
    asked: dict[str, Any] = {"prompt": "a kite", "model": WAN, "size": "64x64", "num_frames": 9, "steps": 2, "seed": 1}
    contents, job = [], {}
    for _ in range(3):
        job = (await gateway.post("/generate", json=asked, headers={"Prefer": "wait=60"})).json()
        assert (job["state"], job["warnings"]) == ("completed", []), job
        contents.append((await gateway.get(job["urls"]["content"])).content)
        asked = {"extend_from": job["id"], "num_frames": 5}
        assert job["video"]["num_frames"] == 9 + 4 * (len(contents) - 1)
        assert job["video"]["duration_s"] == pytest.approx(job["video"]["num_frames"] / 16, abs=1e-3)
    (_, first), (_, second), (shown_at, whole) = map(decoded, contents)
    assert shown_at == [index / 16 for index in range(17)]
    assert np.array_equal(whole[:13], second)
    assert np.array_equal(second[:9], first)
    refused = await gateway.post("/generate", json={"extend_from": job["id"], "model": EXPERTS})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "body.extend_from")
