"""The adapter calls nothing that TensorRT 10.12, TensorRT 11 or TensorRT-RTX has not, by their recorded packages."""

import inspect
import re
from typing import Any

import pytest

from engines.run import trt_protocol
from engines.run.trt_api import TensorRTUnavailable, load_tensorrt_rtx
from engines.run.trt_protocol import TensorRT
from tests.trt_surface.record import describe
from tests.trt_surface.surface import Surface, parameters, read_surface

ALL = ("tensorrt-10", "tensorrt-11", "tensorrt-rtx")


def protocols() -> dict[str, tuple[type, str, bool]]:
    """By name: each class of the page, the library's class that it stands for, whether RTX alone has it."""
    found = {}
    for name, kind in inspect.getmembers(trt_protocol, inspect.isclass):
        if kind.__module__ == trt_protocol.__name__ and kind is not TensorRT:
            doc = inspect.getdoc(kind) or ""
            match = re.match(r"`(\w+)`", doc)
            assert match, f"{name} does not say for which class it stands"
            found[name] = kind, match[1], "TensorRT-RTX only" in doc
    return found


CASES = [
    pytest.param(surface, kind, library, id=f"{surface}-{name}")
    for name, (kind, library, rtx_only) in protocols().items()
    for surface in (("tensorrt-rtx",) if rtx_only else ALL)
]


@pytest.mark.parametrize(("surface_name", "kind", "library"), CASES)
def test_every_property_and_method_is_there_under_that_name_and_with_those_parameters(
    surface_name: str, kind: Any, library: str
) -> None:
    surface = read_surface(surface_name)
    assert set(kind.__annotations__) <= surface.properties(library)
    for name, method in vars(kind).items():
        if inspect.isfunction(method) and name != "__init__" and not name.startswith("_"):
            assert name in surface.methods(library), name
            assert fits(surface, library, name, list(inspect.signature(method).parameters)[1:]), name


def fits(surface: Surface, kind: str, method: str, wanted: list[str]) -> bool:
    """Whether one way to call it begins with these parameters and needs no more."""
    return any(
        list(way)[: len(wanted)] == wanted and all(list(way.values())[len(wanted) :])
        for way in surface.overloads(kind, method)
    )


@pytest.mark.parametrize("name", ALL)
def test_every_class_of_the_module_is_there_and_made_from_those_arguments(name: str) -> None:
    surface = read_surface(name)
    assert set(TensorRT.__annotations__) - {"__version__"} <= surface.classes.keys()
    for kind in ("Builder", "OnnxParser", "Runtime", "Refitter"):
        wanted = list(inspect.signature(getattr(TensorRT, kind)).parameters)[1:]
        assert fits(surface, kind, "__init__", wanted), kind
    assert fits(surface, "Weights", "__init__", ["type", "ptr", "count"])


@pytest.mark.parametrize("name", ALL)
def test_what_the_library_calls_back_is_what_is_overridden(name: str) -> None:
    surface = read_surface(name)
    assert surface.overloads("ILogger", "log") == [{"severity": False, "msg": False}]
    assert list(surface.overloads("IProgressMonitor", "phase_start")[0]) == ["phase_name", "parent_phase", "num_steps"]
    assert list(surface.overloads("IProgressMonitor", "step_complete")[0]) == ["phase_name", "step"]
    assert list(surface.overloads("IProgressMonitor", "phase_finish")[0]) == ["phase_name"]


@pytest.mark.parametrize("name", ALL)
def test_every_member_of_an_enumeration_that_is_named_is_there(name: str) -> None:
    classes = read_surface(name).classes
    assert {"WEIGHT_STREAMING", "REFIT"} <= classes["BuilderFlag"]["members"].keys()
    assert {"INPUT", "OUTPUT"} <= classes["TensorIOMode"]["members"].keys()
    wanted = {"FLOAT", "HALF", "BF16", "INT64", "INT32", "BOOL", "INT8", "UINT8", "FP8"}
    assert wanted <= classes["DataType"]["members"].keys()
    assert ("ComputeCapability" in classes) == ("CudaGraphStrategy" in classes) == (name == "tensorrt-rtx")


def test_tensorrt_11_knows_strong_types_only() -> None:
    """No flags for number formats are left in 11, so that the graph alone decides; 10.12 has both."""
    ten, eleven = read_surface("tensorrt-10").classes, read_surface("tensorrt-11").classes
    assert "FP16" in ten["BuilderFlag"]["members"]
    assert not {"FP16", "BF16", "INT8", "FP8"} & eleven["BuilderFlag"]["members"].keys()
    assert all("STRONGLY_TYPED" in found["NetworkDefinitionCreationFlag"]["members"] for found in (ten, eleven))


def test_the_recorded_surface_of_rtx_is_that_of_the_installed_package() -> None:
    try:
        module: Any = load_tensorrt_rtx()
    except TensorRTUnavailable as error:
        pytest.skip(str(error))
    recorded, found = read_surface("tensorrt-rtx"), describe(module)
    assert found["version"] == recorded.version
    assert found["classes"] == recorded.classes


def test_a_signature_is_read_with_its_defaults() -> None:
    text = "f(self: X, strategy: Kind = <Kind.STATIC: 0>, a: dict[str, int], b: str = None) -> tuple[int, int]"
    assert parameters(text) == {"strategy": True, "a": False, "b": True}
