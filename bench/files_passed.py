"""How many of the project's files one request with an image passes, by process, as a profiler sees it.

    python -m bench.files_passed
"""

import asyncio
import io
import json
import runpy
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import httpx
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = tuple(f"{ROOT / part}/" for part in ("gateway", "services"))


@contextmanager
def recorded() -> Iterator[set[str]]:
    """The files in which a function is called or resumed, on any thread that begins or profiles in the block."""
    seen: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>" and frame.f_code.co_filename.startswith(_PACKAGES):
            seen.add(frame.f_code.co_filename.removeprefix(f"{ROOT}/"))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def run_worker(module: str, place: str) -> None:
    """The worker of a service; leaves in `place` what its last piece of work passed."""
    import web.worker.child as child

    do: Callable[..., bool] = child._do

    def recording(*given: Any) -> bool:
        with recorded() as seen:
            went_on = do(*given)
        whole = Path(place).with_suffix(".part")
        whole.write_text(json.dumps(sorted(seen)))
        whole.replace(place)
        return went_on

    child._do = recording
    runpy.run_module(module, run_name="__main__")


async def call(
    app: Any, method: str, path: str, asked: Any, ended: Callable[[dict[str, Any]], bool], place: Path
) -> set[str]:
    """What one call passes in the app's own process, until `ended` says so of what GET of `path` answers.

    Its worker leaves its own in `place`, and is waited for.
    """
    from gateway.services.clients import multipart

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service", timeout=120) as http,
    ):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.1)
        with recorded() as seen:
            answer = await http.request(method, path, **multipart(asked))
            assert answer.is_success, answer.text
            while not ended(answer.json()):
                await asyncio.sleep(0.05)
                answer = await http.get(path)
        while not place.exists():  # noqa: ASYNC240 - nothing else waits
            await asyncio.sleep(0.05)
    return {path for path in seen if not path.startswith("gateway/")}  # the client is the caller's


def image() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (96, 64), "orange").save(out, "PNG")
    return out.getvalue()


def worker(module: str, place: Path) -> tuple[str, ...]:
    return sys.executable, "-m", "bench.files_passed", module, str(place)


def through_video(folder: Path) -> set[str]:
    from contracts.videos import VideoRequest
    from tests.checkpoints.tiny_wan import save_tiny_wan
    from video_service.http.app import create_app
    from video_service.queue.files import RenderFiles
    from video_service.settings import VideoSettings

    settings = VideoSettings(model=str(save_tiny_wan(folder / "wan")), data_dir=folder, device="cpu", dtype="float32")
    app = create_app(settings, RenderFiles(folder), worker_command=worker("video_service.worker", folder / "video"))
    asked = VideoRequest(prompt="zoom", image=image(), width=64, height=64, num_frames=9, fps=16, seed=1, steps=2)
    return asyncio.run(call(app, "PUT", "/v1/videos/a", asked, lambda told: told["state"] == "completed",
                            folder / "video"))


def through_vl(folder: Path) -> set[str]:
    from contracts.describe import DescribeRequest, DescribeTask
    from tests.unit.vl_service.qwen.tiny_qwen import save_tiny_checkpoint
    from vl_service.http.app import create_app
    from vl_service.settings import Settings

    settings = Settings(model=str(save_tiny_checkpoint("qwen2_5_vl", folder / "qwen")), device="cpu", data_dir=folder)
    app = create_app(settings, worker_command=worker("vl_service.worker", folder / "vl"))
    tasks = [DescribeTask(kind="caption"), DescribeTask(kind="prompt")]
    asked = DescribeRequest(image=image(), tasks=tasks, max_new_tokens=8)
    return asyncio.run(call(app, "POST", "/v1/describe", asked, lambda _: True, folder / "vl"))


async def through_gateway(folder: Path) -> set[str]:
    from tests.unit.gateway.conftest import gateway_settings, open_client
    from tests.unit.gateway.model_services import running_services

    with running_services() as services:
        settings = gateway_settings(folder / "gateway", services, dead_after_s=60.0, probe_s=60.0)  # no ticks meanwhile
        async with open_client(settings) as client:
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.1)
            with recorded() as seen:
                answer = await client.post(
                    "/generate", files={"image": ("a.png", image())}, headers={"Prefer": "wait=60"})
            assert answer.json()["state"] == "completed", answer.text
    return {path for path in seen if path.startswith(("gateway", "services/web", "services/contracts"))}


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        passed = {"gateway": asyncio.run(through_gateway(folder))}
        passed["video_service"] = through_video(folder)
        passed["video_service, worker too"] = passed["video_service"] | set(json.loads((folder / "video").read_text()))
        passed["vl_service"] = through_vl(folder)
        passed["vl_service, worker too"] = passed["vl_service"] | set(json.loads((folder / "vl").read_text()))
    for process, files in passed.items():
        print(f"\n{process}: {len(files)}", *sorted(files), sep="\n  ")


if __name__ == "__main__":
    run_worker(*sys.argv[1:3]) if len(sys.argv) == 4 else main()
