"""What the vision role serves."""

from fastapi import FastAPI, Request, Response

from vl_service.http.metrics import VLMetrics
from vl_service.model import Model
from vl_service.qwen.vision.wire import CACHE_HEADER, FEATURES_PATH


def add_features_route(app: FastAPI, model: Model, metrics: VLMetrics) -> None:
    """For language roles alone: the gateway has no way here, and the token is asked for as everywhere."""

    @app.post(FEATURES_PATH, response_class=Response)
    async def features(request: Request) -> Response:
        """What the vision tower sees in the picture that is the body: a safetensors file."""
        looked = await model.features(await request.body())
        metrics.looked(looked.cache)
        return Response(
            looked.body, media_type="application/octet-stream", headers={CACHE_HEADER: looked.cache})
