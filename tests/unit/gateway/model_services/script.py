"""What the played services do, and what they were asked."""

import hashlib
import io
import threading
from dataclasses import dataclass, field

from PIL import Image
from starlette.types import ASGIApp, Receive, Scope, Send

from contracts.chat import ChatRequest
from contracts.describe import DescribeRequest, Verdict
from contracts.errors import Problem
from contracts.models import (
    AbsentModel,
    DeviceInfo,
    FloatRange,
    FrameRange,
    IntRange,
    TemplateInfo,
    VideoModelInfo,
    VLModelInfo,
)
from contracts.videos import RenderStatus, VideoRequest
from web.edge import InternalTokenMiddleware

VIDEO_MODEL = VideoModelInfo(
    id="tiny-wan", revision="r1", engine="torch-cpu", dtype="float32", profile="plain", tasks=["t2v", "i2v"],
    sizes=["256x192", "192x256", "192x192"], size_multiple=16, min_side=64, max_pixels=256 * 256,
    num_frames=FrameRange(minimum=5, maximum=81, default=25, step=4), fps=IntRange(minimum=8, maximum=30, default=16),
    steps=IntRange(minimum=1, maximum=50, default=4), guidance_scale=FloatRange(minimum=1.0, maximum=10.0, default=1.0),
    samplers=["euler", "unipc", "ode", "sde"], unguided_samplers=["ode", "sde"],
    sampler_steps={name: IntRange(minimum=1, maximum=4, default=4) for name in ("ode", "sde")},
)
VL_MODEL = VLModelInfo(
    id="tiny-vl", revision="v1", engine="embedded-cpu", dtype="float32",
    tasks=["caption", "prompt", "edit_suggestion", "question"], languages=["en", "zh"], profiles=["plain", "wan"],
    templates=[TemplateInfo(name="portrait", title={"zh": "人像"})],
    devices=[DeviceInfo(name="NVIDIA H200", memory_bytes=150 * 2**30, free_bytes=100 * 2**30)],
)


def _set_event() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass
class Script:
    """What the services do, and what they were asked. Read and written from the test's thread as well."""

    describe_delay_s: float = 0.0
    describe_status: int = 200
    verdict: Verdict = "ok"
    describe_warnings: list[str] = field(default_factory=list)
    render_warnings: list[str] = field(default_factory=list)
    describe_seats: int = 1000  # more calls at once are refused as too many
    describing: int = 0
    most_describing: int = 0
    vl_at_once: int | None = None  # what the service says that it answers at one time
    describe_calls: list[DescribeRequest] = field(default_factory=list)
    chat_calls: list[ChatRequest] = field(default_factory=list)
    chat_pieces: list[str] = field(default_factory=lambda: ["The cat ", "turns."])
    chat_problem: Problem | None = None  # after the first piece
    chat_goes_on: bool = False  # until the gateway leaves
    chats_left: int = 0
    vl_ready: bool = True
    video_ready: bool = True
    video_stuck: bool = False
    models: list[VideoModelInfo] = field(default_factory=lambda: [VIDEO_MODEL])
    absent: list[AbsentModel] = field(default_factory=list)
    step_s: float = 0.01
    may_go_on: threading.Event = field(default_factory=_set_event)  # cleared: renders stay in step 2, descriptions too
    step_seen: threading.Semaphore | None = None  # given: a render waits for one at every step
    failures: list[Problem] = field(default_factory=list)  # one is used up by each render that begins
    puts: list[str] = field(default_factory=list)
    requests: dict[str, VideoRequest] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    statuses: dict[str, RenderStatus] = field(default_factory=dict)
    busy_answers: int = 0
    put_status: int = 200
    token: str | None = None  # asked for by every call but `/readyz`
    damaged_downloads: int = 0
    forget_on_put: bool = False


def video_bytes(render_id: str) -> bytes:
    """The "MP4" of a render: different for each id."""
    return hashlib.sha256(render_id.encode()).digest() * 4096


def preview_bytes(asked: VideoRequest) -> bytes:
    """The thumbnail, and the sprite sheet, of a render: grey, of its size."""
    out = io.BytesIO()
    Image.new("RGB", (asked.width, asked.height), "grey").save(out, "JPEG")
    return out.getvalue()


def last_frame_bytes(render_id: str, asked: VideoRequest) -> bytes:
    """The last frame of a render: of its size, a grey of its own."""
    out = io.BytesIO()
    grey = hashlib.sha256(render_id.encode()).digest()[0]
    Image.new("RGB", (asked.width, asked.height), (grey, grey, grey)).save(out, "PNG")
    return out.getvalue()


class ScriptedToken:
    """The services' own check, of the token that the script names at that moment."""

    def __init__(self, app: ASGIApp, script: Script) -> None:
        self.app = app
        self.script = script

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await InternalTokenMiddleware(self.app, self.script.token)(scope, receive, send)
