"""`python -m on_ray`: both model services as replicas on this machine, until a signal. A cluster: deploy/ray/."""
# pyright: reportMissingImports=false

import signal
import threading
from typing import Any

import ray
from pydantic_settings import BaseSettings, SettingsConfigDict
from ray import serve

from on_ray.app import build


class RaySettings(BaseSettings):
    """Where the directory listens. Those of the services are theirs, from the same environment."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", env_prefix="RAY_")

    host: str = "127.0.0.1"
    port: int = 8010


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    settings, ended = RaySettings(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ray.init(include_dashboard=False, log_to_driver=True)
    serve.start(http_options={"host": settings.host, "port": settings.port})
    serve.run(build(on_this_machine(int(ray.cluster_resources().get("GPU", 0)))), name="stillmotion")
    try:
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def on_this_machine(gpus: int) -> dict[str, Any]:
    """The first GPU describes where there are two, all others render; as in `Shape`."""
    describe = 1 if gpus > 1 else 0
    render = max(1, gpus - describe)
    # At the end of a command nobody waits for half an hour of rendering: the gateway puts it again.
    return {"host": "127.0.0.1", "groups": [
        {"service": "video", "gpus": min(1, gpus), "cpus": 0.1, "min_replicas": render, "max_replicas": render,
         "drain_s": 0},
        {"service": "vl", "gpus": describe, "cpus": 0.1, "drain_s": 0},
    ]}


if __name__ == "__main__":
    main()
