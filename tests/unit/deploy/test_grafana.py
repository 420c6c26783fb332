"""The dashboard asks for series that exist."""

import json
import re
from pathlib import Path

from gateway.run.metrics import GatewayMetrics
from video_service.queue.measures import VideoMetrics
from vl_service.http.metrics import VLMetrics
from web.edge import HttpMetricsMiddleware

REPOSITORY = Path(__file__).parents[3]


def test_every_series_of_the_dashboard_and_of_the_documentation_is_served() -> None:
    served: set[str] = set()
    for metrics in (GatewayMetrics(), VideoMetrics(), VLMetrics()):
        HttpMetricsMiddleware(lambda *_: None, metrics.registry)  # pyright: ignore[reportArgumentType] - never called
        served |= {family.name for family in metrics.registry.collect()}
    text = (REPOSITORY / "deploy/grafana/stillmotion.json").read_text()
    board = json.loads(text)
    asked = set(re.findall(r"stillmotion_\w+", " ".join(
        target["expr"] for panel in board["panels"] for target in panel["targets"]
    )))
    chapter = (REPOSITORY / "docs/operating.md").read_text().split("\n## Metrics\n")[1].split("\n## ")[0]
    documented = {
        f"stillmotion_{name}"
        for row in re.findall(r"^\| `.*$", chapter, re.MULTILINE)
        for name in re.findall(r"`(\w+)(?:\{[^}]*\})?`", row.rsplit("|", 2)[0])
    }
    assert len(asked) > 10
    assert len(documented) > 12
    assert {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in asked | documented} <= served
