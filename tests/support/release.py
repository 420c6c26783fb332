"""The last release, installed from its wheel beside what is installed here."""

import io
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import REPOSITORY

LAST = "53b7334bf0e107f54f796365894dff7ed0c84fa6"
"""Until there is a tag: main of 30 November 2026, before LoRAs, dialogues, last images and extended videos."""
EXTRAS = "gateway,vl,video"


class NoSuchCommit(Exception):
    """A shallow clone does not have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An interpreter that runs it and nothing of this tree, and the embedded checkpoints it came with."""

    python: str
    models: Path


def here() -> Release:
    """This tree, as tests run it."""
    return Release(python=sys.executable, models=REPOSITORY / "models")


def installed(folder: Path) -> Release:
    """Build the wheel of the release in `folder` and install it there, with what it needs and is not here.

    The release is what PREVIOUS names, else the latest tag before this commit, else `LAST`. Raises `NoSuchCommit`.
    """
    tree, place = folder / "tree", folder / "venv"
    _unpack(tree)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(tree))
    wheel = next(folder.glob("stillmotion-*.whl"))
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    # Such files are read in an environment's own folder alone, so this tree, installed in the editable way, stays out.
    shared = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (purelib / "shared.pth").write_text("\n".join(shared))
    install = [*pip, "--python", str(python), "install", "--no-warn-conflicts"]
    _run(*install, "--no-deps", "--ignore-installed", str(wheel))
    _run(*install, "-c", str(tree / "constraints.txt"), f"stillmotion[{EXTRAS}]")
    release = Release(python=str(python), models=tree / "models")
    code = "import contracts, gateway, video_service, vl_service as v; print(gateway.__file__, contracts.__file__)"
    for file in _run(release.python, "-c", code).split():
        assert Path(file).is_relative_to(purelib), f"{file} is not the release's"
    return release


def _unpack(tree: Path) -> None:
    tag = _git("describe", "--tags", "--abbrev=0", "HEAD^")
    wanted = os.environ.get("PREVIOUS") or (tag.stdout.decode().strip() if tag.returncode == 0 else LAST)
    archive = _git("archive", wanted)
    if archive.returncode:
        raise NoSuchCommit(f"git has no {wanted}, of which a whole clone knows: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(tree, filter="data")


def _git(*command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", "-C", str(REPOSITORY), *command], capture_output=True, check=False)


def _run(*command: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd="/")
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout
