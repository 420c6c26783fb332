"""A tiny checkpoint whole and in its two roles, the vision role behind a socket."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from transformers import AutoModelForImageTextToText

from tests.support.photographs import photograph
from tests.unit.vl_service.qwen.tiny_qwen import save_tiny_checkpoint
from tests.unit.vl_service.scenes import prompt_task
from vl_service.backend import Deadline
from vl_service.images import DecodedImage
from vl_service.qwen.backend import QwenBackend, load_qwen
from vl_service.qwen.vision.looking import VisionBackend
from vl_service.qwen.vision.wire import CACHE_HEADER, FORMATS
from vl_service.settings import Settings

CAT = DecodedImage(rgb=photograph("chelsea").resize((150, 100)), width=150, height=100)
TASKS = [prompt_task(kind="caption", max_new_tokens=12),
         prompt_task(kind="question", question="What is it?", max_new_tokens=12)]


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(model=str(folder), device="cpu", greedy=True, **{"data_dir": folder, **more})


def soon(seconds: float = 60) -> Deadline:
    return Deadline(at=time.monotonic() + seconds)


def say(engine: QwenBackend, picture: DecodedImage | None = CAT) -> list[str]:
    tasks = TASKS if picture is not None else [prompt_task("a red balloon", max_new_tokens=12)]
    return [answer.text for answer in engine.describe(picture, tasks, soon()).answers]


def save_sharded(family: str, folder: Path) -> Path:
    """Of several files: some with the tower's weights, some with the language model's alone."""
    save_tiny_checkpoint(family, folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    return folder


def shards(folder: Path, *, with_tower: bool) -> list[Path]:
    places: dict[str, str] = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    of_tower = {file for key, file in places.items() if key.startswith(("visual.", "model.visual."))}
    return [folder / file for file in sorted(set(places.values())) if (file in of_tower) == with_tower]


@dataclass
class Served:
    """A vision backend behind a socket; `answers` are given before it is asked: status, then what the body is."""

    url: str
    asked: list[str]
    answers: list[tuple[int, bytes]]


@contextmanager
def served(vision: VisionBackend) -> Iterator[Served]:
    told = Served(url="", asked=[], answers=[])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            told.asked.append(self.headers.get("Authorization", ""))
            cache = "miss"
            if told.answers:
                status, body = told.answers.pop(0)
            else:
                status = 200
                body, cache = vision.features(DecodedImage.of(sent, FORMATS), soon())
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header(CACHE_HEADER, cache)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One checkpoint whole and in its two roles."""

    folder: Path
    whole: QwenBackend
    vision: VisionBackend
    served: Served

    def language(self, *, fast: bool | None = None, **more: Any) -> QwenBackend:
        return load_qwen(settings(self.folder, role="language", vision_url=self.served.url, **more), fast=fast)
