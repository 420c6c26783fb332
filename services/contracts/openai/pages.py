"""Lists in OpenAI's form, a page at a time."""

from collections.abc import Sequence
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel

Order = Literal["asc", "desc"]


class Item(BaseModel):
    """What is listed."""

    id: str


Listed = TypeVar("Listed", bound=Item)


class Page(BaseModel, Generic[Listed]):
    """Pass `last_id` as `after` for the next one."""

    object: Literal["list"] = "list"
    data: list[Listed]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[Listed], limit: int) -> Self:
        """The first `limit` of what was found, which is one more where there are more."""
        data = list(found[:limit])
        return cls(
            data=data, first_id=data[0].id if data else None, last_id=data[-1].id if data else None,
            has_more=len(found) > limit)
