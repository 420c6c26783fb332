"""Every operation of /openapi.json, called with whatever its schema allows and much that it does not."""

import base64
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import create_app
from gateway.settings import GatewaySettings
from tests.unit.gateway.api.test_error_bodies import error_type
from tests.unit.gateway.conftest import gateway_settings
from tests.unit.gateway.live_gateway import LiveGateway
from tests.unit.gateway.model_services import running_services

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Do not use the `random` module"),  # schemathesis does, when it mutates a case
]
DOCUMENT = schemathesis.openapi.from_dict(create_app(GatewaySettings()).openapi())
FOUND = list(DOCUMENT.get_all_operations())
OPERATIONS = [found.ok() for found in FOUND if isinstance(found, Ok)]
assert len(OPERATIONS) == len(FOUND), "an operation's own schema is not valid"
SEEN: Counter[tuple[str, int]] = Counter()
UNBOUNDED = {"negative_prompt", "enhance", "seed", "metadata", "language", "instruction"}
MAX_EXAMPLES = int(os.environ.get("SCHEMA_EXAMPLES", "6"))
CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance,
]


class Places:
    """A gateway with one completed job and one file that are there whenever they are asked for."""

    def __init__(self, gateway: LiveGateway, picture: bytes) -> None:
        self.client = gateway.client
        self.encoded_picture = base64.b64encode(picture).decode()
        self._picture = {"image": ("cat.png", picture, "image/png")}
        self._job_id = self._file_id = "none"

    def job_id(self) -> str:
        while (shown := self.client.get(f"/v1/jobs/{self._job_id}")).json().get("state") != "completed":
            if shown.is_success and shown.json()["state"] in ("queued", "running"):
                time.sleep(0.05)
                continue
            made = self.client.post("/generate", files=self._picture, headers={"Prefer": "wait=10"})
            self._job_id = made.json().get("id", "none")
            time.sleep(0.0 if made.is_success else 0.2)  # the queue may be full of the jobs of these tests
        return self._job_id

    def conversation_id(self) -> str:
        said = {"messages": [{"role": "user", "content": "a kite"}]}
        return self.client.post("/v1/describe", json=said).raise_for_status().json()["conversation"]

    def file_id(self) -> str:
        if self.client.get(f"/v1/files/{self._file_id}").status_code != 200:
            made = self.client.post("/v1/files", files={"file": self._picture["image"]})
            self._file_id = made.raise_for_status().json()["id"]
        return self._file_id


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., bytes]) -> Iterator[Places]:
    with running_services() as services:
        services.script.step_s = 0.001
        gateway = LiveGateway(gateway_settings(tmp_path_factory.mktemp("schema"), services, max_wait_s=1))
        yield Places(gateway, picture())
        gateway.stop()


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
def test_nothing_is_answered_that_is_not_documented(operation: APIOperation, live: Places) -> None:
    """No 5xx, no status, media type or body beyond the schema; every error is readable JSON."""
    valid = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    invalid = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @settings(max_examples=MAX_EXAMPLES, deadline=None, derandomize=True, database=None,
              suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
    @given(case=st.one_of(valid, invalid))
    def every_call_is_answered_as_documented(case: schemathesis.Case) -> None:
        call(case, live)

    every_call_is_answered_as_documented()


def call(case: schemathesis.Case, live: Places) -> None:
    known = {"conversation_id": live.conversation_id, "job_id": live.job_id, "video_id": live.job_id,
             "file_id": live.file_id, "model_id": lambda: "tiny-wan"}
    for name, real in known.items():
        # Every second call meets something that is there.
        if name in case.path_parameters and len(str(case.path_parameters[name])) % 2:
            case.path_parameters[name] = real()
    if case.operation.path in ("/generate", "/v1/videos") and isinstance(case.body, dict) and len(case.body) % 2:
        # No schema knows the bounds of the model: without the fields that have some, a call comes further.
        case.body = {name: value for name, value in case.body.items() if name in UNBOUNDED} | {"prompt": "a kite"}
    if case.operation.path == "/v1/describe" and case.media_type == "application/json" and SEEN.total() % 2:
        case.body = {"image": live.encoded_picture, "tasks": [{"kind": "caption"}]}  # chance makes no picture
    if case.operation.path == "/v1/chat/completions" and SEEN.total() % 2:
        case.body = {"model": "tiny-vl", "messages": [{"role": "user", "content": "What is this?"}]}
    answer = case.call(base_url=str(live.client.base_url), timeout=20)
    SEEN[case.operation.label, answer.status_code] += 1
    case.validate_response(answer, checks=CHECKS)
    if answer.status_code >= 400 and answer.content:
        body = json.loads(answer.content)
        error_type(case.operation.path).model_validate(body)


def test_the_calls_went_over_the_whole_api_and_further_than_its_door(live: Places) -> None:
    """Nothing was left out of the document but the pages of /docs, and most operations did what they are for."""
    paths = set(live.client.get("/openapi.json").json()["paths"])
    assert {"/generate", "/v1/jobs", "/v1/jobs/{job_id}/events", "/v1/videos", "/v1/videos/{video_id}/remix",
            "/v1/files", "/v1/describe", "/v1/chat/completions", "/v1/models", "/readyz"} <= paths
    succeeded = {label for label, status in SEEN if status < 300}
    # These need a valid picture, a job that still runs, a signature.
    by_chance = {"POST /v1/files", "POST /v1/jobs/{job_id}/cancel", "GET /v1/links/{token}"}
    assert {operation.label for operation in OPERATIONS} - succeeded <= by_chance
