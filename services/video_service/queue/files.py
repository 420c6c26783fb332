"""Renders on disk: `<folder>/<id>/{request.json, status.json, video.mp4, *.jpg}`, each file complete or absent."""

import fcntl
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from contracts.videos import RENDER_ID_PATTERN, RenderFile, RenderResult
from video_service.queue.kept_result import RESULT, kept_result
from video_service.queue.render import RenderRecord
from web.durable import replace_file, sync_folder

log = logging.getLogger(__name__)

REQUEST = "request.json"
STATUS = "status.json"
VIDEO = "video.mp4"
_OUTPUTS: dict[RenderFile, str] = {
    "video": VIDEO, "thumbnail": "thumbnail.jpg", "spritesheet": "spritesheet.jpg",
}
_KEPT = frozenset({REQUEST, STATUS, *_OUTPUTS.values()})


class FolderInUse(Exception):
    """Another process holds the folder; two would render everything twice and mix their files."""


class RenderStore:
    """The folder of the renders. Every method blocks: call it off the event loop.

    A render exists once its `status.json` does, so that a crash at any point leaves a whole render or leftovers
    that `load` clears away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process; raises `FolderInUse`. The kernel lets go when the process dies."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise FolderInUse(
                    f"Another video service works in {self.folder}; stop it, or set STILLMOTION_DATA to another folder."
                ) from error
            yield

    def request_path(self, render_id: str) -> Path:
        return self.folder / render_id / REQUEST

    def video_path(self, render_id: str) -> Path:
        return self.folder / render_id / VIDEO

    def output_path(self, render_id: str, kind: RenderFile) -> Path:
        return self.folder / render_id / _OUTPUTS[kind]

    def create(self, record: RenderRecord, request: bytes) -> None:
        """Write a new render (or one that is retried): the request first, for the status makes it exist."""
        folder = self.folder / record.status.id
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / REQUEST, request)
        self.save(record)
        sync_folder(self.folder)

    def save(self, record: RenderRecord) -> None:
        """Replace the record of an existing render."""
        replace_file(self.folder / record.status.id / STATUS, record.model_dump_json().encode())

    def remove(self, render_id: str) -> None:
        """Forget a render and its files; no error if there is none."""
        folder = self.folder / render_id
        (folder / STATUS).unlink(missing_ok=True)  # first: what is left after a crash is a leftover, not a render
        shutil.rmtree(folder, ignore_errors=True)

    def clear_output(self, render_id: str) -> None:
        """Remove whatever an unfinished render wrote."""
        for path in (self.folder / render_id).glob("*"):
            if path.name not in (REQUEST, STATUS):
                _remove(path)

    def unreported_result(self, render_id: str) -> RenderResult | None:
        """The result of a render whose video is whole, though nobody lived to report it."""
        return kept_result(self.video_path(render_id))

    def load(self) -> list[RenderRecord]:
        """Every render found, oldest first; leftovers of a crash are removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folders = [path for path in self.folder.iterdir() if path.is_dir() and re.match(RENDER_ID_PATTERN, path.name)]
        found = [self._load_one(folder) for folder in folders]
        return sorted((record for record in found if record is not None), key=lambda record: record.created_at)

    def _load_one(self, folder: Path) -> RenderRecord | None:
        try:
            record = RenderRecord.model_validate_json((folder / STATUS).read_bytes())
        except FileNotFoundError:
            log.info("removed the leftovers of a render that was never accepted", extra={"render_id": folder.name})
            shutil.rmtree(folder, ignore_errors=True)
            return None
        except (OSError, ValidationError) as error:
            log.warning("a render's status cannot be read; it is left alone: %s", error, extra={"folder": str(folder)})
            return None
        whole = record.status.state == "running" and kept_result(folder / VIDEO) is not None
        for path in folder.iterdir():
            unwanted = path.name in _OUTPUTS.values() and not whole and record.status.state != "completed"
            if unwanted or (path.name not in _KEPT and not (whole and path.name == RESULT)):
                _remove(path)
        return record if record.status.id == folder.name else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
