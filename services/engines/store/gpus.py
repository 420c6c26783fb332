"""Which GPUs run which engines. Imports no model library."""

from engines.store.manifest import EngineRefused, Recipe

RTX_RUNS_ON = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
"""Compute capabilities that TensorRT-RTX 1.7 knows."""

_EXAMPLES = {
    "SM75": "T4, RTX 20", "SM80": "A100", "SM86": "RTX 30, A10", "SM89": "RTX 40, L4, L40S", "SM90": "H100, H200",
    "SM100": "B200", "SM120": "RTX 50", "SM121": "GB10",
}


def name_gpu(capability: str | None) -> str:
    """A compute capability in words, such as `SM89 (RTX 40, L4, L40S)`."""
    if capability is None:
        return "no GPU"
    return f"{capability} ({_EXAMPLES[capability]})" if capability in _EXAMPLES else capability


def check_gpu(recipe: Recipe, capability: str | None) -> None:
    """Raise `EngineRefused` unless an engine of `recipe` runs on the GPU of this machine; says what to build instead.

    TensorRT itself would refuse too, but only after the whole file was read, and in words of its own.
    """
    if recipe.target == "onnx" or recipe.capability == capability:
        return
    here = "and there is no GPU here" if capability is None else f"and this GPU is {name_gpu(capability)}"
    raise EngineRefused(
        f"{recipe.graph} was built for {name_gpu(recipe.capability)}, {here}. {_instead(recipe, capability)}"
    )


def _instead(recipe: Recipe, capability: str | None) -> str:
    command = "stillmotion engines build"
    if capability is None:
        return "Run the service where that GPU is, or leave the choice to it (`auto`)."
    if recipe.target == "tensorrt":
        return f"Run `{command} --target tensorrt` on this machine."
    if capability in RTX_RUNS_ON:
        return f"Run `{command} --target tensorrt-rtx --sm {capability.removeprefix('SM')}`."
    return f"TensorRT-RTX does not run on this GPU: run `{command} --target tensorrt` on this machine."
