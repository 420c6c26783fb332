"""Processes of a deployment for tests of what dies: each can be killed and started again on its port and data."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
# One for all: each client reads every certificate of the machine, 30 ms of work. Its calls still get fresh connections.
HTTP = httpx.Client(timeout=30, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
_QUIET = {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'services'}"}


class KeptProcess:
    """A service in a process group of its own; its log goes on over restarts."""

    def __init__(
        self, name: str, command: Sequence[str], port: int, folder: Path, settings: Mapping[str, str],
        python: str = sys.executable,
    ) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"{name}.log"
        self._command = [python, *command]
        inherited = {
            key: value for key, value in os.environ.items()
            if not key.startswith(("GATEWAY_", "STILLMOTION_", "VIDEO_", "VL_"))
        }
        self._environment = inherited | _QUIET | dict(settings)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the service itself."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def start(self) -> None:
        """Start it; a former process must have ended."""
        with self.log.open("ab") as stream:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=stream, stderr=stream, start_new_session=True,
                cwd=self.log.parent,
            )

    def lives(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL to it and all it started, as when the machine goes down."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)

    def terminate(self, limit_s: float = 60) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(limit_s)

    def kill_children(self) -> None:
        """SIGKILL to what it started alone."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children(recursive=True):
                child.kill()

    def ready(self) -> bool:
        """Whether `/readyz` says so."""
        with suppress(httpx.TransportError):
            return HTTP.get(f"{self.url}/readyz", timeout=10).status_code == 200
        return False

    def wait_ready(self, limit_s: float = 180) -> None:
        """Wait for `/readyz`."""
        until(self.ready, limit_s, lambda: f"{self.name} is not ready:\n{self.log.read_text()[-4000:]}")


def gateway_process(
    folder: Path, name: str, vl_url: str, video_url: str, database_url: str | None = None, **settings: str
) -> KeptProcess:
    """`python -m gateway` as executor `name`, on data shared by all gateways in `folder`."""
    port = free_port()
    fixed = {
        "GATEWAY_PORT": str(port), "GATEWAY_EXECUTOR_ID": name, "STILLMOTION_DATA": str(folder / "data"),
        "GATEWAY_VL_URL": vl_url, "GATEWAY_VIDEO_URL": video_url, "GATEWAY_MIN_FREE_BYTES": "1",
        "GATEWAY_CONCURRENCY": "4", "GATEWAY_PROVENANCE": "false",  # of scripted workers, whose videos are none
    }
    if database_url is not None:
        fixed["GATEWAY_DATABASE_URL"] = database_url
    return KeptProcess(name, ["-m", "gateway"], port, folder, fixed | settings)


def scripted_video_process(folder: Path, model: Path, **settings: str) -> KeptProcess:
    """The real video service with a scripted worker; `completions` in `folder` has a line for each video written, with
    the job's id and the process of the service."""
    port = free_port()
    fixed = {
        "VIDEO_PORT": str(port), "VIDEO_MODEL": str(model), "STILLMOTION_DATA": str(folder / "video"),
        "VIDEO_DEVICE": "cpu", "VIDEO_DTYPE": "float32", "SCRIPTED_COMPLETIONS": str(folder / "completions"),
    }
    script = str(REPOSITORY / "tests" / "support" / "scripted_video_service.py")
    return KeptProcess("video_service", [script], port, folder, fixed | settings)


def until(reached: Callable[[], object], limit_s: float, otherwise: Callable[[], str] = lambda: "not in time") -> None:
    """Wait for `reached`, looking often."""
    deadline = time.monotonic() + limit_s
    while not reached():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.05)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
