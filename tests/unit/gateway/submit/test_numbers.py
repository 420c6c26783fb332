"""A number is a number in every body: what its language calls one is taken, and no truth, list or infinity is."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from gateway.settings import GatewaySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = create_app(GatewaySettings()).openapi()
JSON = {"Content-Type": "application/json"}
SAYING = [{"role": "user", "content": "a kite"}]
BODIES: dict[str, list[dict[str, Any]]] = {
    "/generate": [{"prompt": "a kite"}],
    "/v1/videos": [{"prompt": "a kite"}],
    "/v1/describe": [{"tasks": [{"kind": "prompt", "user_prompt": "a kite"}]}, {"messages": SAYING}],
    "/v1/chat/completions": [{"model": "tiny-vl", "messages": SAYING}],
}


def numbers_of(schema: dict[str, Any]) -> Iterator[str]:
    """The names of the fields that are numbers."""
    schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    for inner in schema.get("anyOf", schema.get("oneOf", [])):
        yield from numbers_of(inner)
    for name, field in schema.get("properties", {}).items():
        forms = field.get("anyOf", [field])
        if any(form.get("type") in ("integer", "number") or type(form.get("const")) is int for form in forms):
            yield name


def fields() -> list[tuple[str, str]]:
    """Every number at the top of a JSON body of the public API."""
    return [
        (path, name) for path, operations in DOCUMENT["paths"].items()
        for schema in [operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")]
        if schema for name in sorted(set(numbers_of(schema["schema"])))
    ]


NO_NUMBERS = {
    "true": True, "false": False, "list": [4], "object": {"a": 4}, "empty": "", "words": "four", "NaN in words": "nan",
    "infinity in words": "-inf", "true in words": "true", "beyond every float": 10**400, "beyond 2^63": 2**63,
}


async def test_no_field_is_forgotten() -> None:
    found = set(fields())
    assert {path for path, _ in found} == set(BODIES)
    assert {("/generate", "steps"), ("/generate", "seconds"), ("/v1/videos", "guidance_scale"),
            ("/v1/chat/completions", "top_p"), ("/v1/chat/completions", "n"), ("/v1/describe", "seed")} <= found


@pytest.mark.parametrize(("path", "field"), fields())
async def test_what_is_no_number_is_refused_by_its_field(client: httpx.AsyncClient, path: str, field: str) -> None:
    for kind, value in NO_NUMBERS.items():
        for body in BODIES[path]:
            answer = await client.post(path, content=json.dumps(body | {field: value}), headers=JSON)
            assert answer.status_code in (400, 422), (kind, answer.text)
            assert field in answer.text, (kind, answer.text)


@pytest.mark.parametrize("text", ["true", "False", "nan", "inf", "1e999", "four", "4,5", "[4]"])
@pytest.mark.parametrize("field", ["steps", "seconds", "seed", "guidance_scale", "loras"])
async def test_nor_in_a_form(client: httpx.AsyncClient, field: str, text: str) -> None:
    scale = f'[{{"id": "a", "scale": {text}}}]' if field == "loras" else text
    for path in ("/generate", "/v1/videos"):
        for answer in (
            await client.post(path, data={"prompt": "a kite", field: scale}),
            await client.post(path, data={"prompt": "a kite", field: scale}, files={"nothing": ("", b"")}),
        ):
            assert answer.status_code in (400, 422), answer.text
            assert field in answer.text


@pytest.mark.parametrize("steps", [4, 4.0, "4"])
async def test_a_number_is_taken_in_all_of_its_forms(client: httpx.AsyncClient, steps: object) -> None:
    answer = await client.post("/generate", json={"prompt": "a kite", "steps": steps})
    assert answer.status_code == 202, answer.text
    assert answer.json()["parameters"]["steps"] == 4


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1e-9999"])
async def test_no_number_is_without_a_value(client: httpx.AsyncClient, text: str) -> None:
    answer = await client.post(
        "/generate", content=b'{"prompt": "a kite", "seconds": %b}' % text.encode(), headers=JSON)
    assert answer.status_code == 422, answer.text
