"""`python -m on_ray`: both model services as replicas on this machine, until a signal. A cluster: deploy/ray/."""
# pyright: reportMissingImports=false

import signal
import threading

import ray
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from ray import serve

from on_ray.app import build
from on_ray.shape import on_this_machine


class RaySettings(BaseSettings):
    """Where the directory listens. Those of the services are theirs, from the same environment."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", env_prefix="RAY_")

    host: str = "127.0.0.1"
    port: int = 8010
    gpus_of_a_video: int = Field(default=1, ge=1, validation_alias="VIDEO_GPUS")


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    settings, ended = RaySettings(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    ray.init(include_dashboard=False, log_to_driver=True)
    serve.start(http_options={"host": settings.host, "port": settings.port})
    gpus = int(ray.cluster_resources().get("GPU", 0))
    serve.run(build(on_this_machine(gpus, settings.gpus_of_a_video)), name="stillmotion")
    try:
        ended.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
