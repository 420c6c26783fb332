"""Descriptions for jobs: from what was written before where that answers, else from a describing service."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from contracts.describe import DescribeRequest, TaskResult
from contracts.models import VLModelInfo
from gateway.services.prompt_cache import PromptCache, cache_key
from gateway.services.vl import Describers
from gateway.threads import off_loop

log = logging.getLogger(__name__)


class Prompter:
    """Asks about pictures, and asks only once."""

    def __init__(
        self, describers: Describers, cache: PromptCache, known_models: Callable[[], Awaitable[list[VLModelInfo]]],
        looked_up: Callable[[bool], None],
    ) -> None:
        self._describers = describers
        self._cache = cache
        self._known_models = known_models
        self._looked_up = looked_up  # told of every hit (true) and miss

    async def describe(
        self, request: DescribeRequest, picture_sha256: str | None, *, any_seed: bool
    ) -> Sequence[TaskResult]:
        """The answers to the tasks; with `any_seed` also those that another seed led to.

        Raises:
            ServiceError: as `Describers.describe_for_job`.
        """
        keys = await self._keys(request, picture_sha256, any_seed=any_seed)
        found = await self._find(keys)
        if found is None:
            answer = await self._describers.describe_for_job(request)
            found = answer.results
        await self._keep(keys, found)  # also what was found: under this seed it is to be found again
        return found

    async def _keys(self, request: DescribeRequest, picture_sha256: str | None, *, any_seed: bool) -> list[str]:
        models = await self._known_models()
        if not models:
            return []  # who would answer is not known, so no earlier answer counts as theirs
        own = cache_key(request, picture_sha256, models, any_seed=False)
        return [own, cache_key(request, picture_sha256, models, any_seed=True)] if any_seed else [own]

    async def _find(self, keys: Sequence[str]) -> Sequence[TaskResult] | None:
        found = None
        try:
            for key in keys:
                found = await off_loop(self._cache.find, key)
                if found is not None:
                    break
        except SQLAlchemyError:  # a cache that fails is a cache that has nothing
            log.exception("the prompt cache could not be read")
        self._looked_up(found is not None)
        return found

    async def _keep(self, keys: Sequence[str], results: Sequence[TaskResult]) -> None:
        if not keys:
            return
        try:
            await off_loop(self._cache.keep, keys, results)
        except SQLAlchemyError:
            log.exception("a prompt could not be kept")
