"""What every part of the page works with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from html import escape
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from studio.api import Api, ApiFailure
from studio.words import Words

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The language, the API as the visitor of a request may use it, and where the API is to those who copy a call."""

    words: Words
    api_for: Callable[[Any], Api]
    shown_url: str

    def error(self, sentence: str) -> gr.Error:
        """To be raised: the sentence on the page, until it is closed."""
        return gr.Error(escape(sentence), duration=None, title=self.words["failed"], print_exception=False)

    def told(self, work: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
        """`work`, with a failed call of the API as a sentence on the page."""

        @wraps(work)
        async def telling(*args: _P.args, **more: _P.kwargs) -> _T:
            try:
                return await work(*args, **more)
            except ApiFailure as failure:
                raise self.error(self.words.failure(failure)) from failure

        return telling
