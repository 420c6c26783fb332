"""The container engine of this machine: Docker where its daemon answers, else podman with podman-compose."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "stillmotion-test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """How to call the engine, and the environment that the compose file reads."""

    name: str
    compose: tuple[str, ...]
    build_flags: tuple[str, ...]
    environment: dict[str, str]

    def run(self, *arguments: str, limit_s: float = 120) -> str:
        """Call the engine; returns its output, raises `subprocess.CalledProcessError`."""
        return self._call((self.name, *arguments), limit_s)

    def compose_run(self, *arguments: str, limit_s: float = 300) -> str:
        """Call compose on the project's file under a project name of the tests' own."""
        return self._call((*self.compose, "-p", PROJECT, *arguments), limit_s)

    def build(self, kind: str, *arguments: str) -> None:
        """Build the image of one service as its Dockerfile says; `arguments` are for the build command."""
        self.build_file(f"deploy/{kind}.Dockerfile", f"stillmotion/{kind}", *arguments)

    def build_file(self, dockerfile: str, tag: str, *arguments: str) -> None:
        """The same of any Dockerfile in the checkout."""
        self._call((self.name, "build", *self.build_flags, "-f", dockerfile, "-t", tag, *arguments, "."), 3000)

    def image_mb(self, kind: str) -> float:
        """Size of an image with all its layers, in megabytes."""
        return int(self.run("image", "inspect", "-f", "{{.Size}}", f"stillmotion/{kind}")) / 1e6

    def container(self, service: str) -> str:
        """Id of the container that runs a service now."""
        return self.run("ps", "-q", "--filter", f"name={PROJECT}[-_]{service}[-_]1$").split()[0]

    def containers(self) -> list[str]:
        """Names of every container of the project, stopped ones included."""
        return self.run("ps", "-a", "--filter", f"name={PROJECT}", "--format", "{{.Names}}").split()

    def _call(self, command: tuple[str, ...], limit_s: float) -> str:
        result = subprocess.run(
            command, cwd=ROOT, env=os.environ | self.environment, capture_output=True, text=True, timeout=limit_s,
            check=False,
        )
        if result.returncode:
            raise AssertionError(f"{shlex.join(command)} failed:\n{result.stdout[-4000:]}\n{result.stderr[-4000:]}")
        return result.stdout.strip()


def find_engine(environment: dict[str, str]) -> Engine | None:
    """The engine to test with, or `None` where the machine has none."""
    flags = shlex.split(os.environ.get("CONTAINER_BUILD_FLAGS", ""))
    if base := os.environ.get("BASE_IMAGE"):
        flags += ["--build-arg", f"BASE_IMAGE={base}"]
    if _answers("docker", "info") and _answers("docker", "compose", "version"):
        return Engine(name="docker", compose=("docker", "compose"), build_flags=tuple(flags), environment=environment)
    composer = shutil.which("podman-compose") or shutil.which("podman-compose", path=str(Path(sys.executable).parent))
    if composer and _answers("podman", "info"):
        # Docker's format: the one that keeps HEALTHCHECK.
        flags = ["--format", "docker", *flags]
        return Engine(name="podman", compose=(composer,), build_flags=tuple(flags), environment=environment)
    return None


def _answers(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def free_ports(count: int) -> list[int]:
    """Of this machine, each another."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
