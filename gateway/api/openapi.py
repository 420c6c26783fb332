"""What the routes say about themselves in /openapi.json."""

from collections.abc import Sequence
from typing import Any

from contracts.errors import PROBLEM_MEDIA_TYPE, Problem
from contracts.jobs import GenerateRequest
from contracts.openai.videos import InputReference, OpenAIError, SharedProblem, VideoCreate, VideoOptions, VideoRemix
from gateway.submit.describing import DescribeForm

DESCRIPTION = """\
**Any picture in, a moving one out.** Post a picture, words, or both to `POST /generate`; follow the job that comes
back; fetch the MP4 from its `content`.

* Errors are `application/problem+json` with a stable `code` and a sentence that says what to do.
* `Prefer: wait=60` keeps the request open until the job ends; `Accept: video/mp4` returns the bytes themselves.
* `GET /v1/jobs/{id}/events` streams progress: place in the queue, stage, step k of n, time left.
"""

_EXPLANATIONS = {
    400: "Something in the request cannot be served; `param` names the field.",
    401: "A key is required: `Authorization: Bearer sm_…`.",
    404: "No such job, or nothing of that kind.",
    406: "Not available in the wanted form.",
    409: "The job's state does not allow it.",
    410: "The files have expired.",
    412: "Not the file that `If-Match` or its date means.",
    413: "More bytes than are taken.",
    415: "Neither multipart/form-data nor application/json, or not a picture of a format that is read.",
    416: "The range lies outside the file.",
    422: "Something in the request cannot be served; `errors` names the fields.",
    429: "The queue is full, or the key's limit is reached; `Retry-After` says when to try again.",
    500: "The server failed; its log has the cause.",
    502: "A service failed this job.",
    503: "A service is not available.",
    507: "The server's disk is nearly full.",
    504: "The render took longer than a render may take.",
}

_EXAMPLE_PROMPT = "The cat turns its head slowly, whiskers trembling, slow zoom in, warm evening light"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can answer with these problems."""
    return {
        status: {
            "description": _EXPLANATIONS[status],
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def openai_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that refuses in OpenAI's words."""
    return {
        status: {"model": OpenAIError, "description": _EXPLANATIONS[status]} for status in statuses
    }


def video_body() -> dict[str, Any]:
    """`openapi_extra` of `POST /v1/videos`: one request in two encodings."""
    create, reference = _inline(VideoCreate.model_json_schema()), InputReference.model_json_schema()
    form = _form(VideoOptions.model_json_schema(), "input_reference")
    form["properties"] |= {
        f"input_reference[{name}]": _form_field(field) for name, field in reference["properties"].items()
    }
    example = {"prompt": _EXAMPLE_PROMPT, "seconds": "4"}
    return {"requestBody": {"required": True, "content": {
        "multipart/form-data": {"schema": form}, "application/json": {"schema": create, "example": example},
    }}}


def remix_body() -> dict[str, Any]:
    """`openapi_extra` of `POST /v1/videos/{id}/remix`."""
    return {"requestBody": {"required": True, "content": {
        "application/json": {"schema": _inline(VideoRemix.model_json_schema())},
    }}}


def generate_body() -> dict[str, Any]:
    """`openapi_extra` of `POST /generate`: one request in two encodings."""
    form = _form(GenerateRequest.model_json_schema(), "image")
    form["properties"]["last_image"] = {
        "type": "string", "format": "binary", "description": "How the video ends; of models with the task `flf2v`."}
    return {"requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/json": {
                "schema": _inline(GenerateRequest.model_json_schema()),
                "examples": {
                    "words": {"summary": "Words only", "value": {"prompt": _EXAMPLE_PROMPT, "seed": 7}},
                    "picture": {
                        "summary": "A picture; the prompt is written from it",
                        "value": {"image": "data:image/png;base64,iVBORw0KGgo…", "seconds": 2},
                    },
                    "both": {
                        "summary": "A picture and words, enhanced by what is seen",
                        "value": {"image": "iVBORw0KGgo…", "prompt": "slow zoom out", "enhance": "auto"},
                    },
                },
            },
        },
    }}


def describe_body() -> dict[str, Any]:
    """`openapi_extra` of `POST /v1/describe`: tasks in JSON, or a form."""
    form = _form(DescribeForm.model_json_schema(), "image")
    example = {
        "image": "data:image/jpeg;base64,/9j/4AAQ…", "language": "en",
        "tasks": [{"kind": "caption"}, {"kind": "question", "question": "What time of day is it?"}],
    }
    return {"requestBody": {"required": True, "content": {
        "multipart/form-data": {"schema": form | {"required": ["image"]}},
        "application/json": {
            "schema": {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in (
                "DescribeRequest", "ConversedRequest")]},
            "examples": {
                "tasks": {"summary": "Tasks", "value": example},
                "dialogue": {"summary": "The next message of a dialogue", "value": {
                    "conversation": "conv_5f0c6b1e9a2d4c7f", "tasks": [{"kind": "prompt"}],
                    "messages": [{"role": "user", "content": "Make it slower, and dusk."}]}},
            },
        },
    }}}


def chat_body() -> dict[str, Any]:
    """`openapi_extra` of `POST /v1/chat/completions`."""
    example = {"model": "embedded", "max_tokens": 100, "messages": [{"role": "user", "content": [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ…"}}]}]}
    return {"requestBody": {"required": True, "content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/ChatCompletionRequest"}, "example": example}}}}


def with_problem(schema: dict[str, Any]) -> dict[str, Any]:
    """Add what only `$ref`s name to a whole OpenAPI document."""
    definitions = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    for name, definition in definitions.pop("$defs", {}).items():
        schemas.setdefault(name, definition)
    schemas["Problem"] = definitions
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            _say_how_it_refuses(operation, openai=path.startswith(("/v1/videos", "/v1/chat")))
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    return schema


def _say_how_it_refuses(operation: dict[str, Any], *, openai: bool) -> None:
    """FastAPI adds its own 422 to whatever has parameters: ours is a problem, and on the OpenAI routes a 400."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]
        if not openai:
            responses["422"] = problems(422)[422]
    # Whatever goes wrong in a way that nobody foresaw.
    if not openai:
        responses.setdefault("500", problems(500)[500])


def with_shared_problems(schema: dict[str, Any], routes: Sequence[str]) -> dict[str, Any]:
    """Name the type of the problems below `routes`, which have OpenAI's error in them."""
    shared = SharedProblem.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in shared.pop("$defs", {}).items():
        schema["components"]["schemas"].setdefault(name, definition)
    schema["components"]["schemas"]["SharedProblem"] = shared
    own, theirs = ({"$ref": f"#/components/schemas/{name}"} for name in ("Problem", "SharedProblem"))
    for path, operations in schema["paths"].items():
        for operation in operations.values() if path.startswith(tuple(routes)) else ():
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    if content.get("schema") == own:
                        content["schema"] = theirs
    return schema


def with_keys(schema: dict[str, Any]) -> dict[str, Any]:
    """Say what every operation that takes a key answers without one, or to one that asks too often."""
    for operation in _guarded(schema):
        statuses = (401, 429) if "requestBody" in operation else (401,)
        for status, response in problems(*statuses).items():
            operation["responses"].setdefault(str(status), response)
    return schema


def without_keys(schema: dict[str, Any]) -> dict[str, Any]:
    """Ask for no key where none is looked at."""
    for operation in _guarded(schema):
        del operation["security"]
    schema["components"].pop("securitySchemes", None)
    return schema


def _guarded(schema: dict[str, Any]) -> list[dict[str, Any]]:
    operations = (operation for path in schema["paths"].values() for operation in path.values())
    return [operation for operation in operations if "security" in operation]


def _form(schema: dict[str, Any], picture_field: str) -> dict[str, Any]:
    """A schema's fields as those of a form, with the picture as a file."""
    form = _inline(schema)
    picture = {"type": "string", "format": "binary", "description": "A still picture of 64 px a side or more."}
    fields = {name: _form_field(field) for name, field in form["properties"].items() if name != picture_field}
    metadata = {"type": "string", "description": "A JSON object of strings; returned unchanged.", "example": ""}
    form["properties"] = {picture_field: picture, **fields, "metadata": metadata}
    if "loras" in fields:
        form["properties"]["loras"] = {
            "type": "string", "example": "",
            "description": "A JSON list of the LoRAs to add, each with `id` and `scale`.",
        }
    return form


def _form_field(field: dict[str, Any]) -> dict[str, Any]:
    """A field of a form: left empty instead of null, and empty in the form of /docs unless it has a default."""
    kinds = [kind for kind in field.get("anyOf", []) if kind != {"type": "null"}]
    flat = {name: value for name, value in field.items() if name not in ("anyOf", "default", "title")}
    flat |= kinds[0] if kinds else {}
    return flat | ({"default": field["default"]} if field.get("default") is not None else {"example": ""})


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without `$defs`: what is named there stands where it is used."""
    definitions = schema.get("$defs", {})

    def spelt(value: Any) -> Any:
        if isinstance(value, list):
            return [spelt(part) for part in value]
        if not isinstance(value, dict):
            return value
        name = str(value.get("$ref", "")).removeprefix("#/$defs/")
        if name in definitions:
            return spelt(definitions[name])
        return {key: spelt(part) for key, part in value.items() if key != "$defs"}

    return spelt(schema)
