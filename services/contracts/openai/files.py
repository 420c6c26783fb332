"""Pictures uploaded once and referred to often: `/v1/files`. Also OpenAI's file object, so its SDK reads them."""

from typing import Literal

from pydantic import BaseModel, Field

from contracts.openai.pages import Item, Page


class UploadedFile(Item):
    """An uploaded picture, checked and stored; `id` is what `file_id` in a request refers to."""

    object: Literal["file"] = "file"
    bytes: int = Field(description="Of the picture as it is stored.")
    created_at: int = Field(description="Seconds since the epoch.")
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    media_type: str
    width: int = Field(description="Pixels, as stored.")
    height: int = Field(description="Pixels, as stored.")
    sha256: str
    warnings: list[str] = Field(default_factory=list)


class UploadedFilePage(Page[UploadedFile]):
    """A page of files, newest first; pass `last_id` as `after` for the next one."""


class UploadedFileDeleted(BaseModel):
    """The file is gone; jobs that were made from it keep their own copy."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
