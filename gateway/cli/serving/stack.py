"""Which processes make up Stillmotion on one machine, and where each listens."""

import errno
import importlib.util
import ipaddress
import secrets
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

ServiceName = Literal["gateway", "vl", "video", "studio", "ray"]
SERVICE_NAMES: tuple[ServiceName, ...] = ("gateway", "vl", "video")
"""What there is of every Stillmotion; the page may come on top."""
_MODULES: dict[ServiceName, str] = {
    "gateway": "gateway", "vl": "vl_service", "video": "video_service", "studio": "studio",
    "ray": "on_ray",
}


class StackError(Exception):
    """The stack cannot start or go on; the message says which part, why, and what to do."""


class StackSettings(BaseSettings):
    """The fixed environment names that choose where the three services listen. An empty variable counts as unset."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8000, ge=1, le=65535)
    vl_host: str = "127.0.0.1"
    vl_port: int = Field(default=8001, ge=1, le=65535)
    video_host: str = "127.0.0.1"
    video_port: int = Field(default=8002, ge=1, le=65535)
    studio_host: str = "127.0.0.1"
    studio_port: int = Field(default=7861, ge=0, le=65535, description="0: without the page.")
    ray_host: str = "127.0.0.1"
    ray_port: int = Field(default=8010, ge=1, le=65535, description="Of the directory of replicas.")
    stillmotion_data: str = "./data"


def read_settings() -> StackSettings:
    """Read the environment once.

    Raises:
        StackError: a value is not usable; names the variable.
    """
    try:
        return StackSettings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        raise StackError(f"{name}={first['input']} is not usable: {first['msg']}.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """One process: how to start it and where it will listen."""

    name: str
    command: tuple[str, ...]
    host: str
    port: int
    port_variable: str

    @property
    def url(self) -> str:
        """Base URL at which this machine reaches the service."""
        return f"http://{_reachable(self.host)}:{self.port}"


def service_specs(settings: StackSettings, names: Iterable[ServiceName] = SERVICE_NAMES) -> list[ServiceSpec]:
    """Describe the named services as this machine would run them."""
    where = {
        "gateway": (settings.gateway_host, settings.gateway_port),
        "vl": (settings.vl_host, settings.vl_port),
        "video": (settings.video_host, settings.video_port),
        "studio": (settings.studio_host, settings.studio_port),
        "ray": (settings.ray_host, settings.ray_port),
    }
    return [
        ServiceSpec(
            name=name, command=(sys.executable, "-m", _MODULES[name]), host=where[name][0], port=where[name][1],
            port_variable=f"{name.upper()}_PORT",
        )
        for name in names
    ]


def served_names(settings: StackSettings, *, on_ray: bool = False) -> tuple[ServiceName, ...]:
    """Every service that this machine can run: the page where its packages are there and it has a port; `on_ray`: the
    model services as replicas.
    """
    with_page = bool(settings.studio_port) and importlib.util.find_spec("gradio") is not None
    names: tuple[ServiceName, ...] = ("gateway", "ray") if on_ray else SERVICE_NAMES
    return (*names, "studio") if with_page else names


def stack_environment(specs: Iterable[ServiceSpec], inherited: Mapping[str, str]) -> dict[str, str]:
    """Environment of the children: the inherited one, the services' addresses and a token for this session.

    A service that runs alone gets no fresh token: its partners could not know it.
    """
    urls = {spec.name: spec.url for spec in specs}
    added = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}  # their logs are UTF-8, whatever the terminal is
    directory = urls.get("ray", "").replace("http", "ray", 1)
    models = {name: f"{directory}/{name}" if directory else urls.get(name) for name in ("vl", "video")}
    if "gateway" in urls and models["vl"] and models["video"]:
        added |= {
            "STILLMOTION_INTERNAL_TOKEN": secrets.token_urlsafe(32),
            "GATEWAY_VL_URL": models["vl"], "GATEWAY_VIDEO_URL": models["video"],
        }
    if "studio" in urls:
        added |= {"GATEWAY_STUDIO_URL": f":{urls['studio'].rpartition(':')[2]}"}
        if "gateway" in urls:
            added |= {"STUDIO_GATEWAY_URL": urls["gateway"]}
    given = {key: value for key, value in inherited.items() if value or key not in added}
    return added | given


def refuse_taken_ports(specs: Iterable[ServiceSpec]) -> None:
    """Fail before anything starts when a port is not free.

    Raises:
        StackError: names the port, its environment variable and a way out.
    """
    seen: dict[int, str] = {}
    for spec in specs:
        if spec.port in seen:
            raise StackError(f"{seen[spec.port]} and {spec.port_variable} are both {spec.port}; give each its own.")
        seen[spec.port] = spec.port_variable
        problem = _bind_problem(spec)
        if problem:
            raise StackError(f"{spec.name} cannot listen on {spec.host} port {spec.port}: {problem}")


def _bind_problem(spec: ServiceSpec) -> str | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(spec.host, spec.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As uvicorn does: connections in TIME_WAIT from the last run are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            way_out = f"Stop what uses it, or choose another port: {spec.port_variable}={_free_port()}"
            return f"the port is already in use. {way_out}"
        return f"{error.strerror}. Check {spec.port_variable.replace('PORT', 'HOST')} and {spec.port_variable}."
    return None


def _free_port() -> int:
    """A free port; of another family where this machine has no IPv4."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with suppress(OSError), socket.socket(family) as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    return 8000


def _reachable(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:  # "listen everywhere" is no address to call
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{address}]" if address.version == 6 else str(address)
