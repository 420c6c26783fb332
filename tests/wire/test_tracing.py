"""One request is one trace, through the gateway, the video service and its worker, as a collector receives it."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.processes import gateway_process, scripted_video_process, until
from tests.unit.gateway.model_services import running_services

pytestmark = pytest.mark.slow

TRACE, PARENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LAST = {("gateway", "POST /generate"), ("gateway", "keep"), ("video_service.worker", "work")}
Spans = dict[str, tuple[str, str, str]]
"""By the id of the span: its service, its name, and the id of its parent."""


class Collector(ThreadingHTTPServer):
    """Takes spans over OTLP as any collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.traces: defaultdict[str, Spans] = defaultdict(dict)


class Receiver(BaseHTTPRequestHandler):
    server: Collector  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        said = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in said.resource_spans:
            service = next(one.value.string_value for one in resource.resource.attributes if one.key == "service.name")
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                found = self.server.traces[span.trace_id.hex()]
                found[span.span_id.hex()] = (service, span.name, span.parent_span_id.hex())
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


def test_a_job_and_its_render_belong_to_the_trace_of_their_request(collector: Collector, tmp_path: Path) -> None:
    traced = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_address[1]}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with running_services() as services:
        video = scripted_video_process(tmp_path, tmp_path / "wan", **traced)
        gateway = gateway_process(tmp_path, "gateway", services.vl_url, video.url, **traced)
        try:
            for process in (video, gateway):
                process.start()
            for process in (video, gateway):
                process.wait_ready()
            asked = {"prompt": "a kite", "steps": 2, "enhance": "never"}
            headers = {"traceparent": f"00-{TRACE}-{PARENT_SPAN}-01", "Prefer": "wait=60"}
            job = httpx.post(f"{gateway.url}/generate", json=asked, headers=headers, timeout=90).json()
            assert job["state"] == "completed", job
            spans = collector.traces[TRACE]
            until(lambda: {(service, name) for service, name, _ in list(spans.values())} >= LAST, 30,
                  lambda: f"incomplete: {spans}")
            time.sleep(0.3)
        finally:
            gateway.kill()
            video.kill()
    named = {(service, name) for service, name, _ in spans.values()}
    assert named >= {
        ("gateway", "POST /generate"), ("gateway", "render"), ("video_service", "PUT /v1/videos/{render_id}"),
        ("video_service", "render"), ("video_service.worker", "work"),
    }, named
    [root] = [name for _, name, parent in spans.values() if parent == PARENT_SPAN]
    assert root == "POST /generate"
    assert {parent for _, _, parent in spans.values()} <= {PARENT_SPAN, *spans}, "every other span's parent is there"
