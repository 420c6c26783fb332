"""W3C trace context and ids: continued where they are well-formed, begun anew where not, on every log line."""

import json
import logging

import httpx
import pytest
from fastapi import FastAPI

from web.calls import CallMiddleware, current_call, log_fields, outgoing_headers, working
from web.logs import JsonFormatter

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def app_that_shows_its_call(*, internal: bool) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CallMiddleware, internal=internal)

    @app.get("/")
    async def show() -> dict[str, str]:
        return {**log_fields(), **outgoing_headers()}

    return app


async def shown(app: FastAPI, headers: dict[str, str]) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        return await client.get("/", headers=headers)


async def test_a_callers_trace_is_continued_under_a_span_of_our_own() -> None:
    answer = (await shown(app_that_shows_its_call(internal=False), {"traceparent": PARENT})).json()
    assert answer["trace_id"] == TRACE
    assert answer["span_id"] != "b7ad6b7169203331"
    assert answer["traceparent"] == f"00-{TRACE}-{answer['span_id']}-01"


@pytest.mark.parametrize("header", [
    "", "nonsense", PARENT.upper(), f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-b7ad6b7169203331-01", f"{PARENT}-more", PARENT[:-1],
])
async def test_a_header_that_is_no_traceparent_begins_a_new_trace(header: str) -> None:
    answer = (await shown(app_that_shows_its_call(internal=False), {"traceparent": header})).json()
    assert len(answer["trace_id"]) == 32
    assert answer["trace_id"] not in (TRACE, "0" * 32)


async def test_a_later_version_may_append_fields_which_are_ignored() -> None:
    header = f"01-{TRACE}-b7ad6b7169203331-01-more"
    answer = (await shown(app_that_shows_its_call(internal=False), {"traceparent": header})).json()
    assert answer["trace_id"] == TRACE


async def test_a_job_id_is_heard_from_other_services_of_ours_only() -> None:
    headers = {"X-Stillmotion-Job": "job_1"}
    assert "job_id" not in (await shown(app_that_shows_its_call(internal=False), headers)).json()
    assert (await shown(app_that_shows_its_call(internal=True), headers)).json()["job_id"] == "job_1"


async def test_the_request_id_is_on_the_answer_and_a_malformed_one_is_replaced() -> None:
    app = app_that_shows_its_call(internal=False)
    assert (await shown(app, {"X-Request-ID": "mine-1"})).headers["X-Request-ID"] == "mine-1"
    assert (await shown(app, {"X-Request-ID": "two words"})).headers["X-Request-ID"] != "two words"


def test_every_log_line_names_what_is_worked_on() -> None:
    assert current_call() is None
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO", "name": "x"})
    assert "request_id" not in json.loads(JsonFormatter("s").format(record))
    with working("work", {"X-Request-ID": "r1", "traceparent": PARENT, "X-Stillmotion-Job": "job_1"}):
        line = json.loads(JsonFormatter("s").format(record))
    assert (line["request_id"], line["job_id"], line["trace_id"]) == ("r1", "job_1", TRACE)
    assert current_call() is None
