"""The video service as a process of its own, on a free port, with its log in a file."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

MODULE = ("-m", "video_service")
_START_S = 180.0
Value = TypeVar("Value")


class VideoProcess:
    """A started service; `stop` or `kill` it."""

    def __init__(self, arguments: Sequence[str], data: Path, model: Path, **environment: str) -> None:
        self.port = _free_port()
        self.log_path = data.parent / f"{data.name}-{self.port}.log"
        self._log = self.log_path.open("wb")
        settings = {
            "VIDEO_PORT": str(self.port), "VIDEO_MODEL": str(model), "STILLMOTION_DATA": str(data),
            "VIDEO_THREADS": "1", "VIDEO_DEVICE": "cpu", "VIDEO_DTYPE": "float32",
        }
        self.environment = settings | environment
        self.process = subprocess.Popen(
            [sys.executable, *arguments], env=dict(os.environ) | self.environment,
            stdout=self._log, stderr=self._log, start_new_session=True,
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def wait_ready(self) -> "VideoProcess":
        self.until(lambda: self._answers() and self.http.get("/readyz").status_code == 200, timeout_s=_START_S)
        return self

    def wait_alive(self) -> "VideoProcess":
        self.until(self._answers, timeout_s=_START_S)
        return self

    def worker(self) -> psutil.Process:
        """The worker that renders now."""
        return psutil.Process(int(self.http.get("/readyz").json()["details"]["worker_pid"]))

    def until(self, condition: Callable[[], Value], timeout_s: float = 60.0) -> Value:
        """Poll until `condition` is true and return its value; fails with the service's log."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not true within {timeout_s} s; the log:\n{self.log}"
            time.sleep(0.03)
        return value

    def wait_ended(self, render_id: str, timeout_s: float = 90.0) -> dict:
        """The terminal status."""
        def ended() -> dict | None:
            status = self.http.get(f"/v1/videos/{render_id}").json()
            return status if status["state"] in ("completed", "failed", "canceled") else None

        return self.until(ended, timeout_s) or {}

    def close(self) -> None:
        self.http.close()
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        for child in children:
            if child.is_running():
                child.kill()
        self._log.close()

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"the service ended; its log:\n{self.log}"
        try:
            return self.http.get("/livez").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def running(arguments: Sequence[str], data: Path, model: Path, **environment: str) -> Iterator[VideoProcess]:
    """Start the service and end it, with everything it started."""
    service = VideoProcess(arguments, data, model, **environment)
    try:
        yield service
    finally:
        service.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
