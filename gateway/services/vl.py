"""Every vision-language service of this deployment as one: the least busy healthy address answers."""

from contracts.describe import DescribeRequest, DescribeResponse
from contracts.models import Health, VLModelInfo
from gateway.services.clients import RetryPolicy, ServiceError, VLClient
from gateway.services.listing import every_model
from gateway.services.pool import Pool


class Describers:
    """What `VLClient` does, over several addresses."""

    def __init__(self, pool: Pool[VLClient], retries: RetryPolicy) -> None:
        self.pool = pool
        self._retries = retries

    async def aclose(self) -> None:
        """Close the connections."""
        await self.pool.aclose()

    async def health(self) -> Health:
        """Ready when one address is."""
        return await self.pool.health()

    async def models(self) -> list[VLModelInfo]:
        """What they run; raises `ServiceError` where none answers."""
        return await every_model(self.pool, VLClient.models)

    async def describe(self, request: DescribeRequest) -> DescribeResponse:
        """Answer the tasks; retried, for asking twice changes nothing.

        Raises:
            ServiceError: after bounded retries, or at once where a retry would not help.
        """
        return await self._retries.run(lambda: self._ask_in_turn(request))

    async def _ask_in_turn(self, request: DescribeRequest) -> DescribeResponse:
        """One round: the best address, then the next ones while an address is away or busy."""
        problem: ServiceError | None = None
        for member in self.pool.ranked():
            if problem is not None and not member.healthy:
                break  # those put aside are asked only when they are all there is
            try:
                with member.at_work() as client:
                    answer = await client.describe(request)
            except ServiceError as error:
                if error.kind == "unavailable":
                    member.failed(error.detail, silent=error.heard != "answered")
                elif error.kind != "busy":
                    member.answered()
                    raise
                problem = error
                continue
            member.answered()
            return answer
        assert problem is not None, "there is at least one address"
        raise problem
