"""`/docs` from files of this machine: no page of ours loads anything from elsewhere."""

from importlib import resources
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse

from contracts.refusal import Refusal
from gateway.api.access import OpenGateway
from gateway.api.media.ranges import RangedFile
from gateway.edge.middleware import current_prefix

router = APIRouter(include_in_schema=False)

# Only the files of this package are used: the current Swagger UI, which reads OpenAPI 3.1.
_ASSETS = Path(str(resources.files("fastapi_swagger"))) / "resources"
_MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png",
}


@router.get("/")
async def root(request: Request, gateway: OpenGateway) -> RedirectResponse:
    """Whoever opens the address in a browser wants the page, or else to know what there is."""
    page = gateway.settings.studio_url
    if page is not None and page.startswith(":"):
        page = str(request.url.replace(path="/", query="", port=int(page[1:])))
    return RedirectResponse(page or f"{current_prefix()}/docs")


@router.get("/docs")
async def docs() -> HTMLResponse:
    """The interactive description of the API."""
    prefix = current_prefix()
    return get_swagger_ui_html(
        openapi_url=f"{prefix}/openapi.json", title="Stillmotion", swagger_js_url=f"{prefix}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{prefix}/docs/swagger-ui.css", swagger_favicon_url=f"{prefix}/docs/favicon-32x32.png",
        swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": 0},
    )


@router.get("/docs/{name}")
async def asset(name: str) -> FileResponse:
    """One of the page's own files."""
    if name not in _MEDIA_TYPES:
        raise Refusal(
            f"There is no {name} among the files of /docs.", status=404, code="not_found", title="Not found")
    return RangedFile(_ASSETS / name, media_type=_MEDIA_TYPES[name], headers={"Cache-Control": "max-age=86400"})
