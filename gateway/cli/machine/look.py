"""What this machine has, as far as Stillmotion cares. Nothing is started and no model library imported."""

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GIB = 2**30
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version,compute_cap",
          "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU; memory in GiB, `capability` such as 8.9."""

    name: str
    memory_gib: float
    free_gib: float
    driver: str
    capability: float


def gpus() -> list[Gpu]:
    """As the driver tells; empty where there is no driver."""
    try:
        told = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(told)


def parse_gpus(told: str) -> list[Gpu]:
    """The lines of nvidia-smi; one that is not understood is left out."""
    found = []
    for line in told.splitlines():
        with suppress(ValueError):
            name, memory, free, driver, capability = (part.strip() for part in line.split(","))
            found.append(Gpu(name=name, memory_gib=float(memory) / 1024, free_gib=float(free) / 1024, driver=driver,
                             capability=float(capability)))
    return found


def memory_gib() -> tuple[float, float]:
    """All memory and what is available, in GiB; zeros where the system does not tell."""
    told = {}
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            told[name] = int(value.split()[0]) * 1024 / _GIB
    return told.get("MemTotal", 0.0), told.get("MemAvailable", 0.0)


def free_disk_gib(folder: Path) -> float:
    """Free space where `folder` lies or would lie."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free / _GIB


def processors() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def system() -> str:
    """Such as `Linux 6.1, Python 3.12.4`."""
    return f"{platform.system()} {platform.release()}, Python {platform.python_version()}"


def versions(names: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each distribution."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def is_listening(host: str, port: int) -> bool:
    """Whether something answers there."""
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def hub_cache(environment: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps what it downloads."""
    home = environment.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return Path(environment.get("HF_HUB_CACHE") or Path(home, "hub"))


def model_place(model: str, environment: Mapping[str, str]) -> str | None:
    """Where the model lies on this machine: its folder, the hub's cache, or None."""
    if model == "embedded":
        return "comes with Stillmotion"
    folder = Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    name = model.partition("@")[0].replace("/", "--")
    cached = hub_cache(environment) / f"models--{name}" / "snapshots"
    return str(cached.parent) if cached.is_dir() and any(cached.iterdir()) else None
