"""Health checks come for ever; the log keeps what happens beside them."""

import json
import logging

import pytest

from web.logs import configure_logging


def test_an_access_line_of_a_health_check_is_dropped_and_any_other_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("gateway")
    access = logging.getLogger("uvicorn.access")
    for path in ("/readyz", "/livez", "/generate"):
        access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", path, "1.1", 200)
    kept = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert len(kept) == 1
    assert "/generate" in kept[0]
