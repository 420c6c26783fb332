"""The gateway and a service of another version, whichever is the newer one, understand each other."""

import json
from typing import Any

import httpx

from contracts.describe import DescribeRequest, DescribeTask
from contracts.models import Health
from contracts.videos import RenderStatus, VideoRequest
from gateway.services.clients import VideoClient, VLClient
from tests.unit.gateway.model_services import VL_MODEL

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
