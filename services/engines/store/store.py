"""Engines on disk, one folder each, named by the hash of its recipe. Imports no model library.

    <root>/<key>/manifest.json, and the engine's files      <root>/locks/<key>      <root>/tmp/…

A folder appears whole, by one rename. What is found damaged or wrong is refused, with the reason.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from engines.store.manifest import MANIFEST_FORMAT, Check, EngineFile, EngineRefused, Manifest, Recipe
from web.durable import replace_file, sync_folder

MANIFEST_NAME = "manifest.json"
_CHUNK = 2**22


class StoreBusy(Exception):
    """Another process has been building this engine for longer than the caller waits."""


class EngineStore:
    """The folder `root`; made when first written to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, recipe: Recipe) -> Path:
        return self.root / recipe.key

    def manifests(self) -> tuple[list[Manifest], dict[str, str]]:
        """Every engine, and for each folder that is none the reason."""
        found: list[Manifest] = []
        refused: dict[str, str] = {}
        for path in sorted(self.root.glob(f"*/{MANIFEST_NAME}")):
            try:
                found.append(self._read(path))
            except EngineRefused as error:
                refused[path.parent.name] = str(error)
        return found, refused

    def find(self, recipe: Recipe) -> Manifest:
        """The engine of exactly this recipe, whatever its state.

        Raises:
            EngineRefused: not built, built from something else that is near (stale), or its manifest is damaged.
        """
        path = self.folder(recipe) / MANIFEST_NAME
        if path.is_file():
            return self._read(path)
        raise EngineRefused(self._why_missing(recipe))

    def whole(self, recipe: Recipe) -> Manifest | None:
        """As `find`, every byte checked; None where there is no such engine or it is damaged."""
        try:
            manifest = self.find(recipe)
            self.check_files(manifest)
        except EngineRefused:
            return None
        return manifest

    def usable(self, recipe: Recipe) -> Manifest:
        """As `find`, but verified. Raises `EngineRefused`."""
        manifest = self.find(recipe)
        if manifest.state == "quarantined":
            raise EngineRefused(f"{recipe.graph} is quarantined: {manifest.reason}")
        if manifest.state != "verified":
            raise EngineRefused(f"{recipe.graph} was built but never verified: run `stillmotion engines verify`")
        return manifest

    def check_files(self, manifest: Manifest) -> Path:
        """The engine's folder, every byte as it was written. Raises `EngineRefused`; reads the files whole."""
        folder = self.folder(manifest.recipe)
        for name, file in manifest.files.items():
            path = folder / name
            if not path.is_file():
                raise EngineRefused(f"{manifest.recipe.graph}: {name} is missing from {folder.name}")
            if path.stat().st_size != file.num_bytes or _sha256(path) != file.sha256:
                raise EngineRefused(f"{manifest.recipe.graph}: {name} in {folder.name} is corrupt; build it again")
        return folder

    @contextlib.contextmanager
    def lock(self, recipe: Recipe, wait_s: float) -> Iterator[None]:
        """Hold the right to build `recipe`, also against other processes. Raises `StoreBusy` after `wait_s`."""
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / recipe.key, timeout=wait_s, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            raise StoreBusy(f"{recipe.graph} is being built by another process") from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def work_folder(self) -> Iterator[Path]:
        """A folder to build in, on the store's disk; gone afterwards, or with the next one after a kill."""
        self._sweep()
        with _claim(self.root / "tmp") as claim:
            folder = claim.with_suffix("")
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                claim.unlink()

    def _sweep(self) -> None:
        """Remove the work folders of processes that are gone."""
        for claim in (self.root / "tmp").glob("*.claim"):
            with contextlib.suppress(FileNotFoundError), claim.open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # its process lives
                shutil.rmtree(claim.with_suffix(""), ignore_errors=True)
                claim.unlink()

    def put(self, built: Path, manifest: Manifest) -> Manifest:
        """Move the files of `built`, in a work folder, into place, under the lock of their recipe.

        Returns the manifest with them.
        """
        files: dict[str, EngineFile] = {}
        for path in sorted(built.iterdir()):
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            files[path.name] = EngineFile(num_bytes=path.stat().st_size, sha256=_sha256(path))
        manifest = manifest.model_copy(update={"files": files})
        _write(built / MANIFEST_NAME, manifest)
        place = self.folder(manifest.recipe)
        if place.exists():
            place.rename(built.with_name(f"replaced-{place.name}"))  # and goes with the work folder
        built.rename(place)
        sync_folder(self.root)
        return manifest

    def record(self, manifest: Manifest, check: Check) -> Manifest:
        """Write what verifying found: the engine is verified, or quarantined with the figures."""
        reason = None
        if not check.passed:
            reason = (
                f"relative L2 {check.relative_l2:.2e} (bar {check.bar_l2:.0e}), max error {check.max_error:.2e} "
                f"(bar {check.bar_max:.0e}) against torch"
            )
        update = {"check": check, "state": "verified" if check.passed else "quarantined", "reason": reason}
        return self._replace(manifest.model_copy(update=update))

    def quarantine(self, manifest: Manifest, reason: str) -> Manifest:
        """Keep the engine from being used again."""
        return self._replace(manifest.model_copy(update={"state": "quarantined", "reason": reason}))

    def _replace(self, manifest: Manifest) -> Manifest:
        _write(self.folder(manifest.recipe) / MANIFEST_NAME, manifest)
        return manifest

    def _read(self, path: Path) -> Manifest:
        try:
            manifest = Manifest.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise EngineRefused(f"the manifest of {path.parent.name} cannot be read: {error}") from error
        if manifest.format != MANIFEST_FORMAT:
            raise EngineRefused(f"{path.parent.name} has manifest format {manifest.format}, not {MANIFEST_FORMAT}")
        if manifest.recipe.key != path.parent.name:
            raise EngineRefused(f"{path.parent.name} is foreign: its manifest belongs to {manifest.recipe.key}")
        return manifest

    def _why_missing(self, recipe: Recipe) -> str:
        near = [
            other.recipe for other in self.manifests()[0]
            if (other.recipe.graph, other.recipe.target, other.recipe.shape, other.recipe.capability)
            == (recipe.graph, recipe.target, recipe.shape, recipe.capability)
        ]
        if not near:
            return f"{recipe.graph} has no {recipe.target} engine for {recipe.shape}"
        return f"{recipe.graph} has a stale engine only: {recipe.difference(near[0])}; run `stillmotion engines build`"


@contextlib.contextmanager
def _claim(folder: Path) -> Iterator[Path]:
    """A new file in `folder`, locked as long as this process lives and uses it."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        path = folder / f"{secrets.token_hex(8)}.claim"
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another process swept it between the two lines
            if path.exists():
                yield path
                return


def _write(path: Path, manifest: Manifest) -> None:
    replace_file(path, manifest.model_dump_json(indent=1).encode())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
