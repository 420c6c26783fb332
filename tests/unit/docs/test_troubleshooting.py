"""docs/troubleshooting.md has an entry for every code that an error of this server can have."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from gateway.services.errors import Kind, ServiceError, ServiceName
from web.problems import code_of

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+|unauthorized|expired")


def codes() -> set[str]:
    """Every code in the sources: of refusals' classes, of problems, and of what is raised with one."""
    sources = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "services").rglob("*.py")]
    written = {code for path in sources if "studio" not in path.relative_to(ROOT).parts
               for code in _of(ast.parse(path.read_text(encoding="utf-8")))}
    of_services = {ServiceError(service, kind, "no").code for service in get_args(ServiceName)
                   for kind in get_args(Kind) if kind not in ("not_found", "conflict")}  # those are mended inside
    return written | of_services | {code_of(status) for status in range(400, 500)}


def _of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [getattr(name, "id", "") for name in node.targets[0].elts]
            if "code" in names and isinstance(node.value, ast.Tuple):
                yield from _constant(node.value.elts[names.index("code")])
        if isinstance(node, ast.Call):
            yield from (code for given in node.keywords if given.arg == "code" for code in _constant(given.value))
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if node.args and name.lower().endswith(("refused", "refusal", "failed")):
                yield from _constant(node.args[0])


def _constant(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and CODE.fullmatch(value.value):
        yield value.value


def entries() -> set[str]:
    return set(re.findall(r"^\| `([a-z0-9_]+)`", PAGE, re.MULTILINE))


def test_every_code_has_an_entry_and_every_entry_a_code() -> None:
    known = codes()
    assert len(known) > 100
    assert known ^ entries() == set()
