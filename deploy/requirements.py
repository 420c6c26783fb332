"""Print what one extra of pyproject.toml needs, one requirement a line, so that an image installs no more."""

import sys
import tomllib
from pathlib import Path


def requirements_of(extra: str, pyproject: Path) -> list[str]:
    """The distribution's own dependencies and those of `extra`."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"][extra]]


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements_of(sys.argv[1], Path(__file__).with_name("pyproject.toml"))) + "\n")
