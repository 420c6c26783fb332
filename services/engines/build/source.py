"""What engines are built of: a checkpoint whose graphs a service describes."""

from collections.abc import Mapping
from typing import Literal, Protocol

import torch

from engines.export.graph import Graph
from engines.store.manifest import Precision, Recipe, Target
from engines.store.shape import ShapeT


class GraphSource(Protocol[ShapeT]):
    """One checkpoint. Its weights are read when graphs are first asked for."""

    @property
    def id(self) -> str: ...
    @property
    def device(self) -> Literal["cpu", "cuda"]: ...
    @property
    def dtype(self) -> str:
        """The number format in which the service computes with torch on `device`, such as `float32`."""
        ...

    def revision_of(self, graph: str) -> str:
        """Of the weights of the graph of this name."""
        ...

    def names(self, shape: ShapeT) -> tuple[str, ...]:
        """Of all graphs of `shape`, as far as they are known without the weights; empty: they are not."""
        ...

    def shape_of(self, recipe: Recipe) -> ShapeT | None:
        """A shape that has the graph of an engine that is there; None where the engine is of another checkpoint."""
        ...

    def graphs(self, shape: ShapeT, dtype: torch.dtype) -> Mapping[str, Graph]:
        """Every graph by name; equal shapes give equal inputs up to the rounding of `dtype`."""
        ...

    def engine_graphs(self, shape: ShapeT, precision: Precision, target: Target) -> Mapping[str, Graph]:
        """The graphs as an engine has them: with eight-bit layers where `precision` asks for them.

        Raises `ValueError` where no layer is known to bear them.
        """
        ...
