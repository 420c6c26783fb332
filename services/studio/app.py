"""The page as an ASGI app: Gradio's blocks once for each language, the login, and the files of jobs."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from html import escape
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

import gradio as gr
import httpx
from fastapi import APIRouter, FastAPI, HTTPException, Request
from fastapi import Path as InPath
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from gradio.themes import Base

from contracts.describe import Language
from contracts.models import Health
from studio.api import Api, ApiFailure, Variant
from studio.door import KEY_COOKIE, LOGIN, Admission, DoorMiddleware
from studio.page.build import Setting, build
from studio.settings import StudioSettings
from studio.words import WORDS, Words

router = APIRouter(include_in_schema=False)

LOOK = Path(__file__).with_name("look")
_KEPT_HEADERS = (
    "accept-ranges", "cache-control", "content-disposition", "content-length", "content-range", "content-type", "etag",
)
_ASKED_HEADERS = ("range", "if-range", "if-none-match")
_COOKIE_S = 30 * 86400
# Shown from the first bytes until Gradio's scripts have built the page, which page.js then says.
_LOADING = (
    ".sm-loading::before { content: 'Stillmotion'; position: fixed; inset: 0; display: grid; place-content: center; "
    "font: 600 1.5rem system-ui, sans-serif; color: #57534e; background: #f7f6f3; } "
    "@media (prefers-color-scheme: dark) { .sm-loading::before { color: #b8b2ab; background: #141210; } }"
)
_SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "PingFang SC", "sans-serif")

JobId = Annotated[str, InPath(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


def create_app(settings: StudioSettings) -> FastAPI:
    """The page; nothing is asked of the gateway before somebody opens it."""
    http = httpx.AsyncClient(
        base_url=settings.gateway_url, timeout=15.0, trust_env=False,
        # Below the 5 s after which the gateway closes idle connections, and for as many streams as people watch.
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=2.0),
    )

    def api_for(key: str | None) -> Api:
        return Api(http=http, key=key)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await http.aclose()

    app = FastAPI(title="Stillmotion Studio", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.api_for = api_for
    app.include_router(router)
    for words in WORDS.values():
        _mount(app, words, Setting(
            words=words, api_for=lambda request: api_for(request.cookies.get(KEY_COOKIE)),
            shown_url=settings.shown_url))
    app.add_middleware(DoorMiddleware, admission=Admission(api_for), called_as=settings.called_as)
    return app


def _mount(app: FastAPI, words: Words, setting: Setting) -> None:
    head = (
        f'<script>document.documentElement.lang = "{words["lang"]}";'
        f'document.documentElement.classList.add("sm-loading");</script><style>{_LOADING}</style>'
        '<link rel="icon" href="/look/mark.svg"><script src="/look/page.js"></script>'
    )
    gr.mount_gradio_app(
        app, build(setting), path=f"/{words.language}", css_paths=LOOK / "style.css", head=head, footer_links=[],
        theme=Base(
            primary_hue="teal", neutral_hue="stone", radius_size="lg", font=_SYSTEM_FONTS,
            font_mono=("ui-monospace", "monospace")),
        run_history=False, ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, show_error=True,
        max_file_size="20mb",
    )


@router.get("/livez")
@router.get("/readyz")
async def ready() -> Health:
    """It needs nothing; what it shows is the gateway's."""
    return Health(ready=True)


@router.get("/")
async def root(request: Request) -> RedirectResponse:
    """The page in the visitor's language."""
    query = f"?{request.url.query}" if request.url.query else ""
    return RedirectResponse(f"/{preferred(request)}/{query}", 307)


@router.get("/favicon.ico")
@router.get("/look/{name}")
async def look(name: str = "mark.svg") -> FileResponse:
    """The page's own files."""
    if name not in ("page.js", "mark.svg"):
        raise HTTPException(404)
    return FileResponse(LOOK / name, headers={"Cache-Control": "max-age=300"})


@router.get(LOGIN)
async def login_page(request: Request) -> HTMLResponse:
    """Asks for the key."""
    return _login(WORDS[preferred(request)])


@router.post(LOGIN)
async def login(request: Request) -> Response:
    """Keeps the key in a cookie that no script reads, once the gateway took it."""
    words = WORDS[preferred(request)]
    given = parse_qs((await request.body())[:4096].decode(errors="replace")).get("key", [""])[0].strip()
    try:
        await request.app.state.api_for(given or None).jobs(limit=1)
    except ApiFailure as failure:
        return _login(words, words.failure(failure), 401)
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        KEY_COOKIE, given, max_age=_COOKIE_S, httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


@router.get("/session")
async def session(request: Request) -> dict[str, bool]:
    """Whether there is a key to forget: the page's scripts cannot see the cookie."""
    return {"has_key": KEY_COOKIE in request.cookies}


@router.post("/logout")
async def logout() -> Response:
    """Forgets the key."""
    answer = RedirectResponse(LOGIN, 303)
    answer.delete_cookie(KEY_COOKIE)
    return answer


@router.get("/media/{job_id}/{variant}")
async def media(job_id: JobId, variant: Variant, request: Request) -> Response:
    """A job's video or picture, as far as this visitor may see it."""
    asked = {name: request.headers[name] for name in _ASKED_HEADERS if name in request.headers}
    return await _passed_on(request.app.state.api_for(request.cookies.get(KEY_COOKIE)), job_id, variant, asked)


async def _passed_on(api: Api, job_id: str, variant: Variant, asked: Mapping[str, str]) -> Response:
    """A job's file as the gateway has it: the browser sees one origin, and the key stays in its cookie."""
    open_answer = AsyncExitStack()
    try:
        response = await open_answer.enter_async_context(api.content(job_id, variant, asked))
    except httpx.TransportError as error:
        raise HTTPException(502, "The server cannot be reached.") from error

    async def body() -> AsyncIterator[bytes]:
        async with open_answer:
            async for chunk in response.aiter_raw():
                yield chunk

    kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    return StreamingResponse(body(), response.status_code, kept)


def preferred(request: Request) -> Language:
    """The first language of the browser that this page speaks, else English."""
    for part in request.headers.get("accept-language", "").split(","):
        wanted = part.split(";")[0].strip().split("-")[0].lower()
        for language in WORDS:
            if wanted == language:
                return language
    return "en"


def _login(words: Words, failure: str = "", status: int = 200) -> HTMLResponse:
    page = (LOOK / "login.html").read_text(encoding="utf-8")
    for name in ("lang", "login_title", "login_text", "key", "enter"):
        page = page.replace("{" + name + "}", escape(words[name]))
    return HTMLResponse(page.replace("{failure}", escape(failure)), status)
