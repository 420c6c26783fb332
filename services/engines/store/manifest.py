"""What is written beside an engine: what it is, what is in it, and whether it was seen to compute the right thing."""

import hashlib
import json
from typing import Literal

from pydantic import ConfigDict, Field

from contracts.models import FrozenModel

Target = Literal["onnx", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
"""The last two: linear layers of the transformers in eight bits; the rest in bf16, of onnx in fp32."""
EngineState = Literal["built", "verified", "quarantined"]

MANIFEST_FORMAT = 1


class EngineRefused(Exception):
    """There is no such engine, or one that must not or cannot be used here; the message says why."""


class Recipe(FrozenModel):
    """All that decides what an engine computes and where it runs. Equal recipes are one engine."""

    revision: str = Field(description="Of the weights: a content hash or hub revision.")
    graph: str
    shape: dict[str, int]
    precision: Precision
    target: Target
    capability: str | None = Field(description="GPU that it was built for, such as `SM89`; None on a CPU.")
    libraries: dict[str, str] = Field(description="Version of each library that made it or runs it.")
    export_format: int

    @property
    def key(self) -> str:
        """Name in the store: a hash of every field."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def difference(self, other: "Recipe") -> str:
        """The fields in which `other` is unlike this, in words."""
        mine, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        unlike = [name for name in mine if mine[name] != theirs[name]]
        return ", ".join(f"{name} {theirs[name]} instead of {mine[name]}" for name in unlike)


class EngineFile(FrozenModel):
    """One file of an engine."""

    num_bytes: int
    sha256: str


class Check(FrozenModel):
    """An engine against torch in float32, on the same seeded input: the worst output counts."""

    model_config = ConfigDict(ser_json_inf_nan="strings")  # an engine may well compute NaN

    relative_l2: float = Field(description="Norm of the difference over the norm of torch's output.")
    max_error: float = Field(description="Largest difference over torch's largest magnitude.")
    bar_l2: float
    bar_max: float
    engine_s: float = Field(description="One run of the engine, after a first one.")
    torch_s: float = Field(description="One run of torch in the number format that the service uses here.")
    device: str
    gpu: str | None = Field(default=None, description="Name of the GPU that the times are of; None on a CPU.")

    @property
    def passed(self) -> bool:
        # Written so that NaN fails.
        return self.relative_l2 <= self.bar_l2 and self.max_error <= self.bar_max


class Manifest(FrozenModel):
    """One engine in the store."""

    model_config = ConfigDict(ser_json_inf_nan="strings")  # an engine may well compute NaN

    format: int = MANIFEST_FORMAT
    model: str
    recipe: Recipe
    files: dict[str, EngineFile]
    nodes: int
    weights: int
    build_s: float
    peak_memory_bytes: int = Field(description="Of the building process so far.")
    streams_weights: bool = Field(default=False, description="Its weights may stay in host memory.")
    refittable: bool = Field(default=False, description="Its weights can be replaced.")
    refitted_from: str | None = Field(
        default=None, description="Key of the engine without the LoRA, whose weights were replaced to make this one."
    )
    state: EngineState = "built"
    check: Check | None = None
    reason: str | None = Field(default=None, description="Why it is quarantined.")

    @property
    def num_bytes(self) -> int:
        return sum(file.num_bytes for file in self.files.values())
