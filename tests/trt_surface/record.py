"""Record the Python surface of a TensorRT package: every public class with its methods, properties and enum members.

    python -m tests.trt_surface.record tensorrt-cu13-bindings==11.4.0.106 tensorrt_bindings
    python -m tests.trt_surface.record tensorrt-cu12-bindings==10.12.0.36 tensorrt_bindings
    python -m tests.trt_surface.record tensorrt-rtx-cu13-bindings==1.7.1.116 tensorrt_rtx_bindings

The bindings (1 MB) are enough: they import against libraries that hold nothing but the symbols which they ask for, so
neither the libraries nor a GPU are needed. Needs pip, readelf, nm and a C compiler; the JSON lands beside this file.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

_FOREIGN = re.compile(r"Py|_Py|_ITM|__gmon|_Unwind|.*@")
_STANDARD = re.compile(r"lib(c|m|dl|rt|gcc_s|stdc\+\+|pthread)\.so|ld-linux")


def record(requirement: str, module: str) -> Path:
    """Fetch the bindings, import them in a process of their own and write what they hold; returns the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _call(sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), requirement)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            wheel.extractall(folder)
        _make_libraries(next((folder / module).glob("*.so")), folder / "lib")
        environment = os.environ | {"PYTHONPATH": str(folder), "LD_LIBRARY_PATH": str(folder / "lib")}
        surface = json.loads(_call(sys.executable, __file__, "--dump", module, environment=environment))
    path = Path(__file__).with_name(f"{requirement.split('==')[0].removesuffix('-bindings')}-{surface['version']}.json")
    path.write_text(json.dumps({"package": requirement, **surface}, indent=1) + "\n", encoding="utf-8")
    return path


def _make_libraries(bindings: Path, folder: Path) -> None:
    """For each library that the bindings need, one of that name with the symbols that they leave open."""
    folder.mkdir()
    needed = re.findall(r"NEEDED.*\[(.+)\]", _call("readelf", "-d", str(bindings)))
    symbols = [line.split()[-1] for line in _call("nm", "-D", "--undefined-only", str(bindings)).splitlines()]
    source = folder / "empty.c"
    wanted = sorted({symbol for symbol in symbols if re.match(r"[A-Za-z]", symbol) and not _FOREIGN.match(symbol)})
    source.write_text("\n".join(f"void *{symbol}(void) {{ return 0; }}" for symbol in wanted))
    for library in (name for name in needed if not _STANDARD.match(name)):
        flags = ("-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{library}")
        _call("cc", *flags, "-o", str(folder / library), str(source))


def _call(*command: str, environment: dict[str, str] | None = None) -> str:
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def describe(module: Any) -> dict[str, Any]:
    """Version and classes of an imported module. Of a method: its signatures, without the module's own name."""
    classes = {name: found for name, found in vars(module).items() if isinstance(found, type) and name[0] != "_"}
    return {
        "version": module.__version__,
        "classes": {name: _describe_class(found, module.__name__) for name, found in sorted(classes.items())},
    }


def _describe_class(found: type, module: str) -> Any:
    members = getattr(found, "__members__", None)
    if members is not None:
        return {"members": {name: int(member) for name, member in members.items()}}
    parts = {name: part for name, part in sorted(vars(found).items()) if name[0] != "_" or name == "__init__"}
    nested = {name: _describe_class(part, module) for name, part in parts.items() if isinstance(part, type)}
    return {
        "properties": [name for name, part in parts.items() if isinstance(part, property)],
        "methods": {name: _signatures(name, part, module) for name, part in parts.items() if _is_method(part)},
    } | ({"classes": nested} if nested else {})


def _is_method(part: Any) -> bool:
    return callable(part) and not isinstance(part, type)


def _signatures(name: str, method: Any, module: str) -> list[str]:
    """pybind11 keeps them in the docstring: one line, or one numbered line for each overload."""
    lines = (method.__doc__ or "").splitlines()
    found = [re.sub(r"^\d+\. ", "", line) for line in lines if re.match(rf"(\d+\. )?{re.escape(name)}\(", line)]
    found = [line for line in found if "*args" not in line]
    return [re.sub(rf"\b{module}\.\w+\.", "", line) for line in found]


if __name__ == "__main__":
    if sys.argv[1] == "--dump":
        sys.stdout.write(json.dumps(describe(__import__(sys.argv[2]))))
    else:
        sys.stdout.write(f"{record(*sys.argv[1:])}\n")
