"""What engines are fixed to, whatever they compute. Imports no model library."""

from typing import Protocol, TypeVar


class Shape(Protocol):
    """What some graphs are fixed to, such as a clip's size; equal shapes are equal objects, and print as people say."""

    def fields(self, graph: str) -> dict[str, int]:
        """That of it to which the graph of this name is fixed; graphs of equal fields are one engine."""
        ...


ShapeT = TypeVar("ShapeT", bound=Shape)
