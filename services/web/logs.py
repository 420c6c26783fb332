"""One JSON object a line on standard error: the ids of what is worked on, and whatever was attached by `extra=`."""

import json
import logging
from datetime import UTC, datetime

from web.calls import log_fields
from web.telemetry import HEALTH_PATHS

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, service, logger, message and every extra field."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname, "service": self.service, "logger": record.name, "message": record.getMessage(),
        }
        line.update(log_fields())
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(service: str, level: str = "INFO") -> None:
    """Send all logs of this process through `JsonFormatter`; run uvicorn with `log_config=None`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").addFilter(_is_no_health_check)


def _is_no_health_check(record: logging.LogRecord) -> bool:
    """Health checks and scrapes come every few seconds for ever and would bury everything else."""
    path = record.args[2] if isinstance(record.args, tuple) and len(record.args) > 2 else ""
    return path not in HEALTH_PATHS
