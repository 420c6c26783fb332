"""The pictures that the worker leaves of running renders, shown to whoever follows them."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from video_service.queue.files import output_path, preview_path
from video_service.queue.render import Render

_LOOK_EVERY_S = 0.2


@asynccontextmanager
async def previews_shown(renders: Sequence[Render]) -> AsyncIterator[None]:
    """While they run, those that ask for it show their latest picture."""
    asking = [render for render in renders if render.request is not None and render.request.preview]
    looking = asyncio.create_task(_look(asking))
    try:
        yield
    finally:
        looking.cancel()


async def _look(renders: Sequence[Render]) -> None:
    while renders:
        await asyncio.sleep(_LOOK_EVERY_S)
        for render in renders:
            jpeg = await asyncio.to_thread(_read, preview_path(output_path(render.folder, "video")))
            if jpeg is not None and render.state == "running":
                render.note(preview=base64.b64encode(jpeg).decode())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:  # none yet, or none any more
        return None
