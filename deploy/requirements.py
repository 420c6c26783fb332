"""Print what extras of pyproject.toml need, one requirement a line, so that an image installs no more.

    python requirements.py video tensorrt-rtx
"""

import sys
import tomllib
from pathlib import Path

ENGINE_EXTRAS = {
    "onnx": ("engines",), "tensorrt-rtx": ("engines", "rtx"), "tensorrt": ("engines", "tensorrt"),
}
"""What a target of `stillmotion engines build` needs; any other word is an extra itself."""


def requirements_of(words: list[str], pyproject: Path) -> list[str]:
    """The distribution's own dependencies and those of the extras that the words stand for."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = [extra for word in words for extra in ENGINE_EXTRAS.get(word, (word,))]
    found = (*project["dependencies"], *(need for extra in extras for need in project["optional-dependencies"][extra]))
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements_of(sys.argv[1:], Path(__file__).with_name("pyproject.toml"))) + "\n")
