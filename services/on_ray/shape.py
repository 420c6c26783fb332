"""Which groups of replicas there are, as `args` in a Serve config say it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ServiceName = Literal["video", "vl"]


class Group(BaseModel):
    """Replicas alike: a service with settings of its own, each on its own share of a node."""

    model_config = ConfigDict(extra="forbid")

    service: ServiceName
    name: str | None = Field(default=None, description="Where two groups are of one service, of which one model each.")
    settings: dict[str, str] = Field(default={}, description="Of the service, as its environment has them.")
    command: list[str] | None = Field(default=None, description="In place of `python -m` and the service's module.")
    gpus: float = Field(default=0, ge=0)
    cpus: float = Field(default=1, gt=0)
    resources: dict[str, float] = Field(default={}, description="Ray's own, such as a kind of node.")
    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    work_per_replica: float = Field(default=2, gt=0, description="Renders or calls, at work and waiting.")
    drain_s: float = Field(default=1800, ge=0, description="What a replica that has to go has for its work.")
    scale_down_after_s: float = Field(default=600, ge=0)


class Shape(BaseModel):
    """`args` of the application in a Serve config; the internal token comes from the environment."""

    model_config = ConfigDict(extra="forbid")

    host: str | None = Field(default=None, description="Where replicas listen; left out, at the address of their node.")
    groups: list[Group]
