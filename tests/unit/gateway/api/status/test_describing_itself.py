"""Health, models, the OpenAPI document and the docs page."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from contracts.jobs import GenerateRequest
from contracts.models import ListedVLModel, ModelList
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.model_services.script import VL_MODEL

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def looked(client: httpx.AsyncClient, wanted: Callable[[httpx.Response], bool]) -> httpx.Response:
    """What `/readyz` says once its look, which all who ask share for a second, is a new one."""
    answer = await client.get("/readyz")
    for _ in range(100):
        if wanted(answer):
            break
        await asyncio.sleep(0.1)
        answer = await client.get("/readyz")
    return answer


async def test_ready_means_both_services_are(client: httpx.AsyncClient, services: Services) -> None:
    assert (await client.get("/livez")).json()["ready"] is True
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["reasons"]) == (200, True, [])
    services.script.video_ready = False
    services.script.vl_ready = False
    unready = await looked(client, lambda answer: answer.status_code == 503)
    assert unready.json()["reasons"] == ["vl_service: the weights are loading", "video_service: the model is loading"]
    assert unready.json()["stuck"] is False, "waiting helps"
    services.script.video_stuck = True
    stuck = (await looked(client, lambda answer: answer.json()["stuck"])).json()
    assert (stuck["stuck"], stuck["reasons"][1]) == (True, "video_service: the transformer is missing")
    assert (await client.get("/livez")).status_code == 200


async def test_models_of_both_services_are_listed_with_their_bounds(client: httpx.AsyncClient) -> None:
    models = ModelList.model_validate((await client.get("/v1/models")).json()).data
    assert [(model.kind, model.id) for model in models] == [("video", "tiny-wan"), ("vl", "tiny-vl")]
    vl = models[1]
    assert isinstance(vl, ListedVLModel)
    assert (vl.templates, vl.devices) == (VL_MODEL.templates, VL_MODEL.devices)


async def test_the_docs_page_and_its_files_come_from_here(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).headers["Location"] == "/docs"
    page = await client.get("/docs")
    assert page.status_code == 200
    assert not re.findall(r"(?:https?:)?//[a-z]", page.text), "no address of another machine"
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(files) == 3
    for name in files:
        asset = await client.get(name)
        assert asset.status_code == 200
        assert len(asset.content) > 500
    bundle = await client.get("/docs/swagger-ui-bundle.js")
    assert "javascript" in bundle.headers["Content-Type"]
    for outside in ("/docs/main.py", "/docs/..%2fmain.py", "/docs/__init__.py"):
        assert (await client.get(outside)).status_code == 404


async def test_every_operation_explains_itself_and_every_reference_leads_somewhere(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operations = [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items() for method, operation in methods.items()
    ]
    assert len(operations) == len({operation["operationId"] for _, operation in operations})
    for name, operation in operations:
        assert operation["summary"], name
        assert operation["description"], name
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference


async def test_generate_documents_both_encodings_every_field_and_examples(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    content = document["paths"]["/generate"]["post"]["requestBody"]["content"]
    for encoding in ("multipart/form-data", "application/json"):
        assert set(content[encoding]["schema"]["properties"]) == {*GenerateRequest.model_fields}
    assert content["multipart/form-data"]["schema"]["properties"]["image"]["format"] == "binary"
    assert content["application/json"]["examples"]
    assert {"200", "202", "413", "415", "422", "429", "503"} <= set(document["paths"]["/generate"]["post"]["responses"])


async def test_what_is_not_there_is_a_problem_too(client: httpx.AsyncClient) -> None:
    for method, path, status in (("GET", "/nowhere", 404), ("PUT", "/generate", 405)):
        answer = await client.request(method, path)
        assert answer.status_code == answer.json()["status"] == status
        assert answer.headers["Content-Type"] == "application/problem+json"


def references(node: Any) -> Iterator[str]:
    """Every `$ref` in a JSON document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)
