"""The gateway and a service of another version, whichever is the newer one, understand each other."""

import base64
import json
from typing import Any

import httpx
import pytest

from contracts.describe import DescribeRequest, DescribeResponse, DescribeTask
from contracts.errors import FieldProblem, Problem
from contracts.models import Health
from contracts.videos import RenderStatus, VideoRequest
from gateway.services.errors import ServiceError
from gateway.services.video import VideoClient
from gateway.services.vl import VLClient
from tests.unit.gateway.model_services import VL_MODEL

IMAGE = b"\x89PNG\xff\x00 of bytes that are no text"
LATER: dict[str, Any] = {"of_a_later_version": 1}


def answering(body: object, seen: list[Any] | None = None) -> httpx.AsyncClient:
    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(json.loads(request.content))
        return httpx.Response(200, json=body)

    return httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://service")


async def test_fields_of_a_later_version_in_an_answer_are_ignored() -> None:
    listed = {"data": [VL_MODEL.model_dump() | LATER], **LATER}
    assert await VLClient(answering(listed), describe_timeout_s=5).models() == [VL_MODEL]
    ready = Health(ready=True).model_dump() | listed  # one body for `/readyz` and `/v1/models`
    probe = await VLClient(answering(ready), describe_timeout_s=5).probe()
    assert probe.health.ready


async def test_a_service_that_knows_no_parts_gets_images_in_the_json() -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers["Content-Type"] != "application/json":  # in its words: the body is no JSON object
            problem = Problem(status=422, code="invalid_request", title="t", detail="d", errors=[
                FieldProblem(field="body", message="Input should be a valid dictionary")])
            return httpx.Response(422, json=problem.model_dump(mode="json"))
        seen.append(json.loads(request.content))
        body = RenderStatus(id="a", state="queued") if request.method == "PUT" else DescribeResponse(
            results=[], model="m", revision="r", engine="e", seconds=0)
        return httpx.Response(200, json=body.model_dump(mode="json"))

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://service")
    asked = {"prompt": "a kite", "width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": 1}
    await VideoClient(http).put("a", VideoRequest.model_validate(asked | {"image": IMAGE}))
    assert seen.pop() == asked | {"image": base64.b64encode(IMAGE).decode()}
    tasks = [DescribeTask(kind="prompt")]
    await VLClient(http, describe_timeout_s=5).describe(DescribeRequest(tasks=tasks, image=IMAGE))
    assert seen.pop() == {"tasks": [{"kind": "prompt"}], "image": base64.b64encode(IMAGE).decode()}


async def test_what_a_service_refuses_in_an_image_is_sent_once() -> None:
    seen: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        problem = Problem(status=422, code="invalid_request", title="t", detail="d", errors=[
            FieldProblem(field="body.image", message="too small")])
        return httpx.Response(422, json=problem.model_dump(mode="json"))

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://service")
    with pytest.raises(ServiceError):
        await VLClient(http, describe_timeout_s=5).describe(
            DescribeRequest(tasks=[DescribeTask(kind="prompt")], image=IMAGE))
    assert len(seen) == 1


async def test_a_request_carries_only_what_it_asks_for_so_that_an_earlier_version_takes_it() -> None:
    seen: list[Any] = []
    video = VideoClient(answering(RenderStatus(id="a", state="queued").model_dump(mode="json"), seen))
    asked = {"prompt": "a kite", "width": 64, "height": 64, "num_frames": 9, "fps": 16, "seed": 1}
    await video.put("a", VideoRequest.model_validate(asked))
    assert seen.pop() == asked
    vl = VLClient(answering({"results": [], "model": "m", "revision": "r", "engine": "e", "seconds": 0}, seen),
                  describe_timeout_s=5)
    await vl.describe(DescribeRequest(tasks=[DescribeTask(kind="prompt", user_prompt="a kite")]))
    assert seen.pop() == {"tasks": [{"kind": "prompt", "user_prompt": "a kite"}]}
