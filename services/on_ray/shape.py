"""Which groups of replicas there are, as `args` in a Serve config say it."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ServiceName = Literal["video", "vl"]


class Group(BaseModel):
    """Replicas alike: a service with settings of its own, each on its own share of a node."""

    model_config = ConfigDict(extra="forbid")

    service: ServiceName
    name: str | None = Field(default=None, description="Where two groups are of one service, of which one model each.")
    settings: dict[str, str] = Field(default={}, description="Of the service, as its environment has them.")
    command: list[str] | None = Field(default=None, description="In place of `python -m` and the service's module.")
    gpus: float = Field(default=0, ge=0, description="Left out: those of VIDEO_GPUS, where that is more than one.")
    cpus: float = Field(default=1, gt=0)
    resources: dict[str, float] = Field(default={}, description="Ray's own, such as a kind of node.")
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    work_per_replica: float = Field(default=2, gt=0, description="Renders or calls, at work and waiting.")
    drain_s: float = Field(default=1800, ge=0, description="What a replica that has to go has for its work.")
    scale_down_after_s: float = Field(default=600, ge=0)

    @model_validator(mode="after")
    def _has_the_gpus_of_a_video(self) -> Self:
        wanted = int(self.settings.get("VIDEO_GPUS") or 1)
        if self.service == "vl" or wanted == 1 or self.settings.get("VIDEO_DEVICE") == "cpu":
            return self
        if "gpus" not in self.model_fields_set:
            self.gpus = wanted
        elif 0 < self.gpus != wanted:
            raise ValueError(f"VIDEO_GPUS={wanted} and gpus: {self.gpus:g}: a replica needs gpus: {wanted}")
        return self


class Shape(BaseModel):
    """`args` of the application in a Serve config; the internal token comes from the environment."""

    model_config = ConfigDict(extra="forbid")

    host: str | None = Field(default=None, description="Where replicas listen; left out, at the address of their node.")
    groups: list[Group]


def on_this_machine(gpus: int, gpus_of_a_video: int) -> dict[str, Any]:
    """One GPU describes where one is left of a video's, all others render; as in `Shape`."""
    describe = 1 if gpus > gpus_of_a_video else 0
    render = max(1, (gpus - describe) // gpus_of_a_video)
    # At the end of a command nobody waits for half an hour of rendering: the gateway puts it again.
    return {"host": "127.0.0.1", "groups": [
        {"service": "video", "gpus": min(gpus_of_a_video, gpus), "cpus": 0.1, "min_replicas": render,
         "max_replicas": render, "drain_s": 0},
        {"service": "vl", "gpus": describe, "cpus": 0.1, "drain_s": 0},
    ]}
