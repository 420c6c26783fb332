"""`stillmotion models pull` from a hub on this machine: licence and size first, resumed, checked."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "5" * 40
WEIGHTS = bytes(range(256)) * 40_000
FILES = {"model_index.json": b"{}", "vae/model.safetensors": WEIGHTS, "vae/model.bin": b"the same once more"}


@dataclass
class Hub:
    """What it was asked, and how it misbehaves."""

    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    breaks_off: bool = False
    damages: bool = False


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self._file(FILES[self.path.partition(f"/resolve/{COMMIT}/")[2]], with_body=False)

        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers["Range"]))
            if self.path.startswith("/api/"):
                answers = {f"/api/models/us/tiny/tree/{COMMIT}": tree(), "/api/models/us/tiny": info()}
                answer = answers.get(self.path.partition("?")[0])
                told = json.dumps(answer).encode()
                return self._send(404 if answer is None else 200, told, {"Content-Type": "application/json"})
            return self._file(FILES[self.path.partition(f"/resolve/{COMMIT}/")[2]], with_body=True)

        def _file(self, content: bytes, with_body: bool) -> None:
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            if not with_body:
                return self._send(200, b"", headers | {"Content-Length": str(len(content))})
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if state.damages and content is WEIGHTS:
                content = b"\xff" * len(content)
            status, rest = (206 if start else 200), content[start:]
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if state.breaks_off and content == WEIGHTS:
                headers["Content-Length"] = str(len(rest))
                self._send(status, rest[: len(rest) // 2], headers)
                self.connection.shutdown(socket.SHUT_RDWR)
                return None
            return self._send(status, rest, headers)

        def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        yield state
        server.shutdown()


def info() -> dict[str, object]:
    def sibling(name: str, content: bytes) -> dict[str, object]:
        sha256 = hashlib.sha256(content).hexdigest()
        lfs = {"sha256": sha256, "size": len(content), "pointerSize": 1} if content is WEIGHTS else None
        return {"rfilename": name, "size": len(content), "blobId": "0", "lfs": lfs}

    return {"_id": "1", "id": "us/tiny", "modelId": "us/tiny", "sha": COMMIT, "private": False, "gated": False,
            "tags": ["license:apache-2.0"], "siblings": [sibling(*one) for one in FILES.items()]}


def tree() -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": name, "size": len(content), "oid": "0"} | (
            {"lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}}
            if content is WEIGHTS else {})
        for name, content in FILES.items()
    ]


def pull(hub: Hub, home: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, for huggingface_hub reads its environment when it is imported."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "gateway.cli", "models", "pull", "us/tiny", *more]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, input="n\n")


def test_a_download_goes_on_where_it_broke_off_and_ends_whole_and_checked(tmp_path: Path) -> None:
    with hub() as there:
        refused = pull(there, tmp_path)
        assert refused.returncode == 1
        assert "apache-2.0" in refused.stderr
        assert "0.01 GiB in 2 files" in refused.stderr, "the .bin beside the .safetensors is left out"
        assert not [path for path, _ in there.asked if "/resolve/" in path], "nothing comes before the answer"
        there.breaks_off = True
        broken = pull(there, tmp_path, "--yes", "--to", str(tmp_path / "tiny"))
        assert broken.returncode == 1
        assert "goes on where it stopped" in " ".join(broken.stderr.split())
        there.breaks_off = False
        done = pull(there, tmp_path, "--yes", "--to", str(tmp_path / "tiny"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tiny" / "vae" / "model.safetensors").read_bytes() == WEIGHTS
    assert not (tmp_path / "tiny" / "vae" / "model.bin").exists()
    assert any(asked and not asked.startswith("bytes=0") for _, asked in there.asked), "some of it came before"
    again = ("--if-missing", "--yes", "--to", str(tmp_path / "tiny"))
    there.asked.clear()
    assert pull(there, tmp_path, *again).returncode == 0, "nobody listens at the hub any more"
    (tmp_path / "tiny" / "model_index.json").unlink()
    assert (pull(there, tmp_path, *again).returncode, there.asked) == (1, [])


def test_a_file_that_is_not_what_the_hub_says_is_removed(tmp_path: Path) -> None:
    with hub() as there:
        there.damages = True
        done = pull(there, tmp_path, "--yes", "--to", str(tmp_path / "tiny"))
    assert done.returncode == 1
    assert "not what the hub says" in " ".join(done.stderr.split())
    assert not (tmp_path / "tiny" / "vae" / "model.safetensors").exists()


def test_without_a_way_to_the_hub_a_sentence_names_the_mirror(tmp_path: Path) -> None:
    done = pull(Hub(url="http://127.0.0.1:1"), tmp_path, "--yes")
    assert (done.returncode, "HF_ENDPOINT" in done.stderr, "Traceback" in done.stderr) == (1, True, False)
