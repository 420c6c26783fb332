"""`/livez` and `/readyz`."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from contracts.models import Health
from gateway.api.access import OpenGateway
from gateway.api.status.readiness import Readiness

router = APIRouter(tags=["health"])


@router.get("/livez", summary="The process answers")
async def livez() -> Health:
    """Always ready: restarting a process that answers this helps nobody."""
    return Health(ready=True)


@router.get(
    "/readyz", response_model=Health, summary="A render would succeed",
    responses={503: {"model": Health, "description": "It would not; `reasons` says why."}},
)
async def readyz(request: Request, gateway: OpenGateway) -> Response:
    """200 when both services are ready and take our calls, the disk has room and the database takes writes."""
    looks: Readiness | None = getattr(request.app.state, "readiness", None)
    if looks is None or looks.gateway is not gateway:
        looks = request.app.state.readiness = Readiness(gateway)
    health = await looks.look()
    return JSONResponse(health.model_dump(mode="json"), 200 if health.ready else 503)
